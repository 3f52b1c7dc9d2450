/* SPDX-License-Identifier: BSD-2-Clause */
/* Append bytes to a buffer that may be too small. */
#ifndef BASE_OUT_H
#define BASE_OUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct out {
	uint8_t *buf;
	size_t len, size; /* what it holds, and may hold */
	bool full;        /* something did not fit; nothing follows it */
};

static inline void out_write(struct out *out, const void *data, size_t len)
{
	if (out->full || len > out->size - out->len) {
		out->full = true;
		return;
	}
	if (len > 0)
		memcpy(out->buf + out->len, data, len);
	out->len += len;
}

#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/* Bytes put one behind the other, into a buffer that may be too small. */
#ifndef BASE_OUT_H
#define BASE_OUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct out {
	uint8_t *at;
	size_t room; /* bytes from there */
	bool full;   /* something did not fit, and is not there */
};

static inline void out_put(struct out *out, const void *data, size_t len)
{
	if (len > out->room) {
		out->full = true;
		return;
	}
	memcpy(out->at, data, len);
	out->at += len;
	out->room -= len;
}

#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A cursor over scattered bytes.
 *
 * A guest may cut a request into buffers wherever it likes, so a device sees
 * bytes, not buffers: it takes a header off the front, a status byte off the
 * end, and what is left is the payload, ready for preadv().
 *
 *	iov:   [ 3 ][ 17      ][ 512        ]        a 16 byte header, payload
 *	iov_take(c, &hdr, 16):
 *	iov:        [ 4 ][ 512        ]              what is left
 *
 * The entries are shortened in place. Counts are bytes; each function does as
 * much as there is and returns how much that was.
 */
#ifndef BASE_IOV_H
#define BASE_IOV_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct iov_cursor {
	struct iovec *iov; /* what is left */
	int niov;
};

size_t iov_len(const struct iov_cursor *c);

/* Move past @len bytes. */
size_t iov_skip(struct iov_cursor *c, size_t len);

/* Copy from the front, without and with moving past it. */
size_t iov_peek(const struct iov_cursor *c, void *buf, size_t len);
size_t iov_take(struct iov_cursor *c, void *buf, size_t len);

/* Copy to the front, or fill it with zeroes, and move past it. */
size_t iov_put(struct iov_cursor *c, const void *buf, size_t len);
size_t iov_zero(struct iov_cursor *c, size_t len);

/* Take the last byte off: where it is, or NULL when there is none. */
uint8_t *iov_take_last(struct iov_cursor *c);

#endif

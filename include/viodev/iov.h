/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A cursor over scattered bytes.
 *
 * A driver may split a request into buffers anywhere (virtio 2.7.4), so a
 * device model handles bytes, not buffers: it takes a header from the front and
 * a status byte from the end. The remainder is the payload, ready for
 * preadv(2).
 *
 *	iov:   [ 3 ][ 17      ][ 512        ]        a 16 byte header, payload
 *	vio_iov_take(c, &hdr, 16):
 *	iov:        [ 4 ][ 512        ]              what is left
 *
 * The entries are shortened in place. Counts are bytes. Each function processes
 * at most what remains and returns that number.
 */
#ifndef VIODEV_IOV_H
#define VIODEV_IOV_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/uio.h>

struct vio_iov_cursor {
	struct iovec *iov; /* the remainder */
	int niov;
};

static inline size_t vio_iov_min(size_t a, size_t b)
{
	return a < b ? a : b;
}

/* The number of bytes that remain. */
static inline size_t vio_iov_len(const struct vio_iov_cursor *c)
{
	size_t len = 0;

	for (int i = 0; i < c->niov; i++)
		len += c->iov[i].iov_len;
	return len;
}

/* Move past @len bytes. */
static inline size_t vio_iov_skip(struct vio_iov_cursor *c, size_t len)
{
	size_t done = 0;

	while (c->niov > 0) {
		size_t n = vio_iov_min(len - done, c->iov->iov_len);

		done += n;
		if (n < c->iov->iov_len) {
			c->iov->iov_base = (char *)c->iov->iov_base + n;
			c->iov->iov_len -= n;
			break;
		}
		c->iov++;
		c->niov--;
	}
	return done;
}

/* Copy from the front. vio_iov_take() moves past it as well. */
static inline size_t vio_iov_peek(const struct vio_iov_cursor *c, void *buf,
				  size_t len)
{
	size_t done = 0;

	for (int i = 0; i < c->niov && done < len; i++) {
		size_t n = vio_iov_min(len - done, c->iov[i].iov_len);

		if (n > 0)
			memcpy((char *)buf + done, c->iov[i].iov_base, n);
		done += n;
	}
	return done;
}

static inline size_t vio_iov_take(struct vio_iov_cursor *c, void *buf,
				  size_t len)
{
	return vio_iov_skip(c, vio_iov_peek(c, buf, len));
}

/* Private: copy @buf to the front, or zeroes when it is NULL. */
static inline size_t vio_iov_fill(struct vio_iov_cursor *c, const void *buf,
				  size_t len)
{
	const char *from = (const char *)buf;
	size_t done = 0;

	for (int i = 0; i < c->niov && done < len; i++) {
		size_t n = vio_iov_min(len - done, c->iov[i].iov_len);

		if (n > 0 && from)
			memcpy(c->iov[i].iov_base, from + done, n);
		else if (n > 0)
			memset(c->iov[i].iov_base, 0, n);
		done += n;
	}
	return vio_iov_skip(c, done);
}

/* Copy to the front, or fill it with zeroes, and move past it. */
static inline size_t vio_iov_write(struct vio_iov_cursor *c, const void *buf,
				   size_t len)
{
	return vio_iov_fill(c, buf, len);
}

static inline size_t vio_iov_zero(struct vio_iov_cursor *c, size_t len)
{
	return vio_iov_fill(c, NULL, len);
}

/* Remove the last byte. Returns its address, or NULL when none remains. */
static inline uint8_t *vio_iov_take_last(struct vio_iov_cursor *c)
{
	while (c->niov > 0) {
		struct iovec *last = &c->iov[c->niov - 1];

		if (last->iov_len > 0)
			return (uint8_t *)last->iov_base + --last->iov_len;
		c->niov--;
	}
	return NULL;
}

#endif

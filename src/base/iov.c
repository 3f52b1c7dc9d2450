/* SPDX-License-Identifier: BSD-2-Clause */
#include "base/iov.h"

#include <string.h>

static size_t min_len(size_t a, size_t b)
{
	return a < b ? a : b;
}

size_t iov_len(const struct iov_cursor *c)
{
	size_t len = 0;

	for (int i = 0; i < c->niov; i++)
		len += c->iov[i].iov_len;
	return len;
}

size_t iov_skip(struct iov_cursor *c, size_t len)
{
	size_t done = 0;

	while (c->niov > 0) {
		size_t n = min_len(len - done, c->iov->iov_len);

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

size_t iov_peek(const struct iov_cursor *c, void *buf, size_t len)
{
	size_t done = 0;

	for (int i = 0; i < c->niov && done < len; i++) {
		size_t n = min_len(len - done, c->iov[i].iov_len);

		if (n > 0)
			memcpy((char *)buf + done, c->iov[i].iov_base, n);
		done += n;
	}
	return done;
}

size_t iov_take(struct iov_cursor *c, void *buf, size_t len)
{
	return iov_skip(c, iov_peek(c, buf, len));
}

/* Copy @buf, or zeroes when it is NULL. */
static size_t fill(struct iov_cursor *c, const char *buf, size_t len)
{
	size_t done = 0;

	for (int i = 0; i < c->niov && done < len; i++) {
		size_t n = min_len(len - done, c->iov[i].iov_len);

		if (n > 0 && buf)
			memcpy(c->iov[i].iov_base, buf + done, n);
		else if (n > 0)
			memset(c->iov[i].iov_base, 0, n);
		done += n;
	}
	return iov_skip(c, done);
}

size_t iov_put(struct iov_cursor *c, const void *buf, size_t len)
{
	return fill(c, buf, len);
}

size_t iov_zero(struct iov_cursor *c, size_t len)
{
	return fill(c, NULL, len);
}

uint8_t *iov_take_last(struct iov_cursor *c)
{
	while (c->niov > 0) {
		struct iovec *last = &c->iov[c->niov - 1];

		if (last->iov_len > 0)
			return (uint8_t *)last->iov_base + --last->iov_len;
		c->niov--;
	}
	return NULL;
}

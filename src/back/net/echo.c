/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A loopback cable: each frame returns on the channel that it was sent on. Frames
 * that the driver does not receive in time are lost, as on a network.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "back/net/net_be.h"
#include <viodev/iov.h>

#define ROOM (256u << 10) /* bytes in flight on a channel */

/* Frames, each behind its length; one that would not fit at the end is at the
 * start, behind a length of 0. */
struct channel {
	bool watched;
	uint32_t head, tail; /* read here, write there; equal: empty */
	uint8_t bytes[ROOM];
};

struct echo {
	struct net_be be; /* first */
	struct vio_loop *loop;
	struct vio_task task;
	struct channel channels[]; /* be.nr_channels */
};

static const uint32_t wrapped = 0;

/* Where @need bytes go, or NULL. It never becomes completely full. */
static uint8_t *find_room(struct channel *c, uint32_t need)
{
	if (c->tail >= c->head && ROOM - c->tail < need + sizeof(wrapped)) {
		if (c->head <= need)
			return NULL;
		memcpy(c->bytes + c->tail, &wrapped, sizeof(wrapped));
		c->tail = 0;
	}
	if (c->tail < c->head && c->head - c->tail <= need)
		return NULL;
	return c->bytes + c->tail;
}

static int echo_send(struct net_be *be, unsigned channel, struct iovec *iov,
		     int niov)
{
	struct echo *echo = (struct echo *)be;
	struct channel *c = &echo->channels[channel];
	struct vio_iov_cursor from = { iov + 1, niov - 1 };
	uint32_t len = (uint32_t)vio_iov_len(&from);
	uint8_t *to = len > 0 ? find_room(c, len + sizeof(len)) : NULL;

	if (!to)
		return -ENOBUFS;
	memcpy(to, &len, sizeof(len));
	vio_iov_take(&from, to + sizeof(len), len);
	c->tail += len + sizeof(len);
	if (c->watched)
		vio_task_defer(echo->loop, &echo->task);
	return 0;
}

/* Whether the whole frame fitted. */
static bool scatter(const struct iovec *iov, int niov, const uint8_t *from,
		    size_t len)
{
	for (; niov > 0 && len > 0; iov++, niov--) {
		size_t n = iov->iov_len < len ? iov->iov_len : len;

		memcpy(iov->iov_base, from, n);
		from += n;
		len -= n;
	}
	return len == 0;
}

static ssize_t echo_recv(struct net_be *be, unsigned channel,
			 const struct iovec *iov, int niov)
{
	struct channel *c = &((struct echo *)be)->channels[channel];
	uint32_t len;
	bool fits;

	if (c->head == c->tail)
		return -EAGAIN;
	memcpy(&len, c->bytes + c->head, sizeof(len));
	if (len == wrapped) {
		c->head = 0;
		memcpy(&len, c->bytes, sizeof(len));
	}
	fits = scatter(iov + 1, niov - 1, c->bytes + c->head + sizeof(len),
		       len);
	c->head += len + sizeof(len);
	return fits ? (ssize_t)len : 0;
}

static void on_task(void *arg)
{
	struct echo *echo = arg;

	for (unsigned i = 0; i < echo->be.nr_channels; i++) {
		struct channel *c = &echo->channels[i];

		if (c->watched && c->head != c->tail)
			echo->be.client->readable(echo->be.client_arg, i);
	}
}

static void echo_watch(struct net_be *be, unsigned channel, bool on)
{
	struct echo *echo = (struct echo *)be;
	struct channel *c = &echo->channels[channel];

	c->watched = on;
	if (on && c->head != c->tail)
		vio_task_defer(echo->loop, &echo->task);
}

static void echo_destroy(struct net_be *be)
{
	struct echo *echo = (struct echo *)be;

	vio_task_cancel(echo->loop, &echo->task);
	free(echo);
}

static const struct net_be_ops echo_ops = {
	.name = "echo",
	.recv = echo_recv,
	.send = echo_send,
	.watch = echo_watch,
	.destroy = echo_destroy,
};

static int echo_create(const struct opts *opts, struct opened_files *files,
		       struct vio_loop *loop, struct net_be **ret_be,
		       struct err *err)
{
	unsigned nr = (unsigned)opt_number(opts, "queues");
	struct echo *echo =
		calloc(1, sizeof(*echo) + nr * sizeof(struct channel));

	if (!echo)
		return err_set(err, -ENOMEM, "net: out of memory");
	echo->be.ops = &echo_ops;
	echo->be.nr_channels = nr;
	echo->be.most_bytes = nr * sizeof(struct channel);
	echo->loop = loop;
	echo->task = (struct vio_task){ .fn = on_task, .arg = echo };
	*ret_be = &echo->be;
	return 0;
}

const struct net_be_kind net_kind_echo = {
	.name = "echo",
	.multi = true,
	.create = echo_create,
};

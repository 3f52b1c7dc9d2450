/* SPDX-License-Identifier: BSD-2-Clause */
/* Discards frames and receives none; the link is up. */
#include <errno.h>
#include <stdlib.h>

#include "back/net/net_be.h"

static ssize_t null_recv(struct net_be *be, unsigned channel,
			 const struct iovec *iov, int niov)
{
	return -EAGAIN;
}

static int null_send(struct net_be *be, unsigned channel, struct iovec *iov,
		     int niov)
{
	return 0;
}

static void null_watch(struct net_be *be, unsigned channel, bool on)
{
}

static void null_destroy(struct net_be *be)
{
	free(be);
}

static const struct net_be_ops null_ops = {
	.name = "null",
	.recv = null_recv,
	.send = null_send,
	.watch = null_watch,
	.destroy = null_destroy,
};

static int null_create(const struct opts *opts, struct opened_files *files,
		       struct vio_loop *loop, struct net_be **ret_be,
		       struct err *err)
{
	struct net_be *be = calloc(1, sizeof(*be));

	if (!be)
		return err_set(err, -ENOMEM, "net: out of memory");
	be->ops = &null_ops;
	be->nr_channels = (unsigned)opt_number(opts, "queues");
	*ret_be = be;
	return 0;
}

const struct net_be_kind net_kind_null = {
	.name = "null",
	.multi = true,
	.create = null_create,
};

/* SPDX-License-Identifier: BSD-2-Clause */
/* The io_uring engine of a build without liburing. See uring.c. */
#include <errno.h>

#include "back/disk/engine.h"

static int uring_create(struct vio_loop *loop, unsigned depth,
			unsigned nr_disks, void **ret_impl)
{
	return -ENOPKG;
}

const struct disk_engine_ops disk_uring = {
	.name = "io_uring",
	.create = uring_create,
};

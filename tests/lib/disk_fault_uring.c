/* SPDX-License-Identifier: BSD-2-Clause */
/* Count what is submitted to liburing, and make it fail. See disk_fault.h. */
#include "disk_fault.h"

#include <dlfcn.h>
#include <errno.h>
#include <liburing.h>

static void see_sqe(struct io_uring_sqe *sqe)
{
	bool sync = sqe->opcode == IORING_OP_FSYNC &&
		    sqe->fsync_flags == IORING_FSYNC_DATASYNC;
	bool write = sqe->opcode == IORING_OP_WRITEV;
	bool read = sqe->opcode == IORING_OP_READV;

	if ((sync && FAULT_GET(sync_errno)) ||
	    (write && FAULT_GET(write_errno)) ||
	    (read && FAULT_GET(read_errno)))
		sqe->fd = -1; /* there is no such file: EBADF */
	else if (sync)
		FAULT_COUNT(nr_sync);
	else if (write)
		FAULT_COUNT(nr_write);
}

/* The entries that liburing is about to submit. */
int io_uring_submit(struct io_uring *ring)
{
	static int (*next)(struct io_uring *ring);
	struct io_uring_sq *sq = &ring->sq;

	if (!next)
		*(void **)&next = dlsym(RTLD_NEXT, "io_uring_submit");
	FAULT_COUNT(nr_tried);
	if (FAULT_GET(hang))
		return -EAGAIN;
	for (unsigned i = sq->sqe_head; i != sq->sqe_tail; i++)
		see_sqe(&sq->sqes[i & *sq->kring_mask]);
	return next(ring);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * System calls on an image. One that was interrupted is made again; one that
 * the kernel has no room for is made again after a while, which doubles as
 * long as nothing succeeds.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include "back/disk/impl.h"

#define MIN_AGAIN_NS UINT64_C(1000000)
#define MAX_AGAIN_NS UINT64_C(1000000000)

static int set_size(struct disk_call *call)
{
	if (call->len != CALL_LOOK &&
	    ftruncate(call->img->fd, (off_t)call->len) < 0)
		return -errno;
	return disk_image_bytes(call->img, &call->off);
}

int disk_call_run(struct disk_call *call)
{
	uint64_t range[2] = { call->off, call->len };
	off_t off = (off_t)call->off;
	int fd = call->img->fd;
	ssize_t ret = -1;

	switch (call->op) {
	case CALL_READ:
		ret = preadv(fd, call->iov, call->niov, off);
		break;
	case CALL_WRITE:
		ret = pwritev(fd, call->iov, call->niov, off);
		break;
	case CALL_SYNC:
		ret = fdatasync(fd);
		break;
	case CALL_FALLOCATE:
		ret = fallocate(fd, call->mode, off, (off_t)call->len);
		break;
	case CALL_DISCARD:
		ret = ioctl(fd, BLKDISCARD, range);
		break;
	case CALL_SIZE:
		return set_size(call);
	}
	return ret < 0 ? -errno : (int)ret;
}

bool disk_call_forgotten(const struct disk_call *call)
{
	return call->op != CALL_SYNC && call->op != CALL_SIZE &&
	       __atomic_load_n(&call->img->forgetting, __ATOMIC_RELAXED);
}

/* What io_uring cannot do, and must not keep its callers waiting. */
static bool is_slow(const struct disk_call *call)
{
	return call->op == CALL_DISCARD || call->op == CALL_SIZE;
}

void disk_call_start_other(struct disk *d, struct disk_call *call)
{
	if (is_slow(call)) {
		disk_threads.start(d->io->slow, call);
		return;
	}
	d->ops->start(d->engine, call);
	vio_task_defer(d->loop, &d->submit_task);
}

void disk_call_start(struct disk_req *req,
		     void (*done)(struct disk_call *call, int result))
{
	req->dr_call.done = done;
	if (disk_call_forgotten(&req->dr_call))
		disk_finish(req, -ECANCELED);
	else
		disk_call_start_other(req->dr_disk, &req->dr_call);
}

/*
 * --- Again ---
 */

/* One that is armed stays so: else, armed ever again, it would not expire. */
static void arm(struct disk_io *io)
{
	uint64_t ns = io->again_ns * 2;

	if (io->again_armed)
		return;
	if (ns < MIN_AGAIN_NS)
		ns = MIN_AGAIN_NS;
	if (ns > MAX_AGAIN_NS)
		ns = MAX_AGAIN_NS;
	io->again_ns = ns;
	io->again_armed = true;
	vio_timer_set(io->again_timer, ns);
}

void disk_send_later(struct disk_io *io)
{
	arm(io);
}

static void call_again(struct disk_call *call)
{
	struct disk *d = disk_of_call(call);

	if (disk_call_forgotten(call))
		call->done(call, -ECANCELED);
	else
		disk_call_start_other(d, call);
}

void disk_calls_again(void *arg)
{
	struct disk_io *io = arg;
	struct disk_calls calls = io->again;
	struct disk_call *call;

	io->again_armed = false;
	if (calls.first) {
		disk_calls_init(&io->again);
		while ((call = disk_calls_take(&calls)))
			call_again(call);
	}
	if (io->ops->submit(io->engine) != 0)
		arm(io);
}

void disk_calls_give_up(struct disk_io *io)
{
	struct disk_call *call;

	while ((call = disk_calls_take(&io->again)))
		call->done(call, -ECANCELED);
}

void disk_call_done(struct disk_call *call, int result)
{
	struct disk_io *io = disk_of_call(call)->io;

	if (result == -EINTR) {
		call_again(call);
	} else if (result == -EAGAIN) {
		disk_calls_add(&io->again, call);
		arm(io);
	} else {
		if (result >= 0)
			io->again_ns = 0;
		call->done(call, result);
	}
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Disk requests, as sequences of system calls. See disk.h.
 *
 * A request begins when it may (begin()), makes one call after the other, each
 * going on in a function named *_done(), and ends in disk_finish(). The calls
 * are made by an engine, but for reads that the page cache can serve at once.
 *
 *	read, write     disk_rw -> rw_done -> ... until all is transferred
 *	 not aligned    disk_bounce -> ... through one aligned buffer, alone
 *	write zeroes    zero_punch -> zero_range -> zero_step: the first that
 *	                the image can do
 *	stable writes,  disk_sync_join: one fdatasync() serves all that came
 *	 flush          before it began
 */
#include "back/disk.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "back/disk_impl.h"

#define DRAIN_HURRY_NS 3000000000ull
#define DRAIN_ABORT_NS 4000000000ull

int disk_call_run(const struct disk_call *call)
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
	}
	return ret < 0 ? -errno : (int)ret;
}

void disk_call_start(struct disk_req *req,
		       void (*done)(struct disk_call *call, int result))
{
	struct disk *d = req->dr_disk;

	req->dr_call.done = done;
	d->ops->start(d->engine, &req->dr_call);
	ev_defer(d->loop, &d->submit_task);
}

/*
 * --- Turns ---
 *
 * When much has begun in a turn of the loop, more waits for the next one: what
 * has ended is shown to the driver meanwhile, which goes on while we do.
 *
 * A request that O_DIRECT does not take as it is goes through a buffer and may
 * have to read and write back what surrounds it. It runs alone, so that there
 * is one such buffer and nobody writes to the surroundings meanwhile.
 */

static void begin(struct disk_req *req);

static bool is_aligned(const struct disk_req *req)
{
	const struct disk *d = req->dr_disk;

	if ((req->dr_off | req->dr_len) & (d->img.off_align - 1))
		return false;
	if (req->dr_op != DISK_READ && req->dr_op != DISK_WRITE)
		return true;
	for (int i = 0; i < req->dr_niov; i++) {
		if ((uintptr_t)req->dr_iov[i].iov_base &
			    (d->img.mem_align - 1) ||
		    req->dr_iov[i].iov_len & (d->img.off_align - 1))
			return false;
	}
	return true;
}

static bool runs_alone(const struct disk_req *req)
{
	return req->dr_disk->img.off_align > 1 && req->dr_op != DISK_FLUSH &&
	       req->dr_op != DISK_DISCARD && !is_aligned(req);
}

static bool may_begin(const struct disk_req *req)
{
	const struct disk *d = req->dr_disk;

	return !d->alone && (d->nr_active == 0 || !runs_alone(req)) &&
	       d->turn_bytes < DISK_TURN_BYTES;
}

static void release_held(struct disk *d)
{
	if (d->releasing) /* a request ended as soon as it began */
		return;
	d->releasing = true;
	while (d->held && (d->hurry || may_begin(d->held))) {
		struct disk_req *req = d->held;

		d->held = req->dr_next;
		if (!d->held)
			d->held_end = &d->held;
		begin(req);
	}
	d->releasing = false;
}

void disk_finish(struct disk_req *req, int result)
{
	struct disk *d = req->dr_disk;

	if (d->alone == req)
		d->alone = NULL;
	d->nr_active--;
	d->nr_reqs--;
	req->dr_done(req, result); /* @req may be gone, or run again */
	release_held(d);
}

/*
 * --- Requests ---
 */

static void run(struct disk_req *req)
{
	switch (req->dr_op) {
	case DISK_READ:
	case DISK_WRITE:
		if (req->dr_disk->alone)
			disk_bounce(req);
		else
			disk_rw(req);
		break;
	case DISK_FLUSH:
		disk_sync_join(req);
		break;
	case DISK_DISCARD:
		disk_discard(req);
		break;
	case DISK_WRITE_ZEROES:
		disk_write_zeroes(req);
		break;
	}
}

static void begin(struct disk_req *req)
{
	struct disk *d = req->dr_disk;

	d->nr_active++;
	if (d->hurry) {
		disk_finish(req, -ECANCELED);
		return;
	}
	if (runs_alone(req))
		d->alone = req;
	if (req->dr_op == DISK_READ || req->dr_op == DISK_WRITE)
		d->turn_bytes += req->dr_len;
	ev_defer(d->loop, &d->submit_task); /* where the turn ends */
	run(req);
}

/* Why a request cannot even begin, or 0. */
static int judge(const struct disk *d, const struct disk_req *req)
{
	if (req->dr_op == DISK_FLUSH)
		return 0;
	if (req->dr_op != DISK_READ && d->img.info.ro)
		return -EROFS;
	if (req->dr_off > d->img.info.bytes ||
	    req->dr_len > d->img.info.bytes - req->dr_off)
		return -ERANGE;
	return 0;
}

void disk_start(struct disk *d, struct disk_req *req)
{
	int ret = judge(d, req);

	req->dr_disk = d;
	req->dr_call.img = &d->img;
	req->dr_left = req->dr_len;
	d->nr_reqs++;
	if (ret < 0 || (req->dr_len == 0 && req->dr_op != DISK_FLUSH)) {
		d->nr_active++;
		disk_finish(req, ret);
	} else if (d->held || !may_begin(req)) {
		req->dr_next = NULL;
		*d->held_end = req;
		d->held_end = &req->dr_next;
	} else {
		begin(req);
	}
}

void disk_submit(struct disk *d)
{
	bool more;

	release_held(d);
	ev_cancel(d->loop, &d->submit_task);
	if (disk_lingers(d->nr_now + (d->held != NULL), &d->nr_single))
		ev_linger(d->loop);
	d->nr_now = 0;
	if (d->sync_waiting && !d->syncing)
		disk_sync_begin(d);
	more = d->held && d->turn_bytes >= DISK_TURN_BYTES;
	d->turn_bytes = 0;
	if (!d->ops->submit(d->engine) || more)
		ev_defer(d->loop, &d->submit_task);
}

static void submit_task(void *arg)
{
	disk_submit(arg);
}

/* End what does not use the buffers of a request, or has not begun to. */
static void give_up_waiting(struct disk *d)
{
	d->hurry = true;
	disk_sync_give_up(d);
	release_held(d);
}

void disk_drain(struct disk *d)
{
	uint64_t start = ev_now_ns();

	while (d->nr_reqs > 0) {
		uint64_t ns = ev_now_ns() - start;
		uint64_t until = d->hurry ? DRAIN_ABORT_NS : DRAIN_HURRY_NS;

		if (ns >= DRAIN_ABORT_NS) {
			fprintf(stderr, "disk: %u requests do not end\n",
				d->nr_reqs);
			abort();
		}
		if (ns >= until) {
			give_up_waiting(d);
			continue;
		}
		disk_submit(d);
		if (d->nr_reqs > 0 && !d->submit_task.queued)
			d->ops->wait(d->engine,
				     (int)((until - ns) / 1000000) + 1);
	}
	d->hurry = false;
}

/*
 * --- Creation ---
 */

static int create_bounce(struct disk *d)
{
	d->bounce = aligned_alloc(DISK_PAGE_BYTES, DISK_BOUNCE_BYTES);
	if (!d->bounce)
		return -ENOMEM;
	/* Nothing of the heap's is ever to reach the image. */
	memset(d->bounce, 0, DISK_BOUNCE_BYTES);
	return 0;
}

int disk_io_create(struct ev_loop *loop, unsigned depth, unsigned nr_disks,
		   struct disk_io **ret_io)
{
	static const struct disk_engine *const engines[] = {
		&disk_uring,
		&disk_threads,
	};
	struct disk_io *io = calloc(1, sizeof(*io));
	int ret = -ENOSYS;

	if (!io)
		return -ENOMEM;
	io->loop = loop;
	for (unsigned i = 0; i < 2 && ret < 0; i++) {
		io->ops = engines[i];
		ret = io->ops->create(loop, depth, nr_disks, &io->engine);
		if (i == 0 && ret < 0)
			io->uring_error = ret;
	}
	if (ret < 0) {
		free(io);
		return ret;
	}
	*ret_io = io;
	return 0;
}

void disk_io_destroy(struct disk_io *io)
{
	struct disk *d;

	if (!io)
		return;
	io->ops->destroy(io->engine);
	while ((d = io->gone)) {
		io->gone = d->next;
		free(d);
	}
	free(io);
}

static int add_to_io(struct disk *d)
{
	int file = d->ops->add(d->engine, d->img.fd);

	if (file < 0)
		return file;
	d->img.file = file;
	d->img.info.engine = d->ops->name;
	d->img.info.uring_error = d->io->uring_error;
	return 0;
}

int disk_create(struct disk_io *io, int take_fd,
		const struct disk_params *params, struct disk **ret_disk,
		struct err *err)
{
	struct disk *d = calloc(1, sizeof(*d));
	int ret;

	if (!d)
		return err_set(err, -ENOMEM, "out of memory");
	d->io = io;
	d->loop = io->loop;
	d->ops = io->ops;
	d->engine = io->engine;
	d->writethrough = params->cache == DISK_WRITETHROUGH;
	d->nowait = params->cache != DISK_DIRECT;
	d->watch_fd = -1;
	d->held_end = &d->held;
	d->sync_waiting_end = &d->sync_waiting;
	d->sync_served_end = &d->sync_served;
	d->submit_task = (struct ev_task){ .fn = submit_task, .arg = d };
	ret = disk_image_init(&d->img, take_fd, params);
	if (ret == 0 && d->img.off_align > 1)
		ret = create_bounce(d);
	if (ret == 0)
		ret = add_to_io(d);
	if (ret < 0) {
		free(d->bounce);
		free(d);
		return err_set(err, ret, "path=%s: %s", params->path,
			       strerror(-ret));
	}
	*ret_disk = d;
	return 0;
}

void disk_destroy(struct disk *d)
{
	if (!d)
		return;
	disk_drain(d);
	ev_cancel(d->loop, &d->submit_task);
	d->ops->remove(d->engine, d->img.file);
	ev_remove(d->watch);
	ev_remove(d->watch_timer);
	if (d->watch_fd >= 0)
		close(d->watch_fd);
	close(d->img.fd);
	free(d->bounce);
	if (d->syncing) { /* and given up by the drain */
		d->next = d->io->gone;
		d->io->gone = d;
	} else {
		free(d);
	}
}

const int disk_syscalls[] = { DISK_SYSCALLS, -1 };
const unsigned long disk_ioctls[] = { DISK_IOCTLS, 0 };

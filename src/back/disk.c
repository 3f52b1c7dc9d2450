/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Disk requests, as sequences of system calls. See disk.h.
 *
 * A request begins when it may (begin()), makes one call after the other, each
 * going on in a function named *_done(), and ends in finish(). The calls are
 * made by an engine, disk_uring.c or disk_threads.c, but for reads that the
 * page cache can serve at once.
 *
 *	read, write     rw_step -> rw_done -> ... until all is transferred
 *	 not aligned    bounce_step -> ... through one aligned buffer, alone
 *	write zeroes    zero_punch -> zero_range -> zero_step: the first that
 *	                the image can do
 *	stable writes,  sync_join: one fdatasync() serves all that came before
 *	 flush          it began
 */
#include "back/disk.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <viodev/loop.h>

#include "back/disk_impl.h"
#include "base/iov.h"

#define PAGE_BYTES     4096u
#define BOUNCE_BYTES   (256u << 10)
#define ZERO_BYTES     (64u << 10) /* of zeroes that exist, */
#define ZERO_IOV       16          /* this often in one write */
#define MAX_CALL_IOV   1024        /* IOV_MAX */
#define TURN_BYTES     (2u << 20)  /* more would keep others waiting */
#define DRAIN_HURRY_NS 3000000000ull
#define DRAIN_ABORT_NS 4000000000ull
#define WATCH_PAUSE_NS 1000000000ull

struct disk_io {
	struct ev_loop *loop;
	const struct disk_engine *ops;
	void *engine;
	int uring_error;    /* why it is not io_uring */
	struct disk *gone; /* disks that the kernel has not let go of */
};

struct disk {
	struct ev_loop *loop;
	struct disk_image img;
	bool writethrough;
	bool nowait;     /* try RWF_NOWAIT before the engine */
	unsigned nr_now; /* how often that was done in this turn */
	uint64_t turn_bytes; /* of what began in this turn */
	unsigned nr_single; /* see disk_lingers() */

	struct disk_io *io;
	const struct disk_engine *ops; /* of @io, */
	void *engine;                  /* likewise */
	struct ev_task submit_task;
	struct disk *next; /* in io->gone */

	unsigned nr_reqs;   /* started, not done */
	unsigned nr_active; /* of these, begun */
	bool hurry;         /* a drain takes too long: begin nothing more */

	/* Requests that wait for their turn, or while one runs alone. */
	struct disk_req *alone;
	struct disk_req *held, **held_end;
	bool releasing;

	/* Flushing, see sync_join(). */
	struct disk_call sync_call;
	bool syncing;
	int sync_error;
	struct disk_req *sync_waiting, **sync_waiting_end; /* for the next */
	struct disk_req *sync_served, **sync_served_end;   /* by this one */

	char *bounce; /* BOUNCE_BYTES, as O_DIRECT wants them */

	int watch_fd;
	struct ev_source *watch, *watch_timer;
	void (*notify)(void *arg, uint64_t bytes);
	void *notify_arg;
};

/* What zeroes are written from: never written to itself. */
static char zeroes[ZERO_BYTES] __attribute__((aligned(PAGE_BYTES)));
static const struct iovec zero_iov[ZERO_IOV] = {
	[0 ... ZERO_IOV - 1] = { zeroes, ZERO_BYTES },
};

static struct disk_req *req_of(struct disk_call *call)
{
	return (void *)((char *)call - offsetof(struct disk_req, dr_call));
}

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

static void start_call(struct disk_req *req,
		       void (*done)(struct disk_call *call, int result))
{
	struct disk *d = req->dr_disk;

	req->dr_call.done = done;
	d->ops->start(d->engine, &req->dr_call);
	ev_defer(d->loop, &d->submit_task);
}

/* Worth trying again as it was. */
static bool interrupted(int result)
{
	return result == -EINTR || result == -EAGAIN;
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
	       d->turn_bytes < TURN_BYTES;
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

static void finish(struct disk_req *req, int result)
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
 * --- Flushing ---
 *
 * Flushes, and writes that are to be stable, wait here for the next
 * fdatasync(). One is made at a time: each failure of the medium is reported
 * by just one such call, and no other may report success beside it.
 */

static void sync_join(struct disk_req *req)
{
	struct disk *d = req->dr_disk;

	if (d->sync_error || d->hurry) {
		finish(req, d->sync_error ? d->sync_error : -ECANCELED);
		return;
	}
	req->dr_next = NULL;
	*d->sync_waiting_end = req;
	d->sync_waiting_end = &req->dr_next;
	ev_defer(d->loop, &d->submit_task);
}

static void finish_all(struct disk_req **first, struct disk_req ***end,
		       int result)
{
	struct disk_req *req;

	while ((req = *first)) {
		*first = req->dr_next;
		if (!*first)
			*end = first;
		finish(req, result);
	}
}

static void sync_done(struct disk_call *call, int result)
{
	struct disk *d =
		(void *)((char *)call - offsetof(struct disk, sync_call));

	if (interrupted(result)) {
		d->ops->start(d->engine, call);
		ev_defer(d->loop, &d->submit_task);
		return;
	}
	/*
	 * The kernel may have dropped what it could not write, and will not
	 * tell again: nothing can be promised from now on.
	 */
	if (result < 0)
		d->sync_error = result;
	finish_all(&d->sync_served, &d->sync_served_end, d->sync_error);
	d->syncing = false;
	if (d->sync_error)
		finish_all(&d->sync_waiting, &d->sync_waiting_end,
			   d->sync_error);
	if (d->sync_waiting)
		ev_defer(d->loop, &d->submit_task);
}

static void sync_begin(struct disk *d)
{
	d->sync_served = d->sync_waiting;
	d->sync_served_end = d->sync_waiting_end;
	d->sync_waiting = NULL;
	d->sync_waiting_end = &d->sync_waiting;
	d->syncing = true;
	d->sync_call = (struct disk_call){
		.img = &d->img,
		.op = CALL_SYNC,
		.done = sync_done,
	};
	d->ops->start(d->engine, &d->sync_call);
}

/* The bytes are written: is that all? */
static void written(struct disk_req *req)
{
	if (req->dr_fua || req->dr_disk->writethrough)
		sync_join(req);
	else
		finish(req, 0);
}

/*
 * --- Reads and writes ---
 */

static void rw_step(struct disk_req *req);

/* A call transferred @result bytes. Whether the request has ended with it. */
static bool rw_advance(struct disk_req *req, int result)
{
	struct iov_cursor c = { req->dr_iov, req->dr_niov };
	uint64_t n = (uint64_t)result;

	if (n < req->dr_left) {
		iov_skip(&c, n);
		req->dr_iov = c.iov;
		req->dr_niov = c.niov;
		req->dr_left -= n;
		return false;
	}
	req->dr_left = 0;
	if (req->dr_op == DISK_READ)
		finish(req, 0);
	else
		written(req);
	return true;
}

static void rw_done(struct disk_call *call, int result)
{
	struct disk_req *req = req_of(call);

	if (interrupted(result))
		rw_step(req);
	else if (result <= 0) /* no progress: past the end of the file */
		finish(req, result ? result : -EIO);
	else if (!rw_advance(req, result))
		rw_step(req);
}

/*
 * What needs no waiting is done here and now, which is several times faster
 * than asking anybody else to. Bytes, or <= 0: ask the engine.
 */
static int rw_now(struct disk *d, const struct disk_req *req)
{
	const struct disk_call *call = &req->dr_call;
	ssize_t ret;

	if (req->dr_left > TURN_BYTES)
		return -EAGAIN;
	if (d->img.in_memory)
		return disk_call_run(call);
	if (!d->nowait || call->op != CALL_READ || d->nr_now >= d->ops->max_now)
		return -EAGAIN;
	d->nr_now++;
	ret = preadv2(d->img.fd, call->iov, call->niov, (off_t)call->off,
		      RWF_NOWAIT);
	if (ret < 0 && (errno == EOPNOTSUPP || errno == ENOSYS))
		d->nowait = false;
	return (int)ret;
}

static void rw_set_call(struct disk_req *req)
{
	struct disk_call *call = &req->dr_call;

	call->op = req->dr_op == DISK_READ ? CALL_READ : CALL_WRITE;
	call->iov = req->dr_iov;
	call->niov = req->dr_niov < MAX_CALL_IOV ? req->dr_niov : MAX_CALL_IOV;
	call->off = req->dr_off + (req->dr_len - req->dr_left);
}

static void rw_step(struct disk_req *req)
{
	int ret;

	rw_set_call(req);
	ret = rw_now(req->dr_disk, req);
	if (ret > 0) {
		if (rw_advance(req, ret))
			return;
		rw_set_call(req);
	}
	start_call(req, rw_done);
}

/*
 * --- Reads and writes that are not aligned ---
 *
 *	            |<-------- BOUNCE_BYTES at most -------->|
 *	image   ----+----------+----------+----------+-------+--
 *	            off_align  [ the request's bytes    ]
 *	            |<- head ->|
 */

static void bounce_step(struct disk_req *req);

/* The part that the buffer holds next: sets the call, returns its payload. */
static uint64_t bounce_part(struct disk_req *req, uint64_t *ret_head)
{
	const struct disk *d = req->dr_disk;
	uint64_t mask = d->img.off_align - 1;
	uint64_t off = req->dr_off + (req->dr_len - req->dr_left);
	uint64_t head = off & mask;
	uint64_t len = req->dr_left;

	if (len > BOUNCE_BYTES - head)
		len = BOUNCE_BYTES - head;
	req->dr_call.off = off - head;
	req->dr_rest.iov_base = d->bounce;
	req->dr_rest.iov_len = (head + len + mask) & ~mask;
	req->dr_call.iov = &req->dr_rest;
	req->dr_call.niov = 1;
	*ret_head = head;
	return len;
}

static void bounce_advance(struct disk_req *req, uint64_t len)
{
	req->dr_left -= len;
	if (req->dr_left)
		bounce_step(req);
	else if (req->dr_op == DISK_READ)
		finish(req, 0);
	else
		written(req);
}

static void bounce_write_done(struct disk_call *call, int result)
{
	struct disk_req *req = req_of(call);
	struct iov_cursor c = { req->dr_iov, req->dr_niov };
	uint64_t head, len = bounce_part(req, &head);

	if (interrupted(result)) {
		bounce_step(req);
		return;
	}
	if (result < 0 || (uint64_t)result <= head) {
		finish(req, result < 0 ? result : -EIO);
		return;
	}
	if (len > (uint64_t)result - head)
		len = (uint64_t)result - head;
	iov_skip(&c, len);
	req->dr_iov = c.iov;
	req->dr_niov = c.niov;
	bounce_advance(req, len);
}

/* The buffer holds what was there before, as far as that is kept. */
static void bounce_write(struct disk_req *req)
{
	char *bounce = req->dr_disk->bounce;
	struct iov_cursor c = { req->dr_iov, req->dr_niov };
	uint64_t head, len = bounce_part(req, &head);

	if (req->dr_op == DISK_WRITE)
		iov_peek(&c, bounce + head, len);
	else
		memset(bounce + head, 0, len);
	req->dr_call.op = CALL_WRITE;
	start_call(req, bounce_write_done);
}

static void bounce_read_done(struct disk_call *call, int result)
{
	struct disk_req *req = req_of(call);
	struct iov_cursor c = { req->dr_iov, req->dr_niov };
	uint64_t head, len = bounce_part(req, &head);

	if (interrupted(result)) {
		bounce_step(req);
		return;
	}
	/* The capacity is whole blocks, so a block is there or it is not. */
	if (result < 0 || (uint64_t)result < head + len) {
		finish(req, result < 0 ? result : -EIO);
		return;
	}
	if (req->dr_op != DISK_READ) {
		if ((uint64_t)result == req->dr_rest.iov_len)
			bounce_write(req);
		else
			finish(req, -EIO);
		return;
	}
	iov_put(&c, req->dr_disk->bounce + head, len);
	req->dr_iov = c.iov;
	req->dr_niov = c.niov;
	bounce_advance(req, len);
}

static void bounce_step(struct disk_req *req)
{
	uint64_t head, len = bounce_part(req, &head);

	if (req->dr_op != DISK_READ && len == req->dr_rest.iov_len) {
		bounce_write(req); /* nothing around it */
		return;
	}
	req->dr_call.op = CALL_READ;
	start_call(req, bounce_read_done);
}

/*
 * --- Discard and write zeroes ---
 */

static void start_fallocate(struct disk_req *req, int mode,
			    void (*done)(struct disk_call *call, int result))
{
	req->dr_call.op = CALL_FALLOCATE;
	req->dr_call.mode = mode | FALLOC_FL_KEEP_SIZE;
	req->dr_call.off = req->dr_off;
	req->dr_call.len = req->dr_len;
	start_call(req, done);
}

static void discard(struct disk_req *req);

static void discard_done(struct disk_call *call, int result)
{
	struct disk_req *req = req_of(call);

	if (interrupted(result)) {
		discard(req);
		return;
	}
	/* It is a hint. What cannot take it may leave it. */
	finish(req, result == -EOPNOTSUPP ? 0 : result);
}

static void discard(struct disk_req *req)
{
	if (!req->dr_disk->img.is_bdev) {
		start_fallocate(req, FALLOC_FL_PUNCH_HOLE, discard_done);
		return;
	}
	req->dr_call.op = CALL_DISCARD;
	req->dr_call.off = req->dr_off;
	req->dr_call.len = req->dr_len;
	start_call(req, discard_done);
}

static void write_zeroes(struct disk_req *req);
static void zero_step(struct disk_req *req);

static void zero_step_done(struct disk_call *call, int result)
{
	struct disk_req *req = req_of(call);

	if (!interrupted(result)) {
		if (result <= 0) {
			finish(req, result ? result : -EIO);
			return;
		}
		req->dr_left -= (uint64_t)result;
	}
	if (req->dr_left == 0)
		written(req);
	else if (req->dr_disk->hurry)
		finish(req, -ECANCELED);
	else
		zero_step(req);
}

/* Write them out: as many whole buffers as there may be, or the rest. */
static void zero_step(struct disk_req *req)
{
	struct disk_call *call = &req->dr_call;
	uint64_t nr = req->dr_left / ZERO_BYTES;

	call->op = CALL_WRITE;
	call->off = req->dr_off + (req->dr_len - req->dr_left);
	if (nr > 0) {
		call->iov = zero_iov;
		call->niov = nr < ZERO_IOV ? (int)nr : ZERO_IOV;
	} else {
		req->dr_rest = (struct iovec){ zeroes, req->dr_left };
		call->iov = &req->dr_rest;
		call->niov = 1;
	}
	start_call(req, zero_step_done);
}

static bool refused(int result)
{
	return result == -EOPNOTSUPP || result == -EINVAL;
}

static void zero_range_done(struct disk_call *call, int result)
{
	struct disk_req *req = req_of(call);

	if (result == -EOPNOTSUPP)
		req->dr_disk->img.can_zero_range = false;
	if (interrupted(result))
		write_zeroes(req);
	else if (refused(result) && req->dr_disk->alone == req)
		bounce_step(req);
	else if (refused(result))
		zero_step(req);
	else if (result < 0)
		finish(req, result);
	else
		written(req);
}

static void zero_range(struct disk_req *req)
{
	if (req->dr_disk->img.can_zero_range)
		start_fallocate(req, FALLOC_FL_ZERO_RANGE, zero_range_done);
	else
		zero_range_done(&req->dr_call, -EOPNOTSUPP);
}

static void zero_punch_done(struct disk_call *call, int result)
{
	struct disk_req *req = req_of(call);

	if (result == -EOPNOTSUPP)
		req->dr_disk->img.can_punch = false;
	if (interrupted(result))
		write_zeroes(req);
	else if (refused(result))
		zero_range(req);
	else if (result < 0)
		finish(req, result);
	else
		written(req);
}

static void write_zeroes(struct disk_req *req)
{
	if (req->dr_unmap && req->dr_disk->img.can_punch)
		start_fallocate(req, FALLOC_FL_PUNCH_HOLE, zero_punch_done);
	else
		zero_range(req);
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
			bounce_step(req);
		else
			rw_step(req);
		break;
	case DISK_FLUSH:
		sync_join(req);
		break;
	case DISK_DISCARD:
		discard(req);
		break;
	case DISK_WRITE_ZEROES:
		write_zeroes(req);
		break;
	}
}

static void begin(struct disk_req *req)
{
	struct disk *d = req->dr_disk;

	d->nr_active++;
	if (d->hurry) {
		finish(req, -ECANCELED);
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
		finish(req, ret);
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
		sync_begin(d);
	more = d->held && d->turn_bytes >= TURN_BYTES;
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
	finish_all(&d->sync_served, &d->sync_served_end, -ECANCELED);
	finish_all(&d->sync_waiting, &d->sync_waiting_end, -ECANCELED);
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
 * --- The image's size ---
 */

void disk_get_info(const struct disk *d, struct disk_info *ret_info)
{
	*ret_info = d->img.info;
}

static int check_size(struct disk *d)
{
	uint64_t bytes;
	int ret = disk_image_bytes(&d->img, &bytes);

	if (ret < 0 || bytes == d->img.info.bytes)
		return ret;
	d->img.info.bytes = bytes;
	if (d->notify)
		d->notify(d->notify_arg, bytes);
	return 0;
}

int disk_resize(struct disk *d, uint64_t bytes, struct err *err)
{
	int ret;

	if (!d->img.is_bdev) {
		if (d->img.info.ro)
			return err_set(err, -EROFS, "the image is read-only");
		if (bytes == 0 || bytes % d->img.info.block_bytes)
			return err_set(err, -EINVAL,
				       "size is not a multiple of %u bytes",
				       d->img.info.block_bytes);
		/* A write that is under way would make the file long again. */
		disk_drain(d);
		if (bytes > INT64_MAX ||
		    ftruncate(d->img.fd, (off_t)bytes) < 0) {
			ret = bytes > INT64_MAX ? -EFBIG : -errno;
			return err_set(err, ret, "%s", strerror(-ret));
		}
	}
	ret = check_size(d);
	if (ret < 0)
		return err_set(err, ret, "%s", strerror(-ret));
	return 0;
}

void disk_set_notify(struct disk *d, void (*fn)(void *arg, uint64_t bytes),
		     void *arg)
{
	d->notify = fn;
	d->notify_arg = arg;
}

/*
 * A change of size is reported as any other modification, of which our own
 * writes make many: after one, look away for a while.
 */
static void watch_ready(void *arg, uint32_t events)
{
	struct disk *d = arg;

	ev_fd_set(d->watch, 0);
	ev_timer_set(d->watch_timer, WATCH_PAUSE_NS);
	check_size(d);
}

/* What was reported so far is read before the file is looked at. */
static void catch_up(struct disk *d)
{
	char events[4096];

	while (read(d->watch_fd, events, sizeof(events)) > 0)
		;
	check_size(d);
}

static void watch_again(void *arg)
{
	struct disk *d = arg;

	catch_up(d);
	ev_fd_set(d->watch, EPOLLIN);
}

int disk_watch(struct disk *d, int take_fd)
{
	int ret = ev_timer_add(d->loop, watch_again, d, &d->watch_timer);

	if (ret < 0)
		return ret;
	ret = ev_fd_add(d->loop, take_fd, EPOLLIN, watch_ready, d, &d->watch);
	if (ret < 0) {
		ev_remove(d->watch_timer);
		d->watch_timer = NULL;
		return ret;
	}
	d->watch_fd = take_fd;
	catch_up(d); /* with our own look at the image, before all */
	return 0;
}

/*
 * --- Creation ---
 */

static int create_bounce(struct disk *d)
{
	d->bounce = aligned_alloc(PAGE_BYTES, BOUNCE_BYTES);
	if (!d->bounce)
		return -ENOMEM;
	/* Nothing of the heap's is ever to reach the image. */
	memset(d->bounce, 0, BOUNCE_BYTES);
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

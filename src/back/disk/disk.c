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
#include "back/disk/disk.h"

#include <errno.h>

#include "back/disk/impl.h"

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

	return !d->alone && !d->img.forgetting && !d->shrinking &&
	       (d->nr_active == 0 || !runs_alone(req)) &&
	       d->turn_bytes < DISK_TURN_BYTES;
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

/* It was judged as it came; the image may have become smaller since. */
static void begin_held(struct disk_req *req)
{
	int ret = judge(req->dr_disk, req);

	if (ret == 0) {
		begin(req);
		return;
	}
	req->dr_disk->nr_active++;
	disk_end(req, ret);
}

void disk_release_held(struct disk *d)
{
	if (d->releasing) /* a request ended as soon as it began */
		return;
	d->releasing = true;
	while (d->held.first && may_begin(d->held.first))
		begin_held(disk_reqs_take(&d->held));
	d->releasing = false;
}

/* It is not active any more, for whatever reason. */
static void inactive(struct disk *d, const struct disk_req *req)
{
	if (d->alone == req)
		d->alone = NULL;
	d->nr_active--;
}

/* Nothing is active any more: go on with what has waited for that. */
static void all_inactive(struct disk *d)
{
	__atomic_store_n(&d->img.forgetting, false, __ATOMIC_RELAXED);
	disk_size_begin(d);
	if (d->closing)
		vio_task_defer(d->loop, &d->submit_task);
}

static void tell(struct disk_req *req, int result)
{
	struct disk *d = req->dr_disk;

	if (!d->io->ending)
		req->dr_done(req, result); /* @req may be gone, or run again */
}

static void go_on(struct disk *d)
{
	if (d->nr_active == 0)
		all_inactive(d);
	disk_release_held(d);
}

void disk_end(struct disk_req *req, int result)
{
	struct disk *d = req->dr_disk;

	inactive(d, req);
	tell(req, result);
	go_on(d);
}

void disk_finish(struct disk_req *req, int result)
{
	struct disk *d = req->dr_disk;

	if (!disk_is_to_wait(req, result)) {
		disk_end(req, result);
		return;
	}
	inactive(d, req);
	disk_wait(req, result);
	go_on(d);
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
	if (runs_alone(req))
		d->alone = req;
	if (req->dr_op == DISK_READ || req->dr_op == DISK_WRITE)
		d->turn_bytes += req->dr_len;
	vio_task_defer(d->loop, &d->submit_task); /* where the turn ends */
	run(req);
}

void disk_start(struct disk *d, struct disk_req *req)
{
	int ret = judge(d, req);

	req->dr_disk = d;
	req->dr_call.img = &d->img;
	req->dr_left = req->dr_len;
	if (ret < 0 || (req->dr_len == 0 && req->dr_op != DISK_FLUSH)) {
		d->nr_active++;
		disk_end(req, ret);
	} else if (d->held.first || !may_begin(req)) {
		disk_reqs_add(&d->held, req);
	} else {
		begin(req);
	}
}

void disk_submit(struct disk *d)
{
	bool more;
	int ret;

	disk_release_held(d);
	vio_task_cancel(d->loop, &d->submit_task);
	if (disk_lingers(d->nr_now + (d->held.first != NULL), &d->nr_single))
		vio_loop_busy_poll(d->loop);
	d->nr_now = 0;
	if (d->sync_waiting.first && !d->syncing)
		disk_sync_begin(d);
	more = d->held.first && d->turn_bytes >= DISK_TURN_BYTES;
	d->turn_bytes = 0;
	ret = d->ops->submit(d->engine);
	if (ret < 0)
		disk_send_later(d->io);
	if (ret > 0 || more)
		vio_task_defer(d->loop, &d->submit_task);
}

/*
 * --- Forgetting ---
 *
 * Where the kernel has a request, it is waited for: it may write to the image,
 * and to the request's buffers, until it ends.
 */

static void drop_waiting(struct disk *d)
{
	struct disk_req *req;

	disk_reqs_move(&d->dropped, &d->held);
	disk_waiting_drop(d, &d->dropped);
	while ((req = disk_reqs_take(&d->sync_waiting))) {
		inactive(d, req);
		disk_reqs_add(&d->dropped, req);
	}
}

void disk_forget(struct disk *d)
{
	drop_waiting(d);
	if (d->dropped.first)
		vio_task_defer(d->loop, &d->drop_task);
	if (d->nr_active == 0)
		all_inactive(d);
	else
		__atomic_store_n(&d->img.forgetting, true, __ATOMIC_RELAXED);
}

void disk_tell_dropped(struct disk *d)
{
	struct disk_req *req;

	while ((req = disk_reqs_take(&d->dropped)))
		tell(req, -ECANCELED);
	if (d->closing)
		vio_task_defer(d->loop, &d->submit_task);
}

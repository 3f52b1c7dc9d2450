/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Disk requests: when they begin, and how they end. See disk.h.
 *
 * A request is checked, waits in the queue until it may begin, is executed by
 * the layer below, and ends in disk_done().
 */
#include "back/disk/admission.h"

#include <errno.h>

/*
 * --- Beginning ---
 *
 * Beyond a limit, a request waits for the next iteration of the loop: the
 * driver then sees the completed ones earlier, and continues while we do.
 */

static bool may_begin(const struct disk *d, const struct disk_req *req)
{
	return !d->exclusive && !d->exec.img.forgetting && !d->shrinking &&
	       (d->nr_active == 0 || !disk_exec_is_exclusive(&d->exec, req)) &&
	       d->iteration_bytes < DISK_ITERATION_BYTES;
}

static void begin(struct disk *d, struct disk_req *req)
{
	d->nr_active++;
	req->dr_exclusive = disk_exec_is_exclusive(&d->exec, req);
	if (req->dr_exclusive)
		d->exclusive = req;
	if (req->dr_op == DISK_READ || req->dr_op == DISK_WRITE)
		d->iteration_bytes += req->dr_len;
	vio_task_defer(d->loop, &d->iteration_end);
	disk_exec_start(req);
}

/* Why a request cannot even begin, or 0. */
static int check(const struct disk *d, const struct disk_req *req)
{
	const struct disk_info *info = &d->exec.img.info;

	if (req->dr_op == DISK_FLUSH)
		return 0;
	if (req->dr_op != DISK_READ && info->ro)
		return -EROFS;
	if (req->dr_off > info->bytes ||
	    req->dr_len > info->bytes - req->dr_off)
		return -ERANGE;
	return 0;
}

static void end_at_once(struct disk *d, struct disk_req *req, int result)
{
	d->nr_active++;
	disk_done(req, result, true);
}

/* It was checked on arrival; the image may have shrunk since. */
static void begin_queued(struct disk *d, struct disk_req *req)
{
	int ret = check(d, req);

	if (ret < 0)
		end_at_once(d, req, ret);
	else
		begin(d, req);
}

void disk_release_queued(struct disk *d)
{
	if (d->releasing) /* a request ended as soon as it began */
		return;
	d->releasing = true;
	while (d->queued.first && may_begin(d, d->queued.first))
		begin_queued(d, disk_reqs_take(&d->queued));
	d->releasing = false;
}

void disk_start(struct disk *d, struct disk_req *req)
{
	int ret = check(d, req);

	req->dr_exec = &d->exec;
	req->dr_left = req->dr_len;
	if (ret < 0 || (req->dr_len == 0 && req->dr_op != DISK_FLUSH))
		end_at_once(d, req, ret);
	else if (d->queued.first || !may_begin(d, req))
		disk_reqs_add(&d->queued, req);
	else
		begin(d, req);
}

void disk_submit(struct disk *d)
{
	bool more;

	disk_release_queued(d);
	vio_task_cancel(d->loop, &d->iteration_end);
	more = d->queued.first && d->iteration_bytes >= DISK_ITERATION_BYTES;
	d->iteration_bytes = 0;
	disk_exec_submit(&d->exec);
	if (more)
		vio_task_defer(d->loop, &d->iteration_end);
}

/*
 * --- Ending ---
 */

/* It is not active any more, for whatever reason. */
static void inactive(struct disk *d, const struct disk_req *req)
{
	if (d->exclusive == req)
		d->exclusive = NULL;
	d->nr_active--;
}

/* Nothing is active any more: do what has waited for that. */
static void all_inactive(struct disk *d)
{
	disk_exec_set_forgetting(&d->exec, false);
	disk_size_begin(d);
	if (d->closing)
		vio_task_defer(d->loop, &d->iteration_end);
}

static void complete(struct disk *d, struct disk_req *req, int result)
{
	if (!d->io->ending)
		req->dr_done(req, result); /* @req may be freed or run again */
}

void disk_done(struct disk_req *req, int result, bool final)
{
	struct disk *d = disk_of_req(req);

	inactive(d, req);
	if (!final && disk_is_to_wait(req, result))
		disk_wait(req, result);
	else
		complete(d, req, result);
	if (d->nr_active == 0)
		all_inactive(d);
	disk_release_queued(d);
}

/*
 * --- Forgetting ---
 *
 * A request that the kernel works on is waited for: until it ends, the kernel
 * may write to the image and to the request's buffers.
 */

static void drop_waiting(struct disk *d)
{
	struct disk_reqs flushes;
	struct disk_req *req;

	disk_reqs_move(&d->dropped, &d->queued);
	disk_waiting_drop(d, &d->dropped);
	disk_reqs_init(&flushes);
	disk_exec_take_waiting(&d->exec, &flushes);
	while ((req = disk_reqs_take(&flushes))) {
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
		disk_exec_set_forgetting(&d->exec, true);
}

void disk_complete_dropped(struct disk *d)
{
	struct disk_req *req;

	while ((req = disk_reqs_take(&d->dropped)))
		complete(d, req, -ECANCELED);
	if (d->closing)
		vio_task_defer(d->loop, &d->iteration_end);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Disk requests: flushes, and writes that are to be stable. They wait here for
 * the next fdatasync(), which serves all that came before it began. One is made
 * at a time: each failure of the medium is reported by just one such call, and
 * no other may report success beside it.
 */
#include <errno.h>

#include "back/disk/impl.h"

void disk_sync_join(struct disk_req *req)
{
	struct disk *d = req->dr_disk;

	if (d->sync_error) {
		disk_end(req, d->sync_error);
	} else if (d->img.forgetting) {
		disk_end(req, -ECANCELED);
	} else {
		disk_reqs_add(&d->sync_waiting, req);
		vio_task_defer(d->loop, &d->submit_task);
	}
}

static void finish_all(struct disk_reqs *reqs, int result)
{
	struct disk_req *req;

	while ((req = disk_reqs_take(reqs)))
		disk_end(req, result);
}

static void sync_done(struct disk_call *call, int result)
{
	struct disk *d = disk_of_call(call);

	/*
	 * The kernel may have dropped what it could not write, and will not
	 * tell again: nothing can be promised from now on.
	 */
	if (result < 0)
		d->sync_error = result;
	finish_all(&d->sync_served, d->sync_error);
	d->syncing = false;
	if (d->sync_error)
		finish_all(&d->sync_waiting, d->sync_error);
	if (d->sync_waiting.first || d->closing)
		vio_task_defer(d->loop, &d->submit_task);
}

void disk_sync_begin(struct disk *d)
{
	disk_reqs_move(&d->sync_served, &d->sync_waiting);
	d->syncing = true;
	d->sync_call = (struct disk_call){
		.img = &d->img,
		.op = CALL_SYNC,
		.done = sync_done,
	};
	disk_call_start_other(d, &d->sync_call);
}

/* The bytes are written: is that all? */
void disk_written(struct disk_req *req)
{
	if (req->dr_fua || req->dr_disk->writethrough)
		disk_sync_join(req);
	else
		disk_end(req, 0);
}

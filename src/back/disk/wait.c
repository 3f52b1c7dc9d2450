/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Requests that the host could not serve, and that wait until the fault is
 * corrected: space freed, a cable reconnected. Each resumes where it stopped.
 */
#include <errno.h>
#include <string.h>

#include "back/disk/admission.h"

enum disk_on_error disk_on_error(const char *name)
{
	if (!strcmp(name, "wait"))
		return DISK_WAIT;
	return strcmp(name, "enospc") ? DISK_REPORT : DISK_WAIT_SPACE;
}

bool disk_is_to_wait(const struct disk_req *req, int error)
{
	const struct disk *d = disk_of_req(req);
	enum disk_on_error on_error =
		req->dr_op == DISK_READ ? d->on_read_error : d->on_write_error;

	if (error >= 0 || error == -ECANCELED || d->closing)
		return false;
	if (on_error == DISK_WAIT_SPACE)
		return error == -ENOSPC || error == -EDQUOT;
	return on_error == DISK_WAIT;
}

void disk_wait(struct disk_req *req, int error)
{
	struct disk *d = disk_of_req(req);

	if (d->exec.img.forgetting) { /* as those that waited already */
		disk_reqs_add(&d->dropped, req);
		vio_task_defer(d->loop, &d->drop_task);
		return;
	}
	disk_reqs_add(&d->failed, req);
	d->nr_failed++;
	if (d->on_wait)
		d->on_wait(d->on_wait_arg, req->dr_op, error);
}

void disk_waiting_drop(struct disk *d, struct disk_reqs *to)
{
	disk_reqs_move(to, &d->failed);
	d->nr_failed = 0;
}

void disk_set_on_wait(struct disk *d,
		      void (*fn)(void *arg, enum disk_op op, int error),
		      void *arg)
{
	d->on_wait = fn;
	d->on_wait_arg = arg;
}

unsigned disk_nr_waiting(const struct disk *d)
{
	return d->nr_failed;
}

void disk_take_back(struct disk *d, bool (*fn)(void *arg, struct disk_req *req),
		    void *arg)
{
	struct disk_reqs all;
	struct disk_req *req;

	disk_reqs_init(&all);
	disk_waiting_drop(d, &all);
	while ((req = disk_reqs_take(&all))) {
		if (fn(arg, req)) /* it may be freed */
			continue;
		disk_reqs_add(&d->failed, req);
		d->nr_failed++;
	}
}

/* They are older than what waits for its turn. */
void disk_resume(struct disk *d)
{
	struct disk_reqs first;

	disk_reqs_init(&first);
	disk_waiting_drop(d, &first);
	disk_reqs_move(&first, &d->queued);
	disk_reqs_move(&d->queued, &first);
	disk_release_queued(d);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Host operations of a command that are not disk requests: a thread executes
 * them beside the loop. Such a command runs alone, and the thread owns the
 * LUN's work buffer until it ends.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/util.h"
#include "dev/scsi/scsi.h"

#define END_MS 500 /* for steps to end, at the end */

struct scsi_offload {
	struct pool *pool;
	bool ending;
};

static void job_run(void *arg, struct pool_job *job)
{
	struct scsi_task *t = container_of(job, struct scsi_task, job);

	t->result = t->offload_fn(t->lun, t);
}

static void job_done(void *arg, struct pool_job *job)
{
	struct scsi_task *t = container_of(job, struct scsi_task, job);
	struct scsi_offload *offload = arg;

	if (!offload->ending)
		t->step(t, t->result);
}

static const struct pool_ops jobs = {
	.run = job_run,
	.done = job_done,
};

void task_offload(struct scsi_task *t, task_offload_fn *fn, task_step *step)
{
	struct scsi_offload *offload = t->q->sc->sc_offload;

	t->offload_fn = fn;
	t->step = step;
	pool_start(offload->pool, &t->job);
}

int scsi_offload_create(struct vio_loop *loop,
			struct scsi_offload **ret_offload)
{
	struct scsi_offload *offload = calloc(1, sizeof(*offload));
	int ret;

	if (!offload)
		return -ENOMEM;
	/* One: what is written to a file is so in order. */
	ret = pool_create(loop, 1, &jobs, offload, &offload->pool);
	if (ret < 0) {
		free(offload);
		return ret;
	}
	*ret_offload = offload;
	return 0;
}

bool scsi_offload_destroy(struct scsi_offload *offload)
{
	if (!offload)
		return true;
	offload->ending = true;
	if (!pool_finish(offload->pool, END_MS))
		return false;
	free(offload);
	return true;
}

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

struct scsi_aside {
	struct pool *pool;
	bool ending;
};

static void job_run(void *arg, struct pool_job *job)
{
	struct scsi_task *t = container_of(job, struct scsi_task, job);

	t->result = t->aside(t->lun, t);
}

static void job_done(void *arg, struct pool_job *job)
{
	struct scsi_task *t = container_of(job, struct scsi_task, job);
	struct scsi_aside *aside = arg;

	if (!aside->ending)
		t->step(t, t->result);
}

static const struct pool_ops jobs = {
	.run = job_run,
	.done = job_done,
};

void task_aside(struct scsi_task *t, task_aside_fn *fn, task_step *step)
{
	struct scsi_aside *aside = t->q->sc->sc_aside;

	t->aside = fn;
	t->step = step;
	pool_start(aside->pool, &t->job);
}

int scsi_aside_create(struct vio_loop *loop, struct scsi_aside **ret_aside)
{
	struct scsi_aside *aside = calloc(1, sizeof(*aside));
	int ret;

	if (!aside)
		return -ENOMEM;
	/* One: what is written to a file is so in order. */
	ret = pool_create(loop, 1, &jobs, aside, &aside->pool);
	if (ret < 0) {
		free(aside);
		return ret;
	}
	*ret_aside = aside;
	return 0;
}

bool scsi_aside_destroy(struct scsi_aside *aside)
{
	if (!aside)
		return true;
	aside->ending = true;
	if (!pool_finish(aside->pool, END_MS))
		return false;
	free(aside);
	return true;
}

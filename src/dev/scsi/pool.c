/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Memory for commands. It is there from the start, but costs nothing until a
 * guest has used it: what was never taken was never touched.
 */
#include <errno.h>
#include <stdlib.h>

#include "dev/scsi/scsi.h"

int scsi_pool_init(struct scsi_pool *pool, unsigned max_tasks)
{
	pool->nr_tasks =
		max_tasks < SCSI_MAX_TASKS ? max_tasks : SCSI_MAX_TASKS;
	pool->tasks = calloc(pool->nr_tasks, sizeof(*pool->tasks));
	pool->wides = calloc(SCSI_MAX_WIDE, sizeof(*pool->wides));
	return pool->tasks && pool->wides ? 0 : -ENOMEM;
}

void scsi_pool_fini(struct scsi_pool *pool)
{
	free(pool->tasks);
	free(pool->wides);
}

static struct scsi_task *take_task(struct scsi_pool *pool)
{
	struct scsi_task *t = pool->free_tasks;

	if (t)
		pool->free_tasks = t->next;
	else if (pool->nr_used < pool->nr_tasks)
		t = &pool->tasks[pool->nr_used++];
	return t;
}

static struct scsi_wide *take_wide(struct scsi_pool *pool)
{
	struct scsi_wide *w = pool->free_wides;

	if (w)
		pool->free_wides = w->next;
	else if (pool->nr_wides_used < SCSI_MAX_WIDE)
		w = &pool->wides[pool->nr_wides_used++];
	return w;
}

struct scsi_task *scsi_pool_take(struct scsi_pool *pool, unsigned niov)
{
	struct scsi_task *t = take_task(pool);

	if (!t)
		return NULL;
	t->wide = niov > SCSI_FEW_IOV ? take_wide(pool) : NULL;
	t->iov = t->wide ? t->wide->iov : t->few;
	if (niov <= SCSI_FEW_IOV || t->wide)
		return t;
	scsi_pool_give(pool, t);
	return NULL;
}

void scsi_pool_give(struct scsi_pool *pool, struct scsi_task *t)
{
	if (t->wide) {
		t->wide->next = pool->free_wides;
		pool->free_wides = t->wide;
	}
	t->next = pool->free_tasks;
	pool->free_tasks = t;
}

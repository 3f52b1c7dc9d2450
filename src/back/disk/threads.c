/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The engine for where io_uring is refused, as in many containers; and for
 * calls that it cannot make.
 */
#include <errno.h>
#include <limits.h>

#include "back/disk/engine.h"
#include "base/pool.h"
#include "base/util.h"

#define NR_THREADS 4 /* before others are busy */

static struct disk_call *call_of(struct pool_job *job)
{
	return container_of(job, struct disk_call, job);
}

static void job_run(void *arg, struct pool_job *job)
{
	struct disk_call *call = call_of(job);

	if (disk_call_forgotten(call))
		call->result = -ECANCELED;
	else
		call->result = disk_call_run(call);
}

static void job_done(void *arg, struct pool_job *job)
{
	struct disk_call *call = call_of(job);

	disk_call_done(call, call->result);
}

static const struct pool_ops jobs = {
	.run = job_run,
	.done = job_done,
};

static int threads_create(struct vio_loop *loop, unsigned depth,
			  unsigned nr_disks, void **ret_engine)
{
	struct pool *pool;
	unsigned nr = depth < NR_THREADS ? depth : NR_THREADS;
	int ret = pool_create(loop, nr, &jobs, NULL, &pool);

	if (ret < 0)
		return ret;
	/* A call that hangs must not hold up others. */
	pool_may_grow(pool, POOL_MAX_THREADS);
	*ret_engine = pool;
	return 0;
}

static void threads_destroy(void *engine)
{
	pool_destroy(engine);
}

static void threads_abandon(void *engine)
{
	pool_abandon(engine);
}

/* A call knows its image. */
static int threads_add(void *engine, int fd)
{
	return fd;
}

static void threads_remove(void *engine, int file)
{
}

static void threads_start(void *engine, struct disk_call *call)
{
	pool_start(engine, &call->job);
}

static int threads_submit(void *engine)
{
	return 0;
}

static void threads_wait(void *engine, int timeout_ms)
{
	pool_wait(engine, timeout_ms);
}

const struct disk_engine_ops disk_threads = {
	.name = "threads",
	.max_inline = UINT_MAX,
	.create = threads_create,
	.destroy = threads_destroy,
	.abandon = threads_abandon,
	.add = threads_add,
	.remove = threads_remove,
	.start = threads_start,
	.submit = threads_submit,
	.wait = threads_wait,
};

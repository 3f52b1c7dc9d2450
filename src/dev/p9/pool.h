/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A few threads that may wait, for a loop's thread that may not.
 *
 * A job is queued, then running, then done; its done() is called on the
 * loop's thread. The threads are there from the start, so that a sandbox need
 * not allow clone(), and sleep until there is a job.
 */
#ifndef P9_POOL_H
#define P9_POOL_H

#include <stdbool.h>

struct ev_loop;
struct p9_pool;

struct p9_pool_job {
	struct p9_pool_job *next;
	bool queued;
};

struct p9_pool_ops {
	/* Each thread's first call; p9_pool_create() waits for all of them. */
	void (*init)(void *arg);
	void (*run)(void *arg, struct p9_pool_job *job);
	void (*done)(void *arg, struct p9_pool_job *job);
	/* After the last done() of several that came together. */
	void (*idle)(void *arg);
};

int p9_pool_create(struct ev_loop *loop, unsigned nr_threads,
		   const struct p9_pool_ops *ops, void *arg,
		   struct p9_pool **ret_pool);
void p9_pool_destroy(struct p9_pool *pool); /* no job is queued; NULL is fine */

void p9_pool_start(struct p9_pool *pool, struct p9_pool_job *job);

/* Take a job back that no thread has begun: false when it is too late. */
bool p9_pool_cancel(struct p9_pool *pool, struct p9_pool_job *job);

/*
 * Wait at most @timeout_ms for jobs to be done and call their done(). False
 * when none was.
 */
bool p9_pool_wait(struct p9_pool *pool, int timeout_ms);

#endif

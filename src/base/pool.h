/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A few threads that may wait, for a loop's thread that may not.
 *
 * A job is queued, then running, then done; its done() is called on the
 * loop's thread. The threads are created at the start, so that a sandbox need
 * not allow clone(), and sleep until a job arrives. A pool that may grow adds
 * threads while all others are busy, and needs clone() for it.
 */
#ifndef BASE_POOL_H
#define BASE_POOL_H

#include <stdbool.h>
#include <sys/syscall.h>

#define POOL_MAX_THREADS 64

/*
 * System calls of a pool that may grow, for the sandbox. Without rseq() glibc
 * ends the process when a thread starts.
 */
/* clang-format off */
#define POOL_GROWTH_SYSCALLS \
	SYS_clone, SYS_exit, SYS_madvise, SYS_rseq, SYS_rt_sigprocmask, \
	SYS_set_robust_list
/* clang-format on */

struct vio_loop;
struct pool;

struct pool_job {
	struct pool_job *next;
	bool queued;
};

struct pool_ops {
	/*
	 * Each thread's first call; pool_create() waits for all of them. An
	 * @added thread was created by another one of the pool, whose working
	 * directory and umask it shares. May be NULL.
	 */
	void (*init)(void *arg, bool added);
	void (*run)(void *arg, struct pool_job *job);
	void (*done)(void *arg, struct pool_job *job);
	/* After the last done() of a batch. May be NULL. */
	void (*idle)(void *arg);
};

int pool_create(struct vio_loop *loop, unsigned nr_threads,
		const struct pool_ops *ops, void *arg, struct pool **ret_pool);

/*
 * Let the pool grow to @max_threads, at most POOL_MAX_THREADS: it keeps one idle
 * for the next job. An added thread ends after ten idle seconds. If memory for
 * another thread is lacking, jobs wait for the existing threads.
 */
void pool_may_grow(struct pool *pool, unsigned max_threads);

/*
 * Jobs run to completion, which is not reported. @pool may be NULL.
 * pool_abandon() does not wait for jobs, one of which may never end: the memory
 * of the pool and of what that job uses must remain valid.
 */
void pool_destroy(struct pool *pool);
void pool_abandon(struct pool *pool);

/*
 * Destroy a pool whose jobs may never end: wait for them, at most @timeout_ms,
 * and call their done(). False: some have not ended, and the pool is abandoned.
 */
bool pool_finish(struct pool *pool, unsigned timeout_ms);

void pool_start(struct pool *pool, struct pool_job *job);

/* Withdraw a job that no thread has begun. False: it is too late. */
bool pool_cancel(struct pool *pool, struct pool_job *job);

/*
 * Wait at most @timeout_ms for jobs to be done and call their done(). False
 * when none was.
 */
bool pool_wait(struct pool *pool, int timeout_ms);

#endif

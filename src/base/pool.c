/* SPDX-License-Identifier: BSD-2-Clause */
#include "base/pool.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include <viodev/loop.h>

#define STACK_BYTES (256u << 10) /* what a job may need */
#define IDLE_S      10           /* after which an added thread ends */

struct jobs {
	struct pool_job *first, **end;
};

struct worker {
	struct pool *pool;
	pthread_t thread;
	bool used;  /* there is a thread, to be joined */
	bool ended; /* it has let go of the pool */
};

struct pool {
	const struct pool_ops *ops;
	void *arg;
	int event_fd; /* readable: done is not empty */
	struct vio_source *source;
	struct jobs reaped; /* done, but done() is yet to be called */
	unsigned nr_jobs;   /* started, and done() is yet to be called */

	pthread_mutex_t lock;
	pthread_cond_t work, ready;
	struct jobs todo, done;
	struct worker workers[POOL_MAX_THREADS];
	unsigned nr_threads, min_threads, max_threads;
	unsigned nr_ready, nr_sleeping;
	bool stop;
};

static void jobs_init(struct jobs *q)
{
	q->first = NULL;
	q->end = &q->first;
}

static void jobs_add(struct jobs *q, struct pool_job *job)
{
	job->next = NULL;
	*q->end = job;
	q->end = &job->next;
}

static struct pool_job *jobs_take(struct jobs *q)
{
	struct pool_job *job = q->first;

	if (!job)
		return NULL;
	q->first = job->next;
	if (!q->first)
		q->end = &q->first;
	return job;
}

/* Append all of @from, which is empty afterwards. */
static void jobs_move(struct jobs *q, struct jobs *from)
{
	if (!from->first)
		return;
	*q->end = from->first;
	q->end = from->end;
	jobs_init(from);
}

/*
 * --- Threads; the lock is held ---
 */

static void *work(void *arg);

static struct worker *unused_worker(struct pool *pool)
{
	struct worker *w = pool->workers;

	while (w->used && !w->ended)
		w++;
	if (w->ended)
		pthread_join(w->thread, NULL);
	w->used = w->ended = false;
	return w;
}

/*
 * Signals are for the thread that runs the loop. A fault is the thread's own:
 * a client's memory may be gone, see serve/client.h.
 */
static int add_thread(struct pool *pool)
{
	struct worker *w = unused_worker(pool);
	pthread_attr_t attr;
	sigset_t all, old;
	int ret;

	w->pool = pool;
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_BYTES);
	sigfillset(&all);
	sigdelset(&all, SIGBUS);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	ret = -pthread_create(&w->thread, &attr, work, w);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pthread_attr_destroy(&attr);
	if (ret == 0) {
		w->used = true;
		pool->nr_threads++;
	}
	return ret;
}

/* Wait for work: false when an added thread has waited long enough. */
static bool sleep_long(struct pool *pool)
{
	struct timespec end;
	int err = 0;

	pool->nr_sleeping++;
	if (pool->nr_threads > pool->min_threads) {
		clock_gettime(CLOCK_MONOTONIC, &end);
		end.tv_sec += IDLE_S;
		err = pthread_cond_timedwait(&pool->work, &pool->lock, &end);
	} else {
		pthread_cond_wait(&pool->work, &pool->lock);
	}
	pool->nr_sleeping--;
	return err != ETIMEDOUT || pool->todo.first ||
	       pool->nr_threads <= pool->min_threads;
}

static struct pool_job *next_job(struct pool *pool)
{
	struct pool_job *job;

	while (!(job = jobs_take(&pool->todo)) && !pool->stop) {
		if (!sleep_long(pool))
			return NULL;
	}
	if (!job)
		return NULL;
	job->queued = false;
	/* This was the last one that was free. */
	if (pool->nr_sleeping == 0 && pool->nr_threads < pool->max_threads &&
	    !pool->stop)
		add_thread(pool);
	return job;
}

static void *work(void *arg)
{
	const uint64_t one = 1;
	struct worker *w = arg;
	struct pool *pool = w->pool;
	struct pool_job *job;

	pthread_mutex_lock(&pool->lock);
	if (pool->ops->init)
		pool->ops->init(pool->arg, pool->max_threads > 0);
	pool->nr_ready++;
	pthread_cond_signal(&pool->ready);
	while ((job = next_job(pool))) {
		pthread_mutex_unlock(&pool->lock);
		pool->ops->run(pool->arg, job);
		pthread_mutex_lock(&pool->lock);
		/*
		 * Adding ones cannot overflow the counter, even if it is never
		 * read.
		 */
		if (!pool->done.first &&
		    write(pool->event_fd, &one, sizeof(one)) < 0)
			abort();
		jobs_add(&pool->done, job);
	}
	pool->nr_threads--;
	w->ended = true;
	pthread_mutex_unlock(&pool->lock);
	return NULL;
}

/*
 * --- The loop's side ---
 */

/* Call done() of jobs that are done; a done() may itself wait for others. */
static bool reap(struct pool *pool)
{
	struct pool_job *job;
	uint64_t count;
	bool any = false;

	pthread_mutex_lock(&pool->lock);
	if (pool->done.first &&
	    read(pool->event_fd, &count, sizeof(count)) == sizeof(count))
		jobs_move(&pool->reaped, &pool->done);
	pthread_mutex_unlock(&pool->lock);

	while ((job = jobs_take(&pool->reaped))) {
		pool->nr_jobs--;
		pool->ops->done(pool->arg, job);
		any = true;
	}
	if (any && pool->ops->idle)
		pool->ops->idle(pool->arg);
	return any;
}

static void on_ready(void *arg, uint32_t events)
{
	reap(arg);
}

void pool_start(struct pool *pool, struct pool_job *job)
{
	pool->nr_jobs++;
	pthread_mutex_lock(&pool->lock);
	job->queued = true;
	jobs_add(&pool->todo, job);
	if (pool->nr_sleeping > 0)
		pthread_cond_signal(&pool->work);
	pthread_mutex_unlock(&pool->lock);
}

bool pool_cancel(struct pool *pool, struct pool_job *job)
{
	struct pool_job **link = &pool->todo.first;
	bool queued;

	pthread_mutex_lock(&pool->lock);
	queued = job->queued;
	if (queued) {
		while (*link != job)
			link = &(*link)->next;
		*link = job->next;
		if (pool->todo.end == &job->next)
			pool->todo.end = link;
		job->queued = false;
		pool->nr_jobs--;
	}
	pthread_mutex_unlock(&pool->lock);
	return queued;
}

bool pool_wait(struct pool *pool, int timeout_ms)
{
	struct pollfd pfd = { .fd = pool->event_fd, .events = POLLIN };

	return (pool->reaped.first || poll(&pfd, 1, timeout_ms) > 0) &&
	       reap(pool);
}

static void stop(struct pool *pool, bool forget)
{
	pthread_mutex_lock(&pool->lock);
	if (forget)
		jobs_init(&pool->todo);
	pool->stop = true;
	pthread_cond_broadcast(&pool->work);
	pthread_mutex_unlock(&pool->lock);
}

void pool_abandon(struct pool *pool)
{
	stop(pool, true);
	vio_source_remove(pool->source);
	pthread_mutex_lock(&pool->lock);
	for (unsigned i = 0; i < POOL_MAX_THREADS; i++) {
		if (pool->workers[i].used)
			pthread_detach(pool->workers[i].thread);
	}
	pthread_mutex_unlock(&pool->lock);
}

void pool_destroy(struct pool *pool)
{
	if (!pool)
		return;
	stop(pool, false);
	for (unsigned i = 0; i < POOL_MAX_THREADS; i++) {
		if (pool->workers[i].used)
			pthread_join(pool->workers[i].thread, NULL);
	}

	vio_source_remove(pool->source);
	if (pool->event_fd >= 0)
		close(pool->event_fd);
	pthread_cond_destroy(&pool->work);
	pthread_cond_destroy(&pool->ready);
	pthread_mutex_destroy(&pool->lock);
	free(pool);
}

bool pool_finish(struct pool *pool, unsigned timeout_ms)
{
	uint64_t end = vio_now_ns() + timeout_ms * UINT64_C(1000000);

	while (pool->nr_jobs > 0 && vio_now_ns() < end)
		pool_wait(pool, 10);
	if (pool->nr_jobs > 0) {
		pool_abandon(pool);
		return false;
	}
	pool_destroy(pool);
	return true;
}

static int start_threads(struct pool *pool, unsigned nr)
{
	int ret = 0;

	pthread_mutex_lock(&pool->lock);
	while (ret == 0 && pool->nr_threads < nr)
		ret = add_thread(pool);
	pool->min_threads = pool->nr_threads;
	while (pool->nr_ready < pool->nr_threads)
		pthread_cond_wait(&pool->ready, &pool->lock);
	pool->max_threads = pool->nr_threads;
	pthread_mutex_unlock(&pool->lock);
	return pool->nr_threads > 0 ? 0 : ret;
}

void pool_may_grow(struct pool *pool, unsigned max_threads)
{
	pthread_mutex_lock(&pool->lock);
	pool->max_threads =
		max_threads < POOL_MAX_THREADS ? max_threads : POOL_MAX_THREADS;
	pthread_mutex_unlock(&pool->lock);
}

int pool_create(struct vio_loop *loop, unsigned nr_threads,
		const struct pool_ops *ops, void *arg, struct pool **ret_pool)
{
	struct pool *pool = calloc(1, sizeof(*pool));
	pthread_condattr_t attr;
	int ret;

	if (!pool)
		return -ENOMEM;
	pool->ops = ops;
	pool->arg = arg;
	jobs_init(&pool->todo);
	jobs_init(&pool->done);
	jobs_init(&pool->reaped);
	pthread_mutex_init(&pool->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&pool->work, &attr);
	pthread_condattr_destroy(&attr);
	pthread_cond_init(&pool->ready, NULL);

	pool->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	ret = pool->event_fd < 0 ? -errno : 0;
	if (ret == 0)
		ret = vio_fd_add(loop, pool->event_fd, EPOLLIN, on_ready, pool,
				 &pool->source);
	if (ret == 0)
		ret = start_threads(pool, nr_threads < POOL_MAX_THREADS ?
						  nr_threads :
						  POOL_MAX_THREADS);
	if (ret < 0) {
		pool_destroy(pool);
		return ret;
	}
	*ret_pool = pool;
	return 0;
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The engine for where io_uring is refused, as in many containers: a few
 * threads that make one call at a time each.
 *
 *	loop's thread                          a worker
 *	start() -> batch
 *	submit()    batch -> todo   (lock)     todo -> the call -> done
 *	ready() <------ eventfd -------------- done was empty
 *	            done -> reaped -> call->done()
 *
 * The threads exist from the start, so that a sandbox need not allow clone().
 */
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <viodev/loop.h>

#include "back/disk_impl.h"

#define NR_THREADS 4

struct pool {
	int event_fd; /* readable: done is not empty */
	struct ev_source *source;
	pthread_t threads[NR_THREADS];
	unsigned nr_threads;
	struct disk_calls batch;  /* started, not submitted */
	struct disk_calls reaped; /* done, not yet called back */

	pthread_mutex_t lock;
	pthread_cond_t work;
	struct disk_calls todo;
	struct disk_calls done;
	bool stop;
};

static void *worker(void *arg)
{
	struct pool *pool = arg;
	const uint64_t one = 1;
	struct disk_call *call;

	pthread_mutex_lock(&pool->lock);
	for (;;) {
		while (!(call = disk_calls_take(&pool->todo)) && !pool->stop)
			pthread_cond_wait(&pool->work, &pool->lock);
		if (!call)
			break;
		pthread_mutex_unlock(&pool->lock);

		call->result = disk_call_run(call);

		pthread_mutex_lock(&pool->lock);
		/* A counter that is not read cannot overflow by ones. */
		if (!pool->done.first &&
		    write(pool->event_fd, &one, sizeof(one)) < 0)
			abort();
		disk_calls_add(&pool->done, call);
	}
	pthread_mutex_unlock(&pool->lock);
	return NULL;
}

static void pool_ready(void *arg, uint32_t events)
{
	struct pool *pool = arg;
	struct disk_call *call;
	uint64_t count;

	pthread_mutex_lock(&pool->lock);
	if (pool->done.first &&
	    read(pool->event_fd, &count, sizeof(count)) == sizeof(count))
		disk_calls_move(&pool->reaped, &pool->done);
	pthread_mutex_unlock(&pool->lock);

	while ((call = disk_calls_take(&pool->reaped)))
		call->done(call, call->result);
}

static void pool_start(void *engine, struct disk_call *call)
{
	struct pool *pool = engine;

	disk_calls_add(&pool->batch, call);
}

static bool pool_submit(void *engine)
{
	struct pool *pool = engine;

	if (!pool->batch.first)
		return true;
	pthread_mutex_lock(&pool->lock);
	if (pool->batch.first->next)
		pthread_cond_broadcast(&pool->work);
	else
		pthread_cond_signal(&pool->work);
	disk_calls_move(&pool->todo, &pool->batch);
	pthread_mutex_unlock(&pool->lock);
	return true;
}

static void pool_wait(void *engine, int timeout_ms)
{
	struct pool *pool = engine;
	struct pollfd pfd = { .fd = pool->event_fd, .events = POLLIN };

	if (pool->reaped.first || poll(&pfd, 1, timeout_ms) > 0)
		pool_ready(pool, 0);
}

static void pool_destroy(void *engine)
{
	struct pool *pool = engine;

	pthread_mutex_lock(&pool->lock);
	pool->stop = true;
	pthread_cond_broadcast(&pool->work);
	pthread_mutex_unlock(&pool->lock);
	for (unsigned i = 0; i < pool->nr_threads; i++)
		pthread_join(pool->threads[i], NULL);

	ev_remove(pool->source);
	if (pool->event_fd >= 0)
		close(pool->event_fd);
	pthread_cond_destroy(&pool->work);
	pthread_mutex_destroy(&pool->lock);
	free(pool);
}

/* Signals are for the thread that runs the loop. */
static int start_threads(struct pool *pool)
{
	sigset_t all, old;
	int ret = 0;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	while (ret == 0 && pool->nr_threads < NR_THREADS) {
		ret = -pthread_create(&pool->threads[pool->nr_threads], NULL,
				      worker, pool);
		if (ret == 0)
			pool->nr_threads++;
	}
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return pool->nr_threads > 0 ? 0 : ret;
}

/* A call knows its image. */
static int pool_add(void *engine, int fd)
{
	return fd;
}

static void pool_remove(void *engine, int file)
{
}

static int pool_create(struct ev_loop *loop, unsigned depth, unsigned nr_disks,
		       void **ret_engine)
{
	struct pool *pool = calloc(1, sizeof(*pool));
	int ret;

	if (!pool)
		return -ENOMEM;
	disk_calls_init(&pool->batch);
	disk_calls_init(&pool->reaped);
	disk_calls_init(&pool->todo);
	disk_calls_init(&pool->done);
	pthread_mutex_init(&pool->lock, NULL);
	pthread_cond_init(&pool->work, NULL);

	pool->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	ret = pool->event_fd < 0 ? -errno : 0;
	if (ret == 0)
		ret = ev_fd_add(loop, pool->event_fd, EPOLLIN, pool_ready, pool,
				&pool->source);
	if (ret == 0)
		ret = start_threads(pool);
	if (ret < 0) {
		pool_destroy(pool);
		return ret;
	}
	*ret_engine = pool;
	return 0;
}

const struct disk_engine disk_threads = {
	.name = "threads",
	.max_now = UINT_MAX,
	.create = pool_create,
	.destroy = pool_destroy,
	.add = pool_add,
	.remove = pool_remove,
	.start = pool_start,
	.submit = pool_submit,
	.wait = pool_wait,
};

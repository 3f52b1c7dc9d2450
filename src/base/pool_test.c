/* SPDX-License-Identifier: BSD-2-Clause */
/* Jobs of a pool, from the loop's side. */
#include "base/pool.h"

#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <viodev/loop.h>

#define NR_JOBS 100

struct test_job {
	struct pool_job job; /* first */
	pthread_t ran_on;
	bool done;
};

struct fixture {
	struct vio_loop *loop;
	struct pool *pool;
	unsigned nr_init, nr_added, nr_done, nr_idle;
	sem_t go;                   /* one post lets one job run */
	struct test_job *waits_for; /* in its done() a job waits for this one */
};

static void job_init(void *arg, bool added)
{
	struct fixture *f = arg;

	__atomic_fetch_add(added ? &f->nr_added : &f->nr_init, 1,
			   __ATOMIC_RELAXED);
}

static void job_run(void *arg, struct pool_job *job)
{
	struct fixture *f = arg;

	sem_wait(&f->go);
	((struct test_job *)job)->ran_on = pthread_self();
}

static void job_done(void *arg, struct pool_job *job)
{
	struct test_job *other, *tj = (struct test_job *)job;
	struct fixture *f = arg;

	tj->done = true;
	f->nr_done++;
	other = f->waits_for;
	f->waits_for = NULL;
	while (other && !other->done)
		assert_true(pool_wait(f->pool, 10000));
}

static void job_idle(void *arg)
{
	struct fixture *f = arg;

	f->nr_idle++;
}

static const struct pool_ops ops = {
	.init = job_init,
	.run = job_run,
	.done = job_done,
	.idle = job_idle,
};

static void fixture_init(struct fixture *f, unsigned nr_threads)
{
	*f = (struct fixture){ .loop = NULL };
	sem_init(&f->go, 0, 0);
	assert_int_equal(vio_loop_create(&f->loop), 0);
	assert_int_equal(pool_create(f->loop, nr_threads, &ops, f, &f->pool),
			 0);
}

static void fixture_fini(struct fixture *f)
{
	pool_destroy(f->pool);
	vio_loop_destroy(f->loop);
	sem_destroy(&f->go);
}

static void let_run(struct fixture *f, unsigned nr)
{
	while (nr--)
		sem_post(&f->go);
}

static void test_jobs(void **state)
{
	struct test_job jobs[NR_JOBS] = { 0 };
	struct fixture f;

	fixture_init(&f, 3);
	assert_int_equal(f.nr_init, 3);
	for (unsigned i = 0; i < NR_JOBS; i++)
		pool_start(f.pool, &jobs[i].job);
	let_run(&f, NR_JOBS);
	while (f.nr_done < NR_JOBS)
		assert_true(vio_loop_iterate(f.loop, 10000) >= 0);
	for (unsigned i = 0; i < NR_JOBS; i++) {
		assert_true(jobs[i].done);
		assert_false(pthread_equal(jobs[i].ran_on, pthread_self()));
	}
	assert_in_range(f.nr_idle, 1, NR_JOBS);
	assert_false(pool_wait(f.pool, 0));
	fixture_fini(&f);
}

static unsigned nr_running(const struct test_job *jobs, unsigned nr)
{
	unsigned running = 0;

	for (unsigned i = 0; i < nr; i++)
		running +=
			!__atomic_load_n(&jobs[i].job.queued, __ATOMIC_RELAXED);
	return running;
}

/* All run at once, as far as the pool may grow; then its size stays. */
static void test_growth(void **state)
{
	struct test_job jobs[12] = { 0 };
	struct fixture f;

	fixture_init(&f, 2);
	pool_may_grow(f.pool, 10);
	for (int round = 0; round < 2; round++) {
		f.nr_done = 0;
		for (unsigned i = 0; i < 12; i++)
			pool_start(f.pool, &jobs[i].job);
		while (nr_running(jobs, 12) < 10)
			;
		let_run(&f, 12);
		while (f.nr_done < 12)
			assert_true(pool_wait(f.pool, 10000));
	}
	assert_int_equal(f.nr_init, 2);
	assert_int_equal(f.nr_added, 8);
	fixture_fini(&f);
}

/* A job that has begun cannot be cancelled; any other can, once. */
static void test_cancel(void **state)
{
	struct test_job jobs[4] = { 0 };
	struct fixture f;

	fixture_init(&f, 1);
	pool_start(f.pool, &jobs[0].job);
	while (__atomic_load_n(&jobs[0].job.queued, __ATOMIC_RELAXED))
		;
	for (unsigned i = 1; i < 4; i++)
		pool_start(f.pool, &jobs[i].job);
	assert_false(pool_cancel(f.pool, &jobs[0].job));
	assert_true(pool_cancel(f.pool, &jobs[3].job));
	assert_false(pool_cancel(f.pool, &jobs[3].job));
	assert_true(pool_cancel(f.pool, &jobs[1].job));
	pool_start(f.pool, &jobs[1].job); /* after the others */
	let_run(&f, 3);
	while (f.nr_done < 3)
		assert_true(pool_wait(f.pool, 10000));
	assert_true(jobs[0].done && jobs[1].done && jobs[2].done);
	assert_false(jobs[3].done);
	fixture_fini(&f);
}

/* A done() may wait for a job that was done together with its own. */
static void test_nested(void **state)
{
	struct test_job jobs[2] = { 0 };
	struct fixture f;

	fixture_init(&f, 1);
	f.waits_for = &jobs[1];
	pool_start(f.pool, &jobs[0].job);
	pool_start(f.pool, &jobs[1].job);
	let_run(&f, 2);
	while (f.nr_done < 2)
		assert_true(pool_wait(f.pool, 10000));
	fixture_fini(&f);
}

/* Running jobs run to completion, which is not reported. */
static void test_destroy(void **state)
{
	struct test_job job = { 0 };
	struct fixture f;

	fixture_init(&f, 2);
	pool_start(f.pool, &job.job);
	let_run(&f, 1);
	pool_destroy(f.pool);
	assert_true(job.ran_on);
	assert_false(job.done);
	pool_destroy(NULL);
	vio_loop_destroy(f.loop);
	sem_destroy(&f.go);
}

/* A job that may never end does not block; queued jobs never begin. */
static void test_abandon(void **state)
{
	static struct test_job jobs[2];
	static struct fixture f; /* the thread continues to use it */

	fixture_init(&f, 1);
	pool_start(f.pool, &jobs[0].job);
	while (__atomic_load_n(&jobs[0].job.queued, __ATOMIC_RELAXED))
		;
	pool_start(f.pool, &jobs[1].job);
	pool_abandon(f.pool);
	assert_false(jobs[0].done);
	vio_loop_destroy(f.loop);
	let_run(&f, 2);
	while (!__atomic_load_n(&jobs[0].ran_on, __ATOMIC_RELAXED))
		;
	assert_false(jobs[1].ran_on);
	assert_int_equal(f.nr_done, 0);
}

/* pool_finish() waits for jobs, and reports them. */
static void test_finish(void **state)
{
	struct test_job jobs[2] = { 0 };
	struct fixture f;

	fixture_init(&f, 1);
	pool_start(f.pool, &jobs[0].job);
	pool_start(f.pool, &jobs[1].job);
	let_run(&f, 2);
	assert_true(pool_finish(f.pool, 100000));
	assert_true(jobs[0].done && jobs[1].done);
	vio_loop_destroy(f.loop);
	sem_destroy(&f.go);
}

/* But not for ever; a cancelled one does not count. */
static void test_finish_stuck(void **state)
{
	static struct test_job jobs[2];
	static struct fixture f; /* the thread continues to use it */

	fixture_init(&f, 1);
	pool_start(f.pool, &jobs[0].job);
	while (__atomic_load_n(&jobs[0].job.queued, __ATOMIC_RELAXED))
		;
	pool_start(f.pool, &jobs[1].job);
	assert_true(pool_cancel(f.pool, &jobs[1].job));
	assert_false(pool_finish(f.pool, 1));
	assert_false(jobs[0].done);
	vio_loop_destroy(f.loop);
	let_run(&f, 1);
	while (!__atomic_load_n(&jobs[0].ran_on, __ATOMIC_RELAXED))
		;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_jobs),
		cmocka_unit_test(test_growth),
		cmocka_unit_test(test_cancel),
		cmocka_unit_test(test_nested),
		cmocka_unit_test(test_destroy),
		cmocka_unit_test(test_abandon),
		cmocka_unit_test(test_finish),
		cmocka_unit_test(test_finish_stuck),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

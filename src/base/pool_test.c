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

struct rig {
	struct vio_loop *loop;
	struct pool *pool;
	unsigned nr_init, nr_done, nr_idle;
	sem_t go;                   /* one post lets one job run */
	struct test_job *waits_for; /* in its done() a job waits for this one */
};

static void job_init(void *arg)
{
	struct rig *rig = arg;

	__atomic_fetch_add(&rig->nr_init, 1, __ATOMIC_RELAXED);
}

static void job_run(void *arg, struct pool_job *job)
{
	struct rig *rig = arg;

	sem_wait(&rig->go);
	((struct test_job *)job)->ran_on = pthread_self();
}

static void job_done(void *arg, struct pool_job *job)
{
	struct test_job *other, *tj = (struct test_job *)job;
	struct rig *rig = arg;

	tj->done = true;
	rig->nr_done++;
	other = rig->waits_for;
	rig->waits_for = NULL;
	while (other && !other->done)
		assert_true(pool_wait(rig->pool, 10000));
}

static void job_idle(void *arg)
{
	struct rig *rig = arg;

	rig->nr_idle++;
}

static const struct pool_ops ops = {
	.init = job_init,
	.run = job_run,
	.done = job_done,
	.idle = job_idle,
};

static void rig_init(struct rig *rig, unsigned nr_threads)
{
	*rig = (struct rig){ .loop = NULL };
	sem_init(&rig->go, 0, 0);
	assert_int_equal(vio_loop_create(&rig->loop), 0);
	assert_int_equal(
		pool_create(rig->loop, nr_threads, &ops, rig, &rig->pool), 0);
}

static void rig_fini(struct rig *rig)
{
	pool_destroy(rig->pool);
	vio_loop_destroy(rig->loop);
	sem_destroy(&rig->go);
}

static void let_run(struct rig *rig, unsigned nr)
{
	while (nr--)
		sem_post(&rig->go);
}

static void test_jobs(void **state)
{
	struct test_job jobs[NR_JOBS] = { 0 };
	struct rig rig;

	rig_init(&rig, 3);
	assert_int_equal(rig.nr_init, 3);
	for (unsigned i = 0; i < NR_JOBS; i++)
		pool_start(rig.pool, &jobs[i].job);
	let_run(&rig, NR_JOBS);
	while (rig.nr_done < NR_JOBS)
		assert_true(vio_loop_turn(rig.loop, 10000) >= 0);
	for (unsigned i = 0; i < NR_JOBS; i++) {
		assert_true(jobs[i].done);
		assert_false(pthread_equal(jobs[i].ran_on, pthread_self()));
	}
	assert_in_range(rig.nr_idle, 1, NR_JOBS);
	assert_false(pool_wait(rig.pool, 0));
	rig_fini(&rig);
}

/* One that has begun cannot be taken back; any that has not can, once. */
static void test_cancel(void **state)
{
	struct test_job jobs[4] = { 0 };
	struct rig rig;

	rig_init(&rig, 1);
	pool_start(rig.pool, &jobs[0].job);
	while (__atomic_load_n(&jobs[0].job.queued, __ATOMIC_RELAXED))
		;
	for (unsigned i = 1; i < 4; i++)
		pool_start(rig.pool, &jobs[i].job);
	assert_false(pool_cancel(rig.pool, &jobs[0].job));
	assert_true(pool_cancel(rig.pool, &jobs[3].job));
	assert_false(pool_cancel(rig.pool, &jobs[3].job));
	assert_true(pool_cancel(rig.pool, &jobs[1].job));
	pool_start(rig.pool, &jobs[1].job); /* behind the others */
	let_run(&rig, 3);
	while (rig.nr_done < 3)
		assert_true(pool_wait(rig.pool, 10000));
	assert_true(jobs[0].done && jobs[1].done && jobs[2].done);
	assert_false(jobs[3].done);
	rig_fini(&rig);
}

/* A done() may wait for a job that was done together with its own. */
static void test_nested(void **state)
{
	struct test_job jobs[2] = { 0 };
	struct rig rig;

	rig_init(&rig, 1);
	rig.waits_for = &jobs[1];
	pool_start(rig.pool, &jobs[0].job);
	pool_start(rig.pool, &jobs[1].job);
	let_run(&rig, 2);
	while (rig.nr_done < 2)
		assert_true(pool_wait(rig.pool, 10000));
	rig_fini(&rig);
}

/* What is under way is run to its end, of which nobody hears. */
static void test_destroy(void **state)
{
	struct test_job job = { 0 };
	struct rig rig;

	rig_init(&rig, 2);
	pool_start(rig.pool, &job.job);
	let_run(&rig, 1);
	pool_destroy(rig.pool);
	assert_true(job.ran_on);
	assert_false(job.done);
	pool_destroy(NULL);
	vio_loop_destroy(rig.loop);
	sem_destroy(&rig.go);
}

/* One that may never end is not waited for; what is queued never begins. */
static void test_abandon(void **state)
{
	static struct test_job jobs[2];
	static struct rig rig; /* the thread goes on in it */

	rig_init(&rig, 1);
	pool_start(rig.pool, &jobs[0].job);
	while (__atomic_load_n(&jobs[0].job.queued, __ATOMIC_RELAXED))
		;
	pool_start(rig.pool, &jobs[1].job);
	pool_abandon(rig.pool);
	assert_false(jobs[0].done);
	vio_loop_destroy(rig.loop);
	let_run(&rig, 2);
	while (!__atomic_load_n(&jobs[0].ran_on, __ATOMIC_RELAXED))
		;
	assert_false(jobs[1].ran_on);
	assert_int_equal(rig.nr_done, 0);
}

/* At the end jobs are waited for, and heard of. */
static void test_finish(void **state)
{
	struct test_job jobs[2] = { 0 };
	struct rig rig;

	rig_init(&rig, 1);
	pool_start(rig.pool, &jobs[0].job);
	pool_start(rig.pool, &jobs[1].job);
	let_run(&rig, 2);
	assert_true(pool_finish(rig.pool, 100000));
	assert_true(jobs[0].done && jobs[1].done);
	vio_loop_destroy(rig.loop);
	sem_destroy(&rig.go);
}

/* But not for ever; one that was taken back does not count. */
static void test_finish_stuck(void **state)
{
	static struct test_job jobs[2];
	static struct rig rig; /* the thread uses it on */

	rig_init(&rig, 1);
	pool_start(rig.pool, &jobs[0].job);
	while (__atomic_load_n(&jobs[0].job.queued, __ATOMIC_RELAXED))
		;
	pool_start(rig.pool, &jobs[1].job);
	assert_true(pool_cancel(rig.pool, &jobs[1].job));
	assert_false(pool_finish(rig.pool, 1));
	assert_false(jobs[0].done);
	vio_loop_destroy(rig.loop);
	let_run(&rig, 1);
	while (!__atomic_load_n(&jobs[0].ran_on, __ATOMIC_RELAXED))
		;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_jobs),
		cmocka_unit_test(test_cancel),
		cmocka_unit_test(test_nested),
		cmocka_unit_test(test_destroy),
		cmocka_unit_test(test_abandon),
		cmocka_unit_test(test_finish),
		cmocka_unit_test(test_finish_stuck),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: BSD-2-Clause */
#include <viodev/loop.h>

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

#define NS_PER_MS UINT64_C(1000000)

static struct vio_loop *loop;

static int setup(void **state)
{
	return vio_loop_create(&loop);
}

static int teardown(void **state)
{
	vio_loop_destroy(loop);
	return 0;
}

/* Whether an embedder that polls the loop's descriptor would call it. */
static bool loop_is_readable(void)
{
	struct pollfd p = { .fd = vio_loop_fd(loop), .events = POLLIN };

	return poll(&p, 1, 0) == 1;
}

/* A readable descriptor that counts its calls, and may act on another. */
struct watch {
	int fd;
	struct vio_source *source;
	unsigned calls;
	uint32_t events;
	struct vio_source **remove; /* when called */
	bool drain;
};

static void watch_cb(void *arg, uint32_t events)
{
	struct watch *w = arg;
	eventfd_t value;

	w->calls++;
	w->events = events;
	if (w->drain)
		eventfd_read(w->fd, &value);
	if (w->remove) {
		vio_source_remove(*w->remove);
		*w->remove = NULL;
	}
}

static void watch_start(struct watch *w)
{
	w->fd = eventfd(1, EFD_NONBLOCK | EFD_CLOEXEC);
	assert_true(w->fd >= 0);
	assert_int_equal(
		vio_fd_add(loop, w->fd, EPOLLIN, watch_cb, w, &w->source), 0);
}

static void watch_end(struct watch *w)
{
	vio_source_remove(w->source);
	close(w->fd);
}

static void test_fd(void **state)
{
	struct watch w = { .drain = true };

	assert_false(loop_is_readable());
	watch_start(&w);
	assert_true(loop_is_readable());
	assert_int_equal(vio_loop_iterate(loop, -1), 1);
	assert_int_equal(w.calls, 1);
	assert_int_equal(w.events, EPOLLIN);
	assert_int_equal(vio_loop_iterate(loop, 0), 0);
	assert_false(loop_is_readable());

	assert_int_equal(vio_fd_set(w.source, EPOLLIN | EPOLLOUT), 0);
	assert_int_equal(vio_loop_iterate(loop, 0), 1);
	assert_int_equal(w.events, EPOLLOUT);
	watch_end(&w);
	assert_int_equal(vio_loop_iterate(loop, 0), 0);
	assert_int_equal(w.calls, 2);
}

static void test_errors(void **state)
{
	struct vio_source *source;

	assert_int_equal(vio_fd_add(loop, -1, EPOLLIN, watch_cb, NULL, &source),
			 -EBADF);
	vio_source_remove(NULL);
	vio_loop_destroy(NULL);
}

/* Both are ready; the first to be called removes the other, or itself. */
static void test_remove_in_iteration(void **state)
{
	for (int self = 0; self < 2; self++) {
		struct watch a = { 0 }, b = { 0 };

		a.remove = self ? &a.source : &b.source;
		b.remove = self ? &b.source : &a.source;
		watch_start(&a);
		watch_start(&b);
		assert_int_equal(vio_loop_iterate(loop, 0), self ? 2 : 1);
		assert_int_equal(a.calls + b.calls, self ? 2 : 1);
		if (self)
			assert_false(loop_is_readable());
		watch_end(&a);
		watch_end(&b);
	}
}

/*
 * More sources are ready than an iteration serves: none is served twice first.
 */
static void test_fairness(void **state)
{
	struct watch w[100] = { 0 };
	unsigned least = 0;

	for (int i = 0; i < 100; i++)
		watch_start(&w[i]);
	for (int n = 0; n < 100 && least == 0; n++) {
		assert_true(vio_loop_iterate(loop, 0) > 0);
		least = 1;
		for (int k = 0; k < 100; k++) {
			if (w[k].calls < least)
				least = w[k].calls;
			assert_in_range(w[k].calls, 0, 2);
		}
	}
	assert_int_equal(least, 1);
	for (int i = 0; i < 100; i++)
		watch_end(&w[i]);
}

struct tick {
	struct vio_source *source;
	unsigned calls;
	uint64_t next_ns;
	bool stop;
};

static void tick_cb(void *arg)
{
	struct tick *t = arg;

	t->calls++;
	if (t->next_ns)
		vio_timer_set(t->source, t->next_ns);
	if (t->stop)
		vio_loop_stop(loop);
}

static void test_timer(void **state)
{
	struct tick t = { 0 };
	uint64_t start = vio_now_ns();

	assert_int_equal(vio_timer_add(loop, tick_cb, &t, &t.source), 0);
	assert_int_equal(vio_loop_iterate(loop, 5), 0); /* disarmed at first */
	vio_timer_set(t.source, 20 * NS_PER_MS);
	assert_int_equal(vio_loop_iterate(loop, -1), 1);
	assert_true(vio_now_ns() - start >= 20 * NS_PER_MS);
	assert_int_equal(t.calls, 1);
	assert_int_equal(vio_loop_iterate(loop, 5), 0); /* one shot */

	vio_timer_set(t.source, NS_PER_MS);
	vio_timer_set(t.source, 0);
	assert_int_equal(vio_loop_iterate(loop, 5), 0);
	vio_timer_set(t.source, UINT64_MAX);
	assert_int_equal(vio_loop_iterate(loop, 5), 0);
	assert_int_equal(t.calls, 1);

	t.next_ns = NS_PER_MS;
	vio_timer_set(t.source, 1);
	for (int i = 0; i < 3; i++)
		assert_int_equal(vio_loop_iterate(loop, -1), 1);
	assert_int_equal(t.calls, 4);
	vio_source_remove(t.source);
	assert_int_equal(vio_loop_iterate(loop, 5), 0);
}

/* Disarmed by a callback of the iteration in which it has expired. */
static void disarm_cb(void *arg, uint32_t events)
{
	vio_timer_set(arg, 0);
}

static void test_timer_disarmed_in_iteration(void **state)
{
	struct tick t = { 0 };
	struct vio_source *source;
	int fd = eventfd(1, EFD_CLOEXEC);

	assert_int_equal(vio_timer_add(loop, tick_cb, &t, &t.source), 0);
	assert_int_equal(
		vio_fd_add(loop, fd, EPOLLIN, disarm_cb, t.source, &source), 0);
	vio_timer_set(t.source, 1);
	usleep(1000);
	vio_loop_iterate(loop, 0);
	assert_in_range(t.calls, 0, 1); /* the kernel's order decides */
	vio_loop_iterate(loop, 5);
	assert_in_range(t.calls, 0, 1);
	vio_source_remove(source);
	vio_source_remove(t.source);
	close(fd);
}

/* A task that writes its name, and may defer or cancel another. */
struct job {
	struct vio_task task;
	char name;
	struct job *defer, *cancel;
};

static char order[16];
static unsigned order_len;

static void job_fn(void *arg)
{
	struct job *j = arg;

	order[order_len++] = j->name;
	order[order_len] = '\0';
	if (j->defer)
		vio_task_defer(loop, &j->defer->task);
	if (j->cancel)
		vio_task_cancel(loop, &j->cancel->task);
}

static void jobs_init(struct job *jobs, unsigned nr)
{
	order_len = 0;
	order[0] = '\0';
	for (unsigned i = 0; i < nr; i++)
		jobs[i] = (struct job){ .task = { job_fn, &jobs[i] },
					.name = "abcdef"[i] };
}

/* Calls before it runs count as one; it runs on the loop's thread. */
static void woken(void *arg)
{
	(*(unsigned *)arg)++;
}

static void *wake_thread(void *arg)
{
	vio_wake(arg);
	return NULL;
}

static void test_wake(void **state)
{
	struct vio_source *source;
	unsigned calls = 0;
	pthread_t thread;

	assert_int_equal(vio_wake_add(loop, woken, &calls, &source), 0);
	assert_int_equal(vio_loop_iterate(loop, 0), 0);
	vio_wake(source);
	vio_wake(source);
	assert_int_equal(calls, 0);
	assert_true(loop_is_readable());
	assert_int_equal(vio_loop_iterate(loop, 0), 1);
	assert_int_equal(calls, 1);
	assert_int_equal(vio_loop_iterate(loop, 0), 0);

	pthread_create(&thread, NULL, wake_thread, source);
	assert_int_equal(vio_loop_iterate(loop, -1), 1); /* ends the wait */
	pthread_join(thread, NULL);
	assert_int_equal(calls, 2);

	vio_wake(source);
	vio_source_remove(source);
	assert_int_equal(vio_loop_iterate(loop, 0), 0);
	assert_int_equal(calls, 2);
}

static void test_defer(void **state)
{
	struct job j[3];

	jobs_init(j, 3);
	vio_task_defer(loop, &j[0].task);
	vio_task_defer(loop, &j[1].task);
	vio_task_defer(loop, &j[0].task); /* queued twice runs once */
	vio_task_defer(loop, &j[2].task);
	assert_true(loop_is_readable());
	assert_int_equal(vio_loop_iterate(loop, -1), 0);
	assert_string_equal(order, "abc");
	assert_false(loop_is_readable());
	vio_loop_iterate(loop, 0);
	assert_string_equal(order, "abc");
}

static void test_defer_again(void **state)
{
	struct job j[2];

	jobs_init(j, 2);
	j[0].defer = &j[0];
	vio_task_defer(loop, &j[0].task);
	vio_task_defer(loop, &j[1].task);
	vio_loop_iterate(loop, -1);
	assert_string_equal(order, "ab");
	assert_true(loop_is_readable());
	j[0].defer = NULL;
	vio_loop_iterate(loop, -1); /* does not wait */
	assert_string_equal(order, "aba");
	assert_false(loop_is_readable());
}

static void test_cancel(void **state)
{
	struct job j[4];

	jobs_init(j, 4);
	for (int i = 0; i < 3; i++)
		vio_task_defer(loop, &j[i].task);
	vio_task_cancel(loop, &j[2].task); /* the last: the next goes after b */
	vio_task_cancel(loop, &j[2].task);
	vio_task_defer(loop, &j[3].task);
	j[0].cancel = &j[1]; /* of this iteration */
	j[0].defer = &j[2];  /* for the next one */
	vio_loop_iterate(loop, 0);
	assert_string_equal(order, "ad");
	vio_loop_iterate(loop, 0);
	assert_string_equal(order, "adc");
	assert_false(loop_is_readable());

	vio_task_defer(loop, &j[0].task);
	vio_task_cancel(loop, &j[0].task);
	vio_loop_iterate(loop, 0);
	assert_string_equal(order, "adc");
	assert_false(loop_is_readable());
}

/*
 * Tasks deferred by a callback run in the same iteration, after all callbacks.
 */
static void defer_cb(void *arg, uint32_t events)
{
	struct job *j = arg;

	order[order_len++] = '-';
	vio_task_defer(loop, &j->task);
}

static void test_defer_in_iteration(void **state)
{
	struct job j[2];
	struct vio_source *source[2];
	int fd[2];

	jobs_init(j, 2);
	for (int i = 0; i < 2; i++) {
		fd[i] = eventfd(1, EFD_CLOEXEC);
		assert_int_equal(vio_fd_add(loop, fd[i], EPOLLIN, defer_cb,
					    &j[i], &source[i]),
				 0);
	}
	vio_loop_iterate(loop, -1);
	assert_true(order[0] == '-' && order[1] == '-');
	assert_int_equal(order_len, 4);
	for (int i = 0; i < 2; i++) {
		vio_source_remove(source[i]);
		close(fd[i]);
	}
}

/* A callback that waits for something in its own iteration. */
struct nest {
	struct watch *outer, *inner;
};

static void nest_cb(void *arg, uint32_t events)
{
	struct nest *n = arg;

	vio_source_remove(n->outer->source);
	n->outer->source = NULL;
	while (n->inner->calls == 0)
		vio_loop_iterate(loop, -1);
}

static void test_nested_iteration(void **state)
{
	struct watch outer = { .fd = eventfd(1, EFD_CLOEXEC) };
	struct watch inner = { .drain = true };
	struct nest n = { &outer, &inner };

	assert_int_equal(
		vio_fd_add(loop, outer.fd, EPOLLIN, nest_cb, &n, &outer.source),
		0);
	watch_start(&inner);
	vio_loop_iterate(loop, -1);
	assert_in_range(inner.calls, 1, 2);
	watch_end(&outer);
	watch_end(&inner);
}

static void test_run_and_stop(void **state)
{
	struct tick t = { .stop = true };

	vio_loop_stop(loop); /* before: not lost */
	assert_int_equal(vio_loop_run(loop), 0);
	assert_int_equal(vio_timer_add(loop, tick_cb, &t, &t.source), 0);
	vio_timer_set(t.source, NS_PER_MS);
	assert_int_equal(vio_loop_run(loop), 0);
	assert_int_equal(t.calls, 1);
	vio_source_remove(t.source);
}

/* A task left over when run() ends is seen by an embedder's poll. */
static void stop_fn(void *arg)
{
	vio_loop_stop(loop);
	vio_task_defer(loop, arg);
}

static void test_left_over_after_run(void **state)
{
	struct vio_task task = { .fn = stop_fn, .arg = &task };

	vio_task_defer(loop, &task);
	assert_int_equal(vio_loop_run(loop), 0);
	assert_true(loop_is_readable());
	vio_task_cancel(loop, &task);
	vio_loop_iterate(loop, 0);
	assert_false(loop_is_readable());
}

/*
 * --- Pollers ---
 */

struct look {
	struct vio_poller poller;
	unsigned polls, arms;
	unsigned work;       /* what poll() will find, one at a time */
	unsigned late_work;  /* likewise arm() */
	struct look *remove; /* when it finds something */
};

static bool find(struct look *l, unsigned *work)
{
	if (*work == 0)
		return false;
	--*work;
	if (l->remove)
		vio_poller_remove(loop, &l->remove->poller);
	return true;
}

static bool look_poll(void *arg)
{
	struct look *l = arg;

	l->polls++;
	return find(l, &l->work);
}

static bool look_arm(void *arg)
{
	struct look *l = arg;

	l->arms++;
	return find(l, &l->late_work);
}

static void look_start(struct look *l)
{
	l->poller = (struct vio_poller){ look_poll, look_arm, l, NULL };
	vio_poller_add(loop, &l->poller);
}

/* Work that a poller finds keeps the loop awake, without arming it. */
static void test_poll(void **state)
{
	struct look l = { .work = 2 };

	look_start(&l);
	assert_int_equal(vio_loop_iterate(loop, -1), 1);
	assert_int_equal(vio_loop_iterate(loop, -1), 1);
	vio_poller_remove(loop, &l.poller);
	assert_int_equal(l.polls, 2);
}

/* The loop arms its pollers before it sleeps. */
static void test_arm_before_sleep(void **state)
{
	struct watch w = { .drain = true };
	struct look l = { .late_work = 1 };

	look_start(&l);
	assert_int_equal(vio_loop_iterate(loop, -1), 1);
	assert_int_equal(l.late_work, 0);
	watch_start(&w);
	l.arms = 0;
	assert_int_equal(vio_loop_iterate(loop, -1), 1);
	assert_int_equal(w.calls, 1);
	assert_true(l.arms > 0);
	watch_end(&w);
	vio_poller_remove(loop, &l.poller);
}

/* Pollers that always find something leave sources their share. */
static void test_busy_poller_and_source(void **state)
{
	struct watch w = { .drain = true };
	struct look l = { .work = 1000 };

	look_start(&l);
	watch_start(&w);
	while (w.calls == 0)
		vio_loop_iterate(loop, -1);
	assert_true(l.work > 0);
	watch_end(&w);
	vio_poller_remove(loop, &l.poller);
}

/* A poller may remove itself, and others. */
static void test_remove_poller(void **state)
{
	struct look a = { .work = 1 }, b = { .work = 1 }, c = { .work = 1 };

	look_start(&a);
	look_start(&b);
	look_start(&c); /* the first one to be called */
	c.remove = &b;
	assert_int_equal(vio_loop_iterate(loop, 0), 1);
	assert_int_equal(b.polls, 0);
	assert_int_equal(a.polls, 1);
	c.remove = &c;
	c.work = 1;
	vio_loop_iterate(loop, 0);
	vio_poller_remove(loop, &a.poller);
	vio_poller_remove(loop, &a.poller); /* for nothing */
	a.polls = b.polls = c.polls = 0;
	vio_loop_iterate(loop, 0);
	assert_int_equal(a.polls + b.polls + c.polls, 0);
}

/* An embedder's loop sleeps after each iteration: pollers are armed then. */
static void test_embedder_sleeps(void **state)
{
	struct look l = { .late_work = 1 };

	look_start(&l);
	vio_loop_iterate(loop, 0);
	assert_int_equal(l.arms, 1);
	assert_true(loop_is_readable()); /* there may be more */
	vio_loop_iterate(loop, 0);
	assert_int_equal(l.arms, 2);
	assert_false(loop_is_readable());
	vio_poller_remove(loop, &l.poller);
}

static void iterate_with_timer(struct tick *t, uint64_t ns)
{
	vio_timer_set(t->source, ns);
	assert_int_equal(vio_loop_iterate(loop, -1), 1);
}

/*
 * How often the poller is called in a wait of @ns, after one of @first_ns: once
 * before it and once after, if the loop sleeps at once.
 */
static unsigned polls(struct look *l, struct tick *t, uint64_t first_ns,
		      uint64_t ns)
{
	iterate_with_timer(t, first_ns);
	l->polls = 0;
	iterate_with_timer(t, ns);
	return l->polls;
}

/*
 * After short waits the loop polls before it sleeps; after a long one it does
 * not, so that an idle loop takes no time. Waits may be longer than set: only
 * some of them must be short.
 */
static void test_poll_adapts(void **state)
{
	struct tick t = { 0 };
	struct look l = { 0 };
	int tries = 0;

	look_start(&l);
	assert_int_equal(vio_timer_add(loop, tick_cb, &t, &t.source), 0);
	while (polls(&l, &t, NS_PER_MS / 100, NS_PER_MS / 100) < 3)
		assert_true(++tries < 10000);
	for (int i = 0; i < 10; i++)
		assert_int_equal(polls(&l, &t, NS_PER_MS, NS_PER_MS), 2);
	vio_source_remove(t.source);
	vio_poller_remove(loop, &l.poller);
}

/* A loop that has a processor to itself polls however long waits were. */
static void test_poll_fixed(void **state)
{
	struct tick t = { 0 };
	struct look l = { 0 };

	look_start(&l);
	vio_loop_set_poll(loop, 10 * NS_PER_MS);
	assert_int_equal(vio_timer_add(loop, tick_cb, &t, &t.source), 0);
	for (int i = 0; i < 3; i++)
		assert_true(polls(&l, &t, 2 * NS_PER_MS, 2 * NS_PER_MS) > 10);
	vio_loop_set_poll(loop, 0);
	for (int i = 0; i < 100; i++)
		assert_int_equal(
			polls(&l, &t, NS_PER_MS / 100, NS_PER_MS / 100), 2);
	vio_source_remove(t.source);
	vio_poller_remove(loop, &l.poller);
}

#define LOOP_TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		LOOP_TEST(test_fd),
		LOOP_TEST(test_errors),
		LOOP_TEST(test_remove_in_iteration),
		LOOP_TEST(test_fairness),
		LOOP_TEST(test_timer),
		LOOP_TEST(test_wake),
		LOOP_TEST(test_timer_disarmed_in_iteration),
		LOOP_TEST(test_defer),
		LOOP_TEST(test_defer_again),
		LOOP_TEST(test_cancel),
		LOOP_TEST(test_defer_in_iteration),
		LOOP_TEST(test_nested_iteration),
		LOOP_TEST(test_run_and_stop),
		LOOP_TEST(test_left_over_after_run),
		LOOP_TEST(test_poll),
		LOOP_TEST(test_arm_before_sleep),
		LOOP_TEST(test_busy_poller_and_source),
		LOOP_TEST(test_remove_poller),
		LOOP_TEST(test_embedder_sleeps),
		LOOP_TEST(test_poll_adapts),
		LOOP_TEST(test_poll_fixed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

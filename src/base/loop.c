/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The event loop, on epoll.
 *
 * Timers are timerfds, so that one call waits for everything. Sources are
 * level-triggered: the kernel moves each that it reports to the end of its
 * list, so with more ready sources than one iteration takes, the next iteration
 * begins with those that were left out.
 *
 * An iteration: wait, call the sources that are ready, run the tasks deferred
 * up to then in their order, free the sources that were removed. Nothing in it
 * allocates. Iterations may be nested: a callback may run the loop to wait for
 * something. Sources are then freed by the outermost iteration, and one that
 * the inner iteration served may be called once more for nothing.
 */
#include <viodev/loop.h>

#include <assert.h>
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define EV_BATCH    32 /* sources served in an iteration, at most */
#define NS_PER_SEC  UINT64_C(1000000000)
#define MAX_POLL_NS UINT64_C(50000) /* longest adaptive poll */
#define MIN_POLL_NS UINT64_C(4000)  /* shortest adaptive poll, besides none */
#define LOOK_EVERY  16 /* rounds of polling between looks at sources */

struct vio_source {
	struct vio_loop *loop;
	int fd;
	vio_fd_cb *fd_cb; /* a descriptor, or */
	/* a timer or a wake-up, whose descriptor is ours; neither: removed */
	void (*count_cb)(void *arg);
	void *arg;
	struct vio_source *next_removed;
};

struct vio_loop {
	int epoll_fd;
	int wake_fd; /* readable: tasks are waiting and no iteration runs */
	bool awake;  /* wake_fd is readable */
	bool running;
	bool stop;
	unsigned depth; /* of nested iterations */
	struct vio_poller *pollers;
	struct vio_poller *next_poller; /* to be called by poll_all() */
	unsigned nr_polls;              /* since the last look at sources */
	uint64_t poll_ns;               /* time to poll before a sleep */
	bool poll_fixed;                /* poll_ns does not adapt */
	struct vio_task *tasks, **tasks_end;
	unsigned nr_tasks;
	unsigned nr_due; /* of these, from the front: for this iteration */
	struct vio_source *removed;
};

int vio_loop_create(struct vio_loop **ret_loop)
{
	struct epoll_event ev = { .events = EPOLLIN };
	struct vio_loop *loop = calloc(1, sizeof(*loop));
	int ret;

	if (!loop)
		return -ENOMEM;
	loop->tasks_end = &loop->tasks;
	loop->wake_fd = -1;
	loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (loop->epoll_fd < 0)
		goto bad;
	loop->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (loop->wake_fd < 0)
		goto bad;
	if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, loop->wake_fd, &ev) < 0)
		goto bad;
	*ret_loop = loop;
	return 0;
bad:
	ret = -errno;
	vio_loop_destroy(loop);
	return ret;
}

static void free_removed(struct vio_loop *loop)
{
	struct vio_source *source;

	while ((source = loop->removed)) {
		loop->removed = source->next_removed;
		free(source);
	}
}

void vio_loop_destroy(struct vio_loop *loop)
{
	if (!loop)
		return;
	assert(loop->depth == 0);
	free_removed(loop);
	if (loop->wake_fd >= 0)
		close(loop->wake_fd);
	if (loop->epoll_fd >= 0)
		close(loop->epoll_fd);
	free(loop);
}

int vio_loop_fd(const struct vio_loop *loop)
{
	return loop->epoll_fd;
}

/*
 * Tasks are left over: an embedder that polls our descriptor must iterate
 * again. vio_loop_run() does so by itself.
 */
static void wake(struct vio_loop *loop)
{
	uint64_t one = 1;

	if (loop->awake || loop->running || loop->depth > 0)
		return;
	loop->awake = write(loop->wake_fd, &one, sizeof(one)) > 0;
}

static void clear_wake(struct vio_loop *loop)
{
	uint64_t count;

	if (loop->awake)
		loop->awake = read(loop->wake_fd, &count, sizeof(count)) < 0;
}

static void serve_count(struct vio_source *source)
{
	uint64_t count;

	/* EAGAIN: a callback of this iteration has set the timer anew. */
	if (read(source->fd, &count, sizeof(count)) > 0)
		source->count_cb(source->arg);
}

/* Whether there was anything to serve. */
static bool serve(const struct epoll_event *ev)
{
	struct vio_source *source = ev->data.ptr;

	if (!source) /* wake_fd: has only ended the wait */
		return false;
	if (source->fd_cb)
		source->fd_cb(source->arg, ev->events);
	else if (source->count_cb)
		serve_count(source);
	else
		return false;
	return true;
}

static void run_tasks(struct vio_loop *loop)
{
	loop->nr_due = loop->nr_tasks;
	while (loop->nr_due > 0) {
		struct vio_task *task = loop->tasks;

		vio_task_cancel(loop, task);
		task->fn(task->arg);
	}
}

/*
 * --- Polling ---
 *
 * A wake-up takes longer than most work. After a short wait, the loop therefore
 * polls for a while before it sleeps, and yields the processor to other threads
 * meanwhile. An idle loop sleeps at once.
 */

static bool call_poller(const struct vio_poller *poller, bool arm)
{
	if (!arm)
		return poller->poll(poller->arg);
	return poller->arm && poller->arm(poller->arg);
}

/* Call all pollers; returns whether any had work. */
static bool poll_all(struct vio_loop *loop, bool arm)
{
	struct vio_poller *poller = loop->pollers;
	bool any = false;

	while (poller) {
		loop->next_poller = poller->next;
		any |= call_poller(poller, arm);
		poller = loop->next_poller;
	}
	return any;
}

/* Returns the number of events, or -errno. */
static int wait_epoll(struct vio_loop *loop, struct epoll_event *evs,
		      int timeout_ms)
{
	int ret = epoll_wait(loop->epoll_fd, evs, EV_BATCH, timeout_ms);

	if (ret < 0)
		return errno == EINTR ? 0 : -errno;
	return ret;
}

/* Look for events, in one of LOOK_EVERY calls. */
static int look(struct vio_loop *loop, struct epoll_event *evs)
{
	if (++loop->nr_polls < LOOK_EVERY)
		return 0;
	loop->nr_polls = 0;
	return wait_epoll(loop, evs, 0);
}

/* Returns the number of events; 0 also when a poller had work (*ret_polled). */
static int poll_before_sleep(struct vio_loop *loop, struct epoll_event *evs,
			     uint64_t begin_ns, bool *ret_polled)
{
	int nr_evs = 0;

	loop->nr_polls = 0;
	do {
		*ret_polled = poll_all(loop, false);
		if (*ret_polled)
			return 0;
		nr_evs = look(loop, evs);
		if (nr_evs == 0 && loop->nr_polls == 0 && !loop->poll_fixed)
			sched_yield();
	} while (nr_evs == 0 && vio_now_ns() - begin_ns < loop->poll_ns);
	return nr_evs;
}

/* Poll for longer if that would have covered the last wait. */
static void adapt(struct vio_loop *loop, uint64_t waited_ns)
{
	uint64_t ns = loop->poll_ns;

	if (loop->poll_fixed)
		return;
	if (waited_ns >= MAX_POLL_NS)
		ns = 0;
	else if (waited_ns > ns)
		ns = ns ? ns * 2 : MIN_POLL_NS;
	loop->poll_ns = ns < MAX_POLL_NS ? ns : MAX_POLL_NS;
}

static int sleep_for(struct vio_loop *loop, struct epoll_event *evs,
		     int timeout_ms, bool *ret_polled)
{
	uint64_t begin_ns;
	int nr_evs = 0;

	if (!loop->pollers)
		return wait_epoll(loop, evs, timeout_ms);
	begin_ns = vio_now_ns();
	if (loop->poll_ns > 0)
		nr_evs = poll_before_sleep(loop, evs, begin_ns, ret_polled);
	if (nr_evs == 0 && !*ret_polled)
		*ret_polled = poll_all(loop, true);
	if (nr_evs == 0 && !*ret_polled)
		nr_evs = wait_epoll(loop, evs, timeout_ms);
	adapt(loop, vio_now_ns() - begin_ns);
	*ret_polled |= poll_all(loop, false);
	return nr_evs;
}

/* Wait for events. Pollers that always have work do not starve sources. */
static int wait_for(struct vio_loop *loop, struct epoll_event *evs,
		    int timeout_ms, bool *ret_polled)
{
	*ret_polled = poll_all(loop, false);
	if (*ret_polled)
		return look(loop, evs);
	if (timeout_ms == 0)
		return wait_epoll(loop, evs, 0);
	return sleep_for(loop, evs, timeout_ms, ret_polled);
}

/* An embedder may sleep after this: wake it for the work that is left. */
static void before_embedder_sleeps(struct vio_loop *loop)
{
	if (loop->running || loop->depth > 0)
		return;
	if (loop->pollers && poll_all(loop, true))
		wake(loop);
	if (loop->nr_tasks > 0)
		wake(loop);
}

int vio_loop_iterate(struct vio_loop *loop, int timeout_ms)
{
	struct epoll_event evs[EV_BATCH];
	int nr_evs, nr_served = 0;
	bool polled;

	if (loop->nr_tasks > 0)
		timeout_ms = 0;
	loop->depth++;
	nr_evs = wait_for(loop, evs, timeout_ms, &polled);
	clear_wake(loop);
	for (int i = 0; i < nr_evs; i++)
		nr_served += serve(&evs[i]);
	run_tasks(loop);
	loop->depth--;

	if (loop->depth == 0)
		free_removed(loop);
	before_embedder_sleeps(loop);
	return nr_evs < 0 ? nr_evs : nr_served + polled;
}

int vio_loop_run(struct vio_loop *loop)
{
	int ret = 0;

	loop->running = true;
	while (!loop->stop && ret >= 0)
		ret = vio_loop_iterate(loop, -1);
	loop->running = false;
	loop->stop = false;
	before_embedder_sleeps(loop);
	return ret < 0 ? ret : 0;
}

void vio_loop_stop(struct vio_loop *loop)
{
	loop->stop = true;
}

static int add(struct vio_loop *loop, const struct vio_source *what,
	       uint32_t events, struct vio_source **ret_source)
{
	struct vio_source *source = malloc(sizeof(*source));
	struct epoll_event ev = { .events = events, .data.ptr = source };

	if (!source)
		return -ENOMEM;
	*source = *what;
	source->loop = loop;
	if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, source->fd, &ev) < 0) {
		int ret = -errno;

		free(source);
		return ret;
	}
	*ret_source = source;
	return 0;
}

int vio_fd_add(struct vio_loop *loop, int fd, uint32_t events, vio_fd_cb *cb,
	       void *arg, struct vio_source **ret_source)
{
	struct vio_source what = { .fd = fd, .fd_cb = cb, .arg = arg };

	return add(loop, &what, events, ret_source);
}

int vio_fd_set(struct vio_source *source, uint32_t events)
{
	struct epoll_event ev = { .events = events, .data.ptr = source };

	if (epoll_ctl(source->loop->epoll_fd, EPOLL_CTL_MOD, source->fd, &ev) <
	    0)
		return -errno;
	return 0;
}

/* @fd is what timerfd_create() or eventfd() returned. */
static int add_count(struct vio_loop *loop, int fd, void (*cb)(void *arg),
		     void *arg, struct vio_source **ret_source)
{
	struct vio_source what = { .fd = fd, .count_cb = cb, .arg = arg };
	int ret;

	if (fd < 0)
		return -errno;
	ret = add(loop, &what, EPOLLIN, ret_source);
	if (ret < 0)
		close(fd);
	return ret;
}

int vio_timer_add(struct vio_loop *loop, vio_timer_cb *cb, void *arg,
		  struct vio_source **ret_source)
{
	int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);

	return add_count(loop, fd, cb, arg, ret_source);
}

void vio_timer_set(struct vio_source *source, uint64_t ns)
{
	struct itimerspec when = {
		.it_value.tv_sec = (time_t)(ns / NS_PER_SEC),
		.it_value.tv_nsec = (long)(ns % NS_PER_SEC),
	};

	timerfd_settime(source->fd, 0, &when, NULL);
}

int vio_wake_add(struct vio_loop *loop, vio_wake_cb *cb, void *arg,
		 struct vio_source **ret_source)
{
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	return add_count(loop, fd, cb, arg, ret_source);
}

/* A counter that is full has woken it already. */
void vio_wake(struct vio_source *source)
{
	uint64_t one = 1;
	ssize_t n = write(source->fd, &one, sizeof(one));

	(void)n;
}

void vio_source_remove(struct vio_source *source)
{
	struct vio_loop *loop;

	if (!source)
		return;
	loop = source->loop;
	epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, source->fd, NULL);
	if (source->count_cb)
		close(source->fd);
	source->fd_cb = NULL;
	source->count_cb = NULL;
	source->next_removed = loop->removed;
	loop->removed = source;
	/*
	 * In an iteration, events that are still to be served may point to it.
	 */
	if (loop->depth == 0)
		free_removed(loop);
}

void vio_task_defer(struct vio_loop *loop, struct vio_task *task)
{
	if (task->queued)
		return;
	task->queued = true;
	task->next = NULL;
	*loop->tasks_end = task;
	loop->tasks_end = &task->next;
	loop->nr_tasks++;
	wake(loop);
}

void vio_task_cancel(struct vio_loop *loop, struct vio_task *task)
{
	struct vio_task **link = &loop->tasks;
	unsigned idx = 0;

	if (!task->queued)
		return;
	while (*link != task) {
		link = &(*link)->next;
		idx++;
	}
	*link = task->next;
	if (loop->tasks_end == &task->next)
		loop->tasks_end = link;
	if (idx < loop->nr_due)
		loop->nr_due--;
	loop->nr_tasks--;
	task->queued = false;
}

void vio_poller_add(struct vio_loop *loop, struct vio_poller *poller)
{
	poller->next = loop->pollers;
	loop->pollers = poller;
}

void vio_poller_remove(struct vio_loop *loop, struct vio_poller *poller)
{
	struct vio_poller **link = &loop->pollers;

	while (*link && *link != poller)
		link = &(*link)->next;
	if (!*link)
		return;
	*link = poller->next;
	if (loop->next_poller == poller)
		loop->next_poller = poller->next;
}

void vio_loop_set_poll(struct vio_loop *loop, uint64_t ns)
{
	loop->poll_fixed = true;
	loop->poll_ns = ns;
}

uint64_t vio_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * NS_PER_SEC + (uint64_t)now.tv_nsec;
}

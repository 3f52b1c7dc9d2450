/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The event loop that servers and devices run on.
 *
 * A loop waits for file descriptors, timers and wake-ups, and calls back. Tasks
 * that were deferred with vio_task_defer() run once at the end of the
 * iteration, where a device submits a batch. An embedder with an event loop of
 * its own watches vio_loop_fd() for input and calls vio_loop_iterate(loop, 0)
 * when it is readable.
 *
 * Threads: all functions belong to the thread that runs the loop, except
 * vio_wake() and vio_now_ns(). Iterations may be nested: a callback may run the
 * loop to wait for something.
 *
 * Errors: -errno.
 */
#ifndef VIODEV_LOOP_H
#define VIODEV_LOOP_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct vio_loop;
struct vio_source;

/* Create a loop: 0, -ENOMEM, or the error of epoll or eventfd. */
int vio_loop_create(struct vio_loop **ret_loop);

/* Free a loop whose sources have all been removed. NULL is allowed. */
void vio_loop_destroy(struct vio_loop *loop);

/* Readable while vio_loop_iterate() has something to do. The loop closes it. */
int vio_loop_fd(const struct vio_loop *loop);

/*
 * Wait at most @timeout_ms milliseconds (-1: without limit), then run the
 * callbacks of sources that are ready, and the tasks. Returns the number of
 * sources served, or the error of epoll_wait(2).
 */
int vio_loop_iterate(struct vio_loop *loop, int timeout_ms);

/*
 * Iterate until vio_loop_stop(), which may be called before as well. Returns 0
 * or the error of an iteration.
 */
int vio_loop_run(struct vio_loop *loop);
void vio_loop_stop(struct vio_loop *loop);

/*
 * Watch @fd for @events of epoll_ctl(2): EPOLLIN, EPOLLOUT, EPOLLET. The loop
 * does not own @fd, which must stay open until the source is removed.
 * vio_fd_set() changes the events; 0 leaves EPOLLHUP and EPOLLERR.
 */
typedef void vio_fd_cb(void *arg, uint32_t events);
int vio_fd_add(struct vio_loop *loop, int fd, uint32_t events, vio_fd_cb *cb,
	       void *arg, struct vio_source **ret_source);
int vio_fd_set(struct vio_source *source, uint32_t events);

/*
 * Remove a source of any kind. Its callback is not called again. A callback may
 * remove any source, including its own. NULL is allowed.
 */
void vio_source_remove(struct vio_source *source);

/*
 * Create a one-shot timer, disarmed. vio_timer_set() arms it to expire @ns
 * nanoseconds from now (CLOCK_MONOTONIC); 0 disarms it.
 */
typedef void vio_timer_cb(void *arg);
int vio_timer_add(struct vio_loop *loop, vio_timer_cb *cb, void *arg,
		  struct vio_source **ret_source);
void vio_timer_set(struct vio_source *source, uint64_t ns);

/*
 * Create a wake-up: vio_wake() makes the loop call @cb on its own thread, in
 * the next iteration. vio_wake() may be called on any thread and in signal
 * handlers until the source is removed. Calls before @cb runs count as one.
 */
typedef void vio_wake_cb(void *arg);
int vio_wake_add(struct vio_loop *loop, vio_wake_cb *cb, void *arg,
		 struct vio_source **ret_source);
void vio_wake(struct vio_source *source);

/*
 * Run @task at the end of this iteration. The caller owns the task, sets fn and
 * arg, and must not free it while it is queued. A task that is queued twice
 * runs once. A task that defers itself runs again in the next iteration, which
 * then does not wait. vio_task_cancel() removes a task from the queue, if it is
 * there.
 */
struct vio_task {
	void (*fn)(void *arg);
	void *arg;
	struct vio_task *next; /* private */
	bool queued;           /* private */
};
void vio_task_defer(struct vio_loop *loop, struct vio_task *task);
void vio_task_cancel(struct vio_loop *loop, struct vio_task *task);

/*
 * Work that shows in memory, without a system call, such as a ring that a driver
 * or the kernel fills. The loop calls
 *   poll()  to look for work and do it. It returns true if there was any, and
 *	     costs little if there was none;
 *   arm()   before it sleeps, to make a source wake the loop from now on. It looks
 *	     once more after that, and returns true if it did anything. NULL if a
 *	     source always wakes the loop.
 * While waits are short the loop polls before it sleeps, see
 * vio_loop_set_poll(). The caller owns the poller, sets these three members, and
 * may remove it in any callback. Not thread-safe: call from the loop's thread.
 */
struct vio_poller {
	bool (*poll)(void *arg);
	bool (*arm)(void *arg);
	void *arg;
	struct vio_poller *next; /* private */
};
void vio_poller_add(struct vio_loop *loop, struct vio_poller *poller);
void vio_poller_remove(struct vio_loop *loop, struct vio_poller *poller);

/*
 * Poll for @ns nanoseconds before each sleep, for a loop that has a processor to
 * itself; 0: never poll. Without this call the time depends on how long the last
 * waits were. It is 50 us at most, and 0 in an idle loop.
 */
void vio_loop_set_poll(struct vio_loop *loop, uint64_t ns);

/* CLOCK_MONOTONIC in nanoseconds. From any thread. */
uint64_t vio_now_ns(void);

#ifdef __cplusplus
}
#endif

#endif

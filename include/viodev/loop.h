/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The event loop that a device process, or an embedder, runs on.
 *
 * One loop is one thread's. It waits for file descriptors and timers and calls
 * back; work put off with vio_task_defer() runs once at the end of the turn, which
 * is where a batch is submitted. An embedder with a loop of its own watches
 * vio_loop_fd() for input and calls vio_loop_turn(loop, 0) when it is readable.
 *
 * Errors are -errno.
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

int vio_loop_create(struct vio_loop **ret_loop);
void vio_loop_destroy(struct vio_loop *loop); /* NULL is fine */

/* Readable whenever vio_loop_turn() has something to do. Owned by the loop. */
int vio_loop_fd(const struct vio_loop *loop);

/*
 * Wait at most @timeout_ms (-1: for ever) and serve what came. Returns how
 * many sources were served.
 */
int vio_loop_turn(struct vio_loop *loop, int timeout_ms);

/* Turn until vio_loop_stop(). Returns 0 or the error of a turn. */
int vio_loop_run(struct vio_loop *loop);
void vio_loop_stop(struct vio_loop *loop);

/*
 * Watch a descriptor for EPOLLIN, EPOLLOUT, ... @fd is borrowed and must stay
 * open until the source is removed. A callback may remove any source, its own
 * too: the memory lives until the end of the turn, and no call comes after.
 */
typedef void vio_fd_cb(void *arg, uint32_t events);
int vio_fd_add(struct vio_loop *loop, int fd, uint32_t events, vio_fd_cb *cb,
	       void *arg, struct vio_source **ret_source);
int vio_fd_set(struct vio_source *source, uint32_t events);
void vio_source_remove(struct vio_source *source); /* any kind; NULL is fine */

/*
 * A one-shot timer, disarmed at first. vio_timer_set() arms it @ns from now, 0
 * disarms it.
 */
typedef void vio_timer_cb(void *arg);
int vio_timer_add(struct vio_loop *loop, vio_timer_cb *cb, void *arg,
		  struct vio_source **ret_source);
void vio_timer_set(struct vio_source *source, uint64_t ns);

/*
 * A wake-up from elsewhere: vio_wake() has @cb called on the loop's thread, in
 * its next turn. It may be called on any thread and in signal handlers, until
 * the source is removed. Calls that come before @cb runs count as one.
 */
typedef void vio_wake_cb(void *arg);
int vio_wake_add(struct vio_loop *loop, vio_wake_cb *cb, void *arg,
		 struct vio_source **ret_source);
void vio_wake(struct vio_source *source);

/*
 * Work for the end of this turn. The task is the caller's, embedded in a
 * struct of its own; queued twice it runs once. A task that defers itself
 * again runs in the next turn, which then does not wait.
 */
struct vio_task {
	void (*fn)(void *arg);
	void *arg;
	struct vio_task *next;
	bool queued;
};
void vio_task_defer(struct vio_loop *loop, struct vio_task *task);
void vio_task_cancel(struct vio_loop *loop, struct vio_task *task);

/*
 * More is likely to come at once. The loop then looks for it for a moment
 * before it sleeps, if the last time that paid.
 */
void vio_loop_busy_poll(struct vio_loop *loop);

/* Monotonic time in nanoseconds. */
uint64_t vio_now_ns(void);

#ifdef __cplusplus
}
#endif

#endif

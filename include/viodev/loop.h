/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The event loop that a device process, or an embedder, runs on.
 *
 * One loop is one thread's. It waits for file descriptors and timers and calls
 * back; work put off with ev_defer() runs once at the end of the turn, which
 * is where a batch is submitted. An embedder with a loop of its own watches
 * ev_loop_fd() for input and calls ev_loop_turn(loop, 0) when it is readable.
 *
 * Errors are -errno.
 */
#ifndef VIODEV_LOOP_H
#define VIODEV_LOOP_H

#include <stdbool.h>
#include <stdint.h>

struct ev_loop;
struct ev_source;

int ev_loop_create(struct ev_loop **ret_loop);
void ev_loop_destroy(struct ev_loop *loop); /* NULL is fine */

/* Readable whenever ev_loop_turn() has something to do. Owned by the loop. */
int ev_loop_fd(const struct ev_loop *loop);

/*
 * Wait at most @timeout_ms (-1: for ever) and serve what came. Returns how
 * many sources were served.
 */
int ev_loop_turn(struct ev_loop *loop, int timeout_ms);

/* Turn until ev_loop_stop(). Returns 0 or the error of a turn. */
int ev_loop_run(struct ev_loop *loop);
void ev_loop_stop(struct ev_loop *loop);

/*
 * Watch a descriptor for EPOLLIN, EPOLLOUT, ... @fd is borrowed and must stay
 * open until the source is removed. A callback may remove any source, its own
 * too: the memory lives until the end of the turn, and no call comes after.
 */
typedef void ev_fd_cb(void *arg, uint32_t events);
int ev_fd_add(struct ev_loop *loop, int fd, uint32_t events, ev_fd_cb *cb,
	      void *arg, struct ev_source **ret_source);
int ev_fd_set(struct ev_source *source, uint32_t events);
void ev_remove(struct ev_source *source); /* any kind; NULL is fine */

/*
 * A one-shot timer, disarmed at first. ev_timer_set() arms it @ns from now, 0
 * disarms it.
 */
typedef void ev_timer_cb(void *arg);
int ev_timer_add(struct ev_loop *loop, ev_timer_cb *cb, void *arg,
		 struct ev_source **ret_source);
void ev_timer_set(struct ev_source *source, uint64_t ns);

/*
 * Work for the end of this turn. The task is the caller's, embedded in a
 * struct of its own; queued twice it runs once. A task that defers itself
 * again runs in the next turn, which then does not wait.
 */
struct ev_task {
	void (*fn)(void *arg);
	void *arg;
	struct ev_task *next;
	bool queued;
};
void ev_defer(struct ev_loop *loop, struct ev_task *task);
void ev_cancel(struct ev_loop *loop, struct ev_task *task);

/*
 * More is likely to come at once. The loop then looks for it for a moment
 * before it sleeps, if the last time that paid.
 */
void ev_linger(struct ev_loop *loop);

/* Monotonic time in nanoseconds. */
uint64_t ev_now_ns(void);

#endif

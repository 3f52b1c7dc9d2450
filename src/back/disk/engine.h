/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The lowest layer of the storage engine: makes calls on images, beside the
 * loop, by io_uring where it may be used, else by a small pool of threads.
 * Several disks may share an engine. It knows neither disks nor requests.
 *
 * A call that was interrupted is made again at once, one that the kernel has
 * no room for after a while.
 */
#ifndef BACK_DISK_ENGINE_H
#define BACK_DISK_ENGINE_H

#include <stdbool.h>
#include <stdint.h>

#include <viodev/loop.h>

#include "back/disk/call.h"
#include "back/disk/image.h"

/*
 * A kind of engine. Results of calls are given to disk_call_done() on the
 * loop's thread and never from inside of start().
 */
struct disk_engine_ops {
	const char *name;
	/*
	 * How many reads in an iteration are tried without waiting before a
	 * batch is better off here.
	 */
	unsigned max_inline;
	int (*create)(struct vio_loop *loop, unsigned depth, unsigned nr_disks,
		      void **ret_impl);
	void (*destroy)(void *impl); /* nothing is in flight, or */
	void (*abandon)(void *impl); /* something is: leave it alone */
	/* Take an image, whose number is returned, or -errno; release one. */
	int (*add)(void *impl, int fd);
	void (*remove)(void *impl, int file);
	void (*start)(void *impl, struct disk_call *call);
	/*
	 * Send what was started. 0: all is sent; 1: call again; -errno: call
	 * again, but not at once.
	 */
	int (*submit)(void *impl);
	/* Wait for a call to complete. */
	void (*wait)(void *impl, int timeout_ms);
};

extern const struct disk_engine_ops disk_uring;
extern const struct disk_engine_ops disk_threads;

struct disk_engine {
	struct vio_loop *loop;
	const struct disk_engine_ops *ops;
	void *impl;
	void *slow;                  /* threads, for what io_uring lacks */
	int uring_error;             /* why it is not io_uring: -errno */
	struct vio_task submit_task; /* what did not fit yet */

	/* What the kernel had no room for waits until the timer expires. */
	struct disk_calls retry;
	struct vio_source *retry_timer;
	bool retry_armed;
	uint64_t retry_ns; /* the last wait, or 0 */
};

int disk_engine_init(struct disk_engine *engine, struct vio_loop *loop,
		     unsigned depth, unsigned nr_disks);
/* Nothing is in flight; half-made is fine. Something is: leave it alone. */
void disk_engine_fini(struct disk_engine *engine);
void disk_engine_abandon(struct disk_engine *engine);

/* Have the engine make the calls of an image that has a descriptor. */
int disk_engine_add(struct disk_engine *engine, struct disk_image *img);
void disk_engine_remove(struct disk_image *img);

/* Start a call; send those that were started. */
void disk_engine_start(struct disk_call *call);
void disk_engine_submit(struct disk_engine *engine);

/* Wait for calls to complete: any; those that io_uring lacks. */
void disk_engine_wait(struct disk_engine *engine, int timeout_ms);
void disk_engine_wait_slow(struct disk_engine *engine, int timeout_ms);

/* The end: calls that wait to be made again fail. */
void disk_engine_give_up(struct disk_engine *engine);

/* For a call that is about to be made: not any more? */
bool disk_call_forgotten(const struct disk_call *call);

/*
 * --- For engines ---
 */

/* A call has been made. */
void disk_call_done(struct disk_call *call, int result);

/* There is room for calls that did not fit: submit() again, this iteration. */
void disk_engine_has_room(struct disk_engine *engine);

/*
 * --- syscalls.c ---
 */

/* Make a call by the system calls for it, and wait; read what is cached. */
int disk_call_run(struct disk_call *call);
int disk_call_read_cached(struct disk_call *call);

/* The mode that fallocate() takes for a call. */
int disk_call_fallocate_mode(const struct disk_call *call);

#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The lowest layer of the storage engine: makes calls on images
 * asynchronously, by io_uring where permitted, otherwise by a small pool of
 * threads. Several disks may share an engine. It knows neither disks nor
 * requests.
 *
 * An interrupted call is repeated at once, one that the kernel has no room for
 * after a delay.
 */
#ifndef BACK_DISK_ENGINE_H
#define BACK_DISK_ENGINE_H

#include <stdbool.h>
#include <stdint.h>

#include <viodev/loop.h>

#include "back/disk/call.h"
#include "back/disk/image.h"

/*
 * A kind of engine. Results of calls are passed to disk_call_done() on the
 * loop's thread, never from inside start().
 */
struct disk_engine_ops {
	const char *name;
	/*
	 * How many reads an iteration tries without waiting; more are better
	 * sent to the engine as a batch.
	 */
	unsigned max_inline;
	int (*create)(struct vio_loop *loop, unsigned depth, unsigned nr_disks,
		      void **ret_impl);
	void (*destroy)(void *impl); /* nothing is in flight */
	void (*abandon)(void *impl); /* calls are in flight */
	/* Add an image: its number or -errno; release one. */
	int (*add)(void *impl, int fd);
	void (*remove)(void *impl, int file);
	void (*start)(void *impl, struct disk_call *call);
	/*
	 * Send the started calls. 0: all sent; 1: call again; -errno: call
	 * again after a delay.
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
	int uring_error;             /* why io_uring is not used: -errno */
	struct vio_task submit_task; /* sends calls that did not fit */
	struct vio_task null_task;   /* completes calls on no image */
	struct disk_calls null;

	/* Calls that the kernel had no room for, until the timer expires. */
	struct disk_calls retry;
	struct vio_source *retry_timer;
	bool retry_armed;
	uint64_t retry_ns; /* last delay, or 0 */
};

int disk_engine_init(struct disk_engine *engine, struct vio_loop *loop,
		     unsigned depth, unsigned nr_disks);
/* Destroy an idle engine, even half-created; abandon a busy one. */
void disk_engine_fini(struct disk_engine *engine);
void disk_engine_abandon(struct disk_engine *engine);

/* Add an open image to the engine. */
int disk_engine_add(struct disk_engine *engine, struct disk_image *img);
void disk_engine_remove(struct disk_image *img);

/* Start a call; send started calls. */
void disk_engine_start(struct disk_call *call);
void disk_engine_submit(struct disk_engine *engine);

/* Wait for a call to complete: any; one that io_uring lacks. */
void disk_engine_wait(struct disk_engine *engine, int timeout_ms);
void disk_engine_wait_slow(struct disk_engine *engine, int timeout_ms);

/* At the end: fail calls that wait for a retry. */
void disk_engine_give_up(struct disk_engine *engine);

/* Whether a call that is about to be made was forgotten. */
bool disk_call_forgotten(const struct disk_call *call);

/*
 * --- For engines ---
 */

/* A call has been made. */
void disk_call_done(struct disk_call *call, int result);

/* There is room for calls that did not fit: submit() in this iteration. */
void disk_engine_has_room(struct disk_engine *engine);

/*
 * --- null.c ---
 */

void disk_null_init(struct disk_engine *engine);
void disk_null_start(struct disk_engine *engine, struct disk_call *call);
void disk_null_complete(struct disk_engine *engine); /* those that wait */

/*
 * --- syscalls.c ---
 */

/* Make a call synchronously; read only what is cached. */
int disk_call_run(struct disk_call *call);
int disk_call_read_cached(struct disk_call *call);

/* The mode that fallocate() takes for a call. */
int disk_call_fallocate_mode(const struct disk_call *call);

#endif

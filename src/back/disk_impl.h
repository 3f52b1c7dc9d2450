/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Between the files of the storage engine: disk.c turns requests into system
 * calls on an image (disk_image.c), which one of the engines (disk_uring.c,
 * disk_threads.c) makes beside the loop.
 */
#ifndef BACK_DISK_IMPL_H
#define BACK_DISK_IMPL_H

#include <stddef.h>

#include "back/disk.h"

/*
 * Whether to look for more before a sleep, after a turn of the loop in which
 * @nr_now requests were done at once; *nr_single is ours.
 *
 * A guest that waits for each read before it asks for the next one waits for
 * us to be woken, too. Where more are under way, not to be awake is better:
 * they come together then. So it takes many turns of one request.
 */
#define DISK_SINGLES_ENOUGH 1000

static inline bool disk_lingers(unsigned nr_now, unsigned *nr_single)
{
	if (nr_now > 1)
		*nr_single = 0;
	else if (nr_now == 1 && *nr_single < DISK_SINGLES_ENOUGH)
		++*nr_single;
	return nr_now == 1 && *nr_single == DISK_SINGLES_ENOUGH;
}

/* An open image: what can be done with it. */
struct disk_image {
	int fd;
	int file; /* what an engine calls it */
	bool is_bdev;
	bool in_memory; /* nothing ever waits for a medium */
	bool can_punch; /* fallocate() modes that were not refused so far */
	bool can_zero_range;
	uint32_t mem_align, off_align; /* what O_DIRECT asks for, or 1 */
	struct disk_info info;
};

/* Look at a descriptor of disk_open(). 0 or -errno; @fd stays the caller's. */
int disk_image_init(struct disk_image *img, int fd,
		    const struct disk_params *params);

/*
 * Its size now, in whole blocks: the rest of a last one cannot be transferred.
 */
int disk_image_bytes(const struct disk_image *img, uint64_t *ret_bytes);

enum {
	CALL_READ,
	CALL_WRITE,
	CALL_SYNC, /* data and what is needed to find it again */
	CALL_FALLOCATE,
	CALL_DISCARD, /* of a block device */
};

/* Calls that wait for something, first come first served. */
struct disk_calls {
	struct disk_call *first, **end;
};

static inline void disk_calls_init(struct disk_calls *q)
{
	q->first = NULL;
	q->end = &q->first;
}

static inline void disk_calls_add(struct disk_calls *q, struct disk_call *call)
{
	call->next = NULL;
	*q->end = call;
	q->end = &call->next;
}

static inline struct disk_call *disk_calls_take(struct disk_calls *q)
{
	struct disk_call *call = q->first;

	if (!call)
		return NULL;
	q->first = call->next;
	if (!q->first)
		q->end = &q->first;
	return call;
}

/*
 * What makes calls. Results are those of the system call or -errno, given to
 * call->done() on the loop's thread and never from inside of start().
 */
struct disk_engine {
	const char *name;
	/*
	 * How many reads in a turn are tried without waiting before a batch
	 * is better off here.
	 */
	unsigned max_now;
	int (*create)(struct ev_loop *loop, unsigned depth, unsigned nr_disks,
		      void **ret_engine);
	/* Nothing is in flight but perhaps a sync that nobody waits for. */
	void (*destroy)(void *engine);
	/* Take an image, whose number is returned, or -errno; let go of one. */
	int (*add)(void *engine, int fd);
	void (*remove)(void *engine, int file);
	void (*start)(void *engine, struct disk_call *call);
	/* Send what was started; false: not all could be, call again. */
	bool (*submit)(void *engine);
	/* Wait for a call to complete. */
	void (*wait)(void *engine, int timeout_ms);
};

extern const struct disk_engine disk_uring;
extern const struct disk_engine disk_threads;

/* Make a call here and now. */
int disk_call_run(const struct disk_call *call);

#endif

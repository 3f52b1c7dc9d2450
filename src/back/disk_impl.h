/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Between the files of the storage engine. A request is a sequence of system
 * calls on an image, which one of the engines makes beside the loop.
 *
 *	disk.c       requests begin and end; drain; a disk's making
 *	disk_rw.c    reads and writes
 *	disk_zero.c  discards, and zeroes
 *	disk_sync.c  flushes
 *	disk_size.c  the image's size, and who changes it
 *	disk_image.c what an image is, and can do
 *	disk_uring.c disk_threads.c    the engines
 */
#ifndef BACK_DISK_IMPL_H
#define BACK_DISK_IMPL_H

#include <errno.h>
#include <stddef.h>

#include <viodev/loop.h>

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

/*
 * --- The disk ---
 */

#define DISK_PAGE_BYTES	  4096u
#define DISK_BOUNCE_BYTES (256u << 10)
#define DISK_TURN_BYTES	  (2u << 20) /* more would keep others waiting */

struct disk_io {
	struct ev_loop *loop;
	const struct disk_engine *ops;
	void *engine;
	int uring_error;    /* why it is not io_uring */
	struct disk *gone; /* disks that the kernel has not let go of */
};

struct disk {
	struct ev_loop *loop;
	struct disk_image img;
	bool writethrough;
	bool nowait;     /* try RWF_NOWAIT before the engine */
	unsigned nr_now; /* how often that was done in this turn */
	uint64_t turn_bytes; /* of what began in this turn */
	unsigned nr_single; /* see disk_lingers() */

	struct disk_io *io;
	const struct disk_engine *ops; /* of @io, */
	void *engine;                  /* likewise */
	struct ev_task submit_task;
	struct disk *next; /* in io->gone */

	unsigned nr_reqs;   /* started, not done */
	unsigned nr_active; /* of these, begun */
	bool hurry;         /* a drain takes too long: begin nothing more */

	/* Requests that wait for their turn, or while one runs alone. */
	struct disk_req *alone;
	struct disk_req *held, **held_end;
	bool releasing;

	/* Flushing, see disk_sync_join(). */
	struct disk_call sync_call;
	bool syncing;
	int sync_error;
	struct disk_req *sync_waiting, **sync_waiting_end; /* for the next */
	struct disk_req *sync_served, **sync_served_end;   /* by this one */

	char *bounce; /* DISK_BOUNCE_BYTES, as O_DIRECT wants them */

	int watch_fd;
	struct ev_source *watch, *watch_timer;
	void (*notify)(void *arg, uint64_t bytes);
	void *notify_arg;
};

/*
 * --- disk.c ---
 */

/* Make a call here and now; have the engine make the request's. */
int disk_call_run(const struct disk_call *call);
void disk_call_start(struct disk_req *req,
		     void (*done)(struct disk_call *call, int result));

static inline struct disk_req *disk_req_of(struct disk_call *call)
{
	return (void *)((char *)call - offsetof(struct disk_req, dr_call));
}

/* Worth trying again as it was. */
static inline bool disk_interrupted(int result)
{
	return result == -EINTR || result == -EAGAIN;
}

/* The request has ended; it may be gone, or run again, after this. */
void disk_finish(struct disk_req *req, int result);

/*
 * --- What a request does: each goes on by itself until disk_finish() ---
 */

/* disk_rw.c: as it is, or through the buffer. The latter also for zeroes. */
void disk_rw(struct disk_req *req);
void disk_bounce(struct disk_req *req);

/* disk_zero.c */
void disk_discard(struct disk_req *req);
void disk_write_zeroes(struct disk_req *req);

/*
 * disk_sync.c: wait for the next fdatasync(); the bytes are written, is that
 * all? Make the next one. End all that wait, without.
 */
void disk_sync_join(struct disk_req *req);
void disk_written(struct disk_req *req);
void disk_sync_begin(struct disk *d);
void disk_sync_give_up(struct disk *d);

#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Between the files of the storage engine. A request is a sequence of system
 * calls on an image, which one of the engines makes beside the loop.
 *
 *	disk.c     requests begin and end, or are forgotten
 *	io.c       who works for disks; a disk's making, and its end
 *	call.c     system calls, and those that are to be made again
 *	rw.c       reads and writes
 *	zero.c     discards, and zeroes
 *	flush.c    flushes
 *	wait.c     requests that wait after an error
 *	size.c     the image's size, and who changes it
 *	image.c    what an image is, and can do
 *	uring.c threads.c    the engines
 */
#ifndef BACK_DISK_IMPL_H
#define BACK_DISK_IMPL_H

#include <errno.h>
#include <stddef.h>

#include <viodev/loop.h>

#include "back/disk/disk.h"
#include "base/util.h"

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
	bool forgetting; /* calls that have not begun fail; threads read it */
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
	CALL_SIZE,    /* set the size to len, or CALL_LOOK; it becomes off */
};

#define CALL_LOOK UINT64_MAX /* leave the size as it is */

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

/* Requests that wait for something, likewise. */
struct disk_reqs {
	struct disk_req *first, **end;
};

static inline void disk_reqs_init(struct disk_reqs *q)
{
	q->first = NULL;
	q->end = &q->first;
}

static inline void disk_reqs_add(struct disk_reqs *q, struct disk_req *req)
{
	req->dr_next = NULL;
	*q->end = req;
	q->end = &req->dr_next;
}

static inline struct disk_req *disk_reqs_take(struct disk_reqs *q)
{
	struct disk_req *req = q->first;

	if (!req)
		return NULL;
	q->first = req->dr_next;
	if (!q->first)
		q->end = &q->first;
	return req;
}

/* Append all of @from, which is empty afterwards. */
static inline void disk_reqs_move(struct disk_reqs *q, struct disk_reqs *from)
{
	if (!from->first)
		return;
	*q->end = from->first;
	q->end = from->end;
	disk_reqs_init(from);
}

/*
 * What makes calls. Results are those of the system call or -errno, given to
 * disk_call_done() on the loop's thread and never from inside of start().
 */
struct disk_engine {
	const char *name;
	/*
	 * How many reads in a turn are tried without waiting before a batch
	 * is better off here.
	 */
	unsigned max_now;
	int (*create)(struct vio_loop *loop, unsigned depth, unsigned nr_disks,
		      void **ret_engine);
	void (*destroy)(void *engine); /* nothing is in flight, or */
	void (*abandon)(void *engine); /* something is: leave it alone */
	/* Take an image, whose number is returned, or -errno; let go of one. */
	int (*add)(void *engine, int fd);
	void (*remove)(void *engine, int file);
	void (*start)(void *engine, struct disk_call *call);
	/*
	 * Send what was started. 0: all is sent; 1: call again; -errno: call
	 * again, but not at once.
	 */
	int (*submit)(void *engine);
	/* Wait for a call to complete. */
	void (*wait)(void *engine, int timeout_ms);
};

extern const struct disk_engine disk_uring;
extern const struct disk_engine disk_threads;

/*
 * --- The disk ---
 */

#define DISK_PAGE_BYTES   4096u
#define DISK_BOUNCE_BYTES (256u << 10)
#define DISK_TURN_BYTES   (2u << 20) /* more would keep others waiting */

struct disk_io {
	struct vio_loop *loop;
	const struct disk_engine *ops;
	void *engine;
	void *slow;        /* disk_threads, for calls that io_uring lacks */
	int uring_error;   /* why it is not io_uring */
	struct disk *gone; /* destroyed, but used by the kernel */
	bool ending;       /* nobody hears of requests any more */

	/* What the kernel had no room for waits until the timer expires. */
	struct disk_calls again;
	struct vio_source *again_timer;
	bool again_armed;
	uint64_t again_ns; /* the last wait, or 0 */
};

struct disk {
	struct vio_loop *loop;
	struct disk_image img;
	bool writethrough;
	bool nowait;         /* try RWF_NOWAIT before the engine */
	unsigned nr_now;     /* how often that was done in this turn */
	uint64_t turn_bytes; /* of what began in this turn */
	unsigned nr_single;  /* see disk_lingers() */

	struct disk_io *io;
	const struct disk_engine *ops; /* of @io, */
	void *engine;                  /* likewise */
	struct vio_task submit_task;
	bool closing;      /* disk_destroy() was called */
	struct disk *next; /* in io->gone */

	unsigned nr_active; /* begun, not ended */

	/* Requests that wait for their turn, or while one runs alone. */
	struct disk_req *alone;
	struct disk_reqs held;
	bool releasing;

	/* Failed, and to be tried again; see wait.c. */
	enum disk_on_error on_read_error, on_write_error;
	struct disk_reqs failed;
	unsigned nr_failed;
	void (*on_wait)(void *arg, enum disk_op op, int error);
	void *on_wait_arg;

	/* Forgotten before they began. */
	struct disk_reqs dropped;
	struct vio_task drop_task;

	/* Flushing, see disk_sync_join(). */
	struct disk_call sync_call;
	bool syncing;
	int sync_error;
	struct disk_reqs sync_waiting; /* for the next */
	struct disk_reqs sync_served;  /* by this one */

	char *bounce; /* DISK_BOUNCE_BYTES, as O_DIRECT wants them */

	/* The size, see size.c. */
	struct disk_call size_call;
	bool sizing;      /* that is under way, */
	bool size_wanted; /* and is to be made again */
	bool shrinking;   /* new requests wait for it */
	uint64_t size_to; /* or CALL_LOOK */
	int size_error;
	int watch_fd;
	struct vio_source *watch, *watch_timer;
	void (*notify)(void *arg, uint64_t bytes);
	void *notify_arg;
};

static inline struct disk *disk_of_call(struct disk_call *call)
{
	return container_of(call->img, struct disk, img);
}

/*
 * --- disk.c ---
 */

static inline struct disk_req *disk_req_of(struct disk_call *call)
{
	return container_of(call, struct disk_req, dr_call);
}

/*
 * The request has ended; it may be gone, or run again, after this. After an
 * error of disk_finish() it may as well wait to be tried again.
 */
void disk_end(struct disk_req *req, int result);
void disk_finish(struct disk_req *req, int result);

/* Begin what was held, as far as it may; tell of what was dropped. */
void disk_release_held(struct disk *d);
void disk_tell_dropped(struct disk *d);

/*
 * --- wait.c ---
 */

/* Whether a request that failed is to wait; have it wait; drop all such. */
bool disk_is_to_wait(const struct disk_req *req, int error);
void disk_wait(struct disk_req *req, int error);
void disk_waiting_drop(struct disk *d, struct disk_reqs *to);

/*
 * --- io.c ---
 */

/* Free a destroyed disk that nothing uses any more. */
void disk_maybe_free(struct disk *d);

/*
 * --- call.c ---
 */

/* Make a call here and now; have an engine make the request's, or another. */
int disk_call_run(struct disk_call *call);
void disk_call_start(struct disk_req *req,
		     void (*done)(struct disk_call *call, int result));
void disk_call_start_other(struct disk *d, struct disk_call *call);

/* For a call that is about to be made: not any more? */
bool disk_call_forgotten(const struct disk_call *call);

/* An engine has made a call. */
void disk_call_done(struct disk_call *call, int result);

/* The engine could not send what was started: have it try again, later. */
void disk_send_later(struct disk_io *io);

/* The timer: make those calls that wait. The end: they have failed. */
void disk_calls_again(void *arg);
void disk_calls_give_up(struct disk_io *io);

/*
 * --- What a request does: each goes on by itself until disk_finish() ---
 */

/* rw.c: as it is, or through the buffer. The latter also for zeroes. */
void disk_rw(struct disk_req *req);
void disk_bounce(struct disk_req *req);

/* zero.c */
void disk_discard(struct disk_req *req);
void disk_write_zeroes(struct disk_req *req);

/*
 * flush.c: wait for the next fdatasync(); the bytes are written, is that
 * all? Make the next one.
 */
void disk_sync_join(struct disk_req *req);
void disk_written(struct disk_req *req);
void disk_sync_begin(struct disk *d);

/* size.c: have the size looked at, or set, when that may be. */
void disk_size_begin(struct disk *d);

#endif

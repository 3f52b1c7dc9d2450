/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The middle layer of the storage engine: carries requests out, as sequences of
 * calls (engine.h). It takes every request that it is given; whether one may
 * begin, and what becomes of one that failed, is for the layer above
 * (admission.h), which it knows by one callback.
 *
 *	exec.c   which way a request takes
 *	rw.c     reads and writes; through an aligned buffer where they must
 *	zero.c   discards, and zeroes
 *	flush.c  flushes, and writes that are to be stable
 */
#ifndef BACK_DISK_EXEC_H
#define BACK_DISK_EXEC_H

#include <stdbool.h>
#include <stdint.h>

#include <viodev/loop.h>

#include "back/disk/engine.h"
#include "back/disk/image.h"
#include "back/disk/request.h"
#include "base/util.h"

#define DISK_PAGE_BYTES   4096u
#define DISK_BOUNCE_BYTES (256u << 10)
#define DISK_TURN_BYTES   (2u << 20) /* more would keep others waiting */

struct disk_exec {
	struct vio_loop *loop;
	struct disk_image img;
	/* Deferred when there is something for disk_exec_submit() to send. */
	struct vio_task *turn_end;
	/*
	 * A request has ended; it may be gone, or run again, after this. A
	 * failure that is final is not to be tried again.
	 */
	void (*done)(struct disk_req *req, int result, bool final);

	bool writethrough;
	unsigned nr_cached; /* reads of cached data tried in this turn */
	char *bounce;       /* DISK_BOUNCE_BYTES, as O_DIRECT wants them */

	/* See flush.c. */
	struct disk_call flush_call;
	bool flushing;
	int flush_error;                /* of one that failed: all later ones */
	struct disk_reqs flush_waiting; /* for the next */
	struct disk_reqs flush_served;  /* by this one */
};

/* For an image that has been looked at, by an engine. 0 or -errno. */
int disk_exec_init(struct disk_exec *x, struct vio_loop *loop,
		   struct disk_engine *engine,
		   const struct disk_params *params);
void disk_exec_fini(struct disk_exec *x);

/*
 * Whether a request must run alone. One that O_DIRECT does not take as it is
 * goes through a buffer and may have to read and write back what surrounds it:
 * there is one such buffer, and nobody may write to the surroundings meanwhile.
 */
bool disk_exec_is_exclusive(const struct disk_exec *x,
			    const struct disk_req *req);

/* Carry out the rest of a request; dr_exclusive says that it runs alone. */
void disk_exec_start(struct disk_req *req);

/* The turn ends: flush if a request waits for that, and submit all calls. */
void disk_exec_submit(struct disk_exec *x);

/*
 * Calls that have not begun fail from now on, or no more; take requests back
 * that merely wait for a flush.
 */
void disk_exec_set_forgetting(struct disk_exec *x, bool on);
void disk_exec_take_waiting(struct disk_exec *x, struct disk_reqs *to);

/*
 * --- Between the files of this layer ---
 */

static inline struct disk_req *disk_req_of(struct disk_call *call)
{
	return container_of(call, struct disk_req, dr_call);
}

/* The request has ended, well or not; with an error that is final. */
static inline void exec_end(struct disk_req *req, int result)
{
	req->dr_exec->done(req, result, false);
}

static inline void exec_end_final(struct disk_req *req, int result)
{
	req->dr_exec->done(req, result, true);
}

/* Have the request's call made. */
void exec_call(struct disk_req *req,
	       void (*done)(struct disk_call *call, int result));

/* rw.c: as it is, or through the buffer. The latter also for zeroes. */
void exec_rw(struct disk_req *req);
void exec_bounce(struct disk_req *req);

/* zero.c */
void exec_discard(struct disk_req *req);
void exec_write_zeroes(struct disk_req *req);

/* flush.c: wait for the next flush; the bytes are written, is that all? */
void exec_flush(struct disk_req *req);
void exec_written(struct disk_req *req);
void exec_begin_flush(struct disk_exec *x);

#endif

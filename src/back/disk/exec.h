/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The middle layer of the storage engine: carries requests out, as sequences of
 * calls (engine.h). It accepts every request; the layer above (admission.h),
 * which it reaches by one callback, decides whether one may begin and how a
 * failed one is handled.
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

#define DISK_PAGE_BYTES      4096u
#define DISK_BOUNCE_BYTES    (256u << 10)
#define DISK_ITERATION_BYTES (2u << 20) /* more would delay others */

struct disk_exec {
	struct vio_loop *loop;
	struct disk_image img;
	/* Deferred when there is something for disk_exec_submit() to send. */
	struct vio_task *iteration_end;
	/*
	 * A request has ended; it may be freed, or run again, after this. A
	 * final failure must not be retried.
	 */
	void (*done)(struct disk_req *req, int result, bool final);

	bool writethrough;
	unsigned nr_cached; /* reads of cached data tried in this iteration */
	char *bounce;       /* DISK_BOUNCE_BYTES, aligned for O_DIRECT */

	/* See flush.c. */
	struct disk_call flush_call;
	bool flushing;
	int flush_error;                /* of one that failed: all later ones */
	struct disk_reqs flush_waiting; /* for the next */
	struct disk_reqs flush_served;  /* by this one */
};

/* For an image that has been probed, by an engine. 0 or -errno. */
int disk_exec_init(struct disk_exec *x, struct vio_loop *loop,
		   struct disk_engine *engine,
		   const struct disk_params *params);
void disk_exec_fini(struct disk_exec *x);

/*
 * Whether a request must run alone. One that O_DIRECT does not accept as it is
 * goes through a buffer and may have to read and write back the surrounding
 * bytes: there is one such buffer, and no other request may write these bytes.
 */
bool disk_exec_is_exclusive(const struct disk_exec *x,
			    const struct disk_req *req);

/* Carry out the rest of a request; dr_exclusive says that it runs alone. */
void disk_exec_start(struct disk_req *req);

/*
 * The iteration ends: flush if a request waits for that, and submit all calls.
 */
void disk_exec_submit(struct disk_exec *x);

/*
 * Make calls that have not begun fail from now on, or no longer; take back
 * requests that only wait for a flush.
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

/* A write has ended there: a file may have grown to complete its last block. */
static inline void exec_wrote(struct disk_exec *x, uint64_t end)
{
	if (end > x->img.info.data_bytes)
		x->img.info.data_bytes = end;
}

/* Start the request's call. */
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

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The middle layer of the storage engine: executes requests as sequences of
 * calls (engine.h). It accepts every request; the layer above (admission.h),
 * which it reaches by one callback, decides whether one may start and how a
 * failed one is handled.
 *
 *	exec.c   dispatch of requests
 *	rw.c     reads and writes; through an aligned buffer where necessary
 *	zero.c   discards, and zeroes
 *	flush.c  flushes, and stable writes (dr_fua)
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
	/* Deferred when disk_exec_submit() has calls to send. */
	struct vio_task *iteration_end;
	/*
	 * A request has ended; it may be freed or run again afterwards. A final
	 * failure must not be retried.
	 */
	void (*done)(struct disk_req *req, int result, bool final);

	bool writethrough;
	unsigned nr_cached; /* reads of cached data tried in this iteration */
	char *bounce;       /* DISK_BOUNCE_BYTES, aligned for O_DIRECT */

	/* See flush.c. */
	struct disk_call flush_call;
	bool flushing;
	int flush_error; /* of a failed flush: all later ones fail */
	struct disk_reqs flush_waiting; /* for the next flush */
	struct disk_reqs flush_served;  /* by the current flush */
};

/* For a probed image, on an engine. 0 or -errno. */
int disk_exec_init(struct disk_exec *x, struct vio_loop *loop,
		   struct disk_engine *engine,
		   const struct disk_params *params);
void disk_exec_fini(struct disk_exec *x);

/*
 * Whether a request must run exclusively. One that O_DIRECT does not accept as
 * it is goes through a buffer and may have to read and write back the
 * surrounding bytes. There is one such buffer, and no other request may write
 * these bytes meanwhile.
 */
bool disk_exec_is_exclusive(const struct disk_exec *x,
			    const struct disk_req *req);

/* Execute the rest of a request; dr_exclusive: no other one runs. */
void disk_exec_start(struct disk_req *req);

/* At the end of an iteration: flush if a request waits for it; submit all. */
void disk_exec_submit(struct disk_exec *x);

/*
 * Start or stop failing calls that have not started; take back requests that
 * only wait for a flush.
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

/* The request has ended; with a final error. */
static inline void exec_end(struct disk_req *req, int result)
{
	req->dr_exec->done(req, result, false);
}

static inline void exec_end_final(struct disk_req *req, int result)
{
	req->dr_exec->done(req, result, true);
}

/* A write has ended at @end: a file may have grown to its last block's end. */
static inline void exec_wrote(struct disk_exec *x, uint64_t end)
{
	if (end > x->img.info.data_bytes)
		x->img.info.data_bytes = end;
}

/* Start the request's call. */
void exec_call(struct disk_req *req,
	       void (*done)(struct disk_call *call, int result));

/* rw.c: directly; through the buffer, also for zeroes. */
void exec_rw(struct disk_req *req);
void exec_bounce(struct disk_req *req);

/* zero.c */
void exec_discard(struct disk_req *req);
void exec_write_zeroes(struct disk_req *req);

/* flush.c: wait for the next flush; the bytes are written, flush if needed. */
void exec_flush(struct disk_req *req);
void exec_written(struct disk_req *req);
void exec_begin_flush(struct disk_exec *x);

#endif

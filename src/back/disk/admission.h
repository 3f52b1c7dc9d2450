/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The upper layer of the storage engine: the disk, which admits requests. It
 * decides when one may start and how a failed one is handled; the layer below
 * executes it.
 *
 *	admission.c (budget, exclusive requests, forgetting)   wait.c   size.c
 *	     |  start, submit                          ^  done
 *	     v                                         |
 *	exec.h    execution: rw.c, zero.c, flush.c; requests as sequences of calls
 *	     |  start, submit                          ^  done of each call
 *	     v                                         |
 *	engine.h  engine.c, uring.c, threads.c: make the calls
 *
 * Each layer includes the ones below it, never the ones above.
 */
#ifndef BACK_DISK_ADMISSION_H
#define BACK_DISK_ADMISSION_H

#include <viodev/loop.h>

#include "back/disk/disk.h"
#include "back/disk/exec.h"

struct disk_io {
	struct disk_engine engine;
	struct disk *closing; /* destroyed, still used by the kernel */
	bool ending;          /* completions are no longer reported */
};

struct disk {
	struct vio_loop *loop;
	struct disk_io *io;
	struct disk_exec exec;
	struct vio_task iteration_end; /* of the loop */
	uint64_t iteration_bytes; /* of requests started in this iteration */

	bool closing;      /* disk_destroy() was called */
	struct disk *next; /* in io->closing */

	unsigned nr_active; /* requests in flight */

	/* The exclusive request; those that wait for it or for their turn. */
	struct disk_req *exclusive;
	struct disk_reqs queued;
	bool releasing;

	/* Failed requests to retry; see wait.c. */
	enum disk_on_error on_read_error, on_write_error;
	struct disk_reqs failed;
	unsigned nr_failed;
	void (*on_wait)(void *arg, enum disk_op op, int error);
	void *on_wait_arg;

	/* Forgotten before they started. */
	struct disk_reqs dropped;
	struct vio_task drop_task;

	/* The size, see size.c. */
	struct disk_call size_call;
	bool sizing;      /* a query or change is in progress, */
	bool size_wanted; /* and must be repeated */
	bool shrinking;   /* new requests wait for it */
	uint64_t size_to; /* or CALL_LOOK */
	bool size_shrink; /* may shrink the file */
	int size_error;
	bool renamed; /* what is at the path now is another file, or none */
	int watch_fd;
	struct vio_source *watch, *watch_timer;
	void (*notify)(void *arg, uint64_t bytes);
	void *notify_arg;
};

static inline struct disk *disk_of_req(const struct disk_req *req)
{
	return container_of(req->dr_exec, struct disk, exec);
}

/*
 * --- admission.c ---
 */

/* Called by the execution layer when a request has ended. */
void disk_done(struct disk_req *req, int result, bool final);

/* Start queued requests that may start; complete dropped ones. */
void disk_release_queued(struct disk *d);
void disk_complete_dropped(struct disk *d);

/*
 * --- wait.c ---
 */

/* Whether a failed request must wait; queue it; drop all such requests. */
bool disk_is_to_wait(const struct disk_req *req, int error);
void disk_wait(struct disk_req *req, int error);
void disk_waiting_drop(struct disk *d, struct disk_reqs *to);

/*
 * --- size.c: read or set the size when permitted ---
 */
void disk_size_begin(struct disk *d);

#endif

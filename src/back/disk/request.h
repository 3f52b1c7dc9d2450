/* SPDX-License-Identifier: BSD-2-Clause */
/* Requests of a disk. See disk.h. */
#ifndef BACK_DISK_REQUEST_H
#define BACK_DISK_REQUEST_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "back/disk/call.h"

struct disk_exec;

enum disk_op {
	DISK_READ,
	DISK_WRITE,
	DISK_FLUSH,        /* what completed before is stable after */
	DISK_DISCARD,      /* contents may go */
	DISK_WRITE_ZEROES, /* reads as zero afterwards */
};

/*
 * A request. The caller owns it and its iovecs until dr_done is called. Reads
 * and writes transfer all of their bytes or fail: short transfers are continued
 * inside; a read past the end of a file that shrank fails.
 */
struct disk_req {
	enum disk_op dr_op;
	bool dr_fua;     /* write: stable when done. zeroes too */
	bool dr_unmap;   /* write zeroes: may deallocate */
	uint64_t dr_off; /* bytes */
	uint64_t dr_len; /* bytes; sum of the iovecs for reads and writes */
	struct iovec *dr_iov; /* may be changed while it runs */
	int dr_niov;
	void (*dr_done)(struct disk_req *req, int result);

	/* Private to the storage engine. */
	struct disk_exec *dr_exec;
	struct disk_call dr_call;
	bool dr_exclusive; /* no other one runs beside it */
	uint64_t dr_left;  /* bytes still to be transferred */
	struct iovec dr_rest;
	struct disk_req *dr_next;
};

/* Requests that wait for something, first come first served. */
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

#endif

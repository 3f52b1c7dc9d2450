/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A call: one step of a request, made by an engine beside the loop. It states
 * the operation on the image, not the system call. Both engines make the call
 * on the image's descriptor, and so does disk_call_read_cached().
 */
#ifndef BACK_DISK_CALL_H
#define BACK_DISK_CALL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/pool.h"

struct disk_image;

enum disk_call_op {
	CALL_READ,
	CALL_WRITE,
	CALL_FLUSH,   /* data, and what is needed to find it again */
	CALL_DISCARD, /* contents may go */
	CALL_ZERO,    /* reads as zero afterwards, and */
	CALL_UNMAP,   /* takes no space */
	CALL_SIZE,    /* set the size to len, or CALL_LOOK; it becomes off */
};

#define CALL_LOOK UINT64_MAX /* leave the size as it is */

struct disk_call {
	struct disk_image *img;
	enum disk_call_op op;
	const struct iovec *iov; /* of reads and writes, */
	int niov;
	uint64_t off, len; /* bytes; len of all others */
	bool shrink;       /* CALL_SIZE: even to less */
	/* Bytes of a read or write, which may be short; else 0; or -errno. */
	void (*done)(struct disk_call *call, int result);

	/* Private to the engines. */
	int result;
	struct disk_call *next;
	struct pool_job job;
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

#endif

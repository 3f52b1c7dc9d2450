/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Disk requests: discards, and zeroes, by the first way that the image can do:
 * zero_punch, zero_range, zero_step.
 */
#include <errno.h>
#include <linux/falloc.h>

#include "back/disk/impl.h"

#define ZERO_BYTES (64u << 10) /* of zeroes that exist, */
#define ZERO_IOV   16          /* this often in one write */

/* What zeroes are written from: never written to itself. */
static char zeroes[ZERO_BYTES] __attribute__((aligned(DISK_PAGE_BYTES)));
static const struct iovec zero_iov[ZERO_IOV] = {
	[0 ... ZERO_IOV - 1] = { zeroes, ZERO_BYTES },
};

static void start_fallocate(struct disk_req *req, int mode,
			    void (*done)(struct disk_call *call, int result))
{
	req->dr_call.op = CALL_FALLOCATE;
	req->dr_call.mode = mode | FALLOC_FL_KEEP_SIZE;
	req->dr_call.off = req->dr_off;
	req->dr_call.len = req->dr_len;
	disk_call_start(req, done);
}

static void discard_done(struct disk_call *call, int result)
{
	struct disk_req *req = disk_req_of(call);

	/* It is a hint. What cannot take it may leave it. */
	disk_finish(req, result == -EOPNOTSUPP ? 0 : result);
}

void disk_discard(struct disk_req *req)
{
	if (!req->dr_disk->img.is_bdev) {
		start_fallocate(req, FALLOC_FL_PUNCH_HOLE, discard_done);
		return;
	}
	req->dr_call.op = CALL_DISCARD;
	req->dr_call.off = req->dr_off;
	req->dr_call.len = req->dr_len;
	disk_call_start(req, discard_done);
}

/*
 * --- Write zeroes ---
 */

static void zero_step(struct disk_req *req);

static void zero_step_done(struct disk_call *call, int result)
{
	struct disk_req *req = disk_req_of(call);

	if (result <= 0) {
		disk_finish(req, result ? result : -EIO);
		return;
	}
	req->dr_left -= (uint64_t)result;
	if (req->dr_left == 0)
		disk_written(req);
	else
		zero_step(req);
}

/* Write them out: as many whole buffers as there may be, or the rest. */
static void zero_step(struct disk_req *req)
{
	struct disk_call *call = &req->dr_call;
	uint64_t nr = req->dr_left / ZERO_BYTES;

	call->op = CALL_WRITE;
	call->off = req->dr_off + (req->dr_len - req->dr_left);
	if (nr > 0) {
		call->iov = zero_iov;
		call->niov = nr < ZERO_IOV ? (int)nr : ZERO_IOV;
	} else {
		req->dr_rest = (struct iovec){ zeroes, req->dr_left };
		call->iov = &req->dr_rest;
		call->niov = 1;
	}
	disk_call_start(req, zero_step_done);
}

static bool refused(int result)
{
	return result == -EOPNOTSUPP || result == -EINVAL;
}

static void zero_range_done(struct disk_call *call, int result)
{
	struct disk_req *req = disk_req_of(call);

	if (result == -EOPNOTSUPP)
		req->dr_disk->img.can_zero_range = false;
	if (refused(result) && req->dr_disk->alone == req)
		disk_bounce(req);
	else if (refused(result))
		zero_step(req);
	else if (result < 0)
		disk_finish(req, result);
	else
		disk_written(req);
}

static void zero_range(struct disk_req *req)
{
	if (req->dr_disk->img.can_zero_range)
		start_fallocate(req, FALLOC_FL_ZERO_RANGE, zero_range_done);
	else
		zero_range_done(&req->dr_call, -EOPNOTSUPP);
}

static void zero_punch_done(struct disk_call *call, int result)
{
	struct disk_req *req = disk_req_of(call);

	if (result == -EOPNOTSUPP)
		req->dr_disk->img.can_punch = false;
	if (refused(result))
		zero_range(req);
	else if (result < 0)
		disk_finish(req, result);
	else
		disk_written(req);
}

void disk_write_zeroes(struct disk_req *req)
{
	if (req->dr_unmap && req->dr_disk->img.can_punch)
		start_fallocate(req, FALLOC_FL_PUNCH_HOLE, zero_punch_done);
	else
		zero_range(req);
}

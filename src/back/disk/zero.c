/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Disk requests: discards, and zeroes, by the first way that the image supports:
 * deallocating, zeroing, or writing zeroes.
 */
#include <errno.h>

#include "back/disk/exec.h"

#define ZERO_BYTES (64u << 10) /* of zeroes that exist, */
#define ZERO_IOV   16          /* this often in one write */

/* What zeroes are written from: never written to itself. */
static char zeroes[ZERO_BYTES] __attribute__((aligned(DISK_PAGE_BYTES)));
static const struct iovec zero_iov[ZERO_IOV] = {
	[0 ... ZERO_IOV - 1] = { zeroes, ZERO_BYTES },
};

static void call_range(struct disk_req *req, enum disk_call_op op,
		       void (*done)(struct disk_call *call, int result))
{
	req->dr_call.op = op;
	req->dr_call.off = req->dr_off;
	req->dr_call.len = req->dr_len;
	exec_call(req, done);
}

static void discard_done(struct disk_call *call, int result)
{
	/* It is a hint. What cannot take it may leave it. */
	exec_end(disk_req_of(call), result == -EOPNOTSUPP ? 0 : result);
}

void exec_discard(struct disk_req *req)
{
	call_range(req, CALL_DISCARD, discard_done);
}

/*
 * --- Write zeroes ---
 */

static void write_zeroes(struct disk_req *req);

static void write_zeroes_done(struct disk_call *call, int result)
{
	struct disk_req *req = disk_req_of(call);

	if (result <= 0) {
		exec_end(req, result ? result : -EIO);
		return;
	}
	exec_wrote(req->dr_exec, call->off + (uint64_t)result);
	req->dr_left -= (uint64_t)result;
	if (req->dr_left == 0)
		exec_written(req);
	else
		write_zeroes(req);
}

/* Write them out: as many whole buffers as there may be, or the rest. */
static void write_zeroes(struct disk_req *req)
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
	exec_call(req, write_zeroes_done);
}

static bool refused(int result)
{
	return result == -EOPNOTSUPP || result == -EINVAL;
}

static void zero_done(struct disk_call *call, int result)
{
	struct disk_req *req = disk_req_of(call);

	if (result == -EOPNOTSUPP)
		req->dr_exec->img.can_zero = false;
	if (refused(result) && req->dr_exclusive)
		exec_bounce(req);
	else if (refused(result))
		write_zeroes(req);
	else if (result < 0)
		exec_end(req, result);
	else
		exec_written(req);
}

static void zero(struct disk_req *req)
{
	if (req->dr_exec->img.can_zero)
		call_range(req, CALL_ZERO, zero_done);
	else
		zero_done(&req->dr_call, -EOPNOTSUPP);
}

static void unmap_done(struct disk_call *call, int result)
{
	struct disk_req *req = disk_req_of(call);

	if (result == -EOPNOTSUPP)
		req->dr_exec->img.can_unmap = false;
	if (refused(result))
		zero(req);
	else if (result < 0)
		exec_end(req, result);
	else
		exec_written(req);
}

void exec_write_zeroes(struct disk_req *req)
{
	if (req->dr_unmap && req->dr_exec->img.can_unmap)
		call_range(req, CALL_UNMAP, unmap_done);
	else
		zero(req);
}

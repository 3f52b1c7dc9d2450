/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Disk requests: reads and writes, until all is transferred. Those that
 * O_DIRECT does not take as they are go through one aligned buffer, as do
 * zeroes that are written beside other bytes of a block.
 */
#include <errno.h>
#include <string.h>
#include <sys/uio.h>

#include "back/disk/exec.h"
#include <viodev/iov.h>

#define MAX_CALL_IOV 1024 /* IOV_MAX */

/*
 * --- Reads and writes ---
 */

/* Where the rest of the request begins. */
static uint64_t rest_off(const struct disk_req *req)
{
	return req->dr_off + (req->dr_len - req->dr_left);
}

/*
 * A read has arrived behind the data, where up to the capacity are zeroes. Both
 * may have become smaller since it began.
 */
static bool is_behind_data(const struct disk_req *req)
{
	const struct disk_info *info = &req->dr_exec->img.info;
	uint64_t off = rest_off(req);

	return req->dr_op == DISK_READ && off >= info->data_bytes &&
	       off + req->dr_left <= info->bytes;
}

/* A call transferred @result bytes. Whether the request has ended with it. */
static bool rw_advance(struct disk_req *req, int result)
{
	struct vio_iov_cursor c = { req->dr_iov, req->dr_niov };
	uint64_t n = (uint64_t)result;

	if (req->dr_op == DISK_WRITE)
		exec_wrote(req->dr_exec, rest_off(req) + n);
	if (n < req->dr_left) {
		vio_iov_skip(&c, n);
		req->dr_iov = c.iov;
		req->dr_niov = c.niov;
		req->dr_left -= n;
		if (!is_behind_data(req))
			return false;
		vio_iov_zero(&c, req->dr_left);
	}
	req->dr_left = 0;
	if (req->dr_op == DISK_READ)
		exec_end(req, 0);
	else
		exec_written(req);
	return true;
}

static void rw_done(struct disk_call *call, int result)
{
	struct disk_req *req = disk_req_of(call);

	if (result == 0 && is_behind_data(req))
		rw_advance(req, 0);
	else if (result <= 0) /* no progress: the file has shrunk */
		exec_end(req, result ? result : -EIO);
	else if (!rw_advance(req, result))
		exec_rw(req);
}

/*
 * What needs no waiting is done here and now, which is several times faster
 * than asking anybody else to. Bytes, or <= 0: ask the engine.
 */
static int rw_now(struct disk_exec *x, struct disk_req *req)
{
	struct disk_call *call = &req->dr_call;

	if (req->dr_left > DISK_ITERATION_BYTES)
		return -EAGAIN;
	if (x->img.in_memory)
		return disk_call_run(call);
	if (!x->img.nowait || call->op != CALL_READ ||
	    x->nr_cached >= x->img.engine->ops->max_inline)
		return -EAGAIN;
	x->nr_cached++;
	return disk_call_read_cached(call);
}

static void rw_set_call(struct disk_req *req)
{
	struct disk_call *call = &req->dr_call;

	call->op = req->dr_op == DISK_READ ? CALL_READ : CALL_WRITE;
	call->iov = req->dr_iov;
	call->niov = req->dr_niov < MAX_CALL_IOV ? req->dr_niov : MAX_CALL_IOV;
	call->off = rest_off(req);
}

void exec_rw(struct disk_req *req)
{
	int ret;

	rw_set_call(req);
	ret = rw_now(req->dr_exec, req);
	if (ret > 0) {
		if (rw_advance(req, ret))
			return;
		rw_set_call(req);
	}
	exec_call(req, rw_done);
}

/*
 * --- Reads and writes that are not aligned ---
 *
 *	            |<-------- DISK_BOUNCE_BYTES at most -------->|
 *	image   ----+----------+----------+----------+-------+--
 *	            off_align  [ the request's bytes    ]
 *	            |<- head ->|
 */

/* The part that the buffer holds next: sets the call, returns its payload. */
static uint64_t bounce_part(struct disk_req *req, uint64_t *ret_head)
{
	const struct disk_exec *x = req->dr_exec;
	uint64_t mask = x->img.off_align - 1;
	uint64_t off = rest_off(req);
	uint64_t head = off & mask;
	uint64_t len = req->dr_left;

	if (len > DISK_BOUNCE_BYTES - head)
		len = DISK_BOUNCE_BYTES - head;
	req->dr_call.off = off - head;
	req->dr_rest.iov_base = x->bounce;
	req->dr_rest.iov_len = (head + len + mask) & ~mask;
	req->dr_call.iov = &req->dr_rest;
	req->dr_call.niov = 1;
	*ret_head = head;
	return len;
}

static void bounce_advance(struct disk_req *req, uint64_t len)
{
	req->dr_left -= len;
	if (req->dr_left)
		exec_bounce(req);
	else if (req->dr_op == DISK_READ)
		exec_end(req, 0);
	else
		exec_written(req);
}

static void bounce_write_done(struct disk_call *call, int result)
{
	struct disk_req *req = disk_req_of(call);
	struct vio_iov_cursor c = { req->dr_iov, req->dr_niov };
	uint64_t head, len = bounce_part(req, &head);

	if (result < 0 || (uint64_t)result <= head) {
		exec_end(req, result < 0 ? result : -EIO);
		return;
	}
	exec_wrote(req->dr_exec, call->off + (uint64_t)result);
	if (len > (uint64_t)result - head)
		len = (uint64_t)result - head;
	vio_iov_skip(&c, len);
	req->dr_iov = c.iov;
	req->dr_niov = c.niov;
	bounce_advance(req, len);
}

/* The buffer holds what was there before, as far as that is kept. */
static void bounce_write(struct disk_req *req)
{
	char *bounce = req->dr_exec->bounce;
	struct vio_iov_cursor c = { req->dr_iov, req->dr_niov };
	uint64_t head, len = bounce_part(req, &head);

	if (req->dr_op == DISK_WRITE)
		vio_iov_peek(&c, bounce + head, len);
	else
		memset(bounce + head, 0, len);
	req->dr_call.op = CALL_WRITE;
	exec_call(req, bounce_write_done);
}

/* The bytes of a read, with the zeroes behind the data. */
static int bounce_complete(const struct disk_req *req, int result)
{
	const struct disk_exec *x = req->dr_exec;
	const struct disk_info *info = &x->img.info;
	uint64_t off = req->dr_call.off;
	size_t len = req->dr_rest.iov_len;

	if (result < 0 || off + (uint64_t)result < info->data_bytes ||
	    off + len > info->bytes)
		return result;
	memset(x->bounce + result, 0, len - (size_t)result);
	return (int)len;
}

static void bounce_read_done(struct disk_call *call, int result)
{
	struct disk_req *req = disk_req_of(call);
	struct vio_iov_cursor c = { req->dr_iov, req->dr_niov };
	uint64_t head, len = bounce_part(req, &head);

	result = bounce_complete(req, result);
	if (result < 0 || (uint64_t)result < head + len) {
		exec_end(req, result < 0 ? result : -EIO);
		return;
	}
	if (req->dr_op != DISK_READ) {
		if ((uint64_t)result == req->dr_rest.iov_len)
			bounce_write(req);
		else
			exec_end(req, -EIO);
		return;
	}
	vio_iov_write(&c, req->dr_exec->bounce + head, len);
	req->dr_iov = c.iov;
	req->dr_niov = c.niov;
	bounce_advance(req, len);
}

void exec_bounce(struct disk_req *req)
{
	uint64_t head, len = bounce_part(req, &head);

	if (req->dr_op != DISK_READ && len == req->dr_rest.iov_len) {
		bounce_write(req); /* nothing around it */
		return;
	}
	req->dr_call.op = CALL_READ;
	exec_call(req, bounce_read_done);
}

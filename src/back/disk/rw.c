/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Disk requests: reads and writes, until all is transferred. Those that
 * O_DIRECT does not take as they are go through one aligned buffer, as do
 * zeroes that are written beside other bytes of a block.
 */
#include <errno.h>
#include <string.h>
#include <sys/uio.h>

#include "back/disk/impl.h"
#include "base/iov.h"

#define MAX_CALL_IOV 1024 /* IOV_MAX */

/*
 * --- Reads and writes ---
 */

/* A call transferred @result bytes. Whether the request has ended with it. */
static bool rw_advance(struct disk_req *req, int result)
{
	struct iov_cursor c = { req->dr_iov, req->dr_niov };
	uint64_t n = (uint64_t)result;

	if (n < req->dr_left) {
		iov_skip(&c, n);
		req->dr_iov = c.iov;
		req->dr_niov = c.niov;
		req->dr_left -= n;
		return false;
	}
	req->dr_left = 0;
	if (req->dr_op == DISK_READ)
		disk_finish(req, 0);
	else
		disk_written(req);
	return true;
}

static void rw_done(struct disk_call *call, int result)
{
	struct disk_req *req = disk_req_of(call);

	if (result <= 0) /* no progress: past the end of the file */
		disk_finish(req, result ? result : -EIO);
	else if (!rw_advance(req, result))
		disk_rw(req);
}

/*
 * What needs no waiting is done here and now, which is several times faster
 * than asking anybody else to. Bytes, or <= 0: ask the engine.
 */
static int rw_now(struct disk *d, struct disk_req *req)
{
	struct disk_call *call = &req->dr_call;
	ssize_t ret;

	if (req->dr_left > DISK_TURN_BYTES)
		return -EAGAIN;
	if (d->img.in_memory)
		return disk_call_run(call);
	if (!d->nowait || call->op != CALL_READ || d->nr_now >= d->ops->max_now)
		return -EAGAIN;
	d->nr_now++;
	ret = preadv2(d->img.fd, call->iov, call->niov, (off_t)call->off,
		      RWF_NOWAIT);
	if (ret < 0 && (errno == EOPNOTSUPP || errno == ENOSYS))
		d->nowait = false;
	return (int)ret;
}

static void rw_set_call(struct disk_req *req)
{
	struct disk_call *call = &req->dr_call;

	call->op = req->dr_op == DISK_READ ? CALL_READ : CALL_WRITE;
	call->iov = req->dr_iov;
	call->niov = req->dr_niov < MAX_CALL_IOV ? req->dr_niov : MAX_CALL_IOV;
	call->off = req->dr_off + (req->dr_len - req->dr_left);
}

void disk_rw(struct disk_req *req)
{
	int ret;

	rw_set_call(req);
	ret = rw_now(req->dr_disk, req);
	if (ret > 0) {
		if (rw_advance(req, ret))
			return;
		rw_set_call(req);
	}
	disk_call_start(req, rw_done);
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
	const struct disk *d = req->dr_disk;
	uint64_t mask = d->img.off_align - 1;
	uint64_t off = req->dr_off + (req->dr_len - req->dr_left);
	uint64_t head = off & mask;
	uint64_t len = req->dr_left;

	if (len > DISK_BOUNCE_BYTES - head)
		len = DISK_BOUNCE_BYTES - head;
	req->dr_call.off = off - head;
	req->dr_rest.iov_base = d->bounce;
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
		disk_bounce(req);
	else if (req->dr_op == DISK_READ)
		disk_finish(req, 0);
	else
		disk_written(req);
}

static void bounce_write_done(struct disk_call *call, int result)
{
	struct disk_req *req = disk_req_of(call);
	struct iov_cursor c = { req->dr_iov, req->dr_niov };
	uint64_t head, len = bounce_part(req, &head);

	if (result < 0 || (uint64_t)result <= head) {
		disk_finish(req, result < 0 ? result : -EIO);
		return;
	}
	if (len > (uint64_t)result - head)
		len = (uint64_t)result - head;
	iov_skip(&c, len);
	req->dr_iov = c.iov;
	req->dr_niov = c.niov;
	bounce_advance(req, len);
}

/* The buffer holds what was there before, as far as that is kept. */
static void bounce_write(struct disk_req *req)
{
	char *bounce = req->dr_disk->bounce;
	struct iov_cursor c = { req->dr_iov, req->dr_niov };
	uint64_t head, len = bounce_part(req, &head);

	if (req->dr_op == DISK_WRITE)
		iov_peek(&c, bounce + head, len);
	else
		memset(bounce + head, 0, len);
	req->dr_call.op = CALL_WRITE;
	disk_call_start(req, bounce_write_done);
}

static void bounce_read_done(struct disk_call *call, int result)
{
	struct disk_req *req = disk_req_of(call);
	struct iov_cursor c = { req->dr_iov, req->dr_niov };
	uint64_t head, len = bounce_part(req, &head);

	/* The capacity is whole blocks, so a block is there or it is not. */
	if (result < 0 || (uint64_t)result < head + len) {
		disk_finish(req, result < 0 ? result : -EIO);
		return;
	}
	if (req->dr_op != DISK_READ) {
		if ((uint64_t)result == req->dr_rest.iov_len)
			bounce_write(req);
		else
			disk_finish(req, -EIO);
		return;
	}
	iov_put(&c, req->dr_disk->bounce + head, len);
	req->dr_iov = c.iov;
	req->dr_niov = c.niov;
	bounce_advance(req, len);
}

void disk_bounce(struct disk_req *req)
{
	uint64_t head, len = bounce_part(req, &head);

	if (req->dr_op != DISK_READ && len == req->dr_rest.iov_len) {
		bounce_write(req); /* nothing around it */
		return;
	}
	req->dr_call.op = CALL_READ;
	disk_call_start(req, bounce_read_done);
}

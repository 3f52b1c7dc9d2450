/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A logical unit that is a real device: the guest's commands go to /dev/sgN as
 * they are, data straight between the device and the guest's buffers.
 *
 * SG_IO waits for the command, so threads of a pool call it. (The sg driver's
 * asynchronous interface is only for the process that opened the device, by
 * credentials, and ours is another one.)
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <scsi/sg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/pool.h"
#include "base/util.h"
#include "dev/scsi/scsi.h"

#define NR_THREADS    4  /* before others are busy */
#define MAX_THREADS   16 /* commands that the sg driver takes from a file */
#define SG_NO_TIMEOUT UINT32_MAX
#define END_MS        500 /* for commands to end, at the end */

static_assert(sizeof(struct sg_iovec) == sizeof(struct iovec) &&
		      offsetof(struct sg_iovec, iov_len) ==
			      offsetof(struct iovec, iov_len),
	      "the guest's buffers are handed on as they are");

struct passthrough {
	int fd;
	bool ro;
	struct pool *pool;
	unsigned nr_inflight; /* given to the pool */
	/*
	 * The number of these without an owner. Until they have ended,
	 * others are held back: no old write may follow a new one.
	 */
	unsigned nr_stale;
	struct scsi_task *waiting, **waiting_end; /* by next_waiting */
	bool ending;
};

static int sg_io(int fd, struct sg_io_hdr *hdr)
{
	return ioctl(fd, SG_IO, hdr) < 0 ? -errno : 0;
}

int (*pt_sg_io)(int fd, struct sg_io_hdr *hdr) = sg_io;

/*
 * --- One command ---
 */

/* SPC-4 4.2.5.1; 0 for vendors' codes, which have any length. */
static uint8_t cdb_len(const uint8_t *cdb)
{
	static const uint8_t by_group[8] = { 6, 10, 10, 0, 16, 12, 0, 0 };

	return by_group[cdb[0] >> 5];
}

/* What the kernel's host codes (scsi/scsi_status.h) are to virtio. */
static uint8_t response_of(unsigned host_status)
{
	switch (host_status) {
	case 0x00: /* DID_OK */
		return VIRTIO_SCSI_S_OK;
	case 0x01: /* NO_CONNECT */
	case 0x04: /* BAD_TARGET */
		return VIRTIO_SCSI_S_BAD_TARGET;
	case 0x02: /* BUS_BUSY */
	case 0x0c: /* IMM_RETRY */
	case 0x0d: /* REQUEUE */
		return VIRTIO_SCSI_S_BUSY;
	case 0x05: /* ABORT */
		return VIRTIO_SCSI_S_ABORTED;
	case 0x08: /* RESET */
		return VIRTIO_SCSI_S_RESET;
	case 0x0e: /* TRANSPORT_DISRUPTED */
	case 0x0f: /* TRANSPORT_FAILFAST */
		return VIRTIO_SCSI_S_TRANSPORT_FAILURE;
	case 0x10: /* TARGET_FAILURE */
		return VIRTIO_SCSI_S_TARGET_FAILURE;
	case 0x11: /* NEXUS_FAILURE */
		return VIRTIO_SCSI_S_NEXUS_FAILURE;
	default:
		return VIRTIO_SCSI_S_FAILURE;
	}
}

/*
 * What changes neither the medium nor how the device works, of disks, CDs and
 * tapes alike. The kernel has a list as well, but spares root, and lets through
 * more. Opcodes that write on one type of device and read on another are left
 * out: 42h is READ SUB-CHANNEL and UNMAP.
 */
static bool only_reads(const struct scsi_task *t)
{
	static const uint8_t
		opcodes[] = {
			0x00, 0x03, /* TEST UNIT READY, REQUEST SENSE */
			0x01, 0x05,
			0x11, /* REWIND, READ BLOCK LIMITS, SPACE */
			0x08, 0x28,
			0x88, 0xa8, /* READ */
			0x12, 0x1a,
			0x5a, 0x4d, /* INQUIRY, MODE SENSE, LOG SENSE */
			0x1b, 0x1e, /* START STOP UNIT, PREVENT ALLOW REMOVAL */
			0x23, 0x25, /* READ FORMAT CAPACITIES, READ CAPACITY */
			0x2b, 0x34,
			0x90, /* SEEK, PRE-FETCH */
			0x2f, 0x8f,
			0xaf,       /* VERIFY */
			0x35, 0x91, /* SYNCHRONIZE CACHE */
			0x37, 0xb7,
			0x3c, /* READ DEFECT DATA, READ BUFFER */
			0x43, 0x44,
			0x46, /* READ TOC, READ HEADER, GET CONFIGURATION */
			0x4a, 0xbd, /* GET EVENT STATUS, MECHANISM STATUS */
			0x51, 0x52,
			0xad, /* READ DISC, TRACK INFORMATION, STRUCTURE */
			0x5c, 0xb9,
			0xbe,       /* READ BUFFER CAPACITY, READ CD (MSF) */
			0x5e, 0xa0, /* PERSISTENT RESERVE IN, REPORT LUNS */
			0x95, 0x9e,
			0xa3, /* ZBC IN, SERVICE ACTION IN, MAINTENANCE IN */
		};
	uint8_t opcode = t->cdb.b[0];
	bool verifies = opcode == 0x2f || opcode == 0x8f || opcode == 0xaf;

	return memchr(opcodes, opcode, sizeof(opcodes)) &&
	       (t->out_len == 0 || verifies);
}

/* MODE SENSE of a device that could be written: set WP, SPC-4 7.5.5. */
static void protect(struct scsi_task *t)
{
	bool ten = t->cdb.b[0] == 0x5a;
	struct vio_iov_cursor c = t->data;
	size_t at = ten ? 3 : 2;
	uint8_t byte = 0;

	if ((t->cdb.b[0] != 0x1a && !ten) || t->transferred <= at)
		return;
	vio_iov_skip(&c, at);
	if (vio_iov_peek(&c, &byte, 1) < 1)
		return;
	byte |= 0x80;
	vio_iov_write(&c, &byte, 1);
}

/* On a thread of the pool, which alone uses the task now. */
static void job_run(void *arg, struct pool_job *job)
{
	const struct passthrough *pt = arg;
	struct scsi_task *t = container_of(job, struct scsi_task, job);
	uint64_t len = t->in_len + t->out_len;
	struct sg_io_hdr hdr = {
		.interface_id = 'S',
		.dxfer_direction = t->in_len  ? SG_DXFER_FROM_DEV :
				   t->out_len ? SG_DXFER_TO_DEV :
						SG_DXFER_NONE,
		.cmd_len = cdb_len(t->cdb.b),
		.cmdp = t->cdb.b,
		.mx_sb_len = sizeof(t->raw_sense),
		.sbp = t->raw_sense,
		.dxfer_len = (unsigned)len,
		.timeout = SG_NO_TIMEOUT,
	};
	int ret;

	if (len > 0) {
		hdr.dxferp = t->data.iov;
		hdr.iovec_count = (unsigned short)t->data.niov;
	}
	ret = pt_sg_io(pt->fd, &hdr);
	if (ret == -EPERM) { /* a command for who may access raw I/O */
		t->status = STATUS_CHECK_CONDITION;
		t->sense.code = SC_INVALID_OPCODE;
		return;
	}
	if (ret < 0) {
		t->response = ret == -EBUSY || ret == -EAGAIN ?
				      VIRTIO_SCSI_S_BUSY :
			      ret == -ENODEV ? VIRTIO_SCSI_S_BAD_TARGET :
					       VIRTIO_SCSI_S_FAILURE;
		return;
	}
	t->response = response_of(hdr.host_status);
	t->status = hdr.status;
	if (hdr.sb_len_wr <= sizeof(t->raw_sense))
		t->raw_sense_len = hdr.sb_len_wr;
	t->transferred = len;
	if (hdr.resid > 0)
		t->transferred -=
			(uint64_t)hdr.resid < len ? (uint64_t)hdr.resid : len;
	if (pt->ro)
		protect(t);
}

static void start(struct passthrough *pt, struct scsi_task *t)
{
	pt->nr_inflight++;
	pool_start(pt->pool, &t->job);
}

static void enqueue(struct passthrough *pt, struct scsi_task *t)
{
	t->next_waiting = NULL;
	*pt->waiting_end = t;
	pt->waiting_end = &t->next_waiting;
}

static bool dequeue(struct passthrough *pt, struct scsi_task *t)
{
	struct scsi_task **link = &pt->waiting;

	while (*link && *link != t)
		link = &(*link)->next_waiting;
	if (!*link)
		return false;
	*link = t->next_waiting;
	if (pt->waiting_end == &t->next_waiting)
		pt->waiting_end = link;
	return true;
}

static void start_waiting(struct passthrough *pt)
{
	struct scsi_task *t;

	while ((t = pt->waiting)) {
		dequeue(pt, t);
		start(pt, t);
	}
}

static void job_done(void *arg, struct pool_job *job)
{
	struct passthrough *pt = arg;

	pt->nr_inflight--;
	if (pt->ending)
		return;
	if (pt->nr_stale > 0 && --pt->nr_stale == 0)
		start_waiting(pt);
	task_finish(container_of(job, struct scsi_task, job));
}

static const struct pool_ops jobs = {
	.run = job_run,
	.done = job_done,
};

/*
 * --- The unit's side ---
 */

void pt_start(struct passthrough *pt, struct scsi_task *t)
{
	if (cdb_len(t->cdb.b) == 0) {
		task_check(t, SC_INVALID_OPCODE);
		return;
	}
	if (pt->ro && !only_reads(t)) {
		task_check(t, SC_WRITE_PROTECTED);
		return;
	}
	limit_charge(t->lun, 0, t->in_len + t->out_len);
	if (pt->nr_stale > 0)
		enqueue(pt, t);
	else
		start(pt, t);
}

bool pt_cancel(struct passthrough *pt, struct scsi_task *t)
{
	if (dequeue(pt, t))
		return true;
	if (!pool_cancel(pt->pool, &t->job))
		return false;
	pt->nr_inflight--;
	return true;
}

void pt_hold(struct passthrough *pt)
{
	pt->nr_stale = pt->nr_inflight;
}

/*
 * --- Create and destroy ---
 */

int pt_open(const char *path, bool ro, struct err *err)
{
	int flags = (ro ? O_RDONLY : O_RDWR) | O_NONBLOCK | O_CLOEXEC;
	int fd = open(path, flags), version;

	if (fd < 0)
		return err_set(err, -errno, "%s: %s", path, strerror(errno));
	if (ioctl(fd, SG_GET_VERSION_NUM, &version) < 0 || version < 30000) {
		close(fd);
		return err_set(err, -EINVAL, "%s: not a SCSI generic device",
			       path);
	}
	return fd;
}

bool pt_destroy(struct passthrough *pt)
{
	if (!pt)
		return true;
	pt->ending = true;
	if (pt->pool && !pool_finish(pt->pool, END_MS))
		return false;
	if (pt->fd >= 0)
		close(pt->fd);
	free(pt);
	return true;
}

int pt_create(struct vio_loop *loop, int take_fd, bool ro,
	      struct passthrough **ret_pt)
{
	struct passthrough *pt = calloc(1, sizeof(*pt));
	int ret;

	if (!pt)
		return -ENOMEM;
	pt->fd = take_fd;
	pt->ro = ro;
	pt->waiting_end = &pt->waiting;
	ret = pool_create(loop, NR_THREADS, &jobs, pt, &pt->pool);
	if (ret < 0) {
		pt_destroy(pt);
		return ret;
	}
	pool_may_grow(pt->pool, MAX_THREADS);
	*ret_pt = pt;
	return 0;
}

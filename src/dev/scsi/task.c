/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Task sets (SAM-5 8): when a command may run, and how one ends.
 *
 *	first                                            last
 *	[head of queue] [active] [active] [FENCE] [waiting] [waiting]
 *
 * A fence is a command with the ORDERED attribute, or one that must be alone
 * because what it does takes several steps (COMPARE AND WRITE). It begins when
 * everything in front of it is done, and later commands wait. A command
 * with the HEAD OF QUEUE attribute goes to the front and waits for nothing but
 * one that is alone; INQUIRY and its like (CDB_AT_ONCE) not even for that.
 */
#include <errno.h>

#include "base/util.h"
#include "dev/scsi/scsi.h"

/*
 * --- Whose turn it is ---
 */

static void insert(struct scsi_lun *lun, struct scsi_task *t, bool at_front)
{
	t->prev = at_front ? NULL : lun->last;
	t->next = at_front ? lun->first : NULL;
	if (t->prev)
		t->prev->next = t;
	else
		lun->first = t;
	if (t->next)
		t->next->prev = t;
	else
		lun->last = t;
}

static void unlink_task(struct scsi_lun *lun, struct scsi_task *t)
{
	if (t->prev)
		t->prev->next = t->next;
	else
		lun->first = t->next;
	if (t->next)
		t->next->prev = t->prev;
	else
		lun->last = t->prev;
}

bool task_live(const struct scsi_task *t)
{
	return vq_chain_live(t->q->vq, (uint16_t)t->idx);
}

static void activate(struct scsi_task *t)
{
	t->active = true;
	if (!(t->cdb.def->flags & CDB_AT_ONCE))
		limit_charge(t->lun, 1, 0);
	if (t->cdb.def->flags & CDB_ALONE)
		t->lun->exclusive = t;
	if (task_live(t))
		task_begin(t);
	else
		task_finish(t);
}

/* The first that may begin now, or NULL. */
static struct scsi_task *next_ready(struct scsi_lun *lun)
{
	if (lun->exclusive)
		return NULL;
	for (struct scsi_task *t = lun->first; t; t = t->next) {
		if (!t->active)
			return !t->fence || t == lun->first ? t : NULL;
		if (t->fence)
			break;
	}
	return NULL;
}

/* Commands may end as they begin, so this calls itself: do it in a loop. */
void task_schedule(struct scsi_lun *lun)
{
	struct scsi_task *t;

	if (lun->scheduling)
		return;
	lun->scheduling = true;
	while (lun->nr_waiting > 0 && limit_allows(lun) &&
	       (t = next_ready(lun))) {
		lun->nr_waiting--;
		activate(t);
	}
	lun->scheduling = false;
}

void task_submit(struct scsi_task *t)
{
	struct scsi_lun *lun = t->lun;
	bool at_once = t->cdb.def->flags & CDB_AT_ONCE;

	t->active = false;
	t->fence = (t->cdb.def->flags & CDB_ALONE) ||
		   (t->attr == VIRTIO_SCSI_S_ORDERED && !at_once);
	insert(lun, t, at_once || t->attr == VIRTIO_SCSI_S_HEAD);
	if (t->fence)
		lun->nr_fences++;
	if (at_once || (lun->nr_fences == 0 && lun->nr_waiting == 0 &&
			limit_allows(lun))) {
		activate(t);
		return;
	}
	lun->nr_waiting++;
	task_schedule(lun);
}

void task_leave(struct scsi_task *t)
{
	struct scsi_lun *lun = t->lun;

	unlink_task(lun, t);
	if (lun->exclusive == t)
		lun->exclusive = NULL;
	if (t->fence)
		lun->nr_fences--;
	if (!t->active)
		lun->nr_waiting--;
	if (lun->nr_waiting > 0)
		task_schedule(lun);
}

/*
 * --- Aborting ---
 */

/*
 * A command that has begun cannot be called back from the kernel: it ends when
 * its request does, without another step.
 */
void task_abort(struct scsi_task *t, uint8_t response)
{
	t->lun->nr_aborts += !t->aborted;
	t->aborted = true;
	t->abort_response = response;
	if (!t->active || (t->lun->pt && pt_cancel(t->lun->pt, t)))
		task_finish(t);
}

void tasks_forget(struct scsi_lun *lun, uint8_t response)
{
	struct scsi_task *t, *next;

	/* None of those behind may begin while those in front end. */
	lun->scheduling = true;
	for (t = lun->first; t; t = next) {
		next = t->next;
		task_abort(t, response);
	}
	lun->scheduling = false;
	if (lun->pt)
		pt_hold(lun->pt);
	else if (lun->disk)
		disk_forget(lun->disk);
}

bool task_finish_aborted(struct scsi_task *t)
{
	if (!t->aborted && task_live(t))
		return false;
	task_finish(t);
	return true;
}

/*
 * --- Steps ---
 */

/*
 * A request that is done before disk_start() returns must not nest: a command
 * of a million steps would use up the stack.
 */
static void run_steps(struct scsi_task *t)
{
	do {
		t->step_pending = false;
		t->in_step = true;
		t->step(t, t->result);
		t->in_step = false;
	} while (t->step_pending);
}

void task_run(struct scsi_task *t, task_step *step)
{
	t->step = step;
	t->result = 0;
	run_steps(t);
}

static void disk_done(struct disk_req *req, int result)
{
	struct scsi_task *t = container_of(req, struct scsi_task, req);

	t->result = result;
	if (task_finish_aborted(t))
		return;
	if (t->in_step)
		t->step_pending = true;
	else
		run_steps(t);
}

void task_disk(struct scsi_task *t, enum disk_op op, uint64_t lba,
	       uint64_t nr_blocks, task_step *step)
{
	struct scsi_lun *lun = t->lun;

	t->step = step;
	t->req.dr_op = op;
	t->req.dr_off = lba * lun->block_bytes;
	t->req.dr_len = nr_blocks * lun->block_bytes;
	t->req.dr_done = disk_done;
	if (op == DISK_READ || op == DISK_WRITE)
		limit_charge(lun, 0, t->req.dr_len);
	disk_start(lun->disk, &t->req);
}

/*
 * --- Ends ---
 */

void task_status(struct scsi_task *t, uint8_t status)
{
	t->status = status;
	task_finish(t);
}

void task_good(struct scsi_task *t)
{
	task_status(t, STATUS_GOOD);
}

void task_disk_done(struct scsi_task *t, int result)
{
	if (result < 0)
		task_disk_failed(t, result);
	else
		task_good(t);
}

void task_check(struct scsi_task *t, uint32_t code)
{
	t->sense.code = code;
	t->lun->nr_errors++;
	task_status(t, STATUS_CHECK_CONDITION);
}

void task_check_info(struct scsi_task *t, uint32_t code, uint64_t info)
{
	t->sense.has_info = true;
	t->sense.info = info;
	task_check(t, code);
}

void task_bad_cdb(struct scsi_task *t, unsigned byte, unsigned bit)
{
	t->sense.has_field = true;
	t->sense.in_cdb = true;
	t->sense.byte = (uint16_t)byte;
	t->sense.bit = (uint8_t)bit;
	task_check(t, SC_INVALID_CDB_FIELD);
}

void task_bad_list(struct scsi_task *t, unsigned byte)
{
	t->sense.has_field = true;
	t->sense.byte = (uint16_t)byte;
	t->sense.bit = 8;
	task_check(t, SC_INVALID_LIST_FIELD);
}

void task_disk_failed(struct scsi_task *t, int result)
{
	bool write = t->req.dr_op != DISK_READ;

	switch (result) {
	case -ENOSPC:
	case -EDQUOT:
	case -EFBIG:
		task_check(t, SC_NO_SPACE);
		break;
	case -EROFS:
		task_check(t, SC_WRITE_PROTECTED);
		break;
	case -ERANGE: /* the image shrank */
		task_check(t, SC_LBA_RANGE);
		break;
	case -EIO:
	case -ENODATA:
	case -EILSEQ:
	case -EREMOTEIO:
		task_check_info(t, write ? SC_WRITE_ERROR : SC_READ_ERROR,
				t->req.dr_off / t->lun->block_bytes);
		break;
	case -ECANCELED: /* to be sent again */
		task_status(t, STATUS_BUSY);
		break;
	default:
		task_check(t, SC_TARGET_FAILURE);
	}
}

static bool overrun(struct scsi_task *t)
{
	t->response = VIRTIO_SCSI_S_OVERRUN;
	task_finish(t);
	return false;
}

bool task_has_in(struct scsi_task *t, uint64_t bytes)
{
	return bytes <= t->in_len || overrun(t);
}

bool task_has_out(struct scsi_task *t, uint64_t bytes)
{
	return bytes <= t->out_len || overrun(t);
}

void task_reply(struct scsi_task *t, const struct reply *r)
{
	size_t len = r->len < t->cdb.nr ? r->len : t->cdb.nr;

	t->transferred = vio_iov_write(&t->data, r->b, len);
	task_good(t);
}

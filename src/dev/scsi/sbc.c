/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Disk commands that move or look at data (SBC-3). READ and WRITE hand the
 * driver's buffers to the storage engine; those that compare go through the
 * LUN's two buffers, a piece at a time, alone.
 */
#include "dev/scsi/scsi.h"

/* SBC-3 5.2: a range may end where the medium does, even an empty one. */
bool sbc_in_range(struct scsi_task *t, uint64_t lba, uint64_t nr)
{
	uint64_t nr_blocks = t->lun->nr_blocks;

	if (lba <= nr_blocks && nr <= nr_blocks - lba)
		return true;
	task_check_info(t, SC_LBA_RANGE, lba < nr_blocks ? nr_blocks : lba);
	return false;
}

static uint64_t block_len(const struct scsi_task *t, uint64_t nr)
{
	return nr * t->lun->block_bytes;
}

/*
 * --- READ, WRITE ---
 */

/* Shorten what is left to @len bytes, which there are. */
static void iov_limit(struct vio_iov_cursor *c, uint64_t len)
{
	int i = 0;

	for (; i < c->niov && len > 0; i++) {
		if (c->iov[i].iov_len > len)
			c->iov[i].iov_len = (size_t)len;
		len -= c->iov[i].iov_len;
	}
	c->niov = i;
}

static void rw_done(struct scsi_task *t, int result)
{
	if (result < 0) {
		task_disk_failed(t, result);
		return;
	}
	t->transferred = t->req.dr_len;
	task_good(t);
}

static void start_rw(struct scsi_task *t, enum disk_op op)
{
	if (t->cdb.nr == 0) {
		task_good(t);
		return;
	}
	iov_limit(&t->data, block_len(t, t->cdb.nr));
	t->req.dr_iov = t->data.iov;
	t->req.dr_niov = t->data.niov;
	task_disk(t, op, t->cdb.lba, t->cdb.nr, rw_done);
}

void sbc_read(struct scsi_task *t)
{
	if (!sbc_in_range(t, t->cdb.lba, t->cdb.nr) ||
	    !task_has_in(t, block_len(t, t->cdb.nr)))
		return;
	t->lun->nr_reads++;
	t->lun->read_bytes += block_len(t, t->cdb.nr);
	start_rw(t, DISK_READ);
}

/* The six byte command has no FUA; without a write cache all are. */
static bool wants_fua(const struct scsi_task *t)
{
	return !t->lun->wce || (t->cdb.def->len > 6 && (t->cdb.b[1] & 0x08));
}

void sbc_write(struct scsi_task *t)
{
	if (!sbc_in_range(t, t->cdb.lba, t->cdb.nr) ||
	    !task_has_out(t, block_len(t, t->cdb.nr)))
		return;
	t->lun->nr_writes++;
	t->lun->written_bytes += block_len(t, t->cdb.nr);
	t->req.dr_fua = wants_fua(t);
	start_rw(t, DISK_WRITE);
}

/*
 * --- Through the buffers ---
 */

static uint64_t piece(const struct scsi_task *t)
{
	uint64_t max = SCSI_WORK_BYTES / t->lun->block_bytes;

	return t->left < max ? t->left : max;
}

static void work_disk(struct scsi_task *t, enum disk_op op, uint8_t *buf,
		      task_step *step)
{
	uint64_t nr = piece(t);

	t->work_iov = (struct iovec){ buf, block_len(t, nr) };
	t->req.dr_iov = &t->work_iov;
	t->req.dr_niov = 1;
	task_disk(t, op, t->lba, nr, step);
}

static void work_advance(struct scsi_task *t)
{
	uint64_t nr = piece(t);

	t->lba += nr;
	t->left -= nr;
}

/*
 * Take the next @len bytes of the data out and compare them with @buf. True
 * when they are the same, else where the first differs.
 */
static bool same(struct scsi_task *t, const uint8_t *buf, size_t len,
		 size_t *ret_at)
{
	uint8_t theirs[512];

	for (size_t at = 0; at < len;) {
		size_t n =
			len - at < sizeof(theirs) ? len - at : sizeof(theirs);

		vio_iov_take(&t->data, theirs, n);
		for (size_t i = 0; i < n; i++) {
			if (theirs[i] != buf[at + i]) {
				*ret_at = at + i;
				return false;
			}
		}
		at += n;
	}
	return true;
}

/*
 * --- VERIFY ---
 *
 * BYTCHK 0: the blocks can be read; 1: they are what the data out says; 3: each
 * is what the one block of data out says, which work2 holds.
 */

static unsigned bytchk(const struct scsi_task *t)
{
	return t->cdb.b[1] >> 1 & 3;
}

static void verify_step(struct scsi_task *t, int result);

static bool verify_piece(struct scsi_task *t, size_t *ret_at)
{
	const struct scsi_lun *lun = t->lun;
	size_t block = lun->block_bytes, len = block_len(t, piece(t));

	if (bytchk(t) == 0)
		return true;
	if (bytchk(t) == 1)
		return same(t, lun->work, len, ret_at);
	for (size_t at = 0; at < len; at += block) {
		if (memcmp(lun->work + at, lun->work2, block) == 0)
			continue;
		for (*ret_at = at;
		     lun->work[*ret_at] == lun->work2[*ret_at - at];)
			++*ret_at;
		return false;
	}
	return true;
}

static void verify_read(struct scsi_task *t, int result)
{
	size_t at = 0;

	if (result < 0) {
		task_disk_failed(t, result);
		return;
	}
	if (!verify_piece(t, &at)) {
		uint64_t before = block_len(t, t->lba - t->cdb.lba);

		task_check_info(t, SC_MISCOMPARE, before + at);
		return;
	}
	work_advance(t);
	verify_step(t, 0);
}

static void verify_step(struct scsi_task *t, int result)
{
	if (t->left == 0)
		task_good(t);
	else
		work_disk(t, DISK_READ, t->lun->work, verify_read);
}

void sbc_verify(struct scsi_task *t)
{
	uint64_t blocks_out = bytchk(t) == 1 ? t->cdb.nr :
			      bytchk(t) == 3 ? t->cdb.nr > 0 :
					       0;

	if (bytchk(t) == 2) {
		task_bad_cdb(t, 1, 2);
		return;
	}
	if (!sbc_in_range(t, t->cdb.lba, t->cdb.nr) ||
	    !task_has_out(t, block_len(t, blocks_out)))
		return;
	if (bytchk(t) == 3)
		vio_iov_take(&t->data, t->lun->work2, block_len(t, blocks_out));
	t->transferred = block_len(t, blocks_out);
	t->lba = t->cdb.lba;
	t->left = t->cdb.nr;
	task_run(t, verify_step);
}

/*
 * --- WRITE AND VERIFY: each piece to the medium, and read back from it ---
 */

static void write_verify_step(struct scsi_task *t, int result);

static void write_verify_read(struct scsi_task *t, int result)
{
	const struct scsi_lun *lun = t->lun;

	if (result < 0) {
		task_disk_failed(t, result);
		return;
	}
	if (memcmp(lun->work, lun->work2, block_len(t, piece(t))) != 0) {
		task_check_info(t, SC_MISCOMPARE,
				block_len(t, t->lba - t->cdb.lba));
		return;
	}
	work_advance(t);
	write_verify_step(t, 0);
}

static void write_verify_written(struct scsi_task *t, int result)
{
	if (result < 0)
		task_disk_failed(t, result);
	else
		work_disk(t, DISK_READ, t->lun->work2, write_verify_read);
}

static void write_verify_step(struct scsi_task *t, int result)
{
	if (t->left == 0) {
		task_good(t);
		return;
	}
	vio_iov_take(&t->data, t->lun->work, block_len(t, piece(t)));
	t->req.dr_fua = true;
	work_disk(t, DISK_WRITE, t->lun->work, write_verify_written);
}

void sbc_write_verify(struct scsi_task *t)
{
	if (bytchk(t) > 1) {
		task_bad_cdb(t, 1, 2);
		return;
	}
	if (!sbc_in_range(t, t->cdb.lba, t->cdb.nr) ||
	    !task_has_out(t, block_len(t, t->cdb.nr)))
		return;
	t->lun->nr_writes++;
	t->lun->written_bytes += block_len(t, t->cdb.nr);
	t->transferred = block_len(t, t->cdb.nr);
	t->lba = t->cdb.lba;
	t->left = t->cdb.nr;
	task_run(t, write_verify_step);
}

/*
 * --- COMPARE AND WRITE ---
 *
 * First the data to compare with, then as much to write.
 */

static void compare_read(struct scsi_task *t, int result)
{
	struct scsi_lun *lun = t->lun;
	size_t len = block_len(t, t->cdb.nr), at;

	if (result < 0) {
		task_disk_failed(t, result);
		return;
	}
	if (!same(t, lun->work, len, &at)) {
		task_check_info(t, SC_MISCOMPARE, at);
		return;
	}
	iov_limit(&t->data, len);
	t->req.dr_iov = t->data.iov;
	t->req.dr_niov = t->data.niov;
	t->req.dr_fua = wants_fua(t);
	task_disk(t, DISK_WRITE, t->cdb.lba, t->cdb.nr, task_disk_done);
}

void sbc_compare_write(struct scsi_task *t)
{
	uint64_t len = block_len(t, t->cdb.nr);

	if (len > SCSI_WORK_BYTES) {
		task_bad_cdb(t, 13, 8);
		return;
	}
	if (!sbc_in_range(t, t->cdb.lba, t->cdb.nr) ||
	    !task_has_out(t, 2 * len))
		return;
	if (t->cdb.nr == 0) {
		task_good(t);
		return;
	}
	t->lun->nr_writes++;
	t->lun->written_bytes += len;
	t->transferred = 2 * len;
	t->lba = t->cdb.lba;
	t->left = t->cdb.nr;
	work_disk(t, DISK_READ, t->lun->work, compare_read);
}

/*
 * --- The medium ---
 */

/* IMMED is a permission that is not used: done is done. */
void sbc_sync_cache(struct scsi_task *t)
{
	if (!sbc_in_range(t, t->cdb.lba, t->cdb.nr))
		return;
	if (t->lun->ro)
		task_good(t);
	else
		task_disk(t, DISK_FLUSH, 0, 0, task_disk_done);
}

void sbc_seek(struct scsi_task *t)
{
	if (sbc_in_range(t, t->cdb.lba, t->cdb.nr))
		task_good(t);
}

/* All blocks read as zeroes afterwards. No defect lists, no protection. */
void sbc_format(struct scsi_task *t)
{
	bool fmtdata = t->cdb.b[1] & 0x10, longlist = t->cdb.b[1] & 0x20;
	uint8_t list[8] = { 0 };
	size_t len = longlist ? 8 : 4;

	if (fmtdata) {
		if (!task_has_out(t, len))
			return;
		t->transferred = vio_iov_take(&t->data, list, len);
		/* Protection, initialization pattern, defects: none. */
		if ((list[0] & 0x07) || (list[1] & 0x08) ||
		    read_be(list + (longlist ? 4 : 2), longlist ? 4 : 2)) {
			task_bad_list(t, 1);
			return;
		}
	}
	t->req.dr_unmap = t->lun->thin;
	t->req.dr_fua = !t->lun->wce;
	task_disk(t, DISK_WRITE_ZEROES, 0, t->lun->nr_blocks, task_disk_done);
}

/* PMI asks about delays behind an LBA: there are none up to the end. */
void sbc_read_capacity10(struct scsi_task *t)
{
	uint64_t last = t->lun->nr_blocks - 1;
	struct reply r;

	if (!(t->cdb.b[8] & 1) && t->cdb.lba != 0) {
		task_bad_cdb(t, 2, 8);
		return;
	}
	if (!task_has_in(t, 8))
		return;
	reply_init(&r);
	reply_write(&r, last > UINT32_MAX ? UINT32_MAX : last, 4);
	reply_write(&r, t->lun->block_bytes, 4);
	t->cdb.nr = 8;
	task_reply(t, &r);
}

void sbc_read_capacity16(struct scsi_task *t)
{
	const struct scsi_lun *lun = t->lun;
	uint32_t per_phys = lun->phys_block_bytes / lun->block_bytes;
	struct reply r;

	if (!(t->cdb.b[14] & 1) && t->cdb.lba != 0) {
		task_bad_cdb(t, 2, 8);
		return;
	}
	reply_init(&r);
	reply_write(&r, lun->nr_blocks - 1, 8);
	reply_write(&r, lun->block_bytes, 4);
	reply_write(&r, 0, 1); /* no protection */
	reply_write(&r, (uint64_t)__builtin_ctz(per_phys), 1);
	/* LBPME, LBPRZ; lowest aligned LBA 0 */
	reply_write(&r,
		    (lun->thin ? 0x8000 : 0) |
			    (lun->thin && lun->zeroes ? 0x4000 : 0),
		    2);
	reply_add(&r, 16);
	task_reply(t, &r);
}

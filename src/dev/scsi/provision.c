/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Disk commands about what is allocated (SBC-3 4.7): WRITE SAME, UNMAP, GET
 * LBA STATUS.
 */
#include <errno.h>
#include <unistd.h>

#include "dev/scsi/scsi.h"

#define UNMAP_MAX_DESCS  256
#define STATUS_MAX_DESCS 32

/*
 * --- WRITE SAME ---
 */

enum {
	WS_NDOB = 0x01, /* no data out: zeroes */
	WS_UNMAP = 0x08,
};

static void same_step(struct scsi_task *t, int result);

/* Fill the work buffer once; it is written as often as it takes. */
static void same_begin(struct scsi_task *t)
{
	const struct scsi_lun *lun = t->lun;
	size_t block = lun->block_bytes;

	for (size_t at = block; at < SCSI_WORK_BYTES; at += block)
		memcpy(lun->work + at, lun->work, block);
	t->lba = t->cdb.lba;
	t->req.dr_fua = !lun->wce;
	task_run(t, same_step);
}

static void same_step(struct scsi_task *t, int result)
{
	struct scsi_lun *lun = t->lun;
	uint64_t nr = SCSI_WORK_BYTES / lun->block_bytes;
	uint64_t lba = t->lba;

	if (result < 0 || t->left == 0) {
		task_disk_done(t, result);
		return;
	}
	if (nr > t->left)
		nr = t->left;
	t->work_iov = (struct iovec){ lun->work, nr * lun->block_bytes };
	t->req.dr_iov = &t->work_iov;
	t->req.dr_niov = 1;
	t->lba += nr;
	t->left -= nr;
	task_disk(t, DISK_WRITE, lba, nr, same_step);
}

static bool all_zero(const uint8_t *p, size_t len)
{
	return p[0] == 0 && memcmp(p, p + 1, len - 1) == 0;
}

void sbc_write_same(struct scsi_task *t)
{
	struct scsi_lun *lun = t->lun;
	bool unmap = t->cdb.b[1] & WS_UNMAP;
	bool ndob = t->cdb.b[1] & WS_NDOB;

	if (unmap && !lun->thin) {
		task_bad_cdb(t, 1, 3);
		return;
	}
	if (t->cdb.nr == 0) { /* "to the end": WSNZ says that it is not */
		task_bad_cdb(t, t->cdb.def->nr_at, 7);
		return;
	}
	if (!sbc_in_range(t, t->cdb.lba, t->cdb.nr) ||
	    !task_has_out(t, ndob ? 0 : lun->block_bytes))
		return;
	t->left = t->cdb.nr;
	memset(lun->work, 0, lun->block_bytes);
	if (!ndob)
		t->transferred =
			vio_iov_take(&t->data, lun->work, lun->block_bytes);
	lun->nr_writes++;
	lun->written_bytes += t->left * lun->block_bytes;
	if (!all_zero(lun->work, lun->block_bytes)) {
		same_begin(t);
		return;
	}
	t->req.dr_unmap = unmap;
	t->req.dr_fua = !lun->wce;
	task_disk(t, DISK_WRITE_ZEROES, t->cdb.lba, t->left, task_disk_done);
}

/*
 * --- UNMAP ---
 *
 * Descriptors are taken from the data one by one: each is read once, checked,
 * and used.
 */

static void unmap_step(struct scsi_task *t, int result)
{
	const struct scsi_lun *lun = t->lun;
	uint8_t desc[16];
	uint64_t lba;
	uint32_t nr;

	if (result < 0 || t->left == 0) {
		task_disk_done(t, result);
		return;
	}
	t->left--;
	vio_iov_take(&t->data, desc, sizeof(desc));
	lba = read_be64(desc);
	nr = read_be32(desc + 8);
	if (!sbc_in_range(t, lba, nr))
		return;
	/* Where it must read as zeroes, a mere hint will not do. */
	t->req.dr_unmap = true;
	t->req.dr_fua = lun->zeroes && !lun->wce;
	task_disk(t, lun->zeroes ? DISK_WRITE_ZEROES : DISK_DISCARD, lba, nr,
		  unmap_step);
}

void sbc_unmap(struct scsi_task *t)
{
	uint8_t header[8];
	uint32_t desc_len;

	if (t->cdb.b[1] & 1) { /* ANCHOR */
		task_bad_cdb(t, 1, 0);
		return;
	}
	if (t->cdb.nr == 0) {
		task_good(t);
		return;
	}
	if (t->cdb.nr < sizeof(header)) {
		task_check(t, SC_LIST_LENGTH);
		return;
	}
	vio_iov_take(&t->data, header, sizeof(header));
	desc_len = read_be16(header + 2);
	if (desc_len > t->cdb.nr - sizeof(header)) {
		task_check(t, SC_LIST_LENGTH);
		return;
	}
	t->left = desc_len / 16; /* what is left of a descriptor is ignored */
	if (t->left > UNMAP_MAX_DESCS) {
		task_bad_list(t, 2);
		return;
	}
	t->transferred = t->cdb.nr;
	task_run(t, unmap_step);
}

/*
 * --- GET LBA STATUS ---
 */

struct extent {
	uint64_t nr;
	bool mapped;
};

/*
 * What begins at @lba, of @nr_blocks. A block is unmapped when all of it is a
 * hole.
 */
static struct extent extent_at(const struct scsi_lun *lun, uint64_t lba,
			       uint64_t nr_blocks)
{
	uint64_t block = lun->block_bytes;
	uint64_t rest = nr_blocks - lba;
	off_t off = (off_t)(lba * block), end;
	struct extent e = { rest, true };

	if (!lun->thin || lun->map_fd < 0)
		return e;
	end = lseek(lun->map_fd, off, SEEK_DATA);
	if (end < 0) {
		e.mapped = errno != ENXIO; /* nothing but a hole to the end */
		return e;
	}
	if ((uint64_t)end / block > lba) {
		e.mapped = false;
		e.nr = (uint64_t)end / block - lba;
	} else {
		end = lseek(lun->map_fd, end, SEEK_HOLE);
		if (end >= 0)
			e.nr = ((uint64_t)end + block - 1) / block - lba;
		if (e.nr == 0)
			e.nr = 1;
	}
	if (e.nr > rest)
		e.nr = rest;
	return e;
}

static_assert(sizeof(struct reply) <= SCSI_WORK_BYTES,
	      "it is put together there");

/* On a thread: the file system may have to look on the disk. */
static int find_extents(struct scsi_lun *lun, const struct scsi_task *t)
{
	uint64_t lba = t->cdb.lba, end = lba + t->left;
	struct reply *r = (void *)lun->work;

	reply_init(r);
	reply_write(r, 0, 8);
	for (unsigned i = 0;
	     i < STATUS_MAX_DESCS && lba < end && r->len < t->cdb.nr; i++) {
		struct extent e = extent_at(lun, lba, end);

		if (e.nr > UINT32_MAX)
			e.nr = UINT32_MAX;
		reply_write(r, lba, 8);
		reply_write(r, e.nr, 4);
		reply_write(r, e.mapped ? 0 : 1, 1); /* 1: deallocated */
		reply_write(r, 0, 3);
		lba += e.nr;
	}
	write_be32(r->b, (uint32_t)r->len - 4);
	return 0;
}

static void extents_found(struct scsi_task *t, int result)
{
	if (!task_finish_aborted(t))
		task_reply(t, (void *)t->lun->work);
}

void sbc_get_lba_status(struct scsi_task *t)
{
	const struct scsi_lun *lun = t->lun;

	if (t->cdb.lba >= lun->nr_blocks) {
		task_check_info(t, SC_LBA_RANGE, t->cdb.lba);
		return;
	}
	t->left = lun->nr_blocks - t->cdb.lba;
	task_offload(t, find_extents, extents_found);
}

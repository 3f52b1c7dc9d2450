/* SPDX-License-Identifier: BSD-2-Clause */
/* INQUIRY (SPC-4 6.6): what the logical unit is, in pages. */
#include "base/util.h"
#include "dev/scsi/scsi.h"

#define REVISION "0001"

enum {
	TYPE_DISK = 0x00,
	TYPE_CDROM = 0x05,
	TYPE_WLUN = 0x1e,
	TYPE_ABSENT = 0x7f, /* qualifier 011b, no type */
};

static uint8_t type_of(const struct scsi_lun *lun)
{
	switch (lun->kind) {
	case LUN_CDROM:
		return TYPE_CDROM;
	case LUN_WLUN:
		return TYPE_WLUN;
	case LUN_ABSENT:
		return TYPE_ABSENT;
	default:
		return TYPE_DISK;
	}
}

/* Units that exist without options have no names. */
static const char *vendor_of(const struct scsi_lun *lun)
{
	return lun->vendor[0] ? lun->vendor : "VIODEV";
}

static const char *product_of(const struct scsi_lun *lun)
{
	if (lun->product[0])
		return lun->product;
	return lun->kind == LUN_CDROM ? "CD-ROM" : "disk";
}

/*
 * --- Standard data, 6.6.2 ---
 */

static void standard(struct reply *r, const struct scsi_lun *lun)
{
	static const uint16_t versions[] = {
		0x00a0, /* SAM-5 */
		0x0460, /* SPC-4 */
		0x04c0, /* SBC-3 */
	};

	reply_write(r, type_of(lun), 1);
	reply_write(r, lun->kind == LUN_CDROM ? 0x80 : 0, 1); /* RMB */
	reply_write(r, 6, 1);                                 /* SPC-4 */
	reply_write(r, 0x12, 1);   /* HISUP, response format 2 */
	reply_write(r, 96 - 5, 1); /* additional length */
	reply_write(r, 0, 2);
	reply_write(r, 0x02, 1); /* CMDQUE */
	reply_text(r, vendor_of(lun), 8);
	reply_text(r, product_of(lun), 16);
	reply_text(r, REVISION, 4);
	reply_add(r, 22); /* vendor's and reserved */
	for (unsigned i = 0; i < 3; i++)
		reply_write(r,
			    lun->kind == LUN_CDROM && i == 2 ? 0x0420 :
							       versions[i],
			    2);
	while (r->len < 96)
		reply_write(r, 0, 1);
}

/*
 * --- Vital product data, 7.8 ---
 */

static void page_serial(struct reply *r, const struct scsi_lun *lun)
{
	reply_copy(r, lun->serial, strlen(lun->serial));
}

/* Two names, SPC-4 7.8.6: by T10 vendor id; by NAA, locally assigned unless
 * the user gave one. */
static void page_identification(struct reply *r, const struct scsi_lun *lun)
{
	size_t serial_len = strlen(lun->serial);

	reply_write(r, 0x02, 1); /* ASCII */
	reply_write(r, 0x01, 1); /* LUN, T10 vendor id */
	reply_write(r, 0, 1);
	reply_write(r, 8 + 16 + serial_len, 1);
	reply_text(r, vendor_of(lun), 8);
	reply_text(r, product_of(lun), 16);
	reply_copy(r, lun->serial, serial_len);

	reply_write(r, 0x01, 1); /* binary */
	reply_write(r, 0x03, 1); /* LUN, NAA */
	reply_write(r, 0, 1);
	reply_write(r, 8, 1);
	reply_write(r, lun->naa, 8);

	reply_write(r, 0x01, 1);
	reply_write(r, 0x14, 1); /* target port, relative id */
	reply_write(r, 0, 1);
	reply_write(r, 4, 1);
	reply_write(r, 1, 4);
}

static void page_extended(struct reply *r, const struct scsi_lun *lun)
{
	reply_write(r, 0, 1);
	reply_write(r, 0x07, 1); /* HEADSUP, ORDSUP, SIMPSUP */
	reply_write(r, lun->kind == LUN_DISK ? 0x01 : 0, 1); /* V_SUP */
	while (r->len < 64)
		reply_write(r, 0, 1);
}

static void page_block_limits(struct reply *r, const struct scsi_lun *lun)
{
	uint32_t phys = lun->phys_block_bytes / lun->block_bytes;
	uint32_t page = 4096 / lun->block_bytes;

	reply_write(r, 1, 1); /* WSNZ: no WRITE SAME of "all the rest" */
	/* What COMPARE AND WRITE may span: it goes through a buffer. */
	reply_write(r,
		    SCSI_WORK_BYTES / lun->block_bytes > 255 ?
			    255 :
			    SCSI_WORK_BYTES / lun->block_bytes,
		    1);
	reply_write(r, phys > page ? phys : page, 2); /* granularity */
	reply_write(r, 0, 4);                         /* no longest transfer */
	reply_write(r, 0, 4);
	reply_write(r, 0, 4);
	reply_write(r, lun->thin ? UINT32_MAX : 0, 4); /* LBAs to unmap */
	reply_write(r, lun->thin ? 256 : 0, 4);        /* descriptors */
	reply_write(r, lun->thin ? page : 0, 4);       /* granularity */
	reply_write(r, 0, 4);
	reply_write(r, 0, 8); /* no longest WRITE SAME */
	while (r->len < 64)
		reply_write(r, 0, 1);
}

static void page_characteristics(struct reply *r, const struct scsi_lun *lun)
{
	reply_write(r, lun->rotational ? 0 : 1, 2); /* 1: does not rotate */
	while (r->len < 64)
		reply_write(r, 0, 1);
}

static void page_provisioning(struct reply *r, const struct scsi_lun *lun)
{
	reply_write(r, 0, 1);
	/* LBPU, LBPWS, LBPWS10, LBPRZ */
	reply_write(r, lun->thin ? 0xe0 | (lun->zeroes ? 0x04 : 0) : 0, 1);
	reply_write(r, lun->thin ? 2 : 0, 1); /* thin, or fully provisioned */
	reply_write(r, 0, 1);
}

static void page_list(struct reply *r, const struct scsi_lun *lun);

static const struct {
	uint8_t code;
	uint8_t kinds;
	void (*fill)(struct reply *r, const struct scsi_lun *lun);
} pages[] = {
	{ 0x00, FOR_ALL, page_list },
	{ 0x80, FOR_BOTH, page_serial },
	{ 0x83, FOR_BOTH, page_identification },
	{ 0x86, FOR_BOTH, page_extended },
	{ 0xb0, FOR_DISK, page_block_limits },
	{ 0xb1, FOR_DISK, page_characteristics },
	{ 0xb2, FOR_DISK, page_provisioning },
};

#define NR_PAGES ARRAY_LEN(pages)

static void page_list(struct reply *r, const struct scsi_lun *lun)
{
	for (unsigned i = 0; i < NR_PAGES; i++) {
		if (pages[i].kinds & lun_kinds(lun))
			reply_write(r, pages[i].code, 1);
	}
}

static bool vital(struct reply *r, const struct scsi_lun *lun, uint8_t code)
{
	for (unsigned i = 0; i < NR_PAGES; i++) {
		if (pages[i].code != code || !(pages[i].kinds & lun_kinds(lun)))
			continue;
		reply_write(r, type_of(lun), 1);
		reply_write(r, code, 1);
		reply_write(r, 0, 2);
		pages[i].fill(r, lun);
		write_be16(r->b + 2, (uint16_t)(r->len - 4));
		return true;
	}
	return false;
}

void spc_inquiry(struct scsi_task *t)
{
	const struct scsi_lun *lun = t->lun;
	bool evpd = t->cdb.b[1] & 1;
	uint8_t code = t->cdb.b[2];
	struct reply r;

	reply_init(&r);
	if (evpd ? !vital(&r, lun, code) : code != 0) {
		task_bad_cdb(t, 2, 8);
		return;
	}
	if (!evpd)
		standard(&r, lun);
	task_reply(t, &r);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * MODE SENSE and MODE SELECT (SPC-4 6.9 .. 6.12): the parameters of a logical
 * unit, as pages. A page is built from the LUN's state; which of its bits the
 * initiator may change is built the same way, so that MODE SELECT can compare
 * the parameters with the current ones, bit by bit.
 */
#include "base/util.h"
#include "dev/scsi/scsi.h"

enum { PC_CURRENT, PC_CHANGEABLE, PC_DEFAULT, PC_SAVED };

enum {
	PAGE_ALL = 0x3f,
	SUBPAGE_ALL = 0xff,
	PAGE_MAX = 32,
	SPF = 0x40, /* the page has a subpage code and a 16 bit length */
};

struct mode_page {
	uint8_t code, subcode;
	uint8_t kinds;
	uint8_t len; /* of what follows the header */
	/* Fill @p, which is zero, beginning with the byte behind the header. */
	void (*fill)(const struct scsi_lun *lun, unsigned pc, uint8_t *p);
	/* Take over bits that may change. */
	void (*change)(struct scsi_lun *lun, const uint8_t *p);
};

/* Read-write error recovery, SBC-3 6.5.8 (of CD-ROMs MMC-6 7.3). */
static void fill_recovery(const struct scsi_lun *lun, unsigned pc, uint8_t *p)
{
	if (pc != PC_CHANGEABLE && lun->kind == LUN_DISK)
		p[0] = 0x80; /* AWRE: what cannot be written is reassigned */
}

/* Caching, SBC-3 6.5.5: WCE. */
static void fill_caching(const struct scsi_lun *lun, unsigned pc, uint8_t *p)
{
	bool wce = lun->wce;

	if (lun->kind != LUN_DISK)
		return;
	if (pc != PC_CURRENT) /* on at first; changeable where it can be on */
		wce = !lun->writethrough;
	p[0] = wce ? 0x04 : 0;
}

static void change_caching(struct scsi_lun *lun, const uint8_t *p)
{
	lun->wce = p[0] & 0x04;
}

/* Control, SPC-4 7.5.8: D_SENSE, GLTSD, unrestricted reordering, SWP. */
static void fill_control(const struct scsi_lun *lun, unsigned pc, uint8_t *p)
{
	bool disk = lun->kind == LUN_DISK;

	if (pc == PC_CHANGEABLE) {
		p[0] = 0x04;
		p[2] = disk ? 0x08 : 0;
		return;
	}
	p[0] = 0x02;
	p[1] = 0x10;
	if (pc == PC_CURRENT) {
		p[0] |= lun->d_sense ? 0x04 : 0;
		p[2] = lun->swp ? 0x08 : 0;
	}
	write_be16(p + 6, 0xffff); /* busy timeout: unlimited */
}

static void change_control(struct scsi_lun *lun, const uint8_t *p)
{
	lun->d_sense = p[0] & 0x04;
	lun->swp = p[2] & 0x08;
}

/* Control extension, SPC-4 7.5.9: nothing of it. */
static void fill_nothing(const struct scsi_lun *lun, unsigned pc, uint8_t *p)
{
}

/* Informational exceptions, SPC-4 7.5.14: DEXCPT, there are none. */
static void fill_exceptions(const struct scsi_lun *lun, unsigned pc, uint8_t *p)
{
	if (pc != PC_CHANGEABLE)
		p[0] = 0x08;
}

/* CD capabilities, MMC-3 6.3.11: what drivers of today still look at. */
static void fill_capabilities(const struct scsi_lun *lun, unsigned pc,
			      uint8_t *p)
{
	if (pc == PC_CHANGEABLE)
		return;
	p[0] = 0x3b; /* reads CD-R, CD-RW, DVD-ROM, DVD-R, DVD-RAM */
	p[2] = 0x70; /* mode 2 forms, multisession */
	p[4] = 0x29 | (lun->locked ? 0x02 : 0); /* tray, ejects, locks */
	write_be16(p + 6, 50 * 176);            /* kB/s */
	write_be16(p + 8, 2);
	write_be16(p + 10, 2048);
	write_be16(p + 12, 16 * 176);
}

static const struct mode_page pages[] = {
	{ 0x01, 0, FOR_BOTH, 10, fill_recovery, NULL },
	{ 0x08, 0, FOR_BOTH, 18, fill_caching, change_caching },
	{ 0x0a, 0, FOR_BOTH, 10, fill_control, change_control },
	{ 0x0a, 1, FOR_BOTH, 28, fill_nothing, NULL },
	{ 0x1c, 0, FOR_BOTH, 10, fill_exceptions, NULL },
	{ 0x2a, 0, FOR_CDROM, 20, fill_capabilities, NULL },
};

#define NR_PAGES ARRAY_LEN(pages)

/* Build a page, header and all; its length. */
static size_t page_build(const struct mode_page *page,
			 const struct scsi_lun *lun, unsigned pc,
			 uint8_t buf[PAGE_MAX])
{
	size_t header = page->subcode ? 4 : 2;

	memset(buf, 0, PAGE_MAX);
	buf[0] = page->code;
	if (page->subcode) {
		buf[0] |= SPF;
		buf[1] = page->subcode;
		write_be16(buf + 2, page->len);
	} else {
		buf[1] = page->len;
	}
	page->fill(lun, pc, buf + header);
	return header + page->len;
}

/*
 * --- MODE SENSE ---
 */

static bool page_wanted(const struct mode_page *page, uint8_t code,
			uint8_t subcode)
{
	if (code != PAGE_ALL && code != page->code)
		return false;
	return subcode == SUBPAGE_ALL || subcode == page->subcode;
}

/* SBC-3 6.4.2: write protect, DPO and FUA are understood. */
static uint8_t device_specific(const struct scsi_lun *lun)
{
	if (lun->kind != LUN_DISK)
		return 0;
	return (lun->ro || lun->swp ? 0x80 : 0) | 0x10;
}

static void add_block_descriptor(struct reply *r, const struct scsi_lun *lun)
{
	uint64_t nr = lun->nr_blocks;

	reply_write(r, nr > UINT32_MAX ? UINT32_MAX : nr, 4);
	reply_write(r, lun->block_bytes,
		    4); /* of which the first is reserved */
}

void spc_mode_sense(struct scsi_task *t)
{
	const struct scsi_lun *lun = t->lun;
	bool ten = t->cdb.b[0] == 0x5a;
	bool dbd = t->cdb.b[1] & 0x08;
	unsigned pc = t->cdb.b[2] >> 6;
	uint8_t code = t->cdb.b[2] & 0x3f, subcode = t->cdb.b[3];
	bool descriptor = !dbd && lun->kind == LUN_DISK;
	bool any = code == 0; /* page 0: nothing but the header */
	uint8_t buf[PAGE_MAX];
	struct reply r;

	if (pc == PC_SAVED) {
		task_check(t, SC_SAVING_PARAMETERS);
		return;
	}
	if (subcode != 0 && subcode != SUBPAGE_ALL && code == PAGE_ALL) {
		task_bad_cdb(t, 3, 8);
		return;
	}
	reply_init(&r);
	reply_write(&r, 0, ten ? 8 : 4);
	if (descriptor)
		add_block_descriptor(&r, lun);
	for (unsigned i = 0; i < NR_PAGES; i++) {
		if (!(pages[i].kinds & lun_kinds(lun)) ||
		    !page_wanted(&pages[i], code, subcode))
			continue;
		reply_copy(&r, buf, page_build(&pages[i], lun, pc, buf));
		any = true;
	}
	if (!any) {
		task_bad_cdb(t, 2, 5);
		return;
	}
	if (ten) {
		write_be16(r.b, (uint16_t)(r.len - 2));
		r.b[3] = device_specific(lun);
		r.b[7] = descriptor ? 8 : 0;
	} else {
		r.b[0] = (uint8_t)(r.len - 1);
		r.b[2] = device_specific(lun);
		r.b[3] = descriptor ? 8 : 0;
	}
	task_reply(t, &r);
}

/*
 * --- MODE SELECT ---
 */

/* The parameter list while it is read: a copy, bounded. */
struct list {
	uint8_t b[256];
	size_t len, pos;
	bool cut; /* in the middle of something */
};

static const struct mode_page *page_at(const struct scsi_lun *lun,
				       const struct list *l)
{
	const uint8_t *p = l->b + l->pos;
	size_t left = l->len - l->pos;

	for (unsigned i = 0; i < NR_PAGES && left >= 2; i++) {
		const struct mode_page *page = &pages[i];
		bool spf = p[0] & SPF;

		if (!(page->kinds & lun_kinds(lun)) ||
		    page->code != (p[0] & 0x3f))
			continue;
		if (spf != (page->subcode != 0) ||
		    (spf && p[1] != page->subcode))
			continue;
		return page;
	}
	return NULL;
}

/*
 * Check the page at @l->pos, or take it over with @apply. False when it is not
 * one of ours, has another length, or would change what cannot be changed;
 * @l->pos is then the byte in error.
 */
static bool page_select(struct scsi_lun *lun, struct list *l, bool apply)
{
	const struct mode_page *page = page_at(lun, l);
	uint8_t now[PAGE_MAX], mask[PAGE_MAX];
	const uint8_t *p = l->b + l->pos;
	size_t len, header;

	if (!page)
		return false;
	header = page->subcode ? 4 : 2;
	len = page_build(page, lun, PC_CURRENT, now);
	if (len > l->len - l->pos) {
		l->cut = true;
		return false;
	}
	page_build(page, lun, PC_CHANGEABLE, mask);
	for (size_t i = 0; i < len; i++) {
		uint8_t may = i < header ? 0 : mask[i];
		uint8_t is = i == 0 ? p[0] & 0x7f : p[i]; /* PS is reserved */

		if ((is ^ now[i]) & ~may) {
			l->pos += i;
			return false;
		}
	}
	if (apply && page->change)
		page->change(lun, p + header);
	l->pos += len;
	return true;
}

/* The header and block descriptor may say again what is, and nothing else. */
static bool header_ok(const struct scsi_lun *lun, struct list *l, bool ten)
{
	size_t header = ten ? 8 : 4;
	size_t desc_len = ten ? read_be16(l->b + 6) : l->b[3];
	const uint8_t *desc = l->b + header;

	l->pos = ten ? 6 : 3;
	if ((desc_len != 0 && desc_len != 8) || (ten && (l->b[4] & 1)))
		return false;
	l->pos = header + desc_len;
	l->cut = l->pos > l->len;
	if (l->cut || desc_len == 0)
		return !l->cut;
	if ((read_be32(desc + 4) & 0xffffff) != lun->block_bytes ||
	    (read_be32(desc) != 0 && read_be32(desc) != UINT32_MAX &&
	     read_be32(desc) != lun->nr_blocks)) {
		l->pos = header;
		return false;
	}
	return true;
}

/* Without a write cache, what was in it has been written. */
static void cache_written(struct scsi_task *t, int result)
{
	if (result < 0)
		t->lun->wce = true;
	task_disk_done(t, result);
}

/* All pages are checked before the first is taken over. */
void spc_mode_select(struct scsi_task *t)
{
	bool ten = t->cdb.b[0] == 0x55, cached = t->lun->wce && !t->lun->ro;
	struct list l = { .len = t->cdb.nr };
	size_t first;
	bool ok;

	if (!(t->cdb.b[1] & 0x10)) { /* PF: pages as in the standard */
		task_bad_cdb(t, 1, 4);
		return;
	}
	if (t->cdb.b[1] & 0x01) { /* SP */
		task_bad_cdb(t, 1, 0);
		return;
	}
	if (l.len == 0) {
		task_good(t);
		return;
	}
	if (l.len < (ten ? 8 : 4) || l.len > sizeof(l.b)) {
		task_check(t, SC_LIST_LENGTH);
		return;
	}
	t->transferred = vio_iov_take(&t->data, l.b, l.len);
	ok = header_ok(t->lun, &l, ten);
	first = l.pos;
	while (ok && l.pos < l.len)
		ok = page_select(t->lun, &l, false);
	if (!ok) {
		if (l.cut)
			task_check(t, SC_LIST_LENGTH);
		else
			task_bad_list(t, (unsigned)l.pos);
		return;
	}
	for (l.pos = first; l.pos < l.len;)
		page_select(t->lun, &l, true);
	/* WCE was cleared: the data must reach the medium, SBC-3 6.5.5. */
	if (cached && !t->lun->wce)
		task_disk(t, DISK_FLUSH, 0, 0, cache_written);
	else
		task_good(t);
}

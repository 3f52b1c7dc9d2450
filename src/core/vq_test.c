/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Chains and rings as a device model sees them: what vq_getchain() makes of
 * descriptors, right and wrong, and when the driver is notified.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include <viodev/virtio.h>

#include "base/le.h"
#include "base/util.h"
#include "core/core.h"
#include "vdrv.h"

#define V1        VI_BIT(VIRTIO_F_VERSION_1)
#define INDIRECT  VI_BIT(VIRTIO_RING_F_INDIRECT_DESC)
#define EVENT_IDX VI_BIT(VIRTIO_RING_F_EVENT_IDX)
#define ON_EMPTY  VI_BIT(VIRTIO_F_NOTIFY_ON_EMPTY)
#define PACKED    VI_BIT(VIRTIO_F_RING_PACKED)

/* PACKED or 0: which rings the driver of dev_start() has. */
static uint64_t layout;

enum {
	QSIZE = 8,
	NIOV = 12,

	N = VRING_DESC_F_NEXT,
	W = VRING_DESC_F_WRITE,
	I = VRING_DESC_F_INDIRECT,
};

/* Guest addresses beside the driver's RAM; see add_regions(). */
#define RAM_END  (VDRV_MEM_BASE + (uint64_t)VDRV_MEM_BYTES)
#define HOLE     0x40000000ull
#define ROM      0x50000000ull  /* the device may not write it */
#define PAIR     0x60000000ull  /* two regions, adjacent at + 0x1000 */
#define FAR      0x70000000ull  /* announced, not mapped, unreachable */
#define HUGE     0x100000000ull /* 2 GiB */
#define HUGE_LEN 0x80000000u
#define BUF      (VDRV_MEM_BASE + 0x100000ull) /* the driver's, 64 KiB */
#define TABLE    (VDRV_MEM_BASE + 0x200000ull)

struct dev {
	struct virtio_softc vs;
	struct vqueue_info vq;
	struct virtio_consts vc;
	struct vdrv d;
	uint8_t pair[2][0x1000], rom[0x1000];
	void *huge;
	unsigned nr_kicks;
};

static void dev_kick(void *sc, struct vqueue_info *vq)
{
	((struct dev *)sc)->nr_kicks++;
}

static void add_regions(struct dev *dev)
{
	static const unsigned rw = GM_READ | GM_WRITE;
	struct gmem *gm = &dev->d.gm;

	assert_int_equal(gm_add(gm, (gpa_t){ ROM }, 0x1000, dev->rom, GM_READ),
			 0);
	assert_int_equal(gm_add(gm, (gpa_t){ PAIR }, 0x1000, dev->pair[1], rw),
			 0);
	assert_int_equal(
		gm_add(gm, (gpa_t){ PAIR + 0x1000 }, 0x1000, dev->pair[0], rw),
		0);
	assert_int_equal(gm_add(gm, (gpa_t){ FAR }, 0x1000, NULL, rw), 0);
	dev->huge = mmap(NULL, HUGE_LEN, PROT_NONE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	assert_true(dev->huge != MAP_FAILED);
	assert_int_equal(gm_add(gm, (gpa_t){ HUGE }, HUGE_LEN, dev->huge, rw),
			 0);
}

static void dev_init(struct dev *dev, virtio_mode_t mode)
{
	memset(dev, 0, sizeof(*dev));
	vdrv_init(&dev->d,
		  mode == VIRTIO_MODE_LEGACY ? VDRV_LEGACY : VDRV_MODERN);
	dev->vc = (struct virtio_consts){
		.vc_name = "vq_test",
		.vc_nvq = 1,
		.vc_qnotify = dev_kick,
		.vc_hv_caps_modern = VI_RING_CAPS_MODERN | PACKED,
		.vc_hv_caps_legacy = VI_RING_CAPS_LEGACY,
	};
	vi_softc_linkup(&dev->vs, &dev->vc, dev, &dev->d.pi, &dev->vq);
	dev->vq.vq_qsize = QSIZE;
	vi_pci_init(&dev->d.pi, mode, VIRTIO_DEV_RANDOM, VIRTIO_ID_ENTROPY,
		    PCIC_OTHER);
	assert_true(vi_intr_init(&dev->vs, true));
	assert_true(vi_pcibar_setup(&dev->vs));
	add_regions(dev);
}

static void dev_start(struct dev *dev, uint64_t features)
{
	dev_init(dev, VIRTIO_MODE_MODERN);
	assert_true(vdrv_start(&dev->d, features | layout | V1, 1));
}

static void dev_fini(struct dev *dev)
{
	vi_softc_fini(&dev->vs);
	vdrv_fini(&dev->d);
	munmap(dev->huge, HUGE_LEN);
}

/*
 * --- Chains ---
 */

struct desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags, next;
};

/* What vq_getchain() must return, other than a chain. */
#define BAD   (-1)
#define EMPTY 0 /* completed with length 0, not seen */

struct chain_row {
	const char *what;
	struct desc ring[QSIZE];  /* head 0 by default */
	struct desc table[QSIZE]; /* at TABLE */
	int readable, writable;   /* or BAD, EMPTY */
	uint16_t head;
	uint64_t without; /* features not accepted */
};

static const struct chain_row chain_rows[] = {
	/* Well-formed: SPLIT-02, SPLIT-07, SPLIT-08. */
	{ "one readable", { { BUF, 16, 0 } }, .readable = 1 },
	{ "one writable", { { BUF, 16, W } }, .writable = 1 },
	{ "SPLIT-02: read, then write",
	  { { BUF, 16, N, 1 },
	    { BUF + 16, 512, N | W, 5 },
	    [5] = { BUF + 600, 1, W } },
	  .readable = 1,
	  .writable = 2 },
	{ "head in the middle",
	  { [7] = { BUF, 16, N, 2 }, [2] = { BUF, 4, 0 } },
	  .readable = 2,
	  .head = 7 },
	{ "as long as the ring",
	  { { BUF, 1, N, 1 },
	    { BUF, 1, N, 2 },
	    { BUF, 1, N, 3 },
	    { BUF, 1, N, 4 },
	    { BUF, 1, N, 5 },
	    { BUF, 1, N, 6 },
	    { BUF, 1, N, 7 },
	    { BUF, 1, W } },
	  .readable = 7,
	  .writable = 1 },
	{ "SPLIT-08: indirect, mixed",
	  { { TABLE, 3 * 16, I } },
	  { { BUF, 4, N, 2 }, { BUF, 8, W }, { BUF, 4, N, 1 } },
	  .readable = 2,
	  .writable = 1 },
	{ "SPLIT-06: WRITE beside INDIRECT is ignored",
	  { { TABLE, 2 * 16, I | W } },
	  { { BUF, 4, N, 1 }, { BUF, 8, W } },
	  .readable = 1,
	  .writable = 1 },
	{ "SPLIT-07: direct ones, then indirect",
	  { { BUF, 4, N, 1 }, { BUF, 5, N, 2 }, { TABLE, 2 * 16, I } },
	  { { BUF, 4, N, 1 }, { BUF, 8, W } },
	  .readable = 3,
	  .writable = 1 },
	{ "TRAP-18: a table longer than the queue, not all of it used",
	  { { TABLE, 100 * 16, I } },
	  { { BUF, 4, 0 } },
	  .readable = 1 },
	{ "table entries after the last are not looked at",
	  { { TABLE, 2 * 16, I } },
	  { { BUF, 4, 0 }, { HOLE, 4, I } },
	  .readable = 1 },
	{ "the last bytes of RAM", { { RAM_END - 8, 8, W } }, .writable = 1 },
	{ "hostile D1: over two regions",
	  { { PAIR + 0xff0, 0x20, W } },
	  .writable = 2 },
	{ "hostile D1: read, over two regions",
	  { { PAIR + 0xfff, 2, N, 1 }, { PAIR, 0x2000, W } },
	  .readable = 2,
	  .writable = 2 },
	{ "read-only memory, read", { { ROM, 16, 0 } }, .readable = 1 },

	/* Indices: SPLIT-23, hostile Q25. */
	{ "SPLIT-23: head == N",
	  { { BUF, 4, 0 } },
	  .head = QSIZE,
	  .readable = BAD },
	{ "SPLIT-23: head 0xffff",
	  { { BUF, 4, 0 } },
	  .head = 0xffff,
	  .readable = BAD },
	{ "SPLIT-23: next == N", { { BUF, 4, N, QSIZE } }, .readable = BAD },
	{ "SPLIT-23: next 0xffff", { { BUF, 4, N, 0xffff } }, .readable = BAD },
	{ "SPLIT-23: next == entries of the table",
	  { { TABLE, 2 * 16, I } },
	  { { BUF, 4, N, 2 }, { BUF, 4, 0 } },
	  .readable = BAD },
	{ "SPLIT-23: next far outside of the table",
	  { { TABLE, 2 * 16, I } },
	  { { BUF, 4, N, 0x8000 } },
	  .readable = BAD },

	/* Loops: SPLIT-24, hostile Q25, hostile D19. */
	{ "SPLIT-24: itself", { { BUF, 4, N, 0 } }, .readable = BAD },
	{ "SPLIT-24: two",
	  { { BUF, 4, N, 1 }, { BUF, 4, N, 0 } },
	  .readable = BAD },
	{ "SPLIT-24: writable loop",
	  { { BUF, 4, N | W, 0 } },
	  .readable = BAD },
	{ "SPLIT-24: in the table",
	  { { TABLE, 3 * 16, I } },
	  { { BUF, 4, N, 1 }, { BUF, 4, N, 2 }, { BUF, 4, N, 1 } },
	  .readable = BAD },
	{ "hostile Q7: loop of empty buffers",
	  { { BUF, 0, N, 1 }, { BUF, 0, N, 0 } },
	  .readable = BAD },
	{ "hostile Q7: loop of empty buffers in the table",
	  { { TABLE, 2 * 16, I } },
	  { { BUF, 0, N, 1 }, { BUF, 0, N, 0 } },
	  .readable = BAD },

	/* Indirect: SPLIT-25, hostile S6, hostile Q25. */
	{ "SPLIT-25, hostile D24: not negotiated",
	  { { TABLE, 16, I } },
	  { { BUF, 4, 0 } },
	  .readable = BAD,
	  .without = INDIRECT },
	{ "SPLIT-25: nested",
	  { { TABLE, 2 * 16, I } },
	  { { BUF, 4, N, 1 }, { TABLE, 16, I } },
	  .readable = BAD },
	{ "SPLIT-25: nested, where all else is right",
	  { { TABLE, 16, I } },
	  { { TABLE + 16, 16, I }, { BUF, 4, 0 } },
	  .readable = BAD },
	{ "SPLIT-25: with NEXT",
	  { { TABLE, 16, I | N, 1 }, { BUF, 4, 0 } },
	  { { BUF, 4, 0 } },
	  .readable = BAD },
	{ "SPLIT-25: table of 0 bytes",
	  { { TABLE, 0, I } },
	  { { BUF, 4, 0 } },
	  .readable = BAD },
	{ "SPLIT-25: table of 15 bytes",
	  { { TABLE, 15, I } },
	  { { BUF, 4, 0 } },
	  .readable = BAD },
	{ "SPLIT-25: table of 17 bytes",
	  { { TABLE, 17, I } },
	  { { BUF, 4, 0 } },
	  .readable = BAD },
	{ "SPLIT-25: table of 4 GiB",
	  { { TABLE, 0xfffffff0, I } },
	  { { BUF, 4, N, 0 } },
	  .readable = BAD },
	{ "hostile S6, hostile K12: table in a hole",
	  { { HOLE, 16, I } },
	  .readable = BAD },
	{ "hostile S6: table at the top",
	  { { 0xfffffffffffff000, 16, I } },
	  .readable = BAD },
	{ "hostile S6: table wraps",
	  { { 0xfffffffffffffff8, 16, I } },
	  .readable = BAD },
	{ "hostile S6: table over the end of RAM",
	  { { RAM_END - 8, 16, I } },
	  .readable = BAD },
	{ "table not mapped", { { FAR, 16, I } }, .readable = BAD },

	/* Addresses: SPLIT-27, hostile S7, hostile D17. */
	{ "hostile S7: in a hole", { { HOLE, 16, 0 } }, .readable = BAD },
	{ "hostile S7: end of RAM - 8",
	  { { RAM_END - 8, 4096, 0 } },
	  .readable = BAD },
	{ "hostile S7: wraps",
	  { { 0xfffffffffffffff0, 0x20, W } },
	  .readable = BAD },
	{ "hostile S7: length wraps",
	  { { BUF, 0xffffffff, W } },
	  .readable = BAD },
	{ "hostile K12: address 0", { { 0, 16, W } }, .readable = BAD },
	{ "hostile D17: unmapped in the middle",
	  { { BUF, 4, N, 1 }, { HOLE, 4, N, 2 }, { BUF, 4, 0 } },
	  .readable = BAD },
	{ "hostile D17: unmapped in the middle of the table",
	  { { TABLE, 3 * 16, I } },
	  { { BUF, 4, N, 1 }, { HOLE, 4, N, 2 }, { BUF, 4, W } },
	  .readable = BAD },
	{ "read-only memory, written", { { ROM, 16, W } }, .readable = BAD },
	{ "not mapped and out of reach", { { FAR, 16, 0 } }, .readable = BAD },
	{ "hostile D1: into what is not mapped",
	  { { PAIR + 0x1ff0, 0x20, 0 } },
	  .readable = BAD },

	/* Order and lengths: SPLIT-27, hostile S9, hostile K20. */
	{ "hostile S9: W, R, W",
	  { { BUF, 4, N | W, 1 }, { BUF + 8, 4, N, 2 }, { BUF, 4, W } },
	  .readable = BAD },
	{ "hostile S9: W, R in the table",
	  { { TABLE, 2 * 16, I } },
	  { { BUF, 4, N | W, 1 }, { BUF + 8, 4, 0 } },
	  .readable = BAD },
	{ "hostile S9: W, then R in the table",
	  { { BUF, 4, N | W, 1 }, { TABLE, 16, I } },
	  { { BUF + 8, 4, 0 } },
	  .readable = BAD },
	{ "hostile K20: empty first",
	  { { BUF, 0, N, 1 }, { BUF, 4, W } },
	  .writable = 1 },
	{ "hostile K20: empty last",
	  { { BUF, 4, N, 1 }, { BUF, 0, W } },
	  .readable = 1 },
	{ "hostile D6: in a hole, empty",
	  { { HOLE, 0, N, 1 }, { BUF, 4, W } },
	  .writable = 1 },
	{ "hostile Q7: nothing but empty buffers",
	  { { BUF, 0, N, 1 }, { BUF, 0, N, 2 }, { BUF, 0, W } },
	  .readable = EMPTY },
	{ "hostile Q7: one empty buffer",
	  { { BUF, 0, 0 } },
	  .readable = EMPTY },
	{ "hostile Q7: an indirect table of them",
	  { { TABLE, 2 * 16, I } },
	  { { BUF, 0, N, 1 }, { BUF, 0, W } },
	  .readable = EMPTY },
	{ "hostile D28: 3 x 2 GiB",
	  { { HUGE, 0x80000000, N, 1 },
	    { HUGE, 0x80000000, N, 2 },
	    { HUGE, 0x80000000, 0 } },
	  .readable = BAD },
	{ "hostile D28: 3 x 2 GiB, writable",
	  { { HUGE, 0x80000000, N | W, 1 },
	    { HUGE, 0x80000000, N | W, 2 },
	    { HUGE, 0x80000000, W } },
	  .readable = BAD },
	{ "hostile D28: overflow in the table",
	  { { TABLE, 3 * 16, I } },
	  { { HUGE, 0x80000000, N, 1 },
	    { HUGE, 0x7fffffff, N, 2 },
	    { HUGE, 0x80000000, W } },
	  .readable = BAD },
	{ "just under 4 GiB",
	  { { HUGE, 0x80000000, N | W, 1 }, { HUGE, 0x7fffffff, W } },
	  .writable = 2 },
};

/* What a legacy driver may also do: SPLIT-25 binds modern ones. */
static const struct chain_row legacy_rows[] = {
	{ "table, then direct",
	  { { TABLE, 2 * 16, I | N, 3 }, [3] = { BUF + 600, 1, W } },
	  { { BUF, 4, N, 1 }, { BUF, 8, W } },
	  .readable = 1,
	  .writable = 2 },
	{ "direct, table, direct",
	  { { BUF, 5, N, 7 },
	    [7] = { TABLE, 2 * 16, I | N, 2 },
	    [2] = { BUF + 600, 1, W } },
	  { { BUF, 4, N, 1 }, { BUF + 8, 6, 0 } },
	  .readable = 3,
	  .writable = 1 },
	{ "two tables",
	  { { TABLE, 16, I | N, 1 }, { TABLE + 16, 16, I } },
	  { { BUF, 4, 0 }, { BUF, 8, W } },
	  .readable = 1,
	  .writable = 1 },
	{ "nothing but empty buffers",
	  { { TABLE, 16, I | N, 1 }, { BUF, 0, 0 } },
	  { { BUF, 0, 0 } },
	  .readable = EMPTY },
	{ "SPLIT-23: next of the table out of range",
	  { { TABLE, 16, I | N, QSIZE } },
	  { { BUF, 4, 0 } },
	  .readable = BAD },
	{ "SPLIT-24: loop through a table",
	  { { TABLE, 16, I | N, 0 } },
	  { { BUF, 4, 0 } },
	  .readable = BAD },
	{ "SPLIT-24: loop through a table of an empty buffer",
	  { { TABLE, 16, I | N, 0 } },
	  { { BUF, 0, 0 } },
	  .readable = BAD },
	{ "SPLIT-25: nested",
	  { { TABLE, 2 * 16, I | N, 1 }, { BUF, 4, 0 } },
	  { { BUF, 4, N, 1 }, { TABLE, 16, I } },
	  .readable = BAD },
	{ "SPLIT-25: nested, where all else is right",
	  { { TABLE, 16, I | N, 1 }, { BUF, 4, 0 } },
	  { { TABLE + 16, 16, I }, { BUF, 4, 0 } },
	  .readable = BAD },
	{ "hostile S9: W in the table, then R",
	  { { TABLE, 16, I | N, 1 }, { BUF, 4, 0 } },
	  { { BUF, 8, W } },
	  .readable = BAD },
	{ "tables of too many entries together",
	  { { TABLE, 20000 * 16, I | N, 1 }, { TABLE, 20000 * 16, I } },
	  { { BUF, 4, 0 } },
	  .readable = BAD },
};

static void write_ring(struct dev *dev, const struct desc *d)
{
	for (uint16_t i = 0; i < QSIZE; i++)
		vdrv_desc(&dev->d, 0, i, d[i].addr, d[i].len, d[i].flags,
			  d[i].next);
}

static void write_table(struct dev *dev, const struct desc *t)
{
	for (unsigned i = 0; i < QSIZE; i++) {
		uint8_t *p = vdrv_ptr(&dev->d, TABLE + 16 * i, 16);
		le64 addr = cpu_to_le64(t[i].addr);
		le32 len = cpu_to_le32(t[i].len);
		le16 flags = cpu_to_le16(t[i].flags);
		le16 next = cpu_to_le16(t[i].next);

		memcpy(p, &addr, 8);
		memcpy(p + 8, &len, 4);
		memcpy(p + 12, &flags, 2);
		memcpy(p + 14, &next, 2);
	}
}

static uint64_t sum_of(const struct chain_row *row, unsigned flag)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < QSIZE; i++) {
		const struct desc *d = &row->ring[i];

		sum += !(d->flags & I) && (d->flags & W) == flag ? d->len : 0;
	}
	for (unsigned i = 0; i < QSIZE; i++) {
		const struct desc *d = &row->table[i];

		sum += !(d->flags & I) && (d->flags & W) == flag ? d->len : 0;
	}
	return sum;
}

/* Entries of the table that the chain does not reach make the sum too big. */
static void check_good(const struct chain_row *row, const struct iovec *iov,
		       const struct vi_req *req)
{
	uint64_t r = 0, w = 0;

	for (int i = 0; i < req->readable; i++)
		r += iov[i].iov_len;
	for (int i = 0; i < req->writable; i++)
		w += iov[req->readable + i].iov_len;
	if (req->readable != row->readable || req->writable != row->writable)
		fail_msg("%s: %d + %d", row->what, req->readable,
			 req->writable);
	if (req->idx != row->head)
		fail_msg("%s: idx %u", row->what, req->idx);
	if (r > sum_of(row, 0) || w != sum_of(row, W))
		fail_msg("%s: %llu + %llu bytes", row->what,
			 (unsigned long long)r, (unsigned long long)w);
}

/* Broken until reset, and the driver was notified: hostile K1, hostile S13. */
static void check_bad(struct dev *dev, const struct chain_row *row)
{
	struct iovec iov[NIOV];
	struct vi_req req;

	if (!(vdrv_status(&dev->d) & VIRTIO_CONFIG_S_NEEDS_RESET))
		fail_msg("%s: NEEDS_RESET is not set", row->what);
	assert_true(dev->vs.vs_flags & VIRTIO_BROKEN);
	assert_int_equal(dev->d.nr_msix[0], 1);
	assert_int_equal(vdrv_used_ring_idx(&dev->d, 0), 0);
	assert_false(vq_has_descs(&dev->vq));
	assert_int_equal(vq_getchain(&dev->vq, iov, NIOV, &req), 0);
	assert_int_equal(dev->d.nr_msix[0], 1);
}

static void run_chain(const struct chain_row *row, bool look_first)
{
	struct iovec iov[NIOV + 1];
	struct vi_req req = { 0 };
	struct vdrv_used used;
	struct dev dev;
	int n;

	dev_start(&dev, (INDIRECT | EVENT_IDX) & ~row->without);
	write_ring(&dev, row->ring);
	write_table(&dev, row->table);
	assert_false(vq_has_descs(&dev.vq));
	vdrv_avail(&dev.d, 0, row->head);
	/* vq_has_descs() does not report an empty chain, either. */
	if (look_first)
		assert_int_equal(vq_has_descs(&dev.vq),
				 row->readable + row->writable != EMPTY);

	iov[NIOV] = (struct iovec){ &dev, 4711 };
	n = vq_getchain(&dev.vq, iov, NIOV, &req);
	assert_int_equal(iov[NIOV].iov_len, 4711);
	if (row->readable == BAD) {
		if (n != -1)
			fail_msg("%s: %d", row->what, n);
		check_bad(&dev, row);
	} else if (row->readable + row->writable == EMPTY) {
		if (n != 0 || !vdrv_used(&dev.d, 0, &used))
			fail_msg("%s: %d", row->what, n);
		assert_int_equal(used.id, row->head);
		assert_int_equal(used.len, 0);
		assert_false(vdrv_status(&dev.d) & VIRTIO_CONFIG_S_NEEDS_RESET);
	} else {
		if (n != row->readable + row->writable)
			fail_msg("%s: %d", row->what, n);
		check_good(row, iov, &req);
		assert_false(vq_has_descs(&dev.vq));
		vq_relchain(&dev.vq, (uint16_t)req.idx, 0);
		assert_true(vdrv_used(&dev.d, 0, &used));
		assert_int_equal(used.id, row->head);
	}

	/* hostile S13: after a reset the device works. */
	vdrv_reset(&dev.d);
	assert_true(vdrv_start(&dev.d, V1, 1));
	vdrv_add(&dev.d, 0, &(struct vdrv_buf){ BUF, 64, VDRV_W }, 1);
	assert_int_equal(vq_getchain(&dev.vq, iov, NIOV, &req), 1);
	dev_fini(&dev);
}

static void test_chains(void **state)
{
	for (size_t i = 0; i < 2 * ARRAY_LEN(chain_rows); i++)
		run_chain(&chain_rows[i / 2], i % 2);
}

static void run_legacy_chain(const struct chain_row *row)
{
	int want = row->readable + row->writable;
	struct iovec iov[NIOV];
	struct vi_req req;
	struct vdrv_used used;
	struct dev dev;
	int n;

	dev_init(&dev, VIRTIO_MODE_LEGACY);
	assert_true(vdrv_start(&dev.d, INDIRECT, 1));
	write_ring(&dev, row->ring);
	write_table(&dev, row->table);
	vdrv_avail(&dev.d, 0, row->head);
	n = vq_getchain(&dev.vq, iov, NIOV, &req);
	if (n != (row->readable == BAD ? -1 : want))
		fail_msg("%s: %d", row->what, n);
	assert_int_equal(!!(dev.vs.vs_flags & VIRTIO_BROKEN),
			 row->readable == BAD);
	if (n > 0) {
		check_good(row, iov, &req);
		vq_relchain(&dev.vq, (uint16_t)req.idx, 0);
	}
	assert_int_equal(vdrv_used(&dev.d, 0, &used), n >= 0);
	dev_fini(&dev);
}

static void test_legacy_chains(void **state)
{
	for (size_t i = 0; i < ARRAY_LEN(legacy_rows); i++)
		run_legacy_chain(&legacy_rows[i]);
}

/* SPLIT-02, TRAP-18, hostile S14: exactly niov fits, one more does not. */
static void test_niov(void **state)
{
	struct vdrv_buf bufs[NIOV + 2];
	struct iovec iov[NIOV + 1];
	struct vi_req req;

	for (unsigned i = 0; i < ARRAY_LEN(bufs); i++)
		bufs[i] = (struct vdrv_buf){ BUF + i, 1, VDRV_R };
	for (int nr = NIOV - 1; nr <= NIOV + 2; nr++) {
		struct dev dev;

		dev_start(&dev, INDIRECT);
		iov[NIOV] = (struct iovec){ &dev, 4711 };
		vdrv_add_indirect(&dev.d, 0, bufs, (unsigned)nr);
		assert_int_equal(vq_getchain(&dev.vq, iov, NIOV, &req),
				 nr <= NIOV ? nr : -1);
		assert_ptr_equal(iov[NIOV].iov_base, &dev);
		assert_int_equal(iov[NIOV].iov_len, 4711);
		dev_fini(&dev);
	}
	/* hostile D1: the piece in the second region is one too many. */
	for (int nr = NIOV - 2; nr <= NIOV; nr++) {
		struct dev dev;

		dev_start(&dev, INDIRECT);
		bufs[nr - 1] = (struct vdrv_buf){ PAIR + 0xfff, 2, VDRV_R };
		vdrv_add_indirect(&dev.d, 0, bufs, (unsigned)nr);
		assert_int_equal(vq_getchain(&dev.vq, iov, NIOV, &req),
				 nr < NIOV ? nr + 1 : -1);
		bufs[nr - 1] = bufs[0];
		dev_fini(&dev);
	}
}

/*
 * --- The available ring ---
 */

/* SPLIT-26, hostile D28, hostile D36: as much as the ring holds, no more. */
static void test_avail_idx(void **state)
{
	static const struct {
		uint16_t start, ahead;
		bool ok;
	} rows[] = {
		{ 0, 1, true },
		{ 0, QSIZE, true },
		{ 0, QSIZE + 1, false },
		{ 0, 1000, false },
		{ 0, 0xffff, false },
		{ 0xfffc, QSIZE, true },
		{ 0xfffc, QSIZE + 1, false },
		{ 0x7fff, 0x8000, false },
	};
	struct iovec iov[NIOV];
	struct vi_req req;

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct dev dev;
		int n = 0, ret;

		dev_start(&dev, 0);
		dev.vq.vq_last_avail = rows[i].start;
		dev.vq.vq_next_used = dev.vq.vq_save_used = rows[i].start;
		for (uint16_t j = 0; j < QSIZE; j++)
			vdrv_desc(&dev.d, 0, j, BUF, 8, W, 0);
		dev.d.q[0].avail_idx = rows[i].start;
		for (uint16_t j = 0; j < QSIZE; j++)
			vdrv_avail(&dev.d, 0, (uint16_t)((j + 3) % QSIZE));
		vdrv_set_avail_idx(&dev.d, 0,
				   (uint16_t)(rows[i].start + rows[i].ahead));
		while ((ret = vq_getchain(&dev.vq, iov, NIOV, &req)) > 0)
			n++;
		assert_int_equal(ret, rows[i].ok ? 0 : -1);
		assert_int_equal(n, rows[i].ok ? rows[i].ahead : 0);
		dev_fini(&dev);
	}
}

/* hostile Q6, hostile D31, hostile S15c: a head that is in flight. */
static void test_same_head_twice(void **state)
{
	struct iovec iov[NIOV];
	struct vi_req req;
	struct dev dev;

	dev_start(&dev, 0);
	vdrv_desc(&dev.d, 0, 5, BUF, 8, W, 0);
	vdrv_avail(&dev.d, 0, 5);
	vdrv_avail(&dev.d, 0, 5);
	assert_int_equal(vq_getchain(&dev.vq, iov, NIOV, &req), 1);
	assert_int_equal(req.idx, 5);
	assert_int_equal(vq_getchain(&dev.vq, iov, NIOV, &req), -1);
	assert_true(vdrv_status(&dev.d) & VIRTIO_CONFIG_S_NEEDS_RESET);
	dev_fini(&dev);

	/* Completed in between, it is an ordinary chain. */
	dev_start(&dev, 0);
	vdrv_desc(&dev.d, 0, 5, BUF, 8, W, 0);
	for (int i = 0; i < 3; i++) {
		vdrv_avail(&dev.d, 0, 5);
		assert_int_equal(vq_getchain(&dev.vq, iov, NIOV, &req), 1);
		vq_relchain(&dev.vq, 5, 8);
	}
	assert_int_equal(vdrv_used_ring_idx(&dev.d, 0), 3);
	dev_fini(&dev);
}

/* How many chains of one buffer are used, before a lap is complete. */
static unsigned nr_used(struct dev *dev)
{
	uint16_t pos = VDRV_WRAP;

	if (!dev->d.q[0].packed)
		return vdrv_used_ring_idx(&dev->d, 0);
	while (pos < VDRV_WRAP + QSIZE && vdrv_slot_is_used(&dev->d, 0, pos))
		pos++;
	return pos - VDRV_WRAP;
}

/* Take @n chains and record their heads. */
static void take(struct dev *dev, int n, unsigned *heads)
{
	struct iovec iov[NIOV];
	struct vi_req req;

	for (int i = 0; i < n; i++) {
		assert_int_equal(vq_getchain(&dev->vq, iov, NIOV, &req), 1);
		heads[i] = req.idx;
	}
}

static void test_retchains(void **state)
{
	static const uint16_t starts[][3] = {
		{ 0, QSIZE - 2, 0xfffe },
		{ VDRV_WRAP, QSIZE - 2, VDRV_WRAP | (QSIZE - 2) },
	};
	unsigned first[4], again[4];
	struct iovec iov[NIOV];
	struct vi_req req;

	for (size_t s = 0; s < ARRAY_LEN(starts[0]); s++) {
		uint16_t start = starts[layout ? 1 : 0][s];
		struct dev dev;

		dev_start(&dev, 0);
		dev.vq.vq_last_avail = dev.d.q[0].avail_idx = start;
		dev.vq.vq_next_used = dev.vq.vq_save_used = start;
		for (int i = 0; i < 4; i++)
			vdrv_add(&dev.d, 0,
				 &(struct vdrv_buf){ BUF, 8, VDRV_W }, 1);
		take(&dev, 4, first);
		assert_int_equal(vq_getchain(&dev.vq, iov, NIOV, &req), 0);
		vq_retchains(&dev.vq, 0);
		assert_false(vq_has_descs(&dev.vq));
		vq_retchains(&dev.vq, 3);
		assert_true(vq_has_descs(&dev.vq));
		take(&dev, 3, again);
		assert_memory_equal(first + 1, again, 3 * sizeof(*first));
		vq_retchains(&dev.vq, 4);
		take(&dev, 4, again);
		assert_memory_equal(first, again, 4 * sizeof(*first));
		for (int i = 3; i >= 0; i--)
			vq_relchain(&dev.vq, (uint16_t)again[i], 8);
		vq_retchains(&dev.vq, 4); /* nothing is in flight */
		assert_false(vq_has_descs(&dev.vq));
		assert_false(dev.vs.vs_flags & VIRTIO_BROKEN);
		dev_fini(&dev);
	}
}

/* An empty chain in between was completed: it does not count. */
static void test_retchains_over_empty(void **state)
{
	struct vdrv_buf bufs[] = {
		{ BUF, 8, VDRV_W },
		{ BUF, 0, VDRV_W },
		{ BUF, 9, VDRV_W },
	};
	unsigned first[2], again[2];
	struct vdrv_used used;
	struct dev dev;

	dev_start(&dev, 0);
	for (int i = 0; i < 3; i++)
		vdrv_add(&dev.d, 0, &bufs[i], 1);
	take(&dev, 2, first);
	vq_retchains(&dev.vq, 2);
	take(&dev, 2, again);
	assert_memory_equal(first, again, sizeof(first));
	vq_relchain(&dev.vq, (uint16_t)again[0], 8);
	vq_relchain(&dev.vq, (uint16_t)again[1], 9);
	for (int i = 0; i < 3; i++)
		assert_true(vdrv_used(&dev.d, 0, &used));
	assert_false(vdrv_used(&dev.d, 0, &used)); /* none of them twice */
	assert_false(dev.vs.vs_flags & VIRTIO_BROKEN);
	dev_fini(&dev);
}

/*
 * A queue's worth of empty chains passes while one is in flight, and then that
 * one is returned.
 */
static void test_retchains_behind_many_empty(void **state)
{
	struct vdrv_buf full = { BUF, 8, VDRV_W }, empty = { BUF, 0, VDRV_W };
	unsigned first, again;
	struct iovec iov[NIOV];
	struct vdrv_used used;
	struct vi_req req;
	struct dev dev;

	dev_start(&dev, 0);
	vdrv_add(&dev.d, 0, &full, 1);
	take(&dev, 1, &first);
	for (int i = 0; i < 3 * QSIZE; i++) {
		vdrv_add(&dev.d, 0, &empty, 1);
		assert_int_equal(vq_getchain(&dev.vq, iov, NIOV, &req), 0);
		assert_true(vdrv_used(&dev.d, 0, &used));
		assert_int_equal(used.len, 0);
	}
	vq_retchains(&dev.vq, 1);
	vq_retchains(&dev.vq, 1); /* none is left */
	take(&dev, 1, &again);
	assert_int_equal(again, first);
	vq_relchain(&dev.vq, (uint16_t)again, 8);
	assert_true(vdrv_used(&dev.d, 0, &used));
	assert_int_equal(used.id, first);
	assert_false(vdrv_used(&dev.d, 0, &used));
	assert_false(dev.vs.vs_flags & VIRTIO_BROKEN);
	dev_fini(&dev);
}

/* A chain that was returned, and emptied before it was taken again. */
static void test_returned_chain_changes(void **state)
{
	unsigned head;
	struct iovec iov[NIOV];
	struct vi_req req;
	struct dev dev;

	dev_start(&dev, 0);
	vdrv_add(&dev.d, 0, &(struct vdrv_buf){ BUF, 8, VDRV_W }, 1);
	take(&dev, 1, &head);
	vq_retchains(&dev.vq, 1);
	vdrv_desc(&dev.d, 0, (uint16_t)head, BUF, 0, W, 0);
	assert_int_equal(vq_getchain(&dev.vq, iov, NIOV, &req), -1);
	assert_int_equal(vdrv_used_ring_idx(&dev.d, 0), 0);
	dev_fini(&dev);
}

/*
 * --- Chains are returned unprocessed, and the queue stops ---
 */

struct story {
	struct dev dev;
	unsigned heads[QSIZE]; /* of the chains that were added, by number */
	bool taken[QSIZE], done[QSIZE];
	unsigned nr, nr_added, nr_used;
};

static void tell_add(struct story *s, uint32_t len)
{
	struct vdrv_buf buf = { BUF, len, VDRV_W };
	uint16_t head = vdrv_add(&s->dev.d, 0, &buf, 1);

	s->nr_added++;
	if (len > 0)
		s->heads[s->nr++] = head;
}

static void tell_collect(struct story *s)
{
	struct vdrv_used used;

	while (vdrv_used(&s->dev.d, 0, &used))
		s->nr_used++;
}

/* Take all chains, oldest first. */
static void tell_take(struct story *s)
{
	struct iovec iov[NIOV];
	struct vi_req req;

	for (unsigned i = 0; i < s->nr; i++) {
		if (s->taken[i] || s->done[i])
			continue;
		assert_int_equal(vq_getchain(&s->dev.vq, iov, NIOV, &req), 1);
		assert_int_equal(req.idx, s->heads[i]);
		s->taken[i] = true;
	}
	assert_int_equal(vq_getchain(&s->dev.vq, iov, NIOV, &req), 0);
}

static void tell_use(struct story *s, unsigned i)
{
	vq_relchain(&s->dev.vq, (uint16_t)s->heads[i], 1);
	s->taken[i] = false;
	s->done[i] = true;
	tell_collect(s);
}

static void tell_return(struct story *s, unsigned i)
{
	assert_true(vq_retchain(&s->dev.vq, (uint16_t)s->heads[i]));
	assert_false(vq_retchain(&s->dev.vq, (uint16_t)s->heads[i]));
	s->taken[i] = false;
}

/* Take and complete others, three times the number of entries. */
static void tell_pass(struct story *s)
{
	unsigned head;

	for (int i = 0; i < 3 * QSIZE; i++) {
		vdrv_add(&s->dev.d, 0, &(struct vdrv_buf){ BUF, 8, VDRV_W }, 1);
		take(&s->dev, 1, &head);
		vq_relchain(&s->dev.vq, (uint16_t)head, 8);
		s->nr_added++;
		tell_collect(s);
	}
}

/*
 * a: add a chain; e: an empty one; t: take all; P: let others pass; with a
 * digit, u: use that one; r: return that one; R: return so many.
 */
static void tell(struct story *s, const char *what)
{
	for (; *what; what++) {
		unsigned i = (unsigned)what[1] - '0';

		if (*what == 'a' || *what == 'e')
			tell_add(s, *what == 'a' ? 8 : 0);
		else if (*what == 't')
			tell_take(s);
		else if (*what == 'P')
			tell_pass(s);
		else if (*what == 'u')
			tell_use(s, i);
		else if (*what == 'r')
			tell_return(s, i);
		else if (*what == 'R')
			vq_retchains(&s->dev.vq, (uint16_t)i);
		if (*what == 'R')
			memset(s->taken, 0, sizeof(s->taken));
	}
	tell_collect(s);
}

/* Stop the queue, and set it up again where it was. */
static void stop_and_resume(struct dev *dev, uint16_t entry, unsigned nr_left)
{
	struct vqueue_info *vq = &dev->vq, was = *vq;
	struct vq_left *left;
	uint32_t base;

	vi_pause_queue(vq);
	assert_int_equal(vq->vq_priv->nr_inflight, 0);
	left = vq_left_chains(vq);
	assert_int_equal(left ? left->nr : 0, nr_left);
	base = vi_stop_queue(vq);
	if (!dev->d.q[0].packed)
		assert_int_equal(base, entry);
	vq->vq_desc_gpa = was.vq_desc_gpa;
	vq->vq_avail_gpa = was.vq_avail_gpa;
	vq->vq_used_gpa = was.vq_used_gpa;
	vi_set_queue_size(vq, was.vq_qsize);
	dev->vs.vs_curq = 0;
	vi_enable_queue(&dev->vs);
	vq_resume(vq, base, false);
	vq_take_left(vq, left);
	free(left);
}

/* None is lost, none completed twice, and the oldest come first. */
static void test_stop_returned(void **state)
{
	static const struct {
		const char *story;
		uint16_t base;
		unsigned nr_left;
	} rows[] = {
		{ "aaa", 0, 0 },
		{ "aaatu0u1r2", 2, 0 },
		{ "aaatr2r1r0", 0, 0 },
		{ "aaatr0r1r2", 0, 0 },
		{ "aaatr1r0r2", 0, 0 },
		{ "aaatu1u2r0", 3, 1 },
		{ "aaaatr1r3u0u2", 3, 1 },
		{ "aaaatr3r1u0u2", 3, 1 },
		{ "aaaatr0r2u1r3", 2, 1 },
		{ "aaaatr2r0u1u3", 4, 2 },
		{ "aaatr1tr1u0u2", 3, 1 },
		{ "aaatu1r0tu2r0", 3, 1 },
		{ "aatPr0r1", 26, 2 },
		{ "aatPr1r0", 26, 2 },
		{ "aatPu1r0aa", 26, 1 },
		/* Empty ones were completed between them. */
		{ "aeatR2", 2, 1 },
		{ "eaatR2", 1, 0 },
		{ "aaetR2", 3, 2 },
		{ "aeaeatR3", 4, 2 },
		{ "aeatu0R1", 2, 0 },
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct story s = { 0 };

		print_message("%s\n", rows[i].story);
		dev_start(&s.dev, 0);
		tell(&s, rows[i].story);
		for (unsigned again = 0; again < 2; again++)
			stop_and_resume(&s.dev, rows[i].base, rows[i].nr_left);
		assert_false(s.dev.vs.vs_flags & VIRTIO_BROKEN);
		tell_take(&s);
		for (unsigned n = 0; n < s.nr; n++) {
			if (s.taken[n])
				tell_use(&s, n);
		}
		assert_int_equal(s.nr_used, s.nr_added);
		assert_false(vq_has_descs(&s.dev.vq));
		dev_fini(&s.dev);
	}
}

/* Another host would not learn of one that is not among the last. */
static void test_return_logged(void **state)
{
	static uint8_t log[1 << 20];
	struct story s = { 0 };

	dev_start(&s.dev, 0);
	tell(&s, "aaatu1");
	gm_set_log(&s.dev.d.gm, log, sizeof(log));
	assert_false(vq_retchain(&s.dev.vq, (uint16_t)s.heads[0]));
	tell_return(&s, 2);
	tell(&s, "u0");
	stop_and_resume(&s.dev, 2, 0);
	tell(&s, "tu2");
	assert_int_equal(s.nr_used, 3);
	gm_set_log(&s.dev.d.gm, NULL, 0);
	dev_fini(&s.dev);
}

/*
 * --- The used ring ---
 */

/* SPLIT-13, SPLIT-15, hostile F24: a group becomes visible at once. */
static void test_prepare_publish(void **state)
{
	unsigned heads[3];
	struct vdrv_used used;
	struct dev dev;

	dev_start(&dev, 0);
	for (int i = 0; i < 3; i++)
		vdrv_add(&dev.d, 0, &(struct vdrv_buf){ BUF, 8, VDRV_W }, 1);
	take(&dev, 3, heads);
	for (uint16_t i = 0; i < 3; i++) {
		vq_relchain_prepare(&dev.vq, (uint16_t)heads[i], i);
		assert_int_equal(nr_used(&dev), 0);
	}
	vq_relchain_publish(&dev.vq);
	assert_int_equal(nr_used(&dev), 3);
	for (uint16_t i = 0; i < 3; i++) {
		assert_true(vdrv_used(&dev.d, 0, &used));
		assert_int_equal(used.id, heads[i]);
		assert_int_equal(used.len, i);
	}
	dev_fini(&dev);
}

/* SPLIT-14, hostile D40: no more than the chain's writable bytes. */
static void test_used_len_is_cut(void **state)
{
	struct vdrv_buf bufs[] = {
		{ BUF, 100, VDRV_R },
		{ BUF + 100, 7, VDRV_W },
		{ BUF + 200, 3, VDRV_W },
	};
	static const struct {
		uint32_t given, seen;
	} rows[] = {
		{ 0, 0 }, { 9, 9 }, { 10, 10 }, { 11, 10 }, { UINT32_MAX, 10 },
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct iovec iov[NIOV];
		struct vdrv_used used;
		struct vi_req req;
		struct dev dev;

		dev_start(&dev, 0);
		vdrv_add(&dev.d, 0, bufs, 3);
		assert_int_equal(vq_getchain(&dev.vq, iov, NIOV, &req), 3);
		vq_relchain(&dev.vq, (uint16_t)req.idx, rows[i].given);
		assert_true(vdrv_used(&dev.d, 0, &used));
		assert_int_equal(used.len, rows[i].seen);
		dev_fini(&dev);
	}
}

/* hostile F24, hostile S15b: a chain that is not in flight is not completed. */
static void test_wrong_relchain(void **state)
{
	static const uint16_t wrong[] = { 0 /* twice */, 1, QSIZE, 0xffff };

	for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
		unsigned head;
		struct dev dev;

		dev_start(&dev, 0);
		vdrv_add(&dev.d, 0, &(struct vdrv_buf){ BUF, 8, VDRV_W }, 1);
		take(&dev, 1, &head);
		assert_int_equal(head, 0);
		vq_relchain(&dev.vq, 0, 8);
		vq_relchain(&dev.vq, wrong[i], 8);
		assert_int_equal(nr_used(&dev), 1);
		assert_true(vdrv_status(&dev.d) & VIRTIO_CONFIG_S_NEEDS_RESET);
		dev_fini(&dev);
	}
}

/* hostile F9, hostile S15g: a completion that outlives its queue. */
static void test_relchain_after_reset(void **state)
{
	unsigned head;
	struct dev dev;

	dev_start(&dev, 0);
	vdrv_add(&dev.d, 0, &(struct vdrv_buf){ BUF, 8, VDRV_W }, 1);
	take(&dev, 1, &head);
	vdrv_reset_now(&dev.d);
	assert_false(vq_chain_live(&dev.vq, (uint16_t)head));
	assert_true(vdrv_status(&dev.d) != 0); /* not complete yet */
	vq_relchain(&dev.vq, (uint16_t)head, 8);
	vq_endchains(&dev.vq, 1);
	assert_int_equal(vdrv_status(&dev.d), 0);
	assert_true(dev.d.woken);
	assert_false(dev.vs.vs_flags & VIRTIO_BROKEN);
	dev_fini(&dev);
}

/*
 * If a driver does not wait for the reset to end, no chain with the head of one
 * still in flight is taken, and that one's completion stays hidden, whatever
 * the ring's size.
 */
static void test_stale_head(void **state)
{
	static const uint16_t sizes[] = { QSIZE, 2 };
	unsigned old[3], head;
	struct iovec iov[NIOV];
	struct vdrv_used used;
	struct vi_req req;
	struct dev dev;

	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		dev_start(&dev, EVENT_IDX);
		for (int k = 0; k < 3; k++)
			vdrv_add(&dev.d, 0,
				 &(struct vdrv_buf){ BUF, 8, VDRV_W }, 1);
		take(&dev, 3, old);
		vdrv_reset_now(&dev.d);
		vdrv_wake(&dev.d);
		vdrv_greet(&dev.d);
		assert_true(vdrv_negotiate(&dev.d, V1 | EVENT_IDX | layout));
		assert_true(vdrv_queue_setup(&dev.d, 0, sizes[i]));
		vdrv_driver_ok(&dev.d);
		assert_false(dev.d.woken);

		head = vdrv_add(&dev.d, 0, &(struct vdrv_buf){ BUF, 8, VDRV_W },
				1);
		assert_int_equal(head, old[0]);
		if (i > 0) /* in either order */
			assert_false(vq_has_descs(&dev.vq));
		assert_int_equal(vq_getchain(&dev.vq, iov, NIOV, &req), 0);
		assert_false(vq_has_descs(&dev.vq));
		for (int k = 2; k >= 0; k--)
			vq_relchain(&dev.vq, (uint16_t)old[k], 8);
		assert_int_equal(nr_used(&dev), 0);
		assert_true(dev.d.woken);
		take(&dev, 1, &head);
		vq_relchain(&dev.vq, (uint16_t)head, 7);
		assert_true(vdrv_used(&dev.d, 0, &used));
		assert_int_equal(used.len, 7);
		assert_false(dev.vs.vs_flags & VIRTIO_BROKEN);
		dev_fini(&dev);
	}
}

static unsigned finished; /* by a worker, for dev_finish() */

static void dev_finish(void *sc, struct vqueue_info *vq)
{
	vq_relchain(vq, (uint16_t)finished, 8);
}

/*
 * For a model that completes from its notify function, vi_wake() leads there
 * after a reset as well, and when the device was broken at the time.
 */
static void test_wake_after_reset(void **state)
{
	struct dev dev;

	for (int broken = 0; broken < 2; broken++) {
		dev_start(&dev, 0);
		dev.vc.vc_qnotify = dev_finish;
		vdrv_add(&dev.d, 0, &(struct vdrv_buf){ BUF, 8, VDRV_W }, 1);
		take(&dev, 1, &finished);
		if (broken) {
			vi_error(&dev.vs, "broken on purpose");
			vi_wake(&dev.vs);
			vdrv_wake(&dev.d);
		}
		vdrv_reset_now(&dev.d);
		if (!broken)
			vi_wake(&dev.vs);
		assert_int_not_equal(vdrv_status(&dev.d), 0);
		vdrv_wake(&dev.d);
		assert_int_equal(vdrv_status(&dev.d), 0);
		dev_fini(&dev);
	}
}

/* A reset waits for the owner's chains, not for those of the previous one. */
static void test_stale_of_others(void **state)
{
	unsigned theirs, ours;
	struct dev dev;

	dev_start(&dev, 0);
	vdrv_add(&dev.d, 0, &(struct vdrv_buf){ BUF, 8, VDRV_W }, 1);
	take(&dev, 1, &theirs);
	pci_reset(&dev.d.pi);
	assert_false(pci_is_reset(&dev.d.pi));
	pci_new_owner(&dev.d.pi);
	for (int i = 0; i < 2; i++) {
		assert_true(pci_is_reset(&dev.d.pi));
		assert_int_equal(vdrv_status(&dev.d), 0);
		vdrv_reset_now(&dev.d);
	}
	assert_false(pci_is_idle(&dev.d.pi));

	assert_true(vdrv_start(&dev.d, V1, 1));
	vdrv_desc(&dev.d, 0, 3, BUF, 8, W, 0);
	vdrv_avail(&dev.d, 0, 3);
	take(&dev, 1, &ours);
	vdrv_reset_now(&dev.d);
	assert_false(pci_is_reset(&dev.d.pi));
	assert_int_not_equal(vdrv_status(&dev.d), 0);
	dev.d.woken = false;
	vq_relchain(&dev.vq, (uint16_t)ours, 8);
	assert_true(dev.d.woken);
	assert_true(pci_is_reset(&dev.d.pi));
	assert_int_equal(vdrv_status(&dev.d), 0);
	vq_relchain(&dev.vq, (uint16_t)theirs, 8);
	assert_true(pci_is_idle(&dev.d.pi));
	dev_fini(&dev);
}

/* Completed twice, or never taken. */
static void test_relchain_not_taken(void **state)
{
	struct dev dev;

	dev_start(&dev, 0);
	vq_relchain(&dev.vq, 0, 8);
	assert_true(dev.vs.vs_flags & VIRTIO_BROKEN);
	assert_int_equal(nr_used(&dev), 0);
	dev_fini(&dev);
}

/* The dirty log follows a chain that has been changed into a loop. */
static void test_mark_of_changed_chain(void **state)
{
	static uint8_t log[VDRV_MEM_BYTES / GM_LOG_PAGE];
	unsigned head;
	struct dev dev;

	dev_start(&dev, INDIRECT);
	gm_set_log(&dev.d.gm, log, sizeof(log));
	vdrv_add(&dev.d, 0, &(struct vdrv_buf){ BUF, 8, VDRV_W }, 1);
	take(&dev, 1, &head);
	/* The table is the queue's own, and its entry refers to it again. */
	vdrv_desc(&dev.d, 0, (uint16_t)head, dev.vq.vq_desc_gpa, 16 * QSIZE, I,
		  0);
	vq_relchain(&dev.vq, (uint16_t)head, 8);
	assert_int_equal(vdrv_used_ring_idx(&dev.d, 0), 1);
	dev_fini(&dev);
}

/*
 * --- Notifications ---
 */

/*
 * SPLIT-11, SPLIT-12, SPLIT-16: interrupt if used_event is among the @nr
 * entries from @old on.
 */
static void test_event_idx(void **state)
{
	static const struct {
		uint16_t old, nr, event;
		bool interrupt;
	} rows[] = {
		{ 0, 1, 0, true },
		{ 0, 1, 1, false },
		{ 0, 1, 0xffff, false },
		{ 0, 1, 0x8000, false },
		{ 0, 8, 0, true },
		{ 0, 8, 3, true },
		{ 0, 8, 7, true },
		{ 0, 8, 8, false },
		{ 100, 4, 99, false },
		{ 100, 4, 100, true },
		{ 100, 4, 103, true },
		{ 100, 4, 104, false },
		{ 0xffff, 1, 0xffff, true },
		{ 0xffff, 1, 0, false },
		{ 0xffff, 1, 0xfffe, false },
		{ 0xfffe, 4, 0xfffe, true },
		{ 0xfffe, 4, 0xffff, true },
		{ 0xfffe, 4, 0, true },
		{ 0xfffe, 4, 1, true },
		{ 0xfffe, 4, 2, false },
		{ 0xfffe, 4, 0xfffd, false },
		{ 0x7ffe, 4, 0x8000, true },
		{ 5, 0, 5, false },
		{ 5, 0, 4, false },
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		unsigned heads[QSIZE];
		struct dev dev;

		dev_start(&dev, EVENT_IDX);
		dev.vq.vq_last_avail = dev.d.q[0].avail_idx = rows[i].old;
		dev.vq.vq_next_used = dev.vq.vq_save_used = rows[i].old;
		/* SPLIT-11: the flag is ignored. */
		vdrv_set_avail_flags(&dev.d, 0, i & 1);
		vdrv_set_used_event(&dev.d, 0, rows[i].event);
		for (int j = 0; j < rows[i].nr; j++)
			vdrv_add(&dev.d, 0,
				 &(struct vdrv_buf){ BUF, 8, VDRV_W }, 1);
		take(&dev, rows[i].nr, heads);
		for (int j = 0; j < rows[i].nr; j++)
			vq_relchain(&dev.vq, (uint16_t)heads[j], 8);
		assert_int_equal(dev.d.nr_msix[1], 0);
		vq_endchains(&dev.vq, 1);
		if (dev.d.nr_msix[1] != rows[i].interrupt)
			fail_msg("old %u nr %u event %u", rows[i].old,
				 rows[i].nr, rows[i].event);
		vq_endchains(&dev.vq, 1); /* nothing new */
		assert_int_equal(dev.d.nr_msix[1], rows[i].interrupt);
		dev_fini(&dev);
	}
}

/* SPLIT-09, SPLIT-10, FEAT-L03: without EVENT_IDX. */
static void test_interrupt_flag(void **state)
{
	static const struct {
		uint16_t flags;
		bool legacy, on_empty, ran_empty;
		bool interrupt;
	} rows[] = {
		{ 0, false, false, true, true },
		{ 1, false, false, true, false },
		{ 0, false, false, false, true },
		{ 1, false, false, false, false },
		{ 0, true, true, true, true },
		{ 1, true, true, true, true },
		{ 1, true, true, false, false },
		{ 1, true, false, true, false },
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		unsigned head;
		struct dev dev;

		dev_init(&dev, rows[i].legacy ? VIRTIO_MODE_LEGACY :
						VIRTIO_MODE_MODERN);
		assert_true(
			vdrv_start(&dev.d,
				   (rows[i].legacy ? 0 : V1) |
					   (rows[i].on_empty ? ON_EMPTY : 0),
				   1));
		vdrv_set_avail_flags(&dev.d, 0, rows[i].flags);
		vdrv_set_used_event(&dev.d, 0, 0x1234); /* SPLIT-09 */
		vdrv_add(&dev.d, 0, &(struct vdrv_buf){ BUF, 8, VDRV_W }, 1);
		take(&dev, 1, &head);
		vq_relchain(&dev.vq, (uint16_t)head, 8);
		vq_endchains(&dev.vq, rows[i].ran_empty);
		if (dev.d.nr_msix[1] != rows[i].interrupt)
			fail_msg("row %zu", i);
		dev_fini(&dev);
	}
}

/* SPLIT-17, SPLIT-18, hostile S22: how the device requests kicks. */
static void test_kick_enable(void **state)
{
	struct dev dev;
	unsigned head;

	dev_start(&dev, 0);
	assert_int_equal(vdrv_used_flags(&dev.d, 0), 0);
	vq_kick_disable(&dev.vq);
	assert_int_equal(vdrv_used_flags(&dev.d, 0), 1);
	vdrv_add(&dev.d, 0, &(struct vdrv_buf){ BUF, 8, VDRV_W }, 1);
	assert_false(vdrv_kick_wanted(&dev.d, 0));
	vq_kick_enable(&dev.vq);
	assert_int_equal(vdrv_used_flags(&dev.d, 0), 0);
	assert_int_equal(vdrv_avail_event(&dev.d, 0), 0);
	dev_fini(&dev);

	dev_start(&dev, EVENT_IDX);
	for (unsigned round = 0; round < 0x10010; round++) {
		struct vdrv_buf buf = { BUF, 8, VDRV_W };

		vq_kick_disable(&dev.vq);
		vq_kick_enable(&dev.vq);
		assert_int_equal(vdrv_avail_event(&dev.d, 0), (uint16_t)round);
		assert_int_equal(vdrv_used_flags(&dev.d, 0), 0);
		vdrv_add(&dev.d, 0, &buf, 1);
		assert_true(vdrv_kick_wanted(&dev.d, 0));
		take(&dev, 1, &head);
		vq_relchain(&dev.vq, (uint16_t)head, 8);
		assert_true(vdrv_used(&dev.d, 0, NULL));
	}
	dev_fini(&dev);
}

/* hostile S24, hostile K11: all calls on a queue that is not set up. */
static void test_queue_not_ready(void **state)
{
	struct iovec iov[NIOV];
	struct vi_req req;
	struct dev dev;

	dev_init(&dev, VIRTIO_MODE_MODERN);
	assert_false(vq_ring_ready(&dev.vq));
	assert_false(vq_has_descs(&dev.vq));
	assert_int_equal(vq_getchain(&dev.vq, iov, NIOV, &req), 0);
	vq_kick_disable(&dev.vq);
	vq_kick_enable(&dev.vq);
	vq_retchains(&dev.vq, 1);
	vq_relchain(&dev.vq, 0, 0);
	vq_relchain_publish(&dev.vq);
	vq_endchains(&dev.vq, 1);
	assert_int_equal(dev.d.nr_msix[1], 0);
	dev_fini(&dev);
}

/*
 * --- Guest memory that moves, or is not shared ---
 */

/* hostile D1: the region is mapped elsewhere, or removed, while in use. */
static void test_memory_moves(void **state)
{
	static const unsigned rw = GM_READ | GM_WRITE;
	const gpa_t base = { VDRV_MEM_BASE };
	struct vdrv_buf buf = { BUF, 8, VDRV_W };
	struct iovec iov[NIOV];
	struct vi_req req;
	struct vdrv_used used;
	struct dev dev;
	uint8_t *old, *copy;

	dev_start(&dev, EVENT_IDX);
	vdrv_add(&dev.d, 0, &buf, 1);
	assert_int_equal(vq_getchain(&dev.vq, iov, NIOV, &req), 1);
	vq_relchain(&dev.vq, (uint16_t)req.idx, 8);

	copy = mmap(NULL, VDRV_MEM_BYTES, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	assert_true(copy != MAP_FAILED);
	memcpy(copy, dev.d.mem, 4 << 20);
	assert_int_equal(gm_remove(&dev.d.gm, base, VDRV_MEM_BYTES, NULL, NULL),
			 0);
	mprotect(dev.d.mem, VDRV_MEM_BYTES, PROT_NONE); /* any access faults */
	assert_int_equal(gm_add(&dev.d.gm, base, VDRV_MEM_BYTES, copy, rw), 0);
	old = dev.d.mem;
	dev.d.mem = copy;
	assert_true(vdrv_used(&dev.d, 0, &used));
	vdrv_add(&dev.d, 0, &buf, 1);
	assert_int_equal(vq_getchain(&dev.vq, iov, NIOV, &req), 1);
	assert_ptr_equal(iov[0].iov_base, vdrv_ptr(&dev.d, BUF, 8));
	vq_relchain(&dev.vq, (uint16_t)req.idx, 8);
	vq_endchains(&dev.vq, 1);
	assert_true(vdrv_used(&dev.d, 0, &used));

	vdrv_add(&dev.d, 0, &buf, 1);
	assert_int_equal(gm_remove(&dev.d.gm, base, VDRV_MEM_BYTES, NULL, NULL),
			 0);
	mprotect(copy, VDRV_MEM_BYTES, PROT_NONE);
	assert_true(vq_getchain(&dev.vq, iov, NIOV, &req) <= 0);
	assert_false(vq_has_descs(&dev.vq));
	vq_kick_enable(&dev.vq);
	vq_kick_disable(&dev.vq);
	vq_endchains(&dev.vq, 1);

	munmap(copy, VDRV_MEM_BYTES);
	mprotect(old, VDRV_MEM_BYTES, PROT_READ | PROT_WRITE);
	dev.d.mem = old;
	dev_fini(&dev);
}

static int far_error;
static int far_good; /* how many reads succeed before the error */

static struct vdrv *far_offer; /* adds a chain in the middle of a read */

static int far_read(void *arg, gpa_t a, void *buf, size_t len)
{
	size_t part = far_offer && len > 2 ? len - 2 : 0;

	if (far_error && far_good-- <= 0)
		return far_error;
	memcpy(buf, vdrv_ptr(arg, a.v, len), part);
	if (far_offer)
		vdrv_add(far_offer, 0, &(struct vdrv_buf){ BUF, 8, 0 }, 1);
	far_offer = NULL;
	memcpy((char *)buf + part, vdrv_ptr(arg, a.v + part, len - part),
	       len - part);
	return 0;
}

static struct vdrv *far_refill; /* offers completed chains again */

static int far_write(void *arg, gpa_t a, const void *buf, size_t len)
{
	if (far_error)
		return far_error;
	memcpy(vdrv_ptr(arg, a.v, len), buf, len);
	while (far_refill && vdrv_used(far_refill, 0, NULL))
		vdrv_add(far_refill, 0, &(struct vdrv_buf){ BUF, 0, 0 }, 1);
	return 0;
}

static const struct gmem_ops far_ops = { far_read, far_write };

/* All of RAM is announced but not mapped: ring, tables and buffers. */
static void far_start(struct dev *dev, uint64_t features)
{
	dev_init(dev, VIRTIO_MODE_MODERN);
	gm_fini(&dev->d.gm);
	gm_init(&dev->d.gm, &far_ops, &dev->d);
	assert_int_equal(gm_add(&dev->d.gm, (gpa_t){ VDRV_MEM_BASE },
				VDRV_MEM_BYTES, NULL, GM_READ | GM_WRITE),
			 0);
	far_error = far_good = 0;
	assert_true(vdrv_start(&dev->d, features | layout | V1, 1));
}

/*
 * A second processor adds empty chains as fast as they are completed: neither
 * call runs for ever, and the embedder is asked to call again.
 */
static void test_empty_for_ever(void **state)
{
	struct iovec iov[NIOV];
	struct vi_req req;
	struct dev dev;

	for (int look = 0; look < 2; look++) {
		far_start(&dev, 0);
		for (int i = 0; i < QSIZE; i++)
			vdrv_add(&dev.d, 0, &(struct vdrv_buf){ BUF, 0, 0 }, 1);
		far_refill = &dev.d;
		if (look)
			assert_false(vq_has_descs(&dev.vq));
		else
			assert_int_equal(vq_getchain(&dev.vq, iov, NIOV, &req),
					 0);
		far_refill = NULL;
		assert_in_range(dev.vq.vq_priv->nr_chains, QSIZE,
				4 * QSIZE - 1);
		assert_true(dev.d.woken);
		assert_false(vq_has_descs(&dev.vq)); /* not before a kick */
		vdrv_wake(&dev.d);
		assert_false(vq_has_descs(&dev.vq));
		assert_int_equal(dev.vq.vq_last_avail, dev.vq.vq_next_used);
		if (!layout)
			assert_int_equal(dev.vq.vq_last_avail,
					 vdrv_used_ring_idx(&dev.d, 0));
		assert_false(dev.vs.vs_flags & VIRTIO_BROKEN);
		dev_fini(&dev);
	}
}

static void test_memory_not_shared(void **state)
{
	struct vdrv_buf bufs[] = {
		{ BUF, 5, VDRV_R },
		{ BUF + 100, 6, VDRV_W },
		{ BUF + 200, 6, VDRV_W },
	};
	struct iovec iov[NIOV];
	struct vdrv_used used;
	struct vi_req req;
	struct dev dev;

	far_start(&dev, INDIRECT | EVENT_IDX);
	memcpy(vdrv_ptr(&dev.d, BUF, 5), "hello", 5);
	for (int i = 0; i < 20; i++) {
		memset(vdrv_ptr(&dev.d, BUF + 100, 200), 0xee, 200);
		if (i & 1)
			vdrv_add_indirect(&dev.d, 0, bufs, 3);
		else
			vdrv_add(&dev.d, 0, bufs, 3);
		assert_true(vdrv_kick_wanted(&dev.d, 0));
		assert_int_equal(vq_getchain(&dev.vq, iov, NIOV, &req), 3);
		assert_memory_equal(iov[0].iov_base, "hello", 5);
		memcpy(iov[1].iov_base, "abcdef", 6);
		memcpy(iov[2].iov_base, "ghijkl", 6);
		vq_relchain(&dev.vq, (uint16_t)req.idx, 8);
		vq_endchains(&dev.vq, 1);
		vq_kick_enable(&dev.vq);
		assert_true(vdrv_used(&dev.d, 0, &used));
		assert_int_equal(used.len, 8);
		assert_memory_equal(vdrv_ptr(&dev.d, BUF + 100, 6), "abcdef",
				    6);
		/* Bytes not counted as used arrive as well: BLK-20. */
		assert_memory_equal(vdrv_ptr(&dev.d, BUF + 200, 6), "ghijkl",
				    6);
		assert_int_equal(dev.d.nr_msix[1], i + 1);
	}
	dev_fini(&dev);
}

/*
 * 2.8.17: the driver adds a chain while its first descriptor is read, after the
 * address was and before the flags are: nothing is taken for the chain that was
 * there before.
 */
static void test_memory_changes_meanwhile(void **state)
{
	struct iovec iov[NIOV];
	struct vi_req req;
	struct dev dev;
	int n;

	far_start(&dev, 0);
	memcpy(vdrv_ptr(&dev.d, BUF, 8), "complete", 8);
	far_offer = &dev.d;
	n = vq_getchain(&dev.vq, iov, NIOV, &req);
	assert_null(far_offer);
	if (n == 0)
		n = vq_getchain(&dev.vq, iov, NIOV, &req);
	assert_int_equal(n, 1);
	assert_int_equal(iov[0].iov_len, 8);
	assert_memory_equal(iov[0].iov_base, "complete", 8);
	assert_int_equal(dev.vq.vq_priv->nr_chains, 1);
	dev_fini(&dev);
}

/* "Not now" loses nothing; any other failure stops the device. */
static void test_memory_not_now(void **state)
{
	struct vdrv_buf buf = { BUF, 8, VDRV_W };
	struct iovec iov[NIOV];
	struct vdrv_used used;
	struct vi_req req;
	struct dev dev;

	far_start(&dev, 0);
	vdrv_add(&dev.d, 0, &buf, 1);
	far_error = -EAGAIN;
	assert_int_equal(vq_getchain(&dev.vq, iov, NIOV, &req), 0);
	far_error = 0;
	vdrv_kick(&dev.d, 0);
	assert_int_equal(vq_getchain(&dev.vq, iov, NIOV, &req), 1);
	vq_relchain(&dev.vq, (uint16_t)req.idx, 8);
	assert_true(vdrv_used(&dev.d, 0, &used));

	vdrv_add(&dev.d, 0, &buf, 1);
	far_error = -EIO;
	assert_int_equal(vq_getchain(&dev.vq, iov, NIOV, &req), -1);
	assert_true(dev.vs.vs_flags & VIRTIO_BROKEN);
	dev_fini(&dev);
}

/* The same at each single access that a chain with a table takes. */
static void test_memory_not_now_anywhere(void **state)
{
	static const int errors[] = { -EAGAIN, -EIO };
	struct vdrv_buf bufs[] = {
		{ BUF, 5, VDRV_R },
		{ BUF + 50, 6, VDRV_R },
		{ BUF + 100, 6, VDRV_W },
	};
	struct iovec iov[NIOV];
	struct vi_req req;
	int n, nth;

	for (size_t e = 0; e < ARRAY_LEN(errors); e++) {
		for (nth = 0, n = 0; n <= 0; nth++) {
			struct dev dev;

			assert_true(nth < 20);
			far_start(&dev, INDIRECT);
			vdrv_add_indirect(&dev.d, 0, bufs, 3);
			far_error = errors[e];
			far_good = nth;
			n = vq_getchain(&dev.vq, iov, NIOV, &req);
			far_error = 0;
			if (n <= 0 && errors[e] == -EAGAIN) {
				assert_int_equal(n, 0);
				assert_int_equal(dev.vs.vs_priv->bounce_bytes,
						 0);
				vdrv_kick(&dev.d, 0);
				assert_int_equal(
					vq_getchain(&dev.vq, iov, NIOV, &req),
					3);
			} else if (n <= 0) {
				assert_int_equal(n, -1);
				assert_int_equal(dev.vs.vs_priv->bounce_bytes,
						 0);
			}
			dev_fini(&dev);
		}
		assert_true(nth > 4); /* index, head, descriptor, table, ... */
	}
}

/* hostile S15d: copies of such buffers stay bounded. */
static void test_memory_not_shared_is_bounded(void **state)
{
	struct vdrv_buf bufs[64];
	struct iovec iov[64];
	struct vi_req req;
	struct dev dev;

	for (unsigned i = 0; i < ARRAY_LEN(bufs); i++)
		bufs[i] = (struct vdrv_buf){ VDRV_MEM_BASE, 48u << 20, VDRV_W };
	far_start(&dev, INDIRECT);
	vdrv_add_indirect(&dev.d, 0, bufs, ARRAY_LEN(bufs));
	assert_int_equal(vq_getchain(&dev.vq, iov, 64, &req), -1);
	assert_int_equal(dev.vs.vs_priv->bounce_bytes, 0);
	dev_fini(&dev);
}

/*
 * The bound is per device, across queues and resets. A waiting queue is woken
 * when there is room, and a chain that is alone may be larger.
 */
static void test_memory_not_shared_of_all_queues(void **state)
{
	enum { MIB = 1 << 20 };
	struct vdrv_buf buf = { VDRV_MEM_BASE + 32 * MIB, 3 * MIB, VDRV_W };
	struct vdrv_buf large = { VDRV_MEM_BASE + 32 * MIB, 12 * MIB, VDRV_W };
	unsigned heads[2];
	struct iovec iov[NIOV];
	struct vi_req req;
	struct dev dev;

	far_start(&dev, 0);
	vdrv_add(&dev.d, 0, &buf, 1);
	vdrv_add(&dev.d, 0, &buf, 1);
	take(&dev, 1, heads);
	assert_int_equal(vq_getchain(&dev.vq, iov, NIOV, &req), 0);
	assert_in_range(dev.vs.vs_priv->bounce_bytes, 3 * MIB, 4 * MIB);
	assert_false(dev.d.woken);

	/* A request that does not end holds it, even across a reset. */
	vdrv_reset_now(&dev.d);
	vdrv_greet(&dev.d);
	assert_true(vdrv_negotiate(&dev.d, V1 | layout));
	assert_true(vdrv_queue_setup(&dev.d, 0, 0));
	vdrv_driver_ok(&dev.d);
	if (layout) {
		vdrv_slot(&dev.d, 0, &buf, W, 5);
	} else {
		vdrv_desc(&dev.d, 0, 5, buf.gpa, buf.len, W, 0);
		vdrv_avail(&dev.d, 0, 5);
	}
	assert_int_equal(vq_getchain(&dev.vq, iov, NIOV, &req), 0);
	assert_in_range(dev.vs.vs_priv->bounce_bytes, 3 * MIB, 4 * MIB);
	assert_int_equal(dev.vs.vs_priv->nr_stale, 1);
	vq_relchain(&dev.vq, (uint16_t)heads[0], 0);
	assert_true(dev.d.woken);
	assert_int_equal(dev.vs.vs_priv->bounce_bytes, 0);
	vdrv_reset(&dev.d);

	assert_true(vdrv_start(&dev.d, V1 | layout, 1));
	vdrv_add(&dev.d, 0, &large, 1);
	vdrv_add(&dev.d, 0, &buf, 1);
	take(&dev, 1, heads);
	assert_int_equal(vq_getchain(&dev.vq, iov, NIOV, &req), 0);
	dev.d.woken = false;
	vq_relchain(&dev.vq, (uint16_t)heads[0], 0);
	assert_true(dev.d.woken);
	take(&dev, 1, heads);
	vq_relchain(&dev.vq, (uint16_t)heads[0], 0);
	assert_int_equal(dev.vs.vs_priv->bounce_bytes, 0);
	assert_false(dev.vs.vs_flags & VIRTIO_BROKEN);
	dev_fini(&dev);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_chains),
		cmocka_unit_test(test_legacy_chains),
		cmocka_unit_test(test_niov),
		cmocka_unit_test(test_avail_idx),
		cmocka_unit_test(test_same_head_twice),
		cmocka_unit_test(test_retchains),
		cmocka_unit_test(test_retchains_over_empty),
		cmocka_unit_test(test_retchains_behind_many_empty),
		cmocka_unit_test(test_stop_returned),
		cmocka_unit_test(test_return_logged),
		cmocka_unit_test(test_returned_chain_changes),
		cmocka_unit_test(test_prepare_publish),
		cmocka_unit_test(test_used_len_is_cut),
		cmocka_unit_test(test_wrong_relchain),
		cmocka_unit_test(test_relchain_after_reset),
		cmocka_unit_test(test_stale_head),
		cmocka_unit_test(test_wake_after_reset),
		cmocka_unit_test(test_stale_of_others),
		cmocka_unit_test(test_relchain_not_taken),
		cmocka_unit_test(test_mark_of_changed_chain),
		cmocka_unit_test(test_event_idx),
		cmocka_unit_test(test_interrupt_flag),
		cmocka_unit_test(test_kick_enable),
		cmocka_unit_test(test_queue_not_ready),
		cmocka_unit_test(test_memory_moves),
		cmocka_unit_test(test_empty_for_ever),
		cmocka_unit_test(test_memory_not_shared),
		cmocka_unit_test(test_memory_changes_meanwhile),
		cmocka_unit_test(test_memory_not_now),
		cmocka_unit_test(test_memory_not_now_anywhere),
		cmocka_unit_test(test_memory_not_shared_is_bounded),
		cmocka_unit_test(test_memory_not_shared_of_all_queues),
	};

	static const struct CMUnitTest packed_tests[] = {
		cmocka_unit_test(test_niov),
		cmocka_unit_test(test_retchains),
		cmocka_unit_test(test_retchains_over_empty),
		cmocka_unit_test(test_retchains_behind_many_empty),
		cmocka_unit_test(test_stop_returned),
		cmocka_unit_test(test_return_logged),
		cmocka_unit_test(test_prepare_publish),
		cmocka_unit_test(test_used_len_is_cut),
		cmocka_unit_test(test_wrong_relchain),
		cmocka_unit_test(test_relchain_after_reset),
		cmocka_unit_test(test_stale_head),
		cmocka_unit_test(test_wake_after_reset),
		cmocka_unit_test(test_relchain_not_taken),
		cmocka_unit_test(test_memory_moves),
		cmocka_unit_test(test_empty_for_ever),
		cmocka_unit_test(test_memory_not_shared),
		cmocka_unit_test(test_memory_changes_meanwhile),
		cmocka_unit_test(test_memory_not_now),
		cmocka_unit_test(test_memory_not_now_anywhere),
		cmocka_unit_test(test_memory_not_shared_is_bounded),
		cmocka_unit_test(test_memory_not_shared_of_all_queues),
	};
	int failed = cmocka_run_group_tests_name("vq", tests, NULL, NULL);

	layout = PACKED;
	return failed + cmocka_run_group_tests_name("vq, packed", packed_tests,
						    NULL, NULL);
}

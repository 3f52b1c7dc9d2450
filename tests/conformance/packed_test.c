/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The packed virtqueue, row by row: PACKED is a table of
 * docs/spec/conformance.md, and PK-n are finer rows of the same chapter, 2.8.
 * What both layouts have in common is tested for both in src/core/vq_test.c and
 * thread_test.c.
 */
#include "core/core.h"
#include "tdev.h"

enum {
	N = VRING_DESC_F_NEXT,
	W = VRING_DESC_F_WRITE,
	I = VRING_DESC_F_INDIRECT,
	F_AVAIL = 1 << VRING_PACKED_DESC_F_AVAIL,
	F_USED = 1 << VRING_PACKED_DESC_F_USED,

	QSIZE = 8,
};

#define BUF   (VDRV_MEM_BASE + 0x100000ull)
#define TABLE (VDRV_MEM_BASE + 0x200000ull)
#define HOLE  0x40000000ull

static struct tdev t;
static struct vdrv *const d = &t.d;

static void start_sized(uint64_t features, uint16_t max, uint16_t size)
{
	tdev_init(&t, VDRV_MODERN,
		  (struct tdev_opts){ .qsize = max, .more_modern = PACKED });
	vdrv_probe(d);
	vdrv_reset(d);
	vdrv_greet(d);
	assert_true(vdrv_negotiate(d, V1 | PACKED | features));
	assert_true(vdrv_queue_setup(d, 0, size));
	vdrv_driver_ok(d);
}

static void start(uint64_t features, uint16_t size)
{
	start_sized(features, size, size);
	t.hold = true;
}

static bool broken(void)
{
	return vdrv_status(d) & NEEDS_RESET;
}

static uint8_t *slot(unsigned i)
{
	return vdrv_ptr(d, d->q[0].desc + 16ull * i, 16);
}

static uint16_t flags_of(unsigned i)
{
	return le16_load((le16 *)(void *)(slot(i) + 14));
}

static void set_flags(unsigned i, unsigned flags)
{
	le16_store((le16 *)(void *)(slot(i) + 14), (uint16_t)flags);
}

static uint16_t add_w(uint32_t len)
{
	return vdrv_add(d, 0, &(struct vdrv_buf){ BUF, len, VDRV_W }, 1);
}

/*
 * --- Sizes, laps and features ---
 */

/* A chain each as long as the ring allows, for several laps. */
static void serve_laps(uint64_t features, uint16_t size)
{
	struct vdrv_buf bufs[] = {
		{ BUF, 4, VDRV_R },
		{ BUF + 16, 4, VDRV_W },
	};
	struct vdrv_used used;

	for (unsigned i = 0; i < 5u * size + 3 && i < 70000; i++) {
		uint32_t sent = i * 2654435761u;
		uint16_t id;

		memcpy(vdrv_ptr(d, BUF, 4), &sent, 4);
		if ((features & INDIRECT) && i % 3)
			id = vdrv_add_indirect(d, 0, bufs, 2);
		else if (size > 1)
			id = vdrv_add(d, 0, bufs, 2);
		else
			id = vdrv_add(d, 0, &bufs[1], 1);
		assert_true(vdrv_kick_if_wanted(d, 0));
		assert_true(vdrv_used(d, 0, &used));
		assert_int_equal(used.id, id);
		assert_int_equal(used.len, 4);
		if (size > 1)
			assert_memory_equal(vdrv_ptr(d, BUF + 16, 4), &sent, 4);
		assert_memory_equal(vdrv_ptr(d, BUF, 4), &sent, 4);
		assert_false(vdrv_used(d, 0, &used));
		assert_int_equal(d->nr_msix[1], i + 1);
	}
	assert_false(broken());
}

/*
 * PK-01, PK-05, PK-10, PK-20, PK-29, PK-36, PACKED-01, PACKED-02, PACKED-08,
 * PACKED-12, PACKED-14.
 */
static void test_sizes(void **state)
{
	static const uint16_t sizes[] = { 1, 2, 3, 7, 100, 256, 32767, 32768 };
	static const uint64_t features[] = {
		0,
		INDIRECT,
		EVENT_IDX,
		INDIRECT | EVENT_IDX,
	};

	for (size_t s = 0; s < ARRAY_LEN(sizes); s++) {
		for (size_t f = 0; f < ARRAY_LEN(features); f++) {
			start_sized(features[f], 32768, sizes[s]);
			serve_laps(features[f], sizes[s]);
			tdev_fini(&t);
		}
	}
}

/* PK-02: judged when both are known, in whatever order they were written. */
static void test_queue_size(void **state)
{
	tdev_init(&t, VDRV_MODERN,
		  (struct tdev_opts){ .qsize = 64, .more_modern = PACKED });
	vdrv_probe(d);

	vdrv_greet(d);
	assert_true(vdrv_negotiate(d, V1));
	vdrv_common_write(d, VIRTIO_PCI_COMMON_Q_SIZE, 2, 33);
	assert_int_equal(vdrv_queue_size(d, 0), 64); /* dropped */

	vdrv_reset(d);
	vdrv_greet(d);
	assert_true(vdrv_negotiate(d, V1 | PACKED));
	for (unsigned size = 1; size <= 65; size++) {
		vdrv_common_write(d, VIRTIO_PCI_COMMON_Q_SIZE, 2, size);
		assert_int_equal(vdrv_queue_size(d, 0), size < 65 ? size : 64);
	}
	vdrv_common_write(d, VIRTIO_PCI_COMMON_Q_SIZE, 2, 0);
	assert_int_equal(vdrv_queue_size(d, 0), 64);

	/* Before FEATURES_OK: kept, and refused when the ring is split. */
	vdrv_reset(d);
	vdrv_greet(d);
	vdrv_common_write(d, VIRTIO_PCI_COMMON_Q_SIZE, 2, 33);
	assert_int_equal(vdrv_queue_size(d, 0), 33);
	assert_true(vdrv_negotiate(d, V1));
	assert_false(vdrv_queue_setup(d, 0, 33));
	assert_true(broken());
	vdrv_reset(d);
	assert_int_equal(vdrv_queue_size(d, 0), 64);
	tdev_fini(&t);
}

/* The ring is there before FEATURES_OK says that it is packed. */
static void test_layout_settles_late(void **state)
{
	tdev_init(&t, VDRV_MODERN,
		  (struct tdev_opts){ .qsize = 16, .more_modern = PACKED });
	vdrv_probe(d);
	vdrv_reset(d);
	vdrv_greet(d);
	d->features = V1 | PACKED;
	assert_true(vdrv_queue_setup_at(d, 0, 16, BUF, BUF + 256, BUF + 512));
	assert_true(vdrv_negotiate(d, V1 | PACKED));
	vdrv_driver_ok(d);
	tdev_echo(&t, 0, 100);
	tdev_fini(&t);
}

/* PK-32: both counters, and another size. */
static void test_reset(void **state)
{
	static const uint16_t sizes[] = { 7, 5, 1, 16, 3 };

	start_sized(0, 16, 7);
	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		vdrv_reset(d);
		vdrv_greet(d);
		assert_true(vdrv_negotiate(d, V1 | (i == 3 ? 0 : PACKED)));
		assert_true(vdrv_queue_setup(d, 0, sizes[i]));
		vdrv_driver_ok(d);
		for (unsigned n = 0; n < sizes[i] + 2u; n++) {
			add_w(8);
			vdrv_kick(d, 0);
			assert_true(vdrv_used(d, 0, NULL));
		}
	}
	tdev_fini(&t);
}

/* PK-35, PK-37: all queues, and not where the driver is a legacy one. */
static void test_all_queues(void **state)
{
	tdev_start(&t, VDRV_MODERN, (struct tdev_opts){ .more_modern = PACKED },
		   V1 | PACKED, 2);
	for (unsigned q = 0; q < 2; q++) {
		tdev_echo(&t, q, 100);
		assert_null(t.vq[q].vq_desc);
		assert_null(t.vq[q].vq_avail);
		assert_null(t.vq[q].vq_used);
		assert_true(t.vq[q].vq_priv->packed);
	}
	tdev_fini(&t);

	tdev_start(&t, VDRV_LEGACY,
		   (struct tdev_opts){ .mode = VIRTIO_MODE_TRANSITIONAL,
				       .more_modern = PACKED,
				       .more_legacy = PACKED },
		   PACKED, 2);
	tdev_echo(&t, 0, 100);
	assert_false(t.vq[0].vq_priv->packed);
	tdev_fini(&t);
}

/*
 * --- Areas ---
 */

/* PK-03, PK-04. */
static void test_areas(void **state)
{
	static uint8_t rom[4096];
	const uint64_t end = VDRV_MEM_BASE + (uint64_t)VDRV_MEM_BYTES;
	const struct {
		const char *what;
		uint64_t ring, driver, device;
		bool ok;
	} rows[] = {
		{ "sound", BUF, BUF + 0x1000, BUF + 0x2000, true },
		{ "last bytes of a region", end - 16 * QSIZE, BUF, BUF + 4,
		  true },
		{ "events at the end", BUF, end - 8, end - 4, true },
		{ "ring over the end", end - 16 * QSIZE + 16, BUF, BUF + 4 },
		{ "ring misaligned", BUF + 8, BUF + 0x1000, BUF + 0x2000 },
		{ "driver event misaligned", BUF, BUF + 0x1002, BUF + 0x2000 },
		{ "device event misaligned", BUF, BUF + 0x1000, BUF + 0x2002 },
		{ "driver event outside", BUF, end, BUF + 0x2000 },
		{ "device event outside", BUF, BUF + 0x1000, HOLE },
		{ "event in the ring", BUF, BUF + 16, BUF + 0x2000 },
		{ "both events in one", BUF, BUF + 0x1000, BUF + 0x1000 },
		{ "read-only driver event", BUF, HOLE, BUF + 0x2000, true },
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		tdev_init(&t, VDRV_MODERN,
			  (struct tdev_opts){ .qsize = QSIZE,
					      .more_modern = PACKED });
		if (rows[i].ok)
			gm_add(&d->gm, (gpa_t){ HOLE }, sizeof(rom), rom,
			       GM_READ);
		vdrv_probe(d);
		vdrv_reset(d);
		vdrv_greet(d);
		assert_true(vdrv_negotiate(d, V1 | PACKED));
		if (vdrv_queue_setup_at(d, 0, QSIZE, rows[i].ring,
					rows[i].driver,
					rows[i].device) != rows[i].ok)
			fail_msg("%s", rows[i].what);
		tdev_fini(&t);
	}
	/* What the device writes must be writable. */
	for (int which = 0; which < 2; which++) {
		tdev_init(&t, VDRV_MODERN,
			  (struct tdev_opts){ .qsize = QSIZE,
					      .more_modern = PACKED });
		gm_add(&d->gm, (gpa_t){ HOLE }, sizeof(rom), rom, GM_READ);
		vdrv_probe(d);
		vdrv_reset(d);
		vdrv_greet(d);
		assert_true(vdrv_negotiate(d, V1 | PACKED));
		assert_false(vdrv_queue_setup_at(
			d, 0, QSIZE, which ? BUF : HOLE, BUF + 0x1000,
			which ? HOLE : BUF + 0x2000));
		tdev_fini(&t);
	}
}

/*
 * --- Available ---
 */

/* PK-06, PACKED-03: all bits against both wrap counters. */
static void test_available_bits(void **state)
{
	for (unsigned w = 0; w < 2; w++) {
		for (unsigned bits = 0; bits < 4; bits++) {
			bool avail = bits & 1, used = bits & 2;

			start(0, QSIZE);
			for (unsigned n = 0; n < QSIZE * (1 - w); n++) {
				add_w(8);
				assert_int_equal(tdev_take(&t, 0), 1);
				tdev_give(&t, 0, t.req.idx, 8);
				assert_true(vdrv_used(d, 0, NULL));
			}
			vdrv_slot(d, 0, &(struct vdrv_buf){ BUF, 8, 0 }, W, 5);
			set_flags(0, (unsigned)W | (avail ? F_AVAIL : 0) |
					     (used ? F_USED : 0));
			assert_int_equal(vq_has_descs(&t.vq[0]),
					 avail == w && used != w);
			assert_int_equal(tdev_take(&t, 0),
					 avail == w && used != w);
			tdev_fini(&t);
		}
	}
}

/* PK-07, PACKED-21: neither zeroed slots nor those of the lap before. */
static void test_nothing_available(void **state)
{
	start(0, 3);
	for (unsigned n = 0; n < 12; n++) {
		assert_false(vq_has_descs(&t.vq[0]));
		assert_int_equal(tdev_take(&t, 0), 0);
		add_w(8);
		assert_int_equal(tdev_take(&t, 0), 1);
		assert_false(vq_has_descs(&t.vq[0]));
		tdev_give(&t, 0, t.req.idx, n & 1);
		assert_true(vdrv_used(d, 0, NULL));
	}
	tdev_fini(&t);

	/* All slots are in flight: the first one is no longer available. */
	start(0, 3);
	for (unsigned n = 0; n < 3; n++)
		add_w(8);
	for (unsigned n = 0; n < 3; n++)
		assert_int_equal(tdev_take(&t, 0), 1);
	assert_int_equal(tdev_take(&t, 0), 0);
	assert_false(broken());
	tdev_fini(&t);
}

/* PK-08, PK-09, PACKED-09: the bits and ids of the slots behind the first. */
static void test_following_slots(void **state)
{
	struct vdrv_buf b = { BUF, 8, 0 };

	for (unsigned bits = 0; bits < 4; bits++) {
		start(0, QSIZE);
		vdrv_slot(d, 0, &b, 0, 0);
		set_flags(0, 0);
		vdrv_slot(d, 0, &b, N, 2);
		vdrv_slot(d, 0, &b, W, 6);
		set_flags(1, N | (bits & 1 ? F_AVAIL : 0) |
				     (bits & 2 ? F_USED : 0));
		set_flags(0, N | F_AVAIL);
		assert_int_equal(tdev_take(&t, 0), 3);
		assert_int_equal(t.req.idx, 6);
		tdev_give(&t, 0, 6, 8);
		assert_true(vdrv_slot_is_used(d, 0, VDRV_WRAP));
		assert_int_equal(slot(0)[12], 6);
		assert_int_equal(t.vq[0].vq_next_used, VDRV_WRAP | 3);
		tdev_fini(&t);
	}
}

/* PK-13, hostile D21: each id of the ring, none beyond, none twice. */
static void test_ids(void **state)
{
	static const struct {
		uint16_t first, second;
		bool ok;
	} rows[] = {
		{ 0, QSIZE - 1, true }, { QSIZE - 1, 0, true },
		{ 0, QSIZE, false },    { 0, 0xffff, false },
		{ 0, 0x8000, false },   { 3, 3, false },
	};
	struct vdrv_buf b = { BUF, 8, 0 };

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		start(0, QSIZE);
		vdrv_slot(d, 0, &b, W, rows[i].first);
		vdrv_slot(d, 0, &b, W, rows[i].second);
		assert_int_equal(tdev_take(&t, 0), 1);
		assert_int_equal(t.req.idx, rows[i].first);
		assert_int_equal(tdev_take(&t, 0), rows[i].ok ? 1 : -1);
		assert_int_equal(broken(), !rows[i].ok);
		tdev_fini(&t);
	}
}

struct desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags;
};

struct chain_row {
	const char *what;
	struct desc ring[QSIZE + 1];
	struct desc table[4]; /* at TABLE */
	unsigned nr;          /* slots to fill; 0: one */
	int n;                /* what vq_getchain() returns */
	uint64_t without;
};

static const struct chain_row chain_rows[] = {
	{ "one", { { BUF, 8, W } }, .n = 1 },
	{ "PK-18, PACKED-11, PACKED-13: table",
	  { { TABLE, 48, I } },
	  { { BUF, 1, 0 }, { BUF, 2, W }, { BUF, 3, W } },
	  .n = 3 },
	{ "PK-18: NEXT in the last entry, and other flags, do not count",
	  { { TABLE, 32, I | W } },
	  { { BUF, 1, I | F_USED }, { BUF, 2, W | N | F_AVAIL } },
	  .n = 2 },
	{ "PK-19, PACKED-23: INDIRECT and NEXT",
	  { { TABLE, 16, I | N }, { BUF, 8, W } },
	  { { BUF, 1, 0 } },
	  .nr = 2,
	  .n = -1 },
	{ "PK-19: INDIRECT and NEXT on the last one",
	  { { TABLE, 16, I | N } },
	  { { BUF, 1, 0 } },
	  .n = -1 },
	{ "PK-19: behind a direct one",
	  { { BUF, 8, N }, { TABLE, 16, I } },
	  { { BUF, 1, 0 } },
	  .nr = 2,
	  .n = -1 },
	{ "PK-19: empty table", { { TABLE, 0, I } }, .n = -1 },
	{ "PK-19: 17 bytes", { { TABLE, 17, I } }, { { BUF, 1, 0 } }, .n = -1 },
	{ "PK-19: 15 bytes", { { TABLE, 15, I } }, { { BUF, 1, 0 } }, .n = -1 },
	{ "PK-19: over the cap", { { TABLE, 16 * 32769, I } }, .n = -1 },
	{ "PK-19: as long as can be named",
	  { { TABLE, 0xfffffff0, I } },
	  .n = -1 },
	{ "PK-19: not negotiated",
	  { { TABLE, 16, I } },
	  { { BUF, 1, 0 } },
	  .n = -1,
	  .without = INDIRECT },
	{ "table in a hole", { { HOLE, 16, I } }, .n = -1 },
	{ "table wraps", { { 0xfffffffffffffff0, 32, I } }, .n = -1 },
	{ "a table of nothing", { { TABLE, 32, I } }, .n = 0 },
	{ "a misaligned table, with a length that is none",
	  { { TABLE + 1, 16, I } },
	  .n = -1 },
	{ "PK-22, PACKED-22: all slots",
	  { { BUF, 1, N },
	    { BUF, 1, N },
	    { BUF, 1, N },
	    { BUF, 1, N },
	    { BUF, 1, N },
	    { BUF, 1, N },
	    { BUF, 1, N },
	    { BUF, 1, W } },
	  .nr = 8,
	  .n = 8 },
	{ "PK-22, PACKED-22: no end",
	  { { BUF, 1, N },
	    { BUF, 1, N },
	    { BUF, 1, N },
	    { BUF, 1, N },
	    { BUF, 1, N },
	    { BUF, 1, N },
	    { BUF, 1, N },
	    { BUF, 1, N } },
	  .nr = 8,
	  .n = -1 },
	{ "PK-22: no end, of nothing",
	  { { 0, 0, N },
	    { 0, 0, N },
	    { 0, 0, N },
	    { 0, 0, N },
	    { 0, 0, N },
	    { 0, 0, N },
	    { 0, 0, N },
	    { 0, 0, N } },
	  .nr = 8,
	  .n = -1 },
	{ "PK-23, PACKED-25: writable, then readable",
	  { { BUF, 1, N | W }, { BUF, 1, 0 } },
	  .nr = 2,
	  .n = -1 },
	{ "PK-23: in the table",
	  { { TABLE, 32, I } },
	  { { BUF, 1, W }, { BUF, 1, 0 } },
	  .n = -1 },
	{ "PK-23: wraps", { { 0xfffffffffffffff8, 16, W } }, .n = -1 },
	{ "PK-23: hole", { { HOLE, 16, W } }, .n = -1 },
	{ "PK-23: hole in the table",
	  { { TABLE, 16, I } },
	  { { HOLE, 1, 0 } },
	  .n = -1 },
	{ "PK-23, hostile D6: hole, of nothing",
	  { { HOLE, 0, N }, { BUF, 8, W } },
	  .nr = 2,
	  .n = 1 },
	{ "nothing", { { BUF, 0, W } }, .n = 0 },
};

static void write_table(const struct desc *table)
{
	for (unsigned i = 0; i < 4; i++) {
		le64 addr = cpu_to_le64(table[i].addr);
		le32 len = cpu_to_le32(table[i].len);
		le16 flags = cpu_to_le16(table[i].flags);
		uint8_t *p = vdrv_ptr(d, TABLE + 16ull * i, 16);

		memcpy(p, &addr, 8);
		memcpy(p + 8, &len, 4);
		memset(p + 12, 0xee, 2);
		memcpy(p + 14, &flags, 2);
	}
}

static void run_chain(const struct chain_row *row, bool look_first)
{
	unsigned nr = row->nr ? row->nr : 1;

	start((INDIRECT | EVENT_IDX) & ~row->without, QSIZE);
	write_table(row->table);
	for (unsigned i = 0; i < nr; i++)
		vdrv_slot(d, 0,
			  &(struct vdrv_buf){ row->ring[i].addr,
					      row->ring[i].len, 0 },
			  row->ring[i].flags, 4);
	if (look_first)
		assert_int_equal(vq_has_descs(&t.vq[0]), row->n != 0);
	if (tdev_take(&t, 0) != row->n)
		fail_msg("%s: %d", row->what, t.n);
	assert_int_equal(broken(), row->n < 0);
	if (row->n > 0)
		tdev_give(&t, 0, 4, 0);
	assert_int_equal(vdrv_slot_is_used(d, 0, VDRV_WRAP), row->n >= 0);
	if (row->n >= 0)
		assert_int_equal(t.vq[0].vq_next_used,
				 nr == QSIZE ? 0 : VDRV_WRAP | nr);

	/* PK-19: what was refused leaves no trace. */
	vdrv_reset(d);
	t.hold = false;
	assert_true(vdrv_start(d, V1 | PACKED, 1));
	tdev_echo(&t, 0, 64);
	tdev_fini(&t);
}

static void test_chains(void **state)
{
	for (size_t i = 0; i < 2 * ARRAY_LEN(chain_rows); i++)
		run_chain(&chain_rows[i / 2], i % 2);
}

/* PK-22: slots that are not the driver's to fill again. */
static void test_too_many(void **state)
{
	struct vdrv_buf b = { BUF, 8, 0 };

	start(0, 4);
	for (uint16_t i = 0; i < 3; i++)
		vdrv_slot(d, 0, &b, W, i);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(tdev_take(&t, 0), 1);
	vdrv_slot(d, 0, &b, N, 3); /* the next one is in flight */
	assert_int_equal(tdev_take(&t, 0), -1);
	assert_true(broken());
	tdev_fini(&t);
}

/*
 * --- Used ---
 */

/* PK-14, PK-15, PACKED-04, PACKED-05, PACKED-10. */
static void test_used_descriptor(void **state)
{
	uint8_t before[16];

	for (uint32_t len = 0; len < 2; len++) {
		start(0, QSIZE);
		memset(slot(0), 0xa5, 16);
		add_w(8);
		memcpy(before, slot(0), 16);
		assert_int_equal(tdev_take(&t, 0), 1);
		assert_memory_equal(before, slot(0), 16);
		tdev_give(&t, 0, t.req.idx, len);
		assert_memory_equal(before, slot(0), 8); /* the address */
		assert_int_equal(slot(0)[8], len);
		assert_int_equal(flags_of(0),
				 F_AVAIL | F_USED | (len ? (int)W : 0));
		/* PK-16: a second completion writes nothing. */
		memcpy(before, slot(0), 16);
		tdev_give(&t, 0, t.req.idx, 8);
		assert_memory_equal(before, slot(0), 16);
		assert_true(broken());
		tdev_fini(&t);
	}
}

/*
 * PK-10, PK-11, PK-12, PACKED-06, PACKED-07, PACKED-08: chains of 3, 1 and 2
 * slots end as the second, the third, the first; the driver fills freed slots
 * at once.
 */
static void test_out_of_order(void **state)
{
	static const unsigned lens[] = { 3, 1, 2 }, order[] = { 1, 2, 0 };
	struct vdrv_buf bufs[] = {
		{ BUF, 1, VDRV_R },
		{ BUF, 1, VDRV_W },
		{ BUF, 1, VDRV_W },
	};
	struct vdrv_used used;

	start(0, 7);
	for (unsigned lap = 0; lap < 100; lap++) {
		uint16_t ids[3];

		for (unsigned i = 0; i < 3; i++) {
			ids[i] = vdrv_add(d, 0, bufs, lens[i]);
			assert_int_equal(tdev_take(&t, 0), lens[i]);
			assert_int_equal(t.req.idx, ids[i]);
		}
		for (unsigned i = 0; i < 3; i++) {
			uint32_t len = lens[order[i]] - 1;

			tdev_give(&t, 0, ids[order[i]], len);
			assert_true(vdrv_used(d, 0, &used));
			assert_int_equal(used.id, ids[order[i]]);
			assert_int_equal(used.len, len);
			assert_false(vdrv_used(d, 0, &used));
		}
	}
	/* One that stays while the others pass it many times. */
	vdrv_add(d, 0, bufs, 2);
	assert_int_equal(tdev_take(&t, 0), 2);
	uint16_t kept = (uint16_t)t.req.idx;
	for (unsigned n = 0; n < 50; n++) {
		vdrv_add(d, 0, bufs, 3);
		assert_int_equal(tdev_take(&t, 0), 3);
		tdev_give(&t, 0, t.req.idx, 2);
		assert_true(vdrv_used(d, 0, &used));
		assert_int_equal(used.len, 2);
	}
	/* Returned, its slots overwritten: PK-17 by the device's copy. */
	assert_true(vq_retchain(&t.vq[0], kept));
	assert_int_equal(tdev_take(&t, 0), 2);
	assert_int_equal(t.req.idx, kept);
	tdev_give(&t, 0, kept, 1);
	assert_true(vdrv_used(d, 0, &used));
	assert_int_equal(used.id, kept);
	assert_false(broken());
	assert_int_equal(d->q[0].nr_free, 7);
	tdev_fini(&t);
}

/* PK-17: the table of a chain that was returned is read again, with care. */
static void test_returned_table_changes(void **state)
{
	struct vdrv_buf b = { TABLE, 16, 0 };

	start(INDIRECT, QSIZE);
	write_table((struct desc[4]){ { BUF, 8, W } });
	vdrv_slot(d, 0, &b, I, 2);
	assert_int_equal(tdev_take(&t, 0), 1);
	vq_retchains(&t.vq[0], 1);
	assert_true(vq_has_descs(&t.vq[0]));
	write_table((struct desc[4]){ { BUF, 0, W } });
	assert_int_equal(tdev_take(&t, 0), -1);
	assert_false(vdrv_slot_is_used(d, 0, VDRV_WRAP));
	tdev_fini(&t);
}

/* PK-30, PACKED-20: the first one's flags are stored last. */
static void test_batch(void **state)
{
	uint16_t ids[3];

	start(0, 4);
	for (unsigned lap = 0; lap < 5; lap++) {
		uint16_t pos = d->q[0].used_idx;

		for (unsigned i = 0; i < 3; i++) {
			ids[i] = add_w(8);
			assert_int_equal(tdev_take(&t, 0), 1);
		}
		for (unsigned i = 0; i < 3; i++) {
			vq_relchain_prepare(&t.vq[0], ids[i], i);
			assert_false(vdrv_slot_is_used(d, 0, pos));
		}
		vq_relchain_publish(&t.vq[0]);
		for (unsigned i = 0; i < 3; i++)
			assert_true(vdrv_used(d, 0, NULL));
	}
	tdev_fini(&t);
}

static bool is_dirty(const uint8_t *log, uint64_t gpa)
{
	return log[gpa / GM_LOG_PAGE / 8] >> gpa / GM_LOG_PAGE % 8 & 1;
}

/* What was written is logged, also where the chain's slots are other's by now. */
static void test_dirty_log(void **state)
{
	static uint8_t log[(VDRV_MEM_BASE + VDRV_MEM_BYTES) / GM_LOG_PAGE / 8];
	struct vdrv_buf bufs[] = {
		{ BUF, 8, VDRV_R },
		{ BUF + 0x1000, 8, VDRV_W },
		{ BUF + 0x3000, 8, VDRV_W },
	};
	struct vdrv_buf other = { BUF + 0x5000, 8, VDRV_W };
	uint16_t a, b;

	for (int indirect = 0; indirect < 2; indirect++) {
		start(INDIRECT, 4);
		a = indirect ? vdrv_add_indirect(d, 0, bufs, 3) :
			       vdrv_add(d, 0, bufs, 3);
		assert_int_equal(tdev_take(&t, 0), 3);
		b = vdrv_add(d, 0, &other, 1);
		assert_int_equal(tdev_take(&t, 0), 1);
		memset(log, 0, sizeof(log));
		gm_set_log(&d->gm, log, sizeof(log));
		tdev_give(&t, 0, b, 8); /* where the other chain begins */
		assert_true(is_dirty(log, BUF + 0x5000));
		assert_true(is_dirty(log, d->q[0].desc));
		assert_false(is_dirty(log, BUF + 0x1000));
		tdev_give(&t, 0, a, 16);
		assert_true(is_dirty(log, BUF + 0x1000));
		assert_true(is_dirty(log, BUF + 0x3000));
		assert_false(is_dirty(log, BUF));
		memset(log, 0, sizeof(log));
		vq_kick_disable(&t.vq[0]);
		assert_true(is_dirty(log, d->q[0].used));
		gm_set_log(&d->gm, NULL, 0);
		tdev_fini(&t);
	}
}

/*
 * --- Events ---
 */

#define EV(flags, wrap, off) ((uint32_t)(flags) << 16 | (wrap) << 15 | (off))

/* PK-24, PK-25, PK-26, PACKED-15, PACKED-16, PACKED-24. */
static void test_interrupts(void **state)
{
	static const struct {
		uint64_t features;
		uint16_t size;
		unsigned before, batch; /* slots used, then and now */
		uint32_t event;
		bool interrupt;
	} rows[] = {
		{ 0, 7, 0, 1, EV(0, 0, 0), true },
		{ 0, 7, 0, 1, EV(1, 0, 0), false },
		{ EVENT_IDX, 7, 0, 1, EV(0, 1, 5), true },
		{ EVENT_IDX, 7, 0, 1, EV(1, 1, 0), false },
		/* Reserved, or not negotiated, or no slot: as 0. */
		{ 0, 7, 0, 1, EV(2, 1, 5), true },
		{ 0, 7, 0, 1, EV(3, 0, 0), true },
		{ EVENT_IDX, 7, 0, 1, EV(3, 0, 0), true },
		{ EVENT_IDX, 7, 0, 1, EV(2, 1, 7), true },
		{ EVENT_IDX, 7, 0, 1, EV(2, 1, 0x7fff), true },
		{ EVENT_IDX, 7, 0, 1, EV(0xfffd, 1, 5), false },
		{ EVENT_IDX, 7, 0, 1, EV(0xfffc, 1, 5), true },
		/* In this batch, exactly last, behind it, before it. */
		{ EVENT_IDX, 7, 1, 3, EV(2, 1, 1), true },
		{ EVENT_IDX, 7, 1, 3, EV(2, 1, 3), true },
		{ EVENT_IDX, 7, 1, 3, EV(2, 1, 4), false },
		{ EVENT_IDX, 7, 1, 3, EV(2, 1, 0), false },
		/* Over the end: w is 0 from slot 0 on. */
		{ EVENT_IDX, 7, 5, 4, EV(2, 1, 4), false },
		{ EVENT_IDX, 7, 5, 4, EV(2, 1, 5), true },
		{ EVENT_IDX, 7, 5, 4, EV(2, 1, 6), true },
		{ EVENT_IDX, 7, 5, 4, EV(2, 0, 0), true },
		{ EVENT_IDX, 7, 5, 4, EV(2, 0, 1), true },
		{ EVENT_IDX, 7, 5, 4, EV(2, 0, 2), false },
		{ EVENT_IDX, 7, 6, 1, EV(2, 1, 6), true },
		{ EVENT_IDX, 7, 6, 1, EV(2, 0, 0), false },
		{ EVENT_IDX, 7, 12, 3, EV(2, 0, 6), true },
		{ EVENT_IDX, 7, 12, 3, EV(2, 1, 0), true },
		{ EVENT_IDX, 7, 12, 3, EV(2, 1, 1), false },
		/* A whole lap passes all of them. */
		{ EVENT_IDX, 7, 3, 7, EV(2, 1, 2), true },
		{ EVENT_IDX, 7, 3, 7, EV(2, 0, 2), true },
		{ EVENT_IDX, 1, 0, 1, EV(2, 1, 0), true },
		{ EVENT_IDX, 1, 1, 1, EV(2, 0, 0), true },
		{ EVENT_IDX, 1, 0, 2, EV(2, 0, 0), true },
		{ EVENT_IDX, 32768, 32767, 2, EV(2, 1, 32767), true },
		{ EVENT_IDX, 32768, 32767, 2, EV(2, 0, 0), true },
		{ EVENT_IDX, 32768, 32767, 2, EV(2, 0, 1), false },
		{ EVENT_IDX, 32768, 32767, 2, EV(2, 1, 32766), false },
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		unsigned nr_intr = 0;

		start(rows[i].features, rows[i].size);
		for (unsigned n = 0; n < rows[i].before + rows[i].batch; n++) {
			if (n == rows[i].before) {
				vq_endchains(&t.vq[0], 0);
				nr_intr = d->nr_msix[1];
				d->q[0].no_intr = true;
				vdrv_set_driver_event(d, 0, rows[i].event);
			}
			add_w(8);
			assert_int_equal(tdev_take(&t, 0), 1);
			tdev_give(&t, 0, t.req.idx, 8);
			assert_true(vdrv_used(d, 0, NULL));
		}
		vq_endchains(&t.vq[0], 0);
		if (d->nr_msix[1] - nr_intr != rows[i].interrupt)
			fail_msg("row %zu: %u", i, d->nr_msix[1] - nr_intr);
		vq_endchains(&t.vq[0], 0); /* nothing was used since */
		assert_int_equal(d->nr_msix[1] - nr_intr, rows[i].interrupt);
		tdev_fini(&t);
	}
}

/* PK-28, PACKED-17: what the device says, and that it never reads it. */
static void test_device_event(void **state)
{
	struct vqueue_info *vq = &t.vq[0];

	for (int event_idx = 0; event_idx < 2; event_idx++) {
		start(event_idx ? EVENT_IDX : 0, 3);
		for (unsigned n = 0; n < 10; n++) {
			uint32_t pos = n % 3 | (n / 3 % 2 ? 0 : VDRV_WRAP);

			vq_kick_disable(vq);
			assert_int_equal(vdrv_device_event(d, 0), EV(1, 0, 0));
			vq_kick_enable(vq);
			assert_int_equal(vdrv_device_event(d, 0),
					 event_idx ? EV(2, 0, 0) | pos : 0);
			memset(vdrv_ptr(d, d->q[0].used, 4), 0xff, 4);
			add_w(8);
			assert_int_equal(tdev_take(&t, 0), 1);
			tdev_give(&t, 0, t.req.idx, 8);
			assert_true(vdrv_used(d, 0, NULL));
		}
		tdev_fini(&t);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_queue_size),
		cmocka_unit_test(test_layout_settles_late),
		cmocka_unit_test(test_reset),
		cmocka_unit_test(test_all_queues),
		cmocka_unit_test(test_areas),
		cmocka_unit_test(test_available_bits),
		cmocka_unit_test(test_nothing_available),
		cmocka_unit_test(test_following_slots),
		cmocka_unit_test(test_ids),
		cmocka_unit_test(test_chains),
		cmocka_unit_test(test_too_many),
		cmocka_unit_test(test_used_descriptor),
		cmocka_unit_test(test_out_of_order),
		cmocka_unit_test(test_returned_table_changes),
		cmocka_unit_test(test_batch),
		cmocka_unit_test(test_dirty_log),
		cmocka_unit_test(test_interrupts),
		cmocka_unit_test(test_device_event),
	};

	return cmocka_run_group_tests_name("packed", tests, NULL, NULL);
}

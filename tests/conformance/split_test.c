/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Split virtqueues from end to end: framing, used entries, suppression of
 * notifications. conformance.md section 3; wrong chains are src/core/vq_test.c.
 */
#include <sys/mman.h>

#include "tdev.h"

static struct tdev t;
static struct vdrv *const d = &t.d;
static const struct tdev_opts modern = { .mode = VIRTIO_MODE_MODERN };

static uint8_t byte(uint64_t gpa)
{
	return *(uint8_t *)vdrv_ptr(d, gpa, 1);
}

/* SPLIT-01: all sizes that there are. */
static void test_sizes(void **state)
{
	for (unsigned size = 1; size <= 32768; size *= 2) {
		tdev_start(&t, VDRV_MODERN,
			   (struct tdev_opts){ .qsize = (uint16_t)size },
			   V1 | INDIRECT, 1);
		assert_int_equal(vdrv_queue_size(d, 0), size);
		for (unsigned i = 0; i < 3 && size > 1; i++)
			tdev_echo(&t, 0, 100);
		tdev_fini(&t);
	}
}

/*
 * SPLIT-02, hostile D10, hostile S14: one request in pieces of any number,
 * direct and indirect.
 */
static void test_framing(void **state)
{
	static const unsigned pieces[] = { 1, 2, 3, 16, 32, 64, 128, 256 };
	enum { LEN = 512 };

	for (size_t p = 0; p < ARRAY_LEN(pieces); p++) {
		for (int indirect = 0; indirect < 2; indirect++) {
			unsigned n = pieces[p];
			struct vdrv_buf bufs[512];
			struct vdrv_used used;
			uint64_t out, in;
			uint32_t done = 0;
			uint16_t head;

			tdev_start(&t, VDRV_MODERN,
				   (struct tdev_opts){ .qsize = 1024 },
				   V1 | INDIRECT, 1);
			out = vdrv_alloc(d, LEN, 1);
			in = vdrv_alloc(d, LEN, 1);
			for (unsigned i = 0; i < LEN; i++)
				*(uint8_t *)vdrv_ptr(d, out + i, 1) =
					(uint8_t)(i * 3);
			for (unsigned i = 0; i < n; i++) {
				/* One-byte pieces, then the rest. */
				uint32_t len = i + 1 < n ? 1 : LEN - done;

				bufs[i] = (struct vdrv_buf){ out + done, len,
							     VDRV_R };
				bufs[n + i] = (struct vdrv_buf){
					in + LEN - done - len, len, VDRV_W
				};
				done += len;
			}
			head = indirect ? vdrv_add_indirect(d, 0, bufs, 2 * n) :
					  vdrv_add(d, 0, bufs, 2 * n);
			vdrv_kick(d, 0);
			assert_true(vdrv_used(d, 0, &used));
			assert_int_equal(used.id, head); /* SPLIT-15 */
			assert_int_equal(used.len, LEN); /* SPLIT-14 */
			assert_int_equal(t.req.readable, n);
			assert_int_equal(t.req.writable, n);
			tdev_fini(&t);
		}
	}
}

/* hostile S14: 2, 33, 129, 257, 513 descriptors, for a device of any reach. */
static void test_long_chains(void **state)
{
	static const unsigned lens[] = { 2, 33, 129, 257, 513 };
	static const int niov[] = { 1, 2, 32, 128, 256, 512, 600 };
	static struct vdrv_buf bufs[600];

	for (size_t l = 0; l < ARRAY_LEN(lens); l++) {
		for (size_t k = 0; k < 2 * ARRAY_LEN(niov); k++) {
			bool indirect = k & 1, fits;

			tdev_start(&t, VDRV_MODERN,
				   (struct tdev_opts){ .qsize = 1024 },
				   V1 | INDIRECT, 1);
			t.niov = niov[k / 2];
			fits = (unsigned)t.niov >= lens[l];
			for (unsigned i = 0; i < lens[l]; i++)
				bufs[i] = (struct vdrv_buf){
					VDRV_MEM_BASE + 0x300000 + i, 1, VDRV_W
				};
			if (indirect)
				vdrv_add_indirect(d, 0, bufs, lens[l]);
			else
				vdrv_add(d, 0, bufs, lens[l]);
			vdrv_kick(d, 0);
			assert_int_equal(vdrv_used(d, 0, NULL), fits);
			assert_int_equal(!!(vdrv_status(d) & NEEDS_RESET),
					 !fits);
			tdev_fini(&t);
		}
	}
}

/*
 * SPLIT-03, SPLIT-05: readable buffers, descriptors and the available ring
 * are never written. They lie where a write would be fatal.
 */
static void test_read_only_parts(void **state)
{
	struct vdrv_buf bufs[2];
	struct vdrv_used used;
	uint64_t desc, avail, out, end;

	tdev_init(&t, VDRV_MODERN, modern);
	vdrv_probe(d);
	vdrv_reset(d);
	vdrv_greet(d);
	assert_true(vdrv_negotiate(d, V1 | EVENT_IDX | INDIRECT));
	desc = vdrv_alloc(d, 4096, 4096);
	avail = vdrv_alloc(d, 4096, 4096);
	out = vdrv_alloc(d, 4096, 4096);
	end = vdrv_alloc(d, 4096, 4096);
	assert_true(vdrv_queue_setup_at(d, 0, 8, desc, avail,
					vdrv_alloc(d, 4096, 4)));
	vdrv_driver_ok(d);
	t.no_kicks_while_busy = true;
	bufs[0] = (struct vdrv_buf){ out, 100, VDRV_R };
	bufs[1] = (struct vdrv_buf){ vdrv_alloc(d, 100, 1), 100, VDRV_W };
	for (int i = 0; i < 20; i++) {
		vdrv_add(d, 0, bufs, 2);
		assert_int_equal(
			mprotect(vdrv_ptr(d, desc, 1), end - desc, PROT_READ),
			0);
		vdrv_kick(d, 0);
		assert_int_equal(mprotect(vdrv_ptr(d, desc, 1), end - desc,
					  PROT_READ | PROT_WRITE),
				 0);
		assert_true(vdrv_used(d, 0, &used));
		assert_int_equal(used.len, 100);
	}
	tdev_fini(&t);
}

/* SPLIT-04: writable buffers are not read. Reads are seen by gmem_ops. */
static uint64_t not_to_be_read;

static int watch_read(void *arg, gpa_t a, void *buf, size_t len)
{
	assert_false(a.v < not_to_be_read + 64 && a.v + len > not_to_be_read);
	memcpy(buf, vdrv_ptr(arg, a.v, len), len);
	return 0;
}

static int watch_write(void *arg, gpa_t a, const void *buf, size_t len)
{
	memcpy(vdrv_ptr(arg, a.v, len), buf, len);
	return 0;
}

static void test_writable_is_not_read(void **state)
{
	static const struct gmem_ops ops = { watch_read, watch_write };
	struct vdrv_buf b;

	tdev_init(&t, VDRV_MODERN, modern);
	gm_fini(&d->gm);
	gm_init(&d->gm, &ops, d);
	assert_int_equal(gm_add(&d->gm, (gpa_t){ VDRV_MEM_BASE },
				VDRV_MEM_BYTES, NULL, GM_READ | GM_WRITE),
			 0);
	assert_true(vdrv_start(d, V1, 1));
	not_to_be_read = vdrv_alloc(d, 64, 1);
	b = (struct vdrv_buf){ not_to_be_read, 64, VDRV_W };
	vdrv_add(d, 0, &b, 1);
	vdrv_kick(d, 0);
	assert_true(vdrv_used(d, 0, NULL));
	assert_int_equal(byte(not_to_be_read), TDEV_FILL);
	not_to_be_read = 0;
	tdev_echo(&t, 0, 100);
	tdev_fini(&t);
}

/* SPLIT-09, SPLIT-10: without EVENT_IDX the flag decides. */
static void test_interrupt_flag(void **state)
{
	tdev_start(&t, VDRV_MODERN, modern, V1, 1);
	vdrv_set_used_event(d, 0, 0x4000);
	tdev_echo(&t, 0, 10);
	assert_int_equal(d->nr_msix[1], 1);
	vdrv_set_avail_flags(d, 0, VRING_AVAIL_F_NO_INTERRUPT);
	vdrv_set_used_event(d, 0, 1);
	tdev_echo(&t, 0, 10);
	assert_int_equal(d->nr_msix[1], 1);
	vdrv_set_avail_flags(d, 0, 0);
	tdev_echo(&t, 0, 10);
	assert_int_equal(d->nr_msix[1], 2);
	tdev_fini(&t);
}

/* SPLIT-11, SPLIT-12: with it, used_event does, to the entry. */
static void test_used_event(void **state)
{
	tdev_start(&t, VDRV_MODERN, modern, V1 | EVENT_IDX, 1);
	d->q[0].no_intr = true; /* vdrv leaves used_event alone */
	vdrv_set_avail_flags(d, 0, VRING_AVAIL_F_NO_INTERRUPT);
	for (uint16_t event = 0; event < 30; event += 5) {
		vdrv_set_used_event(d, 0, event);
		while (d->q[0].used_idx < event) {
			tdev_echo(&t, 0, 10);
			assert_int_equal(d->nr_msix[1], event / 5);
		}
		tdev_echo(&t, 0, 10);
		assert_int_equal(d->nr_msix[1], event / 5 + 1);
	}
	tdev_fini(&t);
}

/* SPLIT-13, SPLIT-15, SPLIT-16: ids, lengths, indices beyond 65535. */
static void test_wrap(void **state)
{
	static const uint64_t features[] = { V1, V1 | EVENT_IDX | INDIRECT };

	for (size_t f = 0; f < ARRAY_LEN(features); f++) {
		struct vdrv_buf b[2];
		struct vdrv_used used;

		tdev_start(&t, VDRV_MODERN, (struct tdev_opts){ .qsize = 4 },
			   features[f], 1);
		t.no_kicks_while_busy = true;
		b[0] = (struct vdrv_buf){ vdrv_alloc(d, 4, 4), 4, VDRV_R };
		b[1] = (struct vdrv_buf){ vdrv_alloc(d, 4, 4), 4, VDRV_W };
		for (uint32_t i = 0; i < 70000; i++) {
			uint16_t head;

			memcpy(vdrv_ptr(d, b[0].gpa, 4), &i, 4);
			head = vdrv_add(d, 0, b, 2);
			assert_true(vdrv_kick_if_wanted(d, 0));
			assert_true(vdrv_used(d, 0, &used));
			assert_int_equal(used.id, head);
			assert_int_equal(used.len, 4);
			assert_memory_equal(vdrv_ptr(d, b[1].gpa, 4), &i, 4);
			assert_int_equal(vdrv_used_ring_idx(d, 0),
					 (uint16_t)(i + 1));
			assert_int_equal(d->nr_msix[1], i + 1);
		}
		tdev_fini(&t);
	}
}

/* SPLIT-14: nothing written, nothing reported. */
static void test_empty_answer(void **state)
{
	struct vdrv_buf b;
	struct vdrv_used used;

	tdev_start(&t, VDRV_MODERN, modern, V1, 1);
	b = (struct vdrv_buf){ vdrv_alloc(d, 64, 1), 64, VDRV_R };
	vdrv_add(d, 0, &b, 1);
	vdrv_kick(d, 0);
	assert_true(vdrv_used(d, 0, &used));
	assert_int_equal(used.len, 0);
	tdev_fini(&t);
}

/* Chains may be given back in any order. */
static void test_out_of_order(void **state)
{
	static const unsigned order[] = { 2, 0, 3, 1 };
	struct vdrv_used used;
	struct vdrv_buf b;
	uint16_t heads[4];

	tdev_start(&t, VDRV_MODERN, modern, V1, 1);
	t.hold = true;
	b = (struct vdrv_buf){ vdrv_alloc(d, 64, 1), 64, VDRV_W };
	for (int i = 0; i < 4; i++) {
		heads[i] = vdrv_add(d, 0, &b, 1);
		vdrv_kick(d, 0);
		assert_int_equal(tdev_take(&t, 0), 1);
		assert_int_equal(t.req.idx, heads[i]);
	}
	for (uint32_t i = 0; i < 4; i++) {
		tdev_give(&t, 0, heads[order[i]], i);
		assert_true(vdrv_used(d, 0, &used));
		assert_int_equal(used.id, heads[order[i]]);
		assert_int_equal(used.len, i);
	}
	tdev_fini(&t);
}

/* SPLIT-17: without EVENT_IDX used.flags is 0 or 1, as asked. */
static void test_no_notify_flag(void **state)
{
	tdev_start(&t, VDRV_MODERN, modern, V1, 1);
	assert_int_equal(vdrv_used_flags(d, 0), 0);
	vq_kick_disable(&t.vq[0]);
	assert_int_equal(vdrv_used_flags(d, 0), 1);
	vq_kick_disable(&t.vq[0]);
	assert_int_equal(vdrv_used_flags(d, 0), 1);
	vq_kick_enable(&t.vq[0]);
	assert_int_equal(vdrv_used_flags(d, 0), 0);
	/* What the driver scribbles there is not kept. */
	*(le16 *)vdrv_ptr(d, d->q[0].used, 2) = cpu_to_le16(0xfffe);
	vq_kick_disable(&t.vq[0]);
	assert_int_equal(vdrv_used_flags(d, 0), 1);
	tdev_fini(&t);
}

/* SPLIT-18: with it, used.flags is 0 for ever. */
static void test_avail_event(void **state)
{
	struct vdrv_buf b;

	tdev_start(&t, VDRV_MODERN, modern, V1 | EVENT_IDX, 1);
	b = (struct vdrv_buf){ vdrv_alloc(d, 64, 1), 64, VDRV_W };
	vq_kick_disable(&t.vq[0]);
	assert_int_equal(vdrv_used_flags(d, 0), 0);
	vdrv_add(d, 0, &b, 1);
	vdrv_kick(d, 0);
	assert_int_equal(vdrv_used_flags(d, 0), 0);
	vq_kick_enable(&t.vq[0]);
	assert_int_equal(vdrv_used_flags(d, 0), 0);
	assert_int_equal(vdrv_avail_event(d, 0), 1);
	tdev_fini(&t);
}

/* SPLIT-19, STAT-09: kicks with nothing to do, or nobody there yet. */
static void test_spurious_kicks(void **state)
{
	tdev_start(&t, VDRV_MODERN, modern, V1, 1);
	for (int i = 0; i < 100; i++)
		vdrv_kick(d, 0);
	assert_int_equal(d->nr_msix[1], 0);
	tdev_echo(&t, 0, 10);
	assert_int_equal(d->nr_msix[1], 1);
	tdev_fini(&t);
}

/*
 * SPLIT-20, hostile S22: a driver that kicks only when asked to, and a device
 * that says nothing about kicks, or turns them off and on.
 */
static void test_kicks_are_asked_for(void **state)
{
	static const uint64_t features[] = { V1, V1 | EVENT_IDX };

	for (int i = 0; i < 8; i++) {
		struct vdrv_buf b;

		tdev_start(&t, VDRV_MODERN, modern, features[i & 1], 1);
		t.no_kicks_while_busy = i & 2;
		t.look_first = i & 4;
		b = (struct vdrv_buf){ vdrv_alloc(d, 64, 1), 64, VDRV_W };
		for (int n = 0; n < 200; n++) {
			vdrv_add(d, 0, &b, 1);
			vdrv_kick_if_wanted(d, 0);
			if (!vdrv_used(d, 0, NULL))
				fail_msg("lost kick %d (%s, %s, %s)", n,
					 i & 1 ? "EVENT_IDX" : "flag",
					 i & 2 ? "on and off" : "as it is",
					 i & 4 ? "looks first" : "takes");
		}
		tdev_fini(&t);
	}
}

/* A chain that comes while the last is being worked on is not forgotten. */
static void test_look_once_more(void **state)
{
	struct vdrv_buf b;

	for (int event = 0; event < 2; event++) {
		tdev_start(&t, VDRV_MODERN, modern,
			   V1 | (event ? EVENT_IDX : 0), 1);
		b = (struct vdrv_buf){ vdrv_alloc(d, 64, 1), 64, VDRV_W };
		t.hold = true;
		vdrv_add(d, 0, &b, 1);
		vdrv_kick(d, 0);
		vq_kick_disable(&t.vq[0]);
		assert_int_equal(tdev_take(&t, 0), 1);
		tdev_give(&t, 0, t.req.idx, 0);
		vdrv_add(d, 0, &b, 1); /* no kick: not wanted */
		if (!event)
			assert_false(vdrv_kick_wanted(d, 0));
		vq_kick_enable(&t.vq[0]);
		assert_true(vq_has_descs(&t.vq[0]));
		tdev_fini(&t);
	}
}

/*
 * SPLIT-06, SPLIT-07, SPLIT-08, and SPLIT-23, SPLIT-24, SPLIT-25, SPLIT-26,
 * SPLIT-27 once more as a guest sees them: a good chain is served, a bad one
 * costs a reset and nothing else. The table of chains is in vq_test.c.
 */
static void test_bad_chains_on_each_queue(void **state)
{
	static const struct {
		const char *what;
		uint64_t addr;
		uint32_t len;
		uint16_t flags, next, head;
	} rows[] = {
		{ "SPLIT-23", VDRV_MEM_BASE, 4, VRING_DESC_F_NEXT, 16, 0 },
		{ "SPLIT-23", VDRV_MEM_BASE, 4, 0, 0, 16 },
		{ "SPLIT-24", VDRV_MEM_BASE, 4, VRING_DESC_F_NEXT, 0, 0 },
		{ "SPLIT-25", VDRV_MEM_BASE, 8, VRING_DESC_F_INDIRECT, 0, 0 },
		{ "SPLIT-27", 0, 4, 0, 0, 0 },
		{ "hostile Q13, hostile Q14: its own BAR", 0xe0000000, 4,
		  VRING_DESC_F_WRITE, 0, 0 },
		{ "hostile Q13: the MSI-X BAR", 0xe8000000, 4,
		  VRING_DESC_F_WRITE, 0, 0 },
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		for (unsigned q = 0; q < 2; q++) {
			tdev_start(&t, VDRV_MODERN, modern, V1 | INDIRECT, 2);
			pci_cfg_write(&d->pi, 0x10 + 4 * VIRTIO_MODERN_BAR, 4,
				      0xe0000000);
			pci_cfg_write(&d->pi, 0x10 + 4 * VIRTIO_MSIX_BAR, 4,
				      0xe8000000);
			vdrv_desc(d, q, 0, rows[i].addr, rows[i].len,
				  rows[i].flags, rows[i].next);
			vdrv_avail(d, q, rows[i].head);
			vdrv_kick(d, q);
			if (t.nr_bad != 1)
				fail_msg("%s", rows[i].what);
			assert_int_equal(vdrv_used_ring_idx(d, q), 0);
			assert_true(vdrv_status(d) & NEEDS_RESET);
			assert_int_equal(d->nr_msix[0], 1);
			assert_int_equal(d->nr_msix[q + 1], 0);
			assert_true(vdrv_start(d, V1, 2));
			tdev_echo(&t, q, 10);
			tdev_fini(&t);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_framing),
		cmocka_unit_test(test_long_chains),
		cmocka_unit_test(test_read_only_parts),
		cmocka_unit_test(test_writable_is_not_read),
		cmocka_unit_test(test_interrupt_flag),
		cmocka_unit_test(test_used_event),
		cmocka_unit_test(test_wrap),
		cmocka_unit_test(test_empty_answer),
		cmocka_unit_test(test_out_of_order),
		cmocka_unit_test(test_no_notify_flag),
		cmocka_unit_test(test_avail_event),
		cmocka_unit_test(test_spurious_kicks),
		cmocka_unit_test(test_kicks_are_asked_for),
		cmocka_unit_test(test_look_once_more),
		cmocka_unit_test(test_bad_chains_on_each_queue),
	};

	return cmocka_run_group_tests_name("split", tests, NULL, NULL);
}

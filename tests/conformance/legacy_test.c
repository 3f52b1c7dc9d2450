/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The legacy interface: registers in an I/O BAR, rings at a page frame.
 * conformance.md sections 3 (SPLIT-L) and 5.5.
 */
#include "tdev.h"

static struct tdev t;
static struct vdrv *const d = &t.d;
static const struct tdev_opts legacy = { .mode = VIRTIO_MODE_LEGACY };
static const struct tdev_opts transitional = {
	.mode = VIRTIO_MODE_TRANSITIONAL
};

static uint32_t reg(unsigned off, int size)
{
	return vdrv_legacy_read(d, off, size);
}

static void reg_write(unsigned off, int size, uint32_t val)
{
	vdrv_legacy_write(d, off, size, val);
}

static void select_queue(uint32_t q)
{
	reg_write(VIRTIO_PCI_QUEUE_SEL, 2, q);
}

/* PCI-L01: I/O BAR 0 and the modern capabilities beside it. */
static void test_transitional(void **state)
{
	tdev_init(&t, VDRV_LEGACY, transitional);
	assert_int_equal(pci_bar_type(&d->pi, 0), PCI_BAR_IO);
	assert_true(pci_bar_size(&d->pi, 0) >= 24 + TDEV_CFG_LEN);
	assert_non_null(vi_pci_cfg_bytype(&t.vs, VIRTIO_PCI_CAP_COMMON_CFG));
	assert_true(vdrv_start(d, 0, 2));
	tdev_echo(&t, 0, 100);
	d->mode = VDRV_MODERN;
	assert_true(vdrv_start(d, V1, 2));
	tdev_echo(&t, 0, 100);
	tdev_fini(&t);
}

/* PCI-L02: the configuration moves when MSI-X is enabled. */
static void test_config_moves(void **state)
{
	static const virtio_mode_t modes[] = { VIRTIO_MODE_LEGACY,
					       VIRTIO_MODE_TRANSITIONAL };

	for (size_t m = 0; m < ARRAY_LEN(modes); m++) {
		tdev_init(&t, VDRV_LEGACY,
			  (struct tdev_opts){ .mode = modes[m] });
		vdrv_probe(d);
		for (int i = 0; i < 3; i++) {
			assert_int_equal(reg(0x14, 4), 0x13121110);
			vdrv_msix_enable(d, true);
			assert_int_equal(reg(0x18, 4), 0x13121110);
			assert_int_equal(reg(0x14, 2), 0xffff);
			vdrv_msix_enable(d, false);
		}
		tdev_fini(&t);
	}
	/* Without MSI-X it never does. */
	tdev_init(&t, VDRV_LEGACY,
		  (struct tdev_opts){ .mode = VIRTIO_MODE_LEGACY,
				      .no_msix = true });
	vdrv_probe(d);
	assert_int_equal(d->msix_cap, 0);
	assert_int_equal(reg(0x14, 4), 0x13121110);
	assert_true(vdrv_start(d, 0, 1));
	tdev_echo(&t, 0, 10);
	assert_int_equal(d->nr_intx, 1);
	tdev_fini(&t);
}

/*
 * PCI-L03, PCI-L04: the header is little-endian, the configuration has the
 * guest's order, which is the host's here; bytes make up words.
 */
static void test_widths(void **state)
{
	tdev_init(&t, VDRV_LEGACY, legacy);
	vdrv_probe(d);
	for (unsigned off = 0x14; off < 0x14 + TDEV_CFG_LEN; off += 4) {
		uint32_t bytes = 0, words;

		for (unsigned i = 0; i < 4; i++)
			bytes |= reg(off + i, 1) << 8 * i;
		words = reg(off, 2) | reg(off + 2, 2) << 16;
		assert_int_equal(reg(off, 4), bytes);
		assert_int_equal(words, bytes);
	}
	for (unsigned i = 0; i < 4; i++)
		reg_write(0x14 + i, 1, 0xa0 + i);
	assert_int_equal(reg(0x14, 4), 0xa3a2a1a0);
	assert_true(reg(VIRTIO_PCI_HOST_FEATURES, 4) & TDEV_F_A);
	tdev_fini(&t);
}

/* PCI-L05: the size is the device's. */
static void test_queue_size_is_fixed(void **state)
{
	tdev_init(&t, VDRV_LEGACY, legacy);
	vdrv_probe(d);
	select_queue(0);
	for (uint32_t v = 0; v < 70; v++)
		reg_write(VIRTIO_PCI_QUEUE_NUM, 2, v);
	assert_int_equal(reg(VIRTIO_PCI_QUEUE_NUM, 2), TDEV_QSIZE);
	assert_true(vdrv_start(d, 0, 1));
	tdev_echo(&t, 0, 10);
	tdev_fini(&t);
}

/* PCI-L06: the page frame reads back; 0 detaches. */
static void test_pfn(void **state)
{
	uint32_t pfn;

	tdev_init(&t, VDRV_LEGACY, legacy);
	vdrv_probe(d);
	for (uint32_t q = 0; q < 2; q++) {
		select_queue(q);
		assert_int_equal(reg(VIRTIO_PCI_QUEUE_PFN, 4), 0);
	}
	assert_true(vdrv_start(d, 0, 2));
	for (unsigned q = 0; q < 2; q++) {
		select_queue(q);
		pfn = (uint32_t)(d->q[q].desc / 4096);
		assert_int_equal(reg(VIRTIO_PCI_QUEUE_PFN, 4), pfn);
	}
	select_queue(0);
	reg_write(VIRTIO_PCI_QUEUE_PFN, 4, 0);
	assert_int_equal(reg(VIRTIO_PCI_QUEUE_PFN, 4), 0);
	assert_false(vq_ring_ready(&t.vq[0]));
	tdev_dead(&t, 0);
	tdev_echo(&t, 1, 10);
	/* And again, elsewhere. */
	assert_true(vdrv_queue_setup(d, 0, 0));
	tdev_echo(&t, 0, 10);
	tdev_fini(&t);
}

/* PCI-L07, MSIX-05, MSIX-07, hostile F6, hostile S11. */
static void test_vectors(void **state)
{
	static const unsigned regs[] = { VIRTIO_MSI_CONFIG_VECTOR,
					 VIRTIO_MSI_QUEUE_VECTOR };
	static const uint32_t bad[] = { 3, 64, 0x800, 0x1234, 0xfffe };

	tdev_start(&t, VDRV_LEGACY, legacy, 0, 2);
	select_queue(1);
	for (size_t r = 0; r < ARRAY_LEN(regs); r++) {
		for (uint32_t v = 0; v < 3; v++) {
			reg_write(regs[r], 2, v);
			assert_int_equal(reg(regs[r], 2), v);
		}
		for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
			reg_write(regs[r], 2, 1);
			reg_write(regs[r], 2, bad[i]);
			assert_int_equal(reg(regs[r], 2), 0xffff);
		}
		reg_write(regs[r], 2, 2);
	}
	tdev_echo(&t, 1, 10);
	vq_devcfg_changed(&t.vs);
	assert_int_equal(d->nr_msix[2], 2);
	vdrv_reset(d);
	assert_int_equal(reg(VIRTIO_MSI_CONFIG_VECTOR, 2), 0xffff);
	tdev_fini(&t);
}

/* PCI-L08: a modern driver is at work; legacy registers keep quiet. */
static void test_mixing(void **state)
{
	static const uint32_t vals[] = { 1, 7, 0x80, 0xffffffff, 0x101 };

	tdev_start(&t, VDRV_MODERN, transitional, V1 | EVENT_IDX, 1);
	for (size_t v = 0; v < ARRAY_LEN(vals); v++) {
		for (unsigned off = 0; off < 0x14; off++) {
			for (int size = 1; size <= 4; size *= 2) {
				/* 0 in the status register is a reset. */
				if (off <= VIRTIO_PCI_STATUS &&
				    off + (unsigned)size > VIRTIO_PCI_STATUS &&
				    off != VIRTIO_PCI_STATUS)
					continue;
				reg_write(off, size, vals[v]);
			}
		}
		assert_int_equal(vdrv_status(d), ACK | DRV | FEAT_OK | DRV_OK);
		assert_int_equal(t.vs.vs_negotiated_caps, V1 | EVENT_IDX);
		tdev_echo(&t, 0, 10);
	}
	reg_write(VIRTIO_PCI_STATUS, 1, 0);
	assert_int_equal(vdrv_status(d), 0);
	tdev_fini(&t);
}

/* hostile S12, hostile K17: no such queue. */
static void test_queue_select_out_of_range(void **state)
{
	static const uint32_t sel[] = { 2, 3, 0x8000, 0xffff };

	tdev_start(&t, VDRV_LEGACY, legacy, 0, 2);
	for (size_t i = 0; i < ARRAY_LEN(sel); i++) {
		select_queue(sel[i]);
		assert_int_equal(reg(VIRTIO_PCI_QUEUE_NUM, 2), 0);
		assert_int_equal(reg(VIRTIO_PCI_QUEUE_PFN, 4), 0);
		reg_write(VIRTIO_PCI_QUEUE_PFN, 4, 0);
		reg_write(VIRTIO_PCI_QUEUE_PFN, 4, 0x100);
		reg_write(VIRTIO_MSI_QUEUE_VECTOR, 2, 1);
		assert_int_equal(reg(VIRTIO_MSI_QUEUE_VECTOR, 2), 0xffff);
	}
	tdev_echo(&t, 0, 10);
	tdev_echo(&t, 1, 10);
	tdev_fini(&t);
}

/* hostile S24, hostile K11, hostile Q1: doorbells before there is a ring. */
static void test_notify_early(void **state)
{
	static const uint32_t values[] = { 0, 1, 2, 8, 0x7fff, 0x8000, 0xffff };

	tdev_init(&t, VDRV_LEGACY, legacy);
	vdrv_probe(d);
	for (int live = 0; live < 2; live++) {
		for (size_t i = 0; i < ARRAY_LEN(values); i++)
			for (int size = 1; size <= 4; size *= 2)
				reg_write(VIRTIO_PCI_QUEUE_NOTIFY, size,
					  values[i]);
		assert_int_equal(t.nr_chains[0], 0);
		assert_true(vdrv_start(d, 0, 1));
	}
	tdev_echo(&t, 0, 10);
	tdev_fini(&t);
}

/* hostile F5: PFN and features rewritten while the ring is live. */
static void test_live_ring_stays(void **state)
{
	uint64_t other;

	tdev_start(&t, VDRV_LEGACY, legacy, 0, 1);
	other = vdrv_alloc(d, 16384, 4096);
	tdev_echo(&t, 0, 10);
	select_queue(0);
	reg_write(VIRTIO_PCI_QUEUE_PFN, 4, (uint32_t)(other / 4096));
	reg_write(VIRTIO_PCI_GUEST_FEATURES, 4, (uint32_t)EVENT_IDX);
	vdrv_set_used_event(d, 0, 0x5000);
	for (unsigned i = 0; i < 40; i++)
		tdev_echo(&t, 0, 10);
	assert_int_equal(d->nr_msix[1], 41);
	tdev_fini(&t);
}

/* SPLIT-29, hostile S25: a page frame outside of memory, or its end. */
static void test_bad_pfn(void **state)
{
	static const uint32_t pfn[] = {
		1,
		0xff,
		0xffffffff,
		0x40000000,
		(VDRV_MEM_BASE + VDRV_MEM_BYTES) / 4096,
		(VDRV_MEM_BASE + VDRV_MEM_BYTES) / 4096 - 1,
	};

	for (size_t i = 0; i < ARRAY_LEN(pfn); i++) {
		tdev_init(&t, VDRV_LEGACY, legacy);
		vdrv_probe(d);
		vdrv_reset(d);
		vdrv_greet(d);
		select_queue(0);
		reg_write(VIRTIO_PCI_QUEUE_PFN, 4, pfn[i]);
		assert_false(vq_ring_ready(&t.vq[0]));
		vdrv_driver_ok(d);
		reg_write(VIRTIO_PCI_QUEUE_NOTIFY, 2, 0);
		assert_int_equal(t.nr_chains[0], 0);
		/* STAT-04 holds for a modern driver alone: no such bit here. */
		assert_false(vdrv_status(d) & NEEDS_RESET);
		assert_true(vdrv_start(d, 0, 1));
		tdev_echo(&t, 0, 10);
		tdev_fini(&t);
	}
}

/* An error stops a legacy device too, until the next reset; hostile S13. */
static void test_error(void **state)
{
	tdev_start(&t, VDRV_LEGACY, legacy, 0, 2);
	vdrv_avail(d, 0, 0xffff);
	vdrv_kick(d, 0);
	assert_true(t.vs.vs_flags & VIRTIO_BROKEN);
	assert_false(vdrv_status(d) & NEEDS_RESET);
	assert_int_equal(d->nr_msix[0], 0);
	tdev_dead(&t, 0);
	tdev_dead(&t, 1);
	assert_int_equal(vdrv_cfg_read(d, 0, 4), 0x13121110);
	assert_true(vdrv_start(d, 0, 2));
	tdev_echo(&t, 0, 10);
	tdev_echo(&t, 1, 10);
	tdev_fini(&t);
}

/* SPLIT-L01, TRAP-11: where the three parts are. */
static void test_layout(void **state)
{
	static const struct {
		uint16_t n;
		uint64_t avail, used;
	} rows[] = {
		{ 8, 128, 4096 },          { 64, 1024, 4096 },
		{ 128, 2048, 4096 },       { 256, 4096, 8192 },
		{ 1024, 16384, 20480 },    { 4096, 65536, 77824 },
		{ 32768, 524288, 593920 },
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		tdev_start(&t, VDRV_LEGACY,
			   (struct tdev_opts){ .mode = VIRTIO_MODE_LEGACY,
					       .qsize = rows[i].n },
			   0, 1);
		assert_int_equal(t.vq[0].vq_avail_gpa - t.vq[0].vq_desc_gpa,
				 rows[i].avail);
		assert_int_equal(t.vq[0].vq_used_gpa - t.vq[0].vq_desc_gpa,
				 rows[i].used);
		for (int k = 0; k < 20; k++)
			tdev_echo(&t, 0, 10);
		tdev_fini(&t);
	}
}

/* TRAP-11: Linux allocates no more than the used ring itself. */
static void test_used_ring_is_not_padded(void **state)
{
	static uint8_t ring[4096 + 6 + 8 * TDEV_QSIZE]
		__attribute__((aligned(4096)));
	const gpa_t at = { 0x80000000 };

	for (size_t less = 0; less < 5; less += 4) {
		tdev_init(&t, VDRV_LEGACY, legacy);
		assert_int_equal(gm_add(&d->gm, at, sizeof(ring) - less, ring,
					GM_READ | GM_WRITE),
				 0);
		vdrv_probe(d);
		vdrv_reset(d);
		vdrv_greet(d);
		select_queue(0);
		reg_write(VIRTIO_PCI_QUEUE_PFN, 4, 0x80000);
		assert_int_equal(!!vq_ring_ready(&t.vq[0]), less == 0);
		tdev_fini(&t);
	}
}

/*
 * SPLIT-L02, SPLIT-L03, SPLIT-L04: rings have the guest's byte order, which
 * is the host's here; any layout is taken; the length is reported.
 */
static void test_any_layout(void **state)
{
	struct vdrv_buf bufs[9];
	struct vdrv_used used;
	uint64_t mem;

	tdev_start(&t, VDRV_LEGACY, legacy, 0, 1);
	mem = vdrv_alloc(d, 64, 1);
	memcpy(vdrv_ptr(d, mem, 8), "12345678", 8);
	for (unsigned i = 0; i < 4; i++)
		bufs[i] = (struct vdrv_buf){ mem + i, 1, VDRV_R };
	for (unsigned i = 4; i < 9; i++)
		bufs[i] = (struct vdrv_buf){ mem + 2 * i, 1, VDRV_W };
	vdrv_add(d, 0, bufs, ARRAY_LEN(bufs));
	vdrv_kick(d, 0);
	assert_true(vdrv_used(d, 0, &used));
	assert_int_equal(used.len, 4);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(*(uint8_t *)vdrv_ptr(d, mem + 8 + 2 * i, 1),
				 '1' + i);
	tdev_fini(&t);
}

/* Every register, any width and value, at any moment. */
static void test_register_storm(void **state)
{
	static const uint32_t vals[] = { 0xffffffff, 1, 0, 0x8000, 0x100 };

	for (int live = 0; live < 2; live++) {
		for (int debug = 0; debug < 2; debug++) {
			tdev_init(&t, VDRV_LEGACY, legacy);
			vi_set_debug(&t.vs, debug);
			vdrv_probe(d);
			for (size_t v = 0; v < ARRAY_LEN(vals); v++) {
				if (live)
					assert_true(vdrv_start(d, 0, 2));
				for (unsigned off = 0; off < 0x100; off++) {
					for (int size = 1; size <= 8;
					     size *= 2) {
						reg(off, size);
						reg_write(off, size, vals[v]);
					}
				}
			}
			assert_true(vdrv_start(d, 0, 2));
			tdev_echo(&t, 0, 10);
			tdev_fini(&t);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_transitional),
		cmocka_unit_test(test_config_moves),
		cmocka_unit_test(test_widths),
		cmocka_unit_test(test_queue_size_is_fixed),
		cmocka_unit_test(test_pfn),
		cmocka_unit_test(test_vectors),
		cmocka_unit_test(test_mixing),
		cmocka_unit_test(test_queue_select_out_of_range),
		cmocka_unit_test(test_notify_early),
		cmocka_unit_test(test_live_ring_stays),
		cmocka_unit_test(test_bad_pfn),
		cmocka_unit_test(test_error),
		cmocka_unit_test(test_layout),
		cmocka_unit_test(test_used_ring_is_not_padded),
		cmocka_unit_test(test_any_layout),
		cmocka_unit_test(test_register_storm),
	};

	return cmocka_run_group_tests_name("legacy", tests, NULL, NULL);
}

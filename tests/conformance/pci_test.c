/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The device as a PCI function: identity, capabilities, the modern registers,
 * interrupts, the configuration access window. conformance.md section 5.
 */
#include "tdev.h"

static struct tdev t;
static struct vdrv *const d = &t.d;
static const struct tdev_opts modern = { .mode = VIRTIO_MODE_MODERN };
static const struct tdev_opts transitional = {
	.mode = VIRTIO_MODE_TRANSITIONAL
};

static const virtio_mode_t new_modes[] = { VIRTIO_MODE_MODERN,
					   VIRTIO_MODE_TRANSITIONAL };

static uint32_t cfg(unsigned off, unsigned size)
{
	return pci_cfg_read(&d->pi, off, size);
}

static void cfg_write(unsigned off, unsigned size, uint32_t val)
{
	pci_cfg_write(&d->pi, off, size, val);
}

static uint32_t common(unsigned off, int size)
{
	return vdrv_common_read(d, off, size);
}

static void common_write(unsigned off, int size, uint32_t val)
{
	vdrv_common_write(d, off, size, val);
}

static void select_queue(uint32_t q)
{
	common_write(VIRTIO_PCI_COMMON_Q_SELECT, 2, q);
}

/* The next virtio capability of this type after @cap (0: from the start). */
static unsigned next_cap(unsigned cap, int type)
{
	cap = cap ? cfg(cap + 1, 1) : cfg(0x34, 1);
	for (int hops = 0; cap; cap = cfg(cap + 1, 1)) {
		assert_true(++hops < 48);
		assert_true(cap >= 0x40 && cap % 4 == 0);
		if (cfg(cap, 1) == 0x09 && (int)cfg(cap + 3, 1) == type)
			return cap;
	}
	return 0;
}

/*
 * --- Identity ---
 */

/* PCI-ID-01, PCI-ID-02, PCI-ID-03, PCI-ID-04: a modern function. */
static void test_identity_modern(void **state)
{
	tdev_init(&t, VDRV_MODERN, modern);
	assert_int_equal(cfg(0x00, 2), 0x1af4);
	assert_int_equal(cfg(0x02, 2), 0x1040 + VIRTIO_ID_ENTROPY);
	assert_true(cfg(0x08, 1) >= 1);
	assert_true(cfg(0x2e, 2) >= 0x40);
	assert_int_equal(cfg(0x0b, 1), PCIC_OTHER);
	tdev_fini(&t);
}

/* PCI-ID-L01, PCI-ID-L02, PCI-ID-L03, PCI-ID-07: one for legacy drivers. */
static void test_identity_legacy(void **state)
{
	static const virtio_mode_t modes[] = { VIRTIO_MODE_LEGACY,
					       VIRTIO_MODE_TRANSITIONAL };

	for (size_t i = 0; i < ARRAY_LEN(modes); i++) {
		tdev_init(&t, VDRV_LEGACY,
			  (struct tdev_opts){ .mode = modes[i] });
		assert_int_equal(cfg(0x00, 2), 0x1af4);
		assert_int_equal(cfg(0x02, 2), VIRTIO_DEV_RANDOM);
		assert_int_equal(cfg(0x08, 1), 0);
		assert_int_equal(cfg(0x2e, 2), VIRTIO_ID_ENTROPY);
		tdev_fini(&t);
	}
}

/* PCI-ID-06: a modern function has no legacy registers to speak of. */
static void test_no_legacy_bar(void **state)
{
	tdev_init(&t, VDRV_MODERN, modern);
	vdrv_probe(d);
	assert_int_equal(pci_bar_type(&d->pi, 0), PCI_BAR_NONE);
	vdrv_legacy_write(d, VIRTIO_PCI_STATUS, 1, 7);
	vdrv_legacy_write(d, VIRTIO_PCI_QUEUE_PFN, 4, 0x200);
	assert_int_equal(vdrv_status(d), 0);
	assert_false(vq_ring_ready(&t.vq[0]));
	tdev_fini(&t);
}

/* PCI-ID-05: header, read-only registers, command bits. */
static void test_header(void **state)
{
	static const unsigned ro[] = { 0x00, 0x02, 0x08, 0x0a, 0x2c, 0x2e };

	tdev_init(&t, VDRV_MODERN, transitional);
	assert_int_equal(cfg(0x0e, 1) & 0x7f, 0); /* header type 0 */
	assert_true(cfg(0x06, 2) & 0x10);         /* has capabilities */
	assert_int_equal(cfg(0x3d, 1), 1);        /* INTA */
	for (size_t i = 0; i < ARRAY_LEN(ro); i++) {
		uint32_t was = cfg(ro[i], 2);

		cfg_write(ro[i], 2, ~was);
		assert_int_equal(cfg(ro[i], 2), was);
	}
	cfg_write(4, 2, 0x0407);
	assert_int_equal(cfg(4, 2), 0x0407);
	cfg_write(4, 2, 0);
	assert_int_equal(cfg(4, 2), 0);
	cfg_write(0x3c, 1, 0x2b); /* the interrupt line is the guest's */
	assert_int_equal(cfg(0x3c, 1), 0x2b);
	tdev_fini(&t);
}

/* PCI-ID-05: sizing of BARs, PCI-CAP-06: none with a capability is empty. */
static void test_bar_sizing(void **state)
{
	for (size_t m = 0; m < ARRAY_LEN(new_modes); m++) {
		tdev_init(&t, VDRV_MODERN,
			  (struct tdev_opts){ .mode = new_modes[m] });
		for (int bar = 0; bar < PCI_NR_BARS; bar++) {
			unsigned reg = 0x10 + 4 * (unsigned)bar;
			enum pci_bar_type type = pci_bar_type(&d->pi, bar);
			uint64_t size = pci_bar_size(&d->pi, bar);
			uint64_t mask;

			cfg_write(reg, 4, 0xffffffff);
			mask = cfg(reg, 4);
			switch (type) {
			case PCI_BAR_NONE:
				assert_int_equal(mask, 0);
				continue;
			case PCI_BAR_IO:
				assert_int_equal(mask & 3, 1);
				assert_int_equal(
					(uint32_t)(~(mask & ~3ull) + 1), size);
				break;
			case PCI_BAR_MEM32:
				assert_int_equal(mask & 7, 0);
				assert_int_equal(
					(uint32_t)(~(mask & ~15ull) + 1), size);
				break;
			case PCI_BAR_MEM64:
				assert_int_equal(mask & 7, 4);
				cfg_write(reg + 4, 4, 0xffffffff);
				mask |= (uint64_t)cfg(reg + 4, 4) << 32;
				assert_int_equal(~(mask & ~15ull) + 1, size);
				bar++;
				break;
			}
			assert_int_equal(size & (size - 1), 0);
		}
		tdev_fini(&t);
	}
}

/* PCI-ID-05: each byte of configuration space, all sizes, any value. */
static void test_config_space_storm(void **state)
{
	static const uint32_t vals[] = { 0xffffffff, 0, 0xa5a5a5a5, 1 };

	for (size_t m = 0; m < ARRAY_LEN(new_modes); m++) {
		tdev_start(&t, VDRV_MODERN,
			   (struct tdev_opts){ .mode = new_modes[m] }, V1, 1);
		for (size_t v = 0; v < ARRAY_LEN(vals); v++) {
			for (unsigned off = 0; off < 0x104; off++) {
				for (unsigned size = 0; size <= 8; size++) {
					cfg(off, size);
					cfg_write(off, size, vals[v]);
				}
			}
		}
		/* hostile F7: sums of offset and size that wrap. */
		for (unsigned size = 1; size <= 4; size *= 2) {
			cfg(0xffffffff, size);
			cfg_write(0xfffffffe, size, 1);
			cfg(0u - size, size);
		}
		assert_int_equal(cfg(0, 4) & 0xffff, 0x1af4);
		tdev_fini(&t);
	}
}

/*
 * --- Capabilities ---
 */

/* PCI-CAP-01, PCI-CAP-03, PCI-CAP-04, PCI-CAP-05, PCI-CAP-06. */
static void test_capabilities(void **state)
{
	static const struct {
		int type;
		unsigned len, min_struct, align;
	} rows[] = {
		{ VIRTIO_PCI_CAP_COMMON_CFG, 16, 56, 4 },
		{ VIRTIO_PCI_CAP_NOTIFY_CFG, 20, 2, 2 },
		{ VIRTIO_PCI_CAP_ISR_CFG, 16, 1, 1 },
		{ VIRTIO_PCI_CAP_DEVICE_CFG, 16, TDEV_CFG_LEN, 4 },
		{ VIRTIO_PCI_CAP_PCI_CFG, 20, 0, 1 },
	};

	for (size_t m = 0; m < ARRAY_LEN(new_modes); m++) {
		tdev_init(&t, VDRV_MODERN,
			  (struct tdev_opts){ .mode = new_modes[m] });
		for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
			unsigned cap = next_cap(0, rows[i].type);
			uint32_t bar, off, len;

			assert_true(cap);
			assert_int_equal(cfg(cap + 2, 1), rows[i].len);
			if (rows[i].type == VIRTIO_PCI_CAP_PCI_CFG)
				continue;
			bar = cfg(cap + 4, 1);
			off = cfg(cap + 8, 4);
			len = cfg(cap + 12, 4);
			assert_true(bar < 6);
			assert_true(len >= rows[i].min_struct);
			assert_int_equal(off % rows[i].align, 0);
			assert_true((uint64_t)off + len <=
				    pci_bar_size(&d->pi, (int)bar));
			for (unsigned b = 0; b < rows[i].len; b++) {
				uint32_t was = cfg(cap + b, 1);

				cfg_write(cap + b, 1, ~was);
				assert_int_equal(cfg(cap + b, 1), was);
			}
		}
		tdev_fini(&t);
	}
}

/* PCI-CAP-02: one of each; where there are more, the best is the first. */
static void test_capabilities_once(void **state)
{
	tdev_init(&t, VDRV_MODERN, modern);
	for (int type = 1; type <= 5; type++)
		assert_int_equal(next_cap(next_cap(0, type), type), 0);
	tdev_fini(&t);
}

/* PCI-CAP-03: without device configuration there is no DEVICE_CFG. */
static void test_no_device_cfg(void **state)
{
	tdev_init(&t, VDRV_MODERN, (struct tdev_opts){ .cfgsize = -1 });
	assert_int_equal(next_cap(0, VIRTIO_PCI_CAP_DEVICE_CFG), 0);
	assert_true(next_cap(0, VIRTIO_PCI_CAP_COMMON_CFG));
	tdev_fini(&t);
}

/* A legacy function says nothing of virtio 1. */
static void test_no_capabilities_in_legacy(void **state)
{
	tdev_init(&t, VDRV_LEGACY,
		  (struct tdev_opts){ .mode = VIRTIO_MODE_LEGACY });
	for (int type = 1; type <= 9; type++)
		assert_int_equal(next_cap(0, type), 0);
	tdev_fini(&t);
}

/* The structures do not overlap in the BAR. */
static void test_structures_apart(void **state)
{
	uint32_t off[4], end[4];

	tdev_init(&t, VDRV_MODERN, modern);
	for (int i = 0; i < 4; i++) {
		unsigned cap = next_cap(0, i + 1);

		off[i] = cfg(cap + 8, 4);
		end[i] = off[i] + cfg(cap + 12, 4);
		for (int j = 0; j < i; j++)
			assert_true(end[j] <= off[i] || end[i] <= off[j]);
	}
	tdev_fini(&t);
}

/*
 * --- Common configuration ---
 */

/* PCI-COMMON-01, TRAP-07: any select. */
static void test_device_feature_windows(void **state)
{
	static const uint32_t sel[] = { 0,  1,  2,          3,         4,
					31, 32, 0x80000000, 0xffffffff };
	uint64_t offer =
		VI_RING_CAPS_MODERN | TDEV_F_A | TDEV_F_B | TDEV_F_HIGH | V1;

	tdev_init(&t, VDRV_MODERN, modern);
	vdrv_probe(d);
	for (size_t i = 0; i < ARRAY_LEN(sel); i++) {
		common_write(VIRTIO_PCI_COMMON_DFSELECT, 4, sel[i]);
		assert_int_equal(common(VIRTIO_PCI_COMMON_DFSELECT, 4), sel[i]);
		assert_int_equal(common(VIRTIO_PCI_COMMON_DF, 4),
				 sel[i] < 2 ? (uint32_t)(offer >> 32 * sel[i]) :
					      0);
	}
	/* Read-only. */
	common_write(VIRTIO_PCI_COMMON_DFSELECT, 4, 0);
	common_write(VIRTIO_PCI_COMMON_DF, 4, 0);
	assert_int_equal(common(VIRTIO_PCI_COMMON_DF, 4), (uint32_t)offer);
	tdev_fini(&t);
}

/* PCI-COMMON-02: what was accepted reads back. */
static void test_driver_feature_windows(void **state)
{
	tdev_init(&t, VDRV_MODERN, modern);
	vdrv_probe(d);
	vdrv_reset(d);
	vdrv_greet(d);
	assert_true(vdrv_negotiate(d, V1 | TDEV_F_A | TDEV_F_HIGH | INDIRECT));
	common_write(VIRTIO_PCI_COMMON_GFSELECT, 4, 0);
	assert_int_equal(common(VIRTIO_PCI_COMMON_GF, 4),
			 (uint32_t)(TDEV_F_A | INDIRECT));
	common_write(VIRTIO_PCI_COMMON_GFSELECT, 4, 1);
	assert_int_equal(common(VIRTIO_PCI_COMMON_GF, 4),
			 (uint32_t)((V1 | TDEV_F_HIGH) >> 32));
	common_write(VIRTIO_PCI_COMMON_GFSELECT, 4, 0xffffffff);
	assert_int_equal(common(VIRTIO_PCI_COMMON_GF, 4), 0);
	tdev_fini(&t);
}

/* PCI-COMMON-03: a change between two readings shows, also the 256th. */
static void test_config_generation(void **state)
{
	static const int changes[] = { 1, 2, 255, 256, 257, 512, 65536 };
	uint8_t g0, g1;

	tdev_start(&t, VDRV_MODERN, modern, V1, 1);
	for (size_t i = 0; i < ARRAY_LEN(changes); i++) {
		g0 = (uint8_t)common(VIRTIO_PCI_COMMON_CFGGENERATION, 1);
		vdrv_cfg_read(d, 0, 4);
		for (int c = 0; c < changes[i]; c++) {
			t.cfg[0]++;
			vq_devcfg_changed(&t.vs);
		}
		vdrv_cfg_read(d, 0, 4);
		g1 = (uint8_t)common(VIRTIO_PCI_COMMON_CFGGENERATION, 1);
		if (g0 == g1)
			fail_msg("%d changes: the same generation", changes[i]);
		/* Nothing changed: nothing changes. */
		vdrv_cfg_read(d, 0, 4);
		assert_int_equal(common(VIRTIO_PCI_COMMON_CFGGENERATION, 1),
				 g1);
	}
	/* In the middle of a reading. */
	g0 = (uint8_t)common(VIRTIO_PCI_COMMON_CFGGENERATION, 1);
	vdrv_cfg_read(d, 0, 4);
	vq_devcfg_changed(&t.vs);
	vdrv_cfg_read(d, 4, 4);
	vq_devcfg_changed(&t.vs);
	g1 = (uint8_t)common(VIRTIO_PCI_COMMON_CFGGENERATION, 1);
	assert_int_not_equal(g0, g1);
	tdev_fini(&t);
}

/* PCI-COMMON-06, PCI-COMMON-14, hostile S12, D25, D32, K17. */
static void test_queue_select_out_of_range(void **state)
{
	static const uint32_t sel[] = { 2, 3, 64, 0x7fff, 0x8000, 0xffff };

	tdev_start(&t, VDRV_MODERN, modern, V1, 2);
	for (size_t i = 0; i < ARRAY_LEN(sel); i++) {
		select_queue(sel[i]);
		assert_int_equal(common(VIRTIO_PCI_COMMON_Q_SELECT, 2), sel[i]);
		for (unsigned off = VIRTIO_PCI_COMMON_Q_SIZE; off < 0x38;
		     off += 2) {
			uint32_t want =
				off == VIRTIO_PCI_COMMON_Q_MSIX ? 0xffff : 0;

			if (common(off, 2) != want)
				fail_msg("queue %u: %#x", sel[i], off);
			common_write(off, 2,
				     off == VIRTIO_PCI_COMMON_Q_SIZE ? 8 : 1);
			common_write(off, 2, 0);
		}
	}
	for (uint32_t q = 0; q < 2; q++) {
		select_queue(q);
		assert_int_equal(common(VIRTIO_PCI_COMMON_Q_SIZE, 2),
				 TDEV_QSIZE);
		assert_int_equal(common(VIRTIO_PCI_COMMON_Q_MSIX, 2), q + 1);
		assert_int_equal(common(VIRTIO_PCI_COMMON_Q_ENABLE, 2), 1);
		tdev_echo(&t, q, 10);
	}
	tdev_fini(&t);
}

/* PCI-COMMON-06: a gap. */
static void test_queue_gap(void **state)
{
	tdev_init(&t, VDRV_MODERN, (struct tdev_opts){ .nvq = 3 });
	t.vq[1].vq_qsize = 0;
	vdrv_probe(d);
	assert_int_equal(common(VIRTIO_PCI_COMMON_NUMQ, 2), 3);
	assert_int_equal(vdrv_queue_size(d, 0), TDEV_QSIZE);
	assert_int_equal(vdrv_queue_size(d, 1), 0);
	assert_int_equal(vdrv_queue_size(d, 2), TDEV_QSIZE);
	common_write(VIRTIO_PCI_COMMON_Q_SELECT, 2, 1);
	common_write(VIRTIO_PCI_COMMON_Q_SIZE, 2, 8);
	common_write(VIRTIO_PCI_COMMON_Q_ENABLE, 2, 1);
	assert_int_equal(common(VIRTIO_PCI_COMMON_Q_ENABLE, 2), 0);
	tdev_fini(&t);
}

/* PCI-COMMON-07, PCI-COMMON-08, PCI-COMMON-15, hostile S1, S2, D25. */
static void test_queue_size(void **state)
{
	static const struct {
		uint32_t write, read;
	} rows[] = {
		{ 0, TDEV_QSIZE },
		{ 1, 1 },
		{ 2, 2 },
		{ 3, TDEV_QSIZE },
		{ 8, 8 },
		{ 7, TDEV_QSIZE },
		{ 9, TDEV_QSIZE },
		{ 16, 16 },
		{ 17, TDEV_QSIZE },
		{ 32, TDEV_QSIZE },
		{ 1024, TDEV_QSIZE },
		{ 32768, TDEV_QSIZE },
		{ 65535, TDEV_QSIZE },
	};

	tdev_init(&t, VDRV_MODERN, modern);
	vdrv_probe(d);
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		vdrv_reset(d);
		select_queue(0);
		common_write(VIRTIO_PCI_COMMON_Q_SIZE, 2, rows[i].write);
		if (common(VIRTIO_PCI_COMMON_Q_SIZE, 2) != rows[i].read)
			fail_msg("%u", rows[i].write);
	}
	/* Smaller, and then the maximum again: not a one-way street. */
	common_write(VIRTIO_PCI_COMMON_Q_SIZE, 2, 4);
	common_write(VIRTIO_PCI_COMMON_Q_SIZE, 2, 16);
	assert_int_equal(common(VIRTIO_PCI_COMMON_Q_SIZE, 2), 16);
	/* PCI-COMMON-08: and the size is used. */
	for (uint16_t size = 1; size <= TDEV_QSIZE; size *= 2) {
		vdrv_reset(d);
		vdrv_greet(d);
		assert_true(vdrv_negotiate(d, V1 | INDIRECT));
		assert_true(vdrv_queue_setup(d, 0, size));
		vdrv_driver_ok(d);
		for (unsigned i = 0; i < 3u * size && size > 1; i++)
			tdev_echo(&t, 0, 10);
		vdrv_avail(d, 0, size); /* hostile S1: the old maximum */
		vdrv_kick(d, 0);
		assert_true(vdrv_status(d) & NEEDS_RESET);
	}
	tdev_fini(&t);
}

/* PCI-COMMON-13: each queue has registers of its own. */
static void test_queue_registers_apart(void **state)
{
	static const unsigned regs[] = {
		VIRTIO_PCI_COMMON_Q_DESCLO,  VIRTIO_PCI_COMMON_Q_DESCHI,
		VIRTIO_PCI_COMMON_Q_AVAILLO, VIRTIO_PCI_COMMON_Q_AVAILHI,
		VIRTIO_PCI_COMMON_Q_USEDLO,  VIRTIO_PCI_COMMON_Q_USEDHI,
	};

	tdev_init(&t, VDRV_MODERN, (struct tdev_opts){ .nvq = 4 });
	vdrv_probe(d);
	for (uint32_t q = 0; q < 4; q++) {
		select_queue(q);
		common_write(VIRTIO_PCI_COMMON_Q_SIZE, 2, 2u << q % 4);
		common_write(VIRTIO_PCI_COMMON_Q_MSIX, 2, q);
		for (uint32_t i = 0; i < ARRAY_LEN(regs); i++)
			common_write(regs[i], 4, (q + 1) * 0x10000 + i * 16);
	}
	for (uint32_t q = 4; q-- > 0;) {
		select_queue(q);
		assert_int_equal(common(VIRTIO_PCI_COMMON_Q_SIZE, 2),
				 2u << q % 4);
		assert_int_equal(common(VIRTIO_PCI_COMMON_Q_MSIX, 2), q);
		for (uint32_t i = 0; i < ARRAY_LEN(regs); i++)
			assert_int_equal(common(regs[i], 4),
					 (q + 1) * 0x10000 + i * 16);
	}
	tdev_fini(&t);
}

/* PCI-LAY-01: halves of 64-bit fields in either order; all little-endian. */
static void test_halves(void **state)
{
	static const unsigned regs[] = { VIRTIO_PCI_COMMON_Q_DESCLO,
					 VIRTIO_PCI_COMMON_Q_AVAILLO,
					 VIRTIO_PCI_COMMON_Q_USEDLO };

	tdev_init(&t, VDRV_MODERN, modern);
	vdrv_probe(d);
	for (size_t i = 0; i < ARRAY_LEN(regs); i++) {
		common_write(regs[i] + 4, 4, 0x11223344);
		assert_int_equal(common(regs[i], 4), 0);
		common_write(regs[i], 4, 0x55667780);
		assert_int_equal(common(regs[i] + 4, 4), 0x11223344);
		assert_int_equal(common(regs[i], 4), 0x55667780);
		common_write(regs[i] + 4, 4, 0);
		assert_int_equal(common(regs[i], 4), 0x55667780);
	}
	assert_int_equal(t.vq[0].vq_desc_gpa, 0x55667780);
	tdev_fini(&t);
}

/* PCI-LAY-02, CFG-04: odd accesses harm nothing, above all no neighbours. */
static void test_odd_accesses(void **state)
{
	tdev_start(&t, VDRV_MODERN, modern, V1, 2);
	for (int bar = -1; bar <= PCI_NR_BARS; bar++) {
		for (uint64_t off = 0; off < 0x40; off++)
			for (int size = 1; size <= 8; size *= 2)
				pci_bar_read(&d->pi, bar, off, size);
	}
	/* Bytes beside the status register, then those beside queue_select. */
	common_write(VIRTIO_PCI_COMMON_CFGGENERATION, 1, 0);
	assert_int_equal(vdrv_status(d), ACK | DRV | FEAT_OK | DRV_OK);
	common_write(VIRTIO_PCI_COMMON_NUMQ, 2, 0);
	assert_int_equal(common(VIRTIO_PCI_COMMON_NUMQ, 2), 2);
	assert_int_equal(vdrv_status(d), ACK | DRV | FEAT_OK | DRV_OK);
	select_queue(1);
	common_write(VIRTIO_PCI_COMMON_Q_NOFF, 2, 0x5555);
	tdev_echo(&t, 1, 10);
	tdev_fini(&t);
}

/* PCI-COMMON-14, hostile S5: every offset, every size; nothing is harmed. */
static void test_common_storm(void **state)
{
	static const uint32_t vals[] = { 0, 1, 0xffffffff, 0x80 };

	for (int debug = 0; debug < 2; debug++) {
		tdev_init(&t, VDRV_MODERN, modern);
		vdrv_probe(d);
		vi_set_debug(&t.vs, debug);
		for (size_t v = 0; v < ARRAY_LEN(vals); v++) {
			for (unsigned off = 0; off < 0x1000; off++) {
				for (int size = 1; size <= 8; size *= 2) {
					vdrv_common_read(d, off, size);
					pci_bar_write(&d->pi, d->common_bar,
						      d->common_off + off, size,
						      vals[v]);
				}
			}
		}
		vdrv_reset(d);
		assert_true(vdrv_start(d, V1, 2));
		tdev_echo(&t, 0, 10);
		tdev_fini(&t);
	}
}

/* PCI-COMMON-14: 0 to queue_enable, writes to what is read-only. */
static void test_queue_enable(void **state)
{
	tdev_start(&t, VDRV_MODERN, modern, V1, 1);
	select_queue(0);
	common_write(VIRTIO_PCI_COMMON_Q_ENABLE, 2, 0);
	assert_int_equal(common(VIRTIO_PCI_COMMON_Q_ENABLE, 2), 1);
	common_write(VIRTIO_PCI_COMMON_Q_ENABLE, 2, 1);
	tdev_echo(&t, 0, 10);
	tdev_fini(&t);
}

/* PCI-COMMON-16, hostile S3: a live ring does not move. */
static void test_live_ring_stays(void **state)
{
	for (int before_ok = 0; before_ok < 2; before_ok++) {
		tdev_init(&t, VDRV_MODERN, modern);
		vdrv_probe(d);
		vdrv_reset(d);
		vdrv_greet(d);
		assert_true(vdrv_negotiate(d, V1));
		assert_true(vdrv_queue_setup(d, 0, 8));
		if (!before_ok)
			vdrv_driver_ok(d);
		common_write(VIRTIO_PCI_COMMON_Q_SIZE, 2, 16);
		assert_int_equal(common(VIRTIO_PCI_COMMON_Q_SIZE, 2), 8);
		for (unsigned off = VIRTIO_PCI_COMMON_Q_DESCLO; off < 0x38;
		     off += 4)
			common_write(off, 4, 0x12345670);
		common_write(VIRTIO_PCI_COMMON_Q_ENABLE, 2, 1);
		if (before_ok)
			vdrv_driver_ok(d);
		for (int i = 0; i < 20; i++)
			tdev_echo(&t, 0, 10);
		assert_false(vdrv_status(d) & NEEDS_RESET);
		tdev_fini(&t);
	}
}

/* PCI-COMMON-17, SPLIT-29, SPLIT-01, hostile S25, F1: where a ring may lie. */
static void test_ring_addresses(void **state)
{
	const uint64_t ram = VDRV_MEM_BASE + 0x10000;
	const uint64_t end = VDRV_MEM_BASE + (uint64_t)VDRV_MEM_BYTES;
	const struct {
		const char *what;
		uint64_t desc, avail, used;
		uint64_t features;
		bool ok;
	} rows[] = {
		{ "three places", ram + 0x100, ram, ram + 0x400, 0, true },
		{ "odd alignment", ram + 0x10, ram + 0x202, ram + 0x404, 0,
		  true },
		{ "hostile S25: in a hole", 0, 0, 0, 0, false },
		{ "descriptors in a hole", 0x1000, ram, ram + 0x400, 0, false },
		{ "avail in a hole", ram, 0x1000, ram + 0x400, 0, false },
		{ "used in a hole", ram, ram + 0x400, 0x1000, 0, false },
		{ "descriptors misaligned", ram + 8, ram + 0x400, ram + 0x800,
		  0, false },
		{ "avail misaligned", ram, ram + 0x401, ram + 0x800, 0, false },
		{ "used misaligned", ram, ram + 0x400, ram + 0x802, 0, false },
		{ "descriptors over the end", end - 16 * TDEV_QSIZE + 16, ram,
		  ram + 0x400, 0, false },
		{ "used over the end", ram, ram + 0x400, end - 8 * TDEV_QSIZE,
		  0, false },
		{ "at the top", 0xfffffffffffffff0, ram, ram + 0x400, 0,
		  false },
		{ "used at the top", ram, ram + 0x400, 0xfffffffffffffffc, 0,
		  false },
		{ "hostile F1: descriptors end with RAM", end - 16 * TDEV_QSIZE,
		  ram, ram + 0x400, 0, true },
		{ "hostile F1: avail ends with RAM", ram,
		  end - (4 + 2 * TDEV_QSIZE), ram + 0x400, 0, true },
		{ "hostile F1: used ends with RAM", ram, ram + 0x400,
		  end - (4 + 8 * TDEV_QSIZE), 0, true },
		{ "hostile F1: avail and its event field end with RAM", ram,
		  end - (6 + 2 * TDEV_QSIZE), ram + 0x400, EVENT_IDX, true },
		{ "hostile F1: used, which is 4-aligned, ends 2 before", ram,
		  ram + 0x400, end - (8 + 8 * TDEV_QSIZE), EVENT_IDX, true },
		{ "avail's event field is not in RAM", ram,
		  end - (4 + 2 * TDEV_QSIZE), ram + 0x400, EVENT_IDX, false },
		{ "used's event field is not in RAM", ram, ram + 0x400,
		  end - (4 + 8 * TDEV_QSIZE), EVENT_IDX, false },
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		bool ok;

		tdev_init(&t, VDRV_MODERN, modern);
		d->next_free = VDRV_MEM_BASE + 0x20000;
		vdrv_probe(d);
		vdrv_reset(d);
		vdrv_greet(d);
		assert_true(vdrv_negotiate(d, V1 | rows[i].features));
		ok = vdrv_queue_setup_at(d, 0, TDEV_QSIZE, rows[i].desc,
					 rows[i].avail, rows[i].used);
		if (ok != rows[i].ok)
			fail_msg("%s", rows[i].what);
		assert_int_equal(!!(vdrv_status(d) & NEEDS_RESET), !ok);
		vdrv_driver_ok(d);
		vdrv_kick(d, 0);
		if (ok)
			for (int n = 0; n < 40; n++)
				tdev_echo(&t, 0, 10);
		else
			assert_int_equal(t.nr_chains[0], 0);
		tdev_fini(&t);
	}
}

/* PCI-COMMON-12: not offered. RING_RESET is not accepted. */
static void test_common_tail(void **state)
{
	tdev_start(&t, VDRV_MODERN, modern, V1, 1);
	for (unsigned off = 0x38; off < 0x40; off += 2) {
		common_write(off, 2, 1);
		assert_int_not_equal(common(off, 2), 1);
	}
	tdev_echo(&t, 0, 10);
	tdev_fini(&t);
}

/*
 * --- Doorbells ---
 */

/*
 * PCI-NOTIFY-01, PCI-NOTIFY-02, PCI-NOTIFY-05, TRAP-08. What NOTIFICATION_DATA
 * needs holds in any case: PCI-NOTIFY-03, PCI-NOTIFY-04.
 */
static void test_notify_capability(void **state)
{
	tdev_init(&t, VDRV_MODERN, (struct tdev_opts){ .nvq = 8 });
	vdrv_probe(d);
	assert_false(vdrv_offer(d) & VI_BIT(VIRTIO_F_NOTIFICATION_DATA));
	assert_int_equal(d->notify_off % 4, 0);
	assert_true(d->notify_mult == 0 || d->notify_mult >= 4);
	assert_int_equal(d->notify_mult & (d->notify_mult - 1), 0);
	assert_true(d->notify_len >= 4);
	for (uint32_t q = 0; q < 8; q++) {
		select_queue(q);
		assert_true(d->notify_len >=
			    (uint64_t)common(VIRTIO_PCI_COMMON_Q_NOFF, 2) *
					    d->notify_mult +
				    4);
	}
	/* Each rings where its own register says. */
	assert_true(vdrv_start(d, V1, 8));
	for (unsigned q = 0; q < 8; q++)
		tdev_echo(&t, q, 10 + q);
	tdev_fini(&t);
}

/* PCI-NOTIFY-06, hostile F25: 16 bits; other widths do no harm. */
static void test_notify_width(void **state)
{
	struct vdrv_buf b;

	tdev_start(&t, VDRV_MODERN, modern, V1, 2);
	b = (struct vdrv_buf){ vdrv_alloc(d, 8, 1), 8, VDRV_W };
	vdrv_add(d, 1, &b, 1);
	pci_bar_write(&d->pi, d->notify_bar, d->q[1].notify_off, 4, 0xffff0001);
	pci_bar_write(&d->pi, d->notify_bar, d->q[1].notify_off, 1, 1);
	pci_bar_write(&d->pi, d->notify_bar, d->q[1].notify_off, 8,
		      0x8000000000000001);
	assert_int_equal(t.nr_chains[0], 0);
	vdrv_kick(d, 1);
	assert_int_equal(t.nr_chains[1], 1);
	assert_false(vdrv_status(d) & NEEDS_RESET);
	tdev_fini(&t);
}

/*
 * NTF-03, NTF-04, NTF-05, PCI-NOTIFY-06, TRAP-09: with NOTIFICATION_DATA a
 * doorbell has 32 bits, of which none decides what is taken.
 */
static void test_notification_data(void **state)
{
	static const uint32_t values[] = { 0,          1,          0xffffffff,
					   0x80000001, 0x7fff0001, 0x00010001 };
	uint64_t gpa;

	tdev_init(&t, VDRV_MODERN, modern);
	vi_offer_also(&t.vs, VI_BIT(VIRTIO_F_NOTIFICATION_DATA));
	assert_true(vdrv_start(d, V1 | VI_BIT(VIRTIO_F_NOTIFICATION_DATA), 2));
	for (int n = 0; n < 40; n++)
		tdev_echo(&t, 1, 10);
	for (size_t i = 0; i < ARRAY_LEN(values); i++) {
		unsigned nr = t.nr_chains[1];

		gpa = vdrv_alloc(d, 8, 1);
		vdrv_add(d, 1, &(struct vdrv_buf){ gpa, 8, VDRV_W }, 1);
		pci_bar_write(&d->pi, d->notify_bar, d->q[1].notify_off, 2, 1);
		pci_bar_write(&d->pi, d->notify_bar, d->q[1].notify_off, 8, 1);
		pci_bar_write(&d->pi, d->notify_bar, d->q[1].notify_off + 2, 4,
			      1);
		assert_int_equal(t.nr_chains[1], nr);
		for (int again = 0; again < 3; again++)
			pci_bar_write(&d->pi, d->notify_bar, d->q[1].notify_off,
				      4, values[i]);
		assert_int_equal(t.nr_chains[1], nr + 1);
		assert_true(vdrv_used(d, 1, NULL));
	}
	assert_int_equal(t.nr_chains[0], 0);
	assert_false(vdrv_status(d) & NEEDS_RESET);
	tdev_fini(&t);
}

/*
 * --- ISR and INTx ---
 */

static void start_intx(struct tdev_opts o, enum vdrv_mode mode)
{
	tdev_init(&t, mode, o);
	d->no_msix = true;
	assert_true(vdrv_start(d, V1, 2));
}

/* PCI Status, Interrupt Status. */
static bool interrupt_status(void)
{
	return cfg(0x06, 2) & 8;
}

/* ISR-01, ISR-02, ISR-03, ISR-04, ISR-05, ISR-06, ISR-07. */
static void test_isr(void **state)
{
	for (int mode = VDRV_MODERN; mode <= VDRV_LEGACY; mode++) {
		start_intx(transitional, (enum vdrv_mode)mode);
		assert_int_equal(vdrv_isr(d), 0);
		assert_false(d->intx || interrupt_status());

		tdev_echo(&t, 0, 10);
		assert_true(d->intx && interrupt_status());
		assert_int_equal(d->nr_intx, 1);
		tdev_echo(&t, 1, 10);
		assert_true(d->intx); /* level */
		assert_int_equal(vdrv_isr(d), 1);
		assert_false(d->intx || interrupt_status());
		assert_int_equal(vdrv_isr(d), 0);

		vq_devcfg_changed(&t.vs);
		assert_true(d->intx && interrupt_status());
		tdev_echo(&t, 0, 10);
		assert_int_equal(vdrv_isr(d), 3);
		assert_false(d->intx);

		tdev_echo(&t, 0, 10);
		assert_true(d->intx);
		assert_int_equal(d->nr_intx, 3);
		tdev_fini(&t);
	}
}

/* ISR-04: the mask in the command register hides the pin alone. */
static void test_intx_disable(void **state)
{
	start_intx(modern, VDRV_MODERN);
	cfg_write(4, 2, cfg(4, 2) | 0x400);
	tdev_echo(&t, 0, 10);
	assert_false(d->intx);
	assert_true(interrupt_status());
	cfg_write(4, 2, cfg(4, 2) & ~0x400u);
	assert_true(d->intx);
	cfg_write(4, 2, cfg(4, 2) | 0x400);
	assert_false(d->intx);
	assert_int_equal(vdrv_isr(d), 1);
	cfg_write(4, 2, cfg(4, 2) & ~0x400u);
	assert_false(d->intx);
	tdev_fini(&t);
}

/* ISR-08: writes do nothing, wide reads clear too. */
static void test_isr_write(void **state)
{
	start_intx(modern, VDRV_MODERN);
	tdev_echo(&t, 0, 10);
	for (int size = 1; size <= 4; size *= 2) {
		pci_bar_write(&d->pi, d->isr_bar, d->isr_off, size, 0);
		pci_bar_write(&d->pi, d->isr_bar, d->isr_off, size, 0xffffffff);
	}
	assert_true(d->intx);
	assert_int_equal(vdrv_isr(d), 1);
	tdev_fini(&t);
}

/* ISR-09: MSI-X takes the pin down. */
static void test_msix_drops_intx(void **state)
{
	start_intx(modern, VDRV_MODERN);
	tdev_echo(&t, 0, 10);
	assert_true(d->intx);
	vdrv_msix_enable(d, true);
	assert_false(d->intx);
	tdev_fini(&t);
}

/* ISR-02, TRAP-10, hostile F4: the config bit also with MSI-X. */
static void test_isr_with_msix(void **state)
{
	tdev_start(&t, VDRV_MODERN, modern, V1, 1);
	tdev_echo(&t, 0, 10);
	assert_int_equal(vdrv_isr(d) & ~3, 0);
	vq_devcfg_changed(&t.vs);
	assert_true(vdrv_isr(d) & 2);
	assert_int_equal(vdrv_isr(d), 0);
	assert_false(d->intx);
	tdev_fini(&t);
}

/* MSI: one message, ISR as without it. */
static void test_msi(void **state)
{
	tdev_init(&t, VDRV_MODERN, (struct tdev_opts){ .no_msix = true });
	vdrv_probe(d);
	assert_int_equal(d->msix_cap, 0);
	assert_true(d->msi_cap);
	assert_true(vdrv_start(d, V1, 1));
	cfg_write(d->msi_cap + 4u, 4, 0xfee00000);
	cfg_write(d->msi_cap + 2u, 2, cfg(d->msi_cap + 2u, 2) | 1);
	tdev_echo(&t, 0, 10);
	assert_int_equal(d->nr_msi, 1);
	assert_int_equal(d->nr_intx, 0);
	assert_int_equal(vdrv_isr(d), 1);
	vq_devcfg_changed(&t.vs);
	assert_int_equal(d->nr_msi, 2);
	assert_int_equal(vdrv_isr(d), 2);
	tdev_fini(&t);
}

/*
 * --- MSI-X ---
 */

/* MSIX-01, MSIX-02: one for each queue and one for the configuration. */
static void test_msix_capability(void **state)
{
	for (int nvq = 1; nvq <= 8; nvq++) {
		tdev_init(&t, VDRV_MODERN, (struct tdev_opts){ .nvq = nvq });
		vdrv_probe(d);
		assert_true(d->msix_cap);
		assert_int_equal(d->nr_vectors, nvq + 1);
		assert_int_equal(d->nr_vectors, pci_msix_count(&d->pi));
		assert_int_equal(d->msix_bar, VIRTIO_MSIX_BAR);
		assert_true(d->msix_off + 16 * d->nr_vectors <=
			    pci_bar_size(&d->pi, d->msix_bar));
		assert_true(d->pba_off + 8 <=
			    pci_bar_size(&d->pi, d->msix_bar));
		tdev_fini(&t);
	}
}

/* Map and read back; what cannot be is refused. */
static void check_vector(unsigned reg, uint32_t vector, uint32_t want)
{
	common_write(reg, 2, vector);
	if (common(reg, 2) != want)
		fail_msg("vector %#x reads %#x", vector, common(reg, 2));
}

/* MSIX-03, MSIX-04, MSIX-05, MSIX-07, MSIX-08, hostile S11, D33. */
static void test_msix_vectors(void **state)
{
	static const uint32_t bad[] = { 3,      4,      64,     0x7ff, 0x800,
					0x1234, 0x7fff, 0x8000, 0xfffe };
	static const unsigned regs[] = { VIRTIO_PCI_COMMON_MSIX,
					 VIRTIO_PCI_COMMON_Q_MSIX };

	tdev_start(&t, VDRV_MODERN, modern, V1, 2);
	select_queue(1);
	for (size_t r = 0; r < ARRAY_LEN(regs); r++) {
		for (uint32_t v = 0; v < 3; v++)
			check_vector(regs[r], v, v);
		for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
			check_vector(regs[r], 1, 1);
			check_vector(regs[r], bad[i], 0xffff);
		}
		check_vector(regs[r], 2, 2);
		check_vector(regs[r], 0xffff, 0xffff);
	}
	tdev_fini(&t);
}

/* MSIX-03: several events on one vector; MSIX-11: the entry's message. */
static void test_msix_shared(void **state)
{
	tdev_start(&t, VDRV_MODERN, modern, V1, 2);
	check_vector(VIRTIO_PCI_COMMON_MSIX, 2, 2);
	for (uint32_t q = 0; q < 2; q++) {
		select_queue(q);
		check_vector(VIRTIO_PCI_COMMON_Q_MSIX, 2, 2);
	}
	tdev_echo(&t, 0, 10);
	tdev_echo(&t, 1, 10);
	vq_devcfg_changed(&t.vs);
	assert_int_equal(d->nr_msix[2], 3);
	assert_int_equal(d->nr_msix[0] + d->nr_msix[1], 0);
	assert_int_equal(d->msix_addr, VDRV_MSIX_ADDR(2));
	assert_int_equal(d->msix_data, VDRV_MSIX_DATA(2));
	assert_int_equal(d->nr_intx, 0);
	tdev_fini(&t);
}

/* MSIX-09, MSIX-10, hostile F3: unmapped means silent. */
static void test_msix_no_vector(void **state)
{
	for (int mode = VDRV_MODERN; mode <= VDRV_LEGACY; mode++) {
		tdev_start(&t, (enum vdrv_mode)mode, transitional, V1, 1);
		if (mode == VDRV_MODERN) {
			select_queue(0);
			check_vector(VIRTIO_PCI_COMMON_Q_MSIX, 0xffff, 0xffff);
			check_vector(VIRTIO_PCI_COMMON_MSIX, 0xffff, 0xffff);
		} else {
			vdrv_legacy_write(d, VIRTIO_MSI_QUEUE_VECTOR, 2,
					  0xffff);
			vdrv_legacy_write(d, VIRTIO_MSI_CONFIG_VECTOR, 2,
					  0xffff);
		}
		tdev_echo(&t, 0, 10);
		vq_devcfg_changed(&t.vs);
		for (unsigned v = 0; v < 3; v++)
			assert_int_equal(d->nr_msix[v], 0);
		assert_int_equal(d->nr_intx + d->nr_msi, 0);
		tdev_fini(&t);
	}
}

/* MSIX-12: masked, by vector or by function: pending, then sent once. */
static void test_msix_masked(void **state)
{
	for (int all = 0; all < 2; all++) {
		tdev_start(&t, VDRV_MODERN, modern, V1, 1);
		if (all)
			vdrv_msix_mask_all(d, true);
		else
			vdrv_msix_mask(d, 1, true);
		assert_false(vdrv_msix_pending(d, 1));
		tdev_echo(&t, 0, 10);
		tdev_echo(&t, 0, 10);
		assert_int_equal(d->nr_msix[1], 0);
		assert_true(vdrv_msix_pending(d, 1));
		assert_false(vdrv_msix_pending(d, 0));
		/* The pending bits are the device's. */
		pci_bar_write(&d->pi, d->msix_bar, d->pba_off, 4, 0);
		assert_true(vdrv_msix_pending(d, 1));
		if (all)
			vdrv_msix_mask_all(d, false);
		else
			vdrv_msix_mask(d, 1, false);
		assert_int_equal(d->nr_msix[1], 1);
		assert_false(vdrv_msix_pending(d, 1));
		tdev_echo(&t, 0, 10);
		assert_int_equal(d->nr_msix[1], 2);
		tdev_fini(&t);
	}
}

/* MSIX-12: function and vector masked: both have to go. */
static void test_msix_masked_twice(void **state)
{
	tdev_start(&t, VDRV_MODERN, modern, V1, 1);
	vdrv_msix_mask_all(d, true);
	vdrv_msix_mask(d, 1, true);
	tdev_echo(&t, 0, 10);
	vdrv_msix_mask_all(d, false);
	assert_int_equal(d->nr_msix[1], 0);
	vdrv_msix_mask_all(d, true);
	vdrv_msix_mask(d, 1, false);
	assert_int_equal(d->nr_msix[1], 0);
	vdrv_msix_mask_all(d, false);
	assert_int_equal(d->nr_msix[1], 1);
	tdev_fini(&t);
}

/* MSIX-13, hostile Q19: mapped before it is on, toggled, changed while on. */
static void test_msix_toggled(void **state)
{
	tdev_init(&t, VDRV_MODERN, modern);
	d->no_msix = true;
	assert_true(vdrv_start(d, V1, 1));
	select_queue(0);
	check_vector(VIRTIO_PCI_COMMON_Q_MSIX, 1, 1);
	vdrv_msix_enable(d, true);
	assert_int_equal(common(VIRTIO_PCI_COMMON_Q_MSIX, 2), 1);
	tdev_echo(&t, 0, 10);
	assert_int_equal(d->nr_msix[1], 1);
	for (int i = 0; i < 100; i++) {
		vdrv_msix_enable(d, false);
		vdrv_msix_enable(d, true);
		vdrv_msix_mask(d, 1, true);
		vdrv_msix_mask(d, 1, false);
		check_vector(VIRTIO_PCI_COMMON_Q_MSIX, (uint32_t)i & 1,
			     (uint32_t)i & 1);
	}
	check_vector(VIRTIO_PCI_COMMON_Q_MSIX, 1, 1);
	tdev_echo(&t, 0, 10);
	assert_int_equal(d->nr_msix[1], 2);
	assert_int_equal(d->nr_msix[0], 0);
	tdev_fini(&t);
}

/* The table takes any access; PCI-LAY-02. */
static void test_msix_table_storm(void **state)
{
	tdev_start(&t, VDRV_MODERN, modern, V1, 1);
	for (uint64_t off = 0; off < pci_bar_size(&d->pi, d->msix_bar); off++) {
		for (int size = 1; size <= 8; size *= 2) {
			pci_bar_read(&d->pi, d->msix_bar, off, size);
			pci_bar_write(&d->pi, d->msix_bar, off, size,
				      UINT64_MAX);
		}
	}
	vdrv_msix_enable(d, true);
	vdrv_msix_mask_all(d, false);
	memset(d->nr_msix, 0, sizeof(d->nr_msix));
	tdev_echo(&t, 0, 10);
	assert_int_equal(d->nr_msix[1], 1);
	assert_int_equal(d->msix_addr, VDRV_MSIX_ADDR(1));
	tdev_fini(&t);
}

/* An embedder with a table of its own: every vector goes out, by number. */
static unsigned nr_owned[4];

static void owned_msix(void *arg, unsigned vector, uint64_t addr, uint32_t data)
{
	assert_true(vector < ARRAY_LEN(nr_owned));
	assert_int_equal(addr, 0);
	assert_int_equal(data, 0);
	nr_owned[vector]++;
}

static void test_msix_table_owned(void **state)
{
	static const struct pci_host host = {
		.ph_msix = owned_msix,
		.ph_owns_msix_table = true,
	};

	tdev_init(&t, VDRV_MODERN, modern);
	d->pi.pi_host = &host;
	d->no_msix = true; /* vdrv would write the table */
	memset(nr_owned, 0, sizeof(nr_owned));
	assert_true(vdrv_start(d, V1, 2));
	cfg_write(d->msix_cap + 2u, 2, 0x8000);
	common_write(VIRTIO_PCI_COMMON_MSIX, 2, 0);
	select_queue(1);
	common_write(VIRTIO_PCI_COMMON_Q_MSIX, 2, 2);
	tdev_echo(&t, 1, 10);
	vq_devcfg_changed(&t.vs);
	assert_int_equal(nr_owned[2], 1);
	assert_int_equal(nr_owned[0], 1);
	tdev_fini(&t);
}

/*
 * --- Bus mastering, PCI 6.2.2 ---
 */

#define MASTER 4u

static void set_master(bool on)
{
	cfg_write(4, 1, on ? cfg(4, 1) | MASTER : cfg(4, 1) & ~MASTER);
}

/* A chain that the driver adds and kicks for while it forbids DMA. */
static void kick_without_master(void)
{
	struct vdrv_used used;
	struct vdrv_buf buf = { vdrv_alloc(d, 16, 1), 16, VDRV_W };

	set_master(false);
	vdrv_add(d, 0, &buf, 1);
	vdrv_kick(d, 0);
	assert_false(vdrv_used(d, 0, &used));
	set_master(true);
	assert_true(vdrv_used(d, 0, &used)); /* without another kick */
	assert_int_equal(used.len, 16);
}

static void test_no_dma_without_master(void **state)
{
	for (int mode = 0; mode < 2; mode++) {
		tdev_start(&t, mode ? VDRV_LEGACY : VDRV_MODERN, transitional,
			   mode ? 0 : V1, 1);
		for (int i = 0; i < 3; i++)
			kick_without_master();
		/* The other byte says nothing of it. */
		set_master(false);
		cfg_write(5, 1, 4);
		assert_false(pci_bus_master(&d->pi));
		set_master(true);
		tdev_fini(&t);
	}
}

/* A request that ends while DMA is forbidden is not lost. */
static void test_done_without_master(void **state)
{
	struct vdrv_used used;
	struct vdrv_buf buf;
	unsigned before, gone;

	for (int reset = 0; reset < 2; reset++) {
		tdev_start(&t, VDRV_MODERN, modern, V1, 1);
		buf = (struct vdrv_buf){ vdrv_alloc(d, 16, 1), 16, VDRV_W };
		t.hold = true;
		for (int i = 0; i < 3; i++)
			vdrv_add(d, 0, &buf, 1);
		vdrv_kick(d, 0);
		before = d->nr_msix[1];
		assert_int_equal(tdev_take(&t, 0), 1);
		gone = t.req.idx;
		assert_int_equal(tdev_take(&t, 0), 1);
		set_master(false);
		tdev_give(&t, 0, gone, 7);
		tdev_give(&t, 0, t.req.idx, 8);
		vq_endchains(&t.vq[0], 1);
		vq_retchains(&t.vq[0], 1); /* there is none to return */
		assert_false(vdrv_used(d, 0, &used));
		assert_int_equal(d->nr_msix[1], before);
		assert_int_equal(tdev_take(&t, 0), 0);
		/* Nor when the embedder has the queues looked at. */
		pci_kick(&d->pi);
		assert_true(pci_is_idle(&d->pi)); /* nothing runs */
		if (reset) {
			pci_reset(&d->pi);
			assert_true(pci_is_idle(&d->pi));
			tdev_fini(&t);
			continue;
		}
		set_master(true);
		assert_int_equal(d->nr_msix[1], before + 1);
		assert_true(vdrv_used(d, 0, &used));
		assert_int_equal(used.len + used.id, 7 + gone);
		assert_true(vdrv_used(d, 0, &used));
		assert_int_equal(used.len + used.id, 8u + t.req.idx);
		assert_false(vdrv_used(d, 0, &used));
		assert_int_equal(tdev_take(&t, 0), 1);
		tdev_give(&t, 0, t.req.idx, 9);
		assert_true(vdrv_used(d, 0, &used));
		tdev_fini(&t);
	}
}

/* Messages wait; the pin is none. */
static void test_no_messages_without_master(void **state)
{
	unsigned before;

	tdev_start(&t, VDRV_MODERN, modern, V1, 1);
	before = d->nr_msix[0] + d->nr_msix[1];
	set_master(false);
	vq_devcfg_changed(&t.vs);
	vq_devcfg_changed(&t.vs);
	assert_int_equal(d->nr_msix[0] + d->nr_msix[1], before);
	set_master(true);
	assert_int_equal(d->nr_msix[0] + d->nr_msix[1], before + 1);
	tdev_fini(&t);

	tdev_init(&t, VDRV_MODERN, (struct tdev_opts){ .no_msix = true });
	assert_true(vdrv_start(d, V1, 1));
	set_master(false);
	vq_devcfg_changed(&t.vs);
	assert_true(d->intx);
	vdrv_isr(d);

	cfg_write(d->msi_cap + 2u, 2, cfg(d->msi_cap + 2u, 2) | 1);
	vq_devcfg_changed(&t.vs);
	assert_int_equal(d->nr_msi, 0);
	set_master(true);
	assert_int_equal(d->nr_msi, 1);
	/* What was for a message that is off is not sent later. */
	set_master(false);
	vq_devcfg_changed(&t.vs);
	cfg_write(d->msi_cap + 2u, 2, cfg(d->msi_cap + 2u, 2) & ~1u);
	set_master(true);
	cfg_write(d->msi_cap + 2u, 2, cfg(d->msi_cap + 2u, 2) | 1);
	assert_int_equal(d->nr_msi, 1);
	tdev_fini(&t);
}

/* Legacy drivers of old kernels never set it, and a reset forgets it. */
static void test_master_of_old_drivers(void **state)
{
	tdev_start(&t, VDRV_LEGACY, transitional, 0, 1);
	set_master(false);
	vdrv_set_status(d, 0);
	vdrv_set_status(d, ACK);
	assert_false(pci_bus_master(&d->pi));
	vdrv_set_status(d, ACK | DRV);
	assert_true(pci_bus_master(&d->pi));
	assert_int_equal(cfg(4, 2) & MASTER, MASTER);

	set_master(false);
	pci_reset(&d->pi);
	assert_true(pci_bus_master(&d->pi));
	assert_int_equal(cfg(4, 2), 0);
	tdev_fini(&t);
}

/* PCI-ID-05: what does not fit into a function is refused. */
static void test_function_limits(void **state)
{
	static const uint8_t cap[64] = { 0x09, 0, 64 };
	struct pci_devinst pi;
	int off = 0, n = 0;

	pci_func_init(&pi, NULL, NULL, NULL);
	assert_true(pci_add_msix(&pi, 0, 1) < 0);
	assert_true(pci_add_msix(&pi, PCI_MAX_MSIX + 1, 1) < 0);
	assert_int_equal(pci_msix_count(&pi), 0);
	assert_int_equal(pci_add_msix(&pi, PCI_MAX_MSIX, 1), 0);
	assert_true(pci_add_msix(&pi, 2, 3) < 0);
	assert_true(pci_add_bar(&pi, 1, PCI_BAR_MEM32, 4096) < 0);
	assert_int_equal(pci_add_bar(&pi, 4, PCI_BAR_MEM64, 4096), 0);
	assert_true(pci_add_bar(&pi, 5, PCI_BAR_MEM32, 4096) < 0);
	assert_true(pci_add_bar(&pi, 6, PCI_BAR_MEM32, 4096) < 0);
	for (; off >= 0 && n < 10; n++)
		off = pci_add_cap(&pi, cap, sizeof(cap));
	assert_true(off < 0);
	assert_true(n <= 4);
	assert_int_equal(pci_get_cfg16(&pi, 0), 0);
	pci_func_fini(&pi);
}

/*
 * --- The configuration access window ---
 */

static void window(uint32_t bar, uint32_t off, uint32_t len)
{
	cfg_write(d->pcicfg_cap + 4u, 1, bar);
	cfg_write(d->pcicfg_cap + 8u, 4, off);
	cfg_write(d->pcicfg_cap + 12u, 4, len);
}

static uint32_t window_read(uint32_t bar, uint32_t off, uint32_t len)
{
	window(bar, off, len);
	return cfg(d->pcicfg_cap + 16u, len);
}

static void window_write(uint32_t bar, uint32_t off, uint32_t len, uint32_t val)
{
	window(bar, off, len);
	cfg_write(d->pcicfg_cap + 16u, len, val);
}

/* PCI-CFGACC-01: the window's registers hold what is written. */
static void test_window_registers(void **state)
{
	tdev_init(&t, VDRV_MODERN, modern);
	vdrv_probe(d);
	window(2, 0x1234, 4);
	assert_int_equal(cfg(d->pcicfg_cap + 4u, 1), 2);
	assert_int_equal(cfg(d->pcicfg_cap + 8u, 4), 0x1234);
	assert_int_equal(cfg(d->pcicfg_cap + 12u, 4), 4);
	tdev_fini(&t);
}

/*
 * PCI-CFGACC-02, PCI-CFGACC-03, PCI-CFGACC-05, ISR-08, hostile S4: the whole
 * device worked through configuration space, as firmware does with decoding
 * off.
 */
static void test_window_works(void **state)
{
	uint32_t bar, co;
	struct vdrv_buf b;

	tdev_start(&t, VDRV_MODERN, modern, V1, 1);
	bar = (uint32_t)d->common_bar;
	co = (uint32_t)d->common_off;
	cfg_write(4, 2, MASTER); /* nothing is decoded */
	assert_int_equal(window_read(bar, co + VIRTIO_PCI_COMMON_STATUS, 1),
			 ACK | DRV | FEAT_OK | DRV_OK);
	window_write(bar, co + VIRTIO_PCI_COMMON_DFSELECT, 4, 1);
	assert_int_equal(window_read(bar, co + VIRTIO_PCI_COMMON_DFSELECT, 4),
			 1);
	assert_int_equal(
		window_read(bar, co + VIRTIO_PCI_COMMON_DF, 4),
		(uint32_t)((V1 | TDEV_F_HIGH | VI_RING_CAPS_MODERN) >> 32));
	window_write(bar, co + VIRTIO_PCI_COMMON_Q_SELECT, 2, 1);
	assert_int_equal(window_read(bar, co + VIRTIO_PCI_COMMON_Q_SIZE, 2),
			 TDEV_QSIZE);
	/* Device configuration. */
	assert_int_equal(window_read((uint32_t)d->device_bar,
				     (uint32_t)d->device_off + 4, 4),
			 0x17161514);
	window_write((uint32_t)d->device_bar, (uint32_t)d->device_off + 5, 1,
		     0xab);
	assert_int_equal(t.cfg[5], 0xab);
	/* A doorbell. */
	b = (struct vdrv_buf){ vdrv_alloc(d, 8, 1), 8, VDRV_W };
	vdrv_add(d, 0, &b, 1);
	window_write((uint32_t)d->notify_bar, (uint32_t)d->q[0].notify_off, 2,
		     0);
	assert_true(vdrv_used(d, 0, NULL));
	/* ISR, which a read clears. */
	vq_devcfg_changed(&t.vs);
	assert_true(window_read((uint32_t)d->isr_bar, (uint32_t)d->isr_off, 1) &
		    2);
	assert_int_equal(vdrv_isr(d), 0);
	tdev_fini(&t);
}

/* PCI-CFGACC-04, hostile S4, S26, F7: all that can be wrong with it. */
static void test_window_wrong(void **state)
{
	static const uint32_t bars[] = { 0, 1, 2, 3, 5, 6, 7, 0x80, 255 };
	static const uint32_t offs[] = { 0,          1,          2,
					 3,          0x14,       0x0fff,
					 0x10000,    0x7fffffff, 0xfffffffc,
					 0xfffffffd, 0xffffffff };
	static const uint32_t lens[] = { 0, 1, 2,          3,         4,
					 5, 8, 0x80000000, 0xffffffff };
	uint32_t v;

	tdev_init(&t, VDRV_MODERN, modern);
	for (int i = 0; i < 2; i++) {
		vdrv_probe(d);
		for (size_t b = 0; b < ARRAY_LEN(bars); b++)
			for (size_t o = 0; o < ARRAY_LEN(offs); o++)
				for (size_t l = 0; l < ARRAY_LEN(lens); l++) {
					window(bars[b], offs[o], lens[l]);
					for (unsigned k = 0; k < 4; k++) {
						unsigned at =
							d->pcicfg_cap + 16u + k;

						cfg(at, 1);
						cfg_write(at, 1, 0);
					}
					cfg(d->pcicfg_cap + 16u, 4);
					cfg_write(d->pcicfg_cap + 16u, 4, 0);
				}
		vdrv_reset(d);
		assert_true(vdrv_start(d, V1, 1)); /* once more, live */
		tdev_echo(&t, 0, 10);
	}
	/* A wrong length or place has no effect; what it reads is nothing. */
	for (size_t l = 0; l < ARRAY_LEN(lens); l++) {
		if (lens[l] == 1 || lens[l] == 2 || lens[l] == 4)
			continue;
		window((uint32_t)d->common_bar,
		       (uint32_t)d->common_off + VIRTIO_PCI_COMMON_STATUS,
		       lens[l]);
		v = cfg(d->pcicfg_cap + 16u, 4);
		assert_true(v == 0 || v == 0xffffffff);
		cfg_write(d->pcicfg_cap + 16u, 4, 0);
		assert_true(vdrv_status(d) & DRV_OK);
	}
	tdev_fini(&t);
}

/* hostile S26, F7: BAR offsets next to where the arithmetic wraps. */
static void test_bar_offsets(void **state)
{
	static const uint64_t offs[] = {
		0xfffffffc,         0xfffffffe,         0xffffffff,
		0x100000000,        0x100000014,        UINT64_MAX,
		UINT64_MAX - 1,     UINT64_MAX - 3,     UINT64_MAX - 7,
		0x8000000000000000, 0x8000000000000014,
	};
	virtio_mode_t modes[] = { VIRTIO_MODE_MODERN,
				  VIRTIO_MODE_TRANSITIONAL };

	for (size_t m = 0; m < ARRAY_LEN(modes); m++) {
		tdev_start(&t, VDRV_MODERN,
			   (struct tdev_opts){ .mode = modes[m] }, V1, 1);
		for (size_t i = 0; i < ARRAY_LEN(offs); i++) {
			for (int bar = 0; bar < PCI_NR_BARS; bar++) {
				for (int size = 1; size <= 8; size *= 2) {
					pci_bar_read(&d->pi, bar, offs[i],
						     size);
					pci_bar_write(&d->pi, bar, offs[i],
						      size, 0);
				}
			}
		}
		assert_true(vdrv_status(d) & DRV_OK);
		tdev_echo(&t, 0, 10);
		/* hostile S26: the look-up does not wrap either. */
		for (size_t i = 0; i < ARRAY_LEN(offs); i++)
			assert_null(vi_pci_cfg_bybaraddr(
				&t.vs, VIRTIO_MODERN_BAR, offs[i], 4));
		tdev_fini(&t);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_identity_modern),
		cmocka_unit_test(test_identity_legacy),
		cmocka_unit_test(test_no_legacy_bar),
		cmocka_unit_test(test_header),
		cmocka_unit_test(test_bar_sizing),
		cmocka_unit_test(test_config_space_storm),
		cmocka_unit_test(test_capabilities),
		cmocka_unit_test(test_capabilities_once),
		cmocka_unit_test(test_no_device_cfg),
		cmocka_unit_test(test_no_capabilities_in_legacy),
		cmocka_unit_test(test_structures_apart),
		cmocka_unit_test(test_device_feature_windows),
		cmocka_unit_test(test_driver_feature_windows),
		cmocka_unit_test(test_config_generation),
		cmocka_unit_test(test_queue_select_out_of_range),
		cmocka_unit_test(test_queue_gap),
		cmocka_unit_test(test_queue_size),
		cmocka_unit_test(test_queue_registers_apart),
		cmocka_unit_test(test_halves),
		cmocka_unit_test(test_odd_accesses),
		cmocka_unit_test(test_common_storm),
		cmocka_unit_test(test_queue_enable),
		cmocka_unit_test(test_live_ring_stays),
		cmocka_unit_test(test_ring_addresses),
		cmocka_unit_test(test_common_tail),
		cmocka_unit_test(test_notify_capability),
		cmocka_unit_test(test_notify_width),
		cmocka_unit_test(test_notification_data),
		cmocka_unit_test(test_isr),
		cmocka_unit_test(test_intx_disable),
		cmocka_unit_test(test_isr_write),
		cmocka_unit_test(test_msix_drops_intx),
		cmocka_unit_test(test_isr_with_msix),
		cmocka_unit_test(test_msi),
		cmocka_unit_test(test_msix_capability),
		cmocka_unit_test(test_msix_vectors),
		cmocka_unit_test(test_msix_shared),
		cmocka_unit_test(test_msix_no_vector),
		cmocka_unit_test(test_msix_masked),
		cmocka_unit_test(test_msix_masked_twice),
		cmocka_unit_test(test_msix_toggled),
		cmocka_unit_test(test_msix_table_storm),
		cmocka_unit_test(test_msix_table_owned),
		cmocka_unit_test(test_no_dma_without_master),
		cmocka_unit_test(test_done_without_master),
		cmocka_unit_test(test_no_messages_without_master),
		cmocka_unit_test(test_master_of_old_drivers),
		cmocka_unit_test(test_function_limits),
		cmocka_unit_test(test_window_registers),
		cmocka_unit_test(test_window_works),
		cmocka_unit_test(test_window_wrong),
		cmocka_unit_test(test_bar_offsets),
	};

	return cmocka_run_group_tests_name("pci", tests, NULL, NULL);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Basic facilities of a virtio device: status, features, notifications,
 * initialization, reset, configuration space. conformance.md section 2.
 */
#include "tdev.h"

static struct tdev t;
static struct vdrv *const d = &t.d;
static const struct tdev_opts modern = { .mode = VIRTIO_MODE_MODERN };
static const struct tdev_opts legacy = { .mode = VIRTIO_MODE_LEGACY };

/* Up to and without FEATURES_OK. */
static void greet(struct tdev_opts o)
{
	tdev_init(&t, VDRV_MODERN, o);
	vdrv_probe(d);
	vdrv_reset(d);
	vdrv_greet(d);
}

static void write_features(uint32_t window, uint32_t bits)
{
	vdrv_common_write(d, VIRTIO_PCI_COMMON_GFSELECT, 4, window);
	vdrv_common_write(d, VIRTIO_PCI_COMMON_GF, 4, bits);
}

static uint32_t read_features(uint32_t window)
{
	vdrv_common_write(d, VIRTIO_PCI_COMMON_GFSELECT, 4, window);
	return vdrv_common_read(d, VIRTIO_PCI_COMMON_GF, 4);
}

/*
 * --- Status ---
 */

/* STAT-01, PCI-COMMON-04: 0 at power-on and after reset. */
static void test_status_at_power_on(void **state)
{
	tdev_init(&t, VDRV_MODERN, modern);
	vdrv_probe(d);
	assert_int_equal(vdrv_status(d), 0);
	assert_true(vdrv_start(d, V1, 2));
	vdrv_set_status(d, 0);
	assert_int_equal(vdrv_status(d), 0);
	assert_int_equal(t.nr_reset, 2);
	tdev_fini(&t);
}

/* STAT-02: what the driver writes reads back. */
static void test_status_reads_back(void **state)
{
	static const uint8_t steps[] = {
		ACK,
		ACK | DRV,
		ACK | DRV | FEAT_OK,
		ACK | DRV | FEAT_OK | DRV_OK,
		ACK | DRV | FEAT_OK | DRV_OK | FAILED,
	};

	greet(modern);
	write_features(0, 0);
	write_features(1, 1);
	for (size_t i = 0; i < ARRAY_LEN(steps); i++) {
		vdrv_set_status(d, steps[i]);
		assert_int_equal(vdrv_status(d), steps[i]);
	}
	tdev_fini(&t);
}

/* STAT-03, STAT-09: nothing happens before DRIVER_OK; all of it then. */
static void test_not_before_driver_ok(void **state)
{
	struct vdrv_buf b;
	uint64_t sum;

	greet(modern);
	assert_true(vdrv_negotiate(d, V1));
	assert_true(vdrv_queue_setup(d, 0, 0));
	assert_true(vdrv_queue_setup(d, 1, 0));
	b = (struct vdrv_buf){ vdrv_alloc(d, 64, 1), 64, VDRV_W };
	for (unsigned q = 0; q < 2; q++)
		for (int i = 0; i < 3; i++)
			vdrv_add(d, q, &b, 1);
	sum = tdev_mem_sum(&t);
	vdrv_kick(d, 0);
	assert_int_equal(tdev_mem_sum(&t), sum);
	assert_int_equal(t.nr_chains[0], 0);
	assert_int_equal(d->nr_msix[1], 0);

	vdrv_driver_ok(d);
	for (unsigned q = 0; q < 2; q++) { /* queue 1 never had a kick */
		assert_int_equal(t.nr_chains[q], 3);
		for (int i = 0; i < 3; i++)
			assert_true(vdrv_used(d, q, NULL));
		assert_true(d->nr_msix[q + 1] > 0);
	}
	tdev_fini(&t);
}

/* STAT-04, STAT-05, STAT-10: an error stops the device and is announced. */
static void test_needs_reset(void **state)
{
	uint64_t sum;

	tdev_start(&t, VDRV_MODERN, modern, V1, 2);
	vdrv_avail(d, 0, 0xffff);
	vdrv_kick(d, 0);
	assert_true(vdrv_status(d) & NEEDS_RESET);
	assert_true(vdrv_status(d) & DRV_OK);
	assert_int_equal(d->nr_msix[0], 1);
	assert_true(vdrv_isr(d) & VIRTIO_PCI_ISR_CONFIG);
	assert_int_equal(vdrv_cfg_read(d, 0, 4), 0x13121110);
	tdev_dead(&t, 0);
	tdev_dead(&t, 1);
	sum = tdev_mem_sum(&t);
	tdev_work(&t, 1);
	vq_devcfg_changed(&t.vs);
	assert_int_equal(tdev_mem_sum(&t), sum);
	assert_true(vdrv_start(d, V1, 2));
	tdev_echo(&t, 0, 100);
	tdev_echo(&t, 1, 100);
	tdev_fini(&t);
}

/* STAT-05: nobody listens before DRIVER_OK. */
static void test_needs_reset_before_driver_ok(void **state)
{
	greet(modern);
	assert_true(vdrv_negotiate(d, V1));
	vi_error(&t.vs, "a test");
	assert_true(vdrv_status(d) & NEEDS_RESET);
	assert_int_equal(d->nr_msix[0], 0);
	tdev_fini(&t);
}

/* STAT-06: the driver has no say in NEEDS_RESET. */
static void test_needs_reset_is_ours(void **state)
{
	tdev_start(&t, VDRV_MODERN, modern, V1, 1);
	vdrv_set_status(d, vdrv_status(d) | NEEDS_RESET);
	assert_false(vdrv_status(d) & NEEDS_RESET);
	tdev_echo(&t, 0, 10);
	vi_error(&t.vs, "a test");
	vdrv_set_status(d, ACK | DRV | FEAT_OK | DRV_OK);
	assert_true(vdrv_status(d) & NEEDS_RESET);
	vdrv_set_status(d, ACK);
	assert_true(vdrv_status(d) & NEEDS_RESET);
	tdev_dead(&t, 0);
	vdrv_reset(d);
	assert_int_equal(vdrv_status(d), 0);
	tdev_fini(&t);
}

/* STAT-07: writes that no driver would make. */
static void test_status_writes_out_of_order(void **state)
{
	for (unsigned from = 0; from < 256; from++) {
		tdev_start(&t, VDRV_MODERN, modern, V1, 1);
		vdrv_set_status(d, (uint8_t)from);
		vdrv_kick(d, 0);
		vdrv_cfg_read(d, 0, 4);
		vdrv_set_status(d, (uint8_t)(from * 7 + 1));
		vdrv_kick(d, 0);
		assert_int_equal(vdrv_cfg_read(d, 0, 1), 0x10);
		assert_true(vdrv_start(d, V1, 1));
		tdev_echo(&t, 0, 10);
		tdev_fini(&t);
	}
}

/* STAT-08: DRIVER_OK without FEATURES_OK. */
static void test_driver_ok_alone(void **state)
{
	greet(modern);
	write_features(1, 1);
	vdrv_set_status(d, ACK | DRV | DRV_OK);
	assert_int_equal(vdrv_status(d), ACK | DRV);
	assert_true(vdrv_queue_setup(d, 0, 0));
	vdrv_set_status(d, ACK | DRV | DRV_OK);
	assert_int_equal(vdrv_status(d), ACK | DRV);
	tdev_dead(&t, 0);
	assert_int_equal(t.nr_chains[0], 0);
	tdev_fini(&t);
}

/*
 * --- Features ---
 */

/* FEAT-04, FEAT-06, TRAP-06, TRAP-19, and what is not there yet. */
static void test_offer(void **state)
{
	static const unsigned absent[] = {
		24, 27,         /* legacy only */
		25, 26, 30, 31, /* reserved */
		35,             /* IN_ORDER: not unless the model asks */
		37,             /* SR_IOV: FEAT-14 */
		38,             /* NOTIFICATION_DATA: the embedder's affair */
		39,             /* NOTIF_CONFIG_DATA */
		41,             /* ADMIN_VQ, old GUEST_RSC4 */
		42,             /* old GUEST_RSC6 */
		43, /* SUSPEND: SUSP-01, SUSP-02, SUSP-03, SUSP-04, SUSP-05 */
		44, 45, 46, 47, 48, 49,
	};
	uint64_t offer;

	greet(modern);
	offer = vdrv_offer(d);
	assert_true(offer & V1);
	assert_true(offer & INDIRECT);
	assert_true(offer & EVENT_IDX);
	assert_true(offer & TDEV_F_HIGH);
	for (size_t i = 0; i < ARRAY_LEN(absent); i++)
		if (offer & VI_BIT(absent[i]))
			fail_msg("bit %u is offered", absent[i]);
	/* SUSP-02: the registers of what is not offered do nothing. */
	assert_true(vdrv_start(d, V1, 1));
	vdrv_set_status(d, vdrv_status(d) | 0x10);
	assert_true(vdrv_status(d) & DRV_OK);
	tdev_echo(&t, 0, 10);
	tdev_fini(&t);
}

/* FEAT-02, FEAT-05: each subset is taken, again and again. */
static void test_every_subset(void **state)
{
	static const uint64_t bits[] = {
		INDIRECT,
		EVENT_IDX,
		TDEV_F_A,
		TDEV_F_HIGH,
	};

	tdev_init(&t, VDRV_MODERN, modern);
	for (unsigned round = 0; round < 2; round++) {
		for (unsigned set = 0; set < 1u << ARRAY_LEN(bits); set++) {
			uint64_t f = V1;

			for (unsigned i = 0; i < ARRAY_LEN(bits); i++)
				f |= set >> i & 1 ? bits[i] : 0;
			assert_true(vdrv_start(d, f, 1));
			assert_int_equal(t.applied, f);
			assert_int_equal(t.vs.vs_negotiated_caps, f);
			tdev_echo(&t, 0, 10);
		}
	}
	tdev_fini(&t);
}

/* FEAT-03, FEAT-07, FEAT-08, FEAT-09, hostile S21. */
static void test_refused_features(void **state)
{
	static const struct {
		const char *what;
		uint64_t features;
		bool ok;
	} rows[] = {
		{ "the least", V1, true },
		{ "FEAT-07: no VERSION_1", INDIRECT, false },
		{ "FEAT-07: nothing", 0, false },
		{ "FEAT-08: bit 1, not offered", V1 | VI_BIT(1), false },
		{ "FEAT-08: RING_PACKED", V1 | VI_BIT(34), false },
		{ "FEAT-08: bit 63", V1 | VI_BIT(63), false },
		{ "FEAT-L05: bit 30", V1 | VI_BIT(30), false },
		{ "FEAT-09: B without A", V1 | TDEV_F_B, false },
		{ "B with A", V1 | TDEV_F_B | TDEV_F_A, true },
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		greet(modern);
		if (vdrv_negotiate(d, rows[i].features) != rows[i].ok)
			fail_msg("%s", rows[i].what);
		/* FEAT-03: the bit alone says it; a second try may do. */
		assert_int_equal(vdrv_status(d),
				 ACK | DRV | (rows[i].ok ? FEAT_OK : 0));
		if (!rows[i].ok) {
			vdrv_set_status(d, ACK | DRV | FEAT_OK | DRV_OK);
			assert_false(vdrv_status(d) & FEAT_OK);
			vdrv_set_status(d, ACK | DRV);
			assert_true(vdrv_negotiate(d, V1));
		}
		tdev_fini(&t);
	}
}

/*
 * FEAT-08, TRAP-07: bits above 63, where nothing is offered: refused, or
 * masked at once. Either way a driver that takes them back gets its way.
 */
static void test_features_above_63(void **state)
{
	for (uint32_t window = 2; window < 5; window++) {
		greet(modern);
		write_features(window, 0x80000001);
		if (vdrv_negotiate(d, V1)) {
			assert_int_equal(read_features(window), 0);
		} else {
			vdrv_set_status(d, ACK | DRV);
			write_features(window, 0);
			assert_true(vdrv_negotiate(d, V1));
		}
		assert_int_equal(t.vs.vs_negotiated_caps, V1);
		tdev_fini(&t);
	}
}

/* TRAP-07, FEAT-08, FEAT-L02: windows 2 and 3, where a model offers something. */
static void test_features_from_64(void **state)
{
	static const struct {
		uint32_t windows[4]; /* 2 to 5 */
		bool ok;
	} rows[] = {
		{ { 0, 0 }, true },
		{ { 0x10, 0 }, true },
		{ { 0x12, 0x80000000 }, true },
		{ { 0x14, 0 }, false },
		{ { 0x10, 0x40000000 }, false },
		{ { 0x10, 0, 1 }, false },
		{ { 0x10, 0, 0, 1 }, false },
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		const uint32_t *w = rows[i].windows;

		greet(modern);
		t.vc.vc_hv_caps_hi = 0x8000000000000012;
		for (uint32_t n = 0; n < 4; n++) {
			vdrv_common_write(d, VIRTIO_PCI_COMMON_DFSELECT, 4,
					  n + 2);
			assert_int_equal(
				vdrv_common_read(d, VIRTIO_PCI_COMMON_DF, 4),
				n == 0 ? 0x12 :
				n == 1 ? 0x80000000 :
					 0);
			write_features(n + 2, w[n]);
		}
		assert_int_equal(vdrv_negotiate(d, V1), rows[i].ok);
		if (rows[i].ok) {
			write_features(2, 0); /* too late */
			assert_int_equal(t.vs.vs_negotiated_caps_hi,
					 (uint64_t)w[1] << 32 | w[0]);
			assert_int_equal(read_features(2), w[0]);
			assert_int_equal(read_features(3), w[1]);
		}
		vdrv_reset(d);
		assert_int_equal(t.vs.vs_negotiated_caps_hi, 0);
		assert_true(vdrv_start(d, V1, 1));
		tdev_echo(&t, 0, 10);
		tdev_fini(&t);
	}
	/* A legacy driver has none, whatever it wrote elsewhere. */
	tdev_init(&t, VDRV_LEGACY,
		  (struct tdev_opts){ .mode = VIRTIO_MODE_TRANSITIONAL });
	t.vc.vc_hv_caps_hi = 0x10;
	vdrv_probe(d);
	vdrv_reset(d);
	vdrv_greet(d);
	write_features(2, 0x10);
	vdrv_driver_ok(d);
	assert_int_equal(t.vs.vs_negotiated_caps_hi, 0);
	tdev_fini(&t);
}

/* FEAT-01, FEAT-03: the model can refuse too. */
static void test_model_refuses(void **state)
{
	greet(modern);
	t.refuse = TDEV_F_A;
	assert_false(vdrv_negotiate(d, V1 | TDEV_F_A));
	assert_int_equal(t.nr_apply, 1);
	vdrv_set_status(d, ACK | DRV);
	assert_true(vdrv_negotiate(d, V1));
	tdev_fini(&t);
}

/* FEAT-10, hostile S21: too late. */
static void test_features_are_final(void **state)
{
	greet(modern);
	assert_true(vdrv_negotiate(d, V1 | TDEV_F_A));
	for (int live = 0; live < 2; live++) {
		write_features(0, (uint32_t)(EVENT_IDX | INDIRECT));
		write_features(1, 0);
		assert_int_equal(t.vs.vs_negotiated_caps, V1 | TDEV_F_A);
		assert_int_equal(read_features(0), TDEV_F_A);
		assert_int_equal(read_features(1), 1);
		if (live)
			break;
		assert_true(vdrv_queue_setup(d, 0, 0));
		vdrv_driver_ok(d);
	}
	/* No EVENT_IDX: the flag decides, not used_event. */
	vdrv_set_used_event(d, 0, 100);
	tdev_echo(&t, 0, 10);
	assert_int_equal(d->nr_msix[1], 1);
	vdrv_set_status(d, ACK | DRV | FEAT_OK | DRV_OK);
	assert_int_equal(t.vs.vs_negotiated_caps, V1 | TDEV_F_A);
	tdev_fini(&t);
}

/* FEAT-11, FEAT-13: a model may offer them; then any choice is taken. */
static void test_platform_bits(void **state)
{
	static const uint64_t bits = VI_BIT(VIRTIO_F_ACCESS_PLATFORM) |
				     VI_BIT(VIRTIO_F_ORDER_PLATFORM);
	struct tdev_opts o = { .more_modern = bits };

	for (unsigned i = 0; i < 4; i++) {
		uint64_t f = V1 | (i & 1 ? VI_BIT(33) : 0) |
			     (i & 2 ? VI_BIT(36) : 0);

		tdev_init(&t, VDRV_MODERN, o);
		vdrv_probe(d);
		assert_int_equal(vdrv_offer(d) & bits, bits);
		assert_true(vdrv_start(d, f, 1));
		tdev_echo(&t, 0, 10);
		tdev_fini(&t);
	}
}

/*
 * AP-03, AP-04: a driver that hands out addresses that mean nothing here is
 * said to miss the IOMMU, once, unless it has accepted ACCESS_PLATFORM.
 */
static void test_iommu_missed(void **state)
{
	static const uint64_t bit = VI_BIT(VIRTIO_F_ACCESS_PLATFORM);
	static const struct {
		uint64_t offer, accept;
		bool said;
	} rows[] = { { bit, 0, true }, { bit, bit, false }, { 0, 0, false } };
	const uint64_t nowhere = UINT64_C(1) << 52;

	for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
		struct tdev_opts o = { .more_modern = rows[i].offer };

		tdev_init(&t, VDRV_MODERN, o);
		vdrv_probe(d);
		for (int again = 0; again < 2; again++) {
			vdrv_reset(d);
			vdrv_greet(d);
			assert_true(vdrv_negotiate(d, V1 | rows[i].accept));
			vdrv_queue_setup_at(d, 0, TDEV_QSIZE, nowhere,
					    nowhere + 4096, nowhere + 8192);
			assert_int_equal(!!strstr(d->last_log, "IOMMU"),
					 rows[i].said && !again);
		}
		tdev_fini(&t);
	}
}

/*
 * FEAT-04, FEAT-14: ring and transport features are the framework's affair; a
 * model that offers what the framework cannot do is not believed.
 */
static void test_greedy_model(void **state)
{
	static const unsigned cannot[] = { 37, 38, 39, 41, 43 };
	struct tdev_opts o = { .more_modern = UINT64_MAX };
	uint64_t offer;

	greet(o);
	offer = vdrv_offer(d);
	for (size_t i = 0; i < ARRAY_LEN(cannot); i++)
		if (offer & VI_BIT(cannot[i]))
			fail_msg("bit %u is offered", cannot[i]);
	tdev_fini(&t);
}

/* FEAT-L01, FEAT-L02: 32 bits, and no VERSION_1, mean legacy. */
static void test_legacy_features(void **state)
{
	struct tdev_opts o = { .mode = VIRTIO_MODE_TRANSITIONAL,
			       .more_legacy = UINT64_MAX << 32 };

	tdev_start(&t, VDRV_LEGACY, o, UINT64_MAX, 1);
	assert_false(vi_is_modern(&t.vs));
	assert_int_equal(t.vs.vs_negotiated_caps >> 32, 0);
	tdev_fini(&t);

	tdev_start(&t, VDRV_MODERN, o, V1, 1);
	assert_true(vi_is_modern(&t.vs));
	tdev_fini(&t);
}

/* FEAT-L04, FEAT-L05, FEAT-L03: what the legacy interface offers. */
static void test_legacy_offer(void **state)
{
	static const virtio_mode_t modes[] = { VIRTIO_MODE_LEGACY,
					       VIRTIO_MODE_TRANSITIONAL };

	for (size_t i = 0; i < ARRAY_LEN(modes); i++) {
		tdev_init(&t, VDRV_LEGACY,
			  (struct tdev_opts){ .mode = modes[i] });
		vdrv_probe(d);
		assert_true(vdrv_offer(d) & VI_BIT(VIRTIO_F_ANY_LAYOUT));
		assert_true(vdrv_offer(d) & VI_BIT(VIRTIO_F_NOTIFY_ON_EMPTY));
		assert_false(vdrv_offer(d) & VI_BIT(30));
		tdev_fini(&t);
	}
}

/* FEAT-L03: the queue ran dry: interrupt whatever the driver said. */
static void test_notify_on_empty(void **state)
{
	for (int on = 0; on < 2; on++) {
		tdev_start(&t, VDRV_LEGACY, legacy,
			   on ? VI_BIT(VIRTIO_F_NOTIFY_ON_EMPTY) : 0, 1);
		vdrv_want_intr(d, 0, false);
		tdev_echo(&t, 0, 10);
		assert_int_equal(d->nr_msix[1], on);
		tdev_fini(&t);
	}
	/* With EVENT_IDX, used_event is overruled. */
	tdev_start(&t, VDRV_LEGACY, legacy,
		   EVENT_IDX | VI_BIT(VIRTIO_F_NOTIFY_ON_EMPTY), 1);
	vdrv_want_intr(d, 0, false);
	tdev_echo(&t, 0, 10);
	assert_int_equal(d->nr_msix[1], 1);
	tdev_fini(&t);
}

/*
 * --- Notifications ---
 */

/* NTF-01: the device's change is announced, the driver's own is not. */
static void test_config_change(void **state)
{
	tdev_start(&t, VDRV_MODERN, modern, V1, 1);
	vdrv_cfg_write(d, 0, 4, 0x01020304);
	assert_int_equal(d->nr_msix[0], 0);
	t.cfg[0] = 0x77;
	vq_devcfg_changed(&t.vs);
	assert_int_equal(d->nr_msix[0], 1);
	assert_int_equal(vdrv_cfg_read(d, 0, 4), 0x01020377);
	tdev_fini(&t);

	/* Not before the driver is there. */
	greet(modern);
	vq_devcfg_changed(&t.vs);
	assert_int_equal(d->nr_msix[0], 0);
	tdev_fini(&t);
}

/* NTF-02: 16 bits, the queue's index. */
static void test_kick(void **state)
{
	tdev_start(&t, VDRV_MODERN, modern, V1, 2);
	t.hold = true;
	for (unsigned q = 0; q < 2; q++)
		t.nr_kicks[q] = 0;
	vdrv_kick(d, 1);
	assert_int_equal(t.nr_kicks[0], 0);
	assert_int_equal(t.nr_kicks[1], 1);
	tdev_fini(&t);
}

/* NTF-05, SPLIT-19, PCI-NOTIFY-07, hostile Q1, hostile K17. */
static void test_wrong_kicks(void **state)
{
	static const uint32_t values[] = { 0, 1, 2, 7, 0x7fff, 0x8000, 0xffff };

	for (unsigned set_up = 0; set_up < 3; set_up++) {
		tdev_init(&t, VDRV_MODERN, modern);
		vdrv_probe(d);
		if (set_up)
			assert_true(vdrv_start(d, V1, set_up));
		for (size_t i = 0; i < ARRAY_LEN(values); i++) {
			for (uint64_t off = 0; off < d->notify_len; off++) {
				for (int size = 1; size <= 8; size *= 2)
					pci_bar_write(&d->pi, d->notify_bar,
						      d->notify_off + off, size,
						      values[i]);
				pci_bar_read(&d->pi, d->notify_bar,
					     d->notify_off + off, 1);
			}
		}
		assert_false(vdrv_status(d) & NEEDS_RESET);
		assert_int_equal(t.nr_chains[0] + t.nr_chains[1], 0);
		assert_true(vdrv_start(d, V1, 2));
		tdev_echo(&t, 0, 10);
		vdrv_kick(d, 0);
		vdrv_kick(d, 0);
		tdev_echo(&t, 0, 10);
		tdev_fini(&t);
	}
}

/*
 * --- Legacy initialization ---
 */

/* INIT-L01: the device's configuration comes before all else. */
static void test_legacy_early_config(void **state)
{
	tdev_init(&t, VDRV_LEGACY, legacy);
	vdrv_probe(d);
	vdrv_cfg_write(d, 4, 4, 0xa1b2c3d4);
	assert_int_equal(vdrv_cfg_read(d, 4, 4), 0xa1b2c3d4);
	assert_int_equal(t.nr_cfgwrite, 1);
	tdev_fini(&t);
}

/* INIT-L02, INIT-L03: queues work before DRIVER_OK, before features. */
static void test_legacy_early_queue(void **state)
{
	for (int with_features = 0; with_features < 2; with_features++) {
		tdev_init(&t, VDRV_LEGACY, legacy);
		vdrv_probe(d);
		vdrv_reset(d);
		vdrv_greet(d);
		if (with_features)
			assert_true(vdrv_negotiate(d, INDIRECT));
		assert_true(vdrv_queue_setup(d, 0, 0));
		tdev_echo(&t, 0, 33);
		assert_false(vdrv_status(d) & DRV_OK);
		vdrv_driver_ok(d);
		tdev_echo(&t, 0, 34);
		tdev_fini(&t);
	}
}

/* INIT-L03: with DRIVER_OK features are final; hostile F5. */
static void test_legacy_final(void **state)
{
	tdev_start(&t, VDRV_LEGACY, legacy, INDIRECT, 1);
	assert_int_equal(t.vs.vs_negotiated_caps, INDIRECT);
	vdrv_legacy_write(d, VIRTIO_PCI_GUEST_FEATURES, 4, (uint32_t)EVENT_IDX);
	assert_int_equal(t.vs.vs_negotiated_caps, INDIRECT);
	tdev_echo(&t, 0, 10);
	tdev_fini(&t);
}

/*
 * --- Reset ---
 */

/* RST-01, hostile D41, hostile F10: afterwards the device is silent. */
static void test_reset_ends_everything(void **state)
{
	struct vdrv_buf b;
	unsigned idx;
	uint64_t sum;

	for (int mode = VDRV_MODERN; mode <= VDRV_LEGACY; mode++) {
		tdev_start(
			&t, (enum vdrv_mode)mode,
			(struct tdev_opts){ .mode = VIRTIO_MODE_TRANSITIONAL },
			V1, 2);
		t.hold = true;
		b = (struct vdrv_buf){ vdrv_alloc(d, 64, 1), 64, VDRV_W };
		vdrv_add(d, 0, &b, 1);
		vdrv_add(d, 0, &b, 1);
		vdrv_kick(d, 0);
		assert_int_equal(tdev_take(&t, 0), 1); /* slow I/O */
		idx = t.req.idx;
		vdrv_set_status(d, 0);
		/* It may still write to memory: no reset is complete yet. */
		assert_int_equal(vdrv_status(d) != 0, mode == VDRV_MODERN);

		sum = tdev_mem_sum(&t);
		memset(d->nr_msix, 0, sizeof(d->nr_msix));
		tdev_give(&t, 0, idx, 64);
		assert_int_equal(vdrv_status(d), 0);
		vq_relchain_publish(&t.vq[0]);
		vq_endchains(&t.vq[0], 1);
		vq_kick_disable(&t.vq[0]);
		vq_kick_enable(&t.vq[0]);
		assert_int_equal(tdev_take(&t, 0), 0);
		vq_devcfg_changed(&t.vs);
		vdrv_kick(d, 0);
		assert_int_equal(tdev_mem_sum(&t), sum);
		for (unsigned v = 0; v < 3; v++)
			assert_int_equal(d->nr_msix[v], 0);
		assert_false(d->intx);
		tdev_fini(&t);
	}
}

/* RST-02, PCI-COMMON-05, PCI-COMMON-08, MSIX-06, hostile S13. */
static void test_reset_defaults(void **state)
{
	static const struct {
		unsigned off;
		int size;
		uint32_t val;
	} regs[] = {
		{ VIRTIO_PCI_COMMON_MSIX, 2, 0xffff },
		{ VIRTIO_PCI_COMMON_STATUS, 1, 0 },
		{ VIRTIO_PCI_COMMON_Q_SIZE, 2, TDEV_QSIZE },
		{ VIRTIO_PCI_COMMON_Q_MSIX, 2, 0xffff },
		{ VIRTIO_PCI_COMMON_Q_ENABLE, 2, 0 },
		{ VIRTIO_PCI_COMMON_Q_DESCLO, 4, 0 },
		{ VIRTIO_PCI_COMMON_Q_DESCHI, 4, 0 },
		{ VIRTIO_PCI_COMMON_Q_AVAILLO, 4, 0 },
		{ VIRTIO_PCI_COMMON_Q_AVAILHI, 4, 0 },
		{ VIRTIO_PCI_COMMON_Q_USEDLO, 4, 0 },
		{ VIRTIO_PCI_COMMON_Q_USEDHI, 4, 0 },
	};

	greet(modern);
	assert_true(vdrv_negotiate(d, V1 | TDEV_F_A | EVENT_IDX));
	for (unsigned q = 0; q < 2; q++)
		assert_true(vdrv_queue_setup(d, q, 4));
	vdrv_driver_ok(d);
	tdev_echo(&t, 0, 10);
	vq_devcfg_changed(&t.vs);
	vdrv_reset(d);

	for (uint32_t q = 0; q < 2; q++) {
		vdrv_common_write(d, VIRTIO_PCI_COMMON_Q_SELECT, 2, q);
		for (size_t i = 0; i < ARRAY_LEN(regs); i++) {
			uint32_t v =
				vdrv_common_read(d, regs[i].off, regs[i].size);

			if (v != regs[i].val)
				fail_msg("register %#x is %#x", regs[i].off, v);
		}
	}
	for (uint32_t w = 0; w < 4; w++)
		assert_int_equal(read_features(w), 0);
	assert_int_equal(vdrv_isr(d), 0);
	assert_int_equal(t.vs.vs_negotiated_caps, 0);

	/* RST-02: indices start at 0 again. */
	assert_true(vdrv_start(d, V1, 2));
	tdev_echo(&t, 0, 10);
	assert_int_equal(vdrv_used_ring_idx(d, 0), 1);
	tdev_fini(&t);
}

/* RST-02: the pin goes down with a reset. */
static void test_reset_drops_intx(void **state)
{
	tdev_init(&t, VDRV_MODERN, modern);
	d->no_msix = true;
	assert_true(vdrv_start(d, V1, 1));
	tdev_echo(&t, 0, 10);
	assert_true(d->intx);
	vdrv_reset(d);
	assert_false(d->intx);
	assert_int_equal(vdrv_isr(d), 0);
	tdev_fini(&t);
}

/* RST-03, RST-04: a reset is taken in any state. */
static void test_reset_anywhere(void **state)
{
	static const uint8_t states[] = {
		0,
		ACK,
		ACK | DRV,
		ACK | DRV | FEAT_OK,
		ACK | DRV | FEAT_OK | DRV_OK,
		FAILED,
		0xff,
	};

	tdev_init(&t, VDRV_MODERN, modern);
	vdrv_probe(d);
	for (size_t i = 0; i < ARRAY_LEN(states); i++) {
		for (int broken = 0; broken < 2; broken++) {
			vdrv_reset(d);
			vdrv_reset(d);
			write_features(1, 1);
			vdrv_set_status(d, states[i]);
			if (broken)
				vi_error(&t.vs, "a test");
			vdrv_reset(d);
			assert_int_equal(vdrv_status(d), 0);
			assert_true(vdrv_start(d, V1, 2));
			t.hold = true;
			vdrv_add(d, 0,
				 &(struct vdrv_buf){ VDRV_MEM_BASE, 4, 0 }, 1);
			vdrv_kick(d, 0);
			assert_int_equal(tdev_take(&t, 0), 1);
			vdrv_reset_now(d); /* in the middle of a chain */
			tdev_give(&t, 0, t.req.idx, 0);
			t.hold = false;
			assert_true(vdrv_start(d, V1, 2));
			tdev_echo(&t, 0, 10);
		}
	}
	tdev_fini(&t);
}

/* STAT-01, RST-02: the function's reset is the device's. */
static void test_function_reset(void **state)
{
	tdev_start(&t, VDRV_MODERN, modern, V1, 1);
	pci_reset(&d->pi);
	assert_int_equal(vdrv_status(d), 0);
	assert_int_equal(pci_cfg_read(&d->pi, 4, 2) & 7, 0);
	assert_false(pci_msix_enabled(&d->pi));
	assert_true(vdrv_start(d, V1, 1));
	tdev_echo(&t, 0, 10);
	tdev_fini(&t);
}

/*
 * --- Configuration space ---
 */

/* CFG-01: readable from the start. */
static void test_config_early(void **state)
{
	tdev_init(&t, VDRV_MODERN, modern);
	vdrv_probe(d);
	for (unsigned i = 0; i < TDEV_CFG_LEN; i++)
		assert_int_equal(vdrv_cfg_read(d, i, 1), 0x10 + i);
	tdev_fini(&t);
}

/* CFG-02, CFG-04, PCI-L03, CFG-L01: any width sees the same bytes. */
static void test_config_widths(void **state)
{
	for (int mode = VDRV_MODERN; mode <= VDRV_LEGACY; mode++) {
		tdev_init(
			&t, (enum vdrv_mode)mode,
			(struct tdev_opts){ .mode = VIRTIO_MODE_TRANSITIONAL });
		vdrv_probe(d);
		for (int size = 1; size <= 4; size *= 2) {
			for (unsigned off = 0; off < TDEV_CFG_LEN;
			     off += (unsigned)size) {
				uint32_t want = 0;

				for (int i = 0; i < size; i++)
					want |= (uint32_t)
							t.cfg[off + (unsigned)i]
						<< 8 * i;
				assert_int_equal(vdrv_cfg_read(d, off, size),
						 want);
			}
		}
		for (unsigned off = 0; off < 8; off++)
			vdrv_cfg_write(d, off, 1, 0xc0 + off);
		vdrv_cfg_write(d, 8, 2, 0xd1d0);
		vdrv_cfg_write(d, 12, 4, 0xe3e2e1e0);
		assert_int_equal(vdrv_cfg_read(d, 4, 4), 0xc7c6c5c4);
		assert_int_equal(vdrv_cfg_read(d, 9, 1), 0xd1);
		assert_int_equal(vdrv_cfg_read(d, 14, 2), 0xe3e2);
		tdev_fini(&t);
	}
}

/*
 * What a read gives after test_config_bounds() has written: the model's bytes,
 * 0 behind them, and all ones where nothing of the structure is any more.
 */
static uint32_t bounded(unsigned off, int size, unsigned cfgsize, unsigned len)
{
	uint32_t val = 0;

	if (off + (unsigned)size > len)
		return UINT32_MAX >> (32 - 8 * size);
	for (unsigned i = 0; i < (unsigned)size; i++)
		if (off + i < cfgsize)
			val |= (0x40 + off + i) << 8 * i;
	return val;
}

/* CFG-03, hostile S20: past the end, and over it. tdev checks the range. */
static void test_config_bounds(void **state)
{
	static const int sizes[] = { 1, 3, 6, 8, TDEV_CFG_LEN };

	for (size_t s = 0; s < ARRAY_LEN(sizes); s++) {
		for (int mode = VDRV_MODERN; mode <= VDRV_LEGACY; mode++) {
			uint64_t len; /* of the structure, or the BAR */

			tdev_init(&t, (enum vdrv_mode)mode,
				  (struct tdev_opts){
					  .mode = VIRTIO_MODE_TRANSITIONAL,
					  .cfgsize = sizes[s] });
			vdrv_probe(d);
			len = mode == VDRV_MODERN ?
				      d->device_len :
				      pci_bar_size(&d->pi, 0) - 20;
			for (unsigned off = 0; off < 0x400; off++)
				vdrv_cfg_write(d, off, 1, 0x40 + off);
			for (unsigned off = 0; off < 0x400; off++) {
				for (int size = 1; size <= 4; size *= 2) {
					uint32_t want = bounded(
						off, size, (unsigned)sizes[s],
						(unsigned)len);

					if (off + (unsigned)size >
					    (unsigned)sizes[s])
						vdrv_cfg_write(d, off, size,
							       want);
					assert_int_equal(
						vdrv_cfg_read(d, off, size),
						want);
				}
			}
			for (unsigned i = (unsigned)sizes[s]; i < TDEV_CFG_LEN;
			     i++)
				assert_int_equal(t.cfg[i], 0x10 + i);
			if (mode == VDRV_MODERN)
				vdrv_reset(d);
			tdev_fini(&t);
		}
	}
}

/* hostile K6, hostile K7: a device without configuration, or callbacks. */
static void test_no_config(void **state)
{
	for (int mode = VDRV_MODERN; mode <= VDRV_LEGACY; mode++) {
		for (int i = 0; i < 2; i++) {
			struct tdev_opts o = {
				.mode = VIRTIO_MODE_TRANSITIONAL,
				.cfgsize = i ? 0 : -1,
				.no_callbacks = i,
			};

			tdev_init(&t, (enum vdrv_mode)mode, o);
			vdrv_probe(d);
			for (unsigned off = 0; off < 64; off++) {
				for (int size = 1; size <= 4; size *= 2) {
					vdrv_cfg_read(d, off, size);
					vdrv_cfg_write(d, off, size, 0x5a);
				}
			}
			assert_true(vdrv_start(d, V1, 2));
			vdrv_kick(d, 0);
			vq_devcfg_changed(&t.vs);
			vdrv_reset(d);
			tdev_fini(&t);
		}
	}
}

/* CFG-L02: no generation there, but the change is announced all the same. */
static void test_legacy_config_change(void **state)
{
	tdev_start(&t, VDRV_LEGACY, legacy, 0, 1);
	t.cfg[0] = 0x99;
	vq_devcfg_changed(&t.vs);
	assert_int_equal(d->nr_msix[0], 1);
	assert_int_equal(vdrv_cfg_read(d, 0, 1), 0x99);
	tdev_fini(&t);
}

/* VQ-01: used length is what was written. */
static void test_used_len(void **state)
{
	static const uint32_t lens[] = { 1, 2, 511, 512, 65536, 300000 };

	tdev_start(&t, VDRV_MODERN, modern, V1, 2);
	for (size_t i = 0; i < ARRAY_LEN(lens); i++)
		for (unsigned q = 0; q < 2; q++)
			tdev_echo(&t, q, lens[i]);
	tdev_fini(&t);
}

/* SHM-01, PCI-SHM-01, PCI-VNDR-01: no such capability is there. */
static void test_no_shared_memory(void **state)
{
	tdev_init(&t, VDRV_MODERN, modern);
	assert_null(vi_pci_cfg_bytype(&t.vs, 8));
	assert_null(vi_pci_cfg_bytype(&t.vs, 9));
	tdev_fini(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_status_at_power_on),
		cmocka_unit_test(test_status_reads_back),
		cmocka_unit_test(test_not_before_driver_ok),
		cmocka_unit_test(test_needs_reset),
		cmocka_unit_test(test_needs_reset_before_driver_ok),
		cmocka_unit_test(test_needs_reset_is_ours),
		cmocka_unit_test(test_status_writes_out_of_order),
		cmocka_unit_test(test_driver_ok_alone),
		cmocka_unit_test(test_offer),
		cmocka_unit_test(test_every_subset),
		cmocka_unit_test(test_refused_features),
		cmocka_unit_test(test_features_above_63),
		cmocka_unit_test(test_features_from_64),
		cmocka_unit_test(test_model_refuses),
		cmocka_unit_test(test_features_are_final),
		cmocka_unit_test(test_platform_bits),
		cmocka_unit_test(test_iommu_missed),
		cmocka_unit_test(test_greedy_model),
		cmocka_unit_test(test_legacy_features),
		cmocka_unit_test(test_legacy_offer),
		cmocka_unit_test(test_notify_on_empty),
		cmocka_unit_test(test_config_change),
		cmocka_unit_test(test_kick),
		cmocka_unit_test(test_wrong_kicks),
		cmocka_unit_test(test_legacy_early_config),
		cmocka_unit_test(test_legacy_early_queue),
		cmocka_unit_test(test_legacy_final),
		cmocka_unit_test(test_reset_ends_everything),
		cmocka_unit_test(test_reset_defaults),
		cmocka_unit_test(test_reset_drops_intx),
		cmocka_unit_test(test_reset_anywhere),
		cmocka_unit_test(test_function_reset),
		cmocka_unit_test(test_config_early),
		cmocka_unit_test(test_config_widths),
		cmocka_unit_test(test_config_bounds),
		cmocka_unit_test(test_no_config),
		cmocka_unit_test(test_legacy_config_change),
		cmocka_unit_test(test_used_len),
		cmocka_unit_test(test_no_shared_memory),
	};

	return cmocka_run_group_tests_name("basic", tests, NULL, NULL);
}

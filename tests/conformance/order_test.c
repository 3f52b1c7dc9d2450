/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Registers, rings and resets in an order that no good driver keeps. Guest RAM
 * lies between inaccessible pages: an access beyond it ends the test.
 */
#include "core/core.h"
#include "tdev.h"

#define RAM_END (VDRV_MEM_BASE + (uint64_t)VDRV_MEM_BYTES)

enum {
	QSIZE = 4,
	AVAIL_BYTES = 4 + 2 * QSIZE, /* without the event fields */
	USED_BYTES = 4 + 8 * QSIZE,
};

static struct tdev t;
static struct vdrv *const d = &t.d;

/* Set queue 0 up with one of its parts, less its event field, ending with RAM. */
static void setup_at_end(bool used_ring)
{
	uint64_t desc = vdrv_alloc(d, 16 * QSIZE, 16);
	uint64_t avail = used_ring ? vdrv_alloc(d, 6 + 2 * QSIZE, 2) :
				     RAM_END - AVAIL_BYTES;
	uint64_t used = used_ring ? RAM_END - USED_BYTES :
				    vdrv_alloc(d, 6 + 8 * QSIZE, 4);

	assert_true(vdrv_queue_setup_at(d, 0, QSIZE, desc, avail, used));
}

/* What would touch the event fields, if the device took them for there. */
static void work_all(void)
{
	vdrv_kick(d, 0);
	tdev_work(&t, 0);
	vq_kick_disable(&t.vq[0]);
	vq_kick_enable(&t.vq[0]);
	vq_endchains(&t.vq[0], 1);
}

static void write_features(uint64_t features)
{
	for (unsigned i = 0; i < 2; i++) {
		vdrv_common_write(d, VIRTIO_PCI_COMMON_GFSELECT, 4, i);
		vdrv_common_write(d, VIRTIO_PCI_COMMON_GF, 4,
				  (uint32_t)(features >> (32 * i)));
	}
}

/*
 * A queue is enabled, and EVENT_IDX accepted afterwards: its event fields
 * would lie behind RAM. The device breaks; without EVENT_IDX it works.
 */
static void test_enable_before_features(void **state)
{
	static const struct {
		bool used_ring;
		uint64_t features;
		bool works;
	} rows[] = {
		{ true, V1 | EVENT_IDX, false },
		{ false, V1 | EVENT_IDX, false },
		{ true, V1, true },
		{ false, V1, true },
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct vdrv_buf b;

		tdev_init(&t, VDRV_MODERN,
			  (struct tdev_opts){ .qsize = QSIZE });
		vdrv_probe(d);
		vdrv_reset(d);
		vdrv_greet(d);
		setup_at_end(rows[i].used_ring);
		write_features(rows[i].features);
		vdrv_set_status(d, ACK | DRV | FEAT_OK);
		vdrv_set_status(d, ACK | DRV | FEAT_OK | DRV_OK);
		b = (struct vdrv_buf){ VDRV_MEM_BASE, 4, VDRV_W };
		vdrv_add(d, 0, &b, 1);
		work_all();
		assert_int_equal(vdrv_used_ring_idx(d, 0), rows[i].works);
		assert_int_equal(!!(t.vs.vs_flags & VIRTIO_BROKEN),
				 !rows[i].works);
		vdrv_reset(d);
		assert_true(vdrv_start(d, V1 | EVENT_IDX, 1));
		tdev_echo(&t, 0, 10);
		tdev_fini(&t);
	}
}

/* DRV_OK by the legacy register: what the modern ones said needs FEATURES_OK. */
static void test_legacy_driver_ok_after_modern(void **state)
{
	for (int at_end = 0; at_end < 2; at_end++) {
		tdev_init(&t, VDRV_MODERN,
			  (struct tdev_opts){ .mode = VIRTIO_MODE_TRANSITIONAL,
					      .qsize = QSIZE });
		vdrv_probe(d);
		vdrv_reset(d);
		vdrv_greet(d);
		write_features(V1 | EVENT_IDX | TDEV_F_B | TDEV_F_HIGH);
		if (at_end)
			setup_at_end(true);
		else
			assert_true(vdrv_queue_setup(d, 0, QSIZE));
		d->mode = VDRV_LEGACY;
		vdrv_set_status(d, ACK | DRV | DRV_OK);
		d->mode = VDRV_MODERN;

		/* The model had its say, and nothing modern is in force. */
		assert_int_equal(t.nr_apply, 1);
		assert_int_equal(t.vs.vs_negotiated_caps, EVENT_IDX);
		assert_false(vi_is_modern(&t.vs));
		work_all();
		assert_int_equal(!!(t.vs.vs_flags & VIRTIO_BROKEN), at_end);
		tdev_fini(&t);
	}
}

/* Legacy drivers may write features when their queues are there (3.1.2). */
static void test_legacy_features_late(void **state)
{
	struct vdrv_buf b = { VDRV_MEM_BASE, 4, VDRV_W };
	struct vdrv_used used;

	tdev_init(&t, VDRV_LEGACY,
		  (struct tdev_opts){ .mode = VIRTIO_MODE_TRANSITIONAL });
	vdrv_probe(d);
	vdrv_set_status(d, ACK | DRV);
	assert_true(vdrv_queue_setup(d, 0, 0));
	for (int i = 0; i < 4; i++) {
		uint32_t features = i % 2 ? (uint32_t)EVENT_IDX : 0;

		vdrv_legacy_write(d, VIRTIO_PCI_GUEST_FEATURES, 4, features);
		assert_int_equal(t.vq[0].vq_priv->event_idx, i % 2);
		vdrv_add(d, 0, &b, 1);
		work_all();
		assert_true(vdrv_used(d, 0, &used));
	}
	tdev_fini(&t);
}

/*
 * A model that ends its requests when it is reset, as scsi did: the driver's
 * ring is small and ends with RAM.
 */
static void test_give_in_reset(void **state)
{
	for (int mode = VDRV_MODERN; mode <= VDRV_LEGACY; mode++) {
		uint64_t desc, sum;

		tdev_init(&t, (enum vdrv_mode)mode,
			  (struct tdev_opts){ .mode = VIRTIO_MODE_TRANSITIONAL,
					      .qsize = 64 });
		if (mode == VDRV_LEGACY) {
			assert_true(vdrv_start(d, V1, 1));
		} else {
			vdrv_probe(d);
			vdrv_reset(d);
			vdrv_greet(d);
			assert_true(vdrv_negotiate(d, V1));
			setup_at_end(true);
			vdrv_driver_ok(d);
		}
		for (int i = 0; i < QSIZE; i++)
			tdev_echo(&t, 0, 10); /* the next entry is past 4 */
		t.give_in_reset = t.hold = true;
		desc = vdrv_alloc(d, 64, 1);
		vdrv_add(d, 0, &(struct vdrv_buf){ desc, 64, VDRV_W }, 1);
		assert_int_equal(tdev_take(&t, 0), 1);
		memset(d->nr_msix, 0, sizeof(d->nr_msix));
		sum = tdev_mem_sum(&t);
		vdrv_reset(d);
		assert_int_equal(tdev_mem_sum(&t), sum);
		assert_int_equal(d->nr_msix[1], 0);
		t.give_in_reset = t.hold = false;
		assert_int_equal(t.vq[0].vq_qsize, 64);
		assert_true(vdrv_start(d, V1, 1));
		tdev_echo(&t, 0, 10);
		tdev_fini(&t);
	}
}

/* The three parts share no byte. */
static void test_overlap(void **state)
{
	enum { BASE = VDRV_MEM_BASE + 0x10000 };
	static const struct {
		uint64_t desc, avail, used;
		bool works;
	} rows[] = {
		{ BASE, BASE + 64, BASE + 80, true }, /* touching */
		{ BASE + 56, BASE, BASE + 16, false },
		{ BASE, BASE, BASE + 80, false },
		{ BASE, BASE + 64, BASE, false },
		{ BASE, BASE + 128, BASE + 128, false }, /* feeds itself */
		{ BASE, BASE + 64, BASE + 72, false },
		{ BASE, BASE + 124, BASE + 88, false },
		{ BASE, BASE + 62, BASE + 128, false },
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		tdev_init(&t, VDRV_MODERN,
			  (struct tdev_opts){ .qsize = QSIZE });
		vdrv_probe(d);
		vdrv_reset(d);
		vdrv_greet(d);
		assert_true(vdrv_negotiate(d, V1 | EVENT_IDX));
		vdrv_queue_setup_at(d, 0, QSIZE, rows[i].desc, rows[i].avail,
				    rows[i].used);
		vdrv_driver_ok(d);
		if (!!(t.vs.vs_flags & VIRTIO_BROKEN) == rows[i].works)
			fail_msg("row %zu", i);
		tdev_fini(&t);
	}
}

/* Taken and available chains together are never more than the ring has. */
static void test_too_many_in_flight(void **state)
{
	tdev_start(&t, VDRV_MODERN, (struct tdev_opts){ .qsize = QSIZE }, V1,
		   1);
	t.hold = true;
	for (uint16_t i = 0; i < 3; i++) {
		vdrv_desc(d, 0, i, VDRV_MEM_BASE, 8, VRING_DESC_F_WRITE, 0);
		vdrv_avail(d, 0, i);
		assert_int_equal(tdev_take(&t, 0), 1);
	}
	vdrv_desc(d, 0, 3, VDRV_MEM_BASE, 8, VRING_DESC_F_WRITE, 0);
	vdrv_avail(d, 0, 3);
	vdrv_avail(d, 0, 3);
	assert_int_equal(tdev_take(&t, 0), -1);
	assert_true(vdrv_status(d) & NEEDS_RESET);
	for (uint16_t i = 0; i < 3; i++)
		tdev_give(&t, 0, i, 8);
	tdev_fini(&t);
}

/* The model takes more queues into use than there were at first. */
static void test_more_queues(void **state)
{
	tdev_init(&t, VDRV_MODERN, (struct tdev_opts){ .max_nvq = 5 });
	t.nvq_wanted = 5;
	vdrv_probe(d);
	vdrv_reset(d);
	vdrv_greet(d);
	assert_int_equal(vdrv_common_read(d, VIRTIO_PCI_COMMON_NUMQ, 2), 2);
	assert_int_equal(vdrv_queue_size(d, 4), 0); /* not yet */
	assert_true(vdrv_negotiate(d, V1));
	assert_int_equal(vdrv_common_read(d, VIRTIO_PCI_COMMON_NUMQ, 2), 5);
	for (unsigned q = 0; q < 5; q++)
		assert_true(vdrv_queue_setup(d, q, 0));
	vdrv_driver_ok(d);
	for (unsigned q = 0; q < 5; q++)
		tdev_echo(&t, q, 10);
	vdrv_reset(d);
	assert_int_equal(t.vq[4].vq_flags, 0);
	assert_true(vdrv_start(d, V1, 5));
	tdev_echo(&t, 4, 10);
	tdev_fini(&t);
}

/* 2.2: bits from 64 on are offered by nobody; accepting one is refused. */
static void test_features_from_64(void **state)
{
	static const uint32_t windows[] = { 2,  3,  30,         31,
					    32, 33, 0x80000000, UINT32_MAX };

	for (size_t i = 0; i < ARRAY_LEN(windows); i++) {
		tdev_init(&t, VDRV_MODERN, (struct tdev_opts){ 0 });
		vdrv_probe(d);
		vdrv_reset(d);
		vdrv_greet(d);
		vdrv_common_write(d, VIRTIO_PCI_COMMON_GFSELECT, 4, windows[i]);
		vdrv_common_write(d, VIRTIO_PCI_COMMON_GF, 4, 1u << 31);
		write_features(V1);
		vdrv_set_status(d, ACK | DRV | FEAT_OK);
		assert_int_equal(vdrv_status(d), ACK | DRV);
		/* None of another window makes up for it, */
		for (uint32_t w = 2; w < 40; w++) {
			vdrv_common_write(d, VIRTIO_PCI_COMMON_GFSELECT, 4, w);
			if (w != windows[i])
				vdrv_common_write(d, VIRTIO_PCI_COMMON_GF, 4,
						  0);
		}
		vdrv_set_status(d, ACK | DRV | FEAT_OK);
		assert_int_equal(vdrv_status(d), ACK | DRV);
		/* but it can be taken back, as any other bit. */
		vdrv_common_write(d, VIRTIO_PCI_COMMON_GFSELECT, 4, windows[i]);
		vdrv_common_write(d, VIRTIO_PCI_COMMON_GF, 4, 0);
		vdrv_set_status(d, ACK | DRV | FEAT_OK);
		assert_int_equal(vdrv_status(d) & FEAT_OK,
				 windows[i] < 31 ? FEAT_OK : 0);
		tdev_fini(&t);
	}
}

/* The queue stops when its chains are back, and then notifies the embedder. */
static void test_pause(void **state)
{
	struct vdrv_buf b = { VDRV_MEM_BASE, 8, VDRV_W };

	tdev_start(&t, VDRV_MODERN, (struct tdev_opts){ 0 }, V1, 2);
	t.hold = true;
	vdrv_add(d, 0, &b, 1);
	vdrv_add(d, 0, &b, 1);
	assert_int_equal(tdev_take(&t, 0), 1);
	pci_quiesce(&d->pi);
	assert_false(pci_is_idle(&d->pi));
	assert_false(vq_has_descs(&t.vq[0])); /* the second one stays */
	assert_false(d->woken);
	/* Who stops it next does not lose what the model shows later. */
	vq_relchain_prepare(&t.vq[0], (uint16_t)t.req.idx, 8);
	assert_true(d->woken);
	assert_int_equal(d->nr_msix[1], 1);
	assert_true(pci_is_idle(&d->pi));
	assert_int_equal(vdrv_used_ring_idx(d, 0), 1);
	assert_int_equal(tdev_take(&t, 0), 0);
	vdrv_reset(d);
	t.hold = false;
	assert_true(vdrv_start(d, V1, 1));
	tdev_echo(&t, 0, 10);
	tdev_fini(&t);
}

/* A region that goes while a chain uses it stays until the chain is back. */
static void test_memory_goes(void **state)
{
	static uint8_t more[8192];
	struct vdrv_buf b = { 0x10000000, 8, VDRV_W };
	uint8_t *iov;

	tdev_start(&t, VDRV_MODERN, (struct tdev_opts){ 0 }, V1, 1);
	gm_add(&d->gm, (gpa_t){ 0x10000000 }, 4096, more, GM_READ | GM_WRITE);
	gm_add(&d->gm, (gpa_t){ 0x20000000 }, 4096, more + 4096,
	       GM_READ | GM_WRITE);
	t.hold = true;
	vdrv_add(d, 0, &b, 1);
	assert_int_equal(tdev_take(&t, 0), 1);
	iov = t.iov[0].iov_base;
	/* Another region goes at once. */
	assert_int_equal(
		gm_remove(&d->gm, (gpa_t){ 0x20000000 }, 4096, NULL, NULL), 0);
	assert_int_equal(
		gm_remove(&d->gm, (gpa_t){ 0x10000000 }, 4096, NULL, NULL), 1);
	assert_ptr_equal(iov, more);
	assert_int_equal(gm_reap(&d->gm, NULL, NULL), 1);
	vdrv_reset_now(d); /* and it stays through a reset */
	assert_int_equal(gm_reap(&d->gm, NULL, NULL), 1);
	d->woken = false; /* for the model to look at its requests */
	tdev_give(&t, 0, t.req.idx, 8);
	assert_true(d->woken);
	assert_int_equal(gm_reap(&d->gm, NULL, NULL), 0);
	tdev_fini(&t);
}

/* A guest cannot fill the log, and is heard again later. */
static void test_errors_logged(void **state)
{
	unsigned nr;

	tdev_init(&t, VDRV_MODERN, (struct tdev_opts){ 0 });
	vdrv_probe(d);
	for (int i = 0; i < 100; i++) {
		vdrv_reset(d);
		vi_error(&t.vs, "error %d", i);
		vi_error(&t.vs, "once until a reset");
	}
	nr = d->nr_log;
	assert_in_range(nr, 10, 30);
	t.vs.vs_priv->errors_since_ns -= 60 * UINT64_C(1000000000);
	vdrv_reset(d);
	vi_error(&t.vs, "a minute later");
	assert_int_equal(d->nr_log, nr + 2); /* and how many there were */
	assert_non_null(strstr(d->last_log, "a minute later"));
	tdev_fini(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_enable_before_features),
		cmocka_unit_test(test_legacy_driver_ok_after_modern),
		cmocka_unit_test(test_legacy_features_late),
		cmocka_unit_test(test_give_in_reset),
		cmocka_unit_test(test_overlap),
		cmocka_unit_test(test_too_many_in_flight),
		cmocka_unit_test(test_more_queues),
		cmocka_unit_test(test_features_from_64),
		cmocka_unit_test(test_pause),
		cmocka_unit_test(test_memory_goes),
		cmocka_unit_test(test_errors_logged),
	};

	return cmocka_run_group_tests_name("order", tests, NULL, NULL);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* The reset of a single queue, by the driver: RING_RESET, 2.6.1. */
#include "core/core.h"
#include "tdev.h"

#define RING_RESET VI_BIT(VIRTIO_F_RING_RESET)
#define FILL_BYTES 64u

static struct tdev t;
static struct vdrv *const d = &t.d;
static const struct tdev_opts modern = { .mode = VIRTIO_MODE_MODERN };

static unsigned nr_quiesce, nr_qreset;
static bool give_in_quiesce;

static void on_quiesce(void *sc)
{
	nr_quiesce++;
	if (give_in_quiesce)
		vq_retchain(&t.vq[0], (uint16_t)t.req.idx);
}

static void on_qreset(void *sc, struct vqueue_info *vq)
{
	assert_int_equal(vq->vq_flags, 0);
	nr_qreset++;
}

static void start(uint64_t features, unsigned nr_queues)
{
	tdev_init(&t, VDRV_MODERN, modern);
	t.vc.vc_quiesce = on_quiesce;
	t.vc.vc_qreset = on_qreset;
	nr_quiesce = nr_qreset = 0;
	give_in_quiesce = false;
	assert_true(vdrv_start(d, V1 | features, nr_queues));
}

static uint32_t common(unsigned q, unsigned off, int size)
{
	vdrv_common_write(d, VIRTIO_PCI_COMMON_Q_SELECT, 2, q);
	return vdrv_common_read(d, off, size);
}

static uint32_t is_resetting(unsigned q)
{
	return common(q, VIRTIO_PCI_COMMON_Q_RESET, 2);
}

static uint32_t is_enabled(unsigned q)
{
	return common(q, VIRTIO_PCI_COMMON_Q_ENABLE, 2);
}

static void write_reset(unsigned q, uint16_t val)
{
	vdrv_common_write(d, VIRTIO_PCI_COMMON_Q_SELECT, 2, q);
	vdrv_common_write(d, VIRTIO_PCI_COMMON_Q_RESET, 2, val);
}

/* Add a chain that the device would fill; its guest address. */
static uint64_t add(unsigned q)
{
	uint64_t gpa = vdrv_alloc(d, FILL_BYTES, 1);

	vdrv_add(d, q, &(struct vdrv_buf){ gpa, FILL_BYTES, VDRV_W }, 1);
	return gpa;
}

/* The device takes a chain of queue 0 and keeps it; the buffer's address. */
static uint64_t hold_one(void)
{
	uint64_t gpa = add(0);

	t.hold = true;
	assert_int_equal(tdev_take(&t, 0), 1);
	return gpa;
}

/* PCI-COMMON-09, PCI-COMMON-10, PCI-COMMON-11, VQ-03: registers. */
static void test_registers(void **state)
{
	static const unsigned addresses[] = {
		VIRTIO_PCI_COMMON_Q_DESCLO,  VIRTIO_PCI_COMMON_Q_DESCHI,
		VIRTIO_PCI_COMMON_Q_AVAILLO, VIRTIO_PCI_COMMON_Q_AVAILHI,
		VIRTIO_PCI_COMMON_Q_USEDLO,  VIRTIO_PCI_COMMON_Q_USEDHI,
	};

	start(RING_RESET, 2);
	assert_int_equal(is_resetting(0), 0);
	tdev_echo(&t, 0, 10);
	write_reset(0, 1);
	assert_int_equal(is_resetting(0), 0);
	assert_int_equal(is_enabled(0), 0);
	assert_int_equal(vdrv_queue_size(d, 0), TDEV_QSIZE);
	assert_int_equal(common(0, VIRTIO_PCI_COMMON_Q_MSIX, 2), VDRV_NONE);
	for (size_t i = 0; i < ARRAY_LEN(addresses); i++)
		assert_int_equal(common(0, addresses[i], 4), 0);
	assert_int_equal(nr_qreset, 1);

	/* VQ-05: the other one runs. */
	tdev_echo(&t, 1, 10);
	assert_true(vdrv_queue_setup(d, 0, 0));
	assert_int_equal(is_resetting(0), 0);
	assert_int_equal(is_enabled(0), 1);
	tdev_echo(&t, 0, 10);
	tdev_fini(&t);
}

/* VQ-04: another size, other addresses, another vector, over several laps. */
static void set_other_parameters(uint64_t features)
{
	static const uint16_t sizes[] = { 4, 16, 1, 2, 8, 16 };

	start(RING_RESET | EVENT_IDX | features, 2);
	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		unsigned vector = i % 2 ? 1 : 2;
		unsigned before;

		write_reset(0, 1);
		assert_true(vdrv_queue_setup(d, 0, sizes[i]));
		assert_int_equal(vdrv_queue_size(d, 0), sizes[i]);
		vdrv_common_write(d, VIRTIO_PCI_COMMON_Q_MSIX, 2, vector);
		before = d->nr_msix[vector];
		for (unsigned n = 0; n < 3u * sizes[i] && sizes[i] > 1; n++)
			tdev_echo(&t, 0, 10 + n);
		if (sizes[i] > 1)
			assert_int_equal(d->nr_msix[vector] - before,
					 3u * sizes[i]);
	}
	tdev_fini(&t);
}

static void test_other_parameters(void **state)
{
	set_other_parameters(0);
}

/* PACKED-01, VQ-03: wrap counters and positions of a packed ring as well. */
static void test_packed(void **state)
{
	set_other_parameters(VI_BIT(VIRTIO_F_RING_PACKED));
}

/*
 * VQ-02, VQ-05, hostile F9: the reset is complete when the chain in flight has
 * returned, and neither its used entry nor an interrupt reaches the driver.
 */
static void test_in_flight(void **state)
{
	uint64_t gpa, used;
	unsigned idx, intrs;

	start(RING_RESET, 2);
	gpa = hold_one();
	idx = t.req.idx;
	used = d->q[0].used;
	write_reset(0, 1);
	assert_int_equal(nr_quiesce, 1);
	assert_int_equal(is_resetting(0), 1);
	assert_false(vq_chain_live(&t.vq[0], (uint16_t)idx));

	/* Neither again, nor enabled in between; the other queue runs. */
	write_reset(0, 1);
	assert_int_equal(nr_qreset, 1);
	assert_false(vdrv_queue_setup(d, 0, 0));
	assert_int_equal(is_resetting(0), 1);
	t.hold = false;
	tdev_echo(&t, 1, 100);
	assert_int_equal(is_resetting(1), 0);

	intrs = d->nr_msix[1];
	tdev_give(&t, 0, idx, FILL_BYTES);
	vq_endchains(&t.vq[0], 1);
	assert_int_equal(is_resetting(0), 0);
	assert_int_equal(is_enabled(0), 0);
	assert_int_equal(d->nr_msix[1], intrs);
	assert_int_equal(*(uint16_t *)vdrv_ptr(d, used + 2, 2), 0);
	assert_int_equal(*(uint8_t *)vdrv_ptr(d, gpa, 1), 0);
	assert_true(vdrv_queue_setup(d, 0, 4));
	tdev_echo(&t, 0, 100);
	tdev_fini(&t);
}

/* A chain that only waits is returned by vc_quiesce(): complete at once. */
static void test_waiting(void **state)
{
	start(RING_RESET, 2);
	hold_one();
	give_in_quiesce = true;
	write_reset(0, 1);
	assert_int_equal(is_resetting(0), 0);
	t.hold = false;
	assert_true(vdrv_queue_setup(d, 0, 2));
	tdev_echo(&t, 0, 100);
	tdev_fini(&t);
}

/* What lies unseen in the ring is gone, and doorbells of the queue are mute. */
static void test_not_taken(void **state)
{
	start(RING_RESET, 2);
	add(0);
	write_reset(0, 1);
	vdrv_kick(d, 0);
	pci_kick(&d->pi);
	assert_int_equal(t.nr_kicks[0], 1); /* of DRIVER_OK */
	assert_int_equal(t.nr_chains[0], 0);
	assert_true(vdrv_queue_setup(d, 0, 0));
	tdev_echo(&t, 0, 10);
	tdev_fini(&t);
}

/* A device reset ends it, and the reset of the queue does not come back. */
static void test_device_reset(void **state)
{
	unsigned idx;

	start(RING_RESET, 2);
	hold_one();
	idx = t.req.idx;
	write_reset(0, 1);
	assert_int_equal(is_resetting(0), 1);
	vdrv_reset_now(d);
	assert_int_not_equal(vdrv_status(d), 0);
	tdev_give(&t, 0, idx, 0);
	assert_int_equal(vdrv_status(d), 0);
	t.hold = false;
	assert_true(vdrv_start(d, V1 | RING_RESET, 2));
	assert_int_equal(is_resetting(0), 0);
	tdev_echo(&t, 0, 10);
	tdev_fini(&t);
}

/* hostile F8: a chain that never returns leads to NEEDS_RESET. */
static void test_too_long(void **state)
{
	unsigned idx;

	start(RING_RESET, 2);
	hold_one();
	idx = t.req.idx;
	write_reset(0, 1);
	assert_int_equal(is_resetting(0), 1);
	assert_false(vdrv_status(d) & NEEDS_RESET);
	t.vq[0].vq_priv->reset_ns = 1;
	assert_int_equal(is_resetting(0), 1);
	assert_true(vdrv_status(d) & NEEDS_RESET);
	assert_string_equal(d->last_log,
			    "tdev: queue 0: 1 requests still in flight after "
			    "its reset; device stopped until reset");
	tdev_give(&t, 0, idx, 0);
	t.hold = false;
	assert_true(vdrv_start(d, V1 | RING_RESET, 2));
	tdev_echo(&t, 0, 10);
	tdev_fini(&t);
}

/* Not negotiated, too early, disabled, another value, no such queue. */
static void test_without_effect(void **state)
{
	start(0, 2);
	write_reset(0, 1);
	assert_int_equal(is_resetting(0), 0);
	tdev_echo(&t, 0, 10);
	tdev_fini(&t);

	tdev_init(&t, VDRV_MODERN, modern);
	vdrv_probe(d);
	vdrv_reset(d);
	vdrv_greet(d);
	write_reset(0, 1);
	assert_int_equal(is_resetting(0), 0);
	assert_true(vdrv_negotiate(d, V1 | RING_RESET));
	write_reset(0, 1); /* not enabled: complete at once */
	assert_int_equal(is_resetting(0), 0);
	assert_true(vdrv_queue_setup(d, 0, 0));
	write_reset(0, 1); /* before DRIVER_OK */
	assert_int_equal(is_enabled(0), 0);
	assert_true(vdrv_queue_setup(d, 0, 4));
	vdrv_driver_ok(d);
	tdev_echo(&t, 0, 10);
	for (unsigned val = 0; val < 0x10000; val += 0x101)
		if (val != 1)
			write_reset(0, (uint16_t)val);
	write_reset(0, 0xffff);
	write_reset(99, 1);
	assert_int_equal(is_resetting(99), 0);
	assert_int_equal(is_enabled(0), 1);
	tdev_echo(&t, 0, 10);
	tdev_fini(&t);
}

/* The device is broken: the queue is reset, but nothing runs before a reset. */
static void test_broken(void **state)
{
	start(RING_RESET, 2);
	vdrv_avail(d, 0, 999);
	vdrv_kick(d, 0);
	assert_true(vdrv_status(d) & NEEDS_RESET);
	write_reset(0, 1);
	assert_int_equal(is_resetting(0), 0);
	assert_false(vdrv_queue_setup(d, 0, 0));
	assert_true(vdrv_status(d) & NEEDS_RESET);
	tdev_fini(&t);
}

/* Any order of everything: nothing but the register's answers matters. */
static void test_disorder(void **state)
{
	unsigned seed = 1;

	start(RING_RESET, 2);
	for (unsigned n = 0; n < 20000; n++) {
		unsigned q = (seed = seed * 1103515245u + 12345u) >> 30 & 1;

		switch (seed >> 16 & 7) {
		case 0:
		case 1:
			write_reset(q, 1);
			break;
		case 2:
			if (!is_enabled(q))
				vdrv_queue_setup_at(d, q, TDEV_QSIZE,
						    d->q[q].desc, d->q[q].avail,
						    d->q[q].used);
			break;
		case 3:
			vdrv_kick(d, q);
			break;
		case 4:
			t.hold = !t.hold;
			break;
		case 5:
			vdrv_set_status(d, vdrv_status(d));
			break;
		default:
			assert_false(is_resetting(q) && is_enabled(q));
			break;
		}
	}
	t.hold = false;
	assert_true(vdrv_start(d, V1 | RING_RESET, 2));
	tdev_echo(&t, 0, 10);
	tdev_fini(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_registers),
		cmocka_unit_test(test_other_parameters),
		cmocka_unit_test(test_packed),
		cmocka_unit_test(test_in_flight),
		cmocka_unit_test(test_waiting),
		cmocka_unit_test(test_not_taken),
		cmocka_unit_test(test_device_reset),
		cmocka_unit_test(test_too_long),
		cmocka_unit_test(test_without_effect),
		cmocka_unit_test(test_broken),
		cmocka_unit_test(test_disorder),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

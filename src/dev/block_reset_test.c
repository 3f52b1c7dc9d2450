/* SPDX-License-Identifier: BSD-2-Clause */
/* Hostile drivers, resets and stops of the block device while requests run. */
#include "block_fixture.h"

#include <string.h>

/* hostile S1, S3: sizes that the device did not offer, or too late. */
static void test_queue_size(void **state)
{
	struct request r;

	create(VDRV_MODERN, "");
	vdrv_probe(&d);
	vdrv_reset(&d);
	assert_true(vdrv_negotiate(&d, vdrv_offer(&d)));
	vdrv_common_write(&d, 0x16, 2, 0);    /* queue_select */
	vdrv_common_write(&d, 0x18, 2, 1024); /* queue_size */
	assert_int_equal(vdrv_common_read(&d, 0x18, 2), 64);
	assert_true(vdrv_queue_setup(&d, 0, 8));
	vdrv_driver_ok(&d);
	vdrv_common_write(&d, 0x16, 2, 0);
	vdrv_common_write(&d, 0x18, 2, 64);
	vdrv_common_write(&d, 0x20, 4, 0x1000); /* queue_desc */
	assert_int_equal(vdrv_common_read(&d, 0x18, 2), 8);
	for (int i = 0; i < 20; i++) {
		r = make_req(VIRTIO_BLK_T_IN, 0, 512, true);
		assert_int_equal(do_req(&r, NULL), OK);
	}

	/* hostile D16, Q21: the state per entry grows with the queue again. */
	assert_true(vdrv_start(&d, ALL_FEATURES, 1));
	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < 21; i++) {
			r = make_req(VIRTIO_BLK_T_IN, 0, 512, true);
			add_req(0, &r);
		}
		vdrv_kick(&d, 0);
		for (int i = 0; i < 21; i++)
			assert_int_equal(wait_used(0).len, 513);
	}
}

/* hostile S15c, Q6, D31: a head that is in flight is offered again. */
static void test_duplicate_head(void **state)
{
	for (int slow = 0; slow <= (int)threads; slow++) {
		struct request r;
		uint16_t head;

		start(VDRV_MODERN, "", ALL_FEATURES);
		FAULT_SET(hang, slow);
		r = make_req(slow ? VIRTIO_BLK_T_FLUSH : VIRTIO_BLK_T_OUT, 0, 0,
			     false);
		head = add_req(0, &r);
		for (int i = 0; i < 40; i++)
			vdrv_avail(&d, 0, head);
		vdrv_kick(&d, 0);
		iterate(5);
		if (slow)
			assert_true(vdrv_status(&d) & NEEDS_RESET);
		FAULT_SET(hang, false);
		iterate(5);
		assert_true(vdrv_start(&d, ALL_FEATURES, 1));
		assert_int_equal(do_write(0, 512), OK);
		destroy();
	}
}

/*
 * hostile S15g, RST-01: reset while a read runs. It cannot be cancelled, and
 * the reset does not block: for a modern driver it is complete when the read
 * has ended, and nothing is written from then on.
 */
static void test_reset_in_flight(void **state)
{
	struct request r = start_slow_read(VDRV_MODERN, 64 * KIB);
	struct vdrv_used used;

	assert_int_equal(req_data(&r)[0], 0xdd);
	vdrv_set_status(&d, 0);
	iterate(5);
	assert_true(FAULT_GET(hang));
	assert_int_not_equal(vdrv_status(&d), 0);
	FAULT_SET(hang, false);
	wait_idle();
	assert_int_equal(vdrv_status(&d), 0);
	assert_int_equal(req_status(&r), NO_STATUS);
	assert_false(vdrv_used(&d, 0, &used));

	FAULT_SET(no_cache, false);
	assert_true(vdrv_start(&d, ALL_FEATURES, 1));
	assert_int_equal(do_write(0, 512), OK);
}

/* A driver that cannot see the reset's end still gets its device. */
static void test_reset_impatient(void **state)
{
	struct request old = start_slow_read(VDRV_LEGACY, 512), new;

	for (int i = 0; i < 3; i++) {
		assert_true(vdrv_start(&d, ALL_FEATURES, 1));
		new = make_req(VIRTIO_BLK_T_IN, 0, 512, true);
		add_req(0, &new);
		vdrv_kick(&d, 0);
		iterate(5);
		assert_int_equal(req_status(&new), NO_STATUS);
	}
	FAULT_SET(hang, false);
	while (req_status(&new) == NO_STATUS) {
		iterate(1);
		vdrv_wake(&d);
	}
	assert_int_equal(req_status(&new), OK);
	assert_memory_equal(req_data(&new), model, 512);
	assert_int_equal(req_status(&old), NO_STATUS);
}

/* A broken device does not access guest memory, in flight or not. */
static void test_error_in_flight(void **state)
{
	struct request r = start_slow_read(VDRV_MODERN, 4 * KIB);
	struct request bad = make_req(VIRTIO_BLK_T_OUT, 0, 0, false);

	vdrv_add(&d, 0, (struct vdrv_buf[]){ { bad.hdr, 16, VDRV_R } }, 1);
	vdrv_kick(&d, 0);
	assert_true(vdrv_status(&d) & NEEDS_RESET);
	assert_true(FAULT_GET(hang)); /* has not waited */
	FAULT_SET(hang, false);
	wait_idle();
	assert_int_equal(req_status(&r), NO_STATUS);
}

/*
 * The driver breaks its ring, which is noticed at the end of an iteration,
 * while requests wait for the next one: they never begin.
 */
static void test_error_in_iteration(void **state)
{
	enum { NR_LONG = 6 }; /* an iteration takes two of them */
	struct request r[NR_LONG];
	uint16_t head = 0;

	start(VDRV_MODERN, "", ALL_FEATURES);
	for (unsigned i = 0; i < NR_LONG; i++) {
		r[i] = make_req(VIRTIO_BLK_T_IN, 0, IMAGE_BYTES, true);
		head = add_req(0, &r[i]);
	}
	vdrv_kick(&d, 0);
	for (int i = 0; i < 100; i++)
		vdrv_avail(&d, 0, head);
	iterate(10);
	assert_true(vdrv_status(&d) & NEEDS_RESET);
	wait_idle();
	assert_int_equal(req_data(&r[0])[0], model[0]);
	for (unsigned i = 2; i < NR_LONG; i++) {
		assert_int_equal(req_status(&r[i]), NO_STATUS);
		assert_int_equal(req_data(&r[i])[0], 0xdd);
	}
}

/* On a stop, what is in flight completes, without an error. */
static void test_quiesce(void **state)
{
	struct request r = start_slow_read(VDRV_MODERN, 64 * KIB);
	struct request f = make_req(VIRTIO_BLK_T_FLUSH, 0, 0, false);
	struct vdrv_used used;

	add_req(0, &f);
	vdrv_kick(&d, 0);
	iterate(5);
	pci_quiesce(&d.pi);
	iterate(5);
	assert_false(pci_is_idle(&d.pi));
	FAULT_SET(hang, false);
	wait_idle();
	iterate(2);
	assert_true(vdrv_used(&d, 0, &used) && vdrv_used(&d, 0, &used));
	assert_int_equal(req_status(&f), OK);
	assert_int_equal(req_status(&r), OK);
	assert_memory_equal(req_data(&r), model, r.len);
}

static int run(const char *engine)
{
	const struct CMUnitTest tests[] = {
		TEST(test_queue_size),      TEST(test_duplicate_head),
		TEST(test_reset_in_flight), TEST(test_error_in_flight),
		TEST(test_reset_impatient), TEST(test_error_in_iteration),
		TEST(test_quiesce),
	};

	threads = strcmp(engine, "threads") == 0;
	return cmocka_run_group_tests_name(engine, tests, NULL, NULL);
}

int main(void)
{
	return run_on_engines(run);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* The write cache of the block device: when written data is stable. */
#include "block_fixture.h"
#include "base/util.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

enum { NO_WRITE = -1 };

/* Turning the cache off flushes it: wait for that. */
static void settle(void)
{
	assert_int_equal(do_simple(VIRTIO_BLK_T_FLUSH, 0, 0, false), OK);
}

/* How often fdatasync() had succeeded when a write appeared in the used ring. */
static unsigned syncs_of_a_write(void)
{
	FAULT_SET(nr_sync, 0);
	assert_int_equal(do_write(0, 512), OK);
	return FAULT_GET(nr_sync);
}

/* BLK-03, BLK-05, BLK-12, BLK-13, hostile F14. */
static void test_write_cache(void **state)
{
	const uint64_t none = ~(BIT(FLUSH) | BIT(CONFIG_WCE));
	static const char wt[] = ",cache=writethrough";
	const struct {
		const char *what, *options;
		uint64_t features;
		int write; /* to `writeback` after negotiation */
		uint8_t reads;
		bool stable;
	} rows[] = {
		{ "flush only", "", ~BIT(CONFIG_WCE), NO_WRITE, 1, false },
		{ "BLK-12, hostile F14", "", none, NO_WRITE, 0, true },
		{ "BLK-05", "", ALL_FEATURES, NO_WRITE, 1, false },
		{ "BLK-05, BLK-13", "", ALL_FEATURES, 0, 0, true },
		{ "BLK-05", "", ALL_FEATURES, 1, 1, false },
		{ "BLK-03", "", ~BIT(FLUSH), NO_WRITE, 0, true },
		{ "BLK-03 then 1", "", ~BIT(FLUSH), 1, 1, false },
		{ "not negotiated", "", ~BIT(CONFIG_WCE), 0, 1, false },
		{ "writethrough", wt, ALL_FEATURES, NO_WRITE, 0, true },
		{ "writethrough", wt, ~BIT(CONFIG_WCE), NO_WRITE, 1, true },
		{ "writethrough", wt, ALL_FEATURES, 1, 1, true },
		{ "direct", ",cache=direct", ALL_FEATURES, NO_WRITE, 1, false },
		{ "direct", ",cache=direct", none, NO_WRITE, 0, true },
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		unsigned syncs;

		start(VDRV_MODERN, rows[i].options, rows[i].features);
		if (rows[i].write != NO_WRITE)
			vdrv_cfg_write(&d, 32, 1, (uint32_t)rows[i].write);
		settle();
		assert_int_equal(vdrv_cfg_read(&d, 32, 1), rows[i].reads);
		syncs = syncs_of_a_write();
		if (syncs != rows[i].stable)
			fail_msg("%s: %u syncs", rows[i].what, syncs);
		/* Write zeroes is a write as well. */
		FAULT_SET(nr_sync, 0);
		assert_int_equal(do_seg(VIRTIO_BLK_T_WRITE_ZEROES, 0, 8, 0),
				 OK);
		assert_int_equal(FAULT_GET(nr_sync), rows[i].stable);
		destroy();
	}
}

/* BLK-L03: a legacy driver's features and status do not change the mode. */
static void test_legacy_write_cache(void **state)
{
	create(VDRV_LEGACY, "");
	vdrv_probe(&d);
	vdrv_reset(&d);
	vdrv_set_status(&d, VIRTIO_CONFIG_STATUS_ACK);
	assert_int_equal(vdrv_cfg_read(&d, 32, 1), 1);
	/* It may be written before the driver has accepted CONFIG_WCE. */
	vdrv_cfg_write(&d, 32, 1, 0);
	assert_int_equal(vdrv_cfg_read(&d, 32, 1), 0);
	vdrv_cfg_write(&d, 32, 1, 1);
	/* CONFIG_WCE without FLUSH. */
	assert_true(vdrv_negotiate(&d, BIT(CONFIG_WCE)));
	assert_int_equal(vdrv_cfg_read(&d, 32, 1), 1);
	assert_true(vdrv_queue_setup(&d, 0, 0));
	vdrv_driver_ok(&d);
	assert_int_equal(vdrv_cfg_read(&d, 32, 1), 1);
	settle();
	assert_int_equal(syncs_of_a_write(), 0);

	/* DRIVER_OK without CONFIG_WCE, and without FLUSH: the exception. */
	assert_true(vdrv_start(&d, 0, 1));
	assert_int_equal(vdrv_cfg_read(&d, 32, 1), 0);
	assert_int_equal(syncs_of_a_write(), 1);
	/* A reset restores what the options say. */
	vdrv_reset(&d);
	assert_int_equal(vdrv_cfg_read(&d, 32, 1), 1);
}

/* BLK-14: the flush is used after fdatasync(), and fails if that fails. */
static void test_flush(void **state)
{
	struct vdrv_used used;
	struct request w, f;

	start(VDRV_MODERN, "", ALL_FEATURES);
	w = make_req(VIRTIO_BLK_T_OUT, 0, 512, false);
	assert_int_equal(do_req(&w, NULL), OK);
	assert_int_equal(FAULT_GET(nr_sync), 0);

	FAULT_SET(hang, true);
	f = make_req(VIRTIO_BLK_T_FLUSH, 0, 0, false);
	add_req(0, &f);
	vdrv_kick(&d, 0);
	iterate(10);
	assert_false(vdrv_used(&d, 0, &used));
	FAULT_SET(hang, false);
	wait_used(0);
	assert_int_equal(FAULT_GET(nr_sync), 1);
	assert_int_equal(req_status(&f), OK);

	FAULT_SET(sync_errno, EIO);
	assert_int_equal(do_simple(VIRTIO_BLK_T_FLUSH, 0, 0, false), IOERR);
	FAULT_SET(sync_errno, 0);
	assert_int_equal(do_simple(VIRTIO_BLK_T_FLUSH, 0, 0, false), IOERR);
}

/* BLK-19: a slow flush does not delay a later read. */
static void test_out_of_order(void **state)
{
	struct request f, r;
	uint16_t head;

	if (!threads)
		skip();
	start(VDRV_MODERN, "", ALL_FEATURES);
	FAULT_SET(hang, true);
	f = make_req(VIRTIO_BLK_T_FLUSH, 0, 0, false);
	r = make_req(VIRTIO_BLK_T_IN, 0, 512, true);
	add_req(0, &f);
	head = add_req(0, &r);
	vdrv_kick(&d, 0);
	assert_int_equal(wait_used(0).id, head);
	assert_int_equal(req_status(&r), OK);
	assert_int_equal(req_status(&f), NO_STATUS);
	FAULT_SET(hang, false);
	wait_used(0);
	assert_int_equal(req_status(&f), OK);
}

/* BLK-13: turning the cache off flushes it, with no further request. */
static void test_cache_off(void **state)
{
	struct request w;

	start(VDRV_MODERN, "", ALL_FEATURES);
	assert_int_equal(do_write(0, 512), OK);
	assert_int_equal(FAULT_GET(nr_sync), 0);
	vdrv_cfg_write(&d, 32, 1, 0);
	while (FAULT_GET(nr_sync) == 0)
		iterate(1);
	vdrv_cfg_write(&d, 32, 1, 0); /* no change */
	vdrv_cfg_write(&d, 32, 1, 1);
	iterate(5);
	assert_int_equal(FAULT_GET(nr_sync), 1);

	/* A write in flight at that moment gets its own flush. */
	if (!threads)
		return; /* it cannot be made to end after the first flush */
	FAULT_SET(nr_sync, 0);
	FAULT_SET(write_errno, EAGAIN);
	w = make_req(VIRTIO_BLK_T_OUT, 0, 512, false);
	add_req(0, &w);
	vdrv_kick(&d, 0);
	iterate(5);
	vdrv_cfg_write(&d, 32, 1, 0);
	while (FAULT_GET(nr_sync) == 0)
		iterate(1);
	FAULT_SET(write_errno, 0);
	wait_used(0);
	assert_int_equal(req_status(&w), OK);
	assert_int_equal(FAULT_GET(nr_sync), 2);
}

/* A reset does not lose the flush that was promised to the driver. */
static void test_cache_off_reset(void **state)
{
	struct request r = start_slow_read(VDRV_MODERN, 512);

	vdrv_cfg_write(&d, 32, 1, 0);
	vdrv_set_status(&d, 0);
	iterate(5);
	vdrv_set_status(&d, 0); /* forgets the waiting one again */
	assert_int_equal(FAULT_GET(nr_sync), 0);
	FAULT_SET(hang, false);
	while (FAULT_GET(nr_sync) == 0)
		iterate(1);
	assert_int_equal(req_status(&r), NO_STATUS);
}

static int run(const char *engine)
{
	const struct CMUnitTest tests[] = {
		TEST(test_write_cache), TEST(test_legacy_write_cache),
		TEST(test_flush),       TEST(test_out_of_order),
		TEST(test_cache_off),   TEST(test_cache_off_reset),
	};

	threads = strcmp(engine, "threads") == 0;
	return cmocka_run_group_tests_name(engine, tests, NULL, NULL);
}

int main(void)
{
	return run_on_engines(run);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* What is stable when, discard and write zeroes. */
#include "disk_fixture.h"
#include "base/util.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/*
 * --- Durability ---
 */

/* BLK-12, BLK-13: a stable write is done when fdatasync() has returned. */
static void test_stable_writes(void **state)
{
	static const struct {
		enum disk_cache cache;
		enum disk_op op;
		bool fua;
		bool synced;
	} rows[] = {
		{ DISK_WRITEBACK, DISK_WRITE, false, false },
		{ DISK_WRITEBACK, DISK_WRITE, true, true },
		{ DISK_WRITETHROUGH, DISK_WRITE, false, true },
		{ DISK_WRITETHROUGH, DISK_WRITE_ZEROES, false, true },
		{ DISK_WRITEBACK, DISK_WRITE_ZEROES, true, true },
		{ DISK_DIRECT, DISK_WRITE, false, false },
		{ DISK_DIRECT, DISK_WRITE, true, true },
		{ DISK_WRITETHROUGH, DISK_READ, false, false },
	};
	char buf[512] = { 0 };

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct test_req t = { .req.dr_fua = rows[i].fua };
		struct iovec iov = { buf, sizeof(buf) };

		start_with(tmp_dir(),
			   (struct disk_params){ .cache = rows[i].cache });
		FAULT_SET(nr_sync, 0);
		start(&t, rows[i].op, 0, 512, &iov, 1);
		assert_int_equal(finish(&t), 0);
		assert_int_equal(FAULT_GET(nr_sync), rows[i].synced);
		close_disk();
	}
}

/* BLK-14, and flushes that arrive together share one call. */
static void test_flush(void **state)
{
	struct test_req t[BATCH] = { 0 };

	start_with(tmp_dir(), (struct disk_params){ 0 });
	for (unsigned i = 0; i < BATCH; i++)
		start(&t[i], DISK_FLUSH, 0, 0, NULL, 0);
	for (unsigned i = 0; i < BATCH; i++)
		assert_int_equal(finish(&t[i]), 0);
	assert_int_equal(FAULT_GET(nr_sync), 1);

	/* One that arrives while a call runs is not served by it. */
	FAULT_SET(hang, true);
	start(&t[0], DISK_FLUSH, 0, 0, NULL, 0);
	disk_submit(disk);
	start(&t[1], DISK_FLUSH, 0, 0, NULL, 0);
	disk_submit(disk);
	FAULT_SET(hang, false);
	assert_int_equal(finish(&t[1]), 0);
	assert_true(t[0].done);
	assert_int_equal(FAULT_GET(nr_sync), 3);
}

/* The kernel reports a lost write once. We keep reporting it. */
static void test_failed_flush(void **state)
{
	char buf[512] = { 0 };
	struct test_req t = { .req.dr_fua = true };
	struct iovec iov = { buf, sizeof(buf) };

	start_with(tmp_dir(), (struct disk_params){ 0 });
	FAULT_SET(sync_errno, EIO);
	assert_int_equal(simple(DISK_FLUSH), failure(EIO));
	FAULT_SET(sync_errno, 0);
	assert_int_equal(simple(DISK_FLUSH), failure(EIO));
	start(&t, DISK_WRITE, 0, 512, &iov, 1);
	assert_int_equal(finish(&t), failure(EIO));
	/* Requests without a durability promise work. */
	assert_int_equal(transfer_one(DISK_WRITE, 0, buf, 512), 0);
	assert_int_equal(transfer_one(DISK_READ, 0, buf, 512), 0);
}

/* Flushes that wait while one fails are not covered by it, but fail too. */
static void test_failed_flush_waiting(void **state)
{
	struct test_req t[3] = { 0 };

	start_with(tmp_dir(), (struct disk_params){ 0 });
	FAULT_SET(hang, true);
	FAULT_SET(sync_errno, EIO);
	start(&t[0], DISK_FLUSH, 0, 0, NULL, 0);
	disk_submit(disk);
	start(&t[1], DISK_FLUSH, 0, 0, NULL, 0);
	start(&t[2], DISK_FLUSH, 0, 0, NULL, 0);
	FAULT_SET(hang, false);
	assert_int_equal(finish(&t[0]), failure(EIO));
	FAULT_SET(sync_errno, 0);
	assert_int_equal(finish(&t[1]), failure(EIO));
	assert_int_equal(finish(&t[2]), failure(EIO));
	assert_int_equal(FAULT_GET(nr_sync), 0);
}

/*
 * --- Discard and write zeroes ---
 */

static uint64_t allocated(void)
{
	struct stat st;

	assert_int_equal(stat(path, &st), 0);
	return (uint64_t)st.st_blocks * 512;
}

static void fill_image(void)
{
	memset(model, 'x', sizeof(model));
	assert_int_equal(transfer_one(DISK_WRITE, 0, model, sizeof(model)), 0);
	assert_int_equal(simple(DISK_FLUSH), 0);
}

/* BLK-10: the range reads as zeroes, whatever the image can do. */
static void test_write_zeroes(void **state)
{
	static const struct {
		uint64_t off, len;
	} rows[] = {
		{ 0, 4 * KIB },
		{ 512, 512 },
		{ 3 * 512, 200 * KIB },
		{ 64 * KIB, 2048 * KIB + 512 },
		{ IMAGE_BYTES - 512, 512 },
		{ 0, IMAGE_BYTES },
	};
	static const struct {
		enum disk_cache cache;
		unsigned dio_align;
		int fallocate_errno;
	} ways[] = {
		{ DISK_WRITEBACK, 0, 0 },
		{ DISK_WRITEBACK, 0, EOPNOTSUPP },
		{ DISK_WRITEBACK, 0, EINVAL },
		{ DISK_DIRECT, 0, 0 },
		{ DISK_DIRECT, 4 * KIB, EOPNOTSUPP },
	};

	for (size_t w = 0; w < ARRAY_LEN(ways); w++) {
		FAULT_SET(dio_align, ways[w].dio_align);
		FAULT_SET(fallocate_errno, ways[w].fallocate_errno);
		start_with(tmp_dir(),
			   (struct disk_params){ .cache = ways[w].cache });
		for (size_t i = 0; i < 2 * ARRAY_LEN(rows); i++) {
			struct test_req t = { .req.dr_unmap = i & 1 };

			fill_image();
			memset(model + rows[i / 2].off, 0, rows[i / 2].len);
			start(&t, DISK_WRITE_ZEROES, rows[i / 2].off,
			      rows[i / 2].len, NULL, 0);
			assert_int_equal(finish(&t), 0);
			assert_image_is_model();
		}
		close_disk();
	}
}

static void test_unmap(void **state)
{
	struct test_req t = { .req.dr_unmap = true };
	struct disk_info info;

	start_with(tmp_dir(), (struct disk_params){ .discard = true });
	disk_get_info(disk, &info);
	if (!info.can_discard)
		skip();
	fill_image();
	assert_true(allocated() >= IMAGE_BYTES);
	start(&t, DISK_WRITE_ZEROES, 0, IMAGE_BYTES / 2, NULL, 0);
	assert_int_equal(finish(&t), 0);
	assert_true(allocated() < IMAGE_BYTES * 3 / 4);
	assert_int_equal(transfer_one(DISK_DISCARD, 0, NULL, IMAGE_BYTES), 0);
	assert_true(allocated() < IMAGE_BYTES / 4);
	/* Without unmap the space stays. */
	fill_image();
	t.req.dr_unmap = false;
	start(&t, DISK_WRITE_ZEROES, 0, IMAGE_BYTES, NULL, 0);
	assert_int_equal(finish(&t), 0);
	assert_true(allocated() >= IMAGE_BYTES);
}

static int run(const char *engine)
{
	const struct CMUnitTest tests[] = {
		TEST(test_stable_writes), TEST(test_flush),
		TEST(test_failed_flush),  TEST(test_failed_flush_waiting),
		TEST(test_write_zeroes),  TEST(test_unmap),
	};

	threads = strcmp(engine, "threads") == 0;
	return cmocka_run_group_tests_name(engine, tests, NULL, NULL);
}

int main(void)
{
	return run_on_engines(run);
}

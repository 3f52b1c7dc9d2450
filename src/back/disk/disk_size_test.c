/* SPDX-License-Identifier: BSD-2-Clause */
/* Sizes of images: odd ones, and those that change. */
#include "disk_fixture.h"
#include "back/disk/admission.h"
#include "base/util.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/*
 * --- An image whose size is not a multiple of a block ---
 */

static uint64_t image_size(void)
{
	struct stat st;

	assert_int_equal(stat(path, &st), 0);
	return (uint64_t)st.st_size;
}

static void fill_odd_image(uint64_t bytes)
{
	make_image(tmp_dir(), bytes);
	memset(model, 'm', bytes);
	poke(0, model, bytes);
}

static void assert_reads_as_model(uint64_t off, uint64_t len)
{
	static char buf[64 * KIB] __attribute__((aligned(4096)));

	memset(buf, 'x', sizeof(buf));
	assert_int_equal(transfer_one(DISK_READ, off, buf, len), 0);
	assert_memory_equal(buf, model + off, len);
	assert_int_equal(buf[len], 'x');
}

/* All bytes can be read, followed by zeroes; the file grows. */
static void test_odd_size(void **state)
{
	static const struct {
		const char *name;
		uint64_t bytes;
		struct disk_params params;
		uint64_t capacity;
		unsigned dio_align;
		size_t max_bytes; /* of a transfer */
	} rows[] = {
		{ "cached", 20 * KIB + 307, { 0 }, 20 * KIB + 512 },
		{ "read-only", 20 * KIB + 1, { .ro = true }, 20 * KIB + 512 },
		{ "less than a block", 100, { 0 }, 512 },
		{ "4096", 20 * KIB + 512, { .block_bytes = 4096 }, 24 * KIB },
		{ "2048", 5, { .block_bytes = 2048, .ro = true }, 2048 },
		{ "direct",
		  20 * KIB + 307,
		  { .cache = DISK_DIRECT },
		  24 * KIB,
		  4096 },
		{ "short", 20 * KIB + 307, { 0 }, 20 * KIB + 512, 0, 4096 },
	};
	char block[512];

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct disk_params params = rows[i].params;
		uint64_t end = rows[i].capacity;
		struct disk_info info;
		char text[128];

		print_message("%s\n", rows[i].name);
		disk_fault.dio_align = rows[i].dio_align;
		disk_fault.max_bytes = rows[i].max_bytes;
		fill_odd_image(rows[i].bytes);
		assert_int_equal(open_disk(params), 0);
		disk_get_info(disk, &info);
		assert_int_equal(info.bytes, end);
		assert_true(disk_odd_size(disk, text, sizeof(text)));
		assert_non_null(strstr(text, "complete the last block"));
		assert_reads_as_model(0, end);
		assert_reads_as_model(end - 512, 512);
		assert_reads_as_model(rows[i].bytes / 512 * 512, 512);
		assert_int_equal(transfer_one(DISK_READ, end, block, 512),
				 -ERANGE);
		assert_int_equal(image_size(), rows[i].bytes);
		if (!params.ro) {
			memset(block, 'w', sizeof(block));
			memcpy(model + end - 512, block, 512);
			assert_int_equal(
				transfer_one(DISK_WRITE, end - 512, block, 512),
				0);
			assert_int_equal(image_size(), end);
			assert_reads_as_model(0, end);
		}
		close_disk();
	}
}

/* Zeroes up to the last block, by each method. */
static void test_odd_size_zeroes(void **state)
{
	const uint64_t bytes = 20 * KIB + 307, last = 20 * KIB;

	for (int way = 0; way < 3; way++) {
		struct test_req t = { .req.dr_unmap = way == 1 };

		disk_fault.fallocate_errno = way == 2 ? EOPNOTSUPP : 0;
		fill_odd_image(bytes);
		assert_int_equal(open_disk((struct disk_params){ 0 }), 0);
		start(&t, DISK_WRITE_ZEROES, last, 512, NULL, 0);
		assert_int_equal(finish(&t), 0);
		memset(model + last, 0, 512);
		assert_reads_as_model(0, last + 512);
		close_disk();
	}
}

/* No arithmetic on a size wraps. */
static void test_largest_size(void **state)
{
	struct disk_info info;

	make_image("/dev/shm", 1);
	if (truncate(path, INT64_MAX) < 0)
		skip();
	assert_int_equal(open_disk((struct disk_params){ 0 }), 0);
	disk_get_info(disk, &info);
	assert_int_equal(info.bytes, INT64_MAX - 511);
}

/* hostile F13: an empty file behind a larger capacity. */
static void test_shrunk_behind_our_back(void **state)
{
	char buf[KIB];

	start_with(tmp_dir(), (struct disk_params){ 0 });
	assert_int_equal(truncate(path, 512), 0);
	assert_int_equal(transfer_one(DISK_READ, 0, buf, KIB), -EIO);
	assert_int_equal(transfer_one(DISK_READ, 8 * KIB, buf, KIB), -EIO);
	assert_int_equal(transfer_one(DISK_READ, 0, buf, 512), 0);
}

/*
 * --- Size ---
 */

static uint64_t notified;

static void on_size(void *arg, uint64_t bytes)
{
	notified = bytes;
}

static void wait_for_size(uint64_t bytes)
{
	uint64_t end = vio_now_ns() + 5000000000ull;

	while (notified != bytes && vio_now_ns() < end)
		vio_loop_iterate(loop, 100);
	assert_int_equal(notified, bytes);
}

/* Wait until it completes. */
static int resize(uint64_t bytes)
{
	struct err err;
	int ret;

	while ((ret = disk_resize(disk, bytes, true, &err)) == 1)
		assert_true(vio_loop_iterate(loop, 100) >= 0);
	return ret;
}

static void test_resize(void **state)
{
	char buf[512] = { 0 };
	struct disk_info info;
	struct stat st;
	struct err err;

	start_with(tmp_dir(), (struct disk_params){ 0 });
	disk_set_notify(disk, on_size, NULL);
	assert_int_equal(disk_resize(disk, 512, false, &err), -EEXIST);
	assert_int_equal(disk_resize(disk, 0, true, &err), -EINVAL);
	assert_int_equal(disk_resize(disk, 1000, true, &err), -EINVAL);
	assert_int_equal(disk_resize(disk, 1ull << 63, true, &err), -EFBIG);
	notified = 0;
	assert_int_equal(resize(IMAGE_BYTES), 0);
	assert_int_equal(notified, 0); /* no change */

	assert_int_equal(resize(2 * IMAGE_BYTES), 0);
	assert_int_equal(notified, 2 * IMAGE_BYTES);
	assert_int_equal(
		transfer_one(DISK_WRITE, 2 * IMAGE_BYTES - 512, buf, 512), 0);
	assert_int_equal(resize(KIB), 0);
	assert_int_equal(notified, KIB);
	disk_get_info(disk, &info);
	assert_int_equal(info.bytes, KIB);
	assert_int_equal(transfer_one(DISK_WRITE, KIB, buf, 512), -ERANGE);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_size, KIB);
}

/* No image: of any size, every call succeeds, and no byte is moved. */
static void test_null(void **state)
{
	const uint64_t bytes = UINT64_C(1) << 50;
	struct disk_info info;
	char buf[512];

	make_image(tmp_dir(), 0);
	assert_int_equal(
		open_disk((struct disk_params){ .null_bytes = bytes,
						.discard = true,
						.cache = DISK_DIRECT }),
		0);
	disk_get_info(disk, &info);
	assert_string_equal(info.engine, "null");
	assert_true(info.bytes == bytes && info.can_discard);
	memset(buf, 'x', sizeof(buf));
	assert_int_equal(transfer_one(DISK_WRITE, bytes - 512, buf, 512), 0);
	assert_int_equal(transfer_one(DISK_READ, bytes - 512, buf, 512), 0);
	assert_int_equal(buf[0], 'x');
	assert_int_equal(transfer_one(DISK_READ, bytes, buf, 512), -ERANGE);
	assert_int_equal(simple(DISK_FLUSH), 0);
	assert_int_equal(transfer_one(DISK_DISCARD, 0, NULL, 4096), 0);
	assert_int_equal(transfer_one(DISK_WRITE_ZEROES, 0, NULL, 4096), 0);
	assert_int_equal(image_size(), 0);
	assert_int_equal(resize(2 * bytes), 0);
	assert_int_equal(transfer_one(DISK_READ, bytes, buf, 512), 0);
}

static void test_watch(void **state)
{
	struct disk_params p = { .path = path };
	char buf[512] = { 0 };

	start_with(tmp_dir(), (struct disk_params){ 0 });
	disk_set_notify(disk, on_size, NULL);
	assert_int_equal(disk_watch(disk, disk_open_watch(&p)), 0);
	assert_int_equal(truncate(path, 2 * IMAGE_BYTES), 0);
	wait_for_size(2 * IMAGE_BYTES);
	/* Also while our own writes are being reported. */
	assert_int_equal(transfer_one(DISK_WRITE, 0, buf, 512), 0);
	assert_int_equal(truncate(path, IMAGE_BYTES), 0);
	wait_for_size(IMAGE_BYTES);
}

/* Our own inspection of the image is not reported: an idle disk sleeps. */
static void test_watch_quiet(void **state)
{
	struct disk_params p = { .path = path };
	int fd;

	make_image(tmp_dir(), IMAGE_BYTES);
	fd = disk_open_watch(&p);
	assert_int_equal(open_disk((struct disk_params){ 0 }), 0);
	disk_set_notify(disk, on_size, NULL);
	assert_int_equal(disk_watch(disk, fd), 0);
	assert_int_equal(vio_loop_iterate(loop, 10), 0);
	/* Nor are changes missed that were made before the watch was read. */
	disk_destroy(disk);
	assert_int_equal(open_disk((struct disk_params){ 0 }), 0);
	fd = disk_open_watch(&p);
	assert_int_equal(truncate(path, 2 * IMAGE_BYTES), 0);
	disk_set_notify(disk, on_size, NULL);
	assert_int_equal(disk_watch(disk, fd), 0);
	wait_for_size(2 * IMAGE_BYTES);
}

/* The shortest of several, since other processes may delay us. */
static uint64_t shortest_resize(struct disk *d, uint64_t bytes)
{
	uint64_t shortest = UINT64_MAX;
	struct err err;

	for (int i = 0; i < 10; i++) {
		uint64_t start_ns = vio_now_ns(), ns;

		assert_int_equal(disk_resize(d, bytes, true, &err), 1);
		ns = vio_now_ns() - start_ns;
		shortest = ns < shortest ? ns : shortest;
	}
	return shortest;
}

/* A file that was replaced at its path is not resized silently. */
static void test_resize_replaced(void **state)
{
	struct disk *old = add_disk('a');

	assert_int_equal(resize(2 * IMAGE_BYTES), -ESTALE);
	disk_destroy(old);
	add_named('b');
	assert_int_equal(resize(2 * IMAGE_BYTES), 0);
}

/* Nor is one that was moved away; its own changes are still seen. */
static void test_resize_renamed(void **state)
{
	struct disk_params p = { .path = path };
	char old[sizeof(path) + 4];

	start_with(tmp_dir(), (struct disk_params){ 0 });
	disk_set_notify(disk, on_size, NULL);
	assert_int_equal(disk_watch(disk, disk_open_watch(&p)), 0);
	assert_int_equal(resize(2 * IMAGE_BYTES), 0);
	snprintf(old, sizeof(old), "%s.old", path);
	assert_int_equal(rename(path, old), 0);
	assert_int_equal(truncate(old, 3 * IMAGE_BYTES), 0);
	assert_int_equal(resize(4 * IMAGE_BYTES), -ESTALE);
	wait_for_size(3 * IMAGE_BYTES);
	unlink(old);
}

/* A size that cannot be set now is set later; others are served meanwhile. */
static void test_resize_slow(void **state)
{
	struct disk *a = add_disk('a'), *b = add_named('b');
	struct test_req t = { 0 };
	struct err err;

	disk_set_notify(b, on_size, NULL);
	notified = 0;
	FAULT_SET(hang_size, true);
	assert_true(shortest_resize(b, 2 * IMAGE_BYTES) < 50000000);
	assert_holds(a, 'a');
	assert_holds(b, 'b');
	assert_int_equal(notified, 0);
	FAULT_SET(hang_size, false);
	wait_for_size(2 * IMAGE_BYTES);

	/* Requests that might extend it again are waited for, but not here. */
	make_hang();
	start(&t, DISK_FLUSH, 0, 0, NULL, 0);
	disk_submit(b);
	assert_int_equal(disk_resize(b, IMAGE_BYTES, true, &err), 1);
	iterate_a_while();
	assert_int_equal(notified, 2 * IMAGE_BYTES);
	FAULT_SET(hang, false);
	wait_for_size(IMAGE_BYTES);
	assert_true(t.done);
	disk_destroy(a);
}

/* Nor does it hold up the size of another image. */
static void test_resize_slow_other(void **state)
{
	struct disk *a = add_disk('a'), *b = add_named('b');
	struct disk_params p = { .path = path };
	struct err err;

	disk_set_notify(b, on_size, NULL);
	assert_int_equal(disk_watch(b, disk_open_watch(&p)), 0);
	a->exec.img.had_name = false; /* resize the file without a name */
	FAULT_SET(hang_size, true);
	assert_int_equal(disk_resize(a, 2 * IMAGE_BYTES, false, &err), 1);
	assert_int_equal(truncate(path, 2 * IMAGE_BYTES), 0);
	wait_for_size(2 * IMAGE_BYTES);
	FAULT_SET(hang_size, false);
	disk_destroy(a);
}

/* Earlier requests that wait meanwhile do not extend it again. */
static void test_shrink_held(void **state)
{
	static char buf[512];
	struct iovec iov = { buf, sizeof(buf) };
	struct test_req active = { 0 }, held = { 0 }, inside = { 0 };
	struct err err;

	start_with(tmp_dir(), (struct disk_params){ 0 });
	disk_set_notify(disk, on_size, NULL);
	make_hang();
	start(&active, DISK_FLUSH, 0, 0, NULL, 0);
	disk_submit(disk);
	assert_int_equal(disk_resize(disk, KIB, true, &err), 1);
	start(&held, DISK_WRITE, IMAGE_BYTES - 512, 512, &iov, 1);
	start(&inside, DISK_WRITE, 0, 512, &iov, 1);
	FAULT_SET(hang, false);
	assert_int_equal(finish(&held), -ERANGE);
	assert_int_equal(finish(&inside), 0);
	assert_int_equal(finish(&active), 0);
	assert_int_equal(image_size(), KIB);
}

/* Nor do those that wait after an error. */
static void test_shrink_waiting(void **state)
{
	static char buf[512];
	struct iovec iov = { buf, sizeof(buf) };
	struct test_req t = { 0 };
	struct err err;

	start_with(tmp_dir(),
		   (struct disk_params){ .on_write_error = DISK_WAIT });
	disk_set_notify(disk, on_size, NULL);
	FAULT_SET(write_errno, EIO);
	start(&t, DISK_WRITE, IMAGE_BYTES - 512, 512, &iov, 1);
	while (disk_nr_waiting(disk) == 0)
		assert_true(vio_loop_iterate(loop, 5000) >= 0);
	FAULT_SET(write_errno, 0);
	if (disk_resize(disk, KIB, true, &err) != 0)
		wait_for_size(KIB);
	disk_resume(disk);
	assert_int_equal(finish(&t), -ERANGE);
	assert_int_equal(image_size(), KIB);
}

/* A kernel without room is not retried all the time. */
static void test_again(void **state)
{
	char buf[512] = { 0 };
	struct test_req t = { 0 };
	struct iovec iov = { buf, sizeof(buf) };
	uint64_t end;

	start_with(tmp_dir(), (struct disk_params){ 0 });
	if (threads)
		FAULT_SET(write_errno, EAGAIN);
	else
		FAULT_SET(hang, true);
	FAULT_SET(nr_tried, 0);
	start(&t, DISK_WRITE, 0, 512, &iov, 1);
	end = vio_now_ns() + 300000000;
	while (vio_now_ns() < end)
		assert_true(vio_loop_iterate(loop, 10) >= 0);
	assert_false(t.done);
	assert_in_range(FAULT_GET(nr_tried), 3, 12); /* 1, 2, 4, ... ms */
	FAULT_SET(write_errno, 0);
	FAULT_SET(hang, false);
	assert_int_equal(finish(&t), 0);
}

static int run(const char *engine)
{
	const struct CMUnitTest tests[] = {
		TEST(test_null),
		TEST(test_odd_size),
		TEST(test_odd_size_zeroes),
		TEST(test_largest_size),
		TEST(test_shrunk_behind_our_back),
		TEST(test_resize),
		TEST(test_watch),
		TEST(test_watch_quiet),
		TEST(test_resize_replaced),
		TEST(test_resize_renamed),
		TEST(test_resize_slow),
		TEST(test_resize_slow_other),
		TEST(test_shrink_held),
		TEST(test_shrink_waiting),
		TEST(test_again),
	};

	threads = strcmp(engine, "threads") == 0;
	return cmocka_run_group_tests_name(engine, tests, NULL, NULL);
}

int main(void)
{
	return run_on_engines(run);
}

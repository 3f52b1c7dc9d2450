/* SPDX-License-Identifier: BSD-2-Clause */
/* Disks that stall, and requests that are forgotten meanwhile. */
#include "disk_fixture.h"
#include "back/disk/admission.h"
#include "base/util.h"

#include <errno.h>
#include <string.h>

/*
 * A flush, or any request, that takes long does not fail, whatever other
 * requests arrive meanwhile.
 */
static void test_slow(void **state)
{
	char buf[3][512] = { { 0 } };
	struct test_req t[3] = { 0 };
	struct iovec iov[3];

	start_with(tmp_dir(), (struct disk_params){ 0 });
	make_hang();
	for (unsigned i = 0; i < 3; i++)
		iov[i] = (struct iovec){ buf[i], sizeof(buf[i]) };
	start(&t[0], DISK_FLUSH, 0, 0, NULL, 0);
	start(&t[1], DISK_READ, 0, 512, &iov[1], 1);
	start(&t[2], DISK_WRITE, 4096, 512, &iov[2], 1);
	iterate_a_while();
	assert_false(t[0].done || t[1].done || t[2].done);
	FAULT_SET(hang, false);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(finish(&t[i]), 0);
}

/* Requests that hang, however many, do not hold up others. */
static void test_many_slow(void **state)
{
	static char buf[8][512];
	struct test_req slow[8] = { 0 }, other = { 0 };
	struct iovec iov[8];

	if (!threads)
		skip(); /* one queue, which the kernel empties */
	start_with(tmp_dir(), (struct disk_params){ 0 });
	make_hang();
	for (unsigned i = 0; i < 8; i++) {
		iov[i] = (struct iovec){ buf[i], sizeof(buf[i]) };
		start(&slow[i], DISK_WRITE, i * 4096, 512, &iov[i], 1);
	}
	start(&other, DISK_WRITE_ZEROES, 1024 * KIB, 4096, NULL, 0);
	assert_int_equal(finish(&other), 0);
	for (unsigned i = 0; i < 8; i++)
		assert_false(slow[i].done);
	FAULT_SET(hang, false);
	for (unsigned i = 0; i < 8; i++)
		assert_int_equal(finish(&slow[i]), 0);
}

/* All requests end, sooner or later; forgetting them again changes nothing. */
static void test_forget(void **state)
{
	static char buf[BATCH][512];
	struct test_req old[BATCH] = { 0 }, late = { 0 }, flush = { 0 };
	struct iovec iov[BATCH];

	start_with(tmp_dir(), (struct disk_params){ 0 });
	make_hang();
	for (unsigned i = 0; i < BATCH; i++) {
		iov[i] = (struct iovec){ buf[i], sizeof(buf[i]) };
		start(&old[i], DISK_READ, i * 4096, 512, &iov[i], 1);
	}
	iterate_a_while();
	disk_forget(disk);
	start(&late, DISK_READ, 0, 512, &iov[0], 1);
	start(&flush, DISK_FLUSH, 0, 0, NULL, 0);
	iterate_a_while();
	assert_false(late.done || flush.done || old[0].done);

	disk_forget(disk);
	assert_false(late.done || flush.done); /* not from inside */
	assert_int_equal(finish(&late), -ECANCELED);
	assert_int_equal(finish(&flush), -ECANCELED);
	FAULT_SET(hang, false);
	for (unsigned i = 0; i < BATCH; i++)
		finish(&old[i]);
	assert_int_equal(simple(DISK_FLUSH), 0);
	assert_int_equal(transfer_one(DISK_READ, 0, buf[0], 512), 0);
}

/* A flush that waits for another one to end has not begun. */
static void test_forget_flush(void **state)
{
	struct test_req t[2] = { 0 };

	start_with(tmp_dir(), (struct disk_params){ 0 });
	make_hang();
	start(&t[0], DISK_FLUSH, 0, 0, NULL, 0);
	disk_submit(disk);
	start(&t[1], DISK_FLUSH, 0, 0, NULL, 0);
	disk_forget(disk);
	assert_int_equal(finish(&t[1]), -ECANCELED);
	iterate_a_while();
	assert_false(t[0].done);
	FAULT_SET(hang, false);
	assert_int_equal(finish(&t[0]), 0);
	assert_int_equal(simple(DISK_FLUSH), 0);
}

/* Nothing is in flight: it is as if nothing had happened. */
static void test_forget_idle(void **state)
{
	char buf[512] = { 0 };

	start_with(tmp_dir(), (struct disk_params){ 0 });
	disk_forget(disk);
	assert_int_equal(transfer_one(DISK_WRITE, 0, buf, 512), 0);
	disk_forget(disk);
	assert_int_equal(simple(DISK_FLUSH), 0);
}

/* The last write wins. */
static void test_forget_order(void **state)
{
	static char old_buf[BATCH][512], new_buf[512];
	struct test_req old[BATCH] = { 0 }, new = { 0 };
	struct iovec iov[BATCH], new_iov = { new_buf, sizeof(new_buf) };

	start_with(tmp_dir(), (struct disk_params){ 0 });
	memset(old_buf, 'o', sizeof(old_buf));
	memset(new_buf, 'n', sizeof(new_buf));
	memcpy(model, new_buf, sizeof(new_buf));
	make_hang();
	for (unsigned i = 0; i < BATCH; i++) {
		iov[i] = (struct iovec){ old_buf[i], sizeof(old_buf[i]) };
		start(&old[i], DISK_WRITE, 0, 512, &iov[i], 1);
	}
	disk_submit(disk);
	disk_forget(disk);
	start(&new, DISK_WRITE, 0, 512, &new_iov, 1);
	iterate_a_while();
	FAULT_SET(hang, false);
	assert_int_equal(finish(&new), 0);
	for (unsigned i = 0; i < BATCH; i++)
		assert_true(old[i].done);
	assert_image_is_model();
}

/* A request longer than a call ends with the call in progress. */
static void test_forget_long(void **state)
{
	struct test_req t = { 0 };

	if (!threads)
		skip();
	start_with(tmp_dir(), (struct disk_params){ 0 });
	FAULT_SET(fallocate_errno, EOPNOTSUPP);
	make_hang();
	start(&t, DISK_WRITE_ZEROES, 0, IMAGE_BYTES, NULL, 0);
	iterate_a_while();
	disk_forget(disk);
	FAULT_SET(hang, false);
	assert_int_equal(finish(&t), -ECANCELED);
	assert_true(FAULT_GET(nr_write) <= 1);
}

/* A disk is destroyed while another one, with the same engine, stays. */
static void test_destroy_slow(void **state)
{
	static char buf[512];
	struct iovec iov = { buf, sizeof(buf) };
	struct test_req t = { 0 };
	struct disk *stays = add_disk('a'), *goes;

	goes = add_disk('b');
	make_hang();
	start(&t, DISK_READ, 4096, 512, &iov, 1);
	iterate_a_while();
	disk_destroy(goes);
	disk = stays;
	iterate_a_while();
	assert_false(t.done);
	FAULT_SET(hang, false);
	finish(&t);
	assert_holds(stays, 'a');
	assert_null(io->closing);
}

/* The end of a process waits for no disk; what the disk uses stays. */
static void test_end(void **state)
{
	/* The abandoned thread still uses these after this test. */
	static char buf[512];
	static struct test_req t;
	static struct iovec iov = { buf, sizeof(buf) };
	uint64_t start_ns = vio_now_ns();

	if (!threads)
		skip(); /* what hangs there is not in the kernel */
	start_with(tmp_dir(), (struct disk_params){ 0 });
	make_hang();
	memset(&t, 0, sizeof(t));
	start(&t, DISK_READ, 0, 512, &iov, 1);
	iterate_a_while();
	disk_destroy(disk);
	disk = NULL;
	assert_false(disk_io_destroy(io));
	io = NULL;
	assert_false(t.done);
	assert_true(vio_now_ns() - start_ns < 10000000000ull);
}

static int run(const char *engine)
{
	const struct CMUnitTest tests[] = {
		TEST(test_slow),        TEST(test_many_slow),
		TEST(test_forget),      TEST(test_forget_flush),
		TEST(test_forget_idle), TEST(test_forget_order),
		TEST(test_forget_long), TEST(test_destroy_slow),
		TEST(test_end),
	};

	threads = strcmp(engine, "threads") == 0;
	return cmocka_run_group_tests_name(engine, tests, NULL, NULL);
}

int main(void)
{
	return run_on_engines(run);
}

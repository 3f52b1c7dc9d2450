/* SPDX-License-Identifier: BSD-2-Clause */
/* Requests that wait after an error until they are resumed. */
#include "disk_fixture.h"
#include "base/util.h"

#include <errno.h>
#include <string.h>

static unsigned nr_waits;
static int wait_error;
static enum disk_op wait_op;

static void on_wait(void *arg, enum disk_op op, int error)
{
	if (disk_nr_waiting(disk) > 1)
		return;
	nr_waits++;
	wait_op = op;
	wait_error = error;
}

static void start_waiting_disk(enum disk_on_error on_read,
			       enum disk_on_error on_write)
{
	start_with(tmp_dir(),
		   (struct disk_params){ .on_read_error = on_read,
					 .on_write_error = on_write });
	disk_set_on_wait(disk, on_wait, NULL);
	FAULT_SET(no_cache, true);
	nr_waits = 0;
}

static void start_three(struct test_req *t, struct iovec *iov, enum disk_op op)
{
	static char buf[3][512];

	for (unsigned i = 0; i < 3; i++) {
		memset(buf[i], 'w', sizeof(buf[i]));
		iov[i] = (struct iovec){ buf[i], sizeof(buf[i]) };
		start(&t[i], op, i * 512, 512, &iov[i], 1);
	}
}

/* They are reported once, and continue as if nothing had happened. */
static void test_wait(void **state)
{
	for (int op = DISK_READ; op <= DISK_WRITE; op++) {
		struct test_req t[3] = { 0 };
		struct iovec iov[3];

		start_waiting_disk(DISK_WAIT, DISK_WAIT);
		FAULT_SET(read_errno, EIO);
		FAULT_SET(write_errno, EIO);
		start_three(t, iov, (enum disk_op)op);
		while (disk_nr_waiting(disk) < 3)
			assert_true(vio_loop_iterate(loop, 5000) >= 0);
		assert_false(t[0].done || t[1].done || t[2].done);
		assert_int_equal(nr_waits, 1);
		assert_int_equal(wait_op, op);
		assert_int_equal(wait_error, failure(EIO));
		/* Flushes do not wait for unwritten data. */
		assert_int_equal(simple(DISK_FLUSH), 0);

		/* In vain at first. */
		disk_resume(disk);
		while (disk_nr_waiting(disk) < 3)
			assert_true(vio_loop_iterate(loop, 5000) >= 0);
		assert_int_equal(nr_waits, 2);
		FAULT_SET(read_errno, 0);
		FAULT_SET(write_errno, 0);
		disk_resume(disk);
		for (unsigned i = 0; i < 3; i++)
			assert_int_equal(finish(&t[i]), 0);
		assert_int_equal(disk_nr_waiting(disk), 0);
		if (op == DISK_WRITE)
			memset(model, 'w', 3 * 512);
		assert_image_is_model();
		close_disk();
	}
}

static void test_wait_forget(void **state)
{
	struct test_req t[3] = { 0 };
	struct iovec iov[3];

	start_waiting_disk(DISK_REPORT, DISK_WAIT);
	FAULT_SET(write_errno, EIO);
	start_three(t, iov, DISK_WRITE);
	while (disk_nr_waiting(disk) < 3)
		assert_true(vio_loop_iterate(loop, 5000) >= 0);
	disk_forget(disk);
	assert_int_equal(disk_nr_waiting(disk), 0);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(finish(&t[i]), -ECANCELED);
	FAULT_SET(write_errno, 0);
	disk_resume(disk);
	assert_image_is_model();

	/* A disk may be destroyed while some wait. */
	FAULT_SET(write_errno, EIO);
	start_three(t, iov, DISK_WRITE);
	while (disk_nr_waiting(disk) < 3)
		assert_true(vio_loop_iterate(loop, 5000) >= 0);
}

/* One that is forgotten before it fails does not begin to wait. */
static void test_wait_forgotten(void **state)
{
	static char buf[512];
	struct iovec iov = { buf, sizeof(buf) };
	struct test_req t = { 0 };

	start_waiting_disk(DISK_REPORT, DISK_WAIT);
	FAULT_SET(write_errno, EIO);
	make_hang();
	start(&t, DISK_WRITE, 0, 512, &iov, 1);
	iterate_a_while();
	disk_forget(disk);
	FAULT_SET(hang, false);
	assert_int_equal(finish(&t), -ECANCELED);
	assert_int_equal(nr_waits, 0);
	assert_int_equal(disk_nr_waiting(disk), 0);
}

/* Which errors wait, and which are for the driver. */
static void test_wait_which(void **state)
{
	static const struct {
		enum disk_on_error on_read, on_write;
		enum disk_op op;
		int error;
		bool waits;
	} rows[] = {
		{ DISK_REPORT, DISK_WAIT, DISK_READ, EIO, false },
		{ DISK_WAIT, DISK_REPORT, DISK_WRITE, EIO, false },
		{ DISK_REPORT, DISK_WAIT, DISK_WRITE_ZEROES, EIO, true },
		{ DISK_REPORT, DISK_WAIT_SPACE, DISK_WRITE, EIO, false },
		{ DISK_REPORT, DISK_WAIT_SPACE, DISK_WRITE, ENOSPC, true },
		{ DISK_REPORT, DISK_WAIT_SPACE, DISK_WRITE, EDQUOT, true },
		{ DISK_REPORT, DISK_WAIT_SPACE, DISK_WRITE_ZEROES, ENOSPC,
		  true },
		{ DISK_WAIT, DISK_WAIT, DISK_FLUSH, EIO, false },
	};
	char buf[512] = { 0 };

	if (!threads)
		skip(); /* only EBADF can be produced there */
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct test_req t = { 0 };
		struct iovec iov = { buf, sizeof(buf) };

		start_waiting_disk(rows[i].on_read, rows[i].on_write);
		FAULT_SET(fallocate_errno, rows[i].error);
		FAULT_SET(read_errno, rows[i].error);
		FAULT_SET(write_errno, rows[i].error);
		FAULT_SET(sync_errno, rows[i].error);
		start(&t, rows[i].op, 0, 512, &iov, 1);
		while (!t.done && !disk_nr_waiting(disk))
			assert_true(vio_loop_iterate(loop, 5000) >= 0);
		assert_int_equal(disk_nr_waiting(disk), rows[i].waits);
		if (!rows[i].waits)
			assert_int_equal(t.result, -rows[i].error);
		memset(&disk_fault, 0, sizeof(disk_fault));
		close_disk();
	}
	/* The driver's own invalid requests do not wait. */
	start_waiting_disk(DISK_WAIT, DISK_WAIT);
	assert_int_equal(transfer_one(DISK_WRITE, IMAGE_BYTES, buf, 512),
			 -ERANGE);
}

static int run(const char *engine)
{
	const struct CMUnitTest tests[] = {
		TEST(test_wait),
		TEST(test_wait_forget),
		TEST(test_wait_forgotten),
		TEST(test_wait_which),
	};

	threads = strcmp(engine, "threads") == 0;
	return cmocka_run_group_tests_name(engine, tests, NULL, NULL);
}

int main(void)
{
	return run_on_engines(run);
}

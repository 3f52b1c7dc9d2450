/* SPDX-License-Identifier: BSD-2-Clause */
/* Clients of a listening socket take turns, even after one that failed. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

#include <viodev/loop.h>

#include "base/unix.h"
#include "serve/listener.h"

static struct {
	int ret;     /* what come() returns */
	unsigned nr; /* how often it was called */
	unsigned nr_failed;
	int error; /* of the last failure */
	int client;
} seen;

static struct vio_loop *loop;
static char dir[] = "/tmp/listener_test.XXXXXX", path[64];

static int come(void *arg, int take_fd)
{
	seen.nr++;
	if (seen.ret == 0)
		seen.client = take_fd;
	return seen.ret;
}

static void failed(void *arg, int error)
{
	seen.nr_failed++;
	seen.error = error;
}

static struct listener l;

static int setup(void **state)
{
	strcpy(strrchr(dir, '.'), ".XXXXXX");
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/s", dir);
	memset(&seen, 0, sizeof(seen));
	assert_int_equal(vio_loop_create(&loop), 0);
	l = (struct listener){
		.loop = loop,
		.come = come,
		.failed = failed,
		.fd = -1,
	};
	assert_int_equal(listener_start(&l, unix_listen(path, 0)), 0);
	return 0;
}

static int teardown(void **state)
{
	listener_stop(&l);
	listener_stop(&l);
	vio_loop_destroy(loop);
	unlink(path);
	return rmdir(dir);
}

/* Runs the loop until @*count is @nr; for ten seconds at most. */
static void wait_for(const unsigned *count, unsigned nr)
{
	uint64_t start = vio_now_ns();

	while (*count < nr && vio_now_ns() - start < 10000000000ull)
		vio_loop_iterate(loop, 100);
	assert_int_equal(*count, nr);
}

static void test_turns(void **state)
{
	int a = unix_connect(path, 0), b = unix_connect(path, 0);

	wait_for(&seen.nr, 1);
	for (int i = 0; i < 5; i++)
		vio_loop_iterate(loop, 0);
	assert_int_equal(seen.nr, 1);
	close(seen.client);
	listener_next(&l);
	wait_for(&seen.nr, 2);
	close(seen.client);
	close(a);
	close(b);
	assert_int_equal(seen.nr_failed, 0);
}

/* A client that was refused is closed, and the next follows a while later. */
static void test_not_let_in(void **state)
{
	int a = unix_connect(path, 0), b;
	uint64_t start = vio_now_ns();
	char c;

	seen.ret = -ENOMEM;
	wait_for(&seen.nr_failed, 1);
	assert_int_equal(seen.error, ENOMEM);
	assert_int_equal(read(a, &c, 1), 0);
	seen.ret = 0;
	b = unix_connect(path, 0);
	wait_for(&seen.nr, 2);
	assert_true(vio_now_ns() - start >= 50000000);
	close(seen.client);
	close(a);
	close(b);
}

/* Out of descriptors: the listener retries, but not all the time. */
static void test_no_descriptors(void **state)
{
	struct rlimit old, none;
	int a = unix_connect(path, 0);

	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	none = old;
	none.rlim_cur = 0;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	wait_for(&seen.nr_failed, 1);
	assert_int_equal(seen.error, EMFILE);
	for (int i = 0; i < 5; i++)
		vio_loop_iterate(loop, 0);
	assert_int_equal(seen.nr_failed, 1);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
	wait_for(&seen.nr, 1);
	close(seen.client);
	close(a);
}

static void test_not_listening(void **state)
{
	struct listener other = { .loop = loop, .fd = -1 };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(listener_start(&other, fd), -EINVAL);
	assert_int_equal(listener_start(&l, fd), -EBUSY);
	listener_next(&other);
	listener_stop(&other);
	assert_int_equal(close(fd), 0); /* it was still ours */
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_turns),
		TEST(test_not_let_in),
		TEST(test_no_descriptors),
		TEST(test_not_listening),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

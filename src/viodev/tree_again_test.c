/* SPDX-License-Identifier: BSD-2-Clause */
/* The thread that opens a shared directory again, without a jail. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/opener.h"
#include "viodev/tree_again.h"

#include <cmocka.h>

#define PATIENCE 500 /* times 10 ms */

static char dir[] = "/tmp/viodev-tree-XXXXXX";
static char share[64], other[64];
static struct opened_files files;
static struct tree_again *again;

static int setup(void **state)
{
	strcpy(strrchr(dir, '-'), "-XXXXXX");
	assert_non_null(mkdtemp(dir));
	snprintf(share, sizeof(share), "%s/share", dir);
	snprintf(other, sizeof(other), "%s/other", dir);
	assert_int_equal(mkdir(share, 0700), 0);
	assert_int_equal(mkdir(other, 0700), 0);
	return 0;
}

static int teardown(void **state)
{
	opened_files_close(&files);
	again = NULL;
	unlink(share);
	rmdir(share);
	rmdir(other);
	rmdir(dir);
	return 0;
}

static void start(const char *path)
{
	const struct sandbox_rights rights = { .tree = "root",
					       .tree_path = path };
	int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);

	assert_int_equal(opened_files_add(&files, "root", fd), 0);
	assert_int_equal(tree_again_start(&files, &rights, &again), 0);
}

/* Ask until there is an answer, at most @nr times. -EAGAIN: there is none. */
static int ask(int nr)
{
	int fds[OPENER_MAX_FDS], ret = -EAGAIN;

	for (int i = 0; i < nr && ret == -EAGAIN; i++) {
		ret = opener_take(&files, TREE_AGAIN_FILE, fds);
		usleep(10000);
	}
	return ret == 1 ? fds[0] : ret;
}

static bool is_same(int fd, const char *path)
{
	struct stat a, b;

	return fstat(fd, &a) == 0 && stat(path, &b) == 0 &&
	       a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

/* A guest that another tree is shared with may have put the link there. */
static void test_link(void **state)
{
	int fd;

	start(share);
	assert_int_equal(rmdir(share), 0);
	assert_int_equal(symlink(other, share), 0);
	assert_int_equal(ask(50), -EAGAIN);
	assert_int_equal(unlink(share), 0);
	assert_int_equal(mkdir(share, 0700), 0);
	fd = ask(PATIENCE);
	assert_true(is_same(fd, share));
	assert_true(is_same(opened_files_find(&files, "root"), share));
	close(fd);
}

/* A link that was there at the start is the user's. */
static void test_own_link(void **state)
{
	char link[80];
	int fd;

	snprintf(link, sizeof(link), "%s/link", dir);
	assert_int_equal(symlink(share, link), 0);
	start(link);
	assert_int_equal(unlink(link), 0);
	fd = ask(PATIENCE);
	assert_true(is_same(fd, share));
	close(fd);
}

/* By a descriptor of a removed directory, say. */
static void test_no_path(void **state)
{
	int fd = open(other, O_PATH | O_DIRECTORY | O_CLOEXEC);
	char path[32];

	assert_int_equal(rmdir(other), 0);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	start(path);
	assert_null(again);
	assert_int_equal(opened_files_find(&files, TREE_AGAIN_FILE), -1);
	close(fd);
}

/* A device that shuts its socket down ends the thread. */
static void test_shut_down(void **state)
{
	start(share);
	assert_int_equal(
		shutdown(opened_files_find(&files, TREE_AGAIN_FILE), SHUT_RDWR),
		0);
	usleep(200000);
	tree_again_set_process(again, getpid(), false);
	assert_int_equal(ask(3), -EAGAIN);
}

#define T(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_link),
		T(test_own_link),
		T(test_no_path),
		T(test_shut_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

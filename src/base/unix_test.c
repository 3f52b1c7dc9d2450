/* SPDX-License-Identifier: BSD-2-Clause */
/* UNIX sockets with a path: who owns it, and what is replaced. */
#include "base/unix.h"
#include "base/util.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[] = "/tmp/unix_test.XXXXXX", path[64];

static int setup(void **state)
{
	strcpy(strrchr(dir, '.'), ".XXXXXX");
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/s", dir);
	return 0;
}

static int teardown(void **state)
{
	unlink(path);
	return rmdir(dir);
}

static void test_address(void **state)
{
	struct sockaddr_un addr;
	char longest[sizeof(addr.sun_path) + 1];

	memset(longest, 'x', sizeof(longest));
	longest[sizeof(addr.sun_path)] = '\0';
	assert_int_equal(unix_address(longest, &addr), -ENAMETOOLONG);
	assert_int_equal(unix_listen(longest, 0), -ENAMETOOLONG);
	assert_int_equal(unix_connect(longest, 0), -ENAMETOOLONG);
	longest[sizeof(addr.sun_path) - 1] = '\0';
	assert_int_equal(unix_address(longest, &addr), 0);
	assert_string_equal(addr.sun_path, longest);
}

static void test_stream(void **state)
{
	int here = unix_listen(path, SOCK_NONBLOCK), there, peer;
	char c = 'a';

	assert_return_code(here, errno);
	assert_true(fcntl(here, F_GETFL) & O_NONBLOCK);
	assert_true(fcntl(here, F_GETFD) & FD_CLOEXEC);
	assert_int_equal(unix_listen(path, 0), -EADDRINUSE);
	/* Checking for a listener made no connection. */
	assert_int_equal(accept(here, NULL, NULL), -1);
	assert_int_equal(errno, EAGAIN);

	there = unix_connect(path, 0);
	assert_return_code(there, errno);
	assert_false(fcntl(there, F_GETFL) & O_NONBLOCK);
	peer = accept(here, NULL, NULL);
	assert_int_equal(write(there, &c, 1), 1);
	assert_int_equal(read(peer, &c, 1), 1);
	close(peer);
	close(there);
	close(here);
	assert_int_equal(unix_connect(path, 0), -ECONNREFUSED);
}

/* What exists already: whether it is replaced. */
static void test_bind(void **state)
{
	static const struct {
		const char *name;
		int type; /* of a socket; 0: a file, -1: a link */
		bool lives;
		int ret;
	} rows[] = {
		{ "live stream", SOCK_STREAM, true, -EADDRINUSE },
		{ "live datagram", SOCK_DGRAM, true, -EADDRINUSE },
		{ "stale stream", SOCK_STREAM, false, 0 },
		{ "stale datagram", SOCK_DGRAM, false, 0 },
		{ "file", 0, false, -EEXIST },
		{ "dangling link", -1, false, -EEXIST },
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		int old = -1, fd = socket(AF_UNIX, SOCK_DGRAM, 0);
		struct sockaddr_un addr;
		struct stat st;

		print_message("%s\n", rows[i].name);
		assert_int_equal(unix_address(path, &addr), 0);
		if (rows[i].type > 0) {
			old = socket(AF_UNIX, rows[i].type, 0);
			assert_int_equal(unix_bind(old, &addr), 0);
			if (!rows[i].lives)
				close(old);
		} else if (rows[i].type == 0) {
			close(creat(path, 0600));
		} else {
			assert_int_equal(symlink("nowhere", path), 0);
		}
		assert_int_equal(unix_bind(fd, &addr), rows[i].ret);
		assert_int_equal(lstat(path, &st), 0);
		assert_int_equal(S_ISSOCK(st.st_mode), rows[i].type > 0);
		close(fd);
		if (rows[i].lives)
			close(old);
		assert_int_equal(unlink(path), 0);
	}
}

/* A file that another process has put there stays. */
static void test_remove(void **state)
{
	int ours = unix_listen(path, 0), theirs;
	struct unix_name name = unix_name(path);
	struct stat st;

	assert_int_equal(unlink(path), 0);
	unix_remove(path, name);
	theirs = unix_listen(path, 0);
	assert_return_code(theirs, errno);
	unix_remove(path, name);
	assert_int_equal(lstat(path, &st), 0);
	unix_remove(path, unix_name(path));
	assert_int_equal(lstat(path, &st), -1);
	close(ours);
	close(theirs);
}

/*
 * --- Several at once ---
 */

#define NR_RACERS 3
#define NR_TRIES  1000

struct racer {
	pthread_barrier_t *start;
	pthread_t thread;
	int ret;
};

static void *race(void *arg)
{
	struct racer *racer = arg;

	pthread_barrier_wait(racer->start);
	racer->ret = unix_listen(path, SOCK_NONBLOCK);
	return NULL;
}

static void leave_stale(void)
{
	int fd = unix_listen(path, 0);

	assert_return_code(fd, errno);
	close(fd);
}

/* The number of listeners; all others got -EADDRINUSE. */
static int run_race(struct racer racers[])
{
	pthread_barrier_t start;
	int nr_won = 0;

	assert_int_equal(pthread_barrier_init(&start, NULL, NR_RACERS), 0);
	for (int i = 0; i < NR_RACERS; i++) {
		racers[i].start = &start;
		assert_int_equal(pthread_create(&racers[i].thread, NULL, race,
						&racers[i]),
				 0);
	}
	for (int i = 0; i < NR_RACERS; i++) {
		pthread_join(racers[i].thread, NULL);
		if (racers[i].ret >= 0)
			nr_won++;
		else
			assert_int_equal(racers[i].ret, -EADDRINUSE);
	}
	pthread_barrier_destroy(&start);
	return nr_won;
}

/* One stale socket: one racer gets it, and clients reach that one. */
static void test_race(void **state)
{
	struct racer racers[NR_RACERS];

	for (int try = 0; try < NR_TRIES; try++) {
		int client, peer = -1;

		leave_stale();
		assert_int_equal(run_race(racers), 1);
		client = unix_connect(path, 0);
		assert_return_code(client, -client);
		for (int i = 0; i < NR_RACERS; i++) {
			if (racers[i].ret < 0)
				continue;
			peer = accept(racers[i].ret, NULL, NULL);
			close(racers[i].ret);
		}
		assert_return_code(peer, errno);
		close(peer);
		close(client);
		assert_int_equal(unlink(path), 0);
	}
}

/* Whoever may read the directory may lock it, but blocks nobody for ever. */
static void test_locked(void **state)
{
	int lock = open(dir, O_RDONLY | O_DIRECTORY), fd;

	assert_int_equal(flock(lock, LOCK_EX), 0);
	leave_stale(); /* needs no lock: nothing was there */
	assert_int_equal(unix_listen(path, 0), -EBUSY);
	close(lock);
	fd = unix_listen(path, 0);
	assert_return_code(fd, errno);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_address, setup, teardown),
		cmocka_unit_test_setup_teardown(test_stream, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bind, setup, teardown),
		cmocka_unit_test_setup_teardown(test_remove, setup, teardown),
		cmocka_unit_test_setup_teardown(test_race, setup, teardown),
		cmocka_unit_test_setup_teardown(test_locked, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* Files of guest memory: mapped once, and unmapped when nobody uses them. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

#include <viodev/gmem.h>
#include <viodev/loop.h>

#include "serve/client.h"
#include "serve/ramfile.h"

#define PAGE UINT64_C(4096)
#define RW   (GM_READ | GM_WRITE)

static struct vio_loop *loop;
static struct client_wake wake;
static struct ramfiles files;
static int fd;

static void on_wake(void *arg)
{
}

static int new_file(uint64_t bytes)
{
	int file = memfd_create("ramfile_test", MFD_CLOEXEC);

	assert_true(file >= 0);
	assert_int_equal(ftruncate(file, (off_t)bytes), 0);
	return file;
}

static int setup(void **state)
{
	assert_int_equal(vio_loop_create(&loop), 0);
	assert_int_equal(client_wake_init(&wake, loop, on_wake, NULL), 0);
	files = (struct ramfiles){ 0 };
	assert_int_equal(ramfiles_init(&files, loop, &wake), 0);
	fd = new_file(64 * PAGE);
	return 0;
}

static int teardown(void **state)
{
	ramfiles_fini(&files);
	client_wake_fini(&wake);
	vio_loop_destroy(loop);
	close(fd);
	return 0;
}

/* Mappings of our files that this process has. */
static unsigned nr_mapped(void)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	char line[512];
	unsigned n = 0;

	assert_non_null(maps);
	while (fgets(line, sizeof(line), maps))
		n += strstr(line, "memfd:ramfile_test") != NULL;
	fclose(maps);
	return n;
}

static struct ram map(int file, uint64_t page, uint64_t nr, unsigned prot)
{
	struct ram ram;

	assert_int_equal(
		ram_map(&files, file, page * PAGE, nr * PAGE, prot, &ram), 0);
	return ram;
}

static void test_once(void **state)
{
	struct ram ram[64];
	char *base;

	for (unsigned i = 0; i < 64; i++) {
		ram[i] = map(fd, i, 1, RW);
		*(char *)ram[i].host = (char)i;
	}
	assert_int_equal(nr_mapped(), 1);
	base = ram[0].host;
	for (unsigned i = 0; i < 64; i++) {
		char byte;

		assert_ptr_equal(ram[i].host, base + i * PAGE);
		assert_int_equal(pread(fd, &byte, 1, (off_t)(i * PAGE)), 1);
		assert_int_equal(byte, i);
		ram_release(&files, &ram[i]);
	}
}

/* What is read-only cannot be written, whatever else is mapped. */
static void test_rights(void **state)
{
	struct ram both = map(fd, 0, 1, RW), one = map(fd, 0, 1, GM_READ);

	assert_ptr_not_equal(both.host, one.host);
	assert_int_equal(nr_mapped(), 2);
	ram_release(&files, &both);
	ram_release(&files, &one);
}

static void test_bounds(void **state)
{
	struct ram ram = map(fd, 0, 64, RW), none;

	assert_int_equal(ram_map(&files, fd, 64 * PAGE, PAGE, RW, &none),
			 -EINVAL);
	assert_int_equal(ram_map(&files, fd, 63 * PAGE, 2 * PAGE, RW, &none),
			 -EINVAL);
	assert_int_equal(nr_mapped(), 1);
	ram_release(&files, &ram);
}

/* A file that has grown is mapped again; existing mappings stay. */
static void test_grown(void **state)
{
	struct ram low = map(fd, 0, 1, RW), high;

	assert_int_equal(ftruncate(fd, (off_t)(128 * PAGE)), 0);
	high = map(fd, 100, 1, RW);
	*(char *)high.host = 7;
	assert_int_equal(nr_mapped(), 2);
	*(char *)low.host = 8;
	ram_release(&files, &low);
	ram_release(&files, &high);
}

/* A descriptor without the right does not get another one's mapping. */
static void test_descriptor(void **state)
{
	struct ram ram = map(fd, 0, 1, RW), none;
	char path[40];
	int ro;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	ro = open(path, O_RDONLY | O_CLOEXEC);
	assert_int_equal(ram_map(&files, ro, 0, PAGE, RW, &none), -EACCES);
	close(ro);
	ram_release(&files, &ram);
}

/* Unplugged memory is unmapped at once. */
static void test_unplugged(void **state)
{
	struct ram ram = map(fd, 0, 64, RW);

	ram_release(&files, &ram);
	assert_int_equal(nr_mapped(), 0);
}

/* A file larger than the address space: only the part is mapped. */
static void test_huge(void **state)
{
	struct rlimit old, limit;
	int huge = new_file(UINT64_C(1) << 50);
	struct ram ram;

	getrlimit(RLIMIT_AS, &old);
	limit = old;
	limit.rlim_cur = UINT64_C(40) << 40; /* a sanitizer has its own */
	setrlimit(RLIMIT_AS, &limit);
	ram = map(huge, 1 << 20, 1, RW);
	setrlimit(RLIMIT_AS, &old);
	*(char *)ram.host = 1;
	assert_int_equal(nr_mapped(), 1);
	ram_release(&files, &ram);
	close(huge);
}

/* The next request finds the file mapped; after a while it is unmapped. */
static void test_lingers(void **state)
{
	struct ram ram = map(fd, 0, 1, RW);
	void *host = ram.host;

	ram_release(&files, &ram);
	assert_null(ram.host);
	ram_release(&files, &ram); /* of nothing */
	ram = map(fd, 1, 1, RW);
	assert_ptr_equal(ram.host, (char *)host + PAGE);
	ram_release(&files, &ram);
	while (nr_mapped() > 0)
		vio_loop_iterate(loop, -1);
}

/* A file used again stays mapped, although the timer expires meanwhile. */
static void test_used_again(void **state)
{
	struct ram ram = map(fd, 0, 1, RW), other;
	int second = new_file(PAGE);

	ram_release(&files, &ram);
	other = map(second, 0, 1, RW);
	ram_release(&files, &other);
	ram = map(fd, 0, 1, RW);
	while (nr_mapped() > 1)
		vio_loop_iterate(loop, -1);
	*(char *)ram.host = 1;
	ram_release(&files, &ram);
	close(second);
}

/* A client that shows file after file keeps few of them alive. */
static void test_many_files(void **state)
{
	for (int i = 0; i < 100; i++) {
		int file = new_file(PAGE);
		struct ram ram = map(file, 0, 1, RW);

		close(file);
		ram_release(&files, &ram);
		assert_true(nr_mapped() <= 8);
	}
}

/* No mapping of a client is left, nor reaches the next. */
static void test_client_gone(void **state)
{
	struct ram idle = map(fd, 0, 1, RW), used, next;
	void *host;

	ram_release(&files, &idle);
	ramfiles_client_gone(&files);
	assert_int_equal(nr_mapped(), 0);
	used = map(fd, 0, 1, RW);
	host = used.host;
	client_disconnected(&wake);
	next = map(fd, 0, 1, RW);
	assert_ptr_not_equal(next.host, host);
	ram_release(&files, &used); /* its last request ended late */
	assert_int_equal(nr_mapped(), 1);
	ram_release(&files, &next);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_once),        TEST(test_rights),
		TEST(test_bounds),      TEST(test_grown),
		TEST(test_huge),        TEST(test_lingers),
		TEST(test_used_again),  TEST(test_many_files),
		TEST(test_client_gone), TEST(test_descriptor),
		TEST(test_unplugged),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

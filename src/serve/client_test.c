/* SPDX-License-Identifier: BSD-2-Clause */
/* What clients share is mapped, and nothing around it can be reached. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include <viodev/gmem.h>

#include "serve/client.h"

#define PAGE 4096u

static sigjmp_buf after_fault;

static void on_fault(int signo)
{
	siglongjmp(after_fault, 1);
}

/* Whether an access to @p ends in a fault. */
static bool faults(volatile char *p, bool write)
{
	struct sigaction sa = { .sa_handler = on_fault }, old;
	volatile bool faulted = true;

	sigaction(SIGSEGV, &sa, &old);
	if (sigsetjmp(after_fault, 1) == 0) {
		if (write)
			*p = 1;
		else
			(void)*p;
		faulted = false;
	}
	sigaction(SIGSEGV, &old, NULL);
	return faulted;
}

static int memfd(unsigned flags, off_t bytes)
{
	int fd = memfd_create("guest", MFD_CLOEXEC | flags);

	if (fd < 0 || ftruncate(fd, bytes) < 0)
		return -1;
	return fd;
}

static void expect_guards(const struct client_map *map, size_t size)
{
	char *p = map->host;

	assert_false(faults(p, true));
	assert_false(faults(p + size - 1, true));
	for (int write = 0; write < 2; write++) {
		assert_true(faults(p - 1, write));
		assert_true(faults(p - PAGE, write));
		assert_true(faults(p + size, write));
		assert_true(faults(p + size + PAGE - 1, write));
	}
}

/* Whatever else is mapped beside it: many of them have no neighbours. */
static void test_guards(void **state)
{
	static const size_t sizes[] = { PAGE, 3 * PAGE, 2u << 20, 5u << 20 };
	enum { NR = sizeof(sizes) / sizeof(sizes[0]) };
	struct client_map maps[2 * NR];
	int fd = memfd(0, 16 << 20);

	for (unsigned i = 0; i < 2 * NR; i++)
		assert_int_equal(client_mmap(fd, i * PAGE, sizes[i % NR],
					     GM_READ | GM_WRITE, &maps[i]),
				 0);
	for (unsigned i = 0; i < 2 * NR; i++)
		expect_guards(&maps[i], sizes[i % NR]);
	for (unsigned i = 0; i < 2 * NR; i++) {
		client_unmap(&maps[i]);
		client_unmap(&maps[i]); /* of one that is all 0 */
	}
	close(fd);
}

/* Pages that are huge anyway begin and end on their own boundaries. */
static void test_huge_guards(void **state)
{
	struct client_map map;
	int fd = memfd(MFD_HUGETLB, 4 << 20);

	if (fd < 0 || client_mmap(fd, 0, 4 << 20, GM_READ | GM_WRITE, &map) < 0)
		skip();
	expect_guards(&map, 4 << 20);
	client_unmap(&map);
	close(fd);
}

static unsigned nr_maps(void)
{
	char line[512];
	unsigned nr = 0;
	FILE *f = fopen("/proc/self/maps", "re");

	while (fgets(line, sizeof(line), f))
		nr += strstr(line, "memfd:guest") != NULL;
	fclose(f);
	return nr;
}

static void test_placed(void **state)
{
	struct client_map map;
	int fd = memfd(0, 8 << 20), ro;
	char path[64];

	/* As the file's own offset is, so that huge pages fit. */
	assert_int_equal(client_mmap(fd, PAGE, 4 << 20, GM_READ, &map), 0);
	assert_int_equal((uintptr_t)map.host % (2u << 20), PAGE);
	assert_true(faults(map.host, true)); /* only to be read */
	client_unmap(&map);

	/* A piece of a page, as a log is. */
	assert_int_equal(client_mmap(fd, 100, 50, GM_READ | GM_WRITE, &map), 0);
	assert_int_equal((uintptr_t)map.host % PAGE, 100);
	client_unmap(&map);

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	ro = open(path, O_RDONLY | O_CLOEXEC);
	assert_int_equal(client_mmap(ro, 0, PAGE, GM_READ | GM_WRITE, &map),
			 -EACCES);
	assert_int_equal(client_mmap(fd, 8 << 20, 1, GM_READ, &map), -EINVAL);
	assert_int_equal(nr_maps(), 0);
	close(ro);
	close(fd);
}

static void test_ram_is_pages(void **state)
{
	static const struct {
		uint64_t addr, offset, size;
		int ret;
	} rows[] = {
		{ 0, 0, PAGE, 0 },
		{ 0xfffff000, 8 * PAGE, 3 * PAGE, 0 },
		{ 1, 0, PAGE, -EINVAL },
		{ 2048, 2048, PAGE, -EINVAL },
		{ 0, 512, PAGE, -EINVAL },
		{ 0, 0, PAGE + 1, -EINVAL },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		assert_int_equal(client_check_ram(rows[i].addr, rows[i].offset,
						  rows[i].size),
				 rows[i].ret);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_guards),
		cmocka_unit_test(test_huge_guards),
		cmocka_unit_test(test_placed),
		cmocka_unit_test(test_ram_is_pages),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

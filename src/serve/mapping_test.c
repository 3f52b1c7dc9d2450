/* SPDX-License-Identifier: BSD-2-Clause */
/* What clients share is mapped, and nothing around it can be reached. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include <viodev/gmem.h>

#include <viodev/loop.h>

#include "base/util.h"
#include "serve/client.h"
#include "serve/mapping.h"
#include "emulated.h"

#define PAGE 4096u

static struct vio_loop *loop;
static struct client_wake wake;
static unsigned nr_faults; /* reported to the loop */

static void on_wake(void *arg)
{
	nr_faults += client_has_faulted(&wake);
}

static int setup(void **state)
{
	assert_int_equal(vio_loop_create(&loop), 0);
	assert_int_equal(client_wake_init(&wake, loop, on_wake, NULL), 0);
	nr_faults = 0;
	return 0;
}

static int teardown(void **state)
{
	client_wake_fini(&wake);
	client_wake_fini(&wake);
	vio_loop_destroy(loop);
	return 0;
}

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

static void expect_guards(const struct mapping *map, size_t size)
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

/* Whatever else is mapped: many mappings have no neighbours. */
static void test_guards(void **state)
{
	static const size_t sizes[] = { PAGE, 3 * PAGE, 2u << 20, 5u << 20 };
	enum { NR = ARRAY_LEN(sizes) };
	struct mapping maps[2 * NR];
	int fd = memfd(0, 16 << 20);

	for (unsigned i = 0; i < 2 * NR; i++)
		assert_int_equal(mapping_create(&wake, fd, i * PAGE,
						sizes[i % NR],
						GM_READ | GM_WRITE, &maps[i]),
				 0);
	for (unsigned i = 0; i < 2 * NR; i++)
		expect_guards(&maps[i], sizes[i % NR]);
	for (unsigned i = 0; i < 2 * NR; i++) {
		mapping_destroy(&maps[i]);
		mapping_destroy(&maps[i]); /* of one that is all 0 */
	}
	close(fd);
}

/* Files of huge pages begin and end on huge-page boundaries. */
static void test_huge_guards(void **state)
{
	struct mapping map;
	int fd = memfd(MFD_HUGETLB, 4 << 20);

	if (fd < 0 ||
	    mapping_create(&wake, fd, 0, 4 << 20, GM_READ | GM_WRITE, &map) < 0)
		skip();
	expect_guards(&map, 4 << 20);
	mapping_destroy(&map);
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
	struct mapping map;
	int fd = memfd(0, 8 << 20), ro;
	char path[64];

	/* Aligned like the offset in the file, so that huge pages fit. */
	assert_int_equal(
		mapping_create(&wake, fd, PAGE, 4 << 20, GM_READ, &map), 0);
	assert_int_equal((uintptr_t)map.host % (2u << 20), PAGE);
	assert_true(faults(map.host, true)); /* read-only */
	mapping_destroy(&map);

	/* A piece of a page, like a log. */
	assert_int_equal(
		mapping_create(&wake, fd, 100, 50, GM_READ | GM_WRITE, &map),
		0);
	assert_int_equal((uintptr_t)map.host % PAGE, 100);
	mapping_destroy(&map);

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	ro = open(path, O_RDONLY | O_CLOEXEC);
	assert_int_equal(
		mapping_create(&wake, ro, 0, PAGE, GM_READ | GM_WRITE, &map),
		-EACCES);
	assert_int_equal(mapping_create(&wake, fd, 8 << 20, 1, GM_READ, &map),
			 -EINVAL);
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

	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		assert_int_equal(mapping_check_ram(rows[i].addr, rows[i].offset,
						   rows[i].size),
				 rows[i].ret);
}

/*
 * --- Truncated files ---
 */

static void *touch(void *arg)
{
	volatile char *p = arg;

	p[0] = 1;
	return NULL;
}

/* In a thread like those of our pools, which get no signal but a fault. */
static void touch_in_thread(char *p)
{
	sigset_t all, old;
	pthread_t thread;

	sigfillset(&all);
	sigdelset(&all, SIGBUS);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	assert_int_equal(pthread_create(&thread, NULL, touch, p), 0);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pthread_join(thread, NULL);
}

static void test_truncated(void **state)
{
	struct mapping map, other;
	int fd = memfd(0, 4 * PAGE), fd2 = memfd(0, PAGE), pipes[2];
	char *p;

	SKIP_UNDER_QEMU("a signal handler does not survive SIGBUS");
	mapping_catch_faults(); /* cmocka does so as well */
	assert_int_equal(mapping_create(&wake, fd, 0, 4 * PAGE,
					GM_READ | GM_WRITE, &map),
			 0);
	assert_int_equal(mapping_create(&wake, fd2, 0, PAGE, GM_READ, &other),
			 0);
	p = map.host;
	memset(p, 'x', 4 * PAGE);
	assert_int_equal(ftruncate(fd, PAGE), 0);
	assert_int_equal(ftruncate(fd2, 0), 0);

	/* A system call fails; nobody is notified. */
	assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
	assert_int_equal(write(pipes[1], p + PAGE, 1), -1);
	assert_int_equal(errno, EFAULT);
	vio_loop_iterate(loop, 0);
	assert_int_equal(nr_faults, 0);

	p[3 * PAGE + 5] = 'y';
	assert_int_equal(p[3 * PAGE + 5], 'y');
	assert_int_equal(p[0], 0); /* all of it has been replaced */
	vio_loop_iterate(loop, 0);
	assert_int_equal(nr_faults, 1);
	expect_guards(&map, 4 * PAGE);

	/* The other mapping stays as it is: zeros, and read-only. */
	assert_int_equal(*(char *)other.host, 0);
	assert_true(faults(other.host, true));
	vio_loop_iterate(loop, 0);
	assert_int_equal(nr_faults, 2);
	mapping_destroy(&map);
	mapping_destroy(&other);
	close(pipes[0]);
	close(pipes[1]);
	close(fd);
	close(fd2);
}

static void test_truncated_thread(void **state)
{
	struct mapping map;
	int fd = memfd(0, PAGE);

	SKIP_UNDER_QEMU("a signal handler does not survive SIGBUS");
	mapping_catch_faults(); /* cmocka does so as well */
	assert_int_equal(
		mapping_create(&wake, fd, 0, PAGE, GM_READ | GM_WRITE, &map),
		0);
	assert_int_equal(ftruncate(fd, 0), 0);
	touch_in_thread(map.host);
	vio_loop_iterate(loop, 0);
	assert_int_equal(nr_faults, 1);
	mapping_destroy(&map);
	close(fd);
}

/* A fault in what a client left mapped does not affect the next client. */
static void test_truncated_later(void **state)
{
	struct mapping map;
	int fd = memfd(0, PAGE);

	SKIP_UNDER_QEMU("a signal handler does not survive SIGBUS");
	mapping_catch_faults(); /* cmocka does so as well */
	assert_int_equal(mapping_create(&wake, fd, 0, PAGE, GM_READ, &map), 0);
	client_disconnected(&wake);
	assert_int_equal(ftruncate(fd, 0), 0);
	assert_int_equal(*(volatile char *)map.host, 0);
	vio_loop_iterate(loop, 0);
	assert_int_equal(nr_faults, 0);
	mapping_destroy(&map);
	close(fd);
}

/* Bytes of this process that RLIMIT_DATA counts. */
static rlim_t data_bytes(void)
{
	char line[100];
	FILE *f = fopen("/proc/self/status", "re");
	unsigned long long kib = 0;

	while (fgets(line, sizeof(line), f) &&
	       sscanf(line, "VmData: %llu kB", &kib) != 1)
		;
	fclose(f);
	return kib << 10;
}

/* Its replacement is not counted as ours: our limit is below a guest's size. */
static void test_truncated_large(void **state)
{
	const size_t bytes = 256u << 20, spare = 64u << 20;
	struct rlimit limit, old;
	struct mapping map;
	int fd = memfd(0, bytes);
	void *p;

	SKIP_UNDER_QEMU("a signal handler does not survive SIGBUS");
	mapping_catch_faults(); /* cmocka does so as well */
	assert_int_equal(
		mapping_create(&wake, fd, 0, bytes, GM_READ | GM_WRITE, &map),
		0);
	assert_int_equal(ftruncate(fd, 0), 0);
	assert_int_equal(getrlimit(RLIMIT_DATA, &old), 0);
	limit = old;
	limit.rlim_cur = data_bytes() + spare;
	assert_int_equal(setrlimit(RLIMIT_DATA, &limit), 0);
	*(volatile char *)map.host = 1;
	p = mmap(NULL, spare / 2, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	setrlimit(RLIMIT_DATA, &old);
	assert_ptr_not_equal(p, MAP_FAILED);
	munmap(p, spare / 2);
	mapping_destroy(&map);
	close(fd);
}

/* Nor does a fault not yet reported when it arrives. */
static void test_truncated_last(void **state)
{
	struct mapping map;
	int fd = memfd(0, PAGE);

	SKIP_UNDER_QEMU("a signal handler does not survive SIGBUS");
	mapping_catch_faults(); /* cmocka does so as well */
	assert_int_equal(mapping_create(&wake, fd, 0, PAGE, GM_READ, &map), 0);
	assert_int_equal(ftruncate(fd, 0), 0);
	assert_int_equal(*(volatile char *)map.host, 0);
	client_disconnected(&wake);
	vio_loop_iterate(loop, 0);
	assert_int_equal(nr_faults, 0);
	mapping_destroy(&map);
	close(fd);
}

/* A client's memory has gone bad, without an access to it. */
static void tell_of_bad_memory(void)
{
	siginfo_t si = { .si_signo = SIGBUS, .si_code = BUS_MCEERR_AO };
	struct mapping map;
	int fd = memfd(0, PAGE);

	if (mapping_create(&wake, fd, 0, PAGE, GM_READ, &map) < 0)
		_exit(0);
	si.si_addr = map.host;
	syscall(SYS_rt_sigqueueinfo, getpid(), SIGBUS, &si);
}

/* Faults elsewhere, and mere signals, kill the process as usual. */
static void test_other_faults(void **state)
{
	for (int what = 0; what < 3; what++) {
		pid_t pid = fork();
		int status;

		if (pid == 0) {
			int fd = memfd(0, PAGE);
			volatile char *p =
				mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0);

			signal(SIGBUS, SIG_DFL); /* not cmocka's */
			mapping_catch_faults();
			if (what == 1)
				kill(getpid(), SIGBUS);
			else if (what == 2)
				tell_of_bad_memory();
			else if (ftruncate(fd, 0) == 0)
				(void)p[0];
			_exit(0);
		}
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFSIGNALED(status) || WEXITSTATUS(status) != 0);
	}
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_guards),          TEST(test_huge_guards),
		TEST(test_placed),          TEST(test_ram_is_pages),
		TEST(test_truncated),       TEST(test_truncated_thread),
		TEST(test_truncated_later), TEST(test_truncated_last),
		TEST(test_truncated_large), TEST(test_other_faults),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

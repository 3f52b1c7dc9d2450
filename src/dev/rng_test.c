/* SPDX-License-Identifier: BSD-2-Clause */
/* The entropy device, as a driver sees it: conformance chapter 11. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <viodev/device.h>
#include <viodev/loop.h>

#include "base/util.h"
#include "vdrv.h"

#define V1 VI_BIT(VIRTIO_F_VERSION_1)

static struct vdrv d;
static struct vio_loop *loop;
static struct vdev *dev;

static void start(enum vdrv_mode mode, const char *text)
{
	char why[256] = "";

	vdrv_init(&d, mode);
	if (vdev_new(text, &d.pi, loop, &dev, why, sizeof(why)) < 0)
		fail_msg("%s", why);
	assert_true(vdrv_start(&d, UINT64_MAX, 1));
}

static void stop(void)
{
	vdev_destroy(dev);
	vdrv_fini(&d);
	dev = NULL;
}

static int setup(void **state)
{
	return vio_loop_create(&loop);
}

static int teardown(void **state)
{
	if (dev)
		stop();
	vio_loop_destroy(loop);
	return 0;
}

static void iterate(int n)
{
	while (n--)
		vio_loop_iterate(loop, 5);
}

/* A modern device that reads @path; returns room in guest memory. */
static uint64_t start_source(const char *path)
{
	char text[128];

	snprintf(text, sizeof(text), "rng,source=%s", path);
	start(VDRV_MODERN, text);
	return vdrv_alloc(&d, 64, 1);
}

/* The driver wants @len bytes at @gpa. */
static void ask(uint64_t gpa, uint32_t len)
{
	vdrv_add(&d, 0, &(struct vdrv_buf){ gpa, len, VDRV_W }, 1);
	vdrv_kick(&d, 0);
}

/* Wait at most @ms for the next used entry. */
static bool wait_used(struct vdrv_used *used, int ms)
{
	uint64_t end = vio_now_ns() + (uint64_t)ms * 1000000;

	while (!vdrv_used(&d, 0, used)) {
		if (vio_now_ns() >= end)
			return false;
		vio_loop_iterate(loop, 5);
	}
	return true;
}

static unsigned nr_changed(const uint8_t *p, size_t len)
{
	unsigned n = 0;

	for (size_t i = 0; i < len; i++)
		n += p[i] != 0xaa;
	return n;
}

/*
 * RNG-01, RNG-02: bytes arrive, contiguous over all writable buffers, as many
 * as the used length says. RNG-04: readable buffers are unchanged. hostile S19,
 * S14, Q7: empty, long and readable chains. hostile K8, K1: none of it stops a
 * device.
 */
static void test_buffers(void **state)
{
	static const struct {
		const char *what;
		struct {
			uint32_t len;
			unsigned flags;
		} bufs[4];
		unsigned nr;
		uint32_t least, most; /* used length */
	} rows[] = {
		{ "one buffer", { { 16, VDRV_W } }, 1, 16, 16 },
		{ "one byte", { { 1, VDRV_W } }, 1, 1, 1 },
		{ "four buffers",
		  { { 1, VDRV_W },
		    { 3, VDRV_W },
		    { 100, VDRV_W },
		    { 5000, VDRV_W } },
		  4,
		  5104,
		  5104 },
		{ "readable first", { { 8, VDRV_R }, { 8, VDRV_W } }, 2, 8, 8 },
		{ "readable alone", { { 8, VDRV_R } }, 1, 0, 0 },
		{ "no bytes", { { 0, VDRV_W } }, 1, 0, 0 },
		{ "an empty one among others",
		  { { 0, VDRV_W }, { 9, VDRV_W }, { 0, VDRV_W } },
		  3,
		  9,
		  9 },
		/* F19: any request takes bounded time */
		{ "32 MiB", { { 32 << 20, VDRV_W } }, 1, 1, 65536 },
	};

	for (int mode = VDRV_MODERN; mode <= VDRV_LEGACY; mode++) {
		start((enum vdrv_mode)mode, "rng");
		for (size_t r = 0; r < ARRAY_LEN(rows); r++) {
			struct vdrv_buf bufs[4];
			struct vdrv_used used;
			uint32_t left;
			uint16_t head;

			print_message("%s\n", rows[r].what);
			for (unsigned i = 0; i < rows[r].nr; i++) {
				uint32_t len = rows[r].bufs[i].len;
				uint64_t gpa =
					VDRV_MEM_BASE + (16u << 20) + i * 8192u;

				bufs[i] = (struct vdrv_buf){
					gpa, len, rows[r].bufs[i].flags
				};
				memset(vdrv_ptr(&d, gpa, len), 0xaa, len);
			}
			head = vdrv_add(&d, 0, bufs, rows[r].nr);
			vdrv_kick(&d, 0);
			assert_true(wait_used(&used, 20000));
			assert_int_equal(used.id, head);
			assert_in_range(used.len, rows[r].least, rows[r].most);

			left = used.len;
			for (unsigned i = 0; i < rows[r].nr; i++) {
				uint32_t len = bufs[i].len, n = 0;
				uint8_t *p = vdrv_ptr(&d, bufs[i].gpa, len);

				if (bufs[i].flags & VDRV_W)
					n = left < len ? left : len;
				/* A random byte is 0xaa once in 256 times. */
				if (n >= 100)
					assert_true(nr_changed(p, n) > n / 2);
				assert_int_equal(nr_changed(p + n, len - n), 0);
				left -= n;
			}
		}
		stop();
	}
}

/* Many buffers for one kick, and chains as long as the ring. */
static void test_many(void **state)
{
	uint64_t gpa;

	start(VDRV_MODERN, "rng,queue-size=128");
	gpa = vdrv_alloc(&d, 4096, 1);
	for (int round = 0; round < 20; round++) {
		struct vdrv_used used;

		for (unsigned i = 0; i < 128; i++)
			vdrv_add(&d, 0,
				 &(struct vdrv_buf){ gpa + i, 8, VDRV_W }, 1);
		vdrv_kick(&d, 0);
		for (unsigned i = 0; i < 128; i++) {
			assert_true(wait_used(&used, 20000));
			assert_int_equal(used.len, 8);
		}
	}
}

/* RNG-03: with a dry source the buffer waits for more bytes. */
static void test_dry_source(void **state)
{
	char dir[] = "/tmp/rng_test.XXXXXX", path[64];
	uint64_t gpa;
	struct vdrv_used used;
	int fd;

	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/fifo", dir);
	assert_int_equal(mkfifo(path, 0600), 0);
	fd = open(path, O_RDWR | O_NONBLOCK);
	assert_true(fd >= 0);

	gpa = start_source(path);
	ask(gpa, 8);
	assert_false(wait_used(&used, 30));
	assert_int_equal(write(fd, "entro", 5), 5);
	assert_true(wait_used(&used, 20000));
	assert_int_equal(used.len, 5);
	assert_memory_equal(vdrv_ptr(&d, gpa, 5), "entro", 5);

	/* RNG-05: one that is pending at a reset is dropped. */
	memset(vdrv_ptr(&d, gpa, 64), 0xaa, 64);
	ask(gpa, 8);
	iterate(3);
	vdrv_reset(&d);
	assert_int_equal(write(fd, "later", 5), 5);
	iterate(5);
	assert_int_equal(nr_changed(vdrv_ptr(&d, gpa, 64), 64), 0);

	/* And bytes that have arrived serve the next driver. */
	assert_true(vdrv_start(&d, V1, 1));
	ask(gpa, 8);
	assert_true(wait_used(&used, 20000));
	assert_memory_equal(vdrv_ptr(&d, gpa, 5), "later", 5);
	close(fd);
	unlink(path);
	rmdir(dir);
}

/* While this is set, reads of files do not return. */
static bool stalled;

ssize_t read(int fd, void *p, size_t len)
{
	struct stat st;

	while (__atomic_load_n(&stalled, __ATOMIC_SEQ_CST) &&
	       fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
		usleep(1000);
	return syscall(SYS_read, fd, p, len);
}

static void set_stalled(bool on)
{
	__atomic_store_n(&stalled, on, __ATOMIC_SEQ_CST);
}

/*
 * A file whose disk does not answer blocks nothing, not even a reset. Its bytes
 * arrive once each, in order.
 */
static void test_slow_source(void **state)
{
	char path[] = "/tmp/rng_test.XXXXXX";
	int fd = mkstemp(path);
	struct vdrv_used used;
	uint64_t gpa;

	assert_int_equal(write(fd, "0123456789abcdef", 16), 16);
	set_stalled(true);
	gpa = start_source(path);
	ask(gpa, 8);
	assert_false(wait_used(&used, 30));
	vdrv_reset(&d);
	assert_true(vdrv_start(&d, V1, 1));
	ask(gpa, 8);
	assert_false(wait_used(&used, 30));
	set_stalled(false);
	assert_true(wait_used(&used, 20000));
	assert_int_equal(used.len, 8);
	assert_memory_equal(vdrv_ptr(&d, gpa, 8), "01234567", 8);
	ask(gpa, 16);
	assert_true(wait_used(&used, 20000));
	assert_int_equal(used.len, 8); /* what is left before its end */
	assert_memory_equal(vdrv_ptr(&d, gpa, 8), "89abcdef", 8);
	close(fd);
	unlink(path);
}

/* The process can end during the read. */
static void test_end_in_stall(void **state)
{
	char path[] = "/tmp/rng_test.XXXXXX";
	int fd = mkstemp(path);
	uint64_t gpa;

	set_stalled(true);
	gpa = start_source(path);
	ask(gpa, 8);
	iterate(2);
	stop();
	set_stalled(false);
	close(fd);
	unlink(path);
}

/*
 * hostile F19: a source that has ended is retried, without a busy loop; zero
 * bytes are not returned. Bytes appended later serve the request.
 */
static void test_ended_source(void **state)
{
	char path[] = "/tmp/rng_test.XXXXXX";
	int fd = mkstemp(path), nr_busy = 0;
	struct vdrv_used used;
	uint64_t gpa;

	gpa = start_source(path);
	ask(gpa, 8);
	assert_false(wait_used(&used, 300));
	for (int i = 0; i < 50; i++) {
		vdrv_kick(&d, 0); /* does not hurry it */
		nr_busy += vio_loop_iterate(loop, 2) > 0;
	}
	assert_in_range(nr_busy, 0, 10);
	assert_false(vdrv_status(&d) & VIRTIO_CONFIG_STATUS_NEEDS_RESET);
	assert_int_equal(write(fd, "appended", 8), 8);
	assert_true(wait_used(&used, 20000));
	assert_int_equal(used.len, 8);
	assert_memory_equal(vdrv_ptr(&d, gpa, 8), "appended", 8);

	/* A reset forgets it, and the next driver does not wait for long. */
	ask(gpa, 8);
	assert_false(wait_used(&used, 30));
	vdrv_reset(&d);
	assert_true(vdrv_start(&d, V1, 1));
	vdrv_add(&d, 0, &(struct vdrv_buf){ gpa, 8, VDRV_W }, 1);
	assert_int_equal(write(fd, "resetted", 8), 8);
	vdrv_kick(&d, 0);
	assert_true(wait_used(&used, 20000));
	assert_memory_equal(vdrv_ptr(&d, gpa, 8), "resetted", 8);
	close(fd);
	unlink(path);
}

/* A pipe without a writer has not ended: the next one is waited for. */
static void test_no_writer(void **state)
{
	char dir[] = "/tmp/rng_test.XXXXXX", path[64];
	struct vdrv_used used;
	uint64_t gpa;
	int fd;

	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/fifo", dir);
	assert_int_equal(mkfifo(path, 0600), 0);
	gpa = start_source(path);
	for (int i = 0; i < 2; i++) {
		ask(gpa, 8);
		assert_false(wait_used(&used, 30));
		fd = open(path, O_WRONLY);
		assert_int_equal(write(fd, "a writer", 8), 8);
		assert_true(wait_used(&used, 20000));
		assert_memory_equal(vdrv_ptr(&d, gpa, 8), "a writer", 8);
		close(fd);
	}
	unlink(path);
	rmdir(dir);
}

/* TRAP-15; rate=: the bytes per time are bounded, and all arrive in the end. */
static void test_rate(void **state)
{
	struct vdrv_used used;
	uint64_t begin, gpa;
	uint32_t sum = 0;

	start(VDRV_MODERN, "rng,rate=10000");
	gpa = vdrv_alloc(&d, 4096, 1);
	begin = vio_now_ns();
	while (sum < 3000) {
		ask(gpa, 500);
		assert_true(wait_used(&used, 20000));
		assert_in_range(used.len, 1, 500);
		sum += used.len;
	}
	/* 3000 bytes, the first 1000 of them at once: at least 0.2 s. */
	assert_true(vio_now_ns() - begin > 190000000ull);
}

/* hostile K6, K7, S20: there is no configuration; its accesses are harmless. */
static void test_no_config(void **state)
{
	start(VDRV_LEGACY, "rng");
	for (unsigned off = 20; off < 32; off++) {
		for (int size = 1; size <= 4; size *= 2) {
			vdrv_legacy_write(&d, off, size, 0xffffffff);
			vdrv_legacy_read(&d, off, size);
		}
	}
	assert_int_equal(vdrv_status(&d) & VIRTIO_CONFIG_STATUS_DRIVER_OK,
			 VIRTIO_CONFIG_STATUS_DRIVER_OK);
}

/* Invalid options: one line that names key, value and reason. */
static void test_options(void **state)
{
	static const struct {
		const char *text, *why;
	} rows[] = {
		{ "rng,source=/nonexistent", "source=/nonexistent: No such" },
		{ "rng,rate=fast", "rate=fast" },
		{ "rng,sauce=x", "did you mean 'source'" },
		{ "rng,queue-size=100", "power of two" },
		{ "rgn", "no such device type" },
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		char why[256] = "";

		vdrv_init(&d, VDRV_MODERN);
		assert_true(vdev_new(rows[i].text, &d.pi, loop, &dev, why,
				     sizeof(why)) < 0);
		if (!strstr(why, rows[i].why))
			fail_msg("%s: %s", rows[i].text, why);
		vdrv_fini(&d);
	}
}

#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_buffers),     T(test_many),         T(test_dry_source),
		T(test_slow_source), T(test_end_in_stall), T(test_ended_source),
		T(test_no_writer),   T(test_rate),         T(test_no_config),
		T(test_options),
	};

	return cmocka_run_group_tests_name("rng", tests, NULL, NULL);
}

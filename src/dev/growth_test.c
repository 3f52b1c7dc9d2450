/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The host memory that a guest can use by setting up all queues of a device at
 * their maximum size, filled with chains of many buffers: at most 4 MiB for
 * each type. See SECURITY.md. Requests that hang are in the tests of block,
 * scsi and 9p.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include <viodev/device.h>
#include <viodev/loop.h>

#include "emulated.h"
#include "process.h"
#include "vdrv.h"

#define PIECES 16u
#ifdef __SANITIZE_ADDRESS__
#define MAX_GROWTH (16l << 20) /* with the sanitizer's own overhead */
#else
#define MAX_GROWTH (4l << 20)
#endif

static char dir[] = "/tmp/growth_test.XXXXXX";
static struct vdrv d;

/* Direction of a queue's buffers. */
enum shape { BOTH, WRITABLE, BY_TURNS /* even: writable, odd: readable */ };

static void fill(unsigned q, enum shape shape, uint64_t gpa)
{
	bool writable = shape == WRITABLE || (shape == BY_TURNS && q % 2 == 0);
	struct vdrv_buf bufs[1 + PIECES] = {
		{ gpa, 64, writable ? VDRV_W : VDRV_R },
	};

	for (unsigned i = 0; i < PIECES; i++)
		bufs[1 + i] =
			(struct vdrv_buf){ gpa + 64 + 32 * i, 32,
					   writable || shape == BOTH ? VDRV_W :
								       VDRV_R };
	for (unsigned i = 0; i < d.q[q].size; i++)
		vdrv_add_indirect(&d, q, bufs, 1 + PIECES);
}

/* In its own process: 0, or which step failed. */
static int grow(const char *text, unsigned nr_queues, enum shape shape)
{
	struct vio_loop *loop;
	struct vdev *dev;
	char why[256];
	uint64_t gpa;
	size_t before;
	long growth;

	vdrv_init(&d, VDRV_MODERN);
	if (vio_loop_create(&loop) < 0 ||
	    vdev_new(text, &d.pi, loop, &dev, why, sizeof(why)) < 0)
		return 91;
	memset(d.mem, 0, VDRV_MEM_BYTES); /* resident from here on */
	before = process_resident();
	if (!vdrv_start(&d, UINT64_MAX, nr_queues))
		return 92;
	gpa = vdrv_alloc(&d, 64 + 32 * PIECES, 8);
	for (unsigned q = 0; q < nr_queues; q++)
		fill(q, shape, gpa);
	for (unsigned q = 0; q < nr_queues; q++)
		vdrv_kick(&d, q);
	for (unsigned i = 0; i < 20; i++)
		vio_loop_iterate(loop, 5);
	growth = (long)(process_resident() - before);
	printf("%s: %ld KiB\n", text, growth / 1024);
	fflush(stdout);
	if (vdrv_status(&d) & VIRTIO_CONFIG_STATUS_NEEDS_RESET)
		return 93;
	return growth > MAX_GROWTH;
}

static void test_growth(void **state)
{
	static const struct {
		const char *text,
			*more; /* between them the directory, or NULL */
		unsigned nr_queues;
		enum shape shape;
	} rows[] = {
		{ "rng,rate=1,queue-size=1024", NULL, 1, WRITABLE },
		{ "input,kind=keyboard,queue-size=1024", NULL, 2, BY_TURNS },
		{ "net,backend=null,queue-size=1024", NULL, 2, BY_TURNS },
		{ "net,backend=null,queues=16,queue-size=1024", NULL, 32,
		  BY_TURNS },
		{ "console,console=unix:", "/c,queue-size=1024", 2, BY_TURNS },
		{ "console,ports=8,queue-size=1024", NULL, 18, BY_TURNS },
		{ "9p,path=", ",tag=t,queue-size=1024", 1, BOTH },
		{ "block,path=", "/disk,queue-size=1024", 1, BOTH },
		{ "block,path=", "/disk,queues=16,queue-size=1024", 16, BOTH },
		{ "scsi,lun0=", "/disk,queue-size=1024", 3, BOTH },
		{ "scsi,lun0=", "/disk,queues=16,queue-size=1024", 18, BOTH },
	};

	SKIP_UNDER_QEMU("its own memory grows as well");
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		char text[128];
		int status;
		pid_t pid;

		snprintf(text, sizeof(text), "%s%s%s", rows[i].text,
			 rows[i].more ? dir : "",
			 rows[i].more ? rows[i].more : "");
		pid = fork();
		if (pid == 0)
			_exit(grow(text, rows[i].nr_queues, rows[i].shape));
		assert_int_equal(waitpid(pid, &status, 0), pid);
		if (status != 0)
			fail_msg("%s: %#x", text, (unsigned)status);
	}
}

static int setup(void **state)
{
	char path[64];
	int fd;

	if (!mkdtemp(dir))
		return -1;
	snprintf(path, sizeof(path), "%s/disk", dir);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	return fd < 0 || ftruncate(fd, 1 << 20) < 0 || close(fd) < 0;
}

static int teardown(void **state)
{
	char path[64];

	snprintf(path, sizeof(path), "%s/disk", dir);
	unlink(path);
	snprintf(path, sizeof(path), "%s/c", dir);
	unlink(path);
	return rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_growth),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}

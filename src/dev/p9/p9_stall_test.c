/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The 9P device on a file system that stalls, and what must be on the disk.
 *
 * This file replaces the system calls that may wait: fsync() and fdatasync()
 * stop at a gate until the test opens it, as on a frozen file system, and calls
 * that the loop's thread must not make are noticed.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/util.h"
#include "p9_client.h"

#include <cmocka.h>

#define RDWR        2u
#define NR_THREADS  8u /* of the device, for changes; and as many for others */
#define DSYNC       010000u
#define SYNC        04000000u
#define NEEDS_RESET VIRTIO_CONFIG_STATUS_NEEDS_RESET

static struct p9c c;

/*
 * --- System calls ---
 */

static struct gate {
	pthread_mutex_t lock;
	pthread_cond_t opened;
	bool closed;
	unsigned nr_waiting;

	unsigned nr_fsync, nr_fdatasync;
	ino_t ino;                        /* of the last one */
	int err;                          /* that they fail with */
	unsigned nr_on_loop;              /* slow calls of the loop's thread */
	unsigned nr_threads, max_threads; /* created */
	unsigned slow_close_us, nr_slow_closes; /* of deleted files */
} gate = { .lock = PTHREAD_MUTEX_INITIALIZER,
	   .opened = PTHREAD_COND_INITIALIZER };

static void gate_set(bool closed)
{
	pthread_mutex_lock(&gate.lock);
	gate.closed = closed;
	pthread_cond_broadcast(&gate.opened);
	pthread_mutex_unlock(&gate.lock);
}

static unsigned gate_waiting(void)
{
	unsigned nr;

	pthread_mutex_lock(&gate.lock);
	nr = gate.nr_waiting;
	pthread_mutex_unlock(&gate.lock);
	return nr;
}

static bool on_loop(void)
{
	return syscall(SYS_gettid) == getpid();
}

static int sync_file(int fd, unsigned *nr)
{
	struct stat st;
	int err;

	fstat(fd, &st);
	pthread_mutex_lock(&gate.lock);
	gate.nr_on_loop += on_loop();
	gate.nr_waiting++;
	while (gate.closed)
		pthread_cond_wait(&gate.opened, &gate.lock);
	gate.nr_waiting--;
	gate.ino = st.st_ino;
	(*nr)++;
	err = gate.err;
	pthread_mutex_unlock(&gate.lock);
	errno = err;
	return err ? -1 : 0;
}

int fsync(int fd)
{
	return sync_file(fd, &gate.nr_fsync);
}

int fdatasync(int fd)
{
	return sync_file(fd, &gate.nr_fdatasync);
}

int fstatfs(int fd, struct statfs *st)
{
	pthread_mutex_lock(&gate.lock);
	gate.nr_waiting++;
	while (gate.closed)
		pthread_cond_wait(&gate.opened, &gate.lock);
	gate.nr_waiting--;
	pthread_mutex_unlock(&gate.lock);
	return (int)syscall(SYS_fstatfs, fd, st);
}

/* The pools keep their initial threads, except in more_threads(). */
int pthread_create(pthread_t *thread, const pthread_attr_t *attr,
		   void *(*fn)(void *), void *arg)
{
	static int (*real)(pthread_t *, const pthread_attr_t *,
			   void *(*)(void *), void *);

	if (!real)
		real = dlsym(RTLD_NEXT, "pthread_create");
	if (gate.nr_threads >= gate.max_threads)
		return EAGAIN;
	__atomic_add_fetch(&gate.nr_threads, 1, __ATOMIC_RELAXED);
	return real(thread, attr, fn, arg);
}

ssize_t pwritev(int fd, const struct iovec *iov, int niov, off_t off)
{
	gate.nr_on_loop += on_loop();
	return syscall(SYS_pwritev, fd, iov, niov, off, 0);
}

/* The last close of a deleted file frees its blocks. */
int close(int fd)
{
	struct stat st;

	if (fstat(fd, &st) == 0 && st.st_nlink == 0 &&
	    (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode))) {
		gate.nr_on_loop += on_loop();
		if (gate.slow_close_us) {
			usleep(gate.slow_close_us);
			gate.nr_slow_closes++;
		}
	}
	return (int)syscall(SYS_close, fd);
}

/*
 * --- Helpers ---
 */

static int setup(void **state)
{
	gate.nr_fsync = gate.nr_fdatasync = gate.nr_on_loop = 0;
	gate.nr_threads = 0;
	gate.max_threads = 2 * NR_THREADS;
	gate.slow_close_us = gate.nr_slow_closes = 0;
	gate.err = 0;
	return 0;
}

static int teardown(void **state)
{
	gate_set(false);
	p9c_destroy(&c);
	return 0;
}

static void start(const char *options)
{
	gate.nr_threads = 0;
	p9c_start(&c, VDRV_MODERN, options);
	assert_int_equal(p9c_make(&c, 1, "f"), 0);
}

/*
 * Occupy all threads for such a request: Tfsync, or Tstatfs for those that
 * change nothing. Uses the slots from 0 on.
 */
static void stall_with(uint8_t type)
{
	gate_set(true);
	for (unsigned i = 0; i < NR_THREADS; i++)
		assert_int_equal(
			p9c_send(&c, (uint16_t)(100 + i), type, "dd", 1, 0), i);
	vdrv_kick(&c.d, 0);
	while (gate_waiting() < NR_THREADS)
		p9c_iterate(&c, 1);
}

static void stall(void)
{
	stall_with(P9_TFSYNC);
}

static bool is_untouched(unsigned slot)
{
	const uint8_t *p = vdrv_ptr(&c.d, c.slots[slot].r_gpa, P9C_BYTES);

	for (unsigned i = 0; i < P9C_BYTES; i++) {
		if (p[i] != 0xee)
			return false;
	}
	return true;
}

static void forget_slots(void)
{
	for (unsigned i = 0; i < P9C_SLOTS; i++)
		c.slots[i].busy = false;
}

static void poll_status(void)
{
	struct json_object *status = json_object_new_object();

	vdev_status(c.dev, status);
	json_object_put(status);
}

/*
 * --- Resets and stops ---
 */

/*
 * A reset in a stall returns at once. Requests not begun by a thread never
 * begin; the others keep the status from reading 0, and write no reply.
 */
static void reset_in_stall(void **state)
{
	unsigned queued[8], f;

	start("");
	stall();
	for (unsigned i = 0; i < ARRAY_LEN(queued); i++)
		queued[i] = p9c_send(&c, (uint16_t)(200 + i), P9_TFSYNC, "dd",
				     1, 0);
	f = p9c_send(&c, 300, P9_TFLUSH, "w", 100);
	vdrv_kick(&c.d, 0);
	p9c_iterate(&c, 5);
	vdrv_reset_now(&c.d);
	for (int i = 0; i < 20; i++) {
		p9c_iterate(&c, 1);
		assert_int_not_equal(vdrv_status(&c.d), 0);
		poll_status();
	}
	assert_int_equal(gate_waiting(), NR_THREADS);
	gate_set(false);
	while (vdrv_status(&c.d) != 0)
		p9c_iterate(&c, 1);
	assert_int_equal(gate.nr_fsync, NR_THREADS);
	for (unsigned i = 0; i < NR_THREADS; i++)
		assert_true(is_untouched(i));
	for (unsigned i = 0; i < ARRAY_LEN(queued); i++)
		assert_true(is_untouched(queued[i]));
	assert_true(is_untouched(f));

	forget_slots();
	assert_true(vdrv_start(&c.d, ~0ull, 1));
	p9c_mount(&c, 8192);
	assert_int_equal(p9c_clunk(&c, 1), -EBADF);
}

/*
 * A legacy driver does not wait for the reset, and may reset again: it is
 * alive at once, and its first request begins when the last old one has ended.
 */
static void new_session_waits(void **state)
{
	unsigned old, v;

	p9c_start(&c, VDRV_LEGACY, "");
	assert_int_equal(p9c_make(&c, 1, "f"), 0);
	stall();
	for (int i = 0; i < 3; i++) {
		vdrv_reset_now(&c.d);
		forget_slots();
		assert_true(vdrv_start(&c.d, ~0ull, 1));
		/* The buffers of the chains in flight, and their heads. */
		for (unsigned j = 0; j < NR_THREADS; j++)
			c.slots[j].busy = true;
		c.d.q[0].free_head = 64;
		old = p9c_send(&c, 1, P9_TCLUNK, "d", 1);
		v = p9c_send(&c, P9_NOTAG, P9_TVERSION, "ds", 8192, "9P2000.L");
		vdrv_kick(&c.d, 0);
		p9c_iterate(&c, 20);
		p9c_poll(&c);
		assert_true(c.slots[old].busy);
		assert_true(c.slots[v].busy);
	}
	gate_set(false);
	assert_int_equal(p9c_wait(&c, old), -EPROTO);
	assert_int_equal(p9c_wait(&c, v), 0);
	assert_int_equal(gate.nr_fsync, NR_THREADS);
	for (unsigned i = 0; i < NR_THREADS; i++)
		assert_true(is_untouched(i));
	forget_slots();
	p9c_mount(&c, 8192);
	assert_int_equal(p9c_clunk(&c, 1), -EBADF);
}

/* A stop waits for requests in flight, and does not block. */
static void stop_in_stall(void **state)
{
	start("");
	stall();
	pci_quiesce(&c.d.pi);
	for (int i = 0; i < 20; i++) {
		p9c_iterate(&c, 1);
		assert_false(pci_is_idle(&c.d.pi));
		poll_status();
	}
	gate_set(false);
	while (!pci_is_idle(&c.d.pi))
		p9c_iterate(&c, 1);
	p9c_poll(&c);
	for (unsigned i = 0; i < NR_THREADS; i++) {
		assert_false(c.slots[i].busy);
		assert_int_equal(c.slots[i].used, P9_HEADER);
	}
}

static int nr_waiting_for_locks(void)
{
	struct json_object *status = json_object_new_object(), *nr;
	int waiting;

	vdev_status(c.dev, status);
	assert_true(
		json_object_object_get_ex(status, "waiting-for-locks", &nr));
	waiting = json_object_get_int(nr);
	json_object_put(status);
	return waiting;
}

/* A lock that a program on the host holds, and a guest that waits for it. */
static unsigned wait_for_lock(void)
{
	struct flock fl = { .l_type = F_WRLCK };
	int fd = open(p9c_path(&c, "f"), O_RDWR);
	unsigned slot;

	assert_int_equal(fcntl(fd, F_OFD_SETLK, &fl), 0); /* left open */
	slot = p9c_send(&c, 1, P9_TLOCK, "dbdqqds", 1, P9_LOCK_WRLCK,
			P9_LOCK_FLAGS_BLOCK, 0ull, 0ull, 7, "guest");
	vdrv_kick(&c.d, 0);
	while (nr_waiting_for_locks() == 0)
		p9c_iterate(&c, 1);
	assert_int_equal(p9c_call(&c, P9_TGETLOCK, "dbqqds", 1, P9_LOCK_UNLCK,
				  0ull, 0ull, 8, "guest"),
			 0);
	return slot;
}

/* A stop and a reset do not wait for a lock. */
static void locks_give_in(void **state)
{
	unsigned slot, i;

	start("");
	slot = wait_for_lock();
	for (i = 0; !pci_is_idle(&c.d.pi); i++) {
		assert_true(i < 5000);
		pci_quiesce(&c.d.pi);
		p9c_iterate(&c, 1);
	}
	p9c_poll(&c);
	assert_int_equal(p9c_wait(&c, slot), 0);
	assert_int_equal(p9_decode8(&c.in), P9_LOCK_BLOCKED);
	p9c_destroy(&c);

	start("");
	slot = wait_for_lock();
	vdrv_reset_now(&c.d);
	for (i = 0; vdrv_status(&c.d) != 0; i++) {
		assert_true(i < 5000);
		p9c_iterate(&c, 1);
	}
	assert_true(is_untouched(slot));
}

/* More calls than there are threads hang, and yet others are served. */
static void more_threads(void **state)
{
	gate.max_threads = 200;
	start("");
	gate_set(true);
	for (unsigned i = 0; i < 60; i++)
		p9c_send(&c, (uint16_t)(100 + i), P9_TFSYNC, "dd", 1, 0);
	vdrv_kick(&c.d, 0);
	while (gate_waiting() < 60)
		p9c_iterate(&c, 1);
	assert_int_equal(p9c_write(&c, 1, 0, "text", 4), 4);
	gate_set(false);
	for (unsigned i = 0; i < 60; i++)
		assert_int_equal(p9c_wait(&c, i), 0);
}

/* The process can end, and abandons the threads that hang. */
static void end_in_stall(void **state)
{
	start("");
	stall();
	p9c_send(&c, 1, P9_TFSYNC, "dd", 1, 0);
	vdrv_kick(&c.d, 0);
	p9c_destroy(&c);
	assert_int_equal(gate_waiting(), NR_THREADS);
	gate_set(false);
	while (gate_waiting() > 0)
		usleep(1000);
	assert_int_equal(gate.nr_fsync, NR_THREADS);
}

/*
 * Open files that the host has deleted are slow to close: the end waits for all
 * of them, as long as there is progress.
 */
static void end_in_slow_closes(void **state)
{
	enum { NR = 6 };

	start("");
	for (unsigned i = 0; i < NR; i++) {
		char name[] = { (char)('0' + i), '\0' };

		p9c_host_file(&c, name, "x");
		assert_int_equal(p9c_walk(&c, P9C_ROOT, 10 + i, name), 0);
		assert_int_equal(unlink(p9c_path(&c, name)), 0);
	}
	gate.slow_close_us = 400000;
	p9c_destroy(&c);
	assert_int_equal(gate.nr_slow_closes, NR);
	assert_int_equal(gate.nr_on_loop, 0);
}

/* All threads are stuck: requests served from kernel memory still work. */
static void others_go_on(void **state)
{
	struct p9c_attr a;

	start("");
	assert_int_equal(p9c_write(&c, 1, 0, "text", 4), 4);
	assert_int_equal(p9c_walk(&c, P9C_ROOT, 2, "f"), 0);
	assert_int_equal(p9c_getattr(&c, 2, &a), 0);
	stall();
	for (int i = 0; i < 100; i++) {
		assert_int_equal(p9c_walk(&c, P9C_ROOT, 3, "f"), 0);
		assert_int_equal(p9c_getattr(&c, 3, &a), 0);
		assert_int_equal(a.size, 4);
		assert_int_equal(p9c_clunk(&c, 3), 0);
	}
	/* And requests that may have to read from the disk. */
	assert_int_equal(p9c_call(&c, P9_TWALK, "ddw", P9C_ROOT, 3, 0), 0);
	assert_int_equal(p9c_open(&c, 3, 0), 0);
	assert_int_equal(p9c_call(&c, P9_TREADDIR, "dqd", 3, 0ull, 4000), 0);
	assert_int_equal(p9c_call(&c, P9_TREADLINK, "d", 2), -EINVAL);
	gate_set(false);
	for (unsigned i = 0; i < NR_THREADS; i++)
		assert_int_equal(p9c_wait(&c, i), 0);
}

/* Calls that may take long, or for ever, are made by the threads. */
static void loop_never_waits(void **state)
{
	start("");
	for (uint32_t i = 0; i < 20; i++) {
		char name[16];

		snprintf(name, sizeof(name), "x%u", i);
		p9c_host_file(&c, name, "some text");
		assert_int_equal(p9c_walk(&c, P9C_ROOT, 10, name), 0);
		assert_int_equal(p9c_open(&c, 10, i % 2 ? RDWR : 0), 0);
		assert_int_equal(p9c_walk(&c, P9C_ROOT, 11, name), 0);
		if (i % 2)
			assert_int_equal(p9c_write(&c, 10, 0, "T", 1), 1);
		assert_int_equal(p9c_read(&c, 10, 0, 100), 9);
		/* Deleted by the host: we cannot know until we look. */
		assert_int_equal(unlink(p9c_path(&c, name)), 0);
		assert_int_equal(p9c_clunk(&c, i % 3 ? 10 : 11), 0);
		assert_int_equal(p9c_clunk(&c, i % 3 ? 11 : 10), 0);
		/* And one that was replaced by another. */
		p9c_host_file(&c, "y", "old");
		assert_int_equal(p9c_walk(&c, P9C_ROOT, 12, "y"), 0);
		assert_int_equal(unlink(p9c_path(&c, "y")), 0);
		p9c_host_file(&c, "y", "new");
		assert_int_equal(p9c_walk(&c, P9C_ROOT, 13, "y"), 0);
		assert_int_equal(p9c_clunk(&c, 12), 0);
		assert_int_equal(p9c_clunk(&c, 13), 0);
	}
	assert_int_equal(p9c_call(&c, P9_TFSYNC, "dd", 1, 0), 0);
	p9c_iterate(&c, 5);
	vdrv_reset(&c.d);
	assert_int_equal(gate.nr_on_loop, 0);
}

/* Reads from memory take time as well: others get their turn in between. */
static void iteration_ends(void **state)
{
	enum { NR_READS = 63, LEN = P9C_BYTES - 64 };
	static uint8_t data[LEN];
	unsigned s[NR_READS], nr_busy = 0;

	start("");
	assert_int_equal(p9c_write(&c, 1, 0, data, LEN), LEN);
	assert_int_equal(p9c_read(&c, 1, 0, LEN), LEN);
	for (unsigned i = 0; i < NR_READS; i++)
		s[i] = p9c_send(&c, (uint16_t)i, P9_TREAD, "dqd", 1, 0ull, LEN);
	vdrv_kick(&c.d, 0);
	p9c_poll(&c);
	for (unsigned i = 0; i < NR_READS; i++)
		nr_busy += c.slots[s[i]].busy;
	assert_true(nr_busy > NR_READS / 4);
	for (unsigned i = 0; i < NR_READS; i++)
		assert_int_equal(p9c_wait(&c, s[i]), 0);
}

/*
 * --- After an error ---
 */

/* Requests queued when the queue breaks write nothing any more. */
static void nothing_after_error(void **state)
{
	unsigned s[8];

	start("");
	assert_int_equal(p9c_call(&c, P9_TWALK, "ddw", P9C_ROOT, 2, 0), 0);
	assert_int_equal(p9c_open(&c, 2, 0), 0);
	stall_with(P9_TSTATFS);
	for (unsigned i = 0; i < ARRAY_LEN(s); i++)
		s[i] = p9c_send(&c, (uint16_t)i, P9_TREADDIR, "dqd", 2, 0ull,
				4000);
	vdrv_kick(&c.d, 0);
	p9c_iterate(&c, 5);
	/* More buffers than a request may have. */
	c.r_cut = 1;
	c.room = 1024;
	p9c_send(&c, 1, P9_TGETATTR, "dq", 0, 0x7ffull);
	vdrv_kick(&c.d, 0);
	assert_true(vdrv_status(&c.d) & NEEDS_RESET);
	gate_set(false);
	while (gate_waiting() > 0)
		p9c_iterate(&c, 1);
	while (!pci_is_idle(&c.d.pi))
		p9c_iterate(&c, 1);
	for (unsigned i = 0; i < NR_THREADS; i++)
		assert_true(is_untouched(i));
	for (unsigned i = 0; i < ARRAY_LEN(s); i++)
		assert_true(is_untouched(s[i]));

	vdrv_reset(&c.d);
	forget_slots();
	c.r_cut = c.room = 0;
	assert_true(vdrv_start(&c.d, ~0ull, 1));
	p9c_mount(&c, 8192);
}

/*
 * --- Memory ---
 */

static long resident_kib(void)
{
	long size, pages = 0;
	FILE *f = fopen("/proc/self/statm", "r");

	assert_int_equal(fscanf(f, "%ld %ld", &size, &pages), 2);
	fclose(f);
	return pages * (sysconf(_SC_PAGESIZE) >> 10);
}

/* A guest fills a long queue with long chains, and none of them ends. */
static void full_queue(void **state)
{
	enum { LEN = 1024, PIECES = 1023 };
	static struct vdrv_buf bufs[PIECES + 1];
	uint64_t t_gpa, r_gpa;
	long before;

	start(",queue-size=1024");
	t_gpa = vdrv_alloc(&c.d, 64, 4096);
	r_gpa = vdrv_alloc(&c.d, 2 * PIECES, 4096);
	memset(vdrv_ptr(&c.d, r_gpa, 2 * PIECES), 0, 2 * PIECES);
	memcpy(vdrv_ptr(&c.d, t_gpa, 64),
	       "\x0f\0\0\0\x32\1\0" /* Tfsync */
	       "\1\0\0\0\0\0\0\0",
	       15);
	bufs[0] = (struct vdrv_buf){ t_gpa, 15, VDRV_R };
	for (unsigned i = 0; i < PIECES; i++)
		bufs[1 + i] = (struct vdrv_buf){ r_gpa + 2 * i, 1, VDRV_W };
	gate_set(true);
	for (unsigned i = 0; i < LEN; i++)
		vdrv_add_indirect(&c.d, 0, bufs, PIECES + 1);
	before = resident_kib();
	vdrv_kick(&c.d, 0);
	p9c_iterate(&c, 100);
	assert_true(gate_waiting() == NR_THREADS);
	print_message("grew by %ld KiB\n", resident_kib() - before);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
	assert_true(resident_kib() - before < 4096);
#endif
	gate_set(false);
	while (vdrv_used_ring_idx(&c.d, 0) == 0)
		p9c_iterate(&c, 1);
}

/*
 * --- What must be on the disk ---
 */

/* P9-17: an answer means that it was done, on that file, successfully. */
static void fsyncs(void **state)
{
	struct stat st;
	unsigned s;

	start("");
	assert_int_equal(stat(p9c_path(&c, "f"), &st), 0);
	assert_int_equal(p9c_write(&c, 1, 0, "text", 4), 4);
	assert_int_equal(p9c_call(&c, P9_TFSYNC, "dd", 1, 0), 0);
	assert_int_equal(gate.nr_fsync, 1);
	assert_int_equal(gate.nr_fdatasync, 0);
	assert_int_equal(gate.ino, st.st_ino);
	assert_int_equal(p9c_call(&c, P9_TFSYNC, "dd", 1, 1), 0);
	assert_int_equal(gate.nr_fsync, 1);
	assert_int_equal(gate.nr_fdatasync, 1);
	assert_int_equal(gate.ino, st.st_ino);

	/* A new name is stable when its directory is. */
	assert_int_equal(p9c_call(&c, P9_TWALK, "ddw", P9C_ROOT, 2, 0), 0);
	assert_int_equal(p9c_open(&c, 2, 0), 0);
	assert_int_equal(stat(c.root, &st), 0);
	assert_int_equal(p9c_call(&c, P9_TFSYNC, "dd", 2, 0), 0);
	assert_int_equal(gate.nr_fsync, 2);
	assert_int_equal(gate.ino, st.st_ino);

	/* Not before it is done. */
	gate_set(true);
	s = p9c_send(&c, 1, P9_TFSYNC, "dd", 1, 0);
	vdrv_kick(&c.d, 0);
	p9c_iterate(&c, 20);
	p9c_poll(&c);
	assert_true(c.slots[s].busy);
	gate_set(false);
	assert_int_equal(p9c_wait(&c, s), 0);

	/* Nor if it fails: each failed call is reported. */
	gate.err = EIO;
	assert_int_equal(p9c_call(&c, P9_TFSYNC, "dd", 1, 0), -EIO);
	assert_int_equal(p9c_call(&c, P9_TFSYNC, "dd", 1, 1), -EIO);
	gate.err = ENOSPC;
	assert_int_equal(p9c_call(&c, P9_TFSYNC, "dd", 2, 0), -ENOSPC);
	assert_int_equal(p9c_call(&c, P9_TFSYNC, "dd", P9C_ROOT, 0), -EBADF);
}

/* Flags of the open descriptor of a file in the export. */
static int flags_of(const char *name)
{
	struct stat file, st;

	assert_int_equal(stat(p9c_path(&c, name), &file), 0);
	for (int fd = 3; fd < 200; fd++) {
		int flags = fcntl(fd, F_GETFL);

		if (flags >= 0 && !(flags & O_PATH) && fstat(fd, &st) == 0 &&
		    st.st_ino == file.st_ino && st.st_dev == file.st_dev)
			return flags;
	}
	return -1;
}

/* Each write to a file opened like this is on the disk when it is answered. */
static void synchronous(void **state)
{
	static const struct {
		uint32_t guest;
		int host;
	} rows[] = {
		{ 0, 0 },
		{ DSYNC, O_DSYNC },
		{ SYNC, O_SYNC },
		{ SYNC | DSYNC, O_SYNC },
	};

	start("");
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		assert_int_equal(p9c_walk(&c, P9C_ROOT, 2, "f"), 0);
		assert_int_equal(p9c_clunk(&c, 1), 0);
		assert_int_equal(p9c_open(&c, 2, RDWR | rows[i].guest), 0);
		assert_int_equal(flags_of("f") & (O_SYNC | O_DSYNC),
				 rows[i].host);
		assert_int_equal(p9c_clunk(&c, 2), 0);

		assert_int_equal(p9c_call(&c, P9_TWALK, "ddw", P9C_ROOT, 2, 0),
				 0);
		assert_int_equal(p9c_call(&c, P9_TLCREATE, "dsddd", 2, "new",
					  RDWR | rows[i].guest, 0644, 0),
				 0);
		assert_int_equal(flags_of("new") & (O_SYNC | O_DSYNC),
				 rows[i].host);
		assert_int_equal(p9c_clunk(&c, 2), 0);
		assert_int_equal(unlink(p9c_path(&c, "new")), 0);
		assert_int_equal(p9c_walk(&c, P9C_ROOT, 1, "f"), 0);
	}
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(full_queue), /* before other tests use memory */
		T(reset_in_stall),
		T(new_session_waits),
		T(stop_in_stall),
		T(others_go_on),
		T(loop_never_waits),
		T(nothing_after_error),
		T(locks_give_in),
		T(iteration_ends),
		T(fsyncs),
		T(synchronous),
		T(more_threads),
		T(end_in_stall),
		T(end_in_slow_closes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

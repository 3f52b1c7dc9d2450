/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The 9P device on file systems that do not answer: one that is frozen
 * (fsfreeze(8)), ext4 on a loop device; and one below a local export that is
 * served by a process (FUSE), like a network server. In this test's own mount
 * namespace; needs root.
 */
#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <linux/fs.h>
#include <linux/fuse.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "p9_client.h"

#include <cmocka.h>

#define RDWR     2u
#define STUCK_MS 60000 /* of the loop, until the test gives up */

static struct p9c c;
static char dir[32];
static int mount_fd = -1, guard_fd = -1;

/*
 * --- The file system ---
 */

__attribute__((format(printf, 1, 2))) static int run(const char *fmt, ...)
{
	char text[256];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	return system(text);
}

/*
 * A thread that waits for the file system gets no signal. So another process
 * thaws when the test has finished, died, or hung, and reports which.
 */
static pid_t start_guard(void)
{
	int fds[2];
	pid_t pid;

	assert_int_equal(pipe(fds), 0);
	pid = fork();
	if (pid == 0) {
		struct pollfd pfd = { .fd = fds[0], .events = POLLIN };
		int n;

		setsid();
		close(fds[1]);
		n = poll(&pfd, 1, STUCK_MS);
		ioctl(mount_fd, FITHAW, 0);
		_exit(n == 1 && (pfd.revents & POLLIN) ? 0 : 1);
	}
	close(fds[0]);
	guard_fd = fds[1];
	return pid;
}

/* Whether the test finished in time. */
static bool end_guard(pid_t pid)
{
	int status;

	return write(guard_fd, "x", 1) == 1 &&
	       waitpid(pid, &status, 0) == pid && status == 0;
}

static int setup(void **state)
{
	strcpy(dir, "/tmp/p9-freeze-XXXXXX");
	if (geteuid() != 0 || !mkdtemp(dir) || unshare(CLONE_NEWNS) < 0 ||
	    mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("tmpfs", dir, "tmpfs", 0, NULL) < 0)
		return 0;
	if (run("cd %s && truncate -s 16M img && "
		"/sbin/mkfs.ext4 -q img >/dev/null 2>&1 && mkdir m && "
		"mount -o loop img m",
		dir) != 0)
		return 0;
	if (chdir(dir) < 0)
		return -1;
	mount_fd = open("m", O_RDONLY | O_DIRECTORY);
	return mount_fd < 0 ? -1 : 0;
}

static int teardown(void **state)
{
	if (mount_fd >= 0)
		ioctl(mount_fd, FITHAW, 0);
	p9c_destroy(&c);
	if (guard_fd >= 0)
		close(guard_fd);
	if (mount_fd >= 0)
		close(mount_fd);
	mount_fd = guard_fd = -1;
	while (wait(NULL) > 0)
		;
	if (chdir("/") == 0) {
		run("umount %s/m 2>/dev/null", dir);
		umount2(dir, MNT_DETACH);
		rmdir(dir);
	}
	return 0;
}

/*
 * --- The guest's requests during the freeze ---
 */

static void start(void)
{
	char tmp[64];

	snprintf(tmp, sizeof(tmp), "%s/m", dir);
	setenv("TMPDIR", tmp, 1);
	p9c_start(&c, VDRV_MODERN, "");
	unsetenv("TMPDIR");
	p9c_host_file(&c, "gone", "x");
	assert_int_equal(p9c_make(&c, 1, "f"), 0);
	assert_int_equal(p9c_write(&c, 1, 0, "text", 4), 4);
	assert_int_equal(p9c_walk(&c, P9C_ROOT, 2, "f"), 0);
	assert_int_equal(p9c_walk(&c, P9C_ROOT, 3, "gone"), 0);
	assert_int_equal(p9c_walk(&c, P9C_ROOT, 4, "gone"), 0);
	assert_int_equal(p9c_open(&c, 4, 0), 0);
	assert_int_equal(unlink(p9c_path(&c, "gone")), 0);
}

/* Send requests that need the disk, one of each kind. */
static unsigned send_all(unsigned *s)
{
	unsigned n = 0;

	s[n++] = p9c_send(&c, 1, P9_TCLUNK, "d", 3);
	s[n++] = p9c_send(&c, 2, P9_TCLUNK, "d", 4);
	s[n++] = p9c_send(&c, 3, P9_TWRITE, "dqdr", 1, 0ull, 4, (size_t)4,
			  "TEXT");
	s[n++] = p9c_send(&c, 4, P9_TMKDIR, "dsdd", 0, "d", 0755, 0);
	s[n++] = p9c_send(&c, 5, P9_TSETATTR, "dddddqqqqq", 2, 1, 0600, 0, 0,
			  0ull, 0ull, 0ull, 0ull, 0ull);
	s[n++] = p9c_send(&c, 6, P9_TFSYNC, "dd", 1, 0);
	s[n++] = p9c_send(&c, 7, P9_TSYMLINK, "dssd", 0, "l", "f", 0);
	for (unsigned i = 0; i < 12; i++)
		s[n++] = p9c_send(&c, (uint16_t)(8 + i), P9_TWRITE, "dqdr", 1,
				  0ull, 4, (size_t)4, "TEXT");
	vdrv_kick(&c.d, 0);
	return n;
}

static void frozen(void **state)
{
	struct json_object *status = json_object_new_object();
	unsigned s[32], n;
	struct p9c_attr a;
	pid_t guard;

	if (mount_fd < 0)
		skip();
	start();
	guard = start_guard();
	assert_int_equal(ioctl(mount_fd, FIFREEZE, 0), 0);
	n = send_all(s);
	p9c_iterate(&c, 20);
	/* What is in memory is served, and so is `viodev ctl`. */
	assert_int_equal(p9c_getattr(&c, 2, &a), 0);
	assert_int_equal(a.size, 4);
	assert_int_equal(p9c_walk(&c, P9C_ROOT, 5, "f"), 0);
	vdev_status(c.dev, status);
	json_object_put(status);
	/* The writes hang, as they should. */
	p9c_poll(&c);
	assert_true(c.slots[s[n - 1]].busy);

	vdrv_reset_now(&c.d);
	p9c_iterate(&c, 20);
	assert_int_not_equal(vdrv_status(&c.d), 0);
	assert_true(end_guard(guard));
	while (vdrv_status(&c.d) != 0)
		p9c_iterate(&c, 1);
	for (unsigned i = 0; i < P9C_SLOTS; i++)
		c.slots[i].busy = false;
	assert_true(vdrv_start(&c.d, ~0ull, 1));
	p9c_mount(&c, 8192);
	assert_int_equal(p9c_make(&c, 1, "new"), 0);
	assert_int_equal(p9c_call(&c, P9_TFSYNC, "dd", 1, 0), 0);
}

/*
 * --- A file system served by our own thread ---
 */

static struct fuse {
	int fd;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t opened;
	bool closed;  /* nothing is answered */
	bool gave_in; /* because the test is stuck */
} fuse = { .lock = PTHREAD_MUTEX_INITIALIZER,
	   .opened = PTHREAD_COND_INITIALIZER };

/* Returns whether the gate opened by itself. */
static bool fuse_gate(bool closed)
{
	bool gave_in;

	pthread_mutex_lock(&fuse.lock);
	fuse.closed = closed;
	gave_in = fuse.gave_in;
	pthread_cond_broadcast(&fuse.opened);
	pthread_mutex_unlock(&fuse.lock);
	return gave_in;
}

static void fuse_wait(void)
{
	struct timespec end;

	clock_gettime(CLOCK_REALTIME, &end);
	end.tv_sec += STUCK_MS / 1000;
	pthread_mutex_lock(&fuse.lock);
	while (fuse.closed) {
		if (pthread_cond_timedwait(&fuse.opened, &fuse.lock, &end)) {
			fuse.closed = false;
			fuse.gave_in = true;
		}
	}
	pthread_mutex_unlock(&fuse.lock);
}

static void fuse_reply(uint64_t unique, int err, const void *body, size_t len)
{
	struct fuse_out_header out = {
		.len = (uint32_t)(sizeof(out) + len),
		.error = -err,
		.unique = unique,
	};
	struct iovec iov[] = {
		{ &out, sizeof(out) },
		{ (void *)body, len },
	};

	if (writev(fuse.fd, iov, 2) < 0 && errno != ENOENT)
		perror("fuse");
}

static struct fuse_attr attr_of(uint64_t node)
{
	return (struct fuse_attr){
		.ino = node,
		.mode = node == 1 ? S_IFDIR | 0755 : S_IFREG | 0644,
		.nlink = 1,
		.size = 4,
	};
}

/* A directory with the single file "x". Nothing in it may be cached. */
static void fuse_answer(const struct fuse_in_header *in, const char *body)
{
	struct fuse_init_out init = { .major = 7,
				      .minor = 31,
				      .max_write = 4096 };
	struct fuse_attr_out attr = { .attr = attr_of(in->nodeid) };
	struct fuse_entry_out entry = { .nodeid = 2, .attr = attr_of(2) };
	struct fuse_open_out open_out = { .fh = 1 };

	switch (in->opcode) {
	case FUSE_INIT:
		fuse_reply(in->unique, 0, &init, sizeof(init));
		break;
	case FUSE_GETATTR:
		fuse_reply(in->unique, 0, &attr, sizeof(attr));
		break;
	case FUSE_LOOKUP:
		if (strcmp(body, "x") == 0)
			fuse_reply(in->unique, 0, &entry, sizeof(entry));
		else
			fuse_reply(in->unique, ENOENT, NULL, 0);
		break;
	case FUSE_OPEN:
		fuse_reply(in->unique, 0, &open_out, sizeof(open_out));
		break;
	case FUSE_FLUSH:
	case FUSE_RELEASE:
		fuse_reply(in->unique, 0, NULL, 0);
		break;
	case FUSE_FORGET:
	case FUSE_BATCH_FORGET:
		break;
	default:
		fuse_reply(in->unique, ENOSYS, NULL, 0);
		break;
	}
}

static void *fuse_serve(void *arg)
{
	static union {
		struct fuse_in_header header;
		char bytes[FUSE_MIN_READ_BUFFER];
	} in;

	while (read(fuse.fd, &in, sizeof(in)) >= (ssize_t)sizeof(in.header)) {
		fuse_wait();
		fuse_answer(&in.header, in.bytes + sizeof(in.header));
	}
	return NULL;
}

static bool fuse_mount(const char *path)
{
	char options[64];

	fuse.fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	snprintf(options, sizeof(options),
		 "fd=%d,rootmode=40000,user_id=0,group_id=0", fuse.fd);
	return fuse.fd >= 0 && mount("fuse", path, "fuse", 0, options) == 0 &&
	       pthread_create(&fuse.thread, NULL, fuse_serve, NULL) == 0;
}

/* A mount inside the export may be of any kind. */
static void no_answer(void **state)
{
	unsigned s[5];
	struct p9c_attr a;

	if (mount_fd < 0)
		skip();
	start();
	assert_int_equal(mkdir(p9c_path(&c, "net"), 0755), 0);
	if (!fuse_mount(p9c_path(&c, "net")))
		skip();
	assert_int_equal(p9c_walk(&c, P9C_ROOT, 10, "net"), 0);
	assert_int_equal(p9c_walk(&c, 10, 11, "x"), 0);
	/* One to read, and one to clunk: both at once, in any order. */
	for (uint32_t fid = 12; fid <= 15; fid += 3) {
		assert_int_equal(p9c_walk(&c, 10, fid, "x"), 0);
		assert_int_equal(p9c_open(&c, fid, 0), 0);
	}
	fuse_gate(true);
	s[0] = p9c_send(&c, 1, P9_TGETATTR, "dq", 11, P9C_ALL);
	s[1] = p9c_send(&c, 2, P9_TREAD, "dqd", 12, 0ull, 4);
	s[2] = p9c_send(&c, 3, P9_TWALK, "ddws", 10, 13, 1, "x");
	s[3] = p9c_send(&c, 4, P9_TWALK, "ddws", P9C_ROOT, 14, 1, "net");
	s[4] = p9c_send(&c, 5, P9_TCLUNK, "d", 15);
	vdrv_kick(&c.d, 0);
	p9c_iterate(&c, 20);
	for (int i = 0; i < 20; i++)
		assert_int_equal(p9c_getattr(&c, 2, &a), 0);
	p9c_poll(&c);
	for (int i = 0; i < 4; i++)
		assert_true(c.slots[s[i]].busy);
	vdrv_reset_now(&c.d);
	p9c_iterate(&c, 20);
	assert_int_not_equal(vdrv_status(&c.d), 0);
	assert_false(fuse_gate(false));
	while (vdrv_status(&c.d) != 0)
		p9c_iterate(&c, 1);
	for (unsigned i = 0; i < P9C_SLOTS; i++)
		c.slots[i].busy = false;
	assert_true(vdrv_start(&c.d, ~0ull, 1));
	p9c_mount(&c, 8192);
	assert_int_equal(p9c_getattr(&c, P9C_ROOT, &a), 0);
	vdrv_reset(&c.d);
	p9c_iterate(&c, 20);
	umount2(p9c_path(&c, "net"), MNT_DETACH);
	close(fuse.fd);
	pthread_join(fuse.thread, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(frozen, setup, teardown),
		cmocka_unit_test_setup_teardown(no_answer, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The 9P device on a file system that is frozen (fsfreeze(8)): ext4 on a loop
 * device, in a mount namespace of this test's own. Needs root.
 */
#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <linux/fs.h>
#include <poll.h>
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

#include "dev/p9/p9_client.h"

#include <cmocka.h>

#define RDWR     2u
#define STUCK_MS 60000 /* of the loop, until the test gives in */

static struct p9c c;
static char dir[] = "/tmp/p9-freeze-XXXXXX";
static int mount_fd = -1, guard_fd = -1;

/*
 * --- The file system ---
 */

static int run(const char *fmt, ...)
{
	char text[256];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	return system(text);
}

/*
 * A thread that waits for the file system hears no signal. So another process
 * thaws when the test is through, or dead, or stuck, and says which.
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

/* Whether the test was through in time. */
static bool end_guard(pid_t pid)
{
	int status;

	return write(guard_fd, "x", 1) == 1 &&
	       waitpid(pid, &status, 0) == pid && status == 0;
}

static int setup(void **state)
{
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
 * --- What a guest does meanwhile ---
 */

static void turns(unsigned nr)
{
	for (unsigned i = 0; i < nr; i++)
		ev_loop_turn(c.loop, 1);
	vdrv_wake(&c.d);
}

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

/* Send what needs the disk, each of another kind. */
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
	turns(20);
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
	turns(20);
	assert_int_not_equal(vdrv_status(&c.d), 0);
	assert_true(end_guard(guard));
	while (vdrv_status(&c.d) != 0)
		turns(1);
	for (unsigned i = 0; i < P9C_SLOTS; i++)
		c.slots[i].busy = false;
	assert_true(vdrv_start(&c.d, ~0ull, 1));
	p9c_mount(&c, 8192);
	assert_int_equal(p9c_make(&c, 1, "new"), 0);
	assert_int_equal(p9c_call(&c, P9_TFSYNC, "dd", 1, 0), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(frozen, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* Character devices, seen from the other end: a file, a socket, a terminal. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

#include "back/chardev/chardev.h"
#include "base/util.h"

static struct vio_loop *loop;
static struct opened_files files;
static struct chardev_io *io;
static struct chardev *c;
static char dir[] = "/tmp/chardev_test.XXXXXX";
static char *text; /* of the chardev that is open */

/* What the owner sees. */
static struct {
	char got[1 << 16];
	size_t len;
	unsigned nr_readable, nr_writable, nr_up, nr_down, nr_resized,
		nr_failed;
	bool stop; /* read nothing */
} me;

static void on_readable(void *arg)
{
	struct iovec iov[2] = {
		{ me.got + me.len, 3 },
		{ me.got + me.len + 3, sizeof(me.got) - me.len - 3 },
	};
	ssize_t n;

	me.nr_readable++;
	if (me.stop)
		return;
	n = chardev_read(c, iov, 2);
	if (n > 0)
		me.len += (size_t)n;
}

static void on_writable(void *arg)
{
	me.nr_writable++;
}

static void on_up(void *arg, bool up)
{
	if (up)
		me.nr_up++;
	else
		me.nr_down++;
}

static void on_resized(void *arg)
{
	me.nr_resized++;
}

static void on_failed(void *arg, int error)
{
	assert_int_equal(error, -ENOSPC);
	me.nr_failed++;
}

static const struct chardev_client client = { on_readable, on_writable, on_up,
					      on_resized, on_failed };

#define PATIENCE_NS 30000000000ull /* on a slow machine */

static void iterate(int n)
{
	while (n--)
		vio_loop_iterate(loop, 5);
}

static int open_text(const char *kind, const char *arg, struct err *err)
{
	free(text);
	if (asprintf(&text, "%s%s", kind, arg) < 0)
		abort();
	return chardev_open(text, "30", &files, err);
}

static void start(const char *kind, const char *arg)
{
	struct err err;

	memset(&me, 0, sizeof(me));
	if (open_text(kind, arg, &err) < 0)
		fail_msg("%s: %s", text, err.text);
	if (chardev_create(text, "30", &files, loop, io, &client, NULL, &c,
			   &err) < 0)
		fail_msg("%s: %s", text, err.text);
}

static void stop(void)
{
	chardev_destroy(c);
	c = NULL;
	chardev_close(text, "30", &files);
	opened_files_close(&files);
	iterate(1);
}

static int setup(void **state)
{
	strcpy(strrchr(dir, '.'), ".XXXXXX");
	return vio_loop_create(&loop) || chardev_io_create(loop, 4, &io) ||
	       !mkdtemp(dir) || chdir(dir);
}

static int teardown(void **state)
{
	if (c)
		stop();
	opened_files_close(&files);
	free(text);
	text = NULL;
	chardev_io_destroy(io);
	vio_loop_destroy(loop);
	return chdir("/") || rmdir(dir);
}

static ssize_t send_text(const char *s)
{
	struct iovec iov[2] = { { (char *)s, 1 },
				{ (char *)s + 1, strlen(s) - 1 } };

	return chardev_write(c, iov, 2);
}

static void assert_got(const char *want)
{
	uint64_t end = vio_now_ns() + PATIENCE_NS;

	/* Data through a pty waits for a kernel thread. */
	while (me.len < strlen(want) && vio_now_ns() < end)
		vio_loop_iterate(loop, 5);
	assert_int_equal(me.len, strlen(want));
	assert_memory_equal(me.got, want, me.len);
	me.len = 0;
}

static void wait_up(bool up)
{
	uint64_t end = vio_now_ns() + PATIENCE_NS;

	while (chardev_up(c) != up && vio_now_ns() < end)
		vio_loop_iterate(loop, 5);
	assert_int_equal(chardev_up(c), up);
}

/*
 * Nothing wakes us up for ever without work to do. Late messages of other
 * threads are allowed.
 */
static void assert_idle(void)
{
	uint64_t end = vio_now_ns() + PATIENCE_NS / 10;

	for (int quiet = 0; quiet < 3;) {
		quiet = vio_loop_iterate(loop, 2) == 0 ? quiet + 1 : 0;
		assert_true(vio_now_ns() < end);
	}
}

static int dial(const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	strcpy(addr.sun_path, path);
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0) {
		close(fd);
		return -1;
	}
	return fd;
}

static int answer(const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	strcpy(addr.sun_path, path);
	assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(listen(fd, 1), 0);
	return fd;
}

static void test_errors(void **state)
{
	static const struct {
		const char *text, *why;
	} rows[] = {
		{ "", "must be stdio" },
		{ "tty", "must be stdio" },
		{ "stdio:x", "must be stdio" },
		{ "unix", "must be stdio" },
		{ "unix:", "must be stdio" },
		{ "pty:", "must be stdio" },
		{ "unix:/nonexistent/x", "No such file" },
		{ "unix-connect:/nonexistent", "No such file" },
		{ "unix:/" /* 110 bytes */
		  "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
		  "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
		  "too long" },
		{ "file:/nonexistent/x", "No such file" },
		{ "file:/", "Is a directory" },
		{ "fd:x", "not a number" },
		{ "fd:99999", "Bad file descriptor" },
		{ "pty:/", "exists and is not a symbolic link" },
		{ "pty:/nonexistent/x", "No such file" },
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct err err = { "" };

		print_message("%s\n", rows[i].text);
		assert_true(open_text("", rows[i].text, &err) < 0);
		if (!strstr(err.text, rows[i].why))
			fail_msg("%s", err.text);
		opened_files_close(&files);
	}
}

/* Wait until others see that size of a file. */
static void wait_size(const char *path, off_t size)
{
	struct stat st = { 0 };

	for (int i = 0; i < 2000 && st.st_size != size; i++) {
		iterate(1);
		stat(path, &st);
	}
	assert_int_equal(st.st_size, size);
}

/* While this is set, calls on files do not return, except on one. */
static bool stalled;
static ino_t not_stalled;

static void stall(int fd)
{
	struct stat st;

	while (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) &&
	       st.st_ino != not_stalled &&
	       __atomic_load_n(&stalled, __ATOMIC_SEQ_CST))
		usleep(1000);
}

ssize_t writev(int fd, const struct iovec *iov, int niov)
{
	stall(fd);
	return syscall(SYS_writev, fd, iov, niov);
}

ssize_t readv(int fd, const struct iovec *iov, int niov)
{
	stall(fd);
	return syscall(SYS_readv, fd, iov, niov);
}

static void set_stalled(bool on)
{
	__atomic_store_n(&stalled, on, __ATOMIC_SEQ_CST);
}

/*
 * A file whose disk does not answer blocks nobody, and accepts at most a full
 * buffer; what it accepted is written in the end, even after the chardev is
 * destroyed.
 */
static void test_slow_file(void **state)
{
	set_stalled(true);
	start("file:", "out");
	assert_int_equal(send_text("one"), 3);
	iterate(2);
	assert_int_equal(send_text("two"), -EAGAIN);
	assert_int_equal(me.nr_writable, 0);
	set_stalled(false);
	wait_size("out", 3);
	iterate(2);
	assert_int_equal(me.nr_writable, 1);
	set_stalled(true);
	assert_int_equal(send_text("two"), 3);
	stop();
	set_stalled(false);
	wait_size("out", 6);
	unlink("out");
}

/* Files that do not answer, however many, do not hold up other ends. */
static void test_slow_files(void **state)
{
	struct chardev *slow[8];
	char name[] = "out0";
	struct stat st;

	set_stalled(true);
	for (unsigned i = 0; i < ARRAY_LEN(slow); i++) {
		name[3] = (char)('0' + i);
		start("file:", name);
		assert_int_equal(send_text("slow"), 4);
		slow[i] = c;
		opened_files_close(&files);
	}
	start("file:", "fast");
	assert_int_equal(stat("fast", &st), 0);
	not_stalled = st.st_ino;
	assert_int_equal(send_text("fast"), 4);
	wait_size("fast", 4);
	set_stalled(false);
	for (unsigned i = 0; i < ARRAY_LEN(slow); i++) {
		name[3] = (char)('0' + i);
		wait_size(name, 4);
		chardev_destroy(slow[i]);
		unlink(name);
	}
	stop();
	unlink("fast");
}

static void test_slow_input(void **state)
{
	int fd = open("in", O_RDWR | O_CREAT, 0600);
	char nr[16];

	assert_int_equal(write(fd, "hello", 5), 5);
	close(fd);
	fd = open("in", O_RDONLY);
	snprintf(nr, sizeof(nr), "%d", fd);
	set_stalled(true);
	start("fd:", nr);
	chardev_want(c, true);
	iterate(3);
	assert_got("");
	set_stalled(false);
	for (int i = 0; i < 2000 && me.len < 5; i++)
		iterate(1);
	assert_got("hello");
	assert_idle(); /* at its end */
	stop();
	close(fd);
	unlink("in");
}

static void test_file(void **state)
{
	char buf[16] = "";
	int fd;

	for (int i = 0; i < 2; i++) { /* appended */
		start("file:", "out");
		assert_true(chardev_up(c));
		chardev_want(c, true);
		assert_int_equal(send_text("hello"), 5);
		wait_size("out", (i + 1) * 5);
		assert_idle();
		stop();
	}
	fd = open("out", O_RDONLY);
	assert_int_equal(read(fd, buf, sizeof(buf)), 10);
	assert_string_equal(buf, "hellohello");
	close(fd);
	unlink("out");
}

/* A full disk is reported once. */
static void test_full(void **state)
{
	start("file:", "/dev/full");
	for (int i = 0; i < 3; i++)
		assert_int_equal(send_text("lost"), -EPIPE);
	assert_int_equal(me.nr_failed, 1);
	assert_int_equal(chardev_nr_errors(c), 3);
}

/* Peers connect one after the other; bytes without a peer are lost. */
static void test_unix(void **state)
{
	char buf[16];
	int a, b;

	start("unix:", "s");
	assert_string_equal(chardev_path(c), "s");
	assert_false(chardev_up(c));
	assert_int_equal(send_text("lost"), -EPIPE);
	chardev_want(c, true);
	assert_idle();

	a = dial("s");
	b = dial("s");
	iterate(2);
	assert_int_equal(me.nr_up, 1);
	assert_int_equal(send_text("one"), 3);
	assert_int_equal(read(a, buf, sizeof(buf)), 3);
	assert_int_equal(write(a, "hello", 5), 5);
	iterate(2);
	assert_got("hello");
	assert_int_equal(write(b, "next", 4), 4);
	assert_idle();
	close(a);
	iterate(3);
	assert_int_equal(me.nr_down, 1);
	assert_int_equal(me.nr_up, 2);
	assert_got("next");
	close(b);
	iterate(2);
	assert_false(chardev_up(c));
	stop();
	assert_int_equal(access("s", F_OK), -1);
}

/* Without a descriptor for a peer the loop sleeps, and retries. */
static void test_no_descriptors(void **state)
{
	struct rlimit old, none;
	int peer, first_free;

	start("unix:", "s");
	chardev_want(c, true);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	peer = dial("s");
	first_free = dup(0);
	close(first_free);
	none = (struct rlimit){ (rlim_t)first_free, old.rlim_max };
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	assert_int_equal(vio_loop_iterate(loop, 1000), 1);
	assert_int_equal(vio_loop_iterate(loop, 0), 0);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
	while (!me.nr_up)
		assert_true(vio_loop_iterate(loop, 10000) > 0);
	close(peer);
	iterate(2);
	stop();
}

/* A peer's last bytes are read before it counts as disconnected. */
static void test_left_behind(void **state)
{
	int fd;

	start("unix:", "s");
	fd = dial("s");
	assert_int_equal(write(fd, "bye", 3), 3);
	close(fd);
	assert_idle(); /* not wanted yet */
	assert_true(chardev_up(c));
	assert_int_equal(send_text("x"), -EPIPE);
	chardev_want(c, true);
	iterate(4);
	assert_got("bye");
	assert_false(chardev_up(c));

	/* A peer that leaves no bytes is disconnected, wanted or not. */
	chardev_want(c, false);
	fd = dial("s");
	iterate(2);
	assert_true(chardev_up(c));
	close(fd);
	iterate(2);
	assert_false(chardev_up(c));
	assert_idle();
}

/*
 * The next peer does not wait until somebody wants the last one's bytes. They
 * arrive before its own; those of a further one do not.
 */
static void test_left_for_later(void **state)
{
	char buf[16];
	int fd;

	start("unix:", "s");
	fd = dial("s");
	assert_int_equal(write(fd, "first", 5), 5);
	iterate(2);
	close(fd);
	iterate(2);
	assert_true(chardev_up(c));
	assert_false(chardev_has_peer(c));
	for (int i = 0; i < 200; i++) { /* more than wait in the kernel */
		fd = dial("s");
		assert_int_equal(write(fd, "lost", 4), 4);
		close(fd);
		iterate(3);
	}
	fd = dial("s");
	iterate(3);
	assert_int_equal(me.nr_down, 201);
	assert_true(chardev_has_peer(c));
	assert_int_equal(send_text("hello"), 5);
	assert_int_equal(read(fd, buf, sizeof(buf)), 5);
	assert_int_equal(write(fd, "last", 4), 4);
	assert_idle();
	assert_int_equal(me.len, 0);

	chardev_want(c, true);
	iterate(4);
	assert_got("firstlast");
	assert_idle();
	assert_true(chardev_up(c));
	close(fd);
	iterate(2);
	assert_false(chardev_up(c));
}

/* The last peer's bytes are read even when there is no peer any more. */
static void test_left_alone(void **state)
{
	int fd;

	start("unix:", "s");
	fd = dial("s");
	assert_int_equal(write(fd, "first", 5), 5);
	iterate(2);
	close(fd);
	iterate(2);
	fd = dial("s");
	iterate(3);
	close(fd);
	iterate(2);
	assert_false(chardev_up(c));
	assert_idle();
	chardev_want(c, true);
	iterate(4);
	assert_got("first");
	assert_idle();
}

/* A peer that has stopped sending may still receive. */
static void test_half_closed(void **state)
{
	char buf[16];
	int fd;

	start("unix:", "s");
	chardev_want(c, true);
	fd = dial("s");
	assert_int_equal(write(fd, "ask", 3), 3);
	shutdown(fd, SHUT_WR);
	iterate(3);
	assert_got("ask");
	assert_idle();
	assert_true(chardev_up(c));
	assert_int_equal(send_text("answer"), 6);
	assert_int_equal(read(fd, buf, sizeof(buf)), 6);
	close(fd);
	iterate(2);
	assert_false(chardev_up(c));
}

static void test_stale_socket(void **state)
{
	struct err err;
	int fd = answer("s");

	assert_int_equal(open_text("unix:", "s", &err), -EADDRINUSE);
	close(fd);
	start("unix:", "s"); /* a stale socket is replaced */
	fd = dial("s");
	assert_true(fd >= 0);
	close(fd);
}

/* A file that another process has put in place of ours stays. */
static void test_replaced(void **state)
{
	struct stat st;
	int fd;

	start("unix:", "s");
	unlink("s");
	fd = answer("s");
	stop();
	assert_int_equal(lstat("s", &st), 0);
	unlink("s");
	close(fd);

	start("pty:", "s");
	unlink("s");
	assert_int_equal(symlink("/dev/null", "s"), 0);
	stop();
	assert_int_equal(lstat("s", &st), 0);
	unlink("s");

	start("unix:", "s");
	stop();
	assert_true(lstat("s", &st) < 0);
}

static void test_unix_connect(void **state)
{
	int listener = answer("s"), fd;

	start("unix-connect:", "s");
	assert_true(chardev_up(c));
	chardev_want(c, true);
	fd = accept(listener, NULL, NULL);
	assert_int_equal(write(fd, "hi", 2), 2);
	iterate(2);
	assert_got("hi");
	close(fd);
	iterate(3);
	assert_int_equal(me.nr_down, 1);
	assert_int_equal(send_text("x"), -EPIPE);
	assert_idle();
	close(listener);
	unlink("s");

	/* The next listener there becomes its peer. */
	listener = answer("s");
	for (int i = 0; i < 3000 && !chardev_up(c); i++)
		vio_loop_iterate(loop, 10);
	assert_true(chardev_up(c));
	fd = accept(listener, NULL, NULL);
	assert_int_equal(write(fd, "again", 5), 5);
	iterate(2);
	assert_got("again");
	assert_int_equal(send_text("x"), 1);
	close(fd);
	close(listener);
	unlink("s");
}

/* Full: the writer waits and is notified; no byte is lost or doubled. */
static void test_back_pressure(void **state)
{
	static char out[1 << 20], in[1 << 20];
	size_t sent = 0, got = 0;
	int fd;

	for (size_t i = 0; i < sizeof(out); i++)
		out[i] = (char)(i * 7 + i / 251);
	start("unix:", "s");
	fd = dial("s");
	iterate(2);
	while (got < sizeof(out)) {
		struct iovec iov = { out + sent, sizeof(out) - sent };
		ssize_t n = sent < sizeof(out) ? chardev_write(c, &iov, 1) :
						 -EAGAIN;

		if (n > 0)
			sent += (size_t)n;
		if (n > 0 || n != -EAGAIN)
			continue;
		if (sent < sizeof(out))
			assert_idle();
		me.nr_writable = 0;
		n = read(fd, in + got, sizeof(in) - got);
		assert_true(n > 0);
		got += (size_t)n;
		iterate(1);
		if (sent < sizeof(out) && got == sent)
			assert_true(me.nr_writable > 0);
	}
	assert_memory_equal(in, out, sizeof(out));

	/* The other way: unwanted bytes stay, without a wake-up. */
	assert_int_equal(write(fd, "held", 4), 4);
	assert_idle();
	assert_int_equal(me.nr_readable, 0);
	chardev_want(c, true);
	iterate(1);
	assert_got("held");
	close(fd);
}

/*
 * A terminal that nobody has open does not wake us up, and discards what is
 * written; otherwise a guest would wait for ever at its first line.
 */
static void test_pty(void **state)
{
	char buf[16];
	int fd;

	start("pty:", "link");
	chardev_want(c, true);
	assert_memory_equal(chardev_path(c), "/dev/pts/", 9);
	wait_up(false);
	assert_int_equal(send_text("lost"), -EPIPE);
	assert_idle();

	for (int i = 0; i < 3; i++) {
		fd = open("link", O_RDWR | O_NOCTTY);
		assert_true(fd >= 0);
		iterate(2);
		wait_up(true);
		assert_idle();
		assert_int_equal(send_text("a\nb"), 3);
		assert_int_equal(read(fd, buf, sizeof(buf)), 3);
		assert_memory_equal(buf, "a\nb", 3); /* as it was sent */
		assert_int_equal(write(fd, "\003x\r", 3), 3);
		iterate(2);
		assert_got("\003x\r");
		close(fd);
		iterate(3);
		wait_up(false);
		assert_int_equal(send_text("lost"), -EPIPE);
		assert_idle();
	}
	assert_int_equal(me.nr_up, 3);
	assert_int_equal(me.nr_down, 3);

	/* echo text >/dev/pts/N, while reading is not wanted */
	chardev_want(c, false);
	fd = open("link", O_WRONLY | O_NOCTTY);
	assert_int_equal(write(fd, "text", 4), 4);
	close(fd);
	assert_idle();
	chardev_want(c, true);
	iterate(3);
	assert_got("text");
	wait_up(false);
	assert_idle();
	stop();
	assert_int_equal(access("link", F_OK), -1);
}

/* Reopened before we looked: it never disconnected. */
static void set_size(int fd, unsigned short cols, unsigned short rows)
{
	const struct winsize size = { .ws_col = cols, .ws_row = rows };

	assert_int_equal(ioctl(fd, TIOCSWINSZ, &size), 0);
}

static void expect_size(unsigned nr, uint16_t want_cols, uint16_t want_rows)
{
	uint64_t end = vio_now_ns() + PATIENCE_NS;
	uint16_t cols, rows;

	while (me.nr_resized < nr && vio_now_ns() < end)
		iterate(1);
	assert_idle();
	assert_int_equal(me.nr_resized, nr);
	assert_true(chardev_size(c, &cols, &rows));
	assert_int_equal(cols, want_cols);
	assert_int_equal(rows, want_rows);
}

/* A size set on a terminal's other side is noticed, once each. */
static void test_pty_size(void **state)
{
	int fd, other;

	start("pty", "");
	fd = open(chardev_path(c), O_RDWR | O_NOCTTY);
	iterate(2);
	assert_int_equal(me.nr_resized, 0);
	chardev_want(c, true);
	set_size(fd, 132, 43);
	assert_int_equal(write(fd, "x", 1), 1); /* by its next byte */
	expect_size(1, 132, 43);
	assert_got("x");
	chardev_want(c, false);
	other = open(chardev_path(c), O_RDWR | O_NOCTTY); /* as stty(1) */
	set_size(other, 80, 24);
	close(other);
	expect_size(2, 80, 24);
	close(fd);
}

/* SIGWINCH, and terminals that are released and taken again. */
static void test_stdio_terminal(void **state)
{
	int in = dup(0), out = dup(1);
	int master = posix_openpt(O_RDWR | O_NOCTTY), slave;
	struct termios before, now;

	assert_true(grantpt(master) == 0 && unlockpt(master) == 0);
	slave = open(ptsname(master), O_RDWR | O_NOCTTY);
	set_size(slave, 132, 43);
	tcgetattr(slave, &before);
	dup2(slave, 0);
	dup2(slave, 1);
	start("stdio", "");
	tcgetattr(slave, &now);
	assert_false(now.c_lflag & ICANON);
	assert_int_equal(me.nr_resized, 0);
	set_size(slave, 80, 24);
	kill(getpid(), SIGWINCH);
	expect_size(1, 80, 24);
	chardev_stdio_restore();
	tcgetattr(slave, &now);
	assert_int_equal(now.c_lflag, before.c_lflag);
	chardev_stdio_resume();
	tcgetattr(slave, &now);
	assert_false(now.c_lflag & ICANON);
	stop();
	tcgetattr(slave, &now);
	assert_int_equal(now.c_lflag, before.c_lflag);
	chardev_stdio_resume(); /* it is no longer ours */
	tcgetattr(slave, &now);
	assert_int_equal(now.c_lflag, before.c_lflag);
	dup2(in, 0);
	dup2(out, 1);
	close(in);
	close(out);
	close(slave);
	close(master);
}

static unsigned nr_escapes[CHARDEV_ESCAPE_HELP + 1];

static void on_escape(void *arg, enum chardev_escape escape)
{
	assert_ptr_equal(arg, &me);
	nr_escapes[escape]++;
}

static void type(int master, const char *keys)
{
	int left = 0;

	assert_int_equal(write(master, keys, strlen(keys)), strlen(keys));
	do {
		iterate(1);
	} while (ioctl(0, FIONREAD, &left) == 0 && left > 0 &&
		 chardev_stdio_has_escape());
}

static void wait_escape(enum chardev_escape escape, unsigned nr)
{
	uint64_t end = vio_now_ns() + PATIENCE_NS;

	while (nr_escapes[escape] < nr && vio_now_ns() < end)
		vio_loop_iterate(loop, 5);
	assert_int_equal(nr_escapes[escape], nr);
}

/*
 * The guest gets all keys except those after the escape key, which works even
 * if nobody reads the others.
 */
static void test_stdio_escape(void **state)
{
	static char paste[2049];
	int in = dup(0), out = dup(1), left;
	int master = posix_openpt(O_RDWR | O_NOCTTY), slave;
	struct termios now;

	assert_true(grantpt(master) == 0 && unlockpt(master) == 0);
	slave = open(ptsname(master), O_RDWR | O_NOCTTY);
	dup2(slave, 0);
	dup2(slave, 1);
	memset(nr_escapes, 0, sizeof(nr_escapes));
	chardev_stdio_serve_escape(loop, on_escape, &me);
	start("stdio", "");
	assert_true(chardev_stdio_has_escape());
	tcgetattr(slave, &now);
	assert_true(now.c_lflag & ISIG && now.c_lflag & ICANON);
	chardev_stdio_start();
	tcgetattr(slave, &now);
	assert_false(now.c_lflag & (ISIG | ICANON | ECHO));
	type(master, "\x03\x1a\x1c\x01h\x01");
	type(master, "z");
	wait_escape(CHARDEV_ESCAPE_STOP, 1);
	assert_int_equal(nr_escapes[CHARDEV_ESCAPE_HELP], 1);
	memset(paste, 'p', sizeof(paste) - 1);
	for (int i = 0; i < 600; i++) /* more than are kept */
		type(master, paste);
	type(master, "\x01x");
	wait_escape(CHARDEV_ESCAPE_END, 1);
	assert_int_equal(chardev_read(c, &(struct iovec){ me.got, 9 }, 1), 9);
	assert_memory_equal(me.got, "\x03\x1a\x1cpppppp", 9);
	while (chardev_read(c, &(struct iovec){ me.got, sizeof(me.got) }, 1) >
	       0)
		;
	chardev_want(c, true);
	type(master, "\x01\x01x\x01yx");
	assert_got("\x01x\x01yx");
	/* Input typed while others have the terminal is for them. */
	chardev_stdio_restore();
	assert_int_equal(write(master, "a\n", 2), 2);
	iterate(3);
	assert_true(ioctl(slave, FIONREAD, &left) == 0 && left == 2);
	assert_int_equal(me.len, 0);
	chardev_stdio_resume();
	assert_got("a\n");
	stop();
	assert_false(chardev_stdio_has_escape());
	chardev_stdio_set_signals(true);
	start("stdio", "");
	chardev_stdio_start();
	assert_false(chardev_stdio_has_escape());
	tcgetattr(slave, &now);
	assert_true(now.c_lflag & ISIG && !(now.c_lflag & ICANON));
	stop();
	chardev_stdio_set_signals(false);
	chardev_stdio_serve_escape(NULL, NULL, NULL);
	dup2(in, 0);
	dup2(out, 1);
	close(in);
	close(out);
	close(slave);
	close(master);
}

static void test_pty_reopened(void **state)
{
	int fd, again;

	start("pty", "");
	chardev_want(c, true);
	fd = open(chardev_path(c), O_RDWR | O_NOCTTY);
	iterate(2);
	close(fd);
	again = open(chardev_path(c), O_RDWR | O_NOCTTY);
	iterate(3);
	wait_up(true);
	assert_int_equal(send_text("x"), 1);
	close(again);
	iterate(3);
	wait_up(false);
}

static void test_pty_link(void **state)
{
	assert_int_equal(symlink("/nonexistent", "link"), 0);
	start("pty:", "link"); /* left by an earlier run */
	assert_int_equal(access("link", F_OK), 0);
}

static void test_fd(void **state)
{
	int pair[2], pipes[2];
	char nr[16];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	snprintf(nr, sizeof(nr), "%d", pair[0]);
	start("fd:", nr);
	close(pair[0]);
	chardev_want(c, true);
	assert_int_equal(write(pair[1], "in", 2), 2);
	iterate(2);
	assert_got("in");
	close(pair[1]);
	iterate(3);
	assert_false(chardev_up(c));
	assert_idle();
	stop();

	assert_int_equal(pipe(pipes), 0); /* to write into */
	snprintf(nr, sizeof(nr), "%d", pipes[1]);
	start("fd:", nr);
	close(pipes[1]);
	chardev_want(c, true);
	assert_int_equal(send_text("out"), 3);
	assert_idle();
	close(pipes[0]);
	assert_int_equal(send_text("out"), -EPIPE);
	assert_idle();
}

/* Standard input is a pipe or a file, ends, and output continues. */
static void test_stdio(void **state)
{
	int in = dup(0), out = dup(1), from[2], to[2], fd;
	char buf[16];
	struct err err;

	assert_int_equal(pipe(from), 0);
	assert_int_equal(pipe(to), 0);
	dup2(from[0], 0);
	dup2(to[1], 1);
	start("stdio", "");
	assert_int_equal(open_text("stdio", "", &err), -EBUSY);
	chardev_want(c, true);
	assert_int_equal(write(from[1], "typed", 5), 5);
	iterate(2);
	assert_got("typed");
	assert_int_equal(send_text("shown"), 5);
	assert_int_equal(read(to[0], buf, sizeof(buf)), 5);
	/* Others find it as it was. */
	assert_false(fcntl(0, F_GETFL) & O_NONBLOCK);
	close(from[0]);
	close(from[1]);
	stop();

	fd = open("file", O_RDWR | O_CREAT | O_TRUNC, 0600);
	assert_int_equal(write(fd, "script", 6), 6);
	lseek(fd, 0, SEEK_SET);
	dup2(fd, 0);
	start("stdio", "");
	assert_idle();
	chardev_want(c, true);
	iterate(3);
	assert_got("script");
	assert_idle();
	assert_true(chardev_up(c));
	assert_int_equal(send_text("shown"), 5);
	stop();
	dup2(in, 0);
	dup2(out, 1);
	close(in);
	close(out);
	close(fd);
	close(to[0]);
	close(to[1]);
	unlink("file");
}

#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_errors),
		T(test_file),
		T(test_full),
		T(test_unix),
		T(test_slow_file),
		T(test_slow_files),
		T(test_slow_input),
		T(test_no_descriptors),
		T(test_left_behind),
		T(test_half_closed),
		T(test_left_for_later),
		T(test_left_alone),
		T(test_stale_socket),
		T(test_replaced),
		T(test_unix_connect),
		T(test_back_pressure),
		T(test_pty),
		T(test_pty_size),
		T(test_stdio_terminal),
		T(test_stdio_escape),
		T(test_pty_reopened),
		T(test_pty_link),
		T(test_fd),
		T(test_stdio),
	};

	signal(SIGPIPE, SIG_IGN); /* as in every device process */
	return cmocka_run_group_tests_name("chardev", tests, NULL, NULL);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Standard input and output, which may be a terminal.
 *
 * Descriptors that others share must not become non-blocking under them: the
 * terminal or pipe is opened anew, for us alone.
 *
 * If the guest gets all keys of a terminal, we read them, look for the escape
 * key, and pass the others through a pipe. So the escape key works even if the
 * guest or its device process hangs.
 *
 *	terminal  --keys-->  this process  --pipe-->  chardev
 *	terminal  <--------------output-------------  chardev
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "back/chardev/chardev_impl.h"

/* The only one, in the process that opens it. */
static struct {
	bool used;
	bool terminal; /* standard input is one */
	bool raw;      /* now; the mode before it: */
	struct termios before;

	/* Who handles the escape key; loop is NULL without one. */
	struct vio_loop *loop;
	chardev_escape_cb *escape;
	void *arg;
	bool signals;         /* Ctrl-C and others send signals, as usual */
	bool escaped;         /* the last key was the escape key */
	int keys_fd, pipe_fd; /* the terminal, our end of the pipe; or 0 */
	struct vio_source *source;
} stdio;

void chardev_stdio_serve_escape(struct vio_loop *loop, chardev_escape_cb *cb,
				void *arg)
{
	stdio.loop = loop;
	stdio.escape = cb;
	stdio.arg = arg;
}

void chardev_stdio_set_signals(bool on)
{
	stdio.signals = on;
}

bool chardev_stdio_has_escape(void)
{
	return stdio.pipe_fd > 0;
}

/*
 * --- Keys ---
 */

#define ESCAPE_KEY ('A' - '@') /* Ctrl-A, as in QEMU */
#define PIPE_BYTES (1 << 20)   /* room for what is pasted */
#define KEYS_BYTES 4096

static enum chardev_escape escape_of(char key)
{
	switch (key) {
	case 'x':
		return CHARDEV_ESCAPE_END;
	case 'z':
		return CHARDEV_ESCAPE_STOP;
	case 'h':
	case '?':
		return CHARDEV_ESCAPE_HELP;
	default:
		return CHARDEV_ESCAPE_NONE;
	}
}

/* Put the guest's bytes into @out, at most two. Returns their number. */
static size_t take_key(char key, char *out)
{
	bool escaped = stdio.escaped;
	enum chardev_escape escape;
	size_t nr = 0;

	stdio.escaped = !escaped && key == ESCAPE_KEY;
	if (stdio.escaped)
		return 0;
	escape = escaped ? escape_of(key) : CHARDEV_ESCAPE_NONE;
	if (escape != CHARDEV_ESCAPE_NONE) {
		stdio.escape(stdio.arg, escape);
		return 0;
	}
	if (escaped)
		out[nr++] = ESCAPE_KEY;
	if (!escaped || key != ESCAPE_KEY)
		out[nr++] = key;
	return nr;
}

static void end_keys(void)
{
	vio_source_remove(stdio.source);
	stdio.source = NULL;
	if (stdio.keys_fd > 0)
		close(stdio.keys_fd);
	if (stdio.pipe_fd > 0)
		close(stdio.pipe_fd);
	stdio.keys_fd = stdio.pipe_fd = 0;
}

static void on_keys(void *arg, uint32_t events)
{
	char keys[KEYS_BYTES], out[2 * KEYS_BYTES];
	ssize_t n = read(stdio.keys_fd, keys, sizeof(keys));
	size_t len = 0;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) { /* hung up: the chardev ends as well */
		end_keys();
		return;
	}
	for (ssize_t i = 0; i < n; i++)
		len += take_key(keys[i], out + len);
	/*
	 * A guest that does not read loses keys; the escape key must still
	 * work.
	 */
	if (len > 0 && write(stdio.pipe_fd, out, len) < 0)
		return;
}

static void watch_keys(bool on)
{
	if (on && stdio.keys_fd > 0 && !stdio.source)
		vio_fd_add(stdio.loop, stdio.keys_fd, EPOLLIN, on_keys, NULL,
			   &stdio.source);
	if (on)
		return;
	vio_source_remove(stdio.source);
	stdio.source = NULL;
}

/*
 * Take the keys of @take_fd, a terminal. Returns what a chardev reads instead,
 * or -errno.
 */
static int start_keys(int take_fd)
{
	int ends[2];

	if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0)
		return -errno;
	/* Best effort: the limit of an ordinary user may be lower. */
	fcntl(ends[1], F_SETPIPE_SZ, PIPE_BYTES);
	stdio.keys_fd = take_fd;
	stdio.pipe_fd = ends[1];
	stdio.escaped = false;
	return ends[0];
}

/*
 * --- The terminal ---
 */

/* In the background, the terminal belongs to the shell or another job. */
static bool in_foreground(void)
{
	pid_t group = tcgetpgrp(STDIN_FILENO);

	return group < 0 /* no job control */ || group == getpgrp();
}

/* Deliver bytes as they are typed. */
static void set_raw(void)
{
	struct termios raw = stdio.before;

	cfmakeraw(&raw);
	if (!chardev_stdio_has_escape())
		raw.c_lflag |= ISIG; /* otherwise there is no way out */
	raw.c_oflag |= OPOST;        /* others write lines to it */
	stdio.raw = tcsetattr(STDIN_FILENO, TCSANOW, &raw) == 0;
	watch_keys(stdio.raw);
}

void chardev_stdio_start(void)
{
	if (!stdio.used || stdio.terminal ||
	    tcgetattr(STDIN_FILENO, &stdio.before) < 0)
		return;
	stdio.terminal = true;
	set_raw();
}

void chardev_stdio_restore(void)
{
	if (stdio.raw && in_foreground())
		tcsetattr(STDIN_FILENO, TCSANOW, &stdio.before);
	stdio.raw = false;
	watch_keys(false);
}

void chardev_stdio_resume(void)
{
	if (stdio.terminal && !stdio.raw && in_foreground())
		set_raw();
}

/* A duplicate of @fd, non-blocking where that matters. */
static int reopen(int fd, int flags)
{
	char path[32];
	struct stat st;
	int ret = -1;

	if (fstat(fd, &st) < 0)
		return -errno;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if (S_ISCHR(st.st_mode) || S_ISFIFO(st.st_mode))
		ret = open(path, flags | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (ret < 0)
		ret = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	return ret < 0 ? -errno : ret;
}

static int open_input(void)
{
	int fd = reopen(STDIN_FILENO, O_RDONLY), ret;

	if (fd < 0 || !stdio.loop || stdio.signals || !isatty(fd))
		return fd;
	ret = start_keys(fd);
	if (ret < 0)
		close(fd);
	return ret;
}

static int stdio_open(const char *arg, const char *id,
		      struct opened_files *files, struct err *err)
{
	int in, out, ret;

	if (stdio.used)
		return err_set(err, -EBUSY, "already used by another channel");
	in = open_input();
	if (in < 0)
		return err_set(err, in, "standard input: %s", strerror(-in));
	out = reopen(STDOUT_FILENO, O_WRONLY);
	if (out < 0) {
		close(in);
		end_keys();
		return err_set(err, out, "standard output: %s", strerror(-out));
	}
	ret = chardev_add_file(files, id, "in", in);
	if (ret < 0)
		close(out);
	else
		ret = chardev_add_file(files, id, "out", out);
	if (ret < 0) {
		end_keys();
		return err_set(err, ret, "%s", strerror(-ret));
	}
	stdio.used = true;
	if (!stdio.loop) /* who serves the escape key decides when */
		chardev_stdio_start();
	return 0;
}

static void stdio_close(const char *arg, const char *id,
			const struct opened_files *files)
{
	chardev_stdio_restore();
	end_keys();
	stdio.terminal = stdio.used = false;
}

static void on_winch(void *arg, uint32_t events)
{
	struct chardev *c = arg;
	struct signalfd_siginfo info;

	while (read(c->wait_fd, &info, sizeof(info)) > 0)
		;
	chardev_check_size(c);
}

/* A stopped job misses SIGWINCH, so SIGCONT counts as one. */
static int watch_size(struct chardev *c)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGWINCH);
	sigaddset(&set, SIGCONT);
	if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
		return -errno;
	c->wait_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (c->wait_fd < 0)
		return -errno;
	return vio_fd_add(c->loop, c->wait_fd, EPOLLIN, on_winch, c,
			  &c->wait_source);
}

static int stdio_create(struct chardev *c, const char *id,
			struct opened_files *files)
{
	int ret = chardev_set_ends(c, chardev_take_file(files, id, "in"),
				   chardev_take_file(files, id, "out"));
	uint16_t cols, rows;

	c->up = true;
	if (ret == 0 && chardev_size(c, &cols, &rows))
		ret = watch_size(c);
	return ret;
}

const struct chardev_kind chardev_kind_stdio = {
	.name = "stdio",
	.open = stdio_open,
	.close = stdio_close,
	.create = stdio_create,
};

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Standard input and output, which may be a terminal.
 *
 * Descriptors that others use too must not be made non-blocking under them: the
 * terminal or pipe is opened anew, which makes it ours.
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

/* There is one, in the process that opens it. */
static struct {
	bool used;
	bool terminal; /* it is one, */
	bool raw;      /* it is that now, and was before: */
	struct termios before;
} stdio;

/* In the background the terminal is the shell's, or another job's. */
static bool in_foreground(void)
{
	pid_t group = tcgetpgrp(STDIN_FILENO);

	return group < 0 /* it controls no jobs */ || group == getpgrp();
}

/* Bytes as they are typed; but the keys that end a program still do. */
static void set_raw(void)
{
	struct termios raw = stdio.before;

	cfmakeraw(&raw);
	raw.c_lflag |= ISIG;
	raw.c_oflag |= OPOST; /* others write lines there */
	stdio.raw = tcsetattr(STDIN_FILENO, TCSANOW, &raw) == 0;
}

static void make_raw(void)
{
	if (tcgetattr(STDIN_FILENO, &stdio.before) < 0)
		return;
	stdio.terminal = true;
	set_raw();
}

void chardev_stdio_restore(void)
{
	if (stdio.raw && in_foreground())
		tcsetattr(STDIN_FILENO, TCSANOW, &stdio.before);
	stdio.raw = false;
}

void chardev_stdio_resume(void)
{
	if (stdio.terminal && !stdio.raw && in_foreground())
		set_raw();
}

/* A descriptor like @fd, non-blocking where that matters. */
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

static int stdio_open(const char *arg, const char *id,
		      struct opened_files *files, struct err *err)
{
	int in, out, ret;

	if (stdio.used)
		return err_set(err, -EBUSY, "already used by another channel");
	in = reopen(STDIN_FILENO, O_RDONLY);
	if (in < 0)
		return err_set(err, in, "standard input: %s", strerror(-in));
	out = reopen(STDOUT_FILENO, O_WRONLY);
	if (out < 0) {
		close(in);
		return err_set(err, out, "standard output: %s", strerror(-out));
	}
	ret = chardev_add_file(files, id, "in", in);
	if (ret < 0)
		close(out);
	else
		ret = chardev_add_file(files, id, "out", out);
	if (ret < 0)
		return err_set(err, ret, "%s", strerror(-ret));
	make_raw();
	stdio.used = true;
	return 0;
}

static void stdio_close(const char *arg, const char *id,
			const struct opened_files *files)
{
	chardev_stdio_restore();
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

/* A stopped job hears of no change, so SIGCONT counts as one. */
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

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A pseudo terminal. It is up while its slave side is open.
 *
 * The master reports that the slave is closed (a hang-up, until it is opened
 * again), but not that it was opened; inotify does.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "back/chardev/chardev_impl.h"

static int slave_path(int master, char path[CHARDEV_MAX_PATH])
{
	unsigned nr;

	if (ioctl(master, TIOCGPTN, &nr) < 0)
		return -errno;
	snprintf(path, CHARDEV_MAX_PATH, "/dev/pts/%u", nr);
	return 0;
}

int chardev_opened_path(const char *id, const struct opened_files *files,
			char path[CHARDEV_MAX_PATH])
{
	int master = chardev_find_file(files, id, "pty");

	return master < 0 ? -ENOENT : slave_path(master, path);
}

/* No echo and no line editing: the guest does both. */
static int make_raw(const char *path)
{
	int fd = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC);
	struct termios tio;
	int ret = 0;

	if (fd < 0)
		return -errno;
	if (tcgetattr(fd, &tio) < 0) {
		ret = -errno;
	} else {
		cfmakeraw(&tio);
		if (tcsetattr(fd, TCSANOW, &tio) < 0)
			ret = -errno;
	}
	close(fd);
	return ret;
}

/* An existing link is left over from an earlier run. */
static int make_link(const char *path, const char *link)
{
	struct stat st;

	if (lstat(link, &st) == 0) {
		if (!S_ISLNK(st.st_mode))
			return -EEXIST;
		if (unlink(link) < 0)
			return -errno;
	}
	return symlink(path, link) < 0 ? -errno : 0;
}

static int watch_opens(const char *path)
{
	int fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	int ret;

	if (fd < 0)
		return -errno;
	if (inotify_add_watch(fd, path, IN_OPEN | IN_CLOSE) < 0) {
		ret = -errno;
		close(fd);
		return ret;
	}
	return fd;
}

/*
 * Set up the terminal at @master. Returns an inotify descriptor that reports
 * when the slave is opened.
 */
static int set_up(int master, char path[CHARDEV_MAX_PATH])
{
	int ret;

	if (grantpt(master) < 0 || unlockpt(master) < 0)
		return -errno;
	ret = slave_path(master, path);
	if (ret == 0)
		ret = make_raw(path);
	return ret < 0 ? ret : watch_opens(path);
}

static int pty_open(const char *link, const char *id,
		    struct opened_files *files, struct err *err)
{
	int master = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
	char path[CHARDEV_MAX_PATH];
	int watch, ret;

	if (master < 0)
		return err_set(err, -errno, "%s", strerror(errno));
	watch = set_up(master, path);
	if (watch < 0) {
		close(master);
		return err_set(err, watch, "%s", strerror(-watch));
	}
	ret = chardev_add_file(files, id, "pty", master);
	if (ret < 0)
		close(watch);
	else
		ret = chardev_add_file(files, id, "watch", watch);
	if (ret == 0 && link)
		ret = make_link(path, link);
	if (ret == 0 && link)
		chardev_made(files, id, "pty", link);
	if (ret == -EEXIST)
		return err_set(err, ret,
			       "%s: exists and is not a symbolic link", link);
	return ret < 0 ? err_set(err, ret, "%s", strerror(-ret)) : 0;
}

static void pty_close(const char *link, const char *id,
		      const struct opened_files *files)
{
	if (link)
		chardev_remove(files, id, "pty", link);
}

/* The slave is open, or was and has left bytes to read. */
static bool is_up(const struct chardev *c)
{
	struct pollfd p = { .fd = c->in.fd, .events = POLLIN };

	poll(&p, 1, 0);
	return !(p.revents & POLLHUP) || (p.revents & POLLIN);
}

static void on_open(void *arg, uint32_t events)
{
	struct chardev *c = arg;
	char buf[4096]
		__attribute__((aligned(__alignof__(struct inotify_event))));

	/* Their number does not matter. */
	while (read(c->wait_fd, buf, sizeof(buf)) > 0)
		;
	if (is_up(c))
		chardev_connected(c);
	chardev_check_size(c);
}

static int pty_create(struct chardev *c, const char *id,
		      struct opened_files *files)
{
	int master = chardev_take_file(files, id, "pty");
	int ret;

	c->wait_fd = chardev_take_file(files, id, "watch");
	ret = chardev_set_duplex(c, master);
	if (ret < 0) {
		close(master);
		return ret;
	}
	ret = slave_path(master, c->path);
	if (ret < 0)
		return ret;
	/* After a restart of this process, the slave may be open already. */
	c->up = is_up(c);
	return vio_fd_add(c->loop, c->wait_fd, EPOLLIN, on_open, c,
			  &c->wait_source);
}

const struct chardev_kind chardev_kind_pty = {
	.name = "pty",
	.arg = "LINK",
	.arg_optional = true,
	.open = pty_open,
	.close = pty_close,
	.create = pty_create,
};

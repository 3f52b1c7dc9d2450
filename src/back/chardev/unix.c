/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * UNIX sockets: one that listens has a peer at a time, and others wait in the
 * kernel; one that was connected at the start is down for good when its peer
 * goes.
 */
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "back/chardev/chardev_impl.h"
#include "base/unix.h"

#define RELISTEN_NS 100000000ull /* after accept() failed */

/*
 * --- unix ---
 */

static int unix_open(const char *path, const char *id,
		     struct opened_files *files, struct err *err)
{
	int fd = unix_listen(path, SOCK_NONBLOCK);
	struct unix_name made = unix_name(path);
	int ret;

	if (fd < 0)
		return err_set(err, fd, "%s", strerror(-fd));
	ret = chardev_add_file(files, id, "listen", fd);
	if (ret < 0) {
		unix_remove(path, made);
		return err_set(err, ret, "%s", strerror(-ret));
	}
	chardev_made(files, id, "listen", path);
	return 0;
}

static void unix_close(const char *path, const char *id,
		       const struct opened_files *files)
{
	chardev_remove(files, id, "listen", path);
}

static void on_listen(void *arg, uint32_t events)
{
	struct chardev *c = arg;
	int fd = accept4(c->wait_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0 && (errno == EAGAIN || errno == ECONNABORTED))
		return; /* it is gone already */
	if (fd >= 0 && c->up)
		chardev_replace(c);
	vio_fd_set(c->wait_source, 0);
	if (fd >= 0 && chardev_set_duplex(c, fd) == 0) {
		chardev_connected(c);
		return;
	}
	/* There is no descriptor left, and the socket stays ready. */
	if (fd >= 0)
		close(fd);
	vio_timer_set(c->wait_timer, RELISTEN_NS);
}

static void on_timer(void *arg)
{
	struct chardev *c = arg;

	vio_fd_set(c->wait_source, EPOLLIN);
}

static int unix_create(struct chardev *c, const char *id,
		       struct opened_files *files)
{
	int ret;

	c->wait_fd = chardev_take_file(files, id, "listen");
	strncpy(c->path, c->text + strlen("unix:"), sizeof(c->path) - 1);
	ret = vio_timer_add(c->loop, on_timer, c, &c->wait_timer);
	return ret < 0 ? ret :
			 vio_fd_add(c->loop, c->wait_fd, EPOLLIN, on_listen, c,
				    &c->wait_source);
}

static void unix_accept(struct chardev *c)
{
	vio_fd_set(c->wait_source, EPOLLIN);
}

static void unix_next(struct chardev *c)
{
	chardev_set_ends(c, -1, -1);
	unix_accept(c);
}

const struct chardev_kind chardev_kind_unix = {
	.name = "unix",
	.arg = "PATH",
	.open = unix_open,
	.close = unix_close,
	.create = unix_create,
	.hung_up = unix_accept,
	.next = unix_next,
};

/*
 * --- unix-connect ---
 */

static int connect_open(const char *path, const char *id,
			struct opened_files *files, struct err *err)
{
	int ret = unix_connect(path, 0);

	if (ret >= 0)
		ret = chardev_add_file(files, id, "peer", ret);
	return ret < 0 ? err_set(err, ret, "%s", strerror(-ret)) : 0;
}

static int connect_create(struct chardev *c, const char *id,
			  struct opened_files *files)
{
	int fd = chardev_take_file(files, id, "peer");
	int ret = chardev_set_duplex(c, fd);

	if (ret < 0 && c->in.fd != fd)
		close(fd);
	c->up = ret == 0;
	return ret;
}

static void connect_next(struct chardev *c)
{
	chardev_set_ends(c, -1, -1);
}

const struct chardev_kind chardev_kind_unix_connect = {
	.name = "unix-connect",
	.arg = "PATH",
	.open = connect_open,
	.create = connect_create,
	.next = connect_next,
};

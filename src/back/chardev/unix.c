/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * UNIX sockets. A listening one serves a peer at a time while others wait in
 * the kernel; a connected one is connected again by an opener, see opener.h.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "back/chardev/chardev_impl.h"
#include "base/opener.h"
#include "base/unix.h"

#define RELISTEN_NS  100000000ull /* after accept() failed */
#define RECONNECT_MS 1000         /* between attempts */

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
		return; /* it has disconnected already */
	if (fd >= 0 && c->up)
		chardev_replace(c);
	vio_fd_set(c->wait_source, 0);
	if (fd >= 0 && chardev_set_duplex(c, fd) == 0) {
		chardev_connected(c);
		return;
	}
	/* No descriptors left, and the socket stays ready. */
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

static int connect_again(void *arg, int *fds)
{
	fds[0] = unix_connect(arg, 0);
	return fds[0] < 0 ? fds[0] : 1;
}

/* Add the opener's end to @files as "ID.again". */
static int start_opener(const char *path, const char *id,
			struct opened_files *files)
{
	char name[sizeof(files->file[0].name) + 1];
	char *copy = strdup(path);
	int ret;

	if (!copy)
		return -ENOMEM;
	snprintf(name, sizeof(name), "%s.again", id);
	ret = opener_start(files, name, connect_again, RECONNECT_MS, copy);
	if (ret < 0)
		free(copy);
	return ret;
}

static int connect_open(const char *path, const char *id,
			struct opened_files *files, struct err *err)
{
	int ret = unix_connect(path, 0);

	if (ret >= 0)
		ret = chardev_add_file(files, id, "peer", ret);
	if (ret == 0)
		ret = start_opener(path, id, files);
	return ret < 0 ? err_set(err, ret, "%s", strerror(-ret)) : 0;
}

static void on_reopened(void *arg, const int *take_fds, unsigned nr)
{
	struct chardev *c = arg;

	while (nr > 1)
		close(take_fds[--nr]);
	if (chardev_set_duplex(c, take_fds[0]) == 0) {
		chardev_connected(c);
		return;
	}
	if (c->in.fd != take_fds[0])
		close(take_fds[0]);
	reopener_request(c->reopener);
}

static int connect_create(struct chardev *c, const char *id,
			  struct opened_files *files)
{
	int fd = chardev_take_file(files, id, "peer");
	int again_fd = chardev_take_file(files, id, "again");
	int ret = chardev_set_duplex(c, fd);

	if (ret < 0 && c->in.fd != fd)
		close(fd);
	c->up = ret == 0;
	if (ret == 0)
		ret = reopener_create(c->loop, again_fd, on_reopened, c,
				      &c->reopener);
	if (ret < 0)
		close(again_fd);
	return ret;
}

static void connect_next(struct chardev *c)
{
	chardev_set_ends(c, -1, -1);
	reopener_request(c->reopener);
}

const struct chardev_kind chardev_kind_unix_connect = {
	.name = "unix-connect",
	.arg = "PATH",
	.open = connect_open,
	.create = connect_create,
	.next = connect_next,
};

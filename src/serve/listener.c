/* SPDX-License-Identifier: BSD-2-Clause */
/* One client at a time. See listener.h. */
#include <errno.h>
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <viodev/loop.h>

#include "serve/listener.h"

#define RELISTEN_NS 100000000ull /* after accept() failed */

static void on_client(void *arg, uint32_t events)
{
	struct listener *l = arg;
	int fd = accept4(l->fd, NULL, NULL, SOCK_CLOEXEC), ret;

	if (fd < 0 && (errno == EAGAIN || errno == ECONNABORTED))
		return;
	vio_fd_set(l->source, 0);
	ret = fd < 0 ? -errno : l->come(l->arg, fd);
	if (ret == 0)
		return;
	if (fd >= 0)
		close(fd);
	l->failed(l->arg, -ret);
	vio_timer_set(l->timer, RELISTEN_NS);
}

static void on_timer(void *arg)
{
	listener_next(arg);
}

static int set_up(int fd)
{
	int listening = 0, flags = fcntl(fd, F_GETFL);
	socklen_t len = sizeof(listening);

	if (flags < 0 ||
	    getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len) < 0)
		return -errno;
	if (!listening)
		return -EINVAL;
	return fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 ? -errno : 0;
}

int listener_start(struct listener *l, int take_fd)
{
	int ret = l->fd >= 0 ? -EBUSY : set_up(take_fd);

	if (ret == 0)
		ret = vio_timer_add(l->loop, on_timer, l, &l->timer);
	if (ret == 0)
		ret = vio_fd_add(l->loop, take_fd, EPOLLIN, on_client, l,
				 &l->source);
	if (ret == 0)
		l->fd = take_fd;
	return ret;
}

void listener_next(struct listener *l)
{
	if (l->source)
		vio_fd_set(l->source, EPOLLIN);
}

void listener_stop(struct listener *l)
{
	vio_source_remove(l->source);
	vio_source_remove(l->timer);
	l->source = l->timer = NULL;
	if (l->fd >= 0)
		close(l->fd);
	l->fd = -1;
}

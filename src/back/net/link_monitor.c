/* SPDX-License-Identifier: BSD-2-Clause */
#include "back/net/link_monitor.h"

#include <errno.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define NAME        "link-monitor"
#define MAX_REPORTS 64 /* read in an iteration */

static int open_socket(void)
{
	const struct sockaddr_nl addr = { .nl_family = AF_NETLINK,
					  .nl_groups = RTMGRP_LINK };
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK,
			NETLINK_ROUTE);
	int ret;

	if (fd < 0)
		return -errno;
	if (bind(fd, (const struct sockaddr *)&addr, sizeof(addr)) == 0)
		return fd;
	ret = -errno;
	close(fd);
	return ret;
}

int link_monitor_open(struct opened_files *files)
{
	int fd = open_socket();
	int ret = fd < 0 ? fd : opened_files_add(files, NAME, fd);

	if (fd >= 0 && ret < 0)
		close(fd);
	return ret;
}

void link_monitor_take(struct link_monitor *m, struct opened_files *files)
{
	*m = (struct link_monitor){ .port.fd = opened_files_take(files, NAME) };
}

/* ENOBUFS means lost reports: look as well. */
static void on_readable(void *arg, uint32_t events)
{
	struct link_monitor *m = arg;
	char byte;

	for (int i = 0; i < MAX_REPORTS; i++) {
		if (read(m->port.fd, &byte, 1) < 0 && errno == EAGAIN)
			break;
	}
	m->changed(m->arg);
}

void link_monitor_start(struct link_monitor *m, struct vio_loop *loop,
			void (*changed)(void *arg), void *arg)
{
	m->port.loop = loop;
	m->port.cb = on_readable;
	m->port.arg = m;
	m->changed = changed;
	m->arg = arg;
	if (m->port.fd >= 0)
		net_port_watch(&m->port, EPOLLIN, true);
}

void link_monitor_close(struct link_monitor *m)
{
	net_port_close(&m->port);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Watching the interfaces of a network namespace: the kernel reports a deleted
 * AF_XDP interface or macvtap link on a netlink socket only. The reports are
 * not parsed: whoever watches looks at its own interface after each.
 */
#ifndef BACK_NET_LINK_MONITOR_H
#define BACK_NET_LINK_MONITOR_H

#include "back/net/net_be.h"

struct link_monitor {
	struct net_port port; /* fd is -1 when there is none */
	void (*changed)(void *arg);
	void *arg;
};

/* For a kind's open: add the socket to @files. 0 or -errno. */
int link_monitor_open(struct opened_files *files);

/* Take the socket from @files, if it was opened. */
void link_monitor_take(struct link_monitor *m, struct opened_files *files);

/* Call @changed whenever an interface was made, changed or deleted. */
void link_monitor_start(struct link_monitor *m, struct vio_loop *loop,
			void (*changed)(void *arg), void *arg);
void link_monitor_close(struct link_monitor *m);

#endif

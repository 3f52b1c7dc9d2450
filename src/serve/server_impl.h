/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What both servers have in common, and how they differ: a table of functions
 * for each protocol. Not installed.
 */
#ifndef SERVE_SERVER_IMPL_H
#define SERVE_SERVER_IMPL_H

#include <viodev/gmem.h>
#include <viodev/loop.h>
#include <viodev/pci.h>
#include <viodev/server.h>

#include "base/unix.h"
#include "serve/client.h"
#include "serve/listener.h"
#include "serve/mapping.h"

struct server_ops {
	size_t size; /* of a struct that begins with a vio_server */
	const struct pci_host *host;
	const struct gmem_ops *gmem_ops; /* or NULL */
	const int *syscalls;
	/* fini() must handle what a failed init() left. */
	int (*init)(struct vio_server *srv);
	void (*fini)(struct vio_server *srv);
	/*
	 * Before the first client; or NULL. May be called again after a
	 * failure.
	 */
	int (*start)(struct vio_server *srv);
	int (*add_client)(void *srv, int take_fd);
	/* vi_poll() or, with @arm, vi_arm(), when a driver may be served. */
	bool (*poll)(void *srv, bool arm);
	/* client_wake() was called. */
	void (*on_wake)(void *srv);
	void (*get_stats)(const struct vio_server *srv,
			  struct vio_server_stats *stats);
};

extern const struct server_ops vfuser_ops, vhuser_ops;

struct server_log {
	void (*fn)(void *arg, int level, const char *msg);
	void *arg;
	uint64_t since_ns; /* when tokens was last filled up */
	unsigned tokens;   /* lines that may be logged at once */
	unsigned nr_lost;
};

struct vio_server {
	const struct server_ops *ops;
	struct vio_loop *loop;
	char *name;
	struct pci_devinst pi; /* the device is built on it */
	struct vio_poller poller;
	struct gmem gm;
	struct server_log log;
	void (*notify)(void *arg, bool attached);
	void *notify_arg;
	struct vio_server_stats stats; /* except those of get_stats() */

	struct listener listener;
	bool started;
	char *path; /* of a socket that we created, or NULL */
	struct unix_name path_name;
	struct client_wake wake;
};

/*
 * Log a line. Guest and client cause most lines, so their rate is limited: 32
 * in a burst, then one a second. The next line says how many were lost.
 */
void server_log(struct vio_server *srv, int level, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/*
 * Log that the client has disconnected. @in_use: a driver used the device
 * before the reset, so the operator wants to know that its front-end gave up.
 */
void server_log_detached(struct vio_server *srv, bool in_use);

/* Call the notify function, if there is one. */
void server_notify(struct vio_server *srv, bool attached);

/* The client has disconnected: accept the next one. */
void server_next_client(struct vio_server *srv);

#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The protocols that a device can be served by, each behind the same few
 * functions. What they do is told in <viodev/vfio_user.h>.
 */
#ifndef VIODEV_TRANSPORT_H
#define VIODEV_TRANSPORT_H

#include <stdbool.h>

struct vio_loop;
struct json_object;
struct pci_devinst;

typedef void transport_log_fn(void *arg, int level, const char *msg);
typedef void transport_notify_fn(void *arg, bool attached);

struct transport {
	const char *name; /* as --transport= has it */
	const int *syscalls;
	int (*create)(struct vio_loop *loop, const char *name, void **ret_srv);
	void (*destroy)(void *srv); /* NULL is fine */
	struct pci_devinst *(*pci)(void *srv);
	int (*listen)(void *srv, int take_fd);
	/* Serve the front-end at its other end; NULL: it only listens. */
	int (*attach)(void *srv, int take_fd);
	void (*set_log)(void *srv, transport_log_fn *fn, void *arg);
	void (*set_notify)(void *srv, transport_notify_fn *fn, void *arg);
	void (*status)(void *srv, struct json_object *to);
};

extern const struct transport transport_vfio_user, transport_vhost_user;

/* By its name, or NULL. */
const struct transport *transport_find(const char *name);

#endif

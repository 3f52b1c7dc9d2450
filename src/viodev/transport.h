/* SPDX-License-Identifier: BSD-2-Clause */
/* The protocols of <viodev/server.h> by their names, and their status. */
#ifndef VIODEV_TRANSPORT_H
#define VIODEV_TRANSPORT_H

#include <stdbool.h>

#include <viodev/server.h>

struct json_object;

/* The name, as --transport= takes it. */
const char *transport_name(enum vio_protocol protocol);

/* False when there is no such protocol. */
bool transport_find(const char *name, enum vio_protocol *ret_protocol);

/* Add the server's state to what `ctl status` shows. */
void transport_status(const struct vio_server *srv, enum vio_protocol protocol,
		      struct json_object *to);

#endif

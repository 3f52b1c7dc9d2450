/* SPDX-License-Identifier: BSD-2-Clause */
#include "base/json.h"
#include "base/util.h"
#include "viodev/transport.h"

#include <string.h>

static const struct transport {
	const char *name;
	const char *regions_key, *bytes_key; /* of the status */
} transports[] = {
	[VIO_VFIO_USER] = { "vfio-user", "dma-regions", "dma-bytes" },
	[VIO_VHOST_USER] = { "vhost-user", "memory-regions", "memory-bytes" },
};

const char *transport_name(enum vio_protocol protocol)
{
	return transports[protocol].name;
}

bool transport_find(const char *name, enum vio_protocol *ret_protocol)
{
	for (unsigned i = 0; i < ARRAY_LEN(transports); i++) {
		if (strcmp(transports[i].name, name) == 0) {
			*ret_protocol = (enum vio_protocol)i;
			return true;
		}
	}
	return false;
}

void transport_status(const struct vio_server *srv, enum vio_protocol protocol,
		      struct json_object *to)
{
	const struct transport *t = &transports[protocol];
	struct vio_server_stats stats;

	vio_server_get_stats(srv, &stats);
	json_add_string(to, "transport", t->name);
	json_add_bool(to, "attached", stats.attached);
	json_add_uint(to, "clients", stats.clients);
	json_add_uint(to, "messages", stats.messages);
	json_add_uint(to, "bad-messages", stats.bad_messages);
	json_add_uint(to, t->regions_key, stats.mem_regions);
	json_add_uint(to, t->bytes_key, stats.mem_bytes);
	json_add_uint(to, "interrupts", stats.interrupts);
}

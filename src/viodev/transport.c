/* SPDX-License-Identifier: BSD-2-Clause */
#include "viodev/transport.h"

#include <json-c/json.h>
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
	for (unsigned i = 0; i < sizeof(transports) / sizeof(*transports);
	     i++) {
		if (strcmp(transports[i].name, name) == 0) {
			*ret_protocol = (enum vio_protocol)i;
			return true;
		}
	}
	return false;
}

static void add_u64(struct json_object *to, const char *key, uint64_t value)
{
	json_object_object_add(to, key, json_object_new_uint64(value));
}

void transport_status(const struct vio_server *srv, enum vio_protocol protocol,
		      struct json_object *to)
{
	const struct transport *t = &transports[protocol];
	struct vio_server_stats stats;

	vio_server_get_stats(srv, &stats);
	json_object_object_add(to, "transport",
			       json_object_new_string(t->name));
	json_object_object_add(to, "attached",
			       json_object_new_boolean(stats.attached));
	add_u64(to, "clients", stats.clients);
	add_u64(to, "messages", stats.messages);
	add_u64(to, "bad-messages", stats.bad_messages);
	add_u64(to, t->regions_key, stats.mem_regions);
	add_u64(to, t->bytes_key, stats.mem_bytes);
	add_u64(to, "interrupts", stats.interrupts);
}

/* SPDX-License-Identifier: BSD-2-Clause */
#include "viodev/transport.h"

#include <json-c/json.h>
#include <string.h>

#include <viodev/vfio_user.h>
#include <viodev/vhost_user.h>

static void add_u64(struct json_object *to, const char *key, uint64_t value)
{
	json_object_object_add(to, key, json_object_new_uint64(value));
}

static void add_clients(struct json_object *to, bool attached, uint64_t clients,
			uint64_t messages, uint64_t bad_messages)
{
	json_object_object_add(to, "attached",
			       json_object_new_boolean(attached));
	add_u64(to, "clients", clients);
	add_u64(to, "messages", messages);
	add_u64(to, "bad-messages", bad_messages);
}

/*
 * --- vfio-user ---
 */

static int vfio_create(struct vio_loop *loop, const char *name, void **ret_srv)
{
	struct vfuser *srv;
	int ret = vfuser_create(loop, name, &srv);

	if (ret == 0)
		*ret_srv = srv;
	return ret;
}

static void vfio_destroy(void *srv)
{
	vfuser_destroy(srv);
}

static struct pci_devinst *vfio_pci(void *srv)
{
	return vfuser_pci(srv);
}

static int vfio_listen(void *srv, int take_fd)
{
	return vfuser_listen(srv, take_fd);
}

static void vfio_set_log(void *srv, transport_log_fn *fn, void *arg)
{
	vfuser_set_log(srv, fn, arg);
}

static void vfio_set_notify(void *srv, transport_notify_fn *fn, void *arg)
{
	vfuser_set_notify(srv, fn, arg);
}

static void vfio_status(void *srv, struct json_object *to)
{
	struct vfuser_stats stats;

	vfuser_get_stats(srv, &stats);
	add_clients(to, stats.attached, stats.clients, stats.messages,
		    stats.bad_messages);
	add_u64(to, "dma-regions", stats.dma_regions);
	add_u64(to, "dma-bytes", stats.dma_bytes);
	add_u64(to, "interrupts", stats.interrupts);
}

/*
 * --- vhost-user ---
 */

static int vhost_create(struct vio_loop *loop, const char *name, void **ret_srv)
{
	struct vhuser *srv;
	int ret = vhuser_create(loop, name, &srv);

	if (ret == 0)
		*ret_srv = srv;
	return ret;
}

static void vhost_destroy(void *srv)
{
	vhuser_destroy(srv);
}

static struct pci_devinst *vhost_pci(void *srv)
{
	return vhuser_pci(srv);
}

static int vhost_listen(void *srv, int take_fd)
{
	return vhuser_listen(srv, take_fd);
}

static int vhost_attach(void *srv, int take_fd)
{
	return vhuser_attach(srv, take_fd);
}

static void vhost_set_log(void *srv, transport_log_fn *fn, void *arg)
{
	vhuser_set_log(srv, fn, arg);
}

static void vhost_set_notify(void *srv, transport_notify_fn *fn, void *arg)
{
	vhuser_set_notify(srv, fn, arg);
}

static void vhost_status(void *srv, struct json_object *to)
{
	struct vhuser_stats stats;

	vhuser_get_stats(srv, &stats);
	add_clients(to, stats.attached, stats.clients, stats.messages,
		    stats.bad_messages);
	add_u64(to, "memory-regions", stats.mem_regions);
	add_u64(to, "memory-bytes", stats.mem_bytes);
	add_u64(to, "interrupts", stats.interrupts);
}

/*
 * --- Tables ---
 */

const struct transport transport_vfio_user = {
	.name = "vfio-user",
	.syscalls = vfuser_syscalls,
	.create = vfio_create,
	.destroy = vfio_destroy,
	.pci = vfio_pci,
	.listen = vfio_listen,
	.set_log = vfio_set_log,
	.set_notify = vfio_set_notify,
	.status = vfio_status,
};

const struct transport transport_vhost_user = {
	.name = "vhost-user",
	.syscalls = vhuser_syscalls,
	.create = vhost_create,
	.destroy = vhost_destroy,
	.pci = vhost_pci,
	.listen = vhost_listen,
	.attach = vhost_attach,
	.set_log = vhost_set_log,
	.set_notify = vhost_set_notify,
	.status = vhost_status,
};

const struct transport *transport_find(const char *name)
{
	static const struct transport *const all[] = {
		&transport_vfio_user,
		&transport_vhost_user,
	};

	for (unsigned i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		if (strcmp(all[i]->name, name) == 0)
			return all[i];
	}
	return NULL;
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The vhost-user server: front-ends attach and detach. See <viodev/server.h>,
 * and vhost_user_impl.h for how the parts fit together.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <syslog.h>
#include <unistd.h>

#include "core/core.h"
#include "serve/vhost_user_impl.h"

#define MAX_BURST        32         /* messages before others get their turn, */
#define MAX_ITERATION_NS 1000000ull /* or this much time */

/*
 * --- Front-ends attach and detach ---
 */

static void close_client(struct vhuser *srv)
{
	vio_source_remove(srv->conn_source);
	srv->conn_source = NULL;
	vhconn_fini(&srv->conn);
	srv->waiting = srv->ran = false;
	srv->nr_leaving = 0;
	vhuser_cmd_reset(srv);
	vhuser_state_reset(srv);
}

/*
 * A device may run the loop while it handles a message: nested iterations
 * ignore that message, and the connection stays open while it is handled.
 */
static void begin_work(struct vhuser *srv)
{
	srv->working = true;
}

static void end_work(struct vhuser *srv)
{
	srv->working = false;
	if (srv->woken)
		client_wake(&srv->base.wake);
	srv->woken = false;
}

/* Completed requests are published for a front-end that reconnects. */
static void drop_client(struct vhuser *srv)
{
	bool in_use = srv->vs->vs_status & VIRTIO_CONFIG_STATUS_DRIVER_OK;

	begin_work(srv);
	vhuser_rings_reset(srv);
	close_client(srv);
	vhuser_forget_mtu(srv);
	vi_reset(srv->vs);
	vi_new_owner(srv->vs);
	srv->used = false;
	vhuser_mem_reset(srv);
	end_work(srv);
	server_next_client(&srv->base);
	server_log_detached(&srv->base, in_use);
	server_notify(&srv->base, false);
}

/* Handle the current or next message. 0: none yet. */
static int step(struct vhuser *srv)
{
	int ret = srv->waiting ? 1 : vhconn_read(&srv->conn, &srv->msg);

	if (ret <= 0)
		return ret;
	ret = vhuser_handle(srv, &srv->msg);
	srv->waiting = ret == VHUSER_LATER;
	if (srv->waiting)
		return 0;
	vhconn_consume(&srv->conn);
	return ret < 0 ? -EPROTO : 1;
}

/* At least one: no event follows for a message that has waited. */
static int handle_some(struct vhuser *srv)
{
	uint64_t end_ns = vio_now_ns() + MAX_ITERATION_NS;
	int ret = step(srv);

	for (int i = 1; i < MAX_BURST && ret > 0 && vio_now_ns() < end_ns; i++)
		ret = step(srv);
	return ret;
}

static void serve(struct vhuser *srv)
{
	bool was_waiting = srv->waiting;
	int ret;

	if (srv->working || srv->conn.fd < 0)
		return;
	begin_work(srv);
	ret = handle_some(srv);
	end_work(srv);
	if (ret < 0 && ret != -EPIPE)
		server_log(&srv->base, LOG_WARNING, "front-end dropped: %s",
			   strerror(-ret));
	if (ret < 0)
		drop_client(srv);
	else if (srv->waiting != was_waiting)
		vio_fd_set(srv->conn_source, srv->waiting ? 0 : EPOLLIN);
}

/* A disconnection is also reported while no message is wanted. */
static void on_socket(void *arg, uint32_t events)
{
	struct vhuser *srv = arg;

	if (srv->working)
		return;
	if (srv->waiting && (events & (EPOLLHUP | EPOLLERR)))
		drop_client(srv);
	else if (!srv->waiting)
		serve(srv);
}

/* The device returned what was waited for, or memory has faulted. */
static void on_wake(void *arg)
{
	struct vhuser *srv = arg;

	if (!srv->vs)
		return;
	if (srv->working) {
		srv->woken = true;
		return;
	}
	vhuser_mem_reap(srv);
	if (client_has_faulted(&srv->base.wake) && srv->conn.fd >= 0) {
		server_log(&srv->base, LOG_WARNING,
			   "front-end dropped: guest memory file truncated");
		drop_client(srv);
	}
	vi_kick_all(srv->vs);
	if (srv->waiting)
		serve(srv);
}

static bool poll_rings(void *arg, bool arm)
{
	struct vhuser *srv = arg;
	bool any;

	if (srv->working || srv->nr_running == 0)
		return false;
	VS_LOCK(srv->vs);
	any = arm ? vi_arm(srv->vs) : vi_poll(srv->vs);
	VS_UNLOCK(srv->vs);
	return any;
}

static int add_client(void *arg, int take_fd)
{
	struct vhuser *srv = arg;
	int ret = vio_fd_add(srv->base.loop, take_fd, EPOLLIN, on_socket, srv,
			     &srv->conn_source);

	if (ret < 0)
		return ret;
	vhconn_init(&srv->conn, take_fd);
	srv->base.stats.clients++;
	server_log(&srv->base, LOG_INFO, "front-end attached");
	server_notify(&srv->base, true);
	return 0;
}

/*
 * --- The server ---
 */

static void host_log(void *arg, int level, const char *msg)
{
	server_log(arg, level, "%s", msg);
}

/* On any thread. */
static void host_wake(void *arg)
{
	struct vhuser *srv = arg;

	client_wake(&srv->base.wake);
}

static const struct pci_host host = {
	.ph_wake = host_wake,
	.ph_log = host_log,
	.ph_queue_size = VHUSER_MAX_RING_SIZE,
};

/*
 * A model is built on a PCI function, because <viodev/virtio.h> knows nothing
 * else. Once it is complete, the core calls us instead of the function.
 */
static void device_wake(struct virtio_softc *vs)
{
	host_wake(vi_transport_arg(vs));
}

static void device_log(struct virtio_softc *vs, int level, const char *msg)
{
	host_log(vi_transport_arg(vs), level, msg);
}

/* The front-end's messages wait for idle rings, not for this. */
static void device_reset(struct virtio_softc *vs)
{
}

static const struct vi_transport transport = {
	.interrupt = vhuser_interrupt,
	.devcfg_changed = vhuser_devcfg_changed,
	.reset = device_reset,
	.reset_done = device_reset,
	.wake = device_wake,
	.log = device_log,
};

static int init(struct vio_server *base)
{
	struct vhuser *srv = to_vhuser(base);

	srv->conn.fd = srv->backend_fd = srv->state.fd = -1;
	vhuser_state_reset(srv);
	return 0;
}

static void fini(struct vio_server *base)
{
	struct vhuser *srv = to_vhuser(base);

	close_client(srv);
	vhuser_rings_fini(srv);
	vhuser_mem_fini(srv);
}

/* The device is complete. */
static int start(struct vio_server *base)
{
	struct vhuser *srv = to_vhuser(base);
	int ret;

	if (srv->vs)
		return 0;
	if (!base->pi.pi_arg)
		return -ENODEV;
	ret = vi_set_transport(base->pi.pi_arg, &transport, srv);
	if (ret < 0)
		return ret;
	srv->vs = base->pi.pi_arg;
	return vhuser_rings_init(srv);
}

static void get_stats(const struct vio_server *base,
		      struct vio_server_stats *stats)
{
	const struct vhuser *srv = (const struct vhuser *)base;

	stats->attached = srv->conn.fd >= 0;
	stats->mem_regions = srv->nr_regions;
	stats->mem_bytes = 0;
	for (unsigned i = 0; i < srv->nr_regions; i++)
		stats->mem_bytes += srv->regions[i].r.size;
}

static const int syscalls[] = {
	SYS_accept4,      SYS_fstatfs,     /* identifies event descriptors */
	SYS_getsockname,  SYS_getpeername, /* likewise, pairs of sockets */
	SYS_ftruncate,                     /* the in-flight area */
	SYS_memfd_create, SYS_recvmsg,     SYS_sendmsg, -1,
};

const struct server_ops vhuser_ops = {
	.size = sizeof(struct vhuser),
	.host = &host,
	.syscalls = syscalls,
	.init = init,
	.fini = fini,
	.start = start,
	.add_client = add_client,
	.poll = poll_rings,
	.on_wake = on_wake,
	.get_stats = get_stats,
};

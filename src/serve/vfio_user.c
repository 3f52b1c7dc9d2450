/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The vfio-user server: clients attach and detach. See <viodev/server.h>, and
 * vfio_user_impl.h for how the parts fit together.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <syslog.h>
#include <unistd.h>

#include "base/unix.h"
#include <viodev/virtio_core.h>
#include "serve/vfio_user_impl.h"

/*
 * --- Clients attach and detach ---
 */

void vfuser_fail(struct vfuser *srv, int level, const char *why)
{
	if (!vfuser_connected(srv))
		return;
	srv->dead = true;
	if (srv->negotiated)
		server_log(&srv->base, level, "client dropped: %s", why);
	vfuser_wake(srv);
}

void vfuser_wake(struct vfuser *srv)
{
	vio_task_defer(srv->base.loop, &srv->work);
}

static void close_client(struct vfuser *srv)
{
	vio_source_remove(srv->conn_source);
	vio_source_remove(srv->twin_source);
	srv->conn_source = srv->twin_source = NULL;
	vfconn_fini(&srv->conn);
	vfconn_fini(&srv->twin);
}

static void drop_client(struct vfuser *srv)
{
	const struct virtio_softc *vs = srv->base.pi.pi_arg;
	bool in_use = vs && vs->vs_status & VIRTIO_CONFIG_STATUS_DRIVER_OK;
	bool was_attached = srv->negotiated;

	close_client(srv);
	pci_reset(&srv->base.pi);
	pci_new_owner(&srv->base.pi);
	vfuser_mem_reset(srv);
	vfuser_dma_reset(srv);
	vfuser_irq_reset(srv);
	vio_timer_set(srv->timer, 0);
	srv->dead = srv->negotiated = srv->want_kick = false;
	srv->nr_written = 0;
	server_next_client(&srv->base);
	if (!was_attached)
		return;
	server_log_detached(&srv->base, in_use);
	server_notify(&srv->base, false);
}

/* Whether messages must wait: replies pile up, or the device rests. */
static bool is_blocked(struct vfuser *srv)
{
	return vfconn_unsent(&srv->conn) > VFCONN_HIGH_BYTES ||
	       !vfuser_mem_may_defer(srv) || vfuser_rests(srv);
}

static void watch_conn(const struct vfconn *conn, struct vio_source *source,
		       bool stop, uint32_t *events)
{
	uint32_t want = (stop || conn->full ? 0 : EPOLLIN) |
			(vfconn_unsent(conn) > 0 ? EPOLLOUT : 0);

	if (!source || want == *events)
		return;
	vio_fd_set(source, want);
	*events = want;
}

static void flush(struct vfuser *srv)
{
	if (!vfuser_connected(srv))
		return;
	if (vfconn_flush(&srv->conn) < 0 ||
	    (srv->twin.fd >= 0 && vfconn_flush(&srv->twin) < 0))
		vfuser_fail(srv, LOG_INFO, "disconnected");
}

/* Replies are sent before the queues are served: a guest may wait for them. */
static void work(void *arg)
{
	struct vfuser *srv = arg;
	struct vfconn_msg msg;

	/* Not while the device runs the loop to let its requests finish. */
	if (srv->working || srv->conn.fd < 0)
		return;
	srv->working = true;
	srv->share = VFUSER_ITERATION_BUDGET;
	flush(srv);
	vfuser_serve(srv);
	flush(srv);
	if (srv->want_kick && vfuser_connected(srv)) {
		srv->want_kick = false;
		pci_kick(&srv->base.pi);
		flush(srv);
	}
	srv->working = false;

	if (srv->dead) {
		drop_client(srv);
		return;
	}
	/* The socket does not report messages already read. */
	if (!is_blocked(srv) && vfconn_next(&srv->conn, &msg) != 0)
		vfuser_wake(srv);
	watch_conn(&srv->conn, srv->conn_source, is_blocked(srv),
		   &srv->conn_events);
	watch_conn(&srv->twin, srv->twin_source, false, &srv->twin_events);
}

static bool poll_rings(void *arg, bool arm)
{
	struct vfuser *srv = arg;
	struct vfconn_msg msg;
	bool any;

	if (srv->working || !vfuser_connected(srv))
		return false;
	srv->working = true;
	any = arm ? pci_arm(&srv->base.pi) : pci_poll(&srv->base.pi);
	if (any)
		flush(srv);
	srv->working = false;
	/* Access to unmapped memory may have received messages meanwhile. */
	if (any &&
	    (srv->dead || srv->want_kick || vfconn_unsent(&srv->conn) > 0 ||
	     vfconn_next(&srv->conn, &msg) != 0))
		vfuser_wake(srv);
	return any;
}

/* Read until there is a whole message; more may have arrived with it. */
static void fill(struct vfuser *srv, struct vfconn *conn)
{
	struct vfconn_msg msg;
	int ret = 1;

	if (conn->fd < 0)
		return;
	while (ret == 1 && vfconn_next(conn, &msg) == 0)
		ret = vfconn_fill(conn);
	if (ret == -EPIPE)
		vfuser_fail(srv, LOG_INFO, "disconnected");
	else if (ret < 0 && ret != -ENOBUFS)
		vfuser_fail(srv, LOG_WARNING, strerror(-ret));
}

void vfuser_on_socket(void *arg, uint32_t events)
{
	struct vfuser *srv = arg;

	if (srv->working)
		return;
	/* Nothing is read while blocked, which would hide a disconnection. */
	if ((events & (EPOLLHUP | EPOLLERR)) && is_blocked(srv))
		vfuser_fail(srv, LOG_INFO, "disconnected");
	fill(srv, &srv->twin);
	fill(srv, &srv->conn);
	work(srv);
}

static int add_client(void *arg, int take_fd)
{
	struct vfuser *srv = arg;
	int ret = vfconn_init(&srv->conn, take_fd);

	if (ret < 0)
		return ret;
	srv->thread = pthread_self();
	srv->conn_events = EPOLLIN;
	ret = vio_fd_add(srv->base.loop, take_fd, EPOLLIN, vfuser_on_socket,
			 srv, &srv->conn_source);
	if (ret < 0) {
		srv->conn.fd = -1; /* still the caller's */
		vfconn_fini(&srv->conn);
	}
	return ret;
}

static void on_timer(void *arg)
{
	vfuser_dma_timeout(arg);
}

static void on_rest_timer(void *arg)
{
	vfuser_wake(arg);
}

/* The device returned what was waited for, or memory has faulted. */
static void on_wake(void *arg)
{
	struct vfuser *srv = arg;

	if (client_has_faulted(&srv->base.wake))
		vfuser_fail(srv, LOG_WARNING, "guest memory file truncated");
	vfuser_mem_reap(srv);
	srv->want_kick = true;
	vfuser_wake(srv);
}

/*
 * --- The server ---
 */

static int init(struct vio_server *base)
{
	struct vfuser *srv = to_vfuser(base);
	int ret;

	srv->conn.fd = srv->twin.fd = -1;
	srv->work = (struct vio_task){ .fn = work, .arg = srv };
	vfuser_dma_reset(srv);
	vfuser_irq_init(srv);
	ret = vio_timer_add(base->loop, on_timer, srv, &srv->timer);
	if (ret == 0)
		ret = vio_timer_add(base->loop, on_rest_timer, srv,
				    &srv->rest_timer);
	if (ret == 0)
		ret = ramfiles_init(&srv->mem.files, base->loop, &base->wake);
	return ret;
}

static void fini(struct vio_server *base)
{
	struct vfuser *srv = to_vfuser(base);

	close_client(srv);
	vfuser_mem_reset(srv);
	vfuser_mem_reap(srv);
	ramfiles_fini(&srv->mem.files);
	vfuser_irq_reset(srv);
	vio_task_cancel(base->loop, &srv->work);
	vio_source_remove(srv->timer);
	vio_source_remove(srv->rest_timer);
}

static void get_stats(const struct vio_server *base,
		      struct vio_server_stats *stats)
{
	const struct vfuser *srv = (const struct vfuser *)base;

	stats->attached = srv->negotiated;
	stats->mem_regions = base->gm.nr_regions;
	stats->mem_bytes = srv->mem.bytes;
}

static const int syscalls[] = {
	SYS_accept4, SYS_fstatfs, /* identifies event descriptors */
	SYS_recvmsg, SYS_sendmsg, SYS_socketpair, /* twin socket */
	-1,
};

const struct server_ops vfuser_ops = {
	.size = sizeof(struct vfuser),
	.host = &vfuser_pci_host,
	.gmem_ops = &vfuser_gmem_ops,
	.syscalls = syscalls,
	.init = init,
	.fini = fini,
	.add_client = add_client,
	.poll = poll_rings,
	.on_wake = on_wake,
	.get_stats = get_stats,
};

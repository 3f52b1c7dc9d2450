/* SPDX-License-Identifier: BSD-2-Clause */
/* The client's commands to the vfio-user server: VERSION, and dispatch. */
#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <syslog.h>
#include <unistd.h>

#include "serve/vfio_user_impl.h"

/*
 * --- VERSION ---
 */

/* A second socket for our commands. Its other end goes with the next reply. */
static bool open_twin(struct vfuser *srv)
{
	int fds[2];

	/* The descriptor is tied to the first byte that is sent from now on. */
	if (vfconn_unsent(&srv->conn) > 0 ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
		return false;
	if (vfconn_init(&srv->twin, fds[0]) < 0) {
		close(fds[0]);
		close(fds[1]);
		return false;
	}
	srv->conn.send_fd = fds[1];
	return true;
}

static bool start_twin(struct vfuser *srv)
{
	if (!open_twin(srv))
		return false;
	srv->twin_events = EPOLLIN;
	if (vio_fd_add(srv->base.loop, srv->twin.fd, EPOLLIN, vfuser_on_socket,
		       srv, &srv->twin_source) == 0)
		return true;
	close(srv->conn.send_fd);
	srv->conn.send_fd = -1;
	vfconn_fini(&srv->twin);
	return false;
}

static ssize_t do_version(struct vfuser *srv, const struct vfconn_msg *msg,
			  uint8_t *reply)
{
	struct vfmsg_version theirs, ours = { 0 };
	size_t len;
	int ret = vfmsg_decode_version(msg->payload, msg->len, &theirs);

	if (ret < 0)
		return ret;
	if (srv->negotiated)
		return -EINVAL;
	ours.write_multi = theirs.write_multi;
	ours.twin_socket =
		theirs.twin_socket && !(msg->hdr.flags & VFMSG_NO_REPLY);
	len = vfmsg_encode_version(reply, msg->len, &ours);
	if (ours.twin_socket && !start_twin(srv)) {
		ours.twin_socket = false;
		len = vfmsg_encode_version(reply, msg->len, &ours);
	}

	vfuser_irq_clear(srv); /* what the device raised without a client */
	vfuser_dma_set_max_xfer(srv, theirs.max_xfer);
	srv->negotiated = true;
	srv->base.stats.clients++;
	server_log(&srv->base, LOG_INFO, "client attached");
	server_notify(&srv->base, true);
	return (ssize_t)len;
}

/*
 * --- Other commands ---
 */

static ssize_t get_info(struct vfuser *srv, const struct vfconn_msg *msg,
			uint8_t *reply)
{
	const struct vfmsg_info info = {
		.argsz = sizeof(info),
		.flags = VFMSG_INFO_RESET | VFMSG_INFO_PCI,
		.nr_regions = VFMSG_NR_REGIONS,
		.nr_irqs = VFMSG_NR_IRQS,
	};
	int ret = vfmsg_decode_info(msg->payload, msg->len);

	if (ret < 0)
		return ret;
	memcpy(reply, &info, sizeof(info));
	return sizeof(info);
}

#define REST_NS 2000000000ull

/* Whether no request that the driver believes to have ended uses its memory. */
static bool is_quiet(struct pci_devinst *pi)
{
	return pci_is_reset(pi) && (pci_bus_master(pi) || pci_is_idle(pi));
}

bool vfuser_rests(struct vfuser *srv)
{
	if (is_quiet(&srv->base.pi)) {
		srv->rest_until_ns = 0;
		return false;
	}
	if (srv->rest_until_ns == 0) {
		srv->rest_until_ns = vio_now_ns() + REST_NS;
		vio_timer_set(srv->rest_timer, REST_NS);
	}
	return vio_now_ns() < srv->rest_until_ns;
}

/* Mappings and bound descriptors survive. */
static ssize_t reset(struct vfuser *srv, const struct vfconn_msg *msg,
		     uint8_t *reply)
{
	pci_reset(&srv->base.pi);
	vfuser_irq_clear(srv);
	return vfuser_rests(srv) ? -EINPROGRESS : 0;
}

static ssize_t not_supported(struct vfuser *srv, const struct vfconn_msg *msg,
			     uint8_t *reply)
{
	return -EOPNOTSUPP;
}

static const struct command {
	vfuser_handler *fn;
	bool harmless; /* does not change the device's state */
} commands[VFMSG_NR_CMDS] = {
	[VFMSG_VERSION] = { do_version },
	[VFMSG_DMA_MAP] = { vfuser_dma_map },
	[VFMSG_DMA_UNMAP] = { vfuser_dma_unmap },
	[VFMSG_GET_INFO] = { get_info, true },
	[VFMSG_GET_REGION_INFO] = { vfuser_get_region_info, true },
	[VFMSG_GET_REGION_IO_FDS] = { vfuser_get_region_io_fds, true },
	[VFMSG_GET_IRQ_INFO] = { vfuser_get_irq_info, true },
	[VFMSG_SET_IRQS] = { vfuser_set_irqs },
	[VFMSG_REGION_READ] = { vfuser_region_read, true },
	[VFMSG_REGION_WRITE] = { vfuser_region_write },
	[VFMSG_DMA_READ] = { not_supported },
	[VFMSG_DMA_WRITE] = { not_supported },
	[VFMSG_RESET] = { reset },
	[VFMSG_DIRTY_PAGES] = { not_supported },
	[VFMSG_REGION_WRITE_MULTI] = { vfuser_region_write_multi },
	[VFMSG_FEATURE] = { not_supported },
	[VFMSG_MIG_DATA_READ] = { not_supported },
	[VFMSG_MIG_DATA_WRITE] = { not_supported },
};

/*
 * --- Dispatch ---
 */

static bool is_reply(const struct vfconn_msg *msg)
{
	return (msg->hdr.flags & VFMSG_TYPE_MASK) == VFMSG_REPLY;
}

static bool is_harmless(struct vfuser *srv, const struct vfconn_msg *msg)
{
	if (is_reply(msg))
		return true;
	/* Register accesses need the lock, which is held. */
	if (msg->hdr.cmd == VFMSG_REGION_READ && pci_has_lock(&srv->base.pi))
		return false;
	if (msg->hdr.cmd < VFMSG_NR_CMDS && commands[msg->hdr.cmd].harmless)
		return true;
	return vfuser_is_doorbell(srv, msg);
}

static ssize_t run_command(struct vfuser *srv, const struct vfconn_msg *msg)
{
	ssize_t ret;

	if (msg->hdr.cmd >= VFMSG_NR_CMDS || !commands[msg->hdr.cmd].fn)
		return -ENOSYS;
	if (!srv->negotiated && msg->hdr.cmd != VFMSG_VERSION)
		return -EINVAL;
	srv->in_handler = true;
	ret = commands[msg->hdr.cmd].fn(srv, msg, srv->reply);
	srv->in_handler = false;
	return ret;
}

void vfuser_reply(struct vfuser *srv, const struct vfmsg_hdr *cmd, ssize_t ret)
{
	size_t len = ret > 0 ? (size_t)ret : 0;
	struct vfmsg_hdr hdr = {
		.id = cmd->id,
		.cmd = cmd->cmd,
		.size = (uint32_t)(VFMSG_HDR_BYTES + len),
		.flags = VFMSG_REPLY | (ret < 0 ? VFMSG_ERROR : 0),
		.error = ret < 0 ? (uint32_t)-ret : 0,
	};

	if (cmd->flags & VFMSG_NO_REPLY)
		return;
	if (!vfconn_queue(&srv->conn, &hdr, srv->reply, NULL, 0))
		vfuser_fail(srv, LOG_WARNING, "peer is not reading its socket");
}

/* Whether it is done; otherwise it must be handled again. */
static bool handle(struct vfuser *srv, const struct vfconn_msg *msg)
{
	ssize_t ret;

	if (is_reply(msg)) {
		srv->base.stats.messages++;
		vfuser_dma_reply(srv, msg);
		return true;
	}
	ret = run_command(srv, msg);
	if (ret == -EINPROGRESS)
		return false;
	srv->base.stats.messages++;
	if (ret < 0) {
		srv->base.stats.bad_messages++;
		server_log(&srv->base, LOG_WARNING, "rejected command %u: %s",
			   msg->hdr.cmd, strerror((int)-ret));
	}
	if (!vfuser_mem_defer(srv, msg, ret))
		vfuser_reply(srv, &msg->hdr, ret);
	return true;
}

/* The next message of a connection, as long as it is usable. */
static bool next(struct vfuser *srv, struct vfconn *conn,
		 struct vfconn_msg *ret_msg)
{
	int ret;

	if (!vfuser_connected(srv) || conn->fd < 0)
		return false;
	ret = vfconn_next(conn, ret_msg);
	if (ret < 0)
		vfuser_fail(srv, LOG_WARNING, "malformed message");
	return ret > 0;
}

static void serve_twin(struct vfuser *srv)
{
	struct vfconn_msg msg;

	while (next(srv, &srv->twin, &msg)) {
		if (is_reply(&msg))
			handle(srv, &msg);
		else
			vfuser_fail(srv, LOG_WARNING,
				    "command on the twin socket");
		vfconn_consume(&srv->twin, &msg);
	}
	vfconn_compact(&srv->twin);
}

bool vfuser_serve(struct vfuser *srv)
{
	struct vfconn_msg msg;

	if (srv->waiting) /* which has its own deadline */
		srv->share = UINT_MAX;
	serve_twin(srv);
	while (vfconn_unsent(&srv->conn) <= VFCONN_HIGH_BYTES &&
	       next(srv, &srv->conn, &msg)) {
		if (srv->waiting && !is_harmless(srv, &msg))
			return true;
		if (!is_reply(&msg) && vfuser_rests(srv))
			break;
		if (!vfuser_mem_may_defer(srv) || !vfuser_take_share(srv) ||
		    !handle(srv, &msg))
			break;
		vfconn_consume(&srv->conn, &msg);
	}
	vfconn_compact(&srv->conn);
	return false;
}

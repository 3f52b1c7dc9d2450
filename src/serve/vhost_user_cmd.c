/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Messages to the vhost-user server: features, status, device configuration,
 * and dispatch.
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <syslog.h>
#include <unistd.h>

#include "core/core.h"
#include "serve/vhost_user_impl.h"

/* Feature bits that the protocol uses itself. */
#define WIRE_FEATURES (VI_BIT(VHMSG_F_LOG_ALL) | VI_BIT(VHMSG_F_PROTOCOL))

static ssize_t reply_u64(uint8_t *reply, uint64_t val)
{
	memcpy(reply, &val, sizeof(val));
	return sizeof(val);
}

/*
 * --- Features ---
 */

/*
 * QEMU's front-ends offer their driver what is offered here, even if they do
 * not do their part of it. What a PCI function would have to implement is
 * masked: SR_IOV, NOTIFICATION_DATA, NOTIF_CONFIG_DATA, ADMIN_VQ, SUSPEND, and
 * all others from 37 to 49. RING_RESET is among them: QEMU's network card, at
 * least up to 11.1, resets the queue without notifying the back-end, which
 * would continue to use memory that the guest has reused. 24, 27 and 31 are not
 * for modern drivers, and ACCESS_PLATFORM has another meaning here: an IOTLB,
 * which we do not have.
 */
#define NOT_HERE                                                          \
	(VI_BIT(VIRTIO_F_NOTIFY_ON_EMPTY) | VI_BIT(VIRTIO_F_ANY_LAYOUT) | \
	 VI_BIT(31) | VI_BIT(VIRTIO_F_ACCESS_PLATFORM) |                  \
	 0x1fffull << VIRTIO_F_SR_IOV)

static uint64_t offer(const struct vhuser *srv)
{
	return (vi_offer(srv->vs, true) & ~NOT_HERE) | WIRE_FEATURES;
}

/* Packed rings are a modern driver's: without VERSION_1 rings are split. */
static bool is_acceptable(const struct vhuser *srv, uint64_t features)
{
	bool modern = features & VI_BIT(VIRTIO_F_VERSION_1);
	bool packed = features & VI_BIT(VIRTIO_F_RING_PACKED);

	return !(features & ~offer(srv)) && (modern || !packed);
}

static uint64_t protocol_offer(const struct vhuser *srv)
{
	const struct virtio_net_ops *net = srv->vs->vs_vc->vc_net;
	uint64_t f = VI_BIT(VHMSG_PF_MQ) | VI_BIT(VHMSG_PF_LOG_SHMFD) |
		     VI_BIT(VHMSG_PF_REPLY_ACK) | VI_BIT(VHMSG_PF_BACKEND_REQ) |
		     VI_BIT(VHMSG_PF_INFLIGHT_SHMFD) |
		     VI_BIT(VHMSG_PF_RESET_DEVICE) |
		     VI_BIT(VHMSG_PF_MEM_SLOTS) | VI_BIT(VHMSG_PF_STATUS);

	if (srv->vs->vs_vc->vc_cfgsize > 0)
		f |= VI_BIT(VHMSG_PF_CONFIG);
	if (srv->vs->vs_vc->vc_save)
		f |= VI_BIT(VHMSG_PF_DEVICE_STATE);
	if (net && net->no_set_mtu)
		f |= VI_BIT(VHMSG_PF_NET_MTU);
	if (net && net->no_announce)
		f |= VI_BIT(VHMSG_PF_RARP);
	return f;
}

/*
 * Give the device, fresh from reset, the features that its driver accepted.
 * Front-ends do not pass on features that they handle, such as the control
 * queue of a network device: features that depend on these are dropped as well.
 */
static int negotiate(struct vhuser *srv)
{
	const uint8_t driver =
		VIRTIO_CONFIG_STATUS_ACK | VIRTIO_CONFIG_STATUS_DRIVER;
	uint64_t features = srv->features & ~WIRE_FEATURES;
	struct virtio_softc *vs = srv->vs;
	bool ok = true;

	VS_LOCK(vs);
	if (!(features & VI_BIT(VIRTIO_F_VERSION_1))) {
		vi_set_status(vs, driver, false);
		vi_set_legacy_features(vs, (uint32_t)features);
	} else {
		if (vs->vs_vc->vc_apply_features)
			vs->vs_vc->vc_apply_features(vs, &features);
		vi_set_driver_features(vs, 0, (uint32_t)features);
		vi_set_driver_features(vs, 1, (uint32_t)(features >> 32));
		vi_set_status(vs, driver | VIRTIO_CONFIG_STATUS_FEATURES_OK,
			      true);
		ok = vs->vs_status & VIRTIO_CONFIG_STATUS_FEATURES_OK;
	}
	VS_UNLOCK(vs);
	return ok ? 0 : -EINVAL;
}

int vhuser_renew(struct vhuser *srv)
{
	vi_reset(srv->vs);
	if (srv->used) {
		vhuser_forget_requests(srv);
		vhuser_inflight_clear(srv);
	}
	srv->used = false;
	return srv->has_features ? negotiate(srv) : 0;
}

uint64_t vhuser_driver_features(const struct vhuser *srv)
{
	return srv->has_features ? srv->features & ~WIRE_FEATURES : 0;
}

int vhuser_adopt_features(struct vhuser *srv, uint64_t features)
{
	bool told = srv->has_features;
	int ret;

	if ((features & WIRE_FEATURES) || !is_acceptable(srv, features) ||
	    (told && features != vhuser_driver_features(srv)))
		return -EINVAL;
	srv->features = features | (srv->features & WIRE_FEATURES);
	srv->has_features = true;
	ret = vhuser_renew(srv);
	if (ret < 0)
		srv->has_features = told;
	return ret;
}

static ssize_t get_features(struct vhuser *srv, const struct vhconn_msg *msg,
			    uint8_t *reply)
{
	return reply_u64(reply, offer(srv));
}

/* Also sent to a device that runs, to turn logging on or off. */
static ssize_t set_features(struct vhuser *srv, const struct vhconn_msg *msg,
			    uint8_t *reply)
{
	uint64_t features, changed;
	int ret = vhmsg_decode_u64(msg->payload, msg->hdr.size, &features);

	if (ret < 0 || !is_acceptable(srv, features))
		return -EINVAL;
	changed = (features ^ srv->features) & ~WIRE_FEATURES;
	if (changed && srv->nr_running > 0)
		return -EBUSY;
	srv->features = features;
	vhuser_update_log(srv);
	if (changed || !srv->has_features) {
		srv->has_features = true;
		ret = vhuser_renew(srv);
		srv->has_features = ret == 0;
	}
	/* Then no message enables the rings. */
	if (ret == 0 && !(features & VI_BIT(VHMSG_F_PROTOCOL)))
		vhuser_enable_rings(srv, true);
	return ret;
}

static ssize_t get_protocol_features(struct vhuser *srv,
				     const struct vhconn_msg *msg,
				     uint8_t *reply)
{
	return reply_u64(reply, protocol_offer(srv));
}

static ssize_t set_protocol_features(struct vhuser *srv,
				     const struct vhconn_msg *msg,
				     uint8_t *reply)
{
	uint64_t features;

	if (vhmsg_decode_u64(msg->payload, msg->hdr.size, &features) < 0 ||
	    (features & ~protocol_offer(srv)))
		return -EINVAL;
	srv->protocol = features;
	return 0;
}

static ssize_t get_queue_num(struct vhuser *srv, const struct vhconn_msg *msg,
			     uint8_t *reply)
{
	return reply_u64(reply, srv->nr_rings);
}

static ssize_t get_max_mem_slots(struct vhuser *srv,
				 const struct vhconn_msg *msg, uint8_t *reply)
{
	return reply_u64(reply, VHMSG_MAX_SLOTS);
}

/*
 * --- Reset and status ---
 */

static ssize_t nothing(struct vhuser *srv, const struct vhconn_msg *msg,
		       uint8_t *reply)
{
	return 0;
}

static ssize_t reset_owner(struct vhuser *srv, const struct vhconn_msg *msg,
			   uint8_t *reply)
{
	return vhuser_enable_rings(srv, false);
}

/* Answered once no earlier request can access guest memory any more. */
static ssize_t reset_device(struct vhuser *srv, const struct vhconn_msg *msg,
			    uint8_t *reply)
{
	vhuser_forget_requests(srv);
	vhuser_enable_rings(srv, false);
	srv->status = 0;
	return vhuser_renew(srv);
}

static ssize_t get_status(struct vhuser *srv, const struct vhconn_msg *msg,
			  uint8_t *reply)
{
	return reply_u64(reply,
			 srv->status | (srv->vs->vs_status &
					VIRTIO_CONFIG_STATUS_NEEDS_RESET));
}

/* 0 is also sent when a guest is only paused: the rings tell which. */
static ssize_t set_status(struct vhuser *srv, const struct vhconn_msg *msg,
			  uint8_t *reply)
{
	uint64_t status;

	if (vhmsg_decode_u64(msg->payload, msg->hdr.size, &status) < 0 ||
	    status > UINT8_MAX)
		return -EINVAL;
	srv->status = (uint8_t)status;
	return status == 0 ? vhuser_stop_rings(srv) : 0;
}

/*
 * --- Device configuration ---
 */

/* The widest naturally aligned access at @off, at most @left bytes. */
static unsigned access_size(unsigned off, unsigned left)
{
	if (off % 4 == 0 && left >= 4)
		return 4;
	return off % 2 == 0 && left >= 2 ? 2 : 1;
}

static ssize_t get_config(struct vhuser *srv, const struct vhconn_msg *msg,
			  uint8_t *reply)
{
	struct vhmsg_config c;
	unsigned done = 0, size;

	if (vhmsg_decode_config(msg->payload, msg->hdr.size, &c) < 0)
		return -EINVAL;
	memcpy(reply, msg->payload, VHMSG_CONFIG_BYTES);
	reply += VHMSG_CONFIG_BYTES;
	VS_LOCK(srv->vs);
	for (; done < c.size; done += size) {
		uint64_t val = 0;

		size = access_size(c.offset + done, c.size - done);
		if (c.offset + done < srv->vs->vs_vc->vc_cfgsize)
			val = vi_devcfg_read(srv->vs, c.offset + done,
					     (int)size);
		val = htole64(val);
		memcpy(reply + done, &val, size);
	}
	VS_UNLOCK(srv->vs);
	return VHMSG_CONFIG_BYTES + (ssize_t)c.size;
}

static ssize_t set_config(struct vhuser *srv, const struct vhconn_msg *msg,
			  uint8_t *reply)
{
	struct vhmsg_config c;
	unsigned done = 0, size;

	if (vhmsg_decode_config(msg->payload, msg->hdr.size, &c) < 0)
		return -EINVAL;
	VS_LOCK(srv->vs);
	for (; done < c.size; done += size) {
		uint64_t val = 0;

		size = access_size(c.offset + done, c.size - done);
		memcpy(&val, c.data + done, size);
		val = le64toh(val);
		if (c.offset + done < srv->vs->vs_vc->vc_cfgsize)
			vi_devcfg_write(srv->vs, c.offset + done, (int)size,
					val);
	}
	VS_UNLOCK(srv->vs);
	return 0;
}

static ssize_t set_backend_fd(struct vhuser *srv, const struct vhconn_msg *msg,
			      uint8_t *reply)
{
	if (msg->nr_fds != 1 || client_socket(msg->fds[0]) < 0)
		return -EINVAL;
	if (srv->backend_fd >= 0)
		close(srv->backend_fd);
	srv->backend_fd = vhuser_take_fd(msg, 0);
	return 0;
}

/*
 * No answer is requested: the front-end would read the configuration first,
 * from us. A full socket is full of the same message. Nothing is sent while the
 * guest is paused.
 */
void vhuser_tell_config(struct vhuser *srv)
{
	struct vhmsg_hdr hdr = {
		.request = VHMSG_BACKEND_CONFIG_CHANGE,
		.flags = VHMSG_VERSION,
	};
	struct iovec iov = { &hdr, sizeof(hdr) };
	const struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

	srv->config_changed = srv->nr_running == 0;
	if (srv->config_changed || srv->backend_fd < 0)
		return;
	if (sendmsg(srv->backend_fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 &&
	    errno != EAGAIN)
		server_log(&srv->base, LOG_WARNING,
			   "cannot send a configuration change to the "
			   "front-end: %s",
			   strerror(errno));
}

/*
 * --- Network devices ---
 */

static ssize_t send_rarp(struct vhuser *srv, const struct vhconn_msg *msg,
			 uint8_t *reply)
{
	struct virtio_softc *vs = srv->vs;
	const struct virtio_net_ops *net = vs->vs_vc->vc_net;
	uint64_t mac; /* in its first six bytes */
	int ret;

	if (!net || !net->no_announce)
		return -EOPNOTSUPP;
	if (vhmsg_decode_u64(msg->payload, msg->hdr.size, &mac) < 0)
		return -EINVAL;
	VS_LOCK(vs);
	ret = net->no_announce(vs, (const uint8_t *)&mac);
	VS_UNLOCK(vs);
	/* A network that accepts no frame now is not the front-end's fault. */
	if (ret < 0)
		server_log(&srv->base, LOG_INFO,
			   "cannot announce the MAC address: %s",
			   strerror(-ret));
	return 0;
}

static int set_mtu(struct vhuser *srv, uint16_t mtu)
{
	struct virtio_softc *vs = srv->vs;
	const struct virtio_net_ops *net = vs->vs_vc->vc_net;
	int ret;

	if (!net || !net->no_set_mtu)
		return -EOPNOTSUPP;
	VS_LOCK(vs);
	ret = net->no_set_mtu(vs, mtu);
	VS_UNLOCK(vs);
	return ret;
}

static ssize_t net_set_mtu(struct vhuser *srv, const struct vhconn_msg *msg,
			   uint8_t *reply)
{
	uint64_t mtu;

	if (vhmsg_decode_u64(msg->payload, msg->hdr.size, &mtu) < 0 ||
	    mtu == 0 || mtu > UINT16_MAX)
		return -EINVAL;
	return set_mtu(srv, (uint16_t)mtu);
}

void vhuser_forget_mtu(struct vhuser *srv)
{
	set_mtu(srv, 0);
}

void vhuser_cmd_reset(struct vhuser *srv)
{
	if (srv->backend_fd >= 0)
		close(srv->backend_fd);
	srv->backend_fd = -1;
	srv->has_features = srv->config_changed = false;
	srv->features = srv->protocol = 0;
	srv->status = 0;
}

/*
 * --- Dispatch ---
 */

static const struct request {
	vhuser_handler *fn;
	bool answers; /* has its own reply */
} requests[VHMSG_NR_REQUESTS] = {
	[VHMSG_GET_FEATURES] = { get_features, true },
	[VHMSG_SET_FEATURES] = { set_features },
	[VHMSG_SET_OWNER] = { nothing },
	[VHMSG_RESET_OWNER] = { reset_owner },
	[VHMSG_SET_MEM_TABLE] = { vhuser_set_mem_table },
	[VHMSG_SET_LOG_BASE] = { vhuser_set_log_base, true },
	[VHMSG_SET_LOG_FD] = { nothing },
	[VHMSG_SET_VRING_NUM] = { vhuser_set_vring_num },
	[VHMSG_SET_VRING_ADDR] = { vhuser_set_vring_addr },
	[VHMSG_SET_VRING_BASE] = { vhuser_set_vring_base },
	[VHMSG_GET_VRING_BASE] = { vhuser_get_vring_base, true },
	[VHMSG_SET_VRING_KICK] = { vhuser_set_vring_kick },
	[VHMSG_SET_VRING_CALL] = { vhuser_set_vring_call },
	[VHMSG_SET_VRING_ERR] = { vhuser_set_vring_err },
	[VHMSG_GET_PROTOCOL_FEATURES] = { get_protocol_features, true },
	[VHMSG_SET_PROTOCOL_FEATURES] = { set_protocol_features },
	[VHMSG_GET_QUEUE_NUM] = { get_queue_num, true },
	[VHMSG_SET_VRING_ENABLE] = { vhuser_set_vring_enable },
	[VHMSG_SEND_RARP] = { send_rarp },
	[VHMSG_NET_SET_MTU] = { net_set_mtu },
	[VHMSG_SET_BACKEND_REQ_FD] = { set_backend_fd },
	[VHMSG_GET_CONFIG] = { get_config, true },
	[VHMSG_SET_CONFIG] = { set_config },
	[VHMSG_GET_INFLIGHT_FD] = { vhuser_get_inflight, true },
	[VHMSG_SET_INFLIGHT_FD] = { vhuser_set_inflight },
	[VHMSG_RESET_DEVICE] = { reset_device },
	[VHMSG_GET_MAX_MEM_SLOTS] = { get_max_mem_slots, true },
	[VHMSG_ADD_MEM_REG] = { vhuser_add_mem_reg },
	[VHMSG_REM_MEM_REG] = { vhuser_rem_mem_reg },
	[VHMSG_SET_STATUS] = { set_status },
	[VHMSG_GET_STATUS] = { get_status, true },
	[VHMSG_SET_DEVICE_STATE_FD] = { vhuser_set_state_fd, true },
	[VHMSG_CHECK_DEVICE_STATE] = { vhuser_check_state, true },
};

static ssize_t run(struct vhuser *srv, const struct vhconn_msg *msg,
		   const struct request *request, uint8_t *reply)
{
	if (!request)
		return -EOPNOTSUPP;
	if (srv->conn.too_many_fds)
		return -E2BIG;
	return request->fn(srv, msg, reply);
}

/* The answer to GET_INFLIGHT_FD carries the file. */
static int answer(struct vhuser *srv, uint32_t request, const uint8_t *reply,
		  size_t len)
{
	struct vhmsg_inflight area;
	int fd = -1, ret;

	if (request == VHMSG_GET_INFLIGHT_FD &&
	    vhmsg_decode_inflight(reply, len, &area) == 0) {
		fd = vhuser_inflight_file(&area);
		if (fd < 0)
			return fd;
	}
	ret = vhconn_reply(&srv->conn, request, reply, len, fd);
	if (fd >= 0)
		close(fd);
	return ret;
}

/* Whether the handled request has taken effect and may be answered. */
static bool is_over(struct vhuser *srv, uint32_t request)
{
	bool reset;

	if (request != VHMSG_RESET_DEVICE)
		return srv->nr_leaving == 0;
	VS_LOCK(srv->vs);
	reset = vi_is_reset(srv->vs);
	VS_UNLOCK(srv->vs);
	return reset;
}

int vhuser_handle(struct vhuser *srv, const struct vhconn_msg *msg)
{
	uint8_t reply[VHMSG_MAX_PAYLOAD];
	uint32_t nr = msg->hdr.request;
	const struct request *request =
		nr < VHMSG_NR_REQUESTS && requests[nr].fn ? &requests[nr] :
							    NULL;
	ssize_t ret = srv->ran ? srv->result : run(srv, msg, request, reply);

	if (ret == VHUSER_LATER)
		return VHUSER_LATER;
	srv->ran = !is_over(srv, nr);
	srv->result = ret;
	if (srv->ran)
		return VHUSER_LATER;
	srv->base.stats.messages++;
	if (ret < 0) {
		srv->base.stats.bad_messages++;
		server_log(&srv->base, LOG_WARNING, "rejected message %u: %s",
			   nr, strerror((int)-ret));
	}
	if (request && request->answers)
		return ret < 0 ? (int)ret : answer(srv, nr, reply, (size_t)ret);
	if ((msg->hdr.flags & VHMSG_NEED_REPLY) &&
	    (srv->protocol & VI_BIT(VHMSG_PF_REPLY_ACK)))
		return answer(srv, nr, reply,
			      (size_t)reply_u64(reply, (uint64_t)-ret));
	return ret < 0 ? (int)ret : 0;
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Rings of the vhost-user server: the settings that the front-end sends, in any
 * order, and when rings run. See vhost_user_impl.h.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <syslog.h>
#include <unistd.h>

#include "core/core.h"
#include "serve/vhost_user_impl.h"

#define POLL_NS      1000000ull /* between polls of rings without doorbell */
#define MAX_DROP_IOV 1024

/*
 * --- Interrupts ---
 */

/* A full counter is already signalled: errors do not matter. */
static void signal_fd(struct vhuser *srv, int fd)
{
	uint64_t one = 1;

	if (fd >= 0 && write(fd, &one, sizeof(one)) == sizeof(one))
		srv->base.stats.interrupts++;
}

static void set_fd(int *fd, int take_fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = take_fd;
}

/*
 * The front-end has a copy, which it keeps when the driver resets the device. An
 * error is a change as well, as vi_error() sets NEEDS_RESET.
 */
void vhuser_devcfg_changed(struct virtio_softc *vs)
{
	struct vhuser *srv = vi_transport_arg(vs);
	bool broken = vs->vs_flags & VIRTIO_BROKEN;

	vhuser_tell_config(srv);
	for (unsigned i = 0; broken && i < srv->nr_rings; i++)
		signal_fd(srv, srv->rings[i].err_fd);
}

void vhuser_interrupt(struct virtio_softc *vs, uint8_t isr, uint16_t vector)
{
	struct vhuser *srv = vi_transport_arg(vs);

	if (isr & VIRTIO_PCI_ISR_CONFIG)
		vhuser_devcfg_changed(vs);
	else if (vector < srv->nr_rings)
		signal_fd(srv, srv->rings[vector].call_fd);
}

/*
 * --- Start and stop ---
 */

static bool is_started(const struct vhuser_ring *ring)
{
	return ring->srv->has_features && ring->size && ring->has_addr &&
	       (ring->kick_fd >= 0 || ring->polled);
}

static bool is_ready(const struct vhuser_ring *ring)
{
	return is_started(ring) && ring->enabled;
}

/*
 * Where the ring begins. DPDK's front-end sends only the available position of
 * a fresh packed ring, which leaves the used position a lap behind.
 */
static uint32_t base_of(const struct vhuser_ring *ring)
{
	if (!vhuser_packed(ring->srv))
		return ring->base;
	if (!ring->has_base || ring->base == (VQ_PACKED_START & 0xffff))
		return VQ_PACKED_START;
	return ring->base;
}

/* Whether the ring begins where a new driver's does. */
static bool is_fresh(const struct vhuser_ring *ring)
{
	uint32_t start = vhuser_packed(ring->srv) ? VQ_PACKED_START : 0;

	return base_of(ring) == start;
}

/* The first ring is about to run: for a new driver, or the previous one? */
static int start_device(struct vhuser *srv)
{
	struct virtio_softc *vs = srv->vs;
	bool fresh = true;
	int ret = 0;

	for (unsigned i = 0; i < srv->nr_rings; i++)
		fresh &= is_fresh(&srv->rings[i]);
	if (srv->used && fresh)
		ret = vhuser_renew(srv);
	if (ret < 0)
		return ret;
	srv->used = true;
	VS_LOCK(vs);
	vi_set_status(vs, vs->vs_status | VIRTIO_CONFIG_STATUS_DRIVER_OK,
		      vi_is_modern(vs));
	VS_UNLOCK(vs);
	return 0;
}

static int place_queue(struct vhuser_ring *ring, struct vqueue_info *vq)
{
	const struct vhmsg_vring_addr *a = &ring->addr;
	int ret = vhuser_translate(ring->srv, a->desc, &vq->vq_desc_gpa);

	if (ret == 0)
		ret = vhuser_translate(ring->srv, a->avail, &vq->vq_avail_gpa);
	if (ret == 0)
		ret = vhuser_translate(ring->srv, a->used, &vq->vq_used_gpa);
	return ret;
}

static int start_queue(struct vhuser_ring *ring)
{
	struct virtio_softc *vs = ring->srv->vs;
	struct vqueue_info *vq = &vs->vs_queues[ring->index];
	void *area;
	int ret =
		vhuser_inflight_area(ring->srv, ring->index, ring->size, &area);

	if (ret == 0)
		ret = place_queue(ring, vq);
	if (ret < 0)
		return ret;
	vi_set_queue_size(vq, ring->size);
	if (vq->vq_qsize != ring->size)
		return -ENOSPC;
	vs->vs_curq = ring->index;
	vi_enable_queue(vs);
	if (!(vq->vq_flags & VQ_ENABLED))
		return -EFAULT;
	vq->vq_msix_idx = ring->index;
	vq_resume(vq, base_of(ring), area != NULL);
	if (vs->vs_flags & VIRTIO_BROKEN)
		return -EPROTO;
	if (area)
		return vq_inflight_start(vq, area);
	vq_take_left(vq, ring->left);
	return 0;
}

static void forget_left(struct vhuser_ring *ring)
{
	free(ring->left);
	ring->left = NULL;
}

/* Stop the queue; the ring can resume where it was. */
static void stop_queue(struct vhuser_ring *ring)
{
	struct vqueue_info *vq = &ring->srv->vs->vs_queues[ring->index];

	forget_left(ring);
	ring->left = vq_left_chains(vq);
	ring->base = vi_stop_queue(vq);
	ring->has_base = true;
}

static bool is_tx(struct virtio_softc *vs, unsigned q)
{
	const struct virtio_net_ops *net = vs->vs_vc->vc_net;

	return net && net->no_is_tx && net->no_is_tx(vs, q);
}

/*
 * A ring that is disabled but not stopped runs without effect: data to send is
 * dropped, and buffers to receive wait.
 */
static void drop_chains(struct vhuser_ring *ring)
{
	struct virtio_softc *vs = ring->srv->vs;
	struct vqueue_info *vq = &vs->vs_queues[ring->index];
	struct iovec iov[MAX_DROP_IOV];
	struct vi_req req;

	if (!is_tx(vs, ring->index) || !ring->srv->used || ring->enabled ||
	    !is_started(ring))
		return;
	VS_LOCK(vs);
	if (start_queue(ring) == 0) {
		for (unsigned n = 0; n < ring->size; n++) {
			if (vq_getchain(vq, iov, MAX_DROP_IOV, &req) <= 0)
				break;
			vq_relchain(vq, (uint16_t)req.idx, 0);
		}
		vq_endchains(vq, 1);
		stop_queue(ring);
	} else {
		vi_stop_queue(vq);
	}
	VS_UNLOCK(vs);
}

static void kick(struct vhuser_ring *ring)
{
	struct virtio_softc *vs = ring->srv->vs;

	if (!ring->running) {
		drop_chains(ring);
		return;
	}
	VS_LOCK(vs);
	vi_kick(vs, ring->index);
	VS_UNLOCK(vs);
}

/*
 * Stop a ring; 0 once it has stopped. VHUSER_LATER while its requests are in
 * flight, unless they are to be forgotten.
 */
static int halt(struct vhuser_ring *ring, bool forget)
{
	struct vhuser *srv = ring->srv;
	struct vqueue_info *vq = &srv->vs->vs_queues[ring->index];
	bool stopped;

	if (!ring->running)
		return 0;
	VS_LOCK(srv->vs);
	if (!vq->vq_priv->paused)
		vi_pause_queue(vq);
	stopped = forget || vq->vq_priv->nr_inflight == 0;
	if (stopped)
		stop_queue(ring);
	VS_UNLOCK(srv->vs);
	if (!stopped)
		return VHUSER_LATER;
	ring->running = false;
	srv->nr_running--;
	return 0;
}

static int stop(struct vhuser_ring *ring)
{
	return halt(ring, false);
}

/* Why a ring does not run. */
static const char *why(int ret)
{
	switch (ret) {
	case -ENOSPC:
		return "larger than the device allows";
	case -EFAULT:
		return "outside the front-end's shared memory";
	default:
		return strerror(-ret);
	}
}

static int start(struct vhuser_ring *ring)
{
	struct vhuser *srv = ring->srv;
	int ret = 0;

	if (srv->nr_running == 0)
		ret = start_device(srv);
	VS_LOCK(srv->vs);
	if (ret == 0)
		ret = start_queue(ring);
	if (ret < 0)
		vi_stop_queue(&srv->vs->vs_queues[ring->index]);
	VS_UNLOCK(srv->vs);
	if (ret < 0) {
		server_log(&srv->base, LOG_WARNING,
			   "cannot start ring %u of %u entries: %s",
			   ring->index, ring->size, why(ret));
		return ret;
	}
	ring->running = true;
	srv->nr_running++;
	/* The last back-end may have lost an interrupt or a doorbell. */
	signal_fd(srv, ring->call_fd);
	kick(ring);
	if (ring->polled)
		vio_timer_set(srv->poll_timer, POLL_NS);
	if (srv->config_changed)
		vhuser_tell_config(srv);
	return 0;
}

/* A ring's settings have changed: start or stop it. */
static int update(struct vhuser_ring *ring)
{
	if (is_ready(ring) && !ring->running)
		return start(ring);
	return is_ready(ring) ? 0 : stop(ring);
}

int vhuser_stop_rings(struct vhuser *srv)
{
	int ret = 0;

	for (unsigned i = 0; i < srv->nr_rings; i++) {
		if (stop(&srv->rings[i]) < 0)
			ret = VHUSER_LATER;
	}
	return ret;
}

int vhuser_enable_rings(struct vhuser *srv, bool on)
{
	int ret = 0;

	for (unsigned i = 0; i < srv->nr_rings; i++) {
		srv->rings[i].enabled = on;
		if (update(&srv->rings[i]) == VHUSER_LATER)
			ret = VHUSER_LATER;
	}
	return ret;
}

void vhuser_forget_requests(struct vhuser *srv)
{
	for (unsigned i = 0; i < srv->nr_rings; i++) {
		halt(&srv->rings[i], true);
		forget_left(&srv->rings[i]);
	}
}

/*
 * --- Doorbells ---
 */

static void on_kick(void *arg, uint32_t events)
{
	struct vhuser_ring *ring = arg;
	uint64_t count;
	ssize_t n = read(ring->kick_fd, &count, sizeof(count));

	if (n > 0) {
		kick(ring);
	} else if (n == 0 || errno != EAGAIN) {
		vio_source_remove(
			ring->kick_source); /* the other end is closed */
		ring->kick_source = NULL;
	}
}

static void on_poll_timer(void *arg)
{
	struct vhuser *srv = arg;
	bool again = false;

	for (unsigned i = 0; i < srv->nr_rings; i++) {
		struct vhuser_ring *ring = &srv->rings[i];

		if (!ring->running || !ring->polled)
			continue;
		kick(ring);
		again = true;
	}
	if (again)
		vio_timer_set(srv->poll_timer, POLL_NS);
}

static void drop_kick(struct vhuser_ring *ring)
{
	vio_source_remove(ring->kick_source);
	ring->kick_source = NULL;
	set_fd(&ring->kick_fd, -1);
	ring->polled = false;
}

/*
 * --- Messages ---
 */

static struct vhuser_ring *find(struct vhuser *srv, uint32_t index)
{
	if (index < srv->nr_rings)
		return &srv->rings[index];
	server_log(&srv->base, LOG_WARNING,
		   "rejected ring %u: the device has %u rings", index,
		   srv->nr_rings);
	return NULL;
}

/* The ring and the number of a message; NULL when there is no such ring. */
static struct vhuser_ring *
find_state(struct vhuser *srv, const struct vhconn_msg *msg, uint32_t *ret_num)
{
	struct vhmsg_vring state;

	if (vhmsg_decode_vring(msg->payload, msg->hdr.size, &state) < 0)
		return NULL;
	*ret_num = state.num;
	return find(srv, state.index);
}

ssize_t vhuser_set_vring_num(struct vhuser *srv, const struct vhconn_msg *msg,
			     uint8_t *reply)
{
	uint32_t num;
	struct vhuser_ring *ring = find_state(srv, msg, &num);

	if (!ring || num == 0 || num > VHUSER_MAX_RING_SIZE ||
	    ((num & (num - 1)) && !vhuser_packed(srv)))
		return -EINVAL;
	if (num == ring->size)
		return 0;
	if (stop(ring) < 0)
		return VHUSER_LATER;
	forget_left(ring);
	ring->size = (uint16_t)num;
	return update(ring);
}

ssize_t vhuser_set_vring_base(struct vhuser *srv, const struct vhconn_msg *msg,
			      uint8_t *reply)
{
	uint32_t base;
	struct vhuser_ring *ring = find_state(srv, msg, &base);

	if (!ring || (base > UINT16_MAX && !vhuser_packed(srv)))
		return -EINVAL;
	if (stop(ring) < 0)
		return VHUSER_LATER;
	if (base != ring->base) /* another driver's, or another ring */
		forget_left(ring);
	ring->base = base;
	ring->has_base = true;
	return update(ring);
}

/* Stops the ring; it runs again when it has a doorbell again. */
ssize_t vhuser_get_vring_base(struct vhuser *srv, const struct vhconn_msg *msg,
			      uint8_t *reply)
{
	struct vhmsg_vring state;
	uint32_t num;
	struct vhuser_ring *ring = find_state(srv, msg, &num);

	if (!ring)
		return -EINVAL;
	if (stop(ring) < 0)
		return VHUSER_LATER;
	drop_kick(ring);
	state = (struct vhmsg_vring){ ring->index, ring->base };
	memcpy(reply, &state, sizeof(state));
	return sizeof(state);
}

ssize_t vhuser_set_vring_addr(struct vhuser *srv, const struct vhconn_msg *msg,
			      uint8_t *reply)
{
	struct vhmsg_vring_addr addr;
	struct vhuser_ring *ring;

	if (vhmsg_decode_vring_addr(msg->payload, msg->hdr.size, &addr) < 0)
		return -EINVAL;
	ring = find(srv, addr.index);
	if (!ring)
		return -EINVAL;
	/* When logging starts, a running ring's addresses are sent again. */
	if (ring->has_addr && addr.desc == ring->addr.desc &&
	    addr.avail == ring->addr.avail && addr.used == ring->addr.used)
		return 0;
	if (stop(ring) < 0)
		return VHUSER_LATER;
	ring->addr = addr;
	ring->has_addr = true;
	return update(ring);
}

/* The ring of a message with a descriptor, which is checked. */
static int find_fd(struct vhuser *srv, const struct vhconn_msg *msg,
		   struct vhuser_ring **ret_ring, bool *ret_no_fd)
{
	struct vhmsg_vring_fd vring;
	int ret = vhmsg_decode_vring_fd(msg->payload, msg->hdr.size,
					msg->nr_fds, &vring);

	if (ret < 0)
		return ret;
	*ret_ring = find(srv, vring.index);
	*ret_no_fd = vring.no_fd;
	if (!*ret_ring)
		return -EINVAL;
	return vring.no_fd ? 0 : client_eventfd_or_pipe(msg->fds[0]);
}

ssize_t vhuser_set_vring_kick(struct vhuser *srv, const struct vhconn_msg *msg,
			      uint8_t *reply)
{
	struct vhuser_ring *ring;
	bool no_fd;
	int ret = find_fd(srv, msg, &ring, &no_fd);

	if (ret < 0)
		return ret;
	drop_kick(ring);
	ring->polled = no_fd;
	if (!no_fd) {
		ring->kick_fd = vhuser_take_fd(msg, 0);
		ret = vio_fd_add(srv->base.loop, ring->kick_fd, EPOLLIN,
				 on_kick, ring, &ring->kick_source);
	}
	if (ret < 0)
		return ret;
	kick(ring); /* the previous one may have missed some */
	if (ring->running && no_fd)
		vio_timer_set(srv->poll_timer, POLL_NS);
	return update(ring);
}

ssize_t vhuser_set_vring_call(struct vhuser *srv, const struct vhconn_msg *msg,
			      uint8_t *reply)
{
	struct vhuser_ring *ring;
	bool no_fd;
	int ret = find_fd(srv, msg, &ring, &no_fd);

	if (ret < 0)
		return ret;
	set_fd(&ring->call_fd, no_fd ? -1 : vhuser_take_fd(msg, 0));
	if (ring->running)
		signal_fd(srv, ring->call_fd);
	return 0;
}

ssize_t vhuser_set_vring_err(struct vhuser *srv, const struct vhconn_msg *msg,
			     uint8_t *reply)
{
	struct vhuser_ring *ring;
	bool no_fd;
	int ret = find_fd(srv, msg, &ring, &no_fd);

	if (ret == 0)
		set_fd(&ring->err_fd, no_fd ? -1 : vhuser_take_fd(msg, 0));
	return ret;
}

ssize_t vhuser_set_vring_enable(struct vhuser *srv,
				const struct vhconn_msg *msg, uint8_t *reply)
{
	uint32_t on;
	struct vhuser_ring *ring = find_state(srv, msg, &on);
	int ret;

	if (!ring || on > 1)
		return -EINVAL;
	ring->enabled = on;
	ret = update(ring);
	if (ret == 0)
		drop_chains(ring);
	return ret;
}

/*
 * --- All rings ---
 */

int vhuser_rings_init(struct vhuser *srv)
{
	srv->nr_rings = (unsigned)vi_max_queues(srv->vs);
	srv->rings = calloc(srv->nr_rings, sizeof(*srv->rings));
	if (!srv->rings)
		return -ENOMEM;
	for (unsigned i = 0; i < srv->nr_rings; i++) {
		srv->rings[i] = (struct vhuser_ring){
			.srv = srv,
			.index = (uint16_t)i,
			.kick_fd = -1,
			.call_fd = -1,
			.err_fd = -1,
		};
	}
	return vio_timer_add(srv->base.loop, on_poll_timer, srv,
			     &srv->poll_timer);
}

/* The device may be gone: forget only the front-end's settings. */
static void forget(struct vhuser_ring *ring)
{
	drop_kick(ring);
	set_fd(&ring->call_fd, -1);
	set_fd(&ring->err_fd, -1);
	forget_left(ring);
	ring->size = ring->base = 0;
	ring->has_addr = ring->has_base = ring->enabled = false;
}

void vhuser_rings_reset(struct vhuser *srv)
{
	vhuser_forget_requests(srv);
	for (unsigned i = 0; i < srv->nr_rings; i++)
		forget(&srv->rings[i]);
}

void vhuser_rings_fini(struct vhuser *srv)
{
	for (unsigned i = 0; i < srv->nr_rings; i++)
		forget(&srv->rings[i]);
	vio_source_remove(srv->poll_timer);
	free(srv->rings);
}

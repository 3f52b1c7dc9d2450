/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A tap interface of the host, or a macvtap link.
 *
 * Each channel is a descriptor of the interface, which was opened several times
 * with IFF_MULTI_QUEUE. The kernel distributes frames over them, and delivers a
 * flow on the channel that sent it last.
 *
 * A struct virtio_net_hdr precedes each frame: the kernel does the offloads
 * (checksums, segmentation) that the driver requests of the device, and omits
 * those that the driver does itself.
 *
 * A deleted interface is found again by its name (opener.h).
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "back/net/link_monitor.h"
#include "back/net/macvtap.h"
#include "back/net/net_be.h"
#include "base/opener.h"
#include "base/util.h"

/* Linux 6.2; Debian 12's headers are older. */
#ifndef TUN_F_USO4
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif
#define LOOK_MS     1000 /* for an interface that was deleted */
#define BIT(nr)     (UINT64_C(1) << (nr))
#define NET_F(name) BIT(VIRTIO_NET_F_##name)
#define F_GUEST_USO (BIT(54) | BIT(55))
#define F_HOST_USO  BIT(56)

struct tap;

struct tap_channel {
	struct tap *tap;
	struct net_port port;
	bool watched;
	bool detached; /* the kernel sends nothing to it */
};

struct tap {
	struct net_be be;
	bool vnet_hdr;
	bool gone;         /* deleted; the channels have no descriptors */
	uint64_t offloads; /* to be set again */
	struct reopener *reopener; /* opens it when it is back; or NULL */
	struct vio_task lost;      /* tells senders that waited */
	struct link_monitor monitor;
	struct tap_channel channels[]; /* be.nr_channels */
};

static struct tap *tap_of(struct net_be *be)
{
	return (struct tap *)be;
}

static struct net_port *port_of(struct net_be *be, unsigned channel)
{
	return &tap_of(be)->channels[channel].port;
}

/*
 * The descriptors never work again, even if another interface gets the name. May
 * run inside the device's calls: waiting senders are notified later.
 */
static void tap_gone(struct tap *tap)
{
	struct net_be *be = &tap->be;

	if (tap->gone)
		return;
	tap->gone = true;
	for (unsigned i = 0; i < be->nr_channels; i++) {
		net_port_watch(port_of(be, i), EPOLLIN | EPOLLOUT, false);
		net_port_close(port_of(be, i));
	}
	vio_task_defer(port_of(be, 0)->loop, &tap->lost);
	be->client->link(be->client_arg, false,
			 tap->reopener ? "tap deleted: waiting for its return" :
					 "tap deleted");
	if (tap->reopener)
		reopener_request(tap->reopener);
}

static void tap_lost(void *arg)
{
	struct net_be *be = arg;

	for (unsigned i = 0; i < be->nr_channels; i++)
		be->client->writable(be->client_arg, i);
}

/*
 * A deleted interface: epoll reports that of a tap while it is watched, and of
 * a macvtap link never.
 */
static void tap_look(void *arg)
{
	struct tap *tap = arg;
	struct ifreq ifr;

	if (!tap->gone && ioctl(port_of(&tap->be, 0)->fd, TUNGETIFF, &ifr) < 0)
		tap_gone(tap);
}

static ssize_t tap_recv(struct net_be *be, unsigned channel,
			const struct iovec *iov, int niov)
{
	bool vnet_hdr = tap_of(be)->vnet_hdr;
	size_t hdr_len = vnet_hdr ? iov[0].iov_len : 0;
	ssize_t n;

	if (tap_of(be)->gone)
		return tap_of(be)->reopener ? -EAGAIN : -ENOTCONN;
	if (!vnet_hdr) {
		iov++;
		niov--;
	}
	do {
		n = readv(port_of(be, channel)->fd, iov, niov);
	} while (n < 0 && errno == EINTR);
	if (n < 0 && errno == EBADFD) {
		tap_gone(tap_of(be));
		return -EAGAIN;
	}
	if (n < 0)
		return -errno;
	return (size_t)n > hdr_len ? n - (ssize_t)hdr_len : 0;
}

static int tap_send(struct net_be *be, unsigned channel, struct iovec *iov,
		    int niov)
{
	struct net_port *port = port_of(be, channel);
	ssize_t n;

	if (tap_of(be)->gone)
		return -ENETDOWN;
	if (!tap_of(be)->vnet_hdr) {
		iov++;
		niov--;
	}
	do {
		n = writev(port->fd, iov, niov);
	} while (n < 0 && errno == EINTR);
	if (n >= 0)
		return 0;
	if (errno == EBADFD) {
		tap_gone(tap_of(be));
		return -ENETDOWN;
	}
	if (errno == EAGAIN)
		net_port_watch(port, EPOLLOUT, true);
	return -errno;
}

static void tap_watch(struct net_be *be, unsigned channel, bool on)
{
	struct tap_channel *ch = &tap_of(be)->channels[channel];

	ch->watched = on;
	if (!ch->tap->gone)
		net_port_watch(&ch->port, EPOLLIN, on && !ch->detached);
}

static void tap_on_event(void *arg, uint32_t events)
{
	struct tap_channel *ch = arg;
	struct net_be *be = &ch->tap->be;
	unsigned channel = (unsigned)(ch - ch->tap->channels);

	if (events & EPOLLOUT) {
		net_port_watch(&ch->port, EPOLLOUT, false);
		be->client->writable(be->client_arg, channel);
	}
	if (events & EPOLLERR) /* the interface was deleted */
		tap_gone(ch->tap);
	else if (events & EPOLLIN)
		be->client->readable(be->client_arg, channel);
}

static int tap_attach_queue(struct tap_channel *ch, bool on)
{
	struct ifreq ifr = {
		.ifr_flags = on ? IFF_ATTACH_QUEUE : IFF_DETACH_QUEUE,
	};

	if (ch->detached == !on)
		return 0;
	if (ch->tap->gone) { /* done when it is back */
		ch->detached = !on;
		return 0;
	}
	/* poll reports an error on a detached queue. */
	if (!on)
		net_port_watch(&ch->port, EPOLLIN | EPOLLOUT, false);
	if (ioctl(ch->port.fd, TUNSETQUEUE, &ifr) < 0)
		return -errno;
	ch->detached = !on;
	return 0;
}

static int tap_set_channels(struct net_be *be, unsigned nr)
{
	for (unsigned i = 0; i < be->nr_channels; i++) {
		int ret = tap_attach_queue(&tap_of(be)->channels[i], i < nr);

		if (ret < 0)
			return ret;
	}
	return 0;
}

static int tap_set_offloads(struct net_be *be, uint64_t offloads)
{
	static const struct {
		uint64_t feature;
		unsigned flag;
	} map[] = {
		{ NET_F(GUEST_CSUM), TUN_F_CSUM },
		{ NET_F(GUEST_TSO4), TUN_F_TSO4 },
		{ NET_F(GUEST_TSO6), TUN_F_TSO6 },
		{ NET_F(GUEST_ECN), TUN_F_TSO_ECN },
		{ NET_F(GUEST_UFO), TUN_F_UFO },
		/* The kernel has them only together. */
		{ F_GUEST_USO, TUN_F_USO4 | TUN_F_USO6 },
	};
	unsigned flags = 0;

	tap_of(be)->offloads = offloads;
	if (!tap_of(be)->vnet_hdr || tap_of(be)->gone)
		return 0;
	for (unsigned i = 0; i < ARRAY_LEN(map); i++) {
		if ((offloads & map[i].feature) == map[i].feature)
			flags |= map[i].flag;
	}
	/* Any descriptor sets it for the whole interface. */
	if (ioctl(port_of(be, 0)->fd, TUNSETOFFLOAD, flags) < 0)
		return -errno;
	return 0;
}

/* Detach the queue again if it was detached. */
static void restore_channel(struct tap_channel *ch, int take_fd)
{
	bool detached = ch->detached;

	ch->port.fd = take_fd;
	ch->detached = false;
	tap_attach_queue(ch, !detached);
	tap_watch(&ch->tap->be, (unsigned)(ch - ch->tap->channels),
		  ch->watched);
}

static void tap_on_reopened(void *arg, const int *take_fds, unsigned nr)
{
	struct tap *tap = arg;
	struct net_be *be = &tap->be;

	if (nr != be->nr_channels) { /* not from our own opener */
		while (nr > 0)
			close(take_fds[--nr]);
		return;
	}
	tap->gone = false;
	for (unsigned i = 0; i < nr; i++)
		restore_channel(&tap->channels[i], take_fds[i]);
	tap_set_offloads(be, tap->offloads);
	be->client->link(be->client_arg, true, "tap is back");
}

static void tap_destroy(struct net_be *be)
{
	vio_task_cancel(port_of(be, 0)->loop, &tap_of(be)->lost);
	reopener_destroy(tap_of(be)->reopener);
	link_monitor_close(&tap_of(be)->monitor);
	for (unsigned i = 0; i < be->nr_channels; i++)
		net_port_close(port_of(be, i));
	free(be);
}

static const struct net_be_ops tap_ops = {
	.name = "tap",
	.recv = tap_recv,
	.send = tap_send,
	.watch = tap_watch,
	.set_channels = tap_set_channels,
	.set_offloads = tap_set_offloads,
	.destroy = tap_destroy,
};

/*
 * --- Making it ---
 */

/* Old kernels reject offloads that they do not have. */
static void find_features(struct tap *tap)
{
	if (!tap->vnet_hdr)
		return;
	tap->be.features = NET_F(CSUM) | NET_F(HOST_TSO4) | NET_F(HOST_TSO6) |
			   NET_F(HOST_ECN) | NET_F(GUEST_CSUM) |
			   NET_F(GUEST_TSO4) | NET_F(GUEST_TSO6) |
			   NET_F(GUEST_ECN);
	if (tap_set_offloads(&tap->be, NET_F(GUEST_CSUM) | NET_F(GUEST_UFO)) ==
	    0)
		tap->be.features |= NET_F(GUEST_UFO) | NET_F(HOST_UFO);
	if (tap_set_offloads(&tap->be, NET_F(GUEST_CSUM) | F_GUEST_USO) == 0)
		tap->be.features |= F_GUEST_USO | F_HOST_USO;
	tap_set_offloads(&tap->be, 0);
}

/* They must be of one interface. */
static int prepare(const int *fds, unsigned nr, bool *ret_vnet_hdr)
{
	int hdr_len = sizeof(struct virtio_net_hdr);
	char name[IFNAMSIZ] = "";
	struct ifreq ifr;

	for (unsigned i = 0; i < nr; i++) {
		int ret = net_fd_prepare(fds[i]);

		if (ret < 0)
			return ret;
		if (ioctl(fds[i], TUNGETIFF, &ifr) < 0)
			return -errno;
		if (!(ifr.ifr_flags & IFF_TAP) ||
		    !(ifr.ifr_flags & IFF_NO_PI) ||
		    (i > 0 && strncmp(name, ifr.ifr_name, IFNAMSIZ) != 0))
			return -EINVAL;
		memcpy(name, ifr.ifr_name, IFNAMSIZ);
		*ret_vnet_hdr = ifr.ifr_flags & IFF_VNET_HDR;
		if (*ret_vnet_hdr &&
		    ioctl(fds[i], TUNSETVNETHDRSZ, &hdr_len) < 0)
			return -errno;
	}
	return 0;
}

int net_tap_create(struct vio_loop *loop, const int *take_fds, unsigned nr,
		   int take_again_fd, struct net_be **ret_be)
{
	bool vnet_hdr = false;
	int ret = prepare(take_fds, nr, &vnet_hdr);
	struct tap *tap;

	if (ret < 0)
		return ret;
	tap = calloc(1, sizeof(*tap) + nr * sizeof(tap->channels[0]));
	if (!tap)
		return -ENOMEM;
	if (take_again_fd >= 0)
		ret = reopener_create(loop, take_again_fd, tap_on_reopened, tap,
				      &tap->reopener);
	if (ret < 0) {
		free(tap);
		return ret;
	}
	tap->lost = (struct vio_task){ .fn = tap_lost, .arg = tap };
	tap->be.ops = &tap_ops;
	tap->be.nr_channels = nr;
	tap->vnet_hdr = vnet_hdr;
	tap->monitor.port.fd = -1;
	for (unsigned i = 0; i < nr; i++) {
		struct tap_channel *ch = &tap->channels[i];

		ch->tap = tap;
		ch->port = (struct net_port){
			.loop = loop,
			.fd = take_fds[i],
			.cb = tap_on_event,
			.arg = ch,
		};
	}
	find_features(tap);
	tap->be.has_mac = macvtap_mac(take_fds[0], tap->be.mac);
	*ret_be = &tap->be;
	return 0;
}

void net_tap_monitor(struct net_be *be, struct opened_files *files)
{
	struct link_monitor *m = &tap_of(be)->monitor;

	link_monitor_take(m, files);
	link_monitor_start(m, port_of(be, 0)->loop, tap_look, be);
}

/*
 * An existing interface must be opened as it was created: with one queue or
 * several.
 */
static int open_queue(struct ifreq *ifr)
{
	int fd, ret;

	if (macvtap_is(ifr->ifr_name))
		return macvtap_open(ifr->ifr_name);
	fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	ret = ioctl(fd, TUNSETIFF, ifr) < 0 ? -errno : 0;
	if (ret == -EINVAL && !(ifr->ifr_flags & IFF_MULTI_QUEUE)) {
		ifr->ifr_flags |= IFF_MULTI_QUEUE;
		ret = ioctl(fd, TUNSETIFF, ifr) < 0 ? -errno : 0;
	}
	if (ret == 0)
		return fd;
	close(fd);
	return ret;
}

static int cannot_open(const char *name, int ret, struct err *err)
{
	if (name && macvtap_is(name))
		return err_set(err, ret,
			       "net: ifname=%s: /dev/tap%u: %s (its owner may "
			       "open it: chown $USER /dev/tap%u)",
			       name, if_nametoindex(name), strerror(-ret),
			       if_nametoindex(name));
	if (ret == -EPERM || ret == -EACCES)
		return err_set(err, ret,
			       "net: ifname=%s: %s: create it as root: ip "
			       "tuntap add %s mode tap user $USER",
			       name ? name : "", strerror(-ret),
			       name ? name : "tap0");
	return err_set(err, ret, "net: ifname=%s: %s", name ? name : "",
		       strerror(-ret));
}

/*
 * mtu= is set on the interface as well: a smaller MTU would drop frames of the
 * guest, a larger one frames for it. Without the right, it stays as it is.
 */
static void set_mtu(const char *name, unsigned mtu, struct err *err)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct ifreq ifr = { 0 };
	int old;

	strcpy(ifr.ifr_name, name);
	if (fd < 0 || ioctl(fd, SIOCGIFMTU, &ifr) < 0)
		goto out;
	old = ifr.ifr_mtu;
	ifr.ifr_mtu = (int)mtu;
	if (old != (int)mtu && ioctl(fd, SIOCSIFMTU, &ifr) < 0)
		err_warn(
			err,
			"net: mtu=%u: %s has an MTU of %d: %s: set it as root: "
			"ip link set %s mtu %u",
			mtu, name, old, strerror(errno), name, mtu);
out:
	if (fd >= 0)
		close(fd);
}

/* What the opener needs to open a tap. */
struct tap_request {
	struct ifreq ifr;
	unsigned nr;  /* queues */
	unsigned mtu; /* 0: as it is */
	bool macvtap; /* with this address, which is the card's */
	uint8_t mac[6];
};

static int open_queues(struct tap_request *req, int *fds)
{
	for (unsigned i = 0; i < req->nr; i++) {
		fds[i] = open_queue(&req->ifr);
		if (fds[i] >= 0)
			continue;
		for (unsigned k = 0; k < i; k++)
			close(fds[k]);
		return fds[i];
	}
	return (int)req->nr;
}

/* Opening would create a tap, which somebody has just deleted. */
static int open_again(void *arg, int *fds)
{
	struct tap_request *req = arg;
	bool vnet_hdr;
	struct err err;
	int ret;

	if (!if_nametoindex(req->ifr.ifr_name))
		return -ENODEV;
	ret = open_queues(req, fds);
	if (ret < 0)
		return ret;
	ret = prepare(fds, req->nr, &vnet_hdr);
	if (ret < 0) {
		for (unsigned i = 0; i < req->nr; i++)
			close(fds[i]);
		return ret;
	}
	if (req->mtu)
		set_mtu(req->ifr.ifr_name, req->mtu, &err);
	if (req->macvtap)
		macvtap_set_mac(fds[0], req->mac);
	return (int)req->nr;
}

static int start_opener(const struct tap_request *req,
			struct opened_files *files)
{
	struct tap_request *copy = malloc(sizeof(*copy));
	int ret;

	if (!copy)
		return -ENOMEM;
	*copy = *req;
	ret = opener_start(files, "tap-again", open_again, LOOK_MS, copy);
	if (ret < 0)
		free(copy);
	return ret;
}

static int tap_open(const struct opts *opts, struct opened_files *files,
		    struct err *err)
{
	struct tap_request req = {
		.ifr.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR,
		.nr = (unsigned)opt_number(opts, "queues"),
		.mtu = (unsigned)opt_number(opts, "mtu"),
	};
	const char *name = opt_string(opts, "ifname");
	int fds[NET_MAX_CHANNELS], ret;

	if (name && strlen(name) >= sizeof(req.ifr.ifr_name))
		return err_set(err, -EINVAL, "net: ifname=%s: too long", name);
	if (name)
		strcpy(req.ifr.ifr_name, name);
	if (req.nr > 1)
		req.ifr.ifr_flags |= IFF_MULTI_QUEUE;

	/* The first call returns the name that the kernel chose. */
	ret = open_queues(&req, fds);
	if (ret >= 0) {
		req.macvtap = macvtap_mac(fds[0], req.mac);
		ret = net_add_queues(files, fds, req.nr);
	}
	if (ret == 0)
		link_monitor_open(files); /* or frames tell, not at once */
	if (ret == 0)
		ret = start_opener(&req, files);
	if (ret < 0)
		return cannot_open(name, ret, err);
	if (req.mtu)
		set_mtu(req.ifr.ifr_name, req.mtu, err);
	return 0;
}

static bool tap_is_gone(const struct opened_files *files)
{
	struct ifreq ifr;

	return ioctl(opened_files_find(files, "queue0"), TUNGETIFF, &ifr) < 0;
}

static int tap_create(const struct opts *opts, struct opened_files *files,
		      struct vio_loop *loop, struct net_be **ret_be,
		      struct err *err)
{
	unsigned nr = (unsigned)opt_number(opts, "queues");
	int fds[NET_MAX_CHANNELS];
	int again_fd, ret;

	net_take_queues(files, fds, nr);
	again_fd = opened_files_take(files, "tap-again");
	ret = net_tap_create(loop, fds, nr, again_fd, ret_be);
	if (ret == 0) {
		net_tap_monitor(*ret_be, files);
		return 0;
	}
	if (again_fd >= 0)
		close(again_fd);
	for (unsigned i = 0; i < nr; i++)
		close(fds[i]);
	return err_set(err, ret, "net: backend=tap: %s", strerror(-ret));
}

static const int tap_syscalls[] = { REOPENER_SYSCALLS, -1 };
static const unsigned long tap_ioctls[] = { TUNSETOFFLOAD, TUNSETQUEUE,
					    TUNGETIFF, 0 };

static const char *const tap_keys[] = { "ifname", NULL };

const struct net_be_kind net_kind_tap = {
	.name = "tap",
	.keys = tap_keys,
	.syscalls = tap_syscalls,
	.ioctls = tap_ioctls,
	.multi = true,
	.open = tap_open,
	.is_gone = tap_is_gone,
	.opener = "tap-again",
	.create = tap_create,
};

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A tap interface of the host.
 *
 * Each channel is a descriptor of the interface: one that was opened with
 * IFF_MULTI_QUEUE several times. The kernel spreads what it hands us over
 * them, and returns a flow to the one on which we sent it last.
 *
 * The kernel puts a struct virtio_net_hdr in front of each frame: what a
 * driver asks of the device (checksums, segmentation) the kernel does, and
 * what the driver takes the kernel leaves undone.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "back/net/net_be.h"
#include "base/util.h"

/* Linux 6.2; Debian 12's headers are older. */
#ifndef TUN_F_USO4
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif
#define BIT(nr)     (UINT64_C(1) << (nr))
#define NET_F(name) BIT(VIRTIO_NET_F_##name)
#define F_GUEST_USO (BIT(54) | BIT(55))
#define F_HOST_USO  BIT(56)

struct tap;

struct tap_channel {
	struct tap *tap;
	struct net_port port;
	bool detached; /* the kernel sends nothing to it */
};

struct tap {
	struct net_be be;
	bool vnet_hdr;
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

static ssize_t tap_recv(struct net_be *be, unsigned channel,
			const struct iovec *iov, int niov)
{
	bool vnet_hdr = tap_of(be)->vnet_hdr;
	size_t hdr_len = vnet_hdr ? iov[0].iov_len : 0;
	ssize_t n;

	if (!vnet_hdr) {
		iov++;
		niov--;
	}
	do {
		n = readv(port_of(be, channel)->fd, iov, niov);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	return (size_t)n > hdr_len ? n - (ssize_t)hdr_len : 0;
}

static int tap_send(struct net_be *be, unsigned channel, struct iovec *iov,
		    int niov)
{
	struct net_port *port = port_of(be, channel);
	ssize_t n;

	if (!tap_of(be)->vnet_hdr) {
		iov++;
		niov--;
	}
	do {
		n = writev(port->fd, iov, niov);
	} while (n < 0 && errno == EINTR);
	if (n < 0 && errno == EAGAIN)
		net_port_watch(port, EPOLLOUT, true);
	return n < 0 ? -errno : 0;
}

static void tap_watch(struct net_be *be, unsigned channel, bool on)
{
	struct tap_channel *ch = &tap_of(be)->channels[channel];

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
	if (events & EPOLLIN)
		be->client->readable(be->client_arg, channel);
	else if (events & EPOLLERR) { /* the interface was deleted */
		net_port_watch(&ch->port, EPOLLIN | EPOLLOUT, false);
		be->client->link(be->client_arg, false);
	}
}

static int tap_attach_queue(struct tap_channel *ch, bool on)
{
	struct ifreq ifr = {
		.ifr_flags = on ? IFF_ATTACH_QUEUE : IFF_DETACH_QUEUE,
	};

	if (ch->detached == !on)
		return 0;
	/* What polls a detached queue sees an error. */
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
		/* The kernel knows them only together. */
		{ F_GUEST_USO, TUN_F_USO4 | TUN_F_USO6 },
	};
	unsigned flags = 0;

	if (!tap_of(be)->vnet_hdr)
		return 0;
	for (unsigned i = 0; i < ARRAY_LEN(map); i++) {
		if ((offloads & map[i].feature) == map[i].feature)
			flags |= map[i].flag;
	}
	/* It is the interface's, whichever descriptor is asked. */
	if (ioctl(port_of(be, 0)->fd, TUNSETOFFLOAD, flags) < 0)
		return -errno;
	return 0;
}

static void tap_destroy(struct net_be *be)
{
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

/* What the kernel can do: old ones refuse what they do not know. */
static void find_features(struct tap *tap)
{
	if (!tap->vnet_hdr)
		return;
	tap->be.features = NET_F(CSUM) | NET_F(HOST_TSO4) | NET_F(HOST_TSO6) |
			   NET_F(HOST_ECN) | NET_F(GUEST_CSUM) |
			   NET_F(GUEST_TSO4) | NET_F(GUEST_TSO6) |
			   NET_F(GUEST_ECN);
	if (tap_set_offloads(&tap->be, NET_F(GUEST_CSUM) | F_GUEST_USO) == 0)
		tap->be.features |= F_GUEST_USO | F_HOST_USO;
	tap_set_offloads(&tap->be, 0);
}

static int prepare(const int *fds, unsigned nr, bool *ret_vnet_hdr)
{
	int hdr_len = sizeof(struct virtio_net_hdr);
	struct ifreq ifr;

	for (unsigned i = 0; i < nr; i++) {
		int ret = net_fd_prepare(fds[i]);

		if (ret < 0)
			return ret;
		if (ioctl(fds[i], TUNGETIFF, &ifr) < 0)
			return -errno;
		if (!(ifr.ifr_flags & IFF_TAP) || !(ifr.ifr_flags & IFF_NO_PI))
			return -EINVAL;
		*ret_vnet_hdr = ifr.ifr_flags & IFF_VNET_HDR;
		if (*ret_vnet_hdr &&
		    ioctl(fds[i], TUNSETVNETHDRSZ, &hdr_len) < 0)
			return -errno;
	}
	return 0;
}

int net_tap_create(struct vio_loop *loop, const int *take_fds, unsigned nr,
		   struct net_be **ret_be)
{
	bool vnet_hdr = false;
	int ret = prepare(take_fds, nr, &vnet_hdr);
	struct tap *tap;

	if (ret < 0)
		return ret;
	tap = calloc(1, sizeof(*tap) + nr * sizeof(tap->channels[0]));
	if (!tap)
		return -ENOMEM;
	tap->be.ops = &tap_ops;
	tap->be.nr_channels = nr;
	tap->vnet_hdr = vnet_hdr;
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
	*ret_be = &tap->be;
	return 0;
}

/* The name that opened_files knows a channel by. */
static const char *file_name(char *name, unsigned i)
{
	memcpy(name, "tap00", 6);
	name[3] = (char)('0' + i / 10);
	name[4] = (char)('0' + i % 10);
	return name;
}

/*
 * An interface that exists insists on being opened the way that it was made:
 * with one queue or with many.
 */
static int open_queue(struct ifreq *ifr)
{
	int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	int ret;

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
 * With mtu= the interface has as much: less would lose what the guest sends,
 * more what it gets. Without rights it stays as its owner made it.
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

static int tap_open(const struct opts *opts, struct opened_files *files,
		    struct err *err)
{
	unsigned nr = (unsigned)opt_number(opts, "queues");
	const char *name = opt_string(opts, "ifname");
	struct ifreq ifr = {
		.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR,
	};
	char file[8];

	if (name && strlen(name) >= sizeof(ifr.ifr_name))
		return err_set(err, -EINVAL, "net: ifname=%s: too long", name);
	if (name)
		strcpy(ifr.ifr_name, name);
	if (nr > 1)
		ifr.ifr_flags |= IFF_MULTI_QUEUE;

	/* The first one tells the others the name that the kernel chose. */
	for (unsigned i = 0; i < nr; i++) {
		int fd = open_queue(&ifr), ret = fd;

		if (fd >= 0)
			ret = opened_files_add(files, file_name(file, i), fd);
		if (fd >= 0 && ret < 0)
			close(fd);
		if (ret < 0)
			return cannot_open(name, ret, err);
	}
	if (opt_given(opts, "mtu"))
		set_mtu(ifr.ifr_name, (unsigned)opt_number(opts, "mtu"), err);
	return 0;
}

static int tap_create(const struct opts *opts, struct opened_files *files,
		      struct vio_loop *loop, struct net_be **ret_be,
		      struct err *err)
{
	unsigned nr = (unsigned)opt_number(opts, "queues");
	int fds[NET_MAX_CHANNELS] = { 0 };
	char file[8];
	int ret;

	for (unsigned i = 0; i < nr; i++)
		fds[i] = opened_files_take(files, file_name(file, i));
	ret = net_tap_create(loop, fds, nr, ret_be);
	if (ret == 0)
		return 0;
	for (unsigned i = 0; i < nr; i++)
		close(fds[i]);
	return err_set(err, ret, "net: backend=tap: %s", strerror(-ret));
}

static const unsigned long tap_ioctls[] = { TUNSETOFFLOAD, TUNSETQUEUE, 0 };

static const char *const tap_keys[] = { "ifname", NULL };

const struct net_be_kind net_kind_tap = {
	.name = "tap",
	.keys = tap_keys,
	.ioctls = tap_ioctls,
	.multi = true,
	.open = tap_open,
	.create = tap_create,
};

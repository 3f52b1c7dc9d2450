/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The network device (virtio 5.1): queues, options, control, creation and reset.
 * net.h tells where the rest is.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <syslog.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/json.h"
#include "base/util.h"
#include "dev/devices.h"
#include "dev/net/net.h"

#define DEFAULT_MBIT  10000u
#define DEFAULT_QUEUE 256
#define BITS_PER_MBIT 1000000u

/* With every backend. */
#define FEATURES                                                           \
	(NET_F(MAC) | NET_F(STATUS) | NET_F(MRG_RXBUF) | NET_F(CTRL_VQ) |  \
	 NET_F(CTRL_RX) | NET_F(CTRL_RX_EXTRA) | NET_F(CTRL_VLAN) |        \
	 NET_F(CTRL_MAC_ADDR) | NET_F(GUEST_ANNOUNCE) | NET_F(NOTF_COAL) | \
	 NET_F(VQ_NOTF_COAL) | NET_F(SPEED_DUPLEX) | NET_F(DEVICE_STATS))

static struct net_softc *net_of(struct vdev *dev)
{
	return container_of(dev, struct net_softc, sc_dev);
}

/*
 * --- What the data paths share ---
 */

void net_record(struct net_softc *sc, const struct iovec *iov, int niov,
		size_t len)
{
	if (pcap_write(sc->sc_pcap, iov, niov, len) < 0)
		vs_log(&sc->sc_vs, LOG_WARNING,
		       "pcap= write failed; recording stopped");
}

bool net_limit_allows(struct ratelimit *limit, struct vio_source *timer)
{
	uint64_t wait_ns = ratelimit_debt_ns(limit);

	if (wait_ns)
		vio_timer_set(timer, wait_ns);
	return wait_ns == 0;
}

/*
 * --- Queues ---
 */

unsigned net_nr_pairs(const struct net_softc *sc)
{
	if (!net_has(sc, NET_F(CTRL_VQ)))
		return sc->sc_max_pairs;
	return net_has(sc, NET_F(MQ) | NET_F(RSS)) ? sc->sc_max_pairs : 1;
}

static struct vqueue_info *ctrl_vq(struct net_softc *sc)
{
	return &sc->sc_vqs[2 * net_nr_pairs(sc)];
}

static void net_qnotify(void *arg, struct vqueue_info *vq)
{
	struct net_softc *sc = arg;
	unsigned pair = vq->vq_num / 2;

	if (vq == ctrl_vq(sc)) {
		if (net_has(sc, NET_F(CTRL_VQ)))
			net_ctrl_run(sc, vq);
		return;
	}
	if (pair >= net_nr_pairs(sc))
		return; /* the driver has none of these */
	if (pair >= sc->sc_pairs)
		net_follow_rings(sc);
	if (vq->vq_num % 2)
		net_tx_run(sc, pair);
	else
		net_rx_kick(sc);
}

int net_set_pairs(struct net_softc *sc, unsigned nr_tx, unsigned nr_rx)
{
	unsigned old_tx = sc->sc_pairs, old_rx = sc->sc_channels;

	if (sc->sc_be->ops->set_channels) {
		int ret = sc->sc_be->ops->set_channels(
			sc->sc_be, nr_tx > nr_rx ? nr_tx : nr_rx);

		if (ret < 0)
			return ret;
	}
	sc->sc_pairs = nr_tx;
	sc->sc_channels = nr_rx;
	for (unsigned i = nr_rx; i < old_rx; i++) {
		sc->sc_be->ops->watch(sc->sc_be, i, false);
		sc->sc_pair[i].rx_stalled = true;
	}
	/* New queues may have buffers that nobody looked at. */
	if (nr_rx > old_rx)
		net_rx_kick(sc);
	for (unsigned i = old_tx; i < nr_tx; i++)
		vio_task_defer(sc->sc_loop, &sc->sc_pair[i].tx_continue);
	return 0;
}

void net_follow_rings(struct net_softc *sc)
{
	unsigned nr = sc->sc_max_pairs;

	if (net_has(sc, NET_F(CTRL_VQ)))
		return;
	while (nr > 1 && !vq_ring_ready(net_rxq(sc, nr - 1)) &&
	       !vq_ring_ready(net_txq(sc, nr - 1)))
		nr--;
	if (nr != sc->sc_pairs && net_set_pairs(sc, nr, nr) < 0)
		vs_log(&sc->sc_vs, LOG_WARNING, "cannot use %u queue pairs",
		       nr);
}

static void net_tx_continue(void *arg)
{
	struct net_pair *p = arg;

	net_tx_run(p->sc, p->idx);
}

static void net_ctrl_continue(void *arg)
{
	struct net_softc *sc = arg;

	net_qnotify(sc, ctrl_vq(sc));
}

static void net_on_tx_timer(void *arg)
{
	struct net_softc *sc = arg;

	for (unsigned i = 0; i < sc->sc_pairs; i++)
		net_tx_run(sc, i);
}

static void net_on_rx_timer(void *arg)
{
	net_rx_kick(arg);
}

static void net_on_readable(void *arg, unsigned channel)
{
	net_rx_run(arg, channel);
}

static void net_on_writable(void *arg, unsigned channel)
{
	net_tx_run(arg, channel);
}

static void net_on_link(void *arg, bool up, const char *why)
{
	struct net_softc *sc = arg;

	vs_log(&sc->sc_vs, LOG_NOTICE, "backend link %s: %s",
	       up ? "up" : "down", why);
	net_set_link(sc, sc->sc_admin_up, up);
}

static const struct net_be_client net_client = {
	.readable = net_on_readable,
	.writable = net_on_writable,
	.link = net_on_link,
};

/*
 * --- Reset ---
 */

/* As before the first driver: the next may be another one. */
static void net_reset(void *arg)
{
	struct net_softc *sc = arg;
	uint64_t none = 0;

	net_rx_stop(sc);
	for (unsigned i = 0; i < sc->sc_max_pairs; i++)
		vio_task_cancel(sc->sc_loop, &sc->sc_pair[i].tx_continue);
	vio_task_cancel(sc->sc_loop, &sc->sc_ctrl_continue);
	vio_timer_set(sc->sc_tx_timer, 0);
	vio_timer_set(sc->sc_rx_timer, 0);
	vio_timer_set(sc->sc_rx_retry, 0);
	net_coal_reset(sc);
	net_stats_reset(sc);
	memcpy(sc->sc_mac, sc->sc_default_mac, sizeof(sc->sc_mac));
	sc->sc_announce = false;
	sc->sc_rss = (struct net_rss){ 0 };
	sc->sc_pairs = sc->sc_channels = 1;
	if (sc->sc_be->ops->set_channels)
		sc->sc_be->ops->set_channels(sc->sc_be, 1);
	net_apply_features(sc, &none);
}

static void net_qreset(void *arg, struct vqueue_info *vq)
{
	struct net_softc *sc = arg;
	unsigned pair = vq->vq_num / 2;

	/* The control queue, or one that the driver has no use for. */
	if (pair >= net_nr_pairs(sc))
		return;
	net_coal_renew(sc, vq);
	if (vq->vq_num % 2 == 0)
		sc->sc_pair[pair].rx_reset = true;
}

/*
 * --- Options ---
 */

static bool parse_mac(const char *text, uint8_t mac[NET_MAC_LEN])
{
	unsigned b[NET_MAC_LEN];
	char rest;

	if (strlen(text) != 17 ||
	    sscanf(text, "%2x:%2x:%2x:%2x:%2x:%2x%c", &b[0], &b[1], &b[2],
		   &b[3], &b[4], &b[5], &rest) != NET_MAC_LEN)
		return false;
	for (int i = 0; i < NET_MAC_LEN; i++)
		mac[i] = (uint8_t)b[i];
	return !(mac[0] & 1);
}

/*
 * The default address: the same when the device is restarted under a running
 * driver, and different for each device and host. For an embedder without
 * identities, the options distinguish devices.
 */
static void make_mac(const struct opts *opts, uint64_t identity,
		     uint8_t mac[NET_MAC_LEN])
{
	static const char *const keys[] = {
		"id", "socket", "ifname", "path", "addr", "local", "fd",
	};
	uint64_t hash = identity ? identity : HASH_START;
	struct utsname host;

	if (!identity && uname(&host) == 0)
		hash = hash_text(hash, host.nodename);
	for (unsigned i = 0; i < ARRAY_LEN(keys); i++) {
		const char *value = opt_string(opts, keys[i]);

		hash = hash_text(hash, value ? value : "");
	}
	for (int i = 0; i < NET_MAC_LEN; i++)
		mac[i] = (uint8_t)(hash >> 8 * i);
	mac[0] = (uint8_t)((mac[0] & 0xfc) | 2); /* local, unicast */
}

static int read_opts(struct net_softc *sc, const struct vdev_env *env,
		     struct err *err)
{
	const struct opts *opts = env->opts;
	const char *mac = opt_string(opts, "mac");
	uint64_t bps = opt_number(opts, "bps");

	sc->sc_mac_given = mac || sc->sc_be->has_mac;
	if (!mac && sc->sc_be->has_mac)
		memcpy(sc->sc_default_mac, sc->sc_be->mac, NET_MAC_LEN);
	else if (!mac)
		make_mac(opts, env->identity, sc->sc_default_mac);
	else if (!parse_mac(mac, sc->sc_default_mac))
		return err_set(err, -EINVAL,
			       "net: mac=%s: not a unicast address", mac);
	memcpy(sc->sc_mac, sc->sc_default_mac, sizeof(sc->sc_mac));
	sc->sc_mtu = sc->sc_told_mtu = (uint16_t)opt_number(opts, "mtu");
	ratelimit_init(&sc->sc_tx_limit, bps, NET_MAX_FRAME);
	ratelimit_init(&sc->sc_rx_limit, bps, NET_MAX_FRAME);
	sc->sc_speed = DEFAULT_MBIT;
	if (bps && bps / BITS_PER_MBIT * 8 < DEFAULT_MBIT)
		sc->sc_speed = (uint32_t)(bps * 8 / BITS_PER_MBIT + 1);
	return 0;
}

static uint64_t offer_of(const struct net_softc *sc, const struct opts *opts)
{
	uint64_t offer = FEATURES | sc->sc_be->features;

	if (sc->sc_mtu)
		offer |= NET_F(MTU);
	if (sc->sc_max_pairs > 1)
		offer |= NET_F(MQ);
	if (offer & NET_F(GUEST_CSUM))
		offer |= NET_F(CTRL_GUEST_OFFLOADS);
	if (opt_bool(opts, "rss"))
		offer |= NET_F(RSS) | NET_F(HASH_REPORT);
	return offer;
}

static int net_open(const struct opts *opts, struct opened_files *files,
		    struct err *err)
{
	const char *pcap = opt_string(opts, "pcap");
	int fd, ret;

	ret = net_be_open(opts, files, err);
	if (ret < 0 || !pcap)
		return ret;
	fd = pcap_open(pcap);
	ret = fd < 0 ? fd : opened_files_add(files, "pcap", fd);
	if (ret < 0) {
		if (fd >= 0)
			close(fd);
		return err_set(err, ret, "net: pcap=%s: %s", pcap,
			       strerror(-ret));
	}
	return 0;
}

/*
 * --- Status and control ---
 */

static struct json_object *stats_json(struct net_stats stats)
{
	struct json_object *to = json_object_new_object();

	json_add_uint(to, "frames", stats.frames);
	json_add_uint(to, "bytes", stats.bytes);
	json_add_uint(to, "dropped", stats.dropped);
	json_add_uint(to, "filtered", stats.filtered);
	return to;
}

static void write_stat(void *arg, const char *name, uint64_t val)
{
	json_add_uint(arg, name, val);
}

static struct json_object *backend_json(const struct net_be *be)
{
	struct json_object *to = json_object_new_object();

	be->ops->stats(be, write_stat, to);
	return to;
}

static void net_status(struct vdev *dev, struct json_object *status)
{
	struct net_softc *sc = net_of(dev);
	const uint8_t *m = sc->sc_mac;
	char mac[18];

	snprintf(mac, sizeof(mac), "%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1],
		 m[2], m[3], m[4], m[5]);
	json_add_string(status, "backend", sc->sc_be->ops->name);
	json_add_string(status, "mac", mac);
	json_add_string(status, "link", net_link_up(sc) ? "up" : "down");
	json_add_uint(status, "pairs", sc->sc_pairs);
	json_object_object_add(status, "tx", stats_json(net_stats_sum(sc, 1)));
	json_object_object_add(status, "rx", stats_json(net_stats_sum(sc, 0)));
	if (sc->sc_pcap)
		json_add_uint(status, "pcap-dropped",
			      pcap_dropped(sc->sc_pcap));
	if (sc->sc_be->ops->stats)
		json_object_object_add(status, sc->sc_be->ops->name,
				       backend_json(sc->sc_be));
}

static int ctl_link(struct net_softc *sc, const char *state, struct err *err)
{
	bool up = !strcmp(state, "up");

	if (!up && strcmp(state, "down") != 0)
		return err_set(err, -EINVAL, "link: must be up or down");
	net_set_link(sc, up, sc->sc_carrier);
	return 0;
}

static int ctl_announce(struct net_softc *sc, struct err *err)
{
	if (!net_has(sc, NET_F(GUEST_ANNOUNCE)))
		return err_set(err, -EOPNOTSUPP,
			       "announce: not supported by the driver");
	if (!net_link_up(sc))
		return err_set(err, -ENETDOWN, "announce: the link is down");
	net_announce(sc);
	return 0;
}

/* A command of one backend alone. */
static int ctl_backend(struct net_softc *sc, int argc, char *const argv[],
		       struct json_object *reply, struct err *err)
{
	if (!sc->sc_be->ops->ctl)
		return err_set(err, -EOPNOTSUPP,
			       "%s: not supported by backend=%s", argv[0],
			       sc->sc_be->ops->name);
	return sc->sc_be->ops->ctl(sc->sc_be, argc, argv, reply, err);
}

static int net_ctl(struct vdev *dev, int argc, char *const argv[],
		   struct opened_files *files, struct json_object *reply,
		   struct err *err)
{
	struct net_softc *sc = net_of(dev);
	int ret;

	if (!strcmp(argv[0], "hostfwd"))
		return ctl_backend(sc, argc, argv, reply, err);
	if (!strcmp(argv[0], "link"))
		ret = ctl_link(sc, argc == 2 ? argv[1] : "", err);
	else if (argc == 1)
		ret = ctl_announce(sc, err);
	else
		ret = err_set(err, -EINVAL, "announce: takes no arguments");
	if (ret == 0)
		json_add_string(reply, "link", net_link_up(sc) ? "up" : "down");
	return ret;
}

/*
 * --- Life ---
 */

static bool net_fini(struct vdev *dev)
{
	struct net_softc *sc = net_of(dev);

	for (unsigned i = 0; i < sc->sc_max_pairs; i++) {
		vio_task_cancel(sc->sc_loop, &sc->sc_pair[i].tx_continue);
		free(sc->sc_pair[i].buf);
	}
	vio_task_cancel(sc->sc_loop, &sc->sc_ctrl_continue);
	vio_source_remove(sc->sc_coal_timer);
	vio_source_remove(sc->sc_tx_timer);
	vio_source_remove(sc->sc_rx_timer);
	vio_source_remove(sc->sc_rx_retry);
	net_be_destroy(sc->sc_be);
	pcap_destroy(sc->sc_pcap);
	return true;
}

static int start_record(struct net_softc *sc, int take_fd)
{
	int ret;

	if (take_fd < 0)
		return 0;
	ret = pcap_create(sc->sc_loop, take_fd, &sc->sc_pcap);
	if (ret < 0)
		close(take_fd);
	return ret;
}

static int build(struct net_softc *sc, int take_pcap_fd)
{
	int ret = start_record(sc, take_pcap_fd);

	if (ret == 0)
		ret = vio_timer_add(sc->sc_loop, net_coal_on_timer, sc,
				    &sc->sc_coal_timer);

	if (ret == 0)
		ret = vio_timer_add(sc->sc_loop, net_on_tx_timer, sc,
				    &sc->sc_tx_timer);
	if (ret == 0)
		ret = vio_timer_add(sc->sc_loop, net_on_rx_timer, sc,
				    &sc->sc_rx_timer);
	if (ret == 0)
		ret = vio_timer_add(sc->sc_loop, net_on_rx_timer, sc,
				    &sc->sc_rx_retry);
	for (unsigned i = 0; i < sc->sc_max_pairs; i++) {
		struct net_pair *p = &sc->sc_pair[i];

		p->sc = sc;
		p->idx = i;
		p->tx_continue =
			(struct vio_task){ .fn = net_tx_continue, .arg = p };
		p->rx_stalled = true;
		p->buf = malloc(NET_MAX_FRAME + 1);
		if (!p->buf)
			ret = -ENOMEM;
	}
	return ret;
}

static bool is_tx(void *arg, unsigned q)
{
	return q % 2 == 1;
}

static const struct virtio_net_ops net_ops = {
	.no_set_mtu = net_set_mtu,
	.no_announce = net_announce_mac,
	.no_is_tx = is_tx,
};

static const struct virtio_consts net_consts = {
	.vc_name = "net",
	.vc_cfgsize = sizeof(struct net_config),
	.vc_reset = net_reset,
	.vc_qnotify = net_qnotify,
	.vc_cfgread = net_cfgread,
	.vc_cfgwrite = net_cfgwrite,
	.vc_apply_features = net_apply_features,
	.vc_quiesce = net_coal_flush,
	.vc_qreset = net_qreset,
	.vc_save = net_save,
	.vc_load = net_load,
	.vc_net = &net_ops,
};

static void fill_consts(struct net_softc *sc)
{
	sc->sc_vc = net_consts;
	sc->sc_vc.vc_nvq = (int)(2 * sc->sc_max_pairs + 1);
	sc->sc_vc.vc_hv_caps_modern = sc->sc_offer | VI_RING_CAPS_MODERN;
	/* A legacy driver has no features above bit 31. */
	sc->sc_vc.vc_hv_caps_legacy =
		(uint32_t)sc->sc_offer | VI_RING_CAPS_LEGACY;
}

/* Takes ownership of the backend, even on failure. */
static int init_on(struct net_softc *sc, const struct vdev_env *env,
		   struct net_be *take_be, struct err *err)
{
	int ret;

	sc->sc_loop = env->loop;
	sc->sc_be = take_be;
	sc->sc_max_pairs = take_be->nr_channels;
	sc->sc_ctrl_continue =
		(struct vio_task){ .fn = net_ctrl_continue, .arg = sc };
	sc->sc_admin_up = true;
	sc->sc_carrier = !take_be->down;
	sc->sc_pairs = sc->sc_channels = 1;
	sc->sc_hdr_len = net_hdr_len(0);
	sc->sc_dev.most_bytes =
		take_be->most_bytes + sc->sc_max_pairs * NET_MAX_FRAME;
	net_be_attach(take_be, &net_client, sc);
	ret = build(sc, opened_files_take(env->files, "pcap"));
	if (ret == 0 && take_be->ops->set_channels)
		ret = take_be->ops->set_channels(take_be, 1);
	if (ret < 0)
		err_set(err, ret, "net: %s", strerror(-ret));
	else
		ret = read_opts(sc, env, err);
	if (ret == 0) {
		sc->sc_offer = offer_of(sc, env->opts);
		fill_consts(sc);
		ret = vdev_attach(&sc->sc_dev, env, &sc->sc_vs, &sc->sc_vc,
				  sc->sc_vqs, err);
	}
	return ret;
}

static int net_init(struct vdev *dev, const struct vdev_env *env,
		    struct err *err)
{
	struct net_be *be;
	int ret = net_be_create(env->opts, env->files, env->loop, &be, err);

	return ret < 0 ? ret : init_on(net_of(dev), env, be, err);
}

int net_create_on(const struct vdev_env *env, struct net_be *take_be,
		  struct vdev **ret_dev, struct err *err)
{
	struct vdev *dev = vdev_alloc(&vdev_net, err);
	int ret;

	if (!dev) {
		net_be_destroy(take_be);
		return -ENOMEM;
	}
	ret = init_on(net_of(dev), env, take_be, err);
	if (ret < 0)
		vdev_free(dev);
	else
		*ret_dev = dev;
	return ret;
}

static const struct opt_def net_opts[] = {
	NET_BE_OPTS,
	{ "mac", OPT_STRING, .help = "MAC address; default: generated" },
	{ "pcap", OPT_STRING,
	  .help = "record all frames to this file or FIFO; default: none" },
	{ "bps", OPT_SIZE, .min = 1,
	  .help = "limit, bytes per second, each way; default: none" },
	{ "rss", OPT_BOOL, "off",
	  .help = "offer RSS and hash reports (slower)" },
	{ NULL },
};

static const virtio_capstr_t net_features[] = {
	{ NET_F(CSUM), "CSUM" },
	{ NET_F(GUEST_CSUM), "GUEST_CSUM" },
	{ NET_F(CTRL_GUEST_OFFLOADS), "CTRL_GUEST_OFFLOADS" },
	{ NET_F(MTU), "MTU" },
	{ NET_F(MAC), "MAC" },
	{ NET_F(GUEST_TSO4), "GUEST_TSO4" },
	{ NET_F(GUEST_TSO6), "GUEST_TSO6" },
	{ NET_F(GUEST_ECN), "GUEST_ECN" },
	{ NET_F(GUEST_UFO), "GUEST_UFO" },
	{ NET_F(HOST_TSO4), "HOST_TSO4" },
	{ NET_F(HOST_TSO6), "HOST_TSO6" },
	{ NET_F(HOST_ECN), "HOST_ECN" },
	{ NET_F(HOST_UFO), "HOST_UFO" },
	{ NET_F(MRG_RXBUF), "MRG_RXBUF" },
	{ NET_F(STATUS), "STATUS" },
	{ NET_F(CTRL_VQ), "CTRL_VQ" },
	{ NET_F(CTRL_RX), "CTRL_RX" },
	{ NET_F(CTRL_VLAN), "CTRL_VLAN" },
	{ NET_F(CTRL_RX_EXTRA), "CTRL_RX_EXTRA" },
	{ NET_F(GUEST_ANNOUNCE), "GUEST_ANNOUNCE" },
	{ NET_F(MQ), "MQ" },
	{ NET_F(CTRL_MAC_ADDR), "CTRL_MAC_ADDR" },
	{ NET_F(DEVICE_STATS), "DEVICE_STATS" },
	{ NET_F(VQ_NOTF_COAL), "VQ_NOTF_COAL" },
	{ NET_F(NOTF_COAL), "NOTF_COAL" },
	{ NET_F(GUEST_USO4), "GUEST_USO4" },
	{ NET_F(GUEST_USO6), "GUEST_USO6" },
	{ NET_F(HOST_USO), "HOST_USO" },
	{ NET_F(HASH_REPORT), "HASH_REPORT" },
	{ NET_F(RSS), "RSS" },
	{ NET_F(SPEED_DUPLEX), "SPEED_DUPLEX" },
	{ 0, NULL },
};

static const int net_syscalls[] = {
	SYS_close,
	SYS_epoll_ctl,
	SYS_timerfd_settime,
	-1,
};

static const struct vdev_ctl net_ctls[] = {
	{ "link up|down", "set the link state" },
	{ "announce", "ask the guest to announce its addresses" },
	{ "hostfwd add|remove RULE",
	  "user: start or stop forwarding a host port" },
	{ "hostfwd list", "user: show the forwarded ports" },
	{ NULL },
};

const struct vdev_type vdev_net = {
	.vt_name = "net",
	.vt_alias = "virtio-net",
	.vt_summary = "network card",
	.vt_legacy_id = VIRTIO_DEV_NET,
	.vt_device_id = VIRTIO_ID_NET,
	.vt_pci_class = PCIC_NETWORK,
	.vt_queue_size = DEFAULT_QUEUE,
	.vt_opts = net_opts,
	.vt_features = net_features,
	.vt_ctls = net_ctls,
	.vt_syscalls = net_syscalls,
	.vt_rights = net_be_rights,
	.vt_open = net_open,
	.vt_reopen = net_be_reopen,
	.vt_close = net_be_close,
	VDEV_IN(struct net_softc, sc_dev),
	.vt_init = net_init,
	.vt_fini = net_fini,
	.vt_status = net_status,
	.vt_ctl = net_ctl,
};

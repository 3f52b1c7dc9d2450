/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The network device (virtio 5.1), inside.
 *
 *	net.c        the device: queues, options, control, life and death
 *	conf.c       link, configuration, features
 *	tx.c         from the guest to the backend
 *	rx.c         from the backend to the guest
 *	net_ctrl.c   the control queue
 *	net_save.c   what it has set up, for another process
 *	coal.c       when to interrupt
 *	hdr.c filter.c rss.c   rules, without a device
 *
 * Queues come in pairs: 2 * pair receives, 2 * pair + 1 transmits, pair i on
 * channel i of the backend. The control queue follows the last pair, and which
 * is the last depends on what was negotiated.
 *
 * How many pairs are in use the driver says by the control queue. A driver
 * without one has one pair; but where something between it and us keeps the
 * control queue to itself, no feature arrives that needs it, and rings start
 * and stop. So without control queue the pairs that have rings are in use.
 */
#ifndef DEV_NET_NET_H
#define DEV_NET_NET_H

#include <viodev/net.h>

#include "back/net/net_be.h"
#include "back/net/pcap.h"
#include "base/ratelimit.h"
#include <viodev/iov.h>
#include "dev/net/filter.h"
#include "dev/net/hdr.h"
#include "dev/net/rss.h"
#include "dev/vdev.h"

#define NET_MAX_PAIRS  NET_MAX_CHANNELS
#define NET_MAX_QUEUES (2 * NET_MAX_PAIRS + 1)

/* 5.1.4, without the fields of features that we do not have. */
struct net_config {
	uint8_t mac[NET_MAC_LEN];
	le16 status;
	le16 max_pairs;
	le16 mtu;
	le32 speed;
	uint8_t duplex;
	uint8_t rss_max_key;
	le16 rss_max_table;
	le32 hash_types;
};

struct net_stats {
	uint64_t frames;
	uint64_t bytes;
	uint64_t dropped;  /* malformed, or the backend could not */
	uint64_t filtered; /* not for this driver */
};

/* Interrupt after so many packets or microseconds; 0 of either: at once. */
struct net_coal_params {
	uint32_t max_packets;
	uint32_t max_usecs;
};

struct net_coal {
	struct net_coal_params params;
	uint32_t nr_done; /* packets that the driver was not told of */
	uint64_t due_ns;  /* when it will be; 0: nothing is waiting */
	bool emptied;     /* for vq_endchains() */
};

/*
 * Chains of a receive queue that were taken for frames to come. The frame is
 * received right into them; what is left goes back at the end of the iteration.
 *
 *	iov:     [host hdr][ .... first chain .... ][ second .... ][ spill ]
 *	hdr:               guest's header, cut off
 */
#define NET_WINDOW_CHAINS 128u
#define NET_WINDOW_IOV    (NET_MAX_IOV - 2)
#define NET_CHAIN_IOV     256 /* of one receive chain */

struct net_window {
	struct vqueue_info *vq; /* NULL: closed */
	struct {
		uint16_t idx;
		int niov;
		size_t bytes; /* for the frame: without the header, if first */
	} chain[NET_WINDOW_CHAINS];
	unsigned nr_chains;
	bool cut; /* the first chain's header was cut off */
	struct iovec hdr[NET_HDR_MAX];
	int nr_hdr;
	size_t bytes;    /* of all chains */
	int first, niov; /* in iov; first >= 1 */
	struct iovec iov[NET_WINDOW_IOV + 2];
};

struct net_softc;

struct net_pair {
	struct net_softc *sc;
	unsigned idx;
	struct vio_task tx_continue;
	bool rx_stalled; /* the channel waits: for buffers, or for bps= */
	size_t longest;  /* frame of this iteration */
	size_t want;     /* bytes to have room for, at best */
	/* A frame that has been received and has no place in the queue yet. */
	struct virtio_net_hdr pending_hdr;
	size_t pending_len; /* 0: none */
	uint8_t *buf;       /* it, or what spills over */
};

struct net_softc {
	struct virtio_softc sc_vs;  /* first: callbacks get it as a void * */
	struct virtio_consts sc_vc; /* its own: queues and features vary */
	struct vqueue_info sc_vqs[NET_MAX_QUEUES];
	struct vdev sc_dev;
	struct vio_loop *sc_loop;
	struct net_be *sc_be;
	struct pcap *sc_pcap; /* NULL: nothing is recorded */

	unsigned sc_max_pairs;
	unsigned sc_pairs;    /* transmit queues in use */
	unsigned sc_channels; /* receive queues in use */
	struct net_pair sc_pair[NET_MAX_PAIRS];
	struct vio_task sc_ctrl_continue;

	uint64_t sc_offer;
	uint64_t sc_offloads; /* of NET_GUEST_OFFLOADS, in force */
	size_t sc_hdr_len;

	bool sc_mac_given; /* by mac= */
	uint8_t sc_default_mac[NET_MAC_LEN];
	uint8_t sc_mac[NET_MAC_LEN];
	uint16_t sc_mtu;      /* 0: not offered */
	uint16_t sc_told_mtu; /* that, or less by the front-end */
	uint32_t sc_speed;
	bool sc_admin_up; /* by ctl */
	bool sc_carrier;  /* by the backend */
	bool sc_announce; /* asked for, not acknowledged */

	struct net_filter sc_filter;
	struct net_rss sc_rss;
	struct net_coal_params sc_coal_default[2]; /* rx, tx */
	struct net_coal sc_coal[NET_MAX_QUEUES];
	struct vio_source *sc_coal_timer;

	struct ratelimit sc_tx_limit, sc_rx_limit; /* bps= of a direction */
	struct vio_source *sc_tx_timer, *sc_rx_timer;
	struct vio_source *sc_rx_retry; /* after a failure of the backend */
	uint64_t sc_rx_retry_ns;        /* its last wait; 0: it works */
	struct net_stats sc_tx, sc_rx;

	/* One iteration's: what is taken is given back before it ends. */
	struct iovec sc_iov[NET_MAX_IOV];
	struct iovec sc_record[NET_MAX_IOV];
	struct net_window sc_win;
};

static inline bool net_has(const struct net_softc *sc, uint64_t features)
{
	return sc->sc_vs.vs_negotiated_caps & features;
}

static inline struct vqueue_info *net_rxq(struct net_softc *sc, unsigned pair)
{
	return &sc->sc_vqs[2 * pair];
}

static inline struct vqueue_info *net_txq(struct net_softc *sc, unsigned pair)
{
	return &sc->sc_vqs[2 * pair + 1];
}

/*
 * --- net.c ---
 */

/* The device around a backend, which it owns, also when this fails. */
int net_create_on(const struct vdev_env *env, struct net_be *take_be,
		  struct vdev **ret_dev, struct err *err);

void net_record(struct net_softc *sc, const struct iovec *iov, int niov,
		size_t len);

/* Pairs that were negotiated: the control queue is behind them. */
unsigned net_nr_pairs(const struct net_softc *sc);

/* Use so many queues of each kind from now on. */
int net_set_pairs(struct net_softc *sc, unsigned nr_tx, unsigned nr_rx);

/* Without a control queue: a pair beyond the last came, or the last went. */
void net_follow_rings(struct net_softc *sc);

/* Whether a frame may pass; if not, @timer is set to when one may. */
bool net_limit_allows(struct ratelimit *limit, struct vio_source *timer);

/*
 * --- conf.c ---
 */

bool net_link_up(const struct net_softc *sc);

/* The link is up when both its ends are: ours, by ctl, and the backend's. */
void net_set_link(struct net_softc *sc, bool admin_up, bool carrier);

/* Ask the driver, which has GUEST_ANNOUNCE, to send what makes it known. */
void net_announce(struct net_softc *sc);

/* For front-ends that have the control queue themselves: vc_net. */
int net_set_mtu(void *arg, uint16_t mtu);
int net_announce_mac(void *arg, const uint8_t mac[NET_MAC_LEN]);

int net_cfgread(void *arg, int offset, int size, uint32_t *retval);
int net_cfgwrite(void *arg, int offset, int size, uint32_t value);
void net_apply_features(void *arg, uint64_t *features);

/* 0, or -EINVAL when the offloads make no sense. */
int net_set_offloads(struct net_softc *sc, uint64_t offloads);

/*
 * --- tx.c, rx.c, net_ctrl.c ---
 */

void net_tx_run(struct net_softc *sc, unsigned pair);

/* Move frames of a channel until there is none, or no room. */
void net_rx_run(struct net_softc *sc, unsigned channel);
void net_rx_kick(struct net_softc *sc); /* buffers came */
void net_rx_stop(struct net_softc *sc); /* forget frames that wait */

void net_ctrl_run(struct net_softc *sc, struct vqueue_info *vq);

/* A command that the driver once gave to another process: false if refused. */
bool net_ctrl_replay(struct net_softc *sc, const void *command, size_t len);

/*
 * --- net_save.c: vc_save, vc_load ---
 */

ssize_t net_save(void *arg, void *buf, size_t room);
int net_load(void *arg, const void *buf, size_t len);

/*
 * --- coal.c ---
 */

/* A packet of this queue is done; the iteration's last one was. */
void net_coal_done(struct net_softc *sc, struct vqueue_info *vq);
void net_coal_end(struct net_softc *sc, struct vqueue_info *vq, bool emptied);

/* New parameters: what they allow already happens now. */
void net_coal_set(struct net_softc *sc, struct vqueue_info *vq,
		  struct net_coal_params params);
void net_coal_reset(struct net_softc *sc);
/* vc_quiesce: no chain outlives an iteration, but interrupts may be waiting. */
void net_coal_flush(void *arg);
void net_coal_on_timer(void *arg);

#endif

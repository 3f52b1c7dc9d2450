/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Internals of the network device (virtio 5.1).
 *
 *	net.c        the device: queues, options, control, creation, destruction
 *	conf.c       link, configuration, features
 *	tx.c         from the guest to the backend
 *	rx.c         from the backend to the guest
 *	net_ctrl.c   the control queue
 *	net_save.c   the driver's settings, for another process
 *	coal.c       interrupt coalescing
 *	hdr.c filter.c rss.c   pure rules, without a device
 *
 * Queues come in pairs: 2 * pair receives, 2 * pair + 1 transmits, pair i on
 * channel i of the backend. The control queue follows the last pair, and which
 * is the last depends on what was negotiated.
 *
 * The driver sets the number of pairs in use through the control queue. A
 * driver without one uses one pair. But a front-end that handles the control
 * queue itself negotiates no feature that needs it, and starts and stops rings.
 * So without a control queue, the pairs that have rings are in use.
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

/* 5.1.4, without the fields of features that are not implemented. */
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

/* Of a queue. */
struct net_stats {
	uint64_t frames;
	uint64_t bytes;
	uint64_t dropped;    /* malformed, or the backend failed */
	uint64_t malformed;  /* of these, by the driver's fault */
	uint64_t filtered;   /* not addressed to this driver */
	uint64_t csum_valid; /* the device vouches for the checksum, */
	uint64_t needs_csum; /* or it is not complete */
};

/* Counted before the last reset: what the driver sees begins with 0. */
struct net_stats_base {
	struct net_stats stats;
	uint64_t kicks, interrupts;
};

/* Interrupt after so many packets or microseconds; either 0: at once. */
struct net_coal_params {
	uint32_t max_packets;
	uint32_t max_usecs;
};

struct net_coal {
	struct net_coal_params params;
	uint32_t nr_done; /* packets without an interrupt so far */
	uint64_t due_ns;  /* of the interrupt; 0: none is pending */
	bool emptied;     /* for vq_endchains() */
};

/*
 * Chains of a receive queue that were taken for the next frames. A frame is
 * received directly into them; unused chains are returned at the end of the
 * iteration.
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
		size_t bytes; /* for the frame; of the first: without header */
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
	bool rx_stalled; /* the channel waits for buffers or for bps= */
	bool rx_reset;   /* the driver has reset its queue at least once */
	size_t longest;  /* frame of this iteration */
	size_t want;     /* preferred room, in bytes */
	/* A frame that was received before the queue had room for it. */
	struct virtio_net_hdr pending_hdr;
	size_t pending_len; /* 0: none */
	uint8_t *buf;       /* that frame, or what spills over */
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
	uint16_t sc_told_mtu; /* the same, or the front-end's lower value */
	uint32_t sc_speed;
	bool sc_admin_up; /* by ctl */
	bool sc_carrier;  /* by the backend */
	bool sc_announce; /* requested, not acknowledged */

	struct net_filter sc_filter;
	struct net_rss sc_rss;
	struct net_coal_params sc_coal_default[2]; /* rx, tx */
	struct net_coal sc_coal[NET_MAX_QUEUES];
	struct vio_source *sc_coal_timer;

	struct ratelimit sc_tx_limit, sc_rx_limit; /* bps= of a direction */
	struct vio_source *sc_tx_timer, *sc_rx_timer;
	struct vio_source *sc_rx_retry; /* after a failure of the backend */
	uint64_t sc_rx_retry_ns;        /* last delay; 0: the backend works */
	struct net_stats sc_stats[NET_MAX_QUEUES];
	struct net_stats_base sc_stats_base[NET_MAX_QUEUES];
	uint64_t sc_commands, sc_commands_ok; /* of the driver, since a reset */

	/* Of one iteration, which returns all chains that it takes. */
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

/* Create the device on a backend. Takes ownership, even on failure. */
int net_create_on(const struct vdev_env *env, struct net_be *take_be,
		  struct vdev **ret_dev, struct err *err);

void net_record(struct net_softc *sc, const struct iovec *iov, int niov,
		size_t len);

/* The negotiated number of pairs: the control queue follows them. */
unsigned net_nr_pairs(const struct net_softc *sc);

/* Use this many queues of each kind from now on. */
int net_set_pairs(struct net_softc *sc, unsigned nr_tx, unsigned nr_rx);

/* Without a control queue: rings of a pair started or stopped. */
void net_follow_rings(struct net_softc *sc);

/* Whether a frame may pass; otherwise @timer is set for when one may. */
bool net_limit_allows(struct ratelimit *limit, struct vio_source *timer);

/*
 * --- conf.c ---
 */

bool net_link_up(const struct net_softc *sc);

/* The link is up when both ends are: ours (set by ctl) and the backend's. */
void net_set_link(struct net_softc *sc, bool admin_up, bool carrier);

/* Ask a driver with GUEST_ANNOUNCE to announce itself. */
void net_announce(struct net_softc *sc);

/* For front-ends that handle the control queue themselves: vc_net. */
int net_set_mtu(void *arg, uint16_t mtu);
int net_announce_mac(void *arg, const uint8_t mac[NET_MAC_LEN]);

int net_cfgread(void *arg, int offset, int size, uint32_t *retval);
int net_cfgwrite(void *arg, int offset, int size, uint32_t value);
void net_apply_features(void *arg, uint64_t *features);

/* 0, or -EINVAL for an invalid combination of offloads. */
int net_set_offloads(struct net_softc *sc, uint64_t offloads);

/*
 * --- tx.c, rx.c, net_ctrl.c ---
 */

void net_tx_run(struct net_softc *sc, unsigned pair);

/* Receive frames of a channel until none is left, or no room. */
void net_rx_run(struct net_softc *sc, unsigned channel);
void net_rx_kick(struct net_softc *sc); /* buffers were added */
void net_rx_stop(struct net_softc *sc); /* drop pending frames */

void net_ctrl_run(struct net_softc *sc, struct vqueue_info *vq);

/* Repeat a command that another process executed: false if refused. */
bool net_ctrl_replay(struct net_softc *sc, const void *command, size_t len);

/*
 * --- net_save.c: vc_save, vc_load ---
 */

ssize_t net_save(void *arg, void *buf, size_t room);
int net_load(void *arg, const void *buf, size_t len);

/*
 * --- stats.c: DEVICE_STATS ---
 */

/* The driver wants statistics of these types, by number, of a queue. */
struct net_stats_request {
	uint16_t vq_index;
	uint64_t types;
};

/* Of a direction, since the device was created. */
struct net_stats net_stats_sum(const struct net_softc *sc, unsigned tx);

/* What the driver sees begins with 0 again. */
void net_stats_reset(struct net_softc *sc);

/* The types that the driver may request, of one queue or another. */
uint64_t net_stats_types(const struct net_softc *sc);

/*
 * Read the requests of a command: how many, or -EINVAL when any is wrong, which
 * fails all. Write the replies, as far as there is room, and return the bytes.
 */
int net_stats_parse(const struct net_softc *sc, struct vio_iov_cursor *from,
		    struct net_stats_request requests[NET_MAX_QUEUES]);
size_t net_stats_write(const struct net_softc *sc,
		       const struct net_stats_request *requests, unsigned nr,
		       struct vio_iov_cursor *to);

/*
 * --- coal.c ---
 */

/* A packet of this queue is complete; the iteration's last one was. */
void net_coal_done(struct net_softc *sc, struct vqueue_info *vq);
void net_coal_end(struct net_softc *sc, struct vqueue_info *vq, bool emptied);

/* New parameters: an interrupt that they make due is sent now. */
void net_coal_set(struct net_softc *sc, struct vqueue_info *vq,
		  struct net_coal_params params);
/* The queue was reset: what holds for all of its kind holds for it. */
void net_coal_renew(struct net_softc *sc, struct vqueue_info *vq);
void net_coal_reset(struct net_softc *sc);
/* vc_quiesce: no chain outlives an iteration, but interrupts may be pending. */
void net_coal_flush(void *arg);
void net_coal_on_timer(void *arg);

#endif

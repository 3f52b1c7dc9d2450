/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The control queue (virtio 5.1.6.5). A command has a class, number and data; the
 * answer is a byte, which a result follows for some. A command takes effect
 * before its answer is visible. A rejected command changes nothing.
 */
#include <string.h>

#include "base/util.h"
#include "dev/net/net.h"

#define CLASS_RX       VIRTIO_NET_CTRL_RX
#define CLASS_MAC      VIRTIO_NET_CTRL_MAC
#define CLASS_VLAN     VIRTIO_NET_CTRL_VLAN
#define CLASS_ANNOUNCE VIRTIO_NET_CTRL_ANNOUNCE
#define CLASS_MQ       VIRTIO_NET_CTRL_MQ
#define CLASS_OFFLOADS VIRTIO_NET_CTRL_GUEST_OFFLOADS
#define CLASS_COAL     VIRTIO_NET_CTRL_NOTF_COAL
#define CLASS_STATS    8
#define COAL_VQ_SET    2
#define COAL_VQ_GET    3

#define RESULT_MAX 8 /* bytes */

struct net_cmd {
	uint8_t number; /* of the command in its class */
	struct vio_iov_cursor data;
	bool replayed; /* to a device that has no ring yet */
	uint8_t result[RESULT_MAX];
	size_t result_len;
	/* The statistics that follow it. */
	struct net_stats_request stats[NET_MAX_QUEUES];
	unsigned nr_stats;
};

/* Read a whole object of @len bytes. */
static bool take(struct net_cmd *cmd, void *buf, size_t len)
{
	return vio_iov_take(&cmd->data, buf, len) == len;
}

static bool do_rx_mode(struct net_softc *sc, struct net_cmd *cmd)
{
	unsigned bit = 1u << cmd->number;
	uint8_t on = 0;

	if (!take(cmd, &on, sizeof(on)) || on > 1)
		return false;
	if (on)
		sc->sc_filter.modes |= bit;
	else
		sc->sc_filter.modes &= ~bit;
	return true;
}

/* A count, and that many addresses. */
static bool take_macs(struct net_cmd *cmd, struct net_macs *ret_macs)
{
	le32 nr_le;
	uint32_t nr;

	if (!take(cmd, &nr_le, sizeof(nr_le)))
		return false;
	nr = le32_to_cpu(nr_le);
	if (nr > vio_iov_len(&cmd->data) / NET_MAC_LEN)
		return false;
	ret_macs->overflow = nr > NET_MAX_MACS;
	ret_macs->nr = ret_macs->overflow ? 0 : nr;
	if (ret_macs->overflow)
		vio_iov_skip(&cmd->data, (size_t)nr * NET_MAC_LEN);
	return take(cmd, ret_macs->mac, ret_macs->nr * NET_MAC_LEN);
}

static bool do_mac_table(struct net_softc *sc, struct net_cmd *cmd)
{
	struct net_macs uni, multi;

	if (!take_macs(cmd, &uni) || !take_macs(cmd, &multi))
		return false;
	sc->sc_filter.uni = uni;
	sc->sc_filter.multi = multi;
	return true;
}

static bool do_mac_addr(struct net_softc *sc, struct net_cmd *cmd)
{
	uint8_t mac[NET_MAC_LEN];

	if (!take(cmd, mac, sizeof(mac)))
		return false;
	memcpy(sc->sc_mac, mac, sizeof(mac));
	return true;
}

static bool do_vlan(struct net_softc *sc, struct net_cmd *cmd)
{
	le16 id;

	return take(cmd, &id, sizeof(id)) &&
	       net_filter_set_vlan(&sc->sc_filter, le16_to_cpu(id),
				   cmd->number == VIRTIO_NET_CTRL_VLAN_ADD);
}

static bool do_announce_ack(struct net_softc *sc, struct net_cmd *cmd)
{
	sc->sc_announce = false;
	return true;
}

static bool do_pairs(struct net_softc *sc, struct net_cmd *cmd)
{
	unsigned nr;
	le16 pairs;

	if (!take(cmd, &pairs, sizeof(pairs)))
		return false;
	nr = le16_to_cpu(pairs);
	if (nr < 1 || nr > sc->sc_max_pairs || net_set_pairs(sc, nr, nr) < 0)
		return false;
	sc->sc_rss.steering = false;
	return true;
}

static bool do_rss(struct net_softc *sc, struct net_cmd *cmd)
{
	struct net_rss rss;

	if (!net_rss_parse(&rss, &cmd->data, true, net_nr_pairs(sc)) ||
	    net_set_pairs(sc, rss.max_tx, rss.max_rx) < 0)
		return false;
	sc->sc_rss = rss;
	return true;
}

static bool do_hash(struct net_softc *sc, struct net_cmd *cmd)
{
	return net_rss_parse(&sc->sc_rss, &cmd->data, false, net_nr_pairs(sc));
}

static bool do_offloads(struct net_softc *sc, struct net_cmd *cmd)
{
	uint64_t offloads;
	le64 mask;

	if (!take(cmd, &mask, sizeof(mask)))
		return false;
	offloads = le64_to_cpu(mask);
	if (offloads & ~(sc->sc_vs.vs_negotiated_caps & NET_GUEST_OFFLOADS))
		return false;
	return net_set_offloads(sc, offloads) == 0;
}

struct coal_wire {
	le32 max_packets;
	le32 max_usecs;
};

static struct net_coal_params coal_params(const struct coal_wire *w)
{
	return (struct net_coal_params){ le32_to_cpu(w->max_packets),
					 le32_to_cpu(w->max_usecs) };
}

/* TX_SET and RX_SET: all queues of a direction. */
static bool do_coal_set(struct net_softc *sc, struct net_cmd *cmd)
{
	unsigned tx = cmd->number == VIRTIO_NET_CTRL_NOTF_COAL_TX_SET;
	struct net_coal_params params;
	struct coal_wire wire;

	if (!take(cmd, &wire, sizeof(wire)))
		return false;
	params = coal_params(&wire);
	sc->sc_coal_default[tx] = params;
	for (unsigned i = 0; i < net_nr_pairs(sc); i++)
		net_coal_set(sc, &sc->sc_vqs[2 * i + tx], params);
	return true;
}

/* The queue of a VQ_ command, if it carries packets. */
static struct vqueue_info *take_vq(struct net_softc *sc, struct net_cmd *cmd)
{
	le16 head[2]; /* number, reserved */
	unsigned i;

	if (!take(cmd, head, sizeof(head)))
		return NULL;
	i = le16_to_cpu(head[0]);
	if (i >= 2 * net_nr_pairs(sc) ||
	    !(cmd->replayed || vq_ring_ready(&sc->sc_vqs[i])))
		return NULL;
	return &sc->sc_vqs[i];
}

static bool do_coal_vq_set(struct net_softc *sc, struct net_cmd *cmd)
{
	struct vqueue_info *vq = take_vq(sc, cmd);
	struct coal_wire wire;

	if (!vq || !take(cmd, &wire, sizeof(wire)))
		return false;
	net_coal_set(sc, vq, coal_params(&wire));
	return true;
}

static bool do_coal_vq_get(struct net_softc *sc, struct net_cmd *cmd)
{
	struct vqueue_info *vq = take_vq(sc, cmd);
	const struct net_coal_params *params;
	struct coal_wire wire;

	if (!vq)
		return false;
	params = &sc->sc_coal[vq->vq_num].params;
	wire.max_packets = cpu_to_le32(params->max_packets);
	wire.max_usecs = cpu_to_le32(params->max_usecs);
	memcpy(cmd->result, &wire, sizeof(wire));
	cmd->result_len = sizeof(wire);
	return true;
}

static bool do_stats_query(struct net_softc *sc, struct net_cmd *cmd)
{
	le64 types = cpu_to_le64(net_stats_types(sc));

	memcpy(cmd->result, &types, sizeof(types));
	cmd->result_len = sizeof(types);
	return true;
}

static bool do_stats_get(struct net_softc *sc, struct net_cmd *cmd)
{
	int nr = net_stats_parse(sc, &cmd->data, cmd->stats);

	if (nr < 0)
		return false;
	cmd->nr_stats = (unsigned)nr;
	return true;
}

/* clang-format off */
static const struct {
	uint8_t class, number;
	uint64_t feature;
	bool (*fn)(struct net_softc *sc, struct net_cmd *cmd);
} commands[] = {
	{ CLASS_RX, 0, NET_F(CTRL_RX), do_rx_mode },
	{ CLASS_RX, 1, NET_F(CTRL_RX), do_rx_mode },
	{ CLASS_RX, 2, NET_F(CTRL_RX_EXTRA), do_rx_mode },
	{ CLASS_RX, 3, NET_F(CTRL_RX_EXTRA), do_rx_mode },
	{ CLASS_RX, 4, NET_F(CTRL_RX_EXTRA), do_rx_mode },
	{ CLASS_RX, 5, NET_F(CTRL_RX_EXTRA), do_rx_mode },
	{ CLASS_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET, NET_F(CTRL_RX), do_mac_table },
	{ CLASS_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, NET_F(CTRL_MAC_ADDR), do_mac_addr },
	{ CLASS_VLAN, VIRTIO_NET_CTRL_VLAN_ADD, NET_F(CTRL_VLAN), do_vlan },
	{ CLASS_VLAN, VIRTIO_NET_CTRL_VLAN_DEL, NET_F(CTRL_VLAN), do_vlan },
	{ CLASS_ANNOUNCE, VIRTIO_NET_CTRL_ANNOUNCE_ACK, NET_F(GUEST_ANNOUNCE), do_announce_ack },
	{ CLASS_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, NET_F(MQ), do_pairs },
	{ CLASS_MQ, VIRTIO_NET_CTRL_MQ_RSS_CONFIG, NET_F(RSS), do_rss },
	{ CLASS_MQ, VIRTIO_NET_CTRL_MQ_HASH_CONFIG, NET_F(HASH_REPORT), do_hash },
	{ CLASS_OFFLOADS, VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET, NET_F(CTRL_GUEST_OFFLOADS), do_offloads },
	{ CLASS_COAL, VIRTIO_NET_CTRL_NOTF_COAL_TX_SET, NET_F(NOTF_COAL), do_coal_set },
	{ CLASS_COAL, VIRTIO_NET_CTRL_NOTF_COAL_RX_SET, NET_F(NOTF_COAL), do_coal_set },
	{ CLASS_COAL, COAL_VQ_SET, NET_F(VQ_NOTF_COAL), do_coal_vq_set },
	{ CLASS_COAL, COAL_VQ_GET, NET_F(VQ_NOTF_COAL), do_coal_vq_get },
	{ CLASS_STATS, 0, NET_F(DEVICE_STATS), do_stats_query },
	{ CLASS_STATS, 1, NET_F(DEVICE_STATS), do_stats_get },
};
/* clang-format on */

static bool run_command(struct net_softc *sc, struct net_cmd *cmd)
{
	struct virtio_net_ctrl_hdr hdr;

	if (!take(cmd, &hdr, sizeof(hdr)))
		return false;
	cmd->number = hdr.cmd;
	for (unsigned i = 0; i < ARRAY_LEN(commands); i++) {
		if (commands[i].class == hdr.class &&
		    commands[i].number == hdr.cmd)
			return net_has(sc, commands[i].feature) &&
			       commands[i].fn(sc, cmd);
	}
	return false;
}

bool net_ctrl_replay(struct net_softc *sc, const void *command, size_t len)
{
	struct iovec iov = { (void *)command, len };
	struct net_cmd cmd = { .data = { &iov, 1 }, .replayed = true };

	return run_command(sc, &cmd);
}

static void run_chain(struct net_softc *sc, struct vqueue_info *vq,
		      const struct vi_req *req)
{
	struct iovec *iov = sc->sc_iov;
	struct vio_iov_cursor answer = { iov + req->readable, req->writable };
	struct net_cmd cmd = { .data = { iov, req->readable } };
	uint8_t ack = VIRTIO_NET_ERR;
	size_t len;

	sc->sc_commands++;
	if (run_command(sc, &cmd)) {
		sc->sc_commands_ok++;
		ack = VIRTIO_NET_OK;
	}
	len = vio_iov_write(&answer, &ack, sizeof(ack));
	len += vio_iov_write(&answer, cmd.result, cmd.result_len);
	len += net_stats_write(sc, cmd.stats, cmd.nr_stats, &answer);
	vq_relchain(vq, (uint16_t)req->idx, (uint32_t)len);
}

static enum vq_served ctrl_serve(void *arg, struct vqueue_info *vq)
{
	struct net_softc *sc = arg;
	struct vi_req req;

	if (vq_getchain(vq, sc->sc_iov, NET_MAX_IOV, &req) <= 0)
		return VQ_IDLE;
	run_chain(sc, vq, &req);
	return VQ_MORE;
}

void net_ctrl_run(struct net_softc *sc, struct vqueue_info *vq)
{
	enum vq_served served = vq_serve(vq, vq->vq_qsize, ctrl_serve, sc);

	vq_endchains(vq, served == VQ_IDLE);
	if (served == VQ_MORE)
		vio_task_defer(sc->sc_loop, &sc->sc_ctrl_continue);
}

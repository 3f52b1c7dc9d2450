/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Migration: the state that the driver set by the control queue, as commands that
 * set it again. So the format is the specification's (5.1.6.5), and a
 * front-end's data is checked like a driver's.
 *
 *	address, 6 bytes	then for each command:
 *	length, le16		class	number	data
 */
#include <errno.h>
#include <string.h>

#include "base/out.h"
#include "dev/net/net.h"

#define NR_RX_MODES 6u
#define COAL_VQ_SET 2 /* not in Debian 12's headers */

static void write_command(struct out *out, uint8_t class, uint8_t number,
			  const void *data, size_t len)
{
	struct virtio_net_ctrl_hdr hdr = { class, number };
	le16 bytes = cpu_to_le16((uint16_t)(sizeof(hdr) + len));

	out_write(out, &bytes, sizeof(bytes));
	out_write(out, &hdr, sizeof(hdr));
	out_write(out, data, len);
}

/*
 * --- What there is ---
 */

/* All are off after a reset, except PROMISC. */
static void save_modes(const struct net_softc *sc, struct out *out)
{
	for (unsigned i = 0; i < NR_RX_MODES; i++) {
		uint8_t on = sc->sc_filter.modes >> i & 1;

		if (on || (i == 0 && net_has(sc, NET_F(CTRL_RX))))
			write_command(out, VIRTIO_NET_CTRL_RX, (uint8_t)i, &on,
				      sizeof(on));
	}
}

/* A table that was too long matters only as such. */
static void write_macs(struct out *out, const struct net_macs *macs)
{
	static const uint8_t any[NET_MAX_MACS + 1][NET_MAC_LEN];
	unsigned nr = macs->overflow ? NET_MAX_MACS + 1 : macs->nr;
	le32 count = cpu_to_le32(nr);

	out_write(out, &count, sizeof(count));
	out_write(out, macs->overflow ? any[0] : macs->mac[0],
		  (size_t)nr * NET_MAC_LEN);
}

static void save_macs(const struct net_softc *sc, struct out *out)
{
	uint8_t data[2 * (sizeof(le32) + (NET_MAX_MACS + 1) * NET_MAC_LEN)];
	struct out table = { .buf = data, .size = sizeof(data) };

	write_macs(&table, &sc->sc_filter.uni);
	write_macs(&table, &sc->sc_filter.multi);
	if (net_has(sc, NET_F(CTRL_RX)))
		write_command(out, VIRTIO_NET_CTRL_MAC,
			      VIRTIO_NET_CTRL_MAC_TABLE_SET, data, table.len);
}

static void save_vlans(const struct net_softc *sc, struct out *out)
{
	for (unsigned i = 0; i < NET_NR_VLANS; i++) {
		le16 id = cpu_to_le16((uint16_t)i);

		if (sc->sc_filter.vlans[i / 64] >> i % 64 & 1)
			write_command(out, VIRTIO_NET_CTRL_VLAN,
				      VIRTIO_NET_CTRL_VLAN_ADD, &id,
				      sizeof(id));
	}
}

static void save_pairs(const struct net_softc *sc, struct out *out)
{
	le16 pairs = cpu_to_le16((uint16_t)sc->sc_pairs);

	if (net_has(sc, NET_F(MQ)))
		write_command(out, VIRTIO_NET_CTRL_MQ,
			      VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, &pairs,
			      sizeof(pairs));
}

/* With steering, the command includes the queues in use. */
static void save_rss(const struct net_softc *sc, struct out *out)
{
	const struct net_rss *rss = &sc->sc_rss;
	uint8_t data[sizeof(le32) + 3 * sizeof(le16) + sizeof(rss->table) + 1 +
		     sizeof(rss->key)];
	struct out o = { .buf = data, .size = sizeof(data) };
	le32 types = cpu_to_le32(rss->types);
	le16 words[3 + NET_RSS_TABLE_MAX] = { 0 };
	unsigned nr = 4; /* reserved, of HASH_CONFIG */

	if (rss->steering) {
		nr = 0;
		words[nr++] = cpu_to_le16(rss->mask);
		words[nr++] = cpu_to_le16(rss->unclassified);
		for (unsigned i = 0; i <= rss->mask; i++)
			words[nr++] = cpu_to_le16(rss->table[i]);
		words[nr++] = cpu_to_le16(rss->max_tx);
	}
	out_write(&o, &types, sizeof(types));
	out_write(&o, words, nr * sizeof(*words));
	out_write(&o, &rss->key_len, sizeof(rss->key_len));
	out_write(&o, rss->key, rss->key_len);
	if (rss->steering || rss->types)
		write_command(out, VIRTIO_NET_CTRL_MQ,
			      rss->steering ? VIRTIO_NET_CTRL_MQ_RSS_CONFIG :
					      VIRTIO_NET_CTRL_MQ_HASH_CONFIG,
			      data, o.len);
}

static void save_offloads(const struct net_softc *sc, struct out *out)
{
	le64 offloads = cpu_to_le64(sc->sc_offloads);

	if (net_has(sc, NET_F(CTRL_GUEST_OFFLOADS)))
		write_command(out, VIRTIO_NET_CTRL_GUEST_OFFLOADS,
			      VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET, &offloads,
			      sizeof(offloads));
}

static void save_coalescing(const struct net_softc *sc, struct out *out)
{
	for (unsigned i = 0; i < 2 * net_nr_pairs(sc); i++) {
		const struct net_coal_params *p = &sc->sc_coal[i].params;
		struct {
			le16 vq, reserved;
			le32 max_packets, max_usecs;
		} data = {
			.vq = cpu_to_le16((uint16_t)i),
			.max_packets = cpu_to_le32(p->max_packets),
			.max_usecs = cpu_to_le32(p->max_usecs),
		};

		if (p->max_packets || p->max_usecs)
			write_command(out, VIRTIO_NET_CTRL_NOTF_COAL,
				      COAL_VQ_SET, &data, sizeof(data));
	}
}

ssize_t net_save(void *arg, void *buf, size_t room)
{
	const struct net_softc *sc = arg;
	struct out out = { .buf = buf, .size = room };

	out_write(&out, sc->sc_mac, sizeof(sc->sc_mac));
	save_modes(sc, &out);
	save_macs(sc, &out);
	save_vlans(sc, &out);
	save_pairs(sc, &out);
	save_rss(sc, &out);
	save_offloads(sc, &out);
	save_coalescing(sc, &out);
	return out.full ? -ENOSPC : (ssize_t)out.len;
}

/*
 * --- Setting it up again ---
 */

/* The network may have to learn the driver's new location (5.1.6.5.4). */
int net_load(void *arg, const void *buf, size_t len)
{
	struct net_softc *sc = arg;
	const uint8_t *p = buf, *end = p + len;

	if (len < sizeof(sc->sc_mac))
		return -EINVAL;
	memcpy(sc->sc_mac, p, sizeof(sc->sc_mac));
	/* A guest that restarts here keeps its address. */
	if (!sc->sc_mac_given)
		memcpy(sc->sc_default_mac, p, sizeof(sc->sc_default_mac));
	p += sizeof(sc->sc_mac);
	while (p != end) {
		le16 bytes;

		if ((size_t)(end - p) < sizeof(bytes))
			return -EINVAL;
		memcpy(&bytes, p, sizeof(bytes));
		p += sizeof(bytes);
		if (le16_to_cpu(bytes) > end - p ||
		    !net_ctrl_replay(sc, p, le16_to_cpu(bytes)))
			return -EINVAL;
		p += le16_to_cpu(bytes);
	}
	if (net_has(sc, NET_F(GUEST_ANNOUNCE)) && net_link_up(sc))
		net_announce(sc);
	return 0;
}

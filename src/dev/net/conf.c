/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Link, configuration and feature negotiation (virtio 5.1.3, 5.1.4).
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "dev/net/net.h"

#define DUPLEX_FULL 1 /* as in Linux; the specification has the reverse */

static_assert(sizeof(struct net_config) == 24, "5.1.4");

/*
 * --- Link ---
 */

bool net_link_up(const struct net_softc *sc)
{
	return sc->sc_admin_up && sc->sc_carrier;
}

/* The driver reads the state; a link that comes up has it announce itself. */
void net_set_link(struct net_softc *sc, bool admin_up, bool carrier)
{
	bool was_up = net_link_up(sc);

	sc->sc_admin_up = admin_up;
	sc->sc_carrier = carrier;
	if (net_link_up(sc) == was_up)
		return;
	if (!was_up && net_has(sc, NET_F(GUEST_ANNOUNCE)))
		sc->sc_announce = true;
	if (net_has(sc, NET_F(STATUS)))
		vq_devcfg_changed(&sc->sc_vs);
}

void net_announce(struct net_softc *sc)
{
	sc->sc_announce = true;
	vq_devcfg_changed(&sc->sc_vs);
}

/* RARP as switches know it: a station's request for its own address. */
int net_announce_mac(void *arg, const uint8_t mac[NET_MAC_LEN])
{
	struct net_softc *sc = arg;
	struct virtio_net_hdr host = { 0 };
	struct {
		uint8_t to[NET_MAC_LEN], from[NET_MAC_LEN];
		uint8_t rarp[10]; /* type; Ethernet, IPv4, lengths, request */
		uint8_t sender[NET_MAC_LEN], sender_ip[4];
		uint8_t target[NET_MAC_LEN], target_ip[4];
		uint8_t padding[18];
	} frame = {
		.to = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff },
		.rarp = { 0x80, 0x35, 0, 1, 8, 0, NET_MAC_LEN, 4, 0, 3 },
	};
	struct iovec iov[] = { { &host, sizeof(host) },
			       { &frame, sizeof(frame) } };

	static_assert(sizeof(frame) == 60, "the shortest that there is");
	if (!net_link_up(sc))
		return -ENETDOWN;
	memcpy(frame.from, mac, NET_MAC_LEN);
	memcpy(frame.sender, mac, NET_MAC_LEN);
	memcpy(frame.target, mac, NET_MAC_LEN);
	net_record(sc, iov + 1, 1, sizeof(frame));
	return sc->sc_be->ops->send(sc->sc_be, 0, iov, 2);
}

/*
 * --- Configuration and features ---
 */

int net_set_mtu(void *arg, uint16_t mtu)
{
	struct net_softc *sc = arg;

	if (mtu == 0)
		mtu = sc->sc_mtu;
	else if (mtu < NET_MIN_MTU || mtu > sc->sc_mtu)
		return -EINVAL;
	sc->sc_told_mtu = mtu;
	return 0;
}

static uint16_t link_status(const struct net_softc *sc)
{
	uint16_t status = net_link_up(sc) ? VIRTIO_NET_S_LINK_UP : 0;

	return sc->sc_announce ? status | VIRTIO_NET_S_ANNOUNCE : status;
}

int net_cfgread(void *arg, int offset, int size, uint32_t *retval)
{
	struct net_softc *sc = arg;
	bool hashes = sc->sc_offer & (NET_F(RSS) | NET_F(HASH_REPORT));
	struct net_config cfg = {
		.status = cpu_to_le16(link_status(sc)),
		.max_pairs = cpu_to_le16((uint16_t)sc->sc_max_pairs),
		.mtu = cpu_to_le16(sc->sc_mtu),
		.speed = cpu_to_le32(sc->sc_speed),
		.duplex = DUPLEX_FULL,
		.rss_max_key = hashes ? NET_RSS_KEY_MAX : 0,
		.rss_max_table = cpu_to_le16(hashes ? NET_RSS_TABLE_MAX : 0),
		.hash_types = cpu_to_le32(hashes ? NET_RSS_TYPES : 0),
	};

	memcpy(cfg.mac, sc->sc_mac, sizeof(cfg.mac));
	return vi_cfg_read(&cfg, sizeof(cfg), offset, size, retval);
}

/* A legacy driver sets its address here; a modern one may not. */
int net_cfgwrite(void *arg, int offset, int size, uint32_t value)
{
	struct net_softc *sc = arg;

	if (vi_is_modern(&sc->sc_vs) || sc->sc_vs.vs_mode == VIRTIO_MODE_MODERN)
		return 0;
	for (int i = 0; i < size && offset + i < NET_MAC_LEN; i++)
		sc->sc_mac[offset + i] = (uint8_t)(value >> 8 * i);
	return 0;
}

int net_set_offloads(struct net_softc *sc, uint64_t offloads)
{
	int ret = 0;

	/* The control queue does not count here. */
	if (net_features_sound(offloads) != offloads)
		return -EINVAL;
	if (sc->sc_be->ops->set_offloads)
		ret = sc->sc_be->ops->set_offloads(sc->sc_be, offloads);
	if (ret == 0)
		sc->sc_offloads = offloads;
	return ret;
}

void net_apply_features(void *arg, uint64_t *features)
{
	struct net_softc *sc = arg;

	*features = net_features_sound(*features);
	sc->sc_hdr_len = net_hdr_len(*features);
	net_filter_reset(&sc->sc_filter, *features);
	if (net_set_offloads(sc, *features & NET_GUEST_OFFLOADS) < 0)
		*features &= ~NET_GUEST_OFFLOADS;
}

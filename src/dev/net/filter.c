/* SPDX-License-Identifier: BSD-2-Clause */
#include "dev/net/filter.h"

#include <string.h>

#include "dev/net/hdr.h"

#define ETH_TYPE_OFF  12
#define ETH_TYPE_VLAN 0x8100

void net_filter_reset(struct net_filter *f, uint64_t features)
{
	*f = (struct net_filter){
		.by_mac = features & NET_F(CTRL_RX),
		.by_vlan = (features & NET_F(CTRL_RX)) &&
			   (features & NET_F(CTRL_VLAN)),
		.modes = features & NET_F(CTRL_RX) ? NET_RX_PROMISC : 0,
	};
}

bool net_filter_set_vlan(struct net_filter *f, unsigned vlan, bool on)
{
	uint64_t bit = UINT64_C(1) << vlan % 64;

	if (vlan >= NET_NR_VLANS)
		return false;
	if (on)
		f->vlans[vlan / 64] |= bit;
	else
		f->vlans[vlan / 64] &= ~bit;
	f->by_vlan = true;
	return true;
}

static bool has_mac(const struct net_macs *macs, const uint8_t *mac)
{
	for (unsigned i = 0; i < macs->nr; i++) {
		if (!memcmp(macs->mac[i], mac, NET_MAC_LEN))
			return true;
	}
	return macs->overflow;
}

static bool mac_passes(const struct net_filter *f, const uint8_t *mac,
		       const uint8_t *dst)
{
	static const uint8_t broadcast[NET_MAC_LEN] = { 0xff, 0xff, 0xff,
							0xff, 0xff, 0xff };

	if (!f->by_mac)
		return true;
	if (!memcmp(dst, broadcast, NET_MAC_LEN))
		return !(f->modes & NET_RX_NOBCAST);
	if (dst[0] & 1)
		return !(f->modes & NET_RX_NOMULTI) &&
		       ((f->modes & NET_RX_ALLMULTI) ||
			has_mac(&f->multi, dst));
	return !(f->modes & NET_RX_NOUNI) &&
	       ((f->modes & NET_RX_ALLUNI) || !memcmp(dst, mac, NET_MAC_LEN) ||
		has_mac(&f->uni, dst));
}

static bool vlan_passes(const struct net_filter *f, const uint8_t *frame)
{
	const uint8_t *tag = frame + ETH_TYPE_OFF;
	unsigned vlan;

	if (!f->by_vlan || tag[0] << 8 != (ETH_TYPE_VLAN & 0xff00) ||
	    tag[1] != (ETH_TYPE_VLAN & 0xff))
		return true;
	vlan = (tag[2] << 8 | tag[3]) % NET_NR_VLANS; /* without priority */
	return f->vlans[vlan / 64] >> vlan % 64 & 1;
}

bool net_filter_passes(const struct net_filter *f,
		       const uint8_t mac[NET_MAC_LEN], const uint8_t *frame)
{
	if (f->modes & NET_RX_PROMISC)
		return true;
	return vlan_passes(f, frame) && mac_passes(f, mac, frame);
}

/* SPDX-License-Identifier: BSD-2-Clause */
#include "base/util.h"
#include "dev/net/hdr.h"

#include <assert.h>

static_assert(sizeof(struct net_hdr) == 20, "5.1.6, with HASH_REPORT");
static_assert(offsetof(struct net_hdr, num_buffers) == NET_HDR_MIN, "legacy");

#define ETH_HLEN_MIN 14u

size_t net_hdr_len(uint64_t features)
{
	if (features & NET_F(HASH_REPORT))
		return NET_HDR_MAX;
	if (features & (VI_BIT(VIRTIO_F_VERSION_1) | NET_F(MRG_RXBUF)))
		return NET_HDR_MIN + sizeof(le16);
	return NET_HDR_MIN;
}

uint64_t net_features_sound(uint64_t features)
{
	/* Each requires another one; the order lets violations propagate. */
	static const struct {
		uint64_t feature, any_of;
	} rules[] = {
		{ NET_F(GUEST_TSO4) | NET_F(GUEST_TSO6) | NET_F(GUEST_UFO) |
			  NET_F(GUEST_USO4) | NET_F(GUEST_USO6),
		  NET_F(GUEST_CSUM) },
		{ NET_F(GUEST_ECN), NET_F(GUEST_TSO4) | NET_F(GUEST_TSO6) },
		{ NET_F(HOST_TSO4) | NET_F(HOST_TSO6) | NET_F(HOST_UFO) |
			  NET_F(HOST_USO),
		  NET_F(CSUM) },
		{ NET_F(HOST_ECN), NET_F(HOST_TSO4) | NET_F(HOST_TSO6) },
		{ NET_F(CTRL_RX) | NET_F(CTRL_VLAN) | NET_F(GUEST_ANNOUNCE) |
			  NET_F(MQ) | NET_F(CTRL_MAC_ADDR) | NET_F(NOTF_COAL) |
			  NET_F(VQ_NOTF_COAL) | NET_F(RSS) |
			  NET_F(DEVICE_STATS),
		  NET_F(CTRL_VQ) },
	};

	for (unsigned i = 0; i < ARRAY_LEN(rules); i++) {
		if (!(features & rules[i].any_of))
			features &= ~rules[i].feature;
	}
	return features;
}

static bool is_vlan(unsigned type)
{
	return type == 0x8100 || type == 0x88a8 || type == 0x9100;
}

static bool is_mpls(unsigned type)
{
	return type == 0x8847 || type == 0x8848;
}

/* A tag is two bytes and the next type; a label is four bytes alone. */
size_t net_link_len(const uint8_t *frame, size_t len)
{
	size_t end = ETH_HLEN_MIN;
	unsigned type = (unsigned)(frame[end - 2] << 8 | frame[end - 1]);
	bool more = true;

	while (is_vlan(type) && end + 4 <= len) {
		end += 4;
		type = (unsigned)(frame[end - 2] << 8 | frame[end - 1]);
	}
	while (is_mpls(type) && more && end + 4 <= len) {
		more = !(frame[end + 2] & 1); /* bottom of stack */
		end += 4;
	}
	return end;
}

/* The feature that a kind of segmentation needs; 0: it does not exist here. */
static uint64_t segmentation_feature(uint8_t gso_type, bool guest_takes)
{
	switch (gso_type & ~VIRTIO_NET_HDR_GSO_ECN) {
	case VIRTIO_NET_HDR_GSO_TCPV4:
		return guest_takes ? NET_F(GUEST_TSO4) : NET_F(HOST_TSO4);
	case VIRTIO_NET_HDR_GSO_TCPV6:
		return guest_takes ? NET_F(GUEST_TSO6) : NET_F(HOST_TSO6);
	case VIRTIO_NET_HDR_GSO_UDP:
		return guest_takes ? NET_F(GUEST_UFO) : NET_F(HOST_UFO);
	case VIRTIO_NET_HDR_GSO_UDP_L4:
		return guest_takes ? NET_F(GUEST_USO4) | NET_F(GUEST_USO6) :
				     NET_F(HOST_USO);
	default:
		return 0;
	}
}

/* Checks for both directions, given the checksum feature. */
static bool acceptable(const struct virtio_net_hdr *h, size_t frame_len,
		       uint64_t features, uint64_t csum, uint64_t ecn,
		       bool guest_takes)
{
	bool partial = h->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM;

	if (partial && (!(features & csum) ||
			(size_t)h->csum_start + h->csum_offset + 2 > frame_len))
		return false;
	if (h->gso_type == VIRTIO_NET_HDR_GSO_NONE)
		return true;
	if (!partial || h->gso_size == 0)
		return false;
	if ((h->gso_type & VIRTIO_NET_HDR_GSO_ECN) && !(features & ecn))
		return false;
	return features & segmentation_feature(h->gso_type, guest_takes);
}

bool net_hdr_from_guest(const struct net_hdr *hdr, size_t frame_len,
			uint64_t features, struct virtio_net_hdr *ret_host)
{
	struct virtio_net_hdr h = { 0 };

	/* Only the device may vouch for a checksum (5.1.6.2.1). */
	if (frame_len < ETH_HLEN_MIN ||
	    (hdr->flags & VIRTIO_NET_HDR_F_DATA_VALID))
		return false;
	if (hdr->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) {
		h.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
		h.csum_start = le16_to_cpu(hdr->csum_start);
		h.csum_offset = le16_to_cpu(hdr->csum_offset);
	}
	if (hdr->gso_type != VIRTIO_NET_HDR_GSO_NONE) {
		h.gso_type = hdr->gso_type;
		h.gso_size = le16_to_cpu(hdr->gso_size);
		/* A hint that the kernel would trust. */
		h.hdr_len = le16_to_cpu(hdr->hdr_len);
		if (h.hdr_len > frame_len)
			h.hdr_len = (uint16_t)frame_len;
	}
	if (!acceptable(&h, frame_len, features, NET_F(CSUM), NET_F(HOST_ECN),
			false))
		return false;
	*ret_host = h;
	return true;
}

bool net_hdr_to_guest(const struct virtio_net_hdr *host, size_t frame_len,
		      uint64_t offloads, struct net_hdr *ret_hdr)
{
	const uint8_t known =
		VIRTIO_NET_HDR_F_NEEDS_CSUM | VIRTIO_NET_HDR_F_DATA_VALID;
	struct net_hdr hdr = { .num_buffers = cpu_to_le16(1) };

	if (frame_len < ETH_HLEN_MIN ||
	    !acceptable(host, frame_len, offloads, NET_F(GUEST_CSUM),
			NET_F(GUEST_ECN), true))
		return false;
	if (offloads & NET_F(GUEST_CSUM))
		hdr.flags = host->flags & known;
	if (hdr.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) {
		hdr.csum_start = cpu_to_le16(host->csum_start);
		hdr.csum_offset = cpu_to_le16(host->csum_offset);
	}
	if (host->gso_type != VIRTIO_NET_HDR_GSO_NONE) {
		hdr.gso_type = host->gso_type;
		hdr.gso_size = cpu_to_le16(host->gso_size);
		hdr.hdr_len = cpu_to_le16(host->hdr_len);
	}
	*ret_hdr = hdr;
	return true;
}

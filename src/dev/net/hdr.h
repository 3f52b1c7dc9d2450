/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The header in front of every packet (virtio 5.1.6) and which headers are
 * acceptable. Pure functions.
 */
#ifndef DEV_NET_HDR_H
#define DEV_NET_HDR_H

#include <linux/virtio_net.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <viodev/virtio_bits.h>

#include "base/le.h"

/* Feature bits newer than Debian 12's headers. */
#define VIRTIO_NET_F_DEVICE_STATS 50
#define VIRTIO_NET_F_VQ_NOTF_COAL 52
#define VIRTIO_NET_F_GUEST_USO4   54
#define VIRTIO_NET_F_GUEST_USO6   55
#define VIRTIO_NET_F_HOST_USO     56
#ifndef VIRTIO_NET_HDR_GSO_UDP_L4
#define VIRTIO_NET_HDR_GSO_UDP_L4 5
#endif

#define NET_F(name) VI_BIT(VIRTIO_NET_F_##name)

/* What GUEST_OFFLOADS_SET switches, by the features' own numbers. */
#define NET_GUEST_OFFLOADS                                           \
	(NET_F(GUEST_CSUM) | NET_F(GUEST_TSO4) | NET_F(GUEST_TSO6) | \
	 NET_F(GUEST_ECN) | NET_F(GUEST_UFO) | NET_F(GUEST_USO4) |   \
	 NET_F(GUEST_USO6))

/* In the guest; later fields exist only in longer headers. */
struct net_hdr {
	uint8_t flags;
	uint8_t gso_type;
	le16 hdr_len;
	le16 gso_size;
	le16 csum_start;
	le16 csum_offset;
	le16 num_buffers; /* modern, or with MRG_RXBUF */
	le32 hash_value;  /* with HASH_REPORT, and what follows */
	le16 hash_report;
	le16 padding;
};

#define NET_HDR_MIN 10u
#define NET_HDR_MAX sizeof(struct net_hdr)

/* How much of it there is, for these features (7.3). */
size_t net_hdr_len(uint64_t features);

/*
 * Whether features have what they build on (5.1.3.1). Those that miss
 * something are left out of what is returned.
 */
uint64_t net_features_sound(uint64_t features);

/*
 * The bytes of a frame that are not the MTU's: the Ethernet header, VLAN tags
 * and MPLS labels, as far as its first @len bytes show them, 14 at least.
 */
size_t net_link_len(const uint8_t *frame, size_t len);

/*
 * The guest sends @frame_len bytes behind @hdr. Returns false when the packet
 * must not leave; else *ret_host is what the backend needs to know, with
 * nothing in it that was not asked for rightly.
 */
bool net_hdr_from_guest(const struct net_hdr *hdr, size_t frame_len,
			uint64_t features, struct virtio_net_hdr *ret_host);

/*
 * A frame for the guest, which takes @offloads. Returns false when it may not
 * have it; else @ret_hdr is what it reads, for one buffer and without a hash.
 */
bool net_hdr_to_guest(const struct virtio_net_hdr *host, size_t frame_len,
		      uint64_t offloads, struct net_hdr *ret_hdr);

#endif

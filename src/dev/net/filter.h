/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Receive filter: which frames a driver wants, by receive modes, its MAC
 * addresses and VLANs (virtio 5.1.6.5.1 to 5.1.6.5.3). Pure functions.
 *
 * A table longer than ours lets all of its kind pass: a driver must tolerate
 * frames that it did not request, but must not miss one that it did.
 */
#ifndef DEV_NET_FILTER_H
#define DEV_NET_FILTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NET_MAC_LEN 6

/* The bytes of a frame to inspect: addresses, some tags and labels. */
#define NET_FILTER_PEEK 32

#define NET_MAX_MACS 64 /* of a kind */
#define NET_NR_VLANS 4096u

/* Bit numbers are those of the commands of class RX. */
enum {
	NET_RX_PROMISC = 1 << 0,
	NET_RX_ALLMULTI = 1 << 1,
	NET_RX_ALLUNI = 1 << 2,
	NET_RX_NOMULTI = 1 << 3,
	NET_RX_NOUNI = 1 << 4,
	NET_RX_NOBCAST = 1 << 5,
};

struct net_macs {
	unsigned nr;
	bool overflow;
	uint8_t mac[NET_MAX_MACS][NET_MAC_LEN];
};

struct net_filter {
	bool by_mac;  /* CTRL_RX was negotiated */
	bool by_vlan; /* only VLANs of the table pass */
	unsigned modes;
	struct net_macs uni, multi;
	uint64_t vlans[NET_NR_VLANS / 64];
};

/*
 * Let everything pass, until a driver with CTRL_RX turns PROMISC off, as with
 * QEMU: illumos relies on it for multicast. Without CTRL_RX, its first VLAN
 * starts filtering, of tagged frames.
 */
void net_filter_reset(struct net_filter *f, uint64_t features);

/* False for an invalid VLAN. */
bool net_filter_set_vlan(struct net_filter *f, unsigned vlan, bool on);

/* @frame holds at least NET_FILTER_PEEK bytes, padded with zeroes. */
bool net_filter_passes(const struct net_filter *f,
		       const uint8_t mac[NET_MAC_LEN], const uint8_t *frame);

#endif

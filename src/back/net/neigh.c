/* SPDX-License-Identifier: BSD-2-Clause */
#include "back/net/neigh.h"

#include <stdbool.h>
#include <string.h>

#include "back/net/inet.h"

#define PROTO_ICMP6  58
#define NDP_FIRST    133
#define NDP_LAST     137
#define NDP_ADVERT   136
#define ADVERT_BYTES 24u

static bool is_ip4(const uint8_t *frame, size_t len)
{
	return len >= ETH_BYTES + IP4_MIN_BYTES &&
	       inet_read16(frame + 12) == ETH_IP4;
}

static bool is_ip6(const uint8_t *frame, size_t len)
{
	return len >= ETH_BYTES + IP6_BYTES &&
	       inet_read16(frame + 12) == ETH_IP6;
}

/* A frame that changes libslirp's tables, which we then no longer know. */
static bool is_resolution(const uint8_t *frame, size_t len)
{
	const uint8_t *icmp = frame + ETH_BYTES + IP6_BYTES;

	if (len >= ETH_BYTES && inet_read16(frame + 12) == ETH_ARP)
		return true;
	return is_ip6(frame, len) && len > ETH_BYTES + IP6_BYTES &&
	       frame[ETH_BYTES + 6] == PROTO_ICMP6 && icmp[0] >= NDP_FIRST &&
	       icmp[0] <= NDP_LAST;
}

/* Mark as announced to libslirp. False: already announced. */
static bool is_new(struct neigh *n, const uint8_t addr[16],
		   const uint8_t eth[6])
{
	for (unsigned i = 0; i < NEIGH_KNOWN; i++) {
		if (!memcmp(n->known[i].addr, addr, 16) &&
		    !memcmp(n->known[i].eth, eth, 6))
			return false;
	}
	memcpy(n->known[n->next].addr, addr, 16);
	memcpy(n->known[n->next].eth, eth, 6);
	n->next = (n->next + 1) % NEIGH_KNOWN;
	return true;
}

static size_t make_arp(const uint8_t *frame, uint8_t *a)
{
	static const uint8_t reply[] = { 0, 1, 8, 0, 6, 4, 0, 2 };

	memset(a, 0, 42);
	memcpy(a, frame, 12);
	inet_write16(a + 12, ETH_ARP);
	memcpy(a + 14, reply, sizeof(reply));
	memcpy(a + 22, frame + 6, 6);
	memcpy(a + 28, frame + ETH_BYTES + 12, 4);
	return 42;
}

/* A neighbour advertisement to all nodes (RFC 4861, 4.4). */
static size_t make_advert(const uint8_t *frame, uint8_t *a)
{
	static const uint8_t all_nodes[16] = { 0xff, 2, [15] = 1 };
	static const uint8_t pseudo[4] = { 0, ADVERT_BYTES, 0, PROTO_ICMP6 };
	uint8_t *ip = a + ETH_BYTES, *icmp = ip + IP6_BYTES;
	const uint8_t *src = frame + ETH_BYTES + 8;

	memset(a, 0, NEIGH_BYTES);
	memcpy(a, frame, 14);
	ip[0] = 0x60;
	inet_write16(ip + 4, ADVERT_BYTES);
	ip[6] = PROTO_ICMP6;
	ip[7] = 255;
	memcpy(ip + 8, src, 16);
	memcpy(ip + 24, all_nodes, 16);
	icmp[0] = NDP_ADVERT;
	icmp[4] = 0x20; /* override */
	memcpy(icmp + 8, src, 16);
	inet_write16(icmp + 2,
		     (uint16_t)~inet_sum(
			     icmp, ADVERT_BYTES,
			     inet_sum(ip + 8, 32, inet_sum(pseudo, 4, 0))));
	return NEIGH_BYTES;
}

size_t neigh_announce(struct neigh *n, const uint8_t *frame, size_t len,
		      uint8_t announcement[NEIGH_BYTES])
{
	static const uint8_t none[16];
	uint8_t addr[16] = { 0 };
	bool v4 = is_ip4(frame, len);

	if (is_resolution(frame, len)) {
		memset(n, 0, sizeof(*n));
		return 0;
	}
	if (!v4 && !is_ip6(frame, len))
		return 0;
	if (v4)
		memcpy(addr, frame + ETH_BYTES + 12, 4);
	else
		memcpy(addr, frame + ETH_BYTES + 8, 16);
	/* libslirp needs no neighbour for no address or a group's. */
	if (!memcmp(addr, none, 16) || (!v4 && addr[0] == 0xff) ||
	    !is_new(n, addr, frame + 6))
		return 0;
	return v4 ? make_arp(frame, announcement) :
		    make_advert(frame, announcement);
}

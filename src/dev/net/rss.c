/* SPDX-License-Identifier: BSD-2-Clause */
#include "dev/net/rss.h"

#include <assert.h>
#include <linux/virtio_net.h>
#include <string.h>

#include "base/le.h"

/*
 * --- Parameters ---
 */

struct rss_head {
	le32 types;
	le16 mask;
	le16 unclassified;
};
static_assert(sizeof(struct rss_head) == 8, "5.1.6.5.6.3");

/* The key, at the end of both commands. */
static bool parse_key(struct net_rss *rss, struct vio_iov_cursor *data)
{
	if (vio_iov_take(data, &rss->key_len, 1) != 1 ||
	    rss->key_len > NET_RSS_KEY_MAX)
		return false;
	return vio_iov_take(data, rss->key, rss->key_len) == rss->key_len;
}

/* An id of a receive queue: bits 0 to 14 are the number of its pair. */
static bool parse_queue(struct net_rss *rss, le16 id, unsigned nr_pairs,
			uint16_t *ret_queue)
{
	uint16_t queue = le16_to_cpu(id);

	if (queue >= nr_pairs)
		return false;
	if (queue >= rss->max_rx)
		rss->max_rx = (uint16_t)(queue + 1);
	*ret_queue = queue;
	return true;
}

static bool parse_table(struct net_rss *rss, struct vio_iov_cursor *data,
			unsigned nr_pairs)
{
	unsigned nr = rss->mask + 1u;
	le16 id;

	if (nr > NET_RSS_TABLE_MAX || (nr & (nr - 1)))
		return false;
	for (unsigned i = 0; i < nr; i++) {
		if (vio_iov_take(data, &id, sizeof(id)) != sizeof(id) ||
		    !parse_queue(rss, id, nr_pairs, &rss->table[i]))
			return false;
	}
	if (vio_iov_take(data, &id, sizeof(id)) != sizeof(id))
		return false;
	rss->max_tx = le16_to_cpu(id);
	return rss->max_tx >= 1 && rss->max_tx <= nr_pairs;
}

bool net_rss_parse(struct net_rss *rss, struct vio_iov_cursor *data,
		   bool steering, unsigned nr_pairs)
{
	struct net_rss new = { .steering = steering, .max_rx = 1 };
	struct rss_head head;
	le16 reserved[2];

	if (vio_iov_take(data, &head, sizeof(head)) != sizeof(head))
		return false;
	new.types = le32_to_cpu(head.types);
	if (new.types & ~NET_RSS_TYPES)
		return false;
	if (steering) {
		new.mask = le16_to_cpu(head.mask);
		if (!parse_queue(&new, head.unclassified, nr_pairs,
				 &new.unclassified) ||
		    !parse_table(&new, data, nr_pairs))
			return false;
	} else if (vio_iov_take(data, reserved, sizeof(reserved)) !=
		   sizeof(reserved)) {
		return false;
	}
	if (!parse_key(&new, data))
		return false;
	*rss = new;
	return true;
}

/*
 * --- What a packet is ---
 */

#define ETH_HLEN      14
#define ETH_VLAN      0x8100
#define ETH_QINQ      0x88a8
#define ETH_IPV4      0x0800
#define ETH_IPV6      0x86dd
#define IP_TCP        6
#define IP_UDP        17
#define IP6_HOPBYHOP  0
#define IP6_ROUTING   43
#define IP6_FRAGMENT  44
#define IP6_DEST_OPTS 60
#define IP6_ADDR      16

/* Mobile nodes (RFC 6275): their addresses are in extension headers. */
#define OPT_PAD1      0
#define OPT_HOME      0xc9
#define ROUTE_TO_HOME 2

struct packet {
	const uint8_t *src, *dst;
	unsigned addr_len;            /* 4, 16, or 0: no IP */
	bool extended;                /* there are extension headers */
	const uint8_t *home, *routed; /* in place of src and dst */
	const uint8_t *ports;         /* NULL: no TCP or UDP */
	unsigned proto;
};

static unsigned get16(const uint8_t *p)
{
	return (unsigned)p[0] << 8 | p[1];
}

static void find_ports(struct packet *pkt, const uint8_t *frame, size_t len,
		       size_t off, unsigned proto)
{
	if ((proto != IP_TCP && proto != IP_UDP) || off + 4 > len)
		return;
	pkt->proto = proto;
	pkt->ports = frame + off;
}

static void parse_ipv4(struct packet *pkt, const uint8_t *frame, size_t len,
		       size_t off)
{
	const uint8_t *ip = frame + off;
	size_t hlen;

	if (off + 20 > len || ip[0] >> 4 != 4)
		return;
	hlen = (ip[0] & 0xfu) * 4;
	if (hlen < 20)
		return;
	pkt->src = ip + 12;
	pkt->dst = ip + 16;
	pkt->addr_len = 4;
	/* Only a first fragment has ports, so ignore them in all. */
	if ((get16(ip + 6) & 0x3fff) == 0)
		find_ports(pkt, frame, len, off + hlen, ip[9]);
}

/* The home address in a header of destination options. */
static void find_home(struct packet *pkt, const uint8_t *ext, size_t len)
{
	size_t off = 2;

	while (off + 2 <= len) {
		const uint8_t *opt = ext + off;

		off += opt[0] == OPT_PAD1 ? 1 : 2u + opt[1];
		if (opt[0] == OPT_HOME && opt[1] == IP6_ADDR && off <= len)
			pkt->home = opt + 2;
	}
}

/* Returns the length of an extension header; 0: truncated. */
static size_t parse_extension(struct packet *pkt, unsigned kind,
			      const uint8_t *ext, size_t len)
{
	size_t ext_len;

	if (len < 8)
		return 0;
	ext_len = (ext[1] + 1u) * 8;
	if (len < ext_len)
		return 0;
	if (kind == IP6_DEST_OPTS)
		find_home(pkt, ext, ext_len);
	else if (kind == IP6_ROUTING && ext[2] == ROUTE_TO_HOME &&
		 ext_len == 8 + IP6_ADDR)
		pkt->routed = ext + 8;
	return ext_len;
}

static void parse_ipv6(struct packet *pkt, const uint8_t *frame, size_t len,
		       size_t off)
{
	const uint8_t *ip = frame + off;
	unsigned next;

	if (off + 40 > len || ip[0] >> 4 != 6)
		return;
	pkt->src = pkt->home = ip + 8;
	pkt->dst = pkt->routed = ip + 24;
	pkt->addr_len = IP6_ADDR;
	next = ip[6];
	off += 40;
	while (next == IP6_HOPBYHOP || next == IP6_ROUTING ||
	       next == IP6_DEST_OPTS) {
		size_t ext_len =
			parse_extension(pkt, next, frame + off, len - off);

		pkt->extended = true;
		if (ext_len == 0)
			return;
		next = frame[off];
		off += ext_len;
	}
	if (next == IP6_FRAGMENT)
		pkt->extended = true;
	else
		find_ports(pkt, frame, len, off, next);
}

static void parse_packet(struct packet *pkt, const uint8_t *frame, size_t len)
{
	size_t off = ETH_HLEN;
	unsigned type;

	*pkt = (struct packet){ 0 };
	if (len < off)
		return;
	type = get16(frame + off - 2);
	for (int tags = 0; tags < 2 && (type == ETH_VLAN || type == ETH_QINQ);
	     tags++) {
		off += 4;
		if (len < off)
			return;
		type = get16(frame + off - 2);
	}
	if (type == ETH_IPV4)
		parse_ipv4(pkt, frame, len, off);
	else if (type == ETH_IPV6)
		parse_ipv6(pkt, frame, len, off);
}

/*
 * --- The hash ---
 */

/* XOR the 32 bits of the key at each set bit of the input. */
static uint32_t toeplitz(const struct net_rss *rss, const uint8_t *in,
			 size_t len)
{
	uint32_t hash = 0, window = 0;
	size_t next = 4;

	for (unsigned i = 0; i < 4; i++)
		window = window << 8 | (i < rss->key_len ? rss->key[i] : 0);
	for (size_t i = 0; i < len; i++, next++) {
		unsigned feed = next < rss->key_len ? rss->key[next] : 0;

		for (int bit = 7; bit >= 0; bit--) {
			if (in[i] >> bit & 1)
				hash ^= window;
			window = window << 1 | (feed >> bit & 1);
		}
	}
	return hash;
}

static bool is_enabled(const struct net_rss *rss, unsigned report)
{
	return rss->types >> (report - 1) & 1;
}

/* Of three reports in a row: @ip, with TCP, with UDP; 0 for none. */
static uint16_t pick(const struct net_rss *rss, const struct packet *pkt,
		     unsigned ip)
{
	unsigned report = ip;

	if (pkt->ports)
		report += pkt->proto == IP_TCP ? 1 : 2;
	if (is_enabled(rss, report))
		return (uint16_t)report;
	return is_enabled(rss, ip) ? (uint16_t)ip : VIRTIO_NET_HASH_REPORT_NONE;
}

/* 5.1.6.4.3.2 to .4 */
static uint16_t classify(const struct net_rss *rss, const struct packet *pkt)
{
	uint16_t report = VIRTIO_NET_HASH_REPORT_NONE;

	if (pkt->addr_len == 4)
		return pick(rss, pkt, VIRTIO_NET_HASH_REPORT_IPv4);
	if (pkt->extended)
		report = pick(rss, pkt, VIRTIO_NET_HASH_REPORT_IPv6_EX);
	if (pkt->addr_len && report == VIRTIO_NET_HASH_REPORT_NONE)
		report = pick(rss, pkt, VIRTIO_NET_HASH_REPORT_IPv6);
	return report;
}

/* The hash input: addresses and, for some, ports. Returns its length. */
static size_t hashed(const struct packet *pkt, uint16_t report,
		     uint8_t in[2 * IP6_ADDR + 4])
{
	bool ex = report >= VIRTIO_NET_HASH_REPORT_IPv6_EX;
	size_t len = 2 * pkt->addr_len;

	memcpy(in, ex ? pkt->home : pkt->src, pkt->addr_len);
	memcpy(in + pkt->addr_len, ex ? pkt->routed : pkt->dst, pkt->addr_len);
	if (report == VIRTIO_NET_HASH_REPORT_IPv4 ||
	    report == VIRTIO_NET_HASH_REPORT_IPv6 ||
	    report == VIRTIO_NET_HASH_REPORT_IPv6_EX)
		return len;
	memcpy(in + len, pkt->ports, 4);
	return len + 4;
}

uint16_t net_rss_hash(const struct net_rss *rss, const uint8_t *frame,
		      size_t len, uint32_t *ret_hash)
{
	uint8_t in[2 * IP6_ADDR + 4];
	struct packet pkt;
	uint16_t report;

	*ret_hash = 0;
	if (!rss->types)
		return VIRTIO_NET_HASH_REPORT_NONE;
	parse_packet(&pkt, frame, len);
	report = classify(rss, &pkt);
	if (report != VIRTIO_NET_HASH_REPORT_NONE)
		*ret_hash = toeplitz(rss, in, hashed(&pkt, report, in));
	return report;
}

unsigned net_rss_queue(const struct net_rss *rss, uint16_t report,
		       uint32_t hash)
{
	if (report == VIRTIO_NET_HASH_REPORT_NONE)
		return rss->unclassified;
	return rss->table[hash & rss->mask];
}

/* SPDX-License-Identifier: BSD-2-Clause */
#include "dev/net/rss.h"

#include <assert.h>
#include <linux/virtio_net.h>
#include <string.h>

#include <viodev/le.h>

/*
 * --- Parameters ---
 */

struct rss_head {
	le32 types;
	le16 mask;
	le16 unclassified;
};
static_assert(sizeof(struct rss_head) == 8, "5.1.6.5.6.3");

/* The key, which both commands end with. */
static bool parse_key(struct net_rss *rss, struct iov_cursor *data)
{
	if (iov_take(data, &rss->key_len, 1) != 1 ||
	    rss->key_len > NET_RSS_KEY_MAX)
		return false;
	return iov_take(data, rss->key, rss->key_len) == rss->key_len;
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

static bool parse_table(struct net_rss *rss, struct iov_cursor *data,
			unsigned nr_pairs)
{
	unsigned nr = rss->mask + 1u;
	le16 id;

	if (nr > NET_RSS_TABLE_MAX || (nr & (nr - 1)))
		return false;
	for (unsigned i = 0; i < nr; i++) {
		if (iov_take(data, &id, sizeof(id)) != sizeof(id) ||
		    !parse_queue(rss, id, nr_pairs, &rss->table[i]))
			return false;
	}
	if (iov_take(data, &id, sizeof(id)) != sizeof(id))
		return false;
	rss->max_tx = le16_to_cpu(id);
	return rss->max_tx >= 1 && rss->max_tx <= nr_pairs;
}

bool net_rss_parse(struct net_rss *rss, struct iov_cursor *data, bool steering,
		   unsigned nr_pairs)
{
	struct net_rss new = { .steering = steering, .max_rx = 1 };
	struct rss_head head;
	le16 reserved[2];

	if (iov_take(data, &head, sizeof(head)) != sizeof(head))
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
	} else if (iov_take(data, reserved, sizeof(reserved)) !=
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
#define IP_TCP	      6
#define IP_UDP	      17
#define IP6_HOPBYHOP  0
#define IP6_ROUTING   43
#define IP6_FRAGMENT  44
#define IP6_DEST_OPTS 60

struct packet {
	const uint8_t *addrs; /* source, then destination */
	unsigned addrs_len;   /* 8, 32, or 0: no IP */
	const uint8_t *ports; /* NULL: no TCP or UDP */
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
	pkt->addrs = ip + 12;
	pkt->addrs_len = 8;
	/* Only a first fragment has ports: none of them counts. */
	if ((get16(ip + 6) & 0x3fff) == 0)
		find_ports(pkt, frame, len, off + hlen, ip[9]);
}

static void parse_ipv6(struct packet *pkt, const uint8_t *frame, size_t len,
		       size_t off)
{
	const uint8_t *ip = frame + off;
	unsigned next;

	if (off + 40 > len || ip[0] >> 4 != 6)
		return;
	pkt->addrs = ip + 8;
	pkt->addrs_len = 32;
	next = ip[6];
	off += 40;
	while (next == IP6_HOPBYHOP || next == IP6_ROUTING ||
	       next == IP6_DEST_OPTS) {
		if (off + 2 > len)
			return;
		next = frame[off];
		off += (frame[off + 1] + 1u) * 8;
	}
	if (next != IP6_FRAGMENT)
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

/* The 32 bits of the key that begin at each bit of the input that is set. */
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

/* TCP before UDP before IP alone (5.1.6.4.3.1); a report is its bit plus 1. */
static uint16_t classify(const struct net_rss *rss, const struct packet *pkt)
{
	bool v6 = pkt->addrs_len == 32;
	unsigned base = v6 ? VIRTIO_NET_HASH_REPORT_IPv6 :
			     VIRTIO_NET_HASH_REPORT_IPv4;
	unsigned report = base;

	if (pkt->addrs_len == 0)
		return VIRTIO_NET_HASH_REPORT_NONE;
	if (pkt->ports)
		report = pkt->proto == IP_TCP ? base + 1 : base + 2;
	if (rss->types >> (report - 1) & 1)
		return (uint16_t)report;
	if (rss->types >> (base - 1) & 1)
		return (uint16_t)base;
	return VIRTIO_NET_HASH_REPORT_NONE;
}

static bool with_ports(uint16_t report)
{
	return report != VIRTIO_NET_HASH_REPORT_IPv4 &&
	       report != VIRTIO_NET_HASH_REPORT_IPv6;
}

uint16_t net_rss_hash(const struct net_rss *rss, const uint8_t *frame,
		      size_t len, uint32_t *ret_hash)
{
	struct packet pkt;
	uint8_t in[32 + 4];
	uint16_t report;
	size_t in_len;

	*ret_hash = 0;
	if (!rss->types)
		return VIRTIO_NET_HASH_REPORT_NONE;
	parse_packet(&pkt, frame, len);
	report = classify(rss, &pkt);
	if (report == VIRTIO_NET_HASH_REPORT_NONE)
		return report;
	in_len = pkt.addrs_len;
	memcpy(in, pkt.addrs, in_len);
	if (with_ports(report)) {
		memcpy(in + in_len, pkt.ports, 4);
		in_len += 4;
	}
	*ret_hash = toeplitz(rss, in, in_len);
	return report;
}

unsigned net_rss_queue(const struct net_rss *rss, uint16_t report,
		       uint32_t hash)
{
	if (report == VIRTIO_NET_HASH_REPORT_NONE)
		return rss->unclassified;
	return rss->table[hash & rss->mask];
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* Rules for headers, filters and hashes, without a device. */
#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "base/util.h"
#include "dev/net/filter.h"
#include "dev/net/hdr.h"
#include "dev/net/rss.h"

#define ALL_HOST                                                               \
	(NET_F(CSUM) | NET_F(HOST_TSO4) | NET_F(HOST_TSO6) | NET_F(HOST_ECN) | \
	 NET_F(HOST_UFO) | NET_F(HOST_USO))
#define PARTIAL VIRTIO_NET_HDR_F_NEEDS_CSUM
#define VALID   VIRTIO_NET_HDR_F_DATA_VALID
#define ECN     VIRTIO_NET_HDR_GSO_ECN
#define TCP4    VIRTIO_NET_HDR_GSO_TCPV4
#define TCP6    VIRTIO_NET_HDR_GSO_TCPV6
#define UDP     VIRTIO_NET_HDR_GSO_UDP
#define UDP_L4  VIRTIO_NET_HDR_GSO_UDP_L4

/* flags, gso_type, hdr_len, gso_size, csum_start, csum_offset */
struct hdr_row {
	const char *name;
	uint8_t flags, gso_type;
	uint16_t hdr_len, gso_size, csum_start, csum_offset;
	size_t frame_len;
	uint64_t features;
	bool passes;
};

/* clang-format off */
static const struct hdr_row tx_rows[] = {
	{ "plain", 0, 0, 0, 0, 0, 0, 60, 0, true },
	{ "NET-TX-14 no Ethernet header", 0, 0, 0, 0, 0, 0, 13, 0, false },
	{ "NET-TX-14 nothing", 0, 0, 0, 0, 0, 0, 0, 0, false },
	{ "NET-TX-02 unknown flags", 0xf4, 0, 0, 0, 0, 0, 60, 0, true },
	{ "NET-TX-03 csum fields unused", 0, 0, 0, 0, 65535, 65535, 60, 0, true },
	{ "NET-TX-04 partial", PARTIAL, 0, 0, 0, 34, 16, 60, ALL_HOST, true },
	{ "NET-TX-14 CSUM not negotiated", PARTIAL, 0, 0, 0, 34, 16, 60, 0, false },
	{ "hostile K5 at the end", PARTIAL, 0, 0, 0, 58, 0, 60, ALL_HOST, true },
	{ "hostile K5 one behind", PARTIAL, 0, 0, 0, 58, 1, 60, ALL_HOST, false },
	{ "hostile K5 D11 start", PARTIAL, 0, 0, 0, 65535, 0, 60, ALL_HOST, false },
	{ "hostile K5 D11 offset", PARTIAL, 0, 0, 0, 0, 65535, 60, ALL_HOST, false },
	{ "hostile K5 both", PARTIAL, 0, 0, 0, 65535, 65535, 60, ALL_HOST, false },
	{ "NET-TX-05 TCPV4", PARTIAL, TCP4, 54, 1448, 34, 16, 4000, ALL_HOST, true },
	{ "NET-TX-05 TCPV6", PARTIAL, TCP6, 74, 1428, 54, 16, 4000, ALL_HOST, true },
	{ "NET-TX-05 UDP_L4", PARTIAL, UDP_L4, 42, 1472, 34, 6, 4000, ALL_HOST, true },
	{ "NET-TX-05 ECN", PARTIAL, TCP4 | ECN, 54, 1448, 34, 16, 4000, ALL_HOST, true },
	{ "NET-TX-05 UDP", PARTIAL, UDP, 42, 1472, 34, 6, 4000, ALL_HOST, true },
	{ "NET-TX-14 UFO not negotiated", PARTIAL, UDP, 42, 1472, 34, 6, 4000, ALL_HOST & ~NET_F(HOST_UFO), false },
	{ "NET-TX-14 TSO4 not negotiated", PARTIAL, TCP4, 54, 1448, 34, 16, 4000, NET_F(CSUM), false },
	{ "NET-TX-14 TSO6 not negotiated", PARTIAL, TCP6, 54, 1448, 34, 16, 4000, NET_F(CSUM) | NET_F(HOST_TSO4), false },
	{ "NET-TX-14 USO not negotiated", PARTIAL, UDP_L4, 42, 1472, 34, 6, 4000, NET_F(CSUM) | NET_F(HOST_TSO4), false },
	{ "hostile F18 ECN not negotiated", PARTIAL, TCP4 | ECN, 54, 1448, 34, 16, 4000, NET_F(CSUM) | NET_F(HOST_TSO4), false },
	{ "hostile F18 ECN without TSO", PARTIAL, ECN, 54, 1448, 34, 16, 4000, ALL_HOST, false },
	{ "hostile F18 GSO without NEEDS_CSUM", 0, TCP4, 54, 1448, 34, 16, 4000, ALL_HOST, false },
	{ "hostile F18 gso_size 0", PARTIAL, TCP4, 54, 0, 34, 16, 4000, ALL_HOST, false },
	{ "hostile F18 DATA_VALID", VALID, 0, 0, 0, 0, 0, 60, ALL_HOST, false },
	{ "NET-TX-06 hdr_len is a hint", PARTIAL, TCP4, 65535, 1448, 34, 16, 4000, ALL_HOST, true },
	{ "NET-TX-06 hdr_len 0", PARTIAL, TCP4, 0, 1448, 34, 16, 4000, ALL_HOST, true },
	{ "gso_type unknown", PARTIAL, 2, 54, 1448, 34, 16, 4000, ALL_HOST, false },
	{ "NET-TX-07 both tunnels", PARTIAL, TCP4 | 0x60, 54, 1448, 34, 16, 4000, ALL_HOST, false },
	{ "NET-TX-08 NET-TX-09 tunnel, never offered", PARTIAL, TCP4 | 0x20, 54, 1448, 34, 16, 4000, ALL_HOST, false },
	{ "NET-TX-10 NET-TX-12 flags of what is not offered", 0x18, 0, 0, 0, 0, 0, 60, ALL_HOST, true },
};
/* clang-format on */

static void test_tx_hdr(void **state)
{
	for (unsigned i = 0; i < ARRAY_LEN(tx_rows); i++) {
		const struct hdr_row *r = &tx_rows[i];
		const struct net_hdr hdr = {
			r->flags,
			r->gso_type,
			cpu_to_le16(r->hdr_len),
			cpu_to_le16(r->gso_size),
			cpu_to_le16(r->csum_start),
			cpu_to_le16(r->csum_offset),
			.num_buffers = cpu_to_le16(0xffff),
		};
		struct virtio_net_hdr host;

		memset(&host, 0xee, sizeof(host));
		if (net_hdr_from_guest(&hdr, r->frame_len, r->features,
				       &host) != r->passes)
			fail_msg("%s", r->name);
		if (!r->passes)
			continue;
		/* Only what was requested gets through. */
		assert_int_equal(host.flags, r->flags & PARTIAL);
		assert_int_equal(host.gso_type, r->gso_type);
		assert_true(host.hdr_len <= r->frame_len);
		if (!(r->flags & PARTIAL))
			assert_int_equal(host.csum_start | host.csum_offset, 0);
		else
			assert_int_equal(host.csum_start, r->csum_start);
	}
}

#define G_CSUM NET_F(GUEST_CSUM)
#define G_TSO4 (G_CSUM | NET_F(GUEST_TSO4))
#define G_TSO6 (G_CSUM | NET_F(GUEST_TSO6))

/* clang-format off */
static const struct hdr_row rx_rows[] = {
	{ "plain", 0, 0, 0, 0, 0, 0, 60, 0, true },
	{ "NET-RX-05 DATA_VALID is not told", VALID, 0, 0, 0, 0, 0, 60, 0, true },
	{ "NET-RX-10 DATA_VALID", VALID, 0, 0, 0, 0, 0, 60, G_CSUM, true },
	{ "hostile F17 NEEDS_CSUM", PARTIAL, 0, 0, 0, 34, 16, 60, 0, false },
	{ "NET-RX-09 NEEDS_CSUM", PARTIAL, 0, 0, 0, 34, 16, 60, G_CSUM, true },
	{ "NET-RX-09 beyond the end", PARTIAL, 0, 0, 0, 50, 16, 60, G_CSUM, false },
	{ "hostile F17 NET-RX-06 TCPV4", PARTIAL, TCP4, 54, 1448, 34, 16, 4000, G_CSUM, false },
	{ "NET-RX-06 TCPV4", PARTIAL, TCP4, 54, 1448, 34, 16, 4000, G_TSO4, true },
	{ "NET-RX-06 TCPV6 by TSO4", PARTIAL, TCP6, 54, 1448, 34, 16, 4000, G_TSO4, false },
	{ "NET-RX-06 TCPV6", PARTIAL, TCP6, 54, 1448, 34, 16, 4000, G_TSO6, true },
	{ "NET-RX-06 UDP (TRAP-02)", PARTIAL, UDP, 42, 1448, 34, 6, 4000, G_CSUM | NET_F(GUEST_UFO), true },
	{ "NET-RX-06 UDP by USO", PARTIAL, UDP, 42, 1448, 34, 6, 4000, ~NET_F(GUEST_UFO), false },
	{ "NET-RX-06 UDP_L4 by USO4", PARTIAL, UDP_L4, 42, 1448, 34, 6, 4000, G_CSUM | NET_F(GUEST_USO4), true },
	{ "NET-RX-06 UDP_L4 by USO6", PARTIAL, UDP_L4, 42, 1448, 34, 6, 4000, G_CSUM | NET_F(GUEST_USO6), true },
	{ "NET-RX-06 UDP_L4 by TSO", PARTIAL, UDP_L4, 42, 1448, 34, 6, 4000, G_TSO4, false },
	{ "NET-RX-07 NET-RX-11 NET-RX-12 tunnel", PARTIAL, TCP4 | 0x20, 54, 1448, 34, 16, 4000, G_TSO4, false },
	{ "NET-RX-08 without NEEDS_CSUM", 0, TCP4, 54, 1448, 34, 16, 4000, G_TSO4, false },
	{ "NET-RX-08 without a size", PARTIAL, TCP4, 54, 0, 34, 16, 4000, G_TSO4, false },
	{ "NET-RX-15 ECN not taken", PARTIAL, TCP4 | ECN, 54, 1448, 34, 16, 4000, G_TSO4, false },
	{ "NET-RX-15 ECN", PARTIAL, TCP4 | ECN, 54, 1448, 34, 16, 4000, G_TSO4 | NET_F(GUEST_ECN), true },
	{ "NET-RX-13 NET-RX-17 other flags", 0xfc, 0, 0, 0, 0, 0, 60, G_CSUM, true },
	{ "no Ethernet header", 0, 0, 0, 0, 0, 0, 13, 0, false },
};
/* clang-format on */

static void test_rx_hdr(void **state)
{
	for (unsigned i = 0; i < ARRAY_LEN(rx_rows); i++) {
		const struct hdr_row *r = &rx_rows[i];
		const struct virtio_net_hdr host = {
			.flags = r->flags,
			.gso_type = r->gso_type,
			.hdr_len = r->hdr_len,
			.gso_size = r->gso_size,
			.csum_start = r->csum_start,
			.csum_offset = r->csum_offset,
		};
		struct net_hdr hdr;

		if (net_hdr_to_guest(&host, r->frame_len, r->features, &hdr) !=
		    r->passes)
			fail_msg("%s", r->name);
		if (!r->passes)
			continue;
		if (r->features & G_CSUM)
			assert_int_equal(hdr.flags,
					 r->flags & (PARTIAL | VALID));
		else
			assert_int_equal(hdr.flags, 0); /* NET-RX-05 */
		assert_int_equal(hdr.gso_type, r->gso_type);
		assert_int_equal(le16_to_cpu(hdr.num_buffers), 1);
		/* NET-RX-14 */
		if (r->gso_type)
			assert_int_equal(le16_to_cpu(hdr.hdr_len), r->hdr_len);
	}
}

/* 7.3; TRAP-05 is about features that are never offered. */
static void test_hdr_len(void **state)
{
	const uint64_t v1 = VI_BIT(VIRTIO_F_VERSION_1);

	assert_int_equal(net_hdr_len(0), 10); /* NET-L03 */
	assert_int_equal(net_hdr_len(NET_F(MRG_RXBUF)), 12);
	assert_int_equal(net_hdr_len(v1), 12); /* hostile F15 */
	assert_int_equal(net_hdr_len(v1 | NET_F(MRG_RXBUF)), 12);
	assert_int_equal(net_hdr_len(v1 | NET_F(HASH_REPORT)), 20);
}

/* 7.2: a feature without what it requires. */
static void test_features(void **state)
{
	static const struct {
		uint64_t with, alone;
	} rows[] = {
		{ NET_F(GUEST_CSUM), NET_F(GUEST_TSO4) },
		{ NET_F(GUEST_CSUM), NET_F(GUEST_TSO6) },
		{ NET_F(GUEST_CSUM), NET_F(GUEST_UFO) },
		{ NET_F(GUEST_CSUM), NET_F(GUEST_USO4) },
		{ NET_F(GUEST_CSUM), NET_F(GUEST_USO6) },
		{ G_TSO4, NET_F(GUEST_ECN) },
		{ G_TSO6, NET_F(GUEST_ECN) },
		{ NET_F(CSUM), NET_F(HOST_TSO4) },
		{ NET_F(CSUM), NET_F(HOST_TSO6) },
		{ NET_F(CSUM), NET_F(HOST_UFO) },
		{ NET_F(CSUM), NET_F(HOST_USO) },
		{ NET_F(CSUM) | NET_F(HOST_TSO4), NET_F(HOST_ECN) },
		{ NET_F(CTRL_VQ), NET_F(CTRL_RX) },
		{ NET_F(CTRL_VQ), NET_F(CTRL_VLAN) },
		{ NET_F(CTRL_VQ), NET_F(GUEST_ANNOUNCE) },
		{ NET_F(CTRL_VQ), NET_F(MQ) },
		{ NET_F(CTRL_VQ), NET_F(CTRL_MAC_ADDR) },
		{ NET_F(CTRL_VQ), NET_F(NOTF_COAL) },
		{ NET_F(CTRL_VQ), NET_F(VQ_NOTF_COAL) },
		{ NET_F(CTRL_VQ), NET_F(RSS) },
	};

	for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
		uint64_t both = rows[i].with | rows[i].alone;

		assert_int_equal(net_features_sound(both), both);
		assert_int_equal(net_features_sound(rows[i].alone), 0);
	}
	/* A missing feature also disables those that require it. */
	assert_int_equal(
		net_features_sound(NET_F(GUEST_TSO4) | NET_F(GUEST_ECN)), 0);
}

static void test_link_len(void **state)
{
	static const struct {
		const char *name;
		uint8_t types[16]; /* from the type field on */
		size_t len, want;
	} rows[] = {
		{ "IPv4", { 8 }, 64, 14 },
		{ "802.1Q", { 0x81, 0, 0, 5, 8 }, 64, 18 },
		{ "802.1ad", { 0x88, 0xa8, 0, 5, 8 }, 64, 18 },
		{ "QinQ", { 0x88, 0xa8, 0, 5, 0x81, 0, 0, 6, 8 }, 64, 22 },
		{ "two of 802.1Q", { 0x91, 0, 0, 5, 0x81, 0, 0, 6 }, 64, 22 },
		{ "MPLS", { 0x88, 0x47, 0, 0, 1, 64 }, 64, 18 },
		{ "two labels", { 0x88, 0x47, 0, 0, 0, 64, 0, 1, 1 }, 64, 22 },
		{ "tag, label",
		  { 0x81, 0, 0, 5, 0x88, 0x48, 0, 0, 1 },
		  64,
		  22 },
		{ "cut off", { 0x81, 0, 0, 5, 8 }, 16, 14 },
		{ "labels without end", { 0x88, 0x47 }, 64, 62 },
	};

	for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
		uint8_t frame[64] = { 0 };

		memcpy(frame + 12, rows[i].types, sizeof(rows[i].types));
		if (net_link_len(frame, rows[i].len) != rows[i].want)
			fail_msg("%s: %zu", rows[i].name,
				 net_link_len(frame, rows[i].len));
	}
}

/*
 * --- Filter ---
 */

static const uint8_t own_mac[6] = { 0x52, 0x54, 0, 1, 2, 3 };

enum frame_kind {
	OWN,
	OTHER,
	LISTED,
	BROADCAST,
	MULTI,
	MULTI_LISTED,
	NR_KINDS
};

static void make_frame(uint8_t *frame, enum frame_kind kind)
{
	static const uint8_t dst[NR_KINDS][6] = {
		[OWN] = { 0x52, 0x54, 0, 1, 2, 3 },
		[OTHER] = { 0x52, 0x54, 0, 9, 9, 9 },
		[LISTED] = { 0x52, 0x54, 0, 7, 7, 7 },
		[BROADCAST] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff },
		[MULTI] = { 0x33, 0x33, 0, 0, 0, 1 },
		[MULTI_LISTED] = { 1, 0, 0x5e, 0, 0, 5 },
	};

	memset(frame, 0, NET_FILTER_PEEK);
	memcpy(frame, dst[kind], 6);
	frame[12] = 8;
}

static void test_modes(void **state)
{
	/* O: own, X: other, L: listed, B: broadcast, M, m: multicast */
	static const struct {
		const char *name;
		unsigned modes;
		const char *passes;
	} rows[] = {
		{ "NET-CTL-09 own, listed, broadcast", 0, "OLBm" },
		{ "NET-CTL-03 PROMISC", NET_RX_PROMISC, "OXLBMm" },
		{ "NET-CTL-03 ALLMULTI", NET_RX_ALLMULTI, "OLBMm" },
		{ "NET-CTL-04 ALLUNI", NET_RX_ALLUNI, "OXLBm" },
		{ "NET-CTL-04 NOMULTI", NET_RX_NOMULTI, "OLB" },
		{ "NET-CTL-04 NOUNI", NET_RX_NOUNI, "Bm" },
		{ "NET-CTL-04 NOBCAST", NET_RX_NOBCAST, "OLm" },
		{ "NET-CTL-05 PROMISC beats all",
		  NET_RX_PROMISC | NET_RX_NOMULTI | NET_RX_NOUNI |
			  NET_RX_NOBCAST,
		  "OXLBMm" },
		{ "NET-CTL-05 NOMULTI beats ALLMULTI, spares broadcast",
		  NET_RX_NOMULTI | NET_RX_ALLMULTI, "OLB" },
		{ "NET-CTL-05 NOUNI beats ALLUNI", NET_RX_NOUNI | NET_RX_ALLUNI,
		  "Bm" },
		{ "NET-CTL-05 NOBCAST beats ALLMULTI",
		  NET_RX_NOBCAST | NET_RX_ALLMULTI, "OLMm" },
	};
	struct net_filter f;

	for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
		net_filter_reset(&f, NET_F(CTRL_RX));
		f.modes = rows[i].modes;
		f.uni = (struct net_macs){
			.nr = 1, .mac = { { 0x52, 0x54, 0, 7, 7, 7 } }
		};
		f.multi =
			(struct net_macs){ .nr = 1,
					   .mac = { { 1, 0, 0x5e, 0, 0, 5 } } };
		for (int k = 0; k < NR_KINDS; k++) {
			uint8_t frame[NET_FILTER_PEEK];
			bool want = strchr(rows[i].passes, "OXLBMm"[k]);

			make_frame(frame, (enum frame_kind)k);
			if (net_filter_passes(&f, own_mac, frame) != want)
				fail_msg("%s: kind %d", rows[i].name, k);
		}
	}
	/* A driver that cannot set modes gets everything. */
	net_filter_reset(&f, 0);
	for (int k = 0; k < NR_KINDS; k++) {
		uint8_t frame[NET_FILTER_PEEK];

		make_frame(frame, (enum frame_kind)k);
		assert_true(net_filter_passes(&f, own_mac, frame));
	}
}

static bool vlan_passes(const struct net_filter *f, unsigned tci)
{
	uint8_t frame[NET_FILTER_PEEK];

	make_frame(frame, OWN);
	frame[12] = 0x81;
	frame[14] = (uint8_t)(tci >> 8);
	frame[15] = (uint8_t)tci;
	return net_filter_passes(f, own_mac, frame);
}

static void test_vlans(void **state)
{
	uint8_t frame[NET_FILTER_PEEK];
	struct net_filter f;

	net_filter_reset(&f, 0);
	assert_true(vlan_passes(&f, 5)); /* NET-CTL-10 */

	net_filter_reset(&f, NET_F(CTRL_RX) | NET_F(CTRL_VLAN));
	assert_true(vlan_passes(&f, 5)); /* before the first command */
	f.modes = 0;
	for (unsigned id = 0; id < 4096; id++) /* NET-CTL-11: empty */
		assert_false(vlan_passes(&f, id));
	f.modes = NET_RX_PROMISC; /* NET-CTL-05: beats all */
	assert_true(vlan_passes(&f, 5));
	f.modes = 0;
	make_frame(frame, OWN);
	assert_true(net_filter_passes(&f, own_mac, frame));
	for (unsigned id = 0; id < 4096; id += 1365) {
		assert_true(net_filter_set_vlan(&f, id, true));
		assert_true(vlan_passes(&f, id));
		assert_true(vlan_passes(&f, id | 0xf000)); /* priority */
		assert_false(vlan_passes(&f, (id + 1) % 4096));
		assert_true(net_filter_set_vlan(&f, id, false));
		assert_false(vlan_passes(&f, id));
	}
	/* hostile K19 */
	assert_true(net_filter_set_vlan(&f, 4095, true));
	assert_false(net_filter_set_vlan(&f, 4096, true));
	assert_false(net_filter_set_vlan(&f, 65535, true));
	assert_false(net_filter_set_vlan(&f, 65535, false));

	/* Without CTRL_RX filtering starts with the first VLAN. */
	net_filter_reset(&f, NET_F(CTRL_VLAN));
	assert_true(vlan_passes(&f, 5));
	assert_true(net_filter_set_vlan(&f, 6, true));
	assert_true(vlan_passes(&f, 6));
	assert_false(vlan_passes(&f, 5));
}

/*
 * --- Hash: the vectors that Microsoft published with RSS ---
 */

static const uint8_t rss_key[40] = {
	0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67,
	0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0, 0xca, 0x2b, 0xcb,
	0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30,
	0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
};

/* From src to dst, by addresses alone and with ports. */
static const struct vector {
	const char *src, *dst;
	uint16_t sport, dport;
	uint32_t alone, with_ports;
} vectors[] = {
	{ "66.9.149.187", "161.142.100.80", 2794, 1766, 0x323e8fc2,
	  0x51ccc178 },
	{ "199.92.111.2", "65.69.140.83", 14230, 4739, 0xd718262a, 0xc626b0ea },
	{ "24.19.198.95", "12.22.207.184", 12898, 38024, 0xd2d0a5de,
	  0x5c2b394a },
	{ "38.27.205.30", "209.142.163.6", 48228, 2217, 0x82989176,
	  0xafc7327f },
	{ "153.39.163.191", "202.188.127.2", 44251, 1303, 0x5d1809c5,
	  0x10e828a2 },
	{ "3ffe:2501:200:1fff::7", "3ffe:2501:200:3::1", 2794, 1766, 0x2cc18cd5,
	  0x40207d3d },
	{ "3ffe:501:8::260:97ff:fe40:efab", "ff02::1", 14230, 4739, 0x0f0c461c,
	  0xdde51bbf },
	{ "3ffe:1900:4545:3:200:f8ff:fe21:67cf", "fe80::200:f8ff:fe21:67cf",
	  44251, 38024, 0x4b61e985, 0x02d1feef },
};

#define V4 (&vectors[0])
#define V6 (&vectors[5])

/* How a packet differs from a plain one. */
enum shape {
	PLAIN,
	FRAGMENT,
	PADDED, /* IPv6: destination options without effect */
	MOBILE, /* IPv6: source and destination are in extension headers */
};

static void write_addr(uint8_t *to, const char *text)
{
	bool v6 = strchr(text, ':');

	assert_int_equal(inet_pton(v6 ? AF_INET6 : AF_INET, text, to), 1);
}

static size_t write_ports(uint8_t *f, size_t off, const struct vector *v)
{
	const uint8_t ports[] = { (uint8_t)(v->sport >> 8), (uint8_t)v->sport,
				  (uint8_t)(v->dport >> 8), (uint8_t)v->dport };

	memcpy(f + off, ports, sizeof(ports));
	return off + 20;
}

static size_t make_ipv4(uint8_t *f, const struct vector *v, uint8_t proto,
			enum shape shape)
{
	f[12] = 8;
	f[14] = 0x45;
	f[20] = shape == FRAGMENT ? 0x20 : 0x40;
	f[23] = proto;
	write_addr(f + 26, v->src);
	write_addr(f + 30, v->dst);
	return write_ports(f, 34, v);
}

static size_t make_ipv6(uint8_t *f, const struct vector *v, uint8_t proto,
			enum shape shape)
{
	/* After padding of each kind, the home address option. */
	static const uint8_t options[] = { 43, 2, 1, 1, 0, 0, 0xc9, 16 };
	/* Type 2, one address to go. */
	static const uint8_t route[] = { 0, 2, 2, 1, 0, 0, 0, 0 };
	uint8_t *src = f + 22, *dst = f + 38, *next = f + 20;
	size_t off = 54;

	f[12] = 0x86;
	f[13] = 0xdd;
	f[14] = 0x60;
	if (shape == MOBILE) {
		write_addr(src, "fe80::1"); /* where it is currently */
		write_addr(dst, "fe80::2");
		*next = 60;
		memcpy(f + off, options, sizeof(options));
		src = f + off + sizeof(options);
		off += 24;
		next = f + off;
		memcpy(f + off, route, sizeof(route));
		dst = f + off + sizeof(route);
		off += 24;
	} else if (shape != PLAIN) {
		*next = shape == FRAGMENT ? 44 : 60;
		next = f + off;
		off += 8;
	}
	*next = proto;
	write_addr(src, v->src);
	write_addr(dst, v->dst);
	return write_ports(f, off, v);
}

static size_t make_packet(uint8_t *f, const struct vector *v, uint8_t proto,
			  enum shape shape)
{
	if (strchr(v->src, ':'))
		return make_ipv6(f, v, proto, shape);
	return make_ipv4(f, v, proto, shape);
}

/* NET-CTL-20: each vector, as each matching type. */
static void test_vectors(void **state)
{
	struct net_rss rss = { .key_len = 40 };

	memcpy(rss.key, rss_key, sizeof(rss_key));
	for (unsigned i = 0; i < ARRAY_LEN(vectors); i++) {
		bool v6 = strchr(vectors[i].src, ':');

		for (unsigned ext = 0; ext <= v6; ext++) {
			/* IP alone, with TCP, with UDP; report is bit plus 1 */
			for (unsigned kind = 0; kind < 3; kind++) {
				unsigned bit = 3 * (v6 + ext) + kind;
				uint8_t frame[NET_RSS_PEEK] = { 0 };
				size_t len = make_packet(frame, &vectors[i],
							 kind == 2 ? 17 : 6,
							 ext ? MOBILE : PLAIN);
				uint32_t hash;

				rss.types = 1u << bit;
				assert_int_equal(
					net_rss_hash(&rss, frame, len, &hash),
					bit + 1);
				assert_int_equal(hash,
						 kind ? vectors[i].with_ports :
							vectors[i].alone);
			}
		}
	}
}

/* Which enabled type a packet is classified as. */
static void test_hash(void **state)
{
	static const struct {
		const char *name;
		const struct vector *v; /* NULL: no IP */
		enum shape shape;
		uint8_t proto;
		uint32_t types;
		uint16_t report;
	} rows[] = {
		{ "NET-CTL-20 IPv4", V4, PLAIN, 6, 1, 1 },
		{ "NET-CTL-20 TCPv4", V4, PLAIN, 6, 3, 2 },
		{ "NET-CTL-21 UDPv4", V4, PLAIN, 17, 7, 3 },
		{ "NET-CTL-21 TCP type, UDP packet", V4, PLAIN, 17, 3, 1 },
		{ "NET-CTL-21 ICMP", V4, PLAIN, 1, 7, 1 },
		{ "NET-CTL-21 TCP type alone, UDP packet", V4, PLAIN, 17, 2,
		  0 },
		{ "NET-CTL-21 fragment", V4, FRAGMENT, 6, 7, 1 },
		{ "NET-CTL-20 IPv6", V6, PLAIN, 6, 8, 4 },
		{ "NET-CTL-20 TCPv6", V6, PLAIN, 6, 0x18, 5 },
		{ "NET-CTL-21 UDPv6", V6, PLAIN, 17, 0x38, 6 },
		{ "NET-CTL-21 IPv6 fragment", V6, FRAGMENT, 6, 0x38, 4 },
		{ "NET-CTL-21 extension, no _EX", V6, PADDED, 6, 0x3f, 5 },
		{ "NET-CTL-21 extension", V6, PADDED, 6, 0x1ff, 8 },
		{ "NET-CTL-21 UDP behind one", V6, PADDED, 17, 0x1ff, 9 },
		{ "NET-CTL-21 ICMP behind one", V6, PADDED, 58, 0x1ff, 7 },
		{ "NET-CTL-21 IP_EX alone", V6, PADDED, 6, 0x40, 7 },
		{ "NET-CTL-21 TCP_EX, UDP packet", V6, PADDED, 17, 0xb8, 6 },
		{ "NET-CTL-21 _EX alone, plain packet", V6, PLAIN, 6, 0x1c0,
		  0 },
		{ "NET-CTL-21 none enabled", V4, PLAIN, 6, 0, 0 },
		{ "NET-RX-18 NONE for IPv6 by IPv4", V6, PLAIN, 6, 7, 0 },
		{ "NET-RX-18 NONE for ARP", NULL, PLAIN, 0, 0x1ff, 0 },
	};
	struct net_rss rss = { .key_len = 40 };

	memcpy(rss.key, rss_key, sizeof(rss_key));
	for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
		const struct vector *v = rows[i].v;
		uint8_t frame[NET_RSS_PEEK] = { 0 };
		uint32_t hash, want = 0;
		size_t len = 64;

		if (v)
			len = make_packet(frame, v, rows[i].proto,
					  rows[i].shape);
		if (rows[i].report)
			want = rows[i].report % 3 == 1 ? v->alone :
							 v->with_ports;
		rss.types = rows[i].types;
		if (net_rss_hash(&rss, frame, len, &hash) != rows[i].report ||
		    hash != want)
			fail_msg("%s: %#x", rows[i].name, hash);
	}
}

/* Headers that end anywhere: no read beyond @len (ASan), never a crash. */
static void test_hash_short(void **state)
{
	struct net_rss rss = { .key_len = 40, .types = NET_RSS_TYPES };
	uint32_t hash;

	for (enum shape shape = PLAIN; shape <= MOBILE; shape++) {
		uint8_t frame[NET_RSS_PEEK] = { 0 };
		size_t len = make_packet(frame, shape ? V6 : V4, 6, shape);

		for (size_t n = 0; n <= len; n++) {
			uint8_t *copy = test_malloc(n ? n : 1);

			memcpy(copy, frame, n);
			net_rss_hash(&rss, copy, n, &hash);
			test_free(copy);
		}
	}
}

/* types, mask, unclassified, table..., max_tx, key length, key */
static size_t make_rss(uint8_t *p, uint32_t types, unsigned mask,
		       unsigned nr_table, unsigned queue, unsigned max_tx,
		       unsigned key_len, unsigned nr_key)
{
	size_t n = 0;

#define PUT(val, bytes)                           \
	for (unsigned b_ = 0; b_ < (bytes); b_++) \
	p[n++] = (uint8_t)((uint64_t)(val) >> 8 * b_)
	PUT(types, 4);
	PUT(mask, 2);
	PUT(0, 2);
	for (unsigned i = 0; i < nr_table; i++)
		PUT(queue, 2);
	PUT(max_tx, 2);
	PUT(key_len, 1);
	memset(p + n, 0x55, nr_key);
	return n + nr_key;
#undef PUT
}

static void test_rss_config(void **state)
{
	static const struct {
		const char *name;
		uint32_t types;
		unsigned mask, nr_table, queue, max_tx, key_len, nr_key;
		bool ok;
	} rows[] = {
		{ "NET-CTL-19", 0x1ff, 127, 128, 1, 2, 40, 40, true },
		{ "NET-CTL-19 one entry", 1, 0, 1, 0, 1, 40, 40, true },
		{ "NET-CTL-19 no key", 1, 0, 1, 0, 1, 0, 0, true },
		{ "NET-CTL-22 hostile Q18 mask 2", 1, 2, 3, 0, 1, 40, 40,
		  false },
		{ "NET-CTL-22 hostile Q18 mask 255", 1, 255, 256, 0, 1, 40, 40,
		  false },
		{ "NET-CTL-22 hostile Q18 mask 65535", 1, 65535, 8, 0, 1, 40,
		  40, false },
		{ "NET-CTL-22 hostile Q18 table short", 1, 127, 3, 0, 1, 40, 40,
		  false },
		{ "NET-CTL-22 hostile Q18 queue", 1, 3, 4, 2, 1, 40, 40,
		  false },
		{ "NET-CTL-22 queue, bit 15", 1, 3, 4, 0x8000, 1, 40, 40,
		  false },
		{ "NET-CTL-22 max_tx 0", 1, 0, 1, 0, 0, 40, 40, false },
		{ "NET-CTL-22 max_tx 3 of 2", 1, 0, 1, 0, 3, 40, 40, false },
		{ "NET-CTL-22 key 41", 1, 0, 1, 0, 1, 41, 41, false },
		{ "NET-CTL-22 key shorter than said", 1, 0, 1, 0, 1, 40, 39,
		  false },
		{ "NET-CTL-22 unknown type", 0x200, 0, 1, 0, 1, 40, 40, false },
	};

	for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
		uint8_t buf[1024];
		struct iovec iov = { buf, 0 };
		struct vio_iov_cursor data = { &iov, 1 };
		struct net_rss rss = { .types = 0xdead };

		iov.iov_len = make_rss(buf, rows[i].types, rows[i].mask,
				       rows[i].nr_table, rows[i].queue,
				       rows[i].max_tx, rows[i].key_len,
				       rows[i].nr_key);
		if (net_rss_parse(&rss, &data, true, 2) != rows[i].ok)
			fail_msg("%s", rows[i].name);
		if (!rows[i].ok)
			assert_int_equal(rss.types, 0xdead); /* untouched */
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_tx_hdr),
		cmocka_unit_test(test_rx_hdr),
		cmocka_unit_test(test_hdr_len),
		cmocka_unit_test(test_features),
		cmocka_unit_test(test_modes),
		cmocka_unit_test(test_link_len),
		cmocka_unit_test(test_vlans),
		cmocka_unit_test(test_vectors),
		cmocka_unit_test(test_hash),
		cmocka_unit_test(test_hash_short),
		cmocka_unit_test(test_rss_config),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: BSD-2-Clause */
#include "net_gen.h"

#include <netinet/in.h>
#include <string.h>

#include "back/net/inet.h"

#define MAX_PAYLOAD 1600u

static const uint8_t eth[12] = {
	0x52, 0x55, 10, 0, 2, 2, 0x52, 0x54, 0, 1, 2, 3
};

/* Of the guest, of what libslirp plays, of others. */
static const uint8_t hosts4[8][4] = {
	{ 10, 0, 2, 15 }, { 10, 0, 2, 2 },        { 10, 0, 2, 3 },
	{ 10, 0, 2, 4 },  { 255, 255, 255, 255 }, { 10, 0, 2, 255 },
	{ 127, 0, 0, 1 }, { 0, 0, 0, 0 },
};
static const uint8_t hosts6[8][16] = {
	{ 0xfe, 0xc0, [15] = 0x15 }, { 0xfe, 0xc0, [15] = 2 },
	{ 0xfe, 0xc0, [15] = 3 },    { 0xfe, 0x80, [15] = 2 },
	{ 0xff, 2, [15] = 2 },       { 0xff, 2, [11] = 1, 0xff, 0, 0, 2 },
	{ 0xff, 2, [13] = 1, 0, 2 }, { [15] = 1 },
};

static void write32(uint8_t *p, uint32_t val)
{
	inet_write16(p, (uint16_t)(val >> 16));
	inet_write16(p + 2, (uint16_t)val);
}

/* Mostly what is usual, sometimes anything. */
static uint16_t port(struct net_gen *g, struct fuzz_in *in)
{
	static const uint16_t known[] = { 53, 67, 69, 547, 68, 7 };
	unsigned n = fuzz_choice(in, 16);

	if (n < 5)
		return g->tcp_port;
	if (n < 9)
		return g->udp_port;
	return n < 15 ? known[n - 9] : (uint16_t)fuzz_int(in, 2);
}

static size_t payload(struct fuzz_in *in, uint8_t *p)
{
	size_t len = fuzz_choice(in, 8), n;
	const uint8_t *bytes;

	if (len == 7)
		len = fuzz_choice(in, MAX_PAYLOAD);
	else
		len = len * 4;
	memset(p, 'x', len);
	bytes = fuzz_take(in, len < 32 ? len : 32, &n);
	if (n)
		memcpy(p, bytes, n);
	return len;
}

/*
 * --- Transport ---
 */

static size_t udp(struct net_gen *g, struct fuzz_in *in, uint8_t *p)
{
	size_t len;

	inet_write16(p, fuzz_bool(in) ? 68 :
					(uint16_t)(4000 + fuzz_choice(in, 4)));
	inet_write16(p + 2, port(g, in));
	len = 8 + payload(in, p + 8);
	inet_write16(p + 4, fuzz_one_in(in, 16) ? (uint16_t)fuzz_int(in, 2) :
						  (uint16_t)len);
	inet_write16(p + 6, 0);
	return len;
}

static size_t tcp_options(struct fuzz_in *in, uint8_t *p)
{
	size_t len = 4 * (size_t)fuzz_choice(in, 11);

	fuzz_bytes(in, p, len);
	return len;
}

/* Most continue the connection that was seen last. */
static size_t tcp(struct net_gen *g, struct fuzz_in *in, uint8_t *p)
{
	bool known = g->sport && !fuzz_one_in(in, 4);
	static const uint8_t usual[8] = { 0x10, 0x18, 0x10, 0x18,
					  0x11, 0x30, 0x02, 0x04 };
	size_t options = 0, len;

	memset(p, 0, 20);
	inet_write16(p,
		     known ? g->sport : (uint16_t)(4000 + fuzz_choice(in, 4)));
	inet_write16(p + 2, known ? g->dport : port(g, in));
	write32(p + 4, g->seq + (fuzz_one_in(in, 2) ?
					 (uint32_t)fuzz_choice(in, 64) - 8 :
					 0));
	write32(p + 8, g->ack - (fuzz_one_in(in, 8) ? fuzz_choice(in, 64) : 0));
	p[13] = known ? usual[fuzz_choice(in, 8)] : 0x02;
	if (fuzz_one_in(in, 16))
		p[13] = (uint8_t)fuzz_int(in, 1);
	inet_write16(p + 14,
		     fuzz_one_in(in, 8) ? (uint16_t)fuzz_int(in, 2) : 0xffff);
	inet_write16(p + 18,
		     fuzz_one_in(in, 8) ? (uint16_t)fuzz_int(in, 2) : 0);
	if (fuzz_one_in(in, 4))
		options = tcp_options(in, p + 20);
	p[12] = (uint8_t)((20 + options) << 2);
	if (fuzz_one_in(in, 32))
		p[12] = (uint8_t)fuzz_int(in, 1);
	len = 20 + options;
	if (!(p[13] & 2))
		len += payload(in, p + len);
	g->tcp_bytes += len - 20;
	return len;
}

static size_t icmp(struct net_gen *g, struct fuzz_in *in, uint8_t *p)
{
	p[0] = fuzz_bool(in) ? 8 : (uint8_t)fuzz_choice(in, 20);
	p[1] = fuzz_one_in(in, 8) ? (uint8_t)fuzz_int(in, 1) : 0;
	memset(p + 2, 0, 6);
	return 8 + payload(in, p + 8);
}

static size_t icmp6(struct net_gen *g, struct fuzz_in *in, uint8_t *p)
{
	static const uint8_t types[] = { 128, 133, 134, 135, 136, 1, 143, 129 };
	size_t n;

	memset(p, 0, 64);
	p[0] = types[fuzz_choice(in, 8)];
	memcpy(p + 8, hosts6[fuzz_choice(in, 8)], 16);
	p[24] = (uint8_t)fuzz_choice(in, 3);
	p[25] = (uint8_t)fuzz_choice(in, 3);
	memcpy(p + 26, eth + 6, 6);
	n = fuzz_choice(in, 4);
	return n == 3 ? 8 + payload(in, p + 8) : 8 + 12 * n;
}

static size_t dhcp(struct net_gen *g, struct fuzz_in *in, uint8_t *p)
{
	static const uint8_t magic[] = { 99, 130, 83, 99 };
	size_t len = 8 + 240;

	memset(p, 0, len);
	inet_write16(p, 68);
	inet_write16(p + 2, 67);
	memcpy(p + 8, "\1\1\6", 3);
	memcpy(p + 8 + 28, eth + 6, 6);
	memcpy(p + 8 + 236, magic, 4);
	p[len++] = 53;
	p[len++] = 1;
	p[len++] = (uint8_t)fuzz_choice(in, 9);
	len += payload(in, p + len);
	inet_write16(p + 4, (uint16_t)len);
	return len;
}

/*
 * --- Network ---
 */

struct kind {
	uint8_t proto;
	size_t sum_off; /* of the checksum; 0: optional, left out */
	size_t (*make)(struct net_gen *g, struct fuzz_in *in, uint8_t *p);
};

static void fix_sum(uint8_t *f, size_t addrs, size_t addrs_len, uint8_t proto,
		    uint8_t *data, size_t len, size_t sum_off)
{
	uint8_t pseudo[4] = { 0, proto, (uint8_t)(len >> 8), (uint8_t)len };
	uint16_t sum = inet_sum(pseudo, 4, 0);

	if (len < sum_off + 2)
		return;
	inet_write16(data + sum_off, 0);
	sum = addrs_len ? inet_sum(f + addrs, addrs_len, sum) : 0;
	inet_write16(data + sum_off, (uint16_t)~inet_sum(data, len, sum));
}

static size_t ip4(struct net_gen *g, struct fuzz_in *in, uint8_t *f)
{
	static const struct kind kinds[] = {
		{ IPPROTO_UDP, 0, udp },  { IPPROTO_TCP, 16, tcp },
		{ IPPROTO_TCP, 16, tcp }, { IPPROTO_ICMP, 2, icmp },
		{ IPPROTO_UDP, 0, dhcp },
	};
	const struct kind *k = &kinds[fuzz_choice(in, 5)];
	uint8_t *ip = f + 14, *data;
	size_t hdr = 20, len;

	inet_write16(f + 12, ETH_IP4);
	memset(ip, 0, 60);
	if (fuzz_one_in(in, 8))
		hdr += 4 * (size_t)fuzz_choice(in, 11);
	ip[0] = (uint8_t)(0x40 | hdr / 4);
	fuzz_bytes(in, ip + 20, hdr - 20);
	inet_write16(ip + 4, (uint16_t)fuzz_choice(in, 4));
	if (fuzz_one_in(in, 4))
		inet_write16(ip + 6, (uint16_t)(fuzz_choice(in, 8) << 13 |
						fuzz_choice(in, 8)));
	ip[8] = fuzz_one_in(in, 16) ? (uint8_t)fuzz_choice(in, 2) : 64;
	ip[9] = fuzz_one_in(in, 32) ? (uint8_t)fuzz_int(in, 1) : k->proto;
	memcpy(ip + 12, hosts4[fuzz_one_in(in, 8) ? fuzz_choice(in, 8) : 0], 4);
	memcpy(ip + 16, hosts4[fuzz_one_in(in, 4) ? fuzz_choice(in, 8) : 1], 4);
	data = ip + hdr;
	len = k->make(g, in, data);
	inet_write16(ip + 2, fuzz_one_in(in, 32) ? (uint16_t)fuzz_int(in, 2) :
						   (uint16_t)(hdr + len));
	if (k->sum_off)
		fix_sum(f, 26, k->proto == IPPROTO_ICMP ? 0 : 8, k->proto, data,
			len, k->sum_off);
	inet_write16(ip + 10, (uint16_t)~inet_sum(ip, hdr, 0));
	return 14 + hdr + len;
}

static size_t ip6(struct net_gen *g, struct fuzz_in *in, uint8_t *f)
{
	static const struct kind kinds[] = {
		{ IPPROTO_UDP, 6, udp },
		{ IPPROTO_TCP, 16, tcp },
		{ IPPROTO_ICMPV6, 2, icmp6 },
	};
	const struct kind *k = &kinds[fuzz_choice(in, 3)];
	uint8_t *ip = f + 14;
	size_t len;

	inet_write16(f + 12, ETH_IP6);
	memset(ip, 0, 40);
	ip[0] = 0x60;
	ip[6] = fuzz_one_in(in, 16) ? (uint8_t)fuzz_int(in, 1) : k->proto;
	ip[7] = fuzz_one_in(in, 16) ? (uint8_t)fuzz_choice(in, 2) : 255;
	memcpy(ip + 8, hosts6[fuzz_one_in(in, 8) ? fuzz_choice(in, 8) : 0], 16);
	memcpy(ip + 24, hosts6[fuzz_choice(in, 8)], 16);
	len = k->make(g, in, ip + 40);
	inet_write16(ip + 4, fuzz_one_in(in, 32) ? (uint16_t)fuzz_int(in, 2) :
						   (uint16_t)len);
	fix_sum(f, 22, 32, k->proto, ip + 40, len, k->sum_off);
	return 54 + len;
}

static size_t arp(struct net_gen *g, struct fuzz_in *in, uint8_t *f)
{
	static const uint8_t usual[] = { 0, 1, 8, 0, 6, 4, 0, 1 };

	inet_write16(f + 12, ETH_ARP);
	memcpy(f + 14, usual, sizeof(usual));
	f[21] = (uint8_t)(1 + fuzz_choice(in, 2));
	memcpy(f + 22, eth + 6, 6);
	memcpy(f + 28, hosts4[fuzz_one_in(in, 4) ? fuzz_choice(in, 8) : 0], 4);
	memset(f + 32, 0, 6);
	memcpy(f + 38, hosts4[fuzz_choice(in, 8)], 4);
	return 42 + 4 * fuzz_choice(in, 4);
}

static size_t other(struct net_gen *g, struct fuzz_in *in, uint8_t *f)
{
	static const uint16_t types[] = { 0x88f8, 0x8100, 0, ETH_IP4 };

	inet_write16(f + 12, types[fuzz_choice(in, 4)]);
	return 14 + payload(in, f + 14);
}

size_t net_gen_frame(struct net_gen *g, struct fuzz_in *in, uint8_t *frame)
{
	static size_t (*const makers[])(struct net_gen *, struct fuzz_in *,
					uint8_t *) = {
		ip4, ip4, ip4, ip4, ip6, ip6, arp, other,
	};
	size_t len;

	memcpy(frame, eth, sizeof(eth));
	len = makers[fuzz_choice(in, 8)](g, in, frame);
	if (fuzz_one_in(in, 16))
		frame[fuzz_choice(in, (unsigned)len)] =
			(uint8_t)fuzz_int(in, 1);
	if (fuzz_one_in(in, 16))
		len = fuzz_choice(in, (unsigned)len + 1);
	return len;
}

size_t net_gen_syn(struct net_gen *g, struct fuzz_in *in, uint8_t *frame)
{
	uint8_t *ip = frame + 14, *tcp = ip + 20;

	memset(frame, 0, 54);
	memcpy(frame, eth, sizeof(eth));
	inet_write16(frame + 12, ETH_IP4);
	ip[0] = 0x45;
	inet_write16(ip + 2, 40);
	ip[8] = 64;
	ip[9] = IPPROTO_TCP;
	memcpy(ip + 12, hosts4[0], 4);
	memcpy(ip + 16, hosts4[1], 4);
	inet_write16(ip + 10, (uint16_t)~inet_sum(ip, 20, 0));
	inet_write16(tcp, (uint16_t)(4100 + fuzz_choice(in, 4)));
	inet_write16(tcp + 2, g->tcp_port);
	write32(tcp + 4, 0u - 1 - fuzz_choice(in, 16));
	tcp[12] = 5 << 4;
	tcp[13] = 2;
	inet_write16(tcp + 14, 0xffff);
	fix_sum(frame, 26, 8, IPPROTO_TCP, tcp, 20, 16);
	return 54;
}

void net_gen_learn(struct net_gen *g, const uint8_t *f, size_t len)
{
	const uint8_t *t = f + 34;
	size_t total;

	if (len < 54 || inet_read16(f + 12) != ETH_IP4 || f[23] != IPPROTO_TCP)
		return;
	total = inet_read16(f + 16);
	g->sport = inet_read16(t + 2);
	g->dport = inet_read16(t);
	g->seq = inet_read32(t + 8);
	g->ack = inet_read32(t + 4) +
		 (uint32_t)(total - 20 - (t[12] >> 4) * 4u) + (t[13] & 1) +
		 (t[13] >> 1 & 1);
}

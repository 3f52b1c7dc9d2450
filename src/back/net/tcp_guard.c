/* SPDX-License-Identifier: BSD-2-Clause */
#include "back/net/tcp_guard.h"

#include <string.h>

#include "back/net/inet.h"

#define PROTO_TCP     6
#define TCP_MIN_BYTES 20u
#define FIN           0x01
#define SYN           0x02
#define RST           0x04
#define ACK           0x10
#define URG           0x20
#define MAX_EARLY     2 /* on a connection; then it must wait for each ACK */

/* The layout of a frame. */
struct segment {
	uint8_t *ip, *tcp;
	bool v6;
	size_t len; /* of header and data */
	size_t data_len;
	uint32_t seq, ack;
	uint8_t flags;
};

/* Sequence numbers wrap around. */
static bool is_after(uint32_t a, uint32_t b)
{
	return (int32_t)(a - b) > 0;
}

static bool find_tcp(const uint8_t *frame, size_t len, struct segment *ret)
{
	uint8_t *ip = (uint8_t *)(uintptr_t)frame + ETH_BYTES;
	size_t hdr, total;

	if (len < ETH_BYTES + IP4_MIN_BYTES)
		return false;
	if (inet_read16(frame + 12) == ETH_IP4) {
		hdr = (ip[0] & 15) * 4u;
		total = inet_read16(ip + 2);
		ret->v6 = false;
		if (ip[0] >> 4 != 4 || hdr < IP4_MIN_BYTES ||
		    ip[9] != PROTO_TCP)
			return false;
	} else {
		hdr = IP6_BYTES;
		ret->v6 = true;
		if (inet_read16(frame + 12) != ETH_IP6 ||
		    len < ETH_BYTES + IP6_BYTES || ip[6] != PROTO_TCP)
			return false;
		total = IP6_BYTES + (size_t)inet_read16(ip + 4);
	}
	if (total > len - ETH_BYTES || total < hdr + TCP_MIN_BYTES)
		return false;
	ret->ip = ip;
	ret->tcp = ip + hdr;
	ret->len = total - hdr;
	return true;
}

/* False if it is not TCP, or libslirp would ignore it. */
static bool parse(const uint8_t *frame, size_t len, struct segment *ret)
{
	size_t hdr;

	if (!find_tcp(frame, len, ret))
		return false;
	hdr = (ret->tcp[12] >> 4) * 4u;
	if (hdr < TCP_MIN_BYTES || hdr > ret->len)
		return false;
	ret->data_len = ret->len - hdr;
	ret->seq = inet_read32(ret->tcp + 4);
	ret->ack = inet_read32(ret->tcp + 8);
	ret->flags = ret->tcp[13];
	return true;
}

static uint16_t sum_of(const struct segment *s)
{
	uint8_t pseudo[4] = { 0, PROTO_TCP, (uint8_t)(s->len >> 8),
			      (uint8_t)s->len };
	uint16_t sum = inet_sum(pseudo, sizeof(pseudo), 0);

	sum = s->v6 ? inet_sum(s->ip + 8, 32, sum) :
		      inet_sum(s->ip + 12, 8, sum);
	return inet_sum(s->tcp, s->len, sum);
}

static void set_sum(const struct segment *s)
{
	inet_write16(s->tcp + 16, 0);
	inet_write16(s->tcp + 16, (uint16_t)~sum_of(s));
}

/*
 * --- Connections ---
 */

static void make_key(const struct segment *s, bool from_guest, uint8_t key[36])
{
	size_t size = s->v6 ? 16 : 4;
	const uint8_t *src = s->ip + (s->v6 ? 8 : 12), *dst = src + size;

	memset(key, 0, 36);
	memcpy(key, from_guest ? src : dst, size);
	memcpy(key + 16, from_guest ? dst : src, size);
	memcpy(key + 32, s->tcp + (from_guest ? 0 : 2), 2);
	memcpy(key + 34, s->tcp + (from_guest ? 2 : 0), 2);
}

static struct tcp_flow *set_of(struct tcp_guard *g, const uint8_t key[36])
{
	uint32_t hash = 2166136261u;

	for (int i = 0; i < 36; i++)
		hash = (hash ^ key[i]) * 16777619u;
	return g->flows[(hash ^ hash >> 16) % TCP_GUARD_SETS];
}

static struct tcp_flow *find(struct tcp_guard *g, const struct segment *s,
			     bool from_guest)
{
	struct tcp_flow *set;
	uint8_t key[36];

	make_key(s, from_guest, key);
	set = set_of(g, key);
	for (unsigned i = 0; i < TCP_GUARD_WAYS; i++) {
		if (set[i].used && !memcmp(set[i].key, key, sizeof(key))) {
			set[i].used = ++g->now;
			return &set[i];
		}
	}
	return NULL;
}

/* It replaces the flow that was idle longest. */
static struct tcp_flow *add(struct tcp_guard *g, const struct segment *s,
			    bool from_guest)
{
	struct tcp_flow *set, *flow;
	uint8_t key[36];

	make_key(s, from_guest, key);
	flow = set = set_of(g, key);
	for (unsigned i = 1; i < TCP_GUARD_WAYS; i++) {
		if (set[i].used < flow->used)
			flow = &set[i];
	}
	*flow = (struct tcp_flow){ .used = ++g->now, .v6 = s->v6 };
	memcpy(flow->key, key, sizeof(key));
	return flow;
}

static void begin(struct tcp_flow *flow, uint32_t seq)
{
	flow->next = flow->acked = flow->edge = flow->last = seq;
}

/*
 * --- From the guest ---
 */

static void make_ordinary(struct tcp_guard *g, struct segment *s)
{
	if (!(s->flags & URG) && !inet_read16(s->tcp + 18))
		return;
	g->nr_urgent += (s->flags & URG) != 0;
	s->flags &= (uint8_t)~URG;
	s->tcp[13] = s->flags;
	inet_write16(s->tcp + 18, 0);
	set_sum(s);
}

/*
 * libslirp before 4.8 compares what is next with a word of the connection's
 * own data, behind the queue's head: the second word of the guest's address,
 * as the machine reads it; there is none for IPv4. A segment must not end
 * there, nor be cut there because the window does.
 */
static bool guard_end(const struct segment *s, const struct tcp_flow *flow,
		      size_t *ret_cut)
{
	uint32_t end = s->seq + (uint32_t)s->data_len, word = 0;

	*ret_cut = 0;
	if (s->v6)
		memcpy(&word, s->ip + 8 + 4, sizeof(word));
	if (s->data_len == 0) /* a FIN alone */
		return s->seq != word;
	if (!is_after(word, s->seq) || is_after(word, end))
		return true;
	if (end != word)
		return !is_after(end, flow->edge);
	/* The guest sends the omitted byte again, with more. */
	*ret_cut = 1;
	return s->data_len > 1;
}

static size_t cut_end(struct segment *s, const uint8_t *frame, size_t cut)
{
	size_t total;

	s->len -= cut;
	s->data_len -= cut;
	s->tcp[13] &= (uint8_t)~FIN;
	set_sum(s);
	total = (size_t)(s->tcp - s->ip) + s->len;
	if (s->v6) {
		inet_write16(s->ip + 4, (uint16_t)s->len);
	} else {
		size_t hdr = (size_t)(s->tcp - s->ip);

		inet_write16(s->ip + 2, (uint16_t)total);
		inet_write16(s->ip + 10, 0);
		inet_write16(s->ip + 10, (uint16_t)~inet_sum(s->ip, hdr, 0));
	}
	return (size_t)(s->ip - frame) + total;
}

static size_t check_segment(struct tcp_guard *g, struct segment *s,
			    struct tcp_flow *flow, const uint8_t *frame,
			    size_t len)
{
	bool wary = flow->nr_early >= MAX_EARLY;
	uint32_t end;
	size_t cut = 0;

	if (is_after(s->seq, wary ? flow->acked : flow->next)) {
		g->nr_early++;
		return 0;
	}
	if (g->fragile && !guard_end(s, flow, &cut)) {
		g->nr_bad++;
		return 0;
	}
	if (cut)
		len = cut_end(s, frame, cut);
	end = s->seq + (uint32_t)s->data_len + (s->tcp[13] & FIN);
	if (is_after(end, flow->next))
		flow->next = end;
	flow->last = s->seq;
	return len;
}

size_t tcp_guard_from_guest(struct tcp_guard *g, uint8_t *frame, size_t len)
{
	struct tcp_flow *flow;
	struct segment s;

	if (!parse(frame, len, &s))
		return len;
	if (sum_of(&s) != 0xffff) {
		g->nr_bad++;
		return 0;
	}
	make_ordinary(g, &s);
	flow = find(g, &s, true);
	if (s.flags & SYN) {
		if (s.data_len) /* sent again once that is answered */
			len = cut_end(&s, frame, s.data_len);
		begin(flow ? flow : add(g, &s, true), s.seq + 1);
		return len;
	}
	if (s.flags & RST || (!s.data_len && !(s.flags & FIN)))
		return len;
	if (!flow) { /* libslirp knows it, or answers with a reset */
		flow = add(g, &s, true);
		begin(flow, s.seq);
	}
	return check_segment(g, &s, flow, frame, len);
}

bool tcp_guard_is_syn(const uint8_t *frame, size_t len)
{
	struct segment s;

	return parse(frame, len, &s) && (s.flags & (SYN | ACK)) == SYN;
}

/* A header of IP for @len bytes from the guest; returns its length. */
static size_t make_ip(const struct tcp_flow *flow, uint8_t *ip, size_t len)
{
	if (flow->v6) {
		ip[0] = 0x60;
		inet_write16(ip + 4, (uint16_t)len);
		ip[6] = PROTO_TCP;
		ip[7] = 64;
		memcpy(ip + 8, flow->key, 32);
		return IP6_BYTES;
	}
	ip[0] = 0x45;
	inet_write16(ip + 2, (uint16_t)(IP4_MIN_BYTES + len));
	ip[8] = 64;
	ip[9] = PROTO_TCP;
	memcpy(ip + 12, flow->key, 4);
	memcpy(ip + 16, flow->key + 16, 4);
	inet_write16(ip + 10, (uint16_t)~inet_sum(ip, IP4_MIN_BYTES, 0));
	return IP4_MIN_BYTES;
}

static size_t make_reset(const struct tcp_flow *flow, uint8_t *frame)
{
	struct segment s = { .ip = frame + ETH_BYTES,
			     .v6 = flow->v6,
			     .len = TCP_MIN_BYTES };

	memset(frame, 0, TCP_GUARD_RESET_BYTES);
	inet_write16(frame + 12, flow->v6 ? ETH_IP6 : ETH_IP4);
	s.tcp = s.ip + make_ip(flow, s.ip, s.len);
	memcpy(s.tcp, flow->key + 32, 4);
	inet_write16(s.tcp + 4, (uint16_t)(flow->acked >> 16));
	inet_write16(s.tcp + 6, (uint16_t)flow->acked);
	s.tcp[12] = TCP_MIN_BYTES / 4 << 4;
	s.tcp[13] = RST;
	set_sum(&s);
	return (size_t)(s.tcp - frame) + s.len;
}

size_t tcp_guard_reset_oldest(struct tcp_guard *g,
			      uint8_t frame[TCP_GUARD_RESET_BYTES])
{
	struct tcp_flow *all = &g->flows[0][0], *oldest = NULL;

	for (unsigned i = 0; i < TCP_GUARD_SETS * TCP_GUARD_WAYS; i++) {
		if (all[i].used && (!oldest || all[i].used < oldest->used))
			oldest = &all[i];
	}
	if (!oldest)
		return 0;
	oldest->used = 0;
	return make_reset(oldest, frame);
}

bool tcp_guard_is_tcp(const uint8_t *frame, size_t len)
{
	struct segment s;

	return find_tcp(frame, len, &s);
}

/*
 * --- To the guest ---
 */

void tcp_guard_to_guest(struct tcp_guard *g, const uint8_t *frame, size_t len)
{
	struct tcp_flow *flow;
	struct segment s;

	if (!parse(frame, len, &s))
		return;
	flow = find(g, &s, false);
	if (!flow && s.flags & SYN)
		flow = add(g, &s, false);
	if (!flow || !(s.flags & ACK) || s.flags & RST)
		return;
	/* It answers at once: part of the last segment is missing. */
	if (is_after(flow->last, s.ack) && flow->nr_early < MAX_EARLY)
		flow->nr_early++;
	flow->last = s.ack;
	flow->acked = flow->next = s.ack;
	flow->edge = s.ack + inet_read16(s.tcp + 14);
}

/* SPDX-License-Identifier: BSD-2-Clause */
#include "back/net/reass.h"

#include <string.h>

#include "back/net/inet.h"

#define UNIT      8u
#define MORE      0x2000u /* fragments follow */
#define OFFSET    0x1fffu /* in units */
#define MAX_TOTAL 65535u  /* bytes of a datagram and its header */

/* A fragment's header, checked against the frame. */
struct fragment {
	const uint8_t *frame, *data;
	size_t hdr_len; /* of Ethernet and IPv4 */
	size_t len;     /* of data */
	size_t unit, nr_units;
	bool last;
};

bool reass_is_fragment(const uint8_t *frame, size_t len)
{
	return len >= ETH_BYTES + IP4_MIN_BYTES &&
	       inet_read16(frame + 12) == ETH_IP4 &&
	       (inet_read16(frame + ETH_BYTES + 6) & (MORE | OFFSET));
}

static bool parse(const uint8_t *frame, size_t len, struct fragment *ret)
{
	const uint8_t *ip = frame + ETH_BYTES;
	size_t ip_hdr = (ip[0] & 15) * 4u, total = inet_read16(ip + 2);
	uint16_t word = inet_read16(ip + 6);

	if (ip[0] >> 4 != 4 || ip_hdr < IP4_MIN_BYTES || ip_hdr >= total ||
	    total > len - ETH_BYTES || inet_sum(ip, ip_hdr, 0) != 0xffff)
		return false;
	*ret = (struct fragment){
		.frame = frame,
		.data = ip + ip_hdr,
		.hdr_len = ETH_BYTES + ip_hdr,
		.len = total - ip_hdr,
		.unit = word & OFFSET,
		.nr_units = (total - ip_hdr + UNIT - 1) / UNIT,
		.last = !(word & MORE),
	};
	/* RFC 791: all but the last end at a multiple of 8 bytes. */
	return (ret->last || ret->len % UNIT == 0) &&
	       ret->unit * UNIT + ret->len + ip_hdr <= MAX_TOTAL;
}

/*
 * --- Slots ---
 */

static void make_key(const uint8_t *frame, uint8_t key[12])
{
	const uint8_t *ip = frame + ETH_BYTES;

	memcpy(key, ip + 12, 8);
	memcpy(key + 8, ip + 4, 2);
	key[10] = ip[9];
	key[11] = 0;
}

static void give_up(struct reass *r, struct reass_slot *s)
{
	s->deadline_ns = 0;
	r->nr_dropped++;
}

/* A datagram's slot: its own, a free one, or the oldest. */
static struct reass_slot *find_slot(struct reass *r, const uint8_t *frame,
				    uint64_t now_ns)
{
	struct reass_slot *oldest = &r->slots[0];
	uint8_t key[12];

	make_key(frame, key);
	for (unsigned i = 0; i < REASS_NR_SLOTS; i++) {
		struct reass_slot *s = &r->slots[i];

		if (s->deadline_ns && s->deadline_ns <= now_ns)
			give_up(r, s);
		if (s->deadline_ns && !memcmp(s->key, key, sizeof(key)))
			return s;
		if (s->deadline_ns < oldest->deadline_ns)
			oldest = s;
	}
	if (oldest->deadline_ns)
		give_up(r, oldest);
	oldest->deadline_ns = now_ns + REASS_TIMEOUT_NS;
	memcpy(oldest->key, key, sizeof(key));
	oldest->hdr_len = oldest->nr_units = oldest->nr_wanted = 0;
	memset(oldest->has, 0, sizeof(oldest->has));
	return oldest;
}

static void store_unit(struct reass_slot *s, const struct fragment *f, size_t i)
{
	uint64_t bit = UINT64_C(1) << (f->unit + i) % 64;
	uint64_t *word = &s->has[(f->unit + i) / 64];
	size_t off = i * UNIT;

	if (*word & bit)
		return;
	*word |= bit;
	s->nr_units++;
	memcpy(s->bytes + REASS_HDR_BYTES + f->unit * UNIT + off, f->data + off,
	       f->len - off < UNIT ? f->len - off : UNIT);
}

/* Whether a fragment agrees with the others on the datagram's end. */
static bool fits(const struct reass_slot *s, const struct fragment *f)
{
	size_t end = f->unit + f->nr_units;

	if (!s->nr_wanted)
		return true;
	return f->last ? f->unit * UNIT + f->len == s->data_len :
			 end <= s->nr_wanted;
}

/* The end must not lie before data that arrived already. */
static bool set_end(struct reass_slot *s, const struct fragment *f)
{
	size_t end = f->unit + f->nr_units;

	for (size_t u = end; u < REASS_MAX_BYTES / UNIT; u++) {
		if (s->has[u / 64] & UINT64_C(1) << u % 64)
			return false;
	}
	s->nr_wanted = end;
	s->data_len = f->unit * UNIT + f->len;
	return true;
}

static bool store(struct reass_slot *s, const struct fragment *f)
{
	if (!fits(s, f) || (f->last && !s->nr_wanted && !set_end(s, f)))
		return false;
	if (f->unit == 0 && !s->hdr_len) {
		memcpy(s->hdr, f->frame, f->hdr_len);
		s->hdr_len = f->hdr_len;
	}
	for (size_t i = 0; i < f->nr_units; i++)
		store_unit(s, f, i);
	return true;
}

/* Write the header of the unfragmented datagram. */
static size_t finish(struct reass_slot *s, uint8_t **ret_frame)
{
	uint8_t *frame = s->bytes + REASS_HDR_BYTES - s->hdr_len;
	uint8_t *ip = frame + ETH_BYTES;
	size_t ip_hdr = s->hdr_len - ETH_BYTES;

	if (ip_hdr + s->data_len > MAX_TOTAL)
		return 0;
	memcpy(frame, s->hdr, s->hdr_len);
	inet_write16(ip + 2, (uint16_t)(ip_hdr + s->data_len));
	inet_write16(ip + 6, 0);
	inet_write16(ip + 10, 0);
	inet_write16(ip + 10, (uint16_t)~inet_sum(ip, ip_hdr, 0));
	*ret_frame = frame;
	return s->hdr_len + s->data_len;
}

size_t reass_add(struct reass *r, const uint8_t *frame, size_t len,
		 uint64_t now_ns, uint8_t **ret_frame)
{
	struct reass_slot *s;
	struct fragment f;
	size_t whole;

	r->nr_fragments++;
	if (!parse(frame, len, &f)) {
		r->nr_dropped++;
		return 0;
	}
	s = find_slot(r, frame, now_ns);
	if (!store(s, &f)) {
		give_up(r, s);
		return 0;
	}
	if (!s->hdr_len || !s->nr_wanted || s->nr_units < s->nr_wanted)
		return 0;
	s->deadline_ns = 0;
	whole = finish(s, ret_frame);
	if (whole)
		r->nr_datagrams++;
	else
		r->nr_dropped++;
	return whole;
}

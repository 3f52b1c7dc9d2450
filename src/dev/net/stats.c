/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Device statistics (virtio 5.1.6.5.10): what was counted for each queue since
 * the last reset, as `ctl status` shows it in sum.
 */
#include <errno.h>

#include "dev/net/net.h"

#define NR_FIELDS 6 /* of a reply, at most */

enum {
	RX_BASIC = 0,
	RX_CSUM = 1,
	TX_BASIC = 16,
	TX_CSUM = 17,
	CVQ = 32,
};

struct reply_hdr {
	uint8_t type;
	uint8_t reserved;
	le16 vq_index;
	le16 reserved1;
	le16 size; /* with the header */
};

/* What the driver wants to know of one queue. */
struct request_wire {
	le16 vq_index;
	le16 reserved[3];
	le64 types;
};

/* Less what was counted before the last reset. */
static void read_counters(const struct net_softc *sc, unsigned i,
			  struct net_stats *ret_stats, struct vq_stats *ret_vq)
{
	const struct net_stats_base *base = &sc->sc_stats_base[i];
	struct net_stats *s = ret_stats;

	*s = sc->sc_stats[i];
	s->frames -= base->stats.frames;
	s->bytes -= base->stats.bytes;
	s->dropped -= base->stats.dropped;
	s->malformed -= base->stats.malformed;
	s->csum_valid -= base->stats.csum_valid;
	s->needs_csum -= base->stats.needs_csum;
	vq_get_stats(&sc->sc_vqs[i], ret_vq);
	ret_vq->kicks -= base->kicks;
	ret_vq->interrupts -= base->interrupts;
}

void net_stats_reset(struct net_softc *sc)
{
	for (unsigned i = 0; i < 2 * sc->sc_max_pairs; i++) {
		struct vq_stats vq;

		vq_get_stats(&sc->sc_vqs[i], &vq);
		sc->sc_stats_base[i] = (struct net_stats_base){
			.stats = sc->sc_stats[i],
			.kicks = vq.kicks,
			.interrupts = vq.interrupts,
		};
	}
	sc->sc_commands = sc->sc_commands_ok = 0;
}

struct net_stats net_stats_sum(const struct net_softc *sc, unsigned tx)
{
	struct net_stats sum = { 0 };

	for (unsigned i = tx; i < 2 * sc->sc_max_pairs; i += 2) {
		const struct net_stats *s = &sc->sc_stats[i];

		sum.frames += s->frames;
		sum.bytes += s->bytes;
		sum.dropped += s->dropped;
		sum.filtered += s->filtered;
	}
	return sum;
}

/* The types that exist for queue @i, as features allow. */
static uint64_t types_of(const struct net_softc *sc, unsigned i)
{
	if (i == 2 * net_nr_pairs(sc))
		return VI_BIT(CVQ);
	if (i % 2)
		return VI_BIT(TX_BASIC) |
		       (net_has(sc, NET_F(CSUM)) ? VI_BIT(TX_CSUM) : 0);
	return VI_BIT(RX_BASIC) |
	       (net_has(sc, NET_F(GUEST_CSUM)) ? VI_BIT(RX_CSUM) : 0);
}

uint64_t net_stats_types(const struct net_softc *sc)
{
	return types_of(sc, 0) | types_of(sc, 1) | VI_BIT(CVQ);
}

/* The fields of a reply: how many. */
static unsigned fill(const struct net_softc *sc, unsigned i, unsigned type,
		     uint64_t field[NR_FIELDS])
{
	struct net_stats s;
	struct vq_stats vq;

	if (type == CVQ) {
		field[0] = sc->sc_commands;
		field[1] = sc->sc_commands_ok;
		return 2;
	}
	read_counters(sc, i, &s, &vq);
	switch (type) {
	case RX_BASIC:
	case TX_BASIC:
		field[0] = vq.kicks;
		field[1] = s.frames;
		field[2] = s.bytes;
		field[3] = vq.interrupts;
		field[4] = s.dropped;
		field[5] = s.malformed; /* rx: for want of buffers, never */
		return 6;
	case RX_CSUM:
		field[0] = s.csum_valid;
		field[1] = s.needs_csum;
		field[2] = s.frames - s.csum_valid - s.needs_csum;
		field[3] = 0; /* a bad one is passed on, unnoticed */
		return 4;
	default: /* TX_CSUM */
		field[0] = s.frames - s.needs_csum;
		field[1] = s.needs_csum;
		return 2;
	}
}

/* Less than the whole reply where there is no more room. */
static size_t write_reply(const struct net_softc *sc, unsigned i, unsigned type,
			  struct vio_iov_cursor *to)
{
	struct {
		struct reply_hdr hdr;
		le64 field[NR_FIELDS];
	} reply;
	uint64_t field[NR_FIELDS];
	unsigned nr = fill(sc, i, type, field);
	size_t size = sizeof(reply.hdr) + nr * sizeof(le64);

	reply.hdr = (struct reply_hdr){
		.type = (uint8_t)type,
		.vq_index = cpu_to_le16((uint16_t)i),
		.size = cpu_to_le16((uint16_t)size),
	};
	for (unsigned k = 0; k < nr; k++)
		reply.field[k] = cpu_to_le64(field[k]);
	return vio_iov_write(to, &reply, size);
}

size_t net_stats_write(const struct net_softc *sc,
		       const struct net_stats_request *requests, unsigned nr,
		       struct vio_iov_cursor *to)
{
	size_t len = 0;

	for (unsigned n = 0; n < nr; n++) {
		for (unsigned type = 0; type <= CVQ; type++) {
			if (requests[n].types & VI_BIT(type))
				len += write_reply(sc, requests[n].vq_index,
						   type, to);
		}
	}
	return len;
}

int net_stats_parse(const struct net_softc *sc, struct vio_iov_cursor *from,
		    struct net_stats_request requests[NET_MAX_QUEUES])
{
	size_t nr = vio_iov_len(from) / sizeof(struct request_wire);

	if (nr == 0 || nr > NET_MAX_QUEUES)
		return -EINVAL;
	for (size_t n = 0; n < nr; n++) {
		struct net_stats_request *r = &requests[n];
		struct request_wire wire;

		vio_iov_take(from, &wire, sizeof(wire));
		r->vq_index = le16_to_cpu(wire.vq_index);
		r->types = le64_to_cpu(wire.types);
		if (r->vq_index > 2 * net_nr_pairs(sc) ||
		    (r->types & ~types_of(sc, r->vq_index)))
			return -EINVAL;
	}
	return (int)nr;
}

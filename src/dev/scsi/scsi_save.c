/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A device that moves to another process: what its driver has set up, and its
 * known and pending state.
 *
 *	struct head
 *	struct unit ...		those that the driver can see, in order
 *
 * The driver continues with its units, so each must exist, unchanged: otherwise
 * the state is refused. The driver is notified of additions: a larger size, a
 * new unit.
 *
 * Reservations in the state are newer than those this process read from its
 * file; if both processes share the file, the other one may have written to it
 * since. So the state's win, and are written to the file first.
 */
#include <assert.h>
#include <errno.h>
#include <syslog.h>

#include "base/le.h"
#include "dev/scsi/scsi.h"

struct head {
	uint8_t sizes[8]; /* sense_size and cdb_size, 5.6.4 */
	le32 missed;      /* an event found no buffer */
	le32 nr_units;
};
static_assert(sizeof(struct head) == 16, "no padding");

struct unit {
	le32 place; /* target, and 16 bits of LUN */
	le32 block_bytes;
	le64 nr_blocks;
	le64 naa;
	le64 key; /* registered; 0: none */
	le32 generation;
	le16 flags;
	uint8_t ua;
	uint8_t type; /* of the persistent reservation; 0: none */
};
static_assert(sizeof(struct unit) == 40, "no padding");

enum {
	/* What a unit is. */
	CDROM = 0x0001,
	PASSTHROUGH = 0x0002,
	READ_ONLY = 0x0004,
	ALL_IS = 0x000f,
	/* What commands have made of it. */
	STOPPED = 0x0010,
	EJECTED = 0x0020,
	LOCKED = 0x0040,
	WCE = 0x0080,
	SWP = 0x0100,
	D_SENSE = 0x0200,
	RESERVED = 0x0400,
	APTPL = 0x0800,
};

/* What it can be made to be. A real device has its state itself. */
static const uint16_t may_be[] = {
	[LUN_DISK] = STOPPED | WCE | SWP | D_SENSE | RESERVED | APTPL,
	[LUN_CDROM] = STOPPED | EJECTED | LOCKED | D_SENSE | RESERVED,
	[LUN_PASSTHROUGH] = 0,
};

static uint32_t place_of(const struct scsi_lun *lun)
{
	return (uint32_t)lun->target << 16 | lun->lun;
}

static unsigned what_is(const struct scsi_lun *lun)
{
	return (lun->kind == LUN_CDROM ? CDROM : 0) |
	       (lun->kind == LUN_PASSTHROUGH ? PASSTHROUGH : 0) |
	       (lun->ro ? READ_ONLY : 0);
}

/*
 * --- What there is ---
 */

static unsigned what_became(const struct scsi_lun *lun)
{
	return (lun->stopped ? STOPPED : 0) | (lun->ejected ? EJECTED : 0) |
	       (lun->locked ? LOCKED : 0) | (lun->wce ? WCE : 0) |
	       (lun->swp ? SWP : 0) | (lun->d_sense ? D_SENSE : 0) |
	       (lun->reserved ? RESERVED : 0) | (lun->pr.aptpl ? APTPL : 0);
}

static struct unit save_unit(const struct scsi_lun *lun)
{
	const struct pr_state *pr = &lun->pr;
	unsigned flags = what_is(lun) | (what_became(lun) & may_be[lun->kind]);

	return (struct unit){
		.place = cpu_to_le32(place_of(lun)),
		.block_bytes = cpu_to_le32(lun->block_bytes),
		.nr_blocks = cpu_to_le64(lun->nr_blocks),
		.naa = cpu_to_le64(lun->naa),
		.key = cpu_to_le64(pr->registered ? pr->key : 0),
		.generation = cpu_to_le32(pr->generation),
		.flags = cpu_to_le16((uint16_t)flags),
		.ua = (uint8_t)lun->ua,
		.type = pr->reserved ? pr->type : 0,
	};
}

ssize_t scsi_save(void *arg, void *buf, size_t room)
{
	const struct scsi_softc *sc = arg;
	struct head head = { .missed = cpu_to_le32(sc->sc_missed) };
	size_t len = sizeof(head);
	uint32_t nr = 0;

	for (unsigned i = 0; i < sc->sc_nr_luns; i++) {
		struct unit u = save_unit(sc->sc_luns[i]);

		if (!sc->sc_luns[i]->present)
			continue;
		if (len + sizeof(u) > room)
			return -ENOSPC;
		memcpy((uint8_t *)buf + len, &u, sizeof(u));
		len += sizeof(u);
		nr++;
	}
	if (len > room)
		return -ENOSPC;
	memcpy(head.sizes, sc->sc_sizes, sizeof(head.sizes));
	head.nr_units = cpu_to_le32(nr);
	memcpy(buf, &head, sizeof(head));
	return (ssize_t)len;
}

/*
 * --- Whether it can be taken over ---
 */

struct state {
	struct head head;
	unsigned nr;
	struct unit unit[SCSI_MAX_LUNS];
	struct scsi_lun *lun[SCSI_MAX_LUNS]; /* which is that unit */
};

static bool parse(struct state *st, const void *buf, size_t len)
{
	uint32_t nr;

	if (len < sizeof(st->head))
		return false;
	memcpy(&st->head, buf, sizeof(st->head));
	nr = le32_to_cpu(st->head.nr_units);
	if (le32_to_cpu(st->head.missed) > 1 || nr > SCSI_MAX_LUNS ||
	    len != sizeof(st->head) + nr * sizeof(st->unit[0]))
		return false;
	st->nr = nr;
	memcpy(st->unit, (const uint8_t *)buf + sizeof(st->head),
	       nr * sizeof(st->unit[0]));
	return true;
}

static int refuse(struct scsi_softc *sc, uint32_t place, const char *why)
{
	vs_log(&sc->sc_vs, LOG_WARNING, "cannot restore t%u.lun%u: %s",
	       place >> 16, place & 0xffff, why);
	return -EINVAL;
}

static struct scsi_lun *find(struct scsi_softc *sc, uint32_t place)
{
	for (unsigned i = 0; i < sc->sc_nr_luns; i++) {
		struct scsi_lun *lun = sc->sc_luns[i];

		if (lun->present && place_of(lun) == place)
			return lun;
	}
	return NULL;
}

static bool is_same(const struct scsi_lun *lun, const struct unit *u)
{
	return (le16_to_cpu(u->flags) & ALL_IS) == what_is(lun) &&
	       le64_to_cpu(u->naa) == lun->naa &&
	       le32_to_cpu(u->block_bytes) == lun->block_bytes;
}

/* Nothing that no command could have led to. */
static bool is_possible(const struct scsi_lun *lun, const struct unit *u)
{
	unsigned flags = le16_to_cpu(u->flags) & ~(unsigned)ALL_IS;
	bool registered = le64_to_cpu(u->key) != 0;

	if ((flags & ~(unsigned)may_be[lun->kind]) || (u->ua & ~UA_ALL))
		return false;
	if (!registered)
		return u->type == 0 && !(flags & APTPL);
	return lun->kind == LUN_DISK && !(flags & RESERVED) &&
	       (u->type == 0 || pr_type_ok(u->type));
}

static bool holds_reservations(const struct unit *u)
{
	return le64_to_cpu(u->key) != 0 || (le16_to_cpu(u->flags) & RESERVED);
}

static int check_unit(struct scsi_softc *sc, const struct scsi_lun *lun,
		      const struct unit *u)
{
	uint32_t place = le32_to_cpu(u->place);

	if (!lun)
		return refuse(sc, place, "no such unit");
	if (!is_same(lun, u))
		return refuse(sc, place,
			      "type, serial, block-size or ro differs here");
	if (lun->kind == LUN_DISK && le64_to_cpu(u->nr_blocks) > lun->nr_blocks)
		return refuse(sc, place, "smaller here");
	if (lun->kind == LUN_DISK && !lun->sole && holds_reservations(u))
		return refuse(sc, place,
			      "its reservations need share=off and ro=off");
	if ((le16_to_cpu(u->flags) & APTPL) && sc->sc_pr_fd < 0)
		return refuse(sc, place, "its reservations need reservations=");
	return is_possible(lun, u) ? 0 : -EINVAL;
}

static int check(struct scsi_softc *sc, struct state *st)
{
	for (unsigned i = 0; i < st->nr; i++) {
		const struct unit *u = &st->unit[i];
		uint32_t place = le32_to_cpu(u->place);
		int ret;

		if (i > 0 && place <= le32_to_cpu(u[-1].place))
			return -EINVAL;
		st->lun[i] = find(sc, place);
		ret = check_unit(sc, st->lun[i], u);
		if (ret < 0)
			return ret;
	}
	return 0;
}

/*
 * --- Taking it over ---
 */

static int take_reservations(struct scsi_softc *sc, const struct state *st)
{
	struct pr_state before[SCSI_MAX_LUNS];
	int ret;

	for (unsigned i = 0; i < st->nr; i++) {
		const struct unit *u = &st->unit[i];

		before[i] = st->lun[i]->pr;
		st->lun[i]->pr = (struct pr_state){
			.generation = le32_to_cpu(u->generation),
			.registered = le64_to_cpu(u->key) != 0,
			.key = le64_to_cpu(u->key),
			.reserved = u->type != 0,
			.type = u->type,
			.aptpl = le16_to_cpu(u->flags) & APTPL,
		};
	}
	ret = pr_keep(sc);
	for (unsigned i = 0; i < st->nr && ret < 0; i++)
		st->lun[i]->pr = before[i];
	if (ret < 0)
		vs_log(&sc->sc_vs, LOG_WARNING,
		       "cannot restore reservations: %s", strerror(-ret));
	return ret;
}

/* Whether its size has changed. */
static bool take_unit(struct scsi_lun *lun, const struct unit *u)
{
	unsigned flags = le16_to_cpu(u->flags);
	bool resized = le64_to_cpu(u->nr_blocks) != lun->nr_blocks;

	lun->stopped = flags & STOPPED;
	lun->ejected = flags & EJECTED;
	lun->locked = flags & LOCKED;
	lun->wce = (flags & WCE) && !lun->writethrough;
	lun->swp = flags & SWP;
	lun->d_sense = flags & D_SENSE;
	lun->reserved = flags & RESERVED;
	lun->ua = u->ua;
	if (resized)
		lun->ua |= lun->kind == LUN_CDROM ? UA_MEDIUM : UA_CAPACITY;
	return resized;
}

/* Whether units exist that the driver does not know. */
static bool has_more(const struct scsi_softc *sc, const struct state *st)
{
	unsigned nr = 0;

	for (unsigned i = 0; i < sc->sc_nr_luns; i++)
		nr += sc->sc_luns[i]->present;
	return nr > st->nr;
}

static bool hears_events(const struct scsi_softc *sc)
{
	return sc->sc_vs.vs_negotiated_caps &
	       (VI_BIT(VIRTIO_SCSI_F_HOTPLUG) | VI_BIT(VIRTIO_SCSI_F_CHANGE));
}

int scsi_load(void *arg, const void *buf, size_t len)
{
	struct scsi_softc *sc = arg;
	struct state st;
	bool more, missed, resized = false;
	int ret = parse(&st, buf, len) ? check(sc, &st) : -EINVAL;

	if (ret < 0)
		return ret;
	missed = le32_to_cpu(st.head.missed);
	if (missed && !hears_events(sc))
		return -EINVAL;
	ret = take_reservations(sc, &st);
	if (ret < 0)
		return ret;
	more = has_more(sc, &st);
	for (unsigned i = 0; i < st.nr; i++)
		resized |= take_unit(st.lun[i], &st.unit[i]);
	for (unsigned i = 0; i < sc->sc_nr_luns && more; i++)
		sc->sc_luns[i]->ua |= UA_LUNS_CHANGED;
	memcpy(sc->sc_sizes, st.head.sizes, sizeof(sc->sc_sizes));
	sc->sc_taken_over = true;
	/* No event can be sent yet: the driver looks when one was missed. */
	sc->sc_missed = missed || ((more || resized) && hears_events(sc));
	return 0;
}

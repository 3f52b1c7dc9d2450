/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The pretend driver's packed rings, 2.8. A chain's buffer id comes from a free
 * list, and is not where the chain lies. All descriptors but the last have an
 * id that means nothing.
 */
#include <string.h>

#include "base/le.h"
#include "vdrv_impl.h"

#define F_AVAIL (1u << VRING_PACKED_DESC_F_AVAIL)
#define F_USED  (1u << VRING_PACKED_DESC_F_USED)
#define NO_ID   0xdead

enum {
	EVENT_ENABLE,
	EVENT_DISABLE,
	EVENT_DESC,
};

static uint16_t slot_at(uint16_t pos)
{
	return pos & (uint16_t)~VDRV_WRAP;
}

static uint16_t advance(const struct vdrv_queue *vq, uint16_t pos, unsigned n)
{
	unsigned slot = slot_at(pos) + n, wrap = pos & VDRV_WRAP;

	for (; slot >= vq->size; slot -= vq->size)
		wrap ^= VDRV_WRAP;
	return (uint16_t)(slot | wrap);
}

static le16 *flags_at(struct vdrv *d, const struct vdrv_queue *vq, uint16_t pos)
{
	return vdrv_ptr(d, vq->desc + 16ull * slot_at(pos) + 14, 2);
}

void vdrv_packed_books(struct vdrv_queue *vq)
{
	vq->avail_idx = vq->used_idx = vq->kicked_idx = VDRV_WRAP;
}

/* All of a descriptor but its flags. */
static void write_body(struct vdrv *d, uint64_t at, const struct vdrv_buf *b,
		       uint16_t id)
{
	struct {
		le64 addr;
		le32 len;
		le16 id;
	} body = {
		cpu_to_le64(b->gpa),
		cpu_to_le32(b->len),
		cpu_to_le16(id),
	};

	memcpy(vdrv_ptr(d, at, 14), &body, 14);
}

void vdrv_slot(struct vdrv *d, unsigned q, const struct vdrv_buf *b,
	       uint16_t flags, uint16_t id)
{
	struct vdrv_queue *vq = vdrv_queue(d, q);
	uint16_t pos = vq->avail_idx;
	unsigned bits = pos & VDRV_WRAP ? F_AVAIL : F_USED;

	write_body(d, vq->desc + 16ull * slot_at(pos), b, id);
	le16_store_release(flags_at(d, vq, pos), (uint16_t)(flags | bits));
	vq->avail_idx = advance(vq, pos, 1);
	vq->nr_unkicked++;
}

/* The first slot's flags are stored last: the others come before it. 2.8.6 */
uint16_t vdrv_packed_add(struct vdrv *d, unsigned q,
			 const struct vdrv_buf *bufs, unsigned nr)
{
	struct vdrv_queue *vq = vdrv_queue(d, q);
	uint16_t id = vdrv_take_id(vq), first = vq->avail_idx, end;

	if (nr == 0 || nr > vq->nr_free)
		vdrv_die("%u descriptors, and %u are free", nr, vq->nr_free);
	vq->nr_free -= nr;
	end = advance(vq, first, nr);
	for (unsigned i = nr; i-- > 0;) {
		bool more = i + 1 < nr;

		vq->avail_idx = advance(vq, first, i);
		vdrv_slot(d, q, &bufs[i],
			  (uint16_t)(vdrv_desc_flags(&bufs[i]) |
				     (more ? VRING_DESC_F_NEXT : 0)),
			  more ? NO_ID : id);
	}
	vq->avail_idx = end;
	vq->slots[id].inflight = true;
	vq->slots[id].nr = (uint16_t)nr;
	vq->slots[id].writable = vdrv_writable(bufs, nr);
	return id;
}

uint16_t vdrv_packed_add_indirect(struct vdrv *d, unsigned q,
				  const struct vdrv_buf *bufs, unsigned nr)
{
	struct vdrv_queue *vq = vdrv_queue(d, q);
	uint16_t id = vq->free_head;
	uint64_t table = vdrv_table(d, vq, id, nr);
	struct vdrv_buf b = { table, 16 * nr, VDRV_INDIRECT };

	for (unsigned i = 0; i < nr; i++) {
		uint16_t flags = vdrv_desc_flags(&bufs[i]);

		write_body(d, table + 16ull * i, &bufs[i], NO_ID);
		/* Only WRITE counts here. */
		*(le16 *)vdrv_ptr(d, table + 16ull * i + 14, 2) = cpu_to_le16(
			(uint16_t)(flags | VRING_DESC_F_NEXT | F_USED));
	}
	vdrv_packed_add(d, q, &b, 1);
	vq->slots[id].writable = vdrv_writable(bufs, nr);
	return id;
}

/* Whether the last @nr slots before @pos include the one that @event names. */
static bool is_passed(const struct vdrv_queue *vq, uint16_t pos, uint16_t event,
		      unsigned nr)
{
	int off = slot_at(event);

	if ((event ^ pos) & VDRV_WRAP)
		off -= vq->size;
	return (uint16_t)(slot_at(pos) - off - 1) < nr;
}

bool vdrv_packed_kick_wanted(struct vdrv *d, unsigned q)
{
	struct vdrv_queue *vq = vdrv_queue(d, q);
	unsigned nr = vq->nr_unkicked;
	uint32_t event;

	vq->nr_unkicked = 0;
	/* Our store to the flags before the load of what the device wants. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	event = vdrv_device_event(d, q);
	switch (event >> 16) {
	case EVENT_ENABLE:
		return true;
	case EVENT_DISABLE:
		return false;
	case EVENT_DESC:
		if (!vq->event_idx)
			vdrv_die("an event index that was not negotiated");
		return nr >= vq->size ||
		       is_passed(vq, vq->avail_idx, (uint16_t)event, nr);
	default:
		vdrv_die("device event 0x%08x", event);
	}
}

uint32_t vdrv_device_event(struct vdrv *d, unsigned q)
{
	return le32_load(vdrv_ptr(d, vdrv_queue(d, q)->used, 4));
}

void vdrv_set_driver_event(struct vdrv *d, unsigned q, uint32_t event)
{
	le32_store(vdrv_ptr(d, vdrv_queue(d, q)->avail, 4), event);
}

void vdrv_packed_want_intr(struct vdrv *d, unsigned q, bool on)
{
	struct vdrv_queue *vq = vdrv_queue(d, q);
	uint32_t event = EVENT_DISABLE << 16;

	vq->no_intr = !on;
	if (on && vq->event_idx)
		event = (uint32_t)EVENT_DESC << 16 | vq->used_idx;
	else if (on)
		event = EVENT_ENABLE;
	vdrv_set_driver_event(d, q, event);
	/* The caller looks at the ring next. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

bool vdrv_slot_is_used(struct vdrv *d, unsigned q, uint16_t pos)
{
	uint16_t flags = le16_load_acquire(flags_at(d, vdrv_queue(d, q), pos));
	bool wrap = pos & VDRV_WRAP;

	return !!(flags & F_AVAIL) == wrap && !!(flags & F_USED) == wrap;
}

static unsigned free_chain(struct vdrv_queue *vq, const struct vdrv_used *u)
{
	struct vdrv_slot *s;

	if (u->id >= vq->size || !vq->slots[u->id].inflight)
		return 1; /* offered by hand: the test's own affair */
	s = &vq->slots[u->id];
	if (u->len > s->writable)
		vdrv_die("used.len %u of a chain with %llu writable bytes",
			 u->len, (unsigned long long)s->writable);
	s->inflight = false;
	vdrv_put_id(vq, (uint16_t)u->id);
	vq->nr_free += s->nr;
	return s->nr;
}

bool vdrv_packed_used(struct vdrv *d, unsigned q, struct vdrv_used *ret_used)
{
	struct vdrv_queue *vq = vdrv_queue(d, q);
	uint16_t pos = vq->used_idx, flags;
	struct vdrv_used u;
	struct {
		le32 len;
		le16 id;
	} body;

	if (!vdrv_slot_is_used(d, q, pos))
		return false;
	flags = le16_load(flags_at(d, vq, pos));
	memcpy(&body, vdrv_ptr(d, vq->desc + 16ull * slot_at(pos) + 8, 6), 6);
	u = (struct vdrv_used){ le16_to_cpu(body.id), le32_to_cpu(body.len) };
	if ((flags & ~(F_AVAIL | F_USED)) != (u.len ? VRING_DESC_F_WRITE : 0u))
		vdrv_die("used descriptor of %u bytes with flags 0x%04x", u.len,
			 flags);
	vq->used_idx = advance(vq, pos, free_chain(vq, &u));
	if (vq->event_idx && !vq->no_intr)
		vdrv_packed_want_intr(d, q, true);
	if (ret_used)
		*ret_used = u;
	return true;
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The packed virtqueue in memory (virtio 2.8).
 *
 *	ring            N x { addr, len, id, flags }    both write
 *	driver event    off_wrap flags                  driver writes
 *	device event    off_wrap flags                  device writes
 *
 * The device overwrites slots with used descriptors in the order of completion,
 * and the driver may then fill them again, although a chain that began there is
 * still in flight. So each chain's descriptors are copied when it is taken, and
 * everything needed later comes from the copy: how many slots it took, what it
 * wrote, and the whole chain if the model returns it unprocessed.
 *
 * Anything in the ring can change at any moment: it is loaded once and only the
 * copy is used.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/core.h"

#define F_NEXT     VRING_DESC_F_NEXT
#define F_WRITE    VRING_DESC_F_WRITE
#define F_INDIRECT VRING_DESC_F_INDIRECT
#define F_AVAIL    (1u << VRING_PACKED_DESC_F_AVAIL)
#define F_USED     (1u << VRING_PACKED_DESC_F_USED)

struct desc {
	le64 addr;
	le32 len;
	le16 id;
	le16 flags;
};
static_assert(sizeof(struct desc) == 16, "2.8.13");

/* Event structure: flags are its upper half. */
#define EVENT_ENABLE  0u
#define EVENT_DISABLE 1u
#define EVENT_DESC    2u
#define EVENT_FLAGS   3u /* the other bits are reserved */
#define EVENT_SHIFT   16

static struct gmem *gmem_of(struct vqueue_info *vq)
{
	return vq->vq_priv->gmem;
}

/*
 * --- Set-up ---
 */

int packed_init(struct vqueue_info *vq)
{
	struct vq_priv *priv = vq->vq_priv;
	struct vq_packed *p = &priv->p;

	p->copy = calloc(priv->nr, sizeof(*p->copy));
	if (!p->copy)
		return -ENOMEM;
	for (unsigned i = 0; i < priv->nr; i++)
		p->copy[i].next =
			(uint16_t)(i + 1u < priv->nr ? i + 1u : PACKED_NONE);
	p->free = 0;
	p->batch = PACKED_NONE;
	vq->vq_last_avail = vq->vq_next_used = vq->vq_save_used = PACKED_WRAP;
	return 0;
}

void packed_fini(struct vqueue_info *vq)
{
	struct vq_packed *p = &vq->vq_priv->p;

	free(p->copy);
	memset(p, 0, sizeof(*p));
}

int packed_map(struct vqueue_info *vq)
{
	const struct vq_part parts[3] = {
		{ "descriptor ring", vq->vq_desc_gpa, 16ull * vq->vq_priv->nr,
		  16, GM_READ | GM_WRITE },
		{ "driver event structure", vq->vq_avail_gpa, 4, 4, GM_READ },
		{ "device event structure", vq->vq_used_gpa, 4, 4,
		  GM_READ | GM_WRITE },
	};
	int ret = vq_check_parts(vq, parts);

	if (ret == 0)
		packed_remap(vq);
	return ret;
}

/*
 * The address of a part in this process. A part that loses its alignment here
 * cannot be accessed atomically, and goes through gm_read() and gm_write().
 */
static void *map_part(struct gmem *gm, uint64_t gpa, uint64_t len,
		      unsigned prot, size_t align)
{
	void *p = gm_map(gm, (gpa_t){ gpa }, len, prot);

	return (uintptr_t)p % align ? NULL : p;
}

void packed_remap(struct vqueue_info *vq)
{
	struct gmem *gm = gmem_of(vq);
	struct vq_packed *p = &vq->vq_priv->p;
	unsigned rw = GM_READ | GM_WRITE;

	p->ring = map_part(gm, vq->vq_desc_gpa, 16ull * vq->vq_priv->nr, rw,
			   sizeof(le16));
	p->driver_event =
		map_part(gm, vq->vq_avail_gpa, 4, GM_READ, sizeof(le32));
	p->device_event = map_part(gm, vq->vq_used_gpa, 4, rw, sizeof(le32));
	vq->vq_priv->gen = gm->gen;
}

/*
 * --- Positions ---
 */

static uint16_t slot_at(uint16_t pos)
{
	return pos & (uint16_t)~PACKED_WRAP;
}

uint16_t packed_advance(const struct vqueue_info *vq, uint16_t pos, unsigned n)
{
	unsigned slot = slot_at(pos) + n;
	unsigned wrap = pos & PACKED_WRAP;

	if (slot >= vq->vq_priv->nr) {
		slot -= vq->vq_priv->nr;
		wrap ^= PACKED_WRAP;
	}
	return (uint16_t)(slot | wrap);
}

unsigned packed_distance(const struct vqueue_info *vq, uint16_t pos,
			 uint16_t to)
{
	unsigned n = vq->vq_priv->nr;
	unsigned lap = (pos ^ to) & PACKED_WRAP ? n : 0;

	return (lap + slot_at(to) + 2 * n - slot_at(pos)) % (2 * n);
}

/* Whether @flags make the slot at @pos available. */
static bool is_available(uint16_t flags, uint16_t pos)
{
	bool wrap = pos & PACKED_WRAP;
	bool avail = flags & F_AVAIL, used = flags & F_USED;

	return avail == wrap && used != wrap;
}

/*
 * --- Available ---
 */

static struct packed_desc from_wire(const struct desc *d)
{
	return (struct packed_desc){
		.addr = le64_to_cpu(d->addr),
		.len = le32_to_cpu(d->len),
		.flags = le16_to_cpu(d->flags),
		.id = le16_to_cpu(d->id),
	};
}

/*
 * Copy a descriptor out of the ring or of an indirect table, which may be
 * unaligned. The barrier keeps the compiler from reading a value again from
 * shared memory after it was checked.
 */
static int fetch(struct vqueue_info *vq, const void *table, uint64_t gpa,
		 uint32_t i, struct packed_desc *ret_desc)
{
	uint64_t off = 16ull * i;
	struct desc d;
	int ret;

	if (table) {
		memcpy(&d, (const char *)table + off, sizeof(d));
		__asm__ volatile("" ::: "memory");
	} else {
		ret = gm_read(gmem_of(vq), (gpa_t){ gpa + off }, &d, sizeof(d));
		if (ret < 0)
			return ret;
	}
	*ret_desc = from_wire(&d);
	return 0;
}

static le16 *flags_of(void *ring, uint16_t slot)
{
	return (le16 *)(void *)((char *)ring + 16ull * slot +
				offsetof(struct desc, flags));
}

/* What is loaded afterwards is as new as these flags, or newer. */
static int load_flags(struct vqueue_info *vq, uint16_t pos, uint16_t *ret_flags)
{
	struct vq_packed *p = &vq->vq_priv->p;
	uint64_t off = 16ull * slot_at(pos) + offsetof(struct desc, flags);
	le16 v;
	int ret;

	if (p->ring) {
		*ret_flags = le16_load_acquire(flags_of(p->ring, slot_at(pos)));
		return 0;
	}
	ret = gm_read(gmem_of(vq), (gpa_t){ vq->vq_desc_gpa + off }, &v,
		      sizeof(v));
	if (ret == 0)
		*ret_flags = le16_to_cpu(v);
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	return ret;
}

/*
 * The driver stores the flags of a chain's first descriptor last. This pairs
 * with its barrier before that store: the whole chain is visible afterwards
 * (2.8.17). Other flags have no ordering of their own.
 */
int packed_peek(struct vqueue_info *vq)
{
	struct vq_packed *p = &vq->vq_priv->p;
	uint16_t pos = vq->vq_last_avail, flags = 0;
	int ret = load_flags(vq, pos, &flags);

	if (ret < 0)
		return ret;
	if (!is_available(flags, pos))
		return 0;
	ret = fetch(vq, p->ring, vq->vq_desc_gpa, slot_at(pos), &p->head);
	p->head.flags = flags;
	return ret < 0 ? ret : 1;
}

/* What is wrong with an indirect table, or NULL; it is mapped later. */
static const char *check_table(struct vqueue_info *vq,
			       const struct packed_desc *d)
{
	if (d->flags & F_NEXT)
		return "INDIRECT and NEXT together";
	if (!(vq->vq_vs->vs_negotiated_caps &
	      VI_BIT(VIRTIO_RING_F_INDIRECT_DESC)))
		return "INDIRECT not negotiated";
	if (d->len == 0 || d->len % 16)
		return "indirect table length not a multiple of the "
		       "descriptor size";
	if (d->len / 16 > VQ_MAX_INDIRECT)
		return "indirect table too long";
	if (gm_check(gmem_of(vq), (gpa_t){ d->addr }, d->len, GM_READ) < 0)
		return "indirect table outside guest memory";
	return NULL;
}

/*
 * Entry @i of a valid table. Only its address, length and WRITE matter: entries
 * follow one another to the table's end (2.8.7).
 */
static int fetch_entry(struct vqueue_info *vq, const struct packed_desc *table,
		       void *host, uint32_t i, struct packed_desc *ret_desc)
{
	int ret = fetch(vq, host, table->addr, i, ret_desc);

	ret_desc->flags &= F_WRITE;
	return ret;
}

static void *map_table(struct vqueue_info *vq, const struct packed_desc *d)
{
	return gm_map(gmem_of(vq), (gpa_t){ d->addr }, d->len, GM_READ);
}

static int add_table(struct vqueue_info *vq, struct vq_chain *c,
		     const struct packed_desc *table)
{
	const char *why = check_table(vq, table);
	struct packed_desc d;
	void *host;
	int ret = 0;

	if (why)
		return vq_bad_chain(c, why);
	host = map_table(vq, table);
	for (uint32_t i = 0; i < table->len / 16 && ret == 0; i++) {
		ret = fetch_entry(vq, table, host, i, &d);
		if (ret < 0 && ret != -EAGAIN)
			return vq_bad_chain(c,
					    "descriptor outside guest memory");
		if (ret == 0)
			ret = vq_chain_add(c, d.addr, d.len, d.flags);
	}
	return ret;
}

/* Add a descriptor of the ring: its buffer or its table. */
static int add(struct vqueue_info *vq, struct vq_chain *c,
	       const struct packed_desc *d, bool first)
{
	if (!(d->flags & F_INDIRECT))
		return vq_chain_add(c, d->addr, d->len, d->flags);
	if (!first) /* 2.8.19 */
		return vq_bad_chain(c, "INDIRECT behind NEXT");
	return add_table(vq, c, d);
}

/*
 * The copies go into the free list, and stay there until the chain is taken.
 * There are as many as slots, so that a chain that is longer than the ring, or
 * runs into slots that are not the driver's, finds none left.
 */
int packed_walk(struct vqueue_info *vq, struct vq_chain *c, uint16_t *ret_head)
{
	struct vq_packed *p = &vq->vq_priv->p;
	uint16_t pos = vq->vq_last_avail;
	struct packed_desc d = p->head;
	uint16_t i = p->free, last;
	unsigned nr = 0;
	int ret;

	for (;;) {
		if (i == PACKED_NONE)
			return vq_bad_chain(
				c, "more available descriptors than entries");
		ret = add(vq, c, &d, nr == 0);
		if (ret < 0)
			return ret;
		last = i;
		i = p->copy[last].next;
		d.next = i;
		p->copy[last] = d;
		nr++;
		if (!(d.flags & F_NEXT))
			break;
		pos = packed_advance(vq, pos, 1);
		ret = fetch(vq, p->ring, vq->vq_desc_gpa, slot_at(pos), &d);
		if (ret == -EAGAIN)
			return ret;
		if (ret < 0)
			return vq_bad_chain(c,
					    "descriptor outside guest memory");
	}
	p->walked_nr = (uint16_t)nr;
	p->walked_last = last;
	*ret_head = d.id;
	return 0;
}

void packed_take(struct vqueue_info *vq, uint16_t head)
{
	struct vq_priv *priv = vq->vq_priv;
	struct vq_packed *p = &priv->p;
	struct packed_desc *first = &p->copy[p->free];

	priv->slots[head].copy = p->free;
	first->id = head;
	first->nr = p->walked_nr;
	first->last = p->walked_last;
	vq->vq_last_avail = packed_advance(vq, vq->vq_last_avail, first->nr);
	if (p->area)
		packed_inflight_take(vq, first);
	p->free = p->copy[first->last].next;
}

static const struct packed_desc *copy_of(const struct vqueue_info *vq,
					 uint16_t head)
{
	const struct vq_priv *priv = vq->vq_priv;

	return &priv->p.copy[priv->slots[head].copy];
}

static const struct packed_desc *next_copy(const struct vqueue_info *vq,
					   const struct packed_desc *d)
{
	return &vq->vq_priv->p.copy[d->next];
}

int packed_walk_again(struct vqueue_info *vq, uint16_t head, struct vq_chain *c)
{
	const struct packed_desc *first = copy_of(vq, head), *d = first;
	int ret = add(vq, c, d, true);

	for (unsigned n = 1; n < first->nr && ret == 0; n++) {
		d = next_copy(vq, d);
		ret = add(vq, c, d, false);
	}
	return ret;
}

static bool table_is_empty(struct vqueue_info *vq,
			   const struct packed_desc *table)
{
	struct packed_desc d = { 0 };
	void *host;

	if (check_table(vq, table))
		return false;
	host = map_table(vq, table);
	for (uint32_t i = 0; i < table->len / 16; i++) {
		if (fetch_entry(vq, table, host, i, &d) < 0 || d.len > 0)
			return false;
	}
	return true;
}

static bool is_empty(struct vqueue_info *vq, const struct packed_desc *d,
		     bool first)
{
	if (!(d->flags & F_INDIRECT))
		return d->len == 0;
	return first && table_is_empty(vq, d);
}

bool packed_is_empty(struct vqueue_info *vq)
{
	struct vq_packed *p = &vq->vq_priv->p;
	uint16_t pos = vq->vq_last_avail;
	struct packed_desc d = p->head;

	for (unsigned nr = 0; nr < vq->vq_priv->nr; nr++) {
		if (!is_empty(vq, &d, nr == 0))
			return false;
		if (!(d.flags & F_NEXT))
			return true;
		pos = packed_advance(vq, pos, 1);
		if (fetch(vq, p->ring, vq->vq_desc_gpa, slot_at(pos), &d) < 0)
			return false;
	}
	return false;
}

int packed_peek_head(struct vqueue_info *vq, uint16_t *ret_head)
{
	struct vq_packed *p = &vq->vq_priv->p;
	uint16_t pos = vq->vq_last_avail;
	struct packed_desc d = p->head;
	int ret = 0;

	for (unsigned nr = 1; (d.flags & F_NEXT) && ret == 0; nr++) {
		if (nr == vq->vq_priv->nr)
			return -EPROTO;
		pos = packed_advance(vq, pos, 1);
		ret = fetch(vq, p->ring, vq->vq_desc_gpa, slot_at(pos), &d);
	}
	*ret_head = d.id;
	return ret;
}

bool packed_was_empty(struct vqueue_info *vq, uint16_t head)
{
	const struct packed_desc *first = copy_of(vq, head), *d = first;

	for (unsigned n = 0; n < first->nr; n++, d = next_copy(vq, d)) {
		if (!is_empty(vq, d, n == 0))
			return false;
	}
	return true;
}

/*
 * --- Used ---
 */

static uint64_t slot_gpa(struct vqueue_info *vq, uint16_t pos)
{
	return vq->vq_desc_gpa + 16ull * slot_at(pos);
}

static int store_id(struct vqueue_info *vq, uint16_t pos, uint16_t id,
		    uint32_t len)
{
	struct {
		le32 len;
		le16 id;
	} part = { cpu_to_le32(len), cpu_to_le16(id) };
	struct vq_packed *p = &vq->vq_priv->p;
	const size_t off = offsetof(struct desc, len);
	const size_t bytes =
		offsetof(struct desc, flags) - offsetof(struct desc, len);

	if (p->ring) {
		memcpy((char *)p->ring + 16ull * slot_at(pos) + off, &part,
		       bytes);
		return 0;
	}
	return gm_write(gmem_of(vq), (gpa_t){ slot_gpa(vq, pos) + off }, &part,
			bytes);
}

/*
 * The last store to a slot. Release order: the driver that sees the flags sees
 * id and length (2.8.15).
 */
static int store_flags(struct vqueue_info *vq, uint16_t pos, uint16_t flags)
{
	struct vq_packed *p = &vq->vq_priv->p;
	le16 v = cpu_to_le16(flags);

	if (p->ring) {
		le16_store_release(flags_of(p->ring, slot_at(pos)), flags);
		gm_mark(gmem_of(vq), (gpa_t){ slot_gpa(vq, pos) },
			sizeof(struct desc));
		return 0;
	}
	return gm_write(
		gmem_of(vq),
		(gpa_t){ slot_gpa(vq, pos) + offsetof(struct desc, flags) }, &v,
		sizeof(v));
}

/*
 * The driver reads used descriptors in order: a batch becomes visible with the
 * flags of its first one, which are stored last.
 */
int packed_push_used(struct vqueue_info *vq, uint16_t head, uint32_t len)
{
	struct vq_priv *priv = vq->vq_priv;
	struct vq_packed *p = &priv->p;
	uint16_t i = priv->slots[head].copy;
	struct packed_desc *first = &p->copy[i];
	uint16_t pos = vq->vq_next_used;
	uint16_t flags = (uint16_t)((pos & PACKED_WRAP ? F_AVAIL | F_USED : 0) |
				    (len > 0 ? F_WRITE : 0));
	int ret = store_id(vq, pos, head, len);

	if (ret == 0 && p->batch != PACKED_NONE)
		ret = store_flags(vq, pos, flags);
	if (ret < 0)
		return ret;
	if (p->batch == PACKED_NONE) {
		p->publish_at = pos;
		p->publish_flags = flags;
		p->batch_last = first->last;
	}
	p->copy[first->last].next = p->batch;
	p->batch = i;
	p->nr_unsignalled += first->nr;
	vq->vq_next_used = packed_advance(vq, pos, first->nr);
	return 0;
}

/*
 * A process that died between push and publish left slots after the first that
 * look used, although none are.
 */
void packed_hide_used(struct vqueue_info *vq)
{
	unsigned nr = packed_distance(vq, vq->vq_next_used, vq->vq_last_avail);
	uint16_t pos = vq->vq_next_used;

	for (; nr > 0; nr--, pos = packed_advance(vq, pos, 1))
		store_flags(vq, pos, pos & PACKED_WRAP ? F_AVAIL : F_USED);
}

int packed_publish_used(struct vqueue_info *vq)
{
	struct vq_packed *p = &vq->vq_priv->p;
	int ret;

	if (p->batch == PACKED_NONE)
		return 0;
	if (p->area)
		packed_inflight_use(vq);
	ret = store_flags(vq, p->publish_at, p->publish_flags);
	if (ret < 0)
		return ret;
	if (p->area)
		packed_inflight_publish(vq);
	p->copy[p->batch_last].next = p->free;
	p->free = p->batch;
	p->batch = PACKED_NONE;
	return 0;
}

/* The chain was checked when it was taken; its table may have changed. */
static uint32_t mark_table(struct vqueue_info *vq,
			   const struct packed_desc *table, uint32_t len)
{
	struct packed_desc d = { 0 };
	void *host;

	if (check_table(vq, table))
		return 0;
	host = map_table(vq, table);
	for (uint32_t i = 0; i < table->len / 16 && len > 0; i++) {
		uint32_t part;

		if (fetch_entry(vq, table, host, i, &d) < 0)
			return 0;
		part = !(d.flags & F_WRITE) ? 0 : d.len < len ? d.len : len;
		gm_mark(gmem_of(vq), (gpa_t){ d.addr }, part);
		len -= part;
	}
	return len;
}

void packed_mark(struct vqueue_info *vq, uint16_t head, uint32_t len)
{
	const struct packed_desc *first = copy_of(vq, head), *d = first;

	for (unsigned n = first->nr; n > 0 && len > 0; n--) {
		uint32_t part = d->len < len ? d->len : len;

		if (d->flags & F_INDIRECT) {
			len = mark_table(vq, d, len);
		} else if (d->flags & F_WRITE) {
			gm_mark(gmem_of(vq), (gpa_t){ d->addr }, part);
			len -= part;
		}
		if (n > 1)
			d = next_copy(vq, d);
	}
}

int packed_take_left(struct vqueue_info *vq, const struct packed_desc *descs)
{
	struct vq_priv *priv = vq->vq_priv;
	struct vq_packed *p = &priv->p;
	uint16_t first = p->free, i = first, last = first;
	unsigned nr = descs[0].nr;

	for (unsigned n = 0; n < nr; n++) {
		if (i == PACKED_NONE || descs[0].id >= priv->nr)
			return -EINVAL;
		last = i;
		i = p->copy[last].next;
		p->copy[last] = descs[n];
		p->copy[last].next = i;
	}
	p->copy[first].last = last;
	priv->slots[descs[0].id].copy = first;
	p->free = i;
	return 0;
}

/*
 * --- Notifications, 2.8.10 ---
 */

static int load_driver_event(struct vqueue_info *vq, uint32_t *ret_event)
{
	struct vq_packed *p = &vq->vq_priv->p;
	le32 v;
	int ret;

	/* Offset and flags in one load: the driver may be changing both. */
	if (p->driver_event) {
		*ret_event = le32_load(p->driver_event);
		return 0;
	}
	ret = gm_read(gmem_of(vq), (gpa_t){ vq->vq_avail_gpa }, &v, sizeof(v));
	if (ret == 0)
		*ret_event = le32_to_cpu(v);
	return ret;
}

/* Whether the last @nr used slots include the one that the driver named. */
static bool is_passed(struct vqueue_info *vq, uint16_t event, uint32_t nr)
{
	uint16_t new = vq->vq_next_used;
	uint16_t off = slot_at(event);

	if (off >= vq->vq_priv->nr || nr >= vq->vq_priv->nr)
		return true;
	if ((event ^ new) & PACKED_WRAP)
		off = (uint16_t)(off - vq->vq_priv->nr);
	return (uint16_t)(slot_at(new) - off - 1) < nr;
}

bool packed_wants_interrupt(struct vqueue_info *vq)
{
	struct vq_priv *priv = vq->vq_priv;
	uint32_t nr = priv->p.nr_unsignalled, event = 0;

	priv->p.nr_unsignalled = 0;
	/*
	 * The used descriptor is stored before the driver event is read; the
	 * driver stores its event before it reads the descriptor (2.8.21.3.1).
	 */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (load_driver_event(vq, &event) < 0)
		return true;
	switch (event >> EVENT_SHIFT & EVENT_FLAGS) {
	case EVENT_DISABLE:
		return false;
	case EVENT_DESC:
		return !priv->event_idx || is_passed(vq, (uint16_t)event, nr);
	default:
		return true;
	}
}

/* In one store, so that the offset does not follow the flags (2.8.10). */
void packed_set_kicks(struct vqueue_info *vq, bool on)
{
	struct vq_priv *priv = vq->vq_priv;
	uint32_t event = EVENT_DISABLE << EVENT_SHIFT;
	le32 v;

	if (on && priv->event_idx)
		event = EVENT_DESC << EVENT_SHIFT | vq->vq_last_avail;
	else if (on)
		event = EVENT_ENABLE;
	v = cpu_to_le32(event);
	if (priv->p.device_event) {
		le32_store(priv->p.device_event, event);
		gm_mark(gmem_of(vq), (gpa_t){ vq->vq_used_gpa }, sizeof(v));
	} else {
		gm_write(gmem_of(vq), (gpa_t){ vq->vq_used_gpa }, &v,
			 sizeof(v));
	}
}

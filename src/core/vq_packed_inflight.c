/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Chains in flight of a packed ring, recorded in memory that survives this
 * process: vhost-user's in-flight area for packed rings.
 *
 *	header	free and used positions, now and before the current batch
 *	entry	one for each descriptor that can be in flight: a copy of it, and
 *		for a chain's first one, whether the chain is in flight, and its
 *		age
 *
 * struct vq_packed has the same entries in the same lists; this is a second
 * copy of them. A batch is linked to the free entries, and the used position
 * moved, before the driver sees it; the old values follow once it does. After a
 * kill between the two, the ring itself tells whether it did. Chains before the
 * used position have completed, and those from there to the available one are
 * in flight: so the area gives both positions.
 *
 * Driver and front-end may write whatever they like here: each number is
 * loaded once, and none is trusted.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/core.h"

#define VERSION 1

struct packed_entry {
	uint8_t inflight;
	uint8_t padding;
	uint16_t next;
	uint16_t last;
	uint16_t num;
	uint64_t counter;
	uint16_t id;
	uint16_t flags;
	uint32_t len;
	uint64_t addr;
};
static_assert(sizeof(struct packed_entry) == 32, "vhost-user protocol");

struct packed_area {
	uint64_t features;
	uint16_t version;
	uint16_t desc_num;
	uint16_t free_head, old_free_head;
	uint16_t used_idx, old_used_idx;
	uint8_t used_wrap, old_used_wrap;
	uint8_t padding[10];
	struct packed_entry entries[];
};
static_assert(sizeof(struct packed_area) == 32, "vhost-user protocol");

size_t packed_inflight_bytes(unsigned size)
{
	return sizeof(struct packed_area) + size * sizeof(struct packed_entry);
}

/* The area is read after this process died: only the compiler can reorder. */
static void barrier(void)
{
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
}

/*
 * --- In operation ---
 */

void packed_inflight_take(struct vqueue_info *vq, const struct packed_desc *d)
{
	struct vq_packed *p = &vq->vq_priv->p;
	volatile struct packed_area *area = p->area;
	volatile struct packed_entry *head = &area->entries[d - p->copy];
	unsigned nr = d->nr;

	head->num = d->nr;
	head->last = d->last;
	head->counter = p->counter++;
	for (;; d = &p->copy[d->next]) {
		volatile struct packed_entry *e = &area->entries[d - p->copy];

		e->addr = d->addr;
		e->len = d->len;
		e->flags = d->flags;
		e->id = d->id;
		if (--nr == 0)
			break;
	}
	area->free_head = d->next;
	barrier();
	area->old_free_head = d->next;
	head->inflight = 1;
}

void packed_inflight_use(struct vqueue_info *vq)
{
	struct vq_packed *p = &vq->vq_priv->p;
	volatile struct packed_area *area = p->area;
	uint16_t used = vq->vq_next_used;

	for (uint16_t i = p->batch; i != PACKED_NONE;) {
		uint16_t last = p->copy[i].last, next = p->copy[last].next;

		area->entries[last].next = next == PACKED_NONE ? p->free : next;
		i = next;
	}
	area->free_head = p->batch;
	area->used_idx = used & (uint16_t)~PACKED_WRAP;
	area->used_wrap = used & PACKED_WRAP ? 1 : 0;
	barrier();
}

void packed_inflight_publish(struct vqueue_info *vq)
{
	struct vq_packed *p = &vq->vq_priv->p;
	volatile struct packed_area *area = p->area;

	barrier();
	for (uint16_t i = p->batch; i != PACKED_NONE;
	     i = p->copy[p->copy[i].last].next)
		area->entries[i].inflight = 0;
	barrier();
	area->old_free_head = p->batch;
	area->old_used_idx = area->used_idx;
	area->old_used_wrap = area->used_wrap;
}

/*
 * --- Start ---
 */

static void init_area(struct vqueue_info *vq)
{
	volatile struct packed_area *area = vq->vq_priv->p.area;

	area->features = 0;
	area->desc_num = vq->vq_priv->nr;
	for (unsigned i = 0; i < vq->vq_priv->nr; i++)
		area->entries[i].inflight = 0;
}

static uint16_t position(uint16_t idx, uint8_t wrap)
{
	return (uint16_t)(idx | (wrap & 1 ? PACKED_WRAP : 0));
}

/*
 * Whether the batch that ends at the used position was published. It was if its
 * first slot is no longer as the driver made it available.
 */
static int was_published(struct vqueue_info *vq, uint16_t old, bool *ret_was)
{
	uint16_t avail = vq->vq_last_avail;
	int ret;

	vq->vq_last_avail = old;
	ret = packed_peek(vq);
	vq->vq_last_avail = avail;
	if (ret >= 0)
		*ret_was = ret == 0;
	return ret < 0 ? ret : 0;
}

/* Complete or undo the last batch. */
static int settle(struct vqueue_info *vq, uint16_t *ret_free)
{
	volatile struct packed_area *area = vq->vq_priv->p.area;
	uint16_t old = position(area->old_used_idx, area->old_used_wrap);
	uint16_t new = position(area->used_idx, area->used_wrap);
	const uint16_t slot = (uint16_t)~PACKED_WRAP;
	bool published = false;
	int ret = 0;

	if ((old & slot) >= vq->vq_priv->nr || (new &slot) >= vq->vq_priv->nr)
		return -EINVAL;
	if (new != old)
		ret = was_published(vq, old, &published);
	*ret_free = published ? area->free_head : area->old_free_head;
	vq->vq_next_used = vq->vq_save_used = published ? new : old;
	return ret;
}

/* An entry in the free list is not in flight, whatever it says. */
static void clear_free(struct vqueue_info *vq, uint16_t i)
{
	volatile struct packed_area *area = vq->vq_priv->p.area;

	for (unsigned n = 0; i < vq->vq_priv->nr && n < vq->vq_priv->nr; n++) {
		area->entries[i].inflight = 0;
		i = area->entries[i].next;
	}
}

/* Load a chain from the area into the copies at the same places. */
static int load_chain(struct vqueue_info *vq, uint16_t head, bool *claimed)
{
	struct vq_priv *priv = vq->vq_priv;
	volatile struct packed_area *area = priv->p.area;
	struct packed_desc *first = &priv->p.copy[head];
	uint16_t nr = area->entries[head].num, i = head, last = head;

	if (nr == 0 || nr > priv->nr)
		return -EINVAL;
	for (unsigned n = 0; n < nr; n++) {
		volatile struct packed_entry *e;

		if (i >= priv->nr || claimed[i])
			return -EINVAL;
		claimed[i] = true;
		last = i;
		e = &area->entries[i];
		i = e->next;
		priv->p.copy[last] = (struct packed_desc){
			.addr = e->addr,
			.len = e->len,
			.flags = e->flags,
			.id = e->id,
			.next = i,
		};
	}
	first->id = priv->p.copy[last].id;
	first->nr = nr;
	first->last = last;
	return first->id < priv->nr ? 0 : -EINVAL;
}

struct found {
	uint64_t counter;
	uint16_t head;
};

static int by_age(const void *a, const void *b)
{
	const struct found *x = a, *y = b;

	return (x->counter > y->counter) - (x->counter < y->counter);
}

static unsigned find_inflight(struct vqueue_info *vq, struct found *found)
{
	volatile struct packed_area *area = vq->vq_priv->p.area;
	unsigned nr = 0;

	for (unsigned i = 0; i < vq->vq_priv->nr; i++) {
		if (area->entries[i].inflight)
			found[nr++] = (struct found){ area->entries[i].counter,
						      (uint16_t)i };
	}
	qsort(found, nr, sizeof(*found), by_age);
	return nr;
}

/* Chains in flight are taken again, before all others, oldest first. */
static int resubmit(struct vqueue_info *vq, struct found *found, bool *claimed,
		    bool *ids)
{
	struct vq_priv *priv = vq->vq_priv;
	unsigned nr = find_inflight(vq, found), slots = 0;

	for (unsigned n = 0; n < nr; n++) {
		const struct packed_desc *d = &priv->p.copy[found[n].head];
		int ret = load_chain(vq, found[n].head, claimed);

		if (ret < 0)
			return ret;
		if (ids[d->id])
			return -EINVAL;
		ids[d->id] = true;
		priv->slots[d->id].copy = found[n].head;
		vq_add_returned(vq, d->id);
		slots += d->nr;
	}
	priv->p.counter = nr ? found[nr - 1].counter + 1 : 0;
	vq->vq_last_avail = packed_advance(vq, vq->vq_next_used, slots);
	packed_hide_used(vq);
	return 0;
}

/* Link all entries that are not in flight into the free list. */
static void rebuild_free(struct vqueue_info *vq, const bool *claimed)
{
	struct vq_packed *p = &vq->vq_priv->p;

	p->free = PACKED_NONE;
	for (unsigned i = vq->vq_priv->nr; i-- > 0;) {
		if (claimed[i])
			continue;
		p->copy[i].next = p->free;
		p->area->entries[i].next = p->free;
		p->free = (uint16_t)i;
	}
	p->area->free_head = p->free;
	p->area->old_free_head = p->free;
	p->area->used_idx = p->area->old_used_idx =
		vq->vq_next_used & (uint16_t)~PACKED_WRAP;
	p->area->used_wrap = p->area->old_used_wrap =
		vq->vq_next_used & PACKED_WRAP ? 1 : 0;
}

static int recover(struct vqueue_info *vq)
{
	unsigned nr = vq->vq_priv->nr;
	struct found *found = calloc(nr, sizeof(*found));
	bool *seen = calloc(2 * nr, sizeof(*seen)); /* entries, and ids */
	int ret =
		found && seen ? resubmit(vq, found, seen, seen + nr) : -ENOMEM;

	if (ret == 0)
		rebuild_free(vq, seen);
	free(found);
	free(seen);
	return ret;
}

int packed_inflight_start(struct vqueue_info *vq, void *mem)
{
	struct vq_packed *p = &vq->vq_priv->p;
	volatile struct packed_area *area = mem;
	uint16_t version = area->version, free_head;
	int ret = 0;

	if (version != 0 && version != VERSION)
		return -EINVAL;
	p->area = area;
	if (version == 0) {
		init_area(vq);
	} else {
		ret = settle(vq, &free_head);
		if (ret == 0)
			clear_free(vq, free_head);
	}
	if (ret == 0)
		ret = recover(vq);
	barrier();
	if (ret == 0)
		area->version = VERSION;
	else
		p->area = NULL;
	return ret;
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The split virtqueue in memory (virtio 2.7).
 *
 *	descriptors   N x { addr, len, flags, next }        driver writes
 *	available     flags idx ring[N] used_event          driver writes
 *	used          flags idx ring[N] avail_event         device writes
 *
 * used_event and avail_event exist only with EVENT_IDX. Anything in the ring
 * can change at any moment: it is loaded once and only the copy is used.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "core/core.h"

#define AVAIL_FLAGS 0
#define AVAIL_IDX   2
#define AVAIL_RING  4
#define USED_FLAGS  0
#define USED_IDX    2
#define USED_RING   4

struct desc {
	le64 addr;
	le32 len;
	le16 flags;
	le16 next;
};
static_assert(sizeof(struct desc) == 16, "2.7.5");

struct used_elem {
	le32 id;
	le32 len;
};
static_assert(sizeof(struct used_elem) == 8, "2.7.8");

static struct gmem *gmem_of(struct vqueue_info *vq)
{
	return vq->vq_priv->gmem;
}

static uint64_t desc_bytes(struct vqueue_info *vq)
{
	return 16ull * vq->vq_priv->nr;
}

/* Without EVENT_IDX there is no trailer, and a ring may end where RAM ends. */
static uint64_t avail_bytes(struct vqueue_info *vq)
{
	struct vq_priv *priv = vq->vq_priv;

	return 4 + 2ull * priv->nr + (priv->event_idx ? 2 : 0);
}

static uint64_t used_bytes(struct vqueue_info *vq)
{
	struct vq_priv *priv = vq->vq_priv;

	return 4 + 8ull * priv->nr + (priv->event_idx ? 2 : 0);
}

int split_map(struct vqueue_info *vq)
{
	const struct vq_part parts[3] = {
		{ "descriptor table", vq->vq_desc_gpa, desc_bytes(vq), 16,
		  GM_READ },
		{ "available ring", vq->vq_avail_gpa, avail_bytes(vq), 2,
		  GM_READ },
		{ "used ring", vq->vq_used_gpa, used_bytes(vq), 4,
		  GM_READ | GM_WRITE },
	};
	int ret = vq_check_parts(vq, parts);

	if (ret == 0)
		split_remap(vq);
	return ret;
}

void split_remap(struct vqueue_info *vq)
{
	struct gmem *gm = gmem_of(vq);

	vq->vq_desc =
		gm_map(gm, (gpa_t){ vq->vq_desc_gpa }, desc_bytes(vq), GM_READ);
	vq->vq_avail = gm_map(gm, (gpa_t){ vq->vq_avail_gpa }, avail_bytes(vq),
			      GM_READ);
	vq->vq_used = gm_map(gm, (gpa_t){ vq->vq_used_gpa }, used_bytes(vq),
			     GM_READ | GM_WRITE);
	vq->vq_priv->gen = gm->gen;
}

static int avail_load(struct vqueue_info *vq, uint64_t off, uint16_t *ret_val)
{
	le16 v;
	int ret;

	if (vq->vq_avail) {
		const void *p = (const char *)vq->vq_avail + off;

		*ret_val = le16_load_acquire(p);
		return 0;
	}
	ret = gm_read(gmem_of(vq), (gpa_t){ vq->vq_avail_gpa + off }, &v,
		      sizeof(v));
	if (ret == 0)
		*ret_val = le16_to_cpu(v);
	return ret;
}

static int used_store(struct vqueue_info *vq, uint64_t off, uint16_t val)
{
	le16 v = cpu_to_le16(val);

	if (vq->vq_used) {
		void *p = (char *)vq->vq_used + off;

		le16_store_release(p, val);
		gm_mark(gmem_of(vq), (gpa_t){ vq->vq_used_gpa + off },
			sizeof(v));
		return 0;
	}
	return gm_write(gmem_of(vq), (gpa_t){ vq->vq_used_gpa + off }, &v,
			sizeof(v));
}

/*
 * Pairs with the driver's barrier between filling entries and moving idx
 * (2.7.13.3): those entries are visible after this.
 */
int split_avail_idx(struct vqueue_info *vq, uint16_t *ret_idx)
{
	return avail_load(vq, AVAIL_IDX, ret_idx);
}

int split_avail_head(struct vqueue_info *vq, uint16_t pos, uint16_t *ret_head)
{
	unsigned slot = pos & (vq->vq_priv->nr - 1u);

	return avail_load(vq, AVAIL_RING + 2ull * slot, ret_head);
}

/*
 * Copy a descriptor out. The barrier keeps the compiler from reading a value
 * again from shared memory after it was checked.
 */
static int fetch(struct vqueue_info *vq, const void *table, uint64_t gpa,
		 uint32_t i, struct desc *ret_desc)
{
	uint64_t off = 16ull * i;

	if (!table)
		return gm_read(gmem_of(vq), (gpa_t){ gpa + off }, ret_desc,
			       sizeof(*ret_desc));
	memcpy(ret_desc, (const char *)table + off, sizeof(*ret_desc));
	__asm__ volatile("" ::: "memory");
	return 0;
}

/* A walk along a chain. */
struct walk {
	struct vqueue_info *vq;
	const void *table; /* the queue's, or an indirect one; NULL: unmapped */
	uint64_t gpa;
	uint32_t nr; /* entries of the table */
	uint32_t i;  /* the chain's next entry, */
	bool end;    /* unless the chain ends */
	uint32_t steps;
	uint32_t indirect_left; /* entries that tables may still have */
	bool indirect;
	bool returns;         /* the chain continues in the queue's table, */
	uint32_t return_i;    /* at this entry, */
	uint32_t steps_there; /* after this many steps */
	const char *why;      /* what is wrong, after -EPROTO */
};

static struct walk walk_from(struct vqueue_info *vq, uint16_t head)
{
	return (struct walk){
		.vq = vq,
		.table = vq->vq_desc,
		.gpa = vq->vq_desc_gpa,
		.nr = vq->vq_priv->nr,
		.i = head,
		.indirect_left = VQ_MAX_INDIRECT,
	};
}

static int wrong(struct walk *w, const char *why)
{
	w->why = why;
	return -EPROTO;
}

/*
 * A legacy driver may have a table in the middle of a chain; a modern driver
 * must end the chain with it (2.7.5.3.1).
 */
static int enter_indirect(struct walk *w, const struct desc *d)
{
	struct vqueue_info *vq = w->vq;
	uint32_t len = le32_to_cpu(d->len);
	bool returns = le16_to_cpu(d->flags) & VRING_DESC_F_NEXT;

	if (w->indirect)
		return wrong(w, "nested indirect table");
	if (returns && vi_is_modern(vq->vq_vs))
		return wrong(w, "INDIRECT and NEXT together");
	if (!(vq->vq_vs->vs_negotiated_caps &
	      VI_BIT(VIRTIO_RING_F_INDIRECT_DESC)))
		return wrong(w, "INDIRECT not negotiated");
	if (len == 0 || len % 16)
		return wrong(w, "indirect table length not a multiple of the "
				"descriptor size");
	if (len / 16 > w->indirect_left)
		return wrong(w, "indirect table too long");
	w->gpa = le64_to_cpu(d->addr);
	if (gm_check(gmem_of(vq), (gpa_t){ w->gpa }, len, GM_READ) < 0)
		return wrong(w, "indirect table outside guest memory");
	w->table = gm_map(gmem_of(vq), (gpa_t){ w->gpa }, len, GM_READ);
	w->returns = returns;
	w->return_i = le16_to_cpu(d->next);
	w->steps_there = w->steps;
	w->nr = len / 16;
	w->indirect_left -= w->nr;
	w->i = w->steps = 0;
	w->indirect = true;
	return 0;
}

/* Return from an indirect table to the queue's. False: the chain ends here. */
static bool leave_indirect(struct walk *w)
{
	if (!w->returns)
		return false;
	w->table = w->vq->vq_desc;
	w->gpa = w->vq->vq_desc_gpa;
	w->nr = w->vq->vq_priv->nr;
	w->i = w->return_i;
	w->steps = w->steps_there;
	w->indirect = w->returns = w->end = false;
	return true;
}

/*
 * The next descriptor that names a buffer: 1, or 0 at the chain's end. -EAGAIN
 * when it cannot be read now, -EPROTO when the driver broke a rule. A chain
 * that visits more entries than its table has is a loop.
 */
static inline int walk_next(struct walk *w, struct desc *ret_desc)
{
	uint16_t flags;
	int ret;

	if (w->end && !leave_indirect(w))
		return 0;
	do {
		if (w->i >= w->nr)
			return wrong(
				w, w->indirect ?
					   "index outside the indirect table" :
					   "descriptor index out of range");
		if (w->steps++ == w->nr)
			return wrong(w, w->indirect ? "indirect table loops" :
						      "descriptor chain loops");
		ret = fetch(w->vq, w->table, w->gpa, w->i, ret_desc);
		if (ret == -EAGAIN)
			return ret;
		if (ret < 0)
			return wrong(w, "descriptor outside guest memory");
		flags = le16_to_cpu(ret_desc->flags);
		if (flags & VRING_DESC_F_INDIRECT)
			ret = enter_indirect(w, ret_desc);
		if (ret < 0)
			return ret;
	} while (flags & VRING_DESC_F_INDIRECT);
	w->end = !(flags & VRING_DESC_F_NEXT);
	w->i = le16_to_cpu(ret_desc->next);
	return 1;
}

int split_walk(struct vqueue_info *vq, uint16_t head, struct vq_chain *c)
{
	struct walk w = walk_from(vq, head);
	struct desc d;
	int ret;

	while ((ret = walk_next(&w, &d)) > 0) {
		ret = vq_chain_add(c, le64_to_cpu(d.addr), le32_to_cpu(d.len),
				   le16_to_cpu(d.flags));
		if (ret < 0)
			return ret;
	}
	if (ret == -EPROTO)
		vi_error(vq->vq_vs, "queue %u: %s", vq->vq_num, w.why);
	return ret;
}

bool split_is_empty(struct vqueue_info *vq, uint16_t head)
{
	struct walk w = walk_from(vq, head);
	struct desc d;
	int ret;

	while ((ret = walk_next(&w, &d)) > 0) {
		if (le32_to_cpu(d.len) > 0)
			return false;
	}
	return ret == 0;
}

int split_push_used(struct vqueue_info *vq, uint16_t pos, uint16_t head,
		    uint32_t len)
{
	struct used_elem e = { cpu_to_le32(head), cpu_to_le32(len) };
	uint64_t off = USED_RING + 8ull * (pos & (vq->vq_priv->nr - 1u));

	if (vq->vq_used) {
		memcpy((char *)vq->vq_used + off, &e, sizeof(e));
		gm_mark(gmem_of(vq), (gpa_t){ vq->vq_used_gpa + off },
			sizeof(e));
		return 0;
	}
	return gm_write(gmem_of(vq), (gpa_t){ vq->vq_used_gpa + off }, &e,
			sizeof(e));
}

/* Release order: the driver that sees idx sees the entries (2.7.8.2). */
int split_publish_used(struct vqueue_info *vq, uint16_t idx)
{
	return used_store(vq, USED_IDX, idx);
}

int split_used_idx(struct vqueue_info *vq, uint16_t *ret_idx)
{
	le16 v;
	int ret = gm_read(gmem_of(vq), (gpa_t){ vq->vq_used_gpa + USED_IDX },
			  &v, sizeof(v));

	if (ret == 0)
		*ret_idx = le16_to_cpu(v);
	return ret;
}

/*
 * The chain was checked when it was taken. A driver that has changed it since
 * harms only itself; all that matters here is that the walk ends.
 */
void split_mark(struct vqueue_info *vq, uint16_t head, uint32_t len)
{
	struct walk w = walk_from(vq, head);
	struct desc d;

	while (len > 0 && walk_next(&w, &d) > 0) {
		uint32_t part = le32_to_cpu(d.len);

		if (!(le16_to_cpu(d.flags) & VRING_DESC_F_WRITE))
			continue;
		part = part < len ? part : len;
		gm_mark(gmem_of(vq), (gpa_t){ le64_to_cpu(d.addr) }, part);
		len -= part;
	}
}

bool split_wants_interrupt(struct vqueue_info *vq, uint16_t old, uint16_t new)
{
	struct vq_priv *priv = vq->vq_priv;
	uint16_t v = 0;

	/*
	 * The used index is stored before the driver's flags or event are read;
	 * the driver stores these before it reads the used index (2.7.7.1).
	 */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);

	if (priv->event_idx) {
		if (avail_load(vq, AVAIL_RING + 2ull * priv->nr, &v) < 0)
			return true;
		return (uint16_t)(new - v - 1) < (uint16_t)(new - old);
	}
	if (avail_load(vq, AVAIL_FLAGS, &v) < 0)
		return true;
	return !(v & VRING_AVAIL_F_NO_INTERRUPT);
}

void split_set_kicks(struct vqueue_info *vq, bool on)
{
	struct vq_priv *priv = vq->vq_priv;

	if (priv->event_idx) {
		/* An event that is already past disables kicks (2.7.10.1). */
		if (on)
			used_store(vq, USED_RING + 8ull * priv->nr,
				   vq->vq_last_avail);
	} else {
		used_store(vq, USED_FLAGS, on ? 0 : VRING_USED_F_NO_NOTIFY);
	}
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Virtqueues: the functions that a device model calls. See <viodev/virtio.h>.
 *
 * Ring layouts are in vq_split.c and vq_packed.c. This file has what they have
 * in common: turning buffers into iovecs, tracking chains in flight, and
 * batching.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/core.h"

/*
 * Limits on copies of buffers in memory that is not shared: for a device,
 * including copies held for requests from before a reset; and for a single
 * chain while there is no other.
 */
#define MAX_BOUNCE_BYTES (4u << 20)
#define MAX_BOUNCE_CHAIN (16u << 20)

static struct gmem *gmem_of(struct vqueue_info *vq)
{
	return vq->vq_priv->gmem;
}

static void wake_transport(struct virtio_softc *vs)
{
	vs->vs_priv->transport->wake(vs);
}

/*
 * --- Layouts ---
 */

static const char outside[] = "outside guest memory";

static const char *check_part(struct gmem *gm, const struct vq_part *p)
{
	if (p->gpa % p->align)
		return "is misaligned";
	if (gm_check(gm, (gpa_t){ p->gpa }, p->bytes, p->prot) < 0)
		return outside;
	return NULL;
}

/* Neither range wraps: both were found in guest memory. */
static bool overlap(const struct vq_part *a, const struct vq_part *b)
{
	return a->gpa <= b->gpa + (b->bytes - 1) &&
	       b->gpa <= a->gpa + (a->bytes - 1);
}

int vq_check_parts(struct vqueue_info *vq, const struct vq_part parts[3])
{
	const char *why = NULL;
	unsigned i;

	for (i = 0; i < 3 && !why; i++)
		why = check_part(gmem_of(vq), &parts[i]);
	for (unsigned j = 0; j < i && !why; j++) {
		if (overlap(&parts[j], &parts[(j + 1) % 3]))
			why = "overlaps another ring part";
	}
	if (!why)
		return 0;
	vi_error(vq->vq_vs, "queue %u: %s %s", vq->vq_num, parts[i - 1].name,
		 why);
	if (why == outside)
		vi_suspect_iommu(vq->vq_vs);
	return -EINVAL;
}

/* Entries are counted from here; see vq_add_returned(). */
static uint64_t first_entry(const struct vqueue_info *vq)
{
	return 2ull * vq->vq_priv->nr;
}

static bool is_used(const struct vqueue_info *vq)
{
	return vq->vq_priv->nr_entries != first_entry(vq);
}

/* Restart a queue in this layout. */
static int set_layout(struct vqueue_info *vq, bool packed)
{
	struct vq_priv *priv = vq->vq_priv;

	packed_fini(vq);
	vq->vq_last_avail = vq->vq_next_used = vq->vq_save_used = 0;
	vq->vq_desc = NULL;
	vq->vq_avail = NULL;
	vq->vq_used = NULL;
	priv->packed = packed;
	if (packed && packed_init(vq) < 0) {
		vi_error(vq->vq_vs, "queue %u: out of memory", vq->vq_num);
		return -ENOMEM;
	}
	return 0;
}

/* The layout may change until the enabled queue is used. */
static int change_layout(struct vqueue_info *vq, bool packed)
{
	if (is_used(vq)) {
		vi_error(vq->vq_vs, "queue %u: layout changed while in use",
			 vq->vq_num);
		return -EINVAL;
	}
	return set_layout(vq, packed);
}

int vq_map(struct vqueue_info *vq, uint64_t features)
{
	struct vq_priv *priv = vq->vq_priv;
	bool packed = features & VI_BIT(VIRTIO_F_RING_PACKED);
	int ret = 0;

	if (!packed && (priv->nr & (priv->nr - 1u))) {
		vi_error(vq->vq_vs, "queue %u: size %u is not a power of two",
			 vq->vq_num, priv->nr);
		return -EINVAL;
	}
	if (!(vq->vq_flags & VQ_ALLOC))
		ret = set_layout(vq, packed);
	else if (packed != priv->packed)
		ret = change_layout(vq, packed);
	if (ret < 0)
		return ret;
	priv->event_idx = features & VI_BIT(VIRTIO_RING_F_EVENT_IDX);
	priv->in_order = features & VI_BIT(VIRTIO_F_IN_ORDER);
	return packed ? packed_map(vq) : split_map(vq);
}

static void remap(struct vqueue_info *vq)
{
	if (vq->vq_priv->packed)
		packed_remap(vq);
	else
		split_remap(vq);
}

/*
 * Whether the ring may be accessed: it is set up, the driver is ready (a legacy
 * driver may use queues earlier, 3.1.2), nothing is broken, and DMA is allowed.
 * Updates the mapping after guest memory changed.
 */
static inline bool ring_live(struct vqueue_info *vq)
{
	struct vq_priv *priv = vq->vq_priv;
	struct virtio_softc *vs = vq->vq_vs;

	if (!(vq->vq_flags & VQ_ALLOC) || (vs->vs_flags & VIRTIO_BROKEN) ||
	    priv->dma_off)
		return false;
	if ((vq->vq_flags & VQ_ENABLED) &&
	    !(vs->vs_status & VIRTIO_CONFIG_STATUS_DRIVER_OK))
		return false;
	if (priv->gen != gmem_of(vq)->gen)
		remap(vq);
	return true;
}

/* Whether chains may be taken: not while the queue is stopping. */
static bool may_take(struct vqueue_info *vq)
{
	struct vq_priv *priv = vq->vq_priv;

	return ring_live(vq) && !priv->paused && !priv->resting;
}

/* An access to the ring itself failed: the driver removed its memory. */
static int ring_failed(struct vqueue_info *vq, int ret)
{
	if (ret == -EAGAIN)
		return 0;
	vi_error(vq->vq_vs, "queue %u: ring outside guest memory", vq->vq_num);
	return -1;
}

static int resume_split(struct vqueue_info *vq, uint16_t avail, bool recorded)
{
	uint16_t used;
	int ret = split_used_idx(vq, &used);

	if (ret < 0)
		return ring_failed(vq, ret);
	if (!recorded && (uint16_t)(avail - used) > vq->vq_priv->nr) {
		vi_error(vq->vq_vs,
			 "queue %u: used index %u does not match entry %u",
			 vq->vq_num, used, avail);
		return -1;
	}
	vq->vq_last_avail = avail;
	vq->vq_next_used = vq->vq_save_used = used;
	return 0;
}

static int resume_packed(struct vqueue_info *vq, uint16_t avail, uint16_t used)
{
	unsigned nr = vq->vq_priv->nr;

	if ((avail & ~PACKED_WRAP) >= nr || (used & ~PACKED_WRAP) >= nr ||
	    packed_distance(vq, used, avail) > nr) {
		vi_error(vq->vq_vs,
			 "queue %u: used position 0x%04x does not match the "
			 "available one 0x%04x",
			 vq->vq_num, used, avail);
		return -1;
	}
	vq->vq_last_avail = avail;
	vq->vq_next_used = vq->vq_save_used = used;
	return 0;
}

void vq_resume(struct vqueue_info *vq, uint32_t base, bool recorded)
{
	uint16_t avail = (uint16_t)base;
	int ret;

	if (!ring_live(vq))
		return;
	if (vq->vq_priv->packed)
		ret = resume_packed(vq, avail, (uint16_t)(base >> 16));
	else
		ret = resume_split(vq, avail, recorded);
	if (ret == 0)
		vq_kick_enable(vq); /* a predecessor may have left them off */
}

/*
 * --- Chains in flight ---
 *
 * A chain in flight pins the memory that it uses. After a reset it is stale:
 * its memory stays pinned until the model returns it, but the new driver does
 * not see it, and no chain with the same head is taken meanwhile. So models may
 * find their requests by head, whenever those end.
 */

static void bounce_free(struct virtio_softc *vs, struct vq_bounce *b)
{
	while (b) {
		struct vq_bounce *next = b->next;

		vs->vs_priv->bounce_bytes -= sizeof(*b) + b->len;
		free(b);
		b = next;
	}
}

static struct vq_slot *slot_of(struct vqueue_info *vq, uint16_t head)
{
	struct vq_priv *priv = vq->vq_priv;

	return head < priv->nr_slots ? &priv->slots[head] : NULL;
}

/* Pin a chain's memory. -EAGAIN: not until other chains pin less. */
static int slot_pin(struct vqueue_info *vq, struct vq_slot *slot)
{
	if (gm_pin(gmem_of(vq), &slot->pins) == 0)
		return 0;
	vq->vq_vs->vs_priv->room_wanted = true;
	return -EAGAIN;
}

/* Unpin a chain's memory. True: the embedder is waiting for that. */
static inline bool slot_unpin(struct vqueue_info *vq, struct vq_slot *slot)
{
	return gm_unpin(gmem_of(vq), &slot->pins);
}

static inline bool slot_free(struct vqueue_info *vq, struct vq_slot *slot)
{
	struct virtio_softc *vs = vq->vq_vs;
	bool wanted =
		(slot->bounce || slot->pins.more) && vs->vs_priv->room_wanted;

	if (wanted)
		vs->vs_priv->room_wanted = false;
	bounce_free(vs, slot->bounce);
	slot->bounce = NULL;
	return slot_unpin(vq, slot) || wanted;
}

/* Forget a chain that was taken. */
static inline void slot_release(struct vqueue_info *vq, struct vq_slot *slot)
{
	struct vq_priv *priv = vq->vq_priv;
	bool wake = priv->blocked;

	if (slot->done)
		priv->nr_done--;
	slot->busy = slot->done = false;
	priv->nr_inflight--;
	wake |= priv->paused && priv->nr_inflight == 0;
	wake |= priv->dma_off;
	wake |= slot_free(vq, slot);
	priv->blocked = false;
	if (wake)
		wake_transport(vq->vq_vs);
}

/* A chain from before the last reset has returned. */
static void slot_release_stale(struct vqueue_info *vq, struct vq_slot *slot)
{
	struct vq_priv *priv = vq->vq_priv;
	struct virtio_softc *vs = vq->vq_vs;
	bool wake = priv->blocked;

	slot->stale = false;
	vs->vs_priv->nr_stale--;
	vs->vs_priv->nr_foreign -= slot->foreign;
	priv->nr_stale -= !slot->foreign;
	slot->foreign = false;
	if (vi_is_reset(vs))
		vs->vs_priv->transport->reset_done(vs);
	wake |= vi_is_reset(vs) || vs->vs_priv->nr_stale == 0;
	wake |= slot_free(vq, slot);
	priv->blocked = false;
	if (wake)
		wake_transport(vs);
}

int vq_slots_init(struct vqueue_info *vq)
{
	struct vq_priv *priv = vq->vq_priv;

	unsigned nr = 1;

	while (nr < priv->nr)
		nr *= 2;
	priv->mask = (uint16_t)(nr - 1);
	if (priv->nr_slots < nr) {
		void *p = reallocarray(priv->slots, nr, sizeof(*priv->slots));

		if (!p)
			return -ENOMEM;
		priv->slots = p;
		memset(&priv->slots[priv->nr_slots], 0,
		       (nr - priv->nr_slots) * sizeof(*priv->slots));
		priv->nr_slots = nr;
	}
	priv->nr_entries = first_entry(vq);
	return 0;
}

uint64_t vi_chain_bytes(const struct virtio_softc *vs)
{
	uint64_t nr = 0;

	for (int i = 0; i < vi_max_queues(vs); i++)
		nr += vs->vs_queues[i].vq_qsize;
	return nr * (sizeof(struct vq_slot) + sizeof(struct packed_desc) +
		     VQ_INFLIGHT_BYTES);
}

void vq_slots_forget(struct vqueue_info *vq)
{
	struct vq_priv *priv = vq->vq_priv;
	unsigned nr_stale = 0;

	vq_inflight_stop(vq);
	packed_fini(vq);
	for (unsigned i = 0; i < priv->nr_slots; i++) {
		struct vq_slot *slot = &priv->slots[i];

		if (slot->busy && slot->done) /* it has completed */
			slot_release(vq, slot);
		vq->vq_vs->vs_priv->nr_stale += slot->busy;
		priv->nr_stale += slot->busy;
		slot->stale |= slot->busy;
		slot->busy = false;
		nr_stale += slot->stale;
	}
	priv->nr_inflight = priv->nr_taken = priv->nr_returned = 0;
	priv->blocked = priv->paused = priv->any_done = false;
	if (nr_stale > 0)
		return;
	free(priv->slots);
	priv->slots = NULL;
	priv->nr_slots = 0;
}

void vq_slots_disown(struct vqueue_info *vq)
{
	struct vq_priv *priv = vq->vq_priv;

	for (unsigned i = 0; i < priv->nr_slots; i++) {
		struct vq_slot *slot = &priv->slots[i];

		vq->vq_vs->vs_priv->nr_foreign += slot->stale && !slot->foreign;
		slot->foreign = slot->stale;
	}
	priv->nr_stale = 0;
}

void vq_slots_fini(struct vqueue_info *vq)
{
	struct vq_priv *priv = vq->vq_priv;

	vq_slots_forget(vq);
	for (unsigned i = 0; i < priv->nr_slots; i++) {
		if (priv->slots[i].stale)
			slot_release_stale(vq, &priv->slots[i]);
	}
	free(priv->slots);
	priv->slots = NULL;
	priv->nr_slots = 0;
}

bool vq_chain_live(struct vqueue_info *vq, uint16_t idx)
{
	const struct vq_slot *slot = slot_of(vq, idx);

	return slot && slot->busy && !(vq->vq_vs->vs_flags & VIRTIO_BROKEN);
}

/*
 * --- Collecting a chain ---
 */

int vq_bad_chain(struct vq_chain *c, const char *why)
{
	vi_error(c->vq->vq_vs, "queue %u: %s", c->vq->vq_num, why);
	return -EPROTO;
}

/* Whether a copy of @bytes fits: 0; -E2BIG; -EAGAIN: not yet. */
static int bounce_room(struct vq_chain *c, size_t bytes)
{
	struct virtio_softc *vs = c->vq->vq_vs;

	if (c->bounce_bytes + bytes > MAX_BOUNCE_CHAIN)
		return -E2BIG;
	if (vs->vs_priv->bounce_bytes + bytes <= MAX_BOUNCE_BYTES ||
	    vs->vs_priv->bounce_bytes == c->bounce_bytes)
		return 0;
	vs->vs_priv->room_wanted = true;
	return -EAGAIN;
}

/* Append a copy of a buffer that cannot be mapped. Returns 1 iovec. */
static int add_bounce(struct vq_chain *c, gpa_t a, uint32_t len, bool writable,
		      struct iovec *iov)
{
	struct vqueue_info *vq = c->vq;
	size_t bytes = sizeof(struct vq_bounce) + len;
	struct vq_bounce *b;
	int ret;

	ret = gm_check(gmem_of(vq), a, len, writable ? GM_WRITE : GM_READ);
	if (ret == 0)
		ret = bounce_room(c, bytes);
	if (ret < 0)
		return ret;
	b = calloc(1, bytes);
	if (!b)
		return -EAGAIN;
	b->gpa = a;
	b->len = len;
	b->writable = writable;
	if (!writable) {
		ret = gm_read(gmem_of(vq), a, b->buf, len);
		if (ret < 0) {
			free(b);
			return ret;
		}
	}
	vq->vq_vs->vs_priv->bounce_bytes += bytes;
	c->bounce_bytes += bytes;
	*c->bounce_end = b;
	c->bounce_end = &b->next;
	*iov = (struct iovec){ b->buf, len };
	return 1;
}

int vq_chain_add(struct vq_chain *c, uint64_t addr, uint32_t len,
		 uint16_t flags)
{
	bool writable = flags & VRING_DESC_F_WRITE;
	unsigned prot = writable ? GM_WRITE : GM_READ;
	int n = c->readable + c->writable;
	int left = c->niov - n;
	void *p;

	if (!writable && c->wbytes)
		return vq_bad_chain(c, "readable buffer after a writable one");
	if (len == 0)
		return 0;
	c->bytes += len;
	if (c->bytes > UINT32_MAX)
		return vq_bad_chain(c, "chain of more than 4 GiB");
	if (left == 0)
		return vq_bad_chain(c, "chain has too many buffers");

	p = gm_map(gmem_of(c->vq), (gpa_t){ addr }, len, prot);
	if (p) {
		c->iov[n] = (struct iovec){ p, len };
		n = 1;
	} else {
		struct iovec *iov = &c->iov[n];

		n = gm_map_iov(gmem_of(c->vq), (gpa_t){ addr }, len, prot, iov,
			       left);
		if (n == -ENOTSUP)
			n = add_bounce(c, (gpa_t){ addr }, len, writable, iov);
	}
	if (n == -EAGAIN)
		return n;
	if (n == -E2BIG)
		return vq_bad_chain(c, "chain has too many buffers");
	if (n < 0)
		return vq_bad_chain(c, "buffer outside guest memory");

	if (writable) {
		c->writable += n;
		c->wbytes += len;
	} else {
		c->readable += n;
	}
	return 0;
}

static void chain_drop(struct vq_chain *c)
{
	bounce_free(c->vq->vq_vs, c->bounce);
	c->bounce = NULL;
}

/*
 * --- Available ---
 */

/*
 * The available index. When no chain is left and kicks are wanted, request one
 * for the next entry: with EVENT_IDX the driver does not kick otherwise, and
 * not every model turns kicks off and on.
 */
static int avail_idx(struct vqueue_info *vq, uint16_t *ret_idx)
{
	struct vq_priv *priv = vq->vq_priv;
	int ret = split_avail_idx(vq, ret_idx);

	if (ret < 0 || *ret_idx != vq->vq_last_avail || priv->kicks_off ||
	    !priv->event_idx)
		return ret;
	vq_kick_enable(vq);
	return split_avail_idx(vq, ret_idx);
}

/* How many chains of a split ring are available from vq_last_avail on. */
static int nr_new_split(struct vqueue_info *vq)
{
	struct vq_priv *priv = vq->vq_priv;
	uint16_t idx;
	unsigned nr;
	int ret = avail_idx(vq, &idx);

	if (ret < 0)
		return ret;
	nr = (uint16_t)(idx - vq->vq_last_avail);
	if (nr + priv->nr_returned + priv->nr_inflight > priv->nr)
		return -E2BIG;
	return (int)nr;
}

/* Whether a packed ring has an available chain. See avail_idx(). */
static int nr_new_packed(struct vqueue_info *vq)
{
	struct vq_priv *priv = vq->vq_priv;
	int ret = packed_peek(vq);

	if (ret != 0 || priv->kicks_off || !priv->event_idx)
		return ret;
	vq_kick_enable(vq);
	return packed_peek(vq);
}

/*
 * How many chains are known to be available: returned ones, then those from
 * vq_last_avail on. With those in flight they never exceed the entries. -1
 * after vi_error(); 0 also if the ring cannot be read now.
 */
static int nr_available(struct vqueue_info *vq)
{
	struct vq_priv *priv = vq->vq_priv;
	int ret;

	if (priv->packed && priv->nr_returned > 0)
		return (int)priv->nr_returned;
	ret = priv->packed ? nr_new_packed(vq) : nr_new_split(vq);
	if (ret == -E2BIG) {
		vi_error(vq->vq_vs,
			 "queue %u: more available chains than entries",
			 vq->vq_num);
		return -1;
	}
	if (ret < 0)
		return ring_failed(vq, ret);
	return ret + (int)priv->nr_returned;
}

/* The head of the next chain. A packed ring has it at a new chain's end. */
static inline int next_head(struct vqueue_info *vq, uint16_t *ret_head)
{
	struct vq_priv *priv = vq->vq_priv;

	if (priv->nr_returned > 0) {
		*ret_head = priv->slots[priv->nr_taken & priv->mask].order;
		return 0;
	}
	if (priv->packed)
		return 0;
	if (priv->inflight && vq_inflight_head(vq, vq->vq_last_avail, ret_head))
		return 0;
	return split_avail_head(vq, vq->vq_last_avail, ret_head);
}

/*
 * Chain @head was taken as the next one. Returned chains are taken again in the
 * order in which they were first taken.
 */
static void advance(struct vqueue_info *vq, uint16_t head, bool empty)
{
	struct vq_priv *priv = vq->vq_priv;

	if (priv->nr_returned > 0) {
		priv->nr_returned--;
	} else {
		priv->slots[head].entry = priv->nr_entries++;
		if (priv->packed)
			packed_take(vq, head);
		else
			priv->slots[head].pos = vq->vq_last_avail++;
	}
	if (!empty)
		priv->slots[priv->nr_taken++ & priv->mask].order = head;
}

/* Whether a chain may be taken as @head, which selects its slot. */
static inline int check_head(struct vq_chain *c, uint16_t head)
{
	struct vq_priv *priv = c->vq->vq_priv;

	if (head >= priv->nr)
		return vq_bad_chain(c, "head out of range");
	if (priv->slots[head].busy)
		return vq_bad_chain(c, "chain already in flight");
	return priv->slots[head].stale ? -EAGAIN : 0;
}

/* Collect the next chain: at *head, which a packed ring's new chain sets. */
static inline int collect(struct vq_chain *c, uint16_t *head)
{
	struct vqueue_info *vq = c->vq;
	struct vq_priv *priv = vq->vq_priv;
	int ret;

	if (priv->packed && priv->nr_returned == 0) {
		ret = packed_walk(vq, c, head);
		return ret < 0 ? ret : check_head(c, *head);
	}
	ret = check_head(c, *head);
	if (ret < 0)
		return ret;
	if (priv->packed)
		ret = packed_walk_again(vq, *head, c);
	else
		ret = split_walk(vq, *head, c);
	if (ret == 0 && c->bytes == 0 && priv->nr_returned > 0)
		return vq_bad_chain(c, "chain changed while available");
	return ret;
}

/*
 * Take one chain. Returns its number of iovecs (0 for an empty chain, which is
 * completed) or -errno.
 */
static int take(struct vqueue_info *vq, uint16_t head, struct iovec *iov,
		int niov, struct vi_req *reqp)
{
	struct vq_priv *priv = vq->vq_priv;
	struct vq_chain c = {
		.vq = vq,
		.iov = iov,
		.niov = niov,
	};
	struct vq_slot *slot;
	int ret;

	c.bounce_end = &c.bounce;
	gm_pin_begin(gmem_of(vq));
	ret = collect(&c, &head);
	if (ret == 0 && c.bytes == 0 && priv->in_order && priv->nr_inflight > 0)
		ret = -EAGAIN; /* it ends at once: not before those */
	if (ret == 0)
		ret = slot_pin(vq, &priv->slots[head]);
	if (ret < 0) {
		chain_drop(&c);
		return ret;
	}

	slot = &priv->slots[head];
	slot->busy = true;
	slot->done = false;
	slot->writable = (uint32_t)c.wbytes;
	slot->bounce = c.bounce;
	priv->nr_inflight++;
	priv->nr_chains++;
	advance(vq, head, c.bytes == 0);
	if (priv->inflight)
		vq_inflight_take(vq, head);
	if (c.bytes == 0) {
		vq_relchain(vq, head, 0);
		return 0;
	}
	*reqp = (struct vi_req){ c.readable, c.writable, head };
	return c.readable + c.writable;
}

/*
 * The next chain cannot be taken now. slot_release() or a kick ends the wait;
 * until then the queue looks empty.
 */
static int hold(struct vqueue_info *vq)
{
	vq->vq_priv->blocked = true;
	return 0;
}

int vq_getchain(struct vqueue_info *vq, struct iovec *iov, int niov,
		struct vi_req *reqp)
{
	struct vq_priv *priv = vq->vq_priv;

	/* If a driver adds empty chains endlessly, the rest wait for a kick. */
	for (unsigned n = 0; may_take(vq) && !priv->blocked; n++) {
		uint16_t head = 0;
		int ret = nr_available(vq);

		if (ret <= 0)
			return ret;
		if (n == priv->nr) {
			wake_transport(vq->vq_vs);
			return hold(vq);
		}
		ret = next_head(vq, &head);
		if (ret < 0)
			return ring_failed(vq, ret);
		ret = take(vq, head, iov, niov, reqp);
		if (ret == -EAGAIN)
			return hold(vq);
		if (ret < 0)
			return -1;
		if (ret > 0)
			return ret;
	}
	return 0;
}

/*
 * Inspect the next chain: 1 if it is for the model, whose vq_getchain() checks
 * whether it is valid; 0 if it has no bytes at all; -EAGAIN if it must wait.
 */
static int look_at_next(struct vqueue_info *vq, uint16_t *ret_head)
{
	struct vq_priv *priv = vq->vq_priv;
	bool new = priv->packed && priv->nr_returned == 0;
	uint16_t head;

	/* Walk a chain for its head only if some chain is stale. */
	if (new && vq->vq_vs->vs_priv->nr_stale == 0)
		return !packed_is_empty(vq);
	if ((new ? packed_peek_head(vq, &head) : next_head(vq, &head)) < 0 ||
	    head >= priv->nr || priv->slots[head].busy)
		return 1;
	if (priv->slots[head].stale)
		return -EAGAIN;
	*ret_head = head;
	if (new)
		return !packed_is_empty(vq);
	return priv->packed ? !packed_was_empty(vq, head) :
			      !split_is_empty(vq, head);
}

/* The queue is empty. If doorbells are on, the next chain has one. */
static int note_empty(struct vqueue_info *vq)
{
	struct vq_priv *priv = vq->vq_priv;

	priv->is_quiet =
		!priv->kicks_off && !priv->is_silent && !priv->is_unarmed;
	return 0;
}

/*
 * Models that call this before they take want a chain with bytes in it: empty
 * ones before it are completed here.
 */
int vq_has_descs(struct vqueue_info *vq)
{
	struct vq_priv *priv = vq->vq_priv;

	for (unsigned n = 0; may_take(vq) && !priv->blocked; n++) {
		struct vi_req req;
		uint16_t head = 0;
		int ret = nr_available(vq);

		if (ret < 0)
			return 0;
		if (ret == 0)
			return note_empty(vq);
		if (n == priv->nr) {
			wake_transport(vq->vq_vs);
			return hold(vq);
		}
		ret = look_at_next(vq, &head);
		if (ret == -EAGAIN)
			return hold(vq);
		if (ret > 0)
			return 1;
		ret = take(vq, head, NULL, 0, &req);
		if (ret == -EAGAIN)
			return hold(vq);
		if (ret < 0)
			return 0;
	}
	return 0;
}

/*
 * --- Returning chains unprocessed ---
 *
 * When the queue stops, the number of the next entry covers returned chains
 * that had the last entries taken. Others are reported by their heads.
 */

static uint16_t *order_at(struct vqueue_info *vq, unsigned n)
{
	struct vq_priv *priv = vq->vq_priv;

	return &priv->slots[n & priv->mask].order;
}

/* Whether no chain was taken after it, except those since returned. */
static bool is_last(const struct vqueue_info *vq, const struct vq_slot *slot)
{
	struct vq_priv *priv = vq->vq_priv;

	return slot->entry + 1 + priv->nr_returned == priv->nr_entries;
}

/*
 * Make a chain the last one taken. If its place is not found, a queue's worth
 * was taken since, and the oldest place is free.
 */
static void move_last(struct vqueue_info *vq, uint16_t head)
{
	struct vq_priv *priv = vq->vq_priv;
	unsigned nr = priv->nr - priv->nr_returned;
	uint16_t moved = head;

	for (unsigned n = 1; n <= nr; n++) {
		uint16_t *place = order_at(vq, priv->nr_taken - n);
		uint16_t next = *place;

		*place = moved;
		moved = next;
		if (moved == head)
			break;
	}
}

/* The last chain taken was returned: sort it into the others, by age. */
static void sort_returned(struct vqueue_info *vq)
{
	struct vq_priv *priv = vq->vq_priv;

	for (unsigned n = 0; n < priv->nr_returned; n++) {
		uint16_t *a = order_at(vq, priv->nr_taken + n);
		uint16_t *b = order_at(vq, priv->nr_taken + n + 1);
		uint16_t head = *a;

		if (priv->slots[head].entry < priv->slots[*b].entry)
			break;
		*a = *b;
		*b = head;
	}
}

/* Undo the taking of the last chain. */
static void untake(struct vqueue_info *vq, uint16_t head)
{
	struct vq_priv *priv = vq->vq_priv;
	struct vq_slot *slot = &priv->slots[head];

	if (priv->inflight && is_last(vq, slot))
		vq_inflight_untake(vq, slot->pos, head);
	priv->nr_taken--;
	priv->is_quiet = false;
	sort_returned(vq);
	priv->nr_returned++;
	priv->nr_chains--;
	slot_release(vq, slot);
}

void vq_retchains(struct vqueue_info *vq, uint16_t n_chains)
{
	struct vq_priv *priv = vq->vq_priv;

	if (!(vq->vq_flags & VQ_ALLOC))
		return;
	for (; n_chains && priv->nr_taken > 0; n_chains--) {
		uint16_t head = *order_at(vq, priv->nr_taken - 1);

		if (!priv->slots[head].busy || priv->slots[head].done)
			return;
		untake(vq, head);
	}
}

bool vq_retchain(struct vqueue_info *vq, uint16_t idx)
{
	struct vq_slot *slot = slot_of(vq, idx);

	if (!(vq->vq_flags & VQ_ALLOC) || !slot || !slot->busy || slot->done)
		return false;
	if ((gmem_of(vq)->log || vq->vq_priv->in_order) && !is_last(vq, slot))
		return false;
	move_last(vq, idx);
	untake(vq, idx);
	return true;
}

bool vq_is_stopping(const struct vqueue_info *vq)
{
	struct vq_priv *priv = vq->vq_priv;
	const struct virtio_softc *vs = vq->vq_vs;

	return priv->paused || priv->resting || priv->dma_off ||
	       vs->vs_priv->gmem->nr_limbo > 0;
}

/* How many of the returned chains had the last entries taken. */
static unsigned nr_returned_last(struct vqueue_info *vq)
{
	struct vq_priv *priv = vq->vq_priv;
	unsigned nr = 0;

	while (nr < priv->nr_returned) {
		unsigned n = priv->nr_taken + priv->nr_returned - 1 - nr;
		uint16_t head = *order_at(vq, n);

		if (priv->slots[head].entry + 1 + nr != priv->nr_entries)
			break;
		nr++;
	}
	return nr;
}

/* Slots of a packed ring that the last @nr returned chains take. */
static unsigned nr_slots_of_last(const struct vqueue_info *vq, unsigned nr)
{
	struct vq_priv *priv = vq->vq_priv;
	unsigned slots = 0;

	for (unsigned n = priv->nr_returned - nr; n < priv->nr_returned; n++) {
		uint16_t head =
			priv->slots[(priv->nr_taken + n) & priv->mask].order;

		slots += priv->p.copy[priv->slots[head].copy].nr;
	}
	return slots;
}

uint32_t vq_base(struct vqueue_info *vq)
{
	unsigned nr = nr_returned_last(vq);
	uint16_t avail = vq->vq_last_avail;

	if (!vq->vq_priv->packed)
		return (uint16_t)(avail - nr);
	/* Positions repeat after two laps. */
	avail = packed_advance(vq, avail,
			       vq->vq_priv->nr - nr_slots_of_last(vq, nr));
	avail ^= PACKED_WRAP;
	return (uint32_t)vq->vq_next_used << 16 | avail;
}

/* Append chain @head to @left. */
static void add_left(struct vqueue_info *vq, struct vq_left *left,
		     unsigned *nr_descs, uint16_t head)
{
	const struct vq_packed *p = &vq->vq_priv->p;
	uint16_t i = vq->vq_priv->slots[head].copy;
	unsigned nr = vq->vq_priv->packed ? p->copy[i].nr : 1;

	left->nr++;
	for (unsigned n = 0; n < nr; n++, i = p->copy[i].next) {
		left->descs[(*nr_descs)++] = vq->vq_priv->packed ?
						     p->copy[i] :
						     (struct packed_desc){
							     .id = head,
							     .nr = 1,
						     };
		if (n + 1 == nr)
			break;
	}
}

struct vq_left *vq_left_chains(struct vqueue_info *vq)
{
	struct vq_priv *priv = vq->vq_priv;
	unsigned nr = priv->nr_returned - nr_returned_last(vq), nr_descs = 0;
	struct vq_left *left;

	if (priv->inflight || priv->p.area || nr == 0)
		return NULL;
	/* No chain is longer than the ring, nor are all together. */
	left = calloc(1, sizeof(*left) + priv->nr * sizeof(left->descs[0]));
	for (unsigned n = 0; left && n < nr; n++)
		add_left(vq, left, &nr_descs,
			 *order_at(vq, priv->nr_taken + n));
	return left;
}

void vq_add_returned(struct vqueue_info *vq, uint16_t head)
{
	struct vq_priv *priv = vq->vq_priv;
	unsigned n = priv->nr_returned++;

	*order_at(vq, priv->nr_taken + n) = head;
	priv->slots[head].entry = n; /* before all others */
}

void vq_take_left(struct vqueue_info *vq, const struct vq_left *left)
{
	const struct packed_desc *d = left ? left->descs : NULL;

	for (unsigned n = 0; left && n < left->nr; n++, d += d->nr) {
		if (d->id >= vq->vq_priv->nr ||
		    (vq->vq_priv->packed && packed_take_left(vq, d) < 0))
			return;
		vq_add_returned(vq, d->id);
	}
}

/*
 * --- Used ---
 */

/*
 * Copy what the device may have written to the driver's buffers: all of it,
 * because a status byte can follow bytes that were not written and are not
 * counted as used.
 */
static int write_back(struct vqueue_info *vq, const struct vq_slot *slot)
{
	for (struct vq_bounce *b = slot->bounce; b; b = b->next) {
		int ret = 0;

		if (b->writable)
			ret = gm_write(gmem_of(vq), b->gpa, b->buf, b->len);
		if (ret < 0)
			return ret;
	}
	return 0;
}

/* Its memory is unpinned: DMA may never be allowed again. */
static void slot_keep_done(struct vqueue_info *vq, struct vq_slot *slot,
			   uint32_t used)
{
	struct vq_priv *priv = vq->vq_priv;

	slot->done = true;
	priv->nr_done++;
	slot->used = used;
	priv->any_done = true;
	slot_unpin(vq, slot);
	wake_transport(vq->vq_vs);
}

/* A chain was put into the used ring. */
static inline void note_used(struct vqueue_info *vq, const struct vq_slot *slot,
			     uint16_t head)
{
	bool logged = gmem_of(vq)->log;

	if (vq->vq_priv->packed) {
		if (logged)
			packed_mark(vq, head, slot->writable);
		return;
	}
	vq->vq_next_used++;
	if (vq->vq_priv->inflight)
		vq_inflight_use(vq, head);
	if (logged)
		split_mark(vq, head, slot->writable);
}

static void push_used(struct vqueue_info *vq, struct vq_slot *slot,
		      uint16_t head, uint32_t used)
{
	struct vq_priv *priv = vq->vq_priv;

	if (ring_live(vq)) {
		int ret = write_back(vq, slot);

		if (ret == 0 && priv->packed)
			ret = packed_push_used(vq, head, used);
		else if (ret == 0)
			ret = split_push_used(vq, vq->vq_next_used, head, used);
		if (ret < 0)
			ring_failed(vq, ret);
		else
			note_used(vq, slot, head);
	}
	slot_release(vq, slot);
	if (priv->paused) /* it may be stopped before the iteration ends */
		vq_show(vq);
}

/*
 * IN_ORDER: a chain that has ended waits for those that were taken before it,
 * and holds on to its memory (6.2). Chains are returned from the end of their
 * order, and empty ones are taken alone, so that those in flight are the last
 * ones that were taken.
 */
static void push_in_order(struct vqueue_info *vq)
{
	struct vq_priv *priv = vq->vq_priv;

	while (priv->nr_inflight > 0) {
		uint16_t head =
			*order_at(vq, priv->nr_taken - priv->nr_inflight);
		struct vq_slot *slot = &priv->slots[head];

		if (!slot->done)
			return;
		push_used(vq, slot, head, slot->used);
	}
}

static void slot_end(struct vqueue_info *vq, struct vq_slot *slot,
		     uint16_t head, uint32_t used)
{
	if (!vq->vq_priv->in_order || vq->vq_priv->nr_inflight == 1) {
		push_used(vq, slot, head, used);
		return;
	}
	slot->done = true;
	slot->used = used;
	vq->vq_priv->nr_done++;
	push_in_order(vq);
}

void vq_relchain_prepare(struct vqueue_info *vq, uint16_t idx, uint32_t iolen)
{
	struct vq_slot *slot = slot_of(vq, idx);

	if (slot && slot->stale) {
		slot_release_stale(vq, slot);
		return;
	}
	/* A request that outlived its queue: there is nowhere to report it. */
	if (!(vq->vq_flags & VQ_ALLOC))
		return;
	if (!slot || !slot->busy || slot->done) {
		vi_error(vq->vq_vs,
			 "queue %u: chain %u returned but not in flight",
			 vq->vq_num, idx);
		return;
	}
	if (iolen > slot->writable)
		iolen = slot->writable;
	if (vq->vq_priv->dma_off)
		slot_keep_done(vq, slot, iolen);
	else
		slot_end(vq, slot, idx, iolen);
}

void vq_give_back_done(struct vqueue_info *vq)
{
	struct vq_priv *priv = vq->vq_priv;

	if (!priv->any_done || priv->dma_off)
		return;
	priv->any_done = false;
	if (priv->in_order)
		push_in_order(vq);
	for (unsigned i = 0; i < priv->nr_slots && !priv->in_order; i++) {
		struct vq_slot *slot = &priv->slots[i];

		if (slot->busy && slot->done)
			push_used(vq, slot, (uint16_t)i, slot->used);
	}
	vq_relchain_publish(vq);
	vq_endchains(vq, 0);
}

/* Whether the driver can be notified. With DMA off, it will be later. */
static bool may_tell(struct vqueue_info *vq)
{
	struct vq_priv *priv = vq->vq_priv;

	priv->any_done |= priv->dma_off;
	return ring_live(vq);
}

void vq_relchain_publish(struct vqueue_info *vq)
{
	int ret;

	if (!may_tell(vq))
		return;
	if (vq->vq_priv->packed)
		ret = packed_publish_used(vq);
	else
		ret = split_publish_used(vq, vq->vq_next_used);
	if (ret < 0)
		ring_failed(vq, ret);
	else if (vq->vq_priv->inflight)
		vq_inflight_publish(vq, vq->vq_next_used);
}

void vq_relchain(struct vqueue_info *vq, uint16_t idx, uint32_t iolen)
{
	vq_relchain_prepare(vq, idx, iolen);
	vq_relchain_publish(vq);
}

/* A packed ring's positions repeat after 2 N slots. */
static inline bool any_used(const struct vqueue_info *vq)
{
	if (vq->vq_priv->packed)
		return vq->vq_priv->p.nr_unsignalled > 0;
	return vq->vq_save_used != vq->vq_next_used;
}

static bool wants_interrupt(struct vqueue_info *vq, uint16_t old)
{
	if (vq->vq_priv->packed)
		return packed_wants_interrupt(vq);
	return split_wants_interrupt(vq, old, vq->vq_next_used);
}

void vq_endchains(struct vqueue_info *vq, int used_all_avail)
{
	struct vq_priv *priv = vq->vq_priv;
	struct virtio_softc *vs = vq->vq_vs;
	uint16_t old = vq->vq_save_used;
	bool on_empty;

	if (!may_tell(vq) || !any_used(vq))
		return;
	vq->vq_save_used = vq->vq_next_used;
	on_empty = used_all_avail && !priv->nr_inflight &&
		   (vs->vs_negotiated_caps & VI_BIT(VIRTIO_F_NOTIFY_ON_EMPTY));
	if (wants_interrupt(vq, old) || on_empty) {
		priv->nr_intrs++;
		vq_interrupt(vs, vq);
	}
}

void vq_show(struct vqueue_info *vq)
{
	vq_relchain_publish(vq);
	vq_endchains(vq, 0);
}

static void set_kicks(struct vqueue_info *vq, bool on)
{
	if (vq->vq_priv->packed)
		packed_set_kicks(vq, on);
	else
		split_set_kicks(vq, on);
	vq->vq_priv->is_silent = !on;
}

void vq_arm(struct vqueue_info *vq)
{
	if (!ring_live(vq))
		return;
	set_kicks(vq, true);
	/*
	 * Pairs with the driver's barrier between making a chain available and
	 * checking whether a kick is wanted: one side sees the other's store
	 * (2.7.10.1, 2.8.22). The caller looks for a chain next.
	 */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

/* Whether the ring is in shared memory, where a look at it is cheap. */
static bool is_mapped(const struct vqueue_info *vq)
{
	const struct vq_priv *priv = vq->vq_priv;

	return priv->packed ? priv->p.ring : vq->vq_avail;
}

static bool is_available(struct vqueue_info *vq)
{
	uint16_t idx;

	if (vq->vq_priv->packed)
		return packed_peek(vq) > 0;
	return split_avail_idx(vq, &idx) == 0 && idx != vq->vq_last_avail;
}

void vq_arm_later(struct vqueue_info *vq)
{
	struct vq_priv *priv = vq->vq_priv;
	struct vi_priv *dev = vq->vq_vs->vs_priv;

	if (priv->is_unarmed)
		return;
	priv->is_unarmed = true;
	priv->next_unarmed = dev->unarmed;
	dev->unarmed = vq;
}

static bool in_poller(const struct vi_priv *dev)
{
	return dev->polling && pthread_equal(dev->poller, pthread_self());
}

/*
 * A queue in which the model left chains is not polled, because each poll would
 * find the same chains.
 */
void vq_kick_enable(struct vqueue_info *vq)
{
	if (!ring_live(vq))
		return;
	vq->vq_priv->kicks_off = false;
	if (in_poller(vq->vq_vs->vs_priv) && is_mapped(vq) && !is_available(vq))
		vq_arm_later(vq);
	else
		vq_arm(vq);
}

void vq_kick_disable(struct vqueue_info *vq)
{
	struct vq_priv *priv = vq->vq_priv;

	if (!ring_live(vq))
		return;
	priv->kicks_off = true;
	priv->is_quiet = false;
	if (!priv->is_silent)
		set_kicks(vq, false);
}

bool vq_has_news(struct vqueue_info *vq)
{
	if (!may_take(vq) || vq->vq_priv->blocked)
		return false;
	if (is_available(vq))
		return true;
	if (is_mapped(vq))
		note_empty(vq);
	return false;
}

bool vq_kicks_wanted(const struct vqueue_info *vq)
{
	return !vq->vq_priv->kicks_off;
}

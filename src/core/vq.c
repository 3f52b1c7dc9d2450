/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Virtqueues: what a device model calls. See <viodev/virtio.h>.
 *
 * The layout of a ring is the affair of vq_split.c. Here is what layouts have
 * in common: turning buffers into iovecs, remembering which chains are being
 * worked on, and batching.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/core.h"

/*
 * Copies of buffers in memory that is not shared: so much for a device, also
 * counting what is held for requests of before a reset; and so much for a
 * single chain while there is no other.
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
 * Whether the ring may be touched: set up, the driver ready (a legacy driver
 * may use queues earlier, 3.1.2), nothing broken, the bus ours to use. Brings
 * the mapping up to date after guest memory changed.
 */
static bool ring_live(struct vqueue_info *vq)
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
		split_remap(vq);
	return true;
}

/* Whether chains may be taken: not while the queue is coming to a stop. */
static bool may_take(struct vqueue_info *vq)
{
	struct vq_priv *priv = vq->vq_priv;

	return ring_live(vq) && !priv->paused && !priv->resting;
}

/* An access to the ring itself failed: the driver took its memory away. */
static int ring_failed(struct vqueue_info *vq, int ret)
{
	if (ret == -EAGAIN)
		return 0;
	vi_error(vq->vq_vs, "queue %u: ring outside guest memory", vq->vq_num);
	return -1;
}

void vq_resume(struct vqueue_info *vq, uint16_t avail, bool recorded)
{
	uint16_t used;
	int ret;

	if (!ring_live(vq))
		return;
	ret = split_used_idx(vq, &used);
	if (ret < 0) {
		ring_failed(vq, ret);
		return;
	}
	if (!recorded && (uint16_t)(avail - used) > vq->vq_priv->nr) {
		vi_error(vq->vq_vs,
			 "queue %u: used index %u does not match entry %u",
			 vq->vq_num, used, avail);
		return;
	}
	vq->vq_last_avail = avail;
	vq->vq_next_used = vq->vq_save_used = used;
	vq_kick_enable(vq); /* the other may have died while it was off */
}

/*
 * --- Chains that are being worked on ---
 *
 * A chain in flight pins the memory that it uses. After a reset it is stale:
 * its memory stays until the model gives it back, but the new driver does not
 * see it, and gets no chain with the same head meanwhile. So models may find
 * their requests by head, whenever those end.
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

/* Let go of a chain's memory. True: the embedder has waited for that. */
static bool slot_unpin(struct vqueue_info *vq, struct vq_slot *slot)
{
	uint64_t pins = slot->pins;

	slot->pins = 0;
	return gm_unpin(gmem_of(vq), pins, slot->gen);
}

static bool slot_free(struct vqueue_info *vq, struct vq_slot *slot)
{
	struct virtio_softc *vs = vq->vq_vs;
	bool wanted = slot->bounce && vs->vs_priv->bounce_wanted;

	if (wanted)
		vs->vs_priv->bounce_wanted = false;
	bounce_free(vs, slot->bounce);
	slot->bounce = NULL;
	return slot_unpin(vq, slot) || wanted;
}

/* Forget a chain that was taken. */
static void slot_release(struct vqueue_info *vq, struct vq_slot *slot)
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

	if (priv->nr_slots < priv->nr) {
		void *p = reallocarray(priv->slots, priv->nr,
				       sizeof(*priv->slots));

		if (!p)
			return -ENOMEM;
		priv->slots = p;
		memset(&priv->slots[priv->nr_slots], 0,
		       (priv->nr - priv->nr_slots) * sizeof(*priv->slots));
		priv->nr_slots = priv->nr;
	}
	priv->nr_entries = 2ull * priv->nr; /* see vq_take_left() */
	return 0;
}

uint64_t vi_chain_bytes(const struct virtio_softc *vs)
{
	uint64_t nr = 0;

	for (int i = 0; i < vi_max_queues(vs); i++)
		nr += vs->vs_queues[i].vq_qsize;
	return nr * (sizeof(struct vq_slot) + VQ_INFLIGHT_BYTES);
}

void vq_slots_forget(struct vqueue_info *vq)
{
	struct vq_priv *priv = vq->vq_priv;
	unsigned nr_stale = 0;

	vq_inflight_stop(vq);
	for (unsigned i = 0; i < priv->nr_slots; i++) {
		struct vq_slot *slot = &priv->slots[i];

		if (slot->busy && slot->done) /* it has ended */
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

static int bad_chain(struct vq_chain *c, const char *why)
{
	vi_error(c->vq->vq_vs, "queue %u: %s", c->vq->vq_num, why);
	return -EPROTO;
}

/* Room for a copy that takes so many bytes: 0; -E2BIG; -EAGAIN: later. */
static int bounce_room(struct vq_chain *c, size_t bytes)
{
	struct virtio_softc *vs = c->vq->vq_vs;

	if (c->bounce_bytes + bytes > MAX_BOUNCE_CHAIN)
		return -E2BIG;
	if (vs->vs_priv->bounce_bytes + bytes <= MAX_BOUNCE_BYTES ||
	    vs->vs_priv->bounce_bytes == c->bounce_bytes)
		return 0;
	vs->vs_priv->bounce_wanted = true;
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
		return bad_chain(c, "readable buffer after a writable one");
	if (len == 0)
		return 0;
	c->bytes += len;
	if (c->bytes > UINT32_MAX)
		return bad_chain(c, "chain of more than 4 GiB");
	if (left == 0)
		return bad_chain(c, "chain has too many buffers");

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
		return bad_chain(c, "chain has too many buffers");
	if (n < 0)
		return bad_chain(c, "buffer outside guest memory");

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
 * Up to where chains are available. When none is left and doorbells are
 * wanted, say that the next entry is the one to ring for: with EVENT_IDX the
 * driver is silent otherwise, and not every model turns kicks off and on.
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

/*
 * How many chains are available: those that were returned, then those behind
 * vq_last_avail. With those in flight they are never more than the entries.
 * -1 after vi_error(); 0 also when that cannot be known now.
 */
static int nr_available(struct vqueue_info *vq)
{
	struct vq_priv *priv = vq->vq_priv;
	uint16_t idx;
	unsigned nr;
	int ret = avail_idx(vq, &idx);

	if (ret < 0)
		return ring_failed(vq, ret);
	nr = (uint16_t)(idx - vq->vq_last_avail);
	nr += priv->nr_returned;
	if (nr + priv->nr_inflight > priv->nr) {
		vi_error(vq->vq_vs,
			 "queue %u: more available chains than entries",
			 vq->vq_num);
		return -1;
	}
	return (int)nr;
}

/* The head of the next chain. */
static int next_head(struct vqueue_info *vq, uint16_t *ret_head)
{
	struct vq_priv *priv = vq->vq_priv;

	if (priv->nr_returned > 0) {
		*ret_head = priv->slots[priv->nr_taken & (priv->nr - 1u)].order;
		return 0;
	}
	if (priv->inflight && vq_inflight_head(vq, vq->vq_last_avail, ret_head))
		return 0;
	return split_avail_head(vq, vq->vq_last_avail, ret_head);
}

/*
 * Chain @head was taken as the next one. Chains that were returned are taken
 * again in the order in which they were taken first.
 */
static void advance(struct vqueue_info *vq, uint16_t head, bool empty)
{
	struct vq_priv *priv = vq->vq_priv;

	if (priv->nr_returned > 0) {
		priv->nr_returned--;
	} else {
		priv->slots[head].pos = vq->vq_last_avail++;
		priv->slots[head].entry = priv->nr_entries++;
	}
	if (!empty)
		priv->slots[priv->nr_taken++ & (priv->nr - 1u)].order = head;
}

/*
 * Take one chain: its number of iovecs (0 for an empty chain, which is given
 * back) or -errno.
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
	if (head >= priv->nr) /* slots are found by it */
		return bad_chain(&c, "head out of range");
	slot = &priv->slots[head];
	if (slot->busy)
		return bad_chain(&c, "chain already in flight");
	if (slot->stale)
		return -EAGAIN;

	gm_pin_begin(gmem_of(vq));
	ret = split_walk(vq, head, &c);
	if (ret == 0 && c.bytes == 0 && priv->nr_returned > 0)
		ret = bad_chain(&c, "chain changed while available");
	if (ret < 0) {
		chain_drop(&c);
		return ret;
	}

	slot->pins = gm_pin(gmem_of(vq), &slot->gen);
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
 * A chain is there, but cannot be taken now. Who it waits for ends with
 * slot_release() or a kick; until then the queue looks empty.
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
		uint16_t head;
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
 * Models that ask before they take want a chain with something in it: what is
 * in front of that is given back here.
 */
int vq_has_descs(struct vqueue_info *vq)
{
	struct vq_priv *priv = vq->vq_priv;

	for (unsigned n = 0; may_take(vq) && !priv->blocked; n++) {
		struct vi_req req;
		uint16_t head;
		int ret = nr_available(vq);

		if (ret <= 0)
			return 0;
		if (n == priv->nr) {
			wake_transport(vq->vq_vs);
			return hold(vq);
		}
		ret = next_head(vq, &head);
		if (ret < 0 || head >= priv->nr || priv->slots[head].busy)
			return 1; /* vq_getchain() tells */
		if (priv->slots[head].stale)
			return hold(vq);
		if (!split_is_empty(vq, head))
			return 1;
		if (take(vq, head, NULL, 0, &req) < 0)
			return 0;
	}
	return 0;
}

/*
 * --- Giving chains back untaken ---
 *
 * Where entries of all that were returned are the last that were taken, a stop
 * can tell so by the number of the next entry. Others are told by their heads.
 */

static uint16_t *order_at(struct vqueue_info *vq, unsigned n)
{
	struct vq_priv *priv = vq->vq_priv;

	return &priv->slots[n & (priv->nr - 1u)].order;
}

/* Whether nothing has been taken behind it, but for what was returned. */
static bool is_last(const struct vqueue_info *vq, const struct vq_slot *slot)
{
	struct vq_priv *priv = vq->vq_priv;

	return slot->entry + 1 + priv->nr_returned == priv->nr_entries;
}

/*
 * Make a chain the last that was taken. If its place is not found, a queue's
 * worth was taken since, and the oldest place is free.
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

/* The last one taken was returned: to its place among these, by age. */
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

/* The last one taken is no longer. */
static void untake(struct vqueue_info *vq, uint16_t head)
{
	struct vq_priv *priv = vq->vq_priv;
	struct vq_slot *slot = &priv->slots[head];

	if (priv->inflight && is_last(vq, slot))
		vq_inflight_untake(vq, slot->pos, head);
	priv->nr_taken--;
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
	if (gmem_of(vq)->log && !is_last(vq, slot))
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

/* How many of those that were returned were taken from the last entries. */
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

uint16_t vq_next_entry(struct vqueue_info *vq)
{
	return (uint16_t)(vq->vq_last_avail - nr_returned_last(vq));
}

unsigned vq_left_chains(struct vqueue_info *vq, uint16_t *heads)
{
	struct vq_priv *priv = vq->vq_priv;
	unsigned nr = priv->nr_returned - nr_returned_last(vq);

	if (priv->inflight)
		return 0;
	for (unsigned n = 0; n < nr; n++)
		heads[n] = *order_at(vq, priv->nr_taken + n);
	return nr;
}

void vq_take_left(struct vqueue_info *vq, const uint16_t *heads, unsigned nr)
{
	struct vq_priv *priv = vq->vq_priv;

	for (unsigned n = 0; n < nr && heads[n] < priv->nr; n++) {
		*order_at(vq, n) = heads[n];
		priv->slots[heads[n]].entry = n; /* before all others */
		priv->nr_returned++;
	}
}

/*
 * --- Used ---
 */

/*
 * Bring what the device may have written to where the driver's buffers are:
 * all of it, because a status byte can follow bytes that were not written and
 * are not counted as used.
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

/* Its memory is let go: the bus may never be ours again. */
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

static void push_used(struct vqueue_info *vq, struct vq_slot *slot,
		      uint16_t head, uint32_t used)
{
	struct vq_priv *priv = vq->vq_priv;

	if (ring_live(vq)) {
		int ret = write_back(vq, slot);

		if (ret == 0)
			ret = split_push_used(vq, vq->vq_next_used, head, used);
		if (ret < 0) {
			ring_failed(vq, ret);
		} else {
			vq->vq_next_used++;
			if (priv->inflight)
				vq_inflight_use(vq, head);
			if (gmem_of(vq)->log)
				split_mark(vq, head, slot->writable);
		}
	}
	slot_release(vq, slot);
	if (priv->paused) /* it may be stopped before the iteration ends */
		vq_show(vq);
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
		push_used(vq, slot, idx, iolen);
}

void vq_give_back_done(struct vqueue_info *vq)
{
	struct vq_priv *priv = vq->vq_priv;

	if (!priv->any_done || priv->dma_off)
		return;
	priv->any_done = false;
	for (unsigned i = 0; i < priv->nr_slots; i++) {
		struct vq_slot *slot = &priv->slots[i];

		if (slot->busy && slot->done)
			push_used(vq, slot, (uint16_t)i, slot->used);
	}
	vq_relchain_publish(vq);
	vq_endchains(vq, 0);
}

/* Whether the driver can be told something; what it cannot be, it will be. */
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

void vq_endchains(struct vqueue_info *vq, int used_all_avail)
{
	struct vq_priv *priv = vq->vq_priv;
	struct virtio_softc *vs = vq->vq_vs;
	uint16_t old = vq->vq_save_used;
	bool on_empty;

	if (!may_tell(vq) || old == vq->vq_next_used)
		return;
	vq->vq_save_used = vq->vq_next_used;
	on_empty = used_all_avail && !priv->nr_inflight &&
		   (vs->vs_negotiated_caps & VI_BIT(VIRTIO_F_NOTIFY_ON_EMPTY));
	if (split_wants_interrupt(vq, old, vq->vq_next_used) || on_empty) {
		priv->nr_intrs++;
		vq_interrupt(vs, vq);
	}
}

void vq_show(struct vqueue_info *vq)
{
	vq_relchain_publish(vq);
	vq_endchains(vq, 0);
}

void vq_kick_enable(struct vqueue_info *vq)
{
	if (!ring_live(vq))
		return;
	split_set_kicks(vq, true);
	vq->vq_priv->kicks_off = false;
	/*
	 * Pairs with the driver's barrier between moving avail->idx and
	 * looking whether a kick is wanted: one of both sees the other
	 * (2.7.10.1). The caller reads avail->idx next.
	 */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

void vq_kick_disable(struct vqueue_info *vq)
{
	if (!ring_live(vq))
		return;
	split_set_kicks(vq, false);
	vq->vq_priv->kicks_off = true;
}

bool vq_kicks_wanted(const struct vqueue_info *vq)
{
	return !vq->vq_priv->kicks_off;
}

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

/* Copies of buffers in memory that is not shared: at most this for a queue. */
#define MAX_BOUNCE_BYTES (16u << 20)

static struct gmem *gmem_of(struct vqueue_info *vq)
{
	return vq->vq_vs->vs_pi->pi_gmem;
}

/*
 * Whether the ring may be touched: set up, the driver ready (a legacy driver
 * may use queues earlier, 3.1.2), nothing broken. Brings the mapping up to
 * date after guest memory changed.
 */
static bool ring_live(struct vqueue_info *vq)
{
	struct virtio_softc *vs = vq->vq_vs;

	if (!(vq->vq_flags & VQ_ALLOC) || (vs->vs_flags & VIRTIO_BROKEN))
		return false;
	if ((vq->vq_flags & VQ_ENABLED) &&
	    !(vs->vs_status & VIRTIO_CONFIG_STATUS_DRIVER_OK))
		return false;
	if (vq->vq_gen != gmem_of(vq)->gen)
		split_map(vq);
	return true;
}

/* An access to the ring itself failed: the driver took its memory away. */
static int ring_gone(struct vqueue_info *vq, int ret)
{
	if (ret == -EAGAIN)
		return 0;
	vi_error(vq->vq_vs, "queue %u: ring is not in guest memory",
		 vq->vq_num);
	return -1;
}

int vq_slots_init(struct vqueue_info *vq)
{
	vq_slots_fini(vq);
	vq->vq_slots = calloc(vq->vq_qsize, sizeof(*vq->vq_slots));
	if (!vq->vq_slots)
		return -ENOMEM;
	vq->vq_nr_slots = vq->vq_qsize;
	return 0;
}

void vq_resume(struct vqueue_info *vq, uint16_t avail)
{
	uint16_t used;
	int ret;

	if (!ring_live(vq))
		return;
	ret = split_used_idx(vq, &used);
	if (ret < 0) {
		ring_gone(vq, ret);
		return;
	}
	vq->vq_last_avail = avail;
	vq->vq_next_used = vq->vq_save_used = used;
	vq_kick_enable(vq); /* the other may have died while it was off */
}

static void bounce_free(struct vq_bounce *b)
{
	while (b) {
		struct vq_bounce *next = b->next;

		free(b);
		b = next;
	}
}

void vq_slots_fini(struct vqueue_info *vq)
{
	for (unsigned i = 0; i < vq->vq_nr_slots; i++)
		bounce_free(vq->vq_slots[i].bounce);
	free(vq->vq_slots);
	vq->vq_slots = NULL;
	vq->vq_nr_slots = 0;
	vq_inflight_stop(vq);
	vq->vq_nr_inflight = 0;
	vq->vq_bounce_bytes = 0;
}

/* Forget a chain that was taken. */
static void slot_release(struct vqueue_info *vq, struct vq_slot *slot)
{
	for (struct vq_bounce *b = slot->bounce; b; b = b->next)
		vq->vq_bounce_bytes -= b->len;
	bounce_free(slot->bounce);
	slot->bounce = NULL;
	slot->busy = false;
	vq->vq_nr_inflight--;
}

/*
 * --- Collecting a chain ---
 */

static int bad_chain(struct vq_chain *c, const char *why)
{
	vi_error(c->vq->vq_vs, "queue %u: %s", c->vq->vq_num, why);
	return -EPROTO;
}

/* Append a copy of a buffer that cannot be mapped. Returns 1 iovec. */
static int add_bounce(struct vq_chain *c, gpa_t a, uint32_t len, bool writable,
		      struct iovec *iov)
{
	struct vqueue_info *vq = c->vq;
	struct vq_bounce *b;
	int ret;

	ret = gm_check(gmem_of(vq), a, len, writable ? GM_WRITE : GM_READ);
	if (ret < 0)
		return ret;
	if (len > MAX_BOUNCE_BYTES)
		return -E2BIG;
	if (vq->vq_bounce_bytes + len > MAX_BOUNCE_BYTES)
		return vq->vq_nr_inflight ? -EAGAIN : -E2BIG;

	b = calloc(1, sizeof(*b) + len);
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
	vq->vq_bounce_bytes += len;
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
		return bad_chain(c, "buffer not in guest memory");

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
	for (struct vq_bounce *b = c->bounce; b; b = b->next)
		c->vq->vq_bounce_bytes -= b->len;
	bounce_free(c->bounce);
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
	int ret = split_avail_idx(vq, ret_idx);

	if (ret < 0 || *ret_idx != vq->vq_last_avail || vq->vq_kicks_off ||
	    !(vq->vq_vs->vs_flags & VIRTIO_EVENT_IDX))
		return ret;
	vq_kick_enable(vq);
	return split_avail_idx(vq, ret_idx);
}

int vq_has_descs(struct vqueue_info *vq)
{
	uint16_t idx;
	int ret;

	if (!ring_live(vq))
		return 0;
	ret = avail_idx(vq, &idx);
	if (ret < 0) {
		ring_gone(vq, ret);
		return 0;
	}
	return idx != vq->vq_last_avail;
}

/* What is remembered about ring position @pos. */
static struct vq_slot *slot_at(struct vqueue_info *vq, uint16_t pos)
{
	return &vq->vq_slots[pos & (vq->vq_qsize - 1u)];
}

static int head_at(struct vqueue_info *vq, uint16_t pos, uint16_t *ret_head)
{
	if (vq_inflight_head(vq, pos, ret_head))
		return 0;
	return split_avail_head(vq, pos, ret_head);
}

/* Take one chain: its number of iovecs (0 for an empty chain) or -errno. */
static int take(struct vqueue_info *vq, uint16_t head, struct iovec *iov,
		int niov, struct vi_req *reqp)
{
	struct vq_chain c = {
		.vq = vq,
		.iov = iov,
		.niov = niov,
	};
	struct vq_slot *slot, *pos;
	int ret;

	c.bounce_end = &c.bounce;
	if (head >= vq->vq_qsize) /* slots are found by it */
		return bad_chain(&c, "head out of range");
	slot = &vq->vq_slots[head];
	if (slot->busy)
		return bad_chain(&c, "chain is already being worked on");

	ret = split_walk(vq, head, &c);
	if (ret < 0) {
		chain_drop(&c);
		return ret;
	}

	pos = slot_at(vq, vq->vq_last_avail++);
	pos->head = head;
	pos->empty = c.bytes == 0;
	vq->vq_nr_chains++;
	vq->vq_nr_inflight++;
	slot->busy = true;
	slot->writable = (uint32_t)c.wbytes;
	slot->bounce = c.bounce;
	vq_inflight_take(vq, head);
	*reqp = (struct vi_req){ c.readable, c.writable, head };
	return c.readable + c.writable;
}

int vq_getchain(struct vqueue_info *vq, struct iovec *iov, int niov,
		struct vi_req *reqp)
{
	while (ring_live(vq)) {
		uint16_t idx, head;
		unsigned nr;
		int ret;

		ret = avail_idx(vq, &idx);
		if (ret < 0)
			return ring_gone(vq, ret);
		nr = (uint16_t)(idx - vq->vq_last_avail);
		if (nr == 0)
			return 0;
		if (nr > vq->vq_qsize) {
			vi_error(vq->vq_vs,
				 "queue %u: more chains available than entries",
				 vq->vq_num);
			return -1;
		}
		if (slot_at(vq, vq->vq_last_avail)->skip) {
			slot_at(vq, vq->vq_last_avail++)->skip = false;
			continue;
		}
		ret = head_at(vq, vq->vq_last_avail, &head);
		if (ret < 0)
			return ring_gone(vq, ret);
		ret = take(vq, head, iov, niov, reqp);
		if (ret == -EAGAIN)
			return 0;
		if (ret < 0)
			return -1;
		if (ret > 0)
			return ret;
		vq_relchain(vq, head, 0);
	}
	return 0;
}

void vq_retchains(struct vqueue_info *vq, uint16_t n_chains)
{
	if (!(vq->vq_flags & VQ_ALLOC))
		return;
	while (n_chains && vq->vq_nr_inflight) {
		uint16_t pos = (uint16_t)(vq->vq_last_avail - 1);
		struct vq_slot *at = slot_at(vq, pos);

		if (at->empty)
			at->skip = true;
		else if (vq->vq_slots[at->head].busy)
			slot_release(vq, &vq->vq_slots[at->head]);
		else
			return;
		vq->vq_last_avail = pos;
		if (at->empty)
			continue;
		vq_inflight_untake(vq, pos, at->head);
		vq->vq_nr_chains--;
		n_chains--;
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

void vq_relchain_prepare(struct vqueue_info *vq, uint16_t idx, uint32_t iolen)
{
	struct vq_slot *slot;
	int ret;

	/* A request that outlived its queue: there is nowhere to report it. */
	if (!(vq->vq_flags & VQ_ALLOC))
		return;
	if (idx >= vq->vq_nr_slots || !vq->vq_slots[idx].busy) {
		vi_error(vq->vq_vs, "queue %u: chain %u given back, not taken",
			 vq->vq_num, idx);
		return;
	}
	slot = &vq->vq_slots[idx];
	if (iolen > slot->writable)
		iolen = slot->writable;
	if (ring_live(vq)) {
		ret = write_back(vq, slot);
		if (ret == 0)
			ret = split_put_used(vq, vq->vq_next_used, idx, iolen);
		if (ret < 0) {
			ring_gone(vq, ret);
		} else {
			vq->vq_next_used++;
			vq_inflight_put(vq, idx);
			if (gmem_of(vq)->log)
				split_mark(vq, idx, slot->writable);
		}
	}
	slot_release(vq, slot);
}

void vq_relchain_publish(struct vqueue_info *vq)
{
	int ret;

	if (!ring_live(vq))
		return;
	ret = split_publish_used(vq, vq->vq_next_used);
	if (ret < 0)
		ring_gone(vq, ret);
	else
		vq_inflight_publish(vq, vq->vq_next_used);
}

void vq_relchain(struct vqueue_info *vq, uint16_t idx, uint32_t iolen)
{
	vq_relchain_prepare(vq, idx, iolen);
	vq_relchain_publish(vq);
}

void vq_endchains(struct vqueue_info *vq, int used_all_avail)
{
	struct virtio_softc *vs = vq->vq_vs;
	uint16_t old = vq->vq_save_used;
	bool on_empty;

	if (!ring_live(vq) || old == vq->vq_next_used)
		return;
	vq->vq_save_used = vq->vq_next_used;
	on_empty = used_all_avail && !vq->vq_nr_inflight &&
		   (vs->vs_negotiated_caps & VI_BIT(VIRTIO_F_NOTIFY_ON_EMPTY));
	if (split_wants_interrupt(vq, old, vq->vq_next_used) || on_empty) {
		vq->vq_nr_intrs++;
		vq_interrupt(vs, vq);
	}
}

void vq_kick_enable(struct vqueue_info *vq)
{
	if (!ring_live(vq))
		return;
	split_set_kicks(vq, true);
	vq->vq_kicks_off = false;
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
	vq->vq_kicks_off = true;
}

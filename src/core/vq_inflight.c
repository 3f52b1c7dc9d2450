/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Chains in flight, recorded in memory that survives this process, so that the
 * next one can finish them: vhost-user's in-flight area for split rings. The
 * one for packed rings is in vq_packed_inflight.c.
 *
 *	header	features version desc_num last_batch_head used_idx
 *	entry	one for each head: inflight, next, counter
 *
 * A chain that is put into the used ring is linked into the last batch first,
 * and is no longer in flight once the ring's index is past it. After a kill
 * between the two, used_idx lags the ring's index by the number of chains that
 * the driver has seen. After a restart the positions of the available ring that
 * follow the used index belong to the chains in flight, oldest first: their
 * heads come from this list, not from the ring.
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

struct header {
	uint64_t features;
	uint16_t version;
	uint16_t desc_num;
	uint16_t last_batch_head;
	uint16_t used_idx;
};
static_assert(sizeof(struct header) == 16, "vhost-user protocol");

struct entry {
	uint8_t inflight;
	uint8_t padding[5];
	uint16_t next;
	uint64_t counter;
};
static_assert(sizeof(struct entry) == 16, "vhost-user protocol");

struct resubmitted {
	uint64_t counter;
	uint16_t head;
};

static_assert(sizeof(struct resubmitted) + sizeof(uint16_t) <=
		      VQ_INFLIGHT_BYTES,
	      "resubmitted[] and batch[]");

struct vq_inflight {
	volatile struct header *header;
	volatile struct entry *entries;
	uint64_t counter;      /* of the next chain */
	uint16_t resubmit_pos; /* position of the first one resubmitted */
	uint16_t nr_resubmitted;
	uint16_t nr_batch;
	uint16_t *batch; /* put into the used ring, not yet visible there */
	struct resubmitted resubmitted[];
};

size_t vq_inflight_bytes(unsigned size, bool packed)
{
	if (packed)
		return packed_inflight_bytes(size);
	return sizeof(struct header) + size * sizeof(struct entry);
}

/* The area is read after this process died: only the compiler can reorder. */
static void barrier(void)
{
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
}

/* Clear chains that are still recorded, but that the driver has seen. */
static void end_last_batch(struct vq_inflight *in, unsigned size, uint16_t used)
{
	uint16_t nr = (uint16_t)(used - in->header->used_idx);
	uint16_t head = in->header->last_batch_head;

	if (nr > size)
		nr = (uint16_t)size;
	for (; nr > 0 && head < size; nr--) {
		in->entries[head].inflight = 0;
		head = in->entries[head].next;
	}
	barrier();
	in->header->used_idx = used;
}

static int by_age(const void *a, const void *b)
{
	const struct resubmitted *x = a, *y = b;

	return (x->counter > y->counter) - (x->counter < y->counter);
}

static void find_resubmitted(struct vq_inflight *in, unsigned size)
{
	for (unsigned i = 0; i < size; i++) {
		if (!in->entries[i].inflight)
			continue;
		in->resubmitted[in->nr_resubmitted++] = (struct resubmitted){
			.counter = in->entries[i].counter,
			.head = (uint16_t)i,
		};
	}
	if (in->nr_resubmitted == 0)
		return;
	qsort(in->resubmitted, in->nr_resubmitted, sizeof(in->resubmitted[0]),
	      by_age);
	in->counter = in->resubmitted[in->nr_resubmitted - 1].counter + 1;
}

int vq_inflight_start(struct vqueue_info *vq, void *area)
{
	struct vq_priv *priv = vq->vq_priv;
	unsigned size = priv->nr;
	struct vq_inflight *in;

	if (priv->packed)
		return packed_inflight_start(vq, area);
	in = calloc(1, sizeof(*in) + size * (sizeof(in->resubmitted[0]) +
					     sizeof(in->batch[0])));
	if (!in)
		return -ENOMEM;
	in->batch = (uint16_t *)&in->resubmitted[size];
	in->header = area;
	in->entries = (void *)((char *)area + sizeof(struct header));
	if (in->header->version == 0) { /* not used yet */
		in->header->features = 0;
		in->header->desc_num = (uint16_t)size;
		in->header->last_batch_head = 0;
		in->header->used_idx = vq->vq_next_used;
		for (unsigned i = 0; i < size; i++)
			in->entries[i].inflight = 0;
		barrier();
		in->header->version = VERSION;
	} else if (in->header->version != VERSION) {
		free(in);
		return -EINVAL;
	}
	end_last_batch(in, size, vq->vq_next_used);
	find_resubmitted(in, size);
	in->resubmit_pos = vq->vq_last_avail = vq->vq_next_used;
	priv->inflight = in;
	return 0;
}

void vq_inflight_stop(struct vqueue_info *vq)
{
	struct vq_priv *priv = vq->vq_priv;

	free(priv->inflight);
	priv->inflight = NULL;
}

static bool is_resubmitted(const struct vq_inflight *in, uint16_t pos)
{
	return (uint16_t)(pos - in->resubmit_pos) < in->nr_resubmitted;
}

bool vq_inflight_head(const struct vqueue_info *vq, uint16_t pos,
		      uint16_t *ret_head)
{
	const struct vq_inflight *in = vq->vq_priv->inflight;

	if (!is_resubmitted(in, pos))
		return false;
	*ret_head = in->resubmitted[(uint16_t)(pos - in->resubmit_pos)].head;
	return true;
}

void vq_inflight_take(struct vqueue_info *vq, uint16_t head)
{
	struct vq_inflight *in = vq->vq_priv->inflight;

	if (in->entries[head].inflight) /* taken again: keeps its age */
		return;
	in->entries[head].counter = in->counter++;
	barrier();
	in->entries[head].inflight = 1;
}

void vq_inflight_untake(struct vqueue_info *vq, uint16_t pos, uint16_t head)
{
	struct vq_inflight *in = vq->vq_priv->inflight;

	/* A resubmitted chain is recorded nowhere else. */
	if (!is_resubmitted(in, pos))
		in->entries[head].inflight = 0;
}

void vq_inflight_use(struct vqueue_info *vq, uint16_t head)
{
	struct vq_priv *priv = vq->vq_priv;
	struct vq_inflight *in = priv->inflight;

	if (in->nr_batch == priv->nr)
		return;
	in->batch[in->nr_batch++] = head;
	in->entries[head].next = in->header->last_batch_head;
	barrier();
	in->header->last_batch_head = head;
}

void vq_inflight_publish(struct vqueue_info *vq, uint16_t used)
{
	struct vq_inflight *in = vq->vq_priv->inflight;

	barrier();
	for (unsigned i = 0; i < in->nr_batch; i++)
		in->entries[in->batch[i]].inflight = 0;
	in->nr_batch = 0;
	barrier();
	in->header->used_idx = used;
	/* No position is taken again once used, but positions wrap. */
	if ((uint16_t)(used - in->resubmit_pos) >= in->nr_resubmitted)
		in->nr_resubmitted = 0;
}

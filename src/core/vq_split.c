/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The split virtqueue in memory (virtio 2.7).
 *
 *	descriptors   N x { addr, len, flags, next }        driver writes
 *	available     flags idx ring[N] used_event          driver writes
 *	used          flags idx ring[N] avail_event         device writes
 *
 * used_event and avail_event exist only with EVENT_IDX. Whatever is read from
 * here can change at any moment: it is loaded once and only the copy is used.
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
	return vq->vq_vs->vs_pi->pi_gmem;
}

static bool event_idx(struct vqueue_info *vq)
{
	return vq->vq_vs->vs_flags & VIRTIO_EVENT_IDX;
}

static uint64_t desc_bytes(struct vqueue_info *vq)
{
	return 16ull * vq->vq_qsize;
}

/* Without EVENT_IDX there is no trailer, and a ring may end with its RAM. */
static uint64_t avail_bytes(struct vqueue_info *vq)
{
	return 4 + 2ull * vq->vq_qsize + (event_idx(vq) ? 2 : 0);
}

static uint64_t used_bytes(struct vqueue_info *vq)
{
	return 4 + 8ull * vq->vq_qsize + (event_idx(vq) ? 2 : 0);
}

int split_check(struct vqueue_info *vq)
{
	struct gmem *gm = gmem_of(vq);
	const struct {
		const char *name;
		uint64_t gpa, bytes;
		unsigned align, prot;
	} parts[] = {
		{ "descriptor table", vq->vq_desc_gpa, desc_bytes(vq), 16,
		  GM_READ },
		{ "available ring", vq->vq_avail_gpa, avail_bytes(vq), 2,
		  GM_READ },
		{ "used ring", vq->vq_used_gpa, used_bytes(vq), 4,
		  GM_READ | GM_WRITE },
	};

	for (unsigned i = 0; i < 3; i++) {
		int ret = 0;

		if (parts[i].gpa % parts[i].align)
			ret = -EINVAL;
		else
			ret = gm_check(gm, (gpa_t){ parts[i].gpa },
				       parts[i].bytes, parts[i].prot);
		if (ret < 0) {
			vi_error(vq->vq_vs, "queue %u: %s %s", vq->vq_num,
				 parts[i].name,
				 ret == -EINVAL ? "is misaligned"
						: "is not in guest memory");
			return ret;
		}
	}
	return 0;
}

void split_map(struct vqueue_info *vq)
{
	struct gmem *gm = gmem_of(vq);

	vq->vq_desc = gm_map(gm, (gpa_t){ vq->vq_desc_gpa }, desc_bytes(vq),
			     GM_READ);
	vq->vq_avail = gm_map(gm, (gpa_t){ vq->vq_avail_gpa }, avail_bytes(vq),
			      GM_READ);
	vq->vq_used = gm_map(gm, (gpa_t){ vq->vq_used_gpa }, used_bytes(vq),
			     GM_READ | GM_WRITE);
	vq->vq_gen = gm->gen;
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
 * (2.7.13.3): what those entries say is visible after this.
 */
int split_avail_idx(struct vqueue_info *vq, uint16_t *ret_idx)
{
	return avail_load(vq, AVAIL_IDX, ret_idx);
}

int split_avail_head(struct vqueue_info *vq, uint16_t pos, uint16_t *ret_head)
{
	unsigned slot = pos & (vq->vq_qsize - 1u);

	return avail_load(vq, AVAIL_RING + 2ull * slot, ret_head);
}

/*
 * Copy a descriptor out. The barrier keeps the compiler from going back to
 * shared memory for a value that it has already judged.
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

static int bad(struct vqueue_info *vq, const char *why)
{
	vi_error(vq->vq_vs, "queue %u: %s", vq->vq_num, why);
	return -EPROTO;
}

static int read_failed(struct vqueue_info *vq, int ret)
{
	if (ret == -EAGAIN)
		return ret;
	return bad(vq, "descriptor not in guest memory");
}

/*
 * Longer tables than the queue are accepted: Linux builds them. This many
 * entries bound the time that one chain can take.
 */
#define MAX_INDIRECT 32768u

static int walk_indirect(struct vq_chain *c, uint64_t addr, uint32_t len)
{
	struct vqueue_info *vq = c->vq;
	uint32_t nr = len / 16, i = 0;
	const void *table;

	if (!(vq->vq_vs->vs_negotiated_caps &
	      VI_BIT(VIRTIO_RING_F_INDIRECT_DESC)))
		return bad(vq, "INDIRECT was not negotiated");
	if (len == 0 || len % 16)
		return bad(vq, "indirect table is not whole descriptors");
	if (nr > MAX_INDIRECT)
		return bad(vq, "indirect table is too long");
	if (gm_check(gmem_of(vq), (gpa_t){ addr }, len, GM_READ) < 0)
		return bad(vq, "indirect table not in guest memory");

	table = gm_map(gmem_of(vq), (gpa_t){ addr }, len, GM_READ);
	for (uint32_t n = 0; n < nr; n++) {
		struct desc d;
		uint16_t flags;
		int ret = fetch(vq, table, addr, i, &d);

		if (ret < 0)
			return read_failed(vq, ret);
		flags = le16_to_cpu(d.flags);
		if (flags & VRING_DESC_F_INDIRECT)
			return bad(vq, "indirect table inside of another");
		ret = vq_chain_add(c, le64_to_cpu(d.addr), le32_to_cpu(d.len),
				   flags);
		if (ret < 0 || !(flags & VRING_DESC_F_NEXT))
			return ret;
		i = le16_to_cpu(d.next);
		if (i >= nr)
			return bad(vq, "index out of the indirect table");
	}
	return bad(vq, "indirect table loops");
}

int split_walk(struct vqueue_info *vq, uint16_t head, struct vq_chain *c)
{
	uint16_t i = head;

	/* A chain that visits more entries than there are is a loop. */
	for (unsigned n = 0; n < vq->vq_qsize; n++) {
		struct desc d;
		uint16_t flags;
		int ret;

		if (i >= vq->vq_qsize)
			return bad(vq, "descriptor index out of range");
		ret = fetch(vq, vq->vq_desc, vq->vq_desc_gpa, i, &d);
		if (ret < 0)
			return read_failed(vq, ret);

		flags = le16_to_cpu(d.flags);
		if (flags & VRING_DESC_F_INDIRECT) {
			if (flags & VRING_DESC_F_NEXT)
				return bad(vq, "INDIRECT and NEXT together");
			return walk_indirect(c, le64_to_cpu(d.addr),
					     le32_to_cpu(d.len));
		}
		ret = vq_chain_add(c, le64_to_cpu(d.addr), le32_to_cpu(d.len),
				   flags);
		if (ret < 0 || !(flags & VRING_DESC_F_NEXT))
			return ret;
		i = le16_to_cpu(d.next);
	}
	return bad(vq, "descriptor chain loops");
}

int split_put_used(struct vqueue_info *vq, uint16_t pos, uint16_t head,
		   uint32_t len)
{
	struct used_elem e = { cpu_to_le32(head), cpu_to_le32(len) };
	uint64_t off = USED_RING + 8ull * (pos & (vq->vq_qsize - 1u));

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
 * The chain was checked when it was taken. A driver that changes it since then
 * spoils what it gets itself; all that matters here is an end.
 */
void split_mark(struct vqueue_info *vq, uint16_t head, uint32_t len)
{
	const void *table = vq->vq_desc;
	uint64_t gpa = vq->vq_desc_gpa;
	uint32_t nr = vq->vq_qsize, i = head, left = nr;
	struct desc d;

	while (len && left-- && i < nr && fetch(vq, table, gpa, i, &d) == 0) {
		uint32_t part = le32_to_cpu(d.len);
		uint16_t flags = le16_to_cpu(d.flags);

		if (flags & VRING_DESC_F_INDIRECT) {
			if (gpa != vq->vq_desc_gpa)
				return;
			gpa = le64_to_cpu(d.addr);
			table = gm_map(gmem_of(vq), (gpa_t){ gpa }, part,
				       GM_READ);
			nr = left = part / 16 < MAX_INDIRECT ? part / 16
							     : MAX_INDIRECT;
			i = 0;
			continue;
		}
		if (flags & VRING_DESC_F_WRITE) {
			part = part < len ? part : len;
			gm_mark(gmem_of(vq), (gpa_t){ le64_to_cpu(d.addr) },
				part);
			len -= part;
		}
		if (!(flags & VRING_DESC_F_NEXT))
			return;
		i = le16_to_cpu(d.next);
	}
}

bool split_wants_interrupt(struct vqueue_info *vq, uint16_t old, uint16_t new)
{
	uint16_t v = 0;

	/*
	 * The used index is stored before the driver's wish is read; the
	 * driver stores its wish before it reads the used index (2.7.7.1).
	 */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);

	if (event_idx(vq)) {
		if (avail_load(vq, AVAIL_RING + 2ull * vq->vq_qsize, &v) < 0)
			return true;
		return (uint16_t)(new - v - 1) < (uint16_t)(new - old);
	}
	if (avail_load(vq, AVAIL_FLAGS, &v) < 0)
		return true;
	return !(v & VRING_AVAIL_F_NO_INTERRUPT);
}

void split_set_kicks(struct vqueue_info *vq, bool on)
{
	if (event_idx(vq)) {
		/* "none" is an event that is already past (2.7.10.1). */
		if (on)
			used_store(vq, USED_RING + 8ull * vq->vq_qsize,
				   vq->vq_last_avail);
	} else {
		used_store(vq, USED_FLAGS, on ? 0 : VRING_USED_F_NO_NOTIFY);
	}
}

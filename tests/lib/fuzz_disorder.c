/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Disorder, for the fuzz targets of devices: what a driver, a front-end and an
 * embedder may do to a device at any moment. Registers of both interfaces are
 * written in any order; memory is removed under requests and added again, in
 * pieces or unmapped, and then changes between any two reads; queues are
 * paused, stopped and resumed, or reset.
 */
#include <errno.h>
#include <string.h>

#include "core/core.h"
#include "fuzz_dev.h"

#define LOG_BYTES (VDRV_MEM_BYTES / GM_LOG_PAGE / 8)

static struct vqueue_info *queue(struct fuzz_dev *v, unsigned q)
{
	struct virtio_softc *vs = v->d.pi.pi_arg;

	return &vs->vs_queues[q];
}

/*
 * --- Registers of both interfaces ---
 */

static void common(struct fuzz_dev *v, unsigned off, int size, uint64_t val)
{
	pci_bar_write(&v->d.pi, VIRTIO_MODERN_BAR, off, size, val);
}

static void legacy(struct fuzz_dev *v, unsigned off, int size, uint64_t val)
{
	pci_bar_write(&v->d.pi, VIRTIO_LEGACY_BAR, off, size, val);
}

static void set_status(struct fuzz_dev *v, struct fuzz_in *in)
{
	static const uint8_t values[] = { 0, 1, 3, 0xb, 0xf, 7, 4, 0xff };
	uint8_t value = values[fuzz_choice(in, 8)];

	if (fuzz_bool(in))
		common(v, VIRTIO_PCI_COMMON_STATUS, 1, value);
	else
		legacy(v, VIRTIO_PCI_STATUS, 1, value);
}

/* All that is offered, but for some. */
static void set_features(struct fuzz_dev *v, struct fuzz_in *in)
{
	struct virtio_softc *vs = v->d.pi.pi_arg;
	bool modern = fuzz_bool(in);
	uint64_t bits = vi_offer(vs, modern) & ~VI_BIT(fuzz_choice(in, 64));

	if (fuzz_one_in(in, 4))
		bits ^= fuzz_int(in, 8);
	if (!modern) {
		legacy(v, VIRTIO_PCI_GUEST_FEATURES, 4, (uint32_t)bits);
		return;
	}
	for (unsigned i = 0; i < 2; i++) {
		common(v, VIRTIO_PCI_COMMON_GFSELECT, 4, i);
		common(v, VIRTIO_PCI_COMMON_GF, 4, (uint32_t)(bits >> 32 * i));
	}
}

static void set_address(struct fuzz_dev *v, unsigned reg, uint64_t gpa)
{
	common(v, reg, 4, (uint32_t)gpa);
	common(v, reg + 4, 4, gpa >> 32);
}

/*
 * Place the ring where it was, with its trailer as the driver made it, or
 * higher, so that without the trailer it ends where memory ends.
 */
static void enable_modern(struct fuzz_dev *v, unsigned q, struct fuzz_in *in)
{
	const struct vdrv_queue *ring = &v->d.q[q];
	unsigned end = fuzz_bool(in) ? 4 : 0;

	common(v, VIRTIO_PCI_COMMON_Q_SELECT, 2, q);
	if (fuzz_one_in(in, 4))
		common(v, VIRTIO_PCI_COMMON_Q_SIZE, 2,
		       1u << fuzz_choice(in, 6));
	set_address(v, VIRTIO_PCI_COMMON_Q_DESCLO, ring->desc);
	set_address(v, VIRTIO_PCI_COMMON_Q_AVAILLO, ring->avail);
	set_address(v, VIRTIO_PCI_COMMON_Q_USEDLO, ring->used + end);
	common(v, VIRTIO_PCI_COMMON_Q_ENABLE, 2, 1);
}

static void enable_queue(struct fuzz_dev *v, unsigned q, struct fuzz_in *in)
{
	struct vdrv_queue *ring = &v->d.q[q];

	if (!ring->ready)
		return;
	if (!fuzz_one_in(in, 4) && !ring->packed) { /* as an empty one */
		vdrv_set_avail_idx(&v->d, q, 0);
		memset(vdrv_ptr(&v->d, ring->used, 4), 0, 4);
	}
	if (v->d.mode == VDRV_MODERN) {
		enable_modern(v, q, in);
		return;
	}
	legacy(v, VIRTIO_PCI_QUEUE_SEL, 2, q);
	legacy(v, VIRTIO_PCI_QUEUE_PFN, 4, ring->desc >> LEGACY_VRING_PFN);
}

static void enable_queues(struct fuzz_dev *v, struct fuzz_in *in)
{
	for (unsigned q = 0; q < v->nr_queues; q++)
		enable_queue(v, q, in);
}

/* Steps of 3.1.1 in an order that the input chooses. */
static void set_up_again(struct fuzz_dev *v, struct fuzz_in *in)
{
	bool modern = v->d.mode == VDRV_MODERN;

	if (fuzz_bool(in))
		pci_reset(&v->d.pi);
	if (modern)
		common(v, VIRTIO_PCI_COMMON_STATUS, 1, 3);
	if (fuzz_bool(in))
		enable_queues(v, in);
	set_features(v, in);
	if (modern)
		common(v, VIRTIO_PCI_COMMON_STATUS, 1, 0xb);
	enable_queues(v, in);
	if (modern)
		common(v, VIRTIO_PCI_COMMON_STATUS, 1, 0xf);
	else
		legacy(v, VIRTIO_PCI_STATUS, 1, 7);
}

/* Any register at any width. */
static void access_any(struct fuzz_dev *v, struct fuzz_in *in)
{
	static const uint8_t bars[] = { VIRTIO_LEGACY_BAR, VIRTIO_MODERN_BAR,
					VIRTIO_MSIX_BAR, 5 };
	int bar = bars[fuzz_choice(in, 4)], size = 1 << fuzz_choice(in, 4);
	uint64_t off = fuzz_bool(in) ? fuzz_choice(in, 64) : fuzz_int(in, 2);

	switch (fuzz_choice(in, 4)) {
	case 0:
		pci_bar_read(&v->d.pi, bar, off, size);
		break;
	case 1:
		pci_bar_write(&v->d.pi, bar, off, size, fuzz_int(in, 2));
		break;
	case 2:
		pci_cfg_read(&v->d.pi, off & 0xff, (unsigned)size);
		break;
	default:
		pci_cfg_write(&v->d.pi, off & 0xff, (unsigned)size,
			      (uint32_t)fuzz_int(in, 4));
	}
}

/* I/O and memory stay on, Bus Master need not. */
static void set_bus_master(struct fuzz_dev *v, struct fuzz_in *in)
{
	pci_cfg_write(&v->d.pi, 4, 2, fuzz_bool(in) ? 7 : 3);
}

/*
 * --- Memory ---
 */

/* Memory that is not mapped may change between any two reads. */
static int read_unmapped(void *arg, gpa_t a, void *buf, size_t len)
{
	struct fuzz_dev *v = arg;
	void *p = vdrv_ptr(&v->d, a.v, len);

	memcpy(buf, p, len);
	if (!v->in)
		return 0;
	switch (fuzz_choice(v->in, 16)) {
	case 1:
		return -EAGAIN;
	case 2:
		fuzz_bytes(v->in, p, len < 16 ? len : 16);
		break;
	}
	return 0;
}

static int write_unmapped(void *arg, gpa_t a, const void *buf, size_t len)
{
	struct fuzz_dev *v = arg;

	memcpy(vdrv_ptr(&v->d, a.v, len), buf, len);
	return 0;
}

static const struct gmem_ops ops = { read_unmapped, write_unmapped };

static void put_back(struct fuzz_dev *v, const struct fuzz_piece *p,
		     struct fuzz_in *in)
{
	uint64_t half = p->len / 2;

	switch (p->len < 8192 ? fuzz_choice(in, 2) : fuzz_choice(in, 4)) {
	case 0:
		vdrv_restore(&v->d, p->gpa, p->len, true);
		break;
	case 1:
		vdrv_restore(&v->d, p->gpa, p->len, false);
		break;
	case 2:
		vdrv_restore(&v->d, p->gpa, half, true);
		break;
	case 3:
		vdrv_restore(&v->d, p->gpa, half, true);
		vdrv_restore(&v->d, p->gpa + half, p->len - half,
			     fuzz_bool(in));
		break;
	}
}

/* Restore a removed region, one of those present at the start. */
static void change_memory(struct fuzz_dev *v, struct fuzz_in *in)
{
	struct fuzz_piece *p;

	if (v->nr_pieces == 0) {
		v->nr_pieces = v->d.gm.nr_regions < FUZZ_MAX_PIECES ?
				       v->d.gm.nr_regions :
				       FUZZ_MAX_PIECES;
		for (unsigned i = 0; i < v->nr_pieces; i++)
			v->pieces[i] = (struct fuzz_piece){
				.gpa = v->d.gm.regions[i].base.v,
				.len = v->d.gm.regions[i].len,
			};
	}
	p = &v->pieces[fuzz_choice(in, v->nr_pieces)];
	if (!p->removed)
		vdrv_remove(&v->d, p->gpa, p->len);
	else if (v->d.gm.nr_limbo == 0)
		put_back(v, p, in);
	else
		return;
	p->removed = !p->removed;
	p->changed = true;
}

static void change_log(struct fuzz_dev *v, struct fuzz_in *in)
{
	static uint8_t *log;
	unsigned len = fuzz_choice(in, LOG_BYTES + 1);

	if (!log)
		log = fuzz_pages(LOG_BYTES, -1);
	gm_set_log(&v->d.gm, len ? log + LOG_BYTES - len : NULL, len);
}

/* A few bytes of a ring, whoever they belong to. */
static void change_ring(struct fuzz_dev *v, unsigned q, struct fuzz_in *in)
{
	const struct vdrv_queue *ring = &v->d.q[q];
	const uint64_t parts[] = { ring->desc, ring->avail, ring->used };
	const unsigned lens[] = { 16u * ring->size, 4u + 2u * ring->size,
				  4u + 8u * ring->size };
	unsigned part = fuzz_choice(in, 3);
	uint64_t off;

	if (!ring->ready)
		return;
	off = fuzz_choice(in, lens[part] / 2) * 2;
	fuzz_bytes(in, vdrv_ptr(&v->d, parts[part] + off, 2), 2);
}

/*
 * --- Queues ---
 */

/* As a front-end does: stop when nothing is in flight, then resume. */
static void stop_or_resume(struct fuzz_dev *v, unsigned q, struct fuzz_in *in)
{
	struct vqueue_info *vq = queue(v, q);

	if (vq->vq_flags && !vq->vq_priv->paused) {
		vi_pause_queue(vq);
		return;
	}
	if (vq->vq_flags && vq->vq_priv->nr_inflight == 0)
		vi_stop_queue(vq);
	if (vq->vq_flags)
		return;
	enable_queue(v, q, in);
	vq_resume(vq, (uint16_t)fuzz_choice(in, 32), false);
}

/*
 * --- All of it ---
 */

void fuzz_dev_disorder(struct fuzz_dev *v, struct fuzz_in *in)
{
	unsigned q = fuzz_choice(in, v->nr_queues);

	v->in = in;
	v->d.gm.ops = &ops;
	v->d.gm.ops_arg = v;
	switch (fuzz_choice(in, 14)) {
	case 0:
		set_status(v, in);
		break;
	case 1:
		set_features(v, in);
		break;
	case 2:
		enable_queue(v, q, in);
		break;
	case 3:
		set_up_again(v, in);
		break;
	case 4:
		access_any(v, in);
		break;
	case 5:
		set_bus_master(v, in);
		break;
	case 6:
		change_memory(v, in);
		break;
	case 7:
		common(v, VIRTIO_PCI_COMMON_Q_SELECT, 2, q);
		common(v, VIRTIO_PCI_COMMON_Q_RESET, 2, 1);
		break;
	case 8:
		change_log(v, in);
		break;
	case 9:
		change_ring(v, q, in);
		break;
	case 10:
		stop_or_resume(v, q, in);
		break;
	case 11:
		if (fuzz_bool(in))
			pci_quiesce(&v->d.pi);
		else
			pci_give_back(&v->d.pi);
		break;
	case 12:
		pci_reset(&v->d.pi);
		break;
	case 13:
		pci_kick(&v->d.pi);
		break;
	}
	vdrv_wake(&v->d);
}

/* Nothing is in flight. */
void fuzz_dev_order(struct fuzz_dev *v)
{
	v->in = NULL;
	gm_set_log(&v->d.gm, NULL, 0);
	for (unsigned i = 0; i < v->nr_pieces; i++) {
		const struct fuzz_piece *p = &v->pieces[i];

		if (!p->changed)
			continue;
		vdrv_remove(&v->d, p->gpa, p->len);
		vdrv_wake(&v->d);
		fuzz_must(v->d.gm.nr_limbo == 0);
		vdrv_restore(&v->d, p->gpa, p->len, true);
	}
	v->nr_pieces = 0;
}

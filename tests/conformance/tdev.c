/* SPDX-License-Identifier: BSD-2-Clause */
#include "tdev.h"

#include <stdlib.h>

static void tdev_reset(void *sc)
{
	struct tdev *t = sc;

	t->nr_reset++;
	if (t->give_in_reset)
		tdev_give(t, 0, t->req.idx, t->req.writable ? 8 : 0);
}

/* Copy from the readable to the writable part, piece by piece. */
static uint32_t tdev_copy(struct tdev *t)
{
	const struct iovec *r = t->iov, *end = r + t->req.readable;
	size_t off = 0;
	uint32_t done = 0;

	for (int i = t->req.readable; i < t->n; i++) {
		uint8_t *to = t->iov[i].iov_base;

		for (size_t j = 0; j < t->iov[i].iov_len; j++, done++) {
			if (t->req.readable == 0) {
				to[j] = TDEV_FILL;
				continue;
			}
			while (r < end && off == r->iov_len) {
				r++;
				off = 0;
			}
			if (r == end)
				return done;
			to[j] = ((const uint8_t *)r->iov_base)[off++];
		}
	}
	return done;
}

int tdev_take(struct tdev *t, unsigned q)
{
	t->n = vq_getchain(&t->vq[q], t->iov, t->niov, &t->req);
	if (t->n < 0)
		t->nr_bad++;
	if (t->n <= 0)
		return t->n;
	t->nr_chains[q]++;
	/* The contract of vq_getchain(), for whatever was on the ring. */
	assert_true(t->n <= t->niov);
	assert_int_equal(t->req.readable + t->req.writable, t->n);
	for (int i = 0; i < t->n; i++) {
		assert_non_null(t->iov[i].iov_base);
		assert_true(t->iov[i].iov_len > 0);
	}
	return t->n;
}

void tdev_give(struct tdev *t, unsigned q, unsigned idx, uint32_t len)
{
	vq_relchain(&t->vq[q], (uint16_t)idx, len);
}

void tdev_work(struct tdev *t, unsigned q)
{
	struct vqueue_info *vq = &t->vq[q];

	do {
		if (t->no_kicks_while_busy)
			vq_kick_disable(vq);
		t->n = 0;
		while ((!t->look_first || vq_has_descs(vq)) &&
		       tdev_take(t, q) > 0)
			tdev_give(t, q, t->req.idx, tdev_copy(t));
		if (t->no_kicks_while_busy)
			vq_kick_enable(vq);
	} while (t->n == 0 && vq_has_descs(vq));
	vq_endchains(vq, t->n == 0);
}

static void tdev_qnotify(void *sc, struct vqueue_info *vq)
{
	struct tdev *t = sc;

	assert_ptr_equal(vq, &t->vq[vq->vq_num]);
	t->nr_kicks[vq->vq_num]++;
	if (!t->hold)
		tdev_work(t, vq->vq_num);
}

static int tdev_cfgread(void *sc, int offset, int size, uint32_t *retval)
{
	struct tdev *t = sc;

	t->nr_cfgread++;
	assert_true(size == 1 || size == 2 || size == 4);
	assert_true(offset >= 0 &&
		    (size_t)offset + (size_t)size <= t->vc.vc_cfgsize);
	*retval = 0;
	for (int i = 0; i < size; i++)
		*retval |= (uint32_t)t->cfg[offset + i] << 8 * i;
	return 0;
}

static int tdev_cfgwrite(void *sc, int offset, int size, uint32_t value)
{
	struct tdev *t = sc;

	t->nr_cfgwrite++;
	assert_true(size == 1 || size == 2 || size == 4);
	assert_true(offset >= 0 &&
		    (size_t)offset + (size_t)size <= t->vc.vc_cfgsize);
	for (int i = 0; i < size; i++)
		t->cfg[offset + i] = (uint8_t)(value >> 8 * i);
	return 0;
}

static void tdev_apply_features(void *sc, uint64_t *features)
{
	struct tdev *t = sc;

	t->nr_apply++;
	if (!(*features & TDEV_F_A))
		*features &= ~TDEV_F_B;
	*features &= ~t->refuse;
	if (t->nvq_wanted)
		t->vc.vc_nvq = t->nvq_wanted;
	t->applied = *features;
}

static void tdev_set_msix(void *sc, int queue)
{
	((struct tdev *)sc)->nr_set_msix++;
}

static void tdev_update_msix(void *sc, uint64_t offset)
{
	((struct tdev *)sc)->nr_update_msix++;
}

static const struct virtio_consts tdev_consts = {
	.vc_name = "tdev",
	.vc_reset = tdev_reset,
	.vc_qnotify = tdev_qnotify,
	.vc_cfgread = tdev_cfgread,
	.vc_cfgwrite = tdev_cfgwrite,
	.vc_apply_features = tdev_apply_features,
	.vc_set_msix = tdev_set_msix,
	.vc_update_msix = tdev_update_msix,
};

void tdev_init(struct tdev *t, enum vdrv_mode drv, struct tdev_opts o)
{
	memset(t, 0, sizeof(*t));
	vdrv_init(&t->d, drv);
	t->niov = TDEV_MAX_IOV;
	for (unsigned i = 0; i < TDEV_CFG_LEN; i++)
		t->cfg[i] = (uint8_t)(0x10 + i);

	if (!o.no_callbacks)
		t->vc = tdev_consts;
	t->vc.vc_nvq = o.nvq ? o.nvq : 2;
	t->vc.vc_max_nvq = o.max_nvq;
	t->vc.vc_cfgsize = o.cfgsize < 0 ? 0 :
			   o.cfgsize     ? (size_t)o.cfgsize :
					   TDEV_CFG_LEN;
	t->vc.vc_hv_caps_modern = VI_RING_CAPS_MODERN | TDEV_F_A | TDEV_F_B |
				  TDEV_F_HIGH | o.more_modern;
	t->vc.vc_hv_caps_legacy =
		VI_RING_CAPS_LEGACY | TDEV_F_A | TDEV_F_B | o.more_legacy;

	vi_softc_linkup(&t->vs, &t->vc, t, &t->d.pi, t->vq);
	for (int i = 0; i < TDEV_MAX_Q; i++)
		t->vq[i].vq_qsize = o.qsize ? o.qsize : TDEV_QSIZE;
	vi_pci_init(&t->d.pi, o.mode ? o.mode : VIRTIO_MODE_MODERN,
		    VIRTIO_DEV_RANDOM, VIRTIO_ID_ENTROPY, PCIC_OTHER);
	assert_true(vi_intr_init(&t->vs, !o.no_msix));
	assert_true(vi_pcibar_setup(&t->vs));
}

void tdev_fini(struct tdev *t)
{
	vi_softc_fini(&t->vs);
	vdrv_fini(&t->d);
}

void tdev_start(struct tdev *t, enum vdrv_mode drv, struct tdev_opts o,
		uint64_t features, unsigned nr_queues)
{
	tdev_init(t, drv, o);
	assert_true(vdrv_start(&t->d, features, nr_queues));
}

void tdev_echo(struct tdev *t, unsigned q, uint32_t len)
{
	struct vdrv *d = &t->d;
	uint64_t out = vdrv_alloc(d, len, 1), in = vdrv_alloc(d, len + 1, 1);
	uint8_t *sent = vdrv_ptr(d, out, len), *got = vdrv_ptr(d, in, len + 1);
	struct vdrv_buf bufs[] = {
		{ out, len, VDRV_R },
		{ in, len, VDRV_W },
	};
	struct vdrv_used used;
	uint16_t head;

	for (uint32_t i = 0; i < len; i++)
		sent[i] = (uint8_t)(i * 7 + 3);
	memset(got, 0xee, len + 1);
	head = vdrv_add(d, q, bufs, 2);
	vdrv_kick(d, q);
	assert_true(vdrv_used(d, q, &used));
	assert_int_equal(used.id, head);
	assert_int_equal(used.len, len);
	assert_memory_equal(sent, got, len);
	assert_int_equal(got[len], 0xee);
	assert_false(vdrv_used(d, q, NULL));
}

void tdev_dead(struct tdev *t, unsigned q)
{
	struct vdrv *d = &t->d;
	struct vdrv_buf b = { vdrv_alloc(d, 64, 1), 64, VDRV_W };
	uint64_t sum;

	vdrv_add(d, q, &b, 1);
	sum = tdev_mem_sum(t);
	vdrv_kick(d, q);
	assert_false(vdrv_used(d, q, NULL));
	assert_int_equal(tdev_mem_sum(t), sum);
}

/* FNV-1a over the words of what the driver has allocated. */
uint64_t tdev_mem_sum(struct tdev *t)
{
	uint64_t h = 0xcbf29ce484222325, w;
	uint64_t len = (t->d.next_free - VDRV_MEM_BASE + 7) / 8 * 8;

	for (uint64_t i = 0; i < len; i += 8) {
		memcpy(&w, t->d.mem + i, 8);
		h = (h ^ w) * 0x100000001b3;
	}
	return h;
}

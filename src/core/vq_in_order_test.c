/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * IN_ORDER (6.2): chains are used in the order in which they were available,
 * each with an entry of its own: no batches (SPLIT-22, PACKED-19).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <viodev/virtio.h>

#include "base/util.h"
#include "core/core.h"
#include "vdrv.h"

enum { QSIZE = 8, NIOV = 4 };

#define PACKED   VI_BIT(VIRTIO_F_RING_PACKED)
#define IN_ORDER VI_BIT(VIRTIO_F_IN_ORDER)

/* PACKED or 0: which rings the driver has. */
static uint64_t layout;

struct dev {
	struct virtio_softc vs;
	struct vqueue_info vq;
	struct vdrv d;
	uint64_t buf;
};

static void dev_kick(void *sc, struct vqueue_info *vq)
{
}

static struct virtio_consts consts = {
	.vc_name = "vq_in_order_test",
	.vc_nvq = 1,
	.vc_qnotify = dev_kick,
	.vc_hv_caps_modern = VI_RING_CAPS_MODERN | PACKED | IN_ORDER,
};

static void dev_start(struct dev *dev)
{
	memset(dev, 0, sizeof(*dev));
	vdrv_init(&dev->d, VDRV_MODERN);
	vi_softc_linkup(&dev->vs, &consts, dev, &dev->d.pi, &dev->vq);
	dev->vq.vq_qsize = QSIZE;
	vi_pci_init(&dev->d.pi, VIRTIO_MODE_MODERN, 0, VIRTIO_ID_ENTROPY,
		    PCIC_OTHER);
	assert_true(vi_intr_init(&dev->vs, true));
	assert_true(vi_pcibar_setup(&dev->vs));
	assert_true(vdrv_start(
		&dev->d, IN_ORDER | layout | VI_BIT(VIRTIO_F_VERSION_1), 1));
	dev->buf = vdrv_alloc(&dev->d, 64, 8);
}

static void dev_fini(struct dev *dev)
{
	vi_softc_fini(&dev->vs);
	vdrv_fini(&dev->d);
}

static void take(struct dev *dev, unsigned nr, unsigned *heads)
{
	struct iovec iov[NIOV];
	struct vi_req req;

	for (unsigned n = 0; n < nr; n++) {
		assert_int_equal(vq_getchain(&dev->vq, iov, NIOV, &req), 1);
		heads[n] = req.idx;
	}
}

static unsigned nr_used(struct dev *dev)
{
	struct vdrv_used used;
	unsigned nr = 0;

	while (vdrv_used(&dev->d, 0, &used))
		nr++;
	return nr;
}

static void add_buffers(struct dev *dev, unsigned nr)
{
	while (nr-- > 0)
		vdrv_add(&dev->d, 0, &(struct vdrv_buf){ dev->buf, 8, VDRV_W },
			 1);
}

static void expect_used(struct dev *dev, unsigned head, uint32_t len)
{
	struct vdrv_used used;

	assert_true(vdrv_used(&dev->d, 0, &used));
	assert_int_equal(used.id, head);
	assert_int_equal(used.len, len);
}

/* FEAT-12: the end of each is shown in the order of the beginnings. */
static void test_order(void **state)
{
	static const unsigned orders[][4] = {
		{ 0, 1, 2, 3 },
		{ 3, 2, 1, 0 },
		{ 1, 0, 3, 2 },
		{ 2, 3, 0, 1 },
	};
	unsigned head[4];
	struct dev dev;

	dev_start(&dev);
	for (unsigned lap = 0; lap < 10 * ARRAY_LEN(orders); lap++) {
		const unsigned *order = orders[lap % ARRAY_LEN(orders)];
		bool ended[4] = { 0 };
		unsigned shown = 0;

		add_buffers(&dev, 4);
		take(&dev, 4, head);
		for (unsigned n = 0; n < 4; n++) {
			vq_relchain(&dev.vq, (uint16_t)head[order[n]],
				    order[n]);
			vq_endchains(&dev.vq, 0);
			ended[order[n]] = true;
			for (; shown < 4 && ended[shown]; shown++)
				expect_used(&dev, head[shown], shown);
			assert_int_equal(nr_used(&dev), 0);
		}
		assert_int_equal(shown, 4);
	}
	assert_false(dev.vs.vs_flags & VIRTIO_BROKEN);
	dev_fini(&dev);
}

/* An interrupt is for what is shown, and comes with it. */
static void test_interrupt(void **state)
{
	unsigned head[2], before;
	struct dev dev;

	dev_start(&dev);
	add_buffers(&dev, 2);
	take(&dev, 2, head);
	before = dev.d.nr_msix[1];
	vq_relchain(&dev.vq, (uint16_t)head[1], 8);
	vq_endchains(&dev.vq, 0);
	assert_int_equal(dev.d.nr_msix[1], before);
	vq_relchain(&dev.vq, (uint16_t)head[0], 8);
	vq_endchains(&dev.vq, 0);
	assert_int_equal(dev.d.nr_msix[1], before + 1);
	dev_fini(&dev);
}

/* IO-12: what was held back at a reset is never shown. */
static void test_reset(void **state)
{
	const uint8_t *ring, *index;
	uint8_t used[4 + 48];
	unsigned head[3];
	struct dev dev;

	dev_start(&dev);
	add_buffers(&dev, 3);
	take(&dev, 3, head);
	vq_relchain(&dev.vq, (uint16_t)head[1], 8);
	index = vdrv_ptr(&dev.d, dev.d.q[0].used, 4);
	ring = vdrv_ptr(&dev.d, dev.d.q[0].desc, 48);
	memcpy(used, index, 4);
	memcpy(used + 4, ring, 48);
	vdrv_reset_now(&dev.d);
	vq_relchain(&dev.vq, (uint16_t)head[2], 8);
	assert_int_not_equal(vdrv_status(&dev.d), 0);
	vq_relchain(&dev.vq, (uint16_t)head[0], 8);
	assert_int_equal(vdrv_status(&dev.d), 0);
	assert_memory_equal(used, index, 4);
	assert_memory_equal(used + 4, ring, 48);
	dev_fini(&dev);
}

/* An empty chain waits for those before it, and a kick is not lost by that. */
static void test_empty(void **state)
{
	unsigned head[2], empty;
	struct iovec iov[NIOV];
	struct vi_req req;
	struct dev dev;

	for (int ask = 0; ask < 2; ask++) {
		dev_start(&dev);
		add_buffers(&dev, 1);
		empty = vdrv_add(&dev.d, 0,
				 &(struct vdrv_buf){ dev.buf, 0, VDRV_W }, 1);
		add_buffers(&dev, 1);
		take(&dev, 1, head);
		if (ask)
			assert_false(vq_has_descs(&dev.vq));
		assert_int_equal(vq_getchain(&dev.vq, iov, NIOV, &req), 0);
		assert_int_equal(nr_used(&dev), 0);
		dev.d.woken = false;
		vq_relchain(&dev.vq, (uint16_t)head[0], 8);
		assert_true(dev.d.woken);
		take(&dev, 1, &head[1]);
		expect_used(&dev, head[0], 8);
		expect_used(&dev, empty, 0);
		vq_relchain(&dev.vq, (uint16_t)head[1], 8);
		expect_used(&dev, head[1], 8);
		dev_fini(&dev);
	}
}

/* Only the last ones can be given back untaken: later ones may have ended. */
static void test_return(void **state)
{
	unsigned head[3], again[3];
	struct dev dev;

	dev_start(&dev);
	add_buffers(&dev, 3);
	take(&dev, 3, head);
	assert_false(vq_retchain(&dev.vq, (uint16_t)head[0]));
	assert_true(vq_retchain(&dev.vq, (uint16_t)head[2]));
	vq_relchain(&dev.vq, (uint16_t)head[1], 1);
	vq_retchains(&dev.vq, 1); /* it has ended */
	take(&dev, 1, again);
	assert_int_equal(again[0], head[2]);
	vq_relchain(&dev.vq, (uint16_t)head[2], 2);
	assert_int_equal(nr_used(&dev), 0);
	vq_relchain(&dev.vq, (uint16_t)head[0], 0);
	for (unsigned n = 0; n < 3; n++)
		expect_used(&dev, head[n], n);
	dev_fini(&dev);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_order),  cmocka_unit_test(test_interrupt),
		cmocka_unit_test(test_reset),  cmocka_unit_test(test_empty),
		cmocka_unit_test(test_return),
	};
	int failed = cmocka_run_group_tests_name("split", tests, NULL, NULL);

	layout = PACKED;
	return failed +
	       cmocka_run_group_tests_name("packed", tests, NULL, NULL);
}

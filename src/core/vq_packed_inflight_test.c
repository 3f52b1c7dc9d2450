/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Like vq_inflight_test.c, for packed rings: a device that dies with chains in
 * flight, and what its successor takes again from the area. PK-34.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/util.h"
#include "core/core.h"
#include "vdrv.h"

#define QSIZE 7
#define V1    VI_BIT(VIRTIO_F_VERSION_1)
#define BUF   (VDRV_MEM_BASE + 0x100000ull)

/* The area in the protocol's layout. */
struct area {
	uint64_t features;
	uint16_t version, desc_num;
	uint16_t free_head, old_free_head, used_idx, old_used_idx;
	uint8_t used_wrap, old_used_wrap, padding[10];
	struct {
		uint8_t inflight, padding;
		uint16_t next, last, num;
		uint64_t counter;
		uint16_t id, flags;
		uint32_t len;
		uint64_t addr;
	} entries[QSIZE];
};
static_assert(sizeof(struct area) == 32 + QSIZE * 32, "vhost-user protocol");

struct dev {
	struct virtio_softc vs;
	struct vqueue_info vq;
	struct virtio_consts vc;
	struct vdrv d;
	struct area area;
};

static int setup(void **state)
{
	struct dev *dev = calloc(1, sizeof(*dev));

	vdrv_init(&dev->d, VDRV_MODERN);
	dev->vc = (struct virtio_consts){
		.vc_name = "inflight",
		.vc_nvq = 1,
		.vc_hv_caps_modern =
			VI_RING_CAPS_MODERN | VI_BIT(VIRTIO_F_RING_PACKED),
	};
	vi_softc_linkup(&dev->vs, &dev->vc, dev, &dev->d.pi, &dev->vq);
	dev->vq.vq_qsize = QSIZE;
	vi_pci_init(&dev->d.pi, VIRTIO_MODE_MODERN, VIRTIO_DEV_RANDOM,
		    VIRTIO_ID_ENTROPY, PCIC_OTHER);
	assert_true(vi_intr_init(&dev->vs, true));
	assert_true(vi_pcibar_setup(&dev->vs));
	assert_true(vdrv_start(&dev->d, V1 | dev->vc.vc_hv_caps_modern, 1));
	memset(&dev->area, 0xff, sizeof(dev->area));
	dev->area.version = 0;
	assert_int_equal(vq_inflight_start(&dev->vq, &dev->area), 0);
	assert_int_equal(dev->area.version, 1);
	assert_int_equal(dev->area.desc_num, QSIZE);
	*state = dev;
	return 0;
}

static int teardown(void **state)
{
	struct dev *dev = *state;

	vi_softc_fini(&dev->vs);
	vdrv_fini(&dev->d);
	free(dev);
	return 0;
}

/* The device dies, and another continues with its ring and area. */
static int revive(struct dev *dev)
{
	struct vqueue_info *vq = &dev->vq, was = *vq;

	vq_slots_fini(vq);
	vi_stop_queue(vq);
	vq->vq_desc_gpa = was.vq_desc_gpa;
	vq->vq_avail_gpa = was.vq_avail_gpa;
	vq->vq_used_gpa = was.vq_used_gpa;
	dev->vs.vs_curq = 0;
	vi_enable_queue(&dev->vs);
	/* After a crash QEMU sends the initial base. */
	vq_resume(vq, VQ_PACKED_START, true);
	return vq_inflight_start(vq, &dev->area);
}

/* A chain of @nr descriptors. */
static uint16_t offer(struct dev *dev, unsigned nr)
{
	struct vdrv_buf bufs[QSIZE];

	for (unsigned i = 0; i < nr; i++)
		bufs[i] = (struct vdrv_buf){ BUF + i, i + 1, VDRV_W };
	return vdrv_add(&dev->d, 0, bufs, nr);
}

/* The head of the next chain, or VDRV_NONE. */
static unsigned take(struct dev *dev)
{
	struct iovec iov[QSIZE];
	struct vi_req req;
	int n = vq_getchain(&dev->vq, iov, QSIZE, &req);

	if (n <= 0)
		return VDRV_NONE;
	for (int i = 0; i < n; i++) {
		assert_ptr_equal(iov[i].iov_base,
				 vdrv_ptr(&dev->d, BUF + (unsigned)i, 1));
		assert_int_equal(iov[i].iov_len, i + 1);
	}
	return req.idx;
}

static void assert_used(struct dev *dev, unsigned id)
{
	struct vdrv_used used;

	assert_true(vdrv_used(&dev->d, 0, &used));
	assert_int_equal(used.id, id);
}

/*
 * Completed ones stay completed, the rest are taken again by age, although the
 * slots of the oldest are overwritten; also across the ring's end.
 */
static void test_out_of_order(void **state)
{
	struct dev *dev = *state;

	for (int lap = 0; lap < 5; lap++) {
		uint16_t a = offer(dev, 2), b = offer(dev, 1);
		uint16_t c = offer(dev, 3), e = offer(dev, 1);

		assert_int_equal(take(dev), a);
		assert_int_equal(take(dev), b);
		assert_int_equal(take(dev), c);
		vq_relchain(&dev->vq, c, 0);
		assert_used(dev, c);
		for (int death = 0; death < 3; death++) {
			assert_int_equal(revive(dev), 0);
			assert_int_equal(take(dev), a);
			if (death == 1)
				continue; /* before the others */
			assert_int_equal(take(dev), b);
			assert_int_equal(take(dev), e);
			assert_int_equal(take(dev), VDRV_NONE);
		}
		vq_relchain(&dev->vq, e, 0);
		vq_relchain(&dev->vq, a, 0);
		assert_used(dev, e);
		assert_used(dev, a);
		assert_int_equal(revive(dev), 0);
		assert_int_equal(take(dev), b);
		assert_int_equal(take(dev), VDRV_NONE);
		vq_relchain(&dev->vq, b, 0);
		assert_used(dev, b);
		assert_int_equal(revive(dev), 0);
		assert_int_equal(take(dev), VDRV_NONE);
	}
}

/*
 * Killed before the first flags of a batch: all of it is taken again, despite
 * the others' flags, which were stored. After it: none is.
 */
static void test_batch(void **state)
{
	struct dev *dev = *state;

	for (int lap = 0; lap < 4; lap++) {
		uint16_t a = offer(dev, 1), b = offer(dev, 2),
			 c = offer(dev, 1);
		struct area before;

		for (int death = 0; death < 2; death++) {
			assert_int_equal(take(dev), a);
			assert_int_equal(take(dev), b);
			assert_int_equal(take(dev), c);
			vq_relchain_prepare(&dev->vq, c, 0);
			vq_relchain_prepare(&dev->vq, a, 0);
			assert_int_equal(revive(dev), 0);
		}
		/* In another order: the next slot is none of theirs. */
		assert_int_equal(take(dev), a);
		vq_relchain(&dev->vq, a, 0);
		assert_used(dev, a);
		assert_false(vdrv_used(&dev->d, 0, NULL));
		assert_int_equal(take(dev), b);
		assert_int_equal(take(dev), c);

		/* The driver sees it; the area is one step behind. */
		vq_relchain_prepare(&dev->vq, c, 0);
		vq_relchain_prepare(&dev->vq, b, 0);
		before = dev->area;
		vq_relchain_publish(&dev->vq);
		before.free_head = dev->area.free_head;
		before.used_idx = dev->area.used_idx;
		before.used_wrap = dev->area.used_wrap;
		for (unsigned i = 0; i < QSIZE; i++)
			before.entries[i].next = dev->area.entries[i].next;
		dev->area = before;
		assert_int_equal(revive(dev), 0);
		assert_int_equal(take(dev), VDRV_NONE);
		assert_used(dev, c);
		assert_used(dev, b);
		for (unsigned i = 0; i < QSIZE; i++)
			assert_int_equal(dev->area.entries[i].inflight, 0);
	}
}

/* Killed after the area says so, and before the driver can see it. */
static void test_batch_unseen(void **state)
{
	struct dev *dev = *state;
	uint16_t a = offer(dev, 2), b = offer(dev, 1);
	struct area area;
	uint8_t ring[16 * QSIZE];

	assert_int_equal(take(dev), a);
	assert_int_equal(take(dev), b);
	memcpy(ring, vdrv_ptr(&dev->d, dev->d.q[0].desc, sizeof(ring)),
	       sizeof(ring));
	area = dev->area;
	vq_relchain(&dev->vq, b, 0);
	memcpy(vdrv_ptr(&dev->d, dev->d.q[0].desc, sizeof(ring)), ring,
	       sizeof(ring));
	area.free_head = dev->area.free_head;
	area.used_idx = dev->area.used_idx;
	area.used_wrap = dev->area.used_wrap;
	for (unsigned i = 0; i < QSIZE; i++)
		area.entries[i].next = dev->area.entries[i].next;
	/* The chain's links are not its last entry's. */
	dev->area = area;
	assert_int_equal(revive(dev), 0);
	assert_int_equal(take(dev), a);
	assert_int_equal(take(dev), b);
	assert_int_equal(take(dev), VDRV_NONE);
	vq_relchain(&dev->vq, a, 0);
	vq_relchain(&dev->vq, b, 0);
	assert_used(dev, a);
	assert_used(dev, b);
}

/* Returned, and the queue stops: the successor takes it first. */
static void test_returned(void **state)
{
	struct dev *dev = *state;
	uint16_t a = offer(dev, 2), b = offer(dev, 2), c = offer(dev, 2);

	for (int i = 0; i < 3; i++)
		assert_true(take(dev) != VDRV_NONE);
	vq_relchain(&dev->vq, b, 0);
	assert_used(dev, b);
	assert_true(vq_retchain(&dev->vq, a));
	vq_relchain(&dev->vq, c, 0);
	assert_used(dev, c);
	assert_null(vq_left_chains(&dev->vq));
	assert_int_equal(revive(dev), 0);
	assert_int_equal(take(dev), a);
	vq_relchain(&dev->vq, a, 0);
	assert_used(dev, a);
}

/* hostile D16: nothing in the area is trusted. */
static void test_garbage(void **state)
{
	struct dev *dev = *state;
	uint16_t a = offer(dev, 2), b = offer(dev, 3);
	struct area good;
	unsigned seed = 1;

	assert_int_equal(take(dev), a);
	assert_int_equal(take(dev), b);
	good = dev->area;
	for (unsigned n = 0; n < 20000; n++) {
		uint8_t *bytes = (void *)&dev->area;

		dev->area = good;
		for (unsigned i = 0; i < 1 + n % 3; i++) {
			seed = seed * 1103515245 + 12345;
			bytes[12 + seed / 65536 % (sizeof(good) - 12)] =
				(uint8_t)(seed >> 8);
		}
		if (revive(dev) == 0) {
			struct iovec iov[QSIZE];
			struct vi_req req;

			while (vq_getchain(&dev->vq, iov, QSIZE, &req) > 0)
				vq_relchain(&dev->vq, (uint16_t)req.idx, 0);
		}
		dev->d.next_free = VDRV_MEM_BASE;
		assert_true(
			vdrv_start(&dev->d, V1 | dev->vc.vc_hv_caps_modern, 1));
	}
}

static void test_wrong_header(void **state)
{
	struct dev *dev = *state;
	const struct area good = dev->area;

	dev->area.version = 2;
	assert_int_equal(revive(dev), -EINVAL);
	dev->area = good;
	dev->area.used_idx = QSIZE;
	assert_int_equal(revive(dev), -EINVAL);
	dev->area = good;
	dev->area.old_used_idx = 0xffff;
	assert_int_equal(revive(dev), -EINVAL);
	dev->area = good;
	dev->area.old_free_head = 0x7fff; /* an empty list */
	assert_int_equal(revive(dev), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_out_of_order), TEST(test_batch),
		TEST(test_batch_unseen), TEST(test_returned),
		TEST(test_garbage),      TEST(test_wrong_header),
	};

	return cmocka_run_group_tests_name("packed_inflight", tests, NULL,
					   NULL);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A device that dies with chains in flight, and what its successor takes again
 * from the in-flight area. B7 is a section of docs/spec/protocols.md, "hostile
 * X" a row of docs/spec/hostile.md.
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

#define QSIZE 8
#define V1    VI_BIT(VIRTIO_F_VERSION_1)

/* The area in the protocol's layout. */
struct area {
	uint64_t features;
	uint16_t version, desc_num, last_batch_head, used_idx;
	struct {
		uint8_t inflight, padding[5];
		uint16_t next;
		uint64_t counter;
	} entries[QSIZE];
};

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
		.vc_hv_caps_modern = VI_RING_CAPS_MODERN,
	};
	vi_softc_linkup(&dev->vs, &dev->vc, dev, &dev->d.pi, &dev->vq);
	dev->vq.vq_qsize = QSIZE;
	vi_pci_init(&dev->d.pi, VIRTIO_MODE_MODERN, VIRTIO_DEV_RANDOM,
		    VIRTIO_ID_ENTROPY, PCIC_OTHER);
	assert_true(vi_intr_init(&dev->vs, true));
	assert_true(vi_pcibar_setup(&dev->vs));
	assert_true(vdrv_start(&dev->d, V1, 1));
	assert_int_equal(vq_inflight_start(&dev->vq, &dev->area), 0);
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
	struct vqueue_info *vq = &dev->vq;

	vq_slots_fini(vq);
	assert_int_equal(vq_slots_init(vq), 0);
	vq->vq_last_avail = vq->vq_next_used = vq->vq_save_used = 0xdead;
	vq_resume(vq, 0, true);
	return vq_inflight_start(vq, &dev->area);
}

static uint16_t offer(struct dev *dev)
{
	uint64_t gpa = vdrv_alloc(&dev->d, 16, 1);

	return vdrv_add(&dev->d, 0, (struct vdrv_buf[]){ { gpa, 16, VDRV_W } },
			1);
}

/* The head of the next chain, or VDRV_NONE. */
static unsigned take(struct dev *dev)
{
	struct iovec iov[4];
	struct vi_req req;

	if (vq_getchain(&dev->vq, iov, 4, &req) != 1)
		return VDRV_NONE;
	return req.idx;
}

/* B7: out-of-order completions stay completed; the rest recur, oldest first. */
static void test_out_of_order(void **state)
{
	struct dev *dev = *state;
	struct vdrv_used used;
	uint16_t heads[4];

	for (int i = 0; i < 4; i++)
		heads[i] = offer(dev);
	for (int i = 0; i < 3; i++)
		assert_int_equal(take(dev), heads[i]);
	vq_relchain(&dev->vq, heads[1], 0);
	assert_true(vdrv_used(&dev->d, 0, &used));
	assert_int_equal(used.id, heads[1]);

	for (int death = 0; death < 3; death++) {
		assert_int_equal(revive(dev), 0);
		assert_int_equal(take(dev), heads[0]);
		assert_int_equal(take(dev), heads[2]);
		assert_int_equal(take(dev), heads[3]);
		assert_int_equal(take(dev), VDRV_NONE);
	}
	vq_relchain(&dev->vq, heads[3], 0);
	assert_int_equal(revive(dev), 0);
	assert_int_equal(take(dev), heads[0]);
	vq_relchain(&dev->vq, heads[0], 0);
	assert_int_equal(take(dev), heads[2]);
	vq_relchain(&dev->vq, heads[2], 0);
	assert_int_equal(take(dev), VDRV_NONE);
	assert_int_equal(vdrv_used_ring_idx(&dev->d, 0), 4);
	assert_int_equal(revive(dev), 0);
	assert_int_equal(take(dev), VDRV_NONE);
}

/* Killed before the used index moved: taken again. After it: not. */
static void test_batch(void **state)
{
	struct dev *dev = *state;
	struct area before;
	uint16_t a = offer(dev), b = offer(dev);

	assert_int_equal(take(dev), a);
	assert_int_equal(take(dev), b);
	vq_relchain_prepare(&dev->vq, b, 0);
	vq_relchain_prepare(&dev->vq, a, 0);
	assert_int_equal(revive(dev), 0);
	assert_int_equal(take(dev), a);
	assert_int_equal(take(dev), b);

	/* The index has moved, the area is as it was before that. */
	vq_relchain_prepare(&dev->vq, b, 0);
	vq_relchain_prepare(&dev->vq, a, 0);
	before = dev->area;
	vq_relchain_publish(&dev->vq);
	dev->area = before;
	assert_int_equal(revive(dev), 0);
	assert_int_equal(take(dev), VDRV_NONE);
	assert_int_equal(dev->area.used_idx, 2);
}

/*
 * Recorded chains are only taken while more is available than is used. So
 * another chain is offered, which must be next.
 */
static void assert_none_resubmitted(struct dev *dev)
{
	uint16_t next = offer(dev);

	for (unsigned i = 0; i < QSIZE; i++)
		assert_int_equal(dev->area.entries[i].inflight, 0);
	assert_int_equal(take(dev), next);
	vq_relchain(&dev->vq, next, 0);
	assert_int_equal(take(dev), VDRV_NONE);
}

/*
 * Killed while a batch of three is published: the used index has moved, and
 * none, one, two or all of their records are cleared. None is taken again.
 */
static void test_batch_seen(void **state)
{
	struct dev *dev = *state;

	for (unsigned cleared = 0; cleared <= 3; cleared++) {
		uint16_t heads[3];
		struct area before;
		struct vdrv_used used;

		for (int i = 0; i < 3; i++)
			heads[i] = offer(dev);
		for (int i = 0; i < 3; i++)
			assert_int_equal(take(dev), heads[i]);
		vq_relchain_prepare(&dev->vq, heads[1], 0);
		vq_relchain_prepare(&dev->vq, heads[2], 0);
		vq_relchain_prepare(&dev->vq, heads[0], 0);
		before = dev->area;
		vq_relchain_publish(&dev->vq);
		dev->area = before;
		for (unsigned i = 0; i < cleared; i++)
			dev->area.entries[heads[(i + 1) % 3]].inflight = 0;
		for (int i = 0; i < 3; i++)
			assert_true(vdrv_used(&dev->d, 0, &used));
		assert_int_equal(revive(dev), 0);
		assert_none_resubmitted(dev);
		assert_true(vdrv_used(&dev->d, 0, &used));
	}
}

/*
 * Killed before the index has moved: the whole batch is taken again, and a
 * chain of the previous batch that is in flight again stays in flight.
 */
static void test_batch_unseen(void **state)
{
	struct dev *dev = *state;
	uint16_t old = offer(dev), a, b;
	struct vdrv_used used;
	struct area before;

	assert_int_equal(take(dev), old);
	vq_relchain(&dev->vq, old, 0);
	assert_true(vdrv_used(&dev->d, 0, &used));
	a = offer(dev);
	assert_int_equal(a, old);
	b = offer(dev);
	assert_int_equal(take(dev), a);
	assert_int_equal(take(dev), b);
	vq_relchain_prepare(&dev->vq, b, 0);
	before = dev->area;
	for (int death = 0; death < 2; death++) {
		assert_int_equal(revive(dev), 0);
		assert_int_equal(take(dev), a);
		assert_int_equal(take(dev), b);
		vq_relchain_prepare(&dev->vq, b, 0);
	}
	/* Now the index has moved: b is done, a is not. */
	vq_relchain_publish(&dev->vq);
	dev->area = before;
	assert_int_equal(revive(dev), 0);
	assert_int_equal(dev->area.entries[b].inflight, 0);
	assert_int_equal(take(dev), a);
	assert_int_equal(take(dev), VDRV_NONE);
	/* The same holds for the next successor. */
	assert_int_equal(revive(dev), 0);
	assert_int_equal(take(dev), a);
	vq_relchain(&dev->vq, a, 0);
	assert_true(vdrv_used(&dev->d, 0, &used));
	assert_true(vdrv_used(&dev->d, 0, &used));
	assert_int_equal(revive(dev), 0);
	assert_none_resubmitted(dev);
}

/* An area not used yet: whatever its contents, nothing is in flight. */
static void test_unused(void **state)
{
	struct dev *dev = *state;

	offer(dev);
	vq_relchain(&dev->vq, (uint16_t)take(dev), 0); /* the index is 1 */
	memset(&dev->area, 0xff, sizeof(dev->area));
	dev->area.version = 0;
	assert_int_equal(revive(dev), 0);
	assert_int_equal(dev->area.version, 1);
	assert_int_equal(dev->area.features, 0);
	assert_int_equal(dev->area.desc_num, QSIZE);
	assert_int_equal(dev->area.last_batch_head, 0);
	assert_int_equal(dev->area.used_idx, 1);
	assert_none_resubmitted(dev);
}

/*
 * A stale area, from when the ring was at another place: its used index is any
 * number of entries away, and at most a ring's worth is cleared.
 */
static void test_stale(void **state)
{
	struct dev *dev = *state;
	uint16_t head = offer(dev);

	assert_int_equal(take(dev), head);
	for (unsigned i = 0; i < QSIZE; i++) {
		dev->area.entries[i].inflight = 1;
		dev->area.entries[i].next = (uint16_t)((i + 1) % QSIZE);
	}
	dev->area.used_idx = 1000;
	dev->area.last_batch_head = 3;
	assert_int_equal(revive(dev), 0);
	assert_int_equal(dev->area.used_idx, 0);
	assert_int_equal(take(dev), head);

	/* The driver has seen two more than the area says: they are cleared. */
	for (unsigned i = 0; i < QSIZE; i++)
		dev->area.entries[i].inflight = i == 3 || i == 4 || i == 5;
	dev->area.used_idx = (uint16_t)-2;
	dev->area.last_batch_head = 3;
	assert_int_equal(revive(dev), 0);
	assert_int_equal(dev->area.entries[3].inflight, 0);
	assert_int_equal(dev->area.entries[4].inflight, 0);
	assert_int_equal(dev->area.entries[5].inflight, 1);
}

/* B7: by age, which is not the order of heads. */
static void test_age(void **state)
{
	struct dev *dev = *state;
	struct vdrv_used used;
	uint16_t old, young;

	old = offer(dev);
	assert_int_equal(take(dev), old);
	vq_relchain(&dev->vq, old, 0);
	old = offer(dev);
	assert_true(vdrv_used(&dev->d, 0, &used));
	young = offer(dev);
	assert_true(young < old);
	assert_int_equal(take(dev), old);
	assert_int_equal(take(dev), young);
	assert_int_equal(revive(dev), 0);
	assert_int_equal(take(dev), old);
	assert_int_equal(take(dev), young);

	/* Even when it dies before all of them were taken again. */
	assert_int_equal(revive(dev), 0);
	assert_int_equal(take(dev), old);
	assert_int_equal(revive(dev), 0);
	assert_int_equal(take(dev), old);
	assert_int_equal(take(dev), young);
}

/* Each batch ends separately. */
static void test_many_batches(void **state)
{
	struct dev *dev = *state;
	struct vdrv_used used;
	uint16_t heads[2];

	for (int i = 0; i < 3 * QSIZE; i++) {
		uint16_t head = offer(dev);

		assert_int_equal(take(dev), head);
		vq_relchain(&dev->vq, head, 0);
		assert_true(vdrv_used(&dev->d, 0, &used));
	}
	for (int i = 0; i < 2; i++)
		heads[i] = offer(dev); /* one of these was in no batch yet */
	for (int i = 0; i < 2; i++)
		assert_int_equal(take(dev), heads[i]);
	for (int i = 0; i < 2; i++)
		vq_relchain(&dev->vq, heads[i], 0);
	assert_int_equal(revive(dev), 0);
	assert_none_resubmitted(dev);
}

/* A driver that offers a chain again before it can see its completion. */
static void test_batch_full(void **state)
{
	struct dev *dev = *state;
	uint16_t head = offer(dev);

	for (int i = 0; i < 3 * QSIZE; i++) {
		assert_int_equal(take(dev), head);
		vq_relchain_prepare(&dev->vq, head, 0);
		vdrv_avail(&dev->d, 0, head);
	}
	vq_relchain_publish(&dev->vq);
	assert_int_equal(vdrv_used_ring_idx(&dev->d, 0), 3 * QSIZE);
}

/* A chain that the model returned unprocessed is not in flight. */
static void test_untaken(void **state)
{
	struct dev *dev = *state;
	uint16_t a = offer(dev), b = offer(dev), c = offer(dev);

	assert_int_equal(take(dev), a);
	assert_int_equal(take(dev), b);
	assert_int_equal(take(dev), c);
	vq_retchains(&dev->vq, 1);
	assert_int_equal(dev->area.entries[c].inflight, 0);
	vq_relchain(&dev->vq, a, 0);
	assert_int_equal(revive(dev), 0);
	assert_int_equal(take(dev), b);
	assert_int_equal(take(dev), c);
	assert_int_equal(take(dev), VDRV_NONE);

	/* Unless it was resubmitted: the ring has it in another place. */
	vq_relchain(&dev->vq, c, 0);
	assert_int_equal(revive(dev), 0);
	assert_int_equal(take(dev), b);
	vq_retchains(&dev->vq, 1);
	assert_int_equal(revive(dev), 0);
	assert_int_equal(take(dev), b);
	assert_int_equal(take(dev), VDRV_NONE);
}

/* One returned that is not the last stays recorded until it is taken again. */
static void test_untaken_between(void **state)
{
	struct dev *dev = *state;
	uint16_t a = offer(dev), b = offer(dev), c = offer(dev), d = offer(dev);

	for (int i = 0; i < 4; i++)
		assert_true(take(dev) != VDRV_NONE);
	vq_relchain(&dev->vq, b, 0);
	assert_true(vq_retchain(&dev->vq, c));
	assert_true(vq_retchain(&dev->vq, a));
	assert_true(vq_retchain(&dev->vq, d));
	assert_null(vq_left_chains(&dev->vq));
	assert_int_equal(revive(dev), 0);
	assert_int_equal(take(dev), a);
	assert_int_equal(take(dev), c);
	assert_int_equal(take(dev), d);
	assert_int_equal(take(dev), VDRV_NONE);
}

/* Positions wrap: a resubmitted chain is not taken again when they recur. */
static void test_wrap(void **state)
{
	struct dev *dev = *state;
	uint16_t heads[] = { offer(dev), offer(dev), 0 };
	struct vdrv_used used;

	assert_int_equal(take(dev), heads[0]);
	assert_int_equal(revive(dev), 0);
	/* Three heads take turns, so that positions 65536 and 0 differ. */
	for (int i = 0; i < 70000; i++) {
		assert_int_equal(take(dev), heads[i % 3]);
		heads[(i + 2) % 3] = offer(dev);
		vq_relchain(&dev->vq, heads[i % 3], 0);
		assert_true(vdrv_used(&dev->d, 0, &used));
	}
}

/* hostile D9, D16: an area full of garbage does no harm. */
static void test_garbage(void **state)
{
	struct dev *dev = *state;
	uint8_t *bytes = (uint8_t *)&dev->area;

	offer(dev);
	for (unsigned byte = 0; byte < 256; byte++) {
		memset(bytes, (int)byte, sizeof(dev->area));
		dev->area.version = 1;
		assert_int_equal(revive(dev), 0);
		for (int i = 0; i < QSIZE + 1; i++)
			take(dev);
		vq_slots_fini(&dev->vq);
		vdrv_reset(&dev->d);
		assert_true(vdrv_start(&dev->d, V1, 1));
		offer(dev);
	}
	dev->area.version = 2;
	assert_int_equal(revive(dev), -EINVAL);
}

/*
 * Without an area the front-end says where the ring resumes. The used index is
 * the guest's, and must match that.
 */
static void test_used_index_is_judged(void **state)
{
	static const struct {
		uint16_t avail, used;
		bool works;
	} rows[] = {
		{ 0, 0, true },      { QSIZE, 0, true },
		{ 3, 0xffff, true }, { QSIZE + 1, 0, false },
		{ 0, 1, false },     { 0, 0x8000, false },
	};
	struct dev *dev = *state;

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		le16 used = cpu_to_le16(rows[i].used);

		vdrv_reset(&dev->d);
		assert_true(vdrv_start(&dev->d, V1, 1));
		memcpy(&dev->vq.vq_used->idx, &used, sizeof(used));
		vq_resume(&dev->vq, rows[i].avail, false);
		assert_int_equal(!(dev->vs.vs_flags & VIRTIO_BROKEN),
				 rows[i].works);
		if (rows[i].works)
			assert_int_equal(dev->vq.vq_next_used, rows[i].used);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_out_of_order, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_batch, setup, teardown),
		cmocka_unit_test_setup_teardown(test_batch_seen, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_batch_unseen, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_unused, setup, teardown),
		cmocka_unit_test_setup_teardown(test_stale, setup, teardown),
		cmocka_unit_test_setup_teardown(test_age, setup, teardown),
		cmocka_unit_test_setup_teardown(test_many_batches, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_batch_full, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_untaken, setup, teardown),
		cmocka_unit_test_setup_teardown(test_untaken_between, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_wrap, setup, teardown),
		cmocka_unit_test_setup_teardown(test_garbage, setup, teardown),
		cmocka_unit_test_setup_teardown(test_used_index_is_judged,
						setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

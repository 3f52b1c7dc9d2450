/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What broke others and is not shown elsewhere: memory that changes under the
 * device, and states that no driver would bring about. hostile.md.
 */
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "tdev.h"

static struct tdev t;
static struct vdrv *const d = &t.d;
static const struct tdev_opts modern = { .mode = VIRTIO_MODE_MODERN };
static const uint64_t ram_end = VDRV_MEM_BASE + (uint64_t)VDRV_MEM_BYTES;

/*
 * --- Double fetch: hostile S8, K2, D8, D15, D18; SPLIT-28 ---
 *
 * A second thread flips a field between a good value and a bad one while the
 * device takes chains. Whatever it gets must lie in guest memory: the buffers
 * are at its very end, and the page after it kills.
 */

#ifdef __SANITIZE_THREAD__
#define FLIP_MS 0 /* the driver's races are meant */
#else
#define FLIP_MS 150
#endif

struct flip {
	const char *what;
	bool in_table; /* else in the ring's descriptor 0 */
	unsigned at;   /* entry */
	unsigned off;  /* byte in the descriptor */
	unsigned size;
	uint64_t good, bad;
};

static const struct flip flips[] = {
	{ "hostile S8, hostile D15: length of the table", false, 0, 8, 4, 64,
	  65536 },
	{ "hostile S8: length of the table, not a multiple", false, 0, 8, 4, 64,
	  63 },
	{ "address of the table", false, 0, 0, 8, 0, 0xfffffffffffff000 },
	{ "hostile S8: INDIRECT goes away", false, 0, 12, 2,
	  VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT },
	{ "hostile K2: length of a buffer", true, 1, 8, 4, 16, 0x7fffffff },
	{ "hostile K2: length 0", true, 1, 8, 4, 16, 0 },
	{ "hostile D18: next", true, 0, 14, 2, 1, 0xffff },
	{ "hostile D18: next, to itself", true, 0, 14, 2, 1, 0 },
	{ "flags of a buffer", true, 1, 12, 2,
	  VRING_DESC_F_NEXT | VRING_DESC_F_WRITE,
	  VRING_DESC_F_INDIRECT | VRING_DESC_F_NEXT },
	{ "direction of a buffer", true, 1, 12, 2,
	  VRING_DESC_F_NEXT | VRING_DESC_F_WRITE, VRING_DESC_F_NEXT },
	{ "address of a buffer", true, 1, 0, 8, 0, 0x1000 },
};

struct flipper {
	pthread_t thread;
	void *field;
	const struct flip *flip;
	uint64_t good;
	bool stop;
};

static void write_field(const struct flipper *f, uint64_t v)
{
	if (f->flip->size == 2)
		__atomic_store_n((uint16_t *)f->field, (uint16_t)v,
				 __ATOMIC_RELAXED);
	else if (f->flip->size == 4)
		__atomic_store_n((uint32_t *)f->field, (uint32_t)v,
				 __ATOMIC_RELAXED);
	else
		__atomic_store_n((uint64_t *)f->field, v, __ATOMIC_RELAXED);
}

static void *flip_thread(void *arg)
{
	struct flipper *f = arg;

	while (!__atomic_load_n(&f->stop, __ATOMIC_RELAXED)) {
		write_field(f, f->flip->bad);
		write_field(f, f->good);
	}
	return NULL;
}

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static void write_desc(uint64_t at, uint64_t addr, uint32_t len, uint16_t flags,
		       uint16_t next)
{
	uint8_t *p = vdrv_ptr(d, at, 16);

	memcpy(p, &(le64){ htole64(addr) }, 8);
	memcpy(p + 8, &(le32){ htole32(len) }, 4);
	memcpy(p + 12, &(le16){ htole16(flags) }, 2);
	memcpy(p + 14, &(le16){ htole16(next) }, 2);
}

/* 64 bytes of table, then 16 bytes of buffer: the last ones there are. */
static const uint64_t buf_at = ram_end - 16;
static const uint64_t table_at = ram_end - 16 - 64;

static void write_chain(void)
{
	const uint16_t n = VRING_DESC_F_NEXT, w = VRING_DESC_F_WRITE;

	vdrv_desc(d, 0, 0, table_at, 64, VRING_DESC_F_INDIRECT, 1);
	vdrv_desc(d, 0, 1, buf_at, 16, 0, 0);
	write_desc(table_at, buf_at, 16, n, 1);
	write_desc(table_at + 16, buf_at, 16, n | w, 2);
	write_desc(table_at + 32, buf_at, 16, n | w, 3);
	write_desc(table_at + 48, buf_at, 16, w, 0);
}

static void check_iov(const struct flip *flip)
{
	const uint8_t *mem = d->mem;

	for (int i = 0; i < t.n; i++) {
		const uint8_t *p = t.iov[i].iov_base;

		if (p < mem || p > mem + VDRV_MEM_BYTES ||
		    t.iov[i].iov_len > (size_t)(mem + VDRV_MEM_BYTES - p))
			fail_msg("%s: outside of guest memory", flip->what);
	}
}

static void run_flip(const struct flip *flip)
{
	struct flipper f = { .flip = flip };
	uint64_t until = now_ms() + FLIP_MS;
	unsigned nr_good = 0;

	tdev_start(&t, VDRV_MODERN, modern, V1 | INDIRECT, 1);
	write_chain();
	f.field = vdrv_ptr(d,
			   (flip->in_table ? table_at : d->q[0].desc) +
				   16 * flip->at + flip->off,
			   flip->size);
	f.good = flip->good ? flip->good : flip->in_table ? buf_at : table_at;
	pthread_create(&f.thread, NULL, flip_thread, &f);
	while (now_ms() < until) {
		vdrv_avail(d, 0, 0);
		if (tdev_take(&t, 0) > 0) {
			check_iov(flip);
			tdev_give(&t, 0, t.req.idx, UINT32_MAX);
			nr_good++;
		}
		if (!(t.vs.vs_flags & VIRTIO_BROKEN))
			continue;
		/* The ring may not move: the flipper knows where it is. */
		d->next_free = VDRV_MEM_BASE;
		assert_true(vdrv_start(d, V1 | INDIRECT, 1));
		write_chain();
	}
	__atomic_store_n(&f.stop, true, __ATOMIC_RELAXED);
	pthread_join(f.thread, NULL);
	write_field(&f, f.good);
	if (FLIP_MS && !nr_good)
		fail_msg("%s: not one good chain", flip->what);
	tdev_fini(&t);
}

static void test_flips(void **state)
{
	for (size_t i = 0; i < ARRAY_LEN(flips); i++)
		run_flip(&flips[i]);
}

/*
 * --- What the driver writes where it should not ---
 */

/* hostile S10: the device's own index is not read back. */
static void test_used_idx_rewritten(void **state)
{
	static const uint64_t features[] = { V1, V1 | EVENT_IDX };

	for (int i = 0; i < 2; i++) {
		struct vdrv_buf b;
		le16 *idx;

		tdev_start(&t, VDRV_MODERN, modern, features[i], 1);
		tdev_echo(&t, 0, 10);
		idx = vdrv_ptr(d, d->q[0].used + 2, 2);
		le16_store(idx, 0x7777);
		b = (struct vdrv_buf){ vdrv_alloc(d, 8, 1), 8, VDRV_W };
		vdrv_add(d, 0, &b, 1);
		vdrv_kick(d, 0);
		assert_int_equal(le16_load(idx), 2);
		assert_int_equal(d->nr_msix[1], 2);
		tdev_fini(&t);
	}
}

/* hostile D36, hostile D28, SPLIT-26: a jump is seen, and can be recovered. */
static void test_avail_idx_jumps(void **state)
{
	static const uint16_t jumps[] = { TDEV_QSIZE + 1, 1000, 0x8000,
					  0xffff };

	for (size_t i = 0; i < ARRAY_LEN(jumps); i++) {
		tdev_start(&t, VDRV_MODERN, modern, V1, 1);
		tdev_echo(&t, 0, 10);
		vdrv_set_avail_idx(d, 0, (uint16_t)(1 + jumps[i]));
		vdrv_kick(d, 0);
		assert_true(vdrv_status(d) & NEEDS_RESET);
		assert_int_equal(vdrv_used_ring_idx(d, 0), 1);
		assert_true(vdrv_start(d, V1, 1));
		for (int n = 0; n < 40; n++)
			tdev_echo(&t, 0, 10);
		tdev_fini(&t);
	}
}

/* hostile Q6, hostile D31: more in flight than the ring has entries. */
static void test_too_many_in_flight(void **state)
{
	tdev_start(&t, VDRV_MODERN, modern, V1, 1);
	t.hold = true;
	for (uint16_t i = 0; i < TDEV_QSIZE; i++) {
		vdrv_desc(d, 0, i, VDRV_MEM_BASE, 4, 0, 0);
		vdrv_avail(d, 0, i);
		assert_int_equal(tdev_take(&t, 0), 1);
	}
	vdrv_avail(d, 0, 7);
	assert_int_equal(tdev_take(&t, 0), -1);
	assert_true(vdrv_status(d) & NEEDS_RESET);
	/* What is in flight ends quietly. */
	for (uint16_t i = 0; i < TDEV_QSIZE; i++)
		tdev_give(&t, 0, i, 0);
	assert_int_equal(vdrv_used_ring_idx(d, 0), 0);
	tdev_fini(&t);
}

/* hostile D40: no chain of any shape is reported longer than it is. */
static void test_used_len(void **state)
{
	struct vdrv_buf bufs[8];
	uint64_t mem;

	tdev_start(&t, VDRV_MODERN, modern, V1 | INDIRECT, 1);
	mem = vdrv_alloc(d, 8192, 1);
	srand(1);
	for (int round = 0; round < 2000; round++) {
		unsigned nr = 1 + (unsigned)rand() % 8;
		unsigned nr_r = (unsigned)rand() % (nr + 1);

		for (unsigned i = 0; i < nr; i++)
			bufs[i] =
				(struct vdrv_buf){ mem + (unsigned)rand() %
								   4096,
						   (uint32_t)rand() % 300,
						   i < nr_r ? VDRV_R : VDRV_W };
		if (round & 1)
			vdrv_add_indirect(d, 0, bufs, nr);
		else
			vdrv_add(d, 0, bufs, nr);
		vdrv_kick(d, 0);
		assert_true(vdrv_used(d, 0, NULL)); /* checks the length */
	}
	assert_false(vdrv_status(d) & NEEDS_RESET);
	tdev_fini(&t);
}

/* hostile Q15: bad requests without end cost neither memory nor log lines. */
static void test_error_flood(void **state)
{
	uint64_t mark;

	tdev_start(&t, VDRV_MODERN, modern, V1 | INDIRECT, 1);
	mark = d->next_free;
	for (int i = 0; i < 5000; i++) {
		vdrv_avail(d, 0, 0xffff);
		for (int k = 0; k < 3; k++)
			vdrv_kick(d, 0);
		assert_int_equal(d->nr_msix[0], i + 1);
		d->next_free = VDRV_MEM_BASE;
		assert_true(vdrv_start(d, V1 | INDIRECT, 1));
	}
	assert_true(d->next_free == mark);
	assert_true(d->nr_log < 100);
	tdev_echo(&t, 0, 10);
	tdev_fini(&t);
}

/* The log carries nothing that the guest chose, and no newline. */
static void test_log_is_clean(void **state)
{
	tdev_start(&t, VDRV_MODERN, modern, V1, 1);
	vdrv_avail(d, 0, 0xffff);
	vdrv_kick(d, 0);
	assert_true(d->nr_log > 0);
	assert_non_null(strstr(d->last_log, "tdev"));
	assert_null(strchr(d->last_log, '\n'));
	tdev_fini(&t);
}

/*
 * --- States out of order ---
 */

/* hostile S24, hostile K11, hostile Q1: doorbells before there is a ring. */
static void test_notify_early(void **state)
{
	static const uint8_t steps[] = { 0, ACK, ACK | DRV, ACK | DRV | FEAT_OK,
					 ACK | DRV | FEAT_OK | DRV_OK };

	tdev_init(&t, VDRV_MODERN, modern);
	vdrv_probe(d);
	vdrv_common_write(d, VIRTIO_PCI_COMMON_GFSELECT, 4, 1);
	vdrv_common_write(d, VIRTIO_PCI_COMMON_GF, 4, 1);
	for (size_t i = 0; i < ARRAY_LEN(steps); i++) {
		if (steps[i])
			vdrv_set_status(d, steps[i]);
		for (uint64_t off = 0; off + 2 <= d->notify_len; off += 2)
			for (uint32_t q = 0; q < 3; q++)
				pci_bar_write(&d->pi, d->notify_bar,
					      d->notify_off + off, 2, q);
	}
	/* Live, and yet without a ring. */
	assert_int_equal(vdrv_status(d), ACK | DRV | FEAT_OK | DRV_OK);
	tdev_work(&t, 0);
	vq_interrupt(&t.vs, &t.vq[0]);
	assert_int_equal(t.nr_chains[0], 0);
	tdev_fini(&t);
}

/* hostile S25: enabled with addresses nobody wrote; then kicked. */
static void test_enable_without_addresses(void **state)
{
	tdev_init(&t, VDRV_MODERN, modern);
	vdrv_probe(d);
	vdrv_reset(d);
	vdrv_greet(d);
	assert_true(vdrv_negotiate(d, V1));
	vdrv_common_write(d, VIRTIO_PCI_COMMON_Q_SELECT, 2, 0);
	vdrv_common_write(d, VIRTIO_PCI_COMMON_Q_ENABLE, 2, 1);
	vdrv_driver_ok(d);
	pci_bar_write(&d->pi, d->notify_bar, d->notify_off, 2, 0);
	assert_int_equal(t.nr_chains[0], 0);
	assert_false(vq_ring_ready(&t.vq[0]));
	assert_true(vdrv_status(d) & NEEDS_RESET);
	/* A second try does not help either. */
	vdrv_common_write(d, VIRTIO_PCI_COMMON_Q_DESCLO, 4, VDRV_MEM_BASE);
	vdrv_common_write(d, VIRTIO_PCI_COMMON_Q_ENABLE, 2, 1);
	pci_bar_write(&d->pi, d->notify_bar, d->notify_off, 2, 0);
	assert_int_equal(t.nr_chains[0], 0);
	tdev_fini(&t);
}

/* hostile F10, hostile S15g: the model has let go before status reads 0. */
static uint8_t status_in_reset;

static void look_at_status(void *sc)
{
	status_in_reset = ((struct tdev *)sc)->vs.vs_status;
}

static void test_status_waits_for_model(void **state)
{
	tdev_start(&t, VDRV_MODERN, modern, V1, 1);
	t.vc.vc_reset = look_at_status;
	status_in_reset = 0;
	vdrv_set_status(d, 0);
	assert_int_equal(status_in_reset, ACK | DRV | FEAT_OK | DRV_OK);
	assert_int_equal(vdrv_status(d), 0);
	tdev_fini(&t);
}

/* A model that completes its requests as aborted from within vc_reset(). */
static void give_back_in_reset(void *sc)
{
	tdev_give(sc, 0, t.req.idx, 0);
	vq_endchains(&t.vq[0], 0);
}

static void test_completion_within_reset(void **state)
{
	tdev_start(&t, VDRV_MODERN, modern, V1, 1);
	t.vc.vc_reset = give_back_in_reset;
	t.hold = true;
	vdrv_add(d, 0, &(struct vdrv_buf){ VDRV_MEM_BASE, 4, VDRV_R }, 1);
	vdrv_kick(d, 0);
	assert_int_equal(tdev_take(&t, 0), 1);
	vdrv_set_status(d, 0);
	t.vc.vc_reset = NULL; /* hostile: none at all is fine too */
	t.hold = false;
	assert_true(vdrv_start(d, V1, 1));
	tdev_echo(&t, 0, 10);
	tdev_fini(&t);
}

/* hostile D22: firmware leaves a ring behind, its memory goes away. */
static void test_handover(void **state)
{
	const gpa_t fw = { 0x80000000 };
	static uint8_t mem[3 * 4096] __attribute__((aligned(4096)));

	tdev_init(&t, VDRV_MODERN, modern);
	assert_int_equal(
		gm_add(&d->gm, fw, sizeof(mem), mem, GM_READ | GM_WRITE), 0);
	vdrv_probe(d);
	vdrv_reset(d);
	vdrv_greet(d);
	assert_true(vdrv_negotiate(d, V1));
	assert_true(vdrv_queue_setup_at(d, 0, TDEV_QSIZE, fw.v, fw.v + 4096,
					fw.v + 8192));
	vdrv_driver_ok(d);
	pci_quiesce(&d->pi);
	assert_int_equal(gm_remove(&d->gm, fw, sizeof(mem), NULL, NULL), 0);
	memset(mem, 0xff, sizeof(mem));
	vdrv_kick(d, 0);
	assert_int_equal(t.nr_chains[0], 0);
	assert_int_equal(mem[8192], 0xff);
	assert_true(vdrv_start(d, V1, 1));
	tdev_echo(&t, 0, 10);
	tdev_fini(&t);
}

/* Queues that are half set up when the driver goes live. */
static void test_some_queues(void **state)
{
	tdev_start(&t, VDRV_MODERN, (struct tdev_opts){ .nvq = 4 }, V1, 2);
	tdev_echo(&t, 0, 10);
	tdev_echo(&t, 1, 10);
	pci_bar_write(&d->pi, d->notify_bar, d->notify_off, 2, 3);
	pci_kick(&d->pi);
	assert_int_equal(t.nr_chains[3], 0);
	/* One that is enabled late. */
	assert_true(vdrv_queue_setup(d, 2, 0));
	tdev_echo(&t, 2, 10);
	tdev_fini(&t);
}

/*
 * --- Anything at all ---
 *
 * Random descriptors, random registers; any of it ends in service, in an
 * error, or in nothing, and a reset always helps. hostile K1, hostile K20,
 * hostile D21 (a packed ring is not offered: its ids do not exist).
 */

static uint64_t any_address(void)
{
	static const uint64_t addrs[] = {
		0,
		VDRV_MEM_BASE,
		VDRV_MEM_BASE + 64,
		VDRV_MEM_BASE - 1,
		0xffffffffffffffff,
		0xfffffffffffffff0,
		0x100000000,
	};
	unsigned i = (unsigned)rand() % 10;

	if (i < ARRAY_LEN(addrs))
		return addrs[i];
	return i == 7 ? ram_end - (unsigned)rand() % 64 :
			VDRV_MEM_BASE + 0x200000 + (unsigned)rand() % 65536;
}

static uint32_t any_length(void)
{
	static const uint32_t lens[] = { 0,          1,          15,
					 16,         17,         32,
					 64,         4096,       65536,
					 0x7fffffff, 0xffffffff, 0xfffffff0 };

	return lens[(unsigned)rand() % ARRAY_LEN(lens)];
}

static void test_random_rings(void **state)
{
	tdev_init(&t, VDRV_MODERN, modern);
	srand(2);
	for (int round = 0; round < 3000; round++) {
		d->next_free = VDRV_MEM_BASE;
		assert_true(vdrv_start(
			d, V1 | INDIRECT | (round & 1 ? EVENT_IDX : 0), 2));
		for (uint16_t i = 0; i < TDEV_QSIZE; i++) {
			vdrv_desc(d, 0, i, any_address(), any_length(),
				  (uint16_t)(rand() % 8),
				  (uint16_t)(rand() % (TDEV_QSIZE + 1)));
			write_desc(VDRV_MEM_BASE + 0x200000 + 16u * i,
				   any_address(), any_length(),
				   (uint16_t)(rand() % 8),
				   (uint16_t)(rand() % 8));
		}
		for (int i = rand() % 5; i >= 0; i--)
			vdrv_avail(d, 0, (uint16_t)(rand() % (TDEV_QSIZE + 1)));
		/* Take, look at each byte's place, give back. */
		while (tdev_take(&t, 0) > 0) {
			check_iov(&(struct flip){ .what = "random" });
			tdev_give(&t, 0, t.req.idx, (uint32_t)rand());
		}
		vq_endchains(&t.vq[0], 1);
	}
	d->next_free = VDRV_MEM_BASE + 0x400000;
	assert_true(vdrv_start(d, V1, 1));
	tdev_echo(&t, 0, 10);
	tdev_fini(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_flips),
		cmocka_unit_test(test_used_idx_rewritten),
		cmocka_unit_test(test_avail_idx_jumps),
		cmocka_unit_test(test_too_many_in_flight),
		cmocka_unit_test(test_used_len),
		cmocka_unit_test(test_error_flood),
		cmocka_unit_test(test_log_is_clean),
		cmocka_unit_test(test_notify_early),
		cmocka_unit_test(test_enable_without_addresses),
		cmocka_unit_test(test_status_waits_for_model),
		cmocka_unit_test(test_completion_within_reset),
		cmocka_unit_test(test_handover),
		cmocka_unit_test(test_some_queues),
		cmocka_unit_test(test_random_rings),
	};

	return cmocka_run_group_tests_name("hostile", tests, NULL, NULL);
}

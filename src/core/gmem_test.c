/* SPDX-License-Identifier: BSD-2-Clause */
/* The table of guest memory: hostile S7, D1, D6, K12, F7 at its lowest. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <viodev/gmem.h>

#include "base/util.h"

#define RW          (GM_READ | GM_WRITE)
#define NO_OPS_BASE 0x20000

/*
 *	0x1000    0x2000    0x3000    0x4000    0x5000 ... 0x20000
 *	+---------+---------+         +---------+          +---------+
 *	| a, rw   | b, ro   |  hole   | c, rw   |          | not     |
 *	+---------+---------+         +---------+          | mapped  |
 */
static uint8_t host_mem[0x5000]; /* they are not adjacent here */
#define mem_a (host_mem)
#define mem_b (host_mem + 0x2000)
#define mem_c (host_mem + 0x4000)
static uint8_t far_mem[0x1000];
static int far_error;
static unsigned nr_far;

static gpa_t gpa(uint64_t v)
{
	return (gpa_t){ v };
}

static int far_read(void *arg, gpa_t a, void *buf, size_t len)
{
	assert_ptr_equal(arg, far_mem);
	assert_true(a.v >= NO_OPS_BASE && len <= sizeof(far_mem));
	assert_true(a.v - NO_OPS_BASE + len <= sizeof(far_mem));
	nr_far++;
	if (far_error)
		return far_error;
	memcpy(buf, far_mem + (a.v - NO_OPS_BASE), len);
	return 0;
}

static int far_write(void *arg, gpa_t a, const void *buf, size_t len)
{
	assert_ptr_equal(arg, far_mem);
	assert_true(a.v >= NO_OPS_BASE && len <= sizeof(far_mem));
	assert_true(a.v - NO_OPS_BASE + len <= sizeof(far_mem));
	nr_far++;
	if (far_error)
		return far_error;
	memcpy(far_mem + (a.v - NO_OPS_BASE), buf, len);
	return 0;
}

static const struct gmem_ops far_ops = { far_read, far_write };

static void fill(struct gmem *gm, const struct gmem_ops *ops)
{
	gm_init(gm, ops, far_mem);
	/* Out of order: the table sorts. */
	assert_int_equal(gm_add(gm, gpa(0x4000), 0x1000, mem_c, RW), 0);
	assert_int_equal(gm_add(gm, gpa(0x1000), 0x1000, mem_a, RW), 0);
	assert_int_equal(gm_add(gm, gpa(NO_OPS_BASE), 0x1000, NULL, RW), 0);
	assert_int_equal(gm_add(gm, gpa(0x2000), 0x1000, mem_b, GM_READ), 0);
	far_error = 0;
	nr_far = 0;
}

static void test_add(void **state)
{
	static const struct {
		const char *what;
		uint64_t base, len;
		unsigned prot;
		int ret;
	} rows[] = {
		{ "empty", 0x8000, 0, RW, -EINVAL },
		{ "no protection", 0x8000, 0x1000, 0, -EINVAL },
		{ "wraps", UINT64_MAX - 0xfff, 0x2000, RW, -EINVAL },
		{ "wraps by far", 0x8000, UINT64_MAX, RW, -EINVAL },
		{ "the same", 0x1000, 0x1000, RW, -EEXIST },
		{ "inside", 0x1800, 0x100, RW, -EEXIST },
		{ "around", 0x0, 0x10000, RW, -EEXIST },
		{ "over the start", 0x800, 0x801, RW, -EEXIST },
		{ "over the end", 0x2fff, 0x10, RW, -EEXIST },
		{ "over one not mapped", 0x20fff, 2, RW, -EEXIST },
		{ "in the hole, touching both", 0x3000, 0x1000, RW, 0 },
		{ "before all", 0x0, 0x1000, RW, 0 },
		{ "one byte", 0x5000, 1, RW, 0 },
	};
	static uint8_t mem[0x10000];
	struct gmem gm;

	fill(&gm, NULL);
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		uint32_t gen = gm.gen;
		unsigned nr = gm.nr_regions;
		int ret = gm_add(&gm, gpa(rows[i].base), rows[i].len, mem,
				 rows[i].prot);

		if (ret != rows[i].ret)
			fail_msg("%s: %d", rows[i].what, ret);
		assert_int_equal(gm.nr_regions, nr + (ret == 0));
		if (ret == 0)
			assert_int_not_equal(gm.gen, gen);
	}
	gm_fini(&gm);
}

static unsigned nr_removed;

static void count_removed(void *arg, const struct gm_region *r)
{
	assert_ptr_equal(arg, &nr_removed);
	assert_true(r->len > 0);
	nr_removed++;
}

static void test_remove(void **state)
{
	static const struct {
		const char *what;
		uint64_t base, len;
		int ret;
		unsigned nr_removed;
	} rows[] = {
		{ "nothing there", 0x3000, 0x1000, 0, 0 },
		{ "cuts the first", 0x1800, 0x10000, -EINVAL, 0 },
		{ "cuts the last", 0x1000, 0x3800, -EINVAL, 0 },
		{ "a piece of one", 0x1100, 0x100, -EINVAL, 0 },
		{ "one", 0x2000, 0x1000, 0, 1 },
		{ "one again", 0x2000, 0x1000, 0, 0 },
		{ "past the end of the address space", 0x800, UINT64_MAX, 0,
		  3 },
	};
	struct gmem gm;

	fill(&gm, NULL);
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		unsigned nr = gm.nr_regions;
		uint32_t gen = gm.gen;
		int ret;

		nr_removed = 0;
		ret = gm_remove(&gm, gpa(rows[i].base), rows[i].len,
				count_removed, &nr_removed);
		if (ret != rows[i].ret || nr_removed != rows[i].nr_removed)
			fail_msg("%s: %d, %u removed", rows[i].what, ret,
				 nr_removed);
		assert_int_equal(gm.nr_regions, nr - nr_removed);
		if (nr_removed)
			assert_int_not_equal(gm.gen, gen);
	}
	assert_int_equal(gm.nr_regions, 0);
	assert_null(gm_map(&gm, gpa(0x1000), 1, GM_READ));
	assert_int_equal(gm_remove(&gm, gpa(0), UINT64_MAX, NULL, NULL), 0);
	gm_fini(&gm);
}

static void test_map(void **state)
{
	static const struct {
		const char *what;
		uint64_t a, len;
		unsigned prot;
		uint8_t *ret;
	} rows[] = {
		{ "all of one", 0x1000, 0x1000, RW, mem_a },
		{ "its last byte", 0x1fff, 1, GM_WRITE, mem_a + 0xfff },
		{ "hostile D1: into the next", 0x1fff, 2, GM_READ, NULL },
		{ "read of read-only", 0x2000, 0x10, GM_READ, mem_b },
		{ "write of read-only", 0x2000, 0x10, GM_WRITE, NULL },
		{ "both of read-only", 0x2000, 0x10, RW, NULL },
		{ "the byte before", 0xfff, 1, GM_READ, NULL },
		{ "into the hole", 0x2fff, 2, GM_READ, NULL },
		{ "in the hole", 0x3000, 1, GM_READ, NULL },
		{ "not mapped", NO_OPS_BASE, 8, GM_READ, NULL },
		{ "hostile S7: wraps", UINT64_MAX - 7, 0x2000, GM_READ, NULL },
		{ "hostile S7: len wraps", 0x1800, UINT64_MAX, GM_READ, NULL },
		{ "len wraps to a hit", 0x1800, UINT64_MAX - 0x3ff, GM_READ,
		  NULL },
		{ "hostile K12: address 0", 0, 1, GM_READ, NULL },
		{ "the last byte of all", UINT64_MAX, 1, GM_READ, NULL },
	};
	struct gmem gm;

	fill(&gm, NULL);
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		void *p =
			gm_map(&gm, gpa(rows[i].a), rows[i].len, rows[i].prot);

		if (p != rows[i].ret)
			fail_msg("%s: %p", rows[i].what, p);
	}
	gm_fini(&gm);
}

static void test_map_iov(void **state)
{
	static const struct {
		const char *what;
		uint64_t a, len;
		unsigned prot;
		int niov;
		int ret;
		struct iovec iov[3];
	} rows[] = {
		{ "one", 0x1000, 0x20, RW, 3, 1, { { mem_a, 0x20 } } },
		{ "hostile D1: two regions",
		  0x1ff0,
		  0x20,
		  GM_READ,
		  3,
		  2,
		  { { mem_a + 0xff0, 0x10 }, { mem_b, 0x10 } } },
		{ "all of both",
		  0x1000,
		  0x2000,
		  GM_READ,
		  2,
		  2,
		  { { mem_a, 0x1000 }, { mem_b, 0x1000 } } },
		{ "too few iovecs", 0x1ff0, 0x20, GM_READ, 1, -E2BIG },
		{ "no iovecs", 0x1000, 1, GM_READ, 0, -E2BIG },
		{ "second is read-only", 0x1ff0, 0x20, GM_WRITE, 3, -EACCES },
		{ "runs into the hole", 0x2ff0, 0x20, GM_READ, 3, -EFAULT },
		{ "in the hole", 0x3000, 1, GM_READ, 3, -EFAULT },
		{ "over the hole", 0x1000, 0x4000, GM_READ, 3, -EFAULT },
		{ "not mapped", NO_OPS_BASE + 1, 8, RW, 3, -ENOTSUP },
		{ "hostile S7: wraps", UINT64_MAX - 7, 16, GM_READ, 3,
		  -EFAULT },
		{ "empty, inside", 0x1010, 0, GM_READ, 3, 0 },
	};
	struct gmem gm;

	fill(&gm, NULL);
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct iovec iov[4] = { 0 };
		int ret = gm_map_iov(&gm, gpa(rows[i].a), rows[i].len,
				     rows[i].prot, iov, rows[i].niov);

		if (ret != rows[i].ret)
			fail_msg("%s: %d", rows[i].what, ret);
		for (int j = 0; j < ret; j++)
			if (iov[j].iov_base != rows[i].iov[j].iov_base ||
			    iov[j].iov_len != rows[i].iov[j].iov_len)
				fail_msg("%s: iov %d", rows[i].what, j);
	}
	gm_fini(&gm);
}

/*
 * AP-07: an IOMMU's pages. Where they are adjacent here as well, they are one
 * piece of memory, which pins every page.
 */
static void test_joined(void **state)
{
	static const unsigned pages[] = { 0, 1, 2, 4 }; /* in the file */
	struct iovec iov[2];
	struct gmem gm;
	struct gm_pins pins;

	gm_init(&gm, NULL, NULL);
	for (unsigned i = 0; i < ARRAY_LEN(pages); i++)
		assert_int_equal(gm_add(&gm, gpa(0x1000 * i), 0x1000,
					host_mem + 0x1000 * pages[i],
					i == 2 ? GM_READ : RW),
				 0);
	gm_pin_begin(&gm);
	assert_ptr_equal(gm_map(&gm, gpa(0x10), 0x1ff0, RW), host_mem + 0x10);
	assert_int_equal(gm_pin(&gm, &pins), 0);
	assert_ptr_equal(gm_map(&gm, gpa(0x10), 0x2ff0, GM_READ),
			 host_mem + 0x10);
	assert_null(gm_map(&gm, gpa(0x10), 0x1ff1, RW));      /* read-only */
	assert_null(gm_map(&gm, gpa(0x10), 0x2ff1, GM_READ)); /* elsewhere */
	assert_null(gm_map(&gm, gpa(0x3000), 0x1001, GM_READ));

	assert_int_equal(gm_map_iov(&gm, gpa(0x10), 0x3000, GM_READ, iov, 2),
			 2);
	assert_ptr_equal(iov[0].iov_base, host_mem + 0x10);
	assert_int_equal(iov[0].iov_len, 0x2ff0);
	assert_ptr_equal(iov[1].iov_base, host_mem + 0x4000);
	assert_int_equal(iov[1].iov_len, 0x10);

	/* The second is pinned as well, although it was not looked up. */
	assert_int_equal(gm_remove(&gm, gpa(0x1000), 0x1000, NULL, NULL), 1);
	assert_null(gm_map(&gm, gpa(0x10), 0x1ff0, RW));
	assert_true(gm_unpin(&gm, &pins));
	assert_int_equal(gm_reap(&gm, NULL, NULL), 0);
	gm_fini(&gm);
}

/* The cached last hit must not outlive its region. */
static void test_hit_is_forgotten(void **state)
{
	struct gmem gm;

	fill(&gm, NULL);
	assert_ptr_equal(gm_map(&gm, gpa(0x4000), 8, RW), mem_c);
	assert_int_equal(gm_remove(&gm, gpa(0x4000), 0x1000, NULL, NULL), 0);
	assert_null(gm_map(&gm, gpa(0x4000), 8, RW));
	assert_int_equal(gm_add(&gm, gpa(0x4000), 0x1000, mem_a, RW), 0);
	assert_ptr_equal(gm_map(&gm, gpa(0x4000), 8, RW), mem_a);
	gm_fini(&gm);
}

static void test_copy(void **state)
{
	uint8_t buf[0x40], want[0x40];
	struct gmem gm;

	fill(&gm, NULL);
	memset(mem_a, 0xaa, 0x1000);
	memset(mem_b, 0xbb, 0x1000);
	memset(want, 0xaa, 0x20);
	memset(want + 0x20, 0xbb, 0x20);
	assert_int_equal(gm_read(&gm, gpa(0x1fe0), buf, sizeof(buf)), 0);
	assert_memory_equal(buf, want, sizeof(buf));

	memset(buf, 0x11, sizeof(buf));
	assert_int_equal(gm_write(&gm, gpa(0x1fc0), buf, 0x40), 0);
	assert_int_equal(mem_a[0xfbf], 0xaa);
	assert_int_equal(mem_a[0xfc0], 0x11);
	assert_int_equal(mem_a[0xfff], 0x11);

	assert_int_equal(gm_write(&gm, gpa(0x1fe0), buf, 0x40), -EACCES);
	assert_int_equal(mem_b[0], 0xbb);
	assert_int_equal(gm_read(&gm, gpa(0x2fe0), buf, 0x40), -EFAULT);
	assert_int_equal(gm_read(&gm, gpa(UINT64_MAX - 3), buf, 0x40), -EFAULT);
	assert_int_equal(gm_read(&gm, gpa(NO_OPS_BASE), buf, 4), -EFAULT);
	assert_int_equal(gm_write(&gm, gpa(NO_OPS_BASE), buf, 4), -EFAULT);
	gm_fini(&gm);
}

/* Memory that was announced but not mapped goes through the embedder. */
static void test_copy_not_mapped(void **state)
{
	uint8_t buf[16] = "0123456789abcde", back[16];
	struct gmem gm;

	fill(&gm, &far_ops);
	/* An adjacent region: one copy crosses from one to the other. */
	assert_int_equal(
		gm_add(&gm, gpa(NO_OPS_BASE - 0x1000), 0x1000, mem_a, RW), 0);
	assert_int_equal(gm_write(&gm, gpa(NO_OPS_BASE - 8), buf, 16), 0);
	assert_memory_equal(mem_a + 0xff8, buf, 8);
	assert_memory_equal(far_mem, buf + 8, 8);
	assert_int_equal(gm_read(&gm, gpa(NO_OPS_BASE - 8), back, 16), 0);
	assert_memory_equal(back, buf, 16);
	assert_int_equal(nr_far, 2);

	far_error = -EAGAIN;
	assert_int_equal(gm_read(&gm, gpa(NO_OPS_BASE), back, 4), -EAGAIN);
	assert_int_equal(gm_write(&gm, gpa(NO_OPS_BASE), back, 4), -EAGAIN);
	far_error = 0;
	assert_int_equal(gm_read(&gm, gpa(NO_OPS_BASE + 0xffc), back, 8),
			 -EFAULT);
	gm_fini(&gm);
}

static void test_many(void **state)
{
	static uint8_t mem[512];
	struct gmem gm;

	gm_init(&gm, NULL, NULL);
	for (unsigned i = 0; i < 512; i++) {
		unsigned at = i * 37 % 512; /* in no order */

		assert_int_equal(gm_add(&gm, gpa(at * 2ull), 1, mem + at, RW),
				 0);
	}
	for (unsigned i = 0; i < 512; i++) {
		assert_ptr_equal(gm_map(&gm, gpa(i * 2ull), 1, RW), mem + i);
		assert_null(gm_map(&gm, gpa(i * 2ull + 1), 1, RW));
		assert_null(gm_map(&gm, gpa(i * 2ull), 2, RW));
	}
	for (unsigned i = 1; i < 512; i++)
		assert_true(gm.regions[i - 1].base.v < gm.regions[i].base.v);
	gm_fini(&gm);
}

/* The pins of a request that uses @a. */
static struct gm_pins hold(struct gmem *gm, uint64_t a)
{
	struct gm_pins pins;

	gm_pin_begin(gm);
	assert_non_null(gm_map(gm, gpa(a), 1, GM_READ));
	assert_int_equal(gm_pin(gm, &pins), 0);
	return pins;
}

static bool let_go(struct gmem *gm, struct gm_pins *pins)
{
	return gm_unpin(gm, pins);
}

static void test_limbo(void **state)
{
	struct gm_pins first, second, other;
	struct gmem gm;

	fill(&gm, NULL);
	nr_removed = 0;
	first = hold(&gm, 0x1000);
	second = hold(&gm, 0x1fff);
	other = hold(&gm, 0x4000);

	/* This one is unused. */
	assert_int_equal(
		gm_remove(&gm, gpa(0x2000), 0x1000, count_removed, &nr_removed),
		0);
	assert_int_equal(nr_removed, 1);
	/* This one is used: it is no longer found, but still mapped. */
	assert_int_equal(
		gm_remove(&gm, gpa(0x1000), 0x1000, count_removed, &nr_removed),
		1);
	assert_null(gm_map(&gm, gpa(0x1000), 1, GM_READ));
	assert_int_equal(gm_reap(&gm, count_removed, &nr_removed), 1);
	assert_int_equal(nr_removed, 1);
	/* Its address can already be used for another one. */
	assert_int_equal(gm_add(&gm, gpa(0x1000), 0x1000, mem_b, RW), 0);
	assert_ptr_equal(gm_map(&gm, gpa(0x1000), 1, RW), mem_b);

	assert_false(let_go(&gm, &first));
	assert_false(let_go(&gm, &other));
	assert_int_equal(gm_reap(&gm, count_removed, &nr_removed), 1);
	assert_true(let_go(&gm, &second));
	assert_int_equal(nr_removed, 1); /* not before gm_reap() */
	assert_int_equal(gm_reap(&gm, count_removed, &nr_removed), 0);
	assert_int_equal(nr_removed, 2);
	gm_fini(&gm);
}

/* All of a range at once, some of it used by the same request. */
static void test_limbo_many(void **state)
{
	struct gm_pins h;
	struct gmem gm;

	fill(&gm, NULL);
	nr_removed = 0;
	gm_pin_begin(&gm);
	assert_int_equal(gm_check(&gm, gpa(0x1800), 0x1000, GM_READ), 0);
	assert_int_equal(gm_pin(&gm, &h), 0);
	assert_int_equal(
		gm_remove(&gm, gpa(0), UINT64_MAX, count_removed, &nr_removed),
		2);
	assert_int_equal(nr_removed, 2);
	assert_true(let_go(&gm, &h));
	assert_int_equal(gm_reap(&gm, count_removed, &nr_removed), 0);
	assert_int_equal(nr_removed, 4);
	gm_fini(&gm);
}

/*
 * AP-06: a region in limbo waits for the requests that use it, and for no
 * others, however many regions there are.
 */
static void test_limbo_exact(void **state)
{
	enum { NR = 300 };
	static uint8_t mem[NR];
	struct gm_pins h[NR], next[NR];
	struct gmem gm;

	gm_init(&gm, NULL, NULL);
	nr_removed = 0;
	for (unsigned i = 0; i < NR; i++)
		assert_int_equal(gm_add(&gm, gpa(2ull * i), 1, mem + i, RW), 0);
	for (unsigned i = 0; i < NR; i += 3)
		h[i] = hold(&gm, 2ull * i);
	for (unsigned i = 0; i < NR; i++) {
		bool used = i % 3 == 0;

		if (i % 3 == 2) /* stays */
			continue;
		assert_int_equal(gm_remove(&gm, gpa(2ull * i), 1, count_removed,
					   &nr_removed),
				 used);
		/* Another one, which may have the id of a removed one. */
		assert_int_equal(gm_add(&gm, gpa(2ull * i), 1, mem + i, RW), 0);
		next[i] = hold(&gm, 2ull * i);
	}
	assert_int_equal(nr_removed, NR / 3);
	for (unsigned i = 0; i < NR; i++) {
		if (i % 3 == 2)
			continue;
		assert_false(let_go(&gm, &next[i]));
	}
	for (unsigned i = 0; i < NR; i += 3) {
		assert_true(let_go(&gm, &h[i]));
		assert_int_equal(gm_reap(&gm, count_removed, &nr_removed),
				 NR / 3 - 1 - i / 3);
	}
	assert_int_equal(nr_removed, 2 * NR / 3);
	gm_fini(&gm);
}

/* AP-07: requests with very many regions, as many as may be pinned at once. */
static void test_pin_many(void **state)
{
	enum { NR = 65535, ALL = GM_MAX_MORE / (NR - GM_NR_FEW) };
	struct gm_pins pins[ALL + 1];
	struct gmem gm;
	int ret = 0;
	unsigned n;

	gm_init(&gm, NULL, NULL);
	for (unsigned i = NR; i-- > 0;)
		assert_int_equal(
			gm_add(&gm, gpa(i), 1, host_mem + i % 0x5000, RW), 0);
	for (n = 0; n <= ALL; n++) {
		gm_pin_begin(&gm);
		for (unsigned again = 0; again < 2; again++)
			assert_int_equal(gm_check(&gm, gpa(0), NR, RW), 0);
		ret = gm_pin(&gm, &pins[n]);
		if (ret < 0)
			break;
		assert_int_equal(pins[n].nr_more, NR - GM_NR_FEW);
	}
	assert_int_equal(ret, -EAGAIN);
	assert_int_equal(n, ALL);
	nr_removed = 0;
	assert_int_equal(gm_remove(&gm, gpa(0), NR, count_removed, &nr_removed),
			 NR);
	while (n-- > 0)
		assert_int_equal(let_go(&gm, &pins[n]), n == 0);
	assert_int_equal(gm_reap(&gm, count_removed, &nr_removed), 0);
	assert_int_equal(nr_removed, NR);
	assert_int_equal(gm.nr_pinned, 0);
	gm_fini(&gm);
}

/* AP-07: a million maps and unmaps later, as many fit as before. */
static void test_cycles(void **state)
{
	enum { NR = 1000, CYCLES = 1000000 };
	unsigned cap, ids;
	struct gmem gm;

	gm_init(&gm, NULL, NULL);
	nr_removed = 0;
	for (unsigned i = 0; i < NR; i++)
		assert_int_equal(gm_add(&gm, gpa(2ull * i), 1, host_mem, RW),
				 0);
	cap = gm.cap_regions;
	ids = gm.nr_ids;
	for (unsigned n = 0; n < CYCLES; n++) {
		uint64_t a = 2ull * (n * 7u % NR);

		if (gm_remove(&gm, gpa(a), 1, count_removed, &nr_removed) ||
		    gm_add(&gm, gpa(a), 1, host_mem, RW))
			fail();
	}
	assert_int_equal(nr_removed, CYCLES);
	assert_int_equal(gm.cap_regions, cap);
	assert_int_equal(gm.nr_ids, ids);
	assert_int_equal(gm.nr_regions, NR);
	gm_fini(&gm);
}

/* A page has a bit, wherever in a byte a range begins and ends. */
static void test_log(void **state)
{
	enum { FIRST = 16, PAGES = 40 };
	uint8_t log[(FIRST + PAGES) / 8 + 1];
	struct gmem gm;

	gm_init(&gm, NULL, NULL);
	gm_set_log(&gm, log, sizeof(log) - 1);
	for (uint64_t from = 0; from < PAGES + 20; from++) {
		for (uint64_t nr = 1; nr < PAGES; nr++) {
			uint64_t a = (FIRST + from) * GM_LOG_PAGE + 4095;

			memset(log, 0, sizeof(log));
			gm_mark(&gm, gpa(a), (nr - 1) * GM_LOG_PAGE + 1);
			for (uint64_t p = 0; p < FIRST + PAGES + 8; p++)
				assert_int_equal(log[p / 8] >> p % 8 & 1,
						 p >= FIRST + from &&
							 p < FIRST + from +
									 nr &&
							 p < FIRST + PAGES);
		}
	}
	memset(log, 0, sizeof(log));
	gm_mark(&gm, gpa(UINT64_MAX), 2);
	gm_mark(&gm, gpa(0), 0);
	for (size_t i = 0; i < sizeof(log); i++)
		assert_int_equal(log[i], 0);
	gm_fini(&gm);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_add),
		cmocka_unit_test(test_remove),
		cmocka_unit_test(test_map),
		cmocka_unit_test(test_map_iov),
		cmocka_unit_test(test_joined),
		cmocka_unit_test(test_hit_is_forgotten),
		cmocka_unit_test(test_copy),
		cmocka_unit_test(test_copy_not_mapped),
		cmocka_unit_test(test_many),
		cmocka_unit_test(test_log),
		cmocka_unit_test(test_limbo),
		cmocka_unit_test(test_limbo_many),
		cmocka_unit_test(test_limbo_exact),
		cmocka_unit_test(test_pin_many),
		cmocka_unit_test(test_cycles),
	};

	return cmocka_run_group_tests_name("gmem", tests, NULL, NULL);
}

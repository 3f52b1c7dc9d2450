/* SPDX-License-Identifier: BSD-2-Clause */
/* Reassembly: which fragments make a datagram, and which never do. */
#include "back/net/reass.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "back/net/inet.h"
#include "base/util.h"

#include <cmocka.h>

#define LAST      false
#define MORE      true
#define MAX_STEPS 8

static struct reass *r;
static uint8_t frame[14 + 65536], *whole;

static uint8_t byte_at(size_t off)
{
	return (uint8_t)(off * 31 + off / 256);
}

/* A fragment of @len bytes from @off on, with @options bytes of options. */
static size_t make(uint16_t id, size_t off, size_t len, bool more,
		   size_t options)
{
	uint8_t *ip = frame + ETH_BYTES;
	size_t hdr = IP4_MIN_BYTES + options;

	memset(frame, 0, ETH_BYTES + hdr);
	inet_write16(frame + 12, ETH_IP4);
	ip[0] = (uint8_t)(0x40 | hdr / 4);
	inet_write16(ip + 2, (uint16_t)(hdr + len));
	inet_write16(ip + 4, id);
	inet_write16(ip + 6, (uint16_t)((more ? 0x2000 : 0) | off / 8));
	ip[8] = 64;
	ip[9] = 17;
	inet_write16(ip + 10, (uint16_t)~inet_sum(ip, hdr, 0));
	for (size_t i = 0; i < len; i++)
		ip[hdr + i] = byte_at(off + i);
	return ETH_BYTES + hdr + len;
}

static size_t add(uint16_t id, size_t off, size_t len, bool more,
		  uint64_t now_ns)
{
	size_t n = make(id, off, len, more, 0);

	return reass_add(r, frame, n, now_ns, &whole);
}

static void check_whole(size_t got, size_t len)
{
	const uint8_t *ip = whole + ETH_BYTES;

	assert_int_equal(got, ETH_BYTES + IP4_MIN_BYTES + len);
	assert_int_equal(inet_read16(ip + 2), IP4_MIN_BYTES + len);
	assert_int_equal(inet_read16(ip + 6), 0);
	assert_int_equal(inet_sum(ip, IP4_MIN_BYTES, 0), 0xffff);
	assert_false(reass_is_fragment(whole, got));
	for (size_t i = 0; i < len; i++)
		assert_int_equal(ip[IP4_MIN_BYTES + i], byte_at(i));
}

struct step {
	size_t off, len;
	bool more;
};

static void test_orders(void **state)
{
	static const struct {
		const char *name;
		size_t total; /* 0: no datagram */
		struct step steps[MAX_STEPS];
	} rows[] = {
		{ "in order",
		  2500,
		  { { 0, 1480, MORE }, { 1480, 1020, LAST } } },
		{ "backwards",
		  24,
		  { { 16, 8, LAST }, { 8, 8, MORE }, { 0, 8, MORE } } },
		{ "middle last",
		  21,
		  { { 16, 5, LAST }, { 0, 8, MORE }, { 8, 8, MORE } } },
		{ "twice",
		  16,
		  { { 0, 8, MORE }, { 0, 8, MORE }, { 8, 8, LAST } } },
		{ "overlapping",
		  32,
		  { { 0, 16, MORE }, { 8, 16, MORE }, { 24, 8, LAST } } },
		{ "a tail without a head", 0, { { 8, 8, LAST } } },
		{ "a head without a tail", 0, { { 0, 8, MORE } } },
		{ "a hole", 0, { { 0, 8, MORE }, { 16, 8, LAST } } },
		{ "two ends",
		  0,
		  { { 16, 8, LAST },
		    { 8, 8, LAST },
		    { 0, 8, MORE },
		    { 8, 8, MORE } } },
		{ "behind the end",
		  0,
		  { { 8, 8, LAST }, { 16, 8, MORE }, { 0, 8, MORE } } },
		{ "the end comes too early",
		  0,
		  { { 16, 8, MORE }, { 8, 8, LAST }, { 0, 8, MORE } } },
		{ "not cut at a unit", 0, { { 0, 9, MORE }, { 8, 8, LAST } } },
		{ "beyond 64 KiB", 0, { { 65528, 64, LAST } } },
	};

	for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
		size_t got = 0;

		for (const struct step *s = rows[i].steps; s->len; s++)
			got += add((uint16_t)i, s->off, s->len, s->more, 1);
		if (!rows[i].total && got)
			fail_msg("%s: a datagram", rows[i].name);
		if (rows[i].total && !got)
			fail_msg("%s: no datagram", rows[i].name);
		if (rows[i].total)
			check_whole(got, rows[i].total);
	}
}

static void test_longest(void **state)
{
	size_t off = 0, got;

	for (; off + 1480 < 65515; off += 1480)
		assert_int_equal(add(1, off, 1480, MORE, 1), 0);
	got = add(1, off, 65515 - off, LAST, 1);
	check_whole(got, 65515);
	assert_int_equal(r->nr_datagrams, 1);
	assert_int_equal(r->nr_dropped, 0);
}

/* The header is the first fragment's, in any order of arrival. */
static void test_options(void **state)
{
	size_t n = make(7, 8, 8, LAST, 0), got;

	assert_int_equal(reass_add(r, frame, n, 1, &whole), 0);
	n = make(7, 0, 8, MORE, 40);
	got = reass_add(r, frame, n, 1, &whole);
	assert_int_equal(got, ETH_BYTES + 60 + 16);
	assert_int_equal(whole[ETH_BYTES], 0x4f);
	assert_int_equal(inet_sum(whole + ETH_BYTES, 60, 0), 0xffff);
}

/* The number of waiting datagrams is limited, as is their time. */
static void test_bounds(void **state)
{
	for (uint16_t id = 0; id < 1000; id++)
		assert_int_equal(add(id, 0, 8, MORE, 1 + id), 0);
	assert_int_equal(r->nr_dropped, 1000 - REASS_NR_SLOTS);
	assert_int_equal(add(995, 8, 8, LAST, 1001), 0); /* it was the oldest */
	check_whole(add(999, 8, 8, LAST, 1001), 16);
	assert_int_equal(add(998, 8, 8, LAST, 999 + REASS_TIMEOUT_NS), 0);
}

/* No length, header or flipped bit makes it read or write out of bounds. */
static void test_garbage(void **state)
{
	size_t n = make(3, 16, 64, MORE, 8);

	for (size_t len = 0; len < n; len++) {
		uint8_t *copy = malloc(len ? len : 1);

		memcpy(copy, frame, len);
		if (reass_is_fragment(copy, len))
			assert_int_equal(reass_add(r, copy, len, 1, &whole), 0);
		free(copy);
	}
	for (size_t i = 0; i < n * 8; i++) {
		frame[i / 8] ^= (uint8_t)(1 << i % 8);
		if (reass_is_fragment(frame, n))
			reass_add(r, frame, n, 1, &whole);
		frame[i / 8] ^= (uint8_t)(1 << i % 8);
	}
}

static int setup(void **state)
{
	r = calloc(1, sizeof(*r));
	return r ? 0 : -1;
}

static int teardown(void **state)
{
	free(r);
	return 0;
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

/* The options in the header make the datagram too long. */
static void test_too_long(void **state)
{
	const size_t step = 1400, total = 65535 - IP4_MIN_BYTES;

	for (size_t options = 0; options <= 40; options += 40) {
		size_t n = make(7, 0, step, MORE, options), got;

		assert_int_equal(reass_add(r, frame, n, 0, &whole), 0);
		for (size_t off = step; off + step < total; off += step)
			assert_int_equal(add(7, off, step, MORE, 0), 0);
		n = total % step;
		got = add(7, total - n, n, LAST, 0);
		assert_int_equal(got, options ? 0 : ETH_BYTES + 65535);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_orders), TEST(test_longest), TEST(test_options),
		TEST(test_bounds), TEST(test_garbage), TEST(test_too_long),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* Limits over time. The clock is the test's. */
#include "base/ratelimit.h"
#include "base/util.h"

#include <viodev/loop.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define MS 1000000ull

static uint64_t now = 1;

uint64_t vio_now_ns(void)
{
	return now;
}

static void test_take(void **state)
{
	struct ratelimit b;

	ratelimit_init(&b, 1000, 10);
	assert_int_equal(ratelimit_burst(&b), 100);
	assert_int_equal(ratelimit_level(&b), 100);
	ratelimit_consume(&b, 70);
	assert_int_equal(ratelimit_level(&b), 30);
	assert_int_equal(ratelimit_wait_ns(&b, 30), 0);
	assert_int_equal(ratelimit_wait_ns(&b, 40) / MS, 10);
	now += 5 * MS;
	assert_int_equal(ratelimit_level(&b), 35);
	now += 1000 * MS;
	assert_int_equal(ratelimit_level(&b), 100); /* and no more */
}

/* Many short queries, each within a unit's time, lose nothing. */
static void test_fractions(void **state)
{
	struct ratelimit b;

	ratelimit_init(&b, 1000, 10);
	ratelimit_consume(&b, 100);
	for (int i = 0; i < 1000; i++) {
		now += MS / 20;
		ratelimit_level(&b);
	}
	assert_int_equal(ratelimit_level(&b), 50);
}

/* A charge larger than any burst passes, and is paid for in full. */
static void test_charge(void **state)
{
	struct ratelimit b;

	ratelimit_init(&b, 1000, 10);
	now += 1000 * MS; /* does not accumulate */
	assert_int_equal(ratelimit_debt_ns(&b), 0);
	ratelimit_charge(&b, 60);
	assert_int_equal(ratelimit_debt_ns(&b), 0);
	ratelimit_charge(&b, 5040);
	assert_int_equal(ratelimit_debt_ns(&b) / MS, 5000);
	now += 2000 * MS;
	assert_int_equal(ratelimit_debt_ns(&b) / MS, 3000);
	assert_int_equal(ratelimit_level(&b), 0);
	now += 3000 * MS;
	assert_int_equal(ratelimit_debt_ns(&b), 0);
	assert_int_equal(ratelimit_level(&b), 0);
	now += 20 * MS;
	assert_int_equal(ratelimit_level(&b), 20);
}

/* Products of units and nanoseconds that exceed 64 bits. */
static void test_large(void **state)
{
	const uint64_t rates[] = { 3ull << 30, 3ull << 36, 3ull << 50 };

	for (unsigned i = 0; i < ARRAY_LEN(rates); i++) {
		uint64_t rate = rates[i];
		struct ratelimit b;

		ratelimit_init(&b, rate, 1);
		ratelimit_consume(&b, rate);
		assert_int_equal(ratelimit_wait_ns(&b, rate) / MS, 1000);
		now += 50 * MS;
		assert_in_range(ratelimit_level(&b), rate / 20 - 1, rate / 20);
		ratelimit_charge(&b, rate / 20 + rate * 1000);
		assert_in_range(ratelimit_debt_ns(&b) / MS, 999999, 1000000);
		now += 999999 * MS;
		assert_in_range(ratelimit_debt_ns(&b), MS / 2, 3 * MS / 2);
	}
}

static void test_no_limit(void **state)
{
	struct ratelimit b;

	ratelimit_init(&b, 0, 10);
	assert_true(ratelimit_level(&b) == UINT64_MAX);
	ratelimit_charge(&b, UINT64_MAX);
	ratelimit_consume(&b, UINT64_MAX);
	assert_int_equal(ratelimit_debt_ns(&b), 0);
	assert_int_equal(ratelimit_wait_ns(&b, UINT64_MAX), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_take),
		cmocka_unit_test(test_fractions),
		cmocka_unit_test(test_charge),
		cmocka_unit_test(test_large),
		cmocka_unit_test(test_no_limit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

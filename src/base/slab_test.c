/* SPDX-License-Identifier: BSD-2-Clause */
#include "base/slab.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define NR_ITEMS 3

static void test_take(void **state)
{
	struct slab slab;
	uint64_t *items[NR_ITEMS];

	assert_int_equal(slab_init(&slab, NR_ITEMS, sizeof(uint64_t)), 0);
	for (unsigned i = 0; i < NR_ITEMS; i++) {
		items[i] = slab_take(&slab);
		assert_non_null(items[i]);
		assert_int_equal(*items[i], 0);
		*items[i] = i;
	}
	assert_null(slab_take(&slab));
	for (unsigned i = 0; i < NR_ITEMS; i++) /* none overlaps another */
		assert_int_equal(*items[i], i);
	slab_fini(&slab);
}

/* The last item returned is taken next: its memory is in the cache. */
static void test_give(void **state)
{
	struct slab slab;
	void *a, *b;

	assert_int_equal(slab_init(&slab, NR_ITEMS, 24), 0);
	a = slab_take(&slab);
	b = slab_take(&slab);
	slab_give(&slab, a);
	slab_give(&slab, b);
	assert_ptr_equal(slab_take(&slab), b);
	assert_ptr_equal(slab_take(&slab), a);
	/* Only now one that was never used, and then none is left. */
	assert_int_equal(slab.nr_touched, 2);
	assert_non_null(slab_take(&slab));
	assert_null(slab_take(&slab));
	slab_give(&slab, a);
	assert_ptr_equal(slab_take(&slab), a);
	slab_fini(&slab);
}

static void test_fini(void **state)
{
	struct slab none = { 0 };

	assert_null(slab_take(&none));
	slab_fini(&none);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_take),
		cmocka_unit_test(test_give),
		cmocka_unit_test(test_fini),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

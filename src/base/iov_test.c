/* SPDX-License-Identifier: BSD-2-Clause */
#include <viodev/iov.h>

#include "base/util.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define TEXT  "0123456789abcdef"
#define BYTES 16

/* Where the 16 bytes are divided. */
static const struct {
	size_t len[BYTES + 2];
	int niov;
} shapes[] = {
	{ { 16 }, 1 },
	{ { 3, 13 }, 2 },
	{ { 0, 8, 0, 0, 8, 0 }, 6 },
	{ { 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1 }, 16 },
	{ { 15, 1 }, 2 },
};
#define NR_SHAPES ARRAY_LEN(shapes)

static struct vio_iov_cursor make(struct iovec *iov, char *bytes, size_t shape)
{
	int niov = shapes[shape].niov;

	memcpy(bytes, TEXT, BYTES);
	for (int i = 0; i < niov; i++) {
		iov[i] = (struct iovec){ bytes, shapes[shape].len[i] };
		bytes += shapes[shape].len[i];
	}
	return (struct vio_iov_cursor){ iov, niov };
}

static void test_take(void **state)
{
	struct iovec iov[BYTES + 2];
	char bytes[BYTES], got[BYTES + 1];

	for (size_t s = 0; s < NR_SHAPES; s++) {
		for (size_t first = 0; first <= BYTES; first++) {
			struct vio_iov_cursor c = make(iov, bytes, s);

			assert_int_equal(vio_iov_peek(&c, got, first), first);
			assert_memory_equal(got, TEXT, first);
			assert_int_equal(vio_iov_len(&c), BYTES);
			assert_int_equal(vio_iov_take(&c, got, first), first);
			assert_memory_equal(got, TEXT, first);
			assert_int_equal(vio_iov_len(&c), BYTES - first);
			/* More than there are. */
			assert_int_equal(vio_iov_take(&c, got, BYTES + 1),
					 BYTES - first);
			assert_memory_equal(got, &TEXT[first], BYTES - first);
			assert_int_equal(vio_iov_len(&c), 0);
			assert_int_equal(c.niov, 0);
			assert_int_equal(vio_iov_take(&c, got, 1), 0);
		}
	}
}

static void test_write(void **state)
{
	struct iovec iov[BYTES + 2];
	char bytes[BYTES], want[BYTES];

	for (size_t s = 0; s < NR_SHAPES; s++) {
		for (size_t n = 0; n <= BYTES; n++) {
			struct vio_iov_cursor c = make(iov, bytes, s);

			memcpy(want, TEXT, BYTES);
			memset(want, 'x', n);
			assert_int_equal(
				vio_iov_write(&c, "xxxxxxxxxxxxxxxxxxxx", n),
				n);
			assert_memory_equal(bytes, want, BYTES);
			memset(want + n, 0, BYTES - n);
			assert_int_equal(vio_iov_zero(&c, BYTES), BYTES - n);
			assert_memory_equal(bytes, want, BYTES);
			assert_int_equal(vio_iov_write(&c, "y", 1), 0);
		}
	}
}

static void test_take_last(void **state)
{
	struct iovec iov[BYTES + 2];
	char bytes[BYTES];

	for (size_t s = 0; s < NR_SHAPES; s++) {
		struct vio_iov_cursor c = make(iov, bytes, s);

		for (size_t n = BYTES; n > 0; n--) {
			assert_ptr_equal(vio_iov_take_last(&c), bytes + n - 1);
			assert_int_equal(vio_iov_len(&c), n - 1);
		}
		assert_null(vio_iov_take_last(&c));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_take),
		cmocka_unit_test(test_write),
		cmocka_unit_test(test_take_last),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

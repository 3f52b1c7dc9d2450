/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of other machines run under qemu-user, which lacks some of the kernel.
 * scripts/check-arch.sh sets the variable, and lists what is skipped.
 */
#ifndef TESTS_EMULATED_H
#define TESTS_EMULATED_H

#include <byteswap.h>
#include <stdint.h>
#include <byteswap.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

/*
 * It swaps the bytes read from an eventfd created here, but not those written
 * to one received over a socket.
 */
static inline uint64_t emulated_count(uint64_t count)
{
	bool swapped = __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__ &&
		       getenv("VIODEV_QEMU_USER");

	return swapped ? bswap_64(count) : count;
}

/* First in a cmocka test. */
#define SKIP_UNDER_QEMU(why)                                                 \
	do {                                                                 \
		if (getenv("VIODEV_QEMU_USER")) {                            \
			print_message("qemu-user: %s: %s\n", __func__, why); \
			skip();                                              \
		}                                                            \
	} while (0)

#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of other machines run under qemu-user, which lacks some of the kernel.
 * scripts/check-arch.sh sets the variable, and lists what is skipped.
 */
#ifndef TESTS_EMULATED_H
#define TESTS_EMULATED_H

#include <stdlib.h>

/* First in a cmocka test. */
#define SKIP_UNDER_QEMU(why)                                                 \
	do {                                                                 \
		if (getenv("VIODEV_QEMU_USER")) {                            \
			print_message("qemu-user: %s: %s\n", __func__, why); \
			skip();                                              \
		}                                                            \
	} while (0)

#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/* What the test process itself uses of the host. */
#ifndef TESTS_LIB_PROCESS_H
#define TESTS_LIB_PROCESS_H

#include <stddef.h>

/* Bytes of memory that are resident. */
size_t process_resident(void);

/* Entries of /proc/self/fd: compare two calls. */
unsigned process_nr_fds(void);

#endif

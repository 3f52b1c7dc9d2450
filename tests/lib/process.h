/* SPDX-License-Identifier: BSD-2-Clause */
/* What the test process itself uses of the host. */
#ifndef TESTS_LIB_PROCESS_H
#define TESTS_LIB_PROCESS_H

#include <stddef.h>

#include "base/pool.h"

/* Bytes of memory that are resident. */
size_t process_resident(void);

/* What the threads of a pool take at most, with a sanitizer's own books. */
#ifdef __SANITIZE_ADDRESS__
#define THREADS_BYTES (POOL_MAX_THREADS * (160u << 10))
#else
#define THREADS_BYTES (POOL_MAX_THREADS * (16u << 10))
#endif

/* Entries of /proc/self/fd: compare two calls. */
unsigned process_nr_fds(void);

#endif

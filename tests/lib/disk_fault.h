/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * For tests: the system calls of both engines, counted and made to fail.
 *
 * disk_fault.c defines preadv(), pwritev(), fdatasync() and others in place of
 * libc's, disk_fault_uring.c io_uring_submit() in place of liburing's. With
 * io_uring only reads, writes and syncs can fail, and only with EBADF.
 */
#ifndef TESTS_LIB_DISK_FAULT_H
#define TESTS_LIB_DISK_FAULT_H

#include <stdbool.h>
#include <stddef.h>

struct disk_fault {
	unsigned nr_sync, nr_write; /* calls that succeeded */
	unsigned nr_fallocate;      /* calls */
	unsigned nr_tried;          /* writes, or what was sent to io_uring */
	int sync_errno, write_errno, read_errno, fallocate_errno; /* fail so */
	int nr_interrupted; /* EINTR this often first */
	size_t max_bytes;   /* short transfers; 0: none */
	bool no_progress;
	bool hang;          /* nothing ends while this is so */
	bool hang_size;     /* nor does setting a size */
	bool no_cache;      /* nothing can be read without waiting */
	unsigned dio_align; /* O_DIRECT asks for so much */
};

extern struct disk_fault disk_fault;

/* What other threads may be looking at. */
#define FAULT_GET(field) __atomic_load_n(&disk_fault.field, __ATOMIC_SEQ_CST)
#define FAULT_SET(field, val) \
	__atomic_store_n(&disk_fault.field, val, __ATOMIC_SEQ_CST)

#define FAULT_COUNT(field) \
	__atomic_fetch_add(&disk_fault.field, 1, __ATOMIC_SEQ_CST)

/*
 * Forbid io_uring from now on, as containers do. False if that is impossible.
 */
bool refuse_io_uring(void);

/*
 * Run tests on io_uring, if available, and again on threads. Returns main()'s
 * result.
 */
int run_on_engines(int (*run)(const char *engine));

#endif

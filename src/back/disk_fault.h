/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * For tests: the system calls of the thread pool, counted and made to fail.
 *
 * disk_fault.c defines preadv(), pwritev(), fdatasync() and others in libc's
 * place. What the io_uring engine does is not seen; disk.c is the same above
 * both.
 */
#ifndef BACK_DISK_FAULT_H
#define BACK_DISK_FAULT_H

#include <stdbool.h>
#include <stddef.h>

struct disk_fault {
	unsigned nr_sync, nr_write; /* calls that succeeded */
	int sync_errno, write_errno, read_errno, fallocate_errno; /* fail so */
	int nr_interrupted; /* EINTR this often first */
	size_t max_bytes;   /* short transfers; 0: none */
	bool no_progress;
	bool hang;          /* reads and syncs do not return while this is so */
	bool no_cache;      /* nothing can be read without waiting */
	unsigned dio_align; /* O_DIRECT asks for so much */
};

extern struct disk_fault disk_fault;

/* What other threads may be looking at. */
#define FAULT_GET(field) __atomic_load_n(&disk_fault.field, __ATOMIC_SEQ_CST)
#define FAULT_SET(field, val)                                                  \
	__atomic_store_n(&disk_fault.field, val, __ATOMIC_SEQ_CST)

/*
 * What containers do: no io_uring from now on. False when it cannot be had.
 * have_io_uring() says whether there is any to begin with.
 */
bool refuse_io_uring(void);
bool have_io_uring(void);

#endif

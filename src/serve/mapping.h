/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A client's memory files, mapped so that neither our stray accesses nor the
 * client's truncation can do harm. Not installed.
 */
#ifndef SERVE_MAPPING_H
#define SERVE_MAPPING_H

#include <stddef.h>
#include <stdint.h>

struct client_wake;

struct mapped_file;

struct mapping {
	void *host; /* the requested piece */
	struct mapped_file *mem;
};

/*
 * Whether guest memory can be mapped from there: 0, or -EINVAL unless its guest
 * address, its offset in the file and its size are multiples of 4096. Rings and
 * descriptors are then aligned here as they are in the guest, and no page holds
 * bytes both of the guest and of others.
 */
int mapping_check_ram(uint64_t guest_addr, uint64_t offset, uint64_t size);

/*
 * Map @size bytes at @offset of @fd, which may be closed afterwards; @prot is a
 * set of GM_READ and GM_WRITE, and offset + size does not wrap. Returns 0,
 * -EINVAL when the range is not inside a file that can be mapped, or the error
 * of mmap(2).
 *
 * The pages before and after are inaccessible: an access that leaves the
 * mapping faults instead of reaching other memory of this process.
 *
 * The client may truncate the file later; sealing cannot be required of it
 * (QEMU does not seal). An access to the missing part then reads zeros, as does
 * the whole mapping from then on, and @wake's client has faulted: the server
 * should drop it. System calls on such memory fail with -EFAULT. Threads that
 * access it must not block SIGBUS.
 */
int mapping_create(struct client_wake *wake, int fd, uint64_t offset,
		   uint64_t size, unsigned prot, struct mapping *ret_map);
void mapping_destroy(struct mapping *map); /* all 0 is allowed */

/*
 * Handle SIGBUS from now on; other faults reach the handler that was installed
 * before. client_wake_init() calls it.
 */
void mapping_catch_faults(void);

#endif

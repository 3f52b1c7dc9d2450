/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Mapped files that others may truncate. An access beyond their end is SIGBUS,
 * which would end the process.
 */
#ifndef BASE_FAULT_H
#define BASE_FAULT_H

#include <stddef.h>

/*
 * A mapping. After a fault all of it is memory of this process, zero at first, so
 * that the access can be repeated. Then replaced() is called in the signal
 * handler: it may store to memory and write to an eventfd.
 */
struct fault_range {
	char *addr;
	size_t len;
	int prot;
	void (*replaced)(struct fault_range *range);
	struct fault_range *next, **link; /* private */
};

/*
 * Watch a range, until it is unmapped. From any thread. Threads that access it
 * must not block SIGBUS, and must not hold fault_lock().
 */
void fault_watch(struct fault_range *range);
void fault_unwatch(struct fault_range *range);

/* Between these, no replaced() runs. */
void fault_lock(void);
void fault_unlock(void);

/*
 * Handle SIGBUS from now on; other faults reach the handler that was installed
 * before.
 */
void fault_catch(void);

#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What lies at a path, to remove that and not what another process has put
 * there since. The number of an inode may be used again, so the time tells as
 * well.
 */
#ifndef BASE_UNIX_NAME_H
#define BASE_UNIX_NAME_H

#include <sys/types.h>
#include <time.h>

struct unix_name {
	dev_t dev;
	ino_t ino; /* 0: nothing */
	struct timespec made;
};

struct unix_name unix_name(const char *path);
void unix_remove(const char *path, struct unix_name name);

#endif

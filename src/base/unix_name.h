/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Identifies the file at a path, to remove it and not one that another process
 * has put there since. Inode numbers are reused, so the time counts as well.
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

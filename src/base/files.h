/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A table of named descriptors. Code with the user's rights opens files and
 * adds them; code in the sandbox takes them by name.
 */
#ifndef BASE_FILES_H
#define BASE_FILES_H

#include "base/unix_name.h"

#define OPENED_FILES_MAX 200 /* scsi has the most: three for each of 64 LUNs */

struct opened_file {
	char name[16];
	int fd;                /* -1: taken */
	struct unix_name made; /* at a path, by opening it */
};

struct opened_files {
	struct opened_file file[OPENED_FILES_MAX];
	unsigned nr;
};

/* 0, or -ENOSPC: the table is full, or the name too long. */
int opened_files_add(struct opened_files *files, const char *name, int take_fd);

/* A descriptor by its name, or -1. The caller of take() owns it then. */
int opened_files_find(const struct opened_files *files, const char *name);
int opened_files_take(struct opened_files *files, const char *name);

/* Another descriptor instead; the old one is closed. */
void opened_files_replace(struct opened_files *files, const char *name,
			  int take_fd);

/*
 * Opening @name has made what lies at @path now, a socket or a link. Remove it,
 * unless another process has put something else there since.
 */
void opened_files_made(struct opened_files *files, const char *name,
		       const char *path);
void opened_files_remove(const struct opened_files *files, const char *name,
			 const char *path);

/* Close what was not taken. */
void opened_files_close(struct opened_files *files);

#endif

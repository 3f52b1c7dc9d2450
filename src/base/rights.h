/* SPDX-License-Identifier: BSD-2-Clause */
/* What a device or its backend does that a sandbox denies by default. */
#ifndef BASE_RIGHTS_H
#define BASE_RIGHTS_H

#include <stdbool.h>
#include <stdint.h>

/*
 * The opened file by which a device requests its tree again (base/opener.h),
 * should it be removed and made again. Without a parent process there is none.
 */
#define TREE_AGAIN_FILE "tree-again"

struct sandbox_rights {
	const char *tree; /* the opened file whose directory tree it works in */
	const char *tree_path; /* of that directory, see TREE_AGAIN_FILE */
	const char *proc; /* and /proc's, of which it uses self/fd; or NULL */
	bool tree_ro;     /* it only reads there */
	bool same_user;   /* the files there are of the user who started it */
	uint64_t caps;    /* capabilities that it keeps, a bit each */
	bool network;     /* it uses the user's network, and looks up names */
	const int *syscalls;         /* beyond the type's; -1 ends */
	const unsigned long *ioctls; /* beyond the type's; 0 ends */
};

#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * When a shared directory is removed on the host and made again, a thread of
 * the parent opens it by its path and mounts it in the device's jail in place
 * of the old one (jail_tree.h).
 */
#ifndef VIODEV_TREE_AGAIN_H
#define VIODEV_TREE_AGAIN_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/files.h"
#include "base/rights.h"

struct tree_again;

/*
 * Start it for the device of @rights, whose end is added to @files, which
 * must outlive the thread; it ends when they are closed. 0 or -errno; nothing is
 * started for a directory without a path.
 */
int tree_again_start(struct opened_files *files,
		     const struct sandbox_rights *rights,
		     struct tree_again **ret_again);

/* The device process has been started. @sandbox: in a jail. */
void tree_again_set_process(struct tree_again *again, pid_t pid, bool sandbox);

#endif

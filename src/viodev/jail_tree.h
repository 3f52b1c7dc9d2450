/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Confines a device to the directory tree that it shares. A descriptor of a
 * directory leads to the whole file system that it is on, by "..". So the tree
 * is mounted again, in the jail's own root directory:
 *
 *	/                a tmpfs, not to be written
 *	/tree/0          the tree, with the mounts beneath it
 *	/proc/self/fd    the process's own descriptors, of /proc nothing else
 *	/etc             name servers, for a device that uses the network
 *
 *	jail_tree_clone()     what is to be mounted, in a new mount namespace
 *	jail_tree_attach()    beneath the directory that will be the root
 *	jail_tree_replace()   the device's descriptors, once that is the root
 *
 * All return 0 or -errno.
 */
#ifndef VIODEV_JAIL_TREE_H
#define VIODEV_JAIL_TREE_H

#include <stdbool.h>
#include <sys/types.h>

/* Contains the tree and nothing else: Landlock allows what is beneath it. */
#define JAIL_TREE_DIR "/tree"

struct jail_tree {
	int tree_fd; /* O_PATH of the directory, -1: the device shares none */
	int proc_fd; /* O_PATH of /proc, or -1 */
	int etc_fd;  /* of mounts alone: /etc, or -1 */
};

/*
 * Leave the mount namespace that @tree is of for a copy of it, and make the
 * mounts from there. A mount or unmount of the host's beneath the tree is
 * still seen; device nodes and set-id programs have no effect. @root: the
 * directory whose etc is to be /etc; NULL: none.
 */
int jail_tree_clone(const struct jail_tree *tree, bool ro, const char *root,
		    struct jail_tree *ret_mounts);
void jail_tree_close(struct jail_tree *mounts);

int jail_tree_attach(const struct jail_tree *mounts, const char *root);
int jail_tree_replace(const struct jail_tree *tree);

/*
 * Outside of the jail: put another directory in place of the tree of device
 * process @pid, @pidfd, in its namespaces and as jail_tree_clone() would. Returns
 * a descriptor of it for the device. -EPERM: the process has no mounts of its
 * own. Any thread may call it.
 */
int jail_tree_renew(pid_t pid, int pidfd, int tree_fd, bool ro);

#endif

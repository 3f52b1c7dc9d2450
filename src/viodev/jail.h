/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The sandbox of a device process. Rights are given up in three stages:
 *
 *  1. The parent starts the process in namespaces of its own where it may
 *     (spawn.c): no network, unless that is what the device is for, and no
 *     shared memory to be seen.
 *  2. jail_enter(), before the device is made: limits, an empty read-only root
 *     directory, user nobody, no capabilities, no new privileges, no files by
 *     Landlock. What is needed is open by then.
 *  3. jail_seal(), after the device is made and before a byte is read from
 *     guest, front-end or disk: only the system calls that are listed, on all
 *     threads, some with certain arguments alone, and no executable memory.
 *     Any other call fails with ENOSYS: a library that logs or fails may try
 *     one. What only an intruder asks for (other processes, programs, code)
 *     kills the process.
 *
 * What a kernel or a container does not grant in 1 and 2 is skipped, with a
 * line for --verbose; the last of 2 (capabilities, no new privileges) and 3
 * must work. A device that shares a directory needs a mount namespace or
 * Landlock.
 */
#ifndef VIODEV_JAIL_H
#define VIODEV_JAIL_H

#include <stdbool.h>

#include "viodev/jail_tree.h"

struct json_object;
struct sandbox_rights;

/*
 * The namespaces that are asked for; an ordinary user needs NEWUSER as well.
 * Not NEWPID: its first process ignores the signals that should kill it, so
 * that an abort() would not be told as one. Stage 3 forbids signals.
 */
#define JAIL_NAMESPACES \
	(CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS)

/*
 * Built with the address sanitizer: what its runtime needs is allowed, and its
 * fork() for a report is refused and does not kill.
 */
#if defined(__SANITIZE_ADDRESS__)
#define JAIL_WITH_ASAN
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define JAIL_WITH_ASAN
#endif
#endif

/* Which parts are active. */
struct jail {
	unsigned long namespaces; /* CLONE_NEW*, told by the parent */
	const char *root;         /* what is left of the files; NULL: nothing */
	bool empty_root;
	bool own_tree; /* of the host's files the shared tree is all it has */
	bool nobody;
	bool no_capabilities;
	bool no_new_privs;
	int landlock; /* its version, 0: none */
	bool seccomp;
};

/*
 * The memory of io_uring's rings counts as locked, and as that of all processes
 * of the user: let a device have one even if it is the user's thousandth. Due
 * before jail_enter(); jail_seal() sets the limit to 0.
 */
void jail_raise_memlock(void);

/*
 * @rights: what the device is allowed nevertheless; @tree: the directory that
 * they name. 0 or -errno, after a line in the log.
 */
int jail_enter(struct jail *jail, const struct sandbox_rights *rights,
	       const struct jail_tree *tree);

/*
 * Whether the filter sees the arguments of socket() and socketpair(). On some
 * machines the C library makes them by socketcall(2), with arguments in memory:
 * a device that is allowed sockets can then make any.
 */
#if defined(__i386__) || defined(__s390x__)
#define JAIL_SEES_SOCKETS 0
#else
#define JAIL_SEES_SOCKETS 1
#endif

/*
 * @lists: arrays of system call numbers, each ended by -1; NULL ends. Calls
 * with many uses (mmap, fcntl, socket) are narrowed, in every list.
 * @ioctls: likewise of requests, each ended by 0; there is no other ioctl.
 */
int jail_seal(struct jail *jail, const int *const lists[],
	      const unsigned long *const ioctls[]);

void jail_status(const struct jail *jail, struct json_object *to);

#endif

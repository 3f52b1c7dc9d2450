/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Reopen what was lost: a deleted tap, a disconnected peer. A sandboxed device
 * cannot, so a thread outside its sandbox does:
 *
 *	device, in its sandbox		opener, a thread of who opened it
 *	  reopener_request()  --a byte-->  open(), until it succeeds
 *	  cb(fds)            <--fds------
 *
 * A socket pair connects them. The device's end is one of its opened files;
 * when all copies of it are closed, the thread ends, after an open() that may
 * still be running.
 */
#ifndef BASE_OPENER_H
#define BASE_OPENER_H

#include <viodev/loop.h>

#include "base/files.h"
#include "base/scm.h"

#define OPENER_MAX_FDS SCM_MAX_FDS

/*
 * --- Outside of the sandbox ---
 */

/*
 * Try once; it may block. Returns the number of descriptors that it puts into
 * @fds, 1 to OPENER_MAX_FDS, or -errno.
 */
typedef int opener_fn(void *arg, int *fds);

/*
 * Start the thread and add the device's end to @files as @name. Attempts back
 * off exponentially, up to @max_wait_ms. The thread takes ownership of
 * @take_arg and calls free() on it; on failure (-errno) the caller keeps it.
 */
int opener_start(struct opened_files *files, const char *name, opener_fn *open,
		 unsigned max_wait_ms, void *take_arg);

/*
 * For a device that is to be started again and needs what was lost: as the
 * opener's answer to its request. Returns the number of descriptors in @fds, the
 * caller's; or -EAGAIN after a request: call again later.
 */
int opener_take(const struct opened_files *files, const char *name, int *fds);

/*
 * --- In the sandbox; threads: the loop's ---
 */

struct reopener;

/* The caller takes ownership of the descriptors. */
typedef void reopener_cb(void *arg, const int *take_fds, unsigned nr);

int reopener_create(struct vio_loop *loop, int take_fd, reopener_cb *cb,
		    void *arg, struct reopener **ret_reopener);
void reopener_destroy(struct reopener *reopener); /* may be NULL */

/* Ask for the descriptors, once until they arrive. */
void reopener_request(struct reopener *reopener);

/* The system calls of a device that has one; -1 ends. */
#define REOPENER_SYSCALLS SYS_recvmsg, SYS_sendto

#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The storage engine: asynchronous reads and writes of a disk image, straight
 * from and to the buffers of the request.
 *
 * An image is a raw file or a block device. Requests are submitted one by one
 * and go to the kernel in batches, at the end of the loop's iteration or with
 * disk_submit(). Each completes by its callback, on the loop's thread, in any
 * order, possibly before the call that starts it returns. The work is done
 * (struct disk_io) by io_uring where permitted, otherwise by a small pool of
 * threads; several disks may share them.
 *
 * Stable data stays stable: a flush (or a write with dr_fua) that succeeded is
 * on the medium. After a failed flush it is unknown which of the earlier writes
 * the kernel has dropped, so every later one fails until the image is reopened.
 *
 * Threads: the loop's. Results are 0 or -errno.
 */
#ifndef BACK_DISK_DISK_H
#define BACK_DISK_DISK_H

#include <linux/fs.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/syscall.h>

#include "back/disk/image.h"
#include "back/disk/request.h"
#include "base/err.h"
#include "base/pool.h"

struct disk;
struct disk_io;
struct vio_loop;

/* By its name in options: report, wait, enospc. */
enum disk_on_error disk_on_error(const char *name);

/*
 * An executor for up to @nr_disks disks with @depth requests in flight in
 * total. A sandbox forbids creating it; disks can be created inside the
 * sandbox.
 */
int disk_io_create(struct vio_loop *loop, unsigned depth, unsigned nr_disks,
		   struct disk_io **ret_io);

/*
 * After its disks; may be NULL. No callback is called from here on. Requests
 * that have begun get half a second to end. False: the kernel still works on
 * some, so the caller must not free requests or buffers any more. The memory
 * that they use here stays as well.
 */
bool disk_io_destroy(struct disk_io *io);

/* Create a disk from a descriptor of disk_open(). */
int disk_create(struct disk_io *io, int take_fd,
		const struct disk_params *params, struct disk **ret_disk,
		struct err *err);

/*
 * Forget the requests (see disk_forget()) and, when the last one that has begun
 * has ended, free the disk. Returns at once. May be NULL.
 */
void disk_destroy(struct disk *disk);

void disk_get_info(const struct disk *disk, struct disk_info *ret_info);

/*
 * Whether the image does not consist of whole blocks; then what that means, as
 * a line for the log.
 */
bool disk_odd_size(const struct disk *disk, char *text, size_t size);

/*
 * Start a request; send what is queued without waiting for the iteration's end.
 */
void disk_start(struct disk *disk, struct disk_req *req);
void disk_submit(struct disk *disk);

/*
 * Forget requests: one that has not begun is done with -ECANCELED in a later
 * iteration of the loop; one that the kernel works on is done when it ends,
 * however long that takes, with whatever result. Until the last of them has
 * ended new requests wait, so that no stale write overtakes theirs. Returns at
 * once, and no callback is called from inside.
 */
void disk_forget(struct disk *disk);

/*
 * Requests that failed, and are to wait, are not done until disk_resume() lets
 * all of them try again, or disk_forget() drops them. @fn is called for each
 * when it begins to wait; disk_nr_waiting() is 1 for the first. A request that
 * a failed fdatasync() has ended never waits: the kernel may have dropped data
 * that it could not write, so a retry would only appear to help.
 */
void disk_set_on_wait(struct disk *disk,
		      void (*fn)(void *arg, enum disk_op op, int error),
		      void *arg);
unsigned disk_nr_waiting(const struct disk *disk);
void disk_resume(struct disk *disk);

/*
 * Take back the waiting requests for which @fn returns true: they are the
 * caller's again, without being done. May be called when one begins to wait.
 */
void disk_take_back(struct disk *disk,
		    bool (*fn)(void *arg, struct disk_req *req), void *arg);

/*
 * Set the size of a file; for a block device @bytes is ignored and the size is
 * only read again. 0 when that is done; 1 while the image does not answer: the
 * size is set when it does. -EEXIST where that would cut the file and @shrink is
 * false. Otherwise -errno with the reason.
 *
 * A file shrinks when the requests that have begun have ended, since they could
 * extend it again. New ones wait for that.
 */
int disk_resize(struct disk *disk, uint64_t bytes, bool shrink,
		struct err *err);

/* Called when the image's size has changed, by us or by others. */
void disk_set_notify(struct disk *disk, void (*fn)(void *arg, uint64_t bytes),
		     void *arg);

/*
 * Notice changes of the size by others, through a descriptor of
 * disk_open_watch(). -errno on failure.
 */
int disk_watch(struct disk *disk, int take_fd);

/*
 * System calls that the engine makes once it is created, for the sandbox:
 *	io_uring_register	letting go of an image, or taking one
 *	preadv2			also what preadv() and pwritev() may use
 *	epoll_ctl		looking away from the watch
 */
/* clang-format off */
#define DISK_SYSCALLS \
	SYS_io_uring_enter, SYS_io_uring_register, SYS_preadv2, SYS_preadv, \
	SYS_pwritev, SYS_fdatasync, SYS_fallocate, SYS_ftruncate, SYS_fstat, \
	SYS_epoll_ctl, SYS_timerfd_settime, SYS_futex, SYS_poll, \
	SYS_read, SYS_write, SYS_close, SYS_munmap, POOL_GROWTH_SYSCALLS
/* clang-format on */
#define DISK_IOCTLS BLKGETSIZE64, BLKDISCARD
/* And what disk_create() looks at an image with, where that is made inside. */
#define DISK_CREATE_SYSCALLS SYS_fstatfs, SYS_statx
#define DISK_CREATE_IOCTLS   BLKSSZGET, BLKPBSZGET, BLKIOOPT, BLKROTATIONAL
extern const int disk_syscalls[];         /* these; -1 ends */
extern const unsigned long disk_ioctls[]; /* and these; 0 ends */

#endif

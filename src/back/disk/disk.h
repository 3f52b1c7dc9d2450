/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The storage engine: asynchronous reads and writes of a disk image, straight
 * from and to the buffers of the request.
 *
 * An image is a raw file or a block device. Requests are submitted one by one
 * and go to the kernel in batches, at the end of the loop's turn or with
 * disk_submit(). Each completes by its callback, on the loop's thread, in any
 * order, possibly before the call that starts it returns. Those who do the work
 * (struct disk_io) are io_uring where it may be used, else a small pool of
 * threads; several disks may share them.
 *
 * What is stable stays stable: a flush (or a write with dr_fua) that succeeded
 * is on the medium. After one that failed nobody knows which of the earlier
 * writes the kernel has dropped, so every later one fails too, until the image
 * is opened anew.
 *
 * Threads: the loop's. Results are 0 or -errno.
 */
#ifndef BACK_DISK_DISK_H
#define BACK_DISK_DISK_H

#include <linux/fs.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "base/err.h"
#include "base/pool.h"

struct disk;
struct disk_image;
struct disk_io;
struct vio_loop;

enum disk_op {
	DISK_READ,
	DISK_WRITE,
	DISK_FLUSH,        /* what completed before is stable after */
	DISK_DISCARD,      /* contents may go */
	DISK_WRITE_ZEROES, /* reads as zero afterwards */
};

/* One system call for a request; private to the engine. */
struct disk_call {
	struct disk_image *img;
	int op;
	int mode; /* of fallocate() */
	const struct iovec *iov;
	int niov;
	uint64_t off, len;
	int result;
	void (*done)(struct disk_call *call, int result);
	struct disk_call *next; /* in a queue of io_uring's */
	struct pool_job job;    /* of the threads */
};

/*
 * A request. The caller owns it and its iovecs until dr_done is called. Reads
 * and writes transfer all of their bytes or fail: short transfers are gone on
 * with inside; a read past the end of a file that shrank fails.
 */
struct disk_req {
	enum disk_op dr_op;
	bool dr_fua;     /* write: stable when done. zeroes too */
	bool dr_unmap;   /* write zeroes: may deallocate */
	uint64_t dr_off; /* bytes */
	uint64_t dr_len; /* bytes; sum of the iovecs for reads and writes */
	struct iovec *dr_iov; /* may be changed while it runs */
	int dr_niov;
	void (*dr_done)(struct disk_req *req, int result);

	/* Private to the engine. */
	struct disk *dr_disk;
	struct disk_call dr_call;
	uint64_t dr_left; /* bytes still to be transferred */
	struct iovec dr_rest;
	struct disk_req *dr_next;
};

enum disk_cache {
	DISK_WRITEBACK,    /* page cache; stable after a flush */
	DISK_WRITETHROUGH, /* page cache; every write is stable when done */
	DISK_DIRECT,       /* O_DIRECT; stable after a flush */
};

/* What becomes of a request that the host cannot serve. */
enum disk_on_error {
	DISK_REPORT,     /* it fails */
	DISK_WAIT,       /* it waits, see disk_set_on_wait() */
	DISK_WAIT_SPACE, /* it waits if there is no space, else it fails */
};

/* By its name in options: report, wait, enospc. */
enum disk_on_error disk_on_error(const char *name);

/* How to open an image; what disk_open() needs and disk_create() is told. */
struct disk_params {
	const char *path;
	bool ro;
	bool shared; /* no lock: others may write to it meanwhile */
	enum disk_cache cache;
	bool discard;  /* pass discards on */
	bool no_probe; /* make no call that a frozen file system blocks */
	enum disk_on_error on_read_error, on_write_error;
};

/* What an image is, for the device's configuration. */
struct disk_info {
	uint64_t bytes;       /* capacity */
	uint32_t block_bytes; /* smallest transfer and alignment it takes */
	uint32_t phys_block_bytes; /* what it does well */
	uint32_t opt_io_bytes;     /* what it does best; 0: unknown */
	bool ro;
	bool can_discard;
	bool can_zero; /* without writing the zeroes out */
	bool rotational;
	const char *engine; /* "io_uring" or "threads" */
	int uring_error;    /* why it is not io_uring: -errno */
};

/*
 * Open and lock an image: a writer excludes everybody, readers exclude
 * writers. Returns the descriptor or -errno with the reason ("path=x: in use
 * by another process"). This is what needs rights. A shared one is not locked.
 */
int disk_open(const struct disk_params *params, struct err *err);

/*
 * Who works for up to @nr_disks disks with @depth requests under way, of all of
 * them together. This is what a sandbox forbids; disks can be made inside.
 */
int disk_io_create(struct vio_loop *loop, unsigned depth, unsigned nr_disks,
		   struct disk_io **ret_io);

/*
 * After its disks; NULL is fine. No callback is called from here on. Requests
 * that have begun get half a second to end. False: the kernel still works on
 * some, so that the caller must not free requests or buffers any more. What
 * they use here stays, too.
 */
bool disk_io_destroy(struct disk_io *io);

/* Make a disk of a descriptor of disk_open(). */
int disk_create(struct disk_io *io, int take_fd,
		const struct disk_params *params, struct disk **ret_disk,
		struct err *err);

/*
 * Forget the requests (see disk_forget()) and, when the last one that has begun
 * has ended, free the disk. Returns at once. NULL is fine.
 */
void disk_destroy(struct disk *disk);

void disk_get_info(const struct disk *disk, struct disk_info *ret_info);

/* Start a request; send what is queued without waiting for the turn's end. */
void disk_start(struct disk *disk, struct disk_req *req);
void disk_submit(struct disk *disk);

/*
 * Forget requests: one that has not begun is done with -ECANCELED in a later
 * turn of the loop; one that the kernel works on is done when it ends, however
 * long that takes, with whatever result. Until the last of them has ended new
 * requests wait, so that no stale write overtakes theirs. Returns at once, and
 * no callback is called from inside.
 */
void disk_forget(struct disk *disk);

/*
 * Requests that failed, and are to wait, are not done until disk_resume() lets
 * all of them try again, or disk_forget() drops them. @fn is called when the
 * first one begins to wait, and for each first one after a disk_resume(). What
 * a failed fdatasync() has ended never waits: the kernel may have dropped what
 * it could not write, so that trying again would only seem to help.
 */
void disk_set_on_wait(struct disk *disk,
		      void (*fn)(void *arg, enum disk_op op, int error),
		      void *arg);
unsigned disk_nr_waiting(const struct disk *disk);
void disk_resume(struct disk *disk);

/*
 * Set the size of a file; of a block device @bytes is ignored, it is only
 * looked at again. 0 when that is done; 1 when the image does not answer yet:
 * the size is set when it does. Otherwise -errno with the reason.
 *
 * A file becomes smaller when the requests that have begun have ended, since
 * they could make it long again. New ones wait for that.
 */
int disk_resize(struct disk *disk, uint64_t bytes, struct err *err);

/* Called when the image's size has changed, by us or by others. */
void disk_set_notify(struct disk *disk, void (*fn)(void *arg, uint64_t bytes),
		     void *arg);

/*
 * Changes by others are noticed through a descriptor that is opened beside the
 * image (it needs the path) and handed to the disk; of files only. Both return
 * -errno when it cannot be had.
 */
int disk_open_watch(const struct disk_params *params);
int disk_watch(struct disk *disk, int take_fd);

/*
 * System calls that the engine makes once it is created, for the sandbox:
 *	io_uring_register	letting go of an image, or taking one
 *	preadv2			also what preadv() and pwritev() may use
 *	epoll_ctl		looking away from the watch
 *	madvise			a thread's stack, at its end
 */
/* clang-format off */
#define DISK_SYSCALLS \
	SYS_io_uring_enter, SYS_io_uring_register, SYS_preadv2, SYS_preadv, \
	SYS_pwritev, SYS_fdatasync, SYS_fallocate, SYS_ftruncate, SYS_fstat, \
	SYS_epoll_ctl, SYS_timerfd_settime, SYS_futex, SYS_poll, \
	SYS_read, SYS_write, SYS_close, SYS_munmap, \
	SYS_madvise, SYS_exit, SYS_rt_sigprocmask
/* clang-format on */
#define DISK_IOCTLS BLKGETSIZE64, BLKDISCARD
/* And what disk_create() looks at an image with, where that is made inside. */
#define DISK_CREATE_SYSCALLS SYS_fstatfs, SYS_statx
#define DISK_CREATE_IOCTLS   BLKSSZGET, BLKPBSZGET, BLKIOOPT, BLKROTATIONAL
extern const int disk_syscalls[];         /* these; -1 ends */
extern const unsigned long disk_ioctls[]; /* and these; 0 ends */

#endif

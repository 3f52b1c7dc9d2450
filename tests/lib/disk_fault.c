/* SPDX-License-Identifier: BSD-2-Clause */
#include "disk_fault.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "back/disk/engine.h"
#include "base/util.h"

struct disk_fault disk_fault;

static bool fails(int error)
{
	if (error)
		errno = error;
	return error;
}

static bool interrupts(void)
{
	if (FAULT_GET(nr_interrupted) == 0)
		return false;
	__atomic_fetch_sub(&disk_fault.nr_interrupted, 1, __ATOMIC_SEQ_CST);
	errno = EINTR;
	return true;
}

static void hang(void)
{
	while (FAULT_GET(hang))
		usleep(1000);
}

/* The kernel takes an offset as two longs; where one is enough, it does. */
static ssize_t call(long nr, int fd, const struct iovec *iov, int niov,
		    off_t off, int flags)
{
	return syscall(nr, fd, iov, niov, (long)off,
		       (long)((uint64_t)off >> 32), flags);
}

/* The transfer, but of max_bytes at the most. */
static ssize_t transfer(long nr, int fd, const struct iovec *iov, int niov,
			off_t off, int flags)
{
	size_t left = FAULT_GET(max_bytes);
	struct iovec cut[4];
	int n = 0;

	if (!left)
		return call(nr, fd, iov, niov, off, flags);
	for (; n < 4 && n < niov && left > 0; n++) {
		cut[n] = iov[n];
		if (cut[n].iov_len > left)
			cut[n].iov_len = left;
		left -= cut[n].iov_len;
	}
	return call(nr, fd, cut, n, off, flags);
}

ssize_t preadv(int fd, const struct iovec *iov, int niov, off_t off)
{
	hang();
	if (interrupts() || fails(FAULT_GET(read_errno)))
		return -1;
	if (FAULT_GET(no_progress))
		return 0;
	return transfer(SYS_preadv, fd, iov, niov, off, 0);
}

ssize_t preadv2(int fd, const struct iovec *iov, int niov, off_t off, int flags)
{
	if (fails(FAULT_GET(no_cache) ? EAGAIN : 0))
		return -1;
	return transfer(SYS_preadv2, fd, iov, niov, off, flags);
}

ssize_t pwritev(int fd, const struct iovec *iov, int niov, off_t off)
{
	FAULT_COUNT(nr_tried);
	hang();
	if (interrupts() || fails(FAULT_GET(write_errno)))
		return -1;
	if (FAULT_GET(no_progress))
		return 0;
	FAULT_COUNT(nr_write);
	return transfer(SYS_pwritev, fd, iov, niov, off, 0);
}

int fdatasync(int fd)
{
	hang();
	if (interrupts() || fails(FAULT_GET(sync_errno)))
		return -1;
	FAULT_COUNT(nr_sync);
	return (int)syscall(SYS_fdatasync, fd);
}

int fallocate(int fd, int mode, off_t off, off_t len)
{
	FAULT_COUNT(nr_fallocate);
	if (interrupts() || fails(FAULT_GET(fallocate_errno)))
		return -1;
	return (int)syscall(SYS_fallocate, fd, mode, off, len);
}

#ifndef SYS_ftruncate64 /* of 32-bit machines */
#define SYS_ftruncate64 SYS_ftruncate
#endif

int ftruncate(int fd, off_t len)
{
	while (FAULT_GET(hang_size))
		usleep(1000);
	return (int)syscall(SYS_ftruncate64, fd, len);
}

int statx(int dir, const char *restrict path, int flags, unsigned mask,
	  struct statx *restrict stx)
{
	int ret = (int)syscall(SYS_statx, dir, path, flags, mask, stx);

	if (ret == 0 && disk_fault.dio_align) {
		stx->stx_mask |= STATX_DIOALIGN;
		stx->stx_dio_mem_align = disk_fault.dio_align;
		stx->stx_dio_offset_align = disk_fault.dio_align;
	}
	return ret;
}

static bool have_io_uring(void)
{
	char params[256] = { 0 };
	long fd = -1;

	if (disk_uring.start) /* it was built */
		fd = syscall(SYS_io_uring_setup, 1, params);
	if (fd < 0)
		return false;
	close((int)fd);
	return true;
}

bool refuse_io_uring(void)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
			 offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = { ARRAY_LEN(filter), filter };

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog) == 0)
		return true;
	return !have_io_uring();
}

int run_on_engines(int (*run)(const char *engine))
{
	int failed = have_io_uring() ? run("io_uring") : 0;

	if (!refuse_io_uring())
		return failed ? 1 : 77;
	return failed + run("threads") ? 1 : 0;
}

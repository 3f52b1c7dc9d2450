/* SPDX-License-Identifier: BSD-2-Clause */
/* System calls on an image. */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "back/disk/engine.h"

int disk_call_fallocate_mode(const struct disk_call *call)
{
	return FALLOC_FL_KEEP_SIZE |
	       (call->op == CALL_ZERO ? FALLOC_FL_ZERO_RANGE :
					FALLOC_FL_PUNCH_HOLE);
}

static int discard(const struct disk_call *call)
{
	uint64_t range[2] = { call->off, call->len };

	if (call->img->is_bdev)
		return ioctl(call->img->fd, BLKDISCARD, range);
	return fallocate(call->img->fd, disk_call_fallocate_mode(call),
			 (off_t)call->off, (off_t)call->len);
}

/* mv(1) put another file at the path, or rm(1) none: this one is lost. */
static bool was_replaced(const struct disk_image *img)
{
	struct stat st;

	return img->had_name && fstat(img->fd, &st) == 0 && st.st_nlink == 0;
}

static int set_size(struct disk_call *call)
{
	int ret = disk_image_bytes(call->img, &call->off);

	if (ret < 0 || call->len == CALL_LOOK)
		return ret;
	if (was_replaced(call->img))
		return -ESTALE;
	/* The size now, which may not have been noticed yet. */
	if (call->off > call->len && !call->shrink)
		return -EEXIST;
	if (ftruncate(call->img->fd, (off_t)call->len) < 0)
		return -errno;
	return disk_image_bytes(call->img, &call->off);
}

int disk_call_run(struct disk_call *call)
{
	off_t off = (off_t)call->off;
	int fd = call->img->fd;
	ssize_t ret = -1;

	switch (call->op) {
	case CALL_READ:
		ret = preadv(fd, call->iov, call->niov, off);
		break;
	case CALL_WRITE:
		ret = pwritev(fd, call->iov, call->niov, off);
		break;
	case CALL_FLUSH:
		ret = fdatasync(fd);
		break;
	case CALL_ZERO:
	case CALL_UNMAP:
		ret = fallocate(fd, disk_call_fallocate_mode(call), off,
				(off_t)call->len);
		break;
	case CALL_DISCARD:
		ret = discard(call);
		break;
	case CALL_SIZE:
		return set_size(call);
	}
	return ret < 0 ? -errno : (int)ret;
}

int disk_call_read_cached(struct disk_call *call)
{
	struct disk_image *img = call->img;
	ssize_t ret = preadv2(img->fd, call->iov, call->niov, (off_t)call->off,
			      RWF_NOWAIT);

	if (ret < 0 && (errno == EOPNOTSUPP || errno == ENOSYS))
		img->nowait = false;
	return ret < 0 ? -errno : (int)ret;
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* Disk images: opening and locking them, and what the kernel knows of them. */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "back/disk/format.h"
#include "back/disk/image.h"

#define SECTOR_BYTES 512u
#define PAGE_BYTES   4096u
#define BUSY_TRIES   30
#define BUSY_WAIT_US 10000

/*
 * --- The image ---
 */

static int path_err(struct err *err, const struct disk_params *params, int ret,
		    const char *what)
{
	return err_set(err, ret, "path=%s: %s", params->path,
		       what ? what : strerror(-ret));
}

/*
 * Open file description locks: they hold until the last copy of the descriptor
 * is closed, in whichever process that is, and conflict with QEMU's too.
 */
static int lock(int fd, const struct disk_params *params, struct err *err)
{
	struct flock fl = {
		.l_type = params->ro ? F_RDLCK : F_WRLCK,
		.l_whence = SEEK_SET,
	};

	if (fcntl(fd, F_OFD_SETLK, &fl) == 0)
		return 0;
	if (errno == EAGAIN || errno == EACCES)
		return path_err(err, params, -EBUSY,
				"in use by another process");
	return err_set(err, -errno, "path=%s: cannot lock: %s", params->path,
		       strerror(errno));
}

/* Whether opening it read-only would work. */
static bool is_only_readable(const struct disk_params *params, int error)
{
	return !params->ro &&
	       (error == EACCES || error == EPERM || error == EROFS) &&
	       euidaccess(params->path, R_OK) == 0;
}

static int cannot_open(const struct disk_params *params, int error,
		       struct err *err)
{
	if (is_only_readable(params, error))
		return err_set(err, -error,
			       "path=%s: %s: ro=on serves it read-only",
			       params->path, strerror(error));
	return path_err(err, params, -error, NULL);
}

static int open_and_lock(const struct disk_params *params, int flags,
			 struct err *err)
{
	int fd = open(params->path, flags);
	int ret;

	if (fd < 0 && errno == EBUSY)
		return path_err(err, params, -EBUSY, "in use by the host");
	if (fd < 0 && errno == EINVAL && (flags & O_DIRECT))
		return path_err(
			err, params, -EINVAL,
			"the file system does not support cache=direct");
	if (fd < 0)
		return cannot_open(params, errno, err);
	ret = params->shared ? 0 : lock(fd, params, err);
	if (ret < 0) {
		close(fd);
		return ret;
	}
	return fd;
}

static int bytes_of(int fd, bool is_bdev, uint64_t *ret_bytes)
{
	struct stat st;

	if (is_bdev)
		return ioctl(fd, BLKGETSIZE64, ret_bytes) < 0 ? -errno : 0;
	if (fstat(fd, &st) < 0)
		return -errno;
	*ret_bytes = (uint64_t)st.st_size;
	return 0;
}

/* What a user of such an image probably wants. */
static const char *instead_of_raw(const char *format)
{
	if (strcmp(format, "luks") == 0)
		return "unlock it with `cryptsetup open` and serve that device";
	return "convert it with `qemu-img convert -O raw`";
}

/*
 * The bytes of a raw disk are the guest's: a driver that writes a header of
 * another format must never have the host interpret it. So a match refuses the
 * image, and the user decides.
 */
static int check_contents(int fd, bool is_bdev,
			  const struct disk_params *params, struct err *err)
{
	const char *prefix = params->option_prefix;
	const char *format;
	uint64_t bytes;
	int ret = bytes_of(fd, is_bdev, &bytes);

	if (ret < 0)
		return path_err(err, params, ret, NULL);
	if (bytes == 0)
		return path_err(err, params, -EINVAL,
				is_bdev ? "no medium, or an empty device" :
					  "empty file: give it a size, such as "
					  "with `truncate -s 1G`");
	format = params->raw ? NULL : disk_format(fd, bytes);
	if (!format)
		return 0;
	return err_set(err, -EINVAL,
		       "path=%s: looks like a %s image, not a raw one: %s, or "
		       "add %sformat=raw to serve its bytes as they are",
		       params->path, format, instead_of_raw(format),
		       prefix ? prefix : "");
}

/* An empty file that holds the size. */
static int open_null(const struct disk_params *params, struct err *err)
{
	int ret, fd = memfd_create("viodev-null", MFD_CLOEXEC);

	if (fd >= 0 && ftruncate(fd, (off_t)params->null_bytes) == 0)
		return fd;
	ret = -errno;
	if (fd >= 0)
		close(fd);
	return err_set(err, ret, "backend=null: %s", strerror(-ret));
}

int disk_open(const struct disk_params *params, struct err *err)
{
	int flags = O_CLOEXEC | (params->ro ? O_RDONLY : O_RDWR);
	struct stat st;
	int fd, ret;

	if (params->null_bytes > 0)
		return open_null(params, err);
	if (params->cache == DISK_DIRECT)
		flags |= O_DIRECT;
	/* Look first: opening a FIFO would wait, a tape would rewind. */
	if (stat(params->path, &st) < 0)
		return path_err(err, params, -errno, NULL);
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		return path_err(err, params, -EINVAL,
				"neither a file nor a block device");
	/* Of a block device: fails while it is mounted or otherwise used. */
	if (S_ISBLK(st.st_mode) && !params->ro && !params->shared)
		flags |= O_EXCL;
	/* A killed process holds the lock until the kernel has freed its ring. */
	for (int tries = 0; tries < BUSY_TRIES; tries++) {
		fd = open_and_lock(params, flags, err);
		if (fd != -EBUSY)
			break;
		usleep(BUSY_WAIT_US);
	}
	ret = fd < 0 ? fd :
		       check_contents(fd, S_ISBLK(st.st_mode), params, err);
	if (ret < 0 && fd >= 0)
		close(fd);
	return ret < 0 ? ret : fd;
}

int disk_image_bytes(const struct disk_image *img, uint64_t *ret_bytes)
{
	return bytes_of(img->fd, img->is_bdev, ret_bytes);
}

/*
 * A last block that is not whole is completed with zeroes. A file grows when it
 * is written. A block device cannot, so where it can be written the block is
 * left out.
 */
static uint64_t capacity(const struct disk_image *img, uint64_t bytes)
{
	uint64_t rest = bytes % img->unit_bytes, whole = bytes - rest;

	if (rest == 0 || (img->is_bdev && !img->info.ro) ||
	    whole > (uint64_t)INT64_MAX - img->unit_bytes)
		return whole;
	return whole + img->unit_bytes;
}

void disk_image_set_bytes(struct disk_image *img, uint64_t bytes)
{
	img->info.bytes = capacity(img, bytes);
	img->info.data_bytes = bytes;
}

static uint32_t power_of_two_or(uint64_t v, uint32_t other)
{
	bool fits = v >= SECTOR_BYTES && v <= (64u << 10) && !(v & (v - 1));

	return fits ? (uint32_t)v : other;
}

static void look_at_bdev(struct disk_image *img)
{
	unsigned phys = 0, opt = 0;
	unsigned short rotational = 0;
	int block = 0;

	ioctl(img->fd, BLKSSZGET, &block);
	ioctl(img->fd, BLKPBSZGET, &phys);
	ioctl(img->fd, BLKIOOPT, &opt);
	ioctl(img->fd, BLKROTATIONAL, &rotational);
	img->info.block_bytes = power_of_two_or((unsigned)block, SECTOR_BYTES);
	img->info.phys_block_bytes =
		power_of_two_or(phys, img->info.block_bytes);
	img->info.opt_io_bytes = opt;
	img->info.rotational = rotational;
	img->can_unmap = !img->info.ro;
}

/* Try beyond the end, where there is nothing to lose. */
static bool try_punch(int fd, off_t size)
{
	off_t end;

	if (size > INT64_MAX - 2 * (off_t)PAGE_BYTES)
		return false;
	end = (size + PAGE_BYTES) & ~(off_t)(PAGE_BYTES - 1);
	return fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, end,
			 PAGE_BYTES) == 0;
}

static void look_at_file(struct disk_image *img, const struct stat *st,
			 bool no_probe)
{
	struct statfs fs;

	img->info.block_bytes = SECTOR_BYTES;
	img->info.phys_block_bytes =
		power_of_two_or((uint64_t)st->st_blksize, PAGE_BYTES);
	/* If this is wrong, the first zeroes fail and are written out. */
	img->can_unmap =
		!img->info.ro && (no_probe || try_punch(img->fd, st->st_size));
	img->in_memory = fstatfs(img->fd, &fs) == 0 &&
			 ((uint32_t)fs.f_type == TMPFS_MAGIC ||
			  (uint32_t)fs.f_type == RAMFS_MAGIC);
}

/* What O_DIRECT requires; a page where the kernel does not say (before 6.1). */
static int look_at_direct(struct disk_image *img)
{
	struct statx stx;

	img->mem_align = img->off_align = PAGE_BYTES;
	if (statx(img->fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &stx) == 0 &&
	    (stx.stx_mask & STATX_DIOALIGN)) {
		if (stx.stx_dio_offset_align == 0)
			return -EOPNOTSUPP;
		img->mem_align = stx.stx_dio_mem_align;
		img->off_align = stx.stx_dio_offset_align;
	}
	if (!power_of_two_or(img->off_align, 0) ||
	    img->mem_align > PAGE_BYTES ||
	    (img->mem_align & (img->mem_align - 1)))
		return -EOPNOTSUPP;
	if (img->info.block_bytes < img->off_align)
		img->info.block_bytes = img->off_align;
	if (img->info.phys_block_bytes < img->info.block_bytes)
		img->info.phys_block_bytes = img->info.block_bytes;
	img->in_memory = false;
	return 0;
}

/* A passed descriptor may have been opened in another mode than configured. */
static int check_access(int fd, const struct disk_params *params)
{
	int flags = fcntl(fd, F_GETFL);
	bool direct = params->cache == DISK_DIRECT && params->null_bytes == 0;

	if (flags < 0)
		return -errno;
	if ((flags & O_ACCMODE) == O_WRONLY || (flags & O_PATH) ||
	    ((flags & O_ACCMODE) == O_RDONLY && !params->ro))
		return -EACCES;
	return !(flags & O_DIRECT) == !direct ? 0 : -EINVAL;
}

int disk_image_init(struct disk_image *img, int fd,
		    const struct disk_params *params)
{
	struct stat st;
	uint64_t bytes;
	int ret = check_access(fd, params);

	if (ret < 0)
		return ret;
	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		return -EINVAL;
	*img = (struct disk_image){
		.fd = fd,
		.is_bdev = S_ISBLK(st.st_mode),
		.is_null = params->null_bytes > 0,
		.had_name = st.st_nlink > 0,
		.can_zero = true,
		.nowait = params->cache != DISK_DIRECT,
		.mem_align = 1,
		.off_align = 1,
		.info.ro = params->ro,
	};
	if (img->is_bdev)
		look_at_bdev(img);
	else
		look_at_file(img, &st, params->no_probe);
	if (params->cache == DISK_DIRECT && !img->is_null) {
		ret = look_at_direct(img);
		if (ret < 0)
			return ret;
	}
	if (img->is_null)
		img->nowait = img->in_memory = false; /* nothing is cached */
	img->info.can_zero = img->can_unmap;
	img->info.can_discard = img->can_unmap && params->discard;
	img->unit_bytes = img->info.block_bytes;
	if (img->unit_bytes < params->block_bytes)
		img->unit_bytes = params->block_bytes;
	ret = disk_image_bytes(img, &bytes);
	if (ret == 0)
		disk_image_set_bytes(img, bytes);
	return ret;
}

int disk_open_watch(const struct disk_params *params)
{
	struct stat st;
	int fd, ret;

	if (!params->path)
		return -EOPNOTSUPP;
	if (stat(params->path, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EOPNOTSUPP;
	fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (inotify_add_watch(fd, params->path, IN_MODIFY | IN_MOVE_SELF) < 0) {
		ret = -errno;
		close(fd);
		return ret;
	}
	return fd;
}

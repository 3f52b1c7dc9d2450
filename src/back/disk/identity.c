/* SPDX-License-Identifier: BSD-2-Clause */
#include "back/disk/identity.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "back/disk/image.h"
#include "base/hash.h"
#include "base/util.h"

#define NAME_BYTES 256

/*
 * --- Names of block devices ---
 */

/* An attribute of the device @dev; false: missing, or says nothing. */
static bool read_attribute(const char *sysfs, dev_t dev, const char *attribute,
			   char text[NAME_BYTES])
{
	char path[PATH_MAX];
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "%s/dev/block/%u:%u/%s", sysfs, major(dev),
		 minor(dev), attribute);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	n = read(fd, text, NAME_BYTES - 1);
	close(fd);
	text[n > 0 ? n : 0] = '\0';
	return strspn(text, "0 \n") < strlen(text);
}

bool disk_find_name(const char *sysfs, dev_t dev, char *name, size_t size)
{
	static const char *const attributes[] = {
		"wwid",                  /* NVMe */
		"device/wwid",           /* SCSI, ATA */
		"device/cid",            /* MMC */
		"dm/uuid",               /* LVM, LUKS, multipath */
		"md/uuid",     "serial", /* virtio */
	};
	char text[NAME_BYTES], part[NAME_BYTES] = "", path[64];
	bool is_part = read_attribute(sysfs, dev, "partition", part);

	for (size_t i = 0; i < ARRAY_LEN(attributes); i++) {
		snprintf(path, sizeof(path), "%s%s", is_part ? "../" : "",
			 attributes[i]);
		if (!read_attribute(sysfs, dev, path, text))
			continue;
		snprintf(name, size, "%s %s %s", attributes[i], text, part);
		return true;
	}
	return false;
}

int disk_open_name(const struct disk_params *params)
{
	char name[3 * NAME_BYTES];
	struct stat st;
	int fd, ret;

	if (!params->path)
		return -ENODATA;
	if (stat(params->path, &st) < 0)
		return -errno;
	if (!S_ISBLK(st.st_mode) ||
	    !disk_find_name("/sys", st.st_rdev, name, sizeof(name)))
		return -ENODATA;
	fd = memfd_create("viodev-name", MFD_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (write(fd, name, strlen(name)) == (ssize_t)strlen(name))
		return fd;
	ret = -errno;
	close(fd);
	return ret;
}

/*
 * --- Identities ---
 */

/*
 * Of a file: file system, device, inode. The numbers of devices that are none,
 * as btrfs has, are another after each mount; its file systems tell themselves
 * apart.
 */
static uint64_t file_identity(int fd, const struct stat *st)
{
	struct statfs fs = { 0 };
	uint64_t id[3] = { 0, 0, st->st_ino };

	if (fstatfs(fd, &fs) == 0)
		memcpy(&id[0], &fs.f_fsid, sizeof(fs.f_fsid));
	if (id[0] == 0 || major(st->st_dev) != 0)
		id[1] = st->st_dev;
	return hash64(id, sizeof(id));
}

uint64_t disk_identity(int fd, int name_fd)
{
	char name[3 * NAME_BYTES];
	ssize_t n = name_fd < 0 ? 0 : pread(name_fd, name, sizeof(name), 0);
	struct stat st = { 0 };

	if (n > 0)
		return hash64(name, (size_t)n);
	if (fstat(fd, &st) < 0 || !S_ISBLK(st.st_mode))
		return file_identity(fd, &st);
	return hash64(&st.st_rdev, sizeof(st.st_rdev));
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* Chardevs that are up from the start: file, fd. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "back/chardev/chardev_impl.h"
#include "base/opts.h"

/*
 * --- file ---
 */

static int file_open(const char *path, const char *id,
		     struct opened_files *files, struct err *err)
{
	int fd = open(path,
		      O_WRONLY | O_CREAT | O_APPEND | O_NONBLOCK | O_NOCTTY |
			      O_CLOEXEC,
		      0666);
	int ret = fd < 0 ? -errno : chardev_add_file(files, id, "out", fd);

	return ret < 0 ? err_set(err, ret, "%s", strerror(-ret)) : 0;
}

static int file_create(struct chardev *c, const char *id,
		       struct opened_files *files)
{
	c->up = true;
	return chardev_set_ends(c, -1, chardev_take_file(files, id, "out"));
}

const struct chardev_kind chardev_kind_file = {
	.name = "file",
	.arg = "PATH",
	.open = file_open,
	.create = file_create,
};

/*
 * --- fd ---
 */

static int fd_open(const char *arg, const char *id, struct opened_files *files,
		   struct err *err)
{
	uint64_t nr;
	int fd, flags, ret;

	if (opt_parse_size(arg, &nr) < 0 || nr > INT32_MAX)
		return err_set(err, -EINVAL, "not a number");
	fd = fcntl((int)nr, F_DUPFD_CLOEXEC, 0);
	if (fd < 0)
		return err_set(err, -errno, "%s", strerror(errno));
	flags = fcntl(fd, F_GETFL);
	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0) {
		ret = -errno;
		close(fd);
	} else {
		ret = chardev_add_file(files, id, "fd", fd);
	}
	return ret < 0 ? err_set(err, ret, "%s", strerror(-ret)) : 0;
}

static int fd_create(struct chardev *c, const char *id,
		     struct opened_files *files)
{
	int fd = chardev_take_file(files, id, "fd");
	int ret = -EBADF;

	c->up = true;
	switch (fcntl(fd, F_GETFL) & O_ACCMODE) {
	case O_RDONLY:
		return chardev_set_ends(c, fd, -1);
	case O_WRONLY:
		return chardev_set_ends(c, -1, fd);
	case O_RDWR:
		ret = chardev_set_duplex(c, fd);
		break;
	}
	if (ret < 0 && c->in.fd != fd)
		close(fd);
	return ret;
}

const struct chardev_kind chardev_kind_fd = {
	.name = "fd",
	.arg = "N",
	.open = fd_open,
	.create = fd_create,
};

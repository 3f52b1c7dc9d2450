/* SPDX-License-Identifier: BSD-2-Clause */
#include "viodev/sockdir.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool is_trusted(uid_t uid)
{
	return uid == geteuid() || uid == 0;
}

static int check_link(const char *path, struct err *err)
{
	struct stat st;

	if (lstat(path, &st) < 0)
		return err_set(err, -errno, "%s", strerror(errno));
	if (S_ISLNK(st.st_mode) && !is_trusted(st.st_uid))
		return err_set(err, -EPERM,
			       "symbolic link owned by another user (uid %u): "
			       "use a directory of your own",
			       st.st_uid);
	return 0;
}

static int check_directory(const char *path, struct err *err)
{
	struct stat st;

	if (stat(path, &st) < 0)
		return err_set(err, -errno, "%s", strerror(errno));
	if (!S_ISDIR(st.st_mode))
		return err_set(err, -ENOTDIR, "%s", strerror(ENOTDIR));
	if (!is_trusted(st.st_uid))
		return err_set(err, -EPERM,
			       "owned by another user (uid %u): use a "
			       "directory of your own",
			       st.st_uid);
	/* The group bits also stand for access control lists. */
	if (st.st_mode & (S_IWGRP | S_IWOTH))
		return err_set(err, -EPERM,
			       "writable by other users (mode %04o): use "
			       "another, or chmod go-w",
			       st.st_mode & 07777u);
	return 0;
}

int sockdir_make(const char *path, struct err *err)
{
	int ret;

	if (mkdir(path, 0700) < 0 && errno != EEXIST)
		return err_set(err, -errno, "%s", strerror(errno));
	ret = check_link(path, err);
	return ret < 0 ? ret : check_directory(path, err);
}

/* SPDX-License-Identifier: BSD-2-Clause */
#include "viodev/jail_tree.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define OWN_FDS "/proc/self/fd"
#define TREE    JAIL_TREE_DIR "/0"

/*
 * A descriptor refers to the mount namespace that it was opened in, which
 * cannot be cloned from another one. The working directory moves along.
 */
static int enter_copy(int tree_fd)
{
	if (fchdir(tree_fd) < 0 || unshare(CLONE_NEWNS) < 0 ||
	    mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) < 0)
		return -errno;
	return 0;
}

static int clone_mount(const char *path, unsigned recursive)
{
	int fd = open_tree(AT_FDCWD, path,
			   OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | recursive);

	return fd < 0 ? -errno : fd;
}

/*
 * With passthrough the guest may create device nodes. Later mounts of the host
 * below the tree would escape these restrictions, so they stay outside.
 */
static int restrict_mount(int fd, bool ro)
{
	struct mount_attr attr = {
		.attr_set = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV |
			    MOUNT_ATTR_NOEXEC,
		.propagation = MS_PRIVATE,
	};

	if (ro)
		attr.attr_set |= MOUNT_ATTR_RDONLY;
	if (mount_setattr(fd, "", AT_EMPTY_PATH | AT_RECURSIVE, &attr,
			  sizeof(attr)) < 0)
		return -errno;
	return 0;
}

static int clone_etc(const char *root, int *ret_fd)
{
	char path[PATH_MAX];
	int ret;

	if (!root)
		return 0;
	snprintf(path, sizeof(path), "%s/etc", root);
	ret = *ret_fd = clone_mount(path, 0);
	return ret < 0 ? ret : restrict_mount(ret, true);
}

int jail_tree_clone(const struct jail_tree *tree, bool ro, const char *root,
		    struct jail_tree *ret_mounts)
{
	struct jail_tree mounts = { -1, -1, -1 };
	int ret = enter_copy(tree->tree_fd);

	if (ret == 0)
		ret = mounts.tree_fd = clone_mount(".", AT_RECURSIVE);
	if (ret >= 0)
		ret = restrict_mount(mounts.tree_fd, ro);
	if (ret == 0)
		ret = mounts.proc_fd = clone_mount(OWN_FDS, 0);
	if (ret >= 0)
		ret = clone_etc(root, &mounts.etc_fd);
	if (ret < 0) {
		jail_tree_close(&mounts);
		return ret;
	}
	*ret_mounts = mounts;
	return 0;
}

void jail_tree_close(struct jail_tree *mounts)
{
	if (mounts->tree_fd >= 0)
		close(mounts->tree_fd);
	if (mounts->proc_fd >= 0)
		close(mounts->proc_fd);
	if (mounts->etc_fd >= 0)
		close(mounts->etc_fd);
}

static int attach(int fd, const char *root, const char *at)
{
	char path[64];

	snprintf(path, sizeof(path), "%s%s", root, at);
	/* Its parents. */
	for (char *p = path + 1; *p; p++) {
		if (*p != '/')
			continue;
		*p = '\0';
		if (mkdir(path, 0555) < 0 && errno != EEXIST)
			return -errno;
		*p = '/';
	}
	if (mkdir(path, 0555) < 0 ||
	    move_mount(fd, "", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH) < 0)
		return -errno;
	return 0;
}

int jail_tree_attach(const struct jail_tree *mounts, const char *root)
{
	int ret = attach(mounts->tree_fd, root, TREE);

	if (ret == 0)
		ret = attach(mounts->proc_fd, root, OWN_FDS);
	if (ret == 0 && mounts->etc_fd >= 0)
		ret = attach(mounts->etc_fd, root, "/etc");
	return ret;
}

static int replace(const char *path, int fd)
{
	int new = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC), ret = 0;

	if (new < 0)
		return -errno;
	if (dup3(new, fd, O_CLOEXEC) < 0)
		ret = -errno;
	close(new);
	return ret;
}

int jail_tree_replace(const struct jail_tree *tree)
{
	int ret = replace(TREE, tree->tree_fd);

	if (ret == 0 && tree->proc_fd >= 0)
		ret = replace("/proc", tree->proc_fd);
	return ret;
}

/*
 * --- A tree that is made again; in the parent process ---
 */

/* The mounts are to be made nowhere else. */
static int check_own_mounts(pid_t pid)
{
	char path[32];
	struct stat own, its;

	snprintf(path, sizeof(path), "/proc/%d/ns/mnt", (int)pid);
	if (stat("/proc/self/ns/mnt", &own) < 0 || stat(path, &its) < 0)
		return -errno;
	return own.st_dev == its.st_dev && own.st_ino == its.st_ino ? -EPERM :
								      0;
}

static int replace_mount(int fd)
{
	/* EINVAL: an attempt has failed half way. */
	if (umount2(TREE, MNT_DETACH) < 0 && errno != EINVAL)
		return -errno;
	if (move_mount(fd, "", AT_FDCWD, TREE, MOVE_MOUNT_F_EMPTY_PATH) < 0)
		return -errno;
	return 0;
}

/* Enter the jail, from outside, with the tree. Returns a descriptor of it. */
static int carry_in(int pidfd, int tree_fd, bool ro)
{
	int fd, ret;

	/* EINVAL: it is in the user namespace that we are in. */
	if (setns(pidfd, CLONE_NEWUSER) < 0 && errno != EINVAL)
		return -errno;
	ret = enter_copy(tree_fd);
	if (ret < 0)
		return ret;
	fd = clone_mount(".", AT_RECURSIVE);
	if (fd < 0)
		return fd;
	ret = restrict_mount(fd, ro);
	if (ret == 0 && setns(pidfd, CLONE_NEWNS) < 0)
		ret = -errno;
	if (ret == 0)
		ret = replace_mount(fd);
	close(fd);
	if (ret < 0)
		return ret;
	ret = open(TREE, O_PATH | O_DIRECTORY | O_CLOEXEC);
	return ret < 0 ? -errno : ret;
}

/* A process that shares our descriptors, and that no wait() of others sees. */
static pid_t fork_with_files(void)
{
#ifdef __s390x__ /* the stack comes first */
	return (pid_t)syscall(SYS_clone, 0, CLONE_FILES, 0, 0, 0);
#else
	return (pid_t)syscall(SYS_clone, CLONE_FILES, 0, 0, 0, 0);
#endif
}

int jail_tree_renew(pid_t pid, int pidfd, int tree_fd, bool ro)
{
	int pipe_fds[2], ret = check_own_mounts(pid);

	if (ret < 0)
		return ret;
	if (pipe2(pipe_fds, O_CLOEXEC | O_NONBLOCK) < 0)
		return -errno;
	pid = fork_with_files();
	if (pid == 0) {
		ret = carry_in(pidfd, tree_fd, ro);
		_exit(write(pipe_fds[1], &ret, sizeof(ret)) != sizeof(ret));
	}
	ret = pid < 0 ? -errno : 0;
	while (ret == 0 && waitpid(pid, NULL, __WCLONE) < 0)
		ret = errno == EINTR ? 0 : -errno;
	if (ret == 0 && read(pipe_fds[0], &ret, sizeof(ret)) != sizeof(ret))
		ret = -EIO;
	close(pipe_fds[0]);
	close(pipe_fds[1]);
	return ret;
}

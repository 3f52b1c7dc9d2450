/* SPDX-License-Identifier: BSD-2-Clause */
#include "viodev/tree_again.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/opener.h"
#include "viodev/jail_tree.h"

#define MAX_WAIT_MS 2000

struct tree_again {
	struct tree_again *next;
	int file_fd; /* for a device process that is started later */
	bool ro;
	char path[PATH_MAX];  /* without links */
	pthread_mutex_t lock; /* guards what follows */
	pid_t pid;
	int pidfd; /* -1: none was started */
	bool sandbox;
};

/*
 * They remain until the process ends: the opener's thread ends when the device
 * shuts its socket down, which a compromised one might.
 */
static struct tree_again *all;

/* A descriptor for the device, where it may use it. */
static int confine(struct tree_again *again, int fd)
{
	int pidfd = -1, ret = -ESRCH;
	bool sandbox;
	pid_t pid;

	pthread_mutex_lock(&again->lock);
	sandbox = again->sandbox;
	pid = again->pid;
	if (again->pidfd >= 0)
		pidfd = fcntl(again->pidfd, F_DUPFD_CLOEXEC, 0);
	pthread_mutex_unlock(&again->lock);
	if (!sandbox)
		ret = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	else if (pidfd >= 0)
		ret = jail_tree_renew(pid, pidfd, fd, again->ro);
	if (pidfd >= 0)
		close(pidfd);
	return ret;
}

/*
 * Follow no links: if the directory was in a tree that another guest shares,
 * that guest can put a link to any directory in its place.
 */
static int open_directory(const char *path)
{
	const struct open_how how = {
		.flags = O_PATH | O_DIRECTORY | O_CLOEXEC,
		.resolve = RESOLVE_NO_SYMLINKS,
	};
	long fd = syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof(how));

	return fd < 0 ? -errno : (int)fd;
}

/* In the opener's thread. */
static int open_again(void *arg, int *fds)
{
	struct tree_again *again = *(struct tree_again **)arg;
	int fd = open_directory(again->path), ret;

	if (fd < 0)
		return fd;
	ret = confine(again, fd);
	if (ret >= 0) {
		dup3(fd, again->file_fd, O_CLOEXEC);
		fds[0] = ret;
		ret = 1;
	}
	close(fd);
	return ret;
}

int tree_again_start(struct opened_files *files,
		     const struct sandbox_rights *rights,
		     struct tree_again **ret_again)
{
	struct tree_again *again = calloc(1, sizeof(*again));
	struct tree_again **arg = malloc(sizeof(*arg)); /* the thread's */
	int ret = again && arg ? 0 : -ENOMEM;

	if (ret < 0 || !realpath(rights->tree_path, again->path)) {
		free(again); /* such as another namespace's, by a descriptor */
		free(arg);
		return ret;
	}
	*arg = again;
	again->file_fd = opened_files_find(files, rights->tree);
	again->ro = rights->tree_ro;
	again->pidfd = -1;
	pthread_mutex_init(&again->lock, NULL);
	ret = opener_start(files, TREE_AGAIN_FILE, open_again, MAX_WAIT_MS,
			   arg);
	if (ret < 0) {
		free(again);
		free(arg);
		return ret;
	}
	again->next = all;
	all = again;
	*ret_again = again;
	return 0;
}

/* The process is not waited for yet: the number is its own. */
void tree_again_set_process(struct tree_again *again, pid_t pid, bool sandbox)
{
	pthread_mutex_lock(&again->lock);
	if (again->pidfd >= 0)
		close(again->pidfd);
	again->pid = pid;
	again->pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	again->sandbox = sandbox;
	pthread_mutex_unlock(&again->lock);
}

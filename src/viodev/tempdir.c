/* SPDX-License-Identifier: BSD-2-Clause */
#include "viodev/tempdir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* Remove the files in directory @name and its subdirectories. */
static void remove_files(int at_fd, const char *name, int depth)
{
	int fd = openat(at_fd, name,
			O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;

	if (!dir)
		return;
	while ((entry = readdir(dir))) {
		if (unlinkat(fd, entry->d_name, 0) == 0 || depth == 0 ||
		    entry->d_name[0] == '.')
			continue;
		remove_files(fd, entry->d_name, depth - 1);
		unlinkat(fd, entry->d_name, AT_REMOVEDIR);
	}
	closedir(dir);
}

static void remove_dir(const char *path)
{
	remove_files(AT_FDCWD, path, 1);
	rmdir(path);
}

/* @alive_fd reaches end of file once all copies of its other end are closed. */
static _Noreturn void keep(const char *path, int alive_fd)
{
	sigset_t all;
	char c;

	/* Signals to the process group must not end us. */
	setsid();
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, NULL);
	dup2(alive_fd, STDIN_FILENO);
	close_range(STDIN_FILENO + 1, ~0U, 0);
	while (read(STDIN_FILENO, &c, 1) < 0 && errno == EINTR)
		;
	remove_dir(path);
	_exit(0);
}

static int start_keeper(struct tempdir *dir)
{
	int alive[2], ret;

	if (pipe2(alive, O_CLOEXEC) < 0)
		return -errno;
	dir->keeper = fork();
	if (dir->keeper == 0) {
		close(alive[1]);
		keep(dir->path, alive[0]);
	}
	ret = dir->keeper < 0 ? -errno : 0;
	close(alive[0]);
	dir->alive_fd = alive[1];
	if (ret < 0)
		close(alive[1]);
	return ret;
}

int tempdir_create(struct tempdir *dir)
{
	const char *runtime = getenv("XDG_RUNTIME_DIR");
	int ret;

	*dir = (struct tempdir){ .alive_fd = -1 };
	if (!runtime || !*runtime || strlen(runtime) > 64)
		runtime = "/tmp";
	snprintf(dir->path, sizeof(dir->path), "%s/viodev-XXXXXX", runtime);
	if (!mkdtemp(dir->path))
		return -errno;
	ret = start_keeper(dir);
	if (ret < 0)
		rmdir(dir->path);
	return ret;
}

void tempdir_destroy(struct tempdir *dir)
{
	close(dir->alive_fd);
	waitpid(dir->keeper, NULL, 0);
}

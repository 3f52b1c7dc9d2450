/* SPDX-License-Identifier: BSD-2-Clause */
#include "base/files.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int opened_files_add(struct opened_files *files, const char *name, int take_fd)
{
	struct opened_file *f = &files->file[files->nr];

	if (files->nr == OPENED_FILES_MAX || strlen(name) >= sizeof(f->name))
		return -ENOSPC;
	*f = (struct opened_file){ .fd = take_fd };
	snprintf(f->name, sizeof(f->name), "%s", name);
	files->nr++;
	return 0;
}

static int find(const struct opened_files *files, const char *name)
{
	for (unsigned i = 0; i < files->nr; i++) {
		if (strcmp(files->file[i].name, name) == 0)
			return (int)i;
	}
	return -1;
}

int opened_files_find(const struct opened_files *files, const char *name)
{
	int i = find(files, name);

	return i < 0 ? -1 : files->file[i].fd;
}

int opened_files_take(struct opened_files *files, const char *name)
{
	int i = find(files, name);
	int fd = i < 0 ? -1 : files->file[i].fd;

	if (i >= 0)
		files->file[i].fd = -1;
	return fd;
}

void opened_files_replace(struct opened_files *files, const char *name,
			  int take_fd)
{
	int i = find(files, name);

	if (i >= 0 && files->file[i].fd >= 0)
		close(files->file[i].fd);
	if (i >= 0)
		files->file[i].fd = take_fd;
	else
		close(take_fd);
}

void opened_files_made(struct opened_files *files, const char *name,
		       const char *path)
{
	int i = find(files, name);

	if (i >= 0)
		files->file[i].made = unix_name(path);
}

void opened_files_remove(const struct opened_files *files, const char *name,
			 const char *path)
{
	int i = find(files, name);

	if (i >= 0)
		unix_remove(path, files->file[i].made);
}

void opened_files_close(struct opened_files *files)
{
	for (unsigned i = 0; i < files->nr; i++) {
		if (files->file[i].fd >= 0)
			close(files->file[i].fd);
	}
	files->nr = 0;
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* Files of guest memory, mapped once each. See ramfile.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <viodev/gmem.h>
#include <viodev/loop.h>

#include "serve/client.h"
#include "serve/mapping.h"
#include "serve/ramfile.h"

#define PAGE_BYTES 4096u
#define SMALL      (64u << 10) /* an IOMMU's pages; memory modules are larger */
#define LINGER_NS  UINT64_C(1000000000)
#define MAX_UNUSED 8u /* a client cannot keep more files than that alive */

struct ramfile {
	struct ramfile *next;
	unsigned client;
	dev_t dev;
	ino_t ino;
	unsigned prot;
	uint64_t offset, size; /* the part that is mapped */
	struct mapping map;
	uint64_t nr_users;
	bool old; /* was unused when the timer expired, or need not wait */
};

static void unmap(struct ramfile **link)
{
	struct ramfile *file = *link;

	*link = file->next;
	mapping_destroy(&file->map);
	free(file);
}

/* Unmap unused files, or only those unused for a while. */
static void unmap_unused(struct ramfiles *files, bool only_old)
{
	struct ramfile **link = &files->first;

	while (*link) {
		struct ramfile *file = *link;

		if (file->nr_users == 0 && (file->old || !only_old))
			unmap(link);
		else
			link = &file->next;
	}
}

static void arm(struct ramfiles *files)
{
	if (files->armed)
		return;
	vio_timer_set(files->timer, LINGER_NS);
	files->armed = true;
}

static void on_timer(void *arg)
{
	struct ramfiles *files = arg;

	files->armed = false;
	unmap_unused(files, true);
	for (struct ramfile *file = files->first; file; file = file->next) {
		file->old = file->nr_users == 0;
		if (file->old)
			arm(files);
	}
}

int ramfiles_init(struct ramfiles *files, struct vio_loop *loop,
		  struct client_wake *wake)
{
	files->wake = wake;
	return vio_timer_add(loop, on_timer, files, &files->timer);
}

void ramfiles_fini(struct ramfiles *files)
{
	unmap_unused(files, false);
	vio_source_remove(files->timer);
	*files = (struct ramfiles){ 0 };
}

void ramfiles_client_gone(struct ramfiles *files)
{
	unmap_unused(files, false);
}

static bool holds(const struct ramfile *file, uint64_t offset, uint64_t size)
{
	return offset >= file->offset && size <= file->size &&
	       offset - file->offset <= file->size - size;
}

/* Whether the descriptor allows such a mapping. */
static bool allows(int fd, unsigned prot)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0 || (flags & O_PATH))
		return false;
	return (flags & O_ACCMODE) == O_RDWR ||
	       ((flags & O_ACCMODE) == O_RDONLY && !(prot & GM_WRITE));
}

static struct ramfile *find(struct ramfiles *files, const struct stat *st,
			    uint64_t offset, uint64_t size, unsigned prot)
{
	struct ramfile *file = files->first;

	while (file && !(file->client == files->wake->client &&
			 file->dev == st->st_dev && file->ino == st->st_ino &&
			 file->prot == prot && holds(file, offset, size)))
		file = file->next;
	return file;
}

/* Map that part of the file: 0 or -errno. */
static int map_part(struct ramfiles *files, int fd, struct ramfile *file,
		    uint64_t offset, uint64_t size)
{
	file->offset = offset;
	file->size = size;
	return mapping_create(files->wake, fd, offset, size, file->prot,
			      &file->map);
}

/* Map all of the file, or only the part if there is no room for all. */
static int create(struct ramfiles *files, int fd, const struct stat *st,
		  uint64_t offset, uint64_t size, unsigned prot,
		  struct ramfile **ret_file)
{
	uint64_t whole = (uint64_t)st->st_size & ~(uint64_t)(PAGE_BYTES - 1);
	struct ramfile *file = calloc(1, sizeof(*file));
	int ret = -EINVAL;

	if (!file)
		return -ENOMEM;
	file->client = files->wake->client;
	file->dev = st->st_dev;
	file->ino = st->st_ino;
	file->prot = prot;
	if (st->st_size > 0 && offset + size <= whole)
		ret = map_part(files, fd, file, 0, whole);
	if (ret < 0)
		ret = map_part(files, fd, file, offset, size);
	if (ret < 0) {
		free(file);
		return ret;
	}
	file->next = files->first;
	files->first = file;
	*ret_file = file;
	return 0;
}

int ram_map(struct ramfiles *files, int fd, uint64_t offset, uint64_t size,
	    unsigned prot, struct ram *ret_ram)
{
	struct ramfile *file;
	struct stat st;
	int ret;

	if (fstat(fd, &st) < 0)
		return -errno;
	file = allows(fd, prot) ? find(files, &st, offset, size, prot) : NULL;
	if (!file) {
		ret = create(files, fd, &st, offset, size, prot, &file);
		if (ret < 0)
			return ret;
	}
	file->nr_users++;
	file->old = false;
	*ret_ram = (struct ram){
		.size = size,
		.host = (char *)file->map.host + (offset - file->offset),
		.file = file,
	};
	return 0;
}

static unsigned nr_unused(const struct ramfiles *files)
{
	unsigned n = 0;

	for (struct ramfile *file = files->first; file; file = file->next)
		n += file->nr_users == 0;
	return n;
}

void ram_release(struct ramfiles *files, struct ram *ram)
{
	struct ramfile *file = ram->file;

	if (file && --file->nr_users == 0) {
		file->old = ram->size >= SMALL ||
			    file->client != files->wake->client ||
			    nr_unused(files) > MAX_UNUSED;
		if (file->old)
			unmap_unused(files, true);
		else
			arm(files);
	}
	*ram = (struct ram){ 0 };
}

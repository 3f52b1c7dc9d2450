/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The files that hold a client's guest memory. Each is mapped once, however
 * many regions refer to it: behind an IOMMU a region is a page that each
 * request maps and unmaps. Not installed.
 */
#ifndef SERVE_RAMFILE_H
#define SERVE_RAMFILE_H

#include <stdbool.h>
#include <stdint.h>

struct client_wake;
struct ramfile;
struct vio_loop;
struct vio_source;

struct ramfiles {
	struct ramfile *first;
	struct client_wake *wake;
	struct vio_source *timer; /* unmaps files unused for a while */
	bool armed;
};

/* -errno. An all-zero object may be finished. */
int ramfiles_init(struct ramfiles *files, struct vio_loop *loop,
		  struct client_wake *wake);
void ramfiles_fini(struct ramfiles *files);

/* A piece of guest memory in this process; all 0: none. */
struct ram {
	void *host;
	uint64_t size;
	struct ramfile *file;
};

/*
 * Map @size bytes at @offset of @fd, as mapping_create() does, or find them
 * mapped. ram_release() releases them. When the last piece of a file was one of
 * an IOMMU's pages, the file stays mapped for a second or two, because the next
 * piece is likely to follow soon.
 */
int ram_map(struct ramfiles *files, int fd, uint64_t offset, uint64_t size,
	    unsigned prot, struct ram *ret_ram);
void ram_release(struct ramfiles *files, struct ram *ram);

/* The client has disconnected: unmap files kept only for the next request. */
void ramfiles_client_gone(struct ramfiles *files);

#endif

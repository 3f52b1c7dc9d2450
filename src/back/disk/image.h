/* SPDX-License-Identifier: BSD-2-Clause */
/* Disk images: files and block devices. See disk.h. */
#ifndef BACK_DISK_IMAGE_H
#define BACK_DISK_IMAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct disk_engine;

enum disk_cache {
	DISK_WRITEBACK,    /* page cache; stable after a flush */
	DISK_WRITETHROUGH, /* page cache; every write is stable when done */
	DISK_DIRECT,       /* O_DIRECT; stable after a flush */
};

/* How to handle a request that the host cannot serve. */
enum disk_on_error {
	DISK_REPORT,     /* it fails */
	DISK_WAIT,       /* it waits, see disk_set_on_wait() */
	DISK_WAIT_SPACE, /* it waits if there is no space, else it fails */
};

#define DISK_NULL_MAX (UINT64_C(1) << 60)

/* How to open an image: parameters of disk_open() and disk_create(). */
struct disk_params {
	const char *path;
	uint64_t null_bytes; /* no image: this size, see null.c; path is NULL */
	bool ro;
	bool shared; /* no lock: others may write to it */
	bool raw;    /* serve its bytes, whatever format they look like */
	const char *option_prefix; /* "lun0." in a SCSI device; or NULL */
	enum disk_cache cache;
	uint32_t block_bytes; /* that the guest sees; 0: the image's */
	bool discard;         /* pass discards on */
	bool no_probe; /* make no call that a frozen file system blocks */
	enum disk_on_error on_read_error, on_write_error;
};

/* What an image is, for the device's configuration. */
struct disk_info {
	uint64_t bytes;       /* capacity, in whole blocks */
	uint64_t data_bytes;  /* size; up to the capacity are zeroes */
	uint32_t block_bytes; /* smallest transfer and alignment it takes */
	uint32_t phys_block_bytes; /* what it does well */
	uint32_t opt_io_bytes;     /* what it does best; 0: unknown */
	bool ro;
	bool can_discard;
	bool can_zero; /* without writing the zeroes out */
	bool rotational;
	const char *engine; /* "io_uring" or "threads" */
	int uring_error;    /* why it is not io_uring: -errno, or */
			    /* -ENOPKG: built without liburing */
};

/*
 * Open and lock an image: a writer excludes all others, readers exclude
 * writers. Returns the descriptor or -errno with the reason ("path=x: in use
 * by another process"). Needs privileges. A shared image is not locked. An
 * empty image is refused, and one in another format unless @raw is set.
 */
int disk_open(const struct disk_params *params, struct err *err);

/*
 * An additional descriptor that reports changes by others, and that the file was
 * renamed; it needs the path. Only files have one. -errno if the image has none.
 */
int disk_open_watch(const struct disk_params *params);

/*
 * --- Private to the storage engine ---
 */

/* An open image: what can be done with it. */
struct disk_image {
	int fd;
	struct disk_engine *engine; /* that makes its calls, */
	int file;                   /* and what it calls the image */
	bool is_bdev;
	bool is_null;   /* see null.c */
	bool had_name;  /* in a directory, when it was opened */
	bool in_memory; /* nothing ever waits for a medium */
	bool can_unmap; /* calls that were not refused so far */
	bool can_zero;
	bool nowait;     /* a read may be tried without waiting */
	bool forgetting; /* calls that have not begun fail; threads read it */
	uint32_t mem_align, off_align; /* that O_DIRECT requires, or 1 */
	uint32_t unit_bytes;           /* a multiple of these is the capacity */
	struct disk_info info;
};

/* Probe a descriptor of disk_open(). 0 or -errno; the caller keeps @fd. */
int disk_image_init(struct disk_image *img, int fd,
		    const struct disk_params *params);

/* Its size now, and the capacity that this means. */
int disk_image_bytes(const struct disk_image *img, uint64_t *ret_bytes);
void disk_image_set_bytes(struct disk_image *img, uint64_t bytes);

#endif

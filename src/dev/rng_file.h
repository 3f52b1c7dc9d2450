/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A source of entropy that may block its reader despite O_NONBLOCK: a file,
 * whose disk may be slow, or a device. A thread reads it into a buffer.
 */
#ifndef DEV_RNG_FILE_H
#define DEV_RNG_FILE_H

#include <stdbool.h>
#include <sys/types.h>

struct vio_loop;
struct rng_file;

#define RNG_FILE_BYTES (64u << 10) /* of the buffer */

/* Whether @fd is such a source. */
bool rng_file_needed(int fd);

/* @fd is borrowed. @ready is called when a read has ended. */
int rng_file_create(struct vio_loop *loop, int fd, void (*ready)(void *arg),
		    void *arg, struct rng_file **ret_file);
void rng_file_destroy(struct rng_file *f); /* NULL is fine */

/*
 * Provide @want bytes in the buffer, at most RNG_FILE_BYTES: 0 when they are
 * there, or when no more will arrive; -EAGAIN: @ready follows.
 */
int rng_file_fill(struct rng_file *f, size_t want);

/* Take up to @len bytes: how many; 0 at the end; or the error of the read. */
ssize_t rng_file_take(struct rng_file *f, void *p, size_t len);

#endif

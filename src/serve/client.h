/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What both servers do with what a client gave: its files are mapped, its
 * event descriptors written, its mistakes logged. Not installed.
 */
#ifndef SERVE_CLIENT_H
#define SERVE_CLIENT_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

/*
 * --- Files ---
 */

struct client_map {
	void *host; /* the piece that was asked for */
	void *addr; /* with the pages around it and inaccessible ones around those */
	size_t len;
};

/*
 * Guest memory is made of pages: -EINVAL unless the address that the guest has
 * for it, the offset in its file and its size are multiples of 4096. Rings and
 * descriptors are then aligned here as they are in the guest, and no byte that
 * is not the guest's shares a page with one that is.
 */
int client_check_ram(uint64_t guest_addr, uint64_t offset, uint64_t size);

/*
 * Map @size bytes at @offset of @fd, which may be closed afterwards; @prot is
 * of GM_READ and GM_WRITE, and offset + size does not wrap. The pages before
 * and behind are inaccessible: an access that leaves the mapping faults, and
 * does not reach what this process has beside it. -EINVAL when the piece is
 * not inside of a file that can be mapped.
 */
int client_mmap(int fd, uint64_t offset, uint64_t size, unsigned prot,
		struct client_map *ret_map);
void client_unmap(struct client_map *map); /* also of one that is all 0 */

/*
 * --- Event descriptors ---
 */

/*
 * Only a real one may be written to: writing to a pipe could kill us, writing
 * to a file system of the client's could hang us. Makes sure that a full one
 * does not; a client that undoes this stops a device of its own.
 */
int client_eventfd(int fd);

/*
 * The same, but pipes do too, and sockets, which User Mode Linux has for pipes:
 * for a process that ignores SIGPIPE.
 */
int client_eventfd_or_pipe(int fd);

/*
 * --- Log ---
 */

struct client_log {
	void (*fn)(void *arg, int level, const char *msg);
	void *arg;
	uint64_t since_ns; /* when tokens was last filled up */
	unsigned tokens;
	unsigned nr_lost;
};

/* To standard error at first. */
void client_log_init(struct client_log *log);

/* A line; too many of them are dropped and counted. */
void client_vlog(struct client_log *log, const char *name, int level,
		 const char *fmt, va_list ap)
	__attribute__((format(printf, 4, 0)));

#endif

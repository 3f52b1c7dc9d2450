/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What both servers do with what a client gave: its files are mapped, its
 * event descriptors written, its mistakes logged. Not installed.
 */
#ifndef SERVE_CLIENT_H
#define SERVE_CLIENT_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct vio_loop;
struct vio_source;

/*
 * --- Wake-up ---
 */

/*
 * Brings a server's loop to call @fn, from any thread and from signal handlers.
 * It outlives the mappings that were made with it.
 */
struct client_wake {
	void (*fn)(void *arg);
	void *arg;
	int fd;
	struct vio_source *source;
	unsigned client; /* counted up by client_gone() */
	bool faulted;    /* see client_mmap() */
};

int client_wake_init(struct client_wake *wake, struct vio_loop *loop,
		     void (*fn)(void *arg), void *arg);
void client_wake_fini(struct client_wake *wake); /* also of one that is all 0 */
void client_wake(struct client_wake *wake);

/* Whether memory of this client's was found gone, since it was last asked. */
bool client_has_faulted(struct client_wake *wake);

/* The next client may come: faults of this one's memory are not its. */
void client_gone(struct client_wake *wake);

/*
 * --- Files ---
 */

struct client_mem;

struct client_map {
	void *host; /* the piece that was asked for */
	struct client_mem *mem;
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
 * of GM_READ and GM_WRITE, and offset + size does not wrap. -EINVAL when that
 * is not inside of a file that can be mapped.
 *
 * The pages before and behind are inaccessible: an access that leaves the
 * mapping faults, and does not reach what this process has beside it.
 *
 * The file stays the client's, who may truncate it later; it cannot be made to
 * seal it (QEMU does not). An access to what is gone then finds zeros, here
 * and everywhere in the mapping from then on, and @wake's client has faulted:
 * the server should drop it. System calls on such memory fail with -EFAULT.
 * Threads that access it must not block SIGBUS.
 */
int client_mmap(struct client_wake *wake, int fd, uint64_t offset,
		uint64_t size, unsigned prot, struct client_map *ret_map);
void client_unmap(struct client_map *map); /* also of one that is all 0 */

/*
 * Handle SIGBUS from here on; faults at other places go to the handler that
 * there was. client_wake_init() calls it.
 */
void client_catch_faults(void);

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
 * The same, but pipes do too, and pairs of sockets, which User Mode Linux has
 * for pipes: for a process that ignores SIGPIPE.
 */
int client_eventfd_or_pipe(int fd);

/*
 * Only a UNIX socket of a pair without names may be kept. A client's end of the
 * connection to the server is none, as the server's end has a name; whoever
 * kept that end would never see the client close it. 0 or -EINVAL.
 */
int client_socket(int fd);

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

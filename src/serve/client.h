/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The client of a server: what wakes the server on its behalf, and which of its
 * descriptors may be used. Not installed.
 */
#ifndef SERVE_CLIENT_H
#define SERVE_CLIENT_H

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
	struct vio_source *source;
	unsigned client; /* counted up by client_gone() */
	bool faulted;    /* see mapping_create() */
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

#endif

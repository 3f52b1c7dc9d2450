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
 * Makes the server's loop call @fn, from any thread and from signal handlers.
 * It must outlive the mappings that were created with it.
 */
struct client_wake {
	struct vio_source *source;
	unsigned client; /* incremented by client_disconnected() */
	bool faulted;    /* see mapping_create() */
};

int client_wake_init(struct client_wake *wake, struct vio_loop *loop,
		     void (*fn)(void *arg), void *arg);
void client_wake_fini(struct client_wake *wake); /* all 0 is allowed */
void client_wake(struct client_wake *wake);

/* Whether this client truncated its memory since the last call. */
bool client_has_faulted(struct client_wake *wake);

/* The client has disconnected: faults in its memory no longer count. */
void client_disconnected(struct client_wake *wake);

/*
 * --- Event descriptors ---
 */

/*
 * Check that @fd is an event descriptor, and make it non-blocking. Writing to a
 * pipe could kill the process, writing to a file system of the client could
 * block it. A client that makes it blocking again stalls its own device only.
 * 0 or -errno.
 */
int client_eventfd(int fd);

/*
 * The same, for a process that ignores SIGPIPE: pipes are allowed as well, and
 * socket pairs, which User Mode Linux uses as pipes.
 */
int client_eventfd_or_pipe(int fd);

/*
 * Only a UNIX socket of a pair without names may be kept. A client's end of the
 * connection to the server is not one, as the server's end has a name; a server
 * that kept that end would never see the client close it. 0 or -EINVAL.
 */
int client_socket(int fd);

#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A socket of a device, as socket= has it:
 *
 *	[unix:]PATH		listens there; the path is removed at the end
 *	unix-connect:PATH	connects to who listens there
 *	fd:N			is a descriptor that we were started with
 */
#ifndef VIODEV_SOCK_H
#define VIODEV_SOCK_H

#include <stdbool.h>

#include "base/err.h"
#include "base/unix.h"

enum sock_kind {
	SOCK_LISTENS,
	SOCK_CONNECTS,  /* again when its peer has gone */
	SOCK_CONNECTED, /* once */
};

struct sock {
	enum sock_kind kind;
	int fd;                /* -1: none, or not connected */
	char *path;            /* of an unnamed one fd:N */
	struct unix_name made; /* what we made at the path */
};

/*
 * Nothing is connected yet by sock_open(). @who is named in the reason. These
 * return 0, or -errno with the reason; sock_fini() is due in either case.
 */
int sock_open(struct sock *sock, const char *who, const char *text,
	      struct err *err);
int sock_listen(struct sock *sock, const char *who, const char *path,
		struct err *err);

/* Use descriptor @fd, with which we were started. */
int sock_inherit(struct sock *sock, const char *who, int fd, struct err *err);

/* Connect one that connects. 0 or -errno. */
int sock_connect(struct sock *sock);

/* Let go of the connection: it is another process's. */
void sock_disconnect(struct sock *sock);

void sock_fini(struct sock *sock);

/* Whether it takes connections, or is one. */
bool sock_is_listening(int fd);

#endif

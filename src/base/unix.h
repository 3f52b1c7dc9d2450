/* SPDX-License-Identifier: BSD-2-Clause */
/* UNIX sockets that have a path. All return 0 or a descriptor, or -errno. */
#ifndef BASE_UNIX_H
#define BASE_UNIX_H

#include <sys/socket.h>
#include <sys/un.h>

#include "base/unix_name.h"

/* -ENAMETOOLONG when the path does not fit into an address. */
int unix_address(const char *path, struct sockaddr_un *ret_addr);

/*
 * Bind. A socket that a dead process left behind is replaced, by one process if
 * several try. -EADDRINUSE: a live process owns it; -EEXIST: not a socket;
 * -EBUSY: the directory stays locked for seconds.
 */
int unix_bind(int fd, const struct sockaddr_un *addr);

/* New stream sockets, closed on exec; @flags may be SOCK_NONBLOCK. */
int unix_listen(const char *path, int flags);
int unix_connect(const char *path, int flags);

#endif

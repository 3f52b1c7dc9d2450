/* SPDX-License-Identifier: BSD-2-Clause */
/* UNIX sockets that have a path. All return 0 or a descriptor, or -errno. */
#ifndef BASE_UNIX_H
#define BASE_UNIX_H

#include <sys/socket.h>
#include <sys/types.h>
#include <sys/un.h>

/* -ENAMETOOLONG when the path does not fit into an address. */
int unix_address(const char *path, struct sockaddr_un *ret_addr);

/*
 * Bind. A socket that a dead process left behind gives way, to one process if
 * several try; -EADDRINUSE for one that somebody has, -EEXIST for what is no
 * socket, -EBUSY when the directory stays locked for seconds.
 */
int unix_bind(int fd, const struct sockaddr_un *addr);

/*
 * What lies at a path now, to remove that and not what somebody else has put
 * there since. Its socket must be open until then.
 */
struct unix_name {
	dev_t dev;
	ino_t ino; /* 0: nothing */
};
struct unix_name unix_name(const char *path);
void unix_remove(const char *path, struct unix_name name);

/* New stream sockets, closed on exec; @flags may be SOCK_NONBLOCK. */
int unix_listen(const char *path, int flags);
int unix_connect(const char *path, int flags);

#endif

/* SPDX-License-Identifier: BSD-2-Clause */
#include "viodev/sock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKLOG 8

static int set_path(struct sock *sock, const char *who, const char *path,
		    struct sockaddr_un *ret_addr, struct err *err)
{
	*ret_addr = (struct sockaddr_un){ .sun_family = AF_UNIX };
	if (strlen(path) >= sizeof(ret_addr->sun_path))
		return err_set(
			err, -ENAMETOOLONG,
			"%s: socket=%s: longer than the %zu bytes that a "
			"socket's path may have: use a shorter --dir",
			who, path, sizeof(ret_addr->sun_path) - 1);
	strcpy(ret_addr->sun_path, path);
	sock->path = strdup(path);
	return sock->path ? 0 : err_set(err, -ENOMEM, "%s: out of memory", who);
}

/*
 * --- Listening ---
 */

/*
 * Whether somebody has a socket at this address. Asked with a datagram socket:
 * where a stream socket lives that fails with EPROTOTYPE, and does not disturb
 * it with a connection; where none does, with ECONNREFUSED.
 */
static bool in_use(const struct sockaddr_un *addr)
{
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	bool refused;

	if (fd < 0)
		return true;
	refused =
		connect(fd, (const struct sockaddr *)addr, sizeof(*addr)) < 0 &&
		errno == ECONNREFUSED;
	close(fd);
	return !refused;
}

/* Remove what a dead process left behind. 0 when the path is free. */
static int clear_stale(const struct sockaddr_un *addr)
{
	struct stat st;

	if (lstat(addr->sun_path, &st) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISSOCK(st.st_mode))
		return -EEXIST;
	if (in_use(addr))
		return -EADDRINUSE;
	return unlink(addr->sun_path) < 0 ? -errno : 0;
}

static int listen_at(const struct sockaddr_un *addr)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int ret;

	if (fd < 0)
		return -errno;
	if (bind(fd, (const struct sockaddr *)addr, sizeof(*addr)) < 0 ||
	    listen(fd, BACKLOG) < 0) {
		ret = -errno;
		close(fd);
		return ret;
	}
	return fd;
}

int sock_listen(struct sock *sock, const char *who, const char *path,
		struct err *err)
{
	struct sockaddr_un addr;
	int ret = set_path(sock, who, path, &addr, err);

	if (ret < 0)
		return ret;
	sock->kind = SOCK_LISTENS;
	ret = clear_stale(&addr);
	if (ret == 0)
		ret = listen_at(&addr);
	if (ret == -EADDRINUSE)
		return err_set(err, ret,
			       "%s: socket=%s: in use by another process", who,
			       path);
	if (ret == -EEXIST)
		return err_set(err, ret,
			       "%s: socket=%s: exists and is not a socket",
			       who, path);
	if (ret < 0)
		return err_set(err, ret, "%s: socket=%s: %s", who, path,
			       strerror(-ret));
	sock->fd = ret;
	sock->made = true;
	return 0;
}

/*
 * --- Connecting ---
 */

int sock_connect(struct sock *sock)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int ret;

	if (fd < 0)
		return -errno;
	strcpy(addr.sun_path, sock->path);
	if (connect(fd, (const struct sockaddr *)&addr, sizeof(addr)) < 0) {
		ret = -errno;
		close(fd);
		return ret;
	}
	sock->fd = fd;
	return 0;
}

void sock_disconnect(struct sock *sock)
{
	if (sock->fd >= 0)
		close(sock->fd);
	sock->fd = -1;
}

/*
 * --- Inherited ---
 */

bool sock_is_listening(int fd)
{
	int listening = 0;
	socklen_t len = sizeof(listening);

	return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len) ==
		       0 &&
	       listening;
}

static bool is_unix_stream(int fd)
{
	int domain, type;
	socklen_t len = sizeof(int);

	return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) == 0 &&
	       domain == AF_UNIX &&
	       getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) == 0 &&
	       type == SOCK_STREAM;
}

static char *name_of(int fd)
{
	struct sockaddr_un addr = { 0 };
	socklen_t len = sizeof(addr) - 1;
	char *name;

	if (getsockname(fd, (struct sockaddr *)&addr, &len) == 0 &&
	    addr.sun_path[0])
		return strdup(addr.sun_path);
	return asprintf(&name, "fd:%d", fd) < 0 ? NULL : name;
}

int sock_inherit(struct sock *sock, const char *who, int fd, struct err *err)
{
	int flags = fcntl(fd, F_GETFD);

	/* What we opened ourselves, or have taken already, has the flag. */
	if (flags < 0 || (flags & FD_CLOEXEC))
		return err_set(err, -EBADF,
			       "%s: socket=fd:%d: no descriptor that viodev "
			       "was started with, or another device's",
			       who, fd);
	if (!is_unix_stream(fd))
		return err_set(err, -ENOTSOCK,
			       "%s: socket=fd:%d: must be a UNIX stream socket",
			       who, fd);
	fcntl(fd, F_SETFD, FD_CLOEXEC);
	sock->kind = sock_is_listening(fd) ? SOCK_LISTENS : SOCK_CONNECTED;
	sock->fd = fd;
	sock->path = name_of(fd);
	return sock->path ? 0 : err_set(err, -ENOMEM, "%s: out of memory", who);
}

/*
 * --- Any of them ---
 */

static const char *after(const char *text, const char *prefix)
{
	size_t len = strlen(prefix);

	return strncmp(text, prefix, len) == 0 ? text + len : NULL;
}

int sock_open(struct sock *sock, const char *who, const char *text,
	      struct err *err)
{
	struct sockaddr_un addr;
	const char *rest;
	char *end;

	if ((rest = after(text, "unix-connect:"))) {
		sock->kind = SOCK_CONNECTS;
		return set_path(sock, who, rest, &addr, err);
	}
	if ((rest = after(text, "fd:"))) {
		unsigned long fd = strtoul(rest, &end, 10);

		if (end == rest || *end || fd > INT16_MAX)
			return err_set(err, -EINVAL,
				       "%s: socket=%s: must be fd: and the "
				       "number of a descriptor",
				       who, text);
		return sock_inherit(sock, who, (int)fd, err);
	}
	rest = after(text, "unix:");
	return sock_listen(sock, who, rest ? rest : text, err);
}

void sock_fini(struct sock *sock)
{
	if (sock->made)
		unlink(sock->path);
	sock_disconnect(sock);
	free(sock->path);
}

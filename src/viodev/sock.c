/* SPDX-License-Identifier: BSD-2-Clause */
#include "viodev/sock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int set_path(struct sock *sock, const char *who, const char *path,
		    struct err *err)
{
	struct sockaddr_un addr;

	if (!*path)
		return err_set(err, -EINVAL, "%s: socket=: must name a file",
			       who);
	if (unix_address(path, &addr) < 0)
		return err_set(err, -ENAMETOOLONG,
			       "%s: socket=%s: longer than %zu bytes, the "
			       "limit for a socket path: use a shorter --dir",
			       who, path, sizeof(addr.sun_path) - 1);
	sock->path = strdup(path);
	return sock->path ? 0 : err_set(err, -ENOMEM, "%s: out of memory", who);
}

int sock_listen(struct sock *sock, const char *who, const char *path,
		struct err *err)
{
	int ret = set_path(sock, who, path, err);

	if (ret < 0)
		return ret;
	sock->kind = SOCK_LISTENS;
	ret = unix_listen(path, SOCK_NONBLOCK);
	if (ret == -EADDRINUSE)
		return err_set(err, ret,
			       "%s: socket=%s: in use by another process", who,
			       path);
	if (ret == -EEXIST)
		return err_set(err, ret,
			       "%s: socket=%s: exists and is not a socket", who,
			       path);
	if (ret < 0)
		return err_set(err, ret, "%s: socket=%s: %s", who, path,
			       strerror(-ret));
	sock->fd = ret;
	sock->made = unix_name(path);
	return 0;
}

int sock_connect(struct sock *sock)
{
	int fd = unix_connect(sock->path, SOCK_NONBLOCK);

	if (fd < 0)
		return fd;
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

	/* Descriptors of our own, or taken earlier, have the flag. */
	if (flags < 0 || (flags & FD_CLOEXEC))
		return err_set(err, -EBADF,
			       "%s: socket=fd:%d: not inherited, or used by "
			       "another device",
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
	const char *rest;
	char *end;

	if ((rest = after(text, "unix-connect:"))) {
		sock->kind = SOCK_CONNECTS;
		return set_path(sock, who, rest, err);
	}
	if ((rest = after(text, "fd:"))) {
		unsigned long fd = strtoul(rest, &end, 10);

		if (end == rest || *end || fd > INT16_MAX)
			return err_set(err, -EINVAL,
				       "%s: socket=%s: must be fd:N with a "
				       "descriptor number",
				       who, text);
		return sock_inherit(sock, who, (int)fd, err);
	}
	rest = after(text, "unix:");
	return sock_listen(sock, who, rest ? rest : text, err);
}

void sock_fini(struct sock *sock)
{
	if (sock->path)
		unix_remove(sock->path, sock->made);
	sock_disconnect(sock);
	free(sock->path);
}

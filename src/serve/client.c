/* SPDX-License-Identifier: BSD-2-Clause */
/* What servers do with descriptors from clients. See client.h. */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <viodev/loop.h>

#include "serve/client.h"
#include "serve/mapping.h"

/*
 * --- Wake-up ---
 */

int client_wake_init(struct client_wake *wake, struct vio_loop *loop,
		     void (*fn)(void *arg), void *arg)
{
	mapping_catch_faults();
	return vio_wake_add(loop, fn, arg, &wake->source);
}

void client_wake_fini(struct client_wake *wake)
{
	vio_source_remove(wake->source);
	wake->source = NULL;
}

void client_wake(struct client_wake *wake)
{
	if (wake->source) /* NULL: finished */
		vio_wake(wake->source);
}

bool client_has_faulted(struct client_wake *wake)
{
	return __atomic_exchange_n(&wake->faulted, false, __ATOMIC_ACQ_REL);
}

/*
 * --- Event descriptors ---
 */

/* What kind of file it is, as in <linux/magic.h>, or -errno. */
static long kind_of(int fd)
{
	struct statfs fs;

	return fstatfs(fd, &fs) < 0 ? -errno : (long)fs.f_type;
}

static int set_nonblocking(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
		return -errno;
	return 0;
}

int client_eventfd(int fd)
{
	long kind = kind_of(fd);

	if (kind == ANON_INODE_FS_MAGIC)
		return set_nonblocking(fd);
	return kind < 0 ? (int)kind : -EINVAL;
}

int client_eventfd_or_pipe(int fd)
{
	long kind = kind_of(fd);

	if (kind == ANON_INODE_FS_MAGIC || kind == PIPEFS_MAGIC ||
	    client_socket(fd) == 0)
		return set_nonblocking(fd);
	return -EINVAL;
}

/* The address of an unnamed UNIX socket is only its family. */
static bool is_unnamed(int ret, const struct sockaddr_un *addr, socklen_t len)
{
	return ret == 0 && addr->sun_family == AF_UNIX &&
	       len == sizeof(addr->sun_family);
}

int client_socket(int fd)
{
	struct sockaddr_un addr;
	socklen_t len = sizeof(addr);
	int ret = getsockname(fd, (struct sockaddr *)&addr, &len);

	if (!is_unnamed(ret, &addr, len))
		return -EINVAL;
	len = sizeof(addr);
	ret = getpeername(fd, (struct sockaddr *)&addr, &len);
	return is_unnamed(ret, &addr, len) ? 0 : -EINVAL;
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A descriptor that whoever started us left open: a stream or datagram socket
 * or a tap, which the backends of these names then work.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "back/net/net_be.h"

static int fd_open(const struct opts *opts, struct opened_files *files,
		   struct err *err)
{
	int fd, ret;

	if (!opt_given(opts, "fd"))
		return err_set(err, -EINVAL, "net: backend=fd needs fd=");
	fd = fcntl((int)opt_number(opts, "fd"), F_DUPFD_CLOEXEC, 0);
	ret = fd < 0 ? -errno : opened_files_add(files, "fd", fd);
	if (ret < 0) {
		if (fd >= 0)
			close(fd);
		return err_set(err, ret, "net: fd=%s: %s",
			       opt_string(opts, "fd"), strerror(-ret));
	}
	return 0;
}

static int create(struct vio_loop *loop, int take_fd, struct net_be **ret_be)
{
	socklen_t len = sizeof(int);
	int type;

	if (getsockopt(take_fd, SOL_SOCKET, SO_TYPE, &type, &len) < 0)
		return errno == ENOTSOCK ?
			       net_tap_create(loop, &take_fd, 1, -1, ret_be) :
			       -errno;
	if (type == SOCK_STREAM)
		return net_stream_create(loop, take_fd, -1, ret_be);
	if (type == SOCK_DGRAM || type == SOCK_SEQPACKET)
		return net_dgram_create(loop, take_fd, ret_be);
	return -EPROTOTYPE;
}

static int fd_create(const struct opts *opts, struct opened_files *files,
		     struct vio_loop *loop, struct net_be **ret_be,
		     struct err *err)
{
	int fd = opened_files_take(files, "fd");
	int ret = create(loop, fd, ret_be);

	if (ret == 0)
		return 0;
	close(fd);
	return err_set(err, ret,
		       "net: fd=%s: not a tap, stream or datagram socket: %s",
		       opt_string(opts, "fd"), strerror(-ret));
}

/* Of whichever it turns out to be. */
static const int fd_syscalls[] = {
	SYS_recvmsg, SYS_sendmsg,  SYS_recvfrom, SYS_sendto,
	SYS_accept4, SYS_shutdown, -1,
};
static const unsigned long fd_ioctls[] = { TUNSETOFFLOAD, TUNSETQUEUE, 0 };

static const char *const fd_keys[] = { "fd", NULL };

const struct net_be_kind net_kind_fd = {
	.name = "fd",
	.keys = fd_keys,
	.syscalls = fd_syscalls,
	.ioctls = fd_ioctls,
	.open = fd_open,
	.create = fd_create,
};

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * An inherited descriptor: a stream or datagram socket or a tap, which the
 * backend of that name then drives. A tap may have several descriptors, one for
 * each queue.
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "back/net/link_monitor.h"
#include "back/net/net_be.h"

#define MAX_FD (1 << 20)

/* 3, or 3:4:5. Returns how many, or -EINVAL. */
static int parse_fds(const char *text, int fds[NET_MAX_CHANNELS])
{
	unsigned nr = 0;

	for (;; text++) {
		unsigned long fd;
		char *end;

		if (nr == NET_MAX_CHANNELS || !isdigit((unsigned char)*text))
			return -EINVAL;
		fd = strtoul(text, &end, 10);
		if (fd > MAX_FD || (*end && *end != ':'))
			return -EINVAL;
		fds[nr++] = (int)fd;
		text = end;
		if (!*text)
			return (int)nr;
	}
}

/* Duplicate them: the parent process keeps its own. */
static int copy_fds(int *fds, unsigned nr)
{
	for (unsigned i = 0; i < nr; i++) {
		int fd = fcntl(fds[i], F_DUPFD_CLOEXEC, 0), ret = -errno;

		if (fd < 0) {
			while (i > 0)
				close(fds[--i]);
			return ret;
		}
		fds[i] = fd;
	}
	return 0;
}

static bool is_tap(int fd)
{
	struct ifreq ifr;

	return ioctl(fd, TUNGETIFF, &ifr) == 0;
}

static int fd_open(const struct opts *opts, struct opened_files *files,
		   struct err *err)
{
	const char *text = opt_string(opts, "fd");
	int fds[NET_MAX_CHANNELS], nr, ret;

	if (!text)
		return err_set(err, -EINVAL, "net: backend=fd needs fd=");
	nr = parse_fds(text, fds);
	if (nr < 0)
		return err_set(err, nr,
			       "net: fd=%s: must be a descriptor, or up to 16 "
			       "of one tap joined by :",
			       text);
	if (opt_given(opts, "queues") &&
	    opt_number(opts, "queues") != (unsigned)nr)
		return err_set(err, -EINVAL,
			       "net: queues=%s: fd=%s has %d descriptors",
			       opt_string(opts, "queues"), text, nr);
	ret = copy_fds(fds, (unsigned)nr);
	if (ret == 0)
		ret = net_add_queues(files, fds, (unsigned)nr);
	if (ret == 0 && is_tap(fds[0]))
		link_monitor_open(files); /* or frames tell, not at once */
	if (ret < 0)
		return err_set(err, ret, "net: fd=%s: %s", text,
			       strerror(-ret));
	return 0;
}

static int create_tap(struct vio_loop *loop, const int *take_fds, unsigned nr,
		      struct opened_files *files, struct net_be **ret_be)
{
	int ret = net_tap_create(loop, take_fds, nr, -1, ret_be);

	if (ret == 0)
		net_tap_monitor(*ret_be, files);
	return ret;
}

static int create(struct vio_loop *loop, const int *take_fds, unsigned nr,
		  struct opened_files *files, struct net_be **ret_be)
{
	socklen_t len = sizeof(int);
	int type;

	if (getsockopt(take_fds[0], SOL_SOCKET, SO_TYPE, &type, &len) < 0)
		return errno == ENOTSOCK ?
			       create_tap(loop, take_fds, nr, files, ret_be) :
			       -errno;
	if (nr > 1)
		return -EPROTOTYPE;
	if (type == SOCK_STREAM)
		return net_stream_create(loop, take_fds[0], -1, ret_be);
	if (type == SOCK_DGRAM || type == SOCK_SEQPACKET)
		return net_dgram_create(loop, take_fds[0], ret_be);
	return -EPROTOTYPE;
}

static int fd_create(const struct opts *opts, struct opened_files *files,
		     struct vio_loop *loop, struct net_be **ret_be,
		     struct err *err)
{
	unsigned nr = net_be_nr_queues(opts);
	int fds[NET_MAX_CHANNELS], ret;

	net_take_queues(files, fds, nr);
	ret = create(loop, fds, nr, files, ret_be);
	if (ret == 0)
		return 0;
	for (unsigned i = 0; i < nr; i++)
		close(fds[i]);
	return err_set(err, ret, "net: fd=%s: not %s: %s",
		       opt_string(opts, "fd"),
		       nr > 1 ? "queues of one tap" :
				"a tap, stream or datagram socket",
		       strerror(-ret));
}

/* For whichever kind the descriptor is. */
static const int fd_syscalls[] = {
	SYS_recvmsg, SYS_sendmsg,  SYS_recvfrom, SYS_sendto,
	SYS_accept4, SYS_shutdown, -1,
};
static const unsigned long fd_ioctls[] = { TUNSETOFFLOAD, TUNSETQUEUE,
					   TUNGETIFF, 0 };

static const char *const fd_keys[] = { "fd", NULL };

const struct net_be_kind net_kind_fd = {
	.name = "fd",
	.keys = fd_keys,
	.multi = true,
	.syscalls = fd_syscalls,
	.ioctls = fd_ioctls,
	.open = fd_open,
	.create = fd_create,
};

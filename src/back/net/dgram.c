/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A datagram socket; each datagram is a frame.
 *
 * Two devices may be each other's remote end: one of them starts before the
 * other's socket exists, and either may be restarted. A sandboxed device cannot
 * look up paths, but the process that opens the socket can: a thread of the
 * opener, which shares the socket, connects it to whatever is at the other end
 * now, as long as the device has it. Without a peer, frames that the guest
 * sends are lost, as on an unplugged cable.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "back/net/net_be.h"
#include "base/thread.h"
#include "base/unix.h"

#define CONNECT_RETRY_MS 100

struct dgram {
	struct net_be be;
	struct net_port port;
	int alive_fd; /* keeps the connecting thread alive; -1: none */
};

static struct dgram *dgram_of(struct net_be *be)
{
	return (struct dgram *)be;
}

static ssize_t dgram_recv(struct net_be *be, unsigned channel,
			  const struct iovec *iov, int niov)
{
	struct msghdr msg = {
		.msg_iov = (struct iovec *)iov + 1,
		.msg_iovlen = (size_t)niov - 1,
	};
	ssize_t n;

	do {
		n = recvmsg(dgram_of(be)->port.fd, &msg, MSG_DONTWAIT);
	} while (n < 0 && (errno == EINTR || errno == ECONNREFUSED));
	if (n < 0)
		return -errno;
	return msg.msg_flags & MSG_TRUNC ? 0 : n;
}

static int dgram_send(struct net_be *be, unsigned channel, struct iovec *iov,
		      int niov)
{
	struct dgram *dg = dgram_of(be);
	struct msghdr msg = {
		.msg_iov = iov + 1,
		.msg_iovlen = (size_t)niov - 1,
	};
	ssize_t n;

	do {
		n = sendmsg(dg->port.fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
	} while (n < 0 && errno == EINTR);
	if (n < 0 && errno == EAGAIN)
		net_port_watch(&dg->port, EPOLLOUT, true);
	return n < 0 ? -errno : 0;
}

static void dgram_watch(struct net_be *be, unsigned channel, bool on)
{
	net_port_watch(&dgram_of(be)->port, EPOLLIN, on);
}

static void dgram_on_event(void *arg, uint32_t events)
{
	struct dgram *dg = arg;
	const struct net_be_client *client = dg->be.client;

	if (events & EPOLLOUT) {
		net_port_watch(&dg->port, EPOLLOUT, false);
		client->writable(dg->be.client_arg, 0);
	}
	if (events & EPOLLIN) {
		client->readable(dg->be.client_arg, 0);
	} else if (events & EPOLLHUP) { /* the other of a socketpair() */
		net_port_watch(&dg->port, EPOLLIN | EPOLLOUT, false);
		client->link(dg->be.client_arg, false, "peer disconnected");
	}
}

static void dgram_destroy(struct net_be *be)
{
	net_port_close(&dgram_of(be)->port);
	if (dgram_of(be)->alive_fd >= 0)
		close(dgram_of(be)->alive_fd);
	free(be);
}

static const struct net_be_ops dgram_ops = {
	.name = "dgram",
	.recv = dgram_recv,
	.send = dgram_send,
	.watch = dgram_watch,
	.destroy = dgram_destroy,
};

int net_dgram_create(struct vio_loop *loop, int take_fd, struct net_be **ret_be)
{
	int ret = net_fd_prepare(take_fd);
	struct dgram *dg;

	if (ret < 0)
		return ret;
	dg = calloc(1, sizeof(*dg));
	if (!dg)
		return -ENOMEM;
	dg->be.ops = &dgram_ops;
	dg->be.nr_channels = 1;
	dg->alive_fd = -1;
	dg->port = (struct net_port){
		.loop = loop,
		.fd = take_fd,
		.cb = dgram_on_event,
		.arg = dg,
	};
	*ret_be = &dg->be;
	return 0;
}

/*
 * --- Opening it ---
 */

struct later {
	int fd;
	int alive_fd;      /* hangs up when the last device process ends */
	unsigned again_ms; /* after it was connected; 0: never */
	struct sockaddr_un remote;
};

static bool worth_waiting(int err)
{
	return err == ENOENT || err == ECONNREFUSED;
}

static void later_free(struct later *later)
{
	if (later->fd >= 0)
		close(later->fd);
	if (later->alive_fd >= 0)
		close(later->alive_fd);
	free(later);
}

/* False: the device has gone. */
static bool pause_ms(const struct later *later, unsigned ms)
{
	struct pollfd p = { .fd = later->alive_fd };

	return poll(&p, 1, (int)ms) == 0 || !(p.revents & POLLHUP);
}

/* Changes nothing if it is the same socket; a new one replaces the old. */
static void *connect_later(void *arg)
{
	struct later *later = arg;
	unsigned ms = CONNECT_RETRY_MS;

	while (ms && pause_ms(later, ms)) {
		int ret = connect(later->fd, (struct sockaddr *)&later->remote,
				  sizeof(later->remote));

		ms = ret == 0 ? later->again_ms : CONNECT_RETRY_MS;
	}
	later_free(later);
	return NULL;
}

/* The device has one end of a pipe; the thread ends when that is closed. */
static int start_connecting(struct opened_files *files, int fd,
			    const struct sockaddr_un *remote, unsigned again_ms)
{
	struct later *later = malloc(sizeof(*later));
	int alive[2], ret;

	if (!later)
		return -ENOMEM;
	*later = (struct later){
		.fd = fcntl(fd, F_DUPFD_CLOEXEC, 0),
		.alive_fd = -1,
		.again_ms = again_ms,
		.remote = *remote,
	};
	ret = later->fd < 0 || pipe2(alive, O_CLOEXEC) < 0 ? -errno : 0;
	if (ret == 0) {
		later->alive_fd = alive[0];
		ret = opened_files_add(files, "dgram-alive", alive[1]);
		if (ret < 0)
			close(alive[1]);
	}
	if (ret == 0)
		ret = thread_start_detached(connect_later, later);
	if (ret < 0)
		later_free(later);
	return ret;
}

static int address_of(const char *key, const char *path,
		      struct sockaddr_un *ret_sun, struct err *err)
{
	if (!path)
		return err_set(err, -EINVAL,
			       "net: %s=: missing, backend=dgram needs it",
			       key);
	if (unix_address(path, ret_sun) < 0)
		return err_set(err, -ENAMETOOLONG, "net: %s=%s: too long", key,
			       path);
	return 0;
}

static int dgram_open(const struct opts *opts, struct opened_files *files,
		      struct err *err)
{
	struct sockaddr_un local, remote;
	unsigned again_ms = (unsigned)opt_number(opts, "reconnect") * 1000;
	const char *key = "local";
	bool later = false;
	int fd, ret;

	ret = address_of(key, opt_string(opts, key), &local, err);
	if (ret == 0)
		ret = address_of("remote", opt_string(opts, "remote"), &remote,
				 err);
	if (ret < 0)
		return ret;

	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return err_set(err, -errno, "net: socket: %s", strerror(errno));
	ret = unix_bind(fd, &local);
	if (ret == 0) {
		key = "remote";
		if (connect(fd, (struct sockaddr *)&remote, sizeof(remote)) < 0)
			ret = -errno;
		later = ret < 0 && worth_waiting(-ret);
	}
	if (later || (ret == 0 && again_ms))
		ret = start_connecting(files, fd, &remote, again_ms);
	if (ret == 0)
		ret = opened_files_add(files, "dgram", fd);
	if (ret < 0) {
		close(fd);
		return err_set(err, ret, "net: %s=%s: %s", key,
			       opt_string(opts, key), strerror(-ret));
	}
	opened_files_made(files, "dgram", local.sun_path);
	return 0;
}

static int dgram_create(const struct opts *opts, struct opened_files *files,
			struct vio_loop *loop, struct net_be **ret_be,
			struct err *err)
{
	int fd = opened_files_take(files, "dgram");
	int ret = net_dgram_create(loop, fd, ret_be);

	if (ret == 0) {
		dgram_of(*ret_be)->alive_fd =
			opened_files_take(files, "dgram-alive");
		return 0;
	}
	close(fd);
	return err_set(err, ret, "net: backend=dgram: %s", strerror(-ret));
}

static const int dgram_syscalls[] = { SYS_recvmsg, SYS_sendmsg, -1 };

static const char *const dgram_keys[] = { "local", "remote", "reconnect",
					  NULL };

const struct net_be_kind net_kind_dgram = {
	.name = "dgram",
	.keys = dgram_keys,
	.syscalls = dgram_syscalls,
	.open = dgram_open,
	.create = dgram_create,
};

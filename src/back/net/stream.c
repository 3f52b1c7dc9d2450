/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A stream socket on which each frame follows its length, 32 bits big-endian:
 * what passt and QEMU's -netdev stream speak.
 *
 * Peers write many frames at once, so we read as much as there is into a
 * buffer and take frames from there. If the peer accepts only part of a frame,
 * the rest is copied and sent before anything else.
 *
 * A listening socket has one peer at a time; others wait in the kernel. A
 * connecting socket is connected again by an opener (opener.h).
 *
 *	in_buf   | done | len | frame | len | frame | len | fra   |  free  |
 *	                ^ in_off                              in_end ^
 */
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "back/net/net_be.h"
#include <viodev/iov.h>
#include "base/le.h"
#include "base/opener.h"
#include "base/unix.h"

#define IN_BYTES    (256u << 10)
#define OUT_BYTES   (sizeof(be32) + NET_MAX_FRAME)
#define BACKLOG     4 /* peers that wait for the current one to leave */
#define RELISTEN_NS 100000000ull /* after accept() failed */

struct stream {
	struct net_be be;
	struct net_port port;     /* the peer's; fd < 0: none */
	struct net_port listener; /* fd < 0: the peer is the only one */
	struct vio_source *relisten_timer; /* after accept() failed */
	struct reopener *reopener;         /* connects again; or NULL */
	struct vio_task more;              /* frames are in the buffer */
	bool watched;
	size_t in_off, in_end;
	size_t out_off, out_end; /* what is left of a frame */
	uint8_t in_buf[IN_BYTES];
	uint8_t out_buf[OUT_BYTES];
};

static struct stream *stream_of(struct net_be *be)
{
	return (struct stream *)be;
}

/* What a stream without a peer says: whether there may be another one. */
static int no_peer(const struct stream *st)
{
	return st->listener.fd >= 0 || st->reopener ? -EAGAIN : -ENOTCONN;
}

/* Wait for another peer. Returns the text for the log. */
static const char *await_peer(struct stream *st)
{
	if (st->listener.fd >= 0) {
		net_port_watch(&st->listener, EPOLLIN, true);
		return "peer disconnected: listening";
	}
	if (!st->reopener)
		return "peer disconnected";
	reopener_request(st->reopener);
	return "peer disconnected: reconnecting";
}

/* The peer disconnected, or broke the protocol: the stream has ended. */
static void hang_up(struct stream *st)
{
	if (st->port.fd < 0)
		return;
	net_port_watch(&st->port, EPOLLIN | EPOLLOUT | EPOLLRDHUP, false);
	/* The parent process may share the socket. */
	shutdown(st->port.fd, SHUT_RDWR);
	net_port_close(&st->port);
	st->in_off = st->in_end = 0;
	st->out_off = st->out_end = 0;
	st->be.client->link(st->be.client_arg, false, await_peer(st));
	vio_task_defer(st->port.loop, &st->more);
}

static void got_peer(struct stream *st, int take_fd)
{
	st->port.fd = take_fd;
	net_port_watch(&st->port, EPOLLRDHUP, true);
	net_port_watch(&st->port, EPOLLIN, st->watched);
	st->be.client->link(st->be.client_arg, true, "peer connected");
}

/* The opener's sockets block, so every call has MSG_DONTWAIT. */
static void stream_on_reopened(void *arg, const int *take_fds, unsigned nr)
{
	struct stream *st = arg;

	for (unsigned i = 1; i < nr; i++)
		close(take_fds[i]);
	got_peer(st, take_fds[0]);
}

static void stream_on_peer(void *arg, uint32_t events)
{
	struct stream *st = arg;
	int fd = accept4(st->listener.fd, NULL, NULL,
			 SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0 && (errno == EAGAIN || errno == ECONNABORTED))
		return; /* it left already */
	net_port_watch(&st->listener, EPOLLIN, false);
	if (fd < 0) { /* no descriptor is free, and the socket stays ready */
		vio_timer_set(st->relisten_timer, RELISTEN_NS);
		return;
	}
	got_peer(st, fd);
}

static void stream_relisten(void *arg)
{
	struct stream *st = arg;

	net_port_watch(&st->listener, EPOLLIN, true);
}

/* The length of the frame at in_off; 0: incomplete; or -EPROTO. */
static ssize_t frame_len(const struct stream *st)
{
	size_t have = st->in_end - st->in_off;
	uint32_t len;
	be32 prefix;

	if (have < sizeof(prefix))
		return 0;
	memcpy(&prefix, st->in_buf + st->in_off, sizeof(prefix));
	len = be32_to_cpu(prefix);
	if (len == 0 || len > NET_MAX_FRAME)
		return -EPROTO;
	return have - sizeof(prefix) >= len ? (ssize_t)len : 0;
}

/* Read what there is. 0, -EAGAIN, or -errno when the stream has ended. */
static int fill(struct stream *st)
{
	ssize_t n;

	if (st->in_off) {
		memmove(st->in_buf, st->in_buf + st->in_off,
			st->in_end - st->in_off);
		st->in_end -= st->in_off;
		st->in_off = 0;
	}
	do {
		n = recv(st->port.fd, st->in_buf + st->in_end,
			 IN_BYTES - st->in_end, MSG_DONTWAIT);
	} while (n < 0 && errno == EINTR);
	if (n == 0)
		return -ENOTCONN;
	if (n < 0)
		return -errno;
	st->in_end += (size_t)n;
	return 0;
}

static ssize_t stream_recv(struct net_be *be, unsigned channel,
			   const struct iovec *iov, int niov)
{
	struct stream *st = stream_of(be);
	ssize_t len = st->port.fd < 0 ? no_peer(st) : frame_len(st);
	size_t put = 0;
	uint8_t *frame;

	if (len == 0) {
		len = fill(st);
		if (len == 0)
			len = frame_len(st);
		if (len == 0)
			return -EAGAIN; /* the rest is on its way */
	}
	if (len == -EAGAIN)
		return len;
	if (len < 0) {
		hang_up(st);
		return no_peer(st);
	}
	frame = st->in_buf + st->in_off + sizeof(be32);
	for (int i = 1; i < niov && put < (size_t)len; i++) {
		size_t n = (size_t)len - put;

		if (n > iov[i].iov_len)
			n = iov[i].iov_len;
		memcpy(iov[i].iov_base, frame + put, n);
		put += n;
	}
	st->in_off += sizeof(be32) + (size_t)len;
	return put == (size_t)len ? len : 0;
}

/* epoll does not report frames that are in the buffer. */
static void stream_watch(struct net_be *be, unsigned channel, bool on)
{
	struct stream *st = stream_of(be);

	st->watched = on;
	if (st->port.fd >= 0)
		net_port_watch(&st->port, EPOLLIN, on);
	if (on && frame_len(st) != 0)
		vio_task_defer(st->port.loop, &st->more);
}

static void stream_run(void *arg)
{
	struct stream *st = arg;

	if (st->port.fd < 0) { /* frames that wait for the peer are lost */
		st->be.client->writable(st->be.client_arg, 0);
		return;
	}
	if (st->watched)
		st->be.client->readable(st->be.client_arg, 0);
	if (st->watched && frame_len(st) != 0)
		vio_task_defer(st->port.loop, &st->more);
}

/* 0: all of it; -EAGAIN; or -errno, and the stream has ended. */
static int flush(struct stream *st)
{
	while (st->out_off < st->out_end) {
		ssize_t n = send(st->port.fd, st->out_buf + st->out_off,
				 st->out_end - st->out_off,
				 MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		st->out_off += (size_t)n;
	}
	st->out_off = st->out_end = 0;
	return 0;
}

static int stream_send(struct net_be *be, unsigned channel, struct iovec *iov,
		       int niov)
{
	struct stream *st = stream_of(be);
	struct vio_iov_cursor all = { iov, niov };
	struct msghdr msg = {
		.msg_iov = iov,
		.msg_iovlen = (size_t)niov,
	};
	be32 prefix;
	ssize_t n;

	if (st->port.fd < 0)
		return -ENOTCONN;
	if (st->out_end) /* on_event waits for it */
		return -EAGAIN;
	prefix = cpu_to_be32((uint32_t)(vio_iov_len(&all) - iov[0].iov_len));
	iov[0] = (struct iovec){ &prefix, sizeof(prefix) };
	do {
		n = sendmsg(st->port.fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
	} while (n < 0 && errno == EINTR);
	if (n < 0) {
		if (errno == EAGAIN)
			net_port_watch(&st->port, EPOLLOUT, true);
		return -errno;
	}
	vio_iov_skip(&all, (size_t)n);
	st->out_end = vio_iov_take(&all, st->out_buf, OUT_BYTES);
	if (st->out_end)
		net_port_watch(&st->port, EPOLLOUT, true);
	return 0;
}

static bool has_more(const struct stream *st)
{
	char c;

	return frame_len(st) != 0 ||
	       recv(st->port.fd, &c, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
}

/* The peer left; its last frames may still wait for the driver. */
static void on_disconnect(struct stream *st)
{
	if (has_more(st))
		net_port_watch(&st->port, EPOLLIN | EPOLLOUT | EPOLLRDHUP,
			       false);
	else
		hang_up(st);
}

static void stream_on_event(void *arg, uint32_t events)
{
	struct stream *st = arg;

	if (events & EPOLLOUT) {
		int ret = flush(st);

		if (ret == 0) {
			net_port_watch(&st->port, EPOLLOUT, false);
			st->be.client->writable(st->be.client_arg, 0);
		} else if (ret != -EAGAIN) {
			hang_up(st);
		}
	}
	if (st->port.fd < 0)
		return;
	if (st->watched && (events & EPOLLIN))
		stream_run(st);
	else if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))
		on_disconnect(st);
}

static void stream_destroy(struct net_be *be)
{
	struct stream *st = stream_of(be);

	vio_task_cancel(st->port.loop, &st->more);
	net_port_close(&st->port);
	net_port_close(&st->listener);
	vio_source_remove(st->relisten_timer);
	reopener_destroy(st->reopener);
	free(st);
}

static const struct net_be_ops stream_ops = {
	.name = "stream",
	.recv = stream_recv,
	.send = stream_send,
	.watch = stream_watch,
	.destroy = stream_destroy,
};

/* Do not delay frames. UNIX sockets lack this option. */
static void send_at_once(int fd)
{
	int one = 1;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

static bool is_listening(int fd)
{
	int listening = 0;
	socklen_t len = sizeof(listening);

	return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len) ==
		       0 &&
	       listening;
}

int net_stream_create(struct vio_loop *loop, int take_fd, int take_again_fd,
		      struct net_be **ret_be)
{
	int ret = net_fd_prepare(take_fd);
	struct stream *st;

	if (ret < 0)
		return ret;
	st = calloc(1, sizeof(*st));
	if (!st)
		return -ENOMEM;
	ret = vio_timer_add(loop, stream_relisten, st, &st->relisten_timer);
	if (ret == 0 && take_again_fd >= 0)
		ret = reopener_create(loop, take_again_fd, stream_on_reopened,
				      st, &st->reopener);
	if (ret < 0) {
		vio_source_remove(st->relisten_timer);
		free(st);
		return ret;
	}
	send_at_once(take_fd); /* accepted sockets inherit it */
	st->be.ops = &stream_ops;
	st->be.nr_channels = 1;
	st->be.down = is_listening(take_fd);
	st->more = (struct vio_task){ .fn = stream_run, .arg = st };
	st->port = (struct net_port){
		.loop = loop,
		.fd = st->be.down ? -1 : take_fd,
		.cb = stream_on_event,
		.arg = st,
	};
	st->listener = (struct net_port){
		.loop = loop,
		.fd = st->be.down ? take_fd : -1,
		.cb = stream_on_peer,
		.arg = st,
	};
	if (st->be.down)
		net_port_watch(&st->listener, EPOLLIN, true);
	else
		net_port_watch(&st->port, EPOLLRDHUP, true);
	*ret_be = &st->be;
	return 0;
}

/*
 * --- Opening it ---
 */

/* Like connect(), for a listening socket. 0 or -1. */
typedef int step_fn(int fd, const struct sockaddr *sa, socklen_t len);

static int bind_and_listen(int fd, const struct sockaddr *sa, socklen_t len)
{
	int one = 1;

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	return bind(fd, sa, len) < 0 ? -1 : listen(fd, BACKLOG);
}

static int make_socket(const struct sockaddr *sa, socklen_t len, step_fn *step)
{
	int fd = socket(sa->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int ret;

	if (fd < 0)
		return -errno;
	if (step(fd, sa, len) == 0)
		return fd;
	ret = -errno;
	close(fd);
	return ret;
}

/* The first of the host's addresses that works. */
static int open_any(const struct addrinfo *ai, step_fn *step)
{
	int fd = -ENOENT;

	for (; ai && fd < 0; ai = ai->ai_next)
		fd = make_socket(ai->ai_addr, ai->ai_addrlen, step);
	return fd;
}

static int open_unix(const char *path, bool listens, struct err *err)
{
	int fd = listens ? unix_listen(path, 0) : unix_connect(path, 0);

	return fd >= 0 ? fd :
			 err_set(err, fd, "net: path=%s: %s", path,
				 strerror(-fd));
}

/* HOST:PORT, an IPv6 address in brackets. */
static int open_tcp(const char *addr, bool listens, struct err *err)
{
	const struct addrinfo hints = { .ai_socktype = SOCK_STREAM };
	const char *colon = strrchr(addr, ':'), *name = addr;
	size_t len = colon ? (size_t)(colon - addr) : 0;
	struct addrinfo *list;
	char host[256];
	int fd, ret;

	if (len == 0 || len >= sizeof(host))
		return err_set(err, -EINVAL, "net: addr=%s: must be HOST:PORT",
			       addr);
	if (addr[0] == '[' && colon[-1] == ']') {
		name++;
		len -= 2;
	}
	memcpy(host, name, len);
	host[len] = '\0';
	ret = getaddrinfo(host, colon + 1, &hints, &list);
	if (ret)
		return err_set(err, -EINVAL, "net: addr=%s: %s", addr,
			       gai_strerror(ret));
	fd = open_any(list, listens ? bind_and_listen : connect);
	freeaddrinfo(list);
	return fd >= 0 ? fd :
			 err_set(err, fd, "net: addr=%s: %s", addr,
				 strerror(-fd));
}

/* The peer's address, for the opener. */
struct peer {
	bool tcp;
	char where[];
};

static int open_peer(const char *where, bool tcp, bool listens, struct err *err)
{
	return tcp ? open_tcp(where, listens, err) :
		     open_unix(where, listens, err);
}

static int connect_again(void *arg, int *fds)
{
	const struct peer *peer = arg;
	struct err err;

	fds[0] = open_peer(peer->where, peer->tcp, false, &err);
	if (fds[0] < 0)
		return fds[0];
	send_at_once(fds[0]);
	return 1;
}

static int start_opener(const char *where, bool tcp, unsigned wait_ms,
			struct opened_files *files)
{
	struct peer *peer = malloc(sizeof(*peer) + strlen(where) + 1);
	int ret;

	if (!peer)
		return -ENOMEM;
	peer->tcp = tcp;
	strcpy(peer->where, where);
	ret = opener_start(files, "stream-again", connect_again, wait_ms, peer);
	if (ret < 0)
		free(peer);
	return ret;
}

static int stream_open(const struct opts *opts, struct opened_files *files,
		       struct err *err)
{
	const char *path = opt_string(opts, "path");
	const char *addr = opt_string(opts, "addr");
	unsigned wait_ms = (unsigned)opt_number(opts, "reconnect") * 1000;
	bool listens = opt_bool(opts, "listen");
	int fd, ret;

	if (!path == !addr)
		return err_set(err, -EINVAL,
			       "net: backend=stream needs path= or addr=");
	fd = open_peer(path ? path : addr, !path, listens, err);
	if (fd < 0)
		return fd;
	ret = opened_files_add(files, "stream", fd);
	if (ret < 0)
		close(fd);
	if (ret == 0 && path && listens)
		opened_files_made(files, "stream", path);
	if (ret == 0 && !listens && wait_ms)
		ret = start_opener(path ? path : addr, !path, wait_ms, files);
	return ret < 0 ? err_set(err, ret, "net: %s", strerror(-ret)) : 0;
}

static int stream_create(const struct opts *opts, struct opened_files *files,
			 struct vio_loop *loop, struct net_be **ret_be,
			 struct err *err)
{
	int fd = opened_files_take(files, "stream");
	int again_fd = opened_files_take(files, "stream-again");
	int ret = net_stream_create(loop, fd, again_fd, ret_be);

	if (ret == 0)
		return 0;
	close(fd);
	if (again_fd >= 0)
		close(again_fd);
	return err_set(err, ret, "net: backend=stream: %s", strerror(-ret));
}

static const int stream_syscalls[] = {
	SYS_accept4,  SYS_recvfrom,      SYS_sendto, SYS_sendmsg,
	SYS_shutdown, REOPENER_SYSCALLS, -1,
};

static const char *const stream_keys[] = { "path", "addr", "listen",
					   "reconnect", NULL };

const struct net_be_kind net_kind_stream = {
	.name = "stream",
	.keys = stream_keys,
	.syscalls = stream_syscalls,
	.open = stream_open,
	.create = stream_create,
};

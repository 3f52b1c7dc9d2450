/* SPDX-License-Identifier: BSD-2-Clause */
/* A vfio-user socket as a stream of messages. See vfio_user_conn.h. */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/scm.h"
#include "serve/vfio_user_conn.h"

/*
 * Both buffers, as pages that cost nothing until used: few clients use many of
 * them.
 */
int vfconn_init(struct vfconn *conn, int take_fd)
{
	void *p = mmap(NULL, VFCONN_IN_BYTES + VFCONN_OUT_BYTES,
		       PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		       0);

	if (p == MAP_FAILED)
		return -ENOMEM;
	*conn = (struct vfconn){
		.fd = take_fd,
		.in = p,
		.out = (uint8_t *)p + VFCONN_IN_BYTES,
		.send_fd = -1,
	};
	return 0;
}

static void close_fds(struct vfconn *conn)
{
	for (unsigned i = 0; i < conn->nr_fds; i++) {
		if (conn->fds[i] >= 0)
			close(conn->fds[i]);
	}
	conn->nr_fds = 0;
}

void vfconn_fini(struct vfconn *conn)
{
	if (conn->fd >= 0) {
		close(conn->fd);
		if (conn->send_fd >= 0)
			close(conn->send_fd);
		close_fds(conn);
	}
	if (conn->in)
		munmap(conn->in, VFCONN_IN_BYTES + VFCONN_OUT_BYTES);
	*conn = (struct vfconn){ .fd = -1, .send_fd = -1 };
}

/*
 * --- Input ---
 */

/* recvmsg() to the tail of the input: bytes, 0 for none, or -errno. */
static ssize_t receive(struct vfconn *conn, struct msghdr *msg, size_t len,
		       int flags)
{
	struct iovec iov = { conn->in + conn->in_tail, len };
	ssize_t n;

	msg->msg_iov = &iov;
	msg->msg_iovlen = 1;
	do {
		n = recvmsg(conn->fd, msg,
			    flags | MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	} while (n < 0 && errno == EINTR);
	if (n > 0)
		return n;
	if (n == 0)
		return -EPIPE;
	return errno == EAGAIN ? 0 : -errno;
}

/* Bytes that complete the header, or else the message, at the tail. */
static size_t bytes_wanted(const struct vfconn *conn)
{
	size_t have = conn->in_tail - conn->in_head;
	struct vfmsg_hdr hdr;

	if (vfmsg_decode_hdr(conn->in + conn->in_head, have, &hdr) < 0)
		return VFMSG_HDR_BYTES - have;
	return hdr.size - have;
}

/*
 * No message needs a socket. One may be the client's end of this very
 * connection: kept with a message that never becomes whole, it would hide a
 * disconnection for ever.
 */
static void drop_sockets(struct vfconn *conn, unsigned from)
{
	for (unsigned i = from; i < conn->nr_fds; i++) {
		struct stat st;

		if (fstat(conn->fds[i], &st) == 0 && !S_ISSOCK(st.st_mode))
			continue;
		close(conn->fds[i]);
		conn->fds[i] = -1;
	}
}

static ssize_t receive_with_fds(struct vfconn *conn, size_t len)
{
	union scm_room room;
	struct msghdr msg = {
		.msg_control = room.buf,
		.msg_controllen = sizeof(room.buf),
	};
	ssize_t n = receive(conn, &msg, len, 0);
	unsigned before = conn->nr_fds;

	if (n <= 0)
		return n;
	scm_take(&msg, conn->fds, &conn->nr_fds, VFMSG_MAX_FDS);
	drop_sockets(conn, before);
	/* We ran out of descriptors, and cannot tell which are missing. */
	return msg.msg_flags & MSG_CTRUNC ? -EMFILE : n;
}

/* Bytes, 0 for none, or -errno as from vfconn_fill(). */
static ssize_t receive_some(struct vfconn *conn)
{
	size_t room = VFCONN_IN_BYTES - conn->in_tail, wanted;
	struct msghdr msg = { 0 };
	struct vfconn_msg whole;
	ssize_t n;
	int ret;

	if (room == 0)
		return -ENOBUFS;
	n = receive(conn, &msg, room, MSG_PEEK);
	if (n <= 0)
		return n;

	/* Without a buffer for descriptors, this flag reveals them. */
	if (!(msg.msg_flags & MSG_CTRUNC))
		return receive(conn, &msg, (size_t)n, 0);

	/* They do not belong to a message that is already whole. */
	ret = vfconn_next(conn, &whole);
	if (ret != 0)
		return ret < 0 ? ret : -ENOBUFS;
	wanted = bytes_wanted(conn);
	return receive_with_fds(conn, wanted < room ? wanted : room);
}

int vfconn_fill(struct vfconn *conn)
{
	ssize_t n = receive_some(conn);

	conn->full = n == -ENOBUFS;
	if (n <= 0)
		return (int)n;
	conn->in_tail += (size_t)n;
	return 1;
}

void vfconn_compact(struct vfconn *conn)
{
	size_t len = conn->in_tail - conn->in_head;

	if (conn->in_head == 0)
		return;
	conn->full = false;
	memmove(conn->in, conn->in + conn->in_head, len);
	conn->in_head = 0;
	conn->in_tail = len;
}

int vfconn_next(struct vfconn *conn, struct vfconn_msg *ret_msg)
{
	const uint8_t *head = conn->in + conn->in_head;
	size_t len = conn->in_tail - conn->in_head;
	struct vfmsg_hdr hdr;
	int ret = vfmsg_decode_hdr(head, len, &hdr);

	if (ret == -EAGAIN || (ret == 0 && len < hdr.size))
		return 0;
	if (ret < 0)
		return ret;
	*ret_msg = (struct vfconn_msg){
		.hdr = hdr,
		.payload = head + VFMSG_HDR_BYTES,
		.len = hdr.size - VFMSG_HDR_BYTES,
		.fds = conn->fds,
		.nr_fds = conn->nr_fds,
	};
	return 1;
}

void vfconn_consume(struct vfconn *conn, const struct vfconn_msg *msg)
{
	conn->in_head += msg->hdr.size;
	conn->full = false;
	close_fds(conn);
	if (conn->in_head == conn->in_tail)
		conn->in_head = conn->in_tail = 0;
}

/*
 * --- Output ---
 */

static void append(struct vfconn *conn, const void *data, size_t len)
{
	if (len > 0)
		memcpy(conn->out + conn->out_tail, data, len);
	conn->out_tail += len;
}

bool vfconn_queue(struct vfconn *conn, const struct vfmsg_hdr *hdr,
		  const void *payload, const void *data, size_t data_len)
{
	size_t unsent = vfconn_unsent(conn);

	if (hdr->size > VFCONN_OUT_BYTES - unsent)
		return false;
	if (hdr->size > VFCONN_OUT_BYTES - conn->out_tail) {
		memmove(conn->out, conn->out + conn->out_head, unsent);
		conn->out_head = 0;
		conn->out_tail = unsent;
	}
	append(conn, hdr, sizeof(*hdr));
	append(conn, payload, hdr->size - sizeof(*hdr) - data_len);
	append(conn, data, data_len);
	return true;
}

static ssize_t send_some(struct vfconn *conn)
{
	struct iovec iov = { conn->out + conn->out_head, vfconn_unsent(conn) };
	union scm scm;
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (conn->send_fd >= 0)
		scm_attach(&msg, &scm, &conn->send_fd, 1);
	return sendmsg(conn->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
}

int vfconn_flush(struct vfconn *conn)
{
	while (vfconn_unsent(conn) > 0) {
		ssize_t n = send_some(conn);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN ? 0 : -errno;
		conn->out_head += (size_t)n;
		if (conn->send_fd >= 0) {
			close(conn->send_fd);
			conn->send_fd = -1;
		}
	}
	conn->out_head = conn->out_tail = 0;
	return 0;
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* A vhost-user socket as a stream of messages. See vhost_user_conn.h. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/scm.h"
#include "serve/vhost_user_conn.h"

void vhconn_init(struct vhconn *conn, int take_fd)
{
	*conn = (struct vhconn){ .fd = take_fd };
}

void vhconn_consume(struct vhconn *conn)
{
	for (unsigned i = 0; i < conn->nr_fds; i++) {
		if (conn->fds[i] >= 0)
			close(conn->fds[i]);
	}
	conn->nr_fds = 0;
	conn->too_many_fds = false;
	conn->in_len = 0;
}

void vhconn_fini(struct vhconn *conn)
{
	if (conn->fd < 0)
		return;
	vhconn_consume(conn);
	close(conn->fd);
	conn->fd = -1;
}

/*
 * --- Input ---
 */

/* Bytes appended to the input, 0 for none, or -errno. */
static ssize_t receive(struct vhconn *conn, size_t len)
{
	struct iovec iov = { conn->in + conn->in_len, len };
	union scm_room room;
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = room.buf,
		.msg_controllen = sizeof(room.buf),
	};
	ssize_t n;

	do {
		n = recvmsg(conn->fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == EAGAIN ? 0 : -errno;
	if (n == 0)
		return -EPIPE;
	if (!scm_take(&msg, conn->fds, &conn->nr_fds, VHMSG_MAX_FDS))
		conn->too_many_fds = true;
	conn->in_len += (size_t)n;
	/* We ran out of descriptors, and cannot tell which are missing. */
	return msg.msg_flags & MSG_CTRUNC ? -EMFILE : n;
}

int vhconn_read(struct vhconn *conn, struct vhconn_msg *ret_msg)
{
	for (;;) {
		size_t want = VHMSG_HDR_BYTES;
		struct vhmsg_hdr hdr;
		ssize_t n;
		int ret = vhmsg_decode_hdr(conn->in, conn->in_len, &hdr);

		if (ret == -EBADMSG)
			return ret;
		if (ret == 0)
			want += hdr.size;
		if (ret == 0 && conn->in_len == want) {
			*ret_msg = (struct vhconn_msg){
				.hdr = hdr,
				.payload = conn->in + VHMSG_HDR_BYTES,
				.fds = conn->fds,
				.nr_fds = conn->nr_fds,
			};
			return 1;
		}
		n = receive(conn, want - conn->in_len);
		if (n <= 0)
			return (int)n;
	}
}

/*
 * --- Output ---
 */

int vhconn_reply(struct vhconn *conn, uint32_t request, const void *payload,
		 size_t len, int fd)
{
	struct vhmsg_hdr hdr = {
		.request = request,
		.flags = VHMSG_VERSION | VHMSG_REPLY,
		.size = (uint32_t)len,
	};
	struct iovec iov[] = { { &hdr, sizeof(hdr) },
			       { (void *)payload, len } };
	union scm scm;
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 2 };
	ssize_t n;

	if (fd >= 0)
		scm_attach(&msg, &scm, &fd, 1);
	do {
		n = sendmsg(conn->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	return (size_t)n == sizeof(hdr) + len ? 0 : -EAGAIN;
}

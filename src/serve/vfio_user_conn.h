/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A vfio-user socket as a stream of whole messages, both ways.
 *
 * Reading is greedy, one call for all that has arrived, because guests'
 * doorbells arrive in bursts; writes are buffered until vfconn_flush(). Both
 * buffers are bounded. Only a message's header is parsed here.
 *
 *	in:   [ consumed | message | message | part of one |  free  ]
 *	                 ^head                             ^tail
 *
 * File descriptors belong to the message whose bytes they came with. The kernel
 * ends a read after the piece that carries some, but the read may begin long
 * before, and where the piece began is unknown. So a read that would return
 * descriptors is made in exact steps, header and then payload; all others in
 * one. vfconn_fill() finds out by peeking.
 */
#ifndef SERVE_VFIO_USER_CONN_H
#define SERVE_VFIO_USER_CONN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "serve/vfio_user_msg.h"

/* With more than this unsent, take no requests. */
#define VFCONN_HIGH_BYTES (1u << 20)

#define VFCONN_IN_BYTES  (VFMSG_MAX_BYTES + (64u << 10))
#define VFCONN_OUT_BYTES (VFCONN_HIGH_BYTES + 2 * VFMSG_MAX_BYTES)

struct vfconn {
	int fd; /* -1: not open */
	uint8_t *in;
	size_t in_head, in_tail;
	bool full; /* vfconn_fill() returned -ENOBUFS */
	uint8_t *out;
	size_t out_head, out_tail;
	int fds[VFMSG_MAX_FDS]; /* of the message at in_head */
	unsigned nr_fds;
	int send_fd; /* sent with the next byte; or -1 */
};

/* A message at the head of the input, borrowed until vfconn_consume(). */
struct vfconn_msg {
	struct vfmsg_hdr hdr;
	const uint8_t *payload;
	size_t len; /* of the payload */
	int *fds;   /* to keep one, replace it with -1 */
	unsigned nr_fds;
};

/* Create @conn from a stream socket, which it owns on success. 0 or -ENOMEM. */
int vfconn_init(struct vfconn *conn, int take_fd);
void vfconn_fini(struct vfconn *conn); /* fd -1 is allowed */

/*
 * Read what has arrived. 1: something; 0: nothing; -ENOBUFS: messages must be
 * consumed first; -EPIPE: the peer has disconnected; other -errno: disconnect.
 */
int vfconn_fill(struct vfconn *conn);

/* Make room after the messages. This moves borrowed messages. */
void vfconn_compact(struct vfconn *conn);

/* 1 and the next whole message, 0: none, or -EBADMSG. */
int vfconn_next(struct vfconn *conn, struct vfconn_msg *ret_msg);

/* Done with the message at the head; descriptors left in it are closed. */
void vfconn_consume(struct vfconn *conn, const struct vfconn_msg *msg);

/* Append to the output. False: no room, and nothing is appended. */
bool vfconn_queue(struct vfconn *conn, const struct vfmsg_hdr *hdr,
		  const void *payload, const void *data, size_t data_len);

/* Send what the socket accepts. 0 or -errno when it is broken. */
int vfconn_flush(struct vfconn *conn);

static inline size_t vfconn_unsent(const struct vfconn *conn)
{
	return conn->out_tail - conn->out_head;
}

#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A vhost-user socket as a stream of whole messages.
 *
 * Messages are few and each may carry descriptors, which belong to the bytes
 * that they came with: so reads are in exact steps, header and then payload.
 * Replies are sent at once; a front-end that never reads them, so that its
 * socket is full, is disconnected.
 */
#ifndef SERVE_VHOST_USER_CONN_H
#define SERVE_VHOST_USER_CONN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "serve/vhost_user_msg.h"

struct vhconn {
	int fd; /* -1: not open */
	uint8_t in[VHMSG_HDR_BYTES + VHMSG_MAX_PAYLOAD];
	size_t in_len;
	int fds[VHMSG_MAX_FDS]; /* of the message in @in */
	unsigned nr_fds;
	bool too_many_fds; /* more arrived and were closed */
};

/* A whole message, borrowed until vhconn_consume(). */
struct vhconn_msg {
	struct vhmsg_hdr hdr;
	const uint8_t *payload;
	int *fds; /* to keep one, replace it with -1 */
	unsigned nr_fds;
};

void vhconn_init(struct vhconn *conn, int take_fd);
void vhconn_fini(struct vhconn *conn); /* fd -1 is allowed */

/* 1 and a message, 0: none yet, -EPIPE: the peer disconnected; other -errno:
 * disconnect. */
int vhconn_read(struct vhconn *conn, struct vhconn_msg *ret_msg);

/* Done with the message; descriptors left in it are closed. */
void vhconn_consume(struct vhconn *conn);

/* Reply to a request, with @fd unless it is -1. 0 or -errno. */
int vhconn_reply(struct vhconn *conn, uint32_t request, const void *payload,
		 size_t len, int fd);

#endif

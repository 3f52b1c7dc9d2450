/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A device's control socket. A request is a line of JSON, an array of words or
 * {"command": [words]}; its reply is a line as well:
 *
 *	["resize", "2G"]	{"ok": true, "reply": {...}}
 *				{"ok": false, "error": "..."}
 *
 * Descriptors may come along by SCM_RIGHTS: {"command": [words], "files":
 * [names]} takes the next of them, one for each name.
 *
 * Several clients may be connected. Requests, their number of words and of
 * descriptors are bounded; a client that does not read its replies is not read
 * from, and the device never waits for one.
 */
#ifndef VIODEV_CTL_SERVER_H
#define VIODEV_CTL_SERVER_H

#include "base/err.h"

struct ctl_server;
struct vio_loop;
struct json_object;
struct opened_files;

/*
 * Do a command: 0 with @reply filled, or -errno with the reason. What is not
 * taken of @files is closed.
 */
typedef int ctl_fn(void *arg, int argc, char *const argv[],
		   struct opened_files *files, struct json_object *reply,
		   struct err *err);

/* Serve on @take_fd, a listening socket; it is taken on success. */
int ctl_server_create(struct vio_loop *loop, int take_fd, ctl_fn *fn, void *arg,
		      struct ctl_server **ret_server);
void ctl_server_destroy(struct ctl_server *server); /* NULL is fine */

/* System calls for the sandbox; -1 ends. */
extern const int ctl_server_syscalls[];

#endif

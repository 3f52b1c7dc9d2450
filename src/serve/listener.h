/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A listening socket that accepts one client at a time: while one is connected,
 * the others wait in the kernel's queue. Not installed.
 */
#ifndef SERVE_LISTENER_H
#define SERVE_LISTENER_H

struct vio_loop;
struct vio_source;

struct listener {
	struct vio_loop *loop;
	/*
	 * A client has connected. 0: no other is accepted until
	 * listener_next(); or -errno.
	 */
	int (*come)(void *arg, int take_fd);
	/* accept() or come() failed. The listener retries after a delay. */
	void (*failed)(void *arg, int error);
	void *arg;

	int fd; /* -1: not started */
	struct vio_source *source, *timer;
};

/*
 * Accept clients on @take_fd, which becomes non-blocking; loop, come, failed
 * and arg must be set. -EINVAL when it does not listen.
 */
int listener_start(struct listener *l, int take_fd);

/* The client has disconnected: accept the next one. */
void listener_next(struct listener *l);

void listener_stop(struct listener *l); /* also before listener_start() */

#endif

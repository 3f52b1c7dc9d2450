/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A listening socket whose clients have their turns: while one is there, others
 * wait in the kernel. Not installed.
 */
#ifndef SERVE_LISTENER_H
#define SERVE_LISTENER_H

struct vio_loop;
struct vio_source;

struct listener {
	struct vio_loop *loop;
	/* Someone came: 0, and it is there until listener_next(); or -errno. */
	int (*come)(void *arg, int take_fd);
	/* Nobody could be let in. It is tried again after a while. */
	void (*failed)(void *arg, int error);
	void *arg;

	int fd; /* -1: it has not started, clients come in another way */
	struct vio_source *source, *timer;
};

/*
 * Wait for clients on @take_fd, which is made not to block; loop, come, failed
 * and arg are set. -EINVAL for what does not listen; it is the caller's then.
 */
int listener_start(struct listener *l, int take_fd);

/* The client has gone: the next may come. */
void listener_next(struct listener *l);

void listener_stop(struct listener *l); /* also of one that did not start */

#endif

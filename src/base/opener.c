/* SPDX-License-Identifier: BSD-2-Clause */
#include "base/opener.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/scm.h"
#include "base/thread.h"

#define MIN_WAIT_MS 100

/*
 * --- Outside of the sandbox ---
 */

struct opener {
	opener_fn *open;
	void *arg;
	unsigned max_wait_ms;
	int fd;
};

/* Wait @ms, or for a request if @ms is -1. False: the device is gone. */
static bool wait_ms(const struct opener *o, int ms)
{
	struct pollfd p = { .fd = o->fd, .events = ms < 0 ? POLLIN : 0 };

	while (poll(&p, 1, ms) < 0 && errno == EINTR)
		;
	return !(p.revents & (POLLHUP | POLLERR));
}

static void send_fds(const struct opener *o, const int *fds, int nr)
{
	char byte = 0;
	struct iovec iov = { &byte, 1 };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	union scm scm;

	scm_attach(&msg, &scm, fds, (unsigned)nr);
	while (sendmsg(o->fd, &msg, MSG_NOSIGNAL) < 0 && errno == EINTR)
		;
	for (int i = 0; i < nr; i++)
		close(fds[i]);
}

/* One answer serves all requests so far: a restart makes several. */
static void drain_requests(const struct opener *o)
{
	char bytes[64];

	while (recv(o->fd, bytes, sizeof(bytes), MSG_DONTWAIT) > 0)
		;
}

/* A compromised device cannot cause more attempts than this allows. */
static bool serve_request(const struct opener *o)
{
	int fds[OPENER_MAX_FDS], nr = -1;
	unsigned ms = MIN_WAIT_MS;

	while (nr <= 0) {
		if (!wait_ms(o, (int)ms))
			return false;
		nr = o->open(o->arg, fds);
		ms = 2 * ms < o->max_wait_ms ? 2 * ms : o->max_wait_ms;
	}
	drain_requests(o);
	send_fds(o, fds, nr);
	return true;
}

static void opener_free(struct opener *o)
{
	if (o->fd >= 0)
		close(o->fd);
	free(o);
}

static void *opener_run(void *arg)
{
	struct opener *o = arg;
	char byte;

	while (wait_ms(o, -1) && read(o->fd, &byte, 1) == 1 && serve_request(o))
		;
	free(o->arg);
	opener_free(o);
	return NULL;
}

int opener_start(struct opened_files *files, const char *name, opener_fn *open,
		 unsigned max_wait_ms, void *take_arg)
{
	struct opener *o = malloc(sizeof(*o));
	int pair[2], ret;

	if (!o)
		return -ENOMEM;
	*o = (struct opener){ open, take_arg, max_wait_ms, -1 };
	ret = socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0 ?
		      -errno :
		      0;
	if (ret == 0) {
		o->fd = pair[1];
		ret = opened_files_add(files, name, pair[0]);
		if (ret < 0)
			close(pair[0]);
	}
	/* If that fails, the device's end leads nowhere until it is closed. */
	if (ret == 0)
		ret = thread_start_detached(opener_run, o);
	if (ret < 0)
		opener_free(o);
	return ret;
}

/*
 * --- The device's end ---
 */

static ssize_t receive_fds(int fd, int *fds, unsigned *ret_nr)
{
	char byte;
	struct iovec iov = { &byte, 1 };
	union scm_room room;
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &room,
		.msg_controllen = sizeof(room),
	};
	ssize_t n = recvmsg(fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

	if (n < 0)
		return -errno;
	*ret_nr = 0;
	scm_take(&msg, fds, ret_nr, OPENER_MAX_FDS);
	return n;
}

/* One byte fits: requests are few, and the thread reads them. */
static bool send_request(int fd)
{
	char byte = 0;

	return send(fd, &byte, 1, MSG_DONTWAIT | MSG_NOSIGNAL) == 1;
}

int opener_take(const struct opened_files *files, const char *name, int *fds)
{
	int fd = opened_files_find(files, name);
	unsigned nr = 0;

	if (receive_fds(fd, fds, &nr) > 0 && nr > 0)
		return (int)nr;
	send_request(fd);
	return -EAGAIN;
}

/*
 * --- In the sandbox ---
 */

struct reopener {
	int fd;
	bool requested;
	struct vio_source *source;
	reopener_cb *cb;
	void *arg;
};

static void on_answer(void *arg, uint32_t events)
{
	struct reopener *r = arg;
	int fds[OPENER_MAX_FDS];
	unsigned nr = 0;
	ssize_t n = receive_fds(r->fd, fds, &nr);

	if (n == -EAGAIN)
		return;
	if (n <= 0) { /* whoever opened it has gone */
		vio_source_remove(r->source);
		r->source = NULL;
		return;
	}
	/* Descriptors that a process requested before it died will do. */
	if (r->requested && nr > 0) {
		r->requested = false;
		r->cb(r->arg, fds, nr);
		return;
	}
	while (nr > 0)
		close(fds[--nr]);
}

int reopener_create(struct vio_loop *loop, int take_fd, reopener_cb *cb,
		    void *arg, struct reopener **ret_reopener)
{
	struct reopener *r = malloc(sizeof(*r));
	int ret;

	if (!r)
		return -ENOMEM;
	*r = (struct reopener){ .fd = take_fd, .cb = cb, .arg = arg };
	ret = vio_fd_add(loop, take_fd, EPOLLIN, on_answer, r, &r->source);
	if (ret < 0)
		free(r);
	else
		*ret_reopener = r;
	return ret;
}

void reopener_destroy(struct reopener *r)
{
	if (!r)
		return;
	vio_source_remove(r->source);
	close(r->fd);
	free(r);
}

void reopener_request(struct reopener *r)
{
	if (!r->requested && r->source)
		r->requested = send_request(r->fd);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* Byte channels: finding the kind, and moving bytes. See chan_impl.h. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "back/chan/chan_impl.h"
#include "base/util.h"

static const struct chan_kind *const kinds[] = {
	&chan_kind_stdio,        &chan_kind_pty,  &chan_kind_unix,
	&chan_kind_unix_connect, &chan_kind_file, &chan_kind_fd,
};

#define NR_KINDS ARRAY_LEN(kinds)

/*
 * --- Text ---
 */

const struct chan_kind *chan_parse(const char *text, const char **ret_arg)
{
	size_t len = strcspn(text, ":");
	const char *arg = text[len] ? text + len + 1 : NULL;

	for (size_t i = 0; i < NR_KINDS; i++) {
		const struct chan_kind *k = kinds[i];

		if (strlen(k->name) != len || memcmp(k->name, text, len) != 0)
			continue;
		if (arg ? !k->arg || !*arg : k->arg && !k->arg_optional)
			return NULL;
		*ret_arg = arg;
		return k;
	}
	return NULL;
}

int chan_open(const char *text, const char *id, struct opened_files *files,
	      struct err *err)
{
	const char *arg = NULL;
	const struct chan_kind *kind = chan_parse(text, &arg);

	if (!kind)
		return err_set(err, -EINVAL,
			       "must be stdio, pty[:LINK], unix:PATH, "
			       "unix-connect:PATH, file:PATH or fd:N");
	return kind->open(arg, id, files, err);
}

void chan_close(const char *text, const char *id,
		const struct opened_files *files)
{
	const char *arg = NULL;
	const struct chan_kind *kind = chan_parse(text, &arg);

	if (kind && kind->close)
		kind->close(arg, id, files);
}

/*
 * --- Descriptors ---
 */

struct file_name {
	char text[32]; /* longer than opened_files_add() takes */
};

static struct file_name file_name(const char *id, const char *name)
{
	struct file_name full;

	snprintf(full.text, sizeof(full.text), "%s.%s", id, name);
	return full;
}

int chan_add_file(struct opened_files *files, const char *id, const char *name,
		  int take_fd)
{
	int ret = opened_files_add(files, file_name(id, name).text, take_fd);

	if (ret < 0)
		close(take_fd);
	return ret;
}

int chan_take_file(struct opened_files *files, const char *id, const char *name)
{
	return opened_files_take(files, file_name(id, name).text);
}

void chan_made(struct opened_files *files, const char *id, const char *name,
	       const char *path)
{
	opened_files_made(files, file_name(id, name).text, path);
}

void chan_remove(const struct opened_files *files, const char *id,
		 const char *name, const char *path)
{
	opened_files_remove(files, file_name(id, name).text, path);
}

static int end_init(struct chan *c, struct chan_end *end, int fd, bool write)
{
	struct stat st;

	*end = (struct chan_end){ .fd = fd };
	if (fd < 0)
		return 0;
	end->socket = fstat(fd, &st) == 0 && S_ISSOCK(st.st_mode);
	if (!chan_may_block(fd, write))
		return 0;
	end->slow = chan_slow_create(c, fd, write);
	return end->slow ? 0 : -ENOMEM;
}

static void end_unwatch(struct chan_end *end)
{
	vio_source_remove(end->source);
	end->source = NULL;
	end->events = 0;
}

static void end_close(struct chan_end *end)
{
	end_unwatch(end);
	if (end->slow)
		chan_slow_destroy(end->slow);
	else if (end->fd >= 0)
		close(end->fd);
	end->slow = NULL;
	end->fd = -1;
}

int chan_set_ends(struct chan *c, int take_in, int take_out)
{
	int ret, ret_out;

	end_close(&c->in);
	end_close(&c->out);
	ret = end_init(c, &c->in, take_in, false);
	ret_out = end_init(c, &c->out, take_out, true);
	c->duplex = false;
	return ret < 0 ? ret : ret_out;
}

int chan_set_duplex(struct chan *c, int take_fd)
{
	/* epoll tells descriptors apart, not what is behind them. */
	int out = fcntl(take_fd, F_DUPFD_CLOEXEC, 0), ret;

	if (out < 0)
		return -errno;
	ret = chan_set_ends(c, take_fd, out);
	c->duplex = true;
	return ret;
}

/* What poll() says of the input right now. */
static short look(const struct chan *c)
{
	struct pollfd p = { .fd = c->in.fd, .events = POLLIN };

	return poll(&p, 1, 0) > 0 ? p.revents : 0;
}

/* Whether there are bytes to read; a socket is readable at its end as well. */
static bool bytes_left(const struct chan *c)
{
	char byte;

	if (c->in.ended)
		return false;
	if (c->in.socket)
		return recv(c->in.fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
	return look(c) & POLLIN;
}

/*
 * --- Watching ---
 */

static void on_in(void *arg, uint32_t events);
static void on_out(void *arg, uint32_t events);

static void end_watch(struct chan *c, struct chan_end *end, uint32_t events,
		      vio_fd_cb *cb)
{
	int ret = 0;

	if (events == end->events)
		return;
	if (!events) {
		end_unwatch(end);
		return;
	}
	if (end->source)
		ret = vio_fd_set(end->source, events);
	else
		ret = vio_fd_add(c->loop, end->fd, events, cb, c, &end->source);
	if (ret == -EPERM) /* a regular file */
		end->always = true;
	else if (ret < 0)
		c->nr_errors++;
	else
		end->events = events;
}

static uint32_t in_events(const struct chan *c)
{
	if (!c->up || c->in.fd < 0)
		return 0;
	if (c->wanted && !c->in.ended)
		return EPOLLIN;
	return c->duplex && !c->hung_up ? EPOLLHUP : 0;
}

void chan_watch(struct chan *c)
{
	uint32_t in = in_events(c);
	bool always = c->in.slow ? !chan_slow_busy(c->in.slow) : c->in.always;

	if (!always && !c->in.slow)
		end_watch(c, &c->in, in, on_in);
	if (always && in)
		vio_task_defer(c->loop, &c->ready);
	if (!c->out.slow)
		end_watch(c, &c->out, c->up && c->blocked ? EPOLLOUT : 0,
			  on_out);
}

/*
 * --- Coming and going ---
 */

void chan_come(struct chan *c)
{
	bool was_up = c->up;

	c->hung_up = false;
	c->up = true;
	chan_watch(c);
	if (!was_up)
		c->client->up(c->arg, true);
}

static void go(struct chan *c)
{
	c->up = c->hung_up = c->blocked = c->in.ended = false;
	chan_watch(c);
	if (c->kind->next)
		c->kind->next(c);
	c->client->up(c->arg, false);
}

/* The input may have ended, the peer may be gone. True: it is. */
static bool settle(struct chan *c)
{
	if (!c->duplex)
		return false;
	c->hung_up = look(c) & (POLLHUP | POLLERR);
	if (!c->hung_up || bytes_left(c))
		return false;
	go(c);
	return true;
}

static void on_in(void *arg, uint32_t events)
{
	struct chan *c = arg;

	if (!c->up || ((events & (EPOLLHUP | EPOLLERR)) && settle(c)))
		return;
	if (c->wanted && !c->in.ended)
		c->client->readable(c->arg);
	chan_watch(c);
}

static void on_out(void *arg, uint32_t events)
{
	struct chan *c = arg;

	c->blocked = false;
	chan_watch(c);
	c->client->writable(c->arg);
}

static void on_ready(void *arg)
{
	struct chan *c = arg;

	if (!c->up || settle(c))
		return;
	if ((c->in.always || c->in.slow) && c->wanted && !c->in.ended)
		c->client->readable(c->arg);
	chan_watch(c);
}

/* A thread has read or written what it was given. */
void chan_slow_done(struct chan *c, bool write, int error)
{
	if (error < 0)
		c->nr_errors++;
	if (!write)
		chan_watch(c);
	else if (c->blocked)
		on_out(c, 0);
}

/*
 * --- Moving bytes ---
 */

bool chan_up(const struct chan *c)
{
	return c->up;
}

void chan_want(struct chan *c, bool on)
{
	if (c->wanted == on)
		return;
	c->wanted = on;
	chan_watch(c);
}

static ssize_t end_read(const struct chan_end *end, const struct iovec *iov,
			int niov)
{
	struct msghdr msg = { .msg_iov = (struct iovec *)iov,
			      .msg_iovlen = (size_t)niov };
	ssize_t n;

	if (end->slow)
		return chan_slow_read(end->slow, iov, niov);
	do {
		n = end->socket ? recvmsg(end->fd, &msg, MSG_DONTWAIT) :
				  readv(end->fd, iov, niov);
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

static ssize_t end_write(const struct chan_end *end, const struct iovec *iov,
			 int niov)
{
	struct msghdr msg = { .msg_iov = (struct iovec *)iov,
			      .msg_iovlen = (size_t)niov };
	ssize_t n;

	if (end->slow)
		return chan_slow_write(end->slow, iov, niov);
	do {
		n = end->socket ? sendmsg(end->fd, &msg,
					  MSG_DONTWAIT | MSG_NOSIGNAL) :
				  writev(end->fd, iov, niov);
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

ssize_t chan_read(struct chan *c, const struct iovec *iov, int niov)
{
	ssize_t n;

	if (!c->up || c->in.fd < 0 || c->in.ended)
		return -EAGAIN;
	n = end_read(&c->in, iov, niov);
	if (n > 0 || n == -EAGAIN)
		return n;
	/* EIO: a terminal that was hung up. */
	if (n != 0 && n != -EIO && n != -ECONNRESET)
		c->nr_errors++;
	c->in.ended = true;
	vio_task_defer(c->loop, &c->ready);
	return -EAGAIN;
}

ssize_t chan_write(struct chan *c, const struct iovec *iov, int niov)
{
	ssize_t n;

	if (!c->up || c->hung_up || c->out.fd < 0)
		return -EPIPE;
	n = end_write(&c->out, iov, niov);
	if (n >= 0)
		return n;
	if (n == -EAGAIN) {
		c->blocked = true;
		chan_watch(c);
		return n;
	}
	if (n != -EPIPE && n != -ECONNRESET && n != -EIO)
		c->nr_errors++;
	return -EPIPE;
}

/*
 * --- For people ---
 */

const char *chan_text(const struct chan *c)
{
	return c->text;
}

const char *chan_path(const struct chan *c)
{
	return c->path[0] ? c->path : NULL;
}

bool chan_size(const struct chan *c, uint16_t *ret_cols, uint16_t *ret_rows)
{
	struct winsize size;

	if (c->out.fd < 0 || c->out.socket ||
	    ioctl(c->out.fd, TIOCGWINSZ, &size) < 0)
		return false;
	*ret_cols = size.ws_col;
	*ret_rows = size.ws_row;
	return true;
}

uint64_t chan_nr_errors(const struct chan *c)
{
	return c->nr_errors;
}

/*
 * --- Create and destroy ---
 */

void chan_destroy(struct chan *c)
{
	if (!c)
		return;
	vio_task_cancel(c->loop, &c->ready);
	vio_source_remove(c->wait_source);
	vio_source_remove(c->wait_timer);
	if (c->wait_fd >= 0)
		close(c->wait_fd);
	end_close(&c->in);
	end_close(&c->out);
	free(c->text);
	free(c);
}

int chan_create(const char *text, const char *id, struct opened_files *files,
		struct vio_loop *loop, struct chan_io *io,
		const struct chan_client *client, void *arg,
		struct chan **ret_chan, struct err *err)
{
	struct chan *c = calloc(1, sizeof(*c));
	const char *kind_arg;
	int ret = -ENOMEM;

	if (!c)
		return err_set(err, ret, "out of memory");
	c->client = client;
	c->arg = arg;
	c->loop = loop;
	c->io = io;
	c->wait_fd = c->in.fd = c->out.fd = -1;
	c->ready = (struct vio_task){ .fn = on_ready, .arg = c };
	c->kind = chan_parse(text, &kind_arg);
	c->text = strdup(text);
	if (c->kind && c->text)
		ret = c->kind->create(c, id, files);
	if (ret < 0) {
		chan_destroy(c);
		return err_set(err, ret, "%s", strerror(-ret));
	}
	chan_watch(c);
	*ret_chan = c;
	return 0;
}

const int chan_syscalls[] = {
	SYS_accept4,
	SYS_close,
	SYS_epoll_ctl,
	SYS_fcntl,
	SYS_fstat,
	SYS_poll,
	SYS_read,
	SYS_readv,
	SYS_recvfrom,
	SYS_recvmsg,
	SYS_sendmsg,
	SYS_writev,
	/* threads: jobs are waited for, and they end */
	SYS_futex,
	SYS_write,
	SYS_munmap,
	SYS_madvise,
	SYS_exit,
	SYS_rt_sigprocmask,
	-1,
};

/* SPDX-License-Identifier: BSD-2-Clause */
/* Character devices: finding the kind, and moving bytes. See chardev_impl.h. */
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

#include "back/chardev/chardev_impl.h"
#include "base/opener.h"
#include "base/pool.h"
#include "base/util.h"

static const struct chardev_kind *const kinds[] = {
	&chardev_kind_stdio,        &chardev_kind_pty,  &chardev_kind_unix,
	&chardev_kind_unix_connect, &chardev_kind_file, &chardev_kind_fd,
};

#define NR_KINDS ARRAY_LEN(kinds)

/*
 * --- Text ---
 */

const struct chardev_kind *chardev_parse(const char *text, const char **ret_arg)
{
	size_t len = strcspn(text, ":");
	const char *arg = text[len] ? text + len + 1 : NULL;

	for (size_t i = 0; i < NR_KINDS; i++) {
		const struct chardev_kind *k = kinds[i];

		if (strlen(k->name) != len || memcmp(k->name, text, len) != 0)
			continue;
		if (arg ? !k->arg || !*arg : k->arg && !k->arg_optional)
			return NULL;
		*ret_arg = arg;
		return k;
	}
	return NULL;
}

int chardev_open(const char *text, const char *id, struct opened_files *files,
		 struct err *err)
{
	const char *arg = NULL;
	const struct chardev_kind *kind = chardev_parse(text, &arg);

	if (!kind)
		return err_set(err, -EINVAL,
			       "must be stdio, pty[:LINK], unix:PATH, "
			       "unix-connect:PATH, file:PATH or fd:N");
	return kind->open(arg, id, files, err);
}

void chardev_close(const char *text, const char *id,
		   const struct opened_files *files)
{
	const char *arg = NULL;
	const struct chardev_kind *kind = chardev_parse(text, &arg);

	if (kind && kind->close)
		kind->close(arg, id, files);
}

/*
 * --- Descriptors ---
 */

struct file_name {
	char text[32]; /* more than opened_files_add() accepts */
};

static struct file_name file_name(const char *id, const char *name)
{
	struct file_name full;

	snprintf(full.text, sizeof(full.text), "%s.%s", id, name);
	return full;
}

int chardev_add_file(struct opened_files *files, const char *id,
		     const char *name, int take_fd)
{
	int ret = opened_files_add(files, file_name(id, name).text, take_fd);

	if (ret < 0)
		close(take_fd);
	return ret;
}

int chardev_find_file(const struct opened_files *files, const char *id,
		      const char *name)
{
	return opened_files_find(files, file_name(id, name).text);
}

int chardev_take_file(struct opened_files *files, const char *id,
		      const char *name)
{
	return opened_files_take(files, file_name(id, name).text);
}

void chardev_made(struct opened_files *files, const char *id, const char *name,
		  const char *path)
{
	opened_files_made(files, file_name(id, name).text, path);
}

void chardev_remove(const struct opened_files *files, const char *id,
		    const char *name, const char *path)
{
	opened_files_remove(files, file_name(id, name).text, path);
}

static int end_init(struct chardev *c, struct chardev_end *end, int fd,
		    bool write)
{
	struct stat st;

	*end = (struct chardev_end){ .fd = fd };
	if (fd < 0)
		return 0;
	end->socket = fstat(fd, &st) == 0 && S_ISSOCK(st.st_mode);
	if (!chardev_may_block(fd, write))
		return 0;
	end->worker = chardev_worker_create(c, fd, write);
	return end->worker ? 0 : -ENOMEM;
}

static void end_unwatch(struct chardev_end *end)
{
	vio_source_remove(end->source);
	end->source = NULL;
	end->events = 0;
}

static void end_close(struct chardev_end *end)
{
	end_unwatch(end);
	if (end->worker)
		chardev_worker_destroy(end->worker);
	else if (end->fd >= 0)
		close(end->fd);
	end->worker = NULL;
	end->fd = -1;
}

int chardev_set_ends(struct chardev *c, int take_in, int take_out)
{
	int ret, ret_out;

	end_close(&c->in);
	end_close(&c->out);
	ret = end_init(c, &c->in, take_in, false);
	ret_out = end_init(c, &c->out, take_out, true);
	c->duplex = false;
	return ret < 0 ? ret : ret_out;
}

int chardev_set_duplex(struct chardev *c, int take_fd)
{
	/* epoll distinguishes descriptors, not open files. */
	int out = fcntl(take_fd, F_DUPFD_CLOEXEC, 0), ret;

	if (out < 0)
		return -errno;
	ret = chardev_set_ends(c, take_fd, out);
	c->duplex = true;
	return ret;
}

/* The input's present poll() events. */
static short look(const struct chardev *c)
{
	struct pollfd p = { .fd = c->in.fd, .events = POLLIN };

	return poll(&p, 1, 0) > 0 ? p.revents : 0;
}

/* Whether bytes are left to read; a socket is also readable at its end. */
static bool bytes_left(const struct chardev *c)
{
	char byte;

	if (c->in.ended)
		return false;
	if (c->in.socket)
		return recv(c->in.fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
	return look(c) & POLLIN;
}

/* A failure is reported once until a write succeeds. */
static void written(struct chardev *c, int error)
{
	bool failed_before = c->write_error < 0;

	c->write_error = error;
	if (error == 0)
		return;
	c->nr_errors++;
	if (!failed_before && c->client->failed)
		c->client->failed(c->arg, error);
}

/*
 * --- Watching ---
 */

static void on_in(void *arg, uint32_t events);
static void on_out(void *arg, uint32_t events);

static void end_watch(struct chardev *c, struct chardev_end *end,
		      uint32_t events, vio_fd_cb *cb)
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

static uint32_t in_events(const struct chardev *c)
{
	if (!c->up || c->in.fd < 0)
		return 0;
	if (c->wanted && !c->in.ended)
		return EPOLLIN;
	return c->duplex && !c->hung_up ? EPOLLHUP : 0;
}

void chardev_watch(struct chardev *c)
{
	uint32_t in = in_events(c);
	bool always = c->in.worker ? !chardev_worker_busy(c->in.worker) :
				     c->in.always;

	if (!always && !c->in.worker)
		end_watch(c, &c->in, in, on_in);
	if ((always && in) || (c->left.fd >= 0 && c->wanted))
		vio_task_defer(c->loop, &c->ready);
	if (!c->out.worker)
		end_watch(c, &c->out, c->up && c->blocked ? EPOLLOUT : 0,
			  on_out);
}

/*
 * --- Coming and going ---
 */

void chardev_connected(struct chardev *c)
{
	bool was_up = c->up;

	c->hung_up = false;
	c->up = true;
	chardev_watch(c);
	if (!was_up)
		c->client->up(c->arg, true);
}

static void go(struct chardev *c)
{
	c->up = c->hung_up = c->blocked = c->in.ended = false;
	chardev_watch(c);
	if (c->kind->next)
		c->kind->next(c);
	c->client->up(c->arg, false);
}

/* The input may have ended, or the peer disconnected. True: it has. */
static bool settle(struct chardev *c)
{
	bool was_hung_up = c->hung_up;

	if (!c->duplex)
		return false;
	c->hung_up = look(c) & (POLLHUP | POLLERR);
	if (!c->hung_up)
		return false;
	if (!bytes_left(c)) {
		go(c);
		return true;
	}
	if (!was_hung_up && c->kind->hung_up)
		c->kind->hung_up(c);
	return false;
}

void chardev_replace(struct chardev *c)
{
	if (c->left.fd < 0) {
		end_unwatch(&c->in);
		c->left = c->in;
		c->in = (struct chardev_end){ .fd = -1 };
	}
	go(c);
}

static void on_in(void *arg, uint32_t events)
{
	struct chardev *c = arg;

	if (!c->up || ((events & (EPOLLHUP | EPOLLERR)) && settle(c)))
		return;
	chardev_check_size(c);
	if (c->wanted && !c->in.ended)
		c->client->readable(c->arg);
	chardev_watch(c);
}

static void on_out(void *arg, uint32_t events)
{
	struct chardev *c = arg;

	c->blocked = false;
	chardev_watch(c);
	c->client->writable(c->arg);
}

/* For a descriptor that epoll rejects. */
static bool is_ready(const struct chardev *c)
{
	return c->left.fd >= 0 ||
	       (c->up && !c->in.ended && (c->in.always || c->in.worker));
}

static void on_ready(void *arg)
{
	struct chardev *c = arg;

	if (c->up && settle(c))
		return;
	if (is_ready(c) && c->wanted)
		c->client->readable(c->arg);
	chardev_watch(c);
}

/* A thread has finished a read or a write. */
void chardev_worker_done(struct chardev *c, bool write, int error)
{
	if (write)
		written(c, error);
	else
		chardev_watch(c);
	if (write && c->blocked)
		on_out(c, 0);
}

/*
 * --- Moving bytes ---
 */

bool chardev_up(const struct chardev *c)
{
	return c->up;
}

bool chardev_has_peer(const struct chardev *c)
{
	return c->up && !c->hung_up;
}

bool chardev_writes_file(const struct chardev *c)
{
	return c->out.worker;
}

void chardev_want(struct chardev *c, bool on)
{
	if (c->wanted == on)
		return;
	c->wanted = on;
	chardev_watch(c);
}

static ssize_t end_read(const struct chardev_end *end, const struct iovec *iov,
			int niov)
{
	struct msghdr msg = { .msg_iov = (struct iovec *)iov,
			      .msg_iovlen = (size_t)niov };
	ssize_t n;

	if (end->worker)
		return chardev_worker_read(end->worker, iov, niov);
	do {
		n = end->socket ? recvmsg(end->fd, &msg, MSG_DONTWAIT) :
				  readv(end->fd, iov, niov);
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

static ssize_t end_write(const struct chardev_end *end, const struct iovec *iov,
			 int niov)
{
	struct msghdr msg = { .msg_iov = (struct iovec *)iov,
			      .msg_iovlen = (size_t)niov };
	ssize_t n;

	if (end->worker)
		return chardev_worker_write(end->worker, iov, niov);
	do {
		n = end->socket ? sendmsg(end->fd, &msg,
					  MSG_DONTWAIT | MSG_NOSIGNAL) :
				  writev(end->fd, iov, niov);
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

/* Read what a replaced peer has left; 0 at its end. */
static ssize_t read_left(struct chardev *c, const struct iovec *iov, int niov)
{
	ssize_t n;

	if (c->left.fd < 0)
		return 0;
	n = end_read(&c->left, iov, niov);
	if (n > 0)
		return n;
	end_close(&c->left);
	return 0;
}

ssize_t chardev_read(struct chardev *c, const struct iovec *iov, int niov)
{
	ssize_t n = read_left(c, iov, niov);

	if (n > 0)
		return n;
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

ssize_t chardev_write(struct chardev *c, const struct iovec *iov, int niov)
{
	ssize_t n;

	if (!c->up || c->hung_up || c->out.fd < 0)
		return -EPIPE;
	n = end_write(&c->out, iov, niov);
	if (n >= 0 && !c->out.worker)
		written(c, 0);
	if (n >= 0)
		return n;
	if (n == -EAGAIN) {
		c->blocked = true;
		chardev_watch(c);
		return n;
	}
	if (n != -EPIPE && n != -ECONNRESET && n != -EIO)
		written(c, (int)n);
	return -EPIPE;
}

/*
 * --- For people ---
 */

const char *chardev_text(const struct chardev *c)
{
	return c->text;
}

const char *chardev_path(const struct chardev *c)
{
	return c->path[0] ? c->path : NULL;
}

bool chardev_size(const struct chardev *c, uint16_t *ret_cols,
		  uint16_t *ret_rows)
{
	struct winsize size;

	if (c->out.fd < 0 || c->out.socket ||
	    ioctl(c->out.fd, TIOCGWINSZ, &size) < 0)
		return false;
	*ret_cols = size.ws_col;
	*ret_rows = size.ws_row;
	return true;
}

void chardev_check_size(struct chardev *c)
{
	uint16_t cols, rows;

	if (!c->client->resized || !chardev_size(c, &cols, &rows) ||
	    cols == 0 || rows == 0 || (cols == c->cols && rows == c->rows))
		return;
	c->cols = cols;
	c->rows = rows;
	c->client->resized(c->arg);
}

uint64_t chardev_nr_errors(const struct chardev *c)
{
	return c->nr_errors;
}

/*
 * --- Create and destroy ---
 */

void chardev_destroy(struct chardev *c)
{
	if (!c)
		return;
	vio_task_cancel(c->loop, &c->ready);
	vio_source_remove(c->wait_source);
	vio_source_remove(c->wait_timer);
	reopener_destroy(c->reopener);
	if (c->wait_fd >= 0)
		close(c->wait_fd);
	end_close(&c->in);
	end_close(&c->out);
	end_close(&c->left);
	free(c->text);
	free(c);
}

int chardev_create(const char *text, const char *id, struct opened_files *files,
		   struct vio_loop *loop, struct chardev_io *io,
		   const struct chardev_client *client, void *arg,
		   struct chardev **ret_chardev, struct err *err)
{
	struct chardev *c = calloc(1, sizeof(*c));
	const char *kind_arg;
	int ret = -ENOMEM;

	if (!c)
		return err_set(err, ret, "out of memory");
	c->client = client;
	c->arg = arg;
	c->loop = loop;
	c->io = io;
	c->wait_fd = c->in.fd = c->out.fd = c->left.fd = -1;
	c->ready = (struct vio_task){ .fn = on_ready, .arg = c };
	c->kind = chardev_parse(text, &kind_arg);
	c->text = strdup(text);
	if (c->kind && c->text)
		ret = c->kind->create(c, id, files);
	if (ret < 0) {
		chardev_destroy(c);
		return err_set(err, ret, "%s", strerror(-ret));
	}
	chardev_watch(c);
	chardev_size(c, &c->cols, &c->rows);
	*ret_chardev = c;
	return 0;
}

/* No request that changes a terminal may be listed. */
const unsigned long chardev_ioctls[] = { TIOCGWINSZ, 0 };

const int chardev_syscalls[] = {
	SYS_ioctl,
	SYS_accept4,
	SYS_close,
	SYS_epoll_ctl,
	SYS_fcntl,
	SYS_fstat,
	SYS_poll,
	SYS_read,
	SYS_readv,
	SYS_recvfrom,
	REOPENER_SYSCALLS,
	SYS_sendmsg,
	SYS_writev,
	/* threads: wait for jobs, and exit */
	SYS_futex,
	SYS_write,
	SYS_munmap,
	POOL_GROWTH_SYSCALLS,
	-1,
};

/* SPDX-License-Identifier: BSD-2-Clause */
#include "back/net/net_be.h"
#include "base/opener.h"
#include "base/util.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

static const struct net_be_kind *const kinds[] = {
	&net_kind_tap,   &net_kind_af_xdp, &net_kind_user, &net_kind_stream,
	&net_kind_dgram, &net_kind_fd,     &net_kind_null, &net_kind_echo,
};

#define NR_KINDS ARRAY_LEN(kinds)

static bool has_key(const struct net_be_kind *kind, const char *key)
{
	for (const char *const *k = kind->keys; k && *k; k++) {
		if (!strcmp(*k, key))
			return true;
	}
	return false;
}

/* Reject options of other backends. */
static int check_keys(const struct net_be_kind *kind, const struct opts *opts,
		      struct err *err)
{
	for (unsigned i = 0; i < NR_KINDS; i++) {
		const char *const *k = kinds[i]->keys;

		for (; k && *k; k++) {
			if (opt_given(opts, *k) && !has_key(kind, *k))
				return err_set(err, -EINVAL,
					       "net: %s=%s: not supported by "
					       "backend=%s",
					       *k, opt_string(opts, *k),
					       kind->name);
		}
	}
	if (opt_number(opts, "queues") > 1 && !kind->multi)
		return err_set(err, -EINVAL,
			       "net: queues=%s: backend=%s has one queue pair",
			       opt_string(opts, "queues"), kind->name);
	return 0;
}

static const struct net_be_kind *kind_of(const struct opts *opts)
{
	const char *name = opt_string(opts, "backend");

	for (unsigned i = 0; i < NR_KINDS; i++) {
		if (!strcmp(kinds[i]->name, name))
			return kinds[i];
	}
	return NULL;
}

int net_be_open(const struct opts *opts, struct opened_files *files,
		struct err *err)
{
	const struct net_be_kind *kind = kind_of(opts);
	int ret;

	if (!kind)
		return err_set(err, -ENOTSUP, "net: backend=%s: not in kinds[]",
			       opt_string(opts, "backend"));
	ret = check_keys(kind, opts, err);
	if (ret < 0 || !kind->open)
		return ret;
	return kind->open(opts, files, err);
}

int net_be_create(const struct opts *opts, struct opened_files *files,
		  struct vio_loop *loop, struct net_be **ret_be,
		  struct err *err)
{
	return kind_of(opts)->create(opts, files, loop, ret_be, err);
}

/* A queue's name in opened_files. */
static void queue_name(char name[16], unsigned i)
{
	snprintf(name, 16, "queue%u", i);
}

static void replace_queues(struct opened_files *files, const int *take_fds,
			   unsigned nr)
{
	char name[16];

	for (unsigned i = 0; i < nr; i++) {
		queue_name(name, i);
		opened_files_replace(files, name, take_fds[i]);
	}
}

int net_be_reopen(const struct opts *opts, struct opened_files *files)
{
	const struct net_be_kind *kind = kind_of(opts);
	int fds[OPENER_MAX_FDS], nr;

	if (!kind->is_gone || !kind->is_gone(files))
		return 0;
	nr = opener_take(files, kind->opener, fds);
	if (nr < 0)
		return nr;
	replace_queues(files, fds, (unsigned)nr);
	/* It may have been deleted again since. */
	return kind->is_gone(files) ? -EAGAIN : 0;
}

void net_be_close(const struct opts *opts, const struct opened_files *files)
{
	const char *path = opt_string(opts, "path");
	const char *local = opt_string(opts, "local");

	if (path)
		opened_files_remove(files, "stream", path);
	if (local)
		opened_files_remove(files, "dgram", local);
}

void net_be_rights(const struct opts *opts, struct sandbox_rights *rights)
{
	const struct net_be_kind *kind = kind_of(opts);

	rights->network = kind->network;
	if (kind->tree && opt_given(opts, kind->tree)) {
		rights->tree = kind->tree;
		rights->tree_ro = true;
	}
	if (kind->syscalls)
		rights->syscalls = kind->syscalls;
	if (kind->ioctls)
		rights->ioctls = kind->ioctls;
}

void net_be_attach(struct net_be *be, const struct net_be_client *client,
		   void *arg)
{
	be->client = client;
	be->client_arg = arg;
}

void net_be_destroy(struct net_be *be)
{
	if (be)
		be->ops->destroy(be);
}

unsigned net_be_nr_queues(const struct opts *opts)
{
	const char *fds = opt_string(opts, "fd");
	unsigned nr = 1;

	if (!fds)
		return (unsigned)opt_number(opts, "queues");
	for (; *fds; fds++)
		nr += *fds == ':';
	return nr;
}

/*
 * --- For backends ---
 */

int net_add_queues(struct opened_files *files, const int *take_fds, unsigned nr)
{
	char name[16];
	int ret = 0;

	for (unsigned i = 0; i < nr; i++) {
		queue_name(name, i);
		if (ret == 0)
			ret = opened_files_add(files, name, take_fds[i]);
		if (ret < 0)
			close(take_fds[i]);
	}
	return ret;
}

void net_take_queues(struct opened_files *files, int *ret_fds, unsigned nr)
{
	char name[16];

	for (unsigned i = 0; i < nr; i++) {
		queue_name(name, i);
		ret_fds[i] = opened_files_take(files, name);
	}
}

int net_fd_prepare(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 ||
	    fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
		return -errno;
	return 0;
}

void net_port_watch(struct net_port *port, uint32_t event, bool on)
{
	uint32_t events = on ? port->events | event : port->events & ~event;

	if (events == port->events)
		return;
	port->events = events;
	/* EPOLLHUP cannot be masked: remove a source without events. */
	if (!events) {
		vio_source_remove(port->source);
		port->source = NULL;
	} else if (port->source) {
		vio_fd_set(port->source, events);
	} else if (vio_fd_add(port->loop, port->fd, events, port->cb, port->arg,
			      &port->source) < 0) {
		port->events = 0; /* the next call tries again */
	}
}

void net_port_close(struct net_port *port)
{
	vio_source_remove(port->source);
	port->source = NULL;
	if (port->fd >= 0)
		close(port->fd);
	port->fd = -1;
}

int net_iov_head(struct iovec *to, const struct iovec *iov, int niov,
		 size_t len)
{
	int n = 0;

	for (; n < niov && len > 0; n++) {
		to[n] = iov[n];
		if (to[n].iov_len > len)
			to[n].iov_len = len;
		len -= to[n].iov_len;
	}
	return n;
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* What is common to servers of all protocols. See <viodev/server.h>. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

#include "serve/server_impl.h"

#define NS_PER_SEC 1000000000ull
#define LOG_BURST  32 /* lines; then one a second */

/*
 * --- Log ---
 */

static void log_to_stderr(void *arg, int level, const char *msg)
{
	fprintf(stderr, "%s\n", msg);
}

static void log_init(struct server_log *log)
{
	*log = (struct server_log){
		.fn = log_to_stderr,
		.since_ns = vio_now_ns(),
		.tokens = LOG_BURST,
	};
}

static bool take_token(struct server_log *log)
{
	uint64_t now = vio_now_ns(), secs = (now - log->since_ns) / NS_PER_SEC;

	if (secs > 0) {
		log->since_ns += secs * NS_PER_SEC;
		log->tokens = secs < LOG_BURST - log->tokens ?
				      log->tokens + (unsigned)secs :
				      LOG_BURST;
	}
	if (log->tokens == 0)
		return false;
	log->tokens--;
	return true;
}

void server_log(struct vio_server *srv, int level, const char *fmt, ...)
{
	struct server_log *log = &srv->log;
	char text[256], lost[40] = "", line[sizeof(text) + 100];
	va_list ap;

	if (!take_token(log)) {
		log->nr_lost++;
		return;
	}
	if (log->nr_lost > 0)
		snprintf(lost, sizeof(lost), " (%u lines lost)", log->nr_lost);
	log->nr_lost = 0;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	snprintf(line, sizeof(line), "%.40s: %s%s", srv->name, text, lost);
	log->fn(log->arg, level, line);
}

/*
 * --- For the protocols ---
 */

void server_log_detached(struct vio_server *srv, bool in_use)
{
	server_log(srv, in_use ? LOG_NOTICE : LOG_INFO,
		   "front-end disconnected%s",
		   in_use ? " while the driver was active" : "");
}

void server_notify(struct vio_server *srv, bool attached)
{
	if (srv->notify)
		srv->notify(srv->notify_arg, attached);
}

void server_next_client(struct vio_server *srv)
{
	client_disconnected(&srv->wake);
	listener_next(&srv->listener);
}

/*
 * --- Create and destroy ---
 */

static void accept_failed(void *arg, int error)
{
	server_log(arg, LOG_WARNING, "cannot accept a client: %s",
		   strerror(error));
}

static bool poll_rings(void *arg)
{
	struct vio_server *srv = arg;

	return srv->ops->poll(srv, false);
}

static bool arm_rings(void *arg)
{
	struct vio_server *srv = arg;

	return srv->ops->poll(srv, true);
}

static void init(struct vio_server *srv, struct vio_loop *loop,
		 const struct server_ops *ops)
{
	srv->ops = ops;
	srv->loop = loop;
	srv->listener = (struct listener){
		.loop = loop,
		.come = ops->add_client,
		.failed = accept_failed,
		.arg = srv,
		.fd = -1,
	};
	srv->poller = (struct vio_poller){
		.poll = poll_rings,
		.arm = arm_rings,
		.arg = srv,
	};
	vio_poller_add(loop, &srv->poller);
	log_init(&srv->log);
	gm_init(&srv->gm, ops->gmem_ops, srv);
	pci_func_init(&srv->pi, ops->host, srv, &srv->gm);
}

int vio_server_create(struct vio_loop *loop, enum vio_protocol protocol,
		      const char *name, struct vio_server **ret_srv)
{
	static const struct server_ops *const protocols[] = {
		[VIO_VFIO_USER] = &vfuser_ops,
		[VIO_VHOST_USER] = &vhuser_ops,
	};
	const struct server_ops *ops = protocols[protocol];
	struct vio_server *srv = calloc(1, ops->size);
	int ret;

	if (!srv)
		return -ENOMEM;
	init(srv, loop, ops);
	ret = ops->init(srv);
	if (ret == 0) {
		srv->name = strdup(name);
		snprintf(srv->pi.pi_name, sizeof(srv->pi.pi_name), "%s", name);
		ret = srv->name ? client_wake_init(&srv->wake, loop,
						   ops->on_wake, srv) :
				  -ENOMEM;
	}
	if (ret < 0) {
		vio_server_destroy(srv);
		return ret;
	}
	*ret_srv = srv;
	return 0;
}

void vio_server_destroy(struct vio_server *srv)
{
	if (!srv)
		return;
	vio_poller_remove(srv->loop, &srv->poller);
	srv->ops->fini(srv);
	client_wake_fini(&srv->wake);
	if (srv->path)
		unix_remove(srv->path, srv->path_name);
	listener_stop(&srv->listener);
	pci_func_fini(&srv->pi);
	gm_fini(&srv->gm);
	free(srv->path);
	free(srv->name);
	free(srv);
}

struct pci_devinst *vio_server_pci(struct vio_server *srv)
{
	return &srv->pi;
}

/*
 * --- Start ---
 */

static int start(struct vio_server *srv, int take_fd,
		 int (*take)(struct vio_server *srv, int take_fd))
{
	int ret = srv->started ? -EBUSY : 0;

	if (ret == 0 && srv->ops->start)
		ret = srv->ops->start(srv);
	if (ret == 0)
		ret = take(srv, take_fd);
	if (ret == 0)
		srv->started = true;
	return ret;
}

static int take_listener(struct vio_server *srv, int take_fd)
{
	return listener_start(&srv->listener, take_fd);
}

static int take_client(struct vio_server *srv, int take_fd)
{
	return srv->ops->add_client(srv, take_fd);
}

int vio_server_listen(struct vio_server *srv, int take_fd)
{
	return start(srv, take_fd, take_listener);
}

int vio_server_attach(struct vio_server *srv, int take_fd)
{
	return start(srv, take_fd, take_client);
}

int vio_server_listen_path(struct vio_server *srv, const char *path)
{
	int fd = unix_listen(path, 0), ret;

	if (fd < 0)
		return fd;
	ret = vio_server_listen(srv, fd);
	if (ret < 0) {
		close(fd);
		unlink(path);
		return ret;
	}
	srv->path = strdup(path); /* without it, the socket file stays */
	srv->path_name = unix_name(path);
	return 0;
}

/*
 * --- What an embedder sees ---
 */

void vio_server_set_notify(struct vio_server *srv,
			   void (*fn)(void *arg, bool attached), void *arg)
{
	srv->notify = fn;
	srv->notify_arg = arg;
}

void vio_server_set_log(struct vio_server *srv,
			void (*fn)(void *arg, int level, const char *msg),
			void *arg)
{
	srv->log.fn = fn;
	srv->log.arg = arg;
}

void vio_server_get_stats(const struct vio_server *srv,
			  struct vio_server_stats *ret_stats)
{
	*ret_stats = srv->stats;
	srv->ops->get_stats(srv, ret_stats);
}

const int *vio_server_syscalls(const struct vio_server *srv)
{
	return srv->ops->syscalls;
}

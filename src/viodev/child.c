/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A device process: one device on a server, in its sandbox.
 *
 * In order: read the configuration, create the server, drop privileges, create
 * the device, restrict system calls, notify the parent, serve.
 */
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <viodev/loop.h>
#include <viodev/pci.h>

#include "base/json.h"
#include "dev/vdev.h"
#include "viodev/cmd.h"
#include "viodev/ctl_server.h"
#include "viodev/jail.h"
#include "viodev/log.h"
#include "viodev/sock.h"
#include "viodev/spawn.h"
#include "viodev/transport.h"

#define NS_PER_SEC UINT64_C(1000000000)
#define END_NS     (2 * NS_PER_SEC)
#define LOOK_NS    (NS_PER_SEC / 100)

struct child {
	struct opts *settings;
	const struct vdev_type *type;
	struct opts *opts;
	struct opened_files files;
	struct vio_loop *loop;
	int signal_fd;
	struct vio_source *signal_source;
	enum vio_protocol transport;
	struct vio_server *srv;
	bool connected; /* to one front-end; or listening */
	struct vdev *dev;
	struct ctl_server *ctl;
	struct sandbox_rights rights;
	struct jail jail;
	uint64_t start_ns;
	bool ending;
	bool hangs; /* requests were still in flight after END_NS */
	struct vio_source *end_timer;
	uint64_t end_ns; /* deadline for requests in flight */
};

/*
 * --- Control ---
 */

static void status(struct child *child, struct json_object *to)
{
	struct json_object *sandbox = json_object_new_object();
	struct json_object *server = json_object_new_object();
	uint64_t uptime = (vio_now_ns() - child->start_ns) / NS_PER_SEC;

	json_add_string(to, "id", opt_string(child->settings, "id"));
	vdev_status(child->dev, to);
	transport_status(child->srv, child->transport, server);
	json_object_object_add(to, "server", server);
	json_object_object_add(to, "pid", json_object_new_int(getpid()));
	json_add_uint(to, "uptime", uptime);
	jail_status(&child->jail, sandbox);
	json_object_object_add(to, "sandbox", sandbox);
}

static int control(void *arg, int argc, char *const argv[],
		   struct opened_files *files, struct json_object *reply,
		   struct err *err)
{
	struct child *child = arg;

	if (strcmp(argv[0], "status") != 0)
		return vdev_ctl(child->dev, argc, argv, files, reply, err);
	if (argc > 1)
		return err_set(err, -EINVAL, "status: takes no arguments");
	status(child, reply);
	return 0;
}

/*
 * --- End ---
 *
 * New requests are not accepted, and those in flight have a while to finish, in
 * which the loop runs on. The next process learns of unfinished ones from the
 * front-end's record, or resets the device.
 */

static void look_at_end(void *arg)
{
	struct child *child = arg;
	bool idle = pci_is_idle(vio_server_pci(child->srv));

	if (!idle && vio_now_ns() < child->end_ns) {
		vio_timer_set(child->end_timer, LOOK_NS);
		return;
	}
	child->hangs = !idle;
	vio_loop_stop(child->loop);
}

static void end(struct child *child)
{
	if (child->ending)
		return;
	child->ending = true;
	child->end_ns = vio_now_ns() + END_NS;
	pci_quiesce(vio_server_pci(child->srv));
	look_at_end(child);
}

/*
 * --- Events ---
 */

static void on_signal(void *arg, uint32_t events)
{
	struct child *child = arg;
	struct signalfd_siginfo info;

	/* Only SIGTERM is watched. */
	if (read(child->signal_fd, &info, sizeof(info)) == sizeof(info))
		end(child);
}

static void on_client(void *arg, bool attached)
{
	struct child *child = arg;

	if (!attached &&
	    (child->connected || opt_bool(child->settings, "once")))
		end(child);
}

static void on_log(void *arg, int level, const char *msg)
{
	log_named(level, msg);
}

/*
 * --- Configuration ---
 */

/* The settings hold the names; the descriptors have fixed numbers. */
static int find_files(struct child *child, struct err *err)
{
	const char *names = opt_string(child->settings, "files");
	char *copy = strdup(names ? names : ""), *rest = copy, *name;
	int fd = CHILD_FILES_FD, ret = copy ? 0 : -ENOMEM;

	while (ret == 0 && copy[0] && (name = strsep(&rest, ":"))) {
		fcntl(fd, F_SETFD, FD_CLOEXEC);
		ret = opened_files_add(&child->files, name, fd++);
	}
	free(copy);
	return ret < 0 ? err_set(err, ret, "files: %s", strerror(-ret)) : 0;
}

static int configure(struct child *child, char **argv, struct err *err)
{
	static const struct opt_def *const tables[] = { child_opts, NULL };
	int ret = opts_parse(argv[0], tables, &child->settings, err);

	if (ret < 0)
		return ret;
	log_init(opt_string(child->settings, "id"),
		 opt_bool(child->settings, "verbose"));
	if (!transport_find(opt_string(child->settings, "transport"),
			    &child->transport))
		return err_set(err, -EINVAL, "no such transport");
	child->jail.namespaces = opt_number(child->settings, "namespaces");
	child->jail.root = opt_string(child->settings, "root");
	ret = vdev_parse(argv[1], &child->type, &child->opts, err);
	return ret < 0 ? ret : find_files(child, err);
}

/*
 * --- Building ---
 */

static int watch_signals(struct child *child)
{
	sigset_t set;

	signal(SIGPIPE, SIG_IGN);
	/* A job stops and continues as a whole. */
	sigemptyset(&set);
	sigaddset(&set, SIGTSTP);
	if (sigprocmask(SIG_UNBLOCK, &set, NULL) < 0)
		return -errno;
	/*
	 * The parent handles the terminal's signals, which stay blocked here.
	 */
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
		return -errno;
	child->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (child->signal_fd < 0)
		return -errno;
	return vio_fd_add(child->loop, child->signal_fd, EPOLLIN, on_signal,
			  child, &child->signal_source);
}

static int build_server(struct child *child)
{
	int ret = vio_loop_create(&child->loop);

	if (ret == 0)
		ret = watch_signals(child);
	if (ret == 0)
		ret = vio_timer_add(child->loop, look_at_end, child,
				    &child->end_timer);
	if (ret == 0)
		ret = vio_server_create(child->loop, child->transport,
					opt_string(child->settings, "id"),
					&child->srv);
	if (ret < 0)
		return ret;
	vio_server_set_log(child->srv, on_log, child);
	vio_server_set_notify(child->srv, on_client, child);
	return 0;
}

/* A parent that does not read has enough events already. */
static void on_device_event(void *arg, enum vdev_event event)
{
	const char waiting = NEWS_WAITING;

	if (event == VDEV_WAITING && write(CHILD_NEWS_FD, &waiting, 1) < 0)
		return;
}

static int build_device(struct child *child, struct err *err)
{
	const struct vdev_user user = {
		.uid = (uint32_t)opt_number(child->settings, "uid"),
		.gid = (uint32_t)opt_number(child->settings, "gid"),
	};
	struct vdev_env env = {
		.pi = vio_server_pci(child->srv),
		.loop = child->loop,
		.opts = child->opts,
		.files = &child->files,
		.event = on_device_event,
		.identity = opt_number(child->settings, "identity"),
		.user = child->jail.namespaces & CLONE_NEWUSER ? &user : NULL,
	};

	return vdev_create(child->type, &env, &child->dev, err);
}

static int open_sockets(struct child *child)
{
	int ret = ctl_server_create(child->loop, CHILD_CTL_FD, control, child,
				    &child->ctl);

	if (ret < 0)
		return ret;
	child->connected = !sock_is_listening(CHILD_SOCK_FD);
	return child->connected ? vio_server_attach(child->srv, CHILD_SOCK_FD) :
				  vio_server_listen(child->srv, CHILD_SOCK_FD);
}

static int seal(struct child *child)
{
	const int *const lists[] = {
		vio_server_syscalls(child->srv),
		ctl_server_syscalls,
		child->rights.syscalls,
		child->type->vt_syscalls,
		NULL,
	};
	const unsigned long *const ioctls[] = {
		child->rights.ioctls,
		child->type->vt_ioctls,
		NULL,
	};

	return jail_seal(&child->jail, lists, ioctls);
}

/* The parent waits for this; without a reader, it is dead. */
static bool tell_ready(void)
{
	const char ready = NEWS_READY;

	return write(CHILD_NEWS_FD, &ready, 1) == 1;
}

/* Without mounts of its own, the device cannot get its tree again. */
static void close_tree_again(struct child *child)
{
	int fd = opened_files_take(&child->files, TREE_AGAIN_FILE);

	if (fd >= 0)
		close(fd);
}

static int enter_jail(struct child *child)
{
	struct jail_tree tree = { -1, -1 };
	int ret;

	child->rights = vdev_rights(child->type, child->opts);
	if (child->rights.tree)
		tree.tree_fd =
			opened_files_find(&child->files, child->rights.tree);
	if (child->rights.proc)
		tree.proc_fd =
			opened_files_find(&child->files, child->rights.proc);
	ret = jail_enter(&child->jail, &child->rights, &tree);
	if (ret == 0 && !child->jail.own_tree)
		close_tree_again(child);
	return ret;
}

/* Returns the exit status on failure, otherwise -1. */
static int build(struct child *child)
{
	bool sandbox = opt_bool(child->settings, "sandbox");
	struct err err;
	int ret = build_server(child);

	if (ret < 0) {
		log_line(LOG_ERR, "server: %s", strerror(-ret));
		return EXIT_FAILED;
	}
	jail_raise_memlock();
	if (sandbox && enter_jail(child) < 0)
		return EXIT_USAGE;
	if (build_device(child, &err) < 0) {
		log_line(LOG_ERR, "%s", err.text);
		return EXIT_USAGE;
	}
	ret = open_sockets(child);
	if (ret < 0) {
		log_line(LOG_ERR, "sockets: %s", strerror(-ret));
		return EXIT_FAILED;
	}
	if (sandbox && seal(child) < 0)
		return EXIT_USAGE;
	return -1;
}

static int serve(struct child *child)
{
	int ret;

	if (!tell_ready())
		return EXIT_FAILED;
	malloc_trim(0);
	ret = vio_loop_run(child->loop);
	if (ret < 0) {
		log_line(LOG_ERR, "event loop: %s", strerror(-ret));
		return EXIT_FAILED;
	}
	if (child->hangs)
		log_line(LOG_WARNING,
			 "requests still in flight after %d s: terminating",
			 (int)(END_NS / NS_PER_SEC));
	return EXIT_OK;
}

static void fini(struct child *child)
{
	ctl_server_destroy(child->ctl);
	vdev_destroy(child->dev);
	vio_server_destroy(child->srv);
	vio_source_remove(child->end_timer);
	vio_source_remove(child->signal_source);
	if (child->signal_fd >= 0)
		close(child->signal_fd);
	vio_loop_destroy(child->loop);
	opened_files_close(&child->files);
	opts_free(child->opts);
	opts_free(child->settings);
}

int child_main(int argc, char **argv)
{
	struct child child = { .signal_fd = -1 };
	struct err err;
	bool sandbox;
	int ret;

	if (argc != 2)
		return log_usage(CHILD_WORD ": reserved for internal use");
	for (int fd = CHILD_NEWS_FD; fd < CHILD_FILES_FD; fd++)
		fcntl(fd, F_SETFD, FD_CLOEXEC);
	child.start_ns = vio_now_ns();
	if (configure(&child, argv, &err) < 0) {
		log_line(LOG_ERR, "%s", err.text);
		fini(&child);
		return EXIT_USAGE;
	}
	sandbox = opt_bool(child.settings, "sandbox");
	ret = build(&child);
	if (ret < 0)
		ret = serve(&child);
	/* A thread or the kernel may still use this memory. */
	if (child.hangs)
		_exit(ret);
	fini(&child);
	/* Exit handlers (sanitizers) may need what the sandbox forbids. */
	if (sandbox)
		_exit(ret);
	return ret;
}

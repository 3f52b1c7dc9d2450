/* SPDX-License-Identifier: BSD-2-Clause */
#include "viodev/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "viodev/cmd.h"
#include "viodev/jail.h"
#include "viodev/transport.h"

const struct opt_def child_opts[] = {
	{ "id", OPT_STRING, .required = true, .help = "the device's name" },
	{ "once", OPT_BOOL, .help = "exit when the front-end disconnects" },
	{ "transport", OPT_STRING, .required = true, .help = "its protocol" },
	{ "verbose", OPT_BOOL, .help = "log more" },
	{ "sandbox", OPT_BOOL, .help = "drop privileges" },
	{ "namespaces", OPT_NUMBER, .help = "the active ones" },
	{ "uid", OPT_NUMBER, .help = "its user, outside of a user namespace" },
	{ "gid", OPT_NUMBER, .help = "its group, likewise" },
	{ "identity", OPT_NUMBER, .help = "a number of its own" },
	{ "root", OPT_STRING, .help = "its root directory" },
	{ "files", OPT_STRING, .help = "names of its descriptors, a:b:c" },
	{ NULL },
};

/* Prepared before the fork, for use between fork and exec. */
struct plan {
	unsigned long namespaces;
	uid_t uid;
	gid_t gid;
	int fds[CHILD_END_FD]; /* where each comes from */
	int nr_fds;
	char *argv[5];
};

static const char *on_off(bool value)
{
	return value ? "on" : "off";
}

static char *child_text(const struct instance *inst,
			const struct spawn_params *params,
			const struct plan *plan)
{
	char files[OPENED_FILES_MAX * sizeof(inst->files.file[0].name) + 1] =
		"";
	bool names = params->root && !strchr(params->root, ',') &&
		     vdev_rights(inst->type, inst->opts).network;
	char *text;

	for (unsigned i = 0; i < inst->files.nr; i++) {
		if (i > 0)
			strcat(files, ":");
		strcat(files, inst->files.file[i].name);
	}
	if (asprintf(&text,
		     "process,id=%s,transport=%s,once=%s,verbose=%s,"
		     "sandbox=%s,namespaces=0x%lx,uid=%u,gid=%u,"
		     "identity=0x%llx,%s%s%sfiles=%s",
		     inst->id, transport_name(params->transport),
		     on_off(params->once), on_off(params->verbose),
		     on_off(params->sandbox), plan->namespaces, plan->uid,
		     plan->gid, (unsigned long long)params->identity,
		     names ? "root=" : "", names ? params->root : "",
		     names ? "," : "", files) < 0)
		return NULL;
	return text;
}

/*
 * --- Between fork and exec: system calls alone ---
 */

static void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		return; /* the jail copes without it */
	close(fd);
}

/*
 * Become root in the user namespace: another user's exec would drop the
 * capabilities that stage 2 of the jail needs.
 */
static void map_user(const struct plan *plan)
{
	char map[32];

	write_file("/proc/self/setgroups", "deny");
	snprintf(map, sizeof(map), "0 %u 1", plan->gid);
	write_file("/proc/self/gid_map", map);
	snprintf(map, sizeof(map), "0 %u 1", plan->uid);
	write_file("/proc/self/uid_map", map);
}

/*
 * The soft limit may be too low for that; this raises it for the child alone.
 */
static void raise_fd_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return;
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
}

/* Move every descriptor to its number. */
static bool place_fds(struct plan *plan)
{
	for (int i = 0; i < plan->nr_fds; i++) {
		/* Out of the way of the assigned numbers. */
		plan->fds[i] =
			fcntl(plan->fds[i], F_DUPFD_CLOEXEC, CHILD_END_FD);
		if (plan->fds[i] < 0)
			return false;
	}
	for (int i = 0; i < plan->nr_fds; i++) {
		if (i != STDERR_FILENO && dup2(plan->fds[i], i) < 0)
			return false;
	}
	/* Close all others, our own and inherited ones. */
	close_range((unsigned)plan->nr_fds, ~0U, 0);
	return true;
}

static _Noreturn void child_exec(struct plan *plan)
{
	static const char failed[] = "viodev: cannot start a device process\n";

	/*
	 * If the parent dies, the device must not continue. The parent may be
	 * dead already: then the pipe has no reader, which child.c notices.
	 */
	prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	if (plan->namespaces & CLONE_NEWUSER)
		map_user(plan);
	raise_fd_limit();
	if (place_fds(plan))
		execv("/proc/self/exe", plan->argv);
	if (write(STDERR_FILENO, failed, sizeof(failed) - 1) < 0)
		_exit(EXIT_FAILED);
	_exit(EXIT_FAILED);
}

/* fork() with namespaces; nothing but system calls until the exec. */
static pid_t fork_into(unsigned long namespaces)
{
	unsigned long flags = namespaces | SIGCHLD;

#ifdef __s390x__ /* the stack comes first */
	return (pid_t)syscall(SYS_clone, 0, flags, 0, 0, 0);
#else
	return (pid_t)syscall(SYS_clone, flags, 0, 0, 0, 0);
#endif
}

/*
 * --- The parent's side ---
 */

static pid_t try_spawn(const struct instance *inst,
		       const struct spawn_params *params, struct plan *plan)
{
	char *text = child_text(inst, params, plan);
	char word[] = CHILD_WORD, name[] = "viodev";
	pid_t pid;

	if (!text)
		return -ENOMEM;
	plan->argv[0] = name;
	plan->argv[1] = word;
	plan->argv[2] = text;
	plan->argv[3] = (char *)inst->text;
	pid = fork_into(plan->namespaces);
	if (pid == 0)
		child_exec(plan);
	if (pid < 0)
		pid = -errno;
	free(text);
	return pid;
}

static pid_t spawn_planned(const struct instance *inst,
			   const struct spawn_params *params, struct plan *plan)
{
	pid_t pid = -EPERM;

	if (params->sandbox) {
		struct sandbox_rights rights =
			vdev_rights(inst->type, inst->opts);

		plan->namespaces = JAIL_NAMESPACES;
		if (rights.network)
			plan->namespaces &= ~(unsigned long)CLONE_NEWNET;
		/* The jail creates that one, where the directory is. */
		if (rights.tree)
			plan->namespaces &= ~(unsigned long)CLONE_NEWNS;
		if (plan->uid != 0)
			plan->namespaces |= CLONE_NEWUSER;
		pid = try_spawn(inst, params, plan);
	}
	/* Containers may forbid them, and kernels may lack them. */
	if (pid < 0) {
		plan->namespaces = 0;
		pid = try_spawn(inst, params, plan);
	}
	return pid;
}

int spawn_check_limits(const struct instance *inst, struct err *err)
{
	/* As place_fds() numbers them, and spare ones for what it opens. */
	unsigned needed = CHILD_END_FD + CHILD_FILES_FD + inst->files.nr + 2;
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_max >= needed)
		return 0;
	return err_set(err, -EMFILE,
		       "%s: needs %u open files, the hard limit is %u: raise "
		       "it (ulimit -Hn, LimitNOFILE=)",
		       inst->id, needed, (unsigned)limit.rlim_max);
}

pid_t spawn_instance(const struct instance *inst,
		     const struct spawn_params *params, int *ret_news_fd)
{
	int news[2], null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	pid_t pid;

	if (null_fd < 0)
		return -errno;
	if (pipe2(news, O_CLOEXEC | O_NONBLOCK) < 0) {
		pid = -errno;
		close(null_fd);
		return pid;
	}

	struct plan plan = {
		.uid = geteuid(),
		.gid = getegid(),
		.fds = { null_fd, null_fd, STDERR_FILENO, news[1],
			 inst->front.fd, inst->ctl.fd },
		.nr_fds = CHILD_FILES_FD,
	};
	for (unsigned i = 0; i < inst->files.nr; i++)
		plan.fds[plan.nr_fds++] = inst->files.file[i].fd;
	pid = spawn_planned(inst, params, &plan);
	close(null_fd);
	close(news[1]);
	if (pid < 0)
		close(news[0]);
	else
		*ret_news_fd = news[0];
	return pid;
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The parent of device processes: starts them, starts one that died again,
 * ends them all.
 *
 *	starting --ready--> serving --dies--> waiting --timer--> starting
 *	   | dies              | ends as asked (--once, stop)
 *	   v                   v
 *	 ended               ended
 *
 * A device that dies before it serves would do so again and is left ended;
 * when that happens at the first start, all are stopped.
 */
#ifndef VIODEV_SUPERVISOR_H
#define VIODEV_SUPERVISOR_H

#include <signal.h>
#include <stdbool.h>
#include <sys/types.h>

#include "viodev/cmd.h"
#include "viodev/instance.h"

struct resolver;
struct signalfd_siginfo;

/* What happens, for who runs the supervisor. */
struct supervisor_hooks {
	/* In the order of the command line, each once; then all of them. */
	void (*instance_ready)(void *arg, const struct instance *inst);
	void (*all_ready)(void *arg);
	/* Requests wait for `viodev ctl SOCKET resume`. May be NULL. */
	void (*instance_waiting)(void *arg, const struct instance *inst);
	/* A child that is no device's has ended. May be NULL. */
	void (*other_died)(void *arg, pid_t pid, int wait_status);
	/* One of the signals arrived; return false to stop. May be NULL. */
	bool (*signalled)(void *arg, const struct signalfd_siginfo *info);
};

struct supervisor {
	const struct cmdline *line;
	const struct supervisor_hooks *hooks;
	void *arg;
	struct vio_loop *loop;
	struct instance *instances;
	int nr_instances;
	int nr_announced;
	int signal_fd;
	struct vio_source *signal_source;
	struct resolver *resolver;     /* NULL: no device asks name servers */
	struct vio_source *kill_timer; /* patience with those who should end */
	sigset_t old_mask;
	bool stopping;
	uint64_t stop_ns; /* since when */
	bool killed;      /* SIGKILL was sent; survivors are left behind */
	bool ended_by_key;
	bool hold;  /* go on even when all devices have ended */
	int status; /* the exit status */
};

/*
 * Parse and open all devices of the command line, sockets in @dir, and block
 * @signals (SIGCHLD comes in addition). 0, or -errno after a line in the log.
 * supervisor_fini() is due in either case.
 */
int supervisor_init(struct supervisor *supervisor, const struct cmdline *line,
		    const char *dir, const int signals[],
		    const struct supervisor_hooks *hooks, void *arg);
void supervisor_fini(struct supervisor *supervisor);

/* Serve until all devices have ended; returns the exit status. */
int supervisor_run(struct supervisor *supervisor);

/* End all devices. */
void supervisor_stop(struct supervisor *supervisor);

#endif

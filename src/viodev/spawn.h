/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Starting a device process: the command runs itself anew, with what the
 * device needs at fixed descriptors and its configuration as text.
 *
 *	viodev device-process process,id=rng0,sandbox=on,... rng,rate=1M
 */
#ifndef VIODEV_SPAWN_H
#define VIODEV_SPAWN_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/opts.h"
#include "viodev/instance.h"

enum {                    /* descriptors of a device process */
       CHILD_NEWS_FD = 3, /* a pipe, see below */
       CHILD_SOCK_FD,
       CHILD_CTL_FD,
       CHILD_FILES_FD, /* and the following: its opened_files */
       CHILD_END_FD = CHILD_FILES_FD + OPENED_FILES_MAX,
};

/* What a device's process writes to that pipe, a byte each. */
enum {
	NEWS_READY = 'r',   /* it serves */
	NEWS_WAITING = 'w', /* VDEV_WAITING */
};

/* What the first text says. */
extern const struct opt_def child_opts[];

struct spawn_params {
	enum vio_protocol transport;
	bool sandbox, once, verbose;
	uint64_t identity; /* see identity.h */
	const char *root;  /* for those that ask name servers, or NULL */
};

/* Whether @inst's process can be started: 0, or -EMFILE with the reason. */
int spawn_check_limits(const struct instance *inst, struct err *err);

/*
 * Start @inst's process; *ret_news_fd is the pipe's end to read from, which
 * is the caller's. Returns its id or -errno.
 */
pid_t spawn_instance(const struct instance *inst,
		     const struct spawn_params *params, int *ret_news_fd);

#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A device as the parent process sees it: its name, its options, and what it
 * opened for it. The descriptors stay open for as long as the instance lives, so
 * that a device process that died can be started again.
 */
#ifndef VIODEV_INSTANCE_H
#define VIODEV_INSTANCE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <viodev/server.h>

#include "dev/vdev.h"
#include "viodev/sock.h"

struct supervisor;
struct tree_again;

struct instance {
	const char *text; /* as the user wrote it; borrowed */
	const struct vdev_type *type;
	struct opts *opts;
	char id[32];
	struct opened_files files;
	bool opened;                   /* to be closed again */
	struct tree_again *tree_again; /* NULL: it shares no directory */
	struct sock front;             /* the front-end's socket */
	struct sock ctl;               /* `viodev ctl`'s */

	/* Its process; the supervisor's (supervisor.c). */
	struct supervisor *supervisor;
	pid_t pid;   /* 0: none runs */
	int news_fd; /* what the process says, a byte each: spawn.h */
	struct vio_source *news_source;
	uint64_t waiting_ns; /* when the first of nr_waiting was said */
	unsigned nr_waiting;
	bool ready;
	bool restarted;
	struct vio_source *restart_timer;
	bool restart_pending;
	uint64_t start_ns;
	uint64_t backoff_ns;
};

/* All of these return 0, or -errno with the reason. */

/* Find options among the texts of devices. */
int instances_check_texts(char *const texts[], int nr, struct err *err);

/* Parse a device's text; the name may still be empty after it. */
int instance_init(struct instance *inst, const char *text, struct err *err);

/* Name those that have no id=, check that no two are the same. */
int instances_name(struct instance *instances, int nr, struct err *err);

/* By its name, or NULL. */
struct instance *instances_find(struct instance *instances, int nr,
				const char *id);

/*
 * Give them the sockets that systemd passes, by sd_listen_fds(3): each to the
 * device whose id= is its name, or the only one to the only device.
 */
int instances_activate(struct instance *instances, int nr, struct err *err);

/* Open what the device needs, and its sockets in @dir. */
int instance_open(struct instance *inst, const char *dir,
		  enum vio_protocol transport, struct err *err);

/* Close everything and remove the sockets. */
void instance_fini(struct instance *inst);

#endif

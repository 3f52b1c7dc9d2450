/* SPDX-License-Identifier: BSD-2-Clause */
/* Sockets that systemd passes. See instances_activate() and sd_listen_fds(3). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "viodev/instance.h"

#define FIRST_FD 3
#define MAX_FDS  256

static int nr_passed(void)
{
	const char *pid = getenv("LISTEN_PID"), *nr = getenv("LISTEN_FDS");
	long n;

	if (!pid || !nr || atol(pid) != getpid())
		return 0;
	n = atol(nr);
	return n < 0 || n > MAX_FDS ? 0 : (int)n;
}

/* Without FileDescriptorName= the name is the socket unit's, disk0.socket. */
static struct instance *find(struct instance *instances, int nr, char *name)
{
	struct instance *inst = instances_find(instances, nr, name);
	char *suffix = strstr(name, ".socket");

	if (!inst && suffix && !suffix[strlen(".socket")]) {
		*suffix = '\0';
		inst = instances_find(instances, nr, name);
	}
	return inst;
}

static int give(struct instance *inst, int fd, const char *name,
		struct err *err)
{
	if (!inst)
		return err_set(err, -ENODEV,
			       "passed socket '%s' (descriptor %d): no device "
			       "has id=%s",
			       name, fd, name);
	if (inst->front.fd >= 0 || opt_given(inst->opts, "socket"))
		return err_set(err, -EEXIST,
			       "%s: id=%s: descriptor %d passed, but the "
			       "device has another socket",
			       inst->type->vt_name, inst->id, fd);
	return sock_inherit(&inst->front, inst->type->vt_name, fd, err);
}

int instances_activate(struct instance *instances, int nr, struct err *err)
{
	const char *names = getenv("LISTEN_FDNAMES");
	int nr_fds = nr_passed(), ret = 0;
	char *copy, *rest;

	if (nr_fds == 0)
		return 0;
	copy = rest = strdup(names ? names : "");
	if (!copy)
		return err_set(err, -ENOMEM, "out of memory");
	for (int i = 0; i < nr_fds && ret == 0; i++) {
		char none[] = "", *name = rest ? strsep(&rest, ":") : none;
		struct instance *inst = find(instances, nr, name);

		if (!inst && nr_fds == 1 && nr == 1)
			inst = instances;
		ret = give(inst, FIRST_FD + i, name, err);
	}
	free(copy);
	unsetenv("LISTEN_PID");
	unsetenv("LISTEN_FDS");
	unsetenv("LISTEN_FDNAMES");
	return ret;
}

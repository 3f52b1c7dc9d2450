/* SPDX-License-Identifier: BSD-2-Clause */
#include "viodev/unit.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKLOG 8

/*
 * --- Name ---
 */

/* It goes into file names and QEMU's ids. */
static bool good_id(const char *id)
{
	if (!isalpha((unsigned char)id[0]))
		return false;
	for (const char *c = id; *c; c++) {
		if (!isalnum((unsigned char)*c) && !strchr("-_.", *c))
			return false;
	}
	return true;
}

int unit_init(struct unit *unit, const char *text, struct err *err)
{
	const char *id;
	int ret;

	*unit = (struct unit){
		.text = text,
		.sock_fd = -1,
		.ctl_fd = -1,
		.ready_fd = -1,
	};
	ret = vdev_parse(text, &unit->type, &unit->opts, err);
	if (ret < 0)
		return ret;
	id = opt_string(unit->opts, "id");
	if (!id)
		return 0;
	if (!good_id(id) || strlen(id) >= sizeof(unit->id))
		return err_set(err, -EINVAL,
			       "%s: id=%s: must be a letter, then letters, "
			       "digits, '-', '_' and '.', %zu at most",
			       unit->type->vt_name, id, sizeof(unit->id) - 1);
	strcpy(unit->id, id);
	return 0;
}

static struct unit *find(struct unit *units, int nr, const char *id)
{
	for (int i = 0; i < nr; i++) {
		if (strcmp(units[i].id, id) == 0)
			return &units[i];
	}
	return NULL;
}

static void choose_id(struct unit *unit, struct unit *units, int nr)
{
	char id[sizeof(unit->id)];

	/* One of nr + 1 numbers is free. */
	for (int n = 0; n <= nr; n++) {
		snprintf(id, sizeof(id), "%.16s%d", unit->type->vt_name, n);
		if (!find(units, nr, id))
			break;
	}
	strcpy(unit->id, id);
}

int units_name(struct unit *units, int nr, struct err *err)
{
	for (int i = 0; i < nr; i++) {
		if (units[i].id[0] && find(units, i, units[i].id))
			return err_set(err, -EEXIST,
				       "%s: id=%s: another device has this "
				       "name: choose one for each",
				       units[i].type->vt_name, units[i].id);
	}
	for (int i = 0; i < nr; i++) {
		if (!units[i].id[0])
			choose_id(&units[i], units, nr);
	}
	return 0;
}

/*
 * --- Sockets ---
 */

/*
 * Whether somebody has a socket at this address. Asked with a datagram socket:
 * where a stream socket lives that fails with EPROTOTYPE, and does not disturb
 * it with a connection; where none does, with ECONNREFUSED.
 */
static bool in_use(const struct sockaddr_un *addr)
{
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	bool refused;

	if (fd < 0)
		return true;
	refused =
		connect(fd, (const struct sockaddr *)addr, sizeof(*addr)) < 0 &&
		errno == ECONNREFUSED;
	close(fd);
	return !refused;
}

/* Remove what a dead process left behind. 0 when the path is free. */
static int clear_stale(const struct sockaddr_un *addr)
{
	struct stat st;

	if (lstat(addr->sun_path, &st) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISSOCK(st.st_mode))
		return -EEXIST;
	if (in_use(addr))
		return -EADDRINUSE;
	return unlink(addr->sun_path) < 0 ? -errno : 0;
}

static int listen_at(const struct sockaddr_un *addr)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int ret;

	if (fd < 0)
		return -errno;
	if (bind(fd, (const struct sockaddr *)addr, sizeof(*addr)) < 0 ||
	    listen(fd, BACKLOG) < 0) {
		ret = -errno;
		close(fd);
		return ret;
	}
	return fd;
}

/* A listening socket, or -errno with the reason. */
static int open_socket(const struct unit *unit, const char *path,
		       struct err *err)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	const char *name = unit->type->vt_name;
	int ret;

	if (strlen(path) >= sizeof(addr.sun_path))
		return err_set(
			err, -ENAMETOOLONG,
			"%s: socket=%s: longer than the %zu bytes that a "
			"socket's path may have: use a shorter --dir",
			name, path, sizeof(addr.sun_path) - 1);
	strcpy(addr.sun_path, path);
	ret = clear_stale(&addr);
	if (ret == 0)
		ret = listen_at(&addr);
	if (ret == -EADDRINUSE)
		return err_set(err, ret,
			       "%s: socket=%s: in use by another process", name,
			       path);
	if (ret == -EEXIST)
		return err_set(err, ret,
			       "%s: socket=%s: exists and is not a socket",
			       name, path);
	if (ret < 0)
		return err_set(err, ret, "%s: socket=%s: %s", name, path,
			       strerror(-ret));
	return ret;
}

static int open_sockets(struct unit *unit, const char *dir, struct err *err)
{
	const char *path = opt_string(unit->opts, "socket");

	if (asprintf(&unit->ctl_path, "%s/%s.ctl", dir, unit->id) < 0)
		unit->ctl_path = NULL;
	if (path)
		unit->sock_path = strdup(path);
	else if (asprintf(&unit->sock_path, "%s/%s.sock", dir, unit->id) < 0)
		unit->sock_path = NULL;
	if (!unit->ctl_path || !unit->sock_path)
		return err_set(err, -ENOMEM, "%s: out of memory", unit->id);

	/* The control socket first: where it is in use, both are. */
	unit->ctl_fd = open_socket(unit, unit->ctl_path, err);
	if (unit->ctl_fd < 0)
		return unit->ctl_fd;
	unit->sock_fd = open_socket(unit, unit->sock_path, err);
	return unit->sock_fd < 0 ? unit->sock_fd : 0;
}

int unit_open(struct unit *unit, const char *dir, struct err *err)
{
	int ret = vdev_open(unit->type, unit->opts, &unit->files, err);

	unit->opened = ret == 0;
	return ret < 0 ? ret : open_sockets(unit, dir, err);
}

static void close_socket(int fd, char *path)
{
	if (fd >= 0) {
		unlink(path);
		close(fd);
	}
	free(path);
}

void unit_fini(struct unit *unit)
{
	close_socket(unit->sock_fd, unit->sock_path);
	close_socket(unit->ctl_fd, unit->ctl_path);
	vdev_files_close(&unit->files);
	if (unit->opened)
		vdev_close(unit->type, unit->opts);
	opts_free(unit->opts);
}

/* SPDX-License-Identifier: BSD-2-Clause */
#include "viodev/instance.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "viodev/transport.h"

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
		.front.fd = -1,
		.ctl.fd = -1,
		.news_fd = -1,
	};
	ret = vdev_parse(text, &unit->type, &unit->opts, err);
	if (ret < 0)
		return ret;
	id = opt_string(unit->opts, "id");
	if (!id)
		return 0;
	if (!good_id(id) || strlen(id) >= sizeof(unit->id))
		return err_set(err, -EINVAL,
			       "%s: id=%s: must be a letter followed by "
			       "letters, digits, '-', '_' or '.', at most %zu",
			       unit->type->vt_name, id, sizeof(unit->id) - 1);
	strcpy(unit->id, id);
	return 0;
}

struct unit *units_find(struct unit *units, int nr, const char *id)
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
		if (!units_find(units, nr, id))
			break;
	}
	strcpy(unit->id, id);
}

int units_name(struct unit *units, int nr, struct err *err)
{
	for (int i = 0; i < nr; i++) {
		if (units[i].id[0] && units_find(units, i, units[i].id))
			return err_set(
				err, -EEXIST,
				"%s: id=%s: used twice: choose one per device",
				units[i].type->vt_name, units[i].id);
	}
	for (int i = 0; i < nr; i++) {
		if (!units[i].id[0])
			choose_id(&units[i], units, nr);
	}
	return 0;
}

/*
 * --- What it needs ---
 */

static int open_front(struct unit *unit, const char *dir, struct err *err)
{
	const char *text = opt_string(unit->opts, "socket");
	char *path;
	int ret;

	if (unit->front.fd >= 0) /* it was passed to us */
		return 0;
	if (text)
		return sock_open(&unit->front, unit->type->vt_name, text, err);
	if (asprintf(&path, "%s/%s.sock", dir, unit->id) < 0)
		return err_set(err, -ENOMEM, "%s: out of memory", unit->id);
	ret = sock_listen(&unit->front, unit->type->vt_name, path, err);
	free(path);
	return ret;
}

static int open_ctl(struct unit *unit, const char *dir, struct err *err)
{
	char *path;
	int ret;

	if (asprintf(&path, "%s/%s.ctl", dir, unit->id) < 0)
		return err_set(err, -ENOMEM, "%s: out of memory", unit->id);
	ret = sock_listen(&unit->ctl, unit->type->vt_name, path, err);
	free(path);
	return ret;
}

int unit_open(struct unit *unit, const char *dir, enum vio_protocol transport,
	      struct err *err)
{
	int ret = vdev_open(unit->type, unit->opts, &unit->files, err);

	unit->opened = ret == 0;
	/* The control socket first: where it is in use, both are. */
	if (ret == 0)
		ret = open_ctl(unit, dir, err);
	if (ret == 0)
		ret = open_front(unit, dir, err);
	if (ret == 0 && unit->front.kind != SOCK_LISTENS &&
	    transport == VIO_VFIO_USER)
		return err_set(err, -EINVAL,
			       "%s: socket=%s: %s needs a listening socket",
			       unit->type->vt_name,
			       opt_string(unit->opts, "socket"),
			       transport_name(transport));
	return ret;
}

void unit_fini(struct unit *unit)
{
	sock_fini(&unit->front);
	sock_fini(&unit->ctl);
	if (unit->opened)
		vdev_close(unit->type, unit->opts, &unit->files);
	opened_files_close(&unit->files);
	opts_free(unit->opts);
}

/* SPDX-License-Identifier: BSD-2-Clause */
#include "viodev/instance.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "viodev/log.h"
#include "viodev/transport.h"
#include "viodev/tree_again.h"

/*
 * --- Name ---
 */

/* The id becomes part of file names and QEMU's ids. */
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

int instance_init(struct instance *inst, const char *text, struct err *err)
{
	const char *id;
	int ret;

	*inst = (struct instance){
		.text = text,
		.front.fd = -1,
		.ctl.fd = -1,
		.news_fd = -1,
	};
	ret = vdev_parse(text, &inst->type, &inst->opts, err);
	if (ret < 0)
		return ret;
	id = opt_string(inst->opts, "id");
	if (!id)
		return 0;
	if (!good_id(id) || strlen(id) >= sizeof(inst->id))
		return err_set(err, -EINVAL,
			       "%s: id=%s: must be a letter followed by "
			       "letters, digits, '-', '_' or '.', at most %zu",
			       inst->type->vt_name, id, sizeof(inst->id) - 1);
	strcpy(inst->id, id);
	return 0;
}

struct instance *instances_find(struct instance *instances, int nr,
				const char *id)
{
	for (int i = 0; i < nr; i++) {
		if (strcmp(instances[i].id, id) == 0)
			return &instances[i];
	}
	return NULL;
}

static void choose_id(struct instance *inst, struct instance *instances, int nr)
{
	char id[sizeof(inst->id)];

	/* At least one of nr + 1 numbers is free. */
	for (int n = 0; n <= nr; n++) {
		snprintf(id, sizeof(id), "%.16s%d", inst->type->vt_name, n);
		if (!instances_find(instances, nr, id))
			break;
	}
	strcpy(inst->id, id);
}

int instances_name(struct instance *instances, int nr, struct err *err)
{
	for (int i = 0; i < nr; i++) {
		if (instances[i].id[0] &&
		    instances_find(instances, i, instances[i].id))
			return err_set(
				err, -EEXIST,
				"%s: id=%s: used twice: choose one per device",
				instances[i].type->vt_name, instances[i].id);
	}
	for (int i = 0; i < nr; i++) {
		if (!instances[i].id[0])
			choose_id(&instances[i], instances, nr);
	}
	return 0;
}

/* An option that a blank separates from its device: "block path=FILE". */
static bool is_option(const char *text)
{
	return text[strcspn(text, ",=")] == '=';
}

int instances_check_texts(char *const texts[], int nr, struct err *err)
{
	for (int i = 1; i < nr; i++) {
		size_t len = strlen(texts[i - 1]);

		if (!is_option(texts[i]))
			continue;
		while (len > 0 && texts[i - 1][len - 1] == ',')
			len--;
		return err_set(err, -EINVAL,
			       "%s: no device: separate options by commas, "
			       "without blanks: %.*s,%s",
			       texts[i], (int)len, texts[i - 1], texts[i]);
	}
	return 0;
}

/*
 * --- What it needs ---
 */

static int open_front(struct instance *inst, const char *dir, struct err *err)
{
	const char *text = opt_string(inst->opts, "socket");
	char *path;
	int ret;

	if (inst->front.fd >= 0) /* it was passed to us */
		return 0;
	if (text)
		return sock_open(&inst->front, inst->type->vt_name, text, err);
	if (asprintf(&path, "%s/%s.sock", dir, inst->id) < 0)
		return err_set(err, -ENOMEM, "%s: out of memory", inst->id);
	ret = sock_listen(&inst->front, inst->type->vt_name, path, err);
	free(path);
	return ret;
}

static int open_ctl(struct instance *inst, const char *dir, struct err *err)
{
	char *path;
	int ret;

	if (asprintf(&path, "%s/%s.ctl", dir, inst->id) < 0)
		return err_set(err, -ENOMEM, "%s: out of memory", inst->id);
	ret = sock_listen(&inst->ctl, inst->type->vt_name, path, err);
	free(path);
	return ret;
}

static int start_tree_again(struct instance *inst, struct err *err)
{
	struct sandbox_rights rights = vdev_rights(inst->type, inst->opts);
	int ret = 0;

	if (rights.tree_path)
		ret = tree_again_start(&inst->files, &rights,
				       &inst->tree_again);
	if (ret < 0)
		return err_set(err, ret, "%s: %s", inst->id, strerror(-ret));
	return 0;
}

int instance_open(struct instance *inst, const char *dir,
		  enum vio_protocol transport, struct err *err)
{
	int ret;

	err->text[0] = '\0';
	ret = vdev_open(inst->type, inst->opts, &inst->files, err);
	inst->opened = ret == 0;
	if (ret == 0)
		ret = start_tree_again(inst, err);
	if (ret == 0 && err->text[0])
		log_line(LOG_WARNING, "%s: %s", inst->id, err->text);
	/* The control socket first: if it is in use, so is the other. */
	if (ret == 0)
		ret = open_ctl(inst, dir, err);
	if (ret == 0)
		ret = open_front(inst, dir, err);
	if (ret == 0 && inst->front.kind != SOCK_LISTENS &&
	    transport == VIO_VFIO_USER)
		return err_set(err, -EINVAL,
			       "%s: socket=%s: %s needs a listening socket",
			       inst->type->vt_name,
			       opt_string(inst->opts, "socket"),
			       transport_name(transport));
	return ret;
}

void instance_fini(struct instance *inst)
{
	sock_fini(&inst->front);
	sock_fini(&inst->ctl);
	if (inst->opened)
		vdev_close(inst->type, inst->opts, &inst->files);
	opened_files_close(&inst->files);
	opts_free(inst->opts);
}

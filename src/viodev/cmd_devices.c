/* SPDX-License-Identifier: BSD-2-Clause */
/* viodev devices: the types there are; one type's options and features. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "dev/vdev.h"
#include "viodev/cmd.h"
#include "viodev/log.h"

static const char help[] =
	"viodev devices [--json] [TYPE]\n"
	"\n"
	"Lists the device types, or the options, defaults, features and\n"
	"control commands of one TYPE.\n";

static const char *kind_name(const struct vdev_type *type,
			     const struct opt_def *def)
{
	if (type->vt_modern_only && strcmp(def->key, "mode") == 0)
		return "modern";
	switch (def->kind) {
	case OPT_BOOL:
		return "on|off";
	case OPT_NUMBER:
		return "NUMBER";
	case OPT_SIZE:
		return "SIZE";
	case OPT_CHOICE:
		return def->choices;
	default:
		return "STRING";
	}
}

/* Of those that types have in common, what this one has. */
static uint64_t common_features(const struct vdev_type *type)
{
	return type->vt_modern_only ? VI_RING_CAPS_MODERN : UINT64_MAX;
}

/*
 * --- Text ---
 */

static void print_opts(const struct vdev_type *type, const struct opt_def *def)
{
	for (; def->key; def++) {
		char text[80];

		snprintf(text, sizeof(text), "%s=%s", def->key,
			 kind_name(type, def));
		printf("  %-32s %s", text, def->help ? def->help : "");
		if (def->required)
			fputs(" (required)", stdout);
		else if (def->def)
			printf(" (%s)", def->def);
		putchar('\n');
	}
}

static void print_features(const virtio_capstr_t *f, uint64_t among)
{
	for (; f && f->vp_name; f++) {
		if (f->vp_flag & among)
			printf(" %s", f->vp_name);
	}
}

static void print_type(const struct vdev_type *type)
{
	printf("%s (also %s): %s\n", type->vt_name, type->vt_alias,
	       type->vt_summary);
	printf("\noptions and defaults:\n");
	print_opts(type, type->vt_opts);
	print_opts(type, vdev_common_opts);
	printf("\nfeatures offered:\n ");
	print_features(type->vt_features, UINT64_MAX);
	print_features(vdev_common_features, common_features(type));
	printf("\n\nviodev ctl SOCKET:\n  %-32s show the state of the device\n",
	       "status");
	for (const struct vdev_ctl *c = type->vt_ctls; c && c->usage; c++)
		printf("  %-32s %s\n", c->usage, c->help);
}

static void print_types(void)
{
	for (int i = 0; vdev_types[i]; i++) {
		const struct vdev_type *type = vdev_types[i];

		printf("%-10s %-16s %s", type->vt_name, type->vt_alias,
		       type->vt_summary);
		if (type->vt_missing)
			printf(" (built without %s)", type->vt_missing);
		putchar('\n');
	}
}

/*
 * --- JSON ---
 */

static void add_opts(struct json_object *list, const struct vdev_type *type,
		     const struct opt_def *def)
{
	for (; def->key; def++) {
		struct json_object *opt = json_object_new_object();

		json_add_string(opt, "key", def->key);
		json_add_string(opt, "value", kind_name(type, def));
		json_add_string(opt, "default", def->def);
		json_add_string(opt, "help", def->help);
		json_add_bool(opt, "required", def->required);
		json_object_array_add(list, opt);
	}
}

static void add_features(struct json_object *list, const virtio_capstr_t *f,
			 uint64_t among)
{
	for (; f && f->vp_name; f++) {
		if (f->vp_flag & among)
			json_push_string(list, f->vp_name);
	}
}

static struct json_object *type_json(const struct vdev_type *type)
{
	struct json_object *to = json_object_new_object();
	struct json_object *opts = json_object_new_array();
	struct json_object *features = json_object_new_array();
	struct json_object *ctls = json_object_new_array();

	json_add_string(to, "type", type->vt_name);
	json_add_string(to, "alias", type->vt_alias);
	json_add_string(to, "summary", type->vt_summary);
	json_add_string(to, "built-without", type->vt_missing);
	add_opts(opts, type, type->vt_opts);
	add_opts(opts, type, vdev_common_opts);
	json_object_object_add(to, "options", opts);
	add_features(features, type->vt_features, UINT64_MAX);
	add_features(features, vdev_common_features, common_features(type));
	json_object_object_add(to, "features", features);
	json_push_string(ctls, "status");
	for (const struct vdev_ctl *c = type->vt_ctls; c && c->usage; c++)
		json_push_string(ctls, c->usage);
	json_object_object_add(to, "commands", ctls);
	return to;
}

static void print_json(struct json_object *json)
{
	puts(json_object_to_json_string_ext(
		json, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_SPACED |
			      JSON_C_TO_STRING_NOSLASHESCAPE));
	json_object_put(json);
}

static void print_types_json(void)
{
	struct json_object *list = json_object_new_array();

	for (int i = 0; vdev_types[i]; i++)
		json_object_array_add(list, type_json(vdev_types[i]));
	print_json(list);
}

/*
 * --- The command ---
 */

static int devices(const struct cmdline *line)
{
	const struct vdev_type *type;
	struct err err;

	if (line->nr_words > 1)
		return log_usage("devices: at most one type");
	if (line->nr_words == 0) {
		if (line->json)
			print_types_json();
		else
			print_types();
		return EXIT_OK;
	}
	type = vdev_type_find(line->words[0], &err);
	if (!type)
		return log_usage("devices: %s", err.text);
	if (line->json)
		print_json(type_json(type));
	else
		print_type(type);
	return EXIT_OK;
}

const struct cmd cmd_devices = {
	.name = "devices",
	.options = " json ",
	.help = help,
	.run = devices,
};

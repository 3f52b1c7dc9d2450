/* SPDX-License-Identifier: BSD-2-Clause */
/* viodev devices: list the types, or one type's options and features. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

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

#define MAX_DEFAULT 16

/* The default, or NULL; some depend on the type. */
static const char *default_of(const struct vdev_type *type,
			      const struct opt_def *def, char buf[MAX_DEFAULT])
{
	if (strcmp(def->key, "mode") == 0)
		return type->vt_modern_only ? "modern" : "transitional";
	if (strcmp(def->key, "queue-size") != 0 || type->vt_queue_size == 0)
		return def->def;
	snprintf(buf, MAX_DEFAULT, "%u", type->vt_queue_size);
	return buf;
}

/* The features of virtqueues and transports that this type can offer. */
static uint64_t common_features(const struct vdev_type *type)
{
	return type->vt_modern_only ? VI_RING_CAPS_MODERN : UINT64_MAX;
}

/*
 * --- Text ---
 */

#define MIN_COLUMNS 40
#define NAMES       2  /* column of the names */
#define TEXTS       35 /* column of the explanations */

static unsigned nr_columns(void)
{
	struct winsize size;

	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) < 0 || size.ws_col == 0)
		return 80;
	return size.ws_col > MIN_COLUMNS ? size.ws_col : MIN_COLUMNS;
}

static void new_line(unsigned indent, unsigned *col)
{
	printf("\n%*s", (int)indent, "");
	*col = indent;
}

/* Print a paragraph indented to @indent; @col is the current column. */
static void print_words(const char *text, unsigned indent, unsigned *col)
{
	unsigned width = nr_columns();

	while (*text) {
		unsigned len = (unsigned)strcspn(text, " ");
		bool first = *col <= indent;

		if (!first && *col + 1 + len > width) {
			new_line(indent, col);
			first = true;
		}
		*col += (unsigned)printf("%*s%.*s",
					 first ? (int)(indent - *col) : 1, "",
					 (int)len, text);
		text += len;
		text += strspn(text, " ");
	}
}

/* Begin the explanation of @name. */
static void print_name(const char *name, unsigned *col)
{
	*col = (unsigned)printf("%*s%s", NAMES, "", name);
	if (*col >= TEXTS)
		new_line(TEXTS, col);
}

static void print_entry(const char *name, const char *text)
{
	unsigned col;

	print_name(name, &col);
	print_words(text, TEXTS, &col);
	putchar('\n');
}

static void print_opts(const struct vdev_type *type, const struct opt_def *def)
{
	for (; def->key; def++) {
		char buf[MAX_DEFAULT], name[80], value[40] = "";
		const char *text = default_of(type, def, buf);
		unsigned col;

		snprintf(name, sizeof(name), "%s=%s", def->key,
			 kind_name(type, def));
		if (def->required || text)
			snprintf(value, sizeof(value), "(%s)",
				 def->required ? "required" : text);
		print_name(name, &col);
		print_words(def->help ? def->help : "", TEXTS, &col);
		print_words(value, TEXTS, &col);
		putchar('\n');
	}
}

static void print_features(const virtio_capstr_t *f, uint64_t among,
			   unsigned *col)
{
	for (; f && f->vp_name; f++) {
		if (f->vp_flag & among)
			print_words(f->vp_name, NAMES, col);
	}
}

static void print_type(const struct vdev_type *type)
{
	unsigned col = 0;

	printf("%s (also %s): %s\n", type->vt_name, type->vt_alias,
	       type->vt_summary);
	printf("\noptions and defaults:\n");
	print_opts(type, type->vt_opts);
	print_opts(type, vdev_common_opts);
	printf("\nfeatures offered:\n");
	print_features(type->vt_features, UINT64_MAX, &col);
	print_features(vdev_common_features, common_features(type), &col);
	printf("\n\nviodev ctl SOCKET:\n");
	print_entry("help", "list the commands of the device");
	print_entry("status", "show the state of the device");
	for (const struct vdev_ctl *c = type->vt_ctls; c && c->usage; c++)
		print_entry(c->usage, c->help);
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
		char buf[MAX_DEFAULT];

		json_add_string(opt, "key", def->key);
		json_add_string(opt, "value", kind_name(type, def));
		json_add_string(opt, "default", default_of(type, def, buf));
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
	json_push_string(ctls, "help");
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

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * viodev as a back-end program: what management software such as libvirt
 * starts, by the conventions of QEMU's docs/interop/vhost-user.
 *
 *	vhost-user-block --fd=7 --blk-file=disk.img
 *	viodev serve --transport=vhost-user --once --fd=7 block,path=disk.img
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/util.h"
#include "dev/vdev.h"
#include "viodev/cmd.h"
#include "viodev/log.h"
#include "viodev/tempdir.h"
#include "viodev/transport.h"

static const char help[] =
	"vhost-user-TYPE [OPTIONS] [KEY=VALUE...]\n"
	"\n"
	"Serves a device to one vhost-user front-end and exits when it\n"
	"disconnects. 'viodev devices TYPE' lists the KEYs.\n"
	"\n"
	"  --socket-path=PATH    listen at PATH\n"
	"  --fd=N                use descriptor N, a socket\n"
	"  --print-capabilities  print the capabilities as JSON\n"
	"  --blk-file=PATH       block: disk image\n"
	"  --read-only           block: read-only\n"
	"  --evdev-path=PATH     input: host device\n"
	"  --dir=DIR             directory of the control socket ID.ctl\n"
	"  --sandbox=on|off      (on)\n"
	"  --verbose             log more\n";

void backend_print_capabilities(const struct vdev_type *type)
{
	static const struct {
		const char *type, *name;
	} features[] = {
		{ "block", "blk-file" },
		{ "block", "read-only" },
		{ "input", "evdev-path" },
	};
	struct json_object *all = json_object_new_object();
	struct json_object *list = json_object_new_array();

	for (unsigned i = 0; i < ARRAY_LEN(features); i++) {
		if (strcmp(features[i].type, type->vt_name) == 0)
			json_push_string(list, features[i].name);
	}
	json_add_string(all, "type", type->vt_name);
	/* Types without such features have no such member. */
	if (json_object_array_length(list) > 0)
		json_object_object_add(all, "features", list);
	else
		json_object_put(list);
	puts(json_object_to_json_string_ext(all, JSON_C_TO_STRING_PLAIN));
	json_object_put(all);
}

/* Print ",key=value" with each comma of the value doubled. */
static void print_option(FILE *to, const char *key, const char *value)
{
	if (!value)
		return;
	fprintf(to, ",%s=", key);
	for (; *value; value++) {
		if (*value == ',')
			putc(',', to);
		putc(*value, to);
	}
}

/* The device's text, which the caller frees. NULL: no memory. */
static char *device_text(const struct vdev_type *type,
			 const struct cmdline *line)
{
	size_t len;
	char *text;
	FILE *to = open_memstream(&text, &len);

	if (!to)
		return NULL;
	fputs(type->vt_name, to);
	print_option(to, "socket", line->socket_path);
	print_option(to, "path", line->blk_file);
	print_option(to, "ro", line->read_only ? "on" : NULL);
	print_option(to, "evdev", line->evdev_path);
	for (int i = 0; i < line->nr_words; i++)
		fprintf(to, ",%s", line->words[i]);
	return fclose(to) == 0 ? text : NULL;
}

/* Without --dir nobody uses the control socket. */
static int serve(struct cmdline *line)
{
	struct tempdir dir;
	int ret;

	if (line->dir)
		return cmd_serve.run(line);
	ret = tempdir_create(&dir);
	if (ret < 0)
		return log_usage("temporary directory: %s: give --dir=DIR",
				 strerror(-ret));
	line->dir = dir.path;
	ret = cmd_serve.run(line);
	tempdir_destroy(&dir);
	return ret;
}

static bool wants_capabilities(char **argv)
{
	for (; *argv; argv++) {
		if (strcmp(*argv, "--print-capabilities") == 0)
			return true;
	}
	return false;
}

int backend_main(char **argv)
{
	const struct cmd cmd = {
		.name = basename(argv[0]),
		.options = " socket-path fd blk-file read-only evdev-path dir "
			   "sandbox verbose ",
		.help = help,
	};
	const struct vdev_type *type;
	struct cmdline line;
	struct err err;
	int status;

	type = vdev_type_find(cmd.name + strlen(BACKEND_PREFIX), &err);
	if (!type)
		return log_usage("%s", err.text);
	/* Takes precedence over all other options. */
	if (wants_capabilities(argv + 1)) {
		backend_print_capabilities(type);
		return EXIT_OK;
	}
	if (cmdline_parse(&cmd, argv + 1, &line) < 0)
		return EXIT_USAGE;
	if (line.help) {
		fputs(help, stdout);
		return EXIT_OK;
	}
	log_init(NULL, line.verbose);
	if (!line.fd == !line.socket_path)
		return log_usage("%s: give one of --socket-path=PATH and "
				 "--fd=N",
				 cmd.name);
	line.transport = VIO_VHOST_USER;
	line.once = true;
	line.words = (char *[]){ device_text(type, &line), NULL };
	line.nr_words = 1;
	if (!line.words[0])
		return EXIT_FAILED;
	status = serve(&line);
	free(line.words[0]);
	return status;
}

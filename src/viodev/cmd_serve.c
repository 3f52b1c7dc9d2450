/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * viodev serve: serve devices until SIGTERM, or until all front-ends have
 * disconnected.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/json.h"
#include "viodev/cmd.h"
#include "viodev/log.h"
#include "viodev/output.h"
#include "viodev/qemu.h"
#include "viodev/sockdir.h"
#include "viodev/supervisor.h"
#include "viodev/transport.h"

static const char help[] =
	"viodev serve [OPTIONS] DEVICE...\n"
	"\n"
	"Serves virtual devices, each in its own process, until SIGTERM.\n"
	"Prints 'ready ID TYPE SOCKET' for each, then 'ready'.\n"
	"\n"
	"DEVICE is TYPE[,key=value]...; 'viodev devices' lists them. Write a\n"
	"comma inside a value twice.\n"
	"\n"
	"  --dir=DIR          directory of the sockets ID.sock and ID.ctl\n"
	"                     ($XDG_RUNTIME_DIR/viodev)\n"
	"  --transport=vfio-user|vhost-user   (vfio-user)\n"
	"  --fd=N             use descriptor N, a listening or connected "
	"socket;\n"
	"                     same as socket=fd:N\n"
	"  --once             exit when the front-end disconnects\n"
	"  --sandbox=on|off   (on)\n"
	"  --print-qemu       print the QEMU arguments that attach the "
	"devices,\n"
	"  --memory=SIZE      for a guest with SIZE of memory (1G)\n"
	"  --print-capabilities  print the vhost-user back-end capabilities\n"
	"  --json             print JSON, one object per line\n"
	"  --verbose          log more\n";

/*
 * --- What is printed ---
 */

/* Quote @word for a shell. */
static void print_word(const char *word)
{
	const char *plain = "abcdefghijklmnopqrstuvwxyz"
			    "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_=,./:";

	if (word[strspn(word, plain)] == '\0') {
		fputs(word, stdout);
		return;
	}
	putchar('\'');
	for (; *word; word++) {
		if (*word == '\'')
			fputs("'\\''", stdout);
		else
			putchar(*word);
	}
	putchar('\'');
}

static void print_json(struct json_object *line)
{
	puts(json_object_to_json_string_ext(
		line, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE));
	json_object_put(line);
}

/* Add it unless it is empty; takes the reference. */
static void add_nonempty(struct json_object *to, const char *key,
			 struct json_object *object)
{
	if (json_object_object_length(object) > 0)
		json_object_object_add(to, key, object);
	else
		json_object_put(object);
}

/* {"event": "ready", ..., "qemu": [args]} */
static void print_ready_json(const struct instance *inst, char *const qemu[])
{
	struct json_object *line = json_object_new_object();
	struct json_object *args = json_object_new_array();

	json_add_string(line, "event", "ready");
	if (inst) {
		json_add_string(line, "id", inst->id);
		json_add_string(line, "type", inst->type->vt_name);
		json_add_string(line, "socket", inst->front.path);
		json_add_string(line, "ctl", inst->ctl.path);
		add_nonempty(line, "paths",
			     vdev_paths(inst->type, inst->opts, &inst->files));
	}
	for (; qemu && *qemu; qemu++)
		json_push_string(args, *qemu);
	if (json_object_array_length(args) > 0)
		json_object_object_add(line, "qemu", args);
	else
		json_object_put(args);
	print_json(line);
}

/* Of pseudo terminals: " console=/dev/pts/3". */
static void print_paths(const struct instance *inst)
{
	struct json_object *paths =
		vdev_paths(inst->type, inst->opts, &inst->files);

	json_object_object_foreach(paths, key, path)
	{
		putchar(' ');
		print_word(key);
		printf("=%s", json_object_get_string(path));
	}
	json_object_put(paths);
}

static void print_ready_text(const struct instance *inst, char *const qemu[])
{
	if (inst) {
		printf("ready %s %s %s", inst->id, inst->type->vt_name,
		       inst->front.path);
		print_paths(inst);
		putchar('\n');
	}
	if (qemu) {
		fputs("qemu", stdout);
		for (; *qemu; qemu++) {
			putchar(' ');
			print_word(*qemu);
		}
		putchar('\n');
	}
	if (!inst)
		puts("ready");
}

static void print_ready(const struct cmdline *line, const struct instance *inst,
			char *const qemu[])
{
	if (!line->print_qemu)
		qemu = NULL;
	if (line->json)
		print_ready_json(inst, qemu);
	else
		print_ready_text(inst, qemu);
	output_flush();
}

static void on_instance_ready(void *arg, const struct instance *inst)
{
	const struct cmdline *line = arg;
	char **args = qemu_instance_args(inst, line->transport);

	print_ready(line, inst, args);
	qemu_free_args(args);
}

/* Without --json, the log has it. */
static void on_instance_waiting(void *arg, const struct instance *inst)
{
	const struct cmdline *line = arg;
	struct json_object *event;

	if (!line->json)
		return;
	/* A reader that stalls must not stall us. */
	if (!output_has_room()) {
		log_line(LOG_WARNING, "%s: standard output is full: event lost",
			 inst->id);
		return;
	}
	event = json_object_new_object();
	json_add_string(event, "event", "waiting");
	json_add_string(event, "id", inst->id);
	json_add_string(event, "ctl", inst->ctl.path);
	print_json(event);
	output_flush();
}

static void on_all_ready(void *arg)
{
	const struct cmdline *line = arg;
	char *memory = qemu_memory(line->memory_bytes ? line->memory_bytes :
							QEMU_DEFAULT_MEMORY);
	char object[] = "-object", option[] = "-machine";
	char machine[] = QEMU_MACHINE;

	print_ready(line, NULL,
		    (char *[]){ object, memory, option, machine, NULL });
	free(memory);
}

static const struct supervisor_hooks hooks = {
	.instance_ready = on_instance_ready,
	.all_ready = on_all_ready,
	.instance_waiting = on_instance_waiting,
};

/*
 * --- The command ---
 */

/*
 * The directory of the sockets; the caller frees it. NULL after a message to
 * the user.
 */
static char *socket_dir(const struct cmdline *line)
{
	const char *runtime = getenv("XDG_RUNTIME_DIR");
	struct err err;
	char *dir;

	if (line->dir) {
		dir = strdup(line->dir);
	} else if (runtime && *runtime) {
		if (asprintf(&dir, "%s/viodev", runtime) < 0)
			dir = NULL;
	} else if (geteuid() == 0) {
		dir = strdup("/run/viodev");
	} else {
		log_usage("serve: XDG_RUNTIME_DIR is not set: give --dir=DIR");
		return NULL;
	}
	if (dir && sockdir_make(dir, &err) < 0) {
		log_usage("serve: --dir=%s: %s", dir, err.text);
		free(dir);
		return NULL;
	}
	return dir;
}

static int print_capabilities(const struct cmdline *line)
{
	char type[32];
	const struct vdev_type *found;
	struct err err;

	if (line->nr_words > 1)
		return log_usage("serve: --print-capabilities: needs exactly "
				 "one device");
	snprintf(type, sizeof(type), "%.*s", (int)strcspn(line->words[0], ","),
		 line->words[0]);
	found = vdev_type_find(type, &err);
	if (!found)
		return log_usage("serve: %s", err.text);
	backend_print_capabilities(found);
	return EXIT_OK;
}

static int serve(const struct cmdline *line)
{
	static const int signals[] = { SIGTERM, SIGINT, SIGQUIT, SIGHUP, 0 };
	struct supervisor supervisor;
	char *dir = socket_dir(line);
	int status = EXIT_USAGE;

	if (!dir)
		return EXIT_USAGE;
	signal(SIGPIPE, SIG_IGN); /* our reader may have exited */
	if (supervisor_init(&supervisor, line, dir, signals, &hooks,
			    (void *)line) == 0)
		status = supervisor_run(&supervisor);
	supervisor_fini(&supervisor);
	free(dir);
	return status;
}

/* --fd=N is the device's socket=fd:N. */
static int serve_fd(const struct cmdline *line)
{
	struct cmdline changed = *line;
	char *words[2] = { NULL };
	int status;

	if (line->nr_words > 1)
		return log_usage("serve: --fd: needs exactly one device: give "
				 "each device socket=fd:N");
	if (asprintf(&words[0], "%s,socket=fd:%s", line->words[0], line->fd) <
	    0)
		return EXIT_FAILED;
	changed.words = words;
	status = serve(&changed);
	free(words[0]);
	return status;
}

static int serve_main(const struct cmdline *line)
{
	if (line->nr_words == 0)
		return log_usage(
			"serve: missing device, such as block,path=FILE or "
			"rng; see 'viodev devices'");
	if (line->print_capabilities)
		return print_capabilities(line);
	if (line->memory_bytes && !line->print_qemu)
		return log_usage("serve: --memory: only with --print-qemu, as "
				 "the guest's VMM sets the size");
	return line->fd ? serve_fd(line) : serve(line);
}

const struct cmd cmd_serve = {
	.name = "serve",
	.options =
		" transport dir sandbox once json verbose print-qemu memory fd "
		"print-capabilities ",
	.help = help,
	.run = serve_main,
};

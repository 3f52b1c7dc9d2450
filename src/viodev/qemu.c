/* SPDX-License-Identifier: BSD-2-Clause */
#include "viodev/qemu.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/*
 * --- Single arguments ---
 */

static void add_string(struct json_object *to, const char *key,
		       const char *value)
{
	json_object_object_add(to, key, json_object_new_string(value));
}

/* QEMU's names begin with a letter; ours may begin with "9p". */
static void add_id(struct json_object *to, const char *id)
{
	char name[64];

	snprintf(name, sizeof(name), "%s%s", isalpha(id[0]) ? "" : "viodev-",
		 id);
	add_string(to, "id", name);
}

char *qemu_device(const struct unit *unit)
{
	struct json_object *device = json_object_new_object();
	struct json_object *sock = json_object_new_object();
	char *text;

	add_string(sock, "type", "unix");
	add_string(sock, "path", unit->front.path);
	add_string(device, "driver", "vfio-user-pci");
	json_object_object_add(device, "socket", sock);
	add_id(device, unit->id);
	text = strdup(json_object_to_json_string_ext(
		device,
		JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE));
	json_object_put(device);
	return text;
}

/* A size with a unit: to -m a bare number would be MiB. */
static char *size_text(uint64_t bytes)
{
	static const char units[] = "BKMGT";
	int i = 0;
	char *text;

	while (bytes && bytes % 1024 == 0 && units[i + 1]) {
		bytes /= 1024;
		i++;
	}
	return asprintf(&text, "%" PRIu64 "%c", bytes, units[i]) < 0 ? NULL
								     : text;
}

char *qemu_memory(uint64_t bytes)
{
	char *size = size_text(bytes), *text;

	if (!size)
		return NULL;
	if (asprintf(&text,
		     "memory-backend-memfd,id=" QEMU_MEMORY_ID
		     ",size=%s,share=on",
		     size) < 0)
		text = NULL;
	free(size);
	return text;
}

/*
 * --- Reading a command line ---
 */

/* Whether @arg is the option @name; QEMU takes one dash or two. */
static bool is_option(const char *arg, const char *name)
{
	if (*arg++ != '-')
		return false;
	if (*arg == '-')
		arg++;
	return strcmp(arg, name) == 0;
}

/* Whether one of the comma-separated words of @value begins with @key. */
static bool has_key(const char *value, const char *key)
{
	while (value) {
		if (strncmp(value, key, strlen(key)) == 0)
			return true;
		value = strchr(value, ',');
		if (value)
			value++;
	}
	return false;
}

/* -m [size=]SIZE[,...] where a number without a unit means MiB. */
static int parse_m(const char *value, uint64_t *ret_bytes)
{
	const char *size = strstr(value, "size=");
	char text[32];
	size_t len;

	if (size && (size == value || size[-1] == ','))
		value = size + strlen("size=");
	len = strcspn(value, ",");
	if (len + 2 > sizeof(text))
		return -EINVAL;
	memcpy(text, value, len + 1);
	text[len] = '\0';
	if (strspn(text, "0123456789") == len)
		strcat(text, "M");
	return opt_parse_size(text, ret_bytes);
}

/* What a command line says about guest memory. */
struct memory_args {
	bool own;            /* it names the memory's backend itself */
	const char *m;       /* value of -m, or NULL */
	const char *refused; /* an option that cannot go with ours, or NULL */
};

static void scan(char *const args[], struct memory_args *found)
{
	*found = (struct memory_args){ 0 };
	for (; args[0] && args[1]; args++) {
		const char *value = args[1];

		if (is_option(args[0], "m"))
			found->m = value;
		else if (is_option(args[0], "machine") ||
			 is_option(args[0], "M"))
			found->own |= has_key(value, "memory-backend=");
		else if (is_option(args[0], "numa"))
			found->own |= has_key(value, "memdev=");
		else if (is_option(args[0], "mem-path"))
			found->refused = args[0];
		else
			continue;
		args++; /* the value is no option, whatever it looks like */
	}
}

int qemu_find_memory(char *const args[], uint64_t wanted, uint64_t *ret_bytes,
		     struct err *err)
{
	struct memory_args found;
	uint64_t bytes = wanted ? wanted : QEMU_DEFAULT_MEMORY;

	scan(args, &found);
	if (found.own) {
		if (wanted)
			return err_set(err, -EINVAL,
				       "--memory: the VMM's command line has "
				       "its own memory: leave one out");
		*ret_bytes = 0;
		return 0;
	}
	if (found.refused)
		return err_set(err, -EINVAL,
			       "%s: guest memory must be shared: leave it out, "
			       "or name a memory-backend with share=on",
			       found.refused);
	if (found.m && parse_m(found.m, &bytes) < 0)
		return err_set(err, -EINVAL,
			       "-m %s: cannot be read: write a whole number, "
			       "such as 512M",
			       found.m);
	if (found.m && wanted && wanted != bytes)
		return err_set(err, -EINVAL,
			       "--memory: is not what -m %s says: leave one "
			       "out",
			       found.m);
	*ret_bytes = bytes;
	return 0;
}

/*
 * --- Adding to it ---
 */

struct arg_list {
	char **args;
	int nr;
	bool failed;
};

static void append(struct arg_list *list, char *take_arg)
{
	if (take_arg)
		list->args[list->nr++] = take_arg;
	else
		list->failed = true;
}

static void append_copy(struct arg_list *list, const char *arg)
{
	append(list, strdup(arg));
}

static void append_memory(struct arg_list *list, char *const args[],
			  uint64_t bytes)
{
	struct memory_args found;

	append_copy(list, "-object");
	append(list, qemu_memory(bytes));
	/* Joins with a -machine of the user's. */
	append_copy(list, "-machine");
	append_copy(list, QEMU_MACHINE);
	scan(args, &found);
	if (!found.m) {
		append_copy(list, "-m");
		append(list, size_text(bytes));
	}
}

char **qemu_add_args(char *const args[], uint64_t memory_bytes,
		     const struct unit *units, int nr_units)
{
	struct arg_list list = { 0 };
	size_t nr = 0;

	while (args[nr])
		nr++;
	list.args = calloc(nr + 6 + 2 * (size_t)nr_units + 1, sizeof(char *));
	if (!list.args)
		return NULL;
	for (size_t i = 0; i < nr; i++)
		append_copy(&list, args[i]);
	if (memory_bytes)
		append_memory(&list, args, memory_bytes);
	for (int i = 0; i < nr_units; i++) {
		append_copy(&list, "-device");
		append(&list, qemu_device(&units[i]));
	}
	if (list.failed) {
		qemu_free_args(list.args);
		return NULL;
	}
	return list.args;
}

void qemu_free_args(char **args)
{
	if (!args)
		return;
	for (char **arg = args; *arg; arg++)
		free(*arg);
	free(args);
}

/* SPDX-License-Identifier: BSD-2-Clause */
#include "viodev/qemu.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <linux/virtio_console.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "back/net/net_be.h"
#include "base/json.h"
#include "base/util.h"
#include "viodev/transport.h"

/*
 * --- Lists of arguments ---
 */

struct arg_list {
	char **args;
	size_t nr;
	bool failed;
};

static void append(struct arg_list *list, char *take_arg)
{
	/* With room for the terminating NULL. */
	char **more =
		take_arg ? realloc(list->args, (list->nr + 2) * sizeof(*more)) :
			   NULL;

	if (!more) {
		free(take_arg);
		list->failed = true;
		return;
	}
	list->args = more;
	list->args[list->nr++] = take_arg;
	list->args[list->nr] = NULL;
}

static void append_copy(struct arg_list *list, const char *arg)
{
	append(list, strdup(arg));
}

static void append_text(struct arg_list *list, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

static void append_text(struct arg_list *list, const char *fmt, ...)
{
	char *text;
	va_list ap;

	va_start(ap, fmt);
	if (vasprintf(&text, fmt, ap) < 0)
		text = NULL;
	va_end(ap);
	append(list, text);
}

static void append_device(struct arg_list *list, struct json_object *device)
{
	append_copy(list, "-device");
	append_copy(list,
		    json_object_to_json_string_ext(
			    device, JSON_C_TO_STRING_PLAIN |
					    JSON_C_TO_STRING_NOSLASHESCAPE));
	json_object_put(device);
}

/* The finished list; NULL: out of memory. */
static char **finish(struct arg_list *list)
{
	if (!list->failed)
		return list->args;
	qemu_free_args(list->args);
	return NULL;
}

void qemu_free_args(char **args)
{
	if (!args)
		return;
	for (char **arg = args; *arg; arg++)
		free(*arg);
	free(args);
}

/*
 * --- Devices ---
 */

#define MAX_NAME 64

/* QEMU's names begin with a letter; ours may begin with "9p". */
static void qemu_name(const struct instance *inst, char name[MAX_NAME])
{
	snprintf(name, MAX_NAME, "%s%s", isalpha(inst->id[0]) ? "" : "viodev-",
		 inst->id);
}

static void append_vfio_user(struct arg_list *list, const struct instance *inst)
{
	struct json_object *device = json_object_new_object();
	struct json_object *sock = json_object_new_object();
	char name[MAX_NAME];

	qemu_name(inst, name);
	json_add_string(sock, "type", "unix");
	json_add_string(sock, "path", inst->front.path);
	json_add_string(device, "driver", "vfio-user-pci");
	json_object_object_add(device, "socket", sock);
	json_add_string(device, "id", name);
	append_device(list, device);
}

static void set_block(const struct instance *inst, struct json_object *device)
{
	/* QEMU's default is one per processor of the guest. */
	json_add_uint(device, "num-queues", opt_number(inst->opts, "queues"));
	if (opt_given(inst->opts, "queue-size"))
		json_add_uint(device, "queue-size",
			      opt_number(inst->opts, "queue-size"));
}

static void set_net(const struct instance *inst, struct json_object *device)
{
	if (opt_given(inst->opts, "mac"))
		json_add_string(device, "mac", opt_string(inst->opts, "mac"));
	if (opt_given(inst->opts, "mtu"))
		json_add_uint(device, "host_mtu",
			      opt_number(inst->opts, "mtu"));
	if (opt_given(inst->opts, "queue-size")) {
		json_add_uint(device, "rx_queue_size",
			      opt_number(inst->opts, "queue-size"));
		json_add_uint(device, "tx_queue_size",
			      opt_number(inst->opts, "queue-size"));
	}
	if (net_be_nr_queues(inst->opts) > 1)
		json_add_bool(device, "mq", true);
}

static void set_scsi(const struct instance *inst, struct json_object *device)
{
	json_add_uint(device, "num_queues", opt_number(inst->opts, "queues"));
	if (opt_given(inst->opts, "queue-size"))
		json_add_uint(device, "virtqueue_size",
			      opt_number(inst->opts, "queue-size"));
}

/* QEMU has no specific front-end for these: describe the device. */
static void set_generic(const struct instance *inst, struct json_object *device,
			uint64_t nr_queues, uint64_t config_bytes)
{
	json_add_uint(device, "virtio-id", inst->type->vt_device_id);
	json_add_uint(device, "num_vqs", nr_queues);
	json_add_uint(device, "config_size", config_bytes);
}

static void set_console(const struct instance *inst, struct json_object *device)
{
	uint64_t nr_ports = 1, room = opt_number(inst->opts, "ports");
	unsigned pos = 0;

	while (opt_next(inst->opts, "port.**", &pos))
		nr_ports++;
	if (room > nr_ports)
		nr_ports = room;
	/* With more than one port, two more queues for control. */
	set_generic(inst, device, nr_ports > 1 ? 2 * nr_ports + 2 : 2,
		    sizeof(struct virtio_console_config));
}

static void set_9p(const struct instance *inst, struct json_object *device)
{
	set_generic(inst, device, 1,
		    sizeof(uint16_t) + strlen(opt_string(inst->opts, "tag")));
}

/* QEMU's front-ends for vhost-user. */
static const struct front_end {
	const char *type, *driver;
	bool reconnects; /* continues with a restarted process */
	void (*set)(const struct instance *inst, struct json_object *device);
} front_ends[] = {
	{ "block", "vhost-user-blk-pci", true, set_block },
	{ "net", "virtio-net-pci", true, set_net },
	{ "scsi", "vhost-user-scsi-pci", true, set_scsi },
	{ "rng", "vhost-user-rng-pci" },
	{ "input", "vhost-user-input-pci" },
	{ "console", "vhost-user-test-device-pci", .set = set_console },
	{ "9p", "vhost-user-test-device-pci", .set = set_9p },
};

/* NULL: QEMU has none, but other VMMs may. */
static const struct front_end *find_front_end(const struct instance *inst)
{
	for (size_t i = 0; i < ARRAY_LEN(front_ends); i++) {
		if (strcmp(front_ends[i].type, inst->type->vt_name) == 0)
			return &front_ends[i];
	}
	return NULL;
}

/* QEMU's lists of key=value double a comma. */
static void append_chardev(struct arg_list *list, const char *name,
			   const char *path, bool reconnects)
{
	char *quoted = malloc(2 * strlen(path) + 1), *to = quoted;

	if (!quoted) {
		list->failed = true;
		return;
	}
	do {
		if (*path == ',')
			*to++ = ',';
	} while ((*to++ = *path++));
	append_copy(list, "-chardev");
	append_text(list, "socket,id=%s-socket,path=%s%s", name, quoted,
		    reconnects ? ",reconnect-ms=100" : "");
	free(quoted);
}

static void append_vhost_user(struct arg_list *list,
			      const struct instance *inst)
{
	const struct front_end *f = find_front_end(inst);
	struct json_object *device;
	char name[MAX_NAME], backend[MAX_NAME + 8];
	bool is_net;

	if (!f)
		return;
	device = json_object_new_object();
	is_net = f->set == set_net;
	qemu_name(inst, name);
	append_chardev(list, name, inst->front.path, f->reconnects);
	snprintf(backend, sizeof(backend), "%s-%s", name,
		 is_net ? "net" : "socket");
	if (is_net) {
		append_copy(list, "-netdev");
		append_text(list,
			    "vhost-user,id=%s,chardev=%s-socket,queues=%u",
			    backend, name, net_be_nr_queues(inst->opts));
	}
	json_add_string(device, "driver", f->driver);
	json_add_string(device, is_net ? "netdev" : "chardev", backend);
	json_add_string(device, "id", name);
	if (opt_bool(inst->opts, "packed"))
		json_add_bool(device, "packed", true); /* is off in QEMU, */
	if (opt_bool(inst->opts, "in-order"))
		json_add_bool(device, "in_order", true); /* and so is this */
	if (f->set)
		f->set(inst, device);
	append_device(list, device);
}

static void append_instance(struct arg_list *list, const struct instance *inst,
			    enum vio_protocol transport)
{
	if (transport == VIO_VHOST_USER)
		append_vhost_user(list, inst);
	else
		append_vfio_user(list, inst);
}

char **qemu_instance_args(const struct instance *inst,
			  enum vio_protocol transport)
{
	struct arg_list list = { 0 };

	append_instance(&list, inst, transport);
	return finish(&list);
}

/*
 * --- Memory ---
 */

/* A size with a unit, as -m reads a bare number as MiB. */
static char *size_text(uint64_t bytes)
{
	static const char units[] = "BKMGT";
	int i = 0;
	char *text;

	while (bytes && bytes % 1024 == 0 && units[i + 1]) {
		bytes /= 1024;
		i++;
	}
	return asprintf(&text, "%" PRIu64 "%c", bytes, units[i]) < 0 ? NULL :
								       text;
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
	bool own;            /* it names a memory backend itself */
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
		args++; /* a value is never an option */
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
				       "--memory: the VMM's command line "
				       "configures memory: omit one");
		*ret_bytes = 0;
		return 0;
	}
	if (found.refused)
		return err_set(err, -EINVAL,
			       "%s: guest memory must be shared: omit it, or "
			       "name a memory-backend with share=on",
			       found.refused);
	if (found.m && parse_m(found.m, &bytes) < 0)
		return err_set(err, -EINVAL,
			       "-m %s: must be a whole number, such as 512M",
			       found.m);
	if (found.m && wanted && wanted != bytes)
		return err_set(err, -EINVAL,
			       "--memory: conflicts with -m %s: omit one",
			       found.m);
	*ret_bytes = bytes;
	return 0;
}

/*
 * --- Adding to it ---
 */

static void append_memory(struct arg_list *list, char *const args[],
			  uint64_t bytes)
{
	struct memory_args found;

	append_copy(list, "-object");
	append(list, qemu_memory(bytes));
	/* QEMU merges this with a -machine of the user's. */
	append_copy(list, "-machine");
	append_copy(list, QEMU_MACHINE);
	scan(args, &found);
	if (!found.m) {
		append_copy(list, "-m");
		append(list, size_text(bytes));
	}
}

char **qemu_add_args(char *const args[], uint64_t memory_bytes,
		     const struct instance *instances, int nr_instances,
		     enum vio_protocol transport)
{
	struct arg_list list = { 0 };

	for (size_t i = 0; args[i]; i++)
		append_copy(&list, args[i]);
	if (memory_bytes)
		append_memory(&list, args, memory_bytes);
	for (int i = 0; i < nr_instances; i++)
		append_instance(&list, &instances[i], transport);
	return finish(&list);
}

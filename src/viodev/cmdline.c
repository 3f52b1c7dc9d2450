/* SPDX-License-Identifier: BSD-2-Clause */
/* Options of the commands: --name, --name=value or --name value. */
#include "viodev/cmd.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/suggest.h"
#include "base/opts.h"
#include "viodev/log.h"
#include "viodev/transport.h"

struct option {
	const char *name;
	const char *value; /* placeholder in the help; NULL: no value */
	/* Returns false if the value is invalid. */
	bool (*set)(struct cmdline *line, const char *value);
};

static bool set_transport(struct cmdline *line, const char *value)
{
	return transport_find(value, &line->transport);
}

static bool set_dir(struct cmdline *line, const char *value)
{
	line->dir = value;
	return *value;
}

static bool set_sandbox(struct cmdline *line, const char *value)
{
	line->sandbox = strcmp(value, "off") != 0;
	return !line->sandbox || strcmp(value, "on") == 0;
}

static bool set_memory(struct cmdline *line, const char *value)
{
	return opt_parse_size(value, &line->memory_bytes) == 0 &&
	       line->memory_bytes > 0;
}

static bool set_once(struct cmdline *line, const char *value)
{
	return line->once = true;
}

static bool set_json(struct cmdline *line, const char *value)
{
	return line->json = true;
}

static bool set_verbose(struct cmdline *line, const char *value)
{
	return line->verbose = true;
}

static bool set_print_qemu(struct cmdline *line, const char *value)
{
	return line->print_qemu = true;
}

static bool set_print_capabilities(struct cmdline *line, const char *value)
{
	return line->print_capabilities = true;
}

static bool set_socket_path(struct cmdline *line, const char *value)
{
	line->socket_path = value;
	return *value;
}

static bool set_blk_file(struct cmdline *line, const char *value)
{
	line->blk_file = value;
	return *value;
}

static bool set_evdev_path(struct cmdline *line, const char *value)
{
	line->evdev_path = value;
	return *value;
}

static bool set_read_only(struct cmdline *line, const char *value)
{
	return line->read_only = true;
}

static bool set_fd(struct cmdline *line, const char *value)
{
	line->fd = value;
	return *value && strspn(value, "0123456789") == strlen(value);
}

static bool set_help(struct cmdline *line, const char *value)
{
	return line->help = true;
}

static const struct option options[] = {
	{ "help", NULL, set_help },
	{ "transport", "vfio-user or vhost-user", set_transport },
	{ "dir", "DIR", set_dir },
	{ "sandbox", "on or off", set_sandbox },
	{ "memory", "a size such as 512M or 2G", set_memory },
	{ "once", NULL, set_once },
	{ "json", NULL, set_json },
	{ "verbose", NULL, set_verbose },
	{ "print-qemu", NULL, set_print_qemu },
	{ "print-capabilities", NULL, set_print_capabilities },
	{ "fd", "a file descriptor number", set_fd },
	{ "socket-path", "PATH", set_socket_path },
	{ "blk-file", "PATH", set_blk_file },
	{ "evdev-path", "PATH", set_evdev_path },
	{ "read-only", NULL, set_read_only },
	{ 0 },
};

static bool takes(const struct cmd *cmd, const char *name)
{
	char word[40];

	if (strcmp(name, "help") == 0)
		return true;
	snprintf(word, sizeof(word), " %s ", name);
	return strstr(cmd->options, word);
}

/* @dash is its prefix. */
static int unknown_option(const struct cmd *cmd, const char *dash,
			  const char *name)
{
	struct suggestion near = { .word = name };

	for (const struct option *o = options; o->name; o++) {
		if (takes(cmd, o->name))
			suggest_try(&near, o->name);
	}
	if (near.best)
		log_usage("%s: no such option %s%s: did you mean --%s?",
			  cmd->name, dash, name, near.best);
	else
		log_usage("%s: no such option %s%s: see '%s%s --help'",
			  cmd->name, dash, name, cmd->run ? "viodev " : "",
			  cmd->name);
	return -1;
}

static int bad_value(const struct cmd *cmd, const struct option *o,
		     const char *value)
{
	log_usage("%s: --%s=%s: must be %s", cmd->name, o->name, value,
		  o->value);
	return -1;
}

/* @text is what follows the "--"; @argv the words after it. */
static int parse_option(const struct cmd *cmd, const char *text, char ***argv,
			struct cmdline *line)
{
	const char *value = strchr(text, '=');
	const struct option *o;
	char name[32];

	snprintf(name, sizeof(name), "%.*s", (int)strcspn(text, "="), text);
	for (o = options; o->name && strcmp(o->name, name) != 0; o++)
		;
	if (!o->name || !takes(cmd, name))
		return unknown_option(cmd, "--", name);
	if (value && !o->value) {
		log_usage("%s: --%s takes no value", cmd->name, name);
		return -1;
	}
	if (value)
		value++;
	else if (o->value && **argv)
		value = *(*argv)++;
	if (!value && o->value) {
		log_usage("%s: --%s: missing value, write --%s=VALUE",
			  cmd->name, name, name);
		return -1;
	}
	return o->set(line, value) ? 0 : bad_value(cmd, o, value);
}

/* "-h"; the other options have long names alone, and "-5" is a word. */
static int parse_short_option(const struct cmd *cmd, const char *text,
			      struct cmdline *line)
{
	if (strcmp(text, "h") != 0)
		return unknown_option(cmd, "-", text);
	line->help = true;
	return 0;
}

static bool is_short_option(const char *arg)
{
	return arg[0] == '-' && isalpha((unsigned char)arg[1]);
}

/* A --WORD for the device, not an option of the command. */
static bool is_flag(const struct cmd *cmd, const struct cmdline *line,
		    const char *arg)
{
	return cmd->flags_at && line->nr_words >= cmd->flags_at &&
	       !takes(cmd, arg + 2) && strcmp(arg, "--help") != 0;
}

static bool is_option(const struct cmd *cmd, const struct cmdline *line,
		      const char *arg)
{
	return strncmp(arg, "--", 2) == 0 && !is_flag(cmd, line, arg);
}

int cmdline_parse(const struct cmd *cmd, char **argv, struct cmdline *line)
{
	*line = (struct cmdline){
		.transport = VIO_VFIO_USER,
		.sandbox = true,
		.words = argv,
	};

	while (*argv) {
		char *arg = *argv++;
		int ret = 0;

		if (cmd->vmm && strcmp(arg, "--") == 0) {
			line->vmm = argv;
			break;
		}
		if (is_option(cmd, line, arg))
			ret = parse_option(cmd, arg + 2, &argv, line);
		else if (is_short_option(arg))
			ret = parse_short_option(cmd, arg + 1, line);
		else /* never overtakes the reader */
			line->words[line->nr_words++] = arg;
		if (ret < 0)
			return -1;
	}
	line->words[line->nr_words] = NULL;
	return 0;
}

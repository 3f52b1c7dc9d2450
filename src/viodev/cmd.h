/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The command's parts: what `viodev WORD` runs, and what all of them share.
 */
#ifndef VIODEV_CMD_H
#define VIODEV_CMD_H

#include <stdbool.h>
#include <stdint.h>

/* Exit status of all commands. */
enum {
	EXIT_OK = 0,
	EXIT_FAILED = 1, /* a device failed */
	EXIT_USAGE = 2,  /* wrong usage, or a resource that cannot be opened */
};

struct transport;

/* A parsed command line. */
struct cmdline {
	const struct transport *transport;
	const char *dir; /* NULL: not given */
	bool sandbox;
	bool once;
	bool json;
	bool verbose;
	bool print_qemu;
	uint64_t memory_bytes; /* 0: not given */
	char **words;          /* what is no option; NULL-terminated */
	int nr_words;
	char **vmm; /* what follows `--`, of run; NULL-terminated or NULL */
};

struct cmd {
	const char *name;
	const char *options; /* names of those it takes, " dir json " */
	bool vmm;            /* takes `-- VMM [ARG...]` */
	const char *help;
	int (*run)(const struct cmdline *line); /* returns the exit status */
};

extern const struct cmd cmd_serve, cmd_run, cmd_devices, cmd_ctl;

/*
 * Parse what follows the command's name. Returns 0, or -1 after a line to the
 * user that says what to do. --help prints and exits. @argv is reordered;
 * words point into it.
 */
int cmdline_parse(const struct cmd *cmd, char **argv, struct cmdline *line);

/* Make the directory for sockets, when there is none. -1 with errno. */
int cmd_make_dir(const char *path);

/* A device process: the command runs itself with this as its first argument. */
#define CHILD_WORD "device-process"
int child_main(int argc, char **argv);

#endif

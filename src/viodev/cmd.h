/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The command's parts: what `viodev WORD` runs, and what all of them share.
 */
#ifndef VIODEV_CMD_H
#define VIODEV_CMD_H

#include <stdbool.h>
#include <stdint.h>

#include <viodev/server.h>

/* Exit status of all commands. */
enum {
	EXIT_OK = 0,
	EXIT_FAILED = 1, /* a device failed */
	EXIT_USAGE = 2,  /* wrong usage, or a resource that cannot be opened */
};

struct vdev_type;

/* A parsed command line. */
struct cmdline {
	enum vio_protocol transport;
	const char *dir; /* NULL: not given */
	bool help;       /* print it, and nothing else */
	bool sandbox;
	bool once;
	bool json;
	bool verbose;
	bool print_qemu;
	bool print_capabilities;
	const char *fd; /* the one device's socket; NULL: not given */
	/* Of a back-end program. */
	const char *socket_path, *blk_file, *evdev_path;
	bool read_only;
	uint64_t memory_bytes; /* 0: not given */
	char **words;          /* what is no option; NULL-terminated */
	int nr_words;
	char **vmm; /* what follows `--`, of run; NULL-terminated or NULL */
};

struct cmd {
	const char *name;
	const char *options; /* names of those it takes, " dir json " */
	bool vmm;            /* takes `-- VMM [ARG...]` */
	int flags_at; /* --WORDs behind so many words are words; 0: none are */
	const char *help;
	int (*run)(const struct cmdline *line); /* returns the exit status */
};

extern const struct cmd cmd_serve, cmd_run, cmd_devices, cmd_ctl;

/*
 * Parse what follows the command's name. Returns 0, or -1 after a line to the
 * user that says what to do. @argv is reordered; words point into it.
 */
int cmdline_parse(const struct cmd *cmd, char **argv, struct cmdline *line);

/* What a program called vhost-user-TYPE runs; see backend.c. */
#define BACKEND_PREFIX "vhost-user-"
int backend_main(char **argv);
void backend_print_capabilities(const struct vdev_type *type);

/* A device process: the command runs itself with this as its first argument. */
#define CHILD_WORD "device-process"
int child_main(int argc, char **argv);

#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/* viodev: virtio devices for virtual machines, each in a process of its own. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <viodev/version.h>

#include "base/suggest.h"
#include "viodev/cmd.h"
#include "viodev/log.h"

static const char help[] =
	"viodev: virtio devices for virtual machines, each in a sandboxed "
	"process\n"
	"\n"
	"  viodev serve [OPTIONS] DEVICE...                  serve until "
	"SIGTERM\n"
	"  viodev run [OPTIONS] DEVICE... -- VMM [ARG...]    run a VMM with "
	"devices\n"
	"  viodev devices [TYPE]                             list device "
	"types\n"
	"  viodev ctl SOCKET COMMAND...                      control a device\n"
	"\n"
	"Each command takes --help. 'viodev --version' prints the version.\n"
	"See viodev(1).\n";

static const struct cmd *const cmds[] = {
	&cmd_serve, &cmd_run, &cmd_devices, &cmd_ctl, NULL,
};

static int unknown_command(const char *word)
{
	struct suggestion near = { .word = word };

	for (int i = 0; cmds[i]; i++)
		suggest_try(&near, cmds[i]->name);
	return log_usage("no such command '%s': did you mean '%s'?", word,
			 near.best ? near.best : "viodev --help");
}

/* Or a socket might get the number that the log is written to. */
static void open_missing_stdio(void)
{
	int fd;

	do {
		fd = open("/dev/null", O_RDWR);
	} while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd >= 0)
		close(fd);
}

static int run_cmd(const struct cmd *cmd, char **argv)
{
	struct cmdline line;

	if (cmdline_parse(cmd, argv, &line) < 0)
		return EXIT_USAGE;
	log_init(NULL, line.verbose);
	return cmd->run(&line);
}

int main(int argc, char **argv)
{
	open_missing_stdio();
	if (argc > 0 && strncmp(basename(argv[0]), BACKEND_PREFIX,
				strlen(BACKEND_PREFIX)) == 0)
		return backend_main(argv);
	if (argc < 2)
		return log_usage("missing command: serve, run, devices or ctl; "
				 "see 'viodev --help'");
	if (strcmp(argv[1], "--help") == 0) {
		fputs(help, stdout);
		return EXIT_OK;
	}
	if (strcmp(argv[1], "--version") == 0) {
		printf("viodev %s\n", vio_version());
		return EXIT_OK;
	}
	if (strcmp(argv[1], CHILD_WORD) == 0)
		return child_main(argc - 2, argv + 2);
	for (int i = 0; cmds[i]; i++) {
		if (strcmp(argv[1], cmds[i]->name) == 0)
			return run_cmd(cmds[i], argv + 2);
	}
	return unknown_command(argv[1]);
}

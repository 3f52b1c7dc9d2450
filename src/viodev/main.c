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
#include "viodev/output.h"

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
	"  viodev help [COMMAND]                             explain a "
	"command\n"
	"\n"
	"'viodev --version' prints the version. See viodev(1).\n";

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

static const struct cmd *find_cmd(const char *word)
{
	for (int i = 0; cmds[i]; i++) {
		if (strcmp(word, cmds[i]->name) == 0)
			return cmds[i];
	}
	return NULL;
}

static int print_help(const char *word)
{
	const struct cmd *cmd = word ? find_cmd(word) : NULL;

	if (word && !cmd)
		return unknown_command(word);
	fputs(cmd ? cmd->help : help, stdout);
	return EXIT_OK;
}

/* Otherwise a socket might get the number that the log is written to. */
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
	if (line.help)
		return print_help(cmd->name);
	log_init(NULL, line.verbose);
	return cmd->run(&line);
}

static bool is_one_of(const char *word, const char *brief, const char *full)
{
	return strcmp(word, brief) == 0 || strcmp(word, full) == 0;
}

static int run_word(char **argv)
{
	const struct cmd *cmd = find_cmd(argv[0]);

	if (cmd)
		return run_cmd(cmd, argv + 1);
	if (strcmp(argv[0], "help") == 0)
		return print_help(argv[1]);
	if (is_one_of(argv[0], "-h", "--help"))
		return print_help(NULL);
	if (is_one_of(argv[0], "-V", "--version")) {
		printf("viodev %s\n", vio_version());
		return EXIT_OK;
	}
	return unknown_command(argv[0]);
}

/* Output that did not arrive fails the command. */
static int flush_stdout(int status)
{
	int ret = output_flush();

	if (ret == 0 || status != EXIT_OK)
		return status;
	return EXIT_FAILED;
}

int main(int argc, char **argv)
{
	open_missing_stdio();
	if (argc > 0 && strncmp(basename(argv[0]), BACKEND_PREFIX,
				strlen(BACKEND_PREFIX)) == 0)
		return flush_stdout(backend_main(argv));
	if (argc < 2)
		return log_usage("missing command: serve, run, devices or ctl; "
				 "see 'viodev --help'");
	if (strcmp(argv[1], CHILD_WORD) == 0)
		return child_main(argc - 2, argv + 2);
	return flush_stdout(run_word(argv + 1));
}

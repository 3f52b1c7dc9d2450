/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * viodev run: serve devices for one VMM. It is started once all devices serve,
 * and they end with it.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "viodev/cmd.h"
#include "viodev/log.h"
#include "viodev/qemu.h"
#include "viodev/sockdir.h"
#include "viodev/supervisor.h"
#include "viodev/tempdir.h"
#include "viodev/transport.h"

static const char help[] =
	"viodev run [OPTIONS] DEVICE... -- VMM [ARG...]\n"
	"\n"
	"Starts the devices, then the VMM (QEMU 10.1 or newer) with added\n"
	"arguments that attach them. Exits with the status of the VMM.\n"
	"\n"
	"  --memory=SIZE      guest memory (default: -m, or 1G)\n"
	"  --dir=DIR          directory of the sockets ID.sock and ID.ctl\n"
	"                     (default: a temporary directory)\n"
	"  --transport=vfio-user|vhost-user   (vfio-user)\n"
	"  --once             exit each device when the VMM disconnects\n"
	"  --sandbox=on|off   (on)\n"
	"  --verbose          log more\n";

static const int signals[] = {
	SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, 0,
};

struct run {
	const struct cmdline *line;
	struct supervisor supervisor;
	uint64_t memory_bytes;
	pid_t vmm; /* 0: does not run */
	int vmm_status;
};

/*
 * --- The VMM ---
 */

/* Whether this is a QEMU with the front-end; otherwise logs the reason. */
static bool has_front_end(char *vmm, enum vio_protocol transport)
{
	bool vhost = transport == VIO_VHOST_USER;
	char device[] = "-device", vfio_help[] = "vfio-user-pci,help";
	char vhost_help[] = "vhost-user-blk-pci,help";
	char *argv[] = { vmm, device, vhost ? vhost_help : vfio_help, NULL };
	posix_spawn_file_actions_t files;
	int wait_status, ret;
	pid_t pid;

	posix_spawn_file_actions_init(&files);
	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
		posix_spawn_file_actions_addopen(&files, fd, "/dev/null",
						 O_RDWR, 0);
	ret = posix_spawnp(&pid, vmm, &files, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&files);
	if (ret != 0) {
		log_usage("run: %s: %s", vmm, strerror(ret));
		return false;
	}
	if (waitpid(pid, &wait_status, 0) == pid && wait_status == 0)
		return true;
	log_usage("run: %s: no %s: needs QEMU 10.1 or newer", vmm,
		  vhost ? "vhost-user-blk-pci" : "vfio-user-pci");
	return false;
}

static _Noreturn void exec_vmm(const struct run *run, char **argv)
{
	/* A VMM without its devices is of no use. */
	prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	sigprocmask(SIG_SETMASK, &run->supervisor.old_mask, NULL);
	execvp(argv[0], argv);
	log_usage("run: %s: %s", argv[0], strerror(errno));
	_exit(EXIT_USAGE);
}

static void start_vmm(void *arg)
{
	struct run *run = arg;
	char **argv = qemu_add_args(
		run->line->vmm, run->memory_bytes, run->supervisor.instances,
		run->supervisor.nr_instances, run->line->transport);

	run->vmm = argv ? fork() : -1;
	if (run->vmm == 0)
		exec_vmm(run, argv);
	if (run->vmm < 0) {
		log_line(LOG_ERR, "run: %s: cannot start: %s",
			 run->line->vmm[0], strerror(errno));
		run->vmm = 0;
		run->supervisor.status = EXIT_FAILED;
		supervisor_stop(&run->supervisor);
	}
	/* Devices may end before the VMM. */
	run->supervisor.hold = run->vmm != 0;
	qemu_free_args(argv);
}

/* The status as a shell reports it. */
static int exit_status(int wait_status)
{
	return WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) :
					128 + WTERMSIG(wait_status);
}

static void on_vmm_end(void *arg, pid_t pid, int wait_status)
{
	struct run *run = arg;

	if (pid != run->vmm)
		return;
	run->vmm = 0;
	run->vmm_status = exit_status(wait_status);
	run->supervisor.hold = false;
	supervisor_stop(&run->supervisor);
}

/* The VMM decides what a signal does. */
static bool pass_signal(void *arg, const struct signalfd_siginfo *info)
{
	struct run *run = arg;

	if (run->vmm == 0)
		return false;
	/*
	 * The terminal's keys (SI_KERNEL) signal the VMM as well. A hang-up
	 * signals the session leader alone, which may be us.
	 */
	if (info->ssi_code != SI_KERNEL || info->ssi_signo == SIGHUP)
		kill(run->vmm, (int)info->ssi_signo);
	return true;
}

/*
 * --- The command ---
 */

static void on_instance_ready(void *arg, const struct instance *inst)
{
	log_line(LOG_INFO, "%s: serving at %s, control at %s", inst->id,
		 inst->front.path, inst->ctl.path);
}

static const struct supervisor_hooks hooks = {
	.instance_ready = on_instance_ready,
	.all_ready = start_vmm,
	.other_died = on_vmm_end,
	.signalled = pass_signal,
};

static int run_in(struct run *run, const char *dir)
{
	int status = EXIT_USAGE;

	if (supervisor_init(&run->supervisor, run->line, dir, signals, &hooks,
			    run) == 0)
		status = supervisor_run(&run->supervisor);
	supervisor_fini(&run->supervisor);
	return run->vmm_status ? run->vmm_status : status;
}

static int run_in_tempdir(struct run *run)
{
	struct tempdir dir;
	int ret = tempdir_create(&dir);

	if (ret < 0)
		return log_usage("run: temporary directory: %s: give --dir=DIR",
				 strerror(-ret));
	ret = run_in(run, dir.path);
	tempdir_destroy(&dir);
	return ret;
}

static int run_main(const struct cmdline *line)
{
	struct run run = { .line = line };
	struct err err;

	if (line->nr_words == 0)
		return log_usage("run: missing device before --, such as "
				 "block,path=FILE or rng");
	if (!line->vmm || !line->vmm[0])
		return log_usage("run: missing VMM: write viodev run DEVICE... "
				 "-- qemu-system-x86_64 ...");
	if (qemu_find_memory(line->vmm + 1, line->memory_bytes,
			     &run.memory_bytes, &err) < 0)
		return log_usage("run: %s", err.text);
	if (!has_front_end(line->vmm[0], line->transport))
		return EXIT_USAGE;
	if (!line->dir)
		return run_in_tempdir(&run);
	if (sockdir_make(line->dir, &err) < 0)
		return log_usage("run: --dir=%s: %s", line->dir, err.text);
	return run_in(&run, line->dir);
}

const struct cmd cmd_run = {
	.name = "run",
	.options = " transport dir sandbox once verbose memory ",
	.vmm = true,
	.help = help,
	.run = run_main,
};

/* SPDX-License-Identifier: BSD-2-Clause */
#include "viodev/supervisor.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "viodev/identity.h"
#include "back/chardev/chardev.h"
#include "viodev/log.h"
#include "viodev/resolver.h"
#include "viodev/spawn.h"
#include "viodev/tree_again.h"

#define NS_PER_MS      UINT64_C(1000000)
#define BACKOFF_MIN_NS (100 * NS_PER_MS)
#define BACKOFF_MAX_NS (5000 * NS_PER_MS)
#define PATIENCE_NS    (5000 * NS_PER_MS)
#define GIVE_UP_NS     (2000 * NS_PER_MS)
#define SAME_STOP_NS   (1000 * NS_PER_MS)
#define WAITING_MAX    16 /* events within WAITING_NS */
#define WAITING_NS     (60000 * NS_PER_MS)

/*
 * --- Stop ---
 */

static void stop_when_all_ended(struct supervisor *sup)
{
	if (sup->hold)
		return;
	for (int i = 0; i < sup->nr_instances; i++) {
		if (sup->instances[i].pid || sup->instances[i].restart_pending)
			return;
	}
	vio_loop_stop(sup->loop);
}

void supervisor_stop(struct supervisor *sup)
{
	if (sup->stopping)
		return;
	sup->stopping = true;
	sup->stop_ns = vio_now_ns();
	for (int i = 0; i < sup->nr_instances; i++) {
		struct instance *inst = &sup->instances[i];

		vio_timer_set(inst->restart_timer, 0);
		inst->restart_pending = false;
		if (inst->pid)
			kill(inst->pid, SIGTERM);
	}
	vio_timer_set(sup->kill_timer, PATIENCE_NS);
	stop_when_all_ended(sup);
}

static void kill_all(struct supervisor *sup)
{
	for (int i = 0; i < sup->nr_instances; i++) {
		if (sup->instances[i].pid)
			kill(sup->instances[i].pid, SIGKILL);
	}
	sup->killed = true;
	vio_timer_set(sup->kill_timer, GIVE_UP_NS);
}

/* A process that waits for a dead disk in the kernel cannot be killed. */
static void give_up(struct supervisor *sup)
{
	for (int i = 0; i < sup->nr_instances; i++) {
		const struct instance *inst = &sup->instances[i];

		if (inst->pid)
			log_line(LOG_ERR,
				 "%s: process %d survives SIGKILL (hung "
				 "disk?): left behind",
				 inst->id, (int)inst->pid);
	}
	sup->status = sup->status ? sup->status : EXIT_FAILED;
	vio_loop_stop(sup->loop);
}

/* Some processes have not ended in time. */
static void on_kill_timer(void *arg)
{
	struct supervisor *sup = arg;

	if (sup->killed)
		give_up(sup);
	else
		kill_all(sup);
}

/*
 * --- An instance's process ---
 */

static void announce(struct supervisor *sup)
{
	while (sup->nr_announced < sup->nr_instances &&
	       sup->instances[sup->nr_announced].ready) {
		sup->hooks->instance_ready(sup->arg,
					   &sup->instances[sup->nr_announced]);
		if (++sup->nr_announced == sup->nr_instances)
			sup->hooks->all_ready(sup->arg);
	}
}

static void close_news(struct instance *inst)
{
	if (inst->news_fd < 0)
		return;
	vio_source_remove(inst->news_source);
	inst->news_source = NULL;
	close(inst->news_fd);
	inst->news_fd = -1;
}

/* A compromised device, or its guest, must not flood the reader. */
static bool may_say_waiting(struct instance *inst)
{
	uint64_t now = vio_now_ns();

	if (now - inst->waiting_ns >= WAITING_NS) {
		inst->waiting_ns = now;
		inst->nr_waiting = 0;
	}
	return inst->nr_waiting++ < WAITING_MAX;
}

static void take_news(struct instance *inst, char news)
{
	struct supervisor *sup = inst->supervisor;

	if (news == NEWS_READY && !inst->ready) {
		inst->ready = true;
		if (!sup->stopping)
			announce(sup);
	} else if (news == NEWS_WAITING && sup->hooks->instance_waiting &&
		   may_say_waiting(inst)) {
		sup->hooks->instance_waiting(sup->arg, inst);
	}
}

/* End of file means that the process is dead: SIGCHLD follows. */
static void on_news(void *arg, uint32_t events)
{
	struct instance *inst = arg;
	char news[16];
	ssize_t n;

	if (inst->news_fd < 0)
		return;
	n = read(inst->news_fd, news, sizeof(news));
	for (ssize_t i = 0; i < n; i++)
		take_news(inst, news[i]);
	if (n == 0 || (n < 0 && errno != EAGAIN))
		close_news(inst);
}

/* Exponential back-off while the process keeps dying early. */
static void restart_later(struct instance *inst)
{
	if (vio_now_ns() - inst->start_ns > 2 * BACKOFF_MAX_NS)
		inst->backoff_ns = 0;
	if (inst->backoff_ns == 0)
		inst->backoff_ns = BACKOFF_MIN_NS;
	else if (inst->backoff_ns < BACKOFF_MAX_NS)
		inst->backoff_ns *= 2;
	inst->restart_pending = true;
	vio_timer_set(inst->restart_timer, inst->backoff_ns);
}

static int spawn(struct instance *inst)
{
	const struct cmdline *line = inst->supervisor->line;
	const struct resolver *resolver = inst->supervisor->resolver;
	struct spawn_params params = {
		.transport = line->transport,
		.sandbox = line->sandbox,
		.once = line->once,
		.verbose = line->verbose,
		.identity = identity_of(inst, line),
		.root = resolver ? resolver_root(resolver) : NULL,
	};
	pid_t pid = spawn_instance(inst, &params, &inst->news_fd);
	int ret;

	/* The peer must see when the process ends. */
	if (inst->front.kind != SOCK_LISTENS)
		sock_disconnect(&inst->front);
	if (pid < 0)
		return pid;
	inst->pid = pid;
	if (inst->tree_again)
		tree_again_set_process(inst->tree_again, pid, line->sandbox);
	inst->ready = false;
	ret = vio_fd_add(inst->supervisor->loop, inst->news_fd, EPOLLIN,
			 on_news, inst, &inst->news_source);
	if (ret < 0)
		kill(pid, SIGKILL);
	return ret;
}

static bool is_absent(int error)
{
	return error == -ENOENT || error == -ECONNREFUSED || error == -EAGAIN;
}

/* A device that connects starts later if nobody listens yet. */
static int start(struct instance *inst)
{
	int ret = 0;

	inst->start_ns = vio_now_ns();
	if (inst->restarted &&
	    vdev_reopen(inst->type, inst->opts, &inst->files) == -EAGAIN) {
		log_line(inst->backoff_ns > BACKOFF_MIN_NS ? LOG_INFO :
							     LOG_WARNING,
			 "%s: waiting for its host device", inst->id);
		restart_later(inst);
		return 0;
	}
	if (inst->front.kind == SOCK_CONNECTS)
		ret = sock_connect(&inst->front);
	if (ret == 0)
		return spawn(inst);
	if (!is_absent(ret))
		return ret;
	log_line(inst->backoff_ns ? LOG_INFO : LOG_WARNING,
		 "%s: waiting for a front-end at %s", inst->id,
		 inst->front.path);
	restart_later(inst);
	return 0;
}

static void on_restart_timer(void *arg)
{
	struct instance *inst = arg;
	int ret;

	inst->restart_pending = false;
	inst->restarted = true;
	ret = start(inst);
	if (ret < 0) {
		log_line(LOG_ERR, "%s: cannot restart: %s", inst->id,
			 strerror(-ret));
		inst->supervisor->status = EXIT_FAILED;
		stop_when_all_ended(inst->supervisor);
	}
}

/* SIGKILL; a real-time signal has no name, but a number. */
static void signal_name(int signo, char name[20])
{
	const char *abbrev = sigabbrev_np(signo);

	if (abbrev)
		snprintf(name, 20, "SIG%s", abbrev);
	else
		snprintf(name, 20, "signal %d", signo);
}

static void say_how(const struct instance *inst, int wait_status,
		    const char *then)
{
	int signo = WTERMSIG(wait_status);
	char name[20];

	signal_name(signo, name);
	if (WIFEXITED(wait_status))
		log_line(LOG_ERR, "%s: exited with status %d%s", inst->id,
			 WEXITSTATUS(wait_status), then);
	else if (signo == SIGSYS)
		log_line(LOG_ERR,
			 "%s: killed by SIGSYS (a system call outside its "
			 "sandbox)%s",
			 inst->id, then);
	else
		log_line(LOG_ERR, "%s: killed by %s%s", inst->id, name, then);
}

static void died_at_start(struct instance *inst, int wait_status)
{
	struct supervisor *sup = inst->supervisor;

	if (WIFEXITED(wait_status) && WEXITSTATUS(wait_status) == EXIT_USAGE) {
		sup->status = EXIT_USAGE; /* it has logged why */
	} else {
		say_how(inst, wait_status, " during startup");
		sup->status = EXIT_FAILED;
	}
	if (inst->restarted)
		log_line(LOG_ERR, "%s: giving up", inst->id);
	else
		supervisor_stop(sup);
}

static void on_death(struct instance *inst, int wait_status)
{
	struct supervisor *sup = inst->supervisor;
	bool clean = WIFEXITED(wait_status) && WEXITSTATUS(wait_status) == 0;

	on_news(inst, 0); /* its last news may still be unread */
	close_news(inst);
	inst->pid = 0;
	if (sup->stopping) {
		if (!clean) {
			say_how(inst, wait_status, " during shutdown");
			sup->status = sup->status ? sup->status : EXIT_FAILED;
		}
	} else if (!inst->ready) {
		died_at_start(inst, wait_status);
	} else if (sup->line->once || inst->front.kind == SOCK_CONNECTED) {
		if (!clean) {
			say_how(inst, wait_status, "");
			sup->status = EXIT_FAILED;
		}
	} else if (clean && inst->front.kind == SOCK_CONNECTS) {
		restart_later(inst); /* the front-end has disconnected */
	} else {
		say_how(inst, wait_status, ", restarting");
		restart_later(inst);
	}
	inst->ready = false;
	stop_when_all_ended(sup);
}

/*
 * --- Signals ---
 */

static void reap(struct supervisor *sup)
{
	int wait_status;
	pid_t pid;

	while ((pid = waitpid(-1, &wait_status, WNOHANG)) > 0) {
		int i = 0;

		while (i < sup->nr_instances && sup->instances[i].pid != pid)
			i++;
		if (i < sup->nr_instances)
			on_death(&sup->instances[i], wait_status);
		else if (sup->hooks->other_died)
			sup->hooks->other_died(sup->arg, pid, wait_status);
	}
}

/*
 * A second signal is impatience, unless it comes with the first: timeout(1)
 * signals its command and then the process group, to which both belong.
 */
static void stop_or_kill(struct supervisor *sup)
{
	if (!sup->stopping)
		supervisor_stop(sup);
	else if (vio_now_ns() - sup->stop_ns >= SAME_STOP_NS)
		kill_all(sup);
}

/*
 * Stop, as the terminal requested, and do not leave it raw. The kernel's
 * default action stops us, as it spares orphaned process groups.
 */
static void stop_job(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTSTP);
	chardev_stdio_restore();
	raise(SIGTSTP);
	sigprocmask(SIG_UNBLOCK, &set, NULL);
	sigprocmask(SIG_BLOCK, &set, NULL);
	chardev_stdio_resume();
}

static bool is_job_control(struct supervisor *sup,
			   const struct signalfd_siginfo *info)
{
	bool stop = info->ssi_signo == SIGTSTP;

	if (!stop && info->ssi_signo != SIGCONT)
		return false;
	if (sup->hooks->signalled)
		sup->hooks->signalled(sup->arg, info);
	if (stop)
		stop_job();
	else
		chardev_stdio_resume();
	return true;
}

static void on_signal(void *arg, uint32_t events)
{
	struct supervisor *sup = arg;
	struct signalfd_siginfo info;

	while (read(sup->signal_fd, &info, sizeof(info)) == sizeof(info)) {
		if (info.ssi_signo == SIGCHLD)
			reap(sup);
		else if (is_job_control(sup, &info))
			continue;
		else if (sup->hooks->signalled &&
			 sup->hooks->signalled(sup->arg, &info))
			continue;
		else
			stop_or_kill(sup);
	}
}

/*
 * Opening may take long (name servers), and leaves sockets behind if it is
 * killed. So the first signal waits until all is open, or interrupts what
 * blocks; a second one kills, unless it comes with the first.
 */
static volatile sig_atomic_t early_signal;
static uint64_t early_ns;

static void on_early_signal(int signo)
{
	if (early_signal && vio_now_ns() - early_ns >= SAME_STOP_NS) {
		signal(signo, SIG_DFL);
		raise(signo);
	} else if (!early_signal) {
		early_ns = vio_now_ns();
		early_signal = signo;
	}
}

static void catch_early_signals(const int signals[])
{
	const struct sigaction catch = { .sa_handler = on_early_signal };
	struct sigaction old;

	for (; *signals; signals++) {
		sigaction(*signals, NULL, &old);
		if (old.sa_handler != SIG_IGN)
			sigaction(*signals, &catch, NULL);
	}
}

/* The signals are blocked now; an early one is read as any other. */
static void end_early_signals(const int signals[])
{
	for (; *signals; signals++) {
		struct sigaction old;

		sigaction(*signals, NULL, &old);
		if (old.sa_handler == on_early_signal)
			signal(*signals, SIG_DFL);
	}
	if (early_signal)
		kill(getpid(), early_signal);
}

static int watch_signals(struct supervisor *sup, const int signals[])
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigaddset(&set, SIGTSTP);
	sigaddset(&set, SIGCONT);
	for (int i = 0; signals[i]; i++)
		sigaddset(&set, signals[i]);
	if (sigprocmask(SIG_BLOCK, &set, &sup->old_mask) < 0)
		return -errno;
	end_early_signals(signals);
	sup->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (sup->signal_fd < 0)
		return -errno;
	return vio_fd_add(sup->loop, sup->signal_fd, EPOLLIN, on_signal, sup,
			  &sup->signal_source);
}

/*
 * --- The escape key of a terminal ---
 */

/* Ask the VMM to end; the second time, end without it. */
static void end_by_key(struct supervisor *sup)
{
	if (!sup->ended_by_key) {
		sup->ended_by_key = true;
		kill(getpid(), SIGTERM);
		return;
	}
	if (sup->hold)
		sup->status = EXIT_FAILED;
	sup->hold = false;
	stop_or_kill(sup);
}

static void on_escape(void *arg, enum chardev_escape escape)
{
	struct supervisor *sup = arg;

	if (escape == CHARDEV_ESCAPE_END)
		end_by_key(sup);
	else if (escape == CHARDEV_ESCAPE_STOP)
		kill(0, SIGTSTP); /* the whole job, as the terminal would */
	else
		log_line(LOG_NOTICE, "%s", CHARDEV_ESCAPE_HELP_TEXT);
}

/*
 * --- Set up ---
 */

static int init_loop(struct supervisor *sup, const int signals[])
{
	int ret = watch_signals(sup, signals);

	if (ret == 0)
		ret = vio_timer_add(sup->loop, on_kill_timer, sup,
				    &sup->kill_timer);
	for (int i = 0; ret == 0 && i < sup->nr_instances; i++)
		ret = vio_timer_add(sup->loop, on_restart_timer,
				    &sup->instances[i],
				    &sup->instances[i].restart_timer);
	return ret;
}

static int init_instances(struct supervisor *sup, const char *dir,
			  struct err *err)
{
	const struct cmdline *line = sup->line;
	int ret = instances_check_texts(line->words, line->nr_words, err);

	if (ret < 0)
		return ret;
	sup->instances =
		calloc((size_t)line->nr_words, sizeof(*sup->instances));
	if (!sup->instances)
		return err_set(err, -ENOMEM, "out of memory");
	for (int i = 0; ret == 0 && i < line->nr_words; i++) {
		ret = instance_init(&sup->instances[i], line->words[i], err);
		sup->instances[i].supervisor = sup;
		sup->nr_instances = i + 1;
	}
	if (ret == 0)
		ret = instances_name(sup->instances, sup->nr_instances, err);
	if (ret == 0)
		ret = instances_activate(sup->instances, sup->nr_instances,
					 err);
	for (int i = 0; ret == 0 && i < sup->nr_instances; i++)
		ret = instance_open(&sup->instances[i], dir, line->transport,
				    err);
	for (int i = 0; ret == 0 && i < sup->nr_instances; i++)
		ret = spawn_check_limits(&sup->instances[i], err);
	return ret;
}

/* For devices that look up names but see no files of the host. */
static void init_resolver(struct supervisor *sup)
{
	bool wanted = false;
	int ret;

	for (int i = 0; i < sup->nr_instances; i++)
		wanted |= vdev_rights(sup->instances[i].type,
				      sup->instances[i].opts)
				  .network;
	if (!wanted || !sup->line->sandbox)
		return;
	ret = resolver_create(sup->loop, &sup->resolver);
	if (ret < 0)
		log_line(LOG_WARNING, "no name servers for devices: %s",
			 strerror(-ret));
}

int supervisor_init(struct supervisor *sup, const struct cmdline *line,
		    const char *dir, const int signals[],
		    const struct supervisor_hooks *hooks, void *arg)
{
	struct err err;
	int ret;

	*sup = (struct supervisor){
		.line = line,
		.hooks = hooks,
		.arg = arg,
		.signal_fd = -1,
	};
	ret = vio_loop_create(&sup->loop);
	if (ret < 0) {
		log_line(LOG_ERR, "event loop: %s", strerror(-ret));
		return ret;
	}
	chardev_stdio_serve_escape(sup->loop, on_escape, sup);
	catch_early_signals(signals);
	ret = init_instances(sup, dir, &err);
	if (ret < 0) {
		log_line(LOG_ERR, "%s", err.text);
		return ret;
	}
	ret = init_loop(sup, signals);
	if (ret < 0) {
		log_line(LOG_ERR, "event loop: %s", strerror(-ret));
		return ret;
	}
	init_resolver(sup);
	chardev_stdio_start();
	if (chardev_stdio_has_escape())
		log_line(LOG_NOTICE, "terminal: the guest gets all keys; "
				     "Ctrl-A x terminates, Ctrl-A h explains");
	return 0;
}

void supervisor_fini(struct supervisor *sup)
{
	for (int i = 0; i < sup->nr_instances; i++) {
		close_news(&sup->instances[i]);
		vio_source_remove(sup->instances[i].restart_timer);
		instance_fini(&sup->instances[i]);
	}
	free(sup->instances);
	resolver_destroy(sup->resolver);
	vio_source_remove(sup->kill_timer);
	vio_source_remove(sup->signal_source);
	if (sup->signal_fd >= 0)
		close(sup->signal_fd);
	vio_loop_destroy(sup->loop);
}

int supervisor_run(struct supervisor *sup)
{
	for (int i = 0; i < sup->nr_instances && !sup->stopping; i++) {
		int ret = start(&sup->instances[i]);

		if (ret < 0) {
			log_line(LOG_ERR, "%s: cannot start: %s",
				 sup->instances[i].id, strerror(-ret));
			sup->status = EXIT_FAILED;
			supervisor_stop(sup);
		}
	}
	if (vio_loop_run(sup->loop) < 0)
		return EXIT_FAILED;
	return sup->status;
}

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

#include "viodev/log.h"
#include "viodev/resolver.h"
#include "viodev/spawn.h"

#define NS_PER_MS      UINT64_C(1000000)
#define BACKOFF_MIN_NS (100 * NS_PER_MS)
#define BACKOFF_MAX_NS (5000 * NS_PER_MS)
#define PATIENCE_NS    (5000 * NS_PER_MS)
#define GIVE_UP_NS     (2000 * NS_PER_MS)
#define WAITING_MAX    16 /* events in so long: */
#define WAITING_NS     (60000 * NS_PER_MS)

/*
 * --- Stop ---
 */

static void stop_when_all_ended(struct sup *sup)
{
	if (sup->hold)
		return;
	for (int i = 0; i < sup->nr_units; i++) {
		if (sup->units[i].pid || sup->units[i].restart_pending)
			return;
	}
	vio_loop_stop(sup->loop);
}

void sup_stop(struct sup *sup)
{
	if (sup->stopping)
		return;
	sup->stopping = true;
	for (int i = 0; i < sup->nr_units; i++) {
		struct unit *unit = &sup->units[i];

		vio_timer_set(unit->restart_timer, 0);
		unit->restart_pending = false;
		if (unit->pid)
			kill(unit->pid, SIGTERM);
	}
	vio_timer_set(sup->kill_timer, PATIENCE_NS);
	stop_when_all_ended(sup);
}

static void kill_all(struct sup *sup)
{
	for (int i = 0; i < sup->nr_units; i++) {
		if (sup->units[i].pid)
			kill(sup->units[i].pid, SIGKILL);
	}
	sup->killed = true;
	vio_timer_set(sup->kill_timer, GIVE_UP_NS);
}

/* A process in the kernel's hands, where a disk does not answer, stays. */
static void give_up(struct sup *sup)
{
	for (int i = 0; i < sup->nr_units; i++) {
		const struct unit *unit = &sup->units[i];

		if (unit->pid)
			log_line(LOG_ERR,
				 "%s: process %d survives SIGKILL (hung "
				 "disk?): left behind",
				 unit->id, (int)unit->pid);
	}
	sup->status = sup->status ? sup->status : EXIT_FAILED;
	vio_loop_stop(sup->loop);
}

/* They were asked to end and have not. */
static void on_kill_timer(void *arg)
{
	struct sup *sup = arg;

	if (sup->killed)
		give_up(sup);
	else
		kill_all(sup);
}

/*
 * --- A unit's process ---
 */

static void announce(struct sup *sup)
{
	while (sup->nr_announced < sup->nr_units &&
	       sup->units[sup->nr_announced].ready) {
		sup->hooks->unit_ready(sup->arg,
				       &sup->units[sup->nr_announced]);
		if (++sup->nr_announced == sup->nr_units)
			sup->hooks->all_ready(sup->arg);
	}
}

static void close_news(struct unit *unit)
{
	if (unit->news_fd < 0)
		return;
	vio_source_remove(unit->news_source);
	unit->news_source = NULL;
	close(unit->news_fd);
	unit->news_fd = -1;
}

/* A device that was taken over, or its guest, must not flood who reads it. */
static bool may_say_waiting(struct unit *unit)
{
	uint64_t now = vio_now_ns();

	if (now - unit->waiting_ns >= WAITING_NS) {
		unit->waiting_ns = now;
		unit->nr_waiting = 0;
	}
	return unit->nr_waiting++ < WAITING_MAX;
}

static void take_news(struct unit *unit, char news)
{
	struct sup *sup = unit->sup;

	if (news == NEWS_READY && !unit->ready) {
		unit->ready = true;
		if (!sup->stopping)
			announce(sup);
	} else if (news == NEWS_WAITING && sup->hooks->unit_waiting &&
		   may_say_waiting(unit)) {
		sup->hooks->unit_waiting(sup->arg, unit);
	}
}

/* At its end the process is dead: SIGCHLD follows. */
static void on_news(void *arg, uint32_t events)
{
	struct unit *unit = arg;
	char news[16];
	ssize_t n;

	if (unit->news_fd < 0)
		return;
	n = read(unit->news_fd, news, sizeof(news));
	for (ssize_t i = 0; i < n; i++)
		take_news(unit, news[i]);
	if (n == 0 || (n < 0 && errno != EAGAIN))
		close_news(unit);
}

/* Soon, but later each time while it keeps dying young. */
static void restart_later(struct unit *unit)
{
	if (vio_now_ns() - unit->start_ns > 2 * BACKOFF_MAX_NS)
		unit->backoff_ns = 0;
	if (unit->backoff_ns == 0)
		unit->backoff_ns = BACKOFF_MIN_NS;
	else if (unit->backoff_ns < BACKOFF_MAX_NS)
		unit->backoff_ns *= 2;
	unit->restart_pending = true;
	vio_timer_set(unit->restart_timer, unit->backoff_ns);
}

static int spawn(struct unit *unit)
{
	const struct cmdline *line = unit->sup->line;
	const struct resolver *resolver = unit->sup->resolver;
	struct spawn_params params = {
		.transport = line->transport,
		.sandbox = line->sandbox,
		.once = line->once,
		.verbose = line->verbose,
		.root = resolver ? resolver_root(resolver) : NULL,
	};
	pid_t pid = spawn_unit(unit, &params, &unit->news_fd);
	int ret;

	/* Its peer is to see when the process ends. */
	if (unit->front.kind != SOCK_LISTENS)
		sock_disconnect(&unit->front);
	if (pid < 0)
		return pid;
	unit->pid = pid;
	unit->ready = false;
	ret = vio_fd_add(unit->sup->loop, unit->news_fd, EPOLLIN, on_news, unit,
			 &unit->news_source);
	if (ret < 0)
		kill(pid, SIGKILL);
	return ret;
}

static bool is_absent(int error)
{
	return error == -ENOENT || error == -ECONNREFUSED || error == -EAGAIN;
}

/* Where it connects and nobody listens yet it starts later. */
static int start(struct unit *unit)
{
	int ret = 0;

	unit->start_ns = vio_now_ns();
	if (unit->front.kind == SOCK_CONNECTS)
		ret = sock_connect(&unit->front);
	if (ret == 0)
		return spawn(unit);
	if (!is_absent(ret))
		return ret;
	log_line(unit->backoff_ns ? LOG_INFO : LOG_WARNING,
		 "%s: waiting for a front-end at %s", unit->id,
		 unit->front.path);
	restart_later(unit);
	return 0;
}

static void on_restart_timer(void *arg)
{
	struct unit *unit = arg;
	int ret;

	unit->restart_pending = false;
	unit->restarted = true;
	ret = start(unit);
	if (ret < 0) {
		log_line(LOG_ERR, "%s: cannot restart: %s", unit->id,
			 strerror(-ret));
		unit->sup->status = EXIT_FAILED;
		stop_when_all_ended(unit->sup);
	}
}

static void say_how(const struct unit *unit, int wait_status, const char *then)
{
	int signo = WTERMSIG(wait_status);

	if (WIFEXITED(wait_status))
		log_line(LOG_ERR, "%s: exited with status %d%s", unit->id,
			 WEXITSTATUS(wait_status), then);
	else if (signo == SIGSYS)
		log_line(LOG_ERR,
			 "%s: killed by SIGSYS (a system call outside its "
			 "sandbox)%s",
			 unit->id, then);
	else
		log_line(LOG_ERR, "%s: killed by SIG%s%s", unit->id,
			 sigabbrev_np(signo), then);
}

static void died_at_start(struct unit *unit, int wait_status)
{
	struct sup *sup = unit->sup;

	if (WIFEXITED(wait_status) && WEXITSTATUS(wait_status) == EXIT_USAGE) {
		sup->status = EXIT_USAGE; /* and has said why */
	} else {
		say_how(unit, wait_status, " during startup");
		sup->status = EXIT_FAILED;
	}
	if (unit->restarted)
		log_line(LOG_ERR, "%s: giving up", unit->id);
	else
		sup_stop(sup);
}

static void on_death(struct unit *unit, int wait_status)
{
	struct sup *sup = unit->sup;
	bool clean = WIFEXITED(wait_status) && WEXITSTATUS(wait_status) == 0;

	on_news(unit, 0); /* what it wrote may not have been read yet */
	close_news(unit);
	unit->pid = 0;
	if (sup->stopping) {
		if (!clean) {
			say_how(unit, wait_status, " during shutdown");
			sup->status = sup->status ? sup->status : EXIT_FAILED;
		}
	} else if (!unit->ready) {
		died_at_start(unit, wait_status);
	} else if (sup->line->once || unit->front.kind == SOCK_CONNECTED) {
		if (!clean) {
			say_how(unit, wait_status, "");
			sup->status = EXIT_FAILED;
		}
	} else if (clean && unit->front.kind == SOCK_CONNECTS) {
		restart_later(unit); /* the front-end has gone */
	} else {
		say_how(unit, wait_status, ", restarting");
		restart_later(unit);
	}
	unit->ready = false;
	stop_when_all_ended(sup);
}

/*
 * --- Signals ---
 */

static void reap(struct sup *sup)
{
	int wait_status;
	pid_t pid;

	while ((pid = waitpid(-1, &wait_status, WNOHANG)) > 0) {
		int i = 0;

		while (i < sup->nr_units && sup->units[i].pid != pid)
			i++;
		if (i < sup->nr_units)
			on_death(&sup->units[i], wait_status);
		else if (sup->hooks->other_died)
			sup->hooks->other_died(sup->arg, pid, wait_status);
	}
}

static void on_signal(void *arg, uint32_t events)
{
	struct sup *sup = arg;
	struct signalfd_siginfo info;

	while (read(sup->signal_fd, &info, sizeof(info)) == sizeof(info)) {
		if (info.ssi_signo == SIGCHLD)
			reap(sup);
		else if (sup->hooks->signalled &&
			 sup->hooks->signalled(sup->arg, &info))
			continue;
		else if (sup->stopping)
			kill_all(sup); /* asked twice */
		else
			sup_stop(sup);
	}
}

static int watch_signals(struct sup *sup, const int signals[])
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	for (; *signals; signals++)
		sigaddset(&set, *signals);
	if (sigprocmask(SIG_BLOCK, &set, &sup->old_mask) < 0)
		return -errno;
	sup->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (sup->signal_fd < 0)
		return -errno;
	return vio_fd_add(sup->loop, sup->signal_fd, EPOLLIN, on_signal, sup,
			  &sup->signal_source);
}

/*
 * --- Set up ---
 */

static int init_loop(struct sup *sup, const int signals[])
{
	int ret = vio_loop_create(&sup->loop);

	if (ret == 0)
		ret = watch_signals(sup, signals);
	if (ret == 0)
		ret = vio_timer_add(sup->loop, on_kill_timer, sup,
				    &sup->kill_timer);
	for (int i = 0; ret == 0 && i < sup->nr_units; i++)
		ret = vio_timer_add(sup->loop, on_restart_timer, &sup->units[i],
				    &sup->units[i].restart_timer);
	return ret;
}

static int init_units(struct sup *sup, const char *dir, struct err *err)
{
	const struct cmdline *line = sup->line;
	int ret = 0;

	sup->units = calloc((size_t)line->nr_words, sizeof(*sup->units));
	if (!sup->units)
		return err_set(err, -ENOMEM, "out of memory");
	for (int i = 0; ret == 0 && i < line->nr_words; i++) {
		ret = unit_init(&sup->units[i], line->words[i], err);
		sup->units[i].sup = sup;
		sup->nr_units = i + 1;
	}
	if (ret == 0)
		ret = units_name(sup->units, sup->nr_units, err);
	if (ret == 0)
		ret = units_activate(sup->units, sup->nr_units, err);
	for (int i = 0; ret == 0 && i < sup->nr_units; i++)
		ret = unit_open(&sup->units[i], dir, line->transport, err);
	return ret;
}

/* For those that look up names and see no files of the host. */
static void init_resolver(struct sup *sup)
{
	bool wanted = false;
	int ret;

	for (int i = 0; i < sup->nr_units; i++)
		wanted |= vdev_rights(sup->units[i].type, sup->units[i].opts)
				  .network;
	if (!wanted || !sup->line->sandbox)
		return;
	ret = resolver_create(sup->loop, &sup->resolver);
	if (ret < 0)
		log_line(LOG_WARNING, "no name servers for devices: %s",
			 strerror(-ret));
}

int sup_init(struct sup *sup, const struct cmdline *line, const char *dir,
	     const int signals[], const struct sup_hooks *hooks, void *arg)
{
	struct err err;
	int ret;

	*sup = (struct sup){
		.line = line,
		.hooks = hooks,
		.arg = arg,
		.signal_fd = -1,
	};
	ret = init_units(sup, dir, &err);
	if (ret < 0) {
		log_line(LOG_ERR, "%s", err.text);
		return ret;
	}
	ret = init_loop(sup, signals);
	if (ret < 0)
		log_line(LOG_ERR, "event loop: %s", strerror(-ret));
	else
		init_resolver(sup);
	return ret;
}

void sup_fini(struct sup *sup)
{
	for (int i = 0; i < sup->nr_units; i++) {
		close_news(&sup->units[i]);
		vio_source_remove(sup->units[i].restart_timer);
		unit_fini(&sup->units[i]);
	}
	free(sup->units);
	resolver_destroy(sup->resolver);
	vio_source_remove(sup->kill_timer);
	vio_source_remove(sup->signal_source);
	if (sup->signal_fd >= 0)
		close(sup->signal_fd);
	vio_loop_destroy(sup->loop);
}

int sup_run(struct sup *sup)
{
	for (int i = 0; i < sup->nr_units && !sup->stopping; i++) {
		int ret = start(&sup->units[i]);

		if (ret < 0) {
			log_line(LOG_ERR, "%s: cannot start: %s",
				 sup->units[i].id, strerror(-ret));
			sup->status = EXIT_FAILED;
			sup_stop(sup);
		}
	}
	if (vio_loop_run(sup->loop) < 0)
		return EXIT_FAILED;
	return sup->status;
}

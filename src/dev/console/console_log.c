/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * log=: a copy of what the guest writes to a port, in a file.
 *
 * The file gets bytes first, and then the channel the same ones, so that the
 * log has no gap and no byte twice, however many the channel takes. Both run at
 * the speed of the slower one. If a disk does not answer for a while, the log
 * loses what the guest writes until it does.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>

#include "base/util.h"
#include "dev/console/console.h"

#define NS_PER_SEC  UINT64_C(1000000000)
#define PATIENCE_NS NS_PER_SEC        /* how long output waits for a disk */
#define TELL_NS     (60 * NS_PER_SEC) /* between log lines about a file */

/*
 * --- What the operator learns ---
 */

void console_tell_failure(struct console_port *p, uint64_t *told_ns,
			  const char *what, const char *why)
{
	uint64_t now = vio_now_ns();

	if (*told_ns && now - *told_ns < TELL_NS)
		return;
	*told_ns = now;
	vs_log(&p->sc->sc_vs, LOG_WARNING,
	       "%s: %s: %s: output is lost (free space, or check the disk)",
	       p->name ? p->name : "console", what, why);
}

static void tell(struct console_port *p, const char *why)
{
	console_tell_failure(p, &p->log.told_ns, "log", why);
}

static void on_failed(void *arg, int error)
{
	tell(arg, strerror(-error));
}

/*
 * --- A file that is slow ---
 */

static void on_timer(void *arg)
{
	struct console_port *p = arg;

	p->log.waiting = false;
	p->log.hangs = true;
	tell(p, "the disk does not answer");
	console_tx_run(p);
}

static void wait_for_file(struct console_log *l)
{
	if (!l->waiting)
		vio_timer_set(l->timer, PATIENCE_NS);
	l->waiting = true;
}

static void end_wait(struct console_log *l)
{
	if (l->waiting)
		vio_timer_set(l->timer, 0);
	l->waiting = l->hangs = false;
}

static void on_writable(void *arg)
{
	struct console_port *p = arg;

	end_wait(&p->log);
	console_tx_run(p);
}

/* A log has no peer and no input. */
static void on_nothing(void *arg)
{
}

static void on_up(void *arg, bool up)
{
}

static const struct chardev_client log_client = {
	.readable = on_nothing,
	.writable = on_writable,
	.up = on_up,
	.failed = on_failed,
};

/*
 * --- The bytes ---
 */

static void shorten(struct vio_iov_cursor *c, size_t len)
{
	int i = 0;

	for (; i < c->niov && len > 0; i++) {
		c->iov[i].iov_len = vio_iov_min(c->iov[i].iov_len, len);
		len -= c->iov[i].iov_len;
	}
	c->niov = i;
}

bool console_log_begin(struct console_port *p, struct vio_iov_cursor *out)
{
	struct console_log *l = &p->log;
	ssize_t n = 0;

	if (!l->file || l->hangs)
		return true;
	if (l->ahead == 0)
		n = chardev_write(l->file, out->iov, out->niov);
	if (n == -EAGAIN) {
		wait_for_file(l);
		return false;
	}
	if (n > 0)
		l->ahead = (size_t)n;
	if (l->ahead > 0)
		shorten(out, l->ahead);
	return true;
}

void console_log_written(struct console_port *p, size_t len)
{
	struct console_log *l = &p->log;
	size_t logged = vio_iov_min(l->ahead, len);

	l->ahead -= logged;
	if (l->file)
		l->lost += len - logged;
}

void console_log_byte(struct console_port *p, uint8_t byte)
{
	const struct iovec iov = { &byte, 1 };

	if (p->log.file && chardev_write(p->log.file, &iov, 1) != 1)
		p->log.lost++;
}

void console_log_reset(struct console_port *p)
{
	p->log.ahead = 0;
}

/*
 * --- Which file ---
 */

char *console_log_channel(const char *path)
{
	char *channel;

	return asprintf(&channel, "file:%s", path) < 0 ? NULL : channel;
}

void console_log_end(struct console_port *p)
{
	struct console_log *l = &p->log;

	end_wait(l);
	vio_source_remove(l->timer);
	chardev_destroy(l->file);
	l->timer = NULL;
	l->file = NULL;
	l->ahead = 0;
}

int console_log_set(struct console_port *p, const char *channel, const char *id,
		    struct opened_files *files, struct err *err)
{
	struct console_softc *sc = p->sc;
	struct vio_source *timer = NULL;
	size_t ahead = p->log.ahead;
	struct chardev *file;
	int ret = vio_timer_add(sc->sc_loop, on_timer, p, &timer);

	if (ret < 0)
		return err_set(err, ret, "%s", strerror(-ret));
	ret = chardev_create(channel, id, files, sc->sc_loop, sc->sc_log_io,
			     &log_client, p, &file, err);
	if (ret < 0) {
		vio_source_remove(timer);
		return ret;
	}
	/* The new file does not repeat what the old one has. */
	console_log_end(p);
	p->log = (struct console_log){ .file = file,
				       .timer = timer,
				       .ahead = ahead };
	return 0;
}

/* SPDX-License-Identifier: BSD-2-Clause */
#include "viodev/log.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char *log_who;
static int log_level = LOG_NOTICE;

void log_init(const char *who, bool verbose)
{
	log_who = who;
	log_level = verbose ? LOG_DEBUG : LOG_NOTICE;
}

static unsigned nr_lost;

/*
 * The reader may stall: a full pipe must not stop a device, whose guest can
 * cause many lines. A pipe that is ready takes 4 KiB.
 */
static bool has_room(void)
{
	struct pollfd pfd = { .fd = STDERR_FILENO, .events = POLLOUT };

	return poll(&pfd, 1, 0) != 0; /* errors are write()'s to find */
}

static bool may_write(void)
{
	char line[64];
	unsigned nr = __atomic_load_n(&nr_lost, __ATOMIC_RELAXED);
	int len;

	if (!has_room()) {
		__atomic_add_fetch(&nr_lost, 1, __ATOMIC_RELAXED);
		return false;
	}
	if (nr == 0)
		return true;
	len = snprintf(line, sizeof(line), "viodev: %u log lines lost\n", nr);
	if (write(STDERR_FILENO, line, (size_t)len) > 0)
		__atomic_sub_fetch(&nr_lost, nr, __ATOMIC_RELAXED);
	return has_room();
}

/* One write, so that lines of several processes do not mix. */
__attribute__((format(printf, 2, 0))) static void
log_write(const char *who, const char *fmt, va_list ap)
{
	char line[512];
	size_t len;

	snprintf(line, sizeof(line), "viodev: %s%s", who ? who : "",
		 who ? ": " : "");
	len = strlen(line);
	vsnprintf(line + len, sizeof(line) - len - 1, fmt, ap);
	len = strlen(line);
	line[len++] = '\n';
	if (write(STDERR_FILENO, line, len) < 0)
		return; /* no one left to report to */
}

__attribute__((format(printf, 2, 3))) static void log_as(const char *who,
							 const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	log_write(who, fmt, ap);
	va_end(ap);
}

void log_line(int level, const char *fmt, ...)
{
	va_list ap;

	if (level > log_level || !may_write())
		return;
	va_start(ap, fmt);
	log_write(log_who, fmt, ap);
	va_end(ap);
}

void log_named(int level, const char *text)
{
	if (level <= log_level && may_write())
		log_as(NULL, "%s", text);
}

int log_usage(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	log_write(log_who, fmt, ap);
	va_end(ap);
	return 2;
}

/* SPDX-License-Identifier: BSD-2-Clause */
#include "viodev/log.h"

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
		return; /* nobody is left to be told */
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

	if (level > log_level)
		return;
	va_start(ap, fmt);
	log_write(log_who, fmt, ap);
	va_end(ap);
}

void log_named(int level, const char *text)
{
	if (level <= log_level)
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

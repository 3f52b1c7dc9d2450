/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Lines for the user, on standard error: "viodev: WHO: message".
 */
#ifndef VIODEV_LOG_H
#define VIODEV_LOG_H

#include <stdarg.h>
#include <stdbool.h>
#include <syslog.h>

/* @who (borrowed) names the device process; NULL: the command itself. */
void log_init(const char *who, bool verbose);

/* Level as in <syslog.h>; debug and info lines need --verbose. */
void log_line(int level, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* The same for a text that names the device already. */
void log_named(int level, const char *text);

/* Say what is wrong and what to do, in one line; returns exit status 2. */
int log_usage(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif

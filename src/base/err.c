/* SPDX-License-Identifier: BSD-2-Clause */
#include "base/err.h"

#include <stdarg.h>
#include <stdio.h>

__attribute__((format(printf, 2, 0))) static void
write_text(struct err *err, const char *fmt, va_list ap)
{
	vsnprintf(err->text, sizeof(err->text), fmt, ap);
}

int err_set(struct err *err, int code, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	write_text(err, fmt, ap);
	va_end(ap);
	return code;
}

void err_warn(struct err *err, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	write_text(err, fmt, ap);
	va_end(ap);
}

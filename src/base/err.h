/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Why something failed, as one line for the user: what was being set up, the
 * key, the value and the reason. Filled by the one who knows the reason.
 */
#ifndef BASE_ERR_H
#define BASE_ERR_H

struct err {
	char text[256];
};

/* Write the line and return @code (a -errno), for `return err_set(...)`. */
int err_set(struct err *err, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/*
 * For vt_open, which succeeds, but not quite as the user may expect: a line
 * for the log. The text is empty until then.
 */
void err_warn(struct err *err, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

#endif

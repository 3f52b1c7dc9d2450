/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Why something failed, as one line for the user: what was being set up, the
 * key, the value and the reason. Whoever detects the failure fills it in.
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
 * A warning from vt_open(), which succeeds but not as the user may expect: one
 * line for the log. Without a warning the text stays empty.
 */
void err_warn(struct err *err, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Options of a device, as the user writes them: TYPE[,key=value]...
 *
 * A device type describes its keys in a table. Parsing checks every key and
 * value against it, so that later readers can rely on them. A comma inside a
 * value is written twice.
 */
#ifndef BASE_OPTS_H
#define BASE_OPTS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

enum opt_kind {
	OPT_STRING,
	OPT_BOOL,   /* on|off, also true|false, yes|no, 1|0 */
	OPT_NUMBER, /* decimal or 0x, within [min, max] */
	OPT_SIZE,   /* a number with an optional suffix K M G T (of 1024) */
	OPT_CHOICE, /* one of @choices, separated by | */
};

/*
 * A key may hold '*', which stands for one or more characters other than '.':
 * "lun*.ro" takes lun0.ro and lun1.ro, each an option of its own. "**" at the
 * end takes the '.' as well: "port.**" takes port.org.example.0.
 */
struct opt_def {
	const char *key; /* NULL ends a table */
	enum opt_kind kind;
	const char *def;  /* value when not given; NULL: none */
	const char *help; /* one line */
	const char *choices;
	uint64_t min, max; /* of numbers and sizes; max 0: no limit */
	bool required;
};

struct opts;

/*
 * Parse @text against @tables (NULL-terminated list of tables, looked up in
 * order). The first word, up to the first comma, is the type and is skipped. 0,
 * or -EINVAL with the reason: unknown key (with the closest known one),
 * duplicate key, bad value, missing key.
 */
int opts_parse(const char *text, const struct opt_def *const tables[],
	       struct opts **ret_opts, struct err *err);
void opts_free(struct opts *opts);

/*
 * The value or default of an option of the tables, or of one that matches a
 * pattern of theirs. opt_string() returns NULL if there is neither; opt_given()
 * tells whether the user wrote the option.
 */
bool opt_given(const struct opts *opts, const char *key);
const char *opt_string(const struct opts *opts, const char *key);
bool opt_bool(const struct opts *opts, const char *key);
uint64_t opt_number(const struct opts *opts, const char *key);

/*
 * The options that the user wrote and that @pattern, a key of the tables, has
 * taken, in the order written: each one's key, then NULL. Begin with *pos 0.
 */
const char *opt_next(const struct opts *opts, const char *pattern,
		     unsigned *pos);

/* A size as the user writes it, "512", "64K", "2G": for other commands too. */
int opt_parse_size(const char *text, uint64_t *ret_bytes);

#endif

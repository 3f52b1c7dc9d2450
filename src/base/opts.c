/* SPDX-License-Identifier: BSD-2-Clause */
#include "base/opts.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/suggest.h"

struct opt {
	const struct opt_def *def;
	char *key;       /* as given, where def->key is a pattern; or NULL */
	char *text;      /* as given, or the default; NULL: none */
	uint64_t number; /* of bools, numbers and sizes */
	bool given;
};

struct opts {
	unsigned nr;
	struct opt opt[];
};

/* What one option is parsed with, and where its errors go. */
struct parser {
	char type[32];
	struct opts *opts;
	struct err *err;
};

/*
 * --- Values: pure, 0 or -errno ---
 */

static int digit_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : 16;
}

/*
 * Parse the number at the start of @text; *ret_rest is what follows. No sign,
 * space or octal, which strtoull() would accept.
 */
static int parse_digits(const char *text, uint64_t *ret_number,
			const char **ret_rest)
{
	bool hex = text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
	int base = hex ? 16 : 10;
	const char *c = hex ? text + 2 : text;
	const char *first = c;
	uint64_t number = 0;

	for (; digit_value(*c) < base; c++) {
		if (__builtin_mul_overflow(number, base, &number) ||
		    __builtin_add_overflow(number, digit_value(*c), &number))
			return -ERANGE;
	}
	if (c == first)
		return -EINVAL;
	*ret_number = number;
	*ret_rest = c;
	return 0;
}

static int parse_number(const char *text, uint64_t *ret_number)
{
	const char *rest;
	uint64_t number;
	int ret = parse_digits(text, &number, &rest);

	if (ret < 0)
		return ret;
	if (*rest)
		return -EINVAL;
	*ret_number = number;
	return 0;
}

static int size_shift(char suffix)
{
	switch (suffix | 0x20) {
	case 'k':
		return 10;
	case 'm':
		return 20;
	case 'g':
		return 30;
	case 't':
		return 40;
	default:
		return -EINVAL;
	}
}

int opt_parse_size(const char *text, uint64_t *ret_bytes)
{
	const char *rest;
	uint64_t number;
	int shift = 0;
	int ret = parse_digits(text, &number, &rest);

	if (ret < 0)
		return ret;
	if (*rest) {
		shift = size_shift(*rest);
		if (shift < 0 || rest[1])
			return -EINVAL;
	}
	if (number > UINT64_MAX >> shift)
		return -ERANGE;
	*ret_bytes = number << shift;
	return 0;
}

static int parse_bool(const char *text, uint64_t *ret_bool)
{
	static const char *const words[][2] = {
		{ "off", "on" },
		{ "false", "true" },
		{ "no", "yes" },
		{ "0", "1" },
	};

	for (unsigned i = 0; i < 4; i++) {
		for (unsigned value = 0; value < 2; value++) {
			if (strcmp(text, words[i][value]) == 0) {
				*ret_bool = value;
				return 0;
			}
		}
	}
	return -EINVAL;
}

static bool is_choice(const char *text, const char *choices)
{
	size_t len = strlen(text);

	for (const char *c = choices;; c++) {
		size_t n = strcspn(c, "|");

		if (n == len && memcmp(c, text, n) == 0)
			return true;
		c += n;
		if (!*c)
			return false;
	}
}

/*
 * --- One option ---
 */

static const char *key_of(const struct opt *opt)
{
	return opt->key ? opt->key : opt->def->key;
}

static int bad_number(const struct parser *p, const struct opt *opt)
{
	const struct opt_def *def = opt->def;
	const char *what = def->kind == OPT_SIZE ?
				   "a size such as 512, 64K or 2G" :
				   "a number";

	if (def->max)
		return err_set(p->err, -EINVAL,
			       "%s: %s=%s: must be %s, from %" PRIu64
			       " to %" PRIu64,
			       p->type, key_of(opt), opt->text, what, def->min,
			       def->max);
	return err_set(p->err, -EINVAL,
		       "%s: %s=%s: must be %s, at least %" PRIu64, p->type,
		       key_of(opt), opt->text, what, def->min);
}

static bool in_range(const struct opt_def *def, uint64_t number)
{
	return number >= def->min && (!def->max || number <= def->max);
}

/* Check the value and convert it if it is a number. */
static int check_value(const struct parser *p, struct opt *opt)
{
	const struct opt_def *def = opt->def;

	switch (def->kind) {
	case OPT_STRING:
		break;
	case OPT_BOOL:
		if (parse_bool(opt->text, &opt->number) < 0)
			return err_set(p->err, -EINVAL,
				       "%s: %s=%s: must be on or off", p->type,
				       key_of(opt), opt->text);
		break;
	case OPT_NUMBER:
		if (parse_number(opt->text, &opt->number) < 0 ||
		    !in_range(def, opt->number))
			return bad_number(p, opt);
		break;
	case OPT_SIZE:
		if (opt_parse_size(opt->text, &opt->number) < 0 ||
		    !in_range(def, opt->number))
			return bad_number(p, opt);
		break;
	case OPT_CHOICE:
		if (!is_choice(opt->text, def->choices))
			return err_set(p->err, -EINVAL,
				       "%s: %s=%s: must be one of %s", p->type,
				       key_of(opt), opt->text, def->choices);
		break;
	}
	return 0;
}

static bool is_pattern(const struct opt_def *def)
{
	return strchr(def->key, '*');
}

/* '*' matches one or more characters but '.', "**" matches the rest. */
static bool matches(const char *pattern, const char *key)
{
	for (; *pattern; pattern++) {
		size_t n = *pattern == '*' ? strcspn(key, ".") : 1;

		if (strcmp(pattern, "**") == 0)
			return *key;
		if (n == 0 || (*pattern != '*' && *pattern != *key))
			return false;
		key += n;
	}
	return !*key;
}

/* Find an option by its key, or a pattern's by the key that the user gave. */
static struct opt *find(struct opts *opts, const char *key)
{
	for (unsigned i = 0; i < opts->nr; i++) {
		struct opt *opt = &opts->opt[i];

		if (opt->key ? !strcmp(opt->key, key) :
			       !is_pattern(opt->def) &&
				       !strcmp(opt->def->key, key))
			return opt;
	}
	return NULL;
}

/* The pattern that takes @key, with its default, or NULL. */
static struct opt *find_pattern(struct opts *opts, const char *key)
{
	for (unsigned i = 0; i < opts->nr; i++) {
		struct opt *opt = &opts->opt[i];

		if (!opt->key && is_pattern(opt->def) &&
		    matches(opt->def->key, key))
			return opt;
	}
	return NULL;
}

/* The option that the user gives as @key: -ENOENT, -ENOMEM. */
static int take(struct opts *opts, const char *key, struct opt **ret_opt)
{
	struct opt *opt = find(opts, key);
	const struct opt *pattern;

	if (!opt) {
		pattern = find_pattern(opts, key);
		if (!pattern)
			return -ENOENT;
		opt = &opts->opt[opts->nr];
		opt->key = strdup(key);
		if (!opt->key)
			return -ENOMEM;
		opt->def = pattern->def;
		opts->nr++;
	}
	*ret_opt = opt;
	return 0;
}

static int unknown_key(const struct parser *p, const char *key, bool has_value)
{
	struct suggestion near = { .word = key };

	for (unsigned i = 0; i < p->opts->nr; i++)
		suggest_try(&near, p->opts->opt[i].def->key);
	if (near.best)
		return err_set(p->err, -EINVAL,
			       "%s: no such key '%s': did you mean '%s'?",
			       p->type, key, near.best);
	if (!has_value)
		return err_set(p->err, -EINVAL,
			       "%s: no such key '%s': write a comma inside a "
			       "value twice",
			       p->type, key);
	return err_set(p->err, -EINVAL,
		       "%s: no such key '%s': see 'viodev devices %s'", p->type,
		       key, p->type);
}

/* @word is "key=value", with double commas already single. */
static int parse_option(const struct parser *p, char *word)
{
	char *equals = strchr(word, '=');
	struct opt *opt;
	int ret;

	if (!*word)
		return err_set(p->err, -EINVAL,
			       "%s: key=value expected after a comma", p->type);
	if (equals)
		*equals = '\0';
	ret = take(p->opts, word, &opt);
	if (ret == -ENOMEM)
		return err_set(p->err, ret, "%s: out of memory", p->type);
	if (ret < 0)
		return unknown_key(p, word, equals);
	if (!equals)
		return err_set(p->err, -EINVAL,
			       "%s: %s: missing value, write %s=%s", p->type,
			       word, word,
			       opt->def->kind == OPT_BOOL ? "on" : "VALUE");
	if (opt->given)
		return err_set(p->err, -EINVAL, "%s: %s: given twice", p->type,
			       word);
	opt->given = true;
	opt->text = strdup(equals + 1);
	if (!opt->text)
		return err_set(p->err, -ENOMEM, "%s: out of memory", p->type);
	return check_value(p, opt);
}

/*
 * --- All of them ---
 */

/* The most options there can be: each key that a pattern takes adds one. */
static unsigned count_opts(const struct opt_def *const tables[],
			   const char *text)
{
	unsigned nr = 0;

	for (; *text; text++)
		nr += *text == ',';

	for (; *tables; tables++) {
		for (const struct opt_def *def = *tables; def->key; def++)
			nr++;
	}
	return nr;
}

static struct opts *opts_create(const struct opt_def *const tables[],
				const char *text)
{
	unsigned nr = count_opts(tables, text);
	struct opts *opts = calloc(1, sizeof(*opts) + nr * sizeof(struct opt));

	if (!opts)
		return NULL;
	for (; *tables; tables++) {
		for (const struct opt_def *def = *tables; def->key; def++) {
			/* The earlier table wins. */
			if (!find(opts, def->key))
				opts->opt[opts->nr++].def = def;
		}
	}
	return opts;
}

void opts_free(struct opts *opts)
{
	if (!opts)
		return;
	for (unsigned i = 0; i < opts->nr; i++) {
		free(opts->opt[i].key);
		free(opts->opt[i].text);
	}
	free(opts);
}

/*
 * Cut the next word off *@rest, in place, up to a single comma. NULL after the
 * last word.
 */
static char *next_word(char **rest)
{
	char *word = *rest, *in = word, *out = word;

	if (!word)
		return NULL;
	*rest = NULL;
	while (*in) {
		if (*in == ',' && *++in != ',') {
			*rest = in;
			break;
		}
		*out++ = *in++;
	}
	*out = '\0';
	return word;
}

static int parse_words(const struct parser *p, char *rest)
{
	char *word;

	while ((word = next_word(&rest))) {
		int ret = parse_option(p, word);

		if (ret < 0)
			return ret;
	}
	return 0;
}

static int fill_defaults(const struct parser *p)
{
	for (unsigned i = 0; i < p->opts->nr; i++) {
		struct opt *opt = &p->opts->opt[i];
		int ret;

		if (opt->given)
			continue;
		if (opt->def->required)
			return err_set(p->err, -EINVAL, "%s: missing %s= (%s)",
				       p->type, opt->def->key, opt->def->help);
		if (!opt->def->def)
			continue;
		opt->text = strdup(opt->def->def);
		if (!opt->text)
			return err_set(p->err, -ENOMEM, "%s: out of memory",
				       p->type);
		ret = check_value(p, opt);
		if (ret < 0)
			return ret;
	}
	return 0;
}

int opts_parse(const char *text, const struct opt_def *const tables[],
	       struct opts **ret_opts, struct err *err)
{
	struct parser p = { .opts = opts_create(tables, text), .err = err };
	size_t type_len = strcspn(text, ",");
	char *rest = NULL;
	int ret;

	snprintf(p.type, sizeof(p.type), "%.*s", (int)type_len, text);
	if (text[type_len])
		rest = strdup(text + type_len + 1);
	if (!p.opts || (text[type_len] && !rest))
		ret = err_set(err, -ENOMEM, "%s: out of memory", p.type);
	else
		ret = parse_words(&p, rest);
	free(rest);
	if (ret == 0)
		ret = fill_defaults(&p);
	if (ret < 0) {
		opts_free(p.opts);
		return ret;
	}
	*ret_opts = p.opts;
	return 0;
}

/*
 * --- Reading them ---
 */

static const struct opt *known(const struct opts *opts, const char *key)
{
	const struct opt *opt = find((struct opts *)opts, key);

	if (!opt)
		opt = find_pattern((struct opts *)opts, key);
	assert(opt); /* a key of the tables */
	return opt;
}

bool opt_given(const struct opts *opts, const char *key)
{
	return known(opts, key)->given;
}

const char *opt_string(const struct opts *opts, const char *key)
{
	return known(opts, key)->text;
}

bool opt_bool(const struct opts *opts, const char *key)
{
	return known(opts, key)->number;
}

uint64_t opt_number(const struct opts *opts, const char *key)
{
	return known(opts, key)->number;
}

const char *opt_next(const struct opts *opts, const char *pattern,
		     unsigned *pos)
{
	while (*pos < opts->nr) {
		const struct opt *opt = &opts->opt[(*pos)++];

		if (opt->key && opt->given && !strcmp(opt->def->key, pattern))
			return opt->key;
	}
	return NULL;
}

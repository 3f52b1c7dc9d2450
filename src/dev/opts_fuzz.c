/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzz target: the text of a device, as a user or a script writes it, for each
 * type. What is accepted keeps what the tables promise. Nothing is opened.
 */
#include <stdlib.h>
#include <string.h>

#include "dev/devices.h"
#include "fuzz.h"

static void check_number(const struct opts *opts, const struct opt_def *def,
			 const char *key)
{
	uint64_t n = opt_number(opts, key);

	if (!opt_given(opts, key))
		return;
	fuzz_must(n >= def->min);
	fuzz_must(def->max == 0 || n <= def->max);
}

/* A value is one of the choices that the table lists. */
static void check_choice(const struct opts *opts, const struct opt_def *def,
			 const char *key)
{
	const char *value = opt_string(opts, key), *c = def->choices;
	size_t len = value ? strlen(value) : 0;

	if (!value)
		return;
	for (; c; c = strchr(c, '|') ? strchr(c, '|') + 1 : NULL)
		if (strncmp(c, value, len) == 0 &&
		    (c[len] == '|' || c[len] == '\0'))
			return;
	fuzz_must(!"one of the choices");
}

static void check_key(const struct opts *opts, const struct opt_def *def,
		      const char *key)
{
	switch (def->kind) {
	case OPT_NUMBER:
	case OPT_SIZE:
		check_number(opts, def, key);
		break;
	case OPT_CHOICE:
		check_choice(opts, def, key);
		break;
	case OPT_BOOL:
		opt_bool(opts, key);
		break;
	case OPT_STRING:
		opt_string(opts, key);
		break;
	}
}

static void check_table(const struct opts *opts, const struct opt_def *table)
{
	for (const struct opt_def *def = table; def && def->key; def++) {
		const char *key;
		unsigned pos = 0;

		if (!strchr(def->key, '*')) {
			fuzz_must(!def->required || opt_given(opts, def->key));
			check_key(opts, def, def->key);
			continue;
		}
		while ((key = opt_next(opts, def->key, &pos)))
			check_key(opts, def, key);
	}
}

static void run(struct fuzz_in *in)
{
	const struct vdev_type *type;
	struct opts *opts;
	struct err err;
	uint64_t bytes;
	size_t len = in->left;
	char *text = calloc(1, len + 1);

	fuzz_bytes(in, text, len);
	opt_parse_size(text, &bytes);
	if (vdev_parse(text, &type, &opts, &err) == 0) {
		check_table(opts, type->vt_opts);
		check_table(opts, vdev_common_opts);
		vdev_rights(type, opts);
		opts_free(opts);
	} else {
		fuzz_must(err.text[0]); /* says why */
	}
	free(text);
}

const struct fuzz_target fuzz_target = { .run = run };

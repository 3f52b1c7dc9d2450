/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzz target: text that a user or a script writes. The first byte selects: a
 * device of each type; the words of a command; a port forwarding; a channel.
 * Accepted text satisfies the tables. Nothing is opened.
 */
#include <arpa/inet.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "back/chardev/chardev_impl.h"
#include "back/net/hostfwd.h"
#include "dev/devices.h"
#include "fuzz.h"
#include "viodev/cmd.h"
#include "viodev/log.h"
#include "viodev/transport.h"

#define MAX_WORDS 64

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

static void run_device(const char *text)
{
	const struct vdev_type *type;
	struct opts *opts;
	uint64_t bytes;
	struct err err;

	opt_parse_size(text, &bytes);
	if (vdev_parse(text, &type, &opts, &err) == 0) {
		check_table(opts, type->vt_opts);
		check_table(opts, vdev_common_opts);
		vdev_rights(type, opts);
		opts_free(opts);
	} else {
		fuzz_must(err.text[0]); /* says why */
	}
}

/*
 * --- The command line ---
 */

static unsigned nr_complaints;

/* Replaces cmdline.c's: one line tells the user what to do. */
int log_usage(const char *fmt, ...)
{
	char line[512];
	va_list ap;

	va_start(ap, fmt);
	fuzz_must(vsnprintf(line, sizeof(line), fmt, ap) > 0);
	va_end(ap);
	nr_complaints++;
	return EXIT_USAGE;
}

/* Words, one a line. --help would end the process. */
static unsigned split(char *text, char *words[MAX_WORDS + 1])
{
	unsigned nr = 0;
	char *word;

	while (nr < MAX_WORDS && (word = strsep(&text, "\n"))) {
		if (strncmp(word, "--help", 6) != 0)
			words[nr++] = word;
	}
	words[nr] = NULL;
	return nr;
}

static void run_cmdline(char *text)
{
	static const struct cmd cmd = {
		.name = "fuzz",
		.options = " transport dir sandbox memory once json verbose "
			   "print-qemu print-capabilities fd socket-path "
			   "blk-file evdev-path read-only ",
		.vmm = true,
	};
	char *words[MAX_WORDS + 1];
	unsigned nr = split(text, words), nr_vmm = 0;
	struct cmdline line;

	nr_complaints = 0;
	if (cmdline_parse(&cmd, words, &line) < 0) {
		fuzz_must(nr_complaints == 1);
		return;
	}
	fuzz_must(nr_complaints == 0);
	while (line.vmm && line.vmm[nr_vmm])
		nr_vmm++;
	fuzz_must((unsigned)line.nr_words + nr_vmm <= nr);
	fuzz_must(!line.words[line.nr_words]);
	fuzz_must(transport_name(line.transport));
	for (int i = 0; i < line.nr_words; i++)
		fuzz_must(strncmp(line.words[i], "--", 2) != 0);
}

/*
 * --- Parts of values ---
 */

static bool same(const struct hostfwd *a, const struct hostfwd *b)
{
	return hostfwd_same_host(a, b) &&
	       !memcmp(&a->guest, &b->guest, sizeof(a->guest));
}

/* No signs and no blanks, which strtoul() would accept. */
static bool is_plain(const char *rule)
{
	const char *ends = strchr(rule, ':');

	return ends &&
	       ends[strspn(ends, "0123456789abcdefABCDEF.:-[]")] == '\0' &&
	       strchr(ends, '-') == strrchr(ends, '-');
}

static void print_end(const union inet_addr *end, char text[64])
{
	char addr[INET6_ADDRSTRLEN];

	fuzz_must(end->in.sin_port);
	if (end->sa.sa_family == AF_INET) {
		inet_ntop(AF_INET, &end->in.sin_addr, addr, sizeof(addr));
		snprintf(text, 64, "%s:%u", addr, ntohs(end->in.sin_port));
		return;
	}
	fuzz_must(end->sa.sa_family == AF_INET6);
	inet_ntop(AF_INET6, &end->in6.sin6_addr, addr, sizeof(addr));
	snprintf(text, 64, "[%s]:%u", addr, ntohs(end->in6.sin6_port));
}

/* A parsed rule means the same when it is printed and parsed again. */
static void run_hostfwd(char *text)
{
	char rule[160], host[64], guest[64];
	bool plain = is_plain(text);
	struct hostfwd f, again;

	if (hostfwd_parse(text, &f) < 0)
		return;
	fuzz_must(plain);
	fuzz_must(f.host.sa.sa_family == f.guest.sa.sa_family);
	print_end(&f.host, host);
	print_end(&f.guest, guest);
	snprintf(rule, sizeof(rule), "%s:%s-%s", f.udp ? "udp" : "tcp", host,
		 guest);
	fuzz_must(hostfwd_parse(rule, &again) == 0 && same(&f, &again));
}

static void run_channel(const char *text)
{
	struct opened_files files = { 0 };
	const char *arg = NULL;
	const struct chardev_kind *kind = chardev_parse(text, &arg);
	struct err err = { "" };

	if (!kind) {
		fuzz_must(chardev_open(text, "0", &files, &err) < 0);
		fuzz_must(err.text[0]);
		return;
	}
	fuzz_must(!arg || (kind->arg && *arg));
	fuzz_must(arg || !kind->arg || kind->arg_optional);
	/* The others create files. */
	if (kind == &chardev_kind_fd && kind->open(arg, "0", &files, &err) < 0)
		fuzz_must(err.text[0]);
	opened_files_close(&files);
}

static void run(struct fuzz_in *in)
{
	unsigned what = fuzz_choice(in, 4);
	size_t len = in->left;
	char *text = calloc(1, len + 1);

	fuzz_bytes(in, text, len);
	switch (what) {
	case 0:
		run_device(text);
		break;
	case 1:
		run_cmdline(text);
		break;
	case 2:
		run_hostfwd(text);
		break;
	case 3:
		run_channel(text);
		break;
	}
	free(text);
}

const struct fuzz_target fuzz_target = { .run = run };

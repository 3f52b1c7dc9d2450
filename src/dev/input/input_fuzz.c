/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzz target: a driver that puts anything into the rings of an input device,
 * while ctl injects anything.
 */
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>

#include "dev/vdev.h"
#include "fuzz_dev.h"

#define NR_KINDS 4u

static struct fuzz_dev kinds[NR_KINDS];

static void setup(void)
{
	static const char *const texts[NR_KINDS] = {
		"input,kind=keyboard,queue-size=16",
		"input,kind=mouse,queue-size=16",
		"input,kind=tablet,queue-size=16",
		"input,kind=multitouch,queue-size=16",
	};

	for (unsigned i = 0; i < NR_KINDS; i++)
		fuzz_dev_make(&kinds[i], VDRV_MODERN, texts[i]);
}

static void make_word(struct fuzz_in *in, char *word, size_t size)
{
	unsigned kind = fuzz_choice(in, 4);

	if (kind == 0)
		snprintf(word, size, "%c%c", fuzz_choice(in, 256) | 1,
			 fuzz_choice(in, 256));
	else if (kind == 1)
		snprintf(word, size, "%d", (int)fuzz_int(in, 4));
	else
		snprintf(word, size, "%d", (int8_t)fuzz_int(in, 1));
}

static void inject(struct fuzz_dev *v, struct fuzz_in *in)
{
	static const char *const types[] = { "key", "btn", "rel", "abs",
					     "msc", "sw",  "syn", "" };
	struct json_object *reply = json_object_new_object();
	char words[3][16], *argv[11];
	struct opened_files none = { .nr = 0 };
	struct err err;
	int argc = 1 + (int)fuzz_choice(in, 10);

	strcpy(words[0], types[fuzz_choice(in, 8)]);
	make_word(in, words[1], sizeof(words[1]));
	make_word(in, words[2], sizeof(words[2]));
	argv[0] = (char[]){ "inject" };
	for (int i = 1; i <= 10; i++)
		argv[i] = words[(i - 1) % 3];
	argv[argc] = NULL;
	vdev_ctl(v->dev, argc, argv, &none, reply, &err);
	json_object_put(reply);
}

static void step(struct fuzz_dev *v, struct fuzz_in *in)
{
	unsigned q = fuzz_choice(in, 2);

	switch (fuzz_dev_next(v, 8, in)) {
	case 0:
		fuzz_dev_desc(v, q, in);
		break;
	case 1:
		fuzz_dev_bytes(v, in);
		break;
	case 2:
		fuzz_dev_avail(v, q, in);
		break;
	case 3:
		fuzz_dev_kick(v, q);
		break;
	case 4:
		fuzz_dev_config(v, in);
		break;
	case 5:
		inject(v, in);
		break;
	case 6:
		fuzz_dev_iterate();
		break;
	case 7:
		if (fuzz_one_in(in, 16))
			fuzz_dev_restart(v, ~0ull);
		break;
	}
}

static void run(struct fuzz_in *in)
{
	struct fuzz_dev *v = &kinds[fuzz_choice(in, NR_KINDS)];
	uint64_t without = VI_BIT(fuzz_choice(in, 64));

	fuzz_dev_start(v, fuzz_bool(in) ? ~without : ~0ull, 2);
	while (fuzz_more(in))
		step(v, in);
	fuzz_dev_end(v);
}

const struct fuzz_target fuzz_target = { .setup = setup, .run = run };

/* SPDX-License-Identifier: BSD-2-Clause */
/* Events by ctl: inject key KEY_A 1, inject abs X 100 abs Y 200, ... */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "dev/input/input.h"

static const struct event_type {
	const char *word, *prefix;
	uint16_t type;
} types[] = {
	{ "key", "KEY_", EV_KEY }, { "btn", "BTN_", EV_KEY },
	{ "rel", "REL_", EV_REL }, { "abs", "ABS_", EV_ABS },
	{ "msc", "MSC_", EV_MSC }, { "sw", "SW_", EV_SW },
};

static const struct event_type *find_type(const char *word)
{
	for (size_t i = 0; i < ARRAY_LEN(types); i++) {
		if (strcmp(types[i].word, word) == 0)
			return &types[i];
	}
	return NULL;
}

static bool parse_number(const char *word, long min, long max, long *ret_val)
{
	char *end;

	errno = 0;
	*ret_val = strtol(word, &end, 0);
	return end != word && !*end && !errno && *ret_val >= min &&
	       *ret_val <= max;
}

/* A code by number (2 for KEY_1), name (KEY_A) or its rest (a); or -1. */
static long find_code(const struct event_type *type, const char *word)
{
	char full[64], *name = full + strlen(type->prefix);
	size_t i = 0;
	long code;

	if (parse_number(word, 0, UINT16_MAX, &code))
		return code;
	if (strlen(word) >= sizeof(full) - strlen(type->prefix))
		return -1;
	strcpy(full, type->prefix);
	for (; word[i]; i++)
		name[i] = (char)toupper((unsigned char)word[i]);
	name[i] = '\0';
	code = libevdev_event_code_from_name(type->type, name);
	if (code < 0)
		code = libevdev_event_code_from_name(type->type, full);
	return code;
}

/* The values that Linux documents for an event of a device. */
static void value_range(const struct input_softc *sc, unsigned type,
			unsigned code, long *ret_min, long *ret_max)
{
	const struct input_absinfo *abs =
		type == EV_ABS ? libevdev_get_abs_info(sc->sc_desc, code) :
				 NULL;

	*ret_min = INT32_MIN;
	*ret_max = INT32_MAX;
	if (type == EV_KEY || type == EV_SW) {
		*ret_min = 0;
		*ret_max = type == EV_KEY ? 2 : 1; /* up, down, repeat */
	} else if (abs) {
		/* A lifted finger has the tracking ID -1. */
		*ret_min = code == ABS_MT_TRACKING_ID ? -1 : abs->minimum;
		*ret_max = abs->maximum;
	}
}

static int parse(const struct input_softc *sc, char *const words[3],
		 struct input_event *ev, struct err *err)
{
	const struct event_type *type = find_type(words[0]);
	long code, value, min, max;

	if (!type)
		return err_set(err, -EINVAL,
			       "input: inject %s: must be key, btn, rel, abs, "
			       "msc or sw",
			       words[0]);
	code = find_code(type, words[1]);
	if (code < 0)
		return err_set(
			err, -EINVAL,
			"input: inject %s %s: no such code: use a number or a "
			"name such as %s",
			words[0], words[1],
			libevdev_event_code_get_name(
				type->type, type->type == EV_KEY ? KEY_A : 0));
	if (!parse_number(words[2], INT32_MIN, INT32_MAX, &value))
		return err_set(err, -EINVAL,
			       "input: inject %s %s %s: not a number", words[0],
			       words[1], words[2]);
	if (!libevdev_has_event_code(sc->sc_desc, type->type, (unsigned)code))
		return err_set(
			err, -ENODEV,
			"input: inject %s %s: not supported by this device",
			words[0], words[1]);
	value_range(sc, type->type, (unsigned)code, &min, &max);
	if (value < min || value > max)
		return err_set(err, -ERANGE,
			       "input: inject %s %s %s: must be %ld to %ld",
			       words[0], words[1], words[2], min, max);
	*ev = (struct input_event){
		.type = type->type,
		.code = (uint16_t)code,
		.value = (int32_t)value,
	};
	return 0;
}

/* All words are checked before the first event is sent. */
int input_inject(struct input_softc *sc, int argc, char *const argv[],
		 struct err *err)
{
	struct input_event evs[INPUT_MAX_UPDATE - 1];
	int nr = argc / 3;

	if (argc == 0 || argc % 3)
		return err_set(err, -EINVAL,
			       "input: usage: inject TYPE CODE VALUE ..., such "
			       "as inject key KEY_A 1");
	if (nr > (int)ARRAY_LEN(evs))
		return err_set(err, -E2BIG, "input: inject: too many events");
	for (int i = 0; i < nr; i++) {
		int ret = parse(sc, argv + 3 * i, &evs[i], err);

		if (ret < 0)
			return ret;
	}
	if (!sc->sc_live)
		return err_set(err, -ENOTCONN,
			       "input: inject: no driver in the guest yet");
	if (!input_has_room(sc))
		return err_set(err, -EAGAIN,
			       "input: inject: event queue full, the guest is "
			       "not reading");
	for (int i = 0; i < nr; i++)
		input_feed(sc, evs[i].type, evs[i].code, evs[i].value);
	input_feed(sc, EV_SYN, SYN_REPORT, 0);
	return 0;
}

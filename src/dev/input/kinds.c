/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The virtual devices. Each has exactly what guests need to recognise it: a
 * mouse with keys would be a keyboard as well.
 */
#include <string.h>

#include "dev/input/input.h"

#define ABS_RANGE 32767
#define NR_SLOTS  10 /* fingers */

static void enable_range(struct libevdev *d, unsigned type, unsigned first,
			 unsigned last)
{
	for (unsigned code = first; code <= last; code++) {
		if (libevdev_event_code_get_name(type, code))
			libevdev_enable_event_code(d, type, code, NULL);
	}
}

static void enable_abs(struct libevdev *d, unsigned code, int max)
{
	const struct input_absinfo info = { .maximum = max };

	libevdev_enable_event_code(d, EV_ABS, code, &info);
}

static void make_keyboard(struct libevdev *d)
{
	const int delay_ms = 250, period_ms = 33;

	enable_range(d, EV_KEY, KEY_ESC, KEY_MICMUTE);
	enable_range(d, EV_LED, LED_NUML, LED_SCROLLL);
	libevdev_enable_event_code(d, EV_REP, REP_DELAY, &delay_ms);
	libevdev_enable_event_code(d, EV_REP, REP_PERIOD, &period_ms);
}

static void make_mouse(struct libevdev *d)
{
	enable_range(d, EV_KEY, BTN_LEFT, BTN_EXTRA);
	enable_range(d, EV_REL, REL_X, REL_Y);
	enable_range(d, EV_REL, REL_WHEEL, REL_WHEEL);
	enable_range(d, EV_REL, REL_HWHEEL, REL_HWHEEL);
}

/* A pointer with absolute coordinates, as VMs use instead of a mouse. */
static void make_tablet(struct libevdev *d)
{
	enable_range(d, EV_KEY, BTN_LEFT, BTN_EXTRA);
	enable_range(d, EV_REL, REL_WHEEL, REL_WHEEL);
	enable_range(d, EV_REL, REL_HWHEEL, REL_HWHEEL);
	enable_abs(d, ABS_X, ABS_RANGE);
	enable_abs(d, ABS_Y, ABS_RANGE);
}

static void make_multitouch(struct libevdev *d)
{
	libevdev_enable_property(d, INPUT_PROP_DIRECT);
	enable_range(d, EV_KEY, BTN_TOUCH, BTN_TOUCH);
	enable_abs(d, ABS_X, ABS_RANGE);
	enable_abs(d, ABS_Y, ABS_RANGE);
	enable_abs(d, ABS_MT_SLOT, NR_SLOTS - 1);
	enable_abs(d, ABS_MT_TRACKING_ID, UINT16_MAX);
	enable_abs(d, ABS_MT_POSITION_X, ABS_RANGE);
	enable_abs(d, ABS_MT_POSITION_Y, ABS_RANGE);
}

static const struct {
	const char *kind, *name;
	void (*make)(struct libevdev *d);
} kinds[] = {
	{ "keyboard", "viodev keyboard", make_keyboard },
	{ "mouse", "viodev mouse", make_mouse },
	{ "tablet", "viodev tablet", make_tablet },
	{ "multitouch", "viodev touch screen", make_multitouch },
};

struct libevdev *input_kind_create(const char *kind)
{
	struct libevdev *d = libevdev_new();
	int i = 0;

	if (!d)
		return NULL;
	while (strcmp(kinds[i].kind, kind) != 0)
		i++; /* it is one of INPUT_KINDS */
	libevdev_set_name(d, kinds[i].name);
	libevdev_set_id_bustype(d, BUS_VIRTUAL);
	libevdev_set_id_vendor(d, VIRTIO_VENDOR);
	libevdev_set_id_product(d, i + 1);
	libevdev_set_id_version(d, 1);
	kinds[i].make(d);
	return d;
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A device that moves to another process: what its driver has selected and set,
 * and the events that are still due. All but the selection are events as in the
 * queues (5.8.6):
 *
 *	select, subsel		a byte each
 *	event ...		all LEDs; what waits for buffers of the driver's
 *
 * Nobody at the other host releases a key that is held down at this one, so the
 * last update does.
 */
#include <errno.h>
#include <string.h>

#include "base/out.h"
#include "dev/input/input.h"

#define SELECTION 2u /* bytes */

static void write_event(struct out *out, unsigned type, unsigned code,
			int value)
{
	const struct input_wire ev = {
		cpu_to_le16((uint16_t)type),
		cpu_to_le16((uint16_t)code),
		cpu_to_le32((uint32_t)value),
	};

	out_write(out, &ev, sizeof(ev));
}

/*
 * --- What there is ---
 */

static void save_leds(const struct input_softc *sc, struct out *out)
{
	for (unsigned code = 0; code <= LED_MAX; code++) {
		int value;

		if (libevdev_fetch_event_value(sc->sc_desc, EV_LED, code,
					       &value))
			write_event(out, EV_LED, code, value);
	}
}

static void save_waiting(const struct input_softc *sc, struct out *out)
{
	for (unsigned i = 0; i < sc->sc_nr_waiting; i++) {
		unsigned at = (sc->sc_first + i) % INPUT_MAX_WAITING;

		out_write(out, &sc->sc_waiting[at], sizeof(sc->sc_waiting[at]));
	}
}

/*
 * Releases, for a device of the host; on others, ctl presses and releases keys.
 */
static void save_releases(const struct input_softc *sc, struct out *out)
{
	unsigned nr = 0;

	for (unsigned code = 0; code <= KEY_MAX; code++) {
		if (!input_has_room(sc) || nr == INPUT_MAX_UPDATE - 1 ||
		    !libevdev_get_event_value(sc->sc_desc, EV_KEY, code))
			continue;
		write_event(out, EV_KEY, code, 0);
		nr++;
	}
	if (nr > 0)
		write_event(out, EV_SYN, SYN_REPORT, 0);
}

ssize_t input_save(void *arg, void *buf, size_t room)
{
	const struct input_softc *sc = arg;
	struct out out = { .buf = buf, .size = room };

	out_write(&out, &sc->sc_config.select, 1);
	out_write(&out, &sc->sc_config.subsel, 1);
	save_leds(sc, &out);
	save_waiting(sc, &out);
	save_releases(sc, &out);
	return out.full ? -ENOSPC : (ssize_t)out.len;
}

/*
 * --- Taking it over ---
 */

static struct input_wire event_at(const uint8_t *state, unsigned i)
{
	struct input_wire ev;

	memcpy(&ev, state + SELECTION + i * sizeof(ev), sizeof(ev));
	return ev;
}

static bool is_led(const struct input_wire *ev)
{
	return le16_to_cpu(ev->type) == EV_LED;
}

/* Whether this device can send it, or receive it as status. */
static bool is_ours(const struct input_softc *sc, const struct input_wire *ev)
{
	unsigned type = le16_to_cpu(ev->type);

	return (is_led(ev) || !input_is_status(type)) &&
	       libevdev_has_event_code(sc->sc_desc, type,
				       le16_to_cpu(ev->code));
}

/* LEDs come first, and the last update is complete. */
static bool check(const struct input_softc *sc, const uint8_t *state,
		  unsigned nr)
{
	unsigned nr_waiting = 0;
	bool whole = true;

	for (unsigned i = 0; i < nr; i++) {
		const struct input_wire ev = event_at(state, i);

		if (!is_ours(sc, &ev) || (is_led(&ev) && nr_waiting > 0))
			return false;
		if (is_led(&ev))
			continue;
		whole = le16_to_cpu(ev.type) == EV_SYN &&
			le16_to_cpu(ev.code) == SYN_REPORT;
		nr_waiting++;
	}
	return whole && nr_waiting <= INPUT_MAX_WAITING;
}

int input_load(void *arg, const void *buf, size_t len)
{
	struct input_softc *sc = arg;
	const uint8_t *state = buf;
	unsigned nr = (unsigned)(len / sizeof(struct input_wire));

	if (len % sizeof(struct input_wire) != SELECTION ||
	    !check(sc, state, nr))
		return -EINVAL;
	input_select(sc, state[0], state[1]);
	sc->sc_first = sc->sc_nr_waiting = 0;
	for (unsigned i = 0; i < nr; i++) {
		const struct input_wire ev = event_at(state, i);

		if (is_led(&ev))
			input_set(sc, &ev);
		else
			sc->sc_waiting[sc->sc_nr_waiting++] = ev;
	}
	return 0;
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * An input device of the host, grabbed for the guest alone.
 *
 * Without buffers from the guest we do not read. If the kernel must drop
 * events, it reports so, and libevdev lists the changes: no key stays down for
 * ever.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <syslog.h>
#include <unistd.h>

#include "dev/input/input.h"

#define EVENT_BUDGET 256 /* per iteration of the loop */

int input_host_open(const char *path, struct err *err)
{
	const int flags = O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
	int fd = open(path, O_RDWR | flags);
	int ret;

	if (fd < 0 && errno == EACCES) /* then without LEDs */
		fd = open(path, O_RDONLY | flags);
	if (fd < 0)
		return err_set(err, -errno, "input: evdev=%s: %s%s", path,
			       strerror(errno),
			       errno == EACCES ?
				       ": needs root or the group input" :
				       "");
	if (ioctl(fd, EVIOCGRAB, 1) == 0)
		return fd;
	ret = -errno;
	close(fd);
	if (ret == -EBUSY)
		return err_set(err, ret,
			       "input: evdev=%s: in use by another program",
			       path);
	return err_set(err, ret, "input: evdev=%s: not an input device: %s",
		       path, strerror(-ret));
}

bool input_host_is_gone(int fd)
{
	int version;

	return ioctl(fd, EVIOCGVERSION, &version) < 0 && errno == ENODEV;
}

/* The guest repeats keys itself if the device can: drop the host's repeats. */
static bool is_repeat(const struct input_softc *sc,
		      const struct input_event *ev)
{
	return ev->type == EV_KEY && ev->value == 2 &&
	       libevdev_has_event_type(sc->sc_desc, EV_REP);
}

/* The next event, including those that libevdev synthesises; -EAGAIN: none. */
static int next_event(struct input_softc *sc, struct input_event *ev)
{
	int ret = -EAGAIN;

	if (sc->sc_syncing)
		ret = libevdev_next_event(sc->sc_desc, LIBEVDEV_READ_FLAG_SYNC,
					  ev);
	if (ret != -EAGAIN)
		return ret;
	ret = libevdev_next_event(sc->sc_desc, LIBEVDEV_READ_FLAG_NORMAL, ev);
	sc->sc_syncing = ret == LIBEVDEV_READ_STATUS_SYNC;
	return ret;
}

static void pass(struct input_softc *sc, const struct input_event *ev)
{
	if (ev->type == EV_SYN && ev->code == SYN_DROPPED)
		input_forget_update(sc);
	else if (!is_repeat(sc, ev))
		input_feed(sc, ev->type, ev->code, ev->value);
}

static void release(struct input_softc *sc, unsigned type, unsigned code,
		    int value)
{
	libevdev_set_event_value(sc->sc_desc, type, code, value);
	input_feed(sc, (uint16_t)type, (uint16_t)code, value);
}

static void release_keys(struct input_softc *sc)
{
	unsigned nr = 0;

	for (unsigned code = 0; code <= KEY_MAX; code++) {
		if (nr == INPUT_MAX_UPDATE - 1 ||
		    !libevdev_get_event_value(sc->sc_desc, EV_KEY, code))
			continue;
		release(sc, EV_KEY, code, 0);
		nr++;
	}
	input_feed(sc, EV_SYN, SYN_REPORT, 0);
}

static void lift_fingers(struct input_softc *sc)
{
	int nr = libevdev_get_num_slots(sc->sc_desc);

	for (int slot = 0; slot < nr && 2 * slot < (int)INPUT_MAX_UPDATE - 2;
	     slot++) {
		if (libevdev_get_slot_value(sc->sc_desc, (unsigned)slot,
					    ABS_MT_TRACKING_ID) < 0)
			continue;
		release(sc, EV_ABS, ABS_MT_SLOT, slot);
		release(sc, EV_ABS, ABS_MT_TRACKING_ID, -1);
	}
	input_feed(sc, EV_SYN, SYN_REPORT, 0);
}

/* Release what was held down: no event will. */
static void lose(struct input_softc *sc)
{
	input_host_stop(sc);
	close(sc->sc_fd);
	sc->sc_fd = -1;
	sc->sc_syncing = false;
	input_forget_update(sc);
	lift_fingers(sc);
	release_keys(sc);
}

/* The guest has read the configuration and does not read it again. */
static bool is_same(const struct libevdev *a, const struct libevdev *b)
{
	if (libevdev_get_id_vendor(a) != libevdev_get_id_vendor(b) ||
	    libevdev_get_id_product(a) != libevdev_get_id_product(b))
		return false;
	for (unsigned type = EV_KEY; type < EV_CNT; type++) {
		int max = libevdev_event_type_get_max(type);

		for (int code = 0; code <= max; code++) {
			if (libevdev_has_event_code(a, type, (unsigned)code) !=
			    libevdev_has_event_code(b, type, (unsigned)code))
				return false;
		}
	}
	return true;
}

int input_host_replace(struct input_softc *sc, int take_fd)
{
	struct libevdev *other = NULL;
	int ret = libevdev_new_from_fd(take_fd, &other);

	if (ret == 0 && !is_same(sc->sc_desc, other))
		ret = -EINVAL;
	libevdev_free(other);
	if (ret < 0) {
		close(take_fd);
		return ret;
	}
	if (sc->sc_fd >= 0)
		lose(sc);
	sc->sc_fd = take_fd;
	libevdev_change_fd(sc->sc_desc, take_fd);
	if (sc->sc_live)
		input_host_start(sc);
	return 0;
}

void input_host_on_reopened(void *arg, const int *take_fds, unsigned nr)
{
	struct input_softc *sc = arg;
	int ret;

	while (nr > 1)
		close(take_fds[--nr]);
	if (sc->sc_fd >= 0) { /* ctl has set one meanwhile */
		close(take_fds[0]);
		return;
	}
	ret = input_host_replace(sc, take_fds[0]);
	if (ret == 0)
		vs_log(&sc->sc_vs, LOG_NOTICE, "host device is back");
	else
		vs_log(&sc->sc_vs, LOG_WARNING,
		       "another host device at the same path: not used");
}

static void on_events(void *arg, uint32_t events)
{
	struct input_softc *sc = arg;
	unsigned budget = EVENT_BUDGET;
	struct input_event ev;
	int ret = 0;

	while (budget > 0 && input_has_room(sc) &&
	       (ret = next_event(sc, &ev)) >= 0) {
		pass(sc, &ev);
		budget--;
	}
	if (budget == 0)
		vio_task_defer(sc->sc_loop, &sc->sc_more);
	if (!input_has_room(sc)) {
		vio_source_remove(sc->sc_source);
		sc->sc_source = NULL;
	}
	if (ret == -EAGAIN && (events & (EPOLLHUP | EPOLLERR)))
		ret = -ENODEV;
	if (ret >= 0 || ret == -EAGAIN)
		return;
	vs_log(&sc->sc_vs, LOG_WARNING,
	       "host device lost: %s: waiting for its return (at another path: "
	       "viodev ctl ID evdev PATH)",
	       strerror(-ret));
	lose(sc);
	if (sc->sc_reopener)
		reopener_request(sc->sc_reopener);
}

void input_host_on_more(void *arg)
{
	struct input_softc *sc = arg;

	if (sc->sc_source)
		on_events(sc, EPOLLIN);
}

void input_host_resume(struct input_softc *sc)
{
	if (sc->sc_fd < 0 || sc->sc_source || !sc->sc_live ||
	    !input_has_room(sc))
		return;
	if (vio_fd_add(sc->sc_loop, sc->sc_fd, EPOLLIN, on_events, sc,
		       &sc->sc_source) < 0)
		vs_log(&sc->sc_vs, LOG_ERR, "host device lost");
	/* libevdev has read ahead, which epoll cannot see. */
	else if (libevdev_has_event_pending(sc->sc_desc) > 0)
		vio_task_defer(sc->sc_loop, &sc->sc_more);
}

void input_host_start(struct input_softc *sc)
{
	unsigned flag = LIBEVDEV_READ_FLAG_FORCE_SYNC;
	struct input_event ev;

	if (sc->sc_fd < 0)
		return;
	/* Take the present state and drop the events that led to it. */
	while (libevdev_next_event(sc->sc_desc, flag, &ev) >= 0)
		flag = LIBEVDEV_READ_FLAG_SYNC;
	sc->sc_syncing = false;
	input_host_resume(sc);
}

void input_host_stop(struct input_softc *sc)
{
	vio_source_remove(sc->sc_source);
	sc->sc_source = NULL;
	vio_task_cancel(sc->sc_loop, &sc->sc_more);
}

void input_host_set(struct input_softc *sc, const struct input_event *ev)
{
	/* Ignore failures: the device may have no LEDs. */
	if (sc->sc_fd >= 0 && write(sc->sc_fd, ev, sizeof(*ev)) < 0)
		return;
}

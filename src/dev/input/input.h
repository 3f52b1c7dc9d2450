/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The input device (virtio 5.8), inside.
 *
 *	input.c        the device: configuration, options, life and death
 *	kinds.c        what the virtual devices are
 *	host.c         a device of the host's, passed through
 *	inject.c       events by ctl
 *	events.c       events to the driver, and from it (LEDs)
 *	input_save.c   another process continues with the device
 *
 * What a device is and has, virtual or real, a struct libevdev says. Events
 * have the type, code and value of Linux's; those that belong together end
 * with a SYN_REPORT and are an update.
 */
#ifndef DEV_INPUT_INPUT_H
#define DEV_INPUT_INPUT_H

#include <assert.h>
#include <libevdev/libevdev.h>
#include <linux/virtio_input.h>

#include "base/le.h"
#include "base/opener.h"
#include "dev/vdev.h"

#define INPUT_MAX_UPDATE  256u  /* events; longer ones are dropped */
#define INPUT_MAX_WAITING 1024u /* events, for buffers of the driver's */
#define INPUT_MAX_NAME    128u  /* 5.8.4 */

/* As it goes through the queues, 5.8.6. */
struct input_wire {
	le16 type;
	le16 code;
	le32 value;
};
static_assert(sizeof(struct input_wire) == 8, "5.8.6");
static_assert(sizeof(struct virtio_input_config) == 136, "5.8.4");

struct input_softc {
	struct virtio_softc sc_vs;    /* first: callbacks get it as a void * */
	struct vqueue_info sc_vqs[2]; /* events, status */
	struct vdev sc_dev;
	struct vio_loop *sc_loop;
	struct virtio_input_config sc_config; /* what was selected */
	struct libevdev *sc_desc;

	/* The host's device; sc_fd is -1 for a virtual or a lost one. */
	bool sc_evdev; /* evdev= was given */
	int sc_fd;
	struct vio_source *sc_source;
	struct reopener *sc_reopener; /* finds it when it is back; or NULL */
	bool sc_syncing;              /* libevdev tells what we missed */
	struct vio_task sc_more;

	bool sc_live; /* a driver accepts events */
	struct input_wire sc_update[INPUT_MAX_UPDATE];
	unsigned sc_nr_update;
	bool sc_too_long;
	struct input_wire sc_waiting[INPUT_MAX_WAITING];
	unsigned sc_first, sc_nr_waiting;
	struct vio_task sc_continue;

	uint64_t sc_nr_events, sc_nr_dropped, sc_nr_status;
};
static_assert(offsetof(struct input_softc, sc_vs) == 0, "vs is cast to sc");

/*
 * --- input.c ---
 */

/* The driver wants to know this, 5.8.4. */
void input_select(struct input_softc *sc, uint8_t select, uint8_t subsel);

/*
 * --- kinds.c ---
 */

/* The names, for a table of options. */
#define INPUT_KINDS "keyboard|mouse|tablet|multitouch"

/* Describe one. NULL: no memory. */
struct libevdev *input_kind_create(const char *kind);

/*
 * --- host.c ---
 */

/* Open and grab: a descriptor, or -errno. */
int input_host_open(const char *path, struct err *err);

/* Whether it was unplugged: the descriptor never works again. */
bool input_host_is_gone(int fd);

/* Pass events on from now on; what happened before is stale. */
void input_host_start(struct input_softc *sc);
void input_host_stop(struct input_softc *sc);

/* Events may be read again, if there is room for them. */
void input_host_resume(struct input_softc *sc);
void input_host_on_more(void *arg);

/*
 * Continue with the same device under another descriptor. -EINVAL: it is a
 * different one. @take_fd is closed on failure.
 */
int input_host_replace(struct input_softc *sc, int take_fd);

/* For a reopener. */
void input_host_on_reopened(void *sc, const int *take_fds, unsigned nr);

/* Set an LED or the like. */
void input_host_set(struct input_softc *sc, const struct input_event *ev);

/*
 * --- inject.c ---
 */

/* Events as words, TYPE CODE VALUE each: one update. */
int input_inject(struct input_softc *sc, int argc, char *const argv[],
		 struct err *err);

/*
 * --- events.c ---
 */

/* Whether whatever update comes will be kept. */
bool input_has_room(const struct input_softc *sc);

/*
 * The next event. With a SYN_REPORT the update is sent, or waits; all of it is
 * dropped when no driver listens, or it is too long.
 */
void input_feed(struct input_softc *sc, uint16_t type, uint16_t code,
		int32_t value);

/* Forget the update that has begun. */
void input_forget_update(struct input_softc *sc);

/* What goes to a device: LEDs, sounds, autorepeat. And setting one it has. */
bool input_is_status(unsigned type);
void input_set(struct input_softc *sc, const struct input_wire *wire);

void input_send(struct input_softc *sc);
void input_take_status(struct input_softc *sc);
void input_continue(void *arg);
void input_events_reset(struct input_softc *sc);

/*
 * --- input_save.c: vc_save, vc_load ---
 */

ssize_t input_save(void *sc, void *buf, size_t room);
int input_load(void *sc, const void *buf, size_t len);

#endif

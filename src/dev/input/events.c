/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Events to the driver, and status from it (virtio 5.8.6).
 *
 * An update is collected until it is complete. Then it waits for buffers and is
 * never dropped in part, so that a driver never sees half of one.
 */
#include <string.h>

#include <viodev/iov.h>
#include "dev/input/input.h"

#define MAX_IOV 64 /* of a chain: 8 bytes in tiny pieces */

bool input_is_status(unsigned type)
{
	return type == EV_LED || type == EV_SND || type == EV_REP;
}

/*
 * --- Updates ---
 */

bool input_has_room(const struct input_softc *sc)
{
	return INPUT_MAX_WAITING - sc->sc_nr_waiting >= INPUT_MAX_UPDATE;
}

void input_forget_update(struct input_softc *sc)
{
	sc->sc_nr_update = 0;
	sc->sc_too_long = false;
}

static void end_update(struct input_softc *sc)
{
	unsigned nr = sc->sc_nr_update;

	if (!sc->sc_live || sc->sc_too_long ||
	    nr > INPUT_MAX_WAITING - sc->sc_nr_waiting) {
		sc->sc_nr_dropped++;
	} else {
		for (unsigned i = 0; i < nr; i++) {
			unsigned at = sc->sc_first + sc->sc_nr_waiting++;

			sc->sc_waiting[at % INPUT_MAX_WAITING] =
				sc->sc_update[i];
		}
	}
	input_forget_update(sc);
	input_send(sc);
}

void input_feed(struct input_softc *sc, uint16_t type, uint16_t code,
		int32_t value)
{
	bool end = type == EV_SYN && code == SYN_REPORT;

	/* Host devices echo status events, which guests must not see. */
	if (input_is_status(type) || (end && sc->sc_nr_update == 0))
		return;
	if (sc->sc_nr_update == INPUT_MAX_UPDATE)
		sc->sc_too_long = true;
	else
		sc->sc_update[sc->sc_nr_update++] = (struct input_wire){
			cpu_to_le16(type),
			cpu_to_le16(code),
			cpu_to_le32((uint32_t)value),
		};
	if (end)
		end_update(sc);
}

/*
 * --- The event queue ---
 */

/* Put the next event into a chain. */
static enum vq_served send_one(void *arg, struct vqueue_info *vq)
{
	struct input_softc *sc = arg;
	const struct input_wire *ev = &sc->sc_waiting[sc->sc_first];
	struct iovec iov[MAX_IOV];
	struct vio_iov_cursor to = { iov, 0 };
	struct vi_req req;
	bool fits;

	if (!sc->sc_nr_waiting) /* input_send() continues */
		return VQ_WAIT;
	if (vq_getchain(vq, iov, MAX_IOV, &req) <= 0)
		return VQ_IDLE;
	to.niov = req.writable;
	fits = !req.readable && vio_iov_len(&to) >= sizeof(*ev);
	if (fits) {
		vio_iov_write(&to, ev, sizeof(*ev));
		sc->sc_first = (sc->sc_first + 1) % INPUT_MAX_WAITING;
		sc->sc_nr_waiting--;
		sc->sc_nr_events++;
	}
	vq_relchain(vq, (uint16_t)req.idx, fits ? sizeof(*ev) : 0);
	return VQ_MORE;
}

void input_send(struct input_softc *sc)
{
	struct vqueue_info *vq = &sc->sc_vqs[0];
	enum vq_served served = vq_serve(vq, vq->vq_qsize, send_one, sc);

	vq_endchains(vq, served == VQ_IDLE);
	if (served == VQ_MORE)
		vio_task_defer(sc->sc_loop, &sc->sc_continue);
	input_host_resume(sc);
}

/*
 * --- The status queue ---
 */

void input_set(struct input_softc *sc, const struct input_wire *wire)
{
	const struct input_event ev = {
		.type = le16_to_cpu(wire->type),
		.code = le16_to_cpu(wire->code),
		.value = (int32_t)le32_to_cpu(wire->value),
	};

	libevdev_set_event_value(sc->sc_desc, ev.type, ev.code, ev.value);
	input_host_set(sc, &ev);
}

static void apply(struct input_softc *sc, const struct input_wire *wire)
{
	unsigned type = le16_to_cpu(wire->type);

	if (!input_is_status(type) ||
	    !libevdev_has_event_code(sc->sc_desc, type,
				     le16_to_cpu(wire->code)))
		return;
	sc->sc_nr_status++;
	input_set(sc, wire);
}

static enum vq_served take_one(void *arg, struct vqueue_info *vq)
{
	struct input_softc *sc = arg;
	struct iovec iov[MAX_IOV];
	struct vio_iov_cursor from = { iov, 0 };
	struct input_wire wire;
	struct vi_req req;
	bool whole;

	if (vq_getchain(vq, iov, MAX_IOV, &req) <= 0)
		return VQ_IDLE;
	from.niov = req.readable;
	whole = vio_iov_take(&from, &wire, sizeof(wire)) == sizeof(wire);
	vq_relchain(vq, (uint16_t)req.idx, 0);
	if (whole)
		apply(sc, &wire);
	return VQ_MORE;
}

void input_take_status(struct input_softc *sc)
{
	struct vqueue_info *vq = &sc->sc_vqs[1];
	enum vq_served served = vq_serve(vq, vq->vq_qsize, take_one, sc);

	vq_endchains(vq, served == VQ_IDLE);
	if (served == VQ_MORE)
		vio_task_defer(sc->sc_loop, &sc->sc_continue);
}

void input_continue(void *arg)
{
	struct input_softc *sc = arg;

	input_send(sc);
	input_take_status(sc);
}

void input_events_reset(struct input_softc *sc)
{
	vio_task_cancel(sc->sc_loop, &sc->sc_continue);
	input_forget_update(sc);
	sc->sc_nr_waiting = 0;
	sc->sc_live = false;
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The control queues (virtio 5.3.6.2).
 *
 *	driver				device
 *	DEVICE_READY	------------>
 *			<------------	DEVICE_ADD, for each port
 *	PORT_READY	------------>
 *			<------------	CONSOLE_PORT or PORT_NAME,
 *					PORT_OPEN if somebody is there, RESIZE
 *	PORT_OPEN	------------>	bytes may flow
 *
 * Messages to the driver are not queued. Each port records what the driver
 * knows, and the next message follows from the difference to the actual state.
 * So nothing is lost while the driver has no buffers, and nothing grows.
 */
#include <string.h>
#include <syslog.h>

#include "dev/console/console.h"

struct msg {
	le32 id;
	le16 event;
	le16 value;
};
static_assert(sizeof(struct msg) == 8, "5.3.6.2");

/*
 * The specification's order. Linux follows it since 2025, in stable series as
 * well; earlier versions read the rows first (TRAP-14).
 */
struct msg_size {
	le16 cols;
	le16 rows;
};

#define NOTHING (-1)

/*
 * --- To the driver ---
 */

static bool is_open(const struct console_port *p)
{
	return p->chardev && chardev_up(p->chardev);
}

/* The next message that the driver needs about a port; order matters. */
static int due(const struct console_port *p)
{
	if (p->added && (p->unplugged || !p->plugged))
		return VIRTIO_CONSOLE_PORT_REMOVE;
	if (!p->added) {
		/*
		 * A driver that resumes has kept its ports. Linux would answer
		 * with PORT_READY before it has set the port's queues up again,
		 * and then use those that it has freed.
		 */
		bool wait = p->sc->sc_resumed && p->kept;

		return p->plugged && !wait ? VIRTIO_CONSOLE_PORT_ADD : NOTHING;
	}
	if (!p->ready)
		return NOTHING;
	if (!p->name && !p->told_console)
		return VIRTIO_CONSOLE_CONSOLE_PORT;
	if (p->name && !p->told_name)
		return VIRTIO_CONSOLE_PORT_NAME;
	if (p->told_open ? !is_open(p) || p->closed : is_open(p))
		return VIRTIO_CONSOLE_PORT_OPEN;
	if (!p->name && !p->told_size && p->sc->sc_cols)
		return VIRTIO_CONSOLE_RESIZE;
	return NOTHING;
}

/* The message was sent. */
static void done(struct console_port *p, int event)
{
	switch (event) {
	case VIRTIO_CONSOLE_PORT_ADD:
	case VIRTIO_CONSOLE_PORT_REMOVE:
		p->added = p->kept = event == VIRTIO_CONSOLE_PORT_ADD;
		p->ready = p->guest_open = p->unplugged = false;
		break;
	case VIRTIO_CONSOLE_CONSOLE_PORT:
		p->told_console = true;
		break;
	case VIRTIO_CONSOLE_PORT_NAME:
		p->told_name = true;
		break;
	case VIRTIO_CONSOLE_PORT_OPEN:
		p->told_open = !p->told_open;
		p->closed = false;
		break;
	case VIRTIO_CONSOLE_RESIZE:
		p->told_size = true;
		break;
	}
}

static uint16_t value_of(const struct console_port *p, int event)
{
	switch (event) {
	case VIRTIO_CONSOLE_CONSOLE_PORT:
		return 1;
	case VIRTIO_CONSOLE_PORT_OPEN:
		return !p->told_open;
	default:
		return 0;
	}
}

/* Write the message, as far as there is room. Returns its length. */
static size_t encode(const struct console_port *p, int event,
		     struct vio_iov_cursor *to)
{
	const struct msg msg = {
		cpu_to_le32(p->id),
		cpu_to_le16((uint16_t)event),
		cpu_to_le16(value_of(p, event)),
	};
	const struct msg_size size = {
		cpu_to_le16(p->sc->sc_cols),
		cpu_to_le16(p->sc->sc_rows),
	};
	size_t len = vio_iov_write(to, &msg, sizeof(msg));

	if (event == VIRTIO_CONSOLE_RESIZE)
		len += vio_iov_write(to, &size, sizeof(size));
	if (event == VIRTIO_CONSOLE_PORT_NAME)
		len += vio_iov_write(to, p->name, strlen(p->name));
	return len;
}

/* The first port with a message due, or NULL. */
static struct console_port *due_port(struct console_softc *sc)
{
	for (unsigned i = 0; i < sc->sc_nr_ports; i++) {
		if (due(&sc->sc_ports[i]) != NOTHING)
			return &sc->sc_ports[i];
	}
	return NULL;
}

/* Put the next message into a buffer, if it is large enough. */
static enum vq_served send_next(void *arg, struct vqueue_info *vq)
{
	struct console_softc *sc = arg;
	struct console_port *p = due_port(sc);
	struct vio_iov_cursor to;
	struct vi_req req;
	size_t len = 0;

	if (!p) /* console_control_run() sends later ones */
		return VQ_WAIT;
	if (vq_getchain(vq, sc->sc_iov, CONSOLE_CHAIN_IOV, &req) <= 0)
		return VQ_IDLE;
	to = (struct vio_iov_cursor){ sc->sc_iov, req.writable };
	if (!req.readable && vio_iov_len(&to) >= sizeof(struct msg)) {
		int event = due(p);

		len = encode(p, event, &to);
		done(p, event);
	}
	vq_relchain(vq, (uint16_t)req.idx, (uint32_t)len);
	return VQ_MORE;
}

void console_control_run(struct console_softc *sc)
{
	struct vqueue_info *vq = &sc->sc_vqs[2];

	if (!console_multiport(sc) || !sc->sc_ready)
		return;
	if (vq_serve(vq, vq->vq_qsize, send_next, sc) == VQ_MORE)
		vio_task_defer(sc->sc_loop, &sc->sc_control_continue);
	vq_endchains(vq, 0);
}

/*
 * --- From the driver ---
 */

static void on_device_ready(struct console_softc *sc, uint16_t value)
{
	if (value != 1)
		vs_log(&sc->sc_vs, LOG_WARNING, "driver failed to start");
	sc->sc_ready = value == 1;
	sc->sc_resumed = false;
	for (unsigned i = 0; i < sc->sc_nr_ports; i++)
		sc->sc_ports[i].kept = sc->sc_ports[i].added;
}

/*
 * Linux keeps its ports while suspended. After the reset it sends PORT_READY
 * for each, without DEVICE_READY and without waiting for DEVICE_ADD. If a port
 * was unplugged meanwhile, Linux must remove it now.
 */
static bool is_known(struct console_port *p, uint16_t value)
{
	struct console_softc *sc = p->sc;

	if (p->added || value != 1)
		return p->added;
	if (!sc->sc_ready)
		sc->sc_ready = sc->sc_resumed = true;
	p->added = p->kept = p->plugged || sc->sc_resumed;
	return p->added;
}

static void on_port_ready(struct console_port *p, uint16_t value)
{
	if (!is_known(p, value))
		return;
	if (value != 1)
		vs_log(&p->sc->sc_vs, LOG_WARNING,
		       "port %u: rejected by the driver", p->id);
	p->ready = value == 1;
	p->told_console = p->told_name = p->told_size = false;
	if (p->sc->sc_resumed) {
		/*
		 * The driver may assume either: send the actual state, after
		 * any hang-up.
		 */
		p->told_open = p->closed || !is_open(p);
	} else {
		p->told_open = p->closed = false;
	}
}

static void on_port_open(struct console_port *p, uint16_t value)
{
	if (!p->added)
		return;
	p->guest_open = value;
	console_rx_run(p);
}

static void take(struct console_softc *sc, const struct msg *msg)
{
	uint32_t id = le32_to_cpu(msg->id);
	uint16_t event = le16_to_cpu(msg->event);
	uint16_t value = le16_to_cpu(msg->value);

	if (event == VIRTIO_CONSOLE_DEVICE_READY) {
		on_device_ready(sc, value);
		return;
	}
	if (id >= sc->sc_nr_ports)
		return;
	if (event == VIRTIO_CONSOLE_PORT_READY)
		on_port_ready(&sc->sc_ports[id], value);
	else if (event == VIRTIO_CONSOLE_PORT_OPEN)
		on_port_open(&sc->sc_ports[id], value);
}

static enum vq_served take_next(void *arg, struct vqueue_info *vq)
{
	struct console_softc *sc = arg;
	struct vio_iov_cursor from;
	struct vi_req req;
	struct msg msg;
	bool whole;

	if (vq_getchain(vq, sc->sc_iov, CONSOLE_CHAIN_IOV, &req) <= 0)
		return VQ_IDLE;
	from = (struct vio_iov_cursor){ sc->sc_iov, req.readable };
	whole = vio_iov_take(&from, &msg, sizeof(msg)) == sizeof(msg);
	vq_relchain(vq, (uint16_t)req.idx, 0);
	if (whole)
		take(sc, &msg); /* our copy: the guest's may change */
	return VQ_MORE;
}

void console_control_take(struct console_softc *sc)
{
	struct vqueue_info *vq = &sc->sc_vqs[3];
	enum vq_served served = vq_serve(vq, vq->vq_qsize, take_next, sc);

	vq_endchains(vq, served == VQ_IDLE);
	if (served == VQ_MORE)
		vio_task_defer(sc->sc_loop, &sc->sc_control_continue);
	console_control_run(sc);
}

void console_control_continue(void *arg)
{
	console_control_take(arg);
}

void console_control_reset(struct console_softc *sc)
{
	sc->sc_ready = sc->sc_resumed = false;
	vio_task_cancel(sc->sc_loop, &sc->sc_control_continue);
	for (unsigned i = 0; i < sc->sc_nr_ports; i++) {
		struct console_port *p = &sc->sc_ports[i];

		/*
		 * What told_* say is void until the port is ready again. The
		 * driver may resume: kept and unplugged stay.
		 */
		p->added = p->ready = p->guest_open = false;
	}
}

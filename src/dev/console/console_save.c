/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A device that moves to another process: its state as the driver knows it. As
 * before, the next control messages follow from the difference to the actual
 * state. A port that the other process lacks is removed, one that only it has
 * is added, and the driver learns whether a channel's peer has connected or
 * disconnected.
 *
 *	struct head
 *	struct port ...		all there is room for, by id
 */
#include <errno.h>
#include <string.h>
#include <syslog.h>

#include "dev/console/console.h"

struct head {
	le16 cols, rows;
	le16 ready; /* DEVICE_READY received */
	le16 nr_ports;
};
static_assert(sizeof(struct head) == 8, "no padding");

struct port {
	le32 tx_sent;
	le32 known;
	char name[CONSOLE_MAX_NAME]; /* rest: 0 */
};
static_assert(sizeof(struct port) == 72, "no padding");

enum { /* what the driver knows */
       ADDED = 0x001,
       UNPLUGGED = 0x002,
       GUEST_OPEN = 0x004,
       READY = 0x008,
       TOLD_CONSOLE = 0x010, /* this and below: only if ready */
       TOLD_NAME = 0x020,
       TOLD_OPEN = 0x040,
       TOLD_SIZE = 0x080,
       CLOSED = 0x100,
       ALL_TOLD = 0x1f0,
       ALL_KNOWN = 0x1ff,
};

static void write_name(const struct console_port *p,
		       char name[CONSOLE_MAX_NAME])
{
	memset(name, 0, CONSOLE_MAX_NAME);
	if (p->name)
		memcpy(name, p->name, strlen(p->name));
}

/*
 * --- What there is ---
 */

static unsigned known(const struct console_port *p)
{
	unsigned k = ADDED | (p->unplugged ? UNPLUGGED : 0) |
		     (p->guest_open ? GUEST_OPEN : 0);

	if (!p->added)
		return 0;
	if (!p->ready)
		return k;
	return k | READY | (p->told_console ? TOLD_CONSOLE : 0) |
	       (p->told_name ? TOLD_NAME : 0) | (p->told_open ? TOLD_OPEN : 0) |
	       (p->told_size ? TOLD_SIZE : 0) | (p->closed ? CLOSED : 0);
}

ssize_t console_save(void *arg, void *buf, size_t room)
{
	const struct console_softc *sc = arg;
	const struct head head = {
		.cols = cpu_to_le16(sc->sc_cols),
		.rows = cpu_to_le16(sc->sc_rows),
		.ready = cpu_to_le16(sc->sc_ready),
		.nr_ports = cpu_to_le16((uint16_t)sc->sc_nr_ports),
	};
	size_t len = sizeof(head) + sc->sc_nr_ports * sizeof(struct port);
	uint8_t *to = buf;

	if (len > room)
		return -ENOSPC;
	memcpy(to, &head, sizeof(head));
	to += sizeof(head);
	for (unsigned i = 0; i < sc->sc_nr_ports; i++) {
		const struct console_port *p = &sc->sc_ports[i];
		struct port port = {
			.tx_sent = cpu_to_le32((uint32_t)p->tx_sent),
			.known = cpu_to_le32(known(p)),
		};

		write_name(p, port.name);
		memcpy(to, &port, sizeof(port));
		to += sizeof(port);
	}
	return (ssize_t)len;
}

/*
 * --- Taking it over ---
 */

/* Whether a driver can be in this state. */
static bool is_possible(const struct console_softc *sc, const struct port *from)
{
	uint32_t k = le32_to_cpu(from->known);

	if ((k & ~(uint32_t)ALL_KNOWN) || (k && !console_multiport(sc)))
		return false;
	return (k & ADDED || !k) && (k & READY || !(k & ALL_TOLD));
}

/* The driver's output to one port must not appear at another. */
static bool is_another(const struct console_port *p, const struct port *from)
{
	char name[CONSOLE_MAX_NAME];
	uint32_t k = le32_to_cpu(from->known);

	write_name(p, name);
	return (k & ADDED) && !(k & UNPLUGGED) && p->plugged &&
	       memcmp(name, from->name, sizeof(name)) != 0;
}

static int check(struct console_softc *sc, const struct head *head,
		 const struct port *from)
{
	uint16_t ready = le16_to_cpu(head->ready);

	if (ready > 1 || (ready && !console_multiport(sc)))
		return -EINVAL;
	for (unsigned i = 0; i < sc->sc_nr_ports; i++) {
		if (!is_possible(sc, &from[i]))
			return -EINVAL;
		if (!is_another(&sc->sc_ports[i], &from[i]))
			continue;
		vs_log(&sc->sc_vs, LOG_WARNING,
		       "cannot restore port %u: its name differs here", i);
		return -EINVAL;
	}
	return 0;
}

/* The driver's number of queues follows from the number of ports. */
static int parse(struct console_softc *sc, const void *buf, size_t len,
		 struct head *head, struct port *from)
{
	unsigned nr;

	if (len < sizeof(*head))
		return -EINVAL;
	memcpy(head, buf, sizeof(*head));
	nr = le16_to_cpu(head->nr_ports);
	if (len != sizeof(*head) + nr * sizeof(*from))
		return -EINVAL;
	if (nr != sc->sc_nr_ports) {
		vs_log(&sc->sc_vs, LOG_WARNING,
		       "cannot restore: saved with ports=%u, here ports=%u", nr,
		       sc->sc_nr_ports);
		return -EINVAL;
	}
	memcpy(from, (const uint8_t *)buf + sizeof(*head), len - sizeof(*head));
	return check(sc, head, from);
}

static void take_port(struct console_port *p, const struct port *from)
{
	uint32_t k = le32_to_cpu(from->known);

	p->tx_sent = le32_to_cpu(from->tx_sent);
	p->added = k & ADDED;
	p->kept |= p->added;
	p->unplugged = k & UNPLUGGED;
	p->guest_open = k & GUEST_OPEN;
	p->ready = k & READY;
	p->told_console = k & TOLD_CONSOLE;
	p->told_name = k & TOLD_NAME;
	p->told_open = k & TOLD_OPEN;
	p->told_size = k & TOLD_SIZE;
	p->closed = k & CLOSED;
}

/* If the size is unknown here, keep the saved one. */
static void take_size(struct console_softc *sc, uint16_t cols, uint16_t rows)
{
	if (sc->sc_cols == 0) {
		sc->sc_cols = cols;
		sc->sc_rows = rows;
	}
	if (sc->sc_cols == cols && sc->sc_rows == rows)
		return;
	sc->sc_ports[0].told_size = false;
	if (sc->sc_vs.vs_negotiated_caps & VI_BIT(VIRTIO_CONSOLE_F_SIZE))
		vq_devcfg_changed(&sc->sc_vs);
}

int console_load(void *arg, const void *buf, size_t len)
{
	struct console_softc *sc = arg;
	struct port from[CONSOLE_MAX_PORTS];
	struct head head;
	int ret = parse(sc, buf, len, &head, from);

	if (ret < 0)
		return ret;
	sc->sc_ready = le16_to_cpu(head.ready);
	for (unsigned i = 0; i < sc->sc_nr_ports; i++)
		take_port(&sc->sc_ports[i], &from[i]);
	take_size(sc, le16_to_cpu(head.cols), le16_to_cpu(head.rows));
	return 0;
}

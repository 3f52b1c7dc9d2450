/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The console device (virtio 5.3), inside.
 *
 *	console.c        the device: configuration, options, control, life and death
 *	console_ctrl.c   the control queues
 *	port.c           the bytes of a port
 *	console_log.c    a copy of a port's output, in a file
 *	console_save.c   another process continues with the device
 *
 * Port 0 is the console, with console= behind it; without, it does not exist,
 * but its queues do. The others have names, and exist for drivers that take
 * MULTIPORT, which is offered when there are any or room for them. Queues:
 *
 *	0 rx of port 0	1 tx of port 0	2 to the driver	3 from the driver
 *	2p + 2 rx of port p >= 1	2p + 3 tx
 */
#ifndef DEV_CONSOLE_CONSOLE_H
#define DEV_CONSOLE_CONSOLE_H

#include <assert.h>
#include <linux/virtio_console.h>

#include "back/chardev/chardev.h"
#include <viodev/iov.h>
#include "base/le.h"
#include "dev/vdev.h"

#define CONSOLE_MAX_PORTS  31u /* with the console */
#define CONSOLE_MAX_QUEUES (2 * CONSOLE_MAX_PORTS + 2)
#define CONSOLE_MAX_NAME   64u

#define CONSOLE_CHAIN_IOV 256  /* of one chain */
#define CONSOLE_MAX_IOV   1024 /* of all that move together: the kernel's */
#define CONSOLE_BATCH     64u  /* chains, likewise */

struct console_softc;

/* The newest output that had no peer: a ring. */
struct console_backlog {
	uint8_t *buf;
	size_t size, start, len;
};

/* The copy of a port's output, in a file. */
struct console_log {
	struct chardev *file; /* NULL: none */
	/* Bytes that the file has, of those that the port writes next. */
	size_t ahead;
	bool waiting, hangs; /* output waits for the file; no longer */
	struct vio_source *timer;
	uint64_t lost;
	uint64_t told_ns; /* when its last failure was logged; or 0 */
};

struct console_port {
	struct console_softc *sc;
	unsigned id;
	const char *name; /* NULL: the console, or that it does not exist */
	char added_name[CONSOLE_MAX_NAME + 1]; /* by ctl: name is this */
	struct chardev *chardev; /* NULL: port 0 without console= */
	bool plugged;            /* it exists, as ctl has it */

	/*
	 * What the driver knows of it. What is not as it should be is a
	 * message that it must get, see console_control_run().
	 */
	bool added, ready; /* DEVICE_ADD was sent; PORT_READY came */
	bool kept;         /* still known to a driver that resumes */
	bool told_console, told_name, told_open, told_size;
	bool unplugged, closed; /* since it was told otherwise */
	bool guest_open;

	struct vio_task tx_continue;
	/*
	 * Of the chain that is the next on the tx queue, so many bytes have
	 * been written. It is not taken: no chain is, between iterations.
	 */
	size_t tx_sent;
	unsigned rx_batch; /* chains to take at once */
	struct console_backlog backlog;
	struct console_log log;
	uint64_t told_ns; /* when the channel's last failure was logged; or 0 */
	uint64_t rx_bytes, tx_bytes, tx_lost;
};

struct console_softc {
	struct virtio_softc sc_vs;  /* first: callbacks get it as a void * */
	struct virtio_consts sc_vc; /* its own: the number of queues varies */
	struct vqueue_info sc_vqs[CONSOLE_MAX_QUEUES];
	struct vdev sc_dev;
	struct vio_loop *sc_loop;
	struct chardev_io *sc_io, *sc_log_io; /* of the channels, and of logs */
	uint16_t sc_cols, sc_rows;            /* 0: unknown */
	bool sc_drop;                         /* overflow=drop */
	bool sc_ready;   /* DEVICE_READY came, or is implied: */
	bool sc_resumed; /* the driver kept its ports over a reset */
	struct vio_task sc_control_continue;
	unsigned sc_nr_ports;
	struct console_port sc_ports[CONSOLE_MAX_PORTS];
	struct iovec sc_iov[CONSOLE_MAX_IOV]; /* of chains just taken */
};
static_assert(offsetof(struct console_softc, sc_vs) == 0, "vs is cast to sc");

static inline bool console_multiport(const struct console_softc *sc)
{
	return sc->sc_vs.vs_negotiated_caps &
	       VI_BIT(VIRTIO_CONSOLE_F_MULTIPORT);
}

/*
 * --- console.c ---
 */

/* Tell the driver the size of the console's window. */
void console_resize(struct console_softc *sc, uint16_t cols, uint16_t rows);

/*
 * --- console_ctrl.c ---
 */

/* Send what the driver does not know yet, as far as it has buffers. */
void console_control_run(struct console_softc *sc);

/* Take what the driver says. */
void console_control_take(struct console_softc *sc);

void console_control_continue(void *arg);
void console_control_reset(struct console_softc *sc);

/*
 * --- port.c ---
 */

/* A character that does not come from a queue: it never waits. */
void console_emergency(struct console_port *p, uint8_t byte);

/* Move bytes until there are none, or the other side must act first. */
void console_rx_run(struct console_port *p);
void console_tx_run(struct console_port *p);

void console_port_reset(struct console_port *p);
void console_tx_forget(struct console_port *p); /* its queue was reset */
void console_tx_continue(void *arg);

extern const struct chardev_client console_chardev_client;

/*
 * --- console_log.c ---
 */

/* The channel that writes to @path; the caller frees it. NULL: no memory. */
char *console_log_channel(const char *path);

/*
 * Log to what was opened as @id from now on, as its @channel. 0, or -errno: the
 * log is as it was.
 */
int console_log_set(struct console_port *p, const char *channel, const char *id,
		    struct opened_files *files, struct err *err);
void console_log_end(struct console_port *p);

/*
 * The port is about to write @out: shorten it to what the log has now. False:
 * nothing, and console_tx_run() is called later. Then, so much was written.
 */
bool console_log_begin(struct console_port *p, struct vio_iov_cursor *out);
void console_log_written(struct console_port *p, size_t len);

/* A byte that waits for nothing. */
void console_log_byte(struct console_port *p, uint8_t byte);

/* The guest has forgotten what it was writing. */
void console_log_reset(struct console_port *p);

/* Tell the operator that a file cannot be written: not often. */
void console_tell_failure(struct console_port *p, uint64_t *told_ns,
			  const char *what, const char *why);

/*
 * --- console_save.c: vc_save, vc_load ---
 */

ssize_t console_save(void *sc, void *buf, size_t room);
int console_load(void *sc, const void *buf, size_t len);

#endif

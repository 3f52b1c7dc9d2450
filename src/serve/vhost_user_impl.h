/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the files of the vhost-user server share. Not installed.
 *
 *	vhost_user.c	    front-ends attach and detach
 *	vhost_user_cmd.c    message dispatch; features, config
 *	vhost_user_conn.c   the socket as a stream of messages
 *	vhost_user_msg.c    messages as checked structs
 *	vhost_user_mem.c    guest memory, its log, the in-flight area
 *	vhost_user_ring.c   rings: when they run, and what runs them
 *	vhost_user_state.c  the device's state, to and from other back-ends
 *
 * The state of a device follows from its rings. A ring runs once the front-end
 * has set its size, addresses and doorbell and has enabled it:
 *
 *	configured --SET_VRING_ENABLE 1, or the last setting--> running
 *	running --GET_VRING_BASE, SET_VRING_ENABLE 0, disconnect--> configured
 *
 * To stop, the ring is paused until its requests have ended, however long that
 * takes. The message that stops it is then handled again, and answered. Until
 * then the server handles no other message of that front-end, while the loop
 * continues to serve other rings, the control socket, and a disconnection. The
 * same holds for memory that requests still use: a message that removes it is
 * answered late.
 *
 * Not every front-end reports a guest's reset. But when all rings have stopped
 * and start again at entry 0, there is a new driver, and the device is reset
 * before it runs. Rings that continue at other entries belong to a guest that
 * was paused or migrated.
 */
#ifndef SERVE_VHOST_USER_IMPL_H
#define SERVE_VHOST_USER_IMPL_H

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <viodev/gmem.h>
#include <viodev/loop.h>
#include <viodev/net.h>
#include <viodev/virtio.h>

#include "serve/server_impl.h"
#include "serve/vhost_user_conn.h"
#include "serve/vhost_user_msg.h"

#define VHUSER_MAX_RING_SIZE 32768u /* entries, 2.7 */

struct vhuser_mapping;
struct vq_left;

struct vhuser_region {
	struct vhmsg_region r;
	struct vhuser_mapping *m; /* NULL until it is in the table */
};

struct vhuser_ring {
	struct vhuser *srv;
	uint16_t index;
	uint16_t size; /* 0: not set */
	bool has_base;
	uint32_t base;        /* where to continue, see vi_stop_queue() */
	struct vq_left *left; /* chains to take before that */
	bool has_addr;
	struct vhmsg_vring_addr addr;
	int kick_fd, call_fd, err_fd; /* or -1 */
	bool polled;                  /* has no kick_fd and never will */
	struct vio_source *kick_source;
	bool enabled;
	bool running;
};

#define VHUSER_MAX_STATE 32768u

struct vhuser_state {
	int fd; /* the state's pipe; or -1 */
	struct vio_source *source;
	bool saving;
	bool too_long;
	int result; /* of the last one: 0 or -errno */
	size_t done, len;
	uint8_t buf[VHUSER_MAX_STATE];
};

struct vhuser {
	struct vio_server base;

	/* The device: from vio_server_listen() on. */
	struct virtio_softc *vs;
	struct vhuser_ring *rings;
	unsigned nr_rings, nr_running;
	bool used; /* a ring has run since the device was reset */

	/* The front-end. */
	struct vhconn conn;
	struct vio_source *conn_source;
	struct vhconn_msg msg; /* being handled */
	bool working;          /* a message is handled, up the stack */
	bool woken;            /* meanwhile */
	bool waiting;          /* to handle it again, or to answer it: */
	bool ran;              /* it has been handled, with */
	ssize_t result;
	unsigned nr_leaving; /* removed ones that requests still use */
	bool has_features;
	uint64_t features;   /* as acknowledged, with protocol bits */
	uint64_t protocol;   /* features of the protocol */
	uint8_t status;      /* as the front-end wrote it */
	int backend_fd;      /* for our requests; or -1 */
	bool config_changed; /* but the front-end was not yet notified */
	struct vio_source *poll_timer; /* for rings without doorbell */
	struct vhuser_region regions[VHMSG_MAX_SLOTS];
	unsigned nr_regions;
	struct mapping log_map;
	uint64_t log_len;
	struct mapping inflight_map;
	struct vhmsg_inflight inflight;
	struct vhuser_state state; /* last: large and rarely used */
};

static_assert(offsetof(struct vhuser, base) == 0, "to_vhuser() casts");

static inline struct vhuser *to_vhuser(struct vio_server *base)
{
	return (struct vhuser *)base;
}

/*
 * A message's handler: the number of bytes written to @reply, or -errno.
 * VHUSER_LATER: a ring is stopping; the handler is called again when it has
 * stopped, and starts from the beginning.
 */
#define VHUSER_LATER (-EINPROGRESS)
typedef ssize_t vhuser_handler(struct vhuser *srv, const struct vhconn_msg *msg,
			       uint8_t *reply);

static inline int vhuser_take_fd(const struct vhconn_msg *msg, unsigned i)
{
	int fd = msg->fds[i];

	msg->fds[i] = -1;
	return fd;
}

/*
 * --- vhost_user_cmd.c ---
 */

/*
 * Handle a message and answer it. VHUSER_LATER: call again when requests have
 * ended. Other -errno: the connection must be closed.
 */
int vhuser_handle(struct vhuser *srv, const struct vhconn_msg *msg);

/* Reset the device; what the front-end negotiated holds for the next driver.
 * No ring runs. */
int vhuser_renew(struct vhuser *srv);

/* The features that the driver accepted, without protocol bits. */
uint64_t vhuser_driver_features(const struct vhuser *srv);

/* Whether its rings are packed. */
static inline bool vhuser_packed(const struct vhuser *srv)
{
	return vhuser_driver_features(srv) & VI_BIT(VIRTIO_F_RING_PACKED);
}

/*
 * A driver accepted them in another back-end: reset the device, and negotiate
 * them. -EINVAL if the front-end negotiated others.
 */
int vhuser_adopt_features(struct vhuser *srv, uint64_t features);

/* Restore a network device's own MTU. */
void vhuser_forget_mtu(struct vhuser *srv);

/* Notify the front-end that the device's configuration changed. */
void vhuser_tell_config(struct vhuser *srv);

void vhuser_cmd_reset(struct vhuser *srv); /* the front-end has disconnected */

/*
 * --- vhost_user_mem.c ---
 */

vhuser_handler vhuser_set_mem_table, vhuser_add_mem_reg, vhuser_rem_mem_reg;
vhuser_handler vhuser_set_log_base, vhuser_get_inflight, vhuser_set_inflight;
void vhuser_mem_reset(struct vhuser *srv); /* the front-end has disconnected */
void vhuser_mem_reap(struct vhuser *srv);  /* memory is no longer used */
void vhuser_mem_fini(struct vhuser *srv);  /* the device is gone */

/* The guest address of what the front-end sees at @uaddr. 0 or -EFAULT. */
int vhuser_translate(const struct vhuser *srv, uint64_t uaddr,
		     uint64_t *ret_gpa);

/* Turn the dirty log on or off, as the features say. */
void vhuser_update_log(struct vhuser *srv);

/* A memory file for the in-flight area that the front-end asked for. */
int vhuser_inflight_file(const struct vhmsg_inflight *area);

/* Where ring @index, of @size entries, records its requests; or NULL. */
int vhuser_inflight_area(struct vhuser *srv, unsigned index, unsigned size,
			 void **ret_area);

/* Forget what was in flight. No ring runs. */
void vhuser_inflight_clear(struct vhuser *srv);

/*
 * --- vhost_user_ring.c ---
 */

vhuser_handler vhuser_set_vring_num, vhuser_set_vring_addr;
vhuser_handler vhuser_set_vring_base, vhuser_get_vring_base;
vhuser_handler vhuser_set_vring_kick, vhuser_set_vring_call;
vhuser_handler vhuser_set_vring_err, vhuser_set_vring_enable;

int vhuser_rings_init(struct vhuser *srv);
void vhuser_rings_fini(struct vhuser *srv);

/* 0, or VHUSER_LATER while their requests are in flight. */
int vhuser_stop_rings(struct vhuser *srv);
int vhuser_enable_rings(struct vhuser *srv, bool on);

/* Stop all at once and forget their requests. */
void vhuser_forget_requests(struct vhuser *srv);

/* The same, and forget the front-end's ring settings. */
void vhuser_rings_reset(struct vhuser *srv);

/* The device's interrupts, for struct vi_transport. */
void vhuser_interrupt(struct virtio_softc *vs, uint8_t isr, uint16_t vector);
void vhuser_devcfg_changed(struct virtio_softc *vs);

/*
 * --- vhost_user_state.c ---
 */

vhuser_handler vhuser_set_state_fd, vhuser_check_state;
void vhuser_state_reset(struct vhuser *srv); /* no front-end, or no more */

#endif

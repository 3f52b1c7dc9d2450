/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * For tests of the console device: the device on a pretend driver, with both
 * sides in hand. The other end of each channel is a socket of ours.
 */
#ifndef TESTS_LIB_CONSOLE_RIG_H
#define TESTS_LIB_CONSOLE_RIG_H

#include <linux/virtio_console.h>

#include <viodev/loop.h>

#include "dev/vdev.h"
#include "vdrv.h"

#define RIG_MAX_PORTS 31
#define RIG_CTL_ROOM  128 /* bytes of a control receive buffer */

struct rig {
	struct vdrv d;
	struct vio_loop *loop;
	struct vdev *dev;
	unsigned nr_ports; /* the console and ports p1, p2, ... */
	int host[RIG_MAX_PORTS];
	uint64_t ctl_gpa; /* for messages to the device */
};

/* A message that the device sent. */
struct rig_msg {
	uint32_t id, used;
	uint16_t event, value;
	uint8_t rest[RIG_CTL_ROOM - 8];
};

/*
 * Make the device with so many ports, and options after those that name the
 * ports; nothing is done as the driver yet.
 */
void rig_make(struct rig *r, enum vdrv_mode mode, unsigned nr_ports,
	      const char *more);
void rig_fini(struct rig *r);

/* Negotiate @features and set up all queues there are. */
void rig_start(struct rig *r, uint64_t features);

/* All of it: also the handshake, up to where bytes flow on every port. */
void rig_open(struct rig *r, enum vdrv_mode mode, unsigned nr_ports);

void rig_turns(struct rig *r, int n);

unsigned rig_rxq(unsigned port);
unsigned rig_txq(unsigned port);

/* Send a control message; its first @len bytes. */
void rig_say(struct rig *r, uint32_t id, uint16_t event, uint16_t value);
void rig_say_bytes(struct rig *r, const void *msg, uint32_t len);

/* Offer @nr receive buffers for control messages. */
void rig_ctl_offer(struct rig *r, unsigned nr, uint32_t len);

/* The next message. False: there is none. */
bool rig_hear(struct rig *r, struct rig_msg *ret_msg);

/* Hear and expect exactly this. */
void rig_expect(struct rig *r, uint32_t id, uint16_t event, uint16_t value);

/* The guest writes to a port: one chain of one buffer. */
void rig_write(struct rig *r, unsigned port, const void *buf, uint32_t len);

/* A `ctl` command, words separated by blanks: what it returns. */
int rig_ctl(struct rig *r, const char *words);
int rig_ctl_with(struct rig *r, const char *words, struct opened_files *files);

/* A number, or a truth, that a port's status says. */
int64_t rig_status(struct rig *r, unsigned port, const char *key);

#endif

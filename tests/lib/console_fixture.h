/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * For tests of the console device: the device on a pretend driver. The test
 * drives both sides; the other end of each channel is a socket of its own.
 */
#ifndef TESTS_LIB_CONSOLE_FIXTURE_H
#define TESTS_LIB_CONSOLE_FIXTURE_H

#include <linux/virtio_console.h>

#include <viodev/loop.h>

#include "dev/vdev.h"
#include "vdrv.h"

#define FIXTURE_MAX_PORTS 31
#define FIXTURE_CTL_ROOM  128 /* bytes of a control receive buffer */

struct fixture {
	struct vdrv d;
	struct vio_loop *loop;
	struct vdev *dev;
	unsigned nr_ports; /* the console and ports p1, p2, ... */
	int host[FIXTURE_MAX_PORTS];
	uint64_t ctl_gpa; /* for messages to the device */
};

/* A message that the device sent. */
struct fixture_msg {
	uint32_t id, used;
	uint16_t event, value;
	uint8_t rest[FIXTURE_CTL_ROOM - 8];
};

/*
 * Create the device with so many ports, and options after those that name the
 * ports. The driver does nothing yet.
 */
void fixture_make(struct fixture *r, enum vdrv_mode mode, unsigned nr_ports,
		  const char *more);
void fixture_fini(struct fixture *r);

/* Negotiate @features and set up all queues there are. */
void fixture_start(struct fixture *r, uint64_t features);

/* Do all of that and the handshake, until bytes flow on every port. */
void fixture_open(struct fixture *r, enum vdrv_mode mode, unsigned nr_ports);

void fixture_iterate(struct fixture *r, int n);

unsigned fixture_rxq(unsigned port);
unsigned fixture_txq(unsigned port);

/* Send a control message; its first @len bytes. */
void fixture_say(struct fixture *r, uint32_t id, uint16_t event,
		 uint16_t value);
void fixture_say_bytes(struct fixture *r, const void *msg, uint32_t len);

/* Offer @nr receive buffers for control messages. */
void fixture_ctl_offer(struct fixture *r, unsigned nr, uint32_t len);

/* Receive the next message. False: no message. */
bool fixture_hear(struct fixture *r, struct fixture_msg *ret_msg);

/* Hear and expect exactly this. */
void fixture_expect(struct fixture *r, uint32_t id, uint16_t event,
		    uint16_t value);

/* The guest writes to a port: one chain of one buffer. */
void fixture_write(struct fixture *r, unsigned port, const void *buf,
		   uint32_t len);

/* A `ctl` command, words separated by blanks: what it returns. */
int fixture_ctl(struct fixture *r, const char *words);
int fixture_ctl_with(struct fixture *r, const char *words,
		     struct opened_files *files);

/* A number or boolean of a port's status. */
int64_t fixture_status(struct fixture *r, unsigned port, const char *key);

#endif

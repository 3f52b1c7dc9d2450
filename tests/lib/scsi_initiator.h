/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * For tests: a SCSI initiator, which sends commands through the pretend driver
 * to a device with a few images, as a guest's driver does.
 */
#ifndef TESTS_LIB_SCSI_INITIATOR_H
#define TESTS_LIB_SCSI_INITIATOR_H

#include <viodev/device.h>
#include <viodev/loop.h>

#include "base/util.h"
#include "dev/scsi/scsi.h"
#include "vdrv.h"

#define IMAGE_BYTES  (2u << 20)
#define IMAGE_BLOCKS (IMAGE_BYTES / 512)

struct initiator {
	struct vdrv d;
	struct vio_loop *loop;
	struct vdev *dev;
	char dir[64];
	uint32_t cdb_size, sense_size; /* as the driver set them */
};

extern struct initiator ini;

/* A command to send. */
struct cmd {
	uint8_t cdb[16];
	uint8_t addr[8]; /* all zero: target 0, LUN 0 */
	uint64_t id;
	uint8_t attr;
	unsigned queue; /* request queue, from 0 */
	uint32_t in_len, out_len;
	const void *out; /* NULL: zeroes */
};

/* A command that is under way, and what came of it. */
struct sent {
	uint16_t head;
	unsigned queue;
	uint64_t req, resp, data;
	uint32_t in_len;
	bool done;
	uint32_t used;
	uint8_t response, status;
	uint32_t residual, sense_len;
	uint32_t code; /* of the sense, 0: none */
	uint8_t sense[96];
	uint8_t *in; /* data in */
};

/* %d in @options is replaced by the directory of the images. */
void ini_text(const char *options, char *text, size_t size);
void ini_init(enum vdrv_mode mode); /* all but the device */
void ini_create(enum vdrv_mode mode, const char *options);
void ini_start(const char *options);
void ini_close(void); /* the device, as a restart does */
void ini_stop(void);  /* and its images */
void ini_image(const char *name, uint64_t bytes); /* of 'a'..'z' by block */
void ini_restart_now(void); /* the driver; it does not wait for the reset */
void ini_iterate_once(int timeout_ms);
void ini_iterate(int n);

struct sent ini_add(const struct cmd *c);      /* make available */
struct sent ini_send(const struct cmd *c);     /* and kick */
void ini_wait(struct sent *all, unsigned nr);  /* until they are done */
struct sent ini_do(const struct cmd *c);       /* send and wait */
struct sent ini_do_ready(const struct cmd *c); /* unit attentions first */
uint8_t ini_tmf(uint32_t subtype, const uint8_t addr[8], uint64_t id);
void ini_collect(struct sent *all, unsigned nr); /* what is done by now */

#define LUN_ADDR(target, lun) \
	{ 1, (target), 0x40 | (lun) >> 8, (lun) & 0xff, 0, 0, 0, 0 }

#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the tests of the block device share: one device on a pretend PCI
 * function, its image, its driver, and the requests that the driver makes.
 */
#ifndef TESTS_LIB_BLOCK_FIXTURE_H
#define TESTS_LIB_BLOCK_FIXTURE_H

#include <linux/virtio_blk.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <viodev/loop.h>

#include "core/core.h"
#include "dev/devices.h"
#include "disk_fault.h"
#include "vdrv.h"

#include <cmocka.h>

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

#define KIB           1024u
#define IMAGE_BYTES   (1024u * KIB)
#define IMAGE_SECTORS (IMAGE_BYTES / 512)

#define BIT(f)       VI_BIT(VIRTIO_BLK_F_##f)
#define ALL_FEATURES (~0ull)
#define NEEDS_RESET  VIRTIO_CONFIG_STATUS_NEEDS_RESET
#define NO_STATUS    0xee /* what the status byte holds before */
#define T_FLUSH_OUT  5

enum {
	OK = VIRTIO_BLK_S_OK,
	IOERR = VIRTIO_BLK_S_IOERR,
	UNSUPP = VIRTIO_BLK_S_UNSUPP
};

/* A request in guest memory. */
struct request {
	uint64_t hdr, data, status; /* guest addresses */
	uint32_t len;               /* of the data */
	bool in;                    /* the device writes the data */
	bool no_data;
};

struct seg {
	uint64_t sector;
	uint32_t nr_sectors, flags;
};

extern bool threads; /* which engine this run uses */
extern struct vdrv d;
extern struct vio_loop *loop;
extern struct vdev *dev;
extern char path[128];
extern uint8_t model[IMAGE_BYTES]; /* what the image should hold */

void make_image(void);

/* While the driver waits for a reset to end. */
void on_idle(void *arg);

/* Only the device: the driver has not started. */
void create(enum vdrv_mode mode, const char *options);
void start(enum vdrv_mode mode, const char *options, uint64_t features);
void destroy(void);
int setup(void **state);
int teardown(void **state);
void assert_image_is_model(void);

/* Wait for the next used entry of @q. */
struct vdrv_used wait_used(unsigned q);
void iterate(int n);
struct request make_req(uint32_t type, uint64_t sector, uint32_t len, bool in);
uint8_t *req_data(const struct request *r);
uint8_t req_status(const struct request *r);

/* Make it available, divided like drivers do. */
uint16_t add_req(unsigned q, const struct request *r);

/* Execute it: returns its status. */
uint8_t do_req(const struct request *r, uint32_t *ret_used);
uint8_t do_simple(uint32_t type, uint64_t sector, uint32_t len, bool in);
uint8_t do_write(uint64_t sector, uint32_t len);
struct request make_segs(uint32_t type, const struct seg *segs, unsigned nr);
uint8_t do_seg(uint32_t type, uint64_t sector, uint32_t nr_sectors,
	       uint32_t flags);

/* Run the loop until nothing is in flight. */
void wait_idle(void);

/* A disk that hangs, and a read that does not complete. */
struct request start_slow_read(enum vdrv_mode mode, uint32_t len);

#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/* What the tests of the network device share. */
#ifndef TESTS_LIB_NET_FIXTURE_H
#define TESTS_LIB_NET_FIXTURE_H

#include "base/util.h"
#include "dev/net/net.h"
#include "net_mock.h"
#include "vdrv.h"

extern const struct vdev_type vdev_net;

#define ALL_FEATURES (~0ull)
#define NEEDS_RESET  VIRTIO_CONFIG_STATUS_NEEDS_RESET
#define RXQ          0
#define TXQ          1
#define HDR          12u
#define NO_ACK       0xee /* no answer */
#define TSO4         (NET_F(CSUM) | NET_F(HOST_TSO4))
#define TEST(f)      cmocka_unit_test_setup_teardown(f, setup, teardown)

/* The device, its driver, its backend and a frame to play with. */
extern struct vdrv d;
extern struct vio_loop *loop;
extern struct vdev *dev;
extern struct net_mock *mock;
extern uint8_t frame[NET_MAX_FRAME];
extern const uint8_t mac[6];

int setup(void **state);
int teardown(void **state);

/* A device on a mock backend; for all, @nr_queues / 2 pairs and a driver. */
void create_as(enum vdrv_mode mode, const char *options, unsigned channels,
	       bool offloads);
void start_as(enum vdrv_mode mode, const char *options, uint64_t features,
	      unsigned nr_queues);
void destroy(void);

void iterate(void);
bool broken(void);

/* Send a command. Returns the ack, or NO_ACK if there was none. */
uint8_t command_on(unsigned q, uint8_t class, uint8_t cmd, const void *data,
		   size_t len, void *result, size_t result_len);
uint8_t command(uint8_t class, uint8_t cmd, const void *data, size_t len);

/* Post a buffer of @len bytes, filled with 0xee, to receive queue @q. */
uint64_t give_rx(unsigned q, uint32_t len);

/* The first @len bytes of frame arrive on channel 0. */
bool arrive(const struct virtio_net_hdr *hdr, size_t len);

/* How many buffers of queue @q were used, and in drained_bytes how full. */
unsigned drain(unsigned q);
extern unsigned drained_bytes;

/* Send @len bytes of frame behind @hdr in one buffer. */
void send_frame(unsigned q, const struct net_hdr *hdr, size_t hdr_len,
		size_t len);

#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the tests of the network backends share: one backend, its options, the
 * loop that it runs on, and the device that receives from it.
 */
#ifndef TESTS_LIB_NET_BE_FIXTURE_H
#define TESTS_LIB_NET_BE_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "back/net/net_be.h"

#include <cmocka.h>

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

extern const struct opt_def be_opts[];
extern struct vio_loop *loop;
extern struct opts *opts;
extern struct net_be *be;
extern const struct net_be_client client;

/* A frame to send. */
extern uint8_t frame[NET_MAX_FRAME];

/* The client's callbacks, and the frames it took. */
struct net_be_got {
	uint8_t data[NET_MAX_FRAME];
	ssize_t len; /* of the last frame */
	unsigned nr, nr_writable, nr_links, channel;
	bool link;
	bool full;      /* takes nothing */
	bool only_ours; /* takes a frame of ours, and ignores others */
};
extern struct net_be_got got;

/* The beginnings of the frames before. */
struct net_be_before {
	uint8_t data[64][64];
	unsigned nr, looked; /* free-running */
};
extern struct net_be_before before;

int setup(void **state);
int teardown(void **state);

/* Parse, open and create; must_open() watches channel 0 as well. */
int open_be(const char *text, struct err *err);
void must_open(const char *text);
void close_be(void);

/* A backend=fd on one end of a pair of sockets. Returns the other end. */
int pair_up(int type);
int tcp_pair_up(void);

/* One frame from the backend, into got; one to it. */
ssize_t receive(unsigned channel, size_t room);
int send_to(unsigned channel, const void *data, size_t len);

/* A few iterations of the loop, without waiting. */
void iterate(void);

/* The checksum of an IP header. */
uint16_t ip_sum(const uint8_t *p, size_t len);

/* A UDP frame from the guest. Returns its length. */
size_t make_udp(uint8_t *f, const char *src, const char *dst, uint16_t sport,
		uint16_t dport, const void *data, size_t len);

#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A backend for tests: it records what the device sends, and the device
 * receives what the test offers.
 */
#ifndef TESTS_LIB_NET_MOCK_H
#define TESTS_LIB_NET_MOCK_H

#include <linux/virtio_net.h>

#include "back/net/net_be.h"

#define MOCK_QUEUE 64

struct net_mock_frame {
	struct virtio_net_hdr hdr;
	size_t len;
	uint8_t data[NET_MAX_FRAME + 16];
};

struct net_mock {
	struct net_be be;
	bool watched[NET_MAX_CHANNELS];
	struct net_mock_frame *in[NET_MAX_CHANNELS][MOCK_QUEUE];
	unsigned nr_in[NET_MAX_CHANNELS];
	struct net_mock_frame sent; /* the last one */
	unsigned sent_channel;
	unsigned nr_sent;
	int send_ret; /* what the next sends say */
	int recv_ret; /* what receiving says, if it fails */
	uint64_t offloads;
	unsigned channels;
};

/* All features that a tap has, or none. */
struct net_mock *net_mock_create(unsigned channels, bool offloads);

/*
 * A frame arrives; @hdr may be NULL. It waits while the device does not watch.
 * False: too many wait.
 */
bool net_mock_arrive(struct net_mock *m, unsigned channel,
		     const struct virtio_net_hdr *hdr, const void *frame,
		     size_t len);

#endif

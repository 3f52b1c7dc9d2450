/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Frames of a malicious guest that knows its protocols, generated from the
 * input of a fuzz target, with checksums that are mostly right.
 */
#ifndef TESTS_LIB_NET_GEN_H
#define TESTS_LIB_NET_GEN_H

#include "fuzz.h"

#define NET_GEN_MAX_FRAME 8192u

struct net_gen {
	uint16_t tcp_port, udp_port; /* of the host, where something listens */
	/* What the last segment that the guest received lets it answer. */
	uint16_t sport, dport;
	uint32_t seq, ack;
	size_t tcp_bytes; /* of data in all segments */
};

/* Make a frame; returns its length, at most NET_GEN_MAX_FRAME. */
size_t net_gen_frame(struct net_gen *g, struct fuzz_in *in, uint8_t *frame);

/* A segment that opens a connection to tcp_port, its number near the wrap. */
size_t net_gen_syn(struct net_gen *g, struct fuzz_in *in, uint8_t *frame);

/* Look at what the guest received. */
void net_gen_learn(struct net_gen *g, const uint8_t *frame, size_t len);

#endif

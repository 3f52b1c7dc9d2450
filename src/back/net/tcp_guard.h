/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Keeps from libslirp what it cannot handle of a guest's TCP.
 *
 * - Urgent data: before 4.9.2 it trusts the urgent pointer and sends memory
 *   beyond its buffer. Urgent data become ordinary data here, as RFC 6093
 *   permits to a middlebox.
 * - Segments out of order: it stores each of them, however short, in a buffer
 *   of at least 1.6 KiB: 200 MiB for one connection. Nothing reorders segments
 *   between a guest and its gateway, so early ones are dropped; the guest's TCP
 *   retransmits them.
 * - A segment that ends at one particular sequence number: before 4.8 the walk
 *   of the reassembly queue mistakes the queue's head for a segment when the
 *   number stored there is next. See guard_end().
 *
 * At most the last 4,096 connections are tracked. All frames of both directions
 * pass here.
 */
#ifndef BACK_NET_TCP_GUARD_H
#define BACK_NET_TCP_GUARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TCP_GUARD_SETS 1024u
#define TCP_GUARD_WAYS 4u

struct tcp_flow {
	uint8_t key[36]; /* address and port of the guest and the peer */
	uint32_t next;   /* the guest's expected sequence number */
	uint32_t acked;  /* the last one that libslirp acknowledged */
	uint32_t edge;   /* of the window that libslirp offered */
	uint32_t last;   /* start of the last segment passed on */
	uint32_t used;   /* last use, counted in segments; 0: free */
	bool v6;
	uint8_t nr_early; /* early segments that were passed on */
};

struct tcp_guard {
	bool fragile; /* libslirp is older than 4.8 */
	uint32_t now; /* counts segments */
	uint64_t nr_early, nr_urgent, nr_bad;
	struct tcp_flow flows[TCP_GUARD_SETS][TCP_GUARD_WAYS];
};

/*
 * Check a frame of the guest, and change it where needed. Returns the number of
 * bytes to pass to libslirp; 0: drop it.
 */
size_t tcp_guard_from_guest(struct tcp_guard *g, uint8_t *frame, size_t len);

/* Inspect a frame from libslirp. */
void tcp_guard_to_guest(struct tcp_guard *g, const uint8_t *frame, size_t len);

/*
 * Forget the connection that has been idle for longest. Returns the length of a
 * frame that resets it, as if the guest had sent it; 0 without a connection.
 */
#define TCP_GUARD_RESET_BYTES 74u
size_t tcp_guard_reset_oldest(struct tcp_guard *g,
			      uint8_t frame[TCP_GUARD_RESET_BYTES]);

/* Whether a frame of the guest is TCP; whether it opens a connection. */
bool tcp_guard_is_tcp(const uint8_t *frame, size_t len);
bool tcp_guard_is_syn(const uint8_t *frame, size_t len);

#endif

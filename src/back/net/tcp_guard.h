/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What libslirp must not see of a guest's TCP.
 *
 * - Urgent data: before 4.9.2 it believes the urgent pointer and sends what
 *   lies behind its buffer. Here urgent data are ordinary data, as RFC 6093
 *   lets a middlebox make them.
 * - Segments out of order: it keeps each of them, one byte or not, in a buffer
 *   of 1.6 KiB and more: 200 MiB for one connection. Between a guest and its
 *   gateway nothing overtakes, so what comes too early is dropped; the guest's
 *   TCP sends it again.
 * - A segment that ends at one certain sequence number: before 4.8 the walk of
 *   the reassembly queue takes the queue's head for a segment when the number
 *   that lies there comes next. See guard_end().
 *
 * Connections are known by their last 4,096 at most. All frames both ways pass
 * here.
 */
#ifndef BACK_NET_TCP_GUARD_H
#define BACK_NET_TCP_GUARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TCP_GUARD_SETS 1024u
#define TCP_GUARD_WAYS 4u

struct tcp_flow {
	uint8_t key[36]; /* the guest's address and port, the other's */
	uint32_t next;   /* the guest's next sequence number, as we think */
	uint32_t acked;  /* and as libslirp said last */
	uint32_t edge;   /* of the window that it offered */
	uint32_t last;   /* the segment that it got last began here */
	uint32_t used;   /* when, counted in segments; 0: free */
	bool v6;
	uint8_t nr_early; /* segments that were early, though we passed them */
};

struct tcp_guard {
	bool fragile; /* libslirp is older than 4.8 */
	uint32_t now; /* counts segments */
	uint64_t nr_early, nr_urgent, nr_bad;
	struct tcp_flow flows[TCP_GUARD_SETS][TCP_GUARD_WAYS];
};

/*
 * Judge a frame of the guest, which may be changed. Returns how much of it to
 * hand to libslirp, 0 for nothing.
 */
size_t tcp_guard_from_guest(struct tcp_guard *g, uint8_t *frame, size_t len);

/* Look at a frame that libslirp sends. */
void tcp_guard_to_guest(struct tcp_guard *g, const uint8_t *frame, size_t len);

/*
 * Forget the connection that has been quiet for longest. Returns the length of
 * a frame that resets it, as if the guest had sent it; 0 if there is none.
 */
#define TCP_GUARD_RESET_BYTES 74u
size_t tcp_guard_reset_oldest(struct tcp_guard *g,
			      uint8_t frame[TCP_GUARD_RESET_BYTES]);

/* Whether a frame of the guest is TCP, or asks for a new connection. */
bool tcp_guard_is_tcp(const uint8_t *frame, size_t len);
bool tcp_guard_is_syn(const uint8_t *frame, size_t len);

#endif

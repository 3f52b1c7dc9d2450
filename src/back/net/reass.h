/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Reassembly of IPv4 fragments (RFC 791, 3.2), in memory of a fixed size.
 *
 * Some versions of libslirp crash on fragments, and all of them store as many
 * as a guest sends. So libslirp gets whole datagrams, reassembled here.
 *
 * A datagram is delivered when all of its bytes have arrived. Where fragments
 * overlap, the one that arrived first wins. A datagram that is incomplete after
 * REASS_TIMEOUT_NS is dropped, and so is the oldest one when there are more
 * than REASS_NR_SLOTS.
 */
#ifndef BACK_NET_REASS_H
#define BACK_NET_REASS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define REASS_NR_SLOTS   4u
#define REASS_TIMEOUT_NS UINT64_C(30000000000)
#define REASS_MAX_BYTES  65536u     /* of a datagram, in units of 8 */
#define REASS_HDR_BYTES  (14u + 60) /* Ethernet, IPv4 with all options */

struct reass_slot {
	uint64_t deadline_ns;         /* 0: the slot is free */
	uint8_t key[12];              /* source, destination, id, protocol */
	uint8_t hdr[REASS_HDR_BYTES]; /* of the first fragment */
	size_t hdr_len;               /* 0: it has not arrived */
	size_t nr_units, nr_wanted;   /* of 8 bytes; 0: not known yet */
	size_t data_len;              /* known if nr_wanted is */
	uint64_t has[REASS_MAX_BYTES / 8 / 64]; /* a bit for each unit */
	uint8_t bytes[REASS_HDR_BYTES + REASS_MAX_BYTES];
};

struct reass {
	struct reass_slot slots[REASS_NR_SLOTS];
	uint64_t nr_fragments; /* that arrived */
	uint64_t nr_datagrams; /* reassembled */
	uint64_t nr_dropped;   /* incomplete datagrams, and bad fragments */
};

/* Whether an Ethernet frame holds a fragment of an IPv4 datagram. */
bool reass_is_fragment(const uint8_t *frame, size_t len);

/*
 * Take a fragment. Returns the length of the frame with the whole datagram,
 * which *ret_frame points to until the next call, or 0 when none is complete.
 */
size_t reass_add(struct reass *r, const uint8_t *frame, size_t len,
		 uint64_t now_ns, uint8_t **ret_frame);

#endif

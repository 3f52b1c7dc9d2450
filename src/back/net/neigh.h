/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The guest's addresses, told to libslirp before it has to ask.
 *
 * What libslirp has for an address whose Ethernet address it does not know it
 * keeps for a second, as much as there is: a guest that pings the gateway from
 * addresses it never owns up to costs hundreds of megabytes, and time, because
 * all of it is looked at for each frame. But whoever sends a frame says in it
 * where answers go.
 */
#ifndef BACK_NET_NEIGH_H
#define BACK_NET_NEIGH_H

#include <stddef.h>
#include <stdint.h>

#define NEIGH_KNOWN 8u  /* libslirp has room for 16 of IPv4, and of IPv6 */
#define NEIGH_BYTES 78u /* of the longest announcement */

struct neigh {
	struct {
		uint8_t addr[16];
		uint8_t eth[6];
	} known[NEIGH_KNOWN];
	unsigned next;
};

/*
 * The frame that libslirp needs before @frame, if it does: its length, or 0.
 */
size_t neigh_announce(struct neigh *n, const uint8_t *frame, size_t len,
		      uint8_t announcement[NEIGH_BYTES]);

#endif

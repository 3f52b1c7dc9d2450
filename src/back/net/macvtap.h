/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A macvtap link, whose frames pass through a character device of its own.
 * Once that is open it is worked like a tap.
 */
#ifndef BACK_NET_MACVTAP_H
#define BACK_NET_MACVTAP_H

#include <stdbool.h>
#include <stdint.h>

/* Whether an interface of this name exists that may be one. */
bool macvtap_is(const char *name);

/*
 * Open its device, /dev/tapN of interface N; where /dev lacks that, a node is
 * made for a moment. Each descriptor is a queue. Returns it or -errno.
 */
int macvtap_open(const char *name);

/*
 * The address of the link behind a descriptor: frames for another one do not
 * arrive. False: it is no macvtap.
 */
bool macvtap_mac(int fd, uint8_t mac[6]);

/* Give it an address, as far as its mode allows that. */
void macvtap_set_mac(int fd, const uint8_t mac[6]);

#endif

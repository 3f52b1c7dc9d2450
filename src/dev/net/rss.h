/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Hashing of incoming packets and steering by the hash (virtio 5.1.6.4.3,
 * 5.1.6.5.6.4 and .7). Pure functions.
 */
#ifndef DEV_NET_RSS_H
#define DEV_NET_RSS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <viodev/virtio_bits.h>

#include <viodev/iov.h>

#define NET_RSS_KEY_MAX   40
#define NET_RSS_TABLE_MAX 128

/* As much of a frame as is looked at: two tags, IPv6 and some extensions. */
#define NET_RSS_PEEK 256

/* IPv4, IPv6, IPv6 with extension headers: alone, with TCP and with UDP. */
#define NET_RSS_TYPES 0x1ffu

struct net_rss {
	bool steering; /* RSS_CONFIG was given */
	uint32_t types;
	uint16_t mask;
	uint16_t unclassified;             /* receive queue, from 0 */
	uint16_t table[NET_RSS_TABLE_MAX]; /* likewise */
	uint16_t max_tx;                   /* transmit queues in use */
	uint16_t max_rx;                   /* the highest of the above, and 1 */
	uint8_t key_len;
	uint8_t key[NET_RSS_KEY_MAX];
};

/*
 * Read the data of RSS_CONFIG or, with @steering unset, HASH_CONFIG. False,
 * and nothing is changed, when it makes no sense for @nr_pairs pairs.
 */
bool net_rss_parse(struct net_rss *rss, struct vio_iov_cursor *data,
		   bool steering, unsigned nr_pairs);

/*
 * The hash of a frame of which the first @len bytes are given: what hash
 * report calls the kind of it, 0 (NONE) when there is no hash.
 */
uint16_t net_rss_hash(const struct net_rss *rss, const uint8_t *frame,
		      size_t len, uint32_t *ret_hash);

/* Which receive queue a frame goes to. */
unsigned net_rss_queue(const struct net_rss *rss, uint16_t report,
		       uint32_t hash);

#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/* What is in the headers of IP, as far as we look into them. */
#ifndef BACK_NET_INET_H
#define BACK_NET_INET_H

#include <stddef.h>
#include <stdint.h>

#define ETH_BYTES     14u
#define ETH_IP4       0x0800
#define ETH_ARP       0x0806
#define ETH_IP6       0x86dd
#define IP4_MIN_BYTES 20u
#define IP6_BYTES     40u

static inline uint16_t inet_read16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static inline uint32_t inet_read32(const uint8_t *p)
{
	return (uint32_t)inet_read16(p) << 16 | inet_read16(p + 2);
}

static inline void inet_write16(uint8_t *p, uint16_t val)
{
	p[0] = (uint8_t)(val >> 8);
	p[1] = (uint8_t)val;
}

/*
 * The Internet checksum before its complement is taken (RFC 1071), going on
 * from @sum. Over bytes that include a right checksum it is 0xffff.
 */
uint16_t inet_sum(const uint8_t *p, size_t len, uint16_t sum);

#endif

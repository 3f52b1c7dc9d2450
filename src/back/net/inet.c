/* SPDX-License-Identifier: BSD-2-Clause */
#include "back/net/inet.h"

#include <string.h>

uint16_t inet_sum(const uint8_t *p, size_t len, uint16_t sum)
{
	uint64_t total = sum;

	for (; len >= 2; p += 2, len -= 2)
		total += inet_read16(p);
	if (len)
		total += (uint64_t)p[0] << 8;
	while (total >> 16)
		total = (total & 0xffff) + (total >> 16);
	return (uint16_t)total;
}

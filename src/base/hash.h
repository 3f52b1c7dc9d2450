/* SPDX-License-Identifier: BSD-2-Clause */
/* FNV-1a, for names and for noticing damage; not against an adversary. */
#ifndef BASE_HASH_H
#define BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

static inline uint64_t hash64(const void *p, size_t len)
{
	const uint8_t *b = p;
	uint64_t h = 0xcbf29ce484222325;

	while (len--)
		h = (h ^ *b++) * 0x100000001b3;
	return h;
}

#endif

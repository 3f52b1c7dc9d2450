/* SPDX-License-Identifier: BSD-2-Clause */
/* FNV-1a, for names and for noticing damage; not against an adversary. */
#ifndef BASE_HASH_H
#define BASE_HASH_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define HASH_START UINT64_C(0xcbf29ce484222325)

static inline uint64_t hash_add(uint64_t hash, const void *p, size_t len)
{
	const uint8_t *b = p;

	while (len--)
		hash = (hash ^ *b++) * UINT64_C(0x100000001b3);
	return hash;
}

static inline uint64_t hash64(const void *p, size_t len)
{
	return hash_add(HASH_START, p, len);
}

/* Hash a string with its terminating zero; start with HASH_START. */
static inline uint64_t hash_text(uint64_t hash, const char *text)
{
	return hash_add(hash, text, strlen(text) + 1);
}

#endif

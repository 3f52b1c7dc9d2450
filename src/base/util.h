/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef BASE_UTIL_H
#define BASE_UTIL_H

#include <stddef.h>
#include <stdint.h>

/* The struct of @type in which @ptr points at @member. */
#define container_of(ptr, type, member) \
	((type *)(void *)((char *)(ptr) - offsetof(type, member)))

#define ARRAY_LEN(array) (sizeof(array) / sizeof((array)[0]))

/* FNV-1a, of a text and the zero behind it; begun with HASH_START. */
#define HASH_START UINT64_C(0xcbf29ce484222325)

static inline uint64_t hash_text(uint64_t hash, const char *text)
{
	do {
		hash = (hash ^ (uint8_t)*text) * UINT64_C(0x100000001b3);
	} while (*text++);
	return hash;
}

#endif

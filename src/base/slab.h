/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Memory for a number of equal items, allocated once. An item that was never
 * taken is untouched memory, which costs nothing. Threads: one.
 */
#ifndef BASE_SLAB_H
#define BASE_SLAB_H

#include <stddef.h>
#include <stdint.h>

#define SLAB_MAX_ITEMS 65536u

struct slab {
	char *items;
	uint16_t *freed; /* what was given back, by index; a stack */
	size_t item_bytes;
	unsigned nr_items, nr_touched, nr_freed;
};

/* 0 or -ENOMEM. An all-zero slab may be finished. */
int slab_init(struct slab *slab, unsigned nr_items, size_t item_bytes);
void slab_fini(struct slab *slab);

/* The maximum memory that it uses. */
static inline size_t slab_bytes(const struct slab *slab)
{
	return slab->nr_items * (slab->item_bytes + sizeof(*slab->freed));
}

/* An item, zeroed if it is new; NULL when all are taken. */
static inline void *slab_take(struct slab *slab)
{
	unsigned i;

	if (slab->nr_freed > 0)
		i = slab->freed[--slab->nr_freed];
	else if (slab->nr_touched < slab->nr_items)
		i = slab->nr_touched++;
	else
		return NULL;
	return slab->items + i * slab->item_bytes;
}

static inline void slab_give(struct slab *slab, const void *item)
{
	size_t i =
		(size_t)((const char *)item - slab->items) / slab->item_bytes;

	slab->freed[slab->nr_freed++] = (uint16_t)i;
}

#endif

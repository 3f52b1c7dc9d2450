/* SPDX-License-Identifier: BSD-2-Clause */
#include "base/slab.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

int slab_init(struct slab *slab, unsigned nr_items, size_t item_bytes)
{
	assert(nr_items <= SLAB_MAX_ITEMS);
	*slab = (struct slab){
		.items = calloc(nr_items, item_bytes),
		.freed = calloc(nr_items, sizeof(*slab->freed)),
		.item_bytes = item_bytes,
		.nr_items = nr_items,
	};
	return slab->items && slab->freed ? 0 : -ENOMEM;
}

void slab_fini(struct slab *slab)
{
	free(slab->items);
	free(slab->freed);
}

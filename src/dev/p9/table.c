/* SPDX-License-Identifier: BSD-2-Clause */
/* Hash tables of fids and of nodes, which have as many as memory allows. */
#include <stdlib.h>

#include "dev/p9/fs.h"

#define MIN_BITS 10
#define MAX_BITS 26

static int resize(struct p9_table *t, unsigned bits)
{
	struct p9_entry **old = t->slots, *e;
	size_t nr_old = old ? p9_table_slots(t) : 0;

	t->slots = calloc((size_t)1 << bits, sizeof(struct p9_entry *));
	if (!t->slots) {
		t->slots = old;
		return -1;
	}
	t->shift = 32 - bits;
	for (size_t i = 0; i < nr_old; i++) {
		while ((e = old[i])) {
			struct p9_entry **slot = p9_table_slot(t, e->hash);

			old[i] = e->next;
			e->next = *slot;
			*slot = e;
		}
	}
	free(old);
	return 0;
}

int p9_table_init(struct p9_table *t)
{
	return resize(t, MIN_BITS);
}

void p9_table_fini(struct p9_table *t)
{
	free(t->slots);
}

void p9_table_add(struct p9_table *t, struct p9_entry *e, uint32_t hash)
{
	struct p9_entry **slot;
	unsigned bits = 32 - t->shift;

	/* Without memory for more slots, those that are there get longer. */
	if (t->nr >= p9_table_slots(t) && bits < MAX_BITS)
		resize(t, bits + 1);
	slot = p9_table_slot(t, hash);
	e->hash = hash;
	e->next = *slot;
	*slot = e;
	t->nr++;
}

void p9_table_remove(struct p9_table *t, struct p9_entry *e)
{
	struct p9_entry **link = p9_table_slot(t, e->hash);

	while (*link != e)
		link = &(*link)->next;
	*link = e->next;
	t->nr--;
}

void p9_table_trim(struct p9_table *t)
{
	if (t->slots && t->nr == 0 && 32 - t->shift > MIN_BITS)
		resize(t, MIN_BITS);
}

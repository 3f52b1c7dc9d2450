/* SPDX-License-Identifier: BSD-2-Clause */
/* Memory for requests of the block device. See block_impl.h. */
#include <errno.h>
#include <stdlib.h>

#include "dev/block_impl.h"

int block_pool_init(struct block_pool *pool, unsigned max_ios)
{
	pool->nr_ios = max_ios < BLOCK_MAX_IOS ? max_ios : BLOCK_MAX_IOS;
	pool->ios = calloc(pool->nr_ios, sizeof(*pool->ios));
	pool->wides = calloc(BLOCK_MAX_WIDE, sizeof(*pool->wides));
	return pool->ios && pool->wides ? 0 : -ENOMEM;
}

size_t block_pool_bytes(const struct block_pool *pool)
{
	return pool->nr_ios * sizeof(*pool->ios) +
	       BLOCK_MAX_WIDE * sizeof(*pool->wides);
}

void block_pool_fini(struct block_pool *pool)
{
	free(pool->ios);
	free(pool->wides);
}

struct block_io *block_pool_take(struct block_pool *pool)
{
	struct block_io *io = pool->free_ios;

	if (io)
		pool->free_ios = io->next;
	else if (pool->nr_ios_used < pool->nr_ios)
		io = &pool->ios[pool->nr_ios_used++];
	else
		return NULL;
	io->wide = NULL;
	return io;
}

union block_wide *block_pool_widen(struct block_pool *pool, struct block_io *io)
{
	union block_wide *w = pool->free_wides;

	if (w)
		pool->free_wides = w->next;
	else if (pool->nr_wides_used < BLOCK_MAX_WIDE)
		w = &pool->wides[pool->nr_wides_used++];
	io->wide = w;
	return w;
}

void block_pool_give(struct block_pool *pool, struct block_io *io)
{
	if (io->wide) {
		io->wide->next = pool->free_wides;
		pool->free_wides = io->wide;
	}
	io->next = pool->free_ios;
	pool->free_ios = io;
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A token bucket: limits what passes to so many units a second, letting at
 * most a tenth of a second's worth through at once.
 */
#ifndef BASE_BUCKET_H
#define BASE_BUCKET_H

#include <stdint.h>

struct bucket {
	uint64_t rate; /* units a second; 0: no limit */
	uint64_t tokens;
	uint64_t last_ns;
};

void bucket_init(struct bucket *b, uint64_t rate);

/* How many units may pass now: UINT64_MAX without a limit. */
uint64_t bucket_level(struct bucket *b);

/* Units have passed; at most what bucket_level() said. */
void bucket_take(struct bucket *b, uint64_t units);

/* Nanoseconds until at least one unit may pass. */
uint64_t bucket_wait_ns(const struct bucket *b);

#endif

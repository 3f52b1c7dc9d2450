/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A token bucket: limits what passes to so many units a second. At most a
 * tenth of a second's worth passes at once, or, for low rates, @least units.
 *
 * There are two ways to use it. Where the size may be chosen, take what there
 * is: bucket_level(), bucket_take(). Where it is given, charge for what has
 * passed, and let the next wait until that is paid for: bucket_debt_ns(),
 * bucket_charge().
 */
#ifndef BASE_BUCKET_H
#define BASE_BUCKET_H

#include <stdint.h>

struct bucket {
	uint64_t rate; /* units a second; 0: no limit */
	uint64_t burst;
	uint64_t tokens;
	uint64_t debt; /* units; there are no tokens while there is some */
	uint64_t last_ns;
};

void bucket_init(struct bucket *b, uint64_t rate, uint64_t least);

/* How many units may pass now: UINT64_MAX without a limit. */
uint64_t bucket_level(struct bucket *b);

/* The most that bucket_level() ever says. */
uint64_t bucket_burst(const struct bucket *b);

/* Units have passed; at most what bucket_level() said. */
void bucket_take(struct bucket *b, uint64_t units);

/* Nanoseconds until @units, at most bucket_burst(), may pass. */
uint64_t bucket_wait_ns(const struct bucket *b, uint64_t units);

/* Units have passed, however many. */
void bucket_charge(struct bucket *b, uint64_t units);

/* Nanoseconds until nothing is owed; 0: something may pass. */
uint64_t bucket_debt_ns(struct bucket *b);

#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A token bucket: limits what passes to so many units a second. At most a
 * tenth of a second's worth passes at once, or, for low rates, @least units.
 *
 * There are two ways to use it. If the caller chooses the size, take what is
 * available: ratelimit_level(), ratelimit_consume(). If the size is given,
 * charge for what has passed, and let the next one wait until the debt is paid:
 * ratelimit_debt_ns(), ratelimit_charge().
 */
#ifndef BASE_RATELIMIT_H
#define BASE_RATELIMIT_H

#include <stdint.h>

struct ratelimit {
	uint64_t rate; /* units a second; 0: no limit */
	uint64_t burst;
	uint64_t tokens;
	uint64_t debt; /* units; there are no tokens while there is some */
	uint64_t last_ns;
};

void ratelimit_init(struct ratelimit *b, uint64_t rate, uint64_t least);

/* How many units may pass now: UINT64_MAX without a limit. */
uint64_t ratelimit_level(struct ratelimit *b);

/* The most that ratelimit_level() ever says. */
uint64_t ratelimit_burst(const struct ratelimit *b);

/* Units have passed; at most what ratelimit_level() said. */
void ratelimit_consume(struct ratelimit *b, uint64_t units);

/* Nanoseconds until @units, at most ratelimit_burst(), may pass. */
uint64_t ratelimit_wait_ns(const struct ratelimit *b, uint64_t units);

/* Units have passed, however many. */
void ratelimit_charge(struct ratelimit *b, uint64_t units);

/* Nanoseconds until the debt is paid; 0: something may pass. */
uint64_t ratelimit_debt_ns(struct ratelimit *b);

#endif

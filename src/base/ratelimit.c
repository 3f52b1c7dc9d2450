/* SPDX-License-Identifier: BSD-2-Clause */
#include <viodev/loop.h>

#include "base/ratelimit.h"

#define NS 1000000000ull

void ratelimit_init(struct ratelimit *b, uint64_t rate, uint64_t least)
{
	uint64_t burst = rate / 10 > least ? rate / 10 : least;

	*b = (struct ratelimit){
		.rate = rate,
		.burst = burst,
		.tokens = burst,
		.last_ns = vio_now_ns(),
	};
}

/*
 * The units that @ns earn at @rate; whole seconds apart, so that 64 bits
 * suffice.
 */
static uint64_t units_of(uint64_t ns, uint64_t rate)
{
	return ns / NS * rate + ns % NS * (rate / NS) +
	       ns % NS * (rate % NS) / NS;
}

/* How long @units take at @rate, likewise. */
static uint64_t ns_of(uint64_t units, uint64_t rate)
{
	uint64_t seconds = units / rate, rest = units % rate;

	/* At such rates a nanosecond is worth many units. */
	while (rate > UINT64_MAX / NS) {
		rate /= 2;
		rest /= 2;
	}
	return seconds * NS + rest * NS / rate;
}

/* Credit the time since the last call; debt is paid first. */
static void refill(struct ratelimit *b)
{
	uint64_t now = vio_now_ns(), new, paid;

	new = units_of(now - b->last_ns, b->rate);
	paid = new < b->debt ? new : b->debt;
	b->debt -= paid;
	if (new - paid >= b->burst - b->tokens) {
		b->tokens = b->burst;
		b->last_ns = now;
	} else {
		/*
		 * Advance by the time of whole units only, so that no fraction
		 * is lost.
		 */
		b->tokens += new - paid;
		b->last_ns += ns_of(new, b->rate);
	}
}

uint64_t ratelimit_level(struct ratelimit *b)
{
	if (b->rate == 0)
		return UINT64_MAX;
	refill(b);
	return b->tokens;
}

uint64_t ratelimit_burst(const struct ratelimit *b)
{
	return b->rate ? b->burst : UINT64_MAX;
}

void ratelimit_consume(struct ratelimit *b, uint64_t units)
{
	if (b->rate)
		b->tokens -= units < b->tokens ? units : b->tokens;
}

uint64_t ratelimit_wait_ns(const struct ratelimit *b, uint64_t units)
{
	if (b->rate == 0 || units <= b->tokens)
		return 0;
	return ns_of(units - b->tokens, b->rate) + 1;
}

void ratelimit_charge(struct ratelimit *b, uint64_t units)
{
	uint64_t paid;

	if (b->rate == 0)
		return;
	refill(b);
	paid = units < b->tokens ? units : b->tokens;
	b->tokens -= paid;
	b->debt += units - paid;
}

uint64_t ratelimit_debt_ns(struct ratelimit *b)
{
	if (b->debt == 0)
		return 0;
	refill(b);
	return ns_of(b->debt, b->rate) + (b->debt > 0);
}

/* SPDX-License-Identifier: BSD-2-Clause */
#include <viodev/loop.h>

#include "base/bucket.h"

#define NS 1000000000ull

void bucket_init(struct bucket *b, uint64_t rate, uint64_t least)
{
	uint64_t burst = rate / 10 > least ? rate / 10 : least;

	*b = (struct bucket){
		.rate = rate,
		.burst = burst,
		.tokens = burst,
		.last_ns = ev_now_ns(),
	};
}

uint64_t bucket_level(struct bucket *b)
{
	uint64_t now, new;

	if (b->rate == 0)
		return UINT64_MAX;

	now = ev_now_ns();
	new = (uint64_t)((unsigned __int128)(now - b->last_ns) * b->rate / NS);
	if (new >= b->burst - b->tokens) {
		b->tokens = b->burst;
		b->last_ns = now;
	} else {
		/* Time moves on by what whole units took: none is lost. */
		b->tokens += new;
		b->last_ns += new * NS / b->rate;
	}
	return b->tokens;
}

uint64_t bucket_burst(const struct bucket *b)
{
	return b->rate ? b->burst : UINT64_MAX;
}

void bucket_take(struct bucket *b, uint64_t units)
{
	if (b->rate)
		b->tokens -= units < b->tokens ? units : b->tokens;
}

uint64_t bucket_wait_ns(const struct bucket *b, uint64_t units)
{
	if (b->rate == 0 || units <= b->tokens)
		return 0;
	return (units - b->tokens) * NS / b->rate + 1;
}

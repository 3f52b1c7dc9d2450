/* SPDX-License-Identifier: BSD-2-Clause */
#include <viodev/loop.h>

#include "base/bucket.h"

#define NS 1000000000ull

static uint64_t burst(const struct bucket *b)
{
	return b->rate >= 10 ? b->rate / 10 : 1;
}

void bucket_init(struct bucket *b, uint64_t rate)
{
	*b = (struct bucket){ .rate = rate, .last_ns = ev_now_ns() };
	b->tokens = burst(b);
}

uint64_t bucket_level(struct bucket *b)
{
	uint64_t now, new;

	if (b->rate == 0)
		return UINT64_MAX;

	/* Time is moved on only by what whole units took: none is lost. */
	now = ev_now_ns();
	new = (uint64_t)((unsigned __int128)(now - b->last_ns) * b->rate / NS);
	if (new >= burst(b)) {
		b->tokens = burst(b);
		b->last_ns = now;
	} else if (new) {
		b->tokens += new;
		if (b->tokens > burst(b))
			b->tokens = burst(b);
		b->last_ns += new * NS / b->rate;
	}
	return b->tokens;
}

void bucket_take(struct bucket *b, uint64_t units)
{
	if (b->rate)
		b->tokens -= units < b->tokens ? units : b->tokens;
}

/* A tenth of the burst, so that a trickle does not wake us for each unit. */
uint64_t bucket_wait_ns(const struct bucket *b)
{
	uint64_t units = burst(b) / 10 + 1;

	return b->rate ? units * NS / b->rate + 1 : 0;
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* What was counted for each queue. */
#include "dev/net/net.h"

struct net_stats net_stats_sum(const struct net_softc *sc, unsigned tx)
{
	struct net_stats sum = { 0 };

	for (unsigned i = tx; i < 2 * sc->sc_max_pairs; i += 2) {
		const struct net_stats *s = &sc->sc_stats[i];

		sum.frames += s->frames;
		sum.bytes += s->bytes;
		sum.dropped += s->dropped;
		sum.filtered += s->filtered;
	}
	return sum;
}

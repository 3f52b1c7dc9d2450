/* SPDX-License-Identifier: BSD-2-Clause */
#include "base/suggest.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define MAX_WORD 32 /* longer ones are not looked at */

static unsigned least(unsigned a, unsigned b)
{
	return a < b ? a : b;
}

/*
 * How many letters to insert, delete, replace or swap with their neighbour turn
 * one word into the other; dist[i][j] is for a's first i and b's first j
 * letters.
 */
static unsigned word_distance(const char *a, size_t a_len, const char *b,
			      size_t b_len)
{
	uint8_t dist[MAX_WORD + 1][MAX_WORD + 1];

	for (size_t i = 0; i <= a_len; i++)
		dist[i][0] = (uint8_t)i;
	for (size_t j = 0; j <= b_len; j++)
		dist[0][j] = (uint8_t)j;
	for (size_t i = 1; i <= a_len; i++) {
		for (size_t j = 1; j <= b_len; j++) {
			bool differ = a[i - 1] != b[j - 1];
			unsigned d = dist[i - 1][j - 1] + differ;

			d = least(d, dist[i - 1][j] + 1u);
			d = least(d, dist[i][j - 1] + 1u);
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] &&
			    a[i - 2] == b[j - 1])
				d = least(d, dist[i - 2][j - 2] + 1u);
			dist[i][j] = (uint8_t)d;
		}
	}
	return dist[a_len][b_len];
}

void suggest_try(struct suggestion *near, const char *candidate)
{
	size_t a_len = strlen(near->word), b_len = strlen(candidate);
	unsigned distance;

	if (a_len > MAX_WORD || b_len > MAX_WORD)
		return;
	distance = word_distance(near->word, a_len, candidate, b_len);
	if (distance > 1 + a_len / 4) /* another word altogether */
		return;
	if (!near->best || distance < near->distance) {
		near->best = candidate;
		near->distance = distance;
	}
}

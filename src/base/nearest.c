/* SPDX-License-Identifier: BSD-2-Clause */
#include "base/nearest.h"

#include <string.h>

#define MAX_WORD 32 /* longer ones are not looked at */

static unsigned min3(unsigned a, unsigned b, unsigned c)
{
	unsigned m = a < b ? a : b;

	return m < c ? m : c;
}

/*
 * Letters to insert, delete or replace to make one of the other (Levenshtein).
 * Row i of the table holds the distances of a's first i letters to b's first
 * 0, 1, 2... letters; one row is kept.
 */
static unsigned word_distance(const char *a, size_t a_len, const char *b,
			      size_t b_len)
{
	unsigned row[MAX_WORD + 1];

	for (unsigned j = 0; j <= b_len; j++)
		row[j] = j;
	for (unsigned i = 1; i <= a_len; i++) {
		unsigned diagonal = row[0]; /* the last row's j - 1 */

		row[0] = i;
		for (unsigned j = 1; j <= b_len; j++) {
			unsigned above = row[j];

			row[j] = min3(above + 1, row[j - 1] + 1,
				      diagonal + (a[i - 1] != b[j - 1]));
			diagonal = above;
		}
	}
	return row[b_len];
}

void nearest_try(struct nearest *near, const char *candidate)
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

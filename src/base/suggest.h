/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * "Did you mean ...?": how far apart two words are.
 */
#ifndef BASE_SUGGEST_H
#define BASE_SUGGEST_H

/* The best word so far; begin with { .word = what the user wrote }. */
struct suggestion {
	const char *word;
	const char *best; /* NULL: nothing is near enough to be meant */
	unsigned distance;
};

void suggest_try(struct suggestion *near, const char *candidate);

#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * "Did you mean ...?": how far apart two words are.
 */
#ifndef BASE_NEAREST_H
#define BASE_NEAREST_H

/* The best word so far; begin with { .word = what the user wrote }. */
struct nearest {
	const char *word;
	const char *best; /* NULL: nothing is near enough to be meant */
	unsigned distance;
};

void nearest_try(struct nearest *near, const char *candidate);

#endif

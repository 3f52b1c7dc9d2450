/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The frame of all fuzz targets. A target is one file, NAME_fuzz.c beside what
 * it tests, with a fuzz_target:
 *
 *	static void run(struct fuzz_in *in)
 *	{
 *		while (fuzz_more(in)) {
 *			switch (fuzz_choice(in, 3)) {
 *			case 0:
 *				kick(fuzz_choice(in, NR_QUEUES));
 *				break;
 *			...
 *			}
 *		}
 *	}
 *
 *	const struct fuzz_target fuzz_target = { .run = run };
 *
 * and a line in `fuzzers` of its folder's meson.build. In a build with
 * -Dfuzz=true libFuzzer drives it (`make fuzz TARGET=NAME_fuzz`). In any other
 * build fuzz_replay.c does, for some seconds (`make check`): first over
 * tests/corpus/NAME_fuzz, then over mutations of it.
 *
 * The device targets share fuzz_dev.h.
 */
#ifndef TESTS_LIB_FUZZ_H
#define TESTS_LIB_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The input, from which a target takes what it needs to decide. */
struct fuzz_in {
	const uint8_t *data;
	size_t left;
};

struct fuzz_target {
	/* Once, before the first input; or NULL. */
	void (*setup)(void);
	/*
	 * One input. State that outlives it makes findings hard to reproduce.
	 */
	void (*run)(struct fuzz_in *in);
};

extern const struct fuzz_target fuzz_target;

/*
 * The host lacks @what, so the target omits a part: libFuzzer does not start,
 * and the replay runs the rest and counts as skipped.
 */
void fuzz_lacks(const char *what);
extern bool fuzz_incomplete;

/* What libFuzzer and the replay call; the replay sets up by itself. */
void fuzz_setup(void);
int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/*
 * Reading. An input that is used up reads as zeros, so that a target needs to
 * ask for its end only between steps.
 */
static inline bool fuzz_more(const struct fuzz_in *in)
{
	return in->left > 0;
}

/* A little-endian number of @bytes (at most 8) bytes. */
uint64_t fuzz_int(struct fuzz_in *in, unsigned bytes);

/* A number below @n, which is at least 1. Consumes as few bytes as possible. */
unsigned fuzz_choice(struct fuzz_in *in, unsigned n);

static inline bool fuzz_bool(struct fuzz_in *in)
{
	return fuzz_choice(in, 2);
}

/* True once in @n times; false when the input is used up. */
static inline bool fuzz_one_in(struct fuzz_in *in, unsigned n)
{
	return fuzz_choice(in, n) == n - 1;
}

/* @len bytes; where the input has fewer, zeros follow. */
void fuzz_bytes(struct fuzz_in *in, void *buf, size_t len);

/* Up to @max bytes, without a copy; @ret_len may be less. */
const uint8_t *fuzz_take(struct fuzz_in *in, size_t max, size_t *ret_len);

/* Report the finding @what and abort, as an assert would. */
#define fuzz_must(ok) ((ok) ? (void)0 : fuzz_fail(__FILE__, __LINE__, #ok))
_Noreturn void fuzz_fail(const char *file, int line, const char *what);

/*
 * Memory between inaccessible pages: an access before or behind it ends the
 * process, whatever else is mapped. The @len bytes end at a page boundary and,
 * if @len is whole pages, begin at one. @fd is mapped there (shared), unless
 * -1. Never freed.
 */
void *fuzz_pages(size_t len, int fd);

#endif

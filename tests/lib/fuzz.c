/* SPDX-License-Identifier: BSD-2-Clause */
#include "fuzz.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define PAGE ((size_t)4096)

/*
 * --- Entry points ---
 */

bool fuzz_incomplete;

void fuzz_lacks(const char *what)
{
	fprintf(stderr, "this host lacks %s\n", what);
	fuzz_incomplete = true;
}

void fuzz_setup(void)
{
	signal(SIGPIPE, SIG_IGN);
	if (fuzz_target.setup)
		fuzz_target.setup();
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	fuzz_setup();
	if (fuzz_incomplete)
		exit(EXIT_FAILURE);
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_in in = { data, size };

	fuzz_target.run(&in);
	return 0;
}

/*
 * --- Reading ---
 */

const uint8_t *fuzz_take(struct fuzz_in *in, size_t max, size_t *ret_len)
{
	const uint8_t *data = in->data;
	size_t len = max < in->left ? max : in->left;

	in->data += len;
	in->left -= len;
	*ret_len = len;
	return data;
}

void fuzz_bytes(struct fuzz_in *in, void *buf, size_t len)
{
	size_t n;
	const uint8_t *data = fuzz_take(in, len, &n);

	memset(buf, 0, len);
	if (n)
		memcpy(buf, data, n);
}

uint64_t fuzz_int(struct fuzz_in *in, unsigned bytes)
{
	uint8_t b[8] = { 0 };
	uint64_t v = 0;

	fuzz_bytes(in, b, bytes);
	for (unsigned i = 0; i < 8; i++)
		v |= (uint64_t)b[i] << 8 * i;
	return v;
}

unsigned fuzz_choice(struct fuzz_in *in, unsigned n)
{
	unsigned bytes = n <= 1 ? 0 : n <= 0x100 ? 1 : n <= 0x10000 ? 2 : 4;

	return (unsigned)(fuzz_int(in, bytes) % n);
}

void fuzz_fail(const char *file, int line, const char *what)
{
	fprintf(stderr, "%s:%d: not so: %s\n", file, line, what);
	abort();
}

/*
 * --- Memory ---
 */

void *fuzz_pages(size_t len, int fd)
{
	size_t span = (len + PAGE - 1) & ~(PAGE - 1);
	char *p = mmap(NULL, span + 2 * PAGE, PROT_NONE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	int flags = fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;

	fuzz_must(p != MAP_FAILED);
	fuzz_must(mmap(p + PAGE, span, PROT_READ | PROT_WRITE,
		       flags | MAP_FIXED, fd, 0) != MAP_FAILED);
	return p + PAGE + (span - len);
}

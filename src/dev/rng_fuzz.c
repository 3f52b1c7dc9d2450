/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzz target: a driver that puts anything into the ring of an entropy device,
 * whose source is the kernel, a pipe that is sometimes dry, or a file.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fuzz_dev.h"

#define NR_KINDS 6u

static struct fuzz_dev kinds[NR_KINDS];
static int feed = -1; /* into the pipe */

static int make_pipe(void)
{
	int fds[2];

	fuzz_must(pipe2(fds, O_NONBLOCK) == 0);
	feed = fds[1];
	return fds[0];
}

static int make_file(void)
{
	int fd = memfd_create("entropy", 0);

	fuzz_must(fd >= 0 && ftruncate(fd, 1 << 20) == 0);
	return fd;
}

static void setup(void)
{
	int dry = make_pipe(), file = make_file();
	char text[64];

	for (unsigned i = 0; i < NR_KINDS; i++) {
		if (i / 2 == 0)
			strcpy(text, "rng,queue-size=16");
		else
			snprintf(text, sizeof(text),
				 "rng,queue-size=16,source=/proc/self/fd/%d",
				 i / 2 == 1 ? dry : file);
		fuzz_dev_make(&kinds[i], i & 1 ? VDRV_LEGACY : VDRV_MODERN,
			      text);
	}
}

static void add_entropy(struct fuzz_in *in)
{
	char bytes[64] = "";

	if (write(feed, bytes, 1 + fuzz_choice(in, sizeof(bytes))) < 0)
		return; /* it is full */
}

static void step(struct fuzz_dev *v, struct fuzz_in *in)
{
	switch (fuzz_dev_next(v, 8, in)) {
	case 0:
	case 1:
		fuzz_dev_desc(v, 0, in);
		break;
	case 2:
	case 3:
		fuzz_dev_avail(v, 0, in);
		break;
	case 4:
		fuzz_dev_kick(v, 0);
		break;
	case 5:
		fuzz_dev_iterate();
		vdrv_wake(&v->d);
		break;
	case 6:
		add_entropy(in);
		break;
	case 7:
		if (fuzz_one_in(in, 16))
			fuzz_dev_restart(v, fuzz_int(in, 8));
		else if (fuzz_one_in(in, 16))
			pci_quiesce(&v->d.pi);
		break;
	}
}

static void run(struct fuzz_in *in)
{
	struct fuzz_dev *v = &kinds[fuzz_choice(in, NR_KINDS)];

	fuzz_dev_start(v, ~0ull, 1);
	while (fuzz_more(in))
		step(v, in);
	fuzz_dev_kick(v, 0);
	fuzz_dev_end(v);
}

const struct fuzz_target fuzz_target = { .setup = setup, .run = run };

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Replaces libFuzzer in a build without it, so that `make check` replays all
 * findings and finds a little more:
 *
 *	NAME_fuzz [-seconds=N] [-seed=N] [FILE | FOLDER]...
 *
 * runs the target over the files, then for N seconds over changed copies of
 * them. Exits with 77 when the host lacks something that the target needs. An
 * input that ends the process is left in the file that the last line names.
 */
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/util.h"
#include "fuzz.h"

#define MAX_BYTES    4096u
#define MAX_INPUTS   4096u
#define EXIT_SKIPPED 77
#define HANG_SECONDS 60u /* for one input, on a machine that is slow */

static struct input {
	uint8_t *data;
	size_t size;
} inputs[MAX_INPUTS];
static unsigned nr_inputs;

/*
 * --- An input that ends the process ---
 */

static struct input current;
static char find[300];

/* Called in a signal handler: async-signal-safe calls only. */
static void keep_find(int sig)
{
	static const char said[] = "the input that does this: ";
	int fd = open(find, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	if (fd < 0 || write(fd, current.data, current.size) < 0 ||
	    write(2, said, sizeof(said) - 1) < 0 ||
	    write(2, find, strlen(find)) < 0 || write(2, "\n", 1) < 0)
		_exit(1);
	close(fd);
	if (sig) {
		signal(sig, SIG_DFL);
		raise(sig);
	}
}

/* Sanitizers end the process in their own way. */
void __sanitizer_set_death_callback(void (*call)(void)) __attribute__((weak));

static void on_death(void)
{
	keep_find(0);
}

static void watch(const char *name)
{
	const int signals[] = { SIGABRT, SIGSEGV, SIGBUS, SIGALRM };
	const char *dir = getenv("TMPDIR"), *base = strrchr(name, '/');

	snprintf(find, sizeof(find), "%s/crash-%s-%d", dir ? dir : "/tmp",
		 base ? base + 1 : name, (int)getpid());
	if (__sanitizer_set_death_callback)
		__sanitizer_set_death_callback(on_death);
	for (unsigned i = 0; i < ARRAY_LEN(signals); i++) {
		bool taken = __sanitizer_set_death_callback && i > 0 && i < 3;

		if (!taken)
			signal(signals[i], keep_find);
	}
}

static void run(const uint8_t *data, size_t size)
{
	current = (struct input){ (uint8_t *)data, size };
	alarm(HANG_SECONDS);
	LLVMFuzzerTestOneInput(data, size);
	alarm(0);
}

/*
 * --- The corpus ---
 */

static void *must(void *p, const char *what)
{
	if (!p) {
		perror(what);
		exit(1);
	}
	return p;
}

static void read_file(const char *path)
{
	FILE *f = must(fopen(path, "rb"), path);
	uint8_t *data = must(malloc(1 << 20), path);
	size_t size = fread(data, 1, 1 << 20, f);

	fclose(f);
	/*
	 * In a buffer of its exact length, so that reading past its end is
	 * caught.
	 */
	data = must(realloc(data, size ? size : 1), path);
	if (nr_inputs == MAX_INPUTS) {
		free(data);
		return;
	}
	inputs[nr_inputs++] = (struct input){ data, size };
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static void read_path(const char *path)
{
	char *names[MAX_INPUTS];
	unsigned nr = 0;
	struct stat st;
	struct dirent *e;
	DIR *dir;

	if (stat(path, &st) < 0)
		return; /* a target that is new has none */
	if (!S_ISDIR(st.st_mode)) {
		read_file(path);
		return;
	}
	dir = must(opendir(path), path);
	while ((e = readdir(dir)) && nr < MAX_INPUTS)
		if (e->d_name[0] != '.')
			names[nr++] = must(strdup(e->d_name), path);
	closedir(dir);
	qsort(names, nr, sizeof(names[0]), by_name);
	for (unsigned i = 0; i < nr; i++) {
		char file[4096];

		snprintf(file, sizeof(file), "%s/%s", path, names[i]);
		read_file(file);
		free(names[i]);
	}
}

/*
 * --- Changed copies ---
 */

static uint64_t state;

static size_t below(size_t n)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (size_t)(state >> 16) % n;
}

/* Small values and small changes reach further than random bytes. */
static uint8_t noise(void)
{
	return (uint8_t)(below(2) ? below(16) : below(256));
}

/* Put @n bytes of @from at @at, over what is there or before it. */
static size_t splice_bytes(uint8_t *data, size_t size, size_t at,
			   const uint8_t *from, size_t n, bool insert)
{
	if (insert) {
		if (n > MAX_BYTES - size)
			n = MAX_BYTES - size;
		memmove(data + at + n, data + at, size - at);
		size += n;
	} else if (n > size - at) {
		n = size - at;
	}
	memcpy(data + at, from, n);
	return size;
}

static size_t change(uint8_t *data, size_t size)
{
	const struct input *other = &inputs[below(nr_inputs)];
	size_t at = below(size + 1), from, n;
	uint8_t bytes[16];

	switch (below(4)) {
	case 0:
		if (at < size)
			data[at] = noise();
		return size;
	case 1: /* some bytes less */
		n = below(16);
		n = n < size - at ? n : size - at;
		memmove(data + at, data + at + n, size - at - n);
		return size - n;
	case 2:
		n = below(sizeof(bytes));
		for (size_t i = 0; i < n; i++)
			bytes[i] = noise();
		return splice_bytes(data, size, at, bytes, n, true);
	default: /* a piece of another */
		if (!other->size)
			return size;
		from = below(other->size);
		return splice_bytes(data, size, at, other->data + from,
				    below(other->size - from) + 1, below(2));
	}
}

static void run_changed(void)
{
	static uint8_t data[MAX_BYTES];
	const struct input *in = &inputs[below(nr_inputs)];
	size_t size = in->size < MAX_BYTES ? in->size : MAX_BYTES;
	uint8_t *exact;

	memcpy(data, in->data, size);
	for (size_t n = 1 + below(8); n > 0; n--)
		size = change(data, size);
	exact = must(malloc(size ? size : 1), "input");
	memcpy(exact, data, size);
	run(exact, size);
	free(exact);
}

/* What a target without a corpus begins with. */
static void add_noise(void)
{
	struct input in = { must(malloc(1024), "input"), 1024 };

	for (size_t i = 0; i < in.size; i++)
		in.data[i] = noise();
	inputs[nr_inputs++] = in;
}

static time_t seconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec;
}

int main(int argc, char *argv[])
{
	unsigned long nr = 0, for_seconds = 0;
	time_t start;

	fuzz_setup();
	watch(argv[0]);
	state = 1;
	for (int i = 1; i < argc; i++) {
		if (strncmp(argv[i], "-seconds=", 9) == 0)
			for_seconds = strtoul(argv[i] + 9, NULL, 10);
		else if (strncmp(argv[i], "-seed=", 6) == 0)
			state = strtoul(argv[i] + 6, NULL, 10) | 1;
		else
			read_path(argv[i]);
	}
	for (unsigned i = 0; i < nr_inputs; i++, nr++)
		run(inputs[i].data, inputs[i].size);
	if (nr_inputs == 0)
		add_noise();
	start = seconds();
	for (; seconds() - start < (time_t)for_seconds; nr++)
		run_changed();
	printf("%lu inputs, %u of them saved ones\n", nr, nr_inputs);
	return fuzz_incomplete ? EXIT_SKIPPED : 0;
}

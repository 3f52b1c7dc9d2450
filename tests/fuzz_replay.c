/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Stands in for libFuzzer where a build has none: runs a fuzz target over the
 * files and folders that are named, and over some thousand inputs of a seeded
 * generator, so that a find of the fuzzer stays found.
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define NR_RANDOM 2000
#define MAX_BYTES 4096

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static unsigned nr_inputs;

static void run_file(const char *path)
{
	FILE *f = fopen(path, "rb");
	uint8_t *data = malloc(1 << 20);
	size_t size;

	if (!f || !data) {
		perror(path);
		exit(1);
	}
	size = fread(data, 1, 1 << 20, f);
	fclose(f);
	LLVMFuzzerTestOneInput(data, size);
	free(data);
	nr_inputs++;
}

static void run_path(const char *path)
{
	struct stat st;
	struct dirent *e;
	DIR *dir;

	if (stat(path, &st) < 0)
		return; /* a target without finds has no folder */
	if (!S_ISDIR(st.st_mode)) {
		run_file(path);
		return;
	}
	dir = opendir(path);
	while (dir && (e = readdir(dir))) {
		char file[4096];

		if (e->d_name[0] == '.')
			continue;
		snprintf(file, sizeof(file), "%s/%s", path, e->d_name);
		run_file(file);
	}
	if (dir)
		closedir(dir);
}

static uint64_t next(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

/* Small values and small changes reach further than noise. */
static void run_random(uint64_t seed)
{
	uint64_t state = seed * 0x9e3779b97f4a7c15u + 1;
	size_t size = next(&state) % MAX_BYTES;
	uint8_t *data = malloc(size + 1);

	for (size_t i = 0; i < size; i++) {
		uint64_t v = next(&state);

		data[i] = (uint8_t)(v & 0x100 ? v >> 32 : v >> 32 & 0x0f);
	}
	LLVMFuzzerTestOneInput(data, size);
	free(data);
	nr_inputs++;
}

int main(int argc, char *argv[])
{
	for (int i = 1; i < argc; i++)
		run_path(argv[i]);
	for (uint64_t seed = 0; seed < NR_RANDOM; seed++)
		run_random(seed);
	printf("%u inputs\n", nr_inputs);
	return 0;
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A front-end that is no virtual machine: libblkio, a library for programs that
 * use disks.
 *
 *	blkio check DRIVER PATH
 *	blkio bench DRIVER PATH read|write rand|seq BYTES DEPTH SECONDS
 *
 * DRIVER is virtio-blk-vhost-user, and PATH its socket, or io_uring and a file.
 * check writes all over the disk and reads it back, then prints `capacity N`
 * after each line of its standard input. bench prints requests and seconds.
 */
#include <blkio.h>

#include <err.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define DEPTH     32
#define MAX_BYTES (128u << 10) /* of one request of the check */

static struct blkio *disk;
static struct blkioq *queue;
static struct blkio_mem_region mem;
static uint64_t capacity;

/*
 * --- The disk ---
 */

/* Every function of the library returns -errno. */
static void must(int ret, const char *what)
{
	if (ret < 0)
		errx(1, "%s: %s", what, blkio_get_error_msg());
}

static uint64_t get_capacity(void)
{
	uint64_t bytes;

	must(blkio_get_uint64(disk, "capacity", &bytes), "capacity");
	return bytes;
}

static void open_disk(const char *driver, const char *path, size_t mem_bytes)
{
	must(blkio_create(driver, &disk), driver);
	must(blkio_set_str(disk, "path", path), path);
	must(blkio_connect(disk), path);
	capacity = get_capacity();
	must(blkio_start(disk), path);
	must(blkio_alloc_mem_region(disk, &mem, mem_bytes), "memory");
	must(blkio_map_mem_region(disk, &mem), "memory");
	queue = blkio_get_queue(disk, 0);
}

/* Some of the completions, at least one. */
static int wait_some(struct blkio_completion *done, int max)
{
	int nr = blkioq_do_io(queue, done, 1, max, NULL);

	must(nr, "queue");
	for (int i = 0; i < nr; i++) {
		if (done[i].ret < 0)
			errx(1, "request: %s", strerror(-done[i].ret));
	}
	return nr;
}

static void wait_all(int nr)
{
	struct blkio_completion done[DEPTH];

	while (nr > 0)
		nr -= wait_some(done, nr < DEPTH ? nr : DEPTH);
}

/*
 * --- check ---
 */

/* What byte @at of the disk is to be: another one in each pass. */
static uint8_t pattern(uint64_t at, unsigned pass)
{
	return (uint8_t)((at / 512) * 7 + at + pass * 101);
}

static uint8_t *slot(int i)
{
	return (uint8_t *)mem.addr + (size_t)i * MAX_BYTES;
}

/* Sizes of one to 255 blocks, one after the other up to the disk's end. */
static size_t next_size(uint64_t at)
{
	size_t size = (size_t)((at / 512 * 37 + 13) % 255 + 1) * 512;

	return size < capacity - at ? size : (size_t)(capacity - at);
}

static void write_disk(unsigned pass)
{
	uint64_t at = 0;

	while (at < capacity) {
		int nr = 0;

		for (; nr < DEPTH && at < capacity; nr++) {
			size_t size = next_size(at);

			for (size_t k = 0; k < size; k++)
				slot(nr)[k] = pattern(at + k, pass);
			blkioq_write(queue, at, slot(nr), size, NULL,
				     nr % 5 ? 0 : BLKIO_REQ_FUA);
			at += size;
		}
		wait_all(nr);
	}
}

/* In two pieces each, one of them a single block. */
static void read_disk(unsigned pass)
{
	uint64_t at = 0;

	while (at < capacity) {
		struct iovec iov[DEPTH][2];
		uint64_t begin[DEPTH];
		int nr = 0;

		for (; nr < DEPTH && at < capacity; nr++) {
			size_t size = next_size(at);

			memset(slot(nr), 0, size);
			iov[nr][0] = (struct iovec){ slot(nr), 512 };
			iov[nr][1] =
				(struct iovec){ slot(nr) + 512, size - 512 };
			blkioq_readv(queue, at, iov[nr], size > 512 ? 2 : 1,
				     NULL, 0);
			begin[nr] = at;
			at += size;
		}
		wait_all(nr);
		for (int i = 0; i < nr; i++) {
			size_t size = next_size(begin[i]);

			for (size_t k = 0; k < size; k++) {
				if (slot(i)[k] != pattern(begin[i] + k, pass))
					errx(1, "byte %llu is wrong",
					     (unsigned long long)(begin[i] +
								  k));
			}
		}
	}
}

static void expect(uint64_t at, bool zero, unsigned pass)
{
	blkioq_read(queue, at, slot(0), MAX_BYTES, NULL, 0);
	wait_all(1);
	for (size_t k = 0; k < MAX_BYTES; k++) {
		if (slot(0)[k] != (zero ? 0 : pattern(at + k, pass)))
			errx(1, "byte %llu is %s", (unsigned long long)at + k,
			     zero ? "not zero" : "wrong");
	}
}

/* The second of three pieces is zeroed, or discarded: its neighbours stay. */
static void clear_middle(bool discard, unsigned pass)
{
	if (discard)
		blkioq_discard(queue, MAX_BYTES, MAX_BYTES, NULL, 0);
	else
		blkioq_write_zeroes(queue, MAX_BYTES, MAX_BYTES, NULL, 0);
	wait_all(1);
	expect(0, false, pass);
	expect(MAX_BYTES, true, pass);
	expect(2 * MAX_BYTES, false, pass);
}

static void check(const char *driver, const char *path)
{
	open_disk(driver, path, DEPTH * MAX_BYTES);
	for (unsigned pass = 0; pass < 2; pass++) {
		write_disk(pass);
		blkioq_flush(queue, NULL, 0);
		wait_all(1);
		read_disk(pass);
		clear_middle(pass == 1, pass);
	}
	printf("checked %llu\n", (unsigned long long)capacity);
	fflush(stdout);
	while (getchar() != EOF) {
		printf("capacity %llu\n", (unsigned long long)get_capacity());
		fflush(stdout);
	}
}

/*
 * --- bench ---
 */

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

struct load {
	bool write, random;
	size_t bytes;
	uint64_t at;   /* of the next request, in requests */
	uint64_t seed; /* xorshift's */
};

static void start(struct load *load, int i)
{
	uint64_t nr = capacity / load->bytes, at = load->at++ % nr;
	char *buf = (char *)mem.addr + (size_t)i * load->bytes;
	void *arg = (void *)(intptr_t)i;

	if (load->random) {
		load->seed ^= load->seed << 13;
		load->seed ^= load->seed >> 7;
		load->seed ^= load->seed << 17;
		at = load->seed % nr;
	}
	if (load->write)
		blkioq_write(queue, at * load->bytes, buf, load->bytes, arg, 0);
	else
		blkioq_read(queue, at * load->bytes, buf, load->bytes, arg, 0);
}

static void bench(const char *driver, const char *path, char *const args[])
{
	struct load load = {
		.write = strcmp(args[0], "write") == 0,
		.random = strcmp(args[1], "rand") == 0,
		.bytes = strtoul(args[2], NULL, 10),
		.seed = 0x9e3779b97f4a7c15,
	};
	int depth = atoi(args[3]);
	double seconds = atof(args[4]), begin;
	struct blkio_completion *done = calloc((size_t)depth, sizeof(*done));
	unsigned long requests = 0;

	open_disk(driver, path, (size_t)depth * load.bytes);
	begin = now();
	for (int i = 0; i < depth; i++)
		start(&load, i);
	while (now() < begin + seconds) {
		int nr = wait_some(done, depth);

		requests += (unsigned)nr;
		for (int i = 0; i < nr; i++)
			start(&load, (int)(intptr_t)done[i].user_data);
	}
	printf("%lu %f\n", requests, now() - begin);
	wait_all(depth);
	free(done);
}

int main(int argc, char *argv[])
{
	if (argc == 4 && strcmp(argv[1], "check") == 0)
		check(argv[2], argv[3]);
	else if (argc == 9 && strcmp(argv[1], "bench") == 0)
		bench(argv[2], argv[3], &argv[4]);
	else
		errx(2, "see the begin of its source");
	blkio_destroy(&disk);
	return 0;
}

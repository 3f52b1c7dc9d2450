/* SPDX-License-Identifier: BSD-2-Clause */
/* What the tests of the storage engine share: one disk, its image, requests. */
#ifndef TESTS_LIB_DISK_FIXTURE_H
#define TESTS_LIB_DISK_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <viodev/loop.h>

#include "back/disk/disk.h"
#include "disk_fault.h"

#include <cmocka.h>

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

#define KIB         1024u
#define IMAGE_BYTES (4096u * KIB)

#define BATCH 8

struct test_req {
	struct disk_req req;
	bool done;
	int result;
};

extern bool threads; /* which engine this run uses */
extern char path[128];
extern struct vio_loop *loop;
extern struct disk_io *io;
extern struct disk *disk;
extern char model[IMAGE_BYTES]; /* what the image should hold */

/* The error of a call that must fail with @error; see disk_fault.h. */
int failure(int error);
void make_image(const char *dir, uint64_t bytes);

/* Not /tmp, which may be in memory: its files are read without an engine. */
const char *tmp_dir(void);
int open_disk(struct disk_params params);
void start_with(const char *dir, struct disk_params params);
void close_disk(void);
int setup(void **state);
int teardown(void **state);
void req_done(struct disk_req *req, int result);
void start(struct test_req *t, enum disk_op op, uint64_t off, uint64_t len,
	   struct iovec *iov, int niov);
int finish(struct test_req *t);
int transfer_one(enum disk_op op, uint64_t off, void *buf, size_t len);
int simple(enum disk_op op);
void assert_image_is_model(void);
void poke(uint64_t off, const char *bytes, size_t len);

/* The first and the second of two disks; @disk is the one that is used. */
void assert_holds(struct disk *d, char byte);
struct disk *add_named(char byte);

/* The next one has the same path. */
struct disk *add_disk(char byte);
void make_hang(void);

/* Some iterations of the loop, in which no hanging request can end. */
void iterate_a_while(void);

#endif

/* SPDX-License-Identifier: BSD-2-Clause */
#include "disk_fixture.h"
#include "base/util.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

bool threads;

int failure(int error)
{
	return threads ? -error : -EBADF;
}

char path[128];
struct vio_loop *loop;
struct disk_io *io;
struct disk *disk;
char model[IMAGE_BYTES];

void make_image(const char *dir, uint64_t bytes)
{
	int fd;

	snprintf(path, sizeof(path), "%s/viodev-disk-XXXXXX", dir);
	fd = mkstemp(path);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)bytes), 0);
	close(fd);
	memset(model, 0, sizeof(model));
}

const char *tmp_dir(void)
{
	const char *dir = getenv("TMPDIR");

	return dir ? dir : "/var/tmp";
}

int open_disk(struct disk_params params)
{
	struct err err = { "" };
	int fd, ret;

	params.path = path;
	fd = disk_open(&params, &err);
	if (fd < 0)
		return fd;
	if (!io)
		assert_int_equal(disk_io_create(loop, 64, 2, &io), 0);
	ret = disk_create(io, fd, &params, &disk, &err);
	if (ret < 0)
		close(fd);
	return ret;
}

void start_with(const char *dir, struct disk_params params)
{
	make_image(dir, IMAGE_BYTES);
	assert_int_equal(open_disk(params), 0);
}

void close_disk(void)
{
	disk_destroy(disk);
	disk = NULL;
	disk_io_destroy(io);
	io = NULL;
	unlink(path);
}

int setup(void **state)
{
	memset(&disk_fault, 0, sizeof(disk_fault));
	disk = NULL;
	return vio_loop_create(&loop);
}

int teardown(void **state)
{
	memset(&disk_fault, 0, sizeof(disk_fault));
	close_disk();
	vio_loop_destroy(loop);
	return 0;
}

void req_done(struct disk_req *req, int result)
{
	struct test_req *t = (void *)req;

	assert_false(t->done);
	t->done = true;
	t->result = result;
}

void start(struct test_req *t, enum disk_op op, uint64_t off, uint64_t len,
	   struct iovec *iov, int niov)
{
	t->done = false;
	t->req.dr_op = op;
	t->req.dr_off = off;
	t->req.dr_len = len;
	t->req.dr_iov = iov;
	t->req.dr_niov = niov;
	t->req.dr_done = req_done;
	disk_start(disk, &t->req);
}

int finish(struct test_req *t)
{
	while (!t->done)
		assert_true(vio_loop_iterate(loop, 5000) >= 0);
	return t->result;
}

int transfer_one(enum disk_op op, uint64_t off, void *buf, size_t len)
{
	struct test_req t = { 0 };
	struct iovec iov = { buf, len };

	start(&t, op, off, len, &iov, 1);
	return finish(&t);
}

int simple(enum disk_op op)
{
	return transfer_one(op, 0, NULL, 0);
}

void assert_image_is_model(void)
{
	char *image = malloc(IMAGE_BYTES);
	int fd = open(path, O_RDONLY);

	assert_int_equal(read(fd, image, IMAGE_BYTES), IMAGE_BYTES);
	assert_memory_equal(image, model, IMAGE_BYTES);
	close(fd);
	free(image);
}

void poke(uint64_t off, const char *bytes, size_t len)
{
	int fd = open(path, O_WRONLY);

	assert_int_equal(pwrite(fd, bytes, len, (off_t)off), (ssize_t)len);
	close(fd);
}

void assert_holds(struct disk *d, char byte)
{
	char buf[512];

	disk = d;
	assert_int_equal(transfer_one(DISK_READ, 4096, buf, sizeof(buf)), 0);
	assert_int_equal(buf[0], byte);
	assert_int_equal(buf[511], byte);
}

struct disk *add_named(char byte)
{
	char buf[512];

	start_with(tmp_dir(), (struct disk_params){ 0 });
	memset(buf, byte, sizeof(buf));
	assert_int_equal(transfer_one(DISK_WRITE, 4096, buf, sizeof(buf)), 0);
	assert_int_equal(simple(DISK_FLUSH), 0);
	return disk;
}

struct disk *add_disk(char byte)
{
	struct disk *d = add_named(byte);

	unlink(path);
	return d;
}

void make_hang(void)
{
	FAULT_SET(no_cache, true);
	FAULT_SET(hang, true);
}

void iterate_a_while(void)
{
	for (int i = 0; i < 5; i++)
		assert_true(vio_loop_iterate(loop, 10) >= 0);
}

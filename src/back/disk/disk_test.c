/* SPDX-License-Identifier: BSD-2-Clause */
/* The storage engine, with io_uring and again with io_uring refused. */
#include "back/disk/disk.h"
#include "back/disk/identity.h"
#include "base/util.h"
#include "disk_fault.h"
#include "back/disk/admission.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <viodev/loop.h>

#include <cmocka.h>

#define KIB         1024u
#define IMAGE_BYTES (4096u * KIB)

static bool threads; /* which engine this run uses */

/* The error of a call that must fail with @error; see disk_fault.h. */
static int failure(int error)
{
	return threads ? -error : -EBADF;
}

/*
 * --- A disk to work with ---
 */

static char path[128];
static struct vio_loop *loop;
static struct disk_io *io;
static struct disk *disk;
static char model[IMAGE_BYTES]; /* what the image should hold */

static void make_image(const char *dir, uint64_t bytes)
{
	int fd;

	snprintf(path, sizeof(path), "%s/viodev-disk-XXXXXX", dir);
	fd = mkstemp(path);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)bytes), 0);
	close(fd);
	memset(model, 0, sizeof(model));
}

/* Not /tmp, which may be in memory: its files are read without an engine. */
static const char *tmp_dir(void)
{
	const char *dir = getenv("TMPDIR");

	return dir ? dir : "/var/tmp";
}

static int open_disk(struct disk_params params)
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

static void start_with(const char *dir, struct disk_params params)
{
	make_image(dir, IMAGE_BYTES);
	assert_int_equal(open_disk(params), 0);
}

static void close_disk(void)
{
	disk_destroy(disk);
	disk = NULL;
	disk_io_destroy(io);
	io = NULL;
	unlink(path);
}

static int setup(void **state)
{
	memset(&disk_fault, 0, sizeof(disk_fault));
	disk = NULL;
	return vio_loop_create(&loop);
}

static int teardown(void **state)
{
	memset(&disk_fault, 0, sizeof(disk_fault));
	close_disk();
	vio_loop_destroy(loop);
	return 0;
}

struct test_req {
	struct disk_req req;
	bool done;
	int result;
};

static void req_done(struct disk_req *req, int result)
{
	struct test_req *t = (void *)req;

	assert_false(t->done);
	t->done = true;
	t->result = result;
}

static void start(struct test_req *t, enum disk_op op, uint64_t off,
		  uint64_t len, struct iovec *iov, int niov)
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

static int finish(struct test_req *t)
{
	while (!t->done)
		assert_true(vio_loop_iterate(loop, 5000) >= 0);
	return t->result;
}

static int transfer_one(enum disk_op op, uint64_t off, void *buf, size_t len)
{
	struct test_req t = { 0 };
	struct iovec iov = { buf, len };

	start(&t, op, off, len, &iov, 1);
	return finish(&t);
}

static int simple(enum disk_op op)
{
	return transfer_one(op, 0, NULL, 0);
}

static void assert_image_is_model(void)
{
	char *image = malloc(IMAGE_BYTES);
	int fd = open(path, O_RDONLY);

	assert_int_equal(read(fd, image, IMAGE_BYTES), IMAGE_BYTES);
	assert_memory_equal(image, model, IMAGE_BYTES);
	close(fd);
	free(image);
}

/*
 * --- Images ---
 */

static void test_open(void **state)
{
	struct disk_params p = { .path = path };
	struct err err;

	snprintf(path, sizeof(path), "%s", "/nonexistent/image");
	assert_int_equal(disk_open(&p, &err), -ENOENT);
	assert_string_equal(err.text, "path=/nonexistent/image: No such file "
				      "or directory");
	snprintf(path, sizeof(path), "%s", "/dev/null");
	assert_int_equal(disk_open(&p, &err), -EINVAL);
	snprintf(path, sizeof(path), "%s", "/");
	assert_int_equal(disk_open(&p, &err), -EINVAL);

	/* Opening it would wait for a writer. */
	snprintf(path, sizeof(path), "%s/viodev-disk-fifo-%d", tmp_dir(),
		 getpid());
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_int_equal(disk_open(&p, &err), -EINVAL);
}

static void poke(uint64_t off, const char *bytes, size_t len)
{
	int fd = open(path, O_WRONLY);

	assert_int_equal(pwrite(fd, bytes, len, (off_t)off), (ssize_t)len);
	close(fd);
}

/* Another format, and an empty image: the error says what to do. */
static void test_formats(void **state)
{
#define AT(format, off, bytes) { format, off, bytes, sizeof(bytes) - 1 }
	static const struct {
		const char *format; /* NULL: raw */
		uint64_t off;
		const char *bytes;
		size_t len;
	} rows[] = {
		AT("qcow", 0, "QFI\xfb\0\0\0\1"),
		AT("qcow2", 0, "QFI\xfb\0\0\0\3"),
		AT("vmdk", 0, "KDMV\1"),
		AT("vmdk", 0, "COWD"),
		AT("vmdk", 0, "# Disk DescriptorFile\nversion=1\n"),
		AT("vdi", 64, "\x7f\x10\xda\xbe"),
		AT("vhdx", 0, "vhdxfile"),
		AT("vhd", 0, "conectix"),
		AT("vhd", IMAGE_BYTES - 512, "conectix"),
		AT("vhd", IMAGE_BYTES - 511, "conectix"),
		AT("dmg", IMAGE_BYTES - 512, "koly"),
		AT("qed", 0, "QED\0"),
		AT("luks", 0, "LUKS\xba\xbe\0\2"),
		AT("parallels", 0, "WithoutFreeSpace"),
		AT("bochs", 0, "Bochs Virtual HD Image"),
		AT(NULL, 1, "QFI\xfb"),
		AT(NULL, 0, "QED\1"),
		AT(NULL, IMAGE_BYTES - 513, "conectix"),
		AT(NULL, IMAGE_BYTES - 4, "cone"),
	};
	struct disk_params params = { .path = path, .option_prefix = "lun7." };

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		const char *format = rows[i].format;
		struct err err = { "" };
		int fd;

		make_image(tmp_dir(), IMAGE_BYTES);
		poke(rows[i].off, rows[i].bytes, rows[i].len);
		params.cache = i % 2 ? DISK_WRITEBACK : DISK_DIRECT;
		params.raw = false;
		fd = disk_open(&params, &err);
		assert_true(format ? fd == -EINVAL : fd >= 0);
		if (format) {
			assert_non_null(strstr(err.text, format));
			assert_non_null(
				strstr(err.text, strcmp(format, "luks") == 0 ?
							 "cryptsetup open" :
							 "qemu-img convert"));
			assert_non_null(strstr(err.text, "lun7.format=raw"));
			params.raw = true;
			fd = disk_open(&params, &err);
			assert_true(fd >= 0);
		}
		close(fd);
		unlink(path);
	}
}

static void test_empty(void **state)
{
	struct disk_params params = { .path = path };
	struct err err = { "" };

	make_image(tmp_dir(), 0);
	assert_int_equal(disk_open(&params, &err), -EINVAL);
	assert_non_null(strstr(err.text, "empty file"));
}

static uint64_t identity_of(const char *name)
{
	int fd = open(name, O_RDONLY);
	uint64_t identity;

	assert_true(fd >= 0);
	identity = disk_identity(fd, -1);
	close(fd);
	return identity;
}

/* The identity of the image, whatever its name; a copy differs. */
static void test_identity(void **state)
{
	char other[160], again[160];
	uint64_t before;

	make_image(tmp_dir(), IMAGE_BYTES);
	before = identity_of(path);
	snprintf(other, sizeof(other), "%s.other", path);
	assert_int_equal(link(path, other), 0);
	assert_true(identity_of(other) == before);
	unlink(other);
	snprintf(again, sizeof(again), "%s/./%s", tmp_dir(),
		 strrchr(path, '/') + 1);
	assert_true(identity_of(again) == before);
	close(open(other, O_CREAT | O_WRONLY, 0600));
	assert_true(identity_of(other) != before);
	unlink(other);
	assert_int_equal(disk_open_name(&(struct disk_params){ .path = path }),
			 -ENODATA);
}

/* Directories and a file in a tree like sysfs's. */
static void make_attribute(const char *sysfs, const char *name,
			   const char *text)
{
	char file[256];
	int fd;

	snprintf(file, sizeof(file), "%s/%s", sysfs, name);
	for (char *p = file + strlen(sysfs) + 1; (p = strchr(p, '/'));
	     *p++ = '/') {
		*p = '\0';
		mkdir(file, 0700);
	}
	fd = open(file, O_CREAT | O_TRUNC | O_WRONLY, 0600);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
}

/* A block device's own names, from sysfs. */
static void test_names(void **state)
{
	static const struct {
		const char *attribute, *text, *name;
	} rows[] = {
		/* each outweighs those above it */
		{ "serial", "vd7\n", "serial vd7\n " },
		{ "md/uuid", "1-2\n", "md/uuid 1-2\n " },
		{ "dm/uuid", "LVM-x\n", "dm/uuid LVM-x\n " },
		{ "device/cid", "9f\n", "device/cid 9f\n " },
		{ "device/wwid", "naa.5\n", "device/wwid naa.5\n " },
		{ "wwid", "eui.0\n", "wwid eui.0\n " },
		/* without information */
		{ "wwid", "0000 \n", "device/wwid naa.5\n " },
		{ "wwid", "", "device/wwid naa.5\n " },
	};
	char sysfs[] = "/tmp/viodev-sysfs-XXXXXX", file[96], name[600];
	char command[64];

	assert_non_null(mkdtemp(sysfs));
	make_attribute(sysfs, "dev/block/8:0/size", "1\n");
	assert_false(disk_find_name(sysfs, makedev(8, 0), name, sizeof(name)));
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		snprintf(file, sizeof(file), "dev/block/8:0/%s",
			 rows[i].attribute);
		make_attribute(sysfs, file, rows[i].text);
		assert_true(disk_find_name(sysfs, makedev(8, 0), name,
					   sizeof(name)));
		assert_string_equal(name, rows[i].name);
	}
	/* A partition is in the directory of its disk, which has the name. */
	make_attribute(sysfs, "disk/wwid", "eui.1\n");
	make_attribute(sysfs, "disk/part/partition", "2\n");
	snprintf(file, sizeof(file), "%s/dev/block/8:2", sysfs);
	assert_int_equal(symlink("../../disk/part", file), 0);
	assert_true(disk_find_name(sysfs, makedev(8, 2), name, sizeof(name)));
	assert_string_equal(name, "wwid eui.1\n 2\n");
	snprintf(command, sizeof(command), "rm -r %s", sysfs);
	assert_int_equal(system(command), 0);
}

static void test_lock(void **state)
{
	static const struct {
		bool first_ro, second_ro;
		bool conflict;
		bool shared; /* the second one */
	} rows[] = {
		{ false, false, true },        { false, true, true },
		{ true, false, true },         { true, true, false },
		{ false, false, false, true },
	};

	make_image(tmp_dir(), IMAGE_BYTES);
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct disk_params p = { .path = path };
		struct err err;
		int first, second;

		p.ro = rows[i].first_ro;
		first = disk_open(&p, &err);
		assert_true(first >= 0);
		p.ro = rows[i].second_ro;
		p.shared = rows[i].shared;
		second = disk_open(&p, &err);
		close(first);
		if (!rows[i].conflict) {
			assert_true(second >= 0);
			close(second);
			continue;
		}
		assert_int_equal(second, -EBUSY);
		assert_non_null(strstr(err.text, path));
		assert_non_null(strstr(err.text, "in use by another process"));
	}
}

static void test_info(void **state)
{
	static const struct {
		uint64_t file, capacity;
	} rows[] = {
		{ 1, 512 },           { 511, 512 },   { 512, 512 },
		{ 513, 1024 },        { 1000, 1024 }, { 1025, 1536 },
		{ 1 << 20, 1 << 20 },
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct disk_info info;

		make_image(tmp_dir(), rows[i].file);
		assert_int_equal(open_disk((struct disk_params){ 0 }), 0);
		disk_get_info(disk, &info);
		assert_int_equal(info.bytes, rows[i].capacity);
		assert_int_equal(info.block_bytes, 512);
		assert_string_equal(info.engine,
				    threads ? "threads" : "io_uring");
		assert_int_equal(info.uring_error, !threads         ? 0 :
						   disk_uring.start ? -EPERM :
								      -ENOPKG);
		close_disk();
	}
}

/* The first and the second of two disks; @disk is the one that is used. */
static void assert_holds(struct disk *d, char byte)
{
	char buf[512];

	disk = d;
	assert_int_equal(transfer_one(DISK_READ, 4096, buf, sizeof(buf)), 0);
	assert_int_equal(buf[0], byte);
	assert_int_equal(buf[511], byte);
}

static struct disk *add_named(char byte)
{
	char buf[512];

	start_with(tmp_dir(), (struct disk_params){ 0 });
	memset(buf, byte, sizeof(buf));
	assert_int_equal(transfer_one(DISK_WRITE, 4096, buf, sizeof(buf)), 0);
	assert_int_equal(simple(DISK_FLUSH), 0);
	return disk;
}

/* The next one has the same path. */
static struct disk *add_disk(char byte)
{
	struct disk *d = add_named(byte);

	unlink(path);
	return d;
}

/* Several disks with one engine, as they are created and destroyed. */
static void test_two_disks(void **state)
{
	struct disk *a, *b, *c;

	FAULT_SET(no_cache, true); /* ask the engine */
	a = add_disk('a');
	b = add_disk('b');
	assert_holds(a, 'a');
	assert_holds(b, 'b');
	if (!threads) {
		make_image(tmp_dir(), IMAGE_BYTES);
		assert_int_equal(open_disk((struct disk_params){ 0 }), -ENOSPC);
		unlink(path);
	}
	disk_destroy(a);
	c = add_disk('c');
	assert_holds(b, 'b');
	assert_holds(c, 'c');
	disk_destroy(b);
	assert_holds(c, 'c');
}

/* A descriptor passed to us may have other access modes. */
static void test_access(void **state)
{
	static const struct {
		int flags;
		struct disk_params params;
		int ret;
	} rows[] = {
		{ O_RDWR, { .ro = false }, 0 },
		{ O_RDWR, { .ro = true }, 0 },
		{ O_RDONLY, { .ro = true }, 0 },
		{ O_RDONLY, { .ro = false }, -EACCES },
		{ O_WRONLY, { .ro = false }, -EACCES },
		{ O_WRONLY, { .ro = true }, -EACCES },
		{ O_PATH, { .ro = true }, -EACCES },
		{ O_RDWR, { .cache = DISK_DIRECT }, -EINVAL },
		{ O_RDWR | O_DIRECT, { .ro = false }, -EINVAL },
	};
	struct err err;

	assert_int_equal(disk_io_create(loop, 64, 1, &io), 0);
	make_image(tmp_dir(), IMAGE_BYTES);
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		int fd = open(path, rows[i].flags);

		if (fd < 0) /* a file system without O_DIRECT */
			continue;
		assert_int_equal(
			disk_create(io, fd, &rows[i].params, &disk, &err),
			rows[i].ret);
		if (rows[i].ret < 0)
			close(fd);
		else
			disk_destroy(disk);
		disk = NULL;
	}
}

/*
 * --- Reads and writes ---
 */

static unsigned seed;

static unsigned rnd(unsigned below)
{
	seed = seed * 1103515245 + 12345;
	return (seed >> 8) % below;
}

#define BATCH      8
#define MAX_PIECES 12
#define AREA       (64u * KIB) /* one for each request of a batch */

/* Divide @buf at random, sometimes at odd addresses. */
static int cut(char *buf, size_t len, struct iovec *iov)
{
	bool odd = rnd(2);
	int n = 0;

	while (len > 0) {
		size_t piece =
			n < MAX_PIECES - 1 ? rnd((unsigned)len) + 1 : len;

		if (!odd && piece < len)
			piece -= piece % 512;
		if (piece == 0)
			continue;
		iov[n++] = (struct iovec){ buf, piece };
		buf += piece;
		len -= piece;
	}
	return n;
}

static void random_batch(char *buf, size_t misalign)
{
	struct test_req t[BATCH] = { 0 };
	struct iovec iov[BATCH][MAX_PIECES];

	for (unsigned i = 0; i < BATCH; i++) {
		uint64_t off = i * 2 * AREA + rnd(AREA / 512) * 512;
		size_t len = (rnd(AREA / 512) + 1) * 512;
		char *p = buf + i * (AREA + 4 * KIB) + misalign;
		enum disk_op op = rnd(2) ? DISK_WRITE : DISK_READ;

		t[i].req.dr_fua = rnd(4) == 0;
		memset(p, (int)rnd(256), len);
		if (op == DISK_WRITE)
			memcpy(model + off, p, len);
		start(&t[i], op, off, len, iov[i], cut(p, len, iov[i]));
	}
	for (unsigned i = 0; i < BATCH; i++) {
		assert_int_equal(finish(&t[i]), 0);
		if (t[i].req.dr_op == DISK_READ)
			assert_memory_equal(
				buf + i * (AREA + 4 * KIB) + misalign,
				model + t[i].req.dr_off, t[i].req.dr_len);
	}
}

static void run_random(const char *dir, enum disk_cache cache)
{
	char *buf = aligned_alloc(4 * KIB, BATCH * (AREA + 4 * KIB));

	start_with(dir, (struct disk_params){ .cache = cache });
	for (unsigned i = 0; i < 40; i++)
		random_batch(buf, i % 4 ? 0 : rnd(512));
	assert_int_equal(simple(DISK_FLUSH), 0);
	assert_image_is_model();
	close_disk();
	free(buf);
}

static void test_random(void **state)
{
	for (int cache = DISK_WRITEBACK; cache <= DISK_DIRECT; cache++)
		run_random(tmp_dir(), (enum disk_cache)cache);
	/* O_DIRECT requires blocks larger than our sectors. */
	FAULT_SET(dio_align, 4 * KIB);
	run_random(tmp_dir(), DISK_DIRECT);
	FAULT_SET(dio_align, 0);
	/* Nothing that the page cache could serve at once. */
	FAULT_SET(no_cache, true);
	run_random(tmp_dir(), DISK_WRITEBACK);
	FAULT_SET(no_cache, false);
	if (access("/dev/shm", W_OK) == 0)
		run_random("/dev/shm", DISK_WRITEBACK);
}

/*
 * A write that O_DIRECT does not accept reads its surroundings and writes them
 * back: nothing else runs meanwhile, nor does it begin while something else
 * runs.
 */
static void test_exclusive(void **state)
{
	static char part[512], whole[4 * KIB] __attribute__((aligned(4 * KIB)));
	struct iovec few = { part, sizeof(part) };
	struct iovec all = { whole, sizeof(whole) };
	struct test_req odd = { 0 }, even = { 0 }, last = { 0 };

	FAULT_SET(dio_align, 4 * KIB);
	start_with(tmp_dir(), (struct disk_params){ .cache = DISK_DIRECT });
	memset(part, 'a', sizeof(part));
	memset(whole, 'b', sizeof(whole));
	FAULT_SET(hang, true);
	start(&odd, DISK_WRITE, 4 * KIB + 512, sizeof(part), &few, 1);
	start(&even, DISK_WRITE, 4 * KIB, sizeof(whole), &all, 1);
	start(&last, DISK_WRITE, 4 * KIB + 512, sizeof(part), &few, 1);
	assert_int_equal(disk->nr_active, 1);
	FAULT_SET(hang, false);
	assert_int_equal(finish(&odd), 0);
	assert_true(disk->nr_active <= 1);
	assert_int_equal(finish(&even), 0);
	assert_int_equal(finish(&last), 0);
	memcpy(model + 4 * KIB, whole, sizeof(whole));
	memcpy(model + 4 * KIB + 512, part, sizeof(part));
	assert_image_is_model();
	close_disk();
	FAULT_SET(dio_align, 0);
}

static void test_many_iovecs(void **state)
{
	enum { NR = 3000 }; /* one call takes 1024 */
	static char buf[NR * 512];
	static struct iovec iov[NR];
	struct test_req t = { 0 };

	start_with(tmp_dir(), (struct disk_params){ 0 });
	for (unsigned i = 0; i < NR; i++) {
		memset(buf + i * 512, (int)i, 512);
		iov[i] = (struct iovec){ buf + i * 512, 512 };
	}
	memcpy(model, buf, sizeof(buf));
	start(&t, DISK_WRITE, 0, sizeof(buf), iov, NR);
	assert_int_equal(finish(&t), 0);
	assert_image_is_model();
}

/* More than the rings hold at a time. */
static void test_crowd(void **state)
{
	enum { NR = 1000 };
	static struct test_req t[NR];
	static char data[NR][512], back[NR][512];
	struct iovec iov[NR], all = { back, sizeof(back) };
	struct test_req whole = { 0 };

	memset(t, 0, sizeof(t));
	start_with(tmp_dir(), (struct disk_params){ 0 });
	for (unsigned i = 0; i < NR; i++) {
		memset(data[i], (int)i, sizeof(data[i]));
		iov[i] = (struct iovec){ data[i], sizeof(data[i]) };
		start(&t[i], DISK_WRITE, i * 512, 512, &iov[i], 1);
	}
	for (unsigned i = 0; i < NR; i++)
		assert_int_equal(finish(&t[i]), 0);
	start(&whole, DISK_READ, 0, sizeof(back), &all, 1);
	assert_int_equal(finish(&whole), 0);
	assert_memory_equal(back, data, sizeof(data));
}

static void test_bounds(void **state)
{
	char buf[KIB] = { 0 };
	static const struct {
		uint64_t off, len;
		int result;
	} rows[] = {
		{ IMAGE_BYTES - KIB, KIB, 0 },
		{ IMAGE_BYTES, 0, 0 },
		{ IMAGE_BYTES - 512, KIB, -ERANGE },
		{ IMAGE_BYTES, KIB, -ERANGE },
		{ UINT64_MAX - 511, KIB, -ERANGE },
		{ UINT64_MAX, KIB, -ERANGE },
	};
	struct stat st;

	start_with(tmp_dir(), (struct disk_params){ 0 });
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		for (int op = DISK_READ; op <= DISK_WRITE; op++)
			assert_int_equal(transfer_one((enum disk_op)op,
						      rows[i].off, buf,
						      rows[i].len),
					 rows[i].result);
	}
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_size, IMAGE_BYTES);
}

static void test_read_only(void **state)
{
	char buf[512] = { 1 };

	start_with(tmp_dir(), (struct disk_params){ .ro = true });
	assert_int_equal(transfer_one(DISK_WRITE, 0, buf, 512), -EROFS);
	assert_int_equal(transfer_one(DISK_DISCARD, 0, NULL, 512), -EROFS);
	assert_int_equal(transfer_one(DISK_WRITE_ZEROES, 0, NULL, 512), -EROFS);
	assert_int_equal(transfer_one(DISK_READ, 0, buf, 512), 0);
	assert_int_equal(simple(DISK_FLUSH), 0);
	assert_image_is_model();
}

/*
 * --- An image whose size is not a multiple of a block ---
 */

static uint64_t image_size(void)
{
	struct stat st;

	assert_int_equal(stat(path, &st), 0);
	return (uint64_t)st.st_size;
}

static void fill_odd_image(uint64_t bytes)
{
	make_image(tmp_dir(), bytes);
	memset(model, 'm', bytes);
	poke(0, model, bytes);
}

static void assert_reads_as_model(uint64_t off, uint64_t len)
{
	static char buf[64 * KIB] __attribute__((aligned(4096)));

	memset(buf, 'x', sizeof(buf));
	assert_int_equal(transfer_one(DISK_READ, off, buf, len), 0);
	assert_memory_equal(buf, model + off, len);
	assert_int_equal(buf[len], 'x');
}

/* All bytes can be read, followed by zeroes; the file grows. */
static void test_odd_size(void **state)
{
	static const struct {
		const char *name;
		uint64_t bytes;
		struct disk_params params;
		uint64_t capacity;
		unsigned dio_align;
		size_t max_bytes; /* of a transfer */
	} rows[] = {
		{ "cached", 20 * KIB + 307, { 0 }, 20 * KIB + 512 },
		{ "read-only", 20 * KIB + 1, { .ro = true }, 20 * KIB + 512 },
		{ "less than a block", 100, { 0 }, 512 },
		{ "4096", 20 * KIB + 512, { .block_bytes = 4096 }, 24 * KIB },
		{ "2048", 5, { .block_bytes = 2048, .ro = true }, 2048 },
		{ "direct",
		  20 * KIB + 307,
		  { .cache = DISK_DIRECT },
		  24 * KIB,
		  4096 },
		{ "short", 20 * KIB + 307, { 0 }, 20 * KIB + 512, 0, 4096 },
	};
	char block[512];

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct disk_params params = rows[i].params;
		uint64_t end = rows[i].capacity;
		struct disk_info info;
		char text[128];

		print_message("%s\n", rows[i].name);
		disk_fault.dio_align = rows[i].dio_align;
		disk_fault.max_bytes = rows[i].max_bytes;
		fill_odd_image(rows[i].bytes);
		assert_int_equal(open_disk(params), 0);
		disk_get_info(disk, &info);
		assert_int_equal(info.bytes, end);
		assert_true(disk_odd_size(disk, text, sizeof(text)));
		assert_non_null(strstr(text, "complete the last block"));
		assert_reads_as_model(0, end);
		assert_reads_as_model(end - 512, 512);
		assert_reads_as_model(rows[i].bytes / 512 * 512, 512);
		assert_int_equal(transfer_one(DISK_READ, end, block, 512),
				 -ERANGE);
		assert_int_equal(image_size(), rows[i].bytes);
		if (!params.ro) {
			memset(block, 'w', sizeof(block));
			memcpy(model + end - 512, block, 512);
			assert_int_equal(
				transfer_one(DISK_WRITE, end - 512, block, 512),
				0);
			assert_int_equal(image_size(), end);
			assert_reads_as_model(0, end);
		}
		close_disk();
	}
}

/* Zeroes up to the last block, by each method. */
static void test_odd_size_zeroes(void **state)
{
	const uint64_t bytes = 20 * KIB + 307, last = 20 * KIB;

	for (int way = 0; way < 3; way++) {
		struct test_req t = { .req.dr_unmap = way == 1 };

		disk_fault.fallocate_errno = way == 2 ? EOPNOTSUPP : 0;
		fill_odd_image(bytes);
		assert_int_equal(open_disk((struct disk_params){ 0 }), 0);
		start(&t, DISK_WRITE_ZEROES, last, 512, NULL, 0);
		assert_int_equal(finish(&t), 0);
		memset(model + last, 0, 512);
		assert_reads_as_model(0, last + 512);
		close_disk();
	}
}

/* No arithmetic on a size wraps. */
static void test_largest_size(void **state)
{
	struct disk_info info;

	make_image("/dev/shm", 1);
	if (truncate(path, INT64_MAX) < 0)
		skip();
	assert_int_equal(open_disk((struct disk_params){ 0 }), 0);
	disk_get_info(disk, &info);
	assert_int_equal(info.bytes, INT64_MAX - 511);
}

/* hostile F13: an empty file behind a larger capacity. */
static void test_shrunk_behind_our_back(void **state)
{
	char buf[KIB];

	start_with(tmp_dir(), (struct disk_params){ 0 });
	assert_int_equal(truncate(path, 512), 0);
	assert_int_equal(transfer_one(DISK_READ, 0, buf, KIB), -EIO);
	assert_int_equal(transfer_one(DISK_READ, 8 * KIB, buf, KIB), -EIO);
	assert_int_equal(transfer_one(DISK_READ, 0, buf, 512), 0);
}

/* hostile F13: transfers that stop half-way, or do not move at all. */
static void test_short_transfers(void **state)
{
	static char buf[64 * KIB], back[64 * KIB];
	struct test_req t = { 0 };
	struct iovec iov[2];

	if (!threads)
		skip();
	for (size_t i = 0; i < sizeof(buf); i++)
		buf[i] = (char)rnd(256);
	memcpy(model + 512, buf, sizeof(buf));
	start_with(tmp_dir(), (struct disk_params){ 0 });
	memcpy(model + 512, buf, sizeof(buf));

	FAULT_SET(max_bytes, KIB);
	FAULT_SET(nr_interrupted, 3);
	iov[0] = (struct iovec){ buf, 1536 };
	iov[1] = (struct iovec){ buf + 1536, sizeof(buf) - 1536 };
	start(&t, DISK_WRITE, 512, sizeof(buf), iov, 2);
	assert_int_equal(finish(&t), 0);
	assert_true(FAULT_GET(nr_write) >= sizeof(buf) / KIB);
	assert_image_is_model();

	for (int cached = 0; cached < 2; cached++) {
		FAULT_SET(no_cache, !cached);
		memset(back, 0, sizeof(back));
		iov[0] = (struct iovec){ back, 1536 };
		iov[1] = (struct iovec){ back + 1536, sizeof(back) - 1536 };
		start(&t, DISK_READ, 512, sizeof(back), iov, 2);
		assert_int_equal(finish(&t), 0);
		assert_memory_equal(back, buf, sizeof(buf));
	}

	FAULT_SET(no_cache, true);
	FAULT_SET(no_progress, true);
	assert_int_equal(transfer_one(DISK_READ, 0, back, KIB), -EIO);
	assert_int_equal(transfer_one(DISK_WRITE, 0, back, KIB), -EIO);
}

static void test_errors(void **state)
{
	char buf[512] = { 0 };

	start_with(tmp_dir(), (struct disk_params){ 0 });
	FAULT_SET(no_cache, true);
	FAULT_SET(read_errno, EIO);
	FAULT_SET(write_errno, ENOSPC);
	assert_int_equal(transfer_one(DISK_READ, 0, buf, 512), failure(EIO));
	assert_int_equal(transfer_one(DISK_WRITE, 0, buf, 512),
			 failure(ENOSPC));
	/* A failed write was reported: flushes continue. */
	FAULT_SET(write_errno, 0);
	assert_int_equal(simple(DISK_FLUSH), 0);
}

/*
 * --- Durability ---
 */

/* BLK-12, BLK-13: a stable write is done when fdatasync() has returned. */
static void test_stable_writes(void **state)
{
	static const struct {
		enum disk_cache cache;
		enum disk_op op;
		bool fua;
		bool synced;
	} rows[] = {
		{ DISK_WRITEBACK, DISK_WRITE, false, false },
		{ DISK_WRITEBACK, DISK_WRITE, true, true },
		{ DISK_WRITETHROUGH, DISK_WRITE, false, true },
		{ DISK_WRITETHROUGH, DISK_WRITE_ZEROES, false, true },
		{ DISK_WRITEBACK, DISK_WRITE_ZEROES, true, true },
		{ DISK_DIRECT, DISK_WRITE, false, false },
		{ DISK_DIRECT, DISK_WRITE, true, true },
		{ DISK_WRITETHROUGH, DISK_READ, false, false },
	};
	char buf[512] = { 0 };

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct test_req t = { .req.dr_fua = rows[i].fua };
		struct iovec iov = { buf, sizeof(buf) };

		start_with(tmp_dir(),
			   (struct disk_params){ .cache = rows[i].cache });
		FAULT_SET(nr_sync, 0);
		start(&t, rows[i].op, 0, 512, &iov, 1);
		assert_int_equal(finish(&t), 0);
		assert_int_equal(FAULT_GET(nr_sync), rows[i].synced);
		close_disk();
	}
}

/* BLK-14, and flushes that arrive together share one call. */
static void test_flush(void **state)
{
	struct test_req t[BATCH] = { 0 };

	start_with(tmp_dir(), (struct disk_params){ 0 });
	for (unsigned i = 0; i < BATCH; i++)
		start(&t[i], DISK_FLUSH, 0, 0, NULL, 0);
	for (unsigned i = 0; i < BATCH; i++)
		assert_int_equal(finish(&t[i]), 0);
	assert_int_equal(FAULT_GET(nr_sync), 1);

	/* One that arrives while a call runs is not served by it. */
	FAULT_SET(hang, true);
	start(&t[0], DISK_FLUSH, 0, 0, NULL, 0);
	disk_submit(disk);
	start(&t[1], DISK_FLUSH, 0, 0, NULL, 0);
	disk_submit(disk);
	FAULT_SET(hang, false);
	assert_int_equal(finish(&t[1]), 0);
	assert_true(t[0].done);
	assert_int_equal(FAULT_GET(nr_sync), 3);
}

/* The kernel reports a lost write once. We keep reporting it. */
static void test_failed_flush(void **state)
{
	char buf[512] = { 0 };
	struct test_req t = { .req.dr_fua = true };
	struct iovec iov = { buf, sizeof(buf) };

	start_with(tmp_dir(), (struct disk_params){ 0 });
	FAULT_SET(sync_errno, EIO);
	assert_int_equal(simple(DISK_FLUSH), failure(EIO));
	FAULT_SET(sync_errno, 0);
	assert_int_equal(simple(DISK_FLUSH), failure(EIO));
	start(&t, DISK_WRITE, 0, 512, &iov, 1);
	assert_int_equal(finish(&t), failure(EIO));
	/* Requests without a durability promise work. */
	assert_int_equal(transfer_one(DISK_WRITE, 0, buf, 512), 0);
	assert_int_equal(transfer_one(DISK_READ, 0, buf, 512), 0);
}

/* Flushes that wait while one fails are not covered by it, but fail too. */
static void test_failed_flush_waiting(void **state)
{
	struct test_req t[3] = { 0 };

	start_with(tmp_dir(), (struct disk_params){ 0 });
	FAULT_SET(hang, true);
	FAULT_SET(sync_errno, EIO);
	start(&t[0], DISK_FLUSH, 0, 0, NULL, 0);
	disk_submit(disk);
	start(&t[1], DISK_FLUSH, 0, 0, NULL, 0);
	start(&t[2], DISK_FLUSH, 0, 0, NULL, 0);
	FAULT_SET(hang, false);
	assert_int_equal(finish(&t[0]), failure(EIO));
	FAULT_SET(sync_errno, 0);
	assert_int_equal(finish(&t[1]), failure(EIO));
	assert_int_equal(finish(&t[2]), failure(EIO));
	assert_int_equal(FAULT_GET(nr_sync), 0);
}

/*
 * --- Discard and write zeroes ---
 */

static uint64_t allocated(void)
{
	struct stat st;

	assert_int_equal(stat(path, &st), 0);
	return (uint64_t)st.st_blocks * 512;
}

static void fill_image(void)
{
	memset(model, 'x', sizeof(model));
	assert_int_equal(transfer_one(DISK_WRITE, 0, model, sizeof(model)), 0);
	assert_int_equal(simple(DISK_FLUSH), 0);
}

/* BLK-10: the range reads as zeroes, whatever the image can do. */
static void test_write_zeroes(void **state)
{
	static const struct {
		uint64_t off, len;
	} rows[] = {
		{ 0, 4 * KIB },
		{ 512, 512 },
		{ 3 * 512, 200 * KIB },
		{ 64 * KIB, 2048 * KIB + 512 },
		{ IMAGE_BYTES - 512, 512 },
		{ 0, IMAGE_BYTES },
	};
	static const struct {
		enum disk_cache cache;
		unsigned dio_align;
		int fallocate_errno;
	} ways[] = {
		{ DISK_WRITEBACK, 0, 0 },
		{ DISK_WRITEBACK, 0, EOPNOTSUPP },
		{ DISK_WRITEBACK, 0, EINVAL },
		{ DISK_DIRECT, 0, 0 },
		{ DISK_DIRECT, 4 * KIB, EOPNOTSUPP },
	};

	for (size_t w = 0; w < ARRAY_LEN(ways); w++) {
		FAULT_SET(dio_align, ways[w].dio_align);
		FAULT_SET(fallocate_errno, ways[w].fallocate_errno);
		start_with(tmp_dir(),
			   (struct disk_params){ .cache = ways[w].cache });
		for (size_t i = 0; i < 2 * ARRAY_LEN(rows); i++) {
			struct test_req t = { .req.dr_unmap = i & 1 };

			fill_image();
			memset(model + rows[i / 2].off, 0, rows[i / 2].len);
			start(&t, DISK_WRITE_ZEROES, rows[i / 2].off,
			      rows[i / 2].len, NULL, 0);
			assert_int_equal(finish(&t), 0);
			assert_image_is_model();
		}
		close_disk();
	}
}

static void test_unmap(void **state)
{
	struct test_req t = { .req.dr_unmap = true };
	struct disk_info info;

	start_with(tmp_dir(), (struct disk_params){ .discard = true });
	disk_get_info(disk, &info);
	if (!info.can_discard)
		skip();
	fill_image();
	assert_true(allocated() >= IMAGE_BYTES);
	start(&t, DISK_WRITE_ZEROES, 0, IMAGE_BYTES / 2, NULL, 0);
	assert_int_equal(finish(&t), 0);
	assert_true(allocated() < IMAGE_BYTES * 3 / 4);
	assert_int_equal(transfer_one(DISK_DISCARD, 0, NULL, IMAGE_BYTES), 0);
	assert_true(allocated() < IMAGE_BYTES / 4);
	/* Without unmap the space stays. */
	fill_image();
	t.req.dr_unmap = false;
	start(&t, DISK_WRITE_ZEROES, 0, IMAGE_BYTES, NULL, 0);
	assert_int_equal(finish(&t), 0);
	assert_true(allocated() >= IMAGE_BYTES);
}

/*
 * --- Size ---
 */

static uint64_t notified;

static void on_size(void *arg, uint64_t bytes)
{
	notified = bytes;
}

static void wait_for_size(uint64_t bytes)
{
	uint64_t end = vio_now_ns() + 5000000000ull;

	while (notified != bytes && vio_now_ns() < end)
		vio_loop_iterate(loop, 100);
	assert_int_equal(notified, bytes);
}

/* Wait until it completes. */
static int resize(uint64_t bytes)
{
	struct err err;
	int ret;

	while ((ret = disk_resize(disk, bytes, true, &err)) == 1)
		assert_true(vio_loop_iterate(loop, 100) >= 0);
	return ret;
}

static void test_resize(void **state)
{
	char buf[512] = { 0 };
	struct disk_info info;
	struct stat st;
	struct err err;

	start_with(tmp_dir(), (struct disk_params){ 0 });
	disk_set_notify(disk, on_size, NULL);
	assert_int_equal(disk_resize(disk, 512, false, &err), -EEXIST);
	assert_int_equal(disk_resize(disk, 0, true, &err), -EINVAL);
	assert_int_equal(disk_resize(disk, 1000, true, &err), -EINVAL);
	assert_int_equal(disk_resize(disk, 1ull << 63, true, &err), -EFBIG);
	notified = 0;
	assert_int_equal(resize(IMAGE_BYTES), 0);
	assert_int_equal(notified, 0); /* no change */

	assert_int_equal(resize(2 * IMAGE_BYTES), 0);
	assert_int_equal(notified, 2 * IMAGE_BYTES);
	assert_int_equal(
		transfer_one(DISK_WRITE, 2 * IMAGE_BYTES - 512, buf, 512), 0);
	assert_int_equal(resize(KIB), 0);
	assert_int_equal(notified, KIB);
	disk_get_info(disk, &info);
	assert_int_equal(info.bytes, KIB);
	assert_int_equal(transfer_one(DISK_WRITE, KIB, buf, 512), -ERANGE);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_size, KIB);
}

/* No image: of any size, every call succeeds, and no byte is moved. */
static void test_null(void **state)
{
	const uint64_t bytes = UINT64_C(1) << 50;
	struct disk_info info;
	char buf[512];

	make_image(tmp_dir(), 0);
	assert_int_equal(
		open_disk((struct disk_params){ .null_bytes = bytes,
						.discard = true,
						.cache = DISK_DIRECT }),
		0);
	disk_get_info(disk, &info);
	assert_string_equal(info.engine, "null");
	assert_true(info.bytes == bytes && info.can_discard);
	memset(buf, 'x', sizeof(buf));
	assert_int_equal(transfer_one(DISK_WRITE, bytes - 512, buf, 512), 0);
	assert_int_equal(transfer_one(DISK_READ, bytes - 512, buf, 512), 0);
	assert_int_equal(buf[0], 'x');
	assert_int_equal(transfer_one(DISK_READ, bytes, buf, 512), -ERANGE);
	assert_int_equal(simple(DISK_FLUSH), 0);
	assert_int_equal(transfer_one(DISK_DISCARD, 0, NULL, 4096), 0);
	assert_int_equal(transfer_one(DISK_WRITE_ZEROES, 0, NULL, 4096), 0);
	assert_int_equal(image_size(), 0);
	assert_int_equal(resize(2 * bytes), 0);
	assert_int_equal(transfer_one(DISK_READ, bytes, buf, 512), 0);
}

static void test_watch(void **state)
{
	struct disk_params p = { .path = path };
	char buf[512] = { 0 };

	start_with(tmp_dir(), (struct disk_params){ 0 });
	disk_set_notify(disk, on_size, NULL);
	assert_int_equal(disk_watch(disk, disk_open_watch(&p)), 0);
	assert_int_equal(truncate(path, 2 * IMAGE_BYTES), 0);
	wait_for_size(2 * IMAGE_BYTES);
	/* Also while our own writes are being reported. */
	assert_int_equal(transfer_one(DISK_WRITE, 0, buf, 512), 0);
	assert_int_equal(truncate(path, IMAGE_BYTES), 0);
	wait_for_size(IMAGE_BYTES);
}

/* Our own inspection of the image is not reported: an idle disk sleeps. */
static void test_watch_quiet(void **state)
{
	struct disk_params p = { .path = path };
	int fd;

	make_image(tmp_dir(), IMAGE_BYTES);
	fd = disk_open_watch(&p);
	assert_int_equal(open_disk((struct disk_params){ 0 }), 0);
	disk_set_notify(disk, on_size, NULL);
	assert_int_equal(disk_watch(disk, fd), 0);
	assert_int_equal(vio_loop_iterate(loop, 10), 0);
	/* Nor are changes missed that were made before the watch was read. */
	disk_destroy(disk);
	assert_int_equal(open_disk((struct disk_params){ 0 }), 0);
	fd = disk_open_watch(&p);
	assert_int_equal(truncate(path, 2 * IMAGE_BYTES), 0);
	disk_set_notify(disk, on_size, NULL);
	assert_int_equal(disk_watch(disk, fd), 0);
	wait_for_size(2 * IMAGE_BYTES);
}

/*
 * --- Iterations ---
 */

#define NR_LONG 3 /* requests that are an iteration's share each */

/* On an image in memory: each ends as soon as it begins. */
static void start_long(struct test_req *t, struct iovec *iov, enum disk_op op)
{
	static char buf[NR_LONG][2048 * KIB];

	for (unsigned i = 0; i < NR_LONG; i++) {
		iov[i] = (struct iovec){ buf[i], sizeof(buf[i]) };
		start(&t[i], op, i * sizeof(buf[i]) % IMAGE_BYTES,
		      sizeof(buf[i]), &iov[i], 1);
	}
}

static unsigned count_done(const struct test_req *t)
{
	unsigned nr = 0;

	for (unsigned i = 0; i < NR_LONG; i++)
		nr += t[i].done;
	return nr;
}

/* The driver gets to see each before the next one keeps the loop busy. */
static void test_iteration_share(void **state)
{
	struct test_req t[NR_LONG] = { 0 };
	struct iovec iov[NR_LONG];

	if (access("/dev/shm", W_OK) != 0)
		skip();
	start_with("/dev/shm", (struct disk_params){ 0 });
	for (int op = DISK_READ; op <= DISK_WRITE; op++) {
		unsigned before, now = 0;

		start_long(t, iov, (enum disk_op)op);
		do {
			before = now;
			now = count_done(t);
			assert_in_range(now, before, before + 1);
			assert_true(vio_loop_iterate(loop, 5000) >= 0);
		} while (now < NR_LONG);
		for (unsigned i = 0; i < NR_LONG; i++)
			assert_int_equal(t[i].result, 0);
	}
}

/*
 * --- A disk that does not answer ---
 */

static void make_hang(void)
{
	FAULT_SET(no_cache, true);
	FAULT_SET(hang, true);
}

/* Some iterations of the loop, in which no hanging request can end. */
static void iterate_a_while(void)
{
	for (int i = 0; i < 5; i++)
		assert_true(vio_loop_iterate(loop, 10) >= 0);
}

/*
 * A flush, or any request, that takes long does not fail, whatever other
 * requests arrive meanwhile.
 */
static void test_slow(void **state)
{
	char buf[3][512] = { { 0 } };
	struct test_req t[3] = { 0 };
	struct iovec iov[3];

	start_with(tmp_dir(), (struct disk_params){ 0 });
	make_hang();
	for (unsigned i = 0; i < 3; i++)
		iov[i] = (struct iovec){ buf[i], sizeof(buf[i]) };
	start(&t[0], DISK_FLUSH, 0, 0, NULL, 0);
	start(&t[1], DISK_READ, 0, 512, &iov[1], 1);
	start(&t[2], DISK_WRITE, 4096, 512, &iov[2], 1);
	iterate_a_while();
	assert_false(t[0].done || t[1].done || t[2].done);
	FAULT_SET(hang, false);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(finish(&t[i]), 0);
}

/* Requests that hang, however many, do not hold up others. */
static void test_many_slow(void **state)
{
	static char buf[8][512];
	struct test_req slow[8] = { 0 }, other = { 0 };
	struct iovec iov[8];

	if (!threads)
		skip(); /* one queue, which the kernel empties */
	start_with(tmp_dir(), (struct disk_params){ 0 });
	make_hang();
	for (unsigned i = 0; i < 8; i++) {
		iov[i] = (struct iovec){ buf[i], sizeof(buf[i]) };
		start(&slow[i], DISK_WRITE, i * 4096, 512, &iov[i], 1);
	}
	start(&other, DISK_WRITE_ZEROES, 1024 * KIB, 4096, NULL, 0);
	assert_int_equal(finish(&other), 0);
	for (unsigned i = 0; i < 8; i++)
		assert_false(slow[i].done);
	FAULT_SET(hang, false);
	for (unsigned i = 0; i < 8; i++)
		assert_int_equal(finish(&slow[i]), 0);
}

/* All requests end, sooner or later; forgetting them again changes nothing. */
static void test_forget(void **state)
{
	static char buf[BATCH][512];
	struct test_req old[BATCH] = { 0 }, late = { 0 }, flush = { 0 };
	struct iovec iov[BATCH];

	start_with(tmp_dir(), (struct disk_params){ 0 });
	make_hang();
	for (unsigned i = 0; i < BATCH; i++) {
		iov[i] = (struct iovec){ buf[i], sizeof(buf[i]) };
		start(&old[i], DISK_READ, i * 4096, 512, &iov[i], 1);
	}
	iterate_a_while();
	disk_forget(disk);
	start(&late, DISK_READ, 0, 512, &iov[0], 1);
	start(&flush, DISK_FLUSH, 0, 0, NULL, 0);
	iterate_a_while();
	assert_false(late.done || flush.done || old[0].done);

	disk_forget(disk);
	assert_false(late.done || flush.done); /* not from inside */
	assert_int_equal(finish(&late), -ECANCELED);
	assert_int_equal(finish(&flush), -ECANCELED);
	FAULT_SET(hang, false);
	for (unsigned i = 0; i < BATCH; i++)
		finish(&old[i]);
	assert_int_equal(simple(DISK_FLUSH), 0);
	assert_int_equal(transfer_one(DISK_READ, 0, buf[0], 512), 0);
}

/* A flush that waits for another one to end has not begun. */
static void test_forget_flush(void **state)
{
	struct test_req t[2] = { 0 };

	start_with(tmp_dir(), (struct disk_params){ 0 });
	make_hang();
	start(&t[0], DISK_FLUSH, 0, 0, NULL, 0);
	disk_submit(disk);
	start(&t[1], DISK_FLUSH, 0, 0, NULL, 0);
	disk_forget(disk);
	assert_int_equal(finish(&t[1]), -ECANCELED);
	iterate_a_while();
	assert_false(t[0].done);
	FAULT_SET(hang, false);
	assert_int_equal(finish(&t[0]), 0);
	assert_int_equal(simple(DISK_FLUSH), 0);
}

/* Nothing is in flight: it is as if nothing had happened. */
static void test_forget_idle(void **state)
{
	char buf[512] = { 0 };

	start_with(tmp_dir(), (struct disk_params){ 0 });
	disk_forget(disk);
	assert_int_equal(transfer_one(DISK_WRITE, 0, buf, 512), 0);
	disk_forget(disk);
	assert_int_equal(simple(DISK_FLUSH), 0);
}

/* The last write wins. */
static void test_forget_order(void **state)
{
	static char old_buf[BATCH][512], new_buf[512];
	struct test_req old[BATCH] = { 0 }, new = { 0 };
	struct iovec iov[BATCH], new_iov = { new_buf, sizeof(new_buf) };

	start_with(tmp_dir(), (struct disk_params){ 0 });
	memset(old_buf, 'o', sizeof(old_buf));
	memset(new_buf, 'n', sizeof(new_buf));
	memcpy(model, new_buf, sizeof(new_buf));
	make_hang();
	for (unsigned i = 0; i < BATCH; i++) {
		iov[i] = (struct iovec){ old_buf[i], sizeof(old_buf[i]) };
		start(&old[i], DISK_WRITE, 0, 512, &iov[i], 1);
	}
	disk_submit(disk);
	disk_forget(disk);
	start(&new, DISK_WRITE, 0, 512, &new_iov, 1);
	iterate_a_while();
	FAULT_SET(hang, false);
	assert_int_equal(finish(&new), 0);
	for (unsigned i = 0; i < BATCH; i++)
		assert_true(old[i].done);
	assert_image_is_model();
}

/* A request longer than a call ends with the call in progress. */
static void test_forget_long(void **state)
{
	struct test_req t = { 0 };

	if (!threads)
		skip();
	start_with(tmp_dir(), (struct disk_params){ 0 });
	FAULT_SET(fallocate_errno, EOPNOTSUPP);
	make_hang();
	start(&t, DISK_WRITE_ZEROES, 0, IMAGE_BYTES, NULL, 0);
	iterate_a_while();
	disk_forget(disk);
	FAULT_SET(hang, false);
	assert_int_equal(finish(&t), -ECANCELED);
	assert_true(FAULT_GET(nr_write) <= 1);
}

/* A disk is destroyed while another one, with the same engine, stays. */
static void test_destroy_slow(void **state)
{
	static char buf[512];
	struct iovec iov = { buf, sizeof(buf) };
	struct test_req t = { 0 };
	struct disk *stays = add_disk('a'), *goes;

	goes = add_disk('b');
	make_hang();
	start(&t, DISK_READ, 4096, 512, &iov, 1);
	iterate_a_while();
	disk_destroy(goes);
	disk = stays;
	iterate_a_while();
	assert_false(t.done);
	FAULT_SET(hang, false);
	finish(&t);
	assert_holds(stays, 'a');
	assert_null(io->closing);
}

/* The end of a process waits for no disk; what the disk uses stays. */
static void test_end(void **state)
{
	/* The abandoned thread still uses these after this test. */
	static char buf[512];
	static struct test_req t;
	static struct iovec iov = { buf, sizeof(buf) };
	uint64_t start_ns = vio_now_ns();

	if (!threads)
		skip(); /* what hangs there is not in the kernel */
	start_with(tmp_dir(), (struct disk_params){ 0 });
	make_hang();
	memset(&t, 0, sizeof(t));
	start(&t, DISK_READ, 0, 512, &iov, 1);
	iterate_a_while();
	disk_destroy(disk);
	disk = NULL;
	assert_false(disk_io_destroy(io));
	io = NULL;
	assert_false(t.done);
	assert_true(vio_now_ns() - start_ns < 10000000000ull);
}

/* The shortest of several, since other processes may delay us. */
static uint64_t shortest_resize(struct disk *d, uint64_t bytes)
{
	uint64_t shortest = UINT64_MAX;
	struct err err;

	for (int i = 0; i < 10; i++) {
		uint64_t start_ns = vio_now_ns(), ns;

		assert_int_equal(disk_resize(d, bytes, true, &err), 1);
		ns = vio_now_ns() - start_ns;
		shortest = ns < shortest ? ns : shortest;
	}
	return shortest;
}

/* A file that was replaced at its path is not resized silently. */
static void test_resize_replaced(void **state)
{
	struct disk *old = add_disk('a');

	assert_int_equal(resize(2 * IMAGE_BYTES), -ESTALE);
	disk_destroy(old);
	add_named('b');
	assert_int_equal(resize(2 * IMAGE_BYTES), 0);
}

/* Nor is one that was moved away; its own changes are still seen. */
static void test_resize_renamed(void **state)
{
	struct disk_params p = { .path = path };
	char old[sizeof(path) + 4];

	start_with(tmp_dir(), (struct disk_params){ 0 });
	disk_set_notify(disk, on_size, NULL);
	assert_int_equal(disk_watch(disk, disk_open_watch(&p)), 0);
	assert_int_equal(resize(2 * IMAGE_BYTES), 0);
	snprintf(old, sizeof(old), "%s.old", path);
	assert_int_equal(rename(path, old), 0);
	assert_int_equal(truncate(old, 3 * IMAGE_BYTES), 0);
	assert_int_equal(resize(4 * IMAGE_BYTES), -ESTALE);
	wait_for_size(3 * IMAGE_BYTES);
	unlink(old);
}

/* A size that cannot be set now is set later; others are served meanwhile. */
static void test_resize_slow(void **state)
{
	struct disk *a = add_disk('a'), *b = add_named('b');
	struct test_req t = { 0 };
	struct err err;

	disk_set_notify(b, on_size, NULL);
	notified = 0;
	FAULT_SET(hang_size, true);
	assert_true(shortest_resize(b, 2 * IMAGE_BYTES) < 50000000);
	assert_holds(a, 'a');
	assert_holds(b, 'b');
	assert_int_equal(notified, 0);
	FAULT_SET(hang_size, false);
	wait_for_size(2 * IMAGE_BYTES);

	/* Requests that might extend it again are waited for, but not here. */
	make_hang();
	start(&t, DISK_FLUSH, 0, 0, NULL, 0);
	disk_submit(b);
	assert_int_equal(disk_resize(b, IMAGE_BYTES, true, &err), 1);
	iterate_a_while();
	assert_int_equal(notified, 2 * IMAGE_BYTES);
	FAULT_SET(hang, false);
	wait_for_size(IMAGE_BYTES);
	assert_true(t.done);
	disk_destroy(a);
}

/* Nor does it hold up the size of another image. */
static void test_resize_slow_other(void **state)
{
	struct disk *a = add_disk('a'), *b = add_named('b');
	struct disk_params p = { .path = path };
	struct err err;

	disk_set_notify(b, on_size, NULL);
	assert_int_equal(disk_watch(b, disk_open_watch(&p)), 0);
	a->exec.img.had_name = false; /* resize the file without a name */
	FAULT_SET(hang_size, true);
	assert_int_equal(disk_resize(a, 2 * IMAGE_BYTES, false, &err), 1);
	assert_int_equal(truncate(path, 2 * IMAGE_BYTES), 0);
	wait_for_size(2 * IMAGE_BYTES);
	FAULT_SET(hang_size, false);
	disk_destroy(a);
}

/* Earlier requests that wait meanwhile do not extend it again. */
static void test_shrink_held(void **state)
{
	static char buf[512];
	struct iovec iov = { buf, sizeof(buf) };
	struct test_req active = { 0 }, held = { 0 }, inside = { 0 };
	struct err err;

	start_with(tmp_dir(), (struct disk_params){ 0 });
	disk_set_notify(disk, on_size, NULL);
	make_hang();
	start(&active, DISK_FLUSH, 0, 0, NULL, 0);
	disk_submit(disk);
	assert_int_equal(disk_resize(disk, KIB, true, &err), 1);
	start(&held, DISK_WRITE, IMAGE_BYTES - 512, 512, &iov, 1);
	start(&inside, DISK_WRITE, 0, 512, &iov, 1);
	FAULT_SET(hang, false);
	assert_int_equal(finish(&held), -ERANGE);
	assert_int_equal(finish(&inside), 0);
	assert_int_equal(finish(&active), 0);
	assert_int_equal(image_size(), KIB);
}

/* Nor do those that wait after an error. */
static void test_shrink_waiting(void **state)
{
	static char buf[512];
	struct iovec iov = { buf, sizeof(buf) };
	struct test_req t = { 0 };
	struct err err;

	start_with(tmp_dir(),
		   (struct disk_params){ .on_write_error = DISK_WAIT });
	disk_set_notify(disk, on_size, NULL);
	FAULT_SET(write_errno, EIO);
	start(&t, DISK_WRITE, IMAGE_BYTES - 512, 512, &iov, 1);
	while (disk_nr_waiting(disk) == 0)
		assert_true(vio_loop_iterate(loop, 5000) >= 0);
	FAULT_SET(write_errno, 0);
	if (disk_resize(disk, KIB, true, &err) != 0)
		wait_for_size(KIB);
	disk_resume(disk);
	assert_int_equal(finish(&t), -ERANGE);
	assert_int_equal(image_size(), KIB);
}

/* A kernel without room is not retried all the time. */
static void test_again(void **state)
{
	char buf[512] = { 0 };
	struct test_req t = { 0 };
	struct iovec iov = { buf, sizeof(buf) };
	uint64_t end;

	start_with(tmp_dir(), (struct disk_params){ 0 });
	if (threads)
		FAULT_SET(write_errno, EAGAIN);
	else
		FAULT_SET(hang, true);
	FAULT_SET(nr_tried, 0);
	start(&t, DISK_WRITE, 0, 512, &iov, 1);
	end = vio_now_ns() + 300000000;
	while (vio_now_ns() < end)
		assert_true(vio_loop_iterate(loop, 10) >= 0);
	assert_false(t.done);
	assert_in_range(FAULT_GET(nr_tried), 3, 12); /* 1, 2, 4, ... ms */
	FAULT_SET(write_errno, 0);
	FAULT_SET(hang, false);
	assert_int_equal(finish(&t), 0);
}

/*
 * --- Requests that wait after an error ---
 */

static unsigned nr_waits;
static int wait_error;
static enum disk_op wait_op;

static void on_wait(void *arg, enum disk_op op, int error)
{
	if (disk_nr_waiting(disk) > 1)
		return;
	nr_waits++;
	wait_op = op;
	wait_error = error;
}

static void start_waiting_disk(enum disk_on_error on_read,
			       enum disk_on_error on_write)
{
	start_with(tmp_dir(),
		   (struct disk_params){ .on_read_error = on_read,
					 .on_write_error = on_write });
	disk_set_on_wait(disk, on_wait, NULL);
	FAULT_SET(no_cache, true);
	nr_waits = 0;
}

static void start_three(struct test_req *t, struct iovec *iov, enum disk_op op)
{
	static char buf[3][512];

	for (unsigned i = 0; i < 3; i++) {
		memset(buf[i], 'w', sizeof(buf[i]));
		iov[i] = (struct iovec){ buf[i], sizeof(buf[i]) };
		start(&t[i], op, i * 512, 512, &iov[i], 1);
	}
}

/* They are reported once, and continue as if nothing had happened. */
static void test_wait(void **state)
{
	for (int op = DISK_READ; op <= DISK_WRITE; op++) {
		struct test_req t[3] = { 0 };
		struct iovec iov[3];

		start_waiting_disk(DISK_WAIT, DISK_WAIT);
		FAULT_SET(read_errno, EIO);
		FAULT_SET(write_errno, EIO);
		start_three(t, iov, (enum disk_op)op);
		while (disk_nr_waiting(disk) < 3)
			assert_true(vio_loop_iterate(loop, 5000) >= 0);
		assert_false(t[0].done || t[1].done || t[2].done);
		assert_int_equal(nr_waits, 1);
		assert_int_equal(wait_op, op);
		assert_int_equal(wait_error, failure(EIO));
		/* Flushes do not wait for unwritten data. */
		assert_int_equal(simple(DISK_FLUSH), 0);

		/* In vain at first. */
		disk_resume(disk);
		while (disk_nr_waiting(disk) < 3)
			assert_true(vio_loop_iterate(loop, 5000) >= 0);
		assert_int_equal(nr_waits, 2);
		FAULT_SET(read_errno, 0);
		FAULT_SET(write_errno, 0);
		disk_resume(disk);
		for (unsigned i = 0; i < 3; i++)
			assert_int_equal(finish(&t[i]), 0);
		assert_int_equal(disk_nr_waiting(disk), 0);
		if (op == DISK_WRITE)
			memset(model, 'w', 3 * 512);
		assert_image_is_model();
		close_disk();
	}
}

static void test_wait_forget(void **state)
{
	struct test_req t[3] = { 0 };
	struct iovec iov[3];

	start_waiting_disk(DISK_REPORT, DISK_WAIT);
	FAULT_SET(write_errno, EIO);
	start_three(t, iov, DISK_WRITE);
	while (disk_nr_waiting(disk) < 3)
		assert_true(vio_loop_iterate(loop, 5000) >= 0);
	disk_forget(disk);
	assert_int_equal(disk_nr_waiting(disk), 0);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(finish(&t[i]), -ECANCELED);
	FAULT_SET(write_errno, 0);
	disk_resume(disk);
	assert_image_is_model();

	/* A disk may be destroyed while some wait. */
	FAULT_SET(write_errno, EIO);
	start_three(t, iov, DISK_WRITE);
	while (disk_nr_waiting(disk) < 3)
		assert_true(vio_loop_iterate(loop, 5000) >= 0);
}

/* One that is forgotten before it fails does not begin to wait. */
static void test_wait_forgotten(void **state)
{
	static char buf[512];
	struct iovec iov = { buf, sizeof(buf) };
	struct test_req t = { 0 };

	start_waiting_disk(DISK_REPORT, DISK_WAIT);
	FAULT_SET(write_errno, EIO);
	make_hang();
	start(&t, DISK_WRITE, 0, 512, &iov, 1);
	iterate_a_while();
	disk_forget(disk);
	FAULT_SET(hang, false);
	assert_int_equal(finish(&t), -ECANCELED);
	assert_int_equal(nr_waits, 0);
	assert_int_equal(disk_nr_waiting(disk), 0);
}

/* Which errors wait, and which are for the driver. */
static void test_wait_which(void **state)
{
	static const struct {
		enum disk_on_error on_read, on_write;
		enum disk_op op;
		int error;
		bool waits;
	} rows[] = {
		{ DISK_REPORT, DISK_WAIT, DISK_READ, EIO, false },
		{ DISK_WAIT, DISK_REPORT, DISK_WRITE, EIO, false },
		{ DISK_REPORT, DISK_WAIT, DISK_WRITE_ZEROES, EIO, true },
		{ DISK_REPORT, DISK_WAIT_SPACE, DISK_WRITE, EIO, false },
		{ DISK_REPORT, DISK_WAIT_SPACE, DISK_WRITE, ENOSPC, true },
		{ DISK_REPORT, DISK_WAIT_SPACE, DISK_WRITE, EDQUOT, true },
		{ DISK_REPORT, DISK_WAIT_SPACE, DISK_WRITE_ZEROES, ENOSPC,
		  true },
		{ DISK_WAIT, DISK_WAIT, DISK_FLUSH, EIO, false },
	};
	char buf[512] = { 0 };

	if (!threads)
		skip(); /* only EBADF can be produced there */
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct test_req t = { 0 };
		struct iovec iov = { buf, sizeof(buf) };

		start_waiting_disk(rows[i].on_read, rows[i].on_write);
		FAULT_SET(fallocate_errno, rows[i].error);
		FAULT_SET(read_errno, rows[i].error);
		FAULT_SET(write_errno, rows[i].error);
		FAULT_SET(sync_errno, rows[i].error);
		start(&t, rows[i].op, 0, 512, &iov, 1);
		while (!t.done && !disk_nr_waiting(disk))
			assert_true(vio_loop_iterate(loop, 5000) >= 0);
		assert_int_equal(disk_nr_waiting(disk), rows[i].waits);
		if (!rows[i].waits)
			assert_int_equal(t.result, -rows[i].error);
		memset(&disk_fault, 0, sizeof(disk_fault));
		close_disk();
	}
	/* The driver's own invalid requests do not wait. */
	start_waiting_disk(DISK_WAIT, DISK_WAIT);
	assert_int_equal(transfer_one(DISK_WRITE, IMAGE_BYTES, buf, 512),
			 -ERANGE);
}

static int run(const char *engine)
{
	const struct CMUnitTest tests[] = {
#define TEST(x) cmocka_unit_test_setup_teardown(x, setup, teardown)
		TEST(test_open),
		TEST(test_formats),
		TEST(test_identity),
		TEST(test_names),
		TEST(test_empty),
		TEST(test_lock),
		TEST(test_null),
		TEST(test_info),
		TEST(test_two_disks),
		TEST(test_access),
		TEST(test_random),
		TEST(test_exclusive),
		TEST(test_many_iovecs),
		TEST(test_crowd),
		TEST(test_bounds),
		TEST(test_odd_size),
		TEST(test_odd_size_zeroes),
		TEST(test_largest_size),
		TEST(test_read_only),
		TEST(test_shrunk_behind_our_back),
		TEST(test_short_transfers),
		TEST(test_errors),
		TEST(test_stable_writes),
		TEST(test_flush),
		TEST(test_failed_flush),
		TEST(test_failed_flush_waiting),
		TEST(test_write_zeroes),
		TEST(test_unmap),
		TEST(test_resize),
		TEST(test_watch),
		TEST(test_watch_quiet),
		TEST(test_iteration_share),
		TEST(test_slow),
		TEST(test_many_slow),
		TEST(test_forget),
		TEST(test_forget_flush),
		TEST(test_forget_idle),
		TEST(test_forget_order),
		TEST(test_forget_long),
		TEST(test_destroy_slow),
		TEST(test_end),
		TEST(test_resize_replaced),
		TEST(test_resize_renamed),
		TEST(test_resize_slow),
		TEST(test_resize_slow_other),
		TEST(test_shrink_held),
		TEST(test_shrink_waiting),
		TEST(test_again),
		TEST(test_wait),
		TEST(test_wait_forget),
		TEST(test_wait_forgotten),
		TEST(test_wait_which),
	};

	threads = strcmp(engine, "threads") == 0;
	return cmocka_run_group_tests_name(engine, tests, NULL, NULL);
}

int main(void)
{
	return run_on_engines(run);
}

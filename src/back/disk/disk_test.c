/* SPDX-License-Identifier: BSD-2-Clause */
/* The storage engine, with io_uring and again with io_uring refused. */
#include "disk_fixture.h"
#include "back/disk/admission.h"
#include "back/disk/identity.h"
#include "base/util.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

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

static int run(const char *engine)
{
	const struct CMUnitTest tests[] = {
		TEST(test_open),      TEST(test_formats),
		TEST(test_identity),  TEST(test_names),
		TEST(test_empty),     TEST(test_lock),
		TEST(test_info),      TEST(test_two_disks),
		TEST(test_access),    TEST(test_random),
		TEST(test_exclusive), TEST(test_many_iovecs),
		TEST(test_crowd),     TEST(test_bounds),
		TEST(test_read_only), TEST(test_short_transfers),
		TEST(test_errors),    TEST(test_iteration_share),
	};

	threads = strcmp(engine, "threads") == 0;
	return cmocka_run_group_tests_name(engine, tests, NULL, NULL);
}

int main(void)
{
	return run_on_engines(run);
}

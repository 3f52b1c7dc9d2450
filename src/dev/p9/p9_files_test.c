/* SPDX-License-Identifier: BSD-2-Clause */
/* What a guest does with files: docs/spec/conformance.md section 12. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/util.h"
#include "p9_client.h"

#include <cmocka.h>

#define RDWR   2u
#define CREATE 0100u

static struct p9c c;

static int teardown(void **state)
{
	p9c_destroy(&c);
	return 0;
}

static void start(const char *options)
{
	p9c_start(&c, VDRV_MODERN, options);
}

/*
 * --- Files ---
 */

static void opens(void **state)
{
	static const struct {
		const char *name;
		uint32_t flags;
		int ret;
	} rows[] = {
		{ "f", 0, 0 },
		{ "f", 1, 0 },
		{ "f", RDWR, 0 },
		{ "f", RDWR | 0100000 | 04000, 0 },
		{ "f", 0200000, -ENOTDIR }, /* DIRECTORY */
		{ "f", 0400000, 0 },        /* NOFOLLOW */
		{ "f", 040000, 0 },         /* DIRECT: not passed on */
		{ "f", 1 | 010000 | 04000000, 0 },
		{ "d", 0, 0 },
		{ "d", 0200000, 0 },
		{ "d", 1, -EISDIR },
		{ "d", RDWR, -EISDIR },
		{ "l", 0, -ELOOP },
		{ "f", 1 | 01000, 0 }, /* TRUNC, the last */
	};
	struct p9c_attr a;

	start("");
	p9c_host_file(&c, "f", "text");
	assert_int_equal(mkdir(p9c_path(&c, "d"), 0755), 0);
	assert_int_equal(symlink("f", p9c_path(&c, "l")), 0);
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) { /* P9-11 */
		int ret;

		assert_int_equal(p9c_walk(&c, P9C_ROOT, 1, rows[i].name), 0);
		ret = p9c_open(&c, 1, rows[i].flags);
		if (ret != rows[i].ret)
			fail_msg("%s %o: %d", rows[i].name, rows[i].flags, ret);
		if (ret == 0) {
			p9c_qid(&c);
			assert_int_equal(p9_decode32(&c.in), 0); /* iounit */
			assert_int_equal(p9c_open(&c, 1, 0), -EINVAL);
		}
		if (rows[i].flags & 01000) {
			assert_int_equal(p9c_getattr(&c, 1, &a), 0);
			assert_int_equal(a.size, 0);
		}
		assert_int_equal(p9c_clunk(&c, 1), 0);
	}
}

static void creates(void **state)
{
	struct p9c_attr a;
	struct stat st;

	start("");
	assert_int_equal(p9c_call(&c, P9_TWALK, "ddw", P9C_ROOT, 1, 0), 0);
	assert_int_equal(p9c_call(&c, P9_TLCREATE, "dsddd", 1, "new",
				  RDWR | CREATE | 0200, 0640, 0),
			 0);
	/* P9-12: the fid refers to the open file */
	assert_int_equal(p9c_qid(&c).type, P9_QTFILE);
	assert_int_equal(p9_decode32(&c.in), 0);
	assert_int_equal(p9c_getattr(&c, 1, &a), 0);
	assert_int_equal(a.mode, S_IFREG | 0640);
	assert_int_equal(p9c_write(&c, 1, 0, "abc", 3), 3);
	assert_int_equal(
		p9c_call(&c, P9_TLCREATE, "dsddd", 1, "x", RDWR, 0644, 0),
		-ENOTDIR);
	assert_int_equal(stat(p9c_path(&c, "new"), &st), 0);
	assert_int_equal(st.st_size, 3);

	/* Once more: refused with EXCL, opened without. */
	assert_int_equal(p9c_call(&c, P9_TWALK, "ddw", P9C_ROOT, 2, 0), 0);
	assert_int_equal(p9c_call(&c, P9_TLCREATE, "dsddd", 2, "new",
				  RDWR | 0200, 0640, 0),
			 -EEXIST);
	assert_int_equal(
		p9c_call(&c, P9_TLCREATE, "dsddd", 2, "new", RDWR, 0640, 0), 0);
	assert_int_equal(p9c_read(&c, 2, 0, 10), 3);

	/* The flag means appending, whatever the offset. */
	assert_int_equal(p9c_walk(&c, P9C_ROOT, 3, "new"), 0);
	assert_int_equal(p9c_open(&c, 3, 1 | 02000), 0);
	assert_int_equal(p9c_write(&c, 3, 0, "def", 3), 3);
	assert_int_equal(p9c_read(&c, 2, 0, 10), 6);
	assert_memory_equal(c.in.p, "abcdef", 6);
}

static void reads_and_writes(void **state)
{
	static char text[P9C_BYTES];
	ssize_t host;
	int fd;

	start("");
	assert_int_equal(p9c_make(&c, 1, "f"), 0);
	/* P9-16 */
	assert_int_equal(p9c_write(&c, 1, 0, "hello", 5), 5);
	assert_int_equal(p9c_read(&c, 1, 0, 5), 5);
	assert_memory_equal(c.in.p, "hello", 5);
	assert_int_equal(p9c_read(&c, 1, 3, 100), 2);
	assert_int_equal(p9c_read(&c, 1, 5, 100), 0);
	assert_int_equal(p9c_read(&c, 1, 1ull << 40, 100), 0);
	assert_int_equal(p9c_read(&c, 1, ~0ull, 100), -EINVAL);
	assert_int_equal(p9c_read(&c, 1, 0, 0), 0);
	assert_int_equal(p9c_write(&c, 1, 0, "", 0), 0);
	assert_int_equal(p9c_write(&c, 1, ~0ull, "x", 1), -EINVAL);
	fd = open(p9c_path(&c, "f"), O_WRONLY | O_CLOEXEC);
	host = pwrite(fd, "x", 1, 1ll << 62); /* tmpfs has room for it */
	host = host < 0 ? -errno : host;
	assert_int_equal(ftruncate(fd, 5), 0);
	close(fd);
	assert_int_equal(p9c_write(&c, 1, 1ull << 62, "x", 1), host);
	assert_int_equal(p9c_read(&c, P9C_ROOT, 0, 10), -EBADF);
	assert_int_equal(p9c_call(&c, P9_TWALK, "ddw", P9C_ROOT, 2, 0), 0);
	assert_int_equal(p9c_open(&c, 2, 0), 0);
	assert_int_equal(p9c_read(&c, 2, 0, 10), -EISDIR);
	assert_int_equal(p9c_write(&c, 2, 0, "x", 1), -EISDIR);
	assert_int_equal(p9c_walk(&c, P9C_ROOT, 3, "f"), 0);
	assert_int_equal(p9c_open(&c, 3, 0), 0);
	assert_int_equal(p9c_write(&c, 3, 0, "x", 1), -EBADF);

	/* P9-05: a count larger than a message may carry */
	memset(text, 'x', sizeof(text));
	assert_int_equal(p9c_call(&c, P9_TVERSION, "ds", 4096, "9P2000.L"), 0);
	assert_int_equal(p9c_call(&c, P9_TATTACH, "ddssd", P9C_ROOT, P9_NOFID,
				  "root", "", 0),
			 0);
	assert_int_equal(p9c_walk(&c, P9C_ROOT, 1, "f"), 0);
	assert_int_equal(p9c_open(&c, 1, RDWR), 0);
	assert_int_equal(p9c_write(&c, 1, 0, text, 4096 - 23), 4096 - 23);
	assert_int_equal(p9c_write(&c, 1, 0, text, 4096 - 22), -EMSGSIZE);
	assert_int_equal(p9c_write(&c, 1, 4000, text, 4000), 4000);
	assert_int_equal(p9c_read(&c, 1, 0, 8000), 4096 - 11);
	assert_int_equal(c.used, 4096);
	c.room = 100;
	assert_int_equal(p9c_read(&c, 1, 0, 8000), 100 - 11);
	c.room = 0;
	assert_int_equal(p9c_call(&c, P9_TFSYNC, "dd", 1, 0), 0); /* P9-21 */
	assert_int_equal(p9c_call(&c, P9_TFSYNC, "dd", 1, 1), 0);
}

static void attributes(void **state)
{
	struct p9c_attr a;
	struct stat st;

	start("");
	p9c_host_file(&c, "f", "hello");
	assert_int_equal(chmod(p9c_path(&c, "f"), 0604), 0);
	assert_int_equal(stat(p9c_path(&c, "f"), &st), 0);
	assert_int_equal(p9c_walk(&c, P9C_ROOT, 1, "f"), 0);
	/* P9-13 */
	assert_int_equal(p9c_getattr(&c, 1, &a), 0);
	assert_int_equal(a.valid & 0x7ff, 0x7ff);
	assert_int_equal(a.valid & ~0xfffull, 0);
	if (a.valid & 0x800)
		assert_true(a.btime.tv_sec > 0);
	assert_int_equal(a.mode, S_IFREG | 0604);
	assert_int_equal(a.uid, st.st_uid);
	assert_int_equal(a.nlink, 1);
	assert_int_equal(a.size, 5);
	assert_int_equal(a.blocks, st.st_blocks);
	assert_int_equal(a.mtime.tv_sec, st.st_mtim.tv_sec);
	assert_int_equal(a.mtime.tv_nsec, st.st_mtim.tv_nsec);
	assert_true(a.qid.path == st.st_ino);

	/* P9-14 */
	assert_int_equal(p9c_setattr(&c, 1, 0x1, 0751, 0, 0, 0, 0), 0);
	assert_int_equal(p9c_setattr(&c, 1, 0x8, 0, 0, 3, 0, 0), 0);
	assert_int_equal(p9c_setattr(&c, 1, 0x1b0, 0, 0, 0, 1000, 5), 0);
	assert_int_equal(p9c_getattr(&c, 1, &a), 0);
	assert_int_equal(a.mode, S_IFREG | 0751);
	assert_int_equal(a.size, 3);
	assert_int_equal(a.mtime.tv_sec, 1000);
	assert_int_equal(a.atime.tv_nsec, 5);
	/* Without its SET bit: now. */
	assert_int_equal(p9c_setattr(&c, 1, 0x20, 0, 0, 0, 1000, 5), 0);
	assert_int_equal(p9c_getattr(&c, 1, &a), 0);
	assert_true(a.mtime.tv_sec > 1000000);
	assert_int_equal(a.atime.tv_sec, 1000);
	assert_int_equal(p9c_setattr(&c, 1, 0x40, 0, 0, 0, 0, 0), 0);
	/* Values that mean "now" or "unchanged" to utimensat(). */
	assert_int_equal(p9c_setattr(&c, 1, 0x120, 0, 0, 0, 1, (1 << 30) - 1),
			 -EINVAL);
	assert_int_equal(p9c_setattr(&c, 1, 0x120, 0, 0, 0, 1, 1000000000),
			 -EINVAL);
	assert_int_equal(p9c_setattr(&c, 1, 0x8, 0, 0, ~0ull, 0, 0), -EFBIG);
	assert_int_equal(p9c_setattr(&c, P9C_ROOT, 0x8, 0, 0, 0, 0, 0),
			 -EISDIR);
	assert_int_equal(p9c_setattr(&c, 99, 0x1, 0, 0, 0, 0, 0), -EBADF);
}

/*
 * --- Directories ---
 */

/* One Treaddir: returns the number of entries and advances *off. */
static int readdir_once(uint32_t fid, uint64_t *off, uint32_t count, bool *seen,
			unsigned nr)
{
	int ret = p9c_call(&c, P9_TREADDIR, "dqd", fid, *off, count);
	uint32_t len;
	int entries = 0;

	if (ret < 0)
		return ret;
	len = p9_decode32(&c.in);
	assert_true(len <= count); /* P9-15 */
	assert_int_equal(len, c.in.left);
	for (; c.in.left > 0; entries++) {
		struct p9_qid qid = p9c_qid(&c);
		char name[256];
		unsigned i;

		*off = p9_decode64(&c.in);
		p9_decode8(&c.in);
		p9_decode_string(&c.in, name, sizeof(name));
		assert_int_equal(c.in.err, 0);
		assert_true(qid.path != 0);
		if (sscanf(name, "entry-%u", &i) == 1) {
			assert_true(i < nr);
			assert_false(seen[i]);
			seen[i] = true;
		}
	}
	return entries;
}

/* The type in the listing of the root, DT_*; -1: no such entry. */
static int listed_type(const char *wanted)
{
	int type, found = -1;
	char name[256];

	assert_int_equal(p9c_call(&c, P9_TWALK, "ddw", P9C_ROOT, 60, 0), 0);
	assert_int_equal(p9c_open(&c, 60, 0), 0);
	assert_int_equal(p9c_call(&c, P9_TREADDIR, "dqd", 60, 0ull, 8000), 0);
	p9_decode32(&c.in);
	while (c.in.left > 0) {
		p9c_qid(&c);
		p9_decode64(&c.in);
		type = p9_decode8(&c.in);
		p9_decode_string(&c.in, name, sizeof(name));
		assert_int_equal(c.in.err, 0);
		if (strcmp(name, wanted) == 0)
			found = type;
	}
	assert_int_equal(p9c_clunk(&c, 60), 0);
	return found;
}

static void listing(void **state)
{
	enum { NR_FILES = 3000 };
	static bool seen[NR_FILES], again[NR_FILES];
	uint64_t off = 0, middle = 0;
	unsigned total = 0, calls = 0, rest = 0;
	int n;

	start("");
	for (unsigned i = 0; i < NR_FILES; i++) {
		char name[32];

		snprintf(name, sizeof(name), "entry-%u", i);
		p9c_host_file(&c, name, "");
	}
	assert_int_equal(p9c_call(&c, P9_TWALK, "ddw", P9C_ROOT, 1, 0), 0);
	assert_int_equal(p9c_call(&c, P9_TREADDIR, "dqd", 1, 0ull, 4096),
			 -EBADF);
	assert_int_equal(p9c_open(&c, 1, 0), 0);
	memset(seen, 0, sizeof(seen));
	while ((n = readdir_once(1, &off, calls % 2 ? 300 : 4000, seen,
				 NR_FILES)) > 0) {
		total += (unsigned)n;
		if (++calls == 20)
			middle = off;
		if (calls > 20)
			rest += (unsigned)n;
	}
	assert_int_equal(n, 0);
	assert_int_equal(total, NR_FILES + 2);
	for (unsigned i = 0; i < NR_FILES; i++)
		assert_true(seen[i]);

	/* P9-15: once more from a cookie that was given */
	memset(again, 0, sizeof(again));
	total = 0;
	while ((n = readdir_once(1, &middle, 8000, again, NR_FILES)) > 0)
		total += (unsigned)n;
	assert_int_equal(total, rest);
	/* No entry fits; none is left; not a cookie. */
	off = 0;
	assert_int_equal(readdir_once(1, &off, 10, seen, 0), -EINVAL);
	assert_int_equal(p9c_call(&c, P9_TREADDIR, "dqd", 1, ~0ull, 4096),
			 -EINVAL);
	p9c_call(&c, P9_TREADDIR, "dqd", 1, 0x123456789abcull, 4096);
}

static void tree(void **state)
{
	char target[64];
	struct p9c_attr a;
	struct stat st;

	start("");
	/* P9-21: mkdir, mknod, symlink, readlink, link */
	assert_int_equal(
		p9c_call(&c, P9_TMKDIR, "dsdd", P9C_ROOT, "d", 0750, 0), 0);
	assert_int_equal(p9c_qid(&c).type, P9_QTDIR);
	assert_int_equal(stat(p9c_path(&c, "d"), &st), 0);
	assert_int_equal(st.st_mode, S_IFDIR | 0750);
	assert_int_equal(
		p9c_call(&c, P9_TMKDIR, "dsdd", P9C_ROOT, "d", 0750, 0),
		-EEXIST);
	assert_int_equal(p9c_walk(&c, P9C_ROOT, 1, "d"), 0);
	assert_int_equal(
		p9c_call(&c, P9_TSYMLINK, "dssd", 1, "l", "/etc/passwd", 0), 0);
	assert_int_equal(p9c_qid(&c).type, P9_QTSYMLINK);
	assert_int_equal(p9c_walk(&c, 1, 2, "l"), 0);
	assert_int_equal(p9c_call(&c, P9_TREADLINK, "d", 2), 0);
	p9_decode_string(&c.in, target, sizeof(target));
	assert_string_equal(target, "/etc/passwd");
	assert_int_equal(p9c_call(&c, P9_TREADLINK, "d", 1), -EINVAL);
	assert_int_equal(p9c_call(&c, P9_TMKNOD, "dsdddd", 1, "fifo",
				  S_IFIFO | 0600, 0, 0, 0),
			 0);
	assert_int_equal(p9c_walk(&c, 1, 3, "fifo"), 0);
	assert_int_equal(p9c_getattr(&c, 3, &a), 0);
	assert_int_equal(a.mode, S_IFIFO | 0600);
	assert_int_equal(p9c_call(&c, P9_TMKNOD, "dsdddd", 1, "dir",
				  S_IFDIR | 0600, 0, 0, 0),
			 -EINVAL);
	assert_int_equal(p9c_call(&c, P9_TLINK, "dds", P9C_ROOT, 3, "hard"), 0);
	assert_int_equal(p9c_getattr(&c, 3, &a), 0);
	assert_int_equal(a.nlink, 2);
	assert_int_equal(p9c_call(&c, P9_TLINK, "dds", P9C_ROOT, 1, "no"),
			 -EPERM);

	/* P9-19: unlinkat */
	assert_int_equal(p9c_call(&c, P9_TUNLINKAT, "dsd", P9C_ROOT, "d", 0),
			 -EISDIR);
	assert_int_equal(
		p9c_call(&c, P9_TUNLINKAT, "dsd", P9C_ROOT, "d", 0x200),
		-ENOTEMPTY);
	assert_int_equal(
		p9c_call(&c, P9_TUNLINKAT, "dsd", P9C_ROOT, "hard", 0x200),
		-ENOTDIR);
	assert_int_equal(
		p9c_call(&c, P9_TUNLINKAT, "dsd", P9C_ROOT, "hard", 0x201),
		-EINVAL);
	assert_int_equal(p9c_call(&c, P9_TUNLINKAT, "dsd", 1, "fifo", 0), 0);
	assert_int_equal(p9c_call(&c, P9_TUNLINKAT, "dsd", 1, "l", 0), 0);
	assert_int_equal(
		p9c_call(&c, P9_TUNLINKAT, "dsd", P9C_ROOT, "d", 0x200), 0);
	assert_int_equal(
		p9c_call(&c, P9_TUNLINKAT, "dsd", P9C_ROOT, "d", 0x200),
		-ENOENT);
}

static void renames(void **state)
{
	struct p9c_attr a, b;

	start("");
	assert_int_equal(p9c_make(&c, 1, "a"), 0);
	assert_int_equal(p9c_write(&c, 1, 0, "a", 1), 1);
	assert_int_equal(p9c_walk(&c, P9C_ROOT, 2, "a"), 0);
	assert_int_equal(p9c_getattr(&c, 2, &a), 0);
	assert_int_equal(
		p9c_call(&c, P9_TMKDIR, "dsdd", P9C_ROOT, "d", 0755, 0), 0);
	assert_int_equal(p9c_walk(&c, P9C_ROOT, 3, "d"), 0);

	/* P9-21: fids stay valid, by name (Trenameat) and by fid (Trename) */
	assert_int_equal(
		p9c_call(&c, P9_TRENAMEAT, "dsds", P9C_ROOT, "a", 3, "b"), 0);
	assert_int_equal(p9c_getattr(&c, 2, &b), 0);
	assert_true(a.qid.path == b.qid.path);
	assert_int_equal(p9c_read(&c, 1, 0, 10), 1);
	assert_int_equal(p9c_call(&c, P9_TRENAME, "dds", 2, P9C_ROOT, "c"), 0);
	assert_int_equal(access(p9c_path(&c, "c"), F_OK), 0);
	assert_int_equal(access(p9c_path(&c, "d/b"), F_OK), -1);
	/* A directory with a fid below it. */
	assert_int_equal(p9c_call(&c, P9_TRENAME, "dds", 2, 3, "c"), 0);
	assert_int_equal(p9c_call(&c, P9_TRENAME, "dds", 3, P9C_ROOT, "e"), 0);
	assert_int_equal(p9c_call(&c, P9_TRENAME, "dds", 2, 3, "f"), 0);
	assert_int_equal(access(p9c_path(&c, "e/f"), F_OK), 0);
	assert_int_equal(p9c_call(&c, P9_TRENAME, "dds", 3, 3, "loop"),
			 -EINVAL);
	assert_int_equal(p9c_call(&c, P9_TRENAME, "dds", P9C_ROOT, 3, "root"),
			 -EBUSY);

	/* Over another one, which stays open. */
	assert_int_equal(p9c_make(&c, 4, "victim"), 0);
	assert_int_equal(p9c_write(&c, 4, 0, "old", 3), 3);
	assert_int_equal(
		p9c_call(&c, P9_TRENAMEAT, "dsds", 3, "f", P9C_ROOT, "victim"),
		0);
	assert_int_equal(p9c_read(&c, 4, 0, 10), 3);
	assert_int_equal(p9c_getattr(&c, 4, &b), 0);
	assert_int_equal(b.nlink, 0);
	assert_int_equal(p9c_setattr(&c, 4, 1, 0600, 0, 0, 0, 0), 0);
	/* It has no name, so it cannot be renamed or removed. */
	assert_int_equal(p9c_call(&c, P9_TRENAME, "dds", 4, 3, "x"), -ENOENT);
	assert_int_equal(p9c_call(&c, P9_TREMOVE, "d", 4), -ENOENT);
	assert_int_equal(access(p9c_path(&c, "victim"), F_OK), 0);
}

static void removal(void **state)
{
	struct p9c_attr a;

	start("");
	assert_int_equal(p9c_make(&c, 1, "f"), 0);
	assert_int_equal(p9c_write(&c, 1, 0, "still here", 10), 10);
	assert_int_equal(p9c_walk(&c, P9C_ROOT, 2, "f"), 0);
	/* P9-18 */
	assert_int_equal(p9c_call(&c, P9_TREMOVE, "d", 2), 0);
	assert_int_equal(p9c_clunk(&c, 2), -EBADF);
	assert_int_equal(access(p9c_path(&c, "f"), F_OK), -1);
	/* P9-21: open and without a name it still works */
	assert_int_equal(p9c_read(&c, 1, 0, 100), 10);
	assert_int_equal(p9c_call(&c, P9_TWALK, "ddw", 1, 3, 0), 0);
	assert_int_equal(p9c_getattr(&c, 3, &a), 0);
	assert_int_equal(a.size, 10);
	assert_int_equal(p9c_open(&c, 3, RDWR), 0);
	assert_int_equal(p9c_read(&c, 3, 0, 100), 10);
	/* Another file of that name is a different file. */
	assert_int_equal(p9c_make(&c, 4, "f"), 0);
	assert_int_equal(p9c_read(&c, 4, 0, 100), 0);
	assert_int_equal(p9c_read(&c, 1, 0, 100), 10);
	/* The fid is removed even if the file is not. */
	assert_int_equal(
		p9c_call(&c, P9_TMKDIR, "dsdd", P9C_ROOT, "d", 0755, 0), 0);
	p9c_host_file(&c, "d/x", "");
	assert_int_equal(p9c_walk(&c, P9C_ROOT, 5, "d"), 0);
	assert_int_equal(p9c_call(&c, P9_TREMOVE, "d", 5), -ENOTEMPTY);
	assert_int_equal(p9c_clunk(&c, 5), -EBADF);
	assert_int_equal(p9c_call(&c, P9_TREMOVE, "d", P9C_ROOT), -EBUSY);
	assert_int_equal(p9c_clunk(&c, P9C_ROOT), -EBADF);
}

static void file_system(void **state)
{
	struct statfs st;

	start("");
	assert_int_equal(statfs(c.root, &st), 0);
	assert_int_equal(p9c_call(&c, P9_TSTATFS, "d", P9C_ROOT), 0);
	assert_int_equal(p9_decode32(&c.in), (uint32_t)st.f_type); /* P9-21 */
	assert_int_equal(p9_decode32(&c.in), st.f_bsize);
	assert_true(p9_decode64(&c.in) == st.f_blocks);
	for (int i = 0; i < 5; i++)
		p9_decode64(&c.in);
	assert_int_equal(p9_decode32(&c.in), st.f_namelen);
	assert_int_equal(c.in.err, 0);
	assert_int_equal(c.in.left, 0);
}

static void read_only(void **state)
{
	struct p9c_attr a;

	start(",ro=on");
	p9c_host_file(&c, "f", "text");
	assert_int_equal(p9c_walk(&c, P9C_ROOT, 1, "f"), 0);
	/* P9-21: EROFS for all changes */
	assert_int_equal(p9c_open(&c, 1, 1), -EROFS);
	assert_int_equal(p9c_open(&c, 1, 01000), -EROFS);
	assert_int_equal(p9c_setattr(&c, 1, 1, 0777, 0, 0, 0, 0), -EROFS);
	assert_int_equal(p9c_make(&c, 2, "new"), -EROFS);
	assert_int_equal(p9c_call(&c, P9_TMKDIR, "dsdd", 0, "d", 0755, 0),
			 -EROFS);
	assert_int_equal(
		p9c_call(&c, P9_TMKNOD, "dsdddd", 0, "n", S_IFIFO, 0, 0, 0),
		-EROFS);
	assert_int_equal(p9c_call(&c, P9_TSYMLINK, "dssd", 0, "l", "t", 0),
			 -EROFS);
	assert_int_equal(p9c_call(&c, P9_TLINK, "dds", 0, 1, "h"), -EROFS);
	assert_int_equal(p9c_call(&c, P9_TRENAME, "dds", 1, 0, "g"), -EROFS);
	assert_int_equal(p9c_call(&c, P9_TRENAMEAT, "dsds", 0, "f", 0, "g"),
			 -EROFS);
	assert_int_equal(p9c_call(&c, P9_TUNLINKAT, "dsd", 0, "f", 0), -EROFS);
	assert_int_equal(
		p9c_call(&c, P9_TXATTRCREATE, "dsqd", 1, "user.x", 1ull, 0),
		-EROFS);
	assert_int_equal(p9c_open(&c, 1, 0), 0);
	assert_int_equal(p9c_read(&c, 1, 0, 10), 4);
	assert_int_equal(p9c_write(&c, 1, 0, "x", 1), -EROFS);
	assert_int_equal(p9c_getattr(&c, 1, &a), 0);
	assert_int_equal(p9c_walk(&c, P9C_ROOT, 3, "f"), 0);
	assert_int_equal(p9c_call(&c, P9_TREMOVE, "d", 3), -EROFS);
	assert_int_equal(p9c_clunk(&c, 3), -EBADF); /* P9-18 */
	assert_int_equal(access(p9c_path(&c, "f"), F_OK), 0);
}

/*
 * --- Extended attributes, locks ---
 */

static int setxattr9(uint32_t fid, const char *name, uint64_t size,
		     const char *value, uint32_t len)
{
	int ret = p9c_call(&c, P9_TWALK, "ddw", fid, 50, 0);

	assert_int_equal(ret, 0);
	ret = p9c_call(&c, P9_TXATTRCREATE, "dsqd", 50, name, size, 0);
	if (ret == 0 && len)
		assert_int_equal(p9c_write(&c, 50, 0, value, len), len);
	if (ret < 0) {
		assert_int_equal(p9c_clunk(&c, 50), 0);
		return ret;
	}
	ret = p9c_clunk(&c, 50);
	assert_int_equal(p9c_clunk(&c, 50), -EBADF);
	return ret;
}

/* The value's bytes into @buf: how many, or -errno. */
static int getxattr9(uint32_t fid, const char *name, char *buf)
{
	int ret = p9c_call(&c, P9_TXATTRWALK, "dds", fid, 51, name);
	uint64_t size;

	if (ret < 0)
		return ret;
	size = p9_decode64(&c.in);
	ret = p9c_read(&c, 51, 0, 4096);
	assert_int_equal(ret, size);
	if (ret > 0)
		memcpy(buf, c.in.p, (size_t)ret);
	assert_int_equal(p9c_read(&c, 51, size, 10), 0);
	assert_int_equal(p9c_clunk(&c, 51), 0);
	return ret;
}

/* Drop the effective capabilities of root, or restore them. */
static void set_effective(bool all)
{
	struct __user_cap_header_struct header = {
		.version = _LINUX_CAPABILITY_VERSION_3,
	};
	struct __user_cap_data_struct caps[2] = { 0 };

	assert_int_equal(syscall(SYS_capget, &header, caps), 0);
	for (int i = 0; i < 2; i++)
		caps[i].effective = all ? caps[i].permitted : 0;
	assert_int_equal(syscall(SYS_capset, &header, caps), 0);
}

/* The device runs as an ordinary user. */
static void start_without_rights(const char *options)
{
	set_effective(false);
	start(options);
	set_effective(true);
}

/* Those of security and trusted, for a device that may set them. */
static void privileged_xattrs(void **state)
{
	static const uint8_t caps[20] = { 1, 0, 0, 2, 0, 4 };
	char buf[4096];

	if (geteuid() != 0)
		skip();
	start(",security=passthrough");
	assert_int_equal(p9c_make(&c, 1, "f"), 0);
	if (setxattr(p9c_path(&c, "f"), "trusted.x", "1", 1, 0) < 0)
		skip();
	assert_int_equal(getxattr9(1, "trusted.x", buf), 1);
	assert_int_equal(setxattr9(1, "trusted.overlay.opaque", 1, "y", 1), 0);
	assert_int_equal(
		getxattr(p9c_path(&c, "f"), "trusted.overlay.opaque", buf, 9),
		1);
	assert_int_equal(setxattr9(1, "security.capability", sizeof(caps),
				   (const char *)caps, sizeof(caps)),
			 0);
	assert_int_equal(getxattr(p9c_path(&c, "f"), "security.capability", buf,
				  sizeof(buf)),
			 sizeof(caps));
	assert_int_equal(getxattr9(1, "security.capability", buf),
			 sizeof(caps));
	assert_true(getxattr9(1, "", buf) >
		    (int)sizeof("trusted.overlay.opaque"));
	assert_int_equal(setxattr9(1, "security.capability", 0, "", 0), 0);
	assert_int_equal(getxattr9(1, "security.capability", buf), -ENODATA);
}

/* Mapped they need no rights. */
static void mapped_xattrs(void **state)
{
	char buf[4096];

	start_without_rights(",security=mapped-xattr");
	assert_int_equal(p9c_make(&c, 1, "f"), 0);
	if (setxattr(p9c_path(&c, "f"), "user.x", "1", 1, 0) < 0)
		skip();
	removexattr(p9c_path(&c, "f"), "user.x");
	assert_int_equal(setxattr9(1, "security.capability", 4, "caps", 4), 0);
	assert_int_equal(setxattr9(1, "trusted.overlay.opaque", 1, "y", 1), 0);
	assert_int_equal(getxattr9(1, "security.capability", buf), 4);
	assert_memory_equal(buf, "caps", 4);
	assert_int_equal(getxattr(p9c_path(&c, "f"),
				  "user.virtfs.trusted.overlay.opaque", buf, 9),
			 1);
	assert_int_equal(
		getxattr(p9c_path(&c, "f"), "security.capability", buf, 9), -1);
	assert_int_equal(getxattr9(1, "", buf),
			 sizeof("security.capability") +
				 sizeof("trusted.overlay.opaque"));
	assert_int_equal(setxattr9(1, "trusted.overlay.opaque", 0, "", 0), 0);
	assert_int_equal(getxattr9(1, "trusted.overlay.opaque", buf), -ENODATA);
	assert_int_equal(setxattr9(1, "other.x", 1, "y", 1), -EOPNOTSUPP);
}

static void xattrs(void **state)
{
	char buf[4096];

	start_without_rights("");
	p9c_host_file(&c, "f", "");
	if (setxattr(p9c_path(&c, "f"), "user.x", "1", 1, 0) < 0)
		skip();
	removexattr(p9c_path(&c, "f"), "user.x");
	assert_int_equal(p9c_walk(&c, P9C_ROOT, 1, "f"), 0);
	/* P9-17 */
	assert_int_equal(getxattr9(1, "user.a", buf), -ENODATA);
	assert_int_equal(setxattr9(1, "user.a", 5, "value", 5), 0);
	assert_int_equal(getxattr9(1, "user.a", buf), 5);
	assert_memory_equal(buf, "value", 5);
	assert_int_equal(getxattr(p9c_path(&c, "f"), "user.a", buf, 9), 5);
	assert_int_equal(getxattr9(1, "", buf), 7);
	assert_string_equal(buf, "user.a");
	/* The written length must be the announced one. */
	assert_int_equal(setxattr9(1, "user.b", 5, "val", 3), -EINVAL);
	assert_int_equal(getxattr9(1, "user.b", buf), -ENODATA);
	/* Empty: remove. */
	assert_int_equal(setxattr9(1, "user.a", 0, "", 0), 0);
	assert_int_equal(getxattr9(1, "user.a", buf), -ENODATA);
	assert_int_equal(setxattr9(1, "user.big", 65537, "", 0), -E2BIG);
	assert_int_equal(setxattr9(1, "security.capability", 5, "", 0),
			 -EOPNOTSUPP);
	assert_int_equal(getxattr9(1, "trusted.x", buf), -EOPNOTSUPP);
	assert_int_equal(setxattr9(1, "", 5, "", 0), -EINVAL);
	/* More than announced, and not in order. */
	assert_int_equal(p9c_call(&c, P9_TWALK, "ddw", 1, 50, 0), 0);
	assert_int_equal(
		p9c_call(&c, P9_TXATTRCREATE, "dsqd", 50, "user.c", 4ull, 0),
		0);
	assert_int_equal(p9c_write(&c, 50, 0, "12345", 5), -ENOSPC);
	assert_int_equal(p9c_write(&c, 50, 2, "1", 1), -ENOSPC);
	assert_int_equal(p9c_write(&c, 50, 0, "12", 2), 2);
	assert_int_equal(p9c_write(&c, 50, 2, "34", 2), 2);
	assert_int_equal(p9c_read(&c, 50, 0, 4), -EBADF);
	assert_int_equal(p9c_clunk(&c, 50), 0);
	assert_int_equal(getxattr9(1, "user.c", buf), 4);
	assert_memory_equal(buf, "1234", 4);
}

static int lock9(uint32_t fid, uint8_t type, uint64_t start_off, uint64_t len,
		 uint32_t proc)
{
	int ret = p9c_call(&c, P9_TLOCK, "dbdqqds", fid, type, 0, start_off,
			   len, proc, "guest");

	return ret < 0 ? ret : p9_decode8(&c.in);
}

/* As Linux sends it: always with type UNLCK. Returns the type found. */
static int getlock9(uint32_t fid, uint64_t start, uint64_t len, uint32_t proc)
{
	int ret = p9c_call(&c, P9_TGETLOCK, "dbqqds", fid, P9_LOCK_UNLCK, start,
			   len, proc, "guest");

	return ret < 0 ? ret : p9_decode8(&c.in);
}

static void getlocks(void **state)
{
	start("");
	assert_int_equal(p9c_make(&c, 1, "f"), 0);
	assert_int_equal(getlock9(1, 0, 0, 7), P9_LOCK_UNLCK);
	assert_int_equal(lock9(1, P9_LOCK_WRLCK, 100, 10, 7), 0);
	assert_int_equal(getlock9(1, 0, 0, 8), P9_LOCK_WRLCK);
	assert_int_equal(p9_decode64(&c.in), 100);
	assert_int_equal(p9_decode64(&c.in), 10);
	/* Neither one's own lock nor an adjacent one. */
	assert_int_equal(getlock9(1, 0, 0, 7), P9_LOCK_UNLCK);
	assert_int_equal(getlock9(1, 0, 100, 8), P9_LOCK_UNLCK);
	assert_int_equal(getlock9(1, 110, 0, 8), P9_LOCK_UNLCK);
	/* A query for a write lock must report read locks. */
	assert_int_equal(lock9(1, P9_LOCK_RDLCK, 100, 10, 7), 0);
	assert_int_equal(getlock9(1, 0, 0, 8), P9_LOCK_RDLCK);
	assert_int_equal(lock9(1, P9_LOCK_UNLCK, 0, 0, 7), 0);
	assert_int_equal(getlock9(1, 0, 0, 8), P9_LOCK_UNLCK);
	/* Through a read-only descriptor. */
	assert_int_equal(lock9(1, P9_LOCK_WRLCK, 0, 0, 7), 0);
	assert_int_equal(p9c_walk(&c, P9C_ROOT, 2, "f"), 0);
	assert_int_equal(p9c_open(&c, 2, 0), 0);
	assert_int_equal(getlock9(2, 0, 0, 8), P9_LOCK_WRLCK);
}

static void locks(void **state)
{
	struct flock fl = { .l_type = F_WRLCK, .l_start = 100, .l_len = 10 };
	int fd;

	start("");
	assert_int_equal(p9c_make(&c, 1, "f"), 0);
	assert_int_equal(p9c_walk(&c, P9C_ROOT, 2, "f"), 0);
	assert_int_equal(p9c_open(&c, 2, RDWR), 0);
	fd = open(p9c_path(&c, "f"), O_RDWR);

	/* P9-20 */
	assert_int_equal(lock9(1, P9_LOCK_WRLCK, 100, 10, 7), 0);
	assert_int_equal(fcntl(fd, F_OFD_SETLK, &fl), -1);
	assert_int_equal(lock9(2, P9_LOCK_WRLCK, 105, 1, 8), P9_LOCK_BLOCKED);
	/* The same process through another fid. */
	assert_int_equal(lock9(2, P9_LOCK_WRLCK, 105, 1, 7), 0);
	assert_int_equal(p9c_call(&c, P9_TGETLOCK, "dbqqds", 2, P9_LOCK_RDLCK,
				  0ull, 0ull, 8, "guest"),
			 0);
	assert_int_equal(p9_decode8(&c.in), P9_LOCK_WRLCK);
	assert_int_equal(p9_decode64(&c.in), 100);
	assert_int_equal(p9_decode64(&c.in), 10);
	assert_int_equal(lock9(1, P9_LOCK_UNLCK, 100, 10, 7), 0);
	assert_int_equal(fcntl(fd, F_OFD_SETLK, &fl), 0);
	assert_int_equal(lock9(1, P9_LOCK_RDLCK, 0, 0, 7), P9_LOCK_BLOCKED);
	fl.l_type = F_UNLCK;
	assert_int_equal(fcntl(fd, F_OFD_SETLK, &fl), 0);
	/* Closing releases them. */
	assert_int_equal(lock9(1, P9_LOCK_WRLCK, 0, 0, 7), 0);
	assert_int_equal(p9c_clunk(&c, 1), 0);
	fl.l_type = F_WRLCK;
	assert_int_equal(fcntl(fd, F_OFD_SETLK, &fl), 0);
	/* Invalid locks. */
	assert_int_equal(lock9(2, 3, 0, 0, 7), -EINVAL);
	assert_int_equal(lock9(2, 0, ~0ull, 0, 7), -EINVAL);
	assert_int_equal(lock9(2, 0, 1, (1ull << 63) - 1, 7), -EINVAL);
	assert_int_equal(lock9(P9C_ROOT, 0, 0, 0, 7), -EBADF);
	close(fd);
}

/* In progress, and not answered while other requests are. */
static bool is_waiting(unsigned slot)
{
	struct p9c_attr a;

	vdrv_kick(&c.d, 0);
	for (int i = 0; i < 10; i++) {
		vio_loop_iterate(c.loop, 1);
		assert_int_equal(p9c_getattr(&c, P9C_ROOT, &a), 0);
	}
	return c.slots[slot].busy;
}

/* A lock that may wait is not refused while the unlock is on its way. */
static void lock_waits(void **state)
{
	struct p9c_attr a;
	unsigned slot;
	int fd;

	start("");
	assert_int_equal(p9c_make(&c, 1, "f"), 0);
	assert_int_equal(lock9(1, P9_LOCK_WRLCK, 0, 10, 7), 0);
	slot = p9c_send(&c, 1, P9_TLOCK, "dbdqqds", 1, P9_LOCK_WRLCK,
			P9_LOCK_FLAGS_BLOCK, 5ull, 1ull, 8, "guest");
	vdrv_kick(&c.d, 0);
	assert_int_equal(p9c_getattr(&c, 1, &a), 0);
	assert_int_equal(lock9(1, P9_LOCK_UNLCK, 0, 10, 7), 0);
	assert_int_equal(p9c_wait(&c, slot), 0);
	assert_int_equal(p9_decode8(&c.in), P9_LOCK_SUCCESS);
	assert_int_equal(lock9(1, P9_LOCK_UNLCK, 0, 0, 8), 0);
	/* It waits as long as necessary: for a program on the host... */
	fd = open(p9c_path(&c, "f"), O_RDWR);
	assert_int_equal(flock(fd, LOCK_EX), 0);
	slot = p9c_send(&c, 1, P9_TLOCK, "dbdqqds", 1, P9_LOCK_WRLCK,
			P9_LOCK_FLAGS_BLOCK, 0ull, 0ull, 7, "guest");
	assert_true(is_waiting(slot));
	assert_int_equal(flock(fd, LOCK_UN), 0);
	assert_int_equal(p9c_wait(&c, slot), 0);
	assert_int_equal(p9_decode8(&c.in), P9_LOCK_SUCCESS);
	assert_int_equal(flock(fd, LOCK_EX | LOCK_NB), -1);
	/* ...or of the guest, until it closes the file... */
	assert_int_equal(p9c_walk(&c, P9C_ROOT, 2, "f"), 0);
	assert_int_equal(p9c_open(&c, 2, RDWR), 0);
	slot = p9c_send(&c, 1, P9_TLOCK, "dbdqqds", 2, P9_LOCK_WRLCK,
			P9_LOCK_FLAGS_BLOCK, 0ull, 0ull, 9, "guest");
	assert_true(is_waiting(slot));
	assert_int_equal(p9c_clunk(&c, 1), 0);
	assert_int_equal(p9c_wait(&c, slot), 0);
	assert_int_equal(p9_decode8(&c.in), P9_LOCK_SUCCESS);
	/* ...or until it is flushed: it is back, and has no lock. */
	assert_int_equal(p9c_clunk(&c, 2), 0);
	assert_int_equal(flock(fd, LOCK_EX | LOCK_NB), 0);
	assert_int_equal(p9c_walk(&c, P9C_ROOT, 1, "f"), 0);
	assert_int_equal(p9c_open(&c, 1, RDWR), 0);
	slot = p9c_send(&c, 1, P9_TLOCK, "dbdqqds", 1, P9_LOCK_WRLCK,
			P9_LOCK_FLAGS_BLOCK, 0ull, 0ull, 7, "guest");
	assert_true(is_waiting(slot));
	assert_int_equal(p9c_call(&c, P9_TFLUSH, "w", 1), 0);
	p9c_poll(&c);
	assert_false(c.slots[slot].busy);
	assert_int_equal(flock(fd, LOCK_UN), 0);
	for (int i = 0; i < 30; i++)
		vio_loop_iterate(c.loop, 10);
	assert_int_equal(flock(fd, LOCK_EX | LOCK_NB), 0);
	close(fd);
}

static int wait_unlock9(uint32_t fid, uint32_t proc)
{
	int ret = p9c_call(&c, P9_TLOCK, "dbdqqds", fid, P9_LOCK_UNLCK,
			   P9_LOCK_FLAGS_BLOCK, 0ull, 0ull, proc, "guest");

	return ret < 0 ? ret : p9_decode8(&c.in);
}

/* Whether the host can have a lock of either kind. */
static bool can_flock(int fd, int op)
{
	bool can = flock(fd, op | LOCK_NB) == 0;

	flock(fd, LOCK_UN);
	return can;
}

static bool can_fcntl(int fd, short type)
{
	struct flock fl = { .l_type = type };
	bool can = fcntl(fd, F_OFD_SETLK, &fl) == 0;

	fl.l_type = F_UNLCK;
	fcntl(fd, F_OFD_SETLK, &fl);
	return can;
}

/*
 * What Linux sends for flock(): like fcntl() on the whole file, but the lock
 * belongs to the fid, and to everyone who holds it.
 */
static void flocks(void **state)
{
	int fd;

	start("");
	assert_int_equal(p9c_make(&c, 1, "f"), 0);
	assert_int_equal(p9c_walk(&c, P9C_ROOT, 2, "f"), 0);
	assert_int_equal(p9c_open(&c, 2, 0), 0);
	fd = open(p9c_path(&c, "f"), O_RDWR);

	/* The host's flock() and fcntl() see it; a child unlocks it. */
	assert_int_equal(lock9(1, P9_LOCK_WRLCK, 0, 0, 7), 0);
	assert_false(can_flock(fd, LOCK_SH));
	assert_false(can_fcntl(fd, F_RDLCK));
	assert_int_equal(wait_unlock9(1, 8), 0);
	assert_true(can_flock(fd, LOCK_EX));
	assert_true(can_fcntl(fd, F_WRLCK));
	/* `exec 9>lock; flock 9`: it outlives the process... */
	assert_int_equal(lock9(1, P9_LOCK_WRLCK, 0, 0, 7), 0);
	assert_int_equal(lock9(1, P9_LOCK_UNLCK, 0, 0, 7), 0);
	assert_false(can_flock(fd, LOCK_SH));
	/* ...until another process makes it shared, and a third releases it. */
	assert_int_equal(lock9(1, P9_LOCK_RDLCK, 0, 0, 8), 0);
	assert_true(can_flock(fd, LOCK_SH));
	assert_false(can_flock(fd, LOCK_EX));
	assert_int_equal(wait_unlock9(1, 9), 0);
	assert_true(can_flock(fd, LOCK_EX));
	/* A child that closes the file does not unlock it... */
	assert_int_equal(lock9(1, P9_LOCK_WRLCK, 0, 0, 7), 0);
	assert_int_equal(lock9(1, P9_LOCK_UNLCK, 0, 0, 8), 0);
	/* ...nor the same process that has it open twice. */
	assert_int_equal(lock9(2, P9_LOCK_UNLCK, 0, 0, 7), 0);
	assert_false(can_flock(fd, LOCK_SH));
	/* The guest's kernel lets another in: it was fcntl() that unlocked. */
	assert_int_equal(lock9(2, P9_LOCK_RDLCK, 0, 0, 9), 0);
	assert_true(can_flock(fd, LOCK_SH));
	assert_int_equal(lock9(1, P9_LOCK_WRLCK, 0, 0, 7), P9_LOCK_BLOCKED);
	assert_int_equal(wait_unlock9(2, 9), 0);
	/* On a read-only fid it is certainly flock(), and exclusive. */
	assert_int_equal(lock9(2, P9_LOCK_WRLCK, 0, 0, 9), 0);
	assert_false(can_flock(fd, LOCK_SH));
	assert_int_equal(lock9(2, P9_LOCK_UNLCK, 0, 0, 9), 0);
	assert_int_equal(lock9(1, P9_LOCK_WRLCK, 0, 0, 7), P9_LOCK_BLOCKED);
	assert_int_equal(p9c_clunk(&c, 2), 0);
	/* The host's. */
	assert_int_equal(flock(fd, LOCK_SH), 0);
	assert_int_equal(lock9(1, P9_LOCK_WRLCK, 0, 0, 7), P9_LOCK_BLOCKED);
	assert_int_equal(lock9(1, P9_LOCK_RDLCK, 0, 0, 7), 0);
	assert_int_equal(lock9(1, P9_LOCK_WRLCK, 0, 0, 7), P9_LOCK_BLOCKED);
	assert_int_equal(flock(fd, LOCK_UN), 0);
	assert_false(can_flock(fd, LOCK_EX)); /* still the shared one */
	/* A part of a file is not flock()'s. */
	assert_int_equal(wait_unlock9(1, 7), 0);
	assert_int_equal(lock9(1, P9_LOCK_WRLCK, 0, 10, 7), 0);
	assert_true(can_flock(fd, LOCK_EX));
	assert_int_equal(lock9(1, P9_LOCK_UNLCK, 0, 0, 8), 0);
	assert_false(can_fcntl(fd, F_RDLCK));
	assert_int_equal(lock9(1, P9_LOCK_UNLCK, 0, 0, 7), 0);
	assert_true(can_fcntl(fd, F_WRLCK));
	close(fd);
}

/* fcntl() by processes that have inherited the fid: the unlock arrives late. */
static void inherited(void **state)
{
	int fd;

	start("");
	assert_int_equal(p9c_make(&c, 1, "f"), 0);
	fd = open(p9c_path(&c, "f"), O_RDWR);
	assert_int_equal(lock9(1, P9_LOCK_WRLCK, 0, 0, 7), 0);
	assert_int_equal(lock9(1, P9_LOCK_WRLCK, 0, 0, 8), 0);
	assert_int_equal(wait_unlock9(1, 7), 0);
	assert_false(can_fcntl(fd, F_RDLCK));
	assert_int_equal(wait_unlock9(1, 8), 0);
	assert_true(can_fcntl(fd, F_WRLCK));
	close(fd);
}

/* flock() on a read-only export is still exclusive. */
static void read_only_flock(void **state)
{
	int fd;

	p9c_create(&c, VDRV_MODERN, ",ro=on");
	p9c_host_file(&c, "f", "text");
	assert_true(vdrv_start(&c.d, ~0ull, 1));
	p9c_mount(&c, 8192);
	assert_int_equal(p9c_walk(&c, P9C_ROOT, 1, "f"), 0);
	assert_int_equal(p9c_open(&c, 1, 0), 0);
	fd = open(p9c_path(&c, "f"), O_RDWR);
	assert_int_equal(lock9(1, P9_LOCK_WRLCK, 0, 0, 7), 0);
	assert_false(can_flock(fd, LOCK_SH));
	assert_false(can_fcntl(fd, F_WRLCK));
	assert_int_equal(wait_unlock9(1, 7), 0);
	assert_true(can_flock(fd, LOCK_EX));
	close(fd);
}

/*
 * --- Security models ---
 */

static void mapped(void **state)
{
	char target[64], buf[64];
	struct p9c_attr a;
	struct stat st;

	start(",security=mapped-xattr");
	p9c_host_file(&c, "host", "x");
	if (setxattr(p9c_path(&c, "host"), "user.x", "1", 1, 0) < 0)
		skip();
	/* The owner of the tree: the user's attributes, named as in QEMU. */
	assert_int_equal(
		p9c_call(&c, P9_TATTACH, "ddssd", 1, P9_NOFID, "u", "", 1234),
		0);
	assert_int_equal(
		p9c_call(&c, P9_TLCREATE, "dsddd", 1, "f", RDWR, 04755, 4321),
		0);
	assert_int_equal(p9c_getattr(&c, 1, &a), 0);
	assert_int_equal(a.mode, S_IFREG | 04755);
	assert_int_equal(a.uid, 1234);
	assert_int_equal(a.gid, 4321);
	assert_int_equal(stat(p9c_path(&c, "f"), &st), 0);
	assert_int_equal(st.st_mode, S_IFREG | 0600);
	assert_int_equal(
		getxattr(p9c_path(&c, "f"), "user.virtfs.uid", buf, 64), 4);
	assert_memory_equal(buf, "\xd2\x04\0\0", 4);
	assert_int_equal(p9c_setattr(&c, 1, 7, 0640, 99, 0, 0, 0), 0);
	assert_int_equal(p9c_getattr(&c, 1, &a), 0);
	assert_int_equal(a.mode, S_IFREG | 0640);
	assert_int_equal(a.uid, 99);

	/* All kinds of files, stored as regular files. */
	assert_int_equal(p9c_call(&c, P9_TMKNOD, "dsdddd", 0, "sda",
				  S_IFBLK | 0660, 8, 1, 6),
			 0);
	assert_int_equal(p9c_walk(&c, P9C_ROOT, 2, "sda"), 0);
	assert_int_equal(p9c_getattr(&c, 2, &a), 0);
	assert_int_equal(a.mode, S_IFBLK | 0660);
	assert_true(a.rdev == makedev(8, 1));
	assert_int_equal(stat(p9c_path(&c, "sda"), &st), 0);
	assert_true(S_ISREG(st.st_mode));
	assert_int_equal(p9c_call(&c, P9_TSYMLINK, "dssd", 0, "l", "to", 0), 0);
	assert_int_equal(p9c_qid(&c).type, P9_QTSYMLINK);
	assert_int_equal(p9c_walk(&c, P9C_ROOT, 3, "l"), 0);
	assert_int_equal(p9c_qid(&c).type, P9_QTSYMLINK);
	assert_int_equal(p9c_call(&c, P9_TREADLINK, "d", 3), 0);
	p9_decode_string(&c.in, target, sizeof(target));
	assert_string_equal(target, "to");
	assert_int_equal(p9c_call(&c, P9_TREADLINK, "d", 1), -EINVAL);
	assert_int_equal(p9c_call(&c, P9_TMKDIR, "dsdd", 0, "d", 01777, 5), 0);
	assert_int_equal(p9c_walk(&c, P9C_ROOT, 4, "d"), 0);
	assert_int_equal(p9c_getattr(&c, 4, &a), 0);
	assert_int_equal(a.mode, S_IFDIR | 01777);
	assert_int_equal(a.gid, 5);

	/* A listing says what they are to the guest, as overlayfs wants it. */
	assert_int_equal(listed_type("sda"), DT_BLK);
	assert_int_equal(listed_type("l"), DT_LNK);
	assert_int_equal(listed_type("f"), DT_REG);
	assert_int_equal(listed_type("d"), DT_DIR);

	/* Q8: the attributes that store this are hidden from the guest */
	assert_int_equal(getxattr9(1, "user.virtfs.uid", buf), -EACCES);
	assert_int_equal(setxattr9(1, "user.virtfs.uid", 4, "abcd", 4),
			 -EACCES);
	assert_int_equal(getxattr9(1, "", buf), 0);
	assert_int_equal(setxattr9(1, "user.own", 1, "x", 1), 0);
	assert_int_equal(getxattr9(1, "", buf), 9);
	/* A file of the host, without them. */
	assert_int_equal(p9c_walk(&c, P9C_ROOT, 5, "host"), 0);
	assert_int_equal(p9c_getattr(&c, 5, &a), 0);
	assert_int_equal(a.uid, getuid());
}

static void refused(const char *text)
{
	struct vio_loop *loop;
	char why[256] = "";
	struct vdrv d;
	struct vdev *dev;

	vdrv_init(&d, VDRV_MODERN);
	assert_int_equal(vio_loop_create(&loop), 0);
	assert_int_equal(vdev_new(text, &d.pi, loop, &dev, why, sizeof(why)),
			 -EPERM);
	assert_non_null(strstr(why, "needs root"));
	vio_loop_destroy(loop);
	vdrv_fini(&d);
}

/* Owners are not enforced: users in no map can still create files. */
static void none_with_map(void **state)
{
	struct stat st;

	if (geteuid() != 0)
		skip();
	start(",uidmap=0:2000:10,gidmap=0:3000:10");
	assert_int_equal(
		p9c_call(&c, P9_TATTACH, "ddssd", 1, P9_NOFID, "u", "", 500),
		0);
	assert_int_equal(p9c_call(&c, P9_TMKDIR, "dsdd", 1, "d", 0755, 4), 0);
	assert_int_equal(stat(p9c_path(&c, "d"), &st), 0);
	assert_int_equal(st.st_uid, geteuid());
	assert_int_equal(st.st_gid, 3004);
	assert_int_equal(
		p9c_call(&c, P9_TLCREATE, "dsddd", 1, "f", RDWR, 0644, 500), 0);
	assert_int_equal(p9c_setattr(&c, 1, 2, 0, 7, 0, 0, 0), 0);
	assert_int_equal(p9c_setattr(&c, 1, 2, 0, 600, 0, 0, 0), 0);
	assert_int_equal(stat(p9c_path(&c, "f"), &st), 0);
	assert_int_equal(st.st_uid, 2007);
}

static void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
}

/* Like the sandbox of an ordinary user, whose namespace has only one id. */
static void none_in_user_namespace(void **state)
{
	struct stat st;
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		char map[32];

		snprintf(map, sizeof(map), "0 %u 1", geteuid());
		if (unshare(CLONE_NEWUSER) < 0)
			_exit(77);
		write_file("/proc/self/uid_map", map);
		start("");
		assert_int_equal(p9c_call(&c, P9_TATTACH, "ddssd", 1, P9_NOFID,
					  "u", "", 500),
				 0);
		assert_int_equal(
			p9c_call(&c, P9_TMKDIR, "dsdd", 1, "d", 0755, 4), 0);
		assert_int_equal(p9c_call(&c, P9_TLCREATE, "dsddd", 1, "f",
					  RDWR, 0644, 500),
				 0);
		assert_int_equal(p9c_setattr(&c, 1, 2, 0, 7, 0, 0, 0), 0);
		assert_int_equal(stat(p9c_path(&c, "f"), &st), 0);
		assert_int_equal(st.st_uid, geteuid());
		p9c_destroy(&c);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
		skip();
	assert_int_equal(status, 0);
}

static void passthrough(void **state)
{
	struct stat st;
	struct p9c_attr a;

	if (geteuid() != 0)
		skip();
	start(",security=passthrough,uidmap=0:2000:10");
	assert_int_equal(
		p9c_call(&c, P9_TATTACH, "ddssd", 1, P9_NOFID, "u", "", 3), 0);
	/* P9-21: gid is the caller's group */
	assert_int_equal(
		p9c_call(&c, P9_TLCREATE, "dsddd", 1, "f", RDWR, 06755, 44), 0);
	assert_int_equal(stat(p9c_path(&c, "f"), &st), 0);
	assert_int_equal(st.st_uid, 2003);
	assert_int_equal(st.st_gid, 44);
	assert_int_equal(st.st_mode, S_IFREG | 06755);
	assert_int_equal(p9c_getattr(&c, 1, &a), 0);
	assert_int_equal(a.uid, 3);
	assert_int_equal(p9c_setattr(&c, 1, 2, 0, 9, 0, 0, 0), 0);
	assert_int_equal(p9c_setattr(&c, 1, 2, 0, 10, 0, 0, 0), -EINVAL);
	assert_int_equal(stat(p9c_path(&c, "f"), &st), 0);
	assert_int_equal(st.st_uid, 2009);
	/* An unmapped id cannot create files. */
	assert_int_equal(
		p9c_call(&c, P9_TATTACH, "ddssd", 2, P9_NOFID, "u", "", 500),
		0);
	assert_int_equal(p9c_call(&c, P9_TMKDIR, "dsdd", 2, "d", 0755, 0),
			 -EINVAL);
	assert_int_equal(access(p9c_path(&c, "d"), F_OK), -1);
	/* For an ordinary user this fails at once. */
	p9c_destroy(&c);
	set_effective(false);
	refused("9p,path=/tmp,security=passthrough");
	set_effective(true);
	start(",security=passthrough,uidmap=0:2000:10");
	/* The host's root is not the guest's. */
	p9c_host_file(&c, "root", "");
	assert_int_equal(p9c_walk(&c, P9C_ROOT, 3, "root"), 0);
	assert_int_equal(p9c_getattr(&c, 3, &a), 0);
	assert_int_equal(a.uid, 65534);
}

int main(void)
{
#define T(f) cmocka_unit_test_teardown(f, teardown)
	const struct CMUnitTest tests[] = {
		T(opens),
		T(creates),
		T(reads_and_writes),
		T(attributes),
		T(listing),
		T(tree),
		T(renames),
		T(removal),
		T(file_system),
		T(read_only),
		T(xattrs),
		T(locks),
		T(getlocks),
		T(lock_waits),
		T(flocks),
		T(inherited),
		T(read_only_flock),
		T(mapped),
		T(passthrough),
		T(none_with_map),
		T(privileged_xattrs),
		T(mapped_xattrs),
		T(none_in_user_namespace),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The 9P device against hostile guests and hostile processes on the host: the
 * rows of docs/spec/hostile.md about 9p.
 */
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/util.h"
#include "p9_client.h"

#include <cmocka.h>

#define RDWR        2u
#define NEEDS_RESET VIRTIO_CONFIG_STATUS_NEEDS_RESET

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
 * --- hostile Q8, Q9: names ---
 */

/* Every request with a name, with every invalid name: hostile class 8. */
static void bad_names(void **state)
{
	static const struct {
		size_t len;
		const char *s;
		int err;
	} names[] = {
		{ 0, "", -EINVAL },           { 1, ".", -EINVAL },
		{ 2, "..", -EINVAL },         { 1, "/", -EINVAL },
		{ 4, "/etc", -EINVAL },       { 9, "../secret", -EINVAL },
		{ 3, "a/b", -EINVAL },        { 3, "a\0b", -EINVAL },
		{ 0xffff, "short", -EINVAL }, { 300, NULL, -ENAMETOOLONG },
	};
	static char text[0xffff];

	start("");
	p9c_host_file(&c, "f", "");
	assert_int_equal(p9c_walk(&c, P9C_ROOT, 1, "f"), 0);
	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		size_t len = names[i].len;
		const char *n = text;

		memset(text, 'x', sizeof(text));
		if (names[i].s)
			memcpy(text, names[i].s, strlen(names[i].s) + 1);
		if (len == 3)
			memcpy(text, names[i].s, 3);
		if (len == 0xffff) {
			/* A length without the bytes. */
			assert_int_equal(p9c_call(&c, P9_TWALK, "ddwwr", 0, 9,
						  1, 0xffff, (size_t)5, n),
					 -EINVAL);
			assert_int_equal(p9c_call(&c, P9_TUNLINKAT, "dwr", 0,
						  0xffff, (size_t)9, n),
					 -EINVAL);
			continue;
		}
		if (len != 2)
			assert_int_equal(
				p9c_call(&c, P9_TWALK, "ddwn", 0, 9, 1, len, n),
				names[i].err);
		assert_int_equal(p9c_call(&c, P9_TLCREATE, "dnddd", 0, len, n,
					  RDWR, 0644, 0),
				 names[i].err);
		assert_int_equal(
			p9c_call(&c, P9_TMKDIR, "dndd", 0, len, n, 0755, 0),
			names[i].err);
		assert_int_equal(
			p9c_call(&c, P9_TSYMLINK, "dnsd", 0, len, n, "t", 0),
			names[i].err);
		assert_int_equal(p9c_call(&c, P9_TMKNOD, "dndddd", 0, len, n,
					  S_IFIFO | 0600, 0, 0, 0),
				 names[i].err);
		assert_int_equal(p9c_call(&c, P9_TLINK, "ddn", 0, 1, len, n),
				 names[i].err);
		assert_int_equal(p9c_call(&c, P9_TRENAME, "ddn", 1, 0, len, n),
				 names[i].err);
		assert_int_equal(
			p9c_call(&c, P9_TRENAMEAT, "dsdn", 0, "f", 0, len, n),
			names[i].err);
		assert_int_equal(
			p9c_call(&c, P9_TRENAMEAT, "dnds", 0, len, n, 0, "g"),
			names[i].err);
		assert_int_equal(
			p9c_call(&c, P9_TUNLINKAT, "dnd", 0, len, n, 0),
			names[i].err);
	}
	/* hostile Q9: the other strings, empty */
	assert_int_equal(p9c_call(&c, P9_TSYMLINK, "dssd", 0, "l", "", 0),
			 -ENOENT);
	assert_int_equal(p9c_call(&c, P9_TXATTRCREATE, "dsqd", 1, "", 1ull, 0),
			 -EINVAL);
	assert_int_equal(p9c_call(&c, P9_TLOCK, "dbdqqdw", 1, 0, 0, 0ull, 0ull,
				  1, 0xffff),
			 -EINVAL);
	assert_int_equal(
		p9c_call(&c, P9_TATTACH, "ddww", 9, P9_NOFID, 0xffff, 0),
		-EINVAL);
	assert_int_equal(p9c_call(&c, P9_TVERSION, "dw", 8192, 0xffff),
			 -EINVAL);
	/* A name that is not UTF-8 is valid. */
	assert_int_equal(p9c_make(&c, 5, "\xff\xfe"), 0);
	assert_int_equal(access(p9c_path(&c, "\xff\xfe"), F_OK), 0);
	assert_int_equal(access(p9c_path(&c, "f"), F_OK), 0);
}

/* hostile Q8: all requests on a link that leads outside */
static void links_out(void **state)
{
	uint32_t fid = 1;

	start("");
	assert_int_equal(symlink("../secret", p9c_path(&c, "l")), 0);
	assert_int_equal(symlink("..", p9c_path(&c, "up")), 0);
	assert_int_equal(p9c_walk(&c, P9C_ROOT, fid, "l"), 0);
	assert_int_equal(p9c_open(&c, fid, 0), -ELOOP);
	assert_int_equal(p9c_call(&c, P9_TSETATTR, "dddddqqqqq", fid, 8, 0, 0,
				  0, 0ull, 0ull, 0ull, 0ull, 0ull),
			 -EINVAL);
	assert_true(p9c_call(&c, P9_TSETATTR, "dddddqqqqq", fid, 1, 0777, 0, 0,
			     0ull, 0ull, 0ull, 0ull, 0ull) < 0);
	/* Times and owner are those of the link. */
	assert_int_equal(p9c_call(&c, P9_TSETATTR, "dddddqqqqq", fid, 0x120, 0,
				  0, 0, 0ull, 0ull, 0ull, 5ull, 0ull),
			 0);
	assert_int_equal(
		p9c_call(&c, P9_TLCREATE, "dsddd", fid, "x", RDWR, 0644, 0),
		-ENOTDIR);
	assert_int_equal(p9c_call(&c, P9_TMKDIR, "dsdd", fid, "x", 0755, 0),
			 -ENOTDIR);
	assert_int_equal(p9c_call(&c, P9_TUNLINKAT, "dsd", fid, "x", 0),
			 -ENOTDIR);
	/* Creating "over" a link does not follow it. */
	assert_int_equal(p9c_make(&c, 2, "l"), -ELOOP);
	/* A hard link is made to the link itself. */
	assert_int_equal(p9c_call(&c, P9_TLINK, "dds", P9C_ROOT, fid, "l2"), 0);
	assert_int_equal(p9c_walk(&c, P9C_ROOT, 3, "up"), 0);
	assert_int_equal(p9c_walk(&c, 3, 4, "secret"), -ENOTDIR);
	assert_int_equal(
		p9c_call(&c, P9_TRENAMEAT, "dsds", 3, "secret", 0, "mine"),
		-ENOTDIR);
	{
		struct stat st;
		char path[96];

		snprintf(path, sizeof(path), "%s/secret", c.dir);
		assert_int_equal(stat(path, &st), 0);
		assert_int_equal(st.st_size, sizeof(P9C_SECRET));
		assert_int_equal(st.st_mode, S_IFREG | 0644);
		assert_true(st.st_mtim.tv_sec > 5);
	}
}

/*
 * --- hostile Q8, class 9: races against a process on the host ---
 */

static bool swap_stop;

/* "x" alternates between a directory and a link to outside the export. */
static void *swapper(void *arg)
{
	char x[128], dir[128], link[128];

	snprintf(x, sizeof(x), "%s/x", c.root);
	snprintf(dir, sizeof(dir), "%s/dir", c.root);
	snprintf(link, sizeof(link), "%s/link", c.root);
	while (!__atomic_load_n(&swap_stop, __ATOMIC_RELAXED)) {
		rename(x, dir);
		rename(link, x);
		rename(x, link);
		rename(dir, x);
	}
	return NULL;
}

static void swap_race(void **state)
{
	unsigned nr_read = 0;
	pthread_t thread;

	start("");
	assert_int_equal(mkdir(p9c_path(&c, "x"), 0755), 0);
	p9c_host_file(&c, "x/secret", "this one is fine");
	assert_int_equal(symlink("..", p9c_path(&c, "link")), 0);
	swap_stop = false;
	assert_int_equal(pthread_create(&thread, NULL, swapper, NULL), 0);
	/* The swapper may stall while the directory is away. */
	for (int i = 0; i < 3000 || nr_read == 0; i++) {
		int n;

		if (p9c_call(&c, P9_TWALK, "ddwss", 0, 1, 2, "x", "secret") <
			    0 ||
		    p9_decode16(&c.in) != 2)
			continue;
		if (p9c_open(&c, 1, 0) == 0) {
			n = p9c_read(&c, 1, 0, 100);
			assert_int_equal(n, 16);
			assert_memory_equal(c.in.p, "this one is fine", 16);
			nr_read++;
		}
		assert_int_equal(p9c_clunk(&c, 1), 0);
	}
	__atomic_store_n(&swap_stop, true, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
}

/* A directory for which the guest has a fid is moved out of the export. */
static void moved_out(void **state)
{
	char outside[96];

	start("");
	assert_int_equal(mkdir(p9c_path(&c, "d"), 0755), 0);
	assert_int_equal(mkdir(p9c_path(&c, "d/e"), 0755), 0);
	assert_int_equal(p9c_call(&c, P9_TWALK, "ddwss", 0, 1, 2, "d", "e"), 0);
	snprintf(outside, sizeof(outside), "%s/e", c.dir);
	assert_int_equal(rename(p9c_path(&c, "d/e"), outside), 0);
	/* ".." leads to where it was, not to where it is. */
	assert_int_equal(
		p9c_call(&c, P9_TWALK, "ddwss", 1, 2, 2, "..", "secret"), 0);
	assert_int_equal(p9_decode16(&c.in), 1);
	assert_int_equal(
		p9c_call(&c, P9_TWALK, "ddwsss", 1, 2, 3, "..", "..", ".."), 0);
	assert_int_equal(p9_decode16(&c.in), 3);
	assert_int_equal(p9c_walk(&c, 2, 3, "secret"), -ENOENT);
	assert_int_equal(p9c_call(&c, P9_TREMOVE, "d", 1), -ENOENT);
	assert_int_equal(access(outside, F_OK), 0);
}

/* Renames on the host that would give our tree a loop. */
static void tangled(void **state)
{
	char above[96];

	start("");
	assert_int_equal(mkdir(p9c_path(&c, "a"), 0755), 0);
	assert_int_equal(mkdir(p9c_path(&c, "a/b"), 0755), 0);
	assert_int_equal(p9c_walk(&c, 0, 1, "a"), 0);
	assert_int_equal(p9c_walk(&c, 1, 2, "b"), 0);
	snprintf(above, sizeof(above), "%s/b", c.root);
	assert_int_equal(rename(p9c_path(&c, "a/b"), above), 0);
	assert_int_equal(p9c_call(&c, P9_TRENAMEAT, "dsds", 0, "a", 2, "a"), 0);
	assert_int_equal(p9c_call(&c, P9_TWALK, "ddwssss", 1, 3, 4, "..", "..",
				  "..", ".."),
			 -ESTALE);
	assert_int_equal(p9c_clunk(&c, 1), 0);
	assert_int_equal(p9c_clunk(&c, 2), 0);
}

/*
 * --- hostile K18, Q12: devices, FIFOs, sockets ---
 */

static void special_files(void **state)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	static const char *const names[] = { "fifo", "sock", "null" };
	int sock;

	start("");
	assert_int_equal(mkfifo(p9c_path(&c, "fifo"), 0666), 0);
	sock = socket(AF_UNIX, SOCK_STREAM, 0);
	snprintf(sun.sun_path, sizeof(sun.sun_path), "%s",
		 p9c_path(&c, "sock"));
	assert_int_equal(bind(sock, (void *)&sun, sizeof(sun)), 0);
	close(sock);
	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		if (i == 2 && mknod(p9c_path(&c, "null"), S_IFCHR | 0666,
				    makedev(1, 3)) < 0)
			break; /* needs root */
		for (uint32_t flags = 0; flags < 3; flags++) {
			assert_int_equal(p9c_walk(&c, 0, 1, names[i]), 0);
			assert_int_equal(p9c_open(&c, 1, flags), -ENXIO);
			/* hostile Q12: nor by creating it */
			assert_int_equal(p9c_call(&c, P9_TWALK, "ddw", 0, 2, 0),
					 0);
			assert_int_equal(p9c_call(&c, P9_TLCREATE, "dsddd", 2,
						  names[i], flags, 0666, 0),
					 -ENXIO);
			assert_int_equal(p9c_call(&c, P9_TSETATTR, "dddddqqqqq",
						  1, 8, 0, 0, 0, 0ull, 0ull,
						  0ull, 0ull, 0ull),
					 -EINVAL);
			assert_int_equal(p9c_clunk(&c, 1), 0);
			assert_int_equal(p9c_clunk(&c, 2), 0);
		}
	}
}

/*
 * --- hostile Q10: leaks and bounds ---
 */

static long resident_pages(void)
{
	long size, pages = 0;
	FILE *f = fopen("/proc/self/statm", "r");

	assert_int_equal(fscanf(f, "%ld %ld", &size, &pages), 2);
	fclose(f);
	return pages;
}

static unsigned lowest_fd(void)
{
	int fd = dup(0);

	close(fd);
	return (unsigned)fd;
}

static void no_leaks(void **state)
{
	unsigned fd = 0, rounds = 5300; /* 10^5 requests */
	long pages = 0;

	start("");
	p9c_host_file(&c, "f", "x");
	assert_int_equal(mkdir(p9c_path(&c, "d"), 0755), 0);
	for (unsigned i = 0; i < rounds; i++) {
		if (i == rounds / 2) {
			pages = resident_pages();
			fd = lowest_fd();
		}
		assert_int_equal(p9c_call(&c, P9_TATTACH, "ddssd", 1, P9_NOFID,
					  "u", "", 0),
				 0);
		assert_int_equal(p9c_call(&c, P9_TATTACH, "ddssd", 1, P9_NOFID,
					  "u", "", 0),
				 -EBADF);
		assert_int_equal(p9c_walk(&c, 1, 2, "d"), 0);
		assert_int_equal(p9c_walk(&c, 1, 2, "f"), -EBADF);
		assert_int_equal(p9c_walk(&c, 1, 3, "f"), 0);
		assert_int_equal(p9c_call(&c, P9_TLINK, "dds", 2, 3, "l"), 0);
		assert_int_equal(p9c_call(&c, P9_TLINK, "dds", 2, 3, "l"),
				 -EEXIST);
		assert_int_equal(p9c_open(&c, 3, 0), 0);
		assert_int_equal(p9c_open(&c, 3, 0), -EINVAL);
		assert_int_equal(p9c_call(&c, P9_TXATTRWALK, "dds", 3, 4, ""),
				 0);
		assert_int_equal(p9c_call(&c, P9_TXATTRWALK, "dds", 3, 4, ""),
				 -EBADF);
		assert_int_equal(p9c_call(&c, P9_TLOCK, "dbdqqds", 3, 0, 0,
					  0ull, 0ull, i, "guest"),
				 0);
		assert_int_equal(p9c_call(&c, P9_TUNLINKAT, "dsd", 2, "l", 0),
				 0);
		for (uint32_t n = 1; n <= 4; n++)
			assert_int_equal(p9c_clunk(&c, n), 0);
	}
	assert_int_equal(lowest_fd(), fd);
	/* The sanitizers keep what is freed for a while. */
	assert_true(resident_pages() - pages < 16 << 20 >> 12);
}

/* A host with little memory, so that a guest soon reaches its limit. */
int sysinfo(struct sysinfo *info)
{
	*info = (struct sysinfo){ .totalram = 64 << 20, .mem_unit = 1 };
	return 0;
}

/* Fids are bounded only by memory, and a clunk makes room. */
static void fid_table(void **state)
{
	uint32_t n = 1;
	int ret = 0;

	start("");
	while ((ret = p9c_call(&c, P9_TWALK, "ddw", 0, n, 0)) == 0)
		n++;
	assert_int_equal(ret, -ENFILE); /* P9-24 */
	/* Pointers of 32 bits make room for more. */
	assert_in_range(n, 200000, sizeof(void *) < 8 ? 400000 : 300000);
	assert_int_equal(p9c_clunk(&c, 77), 0);
	assert_int_equal(p9c_call(&c, P9_TWALK, "ddw", 0, n, 0), 0);
	assert_int_equal(p9c_call(&c, P9_TVERSION, "ds", 8192, "9P2000.L"), 0);
	p9c_mount(&c, 8192);
}

/* The @n-th of many names of maximum length. */
static const char *long_name(uint32_t n)
{
	static char name[256];

	memset(name, 'x', sizeof(name) - 1);
	name[snprintf(name, sizeof(name), "%u.", n)] = 'x';
	name[sizeof(name) - 1] = '\0';
	return name;
}

/* They cost memory: it is bounded, and a clunk makes room. */
static void long_names(void **state)
{
	char old[sizeof(c.dir) + 300];
	uint32_t n = 0;
	size_t bytes;
	int ret = 0;

	start("");
	p9c_host_file(&c, long_name(0), "");
	bytes = mallinfo2().uordblks;
	while (ret == 0) { /* it has one after another */
		snprintf(old, sizeof(old), "%s", p9c_path(&c, long_name(n)));
		n++;
		assert_int_equal(rename(old, p9c_path(&c, long_name(n))), 0);
		ret = p9c_walk(&c, 0, n, long_name(n));
	}
	assert_int_equal(ret, -ENFILE);
	assert_true(n > 30000);
	if (bytes > 0) /* the sanitizers count for themselves */
		assert_true(mallinfo2().uordblks - bytes < 17 << 20);
	for (uint32_t i = 1; i < 3; i++)
		assert_int_equal(p9c_clunk(&c, i), 0);
	assert_int_equal(p9c_walk(&c, 0, n, long_name(n)), 0);
	assert_int_equal(p9c_call(&c, P9_TVERSION, "ds", 8192, "9P2000.L"), 0);
	p9c_mount(&c, 8192);
}

/* Attribute values that are created and never written: bounded. */
static void xattr_memory(void **state)
{
	unsigned nr = 0;
	int ret = 0;

	start("");
	while (ret == 0 && nr < 1000) {
		nr++;
		assert_int_equal(p9c_call(&c, P9_TWALK, "ddw", 0, nr, 0), 0);
		ret = p9c_call(&c, P9_TXATTRCREATE, "dsqd", nr, "user.x",
			       65536ull, 0);
	}
	assert_int_equal(ret, -ENOSPC);
	assert_int_equal(nr, 9);
	assert_int_equal(p9c_clunk(&c, 1), -EINVAL);
	assert_int_equal(p9c_call(&c, P9_TXATTRCREATE, "dsqd", nr, "user.x",
				  65536ull, 0),
			 0);
}

/* Walk to more files than there are descriptors. */
static void few_descriptors(void **state)
{
	struct rlimit old, few;
	enum { NR_FILES = 600 };

	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	few = old;
	few.rlim_cur = 256;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
	start("");
	assert_int_equal(mkdir(p9c_path(&c, "d"), 0755), 0);
	assert_int_equal(p9c_walk(&c, 0, 1, "d"), 0);
	for (uint32_t i = 0; i < NR_FILES; i++) {
		char name[32];

		snprintf(name, sizeof(name), "d/%u", i);
		p9c_host_file(&c, name, name);
		snprintf(name, sizeof(name), "%u", i);
		assert_int_equal(p9c_walk(&c, 1, 10 + i, name), 0);
	}
	/* Their names may change meanwhile. */
	assert_int_equal(p9c_call(&c, P9_TRENAMEAT, "dsds", 0, "d", 0, "e"), 0);
	assert_int_equal(p9c_call(&c, P9_TRENAME, "dds", 10, 0, "zero"), 0);
	/* One is unlinked, one replaced: fids still mean the old ones. */
	assert_int_equal(p9c_call(&c, P9_TUNLINKAT, "dsd", 1, "1", 0), 0);
	assert_int_equal(p9c_call(&c, P9_TRENAMEAT, "dsds", 1, "2", 1, "3"), 0);
	/* And one by the host, which the device cannot know. */
	assert_int_equal(unlink(p9c_path(&c, "e/4")), 0);
	p9c_host_file(&c, "e/4", "other");
	for (uint32_t i = 0; i < NR_FILES; i++) {
		char name[32];
		int ret = p9c_open(&c, 10 + i, 0);

		if (i == 4) {
			assert_int_equal(ret, -ESTALE);
			continue;
		}
		assert_int_equal(ret, 0);
		snprintf(name, sizeof(name), "d/%u", i);
		assert_int_equal(p9c_read(&c, 10 + i, 0, 100), strlen(name));
		assert_memory_equal(c.in.p, name, strlen(name));
		assert_int_equal(p9c_clunk(&c, 10 + i), 0);
	}
	/* Open directories cannot be closed to make room: only an error. */
	for (uint32_t i = 0; i < NR_FILES; i++) {
		int ret = p9c_call(&c, P9_TWALK, "ddw", 0, 2000 + i, 0);

		assert_int_equal(ret, 0);
		ret = p9c_open(&c, 2000 + i, 0);
		assert_true(ret == 0 || (ret == -EMFILE && i > 100));
	}
	assert_int_equal(p9c_call(&c, P9_TVERSION, "ds", 8192, "9P2000.L"), 0);
	p9c_mount(&c, 8192);
	assert_int_equal(p9c_make(&c, 1, "after"), 0);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
}

/* As many files are open at once, and stay the same. */
static void few_descriptors_open(void **state)
{
	struct rlimit old, few;
	enum { NR_FILES = 600 };
	char name[32];

	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	few = old;
	few.rlim_cur = 256;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
	start("");
	for (uint32_t i = 0; i < NR_FILES; i++) {
		snprintf(name, sizeof(name), "file%u", i);
		assert_int_equal(p9c_make(&c, 10 + i, name), 0);
		assert_int_equal(p9c_write(&c, 10 + i, 0, name, sizeof(name)),
				 sizeof(name));
	}
	assert_int_equal(p9c_call(&c, P9_TRENAMEAT, "dsds", 0, "file1", 0, "g"),
			 0);
	assert_int_equal(p9c_call(&c, P9_TUNLINKAT, "dsd", 0, "file2", 0), 0);
	assert_int_equal(unlink(p9c_path(&c, "file3")), 0);
	p9c_host_file(&c, "file3", "other");
	for (uint32_t i = 0; i < NR_FILES; i++) {
		struct p9c_attr a;
		int ret = p9c_read(&c, 10 + i, 0, sizeof(name));

		if (i == 3) {
			assert_int_equal(ret, -ESTALE);
			continue;
		}
		snprintf(name, sizeof(name), "file%u", i);
		assert_int_equal(ret, sizeof(name));
		assert_string_equal((const char *)c.in.p, name);
		assert_int_equal(p9c_write(&c, 10 + i, 9, "x", 1), 1);
		assert_int_equal(p9c_getattr(&c, 10 + i, &a), 0);
		assert_int_equal(a.size, sizeof(name));
		assert_int_equal(p9c_call(&c, P9_TFSYNC, "dd", 10 + i, 0), 0);
	}
	p9c_mount(&c, 8192);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
}

/*
 * --- hostile Q11: many requests at once on one fid ---
 */

static void one_fid(void **state)
{
	static const char *const names[] = { "a", "b", "c" };
	unsigned opened = 0;

	start("");
	for (int round = 0; round < 300; round++) {
		unsigned s[16];

		assert_int_equal(p9c_call(&c, P9_TWALK, "ddw", 0, 1, 0), 0);
		/* The first request decides what the fid becomes. */
		s[0] = p9c_send(&c, 0, P9_TLCREATE, "dsddd", 1, "a", RDWR, 0644,
				0);
		s[1] = p9c_send(&c, 1, P9_TXATTRWALK, "dds", 1, 20, "");
		s[2] = p9c_send(&c, 2, P9_TWALK, "ddws", 1, 1, 1, "a");
		s[3] = p9c_send(&c, 3, P9_TLCREATE, "dsddd", 1, "b", RDWR, 0644,
				0);
		s[4] = p9c_send(&c, 4, P9_TWALK, "ddws", 1, 21, 1, "b");
		s[5] = p9c_send(&c, 5, P9_TLOPEN, "dd", 1, 0);
		s[6] = p9c_send(&c, 6, P9_TGETATTR, "dq", 1, 0x7ffull);
		s[7] = p9c_send(&c, 7, P9_TREADDIR, "dqd", 1, 0ull, 4000);
		s[8] = p9c_send(&c, 8, P9_TWRITE, "dqdr", 1, 0ull, 4, (size_t)4,
				"text");
		s[9] = p9c_send(&c, 9, P9_TXATTRCREATE, "dsqd", 1, "user.x",
				3ull, 0);
		s[10] = p9c_send(&c, 10, P9_TRENAME, "dds", 1, 0, "c");
		s[11] = p9c_send(&c, 11, P9_TSETATTR, "dddddqqqqq", 1, 8, 0, 0,
				 0, 100ull, 0ull, 0ull, 0ull, 0ull);
		s[12] = p9c_send(&c, 12, P9_TCLUNK, "d", 1);
		s[13] = p9c_send(&c, 13, P9_TCLUNK, "d", 1);
		s[14] = p9c_send(&c, 14, P9_TREMOVE, "d", 1);
		s[15] = p9c_send(&c, 15, P9_TFLUSH, "w", 12);
		vdrv_kick(&c.d, 0);
		for (unsigned i = 0; i < ARRAY_LEN(s); i++) {
			int ret = p9c_wait(&c, s[i]);

			assert_true(ret <= 0);
			opened += ret == 0 && (i == 0 || i == 3);
		}
		for (uint32_t fid = 1; fid <= 21; fid += fid == 1 ? 19 : 1)
			p9c_clunk(&c, fid);
		for (unsigned i = 0; i < ARRAY_LEN(names); i++)
			unlink(p9c_path(&c, names[i]));
	}
	assert_true(opened > 0);
}

/* Many readers and writers, and the names beneath them change. */
static void many_at_once(void **state)
{
	start("");
	for (uint32_t i = 0; i < 8; i++) {
		char name[8];

		snprintf(name, sizeof(name), "f%u", i);
		assert_int_equal(p9c_make(&c, 10 + i, name), 0);
		assert_int_equal(p9c_walk(&c, 0, 30 + i, name), 0);
	}
	for (int round = 0; round < 200; round++) {
		unsigned s[40];
		uint16_t n = 0;
		char from[8], to[8];

		for (uint32_t i = 0; i < 8; i++) {
			s[n] = p9c_send(&c, n, P9_TWRITE, "dqdr", 10 + i, 0ull,
					8, (size_t)8, "12345678");
			n++;
			s[n] = p9c_send(&c, n, P9_TREAD, "dqd", 10 + i, 0ull,
					100);
			n++;
			s[n] = p9c_send(&c, n, P9_TGETATTR, "dq", 30 + i,
					0x7ffull);
			n++;
			s[n] = p9c_send(&c, n, P9_TWALK, "ddw", 0, 50 + i, 0);
			n++;
			snprintf(from, sizeof(from), "f%u", i);
			snprintf(to, sizeof(to), "f%u", (i + 1) % 8);
			s[n] = p9c_send(&c, n, P9_TRENAMEAT, "dsds", 0,
					round % 2 ? from : to, 0,
					round % 2 ? to : from);
			n++;
		}
		vdrv_kick(&c.d, 0);
		for (unsigned i = 0; i < n; i++) {
			int ret = p9c_wait(&c, s[i]);

			/* Names may be gone; open files are not. */
			assert_true(ret == 0 || i % 5 == 4);
		}
		for (uint32_t i = 0; i < 8; i++)
			assert_int_equal(p9c_clunk(&c, 50 + i), 0);
	}
}

/*
 * --- hostile S14: chains ---
 */

static void long_chains(void **state)
{
	static const unsigned lens[] = { 2, 33, 129, 257, 513, 1023, 1024 };
	uint8_t msg[] = { 19, 0,   0, 0, 24, 1, 0, 0, 0, 0,
			  0,  255, 7, 0, 0,  0, 0, 0, 0 };

	for (int direct = 0; direct < 2; direct++) {
		p9c_start(&c, VDRV_MODERN, direct ? ",queue-size=1024" : "");
		for (size_t i = 0; i < ARRAY_LEN(lens); i++) {
			/* hostile S14: one for the request, the rest bytes */
			c.r_cut = 1;
			c.room = lens[i] - 1;
			assert_int_equal(p9c_raw(&c, msg, sizeof(msg)),
					 c.room >= 160 ? 0 :
					 c.room >= 11  ? -EMSGSIZE :
							 P9C_NO_REPLY);
		}
		assert_int_equal(vdrv_status(&c.d) & NEEDS_RESET, 0);
		p9c_destroy(&c);
	}
	/* More than we accept: an error, and a reset recovers. */
	p9c_start(&c, VDRV_MODERN, "");
	c.r_cut = 1;
	c.room = 1024;
	p9c_send(&c, 1, P9_TGETATTR, "dq", 0, 0x7ffull);
	vdrv_kick(&c.d, 0);
	assert_true(vdrv_status(&c.d) & NEEDS_RESET);
	vdrv_reset(&c.d);
	assert_true(vdrv_start(&c.d, ~0ull, 1));
	c.slots[0].busy = false;
	c.r_cut = c.room = 0;
	p9c_mount(&c, 8192);
}

/* The guest changes a message while it is being served: hostile class 1. */
static void *scribbler(void *arg)
{
	volatile uint8_t *p = vdrv_ptr(&c.d, c.slots[0].t_gpa, 64);
	unsigned i = 0;

	while (!__atomic_load_n(&swap_stop, __ATOMIC_RELAXED)) {
		p[i % 23] ^= (uint8_t)(1 + i / 23);
		i++;
	}
	return NULL;
}

static void scribbled(void **state)
{
	pthread_t thread;

#ifdef __has_feature
#if __has_feature(thread_sanitizer)
	skip(); /* which is right: it is a race */
#endif
#endif
#ifdef __SANITIZE_THREAD__
	skip();
#endif
	start("");
	p9c_host_file(&c, "f", "text");
	swap_stop = false;
	assert_int_equal(pthread_create(&thread, NULL, scribbler, NULL), 0);
	for (int i = 0; i < 2000; i++) {
		uint8_t *msg = vdrv_ptr(&c.d, c.slots[0].t_gpa, 64);
		struct vdrv_buf bufs[] = {
			{ c.slots[0].t_gpa, 64, VDRV_R },
			{ c.slots[0].r_gpa, 200, VDRV_W },
		};
		struct vdrv_used used;

		memcpy(msg, "\x40\0\0\0\x6e\1\0\0\0\0\0\x09\0\0\0\1\0\1\0f",
		       20);
		vdrv_add(&c.d, 0, bufs, 2);
		vdrv_kick(&c.d, 0);
		while (!vdrv_used(&c.d, 0, &used))
			vio_loop_iterate(c.loop, 1);
		assert_true(used.len <= 200);
	}
	__atomic_store_n(&swap_stop, true, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
}

int main(void)
{
#define T(f) cmocka_unit_test_teardown(f, teardown)
	const struct CMUnitTest tests[] = {
		T(bad_names),    T(links_out),       T(swap_race),
		T(moved_out),    T(tangled),         T(special_files),
		T(no_leaks),     T(fid_table),       T(long_names),
		T(xattr_memory), T(few_descriptors), T(few_descriptors_open),
		T(one_fid),      T(many_at_once),    T(long_chains),
		T(scribbled),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

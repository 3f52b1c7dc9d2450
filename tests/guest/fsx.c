/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Works a directory at random and knows what must come of it: what files hold,
 * their sizes, names and links, also of files that have lost their names. Each
 * answer of the file system is compared with a model in memory.
 *
 *	fsx [-s SEED] [-n OPERATIONS] [-p PROCESSES] [-x KIND,...] DIR
 *
 * Each process has a folder and a seed of its own, SEED, SEED + 1, ...; the
 * same seed does the same again. In the end all of them count in one file,
 * under locks. Status 1 and the last operations of who found a difference.
 * The kinds of operations after -x, as the table ops[] names them, are left
 * out.
 *
 * A file is open once at a time: with cache=none two names of one file are two
 * files to Linux's 9p, which know nothing of each other's size.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define NR_FILES  8
#define NR_DIRS   3
#define NR_NAMES  6 /* in each directory */
#define MAX_SIZE  (192u << 10)
#define NR_LOG    24
#define NR_COUNTS 4
#define NR_ROUNDS 40
#define MAX_LINKS (NR_DIRS * NR_NAMES)

struct file {
	bool used; /* it has a name, or is open */
	uint8_t data[MAX_SIZE];
	unsigned size, nlink, mode;
	int fd; /* -1: not open */
};

struct dir {
	char name[8];
	struct file *at[NR_NAMES]; /* NULL: there is no such name */
};

static struct file files[NR_FILES];
static struct dir dirs[NR_DIRS];
static uint64_t seed, rng;
static unsigned nr_done;
static unsigned nr_refused; /* operations that the file system has not */
static char history[NR_LOG][160];

/*
 * --- Chance ---
 */

static uint32_t any(uint32_t below)
{
	rng = rng * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(((rng >> 32) * below) >> 32);
}

/* Often where things go wrong: at pages, and at the end. */
static unsigned any_offset(unsigned most)
{
	unsigned off = any(most + 1);

	switch (any(4)) {
	case 0:
		return off & ~4095u;
	case 1:
		return most;
	default:
		return off;
	}
}

/* A length of at least 1, at an offset below @end. */
static unsigned any_length(unsigned off, unsigned end)
{
	unsigned len = any(3) ? any(9000) : any(MAX_SIZE);

	return len < end - off ? len + 1 : end - off;
}

static void fill(uint8_t *p, unsigned len)
{
	uint8_t first = (uint8_t)any(256), step = (uint8_t)(any(128) * 2 + 1);

	for (unsigned i = 0; i < len; i++)
		p[i] = (uint8_t)(first + i * step + (i >> 8));
}

/*
 * --- What was done, and what was wrong ---
 */

__attribute__((format(printf, 1, 2))) static void note(const char *format, ...)
{
	char *line = history[nr_done % NR_LOG];
	int n = snprintf(line, sizeof(history[0]), "%u: ", nr_done);
	va_list ap;

	va_start(ap, format);
	vsnprintf(line + n, sizeof(history[0]) - (size_t)n, format, ap);
	va_end(ap);
}

__attribute__((format(printf, 1, 2), noreturn)) static void
fail(const char *format, ...)
{
	va_list ap;

	for (unsigned i = nr_done < NR_LOG ? 0 : nr_done - NR_LOG + 1;
	     i <= nr_done; i++)
		fprintf(stderr, "  %s\n", history[i % NR_LOG]);
	fprintf(stderr,
		"fsx: seed %llu, operation %u: ", (unsigned long long)seed,
		nr_done);
	va_start(ap, format);
	vfprintf(stderr, format, ap);
	va_end(ap);
	fputc('\n', stderr);
	exit(1);
}

static void must(bool worked, const char *what)
{
	if (!worked)
		fail("%s: %s", what, strerror(errno));
}

static void same(const struct file *f, unsigned off, const uint8_t *got,
		 unsigned len, const char *how)
{
	for (unsigned i = 0; i < len; i++) {
		if (got[i] != f->data[off + i])
			fail("%s: byte %u of file %d is %02x, not %02x", how,
			     off + i, (int)(f - files), got[i],
			     f->data[off + i]);
	}
}

/*
 * --- The model's things ---
 */

struct path {
	char s[32];
};

static struct path path_of(unsigned dir, unsigned name)
{
	struct path p;

	snprintf(p.s, sizeof(p.s), "%s/n%u", dirs[dir].name, name);
	return p;
}

/* A name of a file, false when it has none. */
static bool name_of(const struct file *f, unsigned *ret_dir, unsigned *ret_name)
{
	unsigned start = any(MAX_LINKS);

	for (unsigned i = 0; i < MAX_LINKS; i++) {
		unsigned at = (start + i) % MAX_LINKS;

		*ret_dir = at / NR_NAMES;
		*ret_name = at % NR_NAMES;
		if (dirs[*ret_dir].at[*ret_name] == f)
			return true;
	}
	return false;
}

static struct file *any_file(void)
{
	unsigned start = any(NR_FILES);

	for (unsigned i = 0; i < NR_FILES; i++) {
		struct file *f = &files[(start + i) % NR_FILES];

		if (f->used)
			return f;
	}
	return NULL;
}

/* Its descriptor, or one that put_fd() closes. */
static int get_fd(const struct file *f, int flags)
{
	unsigned d, n;
	int fd;

	if (f->fd >= 0)
		return f->fd;
	if (!name_of(f, &d, &n))
		return -1;
	fd = open(path_of(d, n).s, O_RDWR | flags);
	must(fd >= 0, "open");
	return fd;
}

static void put_fd(const struct file *f, int fd)
{
	if (fd != f->fd)
		must(close(fd) == 0, "close");
}

static void forget(struct file *f)
{
	if (f->nlink == 0 && f->fd < 0)
		f->used = false;
}

static void set_size(struct file *f, unsigned size)
{
	if (size > f->size)
		memset(f->data + f->size, 0, size - f->size);
	f->size = size;
}

static bool refused(int err)
{
	if (err != EOPNOTSUPP && err != ENODEV && err != EINVAL &&
	    err != ENOSYS && err != EXDEV)
		return false;
	nr_refused++;
	return true;
}

/*
 * --- Operations: each picks what it works on ---
 */

static void do_create(void)
{
	unsigned d = any(NR_DIRS), n = any(NR_NAMES), i = 0;
	bool taken = dirs[d].at[n];
	int fd;

	while (i < NR_FILES && files[i].used)
		i++;
	if (i == NR_FILES && !taken)
		return;
	note("create %s", path_of(d, n).s);
	fd = open(path_of(d, n).s, O_RDWR | O_CREAT | O_EXCL, 0600);
	if (taken) {
		if (fd >= 0 || errno != EEXIST)
			fail("created what is there already");
		return;
	}
	must(fd >= 0, "create");
	files[i].used = true;
	files[i].size = 0;
	files[i].nlink = 1;
	files[i].mode = 0600;
	files[i].fd = fd;
	dirs[d].at[n] = &files[i];
}

static void do_open_close(void)
{
	struct file *f = any_file();

	if (!f)
		return;
	note("%s file %d", f->fd < 0 ? "open" : "close", (int)(f - files));
	if (f->fd < 0) {
		f->fd = get_fd(f, 0);
		return;
	}
	must(close(f->fd) == 0, "close");
	f->fd = -1;
	forget(f);
}

static void do_write(void)
{
	struct file *f = any_file();
	unsigned off, len, done = 0;
	int fd;

	if (!f)
		return;
	off = any_offset(any(4) ? f->size : MAX_SIZE - 1);
	if (off >= MAX_SIZE)
		off = MAX_SIZE - 1;
	len = any_length(off, MAX_SIZE);
	note("write %u at %u of file %d", len, off, (int)(f - files));
	if (off > f->size)
		set_size(f, off);
	fill(f->data + off, len);
	if (off + len > f->size)
		f->size = off + len;
	fd = get_fd(f, 0);
	while (done < len) {
		ssize_t n = pwrite(fd, f->data + off + done, len - done,
				   (off_t)off + done);

		must(n > 0, "pwrite");
		done += (unsigned)n;
	}
	put_fd(f, fd);
}

static void do_append(void)
{
	struct file *f = any_file();
	unsigned len;
	int fd;

	if (!f || f->fd >= 0 || f->size >= MAX_SIZE)
		return;
	len = any_length(f->size, MAX_SIZE);
	note("append %u to file %d of %u", len, (int)(f - files), f->size);
	fill(f->data + f->size, len);
	fd = get_fd(f, O_APPEND);
	must(write(fd, f->data + f->size, len) == (ssize_t)len, "append");
	must(close(fd) == 0, "close");
	f->size += len;
}

static void do_read(void)
{
	static uint8_t buf[MAX_SIZE];
	struct file *f = any_file();
	unsigned off, len, done = 0, want;
	ssize_t n = 1;
	int fd;

	if (!f)
		return;
	off = any_offset(f->size);
	len = any_length(off, MAX_SIZE + 1);
	want = len < f->size - off ? len : f->size - off;
	note("read %u at %u of file %d of %u", len, off, (int)(f - files),
	     f->size);
	fd = get_fd(f, 0);
	while (done < len && n > 0) {
		n = pread(fd, buf + done, len - done, (off_t)off + done);
		must(n >= 0, "pread");
		done += (unsigned)n;
	}
	put_fd(f, fd);
	if (done != want)
		fail("read %u bytes, not %u", done, want);
	same(f, off, buf, done, "read");
}

static void do_truncate(void)
{
	struct file *f = any_file();
	unsigned d, n, size;
	int ret;

	if (!f)
		return;
	size = any_offset(any(2) ? f->size : MAX_SIZE);
	note("truncate file %d of %u to %u", (int)(f - files), f->size, size);
	if (f->fd >= 0) {
		ret = ftruncate(f->fd, size);
	} else {
		name_of(f, &d, &n);
		ret = truncate(path_of(d, n).s, size);
	}
	must(ret == 0, "truncate");
	set_size(f, size);
}

static void do_map_read(void)
{
	struct file *f = any_file();
	int kind = any(2) ? MAP_SHARED : MAP_PRIVATE, fd;
	unsigned off, len;
	uint8_t *p;

	if (!f || !f->size)
		return;
	off = any(f->size) & ~4095u;
	len = any_length(off, f->size);
	note("read %u at %u of file %d of %u, mapped %s", len, off,
	     (int)(f - files), f->size,
	     kind == MAP_SHARED ? "shared" : "private");
	fd = get_fd(f, 0);
	p = mmap(NULL, len, PROT_READ, kind, fd, (off_t)off);
	if (p == MAP_FAILED) {
		must(refused(errno), "mmap");
	} else {
		same(f, off, p, len, "mapped");
		must(munmap(p, len) == 0, "munmap");
	}
	put_fd(f, fd);
}

/* A guest's mapping is written back in its own time, or by msync(). */
static void do_map_write(void)
{
	struct file *f = any_file();
	unsigned off, at, len;
	uint8_t *p;
	int fd;

	if (!f || !f->size)
		return;
	at = any(f->size);
	off = at & ~4095u;
	len = any_length(at, f->size);
	note("write %u at %u of file %d of %u, mapped", len, at,
	     (int)(f - files), f->size);
	fd = get_fd(f, 0);
	p = mmap(NULL, at - off + len, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
		 (off_t)off);
	if (p == MAP_FAILED) {
		must(refused(errno), "mmap");
	} else {
		fill(f->data + at, len);
		memcpy(p + (at - off), f->data + at, len);
		if (any(2))
			must(msync(p, at - off + len, MS_SYNC) == 0, "msync");
		must(munmap(p, at - off + len) == 0, "munmap");
	}
	put_fd(f, fd);
}

static void do_allocate(void)
{
	struct file *f = any_file();
	bool punch = any(2);
	unsigned off, len;
	int fd;

	if (!f)
		return;
	off = any(MAX_SIZE);
	len = any_length(off, MAX_SIZE);
	note("%s %u at %u of file %d of %u", punch ? "punch" : "allocate", len,
	     off, (int)(f - files), f->size);
	fd = get_fd(f, 0);
	if (fallocate(fd,
		      punch ? FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE : 0,
		      (off_t)off, len) < 0) {
		must(refused(errno), "fallocate");
	} else if (!punch) {
		set_size(f, off + len > f->size ? off + len : f->size);
	} else if (off < f->size) {
		memset(f->data + off, 0,
		       len < f->size - off ? len : f->size - off);
	}
	put_fd(f, fd);
}

static void do_copy(void)
{
	struct file *from = any_file(), *to = any_file();
	unsigned off, len;
	ssize_t n;
	int in, out;

	if (!from || from == to || !from->size)
		return;
	off = any(from->size);
	len = any_length(off, from->size);
	note("copy %u at %u of file %d to file %d of %u", len, off,
	     (int)(from - files), (int)(to - files), to->size);
	in = get_fd(from, 0);
	out = get_fd(to, 0);
	n = copy_file_range(in, &(loff_t){ off }, out, &(loff_t){ off }, len,
			    0);
	if (n < 0) {
		must(refused(errno), "copy_file_range");
	} else {
		if (off + (unsigned)n > to->size)
			set_size(to, off + (unsigned)n);
		memcpy(to->data + off, from->data + off, (size_t)n);
	}
	put_fd(from, in);
	put_fd(to, out);
}

static void do_sync(void)
{
	struct file *f = any_file();
	int fd;

	if (!f)
		return;
	note("sync file %d", (int)(f - files));
	fd = get_fd(f, 0);
	must((any(2) ? fsync(fd) : fdatasync(fd)) == 0, "fsync");
	put_fd(f, fd);
}

static void do_drop_caches(void)
{
	int fd;

	if (any(8))
		return;
	note("drop caches");
	fd = open("/proc/sys/vm/drop_caches", O_WRONLY);
	if (fd >= 0) {
		(void)!write(fd, "3", 1);
		close(fd);
	}
}

/*
 * --- Names ---
 */

static void do_rename(void)
{
	unsigned d1 = any(NR_DIRS), n1 = any(NR_NAMES);
	unsigned d2 = any(NR_DIRS), n2 = any(NR_NAMES);
	struct file *f = dirs[d1].at[n1], *victim = dirs[d2].at[n2];
	int ret;

	note("rename %s to %s%s", path_of(d1, n1).s, path_of(d2, n2).s,
	     victim ? ", which is there" : "");
	ret = rename(path_of(d1, n1).s, path_of(d2, n2).s);
	if (!f) {
		if (ret == 0 || errno != ENOENT)
			fail("renamed what is not there");
		return;
	}
	must(ret == 0, "rename");
	if (f == victim)
		return;
	dirs[d1].at[n1] = NULL;
	dirs[d2].at[n2] = f;
	if (victim) {
		victim->nlink--;
		forget(victim);
	}
}

static void do_rename_dir(void)
{
	struct dir *d = &dirs[any(NR_DIRS)];
	char name[sizeof(d->name)];

	memcpy(name, d->name, sizeof(name));
	name[0] = name[0] == 'd' ? 'e' : 'd';
	note("rename %s to %s", d->name, name);
	must(rename(d->name, name) == 0, "rename of a directory");
	memcpy(d->name, name, sizeof(name));
}

static void do_link(void)
{
	unsigned d1, n1, d2 = any(NR_DIRS), n2 = any(NR_NAMES);
	struct file *f = any_file();

	if (!f || !name_of(f, &d1, &n1) || dirs[d2].at[n2])
		return;
	note("link %s to %s", path_of(d1, n1).s, path_of(d2, n2).s);
	must(link(path_of(d1, n1).s, path_of(d2, n2).s) == 0, "link");
	dirs[d2].at[n2] = f;
	f->nlink++;
}

static void do_unlink(void)
{
	unsigned d = any(NR_DIRS), n = any(NR_NAMES);
	struct file *f = dirs[d].at[n];
	int ret;

	note("unlink %s", path_of(d, n).s);
	ret = unlink(path_of(d, n).s);
	if (!f) {
		if (ret == 0 || errno != ENOENT)
			fail("removed what is not there");
		return;
	}
	must(ret == 0, "unlink");
	dirs[d].at[n] = NULL;
	f->nlink--;
	forget(f);
}

static void do_symlink(void)
{
	char name[16], target[sizeof(name)];

	snprintf(name, sizeof(name), "s%u", any(1000000));
	note("symlink %s", name);
	must(symlink(name + 1, name) == 0, "symlink");
	if (readlink(name, target, sizeof(target)) !=
		    (ssize_t)strlen(name + 1) ||
	    memcmp(target, name + 1, strlen(name + 1)) != 0)
		fail("the link does not lead to %s", name + 1);
	must(unlink(name) == 0, "unlink");
}

static void do_list(void)
{
	const struct dir *d = &dirs[any(NR_DIRS)];
	bool seen[NR_NAMES] = { false };
	const struct dirent *e;
	DIR *stream;

	note("list %s", d->name);
	stream = opendir(d->name);
	must(stream, "opendir");
	while ((e = readdir(stream))) {
		unsigned n = (unsigned)(e->d_name[1] - '0');

		if (e->d_name[0] == '.')
			continue;
		if (n >= NR_NAMES || seen[n] || !d->at[n])
			fail("%s is listed", e->d_name);
		seen[n] = true;
	}
	closedir(stream);
	for (unsigned n = 0; n < NR_NAMES; n++) {
		if (d->at[n] && !seen[n])
			fail("n%u is not listed", n);
	}
}

static void do_stat(void)
{
	struct file *f = any_file();
	struct stat st;
	unsigned d, n;
	int ret;

	if (!f)
		return;
	note("stat file %d", (int)(f - files));
	if (f->fd >= 0 && (!f->nlink || any(2))) {
		ret = fstat(f->fd, &st);
	} else {
		name_of(f, &d, &n);
		ret = stat(path_of(d, n).s, &st);
	}
	must(ret == 0, "stat");
	if ((unsigned)st.st_size != f->size)
		fail("%ld bytes, not %u", (long)st.st_size, f->size);
	if (st.st_nlink != f->nlink)
		fail("%u links, not %u", (unsigned)st.st_nlink, f->nlink);
	if ((st.st_mode & 07777) != f->mode)
		fail("mode %o, not %o", st.st_mode & 07777, f->mode);
}

static void do_chmod(void)
{
	struct file *f = any_file();
	unsigned d, n, mode = 0600 | any(0100);

	if (!f || !name_of(f, &d, &n))
		return;
	note("chmod %o file %d", mode, (int)(f - files));
	must(chmod(path_of(d, n).s, mode) == 0, "chmod");
	f->mode = mode;
}

static struct op {
	const char *name;
	void (*fn)(void);
	unsigned weight;
} ops[] = {
	{ "create", do_create, 8 },     { "open-close", do_open_close, 6 },
	{ "write", do_write, 14 },      { "append", do_append, 4 },
	{ "read", do_read, 14 },        { "truncate", do_truncate, 6 },
	{ "map-read", do_map_read, 6 }, { "map-write", do_map_write, 6 },
	{ "allocate", do_allocate, 2 }, { "copy", do_copy, 2 },
	{ "sync", do_sync, 2 },         { "drop-caches", do_drop_caches, 1 },
	{ "rename", do_rename, 6 },     { "rename-dir", do_rename_dir, 2 },
	{ "link", do_link, 4 },         { "unlink", do_unlink, 4 },
	{ "symlink", do_symlink, 1 },   { "list", do_list, 3 },
	{ "stat", do_stat, 8 },         { "chmod", do_chmod, 2 },
};
#define NR_OPS (sizeof(ops) / sizeof(ops[0]))

/* False when there is no such operation. */
static bool leave_out(char *names)
{
	for (char *s = strtok(names, ","); s; s = strtok(NULL, ",")) {
		size_t i = 0;

		while (i < NR_OPS && strcmp(ops[i].name, s) != 0)
			i++;
		if (i == NR_OPS)
			return false;
		ops[i].weight = 0;
	}
	return true;
}

static void do_one(void)
{
	unsigned total = 0, pick, i;

	for (i = 0; i < NR_OPS; i++)
		total += ops[i].weight;
	pick = any(total);
	for (i = 0; pick >= ops[i].weight; i++)
		pick -= ops[i].weight;
	ops[i].fn();
}

/*
 * --- Processes ---
 */

static void enter(unsigned process)
{
	char name[16];

	snprintf(name, sizeof(name), "p%u", process);
	must(mkdir(name, 0700) == 0 && chdir(name) == 0, name);
	for (unsigned i = 0; i < NR_DIRS; i++) {
		snprintf(dirs[i].name, sizeof(dirs[i].name), "d%u", i);
		must(mkdir(dirs[i].name, 0700) == 0, "mkdir");
	}
	for (unsigned i = 0; i < NR_FILES; i++)
		files[i].fd = -1;
}

/* Nothing is left, or rmdir() would not work. */
static void leave(unsigned process)
{
	char name[16];

	snprintf(name, sizeof(name), "p%u", process);
	for (unsigned i = 0; i < MAX_LINKS; i++) {
		unsigned d = i / NR_NAMES, n = i % NR_NAMES;

		if (dirs[d].at[n])
			must(unlink(path_of(d, n).s) == 0, "unlink");
	}
	for (unsigned i = 0; i < NR_FILES; i++) {
		if (files[i].fd >= 0)
			close(files[i].fd);
	}
	for (unsigned i = 0; i < NR_DIRS; i++)
		must(rmdir(dirs[i].name) == 0, "rmdir");
	must(chdir("..") == 0 && rmdir(name) == 0, name);
}

/* A pair of numbers that are the same whenever nobody holds the lock. */
static void count(int fd, unsigned which)
{
	struct flock fl = {
		.l_type = F_WRLCK,
		.l_whence = SEEK_SET,
		.l_start = which * 16,
		.l_len = 16,
	};
	uint64_t pair[2];

	must(fcntl(fd, F_SETLKW, &fl) == 0, "lock");
	must(pread(fd, pair, 16, which * 16) == 16, "pread");
	if (pair[0] != pair[1])
		fail("somebody is in the locked range");
	for (unsigned i = 0; i < 2; i++) {
		pair[i]++;
		must(pwrite(fd, &pair[i], 8, which * 16 + i * 8) == 8,
		     "pwrite");
	}
	fl.l_type = F_UNLCK;
	must(fcntl(fd, F_SETLK, &fl) == 0, "unlock");
}

static void count_all(void)
{
	int fd = open("counts", O_RDWR);

	must(fd >= 0, "counts");
	for (unsigned i = 0; i < NR_ROUNDS * NR_COUNTS; i++)
		count(fd, any(NR_COUNTS));
	close(fd);
}

static void run(unsigned process, uint64_t first_seed, unsigned nr)
{
	seed = first_seed + process;
	rng = seed * 0x9e3779b97f4a7c15u;
	enter(process);
	for (nr_done = 0; nr_done < nr; nr_done++) {
		history[nr_done % NR_LOG][0] = '\0';
		do_one();
	}
	leave(process);
	note("count under locks");
	count_all();
	printf("fsx: seed %llu: %u operations, %u of them not to be had here\n",
	       (unsigned long long)seed, nr, nr_refused);
	fflush(stdout);
}

static bool all_well(unsigned nr)
{
	bool well = true;
	int status;

	while (nr-- > 0) {
		wait(&status);
		if (WIFSIGNALED(status))
			fprintf(stderr, "fsx: a process: %s\n",
				strsignal(WTERMSIG(status)));
		well &= status == 0;
	}
	return well;
}

static bool counted(unsigned nr)
{
	uint64_t pair[NR_COUNTS][2], sum = 0;
	int fd = open("counts", O_RDONLY);

	must(fd >= 0 && read(fd, pair, sizeof(pair)) == sizeof(pair), "counts");
	close(fd);
	for (unsigned i = 0; i < NR_COUNTS; i++)
		sum += pair[i][0];
	if (sum == (uint64_t)nr * NR_ROUNDS * NR_COUNTS)
		return true;
	fprintf(stderr, "fsx: %llu counts\n", (unsigned long long)sum);
	return false;
}

int main(int argc, char **argv)
{
	static const uint64_t zeros[NR_COUNTS][2];
	unsigned nr = 1000, nr_procs = 1;
	uint64_t first_seed = 1;
	int opt, fd;

	while ((opt = getopt(argc, argv, "s:n:p:x:")) != -1) {
		if (opt == 's')
			first_seed = strtoull(optarg, NULL, 0);
		else if (opt == 'n')
			nr = (unsigned)strtoul(optarg, NULL, 0);
		else if (opt == 'p')
			nr_procs = (unsigned)strtoul(optarg, NULL, 0);
		else if (opt != 'x' || !leave_out(optarg))
			optind = argc;
	}
	if (optind != argc - 1) {
		fputs("usage: fsx [-s SEED] [-n OPERATIONS] [-p PROCESSES] "
		      "[-x KIND,...] DIR\n",
		      stderr);
		return 2;
	}
	umask(0);
	must(chdir(argv[optind]) == 0, argv[optind]);
	fd = open("counts", O_RDWR | O_CREAT | O_TRUNC, 0600);
	must(fd >= 0 && write(fd, zeros, sizeof(zeros)) == sizeof(zeros),
	     "counts");
	close(fd);
	for (unsigned i = 0; i < nr_procs; i++) {
		pid_t pid = fork();

		must(pid >= 0, "fork");
		if (pid == 0) {
			run(i, first_seed, nr);
			return 0;
		}
	}
	return all_well(nr_procs) && counted(nr_procs) &&
			       unlink("counts") == 0 ?
		       0 :
		       1;
}

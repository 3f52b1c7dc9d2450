/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * libFuzzer: a session of requests, byte by byte as a guest may write them, on
 * a small tree that is made anew for each input.
 *
 * The first byte says which export: security model, read-only. Then requests:
 * two bytes with length and room for the reply, the type, the body. Some types
 * are more likely than chance would have it, some fids too: the first byte of
 * a body counts modulo 8 with the other three bytes zero.
 */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dev/p9/serve.h"

#define MAX_REQUESTS 64
#define ROOM         4096

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static const struct p9_params kinds[] = {
	{ .security = P9_NONE, .msize = P9_MAX_MSIZE },
	{ .security = P9_MAPPED, .msize = P9_MAX_MSIZE },
	{ .security = P9_NONE, .msize = P9_MAX_MSIZE, .ro = true },
	{ .security = P9_NONE,
	  .msize = P9_MAX_MSIZE,
	  .uids = { .range = { { 0, 0, 10 } }, .nr = 1 } },
};
#define NR_KINDS (sizeof(kinds) / sizeof(kinds[0]))

static struct p9_fs *exports[NR_KINDS];
static char root[] = "/tmp/viodev-9p-fuzz-XXXXXX";
static char path[64], secret[64];
static struct p9_req req;

/* The thread that may wait. */
static sem_t begin, end;

static void *worker(void *arg)
{
	for (size_t i = 0; i < NR_KINDS; i++)
		p9_thread_init(exports[i]);
	sem_post(&end);
	for (;;) {
		sem_wait(&begin);
		p9_req_run(&req);
		sem_post(&end);
	}
	return NULL;
}

static int remove_entry(const char *name, const struct stat *st, int flag,
			struct FTW *ftw)
{
	return ftw->level > 0 ? remove(name) : 0;
}

static void put_file(const char *name, const char *text)
{
	char file[96];
	int fd;

	snprintf(file, sizeof(file), "%s/%s", path, name);
	fd = open(file, O_WRONLY | O_CREAT | O_TRUNC, 0644);
	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		abort();
	close(fd);
}

static void make_tree(void)
{
	char name[96];

	nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
	put_file("f", "some text");
	snprintf(name, sizeof(name), "%s/d", path);
	mkdir(name, 0755);
	put_file("d/g", "more");
	snprintf(name, sizeof(name), "%s/l", path);
	if (symlink("../secret", name) < 0)
		abort();
}

static void check_secret(void)
{
	struct stat st;

	if (stat(secret, &st) < 0 || st.st_size != 3 || st.st_nlink != 1)
		abort();
}

static void clean_up(void)
{
	nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
	rmdir(path);
	unlink(secret);
	rmdir(root);
}

/* Once, and kept: every input begins a session anew. */
static void set_up(void)
{
	pthread_t thread;
	struct err err;

	if (!mkdtemp(root))
		abort();
	snprintf(path, sizeof(path), "%s/export", root);
	snprintf(secret, sizeof(secret), "%s/secret", root);
	if (mkdir(path, 0755) < 0)
		abort();
	put_file("../secret", "abc");
	atexit(clean_up);
	for (size_t i = 0; i < NR_KINDS; i++) {
		if (p9_fs_create(open(path, O_PATH | O_DIRECTORY),
				 open("/proc", O_PATH | O_DIRECTORY), &kinds[i],
				 &exports[i], &err) < 0)
			abort();
	}
	sem_init(&begin, 0, 0);
	sem_init(&end, 0, 0);
	if (pthread_create(&thread, NULL, worker, NULL) != 0)
		abort();
	sem_wait(&end);
}

static void serve(struct p9_fs *fs, uint8_t *msg, size_t len, size_t room)
{
	static uint8_t reply[ROOM];
	int ret;

	/* Cut where a guest may cut. */
	req.iov[0] = (struct iovec){ msg, len < 9 ? len : 9 };
	req.iov[1] = (struct iovec){ msg + req.iov[0].iov_len,
				     len - req.iov[0].iov_len };
	req.iov[2] = (struct iovec){ reply, room < 5 ? room : 5 };
	req.iov[3] = (struct iovec){ reply + req.iov[2].iov_len,
				     room - req.iov[2].iov_len };
	p9_req_init(&req, fs, 2, 2);
	if (!p9_req_try(&req)) {
		sem_post(&begin);
		sem_wait(&end);
	}
	ret = p9_req_reply(&req);
	if (ret > (int)room)
		abort();
}

static void step(struct p9_fs *fs, uint8_t type, const uint8_t *body,
		 size_t len, size_t room)
{
	static uint8_t msg[P9_HEADER + 512];
	struct p9_out out = { .buf = msg, .size = sizeof(msg) };

	p9_put32(&out, (uint32_t)(P9_HEADER + len));
	p9_put8(&out, type & 0x7e);
	p9_put16(&out, 1);
	p9_put_bytes(&out, body, len);
	/* A fid that is likely to be one. */
	if (len >= 4 && !(type & 0x80)) {
		msg[P9_HEADER] &= 7;
		memset(msg + P9_HEADER + 1, 0, 3);
	}
	if (type & 1) /* the framing, too */
		msg[0] ^= 0x15;
	serve(fs, msg, out.len, room);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static const uint8_t attach[] = { 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff,
					  0, 0, 0, 0, 0,    0,    0,    0 };
	struct p9_fs *fs;

	if (len < 1)
		return 0;
	if (!exports[0])
		set_up();
	fs = exports[data[0] % NR_KINDS];
	make_tree();
	p9_fs_restart(fs, 8192);
	step(fs, P9_TATTACH, attach, sizeof(attach), ROOM);
	data++;
	len--;
	for (unsigned i = 0; i < MAX_REQUESTS && len >= 3; i++) {
		size_t n = data[0], room = data[1] < 0x80 ? ROOM : data[1] & 63;

		if (n > len - 3)
			n = len - 3;
		step(fs, data[2], data + 3, n, room);
		data += 3 + n;
		len -= 3 + n;
	}
	p9_fs_restart(fs, 0);
	if (fs->nr_fids || fs->nr_nodes != 1 || fs->nr_files ||
	    fs->nr_fds != 1 || fs->xattr_bytes)
		abort(); /* a leak */
	check_secret();
	return 0;
}

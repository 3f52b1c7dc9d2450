/* SPDX-License-Identifier: BSD-2-Clause */
#include "dev/rng_file.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <viodev/loop.h>

#include "base/pool.h"
#include "base/util.h"

#define END_MS  500 /* for a read to end, on destroy */
#define POLL_MS 100 /* how soon a thread notices the end */

struct rng_file {
	int fd;
	void (*ready)(void *arg);
	void *arg;
	struct pool *pool;
	struct pool_job job;
	bool busy;   /* reading: the thread owns the rest */
	bool ending; /* also read by threads */
	bool ended;  /* end of input, */
	int error;   /* because of this */
	size_t off, len;
	struct rng_file *next_abandoned;
	char buf[RNG_FILE_BYTES];
};

/* A device that has nothing yet is waited for, but not for ever. */
static ssize_t read_once(struct rng_file *f)
{
	struct pollfd p = { .fd = f->fd, .events = POLLIN };
	ssize_t n;

	do {
		n = read(f->fd, f->buf + f->len, RNG_FILE_BYTES - f->len);
		if (n < 0 && errno == EAGAIN)
			poll(&p, 1, POLL_MS);
	} while (n < 0 && (errno == EINTR || errno == EAGAIN) &&
		 !__atomic_load_n(&f->ending, __ATOMIC_RELAXED));
	return n < 0 ? -errno : n;
}

static void job_run(void *arg, struct pool_job *job)
{
	struct rng_file *f = arg;
	ssize_t n;

	memmove(f->buf, f->buf + f->off, f->len - f->off);
	f->len -= f->off;
	f->off = 0;
	n = read_once(f);
	if (n > 0)
		f->len += (size_t)n;
	f->ended = n <= 0;
	f->error = n < 0 ? (int)n : 0;
}

static void job_done(void *arg, struct pool_job *job)
{
	struct rng_file *f = arg;

	f->busy = false;
	if (!f->ending)
		f->ready(f->arg);
}

int rng_file_fill(struct rng_file *f, size_t want)
{
	if (!f->busy && (f->ended || f->len - f->off >= want))
		return 0;
	if (!f->busy) {
		f->busy = true;
		pool_start(f->pool, &f->job);
	}
	return -EAGAIN;
}

ssize_t rng_file_take(struct rng_file *f, void *p, size_t len)
{
	size_t n = f->len - f->off;

	if (n == 0) {
		f->ended = false; /* a later read may find more */
		return f->error;
	}
	if (n > len)
		n = len;
	memcpy(p, f->buf + f->off, n);
	explicit_bzero(f->buf + f->off, n); /* no other reader gets them */
	f->off += n;
	return (ssize_t)n;
}

bool rng_file_needed(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && !S_ISFIFO(st.st_mode) &&
	       !S_ISSOCK(st.st_mode);
}

int rng_file_create(struct vio_loop *loop, int fd, void (*ready)(void *arg),
		    void *arg, struct rng_file **ret_file)
{
	static const struct pool_ops ops = { .run = job_run, .done = job_done };
	struct rng_file *f = calloc(1, sizeof(*f));
	int ret;

	if (!f)
		return -ENOMEM;
	f->fd = fd;
	f->ready = ready;
	f->arg = arg;
	ret = pool_create(loop, 1, &ops, f, &f->pool);
	if (ret < 0) {
		free(f);
		return ret;
	}
	*ret_file = f;
	return 0;
}

void rng_file_destroy(struct rng_file *f)
{
	static struct rng_file *abandoned; /* not a leak */

	if (!f)
		return;
	__atomic_store_n(&f->ending, true, __ATOMIC_RELAXED);
	if (!pool_finish(f->pool, END_MS)) { /* the thread still uses it */
		f->next_abandoned = abandoned;
		abandoned = f;
		return;
	}
	free(f);
}

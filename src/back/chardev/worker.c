/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Ends that may block despite O_NONBLOCK: files, whose disk may be slow or
 * whose server may be down. Threads of a pool read and write them, through a
 * buffer for each end.
 *
 * Bytes to write are accepted once they are in the buffer. The next ones then
 * wait until these are written.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "back/chardev/chardev_impl.h"
#include <viodev/iov.h>
#include "base/pool.h"
#include "base/util.h"

#define BUFFER_BYTES (64u << 10)
#define NR_THREADS   4u  /* before others are busy */
#define END_MS       500 /* for writes to finish, on destruction */

struct chardev_io {
	struct pool *pool;
	struct chardev_io *next_abandoned;
};

struct chardev_worker {
	struct chardev_io *io;
	int fd;
	bool write;
	struct chardev *chardev; /* NULL: destroyed */
	bool busy;               /* a job runs; the thread owns the rest */
	int error;
	size_t off, len; /* what is left in the buffer */
	struct pool_job job;
	char buf[BUFFER_BYTES];
};

/*
 * --- On a thread ---
 */

static ssize_t move_some(struct chardev_worker *s)
{
	struct iovec iov = { s->buf + s->off, s->len - s->off };

	return s->write ? writev(s->fd, &iov, 1) : readv(s->fd, &iov, 1);
}

static void write_all(struct chardev_worker *s)
{
	while (s->off < s->len && s->error == 0) {
		ssize_t n = move_some(s);

		if (n >= 0)
			s->off += (size_t)n;
		else if (errno != EINTR)
			s->error = -errno;
	}
}

static void read_some(struct chardev_worker *s)
{
	ssize_t n;

	s->off = 0;
	s->len = BUFFER_BYTES;
	do {
		n = move_some(s);
	} while (n < 0 && errno == EINTR);
	s->error = n < 0 ? -errno : n == 0 ? -ENODATA : 0;
	s->len = n < 0 ? 0 : (size_t)n;
}

static void job_run(void *arg, struct pool_job *job)
{
	struct chardev_worker *s =
		container_of(job, struct chardev_worker, job);

	if (s->write)
		write_all(s);
	else
		read_some(s);
}

/*
 * --- On the loop's ---
 */

static void worker_free(struct chardev_worker *s)
{
	close(s->fd);
	free(s);
}

static void job_done(void *arg, struct pool_job *job)
{
	struct chardev_worker *s =
		container_of(job, struct chardev_worker, job);

	s->busy = false;
	if (s->write)
		s->off = s->len = 0;
	if (s->chardev)
		chardev_worker_done(s->chardev, s->write,
				    s->write ? s->error : 0);
	else
		worker_free(s);
}

static void begin(struct chardev_worker *s)
{
	s->busy = true;
	s->error = 0;
	pool_start(s->io->pool, &s->job);
}

bool chardev_may_block(int fd, bool write)
{
	struct stat st;

	if (fstat(fd, &st) < 0 || S_ISSOCK(st.st_mode))
		return false;
	if (S_ISREG(st.st_mode) || S_ISBLK(st.st_mode))
		return true;
	/* A polled end can be read; a write may need more room than it has */
	return write && !(fcntl(fd, F_GETFL) & O_NONBLOCK);
}

struct chardev_worker *chardev_worker_create(struct chardev *c, int take_fd,
					     bool write)
{
	struct chardev_worker *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->io = c->io;
	s->fd = take_fd;
	s->write = write;
	s->chardev = c;
	return s;
}

void chardev_worker_destroy(struct chardev_worker *s)
{
	if (!s)
		return;
	s->chardev = NULL;
	if (!s->busy)
		worker_free(s);
}

bool chardev_worker_busy(const struct chardev_worker *s)
{
	return s->busy;
}

ssize_t chardev_worker_read(struct chardev_worker *s, const struct iovec *iov,
			    int niov)
{
	size_t done = 0;

	if (s->busy)
		return -EAGAIN;
	if (s->off == s->len && s->error)
		return s->error == -ENODATA ? 0 : s->error;
	if (s->off == s->len) {
		begin(s);
		return -EAGAIN;
	}
	for (int i = 0; i < niov && s->off < s->len; i++) {
		size_t n = s->len - s->off;

		if (n > iov[i].iov_len)
			n = iov[i].iov_len;
		memcpy(iov[i].iov_base, s->buf + s->off, n);
		s->off += n;
		done += n;
	}
	return (ssize_t)done;
}

ssize_t chardev_worker_write(struct chardev_worker *s, const struct iovec *iov,
			     int niov)
{
	if (s->busy)
		return -EAGAIN;
	for (int i = 0; i < niov && s->len < BUFFER_BYTES; i++) {
		size_t n = BUFFER_BYTES - s->len;

		if (n > iov[i].iov_len)
			n = iov[i].iov_len;
		memcpy(s->buf + s->len, iov[i].iov_base, n);
		s->len += n;
	}
	if (s->len == 0)
		return 0;
	begin(s);
	return (ssize_t)s->len;
}

/*
 * --- The threads ---
 */

static const struct pool_ops jobs = {
	.run = job_run,
	.done = job_done,
};

int chardev_io_create(struct vio_loop *loop, unsigned nr_chardevs,
		      struct chardev_io **ret_io)
{
	struct chardev_io *io = calloc(1, sizeof(*io));
	int ret;

	if (!io)
		return -ENOMEM;
	ret = pool_create(loop,
			  nr_chardevs < NR_THREADS ? nr_chardevs : NR_THREADS,
			  &jobs, io, &io->pool);
	if (ret < 0) {
		free(io);
		return ret;
	}
	/* An end that blocks must not hold up others. */
	pool_may_grow(io->pool, POOL_MAX_THREADS);
	*ret_io = io;
	return 0;
}

void chardev_io_destroy(struct chardev_io *io)
{
	static struct chardev_io *abandoned; /* reachable: not a leak */

	if (!io)
		return;
	if (!pool_finish(io->pool, END_MS)) {
		io->next_abandoned = abandoned;
		abandoned = io;
		return;
	}
	free(io);
}

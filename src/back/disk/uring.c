/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The io_uring engine.
 *
 * A seccomp filter does not see what a ring does, so the ring itself is
 * restricted before it is enabled: four operations, on images alone. It has a
 * table of images, with room for later ones.
 */
#include <liburing.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>

#include <viodev/loop.h>

#include "back/disk/engine.h"
#include "base/util.h"

/*
 * Calls sent at once, and in flight. A ring of the small size takes two pages:
 * Linux counts them as memory locked by the user, at most 8 MiB by default, so
 * a thousand devices can each have a ring.
 */
#define SMALL_SQ 64u
#define SMALL_CQ 128u
#define MAX_SQ   256u

struct uring {
	struct io_uring ring;
	unsigned nr_running, max_running;
	unsigned nr_files;
	int *files; /* descriptors by place in the ring's table; -1: free */
	struct vio_loop *loop;
	struct vio_source *source;
	struct vio_poller poller;
	struct disk_calls todo;
};

static void fill_sqe(struct io_uring_sqe *sqe, struct disk_call *call)
{
	int file = call->img->file;

	switch (call->op) {
	case CALL_READ:
		io_uring_prep_readv(sqe, file, call->iov, (unsigned)call->niov,
				    call->off);
		break;
	case CALL_WRITE:
		io_uring_prep_writev(sqe, file, call->iov, (unsigned)call->niov,
				     call->off);
		break;
	case CALL_FLUSH:
		io_uring_prep_fsync(sqe, file, IORING_FSYNC_DATASYNC);
		break;
	case CALL_ZERO:
	case CALL_UNMAP:
	case CALL_DISCARD: /* of a file */
		io_uring_prep_fallocate(sqe, file,
					disk_call_fallocate_mode(call),
					(off_t)call->off, (off_t)call->len);
		break;
	case CALL_SIZE: /* is not for this engine */
		break;
	}
	sqe->flags |= IOSQE_FIXED_FILE;
	io_uring_sqe_set_data(sqe, call);
}

static void reap(struct uring *u)
{
	struct io_uring_cqe *cqe;

	while (io_uring_peek_cqe(&u->ring, &cqe) == 0) {
		struct disk_call *call = io_uring_cqe_get_data(cqe);
		int result = cqe->res;

		io_uring_cqe_seen(&u->ring, cqe);
		u->nr_running--;
		disk_call_done(call, result);
	}
}

static void uring_ready(void *arg, uint32_t events)
{
	struct uring *u = arg;

	reap(u);
	if (u->todo.first) /* there was no room for it */
		disk_engine_has_room(u->todo.first->img->engine);
}

static bool uring_poll(void *arg)
{
	struct uring *u = arg;

	if (!io_uring_cq_ready(&u->ring))
		return false;
	uring_ready(u, EPOLLIN);
	return true;
}

static void unwatch(struct uring *u)
{
	vio_poller_remove(u->loop, &u->poller);
	vio_source_remove(u->source);
}

static void uring_start(void *engine, struct disk_call *call)
{
	struct uring *u = engine;

	disk_calls_add(&u->todo, call);
}

/* Move calls to the submission ring until one of both ends. */
static void fill_ring(struct uring *u)
{
	while (u->todo.first) {
		struct disk_call *call = u->todo.first;
		struct io_uring_sqe *sqe;

		if (disk_call_forgotten(call)) {
			disk_calls_take(&u->todo);
			disk_call_done(call, -ECANCELED);
			continue;
		}
		if (u->nr_running == u->max_running)
			return;
		sqe = io_uring_get_sqe(&u->ring);
		if (!sqe)
			return;
		disk_calls_take(&u->todo);
		fill_sqe(sqe, call);
		u->nr_running++;
	}
}

static int uring_submit(void *engine)
{
	struct uring *u = engine;
	int ret;

	do {
		fill_ring(u);
		ret = io_uring_sq_ready(&u->ring) ? io_uring_submit(&u->ring) :
						    0;
	} while (ret > 0 && u->todo.first);
	/* What is in the page cache is there already. */
	reap(u);
	if (ret < 0 && ret != -EINTR)
		return ret;
	if (io_uring_sq_ready(&u->ring))
		return 1;
	return u->todo.first && u->nr_running < u->max_running;
}

static void uring_wait(void *engine, int timeout_ms)
{
	struct uring *u = engine;
	struct io_uring_cqe *cqe;
	struct __kernel_timespec ts = {
		.tv_sec = timeout_ms / 1000,
		.tv_nsec = timeout_ms % 1000 * 1000000LL,
	};

	io_uring_wait_cqe_timeout(&u->ring, &cqe, &ts);
	reap(u);
}

static int restrict_ring(struct uring *u)
{
	struct io_uring_restriction res[] = {
		{ IORING_RESTRICTION_SQE_OP, { IORING_OP_READV } },
		{ IORING_RESTRICTION_SQE_OP, { IORING_OP_WRITEV } },
		{ IORING_RESTRICTION_SQE_OP, { IORING_OP_FSYNC } },
		{ IORING_RESTRICTION_SQE_OP, { IORING_OP_FALLOCATE } },
		{ IORING_RESTRICTION_SQE_FLAGS_REQUIRED, { IOSQE_FIXED_FILE } },
		{ IORING_RESTRICTION_REGISTER_OP, { IORING_UNREGISTER_FILES } },
		{ IORING_RESTRICTION_REGISTER_OP,
		  { IORING_REGISTER_FILES_UPDATE } },
	};
	const unsigned nr = ARRAY_LEN(res);
	unsigned fd = (unsigned)u->ring.ring_fd;
	int ret = io_uring_register_files(&u->ring, u->files, u->nr_files);

	/* liburing 2.3 declares functions for these, but has none. */
	if (ret == 0)
		ret = io_uring_register(fd, IORING_REGISTER_RESTRICTIONS, res,
					nr);
	if (ret == 0)
		ret = io_uring_register(fd, IORING_REGISTER_ENABLE_RINGS, NULL,
					0);
	return ret;
}

static int uring_add(void *engine, int fd)
{
	struct uring *u = engine;
	unsigned i = 0;
	int ret;

	while (i < u->nr_files && u->files[i] >= 0)
		i++;
	if (i == u->nr_files)
		return -ENOSPC;
	ret = io_uring_register_files_update(&u->ring, i, &fd, 1);
	if (ret < 0)
		return ret;
	u->files[i] = fd;
	return (int)i;
}

static void uring_remove(void *engine, int file)
{
	struct uring *u = engine;

	u->files[file] = -1;
	io_uring_register_files_update(&u->ring, (unsigned)file,
				       &u->files[file], 1);
}

static bool is_memory_scarce(void)
{
	struct rlimit limit;

	return getrlimit(RLIMIT_MEMLOCK, &limit) < 0 ||
	       limit.rlim_cur != RLIM_INFINITY;
}

static int init_ring(struct uring *u, unsigned depth)
{
	const unsigned flags = IORING_SETUP_R_DISABLED | IORING_SETUP_CQSIZE |
			       IORING_SETUP_CLAMP;
	bool small = is_memory_scarce();
	unsigned most = small ? SMALL_SQ : MAX_SQ;
	unsigned nr_sqes = depth < most ? depth : most;
	/* A sync of each as well. */
	unsigned nr_cqes = small ? SMALL_CQ : depth + u->nr_files;
	struct io_uring_params p = {
		.flags = flags | IORING_SETUP_COOP_TASKRUN,
		.cq_entries = nr_cqes,
	};
	int ret = io_uring_queue_init_params(nr_sqes, &u->ring, &p);

	if (ret == -EINVAL) { /* before Linux 5.19 */
		p = (struct io_uring_params){
			.flags = flags,
			.cq_entries = nr_cqes,
		};
		ret = io_uring_queue_init_params(nr_sqes, &u->ring, &p);
	}
	u->max_running = p.cq_entries;
	return ret;
}

static int uring_create(struct vio_loop *loop, unsigned depth,
			unsigned nr_disks, void **ret_engine)
{
	struct uring *u = calloc(1, sizeof(*u));
	int ret = -ENOMEM;

	if (!u)
		return ret;
	u->nr_files = nr_disks;
	u->files = malloc(nr_disks * sizeof(*u->files));
	if (!u->files)
		goto bad;
	memset(u->files, -1, nr_disks * sizeof(*u->files));
	disk_calls_init(&u->todo);
	ret = init_ring(u, depth);
	if (ret < 0)
		goto bad;
	ret = restrict_ring(u);
	if (ret == 0)
		ret = vio_fd_add(loop, u->ring.ring_fd, EPOLLIN, uring_ready, u,
				 &u->source);
	if (ret < 0)
		goto bad_ring;
	u->loop = loop;
	u->poller = (struct vio_poller){ .poll = uring_poll, .arg = u };
	vio_poller_add(loop, &u->poller);
	*ret_engine = u;
	return 0;
bad_ring:
	io_uring_queue_exit(&u->ring);
bad:
	free(u->files);
	free(u);
	return ret;
}

static void uring_abandon(void *engine)
{
	unwatch(engine);
}

static void uring_destroy(void *engine)
{
	struct uring *u = engine;

	unwatch(u);
	/* A ring winds up some time later; images are let go of now. */
	io_uring_unregister_files(&u->ring);
	io_uring_queue_exit(&u->ring);
	free(u->files);
	free(u);
}

const struct disk_engine_ops disk_uring = {
	.name = "io_uring",
	.max_inline = 4,
	.create = uring_create,
	.destroy = uring_destroy,
	.abandon = uring_abandon,
	.add = uring_add,
	.remove = uring_remove,
	.start = uring_start,
	.submit = uring_submit,
	.wait = uring_wait,
};

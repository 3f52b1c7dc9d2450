/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Disks, and who works for them: made and destroyed.
 *
 * A disk lives until the kernel has let go of it, for a descriptor must not be
 * another file's while a thread is about to use it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "back/disk/impl.h"

#define END_NS UINT64_C(500000000) /* for requests to end, at the end */

/*
 * --- Who works ---
 */

static int create_engine(struct disk_io *io, unsigned depth, unsigned nr_disks)
{
	int ret = disk_uring.create(io->loop, depth, nr_disks, &io->engine);

	io->ops = &disk_uring;
	if (ret == 0)
		return 0;
	io->uring_error = ret;
	io->ops = &disk_threads;
	return disk_threads.create(io->loop, depth, nr_disks, &io->engine);
}

static void free_io(struct disk_io *io)
{
	vio_source_remove(io->again_timer);
	if (io->slow)
		disk_threads.destroy(io->slow);
	if (io->engine)
		io->ops->destroy(io->engine);
	free(io);
}

int disk_io_create(struct vio_loop *loop, unsigned depth, unsigned nr_disks,
		   struct disk_io **ret_io)
{
	struct disk_io *io = calloc(1, sizeof(*io));
	int ret;

	if (!io)
		return -ENOMEM;
	io->loop = loop;
	disk_calls_init(&io->again);
	ret = vio_timer_add(loop, disk_calls_again, io, &io->again_timer);
	if (ret == 0)
		ret = create_engine(io, depth, nr_disks);
	if (ret == 0)
		ret = disk_threads.create(loop, 1, nr_disks, &io->slow);
	if (ret < 0) {
		free_io(io);
		return ret;
	}
	*ret_io = io;
	return 0;
}

/* Free what has ended; false: not all has. */
static bool free_gone(struct disk_io *io)
{
	struct disk *next;

	for (struct disk *d = io->gone; d; d = next) {
		next = d->next;
		disk_reqs_init(&d->dropped);
		disk_maybe_free(d);
	}
	return !io->gone;
}

static void wait_for_gone(struct disk_io *io)
{
	uint64_t end = vio_now_ns() + END_NS;

	disk_calls_give_up(io);
	while (!free_gone(io) && vio_now_ns() < end) {
		io->ops->submit(io->engine);
		disk_threads.wait(io->slow, 0);
		io->ops->wait(io->engine, 10);
	}
}

static void abandon(struct disk_io *io)
{
	for (struct disk *d = io->gone; d; d = d->next)
		vio_task_cancel(d->loop, &d->submit_task);
	vio_source_remove(io->again_timer);
	io->ops->abandon(io->engine);
	disk_threads.abandon(io->slow);
}

bool disk_io_destroy(struct disk_io *io)
{
	static struct disk_io *abandoned; /* lest they count as leaks */

	if (!io)
		return true;
	io->ending = true;
	wait_for_gone(io);
	if (!io->gone) {
		free_io(io);
		return true;
	}
	abandon(io);
	abandoned = io;
	return !abandoned;
}

/*
 * --- A disk ---
 */

static int create_bounce(struct disk *d)
{
	d->bounce = aligned_alloc(DISK_PAGE_BYTES, DISK_BOUNCE_BYTES);
	if (!d->bounce)
		return -ENOMEM;
	/* Nothing of the heap's is ever to reach the image. */
	memset(d->bounce, 0, DISK_BOUNCE_BYTES);
	return 0;
}

static int add_to_io(struct disk *d)
{
	int file = d->ops->add(d->engine, d->img.fd);

	if (file < 0)
		return file;
	d->img.file = file;
	d->img.info.engine = d->ops->name;
	d->img.info.uring_error = d->io->uring_error;
	return 0;
}

static void submit_task(void *arg)
{
	struct disk *d = arg;

	disk_submit(d);
	disk_maybe_free(d);
}

static void drop_task(void *arg)
{
	disk_tell_dropped(arg);
}

static void init(struct disk *d, struct disk_io *io,
		 const struct disk_params *params)
{
	d->io = io;
	d->loop = io->loop;
	d->ops = io->ops;
	d->engine = io->engine;
	d->writethrough = params->cache == DISK_WRITETHROUGH;
	d->nowait = params->cache != DISK_DIRECT;
	d->on_read_error = params->on_read_error;
	d->on_write_error = params->on_write_error;
	d->watch_fd = -1;
	d->size_to = CALL_LOOK;
	disk_reqs_init(&d->held);
	disk_reqs_init(&d->failed);
	disk_reqs_init(&d->dropped);
	disk_reqs_init(&d->sync_waiting);
	disk_reqs_init(&d->sync_served);
	d->submit_task = (struct vio_task){ .fn = submit_task, .arg = d };
	d->drop_task = (struct vio_task){ .fn = drop_task, .arg = d };
}

int disk_create(struct disk_io *io, int take_fd,
		const struct disk_params *params, struct disk **ret_disk,
		struct err *err)
{
	struct disk *d = calloc(1, sizeof(*d));
	int ret;

	if (!d)
		return err_set(err, -ENOMEM, "out of memory");
	init(d, io, params);
	ret = disk_image_init(&d->img, take_fd, params);
	if (ret == 0 && d->img.off_align > 1)
		ret = create_bounce(d);
	if (ret == 0)
		ret = add_to_io(d);
	if (ret < 0) {
		free(d->bounce);
		free(d);
		return err_set(err, ret, "path=%s: %s", params->path,
			       strerror(-ret));
	}
	*ret_disk = d;
	return 0;
}

static bool is_used(const struct disk *d)
{
	return d->nr_active > 0 || d->syncing || d->sizing || d->dropped.first;
}

void disk_maybe_free(struct disk *d)
{
	struct disk **link = &d->io->gone;

	if (!d->closing || is_used(d))
		return;
	while (*link != d)
		link = &(*link)->next;
	*link = d->next;
	vio_task_cancel(d->loop, &d->submit_task);
	vio_task_cancel(d->loop, &d->drop_task);
	d->ops->remove(d->engine, d->img.file);
	close(d->img.fd);
	free(d->bounce);
	free(d);
}

void disk_destroy(struct disk *d)
{
	if (!d)
		return;
	vio_source_remove(d->watch);
	vio_source_remove(d->watch_timer);
	if (d->watch_fd >= 0)
		close(d->watch_fd);
	d->notify = NULL;
	d->size_wanted = false;
	disk_forget(d);
	d->closing = true;
	d->next = d->io->gone;
	d->io->gone = d;
	disk_maybe_free(d);
}

const int disk_syscalls[] = { DISK_SYSCALLS, -1 };
const unsigned long disk_ioctls[] = { DISK_IOCTLS, 0 };

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Disks and the engine that they share: creation and destruction.
 *
 * A disk lives until the kernel no longer uses it: its descriptor must not
 * become another file's while a thread is about to use it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "back/disk/admission.h"

#define END_NS UINT64_C(500000000) /* for requests to complete */

/*
 * --- The engine ---
 */

static void free_io(struct disk_io *io)
{
	disk_engine_fini(&io->engine);
	free(io);
}

int disk_io_create(struct vio_loop *loop, unsigned depth, unsigned nr_disks,
		   struct disk_io **ret_io)
{
	struct disk_io *io = calloc(1, sizeof(*io));
	int ret;

	if (!io)
		return -ENOMEM;
	ret = disk_engine_init(&io->engine, loop, depth, nr_disks);
	if (ret < 0) {
		free_io(io);
		return ret;
	}
	*ret_io = io;
	return 0;
}

static bool is_used(const struct disk *d)
{
	return d->nr_active > 0 || d->exec.flushing || d->sizing ||
	       d->dropped.first;
}

/* Free a destroyed disk that nothing uses any more. */
static void maybe_free(struct disk *d)
{
	struct disk **link = &d->io->closing;

	if (!d->closing || is_used(d))
		return;
	while (*link != d)
		link = &(*link)->next;
	*link = d->next;
	vio_task_cancel(d->loop, &d->iteration_end);
	vio_task_cancel(d->loop, &d->drop_task);
	disk_exec_fini(&d->exec);
	close(d->exec.img.fd);
	free(d);
}

/* Free what has ended; false: not all has. */
static bool free_closing(struct disk_io *io)
{
	struct disk *next;

	for (struct disk *d = io->closing; d; d = next) {
		next = d->next;
		disk_reqs_init(&d->dropped);
		maybe_free(d);
	}
	return !io->closing;
}

static void wait_for_closing(struct disk_io *io)
{
	uint64_t end = vio_now_ns() + END_NS;

	disk_engine_give_up(&io->engine);
	while (!free_closing(io) && vio_now_ns() < end)
		disk_engine_wait(&io->engine, 10);
}

static void abandon(struct disk_io *io)
{
	for (struct disk *d = io->closing; d; d = d->next) {
		vio_task_cancel(d->loop, &d->iteration_end);
		vio_task_cancel(d->loop, &d->drop_task);
	}
	disk_engine_abandon(&io->engine);
}

bool disk_io_destroy(struct disk_io *io)
{
	static struct disk_io *abandoned; /* lest they count as leaks */

	if (!io)
		return true;
	io->ending = true;
	wait_for_closing(io);
	if (!io->closing) {
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

static void iteration_end(void *arg)
{
	disk_submit(arg);
	maybe_free(arg);
}

static void drop_task(void *arg)
{
	disk_complete_dropped(arg);
}

static void init(struct disk *d, struct disk_io *io,
		 const struct disk_params *params)
{
	d->io = io;
	d->loop = io->engine.loop;
	d->exec.done = disk_done;
	d->exec.iteration_end = &d->iteration_end;
	d->on_read_error = params->on_read_error;
	d->on_write_error = params->on_write_error;
	d->watch_fd = -1;
	d->size_to = CALL_LOOK;
	disk_reqs_init(&d->queued);
	disk_reqs_init(&d->failed);
	disk_reqs_init(&d->dropped);
	d->iteration_end = (struct vio_task){ .fn = iteration_end, .arg = d };
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
	ret = disk_image_init(&d->exec.img, take_fd, params);
	if (ret == 0)
		ret = disk_exec_init(&d->exec, d->loop, &io->engine, params);
	if (ret < 0) {
		free(d);
		return err_set(err, ret, "path=%s: %s", params->path,
			       strerror(-ret));
	}
	*ret_disk = d;
	return 0;
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
	d->next = d->io->closing;
	d->io->closing = d;
	maybe_free(d);
}

const int disk_syscalls[] = { DISK_SYSCALLS, -1 };
const unsigned long disk_ioctls[] = { DISK_IOCTLS, 0 };

/* SPDX-License-Identifier: BSD-2-Clause */
/* A disk's size: read, set and watched. */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "back/disk/admission.h"

#define WATCH_PAUSE_NS 1000000000ull
#define RESIZE_WAIT_MS 10 /* for an image that answers */

bool disk_odd_size(const struct disk *d, char *text, size_t size)
{
	const struct disk_info *info = &d->exec.img.info;
	unsigned long long data = info->data_bytes, all = info->bytes;
	unsigned unit = d->exec.img.unit_bytes;

	if (all > data)
		snprintf(text, size,
			 "size %llu is not a multiple of %u: %llu zero bytes "
			 "complete the last block",
			 data, unit, all - data);
	else
		snprintf(text, size,
			 "size %llu is not a multiple of %u: the last %llu "
			 "bytes are not used",
			 data, unit, data - all);
	return all != data;
}

void disk_get_info(const struct disk *d, struct disk_info *ret_info)
{
	*ret_info = d->exec.img.info;
}

static void set_bytes(struct disk *d, uint64_t bytes)
{
	struct disk_info *info = &d->exec.img.info;
	uint64_t before = info->bytes;

	disk_image_set_bytes(&d->exec.img, bytes);
	if (info->bytes != before && d->notify)
		d->notify(d->notify_arg, info->bytes);
}

/*
 * The image is queried beside the loop: one that does not answer, because its
 * file system is frozen or its server is down, does not block the loop.
 */
static void size_done(struct disk_call *call, int result)
{
	struct disk *d = container_of(call, struct disk, size_call);

	d->sizing = false;
	d->size_error = result;
	d->shrinking = d->size_wanted && d->shrinking;
	if (result == 0)
		set_bytes(d, call->off);
	disk_size_begin(d);
	disk_release_queued(d);
	if (d->closing)
		vio_task_defer(d->loop, &d->iteration_end);
}

void disk_size_begin(struct disk *d)
{
	if (!d->size_wanted || d->sizing || (d->shrinking && d->nr_active > 0))
		return;
	d->size_wanted = false;
	d->sizing = true;
	d->size_call = (struct disk_call){
		.img = &d->exec.img,
		.op = CALL_SIZE,
		.len = d->size_to,
		.shrink = d->size_shrink,
		.done = size_done,
	};
	d->size_to = CALL_LOOK;
	disk_engine_start(&d->size_call);
}

static void look_at_size(struct disk *d)
{
	d->size_wanted = true;
	disk_size_begin(d);
}

static int check_resize(const struct disk *d, uint64_t bytes, struct err *err)
{
	if (d->exec.img.is_bdev)
		return 0;
	if (d->exec.img.info.ro)
		return err_set(err, -EROFS, "the image is read-only");
	if (bytes == 0 || bytes % d->exec.img.unit_bytes)
		return err_set(err, -EINVAL,
			       "size is not a multiple of %u bytes",
			       d->exec.img.unit_bytes);
	if (bytes > INT64_MAX)
		return err_set(err, -EFBIG, "%s", strerror(EFBIG));
	return 0;
}

/* Most images answer at once; then so does the caller. */
static bool resized_soon(struct disk *d)
{
	if (d->sizing)
		disk_engine_wait_slow(&d->io->engine, RESIZE_WAIT_MS);
	return !d->sizing && !d->size_wanted;
}

static int would_cut(struct err *err)
{
	return err_set(err, -EEXIST,
		       "smaller than now: add --shrink to discard the data "
		       "beyond");
}

static int was_replaced(struct err *err)
{
	return err_set(err, -ESTALE,
		       "the image was replaced or removed, and the device "
		       "still has the old file: restart it");
}

/* What was reported so far is read before the file is looked at. */
static void read_events(struct disk *d)
{
	union {
		struct inotify_event event;
		char bytes[4096];
	} buf;
	ssize_t n;

	while ((n = read(d->watch_fd, &buf, sizeof(buf))) > 0) {
		const struct inotify_event *event = &buf.event;

		for (ssize_t at = 0; at < n;
		     at += (ssize_t)(sizeof(*event) + event->len)) {
			event = (const void *)(buf.bytes + at);
			d->renamed |= event->mask & IN_MOVE_SELF;
		}
	}
}

int disk_resize(struct disk *d, uint64_t bytes, bool shrink, struct err *err)
{
	int ret = check_resize(d, bytes, err);

	if (ret < 0)
		return ret;
	if (d->watch_fd >= 0)
		read_events(d);
	if (d->renamed) {
		look_at_size(d); /* other events may have been read */
		return was_replaced(err);
	}
	if (!d->exec.img.is_bdev) {
		if (!shrink && bytes < d->exec.img.info.bytes)
			return would_cut(err);
		d->size_to = bytes;
		d->size_shrink = shrink;
		d->shrinking = shrink && bytes < d->exec.img.info.bytes;
	}
	look_at_size(d);
	if (!resized_soon(d))
		return 1;
	ret = d->size_error;
	if (ret == -EEXIST)
		return would_cut(err);
	if (ret == -ESTALE)
		return was_replaced(err);
	return ret < 0 ? err_set(err, ret, "%s", strerror(-ret)) : 0;
}

void disk_set_notify(struct disk *d, void (*fn)(void *arg, uint64_t bytes),
		     void *arg)
{
	d->notify = fn;
	d->notify_arg = arg;
}

/*
 * A change of size is reported like any other modification, and our own writes
 * cause many: after one, ignore events for a while.
 */
static void watch_ready(void *arg, uint32_t events)
{
	struct disk *d = arg;

	vio_fd_set(d->watch, 0);
	vio_timer_set(d->watch_timer, WATCH_PAUSE_NS);
	look_at_size(d);
}

static void rewatch(void *arg)
{
	struct disk *d = arg;

	read_events(d);
	look_at_size(d);
	vio_fd_set(d->watch, EPOLLIN);
}

int disk_watch(struct disk *d, int take_fd)
{
	uint64_t bytes;
	int ret = vio_timer_add(d->loop, rewatch, d, &d->watch_timer);

	if (ret < 0)
		return ret;
	ret = vio_fd_add(d->loop, take_fd, EPOLLIN, watch_ready, d, &d->watch);
	if (ret < 0) {
		vio_source_remove(d->watch_timer);
		d->watch_timer = NULL;
		return ret;
	}
	d->watch_fd = take_fd;
	read_events(d); /* with our own look at the image, before all */
	if (disk_image_bytes(&d->exec.img, &bytes) == 0)
		set_bytes(d, bytes);
	return 0;
}

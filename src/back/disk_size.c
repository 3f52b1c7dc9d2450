/* SPDX-License-Identifier: BSD-2-Clause */
/* A disk's size: looked at, set, and watched. */
#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "back/disk_impl.h"

#define WATCH_PAUSE_NS 1000000000ull

void disk_get_info(const struct disk *d, struct disk_info *ret_info)
{
	*ret_info = d->img.info;
}

static int check_size(struct disk *d)
{
	uint64_t bytes;
	int ret = disk_image_bytes(&d->img, &bytes);

	if (ret < 0 || bytes == d->img.info.bytes)
		return ret;
	d->img.info.bytes = bytes;
	if (d->notify)
		d->notify(d->notify_arg, bytes);
	return 0;
}

int disk_resize(struct disk *d, uint64_t bytes, struct err *err)
{
	int ret;

	if (!d->img.is_bdev) {
		if (d->img.info.ro)
			return err_set(err, -EROFS, "the image is read-only");
		if (bytes == 0 || bytes % d->img.info.block_bytes)
			return err_set(err, -EINVAL,
				       "size is not a multiple of %u bytes",
				       d->img.info.block_bytes);
		/* A write that is under way would make the file long again. */
		disk_drain(d);
		if (bytes > INT64_MAX ||
		    ftruncate(d->img.fd, (off_t)bytes) < 0) {
			ret = bytes > INT64_MAX ? -EFBIG : -errno;
			return err_set(err, ret, "%s", strerror(-ret));
		}
	}
	ret = check_size(d);
	if (ret < 0)
		return err_set(err, ret, "%s", strerror(-ret));
	return 0;
}

void disk_set_notify(struct disk *d, void (*fn)(void *arg, uint64_t bytes),
		     void *arg)
{
	d->notify = fn;
	d->notify_arg = arg;
}

/*
 * A change of size is reported as any other modification, of which our own
 * writes make many: after one, look away for a while.
 */
static void watch_ready(void *arg, uint32_t events)
{
	struct disk *d = arg;

	ev_fd_set(d->watch, 0);
	ev_timer_set(d->watch_timer, WATCH_PAUSE_NS);
	check_size(d);
}

/* What was reported so far is read before the file is looked at. */
static void catch_up(struct disk *d)
{
	char events[4096];

	while (read(d->watch_fd, events, sizeof(events)) > 0)
		;
	check_size(d);
}

static void watch_again(void *arg)
{
	struct disk *d = arg;

	catch_up(d);
	ev_fd_set(d->watch, EPOLLIN);
}

int disk_watch(struct disk *d, int take_fd)
{
	int ret = ev_timer_add(d->loop, watch_again, d, &d->watch_timer);

	if (ret < 0)
		return ret;
	ret = ev_fd_add(d->loop, take_fd, EPOLLIN, watch_ready, d, &d->watch);
	if (ret < 0) {
		ev_remove(d->watch_timer);
		d->watch_timer = NULL;
		return ret;
	}
	d->watch_fd = take_fd;
	catch_up(d); /* with our own look at the image, before all */
	return 0;
}

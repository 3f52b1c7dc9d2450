/* SPDX-License-Identifier: BSD-2-Clause */
/* Calls, and the engines that make them. See engine.h. */
#include "back/disk/engine.h"

#include <errno.h>

#define MIN_RETRY_NS UINT64_C(1000000)
#define MAX_RETRY_NS UINT64_C(1000000000)

/*
 * --- Calls ---
 */

bool disk_call_forgotten(const struct disk_call *call)
{
	return call->op != CALL_FLUSH && call->op != CALL_SIZE &&
	       __atomic_load_n(&call->img->forgetting, __ATOMIC_RELAXED);
}

/* Calls that io_uring lacks, and that must not block the loop. */
static bool is_slow(const struct disk_call *call)
{
	return call->op == CALL_SIZE ||
	       (call->op == CALL_DISCARD && call->img->is_bdev);
}

void disk_engine_start(struct disk_call *call)
{
	struct disk_engine *e = call->img->engine;

	if (call->img->is_null && call->op != CALL_SIZE)
		disk_null_start(e, call);
	else if (is_slow(call))
		disk_threads.start(e->slow, call);
	else
		e->ops->start(e->impl, call);
}

/*
 * --- Retries ---
 *
 * The delay doubles until a call succeeds.
 */

/* An armed timer is left alone: re-armed each time, it might never expire. */
static void arm_retry(struct disk_engine *e)
{
	uint64_t ns = e->retry_ns * 2;

	if (e->retry_armed)
		return;
	if (ns < MIN_RETRY_NS)
		ns = MIN_RETRY_NS;
	if (ns > MAX_RETRY_NS)
		ns = MAX_RETRY_NS;
	e->retry_ns = ns;
	e->retry_armed = true;
	vio_timer_set(e->retry_timer, ns);
}

static void restart(struct disk_call *call)
{
	if (disk_call_forgotten(call)) {
		call->done(call, -ECANCELED);
		return;
	}
	disk_engine_start(call);
	vio_task_defer(call->img->engine->loop,
		       &call->img->engine->submit_task);
}

static void on_retry_timer(void *arg)
{
	struct disk_engine *e = arg;
	struct disk_calls calls = e->retry;
	struct disk_call *call;

	e->retry_armed = false;
	if (calls.first) {
		disk_calls_init(&e->retry);
		while ((call = disk_calls_take(&calls)))
			restart(call);
	}
	if (e->ops->submit(e->impl) != 0)
		arm_retry(e);
}

void disk_engine_give_up(struct disk_engine *e)
{
	struct disk_call *call;

	while ((call = disk_calls_take(&e->retry)))
		call->done(call, -ECANCELED);
}

void disk_call_done(struct disk_call *call, int result)
{
	struct disk_engine *e = call->img->engine;

	if (result == -EINTR) {
		restart(call);
	} else if (result == -EAGAIN) {
		disk_calls_add(&e->retry, call);
		arm_retry(e);
	} else {
		if (result >= 0)
			e->retry_ns = 0;
		call->done(call, result);
	}
}

/*
 * --- Submitting and waiting ---
 */

void disk_engine_submit(struct disk_engine *e)
{
	int ret;

	vio_task_cancel(e->loop, &e->submit_task);
	ret = e->ops->submit(e->impl);
	if (ret < 0)
		arm_retry(e);
	if (ret > 0)
		vio_task_defer(e->loop, &e->submit_task);
}

static void on_submit_task(void *arg)
{
	disk_engine_submit(arg);
}

void disk_engine_has_room(struct disk_engine *e)
{
	vio_task_defer(e->loop, &e->submit_task);
}

void disk_engine_wait(struct disk_engine *e, int timeout_ms)
{
	disk_null_complete(e);
	e->ops->submit(e->impl);
	disk_threads.wait(e->slow, 0);
	e->ops->wait(e->impl, timeout_ms);
}

void disk_engine_wait_slow(struct disk_engine *e, int timeout_ms)
{
	disk_threads.wait(e->slow, timeout_ms);
}

/*
 * --- Create and destroy ---
 */

int disk_engine_add(struct disk_engine *e, struct disk_image *img)
{
	int file = e->ops->add(e->impl, img->fd);

	if (file < 0)
		return file;
	img->engine = e;
	img->file = file;
	img->info.engine = img->is_null ? "null" : e->ops->name;
	img->info.uring_error = e->uring_error;
	return 0;
}

void disk_engine_remove(struct disk_image *img)
{
	img->engine->ops->remove(img->engine->impl, img->file);
}

static int create_impl(struct disk_engine *e, unsigned depth, unsigned nr_disks)
{
	int ret = disk_uring.create(e->loop, depth, nr_disks, &e->impl);

	e->ops = &disk_uring;
	if (ret == 0)
		return 0;
	e->uring_error = ret;
	e->ops = &disk_threads;
	return disk_threads.create(e->loop, depth, nr_disks, &e->impl);
}

int disk_engine_init(struct disk_engine *e, struct vio_loop *loop,
		     unsigned depth, unsigned nr_disks)
{
	int ret;

	*e = (struct disk_engine){ .loop = loop };
	e->submit_task = (struct vio_task){ .fn = on_submit_task, .arg = e };
	disk_calls_init(&e->retry);
	disk_null_init(e);
	ret = vio_timer_add(loop, on_retry_timer, e, &e->retry_timer);
	if (ret == 0)
		ret = create_impl(e, depth, nr_disks);
	if (ret == 0)
		ret = disk_threads.create(loop, 1, nr_disks, &e->slow);
	return ret;
}

void disk_engine_fini(struct disk_engine *e)
{
	vio_task_cancel(e->loop, &e->submit_task);
	vio_task_cancel(e->loop, &e->null_task);
	vio_source_remove(e->retry_timer);
	if (e->slow)
		disk_threads.destroy(e->slow);
	if (e->impl)
		e->ops->destroy(e->impl);
}

void disk_engine_abandon(struct disk_engine *e)
{
	vio_task_cancel(e->loop, &e->submit_task);
	vio_task_cancel(e->loop, &e->null_task);
	vio_source_remove(e->retry_timer);
	e->ops->abandon(e->impl);
	disk_threads.abandon(e->slow);
}

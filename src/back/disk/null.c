/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The image that is none, to measure everything else with: a call completes at
 * the end of the loop's iteration and moves no data. What a read returns is
 * what its buffers held.
 */
#include "back/disk/engine.h"

static int result_of(const struct disk_call *call)
{
	uint64_t bytes = 0;

	if (call->op != CALL_READ && call->op != CALL_WRITE)
		return 0;
	for (int i = 0; i < call->niov; i++)
		bytes += call->iov[i].iov_len;
	return bytes < INT32_MAX ? (int)bytes : INT32_MAX;
}

void disk_null_complete(struct disk_engine *e)
{
	struct disk_calls calls = e->null;
	struct disk_call *call;

	if (!calls.first)
		return;
	disk_calls_init(&e->null);
	while ((call = disk_calls_take(&calls)))
		disk_call_done(call, result_of(call));
}

static void on_null_task(void *arg)
{
	disk_null_complete(arg);
}

void disk_null_init(struct disk_engine *e)
{
	e->null_task = (struct vio_task){ .fn = on_null_task, .arg = e };
	disk_calls_init(&e->null);
}

void disk_null_start(struct disk_engine *e, struct disk_call *call)
{
	disk_calls_add(&e->null, call);
	vio_task_defer(e->loop, &e->null_task);
}

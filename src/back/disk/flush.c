/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Disk requests: flushes, and writes that are to be stable. They wait here for
 * the next flush of the image, which serves all that came before it began. One
 * is made at a time: each failure of the medium is reported by just one such
 * call, and no other may report success beside it.
 */
#include <errno.h>

#include "back/disk/exec.h"

void exec_flush(struct disk_req *req)
{
	struct disk_exec *x = req->dr_exec;

	if (x->flush_error) {
		exec_end_final(req, x->flush_error);
	} else if (x->img.forgetting) {
		exec_end(req, -ECANCELED);
	} else {
		disk_reqs_add(&x->flush_waiting, req);
		vio_task_defer(x->loop, x->iteration_end);
	}
}

static void end_all(struct disk_reqs *reqs, int result)
{
	struct disk_req *req;

	while ((req = disk_reqs_take(reqs)))
		exec_end_final(req, result);
}

static void flush_done(struct disk_call *call, int result)
{
	struct disk_exec *x = container_of(call, struct disk_exec, flush_call);

	/*
	 * The kernel may have dropped what it could not write, and reports
	 * that only once: later flushes would prove nothing.
	 */
	if (result < 0)
		x->flush_error = result;
	end_all(&x->flush_served, x->flush_error);
	x->flushing = false;
	if (x->flush_error)
		end_all(&x->flush_waiting, x->flush_error);
	if (x->flush_waiting.first)
		vio_task_defer(x->loop, x->iteration_end);
}

void exec_begin_flush(struct disk_exec *x)
{
	disk_reqs_move(&x->flush_served, &x->flush_waiting);
	x->flushing = true;
	x->flush_call = (struct disk_call){
		.img = &x->img,
		.op = CALL_FLUSH,
		.done = flush_done,
	};
	disk_engine_start(&x->flush_call);
}

void exec_written(struct disk_req *req)
{
	if (req->dr_fua || req->dr_exec->writethrough)
		exec_flush(req);
	else
		exec_end(req, 0);
}

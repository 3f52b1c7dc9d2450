/* SPDX-License-Identifier: BSD-2-Clause */
/* Carrying out disk requests: which way one takes. See exec.h. */
#include "back/disk/exec.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static bool is_aligned(const struct disk_image *img, const struct disk_req *req)
{
	if ((req->dr_off | req->dr_len) & (img->off_align - 1))
		return false;
	if (req->dr_op != DISK_READ && req->dr_op != DISK_WRITE)
		return true;
	for (int i = 0; i < req->dr_niov; i++) {
		if ((uintptr_t)req->dr_iov[i].iov_base & (img->mem_align - 1) ||
		    req->dr_iov[i].iov_len & (img->off_align - 1))
			return false;
	}
	return true;
}

bool disk_exec_is_exclusive(const struct disk_exec *x,
			    const struct disk_req *req)
{
	return x->img.off_align > 1 && req->dr_op != DISK_FLUSH &&
	       req->dr_op != DISK_DISCARD && !is_aligned(&x->img, req);
}

void disk_exec_start(struct disk_req *req)
{
	req->dr_call.img = &req->dr_exec->img;
	switch (req->dr_op) {
	case DISK_READ:
	case DISK_WRITE:
		if (req->dr_exclusive)
			exec_bounce(req);
		else
			exec_rw(req);
		break;
	case DISK_FLUSH:
		exec_flush(req);
		break;
	case DISK_DISCARD:
		exec_discard(req);
		break;
	case DISK_WRITE_ZEROES:
		exec_write_zeroes(req);
		break;
	}
}

void exec_call(struct disk_req *req,
	       void (*done)(struct disk_call *call, int result))
{
	struct disk_exec *x = req->dr_exec;

	req->dr_call.done = done;
	if (disk_call_forgotten(&req->dr_call)) {
		exec_end(req, -ECANCELED);
		return;
	}
	disk_engine_start(&req->dr_call);
	vio_task_defer(x->loop, x->iteration_end);
}

void disk_exec_submit(struct disk_exec *x)
{
	x->nr_cached = 0;
	if (x->flush_waiting.first && !x->flushing)
		exec_begin_flush(x);
	disk_engine_submit(x->img.engine);
}

void disk_exec_set_forgetting(struct disk_exec *x, bool on)
{
	__atomic_store_n(&x->img.forgetting, on, __ATOMIC_RELAXED);
}

void disk_exec_take_waiting(struct disk_exec *x, struct disk_reqs *to)
{
	disk_reqs_move(to, &x->flush_waiting);
}

static int create_bounce(struct disk_exec *x)
{
	x->bounce = aligned_alloc(DISK_PAGE_BYTES, DISK_BOUNCE_BYTES);
	if (!x->bounce)
		return -ENOMEM;
	/* Nothing of the heap's is ever to reach the image. */
	memset(x->bounce, 0, DISK_BOUNCE_BYTES);
	return 0;
}

int disk_exec_init(struct disk_exec *x, struct vio_loop *loop,
		   struct disk_engine *engine, const struct disk_params *params)
{
	int ret = 0;

	x->loop = loop;
	x->writethrough = params->cache == DISK_WRITETHROUGH;
	disk_reqs_init(&x->flush_waiting);
	disk_reqs_init(&x->flush_served);
	if (x->img.off_align > 1)
		ret = create_bounce(x);
	if (ret == 0)
		ret = disk_engine_add(engine, &x->img);
	if (ret < 0)
		free(x->bounce);
	return ret;
}

void disk_exec_fini(struct disk_exec *x)
{
	disk_engine_remove(&x->img);
	free(x->bounce);
}

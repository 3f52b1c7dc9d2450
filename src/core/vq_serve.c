/* SPDX-License-Identifier: BSD-2-Clause */
/* The notify loop that device models share. See <viodev/virtio.h>. */
#include "core/core.h"

/*
 * Have later chains announced. A chain that the driver made available just
 * before was not, so look once more.
 */
static bool another_came(struct vqueue_info *vq)
{
	vq_kick_enable(vq);
	if (!vq_has_descs(vq))
		return false;
	vq_kick_disable(vq);
	return true;
}

enum vq_served vq_serve(struct vqueue_info *vq, unsigned budget,
			vq_serve_fn *serve, void *arg)
{
	enum vq_served served = VQ_MORE;

	vq_kick_disable(vq);
	while (served == VQ_MORE && budget-- > 0) {
		served = serve(arg, vq);
		if (served == VQ_IDLE && another_came(vq))
			served = VQ_MORE;
	}
	return served;
}

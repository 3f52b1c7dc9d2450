/* SPDX-License-Identifier: BSD-2-Clause */
/* All types of devices, a line each. */
#include "dev/devices.h"

const struct vdev_type *const vdev_types[] = {
	&vdev_block, &vdev_console, &vdev_input, &vdev_net,
	&vdev_rng,   &vdev_scsi,    &vdev_9p,    NULL,
};

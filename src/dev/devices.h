/* SPDX-License-Identifier: BSD-2-Clause */
/* The one export of each device's file. */
#ifndef DEV_DEVICES_H
#define DEV_DEVICES_H

#include "dev/vdev.h"

extern const struct vdev_type vdev_9p;
extern const struct vdev_type vdev_block;
extern const struct vdev_type vdev_console;
extern const struct vdev_type vdev_input;
extern const struct vdev_type vdev_net;
extern const struct vdev_type vdev_rng;
extern const struct vdev_type vdev_scsi;

#endif

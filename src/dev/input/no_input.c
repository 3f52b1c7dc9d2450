/* SPDX-License-Identifier: BSD-2-Clause */
/* The input device in a build without libevdev: its name alone. See input.c. */
#include "dev/devices.h"

static const struct opt_def no_opts[] = { { NULL } };

const struct vdev_type vdev_input = {
	.vt_name = "input",
	.vt_alias = "virtio-input",
	.vt_summary = "keyboard, mouse, tablet, touch screen",
	.vt_missing = "libevdev",
	.vt_opts = no_opts,
};

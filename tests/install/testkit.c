/* SPDX-License-Identifier: BSD-2-Clause */
/* The pretend driver as it is installed: it draws 64 bytes from an rng. */
#include <stdio.h>

#include <viodev/device.h>
#include <viodev/loop.h>
#include <viodev/test.h>

static struct vdrv d;

static void iterate(void *loop)
{
	vio_loop_iterate(loop, 0);
}

static int draw(enum vdrv_mode mode)
{
	struct vdrv_buf buf = { .len = 64, .flags = VDRV_W };
	struct vdrv_used used = { 0 };
	struct vio_loop *loop;
	struct vdev *dev;
	char why[256];

	vdrv_init(&d, mode);
	if (vio_loop_create(&loop) < 0 ||
	    vdev_new("rng", &d.pi, loop, &dev, why, sizeof(why)) < 0)
		return 1;
	d.idle = iterate;
	d.idle_arg = loop;
	if (!vdrv_start(&d, VI_BIT(VIRTIO_F_VERSION_1), 1))
		return 1;
	buf.gpa = vdrv_alloc(&d, buf.len, 1);
	vdrv_add(&d, 0, &buf, 1);
	vdrv_kick(&d, 0);
	if (!vdrv_used(&d, 0, &used))
		return 1;
	printf("%u bytes\n", used.len);
	vdev_destroy(dev);
	vio_loop_destroy(loop);
	vdrv_fini(&d);
	return 0;
}

int main(void)
{
	return draw(VDRV_MODERN) || draw(VDRV_LEGACY);
}

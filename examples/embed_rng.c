/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One of viodev's own devices inside a program, with no server: a VMM does the
 * same with libviodev. The toy guest draws random bytes from the rng device.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <viodev/device.h>
#include <viodev/gmem.h>
#include <viodev/loop.h>
#include <viodev/pci.h>
#include <viodev/virtio.h>

#include "toy_guest.h"

int main(void)
{
	uint8_t *ram = aligned_alloc(4096, RAM_BYTES);
	struct vring_used *used = (void *)(ram + USED);
	struct pci_devinst pi;
	struct vio_loop *loop;
	struct vdev *dev;
	struct gmem gm;
	char why[256];

	memset(ram, 0, RAM_BYTES);
	gm_init(&gm, NULL, NULL);
	gm_add(&gm, (gpa_t){ 0 }, RAM_BYTES, ram, GM_READ | GM_WRITE);
	pci_func_init(&pi, &toy_host, NULL, &gm);
	if (vio_loop_create(&loop) < 0)
		return 1;
	if (vdev_new("rng", &pi, loop, &dev, why, sizeof(why)) < 0) {
		fprintf(stderr, "%s\n", why);
		return 1;
	}
	guest_draws_entropy(&pi, ram);
	while (used->idx == 0) {
		vio_loop_iterate(loop, -1);
		if (toy_woken())
			pci_kick(&pi);
	}

	guest_prints_entropy(ram);
	printf("\n%u interrupt\n", nr_interrupts);

	vdev_destroy(dev);
	vio_loop_destroy(loop);
	pci_func_fini(&pi);
	gm_fini(&gm);
	free(ram);
	return 0;
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * viodev's own devices, ready made: what `viodev serve` serves, for a VMM that
 * wants one inside.
 *
 *	vdev_new("rng,rate=1M", pi, loop, &dev, why, sizeof(why));
 *
 * The device is on the PCI function afterwards: forward the guest's accesses
 * to pci_cfg_read() and the others of <viodev/pci.h>, and turn the loop.
 * `viodev devices` lists the types and their options.
 *
 * Threads: the loop's.
 */
#ifndef VIODEV_DEVICE_H
#define VIODEV_DEVICE_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

struct vio_loop;
struct pci_devinst;
struct vdev;

/*
 * Make a device from its text, TYPE[,key=value]... (the keys id and socket
 * mean nothing here). @pi comes from pci_func_init() and must outlive the device.
 * Returns 0, or -errno with a line that says why in @why.
 */
int vdev_new(const char *text, struct pci_devinst *pi, struct vio_loop *loop,
	     struct vdev **ret_dev, char *why, size_t why_len);

/*
 * What is in flight gets half a second; what the kernel works on after that
 * goes on, and its memory stays. NULL is fine.
 */
void vdev_destroy(struct vdev *dev);

#ifdef __cplusplus
}
#endif

#endif

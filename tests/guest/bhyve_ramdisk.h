/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef GUEST_BHYVE_RAMDISK_H
#define GUEST_BHYVE_RAMDISK_H

#include <viodev/virtio.h>

/* Put a RAM disk on @pi. It lives until the process ends. 0 or an errno. */
int pci_vtrd_init(struct pci_devinst *pi, virtio_mode_t mode, size_t bytes);

#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A device inside of a program, with no server: what a VMM does with
 * libviodev, down to a guest driver of thirty lines that stands in for the
 * guest. It gets random bytes from the rng device and prints them.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <linux/pci_regs.h>

#include <viodev/device.h>
#include <viodev/gmem.h>
#include <viodev/loop.h>
#include <viodev/pci.h>
#include <viodev/virtio.h>

#define RAM_BYTES 65536

/* Where the toy guest keeps its queue and its buffer. */
#define DESC   0x1000
#define AVAIL  0x2000
#define USED   0x3000
#define BUFFER 0x4000

static unsigned nr_interrupts;

static void on_msix(void *arg, unsigned vector, uint64_t addr, uint32_t data)
{
	nr_interrupts++; /* a VMM would write @data to @addr of the guest */
}

static const struct pci_host host = {
	.ph_msix = on_msix,
	.ph_owns_msix_table = true,
};

/* --- the toy guest: registers of the modern interface, virtio 4.1.4.3 --- */

static void common_write(struct pci_devinst *pi, unsigned reg, int size,
			 uint32_t val)
{
	pci_bar_write(pi, VIRTIO_MODERN_BAR, reg, size, val);
}

static void guest_draws_entropy(struct pci_devinst *pi, uint8_t *ram)
{
	struct vring_desc *desc = (void *)(ram + DESC);
	struct vring_avail *avail = (void *)(ram + AVAIL);
	struct virtio_softc *vs = pi->pi_arg;
	virtio_pci_capcfg_t *notify =
		vi_pci_cfg_bytype(vs, VIRTIO_PCI_CAP_NOTIFY_CFG);

	common_write(pi, VIRTIO_PCI_COMMON_STATUS, 1, 0);
	common_write(pi, VIRTIO_PCI_COMMON_STATUS, 1, 1 | 2);
	common_write(pi, VIRTIO_PCI_COMMON_GFSELECT, 4, 1);
	common_write(pi, VIRTIO_PCI_COMMON_GF, 4, 1 /* VERSION_1 */);
	common_write(pi, VIRTIO_PCI_COMMON_STATUS, 1, 1 | 2 | 8);

	common_write(pi, VIRTIO_PCI_COMMON_Q_SELECT, 2, 0);
	common_write(pi, VIRTIO_PCI_COMMON_Q_MSIX, 2, 1);
	common_write(pi, VIRTIO_PCI_COMMON_Q_DESCLO, 4, DESC);
	common_write(pi, VIRTIO_PCI_COMMON_Q_AVAILLO, 4, AVAIL);
	common_write(pi, VIRTIO_PCI_COMMON_Q_USEDLO, 4, USED);
	common_write(pi, VIRTIO_PCI_COMMON_Q_ENABLE, 2, 1);
	common_write(pi, VIRTIO_PCI_COMMON_STATUS, 1, 1 | 2 | 8 | 4);

	/* One buffer of 16 bytes for the device to fill, then the doorbell. */
	desc[0] = (struct vring_desc){ BUFFER, 16, VRING_DESC_F_WRITE, 0 };
	avail->ring[0] = 0;
	avail->idx = 1;
	pci_bar_write(pi, VIRTIO_MODERN_BAR, notify->c_baroff, 2, 0);
}

int main(void)
{
	uint8_t *ram = aligned_alloc(4096, RAM_BYTES);
	struct vring_used *used = (void *)(ram + USED);
	struct pci_devinst pi;
	struct vio_loop *loop;
	struct vdev *dev;
	struct gmem gm;
	unsigned cap;
	char why[256];

	memset(ram, 0, RAM_BYTES);
	gm_init(&gm, NULL, NULL);
	gm_add(&gm, (gpa_t){ 0 }, RAM_BYTES, ram, GM_READ | GM_WRITE);
	pci_func_init(&pi, &host, NULL, &gm);
	if (vio_loop_create(&loop) < 0)
		return 1;
	if (vdev_new("rng", &pi, loop, &dev, why, sizeof(why)) < 0) {
		fprintf(stderr, "%s\n", why);
		return 1;
	}
	/* The guest turns MSI-X on: the first capability is just that. */
	cap = pci_cfg_read(&pi, PCI_CAPABILITY_LIST, 1);
	pci_cfg_write(&pi, cap + PCI_MSIX_FLAGS, 2, PCI_MSIX_FLAGS_ENABLE);

	guest_draws_entropy(&pi, ram);
	while (used->idx == 0)
		vio_loop_turn(loop, -1);

	printf("%u random bytes:", used->ring[0].len);
	for (unsigned i = 0; i < used->ring[0].len; i++)
		printf(" %02x", ram[BUFFER + i]);
	printf("\n%u interrupt\n", nr_interrupts);

	vdev_destroy(dev);
	vio_loop_destroy(loop);
	pci_func_fini(&pi);
	gm_fini(&gm);
	free(ram);
	return 0;
}

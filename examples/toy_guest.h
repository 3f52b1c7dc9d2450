/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * For the examples that embed a device: the VMM's side of a PCI function, and a
 * guest driver of forty lines, which uses the registers of the modern interface,
 * virtio 4.1.4.3.
 */
#ifndef EXAMPLES_TOY_GUEST_H
#define EXAMPLES_TOY_GUEST_H

#include <endian.h>
#include <linux/pci_regs.h>
#include <stdio.h>

#include <viodev/pci.h>
#include <viodev/virtio.h>

#define RAM_BYTES 65536

/* Where the toy guest keeps its queue and its buffer. */
#define DESC   0x1000
#define AVAIL  0x2000
#define USED   0x3000
#define BUFFER 0x4000

static unsigned nr_interrupts;

static inline void on_msix(void *arg, unsigned vector, uint64_t addr,
			   uint32_t data)
{
	(void)arg, (void)vector, (void)addr, (void)data;
	nr_interrupts++; /* a VMM would write @data to @addr of the guest */
}

static bool woken;

/* A queue wants another look: not from here, from the VMM's own loop. */
static inline void on_wake(void *arg)
{
	(void)arg;
	__atomic_store_n(&woken, true, __ATOMIC_RELEASE); /* from any thread */
}

static inline bool toy_woken(void)
{
	return __atomic_exchange_n(&woken, false, __ATOMIC_ACQ_REL);
}

static const struct pci_host toy_host = {
	.ph_msix = on_msix,
	.ph_wake = on_wake,
	.ph_owns_msix_table = true,
};

static inline void common_write(struct pci_devinst *pi, unsigned reg, int size,
				uint32_t val)
{
	pci_bar_write(pi, VIRTIO_MODERN_BAR, reg, size, val);
}

/* MSI-X on, the device set up, and a buffer of 16 bytes for it to fill. */
static inline void guest_draws_entropy(struct pci_devinst *pi, uint8_t *ram)
{
	struct vring_desc *desc = (void *)(ram + DESC);
	struct vring_avail *avail = (void *)(ram + AVAIL);
	struct virtio_softc *vs = pi->pi_arg;
	virtio_pci_capcfg_t *notify =
		vi_pci_cfg_bytype(vs, VIRTIO_PCI_CAP_NOTIFY_CFG);
	unsigned cap = pci_cfg_read(pi, PCI_CAPABILITY_LIST, 1);

	/* The first capability is MSI-X. */
	pci_cfg_write(pi, cap + PCI_MSIX_FLAGS, 2, PCI_MSIX_FLAGS_ENABLE);

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
	desc[0] = (struct vring_desc){
		.addr = htole64(BUFFER),
		.len = htole32(16),
		.flags = htole16(VRING_DESC_F_WRITE),
	};
	avail->ring[0] = htole16(0);
	avail->idx = htole16(1);
	pci_bar_write(pi, VIRTIO_MODERN_BAR, notify->c_baroff, 2, 0);
}

/* What came back in the buffer. */
static inline void guest_prints_entropy(const uint8_t *ram)
{
	const struct vring_used *used = (const void *)(ram + USED);
	uint32_t len = le32toh(used->ring[0].len);

	printf("%u random bytes:", len);
	for (unsigned i = 0; i < len; i++)
		printf(" %02x", ram[BUFFER + i]);
}

#endif

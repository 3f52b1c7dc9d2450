/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The device side of virtio: the interface for device models.
 *
 * A device model is a struct that begins with a virtio_softc, a table of
 * constants and callbacks (virtio_consts), and its virtqueues (vqueue_info,
 * one each). The framework does the rest: it answers the guest's register
 * accesses, legacy and modern, negotiates features, checks and translates what
 * the driver makes available, and sends interrupts. Typical life cycle:
 *
 *	sc = calloc(1, sizeof(*sc));
 *	vi_softc_linkup(&sc->vs, &consts, sc, pi, sc->queues);
 *	sc->queues[0].vq_qsize = 128;		// a power of two, <= 32768
 *	vi_pci_init(pi, VIRTIO_MODE_TRANSITIONAL, 0x1005, 4, PCIC_CRYPTO);
 *	vi_intr_init(&sc->vs, true);
 *	vi_pcibar_setup(&sc->vs);
 *	...
 *	vc_qnotify(): vq_getchain() -> work -> vq_relchain(); vq_endchains()
 *	...
 *	vi_softc_fini(&sc->vs);
 *
 * A virtqueue is memory that driver and device share. The driver makes
 * *chains* of buffers available; the device takes a chain, reads its readable
 * buffers, then fills its writable ones, and gives it back as used:
 *
 *	driver                                              device
 *	  | -- descriptors, available ring, doorbell -->      | vq_getchain()
 *	  |                                                    | ... work ...
 *	  | <-- used ring entry (head, bytes written) --       | vq_relchain()
 *	  | <-- interrupt, when the driver asked for one --    | vq_endchains()
 *
 * Only the framework knows the layout of a ring (virtio 2.7). A device model
 * handles iovecs that are mapped and checked.
 *
 * A malicious guest cannot harm the host: a driver that breaks the rules of a
 * queue causes vi_error(), which stops the device until the driver resets it.
 *
 * Threads: the framework has none, and calls for one device never overlap.
 *
 *   vs_mtx NULL  All calls come from one thread, that of the loop. Others may
 *                use the buffers of chains that were taken, and call vi_wake().
 *   vs_mtx set   The framework holds it in every callback, also in vc_reset and
 *                vc_quiesce, but not in vc_update_msix and not always in
 *                vc_hv_features, which must not take it. A thread that holds
 *                it may call whatever is under "Virtqueues", vq_endchains()
 *                included, and vi_error(), vi_interrupt() and
 *                vq_devcfg_changed(). The model's own event callbacks and
 *                threads take it themselves.
 *
 * No callback may wait for a thread that takes vs_mtx or waits for a disk.
 * Where guest memory is not shared (gmem_ops), a server may answer register
 * reads while vq_getchain() waits for memory: vs_mtx must then be recursive, and
 * threads leave the chains to the loop's thread.
 *
 * The device, its constants and its queues are in <viodev/virtio_core.h>, which
 * this header includes; what follows here puts a device on a PCI function.
 *
 * Section numbers are those of virtio 1.4.
 */
#ifndef VIODEV_VIRTIO_H
#define VIODEV_VIRTIO_H

#include <viodev/pci.h>
#include <viodev/virtio_core.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * --- Identity ---
 */

#define VIRTIO_VENDOR 0x1AF4

/* Transitional PCI device ids (4.1.2.3), not derived from the virtio ids. */
#define VIRTIO_DEV_NET     0x1000
#define VIRTIO_DEV_BLOCK   0x1001
#define VIRTIO_DEV_CONSOLE 0x1003
#define VIRTIO_DEV_SCSI    0x1004
#define VIRTIO_DEV_RANDOM  0x1005
#define VIRTIO_DEV_9P      0x1009

/* An input device is never transitional: 0x1040 plus its virtio id (4.1.2.1). */
#define VIRTIO_DEV_INPUT 0x1052

#define VIRTIO_REV_INPUT    1
#define VIRTIO_SUBVEN_INPUT 0x108E
#define VIRTIO_SUBDEV_INPUT 0x1100

/* BARs. */
#define VIRTIO_LEGACY_BAR 0 /* I/O: legacy registers */
#define VIRTIO_MSIX_BAR   1 /* memory: MSI-X table and PBA */
#define VIRTIO_MODERN_BAR 2 /* 64-bit memory: modern structures */

/*
 * --- Set-up ---
 */

/*
 * Connect a device: constants, softc, PCI function, vc_nvq queues. All must
 * outlive the device. @dev_softc is @vs. If memory runs out, vi_intr_init() and
 * vi_pcibar_setup() return false.
 */
void vi_softc_linkup(struct virtio_softc *vs, struct virtio_consts *vc,
		     void *dev_softc, struct pci_devinst *pi,
		     struct vqueue_info *queues);

/*
 * PCI identity (4.1.2): @legacy_id is the transitional PCI device id, @device_id
 * the virtio one, @pci_class the base class. VIRTIO_MODE_MODERN ignores
 * @legacy_id: the PCI device id is 0x1040 + @device_id. A device type without a
 * transitional id must use that mode.
 */
void vi_pci_init(struct pci_devinst *pi, virtio_mode_t mode, uint16_t legacy_id,
		 uint16_t device_id, uint8_t pci_class);

/*
 * Interrupts: INTx and one MSI vector always; with @use_msix also MSI-X with a
 * vector for each queue and one for configuration changes. False when the
 * function cannot hold them.
 */
bool vi_intr_init(struct virtio_softc *vs, bool use_msix);

/* BARs and virtio capabilities of the mode given to vi_pci_init(). */
bool vi_pcibar_setup(struct virtio_softc *vs);

/* Free what the framework holds for the device (not in bhyve's). */
void vi_softc_fini(struct virtio_softc *vs);

/*
 * Capability look-ups; NULL when there is none. By type; by a range of config
 * space that lies inside the capability; by a range of a BAR that lies inside
 * the structure.
 */
virtio_pci_capcfg_t *vi_pci_cfg_bytype(struct virtio_softc *vs, uint8_t type);
virtio_pci_capcfg_t *vi_pci_cfg_bycapaddr(struct virtio_softc *vs,
					  uint32_t start, uint32_t size);
virtio_pci_capcfg_t *vi_pci_cfg_bybaraddr(struct virtio_softc *vs, uint8_t bar,
					  uint64_t start, uint32_t size);

/*
 * --- While it runs ---
 */

/*
 * The guest's accesses, as the PCI function forwards them: configuration space
 * (PE_CFGRW_* is returned) and BARs.
 */
int vi_pci_cfgread(struct pci_devinst *pi, int offset, int bytes,
		   uint32_t *retval);
int vi_pci_cfgwrite(struct pci_devinst *pi, int offset, int bytes,
		    uint32_t val);
uint64_t vi_pci_read(struct pci_devinst *pi, int baridx, uint64_t offset,
		     int size);
void vi_pci_write(struct pci_devinst *pi, int baridx, uint64_t offset, int size,
		  uint64_t value);

#ifdef __cplusplus
}
#endif

#endif

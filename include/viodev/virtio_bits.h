/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Names of the virtio interface.
 *
 * Most come from Linux's headers. This header adds what those lack: BSD names
 * that bhyve's virtio.h uses, and feature bits newer than the headers. As in
 * Linux, VIRTIO_F_* and VIRTIO_RING_F_* are bit numbers; VI_BIT() turns one
 * into a mask.
 */
#ifndef VIODEV_VIRTIO_BITS_H
#define VIODEV_VIRTIO_BITS_H

#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_pci.h>

/* vring_init() there is not valid C++. */
#if defined(__cplusplus) && !defined(VIRTIO_RING_NO_LEGACY)
#define VIRTIO_RING_NO_LEGACY
#include <linux/virtio_ring.h>
#undef VIRTIO_RING_NO_LEGACY
#else
#include <linux/virtio_ring.h>
#endif

#define VI_BIT(nr) (1ULL << (nr))

/* Device status, 2.1. */
#define VIRTIO_CONFIG_STATUS_RESET       0x00
#define VIRTIO_CONFIG_STATUS_ACK         VIRTIO_CONFIG_S_ACKNOWLEDGE
#define VIRTIO_CONFIG_STATUS_DRIVER      VIRTIO_CONFIG_S_DRIVER
#define VIRTIO_CONFIG_STATUS_DRIVER_OK   VIRTIO_CONFIG_S_DRIVER_OK
#define VIRTIO_CONFIG_STATUS_FEATURES_OK VIRTIO_CONFIG_S_FEATURES_OK
#define VIRTIO_CONFIG_STATUS_NEEDS_RESET VIRTIO_CONFIG_S_NEEDS_RESET
#define VIRTIO_CONFIG_STATUS_FAILED      VIRTIO_CONFIG_S_FAILED

/* ISR status, 4.1.4.5; Linux has the second. */
#define VIRTIO_PCI_ISR_INTR 0x1
#ifndef VIRTIO_PCI_ISR_CONFIG
#define VIRTIO_PCI_ISR_CONFIG 0x2
#endif

/* Reserved feature bits, 6. */
#ifndef VIRTIO_F_NOTIFICATION_DATA
#define VIRTIO_F_NOTIFICATION_DATA 38
#endif
#ifndef VIRTIO_F_RING_RESET
#define VIRTIO_F_RING_RESET 40
#endif

/* The most virtio capabilities that a function has. */
#define VIRTIO_PCI_CAP_MAX 8

/* The BSD name of VIRTIO_ID_RNG. */
#define VIRTIO_ID_ENTROPY VIRTIO_ID_RNG

/* PCI base classes, as vi_pci_init() takes them. */
#define PCIC_STORAGE    0x01
#define PCIC_NETWORK    0x02
#define PCIC_SIMPLECOMM 0x07
#define PCIC_INPUTDEV   0x09
#define PCIC_CRYPTO     0x10
#define PCIC_OTHER      0xff

#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A register file, described by a table, that is accessed at any width and
 * alignment: an access works on the bytes of each register that it touches and
 * on nothing else (virtio 4.1.3.1).
 */
#ifndef PCI_REGS_H
#define PCI_REGS_H

#include <stddef.h>
#include <stdint.h>

struct virtio_softc;

struct vi_reg {
	uint8_t off, size; /* 1, 2 or 4 bytes */
	const char *name;
	uint32_t (*read)(struct virtio_softc *vs);
	void (*write)(struct virtio_softc *vs, uint32_t val); /* NULL: ro */
};

/* Bytes that belong to no register read 0 and are dropped. */
uint64_t vi_regs_read(struct virtio_softc *vs, const struct vi_reg *regs,
		      size_t nr, uint64_t off, int size);
void vi_regs_write(struct virtio_softc *vs, const struct vi_reg *regs,
		   size_t nr, uint64_t off, int size, uint64_t val);

/* The vector that the driver requested, or NO_VECTOR if it does not exist. */
uint16_t vi_vector(struct virtio_softc *vs, uint32_t vector);

/* Read and clear ISR status. */
uint8_t vi_take_isr(struct virtio_softc *vs);

/* The register files: virtio_modern.c and virtio_legacy.c. */
int vi_modern_setup(struct virtio_softc *vs);
uint64_t vi_modern_read(struct virtio_softc *vs, uint64_t off, int size);
void vi_modern_write(struct virtio_softc *vs, uint64_t off, int size,
		     uint64_t val);
int vi_legacy_setup(struct virtio_softc *vs);
uint64_t vi_legacy_read(struct virtio_softc *vs, uint64_t off, int size);
void vi_legacy_write(struct virtio_softc *vs, uint64_t off, int size,
		     uint64_t val);

#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/* Register files by table. See regs.h. */
#include <viodev/virtio.h>

#include <syslog.h>

#include "core/core.h"
#include "pci/regs.h"

/* The bytes that an access and a register have in common. */
struct overlap {
	unsigned reg_shift; /* bits from the register's start */
	unsigned acc_shift; /* bits from the access's start */
	uint64_t mask;      /* of as many bytes */
};

static bool overlaps(const struct vi_reg *r, uint64_t off, int size,
		     struct overlap *ret)
{
	uint64_t end = off + (uint64_t)size;
	uint64_t first = off > r->off ? off : r->off;
	uint64_t last = end < (uint64_t)r->off + r->size ?
				end :
				(uint64_t)r->off + r->size;

	if (first >= last)
		return false;
	*ret = (struct overlap){
		.reg_shift = 8 * (unsigned)(first - r->off),
		.acc_shift = 8 * (unsigned)(first - off),
		.mask = (1ull << (8 * (last - first))) - 1,
	};
	return true;
}

uint16_t vi_vector(struct virtio_softc *vs, uint32_t vector)
{
	if (vector >= pci_msix_count(vs->vs_pi))
		return VIRTIO_MSI_NO_VECTOR;
	return (uint16_t)vector;
}

uint8_t vi_take_isr(struct virtio_softc *vs)
{
	uint8_t isr = vs->vs_isr;

	vs->vs_isr = 0;
	pci_lintr_deassert(vs->vs_pi);
	return isr;
}

uint64_t vi_regs_read(struct virtio_softc *vs, const struct vi_reg *regs,
		      size_t nr, uint64_t off, int size)
{
	uint64_t val = 0;

	for (size_t i = 0; i < nr; i++) {
		struct overlap o;
		uint32_t reg;

		if (!overlaps(&regs[i], off, size, &o))
			continue;
		reg = regs[i].read(vs);
		vs_log(vs, LOG_DEBUG, "read %s = 0x%x", regs[i].name, reg);
		val |= ((reg >> o.reg_shift) & o.mask) << o.acc_shift;
	}
	return val;
}

void vi_regs_write(struct virtio_softc *vs, const struct vi_reg *regs,
		   size_t nr, uint64_t off, int size, uint64_t val)
{
	for (size_t i = 0; i < nr; i++) {
		const struct vi_reg *r = &regs[i];
		struct overlap o;
		uint64_t reg = 0;

		if (!r->write || !overlaps(r, off, size, &o))
			continue;
		if (o.mask != (1ull << (8 * r->size)) - 1)
			reg = r->read(vs) & ~(o.mask << o.reg_shift);
		reg |= ((val >> o.acc_shift) & o.mask) << o.reg_shift;
		vs_log(vs, LOG_DEBUG, "write %s = 0x%x", r->name,
		       (uint32_t)reg);
		r->write(vs, (uint32_t)reg);
	}
}

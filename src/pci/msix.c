/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Interrupts of a PCI function: MSI-X with table and pending bits, MSI with
 * one vector, the INTA pin. See <viodev/pci.h>. Section numbers are those of
 * PCI 3.0.
 */
#include <errno.h>
#include <linux/pci_regs.h>
#include <stdlib.h>
#include <string.h>

#include "base/le.h"
#include "pci/func.h"

#define ENTRY_BYTES  PCI_MSIX_ENTRY_SIZE
#define ENTRY_MASKED PCI_MSIX_ENTRY_CTRL_MASKBIT

static uint64_t pba_off(const struct pci_devinst *pi)
{
	uint64_t table = (uint64_t)pi->pi_nr_msix * ENTRY_BYTES;

	/* On its own page, as 6.8.2 advises. */
	return (table + 4095) & ~4095ull;
}

static uint64_t pba_bytes(const struct pci_devinst *pi)
{
	return 8ull * ((pi->pi_nr_msix + 63) / 64);
}

int pci_add_msix(struct pci_devinst *pi, unsigned nr, int bar)
{
	struct {
		uint8_t id, next;
		le16 ctrl;
		le32 table, pba;
	} cap = { .id = PCI_CAP_ID_MSIX };
	int ret, off;

	if (nr == 0 || nr > PCI_MAX_MSIX || pi->pi_nr_msix)
		return -EINVAL;

	pi->pi_msix = calloc(nr, sizeof(*pi->pi_msix));
	pi->pi_pba = calloc((nr + 63) / 64, sizeof(*pi->pi_pba));
	if (!pi->pi_msix || !pi->pi_pba) {
		pci_func_fini(pi);
		return -ENOMEM;
	}
	pi->pi_nr_msix = nr;
	pi->pi_msix_bar = bar;

	cap.ctrl = cpu_to_le16((uint16_t)(nr - 1));
	cap.table = cpu_to_le32((uint32_t)bar);
	cap.pba = cpu_to_le32((uint32_t)pba_off(pi) | (uint32_t)bar);
	ret = pci_add_bar(pi, bar, PCI_BAR_MEM32, pba_off(pi) + pba_bytes(pi));
	off = ret < 0 ? ret : pci_add_cap(pi, &cap, sizeof(cap));
	if (off < 0) {
		pci_func_fini(pi);
		return off;
	}
	pi->pi_msix_cap = (uint8_t)off;
	pi->pi_wmask[off + PCI_MSIX_FLAGS + 1] =
		(PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL) >> 8;
	pci_reset_interrupts(pi);
	return 0;
}

int pci_add_msi(struct pci_devinst *pi)
{
	const uint8_t cap[14] = {
		[0] = PCI_CAP_ID_MSI,
		[PCI_MSI_FLAGS] = PCI_MSI_FLAGS_64BIT,
	};
	int off = pci_add_cap(pi, cap, sizeof(cap));

	if (off < 0)
		return off;
	pi->pi_msi_cap = (uint8_t)off;
	pi->pi_wmask[off + PCI_MSI_FLAGS] = PCI_MSI_FLAGS_ENABLE;
	pci_set_writable(pi, (unsigned)off + PCI_MSI_ADDRESS_LO, 10);
	pi->pi_wmask[off + PCI_MSI_ADDRESS_LO] = 0xfc;
	return 0;
}

void pci_add_intx(struct pci_devinst *pi)
{
	pci_set_cfg8(pi, PCI_INTERRUPT_PIN, 1);
}

unsigned pci_msix_count(const struct pci_devinst *pi)
{
	return pi->pi_nr_msix;
}

bool pci_has_msi(const struct pci_devinst *pi)
{
	return pi->pi_msi_cap != 0;
}

bool pci_has_intx(const struct pci_devinst *pi)
{
	return pci_get_cfg8(pi, PCI_INTERRUPT_PIN) != 0;
}

bool pci_is_msix_bar(const struct pci_devinst *pi, int bar)
{
	return pi->pi_nr_msix && bar == pi->pi_msix_bar;
}

/*
 * --- MSI-X, 6.8.2 ---
 */

static uint16_t msix_ctrl(const struct pci_devinst *pi)
{
	return pi->pi_msix_cap ?
		       pci_get_cfg16(pi, pi->pi_msix_cap + PCI_MSIX_FLAGS) :
		       0;
}

bool pci_msix_enabled(struct pci_devinst *pi)
{
	return msix_ctrl(pi) & PCI_MSIX_FLAGS_ENABLE;
}

static bool vector_masked(const struct pci_devinst *pi, unsigned v)
{
	if (pi->pi_host && pi->pi_host->ph_owns_msix_table)
		return false;
	return (msix_ctrl(pi) & PCI_MSIX_FLAGS_MASKALL) ||
	       (pi->pi_msix[v].ctrl & ENTRY_MASKED);
}

static void send_msix(struct pci_devinst *pi, unsigned v)
{
	if (pi->pi_host && pi->pi_host->ph_msix)
		pi->pi_host->ph_msix(pi->pi_host_arg, v, pi->pi_msix[v].addr,
				     pi->pi_msix[v].data);
}

void pci_generate_msix(struct pci_devinst *pi, int vector)
{
	unsigned v = (unsigned)vector;

	if (v >= pi->pi_nr_msix || !pci_msix_enabled(pi))
		return;
	if (vector_masked(pi, v) || !pci_bus_master(pi))
		pi->pi_pba[v / 64] |= 1ull << (v % 64);
	else
		send_msix(pi, v);
}

/* A pending message that is now masked is not sent. */
static void send_pending(struct pci_devinst *pi)
{
	if (!pci_msix_enabled(pi) || !pci_bus_master(pi))
		return;
	for (unsigned v = 0; v < pi->pi_nr_msix; v++) {
		uint64_t bit = 1ull << (v % 64);

		if (!(pi->pi_pba[v / 64] & bit) || vector_masked(pi, v))
			continue;
		pi->pi_pba[v / 64] &= ~bit;
		send_msix(pi, v);
	}
}

static uint32_t table_dword(const struct pci_devinst *pi, uint64_t off)
{
	const struct pci_msix_entry *e = &pi->pi_msix[off / ENTRY_BYTES];

	switch (off % ENTRY_BYTES) {
	case PCI_MSIX_ENTRY_LOWER_ADDR:
		return (uint32_t)e->addr;
	case PCI_MSIX_ENTRY_UPPER_ADDR:
		return (uint32_t)(e->addr >> 32);
	case PCI_MSIX_ENTRY_DATA:
		return e->data;
	default:
		return e->ctrl;
	}
}

static uint32_t msix_dword(const struct pci_devinst *pi, uint64_t off)
{
	uint64_t pba = pba_off(pi);

	if (off < (uint64_t)pi->pi_nr_msix * ENTRY_BYTES)
		return table_dword(pi, off);
	if (off >= pba && off < pba + pba_bytes(pi)) {
		off -= pba;
		return (uint32_t)(pi->pi_pba[off / 8] >> (off % 8 * 8));
	}
	return 0;
}

/* Only whole, aligned dwords and qwords are defined: 6.8.2. */
uint64_t pci_msix_read(struct pci_devinst *pi, uint64_t off, int size)
{
	uint64_t val;

	if (off % (uint64_t)size || (size != 4 && size != 8))
		return 0;
	pci_lock(pi);
	val = msix_dword(pi, off);
	if (size == 8)
		val |= (uint64_t)msix_dword(pi, off + 4) << 32;
	pci_unlock(pi);
	return val;
}

static void write_dword(struct pci_devinst *pi, uint64_t off, uint32_t low)
{
	struct pci_msix_entry *e;

	if (off >= (uint64_t)pi->pi_nr_msix * ENTRY_BYTES)
		return;

	e = &pi->pi_msix[off / ENTRY_BYTES];
	switch (off % ENTRY_BYTES) {
	case PCI_MSIX_ENTRY_LOWER_ADDR:
		e->addr = (e->addr & ~0xffffffffull) | (low & ~3u);
		break;
	case PCI_MSIX_ENTRY_UPPER_ADDR:
		e->addr = (uint32_t)e->addr | (uint64_t)low << 32;
		break;
	case PCI_MSIX_ENTRY_DATA:
		e->data = low;
		break;
	default:
		e->ctrl = low & ENTRY_MASKED;
		send_pending(pi);
		break;
	}
}

void pci_msix_write(struct pci_devinst *pi, uint64_t off, int size,
		    uint64_t val)
{
	if (off % (uint64_t)size || (size != 4 && size != 8))
		return;
	pci_lock(pi);
	write_dword(pi, off, (uint32_t)val);
	if (size == 8)
		write_dword(pi, off + 4, (uint32_t)(val >> 32));
	pci_unlock(pi);
}

/*
 * --- MSI, 6.8.1, and the pin, 6.2.4 ---
 */

static bool msi_enabled(const struct pci_devinst *pi)
{
	return pi->pi_msi_cap &&
	       (pci_get_cfg8(pi, pi->pi_msi_cap + PCI_MSI_FLAGS) &
		PCI_MSI_FLAGS_ENABLE);
}

static void send_msi(struct pci_devinst *pi)
{
	unsigned cap = pi->pi_msi_cap;

	pi->pi_msi_pending = false;
	if (pi->pi_host && pi->pi_host->ph_msi)
		pi->pi_host->ph_msi(
			pi->pi_host_arg,
			pci_get_cfg32(pi, cap + PCI_MSI_ADDRESS_LO) |
				(uint64_t)pci_get_cfg32(
					pi, cap + PCI_MSI_ADDRESS_HI)
					<< 32,
			pci_get_cfg16(pi, cap + PCI_MSI_DATA_64));
}

void pci_generate_msi(struct pci_devinst *pi, int vector)
{
	if (vector != 0 || !msi_enabled(pi))
		return;
	pi->pi_msi_pending = true;
	if (pci_bus_master(pi))
		send_msi(pi);
}

static void update_pin(struct pci_devinst *pi)
{
	bool enabled =
		!pci_msix_enabled(pi) && !msi_enabled(pi) &&
		!(pci_get_cfg16(pi, PCI_COMMAND) & PCI_COMMAND_INTX_DISABLE);
	bool level = pi->pi_intx_pending && enabled;

	if (pi->pi_intx_pending)
		pi->pi_cfg[PCI_STATUS] |= PCI_STATUS_INTERRUPT;
	else
		pi->pi_cfg[PCI_STATUS] &= (uint8_t)~PCI_STATUS_INTERRUPT;

	if (level == pi->pi_intx_level || !pci_has_intx(pi))
		return;
	pi->pi_intx_level = level;
	if (pi->pi_host && pi->pi_host->ph_intx)
		pi->pi_host->ph_intx(pi->pi_host_arg, level);
}

void pci_lintr_assert(struct pci_devinst *pi)
{
	if (pi->pi_intx_pending)
		return;
	pi->pi_intx_pending = true;
	update_pin(pi);
}

void pci_lintr_deassert(struct pci_devinst *pi)
{
	if (!pi->pi_intx_pending)
		return;
	pi->pi_intx_pending = false;
	update_pin(pi);
}

void pci_update_interrupts(struct pci_devinst *pi)
{
	/* Messages replace the pin; a pending assertion is dropped. */
	if (pci_msix_enabled(pi))
		pi->pi_intx_pending = false;
	update_pin(pi);
	send_pending(pi);
	if (!msi_enabled(pi))
		pi->pi_msi_pending = false;
	if (pi->pi_msi_pending && pci_bus_master(pi))
		send_msi(pi);
}

void pci_reset_interrupts(struct pci_devinst *pi)
{
	if (pi->pi_msix_cap)
		pci_set_cfg16(pi, pi->pi_msix_cap + PCI_MSIX_FLAGS,
			      (uint16_t)(pi->pi_nr_msix - 1));
	if (pi->pi_msi_cap) {
		pci_set_cfg16(pi, pi->pi_msi_cap + PCI_MSI_FLAGS,
			      PCI_MSI_FLAGS_64BIT);
		memset(&pi->pi_cfg[pi->pi_msi_cap + PCI_MSI_ADDRESS_LO], 0, 10);
	}
	for (unsigned v = 0; v < pi->pi_nr_msix; v++)
		pi->pi_msix[v] =
			(struct pci_msix_entry){ .ctrl = ENTRY_MASKED };
	if (pi->pi_nr_msix)
		memset(pi->pi_pba, 0, pba_bytes(pi));
	pi->pi_intx_pending = pi->pi_msi_pending = false;
	update_pin(pi);
}

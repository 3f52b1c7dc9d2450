/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A PCI function: configuration space, capabilities, BARs, reset. Interrupts
 * are in msix.c. See <viodev/pci.h>. Section numbers are those of PCI 3.0.
 */
#include <errno.h>
#include <linux/pci_regs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>

#include "pci/func.h"

void pci_func_init(struct pci_devinst *pi, const struct pci_host *host,
		   void *host_arg, struct gmem *gm)
{
	*pi = (struct pci_devinst){
		.pi_host = host,
		.pi_host_arg = host_arg,
		.pi_gmem = gm,
		.pi_cap_free = PCI_STD_HEADER_SIZEOF,
	};

	pci_set_writable(pi, PCI_COMMAND, 2);
	pi->pi_wmask[PCI_COMMAND] = PCI_COMMAND_IO | PCI_COMMAND_MEMORY |
				    PCI_COMMAND_MASTER | PCI_COMMAND_PARITY;
	pi->pi_wmask[PCI_COMMAND + 1] =
		(PCI_COMMAND_SERR | PCI_COMMAND_INTX_DISABLE) >> 8;
	pci_set_writable(pi, PCI_CACHE_LINE_SIZE, 1);
	pci_set_writable(pi, PCI_INTERRUPT_LINE, 1);
}

void pci_func_fini(struct pci_devinst *pi)
{
	free(pi->pi_msix);
	free(pi->pi_pba);
	pi->pi_msix = NULL;
	pi->pi_pba = NULL;
	pi->pi_nr_msix = 0;
}

void pci_set_device(struct pci_devinst *pi, const struct pci_dev *dev,
		    void *arg)
{
	pi->pi_dev = dev;
	pi->pi_arg = arg;
}

/*
 * --- The device fills in configuration space ---
 */

void pci_set_cfg8(struct pci_devinst *pi, unsigned off, uint8_t val)
{
	pi->pi_cfg[off] = val;
}

void pci_set_cfg16(struct pci_devinst *pi, unsigned off, uint16_t val)
{
	pci_set_cfg8(pi, off, (uint8_t)val);
	pci_set_cfg8(pi, off + 1, (uint8_t)(val >> 8));
}

void pci_set_cfg32(struct pci_devinst *pi, unsigned off, uint32_t val)
{
	pci_set_cfg16(pi, off, (uint16_t)val);
	pci_set_cfg16(pi, off + 2, (uint16_t)(val >> 16));
}

uint8_t pci_get_cfg8(const struct pci_devinst *pi, unsigned off)
{
	return pi->pi_cfg[off];
}

uint16_t pci_get_cfg16(const struct pci_devinst *pi, unsigned off)
{
	return (uint16_t)(pi->pi_cfg[off] | pi->pi_cfg[off + 1] << 8);
}

uint32_t pci_get_cfg32(const struct pci_devinst *pi, unsigned off)
{
	return pci_get_cfg16(pi, off) | (uint32_t)pci_get_cfg16(pi, off + 2)
						<< 16;
}

void pci_set_writable(struct pci_devinst *pi, unsigned off, unsigned len)
{
	memset(&pi->pi_wmask[off], 0xff, len);
}

int pci_add_cap(struct pci_devinst *pi, const void *cap, unsigned len)
{
	unsigned off = pi->pi_cap_free;

	if (len < 2 || off + len > PCI_CFG_SIZE)
		return -ENOSPC;

	memcpy(&pi->pi_cfg[off], cap, len);
	pi->pi_cfg[off + PCI_CAP_LIST_NEXT] = 0;
	if (pi->pi_cap_last) {
		pi->pi_cfg[pi->pi_cap_last + PCI_CAP_LIST_NEXT] = (uint8_t)off;
	} else {
		pi->pi_cfg[PCI_CAPABILITY_LIST] = (uint8_t)off;
		pi->pi_cfg[PCI_STATUS] |= PCI_STATUS_CAP_LIST;
	}
	pi->pi_cap_last = (uint8_t)off;
	pi->pi_cap_free = (uint16_t)((off + len + 3) & ~3u);
	return (int)off;
}

/*
 * --- BARs, 6.2.5 ---
 */

static unsigned bar_reg(int bar)
{
	return PCI_BASE_ADDRESS_0 + 4 * (unsigned)bar;
}

int pci_add_bar(struct pci_devinst *pi, int bar, enum pci_bar_type type,
		uint64_t size)
{
	uint64_t pow2 = type == PCI_BAR_IO ? 4 : 4096, mask;
	unsigned nr_regs = type == PCI_BAR_MEM64 ? 2 : 1;
	uint32_t flags = 0;

	if (bar < 0 || bar + (int)nr_regs > PCI_NR_BARS ||
	    type == PCI_BAR_NONE || size == 0 || size > (1ull << 31))
		return -EINVAL;
	if (pi->pi_bars[bar].type != PCI_BAR_NONE ||
	    (bar > 0 && pi->pi_bars[bar - 1].type == PCI_BAR_MEM64))
		return -EBUSY;

	while (pow2 < size)
		pow2 *= 2;
	pi->pi_bars[bar] = (struct pci_bar){ type, pow2 };

	if (type == PCI_BAR_IO)
		flags = PCI_BASE_ADDRESS_SPACE_IO;
	else if (type == PCI_BAR_MEM64)
		flags = PCI_BASE_ADDRESS_MEM_TYPE_64;
	pci_set_cfg32(pi, bar_reg(bar), flags);

	/* The guest sizes a BAR by the bits that it can set. */
	mask = ~(pow2 - 1);
	for (unsigned i = 0; i < 4 * nr_regs; i++)
		pi->pi_wmask[bar_reg(bar) + i] = (uint8_t)(mask >> (8 * i));
	return 0;
}

uint64_t pci_bar_size(const struct pci_devinst *pi, int bar)
{
	return bar >= 0 && bar < PCI_NR_BARS ? pi->pi_bars[bar].size : 0;
}

enum pci_bar_type pci_bar_type(const struct pci_devinst *pi, int bar)
{
	return bar >= 0 && bar < PCI_NR_BARS ? pi->pi_bars[bar].type :
					       PCI_BAR_NONE;
}

static bool bar_has(const struct pci_devinst *pi, int bar, uint64_t off,
		    int size)
{
	uint64_t bytes = pci_bar_size(pi, bar);

	if (size != 1 && size != 2 && size != 4 && size != 8)
		return false;
	return off < bytes && (uint64_t)size <= bytes - off;
}

static uint64_t all_ones(int size)
{
	return size >= 8 || size <= 0 ? UINT64_MAX : (1ull << (8 * size)) - 1;
}

uint64_t pci_bar_read(struct pci_devinst *pi, int bar, uint64_t off, int size)
{
	if (!bar_has(pi, bar, off, size) || !pi->pi_dev ||
	    !pi->pi_dev->pd_barread)
		return all_ones(size);
	return pi->pi_dev->pd_barread(pi, bar, off, size);
}

void pci_bar_write(struct pci_devinst *pi, int bar, uint64_t off, int size,
		   uint64_t val)
{
	if (!bar_has(pi, bar, off, size) || !pi->pi_dev ||
	    !pi->pi_dev->pd_barwrite)
		return;
	pi->pi_dev->pd_barwrite(pi, bar, off, size, val);
}

/*
 * --- The guest reads and writes configuration space, 6.2 ---
 */

static bool cfg_access_ok(unsigned off, unsigned size)
{
	if (size != 1 && size != 2 && size != 4)
		return false;
	return off < PCI_CFG_SIZE && off % 4 + size <= 4;
}

static void set_master_off(struct pci_devinst *pi, bool off)
{
	pi->pi_master_off = off;
	if (pi->pi_dev && pi->pi_dev->pd_bus_master)
		pi->pi_dev->pd_bus_master(pi, !off);
}

void pci_set_bus_master(struct pci_devinst *pi)
{
	pi->pi_cfg[PCI_COMMAND] |= PCI_COMMAND_MASTER;
	set_master_off(pi, false);
	pci_update_interrupts(pi);
}

uint32_t pci_cfg_read(struct pci_devinst *pi, unsigned off, unsigned size)
{
	uint32_t val = 0;

	if (!cfg_access_ok(off, size))
		return (uint32_t)all_ones((int)size);
	if (pi->pi_dev && pi->pi_dev->pd_cfgread &&
	    pi->pi_dev->pd_cfgread(pi, (int)off, (int)size, &val) !=
		    PE_CFGRW_DEFAULT)
		return val;
	memcpy(&val, &pi->pi_cfg[off], size);
	return le32toh(val);
}

/* A write to the command register that turns bus mastering off. */
static bool ends_mastering(const struct pci_devinst *pi, unsigned off,
			   uint32_t val)
{
	return off == PCI_COMMAND && !pi->pi_master_off &&
	       !(val & PCI_COMMAND_MASTER);
}

static void kick(struct pci_devinst *pi, bool missed)
{
	if (pi->pi_dev && pi->pi_dev->pd_kick)
		pi->pi_dev->pd_kick(pi, missed);
}

void pci_cfg_write(struct pci_devinst *pi, unsigned off, unsigned size,
		   uint32_t val)
{
	bool was_off = pi->pi_master_off;

	if (!cfg_access_ok(off, size))
		return;
	if (pi->pi_dev && pi->pi_dev->pd_cfgwrite &&
	    pi->pi_dev->pd_cfgwrite(pi, (int)off, (int)size, val) !=
		    PE_CFGRW_DEFAULT)
		return;
	if (ends_mastering(pi, off, val))
		pci_give_back(pi);
	pci_lock(pi);
	for (unsigned i = 0; i < size; i++) {
		uint8_t mask = pi->pi_wmask[off + i];
		uint8_t byte = (uint8_t)(val >> (8 * i));

		pi->pi_cfg[off + i] = (uint8_t)((pi->pi_cfg[off + i] & ~mask) |
						(byte & mask));
	}
	if (off == PCI_COMMAND)
		set_master_off(pi,
			       !(pi->pi_cfg[PCI_COMMAND] & PCI_COMMAND_MASTER));
	/* The command register or an interrupt capability may have changed. */
	pci_update_interrupts(pi);
	pci_unlock(pi);
	if (was_off && !pi->pi_master_off)
		kick(pi, true);
}

/*
 * --- Reset ---
 */

void pci_reset(struct pci_devinst *pi)
{
	pci_lock(pi);
	pci_set_cfg16(pi, PCI_COMMAND, 0);
	set_master_off(pi, false);
	pci_set_cfg8(pi, PCI_CACHE_LINE_SIZE, 0);
	pci_set_cfg8(pi, PCI_INTERRUPT_LINE, 0);
	for (unsigned i = 0; i < 4 * PCI_NR_BARS; i++)
		pi->pi_cfg[PCI_BASE_ADDRESS_0 + i] &=
			(uint8_t)~pi->pi_wmask[PCI_BASE_ADDRESS_0 + i];
	pci_reset_interrupts(pi);
	pci_unlock(pi);
	if (pi->pi_dev && pi->pi_dev->pd_reset)
		pi->pi_dev->pd_reset(pi);
	pci_lock(pi);
	pci_update_interrupts(pi);
	pci_unlock(pi);
}

void pci_quiesce(struct pci_devinst *pi)
{
	if (pi->pi_dev && pi->pi_dev->pd_quiesce)
		pi->pi_dev->pd_quiesce(pi);
}

bool pci_is_idle(struct pci_devinst *pi)
{
	return !pi->pi_dev || !pi->pi_dev->pd_is_idle ||
	       pi->pi_dev->pd_is_idle(pi);
}

void pci_new_owner(struct pci_devinst *pi)
{
	if (pi->pi_dev && pi->pi_dev->pd_new_owner)
		pi->pi_dev->pd_new_owner(pi);
	else
		pci_set_resetting(pi, false);
}

void pci_give_back(struct pci_devinst *pi)
{
	if (pi->pi_dev && pi->pi_dev->pd_give_back)
		pi->pi_dev->pd_give_back(pi);
}

static pthread_mutex_t *mutex_of(struct pci_devinst *pi)
{
	return pi->pi_dev && pi->pi_dev->pd_mutex ? pi->pi_dev->pd_mutex(pi) :
						    NULL;
}

void pci_lock(struct pci_devinst *pi)
{
	pthread_mutex_t *mutex = mutex_of(pi);

	if (mutex)
		pthread_mutex_lock(mutex);
}

void pci_unlock(struct pci_devinst *pi)
{
	pthread_mutex_t *mutex = mutex_of(pi);

	if (mutex)
		pthread_mutex_unlock(mutex);
}

bool pci_has_lock(struct pci_devinst *pi)
{
	return mutex_of(pi) != NULL;
}

void pci_wake(struct pci_devinst *pi)
{
	if (pi->pi_host && pi->pi_host->ph_wake)
		pi->pi_host->ph_wake(pi->pi_host_arg);
}

void pci_kick(struct pci_devinst *pi)
{
	kick(pi, false);
}

static bool poll(struct pci_devinst *pi, bool arm)
{
	return pi->pi_dev && pi->pi_dev->pd_poll &&
	       pi->pi_dev->pd_poll(pi, arm);
}

bool pci_poll(struct pci_devinst *pi)
{
	return poll(pi, false);
}

bool pci_arm(struct pci_devinst *pi)
{
	return poll(pi, true);
}

/*
 * --- Log ---
 */

void pci_vlog(struct pci_devinst *pi, int level, const char *fmt, va_list ap)
{
	char text[256];

	vsnprintf(text, sizeof(text), fmt, ap);
	if (pi->pi_host && pi->pi_host->ph_log)
		pi->pi_host->ph_log(pi->pi_host_arg, level, text);
	else
		fprintf(stderr, "%s\n", text);
}

void pci_log(struct pci_devinst *pi, int level, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	pci_vlog(pi, level, fmt, ap);
	va_end(ap);
}

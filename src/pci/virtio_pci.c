/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A virtio device as a PCI function (virtio 4.1): identity, interrupts, BARs,
 * and the routing of register accesses to the legacy or modern interface.
 */
#include <assert.h>
#include <linux/pci_regs.h>
#include <stddef.h>

#include <viodev/virtio.h>

#include "core/core.h"
#include "pci/regs.h"

#define MODERN_ID_BASE 0x1040 /* 4.1.2.1 */

/*
 * --- Between the device and the function ---
 */

static void send_interrupt(struct virtio_softc *vs, uint8_t isr,
			   uint16_t vector)
{
	struct pci_devinst *pi = vs->vs_pi;

	if (pci_msix_enabled(pi)) {
		/* 4.1.5.3.1: the configuration bit is always set. */
		vs->vs_isr |= isr & VIRTIO_PCI_ISR_CONFIG;
		pci_generate_msix(pi, vector);
	} else {
		vs->vs_isr |= isr;
		pci_generate_msi(pi, 0);
		pci_lintr_assert(pi);
	}
}

static void was_reset(struct virtio_softc *vs)
{
	pci_lintr_deassert(vs->vs_pi);
	pci_set_resetting(vs->vs_pi, !vi_is_reset(vs));
}

static void reset_done(struct virtio_softc *vs)
{
	pci_set_resetting(vs->vs_pi, false);
}

static void wake(struct virtio_softc *vs)
{
	pci_wake(vs->vs_pi);
}

static void log_line(struct virtio_softc *vs, int level, const char *msg)
{
	pci_log(vs->vs_pi, level, "%s", msg);
}

static const struct vi_transport pci_transport = {
	.interrupt = send_interrupt,
	.reset = was_reset,
	.reset_done = reset_done,
	.wake = wake,
	.log = log_line,
};

static void on_reset(struct pci_devinst *pi)
{
	vi_reset(pi->pi_arg);
}

static void on_quiesce(struct pci_devinst *pi)
{
	vi_quiesce(pi->pi_arg);
}

static bool is_idle(struct pci_devinst *pi)
{
	return vi_is_idle(pi->pi_arg);
}

static void on_give_back(struct pci_devinst *pi)
{
	vi_give_back(pi->pi_arg);
}

static void on_new_owner(struct pci_devinst *pi)
{
	vi_new_owner(pi->pi_arg);
}

static pthread_mutex_t *mutex_of(struct pci_devinst *pi)
{
	struct virtio_softc *vs = pi->pi_arg;

	return vs->vs_mtx;
}

static void on_kick(struct pci_devinst *pi, bool missed)
{
	if (missed)
		vi_kick_missed(pi->pi_arg);
	else
		vi_kick_all(pi->pi_arg);
}

static bool on_poll(struct pci_devinst *pi, bool arm)
{
	struct virtio_softc *vs = pi->pi_arg;
	bool any;

	VS_LOCK(vs);
	any = arm ? vi_arm(vs) : vi_poll(vs);
	VS_UNLOCK(vs);
	return any;
}

static void on_bus_master(struct pci_devinst *pi, bool on)
{
	vi_set_dma(pi->pi_arg, on);
}

static bool is_doorbell(struct pci_devinst *pi, int baridx, uint64_t offset,
			int size);

static const struct pci_dev virtio_pci_dev = {
	.pd_cfgread = vi_pci_cfgread,
	.pd_cfgwrite = vi_pci_cfgwrite,
	.pd_barread = vi_pci_read,
	.pd_barwrite = vi_pci_write,
	.pd_reset = on_reset,
	.pd_quiesce = on_quiesce,
	.pd_is_idle = is_idle,
	.pd_give_back = on_give_back,
	.pd_new_owner = on_new_owner,
	.pd_mutex = mutex_of,
	.pd_kick = on_kick,
	.pd_poll = on_poll,
	.pd_is_doorbell = is_doorbell,
	.pd_bus_master = on_bus_master,
};

void vi_softc_linkup(struct virtio_softc *vs, struct virtio_consts *vc,
		     void *dev_softc, struct pci_devinst *pi,
		     struct vqueue_info *queues)
{
	vs->vs_pi = pi;
	/* The function does not call a device that does not exist. */
	pci_set_device(pi, NULL, dev_softc);
	if (vi_init(vs, vc, queues, pi->pi_gmem, &pci_transport, NULL) < 0)
		return;
	vi_set_dma(vs, pci_bus_master(pi));
	pci_set_device(pi, &virtio_pci_dev, dev_softc);
}

void vi_softc_fini(struct virtio_softc *vs)
{
	vi_fini(vs);
	/* The embedder may still use the function; see pci_lock(). */
	pci_set_device(vs->vs_pi, NULL, NULL);
}

/*
 * --- Set-up ---
 */

/* Subclasses more precise than "other", as guests list them. */
static uint8_t subclass_of(uint8_t pci_class)
{
	switch (pci_class) {
	case PCIC_STORAGE: /* SCSI controller */
	case PCIC_NETWORK: /* Ethernet */
		return 0x00;
	case PCIC_OTHER:
		return 0x00;
	default:
		return 0x80;
	}
}

void vi_pci_init(struct pci_devinst *pi, virtio_mode_t mode, uint16_t legacy_id,
		 uint16_t device_id, uint8_t pci_class)
{
	struct virtio_softc *vs = pi->pi_arg;
	bool modern = mode == VIRTIO_MODE_MODERN;
	uint16_t modern_id = (uint16_t)(MODERN_ID_BASE + device_id);

	assert(mode != VIRTIO_MODE_UNSET);
	vs->vs_mode = mode;
	pci_set_cfg16(pi, PCI_VENDOR_ID, VIRTIO_VENDOR);
	pci_set_cfg16(pi, PCI_SUBSYSTEM_VENDOR_ID, VIRTIO_VENDOR);
	pci_set_cfg8(pi, PCI_CLASS_DEVICE + 1, pci_class);
	pci_set_cfg8(pi, PCI_CLASS_DEVICE, subclass_of(pci_class));

	/* 4.1.2.1 for modern devices, 4.1.2.3 for transitional ones. */
	pci_set_cfg16(pi, PCI_DEVICE_ID, modern ? modern_id : legacy_id);
	pci_set_cfg16(pi, PCI_SUBSYSTEM_ID, modern ? modern_id : device_id);
	pci_set_cfg8(pi, PCI_REVISION_ID, modern ? 1 : 0);
}

bool vi_intr_init(struct virtio_softc *vs, bool use_msix)
{
	int nvq = vi_max_queues(vs);

	if (!vs->vs_priv)
		return false;
	VS_LOCK(vs);
	vi_reset_dev(vs); /* every vector is NO_VECTOR */
	VS_UNLOCK(vs);
	if (use_msix) {
		unsigned nr = (unsigned)nvq + 1;

		if (pci_add_msix(vs->vs_pi,
				 nr < PCI_MAX_MSIX ? nr : PCI_MAX_MSIX,
				 VIRTIO_MSIX_BAR) < 0)
			return false;
		vs->vs_flags |= VIRTIO_USE_MSIX;
	} else {
		vs->vs_flags &= ~(virtio_flags_t)VIRTIO_USE_MSIX;
	}
	pci_add_intx(vs->vs_pi);
	return pci_add_msi(vs->vs_pi) >= 0;
}

bool vi_pcibar_setup(struct virtio_softc *vs)
{
	assert(vs->vs_mode != VIRTIO_MODE_UNSET);
	if (!vs->vs_priv)
		return false;
	if (vs->vs_mode != VIRTIO_MODE_MODERN && vi_legacy_setup(vs) < 0)
		return false;
	return vs->vs_mode == VIRTIO_MODE_LEGACY || vi_modern_setup(vs) >= 0;
}

/*
 * --- Look-ups ---
 */

virtio_pci_capcfg_t *vi_pci_cfg_bytype(struct virtio_softc *vs, uint8_t type)
{
	for (uint_t i = 0; i < vs->vs_ncaps; i++) {
		if (vs->vs_caps[i].c_captype == type)
			return &vs->vs_caps[i];
	}
	return NULL;
}

/* Whether [start, start + size) lies in [base, base + len), without wrapping. */
static bool inside(uint64_t start, uint32_t size, uint32_t base, uint32_t len)
{
	return size && start >= base && start - base < len &&
	       size <= len - (start - base);
}

virtio_pci_capcfg_t *vi_pci_cfg_bycapaddr(struct virtio_softc *vs,
					  uint32_t start, uint32_t size)
{
	for (uint_t i = 0; i < vs->vs_ncaps; i++) {
		virtio_pci_capcfg_t *cap = &vs->vs_caps[i];

		if (inside(start, size, cap->c_capoff, cap->c_caplen))
			return cap;
	}
	return NULL;
}

virtio_pci_capcfg_t *vi_pci_cfg_bybaraddr(struct virtio_softc *vs, uint8_t bar,
					  uint64_t start, uint32_t size)
{
	for (uint_t i = 0; i < vs->vs_ncaps; i++) {
		virtio_pci_capcfg_t *cap = &vs->vs_caps[i];

		if (cap->c_baridx == bar &&
		    inside(start, size, cap->c_baroff, cap->c_barlen))
			return cap;
	}
	return NULL;
}

/*
 * --- BAR accesses ---
 */

static uint64_t bar_read(struct virtio_softc *vs, int bar, uint64_t off,
			 int size)
{
	if (bar == VIRTIO_LEGACY_BAR && vs->vs_mode != VIRTIO_MODE_MODERN)
		return vi_legacy_read(vs, off, size);
	if (bar == VIRTIO_MODERN_BAR && vs->vs_mode != VIRTIO_MODE_LEGACY)
		return vi_modern_read(vs, off, size);
	return UINT64_MAX >> (64 - 8 * size);
}

static void bar_write(struct virtio_softc *vs, int bar, uint64_t off, int size,
		      uint64_t val)
{
	if (bar == VIRTIO_LEGACY_BAR && vs->vs_mode != VIRTIO_MODE_MODERN)
		vi_legacy_write(vs, off, size, val);
	else if (bar == VIRTIO_MODERN_BAR && vs->vs_mode != VIRTIO_MODE_LEGACY)
		vi_modern_write(vs, off, size, val);
}

static bool size_ok(int size)
{
	return size == 1 || size == 2 || size == 4 || size == 8;
}

uint64_t vi_pci_read(struct pci_devinst *pi, int baridx, uint64_t offset,
		     int size)
{
	struct virtio_softc *vs = pi->pi_arg;
	uint64_t val;

	if (!size_ok(size))
		return UINT64_MAX;
	if (pci_is_msix_bar(pi, baridx))
		return pci_msix_read(pi, offset, size);
	VS_LOCK(vs);
	val = bar_read(vs, baridx, offset, size);
	VS_UNLOCK(vs);
	return val;
}

void vi_pci_write(struct pci_devinst *pi, int baridx, uint64_t offset, int size,
		  uint64_t value)
{
	struct virtio_softc *vs = pi->pi_arg;

	if (!size_ok(size))
		return;
	if (pci_is_msix_bar(pi, baridx)) {
		pci_msix_write(pi, offset, size, value);
		if (vs->vs_vc->vc_update_msix)
			vs->vs_vc->vc_update_msix(vs, offset);
		return;
	}
	VS_LOCK(vs);
	bar_write(vs, baridx, offset, size, value);
	VS_UNLOCK(vs);
}

static bool is_doorbell(struct pci_devinst *pi, int baridx, uint64_t offset,
			int size)
{
	struct virtio_softc *vs = pi->pi_arg;
	virtio_pci_capcfg_t *cap;

	if (baridx == VIRTIO_LEGACY_BAR)
		return vs->vs_mode != VIRTIO_MODE_MODERN &&
		       offset == VIRTIO_PCI_QUEUE_NOTIFY && size == 2;
	if (baridx != VIRTIO_MODERN_BAR)
		return false;
	cap = vi_pci_cfg_bybaraddr(vs, VIRTIO_MODERN_BAR, offset,
				   (uint32_t)size);
	return cap && cap->c_captype == VIRTIO_PCI_CAP_NOTIFY_CFG;
}

/*
 * --- The window in configuration space, 4.1.4.9 ---
 *
 * Firmware that cannot map BARs reaches them through the PCI_CFG capability:
 * it writes bar, offset and length, then reads or writes pci_cfg_data.
 */

struct window {
	int bar;
	uint64_t off;
	int len;
};

static unsigned data_reg(struct virtio_softc *vs)
{
	return vs->vs_pcicap->c_capoff +
	       offsetof(struct virtio_pci_cfg_cap, pci_cfg_data);
}

/* Where the driver pointed the window; false if nowhere valid. */
static bool window_at(struct virtio_softc *vs, struct window *w)
{
	struct pci_devinst *pi = vs->vs_pi;
	unsigned cap = vs->vs_pcicap->c_capoff;
	uint32_t len = pci_get_cfg32(pi, cap + VIRTIO_PCI_CAP_LENGTH);

	*w = (struct window){
		.bar = pci_get_cfg8(pi, cap + VIRTIO_PCI_CAP_BAR),
		.off = pci_get_cfg32(pi, cap + VIRTIO_PCI_CAP_OFFSET),
		.len = (int)len,
	};
	if ((len != 1 && len != 2 && len != 4) || w->off % len)
		return false;
	return w->off + len <= pci_bar_size(pi, w->bar);
}

int vi_pci_cfgread(struct pci_devinst *pi, int offset, int bytes,
		   uint32_t *retval)
{
	struct virtio_softc *vs = pi->pi_arg;
	struct window w;

	if (!vs->vs_pcicap || (unsigned)offset != data_reg(vs))
		return PE_CFGRW_DEFAULT;
	*retval = 0;
	if (window_at(vs, &w))
		*retval = (uint32_t)vi_pci_read(pi, w.bar, w.off, w.len);
	if (bytes < 4)
		*retval &= (1u << (8 * bytes)) - 1;
	return PE_CFGRW_DROP;
}

int vi_pci_cfgwrite(struct pci_devinst *pi, int offset, int bytes, uint32_t val)
{
	struct virtio_softc *vs = pi->pi_arg;
	struct window w;

	if (!vs->vs_pcicap || (unsigned)offset != data_reg(vs))
		return PE_CFGRW_DEFAULT;
	if (bytes < 4)
		val &= (1u << (8 * bytes)) - 1;
	if (window_at(vs, &w))
		vi_pci_write(pi, w.bar, w.off, w.len, val);
	return PE_CFGRW_DROP;
}

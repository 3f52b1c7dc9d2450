/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The legacy interface of virtio-pci (virtio 4.1.4.10): an I/O BAR with a
 * short header, directly followed by device configuration. The header is 20
 * bytes, or 24 while MSI-X is enabled.
 */
#include <viodev/virtio.h>

#include "base/util.h"
#include "core/core.h"
#include "pci/func.h"
#include "pci/regs.h"

static uint32_t host_features_read(struct virtio_softc *vs)
{
	return (uint32_t)vi_offer(vs, false);
}

static uint32_t guest_features_read(struct virtio_softc *vs)
{
	return (uint32_t)vs->vs_negotiated_caps;
}

static void guest_features_write(struct virtio_softc *vs, uint32_t val)
{
	vi_set_legacy_features(vs, val);
}

static uint32_t pfn_read(struct virtio_softc *vs)
{
	struct vqueue_info *vq = vi_selected_queue(vs);

	return vq ? vq->vq_pfn : 0;
}

static void pfn_write(struct virtio_softc *vs, uint32_t val)
{
	vi_set_queue_pfn(vs, val);
}

static uint32_t size_read(struct virtio_softc *vs)
{
	struct vqueue_info *vq = vi_selected_queue(vs);

	return vq ? vq->vq_qsize : 0;
}

static uint32_t select_read(struct virtio_softc *vs)
{
	return (uint32_t)vs->vs_curq;
}

static void select_write(struct virtio_softc *vs, uint32_t val)
{
	vs->vs_curq = (int)val;
}

static uint32_t notify_read(struct virtio_softc *vs)
{
	return 0;
}

static void notify_write(struct virtio_softc *vs, uint32_t val)
{
	vi_kick(vs, val);
}

static uint32_t status_read(struct virtio_softc *vs)
{
	return vs->vs_status;
}

/* Linux before 2.6.34 never sets Bus Master; QEMU also sets it here. */
static void status_write(struct virtio_softc *vs, uint32_t val)
{
	if (val == (VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER))
		pci_set_bus_master(vs->vs_pi);
	vi_set_status(vs, (uint8_t)val, false);
}

static uint32_t isr_read(struct virtio_softc *vs)
{
	return vi_take_isr(vs);
}

static uint32_t config_vector_read(struct virtio_softc *vs)
{
	return vs->vs_msix_cfg_idx;
}

static void config_vector_write(struct virtio_softc *vs, uint32_t val)
{
	vs->vs_msix_cfg_idx = vi_vector(vs, val);
}

static uint32_t queue_vector_read(struct virtio_softc *vs)
{
	struct vqueue_info *vq = vi_selected_queue(vs);

	return vq ? vq->vq_msix_idx : VIRTIO_MSI_NO_VECTOR;
}

static void queue_vector_write(struct virtio_softc *vs, uint32_t val)
{
	vi_set_queue_vector(vs, vi_vector(vs, val));
}

/* clang-format off */
static const struct vi_reg legacy_regs[] = {
	{ VIRTIO_PCI_HOST_FEATURES, 4, "device features", host_features_read, NULL },
	{ VIRTIO_PCI_GUEST_FEATURES, 4, "driver features", guest_features_read, guest_features_write },
	{ VIRTIO_PCI_QUEUE_PFN, 4, "queue address", pfn_read, pfn_write },
	{ VIRTIO_PCI_QUEUE_NUM, 2, "queue size", size_read, NULL },
	{ VIRTIO_PCI_QUEUE_SEL, 2, "queue select", select_read, select_write },
	{ VIRTIO_PCI_QUEUE_NOTIFY, 2, "queue notify", notify_read, notify_write },
	{ VIRTIO_PCI_STATUS, 1, "device status", status_read, status_write },
	{ VIRTIO_PCI_ISR, 1, "ISR status", isr_read, NULL },
	/* These two exist only while MSI-X is enabled. */
	{ VIRTIO_MSI_CONFIG_VECTOR, 2, "config vector", config_vector_read, config_vector_write },
	{ VIRTIO_MSI_QUEUE_VECTOR, 2, "queue vector", queue_vector_read, queue_vector_write },
};
/* clang-format on */

#define NR_LEGACY_REGS ARRAY_LEN(legacy_regs)

/* The length of the header, and how many registers are in it. */
static uint64_t header(struct virtio_softc *vs, size_t *ret_nr)
{
	bool msix = pci_msix_enabled(vs->vs_pi);

	*ret_nr = msix ? NR_LEGACY_REGS : NR_LEGACY_REGS - 2;
	return VIRTIO_PCI_CONFIG_OFF(msix);
}

uint64_t vi_legacy_read(struct virtio_softc *vs, uint64_t off, int size)
{
	size_t nr;
	uint64_t len = header(vs, &nr);

	if (off >= len)
		return vi_devcfg_read(vs, off - len, size);
	return vi_regs_read(vs, legacy_regs, nr, off, size);
}

void vi_legacy_write(struct virtio_softc *vs, uint64_t off, int size,
		     uint64_t val)
{
	size_t nr;
	uint64_t len = header(vs, &nr);
	bool reset = off == VIRTIO_PCI_STATUS && size == 1 && val == 0;

	/*
	 * Once the driver is modern, this interface can only reset (4.1.4.10).
	 */
	if (vi_is_modern(vs) && vs->vs_priv->features_final && !reset)
		return;
	if (off >= len)
		vi_devcfg_write(vs, off - len, size, val);
	else
		vi_regs_write(vs, legacy_regs, nr, off, size, val);
}

int vi_legacy_setup(struct virtio_softc *vs)
{
	return pci_add_bar(vs->vs_pi, VIRTIO_LEGACY_BAR, PCI_BAR_IO,
			   VIRTIO_PCI_CONFIG_OFF(1) + vs->vs_vc->vc_cfgsize);
}

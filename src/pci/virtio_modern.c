/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The modern interface of virtio-pci (virtio 4.1.4): a 64-bit BAR with the
 * structures that the capabilities point at.
 *
 *	0x0000  common configuration
 *	0x1000  ISR status
 *	0x2000  device configuration, if the device has any
 *	0x3000  notification, 4 bytes a queue
 */
#include <linux/pci_regs.h>
#include <stddef.h>

#include <viodev/virtio.h>

#include "base/util.h"
#include "core/core.h"
#include "pci/regs.h"

#define COMMON_OFF        0x0000
#define COMMON_LEN        64
#define ISR_OFF           0x1000
#define ISR_LEN           4
#define DEVICE_OFF        0x2000
#define NOTIFY_OFF        0x3000
#define NOTIFY_MULTIPLIER 4

/*
 * --- Common configuration, 4.1.4.3 ---
 */

static uint32_t dfselect_read(struct virtio_softc *vs)
{
	return vs->vs_dfselect;
}

static void dfselect_write(struct virtio_softc *vs, uint32_t val)
{
	vs->vs_dfselect = val;
}

/* Includes features from 64 on, whose windows Linux reads and writes. */
static uint32_t window(uint64_t features, uint64_t features_hi, uint32_t select)
{
	if (select > 3)
		return 0;
	return (uint32_t)((select < 2 ? features : features_hi) >>
			  32 * (select & 1));
}

static uint32_t df_read(struct virtio_softc *vs)
{
	return window(vi_offer(vs, true), vs->vs_vc->vc_hv_caps_hi,
		      vs->vs_dfselect);
}

static uint32_t gfselect_read(struct virtio_softc *vs)
{
	return vs->vs_gfselect;
}

static void gfselect_write(struct virtio_softc *vs, uint32_t val)
{
	vs->vs_gfselect = val;
}

static uint32_t gf_read(struct virtio_softc *vs)
{
	return window(vs->vs_negotiated_caps, vs->vs_negotiated_caps_hi,
		      vs->vs_gfselect);
}

static void gf_write(struct virtio_softc *vs, uint32_t val)
{
	vi_set_driver_features(vs, vs->vs_gfselect, val);
}

static uint32_t config_vector_read(struct virtio_softc *vs)
{
	return vs->vs_msix_cfg_idx;
}

static void config_vector_write(struct virtio_softc *vs, uint32_t val)
{
	vs->vs_msix_cfg_idx = vi_vector(vs, val);
}

static uint32_t num_queues_read(struct virtio_softc *vs)
{
	return (uint32_t)vi_nr_queues(vs);
}

/*
 * 0 means that the reset is complete, and that requests from before it no
 * longer access guest memory (2.4.2).
 */
static uint32_t status_read(struct virtio_softc *vs)
{
	return vi_is_reset(vs) || vs->vs_status ? vs->vs_status :
						  vs->vs_priv->old_status;
}

static void status_write(struct virtio_softc *vs, uint32_t val)
{
	vi_set_status(vs, (uint8_t)val, true);
}

/* All changes since the last read increment it once (2.5). */
static uint32_t generation_read(struct virtio_softc *vs)
{
	if (vs->vs_flags & VIRTIO_DEVCFG_CHG) {
		vs->vs_flags &= ~(virtio_flags_t)VIRTIO_DEVCFG_CHG;
		vs->vs_devcfg_gen++;
	}
	return vs->vs_devcfg_gen;
}

static uint32_t select_read(struct virtio_softc *vs)
{
	return (uint32_t)vs->vs_curq;
}

/* Any number may be selected; a queue that does not exist has size 0. */
static void select_write(struct virtio_softc *vs, uint32_t val)
{
	vs->vs_curq = (int)val;
}

static uint32_t size_read(struct virtio_softc *vs)
{
	struct vqueue_info *vq = vi_selected_queue(vs);

	return vq ? vq->vq_qsize : 0;
}

static void size_write(struct virtio_softc *vs, uint32_t val)
{
	struct vqueue_info *vq = vi_selected_queue(vs);

	if (vq)
		vi_set_queue_size(vq, (uint16_t)val);
}

static uint32_t vector_read(struct virtio_softc *vs)
{
	struct vqueue_info *vq = vi_selected_queue(vs);

	return vq ? vq->vq_msix_idx : VIRTIO_MSI_NO_VECTOR;
}

static void vector_write(struct virtio_softc *vs, uint32_t val)
{
	vi_set_queue_vector(vs, vi_vector(vs, val));
}

static uint32_t enable_read(struct virtio_softc *vs)
{
	struct vqueue_info *vq = vi_selected_queue(vs);

	return vq && (vq->vq_flags & VQ_ENABLED);
}

/* A driver must not write 0 here (4.1.4.3.2); 0 is ignored. */
static void enable_write(struct virtio_softc *vs, uint32_t val)
{
	if (val == 1)
		vi_enable_queue(vs);
}

static uint32_t reset_read(struct virtio_softc *vs)
{
	struct vqueue_info *vq = vi_selected_queue(vs);

	return vq && vi_queue_is_resetting(vq);
}

/* All other values are reserved. */
static void reset_write(struct virtio_softc *vs, uint32_t val)
{
	if (val == 1)
		vi_reset_queue(vs);
}

static uint32_t notify_off_read(struct virtio_softc *vs)
{
	return vi_selected_queue(vs) ? (uint32_t)vs->vs_curq : 0;
}

/* Addresses, as two halves each; fixed while the queue is enabled. */
static uint64_t *address(struct virtio_softc *vs, size_t field)
{
	void *vq = vi_selected_queue(vs);

	return vq ? (void *)((char *)vq + field) : NULL;
}

static uint32_t address_read(struct virtio_softc *vs, size_t field,
			     unsigned shift)
{
	const uint64_t *a = address(vs, field);

	return a ? (uint32_t)(*a >> shift) : 0;
}

static void address_write(struct virtio_softc *vs, size_t field, unsigned shift,
			  uint32_t val)
{
	uint64_t *a = address(vs, field);

	if (!a || vi_selected_queue(vs)->vq_flags)
		return;
	*a = (*a & ~(0xffffffffull << shift)) | (uint64_t)val << shift;
}

#define ADDRESS_HALF(name, field, shift)                                      \
	static uint32_t name##_read(struct virtio_softc *vs)                  \
	{                                                                     \
		return address_read(vs, offsetof(struct vqueue_info, field),  \
				    shift);                                   \
	}                                                                     \
	static void name##_write(struct virtio_softc *vs, uint32_t val)       \
	{                                                                     \
		address_write(vs, offsetof(struct vqueue_info, field), shift, \
			      val);                                           \
	}

ADDRESS_HALF(desc_lo, vq_desc_gpa, 0)
ADDRESS_HALF(desc_hi, vq_desc_gpa, 32)
ADDRESS_HALF(driver_lo, vq_avail_gpa, 0)
ADDRESS_HALF(driver_hi, vq_avail_gpa, 32)
ADDRESS_HALF(device_lo, vq_used_gpa, 0)
ADDRESS_HALF(device_hi, vq_used_gpa, 32)

/* clang-format off */
static const struct vi_reg common_regs[] = {
	{ VIRTIO_PCI_COMMON_DFSELECT, 4, "device_feature_select", dfselect_read, dfselect_write },
	{ VIRTIO_PCI_COMMON_DF, 4, "device_feature", df_read, NULL },
	{ VIRTIO_PCI_COMMON_GFSELECT, 4, "driver_feature_select", gfselect_read, gfselect_write },
	{ VIRTIO_PCI_COMMON_GF, 4, "driver_feature", gf_read, gf_write },
	{ VIRTIO_PCI_COMMON_MSIX, 2, "config_msix_vector", config_vector_read, config_vector_write },
	{ VIRTIO_PCI_COMMON_NUMQ, 2, "num_queues", num_queues_read, NULL },
	{ VIRTIO_PCI_COMMON_STATUS, 1, "device_status", status_read, status_write },
	{ VIRTIO_PCI_COMMON_CFGGENERATION, 1, "config_generation", generation_read, NULL },
	{ VIRTIO_PCI_COMMON_Q_SELECT, 2, "queue_select", select_read, select_write },
	{ VIRTIO_PCI_COMMON_Q_SIZE, 2, "queue_size", size_read, size_write },
	{ VIRTIO_PCI_COMMON_Q_MSIX, 2, "queue_msix_vector", vector_read, vector_write },
	{ VIRTIO_PCI_COMMON_Q_ENABLE, 2, "queue_enable", enable_read, enable_write },
	{ VIRTIO_PCI_COMMON_Q_NOFF, 2, "queue_notify_off", notify_off_read, NULL },
	{ VIRTIO_PCI_COMMON_Q_DESCLO, 4, "queue_desc", desc_lo_read, desc_lo_write },
	{ VIRTIO_PCI_COMMON_Q_DESCHI, 4, "queue_desc", desc_hi_read, desc_hi_write },
	{ VIRTIO_PCI_COMMON_Q_AVAILLO, 4, "queue_driver", driver_lo_read, driver_lo_write },
	{ VIRTIO_PCI_COMMON_Q_AVAILHI, 4, "queue_driver", driver_hi_read, driver_hi_write },
	{ VIRTIO_PCI_COMMON_Q_USEDLO, 4, "queue_device", device_lo_read, device_lo_write },
	{ VIRTIO_PCI_COMMON_Q_USEDHI, 4, "queue_device", device_hi_read, device_hi_write },
	{ VIRTIO_PCI_COMMON_Q_RESET, 2, "queue_reset", reset_read, reset_write },
};
/* clang-format on */

#define NR_COMMON_REGS ARRAY_LEN(common_regs)

/*
 * --- The BAR ---
 */

/*
 * The address selects the queue. A write has 2 bytes, or 4 with
 * NOTIFICATION_DATA (4.1.5.2). Its value is ignored: the ring in memory says
 * what is available.
 */
static void notify_write(struct virtio_softc *vs, uint64_t off, int size)
{
	const uint64_t bit = VI_BIT(VIRTIO_F_NOTIFICATION_DATA);
	int width = vs->vs_negotiated_caps & bit ? 4 : 2;

	if (size == width && off % NOTIFY_MULTIPLIER == 0)
		vi_kick(vs, (unsigned)(off / NOTIFY_MULTIPLIER));
}

uint64_t vi_modern_read(struct virtio_softc *vs, uint64_t off, int size)
{
	virtio_pci_capcfg_t *cap = vi_pci_cfg_bybaraddr(vs, VIRTIO_MODERN_BAR,
							off, (uint32_t)size);

	if (!cap)
		return UINT64_MAX >> (64 - 8 * size);
	off -= cap->c_baroff;
	switch (cap->c_captype) {
	case VIRTIO_PCI_CAP_COMMON_CFG:
		return vi_regs_read(vs, common_regs, NR_COMMON_REGS, off, size);
	case VIRTIO_PCI_CAP_ISR_CFG:
		return off == 0 ? vi_take_isr(vs) : 0;
	case VIRTIO_PCI_CAP_DEVICE_CFG:
		return vi_devcfg_read(vs, off, size);
	default:
		return 0;
	}
}

void vi_modern_write(struct virtio_softc *vs, uint64_t off, int size,
		     uint64_t val)
{
	virtio_pci_capcfg_t *cap = vi_pci_cfg_bybaraddr(vs, VIRTIO_MODERN_BAR,
							off, (uint32_t)size);

	if (!cap)
		return;
	off -= cap->c_baroff;
	switch (cap->c_captype) {
	case VIRTIO_PCI_CAP_COMMON_CFG:
		vi_regs_write(vs, common_regs, NR_COMMON_REGS, off, size, val);
		break;
	case VIRTIO_PCI_CAP_DEVICE_CFG:
		vi_devcfg_write(vs, off, size, val);
		break;
	case VIRTIO_PCI_CAP_NOTIFY_CFG:
		notify_write(vs, off, size);
		break;
	default:
		break;
	}
}

/*
 * --- Capabilities, 4.1.4 ---
 */

struct cap {
	uint8_t vndr, next, len, type, bar, id, pad[2];
	le32 off, length;
	le32 multiplier; /* NOTIFY_CFG only */
};

static int add_cap(struct virtio_softc *vs, uint8_t type, uint32_t off,
		   uint32_t len)
{
	bool long_cap = type == VIRTIO_PCI_CAP_NOTIFY_CFG ||
			type == VIRTIO_PCI_CAP_PCI_CFG;
	bool in_bar = type != VIRTIO_PCI_CAP_PCI_CFG;
	struct cap cap = {
		.vndr = PCI_CAP_ID_VNDR,
		.len = long_cap ? 20 : 16,
		.type = type,
		.bar = in_bar ? VIRTIO_MODERN_BAR : 0,
		.off = cpu_to_le32(off),
		.length = cpu_to_le32(len),
	};
	int capoff;

	if (type == VIRTIO_PCI_CAP_NOTIFY_CFG)
		cap.multiplier = cpu_to_le32(NOTIFY_MULTIPLIER);
	capoff = pci_add_cap(vs->vs_pi, &cap, cap.len);
	if (capoff < 0)
		return capoff;
	vs->vs_caps[vs->vs_ncaps++] = (virtio_pci_capcfg_t){
		.c_captype = type,
		.c_capoff = (uint32_t)capoff,
		.c_caplen = cap.len,
		.c_barlen = len,
		.c_baroff = off,
		.c_baridx = cap.bar,
	};
	return capoff;
}

int vi_modern_setup(struct virtio_softc *vs)
{
	struct virtio_consts *vc = vs->vs_vc;
	int nvq = vi_max_queues(vs);
	uint32_t notify_len = NOTIFY_MULTIPLIER * (uint32_t)(nvq > 0 ? nvq : 1);
	const struct pci_host *host = vs->vs_pi->pi_host;
	int off;

	if (host && host->ph_doorbell_data)
		vi_offer_also(vs, VI_BIT(VIRTIO_F_NOTIFICATION_DATA));
	if (vc->vc_cfgsize > NOTIFY_OFF - DEVICE_OFF)
		return -1;
	if (add_cap(vs, VIRTIO_PCI_CAP_COMMON_CFG, COMMON_OFF, COMMON_LEN) <
		    0 ||
	    add_cap(vs, VIRTIO_PCI_CAP_ISR_CFG, ISR_OFF, ISR_LEN) < 0)
		return -1;
	if (vc->vc_cfgsize && add_cap(vs, VIRTIO_PCI_CAP_DEVICE_CFG, DEVICE_OFF,
				      ((uint32_t)vc->vc_cfgsize + 3) & ~3u) < 0)
		return -1;
	if (add_cap(vs, VIRTIO_PCI_CAP_NOTIFY_CFG, NOTIFY_OFF, notify_len) < 0)
		return -1;

	off = add_cap(vs, VIRTIO_PCI_CAP_PCI_CFG, 0, 0);
	if (off < 0)
		return -1;
	vs->vs_pcicap = &vs->vs_caps[vs->vs_ncaps - 1];
	/* 4.1.4.9: the driver writes bar, offset, length and data. */
	pci_set_writable(vs->vs_pi, (unsigned)off + VIRTIO_PCI_CAP_BAR, 1);
	pci_set_writable(vs->vs_pi, (unsigned)off + VIRTIO_PCI_CAP_OFFSET, 12);

	return pci_add_bar(vs->vs_pi, VIRTIO_MODERN_BAR, PCI_BAR_MEM64,
			   NOTIFY_OFF + notify_len);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Every declaration of bhyve's interface exists with bhyve's signature.
 * Compiling this file is the test; docs/bhyve-interface.md is the same list
 * for reading.
 */
#include <viodev/virtio.h>

#include <stdio.h>

#define SAME(type, expr)                                                     \
	_Static_assert(__builtin_types_compatible_p(type, __typeof__(expr)), \
		       #expr " is not " #type)
#define FIELD(type, s, field) SAME(type, ((s *)0)->field)
#define FUNC(type, f)         SAME(type, &(f))
#define IS(name, value)       _Static_assert((name) == (value), #name)

/* Macros with a value. */
IS(LEGACY_VRING_ALIGN, 4096);
IS(LEGACY_VRING_PFN, 12);
IS(VIRTIO_VENDOR, 0x1AF4);
IS(VIRTIO_DEV_NET, 0x1000);
IS(VIRTIO_DEV_BLOCK, 0x1001);
IS(VIRTIO_DEV_CONSOLE, 0x1003);
IS(VIRTIO_DEV_SCSI, 0x1004);
IS(VIRTIO_DEV_RANDOM, 0x1005);
IS(VIRTIO_DEV_9P, 0x1009);
IS(VIRTIO_DEV_INPUT, 0x1052);
IS(VIRTIO_REV_INPUT, 1);
IS(VIRTIO_SUBVEN_INPUT, 0x108E);
IS(VIRTIO_SUBDEV_INPUT, 0x1100);
IS(VQ_ALLOC, 0x01);
IS(VQ_ENABLED, 0x02);
IS(VIRTIO_LEGACY_BAR, 0);
IS(VIRTIO_MSIX_BAR, 1);
IS(VIRTIO_MODERN_BAR, 2);

/* Enumerations. */
IS(VIRTIO_DEBUG, 1 << 0);
IS(VIRTIO_USE_MSIX, 1 << 1);
IS(VIRTIO_EVENT_IDX, 1 << 2);
IS(VIRTIO_DEVCFG_CHG, 1 << 3);
IS(VIRTIO_BROKEN, 1 << 4);
IS(VIRTIO_MODE_UNSET, 0);
IS(VIRTIO_MODE_LEGACY, 1);
IS(VIRTIO_MODE_TRANSITIONAL, 2);
IS(VIRTIO_MODE_MODERN, 3);
SAME(enum virtio_flags, (virtio_flags_t)0);
SAME(enum virtio_mode, (virtio_mode_t)0);

/* What bhyve uses of <dev/virtio/virtio.h>. */
IS(VIRTIO_CONFIG_STATUS_DRIVER_OK, 0x04);
IS(VIRTIO_PCI_ISR_INTR, 0x01);
IS(VIRTIO_PCI_ISR_CONFIG, 0x02);
IS(VRING_USED_F_NO_NOTIFY, 1);
_Static_assert(VIRTIO_PCI_CAP_MAX >= 5, "five virtio capabilities");

/* struct virtio_pci_capcfg */
SAME(struct virtio_pci_capcfg, *(virtio_pci_capcfg_t *)0);
FIELD(uint8_t, virtio_pci_capcfg_t, c_captype);
FIELD(uint32_t, virtio_pci_capcfg_t, c_capoff);
FIELD(uint32_t, virtio_pci_capcfg_t, c_caplen);
FIELD(uint32_t, virtio_pci_capcfg_t, c_barlen);
FIELD(uint32_t, virtio_pci_capcfg_t, c_baroff);
FIELD(uint8_t, virtio_pci_capcfg_t, c_baridx);

/* struct virtio_softc */
FIELD(struct virtio_consts *, struct virtio_softc, vs_vc);
FIELD(virtio_flags_t, struct virtio_softc, vs_flags);
FIELD(virtio_mode_t, struct virtio_softc, vs_mode);
FIELD(pthread_mutex_t *, struct virtio_softc, vs_mtx);
FIELD(struct pci_devinst *, struct virtio_softc, vs_pi);
FIELD(uint64_t, struct virtio_softc, vs_negotiated_caps);
FIELD(struct vqueue_info *, struct virtio_softc, vs_queues);
FIELD(int, struct virtio_softc, vs_curq);
FIELD(uint8_t, struct virtio_softc, vs_status);
FIELD(uint8_t, struct virtio_softc, vs_isr);
FIELD(uint16_t, struct virtio_softc, vs_msix_cfg_idx);
FIELD(uint32_t, struct virtio_softc, vs_dfselect);
FIELD(uint32_t, struct virtio_softc, vs_gfselect);
FIELD(uint8_t, struct virtio_softc, vs_devcfg_gen);
FIELD(virtio_pci_capcfg_t[VIRTIO_PCI_CAP_MAX], struct virtio_softc, vs_caps);
FIELD(virtio_pci_capcfg_t *, struct virtio_softc, vs_pcicap);
FIELD(uint_t, struct virtio_softc, vs_ncaps);

/* virtio_capstr_t */
FIELD(uint64_t, virtio_capstr_t, vp_flag);
FIELD(const char *, virtio_capstr_t, vp_name);
SAME(struct virtio_capstr, *(virtio_capstr_t *)0);

/* struct virtio_consts */
FIELD(const char *, struct virtio_consts, vc_name);
FIELD(int, struct virtio_consts, vc_nvq);
FIELD(int, struct virtio_consts, vc_max_nvq);
FIELD(size_t, struct virtio_consts, vc_cfgsize);
FIELD(void (*)(void *), struct virtio_consts, vc_reset);
FIELD(void (*)(void *, uint64_t, bool), struct virtio_consts, vc_qinit);
FIELD(void (*)(void *, struct vqueue_info *), struct virtio_consts, vc_qnotify);
FIELD(int (*)(void *, int, int, uint32_t *), struct virtio_consts, vc_cfgread);
FIELD(int (*)(void *, int, int, uint32_t), struct virtio_consts, vc_cfgwrite);
FIELD(void (*)(void *, uint64_t *), struct virtio_consts, vc_apply_features);
FIELD(uint64_t (*)(void *, bool), struct virtio_consts, vc_hv_features);
FIELD(void (*)(void *, int), struct virtio_consts, vc_set_msix);
FIELD(void (*)(void *, uint64_t), struct virtio_consts, vc_update_msix);
FIELD(uint64_t, struct virtio_consts, vc_hv_caps_legacy);
FIELD(uint64_t, struct virtio_consts, vc_hv_caps_modern);
FIELD(size_t, struct virtio_consts, vc_ncapstr);
FIELD(virtio_capstr_t *, struct virtio_consts, vc_capstr);

/* struct vqueue_info */
FIELD(uint16_t, struct vqueue_info, vq_qsize);
FIELD(void (*)(void *, struct vqueue_info *), struct vqueue_info, vq_notify);
FIELD(struct virtio_softc *, struct vqueue_info, vq_vs);
FIELD(uint16_t, struct vqueue_info, vq_num);
FIELD(uint16_t, struct vqueue_info, vq_flags);
FIELD(uint16_t, struct vqueue_info, vq_last_avail);
FIELD(uint16_t, struct vqueue_info, vq_next_used);
FIELD(uint16_t, struct vqueue_info, vq_save_used);
FIELD(uint16_t, struct vqueue_info, vq_msix_idx);
FIELD(uint32_t, struct vqueue_info, vq_pfn);
FIELD(uint64_t, struct vqueue_info, vq_desc_gpa);
FIELD(uint64_t, struct vqueue_info, vq_avail_gpa);
FIELD(uint64_t, struct vqueue_info, vq_used_gpa);
FIELD(struct vring_desc *, struct vqueue_info, vq_desc);
FIELD(struct vring_avail *, struct vqueue_info, vq_avail);
FIELD(struct vring_used *, struct vqueue_info, vq_used);
_Static_assert(sizeof(VQ_AVAIL_EVENT_IDX((struct vqueue_info *)0)) == 2,
	       "le16");
_Static_assert(sizeof(VQ_USED_EVENT_IDX((struct vqueue_info *)0)) == 2, "le16");

/* struct vi_req */
FIELD(int, struct vi_req, readable);
FIELD(int, struct vi_req, writable);
FIELD(unsigned int, struct vi_req, idx);

/* bhyve's inline functions. */
FUNC(int (*)(struct vqueue_info *), vq_ring_ready);
FUNC(int (*)(struct vqueue_info *), vq_has_descs);
FUNC(void (*)(struct virtio_softc *, uint8_t, uint16_t), vi_interrupt);
FUNC(void (*)(struct virtio_softc *, struct vqueue_info *), vq_interrupt);
FUNC(void (*)(struct virtio_softc *), vq_devcfg_changed);
FUNC(void (*)(struct vqueue_info *), vq_kick_enable);
FUNC(void (*)(struct vqueue_info *), vq_kick_disable);

/* Functions. */
FUNC(void (*)(struct virtio_softc *, struct virtio_consts *, void *,
	      struct pci_devinst *, struct vqueue_info *),
     vi_softc_linkup);
FUNC(void (*)(struct virtio_softc *, struct vqueue_info *), vi_queue_linkup);
FUNC(bool (*)(struct virtio_softc *, bool), vi_intr_init);
FUNC(void (*)(struct pci_devinst *, virtio_mode_t, uint16_t, uint16_t, uint8_t),
     vi_pci_init);
FUNC(bool (*)(struct virtio_softc *), vi_pcibar_setup);
FUNC(virtio_pci_capcfg_t *(*)(struct virtio_softc *, uint8_t),
     vi_pci_cfg_bytype);
FUNC(virtio_pci_capcfg_t *(*)(struct virtio_softc *, uint32_t, uint32_t),
     vi_pci_cfg_bycapaddr);
FUNC(virtio_pci_capcfg_t *(*)(struct virtio_softc *, uint8_t, uint64_t,
			      uint32_t),
     vi_pci_cfg_bybaraddr);
FUNC(void (*)(struct virtio_softc *), vi_reset_dev);
FUNC(void (*)(struct virtio_softc *, bool), vi_set_debug);
FUNC(bool (*)(struct virtio_softc *), vi_is_modern);
FUNC(void (*)(struct virtio_softc *, const char *, ...), vi_error);
FUNC(int (*)(struct vqueue_info *, struct iovec *, int, struct vi_req *),
     vq_getchain);
FUNC(void (*)(struct vqueue_info *, uint16_t), vq_retchains);
FUNC(void (*)(struct vqueue_info *, uint16_t, uint32_t), vq_relchain_prepare);
FUNC(void (*)(struct vqueue_info *), vq_relchain_publish);
FUNC(void (*)(struct vqueue_info *, uint16_t, uint32_t), vq_relchain);
FUNC(void (*)(struct vqueue_info *, int), vq_endchains);
FUNC(int (*)(struct pci_devinst *, int, int, uint32_t *), vi_pci_cfgread);
FUNC(int (*)(struct pci_devinst *, int, int, uint32_t), vi_pci_cfgwrite);
FUNC(uint64_t (*)(struct pci_devinst *, int, uint64_t, int), vi_pci_read);
FUNC(void (*)(struct pci_devinst *, int, uint64_t, int, uint64_t),
     vi_pci_write);
FUNC(void (*)(struct virtio_softc *), vi_vq_init);
FUNC(void (*)(struct virtio_softc *, uint32_t), vi_legacy_vq_init);

/* What bhyve's inline functions call on a PCI function. */
FUNC(bool (*)(struct pci_devinst *), pci_msix_enabled);
FUNC(void (*)(struct pci_devinst *, int), pci_generate_msix);
FUNC(void (*)(struct pci_devinst *, int), pci_generate_msi);
FUNC(void (*)(struct pci_devinst *), pci_lintr_assert);

/* Macros that are statements compile where bhyve's do. */
static void use_lock(struct virtio_softc *vs)
{
	if (vs)
		VS_LOCK(vs);
	else
		return;
	VS_UNLOCK(vs);
}

int main(void)
{
	pthread_mutex_t mtx = PTHREAD_MUTEX_INITIALIZER;
	struct virtio_softc vs = { .vs_mtx = &mtx };

	use_lock(&vs);
	vs.vs_mtx = NULL;
	use_lock(&vs);
	puts("every declaration of bhyve is there");
	return 0;
}

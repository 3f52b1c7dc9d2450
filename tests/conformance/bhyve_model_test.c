/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A device model written against bhyve's virtio.h alone, in the style of its
 * authors' models. It exercises each declaration in all three modes, with and
 * without MSI-X. The code below "The driver" is ours.
 */
#include <endian.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <viodev/virtio.h>

#define ECHO_F_LOUD  (1 << 3)
#define ECHO_RINGSZ  64
#define ECHO_MAXSEGS 8
#define ECHO_CAPS    (VI_BIT(VIRTIO_RING_F_INDIRECT_DESC) | ECHO_F_LOUD)

struct echo_softc {
	struct virtio_softc es_vs;
	pthread_mutex_t es_mtx;
	struct virtio_consts es_consts;
	struct vqueue_info es_queues[5]; /* of which two are in use */
	uint8_t es_cfg[8];
	uint64_t es_features;

	unsigned es_resets, es_qinits[2], es_set_msix[2], es_update_msix;
	unsigned es_qnotify, es_vq_notify, es_apply;
	uint16_t es_next_qsize;
};

static void echo_reset(void *vsc)
{
	struct echo_softc *sc = vsc;

	sc->es_resets++;
	sc->es_features = 0;
	vi_reset_dev(&sc->es_vs);
	if (sc->es_next_qsize)
		sc->es_queues[1].vq_qsize = sc->es_next_qsize;
}

static void echo_qinit(void *vsc, uint64_t pfn, bool modern)
{
	struct echo_softc *sc = vsc;

	sc->es_qinits[modern]++;
	if (modern)
		vi_vq_init(&sc->es_vs);
	else
		vi_legacy_vq_init(&sc->es_vs, (uint32_t)pfn);
}

static void echo_proc(struct vqueue_info *vq)
{
	struct iovec iov[ECHO_MAXSEGS];
	struct vi_req req;
	uint32_t len;
	int n;

	while (vq_has_descs(vq)) {
		n = vq_getchain(vq, iov, ECHO_MAXSEGS, &req);
		if (n <= 0)
			break;
		len = 0;
		if (req.readable > 0 && req.writable > 0) {
			size_t r = iov[0].iov_len;
			size_t w = iov[req.readable].iov_len;

			len = (uint32_t)(r < w ? r : w);
			memcpy(iov[req.readable].iov_base, iov[0].iov_base,
			       len);
		}
		vq_relchain_prepare(vq, (uint16_t)req.idx, len);
	}
	vq_relchain_publish(vq);
	vq_endchains(vq, 1);
}

static void echo_qnotify(void *vsc, struct vqueue_info *vq)
{
	struct echo_softc *sc = vsc;

	sc->es_qnotify++;
	vq_kick_disable(vq);
	echo_proc(vq);
	vq_kick_enable(vq);
	echo_proc(vq);
}

static void echo_vq_notify(void *vsc, struct vqueue_info *vq)
{
	struct echo_softc *sc = vsc;

	sc->es_vq_notify++;
	vq_kick_disable(vq);
	echo_proc(vq);
	vq_kick_enable(vq);
	echo_proc(vq);
}

static int echo_cfgread(void *vsc, int offset, int size, uint32_t *retval)
{
	struct echo_softc *sc = vsc;

	*retval = 0;
	memcpy(retval, &sc->es_cfg[offset], (size_t)size);
	*retval = le32toh(*retval);
	return 0;
}

static int echo_cfgwrite(void *vsc, int offset, int size, uint32_t value)
{
	struct echo_softc *sc = vsc;

	value = htole32(value);
	memcpy(&sc->es_cfg[offset], &value, (size_t)size);
	return 0;
}

static void echo_apply_features(void *vsc, uint64_t *features)
{
	struct echo_softc *sc = vsc;

	sc->es_apply++;
	sc->es_features = *features;
}

static uint64_t echo_hv_features(void *vsc, bool modern)
{
	return ECHO_CAPS | VI_BIT(VIRTIO_RING_F_EVENT_IDX) |
	       (modern ? VI_BIT(VIRTIO_F_VERSION_1) :
			 VI_BIT(VIRTIO_F_NOTIFY_ON_EMPTY));
}

static void echo_set_msix(void *vsc, int queue)
{
	struct echo_softc *sc = vsc;

	sc->es_set_msix[queue]++;
}

static void echo_update_msix(void *vsc, uint64_t offset)
{
	struct echo_softc *sc = vsc;

	sc->es_update_msix++;
}

static virtio_capstr_t echo_caps[] = {
	{ ECHO_F_LOUD, "ECHO_F_LOUD" },
};

static const struct virtio_consts echo_vi_consts = {
	.vc_name = "vtecho",
	.vc_nvq = 2,
	.vc_max_nvq = 2,
	.vc_cfgsize = 8,
	.vc_reset = echo_reset,
	.vc_qinit = echo_qinit,
	.vc_qnotify = echo_qnotify,
	.vc_cfgread = echo_cfgread,
	.vc_cfgwrite = echo_cfgwrite,
	.vc_apply_features = echo_apply_features,
	.vc_hv_features = echo_hv_features,
	.vc_set_msix = echo_set_msix,
	.vc_update_msix = echo_update_msix,
	.vc_hv_caps_legacy = ECHO_CAPS,
	.vc_hv_caps_modern = ECHO_CAPS | VI_BIT(VIRTIO_F_VERSION_1),
	.vc_ncapstr = 1,
	.vc_capstr = echo_caps,
};

static void echo_init(struct echo_softc *sc, struct pci_devinst *pi,
		      const struct virtio_consts *consts, virtio_mode_t mode,
		      bool use_msix)
{
	memset(sc, 0, sizeof(*sc));
	memcpy(sc->es_cfg, "\1\2\3\4\5\6\7\10", 8);
	pthread_mutex_init(&sc->es_mtx, NULL);
	sc->es_consts = *consts;
	vi_softc_linkup(&sc->es_vs, &sc->es_consts, sc, pi, sc->es_queues);
	sc->es_vs.vs_mtx = &sc->es_mtx;
	sc->es_queues[0].vq_qsize = ECHO_RINGSZ;
	sc->es_queues[0].vq_notify = echo_vq_notify;
	sc->es_queues[1].vq_qsize = ECHO_RINGSZ;
	vi_pci_init(pi, mode, VIRTIO_DEV_BLOCK, VIRTIO_ID_BLOCK, PCIC_STORAGE);
	if (!vi_intr_init(&sc->es_vs, use_msix) || !vi_pcibar_setup(&sc->es_vs))
		fail_msg("the device cannot be made");
}

/*
 * --- The driver ---
 */

#include "base/util.h"
#include "vdrv.h"

static struct vdrv drv;
static struct echo_softc sc;
static struct virtio_softc *const vs = &sc.es_vs;
static struct pci_devinst *const pi = &drv.pi;

/* Mode of the device, of its driver, MSI-X. */
static const struct setting {
	virtio_mode_t mode;
	enum vdrv_mode driver;
	bool msix;
} settings[] = {
	{ VIRTIO_MODE_LEGACY, VDRV_LEGACY, false },
	{ VIRTIO_MODE_LEGACY, VDRV_LEGACY, true },
	{ VIRTIO_MODE_TRANSITIONAL, VDRV_LEGACY, false },
	{ VIRTIO_MODE_TRANSITIONAL, VDRV_LEGACY, true },
	{ VIRTIO_MODE_TRANSITIONAL, VDRV_MODERN, false },
	{ VIRTIO_MODE_TRANSITIONAL, VDRV_MODERN, true },
	{ VIRTIO_MODE_MODERN, VDRV_MODERN, false },
	{ VIRTIO_MODE_MODERN, VDRV_MODERN, true },
};

#define MODERN_SETTING (&settings[7])
#define LEGACY_SETTING (&settings[1])

static void make(const struct setting *s, const struct virtio_consts *consts)
{
	vdrv_init(&drv, s->driver);
	echo_init(&sc, pi, consts, s->mode, s->msix);
}

static void drop(void)
{
	vi_softc_fini(vs);
	vdrv_fini(&drv);
}

static void start(const struct setting *s, uint64_t features)
{
	make(s, &echo_vi_consts);
	assert_true(vdrv_start(&drv, VI_BIT(VIRTIO_F_VERSION_1) | features, 2));
}

static uint16_t add(unsigned q)
{
	struct vdrv_buf bufs[] = {
		{ VDRV_MEM_BASE + 0x100000, 5, VDRV_R },
		{ VDRV_MEM_BASE + 0x100100, 9, VDRV_W },
	};

	memcpy(vdrv_ptr(&drv, bufs[0].gpa, 5), "hello", 5);
	memset(vdrv_ptr(&drv, bufs[1].gpa, 9), 0, 9);
	return vdrv_add(&drv, q, bufs, 2);
}

static void serve(unsigned q)
{
	struct vdrv_used used;
	uint16_t head = add(q);

	vdrv_kick(&drv, q);
	assert_true(vdrv_used(&drv, q, &used));
	assert_int_equal(used.id, head);
	assert_int_equal(used.len, 5);
	assert_memory_equal(vdrv_ptr(&drv, VDRV_MEM_BASE + 0x100100, 6),
			    "hello", 6);
}

/* The whole life in every setting; what is set up along the way. */
static void test_life(void **state)
{
	for (size_t i = 0; i < ARRAY_LEN(settings); i++) {
		const struct setting *s = &settings[i];
		bool modern = s->driver == VDRV_MODERN;

		start(s, ECHO_CAPS);
		assert_int_equal(vs->vs_mode, s->mode);
		assert_int_equal(!!(vs->vs_flags & VIRTIO_USE_MSIX), s->msix);
		assert_int_equal(vi_is_modern(vs), modern);
		assert_int_equal(sc.es_qinits[modern], 2);
		assert_int_equal(sc.es_qinits[!modern], 0);
		assert_true(sc.es_apply >= 1);
		assert_true(sc.es_features & ECHO_F_LOUD);
		assert_int_equal(vs->vs_negotiated_caps, sc.es_features);
		assert_true(vs->vs_status & VIRTIO_CONFIG_STATUS_DRIVER_OK);
		if (s->msix) {
			assert_true(sc.es_set_msix[0] && sc.es_set_msix[1]);
			assert_true(sc.es_update_msix > 0);
			assert_int_equal(vs->vs_msix_cfg_idx, 0);
			assert_int_equal(sc.es_queues[1].vq_msix_idx, 2);
		}
		for (unsigned q = 0; q < 2; q++) {
			struct vqueue_info *vq = &sc.es_queues[q];
			unsigned before =
				s->msix ? drv.nr_msix[q + 1] : drv.nr_intx;

			assert_true(vq_ring_ready(vq));
			assert_true(vq->vq_flags & VQ_ALLOC);
			assert_int_equal(!!(vq->vq_flags & VQ_ENABLED), modern);
			assert_ptr_equal(vq->vq_vs, vs);
			assert_int_equal(vq->vq_num, q);
			assert_int_equal(vq->vq_desc_gpa, drv.q[q].desc);
			assert_int_equal(vq->vq_avail_gpa, drv.q[q].avail);
			assert_int_equal(vq->vq_used_gpa, drv.q[q].used);
			assert_ptr_equal(vq->vq_desc,
					 vdrv_ptr(&drv, drv.q[q].desc, 1));
			assert_ptr_equal(vq->vq_avail,
					 vdrv_ptr(&drv, drv.q[q].avail, 1));
			assert_ptr_equal(vq->vq_used,
					 vdrv_ptr(&drv, drv.q[q].used, 1));
			if (!modern)
				assert_int_equal(vq->vq_pfn,
						 vq->vq_desc_gpa >>
							 LEGACY_VRING_PFN);
			serve(q);
			assert_int_equal(vq->vq_last_avail, 1);
			assert_int_equal(vq->vq_next_used, 1);
			assert_int_equal(vq->vq_save_used, 1);
			assert_int_equal(s->msix ? drv.nr_msix[q + 1] :
						   drv.nr_intx,
					 before + 1);
			vdrv_isr(&drv);
		}
		assert_true(sc.es_vq_notify && sc.es_qnotify);
		assert_int_equal(vdrv_cfg_read(&drv, 4, 4), 0x08070605);
		vdrv_cfg_write(&drv, 2, 2, 0xbeef);
		assert_int_equal(sc.es_cfg[3], 0xbe);

		vdrv_reset(&drv);
		assert_true(sc.es_resets >= 1);
		assert_false(vq_ring_ready(&sc.es_queues[0]));
		assert_int_equal(vs->vs_msix_cfg_idx, VIRTIO_MSI_NO_VECTOR);
		assert_true(vdrv_start(&drv, VI_BIT(VIRTIO_F_VERSION_1), 2));
		serve(1);
		drop();
	}
}

/* A table without a single callback; the queues have no vq_notify either. */
static void test_no_callbacks(void **state)
{
	const struct virtio_consts none = {
		.vc_name = "none",
		.vc_nvq = 2,
		.vc_hv_caps_legacy = ECHO_CAPS,
		.vc_hv_caps_modern = ECHO_CAPS,
	};

	for (size_t i = 0; i < ARRAY_LEN(settings); i++) {
		struct iovec iov[4];
		struct vi_req req;

		make(&settings[i], &none);
		sc.es_queues[0].vq_notify = NULL;
		vi_set_debug(vs, i & 1);
		assert_true(vdrv_start(&drv, UINT64_MAX, 2));
		for (unsigned off = 0; off < 32; off++) {
			vdrv_cfg_read(&drv, off, 1);
			vdrv_cfg_write(&drv, off, 1, 0xff);
		}
		add(0);
		vdrv_kick(&drv, 0);
		assert_false(vdrv_used(&drv, 0, NULL));
		/* Served by hand it works. */
		assert_int_equal(vq_getchain(&sc.es_queues[0], iov, 4, &req),
				 2);
		vq_relchain(&sc.es_queues[0], (uint16_t)req.idx, 3);
		vq_endchains(&sc.es_queues[0], 1);
		assert_true(vdrv_used(&drv, 0, NULL));
		vdrv_reset(&drv);
		assert_true(vdrv_start(&drv, UINT64_MAX, 2));
		drop();
	}
}

static void test_identity(void **state)
{
	make(MODERN_SETTING, &echo_vi_consts);
	assert_int_equal(pci_get_cfg16(pi, 0), VIRTIO_VENDOR);
	assert_int_equal(pci_get_cfg16(pi, 2), 0x1040 + VIRTIO_ID_BLOCK);
	assert_int_equal(pci_get_cfg8(pi, 11), PCIC_STORAGE);
	assert_int_equal(pci_bar_type(pi, VIRTIO_MODERN_BAR), PCI_BAR_MEM64);
	assert_true(pci_bar_size(pi, VIRTIO_MSIX_BAR) > 0);
	drop();
	make(LEGACY_SETTING, &echo_vi_consts);
	assert_int_equal(pci_get_cfg16(pi, 2), VIRTIO_DEV_BLOCK);
	assert_int_equal(pci_bar_type(pi, VIRTIO_LEGACY_BAR), PCI_BAR_IO);
	drop();
}

/* vc_hv_features before the constants; the constants without it. */
static void test_offer(void **state)
{
	struct virtio_consts plain = echo_vi_consts;

	make(MODERN_SETTING, &echo_vi_consts);
	vdrv_probe(&drv);
	assert_int_equal(vdrv_offer(&drv), echo_hv_features(&sc, true));
	drop();
	make(LEGACY_SETTING, &echo_vi_consts);
	vdrv_probe(&drv);
	assert_int_equal(vdrv_offer(&drv), echo_hv_features(&sc, false));
	drop();

	plain.vc_hv_features = NULL;
	make(MODERN_SETTING, &plain);
	vdrv_probe(&drv);
	assert_int_equal(vdrv_offer(&drv), plain.vc_hv_caps_modern);
	drop();
	make(LEGACY_SETTING, &plain);
	vdrv_probe(&drv);
	assert_int_equal(vdrv_offer(&drv), plain.vc_hv_caps_legacy);
	drop();
}

/* vq_retchains, vq_relchain_prepare, vq_relchain_publish. */
static void test_chains(void **state)
{
	for (size_t i = 0; i < ARRAY_LEN(settings); i++) {
		struct vqueue_info *vq = &sc.es_queues[1];
		struct iovec iov[4];
		struct vi_req req;
		unsigned idx[3];

		start(&settings[i], 0);
		for (int k = 0; k < 3; k++) {
			add(1);
			assert_true(vq_has_descs(vq));
			assert_int_equal(vq_getchain(vq, iov, 4, &req), 2);
			assert_int_equal(req.readable, 1);
			assert_int_equal(req.writable, 1);
			idx[k] = req.idx;
		}
		assert_false(vq_has_descs(vq));
		vq_retchains(vq, 2);
		for (int k = 1; k < 3; k++) {
			assert_int_equal(vq_getchain(vq, iov, 4, &req), 2);
			assert_int_equal(req.idx, idx[k]);
		}
		for (int k = 0; k < 3; k++)
			vq_relchain_prepare(vq, (uint16_t)idx[k], 1);
		assert_false(vdrv_used(&drv, 1, NULL));
		vq_relchain_publish(vq);
		for (int k = 0; k < 3; k++)
			assert_true(vdrv_used(&drv, 1, NULL));
		drop();
	}
}

/* VQ_AVAIL_EVENT_IDX, VQ_USED_EVENT_IDX and VIRTIO_EVENT_IDX. */
static void test_event_idx(void **state)
{
	struct vqueue_info *vq = &sc.es_queues[0];

	start(MODERN_SETTING, VI_BIT(VIRTIO_RING_F_EVENT_IDX));
	assert_true(vs->vs_flags & VIRTIO_EVENT_IDX);
	serve(0);
	serve(0);
	assert_int_equal(le16toh(VQ_AVAIL_EVENT_IDX(vq)), 2);
	assert_int_equal(VQ_AVAIL_EVENT_IDX(vq),
			 htole16(vdrv_avail_event(&drv, 0)));
	vdrv_set_used_event(&drv, 0, 0x1234);
	assert_int_equal(le16toh(VQ_USED_EVENT_IDX(vq)), 0x1234);
	vdrv_reset(&drv);
	assert_false(vs->vs_flags & VIRTIO_EVENT_IDX);
	drop();
}

/* vi_interrupt, vq_interrupt, vq_devcfg_changed; only once it is live. */
static void test_interrupts(void **state)
{
	for (size_t i = 0; i < ARRAY_LEN(settings); i++) {
		const struct setting *s = &settings[i];

		make(s, &echo_vi_consts);
		vq_interrupt(vs, &sc.es_queues[0]);
		vi_interrupt(vs, VIRTIO_PCI_ISR_INTR, 0);
		vq_devcfg_changed(vs);
		assert_int_equal(drv.nr_intx + drv.nr_msix[0], 0);
		assert_true(vdrv_start(&drv, UINT64_MAX, 2));
		vdrv_isr(&drv);

		vq_interrupt(vs, &sc.es_queues[1]);
		assert_int_equal(s->msix ? drv.nr_msix[2] : drv.nr_intx, 1);
		if (!s->msix)
			assert_int_equal(vdrv_isr(&drv), VIRTIO_PCI_ISR_INTR);
		vi_interrupt(vs, VIRTIO_PCI_ISR_INTR, 1);
		assert_int_equal(s->msix ? drv.nr_msix[1] : drv.nr_intx,
				 s->msix ? 1 : 2);
		vdrv_isr(&drv);
		vq_devcfg_changed(vs);
		assert_true(vs->vs_isr & VIRTIO_PCI_ISR_CONFIG);
		assert_int_equal(s->msix ? drv.nr_msix[0] : drv.nr_intx,
				 s->msix ? 1 : 3);
		assert_true(vdrv_isr(&drv) & VIRTIO_PCI_ISR_CONFIG);
		assert_int_equal(vs->vs_isr, 0);
		drop();
	}
}

/* VIRTIO_DEVCFG_CHG and vs_devcfg_gen: a mark, then a new generation. */
static void test_generation(void **state)
{
	uint8_t gen;

	start(MODERN_SETTING, 0);
	gen = vs->vs_devcfg_gen;
	vdrv_cfg_read(&drv, 0, 1);
	vq_devcfg_changed(vs);
	vdrv_cfg_read(&drv, 0, 1);
	assert_int_not_equal(
		vdrv_common_read(&drv, VIRTIO_PCI_COMMON_CFGGENERATION, 1),
		gen);
	assert_int_not_equal(vs->vs_devcfg_gen, gen);
	assert_false(vs->vs_flags & VIRTIO_DEVCFG_CHG);
	vq_devcfg_changed(vs);
	assert_true(vs->vs_flags & VIRTIO_DEVCFG_CHG);
	drop();
}

/* vi_error and VIRTIO_BROKEN. */
static void test_error(void **state)
{
	for (size_t i = 0; i < ARRAY_LEN(settings); i++) {
		bool modern = settings[i].driver == VDRV_MODERN;

		start(&settings[i], 0);
		vi_error(vs, "%s: %d", "no", 1);
		assert_true(vs->vs_flags & VIRTIO_BROKEN);
		assert_int_equal(!!(vdrv_status(&drv) &
				    VIRTIO_CONFIG_STATUS_NEEDS_RESET),
				 modern);
		assert_non_null(strstr(drv.last_log, "vtecho: no: 1"));
		assert_false(vq_has_descs(&sc.es_queues[0]));
		vdrv_reset(&drv);
		assert_false(vs->vs_flags & VIRTIO_BROKEN);
		drop();
	}
}

/* vi_set_debug, vc_capstr. */
static char log_text[16384];

static void keep_log(void *arg, int level, const char *msg)
{
	size_t n = strlen(log_text);

	if (n + strlen(msg) + 2 < sizeof(log_text)) {
		strcat(log_text, msg);
		strcat(log_text, "\n");
	}
}

static void test_debug(void **state)
{
	static const struct pci_host host = { .ph_log = keep_log };

	for (int on = 0; on < 2; on++) {
		make(MODERN_SETTING, &echo_vi_consts);
		pi->pi_host = &host;
		log_text[0] = '\0';
		vi_set_debug(vs, on);
		assert_int_equal(!!(vs->vs_flags & VIRTIO_DEBUG), on);
		assert_true(vdrv_start(&drv, UINT64_MAX, 1));
		assert_int_equal(!!strstr(log_text, "ECHO_F_LOUD"), on);
		assert_int_equal(!!strstr(log_text, "VERSION_1"), on);
		assert_int_equal(log_text[0] != '\0', on);
		vdrv_reset(&drv);
		assert_int_equal(!!(vs->vs_flags & VIRTIO_DEBUG), on);
		drop();
	}
}

/* vi_pci_cfg_bytype, _bycapaddr, _bybaraddr; vs_caps, vs_ncaps, vs_pcicap. */
static void test_lookups(void **state)
{
	virtio_pci_capcfg_t *cap;

	start(MODERN_SETTING, 0);
	assert_true(vs->vs_ncaps >= 5 && vs->vs_ncaps <= VIRTIO_PCI_CAP_MAX);
	for (uint8_t type = 1; type <= 5; type++) {
		cap = vi_pci_cfg_bytype(vs, type);
		assert_non_null(cap);
		assert_true(cap >= vs->vs_caps &&
			    cap < vs->vs_caps + vs->vs_ncaps);
		assert_int_equal(cap->c_captype, type);
		assert_int_equal(pci_get_cfg8(pi, cap->c_capoff), 0x09);
		assert_int_equal(pci_get_cfg8(pi, cap->c_capoff + 2),
				 cap->c_caplen);
		assert_int_equal(pci_get_cfg8(pi, cap->c_capoff + 3), type);

		assert_ptr_equal(vi_pci_cfg_bycapaddr(vs, cap->c_capoff, 1),
				 cap);
		assert_ptr_equal(
			vi_pci_cfg_bycapaddr(
				vs, cap->c_capoff + cap->c_caplen - 4, 4),
			cap);
		assert_null(vi_pci_cfg_bycapaddr(
			vs, cap->c_capoff + cap->c_caplen - 2, 4));
		if (type == VIRTIO_PCI_CAP_PCI_CFG)
			continue;
		assert_ptr_equal(vi_pci_cfg_bybaraddr(vs, cap->c_baridx,
						      cap->c_baroff, 1),
				 cap);
		assert_ptr_equal(vi_pci_cfg_bybaraddr(
					 vs, cap->c_baridx,
					 cap->c_baroff + cap->c_barlen - 1, 1),
				 cap);
		assert_null(vi_pci_cfg_bybaraddr(
			vs, cap->c_baridx, cap->c_baroff + cap->c_barlen - 1,
			2));
		assert_null(vi_pci_cfg_bybaraddr(vs, 5, cap->c_baroff, 1));
	}
	assert_ptr_equal(vs->vs_pcicap,
			 vi_pci_cfg_bytype(vs, VIRTIO_PCI_CAP_PCI_CFG));
	assert_null(vi_pci_cfg_bytype(vs, 0x77));
	assert_null(vi_pci_cfg_bycapaddr(vs, 0xfffffffc, 8));
	assert_null(vi_pci_cfg_bybaraddr(vs, VIRTIO_MODERN_BAR, UINT64_MAX, 4));
	drop();

	start(LEGACY_SETTING, 0);
	assert_null(vi_pci_cfg_bytype(vs, VIRTIO_PCI_CAP_COMMON_CFG));
	assert_null(vi_pci_cfg_bybaraddr(vs, VIRTIO_MODERN_BAR, 0, 4));
	drop();
}

/* vi_pci_read and vi_pci_write, called as an embedder of bhyve does. */
static void test_direct_bar_access(void **state)
{
	virtio_pci_capcfg_t *common, *cfg;

	start(MODERN_SETTING, 0);
	common = vi_pci_cfg_bytype(vs, VIRTIO_PCI_CAP_COMMON_CFG);
	cfg = vi_pci_cfg_bytype(vs, VIRTIO_PCI_CAP_DEVICE_CFG);
	assert_int_equal(vi_pci_read(pi, VIRTIO_MODERN_BAR,
				     common->c_baroff + VIRTIO_PCI_COMMON_NUMQ,
				     2),
			 2);
	vi_pci_write(pi, VIRTIO_MODERN_BAR,
		     common->c_baroff + VIRTIO_PCI_COMMON_Q_SELECT, 2, 1);
	assert_int_equal(vs->vs_curq, 1);
	vi_pci_write(pi, VIRTIO_MODERN_BAR,
		     common->c_baroff + VIRTIO_PCI_COMMON_DFSELECT, 4, 1);
	assert_int_equal(vs->vs_dfselect, 1);
	vi_pci_write(pi, VIRTIO_MODERN_BAR,
		     common->c_baroff + VIRTIO_PCI_COMMON_GFSELECT, 4, 7);
	assert_int_equal(vs->vs_gfselect, 7);
	assert_int_equal(vi_pci_read(pi, VIRTIO_MODERN_BAR, cfg->c_baroff, 4),
			 0x04030201);
	/* The MSI-X table is theirs too. */
	assert_int_equal(vi_pci_read(pi, VIRTIO_MSIX_BAR, drv.msix_off, 4),
			 VDRV_MSIX_ADDR(0));
	sc.es_update_msix = 0;
	vi_pci_write(pi, VIRTIO_MSIX_BAR, drv.msix_off + 12, 4, 1);
	assert_int_equal(sc.es_update_msix, 1);
	/* Nothing is there. */
	for (int bar = -1; bar < 8; bar++)
		for (int size = -1; size < 10; size++) {
			vi_pci_read(pi, bar, 0x100000, size);
			vi_pci_write(pi, bar, 0x100000, size, 1);
		}
	vi_pci_write(pi, VIRTIO_MODERN_BAR,
		     common->c_baroff + VIRTIO_PCI_COMMON_STATUS, 1, 0);
	assert_int_equal(vs->vs_status, 0);
	drop();

	start(LEGACY_SETTING, 0);
	assert_int_equal(
		vi_pci_read(pi, VIRTIO_LEGACY_BAR, VIRTIO_PCI_QUEUE_NUM, 2),
		ECHO_RINGSZ);
	vi_pci_write(pi, VIRTIO_LEGACY_BAR, VIRTIO_PCI_STATUS, 1, 0);
	assert_int_equal(vs->vs_status, 0);
	drop();
}

/* vi_pci_cfgread and vi_pci_cfgwrite: the window is theirs, the rest not. */
static void test_direct_config_access(void **state)
{
	virtio_pci_capcfg_t *common;
	uint32_t val, cap;

	start(MODERN_SETTING, 0);
	common = vi_pci_cfg_bytype(vs, VIRTIO_PCI_CAP_COMMON_CFG);
	cap = vs->vs_pcicap->c_capoff;
	assert_int_equal(vi_pci_cfgread(pi, 0, 4, &val), PE_CFGRW_DEFAULT);
	assert_int_equal(vi_pci_cfgwrite(pi, 4, 2, 0), PE_CFGRW_DEFAULT);

	pci_cfg_write(pi, cap + 4, 1, VIRTIO_MODERN_BAR);
	pci_cfg_write(pi, cap + 8, 4,
		      common->c_baroff + VIRTIO_PCI_COMMON_NUMQ);
	pci_cfg_write(pi, cap + 12, 4, 2);
	assert_int_not_equal(vi_pci_cfgread(pi, (int)cap + 16, 2, &val),
			     PE_CFGRW_DEFAULT);
	assert_int_equal(val, 2);
	pci_cfg_write(pi, cap + 8, 4,
		      common->c_baroff + VIRTIO_PCI_COMMON_Q_SELECT);
	assert_int_not_equal(vi_pci_cfgwrite(pi, (int)cap + 16, 2, 1),
			     PE_CFGRW_DEFAULT);
	assert_int_equal(vs->vs_curq, 1);
	drop();
}

/* vi_queue_linkup: another array of queues. */
static void test_queue_linkup(void **state)
{
	struct vqueue_info other[2] = {
		{ .vq_qsize = 16 },
		{ .vq_qsize = 32 },
	};

	make(MODERN_SETTING, &echo_vi_consts);
	vi_queue_linkup(vs, other);
	assert_ptr_equal(vs->vs_queues, other);
	for (unsigned q = 0; q < 2; q++) {
		assert_ptr_equal(other[q].vq_vs, vs);
		assert_int_equal(other[q].vq_num, q);
	}
	assert_true(vdrv_start(&drv, UINT64_MAX, 2));
	assert_int_equal(drv.q[0].size, 16);
	assert_int_equal(drv.q[1].size, 32);
	serve(0);
	serve(1);
	drop();
}

/* "Drivers may change vq_qsize after a reset." */
static void test_qsize_after_reset(void **state)
{
	for (size_t i = 0; i < ARRAY_LEN(settings); i++) {
		start(&settings[i], 0);
		assert_int_equal(vdrv_queue_size(&drv, 1), ECHO_RINGSZ);
		sc.es_next_qsize = 256;
		vdrv_reset(&drv);
		assert_int_equal(vdrv_queue_size(&drv, 1), 256);
		assert_true(vdrv_start(&drv, UINT64_MAX, 2));
		assert_int_equal(drv.q[1].size, 256);
		serve(1);
		drop();
	}
}

/* vi_reset_dev from the outside; vc_max_nvq gives vectors. */
static void test_reset_dev(void **state)
{
	struct virtio_consts consts = echo_vi_consts;

	consts.vc_max_nvq = 5;
	make(MODERN_SETTING, &consts);
	assert_int_equal(pci_msix_count(pi), 6);
	assert_true(vdrv_start(&drv, UINT64_MAX, 2));
	serve(0);
	vi_reset_dev(vs);
	assert_int_equal(vs->vs_status, 0);
	assert_int_equal(vs->vs_curq, 0);
	assert_int_equal(vs->vs_negotiated_caps, 0);
	assert_int_equal(sc.es_queues[0].vq_flags, 0);
	assert_int_equal(sc.es_queues[0].vq_last_avail, 0);
	assert_int_equal(sc.es_queues[0].vq_msix_idx, VIRTIO_MSI_NO_VECTOR);
	assert_true(vdrv_start(&drv, UINT64_MAX, 2));
	serve(0);
	drop();
}

/* vs_mtx is held in callbacks and free otherwise. */
static bool was_locked;

static int probe_lock(void *vsc, int offset, int size, uint32_t *retval)
{
	was_locked = pthread_mutex_trylock(&sc.es_mtx) != 0;
	if (!was_locked)
		pthread_mutex_unlock(&sc.es_mtx);
	return 0;
}

static void test_lock(void **state)
{
	start(MODERN_SETTING, 0);
	sc.es_consts.vc_cfgread = probe_lock;
	vdrv_cfg_read(&drv, 0, 1);
	assert_true(was_locked);
	assert_int_equal(pthread_mutex_trylock(&sc.es_mtx), 0);
	pthread_mutex_unlock(&sc.es_mtx);
	drop();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_life),
		cmocka_unit_test(test_no_callbacks),
		cmocka_unit_test(test_identity),
		cmocka_unit_test(test_offer),
		cmocka_unit_test(test_chains),
		cmocka_unit_test(test_event_idx),
		cmocka_unit_test(test_interrupts),
		cmocka_unit_test(test_generation),
		cmocka_unit_test(test_error),
		cmocka_unit_test(test_debug),
		cmocka_unit_test(test_lookups),
		cmocka_unit_test(test_direct_bar_access),
		cmocka_unit_test(test_direct_config_access),
		cmocka_unit_test(test_queue_linkup),
		cmocka_unit_test(test_qsize_after_reset),
		cmocka_unit_test(test_reset_dev),
		cmocka_unit_test(test_lock),
	};

	return cmocka_run_group_tests_name("bhyve_model", tests, NULL, NULL);
}

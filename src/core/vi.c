/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A virtio device's state: status, features, queue set-up, interrupts, and the
 * reaction to a driver that breaks the contract. Transports (the register files
 * of pci/, a vhost-user front-end) drive it; it calls device models back. See
 * <viodev/virtio.h>.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <time.h>

#include "base/util.h"
#include "core/core.h"

/* Drivers wait for a queue reset without a timeout of their own. */
#define QUEUE_RESET_NS (30 * UINT64_C(1000000000))

/*
 * --- Set-up ---
 */

int vi_max_queues(const struct virtio_softc *vs)
{
	return vs->vs_priv ? vs->vs_priv->nr_queues : 0;
}

int vi_nr_queues(const struct virtio_softc *vs)
{
	int max = vi_max_queues(vs);

	return vs->vs_vc->vc_nvq < max ? vs->vs_vc->vc_nvq : max;
}

static struct vq_priv *alloc_queues(int nr)
{
	size_t bytes = (size_t)nr * sizeof(struct vq_priv);
	void *p = aligned_alloc(CACHE_LINE, bytes);

	return p ? memset(p, 0, bytes) : NULL;
}

/* Keeps the state of existing queues. */
static int set_nr_queues(struct vi_priv *priv, int nr)
{
	struct vq_priv *queues = priv->queues;

	if (nr > priv->nr_queues) {
		queues = alloc_queues(nr);
		if (!queues)
			return -ENOMEM;
		for (int i = 0; i < priv->nr_queues; i++)
			queues[i] = priv->queues[i];
		free(priv->queues);
	}
	priv->queues = queues;
	priv->nr_queues = nr;
	return 0;
}

static int link_queues(struct virtio_softc *vs, struct vqueue_info *queues)
{
	const struct virtio_consts *vc = vs->vs_vc;
	struct vi_priv *priv = vs->vs_priv;
	int nr = vc->vc_max_nvq > vc->vc_nvq ? vc->vc_max_nvq : vc->vc_nvq;
	int ret = set_nr_queues(priv, nr);

	vs->vs_queues = queues;
	priv->unarmed = NULL;
	for (int i = 0; i < priv->nr_queues; i++) {
		queues[i].vq_vs = vs;
		queues[i].vq_num = (uint16_t)i;
		queues[i].vq_msix_idx = VIRTIO_MSI_NO_VECTOR;
		queues[i].vq_priv = &priv->queues[i];
		priv->queues[i].gmem = priv->gmem;
		priv->queues[i].dma_off = priv->dma_off;
		priv->queues[i].is_unarmed = false;
	}
	return ret;
}

/* Out of memory: the number of queues does not grow. */
void vi_queue_linkup(struct virtio_softc *vs, struct vqueue_info *queues)
{
	if (vs->vs_priv)
		link_queues(vs, queues);
}

int vi_init(struct virtio_softc *vs, struct virtio_consts *vc,
	    struct vqueue_info *queues, struct gmem *gm,
	    const struct vi_transport *transport, void *arg)
{
	vs->vs_vc = vc;
	vs->vs_msix_cfg_idx = VIRTIO_MSI_NO_VECTOR;
	vs->vs_priv = calloc(1, sizeof(*vs->vs_priv));
	if (!vs->vs_priv)
		return -ENOMEM;
	vs->vs_priv->gmem = gm;
	vi_set_transport(vs, transport, arg);
	if (link_queues(vs, queues) < 0) {
		vi_fini(vs);
		return -ENOMEM;
	}
	return 0;
}

int vi_set_transport(struct virtio_softc *vs,
		     const struct vi_transport *transport, void *arg)
{
	struct vi_priv *priv = vs->vs_priv;

	if (!priv)
		return -ENOMEM;
	priv->transport = transport;
	priv->transport_arg = arg;
	return 0;
}

void vi_fini(struct virtio_softc *vs)
{
	for (int i = 0; i < vi_max_queues(vs); i++)
		vq_slots_fini(&vs->vs_queues[i]);
	if (vs->vs_priv)
		free(vs->vs_priv->queues);
	free(vs->vs_priv);
	vs->vs_priv = NULL;
}

/*
 * --- Reset ---
 */

static void queue_reset(struct vqueue_info *vq)
{
	struct vq_priv *priv = vq->vq_priv;

	vq_slots_forget(vq);
	if (priv->qmax)
		vq->vq_qsize = priv->qmax;
	priv->qmax = 0;
	priv->nr = 0;
	priv->reset_ns = 0;
	priv->packed = false;
	vq->vq_flags = 0;
	vq->vq_last_avail = vq->vq_next_used = vq->vq_save_used = 0;
	priv->kicks_off = false;
	priv->is_silent = false;
	priv->is_quiet = false;
	vq->vq_msix_idx = VIRTIO_MSI_NO_VECTOR;
	vq->vq_pfn = 0;
	vq->vq_desc_gpa = vq->vq_avail_gpa = vq->vq_used_gpa = 0;
	vq->vq_desc = NULL;
	vq->vq_avail = NULL;
	vq->vq_used = NULL;
}

static void reset_queues(struct virtio_softc *vs)
{
	for (int i = 0; i < vi_max_queues(vs); i++)
		queue_reset(&vs->vs_queues[i]);
}

void vi_reset_dev(struct virtio_softc *vs)
{
	struct vi_priv *priv = vs->vs_priv;

	if (!priv) /* vi_intr_init() will report it */
		return;
	reset_queues(vs);
	vs->vs_flags &= ~(virtio_flags_t)(VIRTIO_EVENT_IDX | VIRTIO_BROKEN);
	vs->vs_status = 0;
	vs->vs_negotiated_caps = 0;
	priv->driver_features = 0;
	priv->driver_features_hi = vs->vs_negotiated_caps_hi = 0;
	priv->refused_windows = 0;
	priv->features_final = false;
	vs->vs_curq = 0;
	vs->vs_dfselect = vs->vs_gfselect = 0;
	vs->vs_msix_cfg_idx = VIRTIO_MSI_NO_VECTOR;
	vs->vs_isr = 0;
	priv->transport->reset(vs);
}

/*
 * The driver or the function resets the device. Queues are reset first: the
 * model cannot access a ring while it resets, and queue sizes that it sets are
 * kept.
 */
static void reset(struct virtio_softc *vs)
{
	struct vi_priv *priv = vs->vs_priv;

	if (vs->vs_status)
		priv->old_status = vs->vs_status;
	reset_queues(vs);
	if (vs->vs_vc->vc_reset)
		vs->vs_vc->vc_reset(vs);
	vi_reset_dev(vs);
	priv->nr_resets++;
	/* A wake-up may have been lost while the device was broken. */
	if (priv->nr_stale > 0)
		vi_wake(vs);
}

void vi_reset(struct virtio_softc *vs)
{
	VS_LOCK(vs);
	reset(vs);
	VS_UNLOCK(vs);
}

void vi_quiesce(struct virtio_softc *vs)
{
	VS_LOCK(vs);
	for (int i = 0; i < vi_max_queues(vs); i++) {
		vs->vs_queues[i].vq_priv->paused = true;
		vq_show(&vs->vs_queues[i]);
	}
	if (vs->vs_vc->vc_quiesce)
		vs->vs_vc->vc_quiesce(vs);
	VS_UNLOCK(vs);
}

static void set_resting(struct virtio_softc *vs, bool on)
{
	for (int i = 0; i < vi_max_queues(vs); i++)
		vs->vs_priv->queues[i].resting = on;
}

void vi_give_back(struct virtio_softc *vs)
{
	VS_LOCK(vs);
	set_resting(vs, true);
	if (vs->vs_vc->vc_quiesce)
		vs->vs_vc->vc_quiesce(vs);
	set_resting(vs, false);
	VS_UNLOCK(vs);
}

void vi_new_owner(struct virtio_softc *vs)
{
	VS_LOCK(vs);
	for (int i = 0; i < vi_max_queues(vs); i++)
		vq_slots_disown(&vs->vs_queues[i]);
	vs->vs_priv->transport->reset_done(vs);
	VS_UNLOCK(vs);
}

void vi_set_dma(struct virtio_softc *vs, bool on)
{
	struct vi_priv *priv = vs->vs_priv;

	priv->dma_off = !on;
	for (int i = 0; i < vi_max_queues(vs); i++)
		priv->queues[i].dma_off = !on;
}

bool vi_is_idle(struct virtio_softc *vs)
{
	unsigned nr;

	VS_LOCK(vs);
	nr = vs->vs_priv->nr_stale;
	for (int i = 0; i < vi_max_queues(vs); i++)
		nr += vs->vs_queues[i].vq_priv->nr_inflight -
		      vs->vs_queues[i].vq_priv->nr_done;
	VS_UNLOCK(vs);
	return nr == 0;
}

/*
 * --- Logging and errors ---
 */

static const virtio_capstr_t ring_features[] = {
	{ VI_BIT(VIRTIO_F_NOTIFY_ON_EMPTY), "NOTIFY_ON_EMPTY" },
	{ VI_BIT(VIRTIO_F_ANY_LAYOUT), "ANY_LAYOUT" },
	{ VI_BIT(VIRTIO_RING_F_INDIRECT_DESC), "INDIRECT_DESC" },
	{ VI_BIT(VIRTIO_RING_F_EVENT_IDX), "EVENT_IDX" },
	{ VI_BIT(VIRTIO_F_VERSION_1), "VERSION_1" },
	{ VI_BIT(VIRTIO_F_ACCESS_PLATFORM), "ACCESS_PLATFORM" },
	{ VI_BIT(VIRTIO_F_RING_PACKED), "RING_PACKED" },
	{ VI_BIT(VIRTIO_F_NOTIFICATION_DATA), "NOTIFICATION_DATA" },
	{ VI_BIT(VIRTIO_F_RING_RESET), "RING_RESET" },
};

void vs_log(struct virtio_softc *vs, int level, const char *fmt, ...)
{
	char text[200], line[256];
	va_list ap;

	if (level >= LOG_DEBUG && !(vs->vs_flags & VIRTIO_DEBUG))
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	snprintf(line, sizeof(line), "%s: %s", vs->vs_vc->vc_name, text);
	if (vs->vs_priv)
		vs->vs_priv->transport->log(vs, level, line);
}

void vi_wake(struct virtio_softc *vs)
{
	vs->vs_priv->transport->wake(vs);
}

static const char *feature_name(struct virtio_softc *vs, uint64_t mask)
{
	for (size_t i = 0; i < vs->vs_vc->vc_ncapstr; i++) {
		if (vs->vs_vc->vc_capstr[i].vp_flag & mask)
			return vs->vs_vc->vc_capstr[i].vp_name;
	}
	for (size_t i = 0; i < ARRAY_LEN(ring_features); i++) {
		if (ring_features[i].vp_flag & mask)
			return ring_features[i].vp_name;
	}
	return "?";
}

static void debug_features(struct virtio_softc *vs, const char *what,
			   uint64_t features)
{
	if (!(vs->vs_flags & VIRTIO_DEBUG))
		return;
	vs_log(vs, LOG_DEBUG, "%s features 0x%llx", what,
	       (unsigned long long)features);
	for (unsigned i = 0; i < 64; i++) {
		if (features & VI_BIT(i))
			vs_log(vs, LOG_DEBUG, "  %u %s", i,
			       feature_name(vs, VI_BIT(i)));
	}
}

void vi_set_debug(struct virtio_softc *vs, bool on)
{
	if (on)
		vs->vs_flags |= VIRTIO_DEBUG;
	else
		vs->vs_flags &= ~(virtio_flags_t)VIRTIO_DEBUG;
}

bool vi_is_modern(struct virtio_softc *vs)
{
	return vs->vs_negotiated_caps & VI_BIT(VIRTIO_F_VERSION_1);
}

/* A guest must not be able to fill the log: limit lines per minute. */
#define ERRORS_LOGGED 16
#define ERRORS_NS     (60 * UINT64_C(1000000000))

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * UINT64_C(1000000000) +
	       (uint64_t)ts.tv_nsec;
}

static bool may_log_error(struct virtio_softc *vs)
{
	struct vi_priv *priv = vs->vs_priv;
	uint64_t now = now_ns();

	if (now - priv->errors_since_ns >= ERRORS_NS) {
		if (priv->errors_logged > ERRORS_LOGGED)
			vs_log(vs, LOG_WARNING, "%u more such errors",
			       priv->errors_logged - ERRORS_LOGGED);
		priv->errors_since_ns = now;
		priv->errors_logged = 0;
	}
	return priv->errors_logged++ < ERRORS_LOGGED;
}

void vi_error(struct virtio_softc *vs, const char *fmt, ...)
{
	bool again = vs->vs_flags & VIRTIO_BROKEN;
	char text[160];
	va_list ap;

	/* Once until the next reset. */
	if (!again && may_log_error(vs)) {
		va_start(ap, fmt);
		vsnprintf(text, sizeof(text), fmt, ap);
		va_end(ap);
		vs_log(vs, LOG_WARNING, "%s; device stopped until reset", text);
	}
	vs->vs_flags |= VIRTIO_BROKEN;
	if (again)
		return;
	vs->vs_priv->nr_errors++;
	if (vi_is_modern(vs)) {
		vs->vs_status |= VIRTIO_CONFIG_STATUS_NEEDS_RESET;
		vq_devcfg_changed(vs);
	}
}

/*
 * --- Features, 2.2 ---
 */

/*
 * Reserved bits, and bits that rings and transports would have to implement:
 * they are removed from a model's offer. 2.2.1, 6
 */
#define NOT_IMPLEMENTED  \
	(0xc6000000ull | \
	 (0x1fffull << VIRTIO_F_SR_IOV & ~VI_BIT(VIRTIO_F_RING_RESET)))

uint64_t vi_offer(struct virtio_softc *vs, bool modern)
{
	struct virtio_consts *vc = vs->vs_vc;
	uint64_t offer;

	if (vc->vc_hv_features)
		offer = vc->vc_hv_features(vs, modern);
	else
		offer = modern ? vc->vc_hv_caps_modern : vc->vc_hv_caps_legacy;
	if (!modern)
		return (uint32_t)offer;

	/* These exist only in the legacy interface, 6.3. */
	offer &= ~(VI_BIT(VIRTIO_F_NOTIFY_ON_EMPTY) |
		   VI_BIT(VIRTIO_F_ANY_LAYOUT));
	offer &= ~NOT_IMPLEMENTED;
	return offer | VI_BIT(VIRTIO_F_VERSION_1) | vs->vs_priv->extra_features;
}

void vi_offer_also(struct virtio_softc *vs, uint64_t features)
{
	vs->vs_priv->extra_features |= features;
}

void vi_suspect_iommu(struct virtio_softc *vs)
{
	uint64_t bit = VI_BIT(VIRTIO_F_ACCESS_PLATFORM);

	if (vs->vs_priv->iommu_suspected || !(vi_offer(vs, true) & bit) ||
	    (vs->vs_negotiated_caps & bit))
		return;
	vs->vs_priv->iommu_suspected = true;
	vs_log(vs, LOG_NOTICE,
	       "the driver did not accept ACCESS_PLATFORM: a guest with an "
	       "IOMMU needs a modern driver that does");
}

/* The driver wrote one of the two windows of a mask. */
static void set_window(uint64_t *features, uint32_t high, uint32_t bits)
{
	unsigned shift = high ? 32 : 0;

	*features &= ~(0xffffffffull << shift);
	*features |= (uint64_t)bits << shift;
}

/* No features exist from 128 on: those windows must be 0. */
static void refuse_window(struct vi_priv *priv, uint32_t window, uint32_t bits)
{
	uint32_t bit = 1u << (window < 31 ? window : 31);

	/* Windows from 31 on share a bit, which stays set until a reset. */
	if (window < 31)
		priv->refused_windows &= ~bit;
	priv->refused_windows |= bits ? bit : 0;
}

void vi_set_driver_features(struct virtio_softc *vs, uint32_t window,
			    uint32_t bits)
{
	struct vi_priv *priv = vs->vs_priv;

	if (priv->features_final)
		return;
	if (window > 3) {
		refuse_window(priv, window, bits);
	} else if (window > 1) {
		set_window(&priv->driver_features_hi, window & 1, bits);
		vs->vs_negotiated_caps_hi =
			priv->driver_features_hi & vs->vs_vc->vc_hv_caps_hi;
	} else {
		set_window(&priv->driver_features, window, bits);
		vs->vs_negotiated_caps =
			priv->driver_features & vi_offer(vs, true);
	}
}

/*
 * The features in force have changed, and with them the layout of rings. Some
 * rings may already be set up: registers are written in any order.
 */
static void features_changed(struct virtio_softc *vs)
{
	uint64_t features = vs->vs_negotiated_caps;
	bool event_idx = features & VI_BIT(VIRTIO_RING_F_EVENT_IDX);

	vs->vs_flags &= ~(virtio_flags_t)VIRTIO_EVENT_IDX;
	vs->vs_flags |= event_idx ? VIRTIO_EVENT_IDX : 0;
	for (int i = 0; i < vi_max_queues(vs); i++) {
		struct vqueue_info *vq = &vs->vs_queues[i];

		if ((vq->vq_flags & VQ_ALLOC) && vq_map(vq, features) < 0)
			return;
	}
}

/* The features are final from here on. */
static void features_settled(struct virtio_softc *vs)
{
	vs->vs_priv->features_final = true;
	features_changed(vs);
	debug_features(vs, "negotiated", vs->vs_negotiated_caps);
}

/* The driver sets FEATURES_OK: is its choice acceptable? 2.2.2, 3.1.1 */
static bool check_features(struct virtio_softc *vs)
{
	struct vi_priv *priv = vs->vs_priv;
	uint64_t accepted = priv->driver_features;
	uint64_t accepted_hi = priv->driver_features_hi;

	if (priv->features_final)
		return true;
	debug_features(vs, "offered", vi_offer(vs, true));
	if ((accepted & ~vi_offer(vs, true)) ||
	    (accepted_hi & ~vs->vs_vc->vc_hv_caps_hi) || priv->refused_windows)
		return false;
	if (!(accepted & VI_BIT(VIRTIO_F_VERSION_1)))
		return false;

	vs->vs_negotiated_caps = accepted;
	vs->vs_negotiated_caps_hi = accepted_hi;
	if (vs->vs_vc->vc_apply_features) {
		uint64_t applied = accepted;

		vs->vs_vc->vc_apply_features(vs, &applied);
		if (applied != accepted ||
		    vs->vs_negotiated_caps_hi != accepted_hi)
			return false;
	}
	features_settled(vs);
	return true;
}

void vi_set_legacy_features(struct virtio_softc *vs, uint32_t bits)
{
	if (vs->vs_priv->features_final)
		return;
	vs->vs_negotiated_caps = bits & vi_offer(vs, false);
	vs->vs_negotiated_caps_hi = 0;
	if (vs->vs_vc->vc_apply_features)
		vs->vs_vc->vc_apply_features(vs, &vs->vs_negotiated_caps);
	features_changed(vs);
}

enum why_check {
	DOORBELL,
	ALL,    /* as if each queue had one */
	MISSED, /* DMA was off: only queues that may have had one */
};

static void check_queue(struct virtio_softc *vs, unsigned q,
			enum why_check why);

/*
 * --- Status, 2.1 ---
 */

void vi_set_status(struct virtio_softc *vs, uint8_t status, bool modern)
{
	struct vi_priv *priv = vs->vs_priv;
	const uint8_t live = VIRTIO_CONFIG_STATUS_DRIVER_OK;
	uint8_t old = vs->vs_status;

	vs_log(vs, LOG_DEBUG, "status 0x%02x", status);
	if (status == 0) {
		reset(vs);
		return;
	}
	/* Only the device sets this bit, only a reset clears it. */
	status &= (uint8_t)~VIRTIO_CONFIG_STATUS_NEEDS_RESET;
	status |= old & VIRTIO_CONFIG_STATUS_NEEDS_RESET;

	if (modern) {
		if ((status & VIRTIO_CONFIG_STATUS_FEATURES_OK) &&
		    !check_features(vs))
			status &= (uint8_t)~VIRTIO_CONFIG_STATUS_FEATURES_OK;
		if (!(status & VIRTIO_CONFIG_STATUS_FEATURES_OK))
			status &= (uint8_t)~live;
	} else if ((status & live) && !priv->features_final) {
		/* Modern features are not in force without FEATURES_OK. */
		if (priv->driver_features || priv->driver_features_hi)
			vi_set_legacy_features(
				vs, (uint32_t)vs->vs_negotiated_caps);
		features_settled(vs);
	}
	vs->vs_status = status;

	/* Chains made available earlier must not wait for another kick. */
	if ((status & live) && !(old & live)) {
		for (int i = 0; i < vi_nr_queues(vs); i++)
			check_queue(vs, (unsigned)i, ALL);
	}
}

/*
 * --- Queues ---
 */

struct vqueue_info *vi_selected_queue(struct virtio_softc *vs)
{
	struct vqueue_info *vq;

	if (vs->vs_curq < 0 || vs->vs_curq >= vi_nr_queues(vs))
		return NULL;
	vq = &vs->vs_queues[vs->vs_curq];
	return vq->vq_qsize ? vq : NULL;
}

/* Queues may be set up before or after negotiation. */
static bool may_be_packed(struct virtio_softc *vs)
{
	uint64_t features = vs->vs_priv->features_final ?
				    vs->vs_negotiated_caps :
				    vi_offer(vs, true);

	return features & VI_BIT(VIRTIO_F_RING_PACKED);
}

void vi_set_queue_size(struct vqueue_info *vq, uint16_t size)
{
	struct vq_priv *priv = vq->vq_priv;
	uint16_t max = priv->qmax ? priv->qmax : vq->vq_qsize;

	if (vq->vq_flags || size == 0 || size > max)
		return;
	if ((size & (size - 1)) && !may_be_packed(vq->vq_vs))
		return;
	priv->qmax = max;
	vq->vq_qsize = size;
}

void vi_set_queue_vector(struct virtio_softc *vs, uint16_t vector)
{
	struct vqueue_info *vq = vi_selected_queue(vs);

	if (!vq)
		return;
	vq->vq_msix_idx = vector;
	if (vs->vs_vc->vc_set_msix)
		vs->vs_vc->vc_set_msix(vs, vs->vs_curq);
}

/* A modern driver's features are not in force before FEATURES_OK. */
static uint64_t features_in_force(const struct virtio_softc *vs)
{
	if (vs->vs_priv->features_final)
		return vs->vs_negotiated_caps;
	return vs->vs_flags & VIRTIO_EVENT_IDX ?
		       VI_BIT(VIRTIO_RING_F_EVENT_IDX) :
		       0;
}

void vi_vq_init(struct virtio_softc *vs)
{
	struct vqueue_info *vq = vi_selected_queue(vs);

	if (!vq)
		return;
	vq_slots_forget(vq);
	vq->vq_priv->nr = vq->vq_qsize;
	if (vq_slots_init(vq) < 0) {
		vi_error(vs, "queue %u: out of memory", vq->vq_num);
		return;
	}
	vq->vq_flags = 0;
	if (vq_map(vq, features_in_force(vs)) < 0)
		return;
	vq->vq_flags = VQ_ALLOC;
}

void vi_legacy_vq_init(struct virtio_softc *vs, uint32_t pfn)
{
	struct vqueue_info *vq = vi_selected_queue(vs);
	uint64_t gpa = (uint64_t)pfn << LEGACY_VRING_PFN;

	if (!vq)
		return;
	/* 2.7.2: the layout includes used_event, negotiated or not. */
	vq->vq_pfn = pfn;
	vq->vq_desc_gpa = gpa;
	vq->vq_avail_gpa = gpa + 16ull * vq->vq_qsize;
	vq->vq_used_gpa = (vq->vq_avail_gpa + 6 + 2ull * vq->vq_qsize +
			   LEGACY_VRING_ALIGN - 1) &
			  ~(uint64_t)(LEGACY_VRING_ALIGN - 1);
	vi_vq_init(vs);
}

void vi_enable_queue(struct virtio_softc *vs)
{
	struct vqueue_info *vq = vi_selected_queue(vs);

	if (!vq || vq->vq_flags || (vs->vs_flags & VIRTIO_BROKEN) ||
	    vi_queue_is_resetting(vq))
		return;
	if (vs->vs_vc->vc_qinit)
		vs->vs_vc->vc_qinit(vs, 0, true);
	else
		vi_vq_init(vs);
	if (!(vs->vs_flags & VIRTIO_BROKEN))
		vq->vq_flags |= VQ_ENABLED;
}

bool vi_queue_is_resetting(struct vqueue_info *vq)
{
	struct vq_priv *priv = vq->vq_priv;

	if (priv->reset_ns == 0)
		return false;
	if (priv->nr_stale == 0)
		priv->reset_ns = 0;
	else if (now_ns() - priv->reset_ns >= QUEUE_RESET_NS)
		vi_error(
			vq->vq_vs,
			"queue %u: %u requests still in flight after its reset",
			vq->vq_num, priv->nr_stale);
	return priv->reset_ns != 0;
}

void vi_reset_queue(struct virtio_softc *vs)
{
	const uint64_t bit = VI_BIT(VIRTIO_F_RING_RESET);
	struct vqueue_info *vq = vi_selected_queue(vs);

	if (!vq || !vs->vs_priv->features_final ||
	    !(vs->vs_negotiated_caps & bit) || vi_queue_is_resetting(vq))
		return;
	if (vq->vq_flags)
		vi_pause_queue(vq);
	queue_reset(vq);
	if (vs->vs_vc->vc_qreset)
		vs->vs_vc->vc_qreset(vs, vq);
	vq->vq_priv->reset_ns = now_ns();
}

void vi_pause_queue(struct vqueue_info *vq)
{
	struct vq_priv *priv = vq->vq_priv;
	struct virtio_softc *vs = vq->vq_vs;

	priv->paused = true;
	vq_show(vq);
	if (priv->nr_inflight > 0 && vs->vs_vc->vc_quiesce)
		vs->vs_vc->vc_quiesce(vs);
}

uint32_t vi_stop_queue(struct vqueue_info *vq)
{
	uint16_t vector = vq->vq_msix_idx;
	uint32_t next = vq_base(vq);

	queue_reset(vq);
	vq->vq_msix_idx = vector;
	return next;
}

void vi_set_queue_pfn(struct virtio_softc *vs, uint32_t pfn)
{
	struct vqueue_info *vq = vi_selected_queue(vs);

	/* A live ring cannot move; page 0 removes it (4.1.5.1.3.1). */
	if (!vq || (vs->vs_flags & VIRTIO_BROKEN) || (pfn && vq->vq_flags))
		return;
	if (pfn == 0)
		vi_stop_queue(vq);
	else if (vs->vs_vc->vc_qinit)
		vs->vs_vc->vc_qinit(vs, pfn, false);
	else
		vi_legacy_vq_init(vs, pfn);
}

static void serve(struct virtio_softc *vs, struct vqueue_info *vq)
{
	vq->vq_priv->blocked = false;
	if (vq->vq_notify)
		vq->vq_notify(vs, vq);
	else if (vs->vs_vc->vc_qnotify)
		vs->vs_vc->vc_qnotify(vs, vq);
}

/* Make the model check queue @q, which may or may not exist. */
static void check_queue(struct virtio_softc *vs, unsigned q, enum why_check why)
{
	struct vqueue_info *vq;

	if (q >= (unsigned)vi_nr_queues(vs) || (vs->vs_flags & VIRTIO_BROKEN))
		return;
	vq = &vs->vs_queues[q];
	/* A model that returns stale chains from here must be called. */
	if (!vq->vq_flags && vs->vs_priv->nr_stale == 0)
		return;
	if ((vq->vq_flags & VQ_ENABLED) &&
	    !(vs->vs_status & VIRTIO_CONFIG_STATUS_DRIVER_OK))
		return;

	if (why == MISSED && vq->vq_priv->is_quiet &&
	    vs->vs_priv->nr_stale == 0)
		return;
	vq->vq_priv->is_quiet = false;
	vq->vq_priv->nr_kicks += why == DOORBELL;
	serve(vs, vq);
}

void vi_kick(struct virtio_softc *vs, unsigned q)
{
	check_queue(vs, q, DOORBELL);
}

static void check_queues(struct virtio_softc *vs, enum why_check why)
{
	VS_LOCK(vs);
	for (int i = 0; i < vi_nr_queues(vs); i++) {
		vq_give_back_done(&vs->vs_queues[i]);
		check_queue(vs, (unsigned)i, why);
	}
	VS_UNLOCK(vs);
}

void vi_kick_all(struct virtio_softc *vs)
{
	check_queues(vs, ALL);
}

void vi_kick_missed(struct virtio_softc *vs)
{
	check_queues(vs, MISSED);
}

/*
 * --- Polling ---
 *
 * A model that has emptied a queue turns doorbells on again. Where the transport
 * polls, they stay off until it is about to sleep: as long as chains keep
 * coming, that saves the driver the doorbell and the device the wake-up. A model's
 * own threads sleep without the transport's knowledge: for them, doorbells are on
 * at once.
 */

/* Empty the list of unarmed queues; returns the first. */
static struct vqueue_info *detach_unarmed(struct virtio_softc *vs)
{
	struct vqueue_info *vq = vs->vs_priv->unarmed;

	vs->vs_priv->unarmed = NULL;
	return vq;
}

static struct vqueue_info *next_of(struct vqueue_info *vq)
{
	vq->vq_priv->is_unarmed = false;
	return vq->vq_priv->next_unarmed;
}

static bool poll_queue(struct virtio_softc *vs, struct vqueue_info *vq)
{
	if (vq->vq_priv->kicks_off)
		return false;
	if (!vq_has_news(vq)) {
		vq_arm_later(vq);
		return false;
	}
	serve(vs, vq);
	return true;
}

bool vi_poll(struct virtio_softc *vs)
{
	struct vqueue_info *vq = detach_unarmed(vs), *next;
	bool any = false;

	vs->vs_priv->polling = true;
	vs->vs_priv->poller = pthread_self();
	for (; vq; vq = next) {
		next = next_of(vq);
		any |= poll_queue(vs, vq);
	}
	return any;
}

static bool arm_queue(struct virtio_softc *vs, struct vqueue_info *vq)
{
	if (vq->vq_priv->kicks_off)
		return false;
	vq_arm(vq);
	if (!vq_has_news(vq))
		return false;
	serve(vs, vq);
	return true;
}

bool vi_arm(struct virtio_softc *vs)
{
	struct vqueue_info *vq = detach_unarmed(vs), *next;
	bool any = false;

	for (; vq; vq = next) {
		next = next_of(vq);
		any |= arm_queue(vs, vq);
	}
	vs->vs_priv->polling = any;
	return any;
}

/*
 * --- Interrupts ---
 */

void vi_interrupt(struct virtio_softc *vs, uint8_t isr, uint16_t msix_idx)
{
	/*
	 * No interrupts before DRIVER_OK, except for queues that a legacy
	 * driver uses early (3.1.2).
	 */
	if (!(vs->vs_status & VIRTIO_CONFIG_STATUS_DRIVER_OK) &&
	    (vs->vs_status == 0 || vi_is_modern(vs) ||
	     (isr & VIRTIO_PCI_ISR_CONFIG)))
		return;

	vs->vs_priv->transport->interrupt(vs, isr, msix_idx);
}

void vq_interrupt(struct virtio_softc *vs, struct vqueue_info *vq)
{
	vi_interrupt(vs, VIRTIO_PCI_ISR_INTR, vq->vq_msix_idx);
}

void vq_devcfg_changed(struct virtio_softc *vs)
{
	const struct vi_transport *transport = vs->vs_priv->transport;

	vs->vs_flags |= VIRTIO_DEVCFG_CHG;
	if (transport->devcfg_changed)
		transport->devcfg_changed(vs);
	else
		vi_interrupt(vs, VIRTIO_PCI_ISR_CONFIG, vs->vs_msix_cfg_idx);
}

/*
 * --- Statistics ---
 */

void vi_get_stats(const struct virtio_softc *vs, struct vi_stats *ret_stats)
{
	struct vi_priv *priv = vs->vs_priv;

	*ret_stats = (struct vi_stats){
		.resets = priv->nr_resets,
		.errors = priv->nr_errors,
	};
}

void vq_get_stats(const struct vqueue_info *vq, struct vq_stats *ret_stats)
{
	struct vq_priv *priv = vq->vq_priv;

	*ret_stats = (struct vq_stats){
		.kicks = priv->nr_kicks,
		.chains = priv->nr_chains,
		.interrupts = priv->nr_intrs,
		.inflight = priv->nr_inflight,
	};
}

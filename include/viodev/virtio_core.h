/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A virtio device and its queues, independent of the transport: the part of
 * <viodev/virtio.h> without PCI. Device models include <viodev/virtio.h>, which
 * has the introduction and the rules for threads.
 */
#ifndef VIODEV_VIRTIO_CORE_H
#define VIODEV_VIRTIO_CORE_H

#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include <viodev/virtio_bits.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef unsigned int uint_t;

#ifndef __PRINTFLIKE
#define __PRINTFLIKE(fmtarg) \
	__attribute__((format(printf, fmtarg, (fmtarg) + 1)))
#endif

/* Legacy rings: one block at a page frame, used ring on its own page (2.7.2). */
#define LEGACY_VRING_ALIGN 4096
#define LEGACY_VRING_PFN   12

/*
 * --- The device ---
 */

struct iovec;
struct pci_devinst;
struct virtio_net_ops;
struct vi_priv;
struct vq_priv;
struct vqueue_info;
struct virtio_softc;

typedef enum virtio_flags {
	VIRTIO_DEBUG = 1 << 0,      /* log register accesses and features */
	VIRTIO_USE_MSIX = 1 << 1,   /* the function has MSI-X */
	VIRTIO_EVENT_IDX = 1 << 2,  /* EVENT_IDX was negotiated */
	VIRTIO_DEVCFG_CHG = 1 << 3, /* config changed, not read since */
	VIRTIO_BROKEN = 1 << 4,     /* vi_error() ran; only a reset helps */
} virtio_flags_t;

typedef enum virtio_mode {
	VIRTIO_MODE_UNSET = 0,
	VIRTIO_MODE_LEGACY,       /* legacy registers alone */
	VIRTIO_MODE_TRANSITIONAL, /* both; the driver chooses */
	VIRTIO_MODE_MODERN,       /* virtio 1.x alone */
} virtio_mode_t;

/* Where a virtio capability lies in config space and what it points at. */
typedef struct virtio_pci_capcfg {
	uint8_t c_captype; /* VIRTIO_PCI_CAP_* */
	uint32_t c_capoff; /* offset of the capability in config space */
	uint32_t c_caplen; /* bytes of the capability */
	uint32_t c_barlen; /* bytes of the structure in the BAR */
	uint32_t c_baroff; /* its offset in the BAR */
	uint8_t c_baridx;  /* which BAR */
} virtio_pci_capcfg_t;

/*
 * The framework's part of a device. It comes first in the device's own struct:
 * callbacks get a pointer to that as their void *.
 */
struct virtio_softc {
	struct virtio_consts *vs_vc;
	virtio_flags_t vs_flags;
	virtio_mode_t vs_mode;
	pthread_mutex_t *vs_mtx;     /* guards register accesses, or NULL */
	struct pci_devinst *vs_pi;   /* the PCI function */
	uint64_t vs_negotiated_caps; /* features, as a mask */
	struct vqueue_info *vs_queues;
	int vs_curq;              /* queue select register */
	uint8_t vs_status;        /* device status, 2.1 */
	uint8_t vs_isr;           /* ISR status, 4.1.4.5 */
	uint16_t vs_msix_cfg_idx; /* vector of config changes */
	uint32_t vs_dfselect;     /* device_feature_select */
	uint32_t vs_gfselect;     /* driver_feature_select */
	uint8_t vs_devcfg_gen;    /* config_generation */
	virtio_pci_capcfg_t vs_caps[VIRTIO_PCI_CAP_MAX];
	virtio_pci_capcfg_t *vs_pcicap; /* the PCI_CFG one among them */
	uint_t vs_ncaps;

	/* Not in bhyve's struct: features from 64 on, and private state. */
	uint64_t vs_negotiated_caps_hi;
	struct vi_priv *vs_priv;
};

#define VS_LOCK(vs)                                       \
	do {                                              \
		if ((vs)->vs_mtx)                         \
			pthread_mutex_lock((vs)->vs_mtx); \
	} while (0)

#define VS_UNLOCK(vs)                                       \
	do {                                                \
		if ((vs)->vs_mtx)                           \
			pthread_mutex_unlock((vs)->vs_mtx); \
	} while (0)

/* A feature bit, as a mask, and its name, for debug output. */
typedef struct virtio_capstr {
	uint64_t vp_flag;
	const char *vp_name;
} virtio_capstr_t;

/*
 * A device type: constants and callbacks. Every callback may be NULL. The first
 * argument of each is the device's softc.
 */
struct virtio_consts {
	const char *vc_name; /* for the log */
	int vc_nvq;          /* virtqueues in use */
	int vc_max_nvq;      /* upper limit of vc_nvq; 0: vc_nvq */
	size_t vc_cfgsize;   /* bytes of device configuration */

	/*
	 * The driver reset the device; the queues are disabled. Drop requests
	 * that have not begun, and return at once. Running requests continue,
	 * and the model gives their chains back when they end, as usual. The
	 * framework hides these stale chains from the new driver. Every chain
	 * that was taken must be given back eventually: until then no new
	 * chain has the same head.
	 *
	 * The framework resets its own state afterwards. A model may call
	 * vi_reset_dev() from here, as bhyve's do, and may set vq_qsize.
	 */
	void (*vc_reset)(void *sc);

	/*
	 * The driver enables queue vs_curq. The callback replaces
	 * vi_legacy_vq_init(vs, @pfn) or, with @modern, vi_vq_init(vs).
	 */
	void (*vc_qinit)(void *sc, uint64_t pfn, bool modern);

	/* A doorbell, for queues without a vq_notify of their own. */
	void (*vc_qnotify)(void *sc, struct vqueue_info *vq);

	/*
	 * The driver accesses device configuration: @size is 1, 2 or 4, and
	 * [offset, offset + size) lies inside vc_cfgsize. Return 0 when
	 * handled. Otherwise a read returns all ones.
	 */
	int (*vc_cfgread)(void *sc, int offset, int size, uint32_t *retval);
	int (*vc_cfgwrite)(void *sc, int offset, int size, uint32_t value);

	/*
	 * Negotiation is complete. A bit that the callback clears in
	 * @features rejects FEATURES_OK (modern) or drops the feature (legacy).
	 */
	void (*vc_apply_features)(void *sc, uint64_t *features);

	/* The features to offer, where they are not constant. */
	uint64_t (*vc_hv_features)(void *sc, bool modern);

	/* A queue's vector changed; a write went to the MSI-X table. */
	void (*vc_set_msix)(void *sc, int queue);
	void (*vc_update_msix)(void *sc, uint64_t offset);

	uint64_t vc_hv_caps_legacy; /* features offered to a legacy driver */
	uint64_t vc_hv_caps_modern; /* to a modern one; VERSION_1 is added */

	size_t vc_ncapstr; /* names of the device's own feature bits */
	virtio_capstr_t *vc_capstr;

	/*
	 * Not in bhyve's. A queue, or the device, is about to stop, which
	 * needs all chains back: return those that only wait for the outside
	 * world (vq_relchain() or vq_retchain()), and publish what is done.
	 * Return at once: running requests may end later.
	 */
	void (*vc_quiesce)(void *sc);

	/*
	 * Not in bhyve's. The driver reset queue @vq alone (2.6.1), after
	 * vc_quiesce(): forget what the driver set for this queue. Its chains
	 * in flight are stale, as after vc_reset(). May be NULL.
	 */
	void (*vc_qreset)(void *sc, struct vqueue_info *vq);

	/*
	 * Migration. vc_save() writes the driver's settings other than
	 * features and rings to @buf, of @room bytes, for another process that
	 * continues with this device; it returns the number of bytes or
	 * -errno. vc_load() restores them after negotiation, before a ring is
	 * enabled; it returns 0, or -errno when the device must be reset. A
	 * model has both or neither; one without cannot be migrated.
	 */
	ssize_t (*vc_save)(void *sc, void *buf, size_t room);
	int (*vc_load)(void *sc, const void *buf, size_t len);

	/* Of a network device, <viodev/net.h>; otherwise NULL. */
	const struct virtio_net_ops *vc_net;

	/*
	 * Features from 64 on, bit 0 is feature 64, for modern drivers.
	 * vhost-user and the legacy interface do not have them. Those in
	 * vs_negotiated_caps_hi are accepted when vc_apply_features() runs,
	 * which may clear some to reject FEATURES_OK.
	 */
	uint64_t vc_hv_caps_hi;
};

/*
 * The ring features that the framework implements for every device model, for
 * vc_hv_caps_modern and vc_hv_caps_legacy. The last two are for legacy drivers.
 */
#define VI_RING_CAPS_MODERN                    \
	(VI_BIT(VIRTIO_RING_F_INDIRECT_DESC) | \
	 VI_BIT(VIRTIO_RING_F_EVENT_IDX) | VI_BIT(VIRTIO_F_RING_RESET))
#define VI_RING_CAPS_LEGACY                                              \
	(VI_BIT(VIRTIO_RING_F_INDIRECT_DESC) |                           \
	 VI_BIT(VIRTIO_RING_F_EVENT_IDX) | VI_BIT(VIRTIO_F_ANY_LAYOUT) | \
	 VI_BIT(VIRTIO_F_NOTIFY_ON_EMPTY))

/*
 * Not in bhyve's. Offer @features to modern drivers beside those of vs_vc, for
 * the life of the device; call it before a driver can see the device. For what
 * depends on where the device runs: ACCESS_PLATFORM, if an IOMMU may lie between
 * the driver's addresses and guest memory. 6
 */
void vi_offer_also(struct virtio_softc *vs, uint64_t features);

/*
 * --- Virtqueues ---
 */

#define VQ_ALLOC   0x01 /* the ring has addresses and was checked */
#define VQ_ENABLED 0x02 /* the driver enabled the queue */

struct vqueue_info {
	/* The device sets these two. */
	/*
	 * Entries, a power of two. A driver may lower it, with packed rings to
	 * any number; a reset restores it.
	 */
	uint16_t vq_qsize;
	void (*vq_notify)(void *sc, struct vqueue_info *vq);

	/* The framework sets these. */
	struct virtio_softc *vq_vs;
	uint16_t vq_num;   /* which queue of the device */
	uint16_t vq_flags; /* VQ_ALLOC, VQ_ENABLED */
	/* Free-running; packed rings: slot and, in bit 15, wrap counter. */
	uint16_t vq_last_avail; /* next entry to take */
	uint16_t vq_next_used;  /* next entry to fill */
	uint16_t vq_save_used;  /* vq_next_used at the last vq_endchains() */
	uint16_t vq_msix_idx;   /* MSI-X vector or VIRTIO_MSI_NO_VECTOR */

	uint32_t vq_pfn; /* legacy: page frame, 0: none */
	/*
	 * Guest addresses of the three parts; of a packed ring, the ring, the
	 * driver's and the device's event structure.
	 */
	uint64_t vq_desc_gpa;
	uint64_t vq_avail_gpa;
	uint64_t vq_used_gpa;

	/*
	 * The parts in this process; NULL for memory that is not shared, and
	 * for packed rings.
	 */
	struct vring_desc *vq_desc;
	struct vring_avail *vq_avail;
	struct vring_used *vq_used;

	/* Not in bhyve's struct: private to the framework. */
	struct vq_priv *vq_priv;
};

/*
 * The ring's event index fields, as raw little-endian memory, for split rings
 * that are mapped. Device models do not need them.
 */
#define VQ_AVAIL_EVENT_IDX(vq) \
	(*(uint16_t *)&(vq)->vq_used->ring[(vq)->vq_qsize])
#define VQ_USED_EVENT_IDX(vq) ((vq)->vq_avail->ring[(vq)->vq_qsize])

/*
 * A chain, as vq_getchain() describes it: the device reads iov[0 .. readable)
 * and writes iov[readable .. readable + writable).
 */
struct vi_req {
	int readable;
	int writable;
	/* For vq_relchain(). Less than the vq_qsize that the device set. */
	unsigned int idx;
};

/* Whether the driver has set this queue up. */
static inline int vq_ring_ready(struct vqueue_info *vq)
{
	return vq->vq_flags & VQ_ALLOC;
}

/* Whether a chain is available. False while the device is broken. */
int vq_has_descs(struct vqueue_info *vq);

/*
 * The most bytes that the framework may allocate for chains in flight, over all
 * queues, when a driver makes the chains as large as the device allows.
 */
uint64_t vi_chain_bytes(const struct virtio_softc *vs);

/*
 * Take the next available chain. Returns
 *   0   none is available (or, for memory that is not shared, not yet), the
 *       queue is not ready, or the device is broken;
 *   n   the chain has n buffers, n == readable + writable, 1 <= n <= @niov,
 *       none empty, each mapped and checked, the readable ones first. A
 *       buffer that crosses memory regions counts once for each of them
 *       that is not contiguous with the one before;
 *  -1   the driver broke the rules, or the chain needs more than @niov:
 *       vi_error() was called. @iov and @req are undefined.
 * The iovecs stay valid until the chain is given back, also after a reset. The
 * descriptors were read once: what the driver does to them afterwards has no
 * effect. 2.7.5, 2.7.13.
 *
 * The framework itself gives back chains without bytes, with length 0.
 */
int vq_getchain(struct vqueue_info *vq, struct iovec *iov, int niov,
		struct vi_req *reqp);

/*
 * Undo the last @n_chains vq_getchain() calls: the chains are available again,
 * in the same order. None of them may have been given back meanwhile.
 */
void vq_retchains(struct vqueue_info *vq, uint16_t n_chains);

/*
 * Not in bhyve's. Undo the vq_getchain() call of chain @idx, whatever was taken
 * or used since: vq_getchain() returns it again, before newer chains. False:
 * the model keeps the chain. That happens while writes are logged for a
 * migration, whose destination would not know of the chain.
 */
bool vq_retchain(struct vqueue_info *vq, uint16_t idx);

/*
 * Not in bhyve's. Whether the framework waits for chains of this queue: the
 * queue is about to stop, memory that they use is to be removed, or the driver
 * has cleared Bus Master.
 */
bool vq_is_stopping(const struct vqueue_info *vq);

/*
 * Whether chain @idx still belongs to the driver: false after a reset and when
 * the device is broken. The buffers stay mapped, and a worker may finish writing
 * to them: only when the chain is back does a modern driver read status 0, and
 * does a vfio-user server answer a legacy driver (after two seconds at the
 * latest). Where that is not enough, let the worker fill its own buffer, and copy
 * it on the loop's thread if the chain is live.
 */
bool vq_chain_live(struct vqueue_info *vq, uint16_t idx);

/*
 * Give chain @idx back as used, with @iolen bytes written from its first
 * writable byte on. @iolen is limited to the size of the chain. For a chain
 * that is not in flight, vi_error() is called.
 *
 * vq_relchain_prepare() fills used ring entries, and vq_relchain_publish()
 * makes all of them visible to the driver at once. vq_relchain() does both.
 */
void vq_relchain_prepare(struct vqueue_info *vq, uint16_t idx, uint32_t iolen);
void vq_relchain_publish(struct vqueue_info *vq);
void vq_relchain(struct vqueue_info *vq, uint16_t idx, uint32_t iolen);

/*
 * End a batch of vq_relchain(): interrupt the driver if it asked for that.
 * @used_all_avail means that the queue is empty, for NOTIFY_ON_EMPTY (6.3).
 */
void vq_endchains(struct vqueue_info *vq, int used_all_avail);

/*
 * Request doorbells from the driver, or suppress them while the device serves
 * the queue. After vq_kick_enable(), check vq_has_descs() again: a chain that
 * became available before has no doorbell. 2.7.10.
 */
void vq_kick_enable(struct vqueue_info *vq);
void vq_kick_disable(struct vqueue_info *vq);

/* Whether doorbells are requested from the driver. */
bool vq_kicks_wanted(const struct vqueue_info *vq);

/*
 * The notify loop: what vc_qnotify does, and whatever else looks for chains.
 *
 *	static enum vq_served my_serve(void *arg, struct vqueue_info *vq)
 *	{
 *		if (vq_getchain(vq, iov, NIOV, &req) <= 0)
 *			return VQ_IDLE;
 *		...
 *		vq_relchain(vq, (uint16_t)req.idx, len);
 *		return VQ_MORE;
 *	}
 *
 *	served = vq_serve(vq, vq->vq_qsize, my_serve, sc);
 *	vq_endchains(vq, served == VQ_IDLE);
 *	if (served == VQ_MORE)
 *		vio_task_defer(loop, &again);		// or vi_wake(vs)
 *
 * vq_serve() calls @serve at most @budget times, so that a driver that never
 * stops does not starve other queues. Doorbells are off meanwhile. They are on
 * again when the queue is empty, and no chain that came before is missed.
 * Returns
 *   VQ_IDLE  the queue is empty, or the device is broken: the next doorbell
 *            serves it;
 *   VQ_MORE  the budget is used up: serve the queue again, soon;
 *   VQ_WAIT  @serve cannot take or finish a chain now. Doorbells stay off:
 *            whatever it waits for must lead to vq_serve() again.
 *
 * After vi_error() @serve gives back what it holds and returns VQ_IDLE. All
 * calls for the queue are without effect until the driver resets the device.
 */
enum vq_served {
	VQ_MORE, /* of @serve: a chain was taken, another may follow */
	VQ_IDLE, /* no chain is available */
	VQ_WAIT, /* a chain is available, but must wait */
};

typedef enum vq_served vq_serve_fn(void *arg, struct vqueue_info *vq);

/* Inline, so that the compiler sees @serve. */
static inline enum vq_served vq_serve(struct vqueue_info *vq, unsigned budget,
				      vq_serve_fn *serve, void *arg)
{
	enum vq_served served = VQ_MORE;

	vq_kick_disable(vq);
	while (served == VQ_MORE && budget-- > 0) {
		served = serve(arg, vq);
		if (served != VQ_IDLE)
			continue;
		/* What came just before is not announced: look once more. */
		vq_kick_enable(vq);
		if (vq_has_descs(vq)) {
			vq_kick_disable(vq);
			served = VQ_MORE;
		}
	}
	return served;
}

/*
 * --- Interrupts ---
 */

/* Raise @isr by MSI-X vector @msix_idx or, without MSI-X, by MSI or INTx. */
void vi_interrupt(struct virtio_softc *vs, uint8_t isr, uint16_t msix_idx);

/* Interrupt for used buffers, without further checks. See vq_endchains(). */
void vq_interrupt(struct virtio_softc *vs, struct vqueue_info *vq);

/* The device configuration changed: new generation, interrupt. 2.5, 4.1.5.3 */
void vq_devcfg_changed(struct virtio_softc *vs);

/*
 * --- Set-up ---
 */

/* Replace the array of vc_nvq queues, while none is enabled. */
void vi_queue_linkup(struct virtio_softc *vs, struct vqueue_info *queues);

/*
 * --- While it runs ---
 */

/* Forget queues, features, status, vectors and interrupts (2.4). */
void vi_reset_dev(struct virtio_softc *vs);

/*
 * Log register accesses, negotiated features by name, and what the model logs
 * at LOG_DEBUG.
 */
void vi_set_debug(struct virtio_softc *vs, bool on);

/*
 * For vc_cfgread and vc_cfgwrite: @size bytes at @offset of @cfg, a structure
 * of @len bytes whose fields lie there as the driver sees them: little-endian,
 * or in the guest's own order for a legacy driver. Return 0, or -EINVAL for a
 * range that is not inside it.
 */
int vi_cfg_read(const void *cfg, size_t len, int offset, int size,
		uint32_t *ret_val);
int vi_cfg_write(void *cfg, size_t len, int offset, int size, uint32_t val);

/*
 * Make the thread that serves the device check all queues soon, as if the
 * driver had kicked each. From any thread: for a worker that has freed
 * resources or completed requests, and for a notify loop that used up its
 * budget. While chains from before a reset are in flight, the model is called
 * even for queues that are not set up, so that it can give those chains back.
 */
void vi_wake(struct virtio_softc *vs);

/* Whether the driver accepted VERSION_1. */
bool vi_is_modern(struct virtio_softc *vs);

/*
 * The driver broke the contract. Logs a line, sets VIRTIO_BROKEN and, for a
 * modern driver, NEEDS_RESET with a configuration change interrupt (2.1). From
 * then until a reset, rings and guest memory are left alone. The message must
 * not carry bytes that the guest chose.
 */
void vi_error(struct virtio_softc *vs, const char *fmt, ...) __PRINTFLIKE(2);

/*
 * A line for the embedder's log, with the device's name in front. @level is one
 * of <syslog.h>. LOG_DEBUG lines are dropped unless vi_set_debug() is on. For
 * any thread that may call the embedder's log function.
 */
void vs_log(struct virtio_softc *vs, int level, const char *fmt, ...)
	__PRINTFLIKE(3);

/*
 * Enable queue vs_curq with the addresses in its vqueue_info, or with those
 * that a legacy page frame number implies. vi_error() when a part is
 * misaligned or not in guest memory.
 */
void vi_vq_init(struct virtio_softc *vs);
void vi_legacy_vq_init(struct virtio_softc *vs, uint32_t pfn);

/*
 * --- Statistics ---
 *
 * Counted since the device was linked up.
 */

struct vi_stats {
	uint64_t resets;
	uint64_t errors; /* calls of vi_error() that stopped the device */
};

struct vq_stats {
	uint64_t kicks;
	uint64_t chains;
	uint64_t interrupts;
	unsigned inflight; /* chains taken and not given back, now */
};

void vi_get_stats(const struct virtio_softc *vs, struct vi_stats *ret_stats);
void vq_get_stats(const struct vqueue_info *vq, struct vq_stats *ret_stats);

#ifdef __cplusplus
}
#endif

#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/* Shared by the files of core/ and the transports. Not installed. */
#ifndef CORE_CORE_H
#define CORE_CORE_H

#include <assert.h>
#include <stddef.h>

#include <viodev/gmem.h>
#include <viodev/virtio_core.h>

#include "base/le.h"

/*
 * --- Private state of the core ---
 *
 * Allocated when the device is linked up. Fields of the data path are first, on
 * one cache line.
 */

#define CACHE_LINE 64

/* Private state of a device: vs_priv. */
struct vi_priv {
	struct gmem *gmem; /* what it may access, */
	bool dma_off;      /* unless that is currently forbidden */
	bool room_wanted;  /* a chain waits for fewer pins, or less of these: */
	size_t bounce_bytes;         /* copies of unmapped buffers held */
	unsigned nr_stale;           /* chains in flight from before a reset, */
	unsigned nr_foreign;         /* of these, another owner's */
	bool polling;                /* between vi_poll() and vi_arm() */
	pthread_t poller;            /* the thread that calls both */
	struct vqueue_info *unarmed; /* queues whose doorbells stay off */
	const struct vi_transport *transport; /* that carries the device */
	void *transport_arg;

	struct vq_priv *queues;      /* linked up, */
	int nr_queues;               /* their number */
	uint64_t extra_features;     /* vi_offer_also() */
	bool iommu_suspected;        /* vi_suspect_iommu() has logged it */
	uint64_t driver_features;    /* as written, not yet checked */
	uint64_t driver_features_hi; /* from 64 on */
	uint32_t refused_windows;    /* with features from 128 on */
	bool features_final;         /* negotiation is over */
	uint8_t old_status;          /* before the last reset */
	unsigned errors_logged;      /* since */
	uint64_t errors_since_ns;    /* the log's quota was last full */
	uint64_t nr_errors;          /* calls of vi_error() */
	uint64_t nr_resets;
};

/* A descriptor of a packed ring, as it was when the chain was taken. */
struct packed_desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags;
	uint16_t id;
	uint16_t next;     /* in its chain or its list */
	uint16_t nr, last; /* of the first one: descriptors of the chain */
};

/* State of a packed queue, besides struct vq_priv. */
struct vq_packed {
	void *ring; /* in this process; NULL: not shared */
	void *driver_event;
	void *device_event;
	struct packed_desc head;  /* the next slot, as packed_peek() saw it */
	struct packed_desc *copy; /* of chains taken; nr, in lists: */
	uint16_t free;            /* the free ones, */
	uint16_t batch;           /* and used chains, not yet published */
	uint16_t batch_last;
	uint16_t walked_nr;      /* the chain at the head of the free ones, */
	uint16_t walked_last;    /* just collected */
	uint16_t publish_flags;  /* withheld from the batch's first slot, */
	uint16_t publish_at;     /* which is this one */
	uint32_t nr_unsignalled; /* slots used since the last vq_endchains() */
	volatile struct packed_area *area; /* vq_packed_inflight.c, or NULL */
	uint64_t counter;                  /* of the next chain there */
};

#define PACKED_WRAP 0x8000u /* a position's wrap counter; below it the slot */
#define PACKED_NONE 0xffffu /* no descriptor */

/* Private state of a queue: vq_priv. */
struct vq_priv {
	_Alignas(CACHE_LINE) struct gmem *gmem; /* copies of the device's: */
	bool dma_off;
	bool resting;          /* no chain is currently taken */
	bool paused;           /* stopping */
	bool blocked;          /* the next chain cannot be taken now */
	bool any_done;         /* one completed while DMA was off */
	bool kicks_off;        /* vq_kick_disable() */
	bool event_idx;        /* it was checked with EVENT_IDX's trailers */
	bool packed : 1;       /* and lies as in 2.8, not as in 2.7 */
	bool in_order : 1;     /* chains are used as they were taken */
	uint16_t nr;           /* entries of the ring as it was checked */
	uint16_t mask;         /* of the slots' order: nr as a power of two */
	uint32_t gen;          /* gmem generation of the pointers */
	struct vq_slot *slots; /* one for each ring entry, at least */
	uint32_t nr_slots;
	uint32_t nr_inflight; /* chains taken and not returned */
	uint32_t nr_taken;    /* chains taken, free-running, except */
	uint32_t nr_returned; /* those returned */
	uint64_t nr_entries;  /* entries taken since the queue was set up */
	struct vq_inflight *inflight; /* records chains; or NULL */

	uint32_t nr_done;  /* of nr_inflight, completed while DMA was off */
	uint32_t nr_stale; /* chains of this owner from before a reset */
	uint64_t reset_ns; /* when vi_reset_queue() began; 0: it is complete */
	uint16_t qmax;     /* vq_qsize before the driver shrank it, or 0 */
	bool is_silent;    /* the ring suppresses doorbells */
	bool is_quiet;     /* it requests them, and was empty afterwards */
	bool is_unarmed;   /* in the device's list of unarmed queues */
	struct vqueue_info *next_unarmed; /* in that list */
	uint64_t nr_kicks;                /* statistics */
	uint64_t nr_chains;
	uint64_t nr_intrs;
	struct vq_packed p; /* of a packed ring */
};
static_assert(offsetof(struct vq_priv, nr_done) <= CACHE_LINE, "one line");

/*
 * --- vi.c: device state, as a transport drives it ---
 */

/*
 * What carries a device: a PCI function, or a server without one. The core
 * calls it only through these hooks, all of which are set.
 */
struct vi_transport {
	/* Interrupt the driver: @isr says why, @vector is the queue's or the
	 * configuration's. */
	void (*interrupt)(struct virtio_softc *vs, uint8_t isr,
			  uint16_t vector);
	/* The configuration has changed, even if there is no driver to
	 * interrupt, for a client that has a copy. NULL: interrupt() will do. */
	void (*devcfg_changed)(struct virtio_softc *vs);
	/* The device was reset, including its interrupts. */
	void (*reset)(struct virtio_softc *vs);
	/* The last chain from before the reset has returned. */
	void (*reset_done)(struct virtio_softc *vs);
	/* Chains can be taken again, or the last one in flight has returned,
	 * or memory is unused. On any thread that returns chains. */
	void (*wake)(struct virtio_softc *vs);
	/* A line for the log, without newline; @level as in <syslog.h>. */
	void (*log)(struct virtio_softc *vs, int level, const char *msg);
};

/*
 * Link a device up: 0 or -ENOMEM. All arguments are borrowed for the life of
 * the device, which vi_fini() ends. A server that a device reaches through a
 * PCI function takes the function's place with vi_set_transport(), which fails
 * for a device that could not be linked up.
 */
int vi_init(struct virtio_softc *vs, struct virtio_consts *vc,
	    struct vqueue_info *queues, struct gmem *gm,
	    const struct vi_transport *transport, void *arg);
int vi_set_transport(struct virtio_softc *vs,
		     const struct vi_transport *transport, void *arg);
void vi_fini(struct virtio_softc *vs);

static inline void *vi_transport_arg(const struct virtio_softc *vs)
{
	return vs->vs_priv->transport_arg;
}

/*
 * These take vs_mtx. Reset the device; pause all queues; make the model return
 * chains that only wait; serve all queues, as if each had been kicked; whether
 * no chain is in flight, nor was before the last reset.
 */
void vi_reset(struct virtio_softc *vs);
void vi_quiesce(struct virtio_softc *vs);
void vi_give_back(struct virtio_softc *vs);
void vi_kick_all(struct virtio_softc *vs);

/* Serve the queues that may have missed a doorbell while DMA was off. */
void vi_kick_missed(struct virtio_softc *vs);
bool vi_is_idle(struct virtio_softc *vs);

/* Takes vs_mtx: after a reset, a driver with other memory owns the device. */
void vi_new_owner(struct virtio_softc *vs);

/* Whether the reset is complete: no chain of this owner is stale. */
static inline bool vi_is_reset(const struct virtio_softc *vs)
{
	return vs->vs_priv->nr_stale == vs->vs_priv->nr_foreign;
}

/*
 * Whether the device may access guest memory: initially it may. While it may
 * not, completed chains are held back; vi_kick_missed() publishes them.
 */
void vi_set_dma(struct virtio_softc *vs, bool on);

/* The queues that are linked up, used or not: vc_nvq may grow to this. */
int vi_max_queues(const struct virtio_softc *vs);

/* The queues in use: vc_nvq of them, as far as they are linked up. */
int vi_nr_queues(const struct virtio_softc *vs);

/* The features offered to a modern or a legacy driver. */
uint64_t vi_offer(struct virtio_softc *vs, bool modern);

/*
 * The driver's addresses are invalid: log once that it may be unaware of an
 * IOMMU, if it has not accepted ACCESS_PLATFORM. 6.1
 */
void vi_suspect_iommu(struct virtio_softc *vs);

/*
 * The driver wrote 32 of its feature bits, those from 32 * @window on. Without
 * effect once negotiation is over.
 */
void vi_set_driver_features(struct virtio_softc *vs, uint32_t window,
			    uint32_t bits);
void vi_set_legacy_features(struct virtio_softc *vs, uint32_t bits);

/* The driver wrote device status (2.1), by the modern or legacy interface. */
void vi_set_status(struct virtio_softc *vs, uint8_t status, bool modern);

/* Doorbell of queue @q, whatever number the driver gave. */
void vi_kick(struct virtio_softc *vs, unsigned q);

/*
 * For a transport that polls rings. After vi_poll(), doorbells of the queues that
 * the calling thread serves stay off until vi_arm(). vi_poll() looks at these
 * queues and serves those that have new chains. vi_arm(), before the thread
 * sleeps, turns their doorbells on, looks once more, and serves. Both return
 * whether there was anything to serve; if vi_arm() returns true, the thread must
 * not sleep. Called with vs_mtx held.
 */
bool vi_poll(struct virtio_softc *vs);
bool vi_arm(struct virtio_softc *vs);

/* The selected queue, or NULL if it does not exist. */
struct vqueue_info *vi_selected_queue(struct virtio_softc *vs);

/* The driver sets the size of, or enables, the selected queue (4.1.4.3). */
void vi_set_queue_size(struct vqueue_info *vq, uint16_t size);
void vi_set_queue_vector(struct virtio_softc *vs, uint16_t vector);
void vi_enable_queue(struct virtio_softc *vs);

/*
 * The driver resets the selected queue (2.6.1). The reset is complete when the
 * last of its chains has returned, which vi_queue_is_resetting() reports. If
 * that takes too long, the device needs a reset.
 */
void vi_reset_queue(struct virtio_softc *vs);
bool vi_queue_is_resetting(struct vqueue_info *vq);

/*
 * Pause a queue: no chain is taken from it any more, and the model returns
 * those that only wait for something. When nr_inflight is 0, which the
 * transport's wake() reports, vi_stop_queue() ends it.
 */
void vi_pause_queue(struct vqueue_info *vq);

/*
 * Stop a queue: as after reset, except for its vector. Chains still in flight
 * are forgotten. Returns where vq_resume() continues: the next entry that would
 * have been taken; of a packed ring, its position, and in the upper half the
 * position of the next used descriptor.
 */
uint32_t vi_stop_queue(struct vqueue_info *vq);

/* Where the first driver of a packed ring begins, for vq_resume(). 2.8.1 */
#define VQ_PACKED_START (PACKED_WRAP << 16 | PACKED_WRAP)

/*
 * Chains that the model returned unprocessed, and that lie before the entry
 * which vi_stop_queue() will return: to be freed with free(). NULL without
 * memory, if there are none, or if an in-flight area has recorded them.
 */
struct vq_left *vq_left_chains(struct vqueue_info *vq);

/* A queue that was just resumed continues with these. */
void vq_take_left(struct vqueue_info *vq, const struct vq_left *left);

/* The driver sets the legacy page frame register of the selected queue. */
void vi_set_queue_pfn(struct virtio_softc *vs, uint32_t pfn);

/*
 * --- devcfg.c: device configuration, 2.5 ---
 *
 * The driver reads or writes @size bytes at @off: any width and alignment.
 * Bytes outside vc_cfgsize read 0 and are dropped.
 */
uint64_t vi_devcfg_read(struct virtio_softc *vs, uint64_t off, int size);
void vi_devcfg_write(struct virtio_softc *vs, uint64_t off, int size,
		     uint64_t val);

/*
 * --- vq.c: common to all ring layouts ---
 */

/* A buffer in memory that is not shared, and its copy here. */
struct vq_bounce {
	struct vq_bounce *next;
	gpa_t gpa;
	uint32_t len;
	bool writable;
	char buf[];
};

/* State of a ring entry. */
struct vq_slot {
	/* by head: a chain that was taken */
	bool busy;         /* and is in flight, */
	bool stale;        /* or was when the queue was reset, */
	bool foreign;      /* for another owner of the device, */
	bool done;         /* or completed, but not yet published */
	uint16_t pos;      /* where it was in the available ring */
	uint64_t entry;    /* likewise, by nr_entries */
	uint32_t writable; /* bytes */
	uint32_t used;     /* of these, when done */
	struct vq_bounce *bounce;
	struct gm_pins pins;
	/* by the number of chains taken before: which one was taken then */
	uint16_t order;
	/* by head, of a packed ring: its first descriptor's copy */
	uint16_t copy;
};

/* vq_left_chains(): heads or, of a packed ring, whole chains. */
struct vq_left {
	unsigned nr; /* chains, oldest first */
	struct packed_desc descs[];
};

/* A chain while it is being collected. */
struct vq_chain {
	struct vqueue_info *vq;
	struct iovec *iov;
	int niov;
	int readable, writable; /* iovecs so far */
	uint64_t bytes, wbytes; /* of all, of the writable ones */
	struct vq_bounce *bounce, **bounce_end;
	size_t bounce_bytes;
};

/*
 * Check a descriptor (a private copy) and append its buffer. 0; -EAGAIN; or
 * -EPROTO after vi_error().
 */
int vq_chain_add(struct vq_chain *c, uint64_t addr, uint32_t len,
		 uint16_t flags);

/* Whether there is a chain that the model can take now. */
bool vq_has_news(struct vqueue_info *vq);

/*
 * Turn doorbells on: now, after which the caller looks for chains; or when
 * vi_arm() is called, unless vi_poll() finds chains before.
 */
void vq_arm(struct vqueue_info *vq);
void vq_arm_later(struct vqueue_info *vq);

/* Publish all that was put into the used ring. */
void vq_show(struct vqueue_info *vq);

/* Tables longer than the queue are accepted: Linux builds them. This many
 * entries in all tables together bound the time that one chain can take. */
#define VQ_MAX_INDIRECT 32768u

/* One of the three areas that the driver named. */
struct vq_part {
	const char *name;
	uint64_t gpa, bytes;
	unsigned align, prot;
};

/* Check them: 0, or -EINVAL after vi_error(). */
int vq_check_parts(struct vqueue_info *vq, const struct vq_part parts[3]);

/* Reject a chain: -EPROTO after vi_error(). */
int vq_bad_chain(struct vq_chain *c, const char *why);

/*
 * Check the three areas that the driver named, for the layout that @features
 * select, and look up where they are mapped. 0, or -errno after vi_error().
 */
int vq_map(struct vqueue_info *vq, uint64_t features);

/*
 * A queue that was just enabled continues where another device left it: at
 * @base, see vi_stop_queue(), and after the used entries. vi_error() if it
 * cannot. @recorded: vq_inflight_start() follows, which finds the entry itself.
 */
void vq_resume(struct vqueue_info *vq, uint32_t base, bool recorded);

/* Chain @head counts as taken before all others, and returned since. */
void vq_add_returned(struct vqueue_info *vq, uint16_t head);

/*
 * Queue state for nr entries; 0 or -ENOMEM. Chains in flight become stale,
 * everything else is forgotten. Free it, at the end of the device.
 */
int vq_slots_init(struct vqueue_info *vq);

/* Where to continue, for callers that use vq_left_chains(). */
uint32_t vq_base(struct vqueue_info *vq);

/* DMA is allowed again: publish what was held back. */
void vq_give_back_done(struct vqueue_info *vq);

void vq_slots_forget(struct vqueue_info *vq);

/* Another owner has the device: stale chains belong to the previous one. */
void vq_slots_disown(struct vqueue_info *vq);
void vq_slots_fini(struct vqueue_info *vq);

/*
 * --- vq_split.c: the split ring, 2.7 ---
 *
 * Each works on the ring's mapping or, if memory is not shared, through
 * gm_read() and gm_write(), and returns 0 or their -errno.
 */

/*
 * Check the three parts that the driver named, for nr entries, with or
 * without the trailers of EVENT_IDX, and look up where they are mapped. 0, or
 * -errno after vi_error().
 */
int split_map(struct vqueue_info *vq);

/* Look the parts up again, when guest memory has changed. */
void split_remap(struct vqueue_info *vq);

int split_avail_idx(struct vqueue_info *vq, uint16_t *ret_idx);
int split_avail_head(struct vqueue_info *vq, uint16_t pos, uint16_t *ret_head);

/* Collect the chain that begins at @head. */
int split_walk(struct vqueue_info *vq, uint16_t head, struct vq_chain *c);

/* Whether that chain is sound and has no bytes at all. */
bool split_is_empty(struct vqueue_info *vq, uint16_t head);

int split_push_used(struct vqueue_info *vq, uint16_t pos, uint16_t head,
		    uint32_t len);
int split_publish_used(struct vqueue_info *vq, uint16_t idx);

/* Whether the driver requests an interrupt for used entries [old, new). */
bool split_wants_interrupt(struct vqueue_info *vq, uint16_t old, uint16_t new);

/* Request doorbells from entry vq_last_avail on, or none. */
void split_set_kicks(struct vqueue_info *vq, bool on);

int split_used_idx(struct vqueue_info *vq, uint16_t *ret_idx);

/* Log @len writable bytes of the chain that begins at @head as written. */
void split_mark(struct vqueue_info *vq, uint16_t head, uint32_t len);

/*
 * --- vq_packed.c: the packed ring, 2.8 ---
 *
 * vq_last_avail, vq_next_used and vq_save_used are positions: a slot and, as
 * PACKED_WRAP, the wrap counter of this lap. A chain's head is its buffer id.
 */

/* The queue's copies of descriptors, at the first position. 0 or -ENOMEM. */
int packed_init(struct vqueue_info *vq);
void packed_fini(struct vqueue_info *vq);

int packed_map(struct vqueue_info *vq);
void packed_remap(struct vqueue_info *vq);

/* The position @n slots after @pos; and how many slots after it @to is. */
uint16_t packed_advance(const struct vqueue_info *vq, uint16_t pos, unsigned n);
unsigned packed_distance(const struct vqueue_info *vq, uint16_t pos,
			 uint16_t to);

/* Whether the next slot is available: 0 or 1, or an -errno of gm_read(). */
int packed_peek(struct vqueue_info *vq);

/* The head of the chain that packed_peek() saw. 0 or -errno. */
int packed_peek_head(struct vqueue_info *vq, uint16_t *ret_head);

/* Collect that chain, and take it as @head. */
int packed_walk(struct vqueue_info *vq, struct vq_chain *c, uint16_t *ret_head);
void packed_take(struct vqueue_info *vq, uint16_t head);

/* Collect a chain that was taken before. */
int packed_walk_again(struct vqueue_info *vq, uint16_t head,
		      struct vq_chain *c);

/* Whether a chain is sound and has no bytes at all: the one that packed_peek()
 * saw, or one that was taken before. */
bool packed_is_empty(struct vqueue_info *vq);
bool packed_was_empty(struct vqueue_info *vq, uint16_t head);

int packed_push_used(struct vqueue_info *vq, uint16_t head, uint32_t len);
int packed_publish_used(struct vqueue_info *vq);

/* Make all slots from the used to the available position look unused. */
void packed_hide_used(struct vqueue_info *vq);

bool packed_wants_interrupt(struct vqueue_info *vq);
void packed_set_kicks(struct vqueue_info *vq, bool on);
void packed_mark(struct vqueue_info *vq, uint16_t head, uint32_t len);

/* Take over the copies of a chain: 0, or -EINVAL. */
int packed_take_left(struct vqueue_info *vq, const struct packed_desc *descs);

/*
 * --- vq_inflight.c: chains in flight, recorded where they survive us ---
 */

#define VQ_INFLIGHT_BYTES 18 /* our own, for each entry, besides the area */

/* Bytes of the area that a queue of @size entries needs. */
size_t vq_inflight_bytes(unsigned size, bool packed);

/*
 * Record the chains of @vq, which was just resumed, in @area from now on:
 * shared memory for at least vq_qsize entries, borrowed until the queue stops.
 * Chains that it lists as in flight are taken again, before others. 0, -EINVAL
 * when the area is of another kind, or -ENOMEM.
 */
int vq_inflight_start(struct vqueue_info *vq, void *area);
void vq_inflight_stop(struct vqueue_info *vq);

/*
 * The others are for split queues whose chains are recorded.
 *
 * The chain to take at @pos, if it is a resubmitted one.
 */
bool vq_inflight_head(const struct vqueue_info *vq, uint16_t pos,
		      uint16_t *ret_head);

/* @head was taken; was returned unprocessed, @pos its position; was put into
 * the used ring; all that were put there are visible, up to @used. */
void vq_inflight_take(struct vqueue_info *vq, uint16_t head);
void vq_inflight_untake(struct vqueue_info *vq, uint16_t pos, uint16_t head);
void vq_inflight_use(struct vqueue_info *vq, uint16_t head);
void vq_inflight_publish(struct vqueue_info *vq, uint16_t used);

/*
 * --- vq_packed_inflight.c: the same for packed rings ---
 *
 * The area is a second copy of struct vq_packed's lists, and never read again
 * after the start.
 */

size_t packed_inflight_bytes(unsigned size);
int packed_inflight_start(struct vqueue_info *vq, void *area);

/* The chain at @head was taken: before the list of free ones moves. */
void packed_inflight_take(struct vqueue_info *vq, const struct packed_desc *d);

/* Before and after the batch becomes visible to the driver. */
void packed_inflight_use(struct vqueue_info *vq);
void packed_inflight_publish(struct vqueue_info *vq);

#endif

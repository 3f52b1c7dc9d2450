/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A pretend guest driver, for tests, fuzzers and benchmarks. It is installed as
 * <viodev/test.h>, and `pkg-config viodev-test` finds its library.
 *
 * It is the embedder of a PCI function and its driver in one: guest memory is
 * an array, interrupts are counted, and the device is driven as a guest drives
 * it, through its configuration space and BARs, legacy or modern. It never
 * looks inside the device, so a test shows what a guest would see.
 *
 *	struct vdrv d;
 *
 *	vdrv_init(&d, VDRV_MODERN);
 *	dev_create(..., &d.pi, loop, ...);
 *	d.idle = iteration;		// vio_loop_iterate(loop, 0)
 *	d.idle_arg = loop;
 *	started = vdrv_start(&d, VI_BIT(VIRTIO_F_VERSION_1) | ..., 1);
 *	gpa = vdrv_alloc(&d, 512, 1);
 *	head = vdrv_add(&d, 0, (struct vdrv_buf[]){ { gpa, 512, VDRV_W } }, 1);
 *	vdrv_kick(&d, 0);
 *	while (!vdrv_used(&d, 0, &used)) {
 *		vio_loop_iterate(loop, 10);
 *		vdrv_wake(&d);
 *	}
 *	dev_destroy(...);
 *	vdrv_fini(&d);
 */
#ifndef TESTS_LIB_VDRV_H
#define TESTS_LIB_VDRV_H

#include <stdbool.h>
#include <stdint.h>

#include <viodev/gmem.h>
#include <viodev/pci.h>
#include <viodev/virtio.h>

#ifdef __cplusplus
extern "C" {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wshadow" /* vdrv_used is two things */
#endif

enum vdrv_mode {
	VDRV_MODERN,
	VDRV_LEGACY,
};

#define VDRV_MEM_BYTES (64u << 20) /* guest RAM, at guest address 1 MiB */
#define VDRV_MEM_BASE  (1u << 20)
#define VDRV_MAX_Q     64
#define VDRV_MAX_MSIX  65

enum {                    /* flags of a buffer */
       VDRV_R = 0,        /* device-readable */
       VDRV_W = 1,        /* device-writable */
       VDRV_INDIRECT = 2, /* descriptor flag, set by hand */
};

#define VDRV_NONE 0xffff /* no descriptor; also MSI-X's "no vector" */
#define VDRV_WRAP 0x8000 /* a packed ring's position: its wrap counter */

struct vdrv_buf {
	uint64_t gpa;
	uint32_t len;
	unsigned flags;
};

struct vdrv_used {
	uint32_t id;
	uint32_t len;
};

/* What the driver remembers of a descriptor; none of it is in guest memory. */
struct vdrv_slot {
	uint16_t next;          /* in its chain or the free list */
	uint16_t nr;            /* packed: slots of its chain */
	bool inflight;          /* head of a chain that vdrv_add() offered */
	uint64_t writable;      /* bytes the device may write to that chain */
	uint64_t table;         /* guest address of its indirect table */
	unsigned table_entries; /* room in it */
};

struct vdrv_queue {
	bool ready;
	bool packed; /* indices are positions: slots, and VDRV_WRAP */
	uint16_t size;
	uint64_t desc, avail, used; /* guest addresses */
	uint16_t avail_idx;         /* next to fill */
	uint16_t used_idx;          /* next to look at */
	uint16_t kicked_idx;        /* avail_idx when last asked for a kick */
	unsigned nr_unkicked;       /* packed: slots filled since then */
	uint16_t free_head, nr_free;
	uint64_t notify_off; /* in the modern BAR */
	bool event_idx;
	bool no_intr; /* vdrv_want_intr() */
	struct vdrv_slot *slots;
};

struct vdrv {
	struct pci_devinst pi; /* build the device on this */
	struct gmem gm;
	enum vdrv_mode mode;
	uint8_t *mem;       /* guest RAM, between guard pages */
	uint8_t *view;      /* the same for the driver, if apart */
	bool apart;         /* vdrv_apart() */
	uint64_t next_free; /* bump allocator, guest address */
	uint64_t features;  /* negotiated */
	bool msix;          /* enabled by vdrv_start(), if there */
	bool no_msix;       /* set it, and vdrv_start() leaves it off */

	/* Runs the device's loop; NULL if it completes without one. */
	void (*idle)(void *arg);
	void *idle_arg;

	bool woken; /* ph_wake(); see vdrv_wake() */
	struct vdrv_queue q[VDRV_MAX_Q];

	/* What the device raised; atomic, a device may run in a thread. */
	unsigned nr_msix[VDRV_MAX_MSIX];
	uint64_t msix_addr; /* the last message */
	uint32_t msix_data;
	unsigned nr_msi;
	unsigned nr_intx; /* rising edges */
	bool intx;        /* level now */
	unsigned nr_log;  /* log lines */
	char last_log[256];

	/* Where the structures are, found by walking the capabilities. */
	int common_bar, notify_bar, isr_bar, device_bar;
	uint64_t common_off, notify_off, isr_off, device_off;
	uint64_t notify_len, device_len;
	uint32_t notify_mult;
	uint8_t pcicfg_cap; /* offset of the PCI_CFG capability, 0: none */
	uint8_t msix_cap;   /* of MSI-X, 0: none */
	uint8_t msi_cap;    /* of MSI, 0: none */
	unsigned nr_vectors;
	int msix_bar;
	uint64_t msix_off, pba_off;
};

/*
 * Create the function, without a device. All of guest RAM is one region; a test
 * that wants another table changes d->gm itself.
 */
void vdrv_init(struct vdrv *d, enum vdrv_mode mode);
void vdrv_fini(struct vdrv *d);

/*
 * Before anything is allocated: from now on each vdrv_alloc() is a region of
 * its own, which ends at an inaccessible page and has one before it. Rings and
 * buffers that a device overruns then end the process, also without a
 * sanitizer.
 */
void vdrv_apart(struct vdrv *d);

/*
 * Then also: take regions away from the device while it runs, and give them
 * back, mapped or only by gmem_ops, once no region is in limbo. What the device
 * may not use any more is inaccessible to it; the driver still sees it.
 */
void vdrv_remove(struct vdrv *d, uint64_t gpa, uint64_t len);
void vdrv_restore(struct vdrv *d, uint64_t gpa, uint64_t len, bool mapped);

/* Make all memory inaccessible to the device, and accessible again. */
void vdrv_forbid(struct vdrv *d);
void vdrv_permit(struct vdrv *d);

/* Guest memory. vdrv_alloc() never frees; vdrv_ptr() checks the range. */
uint64_t vdrv_alloc(struct vdrv *d, uint64_t len, uint64_t align);
void *vdrv_ptr(struct vdrv *d, uint64_t gpa, uint64_t len);

/* Do what an embedder does after ph_wake(), if it was called. */
void vdrv_wake(struct vdrv *d);

/* Find the capabilities; vdrv_start() does so itself. */
void vdrv_probe(struct vdrv *d);

/* Registers by name, in whichever mode the driver works. */
uint32_t vdrv_common_read(struct vdrv *d, unsigned off, int size);
void vdrv_common_write(struct vdrv *d, unsigned off, int size, uint32_t val);
uint32_t vdrv_legacy_read(struct vdrv *d, unsigned off, int size);
void vdrv_legacy_write(struct vdrv *d, unsigned off, int size, uint32_t val);
uint8_t vdrv_status(struct vdrv *d);
void vdrv_set_status(struct vdrv *d, uint8_t status);
uint8_t vdrv_isr(struct vdrv *d);
uint64_t vdrv_offer(struct vdrv *d); /* device features */

/* Device configuration, where the mode has it. */
uint32_t vdrv_cfg_read(struct vdrv *d, unsigned off, int size);
void vdrv_cfg_write(struct vdrv *d, unsigned off, int size, uint32_t val);

/* Turn MSI-X (and its vectors' masks) on or off, through config and BAR 1. */
void vdrv_msix_enable(struct vdrv *d, bool on);

/* Mask one vector in the table, or all by the function's mask bit. */
void vdrv_msix_mask(struct vdrv *d, unsigned vector, bool masked);
void vdrv_msix_mask_all(struct vdrv *d, bool masked);
bool vdrv_msix_pending(struct vdrv *d, unsigned vector);

/* What vdrv_start() makes the guest write for vector @vector. */
#define VDRV_MSIX_ADDR(vector) (0xfee00000u + ((uint32_t)(vector) << 12))
#define VDRV_MSIX_DATA(vector) (0x4000u + (uint32_t)(vector))

/*
 * All of 3.1.1: reset, acknowledge, negotiate @features & offer, set up the
 * first @nr_queues queues with their maximum size (queue i on vector i + 1,
 * configuration on vector 0), DRIVER_OK. Returns whether the device accepted.
 * Its parts, for tests that stop half way:
 */
bool vdrv_start(struct vdrv *d, uint64_t features, unsigned nr_queues);
void vdrv_reset(struct vdrv *d);     /* and wait until it is complete */
void vdrv_reset_now(struct vdrv *d); /* do not wait */
void vdrv_greet(struct vdrv *d);     /* ACKNOWLEDGE, DRIVER, MSI-X */
bool vdrv_negotiate(struct vdrv *d, uint64_t features); /* exactly these */
bool vdrv_queue_setup(struct vdrv *d, unsigned q, uint16_t size); /* 0: max */
void vdrv_driver_ok(struct vdrv *d);

/*
 * vdrv_queue_setup() with rings where the test wants them; legacy: @desc says
 * where they all are. vdrv_queue_size() is the maximum, before set-up.
 */
bool vdrv_queue_setup_at(struct vdrv *d, unsigned q, uint16_t size,
			 uint64_t desc, uint64_t avail, uint64_t used);
uint16_t vdrv_queue_size(struct vdrv *d, unsigned q);

/*
 * Make a chain available. Returns the head. There must be @nr free descriptors
 * (d->q[q].nr_free), or one for vdrv_add_indirect(), which puts the buffers
 * into an indirect table. vdrv_desc() writes one descriptor as it is,
 * vdrv_avail() offers a head as it is: for chains that no driver would build.
 */
uint16_t vdrv_add(struct vdrv *d, unsigned q, const struct vdrv_buf *bufs,
		  unsigned nr);
uint16_t vdrv_add_indirect(struct vdrv *d, unsigned q,
			   const struct vdrv_buf *bufs, unsigned nr);
void vdrv_desc(struct vdrv *d, unsigned q, uint16_t i, uint64_t gpa,
	       uint32_t len, uint16_t flags, uint16_t next);
void vdrv_avail(struct vdrv *d, unsigned q, uint16_t head);

/*
 * Ring the doorbell, unconditionally or only if the device wants it. Whether it
 * wants it for what was added since the previous query.
 */
void vdrv_kick(struct vdrv *d, unsigned q);
bool vdrv_kick_if_wanted(struct vdrv *d, unsigned q);
bool vdrv_kick_wanted(struct vdrv *d, unsigned q);

/*
 * Take the next used entry, if there is one; free its descriptors. With
 * EVENT_IDX ask for an interrupt at the next one, unless interrupts are off.
 * A chain of vdrv_add() with more bytes used than it had writable ends the
 * program: no device may ever do that (hostile D40).
 */
bool vdrv_used(struct vdrv *d, unsigned q, struct vdrv_used *ret_used);

/* Free all descriptors of a queue, whatever became of its chains. */
void vdrv_forget_chains(struct vdrv *d, unsigned q);

/* Interrupts of a queue on (from the start) or off, as a hint. 2.7.7 */
void vdrv_want_intr(struct vdrv *d, unsigned q, bool on);

/*
 * A packed ring: fill the next slot as it is, available, for chains that no
 * driver would build; whether a slot is used, of the lap of a position; the
 * device's event structure, and the driver's: offset and wrap counter, flags
 * above them.
 */
void vdrv_slot(struct vdrv *d, unsigned q, const struct vdrv_buf *b,
	       uint16_t flags, uint16_t id);
bool vdrv_slot_is_used(struct vdrv *d, unsigned q, uint16_t pos);
uint32_t vdrv_device_event(struct vdrv *d, unsigned q);
void vdrv_set_driver_event(struct vdrv *d, unsigned q, uint32_t event);

/* Split rings: fields as they lie in memory, for tests that look or interfere. */
uint16_t vdrv_used_flags(struct vdrv *d, unsigned q);
uint16_t vdrv_used_ring_idx(struct vdrv *d, unsigned q);
uint16_t vdrv_avail_event(struct vdrv *d, unsigned q);
void vdrv_set_used_event(struct vdrv *d, unsigned q, uint16_t idx);
void vdrv_set_avail_flags(struct vdrv *d, unsigned q, uint16_t flags);
void vdrv_set_avail_idx(struct vdrv *d, unsigned q, uint16_t idx);

#ifdef __cplusplus
#pragma GCC diagnostic pop
}
#endif

#endif

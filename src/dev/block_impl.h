/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The block device's parts: block.c creates and configures the device,
 * block_req.c processes its requests.
 */
#ifndef DEV_BLOCK_IMPL_H
#define DEV_BLOCK_IMPL_H

#include <assert.h>
#include <linux/virtio_blk.h>

#include "back/disk/disk.h"
#include "base/ratelimit.h"
#include "base/le.h"
#include "base/slab.h"
#include "dev/devices.h"

#define SECTOR_BYTES    512u
#define BLOCK_MAX_Q     16u
#define BLOCK_MIN_QSIZE 4u /* seg_max is two less than it */
#define BLOCK_MAX_QSIZE 1024u

/*
 * Requests of all queues taken at a time, and those of them with more than a
 * few data buffers: 3 MiB if a guest uses all.
 */
#define BLOCK_MAX_IOS  2048u
#define BLOCK_MAX_WIDE 512u
#define BLOCK_FEW_IOV  8

/* Data buffers of a request: announced, and accepted (regions have borders). */
#define BLOCK_SEG_MAX  254u
#define BLOCK_MAX_IOV  272
#define BLOCK_SIZE_MAX (1u << 20) /* bytes of one, as announced */

/* Discard and write zeroes; zeroes may have to be written out. */
#define BLOCK_MAX_SEGS        16u
#define BLOCK_DISCARD_SECTORS (1u << 21)
#define BLOCK_ZERO_SECTORS    (1u << 17)

/* The data of discard and write zeroes, 5.2.6. */
struct block_seg {
	le64 sector;
	le32 nr_sectors;
	le32 flags;
};
static_assert(sizeof(struct block_seg) == 16, "5.2.6");

/* Kinds that are counted together. */
enum block_kind {
	BLOCK_READ,
	BLOCK_WRITE,
	BLOCK_FLUSH,
	BLOCK_DISCARD,
	BLOCK_ZERO,
	BLOCK_OTHER, /* GET_ID, and unknown types */
	BLOCK_NR_KINDS,
};

struct block_stats {
	uint64_t requests, bytes, errors;
};

/* What few requests need: many buffers, or a range to discard or to zero. */
union block_wide {
	struct block_seg segs[BLOCK_MAX_SEGS];
	struct iovec iov[BLOCK_MAX_IOV];
};

/* A request in flight. */
struct block_io {
	struct disk_req dr; /* first: what its callback gets */
	struct block_queue *q;
	uint16_t head;
	uint8_t *status;
	uint32_t in_bytes; /* writable, before the status */
	enum block_kind kind;
	unsigned next_seg, nr_segs;
	union block_wide *wide; /* or NULL */
	struct iovec few[BLOCK_FEW_IOV];
};
static_assert(offsetof(struct block_io, dr) == 0, "disk_req is cast to it");

struct block_queue {
	struct block_softc *sc;
	struct vqueue_info *vq;
	struct vio_task iteration_end; /* publishes what completed */
};

struct block_softc {
	struct virtio_softc sc_vs; /* first: callbacks get it as a void * */
	struct vqueue_info sc_vqs[BLOCK_MAX_Q];
	struct block_queue sc_queues[BLOCK_MAX_Q];
	struct virtio_consts sc_consts;
	struct vdev sc_dev;
	struct vio_loop *sc_loop;
	struct vdev_env sc_env;
	struct disk_io *sc_io;
	struct disk *sc_disk;
	struct disk_info sc_info;
	enum disk_cache sc_cache;
	uint64_t sc_capacity; /* sectors */
	uint32_t sc_block_bytes, sc_phys_bytes;
	bool sc_discard;
	bool sc_writeback;        /* as set by CONFIG_WCE */
	struct disk_req sc_flush; /* when that was turned off */
	bool sc_flushing, sc_flush_pending;
	char sc_serial[VIRTIO_BLK_ID_BYTES];
	struct block_stats sc_stats[BLOCK_NR_KINDS];
	uint64_t sc_host_errors;
	struct slab sc_ios, sc_wides;
	bool sc_no_memory;                 /* a queue waits for some of these */
	struct ratelimit sc_iops, sc_bps;  /* limits */
	struct vio_source *sc_limit_timer; /* runs when they allow more */
	struct iovec sc_iov[BLOCK_MAX_IOV]; /* of a chain just taken */
};
static_assert(offsetof(struct block_softc, sc_vs) == 0, "vs is cast to sc");

static inline bool block_negotiated(const struct block_softc *sc, unsigned bit)
{
	return sc->sc_vs.vs_negotiated_caps & VI_BIT(bit);
}

/* Whether a write may complete before it is stable, 5.2.6.2. */
static inline bool block_write_cache_on(const struct block_softc *sc)
{
	if (block_negotiated(sc, VIRTIO_BLK_F_CONFIG_WCE))
		return sc->sc_writeback;
	return block_negotiated(sc, VIRTIO_BLK_F_FLUSH);
}

/* Names of the kinds. */
extern const char *const block_kind_names[BLOCK_NR_KINDS];

/* A doorbell; and the end of an iteration in which requests completed. */
void block_qnotify(void *arg, struct vqueue_info *vq);
void block_iteration_end(void *arg);

/* Flush the write cache, for no particular request. */
void block_flush_cache(struct block_softc *sc);

/*
 * Return requests that wait after an error in queues that are stopping. Returns
 * how many could not be returned.
 */
unsigned block_give_back(struct block_softc *sc);

/* A request began to wait after an error. */
void block_on_wait(void *arg, enum disk_op op, int error);

/* The limits allow requests again. */
void block_on_limit(void *arg);

#endif

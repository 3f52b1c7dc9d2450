/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Guest memory: the table of what a device may reach by DMA.
 *
 * The embedder (a VMM, or a server of <viodev/server.h>) adds and
 * removes regions, also while the device runs; the virtqueues translate guest
 * addresses through the table. Regions may touch each other, as the pieces of
 * one RAM do when firmware write-protects a part of it, and a buffer may cross
 * from one into the next.
 *
 *    guest physical   0        a0000      100000                 20000000
 *                     +----------+  hole  +------------+----------+
 *                     | mapped   |        | mapped, ro | not      |
 *                     |          |        |            | mapped   |
 *                     +----------+        +------------+----------+
 *                        host = p            host = q     host = NULL
 *
 * A region without a host mapping is memory that was announced but not shared.
 * gm_read() and gm_write() reach it through the embedder's gmem_ops; gm_map()
 * refuses it.
 *
 * Threads: a table belongs to its device. Calls that change it must not run
 * beside calls that use it.
 */
#ifndef VIODEV_GMEM_H
#define VIODEV_GMEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A guest physical address, or an IOVA where the guest has an IOMMU. */
typedef struct {
	uint64_t v;
} gpa_t;

enum gm_prot {
	GM_READ = 1,  /* the device may read it */
	GM_WRITE = 2, /* the device may write it */
};

struct gm_region {
	gpa_t base;    /* first address */
	uint64_t len;  /* bytes, never 0; base + len does not wrap */
	void *host;    /* where it is mapped here, or NULL */
	unsigned prot; /* GM_READ | GM_WRITE */
	void *owner;   /* what the owner of @host knows it by, or NULL */
	uint64_t pin;  /* private: the bit of its counter of users */
};

/* Private: a region that was removed while requests used it. */
struct gm_limbo {
	struct gm_region region;
	uint32_t gen;   /* requests begun before this generation may use it, */
	uint32_t users; /* of which so many have not ended */
};

#define GM_NR_PINS 64

/*
 * Access to memory that is announced but not mapped. Each returns 0 or -errno.
 * For a read -EAGAIN means "not now": the queue is left as it was and is to be
 * notified again; a write takes what it is given and must not say so. @len is
 * at most what one region holds. Either may be NULL: such memory then reads
 * and writes as -EFAULT.
 */
struct gmem_ops {
	int (*read)(void *arg, gpa_t a, void *buf, size_t len);
	int (*write)(void *arg, gpa_t a, const void *buf, size_t len);
};

struct gmem {
	struct gm_region *regions; /* sorted by base, none overlap */
	unsigned nr_regions;
	unsigned cap_regions;
	unsigned hit; /* the region that the last look-up found */
	uint32_t gen; /* grows with each change of the table */
	const struct gmem_ops *ops;
	void *ops_arg;
	uint8_t *log; /* gm_set_log(), or NULL */
	uint64_t log_len;

	/* Private: who uses which regions. See gm_pin(). */
	uint64_t touched;           /* pins of the regions looked up */
	uint32_t users[GM_NR_PINS]; /* requests that hold each pin */
	unsigned next_pin;
	struct gm_limbo *limbo;
	unsigned nr_limbo, cap_limbo;
	uint64_t limbo_pins; /* of the regions in limbo */
};

/* Make an empty table. @ops may be NULL. Nothing is allocated yet. */
void gm_init(struct gmem *gm, const struct gmem_ops *ops, void *ops_arg);

/*
 * Forget all regions, those in limbo too, and free the table. The mappings are
 * the caller's.
 */
void gm_fini(struct gmem *gm);

/*
 * Announce a region. @host is borrowed until the region is removed, NULL for
 * memory that is not mapped. Returns 0; -EINVAL when it is empty, wraps or has
 * no protection bit; -EEXIST when it overlaps another; -ENOMEM.
 */
int gm_add(struct gmem *gm, gpa_t base, uint64_t len, void *host,
	   unsigned prot);

/* The same, with a pointer that @gone of gm_remove() finds in the region. */
int gm_add_owned(struct gmem *gm, gpa_t base, uint64_t len, void *host,
		 unsigned prot, void *owner);

/* Called with a region that nothing uses any more: its owner may unmap it. */
typedef void gm_gone_cb(void *arg, const struct gm_region *r);

/*
 * Forget every region that lies in [base, base + len): nothing is translated
 * through it from here on. @gone (may be NULL) is called for each that no
 * request in flight uses. The others stay mapped, in limbo, until the last such
 * request ends; then the table's owner is told (ph_wake() of <viodev/pci.h>)
 * and calls gm_reap().
 *
 * Returns the number of regions that went into limbo; 0 also when the range
 * holds no region. -EINVAL, and nothing is changed, when a region lies only
 * partly inside. A @len that runs past the end of the address space is cut
 * there.
 */
int gm_remove(struct gmem *gm, gpa_t base, uint64_t len, gm_gone_cb *gone,
	      void *arg);

/*
 * Call @gone for each region in limbo that is no longer used. Returns how many
 * are still in limbo.
 */
unsigned gm_reap(struct gmem *gm, gm_gone_cb *gone, void *arg);

/*
 * A request uses the regions that it was translated through: look them up
 * between gm_pin_begin() and gm_pin(), keep the pins and the generation that
 * gm_pin() returns, and give both to gm_unpin() when the request has ended.
 * That returns true when a region in limbo lost its last user: gm_reap() has
 * work. Virtqueues do this for each chain; device models need not.
 */
static inline void gm_pin_begin(struct gmem *gm)
{
	gm->touched = 0;
}
uint64_t gm_pin(struct gmem *gm, uint32_t *ret_gen);
bool gm_unpin(struct gmem *gm, uint64_t pins, uint32_t gen);

/*
 * Translate a range that must be one piece here. All of [a, a + len) lies in
 * one mapped region that allows @prot: returns its address. Otherwise NULL.
 * The address is borrowed: valid until the region is removed or, for a request
 * that has pinned it, until gm_unpin().
 */
void *gm_map(struct gmem *gm, gpa_t a, uint64_t len, unsigned prot);

/*
 * Translate a range that may cross regions. Returns how many iovecs it took
 * (0 for an empty range that starts inside a region), -EFAULT when a byte of
 * it is in no region, -EACCES when one does not allow @prot, -ENOTSUP when one
 * is not mapped, -E2BIG when it needs more than @niov.
 */
int gm_map_iov(struct gmem *gm, gpa_t a, uint64_t len, unsigned prot,
	       struct iovec *iov, int niov);

/*
 * Whether all of [a, a + len) is in regions that allow @prot, mapped or not:
 * 0, -EFAULT or -EACCES.
 */
int gm_check(struct gmem *gm, gpa_t a, uint64_t len, unsigned prot);

/*
 * Copy out of or into guest memory, mapped or not, across regions. Returns 0
 * or -errno as gm_map_iov() and gmem_ops have it.
 */
int gm_read(struct gmem *gm, gpa_t a, void *buf, size_t len);
int gm_write(struct gmem *gm, gpa_t a, const void *buf, size_t len);

/*
 * Log what is written, for a guest that is being moved: page a / GM_LOG_PAGE
 * has bit page % 8 of byte page / 8 of @log, @len bytes that others may read
 * and clear meanwhile. NULL ends it. gm_write() and the virtqueues log what
 * they write; who writes through an address of gm_map() says gm_mark()
 * afterwards.
 */
#define GM_LOG_PAGE 4096
void gm_set_log(struct gmem *gm, uint8_t *log, uint64_t len);
void gm_mark_logged(struct gmem *gm, gpa_t a, uint64_t len);

static inline void gm_mark(struct gmem *gm, gpa_t a, uint64_t len)
{
	if (gm->log)
		gm_mark_logged(gm, a, len);
}

#ifdef __cplusplus
}
#endif

#endif

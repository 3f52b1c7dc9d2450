/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Guest memory: the table of what a device may reach by DMA.
 *
 * The embedder (a VMM, or a server of <viodev/server.h>) adds and removes
 * regions, also while the device runs. Virtqueues translate guest addresses
 * through the table. Regions may be adjacent, as when firmware write-protects a
 * part of RAM, and a buffer may extend from one into the next.
 *
 *    guest physical   0        a0000      100000                 20000000
 *                     +----------+  hole  +------------+----------+
 *                     | mapped   |        | mapped, ro | not      |
 *                     |          |        |            | mapped   |
 *                     +----------+        +------------+----------+
 *                        host = p            host = q     host = NULL
 *
 * A region without a host mapping is memory that was announced but not shared.
 * gm_read() and gm_write() access it through the embedder's gmem_ops; gm_map()
 * fails for it.
 *
 * Threads: a table belongs to one device and has no lock. Calls that change it
 * must not run concurrently with calls that use it (pci_lock() of
 * <viodev/pci.h>).
 *
 * Errors: -errno. Ownership: the table never owns a mapping.
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
	void *host;    /* its address in this process, or NULL */
	unsigned prot; /* GM_READ | GM_WRITE */
	uint32_t id;   /* private: of its struct gm_use */
	void *owner;   /* the owner's pointer from gm_add_owned(), or NULL */
};

/* Private: the users of a region, until it is removed and has none. */
struct gm_use {
	uint32_t users;     /* requests in flight */
	uint32_t next_free; /* of an id that is not in use: the next such */
	uint64_t request;   /* the last that looked it up, or 0 */
	bool limbo;         /* removed while requests used it */
};

/* The regions that a request uses, of gm_pin(). All 0: none. */
struct gm_pins {
	uint64_t few;   /* a bit for each id below GM_NR_FEW, */
	uint32_t *more; /* and the others, allocated */
	uint32_t nr_more;
};

#define GM_NR_FEW   64u
#define GM_MAX_MORE (1u << 20) /* of all requests in flight, see gm_pin() */

/*
 * Access to memory that is announced but not mapped. Each returns 0 or -errno;
 * @len bytes lie in one region. A read, but no write, may return -EAGAIN for
 * "not now": the queue stays as it was, and pci_kick() must follow. Either
 * callback may be NULL: the access then fails with -EFAULT.
 */
struct gmem_ops {
	int (*read)(void *arg, gpa_t a, void *buf, size_t len);
	int (*write)(void *arg, gpa_t a, const void *buf, size_t len);
};

struct gmem {
	struct gm_region *regions; /* sorted by base, none overlap */
	unsigned nr_regions;
	unsigned cap_regions;
	unsigned hit; /* region of the last successful look-up */
	uint32_t gen; /* incremented by each change of the table */
	const struct gmem_ops *ops;
	void *ops_arg;
	uint8_t *log; /* gm_set_log(), or NULL */
	uint64_t log_len;

	/* Private: which requests use which regions. See gm_pin(). */
	uint64_t few;       /* looked up by the current request, */
	uint32_t *more;     /* with room for every id */
	uint32_t nr_more;   /* so many, each once, */
	uint64_t request;   /* which is this one */
	struct gm_use *use; /* by id */
	uint32_t nr_ids;
	uint64_t free_few;  /* ids that are not in use: bits below GM_NR_FEW, */
	uint32_t free_more; /* and the first of a list, or GM_NO_ID */
	uint32_t nr_pinned; /* in struct gm_pins.more of all requests */
	struct gm_region *limbo;
	unsigned nr_limbo, cap_limbo;
};

/* Initialise an empty table. @ops may be NULL. Allocates nothing. */
void gm_init(struct gmem *gm, const struct gmem_ops *ops, void *ops_arg);

/*
 * Remove all regions, including those in limbo, and free the table. The caller
 * keeps the mappings.
 */
void gm_fini(struct gmem *gm);

/*
 * Add a region. @host, NULL for memory that is not mapped, must stay mapped
 * until gm_remove() or gm_reap() returns the region. Returns 0; -EINVAL when
 * the range is empty or wraps or @prot is 0; -EEXIST when it overlaps another
 * region; -ENOMEM.
 */
int gm_add(struct gmem *gm, gpa_t base, uint64_t len, void *host,
	   unsigned prot);

/* The same, with a pointer for gm_removed_cb: it finds @owner in the region. */
int gm_add_owned(struct gmem *gm, gpa_t base, uint64_t len, void *host,
		 unsigned prot, void *owner);

/* Called with a region that nothing uses any longer: its owner may unmap it. */
typedef void gm_removed_cb(void *arg, const struct gm_region *r);

/*
 * Remove every region that lies in [base, base + len): nothing is translated
 * through it from now on. @removed (may be NULL) is called for each region that
 * no request in flight uses. The others enter limbo: they must stay mapped
 * until the last such request ends. The device then calls ph_wake() of
 * <viodev/pci.h>, and the table's owner calls gm_reap().
 *
 * Returns the number of regions in limbo because of this call, 0 also when the
 * range holds no region; -EINVAL, with the table unchanged, when a region lies
 * only partly inside. A range that would exceed the address space ends there.
 */
int gm_remove(struct gmem *gm, gpa_t base, uint64_t len, gm_removed_cb *removed,
	      void *arg);

/*
 * Call @removed for each region in limbo that is no longer used. Returns the
 * number of regions that remain in limbo.
 */
unsigned gm_reap(struct gmem *gm, gm_removed_cb *removed, void *arg);

/*
 * Pin the regions of a request: translate its addresses between gm_pin_begin()
 * and gm_pin(), and pass the pins to gm_unpin() when the request has ended. A
 * region that is removed meanwhile waits for the requests that use it, and for
 * no others. gm_pin() returns 0; or, for a request of many regions, -ENOMEM, or
 * -EAGAIN while other requests hold GM_MAX_MORE pins: nothing is pinned.
 * gm_unpin() returns true when a region in limbo lost its last user: gm_reap()
 * has work. Virtqueues do this for each chain; device models need not.
 */
static inline void gm_pin_begin(struct gmem *gm)
{
	gm->few = 0;
	gm->nr_more = 0;
	gm->request++;
}
int gm_pin(struct gmem *gm, struct gm_pins *ret_pins);
bool gm_unpin(struct gmem *gm, struct gm_pins *pins);

/*
 * Translate a range that must be contiguous in this process. Returns its
 * address when all of [a, a + len) lies in mapped regions that allow @prot and
 * follow one another here as they do there, NULL otherwise. The address is
 * valid until the region is removed or, for a request that pinned it, until
 * gm_unpin().
 */
void *gm_map(struct gmem *gm, gpa_t a, uint64_t len, unsigned prot);

/*
 * Translate a range that may cross regions; those that are contiguous in this
 * process share an iovec. Returns the number of iovecs filled (0 for an empty
 * range that starts inside a region); -EFAULT when a byte lies in no region;
 * -EACCES when a region does not allow @prot; -ENOTSUP when one is not mapped;
 * -E2BIG when @niov iovecs do not suffice.
 */
int gm_map_iov(struct gmem *gm, gpa_t a, uint64_t len, unsigned prot,
	       struct iovec *iov, int niov);

/*
 * Whether all of [a, a + len) is in regions that allow @prot, mapped or not:
 * 0, -EFAULT or -EACCES.
 */
int gm_check(struct gmem *gm, gpa_t a, uint64_t len, unsigned prot);

/*
 * Copy from or to guest memory, mapped or not, across regions. Returns 0 or an
 * error of gm_map_iov() or gmem_ops.
 */
int gm_read(struct gmem *gm, gpa_t a, void *buf, size_t len);
int gm_write(struct gmem *gm, gpa_t a, const void *buf, size_t len);

/*
 * Log writes, for migration: a write to address a sets bit page % 8 of byte
 * page / 8 of @log, where page is a / GM_LOG_PAGE. @log has @len bytes, which
 * another process may read and clear at the same time; NULL stops logging.
 * gm_write() and virtqueues log their own writes. After a write through an
 * address of gm_map(), call gm_mark().
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

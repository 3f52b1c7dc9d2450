/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Guest memory: the table of what a device may reach by DMA.
 *
 * The embedder (a VMM, or one of the servers of <viodev/vfio_user.h>) adds and
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
};

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
};

/* Make an empty table. @ops may be NULL. Nothing is allocated yet. */
void gm_init(struct gmem *gm, const struct gmem_ops *ops, void *ops_arg);

/* Forget all regions and free the table. The mappings are the caller's. */
void gm_fini(struct gmem *gm);

/*
 * Announce a region. @host is borrowed until the region is removed, NULL for
 * memory that is not mapped. Returns 0; -EINVAL when it is empty, wraps or has
 * no protection bit; -EEXIST when it overlaps another; -ENOMEM.
 */
int gm_add(struct gmem *gm, gpa_t base, uint64_t len, void *host,
	   unsigned prot);

/*
 * Forget every region that lies in [base, base + len), calling @gone (may be
 * NULL) for each so that its owner can unmap it. Succeeds when there is none.
 * -EINVAL, and nothing is changed, when a region lies only partly inside. A
 * @len that runs past the end of the address space is cut there.
 *
 * The caller has made sure that no request is using the memory.
 */
int gm_remove(struct gmem *gm, gpa_t base, uint64_t len,
	      void (*gone)(void *arg, const struct gm_region *r), void *arg);

/*
 * Translate a range that must be one piece here. All of [a, a + len) lies in
 * one mapped region that allows @prot: returns its address. Otherwise NULL.
 * The address is borrowed: valid until the table changes.
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

#endif

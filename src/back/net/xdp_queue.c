/* SPDX-License-Identifier: BSD-2-Clause */
#include "back/net/xdp.h"

#include <errno.h>
#include <linux/if_ether.h>
#include <poll.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <viodev/iov.h>

#define ENTRY(n) ((n) & (XDP_NR_FRAMES - 1))
#define BATCH    64 /* frames after which an index is published */

/*
 * The kernel writes the rings, and so did the process before this one, which a
 * guest may have taken over. So no index or address in them is trusted.
 */
#define IN_RANGE(nr)    ((nr) <= XDP_NR_FRAMES)
#define OFFSET_OF(addr) ((addr) & (XDP_QUEUE_BYTES - 1))
#define FRAME_OF(addr)  (OFFSET_OF(addr) & ~(uint64_t)(XDP_FRAME_BYTES - 1))

/* An index that the kernel writes, after the entries. */
static uint32_t load(const uint32_t *index)
{
	return __atomic_load_n(index, __ATOMIC_ACQUIRE);
}

/* An index that we write, after the entries were written or read. */
static void publish(uint32_t *index, uint32_t value)
{
	__atomic_store_n(index, value, __ATOMIC_RELEASE);
}

/* Read after the index is published; the kernel's order is the reverse. */
static bool needs_wakeup(const struct xdp_ring *ring)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return __atomic_load_n(ring->flags, __ATOMIC_RELAXED) &
	       XDP_RING_NEED_WAKEUP;
}

/*
 * --- Mapping ---
 */

int xdp_offsets(int fd, struct xdp_mmap_offsets *ret_offsets)
{
	socklen_t len = sizeof(*ret_offsets);

	if (getsockopt(fd, SOL_XDP, XDP_MMAP_OFFSETS, ret_offsets, &len) < 0)
		return -errno;
	return len == sizeof(*ret_offsets) ? 0 : -EOPNOTSUPP;
}

static int map_ring(struct xdp_ring *ring, int fd,
		    const struct xdp_ring_offset *at, size_t entry_bytes,
		    off_t where)
{
	size_t len = at->desc + XDP_NR_FRAMES * entry_bytes;
	uint8_t *map = mmap(NULL, len, PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_POPULATE, fd, where);

	if (map == MAP_FAILED)
		return -errno;
	*ring = (struct xdp_ring){
		.producer = (uint32_t *)(void *)(map + at->producer),
		.consumer = (uint32_t *)(void *)(map + at->consumer),
		.flags = (uint32_t *)(void *)(map + at->flags),
		.desc = (struct xdp_desc *)(void *)(map + at->desc),
		.map = map,
		.map_len = len,
	};
	return 0;
}

int xdp_queue_map(struct xdp_queue *q, int fd,
		  const struct xdp_mmap_offsets *offsets)
{
	int ret;

	*q = (struct xdp_queue){ .fd = fd, .longest = XDP_FRAME_BYTES };
	ret = map_ring(&q->rx, fd, &offsets->rx, sizeof(struct xdp_desc),
		       XDP_PGOFF_RX_RING);
	if (ret == 0)
		ret = map_ring(&q->tx, fd, &offsets->tx,
			       sizeof(struct xdp_desc), XDP_PGOFF_TX_RING);
	if (ret == 0)
		ret = map_ring(&q->fill, fd, &offsets->fr, sizeof(uint64_t),
			       (off_t)XDP_UMEM_PGOFF_FILL_RING);
	if (ret == 0)
		ret = map_ring(&q->done, fd, &offsets->cr, sizeof(uint64_t),
			       (off_t)XDP_UMEM_PGOFF_COMPLETION_RING);
	if (ret < 0)
		xdp_queue_unmap(q);
	return ret;
}

static void unmap_ring(struct xdp_ring *ring)
{
	if (ring->map)
		munmap(ring->map, ring->map_len);
	*ring = (struct xdp_ring){ 0 };
}

void xdp_queue_unmap(struct xdp_queue *q)
{
	unmap_ring(&q->rx);
	unmap_ring(&q->fill);
	unmap_ring(&q->tx);
	unmap_ring(&q->done);
}

void xdp_queue_first(struct xdp_queue *q)
{
	for (uint32_t i = 0; i < XDP_NR_FRAMES; i++) {
		q->rx.desc[i].addr = (uint64_t)i * XDP_FRAME_BYTES;
		q->done.addr[i] =
			(uint64_t)(XDP_NR_FRAMES + i) * XDP_FRAME_BYTES;
	}
}

/*
 * --- Reception ---
 */

/* Return the frames taken from rx to fill. */
static void refill(struct xdp_queue *q)
{
	uint32_t n = *q->fill.producer, end = *q->rx.consumer + XDP_NR_FRAMES;

	if (n == end || !IN_RANGE(end - n))
		return;
	for (; n != end; n++)
		q->fill.addr[ENTRY(n)] = FRAME_OF(q->rx.desc[ENTRY(n)].addr);
	publish(q->fill.producer, n);
	if (needs_wakeup(&q->fill))
		poll(&(struct pollfd){ q->fd, POLLIN, 0 }, 1, 0);
}

static void release(struct xdp_queue *q)
{
	publish(q->rx.consumer, *q->rx.consumer + q->taken);
	q->taken = 0;
	refill(q);
}

/* Returns the frame's length; 0 if it is invalid or too long for the room. */
static size_t copy_out(const struct xdp_queue *q, const struct xdp_desc *desc,
		       const struct iovec *iov, int niov)
{
	size_t off = OFFSET_OF(desc->addr), len = desc->len, done = 0;

	if (len > FRAME_OF(off) + XDP_FRAME_BYTES - off)
		return 0;
	for (; niov > 0 && done < len; iov++, niov--) {
		size_t n = vio_iov_min(iov->iov_len, len - done);

		memcpy(iov->iov_base, q->frames + off + done, n);
		done += n;
	}
	return done == len ? len : 0;
}

ssize_t xdp_queue_recv(struct xdp_queue *q, const struct iovec *iov, int niov)
{
	uint32_t n = *q->rx.consumer + q->taken;
	uint32_t available = load(q->rx.producer) - n;
	struct xdp_desc desc;
	size_t len;

	if (available == 0 || !IN_RANGE(available)) {
		if (q->taken > 0)
			release(q);
		return -EAGAIN;
	}
	desc = q->rx.desc[ENTRY(n)];
	len = copy_out(q, &desc, iov, niov);
	if (++q->taken == BATCH)
		release(q);
	return (ssize_t)len;
}

/*
 * --- Transmission ---
 */

int xdp_queue_send(struct xdp_queue *q, struct iovec *iov, int niov)
{
	struct vio_iov_cursor frame = { iov, niov };
	uint32_t n = *q->tx.producer + q->sent;
	uint32_t free = load(q->done.producer) + XDP_NR_FRAMES - n;
	size_t len = vio_iov_len(&frame);
	uint64_t addr;

	if (len < ETH_HLEN || len > q->longest)
		return -EMSGSIZE;
	if (free == 0)
		return -EAGAIN;
	if (!IN_RANGE(free))
		return -EIO;
	addr = FRAME_OF(q->done.addr[ENTRY(n)]);
	vio_iov_take(&frame, q->frames + addr, len);
	for (; len < ETH_ZLEN; len++) /* not what the frame before it held */
		q->frames[addr + len] = 0;
	q->tx.desc[ENTRY(n)] = (struct xdp_desc){ addr, (uint32_t)len, 0 };
	if (++q->sent == BATCH)
		xdp_queue_flush(q); /* an error comes again from the next */
	return 0;
}

/* The entries of done whose frames are in tx are free. */
static void publish_sent(struct xdp_queue *q)
{
	uint32_t n = *q->tx.producer + q->sent;

	q->sent = 0;
	publish(q->tx.producer, n);
	publish(q->done.consumer, n - XDP_NR_FRAMES);
}

int xdp_queue_kick(struct xdp_queue *q)
{
	uint32_t before;

	/* Without a driver's help the kernel sends at most 32 in a call. */
	do {
		before = load(q->tx.consumer);
		if (sendto(q->fd, NULL, 0, MSG_DONTWAIT, NULL, 0) >= 0)
			return 0;
		if (errno != EAGAIN && errno != EBUSY && errno != ENOBUFS &&
		    errno != EINTR)
			return -errno;
	} while (load(q->tx.consumer) != before);
	return -EAGAIN;
}

int xdp_queue_flush(struct xdp_queue *q)
{
	publish_sent(q);
	if (*q->tx.producer == load(q->tx.consumer) || !needs_wakeup(&q->tx))
		return 0;
	return xdp_queue_kick(q);
}

void xdp_queue_resume(struct xdp_queue *q)
{
	refill(q);
	publish_sent(q);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The two halves of backend=af-xdp: xdp_open.c, which needs privileges, and the
 * rings of a socket, which the device drives in its sandbox.
 *
 * A queue has two sets of frames in memory that the kernel and we share, and
 * four rings of as many entries as a set has frames:
 *
 *	received	frames: kernel --rx--> us --fill--> kernel
 *	sent		frames: us --tx--> kernel --done--> us
 *
 * Neither set has a list of free frames. A frame that came out of rx or done
 * is described by that ring's entry until the kernel fills the entry again,
 * for which it needs another frame first. So entry number n of fill is the
 * frame of entry n of rx, and entry n of tx uses that of entry n of done,
 * modulo the size. At the start those entries hold all frames.
 *
 * All state is in the rings: a process that replaces a dead one resumes where
 * it stopped.
 */
#ifndef BACK_NET_XDP_H
#define BACK_NET_XDP_H

#include <assert.h>
#include <linux/if_xdp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "back/net/net_be.h"
#include "base/opener.h"

#define XDP_NR_FRAMES   2048u /* of each set, and entries of each ring */
#define XDP_FRAME_BYTES 4096u
#define XDP_QUEUE_BYTES (2 * XDP_NR_FRAMES * XDP_FRAME_BYTES)

/* An Ethernet header and two tags; the kernel keeps 256 bytes in front. */
#define XDP_MAX_HEADER (14u + 8u)
#define XDP_MAX_MTU    (XDP_FRAME_BYTES - 256 - XDP_MAX_HEADER)

/* An interface has a socket for each queue, then these. */
enum { XDP_MEMORY, XDP_PROGRAM, XDP_NR_OTHERS };
#define XDP_MAX_FDS (NET_MAX_CHANNELS + XDP_NR_OTHERS)
static_assert(XDP_MAX_FDS <= OPENER_MAX_FDS, "an opener sends all of them");

/*
 * --- A socket's rings ---
 */

struct xdp_ring {
	uint32_t *producer, *consumer, *flags;
	union {
		struct xdp_desc *desc; /* rx, tx */
		uint64_t *addr;        /* fill, done */
	};
	void *map;
	size_t map_len;
};

struct xdp_queue {
	int fd;          /* borrowed */
	uint8_t *frames; /* likewise, XDP_QUEUE_BYTES; NULL: none */
	size_t longest;  /* that is sent, at most XDP_FRAME_BYTES */
	struct xdp_ring rx, fill, tx, done;
	uint32_t taken; /* from rx, but not yet released */
	uint32_t sent;  /* into tx, but not yet published */
};

/* Where the kernel puts the rings' fields, the same for all sockets. */
int xdp_offsets(int fd, struct xdp_mmap_offsets *ret_offsets);

/*
 * Map the rings of @fd: 0 or -errno. Whoever made the socket describes all
 * frames in them with xdp_queue_first(). The device sets @frames, and begins
 * with xdp_queue_resume().
 */
int xdp_queue_map(struct xdp_queue *q, int fd,
		  const struct xdp_mmap_offsets *offsets);
void xdp_queue_unmap(struct xdp_queue *q); /* may be half-mapped, or zero */
void xdp_queue_first(struct xdp_queue *q);
void xdp_queue_resume(struct xdp_queue *q);

/* As recv of net_be_ops, with the frame from @iov[0] on. */
ssize_t xdp_queue_recv(struct xdp_queue *q, const struct iovec *iov, int niov);

/*
 * Put a frame into tx, padded to what Ethernet carries: a driver may stall on a
 * shorter or longer one. 0; -EAGAIN when all frames are in flight; -EMSGSIZE.
 * xdp_queue_flush() sends it.
 */
int xdp_queue_send(struct xdp_queue *q, struct iovec *iov, int niov);

/*
 * Publish what was sent, and wake the kernel if it asked for that. -EAGAIN: it
 * could not send all frames now; -ENETDOWN; -ENXIO: the interface was deleted.
 */
int xdp_queue_flush(struct xdp_queue *q);

/* Wake the kernel to send. Returns the same. */
int xdp_queue_kick(struct xdp_queue *q);

/*
 * --- With privileges ---
 */

#define XDP_OPENER "xdp-again"

/* net_be_kind's open and is_gone. */
int xdp_open(const struct opts *opts, struct opened_files *files,
	     struct err *err);
bool xdp_is_gone(const struct opened_files *files);

#endif

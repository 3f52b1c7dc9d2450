/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Internals of the vfio-user server. Not installed.
 *
 *	vfio_user.c	    clients attach and detach
 *	vfio_user_cmd.c	    command dispatch
 *	vfio_user_conn.c    the socket as a stream of messages
 *	vfio_user_msg.c     messages as checked structs
 *	vfio_user_mem.c	    guest memory: adding and removing regions
 *	vfio_user_dma.c	    unmapped memory, accessed by messages
 *	vfio_user_irq.c	    interrupts: event descriptors
 *	vfio_user_region.c  configuration space and BARs
 *
 * Re-entrancy: the device is called from three places, a message handler
 * (in_handler), pci_kick(), and its own events. Only in the latter two
 * may it wait for guest memory that is not mapped (vfio_user_dma.c). While it
 * waits, messages that do not change its state are handled. A connection that
 * fails is only marked as dead. work() closes it at the end of the loop's
 * iteration, where no call of the device is on the stack.
 */
#ifndef SERVE_VFIO_USER_IMPL_H
#define SERVE_VFIO_USER_IMPL_H

#include <assert.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <viodev/gmem.h>
#include <viodev/loop.h>
#include <viodev/pci.h>

#include "serve/ramfile.h"
#include "serve/server_impl.h"
#include "serve/vfio_user_conn.h"
#include "serve/vfio_user_msg.h"

#define VFUSER_MAX_UNANSWERED 1024u

/* The client's timeout for a reply. Tests change it, from other threads. */
extern uint64_t vfuser_answer_ns;

/* An interrupt vector. */
struct vfuser_vec {
	int fd;        /* event descriptor, or -1 */
	bool masked;   /* by the client, or INTx that fired */
	bool pending;  /* raised while masked or without descriptor */
	bool deferred; /* until the client has answered @fence */
	uint64_t fence;
	uint64_t next_fence; /* then until this one, if different */
};

/* A client's event descriptor that masks or unmasks INTx. */
struct vfuser_irq_event {
	struct vfuser *srv;
	int fd;
	struct vio_source *source;
	bool unmask;
};

struct vfuser_irqs {
	struct vfuser_vec intx, msi, err, req;
	struct vfuser_vec msix[PCI_MAX_MSIX];
	bool intx_level;
	struct vfuser_irq_event mask, unmask;
	unsigned nr_deferred;
};

struct vfuser_mem {
	struct ramfiles files;
	uint64_t bytes;       /* of all regions, including those in limbo */
	unsigned nr_unshared; /* writable regions that are not mapped */
	uint64_t seq;         /* of the last command that changed it */
	unsigned nr_used;     /* regions that the current command removed, and
				 that requests still use */
	struct vfuser_deferred *deferred; /* such commands, in order */
	unsigned nr_deferred;
};

struct vfuser_dma {
	uint32_t max_xfer; /* bytes of a DMA_READ or DMA_WRITE */

	/*
	 * Commands to the client that require a reply are numbered; the low 16
	 * bits are the message id. All before @oldest were answered, and later
	 * ones whose bit is set; @acked was answered last.
	 */
	uint64_t asked, oldest, acked;
	uint64_t answered[VFUSER_MAX_UNANSWERED / 64];
	bool unfenced;  /* DMA_WRITEs were sent since the last of them */
	uint64_t fence; /* the first one after the last DMA_WRITE */
	gpa_t last_write;
	uint64_t watched; /* must be answered before the timer expires; or 0 */

	/* The DMA_READ in progress; reading 0: none. */
	uint64_t reading;
	void *read_buf;
	uint32_t read_len;
	int read_result;
};

struct vfuser {
	struct vio_server base;
	struct vio_source *timer;      /* for a client's reply */
	struct vio_source *rest_timer; /* see vfuser_rests() */
	uint64_t rest_until_ns;        /* 0: the device is quiet */
	struct vio_task work;

	/* The client. */
	struct vfconn conn, twin;
	struct vio_source *conn_source, *twin_source;
	uint32_t conn_events, twin_events;
	pthread_t thread; /* the loop's */
	bool negotiated;  /* VERSION was accepted */
	bool dead;        /* the connection must be closed */
	bool in_handler;  /* of a message */
	bool waiting;     /* in a read of memory that is not mapped */
	bool working;     /* in vfuser_work() */
	bool want_kick;   /* pci_kick() is due */
	struct vfuser_mem mem;
	struct vfuser_dma dma;
	struct vfuser_irqs irqs;
	unsigned share;      /* the rest of the iteration's budget */
	unsigned nr_written; /* entries of the WRITE_MULTI at the head */
	uint8_t reply[VFMSG_ACCESS_BYTES + VFMSG_MAX_XFER];
};

/*
 * Commands and register writes handled in an iteration of the loop, which
 * serves others as well.
 */
#define VFUSER_ITERATION_BUDGET 256u

static inline bool vfuser_take_share(struct vfuser *srv)
{
	if (srv->share == 0)
		return false;
	srv->share--;
	return true;
}

static_assert(offsetof(struct vfuser, base) == 0, "to_vfuser() casts");

static inline struct vfuser *to_vfuser(struct vio_server *base)
{
	return (struct vfuser *)base;
}

static inline bool vfuser_connected(const struct vfuser *srv)
{
	return srv->conn.fd >= 0 && !srv->dead;
}

/*
 * A command's handler: returns the bytes of payload written to @reply, or
 * -errno. After -EINPROGRESS it is called again in the next iteration.
 */
typedef ssize_t vfuser_handler(struct vfuser *srv, const struct vfconn_msg *msg,
			       uint8_t *reply);

/*
 * --- vfio_user.c ---
 */

/* Mark the connection as dead and log the reason, once. */
void vfuser_fail(struct vfuser *srv, int level, const char *why);

/* Run work() at the end of this iteration. */
void vfuser_wake(struct vfuser *srv);

/* The socket is readable or writable. */
vio_fd_cb vfuser_on_socket;

/*
 * --- vfio_user_cmd.c ---
 */

/*
 * Whether messages have to wait. After a reset, or a write that clears Bus
 * Master, the guest reuses its memory at once, and few drivers check whether
 * the device has finished with it. So the server answers nothing until it has,
 * for at most two seconds (QEMU gives up after five). If a disk stalls for
 * longer, a read that the kernel cannot cancel may still write to guest memory.
 */
bool vfuser_rests(struct vfuser *srv);

/*
 * Handle the messages that have arrived: an iteration's share or, when waiting,
 * all that do not change the device's state. Returns whether one that does is
 * next.
 */
bool vfuser_serve(struct vfuser *srv);

/* Answer a command with @ret bytes of srv->reply, or with -errno. */
void vfuser_reply(struct vfuser *srv, const struct vfmsg_hdr *cmd, ssize_t ret);

/*
 * --- vfio_user_mem.c ---
 */

vfuser_handler vfuser_dma_map, vfuser_dma_unmap;

/*
 * Whether the reply @ret of a command must wait for memory to be unmapped; it
 * is then deferred. vfuser_mem_may_defer(): whether one more can be deferred.
 */
bool vfuser_mem_defer(struct vfuser *srv, const struct vfconn_msg *msg,
		      ssize_t ret);
bool vfuser_mem_may_defer(const struct vfuser *srv);

/* Like gm_remove(). */
int vfuser_mem_remove(struct vfuser *srv, gpa_t base, uint64_t len);

/* Unmap memory that is no longer used and send the replies deferred for it. */
void vfuser_mem_reap(struct vfuser *srv);

/* The client has disconnected. Memory of requests in flight stays mapped. */
void vfuser_mem_reset(struct vfuser *srv);

/*
 * --- vfio_user_dma.c ---
 */

extern const struct gmem_ops vfuser_gmem_ops;
void vfuser_dma_reset(struct vfuser *srv); /* the client has disconnected */

/* A reply from the client. */
void vfuser_dma_reply(struct vfuser *srv, const struct vfconn_msg *msg);

/* The largest message that the client accepts. */
void vfuser_dma_set_max_xfer(struct vfuser *srv, uint64_t bytes);

/* The timer expired: unanswered commands end the connection. */
void vfuser_dma_timeout(struct vfuser *srv);

/*
 * The command whose answer means that all DMA_WRITEs until now are complete; 0
 * if they already are. Requests that answer if no other command does.
 */
uint64_t vfuser_dma_fence(struct vfuser *srv);

/*
 * --- vfio_user_irq.c ---
 */

void vfuser_irq_init(struct vfuser *srv);
extern const struct pci_host vfuser_pci_host;
vfuser_handler vfuser_get_irq_info, vfuser_set_irqs;

/* Fire the interrupts that were deferred until the reply to command @acked. */
void vfuser_irq_release(struct vfuser *srv, uint64_t acked);

/* The function was reset or has a new client: nothing is pending. */
void vfuser_irq_clear(struct vfuser *srv);

/* The client has disconnected: close its descriptors. */
void vfuser_irq_reset(struct vfuser *srv);

/*
 * --- vfio_user_region.c ---
 */

vfuser_handler vfuser_get_region_info, vfuser_get_region_io_fds;
vfuser_handler vfuser_region_read, vfuser_region_write;
vfuser_handler vfuser_region_write_multi;

/* Whether a REGION_WRITE or REGION_WRITE_MULTI only rings doorbells. */
bool vfuser_is_doorbell(struct vfuser *srv, const struct vfconn_msg *msg);

#endif

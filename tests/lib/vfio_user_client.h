/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * For tests of the vfio-user server: a device of a few registers behind a real
 * server on a thread of its own, and a client that sends whatever a test wants.
 */
#ifndef TESTS_LIB_VFIO_USER_CLIENT_H
#define TESTS_LIB_VFIO_USER_CLIENT_H

#include <endian.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <viodev/gmem.h>
#include <viodev/loop.h>
#include <viodev/pci.h>
#include <viodev/server.h>

#include "serve/vfio_user_msg.h"

/*
 * The device. BAR 0 has its registers, 4 bytes each. A doorbell has it copy
 * LEN bytes of guest memory from SRC to DST, then write DONE_WORD to DONE,
 * then raise vector 0; memory that is not there now is tried again when kicked.
 */
enum {
	REG_SCRATCH = 0x00, /* 256 bytes of memory */
	REG_SRC = 0x00,     /* 8 bytes each, in that memory */
	REG_DST = 0x08,
	REG_DONE = 0x10,
	REG_LEN = 0x18,   /* bytes to copy; 0 when it is done */
	REG_MSIX = 0x100, /* write: raise this vector */
	REG_INTX = 0x104, /* write: the pin */
	REG_NR_RESETS = 0x108,
	REG_NR_QUIESCES = 0x10c,
	REG_NR_KICKS = 0x110,
	REG_NR_AGAIN = 0x114, /* reads that said -EAGAIN */
	REG_NR_COPIES = 0x118,
	REG_LAST_SIZE = 0x11c,  /* of the last access to scratch memory */
	REG_LAST_ERROR = 0x120, /* of a copy, positive */
	REG_PEEK = 0x124,       /* read: the error of reading memory at SRC */
	REG_NOTE = 0x128,       /* to memory at DONE, and raise vector 0 */
	REG_HOLD = 0x12c, /* write: begin a request on memory at SRC; end it */
	REG_DOORBELL = 0x200,
};

#define TCL_PATIENCE_MS 60000 /* for what takes one, if not busy */

#define TDEV_BAR_BYTES 4096
#define TDEV_NR_MSIX   20
#define TDEV_MSIX_CAP  0x40 /* the first capability */
#define TDEV_DONE_WORD htole32(0x600df00d)

struct tdev {
	struct pci_devinst *pi;
	uint8_t scratch[256];
	uint32_t nr_resets, nr_quiesces, nr_kicks, nr_resubmitted, nr_copies;
	uint32_t nr_polls, nr_arms;
	uint32_t nr_writes; /* of the BAR */
	bool end_hold;      /* when it is kicked */
	bool slow_reset;    /* it is not complete when pd_reset returns */
	bool holding;       /* with these */
	struct gm_pins pins;
	volatile uint32_t *pinned; /* is written when it ends */
	uint32_t nr_given_back;    /* times that was asked for */
	uint32_t last_size, last_error;
};

struct tsrv {
	struct vio_loop *loop;
	struct vio_server *srv;
	struct tdev dev;
	char dir[64], path[96];
	pthread_t thread;
	int stop_fd;
	bool halted;
	struct vio_source *stop;
	unsigned nr_log; /* lines */
	unsigned nr_attached, nr_detached;
};

/* A server that listens at t->path, or cmocka's failure. */
void tsrv_start(struct tsrv *t);
void tsrv_stop(struct tsrv *t);

/* Before that, for a device that ends before its server: end the loop. */
void tsrv_halt(struct tsrv *t);

/* The same with another device. */
void tsrv_start_on(struct tsrv *t,
		   void (*build)(struct pci_devinst *pi, void *arg), void *arg);

/* Wait until the server has seen its client disconnect. */
void tsrv_await_detached(struct tsrv *t, unsigned nr);

struct tclient {
	int fd;
	int twin; /* from VERSION's reply, or -1 */
	uint16_t id;
};

struct tmsg {
	struct vfmsg_hdr hdr;
	uint8_t *payload; /* of its own, until the next message is received */
	size_t len;
	int fds[4];
	unsigned nr_fds;
};

/* Connect; tcl_open() also says VERSION as QEMU does. */
void tcl_connect(struct tclient *c, const struct tsrv *t);
void tcl_open(struct tclient *c, const struct tsrv *t);
void tcl_close(struct tclient *c);

/* Send a message with @nr_fds descriptors. Returns its id. */
uint16_t tcl_send(struct tclient *c, uint16_t cmd, uint32_t flags,
		  const void *payload, size_t len, const int *fds,
		  unsigned nr_fds);

/* Receive a message. False at end of file. Fails the test when none comes. */
bool tcl_recv(int fd, struct tmsg *ret_msg);

/* Whether nothing arrives for @ms, not even the end. */
bool tcl_is_silent(int fd, int ms);

/* Whether the server closes the connection. */
bool tcl_is_closed(struct tclient *c);

/*
 * Command and reply. Returns 0 or the errno of an error reply; @ret_msg gets
 * the reply unless NULL.
 */
int tcl_call(struct tclient *c, uint16_t cmd, const void *payload, size_t len,
	     const int *fds, unsigned nr_fds, struct tmsg *ret_msg);

/* Commands. Each returns as tcl_call() does. */
int tcl_version(struct tclient *c, const char *json);
int tcl_map(struct tclient *c, uint64_t iova, uint64_t size, uint64_t offset,
	    uint32_t flags, int fd);
int tcl_unmap(struct tclient *c, uint64_t iova, uint64_t size, uint32_t flags);
int tcl_set_irqs(struct tclient *c, uint32_t flags, uint32_t index,
		 uint32_t start, uint32_t count, const int *fds,
		 unsigned nr_fds);
int tcl_reset(struct tclient *c);

/* Registers, by REGION_READ and REGION_WRITE. */
uint64_t tcl_read(struct tclient *c, uint32_t region, uint64_t off,
		  uint32_t size);
void tcl_write(struct tclient *c, uint32_t region, uint64_t off, uint32_t size,
	       uint64_t val);
void tcl_post(struct tclient *c, uint32_t region, uint64_t off, uint32_t size,
	      uint64_t val); /* with No_reply */

/* Payloads on the wire. */
struct twire_access {
	uint64_t offset;
	uint32_t region, count;
};
struct twire_dma_map {
	uint32_t argsz, flags;
	uint64_t offset, iova, size;
};
struct twire_dma_unmap {
	uint32_t argsz, flags;
	uint64_t iova, size;
};
struct twire_irqs {
	uint32_t argsz, flags, index, start, count;
};
struct twire_dma {
	uint64_t iova, count;
};

/* Let the driver use MSI-X. */
void tcl_enable_msix(struct tclient *c);

/* Read an event descriptor's count and clear it. Waits @ms for the first. */
uint64_t tcl_events(int eventfd, int ms);

unsigned tcl_nr_maps(void); /* of files called "guest" */
int tcl_memfd(size_t bytes);

#endif

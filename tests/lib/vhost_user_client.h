/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * For tests of the vhost-user server: a front-end that sends whatever a test
 * wants, and a guest's memory with one ring in it. Server and front-end share
 * one thread: the front-end runs the server's loop.
 */
#ifndef TESTS_LIB_VHOST_USER_CLIENT_H
#define TESTS_LIB_VHOST_USER_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <viodev/loop.h>
#include <viodev/server.h>
#include <viodev/virtio.h>

#include "base/util.h"
#include "serve/vhost_user_msg.h"

#define V1       VI_BIT(VIRTIO_F_VERSION_1)
#define PROTOCOL VI_BIT(VHMSG_F_PROTOCOL)
#define LOG_ALL  VI_BIT(VHMSG_F_LOG_ALL)

#define MEM_BYTES (1u << 20)
#define GPA       0x10000000ull
#define UADDR     0x7f0000000000ull
#define QSIZE     16

/* Where things are in guest memory. */
enum {
	DESC = 0x1000,
	AVAIL = 0x2000,
	USED = 0x3000,
	BUF = 0x10000,
};

struct fe {
	struct vio_loop *loop;
	struct vio_server *srv;
	struct vdev *dev; /* on it, if the test has one of these */
	char dir[64], path[96];
	int fd; /* the front-end's */
	int memfd, kick, call;
	uint8_t *mem;
	uint16_t avail_idx;
};

/* Create the server, not yet listening, and the memory, for a device to use. */
void fe_init(struct fe *f);
/* Make it listen, and connect a front-end. */
void fe_listen(struct fe *f);
/* After the device. */
void fe_fini(struct fe *f);

/* Some iterations of the loop, for what one message or doorbell leads to. */
void fe_iterate(struct fe *f);

/* Disconnect the front-end and connect another. */
void fe_reconnect(struct fe *f);

/* Send a message, with descriptors, and let the server handle it. */
void fe_send_raw(struct fe *f, const struct vhmsg_hdr *hdr, const void *payload,
		 size_t len, const int *fds, unsigned nr_fds);
void fe_send_msg(struct fe *f, uint32_t request, uint32_t flags,
		 const void *payload, size_t len, int fd);

/* A reply's payload; its length, or -1 when the server has closed. */
int fe_receive(struct fe *f, uint32_t request, void *buf, size_t room,
	       int *ret_fd);

/* Whether the server closed the connection: it was a bad message. */
bool fe_is_closed(struct fe *f);

/* Ask for a number. */
uint64_t fe_get_u64(struct fe *f, uint32_t request);

/* Send a message with NEED_REPLY. Whether it was accepted. */
bool fe_ask(struct fe *f, uint32_t request, const void *payload, size_t len,
	    int fd);
bool fe_set_u64(struct fe *f, uint32_t request, uint64_t val, int fd);
bool fe_set_vring(struct fe *f, uint32_t request, uint32_t index, uint32_t num);

/* All features of the protocol, VERSION_1. */
void fe_negotiate(struct fe *f);

/* ADD_MEM_REG or REM_MEM_REG with all of the memory. */
bool fe_add_memory(struct fe *f, uint32_t request);

/* Send all settings that a ring needs to run, from entry @base on. */
void fe_start_ring_at(struct fe *f, uint32_t index, uint16_t base);
void fe_start_ring(struct fe *f, uint16_t base);

/* Two 32-bit numbers that follow each other in a message, as one of 64 bits. */
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#define FE_PAIR(first, second) ((uint64_t)(first) << 32 | (second))
#else
#define FE_PAIR(first, second) ((uint64_t)(second) << 32 | (first))
#endif

/* 16 bits of guest memory, and a descriptor there; both are little-endian. */
uint16_t fe_read16(const struct fe *f, size_t off);
void fe_write16(struct fe *f, size_t off, uint16_t val);
void fe_write_desc(struct fe *f, size_t off, uint64_t gpa, uint32_t len,
		   uint16_t flags);

/* Make a chain of one buffer available, without a doorbell. */
void fe_offer_buffer(struct fe *f, uint32_t len, uint16_t flags);

/* 16 bytes of entropy, please. */
void fe_offer(struct fe *f);
uint16_t fe_used_idx(struct fe *f);

/* Ring the doorbell. */
void fe_kick(struct fe *f);

/* Whether an interrupt arrived since the previous call. */
bool fe_was_called(struct fe *f);

#endif

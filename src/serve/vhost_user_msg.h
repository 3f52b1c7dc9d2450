/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * vhost-user on the wire: bytes to checked structs.
 *
 * Everything here is a pure function of its arguments. What a parser accepts is
 * self-consistent: sizes are within limits, ranges do not wrap, no more data is
 * announced than there is. The server checks whether a ring or an address
 * exists. Parsers return 0 or -EINVAL.
 *
 * The tables are those of QEMU's docs/interop/vhost-user.rst; all integers are
 * in host byte order.
 */
#ifndef SERVE_VHOST_USER_MSG_H
#define SERVE_VHOST_USER_MSG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <viodev/gmem.h>

enum vhmsg_request { /* front-end to back-end */
		     VHMSG_GET_FEATURES = 1,
		     VHMSG_SET_FEATURES,
		     VHMSG_SET_OWNER,
		     VHMSG_RESET_OWNER,
		     VHMSG_SET_MEM_TABLE,
		     VHMSG_SET_LOG_BASE,
		     VHMSG_SET_LOG_FD,
		     VHMSG_SET_VRING_NUM,
		     VHMSG_SET_VRING_ADDR,
		     VHMSG_SET_VRING_BASE,
		     VHMSG_GET_VRING_BASE,
		     VHMSG_SET_VRING_KICK,
		     VHMSG_SET_VRING_CALL,
		     VHMSG_SET_VRING_ERR,
		     VHMSG_GET_PROTOCOL_FEATURES,
		     VHMSG_SET_PROTOCOL_FEATURES,
		     VHMSG_GET_QUEUE_NUM,
		     VHMSG_SET_VRING_ENABLE,
		     VHMSG_SEND_RARP,
		     VHMSG_NET_SET_MTU,
		     VHMSG_SET_BACKEND_REQ_FD,
		     VHMSG_GET_CONFIG = 24,
		     VHMSG_SET_CONFIG,
		     VHMSG_GET_INFLIGHT_FD = 31,
		     VHMSG_SET_INFLIGHT_FD,
		     VHMSG_RESET_DEVICE = 34,
		     VHMSG_GET_MAX_MEM_SLOTS = 36,
		     VHMSG_ADD_MEM_REG,
		     VHMSG_REM_MEM_REG,
		     VHMSG_SET_STATUS,
		     VHMSG_GET_STATUS,
		     VHMSG_SET_DEVICE_STATE_FD = 42,
		     VHMSG_CHECK_DEVICE_STATE,
		     VHMSG_NR_REQUESTS,
};

enum { /* back-end to front-end */
       VHMSG_BACKEND_CONFIG_CHANGE = 2,
};

/* The virtio feature bits that mean something else in this protocol. */
#define VHMSG_F_LOG_ALL  26
#define VHMSG_F_PROTOCOL 30

enum vhmsg_protocol_feature { /* bit numbers */
			      VHMSG_PF_MQ = 0,
			      VHMSG_PF_LOG_SHMFD = 1,
			      VHMSG_PF_RARP = 2,
			      VHMSG_PF_REPLY_ACK = 3,
			      VHMSG_PF_NET_MTU = 4,
			      VHMSG_PF_BACKEND_REQ = 5,
			      VHMSG_PF_CONFIG = 9,
			      VHMSG_PF_INFLIGHT_SHMFD = 12,
			      VHMSG_PF_RESET_DEVICE = 13,
			      VHMSG_PF_MEM_SLOTS = 15,
			      VHMSG_PF_STATUS = 16,
			      VHMSG_PF_DEVICE_STATE = 19,
};

#define VHMSG_MAX_FDS      8
#define VHMSG_MAX_REGIONS  8   /* of SET_MEM_TABLE */
#define VHMSG_MAX_SLOTS    509 /* of ADD_MEM_REG: the usual value in vhost */
#define VHMSG_MAX_CONFIG   256
#define VHMSG_HDR_BYTES    12
#define VHMSG_CONFIG_BYTES 12 /* in front of the data */
#define VHMSG_MAX_PAYLOAD  1024

/* Header flags. */
#define VHMSG_VERSION_MASK 0x3u
#define VHMSG_VERSION      0x1u
#define VHMSG_REPLY        0x4u
#define VHMSG_NEED_REPLY   0x8u

struct vhmsg_hdr {
	uint32_t request;
	uint32_t flags;
	uint32_t size; /* of the payload */
};

/*
 * Parse the header in front of @len bytes: -EAGAIN when they are too few for
 * one, -EBADMSG when nothing after it could be understood.
 */
int vhmsg_decode_hdr(const void *buf, size_t len, struct vhmsg_hdr *ret_hdr);

int vhmsg_decode_u64(const void *payload, size_t len, uint64_t *ret_val);

/* A ring and a number: of entries, the next entry, on or off. */
struct vhmsg_vring {
	uint32_t index;
	uint32_t num;
};
int vhmsg_decode_vring(const void *payload, size_t len,
		       struct vhmsg_vring *ret_vring);

/* Where the parts of a ring are, in the front-end's address space. */
struct vhmsg_vring_addr {
	uint32_t index;
	uint32_t flags;
	uint64_t desc, used, avail;
	uint64_t log; /* of the used ring, guest-physical */
};
int vhmsg_decode_vring_addr(const void *payload, size_t len,
			    struct vhmsg_vring_addr *ret_addr);

/* A ring's event descriptor; @nr_fds were sent: 1, or 0 with no_fd. */
struct vhmsg_vring_fd {
	uint32_t index;
	bool no_fd;
};
int vhmsg_decode_vring_fd(const void *payload, size_t len, unsigned nr_fds,
			  struct vhmsg_vring_fd *ret_fd);

struct vhmsg_region {
	gpa_t gpa;
	uint64_t size;   /* not 0; neither address nor offset + size wraps */
	uint64_t uaddr;  /* its address in the front-end */
	uint64_t offset; /* in the file sent along */
};
int vhmsg_decode_region(const void *payload, size_t len,
			struct vhmsg_region *ret_region);

/* SET_MEM_TABLE: how many of @regions were filled, a file for each; or < 0. */
int vhmsg_decode_mem_table(const void *payload, size_t len, unsigned nr_fds,
			   struct vhmsg_region regions[VHMSG_MAX_REGIONS]);

/* A piece of the file sent along; size not 0, no wrap. */
struct vhmsg_log {
	uint64_t size;
	uint64_t offset;
};
int vhmsg_decode_log(const void *payload, size_t len,
		     struct vhmsg_log *ret_log);

/* Device configuration, and @data of it: size bytes. */
struct vhmsg_config {
	uint32_t offset; /* may be past the end of any configuration */
	uint32_t size;   /* 1 .. VHMSG_MAX_CONFIG; offset + size fits */
	uint32_t flags;
	const uint8_t *data;
};
int vhmsg_decode_config(const void *payload, size_t len,
			struct vhmsg_config *ret_config);

/* The in-flight area. The answer to GET_INFLIGHT_FD has this layout. */
struct vhmsg_inflight {
	uint64_t size;
	uint64_t offset;
	uint16_t nr_queues;
	uint16_t queue_size; /* neither is 0; nor does offset + size wrap */
	uint32_t padding;
};
int vhmsg_decode_inflight(const void *payload, size_t len,
			  struct vhmsg_inflight *ret_inflight);

/* Direction of a state transfer; the device is always stopped. */
enum vhmsg_direction {
	VHMSG_STATE_SAVE,
	VHMSG_STATE_LOAD,
};
struct vhmsg_state {
	uint32_t direction;
	uint32_t phase;
};
int vhmsg_decode_state(const void *payload, size_t len,
		       struct vhmsg_state *ret_state);

#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * vfio-user on the wire: bytes to checked structs, and back.
 *
 * Everything here is a pure function of its arguments. What a parser accepts is
 * self-consistent: sizes are within limits, ranges do not wrap, no more data is
 * announced than there is. The server checks whether an index or an address
 * exists. Parsers return 0 or the -errno to answer with.
 *
 * The tables are those of QEMU's docs/interop/vfio-user.rst; all integers are
 * in host byte order.
 */
#ifndef SERVE_VFIO_USER_MSG_H
#define SERVE_VFIO_USER_MSG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <viodev/gmem.h>

enum vfmsg_cmd {
	VFMSG_VERSION = 1,
	VFMSG_DMA_MAP,
	VFMSG_DMA_UNMAP,
	VFMSG_GET_INFO,
	VFMSG_GET_REGION_INFO,
	VFMSG_GET_REGION_IO_FDS,
	VFMSG_GET_IRQ_INFO,
	VFMSG_SET_IRQS,
	VFMSG_REGION_READ,
	VFMSG_REGION_WRITE,
	VFMSG_DMA_READ,  /* server to client */
	VFMSG_DMA_WRITE, /* server to client */
	VFMSG_RESET,
	VFMSG_DIRTY_PAGES,
	VFMSG_REGION_WRITE_MULTI,
	VFMSG_FEATURE,
	VFMSG_MIG_DATA_READ,
	VFMSG_MIG_DATA_WRITE,
	VFMSG_NR_CMDS,
};

enum vfmsg_region {
	VFMSG_REGION_BAR0,
	VFMSG_REGION_ROM = 6,
	VFMSG_REGION_CFG,
	VFMSG_REGION_VGA,
	VFMSG_NR_REGIONS,
};

enum vfmsg_irq {
	VFMSG_IRQ_INTX,
	VFMSG_IRQ_MSI,
	VFMSG_IRQ_MSIX,
	VFMSG_IRQ_ERR,
	VFMSG_IRQ_REQ,
	VFMSG_NR_IRQS,
};

/* Our limits, announced in the answer to VERSION. */
#define VFMSG_MAX_FDS      16
#define VFMSG_MAX_XFER     (1u << 20)
#define VFMSG_MAX_DMA_MAPS 65535
#define VFMSG_PAGE         4096

#define VFMSG_HDR_BYTES    16
#define VFMSG_ACCESS_BYTES 16 /* in front of the data of reads and writes */
#define VFMSG_MAX_BYTES    (VFMSG_HDR_BYTES + VFMSG_ACCESS_BYTES + VFMSG_MAX_XFER)

/* Header flags. */
#define VFMSG_TYPE_MASK 0x0fu
#define VFMSG_REPLY     0x01u
#define VFMSG_NO_REPLY  0x10u
#define VFMSG_ERROR     0x20u

struct vfmsg_hdr {
	uint16_t id;
	uint16_t cmd;
	uint32_t size; /* header and payload */
	uint32_t flags;
	uint32_t error; /* a positive errno */
};

/*
 * Parse the header in front of @len bytes: -EAGAIN when they are too few for
 * one, -EBADMSG when nothing after it could be understood.
 */
int vfmsg_decode_hdr(const void *buf, size_t len, struct vfmsg_hdr *ret_hdr);

/* VERSION: the peer's capabilities, defaults for those not given. */
struct vfmsg_version {
	uint16_t major, minor;
	uint64_t max_fds;
	uint64_t max_xfer;
	uint64_t max_dma_maps;
	bool write_multi;
	bool twin_socket;
};
int vfmsg_decode_version(const void *payload, size_t len,
			 struct vfmsg_version *ret_version);

/*
 * Write the answer's payload, at most @room bytes: clients read it into a
 * buffer as long as their own payload. What does not fit is left out and
 * cleared in *answer. Returns its length; @room is at least 4.
 */
size_t vfmsg_encode_version(void *payload, size_t room,
			    struct vfmsg_version *answer);

struct vfmsg_dma_map {
	unsigned prot;   /* GM_READ | GM_WRITE */
	uint64_t offset; /* in the file sent along */
	gpa_t iova;
	uint64_t size; /* not 0; neither iova nor offset + size wraps */
};
int vfmsg_decode_dma_map(const void *payload, size_t len,
			 struct vfmsg_dma_map *ret_map);

#define VFMSG_DMA_UNMAP_BYTES 24
struct vfmsg_dma_unmap {
	gpa_t iova;
	uint64_t size; /* not 0; may go past the end of all addresses */
};
int vfmsg_decode_dma_unmap(const void *payload, size_t len,
			   struct vfmsg_dma_unmap *ret_unmap);

/* GET_INFO, GET_REGION_INFO, GET_IRQ_INFO; what is not an answer is 0. */
struct vfmsg_info {
	uint32_t argsz;
	uint32_t flags; /* VFMSG_INFO_* */
	uint32_t nr_regions;
	uint32_t nr_irqs;
};
struct vfmsg_region_info {
	uint32_t argsz;
	uint32_t flags; /* VFMSG_REGION_READABLE, _WRITABLE */
	uint32_t index;
	uint32_t cap_offset;
	uint64_t size;
	uint64_t offset;
};
/* Also of GET_REGION_IO_FDS, where the index is a region's. */
struct vfmsg_irq_info {
	uint32_t argsz;
	uint32_t flags; /* VFMSG_IRQ_EVENTFD, ... */
	uint32_t index;
	uint32_t count;
};
int vfmsg_decode_info(const void *payload, size_t len);
int vfmsg_decode_region_info(const void *payload, size_t len,
			     struct vfmsg_region_info *ret_info);
int vfmsg_decode_irq_info(const void *payload, size_t len,
			  struct vfmsg_irq_info *ret_info);
int vfmsg_decode_region_io_fds(const void *payload, size_t len,
			       struct vfmsg_irq_info *ret_info);

#define VFMSG_INFO_RESET 1u
#define VFMSG_INFO_PCI   2u

#define VFMSG_REGION_READABLE 1u
#define VFMSG_REGION_WRITABLE 2u

#define VFMSG_IRQ_EVENTFD    1u
#define VFMSG_IRQ_MASKABLE   2u
#define VFMSG_IRQ_AUTOMASKED 4u

enum vfmsg_irq_data {
	VFMSG_DATA_NONE = 1,
	VFMSG_DATA_BOOL = 2,
	VFMSG_DATA_EVENTFD = 4,
};
enum vfmsg_irq_action {
	VFMSG_MASK = 0x08,
	VFMSG_UNMASK = 0x10,
	VFMSG_TRIGGER = 0x20,
};
struct vfmsg_set_irqs {
	enum vfmsg_irq_data data;
	enum vfmsg_irq_action action;
	uint32_t index; /* an enum vfmsg_irq */
	uint32_t start;
	uint32_t count;       /* start + count does not wrap */
	const uint8_t *bools; /* with DATA_BOOL: count of them */
};
int vfmsg_decode_set_irqs(const void *payload, size_t len,
			  struct vfmsg_set_irqs *ret_irqs);

/* REGION_READ and REGION_WRITE, and one entry of REGION_WRITE_MULTI. */
struct vfmsg_access {
	uint64_t offset;
	uint32_t region;
	uint32_t count;      /* at most VFMSG_MAX_XFER */
	const uint8_t *data; /* of a write: count bytes */
};
int vfmsg_decode_region_read(const void *payload, size_t len,
			     struct vfmsg_access *ret_access);
int vfmsg_decode_region_write(const void *payload, size_t len,
			      struct vfmsg_access *ret_access);
void vfmsg_encode_access(void *payload, const struct vfmsg_access *access);

/* The number of entries; -errno unless all of them can be read. */
int vfmsg_decode_write_multi(const void *payload, size_t len);
void vfmsg_decode_write_multi_entry(const void *payload, unsigned i,
				    struct vfmsg_access *ret_access);

/* The answer to DMA_READ; that to DMA_WRITE has no data. */
struct vfmsg_dma_data {
	gpa_t iova;
	uint64_t count;
	const uint8_t *data; /* count bytes */
};
int vfmsg_decode_dma_data(const void *payload, size_t len,
			  struct vfmsg_dma_data *ret_data);

/* The part of DMA_READ and DMA_WRITE in front of the data. */
void vfmsg_encode_dma(void *payload, gpa_t iova, uint64_t count);

#endif

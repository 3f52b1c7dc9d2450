/* SPDX-License-Identifier: BSD-2-Clause */
/* vfio-user on the wire. See vfio_user_msg.h. */
#include <assert.h>
#include <errno.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>

#include "serve/vfio_user_msg.h"

#define MAX_JSON_BYTES 4096
#define MAX_JSON_DEPTH 8

/* Payloads in their wire format. */
struct wire_version {
	uint16_t major, minor;
};
struct wire_dma_map {
	uint32_t argsz, flags;
	uint64_t offset, iova, size;
};
struct wire_dma_unmap {
	uint32_t argsz, flags;
	uint64_t iova, size;
};
struct wire_set_irqs {
	uint32_t argsz, flags, index, start, count;
};
struct wire_access {
	uint64_t offset;
	uint32_t region, count;
};
struct wire_multi_entry {
	struct wire_access access;
	uint8_t data[8];
};
struct wire_dma {
	uint64_t iova, count;
};
static_assert(sizeof(struct vfmsg_hdr) == VFMSG_HDR_BYTES, "header");
static_assert(sizeof(struct wire_version) == 4, "VERSION");
static_assert(sizeof(struct wire_dma_map) == 32, "DMA_MAP");
static_assert(sizeof(struct wire_dma_unmap) == VFMSG_DMA_UNMAP_BYTES,
	      "DMA_UNMAP");
static_assert(sizeof(struct vfmsg_info) == 16, "GET_INFO");
static_assert(sizeof(struct vfmsg_region_info) == 32, "GET_REGION_INFO");
static_assert(sizeof(struct vfmsg_irq_info) == 16, "GET_IRQ_INFO");
static_assert(sizeof(struct wire_set_irqs) == 20, "SET_IRQS");
static_assert(sizeof(struct wire_access) == VFMSG_ACCESS_BYTES, "REGION_*");
static_assert(sizeof(struct wire_multi_entry) == 24, "REGION_WRITE_MULTI");
static_assert(sizeof(struct wire_dma) == VFMSG_ACCESS_BYTES, "DMA_*");

/* Flags on the wire. */
enum {
	DMA_MAP_READ = 1,
	DMA_MAP_WRITE = 2,
	DMA_MAP_MMAP = 4, /* how the client wants it used: as we do */
	DMA_UNMAP_ALL = 2,
	IRQ_DATA_MASK = 0x07,
	IRQ_ACTION_MASK = 0x38,
};

/* Copy a fixed part out: messages may begin at any address. */
static int take(void *obj, size_t size, const void *payload, size_t len)
{
	if (len < size)
		return -EINVAL;
	memcpy(obj, payload, size);
	return 0;
}

int vfmsg_decode_hdr(const void *buf, size_t len, struct vfmsg_hdr *ret_hdr)
{
	struct vfmsg_hdr hdr;

	if (take(&hdr, sizeof(hdr), buf, len) < 0)
		return -EAGAIN;
	if (hdr.size < VFMSG_HDR_BYTES || hdr.size > VFMSG_MAX_BYTES)
		return -EBADMSG;
	if ((hdr.flags & VFMSG_TYPE_MASK) > VFMSG_REPLY)
		return -EBADMSG;
	*ret_hdr = hdr;
	return 0;
}

/*
 * --- VERSION ---
 */

/* *val is unchanged if there is no such key. */
static int read_number(struct json_object *obj, const char *key, uint64_t *val)
{
	struct json_object *num;

	if (!json_object_object_get_ex(obj, key, &num))
		return 0;
	if (!json_object_is_type(num, json_type_int) ||
	    json_object_get_int64(num) < 0)
		return -EINVAL;
	*val = json_object_get_uint64(num);
	return 0;
}

static int read_bool(struct json_object *obj, const char *key, bool *val)
{
	struct json_object *b;

	if (!json_object_object_get_ex(obj, key, &b))
		return 0;
	if (!json_object_is_type(b, json_type_boolean))
		return -EINVAL;
	*val = json_object_get_boolean(b);
	return 0;
}

static int read_object(struct json_object *obj, const char *key,
		       struct json_object **val)
{
	if (!json_object_object_get_ex(obj, key, val))
		return 0;
	return json_object_is_type(*val, json_type_object) ? 0 : -EINVAL;
}

static int read_caps(struct json_object *root, struct vfmsg_version *v)
{
	struct json_object *caps = NULL, *twin = NULL;
	int ret = json_object_is_type(root, json_type_object) ? 0 : -EINVAL;

	if (ret == 0)
		ret = read_object(root, "capabilities", &caps);
	if (ret < 0 || !caps)
		return ret;
	if ((ret = read_number(caps, "max_msg_fds", &v->max_fds)) < 0 ||
	    (ret = read_number(caps, "max_data_xfer_size", &v->max_xfer)) < 0 ||
	    (ret = read_number(caps, "max_dma_maps", &v->max_dma_maps)) < 0 ||
	    (ret = read_bool(caps, "write_multiple", &v->write_multi)) < 0 ||
	    (ret = read_object(caps, "twin_socket", &twin)) < 0)
		return ret;
	if (twin)
		ret = read_bool(twin, "supported", &v->twin_socket);
	/* A peer that accepts no data at all could not be served. */
	if (v->max_xfer == 0)
		return -EINVAL;
	return ret;
}

static int parse_json(const char *text, size_t len, struct vfmsg_version *v)
{
	struct json_tokener *tok;
	struct json_object *root;
	int ret;

	if (len == 0) /* a string, but an empty one */
		return 0;
	tok = json_tokener_new_ex(MAX_JSON_DEPTH);
	if (!tok)
		return -ENOMEM;
	json_tokener_set_flags(tok, JSON_TOKENER_STRICT);
	/* With the NUL, which terminates a number at the end of the text. */
	root = json_tokener_parse_ex(tok, text, (int)len + 1);
	ret = json_tokener_get_error(tok) == json_tokener_success &&
			      json_tokener_get_parse_end(tok) >= len ?
		      read_caps(root, v) :
		      -EINVAL;
	json_object_put(root);
	json_tokener_free(tok);
	return ret;
}

int vfmsg_decode_version(const void *payload, size_t len,
			 struct vfmsg_version *ret_version)
{
	struct vfmsg_version v = {
		.max_fds = 1,
		.max_xfer = VFMSG_MAX_XFER,
		.max_dma_maps = VFMSG_MAX_DMA_MAPS,
	};
	struct wire_version wire;
	const char *text;
	int ret = take(&wire, sizeof(wire), payload, len);

	if (ret < 0)
		return ret;
	if (wire.major != 0)
		return -EOPNOTSUPP;
	v.major = wire.major;
	v.minor = wire.minor;

	/* The JSON text may be missing entirely: SPDK sends none. */
	len -= sizeof(wire);
	text = (const char *)payload + sizeof(wire);
	if (len > 0) {
		size_t text_len = strnlen(text, len);

		if (text_len == len || text_len > MAX_JSON_BYTES)
			return -EINVAL;
		ret = parse_json(text, text_len, &v);
		if (ret < 0)
			return ret;
	}
	*ret_version = v;
	return 0;
}

/* Print the JSON text of *answer; returns its length with the NUL. */
static size_t print_caps(char *text, size_t room,
			 const struct vfmsg_version *answer)
{
	int len = snprintf(
		text, room,
		"{\"capabilities\":{\"max_msg_fds\":%u,"
		"\"max_data_xfer_size\":%u,\"max_dma_maps\":%u"
		"%s%s}}",
		VFMSG_MAX_FDS, VFMSG_MAX_XFER, VFMSG_MAX_DMA_MAPS,
		answer->twin_socket ? ",\"twin_socket\":{\"supported\":true,"
				      "\"fd_index\":0}" :
				      "",
		answer->write_multi ? ",\"write_multiple\":true" : "");

	return (size_t)len + 1;
}

size_t vfmsg_encode_version(void *payload, size_t room,
			    struct vfmsg_version *answer)
{
	static const char nothing[] = "{\"capabilities\":{}}";
	struct wire_version wire = { answer->major, answer->minor };
	char text[256];
	size_t len = print_caps(text, sizeof(text), answer);

	assert(room >= sizeof(wire));
	memcpy(payload, &wire, sizeof(wire));
	room -= sizeof(wire);
	if (len > room) {
		answer->write_multi = false;
		len = print_caps(text, sizeof(text), answer);
	}
	if (len > room) {
		answer->twin_socket = false;
		len = print_caps(text, sizeof(text), answer);
	}
	if (len > room) {
		len = sizeof(nothing);
		memcpy(text, nothing, len);
	}
	if (len > room)
		len = 0;
	memcpy((char *)payload + sizeof(wire), text, len);
	return sizeof(wire) + len;
}

/*
 * --- DMA regions ---
 */

int vfmsg_decode_dma_map(const void *payload, size_t len,
			 struct vfmsg_dma_map *ret_map)
{
	struct wire_dma_map w;
	int ret = take(&w, sizeof(w), payload, len);

	if (ret < 0)
		return ret;
	if (w.argsz < sizeof(w))
		return -EINVAL;
	if ((w.flags &
	     ~(uint32_t)(DMA_MAP_READ | DMA_MAP_WRITE | DMA_MAP_MMAP)) ||
	    !(w.flags & (DMA_MAP_READ | DMA_MAP_WRITE)))
		return -EINVAL;
	if (w.size == 0 || w.iova + w.size < w.iova)
		return -EINVAL;
	if (w.offset > INT64_MAX || w.size > INT64_MAX - w.offset)
		return -EINVAL;
	*ret_map = (struct vfmsg_dma_map){
		.prot = (w.flags & DMA_MAP_READ ? GM_READ : 0u) |
			(w.flags & DMA_MAP_WRITE ? GM_WRITE : 0u),
		.offset = w.offset,
		.iova = { w.iova },
		.size = w.size,
	};
	return 0;
}

int vfmsg_decode_dma_unmap(const void *payload, size_t len,
			   struct vfmsg_dma_unmap *ret_unmap)
{
	struct wire_dma_unmap w;
	int ret = take(&w, sizeof(w), payload, len);

	if (ret < 0)
		return ret;
	if (w.argsz < sizeof(w) || (w.flags & ~(uint32_t)DMA_UNMAP_ALL))
		return -EINVAL;
	if (w.flags & DMA_UNMAP_ALL) {
		if (w.iova || w.size)
			return -EINVAL;
		w.size = UINT64_MAX;
	}
	if (w.size == 0)
		return -EINVAL;
	*ret_unmap = (struct vfmsg_dma_unmap){ { w.iova }, w.size };
	return 0;
}

/*
 * --- Information ---
 */

int vfmsg_decode_info(const void *payload, size_t len)
{
	struct vfmsg_info info;
	int ret = take(&info, sizeof(info), payload, len);

	return ret == 0 && info.argsz < sizeof(info) ? -EINVAL : ret;
}

int vfmsg_decode_region_info(const void *payload, size_t len,
			     struct vfmsg_region_info *ret_info)
{
	struct vfmsg_region_info info;
	int ret = take(&info, sizeof(info), payload, len);

	if (ret < 0)
		return ret;
	if (info.argsz < sizeof(info) || info.index >= VFMSG_NR_REGIONS)
		return -EINVAL;
	*ret_info = (struct vfmsg_region_info){
		.argsz = sizeof(info),
		.index = info.index,
	};
	return 0;
}

static int read_index_info(const void *payload, size_t len, uint32_t nr,
			   struct vfmsg_irq_info *ret_info)
{
	struct vfmsg_irq_info info;
	int ret = take(&info, sizeof(info), payload, len);

	if (ret < 0)
		return ret;
	if (info.argsz < sizeof(info) || info.index >= nr)
		return -EINVAL;
	*ret_info = (struct vfmsg_irq_info){
		.argsz = sizeof(info),
		.index = info.index,
	};
	return 0;
}

int vfmsg_decode_irq_info(const void *payload, size_t len,
			  struct vfmsg_irq_info *ret_info)
{
	return read_index_info(payload, len, VFMSG_NR_IRQS, ret_info);
}

int vfmsg_decode_region_io_fds(const void *payload, size_t len,
			       struct vfmsg_irq_info *ret_info)
{
	return read_index_info(payload, len, VFMSG_NR_REGIONS, ret_info);
}

/*
 * --- SET_IRQS ---
 */

static bool is_one_bit(uint32_t flags)
{
	return flags != 0 && (flags & (flags - 1)) == 0;
}

int vfmsg_decode_set_irqs(const void *payload, size_t len,
			  struct vfmsg_set_irqs *ret_irqs)
{
	struct wire_set_irqs w;
	int ret = take(&w, sizeof(w), payload, len);
	uint32_t data, action;

	if (ret < 0)
		return ret;
	data = w.flags & IRQ_DATA_MASK;
	action = w.flags & IRQ_ACTION_MASK;
	if (w.argsz < sizeof(w) || w.index >= VFMSG_NR_IRQS ||
	    !is_one_bit(data) || !is_one_bit(action) ||
	    w.flags != (data | action))
		return -EINVAL;
	if (w.start + w.count < w.start)
		return -EINVAL;
	/* A count of 0 means all, but only in "unbind every vector". */
	if (w.count == 0 && (data != VFMSG_DATA_NONE ||
			     action != VFMSG_TRIGGER || w.start != 0))
		return -EINVAL;
	if (data == VFMSG_DATA_BOOL && w.count > len - sizeof(w))
		return -EINVAL;
	*ret_irqs = (struct vfmsg_set_irqs){
		.data = data,
		.action = action,
		.index = w.index,
		.start = w.start,
		.count = w.count,
		.bools = data == VFMSG_DATA_BOOL ?
				 (const uint8_t *)payload + sizeof(w) :
				 NULL,
	};
	return 0;
}

/*
 * --- Access to regions and to guest memory ---
 */

static int read_access(const void *payload, size_t len,
		       struct vfmsg_access *ret_access)
{
	struct wire_access w;
	int ret = take(&w, sizeof(w), payload, len);

	if (ret < 0)
		return ret;
	if (w.count > VFMSG_MAX_XFER)
		return -E2BIG;
	*ret_access = (struct vfmsg_access){
		.offset = w.offset,
		.region = w.region,
		.count = w.count,
		.data = (const uint8_t *)payload + sizeof(w),
	};
	return 0;
}

int vfmsg_decode_region_read(const void *payload, size_t len,
			     struct vfmsg_access *ret_access)
{
	int ret = read_access(payload, len, ret_access);

	if (ret == 0)
		ret_access->data = NULL;
	return ret;
}

int vfmsg_decode_region_write(const void *payload, size_t len,
			      struct vfmsg_access *ret_access)
{
	struct vfmsg_access access;
	int ret = read_access(payload, len, &access);

	if (ret < 0)
		return ret;
	if (access.count > len - VFMSG_ACCESS_BYTES)
		return -EINVAL;
	*ret_access = access;
	return 0;
}

void vfmsg_encode_access(void *payload, const struct vfmsg_access *access)
{
	struct wire_access w = { access->offset, access->region,
				 access->count };

	memcpy(payload, &w, sizeof(w));
}

int vfmsg_decode_write_multi(const void *payload, size_t len)
{
	uint64_t nr;
	int ret = take(&nr, sizeof(nr), payload, len);

	if (ret < 0)
		return ret;
	if (nr > (len - sizeof(nr)) / sizeof(struct wire_multi_entry) ||
	    nr > VFMSG_MAX_XFER / sizeof(struct wire_multi_entry))
		return -EINVAL;
	for (unsigned i = 0; i < nr; i++) {
		struct vfmsg_access access;

		vfmsg_decode_write_multi_entry(payload, i, &access);
		if (access.count > sizeof(uint64_t))
			return -EINVAL;
	}
	return (int)nr;
}

void vfmsg_decode_write_multi_entry(const void *payload, unsigned i,
				    struct vfmsg_access *ret_access)
{
	const uint8_t *entry = (const uint8_t *)payload + sizeof(uint64_t) +
			       i * sizeof(struct wire_multi_entry);
	struct wire_access w;

	memcpy(&w, entry, sizeof(w));
	*ret_access = (struct vfmsg_access){
		.offset = w.offset,
		.region = w.region,
		.count = w.count,
		.data = entry + sizeof(w),
	};
}

int vfmsg_decode_dma_data(const void *payload, size_t len,
			  struct vfmsg_dma_data *ret_data)
{
	struct wire_dma w;
	int ret = take(&w, sizeof(w), payload, len);

	if (ret < 0)
		return ret;
	if (w.count > len - sizeof(w))
		return -EINVAL;
	*ret_data = (struct vfmsg_dma_data){
		.iova = { w.iova },
		.count = w.count,
		.data = (const uint8_t *)payload + sizeof(w),
	};
	return 0;
}

void vfmsg_encode_dma(void *payload, gpa_t iova, uint64_t count)
{
	struct wire_dma w = { iova.v, count };

	memcpy(payload, &w, sizeof(w));
}

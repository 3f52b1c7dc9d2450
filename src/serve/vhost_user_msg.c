/* SPDX-License-Identifier: BSD-2-Clause */
/* vhost-user on the wire. See vhost_user_msg.h. */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "serve/vhost_user_msg.h"

/* Payloads in their wire format. */
struct wire_region {
	uint64_t gpa, size, uaddr, offset;
};
struct wire_region_message {
	uint64_t padding;
	struct wire_region region;
};
struct wire_mem_table {
	uint32_t nr, padding;
};
struct wire_config {
	uint32_t offset, size, flags;
};
static_assert(sizeof(struct vhmsg_hdr) == VHMSG_HDR_BYTES, "header");
static_assert(sizeof(struct vhmsg_vring) == 8, "vring state");
static_assert(sizeof(struct vhmsg_vring_addr) == 40, "vring address");
static_assert(sizeof(struct wire_region_message) == 40, "memory region");
static_assert(sizeof(struct wire_mem_table) == 8, "memory table");
static_assert(sizeof(struct vhmsg_log) == 16, "log");
static_assert(sizeof(struct wire_config) == VHMSG_CONFIG_BYTES, "config");
static_assert(sizeof(struct vhmsg_inflight) == 24, "inflight");
static_assert(sizeof(struct vhmsg_state) == 8, "device state");

#define VRING_INDEX_MASK 0xffu
#define VRING_NO_FD      0x100u

/* Copy a fixed part out: @len may be larger, as front-ends pad. */
static int take(void *obj, size_t size, const void *payload, size_t len)
{
	if (len < size)
		return -EINVAL;
	memcpy(obj, payload, size);
	return 0;
}

int vhmsg_decode_hdr(const void *buf, size_t len, struct vhmsg_hdr *ret_hdr)
{
	struct vhmsg_hdr hdr;

	if (take(&hdr, sizeof(hdr), buf, len) < 0)
		return -EAGAIN;
	if ((hdr.flags & VHMSG_VERSION_MASK) != VHMSG_VERSION ||
	    (hdr.flags & VHMSG_REPLY) || hdr.size > VHMSG_MAX_PAYLOAD)
		return -EBADMSG;
	*ret_hdr = hdr;
	return 0;
}

int vhmsg_decode_u64(const void *payload, size_t len, uint64_t *ret_val)
{
	return take(ret_val, sizeof(*ret_val), payload, len);
}

int vhmsg_decode_vring(const void *payload, size_t len,
		       struct vhmsg_vring *ret_vring)
{
	return take(ret_vring, sizeof(*ret_vring), payload, len);
}

int vhmsg_decode_vring_addr(const void *payload, size_t len,
			    struct vhmsg_vring_addr *ret_addr)
{
	return take(ret_addr, sizeof(*ret_addr), payload, len);
}

int vhmsg_decode_vring_fd(const void *payload, size_t len, unsigned nr_fds,
			  struct vhmsg_vring_fd *ret_fd)
{
	struct vhmsg_vring_fd vring;
	uint64_t val;

	if (take(&val, sizeof(val), payload, len) < 0 ||
	    (val & ~(uint64_t)(VRING_INDEX_MASK | VRING_NO_FD)))
		return -EINVAL;
	vring.index = (uint32_t)(val & VRING_INDEX_MASK);
	vring.no_fd = val & VRING_NO_FD;
	if (nr_fds != !vring.no_fd)
		return -EINVAL;
	*ret_fd = vring;
	return 0;
}

/*
 * --- Memory ---
 */

static bool wraps(uint64_t start, uint64_t size)
{
	return start + (size - 1) < start;
}

/* Whether a file can have such a range. */
static bool in_file(uint64_t offset, uint64_t size)
{
	return size > 0 && offset <= INT64_MAX && size <= INT64_MAX - offset;
}

static int check_region(const struct wire_region *w,
			struct vhmsg_region *ret_region)
{
	if (!in_file(w->offset, w->size) || wraps(w->gpa, w->size) ||
	    wraps(w->uaddr, w->size))
		return -EINVAL;
	*ret_region = (struct vhmsg_region){
		.gpa = { w->gpa },
		.size = w->size,
		.uaddr = w->uaddr,
		.offset = w->offset,
	};
	return 0;
}

int vhmsg_decode_region(const void *payload, size_t len,
			struct vhmsg_region *ret_region)
{
	struct wire_region_message m;

	if (take(&m, sizeof(m), payload, len) < 0)
		return -EINVAL;
	return check_region(&m.region, ret_region);
}

int vhmsg_decode_mem_table(const void *payload, size_t len, unsigned nr_fds,
			   struct vhmsg_region regions[VHMSG_MAX_REGIONS])
{
	const uint8_t *p = payload;
	struct wire_mem_table table;

	if (take(&table, sizeof(table), p, len) < 0 ||
	    table.nr > VHMSG_MAX_REGIONS || table.nr != nr_fds)
		return -EINVAL;
	p += sizeof(table);
	len -= sizeof(table);
	for (unsigned i = 0; i < table.nr; i++) {
		struct wire_region w;

		if (take(&w, sizeof(w), p, len) < 0 ||
		    check_region(&w, &regions[i]) < 0)
			return -EINVAL;
		p += sizeof(w);
		len -= sizeof(w);
	}
	return (int)table.nr;
}

int vhmsg_decode_log(const void *payload, size_t len, struct vhmsg_log *ret_log)
{
	struct vhmsg_log log;

	if (take(&log, sizeof(log), payload, len) < 0 ||
	    !in_file(log.offset, log.size))
		return -EINVAL;
	*ret_log = log;
	return 0;
}

/*
 * --- The rest ---
 */

int vhmsg_decode_config(const void *payload, size_t len,
			struct vhmsg_config *ret_config)
{
	struct wire_config w;

	if (take(&w, sizeof(w), payload, len) < 0 || w.size == 0 ||
	    w.size > VHMSG_MAX_CONFIG || w.offset > UINT32_MAX - w.size ||
	    w.size > len - sizeof(w))
		return -EINVAL;
	*ret_config = (struct vhmsg_config){
		.offset = w.offset,
		.size = w.size,
		.flags = w.flags,
		.data = (const uint8_t *)payload + sizeof(w),
	};
	return 0;
}

int vhmsg_decode_inflight(const void *payload, size_t len,
			  struct vhmsg_inflight *ret_inflight)
{
	struct vhmsg_inflight m = { 0 };
	size_t size = offsetof(struct vhmsg_inflight, padding);

	if (take(&m, size, payload, len) < 0 || m.nr_queues == 0 ||
	    m.queue_size == 0 || m.offset > INT64_MAX ||
	    m.size > INT64_MAX - m.offset)
		return -EINVAL;
	*ret_inflight = m;
	return 0;
}

int vhmsg_decode_state(const void *payload, size_t len,
		       struct vhmsg_state *ret_state)
{
	struct vhmsg_state state;

	if (take(&state, sizeof(state), payload, len) < 0 ||
	    state.direction > VHMSG_STATE_LOAD || state.phase != 0)
		return -EINVAL;
	*ret_state = state;
	return 0;
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzz target: a stream of vhost-user messages, as a front-end would send it.
 * What the parsers accept is then used as far as they promise.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "serve/vhost_user_msg.h"

static volatile uint8_t sink;

static void touch(const uint8_t *data, uint64_t len)
{
	for (uint64_t i = 0; i < len; i++)
		sink = data[i];
}

static void check_region(const struct vhmsg_region *r)
{
	assert(r->size > 0);
	assert(r->gpa.v + (r->size - 1) >= r->gpa.v);
	assert(r->uaddr + (r->size - 1) >= r->uaddr);
	assert(r->offset + r->size <= INT64_MAX);
}

static void memory(const uint8_t *p, size_t len)
{
	struct vhmsg_region regions[VHMSG_MAX_REGIONS], region;
	struct vhmsg_inflight inflight;
	struct vhmsg_log log;

	for (unsigned fds = 0; fds <= VHMSG_MAX_FDS; fds++) {
		int nr = vhmsg_decode_mem_table(p, len, fds, regions);

		assert(nr < 0 || (unsigned)nr == fds);
		for (int i = 0; i < nr; i++)
			check_region(&regions[i]);
	}
	if (vhmsg_decode_region(p, len, &region) == 0)
		check_region(&region);
	if (vhmsg_decode_log(p, len, &log) == 0)
		assert(log.size > 0 && log.offset + log.size <= INT64_MAX);
	if (vhmsg_decode_inflight(p, len, &inflight) == 0)
		assert(inflight.nr_queues > 0 && inflight.queue_size > 0 &&
		       inflight.offset + inflight.size <= INT64_MAX);
}

static void rings(const uint8_t *p, size_t len)
{
	struct vhmsg_vring_addr addr;
	struct vhmsg_vring vring;
	struct vhmsg_vring_fd fd;
	uint64_t val;

	vhmsg_decode_u64(p, len, &val);
	vhmsg_decode_vring(p, len, &vring);
	vhmsg_decode_vring_addr(p, len, &addr);
	for (unsigned fds = 0; fds < 3; fds++) {
		if (vhmsg_decode_vring_fd(p, len, fds, &fd) == 0)
			assert(fd.index < 256 && fds == !fd.no_fd);
	}
}

static void config(const uint8_t *p, size_t len)
{
	struct vhmsg_config c;

	if (vhmsg_decode_config(p, len, &c) < 0)
		return;
	assert(c.size > 0 && c.size <= VHMSG_MAX_CONFIG);
	assert(c.offset + c.size > c.offset);
	touch(c.data, c.size);
}

static void run(struct fuzz_in *in)
{
	struct vhmsg_hdr hdr;

	while (vhmsg_decode_hdr(in->data, in->left, &hdr) == 0 &&
	       hdr.size <= in->left - VHMSG_HDR_BYTES) {
		/* Separate, so that a read past its end is detected. */
		uint8_t *payload = malloc(hdr.size ? hdr.size : 1);

		fuzz_bytes(in, (uint8_t[VHMSG_HDR_BYTES]){ 0 },
			   VHMSG_HDR_BYTES);
		fuzz_bytes(in, payload, hdr.size);
		memory(payload, hdr.size);
		rings(payload, hdr.size);
		config(payload, hdr.size);
		free(payload);
	}
}

const struct fuzz_target fuzz_target = { .run = run };

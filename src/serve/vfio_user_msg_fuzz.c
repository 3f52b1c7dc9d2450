/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzz target: a stream of vfio-user messages, as a client would send it. What
 * the parsers accept is then used as far as they promise.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "serve/vfio_user_msg.h"

static volatile uint8_t sink;

static void touch(const uint8_t *data, uint64_t len)
{
	for (uint64_t i = 0; i < len; i++)
		sink = data[i];
}

static void version(const uint8_t *p, size_t len)
{
	struct vfmsg_version v;
	uint8_t *reply;
	size_t reply_len;

	if (vfmsg_decode_version(p, len, &v) < 0)
		return;
	assert(v.major == 0 && v.max_xfer > 0);
	reply = malloc(len);
	reply_len = vfmsg_encode_version(reply, len, &v);
	assert(reply_len <= len);
	/* We parse our own reply. */
	assert(vfmsg_decode_version(reply, reply_len, &v) == 0);
	free(reply);
}

static void dma(const uint8_t *p, size_t len)
{
	struct vfmsg_dma_unmap unmap;
	struct vfmsg_dma_map map;
	struct vfmsg_dma_data data;

	if (vfmsg_decode_dma_map(p, len, &map) == 0) {
		assert(map.prot && map.size > 0);
		assert(map.iova.v + map.size > map.iova.v);
		assert(map.offset + map.size <= INT64_MAX);
	}
	if (vfmsg_decode_dma_unmap(p, len, &unmap) == 0)
		assert(unmap.size > 0);
	if (vfmsg_decode_dma_data(p, len, &data) == 0)
		touch(data.data, data.count);
}

static void info(const uint8_t *p, size_t len)
{
	struct vfmsg_region_info region;
	struct vfmsg_irq_info irq;

	vfmsg_decode_info(p, len);
	if (vfmsg_decode_region_info(p, len, &region) == 0)
		assert(region.index < VFMSG_NR_REGIONS);
	if (vfmsg_decode_region_io_fds(p, len, &irq) == 0)
		assert(irq.index < VFMSG_NR_REGIONS);
	if (vfmsg_decode_irq_info(p, len, &irq) == 0)
		assert(irq.index < VFMSG_NR_IRQS);
}

static void irqs(const uint8_t *p, size_t len)
{
	struct vfmsg_set_irqs set;

	if (vfmsg_decode_set_irqs(p, len, &set) < 0)
		return;
	assert(set.index < VFMSG_NR_IRQS);
	assert(set.start + set.count >= set.start);
	if (set.bools)
		touch(set.bools, set.count);
}

static void accesses(const uint8_t *p, size_t len)
{
	struct vfmsg_access a;
	int nr;

	if (vfmsg_decode_region_read(p, len, &a) == 0)
		assert(a.count <= VFMSG_MAX_XFER);
	if (vfmsg_decode_region_write(p, len, &a) == 0)
		touch(a.data, a.count);
	nr = vfmsg_decode_write_multi(p, len);
	for (int i = 0; i < nr; i++) {
		vfmsg_decode_write_multi_entry(p, (unsigned)i, &a);
		assert(a.count <= 8);
		touch(a.data, a.count);
	}
}

/* Whatever the header says, each parser must survive each payload. */
static void message(const uint8_t *p, size_t len)
{
	version(p, len);
	dma(p, len);
	info(p, len);
	irqs(p, len);
	accesses(p, len);
}

static void run(struct fuzz_in *in)
{
	struct vfmsg_hdr hdr;

	while (vfmsg_decode_hdr(in->data, in->left, &hdr) == 0 &&
	       hdr.size <= in->left) {
		size_t len = hdr.size - VFMSG_HDR_BYTES;
		/* Separate, so that a read past its end is detected. */
		uint8_t *payload = malloc(len ? len : 1);

		fuzz_bytes(in, (uint8_t[VFMSG_HDR_BYTES]){ 0 },
			   VFMSG_HDR_BYTES);
		fuzz_bytes(in, payload, len);
		message(payload, len);
		free(payload);
	}
}

const struct fuzz_target fuzz_target = { .run = run };

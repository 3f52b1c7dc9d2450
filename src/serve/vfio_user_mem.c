/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Guest memory of the vfio-user server: regions are added and removed.
 *
 * Most come with a file and are mapped, see ramfile.h; others are accessed by
 * messages, see vfio_user_dma.c.
 *
 * A region that is removed while requests use it stays mapped until they have
 * ended. The client gets its answer only then, because it may reuse the memory.
 * Other commands are handled meanwhile, above all register accesses, which a
 * guest processor may be waiting for. Only answers to other commands that
 * change memory wait as well, because QEMU takes the last answer for all.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>

#include "serve/vfio_user_impl.h"

#define MAX_DEFERRED 1024u

/* A region's owner: finds the answer that waits for the region. */
struct region {
	struct ram ram; /* all 0 without a file */
	unsigned client;
	uint64_t seq;
};

static void region_free(struct vfuser *srv, struct region *region)
{
	ram_release(&srv->mem.files, &region->ram);
	free(region);
}

static int map_file(struct vfuser *srv, int fd,
		    const struct vfmsg_dma_map *want, struct region *region)
{
	int ret = mapping_check_ram(want->iova.v, want->offset, want->size);

	return ret < 0 ? ret :
			 ram_map(&srv->mem.files, fd, want->offset, want->size,
				 want->prot, &region->ram);
}

static int add_region(struct vfuser *srv, const struct vfmsg_dma_map *want,
		      struct region *region)
{
	int ret;

	pci_lock(&srv->base.pi);
	ret = gm_add_owned(&srv->base.gm, want->iova, want->size,
			   region->ram.host, want->prot, region);
	pci_unlock(&srv->base.pi);
	return ret;
}

static bool is_unshared(const struct gm_region *r)
{
	return !r->host && (r->prot & GM_WRITE);
}

ssize_t vfuser_dma_map(struct vfuser *srv, const struct vfconn_msg *msg,
		       uint8_t *reply)
{
	struct vfmsg_dma_map want;
	struct region *region;
	int ret = vfmsg_decode_dma_map(msg->payload, msg->len, &want);

	if (ret < 0)
		return ret;
	if (srv->base.gm.nr_regions + srv->base.gm.nr_limbo >=
	    VFMSG_MAX_DMA_MAPS)
		return -ENOSPC;
	region = calloc(1, sizeof(*region));
	if (!region)
		return -ENOMEM;
	region->client = srv->base.wake.client;
	region->seq = ++srv->mem.seq;
	if (msg->nr_fds > 0)
		ret = map_file(srv, msg->fds[0], &want, region);
	if (ret == 0)
		ret = add_region(srv, &want, region);
	if (ret < 0) {
		region_free(srv, region);
		return ret;
	}
	srv->mem.bytes += want.size;
	if (msg->nr_fds == 0 && (want.prot & GM_WRITE))
		srv->mem.nr_unshared++;
	return 0;
}

/* An IOMMU's unmaps cover whole maps, or nothing at all. */
ssize_t vfuser_dma_unmap(struct vfuser *srv, const struct vfconn_msg *msg,
			 uint8_t *reply)
{
	struct vfmsg_dma_unmap range;
	int ret = vfmsg_decode_dma_unmap(msg->payload, msg->len, &range);

	if (ret < 0)
		return ret;
	ret = vfuser_mem_remove(srv, range.iova, range.size);
	if (ret < 0)
		return ret;
	srv->mem.nr_used = (unsigned)ret;
	if (ret > 0) /* some requests may only wait for a packet */
		pci_give_back(&srv->base.pi);
	memcpy(reply, msg->payload, VFMSG_DMA_UNMAP_BYTES);
	return VFMSG_DMA_UNMAP_BYTES;
}

/*
 * --- Deferred answers ---
 */

/* A command with a deferred answer: memory that it removed is still used. */
struct vfuser_deferred {
	struct vfmsg_hdr hdr;
	struct vfmsg_dma_unmap range;
	uint64_t seq;
	unsigned nr_used;
	ssize_t ret;
	uint8_t reply[VFMSG_DMA_UNMAP_BYTES];
};

bool vfuser_mem_may_defer(const struct vfuser *srv)
{
	return srv->mem.nr_deferred < MAX_DEFERRED;
}

bool vfuser_mem_defer(struct vfuser *srv, const struct vfconn_msg *msg,
		      ssize_t ret)
{
	struct vfuser_mem *mem = &srv->mem;
	struct vfuser_deferred *deferred;
	unsigned nr_used = mem->nr_used;

	mem->nr_used = 0;
	if (nr_used == 0 &&
	    (mem->nr_deferred == 0 || (msg->hdr.cmd != VFMSG_DMA_MAP &&
				       msg->hdr.cmd != VFMSG_DMA_UNMAP)))
		return false;
	if (!mem->deferred)
		mem->deferred = calloc(MAX_DEFERRED, sizeof(*mem->deferred));
	if (!mem->deferred) {
		vfuser_fail(srv, LOG_WARNING, "out of memory");
		return false;
	}
	deferred = &mem->deferred[mem->nr_deferred++];
	*deferred = (struct vfuser_deferred){
		.hdr = msg->hdr,
		.seq = ++mem->seq,
		.nr_used = nr_used,
		.ret = ret,
	};
	if (nr_used > 0)
		vfmsg_decode_dma_unmap(msg->payload, msg->len,
				       &deferred->range);
	if (ret > 0)
		memcpy(deferred->reply, srv->reply, sizeof(deferred->reply));
	return true;
}

/* The oldest command that may have removed it. */
static struct vfuser_deferred *who_removed(struct vfuser_mem *mem,
					   const struct gm_region *r)
{
	const struct region *region = r->owner;

	for (unsigned i = 0; i < mem->nr_deferred; i++) {
		struct vfuser_deferred *deferred = &mem->deferred[i];

		if (deferred->nr_used > 0 && deferred->seq > region->seq &&
		    r->base.v - deferred->range.iova.v < deferred->range.size)
			return deferred;
	}
	return NULL;
}

/* Nothing uses the memory any more. */
static void region_removed(void *arg, const struct gm_region *r)
{
	struct vfuser *srv = arg;
	struct region *region = r->owner;
	struct vfuser_deferred *deferred = NULL;

	if (region->client == srv->base.wake.client)
		deferred = who_removed(&srv->mem, r);
	if (deferred)
		deferred->nr_used--;
	srv->mem.bytes -= r->len;
	srv->mem.nr_unshared -= is_unshared(r);
	region_free(srv, region);
}

static void answer(struct vfuser *srv)
{
	struct vfuser_mem *mem = &srv->mem;
	unsigned nr = 0;

	for (; nr < mem->nr_deferred && mem->deferred[nr].nr_used == 0; nr++) {
		struct vfuser_deferred *deferred = &mem->deferred[nr];

		memcpy(srv->reply, deferred->reply, sizeof(deferred->reply));
		vfuser_reply(srv, &deferred->hdr, deferred->ret);
	}
	if (nr == 0)
		return;
	mem->nr_deferred -= nr;
	memmove(mem->deferred, mem->deferred + nr,
		mem->nr_deferred * sizeof(*mem->deferred));
	vfuser_wake(srv);
}

int vfuser_mem_remove(struct vfuser *srv, gpa_t base, uint64_t len)
{
	int ret;

	pci_lock(&srv->base.pi);
	ret = gm_remove(&srv->base.gm, base, len, region_removed, srv);
	pci_unlock(&srv->base.pi);
	return ret;
}

void vfuser_mem_reap(struct vfuser *srv)
{
	pci_lock(&srv->base.pi);
	gm_reap(&srv->base.gm, region_removed, srv);
	pci_unlock(&srv->base.pi);
	answer(srv);
}

void vfuser_mem_reset(struct vfuser *srv)
{
	vfuser_mem_remove(srv, (gpa_t){ 0 }, UINT64_MAX);
	free(srv->mem.deferred);
	srv->mem.deferred = NULL;
	srv->mem.nr_deferred = 0;
	ramfiles_client_gone(&srv->mem.files);
}

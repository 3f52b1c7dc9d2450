/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Memory that the front-end shares: the guest's, its dirty log, and the area
 * that records requests in flight.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <syslog.h>
#include <unistd.h>

#include "core/core.h"
#include "serve/vhost_user_impl.h"

#define INFLIGHT_ALIGN 64u

/*
 * --- Guest memory ---
 */

struct vhuser_mapping {
	struct mapping map;
	unsigned client; /* the front-end that owns it */
};

static void unmap(struct vhuser_mapping *m)
{
	if (m)
		mapping_destroy(&m->map);
	free(m);
}

static int map_region(struct vhuser *srv, int fd, const struct vhmsg_region *r,
		      struct vhuser_region *ret_region)
{
	struct vhuser_mapping *m;
	/* libblkio's regions end anywhere: it owns the rest of the page. */
	int ret = mapping_check_ram(r->gpa.v | r->uaddr, r->offset, 0);

	if (ret < 0)
		return ret;
	m = malloc(sizeof(*m));
	if (!m)
		return -ENOMEM;
	m->client = srv->base.wake.client;
	ret = mapping_create(&srv->base.wake, fd, r->offset, r->size,
			     GM_READ | GM_WRITE, &m->map);
	if (ret < 0) {
		free(m);
		return ret;
	}
	*ret_region = (struct vhuser_region){ *r, m };
	return 0;
}

/* Put a mapped region into the table; it stays the caller's on failure. */
static int add_region(struct vhuser *srv, const struct vhuser_region *region)
{
	const struct vhmsg_region *r = &region->r;
	int ret;

	if (srv->nr_regions == VHMSG_MAX_SLOTS)
		return -ENOSPC;
	VS_LOCK(srv->vs);
	ret = gm_add_owned(&srv->base.gm, r->gpa, r->size, region->m->map.host,
			   GM_READ | GM_WRITE, region->m);
	VS_UNLOCK(srv->vs);
	if (ret == 0)
		srv->regions[srv->nr_regions++] = *region;
	return ret;
}

/* Nothing uses the memory any more. */
static void region_removed(void *arg, const struct gm_region *r)
{
	unmap(r->owner);
}

/* The same, for a region in limbo. */
static void left(void *arg, const struct gm_region *r)
{
	struct vhuser *srv = arg;
	const struct vhuser_mapping *m = r->owner;

	if (m->client == srv->base.wake.client)
		srv->nr_leaving--;
	region_removed(arg, r);
}

static void drop_region(struct vhuser *srv, unsigned i)
{
	struct vhuser_region *region = &srv->regions[i];
	int ret;

	VS_LOCK(srv->vs);
	ret = gm_remove(&srv->base.gm, region->r.gpa, region->r.size,
			region_removed, srv);
	VS_UNLOCK(srv->vs);
	if (ret > 0)
		srv->nr_leaving++;
	*region = srv->regions[--srv->nr_regions];
}

static void drop_regions(struct vhuser *srv)
{
	while (srv->nr_regions > 0)
		drop_region(srv, srv->nr_regions - 1);
}

/* Requests that use a removed region may only wait for outside events. */
static void give_back_waiting(struct vhuser *srv)
{
	if (srv->nr_leaving > 0)
		vi_give_back(srv->vs);
}

void vhuser_mem_reap(struct vhuser *srv)
{
	VS_LOCK(srv->vs);
	gm_reap(&srv->base.gm, left, srv);
	VS_UNLOCK(srv->vs);
}

/* Everything is mapped before anything is changed. */
ssize_t vhuser_set_mem_table(struct vhuser *srv, const struct vhconn_msg *msg,
			     uint8_t *reply)
{
	struct vhmsg_region wanted[VHMSG_MAX_REGIONS];
	struct vhuser_region regions[VHMSG_MAX_REGIONS] = { 0 };
	int nr = vhmsg_decode_mem_table(msg->payload, msg->hdr.size,
					msg->nr_fds, wanted);
	int ret = nr < 0 ? nr : 0, added = 0;

	for (int i = 0; i < nr && ret == 0; i++)
		ret = map_region(srv, msg->fds[i], &wanted[i], &regions[i]);
	if (ret == 0) {
		drop_regions(srv);
		give_back_waiting(srv);
	}
	while (added < nr && ret == 0) {
		ret = add_region(srv, &regions[added]);
		added += ret == 0;
	}
	for (int i = added; i < nr; i++)
		unmap(regions[i].m);
	return ret;
}

ssize_t vhuser_add_mem_reg(struct vhuser *srv, const struct vhconn_msg *msg,
			   uint8_t *reply)
{
	struct vhuser_region region;
	struct vhmsg_region wanted;
	int ret = vhmsg_decode_region(msg->payload, msg->hdr.size, &wanted);

	if (ret < 0 || msg->nr_fds != 1)
		return -EINVAL;
	ret = map_region(srv, msg->fds[0], &wanted, &region);
	if (ret < 0)
		return ret;
	ret = add_region(srv, &region);
	if (ret < 0)
		unmap(region.m);
	return ret;
}

ssize_t vhuser_rem_mem_reg(struct vhuser *srv, const struct vhconn_msg *msg,
			   uint8_t *reply)
{
	struct vhmsg_region wanted;

	if (vhmsg_decode_region(msg->payload, msg->hdr.size, &wanted) < 0)
		return -EINVAL;
	for (unsigned i = 0; i < srv->nr_regions; i++) {
		const struct vhmsg_region *r = &srv->regions[i].r;

		if (r->gpa.v != wanted.gpa.v || r->size != wanted.size ||
		    r->uaddr != wanted.uaddr)
			continue;
		drop_region(srv, i);
		give_back_waiting(srv);
		return 0;
	}
	return -ENOENT;
}

int vhuser_translate(const struct vhuser *srv, uint64_t uaddr,
		     uint64_t *ret_gpa)
{
	for (unsigned i = 0; i < srv->nr_regions; i++) {
		const struct vhmsg_region *r = &srv->regions[i].r;

		if (uaddr - r->uaddr < r->size) { /* wraps when below */
			*ret_gpa = r->gpa.v + (uaddr - r->uaddr);
			return 0;
		}
	}
	return -EFAULT;
}

/*
 * --- Log ---
 */

void vhuser_update_log(struct vhuser *srv)
{
	bool on = srv->features & VI_BIT(VHMSG_F_LOG_ALL);

	VS_LOCK(srv->vs);
	gm_set_log(&srv->base.gm, on ? srv->log_map.host : NULL, srv->log_len);
	VS_UNLOCK(srv->vs);
}

ssize_t vhuser_set_log_base(struct vhuser *srv, const struct vhconn_msg *msg,
			    uint8_t *reply)
{
	struct vhmsg_log log;
	struct mapping map, old = srv->log_map;
	uint64_t ok = 0;
	int ret = vhmsg_decode_log(msg->payload, msg->hdr.size, &log);

	if (ret < 0 || msg->nr_fds != 1)
		return -EINVAL;
	ret = mapping_create(&srv->base.wake, msg->fds[0], log.offset, log.size,
			     GM_READ | GM_WRITE, &map);
	if (ret < 0)
		return ret;
	srv->log_map = map;
	srv->log_len = log.size;
	vhuser_update_log(srv);
	mapping_destroy(&old);
	memcpy(reply, &ok, sizeof(ok));
	return sizeof(ok);
}

/*
 * --- The in-flight area ---
 */

/* Bytes from one ring's part to the next one's. */
static uint64_t inflight_stride(unsigned queue_size, bool packed)
{
	return (vq_inflight_bytes(queue_size, packed) + INFLIGHT_ALIGN - 1) &
	       ~(uint64_t)(INFLIGHT_ALIGN - 1);
}

static bool inflight_fits(const struct vhmsg_inflight *area, bool packed)
{
	uint64_t stride = inflight_stride(area->queue_size, packed);

	return area->size / stride >= area->nr_queues;
}

ssize_t vhuser_get_inflight(struct vhuser *srv, const struct vhconn_msg *msg,
			    uint8_t *reply)
{
	struct vhmsg_inflight area;
	int ret = vhmsg_decode_inflight(msg->payload, msg->hdr.size, &area);

	if (ret < 0)
		return ret;
	if (area.nr_queues > srv->nr_rings ||
	    area.queue_size > VHUSER_MAX_RING_SIZE)
		return -EINVAL;
	area.size = area.nr_queues *
		    inflight_stride(area.queue_size, vhuser_packed(srv));
	area.offset = 0;
	memcpy(reply, &area, sizeof(area));
	return msg->hdr.size < sizeof(area) ? msg->hdr.size : sizeof(area);
}

int vhuser_inflight_file(const struct vhmsg_inflight *area)
{
	int fd = memfd_create("viodev-inflight", MFD_CLOEXEC);

	if (fd < 0)
		return -errno;
	if (ftruncate(fd, (off_t)area->size) < 0) {
		int ret = -errno;

		close(fd);
		return ret;
	}
	return fd;
}

/* Its contents are checked when a ring starts. */
ssize_t vhuser_set_inflight(struct vhuser *srv, const struct vhconn_msg *msg,
			    uint8_t *reply)
{
	struct vhmsg_inflight area;
	struct mapping map;
	int ret = vhmsg_decode_inflight(msg->payload, msg->hdr.size, &area);

	if (ret < 0 || msg->nr_fds != 1 || area.nr_queues > srv->nr_rings ||
	    area.queue_size > VHUSER_MAX_RING_SIZE ||
	    area.offset % INFLIGHT_ALIGN ||
	    !inflight_fits(&area, vhuser_packed(srv)))
		return -EINVAL;
	if (srv->nr_running > 0)
		return -EBUSY;
	ret = mapping_create(&srv->base.wake, msg->fds[0], area.offset,
			     area.size, GM_READ | GM_WRITE, &map);
	if (ret < 0)
		return ret;
	mapping_destroy(&srv->inflight_map);
	srv->inflight_map = map;
	srv->inflight = area;
	return 0;
}

static void *inflight_part(struct vhuser *srv, unsigned index, bool packed)
{
	return (char *)srv->inflight_map.host +
	       index * inflight_stride(srv->inflight.queue_size, packed);
}

int vhuser_inflight_area(struct vhuser *srv, unsigned index, unsigned size,
			 void **ret_area)
{
	const struct vhmsg_inflight *area = &srv->inflight;

	*ret_area = NULL;
	if (!srv->inflight_map.host)
		return 0;
	/* The driver may have changed to another layout since. */
	if (index >= area->nr_queues || size > area->queue_size ||
	    !inflight_fits(area, vhuser_packed(srv)))
		return -EINVAL;
	*ret_area = inflight_part(srv, index, vhuser_packed(srv));
	return 0;
}

static void clear_layout(struct vhuser *srv, bool packed)
{
	if (!inflight_fits(&srv->inflight, packed)) /* no such ring ran */
		return;
	for (unsigned i = 0; i < srv->inflight.nr_queues; i++) {
		unsigned size = srv->inflight.queue_size,
			 max = srv->vs->vs_queues[i].vq_qsize;

		/* A larger ring never ran. */
		memset(inflight_part(srv, i, packed), 0,
		       vq_inflight_bytes(size < max ? size : max, packed));
	}
}

/* The driver that leaves may have had another layout than the next one. */
void vhuser_inflight_clear(struct vhuser *srv)
{
	if (!srv->inflight_map.host)
		return;
	clear_layout(srv, false);
	clear_layout(srv, true);
}

void vhuser_mem_reset(struct vhuser *srv)
{
	VS_LOCK(srv->vs);
	gm_set_log(&srv->base.gm, NULL, 0);
	VS_UNLOCK(srv->vs);
	mapping_destroy(&srv->log_map);
	mapping_destroy(&srv->inflight_map);
	drop_regions(srv);
	srv->nr_leaving = 0; /* no message waits for them */
}

void vhuser_mem_fini(struct vhuser *srv)
{
	for (unsigned i = 0; i < srv->base.gm.nr_limbo; i++)
		region_removed(srv, &srv->base.gm.limbo[i]);
	for (unsigned i = 0; i < srv->nr_regions; i++)
		unmap(srv->regions[i].m);
	mapping_destroy(&srv->log_map);
	mapping_destroy(&srv->inflight_map);
}

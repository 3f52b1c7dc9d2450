/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Regions of the vfio-user server: the function's configuration space and BARs,
 * read and written by message. None can be mapped: if one could, QEMU would
 * wait for the reply to every write to any.
 *
 * Cloud Hypervisor reads a reply of the size that it expects, whatever the
 * header says. So an access that cannot be served is still answered in full:
 * reads with all ones, like a bus; writes as if they were done.
 */
#include <endian.h>
#include <errno.h>
#include <string.h>

#include "serve/vfio_user_impl.h"

static uint64_t region_size(const struct vfuser *srv, uint32_t region)
{
	if (region < PCI_NR_BARS)
		return pci_bar_size(&srv->base.pi, (int)region);
	return region == VFMSG_REGION_CFG ? PCI_CFG_SIZE : 0;
}

/* The widest access at @off that is naturally aligned and fits in @left. */
static unsigned access_size(uint64_t off, uint32_t left, unsigned widest)
{
	unsigned size = widest;

	while (size > left || off % size)
		size /= 2;
	return size;
}

static unsigned widest_access(uint32_t region)
{
	return region == VFMSG_REGION_CFG ? 4 : 8;
}

/* How much of the access lies inside its region. */
static uint32_t inside(const struct vfuser *srv, const struct vfmsg_access *a)
{
	uint64_t size = region_size(srv, a->region);

	if (a->offset >= size)
		return 0;
	return a->count < size - a->offset ? a->count :
					     (uint32_t)(size - a->offset);
}

static void read_region(struct vfuser *srv, const struct vfmsg_access *a,
			uint8_t *data)
{
	uint32_t nr = inside(srv, a), done = 0;
	uint64_t val;
	unsigned size;

	memset(data + nr, 0xff, a->count - nr);
	for (; done < nr; done += size) {
		uint64_t off = a->offset + done;

		size = access_size(off, nr - done, widest_access(a->region));
		if (a->region == VFMSG_REGION_CFG)
			val = pci_cfg_read(&srv->base.pi, (unsigned)off, size);
		else
			val = pci_bar_read(&srv->base.pi, (int)a->region, off,
					   (int)size);
		val = htole64(val);
		memcpy(data + done, &val, size);
	}
}

static bool is_doorbell(struct vfuser *srv, const struct vfmsg_access *a)
{
	const struct pci_dev *dev = srv->base.pi.pi_dev;

	return a->region < PCI_NR_BARS && a->count > 0 && a->count <= 8 &&
	       access_size(a->offset, a->count, 8) == a->count && dev &&
	       dev->pd_is_doorbell &&
	       dev->pd_is_doorbell(&srv->base.pi, (int)a->region, a->offset,
				   (int)a->count);
}

static void write_region(struct vfuser *srv, const struct vfmsg_access *a)
{
	uint32_t nr = inside(srv, a);
	unsigned size;

	/*
	 * The queue may need memory that is read by message, which is
	 * impossible from here.
	 */
	if (srv->mem.nr_unshared > 0 && is_doorbell(srv, a)) {
		srv->want_kick = true;
		return;
	}
	for (uint32_t done = 0; done < nr; done += size) {
		uint64_t off = a->offset + done, val = 0;

		size = access_size(off, nr - done, widest_access(a->region));
		memcpy(&val, a->data + done, size);
		val = le64toh(val);
		if (a->region == VFMSG_REGION_CFG)
			pci_cfg_write(&srv->base.pi, (unsigned)off, size,
				      (uint32_t)val);
		else
			pci_bar_write(&srv->base.pi, (int)a->region, off,
				      (int)size, val);
	}
}

bool vfuser_is_doorbell(struct vfuser *srv, const struct vfconn_msg *msg)
{
	struct vfmsg_access a;
	int nr;

	if (srv->mem.nr_unshared == 0)
		return false;
	if (msg->hdr.cmd == VFMSG_REGION_WRITE)
		return vfmsg_decode_region_write(msg->payload, msg->len, &a) ==
			       0 &&
		       is_doorbell(srv, &a);
	if (msg->hdr.cmd != VFMSG_REGION_WRITE_MULTI)
		return false;
	nr = vfmsg_decode_write_multi(msg->payload, msg->len);
	for (int i = 0; i < nr; i++) {
		vfmsg_decode_write_multi_entry(msg->payload, (unsigned)i, &a);
		if (!is_doorbell(srv, &a))
			return false;
	}
	return nr > 0;
}

/*
 * --- Commands ---
 */

ssize_t vfuser_get_region_info(struct vfuser *srv, const struct vfconn_msg *msg,
			       uint8_t *reply)
{
	struct vfmsg_region_info info;
	int ret = vfmsg_decode_region_info(msg->payload, msg->len, &info);

	if (ret < 0)
		return ret;
	info.size = region_size(srv, info.index);
	if (info.size > 0)
		info.flags = VFMSG_REGION_READABLE | VFMSG_REGION_WRITABLE;
	memcpy(reply, &info, sizeof(info));
	return sizeof(info);
}

/* No descriptors in place of doorbells: no client asks for them. */
ssize_t vfuser_get_region_io_fds(struct vfuser *srv,
				 const struct vfconn_msg *msg, uint8_t *reply)
{
	struct vfmsg_irq_info info; /* the same four numbers */
	int ret = vfmsg_decode_region_io_fds(msg->payload, msg->len, &info);

	if (ret < 0)
		return ret;
	memcpy(reply, &info, sizeof(info));
	return sizeof(info);
}

/*
 * QEMU reads all of configuration space in one message. That includes the
 * window of virtio 4.1.4.9, whose data register reads a BAR; but only where the
 * driver has pointed it, and QEMU reads it before there is a driver.
 */
ssize_t vfuser_region_read(struct vfuser *srv, const struct vfconn_msg *msg,
			   uint8_t *reply)
{
	struct vfmsg_access a;
	int ret = vfmsg_decode_region_read(msg->payload, msg->len, &a);

	if (ret < 0)
		return ret;
	vfmsg_encode_access(reply, &a);
	read_region(srv, &a, reply + VFMSG_ACCESS_BYTES);
	return VFMSG_ACCESS_BYTES + (ssize_t)a.count;
}

ssize_t vfuser_region_write(struct vfuser *srv, const struct vfconn_msg *msg,
			    uint8_t *reply)
{
	struct vfmsg_access a;
	int ret = vfmsg_decode_region_write(msg->payload, msg->len, &a);

	if (ret < 0)
		return ret;
	write_region(srv, &a);
	/* Bus Master is off only once requests in flight have ended. */
	if (a.region == VFMSG_REGION_CFG && vfuser_rests(srv))
		return -EINPROGRESS;
	vfmsg_encode_access(reply, &a);
	return VFMSG_ACCESS_BYTES;
}

ssize_t vfuser_region_write_multi(struct vfuser *srv,
				  const struct vfconn_msg *msg, uint8_t *reply)
{
	int nr = vfmsg_decode_write_multi(msg->payload, msg->len);
	uint64_t done;

	if (nr < 0)
		return nr;
	for (; srv->nr_written < (unsigned)nr; srv->nr_written++) {
		struct vfmsg_access a;

		if (!vfuser_take_share(srv))
			return -EINPROGRESS;
		vfmsg_decode_write_multi_entry(msg->payload, srv->nr_written,
					       &a);
		write_region(srv, &a);
	}
	if (vfuser_rests(srv))
		return -EINPROGRESS;
	srv->nr_written = 0;
	done = (uint64_t)nr;
	memcpy(reply, &done, sizeof(done));
	return sizeof(done);
}

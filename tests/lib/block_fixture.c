/* SPDX-License-Identifier: BSD-2-Clause */
#include "block_fixture.h"
#include "base/le.h"
#include "base/util.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <viodev/device.h>

bool threads;

struct vdrv d;
struct vio_loop *loop;
struct vdev *dev;
char path[128];
uint8_t model[IMAGE_BYTES];

void make_image(void)
{
	const char *dir = getenv("TMPDIR");
	int fd;

	snprintf(path, sizeof(path), "%s/viodev-block-XXXXXX",
		 dir ? dir : "/var/tmp");
	fd = mkstemp(path);
	assert_true(fd >= 0);
	for (size_t i = 0; i < sizeof(model); i++)
		model[i] = (uint8_t)(i / 512 * 7 + i % 512 + 1);
	assert_int_equal(write(fd, model, sizeof(model)), sizeof(model));
	close(fd);
}

void on_idle(void *arg)
{
	vio_loop_iterate(loop, 2);
}

void create(enum vdrv_mode mode, const char *options)
{
	char text[256], why[256] = "";

	make_image();
	vdrv_init(&d, mode);
	d.idle = on_idle;
	snprintf(text, sizeof(text), "block,path=%s%s%s", path,
		 strstr(options, "queue-size=") ? "" : ",queue-size=64",
		 options);
	if (vdev_new(text, &d.pi, loop, &dev, why, sizeof(why)) < 0)
		fail_msg("%s", why);
}

void start(enum vdrv_mode mode, const char *options, uint64_t features)
{
	create(mode, options);
	assert_true(vdrv_start(&d, features, 1));
}

void destroy(void)
{
	if (!dev)
		return;
	vdev_destroy(dev);
	vdrv_fini(&d);
	unlink(path);
	dev = NULL;
}

int setup(void **state)
{
	memset(&disk_fault, 0, sizeof(disk_fault));
	return vio_loop_create(&loop);
}

int teardown(void **state)
{
	FAULT_SET(hang, false);
	destroy();
	memset(&disk_fault, 0, sizeof(disk_fault));
	vio_loop_destroy(loop);
	return 0;
}

void assert_image_is_model(void)
{
	static uint8_t image[IMAGE_BYTES];
	int fd = open(path, O_RDONLY);
	struct stat st;

	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_size, IMAGE_BYTES);
	assert_int_equal(read(fd, image, IMAGE_BYTES), IMAGE_BYTES);
	close(fd);
	assert_memory_equal(image, model, IMAGE_BYTES);
}

struct vdrv_used wait_used(unsigned q)
{
	uint64_t end = vio_now_ns() + 10000000000ull;
	struct vdrv_used used = { 0 };

	while (!vdrv_used(&d, q, &used)) {
		assert_true(vio_now_ns() < end);
		vio_loop_iterate(loop, 10);
	}
	return used;
}

void iterate(int n)
{
	while (n-- > 0)
		vio_loop_iterate(loop, 2);
}

struct request make_req(uint32_t type, uint64_t sector, uint32_t len, bool in)
{
	struct request r = {
		.hdr = vdrv_alloc(&d, 16, 8),
		.data = vdrv_alloc(&d, len + 16, 8),
		.status = vdrv_alloc(&d, 1, 1),
		.len = len,
		.in = in,
	};
	struct virtio_blk_outhdr hdr = {
		.type = htole32(type),
		.sector = htole64(sector),
	};

	memcpy(vdrv_ptr(&d, r.hdr, 16), &hdr, 16);
	memset(vdrv_ptr(&d, r.data, len), 0xdd, len);
	*(uint8_t *)vdrv_ptr(&d, r.status, 1) = NO_STATUS;
	return r;
}

uint8_t *req_data(const struct request *r)
{
	return vdrv_ptr(&d, r->data, r->len);
}

uint8_t req_status(const struct request *r)
{
	return *(uint8_t *)vdrv_ptr(&d, r->status, 1);
}

uint16_t add_req(unsigned q, const struct request *r)
{
	struct vdrv_buf bufs[3] = { { r->hdr, 16, VDRV_R } };
	unsigned n = 1;

	if (r->len)
		bufs[n++] = (struct vdrv_buf){ r->data, r->len,
					       r->in ? VDRV_W : VDRV_R };
	bufs[n++] = (struct vdrv_buf){ r->status, 1, VDRV_W };
	return vdrv_add(&d, q, bufs, n);
}

uint8_t do_req(const struct request *r, uint32_t *ret_used)
{
	struct vdrv_used used;
	uint16_t head = add_req(0, r);

	vdrv_kick(&d, 0);
	used = wait_used(0);
	assert_int_equal(used.id, head);
	if (ret_used)
		*ret_used = used.len;
	return req_status(r);
}

uint8_t do_simple(uint32_t type, uint64_t sector, uint32_t len, bool in)
{
	struct request r = make_req(type, sector, len, in);

	return do_req(&r, NULL);
}

uint8_t do_write(uint64_t sector, uint32_t len)
{
	struct request r = make_req(VIRTIO_BLK_T_OUT, sector, len, false);

	return do_req(&r, NULL);
}

struct request make_segs(uint32_t type, const struct seg *segs, unsigned nr)
{
	struct request r = make_req(type, 0, nr * 16, false);

	for (unsigned i = 0; i < nr; i++) {
		struct virtio_blk_discard_write_zeroes s = {
			.sector = htole64(segs[i].sector),
			.num_sectors = htole32(segs[i].nr_sectors),
			.flags = htole32(segs[i].flags),
		};

		memcpy(req_data(&r) + i * 16, &s, 16);
	}
	return r;
}

uint8_t do_seg(uint32_t type, uint64_t sector, uint32_t nr_sectors,
	       uint32_t flags)
{
	struct seg seg = { sector, nr_sectors, flags };
	struct request r = make_segs(type, &seg, 1);

	return do_req(&r, NULL);
}

void wait_idle(void)
{
	uint64_t end = vio_now_ns() + 10000000000ull;

	while (!pci_is_idle(&d.pi)) {
		assert_true(vio_now_ns() < end);
		vio_loop_iterate(loop, 10);
	}
}

struct request start_slow_read(enum vdrv_mode mode, uint32_t len)
{
	struct request r;

	start(mode, "", ALL_FEATURES);
	FAULT_SET(no_cache, true);
	FAULT_SET(hang, true);
	r = make_req(VIRTIO_BLK_T_IN, 0, len, true);
	add_req(0, &r);
	vdrv_kick(&d, 0);
	iterate(5);
	return r;
}

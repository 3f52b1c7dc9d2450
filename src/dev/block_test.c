/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The block device, as a driver sees it: docs/spec/conformance.md section 8 and
 * its rows of docs/spec/hostile.md, with io_uring and again with io_uring
 * refused.
 */
#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <linux/pci_regs.h>
#include <linux/virtio_blk.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <viodev/device.h>
#include <viodev/loop.h>

#include "base/le.h"
#include "base/util.h"
#include "core/core.h"
#include "disk_fault.h"
#include "dev/devices.h"
#include "process.h"
#include "vdrv.h"

#include <cmocka.h>

#define KIB           1024u
#define IMAGE_BYTES   (1024u * KIB)
#define IMAGE_SECTORS (IMAGE_BYTES / 512)

#define BIT(f)       VI_BIT(VIRTIO_BLK_F_##f)
#define ALL_FEATURES (~0ull)
#define NEEDS_RESET  VIRTIO_CONFIG_STATUS_NEEDS_RESET
#define NO_STATUS    0xee /* what the status byte holds before */
#define T_FLUSH_OUT  5

static bool threads; /* which engine this run uses */

/*
 * --- A device and its driver ---
 */

static struct vdrv d;
static struct vio_loop *loop;
static struct vdev *dev;
static char path[128];
static uint8_t model[IMAGE_BYTES]; /* what the image should hold */

static void make_image(void)
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

/* While the driver waits for a reset to end. */
static void on_idle(void *arg)
{
	vio_loop_iterate(loop, 2);
}

/* Only the device: the driver has not started. */
static void create(enum vdrv_mode mode, const char *options)
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

static void start(enum vdrv_mode mode, const char *options, uint64_t features)
{
	create(mode, options);
	assert_true(vdrv_start(&d, features, 1));
}

static void destroy(void)
{
	if (!dev)
		return;
	vdev_destroy(dev);
	vdrv_fini(&d);
	unlink(path);
	dev = NULL;
}

static int setup(void **state)
{
	memset(&disk_fault, 0, sizeof(disk_fault));
	return vio_loop_create(&loop);
}

static int teardown(void **state)
{
	FAULT_SET(hang, false);
	destroy();
	memset(&disk_fault, 0, sizeof(disk_fault));
	vio_loop_destroy(loop);
	return 0;
}

static void assert_image_is_model(void)
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

/* Wait for the next used entry of @q. */
static struct vdrv_used wait_used(unsigned q)
{
	uint64_t end = vio_now_ns() + 10000000000ull;
	struct vdrv_used used = { 0 };

	while (!vdrv_used(&d, q, &used)) {
		assert_true(vio_now_ns() < end);
		vio_loop_iterate(loop, 10);
	}
	return used;
}

static void iterate(int n)
{
	while (n-- > 0)
		vio_loop_iterate(loop, 2);
}

/* A request in guest memory. */
struct request {
	uint64_t hdr, data, status; /* guest addresses */
	uint32_t len;               /* of the data */
	bool in;                    /* the device writes the data */
	bool no_data;
};

static struct request make_req(uint32_t type, uint64_t sector, uint32_t len,
			       bool in)
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

static uint8_t *req_data(const struct request *r)
{
	return vdrv_ptr(&d, r->data, r->len);
}

static uint8_t req_status(const struct request *r)
{
	return *(uint8_t *)vdrv_ptr(&d, r->status, 1);
}

/* Make it available, divided like drivers do. */
static uint16_t add_req(unsigned q, const struct request *r)
{
	struct vdrv_buf bufs[3] = { { r->hdr, 16, VDRV_R } };
	unsigned n = 1;

	if (r->len)
		bufs[n++] = (struct vdrv_buf){ r->data, r->len,
					       r->in ? VDRV_W : VDRV_R };
	bufs[n++] = (struct vdrv_buf){ r->status, 1, VDRV_W };
	return vdrv_add(&d, q, bufs, n);
}

/* Execute it: returns its status. */
static uint8_t do_req(const struct request *r, uint32_t *ret_used)
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

static uint8_t do_simple(uint32_t type, uint64_t sector, uint32_t len, bool in)
{
	struct request r = make_req(type, sector, len, in);

	return do_req(&r, NULL);
}

static uint8_t do_write(uint64_t sector, uint32_t len)
{
	struct request r = make_req(VIRTIO_BLK_T_OUT, sector, len, false);

	return do_req(&r, NULL);
}

struct seg {
	uint64_t sector;
	uint32_t nr_sectors, flags;
};

static struct request make_segs(uint32_t type, const struct seg *segs,
				unsigned nr)
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

static uint8_t do_seg(uint32_t type, uint64_t sector, uint32_t nr_sectors,
		      uint32_t flags)
{
	struct seg seg = { sector, nr_sectors, flags };
	struct request r = make_segs(type, &seg, 1);

	return do_req(&r, NULL);
}

/*
 * hostile D34, S8: the header is copied once. A thread turns a read beyond the
 * end into one of sector 0 and back while it is served: each is handled as one
 * or the other, never checked as the first and executed as the second.
 */
struct flipper {
	uint64_t *sector;
	bool stop;
};

static void *flip(void *arg)
{
	struct flipper *f = arg;

	while (!__atomic_load_n(&f->stop, __ATOMIC_RELAXED)) {
		__atomic_store_n(f->sector, htole64(1ull << 50),
				 __ATOMIC_RELAXED);
		__atomic_store_n(f->sector, 0, __ATOMIC_RELAXED);
	}
	return NULL;
}

static void test_header_flips(void **state)
{
	struct request r;
	struct flipper f = { 0 };
	uint64_t end = vio_now_ns() + 200000000ull;
	unsigned nr[2] = { 0 };
	pthread_t thread;

	start(VDRV_MODERN, "", ALL_FEATURES);
	r = make_req(VIRTIO_BLK_T_IN, 0, 512, true);
	f.sector = vdrv_ptr(&d, r.hdr + 8, 8);
	assert_int_equal(pthread_create(&thread, NULL, flip, &f), 0);
	while (vio_now_ns() < end) {
		uint32_t used;
		uint8_t status = do_req(&r, &used);

		assert_true(status == VIRTIO_BLK_S_OK ||
			    status == VIRTIO_BLK_S_IOERR);
		if (status == VIRTIO_BLK_S_OK)
			assert_memory_equal(req_data(&r), model, 512);
		nr[status]++;
	}
	__atomic_store_n(&f.stop, true, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	assert_true(nr[0] + nr[1] > 10);
	assert_image_is_model();
}

/*
 * --- Features and configuration ---
 */

/*
 * BLK-01, BLK-02, BLK-15 (no LIFETIME), BLK-Z01 and hostile F12: the feature
 * table over kinds of images.
 */
static void test_features(void **state)
{
	const uint64_t always = BIT(SIZE_MAX) | BIT(SEG_MAX) | BIT(GEOMETRY) |
				BIT(BLK_SIZE) | BIT(FLUSH) | BIT(TOPOLOGY) |
				BIT(CONFIG_WCE);
	static const struct {
		const char *options;
		uint64_t more;
	} rows[] = {
		{ "", BIT(DISCARD) | BIT(WRITE_ZEROES) },
		{ ",discard=off", BIT(WRITE_ZEROES) },
		{ ",ro=on", BIT(RO) },
		{ ",ro=on,discard=on", BIT(RO) },
		{ ",queues=2", BIT(DISCARD) | BIT(WRITE_ZEROES) | BIT(MQ) },
		{ ",cache=writethrough", BIT(DISCARD) | BIT(WRITE_ZEROES) },
		{ ",cache=direct", BIT(DISCARD) | BIT(WRITE_ZEROES) },
	};

	for (size_t i = 0; i < 2 * ARRAY_LEN(rows); i++) {
		enum vdrv_mode mode = i & 1 ? VDRV_LEGACY : VDRV_MODERN;
		uint64_t offer;

		create(mode, rows[i / 2].options);
		vdrv_probe(&d);
		offer = vdrv_offer(&d) & 0xffffff; /* the device's own bits */
		assert_int_equal(offer, always | rows[i / 2].more);
		destroy();
	}
}

/* The fields at the offsets of conformance.md 8.1; BLK-04, BLK-L01, K15. */
static void test_config(void **state)
{
	static const struct {
		const char *options;
		unsigned off;
		int size;
		uint32_t val;
	} rows[] = {
		{ "", 0, 4, IMAGE_SECTORS },
		{ "", 4, 4, 0 },
		{ "", 8, 4, 1 << 20 },
		{ "", 12, 4, 62 }, /* hostile K15: queue-size - 2 */
		{ "", 16, 2, IMAGE_SECTORS / (16 * 63) },
		{ "", 18, 1, 16 },
		{ "", 19, 1, 63 },
		{ "", 20, 4, 512 },
		{ ",block-size=4096", 20, 4, 4096 },
		{ ",block-size=4K", 24, 1, 0 },
		{ ",physical-block-size=4K", 24, 1, 3 },
		{ ",physical-block-size=64K", 24, 1, 7 },
		{ ",block-size=1K,physical-block-size=8K", 24, 1, 3 },
		{ ",physical-block-size=4K", 26, 2, 8 },
		{ "", 25, 1, 0 },
		{ "", 32, 1, 1 },
		{ ",cache=writethrough", 32, 1, 0 },
		{ ",cache=direct", 32, 1, 1 },
		{ "", 33, 1, 0 }, /* BLK-04 unused0 */
		{ "", 34, 2, 1 },
		{ ",queues=5", 34, 2, 5 },
		{ "", 36, 4, 1 << 21 },
		{ "", 40, 4, 16 },
		{ ",physical-block-size=4K", 44, 4, 8 },
		{ "", 48, 4, 1 << 17 },
		{ "", 52, 4, 16 },
		{ "", 56, 1, 1 },
		{ ",discard=off", 56, 1, 0 }, /* BLK-11 */
		{ "", 57, 1, 0 },             /* BLK-04 unused1 */
		{ "", 58, 2, 0 },
		{ "", 60, 4, 0 },
		{ "", 92, 4, 0 }, /* not zoned */
	};

	for (size_t i = 0; i < 2 * ARRAY_LEN(rows); i++) {
		enum vdrv_mode mode = i & 1 ? VDRV_LEGACY : VDRV_MODERN;

		create(mode, rows[i / 2].options);
		vdrv_probe(&d);
		assert_int_equal(
			vdrv_cfg_read(&d, rows[i / 2].off, rows[i / 2].size),
			rows[i / 2].val);
		destroy();
	}
}

/* Only `writeback` can be written; every width at every offset is survived. */
static void test_config_writes(void **state)
{
	start(VDRV_MODERN, "", ALL_FEATURES);
	for (unsigned off = 0; off < 96; off++) {
		for (int size = 1; size <= 4; size *= 2) {
			if (off % (unsigned)size)
				continue;
			vdrv_cfg_write(&d, off, size, 0xffffffff);
			vdrv_cfg_write(&d, off, size, 0x01010101);
		}
	}
	assert_int_equal(vdrv_cfg_read(&d, 0, 4), IMAGE_SECTORS);
	assert_int_equal(vdrv_cfg_read(&d, 12, 4), 62);
	assert_int_equal(vdrv_cfg_read(&d, 32, 1), 1);
	assert_int_equal(vdrv_cfg_read(&d, 33, 1), 0);
	assert_int_equal(do_write(0, 512), VIRTIO_BLK_S_OK);
}

/* hostile K15: also after the driver shrinks the queue. */
static void test_seg_max_of_small_queue(void **state)
{
	create(VDRV_MODERN, "");
	vdrv_probe(&d);
	vdrv_reset(&d);
	assert_true(vdrv_negotiate(&d, vdrv_offer(&d)));
	assert_true(vdrv_queue_setup(&d, 0, 16));
	assert_int_equal(vdrv_cfg_read(&d, 12, 4), 14);
	vdrv_reset(&d);
	assert_int_equal(vdrv_cfg_read(&d, 12, 4), 62);
}

static void test_bad_options(void **state)
{
	static const struct {
		const char *options, *says;
	} rows[] = {
		{ ",block-size=1000", "block-size=1000: must be a power" },
		{ ",physical-block-size=3K", "must be a power of two" },
		{ ",block-size=4K,physical-block-size=512", "smaller than" },
		{ ",serial=123456789012345678901", "longer than 20" },
		{ ",queue-size=2", "must be from 4 to 1024" },
		{ ",queue-size=2048", "must be from 4 to 1024" },
		{ ",queues=17", "queues=17" },
		{ ",path=/nonexistent", "path" },
	};

	make_image();
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		char text[256], why[256] = "";

		vdrv_init(&d, VDRV_MODERN);
		snprintf(text, sizeof(text), "block,path=%s%s", path,
			 rows[i].options);
		assert_true(vdev_new(text, &d.pi, loop, &dev, why,
				     sizeof(why)) < 0);
		if (!strstr(why, rows[i].says))
			fail_msg("%s: %s", rows[i].options, why);
		vdrv_fini(&d);
	}
	unlink(path);
}

/* One open image is locked against a second writer. */
static void test_second_writer(void **state)
{
	char text[256], why[256] = "";
	struct vdev *second;
	struct vdrv other;

	start(VDRV_MODERN, "", ALL_FEATURES);
	vdrv_init(&other, VDRV_MODERN);
	snprintf(text, sizeof(text), "block,path=%s", path);
	assert_int_equal(
		vdev_new(text, &other.pi, loop, &second, why, sizeof(why)),
		-EBUSY);
	assert_non_null(strstr(why, path));
	assert_non_null(strstr(why, "in use"));
	vdrv_fini(&other);
}

/*
 * --- Framing ---
 */

#define MAX_BUFS 40

/* Cut @len bytes at @gpa into pieces. */
static unsigned cut(struct vdrv_buf *bufs, uint64_t gpa, uint32_t len,
		    uint32_t piece, unsigned flags)
{
	unsigned n = 0;

	for (; len > 0; n++) {
		uint32_t l = len < piece ? len : piece;

		bufs[n] = (struct vdrv_buf){ gpa, l, flags };
		gpa += l;
		len -= l;
	}
	return n;
}

/*
 * SPLIT-02, BLK-16, BLK-20, BLK-L06, hostile K16: the header in pieces of one
 * byte, header and data in one buffer, the status joined to the data, odd
 * pieces; direct and in an indirect table; read and write.
 */
static void do_framing(uint32_t hdr_piece, uint32_t data_piece, bool write,
		       bool indirect)
{
	const uint32_t type = write ? VIRTIO_BLK_T_OUT : VIRTIO_BLK_T_IN;
	const uint32_t len = 1024;
	uint64_t mem = vdrv_alloc(&d, 16 + len + 1, 8);
	struct request r = make_req(type, 8, 0, false);
	struct vdrv_buf bufs[MAX_BUFS];
	struct vdrv_used used;
	uint8_t *data = vdrv_ptr(&d, mem + 16, len + 1);
	unsigned n;

	memcpy(vdrv_ptr(&d, mem, 16), vdrv_ptr(&d, r.hdr, 16), 16);
	memset(data, 0xab, len);
	data[len] = NO_STATUS;
	if (write) {
		/* Header and data, then the status alone. */
		n = cut(bufs, mem, 16, hdr_piece, VDRV_R);
		if (hdr_piece == 16) { /* joined */
			bufs[0].len += data_piece;
			n += cut(bufs + 1, mem + 16 + data_piece,
				 len - data_piece, data_piece, VDRV_R);
		} else {
			n += cut(bufs + n, mem + 16, len, data_piece, VDRV_R);
		}
		bufs[n++] = (struct vdrv_buf){ mem + 16 + len, 1, VDRV_W };
		memset(model + 8 * 512, 0xab, len);
	} else {
		n = cut(bufs, mem, 16, hdr_piece, VDRV_R);
		/* The status is the last byte of the last piece. */
		n += cut(bufs + n, mem + 16, len + 1, data_piece, VDRV_W);
	}
	if (indirect)
		vdrv_add_indirect(&d, 0, bufs, n);
	else
		vdrv_add(&d, 0, bufs, n);
	vdrv_kick(&d, 0);
	used = wait_used(0);
	assert_int_equal(data[len], VIRTIO_BLK_S_OK);
	assert_int_equal(used.len, write ? 1 : len + 1);
	assert_memory_equal(data, model + 8 * 512, len);
}

static void test_framing(void **state)
{
	static const uint32_t hdr_pieces[] = { 1, 3, 15, 16 };
	static const uint32_t data_pieces[] = { 1024, 1025, 512, 511, 100, 51 };

	for (int mode = VDRV_MODERN; mode <= VDRV_LEGACY; mode++) {
		start((enum vdrv_mode)mode, "", ALL_FEATURES);
		for (size_t i = 0;
		     i < ARRAY_LEN(hdr_pieces) * ARRAY_LEN(data_pieces) * 4;
		     i++) {
			uint32_t data =
				data_pieces[i / 4 % ARRAY_LEN(data_pieces)];

			if (data > 1024 && !(i & 1))
				data = 1024;
			do_framing(hdr_pieces[i / 4 / ARRAY_LEN(data_pieces)],
				   data, i & 2 && data <= 1024, i & 1);
		}
		assert_image_is_model();
		destroy();
	}
}

/* hostile K16, BLK-23: headers of every length, status in reach. */
static void test_header_lengths(void **state)
{
	static const uint32_t lens[] = { 1, 8, 15, 16, 17, 65536 };

	start(VDRV_MODERN, "", ALL_FEATURES);
	for (size_t i = 0; i < ARRAY_LEN(lens); i++) {
		struct request r = make_req(VIRTIO_BLK_T_IN, 0, 512, true);
		uint64_t hdr = vdrv_alloc(&d, lens[i], 8);
		struct vdrv_buf bufs[] = {
			{ hdr, lens[i], VDRV_R },
			{ r.data, 512, VDRV_W },
			{ r.status, 1, VDRV_W },
		};
		struct vdrv_used used;

		memset(vdrv_ptr(&d, hdr, lens[i]), 0, lens[i]);
		vdrv_add(&d, 0, bufs, 3);
		vdrv_kick(&d, 0);
		used = wait_used(0);
		assert_int_equal(req_status(&r), lens[i] == 16 ?
							 VIRTIO_BLK_S_OK :
							 VIRTIO_BLK_S_IOERR);
		assert_int_equal(used.len, lens[i] == 16 ? 513 : 0);
	}
}

/* hostile S15a, Q7: zero-length buffers do not move the status. */
static void test_empty_buffers(void **state)
{
	start(VDRV_MODERN, "", ALL_FEATURES);
	for (int with_status = 0; with_status < 2; with_status++) {
		struct request r = make_req(VIRTIO_BLK_T_IN, 0, 512, true);
		uint8_t *data = vdrv_ptr(&d, r.data - 8, 512 + 16);
		struct vdrv_buf bufs[] = {
			{ r.hdr, 16, VDRV_R },
			{ r.data, 0, VDRV_W },
			{ r.data, 512 + (unsigned)with_status, VDRV_W },
			{ r.data, 0, VDRV_W },
		};
		uint8_t before = data[7];

		vdrv_add(&d, 0, bufs, 4);
		vdrv_kick(&d, 0);
		wait_used(0);
		assert_int_equal(data[7], before);
		assert_int_equal(data[8 + 511 + with_status],
				 with_status ? VIRTIO_BLK_S_OK :
					       VIRTIO_BLK_S_IOERR);
	}
	/* All buffers empty: completed, or an error; not for ever. */
	vdrv_add(&d, 0,
		 (struct vdrv_buf[]){ { VDRV_MEM_BASE, 0, VDRV_R },
				      { VDRV_MEM_BASE, 0, VDRV_W } },
		 2);
	vdrv_kick(&d, 0);
	iterate(3);
}

/* hostile S14: long chains, direct and indirect, succeed or fail. */
static void test_long_chains(void **state)
{
	static const unsigned lens[] = { 2, 3, 33, 64, 65, 129, 257, 272, 513 };

	start(VDRV_MODERN, "", ALL_FEATURES);
	for (size_t i = 0; i < 2 * ARRAY_LEN(lens); i++) {
		unsigned n = lens[i / 2], nr_data = n - 2;
		bool indirect = i & 1, served = n <= 272;
		struct request r = make_req(VIRTIO_BLK_T_IN, 0, 512 * n, true);
		struct vdrv_buf *bufs = calloc(n, sizeof(*bufs));
		struct vdrv_used used;

		bufs[0] = (struct vdrv_buf){ r.hdr, 16, VDRV_R };
		cut(bufs + 1, r.data, nr_data * 512, 512, VDRV_W);
		bufs[n - 1] = (struct vdrv_buf){ r.status, 1, VDRV_W };
		if (indirect || n <= 64) {
			if (indirect)
				vdrv_add_indirect(&d, 0, bufs, n);
			else
				vdrv_add(&d, 0, bufs, n);
			vdrv_kick(&d, 0);
			iterate(2);
			if (served) {
				used = wait_used(0);
				assert_int_equal(req_status(&r),
						 VIRTIO_BLK_S_OK);
				assert_int_equal(used.len, nr_data * 512 + 1);
				assert_memory_equal(req_data(&r), model,
						    nr_data * 512);
			} else {
				assert_true(vdrv_status(&d) & NEEDS_RESET);
				assert_true(vdrv_start(&d, ALL_FEATURES, 1));
			}
		}
		free(bufs);
	}
	assert_int_equal(do_write(0, 512), VIRTIO_BLK_S_OK);
}

/* BLK-23, hostile S15b: no writable byte for the status. */
static void test_no_status_byte(void **state)
{
	for (int mode = VDRV_MODERN; mode <= VDRV_LEGACY; mode++) {
		struct vdrv_used used;
		struct request r;

		start((enum vdrv_mode)mode, "", ALL_FEATURES);
		r = make_req(VIRTIO_BLK_T_OUT, 0, 512, false);
		vdrv_add(&d, 0,
			 (struct vdrv_buf[]){ { r.hdr, 16, VDRV_R },
					      { r.data, 512, VDRV_R } },
			 2);
		vdrv_kick(&d, 0);
		iterate(3);
		assert_false(vdrv_used(&d, 0, &used));
		if (mode == VDRV_MODERN)
			assert_true(vdrv_status(&d) & NEEDS_RESET);
		assert_image_is_model();
		/* It works again after a reset. */
		assert_true(vdrv_start(&d, ALL_FEATURES, 1));
		r = make_req(VIRTIO_BLK_T_IN, 0, 512, true);
		assert_int_equal(do_req(&r, NULL), VIRTIO_BLK_S_OK);
		destroy();
	}
}

/*
 * --- Requests ---
 */

enum { IN = 1, OUT = 0 };
enum {
	OK = VIRTIO_BLK_S_OK,
	IOERR = VIRTIO_BLK_S_IOERR,
	UNSUPP = VIRTIO_BLK_S_UNSUPP
};

struct request_row {
	const char *what;
	uint32_t type;
	uint64_t sector;
	uint32_t len;
	int in;
	uint8_t status;
	uint32_t used;
};

/* None of these changes the image. Legacy too: BLK-L02. */
static const struct request_row request_rows[] = {
	/* BLK-16, BLK-20, hostile S15h */
	{ "BLK-16 read", VIRTIO_BLK_T_IN, 0, 512, IN, OK, 513 },
	{ "BLK-16 read", VIRTIO_BLK_T_IN, 2, 4096, IN, OK, 4097 },
	{ "BLK-20 read nothing", VIRTIO_BLK_T_IN, 2, 0, IN, OK, 1 },
	{ "BLK-20 flush", VIRTIO_BLK_T_FLUSH, 0, 0, OUT, OK, 1 },
	/* BLK-21, hostile S15f */
	{ "BLK-21 last", VIRTIO_BLK_T_IN, IMAGE_SECTORS - 1, 512, IN, OK, 513 },
	{ "BLK-21 crosses", VIRTIO_BLK_T_IN, IMAGE_SECTORS - 1, 1024, IN, IOERR,
	  0 },
	{ "BLK-21 beyond", VIRTIO_BLK_T_IN, IMAGE_SECTORS, 512, IN, IOERR, 0 },
	{ "BLK-21 2^55", VIRTIO_BLK_T_IN, 1ull << 55, 512, IN, IOERR, 0 },
	{ "BLK-21 wraps", VIRTIO_BLK_T_IN, UINT64_MAX, 512, IN, IOERR, 0 },
	{ "BLK-21 write crosses", VIRTIO_BLK_T_OUT, IMAGE_SECTORS - 1, 1024,
	  OUT, IOERR, 1 },
	{ "BLK-21 write beyond", VIRTIO_BLK_T_OUT, IMAGE_SECTORS, 512, OUT,
	  IOERR, 1 },
	{ "hostile S15f 2^55", VIRTIO_BLK_T_OUT, 1ull << 55, 512, OUT, IOERR,
	  1 },
	{ "hostile S15f wraps", VIRTIO_BLK_T_OUT, UINT64_MAX - 1, 2048, OUT,
	  IOERR, 1 },
	/* BLK-22, hostile Q2 */
	{ "BLK-22 read 1", VIRTIO_BLK_T_IN, 0, 1, IN, IOERR, 0 },
	{ "BLK-22 read 511", VIRTIO_BLK_T_IN, 0, 511, IN, IOERR, 0 },
	{ "BLK-22 read 513", VIRTIO_BLK_T_IN, 0, 513, IN, IOERR, 0 },
	{ "hostile Q2 write 1", VIRTIO_BLK_T_OUT, 0, 1, OUT, IOERR, 1 },
	{ "hostile Q2 write 511", VIRTIO_BLK_T_OUT, 0, 511, OUT, IOERR, 1 },
	{ "hostile Q2 write 513", VIRTIO_BLK_T_OUT, 0, 513, OUT, IOERR, 1 },
	/* BLK-23, hostile S15e: the wrong direction */
	{ "hostile S15e read", VIRTIO_BLK_T_IN, 0, 512, OUT, IOERR, 1 },
	{ "hostile S15e write", VIRTIO_BLK_T_OUT, 0, 512, IN, IOERR, 0 },
	{ "BLK-23 id", VIRTIO_BLK_T_GET_ID, 0, 20, OUT, IOERR, 1 },
	{ "BLK-23 discard", VIRTIO_BLK_T_DISCARD, 0, 16, IN, IOERR, 0 },
	/* BLK-19, hostile F11 */
	{ "hostile F11 flush sector", VIRTIO_BLK_T_FLUSH, 1, 0, OUT, IOERR, 1 },
	{ "hostile F11 flush data", VIRTIO_BLK_T_FLUSH, 0, 512, OUT, IOERR, 1 },
	{ "hostile F11 flush data", VIRTIO_BLK_T_FLUSH, 0, 512, IN, IOERR, 0 },
	{ "hostile F11 id", VIRTIO_BLK_T_GET_ID, 0, 19, IN, IOERR, 0 },
	{ "hostile F11 id", VIRTIO_BLK_T_GET_ID, 0, 21, IN, IOERR, 0 },
	{ "hostile F11 id", VIRTIO_BLK_T_GET_ID, 0, 0, IN, IOERR, 1 },
	{ "BLK-17 id", VIRTIO_BLK_T_GET_ID, 0, 20, IN, OK, 21 },
	/* BLK-22: partial segments, none, too many */
	{ "BLK-22 seg 15", VIRTIO_BLK_T_DISCARD, 0, 15, OUT, IOERR, 1 },
	{ "BLK-22 seg 17", VIRTIO_BLK_T_DISCARD, 0, 17, OUT, IOERR, 1 },
	{ "BLK-22 seg 0", VIRTIO_BLK_T_WRITE_ZEROES, 0, 0, OUT, IOERR, 1 },
	{ "BLK-22 17 segs", VIRTIO_BLK_T_WRITE_ZEROES, 0, 17 * 16, OUT, IOERR,
	  1 },
	/* BLK-18, BLK-Z04, BLK-L05: unknown types */
	{ "BLK-18 type 6", 6, 0, 0, OUT, UNSUPP, 1 },
	{ "BLK-18 type 9", 9, 0, 512, IN, UNSUPP, 0 },
	{ "BLK-18 type -1", 0xffffffff, 0, 512, OUT, UNSUPP, 1 },
	{ "BLK-L04 barrier", 0x80000001, 0, 512, OUT, UNSUPP, 1 },
	{ "BLK-L05 scsi", VIRTIO_BLK_T_SCSI_CMD, 0, 64, OUT, UNSUPP, 1 },
	{ "BLK-L05 scsi", 3, 0, 64, OUT, UNSUPP, 1 },
	{ "BLK-24 lifetime", 10, 0, 6, IN, UNSUPP, 0 },
	{ "BLK-24 erase", 14, 0, 16, OUT, UNSUPP, 1 },
	{ "BLK-Z04 append", 15, 0, 512, OUT, UNSUPP, 1 },
	{ "BLK-Z04 report", 16, 0, 512, IN, UNSUPP, 0 },
	{ "BLK-Z04 open", 18, 0, 0, OUT, UNSUPP, 1 },
	{ "BLK-Z04 close", 20, 0, 0, OUT, UNSUPP, 1 },
	{ "BLK-Z04 finish", 22, 0, 0, OUT, UNSUPP, 1 },
	{ "BLK-Z04 reset", 24, 0, 0, OUT, UNSUPP, 1 },
	{ "BLK-Z04 reset all", 26, 0, 0, OUT, UNSUPP, 1 },
};

static void check_row(const struct request_row *row)
{
	struct request r = make_req(row->type, row->sector, row->len, row->in);
	uint8_t status;
	uint32_t used;

	status = do_req(&r, &used);
	if (status != row->status || used != row->used)
		fail_msg("%s: status %u, used %u", row->what, status, used);
	/* hostile K10: only the requested data is returned. */
	for (uint32_t i = 0; status != OK && i < row->len; i++)
		assert_int_equal(req_data(&r)[i], 0xdd);
	if (status == OK && row->type == VIRTIO_BLK_T_IN)
		assert_memory_equal(req_data(&r), model + row->sector * 512,
				    row->len);
}

static void test_requests(void **state)
{
	for (int mode = VDRV_MODERN; mode <= VDRV_LEGACY; mode++) {
		start((enum vdrv_mode)mode, "", ALL_FEATURES);
		for (size_t i = 0; i < ARRAY_LEN(request_rows); i++)
			check_row(&request_rows[i]);
		assert_image_is_model();
		assert_int_equal(vdrv_status(&d) & NEEDS_RESET, 0);
		destroy();
	}
}

/* BLK-24: what was not negotiated. */
static void test_not_negotiated(void **state)
{
	start(VDRV_MODERN, "", ~(BIT(DISCARD) | BIT(WRITE_ZEROES)));
	assert_int_equal(do_seg(VIRTIO_BLK_T_DISCARD, 0, 8, 0), UNSUPP);
	assert_int_equal(do_seg(VIRTIO_BLK_T_WRITE_ZEROES, 0, 8, 0), UNSUPP);
	assert_image_is_model();
}

/* BLK-L04: type 5 is a flush only for a legacy driver. */
static void test_flush_out(void **state)
{
	start(VDRV_LEGACY, "", ALL_FEATURES);
	assert_int_equal(do_simple(T_FLUSH_OUT, 0, 0, false), OK);
	destroy();
	start(VDRV_MODERN, "", ALL_FEATURES);
	assert_int_equal(do_simple(T_FLUSH_OUT, 0, 0, false), UNSUPP);
}

/* BLK-07: whether or not RO was accepted. */
static void test_read_only(void **state)
{
	static const uint64_t features[] = { ALL_FEATURES, ~BIT(RO) };

	for (size_t i = 0; i < ARRAY_LEN(features); i++) {
		start(VDRV_MODERN, ",ro=on", features[i]);
		assert_int_equal(do_write(0, 512), IOERR);
		assert_int_equal(do_seg(VIRTIO_BLK_T_DISCARD, 0, 8, 0), IOERR);
		assert_int_equal(do_seg(VIRTIO_BLK_T_WRITE_ZEROES, 0, 8, 0),
				 IOERR);
		assert_int_equal(do_seg(VIRTIO_BLK_T_SECURE_ERASE, 0, 8, 0),
				 IOERR);
		assert_int_equal(do_simple(VIRTIO_BLK_T_FLUSH, 0, 0, false),
				 OK);
		assert_int_equal(do_simple(VIRTIO_BLK_T_IN, 0, 512, true), OK);
		assert_image_is_model();
		destroy();
	}
}

/* BLK-17, hostile S15d. */
static void test_get_id(void **state)
{
	static const struct {
		const char *options;
		char id[21];
	} rows[] = {
		{ ",serial=", "" },
		{ ",serial=disk-7", "disk-7" },
		{ ",serial=12345678901234567890", "12345678901234567890" },
	};
	struct vdrv_buf bufs[60];
	struct request r;

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		start(VDRV_MODERN, rows[i].options, ALL_FEATURES);
		r = make_req(VIRTIO_BLK_T_GET_ID, 0, 20, true);
		assert_int_equal(do_req(&r, NULL), OK);
		assert_memory_equal(req_data(&r), rows[i].id, 20);
		destroy();
	}
	/* With 3.5 GiB of buffers. */
	start(VDRV_MODERN, "", ALL_FEATURES);
	r = make_req(VIRTIO_BLK_T_GET_ID, 0, 20, true);
	assert_int_equal(do_req(&r, NULL), OK);
	assert_int_equal(strspn((char *)req_data(&r), "0123456789abcdef"), 16);
	r = make_req(VIRTIO_BLK_T_GET_ID, 0, 0, true);
	bufs[0] = (struct vdrv_buf){ r.hdr, 16, VDRV_R };
	for (unsigned i = 1; i < 59; i++)
		bufs[i] = (struct vdrv_buf){ VDRV_MEM_BASE, VDRV_MEM_BYTES,
					     VDRV_W };
	bufs[59] = (struct vdrv_buf){ r.status, 1, VDRV_W };
	vdrv_add(&d, 0, bufs, 60);
	vdrv_kick(&d, 0);
	assert_int_equal(wait_used(0).len, 0);
	assert_int_equal(req_status(&r), IOERR);
}

/*
 * --- Discard and write zeroes ---
 */

/* BLK-08, BLK-09, BLK-21, BLK-22, hostile F11: segments that are rejected. */
static void test_bad_segments(void **state)
{
	static const struct {
		uint32_t type;
		struct seg seg;
		uint8_t status;
	} rows[] = {
		{ VIRTIO_BLK_T_DISCARD, { 0, 8, 1 }, UNSUPP }, /* BLK-09 */
		{ VIRTIO_BLK_T_DISCARD, { 0, 8, 2 }, UNSUPP }, /* BLK-08 */
		{ VIRTIO_BLK_T_WRITE_ZEROES, { 0, 8, 2 }, UNSUPP },
		{ VIRTIO_BLK_T_WRITE_ZEROES, { 0, 8, 1u << 31 }, UNSUPP },
		{ VIRTIO_BLK_T_DISCARD, { 0, (1 << 21) + 1, 0 }, IOERR },
		{ VIRTIO_BLK_T_WRITE_ZEROES, { 0, (1 << 17) + 1, 0 }, IOERR },
		{ VIRTIO_BLK_T_WRITE_ZEROES, { 0, UINT32_MAX, 0 }, IOERR },
		{ VIRTIO_BLK_T_DISCARD, { IMAGE_SECTORS - 1, 2, 0 }, IOERR },
		{ VIRTIO_BLK_T_WRITE_ZEROES, { IMAGE_SECTORS, 1, 0 }, IOERR },
		{ VIRTIO_BLK_T_WRITE_ZEROES, { 1ull << 55, 1, 0 }, IOERR },
		{ VIRTIO_BLK_T_DISCARD, { UINT64_MAX, 1, 0 }, IOERR },
		{ VIRTIO_BLK_T_DISCARD, { UINT64_MAX, 2, 0 }, IOERR },
		{ VIRTIO_BLK_T_WRITE_ZEROES, { 8, 0, 0 }, OK }, /* of nothing */
	};

	start(VDRV_MODERN, "", ALL_FEATURES);
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct seg two[2] = { { 0, 8, 0 }, rows[i].seg };
		struct request r;

		assert_int_equal(do_seg(rows[i].type, rows[i].seg.sector,
					rows[i].seg.nr_sectors,
					rows[i].seg.flags),
				 rows[i].status);
		if (rows[i].status == OK)
			continue;
		/* A valid one before it is not executed either. */
		r = make_segs(rows[i].type, two, 2);
		assert_int_equal(do_req(&r, NULL), rows[i].status);
	}
	assert_image_is_model();
}

/* BLK-10, BLK-25: with and without unmap, several segments. */
static void test_write_zeroes(void **state)
{
	static const struct seg segs[] = {
		{ 0, 1, 0 },     { 9, 100, 1 },
		{ 200, 0, 0 },   { IMAGE_SECTORS - 3, 3, 1 },
		{ 300, 301, 0 },
	};
	static const char *const options[] = {
		"",
		",discard=off",
		",cache=direct",
		",cache=writethrough",
	};

	for (size_t i = 0; i < ARRAY_LEN(options); i++) {
		struct request r;
		uint32_t used;

		start(VDRV_MODERN, options[i], ALL_FEATURES);
		r = make_segs(VIRTIO_BLK_T_WRITE_ZEROES, segs, ARRAY_LEN(segs));
		for (size_t k = 0; k < ARRAY_LEN(segs); k++)
			memset(model + segs[k].sector * 512, 0,
			       segs[k].nr_sectors * 512);
		assert_int_equal(do_req(&r, &used), OK);
		assert_int_equal(used, 1);
		assert_image_is_model();
		destroy();
	}
}

/* BLK-11: may_unmap is correct. */
static void test_unmap(void **state)
{
	static const struct {
		const char *options;
		bool frees;
	} rows[] = { { "", true }, { ",discard=off", false } };

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct stat before, after;

		start(VDRV_MODERN, rows[i].options, ALL_FEATURES);
		assert_int_equal(do_simple(VIRTIO_BLK_T_FLUSH, 0, 0, false),
				 OK);
		stat(path, &before);
		assert_int_equal(
			do_seg(VIRTIO_BLK_T_WRITE_ZEROES, 0, IMAGE_SECTORS, 1),
			OK);
		stat(path, &after);
		assert_int_equal(vdrv_cfg_read(&d, 56, 1), rows[i].frees);
		assert_int_equal(after.st_blocks < before.st_blocks / 2,
				 rows[i].frees);
		destroy();
	}
}

static void test_discard(void **state)
{
	struct stat before, after;
	uint32_t used;
	struct request r;

	start(VDRV_MODERN, "", ALL_FEATURES);
	assert_int_equal(do_simple(VIRTIO_BLK_T_FLUSH, 0, 0, false), OK);
	stat(path, &before);
	r = make_segs(
		VIRTIO_BLK_T_DISCARD,
		(struct seg[]){ { 0, IMAGE_SECTORS / 2, 0 },
				{ IMAGE_SECTORS / 2, IMAGE_SECTORS / 2, 0 } },
		2);
	assert_int_equal(do_req(&r, &used), OK);
	assert_int_equal(used, 1);
	stat(path, &after);
	assert_true(after.st_blocks < before.st_blocks / 2);
}

/*
 * --- Durability ---
 */

enum { NO_WRITE = -1 };

/* Turning the cache off flushes it: wait for that. */
static void settle(void)
{
	assert_int_equal(do_simple(VIRTIO_BLK_T_FLUSH, 0, 0, false), OK);
}

/* How often fdatasync() had succeeded when a write appeared in the used ring. */
static unsigned syncs_of_a_write(void)
{
	FAULT_SET(nr_sync, 0);
	assert_int_equal(do_write(0, 512), OK);
	return FAULT_GET(nr_sync);
}

/* BLK-03, BLK-05, BLK-12, BLK-13, hostile F14. */
static void test_write_cache(void **state)
{
	const uint64_t none = ~(BIT(FLUSH) | BIT(CONFIG_WCE));
	static const char wt[] = ",cache=writethrough";
	const struct {
		const char *what, *options;
		uint64_t features;
		int write; /* to `writeback` after negotiation */
		uint8_t reads;
		bool stable;
	} rows[] = {
		{ "flush only", "", ~BIT(CONFIG_WCE), NO_WRITE, 1, false },
		{ "BLK-12, hostile F14", "", none, NO_WRITE, 0, true },
		{ "BLK-05", "", ALL_FEATURES, NO_WRITE, 1, false },
		{ "BLK-05, BLK-13", "", ALL_FEATURES, 0, 0, true },
		{ "BLK-05", "", ALL_FEATURES, 1, 1, false },
		{ "BLK-03", "", ~BIT(FLUSH), NO_WRITE, 0, true },
		{ "BLK-03 then 1", "", ~BIT(FLUSH), 1, 1, false },
		{ "not negotiated", "", ~BIT(CONFIG_WCE), 0, 1, false },
		{ "writethrough", wt, ALL_FEATURES, NO_WRITE, 0, true },
		{ "writethrough", wt, ~BIT(CONFIG_WCE), NO_WRITE, 1, true },
		{ "writethrough", wt, ALL_FEATURES, 1, 1, true },
		{ "direct", ",cache=direct", ALL_FEATURES, NO_WRITE, 1, false },
		{ "direct", ",cache=direct", none, NO_WRITE, 0, true },
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		unsigned syncs;

		start(VDRV_MODERN, rows[i].options, rows[i].features);
		if (rows[i].write != NO_WRITE)
			vdrv_cfg_write(&d, 32, 1, (uint32_t)rows[i].write);
		settle();
		assert_int_equal(vdrv_cfg_read(&d, 32, 1), rows[i].reads);
		syncs = syncs_of_a_write();
		if (syncs != rows[i].stable)
			fail_msg("%s: %u syncs", rows[i].what, syncs);
		/* Write zeroes is a write as well. */
		FAULT_SET(nr_sync, 0);
		assert_int_equal(do_seg(VIRTIO_BLK_T_WRITE_ZEROES, 0, 8, 0),
				 OK);
		assert_int_equal(FAULT_GET(nr_sync), rows[i].stable);
		destroy();
	}
}

/* BLK-L03: a legacy driver's features and status do not change the mode. */
static void test_legacy_write_cache(void **state)
{
	create(VDRV_LEGACY, "");
	vdrv_probe(&d);
	vdrv_reset(&d);
	vdrv_set_status(&d, VIRTIO_CONFIG_STATUS_ACK);
	assert_int_equal(vdrv_cfg_read(&d, 32, 1), 1);
	/* It may be written before the driver has accepted CONFIG_WCE. */
	vdrv_cfg_write(&d, 32, 1, 0);
	assert_int_equal(vdrv_cfg_read(&d, 32, 1), 0);
	vdrv_cfg_write(&d, 32, 1, 1);
	/* CONFIG_WCE without FLUSH. */
	assert_true(vdrv_negotiate(&d, BIT(CONFIG_WCE)));
	assert_int_equal(vdrv_cfg_read(&d, 32, 1), 1);
	assert_true(vdrv_queue_setup(&d, 0, 0));
	vdrv_driver_ok(&d);
	assert_int_equal(vdrv_cfg_read(&d, 32, 1), 1);
	settle();
	assert_int_equal(syncs_of_a_write(), 0);

	/* DRIVER_OK without CONFIG_WCE, and without FLUSH: the exception. */
	assert_true(vdrv_start(&d, 0, 1));
	assert_int_equal(vdrv_cfg_read(&d, 32, 1), 0);
	assert_int_equal(syncs_of_a_write(), 1);
	/* A reset restores what the options say. */
	vdrv_reset(&d);
	assert_int_equal(vdrv_cfg_read(&d, 32, 1), 1);
}

/* BLK-14: the flush is used after fdatasync(), and fails if that fails. */
static void test_flush(void **state)
{
	struct vdrv_used used;
	struct request w, f;

	start(VDRV_MODERN, "", ALL_FEATURES);
	w = make_req(VIRTIO_BLK_T_OUT, 0, 512, false);
	assert_int_equal(do_req(&w, NULL), OK);
	assert_int_equal(FAULT_GET(nr_sync), 0);

	FAULT_SET(hang, true);
	f = make_req(VIRTIO_BLK_T_FLUSH, 0, 0, false);
	add_req(0, &f);
	vdrv_kick(&d, 0);
	iterate(10);
	assert_false(vdrv_used(&d, 0, &used));
	FAULT_SET(hang, false);
	wait_used(0);
	assert_int_equal(FAULT_GET(nr_sync), 1);
	assert_int_equal(req_status(&f), OK);

	FAULT_SET(sync_errno, EIO);
	assert_int_equal(do_simple(VIRTIO_BLK_T_FLUSH, 0, 0, false), IOERR);
	FAULT_SET(sync_errno, 0);
	assert_int_equal(do_simple(VIRTIO_BLK_T_FLUSH, 0, 0, false), IOERR);
}

/* BLK-19: a slow flush does not delay a later read. */
static void test_out_of_order(void **state)
{
	struct request f, r;
	uint16_t head;

	if (!threads)
		skip();
	start(VDRV_MODERN, "", ALL_FEATURES);
	FAULT_SET(hang, true);
	f = make_req(VIRTIO_BLK_T_FLUSH, 0, 0, false);
	r = make_req(VIRTIO_BLK_T_IN, 0, 512, true);
	add_req(0, &f);
	head = add_req(0, &r);
	vdrv_kick(&d, 0);
	assert_int_equal(wait_used(0).id, head);
	assert_int_equal(req_status(&r), OK);
	assert_int_equal(req_status(&f), NO_STATUS);
	FAULT_SET(hang, false);
	wait_used(0);
	assert_int_equal(req_status(&f), OK);
}

/*
 * --- Limits ---
 */

/* Requests pass at the configured rate, and none is lost. */
static void test_limits(void **state)
{
	static const struct {
		const char *options;
		uint32_t len;
		unsigned nr, least_ms;
	} rows[] = {
		{ ",iops=100", 512, 20, 90 },
		{ ",bps=40960", 512, 20, 137 },
		{ ",bps=81920", 16384, 4, 500 }, /* more than a burst each */
		{ ",iops=1000000,bps=1G", 512, 20, 0 },
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		uint64_t begin;

		start(VDRV_MODERN, rows[i].options, ALL_FEATURES);
		for (unsigned k = 0; k < rows[i].nr; k++) {
			struct request r =
				make_req(VIRTIO_BLK_T_IN, 0, rows[i].len, true);

			add_req(0, &r);
		}
		begin = vio_now_ns();
		vdrv_kick(&d, 0);
		for (unsigned k = 0; k < rows[i].nr; k++)
			wait_used(0);
		/* A millisecond's grace: limits start when they are created. */
		assert_true(vio_now_ns() - begin + 1000000 >=
			    rows[i].least_ms * UINT64_C(1000000));
		destroy();
	}
}

/* A reset does not wait for requests that a limit delays. */
static void test_limits_and_reset(void **state)
{
	struct request r;

	start(VDRV_MODERN, ",iops=1", ALL_FEATURES);
	for (unsigned round = 0; round < 3; round++) {
		for (unsigned k = 0; k < 4; k++) {
			r = make_req(VIRTIO_BLK_T_IN, 0, 512, true);
			add_req(0, &r);
		}
		vdrv_kick(&d, 0);
		iterate(1);
		vdrv_reset(&d);
		assert_int_equal(req_status(&r), NO_STATUS);
		assert_true(vdrv_start(&d, ALL_FEATURES, 1));
	}
}

/*
 * --- Host trouble ---
 */

/* hostile F13: the host transfers in pieces, or not at all. */
static void test_short_transfers(void **state)
{
	struct request r;

	if (!threads)
		skip();
	start(VDRV_MODERN, ",werror=report", ALL_FEATURES);
	FAULT_SET(max_bytes, KIB);
	r = make_req(VIRTIO_BLK_T_OUT, 16, 8 * KIB, false);
	memset(req_data(&r), 0x5a, r.len);
	memset(model + 16 * 512, 0x5a, r.len);
	assert_int_equal(do_req(&r, NULL), OK);
	assert_image_is_model();
	r = make_req(VIRTIO_BLK_T_IN, 8, 16 * KIB, true);
	assert_int_equal(do_req(&r, NULL), OK);
	assert_memory_equal(req_data(&r), model + 8 * 512, r.len);

	FAULT_SET(no_cache, true);
	FAULT_SET(no_progress, true);
	assert_int_equal(do_write(0, 512), IOERR);
	assert_int_equal(do_simple(VIRTIO_BLK_T_IN, 0, 512, true), IOERR);
	FAULT_SET(no_progress, false);
	FAULT_SET(write_errno, ENOSPC);
	assert_int_equal(do_write(0, 512), IOERR);
	assert_image_is_model();
}

/* hostile F13, K10: a file that shrank reads as an error, not as old bytes. */
static void test_shrunk_file(void **state)
{
	struct request r;
	uint32_t used;

	start(VDRV_MODERN, "", ALL_FEATURES);
	assert_int_equal(truncate(path, 0), 0);
	r = make_req(VIRTIO_BLK_T_IN, 0, 4 * KIB, true);
	assert_int_equal(do_req(&r, &used), IOERR);
	assert_int_equal(used, 0);
}

/*
 * --- Hostile drivers ---
 */

/* hostile S1, S3: sizes that the device did not offer, or too late. */
static void test_queue_size(void **state)
{
	struct request r;

	create(VDRV_MODERN, "");
	vdrv_probe(&d);
	vdrv_reset(&d);
	assert_true(vdrv_negotiate(&d, vdrv_offer(&d)));
	vdrv_common_write(&d, 0x16, 2, 0);    /* queue_select */
	vdrv_common_write(&d, 0x18, 2, 1024); /* queue_size */
	assert_int_equal(vdrv_common_read(&d, 0x18, 2), 64);
	assert_true(vdrv_queue_setup(&d, 0, 8));
	vdrv_driver_ok(&d);
	vdrv_common_write(&d, 0x16, 2, 0);
	vdrv_common_write(&d, 0x18, 2, 64);
	vdrv_common_write(&d, 0x20, 4, 0x1000); /* queue_desc */
	assert_int_equal(vdrv_common_read(&d, 0x18, 2), 8);
	for (int i = 0; i < 20; i++) {
		r = make_req(VIRTIO_BLK_T_IN, 0, 512, true);
		assert_int_equal(do_req(&r, NULL), OK);
	}

	/* hostile D16, Q21: the state per entry grows with the queue again. */
	assert_true(vdrv_start(&d, ALL_FEATURES, 1));
	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < 21; i++) {
			r = make_req(VIRTIO_BLK_T_IN, 0, 512, true);
			add_req(0, &r);
		}
		vdrv_kick(&d, 0);
		for (int i = 0; i < 21; i++)
			assert_int_equal(wait_used(0).len, 513);
	}
}

/* hostile S15c, Q6, D31: a head that is in flight is offered again. */
static void test_duplicate_head(void **state)
{
	for (int slow = 0; slow <= (int)threads; slow++) {
		struct request r;
		uint16_t head;

		start(VDRV_MODERN, "", ALL_FEATURES);
		FAULT_SET(hang, slow);
		r = make_req(slow ? VIRTIO_BLK_T_FLUSH : VIRTIO_BLK_T_OUT, 0, 0,
			     false);
		head = add_req(0, &r);
		for (int i = 0; i < 40; i++)
			vdrv_avail(&d, 0, head);
		vdrv_kick(&d, 0);
		iterate(5);
		if (slow)
			assert_true(vdrv_status(&d) & NEEDS_RESET);
		FAULT_SET(hang, false);
		iterate(5);
		assert_true(vdrv_start(&d, ALL_FEATURES, 1));
		assert_int_equal(do_write(0, 512), OK);
		destroy();
	}
}

/* Run the loop until nothing is in flight. */
static void wait_idle(void)
{
	uint64_t end = vio_now_ns() + 10000000000ull;

	while (!pci_is_idle(&d.pi)) {
		assert_true(vio_now_ns() < end);
		vio_loop_iterate(loop, 10);
	}
}

/* A disk that hangs, and a read that does not complete. */
static struct request start_slow_read(enum vdrv_mode mode, uint32_t len)
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

/*
 * hostile S15g, RST-01: reset while a read runs. It cannot be cancelled, and
 * the reset does not block: for a modern driver it is complete when the read
 * has ended, and nothing is written from then on.
 */
static void test_reset_in_flight(void **state)
{
	struct request r = start_slow_read(VDRV_MODERN, 64 * KIB);
	struct vdrv_used used;

	assert_int_equal(req_data(&r)[0], 0xdd);
	vdrv_set_status(&d, 0);
	iterate(5);
	assert_true(FAULT_GET(hang));
	assert_int_not_equal(vdrv_status(&d), 0);
	FAULT_SET(hang, false);
	wait_idle();
	assert_int_equal(vdrv_status(&d), 0);
	assert_int_equal(req_status(&r), NO_STATUS);
	assert_false(vdrv_used(&d, 0, &used));

	FAULT_SET(no_cache, false);
	assert_true(vdrv_start(&d, ALL_FEATURES, 1));
	assert_int_equal(do_write(0, 512), OK);
}

/* A driver that cannot see the reset's end still gets its device. */
static void test_reset_impatient(void **state)
{
	struct request old = start_slow_read(VDRV_LEGACY, 512), new;

	for (int i = 0; i < 3; i++) {
		assert_true(vdrv_start(&d, ALL_FEATURES, 1));
		new = make_req(VIRTIO_BLK_T_IN, 0, 512, true);
		add_req(0, &new);
		vdrv_kick(&d, 0);
		iterate(5);
		assert_int_equal(req_status(&new), NO_STATUS);
	}
	FAULT_SET(hang, false);
	while (req_status(&new) == NO_STATUS) {
		iterate(1);
		vdrv_wake(&d);
	}
	assert_int_equal(req_status(&new), OK);
	assert_memory_equal(req_data(&new), model, 512);
	assert_int_equal(req_status(&old), NO_STATUS);
}

/* A broken device does not access guest memory, in flight or not. */
static void test_error_in_flight(void **state)
{
	struct request r = start_slow_read(VDRV_MODERN, 4 * KIB);
	struct request bad = make_req(VIRTIO_BLK_T_OUT, 0, 0, false);

	vdrv_add(&d, 0, (struct vdrv_buf[]){ { bad.hdr, 16, VDRV_R } }, 1);
	vdrv_kick(&d, 0);
	assert_true(vdrv_status(&d) & NEEDS_RESET);
	assert_true(FAULT_GET(hang)); /* has not waited */
	FAULT_SET(hang, false);
	wait_idle();
	assert_int_equal(req_status(&r), NO_STATUS);
}

/*
 * The driver breaks its ring, which is noticed at the end of an iteration,
 * while requests wait for the next one: they never begin.
 */
static void test_error_in_iteration(void **state)
{
	enum { NR_LONG = 6 }; /* an iteration takes two of them */
	struct request r[NR_LONG];
	uint16_t head = 0;

	start(VDRV_MODERN, "", ALL_FEATURES);
	for (unsigned i = 0; i < NR_LONG; i++) {
		r[i] = make_req(VIRTIO_BLK_T_IN, 0, IMAGE_BYTES, true);
		head = add_req(0, &r[i]);
	}
	vdrv_kick(&d, 0);
	for (int i = 0; i < 100; i++)
		vdrv_avail(&d, 0, head);
	iterate(10);
	assert_true(vdrv_status(&d) & NEEDS_RESET);
	wait_idle();
	assert_int_equal(req_data(&r[0])[0], model[0]);
	for (unsigned i = 2; i < NR_LONG; i++) {
		assert_int_equal(req_status(&r[i]), NO_STATUS);
		assert_int_equal(req_data(&r[i])[0], 0xdd);
	}
}

/* On a stop, what is in flight completes, without an error. */
static void test_quiesce(void **state)
{
	struct request r = start_slow_read(VDRV_MODERN, 64 * KIB);
	struct request f = make_req(VIRTIO_BLK_T_FLUSH, 0, 0, false);
	struct vdrv_used used;

	add_req(0, &f);
	vdrv_kick(&d, 0);
	iterate(5);
	pci_quiesce(&d.pi);
	iterate(5);
	assert_false(pci_is_idle(&d.pi));
	FAULT_SET(hang, false);
	wait_idle();
	iterate(2);
	assert_true(vdrv_used(&d, 0, &used) && vdrv_used(&d, 0, &used));
	assert_int_equal(req_status(&f), OK);
	assert_int_equal(req_status(&r), OK);
	assert_memory_equal(req_data(&r), model, r.len);
}

/* BLK-13: turning the cache off flushes it, with no further request. */
static void test_cache_off(void **state)
{
	struct request w;

	start(VDRV_MODERN, "", ALL_FEATURES);
	assert_int_equal(do_write(0, 512), OK);
	assert_int_equal(FAULT_GET(nr_sync), 0);
	vdrv_cfg_write(&d, 32, 1, 0);
	while (FAULT_GET(nr_sync) == 0)
		iterate(1);
	vdrv_cfg_write(&d, 32, 1, 0); /* no change */
	vdrv_cfg_write(&d, 32, 1, 1);
	iterate(5);
	assert_int_equal(FAULT_GET(nr_sync), 1);

	/* A write in flight at that moment gets its own flush. */
	if (!threads)
		return; /* it cannot be made to end after the first flush */
	FAULT_SET(nr_sync, 0);
	FAULT_SET(write_errno, EAGAIN);
	w = make_req(VIRTIO_BLK_T_OUT, 0, 512, false);
	add_req(0, &w);
	vdrv_kick(&d, 0);
	iterate(5);
	vdrv_cfg_write(&d, 32, 1, 0);
	while (FAULT_GET(nr_sync) == 0)
		iterate(1);
	FAULT_SET(write_errno, 0);
	wait_used(0);
	assert_int_equal(req_status(&w), OK);
	assert_int_equal(FAULT_GET(nr_sync), 2);
}

/* A reset does not lose the flush that was promised to the driver. */
static void test_cache_off_reset(void **state)
{
	struct request r = start_slow_read(VDRV_MODERN, 512);

	vdrv_cfg_write(&d, 32, 1, 0);
	vdrv_set_status(&d, 0);
	iterate(5);
	vdrv_set_status(&d, 0); /* forgets the waiting one again */
	assert_int_equal(FAULT_GET(nr_sync), 0);
	FAULT_SET(hang, false);
	while (FAULT_GET(nr_sync) == 0)
		iterate(1);
	assert_int_equal(req_status(&r), NO_STATUS);
}

/*
 * --- Requests that wait ---
 */

static unsigned status_of(const char *key)
{
	struct json_object *status = json_object_new_object(), *val;
	unsigned n;

	vdev_status(dev, status);
	assert_true(json_object_object_get_ex(status, key, &val));
	n = (unsigned)json_object_get_uint64(val);
	json_object_put(status);
	return n;
}

static void resume(void)
{
	char *words[] = { (char *)"resume" };
	struct json_object *reply = json_object_new_object();
	struct opened_files files = { .nr = 0 };
	struct err err;

	assert_int_equal(vdev_ctl(dev, 1, words, &files, reply, &err), 0);
	json_object_put(reply);
}

static void wait_waiting(unsigned nr)
{
	uint64_t end = vio_now_ns() + 10000000000ull;

	while (status_of("waiting") != nr) {
		assert_true(vio_now_ns() < end);
		vio_loop_iterate(loop, 10);
	}
}

/* Nothing completes before `resume`, and then as if nothing had happened. */
static void test_wait(void **state)
{
	struct request r[3];
	struct vdrv_used used;

	start(VDRV_MODERN, ",werror=wait,rerror=wait", ALL_FEATURES);
	FAULT_SET(no_cache, true);
	FAULT_SET(write_errno, EIO);
	FAULT_SET(read_errno, EIO);
	for (unsigned i = 0; i < 3; i++) {
		r[i] = make_req(i ? VIRTIO_BLK_T_IN : VIRTIO_BLK_T_OUT, i, 512,
				i);
		add_req(0, &r[i]);
	}
	memset(model, 0xdd, 512);
	vdrv_kick(&d, 0);
	wait_waiting(3);
	assert_non_null(strstr(d.last_log, "requests wait"));
	resume();
	wait_waiting(3); /* in vain */
	iterate(5);
	assert_false(vdrv_used(&d, 0, &used));
	assert_false(pci_is_idle(&d.pi));
	FAULT_SET(write_errno, 0);
	FAULT_SET(read_errno, 0);
	resume();
	wait_idle();
	iterate(2);
	for (unsigned i = 0; i < 3; i++) {
		assert_true(vdrv_used(&d, 0, &used));
		assert_int_equal(req_status(&r[i]), OK);
		assert_memory_equal(req_data(&r[i]), model + i * 512, 512);
	}
	assert_image_is_model();
}

/* Two writes that fail before and after one that does not. */
static void start_two_that_wait(struct request r[3])
{
	start(VDRV_MODERN, ",werror=wait,rerror=report", ALL_FEATURES);
	FAULT_SET(no_cache, true);
	FAULT_SET(write_errno, EIO);
	for (unsigned i = 0; i < 3; i++) {
		r[i] = make_req(i == 1 ? VIRTIO_BLK_T_IN : VIRTIO_BLK_T_OUT, i,
				512, i == 1);
		add_req(0, &r[i]);
	}
	vdrv_kick(&d, 0);
	wait_waiting(2);
	wait_used(0);
	assert_int_equal(req_status(&r[1]), OK);
}

static void check_two_that_waited(const struct request r[3])
{
	memset(model, 0xdd, 512);
	memset(model + 1024, 0xdd, 512);
	/* Threads end them in any order. */
	wait_used(0);
	wait_used(0);
	assert_int_equal(req_status(&r[0]), OK);
	assert_int_equal(req_status(&r[2]), OK);
	assert_image_is_model();
}

/*
 * A stop does not wait for writes that wait, nor for one that fails during the
 * stop. They are executed when the queue runs again.
 */
static void test_wait_stop(void **state)
{
	struct vqueue_info *vq;
	struct vdrv_used used;
	struct request r[3];

	start_two_that_wait(r);
	vq = &dev->vs->vs_queues[0];
	pci_quiesce(&d.pi);
	assert_true(pci_is_idle(&d.pi));
	assert_int_equal(status_of("waiting"), 0);
	iterate(5);
	assert_false(vdrv_used(&d, 0, &used));
	assert_int_equal(vq->vq_priv->nr_returned, 2);

	/* It runs again just long enough to start them. */
	vq->vq_priv->paused = false;
	pci_kick(&d.pi);
	assert_false(pci_is_idle(&d.pi));
	pci_quiesce(&d.pi);
	wait_idle();
	assert_int_equal(status_of("waiting"), 0);
	assert_int_equal(vq->vq_priv->nr_returned, 2);

	FAULT_SET(write_errno, 0);
	vq->vq_priv->paused = false;
	pci_kick(&d.pi);
	check_two_that_waited(r);
}

/*
 * While writes are logged another host will take the queue over, and must know
 * what is in flight: a request that is not the last one waits.
 */
static void test_wait_stop_logged(void **state)
{
	static uint8_t log[1 << 20];
	struct vqueue_info *vq;
	struct request r[3];

	start_two_that_wait(r);
	vq = &dev->vs->vs_queues[0];
	gm_set_log(&d.gm, log, sizeof(log));
	pci_quiesce(&d.pi);
	wait_waiting(1);
	iterate(5);
	assert_false(pci_is_idle(&d.pi));
	assert_int_equal(vq->vq_priv->nr_returned, 1);
	FAULT_SET(write_errno, 0);
	resume();
	wait_idle();
	vq->vq_priv->paused = false;
	pci_kick(&d.pi);
	check_two_that_waited(r);
	gm_set_log(&d.gm, NULL, 0);
}

static void no_owner(void *arg, const struct gm_region *r)
{
}

/* Memory that waiting writes use is removed at once. */
static void test_wait_memory_gone(void **state)
{
	struct request r[3];

	start_two_that_wait(r);
	assert_int_equal(gm_remove(&d.gm, (gpa_t){ VDRV_MEM_BASE },
				   VDRV_MEM_BYTES, no_owner, NULL),
			 1);
	pci_give_back(&d.pi);
	assert_int_equal(status_of("waiting"), 0);
	assert_int_equal(gm_reap(&d.gm, no_owner, NULL), 0);
	FAULT_SET(write_errno, 0);
	assert_int_equal(gm_add(&d.gm, (gpa_t){ VDRV_MEM_BASE }, VDRV_MEM_BYTES,
				d.mem, GM_READ | GM_WRITE),
			 0);
	pci_kick(&d.pi);
	check_two_that_waited(r);
}

/* Bus Master is cleared: no request waits to use DMA later. */
static void test_wait_bus(void **state)
{
	struct request r[3];

	start_two_that_wait(r);
	pci_cfg_write(&d.pi, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	assert_true(pci_is_idle(&d.pi));
	FAULT_SET(write_errno, 0);
	resume();
	iterate(5);
	assert_int_equal(req_status(&r[0]), NO_STATUS);
	pci_cfg_write(&d.pi, PCI_COMMAND, 2,
		      PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	check_two_that_waited(r);
}

/* A reset forgets waiting requests; so does destroying the device. */
static void test_wait_reset(void **state)
{
	struct request w;

	start(VDRV_MODERN, ",werror=wait", ALL_FEATURES);
	for (int i = 0; i < 2; i++) {
		FAULT_SET(write_errno, EIO);
		w = make_req(VIRTIO_BLK_T_OUT, 0, 512, false);
		add_req(0, &w);
		vdrv_kick(&d, 0);
		wait_waiting(1);
		vdrv_set_status(&d, 0);
		assert_int_equal(status_of("waiting"), 0);
		wait_idle();
		FAULT_SET(write_errno, 0);
		resume();
		assert_int_equal(req_status(&w), NO_STATUS);
		assert_image_is_model();
		assert_true(vdrv_start(&d, ALL_FEATURES, 1));
	}
	FAULT_SET(write_errno, EIO);
	add_req(0, &w);
	vdrv_kick(&d, 0);
	wait_waiting(1);
}

/* The options determine what happens. */
static void test_wait_which(void **state)
{
	static const struct {
		const char *options;
		uint32_t type;
		int error;
		bool waits;
	} rows[] = {
		{ "", VIRTIO_BLK_T_OUT, ENOSPC, true },
		{ "", VIRTIO_BLK_T_OUT, EIO, false },
		{ "", VIRTIO_BLK_T_IN, EIO, false },
		{ ",werror=report", VIRTIO_BLK_T_OUT, ENOSPC, false },
		{ ",werror=wait", VIRTIO_BLK_T_OUT, EIO, true },
		{ ",rerror=wait", VIRTIO_BLK_T_IN, EIO, true },
		{ ",rerror=wait", VIRTIO_BLK_T_OUT, EIO, false },
	};

	if (!threads)
		skip(); /* the errors cannot be produced there */
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct request r;

		start(VDRV_MODERN, rows[i].options, ALL_FEATURES);
		FAULT_SET(no_cache, true);
		FAULT_SET(write_errno, rows[i].error);
		FAULT_SET(read_errno, rows[i].error);
		r = make_req(rows[i].type, 0, 512,
			     rows[i].type == VIRTIO_BLK_T_IN);
		add_req(0, &r);
		vdrv_kick(&d, 0);
		if (rows[i].waits) {
			wait_waiting(1);
		} else {
			wait_used(0);
			assert_int_equal(req_status(&r), IOERR);
		}
		destroy();
	}
}

/*
 * --- Growth ---
 */

#define FULL_QUEUES 16u
#define FULL_SIZE   1024u
#define FULL_PIECES 16u     /* of a sector's buffer */
#ifdef __SANITIZE_ADDRESS__ /* which has its own overhead */
#define FULL_BYTES (5u << 20)
#else
#define FULL_BYTES (4u << 20)
#endif

/* A read of a sector, its buffer in pieces. All use the same memory. */
static void add_pieces(unsigned q, const struct request *r)
{
	struct vdrv_buf bufs[2 + FULL_PIECES] = { { r->hdr, 16, VDRV_R } };

	for (unsigned i = 0; i < FULL_PIECES; i++)
		bufs[1 + i] = (struct vdrv_buf){ r->data + i * 32, 32, VDRV_W };
	bufs[1 + FULL_PIECES] = (struct vdrv_buf){ r->status, 1, VDRV_W };
	vdrv_add_indirect(&d, q, bufs, ARRAY_LEN(bufs));
}

static unsigned collect_all(void)
{
	unsigned total = 0;

	for (unsigned q = 0; q < FULL_QUEUES; q++) {
		while (vdrv_used(&d, q, NULL))
			total++;
	}
	return total;
}

/* A guest that fills all its queues makes us grow by at most 4 MiB. */
static void test_growth(void **state)
{
	uint64_t end = vio_now_ns() + 60000000000ull;
	struct request r;
	unsigned total = 0;
	size_t before;

	create(VDRV_MODERN, ",queues=16,queue-size=1024");
	memset(d.mem, 1, VDRV_MEM_BYTES); /* resident from here on */
	before = process_resident();
	assert_true(vdrv_start(&d, ALL_FEATURES, FULL_QUEUES));
	FAULT_SET(no_cache, true);
	FAULT_SET(hang, true);
	r = make_req(VIRTIO_BLK_T_IN, 0, 512, true);
	for (unsigned q = 0; q < FULL_QUEUES; q++)
		for (unsigned i = 0; i < FULL_SIZE; i++)
			add_pieces(q, &r);
	for (unsigned q = 0; q < FULL_QUEUES; q++)
		vdrv_kick(&d, q);
	iterate(20);
	print_message("grew by %zu KiB\n", (process_resident() - before) >> 10);
	assert_true(process_resident() <= before + FULL_BYTES + THREADS_BYTES);
	FAULT_SET(hang, false);
	FAULT_SET(no_cache, false);
	while ((total += collect_all()) < FULL_QUEUES * FULL_SIZE) {
		assert_true(vio_now_ns() < end);
		vio_loop_iterate(loop, 10);
	}
	assert_memory_equal(req_data(&r), model, 512);
}

/*
 * --- Queues ---
 */

/*
 * A ring that is emptied in one iteration, and not refilled at once: the driver
 * must kick for the next request.
 */
static void test_kick_after_full_ring(void **state)
{
	static const uint64_t features[] = {
		ALL_FEATURES,
		ALL_FEATURES & ~VI_BIT(VIRTIO_RING_F_EVENT_IDX),
	};
	enum { SIZE = 4 };

	for (size_t i = 0; i < ARRAY_LEN(features); i++) {
		struct request r[SIZE], next;

		start(VDRV_MODERN, ",queue-size=4", features[i]);
		for (unsigned k = 0; k < SIZE; k++) {
			r[k] = make_req(VIRTIO_BLK_T_GET_ID, 0, 20, true);
			vdrv_add_indirect(&d, 0,
					  (struct vdrv_buf[]){
						  { r[k].hdr, 16, VDRV_R },
						  { r[k].data, 20, VDRV_W },
						  { r[k].status, 1, VDRV_W } },
					  3);
		}
		vdrv_kick_wanted(&d, 0);
		vdrv_kick(&d, 0);
		iterate(5);
		for (unsigned k = 0; k < SIZE; k++)
			assert_true(vdrv_used(&d, 0, NULL));
		next = make_req(VIRTIO_BLK_T_GET_ID, 0, 20, true);
		add_req(0, &next);
		assert_true(vdrv_kick_if_wanted(&d, 0));
		iterate(5);
		assert_true(vdrv_used(&d, 0, NULL));
		destroy();
	}
}

/* BLK-26: num_queues independent queues; without MQ only the first. */
static void test_queues(void **state)
{
	struct vdrv_used used;
	struct request r[3];

	create(VDRV_MODERN, ",queues=3");
	assert_true(vdrv_start(&d, ALL_FEATURES, 3));
	for (unsigned q = 0; q < 3; q++) {
		r[q] = make_req(VIRTIO_BLK_T_IN, q, 512, true);
		add_req(q, &r[q]);
	}
	for (unsigned q = 3; q-- > 0;) {
		vdrv_kick(&d, q);
		wait_used(q);
		assert_int_equal(req_status(&r[q]), OK);
		assert_memory_equal(req_data(&r[q]), model + q * 512, 512);
		assert_true(d.nr_msix[q + 1] > 0);
	}

	assert_true(vdrv_start(&d, ~BIT(MQ), 3));
	r[1] = make_req(VIRTIO_BLK_T_IN, 0, 512, true);
	add_req(1, &r[1]);
	vdrv_kick(&d, 1);
	iterate(5);
	assert_false(vdrv_used(&d, 1, &used));
	assert_int_equal(do_write(0, 512), OK);
}

/* A full queue at once: all are served, with fewer interrupts than requests. */
static void test_batch(void **state)
{
	struct request r[21];
	unsigned before;

	start(VDRV_MODERN, "", ~VI_BIT(VIRTIO_RING_F_EVENT_IDX));
	for (unsigned i = 0; i < ARRAY_LEN(r); i++) {
		r[i] = make_req(VIRTIO_BLK_T_IN, i, 512, true);
		add_req(0, &r[i]);
	}
	before = d.nr_msix[1];
	vdrv_kick(&d, 0);
	for (unsigned i = 0; i < ARRAY_LEN(r); i++)
		wait_used(0);
	for (unsigned i = 0; i < ARRAY_LEN(r); i++) {
		assert_int_equal(req_status(&r[i]), OK);
		assert_memory_equal(req_data(&r[i]), model + i * 512, 512);
	}
	assert_int_equal(d.nr_msix[1], before + 1);
	/* Kicks are requested again. */
	r[0] = make_req(VIRTIO_BLK_T_IN, 0, 512, true);
	add_req(0, &r[0]);
	assert_true(vdrv_kick_if_wanted(&d, 0));
	wait_used(0);
}

/*
 * --- Size, status ---
 */

static int resize(int argc, char *const argv[])
{
	struct json_object *reply = json_object_new_object();
	struct opened_files none = { .nr = 0 };
	struct err err = { "" };
	int ret = vdev_ctl(dev, argc, argv, &none, reply, &err);

	while (json_object_object_get(reply, "pending")) {
		vio_loop_iterate(loop, 100);
		json_object_object_del(reply, "pending");
		ret = vdev_ctl(dev, argc, argv, &none, reply, &err);
	}
	assert_int_equal(ret < 0, err.text[0] != '\0');
	json_object_put(reply);
	return ret;
}

static int ctl(const char *size)
{
	char cmd[] = "resize", arg[32];

	snprintf(arg, sizeof(arg), "%s", size);
	return resize(2, (char *[]){ cmd, arg });
}

static int ctl_shrink(const char *size)
{
	char cmd[] = "resize", flag[] = "--shrink", arg[32];

	snprintf(arg, sizeof(arg), "%s", size);
	return resize(3, (char *[]){ cmd, flag, arg });
}

static void wait_for_sectors(uint32_t sectors)
{
	uint64_t end = vio_now_ns() + 5000000000ull;

	while (vdrv_cfg_read(&d, 0, 4) != sectors && vio_now_ns() < end)
		vio_loop_iterate(loop, 100);
	assert_int_equal(vdrv_cfg_read(&d, 0, 4), sectors);
}

/* BLK-06, hostile F4. */
static void test_resize(void **state)
{
	unsigned before;

	start(VDRV_MODERN, "", ALL_FEATURES);
	before = d.nr_msix[0];
	assert_int_equal(ctl("2M"), 0);
	assert_int_equal(vdrv_cfg_read(&d, 0, 4), 4096);
	assert_int_equal(d.nr_msix[0], before + 1);
	assert_true(vdrv_isr(&d) & 2);
	assert_int_equal(do_write(4095, 512), OK);

	assert_int_equal(ctl("64K"), -EEXIST);
	assert_int_equal(vdrv_cfg_read(&d, 0, 4), 4096);
	assert_int_equal(ctl_shrink("64K"), 0);
	assert_int_equal(vdrv_cfg_read(&d, 0, 4), 128);
	assert_int_equal(d.nr_msix[0], before + 2);
	assert_int_equal(do_write(128, 512), IOERR);
	assert_int_equal(do_write(127, 512), OK);

	assert_int_equal(ctl("1000"), -EINVAL);
	assert_int_equal(ctl("big"), -EINVAL);
	assert_int_equal(d.nr_msix[0], before + 2);

	/* By another process. */
	assert_int_equal(truncate(path, 1 << 20), 0);
	wait_for_sectors(2048);
	assert_int_equal(d.nr_msix[0], before + 3);
}

static uint64_t figure(struct json_object *o, const char *kind, const char *key)
{
	if (kind)
		o = json_object_object_get(o, kind);
	return json_object_get_uint64(json_object_object_get(o, key));
}

static const char *text(struct json_object *o, const char *key)
{
	return json_object_get_string(json_object_object_get(o, key));
}

static void test_status(void **state)
{
	struct json_object *o = json_object_new_object();

	start(VDRV_MODERN, ",cache=direct", ALL_FEATURES);
	assert_int_equal(do_write(0, 512), OK);
	assert_int_equal(do_write(0, 1024), OK);
	assert_int_equal(do_write(1ull << 40, 1024), IOERR);
	assert_int_equal(do_simple(VIRTIO_BLK_T_FLUSH, 0, 0, false), OK);
	assert_int_equal(do_simple(77, 0, 0, false), UNSUPP);
	vdev_status(dev, o);
	assert_int_equal(figure(o, "write", "requests"), 3);
	assert_int_equal(figure(o, "write", "bytes"), 1536);
	assert_int_equal(figure(o, "write", "errors"), 1);
	assert_int_equal(figure(o, "flush", "requests"), 1);
	assert_int_equal(figure(o, "read", "requests"), 0);
	assert_int_equal(figure(o, "other", "errors"), 1);
	assert_int_equal(figure(o, NULL, "capacity"), IMAGE_BYTES);
	assert_string_equal(text(o, "cache"), "direct");
	assert_string_equal(text(o, "engine"),
			    threads ? "threads" : "io_uring");
	json_object_put(o);
}

/* Where io_uring is refused, the log says so. */
static void test_says_which_engine(void **state)
{
	create(VDRV_MODERN, "");
	assert_int_equal(strstr(d.last_log, "using threads") != NULL, threads);
}

static int run(const char *engine)
{
	const struct CMUnitTest tests[] = {
#define TEST(x) cmocka_unit_test_setup_teardown(x, setup, teardown)
		TEST(test_features),
		TEST(test_config),
		TEST(test_config_writes),
		TEST(test_seg_max_of_small_queue),
		TEST(test_bad_options),
		TEST(test_second_writer),
		TEST(test_framing),
		TEST(test_header_lengths),
		TEST(test_header_flips),
		TEST(test_empty_buffers),
		TEST(test_long_chains),
		TEST(test_no_status_byte),
		TEST(test_requests),
		TEST(test_not_negotiated),
		TEST(test_flush_out),
		TEST(test_read_only),
		TEST(test_get_id),
		TEST(test_bad_segments),
		TEST(test_write_zeroes),
		TEST(test_unmap),
		TEST(test_discard),
		TEST(test_write_cache),
		TEST(test_legacy_write_cache),
		TEST(test_flush),
		TEST(test_out_of_order),
		TEST(test_limits),
		TEST(test_limits_and_reset),
		TEST(test_short_transfers),
		TEST(test_shrunk_file),
		TEST(test_queue_size),
		TEST(test_duplicate_head),
		TEST(test_reset_in_flight),
		TEST(test_error_in_flight),
		TEST(test_reset_impatient),
		TEST(test_error_in_iteration),
		TEST(test_growth),
		TEST(test_kick_after_full_ring),
		TEST(test_cache_off),
		TEST(test_cache_off_reset),
		TEST(test_wait),
		TEST(test_wait_stop),
		TEST(test_wait_stop_logged),
		TEST(test_wait_memory_gone),
		TEST(test_wait_bus),
		TEST(test_wait_reset),
		TEST(test_wait_which),
		TEST(test_quiesce),
		TEST(test_queues),
		TEST(test_batch),
		TEST(test_resize),
		TEST(test_status),
		TEST(test_says_which_engine),
	};

	threads = strcmp(engine, "threads") == 0;
	return cmocka_run_group_tests_name(engine, tests, NULL, NULL);
}

int main(void)
{
	return run_on_engines(run);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The block device, as a driver sees it: docs/spec/conformance.md section 8 and
 * its rows of docs/spec/hostile.md, with io_uring and again with io_uring
 * refused.
 */
#include "block_fixture.h"
#include "base/util.h"
#include "process.h"

#include <errno.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <viodev/device.h>

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
		TEST(test_features),
		TEST(test_config),
		TEST(test_config_writes),
		TEST(test_seg_max_of_small_queue),
		TEST(test_bad_options),
		TEST(test_second_writer),
		TEST(test_limits),
		TEST(test_limits_and_reset),
		TEST(test_short_transfers),
		TEST(test_shrunk_file),
		TEST(test_growth),
		TEST(test_kick_after_full_ring),
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

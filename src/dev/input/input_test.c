/* SPDX-License-Identifier: BSD-2-Clause */
/* Virtual input devices, as a driver sees them: conformance chapter 13. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <json-c/json.h>
#include <libevdev/libevdev.h>
#include <linux/input-event-codes.h>
#include <linux/virtio_input.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <viodev/device.h>
#include <viodev/loop.h>

#include "base/le.h"
#include "base/util.h"
#include "dev/vdev.h"
#include "input_events.h"
#include "moved.h"
#include "vdrv.h"

static struct vdrv d;
static struct vio_loop *loop;
static struct vdev *dev;
static uint64_t area; /* of event buffers */

static void make(const char *text)
{
	char why[256] = "";

	vdrv_init(&d, VDRV_MODERN);
	if (vdev_new(text, &d.pi, loop, &dev, why, sizeof(why)) < 0)
		fail_msg("%s", why);
	area = vdrv_alloc(&d, 1 << 16, 16);
	vdrv_probe(&d);
}

static void start(const char *text)
{
	make(text);
	assert_true(vdrv_start(&d, UINT64_MAX, 2));
}

static void stop(void)
{
	vdev_destroy(dev);
	vdrv_fini(&d);
	dev = NULL;
}

static int setup(void **state)
{
	return vio_loop_create(&loop);
}

static int teardown(void **state)
{
	if (dev)
		stop();
	vio_loop_destroy(loop);
	return 0;
}

/* A `ctl` command: what it returns; the reason goes to @why. */
static int ctl(const char *words, char *why)
{
	struct json_object *reply = json_object_new_object();
	char *copy = strdup(words), *rest = copy, *argv[1100];
	struct opened_files none = { .nr = 0 };
	struct err err = { "" };
	int argc = 0, ret;

	while (argc < 1099 && (argv[argc] = strsep(&rest, " ")))
		argc++;
	argv[argc] = NULL;
	ret = vdev_ctl(dev, argc, argv, &none, reply, &err);
	if (why)
		strcpy(why, err.text);
	json_object_put(reply);
	free(copy);
	return ret;
}

static int64_t status(const char *key)
{
	struct json_object *to = json_object_new_object(), *val;
	int64_t ret;

	vdev_status(dev, to);
	assert_true(json_object_object_get_ex(to, key, &val));
	ret = json_object_is_type(val, json_type_array) ?
		      (int64_t)json_object_array_length(val) :
		      json_object_get_int64(val);
	json_object_put(to);
	return ret;
}

/*
 * --- Configuration ---
 */

static uint8_t choose(uint8_t select, uint8_t subsel)
{
	vdrv_cfg_write(&d, 0, 1, select);
	vdrv_cfg_write(&d, 1, 1, subsel);
	assert_int_equal(vdrv_cfg_read(&d, 0, 1), select);
	assert_int_equal(vdrv_cfg_read(&d, 1, 1), subsel);
	return (uint8_t)vdrv_cfg_read(&d, 2, 1);
}

static uint8_t byte_at(unsigned i)
{
	return (uint8_t)vdrv_cfg_read(&d, 8 + i, 1);
}

static bool has_bit(unsigned code)
{
	return byte_at(code / 8) >> code % 8 & 1; /* INPUT-04 */
}

/*
 * INPUT-01, INPUT-03, hostile F23: sizes of everything that exists or does not;
 * zeroes follow the data, whatever was selected before. hostile S16c: ABS_INFO
 * exists for axes only. INPUT-10: what turns on autorepeat; no EV_SYN.
 */
static void test_config_sizes(void **state)
{
	static const struct {
		const char *kind;
		uint8_t select, subsel, size;
	} rows[] = {
		{ "keyboard", 0x00, 0, 0 },
		{ "keyboard", 0x00, 1, 0 },
		{ "keyboard", 0x01, 0, 15 },
		{ "keyboard", 0x01, 1, 0 },
		{ "keyboard", 0x02, 0, 0 },
		{ "keyboard", 0x03, 0, 8 },
		{ "keyboard", 0x03, 9, 0 },
		{ "keyboard", 0x04, 0, 0 },
		{ "keyboard", 0x10, 0, 0 },
		{ "keyboard", 0x11, EV_SYN, 0 },
		{ "keyboard", 0x11, EV_KEY, 32 },
		{ "keyboard", 0x11, EV_LED, 1 },
		{ "keyboard", 0x11, EV_REP, 1 },
		{ "keyboard", 0x11, EV_REL, 0 },
		{ "keyboard", 0x11, EV_ABS, 0 },
		{ "keyboard", 0x11, EV_FF, 0 },
		{ "keyboard", 0x11, EV_MAX, 0 },
		{ "keyboard", 0x11, 0xff, 0 },
		{ "keyboard", 0x12, 0, 0 },
		{ "keyboard", 0x12, EV_ABS, 0 },
		{ "keyboard", 0xff, 0, 0 },
		{ "mouse", 0x11, EV_KEY, 35 },
		{ "mouse", 0x11, EV_REL, 2 },
		{ "mouse", 0x11, EV_REP, 0 },
		{ "mouse", 0x12, ABS_X, 0 },
		{ "tablet", 0x11, EV_ABS, 1 },
		{ "tablet", 0x12, ABS_X, 20 },
		{ "tablet", 0x12, ABS_Y, 20 },
		{ "tablet", 0x12, ABS_Z, 0 },
		{ "tablet", 0x12, 0x40, 0 },
		{ "tablet", 0x12, 0xff, 0 },
		{ "multitouch", 0x10, 0, 1 },
		{ "multitouch", 0x10, 1, 0 },
		{ "multitouch", 0x11, EV_ABS, 8 },
		{ "multitouch", 0x12, ABS_MT_SLOT, 20 },
		{ "multitouch", 0x12, ABS_MT_TOOL_X, 0 },
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		char text[64];
		uint8_t size;

		snprintf(text, sizeof(text), "input,kind=%s", rows[i].kind);
		make(text);
		print_message("%s %#x %#x\n", text, rows[i].select,
			      rows[i].subsel);
		choose(VIRTIO_INPUT_CFG_EV_BITS, EV_KEY);
		size = choose(rows[i].select, rows[i].subsel);
		assert_int_equal(size, rows[i].size);
		if (size > 0 && (rows[i].select | 1) == 0x11) /* bitmaps */
			assert_int_not_equal(byte_at(size - 1u), 0);
		for (unsigned k = size; k < 128; k++)
			assert_int_equal(byte_at(k), 0);
		for (unsigned k = 3; k < 8; k++)
			assert_int_equal(vdrv_cfg_read(&d, k, 1), 0);
		stop();
	}
}

static void test_config_contents(void **state)
{
	static const char name[] = "my, own";

	make("input,kind=multitouch,name=my,, own,serial=4711");
	assert_int_equal(choose(VIRTIO_INPUT_CFG_ID_NAME, 0), strlen(name));
	for (unsigned i = 0; name[i]; i++)
		assert_int_equal(byte_at(i), name[i]);
	assert_int_equal(choose(VIRTIO_INPUT_CFG_ID_SERIAL, 0), 4);
	assert_int_equal(byte_at(3), '1');
	choose(VIRTIO_INPUT_CFG_ID_DEVIDS, 0);
	assert_int_equal(vdrv_cfg_read(&d, 8, 2), 0x06); /* BUS_VIRTUAL */
	assert_int_equal(vdrv_cfg_read(&d, 10, 2), VIRTIO_VENDOR);
	assert_int_equal(vdrv_cfg_read(&d, 12, 2), 4);
	choose(VIRTIO_INPUT_CFG_PROP_BITS, 0);
	assert_true(has_bit(INPUT_PROP_DIRECT));
	choose(VIRTIO_INPUT_CFG_EV_BITS, EV_ABS);
	assert_true(has_bit(ABS_MT_TRACKING_ID));
	assert_false(has_bit(ABS_Z));
	choose(VIRTIO_INPUT_CFG_EV_BITS, EV_KEY);
	assert_true(has_bit(BTN_TOUCH));
	assert_false(has_bit(KEY_A));
	choose(VIRTIO_INPUT_CFG_ABS_INFO, ABS_X);
	assert_int_equal(vdrv_cfg_read(&d, 8, 4), 0);
	assert_int_equal(vdrv_cfg_read(&d, 12, 4), 32767);
	assert_int_equal(vdrv_cfg_read(&d, 24, 4), 0);
}

/*
 * INPUT-02: in either order, at once. INPUT-12: wide writes set both, others
 * nothing. INPUT-11: no notification. hostile D30, S20: at every offset.
 */
static void test_config_writes(void **state)
{
	make("input,kind=tablet");
	vdrv_cfg_write(&d, 1, 1, ABS_Y);
	vdrv_cfg_write(&d, 0, 1, VIRTIO_INPUT_CFG_ABS_INFO);
	assert_int_equal(vdrv_cfg_read(&d, 2, 1), 20);
	vdrv_cfg_write(&d, 0, 2, EV_KEY << 8 | VIRTIO_INPUT_CFG_EV_BITS);
	assert_int_equal(vdrv_cfg_read(&d, 2, 1), 35);
	vdrv_cfg_write(&d, 0, 4,
		       0xffff0000 | ABS_X << 8 | VIRTIO_INPUT_CFG_ABS_INFO);
	assert_int_equal(vdrv_cfg_read(&d, 2, 1), 20);
	for (unsigned off = 2; off < 200; off++) {
		for (int size = 1; size <= 4; size *= 2) {
			vdrv_cfg_write(&d, off, size, 0xffffffff);
			vdrv_cfg_read(&d, off, size);
		}
	}
	assert_int_equal(vdrv_cfg_read(&d, 0, 1), VIRTIO_INPUT_CFG_ABS_INFO);
	assert_int_equal(vdrv_cfg_read(&d, 1, 1), ABS_X);
	assert_int_equal(vdrv_cfg_read(&d, 12, 4), 32767);
	assert_int_equal(d.nr_msix[0], 0);

	/* hostile F23: a reset forgets the selection */
	vdrv_reset(&d);
	assert_int_equal(vdrv_cfg_read(&d, 0, 4), 0);
	assert_int_equal(vdrv_cfg_read(&d, 12, 4), 0);
}

/*
 * --- Events ---
 */

static void offer(unsigned nr, uint32_t len)
{
	while (nr--) {
		struct vdrv_buf buf = {
			area + d.q[0].free_head * INPUT_SLOT_BYTES, len, VDRV_W
		};

		memset(vdrv_ptr(&d, buf.gpa, INPUT_SLOT_BYTES), 0xaa,
		       INPUT_SLOT_BYTES);
		vdrv_add(&d, 0, &buf, 1);
	}
	vdrv_kick_if_wanted(&d, 0);
}

static void expect(unsigned type, unsigned code, int value)
{
	input_expect(&d, area, type, code, value);
}

static void expect_none(void)
{
	input_expect_none(&d, area);
}

/* INPUT-05: an event in each buffer; all kinds of words. */
static void test_inject(void **state)
{
	start("input,kind=multitouch");
	offer(40, 8);
	assert_int_equal(ctl("inject abs ABS_MT_SLOT 0 abs mt_tracking_id -1 "
			     "btn touch 1 key BTN_TOUCH 0 abs 0x35 100",
			     NULL),
			 0);
	expect(EV_ABS, ABS_MT_SLOT, 0);
	expect(EV_ABS, ABS_MT_TRACKING_ID, -1);
	expect(EV_KEY, BTN_TOUCH, 1);
	expect(EV_KEY, BTN_TOUCH, 0);
	expect(EV_ABS, ABS_MT_POSITION_X, 100);
	expect(EV_SYN, SYN_REPORT, 0);
	expect_none();
	stop();

	start("input,kind=keyboard");
	offer(10, 16); /* longer is fine */
	assert_int_equal(ctl("inject key a 1 key 1 1 key KEY_1 0", NULL), 0);
	expect(EV_KEY, KEY_A, 1);
	expect(EV_KEY, KEY_ESC, 1);
	expect(EV_KEY, KEY_1, 0);
	expect(EV_SYN, SYN_REPORT, 0);
	assert_int_equal(status("events"), 4);
}

static void test_inject_errors(void **state)
{
	static const struct {
		const char *words;
		int ret;
		const char *why;
	} rows[] = {
		{ "inject", -EINVAL, "inject TYPE CODE VALUE" },
		{ "inject key", -EINVAL, "inject TYPE CODE VALUE" },
		{ "inject key KEY_A", -EINVAL, "inject TYPE CODE VALUE" },
		{ "inject key KEY_A 1 rel", -EINVAL, "TYPE CODE VALUE" },
		{ "inject syn 0 0", -EINVAL, "inject syn: must be key" },
		{ "inject led LED_CAPSL 1", -EINVAL, "must be key" },
		{ "inject key KEY_NONE 1", -EINVAL, "no such code" },
		{ "inject key  1", -EINVAL, "no such code" },
		{ "inject key REL_X 1", -EINVAL, "no such code" },
		{ "inject key 65536 1", -EINVAL, "no such code" },
		{ "inject key -1 1", -EINVAL, "no such code" },
		{ "inject key KEY_A x", -EINVAL, "not a number" },
		{ "inject key KEY_A 1x", -EINVAL, "not a number" },
		{ "inject key KEY_A 2147483648", -EINVAL, "not a number" },
		{ "inject key KEY_A 3", -ERANGE, "must be 0 to 2" },
		{ "inject key KEY_A -1", -ERANGE, "must be 0 to 2" },
		{ "inject rel REL_X 1", -ENODEV,
		  "not supported by this device" },
		{ "inject btn left 1", -ENODEV,
		  "not supported by this device" },
		{ "inject key 65535 1", -ENODEV,
		  "not supported by this device" },
		{ "inject key a 1 rel x 1", -ENODEV, "inject rel x" },
		{ "inject key xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
		  "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx 1",
		  -EINVAL, "no such code" },
		{ "eject", -EINVAL, "no such command" },
	};

	start("input,kind=keyboard");
	offer(10, 8);
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		char why[256];

		print_message("%s\n", rows[i].words);
		assert_int_equal(ctl(rows[i].words, why), rows[i].ret);
		if (!strstr(why, rows[i].why))
			fail_msg("%s", why);
		expect_none(); /* nothing of it */
	}
}

/* Values outside the announced range are rejected. */
static void test_inject_range(void **state)
{
	char why[256];

	start("input,kind=multitouch");
	offer(10, 8);
	assert_int_equal(ctl("inject abs x 32768", why), -ERANGE);
	assert_non_null(strstr(why, "inject abs x 32768: must be 0 to 32767"));
	assert_int_equal(ctl("inject abs y -1", why), -ERANGE);
	assert_int_equal(ctl("inject abs mt_slot 10", why), -ERANGE);
	assert_int_equal(ctl("inject abs mt_tracking_id -2", why), -ERANGE);
	expect_none();
	assert_int_equal(ctl("inject abs x 0 abs y 32767", why), 0);
}

/*
 * INPUT-06, INPUT-07: without buffers updates wait, whole and in order; if too
 * many do, injecting fails, and nothing accepted is lost.
 */
static void test_no_buffers(void **state)
{
	unsigned nr = 0;
	int ret;

	start("input,kind=mouse");
	while ((ret = ctl("inject rel x 1 rel y 2", NULL)) == 0)
		nr++;
	assert_int_equal(ret, -EAGAIN);
	assert_in_range(nr, 100, 1000);
	assert_int_equal(status("events-waiting"), 3 * nr);
	assert_int_equal(vio_loop_iterate(loop, 0), 0); /* idle */
	for (unsigned i = 0; i < nr; i++) {
		offer(1, 8);
		expect(EV_REL, REL_X, 1);
		expect_none();
		offer(2, 8);
		expect(EV_REL, REL_Y, 2);
		expect(EV_SYN, SYN_REPORT, 0);
	}
	offer(1, 8);
	expect_none();
	assert_int_equal(status("updates-dropped"), 0);
}

/* More events wait than one iteration sends: no kick is needed for the rest. */
static void test_many_waiting(void **state)
{
	unsigned got = 0, type, code;
	int value;

	start("input,kind=mouse,queue-size=256");
	for (int i = 0; i < 200; i++)
		assert_int_equal(ctl("inject rel x 1 rel y 2", NULL), 0);
	while (got < 600) {
		offer(d.q[0].nr_free, 8);
		vio_loop_iterate(loop, 0);
		while (input_next_event(&d, area, &type, &code, &value))
			got++;
	}
	assert_int_equal(status("events-waiting"), 0);
}

/* hostile S16a: 11, 100 and more events in one update. */
static void test_long_updates(void **state)
{
	static const unsigned counts[] = { 11, 100, 255, 256 };

	start("input,kind=mouse,queue-size=256");
	for (size_t k = 0; k < ARRAY_LEN(counts); k++) {
		char words[4096] = "inject";

		for (unsigned i = 0; i < counts[k]; i++)
			strcat(words, " rel x 1");
		offer(d.q[0].nr_free, 8);
		if (counts[k] > 255) {
			assert_int_equal(ctl(words, NULL), -E2BIG);
			expect_none();
			continue;
		}
		assert_int_equal(ctl(words, NULL), 0);
		for (unsigned i = 0; i < counts[k]; i++)
			expect(EV_REL, REL_X, 1);
		expect(EV_SYN, SYN_REPORT, 0);
	}
}

/* INPUT-13: buffers that are too short, or readable, are returned untouched. */
static void test_bad_buffers(void **state)
{
	struct vdrv_used used;

	start("input,kind=mouse");
	for (uint32_t len = 1; len < 8; len++)
		offer(1, len);
	vdrv_add(&d, 0, &(struct vdrv_buf){ area + 8000, 8, VDRV_R }, 1);
	vdrv_add(&d, 0,
		 (struct vdrv_buf[]){ { area + 8000, 8, VDRV_R },
				      { area + 8100, 8, VDRV_W } },
		 2);
	memset(vdrv_ptr(&d, area + 8000, 200), 0xaa, 200);
	assert_int_equal(ctl("inject rel x 5", NULL), 0);
	for (unsigned i = 0; i < 9; i++) {
		assert_true(vdrv_used(&d, 0, &used));
		assert_int_equal(used.len, 0);
	}
	assert_int_equal(*(uint8_t *)vdrv_ptr(&d, area + 8100, 1), 0xaa);
	assert_int_equal(status("events-waiting"), 2);

	/* In pieces of a byte it fits. */
	{
		struct vdrv_buf bufs[8];
		const uint8_t want[8] = { EV_REL, 0, REL_X, 0, 5, 0, 0, 0 };

		for (unsigned i = 0; i < 8; i++)
			bufs[i] =
				(struct vdrv_buf){ area + 9000 + i, 1, VDRV_W };
		vdrv_add(&d, 0, bufs, 8);
		vdrv_kick(&d, 0);
		assert_true(vdrv_used(&d, 0, &used));
		assert_int_equal(used.len, 8);
		assert_memory_equal(vdrv_ptr(&d, area + 9000, 8), want, 8);
	}
}

/*
 * INPUT-09: events before DRIVER_OK are not reported later; nor are those that
 * waited at a reset.
 */
static void test_driver_ok(void **state)
{
	make("input,kind=mouse");
	assert_int_equal(ctl("inject rel x 1", NULL), -ENOTCONN);
	vdrv_reset(&d);
	vdrv_greet(&d);
	assert_true(vdrv_negotiate(&d, VI_BIT(VIRTIO_F_VERSION_1)));
	assert_true(vdrv_queue_setup(&d, 0, 0));
	assert_true(vdrv_queue_setup(&d, 1, 0));
	offer(4, 8);
	vdrv_kick(&d, 0);
	assert_int_equal(ctl("inject rel x 2", NULL), -ENOTCONN);
	vdrv_driver_ok(&d);
	expect_none();
	assert_int_equal(ctl("inject rel x 3", NULL), 0);
	expect(EV_REL, REL_X, 3);
	expect(EV_SYN, SYN_REPORT, 0);

	for (int i = 0; i < 3; i++)
		assert_int_equal(ctl("inject rel x 4", NULL), 0);
	vdrv_reset(&d);
	assert_int_equal(ctl("inject rel x 5", NULL), -ENOTCONN);
	assert_true(vdrv_start(&d, UINT64_MAX, 2));
	offer(10, 8);
	expect_none();
}

/*
 * --- Status ---
 */

static void tell(const void *bytes, uint32_t len)
{
	struct vdrv_buf buf = { area + 4096, len, VDRV_R };
	struct vdrv_used used;

	if (len > 0)
		memcpy(vdrv_ptr(&d, buf.gpa, len), bytes, len);
	vdrv_add(&d, 1, &buf, 1);
	vdrv_kick(&d, 1);
	assert_true(vdrv_used(&d, 1, &used));
	assert_int_equal(used.len, 0);
}

/*
 * INPUT-08: LEDs are set, and the buffer is returned with length 0. INPUT-14:
 * they are not input. hostile S16b: buffers of any length, up to the last bytes
 * of memory.
 */
static void test_status(void **state)
{
	const uint8_t on[8] = { EV_LED, 0, LED_CAPSL, 0, 1, 0, 0, 0 };
	const uint8_t off[8] = { EV_LED, 0, LED_CAPSL, 0, 0, 0, 0, 0 };
	static const uint8_t others[][8] = {
		{ EV_LED, 0, LED_MAIL, 0, 1, 0, 0, 0 }, /* it has none */
		{ EV_LED, 0, 0xff, 0xff, 1, 0, 0, 0 },
		{ EV_KEY, 0, KEY_A, 0, 1, 0, 0, 0 },
		{ EV_SYN, 0, 0, 0, 0, 0, 0, 0 },
		{ 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff },
	};
	struct vdrv_used used;
	struct vdrv_buf buf;

	start("input,kind=keyboard");
	offer(10, 8);
	for (size_t i = 0; i < ARRAY_LEN(others); i++)
		tell(others[i], 8);
	for (uint32_t len = 0; len < 8; len++)
		tell(on, len);
	assert_int_equal(status("leds"), 0);
	assert_int_equal(status("status-events"), 0);
	tell(on, 8);
	assert_int_equal(status("leds"), 1);
	tell(off, 8);
	assert_int_equal(status("leds"), 0);
	tell(on, 8);
	expect_none();

	for (uint32_t len = 1; len < 8; len++) {
		buf = (struct vdrv_buf){ VDRV_MEM_BASE + VDRV_MEM_BYTES - len,
					 len, VDRV_R };
		vdrv_add(&d, 1, &buf, 1);
		vdrv_kick(&d, 1);
		assert_true(vdrv_used(&d, 1, &used));
	}
	buf = (struct vdrv_buf){ area + 4096, 8, VDRV_W };
	memset(vdrv_ptr(&d, buf.gpa, 8), 0xaa, 8);
	vdrv_add(&d, 1, &buf, 1);
	vdrv_kick(&d, 1);
	assert_true(vdrv_used(&d, 1, &used));
	assert_int_equal(used.len, 0);
	assert_int_equal(*(uint8_t *)vdrv_ptr(&d, buf.gpa, 1), 0xaa);
}

/* hostile S14, K1, Q7: chains of all lengths, on both queues. */
static void test_chains(void **state)
{
	static const unsigned counts[] = { 2, 33, 64, 65, 129, 257, 513 };

	for (unsigned q = 0; q < 2; q++) {
		for (size_t k = 0; k < ARRAY_LEN(counts); k++) {
			struct vdrv_buf bufs[513];
			struct vdrv_used used;

			start("input,kind=mouse");
			for (unsigned i = 0; i < counts[k]; i++)
				bufs[i] = (struct vdrv_buf){ area + i, 1,
							     q ? VDRV_R :
								 VDRV_W };
			vdrv_add_indirect(&d, q, bufs, counts[k]);
			vdrv_kick(&d, q);
			ctl("inject rel x 1", NULL);
			if (counts[k] > 64) {
				assert_true(vdrv_status(&d) &
					    VIRTIO_CONFIG_STATUS_NEEDS_RESET);
			} else {
				assert_true(vdrv_used(&d, q, &used));
				assert_int_equal(used.len,
						 q || counts[k] < 8 ? 0 : 8);
			}
			stop();
		}
	}
}

/*
 * --- Another process continues with the device ---
 */

static ssize_t save(uint8_t *state, size_t room)
{
	return moved_save(dev->vs, state, room);
}

static int load(const uint8_t *state, size_t len)
{
	return moved_load(dev->vs, state, len);
}

/* A keyboard with an LED on, and a driver that has half of an update. */
static size_t save_keyboard(uint8_t state[MOVED_MAX])
{
	const uint8_t on[8] = { EV_LED, 0, LED_CAPSL, 0, 1, 0, 0, 0 };
	ssize_t len;

	start("input,kind=keyboard");
	tell(on, 8);
	choose(VIRTIO_INPUT_CFG_EV_BITS, EV_KEY);
	offer(1, 8);
	assert_int_equal(ctl("inject key a 1 key b 1", NULL), 0);
	assert_int_equal(ctl("inject key a 0", NULL), 0);
	expect(EV_KEY, KEY_A, 1);
	len = save(state, MOVED_MAX);
	assert_true(len > 0);
	return (size_t)len;
}

/* LEDs, the selection, and the other half. */
static void test_state(void **state)
{
	uint8_t first[MOVED_MAX], second[MOVED_MAX];
	size_t len = save_keyboard(first);
	uint8_t size = (uint8_t)vdrv_cfg_read(&d, 2, 1);

	stop();
	start("input,kind=keyboard");
	assert_int_equal(load(first, len), 0);
	assert_int_equal(save(second, MOVED_MAX), len);
	assert_memory_equal(first, second, len);
	assert_int_equal(status("leds"), 1);
	assert_int_equal(vdrv_cfg_read(&d, 2, 1), size);
	offer(10, 8);
	expect(EV_KEY, KEY_B, 1);
	expect(EV_SYN, SYN_REPORT, 0);
	expect(EV_KEY, KEY_A, 0);
	expect(EV_SYN, SYN_REPORT, 0);
	expect_none();
}

/* Whatever a guest leaves waiting can move. */
static void test_state_full(void **state)
{
	uint8_t full[MOVED_MAX];
	ssize_t len;

	start("input,kind=mouse");
	for (int i = 0; i < 1024; i++)
		ctl("inject rel x 1", NULL);
	len = save(full, MOVED_MAX);
	stop();
	start("input,kind=mouse");
	assert_int_equal(load(full, (size_t)len), 0);
	assert_int_equal(status("events-waiting"), (len - 2) / 8);
}

static void test_state_hostile(void **state)
{
	/* Three LEDs; then B 1, SYN, A 0, SYN. */
	static const struct {
		unsigned event;
		uint8_t bytes[8];
	} rows[] = {
		{ 0, { EV_LED, 0, LED_MAIL } }, /* it has none */
		{ 1, { EV_SND, 0, SND_BELL } },
		{ 3, { EV_REL, 0, REL_X } },
		{ 3, { EV_KEY, 0, 0xff, 0xff } },
		{ 3, { EV_REP, 0, REP_DELAY } },
		{ 4, { EV_LED, 0, LED_CAPSL } }, /* not first */
		{ 5, { 0xff, 0xff, 0xff, 0xff } },
		{ 6, { EV_KEY, 0, KEY_A } }, /* half of an update */
		{ 6, { EV_SYN, 0, SYN_DROPPED } },
	};
	uint8_t good[MOVED_MAX], bad[MOVED_MAX];
	size_t len = save_keyboard(good);

	assert_int_equal(len, 2 + 7 * 8);
	for (size_t cut = 0; cut < len; cut++) {
		/* After LEDs, and after an update, it could end. */
		if (cut < 2 || (cut - 2) % 8 || cut == 2 + 4 * 8 ||
		    cut == 2 + 6 * 8)
			assert_int_equal(load(good, cut), -EINVAL);
		moved_expect_no_room(dev->vs, cut);
	}
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		memcpy(bad, good, len);
		memcpy(bad + 2 + 8 * rows[i].event, rows[i].bytes, 8);
		assert_int_equal(load(bad, len), -EINVAL);
		assert_int_equal(save(bad, MOVED_MAX), len);
		assert_memory_equal(bad, good, len);
	}
	memset(bad, 0, sizeof(bad)); /* nothing but SYN_REPORT */
	assert_int_equal(load(bad, 2 + 1025 * 8), -EINVAL);
	assert_int_equal(load(bad, 2 + 1024 * 8), 0);
	for (size_t i = 0; i < 8 * len; i++) {
		memcpy(bad, good, len);
		bad[i / 8] ^= (uint8_t)(1u << i % 8);
		load(bad, len);
		assert_true(save(bad, MOVED_MAX) > 0);
	}
	assert_int_equal(load(good, len), 0);
	stop();
	start("input,kind=mouse");
	assert_int_equal(load(good, len), -EINVAL);
}

static void test_options(void **state)
{
	static const struct {
		const char *text, *why;
	} rows[] = {
		{ "input", "either kind= or evdev=" },
		{ "input,kind=mouse,evdev=/dev/null",
		  "either kind= or evdev=" },
		{ "input,kind=joystick", "must be one of keyboard|mouse" },
		{ "input,kind=mouse,mode=legacy", "modern only" },
		{ "input,evdev=/nonexistent", "evdev=/nonexistent: No such" },
		{ "input,evdev=/dev/null", "not an input device" },
		{ "input,kind=mouse,name="
		  "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
		  "xxx"
		  "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
		  "xxx"
		  "xxx",
		  "longer than 128" },
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		char why[256] = "";

		vdrv_init(&d, VDRV_MODERN);
		assert_true(vdev_new(rows[i].text, &d.pi, loop, &dev, why,
				     sizeof(why)) < 0);
		if (!strstr(why, rows[i].why))
			fail_msg("%s: %s", rows[i].text, why);
		vdrv_fini(&d);
	}
}

/* The library does not write to the log. */
static void test_library_is_silent(void **state)
{
	int fd = memfd_create("log", MFD_CLOEXEC), old = dup(STDERR_FILENO);
	struct libevdev *desc = libevdev_new();
	struct input_event ev;

	start("input,kind=keyboard");
	dup2(fd, STDERR_FILENO);
	/* A caller's bug, which it would report. */
	assert_int_equal(
		libevdev_next_event(desc, LIBEVDEV_READ_FLAG_NORMAL, &ev),
		-EBADF);
	dup2(old, STDERR_FILENO);
	assert_int_equal(lseek(fd, 0, SEEK_END), 0);
	libevdev_free(desc);
	close(old);
	close(fd);
}

#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_config_sizes),  T(test_config_contents),
		T(test_config_writes), T(test_inject),
		T(test_inject_range),  T(test_inject_errors),
		T(test_no_buffers),    T(test_many_waiting),
		T(test_long_updates),  T(test_bad_buffers),
		T(test_driver_ok),     T(test_status),
		T(test_chains),        T(test_state),
		T(test_state_full),    T(test_state_hostile),
		T(test_options),       T(test_library_is_silent),
	};

	return cmocka_run_group_tests_name("input", tests, NULL, NULL);
}

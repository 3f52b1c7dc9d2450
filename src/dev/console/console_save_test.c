/* SPDX-License-Identifier: BSD-2-Clause */
/* Another process continues with a console: vc_save, vc_load. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <viodev/device.h>

#include "base/le.h"
#include "base/util.h"
#include "console_fixture.h"
#include "moved.h"

#define MULTIPORT VI_BIT(VIRTIO_CONSOLE_F_MULTIPORT)
enum { /* short names */
       DEVICE_READY = VIRTIO_CONSOLE_DEVICE_READY,
       ADD = VIRTIO_CONSOLE_PORT_ADD,
       REMOVE = VIRTIO_CONSOLE_PORT_REMOVE,
       READY = VIRTIO_CONSOLE_PORT_READY,
       CONSOLE = VIRTIO_CONSOLE_CONSOLE_PORT,
       RESIZE = VIRTIO_CONSOLE_RESIZE,
       OPEN = VIRTIO_CONSOLE_PORT_OPEN,
       NAME = VIRTIO_CONSOLE_PORT_NAME,
};

static struct fixture r;
static struct moved saved;

static int teardown(void **state)
{
	if (r.dev)
		fixture_fini(&r);
	return 0;
}

static void save(void)
{
	moved_take(&saved, r.dev->vs);
}

static int load(const uint8_t *state, size_t len)
{
	return moved_load(r.dev->vs, state, len);
}

static unsigned nr_queues(unsigned nr_ports)
{
	return nr_ports > 1 ? 2 * nr_ports + 2 : 2;
}

/* Create a device, and negotiate, up to the point where a state is loaded. */
static void make(enum vdrv_mode mode, unsigned nr_ports, const char *more)
{
	fixture_make(&r, mode, nr_ports, more);
	vdrv_probe(&r.d);
	vdrv_reset(&r.d);
	vdrv_greet(&r.d);
	assert_true(vdrv_negotiate(&r.d, vdrv_offer(&r.d)));
}

/* Start its rings. */
static void run(unsigned nr_ports)
{
	for (unsigned q = 0; q < nr_queues(nr_ports); q++)
		assert_true(vdrv_queue_setup(&r.d, q, 0));
	vdrv_driver_ok(&r.d);
	if (nr_ports > 1)
		fixture_ctl_offer(&r, 60, FIXTURE_CTL_ROOM);
}

/* Another device with the same options continues with the saved state. */
static void move(void)
{
	unsigned nr_ports = r.nr_ports;
	enum vdrv_mode mode = r.d.mode;

	fixture_fini(&r);
	make(mode, nr_ports, "");
	assert_int_equal(load(saved.bytes, saved.len), 0);
	moved_expect(r.dev->vs, &saved);
	run(nr_ports);
}

static void expect_silence(void)
{
	struct fixture_msg msg;

	if (fixture_hear(&r, &msg))
		fail_msg("port %u: event %u value %u", msg.id, msg.event,
			 msg.value);
}

/* Bytes arrive at both ends of a port. */
static void expect_bytes(unsigned port)
{
	struct vdrv_buf buf = { vdrv_alloc(&r.d, 16, 1), 16, VDRV_W };
	struct vdrv_used used;
	char text[16];

	fixture_write(&r, port, "out", 3);
	fixture_iterate(&r, 1);
	assert_int_equal(read(r.host[port], text, sizeof(text)), 3);
	assert_memory_equal(text, "out", 3);
	vdrv_add(&r.d, fixture_rxq(port), &buf, 1);
	vdrv_kick(&r.d, fixture_rxq(port));
	assert_int_equal(write(r.host[port], "in", 2), 2);
	fixture_iterate(&r, 1);
	assert_true(vdrv_used(&r.d, fixture_rxq(port), &used));
	assert_int_equal(used.len, 2);
}

/* A driver that has set up everything continues without notification. */
static void test_goes_on(void **state)
{
	for (int mode = VDRV_MODERN; mode <= VDRV_LEGACY; mode++) {
		struct fixture_msg msg;

		fixture_open(&r, (enum vdrv_mode)mode, 3);
		assert_int_equal(fixture_ctl(&r, "resize 132 43"), 0);
		while (fixture_hear(&r, &msg))
			;
		fixture_say(&r, 2, OPEN, 0);
		save();
		move();
		expect_silence();
		assert_int_equal(vdrv_cfg_read(&r.d, 0, 4), 43 << 16 | 132);
		expect_bytes(0);
		expect_bytes(1);
		assert_true(fixture_status(&r, 1, "guest-open"));
		assert_false(fixture_status(&r, 2, "guest-open"));
		fixture_fini(&r);
	}
}

/* Receive at most @max messages, one buffer each, like a driver. */
static unsigned converse(struct fixture_msg *heard, unsigned max)
{
	unsigned n = 0;

	for (; n < max; n++) {
		if (!fixture_hear(&r, &heard[n])) {
			fixture_ctl_offer(&r, 1, FIXTURE_CTL_ROOM);
			if (!fixture_hear(&r, &heard[n]))
				break;
		}
		if (heard[n].event == ADD)
			fixture_say(&r, heard[n].id, READY, 1);
	}
	return n;
}

/*
 * CON-05, CON-06, CON-12: at whichever message the device moves, the driver
 * receives each message once.
 */
static void test_each_message(void **state)
{
	struct fixture_msg want[16], got[16];
	unsigned nr = 0, n;

	for (unsigned at = 0; at <= 10; at++) {
		fixture_make(&r, VDRV_MODERN, 3, "");
		fixture_start(&r, UINT64_MAX);
		assert_int_equal(fixture_ctl(&r, "resize 132 43"), 0);
		fixture_say(&r, UINT32_MAX, DEVICE_READY, 1);
		if (at == 0) {
			nr = converse(want, 16);
			assert_int_equal(nr, 10);
			assert_int_equal(want[9].event, OPEN);
			fixture_fini(&r);
			continue;
		}
		n = converse(got, at);
		save();
		fixture_fini(&r);
		make(VDRV_MODERN, 3, "");
		assert_int_equal(load(saved.bytes, saved.len), 0);
		for (unsigned q = 0; q < 8; q++)
			assert_true(vdrv_queue_setup(&r.d, q, 0));
		vdrv_driver_ok(&r.d);
		n += converse(got + n, 16 - n);
		assert_int_equal(n, nr);
		for (unsigned i = 0; i < nr; i++)
			assert_memory_equal(&got[i], &want[i], 12);
		fixture_fini(&r);
	}
}

/* CON-03, CON-04, CON-07: the driver is notified of differences. */
static void test_differences(void **state)
{
	static const struct {
		const char *name;
		const char *there, *here; /* commands, before it moves */
		bool gone;                /* here: port 1 has no peer */
		unsigned id, nr, events[3];
	} rows[] = {
		{ "nothing", NULL, NULL, false, 0, 0, { 0 } },
		{ "nobody", NULL, NULL, true, 1, 1, { OPEN } },
		{ "unplugged here",
		  NULL,
		  "port remove p1",
		  false,
		  1,
		  1,
		  { REMOVE } },
		{ "unplugged there",
		  "port remove p1",
		  NULL,
		  false,
		  1,
		  3,
		  { ADD, NAME, OPEN } },
		{ "unplugged in both",
		  "port remove p1",
		  "port remove p1",
		  false,
		  0,
		  0,
		  { 0 } },
		{ "size", NULL, "resize 80 24", false, 0, 1, { RESIZE } },
		{ "same size",
		  "resize 80 24",
		  "resize 80 24",
		  false,
		  0,
		  0,
		  { 0 } },
		{ "other size",
		  "resize 80 25",
		  "resize 80 24",
		  false,
		  0,
		  1,
		  { RESIZE } },
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct fixture_msg msg[8];

		print_message("%s\n", rows[i].name);
		fixture_open(&r, VDRV_MODERN, 2);
		if (rows[i].there)
			assert_int_equal(fixture_ctl(&r, rows[i].there), 0);
		converse(msg, 8);
		save();
		fixture_fini(&r);

		make(VDRV_MODERN, 2, "");
		if (rows[i].here)
			assert_int_equal(fixture_ctl(&r, rows[i].here), 0);
		if (rows[i].gone) {
			close(r.host[1]);
			r.host[1] = -1;
			fixture_iterate(&r, 2);
		}
		assert_int_equal(load(saved.bytes, saved.len), 0);
		run(2);
		assert_int_equal(converse(msg, 8), rows[i].nr);
		for (unsigned k = 0; k < rows[i].nr; k++) {
			assert_int_equal(msg[k].id, rows[i].id);
			assert_int_equal(msg[k].event, rows[i].events[k]);
		}
		fixture_fini(&r);
	}
}

/* A port added by ctl and missing here: removed, and its bytes are lost. */
static void test_missing_port(void **state)
{
	struct vdrv_used used;

	fixture_open(&r, VDRV_MODERN, 2);
	save();
	fixture_fini(&r);
	make(VDRV_MODERN, 1, ",ports=2");
	assert_int_equal(load(saved.bytes, saved.len), 0);
	run(2);
	fixture_expect(&r, 1, REMOVE, 0);
	expect_silence();
	fixture_write(&r, 1, "lost", 4);
	assert_true(vdrv_used(&r.d, fixture_txq(1), &used));
	expect_bytes(0);
}

/* Messages that waited for a buffer. */
static void test_pending(void **state)
{
	struct fixture_msg msg[8];

	for (int removed = 0; removed < 2; removed++) {
		fixture_make(&r, VDRV_MODERN, 2, "");
		fixture_start(&r, UINT64_MAX);
		fixture_say(&r, UINT32_MAX, DEVICE_READY, 1);
		assert_int_equal(converse(msg, 6), 6);
		if (removed) {
			assert_int_equal(fixture_ctl(&r, "port remove p1"), 0);
			assert_int_equal(fixture_ctl(&r, "port add p1"), 0);
		} else {
			close(r.host[1]);
			r.host[1] = -1;
			fixture_iterate(&r, 2);
		}
		save();
		move();
		fixture_expect(&r, 1, removed ? REMOVE : OPEN, 0);
		fixture_expect(&r, 1, removed ? ADD : OPEN, !removed);
		expect_silence();
		fixture_fini(&r);
	}
}

/* CON-08, CON-09: without MULTIPORT only the size, by an interrupt. */
static void test_no_multiport(void **state)
{
	for (int differs = 0; differs < 2; differs++) {
		fixture_make(&r, VDRV_MODERN, 1, "");
		fixture_start(&r, UINT64_MAX);
		assert_int_equal(fixture_ctl(&r, "resize 132 43"), 0);
		save();
		fixture_fini(&r);
		make(VDRV_MODERN, 1, "");
		if (differs)
			assert_int_equal(fixture_ctl(&r, "resize 80 24"), 0);
		run(1); /* there is no interrupt before */
		assert_int_equal(load(saved.bytes, saved.len), 0);
		assert_int_equal(r.d.nr_msix[0], differs);
		assert_int_equal(vdrv_cfg_read(&r.d, 0, 2), differs ? 80 : 132);
		expect_bytes(0);
		fixture_fini(&r);
	}
}

/* The rest of a partly written chain is written, and nothing twice. */
static void test_partly_written(void **state)
{
	static uint8_t chain[1 << 20], got[sizeof(chain)];
	struct vdrv_used used;
	size_t n = 0;
	ssize_t ret;

	for (size_t i = 0; i < sizeof(chain); i++)
		chain[i] = (uint8_t)(i >> 12 ^ i);
	fixture_open(&r, VDRV_MODERN, 2);
	fixture_write(&r, 1, chain, sizeof(chain));
	assert_false(vdrv_used(&r.d, fixture_txq(1), &used));
	while ((ret = read(r.host[1], got + n, sizeof(got) - n)) > 0)
		n += (size_t)ret;
	assert_true(n > 0 && n < sizeof(chain));
	save();
	move();
	fixture_write(&r, 1, chain,
		      sizeof(chain)); /* it is still the next one */
	while (n < sizeof(got)) {
		ret = read(r.host[1], got + n, sizeof(got) - n);
		n += ret > 0 ? (size_t)ret : 0;
		fixture_iterate(&r, 1);
	}
	assert_true(vdrv_used(&r.d, fixture_txq(1), &used));
	assert_true(read(r.host[1], got, 1) < 0);
	fixture_iterate(&r, 1);
	fixture_write(&r, 1, chain, 1);
	assert_int_equal(read(r.host[1], got, 2), 1);
}

/*
 * --- Rejected states ---
 */

static void refused(const uint8_t *state, size_t len)
{
	assert_int_equal(moved_refuse(r.dev->vs, state, len), -EINVAL);
}

/* Bytes that the driver wrote to one port do not arrive at another. */
static void test_other_ports(void **state)
{
	fixture_open(&r, VDRV_MODERN, 2);
	save();
	fixture_fini(&r);
	make(VDRV_MODERN, 1, ",port.p2=file:/dev/null");
	refused(saved.bytes, saved.len);
	assert_non_null(strstr(r.d.last_log, "its name differs here"));
	fixture_fini(&r);
	make(VDRV_MODERN, 2, ",ports=3");
	refused(saved.bytes, saved.len);
	assert_non_null(
		strstr(r.d.last_log, "saved with ports=2, here ports=3"));
	fixture_fini(&r);
	make(VDRV_MODERN, 1, "");
	refused(saved.bytes, saved.len);
}

/* hostile Q3: wrong lengths and values, and any byte changed. */
static void test_hostile(void **state)
{
	static const struct {
		unsigned at;
		uint8_t byte;
	} rows
		[] = {
			{ 4, 2 }, /* DEVICE_READY */
			{ 5, 1 },
			{ 6, 1 },
			{ 6, 3 }, /* ports */
			{ 7, 1 },
			{ 8 + 4, 0x0a }, /* not added, but flags set */
			{ 8 + 4, 0x21 }, /* not ready, but informed */
			{ 8 + 5, 0x02 }, /* no such bit */
			{ 8 + 7, 0x80 },
			{ 80 + 8, 'q' }, /* name of port 1 */
			{ 80 + 10, 'q' },
			{ 80 + 71, 'q' },
		};
	uint8_t bad[MOVED_MAX];

	fixture_open(&r, VDRV_MODERN, 2);
	fixture_iterate(&r, 1);
	save();
	assert_int_equal(saved.len, 8 + 2 * 72);
	for (size_t len = 0; len < saved.len; len++) {
		refused(saved.bytes, len);
		moved_expect_no_room(r.dev->vs, len);
	}
	memset(bad, 0, sizeof(bad));
	memcpy(bad, saved.bytes, saved.len);
	refused(bad, saved.len + 1);
	refused(bad, sizeof(bad));
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		memcpy(bad, saved.bytes, saved.len);
		bad[rows[i].at] = rows[i].byte;
		print_message("%u\n", rows[i].at);
		refused(bad, saved.len);
	}
	for (size_t i = 0; i < saved.len; i++) {
		for (unsigned bit = 0; bit < 8; bit++) {
			memcpy(bad, saved.bytes, saved.len);
			bad[i] ^= 1u << bit;
			if (load(bad, saved.len) < 0)
				refused(bad, saved.len);
			for (unsigned port = 0; port < 2; port++) {
				fixture_write(&r, port, "some bytes", 10);
				assert_true(vdrv_used(&r.d, fixture_txq(port),
						      NULL));
				while (read(r.host[port], bad, 10) > 0)
					;
			}
		}
	}
	assert_false(vdrv_status(&r.d) & VIRTIO_CONFIG_STATUS_NEEDS_RESET);
	fixture_fini(&r);

	/* Nothing that was not negotiated. */
	fixture_make(&r, VDRV_MODERN, 2, "");
	fixture_start(&r, UINT64_MAX & ~MULTIPORT);
	refused(saved.bytes, saved.len);
	saved.bytes[4] = 0;
	refused(saved.bytes, saved.len);
	memset(saved.bytes + 8, 0, saved.len - 8);
	assert_int_equal(load(saved.bytes, saved.len), 0);
	saved.bytes[4] = 1;
	refused(saved.bytes, saved.len);
}

#define T(fn) cmocka_unit_test_teardown(fn, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_goes_on),        T(test_each_message),
		T(test_differences),    T(test_missing_port),
		T(test_pending),        T(test_no_multiport),
		T(test_partly_written), T(test_other_ports),
		T(test_hostile),
	};

	return cmocka_run_group_tests_name("console state", tests, NULL, NULL);
}

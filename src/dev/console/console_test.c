/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The console device's configuration and control, as a driver sees them:
 * conformance chapter 9. port_test.c tests the data of ports.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <viodev/device.h>

#include "base/le.h"
#include "base/util.h"
#include "console_fixture.h"

#define MAX_NAME 64 /* characters of a port's name */

#define MULTIPORT VI_BIT(VIRTIO_CONSOLE_F_MULTIPORT)
#define SIZE      VI_BIT(VIRTIO_CONSOLE_F_SIZE)
#define EMERG     VI_BIT(VIRTIO_CONSOLE_F_EMERG_WRITE)
#define V1        VI_BIT(VIRTIO_F_VERSION_1)

enum { /* short names */
       READY = VIRTIO_CONSOLE_DEVICE_READY,
       ADD = VIRTIO_CONSOLE_PORT_ADD,
       REMOVE = VIRTIO_CONSOLE_PORT_REMOVE,
       PORT_READY = VIRTIO_CONSOLE_PORT_READY,
       CONSOLE = VIRTIO_CONSOLE_CONSOLE_PORT,
       RESIZE = VIRTIO_CONSOLE_RESIZE,
       OPEN = VIRTIO_CONSOLE_PORT_OPEN,
       NAME = VIRTIO_CONSOLE_PORT_NAME,
};

static struct fixture r;

static int teardown(void **state)
{
	if (r.dev)
		fixture_fini(&r);
	return 0;
}

static void expect_silence(void)
{
	struct fixture_msg msg;

	if (fixture_hear(&r, &msg))
		fail_msg("port %u: event %u value %u", msg.id, msg.event,
			 msg.value);
}

static void expect_name(uint32_t id, const char *name)
{
	struct fixture_msg msg;

	assert_true(fixture_hear(&r, &msg));
	assert_int_equal(msg.id, id);
	assert_int_equal(msg.event, NAME);
	assert_int_equal(msg.used, 8 + strlen(name)); /* CON-10 */
	assert_memory_equal(msg.rest, name, strlen(name));
	assert_int_equal(msg.rest[strlen(name)], 0xaa); /* no NUL */
}

/* From DEVICE_READY until all ports exist, checked step by step. */
static void handshake(unsigned nr_ports)
{
	char name[16];

	fixture_ctl_offer(&r, 100, FIXTURE_CTL_ROOM);
	expect_silence();
	fixture_say(&r, UINT32_MAX, READY, 1);
	for (unsigned i = 0; i < nr_ports; i++)
		fixture_expect(&r, i, ADD, 0);
	expect_silence();
	for (unsigned i = 0; i < nr_ports; i++) {
		fixture_say(&r, i, PORT_READY, 1);
		snprintf(name, sizeof(name), "p%u", i);
		if (i == 0)
			fixture_expect(&r, 0, CONSOLE, 1);
		else
			expect_name(i, name);
		fixture_expect(&r, i, OPEN, 1);
	}
	expect_silence();
}

/*
 * CON-05: silence before DEVICE_READY, then an ADD for each port. CON-06: after
 * PORT_READY the port's properties. CON-03: each ADD once, also when
 * DEVICE_READY comes twice (hostile F20). CON-16, hostile S17e: all of it again
 * after a reset. CON-L02, CON-L03: the same for a legacy driver.
 */
static void test_handshake(void **state)
{
	for (int mode = VDRV_MODERN; mode <= VDRV_LEGACY; mode++) {
		fixture_make(&r, (enum vdrv_mode)mode, 3, "");
		for (int i = 0; i < 3; i++) {
			fixture_start(&r, UINT64_MAX);
			handshake(3);
			fixture_say(&r, UINT32_MAX, READY, 1);
			fixture_say(&r, 1, OPEN, 1);
			assert_true(fixture_status(&r, 1, "guest-open"));
			expect_silence();
			vdrv_reset(&r.d);
			assert_false(fixture_status(&r, 1, "guest-open"));
		}
		fixture_fini(&r);
	}
}

/* Linux after a suspend: PORT_READY and PORT_OPEN, and no DEVICE_READY. */
static void test_resumed(void **state)
{
	fixture_make(&r, VDRV_MODERN, 5, "");
	fixture_start(&r, UINT64_MAX);
	handshake(5);
	vdrv_reset(&r.d);
	assert_int_equal(fixture_ctl(&r, "port remove p3"), 0);
	assert_int_equal(fixture_ctl(&r, "port remove p4"), 0);
	close(r.host[2]);
	r.host[2] = -1;
	fixture_iterate(&r, 2);

	fixture_start(&r, UINT64_MAX);
	fixture_ctl_offer(&r, 100, FIXTURE_CTL_ROOM);
	fixture_say(&r, 1, OPEN, 1); /* not known yet */
	fixture_say(&r, 1, PORT_READY, 0);
	expect_silence();
	fixture_say(&r, 0, PORT_READY, 1);
	fixture_expect(&r, 0, CONSOLE, 1);
	fixture_expect(&r, 0, OPEN, 1);
	expect_silence(); /* its other ports have no queues yet */
	fixture_say(&r, 1, PORT_READY, 1);
	expect_name(1, "p1");
	fixture_expect(&r, 1, OPEN, 1);
	fixture_say(&r, 1, OPEN, 1);
	assert_true(fixture_status(&r, 1, "guest-open"));
	fixture_say(&r, 2, PORT_READY, 1); /* its peer has disconnected */
	expect_name(2, "p2");
	fixture_expect(&r, 2, OPEN, 0);
	fixture_say(&r, 3, PORT_READY, 1); /* and this port is gone */
	fixture_expect(&r, 3, REMOVE, 0);
	expect_silence();
	assert_int_equal(fixture_ctl(&r, "port add p4"), 0);
	fixture_expect(&r, 4, ADD, 0);

	/* A driver that starts afresh does not resume. */
	vdrv_reset(&r.d);
	fixture_start(&r, UINT64_MAX);
	fixture_ctl_offer(&r, 10, FIXTURE_CTL_ROOM);
	fixture_say(&r, UINT32_MAX, READY, 1);
	fixture_expect(&r, 0, ADD, 0);
	fixture_expect(&r, 1, ADD, 0);
	fixture_expect(&r, 2, ADD, 0);
	fixture_expect(&r, 4, ADD, 0);
	fixture_say(&r, 2, PORT_READY, 1);
	expect_name(2, "p2");
	expect_silence();
	fixture_fini(&r);
}

/*
 * A port that was unplugged and plugged again while the driver was suspended:
 * silence until the driver has set up its queues again, and then the messages
 * it would have got without the suspend. The port may have another name.
 */
static void test_replugged_meanwhile(void **state)
{
	fixture_make(&r, VDRV_MODERN, 3, "");
	fixture_start(&r, UINT64_MAX);
	handshake(3);
	vdrv_reset(&r.d);
	assert_int_equal(fixture_ctl(&r, "port remove p1"), 0);
	assert_int_equal(fixture_ctl(&r, "port add p1"), 0);

	fixture_start(&r, UINT64_MAX);
	fixture_ctl_offer(&r, 100, FIXTURE_CTL_ROOM);
	fixture_say(&r, 0, PORT_READY, 1);
	fixture_expect(&r, 0, CONSOLE, 1);
	fixture_expect(&r, 0, OPEN, 1);
	expect_silence();
	fixture_say(&r, 1, PORT_READY, 1);
	fixture_expect(&r, 1, REMOVE, 0);
	fixture_expect(&r, 1, ADD, 0);
	expect_silence();
	fixture_say(&r, 1, PORT_READY, 1);
	expect_name(1, "p1");
	fixture_expect(&r, 1, OPEN, 1);
	expect_silence();
	fixture_say(&r, 2, PORT_READY, 1);
	expect_name(2, "p2");
	fixture_expect(&r, 2, OPEN, 1);

	/* A driver that starts afresh has not seen the port. */
	vdrv_reset(&r.d);
	assert_int_equal(fixture_ctl(&r, "port remove p1"), 0);
	fixture_start(&r, UINT64_MAX);
	fixture_ctl_offer(&r, 100, FIXTURE_CTL_ROOM);
	fixture_say(&r, UINT32_MAX, READY, 1);
	fixture_expect(&r, 0, ADD, 0);
	fixture_expect(&r, 2, ADD, 0);
	vdrv_reset(&r.d);
	assert_int_equal(fixture_ctl(&r, "port add p1"), 0);
	fixture_start(&r, UINT64_MAX);
	fixture_ctl_offer(&r, 100, FIXTURE_CTL_ROOM);
	fixture_say(&r, 2, PORT_READY, 1);
	fixture_expect(&r, 1, ADD, 0);
	expect_name(2, "p2");
	fixture_expect(&r, 2, OPEN, 1);
	expect_silence();
	fixture_fini(&r);
}

/*
 * STAT-05: the rings are not read before DRIVER_OK, whatever driver, host and
 * ctl do; and nothing is lost.
 */
static void test_driver_ok(void **state)
{
	static const uint8_t ready[8] = {
		[4] = VIRTIO_CONSOLE_DEVICE_READY,
		[6] = 1,
	};
	uint64_t gpa;
	char buf[8];

	fixture_make(&r, VDRV_MODERN, 2, "");
	vdrv_probe(&r.d);
	vdrv_reset(&r.d);
	vdrv_greet(&r.d);
	assert_true(vdrv_negotiate(&r.d,
				   VI_BIT(VIRTIO_F_VERSION_1) |
					   VI_BIT(VIRTIO_CONSOLE_F_SIZE) |
					   VI_BIT(VIRTIO_CONSOLE_F_MULTIPORT)));
	for (unsigned q = 0; q < 6; q++)
		assert_true(vdrv_queue_setup(&r.d, q, 0));
	fixture_ctl_offer(&r, 8, FIXTURE_CTL_ROOM);
	gpa = vdrv_alloc(&r.d, 8, 8);
	memcpy(vdrv_ptr(&r.d, gpa, 8), ready, 8);
	vdrv_add(&r.d, 3, &(struct vdrv_buf){ gpa, 8, VDRV_R }, 1);
	vdrv_kick(&r.d, 3);
	fixture_write(&r, 0, "early", 5);
	fixture_write(&r, 1, "early", 5);
	assert_int_equal(write(r.host[0], "hello", 5), 5);
	assert_int_equal(fixture_ctl(&r, "resize 80 24"), 0);
	assert_int_equal(fixture_ctl(&r, "port remove p1"), 0);
	assert_int_equal(fixture_ctl(&r, "port add p1"), 0);
	fixture_iterate(&r, 5);
	for (unsigned q = 0; q < 6; q++)
		assert_int_equal(vdrv_used_ring_idx(&r.d, q), 0);
	assert_int_equal(recv(r.host[0], buf, sizeof(buf), MSG_DONTWAIT), -1);
	vdrv_driver_ok(&r.d);
	for (unsigned q = 0; q < 6; q++)
		vdrv_kick(&r.d, q);
	fixture_iterate(&r, 5);
	fixture_expect(&r, 0, VIRTIO_CONSOLE_PORT_ADD, 0);
	fixture_expect(&r, 1, VIRTIO_CONSOLE_PORT_ADD, 0);
	assert_int_equal(recv(r.host[0], buf, sizeof(buf), MSG_DONTWAIT), 5);
	assert_memory_equal(buf, "early", 5);
}

/* CON-05, CON-06: a driver that failed, or rejects a port. */
static void test_refused(void **state)
{
	fixture_make(&r, VDRV_MODERN, 3, "");
	fixture_start(&r, UINT64_MAX);
	fixture_ctl_offer(&r, 60, FIXTURE_CTL_ROOM);
	fixture_say(&r, UINT32_MAX, READY, 0);
	expect_silence();
	fixture_say(&r, UINT32_MAX, READY, 1);
	fixture_expect(&r, 0, ADD, 0);
	fixture_expect(&r, 1, ADD, 0);
	fixture_expect(&r, 2, ADD, 0);
	fixture_say(&r, 1, PORT_READY, 0);
	expect_silence();
	fixture_say(&r, 2, PORT_READY, 1);
	expect_name(2, "p2");
	fixture_expect(&r, 2, OPEN, 1);
	expect_silence();
}

/*
 * CON-12, hostile F20: messages wait for buffers, in order, and none is lost
 * when they come one at a time.
 */
static void test_few_buffers(void **state)
{
	struct fixture_msg msg;
	unsigned n = 0;

	static const struct {
		unsigned id, event, value;
	} want[] = {
		{ 0, ADD, 0 },  { 1, ADD, 0 },    { 0, CONSOLE, 1 },
		{ 0, OPEN, 1 }, { 1, NAME, 0 },   { 1, OPEN, 1 },
		{ 1, OPEN, 0 }, { 1, REMOVE, 0 }, { 1, ADD, 0 },
	};

	fixture_make(&r, VDRV_MODERN, 2, "");
	fixture_start(&r, UINT64_MAX);
	fixture_say(&r, UINT32_MAX, READY, 1);
	for (n = 0; n < ARRAY_LEN(want); n++) {
		fixture_iterate(&r, 1);
		expect_silence();
		if (n == 2) {
			fixture_say(&r, 1, PORT_READY, 1);
			fixture_say(&r, 0, PORT_READY, 1);
		} else if (n == 6) {
			close(r.host[1]);
			r.host[1] = -1;
			fixture_iterate(&r, 2);
		} else if (n == 7) {
			assert_int_equal(fixture_ctl(&r, "port remove p1"), 0);
			assert_int_equal(fixture_ctl(&r, "port add p1"), 0);
		}
		fixture_ctl_offer(&r, 1, FIXTURE_CTL_ROOM);
		assert_true(fixture_hear(&r, &msg));
		print_message("port %u: event %u value %u\n", msg.id, msg.event,
			      msg.value);
		assert_int_equal(msg.id, want[n].id);
		assert_int_equal(msg.event, want[n].event);
		assert_int_equal(msg.value, want[n].value);
	}
	fixture_ctl_offer(&r, 1, FIXTURE_CTL_ROOM);
	expect_silence();
}

/* CON-07: the host side comes and goes; two unseen changes are also sent. */
static void test_host_open(void **state)
{
	fixture_make(&r, VDRV_MODERN, 2, "");
	fixture_start(&r, UINT64_MAX);
	handshake(2);
	close(r.host[1]);
	r.host[1] = -1;
	fixture_iterate(&r, 2);
	fixture_expect(&r, 1, OPEN, 0);
	assert_false(fixture_status(&r, 1, "host-open"));
	expect_silence();
}

/* CON-04, CON-03: ports that ctl removes and adds. */
static void test_hotplug(void **state)
{
	fixture_make(&r, VDRV_MODERN, 3, "");
	assert_int_equal(fixture_ctl(&r, "port remove p2"),
			 0); /* no driver yet */
	assert_int_equal(fixture_ctl(&r, "port remove p2"), -EALREADY);
	fixture_start(&r, UINT64_MAX);
	fixture_ctl_offer(&r, 60, FIXTURE_CTL_ROOM);
	fixture_say(&r, UINT32_MAX, READY, 1);
	fixture_expect(&r, 0, ADD, 0);
	fixture_expect(&r, 1, ADD, 0);
	expect_silence();
	fixture_say(&r, 2, PORT_READY, 1); /* CON-14: no such port */
	expect_silence();
	assert_int_equal(fixture_ctl(&r, "port add p2"), 0);
	fixture_expect(&r, 2, ADD, 0);
	fixture_say(&r, 2, PORT_READY, 1);
	expect_name(2, "p2");
	fixture_expect(&r, 2, OPEN, 1);

	fixture_say(&r, 2, OPEN, 1);
	assert_int_equal(fixture_ctl(&r, "port remove p2"), 0);
	fixture_expect(&r, 2, REMOVE, 0);
	assert_false(fixture_status(&r, 2, "guest-open"));
	assert_int_equal(fixture_ctl(&r, "port add p2"), 0);
	fixture_expect(&r, 2, ADD, 0);
	fixture_say(&r, 2, PORT_READY, 1);
	expect_name(2, "p2");
	fixture_expect(&r, 2, OPEN, 1);

	assert_int_equal(fixture_ctl(&r, "port add p3"), -ENOENT);
	assert_int_equal(fixture_ctl(&r, "port add"), -EINVAL);
	assert_int_equal(fixture_ctl(&r, "port plug p2"), -EINVAL);
	assert_int_equal(fixture_ctl(&r, "port"), -EINVAL);
	expect_silence();
}

/* A command with a descriptor, as the `ctl` client opens it. */
static int ctl_with(const char *words, int take_fd)
{
	struct opened_files files = { .nr = 0 };
	int ret;

	assert_int_equal(opened_files_add(&files, "new.fd", take_fd), 0);
	ret = fixture_ctl_with(&r, words, &files);
	opened_files_close(&files);
	return ret;
}

/* CON-04: new ports, as many as fit, and again after those. */
static void test_new_ports(void **state)
{
	static const char bytes[] = "through a new port";
	char text[MAX_NAME + 64];
	int ends[2];

	fixture_make(&r, VDRV_MODERN, 1, ",ports=3");
	assert_true(vdrv_start(&r.d, UINT64_MAX, 8));
	fixture_ctl_offer(&r, 100, FIXTURE_CTL_ROOM);
	fixture_say(&r, UINT32_MAX, READY, 1);
	fixture_expect(&r, 0, ADD, 0);
	expect_silence();

	for (int round = 0; round < 3; round++) {
		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
		assert_int_equal(ctl_with("port add late fd:9", ends[1]), 0);
		assert_int_equal(ctl_with("port add late fd:9", dup(ends[0])),
				 -EEXIST);
		fixture_expect(&r, 1, ADD, 0);
		fixture_say(&r, 1, PORT_READY, 1);
		expect_name(1, "late");
		fixture_expect(&r, 1, OPEN, 1);
		fixture_say(&r, 1, OPEN, 1);
		fixture_write(&r, 1, bytes, sizeof(bytes));
		fixture_iterate(&r, 2);
		assert_int_equal(read(ends[0], text, sizeof(text)),
				 sizeof(bytes));
		assert_string_equal(text, bytes);
		assert_int_equal(fixture_status(&r, 1, "from-guest"),
				 sizeof(bytes));
		if (round == 1) { /* the driver learns of both at once */
			assert_int_equal(fixture_ctl(&r, "port remove late"),
					 0);
			assert_int_equal(
				ctl_with("port add other fd:9", dup(ends[0])),
				0);
			fixture_expect(&r, 1, REMOVE, 0);
			fixture_expect(&r, 1, ADD, 0);
			fixture_say(&r, 1, PORT_READY, 1);
			expect_name(1, "other");
			fixture_expect(&r, 1, OPEN, 1);
			assert_int_equal(fixture_ctl(&r, "port remove other"),
					 0);
		} else {
			assert_int_equal(fixture_ctl(&r, "port remove late"),
					 0);
		}
		fixture_expect(&r, 1, REMOVE, 0);
		assert_int_equal(fixture_ctl(&r, "port remove late"), -ENOENT);
		assert_int_equal(fixture_ctl(&r, "port add late"), -ENOENT);
		/* Nothing is left of it: the other end is closed. */
		assert_int_equal(read(ends[0], text, 1), 0);
		close(ends[0]);
	}

	assert_int_equal(fixture_ctl(&r, "port add late fd:9"), -EBADF);
	snprintf(text, sizeof(text), "port add %0*d fd:9", MAX_NAME + 1, 0);
	assert_int_equal(ctl_with(text, dup(1)), -EINVAL);
	assert_int_equal(ctl_with("port add a fd:9", dup(1)), 0);
	assert_int_equal(ctl_with("port add b fd:9", dup(1)), 0);
	assert_int_equal(ctl_with("port add c fd:9", dup(1)), -ENOSPC);
}

static unsigned nr_config_interrupts(void)
{
	return r.d.nr_msix[0];
}

/* CON-08: the size, in the configuration; CON-L01 */
static void test_size(void **state)
{
	for (int mode = VDRV_MODERN; mode <= VDRV_LEGACY; mode++) {
		for (int with = 0; with < 2; with++) {
			fixture_make(&r, (enum vdrv_mode)mode, 1, "");
			fixture_start(&r, with ? UINT64_MAX : V1);
			assert_int_equal(vdrv_cfg_read(&r.d, 0, 4), 0);
			assert_int_equal(fixture_ctl(&r, "resize 132 43"), 0);
			assert_int_equal(vdrv_cfg_read(&r.d, 0, 2), 132);
			assert_int_equal(vdrv_cfg_read(&r.d, 2, 2), 43);
			assert_int_equal(nr_config_interrupts(), with);
			vdrv_cfg_write(&r.d, 0, 4, 0x00010001);
			assert_int_equal(vdrv_cfg_read(&r.d, 0, 4),
					 43 << 16 | 132);
			fixture_fini(&r);
		}
	}
	fixture_make(&r, VDRV_MODERN, 1, "");
	assert_int_equal(fixture_ctl(&r, "resize 80"), -EINVAL);
	assert_int_equal(fixture_ctl(&r, "resize 80 -1"), -EINVAL);
	assert_int_equal(fixture_ctl(&r, "resize 65536 24"), -EINVAL);
	assert_int_equal(fixture_ctl(&r, "resize 80x24 1"), -EINVAL);
	assert_int_equal(fixture_ctl(&r, "resize 80 24 1"), -EINVAL);
}

/* TRAP-14: with MULTIPORT a message, columns before rows. */
static void test_resize(void **state)
{
	const le16 *rest;
	struct fixture_msg msg;

	fixture_make(&r, VDRV_MODERN, 2, "");
	fixture_start(&r, UINT64_MAX);
	handshake(2);
	assert_int_equal(fixture_ctl(&r, "resize 132 43"), 0);
	assert_true(fixture_hear(&r, &msg));
	assert_int_equal(msg.id, 0);
	assert_int_equal(msg.event, RESIZE);
	assert_int_equal(msg.used, 12);
	rest = (const void *)msg.rest;
	assert_int_equal(le16_to_cpu(rest[0]), 132);
	assert_int_equal(le16_to_cpu(rest[1]), 43);
	expect_silence();
	vdrv_reset(&r.d);

	/* A later driver gets it with the rest. */
	fixture_start(&r, UINT64_MAX);
	fixture_ctl_offer(&r, 60, FIXTURE_CTL_ROOM);
	fixture_say(&r, UINT32_MAX, READY, 1);
	fixture_say(&r, 0, PORT_READY, 1);
	fixture_expect(&r, 0, ADD, 0);
	fixture_expect(&r, 1, ADD, 0);
	fixture_expect(&r, 0, CONSOLE, 1);
	fixture_expect(&r, 0, OPEN, 1);
	fixture_expect(&r, 0, RESIZE, 0);
	expect_silence();
}

/* The features offered, and the configuration's port count. */
static void test_offer(void **state)
{
	static const struct {
		unsigned nr_ports;
		uint64_t features;
	} rows[] = {
		{ 1, SIZE | EMERG },
		{ 2, SIZE | EMERG | MULTIPORT },
		{ 31, SIZE | EMERG | MULTIPORT },
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		fixture_make(&r, VDRV_MODERN, rows[i].nr_ports, "");
		vdrv_probe(&r.d);
		assert_int_equal(vdrv_offer(&r.d) & 0xffffff, rows[i].features);
		assert_int_equal(vdrv_cfg_read(&r.d, 4, 4), rows[i].nr_ports);
		fixture_start(&r, UINT64_MAX);
		if (rows[i].nr_ports > 1)
			handshake(rows[i].nr_ports);
		fixture_fini(&r);
	}
}

/*
 * CON-01, CON-02: a character at any time, even without a driver. hostile F21:
 * narrower writes have no effect. hostile S20: every access is harmless.
 */
static void test_emerg(void **state)
{
	char buf[8];

	for (int mode = VDRV_MODERN; mode <= VDRV_LEGACY; mode++) {
		fixture_make(&r, (enum vdrv_mode)mode, 1, "");
		vdrv_probe(&r.d);
		vdrv_cfg_write(&r.d, 8, 4, 0xffffff00 | 'P');
		assert_int_equal(read(r.host[0], buf, sizeof(buf)), 1);
		assert_int_equal(buf[0], 'P');
		fixture_start(&r, V1); /* not negotiated */
		vdrv_cfg_write(&r.d, 8, 4, 'Q');
		assert_int_equal(read(r.host[0], buf, sizeof(buf)), 1);
		assert_int_equal(buf[0], 'Q');

		for (unsigned off = 0; off < 16; off++) {
			for (int size = 1; size <= 4; size *= 2) {
				if (off == 8 && size == 4)
					continue;
				vdrv_cfg_write(&r.d, off, size, 'x');
				vdrv_cfg_read(&r.d, off, size);
			}
		}
		assert_int_equal(vdrv_cfg_read(&r.d, 8, 4), 0);
		assert_true(read(r.host[0], buf, sizeof(buf)) < 0);
		fixture_fini(&r);
	}
}

/* A stuck reader does not block the writer. */
static void test_emerg_full(void **state)
{
	static char buf[1 << 20];
	ssize_t n, all = 0;

	fixture_make(&r, VDRV_MODERN, 1, "");
	vdrv_probe(&r.d);
	for (unsigned i = 0; i < 100000; i++)
		vdrv_cfg_write(&r.d, 8, 4, 'x');
	while ((n = read(r.host[0], buf, sizeof(buf))) > 0)
		all += n;
	assert_in_range(all, 1, 99999);
	vdrv_cfg_write(&r.d, 8, 4, 'y');
	assert_int_equal(read(r.host[0], buf, sizeof(buf)), 1);
	assert_int_equal(buf[0], 'y');
	fixture_fini(&r);
}

/*
 * CON-14, hostile S17a, K14: messages of every length, and with invalid
 * contents, are returned and do no harm.
 */
static void test_bad_messages(void **state)
{
	static const struct {
		uint32_t id;
		uint16_t event, value;
	} rows[] = {
		{ 3, PORT_READY, 1 },
		{ 31, PORT_READY, 1 },
		{ 0x7fffffff, PORT_READY, 1 },
		{ 0x80000000, OPEN, 1 },
		{ UINT32_MAX, OPEN, 1 },
		{ UINT32_MAX, PORT_READY, 1 },
		{ 1, 8, 1 },
		{ 1, 0xffff, 1 },
		{ 1, ADD, 1 },
		{ 1, REMOVE, 1 },
		{ 1, NAME, 1 },
		{ 0, RESIZE, 1 },
		{ 0, CONSOLE, 0 },
	};
	uint8_t bytes[4096] = { 1, 0, 0, 0, OPEN, 0, 0, 0 };

	fixture_make(&r, VDRV_MODERN, 3, "");
	fixture_start(&r, UINT64_MAX);
	handshake(3);
	fixture_say(&r, 1, OPEN, 1);
	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		fixture_say(&r, rows[i].id, rows[i].event, rows[i].value);
	for (uint32_t len = 1; len < 8; len++)
		fixture_say_bytes(&r, bytes, len);
	assert_true(fixture_status(&r, 1, "guest-open"));
	fixture_say_bytes(&r, bytes,
			  sizeof(bytes)); /* longer: its head counts */
	assert_false(fixture_status(&r, 1, "guest-open"));
	expect_silence();
	assert_false(vdrv_status(&r.d) & VIRTIO_CONFIG_STATUS_NEEDS_RESET);
}

/* A message in pieces of one byte is a message, hostile S14. */
static void test_split_message(void **state)
{
	uint8_t bytes[8] = { 1, 0, 0, 0, OPEN, 0, 1, 0 };
	struct vdrv_buf bufs[8];
	struct vdrv_used used;

	fixture_make(&r, VDRV_MODERN, 2, "");
	fixture_start(&r, UINT64_MAX);
	handshake(2);
	memcpy(vdrv_ptr(&r.d, r.ctl_gpa, 8), bytes, 8);
	for (unsigned i = 0; i < 8; i++)
		bufs[i] = (struct vdrv_buf){ r.ctl_gpa + i, 1, VDRV_R };
	vdrv_add(&r.d, 3, bufs, 8);
	vdrv_kick(&r.d, 3);
	assert_true(vdrv_used(&r.d, 3, &used));
	assert_true(fixture_status(&r, 1, "guest-open"));
}

/*
 * hostile S17d, Q5: a receive buffer that is too small gets what fits, as its
 * length tells; one that cannot even hold a header is returned empty and the
 * message waits.
 */
static void test_small_buffers(void **state)
{
	struct fixture_msg msg;

	fixture_make(&r, VDRV_MODERN, 2, "");
	fixture_start(&r, UINT64_MAX);
	fixture_say(&r, UINT32_MAX, READY, 1);
	for (uint32_t len = 1; len < 8; len++) {
		fixture_ctl_offer(&r, 1, len);
		assert_true(fixture_hear(&r, &msg));
		assert_int_equal(msg.used, 0);
		assert_int_equal(msg.value, 0xaaaa);
	}
	fixture_ctl_offer(&r, 2, 8);
	fixture_expect(&r, 0, ADD, 0);
	fixture_expect(&r, 1, ADD, 0);
	fixture_say(&r, 1, PORT_READY, 1);
	fixture_ctl_offer(&r, 1, 9);
	assert_true(fixture_hear(&r, &msg));
	assert_int_equal(msg.event, NAME);
	assert_int_equal(msg.used, 9);
	assert_int_equal(msg.rest[0], 'p');
	assert_int_equal(msg.rest[1], 0xaa);
}

/* CON-15: readable buffers cannot hold a message. */
static void test_wrong_way(void **state)
{
	struct vdrv_buf buf;
	struct vdrv_used used;

	fixture_make(&r, VDRV_MODERN, 2, "");
	fixture_start(&r, UINT64_MAX);
	buf = (struct vdrv_buf){ vdrv_alloc(&r.d, 64, 1), 64, VDRV_R };
	memset(vdrv_ptr(&r.d, buf.gpa, 64), 0xaa, 64);
	vdrv_add(&r.d, 2, &buf, 1);
	fixture_say(&r, UINT32_MAX, READY, 1);
	assert_true(vdrv_used(&r.d, 2, &used));
	assert_int_equal(used.len, 0);
	assert_int_equal(*(uint8_t *)vdrv_ptr(&r.d, buf.gpa, 1), 0xaa);
	fixture_ctl_offer(&r, 1, FIXTURE_CTL_ROOM);
	fixture_expect(&r, 0, ADD, 0);
}

/* CON-09, hostile F20: without MULTIPORT only two queues, and no messages. */
static void test_no_multiport(void **state)
{
	struct vdrv_used used;

	fixture_make(&r, VDRV_MODERN, 3, "");
	fixture_start(&r, UINT64_MAX & ~MULTIPORT);
	fixture_ctl_offer(&r, 4, FIXTURE_CTL_ROOM);
	for (unsigned q = 2; q < 8; q++) {
		struct vdrv_buf buf = { r.ctl_gpa, 8, q % 2 ? VDRV_R : VDRV_W };

		vdrv_add(&r.d, q, &buf, 1);
		vdrv_kick(&r.d, q);
		fixture_iterate(&r, 1);
		assert_false(vdrv_used(&r.d, q, &used));
	}
	assert_int_equal(write(r.host[1], "x", 1), 1);
	fixture_iterate(&r, 2);
	fixture_write(&r, 0, "live", 4); /* no handshake */
	assert_true(vdrv_used(&r.d, 1, &used));
}

static uint32_t *flipped;
static bool flipping;

static void *flip(void *arg)
{
	while (__atomic_load_n(&flipping, __ATOMIC_RELAXED)) {
		__atomic_store_n(flipped, 0x7fffffff, __ATOMIC_RELAXED);
		__atomic_store_n(flipped, 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

/* hostile S17b: a port's number that changes after it was checked. */
static void test_flipping_id(void **state)
{
	struct vdrv_used used;
	struct vdrv_buf buf;
	pthread_t thread;

	fixture_make(&r, VDRV_MODERN, 2, "");
	fixture_start(&r, UINT64_MAX);
	handshake(2);
	buf = (struct vdrv_buf){ vdrv_alloc(&r.d, 8, 8), 8, VDRV_R };
	flipped = vdrv_ptr(&r.d, buf.gpa, 8);
	flipped[1] = OPEN | 1 << 16;
	flipping = true;
	assert_int_equal(pthread_create(&thread, NULL, flip, NULL), 0);
	for (int i = 0; i < 20000; i++) {
		vdrv_add(&r.d, 3, &buf, 1);
		vdrv_kick(&r.d, 3);
		assert_true(vdrv_used(&r.d, 3, &used));
	}
	__atomic_store_n(&flipping, false, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
}

/* More messages than one iteration takes are all taken, even without a kick. */
static void test_many_messages(void **state)
{
	struct vdrv_used used;
	unsigned nr = 0;
	const uint8_t bytes[8] = { 1, 0, 0, 0, OPEN, 0, 1, 0 };
	struct vdrv_buf buf = { 0, 8, VDRV_R };

	fixture_make(&r, VDRV_MODERN, 2, "");
	fixture_start(&r, UINT64_MAX);
	handshake(2);
	buf.gpa = r.ctl_gpa;
	memcpy(vdrv_ptr(&r.d, buf.gpa, 8), bytes, 8);
	for (int round = 0; round < 3; round++) {
		while (r.d.q[3].nr_free)
			vdrv_add(&r.d, 3, &buf, 1);
		vdrv_kick_if_wanted(&r.d, 3);
		fixture_iterate(&r, 2);
		while (vdrv_used(&r.d, 3, &used))
			nr++;
	}
	assert_int_equal(nr, 3 * 128);
}

static void test_options(void **state)
{
	static const struct {
		const char *text, *why;
	} rows[] = {
		{ "console", "missing console= or port.NAME=" },
		{ "console,console=tty", "console=tty: must be stdio" },
		{ "console,port.=stdio", "no such key 'port.'" },
		{ "console,port.a=fd:99999", "port.a=fd:99999: Bad file" },
		{ "console,console=file:/dev/null,port.a=unix:/nonexistent/s",
		  "port.a=unix:/nonexistent/s: No such file" },
		{ "console,port.a=file:/dev/null,port.a=stdio", "given twice" },
		{ "console,port."
		  "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
		  "xxxxxx=stdio",
		  "longer than 64" },
		{ "console,port.a=file:/dev/null,signal=on",
		  "signal: without a channel stdio" },
		{ "console,port.a=file:/dev/null,log=x",
		  "log: without console=" },
		{ "console,port.a=file:/dev/null,log.b=x",
		  "log.b: without port.b=" },
		{ "console,port.a=file:/dev/null,log.a=/nonexistent/log",
		  "log of port.a: /nonexistent/log: No such file" },
	};
	char text[4096] = "console", why[256];

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		vdrv_init(&r.d, VDRV_MODERN);
		assert_true(vdev_new(rows[i].text, &r.d.pi, r.loop, &r.dev, why,
				     sizeof(why)) < 0);
		if (!strstr(why, rows[i].why))
			fail_msg("%s: %s", rows[i].text, why);
		vdrv_fini(&r.d);
	}
	for (unsigned i = 0; i < 31; i++)
		sprintf(text + strlen(text), ",port.%u=file:/dev/null", i);
	vdrv_init(&r.d, VDRV_MODERN);
	assert_true(vdev_new(text, &r.d.pi, r.loop, &r.dev, why, sizeof(why)) <
		    0);
	assert_non_null(strstr(why, "port.30: more than 30 ports"));
	vdrv_fini(&r.d);
}

#define T(fn) cmocka_unit_test_teardown(fn, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_handshake),     T(test_refused),
		T(test_few_buffers),   T(test_host_open),
		T(test_hotplug),       T(test_size),
		T(test_new_ports),     T(test_driver_ok),
		T(test_resize),        T(test_offer),
		T(test_emerg),         T(test_emerg_full),
		T(test_bad_messages),  T(test_split_message),
		T(test_small_buffers), T(test_wrong_way),
		T(test_no_multiport),  T(test_flipping_id),
		T(test_many_messages), T(test_options),
		T(test_resumed),       T(test_replugged_meanwhile),
	};

	return cmocka_run_group_tests_name("console", tests, NULL, NULL);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A host device, passed through, but simulated. The descriptor is a socket, and
 * our ioctl() answers for it like evdev.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/input.h>
#include <linux/sockios.h>
#include <linux/virtio_input.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <viodev/loop.h>

#include "base/le.h"
#include "base/util.h"
#include "dev/devices.h"
#include "input_events.h"
#include "vdrv.h"

static struct vdrv d;
static struct vio_loop *loop;
static struct vdev *dev;
static struct opts *opts;
static int host; /* the other end */
static int opener;
static uint64_t area;
#define WORD_BITS (8 * sizeof(long)) /* evdev's bits come in these */
#define PRODUCT   0x5678
static uint16_t product = PRODUCT;
static bool unplugged;
static unsigned long keys_down[KEY_CNT / WORD_BITS]; /* on the host's device */

/*
 * --- The simulated evdev: a keyboard with a wheel ---
 */

static void set_bit(unsigned long *bits, unsigned i)
{
	bits[i / WORD_BITS] |= 1ul << i % WORD_BITS;
}

static void put_bits(unsigned type, unsigned long *bits)
{
	switch (type) {
	case 0:
		set_bit(bits, EV_SYN);
		set_bit(bits, EV_KEY);
		set_bit(bits, EV_REL);
		set_bit(bits, EV_LED);
		set_bit(bits, EV_REP);
		set_bit(bits, EV_FF);
		break;
	case EV_KEY:
		set_bit(bits, KEY_A);
		set_bit(bits, KEY_B);
		break;
	case EV_REL:
		set_bit(bits, REL_WHEEL);
		break;
	case EV_LED:
		set_bit(bits, LED_CAPSL);
		break;
	case EV_FF:
		set_bit(bits, FF_RUMBLE);
		break;
	}
}

int ioctl(int fd, unsigned long request, ...)
{
	unsigned nr = _IOC_NR(request), size = _IOC_SIZE(request);
	struct input_id id = { BUS_USB, 0x1234, product, 9 };
	va_list ap;
	void *arg;

	va_start(ap, request);
	arg = va_arg(ap, void *);
	va_end(ap);
	if (_IOC_TYPE(request) != 'E') {
		errno = ENOTTY;
		return -1;
	}
	if (unplugged) {
		errno = ENODEV;
		return -1;
	}
	if (request == EVIOCGVERSION) {
		*(int *)arg = EV_VERSION;
		return 0;
	}
	if (_IOC_DIR(request) != _IOC_READ) /* grab, clock */
		return 0;
	memset(arg, 0, size);
	if (request == EVIOCGID)
		memcpy(arg, &id, sizeof(id));
	else if (nr == _IOC_NR(EVIOCGNAME(0)))
		strncpy(arg, "real keyboard", size - 1);
	else if (nr == _IOC_NR(EVIOCGKEY(0)))
		memcpy(arg, keys_down,
		       size < sizeof(keys_down) ? size : sizeof(keys_down));
	else if (nr >= 0x20 && nr < 0x20 + EV_CNT)
		put_bits(nr - 0x20, arg);
	else if (nr == _IOC_NR(EVIOCGUNIQ(0)) || nr == _IOC_NR(EVIOCGPHYS(0))) {
		errno = ENOENT;
		return -1;
	}
	return (int)size;
}

/*
 * --- The device ---
 */

static int setup(void **state)
{
	static const struct vdev_type *type;
	struct opened_files files = { 0 };
	struct vdev_env env = { .pi = &d.pi, .files = &files };
	struct err err;
	int pair[2];

	memset(keys_down, 0, sizeof(keys_down));
	vdrv_init(&d, VDRV_MODERN);
	if (vio_loop_create(&loop) < 0 ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair) < 0)
		return -1;
	host = pair[0];
	opened_files_add(&files, "evdev", pair[1]);
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, pair) < 0)
		return -1;
	opener = pair[0];
	opened_files_add(&files, "again", pair[1]);
	assert_int_equal(vdev_parse("input,evdev=/dev/x", &type, &opts, &err),
			 0);
	env.loop = loop;
	env.opts = opts;
	if (vdev_create(type, &env, &dev, &err) < 0)
		fail_msg("%s", err.text);
	area = vdrv_alloc(&d, 1 << 16, 16);
	vdrv_probe(&d);
	return 0;
}

static int teardown(void **state)
{
	vdev_destroy(dev);
	opts_free(opts);
	vdrv_fini(&d);
	vio_loop_destroy(loop);
	if (host >= 0)
		close(host);
	close(opener);
	return 0;
}

static void iterate(int n)
{
	while (n--)
		vio_loop_iterate(loop, 2);
}

static void happens(unsigned type, unsigned code, int value)
{
	struct input_event ev = { .type = (uint16_t)type,
				  .code = (uint16_t)code,
				  .value = value };

	if (type == EV_KEY && value)
		set_bit(keys_down, code);
	else if (type == EV_KEY)
		keys_down[code / WORD_BITS] &= ~(1ul << code % WORD_BITS);
	assert_int_equal(write(host, &ev, sizeof(ev)), sizeof(ev));
}

static void key(unsigned code, int value)
{
	happens(EV_KEY, code, value);
	happens(EV_SYN, SYN_REPORT, 0);
}

static void offer(unsigned nr)
{
	while (nr-- && d.q[0].nr_free) {
		struct vdrv_buf buf = {
			area + d.q[0].free_head * INPUT_SLOT_BYTES, 8, VDRV_W
		};

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
	iterate(2);
	input_expect_none(&d, area);
}

/* The host's device determines ours; force feedback is not passed on. */
static void test_config(void **state)
{
	vdrv_cfg_write(&d, 0, 2, VIRTIO_INPUT_CFG_ID_NAME);
	assert_int_equal(vdrv_cfg_read(&d, 2, 1), strlen("real keyboard"));
	vdrv_cfg_write(&d, 0, 2, VIRTIO_INPUT_CFG_ID_DEVIDS);
	assert_int_equal(vdrv_cfg_read(&d, 8, 4), 0x12340000 | BUS_USB);
	vdrv_cfg_write(&d, 0, 2, VIRTIO_INPUT_CFG_ID_SERIAL);
	assert_int_equal(vdrv_cfg_read(&d, 2, 1), 0);
	vdrv_cfg_write(&d, 0, 2, EV_KEY << 8 | VIRTIO_INPUT_CFG_EV_BITS);
	assert_int_equal(vdrv_cfg_read(&d, 2, 1), KEY_B / 8 + 1);
	vdrv_cfg_write(&d, 0, 2, EV_FF << 8 | VIRTIO_INPUT_CFG_EV_BITS);
	assert_int_equal(vdrv_cfg_read(&d, 2, 1), 0);
}

/*
 * Events pass; those before the driver do not (INPUT-09), nor do the host's
 * repeats, which the guest generates itself, nor LEDs (INPUT-14).
 */
static void test_events(void **state)
{
	key(KEY_B, 1);
	key(KEY_B, 0);
	iterate(2);
	assert_true(vdrv_start(&d, UINT64_MAX, 2));
	offer(20);
	expect_none();
	key(KEY_A, 1);
	key(KEY_A, 2);
	key(KEY_A, 0);
	happens(EV_LED, LED_CAPSL, 1);
	happens(EV_SYN, SYN_REPORT, 0);
	happens(EV_REL, REL_WHEEL, -1);
	happens(EV_SYN, SYN_REPORT, 0);
	iterate(2);
	expect(EV_KEY, KEY_A, 1);
	expect(EV_SYN, SYN_REPORT, 0);
	expect(EV_KEY, KEY_A, 0);
	expect(EV_SYN, SYN_REPORT, 0);
	expect(EV_REL, REL_WHEEL, -1);
	expect(EV_SYN, SYN_REPORT, 0);
	expect_none();

	vdrv_reset(&d);
	key(KEY_A, 1);
	iterate(2);
	assert_true(vdrv_start(&d, UINT64_MAX, 2));
	offer(20);
	expect_none();
}

/* The kernel dropped events: changes arrive, but no partial update. */
static void test_dropped(void **state)
{
	assert_true(vdrv_start(&d, UINT64_MAX, 2));
	offer(20);
	key(KEY_A, 1);
	iterate(2);
	expect(EV_KEY, KEY_A, 1);
	expect(EV_SYN, SYN_REPORT, 0);

	happens(EV_REL, REL_WHEEL, 7); /* its update is incomplete */
	keys_down[KEY_A / WORD_BITS] = 0;
	set_bit(keys_down, KEY_B);
	happens(EV_SYN, SYN_DROPPED, 0);
	happens(EV_SYN, SYN_REPORT, 0);
	iterate(3);
	expect(EV_KEY, KEY_A, 0);
	expect(EV_KEY, KEY_B, 1);
	expect(EV_SYN, SYN_REPORT, 0);
	expect_none();
}

/* hostile S16a: updates of any length from the host; INPUT-07: whole or not. */
static void test_long_updates(void **state)
{
	static const unsigned counts[] = { 11, 100, 1000 };

	assert_true(vdrv_start(&d, UINT64_MAX, 2));
	for (size_t k = 0; k < ARRAY_LEN(counts); k++) {
		unsigned got = 0, type, code;
		int value;

		for (unsigned i = 0; i < counts[k]; i++) {
			happens(EV_REL, REL_WHEEL, 1);
			iterate(1);
		}
		happens(EV_SYN, SYN_REPORT, 0);
		iterate(2);
		for (int i = 0; i < 30; i++) {
			offer(64);
			iterate(1);
			while (input_next_event(&d, area, &type, &code, &value))
				got++;
		}
		assert_int_equal(got, counts[k] > 255 ? 0 : counts[k] + 1);
	}
	key(KEY_A, 1);
	iterate(2);
	expect(EV_KEY, KEY_A, 1);
}

/* Without buffers the host's events stay unread, and all arrive later. */
static void test_back_pressure(void **state)
{
	unsigned got = 0, sent = 0, type, code;
	int value;

	assert_true(vdrv_start(&d, UINT64_MAX, 2));
	while (sent < 2000) {
		struct input_event ev[2] = {
			{ .type = EV_REL,
			  .code = REL_WHEEL,
			  .value = (int)sent },
			{ .type = EV_SYN },
		};

		if (write(host, ev, sizeof(ev)) == sizeof(ev)) {
			sent++;
			continue;
		}
		/* Full at both ends: no wake-up. */
		iterate(1);
		if (write(host, ev, sizeof(ev)) == sizeof(ev)) {
			sent++;
			continue;
		}
		for (int i = 0; i < 3; i++)
			assert_int_equal(vio_loop_iterate(loop, 2), 0);
		break;
	}
	assert_true(sent > 500);
	for (int i = 0; i < 5000 && got < sent; i++) {
		offer(64);
		iterate(1);
		while (input_next_event(&d, area, &type, &code, &value)) {
			if (type == EV_SYN)
				got++;
			else
				assert_int_equal(value, got);
		}
	}
	assert_int_equal(got, sent);
}

/* INPUT-08: LEDs are set on the host's device. */
static void test_leds(void **state)
{
	const uint8_t on[8] = { EV_LED, 0, LED_CAPSL, 0, 1, 0, 0, 0 };
	struct vdrv_buf buf = { area, 8, VDRV_R };
	struct input_event ev;

	assert_true(vdrv_start(&d, UINT64_MAX, 2));
	memcpy(vdrv_ptr(&d, area, 8), on, 8);
	vdrv_add(&d, 1, &buf, 1);
	vdrv_kick(&d, 1);
	assert_int_equal(read(host, &ev, sizeof(ev)), sizeof(ev));
	assert_int_equal(ev.type, EV_LED);
	assert_int_equal(ev.code, LED_CAPSL);
	assert_int_equal(ev.value, 1);
}

/* Unplugged: the guest keeps a silent device. */
static void test_gone(void **state)
{
	assert_true(vdrv_start(&d, UINT64_MAX, 2));
	offer(20);
	shutdown(host, SHUT_RDWR);
	close(host);
	host = -1;
	iterate(3);
	expect_none();
	vdrv_reset(&d);
	assert_true(vdrv_start(&d, UINT64_MAX, 2));
}

/* Unplugged with keys down: they are released. Replugged, it is used again. */
static void test_unplugged(void **state)
{
	struct opened_files files = { 0 };
	char word[] = "evdev", path[] = "/dev/x";
	char *const argv[] = { word, path, NULL };
	struct err err;
	int pair[2];

	assert_true(vdrv_start(&d, UINT64_MAX, 2));
	offer(20);
	key(KEY_B, 1);
	key(KEY_A, 1);
	iterate(2);
	expect(EV_KEY, KEY_B, 1);
	expect(EV_SYN, SYN_REPORT, 0);
	expect(EV_KEY, KEY_A, 1);
	expect(EV_SYN, SYN_REPORT, 0);
	happens(EV_REL, REL_WHEEL, 1); /* half an update */
	close(host);
	iterate(3);
	expect(EV_KEY, KEY_A, 0);
	expect(EV_KEY, KEY_B, 0);
	expect(EV_SYN, SYN_REPORT, 0);
	expect_none();

	memset(keys_down, 0, sizeof(keys_down));
	assert_int_equal(
		socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
	host = pair[0];
	opened_files_add(&files, "evdev", pair[1]);
	if (vdev_ctl(dev, 2, argv, &files, NULL, &err) < 0)
		fail_msg("%s", err.text);
	key(KEY_B, 1);
	iterate(2);
	expect(EV_KEY, KEY_B, 1);
	expect(EV_SYN, SYN_REPORT, 0);
	expect_none();
}

/* Answer like the opener. */
static void send_fd(int to, int take_fd)
{
	char byte = 0, control[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec iov = { &byte, 1 };
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = control,
			      .msg_controllen = sizeof(control) };
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);

	cmsg->cmsg_level = SOL_SOCKET;
	cmsg->cmsg_type = SCM_RIGHTS;
	cmsg->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(cmsg), &take_fd, sizeof(int));
	assert_int_equal(sendmsg(to, &msg, 0), 1);
	close(take_fd);
}

/* Replugged at the same path: the opener finds it, and it is used again. */
static void test_found_again(void **state)
{
	int pair[2];
	char byte;

	assert_true(vdrv_start(&d, UINT64_MAX, 2));
	offer(20);
	assert_true(recv(opener, &byte, 1, MSG_DONTWAIT) < 0);
	close(host);
	iterate(3);
	assert_int_equal(recv(opener, &byte, 1, MSG_DONTWAIT), 1);
	assert_int_equal(
		socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
	host = pair[0];
	send_fd(opener, pair[1]);
	iterate(3);
	key(KEY_B, 1);
	iterate(2);
	expect(EV_KEY, KEY_B, 1);
}

/* A restarted process needs a device that exists. */
static void test_reopened(void **state)
{
	static const struct vdev_type *type;
	struct opened_files files = { 0 };
	struct opts *own;
	struct err err;
	int first[2], again[2], next[2];
	char byte;

	assert_int_equal(vdev_parse("input,evdev=/dev/x", &type, &own, &err),
			 0);
	socketpair(AF_UNIX, SOCK_STREAM, 0, first);
	socketpair(AF_UNIX, SOCK_SEQPACKET, 0, again);
	socketpair(AF_UNIX, SOCK_STREAM, 0, next);
	opened_files_add(&files, "evdev", first[1]);
	opened_files_add(&files, "again", again[1]);
	assert_int_equal(vdev_reopen(type, own, &files), 0);
	assert_true(recv(again[0], &byte, 1, MSG_DONTWAIT) < 0);
	unplugged = true;
	assert_int_equal(vdev_reopen(type, own, &files), -EAGAIN);
	assert_int_equal(recv(again[0], &byte, 1, MSG_DONTWAIT), 1);
	send_fd(again[0], next[1]);
	assert_int_equal(vdev_reopen(type, own, &files), 0);
	unplugged = false;
	assert_int_equal(read(first[0], &byte, 1), 0); /* it was closed */
	assert_int_equal(write(opened_files_find(&files, "evdev"), "x", 1), 1);
	assert_int_equal(read(next[0], &byte, 1), 1);
	opened_files_close(&files);
	opts_free(own);
	close(first[0]);
	close(again[0]);
	close(next[0]);
}

/* A device other than the guest's is rejected, as is a missing file. */
static void test_not_the_same(void **state)
{
	struct opened_files files = { 0 };
	char word[] = "evdev", path[] = "/dev/x";
	char *const argv[] = { word, path, NULL };
	struct err err;
	int pair[2];

	assert_int_equal(vdev_ctl(dev, 2, argv, &files, NULL, &err), -EINVAL);
	assert_int_equal(
		socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
	opened_files_add(&files, "evdev", pair[1]);
	product = PRODUCT + 1;
	assert_int_equal(vdev_ctl(dev, 2, argv, &files, NULL, &err), -EINVAL);
	product = PRODUCT;
	assert_int_equal(read(pair[0], path, 1), 0); /* it was closed */
	close(pair[0]);
	assert_true(vdrv_start(&d, UINT64_MAX, 2));
	offer(20);
	key(KEY_A, 1);
	iterate(2);
	expect(EV_KEY, KEY_A, 1);
}

/* Bytes that the device has not read. */
static int unread(void)
{
	int n = -1;

	assert_int_equal(syscall(SYS_ioctl, host, SIOCOUTQ, &n), 0);
	return n;
}

/* Events not passed on are read as well; but a flood takes turns. */
static void test_flood(void **state)
{
	static struct input_event repeats[1500]; /* that are not passed on */

	for (size_t i = 0; i < ARRAY_LEN(repeats); i++)
		repeats[i] = (struct input_event){ .type = EV_KEY,
						   .code = KEY_A,
						   .value = 2 };
	assert_true(vdrv_start(&d, UINT64_MAX, 2));
	offer(4);
	iterate(2);
	assert_int_equal(write(host, repeats, sizeof(repeats)),
			 sizeof(repeats));
	vio_loop_iterate(loop, 2);
	assert_true(unread() > 0);
	iterate(100);
	assert_int_equal(unread(), 0);
	key(KEY_B, 1);
	iterate(20);
	expect(EV_KEY, KEY_B, 1);
}

/* A key that is held at this host does not stay down at another one. */
static void test_held_keys(void **state)
{
	const struct virtio_consts *vc = dev->vs->vs_vc;
	uint8_t saved[256];
	ssize_t len;

	assert_true(vdrv_start(&d, UINT64_MAX, 2));
	offer(4);
	key(KEY_A, 1);
	key(KEY_B, 1);
	key(KEY_B, 0);
	iterate(2);
	expect(EV_KEY, KEY_A, 1);
	expect(EV_SYN, SYN_REPORT, 0);
	expect(EV_KEY, KEY_B, 1);
	expect(EV_SYN, SYN_REPORT, 0);
	len = vc->vc_save(dev->vs, saved, sizeof(saved));
	assert_true(len > 0);
	/* Like another device: it gets the expected events. */
	assert_int_equal(vc->vc_load(dev->vs, saved, (size_t)len), 0);
	offer(10);
	expect(EV_KEY, KEY_B, 0);
	expect(EV_SYN, SYN_REPORT, 0);
	expect(EV_KEY, KEY_A, 0);
	expect(EV_SYN, SYN_REPORT, 0);
	expect_none();
}

#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_config),       T(test_events),        T(test_dropped),
		T(test_long_updates), T(test_back_pressure), T(test_leds),
		T(test_unplugged),    T(test_found_again),   T(test_reopened),
		T(test_not_the_same), T(test_gone),          T(test_held_keys),
		T(test_flood),
	};

	return cmocka_run_group_tests_name("input of the host's", tests, NULL,
					   NULL);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * libFuzzer: a driver that puts what it likes into the rings of a console
 * device, while the host writes, reads, and removes ports. Steps of 8 bytes.
 */
#include <fcntl.h>
#include <json-c/json.h>
#include <linux/virtio_console.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <viodev/device.h>
#include <viodev/loop.h>

#include "dev/vdev.h"
#include "moved.h"
#include "vdrv.h"

#define AREA (64u << 10) /* of guest memory that is played in */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* One of each kind is made and kept: every input begins with a reset. */
static struct victim {
	struct vdrv d;
	struct vdev *dev;
	uint64_t area;
	int host[2];
	unsigned nr_queues;
} victims[4];

static struct ev_loop *loop;

static void make(struct victim *v, unsigned kind)
{
	int a[2], b[2];
	char text[128], why[256];

	if ((!loop && ev_loop_create(&loop) < 0) ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, a) < 0 ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, b) < 0)
		abort();
	vdrv_init(&v->d, kind & 1 ? VDRV_LEGACY : VDRV_MODERN);
	v->nr_queues = kind & 2 ? 2 : 6;
	if (kind & 2)
		snprintf(text, sizeof(text), "console,console=fd:%d,%s", a[1],
			 "queue-size=16");
	else
		snprintf(text, sizeof(text),
			 "console,console=fd:%d,port.x=fd:%d,%s", a[1], b[1],
			 "queue-size=16");
	if (vdev_new(text, &v->d.pi, loop, &v->dev, why, sizeof(why)) < 0)
		abort();
	close(a[1]);
	close(b[1]);
	v->host[0] = a[0];
	v->host[1] = b[0];
	v->area = vdrv_alloc(&v->d, AREA, 4096);
}

static unsigned queue(const struct victim *v, const uint8_t *s)
{
	return s[7] % v->nr_queues;
}

static void put_desc(struct victim *v, const uint8_t *s)
{
	uint64_t gpa = v->area + ((s[3] << 8 | s[4]) & (AREA - 1));
	uint32_t len = s[5] & 0x80 ? (uint32_t)(s[5] & 0x7f) << 8 : s[5];

	if (s[6] & 0x80)
		gpa = (uint64_t)s[3] << 56 | (uint64_t)s[4] << 20;
	vdrv_desc(&v->d, queue(v, s), s[1] & 15, gpa, len, s[2] & 7,
		  s[6] & 31);
}

static void put_message(struct victim *v, const uint8_t *s)
{
	uint8_t *p = vdrv_ptr(&v->d, v->area + (s[1] << 3), 8);

	memset(p, 0, 8);
	p[0] = s[2];
	p[3] = s[3] & 0x80;
	p[4] = s[4];
	p[6] = s[5];
}

static void ctl(struct victim *v, const uint8_t *s)
{
	static char words[][8] = { "port", "add", "x", "remove", "resize" };
	struct json_object *reply = json_object_new_object();
	char num[8];
	char *const argv[3][4] = {
		{ words[0], words[1], words[2] },
		{ words[0], words[3], words[2] },
		{ words[4], num, num },
	};
	struct vdev_files none = { .nr = 0 };
	struct err err;

	snprintf(num, sizeof(num), "%u", s[2]);
	vdev_ctl(v->dev, 3, argv[s[1] % 3], &none, reply, &err);
	json_object_put(reply);
}

static void host(struct victim *v, const uint8_t *s)
{
	int fd = v->host[v->nr_queues > 2 && (s[1] & 1)];
	char buf[4096] = "";
	ssize_t n;

	if (s[2] & 1)
		n = write(fd, buf, s[3] << 4);
	else
		n = read(fd, buf, s[3] << 4);
	if (n >= 0)
		ev_loop_turn(loop, 0);
}

static void step(struct victim *v, const uint8_t *s)
{
	struct vdrv *d = &v->d;

	switch (s[0] & 15) {
	case 0:
	case 1:
	case 2:
		put_desc(v, s);
		break;
	case 3:
	case 4:
		put_message(v, s);
		break;
	case 5:
	case 6:
	case 7:
		vdrv_avail(d, queue(v, s), s[1] & 31);
		break;
	case 8:
	case 9:
		vdrv_kick(d, queue(v, s));
		break;
	case 10:
		vdrv_cfg_write(d, s[1] & 15, 1 << (s[2] % 3), s[3]);
		vdrv_cfg_read(d, s[1] & 15, 1 << (s[2] % 3));
		break;
	case 11:
		ctl(v, s);
		break;
	case 12:
	case 13:
		host(v, s);
		break;
	case 14:
		ev_loop_turn(loop, 0);
		break;
	case 15:
		if (s[1] == 7)
			vdrv_start(d, ~0ull, v->nr_queues);
		else if (s[1] < 16)
			moved_fuzz(v->dev->vs, s);
		break;
	}
}

/* A driver that has said that it is there comes further. */
static void say_ready(struct victim *v)
{
	uint8_t *p = vdrv_ptr(&v->d, v->area, 24);

	if (v->nr_queues < 6)
		return;
	p[6] = 1; /* DEVICE_READY; then port 1 is open */
	p[8] = p[16] = 1;
	p[12] = VIRTIO_CONSOLE_PORT_READY;
	p[20] = VIRTIO_CONSOLE_PORT_OPEN;
	p[14] = p[22] = 1;
	for (uint16_t i = 0; i < 3; i++) {
		vdrv_desc(&v->d, 3, i, v->area + 8 * i, 8, 0, 0);
		vdrv_avail(&v->d, 3, i);
		vdrv_desc(&v->d, 2, i, v->area + 256 + 64 * i, 64, 2, 0);
		vdrv_avail(&v->d, 2, i);
	}
	vdrv_kick(&v->d, 3);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct victim *v;
	uint64_t next_free;

	if (len < 9)
		return 0;
	v = &victims[data[0] & 3];
	if (!v->dev)
		make(v, data[0] & 3);
	memset(vdrv_ptr(&v->d, v->area, AREA), 0, AREA);
	next_free = v->d.next_free;
	vdrv_start(&v->d, data[0] & 8 ? ~0ull : ~(1ull << (data[0] >> 4)),
		   v->nr_queues);
	if (data[0] & 4)
		say_ready(v);
	for (data++, len--; len >= 8; data += 8, len -= 8)
		step(v, data);
	for (int i = 0; i < 3; i++)
		ev_loop_turn(loop, 0);
	vdrv_reset(&v->d);
	v->d.next_free = next_free;
	return 0;
}

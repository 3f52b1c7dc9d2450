/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * libFuzzer: a driver that puts what it likes into the rings of a block
 * device, on a file in memory.
 *
 * The input is a list of steps of 8 bytes: build a descriptor, fill a header,
 * offer a head, kick, write configuration, reset.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <viodev/device.h>
#include <viodev/loop.h>

#include "vdrv.h"

#define IMAGE_BYTES (1 << 20)
#define AREA        (64u << 10) /* of guest memory that is played in */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* One of each kind is made and kept: every input begins with a reset. */
static struct victim {
	struct vdrv d;
	struct vdev *dev;
	uint64_t area;
} victims[8];

static struct ev_loop *loop;

static void make(struct victim *v, unsigned kind)
{
	static const char *const options[] = {
		"",
		",ro=on",
		",cache=writethrough",
		",queues=2,discard=off",
	};
	int image = memfd_create("image", 0);
	char text[128], why[256];

	if (image < 0 || ftruncate(image, IMAGE_BYTES) < 0 ||
	    (!loop && ev_loop_create(&loop) < 0))
		abort();
	vdrv_init(&v->d, kind & 4 ? VDRV_LEGACY : VDRV_MODERN);
	snprintf(text, sizeof(text), "block,path=/proc/self/fd/%d,%s%s", image,
		 "queue-size=16", options[kind & 3]);
	if (vdev_new(text, &v->d.pi, loop, &v->dev, why, sizeof(why)) < 0)
		abort();
	v->area = vdrv_alloc(&v->d, AREA, 4096);
	close(image);
}

/* A buffer: most lie in the area, some anywhere. */
static void put_desc(struct victim *v, const uint8_t *s)
{
	uint64_t gpa = v->area + ((s[3] << 8 | s[4]) & (AREA - 1));
	uint32_t len = s[5] & 0x80 ? (uint32_t)(s[5] & 0x7f) << 9 : s[5];

	if (s[6] & 0x80)
		gpa = (uint64_t)s[3] << 56 | (uint64_t)s[4] << 20;
	vdrv_desc(&v->d, 0, s[1] & 15, gpa, len, s[2] & 7, s[6] & 31);
}

static void put_header(struct victim *v, const uint8_t *s)
{
	uint8_t *p = vdrv_ptr(&v->d, v->area + (s[1] << 4), 16);

	memset(p, 0, 16);
	p[0] = s[2];
	p[3] = s[3] & 0x80;
	p[8] = s[4];
	p[9] = s[5] & 15;
	p[15] = s[6] & 0xf0;
}

static void step(struct victim *v, const uint8_t *s)
{
	struct vdrv *d = &v->d;

	switch (s[0] & 7) {
	case 0:
	case 1:
		put_desc(v, s);
		break;
	case 2:
		put_header(v, s);
		break;
	case 3:
		vdrv_avail(d, 0, s[1] & 31);
		break;
	case 4:
		vdrv_kick(d, 0);
		break;
	case 5:
		vdrv_cfg_write(d, s[1] & 0x7c, 1 << (s[2] % 3), s[3]);
		vdrv_cfg_read(d, s[1] & 0x7c, 1 << (s[2] % 3));
		break;
	case 6:
		ev_loop_turn(loop, 0);
		break;
	case 7:
		if (s[1] == 7)
			vdrv_start(d, ~0ull, 1);
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct victim *v;
	uint64_t next_free;

	if (len < 9)
		return 0;
	v = &victims[data[0] & 7];
	if (!v->dev)
		make(v, data[0] & 7);
	memset(vdrv_ptr(&v->d, v->area, AREA), 0, AREA);
	next_free = v->d.next_free;
	vdrv_start(&v->d, data[0] & 8 ? ~0ull : ~(1ull << (data[0] >> 4)), 1);
	for (data++, len--; len >= 8; data += 8, len -= 8)
		step(v, data);
	vdrv_kick(&v->d, 0);
	for (int i = 0; i < 3; i++)
		ev_loop_turn(loop, 0);
	vdrv_reset(&v->d);
	v->d.next_free = next_free;
	return 0;
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * libFuzzer: a driver that puts what it likes into the rings of an input
 * device, while ctl injects what it likes. Steps of 8 bytes.
 */
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <viodev/device.h>
#include <viodev/loop.h>

#include "dev/vdev.h"
#include "moved.h"
#include "vdrv.h"

#define AREA (16u << 10) /* of guest memory that is played in */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* One of each kind is made and kept: every input begins with a reset. */
static struct victim {
	struct vdrv d;
	struct vdev *dev;
	uint64_t area;
} victims[4];

static struct ev_loop *loop;

static void make(struct victim *v, unsigned kind)
{
	static const char *const texts[] = {
		"input,kind=keyboard,queue-size=16",
		"input,kind=mouse,queue-size=16",
		"input,kind=tablet,queue-size=16",
		"input,kind=multitouch,queue-size=16",
	};
	char why[256];

	if (!loop && ev_loop_create(&loop) < 0)
		abort();
	vdrv_init(&v->d, VDRV_MODERN);
	if (vdev_new(texts[kind], &v->d.pi, loop, &v->dev, why, sizeof(why)) <
	    0)
		abort();
	v->area = vdrv_alloc(&v->d, AREA, 4096);
}

static void put_desc(struct victim *v, const uint8_t *s)
{
	uint64_t gpa = v->area + ((s[3] << 8 | s[4]) & (AREA - 1));

	if (s[6] & 0x80)
		gpa = (uint64_t)s[3] << 56 | (uint64_t)s[4] << 20;
	vdrv_desc(&v->d, s[7] & 1, s[1] & 15, gpa, s[5], s[2] & 7, s[6] & 31);
}

static void inject(struct victim *v, const uint8_t *s)
{
	static const char *const types[] = { "key", "btn", "rel", "abs",
					     "msc", "sw",  "syn", "" };
	struct json_object *reply = json_object_new_object();
	char words[3][16], *argv[11];
	struct vdev_files none = { .nr = 0 };
	struct err err;
	int argc = 1 + s[5] % 10;

	strcpy(words[0], types[s[1] & 7]);
	if (s[2] & 0x80)
		snprintf(words[1], sizeof(words[1]), "%c%c", s[3] | 1, s[4]);
	else
		snprintf(words[1], sizeof(words[1]), "%d", s[3] << 2 | s[4]);
	snprintf(words[2], sizeof(words[2]), "%d", (int8_t)s[6]);
	argv[0] = (char[]){ "inject" };
	for (int i = 1; i <= 10; i++)
		argv[i] = words[(i - 1) % 3];
	argv[argc] = NULL;
	vdev_ctl(v->dev, argc, argv, &none, reply, &err);
	json_object_put(reply);
}

static void step(struct victim *v, const uint8_t *s)
{
	struct vdrv *d = &v->d;

	switch (s[0] & 7) {
	case 0:
		put_desc(v, s);
		break;
	case 1:
		memcpy(vdrv_ptr(d, v->area + (s[1] << 3), 8), s, 8);
		break;
	case 2:
		vdrv_avail(d, s[7] & 1, s[1] & 31);
		break;
	case 3:
		vdrv_kick(d, s[7] & 1);
		break;
	case 4:
		vdrv_cfg_write(d, s[1], 1 << (s[2] % 3),
			       s[3] | (uint32_t)s[4] << 8);
		vdrv_cfg_read(d, s[5], 1 << (s[2] % 3));
		break;
	case 5:
		inject(v, s);
		break;
	case 6:
		ev_loop_turn(loop, 0);
		break;
	case 7:
		if (s[1] == 7)
			vdrv_start(d, ~0ull, 2);
		else if (s[1] < 16)
			moved_fuzz(v->dev->vs, s);
		break;
	}
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
	vdrv_start(&v->d, data[0] & 8 ? ~0ull : ~(1ull << (data[0] >> 4)), 2);
	for (data++, len--; len >= 8; data += 8, len -= 8)
		step(v, data);
	for (int i = 0; i < 3; i++)
		ev_loop_turn(loop, 0);
	vdrv_reset(&v->d);
	v->d.next_free = next_free;
	return 0;
}

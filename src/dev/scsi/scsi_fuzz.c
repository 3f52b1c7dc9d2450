/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * libFuzzer: a driver that sends commands and control requests of its liking
 * to a SCSI device with a disk, one of 4 KiB blocks, and a CD-ROM.
 *
 * The input is a list of steps of 24 bytes: what to do, lengths, a CDB or a
 * control request.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <viodev/device.h>
#include <viodev/loop.h>

#include "dev/vdev.h"
#include "moved.h"
#include "vdrv.h"

#define IMAGE_BYTES (1 << 20)
#define AREA        (256u << 10) /* of guest memory that is played in */
#define STEP        24

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static struct victim {
	struct vdrv d;
	struct vdev *dev;
	uint64_t area;
} victims[2];

static struct ev_loop *loop;

static int make_image(void)
{
	int fd = memfd_create("image", 0);

	if (fd < 0 || ftruncate(fd, IMAGE_BYTES) < 0)
		abort();
	return fd;
}

static void make(struct victim *v, bool legacy)
{
	int disk = make_image(), big = make_image(), cd = make_image();
	int pr = memfd_create("pr", 0);
	char text[300], why[256];

	if (!loop && ev_loop_create(&loop) < 0)
		abort();
	vdrv_init(&v->d, legacy ? VDRV_LEGACY : VDRV_MODERN);
	snprintf(text, sizeof(text),
		 "scsi,lun0=/proc/self/fd/%d,lun1=/proc/self/fd/%d,"
		 "lun1.block-size=4096,t1.lun0=/proc/self/fd/%d,"
		 "t1.lun0.type=cdrom,reservations=/proc/self/fd/%d,"
		 "queue-size=16,queues=2",
		 disk, big, cd, pr);
	if (vdev_new(text, &v->d.pi, loop, &v->dev, why, sizeof(why)) < 0) {
		fprintf(stderr, "%s\n", why);
		abort();
	}
	v->area = vdrv_alloc(&v->d, AREA, 4096);
	close(disk);
	close(big);
	close(cd);
	close(pr);
}

static void drop_used(struct vdrv *d)
{
	for (unsigned q = 0; q < 4; q++)
		while (d->q[q].ready && vdrv_used(d, q, NULL))
			;
}

/* A command: mostly of the right shape. */
static void command(struct victim *v, const uint8_t *s)
{
	struct vdrv *d = &v->d;
	uint8_t *p = vdrv_ptr(&v->d, v->area, AREA);
	unsigned q = 2 + (s[1] & 1);
	uint32_t len = (uint32_t)(s[2] << 8 | s[3]);
	uint32_t req_len = s[1] & 2 ? s[4] : 51,
		 resp_len = s[1] & 4 ? s[4] : 108;
	struct vdrv_buf bufs[4];
	unsigned n = 0;

	if (d->q[q].nr_free < 4)
		return;
	memset(p, 0, 51);
	p[0] = s[1] & 8 ? s[4] : 1;
	p[1] = s[5] & 1;
	p[2] = s[1] & 16 ? s[4] : 0x40;
	p[3] = s[5] >> 1 & 1;
	p[8] = s[6];
	p[16] = s[5] >> 2 & 3;
	memcpy(p + 19, s + 8, 16);
	bufs[n++] = (struct vdrv_buf){ v->area, req_len, VDRV_R };
	if (s[1] & 32)
		bufs[n++] = (struct vdrv_buf){ v->area + 4096 + s[7] * 8, len,
					       VDRV_R };
	bufs[n++] = (struct vdrv_buf){ v->area + 1024, resp_len, VDRV_W };
	if (!(s[1] & 32) || (s[1] & 192) == 192)
		bufs[n++] =
			(struct vdrv_buf){ v->area + (128 << 10), len, VDRV_W };
	vdrv_add(d, q, bufs, n);
	if (s[1] & 64)
		vdrv_kick(d, q);
}

static void control(struct victim *v, const uint8_t *s)
{
	struct vdrv_buf bufs[] = {
		{ v->area + 512, s[1] & 31, VDRV_R },
		{ v->area + 600, s[2] & 7, VDRV_W },
	};

	if (v->d.q[0].nr_free < 2)
		return;
	memcpy(vdrv_ptr(&v->d, v->area + 512, 32), s + 3, STEP - 3);
	vdrv_add(&v->d, 0, bufs, 2);
	vdrv_kick(&v->d, 0);
}

static void hotplug(struct victim *v, const uint8_t *s)
{
	struct vdrv_buf buf = { v->area + 700, s[2] & 31, VDRV_W };

	if (v->d.q[1].nr_free > 0 && (s[1] & 1)) {
		vdrv_add(&v->d, 1, &buf, 1);
		vdrv_kick(&v->d, 1);
	}
}

static void step(struct victim *v, const uint8_t *s)
{
	switch (s[0] & 7) {
	case 0:
	case 1:
	case 2:
		command(v, s);
		break;
	case 3:
		control(v, s);
		break;
	case 4:
		hotplug(v, s);
		break;
	case 5: /* data out of the next commands */
		memcpy(vdrv_ptr(&v->d, v->area + 4096 + s[1] * 8, 32), s + 2,
		       STEP - 2);
		break;
	case 6:
		ev_loop_turn(loop, 0);
		drop_used(&v->d);
		break;
	case 7:
		if (s[1] < 64)
			vdrv_cfg_write(&v->d, s[1] % 36u, 1, s[2]);
		else if (s[1] == 64)
			vdrv_start(&v->d, ~0ull, 4);
		else if (s[1] < 72)
			moved_fuzz(v->dev->vs, s);
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct victim *v;
	uint64_t next_free;

	if (len < 1 + STEP)
		return 0;
	v = &victims[data[0] & 1];
	if (!v->dev)
		make(v, data[0] & 1);
	memset(vdrv_ptr(&v->d, v->area, AREA), 0, AREA);
	next_free = v->d.next_free;
	vdrv_start(&v->d, ~0ull, 4);
	for (data++, len--; len >= STEP; data += STEP, len -= STEP)
		step(v, data);
	for (unsigned q = 0; q < 4; q++)
		vdrv_kick(&v->d, q);
	for (int i = 0; i < 3; i++)
		ev_loop_turn(loop, 0);
	vdrv_reset(&v->d);
	v->d.next_free = next_free;
	return 0;
}

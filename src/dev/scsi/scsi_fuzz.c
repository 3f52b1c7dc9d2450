/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzz target: a driver that sends any commands and control requests to a SCSI
 * device with a disk, one of 4 KiB blocks without a write cache, and a CD-ROM,
 * on files in memory; or puts anything into the rings.
 */
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "dev/vdev.h"
#include "fuzz_dev.h"
#include "moved.h"

#define IMAGE_BYTES (256 << 10)
#define NR_QUEUES   4u
#define MOVED_BYTES 24

/* Where requests, responses, data out and data in are in the area. */
#define REQ_AT  0u
#define RESP_AT 1024u
#define OUT_AT  4096u
#define IN_AT   (32u << 10)

static struct fuzz_dev kinds[2];
static bool wild; /* the rings as well: used entries are not checked then */

static bool is_wild(const struct fuzz_dev *v)
{
	return wild || v->in;
}

static int make_image(void)
{
	int fd = memfd_create("image", 0);

	fuzz_must(fd >= 0 && ftruncate(fd, IMAGE_BYTES) == 0);
	return fd;
}

static void setup(void)
{
	for (unsigned i = 0; i < 2; i++) {
		int disk = make_image(), big = make_image(), cd = make_image();
		int pr = memfd_create("pr", 0);
		char text[400];

		snprintf(text, sizeof(text),
			 "scsi,lun0=/proc/self/fd/%d,lun1=/proc/self/fd/%d,"
			 "lun1.block-size=4096,lun1.cache=writethrough,"
			 "t1.lun0=/proc/self/fd/%d,t1.lun0.type=cdrom,"
			 "reservations=/proc/self/fd/%d,queue-size=16,queues=2",
			 disk, big, cd, pr);
		fuzz_dev_make(&kinds[i], i ? VDRV_LEGACY : VDRV_MODERN, text);
		close(disk);
		close(big);
		close(cd);
		close(pr);
	}
}

/* The usual length, or any. */
static uint32_t length(struct fuzz_in *in, uint32_t usual)
{
	return fuzz_one_in(in, 16) ? (uint32_t)fuzz_int(in, 1) : usual;
}

static void add_request(struct fuzz_dev *v, struct fuzz_in *in)
{
	uint8_t *p = fuzz_dev_ptr(v, REQ_AT, 51);

	memset(p, 0, 51);
	p[0] = 1;
	p[1] = (uint8_t)fuzz_choice(in, 2);
	p[2] = 0x40;
	p[3] = (uint8_t)fuzz_choice(in, 2);
	if (fuzz_one_in(in, 16))
		fuzz_bytes(in, p, 8);
	p[8] = (uint8_t)fuzz_choice(in, 8);
	p[16] = (uint8_t)fuzz_choice(in, 4);
	fuzz_bytes(in, p + 19, 16);
}

/* A command, mostly well-formed. */
static void command(struct fuzz_dev *v, struct fuzz_in *in)
{
	unsigned q = 2 + fuzz_choice(in, 2), shape = fuzz_choice(in, 16), n = 0;
	uint32_t len = (uint32_t)fuzz_choice(in, 64) << 9;
	struct vdrv_buf bufs[4];

	if (!v->d.q[q].ready || v->d.q[q].nr_free < 4)
		return;
	add_request(v, in);
	bufs[n++] =
		(struct vdrv_buf){ v->area + REQ_AT, length(in, 51), VDRV_R };
	if (shape & 1)
		bufs[n++] = (struct vdrv_buf){ v->area + OUT_AT,
					       shape == 7 ? length(in, 24) :
					       len        ? len :
							    24,
					       VDRV_R };
	bufs[n++] =
		(struct vdrv_buf){ v->area + RESP_AT, length(in, 108), VDRV_W };
	if (!(shape & 1) || shape == 15)
		bufs[n++] = (struct vdrv_buf){ v->area + IN_AT, len, VDRV_W };
	vdrv_add(&v->d, q, bufs, n);
	if (shape & 8)
		fuzz_dev_kick(v, q);
}

/* Data out: parameter lists begin with it. */
static void add_data(struct fuzz_dev *v, struct fuzz_in *in)
{
	fuzz_bytes(in, fuzz_dev_ptr(v, OUT_AT + fuzz_choice(in, 4) * 24, 24),
		   24);
}

static void control(struct fuzz_dev *v, struct fuzz_in *in)
{
	struct vdrv_buf bufs[] = {
		{ v->area + 512, length(in, 24), VDRV_R },
		{ v->area + 600, length(in, 1), VDRV_W },
	};
	uint8_t *p = fuzz_dev_ptr(v, 512, 32);

	if (!v->d.q[0].ready || v->d.q[0].nr_free < 2)
		return;
	memset(p, 0, 32);
	p[0] = (uint8_t)fuzz_choice(in, 4);
	p[4] = (uint8_t)fuzz_choice(in, 10);
	p[8] = 1;
	p[9] = (uint8_t)fuzz_choice(in, 3);
	p[11] = (uint8_t)fuzz_choice(in, 3);
	p[16] = (uint8_t)fuzz_choice(in, 8);
	vdrv_add(&v->d, 0, bufs, 2);
	fuzz_dev_kick(v, 0);
}

static void event_buffer(struct fuzz_dev *v, struct fuzz_in *in)
{
	struct vdrv_buf buf = { v->area + 700, length(in, 16), VDRV_W };

	if (!v->d.q[1].ready || v->d.q[1].nr_free < 1)
		return;
	vdrv_add(&v->d, 1, &buf, 1);
	fuzz_dev_kick(v, 1);
}

static void plug(struct fuzz_dev *v, struct fuzz_in *in)
{
	static char words[][8] = { "lun", "remove", "add", "resume", "lun1" };
	char *const remove[] = { words[0], words[1], words[4] };
	char *const add[] = { words[0], words[2], words[4] };
	char *const resume[] = { words[3] };
	char *const *const argv[] = { remove, add, resume };
	struct json_object *reply = json_object_new_object();
	unsigned which = fuzz_choice(in, 3);
	struct opened_files none = { .nr = 0 };
	struct err err;

	vdev_ctl(v->dev, which == 2 ? 1 : 3, argv[which], &none, reply, &err);
	json_object_put(reply);
}

static void drop_used(struct fuzz_dev *v)
{
	fuzz_dev_iterate();
	vdrv_wake(&v->d);
	for (unsigned q = 0; q < NR_QUEUES; q++) {
		if (v->in && fuzz_dev_inflight(v, q) == 0)
			vdrv_forget_chains(&v->d, q);
		while (!is_wild(v) && v->d.q[q].ready &&
		       vdrv_used(&v->d, q, NULL))
			;
	}
}

static void rare(struct fuzz_dev *v, struct fuzz_in *in)
{
	uint8_t state[MOVED_BYTES];

	switch (fuzz_choice(in, 8)) {
	case 0:
		fuzz_dev_restart(v, fuzz_int(in, 8));
		break;
	case 1:
		plug(v, in);
		break;
	case 2:
		fuzz_bytes(in, state, sizeof(state));
		moved_fuzz(v->dev->vs, state);
		break;
	case 3:
		pci_quiesce(&v->d.pi);
		break;
	default:
		fuzz_dev_config(v, in);
	}
}

static void step(struct fuzz_dev *v, struct fuzz_in *in)
{
	unsigned q = fuzz_choice(in, NR_QUEUES);

	switch (fuzz_dev_next(v, 16, in)) {
	case 0:
		control(v, in);
		break;
	case 1:
		event_buffer(v, in);
		break;
	case 2:
	case 3:
		add_data(v, in);
		break;
	case 4:
		drop_used(v);
		break;
	case 5:
		if (is_wild(v))
			fuzz_dev_desc(v, q, in);
		break;
	case 6:
		if (is_wild(v))
			fuzz_dev_avail(v, q, in);
		break;
	case 7:
		fuzz_dev_kick(v, q);
		break;
	case 8:
		if (fuzz_one_in(in, 8))
			rare(v, in);
		break;
	case 16: /* a step of disorder */
		break;
	default:
		command(v, in);
	}
}

static void run(struct fuzz_in *in)
{
	struct fuzz_dev *v = &kinds[fuzz_choice(in, 2)];

	wild = fuzz_bool(in);
	fuzz_dev_start(v, ~0ull, NR_QUEUES);
	while (fuzz_more(in))
		step(v, in);
	for (unsigned q = 0; q < NR_QUEUES; q++)
		fuzz_dev_kick(v, q);
	fuzz_dev_end(v);
}

const struct fuzz_target fuzz_target = { .setup = setup, .run = run };

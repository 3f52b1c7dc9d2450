/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzz target: a driver that puts anything into the rings of a block device, on
 * a file in memory. Half of the devices are not told that it is in memory:
 * their requests go through io_uring, and are in flight for a while.
 */
#include <linux/magic.h>
#include <linux/virtio_blk.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "fuzz_dev.h"

#define IMAGE_BYTES (1 << 20)
#define NR_KINDS    16u

static struct fuzz_dev kinds[NR_KINDS];
static bool on_disk; /* what fstatfs() reports */

int fstatfs(int fd, struct statfs *fs)
{
	int ret = (int)syscall(SYS_fstatfs, fd, fs);

	if (ret == 0 && on_disk)
		fs->f_type = EXT4_SUPER_MAGIC;
	return ret;
}

static void make(struct fuzz_dev *v, unsigned kind)
{
	static const char *const options[] = {
		"",
		",ro=on",
		",cache=writethrough",
		",queues=2,discard=off",
	};
	int image = memfd_create("image", 0);
	char text[128];

	on_disk = kind & 8;
	fuzz_must(image >= 0 && ftruncate(image, IMAGE_BYTES) == 0);
	snprintf(text, sizeof(text), "block,path=/proc/self/fd/%d,%s%s", image,
		 "queue-size=16", options[kind & 3]);
	fuzz_dev_make(v, kind & 4 ? VDRV_LEGACY : VDRV_MODERN, text);
	close(image);
}

static void setup(void)
{
	for (unsigned i = 0; i < NR_KINDS; i++)
		make(&kinds[i], i);
}

/* A request's header, mostly valid. */
static void write_header(struct fuzz_dev *v, struct fuzz_in *in)
{
	uint8_t *p = fuzz_dev_ptr(v, (size_t)fuzz_choice(in, 256) << 4, 16);

	memset(p, 0, 16);
	p[0] = (uint8_t)fuzz_choice(in, 16);
	p[8] = (uint8_t)fuzz_int(in, 1);
	p[9] = (uint8_t)fuzz_choice(in, 16);
	if (fuzz_one_in(in, 16))
		fuzz_bytes(in, p, 16);
}

/* A well-formed read or write of a sector, or a flush. */
static void add_request(struct fuzz_dev *v, unsigned q, struct fuzz_in *in)
{
	static const uint8_t types[] = { VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT,
					 VIRTIO_BLK_T_FLUSH };
	uint8_t type = types[fuzz_choice(in, 3)];
	bool flush = type == VIRTIO_BLK_T_FLUSH;
	unsigned data = type == VIRTIO_BLK_T_IN ? VRING_DESC_F_WRITE : 0;
	uint8_t *hdr = fuzz_dev_ptr(v, 0, 16);

	if (!v->d.q[q].ready || v->d.q[q].size < 3)
		return;
	memset(hdr, 0, 16);
	hdr[0] = type;
	hdr[8] = flush ? 0 : (uint8_t)fuzz_int(in, 1);
	vdrv_desc(&v->d, q, 0, v->area, 16, VRING_DESC_F_NEXT, flush ? 2 : 1);
	vdrv_desc(&v->d, q, 1, v->area + 512, 512,
		  (uint16_t)(VRING_DESC_F_NEXT | data), 2);
	vdrv_desc(&v->d, q, 2, v->area + 16, 1, VRING_DESC_F_WRITE, 0);
	vdrv_avail(&v->d, q, 0);
}

/* Before the kernel has the request, or before its result is reaped. */
static void reset_in_flight(struct fuzz_dev *v, unsigned q, struct fuzz_in *in)
{
	add_request(v, q, in);
	fuzz_dev_kick(v, q);
	if (fuzz_bool(in))
		fuzz_dev_iterate();
	fuzz_dev_restart(v, fuzz_int(in, 8));
}

static void step(struct fuzz_dev *v, struct fuzz_in *in)
{
	unsigned q = fuzz_choice(in, v->nr_queues);

	switch (fuzz_dev_next(v, 8, in)) {
	case 0:
	case 1:
		fuzz_dev_desc(v, q, in);
		break;
	case 2:
		write_header(v, in);
		break;
	case 3:
		fuzz_dev_avail(v, q, in);
		break;
	case 4:
		fuzz_dev_kick(v, q);
		break;
	case 5:
		fuzz_dev_config(v, in);
		break;
	case 6:
		fuzz_dev_iterate();
		break;
	case 7:
		switch (fuzz_choice(in, 32)) {
		case 30:
			reset_in_flight(v, q, in);
			break;
		case 31:
			fuzz_dev_restart(v, fuzz_int(in, 8));
			break;
		}
		break;
	}
}

static void run(struct fuzz_in *in)
{
	unsigned kind = fuzz_choice(in, NR_KINDS);
	struct fuzz_dev *v = &kinds[kind];
	uint64_t without = VI_BIT(fuzz_choice(in, 64));

	fuzz_dev_start(v, fuzz_bool(in) ? ~without : ~0ull,
		       (kind & 3) == 3 ? 2 : 1);
	while (fuzz_more(in))
		step(v, in);
	fuzz_dev_kick(v, 0);
	fuzz_dev_end(v);
}

const struct fuzz_target fuzz_target = { .setup = setup, .run = run };

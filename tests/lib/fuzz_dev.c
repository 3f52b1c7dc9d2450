/* SPDX-License-Identifier: BSD-2-Clause */
#include "core/core.h"
#include "fuzz_dev.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/util.h"
#include "dev/vdev.h"

#define MAX_ITERATIONS 20000 /* for requests to end, of a millisecond or less */

struct vio_loop *fuzz_loop(void)
{
	static struct vio_loop *loop;

	if (!loop)
		fuzz_must(vio_loop_create(&loop) == 0);
	return loop;
}

void fuzz_dev_iterate(void)
{
	vio_loop_iterate(fuzz_loop(), 0);
}

/* Requests may end in a worker: a little patience. */
static void idle(void *arg)
{
	vio_loop_iterate(fuzz_loop(), 1);
}

void fuzz_dev_init(struct fuzz_dev *v, enum vdrv_mode mode)
{
	vdrv_init(&v->d, mode);
	v->d.idle = idle;
	vdrv_apart(&v->d);
	v->area = vdrv_alloc(&v->d, FUZZ_AREA, 4096);
	v->rings = v->d.next_free;
}

void fuzz_dev_make(struct fuzz_dev *v, enum vdrv_mode mode, const char *text)
{
	char why[256];

	fuzz_dev_init(v, mode);
	if (vdev_new(text, &v->d.pi, fuzz_loop(), &v->dev, why, sizeof(why)) <
	    0)
		fuzz_fail(text, 0, why);
}

/*
 * --- One of each type ---
 */

/* A file in memory; the number of a descriptor that stays open. */
static int image(void)
{
	int fd = memfd_create("image", 0);

	fuzz_must(fd >= 0 && ftruncate(fd, 1 << 20) == 0);
	return fd;
}

static int channel(void)
{
	int fds[2];

	fuzz_must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds) ==
		  0);
	return fds[0]; /* whose other end nobody reads */
}

static void plain(char *text, size_t size, const char *options)
{
	snprintf(text, size, "%s,queue-size=16", options);
}

static void block_text(char *text, size_t size, const int *fds)
{
	snprintf(text, size,
		 "block,path=/proc/self/fd/%d,queues=2,queue-size=16", fds[0]);
}

static void console_text(char *text, size_t size, const int *fds)
{
	snprintf(text, size, "console,console=fd:%d,port.x=fd:%d,queue-size=16",
		 fds[0], fds[1]);
}

static void input_text(char *text, size_t size, const int *fds)
{
	plain(text, size, "input,kind=multitouch");
}

static void net_text(char *text, size_t size, const int *fds)
{
	plain(text, size, "net,backend=null,queues=2");
}

static void rng_text(char *text, size_t size, const int *fds)
{
	plain(text, size, "rng");
}

static void scsi_text(char *text, size_t size, const int *fds)
{
	snprintf(text, size,
		 "scsi,lun0=/proc/self/fd/%d,t1.lun0=/proc/self/fd/%d,"
		 "t1.lun0.type=cdrom,reservations=/proc/self/fd/%d,queues=2,"
		 "queue-size=16",
		 fds[0], fds[1], fds[2]);
}

static const struct type {
	const char *name;
	void (*text)(char *text, size_t size, const int *fds);
	int (*open)(void); /* of three descriptors */
} types[] = {
	{ "block", block_text, image }, { "console", console_text, channel },
	{ "input", input_text, NULL },  { "net", net_text, NULL },
	{ "rng", rng_text, NULL },      { "scsi", scsi_text, image },
};
#define NR_TYPES ARRAY_LEN(types)

const char *fuzz_dev_type(unsigned type)
{
	return type < NR_TYPES ? types[type].name : NULL;
}

void fuzz_dev_make_type(struct fuzz_dev *v, enum vdrv_mode mode, unsigned type)
{
	const struct type *t = &types[type];
	char text[256];
	int fds[3] = { -1, -1, -1 };

	for (int i = 0; t->open && i < 3; i++)
		fds[i] = t->open();
	if (t->open == image) /* reservations: none yet */
		fuzz_must(ftruncate(fds[2], 0) == 0);
	t->text(text, sizeof(text), fds);
	fuzz_dev_make(v, mode, text);
	for (int i = 0; t->open && i < 3; i++)
		close(fds[i]);
}

void fuzz_dev_fini(struct fuzz_dev *v)
{
	vdev_destroy(v->dev);
	vdrv_fini(&v->d);
}

/*
 * --- The driver ---
 */

/* It must not access guest memory, 2.1.2. */
static bool is_broken(struct fuzz_dev *v)
{
	struct virtio_softc *vs = v->d.pi.pi_arg;

	return vs->vs_flags & VIRTIO_BROKEN;
}

static void forbid(struct fuzz_dev *v, bool on)
{
	if (on && !v->forbidden)
		vdrv_forbid(&v->d);
	if (!on && v->forbidden)
		vdrv_permit(&v->d);
	v->forbidden = on;
}

void fuzz_dev_restart(struct fuzz_dev *v, uint64_t features)
{
	if (v->in || v->forbidden)
		fuzz_dev_end(v);
	vdrv_probe(&v->d);
	vdrv_reset(&v->d);
	v->d.next_free = v->rings;
	vdrv_start(&v->d, features, v->nr_queues);
}

void fuzz_dev_start(struct fuzz_dev *v, uint64_t features, unsigned nr_queues)
{
	v->nr_queues = nr_queues;
	memset(fuzz_dev_ptr(v, 0, FUZZ_AREA), 0, FUZZ_AREA);
	fuzz_dev_restart(v, features);
}

/* A legacy driver cannot see that requests from before the reset still run. */
void fuzz_dev_end(struct fuzz_dev *v)
{
	for (int i = 0; i < 3; i++)
		fuzz_dev_iterate();
	forbid(v, false);
	vdrv_reset(&v->d);
	for (int i = 0; !pci_is_idle(&v->d.pi); i++) {
		fuzz_must(i < MAX_ITERATIONS);
		idle(NULL);
		vdrv_wake(&v->d);
	}
	if (v->in)
		fuzz_dev_order(v);
	v->d.next_free = v->rings;
}

unsigned fuzz_dev_inflight(struct fuzz_dev *v, unsigned q)
{
	struct virtio_softc *vs = v->d.pi.pi_arg;

	return vs->vs_queues[q].vq_priv->nr_inflight;
}

unsigned fuzz_dev_next(struct fuzz_dev *v, unsigned n, struct fuzz_in *in)
{
	unsigned b = fuzz_choice(in, 256);

	forbid(v, is_broken(v));
	if (b < 248)
		return b % n;
	forbid(v, false);
	fuzz_dev_disorder(v, in);
	return n;
}

void *fuzz_dev_ptr(struct fuzz_dev *v, size_t off, size_t len)
{
	fuzz_must(off <= FUZZ_AREA);
	return vdrv_ptr(&v->d, v->area + off,
			len < FUZZ_AREA - off ? len : FUZZ_AREA - off);
}

/* Mostly a short one, or one of some sectors. */
static uint32_t length(struct fuzz_in *in)
{
	uint32_t b = (uint32_t)fuzz_int(in, 1);

	return b & 0x80 ? (b & 0x7f) << 9 : b;
}

void fuzz_dev_desc(struct fuzz_dev *v, unsigned q, struct fuzz_in *in)
{
	uint16_t i = (uint16_t)fuzz_choice(in, 16);
	uint16_t flags = (uint16_t)fuzz_choice(in, 8);
	uint16_t next = (uint16_t)fuzz_choice(in, 32);
	uint64_t gpa = v->area + (fuzz_int(in, 2) & (FUZZ_AREA - 1));
	uint32_t len = length(in);

	if (fuzz_one_in(in, 16))
		gpa = fuzz_int(in, 8);
	if (!v->d.q[q].ready || i >= v->d.q[q].size)
		return;
	if (v->d.q[q].packed)
		vdrv_slot(&v->d, q, &(struct vdrv_buf){ gpa, len, 0 }, flags,
			  next);
	else
		vdrv_desc(&v->d, q, i, gpa, len, flags, next);
}

void fuzz_dev_avail(struct fuzz_dev *v, unsigned q, struct fuzz_in *in)
{
	uint16_t head = (uint16_t)fuzz_choice(in, 32);

	/* The slots of a packed ring are available as they are. */
	if (v->d.q[q].ready && !v->d.q[q].packed)
		vdrv_avail(&v->d, q, head);
}

void fuzz_dev_bytes(struct fuzz_dev *v, struct fuzz_in *in)
{
	size_t off = (size_t)fuzz_choice(in, 256) << 4;

	fuzz_bytes(in, fuzz_dev_ptr(v, off, 16), 16);
}

void fuzz_dev_kick(struct fuzz_dev *v, unsigned q)
{
	if (v->d.q[q].ready)
		vdrv_kick(&v->d, q);
}

void fuzz_dev_config(struct fuzz_dev *v, struct fuzz_in *in)
{
	unsigned off = fuzz_choice(in, 256);
	int size = 1 << fuzz_choice(in, 3);

	vdrv_cfg_write(&v->d, off, size, (uint32_t)fuzz_int(in, 4));
	vdrv_cfg_read(&v->d, off, size);
}

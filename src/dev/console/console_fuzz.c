/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzz target: a driver that puts anything into the rings of a console device,
 * while the host writes, reads, hangs up, and removes ports. The ports are
 * backed by sockets, and a file.
 */
#include <json-c/json.h>
#include <linux/virtio_console.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "dev/vdev.h"
#include "fuzz_dev.h"

#define NR_KINDS 5u
#define CTL_RX   2u
#define CTL_TX   3u

static struct victim {
	struct fuzz_dev v;
	int host[2]; /* the peers of hvc0 and port x */
	unsigned nr_queues;
} kinds[NR_KINDS];

static int file = -1; /* what hvc0 of the last kind writes to */

static void make_with_file(struct victim *c)
{
	char text[96];

	file = memfd_create("console", 0);
	fuzz_must(file >= 0);
	c->host[0] = c->host[1] = file;
	c->nr_queues = 2;
	snprintf(text, sizeof(text),
		 "console,console=file:/proc/self/fd/%d,queue-size=16", file);
	fuzz_dev_make(&c->v, VDRV_MODERN, text);
}

static void make(struct victim *c, unsigned kind)
{
	char text[128];
	int a[2], b[2];

	fuzz_must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, a) == 0);
	fuzz_must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, b) == 0);
	c->nr_queues = kind & 2 ? 2 : 6;
	if (kind & 2)
		snprintf(text, sizeof(text), "console,console=fd:%d,%s", a[1],
			 "queue-size=16");
	else
		snprintf(text, sizeof(text),
			 "console,console=fd:%d,port.x=fd:%d,%s", a[1], b[1],
			 "queue-size=16");
	fuzz_dev_make(&c->v, kind & 1 ? VDRV_LEGACY : VDRV_MODERN, text);
	close(a[1]);
	close(b[1]);
	c->host[0] = a[0];
	c->host[1] = b[0];
}

static void setup(void)
{
	for (unsigned i = 0; i < NR_KINDS - 1; i++)
		make(&kinds[i], i);
	make_with_file(&kinds[NR_KINDS - 1]);
}

/* A control message, or most of one. */
static void add_message(struct fuzz_dev *v, struct fuzz_in *in)
{
	uint8_t *p = fuzz_dev_ptr(v, (size_t)fuzz_choice(in, 256) << 4, 8);

	memset(p, 0, 8);
	p[0] = (uint8_t)fuzz_choice(in, 4);
	p[4] = (uint8_t)fuzz_choice(in, 10);
	p[6] = (uint8_t)fuzz_choice(in, 2);
	if (fuzz_one_in(in, 8))
		fuzz_bytes(in, p, 8);
}

static void ctl(struct fuzz_dev *v, struct fuzz_in *in)
{
	static char words[][8] = { "port", "add", "x", "remove", "resize" };
	struct json_object *reply = json_object_new_object();
	char num[8];
	char *const argv[3][4] = {
		{ words[0], words[1], words[2] },
		{ words[0], words[3], words[2] },
		{ words[4], num, num },
	};
	struct opened_files none = { .nr = 0 };
	struct err err;

	snprintf(num, sizeof(num), "%u", fuzz_choice(in, 256));
	vdev_ctl(v->dev, 3, argv[fuzz_choice(in, 3)], &none, reply, &err);
	json_object_put(reply);
}

static void host(struct victim *c, struct fuzz_in *in)
{
	int fd = c->host[c->nr_queues > 2 && fuzz_bool(in)];
	size_t len = (size_t)fuzz_choice(in, 256) << 4;
	char buf[4096] = "";
	ssize_t n;

	if (fuzz_bool(in))
		n = write(fd, buf, len);
	else
		n = read(fd, buf, len);
	if (n >= 0)
		fuzz_dev_iterate();
}

static void step(struct victim *c, struct fuzz_in *in)
{
	unsigned q = fuzz_choice(in, c->nr_queues);
	struct fuzz_dev *v = &c->v;

	switch (fuzz_dev_next(v, 12, in)) {
	case 0:
	case 1:
		fuzz_dev_desc(v, q, in);
		break;
	case 2:
	case 3:
		add_message(v, in);
		break;
	case 4:
	case 5:
		fuzz_dev_avail(v, q, in);
		break;
	case 6:
		fuzz_dev_kick(v, q);
		break;
	case 7:
		fuzz_dev_config(v, in);
		break;
	case 8:
		ctl(v, in);
		break;
	case 9:
		host(c, in);
		break;
	case 10:
		fuzz_dev_iterate();
		break;
	case 11:
		if (fuzz_one_in(in, 16))
			fuzz_dev_restart(v, ~0ull);
		break;
	}
}

/* A driver that has announced itself gets further. */
static void say_ready(struct victim *c)
{
	struct fuzz_dev *v = &c->v;
	uint8_t *p = fuzz_dev_ptr(v, 0, 24);

	if (c->nr_queues < 6 || !v->d.q[CTL_TX].ready)
		return;
	p[6] = 1; /* DEVICE_READY; then port 1 is open */
	p[8] = p[16] = 1;
	p[12] = VIRTIO_CONSOLE_PORT_READY;
	p[20] = VIRTIO_CONSOLE_PORT_OPEN;
	p[14] = p[22] = 1;
	for (uint16_t i = 0; i < 3; i++) {
		vdrv_desc(&v->d, CTL_TX, i, v->area + 8 * i, 8, 0, 0);
		vdrv_avail(&v->d, CTL_TX, i);
		vdrv_desc(&v->d, CTL_RX, i, v->area + 256 + 64 * i, 64, 2, 0);
		vdrv_avail(&v->d, CTL_RX, i);
	}
	vdrv_kick(&v->d, CTL_TX);
}

/* What one input left in the sockets must not reach the next. */
static void drain(struct victim *c)
{
	char buf[4096];

	fuzz_must(ftruncate(file, 0) == 0);
	for (int i = 0; i < 2; i++)
		while (read(c->host[i], buf, sizeof(buf)) > 0)
			;
}

static void run(struct fuzz_in *in)
{
	struct victim *c = &kinds[fuzz_choice(in, NR_KINDS)];
	uint64_t without = VI_BIT(fuzz_choice(in, 64));

	fuzz_dev_start(&c->v, fuzz_bool(in) ? ~without : ~0ull, c->nr_queues);
	if (fuzz_bool(in))
		say_ready(c);
	while (fuzz_more(in))
		step(c, in);
	fuzz_dev_end(&c->v);
	drain(c);
}

const struct fuzz_target fuzz_target = { .setup = setup, .run = run };

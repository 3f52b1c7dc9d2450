/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * libFuzzer: a driver that puts what it likes into the rings of a network
 * device, and a network that sends it what it likes.
 *
 * The input is a list of steps of 8 bytes: build a descriptor, fill a header
 * or a command, offer a head, kick, let a frame arrive, write configuration,
 * let the backend be full, reset with other features, load a state.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <viodev/loop.h>

#include "dev/net/hdr.h"
#include "dev/net/net.h"
#include "dev/net/net_mock.h"
#include "vdrv.h"

extern const struct vdev_type vdev_net;

#define AREA	  (64u << 10) /* of guest memory that is played in */
#define NR_QUEUES 5u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* One of each kind is made and kept: every input begins with a reset. */
static struct victim {
	struct vdrv d;
	struct vdev *dev;
	struct net_mock *mock;
	uint64_t area;
} victims[4];

static struct ev_loop *loop;

static void make(struct victim *v, unsigned kind)
{
	const struct opt_def *const tables[] = { vdev_net.vt_opts,
						 vdev_common_opts, NULL };
	static const char *const texts[] = {
		"net,backend=null,queue-size=16,rss=on,mtu=1500",
		"net,backend=null,queue-size=16",
	};
	struct vdev_files files = { 0 };
	struct vdev_env env = { &v->d.pi, NULL, NULL, &files };
	struct opts *opts;
	struct err err;

	if (!loop && ev_loop_create(&loop) < 0)
		abort();
	vdrv_init(&v->d, kind & 2 ? VDRV_LEGACY : VDRV_MODERN);
	if (opts_parse(texts[kind & 1], tables, &opts, &err) < 0)
		abort();
	env.loop = loop;
	env.opts = opts;
	v->mock = net_mock_create(2, true);
	if (net_create_on(&env, &v->mock->be, &v->dev, &err) < 0)
		abort();
	opts_free(opts);
	v->area = vdrv_alloc(&v->d, AREA, 4096);
}

/* A buffer: most lie in the area, some anywhere. */
static void put_desc(struct victim *v, const uint8_t *s)
{
	uint64_t gpa = v->area + ((s[3] << 8 | s[4]) & (AREA - 1));
	uint32_t len = s[5] & 0x80 ? (uint32_t)(s[5] & 0x7f) << 9 : s[5];

	if (s[6] & 0x80)
		gpa = (uint64_t)s[3] << 56 | (uint64_t)s[4] << 20;
	vdrv_desc(&v->d, s[7] % NR_QUEUES, s[1] & 15, gpa, len, s[2] & 7,
		  s[6] & 31);
}

static void put_bytes(struct victim *v, const uint8_t *s)
{
	memcpy(vdrv_ptr(&v->d, v->area + (s[1] << 3), 6), s + 2, 6);
}

static void arrive(struct victim *v, const uint8_t *s)
{
	static uint8_t frame[NET_MAX_FRAME + 16];
	struct virtio_net_hdr hdr = {
		.flags = s[2],
		.gso_type = s[3] & 0x87,
		.hdr_len = s[4],
		.gso_size = s[5] & 7,
		.csum_start = s[6],
	};
	size_t len = (size_t)s[7] << (s[1] & 8);

	memcpy(frame + 6, s, 8);
	frame[12] = s[4] & 1 ? 0x08 : s[4] & 2 ? 0x86 : 0x81;
	frame[13] = s[4] & 2 ? 0xdd : 0;
	frame[14] = s[5];
	net_mock_arrive(v->mock, s[1] & 1, &hdr, frame, len);
}

static void configure(struct victim *v, const uint8_t *s)
{
	vdrv_cfg_write(&v->d, s[1] & 0x1c, 1 << (s[2] % 3), s[3]);
	vdrv_cfg_read(&v->d, s[1] & 0x1c, 1 << (s[2] % 3));
}

/* What is played in is another process's state of the device, too. */
static void move(struct victim *v, const uint8_t *s)
{
	static uint8_t state[32768];
	struct virtio_softc *vs = v->dev->vs;
	size_t len = s[3];

	vs->vs_vc->vc_load(vs, vdrv_ptr(&v->d, v->area + (s[2] << 3), len),
			   len);
	if (vs->vs_vc->vc_save(vs, state, sizeof(state)) < 0)
		abort();
}

static void step(struct victim *v, const uint8_t *s)
{
	struct vdrv *d = &v->d;
	uint64_t features = ~0ull;

	switch (s[0] & 15) {
	case 0:
	case 1:
	case 2:
		put_desc(v, s);
		break;
	case 3:
	case 4:
	case 5:
		put_bytes(v, s);
		break;
	case 6:
	case 7:
		vdrv_avail(d, s[2] % NR_QUEUES, s[1] & 31);
		break;
	case 8:
	case 9:
		vdrv_kick(d, s[1] % NR_QUEUES);
		break;
	case 10:
	case 11:
		arrive(v, s);
		break;
	case 12:
		configure(v, s);
		break;
	case 13:
		ev_loop_turn(loop, 0);
		break;
	case 14:
		v->mock->send_ret = s[1] & 1 ? -EAGAIN : 0;
		break;
	case 15:
		if ((s[1] & 7) == 1)
			move(v, s);
		if (s[1] & 7)
			break;
		if (s[2] & 1)
			features &= ~NET_F(MRG_RXBUF);
		if (s[2] & 2)
			features &= ~NET_F(RSS);
		if (s[2] & 4)
			features &= ~NET_F(HASH_REPORT);
		if (s[2] & 8)
			features &= ~NET_GUEST_OFFLOADS;
		vdrv_start(d, features, NR_QUEUES);
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
	next_free = v->d.next_free;
	v->mock->send_ret = 0;
	memset(vdrv_ptr(&v->d, v->area, AREA), 0, AREA);
	if (!vdrv_start(&v->d, ~0ull, NR_QUEUES))
		abort();
	for (data++, len--; len >= 8; data += 8, len -= 8)
		step(v, data);
	ev_loop_turn(loop, 0);
	vdrv_reset(&v->d);
	/* The rings of the next input lie where those of this one lay. */
	v->d.next_free = next_free;
	return 0;
}

/* SPDX-License-Identifier: BSD-2-Clause */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "net_fixture.h"

#include <cmocka.h>

struct vdrv d;
struct vio_loop *loop;
static struct opts *opts;
struct vdev *dev;
struct net_mock *mock;
uint8_t frame[NET_MAX_FRAME];
const uint8_t mac[6] = { 0x52, 0x54, 0, 1, 2, 3 };

void create_as(enum vdrv_mode mode, const char *options, unsigned channels,
	       bool offloads)
{
	const struct opt_def *const tables[] = { vdev_net.vt_opts,
						 vdev_common_opts, NULL };
	struct opened_files files = { 0 };
	struct vdev_env env = { &d.pi, loop, NULL, &files };
	char text[256];
	struct err err;

	snprintf(text, sizeof(text), "net,backend=null,mac=52:54:00:01:02:03%s",
		 options);
	vdrv_init(&d, mode);
	if (opts_parse(text, tables, &opts, &err) < 0)
		fail_msg("%s", err.text);
	env.opts = opts;
	mock = net_mock_create(channels, offloads);
	if (net_create_on(&env, &mock->be, &dev, &err) < 0)
		fail_msg("%s", err.text);
}

void start_as(enum vdrv_mode mode, const char *options, uint64_t features,
	      unsigned nr_queues)
{
	create_as(mode, options, nr_queues / 2, true);
	assert_true(vdrv_start(&d, features, nr_queues));
}

void destroy(void)
{
	if (!dev)
		return;
	vdev_destroy(dev);
	opts_free(opts);
	vdrv_fini(&d);
	dev = NULL;
}

int setup(void **state)
{
	for (size_t i = 0; i < sizeof(frame); i++)
		frame[i] = (uint8_t)(i * 7 + i / 256);
	memcpy(frame, mac, 6);
	frame[12] = 8;
	frame[13] = 0;
	return vio_loop_create(&loop);
}

int teardown(void **state)
{
	destroy();
	vio_loop_destroy(loop);
	return 0;
}

void iterate(void)
{
	for (int i = 0; i < 4; i++)
		vio_loop_iterate(loop, 0);
}

bool broken(void)
{
	return vdrv_status(&d) & NEEDS_RESET;
}

uint8_t command_on(unsigned q, uint8_t class, uint8_t cmd, const void *data,
		   size_t len, void *result, size_t result_len)
{
	uint64_t in = vdrv_alloc(&d, 2 + len, 1);
	uint64_t out = vdrv_alloc(&d, 1 + result_len, 1);
	struct vdrv_used used;
	uint8_t *p;

	p = vdrv_ptr(&d, in, 2 + len);
	p[0] = class;
	p[1] = cmd;
	if (len)
		memcpy(p + 2, data, len);
	p = vdrv_ptr(&d, out, 1 + result_len);
	p[0] = NO_ACK;
	vdrv_add(&d, q,
		 (struct vdrv_buf[]){
			 { in, (uint32_t)(2 + len), VDRV_R },
			 { out, (uint32_t)(1 + result_len), VDRV_W } },
		 2);
	vdrv_kick(&d, q);
	iterate();
	if (!vdrv_used(&d, q, &used))
		return NO_ACK;
	if (p[0] == 0 && result)
		memcpy(result, p + 1, result_len);
	/* NET-CTL-01: used length counts ack and result. */
	assert_int_equal(used.len, 1 + (p[0] == 0 ? result_len : 0));
	return p[0];
}

uint8_t command(uint8_t class, uint8_t cmd, const void *data, size_t len)
{
	return command_on(2, class, cmd, data, len, NULL, 0);
}

unsigned drained_bytes;

uint64_t give_rx(unsigned q, uint32_t len)
{
	uint64_t gpa = vdrv_alloc(&d, len, 1);

	memset(vdrv_ptr(&d, gpa, len), 0xee, len);
	vdrv_add(&d, q, (struct vdrv_buf[]){ { gpa, len, VDRV_W } }, 1);
	return gpa;
}

bool arrive(const struct virtio_net_hdr *hdr, size_t len)
{
	return net_mock_arrive(mock, 0, hdr, frame, len);
}

unsigned drain(unsigned q)
{
	struct vdrv_used used;
	unsigned n = 0;

	iterate();
	drained_bytes = 0;
	while (vdrv_used(&d, q, &used)) {
		drained_bytes += used.len;
		n++;
	}
	return n;
}

void send_frame(unsigned q, const struct net_hdr *hdr, size_t hdr_len,
		size_t len)
{
	uint64_t gpa = vdrv_alloc(&d, hdr_len + len + 1, 1);
	uint8_t *p = vdrv_ptr(&d, gpa, hdr_len + len + 1);

	memcpy(p, hdr, hdr_len);
	memcpy(p + hdr_len, frame, len);
	vdrv_add(&d, q,
		 (struct vdrv_buf[]){
			 { gpa, (uint32_t)(hdr_len + len), VDRV_R } },
		 1);
	vdrv_kick(&d, q);
	iterate();
}

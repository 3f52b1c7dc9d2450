/* SPDX-License-Identifier: BSD-2-Clause */
#include "net_be_fixture.h"

#include <arpa/inet.h>
#include <linux/virtio_net.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

const struct opt_def be_opts[] = { NET_BE_OPTS, { NULL } };

struct vio_loop *loop;
struct opts *opts;
struct net_be *be;
uint8_t frame[NET_MAX_FRAME];

struct net_be_got got;

struct net_be_before before;

static struct virtio_net_hdr rx_hdr;

ssize_t receive(unsigned channel, size_t room)
{
	const struct iovec iov[2] = { { &rx_hdr, sizeof(rx_hdr) },
				      { got.data, room } };

	return be->ops->recv(be, channel, iov, 2);
}

static void on_readable(void *arg, unsigned channel)
{
	ssize_t len;

	while (!got.full && (len = receive(channel, sizeof(got.data))) >= 0) {
		if (got.only_ours && memcmp(got.data + 12, "\x88\xb5", 2) != 0)
			continue;
		got.len = len;
		got.channel = channel;
		got.nr++;
		memcpy(before.data[before.nr++ % 64], got.data, 64);
		if (got.only_ours)
			return;
	}
	if (got.full)
		be->ops->watch(be, channel, false);
}

static void on_writable(void *arg, unsigned channel)
{
	got.nr_writable++;
}

static void on_link(void *arg, bool up, const char *why)
{
	got.link = up;
	got.nr_links++;
}

const struct net_be_client client = {
	.readable = on_readable,
	.writable = on_writable,
	.link = on_link,
};

int send_to(unsigned channel, const void *data, size_t len)
{
	struct virtio_net_hdr hdr = { 0 };
	struct iovec iov[3] = {
		{ &hdr, sizeof(hdr) },
		{ (void *)(uintptr_t)data, len / 3 },
		{ (char *)(uintptr_t)data + len / 3, len - len / 3 },
	};

	return be->ops->send(be, channel, iov, 3);
}

int open_be(const char *text, struct err *err)
{
	const struct opt_def *const tables[] = { be_opts, NULL };
	struct opened_files files = { 0 };
	int ret = opts_parse(text, tables, &opts, err);

	if (ret < 0)
		return ret;
	ret = net_be_open(opts, &files, err);
	if (ret == 0)
		ret = net_be_create(opts, &files, loop, &be, err);
	opened_files_close(&files);
	if (ret < 0) {
		opts_free(opts);
		opts = NULL;
		return ret;
	}
	memset(&got, 0, sizeof(got));
	got.link = true;
	net_be_attach(be, &client, NULL);
	return 0;
}

void must_open(const char *text)
{
	struct err err = { "" };

	if (open_be(text, &err) < 0)
		fail_msg("%s", err.text);
	be->ops->watch(be, 0, true);
}

void close_be(void)
{
	net_be_destroy(be);
	opts_free(opts);
	be = NULL;
	opts = NULL;
}

void iterate(void)
{
	for (int i = 0; i < 8; i++)
		vio_loop_iterate(loop, 0);
}

int setup(void **state)
{
	for (size_t i = 0; i < sizeof(frame); i++)
		frame[i] = (uint8_t)(i * 7 + i / 256);
	return vio_loop_create(&loop);
}

int teardown(void **state)
{
	close_be();
	vio_loop_destroy(loop);
	return 0;
}

/* A backend=fd on one end of a pair of sockets; the other end. */
static int open_pair(const int sv[2])
{
	char text[64];

	snprintf(text, sizeof(text), "net,backend=fd,fd=%d", sv[0]);
	must_open(text);
	close(sv[0]);
	return sv[1];
}

int pair_up(int type)
{
	int sv[2];

	assert_int_equal(socketpair(AF_UNIX, type, 0, sv), 0);
	return open_pair(sv);
}

int tcp_pair_up(void)
{
	struct sockaddr_in sin = { .sin_family = AF_INET };
	socklen_t len = sizeof(sin);
	int fd = socket(AF_INET, SOCK_STREAM, 0), sv[2];

	sin.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_int_equal(bind(fd, (struct sockaddr *)&sin, sizeof(sin)), 0);
	assert_int_equal(listen(fd, 1), 0);
	getsockname(fd, (struct sockaddr *)&sin, &len);
	sv[0] = socket(AF_INET, SOCK_STREAM, 0);
	assert_int_equal(connect(sv[0], (struct sockaddr *)&sin, sizeof(sin)),
			 0);
	sv[1] = accept(fd, NULL, NULL);
	close(fd);
	return open_pair(sv);
}

uint16_t ip_sum(const uint8_t *p, size_t len)
{
	uint32_t sum = 0;

	for (size_t i = 0; i < len; i += 2)
		sum += (uint32_t)p[i] << 8 | p[i + 1];
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)~sum;
}

size_t make_udp(uint8_t *f, const char *src, const char *dst, uint16_t sport,
		uint16_t dport, const void *data, size_t len)
{
	static const uint8_t eth[14] = { 0x52, 0x55, 10,   0, 2, 2, 0x52,
					 0x54, 0,    0x12, 1, 2, 8, 0 };
	uint16_t total = (uint16_t)(28 + len), sum;

	memset(f, 0, 42);
	memcpy(f, eth, sizeof(eth));
	f[14] = 0x45;
	f[16] = (uint8_t)(total >> 8);
	f[17] = (uint8_t)total;
	f[22] = 64;
	f[23] = 17;
	inet_pton(AF_INET, src, f + 26);
	inet_pton(AF_INET, dst, f + 30);
	sum = ip_sum(f + 14, 20);
	f[24] = (uint8_t)(sum >> 8);
	f[25] = (uint8_t)sum;
	f[34] = (uint8_t)(sport >> 8);
	f[35] = (uint8_t)sport;
	f[36] = (uint8_t)(dport >> 8);
	f[37] = (uint8_t)dport;
	f[38] = (uint8_t)((total - 20) >> 8);
	f[39] = (uint8_t)(total - 20);
	memcpy(f + 42, data, len);
	return 42 + len;
}

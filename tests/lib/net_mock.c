/* SPDX-License-Identifier: BSD-2-Clause */
#include "net_mock.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <viodev/iov.h>
#include "dev/net/hdr.h"

#define OFFLOADS                                                \
	(NET_GUEST_OFFLOADS | NET_F(CSUM) | NET_F(HOST_TSO4) |  \
	 NET_F(HOST_TSO6) | NET_F(HOST_ECN) | NET_F(HOST_UFO) | \
	 NET_F(HOST_USO))

static ssize_t mock_recv(struct net_be *be, unsigned channel,
			 const struct iovec *iov, int niov)
{
	struct net_mock *m = (struct net_mock *)be;
	struct iovec copy[NET_MAX_IOV];
	struct vio_iov_cursor room = { copy, niov };
	struct net_mock_frame *f;
	size_t n;

	if (m->recv_ret < 0)
		return m->recv_ret;
	if (!m->nr_in[channel])
		return -EAGAIN;
	f = m->in[channel][0];
	m->nr_in[channel]--;
	memmove(&m->in[channel][0], &m->in[channel][1],
		m->nr_in[channel] * sizeof(f));
	memcpy(copy, iov, (size_t)niov * sizeof(*iov));
	vio_iov_write(&room, &f->hdr, sizeof(f->hdr));
	n = vio_iov_write(&room, f->data, f->len);
	free(f);
	return (ssize_t)n;
}

static int mock_send(struct net_be *be, unsigned channel, struct iovec *iov,
		     int niov)
{
	struct net_mock *m = (struct net_mock *)be;
	struct vio_iov_cursor all = { iov, niov };

	if (m->send_ret < 0)
		return m->send_ret;
	vio_iov_take(&all, &m->sent.hdr, sizeof(m->sent.hdr));
	m->sent.len = vio_iov_take(&all, m->sent.data, sizeof(m->sent.data));
	m->sent_channel = channel;
	m->nr_sent++;
	return 0;
}

static void run(struct net_mock *m, unsigned channel)
{
	while (m->watched[channel] && m->nr_in[channel])
		m->be.client->readable(m->be.client_arg, channel);
}

static void mock_watch(struct net_be *be, unsigned channel, bool on)
{
	((struct net_mock *)be)->watched[channel] = on;
}

static int mock_set_channels(struct net_be *be, unsigned nr)
{
	((struct net_mock *)be)->channels = nr;
	return 0;
}

static int mock_set_offloads(struct net_be *be, uint64_t offloads)
{
	((struct net_mock *)be)->offloads = offloads;
	return 0;
}

static void mock_destroy(struct net_be *be)
{
	struct net_mock *m = (struct net_mock *)be;

	for (unsigned c = 0; c < NET_MAX_CHANNELS; c++)
		for (unsigned i = 0; i < m->nr_in[c]; i++)
			free(m->in[c][i]);
	free(m);
}

static const struct net_be_ops mock_ops = {
	.name = "mock",
	.recv = mock_recv,
	.send = mock_send,
	.watch = mock_watch,
	.set_channels = mock_set_channels,
	.set_offloads = mock_set_offloads,
	.destroy = mock_destroy,
};

struct net_mock *net_mock_create(unsigned channels, bool offloads)
{
	struct net_mock *m = calloc(1, sizeof(*m));

	if (!m)
		abort();
	m->be.ops = &mock_ops;
	m->be.nr_channels = channels;
	m->be.features = offloads ? OFFLOADS : 0;
	return m;
}

bool net_mock_arrive(struct net_mock *m, unsigned channel,
		     const struct virtio_net_hdr *hdr, const void *frame,
		     size_t len)
{
	struct net_mock_frame *f;

	if (m->nr_in[channel] == MOCK_QUEUE || len > sizeof(f->data))
		return false;
	f = calloc(1, sizeof(*f));
	if (!f)
		abort();
	if (hdr)
		f->hdr = *hdr;
	f->len = len;
	memcpy(f->data, frame, len);
	m->in[channel][m->nr_in[channel]++] = f;
	run(m, channel);
	return true;
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The network device, as a driver sees it: docs/spec/conformance.md section 7
 * and its rows of docs/spec/hostile.md, on a mock backend: the control queue
 * and what it controls.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/le.h"
#include "core/core.h"
#include "net_fixture.h"
#include "moved.h"

#include <cmocka.h>

#define NS_PER_MS UINT64_C(1000000)
#define SOON_NS   (10000 * NS_PER_MS)

/*
 * --- Control ---
 */

static void test_ctrl_bad(void **state)
{
	static const uint8_t zeroes[64];

	start_as(VDRV_MODERN, "", NET_F(CTRL_VQ) | VI_BIT(VIRTIO_F_VERSION_1),
		 2);
	vdrv_queue_setup(&d, 2, 0);
	/* NET-CTL-02: nothing of it was negotiated. */
	for (unsigned cls = 0; cls < 12; cls++)
		for (unsigned cmd = 0; cmd < 8; cmd++)
			assert_int_equal(command((uint8_t)cls, (uint8_t)cmd,
						 zeroes, sizeof(zeroes)),
					 1);
	destroy();

	start_as(VDRV_MODERN, ",rss=on", ALL_FEATURES, 2);
	vdrv_queue_setup(&d, 2, 0);
	/* Short data, for every command except those without data. */
	for (unsigned cls = 0; cls < 12; cls++)
		for (unsigned cmd = 0; cmd < 8; cmd++)
			if ((cls != 3 && cls != 8) || cmd != 0)
				assert_int_equal(command((uint8_t)cls,
							 (uint8_t)cmd, zeroes,
							 0),
						 1);
	assert_int_equal(command(0, 0, "\2", 1), 1); /* NET-CTL-03: 0 or 1 */
	/* NET-CTL-01: no room for an answer, no command: one byte at most. */
	vdrv_add(&d, 2, (struct vdrv_buf[]){ { VDRV_MEM_BASE, 2, VDRV_R } }, 1);
	vdrv_add(&d, 2,
		 (struct vdrv_buf[]){ { vdrv_alloc(&d, 1, 1), 1, VDRV_W } }, 1);
	vdrv_kick(&d, 2);
	assert_int_equal(drain(2), 2);
	assert_int_equal(drained_bytes, 1);
	assert_false(broken());
}

/* A table of @nr unicast and @nr_m multicast addresses, claimed as given. */
static uint8_t set_macs(uint32_t claim, unsigned nr, uint32_t claim_m,
			unsigned nr_m, uint8_t last)
{
	static uint8_t buf[8 + 6 * 2048];
	le32 n = cpu_to_le32(claim), m = cpu_to_le32(claim_m);
	size_t len = 0;

	memset(buf, 0, sizeof(buf));
	memcpy(buf, &n, 4);
	len = 4 + 6 * (size_t)nr;
	if (nr)
		memcpy(buf + len - 6, (uint8_t[]){ 0x52, 0x54, 0, 7, 7, last },
		       6);
	memcpy(buf + len, &m, 4);
	len += 4 + 6 * (size_t)nr_m;
	return command(1, 0, buf, len);
}

static bool gets(uint8_t a0, uint8_t a4, uint8_t a5)
{
	memcpy(frame, (uint8_t[]){ a0, 0x54, 0, 7, a4, a5 }, 6);
	arrive(NULL, 60);
	return drain(RXQ) == 1;
}

static void test_macs(void **state)
{
	start_as(VDRV_MODERN, "", ALL_FEATURES, 2);
	vdrv_queue_setup(&d, 2, 0);
	for (unsigned k = 0; k < 32; k++)
		give_rx(RXQ, 100);
	vdrv_kick(&d, RXQ);
	assert_true(gets(0x52, 7, 1)); /* before the first command */
	assert_int_equal(command(0, 0, "\0", 1), 0);
	assert_false(gets(0x52, 7, 1)); /* NET-CTL-06 NET-CTL-09 */
	assert_int_equal(set_macs(2, 2, 0, 0, 1), 0);
	assert_true(gets(0x52, 7, 1)); /* NET-CTL-07 */
	assert_int_equal(set_macs(1, 1, 0, 0, 2), 0);
	assert_false(gets(0x52, 7, 1)); /* replaced */
	assert_true(gets(0x52, 7, 2));

	/* hostile Q4: counts that lie. The table stays. */
	assert_int_equal(set_macs(0xffffffff, 1, 0, 0, 9), 1);
	assert_int_equal(set_macs(0x2aaaaaab, 1, 0, 0, 9), 1); /* * 6 wraps */
	assert_int_equal(set_macs(3, 1, 0, 0, 9), 1);
	assert_int_equal(set_macs(1, 1, 0xffffffff, 0, 9), 1);
	assert_int_equal(set_macs(1, 1, 1, 0, 9), 1);
	assert_true(gets(0x52, 7, 2));
	assert_false(gets(0x52, 7, 9));
	/* More than we remember: all of them pass. */
	assert_int_equal(set_macs(2000, 2000, 0, 0, 9), 0);
	assert_true(gets(0x52, 7, 9));
	assert_false(gets(0x33, 7, 9));
	assert_int_equal(set_macs(0, 0, 0, 0, 0), 0);
	assert_false(gets(0x52, 7, 2));

	/* NET-CTL-03 by command; NET-CTL-08 */
	assert_int_equal(command(0, 0, "\1", 1), 0);
	assert_true(gets(0x52, 7, 2));
	assert_int_equal(command(0, 0, "\0", 1), 0);
	assert_int_equal(command(1, 1, "\x52\x54\x00\x07\x07\x02", 6), 0);
	assert_true(gets(0x52, 7, 2));
	assert_int_equal(vdrv_cfg_read(&d, 5, 1), 2);
	assert_int_equal(command(1, 1, "\x52\x54\x00\x07\x07", 5), 1);

	vdrv_reset(&d);
	assert_int_equal(vdrv_cfg_read(&d, 5, 1), 3);
}

static void vlan_commands(enum vdrv_mode mode, uint64_t features)
{
	/* hostile K19 */
	static const struct {
		uint16_t id;
		uint8_t ack;
	} rows[] = {
		{ 0, 0 }, { 5, 0 }, { 4095, 0 }, { 4096, 1 }, { 65535, 1 }
	};

	start_as(mode, "", features, 2);
	vdrv_queue_setup(&d, 2, 0);
	for (unsigned k = 0; k < 8; k++)
		give_rx(RXQ, 100);
	vdrv_kick(&d, RXQ);
	frame[12] = 0x81;
	frame[14] = 0;
	frame[15] = 5;
	arrive(NULL, 60);
	assert_int_equal(drain(RXQ), 1); /* before the first command */
	if (features & NET_F(CTRL_RX))
		assert_int_equal(command(0, 0, "\0", 1), 0);
	else
		assert_int_equal(command(2, 1, "\0\0", 2), 0);
	arrive(NULL, 60);
	assert_int_equal(drain(RXQ), 0); /* NET-CTL-11 */
	for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
		le16 id = cpu_to_le16(rows[i].id);

		assert_int_equal(command(2, 0, &id, 2), rows[i].ack);
		arrive(NULL, 60);
		assert_int_equal(drain(RXQ), rows[i].id == 5);
		assert_int_equal(command(2, 1, &id, 2), rows[i].ack);
	}
	arrive(NULL, 60);
	assert_int_equal(drain(RXQ), 0);
	destroy();
}

/* NET-L04: commands are in the guest's byte order: here, ours. */
static void test_vlan_commands(void **state)
{
	vlan_commands(VDRV_MODERN, ALL_FEATURES);
	vlan_commands(VDRV_LEGACY, NET_F(CTRL_VQ) | NET_F(CTRL_VLAN));
}

/*
 * --- Several queues ---
 */

#define PAIRS 3u
#define CTRL  (2 * PAIRS)

static uint8_t set_pairs(uint16_t nr)
{
	le16 val = cpu_to_le16(nr);

	return command_on(CTRL, 4, 0, &val, 2, NULL, 0);
}

static void start_mq(const char *options, uint64_t features)
{
	start_as(VDRV_MODERN, options, features, 2 * PAIRS);
	vdrv_queue_setup(&d, CTRL, 0);
	for (unsigned p = 0; p < PAIRS; p++) {
		for (unsigned k = 0; k < 8; k++)
			give_rx(2 * p, 200);
		vdrv_kick(&d, 2 * p);
	}
}

static void test_mq(void **state)
{
	/* hostile D13: queues beyond the last do not exist. */
	start_mq("", ALL_FEATURES);
	assert_int_equal(vdrv_queue_size(&d, CTRL + 1), 0);
	for (unsigned q = CTRL + 1; q < 16; q++)
		pci_bar_write(&d.pi, d.notify_bar,
			      d.notify_off + q * d.notify_mult, 2, q);

	/* NET-CTL-13: one at first, and only its frames are taken. */
	assert_int_equal(mock->channels, 1);
	net_mock_arrive(mock, 0, NULL, frame, 60);
	assert_int_equal(drain(0), 1);
	assert_false(mock->watched[1]);
	send_frame(3, &(struct net_hdr){ 0 }, HDR, 60);
	assert_int_equal(mock->nr_sent, 0);

	/* NET-CTL-14 NET-CTL-15: channel k is queue k, both ways. */
	assert_int_equal(set_pairs(3), 0);
	assert_int_equal(mock->channels, 3);
	assert_int_equal(mock->nr_sent, 1); /* what was waiting */
	assert_int_equal(mock->sent_channel, 1);
	net_mock_arrive(mock, 2, NULL, frame, 60);
	assert_int_equal(drain(4), 1);
	send_frame(5, &(struct net_hdr){ 0 }, HDR, 60);
	assert_int_equal(mock->sent_channel, 2);

	/* NET-CTL-16 */
	assert_int_equal(set_pairs(0), 1);
	assert_int_equal(set_pairs(4), 1);
	assert_int_equal(set_pairs(0x8000), 1);
	assert_int_equal(mock->channels, 3);
	assert_int_equal(set_pairs(1), 0);
	assert_int_equal(mock->channels, 1);
	assert_false(mock->watched[2]);

	vdrv_reset(&d);
	assert_int_equal(mock->channels, 1);
	destroy();

	/* Without MQ the control queue is the third. */
	start_mq("",
		 NET_F(CTRL_VQ) | NET_F(CTRL_RX) | VI_BIT(VIRTIO_F_VERSION_1));
	assert_int_equal(command_on(CTRL, 0, 0, "\1", 1, NULL, 0), NO_ACK);
	assert_false(broken());
}

/*
 * Without the device's control queue, as behind vhost-user, exactly the pairs
 * that have rings are in use.
 */
static void test_pairs_by_rings(void **state)
{
	struct vqueue_info *vqs;

	create_as(VDRV_MODERN, "", PAIRS, true);
	assert_true(vdrv_start(&d, NET_F(MAC) | VI_BIT(VIRTIO_F_VERSION_1), 4));
	vqs = ((struct net_softc *)mock->be.client_arg)->sc_vqs;
	iterate();
	assert_int_equal(mock->channels, 2);
	give_rx(2, 200);
	vdrv_kick(&d, 2);
	net_mock_arrive(mock, 1, NULL, frame, 60);
	assert_int_equal(drain(2), 1);
	send_frame(3, &(struct net_hdr){ 0 }, HDR, 60);
	assert_int_equal(mock->sent_channel, 1);

	/* Frames that could not be received do not block the next ones. */
	net_mock_arrive(mock, 1, NULL, frame, 60);
	assert_int_equal(drain(2), 0);
	vi_stop_queue(&vqs[2]);
	vi_stop_queue(&vqs[3]);
	give_rx(0, 200);
	vdrv_kick(&d, 0);
	assert_int_equal(mock->channels, 1);
	assert_false(mock->watched[1]);
	net_mock_arrive(mock, 0, NULL, frame, 60);
	assert_int_equal(drain(0), 1);

	/* If the number is set by command, rings do not change it. */
	destroy();
	start_mq("", ALL_FEATURES);
	vdrv_kick(&d, 4);
	assert_int_equal(mock->channels, 1);
}

static size_t make_rss(uint8_t *p, uint16_t queue, uint16_t max_tx)
{
	static const uint8_t key[40] = { 0x6d, 0x5a, 0x56, 0xda };

	memset(p, 0, 64);
	p[0] = 0x3f;
	p[4] = 1; /* two entries */
	p[6] = 2; /* unclassified */
	p[8] = (uint8_t)queue;
	p[10] = (uint8_t)queue;
	p[12] = (uint8_t)max_tx;
	p[14] = 40;
	memcpy(p + 15, key, 40);
	return 55;
}

static void test_rss(void **state)
{
	struct vdrv_used used;
	uint8_t cmd[64];
	size_t len;

	start_mq(",rss=on", ALL_FEATURES & ~NET_F(HASH_REPORT));
	len = make_rss(cmd, 1, 2);
	assert_int_equal(command_on(CTRL, 4, 1, cmd, len, NULL, 0), 0);
	assert_int_equal(mock->channels, 3);
	/* NET-CTL-20: by the table, whatever the channel; else unclassified */
	frame[14] = 0x45;
	frame[23] = 6;
	frame[20] = frame[21] = 0;
	net_mock_arrive(mock, 0, NULL, frame, 60);
	assert_int_equal(drain(2), 1);
	assert_int_equal(drained_bytes, HDR + 60);
	frame[12] = 0x08;
	frame[13] = 0x06; /* ARP */
	net_mock_arrive(mock, 0, NULL, frame, 60);
	assert_int_equal(drain(4), 1);
	/* NET-CTL-22 hostile Q18 */
	len = make_rss(cmd, 3, 2);
	assert_int_equal(command_on(CTRL, 4, 1, cmd, len, NULL, 0), 1);
	len = make_rss(cmd, 1, 4);
	assert_int_equal(command_on(CTRL, 4, 1, cmd, len, NULL, 0), 1);
	len = make_rss(cmd, 1, 2);
	assert_int_equal(command_on(CTRL, 4, 1, cmd, len - 1, NULL, 0), 1);
	net_mock_arrive(mock, 0, NULL, frame, 60);
	assert_int_equal(drain(4), 1);
	/* A queue without buffers holds its frame until it has buffers. */
	while (d.q[4].nr_free < d.q[4].size) {
		net_mock_arrive(mock, 0, NULL, frame, 60);
		assert_int_equal(drain(4), 1);
	}
	net_mock_arrive(mock, 0, NULL, frame, 60);
	assert_int_equal(drain(4), 0);
	give_rx(4, 200);
	assert_true(vdrv_kick_if_wanted(&d, 4));
	assert_int_equal(drain(4), 1);
	/* VQ_PAIRS_SET ends it. */
	assert_int_equal(set_pairs(1), 0);
	net_mock_arrive(mock, 0, NULL, frame, 60);
	assert_true(vdrv_used(&d, 0, &used));
	destroy();

	/* NET-CTL-17 NET-CTL-20: a target that does not exist gets nothing. */
	create_as(VDRV_MODERN, ",rss=on", PAIRS, true);
	assert_true(vdrv_start(&d, ALL_FEATURES, 2));
	vdrv_queue_setup(&d, CTRL, 0);
	give_rx(RXQ, 2000);
	vdrv_kick(&d, RXQ);
	len = make_rss(cmd, 1, 1);
	assert_int_equal(command_on(CTRL, 4, 1, cmd, len, NULL, 0), 0);
	net_mock_arrive(mock, 0, NULL, frame, 60);
	assert_int_equal(drain(RXQ), 0);
	assert_int_equal(mock->nr_in[0], 0);
}

/* NET-RX-18: 20 bytes of header, with the hash that HASH_CONFIG requests. */
static void test_hash_report(void **state)
{
	static const uint8_t ip[] = { 66,  9,  149,  187,  161,  142,
				      100, 80, 0x0a, 0xea, 0x06, 0xe6 };
	static const uint8_t key[40] = {
		0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67,
		0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0, 0xca, 0x2b, 0xcb,
		0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30,
		0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
	};
	uint8_t cmd[13 + 40] = { 0x3f };
	uint8_t *p;

	start_as(VDRV_MODERN, ",rss=on",
		 ALL_FEATURES & ~(NET_F(RSS) | NET_F(MQ)), 2);
	vdrv_queue_setup(&d, 2, 0);
	frame[14] = 0x45;
	frame[20] = frame[21] = 0;
	frame[23] = 6;
	memcpy(frame + 26, ip, sizeof(ip));
	/* NET-CTL-21: none enabled at the start */
	p = vdrv_ptr(&d, give_rx(RXQ, 200), 200);
	vdrv_kick(&d, RXQ);
	arrive(NULL, 60);
	assert_int_equal(drain(RXQ), 1);
	assert_int_equal(drained_bytes, 20 + 60);
	assert_memory_equal(p + 12, "\0\0\0\0\0\0\0\0", 8);
	/* NET-CTL-18 NET-CTL-19 */
	cmd[12] = 40;
	memcpy(cmd + 13, key, 40);
	assert_int_equal(command(4, 2, cmd, sizeof(cmd)), 0);
	p = vdrv_ptr(&d, give_rx(RXQ, 200), 200);
	vdrv_kick(&d, RXQ);
	arrive(NULL, 60);
	assert_int_equal(drain(RXQ), 1);
	assert_memory_equal(p + 12, "\x78\xc1\xcc\x51\x02\0", 6);
	assert_memory_equal(p + 20, frame, 60);
	assert_int_equal(command(4, 2, cmd, sizeof(cmd) - 1), 1);
	assert_int_equal(command(4, 1, cmd, sizeof(cmd)), 1); /* RSS */
}

/*
 * --- Coalescing and rates ---
 */

struct coal_cmd {
	le16 vq, reserved;
	le32 packets, usecs;
};

static uint8_t set_coal(uint8_t cmd, uint16_t vq, uint32_t packets,
			uint32_t usecs)
{
	struct coal_cmd c = { cpu_to_le16(vq), cpu_to_le16(0xffff),
			      cpu_to_le32(packets), cpu_to_le32(usecs) };
	bool by_vq = cmd >= 2;

	return command(6, cmd, by_vq ? (void *)&c : (void *)&c.packets,
		       by_vq ? 12 : 8);
}

static void get_coal(uint16_t vq, uint32_t packets, uint32_t usecs)
{
	le16 head[2] = { cpu_to_le16(vq), cpu_to_le16(7) };
	le32 result[2];

	assert_int_equal(command_on(2, 6, 3, head, 4, result, 8), 0);
	assert_int_equal(le32_to_cpu(result[0]), packets);
	assert_int_equal(le32_to_cpu(result[1]), usecs);
}

static void test_coalescing(void **state)
{
	unsigned *intr = &d.nr_msix[TXQ + 1];
	uint64_t start;

	start_as(VDRV_MODERN, "", ALL_FEATURES & ~VI_BIT(29), 2);
	vdrv_queue_setup(&d, 2, 0);
	get_coal(TXQ, 0, 0);
	send_frame(TXQ, &(struct net_hdr){ 0 }, HDR, 60);
	assert_int_equal(*intr, 1);
	/* NET-CTL-26: by packets */
	assert_int_equal(set_coal(0, 0, 3, 1000000), 0);
	for (int i = 0; i < 2; i++)
		send_frame(TXQ, &(struct net_hdr){ 0 }, HDR, 60);
	assert_int_equal(*intr, 1);
	send_frame(TXQ, &(struct net_hdr){ 0 }, HDR, 60);
	assert_int_equal(*intr, 2);
	/* by time */
	assert_int_equal(set_coal(2, TXQ, 1000, 2000), 0);
	get_coal(TXQ, 1000, 2000);
	get_coal(RXQ, 0, 0);
	start = vio_now_ns();
	send_frame(TXQ, &(struct net_hdr){ 0 }, HDR, 60);
	while (*intr == 2 && vio_now_ns() - start < SOON_NS)
		vio_loop_iterate(loop, 100);
	assert_int_equal(*intr, 3);
	assert_true(vio_now_ns() - start >= 2 * NS_PER_MS);
	/* NET-CTL-29: satisfied by new parameters: at once; and off */
	assert_int_equal(set_coal(2, TXQ, 1000, 10000000), 0);
	send_frame(TXQ, &(struct net_hdr){ 0 }, HDR, 60);
	assert_int_equal(*intr, 3);
	assert_int_equal(set_coal(2, TXQ, 1, 10000000), 0);
	assert_int_equal(*intr, 4);
	assert_int_equal(set_coal(2, TXQ, 0, 10000000), 0);
	send_frame(TXQ, &(struct net_hdr){ 0 }, HDR, 60);
	assert_int_equal(*intr, 5);
	/* NET-CTL-29: the ring's own suppression wins. */
	vdrv_want_intr(&d, TXQ, false);
	send_frame(TXQ, &(struct net_hdr){ 0 }, HDR, 60);
	assert_int_equal(*intr, 5);
	vdrv_want_intr(&d, TXQ, true);

	/* rx */
	assert_int_equal(set_coal(1, 0, 2, 1000000), 0);
	get_coal(RXQ, 2, 1000000);
	for (int i = 0; i < 4; i++)
		give_rx(RXQ, 200);
	vdrv_kick(&d, RXQ);
	arrive(NULL, 60);
	assert_int_equal(d.nr_msix[RXQ + 1], 0);
	arrive(NULL, 60);
	assert_int_equal(d.nr_msix[RXQ + 1], 1);

	/* NET-CTL-28 */
	assert_int_equal(set_coal(2, 2, 1, 1), 1); /* control queue */
	assert_int_equal(set_coal(2, 3, 1, 1), 1);
	assert_int_equal(set_coal(2, 65535, 1, 1), 1);
	/* NET-CTL-27 */
	vdrv_reset(&d);
	assert_true(vdrv_start(&d, ALL_FEATURES, 3));
	get_coal(RXQ, 0, 0);
	get_coal(TXQ, 0, 0);
}

static void reset_queue(unsigned q)
{
	vdrv_common_write(&d, VIRTIO_PCI_COMMON_Q_SELECT, 2, q);
	vdrv_common_write(&d, VIRTIO_PCI_COMMON_Q_RESET, 2, 1);
	assert_int_equal(vdrv_common_read(&d, VIRTIO_PCI_COMMON_Q_RESET, 2), 0);
	assert_int_equal(vdrv_common_read(&d, VIRTIO_PCI_COMMON_Q_ENABLE, 2),
			 0);
}

/* NET-CTL-27: a queue that was reset has the defaults of its kind. */
static void test_coalescing_reset(void **state)
{
	start_as(VDRV_MODERN, "", ALL_FEATURES & ~VI_BIT(29), 2);
	vdrv_queue_setup(&d, 2, 0);
	assert_int_equal(set_coal(0, 0, 3, 1000000), 0);
	assert_int_equal(set_coal(2, TXQ, 1000, 2000), 0);
	assert_int_equal(set_coal(2, RXQ, 1000, 2000), 0);
	send_frame(TXQ, &(struct net_hdr){ 0 }, HDR, 60);
	reset_queue(TXQ);
	reset_queue(RXQ);
	assert_int_equal(set_coal(2, TXQ, 1, 1), 1); /* it is not enabled */
	assert_true(vdrv_queue_setup(&d, TXQ, 16));
	assert_true(vdrv_queue_setup(&d, RXQ, 16));
	get_coal(TXQ, 3, 1000000);
	get_coal(RXQ, 0, 0);
	d.nr_msix[TXQ + 1] = 0;
	for (unsigned n = 1; n <= 3; n++) {
		assert_int_equal(d.nr_msix[TXQ + 1], 0);
		send_frame(TXQ, &(struct net_hdr){ 0 }, HDR, 60);
	}
	assert_int_equal(d.nr_msix[TXQ + 1], 1);
}

/*
 * NET-CTL-17 NET-CTL-20: while a queue is reset, another one gets its frames
 * unless RSS chose it; while all are, frames are dropped.
 */
static void test_queue_reset(void **state)
{
	uint8_t cmd[64];
	size_t len;

	start_mq(",rss=on", ALL_FEATURES & ~NET_F(HASH_REPORT));
	assert_int_equal(set_pairs(3), 0);
	reset_queue(2);
	net_mock_arrive(mock, 1, NULL, frame, 60);
	assert_int_equal(drain(0), 1);
	reset_queue(0);
	reset_queue(4);
	for (unsigned c = 0; c < 3; c++) {
		net_mock_arrive(mock, c, NULL, frame, 60);
		iterate();
		assert_int_equal(mock->nr_in[c], 0);
	}
	assert_true(vdrv_queue_setup(&d, 2, 16));
	assert_int_equal(drain(2), 0);
	give_rx(2, 200);
	vdrv_kick(&d, 2);
	net_mock_arrive(mock, 1, NULL, frame, 60);
	assert_int_equal(drain(2), 1);

	assert_true(vdrv_queue_setup(&d, 0, 16));
	give_rx(0, 200);
	vdrv_kick(&d, 0);
	len = make_rss(cmd, 1, 2); /* frames without a hash: to queue 4 */
	assert_int_equal(command_on(CTRL, 4, 1, cmd, len, NULL, 0), 0);
	frame[12] = 0x08;
	frame[13] = 0x06; /* ARP */
	net_mock_arrive(mock, 0, NULL, frame, 60);
	assert_int_equal(drain(0), 0);
	assert_int_equal(mock->nr_in[0], 0);
}

/*
 * Without MQ the control queue is the third, and the last queue of a device with
 * the most pairs is in none of them: its reset changes nothing.
 */
static void test_reset_of_unused_queue(void **state)
{
	create_as(VDRV_MODERN, "", NET_MAX_PAIRS, true);
	assert_true(
		vdrv_start(&d, ALL_FEATURES & ~(NET_F(MQ) | NET_F(RSS)), 3));
	reset_queue(2 * NET_MAX_PAIRS);
	send_frame(TXQ, &(struct net_hdr){ 0 }, HDR, 60);
	assert_int_equal(mock->nr_sent, 1);
	assert_int_equal(mock->sent.len, 60);
}

/* A stop leaves no timer behind: it reports completions at once. */
static void test_coalescing_stops(void **state)
{
	start_as(VDRV_MODERN, "", ALL_FEATURES & ~VI_BIT(29), 2);
	vdrv_queue_setup(&d, 2, 0);
	assert_int_equal(set_coal(2, TXQ, 1000, 10000000), 0);
	send_frame(TXQ, &(struct net_hdr){ 0 }, HDR, 60);
	assert_int_equal(d.nr_msix[TXQ + 1], 0);
	pci_quiesce(&d.pi);
	assert_int_equal(d.nr_msix[TXQ + 1], 1);
	assert_int_equal(vdrv_used_ring_idx(&d, TXQ), 1);
}

static void test_rate(void **state)
{
	uint64_t start;
	unsigned n = 0;

	/* The longest frame's bytes pass at once; then 5000 bytes in 12 ms. */
	start_as(VDRV_MODERN, ",bps=400000", ALL_FEATURES, 2);
	start = vio_now_ns();
	for (unsigned i = 0; i < 20; i++)
		send_frame(TXQ, &(struct net_hdr){ 0 }, HDR, 5000);
	assert_true(mock->nr_sent >= 13);
	while (mock->nr_sent < 20 && vio_now_ns() - start < SOON_NS)
		vio_loop_iterate(loop, 10);
	assert_int_equal(mock->nr_sent, 20);
	assert_true(vio_now_ns() - start > 40 * NS_PER_MS);

	start = vio_now_ns();
	for (unsigned i = 0; i < 20; i++) {
		give_rx(RXQ, 5100);
		arrive(NULL, 5000);
	}
	vdrv_kick(&d, RXQ);
	n = drain(RXQ);
	assert_true(n >= 13);
	while (n < 20 && vio_now_ns() - start < SOON_NS) {
		vio_loop_iterate(loop, 10);
		n += drain(RXQ);
	}
	assert_int_equal(n, 20);
	assert_true(vio_now_ns() - start > 40 * NS_PER_MS);
}

/*
 * --- Another process continues with the device ---
 */

static ssize_t save(uint8_t state[MOVED_MAX])
{
	return moved_save(dev->vs, state, MOVED_MAX);
}

static int load(const uint8_t *state, size_t len)
{
	return moved_load(dev->vs, state, len);
}

/* All that a driver can set up by commands. */
static void set_up(bool steering, unsigned vlan_step)
{
	/* Types, one entry for queue 0, one transmit queue, a key. */
	uint8_t rss[53] = { 0x3f, [10] = 1, [12] = 40, 0x6d, 0x5a };
	uint8_t hash[53] = { 7, [12] = 40, 0x6d };

	assert_int_equal(command(0, 0, "\0", 1), 0);
	assert_int_equal(command(0, 1, "\1", 1), 0);
	assert_int_equal(command(0, 5, "\1", 1), 0);
	assert_int_equal(set_macs(2, 2, 100, 100, 9), 0);
	assert_int_equal(command(1, 1, "\x52\x54\0\1\2\3", 6), 0);
	for (unsigned id = 0; id < 4096; id += vlan_step) {
		le16 vlan = cpu_to_le16((uint16_t)id);

		assert_int_equal(command(2, 0, &vlan, 2), 0);
	}
	assert_int_equal(steering ? command(4, 1, rss, sizeof(rss)) :
				    command(4, 2, hash, sizeof(hash)),
			 0);
	assert_int_equal(set_coal(2, TXQ, 1000, 2000), 0);
}

static void test_state(void **state)
{
	static uint8_t first[MOVED_MAX], second[MOVED_MAX];

	for (int steering = 0; steering < 2; steering++) {
		ssize_t len, again;

		start_as(VDRV_MODERN, ",rss=on", ALL_FEATURES, 2);
		vdrv_queue_setup(&d, 2, 0);
		set_up(steering, steering ? 1 : 7);
		len = save(first);
		assert_true(len > 0);
		destroy();
		start_as(VDRV_MODERN, ",rss=on", ALL_FEATURES, 2);
		vdrv_queue_setup(&d, 2, 0);
		assert_int_equal(load(first, (size_t)len), 0);
		again = save(second);
		assert_int_equal(again, len);
		assert_memory_equal(first, second, (size_t)len);
		get_coal(TXQ, 1000, 2000);
		assert_false(gets(0x32, 1, 2)); /* PROMISC stays off */
		/* It requests an announcement from its driver. */
		assert_int_equal(vdrv_cfg_read(&d, 6, 2) & 2, 2);
		destroy();
	}
}

/* hostile Q3: a state with each field changed, or truncated. */
static void test_state_hostile(void **state)
{
	static uint8_t good[MOVED_MAX], bad[MOVED_MAX];
	ssize_t len;

	start_as(VDRV_MODERN, ",rss=on", ALL_FEATURES, 2);
	vdrv_queue_setup(&d, 2, 0);
	set_up(false, 500);
	len = save(good);
	assert_true(len > 0);
	for (ssize_t i = 0; i < len; i++) {
		static const uint8_t changes[] = { 1, 2, 0x80, 0xff };

		for (size_t k = 0; k < ARRAY_LEN(changes); k++) {
			memcpy(bad, good, (size_t)len);
			bad[i] ^= changes[k];
			load(bad, (size_t)len);
			assert_true(save(bad) > 0);
		}
	}
	assert_int_equal(load(good, 0), -EINVAL);
	assert_int_equal(load(good, 5), -EINVAL);
	assert_int_equal(load(good, (size_t)len - 1), -EINVAL);
	assert_int_equal(load(good, (size_t)len), 0);
	assert_false(broken());
	destroy();

	/* Nothing that was not negotiated is set up. */
	start_as(VDRV_MODERN, "", NET_F(CTRL_VQ) | VI_BIT(VIRTIO_F_VERSION_1),
		 2);
	assert_int_equal(load(good, (size_t)len), -EINVAL);
}

/*
 * --- Statistics ---
 */

#define STATS_QUERY 0
#define STATS_GET   1
#define RX_BASIC    0
#define RX_CSUM     1
#define TX_BASIC    16
#define TX_CSUM     17
#define CVQ_STATS   32

struct stats_request {
	le16 vq_index;
	le16 reserved[3];
	le64 types;
};

struct stats_reply {
	uint8_t type, reserved;
	le16 vq_index, reserved1, size;
	le64 field[6];
};

static uint8_t stats(unsigned vq, uint64_t types, void *result, size_t len)
{
	struct stats_request req = { .vq_index = cpu_to_le16((uint16_t)vq),
				     .types = cpu_to_le64(types) };

	return command_on(2, 8, STATS_GET, &req, sizeof(req), result, len);
}

/* A field of one type's reply, which must be @size bytes. */
static uint64_t stat(unsigned vq, unsigned type, size_t size, unsigned field)
{
	struct stats_reply reply = { 0 };

	assert_int_equal(stats(vq, VI_BIT(type), &reply, size), 0);
	assert_int_equal(reply.type, type);
	assert_int_equal(le16_to_cpu(reply.vq_index), vq);
	assert_int_equal(le16_to_cpu(reply.size), size); /* NET-CTL-32 */
	return le64_to_cpu(reply.field[field]);
}

static uint64_t stats_types(void)
{
	le64 types = cpu_to_le64(0);

	assert_int_equal(command_on(2, 8, STATS_QUERY, NULL, 0, &types, 8), 0);
	return le64_to_cpu(types);
}

static void start_stats(uint64_t features)
{
	start_as(VDRV_MODERN, "",
		 features | NET_F(DEVICE_STATS) | NET_F(CTRL_VQ) |
			 VI_BIT(VIRTIO_F_VERSION_1),
		 2);
	vdrv_queue_setup(&d, 2, 0);
}

static void test_stats_types(void **state)
{
	const uint64_t basic =
		VI_BIT(RX_BASIC) | VI_BIT(TX_BASIC) | VI_BIT(CVQ_STATS);

	start_stats(0);
	assert_int_equal(stats_types(), basic); /* NET-CTL-30 */
	/* NET-CTL-31: checksums were not negotiated. */
	assert_int_equal(stats(0, VI_BIT(RX_CSUM), NULL, 0), 1);
	assert_int_equal(stats(1, VI_BIT(TX_CSUM), NULL, 0), 1);
	destroy();

	start_stats(NET_F(CSUM) | NET_F(GUEST_CSUM));
	assert_int_equal(stats_types(),
			 basic | VI_BIT(RX_CSUM) | VI_BIT(TX_CSUM));
	destroy();

	/* Without the feature, there are no such commands. */
	start_as(VDRV_MODERN, "", NET_F(CTRL_VQ) | VI_BIT(VIRTIO_F_VERSION_1),
		 2);
	vdrv_queue_setup(&d, 2, 0);
	assert_int_equal(command(8, STATS_QUERY, NULL, 0), 1);
}

static void test_stats_counters(void **state)
{
	struct virtio_net_hdr partial = {
		.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
		.csum_start = 14,
		.csum_offset = 16,
	};
	struct virtio_net_hdr valid = { .flags = VIRTIO_NET_HDR_F_DATA_VALID };
	struct net_hdr hdr = { 0 };
	uint64_t commands;

	start_stats(NET_F(CSUM) | NET_F(GUEST_CSUM));
	for (unsigned k = 0; k < 4; k++)
		give_rx(RXQ, 2000);
	vdrv_kick(&d, RXQ);
	memset(frame, 0xff, 6);
	arrive(NULL, 100);
	arrive(&partial, 200);
	arrive(&valid, 300);
	assert_int_equal(drain(RXQ), 3);
	assert_int_equal(stat(0, RX_BASIC, 56, 0), 1); /* doorbells */
	assert_int_equal(stat(0, RX_BASIC, 56, 1), 3);
	assert_int_equal(stat(0, RX_BASIC, 56, 2), 600);
	assert_true(stat(0, RX_BASIC, 56, 3) >= 1); /* interrupts */
	assert_int_equal(stat(0, RX_BASIC, 56, 4), 0);
	assert_int_equal(stat(0, RX_CSUM, 40, 0), 1);
	assert_int_equal(stat(0, RX_CSUM, 40, 1), 1);
	assert_int_equal(stat(0, RX_CSUM, 40, 2), 1);

	send_frame(TXQ, &hdr, HDR, 64);
	hdr.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
	hdr.csum_start = cpu_to_le16(14);
	hdr.csum_offset = cpu_to_le16(16);
	send_frame(TXQ, &hdr, HDR, 100);
	send_frame(TXQ, &hdr, HDR, 20); /* too short for that */
	assert_int_equal(stat(1, TX_BASIC, 56, 1), 2);
	assert_int_equal(stat(1, TX_BASIC, 56, 2), 164);
	assert_int_equal(stat(1, TX_BASIC, 56, 4), 1);
	assert_int_equal(stat(1, TX_BASIC, 56, 5), 1);
	assert_int_equal(stat(1, TX_CSUM, 24, 0), 1);
	assert_int_equal(stat(1, TX_CSUM, 24, 1), 1);

	/* Of the control queue: one more each time, and one has failed. */
	assert_int_equal(command(11, 0, NULL, 0), 1);
	commands = stat(2, CVQ_STATS, 24, 0);
	assert_int_equal(stat(2, CVQ_STATS, 24, 1), commands);

	/* A new driver begins with 0; ctl status does not. */
	vdrv_reset(&d);
	assert_true(vdrv_start(&d,
			       NET_F(DEVICE_STATS) | NET_F(CTRL_VQ) |
				       VI_BIT(VIRTIO_F_VERSION_1),
			       2));
	vdrv_queue_setup(&d, 2, 0);
	for (unsigned field = 0; field < 6; field++) {
		assert_int_equal(stat(0, RX_BASIC, 56, field), 0);
		assert_int_equal(stat(1, TX_BASIC, 56, field), 0);
	}
}

/* NET-CTL-31: one error fails all, and nothing is written. */
static void test_stats_bad(void **state)
{
	struct stats_request req[3] = {
		{ .vq_index = cpu_to_le16(0), .types = cpu_to_le64(1) },
		{ .vq_index = cpu_to_le16(1), .types = cpu_to_le64(1 << 16) },
		{ .vq_index = cpu_to_le16(2),
		  .types = cpu_to_le64(1ull << 32) },
	};
	struct stats_reply reply[3];
	static struct stats_request many[NET_MAX_QUEUES + 1];

	start_stats(0);
	assert_int_equal(command_on(2, 8, STATS_GET, req, sizeof(req), reply,
				    56 + 56 + 24),
			 0);
	/* Output ends with the driver's buffer. */
	assert_int_equal(
		command_on(2, 8, STATS_GET, req, sizeof(req), reply, 60), 0);
	for (unsigned vq = 0; vq < 4; vq++) {
		for (unsigned type = 0; type < 64; type++) {
			bool right = (vq == 0 && type == RX_BASIC) ||
				     (vq == 1 && type == TX_BASIC) ||
				     (vq == 2 && type == CVQ_STATS);

			req[2].vq_index = cpu_to_le16((uint16_t)vq);
			req[2].types = cpu_to_le64(VI_BIT(type));
			assert_int_equal(
				command_on(2, 8, STATS_GET, req, sizeof(req),
					   reply,
					   56 + 56 + (vq == 2 ? 24 : 56)),
				!right);
		}
	}
	req[2].vq_index = cpu_to_le16(0xffff);
	assert_int_equal(command(8, STATS_GET, req, sizeof(req)), 1);
	assert_int_equal(command(8, STATS_GET, req, 15), 1);
	assert_int_equal(command(8, STATS_GET, many, sizeof(many)), 1);
	assert_int_equal(
		command(8, STATS_GET, many, sizeof(many) - sizeof(many[0])), 0);
	assert_false(broken());
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_ctrl_bad),
		TEST(test_macs),
		TEST(test_vlan_commands),
		TEST(test_mq),
		TEST(test_pairs_by_rings),
		TEST(test_rss),
		TEST(test_hash_report),
		TEST(test_coalescing),
		TEST(test_coalescing_reset),
		TEST(test_queue_reset),
		TEST(test_reset_of_unused_queue),
		TEST(test_coalescing_stops),
		TEST(test_rate),
		TEST(test_state),
		TEST(test_state_hostile),
		TEST(test_stats_types),
		TEST(test_stats_counters),
		TEST(test_stats_bad),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

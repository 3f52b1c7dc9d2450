/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The network device, as a driver sees it: docs/spec/conformance.md section 7
 * and its rows of docs/spec/hostile.md, on a mock backend: features,
 * configuration, transmission, reset.
 */
#include <errno.h>
#include <json-c/json.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>

#include "base/le.h"
#include "net_fixture.h"

#include <cmocka.h>

/*
 * --- Features and configuration ---
 */

static void test_offer(void **state)
{
	/* Not offered, each because nothing here could use it. */
	static const struct {
		const char *name;
		unsigned bit;
	} never[] = {
		{ "GUEST_RSC4 (TRAP-06)", 41 },
		{ "GUEST_RSC6 (TRAP-06)", 42 },
		{ "GSO", 6 },
		{ "HASH_TUNNEL NET-CTL-23", 51 },
		{ "RSC_EXT (TRAP-03) NET-RX-13", 61 },
		{ "STANDBY", 62 },
		{ "GUEST_HDRLEN", 59 },
	};
	uint64_t offer;

	create_as(VDRV_MODERN, ",rss=on,mtu=1500", 2, true);
	vdrv_probe(&d);
	offer = vdrv_offer(&d);
	for (unsigned i = 0; i < ARRAY_LEN(never); i++)
		if (offer & VI_BIT(never[i].bit))
			fail_msg("%s is offered", never[i].name);
	assert_int_equal(offer & NET_F(RSS), NET_F(RSS));
	/* NET-CTL-18: HASH_REPORT and RSS together. NET-CFG-09: CTRL_VQ. */
	assert_true(offer & NET_F(HASH_REPORT));
	assert_true(offer & NET_F(CTRL_VQ));
	assert_true(offer & NET_F(MQ));
	/*
	 * Bits 64 and above: RSS_CONTEXT (NET-CTL-24), tunnels (NET-RX-07,
	 * NET-RX-12, TRAP-05), OUT_NET_HEADER (NET-TX-11, NET-RX-16), IPSEC
	 * (NET-TX-12, NET-RX-17), flow filters (NET-FF-01).
	 */
	for (unsigned window = 2; window < 5; window++) {
		vdrv_common_write(&d, VIRTIO_PCI_COMMON_DFSELECT, 4, window);
		assert_int_equal(vdrv_common_read(&d, VIRTIO_PCI_COMMON_DF, 4),
				 0);
	}
	destroy();

	/* A backend without offloads: none; with one channel: no MQ. */
	create_as(VDRV_MODERN, "", 1, false);
	vdrv_probe(&d);
	offer = vdrv_offer(&d);
	assert_int_equal(offer & (NET_GUEST_OFFLOADS | TSO4 | NET_F(MQ) |
				  NET_F(CTRL_GUEST_OFFLOADS) | NET_F(MTU) |
				  NET_F(RSS) | NET_F(HASH_REPORT)),
			 0);
}

/* 7.2: FEATURES_OK fails if a feature lacks its prerequisite. */
static void test_feature_rules(void **state)
{
	static const struct {
		uint64_t features;
		bool ok;
	} rows[] = {
		{ 0, true },
		{ NET_F(GUEST_TSO4), false },
		{ NET_F(GUEST_TSO4) | NET_F(GUEST_CSUM), true },
		{ NET_F(HOST_TSO6), false },
		{ NET_F(HOST_ECN) | NET_F(CSUM), false },
		{ NET_F(GUEST_USO4), false },
		{ NET_F(GUEST_UFO), false },
		{ NET_F(GUEST_UFO) | NET_F(GUEST_CSUM), true },
		{ NET_F(HOST_UFO), false },
		{ NET_F(HOST_USO), false },
		{ NET_F(CTRL_RX), false },
		{ NET_F(CTRL_RX) | NET_F(CTRL_VQ), true },
		{ NET_F(MQ), false },
		{ NET_F(RSS), false },
		{ NET_F(NOTF_COAL), false },
		{ NET_F(CTRL_RX_EXTRA) | NET_F(HASH_REPORT), true },
		{ VI_BIT(61), false },
	};

	create_as(VDRV_MODERN, ",rss=on", 2, true);
	for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
		vdrv_probe(&d);
		vdrv_reset(&d);
		vdrv_greet(&d);
		if (vdrv_negotiate(&d, rows[i].features |
					       VI_BIT(VIRTIO_F_VERSION_1)) !=
		    rows[i].ok)
			fail_msg("row %u", i);
	}
}

static void test_config(void **state)
{
	start_as(VDRV_MODERN, ",rss=on,mtu=1500", ALL_FEATURES, 4);
	for (unsigned i = 0; i < 6; i++)
		assert_int_equal(vdrv_cfg_read(&d, i, 1), mac[i]);
	assert_int_equal(vdrv_cfg_read(&d, 6, 2), 1);
	assert_int_equal(vdrv_cfg_read(&d, 8, 2), 2);     /* NET-CFG-01 */
	assert_int_equal(vdrv_cfg_read(&d, 10, 2), 1500); /* NET-CFG-02 */
	/* NET-CFG-07 TRAP-01: 10000 Mbit/s, full duplex */
	assert_int_equal(vdrv_cfg_read(&d, 12, 4), 10000);
	assert_int_equal(vdrv_cfg_read(&d, 16, 1), 1);
	assert_int_equal(vdrv_cfg_read(&d, 17, 1), 40);  /* NET-CFG-05 */
	assert_int_equal(vdrv_cfg_read(&d, 18, 2), 128); /* NET-CFG-06 */
	assert_int_equal(vdrv_cfg_read(&d, 20, 4), 0x1ff);
	assert_int_equal(d.device_len, 24);

	/* NET-CFG-11 hostile F16 S20: no write does anything. */
	for (unsigned off = 0; off < 64; off++)
		for (int size = 1; size <= 4; size *= 2)
			vdrv_cfg_write(&d, off, size, 0xa5a5a5a5);
	for (unsigned i = 0; i < 6; i++)
		assert_int_equal(vdrv_cfg_read(&d, i, 1), mac[i]);
	assert_int_equal(vdrv_cfg_read(&d, 10, 2), 1500);
	for (unsigned off = 0; off < 64; off++)
		for (int size = 1; size <= 4; size *= 2)
			vdrv_cfg_read(&d, off, size);
	assert_false(broken());
}

static void test_config_legacy(void **state)
{
	start_as(VDRV_LEGACY, "", ALL_FEATURES, 4);
	assert_int_equal(vdrv_cfg_read(&d, 6, 2), 1); /* NET-L01 */
	assert_int_equal(vdrv_cfg_read(&d, 8, 2), 2);
	/* NET-L02 */
	for (unsigned i = 0; i < 6; i++)
		vdrv_cfg_write(&d, i, 1, 0x10 + i);
	for (unsigned i = 0; i < 6; i++)
		assert_int_equal(vdrv_cfg_read(&d, i, 1), 0x10 + i);
	/* hostile S20 */
	for (unsigned off = 0; off < 64; off++)
		for (int size = 1; size <= 4; size *= 2)
			vdrv_cfg_write(&d, off, size, 0xffffffff);
	vdrv_reset(&d);
	assert_int_equal(vdrv_cfg_read(&d, 0, 1), 0x52);
}

static int ctl(const char *cmd, const char *arg)
{
	char *argv[] = { (char *)(uintptr_t)cmd, (char *)(uintptr_t)arg };
	struct json_object *reply = json_object_new_object();
	struct opened_files none = { .nr = 0 };
	struct err err;
	int ret = vdev_ctl(dev, arg ? 2 : 1, argv, &none, reply, &err);

	json_object_put(reply);
	return ret;
}

static void test_link(void **state)
{
	start_as(VDRV_MODERN, "", ALL_FEATURES, 2);
	vdrv_queue_setup(&d, 2, 0);
	assert_int_equal(ctl("link", "down"), 0);
	assert_int_equal(vdrv_cfg_read(&d, 6, 2), 0);
	assert_int_equal(d.nr_msix[0], 1);                 /* NET-CFG-10 */
	assert_int_equal(vdrv_cfg_read(&d, 12, 4), 10000); /* NET-CFG-08 */
	assert_int_equal(ctl("link", "down"), 0);
	assert_int_equal(d.nr_msix[0], 1);

	/* Nothing passes; nothing piles up. */
	give_rx(RXQ, 2000);
	vdrv_kick(&d, RXQ);
	arrive(NULL, 60);
	assert_int_equal(drain(RXQ), 0);
	send_frame(TXQ, &(struct net_hdr){ 0 }, HDR, 60);
	assert_int_equal(mock->nr_sent, 0);
	assert_int_equal(drain(TXQ), 1);

	/* NET-CTL-12 */
	assert_int_equal(ctl("link", "up"), 0);
	assert_int_equal(vdrv_cfg_read(&d, 6, 2), 3);
	assert_int_equal(d.nr_msix[0], 2);
	assert_int_equal(command(3, 0, NULL, 0), 0);
	assert_int_equal(vdrv_cfg_read(&d, 6, 2), 1);
	arrive(NULL, 60);
	assert_int_equal(drain(RXQ), 1);

	mock->be.client->link(mock->be.client_arg, false, "test");
	assert_int_equal(vdrv_cfg_read(&d, 6, 2) & 1, 0);
	assert_int_equal(ctl("link", "sideways"), -EINVAL);
	assert_int_equal(ctl("link", NULL), -EINVAL);
	assert_int_equal(ctl("nonsense", NULL), -EINVAL);
}

/* NET-CTL-12: requested by ctl, signalled to the driver, acknowledged by it. */
static void test_announce(void **state)
{
	start_as(VDRV_MODERN, "", ALL_FEATURES & ~NET_F(GUEST_ANNOUNCE), 2);
	assert_int_equal(ctl("announce", NULL), -EOPNOTSUPP);
	assert_int_equal(d.nr_msix[0], 0);
	destroy();

	start_as(VDRV_MODERN, "", ALL_FEATURES, 2);
	vdrv_queue_setup(&d, 2, 0);
	assert_int_equal(ctl("announce", NULL), 0);
	assert_int_equal(vdrv_cfg_read(&d, 6, 2), 3);
	assert_int_equal(d.nr_msix[0], 1);
	assert_int_equal(command(3, 0, NULL, 0), 0);
	assert_int_equal(vdrv_cfg_read(&d, 6, 2), 1);
	assert_int_equal(ctl("announce", "now"), -EINVAL);
	assert_int_equal(ctl("link", "down"), 0);
	assert_int_equal(ctl("announce", NULL), -ENETDOWN);
	assert_int_equal(vdrv_cfg_read(&d, 6, 2), 0);
	/* Not for the next driver. */
	assert_int_equal(ctl("link", "up"), 0);
	vdrv_reset(&d);
	assert_true(vdrv_start(&d, ALL_FEATURES, 2));
	assert_int_equal(vdrv_cfg_read(&d, 6, 2), 1);
}

static void test_status(void **state)
{
	struct json_object *status = json_object_new_object(), *tx, *val;

	start_as(VDRV_MODERN, "", ALL_FEATURES, 2);
	send_frame(TXQ, &(struct net_hdr){ 0 }, HDR, 60);
	send_frame(TXQ, &(struct net_hdr){ 0 }, HDR, 3);
	vdev_status(dev, status);
	assert_true(json_object_object_get_ex(status, "tx", &tx));
	json_object_object_get_ex(tx, "frames", &val);
	assert_int_equal(json_object_get_int(val), 1);
	json_object_object_get_ex(tx, "bytes", &val);
	assert_int_equal(json_object_get_int(val), 60);
	json_object_object_get_ex(tx, "dropped", &val);
	assert_int_equal(json_object_get_int(val), 1);
	json_object_object_get_ex(status, "mac", &val);
	assert_string_equal(json_object_get_string(val), "52:54:00:01:02:03");
	json_object_put(status);
}

/*
 * --- Transmission ---
 */

/* NET-TX-01 hostile D10 Q17: header and frame in pieces of any size. */
static void test_tx_pieces(void **state)
{
	static const struct {
		enum vdrv_mode mode;
		uint64_t features;
		const char *options;
		unsigned hdr_len;
	} rows[] = {
		{ VDRV_LEGACY, 0, "", 10 }, /* NET-L03 NET-L05 */
		{ VDRV_LEGACY, NET_F(MRG_RXBUF), "", 12 },
		{ VDRV_MODERN, VI_BIT(VIRTIO_F_VERSION_1), "", 12 },
		{ VDRV_MODERN, ALL_FEATURES, ",rss=on", 20 },
	};

	for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
		unsigned len = rows[i].hdr_len + 60;

		start_as(rows[i].mode, rows[i].options, rows[i].features, 2);
		for (unsigned piece = 1; piece <= len; piece++) {
			struct vdrv_buf bufs[96];
			uint64_t gpa = vdrv_alloc(&d, len, 1);
			uint8_t *p = vdrv_ptr(&d, gpa, len);
			unsigned nr = 0;

			memset(p, 0, rows[i].hdr_len);
			memcpy(p + rows[i].hdr_len, frame, 60);
			for (unsigned off = 0; off < len; off += piece) {
				unsigned n =
					piece < len - off ? piece : len - off;

				bufs[nr++] = (struct vdrv_buf){ gpa + off, n,
								VDRV_R };
			}
			memset(&mock->sent, 0, sizeof(mock->sent));
			vdrv_add(&d, TXQ, bufs, nr);
			vdrv_kick(&d, TXQ);
			assert_int_equal(mock->nr_sent, piece);
			assert_int_equal(mock->sent.len, 60);
			assert_memory_equal(mock->sent.data, frame, 60);
			assert_int_equal(drain(TXQ), 1);
			assert_int_equal(drained_bytes, 0); /* NET-TX-13 */
		}
		destroy();
	}
}

/* NET-TX-14 hostile D10 D14: chains that end in or right after the header. */
static void test_tx_short(void **state)
{
	start_as(VDRV_MODERN, "", ALL_FEATURES, 2);
	for (unsigned len = 1; len < HDR + 14; len++) {
		uint64_t gpa = vdrv_alloc(&d, len, 1);

		vdrv_add(&d, TXQ, (struct vdrv_buf[]){ { gpa, len, VDRV_R } },
			 1);
		vdrv_kick(&d, TXQ);
		assert_int_equal(drain(TXQ), 1); /* NET-TX-13: also dropped */
	}
	assert_int_equal(mock->nr_sent, 0);
	assert_false(broken());
	/* hostile D11: the longest, and one byte more. */
	send_frame(TXQ, &(struct net_hdr){ 0 }, HDR, NET_MAX_FRAME);
	assert_int_equal(mock->nr_sent, 1);
	assert_int_equal(mock->sent.len, NET_MAX_FRAME);
	frame[0] = 1;
	vdrv_add(&d, TXQ,
		 (struct vdrv_buf[]){
			 { vdrv_alloc(&d, 1 << 20, 1), 1 << 20, VDRV_R } },
		 1);
	vdrv_kick(&d, TXQ);
	assert_int_equal(mock->nr_sent, 1);
	assert_int_equal(drain(TXQ), 2);
}

/* hostile K16: header descriptors of lengths that a header does not have. */
static void test_tx_header_lengths(void **state)
{
	static const uint32_t lengths[] = { 1, 11, 12, 13, 65536 };

	start_as(VDRV_MODERN, "", ALL_FEATURES, 2);
	for (unsigned i = 0; i < ARRAY_LEN(lengths); i++) {
		uint64_t gpa = vdrv_alloc(&d, lengths[i] + 32, 1);

		memset(vdrv_ptr(&d, gpa, lengths[i] + 32), 0, lengths[i] + 32);
		vdrv_add(
			&d, TXQ,
			(struct vdrv_buf[]){ { gpa, lengths[i], VDRV_R },
					     { gpa + lengths[i], 32, VDRV_R } },
			2);
		vdrv_kick(&d, TXQ);
		assert_int_equal(mock->nr_sent, i + 1);
		/* Both are one: 12 bytes of header, the rest is the frame. */
		assert_int_equal(mock->sent.len, lengths[i] + 32 - HDR);
		assert_int_equal(drain(TXQ), 1);
	}
	assert_false(broken());
}

struct flipper {
	volatile uint8_t *byte;
	atomic_bool stop;
};

static void *flip(void *arg)
{
	struct flipper *f = arg;

	while (!atomic_load_explicit(&f->stop, memory_order_relaxed))
		*f->byte ^= 0xff;
	return NULL;
}

/* hostile D11: a header that changes is checked as it is used. */
static void test_tx_flipped(void **state)
{
	const struct net_hdr hdr = {
		.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
		.csum_start = cpu_to_le16(34),
		.csum_offset = cpu_to_le16(6),
	};
	struct flipper f = { 0 };
	pthread_t thread;
	uint64_t gpa;
	uint8_t *p;

	start_as(VDRV_MODERN, "", ALL_FEATURES, 2);
	gpa = vdrv_alloc(&d, HDR + 60, 2);
	p = vdrv_ptr(&d, gpa, HDR + 60);
	memcpy(p, &hdr, HDR);
	memcpy(p + HDR, frame, 60);
	f.byte = p + offsetof(struct net_hdr, csum_start) + 1;
	pthread_create(&thread, NULL, flip, &f);
	for (int i = 0; i < 3000; i++) {
		unsigned before = mock->nr_sent;

		vdrv_add(&d, TXQ,
			 (struct vdrv_buf[]){ { gpa, HDR + 60, VDRV_R } }, 1);
		vdrv_kick(&d, TXQ);
		assert_int_equal(drain(TXQ), 1);
		if (mock->nr_sent != before)
			assert_int_equal(mock->sent.hdr.csum_start, 34);
	}
	atomic_store(&f.stop, true);
	pthread_join(thread, NULL);
}

/* The backend gets the requested value, within the allowed limits. */
static void test_tx_offload(void **state)
{
	struct net_hdr hdr = {
		.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
		.gso_type = VIRTIO_NET_HDR_GSO_TCPV4,
		.hdr_len = cpu_to_le16(54),
		.gso_size = cpu_to_le16(1448),
		.csum_start = cpu_to_le16(34),
		.csum_offset = cpu_to_le16(16),
	};

	start_as(VDRV_MODERN, "", ALL_FEATURES, 2);
	send_frame(TXQ, &hdr, HDR, 30000); /* NET-TX-04 NET-TX-05 */
	assert_int_equal(mock->nr_sent, 1);
	assert_int_equal(mock->sent.hdr.gso_size, 1448);
	assert_int_equal(mock->sent.hdr.csum_start, 34);
	assert_memory_equal(mock->sent.data, frame, 30000);
	hdr.csum_start = cpu_to_le16(65535); /* hostile K5 F18 */
	send_frame(TXQ, &hdr, HDR, 30000);
	assert_int_equal(mock->nr_sent, 1);
	destroy();

	start_as(VDRV_MODERN, "", VI_BIT(VIRTIO_F_VERSION_1), 2);
	hdr.csum_start = cpu_to_le16(34);
	send_frame(TXQ, &hdr, HDR, 30000);
	assert_int_equal(mock->nr_sent, 0);
	/* NET-CFG-04: any size that fits a frame leaves in one piece. */
	send_frame(TXQ, &(struct net_hdr){ 0 }, HDR, 9014);
	assert_int_equal(mock->nr_sent, 1);
	assert_int_equal(mock->sent.len, 9014);
}

/* A backend that cannot take more: the chain waits and is not lost. */
static void test_tx_wait(void **state)
{
	start_as(VDRV_MODERN, "", ALL_FEATURES, 2);
	mock->send_ret = -EAGAIN;
	send_frame(TXQ, &(struct net_hdr){ 0 }, HDR, 60);
	send_frame(TXQ, &(struct net_hdr){ 0 }, HDR, 61);
	assert_int_equal(drain(TXQ), 0);
	mock->send_ret = 0;
	mock->be.client->writable(mock->be.client_arg, 0);
	assert_int_equal(mock->nr_sent, 2);
	assert_int_equal(mock->sent.len, 61);
	assert_int_equal(drain(TXQ), 2);
	mock->send_ret = -EIO; /* lost, but completed */
	send_frame(TXQ, &(struct net_hdr){ 0 }, HDR, 60);
	assert_int_equal(drain(TXQ), 1);
}

/* hostile S14 K1 Q7: chains of every length, direct and indirect. */
static void test_long_chains(void **state)
{
	static const unsigned lengths[] = { 2, 33, 129, 257, 513, 1023, 1500 };

	for (unsigned q = 0; q < 3; q++) {
		for (unsigned i = 0; i < ARRAY_LEN(lengths) * 2; i++) {
			static struct vdrv_buf bufs[1500];
			unsigned n = lengths[i / 2];
			bool indirect = i % 2;
			uint64_t gpa;

			create_as(VDRV_MODERN, ",queue-size=1024", 1, true);
			assert_true(vdrv_start(&d, ALL_FEATURES, 3));
			gpa = vdrv_alloc(&d, 1500, 1);
			for (unsigned k = 0; k < n; k++)
				bufs[k] = (struct vdrv_buf){
					gpa + k, 1, q == RXQ ? VDRV_W : VDRV_R
				};
			if (indirect)
				vdrv_add_indirect(&d, q, bufs, n);
			else if (n <= d.q[q].nr_free)
				vdrv_add(&d, q, bufs, n);
			vdrv_kick(&d, q);
			arrive(NULL, 60);
			iterate();
			if (q == TXQ && n == 1023 && indirect)
				assert_int_equal(mock->nr_sent, 1);
			/* Served, dropped or NEEDS_RESET: always alive. */
			vdrv_reset(&d);
			assert_true(vdrv_start(&d, ALL_FEATURES, 3));
			send_frame(TXQ, &(struct net_hdr){ 0 }, HDR, 60);
			assert_int_equal(drain(TXQ), 1);
			destroy();
		}
	}
}

/* hostile Q13: buffers outside guest memory, such as a BAR. K1 D12 S23 */
static void test_bad_chains(void **state)
{
	for (unsigned q = 0; q < 3; q++) {
		for (int kind = 0; kind < 5; kind++) {
			start_as(VDRV_MODERN, "", ALL_FEATURES, 2);
			vdrv_queue_setup(&d, 2, 0);
			give_rx(RXQ, 2000);
			switch (kind) {
			case 0: /* not memory */
				vdrv_desc(&d, q, 9, 0xfe000000, 64, 0, 0);
				break;
			case 1: /* a loop */
				vdrv_desc(&d, q, 9, VDRV_MEM_BASE, 64, 1, 9);
				break;
			case 2: /* next out of range */
				vdrv_desc(&d, q, 9, VDRV_MEM_BASE, 64, 1, 999);
				break;
			case 3: /* wraps */
				vdrv_desc(&d, q, 9, ~0ull - 8, 64, 0, 0);
				break;
			case 4: /* nested */
				vdrv_desc(&d, q, 9, VDRV_MEM_BASE, 16, 4, 0);
				vdrv_desc(&d, q, 0, VDRV_MEM_BASE, 16, 4, 0);
				break;
			}
			vdrv_avail(&d, q, 9);
			vdrv_kick(&d, q);
			arrive(NULL, 60);
			arrive(NULL, 60);
			iterate();
			assert_int_equal(mock->nr_sent, 0);
			if (kind < 4 && q != RXQ)
				assert_true(broken());
			/* It works again after a reset. */
			vdrv_reset(&d);
			assert_true(vdrv_start(&d, ALL_FEATURES, 2));
			send_frame(TXQ, &(struct net_hdr){ 0 }, HDR, 60);
			assert_int_equal(mock->nr_sent, 1);
			destroy();
		}
	}
}

/* hostile S23 F9: a reset in the middle of everything. */
static void test_reset_under_load(void **state)
{
	create_as(VDRV_MODERN, "", 1, true);
	for (int round = 0; round < 50; round++) {
		d.next_free = VDRV_MEM_BASE;
		assert_true(vdrv_start(&d, ALL_FEATURES, 2));
		mock->send_ret = round % 3 ? 0 : -EAGAIN;
		for (int i = 0; i < 8; i++)
			give_rx(RXQ, 200);
		vdrv_kick(&d, RXQ);
		for (int i = 0; i < 8; i++) {
			arrive(NULL, 400);
			send_frame(TXQ, &(struct net_hdr){ 0 }, HDR, 60);
		}
		vdrv_reset(&d);
		/* The old driver's memory is not written any more. */
		memset(d.mem, 0x11, 65536);
		arrive(NULL, 400);
		iterate();
		for (int i = 0; i < 65536; i++)
			assert_int_equal(d.mem[i], 0x11);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_offer),      TEST(test_feature_rules),
		TEST(test_config),     TEST(test_config_legacy),
		TEST(test_link),       TEST(test_announce),
		TEST(test_status),     TEST(test_tx_pieces),
		TEST(test_tx_short),   TEST(test_tx_header_lengths),
		TEST(test_tx_flipped), TEST(test_tx_offload),
		TEST(test_tx_wait),    TEST(test_long_chains),
		TEST(test_bad_chains), TEST(test_reset_under_load),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

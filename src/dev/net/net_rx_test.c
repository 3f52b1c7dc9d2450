/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The network device, as a driver sees it: docs/spec/conformance.md section 7
 * and its rows of docs/spec/hostile.md, on a mock backend: reception.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include "base/le.h"
#include "net_fixture.h"

#include <cmocka.h>

/*
 * --- Reception ---
 */

/* NET-RX-01 NET-RX-19 hostile F15: one buffer, num_buffers 1. */
static void test_rx_plain(void **state)
{
	static const struct {
		enum vdrv_mode mode;
		uint64_t features;
		unsigned hdr_len;
	} rows[] = {
		{ VDRV_MODERN, VI_BIT(VIRTIO_F_VERSION_1), 12 },
		{ VDRV_MODERN, ALL_FEATURES, 12 },
		{ VDRV_LEGACY, 0, 10 },
		{ VDRV_LEGACY, NET_F(MRG_RXBUF), 12 },
	};

	for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
		unsigned hdr_len = rows[i].hdr_len;
		uint8_t *p;

		start_as(rows[i].mode, "", rows[i].features, 2);
		p = vdrv_ptr(&d, give_rx(RXQ, 2000), 2000);
		vdrv_kick(&d, RXQ);
		arrive(NULL, 1000);
		assert_int_equal(drain(RXQ), 1);
		assert_int_equal(drained_bytes, hdr_len + 1000);
		assert_memory_equal(p + hdr_len, frame, 1000);
		assert_int_equal(p[hdr_len + 1000], 0xee);
		for (unsigned k = 0; k < 10; k++) /* NET-RX-05 */
			assert_int_equal(p[k], 0);
		if (hdr_len == 12)
			assert_int_equal(p[10] | p[11] << 8, 1);
		destroy();
	}
}

/* NET-RX-02 NET-RX-03 NET-RX-04 NET-RX-19: across several buffers. */
static void test_rx_merge(void **state)
{
	static const struct {
		unsigned size, len, nr;
	} rows[] = {
		{ 100, 88, 1 }, { 100, 89, 2 },      { 100, 1000, 11 },
		{ 12, 60, 6 },  { 1536, 60000, 40 }, { 1536, 1524, 1 },
		{ 13, 60, 6 },
	};

	for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
		struct vdrv_used used;
		uint64_t gpa[64];
		unsigned left = rows[i].len;
		uint16_t before;
		uint8_t *p;

		start_as(VDRV_MODERN, "", ALL_FEATURES, 2);
		for (unsigned k = 0; k < 64; k++)
			gpa[k] = give_rx(RXQ, rows[i].size);
		vdrv_kick(&d, RXQ);
		before = vdrv_used_ring_idx(&d, RXQ);
		arrive(NULL, rows[i].len);
		assert_int_equal(
			(uint16_t)(vdrv_used_ring_idx(&d, RXQ) - before),
			rows[i].nr);
		for (unsigned k = 0; k < rows[i].nr; k++) {
			unsigned hdr = k ? 0 : HDR;
			unsigned room = rows[i].size - hdr;
			unsigned n = left < room ? left : room;

			assert_true(vdrv_used(&d, RXQ, &used));
			assert_int_equal(used.len, hdr + n);
			p = vdrv_ptr(&d, gpa[k], rows[i].size);
			assert_memory_equal(p + hdr, frame + rows[i].len - left,
					    n);
			if (k == 0)
				assert_int_equal(p[10] | p[11] << 8,
						 rows[i].nr);
			left -= n;
		}
		assert_int_equal(left, 0);
		/* Buffers that were taken and not used are still there. */
		arrive(NULL, 60);
		assert_true(drain(RXQ) >= 1);
		destroy();
	}
}

/* Too few buffers: the frame waits for more, then arrives whole. */
static void test_rx_wait(void **state)
{
	uint64_t gpa[40];

	start_as(VDRV_MODERN, "", ALL_FEATURES, 2);
	for (unsigned k = 0; k < 10; k++)
		gpa[k] = give_rx(RXQ, 112);
	vdrv_kick(&d, RXQ);
	arrive(NULL, 3000);
	assert_int_equal(drain(RXQ), 0);
	arrive(NULL, 60); /* waits behind it */
	assert_int_equal(mock->nr_in[0], 1);
	for (unsigned k = 10; k < 28; k++)
		gpa[k] = give_rx(RXQ, 112);
	assert_true(vdrv_kick_if_wanted(&d, RXQ));
	assert_int_equal(drain(RXQ), 27 + 1);
	assert_int_equal(drained_bytes, HDR + 3000 + HDR + 60);
	assert_memory_equal(vdrv_ptr(&d, gpa[0] + HDR, 100), frame, 100);
	assert_memory_equal(vdrv_ptr(&d, gpa[1], 112), frame + 100, 112);
	assert_memory_equal(vdrv_ptr(&d, gpa[27] + HDR, 60), frame, 60);
	/* No buffers: frames stay with the backend. */
	arrive(NULL, 60);
	arrive(NULL, 60);
	assert_false(mock->watched[0]);
	assert_int_equal(mock->nr_in[0], 2);
	give_rx(RXQ, 112);
	assert_true(vdrv_kick_if_wanted(&d, RXQ));
	assert_int_equal(drain(RXQ), 1);
	assert_int_equal(mock->nr_in[0], 1);
}

/* NET-RX-20: never truncated, never beyond the end. hostile D14 D10 */
static void test_rx_too_small(void **state)
{
	for (int merge = 0; merge < 2; merge++) {
		for (unsigned size = 1; size < 80; size++) {
			uint64_t gpa, f = VI_BIT(VIRTIO_F_VERSION_1) |
					  VI_BIT(VIRTIO_RING_F_EVENT_IDX);
			struct vdrv_used used;
			uint8_t *p;

			start_as(VDRV_MODERN, ",queue-size=2",
				 merge ? f | NET_F(MRG_RXBUF) : f, 2);
			gpa = give_rx(RXQ, size);
			p = vdrv_ptr(&d, gpa, size);
			vdrv_alloc(&d, 64, 1);
			memset(vdrv_ptr(&d, gpa + size, 64), 0xee, 64);
			vdrv_kick(&d, RXQ);
			arrive(NULL, 60);
			iterate();
			if (vdrv_used(&d, RXQ, &used) && size < HDR + 60)
				assert_int_equal(used.len, 0);
			if (size >= HDR + 60)
				assert_memory_equal(p + HDR, frame, 60);
			for (unsigned k = 0; k < 64; k++)
				assert_int_equal(p[size + k], 0xee);
			/* The next driver's buffer gets the next frame. */
			vdrv_reset(&d);
			assert_true(vdrv_start(&d, f, 2));
			give_rx(RXQ, 2000);
			vdrv_kick(&d, RXQ);
			arrive(NULL, 60);
			assert_int_equal(drain(RXQ), 1);
			assert_int_equal(drained_bytes, HDR + 60);
			destroy();
		}
	}
	/* Without merging, a frame that is too long is dropped, not held. */
	start_as(VDRV_MODERN, "", VI_BIT(VIRTIO_F_VERSION_1), 2);
	give_rx(RXQ, 500);
	vdrv_kick(&d, RXQ);
	arrive(NULL, 489);
	assert_int_equal(drain(RXQ), 0);
	arrive(NULL, 488);
	assert_int_equal(drain(RXQ), 1);
	assert_int_equal(drained_bytes, 500);
}

/* A merged frame longer than the whole ring can hold must not block it. */
static void test_rx_never_fits(void **state)
{
	start_as(VDRV_MODERN, ",queue-size=4", ALL_FEATURES, 2);
	for (unsigned k = 0; k < 4; k++)
		give_rx(RXQ, 100);
	vdrv_kick(&d, RXQ);
	arrive(NULL, 1000);
	assert_int_equal(drain(RXQ), 0);
	arrive(NULL, 60);
	assert_int_equal(drain(RXQ), 1);
}

/* Readable buffers, and chains of pieces, in the receive queue. */
static void test_rx_chains(void **state)
{
	uint64_t gpa;
	uint8_t *p;

	start_as(VDRV_MODERN, "", ALL_FEATURES, 2);
	gpa = vdrv_alloc(&d, 256, 1);
	p = vdrv_ptr(&d, gpa, 256);
	memset(p, 0xee, 256);
	vdrv_add(&d, RXQ, (struct vdrv_buf[]){ { gpa, 64, VDRV_R } }, 1);
	vdrv_add(&d, RXQ,
		 (struct vdrv_buf[]){ { gpa, 20, VDRV_R },
				      { gpa + 64, 1, VDRV_W },
				      { gpa + 65, 5, VDRV_W },
				      { gpa + 70, 7, VDRV_W },
				      { gpa + 77, 100, VDRV_W } },
		 5);
	vdrv_kick(&d, RXQ);
	arrive(NULL, 60);
	assert_int_equal(drain(RXQ), 2);
	assert_int_equal(drained_bytes, HDR + 60);
	for (unsigned k = 0; k < 64; k++)
		assert_int_equal(p[k], 0xee);
	assert_memory_equal(p + 64 + HDR, frame, 60);
}

/* NET-RX-06 .. NET-RX-10 hostile F17: offloads as negotiated, as switched. */
static void test_rx_offload(void **state)
{
	static const struct virtio_net_hdr tso = {
		.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
		.gso_type = VIRTIO_NET_HDR_GSO_TCPV4,
		.hdr_len = 54,
		.gso_size = 1448,
		.csum_start = 34,
		.csum_offset = 16,
	};
	le64 mask = cpu_to_le64(0);
	uint8_t *p;

	start_as(VDRV_MODERN, "", ALL_FEATURES, 2);
	vdrv_queue_setup(&d, 2, 0);
	/* NET-CTL-25: all that were negotiated begin enabled. */
	assert_int_equal(mock->offloads, NET_GUEST_OFFLOADS);
	p = vdrv_ptr(&d, give_rx(RXQ, 4000), 4000);
	vdrv_kick(&d, RXQ);
	arrive(&tso, 3000);
	assert_int_equal(drain(RXQ), 1);
	assert_int_equal(p[0], 1);
	assert_int_equal(p[1], 1);
	assert_int_equal(p[2], 54); /* NET-RX-14 */
	assert_int_equal(p[4] | p[5] << 8, 1448);
	assert_int_equal(p[6], 34);
	assert_int_equal(p[8], 16);

	assert_int_equal(command(5, 0, &mask, 8), 0);
	assert_int_equal(mock->offloads, 0);
	give_rx(RXQ, 4000);
	vdrv_kick(&d, RXQ);
	arrive(&tso, 3000);
	assert_int_equal(drain(RXQ), 0);
	/* TRAP-04: tunnels have their own numbers here, not offered. */
	mask = cpu_to_le64(VI_BIT(46));
	assert_int_equal(command(5, 0, &mask, 8), 1);
	mask = cpu_to_le64(NET_F(GUEST_TSO4)); /* without GUEST_CSUM */
	assert_int_equal(command(5, 0, &mask, 8), 1);
	assert_int_equal(command(5, 0, &mask, 7), 1);
	assert_int_equal(mock->offloads, 0);
	mask = cpu_to_le64(NET_F(GUEST_TSO4) | NET_F(GUEST_CSUM));
	assert_int_equal(command(5, 0, &mask, 8), 0);
	arrive(&tso, 3000);
	assert_int_equal(drain(RXQ), 1);
	vdrv_reset(&d);
	assert_int_equal(mock->offloads, 0);
}

/* NET-CFG-03 */
static void test_rx_mtu(void **state)
{
	start_as(VDRV_MODERN, ",mtu=1000", ALL_FEATURES, 2);
	for (unsigned k = 0; k < 4; k++)
		give_rx(RXQ, 2000);
	vdrv_kick(&d, RXQ);
	arrive(NULL, 1015);
	assert_int_equal(drain(RXQ), 0);
	arrive(NULL, 1014);
	assert_int_equal(drain(RXQ), 1);
	frame[12] = 0x81; /* a VLAN tag is not part of the MTU */
	arrive(NULL, 1018);
	assert_int_equal(drain(RXQ), 1);
	arrive(NULL, 1019);
	assert_int_equal(drain(RXQ), 0);
	memcpy(frame + 16, "\x81\0", 2); /* nor are two */
	arrive(NULL, 1022);
	assert_int_equal(drain(RXQ), 1);
	memcpy(frame + 16, "\x08\0", 2);
	destroy();
	start_as(VDRV_MODERN, ",mtu=1000",
		 NET_F(MTU) | VI_BIT(VIRTIO_F_VERSION_1), 2);
	for (unsigned k = 0; k < 4; k++)
		give_rx(RXQ, 2000);
	vdrv_kick(&d, RXQ);
	arrive(NULL, 1018);
	assert_int_equal(drain(RXQ), 1);

	/* A front-end that told the driver less; not for the next one. */
	assert_int_equal(net_set_mtu(mock->be.client_arg, 900), 0);
	arrive(NULL, 1018);
	assert_int_equal(drain(RXQ), 0);
	arrive(NULL, 918);
	assert_int_equal(drain(RXQ), 1);
	assert_int_equal(net_set_mtu(mock->be.client_arg, 0), 0);
	arrive(NULL, 1018);
	assert_int_equal(drain(RXQ), 1);
}

/* An error in one chain also ends the ones before it. */
static void test_rx_error(void **state)
{
	uint64_t gpa;
	uint8_t *p;

	start_as(VDRV_MODERN, "", ALL_FEATURES, 2);
	gpa = give_rx(RXQ, 2000);
	arrive(NULL, 1500); /* the next ones seem to be as long */
	vdrv_kick(&d, RXQ);
	assert_int_equal(drain(RXQ), 1);
	gpa = give_rx(RXQ, 100);
	vdrv_add(&d, RXQ, (struct vdrv_buf[]){ { ~0ull << 20, 2000, VDRV_W } },
		 1);
	arrive(NULL, 60);
	vdrv_kick(&d, RXQ);
	iterate();
	assert_true(broken());
	p = vdrv_ptr(&d, gpa, 100);
	for (unsigned i = 0; i < 100; i++)
		assert_int_equal(p[i], 0xee);
}

/*
 * Chains that cannot hold a header count for an iteration like frames: a driver
 * that keeps posting them must not occupy the loop.
 */
static void test_rx_short_chains(void **state)
{
	static const char *const texts[] = { ",queue-size=1024",
					     ",queue-size=1024,rss=on" };

	for (unsigned i = 0; i < ARRAY_LEN(texts); i++) {
		unsigned first, all = 1;

		start_as(VDRV_MODERN, texts[i], ALL_FEATURES, 2);
		for (unsigned k = 0; k < 1000; k++)
			give_rx(RXQ, k % (HDR - 1) + 1);
		give_rx(RXQ, 2000);
		vdrv_kick(&d, RXQ);
		first = vdrv_used_ring_idx(&d, RXQ);
		assert_in_range(first, 1, 300);
		for (unsigned k = 0; k < 8; k++) {
			vio_loop_iterate(loop, 0);
			arrive(NULL, 100);
		}
		all = drain(RXQ);
		assert_int_equal(all, 1001);
		destroy();
	}
}

/* A host failure is not final: reception resumes without a kick. */
static void test_rx_failure(void **state)
{
	static const int failures[] = { -ENETDOWN, -EIO,   -ECONNREFUSED,
					-ENOBUFS,  -EBUSY, -EBADMSG };

	start_as(VDRV_MODERN, "", ALL_FEATURES, 2);
	for (unsigned i = 0; i < ARRAY_LEN(failures); i++) {
		unsigned got = 0;

		give_rx(RXQ, 200);
		give_rx(RXQ, 200);
		vdrv_kick(&d, RXQ);
		mock->recv_ret = failures[i];
		arrive(NULL, 60);
		assert_false(mock->watched[0]);
		for (int k = 0; k < 5; k++)
			vio_loop_iterate(loop, 10);
		assert_int_equal(drain(RXQ), 0);
		mock->recv_ret = 0;
		for (int k = 0; k < 1000 && !got; k++) {
			vio_loop_iterate(loop, 10);
			got = drain(RXQ);
		}
		assert_int_equal(got, 1);
		assert_true(mock->watched[0]);
	}
	/* Nor is a failure that a driver's reset finds. */
	mock->recv_ret = -EIO;
	arrive(NULL, 60);
	vdrv_reset(&d);
	mock->recv_ret = 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_rx_plain),        TEST(test_rx_merge),
		TEST(test_rx_wait),         TEST(test_rx_too_small),
		TEST(test_rx_never_fits),   TEST(test_rx_chains),
		TEST(test_rx_short_chains), TEST(test_rx_error),
		TEST(test_rx_offload),      TEST(test_rx_mtu),
		TEST(test_rx_failure),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

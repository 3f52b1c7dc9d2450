/* SPDX-License-Identifier: BSD-2-Clause */
/* The guard in front of libslirp's TCP: what passes, changes or is dropped. */
#include "back/net/tcp_guard.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "back/net/inet.h"
#include "base/util.h"

#include <cmocka.h>

#define FIN 0x01
#define SYN 0x02
#define ACK 0x10

enum { GUEST_PORT = 4000, PEER_PORT = 80, TCP_BYTES = 20, START = 1000 };

static struct tcp_guard *g;
static uint8_t frame[256];
static bool v6;

static int setup(void **state)
{
	g = calloc(1, sizeof(*g));
	return g ? 0 : -1;
}

static int teardown(void **state)
{
	free(g);
	return 0;
}

/* A header of IP before @len bytes of TCP; returns its length. */
static size_t make_ip(uint8_t *ip, bool from_guest, size_t len)
{
	uint8_t src = from_guest ? 15 : 2, dst = from_guest ? 2 : 15;

	if (v6) {
		ip[0] = 0x60;
		inet_write16(ip + 4, (uint16_t)len);
		ip[6] = 6;
		ip[23] = src;
		ip[39] = dst;
		return IP6_BYTES;
	}
	ip[0] = 0x45;
	inet_write16(ip + 2, (uint16_t)(IP4_MIN_BYTES + len));
	ip[9] = 6;
	ip[15] = src;
	ip[19] = dst;
	return IP4_MIN_BYTES;
}

static uint8_t *tcp_of(uint8_t *f)
{
	return f + ETH_BYTES + (v6 ? IP6_BYTES : IP4_MIN_BYTES);
}

static void set_sum(size_t len)
{
	uint8_t pseudo[4] = { 0, 6, (uint8_t)(len >> 8), (uint8_t)len };
	uint8_t *ip = frame + ETH_BYTES, *tcp = tcp_of(frame);
	uint16_t sum = inet_sum(pseudo, sizeof(pseudo), 0);

	inet_write16(tcp + 16, 0);
	sum = v6 ? inet_sum(ip + 8, 32, sum) : inet_sum(ip + 12, 8, sum);
	inet_write16(tcp + 16, (uint16_t)~inet_sum(tcp, len, sum));
}

/* A segment with @len bytes of data; returns the frame's length. */
static size_t make(bool from_guest, uint32_t seq, uint32_t ack, uint8_t flags,
		   size_t len)
{
	uint8_t *tcp;

	memset(frame, 0, sizeof(frame));
	inet_write16(frame + 12, v6 ? ETH_IP6 : ETH_IP4);
	make_ip(frame + ETH_BYTES, from_guest, TCP_BYTES + len);
	tcp = tcp_of(frame);
	inet_write16(tcp, from_guest ? GUEST_PORT : PEER_PORT);
	inet_write16(tcp + 2, from_guest ? PEER_PORT : GUEST_PORT);
	inet_write16(tcp + 4, (uint16_t)(seq >> 16));
	inet_write16(tcp + 6, (uint16_t)seq);
	inet_write16(tcp + 8, (uint16_t)(ack >> 16));
	inet_write16(tcp + 10, (uint16_t)ack);
	tcp[12] = TCP_BYTES / 4 << 4;
	tcp[13] = flags;
	inet_write16(tcp + 14, 0xffff);
	set_sum(TCP_BYTES + len);
	return (size_t)(tcp - frame) + TCP_BYTES + len;
}

/* Whether a segment of the guest passes as it is. */
static bool passes(uint32_t seq, uint8_t flags, size_t data_len)
{
	size_t len = make(true, seq, 1, flags, data_len), passed;
	uint8_t copy[sizeof(frame)];

	memcpy(copy, frame, sizeof(copy));
	passed = tcp_guard_from_guest(g, frame, len);
	if (passed == 0)
		return false;
	assert_int_equal(passed, len);
	assert_memory_equal(frame, copy, len);
	return true;
}

static void peer_acks(uint32_t ack)
{
	size_t len = make(false, 1, ack, ACK, 0);

	tcp_guard_to_guest(g, frame, len);
}

static void test_in_order(void **state)
{
	assert_true(passes(START - 1, SYN, 0));
	for (uint32_t seq = START; seq < START + 1000; seq += 100)
		assert_true(passes(seq, ACK, 100));
	assert_true(passes(START + 1000, ACK | FIN, 0));
	assert_int_equal(g->nr_early + g->nr_bad, 0);
}

static void test_early(void **state)
{
	assert_true(passes(START - 1, SYN, 0));
	assert_false(passes(START + 10, ACK, 10));
	assert_true(passes(START, ACK, 10));
	assert_true(passes(START + 10, ACK, 10));
	assert_int_equal(g->nr_early, 1);
}

/*
 * libslirp may drop a segment that the guard passed on: the next one is then
 * early for libslirp. After two of these, a connection must wait for each
 * acknowledgement.
 */
static void test_wary(void **state)
{
	assert_true(passes(START - 1, SYN, 0));
	for (int i = 0; i < 2; i++) {
		assert_true(passes(START, ACK, 10));
		assert_true(passes(START + 10, ACK, 10));
		peer_acks(START);
	}
	assert_true(passes(START, ACK, 10));
	assert_false(passes(START + 10, ACK, 10));
	peer_acks(START + 10);
	assert_true(passes(START + 10, ACK, 10));
	assert_int_equal(g->nr_early, 1);
}

/* libslirp would drop it too, but only after the guard had counted its data. */
static void test_bad_sum(void **state)
{
	size_t len;

	assert_true(passes(START - 1, SYN, 0));
	len = make(true, START, 1, ACK, 10);
	frame[len - 1] ^= 1;
	assert_int_equal(tcp_guard_from_guest(g, frame, len), 0);
	assert_int_equal(g->nr_bad, 1);
	assert_false(passes(START + 10, ACK, 10));
	assert_true(passes(START, ACK, 10));
}

/* A header that is too short, or longer than its segment, is libslirp's. */
static void test_header_length(void **state)
{
	static const uint8_t words[] = { 0, 4, 8, 15 };

	for (size_t i = 0; i < ARRAY_LEN(words); i++) {
		size_t len = make(true, START, 1, SYN, 10);
		uint8_t *exact = malloc(len);

		assert_non_null(exact);
		tcp_of(frame)[12] = (uint8_t)(words[i] << 4);
		set_sum(TCP_BYTES + 10);
		memcpy(exact, frame, len);
		assert_int_equal(tcp_guard_from_guest(g, exact, len), len);
		assert_memory_equal(exact, frame, len);
		free(exact);
	}
	assert_int_equal(g->now, 0);
}

/* Data of a SYN are cut off: the guest sends them again. */
static void test_syn_with_data(void **state)
{
	size_t len = make(true, START - 1, 1, SYN, 10);

	assert_int_equal(tcp_guard_from_guest(g, frame, len), len - 10);
	assert_true(passes(START, ACK, 10));
}

/* Whatever the length that IP gives: no byte beyond the frame is read. */
static void test_cut(void **state)
{
	size_t len = make(true, START, 1, ACK, 10);

	for (size_t n = 1; n < len; n++) {
		uint8_t *exact = malloc(n);

		assert_non_null(exact);
		memcpy(exact, frame, n);
		assert_int_equal(tcp_guard_from_guest(g, exact, n), n);
		tcp_guard_to_guest(g, exact, n);
		free(exact);
	}
	assert_int_equal(g->now, 0);
}

static int as_v6(void **state)
{
	v6 = true;
	return 0;
}

#define GUARD_TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		GUARD_TEST(test_in_order),      GUARD_TEST(test_early),
		GUARD_TEST(test_wary),          GUARD_TEST(test_bad_sum),
		GUARD_TEST(test_header_length), GUARD_TEST(test_syn_with_data),
		GUARD_TEST(test_cut),
	};

	return cmocka_run_group_tests_name("IPv4", tests, NULL, NULL) |
	       cmocka_run_group_tests_name("IPv6", tests, as_v6, NULL);
}

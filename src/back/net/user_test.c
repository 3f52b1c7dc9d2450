/* SPDX-License-Identifier: BSD-2-Clause */
/* backend=user: the test is both its guest and the host that it reaches. */
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <slirp/libslirp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "net_be_fixture.h"
#include "base/json.h"
#include "base/util.h"

static void wait_frames(unsigned nr)
{
	for (int i = 0; i < 3000 && got.nr < nr; i++)
		vio_loop_iterate(loop, 10);
	assert_true(got.nr >= nr);
}

/* The gateway asks who the guest is. */
static void send_arp(void)
{
	static const uint8_t arp[42] = {
		0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x52, 0x54, 0, 0x12, 1,
		2,    8,    6,    0,    1,    8,    0,    6,    4, 0,    1,
		0x52, 0x54, 0,    0x12, 1,    2,    10,   0,    2, 15,   0,
		0,    0,    0,    0,    0,    10,   0,    2,    2,
	};

	assert_int_equal(send_to(0, arp, sizeof(arp)), 0);
}

/* Wait for an UDP frame to port @dport. */
static const uint8_t *wait_udp(uint16_t dport)
{
	for (int i = 0; i < 300; i++) {
		vio_loop_iterate(loop, 10);
		if (got.len > 42 && got.data[12] == 8 && got.data[13] == 0 &&
		    got.data[23] == 17 &&
		    (got.data[36] << 8 | got.data[37]) == dport)
			return got.data + 42;
	}
	fail_msg("nothing for port %u", dport);
	return NULL;
}

static int udp_on_loopback(uint16_t *ret_port)
{
	struct sockaddr_in sin = { .sin_family = AF_INET };
	socklen_t len = sizeof(sin);
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	sin.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_int_equal(bind(fd, (struct sockaddr *)&sin, sizeof(sin)), 0);
	getsockname(fd, (struct sockaddr *)&sin, &len);
	*ret_port = ntohs(sin.sin_port);
	return fd;
}

/* The offer, a BOOTP packet, to a guest that requests an address. */
static const uint8_t *discover_dhcp(const char *text)
{
	static uint8_t discover[300] = { 1, 1, 6, 0, 1, 2, 3, 4 };
	static const uint8_t tail[] = { 99, 130, 83, 99, 53, 1, 1, 255 };
	const uint8_t *reply;
	uint8_t f[400];
	size_t len;

	must_open(text);
	memcpy(discover + 28, (uint8_t[]){ 0x52, 0x54, 0, 0x12, 1, 2 }, 6);
	memcpy(discover + 236, tail, sizeof(tail));
	len = make_udp(f, "0.0.0.0", "255.255.255.255", 68, 67, discover,
		       sizeof(discover));
	memset(f, 0xff, 6);
	assert_int_equal(send_to(0, f, len), 0);
	reply = wait_udp(68);
	assert_memory_equal(reply + 4, discover + 4, 4);
	return reply;
}

static const uint8_t *dhcp_option(const uint8_t *reply, uint8_t nr,
				  uint8_t *ret_len)
{
	const uint8_t *o = reply + 240;

	while (*o != nr) {
		assert_int_not_equal(*o, 255);
		o += *o ? 2 + o[1] : 1;
	}
	*ret_len = o[1];
	return o + 2;
}

static void must_be_addr(const uint8_t *found, const char *addr)
{
	uint8_t bytes[4];

	inet_pton(AF_INET, addr, bytes);
	assert_memory_equal(found, bytes, 4);
}

static void test_user_dhcp(void **state)
{
	must_be_addr(discover_dhcp("net,backend=user") + 16, "10.0.2.15");
}

/* DHCP returns the values of net=, dns=, search= and bootfile=. */
static void test_user_net(void **state)
{
	static const uint8_t names[] = "\5viodev\4test";
	const uint8_t *reply = discover_dhcp(
		"net,backend=user,net=192.168.7.9/24,dns=9.9.9.9,"
		"search=lab.viodev.test+viodev.test,bootfile=http://x/boot");
	const uint8_t *option;
	uint8_t len;

	must_be_addr(reply + 16, "192.168.7.15");
	assert_string_equal((const char *)reply + 108, "http://x/boot");
	must_be_addr(dhcp_option(reply, 1, &len), "255.255.255.0");
	must_be_addr(dhcp_option(reply, 3, &len), "192.168.7.2");
	must_be_addr(dhcp_option(reply, 6, &len), "9.9.9.9");
	option = dhcp_option(reply, 119, &len); /* RFC 3397 */
	assert_int_equal(option[0], 3);
	assert_memory_equal(option + 1, "lab", 3);
	assert_true(len > sizeof(names));
}

/* Through the gateway to a socket of this machine, and back. */
static void test_user_udp(void **state)
{
	struct sockaddr_in from;
	socklen_t from_len = sizeof(from);
	uint16_t port;
	int fd = udp_on_loopback(&port);
	uint8_t f[100], buf[100];
	size_t len;

	must_open("net,backend=user");
	send_arp();
	len = make_udp(f, "10.0.2.15", "10.0.2.2", 4000, port, "ping", 4);
	assert_int_equal(send_to(0, f, len), 0);
	iterate();
	assert_int_equal(recvfrom(fd, buf, sizeof(buf), 0,
				  (struct sockaddr *)&from, &from_len),
			 4);
	assert_memory_equal(buf, "ping", 4);
	sendto(fd, "pong!", 5, 0, (struct sockaddr *)&from, from_len);
	assert_memory_equal(wait_udp(4000), "pong!", 5);
	/* libslirp 4.8 pads a frame to Ethernet's minimum length. */
	assert_int_equal(got.data[16] << 8 | got.data[17], 20 + 8 + 5);
	assert_true(got.len == 47 || got.len == 60);
	for (ssize_t i = 47; i < got.len; i++)
		assert_int_equal(got.data[i], 0);

	/* While the guest receives nothing, its frames wait or are lost. */
	got.full = true;
	for (int i = 0; i < 2000; i++) {
		sendto(fd, "flood", 5, 0, (struct sockaddr *)&from, from_len);
		vio_loop_iterate(loop, 0);
	}
	got.full = false;
	got.nr = 0;
	be->ops->watch(be, 0, true);
	wait_frames(200);
	assert_int_equal(send_to(0, f, len), 0);
	iterate();
	assert_int_equal(recv(fd, buf, sizeof(buf), 0), 4);
	close(fd);
}

static uint64_t stat_found;

static void find_stat(void *arg, const char *name, uint64_t val)
{
	if (!strcmp(name, arg))
		stat_found = val;
}

static uint64_t stat_of(const char *name)
{
	stat_found = UINT64_MAX;
	be->ops->stats(be, find_stat, (void *)(uintptr_t)name);
	return stat_found;
}

/* Split the datagram in @f at @at; returns the second fragment's length. */
static size_t cut_udp(uint8_t *f, size_t len, size_t at, uint8_t *second)
{
	size_t data = len - 34;

	memcpy(second, f, 34);
	memcpy(second + 34, f + 34 + at, data - at);
	for (int i = 0; i < 2; i++) {
		uint8_t *p = i ? second : f;
		uint16_t total = (uint16_t)(20 + (i ? data - at : at)), sum;

		p[16] = (uint8_t)(total >> 8);
		p[17] = (uint8_t)total;
		p[20] = i ? 0 : 0x20;
		p[21] = (uint8_t)(i ? at / 8 : 0);
		p[24] = p[25] = 0;
		sum = ip_sum(p + 14, 20);
		p[24] = (uint8_t)(sum >> 8);
		p[25] = (uint8_t)sum;
	}
	return 34 + data - at;
}

/* Debian 12's libslirp crashes on the first frame sent here. */
static void test_user_fragments(void **state)
{
	uint8_t f[600], second[600], buf[600], data[400];
	size_t len, second_len;
	uint16_t port;
	int fd = udp_on_loopback(&port);

	must_open("net,backend=user");
	send_arp();
	memset(data, 'x', sizeof(data));
	len = make_udp(f, "10.0.2.15", "10.0.2.2", 4000, port, data,
		       sizeof(data));
	second_len = cut_udp(f, len, 80, second);
	for (int i = 0; i < 3; i++)
		assert_int_equal(send_to(0, second, second_len), 0);
	iterate();
	assert_int_equal(recv(fd, buf, sizeof(buf), MSG_DONTWAIT), -1);
	assert_int_equal(send_to(0, f, 34 + 80), 0);
	iterate();
	assert_int_equal(recv(fd, buf, sizeof(buf), MSG_DONTWAIT),
			 sizeof(data));
	assert_memory_equal(buf, data, sizeof(data));
	assert_int_equal(stat_of("fragments"), 4);
	assert_int_equal(stat_of("reassembled"), 1);
	close(fd);
}

/* Set the checksum of a TCP segment. */
static void sum_tcp(uint8_t *f)
{
	size_t len = (size_t)(f[16] << 8 | f[17]) - 20;
	uint8_t pseudo[12 + 20 + 1501] = { 0 };
	uint16_t sum;

	f[50] = f[51] = 0;
	memcpy(pseudo, f + 26, 8);
	pseudo[9] = 6;
	pseudo[10] = (uint8_t)(len >> 8);
	pseudo[11] = (uint8_t)len;
	memcpy(pseudo + 12, f + 34, len);
	sum = ip_sum(pseudo, (12 + len + 1) & ~(size_t)1);
	f[50] = (uint8_t)(sum >> 8);
	f[51] = (uint8_t)sum;
}

/* A TCP segment from the guest to this machine; returns the frame's length. */
static size_t make_tcp(uint8_t *f, uint16_t sport, uint16_t dport, uint32_t seq,
		       uint32_t ack, uint8_t flags, const void *data,
		       size_t len)
{
	uint16_t total = (uint16_t)(40 + len), sum;
	uint8_t *tcp = f + 34;

	make_udp(f, "10.0.2.15", "10.0.2.2", sport, dport, "", 0);
	f[16] = (uint8_t)(total >> 8);
	f[17] = (uint8_t)total;
	f[23] = 6;
	f[24] = f[25] = 0;
	sum = ip_sum(f + 14, 20);
	f[24] = (uint8_t)(sum >> 8);
	f[25] = (uint8_t)sum;
	memset(tcp + 4, 0, 16);
	for (int i = 0; i < 4; i++) {
		tcp[4 + i] = (uint8_t)(seq >> (24 - 8 * i));
		tcp[8 + i] = (uint8_t)(ack >> (24 - 8 * i));
	}
	tcp[12] = 5 << 4;
	tcp[13] = flags;
	tcp[14] = 0xff;
	if (len)
		memcpy(tcp + 20, data, len);
	sum_tcp(f);
	return 54 + len;
}

#define TCP_FIN 1
#define TCP_SYN 2
#define TCP_ACK 16

/* Wait for a TCP segment to port @dport that has all of @flags. */
static const uint8_t *wait_tcp(uint16_t dport, uint8_t flags)
{
	for (int i = 0; i < 1000; i++) {
		while (before.looked != before.nr) {
			const uint8_t *f = before.data[before.looked++ % 64];

			if (f[12] == 8 && f[13] == 0 && f[23] == 6 &&
			    (f[36] << 8 | f[37]) == dport &&
			    (f[47] & flags) == flags)
				return f + 34;
		}
		vio_loop_iterate(loop, 10);
	}
	fail_msg("nothing for port %u", dport);
	return NULL;
}

static uint32_t read32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 |
	       (uint32_t)p[2] << 8 | p[3];
}

static int listen_on_loopback(uint16_t *ret_port)
{
	struct sockaddr_in sin = { .sin_family = AF_INET };
	socklen_t len = sizeof(sin);
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	sin.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_int_equal(bind(fd, (struct sockaddr *)&sin, sizeof(sin)), 0);
	assert_int_equal(listen(fd, 128), 0);
	getsockname(fd, (struct sockaddr *)&sin, &len);
	*ret_port = ntohs(sin.sin_port);
	return fd;
}

/* A connection of the guest from port 4000, of which we have both ends. */
static struct {
	uint16_t port;
	uint32_t seq, ack;
	int fd;
} tcp;

static void send_tcp(uint32_t seq, uint8_t flags, const void *data, size_t len)
{
	static uint8_t f[1600];

	len = make_tcp(f, 4000, tcp.port, seq, tcp.ack, flags, data, len);
	assert_int_equal(send_to(0, f, len), 0);
	iterate();
}

static void connect_tcp(uint32_t seq)
{
	int listener = listen_on_loopback(&tcp.port);

	must_open("net,backend=user");
	send_arp();
	tcp.seq = seq + 1;
	tcp.ack = 0;
	send_tcp(seq, TCP_SYN, NULL, 0);
	tcp.ack = read32(wait_tcp(4000, TCP_SYN | TCP_ACK) + 4) + 1;
	send_tcp(tcp.seq, TCP_ACK, NULL, 0);
	tcp.fd = accept(listener, NULL, NULL);
	assert_true(tcp.fd >= 0);
	close(listener);
}

/* Read until there are @len bytes, or for a while. */
static size_t read_tcp(uint8_t *buf, size_t room, size_t len)
{
	size_t total = 0;
	ssize_t n;

	for (int i = 0; i < 300 && total < len; i++) {
		vio_loop_iterate(loop, 10);
		n = recv(tcp.fd, buf + total, room - total, MSG_DONTWAIT);
		if (n > 0)
			total += (size_t)n;
	}
	return total;
}

/* Before 4.9.2 libslirp would send bytes beyond its buffer. */
static void test_user_urgent(void **state)
{
	uint8_t f[100], buf[4096];
	size_t len;
	int inl = 1;

	connect_tcp(1000);
	setsockopt(tcp.fd, SOL_SOCKET, SO_OOBINLINE, &inl, sizeof(inl));
	len = make_tcp(f, 4000, tcp.port, tcp.seq, tcp.ack, 0x20 | TCP_ACK,
		       "data", 4);
	f[34 + 18] = 0x80;
	sum_tcp(f);
	assert_int_equal(send_to(0, f, len), 0);
	send_tcp(tcp.seq + 4, TCP_ACK, "more", 4);
	for (int i = 0; i < 20; i++)
		vio_loop_iterate(loop, 1);
	assert_int_equal(read_tcp(buf, sizeof(buf), 8), 8);
	assert_memory_equal(buf, "datamore", 8);
	assert_int_equal(stat_of("tcp-urgent"), 1);
	close(tcp.fd);
}

/*
 * Before 4.8 libslirp mistakes the head of its queue for a segment once 0 is
 * the next sequence number and its own side is closed.
 */
static void test_user_tcp_wrap(void **state)
{
	uint8_t buf[100];

	connect_tcp((uint32_t)-9); /* the first byte has number -8 */
	shutdown(tcp.fd, SHUT_WR);
	wait_tcp(4000, TCP_FIN);
	tcp.ack++;
	send_tcp(tcp.seq, TCP_ACK, NULL, 0);
	send_tcp(tcp.seq, TCP_ACK, "01234567", 8);
	send_tcp((uint32_t)-1, TCP_ACK, "7", 1);
	send_tcp((uint32_t)-1, TCP_ACK, "789", 3);
	send_tcp(2, TCP_ACK | TCP_FIN, "abc", 3);
	assert_int_equal(read_tcp(buf, sizeof(buf), 13), 13);
	assert_memory_equal(buf, "0123456789abc", 13);
	close(tcp.fd);
}

/* Each would cost libslirp a separate buffer. */
static void test_user_tcp_early(void **state)
{
	uint8_t buf[1000];

	connect_tcp(1000);
	for (uint32_t i = 1; i < 1000; i += 2)
		send_tcp(tcp.seq + i, TCP_ACK, "x", 1);
	assert_true(stat_of("tcp-early") >= 490);
	for (uint32_t i = 0; i < 1000; i += 100) {
		memset(buf, 'a' + (int)(i / 100), 100);
		send_tcp(tcp.seq + i, TCP_ACK, buf, 100);
	}
	assert_int_equal(read_tcp(buf, sizeof(buf), 1000), 1000);
	for (uint32_t i = 0; i < 1000; i += 2)
		assert_int_equal(buf[i], 'a' + (int)(i / 100));
	close(tcp.fd);
}

/* libslirp checks its timers here; the test intercepts the call. */
static unsigned nr_polls;

void slirp_pollfds_poll(Slirp *slirp, int error, SlirpGetREventsCb get_revents,
			void *arg)
{
	static typeof(slirp_pollfds_poll) *real;

	if (!real)
		real = (typeof(real))dlsym(RTLD_NEXT, "slirp_pollfds_poll");
	nr_polls++;
	real(slirp, error, get_revents, arg);
}

/* A guest that sends all the time does not delay libslirp's timers. */
static void test_user_timers(void **state)
{
	uint16_t port;
	int fd = listen_on_loopback(&port);
	uint64_t give_up_ns = vio_now_ns() + UINT64_C(30000000000);
	uint8_t f[100];
	size_t len;

	must_open("net,backend=user");
	send_arp();
	len = make_tcp(f, 4000, port, 1, 0, TCP_SYN, NULL, 0);
	assert_int_equal(send_to(0, f, len), 0);
	wait_tcp(4000, TCP_SYN | TCP_ACK);
	iterate();

	/* Nothing answers, so that only its timers can wake it. */
	for (int full = 0; full < 2; full++) {
		got.full = full;
		nr_polls = 0;
		while (nr_polls < 2 && vio_now_ns() < give_up_ns) {
			send_arp();
			vio_loop_iterate(loop, 1);
		}
		assert_true(nr_polls >= 2);
	}
	close(fd);
}

/*
 * libslirp's timer and a socket are due in the same iteration: the socket that
 * has just connected stays open.
 */
static void test_user_timer_and_socket(void **state)
{
	uint8_t f[100], buf[10];
	uint16_t port;
	int listener = listen_on_loopback(&port), fd;
	uint32_t ack;
	size_t len;

	must_open("net,backend=user");
	send_arp();
	len = make_tcp(f, 4000, port, 1, 0, TCP_SYN, NULL, 0);
	assert_int_equal(send_to(0, f, len), 0);
	vio_loop_iterate(loop, 0); /* sets the timer, at most 500 ms from now */
	usleep(600000);
	vio_loop_iterate(loop, 0);
	ack = read32(wait_tcp(4000, TCP_SYN | TCP_ACK) + 4) + 1;
	len = make_tcp(f, 4000, port, 2, ack, TCP_ACK, "x", 1);
	assert_int_equal(send_to(0, f, len), 0);
	iterate();
	fd = accept(listener, NULL, NULL);
	assert_int_equal(read(fd, buf, sizeof(buf)), 1);
	assert_true(recv(fd, buf, sizeof(buf), MSG_DONTWAIT) < 0);
	assert_int_equal(errno, EAGAIN);
	close(fd);
	close(listener);
}

/*
 * libslirp keeps what it cannot deliver yet, so it must never have to resolve
 * an address from which it has received a frame.
 */
static void test_user_neighbours(void **state)
{
	uint8_t f[1500], data[1400] = { 0 };
	char src[16];
	uint16_t port, sum;

	close(udp_on_loopback(&port));
	must_open("net,backend=user");
	for (int i = 0; i < 600; i++) {
		size_t len;

		snprintf(src, sizeof(src), "10.0.%d.%d", 2 + i / 200,
			 20 + i % 200);
		len = make_udp(f, src, "10.0.2.2", 4000, port, data,
			       sizeof(data));
		f[34 - 12] = 1; /* TTL: libslirp answers itself */
		f[24] = f[25] = 0;
		sum = ip_sum(f + 14, 20);
		f[24] = (uint8_t)(sum >> 8);
		f[25] = (uint8_t)sum;
		assert_int_equal(send_to(0, f, len), 0);
		iterate();
		assert_int_equal(got.nr, i + 1); /* no request in between */
		assert_int_equal(got.data[23], 1);
		assert_memory_equal(got.data + 30, f + 26, 4);
		assert_memory_equal(got.data, f + 6, 6);
	}
}

/* The number of sockets is limited: a quiet one is closed for a new one. */
static void test_user_connections(void **state)
{
	uint8_t f[100], buf[10];
	uint16_t port, udp_port;
	int listener = listen_on_loopback(&port), fds[40];
	int udp = udp_on_loopback(&udp_port);
	unsigned nr_open = 0;
	bool open = false;
	size_t len;

	must_open("net,backend=user,connections=16");
	send_arp();
	for (uint16_t i = 0; i < ARRAY_LEN(fds); i++) {
		uint32_t ack;

		len = make_tcp(f, 5000 + i, port, 1, 0, TCP_SYN, NULL, 0);
		assert_int_equal(send_to(0, f, len), 0);
		ack = read32(wait_tcp(5000 + i, TCP_SYN | TCP_ACK) + 4) + 1;
		len = make_tcp(f, 5000 + i, port, 2, ack, TCP_ACK, "x", 1);
		assert_int_equal(send_to(0, f, len), 0);
		iterate();
		assert_true(stat_of("sockets") <= 16);
		fds[i] = accept(listener, NULL, NULL);
		assert_int_equal(read(fds[i], buf, sizeof(buf)), 1);
	}
	for (unsigned i = 0; i < ARRAY_LEN(fds); i++) {
		open = recv(fds[i], buf, sizeof(buf), MSG_DONTWAIT) < 0 &&
		       errno == EAGAIN;
		nr_open += open;
		close(fds[i]);
	}
	assert_true(open); /* the last one */
	assert_int_equal(nr_open, 16);
	close(listener);
	close_be();

	/* UDP has some more. */
	must_open("net,backend=user,connections=16");
	send_arp();
	for (uint16_t i = 0; i < 100; i++) {
		len = make_udp(f, "10.0.2.15", "10.0.2.2", 5000 + i, udp_port,
			       "ping", 4);
		assert_int_equal(send_to(0, f, len), 0);
	}
	iterate();
	assert_int_equal(stat_of("sockets"), 24);
	assert_int_equal(stat_of("refused"), 76);
	close(udp);
}

/* A socket that failed for lack of descriptors does not count. */
static void test_user_no_descriptors(void **state)
{
	int first_free;
	struct rlimit old, none;
	uint16_t port;
	uint8_t f[100];
	size_t len;

	close(udp_on_loopback(&port));
	must_open("net,backend=user");
	send_arp();
	len = make_udp(f, "10.0.2.15", "10.0.2.2", 4000, port, "ping", 4);
	assert_int_equal(send_to(0, f, len), 0);
	assert_int_equal(stat_of("sockets"), 1);
	first_free = dup(0);
	close(first_free);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	none = (struct rlimit){ (rlim_t)first_free, old.rlim_max };
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	len = make_tcp(f, 4001, port, 1, 0, TCP_SYN, NULL, 0);
	assert_int_equal(send_to(0, f, len), 0);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
	assert_int_equal(stat_of("sockets"), 1);
}

static int user_ctl(const char *word, const char *rule)
{
	char *const argv[] = { (char *)(uintptr_t)"hostfwd",
			       (char *)(uintptr_t)word, (char *)(uintptr_t)rule,
			       NULL };
	struct json_object *reply = json_object_new_object(), *list;
	struct err err = { "" };
	int ret = be->ops->ctl(be, rule ? 3 : 2, argv, reply, &err);

	if (ret == 0) {
		assert_true(json_object_object_get_ex(reply, "hostfwd", &list));
		ret = (int)json_object_array_length(list);
	} else {
		assert_true(err.text[0]);
	}
	json_object_put(reply);
	return ret;
}

/* Rules change while the guest runs; both families have the same port. */
static void test_user_hostfwd_ctl(void **state)
{
	struct sockaddr_in sin = { .sin_family = AF_INET };
	char rule[64], rule6[64], host[64];
	uint16_t port;
	int fd;

	close(udp_on_loopback(&port));
	snprintf(rule, sizeof(rule), "udp:127.0.0.1:%u-:7", port);
	snprintf(rule6, sizeof(rule6), "udp:[::1]:%u-[fec0::15]:7", port);
	snprintf(host, sizeof(host), "udp:127.0.0.1:%u", port);
	must_open("net,backend=user");
	send_arp();
	assert_int_equal(user_ctl("list", NULL), 0);
	assert_int_equal(user_ctl("add", rule), 1);
	assert_int_equal(user_ctl("add", rule), -EADDRINUSE);
	assert_int_equal(user_ctl("add", rule6), 2);
	iterate();
	sin.sin_port = htons(port);
	sin.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	fd = socket(AF_INET, SOCK_DGRAM, 0);
	sendto(fd, "hello", 5, 0, (struct sockaddr *)&sin, sizeof(sin));
	assert_memory_equal(wait_udp(7), "hello", 5);
	assert_int_equal(user_ctl("remove", host), 1);
	assert_int_equal(user_ctl("remove", host), -ENOENT);
	close(fd);
	fd = socket(AF_INET, SOCK_DGRAM, 0); /* the port is free again */
	assert_int_equal(bind(fd, (struct sockaddr *)&sin, sizeof(sin)), 0);
	assert_int_equal(user_ctl("remove", rule6), 0);
	assert_int_equal(user_ctl("add", "nonsense"), -EINVAL);
	assert_int_equal(user_ctl("add", NULL), -EINVAL);
	assert_int_equal(user_ctl("remove", ""), -EINVAL);
	iterate();
	close(fd);
}

/* A file of tftp=, but none of the host's other files. */
static void test_user_tftp(void **state)
{
	static const char ask[] = "\0\1/boot.img\0octet",
			  other[] = "\0\1/../secret\0octet",
			  fifo[] = "\0\1//fifo\0octet";
	char dir[] = "/tmp/viodev-tftp-XXXXXX", path[64], text[64];
	const uint8_t *reply;
	uint8_t f[100];
	size_t len;
	FILE *file;

	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/boot.img", dir);
	file = fopen(path, "w");
	fputs("the image", file);
	fclose(file);
	snprintf(text, sizeof(text), "net,backend=user,tftp=%s", dir);
	must_open(text);
	send_arp();
	len = make_udp(f, "10.0.2.15", "10.0.2.2", 4000, 69, ask, sizeof(ask));
	assert_int_equal(send_to(0, f, len), 0);
	reply = wait_udp(4000);
	assert_memory_equal(reply, "\0\3\0\1the image", 13);
	got.len = 0;
	len = make_udp(f, "10.0.2.15", "10.0.2.2", 4001, 69, other,
		       sizeof(other));
	assert_int_equal(send_to(0, f, len), 0);
	assert_memory_equal(wait_udp(4001), "\0\5", 2);
	unlink(path);

	/* A FIFO without a writer: opening it would block for ever. */
	snprintf(path, sizeof(path), "%s/fifo", dir);
	assert_int_equal(mkfifo(path, 0644), 0);
	len = make_udp(f, "10.0.2.15", "10.0.2.2", 4002, 69, fifo,
		       sizeof(fifo));
	assert_int_equal(send_to(0, f, len), 0);
	iterate();
	unlink(path);
	rmdir(dir);
}

static void test_user_hostfwd(void **state)
{
	struct sockaddr_in sin = { .sin_family = AF_INET };
	char text[128];
	uint16_t port;
	int fd = udp_on_loopback(&port);

	close(fd); /* its number is free now */
	snprintf(text, sizeof(text),
		 "net,backend=user,hostfwd=udp:127.0.0.1:%u-:7", port);
	must_open(text);
	send_arp();
	iterate();
	sin.sin_port = htons(port);
	sin.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	fd = socket(AF_INET, SOCK_DGRAM, 0);
	sendto(fd, "hello", 5, 0, (struct sockaddr *)&sin, sizeof(sin));
	assert_memory_equal(wait_udp(7), "hello", 5);
	close(fd);
}

/* Connections from outside have the guest's limit, and others wait. */
static void test_user_hostfwd_many(void **state)
{
	struct sockaddr_in sin = { .sin_family = AF_INET };
	char text[128];
	uint16_t port;
	int fds[40];

	close(listen_on_loopback(&port));
	snprintf(text, sizeof(text),
		 "net,backend=user,connections=16,hostfwd=tcp:127.0.0.1:%u-:7",
		 port);
	must_open(text);
	send_arp();
	sin.sin_port = htons(port);
	sin.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	for (unsigned i = 0; i < ARRAY_LEN(fds); i++) {
		fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
		connect(fds[i], (struct sockaddr *)&sin, sizeof(sin));
		iterate();
		assert_true(stat_of("sockets") <= 16);
	}
	while (stat_of("sockets") < 16)
		assert_true(vio_loop_iterate(loop, 10000) >= 0);
	assert_int_equal(vio_loop_iterate(loop, 0), 0); /* nothing spins */
	for (unsigned i = 0; i < ARRAY_LEN(fds); i++)
		close(fds[i]);
}

/* Invalid frames: libslirp must cope with them. */
static void test_user_hostile(void **state)
{
	/* NC-SI, "get version id": answered by libslirp on its own. */
	static const uint8_t ncsi[60] = { [12] = 0x88, 0xf8, 0, 1, 0, 1, 0x15 };
	uint8_t f[100];
	size_t len;

	must_open("net,backend=user");
	assert_int_equal(send_to(0, ncsi, sizeof(ncsi)), 0);
	iterate();
	assert_int_equal(got.nr, 0);
	len = make_udp(f, "10.0.2.15", "10.0.2.2", 4000, 9, "ping", 4);
	for (size_t n = 14; n < len; n++)
		for (unsigned bit = 0; bit < 8; bit++) {
			f[n] ^= (uint8_t)(1 << bit);
			assert_int_equal(send_to(0, f, n + 1), 0);
			f[n] ^= (uint8_t)(1 << bit);
		}
	assert_int_equal(send_to(0, frame, NET_MAX_FRAME), 0);
	iterate();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_user_dhcp),
		TEST(test_user_net),
		TEST(test_user_tftp),
		TEST(test_user_udp),
		TEST(test_user_fragments),
		TEST(test_user_timers),
		TEST(test_user_timer_and_socket),
		TEST(test_user_urgent),
		TEST(test_user_tcp_wrap),
		TEST(test_user_tcp_early),
		TEST(test_user_neighbours),
		TEST(test_user_connections),
		TEST(test_user_no_descriptors),
		TEST(test_user_hostfwd),
		TEST(test_user_hostfwd_ctl),
		TEST(test_user_hostfwd_many),
		TEST(test_user_hostile),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

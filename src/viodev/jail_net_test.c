/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Each network backend in its real jail: the device with its system call
 * filter, in its own process, and this test as its driver. This includes what
 * the backend's library does on errors. A sanitizer build has another filter:
 * run it without.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/virtio_net.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "back/net/inet.h"
#include "dev/net/hdr.h"
#include "dev/vdev.h"
#include "vdrv.h"
#include "viodev/jail.h"
#include "viodev/resolver.h"

#include <cmocka.h>

#define RXQ      0
#define TXQ      1
#define HDR      12u
#define RX_BYTES 2048u
#define WAIT_MS  20000

static struct vdrv d;
static struct vio_loop *loop;
static uint8_t got[RX_BYTES];
static size_t got_len;
static uint16_t udp_port, tcp_port, forward_port;

/* In the jail there is no cmocka: the exit status is the result. */
#define MUST(cond)                                                         \
	do {                                                               \
		if (!(cond)) {                                             \
			fprintf(stderr, "line %d: %s\n", __LINE__, #cond); \
			_exit(1);                                          \
		}                                                          \
	} while (0)

/*
 * --- The driver ---
 */

static uint64_t buffers[256];

static void start_driver(void)
{
	MUST(vdrv_start(&d, VI_BIT(VIRTIO_F_VERSION_1), 2));
	for (int i = 0; i < 128; i++) {
		uint64_t gpa = vdrv_alloc(&d, RX_BYTES, 16);
		uint16_t head = vdrv_add(
			&d, RXQ,
			(struct vdrv_buf[]){ { gpa, RX_BYTES, VDRV_W } }, 1);

		buffers[head] = gpa;
	}
	vdrv_kick(&d, RXQ);
}

/* Take a frame, and offer its buffer again. */
static bool receive(void)
{
	struct vdrv_used used;
	uint16_t head;

	if (!vdrv_used(&d, RXQ, &used))
		return false;
	got_len = used.len - HDR;
	memcpy(got, vdrv_ptr(&d, buffers[used.id] + HDR, got_len), got_len);
	head = vdrv_add(
		&d, RXQ,
		(struct vdrv_buf[]){ { buffers[used.id], RX_BYTES, VDRV_W } },
		1);
	MUST(head == used.id);
	vdrv_kick(&d, RXQ);
	return true;
}

static void iterate(unsigned nr)
{
	for (unsigned i = 0; i < nr; i++)
		vio_loop_iterate(loop, 1);
}

static bool any(void)
{
	return true;
}

/* Wait for a frame that the caller accepts. */
static void wait_for(bool (*wanted)(void))
{
	uint64_t end_ns = vio_now_ns() + WAIT_MS * UINT64_C(1000000);

	do {
		while (receive()) {
			if (wanted())
				return;
		}
		vio_loop_iterate(loop, 10);
	} while (vio_now_ns() < end_ns);
	MUST(!"a frame");
}

static void send_frame(const uint8_t *frame, size_t len)
{
	uint64_t gpa = vdrv_alloc(&d, HDR + len, 16);
	struct vdrv_used used;

	memset(vdrv_ptr(&d, gpa, HDR), 0, HDR);
	memcpy(vdrv_ptr(&d, gpa + HDR, len), frame, len);
	vdrv_add(&d, TXQ,
		 (struct vdrv_buf[]){ { gpa, (uint32_t)(HDR + len), VDRV_R } },
		 1);
	vdrv_kick(&d, TXQ);
	iterate(2);
	while (vdrv_used(&d, TXQ, &used))
		;
}

/*
 * --- Frames ---
 */

static const uint8_t eth[14] = { 0x52, 0x55, 10,   0, 2, 2, 0x52,
				 0x54, 0,    0x12, 1, 2, 8, 0 };
static const uint8_t guest6[16] = { 0xfe, 0xc0, [15] = 0x15 };

static uint16_t pseudo_sum(const uint8_t *src_dst, size_t addr_bytes,
			   uint8_t proto, const uint8_t *data, size_t len)
{
	uint16_t sum = inet_sum(src_dst, addr_bytes, proto);

	return inet_sum(
		data, len,
		inet_sum((uint8_t[]){ (uint8_t)(len >> 8), (uint8_t)len }, 2,
			 sum));
}

static size_t ip4(uint8_t *f, const char *dst, uint8_t proto,
		  const void *payload, size_t len, size_t sum_off)
{
	uint8_t *ip = f + 14;

	memset(f, 0, 34);
	memcpy(f, eth, 14);
	ip[0] = 0x45;
	inet_write16(ip + 2, (uint16_t)(20 + len));
	ip[8] = 64;
	ip[9] = proto;
	inet_pton(AF_INET, "10.0.2.15", ip + 12);
	inet_pton(AF_INET, dst, ip + 16);
	inet_write16(ip + 10, (uint16_t)~inet_sum(ip, 20, 0));
	memcpy(ip + 20, payload, len);
	if (sum_off)
		inet_write16(ip + 20 + sum_off,
			     proto == IPPROTO_ICMP ?
				     (uint16_t)~inet_sum(ip + 20, len, 0) :
				     (uint16_t)~pseudo_sum(ip + 12, 8, proto,
							   ip + 20, len));
	return 34 + len;
}

static size_t ip6(uint8_t *f, const char *dst, uint8_t proto,
		  const void *payload, size_t len, size_t sum_off)
{
	uint8_t *ip = f + 14;

	memset(f, 0, 54);
	memcpy(f, eth, 14);
	inet_write16(f + 12, ETH_IP6);
	ip[0] = 0x60;
	inet_write16(ip + 4, (uint16_t)len);
	ip[6] = proto;
	ip[7] = 255;
	memcpy(ip + 8, guest6, 16);
	inet_pton(AF_INET6, dst, ip + 24);
	memcpy(ip + 40, payload, len);
	inet_write16(ip + 40 + sum_off,
		     (uint16_t)~pseudo_sum(ip + 8, 32, proto, ip + 40, len));
	return 54 + len;
}

static void send_udp(const char *dst, uint16_t sport, uint16_t dport,
		     const void *data, size_t len)
{
	uint8_t udp[8 + 1400] = { 0 }, f[1600];

	inet_write16(udp, sport);
	inet_write16(udp + 2, dport);
	inet_write16(udp + 4, (uint16_t)(8 + len));
	memcpy(udp + 8, data, len);
	if (strchr(dst, ':'))
		send_frame(f, ip6(f, dst, IPPROTO_UDP, udp, 8 + len, 6));
	else
		send_frame(f, ip4(f, dst, IPPROTO_UDP, udp, 8 + len, 0));
}

static void send_tcp(const char *dst, uint16_t sport, uint16_t dport,
		     uint32_t seq, uint32_t ack, uint8_t flags,
		     const char *data)
{
	uint8_t tcp[20 + 100] = { 0 }, f[200];
	size_t len = strlen(data);

	inet_write16(tcp, sport);
	inet_write16(tcp + 2, dport);
	inet_write16(tcp + 4, (uint16_t)(seq >> 16));
	inet_write16(tcp + 6, (uint16_t)seq);
	inet_write16(tcp + 8, (uint16_t)(ack >> 16));
	inet_write16(tcp + 10, (uint16_t)ack);
	tcp[12] = 5 << 4;
	tcp[13] = flags;
	inet_write16(tcp + 14, 0xffff);
	memcpy(tcp + 20, data, len);
	send_frame(f, ip4(f, dst, IPPROTO_TCP, tcp, 20 + len, 16));
}

static void send_echo_request(const char *dst)
{
	uint8_t icmp[16] = { strchr(dst, ':') ? 128 : 8 }, f[100];

	if (strchr(dst, ':'))
		send_frame(f, ip6(f, dst, IPPROTO_ICMPV6, icmp, 16, 2));
	else
		send_frame(f, ip4(f, dst, IPPROTO_ICMP, icmp, 16, 2));
}

static bool is_ip4(uint8_t proto)
{
	return got_len >= 42 && inet_read16(got + 12) == ETH_IP4 &&
	       got[23] == proto;
}

static bool is_echo_reply(void)
{
	return is_ip4(IPPROTO_ICMP) && got[34] == 0;
}

static bool is_dhcp(void)
{
	return is_ip4(IPPROTO_UDP) && inet_read16(got + 36) == 68;
}

static bool is_udp_echo(void)
{
	return is_ip4(IPPROTO_UDP) && inet_read16(got + 34) == udp_port &&
	       !memcmp(got + 42, "ping", 4);
}

static bool is_forwarded(void)
{
	return is_ip4(IPPROTO_UDP) && inet_read16(got + 36) == 7 &&
	       !memcmp(got + 42, "hello", 5);
}

static bool is_unreachable(void)
{
	return is_ip4(IPPROTO_ICMP) && got[34] == 3;
}

static bool is_syn_ack(void)
{
	return is_ip4(IPPROTO_TCP) && inet_read16(got + 34) == tcp_port &&
	       (got[47] & 0x12) == 0x12;
}

static bool is_fin(void)
{
	return is_ip4(IPPROTO_TCP) && inet_read16(got + 34) == tcp_port &&
	       (got[47] & 1);
}

static bool is_reset(void)
{
	return is_ip4(IPPROTO_TCP) && (got[47] & 4);
}

static bool is_advertisement(void)
{
	return got_len > 54 && inet_read16(got + 12) == ETH_IP6 &&
	       got[20] == IPPROTO_ICMPV6 && got[54] == 134;
}

/*
 * --- Sessions ---
 */

static void send_arp(void)
{
	uint8_t f[42] = { [12] = 8, 6, 0, 1, 8, 0, 6, 4, 0, 1 };

	memset(f, 0xff, 6);
	memcpy(f + 6, eth + 6, 6);
	memcpy(f + 22, eth + 6, 6);
	inet_pton(AF_INET, "10.0.2.15", f + 28);
	inet_pton(AF_INET, "10.0.2.2", f + 38);
	send_frame(f, sizeof(f));
	wait_for(any);
}

static void discover(void)
{
	uint8_t dhcp[300] = { 1, 1, 6, 0, 1, 2, 3, 4 }, f[400], udp[308];
	static const uint8_t tail[] = { 99, 130, 83, 99, 53, 1, 1, 255 };

	memcpy(dhcp + 28, eth + 6, 6);
	memcpy(dhcp + 236, tail, sizeof(tail));
	inet_write16(udp, 68);
	inet_write16(udp + 2, 67);
	inet_write16(udp + 4, 308);
	inet_write16(udp + 6, 0);
	memcpy(udp + 8, dhcp, 300);
	send_frame(f, ip4(f, "255.255.255.255", IPPROTO_UDP, udp, 308, 0));
	wait_for(is_dhcp);
}

static void work_tcp(void)
{
	uint32_t ack;

	send_tcp("10.0.2.2", 4000, tcp_port, 100, 0, 2, "");
	wait_for(is_syn_ack);
	ack = (inet_read32(got + 38)) + 1;
	send_tcp("10.0.2.2", 4000, tcp_port, 101, ack, 0x18, "bye");
	wait_for(is_fin); /* the test answers and closes */
	send_tcp("10.0.2.2", 4000, tcp_port, 104, ack + 1, 0x11, "");
	send_tcp("10.0.2.2", 4001, 1, 100, 0, 2, ""); /* nobody listens */
	wait_for(is_reset);
}

/* A guest's host name look-ups, pings and errors. */
static void live_user(void)
{
	uint8_t solicitation[8] = { 133 }, f[100];
	uint8_t cut[16] = { 0 };

	start_driver();
	send_arp();
	discover();
	send_udp("10.0.2.2", 4000, udp_port, "ping", 4);
	wait_for(is_udp_echo);
	send_udp("10.0.2.2", 4000, 1, "ping", 4); /* nobody listens */
	wait_for(is_unreachable);
	send_echo_request("10.0.2.2");
	wait_for(is_echo_reply);
	work_tcp();
	wait_for(is_forwarded);

	send_frame(f, ip6(f, "ff02::2", IPPROTO_ICMPV6, solicitation, 8, 2));
	wait_for(is_advertisement);
	send_echo_request("fec0::2");
	send_echo_request("2001:db8::1");
	send_udp("10.0.2.3", 4002, 53, "a question", 10);
	send_udp("fec0::3", 4002, 53, "a question", 10);
	send_udp("192.0.2.1", 4003, 9, "outside", 7);
	send_udp("2001:db8::1", 4003, 9, "outside", 7);
	send_udp("255.255.255.255", 4003, 9, "everybody", 9);
	send_udp("224.0.0.251", 4003, 9, "a group", 7);
	send_udp("10.0.2.2", 4003, 69, "\0\1file\0octet", 12);
	send_echo_request("192.0.2.1");
	send_tcp("192.0.2.1", 4004, 9, 100, 0, 2, "");
	ip4(f, "10.0.2.2", IPPROTO_UDP, cut, 16, 0);
	f[20] = 0x20; /* a fragment, and a bad checksum */
	send_frame(f, 50);
	iterate(1200); /* timers */
	send_udp("10.0.2.2", 4000, udp_port, "ping", 4);
	wait_for(is_udp_echo);
}

/* Sent frames return: from the backend, or from the test behind it. */
static void live_echo(void)
{
	uint8_t f[1000], data[900] = { 1, 2, 3 };

	for (int reset = 0; reset < 2; reset++) {
		start_driver();
		iterate(50); /* whoever connects does */
		ip4(f, "10.0.2.2", 254, data, sizeof(data), 0);
		for (int i = 0; i < 20; i++) {
			send_frame(f, 934);
			wait_for(any);
			MUST(got_len == 934);
		}
	}
}

static void live_null(void)
{
	uint8_t f[100] = { 0 };

	start_driver();
	send_frame(f, sizeof(f));
	iterate(10);
	MUST(!receive());
}

/* The kernel queries routers and groups as soon as the interface is up. */
static void live_tap(void)
{
	uint8_t f[100], data[60] = { 1, 2, 3 };

	start_driver();
	ip4(f, "10.0.2.2", 254, data, sizeof(data), 0);
	send_frame(f, 94);
	wait_for(any);
	start_driver();
	send_frame(f, 94);
}

/*
 * --- The jail ---
 */

static void set_interface_up(const char *name)
{
	struct ifreq ifr = { 0 };
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", name);
	MUST(ioctl(fd, SIOCGIFFLAGS, &ifr) == 0);
	ifr.ifr_flags |= IFF_UP;
	MUST(ioctl(fd, SIOCSIFFLAGS, &ifr) == 0);
	close(fd);
}

/* The device's root directory, and how it is entered. */
static const char *root;
static bool without_mounts, without_root; /* nor chroot */

static void enter(const char *text, struct vdev **ret_dev)
{
	const struct vdev_type *type;
	struct opened_files files = { 0 };
	struct jail_tree tree = { -1, -1 };
	struct jail jail = { 0 };
	struct sandbox_rights rights;
	struct vdev_env env = { &d.pi, loop, NULL, &files };
	struct opts *opts;
	struct err err = { "" };

	MUST(vdev_parse(text, &type, &opts, &err) == 0);
	env.opts = opts;
	if (vdev_open(type, opts, &files, &err) < 0) {
		fprintf(stderr, "%s\n", err.text);
		_exit(1);
	}
	if (strstr(text, "tap"))
		set_interface_up("jailtap");
	rights = vdev_rights(type, opts);
	if (rights.tree)
		tree.tree_fd = opened_files_find(&files, rights.tree);
	jail.root = root;
	if (without_root)
		MUST(setresuid(1000, 1000, 1000) == 0);
	if (!without_mounts && !rights.tree && geteuid() == 0 &&
	    unshare(CLONE_NEWNS) == 0)
		jail.namespaces = CLONE_NEWNS;
	MUST(jail_enter(&jail, &rights, &tree) == 0);
	MUST(vdev_create(type, &env, ret_dev, &err) == 0);
	MUST(jail_seal(&jail,
		       (const int *const[]){ rights.syscalls ?
						     rights.syscalls :
						     type->vt_syscalls,
					     type->vt_syscalls, NULL },
		       (const unsigned long *const[]){ rights.ioctls, NULL }) ==
	     0);
}

static void jailed(const char *text, void (*live)(void))
{
	struct vdev *dev;

	if (vio_loop_create(&loop) < 0)
		_exit(1);
	vdrv_init(&d, VDRV_MODERN);
	enter(text, &dev);
	live();
	vdev_destroy(dev);
	_exit(0);
}

/*
 * --- The other ends ---
 */

/* The work of each until the device has ended. */
static void return_udp(int fd)
{
	struct sockaddr_in from;
	socklen_t len = sizeof(from);
	uint8_t buf[100];
	ssize_t n = recvfrom(fd, buf, sizeof(buf), MSG_DONTWAIT,
			     (struct sockaddr *)&from, &len);

	if (n > 0)
		sendto(fd, buf, (size_t)n, 0, (struct sockaddr *)&from, len);
}

static void return_tcp(int listener)
{
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	char buf[10];

	if (fd < 0)
		return;
	if (read(fd, buf, 3) == 3)
		assert_int_equal(write(fd, buf, 3), 3);
	close(fd);
}

static void return_frames(int fd)
{
	uint8_t buf[4096];
	ssize_t n = recv(fd, buf, sizeof(buf), MSG_DONTWAIT);

	if (n > 0)
		assert_int_equal(send(fd, buf, (size_t)n, MSG_NOSIGNAL), n);
}

static void forward(int fd)
{
	struct sockaddr_in to = { .sin_family = AF_INET,
				  .sin_port = htons(forward_port) };

	to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	sendto(fd, "hello", 5, MSG_DONTWAIT, (struct sockaddr *)&to,
	       sizeof(to));
}

static int on_loopback(int type, uint16_t *ret_port)
{
	struct sockaddr_in sin = { .sin_family = AF_INET };
	socklen_t len = sizeof(sin);
	int fd = socket(AF_INET, type | SOCK_NONBLOCK, 0);

	sin.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_int_equal(bind(fd, (struct sockaddr *)&sin, sizeof(sin)), 0);
	if (type == SOCK_STREAM)
		assert_int_equal(listen(fd, 8), 0);
	getsockname(fd, (struct sockaddr *)&sin, &len);
	*ret_port = ntohs(sin.sin_port);
	return fd;
}

/* A process for the device; calls @work until it has ended. */
static void live_behind_bars(const char *text, void (*live)(void),
			     void (*work)(void))
{
	int wait_status;
	pid_t pid;

	print_message("%s\n", text);
	pid = fork();
	if (pid == 0)
		jailed(text, live);
	while (waitpid(pid, &wait_status, WNOHANG) == 0) {
		if (work)
			work();
		usleep(2000);
	}
	if (WIFSIGNALED(wait_status))
		fail_msg("%s: killed by signal %d", text,
			 WTERMSIG(wait_status));
	assert_int_equal(WEXITSTATUS(wait_status), 0);
}

static int udp_fd, tcp_fd, other_fd;

static void serve_user(void)
{
	return_udp(udp_fd);
	return_tcp(tcp_fd);
	forward(other_fd);
}

static void write_file(const char *path, const char *text)
{
	char name[128];
	int fd;

	snprintf(name, sizeof(name), "%s.new", path);
	fd = open(name, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
	assert_int_equal(rename(name, path), 0);
}

static void test_user(void **state)
{
	char text[128], dir[] = "/tmp/jail-net-XXXXXX", path[64];

	if (!HAVE_LIBSLIRP)
		skip();
	udp_fd = on_loopback(SOCK_DGRAM, &udp_port);
	tcp_fd = on_loopback(SOCK_STREAM, &tcp_port);
	close(on_loopback(SOCK_DGRAM, &forward_port)); /* now it is free */
	other_fd = socket(AF_INET, SOCK_DGRAM, 0);
	snprintf(text, sizeof(text),
		 "net,backend=user,hostfwd=udp:127.0.0.1:%u-:7", forward_port);
	/* A name server with a zone, as on Wi-Fi. */
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/etc", dir);
	assert_int_equal(chmod(dir, 0755) | mkdir(path, 0755), 0);
	strcat(path, "/resolv.conf");
	write_file(path, "nameserver fe80::1%lo\nnameserver 127.0.0.53\n");
	root = dir;
	live_behind_bars(text, live_user, serve_user);
	root = NULL;
	unlink(path);
	*strrchr(path, '/') = '\0';
	assert_int_equal(rmdir(path) | rmdir(dir), 0);
	close(udp_fd);
	close(tcp_fd);
	close(other_fd);
}

static void serve_frames(void)
{
	return_frames(other_fd);
}

static void test_sockets(void **state)
{
	static const int types[] = { SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET };
	char text[64];

	for (unsigned i = 0; i < 3; i++) {
		int sv[2];

		assert_int_equal(socketpair(AF_UNIX, types[i], 0, sv), 0);
		other_fd = sv[1];
		snprintf(text, sizeof(text), "net,backend=fd,fd=%d", sv[0]);
		live_behind_bars(text, live_echo, serve_frames);
		close(sv[0]);
		close(sv[1]);
	}
}

static char socket_name[2][64];
static bool connected;

static struct sockaddr_un address(const char *name)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };

	strcpy(sun.sun_path, name);
	return sun;
}

static void serve_stream(void)
{
	struct sockaddr_un sun = address(socket_name[0]);

	if (!connected)
		connected = connect(other_fd, (struct sockaddr *)&sun,
				    sizeof(sun)) == 0;
	else
		serve_frames();
}

static void name_sockets(void)
{
	for (int i = 0; i < 2; i++) {
		snprintf(socket_name[i], sizeof(socket_name[i]),
			 "/tmp/jail-net-%d-%d", getpid(), i);
		unlink(socket_name[i]);
	}
}

static void test_stream_listen(void **state)
{
	char text[128];

	name_sockets();
	connected = false;
	other_fd = socket(AF_UNIX, SOCK_STREAM, 0);
	snprintf(text, sizeof(text), "net,backend=stream,path=%s,listen=on",
		 socket_name[0]);
	live_behind_bars(text, live_echo, serve_stream);
	close(other_fd);
	unlink(socket_name[0]);
}

static void test_dgram(void **state)
{
	struct sockaddr_un sun;
	char text[200];

	name_sockets();
	sun = address(socket_name[1]);
	other_fd = socket(AF_UNIX, SOCK_DGRAM, 0);
	assert_int_equal(bind(other_fd, (struct sockaddr *)&sun, sizeof(sun)),
			 0);
	snprintf(text, sizeof(text), "net,backend=dgram,local=%s,remote=%s",
		 socket_name[0], socket_name[1]);
	connected = false;
	live_behind_bars(text, live_null, NULL);
	close(other_fd);
	unlink(socket_name[0]);
	unlink(socket_name[1]);
}

static void test_no_network(void **state)
{
	live_behind_bars("net,backend=null", live_null, NULL);
	live_behind_bars("net,backend=echo", live_echo, NULL);
	live_behind_bars("net,backend=echo,queues=2,rss=on,pcap=/dev/null",
			 live_echo, NULL);
}

static void test_tap(void **state)
{
	int fd = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	int tun;

	if (geteuid() != 0 || unshare(CLONE_NEWNET) < 0)
		skip();
	tun = open("/dev/net/tun", O_RDWR);
	if (tun >= 0) {
		close(tun);
		live_behind_bars("net,backend=tap,ifname=jailtap", live_tap,
				 NULL);
		live_behind_bars("net,backend=tap,ifname=jailtap,queues=2",
				 live_tap, NULL);
	}
	assert_int_equal(setns(fd, CLONE_NEWNET), 0);
	close(fd);
	if (tun < 0)
		skip();
}

/*
 * --- Name servers ---
 */

#define RESOLV_CONF "/etc/resolv.conf"

static int servers[2], server6;
static struct vio_loop *resolver_loop;

static bool is_answer_1(void)
{
	return is_ip4(IPPROTO_UDP) && inet_read16(got + 34) == 53 &&
	       got[42] == '1';
}

static bool is_answer_2(void)
{
	return is_ip4(IPPROTO_UDP) && inet_read16(got + 34) == 53 &&
	       got[42] == '2';
}

static bool is_answer6(void)
{
	return got_len >= 63 && inet_read16(got + 12) == ETH_IP6 &&
	       got[20] == IPPROTO_UDP && inet_read16(got + 54) == 53 &&
	       got[62] == '6';
}

static void ask_until(const char *server, bool (*answered)(void))
{
	for (int i = 0; i < WAIT_MS / 100; i++) {
		send_udp(server, 4000, 53, "question", 8);
		iterate(100);
		while (receive()) {
			if (answered())
				return;
		}
	}
	MUST(!"an answer");
}

static void live_names(void)
{
	start_driver();
	send_arp();
	ask_until("10.0.2.3", is_answer_1);
	ask_until("10.0.2.3", is_answer_2);
}

static void live_names6(void)
{
	start_driver();
	send_arp();
	ask_until("fec0::3", is_answer6);
}

static bool is_image(void)
{
	return is_ip4(IPPROTO_UDP) && inet_read16(got + 36) == 5000 &&
	       !memcmp(got + 42, "\0\3\0\1image", 9);
}

/* Files of the host and its name servers, both in the root of the jail. */
static void live_tftp(void)
{
	live_names();
	send_udp("10.0.2.2", 5000, 69, "\0\1/file\0octet", 14);
	wait_for(is_image);
}

static void replace_names(const char *text)
{
	write_file(RESOLV_CONF, text);
}

/* Like a container, which mounts the file. */
static void rewrite_names(const char *text)
{
	int fd = open(RESOLV_CONF, O_WRONLY | O_CREAT | O_TRUNC, 0644);

	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
}

/* Like systemd-resolved. */
static void replace_linked_names(const char *text)
{
	write_file("/mnt/stub-resolv.conf", text);
	if (access(RESOLV_CONF, F_OK) < 0)
		assert_int_equal(symlink("/mnt/stub-resolv.conf", RESOLV_CONF),
				 0);
}

static void (*change_names)(const char *text) = replace_names;

/* The first server answers, the host changes to the second. */
static void serve_names(void)
{
	struct sockaddr_in from;
	socklen_t len = sizeof(from);
	char buf[100];

	for (int i = 0; i < 2; i++) {
		if (recvfrom(servers[i], buf, sizeof(buf), MSG_DONTWAIT,
			     (struct sockaddr *)&from, &len) < 0)
			continue;
		sendto(servers[i], i ? "2" : "1", 1, 0,
		       (struct sockaddr *)&from, len);
		if (i == 0)
			change_names("nameserver 127.0.0.2\n");
	}
	vio_loop_iterate(resolver_loop, 0);
}

static void serve_names6(void)
{
	struct sockaddr_in6 from;
	socklen_t len = sizeof(from);
	char buf[100];

	if (recvfrom(server6, buf, sizeof(buf), MSG_DONTWAIT,
		     (struct sockaddr *)&from, &len) >= 0)
		sendto(server6, "6", 1, 0, (struct sockaddr *)&from, len);
}

static int name_server6(void)
{
	struct sockaddr_in6 sin6 = { .sin6_family = AF_INET6,
				     .sin6_port = htons(53),
				     .sin6_addr = IN6ADDR_LOOPBACK_INIT };
	int fd = socket(AF_INET6, SOCK_DGRAM, 0);

	assert_int_equal(bind(fd, (struct sockaddr *)&sin6, sizeof(sin6)), 0);
	return fd;
}

static int name_server(const char *addr)
{
	struct sockaddr_in sin = { .sin_family = AF_INET,
				   .sin_port = htons(53) };
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	inet_pton(AF_INET, addr, &sin.sin_addr);
	assert_int_equal(bind(fd, (struct sockaddr *)&sin, sizeof(sin)), 0);
	return fd;
}

/* The host's file is created late, replaced and removed. */
static void follow_names(void)
{
	struct resolver *resolver;
	char path[128], text[100] = "";
	int fd;

	assert_int_equal(resolver_create(resolver_loop, &resolver), 0);
	root = resolver_root(resolver);
	snprintf(path, sizeof(path), "%s" RESOLV_CONF, root);
	assert_int_equal(access(path, F_OK), -1);
	write_file(RESOLV_CONF, "nameserver 127.0.0.53\n");
	resolver_update(resolver);
	fd = open(path, O_RDONLY);
	assert_int_equal(read(fd, text, sizeof(text)), 22);
	close(fd);
	assert_string_equal(text, "nameserver 127.0.0.53\n");

	live_behind_bars("net,backend=user", live_names, serve_names);
	unlink(RESOLV_CONF);
	resolver_update(resolver);
	assert_int_equal(access(path, F_OK), -1);
	strcpy(text, root);
	resolver_destroy(resolver);
	assert_int_equal(access(text, F_OK), -1);
	root = NULL;
}

/* A host that has only IPv6 name servers. */
static void find_names6(void)
{
	without_root = true;
	write_file(RESOLV_CONF, "search test\nnameserver ::1\n");
	live_behind_bars("net,backend=user", live_names6, serve_names6);
	unlink(RESOLV_CONF);
	without_root = false;
}

/* Neither namespaces nor chroot: the root directory is the host's. */
static void find_names(void (*change)(const char *text))
{
	change_names = change;
	without_root = true;
	change("nameserver 127.0.0.53\n");
	live_behind_bars("net,backend=user", live_names, serve_names);
	unlink(RESOLV_CONF);
	without_root = false;
	change_names = replace_names;
}

static void read_files(void)
{
	char dir[] = "/tmp/jail-tftp-XXXXXX", path[64], text[64];
	struct resolver *resolver;

	assert_int_equal(resolver_create(resolver_loop, &resolver), 0);
	root = resolver_root(resolver);
	write_file(RESOLV_CONF, "nameserver 127.0.0.53\n");
	resolver_update(resolver);
	assert_non_null(mkdtemp(dir));
	assert_int_equal(chmod(dir, 0755), 0);
	snprintf(path, sizeof(path), "%s/file", dir);
	write_file(path, "image");
	snprintf(text, sizeof(text), "net,backend=user,tftp=%s", dir);
	live_behind_bars(text, live_tftp, serve_names);
	unlink(path);
	rmdir(dir);
	unlink(RESOLV_CONF);
	resolver_destroy(resolver);
	root = NULL;
}

static bool leave_host(void)
{
	return geteuid() == 0 && unshare(CLONE_NEWNET | CLONE_NEWNS) == 0 &&
	       mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
	       mount("test", "/etc", "tmpfs", 0, NULL) == 0 &&
	       mount("test", "/mnt", "tmpfs", 0, NULL) == 0;
}

static void test_name_servers(void **state)
{
	int net = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	int mounts = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);
	bool alone;

	if (!HAVE_LIBSLIRP)
		skip();
	alone = leave_host();
	if (alone) {
		set_interface_up("lo");
		servers[0] = name_server("127.0.0.53");
		servers[1] = name_server("127.0.0.2");
		server6 = name_server6();
		assert_int_equal(vio_loop_create(&resolver_loop), 0);
		for (int i = 0; i < 2; i++) {
			without_mounts = i; /* as in a container, or a chroot */
			follow_names();
		}
		without_mounts = false;
		find_names(rewrite_names);
		find_names(replace_linked_names);
		find_names6();
		read_files();
		vio_loop_destroy(resolver_loop);
		close(servers[0]);
		close(servers[1]);
		close(server6);
	}
	setns(mounts, CLONE_NEWNS);
	setns(net, CLONE_NEWNET);
	close(mounts);
	close(net);
	if (!alone)
		skip();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_user),
		cmocka_unit_test(test_sockets),
		cmocka_unit_test(test_stream_listen),
		cmocka_unit_test(test_dgram),
		cmocka_unit_test(test_no_network),
		cmocka_unit_test(test_tap),
		cmocka_unit_test(test_name_servers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

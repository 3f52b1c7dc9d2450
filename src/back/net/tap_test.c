/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * backend=tap, each test in a child with its own network namespace; skipped if
 * none can be created.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "net_be_fixture.h"
#include "emulated.h"

static void set_up(const char *name)
{
	struct ifreq ifr = { 0 };
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", name);
	assert_int_equal(ioctl(fd, SIOCGIFFLAGS, &ifr), 0);
	ifr.ifr_flags |= IFF_UP;
	assert_int_equal(ioctl(fd, SIOCSIFFLAGS, &ifr), 0);
	close(fd);
}

static int packet_socket(const char *name)
{
	struct sockaddr_ll sll = { .sll_family = AF_PACKET };
	struct ifreq ifr = { 0 };
	int fd = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK, htons(0x88b5));

	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", name);
	assert_int_equal(ioctl(fd, SIOCGIFINDEX, &ifr), 0);
	sll.sll_ifindex = ifr.ifr_ifindex;
	sll.sll_protocol = htons(0x88b5);
	assert_int_equal(bind(fd, (struct sockaddr *)&sll, sizeof(sll)), 0);
	return fd;
}

static void tap_round_trip(const char *text, const char *name)
{
	uint8_t buf[2000];
	int fd;

	must_open(text);
	set_up(name);
	fd = packet_socket(name);
	memset(frame, 0xff, 6);
	frame[12] = 0x88;
	frame[13] = 0xb5;
	assert_int_equal(send_to(0, frame, 1000), 0);
	assert_int_equal(read(fd, buf, sizeof(buf)), 1000);
	assert_memory_equal(buf, frame, 1000);
	got.only_ours = true; /* the kernel also sends frames */
	got.len = 0;
	assert_int_equal(write(fd, frame, 500), 500);
	for (int i = 0; i < 300 && got.len != 500; i++)
		vio_loop_iterate(loop, 10);
	got.only_ours = false;
	assert_int_equal(got.len, 500);
	assert_memory_equal(got.data, frame, 500);
	close(fd);
}

static void set_address(const char *name, const char *addr)
{
	struct ifreq ifr = { 0 };
	struct sockaddr_in *sin = (struct sockaddr_in *)&ifr.ifr_addr;
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", name);
	sin->sin_family = AF_INET;
	inet_pton(AF_INET, addr, &sin->sin_addr);
	assert_int_equal(ioctl(fd, SIOCSIFADDR, &ifr), 0);
	close(fd);
}

/* UFO: one datagram longer than the MTU, which the kernel accepts whole. */
static void tap_large_datagram(void)
{
	struct virtio_net_hdr hdr = {
		.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
		.gso_type = VIRTIO_NET_HDR_GSO_UDP,
		.hdr_len = 42,
		.gso_size = 1472,
		.csum_start = 34,
		.csum_offset = 6,
	};
	struct sockaddr_in sin = { .sin_family = AF_INET,
				   .sin_port = htons(7) };
	uint8_t f[4100], buf[4100];
	struct iovec iov[2] = { { &hdr, sizeof(hdr) }, { f, 0 } };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);

	must_open("net,backend=tap,ifname=vio2");
	assert_true(be->features & (UINT64_C(1) << VIRTIO_NET_F_HOST_UFO));
	assert_true(be->features & (UINT64_C(1) << VIRTIO_NET_F_GUEST_UFO));
	set_address("vio2", "10.1.0.1");
	set_up("vio2");
	inet_pton(AF_INET, "10.1.0.1", &sin.sin_addr);
	assert_int_equal(bind(fd, (struct sockaddr *)&sin, sizeof(sin)), 0);
	iov[1].iov_len =
		make_udp(f, "10.1.0.2", "10.1.0.1", 4000, 7, frame, 4000);
	memset(f, 0xff, 6);
	assert_int_equal(be->ops->send(be, 0, iov, 2), 0);
	assert_int_equal(recv(fd, buf, sizeof(buf), 0), 4000);
	assert_memory_equal(buf, frame, 4000);
	close(fd);
	close_be();
}

static int open_tap(const char *name)
{
	struct ifreq ifr = { .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR |
					  IFF_MULTI_QUEUE };
	int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);

	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", name);
	assert_int_equal(ioctl(fd, TUNSETIFF, &ifr), 0);
	return fd;
}

/* Already opened queues of one tap, and of two. */
static void tap_by_descriptors(void)
{
	int fds[3] = { open_tap("vio3"), open_tap("vio3"), open_tap("vio4") };
	struct err err = { "" };
	char text[64];

	snprintf(text, sizeof(text), "net,backend=fd,fd=%d:%d", fds[0], fds[1]);
	tap_round_trip(text, "vio3");
	assert_int_equal(be->nr_channels, 2);
	assert_int_equal(be->ops->set_channels(be, 2), 0);
	assert_int_equal(send_to(1, frame, 60), 0);
	close_be();
	snprintf(text, sizeof(text), "net,backend=fd,fd=%d:%d,queues=2", fds[0],
		 fds[2]);
	assert_int_equal(open_be(text, &err), -EINVAL);
	assert_non_null(strstr(err.text, "queues of one tap"));
	for (unsigned i = 0; i < 3; i++)
		close(fds[i]);
}

static void tap_tests(void)
{
	struct err err = { "" };

	tap_large_datagram();

	tap_round_trip("net,backend=tap,ifname=vio0", "vio0");
	assert_true(be->features & (UINT64_C(1) << VIRTIO_NET_F_GUEST_TSO4));
	assert_int_equal(
		be->ops->set_offloads(
			be, (UINT64_C(1) << VIRTIO_NET_F_GUEST_CSUM) |
				    (UINT64_C(1) << VIRTIO_NET_F_GUEST_TSO4)),
		0);
	assert_int_equal(be->ops->set_offloads(be, 0), 0);
	close_be();

	tap_round_trip("net,backend=tap,ifname=vio1,queues=3", "vio1");
	assert_int_equal(be->nr_channels, 3);
	for (unsigned nr = 3; nr >= 1; nr--) {
		assert_int_equal(be->ops->set_channels(be, nr), 0);
		assert_int_equal(send_to(nr - 1, frame, 60), 0);
		iterate();
	}
	assert_int_equal(be->ops->set_channels(be, 3), 0);
	be->ops->watch(be, 2, true);
	assert_int_equal(send_to(2, frame, 60), 0);
	assert_true(got.link);
	close_be();
	tap_by_descriptors();

	/* In use already, with another number of queues. */
	assert_true(open_be("net,backend=tap,ifname=lo", &err) < 0);
}

static bool make_macvtap_link(void)
{
	return system("ip link add link vio5 name vio7 type macvtap "
		      "mode bridge && ip link set vio7 up") == 0;
}

/* sysfs of this network namespace, which has the device's number. */
static bool make_macvtap(void)
{
	return unshare(CLONE_NEWNET | CLONE_NEWNS) == 0 &&
	       mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
	       mount("sysfs", "/sys", "sysfs", 0, NULL) == 0 &&
	       system("ip link add name vio5 type veth peer name vio6 && "
		      "ip link set vio5 up && ip link set vio6 up && "
		      "ip link add link vio5 name vio8 type macvlan "
		      "mode bridge") == 0 &&
	       make_macvtap_link();
}

/* Iterate until the link is @up, without a driver that receives or sends. */
static void iterate_to_link(bool up)
{
	for (int i = 0; i < 1000 && got.link != up; i++)
		vio_loop_iterate(loop, 10);
	assert_int_equal(got.link, up);
}

/* An idle device notices at once that its interface is deleted. */
static void tap_deleted(void)
{
	char text[64];
	int fd;

	must_open("net,backend=tap,ifname=vio9");
	be->ops->watch(be, 0, false);
	assert_int_equal(system("ip link delete vio9"), 0);
	iterate_to_link(false);
	assert_int_equal(system("ip tuntap add vio9 mode tap"), 0);
	iterate_to_link(true);
	assert_int_equal(system("ip link delete vio9"), 0);
	iterate_to_link(false);
	close_be();

	fd = open_tap("vio9");
	snprintf(text, sizeof(text), "net,backend=fd,fd=%d", fd);
	must_open(text);
	be->ops->watch(be, 0, false);
	assert_int_equal(system("ip link delete vio9"), 0);
	iterate_to_link(false);
	close(fd);
	close_be();
}

/* A process whose interface was deleted is replaced once it exists again. */
static void tap_replaced(void)
{
	const char *text = "net,backend=tap,ifname=vio9";
	const struct opt_def *const tables[] = { be_opts, NULL };
	struct opened_files files = { 0 };
	struct err err = { "" };
	int ret;

	assert_int_equal(opts_parse(text, tables, &opts, &err), 0);
	assert_int_equal(net_be_open(opts, &files, &err), 0);
	assert_int_equal(net_be_reopen(opts, &files), 0);
	assert_int_equal(system("ip link delete vio9"), 0);
	for (int i = 0; i < 2; i++)
		assert_int_equal(net_be_reopen(opts, &files), -EAGAIN);
	assert_int_equal(system("ip tuntap add vio9 mode tap"), 0);
	for (int i = 0; i < 1000; i++) {
		ret = net_be_reopen(opts, &files);
		if (ret == 0)
			break;
		vio_loop_iterate(loop, 10);
	}
	assert_int_equal(ret, 0);
	assert_int_equal(net_be_create(opts, &files, loop, &be, &err), 0);
	opened_files_close(&files);
	assert_true(be->features & (UINT64_C(1) << VIRTIO_NET_F_GUEST_TSO4));
	got.link = true;
	net_be_attach(be, &client, NULL);
	assert_int_equal(system("ip link delete vio9"), 0);
	iterate_to_link(false);
	close_be();
}

/* The same on a macvtap link, and the new link has the card's address. */
static void macvtap_deleted(void)
{
	struct ifreq ifr = { .ifr_name = "vio7" };
	int fd;

	must_open("net,backend=tap,ifname=vio7");
	be->ops->watch(be, 0, false);
	assert_int_equal(system("ip link delete vio7"), 0);
	iterate_to_link(false);
	assert_true(make_macvtap_link());
	iterate_to_link(true);
	fd = packet_socket("vio6");
	assert_int_equal(ioctl(fd, SIOCGIFHWADDR, &ifr), 0);
	assert_memory_equal(be->mac, ifr.ifr_hwaddr.sa_data, 6);
	close(fd);
	close_be();
}

static void macvtap_tests(void)
{
	uint8_t buf[2000];
	struct err err = { "" };
	struct ifreq ifr = { .ifr_name = "vio7" };
	int fd = packet_socket("vio6");

	must_open("net,backend=tap,ifname=vio7,queues=2");
	assert_int_equal(be->nr_channels, 2);
	assert_true(be->has_mac);
	assert_int_equal(ioctl(fd, SIOCGIFHWADDR, &ifr), 0);
	assert_memory_equal(be->mac, ifr.ifr_hwaddr.sa_data, 6);
	memset(frame, 0xff, 6);
	frame[12] = 0x88;
	frame[13] = 0xb5;
	assert_int_equal(send_to(0, frame, 1000), 0);
	assert_int_equal(read(fd, buf, sizeof(buf)), 1000);
	assert_memory_equal(buf, frame, 1000);
	got.only_ours = true;
	be->ops->watch(be, 1, true);
	memcpy(frame, be->mac, 6);
	assert_int_equal(write(fd, frame, 500), 500);
	for (int i = 0; i < 300 && got.len != 500; i++)
		vio_loop_iterate(loop, 10);
	got.only_ours = false;
	assert_int_equal(got.len, 500);
	assert_memory_equal(got.data, frame, 500);
	close(fd);
	close_be();
	assert_true(open_be("net,backend=tap,ifname=vio8", &err) < 0);
}

static void test_macvtap(void **state)
{
	int status;
	pid_t pid;

	SKIP_UNDER_QEMU("a child of a process with threads crashes it");
	fflush(NULL);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		if (!make_macvtap())
			_exit(77);
		macvtap_tests();
		macvtap_deleted();
		close_be();
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
		skip();
	assert_int_equal(status, 0);
}

static void test_tap(void **state)
{
	int status;
	pid_t pid;

	SKIP_UNDER_QEMU("a child of a process with threads crashes it");
	fflush(NULL);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		if (unshare(CLONE_NEWNET) < 0 || access("/dev/net/tun", 6) < 0)
			_exit(77);
		tap_tests();
		tap_deleted();
		tap_replaced();
		close_be();
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
		skip();
	assert_int_equal(status, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_tap),
		TEST(test_macvtap),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

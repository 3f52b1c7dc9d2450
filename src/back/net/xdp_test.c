/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * backend=af-xdp on one end of a veth pair, with a packet socket at the other,
 * in the test's own network namespace; skipped if the kernel or the user's
 * rights do not allow it.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <netpacket/packet.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "back/net/xdp.h"
#include "base/util.h"
#include "emulated.h"

#include <cmocka.h>

#define ETHERTYPE 0x88b5 /* for experiments */
#define SKIPPED   77
#define PATIENCE  100 /* iterations of 10 ms */

static const struct opt_def be_opts[] = { NET_BE_OPTS, { NULL } };

static struct vio_loop *loop;
static struct opts *opts;
static struct opened_files files;
static struct net_be *be;
static int peer;

/* What the callbacks saw. */
static struct {
	unsigned nr, nr_writable, channel;
	uint32_t number;
	size_t len;
	bool out_of_order, link;
} got;

/*
 * --- Frames: a number after the header identifies each ---
 */

struct frame {
	uint8_t dst[6], src[6], type[2];
	uint8_t number[4];
	uint8_t rest[4096];
};

static struct frame numbered(uint32_t number)
{
	struct frame f = { .dst = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff },
			   .src = { 2 },
			   .type = { ETHERTYPE >> 8, ETHERTYPE & 0xff } };

	memcpy(f.number, &number, sizeof(number));
	memset(f.rest, (int)number, sizeof(f.rest));
	return f;
}

static void check_frame(const struct frame *f, size_t len, uint32_t *number)
{
	struct frame expected;

	memcpy(number, f->number, sizeof(*number));
	expected = numbered(*number);
	assert_memory_equal(f, &expected, len);
}

static void on_readable(void *arg, unsigned channel)
{
	struct virtio_net_hdr hdr;
	struct frame f;
	const struct iovec iov[3] = { { &hdr, sizeof(hdr) },
				      { &f, 13 },
				      { (char *)&f + 13, sizeof(f) - 13 } };
	ssize_t len;

	while ((len = be->ops->recv(be, channel, iov, 3)) != -EAGAIN) {
		uint32_t number;

		assert_true(len > 0);
		if (memcmp(f.type, "\x88\xb5", 2) != 0)
			continue; /* the host announces itself */
		check_frame(&f, (size_t)len, &number);
		got.out_of_order |= got.nr > 0 && number != got.number + 1;
		got.number = number;
		got.len = (size_t)len;
		got.channel = channel;
		got.nr++;
	}
}

static void on_writable(void *arg, unsigned channel)
{
	got.nr_writable++;
}

static void on_link(void *arg, bool up, const char *why)
{
	got.link = up;
}

static const struct net_be_client client = {
	.readable = on_readable,
	.writable = on_writable,
	.link = on_link,
};

static int send_frame(unsigned channel, uint32_t number, size_t len)
{
	struct virtio_net_hdr hdr = { 0 };
	struct frame f = numbered(number);
	struct iovec iov[3] = { { &hdr, sizeof(hdr) },
				{ &f, 5 },
				{ (char *)&f + 5, len - 5 } };

	return be->ops->send(be, channel, iov, 3);
}

/*
 * --- Creation ---
 */

static int open_be(const char *text, struct opts **ret_opts,
		   struct opened_files *to, struct err *err)
{
	const struct opt_def *const tables[] = { be_opts, NULL };
	int ret = opts_parse(text, tables, ret_opts, err);

	return ret < 0 ? ret : net_be_open(*ret_opts, to, err);
}

static void watch_all(bool on)
{
	for (unsigned i = 0; i < be->nr_channels; i++)
		be->ops->watch(be, i, on);
}

/* The opened files remain, for the process that replaces this one. */
static void create_be(void)
{
	struct opened_files copy = files;
	struct err err = { "" };

	for (unsigned i = 0; i < copy.nr; i++)
		copy.file[i].fd = fcntl(files.file[i].fd, F_DUPFD_CLOEXEC, 0);
	if (net_be_create(opts, &copy, loop, &be, &err) < 0)
		fail_msg("%s", err.text);
	opened_files_close(&copy);
	got.link = true;
	net_be_attach(be, &client, NULL);
	watch_all(true);
}

static void must_open(const char *text)
{
	struct err err = { "" };

	if (open_be(text, &opts, &files, &err) < 0)
		fail_msg("%s", err.text);
	memset(&got, 0, sizeof(got));
	create_be();
}

static void close_be(void)
{
	net_be_destroy(be);
	be = NULL;
	opened_files_close(&files);
	opts_free(opts);
	opts = NULL;
}

static int try_open(const char *text, struct err *err)
{
	struct opened_files opened = { 0 };
	struct opts *parsed = NULL;
	int ret = open_be(text, &parsed, &opened, err);

	opened_files_close(&opened);
	opts_free(parsed);
	return ret;
}

static void must_fail(const char *text, int ret, const char *why)
{
	struct err err = { "" };

	assert_int_equal(try_open(text, &err), ret);
	if (!strstr(err.text, why))
		fail_msg("'%s' is not in: %s", why, err.text);
}

/* The other end. */
static int open_peer(void)
{
	struct sockaddr_ll addr = {
		.sll_family = AF_PACKET,
		.sll_protocol = htons(ETHERTYPE),
		.sll_ifindex = (int)if_nametoindex("vio1"),
	};
	int fd = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK, 0);
	int bytes = 64 << 20;

	assert_true(fd >= 0);
	setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes));
	assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	return fd;
}

static void run(const char *command)
{
	if (system(command) != 0)
		fail_msg("%s", command);
}

static int make_pair(void)
{
	return system("ip link add name vio0 numrxqueues 2 numtxqueues 2 "
		      "type veth peer name vio1 numrxqueues 2 numtxqueues 2 "
		      "&& ip link set vio0 up && ip link set vio1 up");
}

static void iterate_until(bool (*done)(void))
{
	for (int i = 0; i < PATIENCE && !done(); i++)
		vio_loop_iterate(loop, 10);
	assert_true(done());
}

/*
 * --- Tests, each in its own process and namespace ---
 */

static uint32_t want; /* frames, or the number of one */

static bool all_received(void)
{
	return got.nr >= want;
}

static bool is_writable(void)
{
	return got.nr_writable >= want;
}

static bool link_is_up(void)
{
	return got.link;
}

static bool link_is_down(void)
{
	return !got.link;
}

/* The peer has frame @want, and has had those before. */
static bool peer_has(void)
{
	static uint32_t next;
	struct frame f;
	ssize_t len;

	while ((len = recv(peer, &f, sizeof(f), MSG_DONTWAIT)) > 0) {
		uint32_t number;

		check_frame(&f, (size_t)len, &number);
		next = number;
		if (number == want)
			return true;
	}
	return next == want;
}

static void peer_sends(uint32_t number, size_t len)
{
	const struct frame f = numbered(number);

	assert_int_equal(send(peer, &f, len, 0), len);
}

static void round_trip(unsigned channel, uint32_t number, size_t len)
{
	unsigned before = got.nr;

	assert_int_equal(send_frame(channel, number, len), 0);
	want = number;
	iterate_until(peer_has);
	peer_sends(number, len);
	want = before + 1;
	iterate_until(all_received);
	assert_int_equal(got.number, number);
	assert_int_equal(got.len, len);
}

static void modes(void)
{
	static const char *const texts[] = {
		"net,backend=af-xdp,ifname=vio0,queues=2",
		"net,backend=af-xdp,ifname=vio0,queues=2,xdp-mode=skb",
		("net,backend=af-xdp,ifname=vio0,queues=2,xdp-mode=native,"
		 "force-copy=on"), /* one string */
		"net,backend=af-xdp,ifname=vio0,start-queue=1",
	};

	/* The driver chooses the queue on which a frame arrives. */
	for (unsigned i = 0; i < 3; i++) {
		must_open(texts[i]);
		assert_true(be->has_mac);
		round_trip(0, 1 + 3 * i, 60);
		round_trip(0, 2 + 3 * i, 1514);
		close_be();
	}
	must_open(texts[3]);
	want = 100;
	assert_int_equal(send_frame(0, 100, 60), 0);
	iterate_until(peer_has);
	close_be();
}

static bool longer_is_sent(void)
{
	return send_frame(0, 1, 2022) == 0;
}

/* A network card's driver gets no frame that its interface would reject. */
static void lengths(void)
{
	struct frame f, expected = numbered(2);

	must_open("net,backend=af-xdp,ifname=vio0,queues=2");
	assert_int_equal(send_frame(0, 1, 13), -EMSGSIZE);
	assert_int_equal(send_frame(0, 1, 1523), -EMSGSIZE);
	round_trip(0, 1, 1514);
	assert_int_equal(send_frame(0, 2, 20), 0);
	for (int i = 0; i < PATIENCE && recv(peer, &f, 4096, MSG_PEEK) < 0; i++)
		vio_loop_iterate(loop, 10);
	assert_int_equal(recv(peer, &f, sizeof(f), 0), 60);
	memset((char *)&expected + 20, 0, 40);
	assert_memory_equal(&f, &expected, 60);
	run("ip link set vio0 mtu 2000");
	iterate_until(longer_is_sent);
	assert_int_equal(send_frame(0, 1, 2023), -EMSGSIZE);
	close_be();
}

static void errors(void)
{
	int fd;

	must_fail("net,backend=af-xdp", -EINVAL, "needs ifname=");
	must_fail("net,backend=af-xdp,ifname=none0", -ENODEV, "none0");
	must_fail("net,backend=af-xdp,ifname=vio0,mtu=9000", -EMSGSIZE,
		  "has an MTU of 1500");
	must_fail("net,backend=af-xdp,ifname=vio0,queues=3", -EINVAL,
		  "queue 2");
	must_fail("net,backend=tap,ifname=vio0,start-queue=1", -EINVAL,
		  "not supported");
	run("ip link set vio0 mtu 4000");
	must_fail("net,backend=af-xdp,ifname=vio0", -EMSGSIZE,
		  "ip link set vio0 mtu 3818");
	run("ip link set vio0 mtu 1500");

	/* An interface has one program: the first. */
	must_open("net,backend=af-xdp,ifname=vio0,queues=2");
	assert_int_equal(system("ip link show vio0 | grep -q xdp"), 0);
	must_fail("net,backend=af-xdp,ifname=vio0", -EBUSY,
		  "another XDP program");
	round_trip(0, 1, 60);
	close_be();
	assert_int_not_equal(system("ip link show vio0 | grep -q xdp"), 0);

	/* A socket that outlives its program keeps the queue. */
	must_open("net,backend=af-xdp,ifname=vio0");
	fd = fcntl(opened_files_find(&files, "queue0"), F_DUPFD_CLOEXEC, 0);
	close_be();
	must_fail("net,backend=af-xdp,ifname=vio0", -EBUSY,
		  "another AF_XDP socket");
	close(fd);
	must_open("net,backend=af-xdp,ifname=vio0");
	close_be();
}

/* Rings wrap around several times, in both directions. */
static void many(void)
{
	const uint32_t nr = 3 * XDP_NR_FRAMES + 100;
	uint32_t i = 1;

	must_open("net,backend=af-xdp,ifname=vio0,xdp-mode=skb");
	while (i <= nr) {
		int ret = send_frame(0, i, 200);

		if (ret == 0) {
			i++;
			continue;
		}
		assert_int_equal(ret, -EAGAIN);
		want = got.nr_writable + 1;
		iterate_until(is_writable);
	}
	want = nr;
	iterate_until(peer_has);
	for (i = 1; i <= nr; i++) {
		peer_sends(i, 100);
		want = i;
		if (i % 500 == 0)
			iterate_until(all_received);
	}
	iterate_until(all_received);
	assert_false(got.out_of_order);

	/* Frames wait while nobody receives. */
	watch_all(false);
	for (i = 0; i < 10; i++)
		peer_sends(nr + 1 + i, 100);
	for (i = 0; i < 5; i++)
		vio_loop_iterate(loop, 10);
	assert_int_equal(got.nr, nr);
	watch_all(true);
	want = nr + 10;
	iterate_until(all_received);
	assert_false(got.out_of_order);

	/* All frames are in flight. */
	run("ip link set vio0 down");
	for (i = 0; i < XDP_NR_FRAMES; i++)
		assert_int_equal(send_frame(0, i, 60), 0);
	assert_int_equal(send_frame(0, i, 60), -EAGAIN);
	run("ip link set vio0 up");
	want = got.nr_writable + 1;
	iterate_until(is_writable);
	want = i - 1;
	iterate_until(peer_has);
	close_be();
}

/* Another process resumes with the same descriptors; no frame is lost. */
static void replaced(void)
{
	must_open("net,backend=af-xdp,ifname=vio0,xdp-mode=skb");
	for (uint32_t life = 0; life < 5; life++) {
		for (uint32_t i = 1; i <= 700; i++)
			round_trip(0, 1000 * life + i, 60);
		net_be_destroy(be);
		create_be();
		round_trip(0, 1000 * life + 999, 60);
	}
	close_be();
}

/* The kernel has or gets all frames, in each direction. */
static void check_rings(uint32_t lost_received, uint32_t lost_sent)
{
	int fd = opened_files_find(&files, "queue0");
	struct xdp_mmap_offsets offsets;
	struct xdp_queue q;

	assert_int_equal(xdp_offsets(fd, &offsets), 0);
	assert_int_equal(xdp_queue_map(&q, fd, &offsets), 0);
	assert_int_equal(*q.fill.producer - *q.rx.consumer, XDP_NR_FRAMES);
	assert_int_equal(*q.tx.producer - *q.done.consumer, XDP_NR_FRAMES);
	*q.rx.consumer += lost_received;
	*q.done.consumer -= lost_sent;
	xdp_queue_unmap(&q);
}

/* A process died after it had published one index, but not the other. */
static void torn(void)
{
	must_open("net,backend=af-xdp,ifname=vio0,xdp-mode=skb");
	for (uint32_t i = 1; i <= 100; i++)
		round_trip(0, i, 60);
	watch_all(false);
	for (uint32_t i = 101; i <= 105; i++)
		peer_sends(i, 60);
	vio_loop_iterate(loop, 10);
	net_be_destroy(be);
	check_rings(5, 3);
	create_be();
	check_rings(0, 0);
	round_trip(0, 106, 60);
	close_be();
}

/* A process that a guest took over wrote arbitrary values. */
static void mistrusted(void)
{
	struct xdp_mmap_offsets offsets;
	struct xdp_queue q;
	int fd;

	must_open("net,backend=af-xdp,ifname=vio0,xdp-mode=skb");
	round_trip(0, 1, 60);
	net_be_destroy(be);
	fd = opened_files_find(&files, "queue0");
	assert_int_equal(xdp_offsets(fd, &offsets), 0);
	assert_int_equal(xdp_queue_map(&q, fd, &offsets), 0);
	*q.rx.consumer += 1u << 31;
	*q.tx.producer += 1u << 31;
	xdp_queue_unmap(&q);
	create_be();
	assert_int_equal(send_frame(0, 1, 60), -EIO);
	vio_loop_iterate(loop, 10);
	assert_int_equal(got.nr, 1);
	close_be();
}

/* Like the kernel. */
static void receive_on(unsigned queue, uint32_t nr, uint32_t len)
{
	char name[16];
	struct xdp_mmap_offsets offsets;
	struct xdp_queue q;
	int fd;

	snprintf(name, sizeof(name), "queue%u", queue);
	fd = opened_files_find(&files, name);
	assert_int_equal(xdp_offsets(fd, &offsets), 0);
	assert_int_equal(xdp_queue_map(&q, fd, &offsets), 0);
	for (uint32_t i = 0; i < XDP_NR_FRAMES; i++)
		q.rx.desc[i].len = len;
	*q.rx.producer += nr;
	xdp_queue_unmap(&q);
}

/* Each of one channel's queues in turn. */
static void fair(void)
{
	struct frame f;
	const struct iovec iov[2] = { { NULL, 0 }, { &f, sizeof(f) } };

	must_open("net,backend=af-xdp,ifname=vio0,queues=2");
	watch_all(false);
	assert_int_equal(be->ops->set_channels(be, 1), 0);
	receive_on(0, 100, 60); /* the length identifies the queue */
	receive_on(1, 2, 61);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(be->ops->recv(be, 0, iov, 2), 60 + i % 2);
	for (unsigned i = 0; i < 98; i++)
		assert_int_equal(be->ops->recv(be, 0, iov, 2), 60);
	assert_int_equal(be->ops->recv(be, 0, iov, 2), -EAGAIN);
	close_be();
}

/* A frame does not reach into the next one. */
static void too_long(void)
{
	static uint8_t room[2 * XDP_FRAME_BYTES];
	const struct iovec iov[2] = { { NULL, 0 }, { room, sizeof(room) } };

	must_open("net,backend=af-xdp,ifname=vio0,queues=2");
	watch_all(false);
	receive_on(0, 1, XDP_FRAME_BYTES + 1);
	assert_int_equal(be->ops->recv(be, 0, iov, 2), 0);
	assert_int_equal(be->ops->recv(be, 0, iov, 2), -EAGAIN);
	close_be();
}

static void several(void)
{
	must_open("net,backend=af-xdp,ifname=vio0,queues=2");
	assert_int_equal(be->nr_channels, 2);
	for (unsigned i = 0; i < 2; i++) {
		want = i + 1;
		assert_int_equal(send_frame(i, i + 1, 60), 0);
		iterate_until(peer_has);
	}
	/* The only channel gets the frames of both queues. */
	assert_int_equal(be->ops->set_channels(be, 1), 0);
	round_trip(0, 10, 60);
	assert_int_equal(got.channel, 0);
	close_be();
}

static void deleted(void)
{
	must_open("net,backend=af-xdp,ifname=vio0,xdp-mode=skb,queues=2");
	round_trip(0, 1, 60);
	run("ip link set vio0 down");
	assert_int_equal(send_frame(1, 2, 60), 0);
	iterate_until(link_is_down);
	assert_int_equal(send_frame(0, 3, 60), -ENETDOWN);
	run("ip link set vio0 up");
	iterate_until(link_is_up);
	want = 2; /* it waited in its queue */
	iterate_until(peer_has);
	round_trip(0, 3, 60);
	for (uint32_t i = 1; i <= 2; i++) {
		run("ip link delete vio0");
		close(peer);
		iterate_until(link_is_down);
		assert_int_equal(send_frame(0, 4, 60), -ENETDOWN);
		assert_int_equal(make_pair(), 0);
		peer = open_peer();
		iterate_until(link_is_up);
		round_trip(0, 10 * i, 60);
		/* A new process starts with the deleted one's sockets. */
		if (i == 2)
			continue;
		net_be_destroy(be);
		create_be();
		iterate_until(link_is_down);
		iterate_until(link_is_up);
		round_trip(0, 10 * i + 1, 60);
	}
	close_be();
}

/* A process that dies meanwhile is replaced once the interface is back. */
static void deleted_at_crash(void)
{
	int ret = -EAGAIN;

	must_open("net,backend=af-xdp,ifname=vio0,queues=2");
	assert_int_equal(net_be_reopen(opts, &files), 0);
	net_be_destroy(be);
	run("ip link delete vio0");
	close(peer);
	for (int i = 0; i < 2; i++)
		assert_int_equal(net_be_reopen(opts, &files), -EAGAIN);
	assert_int_equal(make_pair(), 0);
	peer = open_peer();
	for (int i = 0; i < 10 * PATIENCE && ret == -EAGAIN; i++) {
		vio_loop_iterate(loop, 10);
		ret = net_be_reopen(opts, &files);
	}
	assert_int_equal(ret, 0);
	create_be();
	assert_true(be->has_mac);
	round_trip(0, 1, 60);
	close_be();
}

/* As a child: 0, or SKIPPED. */
static void in_namespace(void (*test)(void))
{
	struct err err = { "" };

	setenv("CMOCKA_TEST_ABORT", "1", 1); /* this process has one test */
	if (unshare(CLONE_NEWNET) < 0 || make_pair() != 0)
		_exit(SKIPPED);
	assert_int_equal(vio_loop_create(&loop), 0);
	if (try_open("net,backend=af-xdp,ifname=vio0,xdp-mode=skb", &err) < 0) {
		print_message("%s\n", err.text);
		fflush(NULL);
		_exit(SKIPPED);
	}
	peer = open_peer();
	test();
	_exit(0);
}

static void run_child(void **state)
{
	int status;
	pid_t pid;

	SKIP_UNDER_QEMU("it has no AF_XDP");
	fflush(NULL);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0)
		in_namespace(*(void (**)(void))*state);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (WIFEXITED(status) && WEXITSTATUS(status) == SKIPPED) {
		print_message(
			"skipped: no network namespace, veth or AF_XDP\n");
		skip();
	}
	assert_int_equal(status, 0);
}

#define TEST(f)                                                \
	{                                                      \
		#f, run_child, NULL, NULL, &(void (*[])(void)) \
		{                                              \
			f                                      \
		}                                              \
	}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(modes),      TEST(lengths),  TEST(errors),
		TEST(many),       TEST(replaced), TEST(torn),
		TEST(mistrusted), TEST(fair),     TEST(too_long),
		TEST(several),    TEST(deleted),  TEST(deleted_at_crash),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

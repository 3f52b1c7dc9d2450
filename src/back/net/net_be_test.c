/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The network backends, each with the test at its other end. What needs a
 * network is tested in a namespace of our own, or skipped where none can be
 * made.
 */
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <sched.h>
#include <setjmp.h>
#if HAVE_LIBSLIRP
#include <slirp/libslirp.h>
#endif
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "back/net/net_be.h"
#include "base/json.h"
#include "back/net/pcap.h"
#include "base/util.h"
#include "emulated.h"

#include <cmocka.h>

static const struct opt_def be_opts[] = { NET_BE_OPTS, { NULL } };

static struct vio_loop *loop;
static struct opts *opts;
static struct net_be *be;
static uint8_t frame[NET_MAX_FRAME];

/* The client's callbacks, and the frames it took. */
static struct {
	uint8_t data[NET_MAX_FRAME];
	ssize_t len; /* of the last frame */
	unsigned nr, nr_writable, nr_links, channel;
	bool link;
	bool full;      /* takes nothing */
	bool only_ours; /* takes a frame of ours, and ignores others */
} got;

/* The beginnings of the frames before. */
static struct {
	uint8_t data[64][64];
	unsigned nr, looked; /* free-running */
} before;

static struct virtio_net_hdr rx_hdr;

static ssize_t receive(unsigned channel, size_t room)
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

static const struct net_be_client client = {
	.readable = on_readable,
	.writable = on_writable,
	.link = on_link,
};

static int send_to(unsigned channel, const void *data, size_t len)
{
	struct virtio_net_hdr hdr = { 0 };
	struct iovec iov[3] = {
		{ &hdr, sizeof(hdr) },
		{ (void *)(uintptr_t)data, len / 3 },
		{ (char *)(uintptr_t)data + len / 3, len - len / 3 },
	};

	return be->ops->send(be, channel, iov, 3);
}

static int open_be(const char *text, struct err *err)
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

static void must_open(const char *text)
{
	struct err err = { "" };

	if (open_be(text, &err) < 0)
		fail_msg("%s", err.text);
	be->ops->watch(be, 0, true);
}

static void close_be(void)
{
	net_be_destroy(be);
	opts_free(opts);
	be = NULL;
	opts = NULL;
}

static void iterate(void)
{
	for (int i = 0; i < 8; i++)
		vio_loop_iterate(loop, 0);
}

static int setup(void **state)
{
	for (size_t i = 0; i < sizeof(frame); i++)
		frame[i] = (uint8_t)(i * 7 + i / 256);
	return vio_loop_create(&loop);
}

static int teardown(void **state)
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

static int pair_up(int type)
{
	int sv[2];

	assert_int_equal(socketpair(AF_UNIX, type, 0, sv), 0);
	return open_pair(sv);
}

static int tcp_pair_up(void)
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

/*
 * --- Options ---
 */

static void test_options(void **state)
{
	static const struct {
		const char *text, *why;
	} rows[] = {
		{ "net,backend=stream", "needs path= or addr=" },
		{ "net,backend=stream,path=a,addr=b:1",
		  "needs path= or addr=" },
		{ "net,backend=stream,path=/nowhere/x", "path=/nowhere/x" },
		{ "net,backend=stream,addr=nonsense", "must be HOST:PORT" },
		{ "net,backend=stream,ifname=tap0",
		  "ifname=tap0: not supported by" },
		{ "net,backend=stream,path=/x,queues=2", "queues=2" },
		{ "net,backend=dgram,local=/tmp/x", "remote=" },
		{ "net,backend=dgram,local=/nowhere/x,remote=/y", "/nowhere" },
		{ "net,backend=fd", "needs fd=" },
		{ "net,backend=fd,fd=999", "fd=999" },
		{ "net,backend=fd,fd=", "fd=" },
		{ "net,backend=fd,fd=0:", "must be a descriptor" },
		{ "net,backend=fd,fd=-1", "must be a descriptor" },
		{ "net,backend=fd,fd=0:1:x", "must be a descriptor" },
		{ "net,backend=fd,fd=99999999", "must be a descriptor" },
		{ "net,backend=fd,fd=0:0,queues=3", "2 descriptors" },
		{ "net,backend=fd,fd=0:0:0:0:0:0:0:0:0:0:0:0:0:0:0:0:0",
		  "up to 16" },
		{ "net,backend=fd,fd=0",
		  NULL }, /* the test's stdin: no socket */
#if HAVE_LIBSLIRP
		{ "net,backend=user,hostfwd=tcp:x", "hostfwd=tcp:x" },
		{ "net,backend=user,hostfwd=icmp::1-:2", "hostfwd=" },
		{ "net,backend=user,hostfwd=tcp::0-:2", "hostfwd=" },
		{ "net,backend=user,hostfwd=tcp::99999-:2", "hostfwd=" },
		{ "net,backend=user,hostfwd=tcp:1.2.3:9-:2", "hostfwd=" },
		{ "net,backend=user,hostfwd=udp::5-:2+", "hostfwd=" },
		{ "net,backend=user,hostfwd=tcp:[::1:5-:2", "hostfwd=" },
		{ "net,backend=user,hostfwd=tcp:[::1]5-:2", "hostfwd=" },
		{ "net,backend=user,hostfwd=tcp:[1.2.3.4]:5-:2", "hostfwd=" },
		{ "net,backend=user,hostfwd=tcp:127.0.0.1:5-[fec0::15]:2",
		  "hostfwd=" },
		{ "net,backend=user,ipv6=off,hostfwd=tcp:[::1]:5-:2",
		  "ipv6=off" },
		{ "net,backend=user,ipv4=off,ipv6=off", "leave one" },
		{ "net,backend=user,net=10.0.5.0", "net=10.0.5.0: must be" },
		{ "net,backend=user,net=10.0.5.0/28", "net=" },
		{ "net,backend=user,net=10.0.5.0/7", "net=" },
		{ "net,backend=user,net=10.0.5.0/-24", "net=" },
		{ "net,backend=user,net=127.0.5.0/24", "net=" },
		{ "net,backend=user,net=224.0.5.0/24", "net=" },
		{ "net,backend=user,net=fd00::/48", "net=" },
		{ "net,backend=user,net=fe80::/64", "net=" },
		{ "net,backend=user,net=10.0.5.0/24+", "net=" },
		{ "net,backend=user,dns=one.one", "dns=one.one" },
		{ "net,backend=user,search=a+", "search=a+" },
		{ "net,backend=user,search=a..b", "search=" },
		{ "net,backend=user,search=a b", "search=" },
		{ "net,backend=user,search=a+b+c+d+e+f+g+h+i+j+k+l+m+n+o+p+q",
		  "search=" },
		{ "net,backend=user,tftp=/nowhere", "tftp=/nowhere" },
		{ "net,backend=user,tftp=/dev/null", "tftp=/dev/null" },
		{ "net,backend=null,tftp=/tmp", "not supported by" },
#else
		{ "net,backend=user", "built without libslirp" },
#endif
		{ "net,backend=tap,ifname=muchtoolongforaname", "too long" },
		{ "net,backend=other", "backend" },
		{ "net", "backend" },
	};

	for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
		struct err err = { "" };

		if (open_be(rows[i].text, &err) == 0)
			fail_msg("%s: opened", rows[i].text);
		if (rows[i].why && !strstr(err.text, rows[i].why))
			fail_msg("%s: %s", rows[i].text, err.text);
	}
}

/* No backend has both keys, so that none gets as far as opening anything. */
static void test_choices(void **state)
{
	char *choices = strdup(be_opts[0].choices), *rest = choices;
	const char *name;

	while ((name = strsep(&rest, "|"))) {
		char text[64], why[64];
		struct err err = { "" };

		snprintf(text, sizeof(text),
			 "net,backend=%s,ifname=x,hostfwd=y", name);
		snprintf(why, sizeof(why), "not supported by backend=%s", name);
		if (open_be(text, &err) == 0 || !strstr(err.text, why))
			fail_msg("%s: %s", text, err.text);
	}
	free(choices);
}

static void test_null(void **state)
{
	must_open("net,backend=null,queues=4");
	assert_int_equal(be->nr_channels, 4);
	assert_int_equal(send_to(3, frame, 60), 0);
	assert_int_equal(receive(0, 100), -EAGAIN);
}

/* Frames of all lengths come back by their channel, whole and in order. */
static void test_echo(void **state)
{
	const unsigned nr_channels = 3;
	unsigned sent = 0, seen = 0;

	must_open("net,backend=echo,queues=3");
	assert_int_equal(be->nr_channels, nr_channels);
	for (unsigned i = 1; i < nr_channels; i++)
		be->ops->watch(be, i, true);
	for (size_t len = 1; len <= NET_MAX_FRAME; len += 1 + len / 7) {
		assert_int_equal(send_to(len % nr_channels, frame, len), 0);
		assert_int_equal(got.nr, sent++); /* not from inside of it */
		iterate();
		assert_int_equal(got.nr, sent);
		assert_int_equal(got.len, len);
		assert_int_equal(got.channel, len % nr_channels);
		assert_memory_equal(got.data, frame, len);
	}

	/* Not taken: it gets full, loses what comes then, and no byte else. */
	be->ops->watch(be, 0, false);
	for (sent = 0; send_to(0, frame, 1000 + sent) == 0; sent++)
		;
	assert_in_range(sent, 100, 1000);
	for (unsigned round = 0; round < 500; round++) {
		assert_int_equal(receive(0, sizeof(got.data)), 1000 + seen);
		assert_memory_equal(got.data, frame, 1000 + seen);
		seen = (seen + 1) % 500;
		while (send_to(0, frame, 1000 + sent % 500) == 0)
			sent++;
	}
	/* Longer than the room: thrown away whole. */
	assert_int_equal(receive(0, 100), 0);
	seen = (seen + 1) % 500;
	assert_int_equal(receive(0, sizeof(got.data)), 1000 + seen);
	assert_int_equal(send_to(1, frame, 0), -ENOBUFS);
}

/*
 * --- Stream ---
 */

static void write_len(uint8_t *p, uint32_t len)
{
	len = htonl(len);
	memcpy(p, &len, 4);
}

static void test_stream(void **state)
{
	static uint8_t buf[NET_MAX_FRAME + 4];
	int fd = pair_up(SOCK_STREAM);

	/* Out: the length, then the frame. */
	assert_int_equal(send_to(0, frame, 1000), 0);
	assert_int_equal(read(fd, buf, sizeof(buf)), 1004);
	assert_memory_equal(buf, "\0\0\3\350", 4);
	assert_memory_equal(buf + 4, frame, 1000);

	/* In: byte by byte, */
	write_len(buf, 60);
	for (int i = 0; i < 64; i++) {
		assert_int_equal(got.nr, 0);
		assert_int_equal(write(fd, buf + i, 1), 1);
		iterate();
	}
	assert_int_equal(got.nr, 1);
	assert_int_equal(got.len, 60);
	assert_memory_equal(got.data, frame, 60);
	/* and many at once, while there is no room, too. */
	got.full = true;
	for (int i = 0; i < 100; i++)
		assert_int_equal(write(fd, buf, 64), 64);
	iterate();
	assert_int_equal(got.nr, 1);
	got.full = false;
	be->ops->watch(be, 0, true);
	iterate();
	assert_int_equal(got.nr, 101);
	/* Longer than the room: thrown away whole. */
	be->ops->watch(be, 0, false);
	assert_int_equal(write(fd, buf, 64), 64);
	assert_int_equal(write(fd, buf, 64), 64);
	assert_int_equal(receive(0, 59), 0);
	assert_int_equal(receive(0, 60), 60);
	assert_int_equal(receive(0, 60), -EAGAIN);
	close(fd);
}

/* A peer that does not read: a frame is sent whole or waits whole. */
static void test_stream_full(void **state)
{
	static uint8_t buf[NET_MAX_FRAME + 4];
	int fd = pair_up(SOCK_STREAM);
	unsigned sent = 0, read_back = 0;
	size_t have = 0;

	while (send_to(0, frame, 60000) == 0)
		sent++;
	assert_true(sent > 0);
	assert_int_equal(send_to(0, frame, 60), -EAGAIN);
	while (read_back < sent) {
		ssize_t n = read(fd, buf + have, 60004 - have);

		assert_true(n > 0);
		have += (size_t)n;
		iterate();
		if (have < 60004)
			continue;
		assert_memory_equal(buf, "\0\0\352\140", 4);
		assert_memory_equal(buf + 4, frame, 60000);
		have = 0;
		read_back++;
	}
	assert_true(got.nr_writable > 0);
	assert_int_equal(send_to(0, frame, 60), 0);
	close(fd);
}

/* The network's bytes are not trusted either. */
static void test_stream_hostile(void **state)
{
	static const uint32_t lengths[] = { 0, NET_MAX_FRAME + 1, 0x80000000,
					    0xffffffff };

	for (unsigned i = 0; i < ARRAY_LEN(lengths); i++) {
		int fd = pair_up(SOCK_STREAM);
		uint8_t prefix[4];

		write_len(prefix, lengths[i]);
		assert_int_equal(write(fd, prefix, 4), 4);
		iterate();
		assert_false(got.link);
		assert_int_equal(got.nr, 0);
		assert_int_equal(send_to(0, frame, 60), -ENOTCONN);
		close(fd);
		close_be();
	}
	for (int unread = 0; unread < 2; unread++) { /* it goes away */
		int fd = pair_up(SOCK_STREAM);

		if (unread)
			send_to(0, frame, 60);
		close(fd);
		iterate();
		assert_false(got.link);
		be->ops->watch(be, 0, true);
		assert_int_equal(vio_loop_iterate(loop, 0), 0);
		close_be();
	}
}

static void name_socket(struct sockaddr_un *sun, const char *name)
{
	snprintf(sun->sun_path, sizeof(sun->sun_path), "/tmp/viodev-%s-%d",
		 name, getpid());
	unlink(sun->sun_path);
}

static int listen_unix(const struct sockaddr_un *sun)
{
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	assert_int_equal(bind(fd, (const struct sockaddr *)sun, sizeof(*sun)),
			 0);
	assert_int_equal(listen(fd, 1), 0);
	return fd;
}

/* A peer that goes is missed, driver or not; what it sent is not lost. */
static void test_stream_gone(void **state)
{
	uint8_t buf[64] = { 0, 0, 0, 60 };

	for (int i = 0; i < 4; i++) {
		bool tcp = i & 1, unread = i & 2;
		int fd = tcp ? tcp_pair_up() : pair_up(SOCK_STREAM);

		be->ops->watch(be, 0, false);
		if (unread)
			assert_int_equal(write(fd, buf, 64), 64);
		close(fd);
		iterate();
		assert_int_equal(got.link, unread);
		be->ops->watch(be, 0, true);
		iterate();
		assert_int_equal(got.nr, unread);
		assert_false(got.link);
		close_be();
	}
}

/* Whoever listens where it was connected is its next peer. */
static void test_stream_reconnect(void **state)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	int listener, fd;
	char text[160];

	name_socket(&sun, "reconnect");
	for (int reconnect = 0; reconnect < 2; reconnect++) {
		listener = listen_unix(&sun);
		snprintf(text, sizeof(text),
			 "net,backend=stream,path=%s,reconnect=%d",
			 sun.sun_path, reconnect);
		must_open(text);
		fd = accept(listener, NULL, NULL);
		assert_true(fd >= 0);
		close(fd);
		close(listener);
		unlink(sun.sun_path);
		iterate();
		assert_false(got.link);
		assert_int_equal(receive(0, 100),
				 reconnect ? -EAGAIN : -ENOTCONN);
		assert_int_equal(send_to(0, frame, 60), -ENOTCONN);
		if (!reconnect) {
			close_be();
			continue;
		}

		listener = listen_unix(&sun);
		for (int i = 0; i < 3000 && !got.link; i++)
			vio_loop_iterate(loop, 10);
		assert_true(got.link);
		fd = accept(listener, NULL, NULL);
		assert_int_equal(write(fd, "\0\0\0\1x", 5), 5);
		iterate();
		assert_int_equal(got.len, 1);
		assert_int_equal(send_to(0, frame, 60), 0);
		close(fd);
		close(listener);
		unlink(sun.sun_path);
	}
}

static void test_stream_connect(void **state)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	struct sockaddr_in sin = { .sin_family = AF_INET };
	socklen_t len = sizeof(sin);
	char dir[] = "/tmp/viodev-net-XXXXXX", text[160];
	int fd, conn;

	assert_non_null(mkdtemp(dir));
	snprintf(sun.sun_path, sizeof(sun.sun_path), "%s/s", dir);
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&sun, sizeof(sun)), 0);
	assert_int_equal(listen(fd, 1), 0);
	snprintf(text, sizeof(text), "net,backend=stream,path=%s",
		 sun.sun_path);
	must_open(text);
	conn = accept(fd, NULL, NULL);
	assert_int_equal(send_to(0, frame, 60), 0);
	assert_int_equal(read(conn, got.data, 100), 64);
	close(conn);
	close(fd);
	close_be();
	unlink(sun.sun_path);
	rmdir(dir);

	sin.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	fd = socket(AF_INET, SOCK_STREAM, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&sin, sizeof(sin)), 0);
	assert_int_equal(listen(fd, 1), 0);
	getsockname(fd, (struct sockaddr *)&sin, &len);
	snprintf(text, sizeof(text), "net,backend=stream,addr=127.0.0.1:%u",
		 ntohs(sin.sin_port));
	must_open(text);
	conn = accept(fd, NULL, NULL);
	assert_int_equal(send_to(0, frame, 60), 0);
	assert_int_equal(read(conn, got.data, 100), 64);
	close(conn);
	close(fd);
}

static int connect_to(const struct sockaddr_un *sun)
{
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	assert_int_equal(
		connect(fd, (const struct sockaddr *)sun, sizeof(*sun)), 0);
	iterate();
	return fd;
}

/* The link is up while there is a peer; the next one waits for it to go. */
static void test_stream_listen(void **state)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	char dir[] = "/tmp/viodev-net-XXXXXX", text[160];
	uint8_t buf[64] = { 0, 0, 0, 60 };
	int fd, next;

	assert_non_null(mkdtemp(dir));
	snprintf(sun.sun_path, sizeof(sun.sun_path), "%s/s", dir);
	snprintf(text, sizeof(text), "net,backend=stream,path=%s,listen=on",
		 sun.sun_path);
	for (int again = 0; again < 2; again++) { /* over what is left of it */
		must_open(text);
		assert_true(be->down);
		assert_int_equal(send_to(0, frame, 60), -ENOTCONN);
		assert_int_equal(receive(0, 60), -EAGAIN);
		be->ops->watch(be, 0, true);

		fd = connect_to(&sun);
		assert_true(got.link);
		assert_int_equal(send_to(0, frame, 60), 0);
		assert_int_equal(read(fd, buf, sizeof(buf)), 64);
		assert_int_equal(write(fd, buf, 64), 64);
		iterate();
		assert_int_equal(got.nr, 1);

		/* It goes in the middle of a frame, and with one unread. */
		assert_int_equal(write(fd, buf, 30), 30);
		while (send_to(0, frame, 60000) == 0)
			;
		next = connect_to(&sun);
		assert_int_equal(got.nr_writable, 0);
		close(fd);
		iterate();
		iterate();
		assert_true(got.link);
		assert_int_equal(got.nr_links, 3);
		assert_true(got.nr_writable > 0);
		assert_int_equal(write(next, buf, 64), 64);
		iterate();
		assert_int_equal(got.nr, 2);
		assert_int_equal(send_to(0, frame, 60), 0);
		assert_int_equal(read(next, buf, sizeof(buf)), 64);

		/* One that talks nonsense is no end of it either. */
		write_len(buf, 0);
		assert_int_equal(write(next, buf, 4), 4);
		iterate();
		assert_false(got.link);
		assert_int_equal(read(next, buf, sizeof(buf)), 0);
		close(next);
		next = connect_to(&sun);
		assert_true(got.link);
		close(next);
		close_be();
		write_len(buf, 60);
	}
	unlink(sun.sun_path);
	rmdir(dir);

	must_open("net,backend=stream,addr=127.0.0.1:0,listen=on");
	assert_true(be->down);
}

/* Without a descriptor for a peer the loop sleeps, and tries again. */
static void test_stream_no_descriptors(void **state)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	char dir[] = "/tmp/viodev-net-XXXXXX", text[160];
	int peer = socket(AF_UNIX, SOCK_STREAM, 0), first_free = dup(0);
	struct rlimit old, none;

	assert_non_null(mkdtemp(dir));
	snprintf(sun.sun_path, sizeof(sun.sun_path), "%s/s", dir);
	snprintf(text, sizeof(text), "net,backend=stream,path=%s,listen=on",
		 sun.sun_path);
	must_open(text);
	close(first_free);
	assert_int_equal(connect(peer, (struct sockaddr *)&sun, sizeof(sun)),
			 0);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	none = (struct rlimit){ (rlim_t)first_free, old.rlim_max };
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	assert_int_equal(vio_loop_iterate(loop, 1000), 1);
	assert_int_equal(vio_loop_iterate(loop, 0), 0);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
	while (!got.link)
		assert_true(vio_loop_iterate(loop, 10000) > 0);
	close(peer);
	unlink(sun.sun_path);
	rmdir(dir);
}

/*
 * --- Datagrams ---
 */

static void test_dgram(void **state)
{
	int fd = pair_up(SOCK_DGRAM);
	uint8_t buf[2000];
	unsigned sent = 0;

	assert_int_equal(send_to(0, frame, 1000), 0);
	assert_int_equal(read(fd, buf, sizeof(buf)), 1000);
	assert_memory_equal(buf, frame, 1000);
	assert_int_equal(write(fd, frame, 1500), 1500);
	iterate();
	assert_int_equal(got.len, 1500);
	assert_memory_equal(got.data, frame, 1500);
	be->ops->watch(be, 0, false);
	assert_int_equal(write(fd, frame, 1500), 1500);
	assert_int_equal(receive(0, 1499), 0);

	while (send_to(0, frame, 1500) == 0)
		sent++;
	while (sent--)
		assert_int_equal(read(fd, buf, sizeof(buf)), 1500);
	iterate();
	assert_int_equal(got.nr_writable, 1);
	close(fd);
	be->ops->watch(be, 0, true);
	iterate();
	assert_int_equal(vio_loop_iterate(loop, 0), 0);
}

/* Two that are each other's remote: whichever starts first. */
static void test_dgram_pair(void **state)
{
	char dir[] = "/tmp/viodev-net-XXXXXX", text[256];
	struct sockaddr_un a = { .sun_family = AF_UNIX }, b = a;
	int fd, ret = -ENOTCONN;
	struct err err;

	assert_non_null(mkdtemp(dir));
	snprintf(a.sun_path, sizeof(a.sun_path), "%s/a", dir);
	snprintf(b.sun_path, sizeof(b.sun_path), "%s/b", dir);
	for (int again = 0; again < 2; again++) { /* a's path is there then */
		snprintf(text, sizeof(text),
			 "net,backend=dgram,local=%s,remote=%s", a.sun_path,
			 b.sun_path);
		/* The thread of the one before has its socket for a moment. */
		for (int i = 0; i < 3000 && open_be(text, &err) < 0; i++)
			usleep(10000);
		assert_non_null(be);
		be->ops->watch(be, 0, true);
		assert_int_equal(send_to(0, frame, 60), -ENOTCONN);

		fd = socket(AF_UNIX, SOCK_DGRAM, 0);
		assert_int_equal(bind(fd, (struct sockaddr *)&b, sizeof(b)), 0);
		assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)),
				 0);
		for (int i = 0; i < 3000 && ret == -ENOTCONN; i++) {
			usleep(10000);
			ret = send_to(0, frame, 60);
		}
		assert_int_equal(ret, 0);
		assert_int_equal(read(fd, got.data, 100), 60);
		assert_int_equal(write(fd, frame, 77), 77);
		iterate();
		assert_int_equal(got.len, 77);

		/* The peer is restarted, and may be the first to speak. */
		close(fd);
		unlink(b.sun_path);
		fd = socket(AF_UNIX, SOCK_DGRAM, 0);
		assert_int_equal(bind(fd, (struct sockaddr *)&b, sizeof(b)), 0);
		ret = -1;
		for (int i = 0; i < 3000 && ret < 0; i++) {
			usleep(10000);
			ret = (int)sendto(fd, frame, 78, 0,
					  (struct sockaddr *)&a, sizeof(a));
		}
		assert_int_equal(ret, 78);
		iterate();
		assert_int_equal(got.len, 78);
		assert_int_equal(send_to(0, frame, 60), 0);
		assert_int_equal(read(fd, got.data, 100), 60);
		close(fd);
		unlink(b.sun_path);
		close_be();
		ret = -ENOTCONN;
	}
	unlink(a.sun_path);
	/* A file of that name is not ours to remove. */
	close(open(a.sun_path, O_CREAT | O_WRONLY, 0600));
	snprintf(text, sizeof(text), "net,backend=dgram,local=%s,remote=%s",
		 a.sun_path, b.sun_path);
	assert_true(open_be(text, &(struct err){ "" }) < 0);
	assert_int_equal(unlink(a.sun_path), 0);
	rmdir(dir);
}

/*
 * --- pcap ---
 */

static struct pcap *record(int take_fd)
{
	struct pcap *pcap;

	assert_int_equal(pcap_create(loop, take_fd, &pcap), 0);
	return pcap;
}

static void test_pcap(void **state)
{
	char path[] = "/tmp/viodev-pcap-XXXXXX";
	struct iovec iov[3] = { { frame, 10 },
				{ frame + 10, 30 },
				{ frame + 40, 100 } };
	uint32_t w[6 + 4];
	uint8_t data[60];
	struct pcap *pcap;
	int fd = mkstemp(path);

	for (int again = 0; again < 2; again++) { /* goes on, one header */
		pcap = record(dup(fd));
		assert_int_equal(pcap_write(pcap, iov, 3, 60), 0);
		pcap_destroy(pcap);
	}
	assert_int_equal(lseek(fd, 0, SEEK_END), 24 + 2 * (16 + 60));
	assert_int_equal(pread(fd, w, sizeof(w), 0), sizeof(w));
	assert_int_equal(w[0], 0xa1b23c4d);
	assert_int_equal(w[5], 1);
	assert_int_equal(w[8], 60);
	assert_int_equal(w[9], 60);
	assert_int_equal(pread(fd, data, 60, 40), 60);
	assert_memory_equal(data, frame, 60);
	close(fd);
	unlink(path);
	assert_int_equal(pcap_write(NULL, iov, 3, 60), 0);
}

/* A file that takes no more ends the record, not the device. */
static void test_pcap_full_disk(void **state)
{
	struct iovec iov = { frame, 60 };
	int fd = open("/dev/full", O_WRONLY), ret = 0;
	struct pcap *pcap;

	if (fd < 0)
		skip();
	pcap = record(fd);
	for (int i = 0; i < 3000 && ret == 0; i++) {
		ret = pcap_write(pcap, &iov, 1, 60);
		vio_loop_iterate(loop, 10);
	}
	assert_int_equal(ret, -ENOSPC);
	assert_int_equal(pcap_write(pcap, &iov, 1, 60), 0); /* said once */
	pcap_destroy(pcap);
}

/* A FIFO without a reader blocks nothing, neither now nor at the end. */
static void test_pcap_fifo(void **state)
{
	char path[64];
	struct iovec iov = { frame, 1000 };
	static uint8_t buf[3000 * 1016 + 25];
	size_t total = 0, whole;
	uint32_t len;
	struct pcap *pcap;
	int fd, reader;
	ssize_t n;

	snprintf(path, sizeof(path), "/tmp/viodev-fifo-%d", getpid());
	assert_int_equal(mkfifo(path, 0600), 0);
	fd = pcap_open(path);
	assert_true(fd >= 0);
	pcap = record(fd);
	for (int i = 0; i < 3000; i++) {
		assert_int_equal(pcap_write(pcap, &iov, 1, 1000), 0);
		vio_loop_iterate(loop, 0);
	}
	assert_true(pcap_dropped(pcap) > 0);

	/* What is in it are whole records, of the first frames. */
	reader = open(path, O_RDONLY | O_NONBLOCK);
	whole = 24 + (3000 - pcap_dropped(pcap)) * 1016;
	for (int i = 0; i < 3000 && total < whole; i++) {
		vio_loop_iterate(loop, 1);
		while ((n = read(reader, buf + total, whole + 1 - total)) > 0)
			total += (size_t)n;
	}
	assert_int_equal(total, whole);
	memcpy(&len, buf + 24 + 8, sizeof(len));
	assert_int_equal(len, 1000);
	assert_memory_equal(buf + total - 1000, frame, 1000);

	for (int i = 0; i < 3000; i++) /* it is stuck once more */
		assert_int_equal(pcap_write(pcap, &iov, 1, 1000), 0);
	pcap_destroy(pcap);
	close(reader);
	unlink(path);
}

#if HAVE_LIBSLIRP
/*
 * --- user ---
 */

static void wait_frames(unsigned nr)
{
	for (int i = 0; i < 3000 && got.nr < nr; i++)
		vio_loop_iterate(loop, 10);
	assert_true(got.nr >= nr);
}

static uint16_t ip_sum(const uint8_t *p, size_t len)
{
	uint32_t sum = 0;

	for (size_t i = 0; i < len; i += 2)
		sum += (uint32_t)p[i] << 8 | p[i + 1];
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)~sum;
}

/* An UDP frame from the guest; returns its length. */
static size_t make_udp(uint8_t *f, const char *src, const char *dst,
		       uint16_t sport, uint16_t dport, const void *data,
		       size_t len)
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

/* The offer, a BOOTP packet, to a guest that looks for an address. */
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

/* What net=, dns=, search= and bootfile= say, DHCP says. */
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
	/* libslirp 4.8 pads a frame to what Ethernet has at least. */
	assert_int_equal(got.data[16] << 8 | got.data[17], 20 + 8 + 5);
	assert_true(got.len == 47 || got.len == 60);
	for (ssize_t i = 47; i < got.len; i++)
		assert_int_equal(got.data[i], 0);

	/* While the guest takes nothing, its frames wait or are lost. */
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

/* Cut the datagram in @f at @at; returns the length of the second fragment. */
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

/* Debian 12's libslirp crashes on what this sends first. */
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

/* Make the checksum of a TCP segment right. */
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

/* A TCP segment of the guest to this machine; returns the frame's length. */
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

/* Before 4.9.2 libslirp would send what lies behind its buffer. */
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
 * Before 4.8 libslirp takes the head of its queue for a segment once 0 is the
 * next sequence number and its own side is closed.
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

/* Each would take libslirp a buffer of its own. */
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

/* libslirp looks at its timers here; the test stands in front of it. */
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

/* A guest that sends all the time does not put libslirp's timers off. */
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

	/* Nothing answers, so that nothing but its timers can wake it. */
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
 * libslirp keeps what it cannot deliver yet, so it must never have to ask
 * where an address is that it has got a frame from.
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

/* So many sockets and no more: one that was quiet goes for one that is new. */
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

/* What could not be made for want of descriptors does not count. */
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

/* Rules come and go while the guest runs; both families have the same port. */
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

/* A file of tftp= and, of the host's other files, none. */
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

	/* Which nobody writes to: opening it would take for ever. */
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

/* Connections from outside are as many as the guest's, and others wait. */
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

/* Frames that are no frames: libslirp is the one to cope. */
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

#endif /* HAVE_LIBSLIRP */

/*
 * --- tap, in a child with a network namespace of its own ---
 */

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
	got.only_ours = true; /* the kernel has something to say as well */
	got.len = 0;
	assert_int_equal(write(fd, frame, 500), 500);
	for (int i = 0; i < 300 && got.len != 500; i++)
		vio_loop_iterate(loop, 10);
	got.only_ours = false;
	assert_int_equal(got.len, 500);
	assert_memory_equal(got.data, frame, 500);
	close(fd);
}

#if HAVE_LIBSLIRP /* make_udp() is of its tests */

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

/* UFO: one datagram longer than the MTU, which the kernel takes whole. */
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

#else

static void tap_large_datagram(void)
{
}

#endif

static int open_tap(const char *name)
{
	struct ifreq ifr = { .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR |
					  IFF_MULTI_QUEUE };
	int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);

	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", name);
	assert_int_equal(ioctl(fd, TUNSETIFF, &ifr), 0);
	return fd;
}

/* Queues of one tap that were opened already, and of two. */
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

	/* Taken already, with another number of queues. */
	assert_true(open_be("net,backend=tap,ifname=lo", &err) < 0);
}

static bool make_macvtap_link(void)
{
	return system("ip link add link vio5 name vio7 type macvtap "
		      "mode bridge && ip link set vio7 up") == 0;
}

/* sysfs of this network namespace, which knows the number of the device. */
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

/* Iterates until the link is, without a driver that receives or sends. */
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

/* A process whose interface was deleted is replaced once that is back. */
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

/* So does one on a macvtap link, and the new link has the card's address. */
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

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_options),
		TEST(test_choices),
		TEST(test_null),
		TEST(test_echo),
		TEST(test_stream),
		TEST(test_stream_full),
		TEST(test_stream_hostile),
		TEST(test_stream_gone),
		TEST(test_stream_connect),
		TEST(test_stream_reconnect),
		TEST(test_stream_listen),
		TEST(test_stream_no_descriptors),
		TEST(test_dgram),
		TEST(test_dgram_pair),
		TEST(test_pcap),
		TEST(test_pcap_full_disk),
		TEST(test_pcap_fifo),
#if HAVE_LIBSLIRP
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
#endif
		TEST(test_tap),
		TEST(test_macvtap),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

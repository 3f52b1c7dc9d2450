/* SPDX-License-Identifier: BSD-2-Clause */
/* backend=stream, with the test as its peer. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "net_be_fixture.h"
#include "base/util.h"

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
	/* and many at once, even while there is no room. */
	got.full = true;
	for (int i = 0; i < 100; i++)
		assert_int_equal(write(fd, buf, 64), 64);
	iterate();
	assert_int_equal(got.nr, 1);
	got.full = false;
	be->ops->watch(be, 0, true);
	iterate();
	assert_int_equal(got.nr, 101);
	/* Longer than the room: dropped whole. */
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

/* Bytes from the network are not trusted either. */
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
	for (int unread = 0; unread < 2; unread++) { /* it disconnects */
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

/* A disconnection is noticed, driver or not; bytes sent before are not lost. */
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

/* The next listener at its address becomes its next peer. */
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

/* The link is up while there is a peer; the next one waits for its end. */
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
	for (int again = 0; again < 2; again++) { /* over the stale socket */
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

		/* It disconnects in mid-frame, with another frame unread. */
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

		/* A peer that sends invalid data does not end it either. */
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

/* Without a descriptor for a peer the loop sleeps, and retries. */
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_stream),         TEST(test_stream_full),
		TEST(test_stream_hostile), TEST(test_stream_gone),
		TEST(test_stream_connect), TEST(test_stream_reconnect),
		TEST(test_stream_listen),  TEST(test_stream_no_descriptors),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* backend=dgram, with the test as its peer. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "net_be_fixture.h"

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

/* Two that are each other's remote, in either order of start. */
static void test_dgram_pair(void **state)
{
	char dir[] = "/tmp/viodev-net-XXXXXX", text[256];
	struct sockaddr_un a = { .sun_family = AF_UNIX }, b = a;
	int fd, ret = -ENOTCONN;
	struct err err;

	assert_non_null(mkdtemp(dir));
	snprintf(a.sun_path, sizeof(a.sun_path), "%s/a", dir);
	snprintf(b.sun_path, sizeof(b.sun_path), "%s/b", dir);
	for (int again = 0; again < 2; again++) { /* a's path exists then */
		snprintf(text, sizeof(text),
			 "net,backend=dgram,local=%s,remote=%s", a.sun_path,
			 b.sun_path);
		/* The previous one's thread keeps its socket for a moment. */
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

		/* The peer is restarted, and may be the first to send. */
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
	/* A file of that name must not be removed. */
	close(open(a.sun_path, O_CREAT | O_WRONLY, 0600));
	snprintf(text, sizeof(text), "net,backend=dgram,local=%s,remote=%s",
		 a.sun_path, b.sun_path);
	assert_true(open_be(text, &(struct err){ "" }) < 0);
	assert_int_equal(unlink(a.sun_path), 0);
	rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_dgram),
		TEST(test_dgram_pair),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

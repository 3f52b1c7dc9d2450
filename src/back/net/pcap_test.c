/* SPDX-License-Identifier: BSD-2-Clause */
/* Recording frames. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "net_be_fixture.h"
#include "back/net/pcap.h"

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

	for (int again = 0; again < 2; again++) { /* continues, one header */
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

/* A full file ends the recording, not the device. */
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
	assert_int_equal(pcap_write(pcap, &iov, 1, 60), 0); /* reported once */
	pcap_destroy(pcap);
}

/* A FIFO without a reader does not block, neither now nor at the end. */
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

	/* It contains whole records, of the first frames. */
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

	for (int i = 0; i < 3000; i++) /* it is stuck again */
		assert_int_equal(pcap_write(pcap, &iov, 1, 1000), 0);
	pcap_destroy(pcap);
	close(reader);
	unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_pcap),
		TEST(test_pcap_full_disk),
		TEST(test_pcap_fifo),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

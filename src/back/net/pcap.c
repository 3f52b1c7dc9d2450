/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * There are two buffers: the loop fills one while the thread writes the other.
 */
#include "back/net/pcap.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <viodev/loop.h>

#include "back/net/net_be.h"
#include <viodev/iov.h>
#include "base/pool.h"

#define PCAP_MAGIC_NS      0xa1b23c4d
#define PCAP_LINK_ETHERNET 1
#define BUF_BYTES          (512u << 10)
#define END_MS             1000 /* to write the rest at the end */

/* Both in the host's byte order. */
struct pcap_file_hdr {
	uint32_t magic;
	uint16_t major, minor;
	int32_t zone;
	uint32_t accuracy;
	uint32_t max_len;
	uint32_t link;
};

struct pcap_frame_hdr {
	uint32_t sec, nsec;
	uint32_t len, orig_len;
};

struct pcap {
	int fd;
	struct pool *pool;
	struct pool_job job;
	bool writing; /* the job runs, and has the other buffer */
	bool failed;
	int error; /* of the job: 0 or -errno */
	uint64_t nr_dropped;
	unsigned filling; /* the loop's buffer */
	size_t len[2];
	uint8_t buf[2][BUF_BYTES];
};

/*
 * --- The thread ---
 */

static void write_buffer(void *arg, struct pool_job *job)
{
	struct pcap *pcap = arg;
	unsigned i = !pcap->filling;
	size_t done = 0;

	while (done < pcap->len[i]) {
		ssize_t n = write(pcap->fd, pcap->buf[i] + done,
				  pcap->len[i] - done);

		if (n < 0 && errno == EINTR)
			continue;
		/* Half a record would garble all that follow. */
		if (n <= 0) {
			pcap->error = n < 0 ? -errno : -EIO;
			return;
		}
		done += (size_t)n;
	}
}

/*
 * --- The loop ---
 */

static void start_writing(struct pcap *pcap)
{
	if (pcap->writing || pcap->error || !pcap->len[pcap->filling])
		return;
	pcap->filling = !pcap->filling;
	pcap->len[pcap->filling] = 0;
	pcap->writing = true;
	pool_start(pcap->pool, &pcap->job);
}

static void on_written(void *arg, struct pool_job *job)
{
	struct pcap *pcap = arg;

	pcap->writing = false;
	start_writing(pcap);
}

static bool has_room(const struct pcap *pcap, size_t len)
{
	return BUF_BYTES - pcap->len[pcap->filling] >= len;
}

static void append(struct pcap *pcap, const void *from, size_t len)
{
	size_t *used = &pcap->len[pcap->filling];

	memcpy(pcap->buf[pcap->filling] + *used, from, len);
	*used += len;
}

static void write_frame(struct pcap *pcap, const struct iovec *iov, int niov,
			size_t len)
{
	const struct vio_iov_cursor frame = { (struct iovec *)iov, niov };
	size_t *used = &pcap->len[pcap->filling];

	vio_iov_peek(&frame, pcap->buf[pcap->filling] + *used, len);
	*used += len;
}

int pcap_write(struct pcap *pcap, const struct iovec *iov, int niov, size_t len)
{
	struct pcap_frame_hdr hdr = {
		.len = (uint32_t)len,
		.orig_len = (uint32_t)len,
	};
	struct timespec now;

	if (!pcap || pcap->failed)
		return 0;
	if (!pcap->writing && pcap->error) {
		pcap->failed = true;
		return pcap->error;
	}
	if (!has_room(pcap, sizeof(hdr) + len)) {
		pcap->nr_dropped++;
		return 0;
	}
	clock_gettime(CLOCK_REALTIME, &now);
	hdr.sec = (uint32_t)now.tv_sec;
	hdr.nsec = (uint32_t)now.tv_nsec;
	append(pcap, &hdr, sizeof(hdr));
	write_frame(pcap, iov, niov, len);
	start_writing(pcap);
	return 0;
}

uint64_t pcap_dropped(const struct pcap *pcap)
{
	return pcap->nr_dropped;
}

/*
 * --- Life ---
 */

int pcap_open(const char *path)
{
	const int flags = O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC | O_NONBLOCK;
	int fd = open(path, O_WRONLY | flags, 0600);

	/* A FIFO without a reader: read it ourselves until it has one. */
	if (fd < 0 && errno == ENXIO)
		fd = open(path, O_RDWR | flags, 0600);
	if (fd < 0)
		return -errno;
	fcntl(fd, F_SETFL, O_APPEND); /* the thread may wait */
	return fd;
}

static void write_file_hdr(struct pcap *pcap)
{
	static const struct pcap_file_hdr hdr = {
		.magic = PCAP_MAGIC_NS,
		.major = 2,
		.minor = 4,
		.max_len = NET_MAX_FRAME,
		.link = PCAP_LINK_ETHERNET,
	};

	/* A pipe cannot seek: it is new. */
	if (lseek(pcap->fd, 0, SEEK_END) > 0)
		return;
	append(pcap, &hdr, sizeof(hdr));
	start_writing(pcap);
}

int pcap_create(struct vio_loop *loop, int take_fd, struct pcap **ret_pcap)
{
	static const struct pool_ops ops = {
		.run = write_buffer,
		.done = on_written,
	};
	struct pcap *pcap = calloc(1, sizeof(*pcap));
	int ret = pcap ? 0 : -ENOMEM;

	if (ret == 0)
		ret = pool_create(loop, 1, &ops, pcap, &pcap->pool);
	if (ret < 0) {
		free(pcap);
		return ret;
	}
	pcap->fd = take_fd;
	write_file_hdr(pcap);
	*ret_pcap = pcap;
	return 0;
}

void pcap_destroy(struct pcap *pcap)
{
	if (!pcap)
		return;
	/* A write may never end; then its memory stays allocated. */
	if (!pool_finish(pcap->pool, END_MS))
		return;
	close(pcap->fd);
	free(pcap);
}

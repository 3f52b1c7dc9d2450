/* SPDX-License-Identifier: BSD-2-Clause */
#include "back/net/pcap.h"

#include <errno.h>
#include <stdint.h>
#include <time.h>
#include <unistd.h>

#include "back/net/net_be.h"

#define PCAP_MAGIC_NS	  0xa1b23c4d
#define PCAP_LINK_ETHERNET 1

/* Both in the byte order of the machine that writes them. */
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

int pcap_init(struct pcap *pcap, int take_fd)
{
	static const struct pcap_file_hdr hdr = {
		.magic = PCAP_MAGIC_NS,
		.major = 2,
		.minor = 4,
		.max_len = NET_MAX_FRAME,
		.link = PCAP_LINK_ETHERNET,
	};

	pcap->fd = take_fd;
	/* A pipe has no end to seek to: it is new. */
	if (take_fd < 0 || lseek(take_fd, 0, SEEK_END) > 0)
		return 0;
	if (write(take_fd, &hdr, sizeof(hdr)) != sizeof(hdr)) {
		pcap_fini(pcap);
		return -EIO;
	}
	return 0;
}

void pcap_fini(struct pcap *pcap)
{
	if (pcap->fd >= 0)
		close(pcap->fd);
	pcap->fd = -1;
}

int pcap_write(struct pcap *pcap, const struct iovec *iov, int niov,
	       size_t len)
{
	struct iovec rec[NET_MAX_IOV + 1];
	struct pcap_frame_hdr hdr = {
		.len = (uint32_t)len,
		.orig_len = (uint32_t)len,
	};
	struct timespec now;
	ssize_t n;

	if (pcap->fd < 0)
		return 0;
	clock_gettime(CLOCK_REALTIME, &now);
	hdr.sec = (uint32_t)now.tv_sec;
	hdr.nsec = (uint32_t)now.tv_nsec;
	rec[0] = (struct iovec){ &hdr, sizeof(hdr) };
	niov = 1 + net_iov_head(rec + 1, iov, niov, len);

	/* Half a record would make nonsense of all that follow. */
	n = niov <= NET_MAX_IOV ? writev(pcap->fd, rec, niov) : -1;
	if (n == (ssize_t)(sizeof(hdr) + len))
		return 0;
	pcap_fini(pcap);
	return -EIO;
}

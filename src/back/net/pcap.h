/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A record of frames, in the format of libpcap (nanoseconds, Ethernet), as
 * tcpdump and Wireshark read it. What the frames' headers of virtio said is
 * not in it: checksums may be partial and segments long.
 */
#ifndef BACK_NET_PCAP_H
#define BACK_NET_PCAP_H

#include <sys/uio.h>

struct pcap {
	int fd; /* -1: nothing is recorded */
};

/*
 * Begin, or go on with a file that has records already. Returns 0 or -errno
 * and nothing will be recorded; @take_fd is closed then.
 */
int pcap_init(struct pcap *pcap, int take_fd);
void pcap_fini(struct pcap *pcap);

/*
 * Record the first @len bytes of a list, of at most NET_MAX_IOV entries.
 * Returns 0, or -errno when the file can take no more: it is closed.
 */
int pcap_write(struct pcap *pcap, const struct iovec *iov, int niov,
	       size_t len);

#endif

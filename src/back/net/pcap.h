/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A record of frames, in the format of libpcap (nanoseconds, Ethernet), as
 * tcpdump and Wireshark read it. What the frames' headers of virtio said is
 * not in it: checksums may be partial and segments long.
 *
 * A thread writes the file, so that a full pipe or a slow disk does not stop
 * the loop. Frames that arrive while the buffer is full are not recorded.
 */
#ifndef BACK_NET_PCAP_H
#define BACK_NET_PCAP_H

#include <stdint.h>
#include <sys/uio.h>

struct vio_loop;
struct pcap;

/* Open a file, new or emptied, or a FIFO. Returns a descriptor or -errno. */
int pcap_open(const char *path);

/*
 * Begin, or go on with a file that has records already. Returns 0 or -errno;
 * takes ownership of @take_fd on success.
 */
int pcap_create(struct vio_loop *loop, int take_fd, struct pcap **ret_pcap);

/* Writes what is buffered, but waits only for a moment. NULL is fine. */
void pcap_destroy(struct pcap *pcap);

/*
 * Record the first @len bytes of a list, of at most NET_MAX_IOV entries.
 * Returns 0, or -errno once when the file can take no more.
 */
int pcap_write(struct pcap *pcap, const struct iovec *iov, int niov,
	       size_t len);

/* Frames that are missing from the record. */
uint64_t pcap_dropped(const struct pcap *pcap);

#endif

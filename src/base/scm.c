/* SPDX-License-Identifier: BSD-2-Clause */
/* Descriptors that travel with a message. See scm.h. */
#include <string.h>
#include <unistd.h>

#include "base/scm.h"

void scm_attach(struct msghdr *msg, union scm *scm, const int *fds, unsigned nr)
{
	size_t bytes = nr * sizeof(*fds);

	memset(scm, 0, sizeof(*scm));
	scm->hdr = (struct cmsghdr){
		.cmsg_len = CMSG_LEN(bytes),
		.cmsg_level = SOL_SOCKET,
		.cmsg_type = SCM_RIGHTS,
	};
	memcpy(CMSG_DATA(&scm->hdr), fds, bytes);
	msg->msg_control = scm->buf;
	msg->msg_controllen = CMSG_SPACE(bytes);
}

bool scm_take(struct msghdr *msg, int *fds, unsigned *nr, unsigned max)
{
	bool fit = true;

	for (struct cmsghdr *h = CMSG_FIRSTHDR(msg); h;
	     h = CMSG_NXTHDR(msg, h)) {
		size_t nr_came = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < nr_came; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(h) + i * sizeof(fd), sizeof(fd));
			if (*nr < max) {
				fds[(*nr)++] = fd;
			} else {
				close(fd);
				fit = false;
			}
		}
	}
	return fit;
}

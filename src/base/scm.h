/* SPDX-License-Identifier: BSD-2-Clause */
/* Descriptors that travel with a message on a UNIX socket, unix(7). */
#ifndef BASE_SCM_H
#define BASE_SCM_H

#include <string.h>
#include <sys/socket.h>

#define SCM_MAX_FDS 4 /* with a message that is sent */

union scm {
	struct cmsghdr hdr;
	char buf[CMSG_SPACE(SCM_MAX_FDS * sizeof(int))];
};

/* Have @msg take along @nr descriptors, 1 to SCM_MAX_FDS, by way of @scm. */
static inline void scm_attach(struct msghdr *msg, union scm *scm,
			      const int *fds, unsigned nr)
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

#endif

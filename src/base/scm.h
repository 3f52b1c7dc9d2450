/* SPDX-License-Identifier: BSD-2-Clause */
/* Descriptors that travel with a message on a UNIX socket, unix(7). */
#ifndef BASE_SCM_H
#define BASE_SCM_H

#include <stdbool.h>
#include <sys/socket.h>

#define SCM_MAX_FDS 18 /* with a message that is sent */

union scm {
	struct cmsghdr hdr;
	char buf[CMSG_SPACE(SCM_MAX_FDS * sizeof(int))];
};

/* Attach @nr descriptors, 1 to SCM_MAX_FDS, to @msg; @scm holds them. */
void scm_attach(struct msghdr *msg, union scm *scm, const int *fds,
		unsigned nr);

/* Room for all of a message: the kernel's limit, and credentials. */
union scm_room {
	struct cmsghdr hdr;
	char buf[CMSG_SPACE(253 * sizeof(int)) + CMSG_SPACE(12)];
};

/*
 * Append the descriptors that came with @msg to @fds, which holds *@nr of at
 * most @max. False: there were more, which are closed.
 */
bool scm_take(struct msghdr *msg, int *fds, unsigned *nr, unsigned max);

#endif

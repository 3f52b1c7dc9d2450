/* SPDX-License-Identifier: BSD-2-Clause */
#include "viodev/output.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "viodev/log.h"

int output_flush(void)
{
	int ret = 0;

	errno = EIO; /* an earlier write failed, its errno is lost */
	if (fflush(stdout) != 0 || ferror(stdout))
		ret = -errno;
	if (ret < 0)
		log_line(LOG_ERR, "standard output: %s: lines lost",
			 strerror(-ret));
	clearerr(stdout);
	return ret;
}

/* A pipe that is ready takes 4 KiB. */
bool output_has_room(void)
{
	struct pollfd pfd = { .fd = STDOUT_FILENO, .events = POLLOUT };

	return poll(&pfd, 1, 0) != 0; /* errors are write()'s to find */
}

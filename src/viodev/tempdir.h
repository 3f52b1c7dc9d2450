/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A private directory that is gone afterwards, even when this process is
 * killed: a small process of its own waits for our end, whatever its cause,
 * and removes it.
 */
#ifndef VIODEV_TEMPDIR_H
#define VIODEV_TEMPDIR_H

#include <sys/types.h>

struct tempdir {
	char path[96];
	int alive_fd; /* its closing, by us or by the kernel, tells our end */
	pid_t keeper;
};

/* 0 or -errno. */
int tempdir_create(struct tempdir *dir);

/* Returns when all is removed. */
void tempdir_destroy(struct tempdir *dir);

#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/* The directory that sockets are in. */
#ifndef VIODEV_SOCKDIR_H
#define VIODEV_SOCKDIR_H

#include "base/err.h"

/*
 * Create the directory if missing. Another user who owns it or may write
 * to it could put a socket of their own where a front-end expects ours: such a
 * directory is refused. 0, or -errno with the reason.
 */
int sockdir_make(const char *path, struct err *err);

#endif

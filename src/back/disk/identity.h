/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What an image is, by whichever path it is opened: the source of default
 * serial numbers and world wide names. Two images that differ on one host must
 * never have the same, or a guest's multipath driver joins them.
 */
#ifndef BACK_DISK_IDENTITY_H
#define BACK_DISK_IDENTITY_H

#include <stdint.h>

struct disk_params;

/*
 * A descriptor that holds the name which a block device has itself, such as its
 * WWID; it needs the path. -errno if the image has none.
 */
int disk_open_name(const struct disk_params *params);

/*
 * The identity of the image behind @fd. @name_fd is a descriptor of
 * disk_open_name(), or -1; both stay the caller's.
 */
uint64_t disk_identity(int fd, int name_fd);

#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What an image is, by whichever path it is opened: the source of default
 * serial numbers and world wide names. Two images that differ on one host must
 * never have the same, or a guest's multipath driver joins them.
 */
#ifndef BACK_DISK_IDENTITY_H
#define BACK_DISK_IDENTITY_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

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

/*
 * For disk_open_name(), which passes "/sys" as @sysfs: the name of a block
 * device, or of a partition's disk with the partition's number. False if it has
 * none.
 */
bool disk_find_name(const char *sysfs, dev_t dev, char *name, size_t size);

#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Image formats that are not raw, by their magic numbers. A raw disk's bytes
 * are the guest's, so a match is a reason to ask the user, never to interpret
 * the image.
 */
#ifndef BACK_DISK_FORMAT_H
#define BACK_DISK_FORMAT_H

#include <stdint.h>

/*
 * What the image of @bytes behind @fd looks like, "qcow2", or NULL. It may be
 * open with O_DIRECT. Waits for the medium.
 */
const char *disk_format(int fd, uint64_t bytes);

#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A number for a device that needs a name of its own, such as a MAC address: the
 * same when the device is started again, another one for another device or
 * host. It is made from the host's machine id and
 *
 *	serve	the path of the device's socket
 *	run	the devices on the command line and the working directory, where
 *		the sockets are temporary
 */
#ifndef VIODEV_IDENTITY_H
#define VIODEV_IDENTITY_H

#include <stdint.h>

struct cmdline;
struct instance;

uint64_t identity_of(const struct instance *inst, const struct cmdline *line);

#endif

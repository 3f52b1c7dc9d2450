/* SPDX-License-Identifier: BSD-2-Clause */
/* Another process goes on with a device: vc_save and vc_load, watched. */
#ifndef TESTS_LIB_MOVED_H
#define TESTS_LIB_MOVED_H

#include <viodev/virtio.h>

#define MOVED_MAX 32768 /* bytes, as the vhost-user server has them */

/* As the device returns; a byte read or written too far is an error. */
ssize_t moved_save(struct virtio_softc *vs, void *buf, size_t room);
int moved_load(struct virtio_softc *vs, const void *state, size_t len);

/* For fuzzers: load what was saved, or nearly so, as @s has it (6 bytes). */
void moved_fuzz(struct virtio_softc *vs, const uint8_t *s);

#endif

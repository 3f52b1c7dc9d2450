/* SPDX-License-Identifier: BSD-2-Clause */
/* A device that continues in another process: vc_save and vc_load, checked. */
#ifndef TESTS_LIB_MOVED_H
#define TESTS_LIB_MOVED_H

#include <viodev/virtio.h>

#define MOVED_MAX 32768 /* bytes, as the vhost-user server has them */

/* Return what the device returns; an access beyond the buffer is an error. */
ssize_t moved_save(struct virtio_softc *vs, void *buf, size_t room);
int moved_load(struct virtio_softc *vs, const void *state, size_t len);

/* The state that a device saved. */
struct moved {
	uint8_t bytes[MOVED_MAX];
	size_t len;
};

void moved_take(struct moved *m, struct virtio_softc *vs);

/* The device must save this state; must need more room than @room. */
void moved_expect(struct virtio_softc *vs, const struct moved *m);
void moved_expect_no_room(struct virtio_softc *vs, size_t room);

/*
 * Load a state that the device must refuse without adopting any of it. Returns
 * its error.
 */
int moved_refuse(struct virtio_softc *vs, const void *state, size_t len);

/* For fuzzers: load what was saved, altered as @s says (6 bytes). */
void moved_fuzz(struct virtio_softc *vs, const uint8_t *s);

#endif

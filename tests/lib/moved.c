/* SPDX-License-Identifier: BSD-2-Clause */
#include "moved.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

ssize_t moved_save(struct virtio_softc *vs, void *buf, size_t room)
{
	uint8_t *exact = malloc(room ? room : 1);
	ssize_t len = vs->vs_vc->vc_save(vs, exact, room);

	if (len > 0)
		memcpy(buf, exact, (size_t)len);
	free(exact);
	return len;
}

int moved_load(struct virtio_softc *vs, const void *state, size_t len)
{
	uint8_t *exact = malloc(len ? len : 1);
	int ret;

	memcpy(exact, state, len);
	ret = vs->vs_vc->vc_load(vs, exact, len);
	free(exact);
	return ret;
}

void moved_take(struct moved *m, struct virtio_softc *vs)
{
	ssize_t len = moved_save(vs, m->bytes, sizeof(m->bytes));

	assert_true(len > 0);
	m->len = (size_t)len;
}

void moved_expect(struct virtio_softc *vs, const struct moved *m)
{
	struct moved now;

	moved_take(&now, vs);
	assert_int_equal(now.len, m->len);
	assert_memory_equal(now.bytes, m->bytes, m->len);
}

void moved_expect_no_room(struct virtio_softc *vs, size_t room)
{
	assert_int_equal(moved_save(vs, NULL, room), -ENOSPC);
}

int moved_refuse(struct virtio_softc *vs, const void *state, size_t len)
{
	struct moved before;
	int ret;

	moved_take(&before, vs);
	ret = moved_load(vs, state, len);
	assert_true(ret < 0);
	moved_expect(vs, &before);
	return ret;
}

void moved_fuzz(struct virtio_softc *vs, const uint8_t *s)
{
	static uint8_t state[MOVED_MAX];
	ssize_t len = moved_save(vs, state, sizeof(state));

	if (len < 0)
		abort();
	state[(s[2] << 8 | s[3]) % len] ^= s[4];
	moved_load(vs, state, (size_t)len - (s[5] & 1));
	if (moved_save(vs, state, sizeof(state)) < 0)
		abort();
}

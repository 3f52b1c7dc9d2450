/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzz target: a device's state from another process, by way of a front-end:
 * saved state, slightly changed, or arbitrary bytes. The device rejects it or
 * continues with it: then it can be driven, and saves the same state again.
 */
#include <stdlib.h>
#include <string.h>

#include "dev/vdev.h"
#include "fuzz_dev.h"
#include "moved.h"

#define MAX_TYPES 8u

static struct fuzz_dev devs[MAX_TYPES];
static unsigned nr_devs;

static void setup(void)
{
	for (unsigned i = 0; fuzz_dev_type(i); i++) {
		struct fuzz_dev *v = &devs[nr_devs];

		fuzz_dev_make_type(v, VDRV_MODERN, i);
		if (v->dev->vs->vs_vc->vc_save)
			nr_devs++;
		else
			fuzz_dev_fini(v);
	}
}

/* A device fresh from negotiation. */
static bool begin(struct fuzz_dev *v, uint64_t without)
{
	struct vdrv *d = &v->d;

	vdrv_probe(d);
	vdrv_reset(d);
	d->next_free = v->rings;
	vdrv_greet(d);
	return vdrv_negotiate(d, vdrv_offer(d) & ~without);
}

static size_t change(struct fuzz_in *in, uint8_t *state, size_t len)
{
	unsigned nr = fuzz_choice(in, 8);

	if (fuzz_one_in(in, 4)) {
		len = fuzz_choice(in, 4096);
		fuzz_bytes(in, state, len);
		return len;
	}
	for (; nr > 0 && len > 0; nr--)
		state[fuzz_choice(in, (unsigned)len)] =
			(uint8_t)fuzz_int(in, 1);
	if (fuzz_one_in(in, 4))
		len -= len < 8 ? len : fuzz_choice(in, 8);
	return len;
}

/* What was accepted is saved as it was loaded; twice gives the same. */
static void check_save(struct virtio_softc *vs)
{
	static uint8_t once[MOVED_MAX], twice[MOVED_MAX];
	ssize_t len = moved_save(vs, once, sizeof(once));

	fuzz_must(len > 0);
	fuzz_must(moved_load(vs, once, (size_t)len) == 0);
	fuzz_must(moved_save(vs, twice, sizeof(twice)) == len);
	fuzz_must(memcmp(once, twice, (size_t)len) == 0);
}

static void drive(struct fuzz_dev *v, struct fuzz_in *in)
{
	while (fuzz_more(in)) {
		unsigned q = fuzz_choice(in, v->nr_queues);

		switch (fuzz_choice(in, 6)) {
		case 0:
		case 1:
			fuzz_dev_desc(v, q, in);
			break;
		case 2:
			fuzz_dev_bytes(v, in);
			break;
		case 3:
			fuzz_dev_config(v, in);
			break;
		default:
			fuzz_dev_avail(v, q, in);
			fuzz_dev_kick(v, q);
			break;
		}
	}
}

static void run(struct fuzz_in *in)
{
	static uint8_t state[MOVED_MAX];
	struct fuzz_dev *v = &devs[fuzz_choice(in, nr_devs)];
	struct virtio_softc *vs = v->dev->vs;
	uint64_t without = fuzz_bool(in) ? VI_BIT(fuzz_choice(in, 32)) : 0;
	ssize_t len;

	if (!begin(v, without)) {
		fuzz_dev_end(v);
		return;
	}
	len = moved_save(vs, state, sizeof(state));
	fuzz_must(len > 0);
	len = (ssize_t)change(in, state, (size_t)len);
	if (moved_load(vs, state, (size_t)len) == 0) {
		check_save(vs);
		v->nr_queues = 2;
		for (unsigned q = 0; q < v->nr_queues; q++)
			vdrv_queue_setup(&v->d, q, 0);
		vdrv_driver_ok(&v->d);
		drive(v, in);
		fuzz_must(moved_save(vs, state, sizeof(state)) > 0);
	}
	fuzz_dev_end(v);
}

const struct fuzz_target fuzz_target = { .setup = setup, .run = run };

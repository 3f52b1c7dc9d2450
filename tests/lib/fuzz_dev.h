/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the fuzz targets of devices share: a device that is created once and
 * kept, a driver that behaves well up to DRIVER_OK, and guest memory to play
 * in. Rings and memory are separate regions between inaccessible pages.
 *
 *	static struct fuzz_dev kinds[2];
 *
 *	setup:	fuzz_dev_make(&kinds[0], VDRV_MODERN, "rng,queue-size=16");
 *	run:	fuzz_dev_start(v, ~0ull, 1);
 *		while (fuzz_more(in))
 *			... fuzz_dev_desc(v, 0, in); ...
 *		fuzz_dev_end(v);
 */
#ifndef TESTS_LIB_FUZZ_DEV_H
#define TESTS_LIB_FUZZ_DEV_H

#include <viodev/device.h>
#include <viodev/loop.h>

#include "fuzz.h"
#include "vdrv.h"

#define FUZZ_AREA (64u << 10) /* bytes of guest memory that is played in */

#define FUZZ_MAX_PIECES 20u

/* A region of guest memory that disorder has taken away, or changed. */
struct fuzz_piece {
	uint64_t gpa, len;
	bool removed, changed;
};

struct fuzz_dev {
	struct vdrv d;
	struct vdev *dev;
	uint64_t area;      /* its guest address */
	unsigned nr_queues; /* that fuzz_dev_start() set up */
	uint64_t rings;     /* where they begin */

	bool forbidden; /* the device must not access memory, and cannot */

	/* Disorder: the input, from when there was some; the memory. */
	struct fuzz_in *in;
	struct fuzz_piece pieces[FUZZ_MAX_PIECES];
	unsigned nr_pieces;
};

/* The loop of all devices. */
struct vio_loop *fuzz_loop(void);

/*
 * The driver and its memory, for a target that builds the device itself (on
 * v->d.pi, on fuzz_loop()); or with a device, as the command line names it.
 */
void fuzz_dev_init(struct fuzz_dev *v, enum vdrv_mode mode);
void fuzz_dev_make(struct fuzz_dev *v, enum vdrv_mode mode, const char *text);

/*
 * One of each type, on backends of its own that nothing else uses: files in
 * memory, socket pairs, no network. The name of a type, NULL behind the last.
 */
const char *fuzz_dev_type(unsigned type);
void fuzz_dev_make_type(struct fuzz_dev *v, enum vdrv_mode mode, unsigned type);
void fuzz_dev_fini(struct fuzz_dev *v);

/* Set up to DRIVER_OK, if the device accepts it, with a clean area. */
void fuzz_dev_start(struct fuzz_dev *v, uint64_t features, unsigned nr_queues);

/* Reset again, in the middle. */
void fuzz_dev_restart(struct fuzz_dev *v, uint64_t features);

/* Reset, and wait for what is in flight: the device is as good as new. */
void fuzz_dev_end(struct fuzz_dev *v);

/* @len bytes of the area from @off on; cut where it ends. */
void *fuzz_dev_ptr(struct fuzz_dev *v, size_t off, size_t len);

/*
 * Steps for every device: write a descriptor, which mostly points into the
 * area; make a head available; change bytes of the area; kick.
 */
void fuzz_dev_desc(struct fuzz_dev *v, unsigned q, struct fuzz_in *in);
void fuzz_dev_avail(struct fuzz_dev *v, unsigned q, struct fuzz_in *in);
void fuzz_dev_bytes(struct fuzz_dev *v, struct fuzz_in *in);
void fuzz_dev_kick(struct fuzz_dev *v, unsigned q);

/* Read and write device configuration. */
void fuzz_dev_config(struct fuzz_dev *v, struct fuzz_in *in);

/*
 * The target's next step, below @n. About 1 in 32 is a step of disorder
 * instead, which is done here: @n. A device that is broken cannot reach guest
 * memory during a step.
 */
unsigned fuzz_dev_next(struct fuzz_dev *v, unsigned n, struct fuzz_in *in);

/*
 * What drivers, front-ends and embedders do, in any order. From then on the
 * rings may hold anything, which v->in records. fuzz_dev_order() restores
 * memory once nothing is in flight.
 */
void fuzz_dev_disorder(struct fuzz_dev *v, struct fuzz_in *in);
void fuzz_dev_order(struct fuzz_dev *v);

/* How many chains of a queue the device holds, which a driver cannot know. */
unsigned fuzz_dev_inflight(struct fuzz_dev *v, unsigned q);

/* An iteration of the loop that does not wait. */
void fuzz_dev_iterate(void);

#endif

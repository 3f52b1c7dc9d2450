/* SPDX-License-Identifier: BSD-2-Clause */
/* For tests of the input device: the events that the pretend driver receives. */
#ifndef TESTS_LIB_INPUT_EVENTS_H
#define TESTS_LIB_INPUT_EVENTS_H

#include <stdbool.h>
#include <stdint.h>

#include "vdrv.h"

/*
 * Event buffers lie in an area, one slot by descriptor: an event has 8 bytes,
 * and the rest shows whether the device writes more.
 */
#define INPUT_SLOT_BYTES 16u

/* The next event, if there is one. */
bool input_next_event(struct vdrv *d, uint64_t area, unsigned *ret_type,
		      unsigned *ret_code, int *ret_value);

/* Fails unless the next event is this one. */
void input_expect(struct vdrv *d, uint64_t area, unsigned type, unsigned code,
		  int value);

/* Fails if there is an event. */
void input_expect_none(struct vdrv *d, uint64_t area);

#endif

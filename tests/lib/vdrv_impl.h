/* SPDX-License-Identifier: BSD-2-Clause */
/* What the files of the pretend driver share. Not installed. */
#ifndef TESTS_LIB_VDRV_IMPL_H
#define TESTS_LIB_VDRV_IMPL_H

#include "vdrv.h"

/* A mistake of the test itself, or a device that breaks its word. */
__attribute__((format(printf, 1, 2), noreturn)) void vdrv_die(const char *fmt,
							      ...);

/* A queue that is set up. */
struct vdrv_queue *vdrv_queue(struct vdrv *d, unsigned q);

/* Take an id off the free list, and put it back. */
uint16_t vdrv_take_id(struct vdrv_queue *vq);
void vdrv_put_id(struct vdrv_queue *vq, uint16_t id);

/* Room for an indirect table of @nr entries, which stays @id's. */
uint64_t vdrv_table(struct vdrv *d, struct vdrv_queue *vq, uint16_t id,
		    unsigned nr);

uint64_t vdrv_writable(const struct vdrv_buf *bufs, unsigned nr);
uint16_t vdrv_desc_flags(const struct vdrv_buf *b);

/*
 * --- vdrv_packed.c: what vdrv.c does for split rings ---
 */

void vdrv_packed_books(struct vdrv_queue *vq);
uint16_t vdrv_packed_add(struct vdrv *d, unsigned q,
			 const struct vdrv_buf *bufs, unsigned nr);
uint16_t vdrv_packed_add_indirect(struct vdrv *d, unsigned q,
				  const struct vdrv_buf *bufs, unsigned nr);
bool vdrv_packed_kick_wanted(struct vdrv *d, unsigned q);
void vdrv_packed_want_intr(struct vdrv *d, unsigned q, bool on);
bool vdrv_packed_used(struct vdrv *d, unsigned q, struct vdrv_used *ret_used);

#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A 9P client for tests: it talks to the device through the pretend driver,
 * about a directory created for the test. Beside the export lies a file that
 * must not be reachable.
 *
 *	p9c_start(&c, VDRV_MODERN, "");
 *	assert_int_equal(p9c_call(&c, P9_TGETATTR, "dq", fid, mask), 0);
 *	mask = p9_decode64(&c.in);
 *
 * Formats: b w d q numbers of 1, 2, 4, 8 bytes; s string; n string with its
 * length given first, for strings that are none; r raw bytes, likewise.
 */
#ifndef TESTS_LIB_P9_CLIENT_H
#define TESTS_LIB_P9_CLIENT_H

#include <viodev/loop.h>

#include "dev/p9/pdu.h"
#include "dev/vdev.h"
#include "vdrv.h"

#define P9C_SLOTS  72
#define P9C_BYTES  (64u << 10)
#define P9C_ROOT   0u        /* the fid that p9c_mount() attaches */
#define P9C_ALL    0x3fffull /* of Tgetattr */
#define P9C_SECRET "not for the guest"

struct p9c_slot {
	uint64_t t_gpa, r_gpa;
	uint16_t head;
	bool busy;
	uint32_t used;
};

struct p9c {
	struct vdrv d;
	struct vio_loop *loop;
	struct vdev *dev;
	char dir[64];  /* of the test: has "export" and "secret" */
	char root[80]; /* the export */
	struct p9c_slot slots[P9C_SLOTS];
	struct p9_in in; /* body of the last reply */
	uint8_t reply[P9C_BYTES];
	uint32_t t_cut, r_cut; /* size of each descriptor, 0: one */
	uint32_t room;         /* for the reply, 0: all there is */
	uint32_t used;         /* of the last call */
	uint16_t next_tag;
};

/* The device, the driver, no session; then Tversion and Tattach. */
void p9c_create(struct p9c *c, enum vdrv_mode mode, const char *options);
void p9c_start(struct p9c *c, enum vdrv_mode mode, const char *options);
void p9c_mount(struct p9c *c, uint32_t msize);
void p9c_destroy(struct p9c *c); /* may be called twice */

/* Send a request and wait for its reply: 0 or the -errno of Rlerror. */
int p9c_call(struct p9c *c, uint8_t type, const char *fmt, ...);

/* Send raw bytes; -1000 when the chain came back without a reply. */
int p9c_raw(struct p9c *c, const void *msg, uint32_t len);
#define P9C_NO_REPLY (-1000)

/* Begin a request without kick; then wait for it: as p9c_call(). */
unsigned p9c_send(struct p9c *c, uint16_t tag, uint8_t type, const char *fmt,
		  ...);
int p9c_wait(struct p9c *c, unsigned slot);
void p9c_poll(struct p9c *c); /* take what is used */

/* Iterate the loop @nr times, up to 1 ms each. */
void p9c_iterate(struct p9c *c, unsigned nr);

/* Helpers: 0 or -errno. */
int p9c_walk(struct p9c *c, uint32_t fid, uint32_t newfid, const char *name);
int p9c_open(struct p9c *c, uint32_t fid, uint32_t flags);
int p9c_clunk(struct p9c *c, uint32_t fid);
/* A new file in the root, open for reading and writing. */
int p9c_make(struct p9c *c, uint32_t newfid, const char *name);
/* Bytes read, which are in c->in, or written; or -errno. */
int p9c_read(struct p9c *c, uint32_t fid, uint64_t off, uint32_t count);
int p9c_write(struct p9c *c, uint32_t fid, uint64_t off, const void *p,
	      uint32_t len);

/* Of Tgetattr; Tsetattr with the same id, and the same time, for both. */
struct p9c_attr {
	uint64_t valid;
	struct p9_qid qid;
	uint32_t mode, uid, gid;
	uint64_t nlink, rdev, size, blksize, blocks;
	struct timespec atime, mtime, ctime, btime;
};
int p9c_getattr(struct p9c *c, uint32_t fid, struct p9c_attr *ret_attr);
int p9c_setattr(struct p9c *c, uint32_t fid, uint32_t valid, uint32_t mode,
		uint32_t id, uint64_t size, uint64_t sec, uint64_t nsec);

/* A file of the host in the export. */
void p9c_host_file(struct p9c *c, const char *name, const char *text);

struct p9_qid p9c_qid(struct p9c *c); /* take one off c->in */

/* A path in the export, as the host sees it. */
const char *p9c_path(struct p9c *c, const char *name);

#endif

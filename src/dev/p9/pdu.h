/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * 9P2000.L messages as bytes: numbers are little-endian and lie anywhere, a
 * string is its length in two bytes and then its bytes.
 *
 * Both directions fail softly and remember it: after the first field that is
 * not there the rest reads as zero, after the first that does not fit nothing
 * more is put. Whoever is done looks at the error once.
 */
#ifndef P9_PDU_H
#define P9_PDU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/out.h"

#define P9_NOTAG 0xffffu
#define P9_NOFID 0xffffffffu
#define P9_NOUID 0xffffffffu

#define P9_HEADER     7u  /* size[4] type[1] tag[2] */
#define P9_IO_HEADER  11u /* of Rread and Rreaddir, before the data */
#define P9_RLERROR_SZ 11u
#define P9_TWRITE_SZ  23u /* of Twrite, before the data */
#define P9_QID_SZ     13u
#define P9_MAX_WALK   16u
#define P9_NAME_MAX   255u

enum p9_type { /* of requests; a reply's is one more */
	       P9_RLERROR = 7,
	       P9_TSTATFS = 8,
	       P9_TLOPEN = 12,
	       P9_TLCREATE = 14,
	       P9_TSYMLINK = 16,
	       P9_TMKNOD = 18,
	       P9_TRENAME = 20,
	       P9_TREADLINK = 22,
	       P9_TGETATTR = 24,
	       P9_TSETATTR = 26,
	       P9_TXATTRWALK = 30,
	       P9_TXATTRCREATE = 32,
	       P9_TREADDIR = 40,
	       P9_TFSYNC = 50,
	       P9_TLOCK = 52,
	       P9_TGETLOCK = 54,
	       P9_TLINK = 70,
	       P9_TMKDIR = 72,
	       P9_TRENAMEAT = 74,
	       P9_TUNLINKAT = 76,
	       P9_TVERSION = 100,
	       P9_TAUTH = 102,
	       P9_TATTACH = 104,
	       P9_TFLUSH = 108,
	       P9_TWALK = 110,
	       P9_TREAD = 116,
	       P9_TWRITE = 118,
	       P9_TCLUNK = 120,
	       P9_TREMOVE = 122,
};

enum { /* qid.type */
       P9_QTDIR = 0x80,
       P9_QTSYMLINK = 0x02,
       P9_QTFILE = 0x00,
};

enum { /* flags of Tlopen and Tlcreate: Linux's for x86, on every host */
       P9_O_ACCMODE = 03,
       P9_O_EXCL = 0200,
       P9_O_TRUNC = 01000,
       P9_O_APPEND = 02000,
       P9_O_DSYNC = 010000,
       P9_O_DIRECTORY = 0200000,
       P9_O_SYNC = 04000000,
};

enum { /* Tgetattr's mask */
       P9_GETATTR_BASIC = 0x7ff,
       P9_GETATTR_BTIME = 0x800,
};

enum { /* Tsetattr's */
       P9_SETATTR_MODE = 0x1,
       P9_SETATTR_UID = 0x2,
       P9_SETATTR_GID = 0x4,
       P9_SETATTR_SIZE = 0x8,
       P9_SETATTR_ATIME = 0x10,
       P9_SETATTR_MTIME = 0x20,
       P9_SETATTR_CTIME = 0x40,
       P9_SETATTR_ATIME_SET = 0x80,
       P9_SETATTR_MTIME_SET = 0x100,
};

enum { /* Tlock and Tgetlock */
       P9_LOCK_RDLCK = 0,
       P9_LOCK_WRLCK = 1,
       P9_LOCK_UNLCK = 2,
       P9_LOCK_SUCCESS = 0,
       P9_LOCK_BLOCKED = 1,
       P9_LOCK_ERROR = 2,
       P9_LOCK_FLAGS_BLOCK = 1,
};

#define P9_UNLINK_DIR 0x200u

struct p9_qid {
	uint8_t type;
	uint32_t version;
	uint64_t path;
};

/*
 * What is left of a request. Of a long message only the front may be here;
 * @beyond counts the bytes that the message says it has after that.
 */
struct p9_in {
	const uint8_t *p;
	size_t left;
	size_t beyond;
	int err; /* 0, or the -errno that answers the request */
};

uint8_t p9_decode8(struct p9_in *in);
uint16_t p9_decode16(struct p9_in *in);
uint32_t p9_decode32(struct p9_in *in);
uint64_t p9_decode64(struct p9_in *in);

/*
 * A string, with a NUL behind it. -EINVAL when it runs past the message or
 * has a NUL inside, -ENAMETOOLONG when @size does not hold it.
 */
void p9_decode_string(struct p9_in *in, char *buf, size_t size);
void p9_skip_string(struct p9_in *in);

/*
 * The name of a directory's entry: a string that is neither empty nor "." or
 * ".." and has no slash in it, else -EINVAL. @buf has P9_NAME_MAX + 1 bytes.
 */
void p9_decode_name(struct p9_in *in, char *buf);

/* A reply's body as it grows. */
void p9_encode8(struct out *out, uint8_t v);
void p9_encode16(struct out *out, uint16_t v);
void p9_encode32(struct out *out, uint32_t v);
void p9_encode64(struct out *out, uint64_t v);
void p9_encode_string(struct out *out, const char *s);
void p9_encode_qid(struct out *out, const struct p9_qid *qid);

#endif

/* SPDX-License-Identifier: BSD-2-Clause */
#include "base/util.h"
#include "dev/p9/p9_req.h"

#include <errno.h>
#include <string.h>

enum {
	OP_TRY = 1,     /* mostly does not block */
	OP_META = 2,    /* likewise, unless attributes are mapped */
	OP_CHANGES = 4, /* not on a read-only export */
	OP_SLOW = 8,    /* may wait for the disk or for locks, as changes do */
};

struct op {
	int (*run)(struct p9_req *r);
	uint16_t reply; /* least bytes of the reply's body */
	uint8_t flags;
};

/* The device waits for what is flushed; this is only the answer. */
static int flushed(struct p9_req *r)
{
	p9_decode16(&r->in);
	return r->in.err;
}

static const struct op ops[] = {
	[P9_TSTATFS] = { p9_statfs, 60 },
	[P9_TLOPEN] = { p9_lopen, P9_QID_SZ + 4, OP_META },
	[P9_TLCREATE] = { p9_lcreate, P9_QID_SZ + 4, OP_CHANGES },
	[P9_TSYMLINK] = { p9_symlink, P9_QID_SZ, OP_CHANGES },
	[P9_TMKNOD] = { p9_mknod, P9_QID_SZ, OP_CHANGES },
	[P9_TRENAME] = { p9_rename, 0, OP_CHANGES },
	[P9_TREADLINK] = { p9_readlink, 2 },
	[P9_TGETATTR] = { p9_getattr, 153, OP_META },
	[P9_TSETATTR] = { p9_setattr, 0, OP_CHANGES },
	[P9_TXATTRWALK] = { p9_xattrwalk, 8, OP_TRY },
	[P9_TXATTRCREATE] = { p9_xattrcreate, 0, OP_CHANGES },
	[P9_TREADDIR] = { p9_readdir, 4 },
	[P9_TFSYNC] = { p9_fsync, 0, OP_SLOW },
	[P9_TLOCK] = { p9_lock, 1, OP_SLOW },
	[P9_TGETLOCK] = { p9_getlock, 23, OP_SLOW },
	[P9_TLINK] = { p9_link, 0, OP_CHANGES },
	[P9_TMKDIR] = { p9_mkdir, P9_QID_SZ, OP_CHANGES },
	[P9_TRENAMEAT] = { p9_renameat, 0, OP_CHANGES },
	[P9_TUNLINKAT] = { p9_unlinkat, 0, OP_CHANGES },
	[P9_TVERSION] = { p9_version, 14, OP_SLOW },
	[P9_TAUTH] = { p9_auth, 0 },
	[P9_TATTACH] = { p9_attach, P9_QID_SZ, OP_META },
	[P9_TFLUSH] = { flushed, 0 },
	[P9_TWALK] = { p9_walk, 2, OP_META },
	[P9_TREAD] = { p9_read, 4, OP_TRY },
	[P9_TWRITE] = { p9_write, 4, OP_TRY | OP_CHANGES },
	[P9_TCLUNK] = { p9_clunk, 0, OP_TRY | OP_SLOW },
	[P9_TREMOVE] = { p9_remove, 0, OP_SLOW },
};

static const struct op *op_of(const struct p9_req *r)
{
	if (r->type >= ARRAY_LEN(ops) || !ops[r->type].run)
		return NULL;
	return &ops[r->type];
}

/*
 * --- In ---
 */

static void bad_frame(struct p9_req *r)
{
	r->err = -EINVAL;
	r->malformed = true;
}

/*
 * Take the header and the body without Twrite's data, once: the guest may
 * change what is in its buffers at any time.
 */
static void take_message(struct p9_req *r)
{
	size_t have = vio_iov_len(&r->data), body, keep = P9_MSG_BYTES;
	uint8_t header[P9_HEADER] = { 0 };
	struct p9_in in = { .p = header, .left = sizeof(header) };
	uint32_t size;

	if (vio_iov_take(&r->data, header, sizeof(header)) < sizeof(header)) {
		bad_frame(r);
		return;
	}
	size = p9_decode32(&in);
	r->type = p9_decode8(&in);
	r->tag = p9_decode16(&in);
	if (size < P9_HEADER || size > have) {
		bad_frame(r);
		return;
	}
	if (r->type != P9_TVERSION && size > r->fs->msize)
		r->err = r->fs->msize ? -EMSGSIZE : -EPROTO;
	body = size - P9_HEADER;
	if (r->type == P9_TWRITE)
		keep = P9_TWRITE_SZ - P9_HEADER;
	r->msg_len = vio_iov_take(&r->data, r->msg, body < keep ? body : keep);
	r->msg_beyond = body - r->msg_len;
}

/* Where the reply goes: its first 11 bytes, and the rest. */
static void take_room(struct p9_req *r, struct iovec *iov, int niov)
{
	size_t most = r->fs->msize ? r->fs->msize : P9_MIN_MSIZE;
	int n = niov < (int)P9_IO_HEADER ? niov : (int)P9_IO_HEADER;

	memcpy(r->head_iov, iov, (size_t)n * sizeof(*iov));
	r->head = (struct vio_iov_cursor){ r->head_iov, n };
	r->back = (struct vio_iov_cursor){ iov, niov };
	r->room = vio_iov_len(&r->back);
	if (r->room > most)
		r->room = most;
	vio_iov_skip(&r->back, P9_IO_HEADER);
}

void p9_req_init(struct p9_req *r, struct p9_fs *fs, int readable, int writable)
{
	const struct op *op;

	r->fs = fs;
	r->type = 0;
	r->tag = P9_NOTAG;
	r->err = 0;
	r->malformed = r->blocked = false;
	r->msg_len = r->msg_beyond = 0;
	r->data_len = 0;
	r->out.len = 0;
	r->data = (struct vio_iov_cursor){ r->iov, readable };
	take_message(r);
	take_room(r, r->iov + readable, writable);

	op = op_of(r);
	if (r->err < 0)
		return;
	if (!op)
		r->err = -EOPNOTSUPP;
	else if (fs->params.ro && (op->flags & OP_CHANGES))
		r->err = -EROFS;
	else if (r->room < P9_HEADER + (size_t)op->reply)
		r->err = -EMSGSIZE;
}

/*
 * --- Done ---
 */

static void run(struct p9_req *r, bool nowait)
{
	r->nowait = nowait;
	r->blocked = false;
	r->data_len = 0;
	r->in = (struct p9_in){
		.p = r->msg,
		.left = r->msg_len,
		.beyond = r->msg_beyond,
	};
	r->out = (struct out){ .buf = r->reply, .size = sizeof(r->reply) };
	r->err = op_of(r)->run(r);
}

bool p9_req_try(struct p9_req *r)
{
	const struct op *op = op_of(r);

	if (r->err < 0)
		return true;
	if (r->type == P9_TFLUSH) {
		run(r, true);
		return true;
	}
	if (!r->fs->can_try)
		return false;
	if (!(op->flags & OP_TRY) &&
	    (!(op->flags & OP_META) || r->fs->params.security == P9_MAPPED))
		return false;
	run(r, true);
	if (r->err != -EAGAIN)
		return true;
	r->err = 0;
	return false;
}

void p9_req_run(struct p9_req *r)
{
	run(r, false);
}

static bool truncates(const struct p9_req *r)
{
	struct p9_in in = { .p = r->msg, .left = r->msg_len };

	p9_decode32(&in);
	return r->type == P9_TLOPEN && (p9_decode32(&in) & P9_O_TRUNC);
}

bool p9_req_changes(const struct p9_req *r)
{
	const struct op *op = op_of(r);

	return op && ((op->flags & (OP_CHANGES | OP_SLOW)) || truncates(r));
}

uint16_t p9_req_oldtag(const struct p9_req *r)
{
	struct p9_in in = { .p = r->msg, .left = r->msg_len };

	return r->type == P9_TFLUSH && !r->err && r->msg_len >= 2 ?
		       p9_decode16(&in) :
		       P9_NOTAG;
}

/*
 * --- Out ---
 */

static void write_at(struct p9_req *r, const uint8_t *msg, size_t len)
{
	size_t front = len < P9_IO_HEADER ? len : P9_IO_HEADER;

	vio_iov_write(&r->head, msg, front);
	vio_iov_write(&r->back, msg + front, len - front);
}

static void write_header(struct out *out, uint32_t size, uint8_t type,
			 uint16_t tag)
{
	p9_encode32(out, size);
	p9_encode8(out, type);
	p9_encode16(out, tag);
}

static int reply_error(struct p9_req *r)
{
	uint8_t msg[P9_RLERROR_SZ];
	struct out out = { .buf = msg, .size = sizeof(msg) };

	__atomic_fetch_add(&r->fs->stats.errors, 1, __ATOMIC_RELAXED);
	if (r->room < sizeof(msg))
		return r->malformed ? -EPROTO : 0;
	write_header(&out, sizeof(msg), P9_RLERROR, r->tag);
	p9_encode32(&out, (uint32_t)-r->err);
	write_at(r, msg, sizeof(msg));
	return sizeof(msg);
}

int p9_req_reply(struct p9_req *r)
{
	uint8_t msg[P9_HEADER + P9_REPLY_BYTES];
	struct out out = { .buf = msg, .size = sizeof(msg) };
	size_t len = P9_HEADER + r->out.len;

	r->fs->stats.requests++;
	/* Requests that change something have checked the room before. */
	if (!r->err && (r->out.full || len + r->data_len > r->room))
		r->err = -EMSGSIZE;
	if (r->err)
		return reply_error(r);
	write_header(&out, (uint32_t)(len + r->data_len),
		     (uint8_t)(r->type + 1), r->tag);
	out_write(&out, r->reply, r->out.len);
	write_at(r, msg, len);
	return (int)(len + r->data_len);
}

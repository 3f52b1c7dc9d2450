/* SPDX-License-Identifier: BSD-2-Clause */
/* Sessions and fids: Tversion, Tauth, Tattach, Twalk, Tclunk. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "dev/p9/fs.h"

/* Start a session. The device calls this while no other request runs. */
int p9_version(struct p9_req *r)
{
	uint32_t msize = p9_decode32(&r->in);
	char version[16] = "";
	bool known;

	p9_decode_string(&r->in, version, sizeof(version));
	/* A name longer than ours is another version. */
	if (r->in.err && r->in.err != -ENAMETOOLONG)
		return r->in.err;
	if (msize < P9_MIN_MSIZE)
		return -EMSGSIZE;
	if (msize > r->fs->params.msize)
		msize = r->fs->params.msize;
	/* Neither 9P2000.u nor plain 9P2000 is supported. */
	known = !strcmp(version, "9P2000.L");
	p9_fs_restart(r->fs, known ? msize : 0);
	p9_encode32(&r->out, msize);
	p9_encode_string(&r->out, known ? "9P2000.L" : "unknown");
	return 0;
}

/* Authentication is neither needed nor supported. */
int p9_auth(struct p9_req *r)
{
	return -EOPNOTSUPP;
}

int p9_attach(struct p9_req *r)
{
	uint32_t num = p9_decode32(&r->in);
	uint32_t afid = p9_decode32(&r->in);
	P9_REF root = { .fs = r->fs, .node = r->fs->root, .fd = -1 };
	struct p9_qid qid;
	struct statx stx;
	int ret;

	p9_skip_string(&r->in); /* uname: names mean nothing here */
	p9_skip_string(&r->in); /* aname: there is one tree */
	root.uid = p9_decode32(&r->in);
	pthread_mutex_lock(&r->fs->lock);
	p9_node_ref(root.node);
	pthread_mutex_unlock(&r->fs->lock);

	if (r->in.err)
		return r->in.err;
	if (afid != P9_NOFID)
		return -EBADF;
	ret = p9_ref_open(r, &root);
	if (ret == 0)
		ret = p9_stat(r, root.fd, &stx);
	if (ret == 0)
		ret = p9_fid_add(r->fs, num, &root);
	if (ret < 0)
		return ret;
	qid = p9_qid_of(r->fs, &stx);
	p9_encode_qid(&r->out, &qid);
	return 0;
}

/*
 * --- Twalk ---
 */

/* Walk one step and advance @at. */
static int step(struct p9_req *r, struct p9_ref *at)
{
	char name[P9_NAME_MAX + 1];
	P9_REF next = P9_NO_REF;
	struct p9_qid qid;
	struct statx stx;
	int ret;

	p9_decode_string(&r->in, name, sizeof(name));
	if (r->in.err)
		return r->in.err;
	if (!name[0] || !strcmp(name, ".") || strchr(name, '/'))
		return -EINVAL;
	if (!strcmp(name, ".."))
		ret = p9_parent(r, at, &next, &stx);
	else
		ret = p9_lookup(r, at, name, &next, &stx);
	if (ret < 0)
		return ret;
	qid = p9_qid_of(r->fs, &stx);
	p9_encode_qid(&r->out, &qid);
	p9_ref_put(at);
	*at = next;
	next = (struct p9_ref)P9_NO_REF;
	return 0;
}

/* The number of steps that succeeded, or why the first one failed. */
static int steps(struct p9_req *r, struct p9_ref *at, unsigned nr)
{
	unsigned i;

	for (i = 0; i < nr; i++) {
		int ret = step(r, at);

		if (ret < 0 && (i == 0 || r->in.err || ret == -EAGAIN))
			return ret;
		if (ret < 0)
			break;
	}
	return (int)i;
}

int p9_walk(struct p9_req *r)
{
	uint32_t num = p9_decode32(&r->in);
	uint32_t newnum = p9_decode32(&r->in);
	unsigned nr = p9_decode16(&r->in);
	P9_REF at = P9_NO_REF, was = P9_NO_REF;
	int done = 0, ret;

	if (r->in.err)
		return r->in.err;
	if (nr > P9_MAX_WALK)
		return -EINVAL;
	if (r->room < P9_HEADER + 2 + nr * P9_QID_SZ)
		return -EMSGSIZE;
	ret = p9_fid_get(r->fs, num, &was);
	if (ret < 0)
		return ret;
	ret = p9_fid_get(r->fs, num, &at);
	if (ret < 0)
		return ret;
	/* The new fid is not open, even if this one is. */
	p9_file_put(r->fs, at.file);
	at.file = NULL;

	p9_encode16(&r->out, 0);
	if (nr > 0) {
		ret = p9_ref_open(r, &at);
		if (ret == 0)
			ret = done = steps(r, &at, nr);
		if (ret < 0)
			return ret;
		r->out.buf[0] = (uint8_t)done;
	}
	if (done < (int)nr)
		return 0;
	if (newnum == num)
		return p9_fid_change(r->fs, num, &was, at.node, NULL);
	return p9_fid_add(r->fs, newnum, &at);
}

/*
 * --- The end of fids ---
 */

/* Closing may block: a file that was written to, or one that is deleted. */
static bool clunk_waits(struct p9_fs *fs, uint32_t num)
{
	P9_REF ref = P9_NO_REF;
	const struct p9_file *file;

	if (p9_fid_get(fs, num, &ref) < 0)
		return false;
	file = ref.file;
	return ref.node->detached || ref.node->dev != fs->root->dev ||
	       (file && (file->kind == P9_XATTR_WRITE || file->slow ||
			 __atomic_load_n(&file->locked, __ATOMIC_RELAXED)));
}

int p9_clunk(struct p9_req *r)
{
	uint32_t num = p9_decode32(&r->in);
	P9_REF ref = P9_NO_REF;
	int ret;

	if (r->in.err)
		return r->in.err;
	if (r->nowait && clunk_waits(r->fs, num))
		return -EAGAIN;
	ret = p9_fid_remove(r->fs, num, &ref);
	if (ret == 0 && ref.file && ref.file->kind == P9_XATTR_WRITE)
		ret = p9_xattr_commit(r, &ref);
	return ret;
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Open files: Tlopen, Tlcreate, Tread, Twrite, Tfsync.
 *
 * The data of reads and writes moves directly between the guest's buffers and
 * the file. Only regular files and directories are ever opened: a device, a
 * FIFO or a socket in the export can only be examined.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/util.h"
#include "dev/p9/fs.h"

/* The guest's flags as the host's. O_DIRECT is not passed on. */
static int host_flags(uint32_t flags)
{
	static const struct {
		uint32_t guest;
		int host;
	} map[] = {
		{ P9_O_TRUNC, O_TRUNC }, { P9_O_APPEND, O_APPEND },
		{ P9_O_DSYNC, O_DSYNC }, { P9_O_DIRECTORY, O_DIRECTORY },
		{ P9_O_SYNC, O_SYNC },
	};
	static const int modes[] = { O_RDONLY, O_WRONLY, O_RDWR, O_RDWR };
	int host = modes[flags & P9_O_ACCMODE] | O_NOCTTY | O_CLOEXEC;

	for (size_t i = 0; i < ARRAY_LEN(map); i++) {
		if (flags & map[i].guest)
			host |= map[i].host;
	}
	return host;
}

static bool writes(int flags)
{
	return (flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC);
}

int p9_open_node(const struct p9_req *r, const struct p9_ref *ref, int flags)
{
	int fd;

	if (ref->node->type == S_IFDIR) {
		if ((flags & O_ACCMODE) != O_RDONLY)
			return -EISDIR;
		fd = openat(ref->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	} else if (ref->node->type == S_IFREG) {
		fd = openat(r->fs->proc_fd, p9_fd_name(ref->fd).s, flags);
	} else {
		return ref->node->type == S_IFLNK ? -ELOOP : -ENXIO;
	}
	return fd < 0 ? -errno : fd;
}

/* A file for a new descriptor, which is closed on failure; 0 or -errno. */
static int make_file(struct p9_fs *fs, const struct p9_node *node, int fd,
		     int flags, struct p9_file **ret_file)
{
	struct p9_file *file;
	int ret = p9_fd_admit(fs);

	if (ret < 0) {
		close(fd);
		return ret;
	}
	file = p9_file_create(fs, node->type == S_IFDIR ? P9_DIR : P9_FILE, fd);
	if (!file) {
		p9_fd_release(fs);
		close(fd);
		return -ENOMEM;
	}
	file->flags = flags;
	file->slow =
		(flags & O_ACCMODE) != O_RDONLY || node->dev != fs->root->dev;
	*ret_file = file;
	return 0;
}

static void write_opened(struct p9_req *r, const struct statx *stx)
{
	struct p9_qid qid = p9_qid_of(r->fs, stx);

	p9_encode_qid(&r->out, &qid);
	p9_encode32(&r->out, 0); /* iounit: what msize allows */
}

int p9_lopen(struct p9_req *r)
{
	uint32_t num = p9_decode32(&r->in);
	int flags = host_flags(p9_decode32(&r->in));
	P9_REF ref = P9_NO_REF;
	struct p9_file *file;
	struct statx stx;
	int fd, ret;

	if (r->in.err)
		return r->in.err;
	if (r->fs->params.ro && writes(flags))
		return -EROFS;
	if (r->nowait && (flags & O_TRUNC))
		return -EAGAIN;
	ret = p9_fid_open(r, num, &ref);
	if (ret < 0)
		return ret;
	if (ref.file)
		return -EINVAL;
	ret = p9_stat(r, ref.fd, &stx);
	if (ret < 0)
		return ret;
	/* The open might have to wait for a lease. */
	fd = p9_open_node(r, &ref, flags | (r->nowait ? O_NONBLOCK : 0));
	if (fd < 0)
		return fd;
	ret = make_file(r->fs, ref.node, fd, flags, &file);
	if (ret < 0)
		return ret;
	ret = p9_fid_change(r->fs, num, &ref, ref.node, file);
	p9_file_put(r->fs, file);
	if (ret == 0)
		write_opened(r, &stx);
	return ret;
}

/*
 * --- Tlcreate ---
 */

struct create {
	char name[P9_NAME_MAX + 1];
	int flags;
	bool excl;
	mode_t mode;
	uint32_t gid;
};

/*
 * Create the file, or open it if that is allowed: never by its name, which may
 * refer to anything. Returns a descriptor.
 */
static int create_or_open(const struct p9_req *r, const struct p9_ref *dir,
			  const struct create *c, bool *ret_made)
{
	mode_t mode = r->fs->params.security == P9_MAPPED ? 0600 : c->mode;
	int fd, ret;

	for (int tries = 0; tries < 8; tries++) {
		P9_REF ref = P9_NO_REF;
		struct statx stx;

		fd = openat(dir->fd, c->name,
			    c->flags | O_CREAT | O_EXCL | O_NOFOLLOW,
			    mode & 07777);
		*ret_made = fd >= 0;
		if (fd >= 0)
			return fd;
		if (errno != EEXIST || c->excl)
			return -errno;
		ret = p9_lookup(r, dir, c->name, &ref, &stx);
		if (ret == 0)
			return p9_open_node(r, &ref, c->flags);
		if (ret != -ENOENT)
			return ret;
	}
	return -EBUSY;
}

/* The fid of the directory now refers to the file. */
static int created(struct p9_req *r, uint32_t num, const struct p9_ref *dir,
		   const struct create *c, int fd)
{
	P9_REF ref = P9_NO_REF;
	struct p9_file *file;
	struct statx stx;
	int ret;

	ret = p9_lookup(r, dir, c->name, &ref, &stx);
	if (ret < 0) {
		close(fd);
		return ret;
	}
	ret = make_file(r->fs, ref.node, fd, c->flags, &file);
	if (ret < 0)
		return ret;
	ret = p9_fid_change(r->fs, num, dir, ref.node, file);
	p9_file_put(r->fs, file);
	if (ret == 0)
		write_opened(r, &stx);
	return ret;
}

int p9_lcreate(struct p9_req *r)
{
	uint32_t num = p9_decode32(&r->in), flags;
	P9_REF dir = P9_NO_REF;
	struct create c;
	bool made;
	int fd, ret;

	p9_decode_name(&r->in, c.name);
	flags = p9_decode32(&r->in);
	c.flags = host_flags(flags);
	c.excl = flags & P9_O_EXCL;
	c.mode = S_IFREG | (p9_decode32(&r->in) & 07777);
	c.gid = p9_decode32(&r->in);
	if (r->in.err)
		return r->in.err;
	ret = p9_fid_open(r, num, &dir);
	if (ret < 0)
		return ret;
	if (dir.node->type != S_IFDIR)
		return -ENOTDIR;
	if (dir.file)
		return -EINVAL;

	fd = create_or_open(r, &dir, &c, &made);
	if (fd < 0)
		return fd;
	if (made) {
		ret = p9_own(r, fd, c.mode, 0, dir.uid, c.gid);
		if (ret < 0) {
			unlinkat(dir.fd, c.name, 0);
			close(fd);
			return ret;
		}
	}
	return created(r, num, &dir, &c, fd);
}

/*
 * --- Tread, Twrite, Tfsync ---
 */

/* Keep no more than @len bytes. */
static void iov_cut(struct vio_iov_cursor *c, size_t len)
{
	int i;

	for (i = 0; i < c->niov && len > 0; i++) {
		if (c->iov[i].iov_len > len)
			c->iov[i].iov_len = len;
		len -= c->iov[i].iov_len;
	}
	c->niov = i;
}

static bool is_end(int fd, uint64_t off)
{
	struct statx stx;

	return statx(fd, "", AT_EMPTY_PATH, STATX_SIZE, &stx) == 0 &&
	       off >= stx.stx_size;
}

/*
 * Without waiting: all of it, or up to the end of the file, or -EAGAIN. A
 * partial read is repeated by a thread that may wait.
 */
static ssize_t try_read(struct p9_file *file, const struct vio_iov_cursor *c,
			size_t len, uint64_t off)
{
	ssize_t n;

	if (file->no_try_read)
		return -EAGAIN;
	n = preadv2(file->fd, c->iov, c->niov, (off_t)off, RWF_NOWAIT);
	if (n < 0) {
		if (errno == EOPNOTSUPP)
			file->no_try_read = true;
		return errno == EOPNOTSUPP || errno == EINTR ? -EAGAIN : -errno;
	}
	if ((size_t)n < len && !is_end(file->fd, off + (uint64_t)n))
		return -EAGAIN;
	return n;
}

static ssize_t wait_read(struct p9_file *file, const struct vio_iov_cursor *c,
			 uint64_t off)
{
	ssize_t n = preadv(file->fd, c->iov, c->niov, (off_t)off);

	return n < 0 ? -errno : n;
}

static int read_file(struct p9_req *r, struct p9_file *file, uint64_t off,
		     uint32_t count)
{
	ssize_t n = 0;

	iov_cut(&r->back, count);
	if (count > 0)
		n = r->nowait ? try_read(file, &r->back, count, off) :
				wait_read(file, &r->back, off);
	if (n < 0)
		return (int)n;
	p9_encode32(&r->out, (uint32_t)n);
	r->data_len = (uint32_t)n;
	__atomic_fetch_add(&r->fs->stats.read_bytes, (uint64_t)n,
			   __ATOMIC_RELAXED);
	return 0;
}

int p9_decode_read(struct p9_req *r, struct p9_ref *ret_ref, uint64_t *ret_off,
		   uint32_t *ret_count)
{
	uint32_t num = p9_decode32(&r->in);

	*ret_off = p9_decode64(&r->in);
	*ret_count = p9_decode32(&r->in);
	if (r->in.err)
		return r->in.err;
	/* -1 is special to preadv2(). */
	if (*ret_off > INT64_MAX)
		return -EINVAL;
	if (*ret_count > r->room - P9_IO_HEADER)
		*ret_count = (uint32_t)(r->room - P9_IO_HEADER);
	return p9_fid_file(r, num, ret_ref);
}

int p9_read(struct p9_req *r)
{
	uint32_t count;
	uint64_t off;
	P9_REF ref = P9_NO_REF;
	int ret = p9_decode_read(r, &ref, &off, &count);

	if (ret == 0)
		ret = p9_may_try(r, &ref);
	if (ret < 0)
		return ret;
	switch (ref.file->kind) {
	case P9_FILE:
		return read_file(r, ref.file, off, count);
	case P9_DIR:
		return -EISDIR;
	case P9_XATTR_READ:
		return p9_xattr_read(r, ref.file, off, count);
	default:
		return -EBADF;
	}
}

static int write_file(struct p9_req *r, struct p9_file *file, uint64_t off,
		      uint32_t count)
{
	ssize_t n = 0;

	/*
	 * A frozen file system blocks writes despite RWF_NOWAIT, and O_SYNC
	 * makes them wait for the disk.
	 */
	if (r->nowait)
		return -EAGAIN;
	iov_cut(&r->data, count);
	if (count > 0)
		n = pwritev(file->fd, r->data.iov, r->data.niov, (off_t)off);
	if (n < 0)
		return -errno;
	p9_encode32(&r->out, (uint32_t)n);
	__atomic_fetch_add(&r->fs->stats.written_bytes, (uint64_t)n,
			   __ATOMIC_RELAXED);
	return 0;
}

int p9_write(struct p9_req *r)
{
	uint32_t num = p9_decode32(&r->in);
	uint64_t off = p9_decode64(&r->in);
	uint32_t count = p9_decode32(&r->in);
	P9_REF ref = P9_NO_REF;
	int ret;

	/* The message must have as much as it announces. */
	if (r->in.err || count > r->msg_beyond || off > INT64_MAX)
		return -EINVAL;
	ret = p9_fid_file(r, num, &ref);
	if (ret < 0)
		return ret;
	switch (ref.file->kind) {
	case P9_FILE:
		return write_file(r, ref.file, off, count);
	case P9_DIR:
		return -EISDIR;
	case P9_XATTR_WRITE:
		return p9_xattr_write(r, ref.file, off, count);
	default:
		return -EBADF;
	}
}

int p9_fsync(struct p9_req *r)
{
	uint32_t num = p9_decode32(&r->in);
	uint32_t datasync = p9_decode32(&r->in);
	P9_REF ref = P9_NO_REF;
	int ret;

	if (r->in.err)
		return r->in.err;
	ret = p9_fid_file(r, num, &ref);
	if (ret < 0)
		return ret;
	if (ref.file->fd < 0)
		return -EBADF;
	if ((datasync ? fdatasync(ref.file->fd) : fsync(ref.file->fd)) < 0)
		return -errno;
	return 0;
}

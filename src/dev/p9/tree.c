/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Directories and what is in them: making, linking, renaming, removing,
 * listing; symbolic links and the file system itself.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "dev/p9/fs.h"

#define MAX_TARGET 4096 /* PATH_MAX, with its NUL */

/*
 * --- Making ---
 */

/* What is to be made, in a directory. */
struct make {
	char name[P9_NAME_MAX + 1];
	mode_t mode; /* with its type */
	dev_t rdev;
	uint32_t gid;
	const char *target; /* of a symbolic link */
};

/* With mapped attributes all that is no directory is a regular file. */
static int make_mapped(int dir_fd, const struct make *m)
{
	size_t len = m->target ? strlen(m->target) : 0;
	int fd, ret = 0;

	if (S_ISDIR(m->mode))
		return mkdirat(dir_fd, m->name, 0700) < 0 ? -errno : 0;
	fd = openat(dir_fd, m->name,
		    O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	if (len > 0 && write(fd, m->target, len) != (ssize_t)len) {
		ret = -EIO;
		unlinkat(dir_fd, m->name, 0);
	}
	close(fd);
	return ret;
}

static int make_host(int dir_fd, const struct make *m)
{
	int ret;

	if (S_ISDIR(m->mode))
		ret = mkdirat(dir_fd, m->name, m->mode & 07777);
	else if (S_ISLNK(m->mode))
		ret = symlinkat(m->target, dir_fd, m->name);
	else
		ret = mknodat(dir_fd, m->name, m->mode, m->rdev);
	return ret < 0 ? -errno : 0;
}

/* The answer is a qid. */
static int make(struct p9_req *r, uint32_t dir_num, const struct make *m)
{
	P9_REF dir = P9_NO_REF, ref = P9_NO_REF;
	struct p9_qid qid;
	struct statx stx;
	int ret;

	if (r->in.err)
		return r->in.err;
	ret = p9_fid_open(r, dir_num, &dir);
	if (ret < 0)
		return ret;
	if (dir.node->type != S_IFDIR)
		return -ENOTDIR;
	ret = r->fs->params.security == P9_MAPPED ? make_mapped(dir.fd, m) :
						    make_host(dir.fd, m);
	if (ret < 0)
		return ret;
	ret = p9_lookup(r, &dir, m->name, &ref, &stx);
	if (ret == 0)
		ret = p9_own(r, ref.fd, m->mode, m->rdev, dir.uid, m->gid);
	if (ret == 0)
		ret = p9_stat(r, ref.fd, &stx);
	if (ret < 0) {
		/* ESTALE: it is somebody else's. */
		if (ret != -ESTALE)
			unlinkat(dir.fd, m->name,
				 S_ISDIR(m->mode) ? AT_REMOVEDIR : 0);
		return ret;
	}
	qid = p9_qid_of(r->fs, &stx);
	p9_encode_qid(&r->out, &qid);
	return 0;
}

int p9_mkdir(struct p9_req *r)
{
	uint32_t dir = p9_decode32(&r->in);
	struct make m = { .target = NULL };

	p9_decode_name(&r->in, m.name);
	m.mode = S_IFDIR | (p9_decode32(&r->in) & 07777);
	m.gid = p9_decode32(&r->in);
	return make(r, dir, &m);
}

int p9_symlink(struct p9_req *r)
{
	uint32_t dir = p9_decode32(&r->in);
	char target[MAX_TARGET];
	struct make m = { .mode = S_IFLNK | 0777, .target = target };

	p9_decode_name(&r->in, m.name);
	p9_decode_string(&r->in, target, sizeof(target));
	m.gid = p9_decode32(&r->in);
	if (!r->in.err && !target[0])
		return -ENOENT; /* as for symlink(2) */
	return make(r, dir, &m);
}

int p9_mknod(struct p9_req *r)
{
	uint32_t dir = p9_decode32(&r->in), major, minor;
	struct make m = { .target = NULL };

	p9_decode_name(&r->in, m.name);
	m.mode = p9_decode32(&r->in) & (S_IFMT | 07777);
	major = p9_decode32(&r->in);
	minor = p9_decode32(&r->in);
	m.gid = p9_decode32(&r->in);
	m.rdev = makedev(major, minor);
	if (r->in.err)
		return r->in.err;
	switch (m.mode & S_IFMT) {
	case S_IFREG:
	case S_IFIFO:
	case S_IFSOCK:
		m.rdev = 0;
		break;
	case S_IFCHR:
	case S_IFBLK:
		break;
	default:
		return -EINVAL;
	}
	return make(r, dir, &m);
}

int p9_link(struct p9_req *r)
{
	uint32_t dir_num = p9_decode32(&r->in);
	uint32_t num = p9_decode32(&r->in);
	char name[P9_NAME_MAX + 1];
	P9_REF dir = P9_NO_REF, ref = P9_NO_REF;
	int ret;

	p9_decode_name(&r->in, name);
	if (r->in.err)
		return r->in.err;
	ret = p9_fid_open(r, dir_num, &dir);
	if (ret == 0)
		ret = p9_fid_open(r, num, &ref);
	if (ret < 0)
		return ret;
	if (linkat(r->fs->proc_fd, p9_fd_name(ref.fd).s, dir.fd, name,
		   AT_SYMLINK_FOLLOW) < 0)
		return -errno;
	return 0;
}

/*
 * --- Renaming and removing; p9_fs.names is held over the system call ---
 */

static int do_rename(const struct p9_req *r, const struct p9_ref *from,
		     const char *name, const struct p9_ref *to,
		     const char *newname)
{
	P9_REF node = P9_NO_REF, victim = P9_NO_REF;

	p9_name_hold(r, from->node, name, &node);
	p9_name_hold(r, to->node, newname, &victim);
	if (syscall(SYS_renameat2, from->fd, name, to->fd, newname, 0) < 0)
		return -errno;
	/* Two names of one file: both stay as they are. */
	if (node.node && victim.node && node.node->ino == victim.node->ino &&
	    node.node->dev == victim.node->dev)
		return 0;
	p9_name_moved(r->fs, node.node, to->node, newname);
	return 0;
}

static int do_unlink(const struct p9_req *r, const struct p9_ref *dir,
		     const char *name, int flags)
{
	P9_REF node = P9_NO_REF;

	p9_name_hold(r, dir->node, name, &node);
	if (unlinkat(dir->fd, name, flags) < 0)
		return -errno;
	p9_name_removed(r->fs, node.node);
	return 0;
}

int p9_renameat(struct p9_req *r)
{
	uint32_t from_num = p9_decode32(&r->in), to_num;
	char name[P9_NAME_MAX + 1], newname[P9_NAME_MAX + 1];
	P9_REF from = P9_NO_REF, to = P9_NO_REF;
	int ret;

	p9_decode_name(&r->in, name);
	to_num = p9_decode32(&r->in);
	p9_decode_name(&r->in, newname);
	if (r->in.err)
		return r->in.err;
	ret = p9_fid_open(r, from_num, &from);
	if (ret == 0)
		ret = p9_fid_open(r, to_num, &to);
	if (ret < 0)
		return ret;
	pthread_mutex_lock(&r->fs->names);
	ret = do_rename(r, &from, name, &to, newname);
	pthread_mutex_unlock(&r->fs->names);
	return ret;
}

int p9_rename(struct p9_req *r)
{
	uint32_t num = p9_decode32(&r->in);
	uint32_t to_num = p9_decode32(&r->in);
	char name[P9_NAME_MAX + 1], newname[P9_NAME_MAX + 1];
	P9_REF ref = P9_NO_REF, from = P9_NO_REF, to = P9_NO_REF;
	int ret;

	p9_decode_name(&r->in, newname);
	if (r->in.err)
		return r->in.err;
	ret = p9_fid_get(r->fs, num, &ref);
	if (ret == 0)
		ret = p9_fid_open(r, to_num, &to);
	if (ret < 0)
		return ret;
	pthread_mutex_lock(&r->fs->names);
	ret = p9_name_of(r, &ref, &from, name);
	if (ret == 0)
		ret = do_rename(r, &from, name, &to, newname);
	pthread_mutex_unlock(&r->fs->names);
	return ret;
}

int p9_unlinkat(struct p9_req *r)
{
	uint32_t num = p9_decode32(&r->in), flags;
	char name[P9_NAME_MAX + 1];
	P9_REF dir = P9_NO_REF;
	int ret;

	p9_decode_name(&r->in, name);
	flags = p9_decode32(&r->in);
	if (r->in.err)
		return r->in.err;
	if (flags & ~P9_UNLINK_DIR)
		return -EINVAL;
	ret = p9_fid_open(r, num, &dir);
	if (ret < 0)
		return ret;
	pthread_mutex_lock(&r->fs->names);
	ret = do_unlink(r, &dir, name, flags ? AT_REMOVEDIR : 0);
	pthread_mutex_unlock(&r->fs->names);
	return ret;
}

/* The fid is removed in any case. */
int p9_remove(struct p9_req *r)
{
	uint32_t num = p9_decode32(&r->in);
	char name[P9_NAME_MAX + 1];
	P9_REF ref = P9_NO_REF, dir = P9_NO_REF;
	int ret;

	if (r->in.err)
		return r->in.err;
	ret = p9_fid_remove(r->fs, num, &ref);
	if (ret < 0)
		return ret;
	if (r->fs->params.ro)
		return -EROFS;
	pthread_mutex_lock(&r->fs->names);
	ret = p9_name_of(r, &ref, &dir, name);
	if (ret == 0)
		ret = do_unlink(r, &dir, name,
				ref.node->type == S_IFDIR ? AT_REMOVEDIR : 0);
	pthread_mutex_unlock(&r->fs->names);
	return ret;
}

/*
 * --- Treaddir ---
 */

struct dents { /* what SYS_getdents64 gives */
	uint64_t d_ino;
	int64_t d_off;
	uint16_t d_reclen;
	uint8_t d_type;
	char d_name[];
};

static uint8_t qid_type(uint8_t d_type)
{
	switch (d_type) {
	case DT_DIR:
		return P9_QTDIR;
	case DT_LNK:
		return P9_QTSYMLINK;
	default:
		return P9_QTFILE;
	}
}

/* The guest must not learn what is above the export. */
static uint64_t entry_ino(const struct p9_fs *fs, const struct p9_node *dir,
			  const struct dents *d)
{
	return dir == fs->root && !strcmp(d->d_name, "..") ? dir->ino :
							     d->d_ino;
}

/* One entry into the guest's buffers; false when @left does not hold it. */
static bool write_entry(struct p9_req *r, const struct p9_node *dir, int dir_fd,
			const struct dents *d, uint32_t left)
{
	bool mapped = r->fs->params.security == P9_MAPPED;
	uint8_t type = mapped ? p9_mapped_type(dir_fd, d->d_name, d->d_type) :
				d->d_type;
	uint8_t buf[P9_QID_SZ + 8 + 1 + 2 + P9_NAME_MAX];
	struct out out = { .buf = buf, .size = sizeof(buf) };
	struct p9_qid qid = {
		.type = qid_type(type),
		.path = p9_qid_path(r->fs, dir->dev, entry_ino(r->fs, dir, d)),
	};

	p9_encode_qid(&out, &qid);
	p9_encode64(&out, (uint64_t)d->d_off);
	p9_encode8(&out, type);
	p9_encode_string(&out, d->d_name);
	if (out.full) /* a name that no guest could walk to */
		return true;
	if (out.len > left)
		return false;
	vio_iov_write(&r->back, buf, out.len);
	r->data_len += (uint32_t)out.len;
	return true;
}

/* Entries from @off on, as many as fit into @count bytes. */
static int read_entries(struct p9_req *r, struct p9_file *file,
			const struct p9_node *dir, uint64_t off, uint32_t count)
{
	_Alignas(struct dents) char buf[16384];
	long len, at = 0;

	if (off != file->dir_off && lseek(file->fd, (off_t)off, SEEK_SET) < 0)
		return -errno;
	file->dir_off = off;
	while ((len = syscall(SYS_getdents64, file->fd, buf, sizeof(buf))) >
	       0) {
		for (at = 0; at < len;) {
			const struct dents *d = (const void *)(buf + at);

			if (!write_entry(r, dir, file->fd, d,
					 count - r->data_len)) {
				/* The fd stands behind what was read. */
				file->dir_off = UINT64_MAX;
				return r->data_len ? 0 : -EINVAL;
			}
			file->dir_off = (uint64_t)d->d_off;
			at += d->d_reclen;
		}
	}
	return len < 0 && !r->data_len ? -errno : 0;
}

int p9_readdir(struct p9_req *r)
{
	uint32_t count;
	uint64_t off;
	P9_REF ref = P9_NO_REF;
	int ret = p9_decode_read(r, &ref, &off, &count);

	if (ret < 0)
		return ret;
	if (ref.file->kind != P9_DIR)
		return -ENOTDIR;
	pthread_mutex_lock(&ref.file->lock);
	ret = read_entries(r, ref.file, ref.node, off, count);
	pthread_mutex_unlock(&ref.file->lock);
	if (ret == 0)
		p9_encode32(&r->out, r->data_len);
	return ret;
}

/*
 * --- Treadlink, Tstatfs ---
 */

/* With mapped attributes a link is a file with its target in it. */
static ssize_t read_mapped_link(const struct p9_req *r,
				const struct p9_ref *ref, char *buf,
				size_t size)
{
	struct statx stx;
	ssize_t n;
	int fd, ret;

	ret = p9_stat(r, ref->fd, &stx);
	if (ret < 0)
		return ret;
	if (!S_ISLNK(stx.stx_mode))
		return -EINVAL;
	fd = openat(r->fs->proc_fd, p9_fd_name(ref->fd).s,
		    O_RDONLY | O_NOCTTY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	n = pread(fd, buf, size, 0);
	if (n < 0)
		n = -errno;
	close(fd);
	return n;
}

int p9_readlink(struct p9_req *r)
{
	uint32_t num = p9_decode32(&r->in);
	char target[MAX_TARGET];
	P9_REF ref = P9_NO_REF;
	ssize_t n;
	int ret;

	if (r->in.err)
		return r->in.err;
	ret = p9_fid_open(r, num, &ref);
	if (ret < 0)
		return ret;
	if (ref.node->type == S_IFLNK) {
		n = readlinkat(ref.fd, "", target, sizeof(target) - 1);
		if (n < 0)
			n = -errno;
	} else if (r->fs->params.security == P9_MAPPED &&
		   ref.node->type == S_IFREG) {
		n = read_mapped_link(r, &ref, target, sizeof(target) - 1);
	} else {
		n = -EINVAL;
	}
	if (n < 0)
		return (int)n;
	target[n] = '\0';
	p9_encode_string(&r->out, target);
	return 0;
}

int p9_statfs(struct p9_req *r)
{
	uint32_t num = p9_decode32(&r->in);
	P9_REF ref = P9_NO_REF;
	struct statfs st;
	int ret;

	if (r->in.err)
		return r->in.err;
	ret = p9_fid_open(r, num, &ref);
	if (ret < 0)
		return ret;
	if (fstatfs(ref.fd, &st) < 0)
		return -errno;
	p9_encode32(&r->out, (uint32_t)st.f_type);
	p9_encode32(&r->out, (uint32_t)st.f_bsize);
	p9_encode64(&r->out, st.f_blocks);
	p9_encode64(&r->out, st.f_bfree);
	p9_encode64(&r->out, st.f_bavail);
	p9_encode64(&r->out, st.f_files);
	p9_encode64(&r->out, st.f_ffree);
	p9_encode64(&r->out,
		    (uint32_t)st.f_fsid.__val[0] |
			    (uint64_t)(uint32_t)st.f_fsid.__val[1] << 32);
	p9_encode32(&r->out, (uint32_t)st.f_namelen);
	return 0;
}

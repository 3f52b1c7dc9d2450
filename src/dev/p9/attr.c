/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Attributes: mapping between host and guest, Tgetattr and Tsetattr.
 *
 * With security=mapped-xattr owner, mode and device number are kept in extended
 * attributes, with the names and the format that QEMU uses: user.virtfs.uid,
 * .gid, .mode (four bytes each) and .rdev (eight).
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/le.h"
#include "dev/p9/fs.h"

#define NSEC_PER_SEC 1000000000u

/*
 * --- qids ---
 */

static uint64_t mix(uint64_t h)
{
	h = (h ^ h >> 32) * 0xd6e8feb86659fd93u;
	h = (h ^ h >> 32) * 0xd6e8feb86659fd93u;
	return h ^ h >> 32;
}

/* The number of a file system, P9_MAX_DEVS when there are too many. */
static unsigned dev_idx(struct p9_fs *fs, dev_t dev)
{
	unsigned i;

	/* The export's own is entered before threads exist. */
	if (fs->nr_devs > 0 && fs->devs[0].dev == dev)
		return 0;
	pthread_mutex_lock(&fs->lock);
	for (i = 0; i < fs->nr_devs && fs->devs[i].dev != dev; i++)
		;
	if (i == fs->nr_devs && i < P9_MAX_DEVS)
		fs->devs[fs->nr_devs++].dev = dev;
	pthread_mutex_unlock(&fs->lock);
	return i;
}

/*
 * Unique over all mounts in the export: the number of the file system in the
 * top byte; a hash if inode numbers are that long or there are too many file
 * systems.
 */
uint64_t p9_qid_path(struct p9_fs *fs, dev_t dev, ino_t ino)
{
	uint64_t idx = dev_idx(fs, dev);

	if (idx < P9_MAX_DEVS && ino >> 56 == 0)
		return idx << 56 | ino;
	return UINT64_C(0xff) << 56 | mix(mix(dev) ^ ino) >> 8;
}

struct p9_qid p9_qid_of(struct p9_fs *fs, const struct statx *stx)
{
	struct p9_qid qid = { .type = P9_QTFILE };

	if (S_ISDIR(stx->stx_mode))
		qid.type = P9_QTDIR;
	else if (S_ISLNK(stx->stx_mode))
		qid.type = P9_QTSYMLINK;
	qid.version = (uint32_t)mix((uint64_t)stx->stx_mtime.tv_sec ^
				    (uint64_t)stx->stx_mtime.tv_nsec << 32 ^
				    stx->stx_size << 8);
	qid.path =
		p9_qid_path(fs, makedev(stx->stx_dev_major, stx->stx_dev_minor),
			    stx->stx_ino);
	return qid;
}

/*
 * --- Mapped attributes ---
 */

static const char uid_name[] = "user.virtfs.uid";
static const char gid_name[] = "user.virtfs.gid";
static const char mode_name[] = "user.virtfs.mode";
static const char rdev_name[] = "user.virtfs.rdev";

static bool read32(int fd, const char *name, uint32_t *v)
{
	le32 raw;

	if (p9_fgetxattr(fd, name, &raw, sizeof(raw)) != sizeof(raw))
		return false;
	*v = le32_to_cpu(raw);
	return true;
}

static int set32(int fd, const char *name, uint32_t v)
{
	le32 raw = cpu_to_le32(v);

	return p9_fsetxattr(fd, name, &raw, sizeof(raw), 0);
}

static void read_mapped(int fd, struct statx *stx)
{
	uint32_t mode;
	le64 raw;

	read32(fd, uid_name, &stx->stx_uid);
	read32(fd, gid_name, &stx->stx_gid);
	if (read32(fd, mode_name, &mode))
		stx->stx_mode = (uint16_t)mode;
	if (p9_fgetxattr(fd, rdev_name, &raw, sizeof(raw)) == sizeof(raw)) {
		stx->stx_rdev_major = major(le64_to_cpu(raw));
		stx->stx_rdev_minor = minor(le64_to_cpu(raw));
	}
}

unsigned char p9_mapped_type(int dir_fd, const char *name, unsigned char type)
{
	uint32_t mode;
	int fd;

	if (type == DT_DIR)
		return type;
	fd = openat(dir_fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return DT_UNKNOWN;
	if (read32(fd, mode_name, &mode))
		type = IFTODT(mode & S_IFMT);
	close(fd);
	return type;
}

/*
 * A map applies to the host's ids. Without one, root in the process's user
 * namespace is root in the guest.
 */
static uint32_t guest_id(const struct p9_params *params,
			 const struct p9_idmap *map, uint32_t id, uint32_t own)
{
	if (params->own_namespace && map->nr > 0 && id == 0)
		id = own;
	return p9_id_to_guest(map, id);
}

int p9_map_stat(const struct p9_req *r, int fd, struct statx *stx)
{
	const struct p9_params *params = &r->fs->params;

	stx->stx_uid =
		guest_id(params, &params->uids, stx->stx_uid, params->own_uid);
	stx->stx_gid =
		guest_id(params, &params->gids, stx->stx_gid, params->own_gid);
	if (params->security == P9_MAPPED) {
		if (r->nowait)
			return -EAGAIN;
		read_mapped(fd, stx);
	}
	return 0;
}

int p9_stat(const struct p9_req *r, int fd, struct statx *ret_stx)
{
	if (statx(fd, "", AT_EMPTY_PATH, P9_STATX_MASK, ret_stx) < 0)
		return -errno;
	return p9_map_stat(r, fd, ret_stx);
}

/*
 * --- Tgetattr ---
 */

static void write_time(struct out *out, const struct statx_timestamp *t)
{
	p9_encode64(out, (uint64_t)t->tv_sec);
	p9_encode64(out, t->tv_nsec);
}

static void write_attr(struct out *out, const struct p9_qid *qid,
		       const struct statx *stx)
{
	bool btime = stx->stx_mask & STATX_BTIME;

	p9_encode64(out, P9_GETATTR_BASIC | (btime ? P9_GETATTR_BTIME : 0));
	p9_encode_qid(out, qid);
	p9_encode32(out, stx->stx_mode);
	p9_encode32(out, stx->stx_uid);
	p9_encode32(out, stx->stx_gid);
	p9_encode64(out, stx->stx_nlink);
	p9_encode64(out, makedev(stx->stx_rdev_major, stx->stx_rdev_minor));
	p9_encode64(out, stx->stx_size);
	p9_encode64(out, stx->stx_blksize);
	p9_encode64(out, stx->stx_blocks);
	write_time(out, &stx->stx_atime);
	write_time(out, &stx->stx_mtime);
	write_time(out, &stx->stx_ctime);
	write_time(out, &stx->stx_btime);
	p9_encode64(out, 0); /* gen and data_version: not valid */
	p9_encode64(out, 0);
}

int p9_getattr(struct p9_req *r)
{
	uint32_t num = p9_decode32(&r->in);
	P9_REF ref = P9_NO_REF;
	struct statx stx;
	struct p9_qid qid;
	bool is_open;
	int ret;

	p9_decode64(&r->in); /* the mask: all of it costs the same */
	if (r->in.err)
		return r->in.err;
	ret = p9_fid_get(r->fs, num, &ref);
	if (ret < 0)
		return ret;
	ret = p9_may_try(r, &ref);
	if (ret < 0)
		return ret;
	is_open = ref.file && ref.file->kind <= P9_DIR;
	ret = is_open ? p9_ref_file(r, &ref) : p9_ref_open(r, &ref);
	if (ret == 0)
		ret = p9_stat(r, is_open ? ref.file->fd : ref.fd, &stx);
	if (ret < 0)
		return ret;
	if (ref.node == r->fs->root && stx.stx_nlink == 0)
		__atomic_store_n(&r->fs->root_removed, true, __ATOMIC_RELAXED);
	qid = p9_qid_of(r->fs, &stx);
	write_attr(&r->out, &qid, &stx);
	return 0;
}

/*
 * --- Owners and modes ---
 */

static int chmod_host(const struct p9_fs *fs, int fd, mode_t mode)
{
	if (fchmodat(fs->proc_fd, p9_fd_name(fd).s, mode & 07777, 0) < 0)
		return -errno;
	return 0;
}

/*
 * If owners are not enforced, a new owner that the host does not have, or to
 * whom we may not give files, leaves the file's owner unchanged.
 */
static int host_id(const struct p9_fs *fs, const struct p9_idmap *map,
		   uint32_t *id)
{
	if (*id == P9_NOUID || p9_id_to_host(map, *id, id))
		return 0;
	*id = P9_NOUID;
	return fs->params.security == P9_NONE ? 0 : -EINVAL;
}

/* P9_NOUID leaves an id unchanged. */
static int chown_host(const struct p9_fs *fs, int fd, uint32_t uid,
		      uint32_t gid)
{
	int ret = host_id(fs, &fs->params.uids, &uid);

	if (ret == 0)
		ret = host_id(fs, &fs->params.gids, &gid);
	if (ret < 0)
		return ret;
	if (fchownat(fd, "", uid, gid, AT_EMPTY_PATH) == 0)
		return 0;
	/* EINVAL: the user namespace of the sandbox does not have the id. */
	if ((errno == EPERM || errno == EINVAL) &&
	    fs->params.security == P9_NONE)
		return 0;
	return -errno;
}

static int chmod_mapped(int fd, mode_t mode)
{
	struct statx stx;

	if (statx(fd, "", AT_EMPTY_PATH, STATX_MODE, &stx) < 0)
		return -errno;
	read_mapped(fd, &stx);
	return set32(fd, mode_name, (stx.stx_mode & S_IFMT) | (mode & 07777));
}

static int chown_mapped(int fd, uint32_t uid, uint32_t gid)
{
	int ret = 0;

	if (uid != P9_NOUID)
		ret = set32(fd, uid_name, uid);
	if (ret == 0 && gid != P9_NOUID)
		ret = set32(fd, gid_name, gid);
	return ret;
}

static int own_mapped(int fd, mode_t mode, dev_t rdev, uint32_t uid,
		      uint32_t gid)
{
	int ret = chown_mapped(fd, uid, gid);

	if (ret == 0)
		ret = set32(fd, mode_name, mode);
	if (ret == 0 && (S_ISCHR(mode) || S_ISBLK(mode))) {
		le64 raw = cpu_to_le64(rdev);

		ret = p9_fsetxattr(fd, rdev_name, &raw, sizeof(raw), 0);
	}
	return ret;
}

int p9_own(const struct p9_req *r, int fd, mode_t mode, dev_t rdev,
	   uint32_t uid, uint32_t gid)
{
	const struct p9_fs *fs = r->fs;
	struct statx stx;
	int ret;

	if (fs->params.security == P9_MAPPED)
		return own_mapped(fd, mode, rdev, uid, gid);
	if (statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &stx) < 0)
		return -errno;
	/* Someone on the host has replaced the file meanwhile. */
	if ((stx.stx_mode & S_IFMT) != (mode & S_IFMT) ||
	    (!S_ISDIR(mode) && stx.stx_nlink != 1))
		return -ESTALE;
	ret = chown_host(fs, fd, uid, gid);
	/* Restore what a umask, an ACL or chown() has removed. */
	if (ret == 0 && !S_ISLNK(mode) &&
	    ((stx.stx_mode & 07777) != (mode & 07777) || (mode & 07000)))
		ret = chmod_host(fs, fd, mode);
	return ret;
}

/*
 * --- Tsetattr ---
 */

struct setattr {
	uint32_t valid, mode, uid, gid;
	uint64_t size;
	struct timespec times[2]; /* access, modification */
};

static struct timespec read_time(struct p9_in *in)
{
	uint64_t sec = p9_decode64(in), nsec = p9_decode64(in);

	/* utimensat() gives a few other values a special meaning. */
	return (struct timespec){
		.tv_sec = (time_t)sec,
		.tv_nsec = nsec < NSEC_PER_SEC ? (long)nsec : -1,
	};
}

/* A descriptor to set the size with: the fid's own, or a temporary one. */
static int open_for_size(const struct p9_req *r, struct p9_ref *ref,
			 bool is_open)
{
	int fd, ret;

	if (is_open) {
		ret = p9_ref_file(r, ref);
		return ret < 0 ? ret : ref->file->fd;
	}
	fd = openat(r->fs->proc_fd, p9_fd_name(ref->fd).s,
		    O_WRONLY | O_NOCTTY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

static int set_size(const struct p9_req *r, struct p9_ref *ref, uint64_t size)
{
	bool is_open = ref->file && ref->file->kind == P9_FILE &&
		       (ref->file->flags & O_ACCMODE) != O_RDONLY;
	int fd, ret;

	if (ref->node->type != S_IFREG)
		return ref->node->type == S_IFDIR ? -EISDIR : -EINVAL;
	if (size > INT64_MAX)
		return -EFBIG;
	fd = open_for_size(r, ref, is_open);
	if (fd < 0)
		return fd;
	ret = ftruncate(fd, (off_t)size) < 0 ? -errno : 0;
	if (!is_open)
		close(fd);
	return ret;
}

static int set_time(struct timespec *t, uint32_t valid, uint32_t bit,
		    uint32_t set_bit)
{
	if (!(valid & bit))
		t->tv_nsec = UTIME_OMIT;
	else if (!(valid & set_bit))
		t->tv_nsec = UTIME_NOW;
	else if (t->tv_nsec < 0)
		return -EINVAL;
	return 0;
}

static int set_times(const struct p9_req *r, int fd, struct setattr *sa)
{
	int ret;

	if (!(sa->valid & (P9_SETATTR_ATIME | P9_SETATTR_MTIME)))
		return 0;
	ret = set_time(&sa->times[0], sa->valid, P9_SETATTR_ATIME,
		       P9_SETATTR_ATIME_SET);
	if (ret == 0)
		ret = set_time(&sa->times[1], sa->valid, P9_SETATTR_MTIME,
			       P9_SETATTR_MTIME_SET);
	if (ret == 0 &&
	    utimensat(r->fs->proc_fd, p9_fd_name(fd).s, sa->times, 0) < 0)
		ret = -errno;
	return ret;
}

static int set_owner(const struct p9_req *r, int fd, const struct setattr *sa)
{
	uint32_t uid = sa->valid & P9_SETATTR_UID ? sa->uid : P9_NOUID;
	uint32_t gid = sa->valid & P9_SETATTR_GID ? sa->gid : P9_NOUID;
	/* chown() without ids still updates ctime. */
	bool ctime_only = sa->valid == P9_SETATTR_CTIME;

	if (uid == P9_NOUID && gid == P9_NOUID && !ctime_only)
		return 0;
	if (r->fs->params.security == P9_MAPPED && !ctime_only)
		return chown_mapped(fd, uid, gid);
	return chown_host(r->fs, fd, uid, gid);
}

static int set_mode(const struct p9_req *r, int fd, const struct setattr *sa)
{
	if (!(sa->valid & P9_SETATTR_MODE))
		return 0;
	if (r->fs->params.security == P9_MAPPED)
		return chmod_mapped(fd, sa->mode);
	return chmod_host(r->fs, fd, sa->mode);
}

int p9_setattr(struct p9_req *r)
{
	uint32_t num = p9_decode32(&r->in);
	P9_REF ref = P9_NO_REF;
	struct setattr sa;
	int ret;

	sa.valid = p9_decode32(&r->in);
	sa.mode = p9_decode32(&r->in);
	sa.uid = p9_decode32(&r->in);
	sa.gid = p9_decode32(&r->in);
	sa.size = p9_decode64(&r->in);
	sa.times[0] = read_time(&r->in);
	sa.times[1] = read_time(&r->in);
	if (r->in.err)
		return r->in.err;
	ret = p9_fid_open(r, num, &ref);
	/* chown() clears set-id bits, so the mode is set afterwards. */
	if (ret == 0)
		ret = set_owner(r, ref.fd, &sa);
	if (ret == 0)
		ret = set_mode(r, ref.fd, &sa);
	if (ret == 0 && (sa.valid & P9_SETATTR_SIZE))
		ret = set_size(r, &ref, sa.size);
	if (ret == 0)
		ret = set_times(r, ref.fd, &sa);
	return ret;
}

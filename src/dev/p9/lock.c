/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Locks, of the host's kinds, so that other guests and the host's own programs
 * see them.
 *
 * A lock has an owner here, with a descriptor of its own, as the host's locks
 * that fit belong to an open file (F_OFD_SETLK, flock(2)). The descriptor is
 * closed with the fid that the owner was made by.
 *
 * Linux sends fcntl() and flock() as the same Tlock, with the process that
 * calls. But a lock of fcntl() belongs to the process, whatever fid it uses,
 * and one of flock() to the fid, whatever process uses it. What is known:
 *
 *	a part of the file	fcntl(): the owner is the process.
 *	the whole file		Perhaps flock(): the owner is the fid, and the
 *				host's flock(2) is taken beside the range.
 *
 * To unlock the whole file with P9_LOCK_FLAGS_BLOCK is flock(LOCK_UN), by any
 * process with that fid, or F_SETLKW. Without the flag it is F_SETLK, or merely
 * a process that closes the file or exits, when others may still have it open:
 * the lock of `exec 9>lock; flock 9` outlives flock(1). Such a lock is kept but
 * in doubt. The guest's kernel has compared each request with its own locks, so
 * a request that conflicts with a lock in doubt shows that it is gone.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include <viodev/loop.h>

#include "dev/p9/fs.h"

#define MAX_OWNERS 1024
#define CLIENT_LEN 256

/* How long an unlock is in transit whose lock another process has by now. */
#define TRANSIT_NS UINT64_C(1000000000)

struct p9_owner {
	struct p9_owner *next;
	const struct p9_file *file; /* closed with this one */
	dev_t dev;
	ino_t ino;
	uint32_t proc_id;
	uint32_t was;       /* the process before this one... */
	uint64_t taken_ns;  /* ...until then */
	bool whole;         /* it locks all of the file, or nothing */
	uint8_t type;       /* how; P9_LOCK_UNLCK: not */
	uint8_t flock_type; /* of the host's flock(2), likewise */
	bool flock;         /* the guest's fcntl() would have refused */
	bool doubtful;      /* perhaps the guest has unlocked it */
	int fd;
	char client[CLIENT_LEN];
};

struct lock {
	uint8_t type;
	bool waits;
	uint64_t start, length;
	uint32_t proc_id;
	char client[CLIENT_LEN];
};

static int read_lock(struct p9_in *in, struct lock *l)
{
	l->start = p9_decode64(in);
	l->length = p9_decode64(in);
	l->proc_id = p9_decode32(in);
	p9_decode_string(in, l->client, sizeof(l->client));
	if (in->err)
		return in->err;
	if (l->type > P9_LOCK_UNLCK || l->start > INT64_MAX ||
	    l->length > INT64_MAX - l->start)
		return -EINVAL;
	return 0;
}

static struct flock host_lock(const struct lock *l)
{
	static const short types[] = { F_RDLCK, F_WRLCK, F_UNLCK };

	return (struct flock){
		.l_type = types[l->type],
		.l_whence = SEEK_SET,
		.l_start = (off_t)l->start,
		.l_len = (off_t)l->length,
	};
}

static bool is_whole(const struct lock *l)
{
	return l->start == 0 && l->length == 0;
}

static bool conflict(uint8_t a, uint8_t b)
{
	return a != P9_LOCK_UNLCK && b != P9_LOCK_UNLCK &&
	       (a == P9_LOCK_WRLCK || b == P9_LOCK_WRLCK);
}

/*
 * --- Owners; p9_fs.locks is held ---
 */

/* The next after @o of the same file and guest; the first after NULL. */
static struct p9_owner *owner_next(struct p9_fs *fs, const struct p9_node *node,
				   const struct lock *l, struct p9_owner *o)
{
	o = o ? o->next : fs->owners;
	while (o && (o->dev != node->dev || o->ino != node->ino ||
		     strcmp(o->client, l->client) != 0))
		o = o->next;
	return o;
}

/* The lock is certainly this owner's. */
static bool owns(const struct p9_owner *o, const struct p9_ref *ref,
		 const struct lock *l)
{
	return is_whole(l) ? o->whole && o->file == ref->file :
			     !o->whole && o->proc_id == l->proc_id;
}

/* Another lock of that process, by fcntl(): flock() would conflict. */
static bool owns_another(const struct p9_owner *o, const struct lock *l)
{
	return o->proc_id == l->proc_id &&
	       (!o->whole || (!o->doubtful && conflict(o->type, l->type)));
}

static bool is_free(const struct p9_owner *o, const struct p9_ref *ref)
{
	return o->whole && o->type == P9_LOCK_UNLCK && o->file == ref->file;
}

static struct p9_owner *owner_find(struct p9_fs *fs, const struct p9_ref *ref,
				   const struct lock *l)
{
	struct p9_owner *o, *other = NULL, *unused = NULL;

	for (o = owner_next(fs, ref->node, l, NULL); o;
	     o = owner_next(fs, ref->node, l, o)) {
		if (owns(o, ref, l))
			return o;
		if (owns_another(o, l))
			other = o;
		if (is_free(o, ref))
			unused = o;
	}
	return other ? other : unused;
}

/* Open the file again, for writing if possible, as flock() may need it. */
static int reopen(const struct p9_fs *fs, int fd)
{
	const struct p9_fd_name name = p9_fd_name(fd);
	int new = -1;

	if (!fs->params.ro)
		new = openat(fs->proc_fd, name.s,
			     O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (new < 0)
		new = openat(fs->proc_fd, name.s,
			     O_RDONLY | O_NOCTTY | O_CLOEXEC);
	return new < 0 ? -errno : new;
}

static int owner_create(struct p9_fs *fs, const struct p9_ref *ref,
			const struct lock *l, struct p9_owner **ret_owner)
{
	struct p9_owner *o;
	int ret;

	if (fs->nr_owners == MAX_OWNERS)
		return -ENOLCK;
	ret = p9_fd_admit(fs);
	if (ret < 0)
		return ret;
	o = calloc(1, sizeof(*o));
	ret = o ? reopen(fs, ref->file->fd) : -ENOMEM;
	if (ret < 0) {
		p9_fd_release(fs);
		free(o);
		return ret;
	}
	o->fd = ret;
	o->file = ref->file;
	o->dev = ref->node->dev;
	o->ino = ref->node->ino;
	o->proc_id = l->proc_id;
	o->whole = true;
	o->type = o->flock_type = P9_LOCK_UNLCK;
	memcpy(o->client, l->client, sizeof(o->client));
	o->next = fs->owners;
	fs->owners = o;
	fs->nr_owners++;
	__atomic_store_n(&ref->file->locked, true, __ATOMIC_RELAXED);
	*ret_owner = o;
	return 0;
}

/* Requests that wait for a lock may retry. */
static void unlocked(struct p9_fs *fs)
{
	__atomic_add_fetch(&fs->nr_unlocks, 1, __ATOMIC_RELAXED);
}

void p9_locks_drop(struct p9_fs *fs, struct p9_file *file)
{
	struct p9_owner **link = &fs->owners, *o;

	if (!file->locked)
		return;
	pthread_mutex_lock(&fs->locks);
	while ((o = *link)) {
		if (o->file != file) {
			link = &o->next;
			continue;
		}
		*link = o->next;
		fs->nr_owners--;
		close(o->fd);
		p9_fd_release(fs);
		free(o);
	}
	unlocked(fs);
	pthread_mutex_unlock(&fs->locks);
}

/*
 * --- Tlock, Tgetlock ---
 */

static int get_file(struct p9_req *r, uint32_t num, struct p9_ref *ret_ref)
{
	int ret = p9_fid_file(r, num, ret_ref);

	if (ret == 0 && ret_ref->file->kind != P9_FILE)
		ret = -EBADF;
	return ret;
}

/* File systems without flock(2), or not for such a descriptor, do without. */
static int set_flock(struct p9_owner *o, uint8_t type)
{
	static const int ops[] = { LOCK_SH, LOCK_EX, LOCK_UN };

	if (o->flock_type == type)
		return 0;
	if (flock(o->fd, ops[type] | LOCK_NB) < 0 && errno == EWOULDBLOCK) {
		/* Changing its type has dropped it. */
		if (flock(o->fd, ops[o->flock_type] | LOCK_NB) < 0)
			o->flock_type = P9_LOCK_UNLCK;
		return -EAGAIN;
	}
	o->flock_type = type;
	return 0;
}

/* A descriptor that only reads cannot lock a range for writing. */
static int set_range(struct p9_owner *o, const struct lock *l)
{
	struct flock fl = host_lock(l);
	int ret = fcntl(o->fd, F_OFD_SETLK, &fl);

	if (ret < 0 && errno == EBADF && is_whole(l)) {
		fl.l_type = F_RDLCK;
		ret = fcntl(o->fd, F_OFD_SETLK, &fl);
	}
	if (ret < 0)
		return errno == EACCES ? -EAGAIN : -errno;
	return 0;
}

static int owner_lock(struct p9_owner *o, const struct lock *l)
{
	uint8_t was = o->flock_type;
	int ret = set_flock(o, is_whole(l) ? l->type : P9_LOCK_UNLCK);

	if (ret < 0)
		return ret;
	ret = set_range(o, l);
	if (ret < 0)
		set_flock(o, was);
	return ret;
}

static void owner_unlock(struct p9_fs *fs, struct p9_owner *o)
{
	static const struct lock none = { .type = P9_LOCK_UNLCK };

	owner_lock(o, &none);
	o->whole = true;
	o->type = P9_LOCK_UNLCK;
	o->doubtful = o->flock = false;
	unlocked(fs);
}

/* Record that the owner has the lock, for the requesting process. */
static void owner_took(struct p9_owner *o, const struct p9_ref *ref,
		       const struct lock *l)
{
	int access = ref->file->flags & O_ACCMODE;

	if (o->proc_id != l->proc_id) {
		o->was = o->proc_id;
		o->taken_ns = vio_now_ns();
	}
	o->proc_id = l->proc_id;
	o->file = ref->file;
	__atomic_store_n(&ref->file->locked, true, __ATOMIC_RELAXED);
	o->whole = is_whole(l);
	o->type = l->type;
	o->doubtful = false;
	o->flock = o->whole &&
		   access == (l->type == P9_LOCK_WRLCK ? O_RDONLY : O_WRONLY);
}

/* Drop doubtful locks that conflict with a request: the guest has unlocked. */
static bool resolve_doubts(struct p9_fs *fs, const struct p9_ref *ref,
			   const struct lock *l)
{
	struct p9_owner *o = NULL;
	bool any = false;

	while ((o = owner_next(fs, ref->node, l, o))) {
		if (!o->doubtful || !conflict(o->type, l->type))
			continue;
		owner_unlock(fs, o);
		any = true;
	}
	return any;
}

static int lock(struct p9_fs *fs, const struct p9_ref *ref,
		const struct lock *l)
{
	struct p9_owner *o = owner_find(fs, ref, l);
	int ret = 0;

	if (!o)
		ret = owner_create(fs, ref, l, &o);
	if (ret < 0)
		return ret;
	ret = owner_lock(o, l);
	if (ret == -EAGAIN && resolve_doubts(fs, ref, l))
		ret = owner_lock(o, l);
	if (ret == -EAGAIN)
		return P9_LOCK_BLOCKED;
	if (ret < 0)
		return ret;
	owner_took(o, ref, l);
	/* A lock for reading may have been one for writing. */
	unlocked(fs);
	return P9_LOCK_SUCCESS;
}

/*
 * fcntl() of a process whose lock another one, with the same fid, has taken
 * since, as the guest's kernel let it, before the unlock arrived here.
 */
static bool in_transit(struct p9_owner *o, const struct lock *l)
{
	bool is = o->was == l->proc_id && o->proc_id != l->proc_id &&
		  vio_now_ns() - o->taken_ns < TRANSIT_NS;

	if (is)
		o->was = o->proc_id;
	return is;
}

static void unlock_whole(struct p9_fs *fs, struct p9_owner *o,
			 const struct p9_ref *ref, const struct lock *l)
{
	bool same_proc = o->proc_id == l->proc_id;

	if (!o->whole) {
		if (same_proc)
			owner_unlock(fs, o);
	} else if (o->file == ref->file && l->waits) {
		if (!in_transit(o, l))
			owner_unlock(fs, o);
	} else if (same_proc && !o->flock && o->type != P9_LOCK_UNLCK) {
		o->doubtful = true;
	}
}

/* Of a lock of the whole file, which fcntl() must have made, the rest stays. */
static void unlock_part(struct p9_fs *fs, struct p9_owner *o,
			const struct lock *l)
{
	if (o->proc_id != l->proc_id || o->type == P9_LOCK_UNLCK)
		return;
	owner_lock(o, l);
	o->whole = false;
	unlocked(fs);
}

static int unlock(struct p9_fs *fs, const struct p9_ref *ref,
		  const struct lock *l)
{
	struct p9_owner *o = NULL;

	while ((o = owner_next(fs, ref->node, l, o))) {
		if (is_whole(l))
			unlock_whole(fs, o, ref, l);
		else
			unlock_part(fs, o, l);
	}
	return P9_LOCK_SUCCESS;
}

int p9_lock(struct p9_req *r)
{
	uint32_t num = p9_decode32(&r->in);
	struct lock l = { .type = p9_decode8(&r->in) };
	P9_REF ref = P9_NO_REF;
	int ret;

	l.waits = p9_decode32(&r->in) & P9_LOCK_FLAGS_BLOCK;
	ret = read_lock(&r->in, &l);
	if (ret == 0)
		ret = get_file(r, num, &ref);
	if (ret < 0)
		return ret;
	pthread_mutex_lock(&r->fs->locks);
	ret = l.type == P9_LOCK_UNLCK ? unlock(r->fs, &ref, &l) :
					lock(r->fs, &ref, &l);
	pthread_mutex_unlock(&r->fs->locks);
	if (ret < 0)
		return ret;
	r->blocked = ret == P9_LOCK_BLOCKED && l.waits;
	p9_encode8(&r->out, (uint8_t)ret);
	return 0;
}

/* A process's own locks do not count: the owner that has most of them. */
static struct p9_owner *own_locks(struct p9_fs *fs, const struct p9_ref *ref,
				  const struct lock *l)
{
	struct p9_owner *o = NULL, *own = NULL;

	while ((o = owner_next(fs, ref->node, l, o))) {
		if (o->proc_id == l->proc_id && (!own || !o->whole))
			own = o;
	}
	return own;
}

int p9_getlock(struct p9_req *r)
{
	uint32_t num = p9_decode32(&r->in);
	struct lock l = { .type = p9_decode8(&r->in) };
	P9_REF ref = P9_NO_REF;
	struct p9_owner *o;
	struct flock fl;
	int ret;

	ret = read_lock(&r->in, &l);
	if (ret == 0)
		ret = get_file(r, num, &ref);
	if (ret < 0)
		return ret;
	/*
	 * Linux sends this type whatever its program tests for, see
	 * v9fs_file_getlock(). A lock for writing conflicts with any other.
	 */
	if (l.type == P9_LOCK_UNLCK)
		l.type = P9_LOCK_WRLCK;
	fl = host_lock(&l);
	pthread_mutex_lock(&r->fs->locks);
	o = own_locks(r->fs, &ref, &l);
	ret = fcntl(o ? o->fd : ref.file->fd, F_OFD_GETLK, &fl);
	pthread_mutex_unlock(&r->fs->locks);
	if (ret < 0)
		return -errno;
	if (fl.l_type != F_UNLCK) {
		l.start = (uint64_t)fl.l_start;
		l.length = (uint64_t)fl.l_len;
		l.proc_id = fl.l_pid > 0 ? (uint32_t)fl.l_pid : 0;
	}
	p9_encode8(&r->out, fl.l_type == F_UNLCK ? P9_LOCK_UNLCK :
			    fl.l_type == F_WRLCK ? P9_LOCK_WRLCK :
						   P9_LOCK_RDLCK);
	p9_encode64(&r->out, l.start);
	p9_encode64(&r->out, l.length);
	p9_encode32(&r->out, l.proc_id);
	p9_encode_string(&r->out, l.client);
	return 0;
}

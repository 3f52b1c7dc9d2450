/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Byte range locks, of the host's kind, so that other guests and the host's
 * own programs see them.
 *
 * A lock belongs to a process of a guest (proc_id and client_id), not to a
 * fid: one process may lock a file that it has open twice. The host's locks
 * that fit belong to an open file (F_OFD_SETLK), so each pair of file and
 * owner gets a descriptor. It is closed with the fid that created it: closing a
 * file ends the process's locks on it, as in POSIX.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "dev/p9/fs.h"

#define MAX_OWNERS 1024
#define CLIENT_LEN 256

/*
 * After the reply "blocked" a guest asks again half a minute later; and when
 * one of its processes waits for another, it asks while the unlock is in
 * transit. So a request that may wait does so briefly, and not on all of the
 * threads: the unlock needs one.
 */
#define WAIT_MS     500
#define MAX_WAITERS 4

struct p9_owner {
	struct p9_owner *next;
	const struct p9_file *file; /* that created it */
	dev_t dev;
	ino_t ino;
	uint32_t proc_id;
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

/*
 * --- Owners; p9_fs.locks is held ---
 */

static struct p9_owner *owner_find(struct p9_fs *fs, const struct p9_node *node,
				   const struct lock *l)
{
	struct p9_owner *o = fs->owners;

	while (o &&
	       (o->dev != node->dev || o->ino != node->ino ||
		o->proc_id != l->proc_id || strcmp(o->client, l->client) != 0))
		o = o->next;
	return o;
}

/* Another open file; for writing if that can be, for the sake of flock(). */
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
		p9_fd_gone(fs);
		free(o);
		return ret;
	}
	o->fd = ret;
	o->file = ref->file;
	o->dev = ref->node->dev;
	o->ino = ref->node->ino;
	o->proc_id = l->proc_id;
	memcpy(o->client, l->client, sizeof(o->client));
	o->next = fs->owners;
	fs->owners = o;
	fs->nr_owners++;
	__atomic_store_n(&ref->file->locked, true, __ATOMIC_RELAXED);
	*ret_owner = o;
	return 0;
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
		p9_fd_gone(fs);
		free(o);
	}
	pthread_cond_broadcast(&fs->unlocked);
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

static int set_lock(struct p9_fs *fs, const struct p9_ref *ref,
		    const struct lock *l)
{
	struct p9_owner *o = owner_find(fs, ref->node, l);
	struct flock fl = host_lock(l);
	int ret = 0;

	if (!o && l->type == P9_LOCK_UNLCK)
		return P9_LOCK_SUCCESS;
	if (!o)
		ret = owner_create(fs, ref, l, &o);
	if (ret < 0)
		return ret;
	if (fcntl(o->fd, F_OFD_SETLK, &fl) < 0)
		return errno == EAGAIN || errno == EACCES ? P9_LOCK_BLOCKED :
							    -errno;
	/* A lock for reading may have been one for writing. */
	pthread_cond_broadcast(&fs->unlocked);
	return P9_LOCK_SUCCESS;
}

static struct timespec end_of_wait(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	t.tv_nsec += WAIT_MS * 1000000L;
	t.tv_sec += t.tv_nsec / 1000000000L;
	t.tv_nsec %= 1000000000L;
	return t;
}

/* p9_fs.locks is held, but for the waiting. */
static int wait_lock(struct p9_fs *fs, const struct p9_ref *ref,
		     const struct lock *l)
{
	const struct timespec end = end_of_wait();
	const unsigned wakes = __atomic_load_n(&fs->wakes, __ATOMIC_RELAXED);
	int ret, err = 0;

	while ((ret = set_lock(fs, ref, l)) == P9_LOCK_BLOCKED && l->waits &&
	       err == 0 && fs->nr_lock_waiters < MAX_WAITERS &&
	       wakes == __atomic_load_n(&fs->wakes, __ATOMIC_RELAXED)) {
		fs->nr_lock_waiters++;
		err = pthread_cond_timedwait(&fs->unlocked, &fs->locks, &end);
		fs->nr_lock_waiters--;
	}
	return ret;
}

/*
 * Not with the mutex, which is held over system calls: who begins to wait just
 * now may miss it and waits its little while.
 */
void p9_locks_wake(struct p9_fs *fs)
{
	__atomic_add_fetch(&fs->wakes, 1, __ATOMIC_RELAXED);
	pthread_cond_broadcast(&fs->unlocked);
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
	ret = wait_lock(r->fs, &ref, &l);
	pthread_mutex_unlock(&r->fs->locks);
	if (ret < 0)
		return ret;
	p9_encode8(&r->out, (uint8_t)ret);
	return 0;
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
	 * Linux asks so, whatever its program asked for (v9fs_file_getlock()):
	 * is there any lock at all? That is what one for writing would hit.
	 */
	if (l.type == P9_LOCK_UNLCK)
		l.type = P9_LOCK_WRLCK;
	fl = host_lock(&l);
	pthread_mutex_lock(&r->fs->locks);
	o = owner_find(r->fs, ref.node, &l);
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

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fids, the guest's numbers for what it uses, and open files.
 *
 * A request never holds a fid: it takes references to the node and the file
 * that the fid stands for at that moment and works on those. Concurrent
 * requests for one fid cannot free anything in use by each other, and those
 * that change it (p9_fid_change()) find out which was first.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/limits.h>
#include <stdlib.h>
#include <unistd.h>

#include "dev/p9/fs.h"

/* p9_fs.lock is held. */
static struct p9_fid *find(struct p9_fs *fs, uint32_t num)
{
	struct p9_entry *e = *p9_table_slot(&fs->fids, num * fs->hash_mul);

	while (e && ((struct p9_fid *)e)->num != num)
		e = e->next;
	return (struct p9_fid *)e;
}

int p9_fid_get(struct p9_fs *fs, uint32_t num, struct p9_ref *ret_ref)
{
	struct p9_fid *fid;

	pthread_mutex_lock(&fs->lock);
	fid = find(fs, num);
	if (fid) {
		*ret_ref = (struct p9_ref){
			.fs = fs,
			.node = fid->node,
			.file = fid->file,
			.uid = fid->uid,
			.fd = -1,
		};
		p9_node_ref(fid->node);
		if (fid->file)
			fid->file->refs++;
	}
	pthread_mutex_unlock(&fs->lock);
	return fid ? 0 : -EBADF;
}

int p9_fid_open(const struct p9_req *r, uint32_t num, struct p9_ref *ret_ref)
{
	int ret = p9_fid_get(r->fs, num, ret_ref);

	return ret < 0 ? ret : p9_ref_open(r, ret_ref);
}

/* The descriptor is in use, if the file has one, or is given @take_fd. */
static bool use_file(struct p9_ref *ref, int take_fd)
{
	struct p9_file *file = ref->file;

	pthread_mutex_lock(&ref->fs->lock);
	if (file->fd < 0 && take_fd >= 0) {
		file->fd = take_fd;
		take_fd = -1;
	}
	ref->uses_file = file->fd >= 0;
	if (ref->uses_file)
		p9_file_use(ref->fs, file);
	pthread_mutex_unlock(&ref->fs->lock);
	if (take_fd >= 0) { /* another request was faster */
		close(take_fd);
		p9_fd_release(ref->fs);
	}
	return ref->uses_file;
}

static int reopen(const struct p9_req *r, struct p9_ref *ref)
{
	int fd, ret = p9_ref_open(r, ref);

	if (ret == 0)
		ret = p9_fd_admit(r->fs);
	if (ret < 0)
		return ret;
	fd = p9_open_node(r, ref, ref->file->flags & ~O_TRUNC);
	if (fd < 0) {
		p9_fd_release(r->fs);
		return fd;
	}
	use_file(ref, fd);
	return 0;
}

int p9_ref_file(const struct p9_req *r, struct p9_ref *ref)
{
	if (ref->file->kind > P9_DIR || use_file(ref, -1))
		return 0;
	return r->nowait ? -EAGAIN : reopen(r, ref);
}

int p9_fid_file(const struct p9_req *r, uint32_t num, struct p9_ref *ret_ref)
{
	int ret = p9_fid_get(r->fs, num, ret_ref);

	if (ret < 0)
		return ret;
	return ret_ref->file ? p9_ref_file(r, ret_ref) : -EBADF;
}

#define FID_BYTES (sizeof(struct p9_fid) + P9_SLOT_BYTES)

static int add(struct p9_fs *fs, struct p9_fid *fid)
{
	if (find(fs, fid->num))
		return -EBADF;
	if (!p9_hold(fs, FID_BYTES))
		return -ENFILE;
	p9_table_add(&fs->fids, &fid->entry, fid->num * fs->hash_mul);
	p9_node_ref(fid->node);
	if (fid->file)
		fid->file->refs++;
	return 0;
}

int p9_fid_add(struct p9_fs *fs, uint32_t num, const struct p9_ref *ref)
{
	struct p9_fid *fid;
	int ret;

	if (num == P9_NOFID)
		return -EBADF;
	fid = calloc(1, sizeof(*fid));
	if (!fid)
		return -ENOMEM;
	fid->num = num;
	fid->uid = ref->uid;
	fid->node = ref->node;
	fid->file = ref->file;
	pthread_mutex_lock(&fs->lock);
	ret = add(fs, fid);
	pthread_mutex_unlock(&fs->lock);
	if (ret < 0)
		free(fid);
	return ret;
}

int p9_fid_change(struct p9_fs *fs, uint32_t num, const struct p9_ref *was,
		  struct p9_node *node, struct p9_file *file)
{
	struct p9_node *old = NULL;
	struct p9_fid *fid;

	pthread_mutex_lock(&fs->lock);
	fid = find(fs, num);
	if (fid && fid->node == was->node && !fid->file) {
		old = fid->node;
		fid->node = node;
		fid->file = file;
		p9_node_ref(node);
		if (file)
			file->refs++;
	}
	pthread_mutex_unlock(&fs->lock);
	if (!old)
		return -EBUSY;
	p9_node_put(fs, old);
	return 0;
}

int p9_fid_remove(struct p9_fs *fs, uint32_t num, struct p9_ref *ret_ref)
{
	struct p9_fid *fid;

	pthread_mutex_lock(&fs->lock);
	fid = find(fs, num);
	if (fid) {
		p9_table_remove(&fs->fids, &fid->entry);
		p9_release(fs, FID_BYTES);
		*ret_ref = (struct p9_ref){
			.fs = fs,
			.node = fid->node,
			.file = fid->file,
			.uid = fid->uid,
			.fd = -1,
		};
	}
	pthread_mutex_unlock(&fs->lock);
	free(fid);
	return fid ? 0 : -EBADF;
}

/*
 * --- Files ---
 */

/*
 * Those whose descriptor may be given up: of regular files. A directory's has
 * a place in it. p9_fs.lock is held.
 */
static void idle_add(struct p9_fs *fs, struct p9_file *file)
{
	if (file->users || file->fd < 0 || file->kind != P9_FILE)
		return;
	file->older = fs->newest_file;
	file->newer = NULL;
	*(fs->newest_file ? &fs->newest_file->newer : &fs->oldest_file) = file;
	fs->newest_file = file;
	file->idle = true;
}

static void idle_remove(struct p9_fs *fs, struct p9_file *file)
{
	if (!file->idle)
		return;
	*(file->older ? &file->older->newer : &fs->oldest_file) = file->newer;
	*(file->newer ? &file->newer->older : &fs->newest_file) = file->older;
	file->idle = false;
}

void p9_file_use(struct p9_fs *fs, struct p9_file *file)
{
	idle_remove(fs, file);
	file->users++;
}

void p9_file_unuse(struct p9_fs *fs, struct p9_file *file)
{
	if (--file->users == 0)
		idle_add(fs, file);
}

int p9_file_give_up(struct p9_fs *fs, bool *ret_local)
{
	struct p9_file *file = fs->oldest_file;
	int fd;

	if (!file)
		return -EMFILE;
	idle_remove(fs, file);
	fd = file->fd;
	file->fd = -1;
	*ret_local = !file->slow;
	return fd;
}

/* With the name of an attribute, which only P9_XATTR_WRITE has. */
#define FILE_BYTES (sizeof(struct p9_file) + XATTR_NAME_MAX)

struct p9_file *p9_file_create(struct p9_fs *fs, enum p9_kind kind, int fd)
{
	struct p9_file *file = calloc(1, sizeof(*file));
	bool fits;

	if (!file)
		return NULL;
	file->kind = kind;
	file->fd = fd;
	file->refs = 1;
	pthread_mutex_lock(&fs->lock);
	fits = p9_hold(fs, FILE_BYTES);
	fs->nr_files += fits;
	if (fits)
		idle_add(fs, file);
	pthread_mutex_unlock(&fs->lock);
	if (!fits) {
		free(file);
		return NULL;
	}
	pthread_mutex_init(&file->lock, NULL);
	return file;
}

static bool free_waits(const struct p9_file *file)
{
	bool local = !file->slow && !file->locked;

	return (file->fd >= 0 || file->locked) &&
	       p9_close_waits(file->fd, local);
}

void p9_file_put(struct p9_fs *fs, struct p9_file *file)
{
	bool last;

	if (!file)
		return;
	pthread_mutex_lock(&fs->lock);
	last = --file->refs == 0;
	if (last) {
		idle_remove(fs, file);
		fs->nr_files--;
		p9_release(fs, FILE_BYTES);
		fs->xattr_bytes -= file->value_len;
	}
	pthread_mutex_unlock(&fs->lock);
	if (!last)
		return;
	if (free_waits(file))
		p9_close_later(fs, -1, file);
	else
		p9_file_free(fs, file);
}

void p9_file_free(struct p9_fs *fs, struct p9_file *file)
{
	p9_locks_drop(fs, file);
	if (file->fd >= 0) {
		close(file->fd);
		p9_fd_release(fs);
	}
	pthread_mutex_destroy(&file->lock);
	free(file->name);
	free(file->value);
	free(file);
}

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
#include <linux/limits.h>
#include <stdlib.h>
#include <unistd.h>

#include "dev/p9/fs.h"

/* p9_fs.lock is held. */
static struct p9_fid **find(struct p9_fs *fs, uint32_t num)
{
	uint32_t slot = num * fs->hash_mul >> P9_FID_SHIFT;
	struct p9_fid **link = &fs->fids[slot];

	while (*link && (*link)->num != num)
		link = &(*link)->next;
	return link;
}

int p9_fid_get(struct p9_fs *fs, uint32_t num, struct p9_ref *ret_ref)
{
	struct p9_fid *fid;

	pthread_mutex_lock(&fs->lock);
	fid = *find(fs, num);
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

int p9_fid_file(struct p9_fs *fs, uint32_t num, struct p9_ref *ret_ref)
{
	int ret = p9_fid_get(fs, num, ret_ref);

	return ret == 0 && !ret_ref->file ? -EBADF : ret;
}

static int add(struct p9_fs *fs, struct p9_fid *fid)
{
	struct p9_fid **link = find(fs, fid->num);

	if (*link)
		return -EBADF;
	if (fs->nr_fids == P9_MAX_FIDS || !p9_hold(fs, sizeof(*fid)))
		return -ENFILE;
	*link = fid;
	fs->nr_fids++;
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
	fid = *find(fs, num);
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
	struct p9_fid **link, *fid;

	pthread_mutex_lock(&fs->lock);
	link = find(fs, num);
	fid = *link;
	if (fid) {
		*link = fid->next;
		fs->nr_fids--;
		p9_release(fs, sizeof(*fid));
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

	return file->fd >= 0 && p9_close_waits(file->fd, local);
}

void p9_file_put(struct p9_fs *fs, struct p9_file *file)
{
	bool last;

	if (!file)
		return;
	pthread_mutex_lock(&fs->lock);
	last = --file->refs == 0;
	if (last) {
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
		p9_fd_gone(fs);
	}
	pthread_mutex_destroy(&file->lock);
	free(file->name);
	free(file->value);
	free(file);
}

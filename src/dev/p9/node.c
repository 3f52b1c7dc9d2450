/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Nodes: one for each file of the host that the guest stands on, found by the
 * directory it is in and its name there.
 *
 *	attached, fd open    in the hash; idle when no request uses the fd
 *	   |  ^              (then it is in the list, the oldest first)
 *	   |  | reopen()     by the names from the nearest open ancestor; the
 *	   v  |              inode must be the same as before
 *	attached, no fd      descriptors ran short: give_up()
 *	detached, fd open    unlinked or replaced: the fd is kept to the end
 *
 * The names are those that the guest knows. Whoever renames beside it, on the
 * host, may make a node without fd unfindable: -ESTALE, never another file.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "dev/p9/fs.h"

#define RESOLVE_SAFE \
	(RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS)

#define MAX_TRIES 64

static int open_path(int dir_fd, const char *path, uint64_t resolve)
{
	struct open_how how = {
		.flags = O_PATH | O_NOFOLLOW | O_CLOEXEC,
		.resolve = RESOLVE_SAFE | resolve,
	};
	long fd = -1;

	/*
	 * EAGAIN: a concurrent rename. A file system in user space may
	 * return it for ever.
	 */
	for (int i = 0; i < MAX_TRIES; i++) {
		fd = syscall(SYS_openat2, dir_fd, path, &how, sizeof(how));
		if (fd >= 0 || errno != EAGAIN || (resolve & RESOLVE_CACHED))
			break;
	}
	return fd < 0 ? -errno : (int)fd;
}

/*
 * Without waiting: -EAGAIN for what is not cached, or on another file system
 * than @dir_fd.
 */
static int try_path(int dir_fd, const char *path)
{
	int fd = open_path(dir_fd, path, RESOLVE_CACHED | RESOLVE_NO_XDEV);

	return fd == -EXDEV ? -EAGAIN : fd;
}

static dev_t dev_of(const struct statx *stx)
{
	return makedev(stx->stx_dev_major, stx->stx_dev_minor);
}

static bool is_inode(const struct p9_node *node, const struct statx *stx)
{
	return node->dev == dev_of(stx) && node->ino == stx->stx_ino &&
	       node->type == (stx->stx_mode & S_IFMT) &&
	       node->born.tv_sec == stx->stx_btime.tv_sec &&
	       node->born.tv_nsec == stx->stx_btime.tv_nsec;
}

/* It was beneath a root that the host has removed. */
static bool is_gone(const struct p9_fs *fs, const struct p9_node *node)
{
	return node->root_nr != fs->root_nr;
}

/* On the export's own file system; of others mounted there nothing is known. */
static bool is_local(const struct p9_fs *fs, const struct p9_node *node)
{
	return node->dev == fs->root->dev;
}

/*
 * --- The table; p9_fs.lock is held ---
 */

static uint32_t hash_of(const struct p9_fs *fs, const struct p9_node *dir,
			const char *name)
{
	uint32_t h = (uint32_t)((uintptr_t)dir >> 4) * fs->hash_mul;

	while (*name)
		h = (h ^ (uint8_t)*name++) * 16777619u;
	return (h ^ h >> 16) * fs->hash_mul;
}

static struct p9_node *find(struct p9_fs *fs, const struct p9_node *dir,
			    const char *name)
{
	uint32_t hash = hash_of(fs, dir, name);
	struct p9_entry *e = *p9_table_slot(&fs->nodes, hash);

	for (; e; e = e->next) {
		struct p9_node *node = (struct p9_node *)e;

		if (e->hash == hash && node->parent == dir &&
		    strcmp(node->name, name) == 0)
			return node;
	}
	return NULL;
}

static void hash(struct p9_fs *fs, struct p9_node *node)
{
	p9_table_add(&fs->nodes, &node->entry,
		     hash_of(fs, node->parent, node->name));
}

static void unhash(struct p9_fs *fs, struct p9_node *node)
{
	p9_table_remove(&fs->nodes, &node->entry);
}

static void idle_remove(struct p9_fs *fs, struct p9_node *node)
{
	if (!node->idle)
		return;
	*(node->older ? &node->older->newer : &fs->oldest) = node->newer;
	*(node->newer ? &node->newer->older : &fs->newest) = node->older;
	node->idle = false;
}

static void idle_add(struct p9_fs *fs, struct p9_node *node)
{
	if (node->users || node->fd < 0 || node->detached || !node->parent)
		return;
	node->older = fs->newest;
	node->newer = NULL;
	*(fs->newest ? &fs->newest->newer : &fs->oldest) = node;
	fs->newest = node;
	node->idle = true;
}

/* A descriptor to be closed without the lock; -1: none. */
struct given_up {
	int fd;
	bool local;
};

/*
 * Count another descriptor. When they run short, the node idle for the longest
 * gives up its own, or else an open file: some clients keep those as well.
 */
static int admit(struct p9_fs *fs, struct given_up *ret_up)
{
	struct p9_node *node = fs->oldest;

	if (fs->nr_fds < fs->max_fds) {
		fs->nr_fds++;
		return 0;
	}
	if (!node) {
		ret_up->fd = p9_file_give_up(fs, &ret_up->local);
		return ret_up->fd < 0 ? ret_up->fd : 0;
	}
	idle_remove(fs, node);
	*ret_up = (struct given_up){ node->fd, is_local(fs, node) };
	node->fd = -1;
	return 0;
}

static void close_given_up(struct p9_fs *fs, const struct given_up *up)
{
	if (up->fd >= 0)
		p9_close(fs, up->fd, up->local);
}

int p9_fd_admit(struct p9_fs *fs)
{
	struct given_up up = { .fd = -1 };
	int ret;

	pthread_mutex_lock(&fs->lock);
	ret = admit(fs, &up);
	pthread_mutex_unlock(&fs->lock);
	close_given_up(fs, &up);
	return ret;
}

void p9_fd_release(struct p9_fs *fs)
{
	pthread_mutex_lock(&fs->lock);
	fs->nr_fds--;
	pthread_mutex_unlock(&fs->lock);
}

void p9_node_ref(struct p9_node *node)
{
	node->refs++;
}

static void use(struct p9_fs *fs, struct p9_node *node)
{
	idle_remove(fs, node);
	node->users++;
}

static void unuse(struct p9_fs *fs, struct p9_node *node)
{
	if (--node->users == 0)
		idle_add(fs, node);
}

#define NODE_BYTES (sizeof(struct p9_node) + P9_SLOT_BYTES)

static void release_node(struct p9_fs *fs, const struct p9_node *node)
{
	p9_release(fs, NODE_BYTES);
	p9_release(fs, strlen(node->name) + 1);
}

/*
 * Drop a reference; the last ones of its ancestors may go with it. Nodes
 * without references are added to @dead, for bury().
 */
static void put(struct p9_fs *fs, struct p9_node *node, struct p9_node **dead)
{
	while (node && --node->refs == 0) {
		struct p9_node *parent = node->parent;

		if (parent)
			unhash(fs, node);
		idle_remove(fs, node);
		fs->nr_nodes--;
		if (node->name) /* not the root */
			release_node(fs, node);
		fs->nr_fds -= node->fd >= 0;
		node->entry.next = *dead ? &(*dead)->entry : NULL;
		*dead = node;
		node = parent;
	}
}

/* Without the lock: the last close of an unlinked file frees its blocks. */
static void bury(struct p9_fs *fs, struct p9_node *dead)
{
	while (dead) {
		struct p9_node *node = dead;

		dead = (struct p9_node *)node->entry.next;
		if (node->fd >= 0)
			p9_close(fs, node->fd, is_local(fs, node));
		free(node->name);
		free(node);
	}
}

static void detach(struct p9_fs *fs, struct p9_node *node,
		   struct p9_node **dead)
{
	struct p9_node *parent = node->parent;

	if (!parent)
		return;
	unhash(fs, node);
	idle_remove(fs, node);
	node->parent = NULL;
	node->detached = true;
	put(fs, parent, dead);
}

/*
 * --- References ---
 */

void p9_node_put(struct p9_fs *fs, struct p9_node *node)
{
	struct p9_node *dead = NULL;

	pthread_mutex_lock(&fs->lock);
	put(fs, node, &dead);
	pthread_mutex_unlock(&fs->lock);
	bury(fs, dead);
}

void p9_ref_put(struct p9_ref *ref)
{
	struct p9_node *dead = NULL;

	if (ref->node) {
		pthread_mutex_lock(&ref->fs->lock);
		if (ref->fd >= 0)
			unuse(ref->fs, ref->node);
		if (ref->uses_file)
			p9_file_unuse(ref->fs, ref->file);
		put(ref->fs, ref->node, &dead);
		pthread_mutex_unlock(&ref->fs->lock);
	}
	bury(ref->fs, dead);
	if (ref->file)
		p9_file_put(ref->fs, ref->file);
	*ref = (struct p9_ref)P9_NO_REF;
}

/*
 * The names from an ancestor whose descriptor is open, which is returned in
 * use, down to @node. p9_fs.lock is held.
 */
static int path_from(struct p9_fs *fs, struct p9_node *node, char *path,
		     size_t size, struct p9_node **ret_from)
{
	char *at = path + size - 1;

	*at = '\0';
	while (node->fd < 0) {
		size_t len = strlen(node->name);

		if (!node->parent)
			return -ESTALE;
		if (len + 1 > (size_t)(at - path))
			return -ENAMETOOLONG;
		if (*at)
			*--at = '/';
		at -= len;
		memcpy(at, node->name, len);
		node = node->parent;
	}
	memmove(path, at, (size_t)(path + size - at));
	use(fs, node);
	*ret_from = node;
	return 0;
}

/* Open the node's inode again; p9_fs.names is held. Returns an fd. */
static int reopen(struct p9_fs *fs, struct p9_node *node)
{
	char path[4096];
	struct p9_node *from;
	struct statx stx;
	int ret, fd;

	pthread_mutex_lock(&fs->lock);
	ret = node->detached ? -ESTALE :
			       path_from(fs, node, path, sizeof(path), &from);
	pthread_mutex_unlock(&fs->lock);
	if (ret < 0)
		return ret;

	/* No path: another request was faster. */
	fd = path[0] ? open_path(from->fd, path, 0) :
		       fcntl(from->fd, F_DUPFD_CLOEXEC, 0);
	pthread_mutex_lock(&fs->lock);
	unuse(fs, from);
	pthread_mutex_unlock(&fs->lock);

	if (fd < 0)
		return fd == -ENOENT || fd == -ENOTDIR || fd == -ELOOP ?
			       -ESTALE :
			       fd;
	if (statx(fd, "", AT_EMPTY_PATH, P9_STATX_MASK, &stx) == 0 &&
	    is_inode(node, &stx))
		return fd;
	close(fd);
	return -ESTALE;
}

/* The node gets a descriptor if it has none, and is in use. */
static int node_open(struct p9_fs *fs, struct p9_node *node, int take_fd)
{
	struct given_up up = { .fd = -1 };
	int ret = -EAGAIN;

	pthread_mutex_lock(&fs->lock);
	if (is_gone(fs, node))
		ret = -ESTALE;
	else if (node->fd < 0 && take_fd >= 0) {
		ret = admit(fs, &up);
		if (ret == 0) {
			node->fd = take_fd;
			take_fd = -1;
		}
	}
	if (node->fd >= 0 && !is_gone(fs, node)) {
		use(fs, node);
		ret = node->fd;
	}
	pthread_mutex_unlock(&fs->lock);
	close_given_up(fs, &up);
	if (take_fd >= 0)
		close(take_fd);
	return ret;
}

/* With p9_fs.names held. */
static int ref_open_named(struct p9_ref *ref)
{
	int fd = node_open(ref->fs, ref->node, -1);

	if (fd == -EAGAIN) {
		fd = reopen(ref->fs, ref->node);
		if (fd >= 0)
			fd = node_open(ref->fs, ref->node, fd);
	}
	if (fd < 0)
		return fd;
	ref->fd = fd;
	return 0;
}

int p9_may_try(const struct p9_req *r, const struct p9_ref *ref)
{
	return r->nowait && !is_local(r->fs, ref->node) ? -EAGAIN : 0;
}

int p9_ref_open(const struct p9_req *r, struct p9_ref *ref)
{
	int ret = p9_may_try(r, ref);

	if (ret < 0)
		return ret;
	ret = node_open(ref->fs, ref->node, -1);
	if (ret >= 0) {
		ref->fd = ret;
		return 0;
	}
	if (r->nowait)
		return -EAGAIN;
	pthread_mutex_lock(&ref->fs->names);
	ret = ref_open_named(ref);
	pthread_mutex_unlock(&ref->fs->names);
	return ret;
}

/*
 * --- Walking ---
 */

static bool hold_node(struct p9_fs *fs, const char *name)
{
	if (!p9_hold(fs, NODE_BYTES))
		return false;
	if (p9_hold(fs, strlen(name) + 1))
		return true;
	p9_release(fs, NODE_BYTES);
	return false;
}

static struct p9_node *node_create(struct p9_fs *fs, struct p9_node *dir,
				   const char *name, const struct statx *stx)
{
	struct p9_node *node = calloc(1, sizeof(*node));

	if (node)
		node->name = strdup(name);
	if (!node || !node->name || !hold_node(fs, name)) {
		if (node)
			free(node->name);
		free(node);
		return NULL;
	}
	node->fd = -1;
	node->root_nr = fs->root_nr;
	node->dev = dev_of(stx);
	node->ino = stx->stx_ino;
	node->type = stx->stx_mode & S_IFMT;
	node->born = stx->stx_btime;
	node->parent = dir;
	dir->refs++;
	fs->nr_nodes++;
	hash(fs, node);
	return node;
}

/* The node of an entry as it was found just now, with a reference. */
static struct p9_node *node_enter(struct p9_fs *fs, struct p9_node *dir,
				  const char *name, const struct statx *stx)
{
	struct p9_node *node, *dead = NULL;

	pthread_mutex_lock(&fs->lock);
	node = find(fs, dir, name);
	if (node && (is_gone(fs, node) || !is_inode(node, stx))) {
		detach(fs, node, &dead);
		node = NULL;
	}
	if (!node)
		node = node_create(fs, dir, name, stx);
	if (node)
		node->refs++;
	pthread_mutex_unlock(&fs->lock);
	bury(fs, dead);
	return node;
}

int p9_lookup(const struct p9_req *r, const struct p9_ref *dir,
	      const char *name, struct p9_ref *ret_ref, struct statx *ret_stx)
{
	P9_REF ref = { .fs = r->fs, .uid = dir->uid, .fd = -1 };
	int fd, ret = 0;

	if (dir->node->type != S_IFDIR)
		return -ENOTDIR;
	fd = r->nowait ? try_path(dir->fd, name) : open_path(dir->fd, name, 0);
	if (fd == -ENOENT && dir->node == r->fs->root)
		p9_fs_check_root(r->fs);
	if (fd < 0)
		return fd;
	if (statx(fd, "", AT_EMPTY_PATH, P9_STATX_MASK, ret_stx) < 0)
		ret = -errno;
	else if (!(ref.node = node_enter(r->fs, dir->node, name, ret_stx)))
		ret = -ENFILE;
	if (ret < 0) {
		close(fd);
		return ret;
	}
	ret = node_open(r->fs, ref.node, fd);
	if (ret < 0)
		return ret;
	ref.fd = ret;
	ret = p9_map_stat(r, ref.fd, ret_stx);
	if (ret < 0)
		return ret;
	*ret_ref = ref;
	ref = (struct p9_ref)P9_NO_REF;
	return 0;
}

int p9_parent(const struct p9_req *r, const struct p9_ref *ref,
	      struct p9_ref *ret_ref, struct statx *ret_stx)
{
	struct p9_fs *fs = r->fs;
	P9_REF up = { .fs = fs, .uid = ref->uid, .fd = -1 };
	int ret;

	if (ref->node->type != S_IFDIR)
		return -ENOTDIR;
	pthread_mutex_lock(&fs->lock);
	up.node = ref->node == fs->root ? fs->root : ref->node->parent;
	if (up.node)
		up.node->refs++;
	pthread_mutex_unlock(&fs->lock);
	if (!up.node)
		return -ESTALE;
	ret = p9_ref_open(r, &up);
	if (ret == 0)
		ret = p9_stat(r, up.fd, ret_stx);
	if (ret < 0)
		return ret;
	*ret_ref = up;
	up = (struct p9_ref)P9_NO_REF;
	return 0;
}

/*
 * --- Names that change ---
 */

void p9_name_hold(const struct p9_req *r, struct p9_node *dir, const char *name,
		  struct p9_ref *ret_ref)
{
	struct p9_ref ref = { .fs = r->fs, .fd = -1 };

	pthread_mutex_lock(&r->fs->lock);
	ref.node = find(r->fs, dir, name);
	if (ref.node)
		ref.node->refs++;
	pthread_mutex_unlock(&r->fs->lock);
	/* On failure it is stale, and stays so. */
	if (ref.node)
		ref_open_named(&ref);
	*ret_ref = ref;
}

void p9_name_removed(struct p9_fs *fs, struct p9_node *node)
{
	struct p9_node *dead = NULL;

	if (!node)
		return;
	pthread_mutex_lock(&fs->lock);
	detach(fs, node, &dead);
	pthread_mutex_unlock(&fs->lock);
	bury(fs, dead);
}

static bool is_above(const struct p9_node *node, const struct p9_node *dir)
{
	while (dir && dir != node)
		dir = dir->parent;
	return dir;
}

/* Account for @name in the place of @old. */
static bool hold_instead(struct p9_fs *fs, const char *name, const char *old)
{
	p9_release(fs, strlen(old) + 1);
	if (p9_hold(fs, strlen(name) + 1))
		return true;
	p9_hold(fs, strlen(old) + 1); /* there was room for it */
	return false;
}

void p9_name_moved(struct p9_fs *fs, struct p9_node *node, struct p9_node *dir,
		   const char *name)
{
	struct p9_node *old, *parent, *dead = NULL;
	char *copy = strdup(name);

	pthread_mutex_lock(&fs->lock);
	old = find(fs, dir, name);
	if (old && old != node)
		detach(fs, old, &dead);
	/*
	 * A directory was moved into what is known as its own descendant: the
	 * host has moved it, and its place is unknown.
	 */
	if (node && (!copy || is_above(node, dir)))
		detach(fs, node, &dead);
	if (node && node->parent && !hold_instead(fs, copy, node->name))
		detach(fs, node, &dead);
	if (node && node->parent) {
		parent = node->parent;
		unhash(fs, node);
		free(node->name);
		node->name = copy;
		copy = NULL;
		node->parent = dir;
		dir->refs++;
		hash(fs, node);
		put(fs, parent, &dead);
	}
	pthread_mutex_unlock(&fs->lock);
	free(copy);
	bury(fs, dead);
}

int p9_name_of(const struct p9_req *r, const struct p9_ref *ref,
	       struct p9_ref *ret_dir, char *ret_name)
{
	struct p9_fs *fs = r->fs;
	P9_REF dir = { .fs = fs, .uid = ref->uid, .fd = -1 };
	struct statx stx;
	int ret;

	if (ref->node == fs->root)
		return -EBUSY;
	pthread_mutex_lock(&fs->lock);
	dir.node = ref->node->parent;
	if (dir.node) {
		dir.node->refs++;
		strcpy(ret_name, ref->node->name);
	}
	pthread_mutex_unlock(&fs->lock);
	if (!dir.node)
		return -ENOENT;
	ret = ref_open_named(&dir);
	if (ret < 0)
		return ret;
	if (statx(dir.fd, ret_name, AT_SYMLINK_NOFOLLOW, P9_STATX_MASK, &stx) <
	    0)
		return -errno;
	if (!is_inode(ref->node, &stx))
		return -ESTALE;
	*ret_dir = dir;
	dir = (struct p9_ref)P9_NO_REF;
	return 0;
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* The export as a whole, and sessions. See fs.h. */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "dev/p9/fs.h"

/*
 * The share of the process's descriptors that is reserved for other uses, and
 * the limit on ours: each pins an inode in the host's memory.
 */
#define OTHERS_FDS(limit) ((limit) / 4)
#define MOST_FDS          16384

struct p9_fd_name p9_fd_name(int fd)
{
	struct p9_fd_name name;

	snprintf(name.s, sizeof(name.s), "%d", fd);
	return name;
}

static unsigned fd_limit(void)
{
	struct rlimit lim;

	if (getrlimit(RLIMIT_NOFILE, &lim) < 0)
		return 256;
	if (lim.rlim_cur > MOST_FDS)
		return MOST_FDS;
	return (unsigned)(lim.rlim_cur - OTHERS_FDS(lim.rlim_cur));
}

uint64_t p9_capabilities(void)
{
	struct __user_cap_header_struct header = {
		.version = _LINUX_CAPABILITY_VERSION_3,
	};
	struct __user_cap_data_struct caps[2] = { 0 };

	if (syscall(SYS_capget, &header, caps) < 0)
		return 0;
	return caps[0].effective | (uint64_t)caps[1].effective << 32;
}

/* The limit on the memory of fids, nodes and files. */
static size_t most_held(void)
{
	struct sysinfo info = { .totalram = 0 };
	uint64_t bytes;

	sysinfo(&info);
	bytes = (uint64_t)info.totalram * info.mem_unit / 16;
	if (bytes < P9_MIN_HELD)
		bytes = P9_MIN_HELD;
	return bytes < P9_MAX_HELD ? bytes : P9_MAX_HELD;
}

/*
 * File systems that do not block for what they have cached. Others may ask a
 * server or a process, or, like overlayfs, are stacked on any file system.
 */
static bool is_local(int fd)
{
	struct statfs st;

	if (fstatfs(fd, &st) < 0)
		return false;
	switch ((uint32_t)st.f_type) {
	case BTRFS_SUPER_MAGIC:
	case EXT4_SUPER_MAGIC:
	case F2FS_SUPER_MAGIC:
	case RAMFS_MAGIC:
	case SQUASHFS_MAGIC:
	case TMPFS_MAGIC:
	case XFS_SUPER_MAGIC:
		return true;
	default:
		return false;
	}
}

/* Linux 5.12 */
static bool has_resolve_cached(int fd)
{
	struct open_how how = {
		.flags = O_PATH | O_CLOEXEC,
		.resolve = RESOLVE_CACHED,
	};
	long ret = syscall(SYS_openat2, fd, ".", &how, sizeof(how));

	if (ret >= 0)
		close((int)ret);
	return ret >= 0;
}

int p9_fs_set_root(struct p9_fs *fs, int take_fd)
{
	struct p9_node *root = fs->root;
	struct statx stx;
	int ret = 0;

	if (statx(take_fd, "", AT_EMPTY_PATH, P9_STATX_MASK, &stx) < 0)
		ret = -errno;
	else if (!S_ISDIR(stx.stx_mode))
		ret = -ENOTDIR;
	if (ret < 0) {
		close(take_fd);
		return ret;
	}
	if (root->fd >= 0)
		close(root->fd);
	root->fd = take_fd;
	root->root_nr = ++fs->root_nr;
	root->dev = makedev(stx.stx_dev_major, stx.stx_dev_minor);
	root->ino = stx.stx_ino;
	p9_qid_path(fs, root->dev, root->ino);
	fs->can_try = is_local(take_fd) && has_resolve_cached(take_fd);
	__atomic_store_n(&fs->root_removed, false, __ATOMIC_RELAXED);
	return 0;
}

void p9_fs_check_root(struct p9_fs *fs)
{
	struct statx stx;

	if (statx(fs->root->fd, "", AT_EMPTY_PATH, STATX_NLINK, &stx) == 0 &&
	    stx.stx_nlink == 0)
		__atomic_store_n(&fs->root_removed, true, __ATOMIC_RELAXED);
}

static int root_create(struct p9_fs *fs, int root_fd)
{
	fs->root = calloc(1, sizeof(*fs->root));
	if (!fs->root) {
		close(root_fd);
		return -ENOMEM;
	}
	fs->root->fd = -1;
	fs->root->refs = 1;
	fs->root->type = S_IFDIR;
	fs->nr_nodes = fs->nr_fds = 1;
	return p9_fs_set_root(fs, root_fd);
}

int p9_fs_create(int root_fd, int proc_fd, const struct p9_params *params,
		 struct p9_fs **ret_fs, struct err *err)
{
	struct p9_fs *fs = calloc(1, sizeof(*fs));
	int ret;

	if (!fs) {
		close(root_fd);
		close(proc_fd);
		return err_set(err, -ENOMEM, "9p: out of memory");
	}
	fs->params = *params;
	if (getrandom(&fs->hash_mul, sizeof(fs->hash_mul), 0) < 0)
		fs->hash_mul = (uint32_t)time(NULL);
	fs->hash_mul |= 1;
	fs->max_fds = fd_limit();
	fs->max_held = most_held();
	fs->caps = p9_capabilities();
	pthread_mutex_init(&fs->names, NULL);
	pthread_mutex_init(&fs->locks, NULL);
	pthread_mutex_init(&fs->lock, NULL);
	/* This process's own; nothing else of /proc is kept. */
	fs->proc_fd =
		openat(proc_fd, "self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC);
	ret = fs->proc_fd < 0 ? -errno : 0;
	close(proc_fd);
	if (ret < 0) {
		close(root_fd);
		err_set(err, ret, "9p: /proc/self/fd: %s", strerror(-ret));
	} else {
		ret = root_create(fs, root_fd);
		if (ret == 0 && (p9_table_init(&fs->fids) < 0 ||
				 p9_table_init(&fs->nodes) < 0))
			ret = -ENOMEM;
		if (ret < 0)
			err_set(err, ret, "9p: path=: %s", strerror(-ret));
	}
	if (ret < 0) {
		p9_fs_destroy(fs);
		return ret;
	}
	*ret_fs = fs;
	return 0;
}

unsigned p9_fs_nr_closed(const struct p9_fs *fs)
{
	return __atomic_load_n(&fs->nr_closed, __ATOMIC_RELAXED);
}

static void count_closed(struct p9_fs *fs)
{
	__atomic_add_fetch(&fs->nr_closed, 1, __ATOMIC_RELAXED);
}

void p9_fs_restart(struct p9_fs *fs, uint32_t msize)
{
	for (size_t i = 0; fs->fids.nr > 0; i++) {
		while (fs->fids.slots[i]) {
			P9_REF ref = P9_NO_REF;
			struct p9_entry *e = fs->fids.slots[i];

			p9_fid_remove(fs, ((struct p9_fid *)e)->num, &ref);
			p9_ref_put(&ref);
			count_closed(fs);
		}
	}
	p9_table_trim(&fs->fids);
	p9_table_trim(&fs->nodes);
	__atomic_store_n(&fs->msize, msize, __ATOMIC_RELAXED);
}

/*
 * --- Memory ---
 */

static size_t heap_bytes(size_t len)
{
	size_t bytes = (len + sizeof(size_t) + 15) & ~(size_t)15;

	return bytes < 32 ? 32 : bytes;
}

bool p9_hold(struct p9_fs *fs, size_t len)
{
	if (heap_bytes(len) > fs->max_held - fs->held_bytes)
		return false;
	fs->held_bytes += heap_bytes(len);
	return true;
}

void p9_release(struct p9_fs *fs, size_t len)
{
	fs->held_bytes -= heap_bytes(len);
}

/*
 * --- Closing ---
 */

struct p9_closing {
	struct p9_closing *next;
	struct p9_file *file; /* or, if it is NULL, */
	int fd;
};

static __thread bool may_wait; /* this thread */

void p9_close_later(struct p9_fs *fs, int fd, struct p9_file *file)
{
	struct p9_closing *c = malloc(sizeof(*c));

	if (!c)
		return; /* left open to the end of the process */
	pthread_mutex_lock(&fs->lock);
	*c = (struct p9_closing){ fs->closing, file, fd };
	fs->closing = c;
	pthread_mutex_unlock(&fs->lock);
}

bool p9_close_waits(int fd, bool local)
{
	struct statx stx;

	if (may_wait)
		return false;
	return !local || statx(fd, "", AT_EMPTY_PATH, STATX_NLINK, &stx) < 0 ||
	       stx.stx_nlink == 0;
}

void p9_close(struct p9_fs *fs, int fd, bool local)
{
	if (p9_close_waits(fd, local))
		p9_close_later(fs, fd, NULL);
	else
		close(fd);
}

bool p9_fs_has_closing(struct p9_fs *fs)
{
	bool any;

	pthread_mutex_lock(&fs->lock);
	any = fs->closing;
	pthread_mutex_unlock(&fs->lock);
	return any;
}

void p9_fs_close_rest(struct p9_fs *fs)
{
	struct p9_closing *c;

	pthread_mutex_lock(&fs->lock);
	c = fs->closing;
	fs->closing = NULL;
	pthread_mutex_unlock(&fs->lock);
	while (c) {
		struct p9_closing *next = c->next;

		if (c->file)
			p9_file_free(fs, c->file);
		else
			close(c->fd);
		count_closed(fs);
		free(c);
		c = next;
	}
}

void p9_fs_destroy(struct p9_fs *fs)
{
	if (!fs)
		return;
	p9_fs_restart(fs, 0);
	if (fs->root)
		p9_node_put(fs, fs->root);
	p9_fs_close_rest(fs);
	if (fs->proc_fd >= 0)
		close(fs->proc_fd);
	p9_table_fini(&fs->fids);
	p9_table_fini(&fs->nodes);
	pthread_mutex_destroy(&fs->names);
	pthread_mutex_destroy(&fs->locks);
	pthread_mutex_destroy(&fs->lock);
	free(fs);
}

static __thread bool thread_ready;

int p9_thread_init(struct p9_fs *fs, bool added)
{
	may_wait = true;
	/*
	 * Modes come from the guest as they are, and system calls for extended
	 * attributes take paths only, hence the working directory. The loop's
	 * thread keeps its own.
	 */
	if (!added && (unshare(CLONE_FS) < 0 || fchdir(fs->proc_fd) < 0))
		return -errno;
	if (!added)
		umask(0);
	thread_ready = true;
	return 0;
}

bool p9_thread_ready(void)
{
	return thread_ready;
}

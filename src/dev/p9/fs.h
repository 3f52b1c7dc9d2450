/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A directory of the host as a 9P2000.L file tree: what the files of this
 * folder share.
 *
 *	fid   --->  node   what was walked to: an O_PATH descriptor pins the
 *	   |               inode; the names up to the export's root are known
 *	   +----->  file   what Tlopen made of it: a real descriptor
 *
 * A Linux client that caches has a fid for each file that it remembers. So
 * fids and nodes are bounded by memory alone, and descriptors are a cache: when
 * they run short, those unused for the longest are closed, of nodes first, and
 * opened again by their names when they are needed.
 *
 * No path is ever walked by its text. Each step opens one name beneath a
 * descriptor, without following symbolic links; what is opened for reading
 * and writing is reopened through the descriptor that pins it. So neither the
 * guest nor a host process can swap a file under a request, and ".." is a
 * pointer here, not a name.
 *
 * Threads: requests run on several. p9_fs.lock guards fids, nodes and
 * reference counts and is never held over a system call that may wait.
 * p9_fs.names is held while names change (rename, unlink) and is taken first.
 * Errors are -errno.
 */
#ifndef P9_FS_H
#define P9_FS_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "base/err.h"
#include <viodev/iov.h>
#include "dev/p9/pdu.h"

#define P9_MIN_HELD    (16u << 20)  /* bytes of fids, nodes, names and files, */
#define P9_MAX_HELD    (512u << 20) /* a 16th of the host's within these */
#define P9_MAX_XATTRS  (512u << 10) /* bytes of values, held for all fids */
#define P9_MAX_IOV     1024
#define P9_MIN_MSIZE   4096u
#define P9_MAX_MSIZE   (1u << 20)
#define P9_MSG_BYTES   4608u /* of a request without its data: Tsymlink */
#define P9_REPLY_BYTES 4352u /* likewise: a link's target is the longest */
#define P9_MAX_DEVS    254u

enum p9_security {
	P9_PASSTHROUGH, /* owners and modes are the host's; needs root */
	P9_MAPPED,      /* they are kept in extended attributes */
	P9_NONE,        /* as passthrough, without insisting on owners */
};

#define P9_MAX_RANGES 16
struct p9_idmap {
	struct {
		uint32_t guest, host, count;
	} range[P9_MAX_RANGES];
	unsigned nr; /* 0: ids are the same on both sides */
};

struct p9_params {
	enum p9_security security;
	bool ro;
	uint32_t msize; /* the most that is agreed to */
	struct p9_idmap uids, gids;
};

/* What is in a hash table, which grows with it; see table.c. */
struct p9_entry {
	struct p9_entry *next; /* of the same slot */
	uint32_t hash;
};

struct p9_table {
	struct p9_entry **slots;
	unsigned shift; /* of a hash, to have the slot */
	unsigned nr;
};

struct p9_node {
	struct p9_entry entry;         /* first */
	struct p9_node *parent;        /* NULL: the root, or detached */
	struct p9_node *newer, *older; /* while it may give up its fd */
	char *name;
	dev_t dev;
	ino_t ino;
	struct statx_timestamp born; /* inode numbers are used again */
	mode_t type;                 /* S_IFMT of the host */
	int fd;         /* O_PATH; -1: given up, the names lead back to it */
	uint32_t refs;  /* of fids, children and requests */
	uint32_t users; /* of the fd */
	bool idle;      /* is in the list of those that may give it up */
	bool detached;  /* it has lost its name; only its fd is left */
};

enum p9_kind {
	P9_FILE,
	P9_DIR,
	P9_XATTR_READ,  /* a value, or the list of names */
	P9_XATTR_WRITE, /* a value that Tclunk sets */
};

struct p9_file {
	enum p9_kind kind;
	struct p9_file *newer, *older; /* while it may give up its fd */
	bool idle;                     /* is in the list of those that may */
	uint32_t users;                /* of the fd */
	int fd;           /* -1: of attributes; or given up, as a node's */
	int flags;        /* that it was opened with */
	bool no_try_read; /* RWF_NOWAIT is not to be had */
	bool slow;        /* closing it may wait */
	uint32_t refs;
	pthread_mutex_t lock; /* guards what follows */
	uint64_t dir_off;     /* where a directory's fd stands */
	bool locked;          /* has or had locks; guarded by p9_fs.locks */
	char *name;           /* of the attribute to be set */
	uint8_t *value;
	uint32_t value_len, value_done;
	int value_flags;
};

struct p9_fid {
	struct p9_entry entry; /* first */
	uint32_t num;
	uint32_t uid; /* of the user who attached */
	struct p9_node *node;
	struct p9_file *file;
};

struct p9_stats {
	uint64_t requests, errors, read_bytes, written_bytes;
};

struct p9_fs {
	struct p9_params params;
	struct p9_node *root;
	int proc_fd;    /* our own /proc/self/fd */
	bool can_try;   /* RESOLVE_CACHED is there, the disk is a local one */
	uint32_t msize; /* agreed on, 0: no session */
	uint64_t caps;  /* capabilities of this process, a bit each */

	pthread_mutex_t names;
	pthread_mutex_t locks; /* guards the next two */
	struct p9_owner *owners;
	unsigned nr_owners;
	unsigned nr_unlocks;  /* locks may have become free; atomic */
	pthread_mutex_t lock; /* guards all that follows */
	struct p9_table fids, nodes;
	struct p9_node *oldest, *newest;           /* idle nodes */
	struct p9_file *oldest_file, *newest_file; /* idle files */
	unsigned nr_nodes, nr_files;               /* with the detached */
	size_t held_bytes, max_held;               /* by these, see p9_hold() */
	unsigned nr_fds, max_fds;   /* descriptors for nodes, files, locks */
	struct p9_closing *closing; /* to be closed by a thread that may wait */
	uint32_t hash_mul; /* random: who chooses fids and names does not */
	size_t xattr_bytes;
	struct { /* file systems seen: a number for each */
		dev_t dev;
	} devs[P9_MAX_DEVS];
	unsigned nr_devs;
	struct p9_stats stats;
};

/*
 * A request. The owner of the ring fills iov[0 .. readable + writable) and
 * calls p9_req_init(); p9_req.c describes the rest.
 */
struct p9_req {
	struct p9_fs *fs;
	uint8_t type;
	uint16_t tag;
	int err;        /* found wrong before it began */
	bool malformed; /* the framing is */
	bool nowait;    /* must not block: -EAGAIN, to be begun again */
	bool blocked;   /* a Tlock that may wait: reply, or run it again */
	size_t room;    /* bytes that the reply may have */
	size_t msg_len, msg_beyond;
	struct p9_in in;            /* the body, but for a Twrite's data */
	struct out out;             /* the reply's body */
	uint32_t data_len;          /* of the reply that are in @back already */
	struct vio_iov_cursor data; /* of Twrite */
	struct vio_iov_cursor head; /* first 11 bytes of the reply's place */
	struct vio_iov_cursor back; /* the rest of it */
	uint8_t msg[P9_MSG_BYTES];
	uint8_t reply[P9_REPLY_BYTES];
	struct iovec head_iov[P9_IO_HEADER];
	struct iovec iov[P9_MAX_IOV];
};

/*
 * --- fs.c ---
 */

/*
 * Make the export of @root_fd, an O_PATH descriptor of a directory; @proc_fd
 * is one of /proc. Both are taken, also on failure.
 */
int p9_fs_create(int root_fd, int proc_fd, const struct p9_params *params,
		 struct p9_fs **ret_fs, struct err *err);
void p9_fs_destroy(struct p9_fs *fs); /* no request runs; NULL is fine */

/* The capabilities in effect, a bit each. */
uint64_t p9_capabilities(void);

/*
 * Begin a session with @msize, or end it with 0: no fid is left. No request
 * runs. Closing many files takes its time.
 */
void p9_fs_restart(struct p9_fs *fs, uint32_t msize);

/*
 * Each thread that runs requests calls this first: umask and cwd, which an
 * @added one shares with the thread that added it. -errno
 */
int p9_thread_init(struct p9_fs *fs, bool added);
bool p9_thread_ready(void); /* whether this one did, and it worked */

/*
 * Account for an allocation of @len bytes, as malloc() rounds it up. p9_fs.lock
 * is held. False: the guest holds too much already.
 */
bool p9_hold(struct p9_fs *fs, size_t len);
void p9_release(struct p9_fs *fs, size_t len);

/* A descriptor's own name beneath p9_fs.proc_fd. */
struct p9_fd_name {
	char s[12];
};
struct p9_fd_name p9_fd_name(int fd);

/*
 * Closing may wait: the last descriptor of a deleted file frees its blocks,
 * one of a network file system sends what was written, and where the file
 * system is frozen that takes as long as it is. A thread that may not wait
 * puts such a descriptor aside, or the file that has it, for a call of
 * p9_fs_close_rest() by one that may.
 */
void p9_close(struct p9_fs *fs, int fd, bool local);
bool p9_close_waits(int fd, bool local);
void p9_close_later(struct p9_fs *fs, int fd, struct p9_file *file);
bool p9_fs_has_closing(struct p9_fs *fs);
void p9_fs_close_rest(struct p9_fs *fs);

/* Room for another descriptor: 0, or -EMFILE. Undone with p9_fd_release(). */
int p9_fd_admit(struct p9_fs *fs);
void p9_fd_release(struct p9_fs *fs);

/*
 * --- table.c; p9_fs.lock is held ---
 */

#define P9_SLOT_BYTES (2 * sizeof(void *)) /* at most, for each entry */

int p9_table_init(struct p9_table *table); /* 0 or -1 */
void p9_table_fini(struct p9_table *table);
void p9_table_add(struct p9_table *table, struct p9_entry *e, uint32_t hash);
void p9_table_remove(struct p9_table *table, struct p9_entry *e);
void p9_table_trim(struct p9_table *table); /* give back what it has grown */

static inline size_t p9_table_slots(const struct p9_table *table)
{
	return (size_t)1 << (32 - table->shift);
}

/* The first of those with this hash, and of others. */
static inline struct p9_entry **p9_table_slot(const struct p9_table *table,
					      uint32_t hash)
{
	return &table->slots[hash >> table->shift];
}

/*
 * --- node.c ---
 */

/* What a request holds on to. p9_ref_put() lets go of what is there. */
struct p9_ref {
	struct p9_fs *fs;
	struct p9_node *node;
	struct p9_file *file;
	uint32_t uid;
	int fd;         /* the node's, kept open by us; -1: not asked for */
	bool uses_file; /* so is the file's */
};
#define P9_REF    __attribute__((cleanup(p9_ref_put))) struct p9_ref
#define P9_NO_REF { .fd = -1 }
void p9_ref_put(struct p9_ref *ref);

/*
 * A request that must not wait may use the file system that a reference is
 * on: 0 or -EAGAIN. The export's own is known to be a local one; of what is
 * mounted beneath nothing is known.
 */
int p9_may_try(const struct p9_req *r, const struct p9_ref *ref);

/* Have ref->fd; -ESTALE when the node cannot be found again. */
int p9_ref_open(const struct p9_req *r, struct p9_ref *ref);

/*
 * The entry @name of a directory, with its descriptor and attributes. The
 * directory's descriptor is open in @dir.
 */
int p9_lookup(const struct p9_req *r, const struct p9_ref *dir,
	      const char *name, struct p9_ref *ret_ref, struct statx *ret_stx);

/* The directory above; the root's is the root. */
int p9_parent(const struct p9_req *r, const struct p9_ref *ref,
	      struct p9_ref *ret_ref, struct statx *ret_stx);

void p9_node_ref(struct p9_node *node); /* p9_fs.lock is held */
void p9_node_put(struct p9_fs *fs, struct p9_node *node); /* is not held */

/*
 * For those who change names, with p9_fs.names held. The node that is known
 * under a name, with its descriptor open so that it outlives the name; or an
 * empty reference. What the system call has done is told afterwards.
 */
void p9_name_hold(const struct p9_req *r, struct p9_node *dir, const char *name,
		  struct p9_ref *ret_ref);
void p9_name_removed(struct p9_fs *fs, struct p9_node *node);
void p9_name_moved(struct p9_fs *fs, struct p9_node *node, struct p9_node *dir,
		   const char *name);

/*
 * The directory that a node is in, and its name there (P9_NAME_MAX + 1), once
 * it is sure that this is what the name stands for; p9_fs.names is held.
 */
int p9_name_of(const struct p9_req *r, const struct p9_ref *ref,
	       struct p9_ref *ret_dir, char *ret_name);

/*
 * --- fid.c ---
 */

/* What a fid stands for at this moment. -EBADF for an unknown one. */
int p9_fid_get(struct p9_fs *fs, uint32_t num, struct p9_ref *ret_ref);
/* The same with the node's descriptor. */
int p9_fid_open(const struct p9_req *r, uint32_t num, struct p9_ref *ret_ref);

/* Have the descriptor of ref->file, if it is a file's or a directory's. */
int p9_ref_file(const struct p9_req *r, struct p9_ref *ref);
/* The same of one that is open, with the file's descriptor; else -EBADF. */
int p9_fid_file(const struct p9_req *r, uint32_t num, struct p9_ref *ret_ref);

/* A new fid. -EBADF when the number is taken or P9_NOFID. */
int p9_fid_add(struct p9_fs *fs, uint32_t num, const struct p9_ref *ref);

/*
 * Turn a fid into something else, if it still stands for @was and is not
 * open; else -EBUSY.
 */
int p9_fid_change(struct p9_fs *fs, uint32_t num, const struct p9_ref *was,
		  struct p9_node *node, struct p9_file *file);

/* Take a fid away; what it stood for is the caller's to put. -EBADF. */
int p9_fid_remove(struct p9_fs *fs, uint32_t num, struct p9_ref *ret_ref);

/* A file for an open descriptor, which is taken on success; or NULL. */
struct p9_file *p9_file_create(struct p9_fs *fs, enum p9_kind kind, int fd);
void p9_file_put(struct p9_fs *fs, struct p9_file *file); /* NULL is fine */
/* p9_fs.lock is held. The descriptor is in use; not any more; given up. */
void p9_file_use(struct p9_fs *fs, struct p9_file *file);
void p9_file_unuse(struct p9_fs *fs, struct p9_file *file);
int p9_file_give_up(struct p9_fs *fs, bool *ret_local); /* -EMFILE: no file's */
void p9_file_free(struct p9_fs *fs, struct p9_file *file); /* the last of it */

/*
 * --- attr.c, idmap.c ---
 */

int p9_idmap_parse(const char *key, const char *text, struct p9_idmap *ret_map,
		   struct err *err);
bool p9_id_to_host(const struct p9_idmap *map, uint32_t id, uint32_t *ret_id);
uint32_t p9_id_to_guest(const struct p9_idmap *map, uint32_t id);

#define P9_STATX_MASK (STATX_BASIC_STATS | STATX_BTIME)

/*
 * The attributes that the guest sees of what @fd is. p9_map_stat() turns what
 * the host says into that.
 */
int p9_stat(const struct p9_req *r, int fd, struct statx *ret_stx);
int p9_map_stat(const struct p9_req *r, int fd, struct statx *stx);
/* DT_* of an entry that is of @type on the host; overlayfs relies on it. */
unsigned char p9_mapped_type(int dir_fd, const char *name, unsigned char type);
struct p9_qid p9_qid_of(struct p9_fs *fs, const struct statx *stx);
uint64_t p9_qid_path(struct p9_fs *fs, dev_t dev, ino_t ino);

/* Give what was just made to its owner, and its mode, as the model has it. */
int p9_own(const struct p9_req *r, int fd, mode_t mode, dev_t rdev,
	   uint32_t uid, uint32_t gid);

/*
 * --- xattr.c, lock.c ---
 */

/* Extended attributes by an O_PATH descriptor, in a thread with the cwd. */
ssize_t p9_fgetxattr(int fd, const char *name, void *buf, size_t len);
int p9_fsetxattr(int fd, const char *name, const void *buf, size_t len,
		 int flags);

/* A clunked fid's value is complete: set it. */
int p9_xattr_commit(const struct p9_req *r, const struct p9_ref *ref);

void p9_locks_drop(struct p9_fs *fs, struct p9_file *file);

/*
 * --- io.c ---
 */

/* Open the inode that a reference pins. Returns the descriptor. */
int p9_open_node(const struct p9_req *r, const struct p9_ref *ref, int flags);

/*
 * --- The requests: 0 or the -errno of the reply ---
 */

int p9_version(struct p9_req *r); /* while nothing else runs */
int p9_auth(struct p9_req *r);
int p9_attach(struct p9_req *r);
int p9_walk(struct p9_req *r);
int p9_clunk(struct p9_req *r);
int p9_statfs(struct p9_req *r);
int p9_readlink(struct p9_req *r);

int p9_lopen(struct p9_req *r);
int p9_lcreate(struct p9_req *r);
int p9_read(struct p9_req *r);
int p9_write(struct p9_req *r);
int p9_fsync(struct p9_req *r);
int p9_readdir(struct p9_req *r);

int p9_getattr(struct p9_req *r);
int p9_setattr(struct p9_req *r);
int p9_xattrwalk(struct p9_req *r);
int p9_xattrcreate(struct p9_req *r);
int p9_lock(struct p9_req *r);
int p9_getlock(struct p9_req *r);

int p9_symlink(struct p9_req *r);
int p9_mknod(struct p9_req *r);
int p9_mkdir(struct p9_req *r);
int p9_link(struct p9_req *r);
int p9_rename(struct p9_req *r);
int p9_renameat(struct p9_req *r);
int p9_unlinkat(struct p9_req *r);
int p9_remove(struct p9_req *r);

/* Those of the xattr fids, for p9_read() and p9_write(). */
int p9_xattr_read(struct p9_req *r, struct p9_file *file, uint64_t off,
		  uint32_t count);
int p9_xattr_write(struct p9_req *r, struct p9_file *file, uint64_t off,
		   uint32_t count);

#endif

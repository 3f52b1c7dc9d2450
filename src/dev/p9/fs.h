/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A directory of the host as a 9P2000.L file tree: what the files of this
 * folder share.
 *
 *	fid   --->  node   the result of a walk: an O_PATH descriptor pins
 *	   |               the inode; its path of names up to the root is kept
 *	   +----->  file   the result of Tlopen: a real descriptor
 *
 * A Linux client with a cache keeps a fid for each file that it has cached. So
 * fids and nodes are bounded by memory alone, and descriptors are a cache: when
 * they run short, the least recently used are closed (nodes first) and reopened
 * by name on demand.
 *
 * Paths are never resolved as text. Each step opens one name beneath a
 * descriptor, without following symbolic links; files are opened for
 * reading and writing through the descriptor that pins them. So neither the
 * guest nor a host process can swap a file under a request, and ".." is a
 * pointer here, not a name.
 *
 * Threads: requests run on several. p9_fs.lock guards fids, nodes and
 * reference counts and is never held across a system call that may block.
 * p9_fs.names is held while names change (rename, unlink) and is locked first.
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

#define P9_MIN_HELD    (16u << 20)  /* bytes of fids, nodes, names and files: */
#define P9_MAX_HELD    (512u << 20) /* 1/16 of the host's, within this range */
#define P9_MAX_XATTRS  (512u << 10) /* bytes of values, held for all fids */
#define P9_MAX_IOV     1024
#define P9_MIN_MSIZE   4096u
#define P9_MAX_MSIZE   (1u << 20)
#define P9_MSG_BYTES   4608u /* request without data; largest: Tsymlink */
#define P9_REPLY_BYTES 4352u /* likewise; largest: a link's target */
#define P9_MAX_DEVS    254u

enum p9_security {
	P9_PASSTHROUGH, /* owners and modes are the host's; needs root */
	P9_MAPPED,      /* they are kept in extended attributes */
	P9_NONE,        /* as passthrough, ignoring a failed change of owner */
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
	uint32_t msize; /* upper limit in the negotiation */
	struct p9_idmap uids, gids;
	bool own_namespace;        /* of users, where the process is root... */
	uint32_t own_uid, own_gid; /* ...and these on the host */
};

/* An entry of a hash table that grows on demand; see table.c. */
struct p9_entry {
	struct p9_entry *next; /* of the same slot */
	uint32_t hash;
};

struct p9_table {
	struct p9_entry **slots;
	unsigned shift; /* hash >> shift is the slot */
	unsigned nr;
};

struct p9_node {
	struct p9_entry entry;         /* first */
	struct p9_node *parent;        /* NULL: the root, or detached */
	struct p9_node *newer, *older; /* of idle ones */
	char *name;
	dev_t dev;
	ino_t ino;
	struct statx_timestamp born; /* inode numbers are reused */
	mode_t type;                 /* S_IFMT of the host */
	int fd;                      /* O_PATH; -1: closed, reopened by name */
	uint32_t refs;               /* of fids, children and requests */
	uint32_t users;              /* of the fd */
	uint32_t root_nr;            /* p9_fs.root_nr when it was found */
	bool idle;                   /* is in the list of idle ones */
	bool detached;               /* unlinked: only its fd is left */
};

enum p9_kind {
	P9_FILE,
	P9_DIR,
	P9_XATTR_READ,  /* a value, or the list of names */
	P9_XATTR_WRITE, /* a value that Tclunk sets */
};

struct p9_file {
	enum p9_kind kind;
	struct p9_file *newer, *older; /* of idle ones */
	bool idle;                     /* is in the list of idle ones */
	uint32_t users;                /* of the fd */
	int fd;           /* -1: an attribute's; or closed, as a node's */
	int flags;        /* of open() */
	bool no_try_read; /* RWF_NOWAIT is unsupported */
	bool slow;        /* close() may block */
	uint32_t refs;
	pthread_mutex_t lock; /* guards what follows */
	uint64_t dir_off;     /* position of a directory's fd */
	bool locked;          /* has or had locks; guarded by p9_fs.locks */
	char *name;           /* of the attribute to set */
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
	uint32_t root_nr;  /* counts the directories that it has been */
	bool root_removed; /* by the host; atomic */
	int proc_fd;       /* our own /proc/self/fd */
	bool can_try;      /* RESOLVE_CACHED works, the disk is local */
	uint32_t msize;    /* negotiated; 0: no session */
	uint64_t caps;     /* capabilities of this process (bit mask) */

	pthread_mutex_t names;
	pthread_mutex_t locks; /* guards the next two */
	struct p9_owner *owners;
	unsigned nr_owners;
	unsigned nr_unlocks;  /* locks may have become free; atomic */
	pthread_mutex_t lock; /* guards all that follows */
	struct p9_table fids, nodes;
	struct p9_node *oldest, *newest;           /* idle nodes */
	struct p9_file *oldest_file, *newest_file; /* idle files */
	unsigned nr_nodes, nr_files;               /* including detached ones */
	size_t held_bytes, max_held;               /* by these; see p9_hold() */
	unsigned nr_fds, max_fds;   /* descriptors for nodes, files, locks */
	struct p9_closing *closing; /* for a thread that may block to close */
	unsigned nr_closed;         /* fids and descriptors so far; atomic */
	uint32_t hash_mul; /* random: the guest cannot choose collisions */
	size_t xattr_bytes;
	struct { /* a number for each file system seen */
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
	int err;        /* detected before the request started */
	bool malformed; /* bad framing */
	bool nowait;    /* must not block: returns -EAGAIN to be restarted */
	bool blocked;   /* a blocking Tlock: reply, or run it again */
	size_t room;    /* for the reply, in bytes */
	size_t msg_len, msg_beyond;
	struct p9_in in;            /* the body, except for a Twrite's data */
	struct out out;             /* the reply's body */
	uint32_t data_len;          /* bytes of the reply already in @back */
	struct vio_iov_cursor data; /* of Twrite */
	struct vio_iov_cursor head; /* the reply's first 11 bytes */
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
 * Create the export of @root_fd, an O_PATH descriptor of a directory; @proc_fd
 * is one of /proc. Takes ownership of both, even on failure.
 */
int p9_fs_create(int root_fd, int proc_fd, const struct p9_params *params,
		 struct p9_fs **ret_fs, struct err *err);
void p9_fs_destroy(struct p9_fs *fs); /* while no request runs; may be NULL */

/*
 * Export @take_fd, as p9_fs_create(), in place of the root directory, which
 * was removed. Open files stay open, all else of the old one is ESTALE. Call it
 * while no request runs. 0 or -errno.
 */
int p9_fs_set_root(struct p9_fs *fs, int take_fd);

/* Nothing was found in the root directory: has it been removed? */
void p9_fs_check_root(struct p9_fs *fs);

/* The effective capabilities, as a bit mask. */
uint64_t p9_capabilities(void);

/*
 * Start a session with @msize, or end it with 0: all fids are dropped. Call it
 * while no request runs. Closing many files takes time.
 */
void p9_fs_restart(struct p9_fs *fs, uint32_t msize);

/*
 * Each thread that runs requests calls this first: it sets umask and cwd, which
 * an @added thread shares with the thread that added it. 0 or -errno.
 */
int p9_thread_init(struct p9_fs *fs, bool added);
bool p9_thread_ready(void); /* whether this thread did, successfully */

/*
 * Account for an allocation of @len bytes, as malloc() rounds it up. p9_fs.lock
 * is held. False: the guest has reached its limit.
 */
bool p9_hold(struct p9_fs *fs, size_t len);
void p9_release(struct p9_fs *fs, size_t len);

/* A descriptor's own name beneath p9_fs.proc_fd. */
struct p9_fd_name {
	char s[12];
};
struct p9_fd_name p9_fd_name(int fd);

/*
 * close() may block: the last descriptor of a deleted file frees its blocks, a
 * network file system writes data back, a frozen file system blocks until it is
 * thawed. A thread that must not block queues such a descriptor, or its file,
 * for a thread that may and that calls p9_fs_close_rest().
 */
void p9_close(struct p9_fs *fs, int fd, bool local);
bool p9_close_waits(int fd, bool local);
void p9_close_later(struct p9_fs *fs, int fd, struct p9_file *file);
bool p9_fs_has_closing(struct p9_fs *fs);
void p9_fs_close_rest(struct p9_fs *fs);

/* A number that changes while p9_fs_restart() or p9_fs_close_rest() progress. */
unsigned p9_fs_nr_closed(const struct p9_fs *fs);

/* Reserve a descriptor: 0 or -EMFILE. p9_fd_release() undoes it. */
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
void p9_table_trim(struct p9_table *table); /* shrink */

static inline size_t p9_table_slots(const struct p9_table *table)
{
	return (size_t)1 << (32 - table->shift);
}

/* The list of entries with this hash, and others. */
static inline struct p9_entry **p9_table_slot(const struct p9_table *table,
					      uint32_t hash)
{
	return &table->slots[hash >> table->shift];
}

/*
 * --- node.c ---
 */

/* What a request refers to. p9_ref_put() releases what is set. */
struct p9_ref {
	struct p9_fs *fs;
	struct p9_node *node;
	struct p9_file *file;
	uint32_t uid;
	int fd;         /* the node's, kept open; -1: not requested */
	bool uses_file; /* so is the file's */
};
#define P9_REF    __attribute__((cleanup(p9_ref_put))) struct p9_ref
#define P9_NO_REF { .fd = -1 }
void p9_ref_put(struct p9_ref *ref);

/*
 * Whether a request that must not block may use the file system of a reference:
 * 0 or -EAGAIN. The export's own is known to be local; of file systems mounted
 * beneath it nothing is known.
 */
int p9_may_try(const struct p9_req *r, const struct p9_ref *ref);

/* Open ref->fd; -ESTALE when the node cannot be found again. */
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
 * For requests that change names, with p9_fs.names held. p9_name_hold() returns
 * the node known under a name, with its descriptor open so that it outlives the
 * name, or an empty reference. The others record what the system call did.
 */
void p9_name_hold(const struct p9_req *r, struct p9_node *dir, const char *name,
		  struct p9_ref *ret_ref);
void p9_name_removed(struct p9_fs *fs, struct p9_node *node);
void p9_name_moved(struct p9_fs *fs, struct p9_node *node, struct p9_node *dir,
		   const char *name);

/*
 * The directory of a node, and its name there (P9_NAME_MAX + 1), after checking
 * that the name still refers to the node; p9_fs.names is held.
 */
int p9_name_of(const struct p9_req *r, const struct p9_ref *ref,
	       struct p9_ref *ret_dir, char *ret_name);

/*
 * --- fid.c ---
 */

/* What a fid refers to now. -EBADF for an unknown fid. */
int p9_fid_get(struct p9_fs *fs, uint32_t num, struct p9_ref *ret_ref);
/* The same, with the node's descriptor. */
int p9_fid_open(const struct p9_req *r, uint32_t num, struct p9_ref *ret_ref);

/* Open the descriptor of ref->file, if it is a file or a directory. */
int p9_ref_file(const struct p9_req *r, struct p9_ref *ref);
/* As p9_fid_get(), of an open fid, with its file's descriptor; else -EBADF. */
int p9_fid_file(const struct p9_req *r, uint32_t num, struct p9_ref *ret_ref);

/* A new fid. -EBADF when the number is taken or P9_NOFID. */
int p9_fid_add(struct p9_fs *fs, uint32_t num, const struct p9_ref *ref);

/*
 * Make a fid refer to something else, if it still refers to @was and is not
 * open; otherwise -EBUSY.
 */
int p9_fid_change(struct p9_fs *fs, uint32_t num, const struct p9_ref *was,
		  struct p9_node *node, struct p9_file *file);

/* Remove a fid; the caller puts the reference. 0 or -EBADF. */
int p9_fid_remove(struct p9_fs *fs, uint32_t num, struct p9_ref *ret_ref);

/* A file that takes ownership of @fd on success; or NULL. */
struct p9_file *p9_file_create(struct p9_fs *fs, enum p9_kind kind, int fd);
void p9_file_put(struct p9_fs *fs, struct p9_file *file); /* may be NULL */
/* p9_fs.lock is held. Use the descriptor; stop using it; close an idle one. */
void p9_file_use(struct p9_fs *fs, struct p9_file *file);
void p9_file_unuse(struct p9_fs *fs, struct p9_file *file);
int p9_file_give_up(struct p9_fs *fs, bool *ret_local);    /* -EMFILE: none */
void p9_file_free(struct p9_fs *fs, struct p9_file *file); /* unreferenced */

/*
 * --- attr.c, idmap.c ---
 */

int p9_idmap_parse(const char *key, const char *text, struct p9_idmap *ret_map,
		   struct err *err);
bool p9_id_to_host(const struct p9_idmap *map, uint32_t id, uint32_t *ret_id);
uint32_t p9_id_to_guest(const struct p9_idmap *map, uint32_t id);

#define P9_STATX_MASK (STATX_BASIC_STATS | STATX_BTIME)

/*
 * The attributes of @fd as the guest sees them. p9_map_stat() converts the
 * host's.
 */
int p9_stat(const struct p9_req *r, int fd, struct statx *ret_stx);
int p9_map_stat(const struct p9_req *r, int fd, struct statx *stx);
/* DT_* of an entry that has @type on the host; overlayfs relies on it. */
unsigned char p9_mapped_type(int dir_fd, const char *name, unsigned char type);
struct p9_qid p9_qid_of(struct p9_fs *fs, const struct statx *stx);
uint64_t p9_qid_path(struct p9_fs *fs, dev_t dev, ino_t ino);

/* Set owner and mode of a new file, as the security model requires. */
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

/*
 * Decode a Tread or Treaddir: its open file, and the count that the reply has
 * room for. Returns 0 or -errno.
 */
int p9_decode_read(struct p9_req *r, struct p9_ref *ret_ref, uint64_t *ret_off,
		   uint32_t *ret_count);

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

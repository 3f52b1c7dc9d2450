/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The 9P transport device (virtio id 9): a directory of the host for the
 * guest to mount.
 *
 * Each chain is a request. What needs no waiting is answered at once, by the
 * loop's thread; the rest goes to a few threads and comes back:
 *
 *	qnotify() -> begin() ---- p9_req_try() -----------------> complete()
 *	                |                                             ^
 *	                +-- pool_start() -> p9_req_run() -> done() ---+
 *	                |        ^                                    |
 *	                |        +-- Tversion: when it is alone       |
 *	                |                                             |
 *	                +-- Tlock: begun again while it is blocked    |
 *	                +-- Tflush: when the old request is done -----+
 *
 * Nothing here waits for the host's file system. A reset forgets the requests
 * that no thread has begun. Those in flight end when the file system permits;
 * then one of the threads ends the session, and only then does the next one
 * begin, so that no request of the old one overtakes the new one's.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/virtio_9p.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <syslog.h>
#include <unistd.h>

#include "base/json.h"
#include "base/le.h"
#include "base/opener.h"
#include "base/pool.h"
#include "base/slab.h"
#include "dev/devices.h"
#include "dev/p9/p9_req.h"

#define NR_THREADS  8          /* of each pool */
#define MAX_REQS    96         /* taken from the ring at once: 25 KiB each */
#define READ_BUDGET (2u << 20) /* read on the loop's thread in an iteration */
#define MAX_TAG     32
#define END_NS      UINT64_C(2000000000)

/*
 * Requests that may wait for locks at the same time: others must have room in
 * the ring, above all those that unlock. What a program of the host unlocks is
 * found by trying.
 */
#define MAX_PARKED(qsize) ((qsize) / 4 < 32 ? (qsize) / 4 : 32)
#define MIN_RETRY_NS      UINT64_C(5000000)
#define MAX_RETRY_NS      UINT64_C(100000000)

struct p9_slot {
	struct pool_job job;         /* first: the pool gives it back */
	struct p9_slot *prev, *next; /* in flight, the oldest first */
	struct p9_slot *flushes;     /* Tflushes that wait for this one */
	struct p9_slot *next_flush;
	bool waits;  /* for another to be done: the pool does not have it */
	bool parked; /* likewise, for a lock */
	bool tried;  /* for the lock, and blocked */
	unsigned nr_stops; /* p9_softc.sc_nr_stops when it was begun */
	uint16_t head;
	struct p9_req req;
};

struct p9_softc {
	struct virtio_softc sc_vs; /* first: callbacks get it as a void * */
	struct virtio_consts sc_vc;
	struct vqueue_info sc_vq;
	struct vdev sc_dev;
	struct vio_loop *sc_loop;
	struct vio_task sc_continue; /* continues where an iteration stopped */
	uint64_t sc_iteration_read;  /* bytes read before this iteration */
	struct p9_fs *sc_fs;
	/*
	 * Requests that read, and requests that change or sync: where the latter
	 * hang, because a file system is frozen or full of others' writes, the
	 * former still have threads.
	 */
	struct pool *sc_looks, *sc_changes;
	int sc_thread_err;

	struct slab sc_slots;
	struct p9_slot *sc_first, *sc_last; /* in flight */
	struct p9_slot *sc_version; /* the one that waits for the others */
	struct pool_job sc_end;     /* ends the session */
	bool sc_removed;            /* the directory was, and the log says so */
	struct reopener
		*sc_reopener;      /* of the directory; NULL: there is none */
	int sc_new_root;           /* it was made again; or -1 */
	struct pool_job sc_reroot; /* exports that */
	bool sc_reroot_begun;
	bool sc_ending; /* since a reset: nothing new is begun before it has */
	bool sc_end_begun;
	struct vio_source *sc_retry; /* the timer of requests for locks */
	uint64_t sc_retry_ns;
	unsigned sc_nr_parked;  /* requests for locks that wait */
	unsigned sc_nr_unlocks; /* p9_fs.nr_unlocks when they were begun */
	unsigned sc_nr_stops;
	struct pool_job sc_close; /* closes what may take long */
	bool sc_closing;
	bool sc_destroying; /* being destroyed: the queue is nobody's */

	uint64_t sc_nr_flushed;
	char sc_tag[MAX_TAG + 1];
};

static struct pool *pool_of(struct p9_softc *sc, const struct p9_slot *slot)
{
	return p9_req_changes(&slot->req) ? sc->sc_changes : sc->sc_looks;
}

static struct p9_softc *p9_of(struct vdev *dev)
{
	return (void *)((char *)dev - offsetof(struct p9_softc, sc_dev));
}

/*
 * --- Requests in flight ---
 */

static void slot_add(struct p9_softc *sc, struct p9_slot *slot)
{
	slot->flushes = slot->next_flush = NULL;
	slot->waits = slot->parked = slot->tried = false;
	slot->nr_stops = sc->sc_nr_stops;
	slot->next = NULL;
	slot->prev = sc->sc_last;
	*(sc->sc_last ? &sc->sc_last->next : &sc->sc_first) = slot;
	sc->sc_last = slot;
}

static void slot_remove(struct p9_softc *sc, struct p9_slot *slot)
{
	*(slot->prev ? &slot->prev->next : &sc->sc_first) = slot->next;
	*(slot->next ? &slot->next->prev : &sc->sc_last) = slot->prev;
	slab_give(&sc->sc_slots, slot);
}

static void give_back(struct p9_softc *sc, const struct p9_slot *slot,
		      uint32_t len)
{
	if (!sc->sc_destroying)
		vq_relchain(&sc->sc_vq, slot->head, len);
}

/*
 * Give the chain back with its reply. After a reset, or an error of the
 * queue's, the guest may use the buffers for something else: nothing is
 * written.
 */
static void answer(struct p9_softc *sc, struct p9_slot *slot, bool cancelled)
{
	int len = 0;

	if (!cancelled && !sc->sc_destroying &&
	    vq_chain_live(&sc->sc_vq, slot->head))
		len = p9_req_reply(&slot->req);
	if (len < 0)
		vi_error(&sc->sc_vs,
			 "malformed 9P request, reply buffer too small for an "
			 "error");
	give_back(sc, slot, len > 0 ? (uint32_t)len : 0);
}

/* Once; then wait for another directory at the path. */
static void report_removed(struct p9_softc *sc)
{
	if (sc->sc_removed ||
	    !__atomic_load_n(&sc->sc_fs->root_removed, __ATOMIC_RELAXED))
		return;
	sc->sc_removed = true;
	vs_log(&sc->sc_vs, LOG_WARNING,
	       "path= was removed on the host: the guest has the old, empty "
	       "directory (%s)",
	       sc->sc_reopener ? "make it again" :
				 "restart the device to export a new one");
	if (sc->sc_reopener)
		reopener_request(sc->sc_reopener);
}

/*
 * A request is over, answered or, @cancelled, without a reply; and so are the
 * flushes that waited for it, in their order, and those that waited for them.
 */
static void complete(struct p9_softc *sc, struct p9_slot *slot, bool cancelled)
{
	struct p9_slot *due = NULL;

	while (slot) {
		struct p9_slot **end = &slot->flushes;

		while (*end)
			end = &(*end)->next_flush;
		*end = due;
		due = slot->flushes;
		answer(sc, slot, cancelled);
		report_removed(sc);
		slot_remove(sc, slot);
		cancelled = false;
		slot = due;
		if (due)
			due = due->next_flush;
	}
}

/*
 * --- Requests that wait for locks ---
 */

/* Park a blocked request if possible. Linux retries only after 30 s. */
static bool park(struct p9_softc *sc, struct p9_slot *slot)
{
	if (!slot->req.blocked || slot->flushes || sc->sc_version ||
	    sc->sc_new_root >= 0 || sc->sc_ending || sc->sc_destroying ||
	    slot->nr_stops != sc->sc_nr_stops ||
	    sc->sc_nr_parked >= MAX_PARKED(sc->sc_vq.vq_qsize) ||
	    !vq_chain_live(&sc->sc_vq, slot->head))
		return false;
	if (!slot->tried)
		sc->sc_retry_ns = MIN_RETRY_NS;
	if (!slot->tried || sc->sc_nr_parked == 0)
		vio_timer_set(sc->sc_retry, sc->sc_retry_ns);
	slot->tried = slot->parked = true;
	sc->sc_nr_parked++;
	return true;
}

static void unpark(struct p9_softc *sc, struct p9_slot *slot)
{
	slot->parked = false;
	sc->sc_nr_parked--;
}

/* Run all parked requests again, the oldest first. */
static void retry_parked(struct p9_softc *sc)
{
	struct p9_slot *slot;

	sc->sc_nr_unlocks =
		__atomic_load_n(&sc->sc_fs->nr_unlocks, __ATOMIC_RELAXED);
	for (slot = sc->sc_first; slot; slot = slot->next) {
		if (slot->parked) {
			unpark(sc, slot);
			pool_start(pool_of(sc, slot), &slot->job);
		}
	}
}

static void p9_retry(void *arg)
{
	struct p9_softc *sc = arg;

	sc->sc_retry_ns *= 2;
	if (sc->sc_retry_ns > MAX_RETRY_NS)
		sc->sc_retry_ns = MAX_RETRY_NS;
	retry_parked(sc);
}

/* Complete all parked requests with P9_LOCK_BLOCKED. */
static void end_parked(struct p9_softc *sc)
{
	struct p9_slot *slot = sc->sc_first, *next;

	for (; slot; slot = next) {
		next = slot->next;
		if (slot->parked) {
			unpark(sc, slot);
			complete(sc, slot, false);
		}
	}
}

/* The latest request with that tag; a driver uses a tag once at a time. */
static struct p9_slot *find_tag(struct p9_softc *sc, uint16_t tag,
				const struct p9_slot *but)
{
	struct p9_slot *slot = sc->sc_last;

	while (slot && (slot == but || slot->req.tag != tag))
		slot = slot->prev;
	return slot;
}

/* Answer a Tflush once the old request is answered, or will never be. */
static void flush(struct p9_softc *sc, struct p9_slot *slot)
{
	uint16_t oldtag = p9_req_oldtag(&slot->req);
	struct p9_slot *old = NULL;

	if (oldtag != P9_NOTAG)
		old = find_tag(sc, oldtag, slot);
	sc->sc_nr_flushed += old != NULL;
	if (old && old->parked) {
		unpark(sc, old);
	} else if (old && !pool_cancel(pool_of(sc, old), &old->job)) {
		struct p9_slot **end = &old->flushes;

		while (*end)
			end = &(*end)->next_flush;
		*end = slot;
		slot->waits = true;
		return;
	}
	if (old)
		complete(sc, old, true);
	complete(sc, slot, false);
}

/* Start Tversion once it is alone; no other request is taken until it ends. */
static void version(struct p9_softc *sc)
{
	struct p9_slot *slot = sc->sc_version;

	if (slot && slot->waits && sc->sc_first == sc->sc_last) {
		slot->waits = false;
		pool_start(pool_of(sc, slot), &slot->job);
	}
}

static void begin(struct p9_softc *sc, struct p9_slot *slot)
{
	struct p9_req *req = &slot->req;

	if (!req->err && req->type == P9_TVERSION) {
		sc->sc_version = slot;
		slot->waits = true;
		end_parked(sc);
		version(sc);
	} else if (!p9_req_try(req)) {
		pool_start(pool_of(sc, slot), &slot->job);
	} else if (!req->err && req->type == P9_TFLUSH) {
		flush(sc, slot);
	} else {
		complete(sc, slot, false);
	}
}

/*
 * Drop requests that no thread has begun. Those that wait for another request,
 * a flush or a new session, are not in the pool.
 */
static void forget(struct p9_softc *sc)
{
	struct p9_slot *slot = sc->sc_first, *next;

	for (; slot; slot = next) {
		bool waits = slot->waits || slot->parked;

		if (slot->parked)
			unpark(sc, slot);
		next = slot->next;
		if (!waits && !pool_cancel(pool_of(sc, slot), &slot->job)) {
			slot->flushes = NULL;
			continue;
		}
		give_back(sc, slot, 0);
		slot_remove(sc, slot);
	}
	sc->sc_version = NULL;
}

/* End the session once its last request has completed. */
static void end_session(struct p9_softc *sc)
{
	if (sc->sc_ending && !sc->sc_first && !sc->sc_end_begun &&
	    !sc->sc_reroot_begun) {
		sc->sc_end_begun = true;
		pool_start(sc->sc_changes, &sc->sc_end);
	}
}

/*
 * Export a directory that was made again, once no request is in flight. No other
 * is taken until then.
 */
static void take_root(struct p9_softc *sc)
{
	if (sc->sc_new_root >= 0 && !sc->sc_first && !sc->sc_ending &&
	    !sc->sc_reroot_begun) {
		sc->sc_reroot_begun = true;
		pool_start(sc->sc_changes, &sc->sc_reroot);
	}
}

static void on_reopened(void *arg, const int *take_fds, unsigned nr)
{
	struct p9_softc *sc = arg;

	while (nr > 1)
		close(take_fds[--nr]);
	sc->sc_new_root = take_fds[0];
	end_parked(sc);
	vq_endchains(&sc->sc_vq, false);
	take_root(sc);
}

static void root_taken(struct p9_softc *sc)
{
	sc->sc_new_root = -1;
	sc->sc_reroot_begun = sc->sc_removed = false;
	if (!__atomic_load_n(&sc->sc_fs->root_removed, __ATOMIC_RELAXED))
		vs_log(&sc->sc_vs, LOG_NOTICE,
		       "path= was made again on the host: exported");
}

/* Have a thread close what the loop's thread could not without blocking. */
static void close_rest(struct p9_softc *sc)
{
	if (!sc->sc_closing && p9_fs_has_closing(sc->sc_fs)) {
		sc->sc_closing = true;
		pool_start(sc->sc_changes, &sc->sc_close);
	}
}

/*
 * --- The queue ---
 */

static uint64_t bytes_read(const struct p9_softc *sc)
{
	return __atomic_load_n(&sc->sc_fs->stats.read_bytes, __ATOMIC_RELAXED);
}

static enum vq_served p9_serve(void *arg, struct vqueue_info *vq)
{
	struct p9_softc *sc = arg;
	struct p9_slot *slot;
	struct vi_req chain;

	/* Another request must end first; jobs_idle() continues here. */
	if (sc->sc_version || sc->sc_ending || sc->sc_new_root >= 0)
		return VQ_WAIT;
	if (bytes_read(sc) - sc->sc_iteration_read >= READ_BUDGET) {
		vio_task_defer(sc->sc_loop, &sc->sc_continue);
		return VQ_WAIT;
	}
	slot = slab_take(&sc->sc_slots);
	if (!slot) /* as above */
		return VQ_WAIT;
	if (vq_getchain(vq, slot->req.iov, P9_MAX_IOV, &chain) <= 0) {
		slab_give(&sc->sc_slots, slot);
		return VQ_IDLE;
	}
	slot_add(sc, slot);
	slot->head = (uint16_t)chain.idx;
	p9_req_init(&slot->req, sc->sc_fs, chain.readable, chain.writable);
	begin(sc, slot);
	return VQ_MORE;
}

static void p9_qnotify(void *arg, struct vqueue_info *vq)
{
	struct p9_softc *sc = arg;
	enum vq_served served;

	sc->sc_iteration_read = bytes_read(sc);
	served = vq_serve(vq, vq->vq_qsize, p9_serve, sc);
	vq_endchains(vq, served == VQ_IDLE);
	close_rest(sc);
	if (served == VQ_MORE)
		vio_task_defer(sc->sc_loop, &sc->sc_continue);
}

static void p9_continue(void *arg)
{
	struct p9_softc *sc = arg;

	p9_qnotify(sc, &sc->sc_vq);
}

/*
 * --- The pool's side ---
 */

static void job_init(void *arg, bool added)
{
	struct p9_softc *sc = arg;
	int ret = p9_thread_init(sc->sc_fs, added);

	if (ret < 0)
		__atomic_store_n(&sc->sc_thread_err, ret, __ATOMIC_RELAXED);
}

/* After an error nothing more is written to the guest's buffers. */
static bool is_broken(struct p9_softc *sc)
{
	return __atomic_load_n(&sc->sc_vs.vs_flags, __ATOMIC_RELAXED) &
	       VIRTIO_BROKEN;
}

static void job_run(void *arg, struct pool_job *job)
{
	struct p9_softc *sc = arg;

	if (job == &sc->sc_end)
		p9_fs_restart(sc->sc_fs, 0);
	else if (job == &sc->sc_close)
		p9_fs_close_rest(sc->sc_fs);
	else if (job == &sc->sc_reroot)
		p9_fs_set_root(sc->sc_fs, sc->sc_new_root);
	else if (!is_broken(sc))
		p9_req_run(&((struct p9_slot *)job)->req);
}

static void job_done(void *arg, struct pool_job *job)
{
	struct p9_softc *sc = arg;
	struct p9_slot *slot = (struct p9_slot *)job;

	if (job == &sc->sc_end) {
		sc->sc_ending = sc->sc_end_begun = false;
	} else if (job == &sc->sc_close) {
		sc->sc_closing = false;
	} else if (job == &sc->sc_reroot) {
		root_taken(sc);
	} else if (!park(sc, slot)) {
		if (slot == sc->sc_version)
			sc->sc_version = NULL;
		complete(sc, slot, false);
	}
}

static void jobs_idle(void *arg)
{
	struct p9_softc *sc = arg;

	if (sc->sc_nr_unlocks !=
	    __atomic_load_n(&sc->sc_fs->nr_unlocks, __ATOMIC_RELAXED))
		retry_parked(sc);
	version(sc);
	end_session(sc);
	take_root(sc);
	if (!sc->sc_destroying)
		p9_continue(sc);
}

static const struct pool_ops p9_jobs = {
	.init = job_init,
	.run = job_run,
	.done = job_done,
	.idle = jobs_idle,
};

/* Requests complete by themselves, but those that wait for a lock. */
static void p9_quiesce(void *arg)
{
	struct p9_softc *sc = arg;

	sc->sc_nr_stops++;
	end_parked(sc);
	vq_endchains(&sc->sc_vq, false);
}

/* A reset ends the session. */
static void p9_reset(void *arg)
{
	struct p9_softc *sc = arg;

	vio_task_cancel(sc->sc_loop, &sc->sc_continue);
	if (sc->sc_ending || (!sc->sc_first && !sc->sc_fs->msize))
		return;
	forget(sc);
	sc->sc_ending = true;
	end_session(sc);
}

/*
 * --- Configuration ---
 */

static int p9_cfgread(void *arg, int offset, int size, uint32_t *retval)
{
	struct p9_softc *sc = arg;
	uint8_t cfg[2 + MAX_TAG] = { 0 };
	uint16_t len = (uint16_t)strlen(sc->sc_tag);
	le16 tag_len = cpu_to_le16(len);

	memcpy(cfg, &tag_len, sizeof(tag_len));
	memcpy(cfg + 2, sc->sc_tag, len);
	return vi_cfg_read(cfg, sizeof(cfg), offset, size, retval);
}

static void p9_status(struct vdev *dev, struct json_object *status)
{
	struct p9_softc *sc = p9_of(dev);
	struct p9_fs *fs = sc->sc_fs;
	uint32_t msize = __atomic_load_n(&fs->msize, __ATOMIC_RELAXED);

	json_add_string(status, "tag", sc->sc_tag);
	json_add_bool(status, "mounted", msize != 0);
	json_add_uint(status, "msize", msize);
	pthread_mutex_lock(&fs->lock);
	json_add_uint(status, "fids", fs->fids.nr);
	json_add_uint(status, "open-files", fs->nr_files);
	json_add_uint(status, "nodes", fs->nr_nodes);
	json_add_uint(status, "descriptors", fs->nr_fds);
	pthread_mutex_unlock(&fs->lock);
	json_add_uint(status, "requests", fs->stats.requests);
	json_add_uint(status, "errors",
		      __atomic_load_n(&fs->stats.errors, __ATOMIC_RELAXED));
	json_add_uint(status, "waiting-for-locks", sc->sc_nr_parked);
	json_add_uint(status, "flushed", sc->sc_nr_flushed);
	json_add_uint(status, "bytes-read",
		      __atomic_load_n(&fs->stats.read_bytes, __ATOMIC_RELAXED));
	json_add_uint(
		status, "bytes-written",
		__atomic_load_n(&fs->stats.written_bytes, __ATOMIC_RELAXED));
}

/*
 * --- Making one ---
 */

static int open_file(const char *name, const char *path,
		     struct opened_files *files, struct err *err)
{
	int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	int ret;

	if (fd < 0)
		return err_set(err, -errno, "9p: path=%s: %s", path,
			       strerror(errno));
	ret = opened_files_add(files, name, fd);
	if (ret < 0)
		close(fd);
	return ret;
}

static enum p9_security security_of(const struct opts *opts)
{
	const char *s = opt_string(opts, "security");

	return !strcmp(s, "passthrough")  ? P9_PASSTHROUGH :
	       !strcmp(s, "mapped-xattr") ? P9_MAPPED :
					    P9_NONE;
}

/* Fail at start rather than for each file that a guest creates. */
static int check_rights(const struct opts *opts, struct err *err)
{
	uint64_t needed = VI_BIT(CAP_CHOWN) | VI_BIT(CAP_DAC_OVERRIDE) |
			  VI_BIT(CAP_FOWNER);

	if (security_of(opts) != P9_PASSTHROUGH ||
	    (p9_capabilities() & needed) == needed)
		return 0;
	return err_set(err, -EPERM,
		       "9p: security=passthrough: needs root (CAP_CHOWN, "
		       "CAP_DAC_OVERRIDE, CAP_FOWNER): use none or "
		       "mapped-xattr");
}

static int p9_open(const struct opts *opts, struct opened_files *files,
		   struct err *err)
{
	int ret = check_rights(opts, err);

	if (ret == 0)
		ret = open_file("root", opt_string(opts, "path"), files, err);
	return ret < 0 ? ret : open_file("proc", "/proc", files, err);
}

static int parse_params(const struct opts *opts, struct p9_params *params,
			struct err *err)
{
	int ret;

	params->security = security_of(opts);
	params->ro = opt_bool(opts, "ro");
	params->msize = (uint32_t)opt_number(opts, "msize");
	ret = p9_idmap_parse("uidmap", opt_string(opts, "uidmap"),
			     &params->uids, err);
	if (ret == 0)
		ret = p9_idmap_parse("gidmap", opt_string(opts, "gidmap"),
				     &params->gids, err);
	return ret;
}

static int create_slots(struct p9_softc *sc)
{
	unsigned nr = sc->sc_vq.vq_qsize;

	if (nr > MAX_REQS)
		nr = MAX_REQS;
	if (slab_init(&sc->sc_slots, nr, sizeof(struct p9_slot)) < 0)
		return -ENOMEM;
	sc->sc_dev.most_bytes =
		slab_bytes(&sc->sc_slots) + sc->sc_fs->max_held + P9_MAX_XATTRS;
	return 0;
}

static int create_fs(struct p9_softc *sc, const struct vdev_env *env,
		     struct err *err)
{
	int root_fd, proc_fd, ret;
	struct p9_params params;

	ret = parse_params(env->opts, &params, err);
	if (ret < 0)
		return ret;
	params.own_namespace = env->user;
	if (env->user) {
		params.own_uid = env->user->uid;
		params.own_gid = env->user->gid;
	}
	root_fd = opened_files_take(env->files, "root");
	proc_fd = opened_files_take(env->files, "proc");
	ret = p9_fs_create(root_fd, proc_fd, &params, &sc->sc_fs, err);
	if (ret < 0)
		return ret;
	ret = pool_create(env->loop, NR_THREADS, &p9_jobs, sc, &sc->sc_looks);
	if (ret == 0)
		ret = pool_create(env->loop, NR_THREADS, &p9_jobs, sc,
				  &sc->sc_changes);
	if (ret < 0)
		return err_set(err, ret, "9p: threads: %s", strerror(-ret));
	if (sc->sc_thread_err && params.security == P9_MAPPED)
		return err_set(err, sc->sc_thread_err,
			       "9p: security=mapped-xattr: unshare: %s",
			       strerror(-sc->sc_thread_err));
	/* An added thread shares umask and cwd with the one that adds it. */
	if (!sc->sc_thread_err) {
		pool_may_grow(sc->sc_looks, POOL_MAX_THREADS);
		pool_may_grow(sc->sc_changes, POOL_MAX_THREADS);
	}
	return 0;
}

static int set_tag(struct p9_softc *sc, const struct opts *opts,
		   struct err *err)
{
	const char *tag = opt_string(opts, "tag");
	size_t len = strlen(tag);

	if (len < 1 || len > MAX_TAG)
		return err_set(err, -EINVAL,
			       "9p: tag=%s: must have 1 to %d bytes", tag,
			       MAX_TAG);
	memcpy(sc->sc_tag, tag, len + 1);
	sc->sc_vc.vc_cfgsize = 2 + len;
	return 0;
}

/*
 * Whether the threads become idle. They close what is open, which takes the disk
 * a while for thousands of deleted files: END_NS is for one of them.
 */
static bool finish(struct p9_softc *sc)
{
	uint64_t end = vio_now_ns() + END_NS;
	unsigned nr_closed = p9_fs_nr_closed(sc->sc_fs);

	forget(sc);
	sc->sc_ending = true;
	end_session(sc);
	while ((sc->sc_ending || sc->sc_closing) && vio_now_ns() < end) {
		pool_wait(sc->sc_looks, 0);
		pool_wait(sc->sc_changes, 1);
		if (nr_closed != p9_fs_nr_closed(sc->sc_fs)) {
			nr_closed = p9_fs_nr_closed(sc->sc_fs);
			end = vio_now_ns() + END_NS;
		}
	}
	return !sc->sc_ending && !sc->sc_closing;
}

static bool p9_fini(struct vdev *dev)
{
	struct p9_softc *sc = p9_of(dev);

	sc->sc_destroying = true;
	vio_task_cancel(sc->sc_loop, &sc->sc_continue);
	vio_source_remove(sc->sc_retry);
	reopener_destroy(sc->sc_reopener);
	if (sc->sc_looks && sc->sc_changes && !finish(sc)) {
		vs_log(&sc->sc_vs, LOG_WARNING,
		       "file system not responding: threads left behind");
		pool_abandon(sc->sc_looks);
		pool_abandon(sc->sc_changes);
		return false;
	}
	pool_destroy(sc->sc_looks);
	pool_destroy(sc->sc_changes);
	if (sc->sc_new_root >= 0)
		close(sc->sc_new_root);
	p9_fs_destroy(sc->sc_fs);
	slab_fini(&sc->sc_slots);
	return true;
}

static const struct virtio_consts p9_consts = {
	.vc_name = "9p",
	.vc_nvq = 1,
	.vc_reset = p9_reset,
	.vc_quiesce = p9_quiesce,
	.vc_qnotify = p9_qnotify,
	.vc_cfgread = p9_cfgread,
	.vc_hv_caps_legacy = VI_RING_CAPS_LEGACY | VI_BIT(VIRTIO_9P_MOUNT_TAG),
	.vc_hv_caps_modern = VI_RING_CAPS_MODERN | VI_BIT(VIRTIO_9P_MOUNT_TAG),
};

/* Where there is a parent process that opens the directory again. */
static int create_reopener(struct p9_softc *sc, const struct vdev_env *env,
			   struct err *err)
{
	int fd = opened_files_take(env->files, TREE_AGAIN_FILE);
	int ret = 0;

	if (fd >= 0)
		ret = reopener_create(env->loop, fd, on_reopened, sc,
				      &sc->sc_reopener);
	if (ret == 0)
		return 0;
	close(fd);
	return err_set(err, ret, "9p: %s", strerror(-ret));
}

static int p9_init(struct vdev *dev, const struct vdev_env *env,
		   struct err *err)
{
	struct p9_softc *sc = p9_of(dev);
	int ret;

	sc->sc_loop = env->loop;
	sc->sc_continue = (struct vio_task){ .fn = p9_continue, .arg = sc };
	sc->sc_vc = p9_consts;
	sc->sc_new_root = -1;
	ret = set_tag(sc, env->opts, err);
	if (ret == 0 &&
	    (ret = vio_timer_add(env->loop, p9_retry, sc, &sc->sc_retry)) < 0)
		err_set(err, ret, "9p: timer: %s", strerror(-ret));
	if (ret == 0)
		ret = create_fs(sc, env, err);
	if (ret == 0)
		ret = create_reopener(sc, env, err);
	if (ret == 0)
		ret = vdev_attach(dev, env, &sc->sc_vs, &sc->sc_vc, &sc->sc_vq,
				  err);
	if (ret == 0 && (ret = create_slots(sc)) < 0)
		err_set(err, ret, "9p: out of memory");
	return ret;
}

/*
 * The capabilities that root keeps, to do in the tree what root may. In an
 * ordinary user's namespace none is kept.
 */
static uint64_t capabilities(enum p9_security security, bool ro)
{
	uint64_t others = VI_BIT(CAP_DAC_READ_SEARCH), owners, all;

	if (ro)
		return others;
	others |= VI_BIT(CAP_DAC_OVERRIDE) | VI_BIT(CAP_FOWNER);
	owners = others | VI_BIT(CAP_CHOWN) | VI_BIT(CAP_FSETID) |
		 VI_BIT(CAP_MKNOD) | VI_BIT(CAP_SETFCAP);
	all = owners | VI_BIT(CAP_SYS_ADMIN); /* trusted attributes */
	return security == P9_MAPPED ? others :
	       security == P9_NONE   ? owners :
				       all;
}

static void p9_rights(const struct opts *opts, struct sandbox_rights *rights)
{
	rights->tree = "root";
	rights->tree_path = opt_string(opts, "path");
	rights->proc = "proc";
	rights->tree_ro = opt_bool(opts, "ro");
	rights->same_user = true;
	rights->caps = capabilities(security_of(opts), rights->tree_ro);
}

static const struct opt_def p9_opts[] = {
	{ "path", OPT_STRING, .required = true, .help = "directory to share" },
	{ "tag", OPT_STRING, "viodev", .help = "mount tag" },
	{ "ro", OPT_BOOL, "off", .help = "read-only" },
	{ "security", OPT_CHOICE, "none",
	  .choices = "passthrough|mapped-xattr|none",
	  .help = "owners and modes: on the host files (needs root); in "
		  "extended attributes; on the host files where permitted" },
	{ "uidmap", OPT_STRING,
	  .help = "user ID map, GUEST:HOST:COUNT+...; default: identity" },
	{ "gidmap", OPT_STRING, .help = "group ID map, likewise" },
	{ "msize", OPT_SIZE, "1M", .min = P9_MIN_MSIZE, .max = P9_MAX_MSIZE,
	  .help = "maximum message size that the guest may negotiate" },
	{ NULL },
};

static const virtio_capstr_t p9_features[] = {
	{ VI_BIT(VIRTIO_9P_MOUNT_TAG), "MOUNT_TAG" },
	{ 0, NULL },
};

static const int p9_syscalls[] = {
	SYS_fchmodat,
	SYS_fchownat,
	SYS_fdatasync,
	SYS_flock,
	SYS_fstatfs,
	SYS_fsync,
	SYS_ftruncate,
	SYS_getdents64,
	SYS_getxattr,
	SYS_linkat,
	SYS_listxattr,
	SYS_lseek,
	SYS_mkdirat,
	SYS_mknodat,
	SYS_openat,
	SYS_openat2,
	SYS_pread64,
	SYS_preadv,
	SYS_preadv2,
	SYS_pwritev,
	SYS_readlinkat,
	SYS_removexattr,
	SYS_renameat2,
	SYS_setxattr,
	SYS_statx,
	SYS_symlinkat,
	SYS_unlinkat,
	SYS_utimensat,
	REOPENER_SYSCALLS,
	POOL_GROWTH_SYSCALLS, /* threads come and go */
	-1,
};

const struct vdev_type vdev_9p = {
	.vt_name = "9p",
	.vt_alias = "virtio-9p",
	.vt_summary = "host directory shared over 9P2000.L",
	.vt_legacy_id = VIRTIO_DEV_9P,
	.vt_device_id = VIRTIO_ID_9P,
	.vt_pci_class = PCIC_OTHER,
	.vt_may_not_end = true,
	.vt_queue_size = 128,
	.vt_opts = p9_opts,
	.vt_features = p9_features,
	.vt_syscalls = p9_syscalls,
	.vt_rights = p9_rights,
	.vt_open = p9_open,
	VDEV_IN(struct p9_softc, sc_dev),
	.vt_init = p9_init,
	.vt_fini = p9_fini,
	.vt_status = p9_status,
};

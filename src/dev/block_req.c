/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A request of the block device, from the queue and back (virtio 5.2.6).
 *
 * It is a chain: readable header and data, writable data and, as its last byte,
 * the status. Its division into buffers has no meaning. Payload moves between
 * the image and guest memory without a copy; requests complete in the order in
 * which the image serves them, and those that complete in one iteration of the
 * loop are published together.
 */
#include <errno.h>
#include <string.h>
#include <syslog.h>

#include <viodev/iov.h>
#include "base/util.h"
#include "dev/block_impl.h"

/* Legacy name of a flush, which virtio 1.0 dropped; Linux never had it. */
#define VIRTIO_BLK_T_FLUSH_OUT 5

/* Completions after which a polling driver sees them: not one by one. */
#define PUBLISH_BATCH 8

/* The driver's header, 5.2.6. */
struct block_hdr {
	le32 type;
	le32 reserved;
	le64 sector;
};
static_assert(sizeof(struct block_hdr) == 16, "5.2.6");

const char *const block_kind_names[BLOCK_NR_KINDS] = {
	"read", "write", "flush", "discard", "write-zeroes", "other",
};

/*
 * --- Memory ---
 */

static struct block_io *take_io(struct block_softc *sc)
{
	struct block_io *io = slab_take(&sc->sc_ios);

	if (io)
		io->wide = NULL;
	return io;
}

/* Released together with @io. */
static union block_wide *widen(struct block_softc *sc, struct block_io *io)
{
	io->wide = slab_take(&sc->sc_wides);
	return io->wide;
}

static void give_io(struct block_softc *sc, struct block_io *io)
{
	if (io->wide)
		slab_give(&sc->sc_wides, io->wide);
	slab_give(&sc->sc_ios, io);
}

/*
 * --- Parse ---
 *
 * A status is the result; PENDING: the disk will have one; NO_ROOM: take it
 * again when others have ended. The functions take the remaining readable and
 * writable bytes.
 */

#define PENDING (-1)
#define NO_ROOM (-2)

static bool in_capacity(const struct block_softc *sc, uint64_t sector,
			uint64_t nr_sectors)
{
	return sector <= sc->sc_capacity &&
	       nr_sectors <= sc->sc_capacity - sector;
}

static int check_seg(const struct block_softc *sc, enum disk_op op,
		     const struct block_seg *seg)
{
	bool zero = op == DISK_WRITE_ZEROES;
	uint32_t known = zero ? VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP : 0;
	uint32_t max = zero ? BLOCK_ZERO_SECTORS : BLOCK_DISCARD_SECTORS;
	uint32_t nr_sectors = le32_to_cpu(seg->nr_sectors);

	if (le32_to_cpu(seg->flags) & ~known)
		return VIRTIO_BLK_S_UNSUPP;
	if (nr_sectors > max ||
	    !in_capacity(sc, le64_to_cpu(seg->sector), nr_sectors))
		return VIRTIO_BLK_S_IOERR;
	return VIRTIO_BLK_S_OK;
}

/* All segments are checked before the first one is processed. */
static int parse_segs(struct block_softc *sc, struct block_io *io,
		      enum disk_op op, struct vio_iov_cursor *rd)
{
	const size_t seg_len = sizeof(struct block_seg);
	size_t len = vio_iov_len(rd);

	if (len == 0 || len % seg_len || len > BLOCK_MAX_SEGS * seg_len)
		return VIRTIO_BLK_S_IOERR;
	if (!widen(sc, io))
		return NO_ROOM;
	vio_iov_take(rd, io->wide->segs, len);
	io->next_seg = 0;
	io->nr_segs = (unsigned)(len / seg_len);
	for (unsigned i = 0; i < io->nr_segs; i++) {
		int status = check_seg(sc, op, &io->wide->segs[i]);

		if (status != VIRTIO_BLK_S_OK)
			return status;
	}
	return VIRTIO_BLK_S_OK;
}

static enum block_kind kind_of(uint32_t type)
{
	switch (type) {
	case VIRTIO_BLK_T_IN:
		return BLOCK_READ;
	case VIRTIO_BLK_T_OUT:
		return BLOCK_WRITE;
	case VIRTIO_BLK_T_FLUSH:
	case VIRTIO_BLK_T_FLUSH_OUT:
		return BLOCK_FLUSH;
	case VIRTIO_BLK_T_DISCARD:
		return BLOCK_DISCARD;
	case VIRTIO_BLK_T_WRITE_ZEROES:
		return BLOCK_ZERO;
	default:
		return BLOCK_OTHER;
	}
}

static bool type_writes(uint32_t type)
{
	return type == VIRTIO_BLK_T_OUT || type == VIRTIO_BLK_T_DISCARD ||
	       type == VIRTIO_BLK_T_WRITE_ZEROES ||
	       type == VIRTIO_BLK_T_SECURE_ERASE;
}

/*
 * --- Execute ---
 */

static void block_complete(struct block_io *io, uint8_t status);
static void block_done(struct disk_req *dr, int result);

/* A request's own copy of its data buffers, or NULL. */
static struct iovec *keep_iov(struct block_softc *sc, struct block_io *io,
			      const struct vio_iov_cursor *data)
{
	struct iovec *iov = io->few;

	if (data->niov > BLOCK_FEW_IOV) {
		if (!widen(sc, io))
			return NULL;
		iov = io->wide->iov;
	}
	memcpy(iov, data->iov, (size_t)data->niov * sizeof(*iov));
	return iov;
}

static int exec_rw(struct block_softc *sc, struct block_io *io, enum disk_op op,
		   uint64_t sector, struct vio_iov_cursor *data,
		   const struct vio_iov_cursor *other)
{
	uint64_t len = vio_iov_len(data);
	struct iovec *iov;

	if (vio_iov_len(other) > 0 || len % SECTOR_BYTES ||
	    !in_capacity(sc, sector, len / SECTOR_BYTES))
		return VIRTIO_BLK_S_IOERR;
	iov = keep_iov(sc, io, data);
	if (!iov)
		return NO_ROOM;
	io->nr_segs = io->next_seg = 0;
	io->dr = (struct disk_req){
		.dr_op = op,
		.dr_fua = op == DISK_WRITE && !block_write_cache_on(sc),
		.dr_off = sector * SECTOR_BYTES,
		.dr_len = len,
		.dr_iov = iov,
		.dr_niov = data->niov,
		.dr_done = block_done,
	};
	ratelimit_charge(&sc->sc_bps, len);
	disk_start(sc->sc_disk, &io->dr);
	return PENDING;
}

static int exec_flush(struct block_softc *sc, struct block_io *io,
		      uint64_t sector, const struct vio_iov_cursor *rd,
		      const struct vio_iov_cursor *wr)
{
	if (sector || vio_iov_len(rd) > 0 || vio_iov_len(wr) > 0)
		return VIRTIO_BLK_S_IOERR;
	io->nr_segs = io->next_seg = 0;
	io->dr = (struct disk_req){
		.dr_op = DISK_FLUSH,
		.dr_done = block_done,
	};
	disk_start(sc->sc_disk, &io->dr);
	return PENDING;
}

static void start_seg(struct block_softc *sc, struct block_io *io)
{
	const struct block_seg *seg = &io->wide->segs[io->next_seg++];
	bool zero = io->kind == BLOCK_ZERO;
	bool unmap =
		le32_to_cpu(seg->flags) & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;

	io->dr = (struct disk_req){
		.dr_op = zero ? DISK_WRITE_ZEROES : DISK_DISCARD,
		.dr_fua = zero && !block_write_cache_on(sc),
		.dr_unmap = unmap && sc->sc_discard,
		.dr_off = le64_to_cpu(seg->sector) * SECTOR_BYTES,
		.dr_len = (uint64_t)le32_to_cpu(seg->nr_sectors) * SECTOR_BYTES,
		.dr_done = block_done,
	};
	disk_start(sc->sc_disk, &io->dr);
}

static int exec_segs(struct block_softc *sc, struct block_io *io,
		     unsigned feature, struct vio_iov_cursor *rd,
		     const struct vio_iov_cursor *wr)
{
	enum disk_op op =
		io->kind == BLOCK_ZERO ? DISK_WRITE_ZEROES : DISK_DISCARD;
	int status;

	if (!block_negotiated(sc, feature))
		return VIRTIO_BLK_S_UNSUPP;
	if (vio_iov_len(wr) > 0)
		return VIRTIO_BLK_S_IOERR;
	status = parse_segs(sc, io, op, rd);
	if (status != VIRTIO_BLK_S_OK)
		return status;
	start_seg(sc, io);
	return PENDING;
}

static int exec_get_id(struct block_softc *sc, const struct vio_iov_cursor *rd,
		       struct vio_iov_cursor *wr)
{
	if (vio_iov_len(rd) > 0 || vio_iov_len(wr) != sizeof(sc->sc_serial))
		return VIRTIO_BLK_S_IOERR;
	vio_iov_write(wr, sc->sc_serial, sizeof(sc->sc_serial));
	return VIRTIO_BLK_S_OK;
}

static int execute(struct block_softc *sc, struct block_io *io,
		   struct vio_iov_cursor *rd, struct vio_iov_cursor *wr)
{
	struct block_hdr hdr;
	uint64_t sector;
	uint32_t type;

	io->kind = BLOCK_OTHER;
	if (vio_iov_take(rd, &hdr, sizeof(hdr)) < sizeof(hdr))
		return VIRTIO_BLK_S_IOERR;
	type = le32_to_cpu(hdr.type);
	sector = le64_to_cpu(hdr.sector);
	io->kind = kind_of(type);
	if (sc->sc_info.ro && type_writes(type))
		return VIRTIO_BLK_S_IOERR;

	switch (type) {
	case VIRTIO_BLK_T_IN:
		return exec_rw(sc, io, DISK_READ, sector, wr, rd);
	case VIRTIO_BLK_T_OUT:
		return exec_rw(sc, io, DISK_WRITE, sector, rd, wr);
	case VIRTIO_BLK_T_FLUSH_OUT:
		if (vi_is_modern(&sc->sc_vs))
			return VIRTIO_BLK_S_UNSUPP;
		return exec_flush(sc, io, sector, rd, wr);
	case VIRTIO_BLK_T_FLUSH:
		return exec_flush(sc, io, sector, rd, wr);
	case VIRTIO_BLK_T_GET_ID:
		return exec_get_id(sc, rd, wr);
	case VIRTIO_BLK_T_DISCARD:
		return exec_segs(sc, io, VIRTIO_BLK_F_DISCARD, rd, wr);
	case VIRTIO_BLK_T_WRITE_ZEROES:
		return exec_segs(sc, io, VIRTIO_BLK_F_WRITE_ZEROES, rd, wr);
	default:
		return VIRTIO_BLK_S_UNSUPP;
	}
}

/*
 * --- Complete ---
 */

/* Nobody waits for the request: guest memory is not accessed. */
static bool abandoned(const struct block_io *io)
{
	return !vq_chain_live(io->q->vq, io->head);
}

/* A broken device does not access guest memory (2.1.2), whatever broke it. */
static void check_broken(struct block_softc *sc)
{
	if (sc->sc_vs.vs_flags & VIRTIO_BROKEN)
		disk_forget(sc->sc_disk);
}

/*
 * Used length: what was written from the first writable byte on. The status
 * comes last, so it counts only together with all that is before it (2.7.8.2).
 */
static uint32_t used_bytes(const struct block_io *io, uint8_t status)
{
	if (status == VIRTIO_BLK_S_OK || io->in_bytes == 0)
		return io->in_bytes + 1;
	return 0;
}

static void count(struct block_softc *sc, const struct block_io *io,
		  uint8_t status)
{
	struct block_stats *stats = &sc->sc_stats[io->kind];

	stats->requests++;
	if (status != VIRTIO_BLK_S_OK)
		stats->errors++;
	else if (io->kind == BLOCK_READ || io->kind == BLOCK_WRITE)
		stats->bytes += io->dr.dr_len;
}

/* Others may be waiting for the memory. */
static void io_free(struct block_softc *sc, struct block_io *io)
{
	give_io(sc, io);
	if (!sc->sc_no_memory)
		return;
	sc->sc_no_memory = false;
	for (int i = 0; i < sc->sc_consts.vc_nvq; i++)
		vio_task_defer(sc->sc_loop, &sc->sc_queues[i].iteration_end);
}

static void block_complete(struct block_io *io, uint8_t status)
{
	struct block_queue *q = io->q;
	struct block_softc *sc = q->sc;

	if (abandoned(io)) {
		vq_relchain(q->vq, io->head, 0);
	} else {
		count(sc, io, status);
		*io->status = status;
		vq_relchain_prepare(q->vq, io->head, used_bytes(io, status));
		if (q->vq->vq_next_used % PUBLISH_BATCH == 0)
			vq_relchain_publish(q->vq);
		vio_task_defer(sc->sc_loop, &q->iteration_end);
	}
	io_free(sc, io);
}

/* Host errors arrive in floods: log the 1st, 2nd, 4th, ... */
static void log_error(struct block_softc *sc, const struct block_io *io,
		      int result)
{
	uint64_t n = ++sc->sc_host_errors;

	if (!(n & (n - 1)))
		vs_log(&sc->sc_vs, LOG_ERR, "%s failed: %s (%llu errors)",
		       block_kind_names[io->kind], strerror(-result),
		       (unsigned long long)n);
}

/* A request that fails in a stopping queue must not wait either. */
static bool give_back(void *arg, struct disk_req *req)
{
	struct block_softc *sc = arg;
	struct block_io *io = (void *)req;

	if (!vq_is_stopping(io->q->vq) || !vq_retchain(io->q->vq, io->head))
		return false;
	io_free(sc, io);
	return true;
}

unsigned block_give_back(struct block_softc *sc)
{
	unsigned nr = disk_nr_waiting(sc->sc_disk), before;

	/* Returning one may make another the last one taken. */
	do {
		before = nr;
		disk_take_back(sc->sc_disk, give_back, sc);
		nr = disk_nr_waiting(sc->sc_disk);
	} while (nr > 0 && nr < before);
	return nr;
}

void block_on_wait(void *arg, enum disk_op op, int error)
{
	static const char *const names[] = {
		[DISK_READ] = "read",
		[DISK_WRITE] = "write",
		[DISK_FLUSH] = "flush",
		[DISK_DISCARD] = "discard",
		[DISK_WRITE_ZEROES] = "write-zeroes",
	};
	struct block_softc *sc = arg;

	block_give_back(sc);
	if (disk_nr_waiting(sc->sc_disk) != 1)
		return;
	vs_log(&sc->sc_vs, LOG_ERR,
	       "%s failed: %s: requests wait (`viodev ctl SOCKET resume` "
	       "retries them)",
	       names[op], strerror(-error));
	vdev_tell(&sc->sc_env, VDEV_WAITING);
}

/*
 * The write cache was turned off (CONFIG_WCE). A configuration write cannot
 * wait, so cached data is flushed after it; a write in flight at that moment is
 * flushed before it completes, as are all later ones (5.2.6.2).
 */
static void flush_done(struct disk_req *req, int result)
{
	struct block_softc *sc =
		container_of(req, struct block_softc, sc_flush);

	sc->sc_flushing = false;
	if (result < 0 && result != -ECANCELED)
		vs_log(&sc->sc_vs, LOG_ERR, "flush of the write cache: %s",
		       strerror(-result));
	/* A reset forgets requests, but the driver still owns the data. */
	if (sc->sc_flush_pending || result == -ECANCELED)
		block_flush_cache(sc);
}

void block_flush_cache(struct block_softc *sc)
{
	sc->sc_flush_pending = sc->sc_flushing;
	if (sc->sc_flushing)
		return;
	sc->sc_flushing = true;
	sc->sc_flush = (struct disk_req){
		.dr_op = DISK_FLUSH,
		.dr_done = flush_done,
	};
	disk_start(sc->sc_disk, &sc->sc_flush);
}

static bool is_cached_write(const struct block_io *io)
{
	return (io->dr.dr_op == DISK_WRITE ||
		io->dr.dr_op == DISK_WRITE_ZEROES) &&
	       !io->dr.dr_fua;
}

static void flush_write(struct block_softc *sc, struct block_io *io)
{
	io->dr.dr_op = DISK_FLUSH;
	disk_start(sc->sc_disk, &io->dr);
}

static void block_done(struct disk_req *dr, int result)
{
	struct block_io *io = (void *)dr;
	struct block_softc *sc = io->q->sc;

	check_broken(sc);
	if (abandoned(io)) {
		block_complete(io, VIRTIO_BLK_S_IOERR);
	} else if (result < 0) {
		log_error(sc, io, result);
		block_complete(io, VIRTIO_BLK_S_IOERR);
	} else if (is_cached_write(io) && !block_write_cache_on(sc)) {
		flush_write(sc, io);
	} else if (io->next_seg < io->nr_segs) {
		start_seg(sc, io);
	} else {
		block_complete(io, VIRTIO_BLK_S_OK);
	}
}

/*
 * --- Queues ---
 */

/* Return it, to be taken again. */
static int no_room(struct block_queue *q)
{
	vq_retchains(q->vq, 1);
	q->sc->sc_no_memory = true;
	return NO_ROOM;
}

static int begin_io(struct block_queue *q, struct block_io *io,
		    const struct vi_req *req)
{
	struct block_softc *sc = q->sc;
	struct vio_iov_cursor rd = { sc->sc_iov, req->readable };
	struct vio_iov_cursor wr = { sc->sc_iov + req->readable,
				     req->writable };
	int status;

	io->q = q;
	io->head = (uint16_t)req->idx;
	io->status = vio_iov_take_last(&wr);
	if (!io->status) {
		vi_error(&sc->sc_vs, "queue %u: request without a status byte",
			 q->vq->vq_num);
		block_complete(io, VIRTIO_BLK_S_IOERR);
		return -1;
	}
	io->in_bytes = (uint32_t)vio_iov_len(&wr);
	status = execute(sc, io, &rd, &wr);
	if (status == NO_ROOM) {
		give_io(sc, io);
		return no_room(q);
	}
	ratelimit_charge(&sc->sc_iops, 1);
	if (status != PENDING)
		block_complete(io, (uint8_t)status);
	return 0;
}

/* Begin the request in sc_iov: 0, NO_ROOM, or -1 after vi_error(). */
static int begin(struct block_queue *q, const struct vi_req *req)
{
	struct block_io *io = take_io(q->sc);

	return io ? begin_io(q, io, req) : no_room(q);
}

/* Whether a request may begin; if not, the timer is set to when one may. */
static bool limits_allow(struct block_softc *sc)
{
	uint64_t iops_ns = ratelimit_debt_ns(&sc->sc_iops);
	uint64_t bps_ns = ratelimit_debt_ns(&sc->sc_bps);
	uint64_t wait_ns = iops_ns > bps_ns ? iops_ns : bps_ns;

	if (wait_ns)
		vio_timer_set(sc->sc_limit_timer, wait_ns);
	return wait_ns == 0;
}

/*
 * Begin the next request. One that must wait is begun by block_on_limit(), or
 * when io_free() has memory.
 */
static enum vq_served begin_next(void *arg, struct vqueue_info *vq)
{
	struct block_queue *q = arg;
	struct block_softc *sc = q->sc;
	struct vi_req req;
	int ret;

	if (!limits_allow(sc) && vq_has_descs(vq))
		return VQ_WAIT;
	if (vq_getchain(vq, sc->sc_iov, BLOCK_MAX_IOV, &req) <= 0)
		return VQ_IDLE;
	ret = begin(q, &req);
	if (ret == NO_ROOM)
		return VQ_WAIT;
	return ret < 0 ? VQ_IDLE : VQ_MORE;
}

void block_qnotify(void *arg, struct vqueue_info *vq)
{
	struct block_softc *sc = arg;
	struct block_queue *q = &sc->sc_queues[vq->vq_num];

	if (vq->vq_num > 0 && !block_negotiated(sc, VIRTIO_BLK_F_MQ))
		return;
	if (vq_serve(vq, vq->vq_qsize, begin_next, q) == VQ_MORE)
		vio_task_defer(sc->sc_loop, &q->iteration_end);
	check_broken(sc);
}

/* The end of an iteration: publish what completed in it. */
void block_iteration_end(void *arg)
{
	struct block_queue *q = arg;

	vq_relchain_publish(q->vq);
	vq_endchains(q->vq, 1);
	/* An iteration that left requests waiting has left kicks off. */
	if (!vq_kicks_wanted(q->vq) || vq_has_descs(q->vq))
		block_qnotify(q->sc, q->vq);
	check_broken(q->sc);
}

void block_on_limit(void *arg)
{
	struct block_softc *sc = arg;

	for (int i = 0; i < sc->sc_consts.vc_nvq; i++) {
		if (vq_has_descs(&sc->sc_vqs[i]))
			block_qnotify(sc, &sc->sc_vqs[i]);
	}
	check_broken(sc);
}

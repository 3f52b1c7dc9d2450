/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The SCSI host device (virtio 5.6): takes requests off the queues, passes them
 * to their logical units and returns the responses. See scsi.h for the rest.
 *
 * Of a request the readable part is address, CDB and data out, the writable
 * one response, sense and data in; how that is cut into buffers means nothing.
 * The sizes of CDB and sense are the driver's choice.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <scsi/sg.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <syslog.h>
#include <unistd.h>

#include "base/le.h"
#include "base/util.h"
#include "dev/scsi/scsi.h"

#define SCSI_MIN_QSIZE 4u
#define SCSI_MAX_QSIZE 1024u

enum {
	SENSE_SIZE_AT = offsetof(struct virtio_scsi_config, sense_size),
	CDB_SIZE_AT = offsetof(struct virtio_scsi_config, cdb_size),
};

/* The fields before the CDB, 5.6.6.1. */
struct scsi_req {
	uint8_t lun[8];
	uint8_t id[8]; /* opaque */
	uint8_t task_attr;
	uint8_t prio;
	uint8_t crn;
};
static_assert(sizeof(struct scsi_req) == 19, "5.6.6.1");

/* The fields before the sense. */
struct scsi_resp {
	le32 sense_len;
	le32 residual;
	le16 status_qualifier;
	uint8_t status;
	uint8_t response;
};
static_assert(sizeof(struct scsi_resp) == 12, "5.6.6.1");

static struct scsi_softc *scsi_of(struct vdev *dev)
{
	return container_of(dev, struct scsi_softc, sc_dev);
}

static uint32_t sense_size(const struct scsi_softc *sc)
{
	le32 v;

	memcpy(&v, sc->sc_sizes, sizeof(v));
	return le32_to_cpu(v);
}

static uint32_t cdb_size(const struct scsi_softc *sc)
{
	le32 v;

	memcpy(&v, sc->sc_sizes + 4, sizeof(v));
	return le32_to_cpu(v);
}

/*
 * --- Memory ---
 */

/* A task with room for @niov buffers, or NULL: others must end first. */
static struct scsi_task *task_alloc(struct scsi_softc *sc, unsigned niov)
{
	struct scsi_task *t = slab_take(&sc->sc_tasks);

	if (!t)
		return NULL;
	t->wide = niov > SCSI_FEW_IOV ? slab_take(&sc->sc_wides) : NULL;
	t->iov = t->wide ? t->wide->iov : t->few;
	if (niov <= SCSI_FEW_IOV || t->wide)
		return t;
	slab_give(&sc->sc_tasks, t);
	return NULL;
}

/* A chain may be waiting for a free task. */
static void task_free(struct scsi_task *t)
{
	struct scsi_softc *sc = t->q->sc;

	if (t->wide)
		slab_give(&sc->sc_wides, t->wide);
	slab_give(&sc->sc_tasks, t);
	if (sc->sc_no_memory)
		vio_task_defer(sc->sc_loop, &sc->sc_more);
}

/*
 * --- Complete ---
 */

/* Response and sense, as much of it as the driver has room for. */
static size_t build_sense(const struct scsi_task *t, uint32_t max, uint8_t *buf)
{
	size_t len = 0;

	if (t->raw_sense_len) {
		len = t->raw_sense_len;
		memcpy(buf, t->raw_sense, len);
	} else if (t->status == STATUS_CHECK_CONDITION) {
		len = sense_build(&t->sense, t->lun->d_sense, buf);
	}
	return len < max ? len : max;
}

static bool broken(const struct scsi_softc *sc)
{
	return sc->sc_vs.vs_flags & VIRTIO_BROKEN;
}

/*
 * All of the sense area is written, and the data in follows it directly: the
 * used length has no holes.
 */
static uint32_t write_response(struct scsi_task *t)
{
	uint8_t sense[VIRTIO_SCSI_SENSE_DEFAULT_SIZE] = { 0 };
	uint32_t area = sense_size(t->q->sc);
	bool ran = t->response == VIRTIO_SCSI_S_OK;
	uint64_t moved = ran ? t->transferred : 0;
	size_t sense_len = ran ? build_sense(t, area, sense) : 0;
	struct scsi_resp resp = {
		.sense_len = cpu_to_le32((uint32_t)sense_len),
		.residual =
			cpu_to_le32((uint32_t)(t->in_len + t->out_len - moved)),
		.status = ran ? t->status : 0,
		.response = t->response,
	};
	size_t used = vio_iov_write(&t->resp, &resp, sizeof(resp));
	size_t n = area < sizeof(sense) ? area : sizeof(sense);

	used += vio_iov_write(&t->resp, sense, n);
	used += vio_iov_zero(&t->resp, area - n);
	return (uint32_t)(used + (t->in_len ? moved : 0));
}

/* Write nothing if the driver no longer waits for it. */
static void report(struct scsi_task *t)
{
	struct scsi_queue *q = t->q;
	uint32_t len = task_live(t) ? write_response(t) : 0;

	vq_relchain_prepare(q->vq, (uint16_t)t->idx, len);
	vio_task_defer(q->sc->sc_loop, &q->iteration_end);
}

void task_finish(struct scsi_task *t)
{
	struct scsi_softc *sc = t->q->sc;
	struct scsi_lun *lun = t->lun;

	if (t->aborted)
		t->response = t->abort_response;
	t->step_pending = false;
	report(t);
	task_leave(t);
	task_free(t);
	if (lun->leaving && !lun->first)
		vio_task_defer(sc->sc_loop, &lun->left);
	if (sc->sc_nr_tmfs > 0)
		scsi_tmfs_check(sc);
}

void scsi_publish(struct scsi_queue *q)
{
	vq_relchain_publish(q->vq);
	vq_endchains(q->vq, 1);
}

/*
 * --- Parse ---
 */

/*
 * Cut the writable part into response, with sense, and data in. Where the cut
 * is inside of an entry the former's are moved one place to the front: there
 * is room, iov[0] is never used and nothing readable is needed any more.
 */
static void split_writable(struct scsi_task *t, struct vio_iov_cursor wr,
			   size_t len)
{
	int n = 0;

	while (n < wr.niov && wr.iov[n].iov_len <= len)
		len -= wr.iov[n++].iov_len;
	t->resp = (struct vio_iov_cursor){ wr.iov, n };
	t->data = (struct vio_iov_cursor){ wr.iov + n, wr.niov - n };
	if (n == wr.niov || len == 0)
		return;
	memmove(wr.iov - 1, wr.iov, (size_t)n * sizeof(*wr.iov));
	wr.iov[n - 1] = (struct iovec){ wr.iov[n].iov_base, len };
	t->resp = (struct vio_iov_cursor){ wr.iov - 1, n + 1 };
	vio_iov_skip(&t->data, len);
}

/* A chain that cannot be a command, but can be answered. */
static void refuse(struct scsi_task *t, uint8_t response)
{
	t->response = response;
	report(t);
	task_free(t);
}

/* Fill in the task. False: it has been dealt with. */
static bool parse(struct scsi_task *t, const struct vi_req *req)
{
	struct scsi_softc *sc = t->q->sc;
	struct vio_iov_cursor rd = { t->iov + 1, req->readable };
	struct vio_iov_cursor wr = { rd.iov + rd.niov, req->writable };
	size_t in_room = vio_iov_len(&wr);
	/* A driver may set 0xffffffff: a sum must not wrap on 32 bits. */
	uint64_t cdb_len = cdb_size(sc);
	uint64_t resp_len = sizeof(struct scsi_resp) + (uint64_t)sense_size(sc);
	struct scsi_req hdr;
	size_t hdr_len = vio_iov_take(&rd, &hdr, sizeof(hdr));

	memset(t->cdb.b, 0, sizeof(t->cdb.b));
	hdr_len += vio_iov_take(&rd, t->cdb.b,
				cdb_len < CDB_MAX ? (size_t)cdb_len : CDB_MAX);
	if (cdb_len > CDB_MAX)
		hdr_len += vio_iov_skip(&rd, (size_t)cdb_len - CDB_MAX);
	if (in_room < sizeof(struct scsi_resp)) {
		vi_error(&sc->sc_vs, "queue %u: no room for a response",
			 t->q->vq->vq_num);
		vq_relchain(t->q->vq, (uint16_t)t->idx, 0);
		task_free(t);
		return false;
	}
	t->out_len = vio_iov_len(&rd);
	t->in_len = in_room > resp_len ? in_room - (size_t)resp_len : 0;
	if (hdr_len < sizeof(hdr) + cdb_len || in_room < resp_len ||
	    (t->in_len && t->out_len)) { /* INOUT is not offered */
		t->resp = wr;
		refuse(t, VIRTIO_SCSI_S_FAILURE);
		return false;
	}
	memcpy(t->addr, hdr.lun, sizeof(t->addr));
	memcpy(&t->id, hdr.id, sizeof(t->id));
	t->attr = hdr.task_attr;
	split_writable(t, wr, (size_t)resp_len);
	if (t->out_len)
		t->data = rd;
	return true;
}

static void task_init(struct scsi_task *t, unsigned idx)
{
	t->idx = idx;
	t->seq = ++t->q->sc->sc_seq;
	t->in_len = t->out_len = t->transferred = 0;
	t->aborted = false;
	t->response = VIRTIO_SCSI_S_OK;
	t->status = STATUS_GOOD;
	t->sense = (struct scsi_sense){ 0 };
	t->raw_sense_len = 0;
	t->in_step = t->step_pending = false;
	t->req.dr_fua = t->req.dr_unmap = false;
}

static void begin(struct scsi_task *t, const struct vi_req *req)
{
	struct scsi_softc *sc = t->q->sc;
	uint8_t response;

	task_init(t, req->idx);
	if (!parse(t, req))
		return;
	t->lun = scsi_find(sc, t->addr, &response);
	if (!t->lun) {
		refuse(t, response);
		return;
	}
	cdb_parse(&t->cdb, lun_kinds(t->lun), &t->sense);
	task_submit(t);
}

/*
 * --- Queues ---
 */

/* The next command. One that no task is free for is fetched by task_free(). */
static enum vq_served fetch_one(void *arg, struct vqueue_info *vq)
{
	struct scsi_queue *q = arg;
	struct scsi_softc *sc = q->sc;
	struct scsi_task *t;
	struct vi_req req;
	int n = vq_getchain(vq, sc->sc_iov, SCSI_MAX_IOV, &req);

	if (n <= 0)
		return VQ_IDLE;
	t = task_alloc(sc, (unsigned)n);
	if (!t) {
		vq_retchains(vq, 1);
		sc->sc_no_memory = true;
		return VQ_WAIT;
	}
	t->q = q;
	memcpy(t->iov + 1, sc->sc_iov, (size_t)n * sizeof(*t->iov));
	begin(t, &req);
	return VQ_MORE;
}

/* Begin what is available, up to a ring full; then it is others' turn. */
void scsi_fetch(struct scsi_queue *q)
{
	if (vq_serve(q->vq, q->vq->vq_qsize, fetch_one, q) == VQ_MORE)
		vio_task_defer(q->sc->sc_loop, &q->iteration_end);
}

static void scsi_qnotify(void *arg, struct vqueue_info *vq)
{
	struct scsi_softc *sc = arg;

	scsi_fetch(&sc->sc_queues[vq->vq_num - 2]);
	scsi_check_broken(sc);
}

/* The end of an iteration: show the driver what completed in it. */
static void queue_iteration_end(void *arg)
{
	struct scsi_queue *q = arg;

	scsi_publish(q);
	/* An iteration that left commands waiting has left kicks off. */
	if (!vq_kicks_wanted(q->vq) || vq_has_descs(q->vq))
		scsi_qnotify(q->sc, q->vq);
	scsi_check_broken(q->sc);
}

static void more(void *arg)
{
	struct scsi_softc *sc = arg;

	scsi_control_notify(sc, &sc->sc_vqs[0]);
}

/* The driver no longer waits for any command. */
static void forget_commands(struct scsi_softc *sc)
{
	scsi_tmfs_forget(sc);
	for (unsigned i = 0; i < sc->sc_nr_luns; i++)
		tasks_forget(sc->sc_luns[i], VIRTIO_SCSI_S_RESET);
}

/* A broken device leaves guest memory alone (2.1.2), whatever broke it. */
void scsi_check_broken(struct scsi_softc *sc)
{
	if (broken(sc))
		forget_commands(sc);
}

/*
 * Commands end in their own time. Those that wait after an error end now, with
 * BUSY: the driver sends them again.
 */
static void scsi_quiesce(void *arg)
{
	struct scsi_softc *sc = arg;

	for (unsigned i = 0; i < sc->sc_nr_luns; i++) {
		struct disk *disk = sc->sc_luns[i]->disk;

		if (disk && disk_nr_waiting(disk) > 0)
			disk_forget(disk);
		task_schedule(sc->sc_luns[i]); /* without limits now */
	}
}

static void reset_sizes(struct scsi_softc *sc)
{
	le32 sense = cpu_to_le32(VIRTIO_SCSI_SENSE_DEFAULT_SIZE);
	le32 cdb = cpu_to_le32(VIRTIO_SCSI_CDB_DEFAULT_SIZE);

	memcpy(sc->sc_sizes, &sense, 4);
	memcpy(sc->sc_sizes + 4, &cdb, 4);
}

static void scsi_reset(void *arg)
{
	struct scsi_softc *sc = arg;
	bool ran = sc->sc_taken_over ||
		   (sc->sc_vs.vs_status & VIRTIO_CONFIG_STATUS_DRIVER_OK);

	forget_commands(sc);
	for (unsigned i = 0; i < sc->sc_nr_queues; i++)
		vio_task_cancel(sc->sc_loop, &sc->sc_queues[i].iteration_end);
	vio_task_cancel(sc->sc_loop, &sc->sc_more);
	sc->sc_missed = sc->sc_taken_over = sc->sc_no_memory = false;
	reset_sizes(sc);
	for (unsigned i = 0; i < sc->sc_nr_luns && ran; i++)
		lun_reset(sc->sc_luns[i], UA_RESET);
}

/*
 * --- Configuration, 5.6.4 ---
 */

static void fill_config(const struct scsi_softc *sc, uint8_t *p)
{
	const le32 words[] = {
		cpu_to_le32(sc->sc_nr_queues),
		cpu_to_le32(sc->sc_seg_max),
		cpu_to_le32(0xffff),                 /* sectors of a request */
		cpu_to_le32(sc->sc_vqs[2].vq_qsize), /* commands of a LUN */
		cpu_to_le32(sizeof(struct virtio_scsi_event)),
		cpu_to_le32(0), /* the two that are the driver's, below */
		cpu_to_le32(0),
		cpu_to_le32(SCSI_MAX_TARGET << 16), /* no other channel */
		cpu_to_le32(SCSI_MAX_LUN),
	};

	static_assert(sizeof(words) == sizeof(struct virtio_scsi_config), "");
	memcpy(p, words, sizeof(words));
	memcpy(p + SENSE_SIZE_AT, sc->sc_sizes, sizeof(sc->sc_sizes));
}

static int scsi_cfgread(void *arg, int offset, int size, uint32_t *retval)
{
	uint8_t config[sizeof(struct virtio_scsi_config)];

	fill_config(arg, config);
	return vi_cfg_read(config, sizeof(config), offset, size, retval);
}

/* Also byte by byte, as Linux writes legacy configuration. */
static int scsi_cfgwrite(void *arg, int offset, int size, uint32_t value)
{
	uint8_t config[sizeof(struct virtio_scsi_config)];
	struct scsi_softc *sc = arg;

	fill_config(sc, config);
	vi_cfg_write(config, sizeof(config), offset, size, value);
	memcpy(sc->sc_sizes, config + SENSE_SIZE_AT, sizeof(sc->sc_sizes));
	return 0;
}

#define SCSI_FEATURES \
	(VI_BIT(VIRTIO_SCSI_F_HOTPLUG) | VI_BIT(VIRTIO_SCSI_F_CHANGE))

static const struct virtio_consts scsi_consts = {
	.vc_name = "scsi",
	.vc_cfgsize = sizeof(struct virtio_scsi_config),
	.vc_reset = scsi_reset,
	.vc_qnotify = scsi_qnotify,
	.vc_cfgread = scsi_cfgread,
	.vc_cfgwrite = scsi_cfgwrite,
	.vc_quiesce = scsi_quiesce,
	.vc_save = scsi_save,
	.vc_load = scsi_load,
	.vc_hv_caps_legacy = VI_RING_CAPS_LEGACY | SCSI_FEATURES,
	.vc_hv_caps_modern = VI_RING_CAPS_MODERN | SCSI_FEATURES,
};

/*
 * --- Create and destroy ---
 */

static int check_opts(const struct opts *opts, struct err *err)
{
	uint64_t size = opt_number(opts, "queue-size");

	if (opt_given(opts, "queue-size") &&
	    (size < SCSI_MIN_QSIZE || size > SCSI_MAX_QSIZE))
		return err_set(err, -EINVAL,
			       "scsi: queue-size=%s: must be from %u to %u",
			       opt_string(opts, "queue-size"), SCSI_MIN_QSIZE,
			       SCSI_MAX_QSIZE);
	return 0;
}

static int scsi_open(const struct opts *opts, struct opened_files *files,
		     struct err *err)
{
	const char *path = opt_string(opts, "reservations");
	int fd, ret = check_opts(opts, err);

	if (ret == 0)
		ret = luns_open(opts, files, err);
	if (ret < 0 || !path)
		return ret;
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return err_set(err, -errno, "scsi: reservations=%s: %s", path,
			       strerror(errno));
	ret = opened_files_add(files, "reservations", fd);
	if (ret < 0)
		close(fd);
	return ret;
}

static bool scsi_fini(struct vdev *dev)
{
	struct scsi_softc *sc = scsi_of(dev);
	bool ended;

	forget_commands(sc);
	ended = scsi_offload_destroy(sc->sc_offload);
	ended &= luns_destroy(sc, ended);
	for (unsigned i = 0; i < sc->sc_nr_queues; i++)
		vio_task_cancel(sc->sc_loop, &sc->sc_queues[i].iteration_end);
	vio_task_cancel(sc->sc_loop, &sc->sc_more);
	free(sc->sc_tmfs);
	if (sc->sc_pr_fd >= 0)
		close(sc->sc_pr_fd);
	if (!ended) /* the host still works on commands */
		return false;
	slab_fini(&sc->sc_tasks);
	slab_fini(&sc->sc_wides);
	return true;
}

static int create_memory(struct scsi_softc *sc, unsigned nr)
{
	if (nr > SCSI_MAX_TASKS)
		nr = SCSI_MAX_TASKS;
	if (slab_init(&sc->sc_tasks, nr, sizeof(struct scsi_task)) < 0 ||
	    slab_init(&sc->sc_wides, SCSI_MAX_WIDE, sizeof(struct scsi_wide)) <
		    0)
		return -ENOMEM;
	sc->sc_dev.most_bytes = sc->sc_vqs[0].vq_qsize * sizeof(*sc->sc_tmfs) +
				slab_bytes(&sc->sc_tasks) +
				slab_bytes(&sc->sc_wides);
	return 0;
}

static int create_queues(struct scsi_softc *sc, unsigned size)
{
	for (unsigned i = 0; i < 2 + sc->sc_nr_queues; i++)
		sc->sc_vqs[i].vq_qsize = (uint16_t)size;
	sc->sc_vqs[0].vq_notify = scsi_control_notify;
	sc->sc_vqs[1].vq_notify = scsi_event_notify;
	sc->sc_tmfs = calloc(size, sizeof(*sc->sc_tmfs));
	if (!sc->sc_tmfs)
		return -ENOMEM;
	sc->sc_max_tmfs = size;
	for (unsigned i = 0; i < sc->sc_nr_queues; i++) {
		struct scsi_queue *q = &sc->sc_queues[i];

		q->sc = sc;
		q->vq = &sc->sc_vqs[2 + i];
		q->iteration_end = (struct vio_task){ .fn = queue_iteration_end,
						      .arg = q };
	}
	return create_memory(sc, sc->sc_nr_queues * size);
}

static int build(struct scsi_softc *sc, const struct vdev_env *env,
		 struct err *err)
{
	const struct opts *opts = env->opts;
	unsigned size = vdev_queue_size(&vdev_scsi, env);
	int ret = check_opts(opts, err);

	if (ret < 0)
		return ret;
	sc->sc_nr_queues = (unsigned)opt_number(opts, "queues");
	sc->sc_seg_max = size - 2 < SCSI_SEG_MAX ? size - 2 : SCSI_SEG_MAX;
	sc->sc_consts = scsi_consts;
	sc->sc_consts.vc_nvq = (int)(2 + sc->sc_nr_queues);
	reset_sizes(sc);
	if (create_queues(sc, size) < 0)
		return err_set(err, -ENOMEM, "scsi: out of memory");
	sc->sc_pr_end = &sc->sc_pr_first;
	ret = scsi_offload_create(env->loop, &sc->sc_offload);
	if (ret < 0)
		return err_set(err, ret, "scsi: %s", strerror(-ret));
	ret = luns_create(sc, env, err);
	if (ret < 0)
		return ret;
	ret = pr_load(sc);
	if (ret < 0)
		return err_set(err, ret, "scsi: reservations=%s: %s",
			       opt_string(opts, "reservations"),
			       ret == -EINVAL ?
				       "not a viodev reservations file" :
				       strerror(-ret));
	return vdev_attach(&sc->sc_dev, env, &sc->sc_vs, &sc->sc_consts,
			   sc->sc_vqs, err);
}

static int scsi_init(struct vdev *dev, const struct vdev_env *env,
		     struct err *err)
{
	struct scsi_softc *sc = scsi_of(dev);
	int ret;

	sc->sc_loop = env->loop;
	sc->sc_env = *env;
	sc->sc_more = (struct vio_task){ .fn = more, .arg = sc };
	sc->sc_pr_fd = opened_files_take(env->files, "reservations");
	ret = build(sc, env, err);
	for (unsigned i = 0; ret == 0 && i < sc->sc_nr_luns; i++)
		lun_warn(sc->sc_luns[i]);
	return ret;
}

/*
 * --- Tables ---
 */

/* Of target 0, and of the others. */
#define LUN_OPTS(lun)                                                         \
	{ lun, OPT_STRING,                                                    \
	  .help = "image of logical unit " lun ": a raw file or a block "     \
		  "device; with type=passthrough a /dev/sgN; with "           \
		  "type=cdrom an empty drive if not given" },                 \
		{ lun ".backend", OPT_CHOICE, "file", .choices = "file|null", \
		  .help = "as for the block device" },                        \
		{ lun ".size", OPT_SIZE, .min = 512, .max = DISK_NULL_MAX,    \
		  .help = "size with backend=null" },                         \
		{ lun ".type", OPT_CHOICE, "disk",                            \
		  .choices = "disk|cdrom|passthrough",                        \
		  .help = "type of the unit" },                               \
		{ lun ".ro", OPT_BOOL, "off", .help = "read-only" },          \
		{ lun ".share", OPT_BOOL, "off",                              \
		  .help = "as for the block device" },                        \
		{ lun ".format", OPT_CHOICE, .choices = "raw",                \
		  .help = "as for the block device" },                        \
		{ lun ".serial", OPT_STRING,                                  \
		  .help = "serial number, from which the world wide name "    \
			  "is derived; default: derived from the image's "    \
			  "file" },                                           \
		{ lun ".vendor", OPT_STRING,                                  \
		  .help = "vendor in INQUIRY, up to 8 characters" },          \
		{ lun ".product", OPT_STRING,                                 \
		  .help = "product in INQUIRY, up to 16 characters" },        \
		{ lun ".wwn", OPT_NUMBER, .min = 1, .max = UINT64_MAX,        \
		  .help = "world wide name (NAA), such as "                   \
			  "0x5000c500a0b1c2d3" },                             \
		{ lun ".iops", OPT_NUMBER, .min = 1, .max = UINT32_MAX,       \
		  .help = "limit, commands per second" },                     \
		{ lun ".bps", OPT_SIZE, .min = 1,                             \
		  .help = "limit, bytes per second, reads and writes "        \
			  "together" },                                       \
		{ lun ".block-size", OPT_SIZE, .min = 512,                    \
		  .max = SCSI_BLOCK_MAX,                                      \
		  .help = "logical block size in bytes; default: the "        \
			  "image's" },                                        \
		{ lun ".physical-block-size", OPT_SIZE, .min = 512,           \
		  .max = 1 << 20, .help = "physical block size in bytes" },   \
		{ lun ".cache", OPT_CHOICE, "writeback",                      \
		  .choices = "writeback|writethrough|direct",                 \
		  .help = "as for the block device" },                        \
		{ lun ".werror", OPT_CHOICE, "enospc",                        \
		  .choices = "report|wait|enospc",                            \
		  .help = "as for the block device" },                        \
		{ lun ".rerror", OPT_CHOICE, "report",                        \
		  .choices = "report|wait",                                   \
		  .help = "on a failed read: likewise" },                     \
		{ lun ".discard", OPT_BOOL, "on",                             \
		  .help = "return unmapped space to the host" }

const struct opt_def scsi_lun_opts[] = {
	LUN_OPTS("lun*"),
	LUN_OPTS("t*.lun*"),
	{ NULL },
};

static const struct opt_def scsi_opts[] = {
	LUN_OPTS("lun*"),
	LUN_OPTS("t*.lun*"),
	{ "queues", OPT_NUMBER, "1", .min = 1, .max = SCSI_MAX_QUEUES,
	  .help = "request queues" },
	{ "reservations", OPT_STRING,
	  .help = "file that preserves persistent reservations across "
		  "restarts; default: none" },
	{ NULL },
};

static const virtio_capstr_t scsi_features[] = {
	{ VI_BIT(VIRTIO_SCSI_F_HOTPLUG), "HOTPLUG" },
	{ VI_BIT(VIRTIO_SCSI_F_CHANGE), "CHANGE" },
	{ 0, NULL },
};

static const int scsi_syscalls[] = {
	DISK_SYSCALLS,        /* fdatasync also of reservations */
	DISK_CREATE_SYSCALLS, /* `viodev ctl lun add` */
	SYS_lseek,            /* SEEK_DATA, SEEK_HOLE */
	SYS_pread64,
	SYS_pwrite64, /* reservations */
	-1,
};

static const unsigned long scsi_ioctls[] = {
	DISK_IOCTLS,
	DISK_CREATE_IOCTLS,
	0,
};

/* SG_IO reaches whatever a device understands: for who was given one. */
static void scsi_rights(const struct opts *opts, struct sandbox_rights *rights)
{
	static const unsigned long sg_ioctls[] = { SG_IO, 0 };

	if (luns_pass_through(opts))
		rights->ioctls = sg_ioctls;
}

const struct vdev_type vdev_scsi = {
	.vt_name = "scsi",
	.vt_alias = "virtio-scsi",
	.vt_summary = "SCSI host: disks, CD-ROMs, real SCSI devices",
	.vt_legacy_id = VIRTIO_DEV_SCSI,
	.vt_device_id = VIRTIO_ID_SCSI,
	.vt_pci_class = PCIC_STORAGE,
	.vt_may_not_end = true,
	.vt_queue_size = 256,
	.vt_max_queue_size = SCSI_MAX_QSIZE,
	.vt_opts = scsi_opts,
	.vt_features = scsi_features,
	.vt_ctls = scsi_ctls,
	.vt_syscalls = scsi_syscalls,
	.vt_ioctls = scsi_ioctls,
	.vt_rights = scsi_rights,
	.vt_open = scsi_open,
	VDEV_IN(struct scsi_softc, sc_dev),
	.vt_init = scsi_init,
	.vt_fini = scsi_fini,
	.vt_status = scsi_status,
	.vt_ctl = scsi_ctl,
};

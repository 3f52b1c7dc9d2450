/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The block device (virtio 5.2): a disk image or block device as the guest's
 * disk. Requests are processed in block_req.c.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

#include "back/disk/identity.h"
#include "base/json.h"
#include "base/util.h"
#include "dev/block_impl.h"

/* Device configuration, 5.2.4. */
struct block_config {
	le64 capacity;
	le32 size_max;
	le32 seg_max;
	le16 cylinders;
	uint8_t heads;
	uint8_t sectors;
	le32 blk_size;
	uint8_t physical_block_exp;
	uint8_t alignment_offset;
	le16 min_io_size;
	le32 opt_io_size;
	uint8_t writeback;
	uint8_t unused0;
	le16 num_queues;
	le32 max_discard_sectors;
	le32 max_discard_seg;
	le32 discard_sector_alignment;
	le32 max_write_zeroes_sectors;
	le32 max_write_zeroes_seg;
	uint8_t write_zeroes_may_unmap;
	uint8_t unused1[3];
	le32 secure_erase[3]; /* not offered, nor are zones */
	uint8_t zoned[24];
};
static_assert(offsetof(struct block_config, blk_size) == 20, "5.2.4");
static_assert(offsetof(struct block_config, writeback) == 32, "5.2.4");
static_assert(offsetof(struct block_config, max_discard_sectors) == 36,
	      "5.2.4");
static_assert(offsetof(struct block_config, write_zeroes_may_unmap) == 56,
	      "5.2.4");
static_assert(offsetof(struct block_config, secure_erase) == 60, "5.2.4");
static_assert(sizeof(struct block_config) == 96, "5.2.4");

static struct block_softc *block_of(struct vdev *dev)
{
	return (void *)((char *)dev - offsetof(struct block_softc, sc_dev));
}

static bool driver_ok(const struct block_softc *sc)
{
	return sc->sc_vs.vs_status & VIRTIO_CONFIG_STATUS_DRIVER_OK;
}

/*
 * --- Configuration ---
 */

static uint32_t seg_max(const struct block_softc *sc)
{
	uint32_t max = BLOCK_SEG_MAX;

	/* A chain also holds header and status, even in a shrunk queue. */
	for (int i = 0; i < sc->sc_consts.vc_nvq; i++) {
		uint32_t size = sc->sc_vqs[i].vq_qsize;

		if (max + 2 > size)
			max = size > 2 ? size - 2 : 0;
	}
	return max;
}

/* No real geometry: the values that BIOSes have always been given. */
static void fill_geometry(struct block_config *c, uint64_t capacity)
{
	uint64_t cylinders = capacity / (16 * 63);

	c->cylinders =
		cpu_to_le16((uint16_t)(cylinders < 16383 ? cylinders : 16383));
	c->heads = 16;
	c->sectors = 63;
}

static void fill_limits(const struct block_softc *sc, struct block_config *c)
{
	uint32_t align = sc->sc_phys_bytes / SECTOR_BYTES;

	c->max_discard_sectors = cpu_to_le32(BLOCK_DISCARD_SECTORS);
	c->max_discard_seg = cpu_to_le32(BLOCK_MAX_SEGS);
	c->discard_sector_alignment = cpu_to_le32(align);
	c->max_write_zeroes_sectors = cpu_to_le32(BLOCK_ZERO_SECTORS);
	c->max_write_zeroes_seg = cpu_to_le32(BLOCK_MAX_SEGS);
	c->write_zeroes_may_unmap = sc->sc_discard;
}

static void fill_config(const struct block_softc *sc, struct block_config *c)
{
	uint32_t phys = sc->sc_phys_bytes / sc->sc_block_bytes;

	*c = (struct block_config){
		.capacity = cpu_to_le64(sc->sc_capacity),
		.size_max = cpu_to_le32(BLOCK_SIZE_MAX),
		.seg_max = cpu_to_le32(seg_max(sc)),
		.blk_size = cpu_to_le32(sc->sc_block_bytes),
		.physical_block_exp = (uint8_t)__builtin_ctz(phys),
		.min_io_size = cpu_to_le16((uint16_t)phys),
		.opt_io_size = cpu_to_le32(sc->sc_info.opt_io_bytes /
					   sc->sc_block_bytes),
		.writeback = driver_ok(sc) ? block_write_cache_on(sc) :
					     sc->sc_writeback,
		.num_queues = cpu_to_le16((uint16_t)sc->sc_consts.vc_nvq),
	};
	fill_geometry(c, sc->sc_capacity);
	if (!sc->sc_info.ro)
		fill_limits(sc, c);
}

static int block_cfgread(void *arg, int offset, int size, uint32_t *retval)
{
	struct block_config c;

	fill_config(arg, &c);
	return vi_cfg_read(&c, sizeof(c), offset, size, retval);
}

/*
 * One field can be written: writeback. A legacy driver may write it before it
 * has accepted features (5.2.5.4).
 */
static int block_cfgwrite(void *arg, int offset, int size, uint32_t value)
{
	struct block_softc *sc = arg;
	int at = (int)offsetof(struct block_config, writeback) - offset;
	bool early = !vi_is_modern(&sc->sc_vs) && !driver_ok(sc);
	uint8_t byte;

	if (at < 0 || at >= size)
		return 0;
	byte = (uint8_t)(value >> (8 * at));
	if (byte > 1 ||
	    !(early || block_negotiated(sc, VIRTIO_BLK_F_CONFIG_WCE)))
		return 0;
	if (sc->sc_writeback && !byte)
		block_flush_cache(sc);
	sc->sc_writeback = byte;
	return 0;
}

/* Saved for another process: what the driver wrote above. */
static ssize_t block_save(void *arg, void *buf, size_t room)
{
	const struct block_softc *sc = arg;
	uint8_t byte = sc->sc_writeback;

	if (room < sizeof(byte))
		return -ENOSPC;
	memcpy(buf, &byte, sizeof(byte));
	return sizeof(byte);
}

static int block_load(void *arg, const void *buf, size_t len)
{
	struct block_softc *sc = arg;
	const uint8_t *byte = buf;

	if (len != sizeof(*byte) || *byte > 1)
		return -EINVAL;
	sc->sc_writeback = *byte;
	return 0;
}

static void block_on_size(void *arg, uint64_t bytes)
{
	struct block_softc *sc = arg;

	sc->sc_capacity = bytes / SECTOR_BYTES;
	vs_log(&sc->sc_vs, LOG_NOTICE, "capacity is now %llu bytes",
	       (unsigned long long)sc->sc_capacity * SECTOR_BYTES);
	vq_devcfg_changed(&sc->sc_vs);
}

/*
 * --- Features, reset ---
 */

static uint64_t block_hv_features(void *arg, bool modern)
{
	const struct block_softc *sc = arg;
	uint64_t f = modern ? VI_RING_CAPS_MODERN : VI_RING_CAPS_LEGACY;

	f |= VI_BIT(VIRTIO_BLK_F_SIZE_MAX) | VI_BIT(VIRTIO_BLK_F_SEG_MAX) |
	     VI_BIT(VIRTIO_BLK_F_GEOMETRY) | VI_BIT(VIRTIO_BLK_F_BLK_SIZE) |
	     VI_BIT(VIRTIO_BLK_F_FLUSH) | VI_BIT(VIRTIO_BLK_F_TOPOLOGY) |
	     VI_BIT(VIRTIO_BLK_F_CONFIG_WCE);
	if (sc->sc_consts.vc_nvq > 1)
		f |= VI_BIT(VIRTIO_BLK_F_MQ);
	if (sc->sc_info.ro)
		return f | VI_BIT(VIRTIO_BLK_F_RO);
	if (sc->sc_discard)
		f |= VI_BIT(VIRTIO_BLK_F_DISCARD);
	return f | VI_BIT(VIRTIO_BLK_F_WRITE_ZEROES);
}

/* A driver that cannot flush starts without a write cache (5.2.5.2). */
static void block_apply_features(void *arg, uint64_t *features)
{
	const uint64_t cache =
		VI_BIT(VIRTIO_BLK_F_CONFIG_WCE) | VI_BIT(VIRTIO_BLK_F_FLUSH);
	struct block_softc *sc = arg;

	/* Legacy: accepting features changes nothing (5.2.5.4). */
	if ((*features & VI_BIT(VIRTIO_F_VERSION_1)) &&
	    (*features & cache) == VI_BIT(VIRTIO_BLK_F_CONFIG_WCE))
		sc->sc_writeback = false;
}

static void block_reset(void *arg)
{
	struct block_softc *sc = arg;

	disk_forget(sc->sc_disk);
	for (unsigned i = 0; i < BLOCK_MAX_Q; i++)
		vio_task_cancel(sc->sc_loop, &sc->sc_queues[i].iteration_end);
	vio_timer_set(sc->sc_limit_timer, 0);
	sc->sc_no_memory = false;
	sc->sc_writeback = sc->sc_cache != DISK_WRITETHROUGH;
}

/*
 * Requests in flight end in their own time. Requests that wait after an error
 * are returned, to be taken again when the queue resumes. If that is
 * impossible, each is retried once; if the retry fails, the stop waits for
 * `viodev ctl SOCKET resume`. There is no status that makes the driver resend a
 * request, as SCSI's BUSY does: an error instead would lose data that werror=
 * promises to keep.
 */
static void block_quiesce(void *arg)
{
	struct block_softc *sc = arg;

	if (block_give_back(sc) > 0)
		disk_resume(sc->sc_disk);
}

/*
 * --- Status and commands ---
 */

static const char *const cache_names[] = {
	[DISK_WRITEBACK] = "writeback",
	[DISK_WRITETHROUGH] = "writethrough",
	[DISK_DIRECT] = "direct",
};

static void block_status(struct vdev *dev, struct json_object *status)
{
	struct block_softc *sc = block_of(dev);
	char serial[VIRTIO_BLK_ID_BYTES + 1] = "";

	memcpy(serial, sc->sc_serial, sizeof(sc->sc_serial));
	json_add_string(status, "serial", serial);
	json_add_uint(status, "capacity", sc->sc_capacity * SECTOR_BYTES);
	json_add_uint(status, "block-size", sc->sc_block_bytes);
	json_add_bool(status, "read-only", sc->sc_info.ro);
	json_add_string(status, "engine", sc->sc_info.engine);
	json_add_string(status, "cache", cache_names[sc->sc_cache]);
	json_add_bool(status, "write-cache", block_write_cache_on(sc));
	json_add_uint(status, "waiting", disk_nr_waiting(sc->sc_disk));
	for (int i = 0; i < BLOCK_NR_KINDS; i++) {
		struct json_object *kind = json_object_new_object();

		json_add_uint(kind, "requests", sc->sc_stats[i].requests);
		json_add_uint(kind, "bytes", sc->sc_stats[i].bytes);
		json_add_uint(kind, "errors", sc->sc_stats[i].errors);
		json_object_object_add(status, block_kind_names[i], kind);
	}
}

static int ctl_resume(struct block_softc *sc, int argc,
		      struct json_object *reply, struct err *err)
{
	if (argc != 1)
		return err_set(err, -EINVAL, "block: resume");
	json_add_uint(reply, "resumed", disk_nr_waiting(sc->sc_disk));
	disk_resume(sc->sc_disk);
	return 0;
}

static int ctl_resize(struct block_softc *sc, int argc, char *const argv[],
		      struct json_object *reply, struct err *err)
{
	bool shrink = vdev_ctl_flag(&argc, &argv, "--shrink");
	struct err why;
	uint64_t bytes;
	int ret;

	if (argc != 2 || opt_parse_size(argv[1], &bytes) < 0)
		return err_set(
			err, -EINVAL,
			"block: usage: resize [--shrink] SIZE, such as 20G");
	ret = disk_resize(sc->sc_disk, bytes, shrink, &why);
	if (ret < 0)
		return err_set(err, ret, "block: resize %s: %s", argv[1],
			       why.text);
	json_add_uint(reply, "capacity", sc->sc_capacity * SECTOR_BYTES);
	if (ret > 0) /* it follows when the image answers */
		json_add_bool(reply, "pending", true);
	return 0;
}

static int block_ctl(struct vdev *dev, int argc, char *const argv[],
		     struct opened_files *files, struct json_object *reply,
		     struct err *err)
{
	struct block_softc *sc = block_of(dev);

	if (!strcmp(argv[0], "resume"))
		return ctl_resume(sc, argc, reply, err);
	return ctl_resize(sc, argc, argv, reply, err);
}

/*
 * --- Create and destroy ---
 */

static enum disk_cache cache_of(const struct opts *opts)
{
	const char *name = opt_string(opts, "cache");
	int i = DISK_WRITEBACK;

	while (i < DISK_DIRECT && strcmp(cache_names[i], name) != 0)
		i++;
	return (enum disk_cache)i;
}

static struct disk_params params_of(const struct opts *opts)
{
	return (struct disk_params){
		.path = opt_string(opts, "path"),
		.null_bytes = opt_number(opts, "size"),
		.ro = opt_bool(opts, "ro"),
		.shared = opt_bool(opts, "share"),
		.raw = opt_given(opts, "format"),
		.cache = cache_of(opts),
		.block_bytes = (uint32_t)opt_number(opts, "block-size"),
		.discard = opt_bool(opts, "discard"),
		.on_write_error = disk_on_error(opt_string(opts, "werror")),
		.on_read_error = disk_on_error(opt_string(opts, "rerror")),
	};
}

static int check_power_of_two(const struct opts *opts, const char *key,
			      struct err *err)
{
	uint64_t val = opt_number(opts, key);

	if (opt_given(opts, key) && (val & (val - 1)))
		return err_set(err, -EINVAL,
			       "block: %s=%s: must be a power of two", key,
			       opt_string(opts, key));
	return 0;
}

static int check_null(const struct opts *opts, struct err *err)
{
	static const char *const of_images[] = { "path", "format", "share",
						 "werror", "rerror" };

	for (size_t i = 0; i < ARRAY_LEN(of_images); i++) {
		if (opt_given(opts, of_images[i]))
			return err_set(
				err, -EINVAL,
				"block: %s: has no effect with backend=null",
				of_images[i]);
	}
	if (!opt_given(opts, "size"))
		return err_set(err, -EINVAL,
			       "block: backend=null: missing size=");
	return 0;
}

static int check_backend(const struct opts *opts, struct err *err)
{
	if (!strcmp(opt_string(opts, "backend"), "null"))
		return check_null(opts, err);
	if (opt_given(opts, "size"))
		return err_set(err, -EINVAL,
			       "block: size: has no effect with backend=file");
	if (!opt_given(opts, "path"))
		return err_set(err, -EINVAL,
			       "block: missing path= (image: a raw file or a "
			       "block device)");
	return 0;
}

/* Checks that the table of options cannot express. */
static int check_opts(const struct opts *opts, struct err *err)
{
	const char *serial = opt_string(opts, "serial");
	uint64_t size = opt_number(opts, "queue-size");
	int ret = check_backend(opts, err);

	if (ret == 0)
		ret = check_power_of_two(opts, "block-size", err);
	if (ret == 0)
		ret = check_power_of_two(opts, "physical-block-size", err);
	if (ret < 0)
		return ret;
	if (serial && strlen(serial) > VIRTIO_BLK_ID_BYTES)
		return err_set(err, -EINVAL,
			       "block: serial=%s: longer than %d characters",
			       serial, VIRTIO_BLK_ID_BYTES);
	if (opt_given(opts, "queue-size") &&
	    (size < BLOCK_MIN_QSIZE || size > BLOCK_MAX_QSIZE))
		return err_set(err, -EINVAL,
			       "block: queue-size=%s: must be from %u to %u",
			       opt_string(opts, "queue-size"), BLOCK_MIN_QSIZE,
			       BLOCK_MAX_QSIZE);
	return 0;
}

static int block_open(const struct opts *opts, struct opened_files *files,
		      struct err *err)
{
	struct disk_params params = params_of(opts);
	struct err why;
	int fd, ret = check_opts(opts, err);

	if (ret < 0)
		return ret;
	fd = disk_open(&params, &why);
	if (fd < 0)
		return err_set(err, fd, "block: %s", why.text);
	opened_files_add(files, "image", fd);
	/* Without one, changes by others go unnoticed, harmlessly. */
	fd = disk_open_watch(&params);
	if (fd >= 0)
		opened_files_add(files, "watch", fd);
	fd = disk_open_name(&params);
	if (fd >= 0)
		opened_files_add(files, "name", fd);
	return 0;
}

static bool block_fini(struct vdev *dev)
{
	struct block_softc *sc = block_of(dev);
	bool ended;

	disk_destroy(sc->sc_disk);
	ended = disk_io_destroy(sc->sc_io);
	for (unsigned i = 0; i < BLOCK_MAX_Q; i++)
		vio_task_cancel(sc->sc_loop, &sc->sc_queues[i].iteration_end);
	vio_source_remove(sc->sc_limit_timer);
	if (!ended) /* the kernel still uses requests and their buffers */
		return false;
	slab_fini(&sc->sc_ios);
	slab_fini(&sc->sc_wides);
	return true;
}

static int create_memory(struct block_softc *sc, unsigned nr)
{
	if (nr > BLOCK_MAX_IOS)
		nr = BLOCK_MAX_IOS;
	if (slab_init(&sc->sc_ios, nr, sizeof(struct block_io)) < 0 ||
	    slab_init(&sc->sc_wides, BLOCK_MAX_WIDE, sizeof(union block_wide)) <
		    0)
		return -ENOMEM;
	sc->sc_dev.most_bytes =
		slab_bytes(&sc->sc_ios) + slab_bytes(&sc->sc_wides);
	return 0;
}

static int create_queues(struct block_softc *sc, unsigned size)
{
	for (int i = 0; i < sc->sc_consts.vc_nvq; i++) {
		struct block_queue *q = &sc->sc_queues[i];

		q->sc = sc;
		q->vq = &sc->sc_vqs[i];
		q->vq->vq_qsize = (uint16_t)size;
		q->iteration_end = (struct vio_task){ .fn = block_iteration_end,
						      .arg = q };
	}
	return create_memory(sc, (unsigned)sc->sc_consts.vc_nvq * size);
}

/* The default serial number is the image's identity. */
static void set_serial(struct block_softc *sc, const struct vdev_env *env,
		       int fd)
{
	const char *serial = opt_string(env->opts, "serial");
	int name_fd = opened_files_take(env->files, "name");
	char text[VIRTIO_BLK_ID_BYTES + 1];

	snprintf(text, sizeof(text), "%016llx",
		 (unsigned long long)disk_identity(fd, name_fd));
	if (!serial)
		serial = text;
	memcpy(sc->sc_serial, serial, strlen(serial));
	if (name_fd >= 0)
		close(name_fd);
}

static int create_disk(struct block_softc *sc, const struct vdev_env *env,
		       unsigned depth, struct err *err)
{
	struct disk_params params = params_of(env->opts);
	int fd = opened_files_take(env->files, "image");
	struct err why;
	int ret = disk_io_create(env->loop, depth, 1, &sc->sc_io);

	set_serial(sc, env, fd);
	if (ret < 0)
		err_set(&why, ret, "%s", strerror(-ret));
	else
		ret = disk_create(sc->sc_io, fd, &params, &sc->sc_disk, &why);
	if (ret < 0) {
		close(fd);
		return err_set(err, ret, "block: %s", why.text);
	}
	fd = opened_files_take(env->files, "watch");
	if (fd >= 0 && disk_watch(sc->sc_disk, fd) < 0)
		close(fd);
	disk_get_info(sc->sc_disk, &sc->sc_info);
	disk_set_notify(sc->sc_disk, block_on_size, sc);
	disk_set_on_wait(sc->sc_disk, block_on_wait, sc);
	return 0;
}

static uint32_t size_or(const struct opts *opts, const char *key,
			uint32_t other)
{
	return opt_given(opts, key) ? (uint32_t)opt_number(opts, key) : other;
}

static int describe(struct block_softc *sc, const struct opts *opts,
		    struct err *err)
{
	uint32_t phys = sc->sc_info.phys_block_bytes;

	sc->sc_cache = cache_of(opts);
	sc->sc_writeback = sc->sc_cache != DISK_WRITETHROUGH;
	sc->sc_discard = sc->sc_info.can_discard;
	sc->sc_block_bytes =
		size_or(opts, "block-size", sc->sc_info.block_bytes);
	if (phys < sc->sc_block_bytes)
		phys = sc->sc_block_bytes;
	sc->sc_phys_bytes = size_or(opts, "physical-block-size", phys);
	if (sc->sc_phys_bytes < sc->sc_block_bytes)
		return err_set(err, -EINVAL,
			       "block: physical-block-size=%u: smaller than "
			       "block-size=%u",
			       sc->sc_phys_bytes, sc->sc_block_bytes);
	sc->sc_capacity = sc->sc_info.bytes / SECTOR_BYTES;
	return 0;
}

static int create_limits(struct block_softc *sc, const struct opts *opts)
{
	ratelimit_init(&sc->sc_iops, opt_number(opts, "iops"), 1);
	ratelimit_init(&sc->sc_bps, opt_number(opts, "bps"), 4096);
	return vio_timer_add(sc->sc_loop, block_on_limit, sc,
			     &sc->sc_limit_timer);
}

static const struct virtio_consts block_consts = {
	.vc_name = "block",
	.vc_cfgsize = sizeof(struct block_config),
	.vc_reset = block_reset,
	.vc_qnotify = block_qnotify,
	.vc_cfgread = block_cfgread,
	.vc_cfgwrite = block_cfgwrite,
	.vc_apply_features = block_apply_features,
	.vc_hv_features = block_hv_features,
	.vc_quiesce = block_quiesce,
	.vc_save = block_save,
	.vc_load = block_load,
};

static int build(struct block_softc *sc, const struct vdev_env *env,
		 struct err *err)
{
	unsigned nr_queues = (unsigned)opt_number(env->opts, "queues");
	unsigned size = vdev_queue_size(&vdev_block, env);
	int ret = check_opts(env->opts, err);

	if (ret < 0)
		return ret;
	sc->sc_consts = block_consts;
	sc->sc_consts.vc_nvq = (int)nr_queues;
	ret = create_queues(sc, size);
	if (ret == 0)
		ret = create_limits(sc, env->opts);
	if (ret < 0)
		return err_set(err, ret, "block: %s", strerror(-ret));
	ret = create_disk(sc, env, sc->sc_ios.nr_items, err);
	if (ret == 0)
		ret = describe(sc, env->opts, err);
	if (ret == 0)
		ret = vdev_attach(&sc->sc_dev, env, &sc->sc_vs, &sc->sc_consts,
				  sc->sc_vqs, err);
	return ret;
}

static const char *why_no_uring(int error)
{
	return error == -ENOPKG ? "this viodev was built without liburing" :
				  strerror(-error);
}

static int block_init(struct vdev *dev, const struct vdev_env *env,
		      struct err *err)
{
	struct block_softc *sc = block_of(dev);
	char text[128];
	int ret;

	sc->sc_loop = env->loop;
	sc->sc_env = *env;
	ret = build(sc, env, err);
	if (ret < 0)
		return ret;
	if (disk_odd_size(sc->sc_disk, text, sizeof(text)))
		vs_log(&sc->sc_vs, LOG_WARNING, "%s", text);
	if (sc->sc_info.uring_error)
		vs_log(&sc->sc_vs, LOG_NOTICE,
		       "io_uring: %s; using threads instead",
		       why_no_uring(sc->sc_info.uring_error));
	return 0;
}

/*
 * --- Tables ---
 */

static const struct opt_def block_opts[] = {
	{ "backend", OPT_CHOICE, "file", .choices = "file|null",
	  .help = "file: the image at path; null: none, to measure with: "
		  "writes go nowhere, and reads return whatever the buffers "
		  "held" },
	{ "path", OPT_STRING, .help = "image: a raw file or a block device" },
	{ "size", OPT_SIZE, .min = 512, .max = DISK_NULL_MAX,
	  .help = "size with backend=null" },
	{ "ro", OPT_BOOL, "off", .help = "read-only" },
	{ "share", OPT_BOOL, "off",
	  .help = "do not lock the image (migration, cluster file systems)" },
	{ "format", OPT_CHOICE, .choices = "raw",
	  .help = "serve the image as it is, even if it looks like qcow2, luks "
		  "or another format; default: refuse such an image" },
	{ "serial", OPT_STRING,
	  .help = "serial number, up to 20 characters; default: derived from "
		  "the image's file" },
	{ "queues", OPT_NUMBER, "1", .min = 1, .max = BLOCK_MAX_Q,
	  .help = "request queues" },
	{ "block-size", OPT_SIZE, .min = 512, .max = 64 << 10,
	  .help = "logical block size in bytes; default: the image's" },
	{ "physical-block-size", OPT_SIZE, .min = 512, .max = 1 << 20,
	  .help = "physical block size in bytes; default: the image's" },
	{ "cache", OPT_CHOICE, "writeback",
	  .choices = "writeback|writethrough|direct",
	  .help = "writeback: host page cache, stable after a flush; "
		  "writethrough: every write is stable when complete; direct: "
		  "bypass the page cache" },
	{ "discard", OPT_BOOL, "on",
	  .help = "return discarded space to the host" },
	{ "werror", OPT_CHOICE, "enospc", .choices = "report|wait|enospc",
	  .help = "on a failed write: report: return an error to the guest; "
		  "wait: hold it until resume; enospc: hold it if the host is "
		  "out of space, otherwise report" },
	{ "rerror", OPT_CHOICE, "report", .choices = "report|wait",
	  .help = "on a failed read: likewise" },
	{ "iops", OPT_NUMBER, .min = 1, .max = UINT32_MAX,
	  .help = "limit, requests per second; default: none" },
	{ "bps", OPT_SIZE, .min = 1,
	  .help = "limit, bytes per second, reads and writes together; "
		  "default: "
		  "none" },
	{ NULL },
};

static const virtio_capstr_t block_features[] = {
	{ VI_BIT(VIRTIO_BLK_F_SIZE_MAX), "SIZE_MAX" },
	{ VI_BIT(VIRTIO_BLK_F_SEG_MAX), "SEG_MAX" },
	{ VI_BIT(VIRTIO_BLK_F_GEOMETRY), "GEOMETRY" },
	{ VI_BIT(VIRTIO_BLK_F_RO), "RO" },
	{ VI_BIT(VIRTIO_BLK_F_BLK_SIZE), "BLK_SIZE" },
	{ VI_BIT(VIRTIO_BLK_F_FLUSH), "FLUSH" },
	{ VI_BIT(VIRTIO_BLK_F_TOPOLOGY), "TOPOLOGY" },
	{ VI_BIT(VIRTIO_BLK_F_CONFIG_WCE), "CONFIG_WCE" },
	{ VI_BIT(VIRTIO_BLK_F_MQ), "MQ" },
	{ VI_BIT(VIRTIO_BLK_F_DISCARD), "DISCARD" },
	{ VI_BIT(VIRTIO_BLK_F_WRITE_ZEROES), "WRITE_ZEROES" },
	{ 0, NULL },
};

static const struct vdev_ctl block_ctls[] = {
	{ "resize [--shrink] SIZE",
	  "resize the image and the disk to SIZE bytes, to fewer only with "
	  "--shrink; block device: re-read its size" },
	{ "resume", "retry requests held after an error" },
	{ NULL, NULL },
};

const struct vdev_type vdev_block = {
	.vt_name = "block",
	.vt_alias = "virtio-blk",
	.vt_summary = "disk: a raw file or a block device",
	.vt_legacy_id = VIRTIO_DEV_BLOCK,
	.vt_device_id = VIRTIO_ID_BLOCK,
	.vt_pci_class = PCIC_STORAGE,
	.vt_queue_size = 256,
	.vt_max_queue_size = BLOCK_MAX_QSIZE,
	.vt_opts = block_opts,
	.vt_features = block_features,
	.vt_ctls = block_ctls,
	.vt_syscalls = disk_syscalls,
	.vt_ioctls = disk_ioctls,
	.vt_open = block_open,
	VDEV_IN(struct block_softc, sc_dev),
	.vt_init = block_init,
	.vt_fini = block_fini,
	.vt_status = block_status,
	.vt_ctl = block_ctl,
};

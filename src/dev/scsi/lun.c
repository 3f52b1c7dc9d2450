/* SPDX-License-Identifier: BSD-2-Clause */
/* Logical units: from options to a medium; its size; hot-plug. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <syslog.h>
#include <unistd.h>

#include "back/disk/identity.h"
#include "base/hash.h"
#include "base/util.h"
#include "dev/scsi/scsi.h"

#define CDROM_BLOCK 2048u

/*
 * --- Names: lunN, tM.lunN ---
 */

struct lun_key {
	char key[16]; /* of the option that is its path */
	uint8_t target;
	uint16_t lun;
};

/* A number without superfluous zeroes, so that each has one name. */
static bool take_number(const char **text, const char *word, unsigned max,
			unsigned *ret)
{
	size_t len = strlen(word);
	unsigned long n;
	char *end;

	if (strncmp(*text, word, len) != 0)
		return false;
	*text += len;
	if (**text < '0' || **text > '9')
		return false;
	n = strtoul(*text, &end, 10);
	if (n > max || (**text == '0' && end != *text + 1))
		return false;
	*text = end;
	*ret = (unsigned)n;
	return true;
}

static bool parse_name(const char *name, struct lun_key *k)
{
	const char *text = name;
	unsigned target = 0, lun;

	if (*text == 't' &&
	    (!take_number(&text, "t", SCSI_MAX_TARGET, &target) ||
	     *text++ != '.'))
		return false;
	if (!take_number(&text, "lun", SCSI_MAX_LUN, &lun) || *text)
		return false;
	*k = (struct lun_key){ "", (uint8_t)target, (uint16_t)lun };
	snprintf(k->key, sizeof(k->key), "%s", name);
	return true;
}

static int compare_keys(const struct lun_key *a, const struct lun_key *b)
{
	return a->target != b->target ? a->target - b->target : a->lun - b->lun;
}

struct lun_keys {
	struct lun_key key[SCSI_MAX_LUNS];
	unsigned nr;
};

static int add_key(struct lun_keys *keys, const char *name, struct err *err)
{
	struct lun_key k;
	unsigned at;

	if (!parse_name(name, &k))
		return err_set(err, -EINVAL,
			       "scsi: %s: must be lunN or tM.lunN, with N up "
			       "to %d and M up to %d",
			       name, SCSI_MAX_LUN, SCSI_MAX_TARGET);
	if (keys->nr == SCSI_MAX_LUNS)
		return err_set(err, -EINVAL, "scsi: more than %d LUNs",
			       SCSI_MAX_LUNS);
	for (at = keys->nr; at > 0; at--) {
		int order = compare_keys(&keys->key[at - 1], &k);

		if (order == 0)
			return err_set(err, -EINVAL,
				       "scsi: %s: given twice, also as %s",
				       name, keys->key[at - 1].key);
		if (order < 0)
			break;
		keys->key[at] = keys->key[at - 1];
	}
	keys->key[at] = k;
	keys->nr++;
	return 0;
}

static bool has_key(const struct lun_keys *keys, const char *name)
{
	for (unsigned i = 0; i < keys->nr; i++) {
		if (!strcmp(keys->key[i].key, name))
			return true;
	}
	return false;
}

#define DISK         BIT_OF(LUN_DISK)
#define CD           BIT_OF(LUN_CDROM)
#define REAL         BIT_OF(LUN_PASSTHROUGH)
#define BIT_OF(kind) (1u << (kind))

/* The further keys of a unit, and the types that can honour them. */
static const struct {
	const char *name;
	unsigned kinds;
} suffixes[] = {
	{ "backend", DISK | CD },     { "size", DISK | CD },
	{ "type", DISK | CD | REAL }, { "ro", DISK | CD | REAL },
	{ "share", DISK | CD },       { "format", DISK | CD },
	{ "serial", DISK | CD },      { "vendor", DISK | CD },
	{ "product", DISK | CD },     { "wwn", DISK | CD },
	{ "iops", DISK | CD | REAL }, { "bps", DISK | CD | REAL },
	{ "block-size", DISK | CD },  { "physical-block-size", DISK },
	{ "cache", DISK | CD },       { "discard", DISK },
	{ "werror", DISK },           { "rerror", DISK | CD },
};

static bool has_value(const struct opts *opts, const char *base,
		      const char *suffix, const char *value)
{
	char key[40];

	snprintf(key, sizeof(key), "%s.%s", base, suffix);
	return opt_given(opts, key) && !strcmp(opt_string(opts, key), value);
}

/* A unit without an image, or a drive without a disc. */
static bool needs_no_path(const struct opts *opts, const char *base)
{
	return has_value(opts, base, "type", "cdrom") ||
	       has_value(opts, base, "backend", "null");
}

static bool is_empty_drive(const struct opts *opts, const char *base)
{
	return !opt_given(opts, base) &&
	       !has_value(opts, base, "backend", "null");
}

/* "lun1" of "lun1.ro". */
static void base_of(const char *key, char *base, size_t size)
{
	snprintf(base, size, "%.*s", (int)(strrchr(key, '.') - key), key);
}

/* "lun1.ro" means nothing without "lun1". */
static int check_orphans(const struct opts *opts, const char *prefix,
			 struct err *err)
{
	for (unsigned i = 0; i < ARRAY_LEN(suffixes); i++) {
		char pattern[48], base[32];
		const char *key;
		unsigned pos = 0;

		snprintf(pattern, sizeof(pattern), "%s.%s", prefix,
			 suffixes[i].name);
		while ((key = opt_next(opts, pattern, &pos))) {
			base_of(key, base, sizeof(base));
			if (opt_given(opts, base) || needs_no_path(opts, base))
				continue;
			return err_set(err, -EINVAL,
				       "scsi: %s: missing %s=PATH", key, base);
		}
	}
	return 0;
}

/* Units without a path, which only @suffix makes known. */
static int find_pathless(const struct opts *opts, const char *prefix,
			 const char *suffix, struct lun_keys *keys,
			 struct err *err)
{
	char pattern[20], base[32];
	const char *key;
	unsigned pos = 0;
	int ret = 0;

	snprintf(pattern, sizeof(pattern), "%s.%s", prefix, suffix);
	while (ret == 0 && (key = opt_next(opts, pattern, &pos))) {
		base_of(key, base, sizeof(base));
		if (!opt_given(opts, base) && needs_no_path(opts, base) &&
		    !has_key(keys, base))
			ret = add_key(keys, base, err);
	}
	return ret;
}

/* All LUNs of the options, by target and number. */
static int find_keys(const struct opts *opts, struct lun_keys *keys,
		     struct err *err)
{
	static const char *const patterns[] = { "lun*", "t*.lun*" };
	int ret = 0;

	keys->nr = 0;
	for (unsigned i = 0; i < 2 && ret == 0; i++) {
		const char *name;
		unsigned pos = 0;

		ret = check_orphans(opts, patterns[i], err);
		while (ret == 0 && (name = opt_next(opts, patterns[i], &pos)))
			ret = add_key(keys, name, err);
		if (ret == 0)
			ret = find_pathless(opts, patterns[i], "type", keys,
					    err);
		if (ret == 0)
			ret = find_pathless(opts, patterns[i], "backend", keys,
					    err);
	}
	if (ret == 0 && keys->nr == 0)
		ret = err_set(err, -EINVAL,
			      "scsi: missing lun0= (a disk image)");
	return ret;
}

/*
 * --- Options of one ---
 */

struct lun_opts {
	const struct opts *opts;
	const char *key;
	char buf[64];
};

static const char *key_of(struct lun_opts *o, const char *suffix)
{
	snprintf(o->buf, sizeof(o->buf), "%s.%s", o->key, suffix);
	return o->buf;
}

static const char *lun_string(struct lun_opts *o, const char *suffix)
{
	return opt_string(o->opts, key_of(o, suffix));
}

static enum lun_kind kind_of(struct lun_opts *o)
{
	const char *type = lun_string(o, "type");

	if (!strcmp(type, "cdrom"))
		return LUN_CDROM;
	return !strcmp(type, "passthrough") ? LUN_PASSTHROUGH : LUN_DISK;
}

bool luns_pass_through(const struct opts *opts)
{
	static const char *const patterns[] = { "lun*.type", "t*.lun*.type" };

	for (unsigned i = 0; i < 2; i++) {
		const char *key;
		unsigned pos = 0;

		while ((key = opt_next(opts, patterns[i], &pos))) {
			if (!strcmp(opt_string(opts, key), "passthrough"))
				return true;
		}
	}
	return false;
}

/* Without an image there is nothing to look at. */
static int check_no_format(struct lun_opts *o, const char *why, struct err *err)
{
	if (!opt_given(o->opts, key_of(o, "format")))
		return 0;
	return err_set(err, -EINVAL, "scsi: %s.format: has no effect %s",
		       o->key, why);
}

static int check_backend(struct lun_opts *o, struct err *err)
{
	bool null = !strcmp(lun_string(o, "backend"), "null");
	bool size = opt_given(o->opts, key_of(o, "size"));

	if (null && opt_given(o->opts, o->key))
		return err_set(err, -EINVAL,
			       "scsi: %s: has no effect with backend=null",
			       o->key);
	if (null && !size)
		return err_set(err, -EINVAL,
			       "scsi: %s.backend=null: missing %s.size=",
			       o->key, o->key);
	if (!null && size)
		return err_set(err, -EINVAL,
			       "scsi: %s.size: has no effect with backend=file",
			       o->key);
	if (null)
		return check_no_format(o, "with backend=null", err);
	if (is_empty_drive(o->opts, o->key))
		return check_no_format(
			o, "on an empty drive (give it to ctl medium)", err);
	return 0;
}

static int check_keys_of(struct lun_opts *o, struct err *err)
{
	enum lun_kind kind = kind_of(o);

	for (unsigned i = 0; i < ARRAY_LEN(suffixes); i++) {
		if (!opt_given(o->opts, key_of(o, suffixes[i].name)) ||
		    (suffixes[i].kinds & BIT_OF(kind)))
			continue;
		return err_set(err, -EINVAL,
			       "scsi: %s.%s: has no effect with type=%s",
			       o->key, suffixes[i].name,
			       opt_string(o->opts, key_of(o, "type")));
	}
	if (kind == LUN_CDROM && opt_given(o->opts, key_of(o, "ro")) &&
	    !opt_bool(o->opts, o->buf))
		return err_set(err, -EINVAL,
			       "scsi: %s.ro=off: a CD-ROM cannot be written",
			       o->key);
	return check_backend(o, err);
}

static int collect(const struct opts *opts, struct lun_keys *keys,
		   struct err *err)
{
	int ret = find_keys(opts, keys, err);

	for (unsigned i = 0; ret == 0 && i < keys->nr; i++) {
		struct lun_opts o = { .opts = opts, .key = keys->key[i].key };

		ret = check_keys_of(&o, err);
	}
	return ret;
}

static struct disk_params params_of(struct lun_opts *o)
{
	const char *cache = lun_string(o, "cache");
	struct disk_params p = {
		.path = opt_string(o->opts, o->key),
		.null_bytes = opt_number(o->opts, key_of(o, "size")),
		.ro = kind_of(o) == LUN_CDROM,
		.shared = opt_bool(o->opts, key_of(o, "share")),
		.raw = opt_given(o->opts, key_of(o, "format")),
		.cache = DISK_WRITEBACK,
		.on_read_error = disk_on_error(lun_string(o, "rerror")),
		.on_write_error = disk_on_error(lun_string(o, "werror")),
	};

	if (!strcmp(cache, "writethrough"))
		p.cache = DISK_WRITETHROUGH;
	else if (!strcmp(cache, "direct"))
		p.cache = DISK_DIRECT;
	if (opt_bool(o->opts, key_of(o, "ro")))
		p.ro = true;
	if (opt_given(o->opts, key_of(o, "block-size")))
		p.block_bytes = (uint32_t)opt_number(o->opts, o->buf);
	else if (kind_of(o) == LUN_CDROM)
		p.block_bytes = CDROM_BLOCK;
	p.discard = !p.ro && opt_bool(o->opts, key_of(o, "discard"));
	return p;
}

/*
 * --- Opening: in the parent, with rights ---
 */

static int open_lun(const struct opts *opts, const struct lun_key *k,
		    struct opened_files *files, struct err *err)
{
	struct lun_opts o = { .opts = opts, .key = k->key };
	struct disk_params params = params_of(&o);
	char name[16], prefix[24];
	struct err why;
	int fd, ret;

	if (is_empty_drive(opts, k->key))
		return 0;
	snprintf(prefix, sizeof(prefix), "%s.", k->key);
	params.option_prefix = prefix;
	if (kind_of(&o) == LUN_PASSTHROUGH)
		fd = pt_open(params.path, params.ro, &why);
	else
		fd = disk_open(&params, &why);
	if (fd < 0)
		return err_set(err, fd, "scsi: %s: %s", k->key, why.text);
	ret = opened_files_add(files, k->key, fd);
	if (ret < 0) {
		close(fd);
		return err_set(err, ret, "scsi: %s: too many files", k->key);
	}
	if (kind_of(&o) == LUN_PASSTHROUGH)
		return 0;
	/* Without one, changes by others go unnoticed; no harm. */
	fd = disk_open_watch(&params);
	snprintf(name, sizeof(name), "w.%.13s", k->key);
	if (fd >= 0 && opened_files_add(files, name, fd) < 0)
		close(fd);
	fd = disk_open_name(&params);
	snprintf(name, sizeof(name), "i.%.13s", k->key);
	if (fd >= 0 && opened_files_add(files, name, fd) < 0)
		close(fd);
	return 0;
}

int luns_open(const struct opts *opts, struct opened_files *files,
	      struct err *err)
{
	struct lun_keys keys;
	int ret = collect(opts, &keys, err);

	for (unsigned i = 0; ret == 0 && i < keys.nr; i++)
		ret = open_lun(opts, &keys.key[i], files, err);
	return ret;
}

/*
 * --- The size ---
 */

static bool negotiated(const struct scsi_softc *sc, unsigned feature)
{
	return sc->sc_vs.vs_negotiated_caps & VI_BIT(feature);
}

static void on_size(void *arg, uint64_t bytes)
{
	struct scsi_lun *lun = arg;
	struct scsi_softc *sc = lun->sc;

	lun->nr_blocks = bytes / lun->block_bytes;
	vs_log(&sc->sc_vs, LOG_NOTICE, "%s: capacity is now %llu bytes",
	       lun->name, (unsigned long long)bytes);
	if (lun->kind == LUN_CDROM) {
		lun->ua |= UA_MEDIUM;
		return;
	}
	lun->ua |= UA_CAPACITY;
	/* 5.6.6.3.4: reason is ASC, and ASCQ above it. */
	if (lun->present && negotiated(sc, VIRTIO_SCSI_F_CHANGE))
		scsi_event(sc, lun, VIRTIO_SCSI_T_PARAM_CHANGE, 0x2a | 9 << 8);
}

/*
 * --- Errors that the host may put right ---
 */

/* Whether a queue that stops, or an unmap, waits for commands to complete. */
bool scsi_is_stopping(struct scsi_softc *sc)
{
	for (unsigned i = 0; i < 2 + sc->sc_nr_queues; i++) {
		if (vq_is_stopping(&sc->sc_vqs[i]))
			return true;
	}
	return false;
}

/*
 * A stop that began earlier waits for the command, which may never be resumed:
 * it ends with BUSY, as those of scsi_quiesce() did.
 */
static void on_wait(void *arg, enum disk_op op, int error)
{
	const struct scsi_lun *lun = arg;

	if (scsi_is_stopping(lun->sc)) {
		disk_forget(lun->disk);
		return;
	}
	if (disk_nr_waiting(lun->disk) > 1)
		return;
	vs_log(&lun->sc->sc_vs, LOG_ERR,
	       "%s: %s failed: %s: commands wait (viodev ctl SOCKET resume)",
	       lun->name, op == DISK_READ ? "read" : "write", strerror(-error));
	vdev_tell(&lun->sc->sc_env, VDEV_WAITING);
}

/*
 * --- Making one: in the child ---
 */

/*
 * A text of printable characters, as INQUIRY has it; blanks only inside. Copied
 * to @buf of @size bytes, or empty if it is not given.
 */
static int describe_text(struct lun_opts *o, const char *suffix, bool blanks,
			 char *buf, size_t size, struct err *err)
{
	const char *text = lun_string(o, suffix);
	size_t len = text ? strlen(text) : 0;
	bool ok = len < size &&
		  (len == 0 || (text[0] != ' ' && text[len - 1] != ' '));

	for (size_t i = 0; i < len; i++)
		ok = ok && text[i] >= (blanks ? ' ' : '!') && text[i] <= '~';
	if (!ok)
		return err_set(err, -EINVAL,
			       "scsi: %s.%s=%s: must be at most %zu printable "
			       "characters",
			       o->key, suffix, text, size - 1);
	snprintf(buf, size, "%s", text ? text : "");
	return 0;
}

static int describe_names(struct scsi_lun *lun, struct lun_opts *o,
			  struct err *err)
{
	uint64_t hash = lun->identity;
	int ret = describe_text(o, "serial", false, lun->serial,
				sizeof(lun->serial), err);

	if (ret == 0)
		ret = describe_text(o, "vendor", true, lun->vendor,
				    sizeof(lun->vendor), err);
	if (ret == 0)
		ret = describe_text(o, "product", true, lun->product,
				    sizeof(lun->product), err);
	if (lun->serial[0])
		hash = hash64(lun->serial, strlen(lun->serial));
	else
		snprintf(lun->serial, sizeof(lun->serial), "%016llx",
			 (unsigned long long)hash);
	lun->naa = opt_given(o->opts, key_of(o, "wwn")) ?
			   opt_number(o->opts, o->buf) :
			   UINT64_C(3) << 60 | hash >> 4;
	return ret;
}

static int describe_blocks(struct scsi_lun *lun, struct lun_opts *o,
			   const struct disk_info *info, bool is_bdev,
			   struct err *err)
{
	uint32_t block = params_of(o).block_bytes;
	uint64_t phys;

	if (block == 0)
		block = info->block_bytes;
	/*
	 * What a file calls its block size is the file system's affair, and no
	 * property of a sector.
	 */
	phys = is_bdev ? info->phys_block_bytes : block;
	if (opt_given(o->opts, key_of(o, "physical-block-size")))
		phys = opt_number(o->opts, o->buf);
	if (block > SCSI_BLOCK_MAX || (block & (block - 1)))
		return err_set(err, -EINVAL,
			       "scsi: %s: block-size=%u: must be a power of "
			       "two up to %u",
			       o->key, block, SCSI_BLOCK_MAX);
	if (phys < block)
		phys = block;
	if (phys & (phys - 1))
		return err_set(err, -EINVAL,
			       "scsi: %s: physical-block-size: must be a "
			       "power of two",
			       o->key);
	lun->block_bytes = block;
	lun->phys_block_bytes = (uint32_t)phys;
	lun->nr_blocks = info->bytes / block;
	return 0;
}

static int describe(struct scsi_lun *lun, struct lun_opts *o, bool is_bdev,
		    struct err *err)
{
	struct disk_info info = { .ro = true }; /* of an empty drive */
	int ret;

	if (lun->disk)
		disk_get_info(lun->disk, &info);
	lun->ro = info.ro;
	lun->writethrough = params_of(o).cache == DISK_WRITETHROUGH;
	lun->wce = !lun->writethrough;
	lun->sole = !info.ro && !params_of(o).shared;
	lun->thin = info.can_discard;
	lun->zeroes = info.can_zero;
	lun->rotational = info.rotational;
	ret = describe_names(lun, o, err);
	if (ret == 0)
		ret = describe_blocks(lun, o, &info, is_bdev, err);
	return ret;
}

void lun_hear(struct scsi_lun *lun)
{
	disk_set_notify(lun->disk, on_size, lun);
	disk_set_on_wait(lun->disk, on_wait, lun);
}

static uint64_t take_identity(const struct lun_opts *o, int fd,
			      struct opened_files *files)
{
	char name[16];
	uint64_t identity;
	int name_fd;

	snprintf(name, sizeof(name), "i.%.13s", o->key);
	name_fd = opened_files_take(files, name);
	identity = disk_identity(fd, name_fd);
	if (name_fd >= 0)
		close(name_fd);
	return identity;
}

/* Its names are made of what the drive is: device, target and number. */
static int create_empty(struct scsi_lun *lun, struct lun_opts *o,
			struct err *err)
{
	const uint64_t id[] = { lun->sc->sc_env.identity, lun->target,
				lun->lun };

	lun->identity = hash64(id, sizeof(id));
	return describe(lun, o, false, err);
}

static int create_disk(struct scsi_lun *lun, struct lun_opts *o,
		       const struct vdev_env *env, struct err *err)
{
	struct disk_params params = params_of(o);
	int fd = opened_files_take(env->files, o->key);
	struct stat st = { 0 };
	struct err why;
	char watch[16];
	int ret;

	fstat(fd, &st);
	lun->identity = take_identity(o, fd, env->files);
	lun->map_fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	params.no_probe = lun->added; /* others are being served */
	ret = disk_create(lun->sc->sc_io, fd, &params, &lun->disk, &why);
	if (ret < 0) {
		if (fd >= 0)
			close(fd);
		return err_set(err, ret, "scsi: %s: %s", o->key, why.text);
	}
	snprintf(watch, sizeof(watch), "w.%s", o->key);
	fd = opened_files_take(env->files, watch);
	if (fd >= 0 && disk_watch(lun->disk, fd) < 0)
		close(fd);
	ret = describe(lun, o, S_ISBLK(st.st_mode), err);
	lun_hear(lun);
	return ret;
}

/* Once the device has a name in the log. */
void lun_warn(struct scsi_lun *lun)
{
	char text[128];

	if (lun->disk && disk_odd_size(lun->disk, text, sizeof(text)))
		vs_log(&lun->sc->sc_vs, LOG_WARNING, "%s: %s", lun->name, text);
}

static int create_work(struct scsi_lun *lun)
{
	void *p;

	/* Aligned, for images opened with O_DIRECT. */
	if (posix_memalign(&p, 4096, 2 * SCSI_WORK_BYTES) != 0)
		return -ENOMEM;
	memset(p, 0, 2 * SCSI_WORK_BYTES);
	lun->work = p;
	lun->work2 = lun->work + SCSI_WORK_BYTES;
	return 0;
}

/* Release the backend; false: the host still works on commands. */
static bool close_lun(struct scsi_lun *lun)
{
	vio_task_cancel(lun->sc->sc_loop, &lun->left);
	vio_source_remove(lun->limit_timer);
	disk_destroy(lun->disk);
	if (lun->map_fd >= 0)
		close(lun->map_fd);
	return pt_destroy(lun->pt);
}

static void free_lun(struct scsi_lun *lun)
{
	free(lun->work);
	free(lun);
}

static void on_left(void *arg);

static int fill_lun(struct scsi_lun *lun, const struct lun_key *k,
		    const struct vdev_env *env, struct err *err)
{
	struct lun_opts o = { .opts = env->opts, .key = k->key };
	int ret;

	lun->kind = kind_of(&o);
	lun->target = k->target;
	lun->lun = k->lun;
	lun->map_fd = -1;
	lun->present = true;
	lun->ua = UA_POWER_ON;
	snprintf(lun->name, sizeof(lun->name), "%s", k->key);
	ret = limit_init(lun, opt_number(o.opts, key_of(&o, "iops")),
			 opt_number(o.opts, key_of(&o, "bps")));
	if (ret < 0)
		return err_set(err, ret, "scsi: %s", strerror(-ret));
	if (lun->kind == LUN_PASSTHROUGH) {
		lun->ro = params_of(&o).ro;
		ret = pt_create(env->loop,
				opened_files_take(env->files, k->key), lun->ro,
				&lun->pt);
		return ret < 0 ? err_set(err, ret, "scsi: %s: %s", k->key,
					 strerror(-ret)) :
				 0;
	}
	if (create_work(lun) < 0)
		return err_set(err, -ENOMEM, "scsi: out of memory");
	lun->on_read_error = params_of(&o).on_read_error;
	return is_empty_drive(env->opts, k->key) ?
		       create_empty(lun, &o, err) :
		       create_disk(lun, &o, env, err);
}

/* Keep them by target and number. */
static void insert_lun(struct scsi_softc *sc, struct scsi_lun *lun)
{
	unsigned at = sc->sc_nr_luns++;

	for (; at > 0; at--) {
		struct scsi_lun *before = sc->sc_luns[at - 1];

		if (before->target < lun->target ||
		    (before->target == lun->target && before->lun < lun->lun))
			break;
		sc->sc_luns[at] = before;
	}
	sc->sc_luns[at] = lun;
}

static int create_lun(struct scsi_softc *sc, const struct lun_key *k,
		      const struct vdev_env *env, bool added,
		      struct scsi_lun **ret_lun, struct err *err)
{
	struct scsi_lun *lun = calloc(1, sizeof(*lun));
	int ret;

	if (!lun)
		return err_set(err, -ENOMEM, "scsi: out of memory");
	lun->sc = sc;
	lun->added = added;
	lun->left = (struct vio_task){ .fn = on_left, .arg = lun };
	ret = fill_lun(lun, k, env, err);
	if (ret < 0) {
		close_lun(lun);
		free_lun(lun);
		return ret;
	}
	insert_lun(sc, lun);
	*ret_lun = lun;
	return 0;
}

int luns_create(struct scsi_softc *sc, const struct vdev_env *env,
		struct err *err)
{
	struct lun_keys keys;
	struct scsi_lun *lun;
	int ret = collect(env->opts, &keys, err);

	if (ret == 0) {
		ret = disk_io_create(env->loop, sc->sc_tasks.nr_items,
				     SCSI_MAX_DISKS, &sc->sc_io);
		if (ret < 0)
			err_set(err, ret, "scsi: %s", strerror(-ret));
	}
	sc->sc_absent = (struct scsi_lun){ .sc = sc, .kind = LUN_ABSENT };
	sc->sc_wlun = (struct scsi_lun){ .sc = sc, .kind = LUN_WLUN };
	for (unsigned i = 0; ret == 0 && i < keys.nr; i++)
		ret = create_lun(sc, &keys.key[i], env, false, &lun, err);
	return ret;
}

bool luns_destroy(struct scsi_softc *sc, bool ended)
{
	for (unsigned i = 0; i < sc->sc_nr_luns; i++)
		ended &= close_lun(sc->sc_luns[i]);
	ended &= disk_io_destroy(sc->sc_io);
	while (ended && sc->sc_nr_luns > 0)
		free_lun(sc->sc_luns[--sc->sc_nr_luns]);
	return ended;
}

/*
 * --- Hot-plug ---
 */

struct scsi_lun *lun_by_name(struct scsi_softc *sc, const char *name)
{
	struct lun_key k;
	char text[24];

	/* A mere number is one of target 0. */
	snprintf(text, sizeof(text),
		 *name >= '0' && *name <= '9' ? "lun%s" : "%s", name);
	if (!parse_name(text, &k))
		return NULL;
	for (unsigned i = 0; i < sc->sc_nr_luns; i++) {
		struct scsi_lun *lun = sc->sc_luns[i];

		if (lun->target == k.target && lun->lun == k.lun)
			return lun;
	}
	return NULL;
}

static void luns_changed(struct scsi_lun *lun, uint32_t reason)
{
	struct scsi_softc *sc = lun->sc;

	for (unsigned i = 0; i < sc->sc_nr_luns; i++) {
		if (sc->sc_luns[i]->target == lun->target)
			sc->sc_luns[i]->ua |= UA_LUNS_CHANGED;
	}
	if (negotiated(sc, VIRTIO_SCSI_F_HOTPLUG))
		scsi_event(sc, lun, VIRTIO_SCSI_T_TRANSPORT_RESET, reason);
}

static void forget_lun(struct scsi_lun *lun)
{
	struct scsi_softc *sc = lun->sc;
	unsigned i = 0;

	while (sc->sc_luns[i] != lun)
		i++;
	sc->sc_nr_luns--;
	memmove(&sc->sc_luns[i], &sc->sc_luns[i + 1],
		(sc->sc_nr_luns - i) * sizeof(sc->sc_luns[0]));
	close_lun(lun);
	free_lun(lun);
}

/* 5.6.6.1: its commands end before the driver is notified. */
static void on_left(void *arg)
{
	struct scsi_lun *lun = arg;

	lun->leaving = false;
	lun_reset(lun, 0);
	luns_changed(lun, VIRTIO_SCSI_EVT_RESET_REMOVED);
	if (lun->added)
		forget_lun(lun);
}

bool lun_remove(struct scsi_lun *lun)
{
	lun->present = false;
	tasks_forget(lun, VIRTIO_SCSI_S_ABORTED);
	if (lun->first) {
		lun->leaving = true;
		return false;
	}
	on_left(lun);
	return true;
}

void lun_add(struct scsi_lun *lun)
{
	lun->present = true;
	luns_changed(lun, VIRTIO_SCSI_EVT_RESET_RESCAN);
	lun->ua = UA_POWER_ON;
}

/* The options of one unit, and its name. */
static int parse_new(const char *text, struct opts **ret_opts,
		     struct lun_key *ret_key, struct err *err)
{
	static const struct opt_def *const tables[] = { scsi_lun_opts, NULL };
	struct lun_keys keys;
	char *line;
	int ret;

	if (asprintf(&line, "scsi,%s", text) < 0)
		return err_set(err, -ENOMEM, "scsi: out of memory");
	ret = opts_parse(line, tables, ret_opts, err);
	free(line);
	if (ret < 0)
		return ret;
	ret = collect(*ret_opts, &keys, err);
	if (ret == 0 && keys.nr > 1)
		ret = err_set(err, -EINVAL, "scsi: lun add: one at a time");
	if (ret == 0 && luns_pass_through(*ret_opts))
		ret = err_set(err, -EPERM,
			      "scsi: lun add: type=passthrough only on the "
			      "command line");
	if (ret < 0)
		opts_free(*ret_opts);
	else
		*ret_key = keys.key[0];
	return ret;
}

int luns_open_new(const char *text, struct opened_files *files, struct err *err)
{
	struct lun_key key;
	struct opts *opts;
	int ret = parse_new(text, &opts, &key, err);

	if (ret < 0)
		return ret;
	ret = open_lun(opts, &key, files, err);
	opts_free(opts);
	return ret;
}

static int check_new(struct scsi_softc *sc, const char *name, struct err *err)
{
	if (lun_by_name(sc, name))
		return err_set(err, -EEXIST, "scsi: %s has an image already",
			       name);
	if (sc->sc_nr_luns == SCSI_MAX_LUNS)
		return err_set(err, -ENOSPC, "scsi: more than %d LUNs",
			       SCSI_MAX_LUNS);
	return 0;
}

int lun_create_new(struct scsi_softc *sc, const char *text,
		   struct opened_files *files, struct scsi_lun **ret_lun,
		   struct err *err)
{
	struct vdev_env env = { .loop = sc->sc_loop, .files = files };
	struct lun_key key;
	struct opts *opts;
	int ret = parse_new(text, &opts, &key, err);

	if (ret < 0)
		return ret;
	env.opts = opts;
	ret = check_new(sc, key.key, err);
	if (ret == 0 && !is_empty_drive(opts, key.key) &&
	    opened_files_find(files, key.key) < 0)
		ret = err_set(err, -EINVAL, "scsi: %s: missing file descriptor",
			      key.key);
	if (ret == 0)
		ret = create_lun(sc, &key, &env, true, ret_lun, err);
	if (ret == 0) {
		(*ret_lun)->present = false;
		lun_warn(*ret_lun);
	}
	opts_free(opts);
	return ret;
}

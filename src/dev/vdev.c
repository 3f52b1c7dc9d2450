/* SPDX-License-Identifier: BSD-2-Clause */
/* Complete devices: what all types have in common. See vdev.h. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>

#include "base/json.h"
#include "base/suggest.h"
#include "dev/vdev.h"

#define MAX_QUEUE_SIZE 32768u /* 2.7 */
#define MAX_POLL_US    1000000u
#define NS_PER_US      UINT64_C(1000)
#define MIB            (UINT64_C(1) << 20)
#define MUCH_MEMORY    (4 * MIB) /* what a guest may use without a log line */

const struct opt_def vdev_common_opts[] = {
	{ "id", OPT_STRING, .help = "device name; default: TYPE and a number" },
	{ "socket", OPT_STRING,
	  .help = "PATH, unix-connect:PATH or fd:N; default: DIR/ID.sock" },
	{ "mode", OPT_CHOICE, .choices = "transitional|modern|legacy",
	  .help = "virtio interface" },
	{ "msix", OPT_BOOL, "on", .help = "offer MSI-X; off: MSI and INTx" },
	{ "iommu", OPT_BOOL, "on",
	  .help = "work behind a guest's IOMMU: offer ACCESS_PLATFORM" },
	{ "packed", OPT_BOOL, "off",
	  .help = "offer packed rings to modern drivers (RING_PACKED)" },
	{ "in-order", OPT_BOOL, "off",
	  .help = "use buffers in order, if the driver accepts IN_ORDER" },
	{ "poll", OPT_NUMBER, .max = MAX_POLL_US,
	  .help = "microseconds to poll before each sleep; default: adaptive, "
		  "50 at most" },
	{ "queue-size", OPT_NUMBER, .min = 2, .max = MAX_QUEUE_SIZE,
	  .help = "entries per queue, a power of two" },
	{ NULL },
};

const virtio_capstr_t vdev_common_features[] = {
	{ VI_BIT(VIRTIO_RING_F_INDIRECT_DESC), "INDIRECT_DESC" },
	{ VI_BIT(VIRTIO_RING_F_EVENT_IDX), "EVENT_IDX" },
	{ VI_BIT(VIRTIO_F_VERSION_1), "VERSION_1" },
	{ VI_BIT(VIRTIO_F_ACCESS_PLATFORM), "ACCESS_PLATFORM" },
	{ VI_BIT(VIRTIO_F_RING_PACKED), "RING_PACKED" },
	{ VI_BIT(VIRTIO_F_IN_ORDER), "IN_ORDER" },
	{ VI_BIT(VIRTIO_F_NOTIFICATION_DATA), "NOTIFICATION_DATA" },
	{ VI_BIT(VIRTIO_F_RING_RESET), "RING_RESET" },
	{ VI_BIT(VIRTIO_F_ANY_LAYOUT), "ANY_LAYOUT" },
	{ VI_BIT(VIRTIO_F_NOTIFY_ON_EMPTY), "NOTIFY_ON_EMPTY" },
	{ 0, NULL },
};

/*
 * --- Creation ---
 */

static bool is_name(const struct vdev_type *t, const char *name)
{
	return !strcmp(name, t->vt_name) || !strcmp(name, t->vt_alias);
}

static const struct vdev_type *unless_missing(const struct vdev_type *type,
					      struct err *err)
{
	if (!type->vt_missing)
		return type;
	err_set(err, -ENOTSUP, "%s: this viodev was built without %s",
		type->vt_name, type->vt_missing);
	return NULL;
}

const struct vdev_type *vdev_type_find(const char *name, struct err *err)
{
	struct suggestion near = { .word = name };

	for (unsigned i = 0; vdev_types[i]; i++) {
		if (is_name(vdev_types[i], name))
			return unless_missing(vdev_types[i], err);
		suggest_try(&near, vdev_types[i]->vt_name);
		suggest_try(&near, vdev_types[i]->vt_alias);
	}
	if (near.best)
		err_set(err, -EINVAL,
			"%s: no such device type: did you mean '%s'?", name,
			near.best);
	else
		err_set(err, -EINVAL,
			"%s: no such device type: see 'viodev devices'", name);
	return NULL;
}

/* A feature that a legacy device cannot offer must not be set. */
static int check_modern_feature(const struct vdev_type *type,
				const struct opts *opts, const char *key,
				struct err *err)
{
	const char *mode = opt_string(opts, "mode");

	if (mode && strcmp(mode, "legacy") == 0 && opt_given(opts, key) &&
	    opt_bool(opts, key))
		return err_set(err, -EINVAL,
			       "%s: %s=on: a legacy device cannot offer it",
			       type->vt_name, key);
	return 0;
}

static int check_common(const struct vdev_type *type, const struct opts *opts,
			struct err *err)
{
	const char *mode = opt_string(opts, "mode");
	uint64_t size = opt_number(opts, "queue-size");
	int ret = check_modern_feature(type, opts, "iommu", err);

	if (ret == 0)
		ret = check_modern_feature(type, opts, "packed", err);
	if (ret == 0)
		ret = check_modern_feature(type, opts, "in-order", err);
	if (ret == 0 && type->vt_may_not_end && opt_bool(opts, "in-order"))
		ret = err_set(err, -EINVAL,
			      "%s: in-order=on: a request that does not end "
			      "would stop all later ones",
			      type->vt_name);
	if (ret < 0)
		return ret;
	if (type->vt_modern_only && mode && strcmp(mode, "modern") != 0)
		return err_set(err, -EINVAL, "%s: mode=%s: modern only",
			       type->vt_name, mode);
	if (size & (size - 1))
		return err_set(err, -EINVAL,
			       "%s: queue-size=%s: must be a power of two",
			       type->vt_name, opt_string(opts, "queue-size"));
	return 0;
}

int vdev_parse(const char *text, const struct vdev_type **ret_type,
	       struct opts **ret_opts, struct err *err)
{
	char name[32];
	const struct vdev_type *type;
	struct opts *opts;
	int ret;

	snprintf(name, sizeof(name), "%.*s", (int)strcspn(text, ","), text);
	type = vdev_type_find(name, err);
	if (!type)
		return -EINVAL;
	ret = opts_parse(text,
			 (const struct opt_def *const[]){
				 type->vt_opts, vdev_common_opts, NULL },
			 &opts, err);
	if (ret < 0)
		return ret;
	ret = check_common(type, opts, err);
	if (ret < 0) {
		opts_free(opts);
		return ret;
	}
	*ret_type = type;
	*ret_opts = opts;
	return 0;
}

int vdev_open(const struct vdev_type *type, const struct opts *opts,
	      struct opened_files *files, struct err *err)
{
	int ret;

	*files = (struct opened_files){ 0 };
	if (!type->vt_open)
		return 0;
	ret = type->vt_open(opts, files, err);
	if (ret < 0)
		opened_files_close(files);
	return ret;
}

struct sandbox_rights vdev_rights(const struct vdev_type *type,
				  const struct opts *opts)
{
	static const int no_syscalls[] = { -1 };
	static const unsigned long no_ioctls[] = { 0 };
	struct sandbox_rights rights = {
		.syscalls = no_syscalls,
		.ioctls = no_ioctls,
	};

	if (type->vt_rights)
		type->vt_rights(opts, &rights);
	return rights;
}

struct json_object *vdev_paths(const struct vdev_type *type,
			       const struct opts *opts,
			       const struct opened_files *files)
{
	struct json_object *paths = json_object_new_object();

	if (type->vt_paths)
		type->vt_paths(opts, files, paths);
	return paths;
}

int vdev_reopen(const struct vdev_type *type, const struct opts *opts,
		struct opened_files *files)
{
	return type->vt_reopen ? type->vt_reopen(opts, files) : 0;
}

void vdev_close(const struct vdev_type *type, const struct opts *opts,
		const struct opened_files *files)
{
	if (type->vt_close)
		type->vt_close(opts, files);
}

static uint64_t most_bytes(const struct vdev *dev)
{
	return dev->most_bytes + vi_chain_bytes(dev->vs);
}

struct vdev *vdev_alloc(const struct vdev_type *type, struct err *err)
{
	char *mem = calloc(1, type->vt_size);
	struct vdev *dev;

	if (!mem) {
		err_set(err, -ENOMEM, "%s: out of memory", type->vt_name);
		return NULL;
	}
	dev = (struct vdev *)(void *)(mem + type->vt_offset);
	dev->type = type;
	return dev;
}

void vdev_free(struct vdev *dev)
{
	static struct vdev *abandoned; /* so that they do not count as leaks */
	bool ended = dev->type->vt_fini(dev);

	if (dev->vs)
		vi_softc_fini(dev->vs);
	if (!ended) {
		dev->next_abandoned = abandoned;
		abandoned = dev;
		return;
	}
	free((char *)dev - dev->type->vt_offset);
}

static void say_much_memory(const struct vdev *dev)
{
	uint64_t bytes = most_bytes(dev);

	if (bytes > MUCH_MEMORY)
		vs_log(dev->vs, LOG_NOTICE,
		       "guest can use up to %u MiB of host memory",
		       (unsigned)((bytes + MIB - 1) / MIB));
}

int vdev_create(const struct vdev_type *type, const struct vdev_env *env,
		struct vdev **ret_dev, struct err *err)
{
	struct vdev *dev = vdev_alloc(type, err);
	int ret;

	if (!dev)
		return -ENOMEM;
	ret = type->vt_init(dev, env, err);
	if (ret < 0) {
		vdev_free(dev);
		return ret;
	}
	say_much_memory(dev);
	*ret_dev = dev;
	return 0;
}

void vdev_destroy(struct vdev *dev)
{
	const struct vdev_type *type;
	struct opened_files *files;
	struct opts *opts;

	if (!dev)
		return;
	type = dev->type;
	opts = dev->own_opts;
	files = dev->own_files;
	vdev_free(dev);
	if (files) {
		vdev_close(type, opts, files);
		opened_files_close(files);
	}
	free(files);
	opts_free(opts);
}

static int open_and_create(const struct vdev_type *type,
			   const struct vdev_env *env, struct vdev **ret_dev,
			   struct err *err)
{
	int ret = vdev_open(type, env->opts, env->files, err);

	if (ret < 0)
		return ret;
	ret = vdev_create(type, env, ret_dev, err);
	if (ret < 0) {
		vdev_close(type, env->opts, env->files);
		opened_files_close(env->files);
	}
	return ret;
}

int vdev_new(const char *text, struct pci_devinst *pi, struct vio_loop *loop,
	     struct vdev **ret_dev, char *why, size_t why_len)
{
	struct err err = { "" };
	struct opened_files *files = NULL;
	const struct vdev_type *type;
	struct opts *opts = NULL;
	int ret;

	ret = vdev_parse(text, &type, &opts, &err);
	if (ret == 0) {
		files = malloc(sizeof(*files));
		ret = files ? 0 : err_set(&err, -ENOMEM, "out of memory");
	}
	if (ret == 0) {
		const struct vdev_env env = { pi, loop, opts, files };

		ret = open_and_create(type, &env, ret_dev, &err);
	}
	if (ret < 0) {
		snprintf(why, why_len, "%s", err.text);
		free(files);
		opts_free(opts);
		return ret;
	}
	(*ret_dev)->own_opts = opts;
	(*ret_dev)->own_files = files;
	return 0;
}

static virtio_mode_t mode_of(const struct vdev_type *type,
			     const struct opts *opts)
{
	const char *mode = opt_string(opts, "mode");

	if (type->vt_modern_only || (mode && !strcmp(mode, "modern")))
		return VIRTIO_MODE_MODERN;
	if (mode && !strcmp(mode, "legacy"))
		return VIRTIO_MODE_LEGACY;
	return VIRTIO_MODE_TRANSITIONAL;
}

unsigned vdev_queue_size(const struct vdev_type *type,
			 const struct vdev_env *env)
{
	const struct pci_host *host = env->pi->pi_host;
	unsigned max = type->vt_max_queue_size ? type->vt_max_queue_size :
						 MAX_QUEUE_SIZE;

	if (opt_given(env->opts, "queue-size"))
		return (unsigned)opt_number(env->opts, "queue-size");
	if (!host || host->ph_queue_size == 0)
		return type->vt_queue_size;
	return host->ph_queue_size < max ? host->ph_queue_size : max;
}

int vdev_attach(struct vdev *dev, const struct vdev_env *env,
		struct virtio_softc *vs, struct virtio_consts *vc,
		struct vqueue_info *queues, struct err *err)
{
	const struct vdev_type *type = dev->type;
	uint16_t size = (uint16_t)vdev_queue_size(type, env);

	dev->vs = vs;
	vi_softc_linkup(vs, vc, vs, env->pi, queues);
	for (int i = 0; i < vc->vc_nvq; i++) {
		if (queues[i].vq_qsize == 0)
			queues[i].vq_qsize = size;
	}
	vi_pci_init(env->pi, mode_of(type, env->opts), type->vt_legacy_id,
		    type->vt_device_id, type->vt_pci_class);
	if (!vi_intr_init(vs, opt_bool(env->opts, "msix")) ||
	    !vi_pcibar_setup(vs))
		return err_set(
			err, -ENOSPC,
			"%s: out of memory or of room in the PCI function",
			type->vt_name);
	if (env->pi->pi_host && env->pi->pi_host->ph_iommu &&
	    opt_bool(env->opts, "iommu"))
		vi_offer_also(vs, VI_BIT(VIRTIO_F_ACCESS_PLATFORM));
	if (opt_bool(env->opts, "packed"))
		vi_offer_also(vs, VI_BIT(VIRTIO_F_RING_PACKED));
	if (opt_bool(env->opts, "in-order"))
		vi_offer_also(vs, VI_BIT(VIRTIO_F_IN_ORDER));
	if (opt_given(env->opts, "poll"))
		vio_loop_set_poll(env->loop,
				  opt_number(env->opts, "poll") * NS_PER_US);
	return 0;
}

/*
 * --- Status ---
 */

static const char *mode_name(virtio_mode_t mode)
{
	switch (mode) {
	case VIRTIO_MODE_LEGACY:
		return "legacy";
	case VIRTIO_MODE_TRANSITIONAL:
		return "transitional";
	default:
		return "modern";
	}
}

static void add_features(struct json_object *list, const virtio_capstr_t *names,
			 uint64_t features)
{
	for (; names && names->vp_name; names++) {
		if (features & names->vp_flag)
			json_push_string(list, names->vp_name);
	}
}

static struct json_object *features_json(const struct vdev_type *type,
					 uint64_t features)
{
	struct json_object *list = json_object_new_array();

	add_features(list, type->vt_features, features);
	add_features(list, vdev_common_features, features);
	return list;
}

static struct json_object *queue_json(const struct vqueue_info *vq)
{
	struct json_object *q = json_object_new_object();
	struct vq_stats stats;

	vq_get_stats(vq, &stats);
	json_add_uint(q, "size", vq->vq_qsize);
	json_add_bool(q, "ready", vq->vq_flags != 0);
	json_add_uint(q, "kicks", stats.kicks);
	json_add_uint(q, "chains", stats.chains);
	json_add_uint(q, "inflight", stats.inflight);
	json_add_uint(q, "interrupts", stats.interrupts);
	return q;
}

void vdev_status(struct vdev *dev, struct json_object *status)
{
	struct virtio_softc *vs = dev->vs;
	struct json_object *queues = json_object_new_array();
	struct vi_stats stats;

	vi_get_stats(vs, &stats);
	json_add_string(status, "type", dev->type->vt_name);
	json_add_string(status, "mode", mode_name(vs->vs_mode));
	json_add_string(status, "driver",
			!(vs->vs_status & VIRTIO_CONFIG_STATUS_DRIVER_OK) ?
				"none" :
			vi_is_modern(vs) ? "modern" :
					   "legacy");
	json_add_uint(status, "device-status", vs->vs_status);
	json_object_object_add(
		status, "features",
		features_json(dev->type, vs->vs_negotiated_caps));
	json_add_uint(status, "resets", stats.resets);
	json_add_uint(status, "driver-errors", stats.errors);
	json_add_uint(status, "memory-limit", most_bytes(dev));
	for (int i = 0; i < vs->vs_vc->vc_nvq; i++)
		json_object_array_add(queues, queue_json(&vs->vs_queues[i]));
	json_object_object_add(status, "queues", queues);
	if (dev->type->vt_status)
		dev->type->vt_status(dev, status);
}

/*
 * --- Control ---
 */

static const struct vdev_ctl *find_ctl(const struct vdev_type *type,
				       const char *name)
{
	for (const struct vdev_ctl *c = type->vt_ctls; c && c->usage; c++) {
		size_t len = strcspn(c->usage, " ");

		if (strlen(name) == len && !memcmp(c->usage, name, len))
			return c;
	}
	return NULL;
}

/* The command of any type that opens something, or NULL. */
static const struct vdev_ctl *find_opening_ctl(const char *name)
{
	for (unsigned i = 0; name && vdev_types[i]; i++) {
		const struct vdev_ctl *c = find_ctl(vdev_types[i], name);

		if (c && c->open)
			return c;
	}
	return NULL;
}

int vdev_ctl_open(int argc, char *const argv[], struct opened_files *files,
		  struct err *err)
{
	const struct vdev_ctl *c = find_opening_ctl(argv[0]);
	int ret = 0;

	*files = (struct opened_files){ 0 };
	if (c)
		ret = c->open(argc, argv, files, err);
	if (ret < 0)
		opened_files_close(files);
	return ret;
}

void vdev_ctl_close(int argc, char *const argv[],
		    const struct opened_files *files)
{
	const struct vdev_ctl *c = find_opening_ctl(argv[0]);

	if (c && c->close)
		c->close(argc, argv, files);
}

bool vdev_ctl_flag(int *argc, char *const *argv[], const char *flag)
{
	bool last = *argc > 1 && strcmp((*argv)[*argc - 1], flag) == 0;
	bool first = !last && *argc > 1 && strcmp((*argv)[1], flag) == 0;

	*argv += first;
	*argc -= first || last;
	return first || last;
}

static void list_ctls(const struct vdev_type *type, struct json_object *reply)
{
	json_add_string(reply, "help", "list the commands of the device");
	json_add_string(reply, "status", "show the state of the device");
	for (const struct vdev_ctl *c = type->vt_ctls; c && c->usage; c++)
		json_add_string(reply, c->usage, c->help);
}

static void suggest_ctl(struct suggestion *near, const char *usage)
{
	char name[32];

	snprintf(name, sizeof(name), "%.*s", (int)strcspn(usage, " "), usage);
	suggest_try(near, name);
	if (near->best == name)
		near->best = usage;
}

static int unknown_ctl(const struct vdev_type *type, const char *name,
		       struct err *err)
{
	struct suggestion near = { .word = name };

	suggest_ctl(&near, "help");
	suggest_ctl(&near, "status");
	for (const struct vdev_ctl *c = type->vt_ctls; c && c->usage; c++)
		suggest_ctl(&near, c->usage);
	if (near.best)
		return err_set(err, -EINVAL,
			       "%s: no such command '%s': did you mean '%.*s'?",
			       type->vt_name, name,
			       (int)strcspn(near.best, " "), near.best);
	return err_set(err, -EINVAL, "%s: no such command '%s': see 'help'",
		       type->vt_name, name);
}

int vdev_ctl(struct vdev *dev, int argc, char *const argv[],
	     struct opened_files *files, struct json_object *reply,
	     struct err *err)
{
	const char *name = argc > 0 ? argv[0] : "";

	if (find_ctl(dev->type, name))
		return dev->type->vt_ctl(dev, argc, argv, files, reply, err);
	if (strcmp(name, "help") != 0)
		return unknown_ctl(dev->type, name, err);
	list_ctls(dev->type, reply);
	return 0;
}

/* With the rights of this process, which is the caller. */
static int command(struct vdev *dev, int argc, char *const argv[],
		   struct json_object *reply, struct err *err)
{
	struct opened_files files;
	int ret;

	if (argc == 1 && strcmp(argv[0], "status") == 0) {
		vdev_status(dev, reply);
		return 0;
	}
	ret = vdev_ctl_open(argc, argv, &files, err);
	if (ret < 0)
		return ret;
	ret = vdev_ctl(dev, argc, argv, &files, reply, err);
	if (ret < 0)
		vdev_ctl_close(argc, argv, &files);
	opened_files_close(&files);
	return ret;
}

int vdev_command(struct vdev *dev, int argc, const char *const argv[],
		 char **ret_reply, char *why, size_t why_len)
{
	struct json_object *reply = json_object_new_object();
	struct err err = { "out of memory" };
	char *text = NULL;
	int ret = reply ? command(dev, argc, (char *const *)argv, reply, &err) :
			  -ENOMEM;

	if (ret == 0)
		text = strdup(json_object_to_json_string(reply));
	json_object_put(reply);
	if (ret == 0 && !text)
		ret = -ENOMEM;
	if (ret < 0)
		snprintf(why, why_len, "%s", err.text);
	else
		*ret_reply = text;
	return ret;
}

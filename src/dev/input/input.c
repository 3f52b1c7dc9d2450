/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The input device (virtio 5.8): a virtual keyboard, mouse, tablet or touch
 * screen that ctl controls, or a device of the host.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/json.h"
#include "base/util.h"
#include "dev/devices.h"
#include "dev/input/input.h"

static struct input_softc *input_of(struct vdev *dev)
{
	return container_of(dev, struct input_softc, sc_dev);
}

/*
 * --- Configuration, 5.8.4: what select and subsel ask for ---
 */

/* Fill in a bitmap. Returns its length up to the last byte that is not 0. */
static uint8_t fill_bits(const struct libevdev *d, unsigned max,
			 int (*has)(const struct libevdev *d, unsigned type,
				    unsigned code),
			 unsigned type, uint8_t *bitmap)
{
	uint8_t size = 0;

	for (unsigned code = 0; code <= max; code++) {
		if (!has(d, type, code))
			continue;
		bitmap[code / 8] |= (uint8_t)(1u << code % 8);
		size = (uint8_t)(code / 8 + 1);
	}
	return size;
}

static int has_property(const struct libevdev *d, unsigned type, unsigned code)
{
	return libevdev_has_property(d, code);
}

static uint8_t fill_string(const char *text, char *buf)
{
	size_t len = text ? strlen(text) : 0;

	if (len > INPUT_MAX_NAME)
		len = INPUT_MAX_NAME;
	if (len > 0)
		memcpy(buf, text, len);
	return (uint8_t)len;
}

static uint8_t fill_ids(const struct libevdev *d,
			struct virtio_input_devids *ids)
{
	const le16 all[4] = {
		cpu_to_le16((uint16_t)libevdev_get_id_bustype(d)),
		cpu_to_le16((uint16_t)libevdev_get_id_vendor(d)),
		cpu_to_le16((uint16_t)libevdev_get_id_product(d)),
		cpu_to_le16((uint16_t)libevdev_get_id_version(d)),
	};

	memcpy(ids, all, sizeof(all));
	return sizeof(all);
}

/* The types that are passed on. EV_SYN is implied; no force feedback. */
static bool type_is_ours(unsigned type)
{
	return type != EV_SYN && type < EV_FF;
}

static uint8_t fill_events(const struct libevdev *d, unsigned type,
			   uint8_t *bitmap)
{
	int max = libevdev_event_type_get_max(type);

	if (!type_is_ours(type) || max < 0 || !libevdev_has_event_type(d, type))
		return 0;
	return fill_bits(d, (unsigned)max, libevdev_has_event_code, type,
			 bitmap);
}

static uint8_t fill_abs(const struct libevdev *d, unsigned code,
			struct virtio_input_absinfo *abs)
{
	const struct input_absinfo *info = libevdev_get_abs_info(d, code);

	if (!info)
		return 0;
	const le32 all[5] = {
		cpu_to_le32((uint32_t)info->minimum),
		cpu_to_le32((uint32_t)info->maximum),
		cpu_to_le32((uint32_t)info->fuzz),
		cpu_to_le32((uint32_t)info->flat),
		cpu_to_le32((uint32_t)info->resolution),
	};
	memcpy(abs, all, sizeof(all));
	return sizeof(all);
}

/* Selections without a subsel accept 0 only. */
static uint8_t fill_plain(const struct libevdev *d, uint8_t select,
			  struct virtio_input_config *c)
{
	switch (select) {
	case VIRTIO_INPUT_CFG_ID_NAME:
		return fill_string(libevdev_get_name(d), c->u.string);
	case VIRTIO_INPUT_CFG_ID_SERIAL:
		return fill_string(libevdev_get_uniq(d), c->u.string);
	case VIRTIO_INPUT_CFG_ID_DEVIDS:
		return fill_ids(d, &c->u.ids);
	case VIRTIO_INPUT_CFG_PROP_BITS:
		return fill_bits(d, INPUT_PROP_MAX, has_property, 0,
				 c->u.bitmap);
	default:
		return 0;
	}
}

void input_select(struct input_softc *sc, uint8_t select, uint8_t subsel)
{
	struct virtio_input_config *c = &sc->sc_config;
	const struct libevdev *d = sc->sc_desc;

	*c = (struct virtio_input_config){ .select = select, .subsel = subsel };
	if (select == VIRTIO_INPUT_CFG_EV_BITS)
		c->size = fill_events(d, subsel, c->u.bitmap);
	else if (select == VIRTIO_INPUT_CFG_ABS_INFO)
		c->size = fill_abs(d, subsel, &c->u.abs);
	else if (subsel == 0)
		c->size = fill_plain(d, select, c);
}

static int input_cfgread(void *arg, int offset, int size, uint32_t *retval)
{
	const struct input_softc *sc = arg;

	return vi_cfg_read(&sc->sc_config, sizeof(sc->sc_config), offset, size,
			   retval);
}

static int input_cfgwrite(void *arg, int offset, int size, uint32_t value)
{
	struct input_softc *sc = arg;
	uint8_t config[sizeof(sc->sc_config)];

	memcpy(config, &sc->sc_config, sizeof(config));
	vi_cfg_write(config, sizeof(config), offset, size, value);
	if (offset < 2)
		input_select(sc, config[0], config[1]);
	return 0;
}

/*
 * --- Queues, reset ---
 */

static void input_qnotify(void *arg, struct vqueue_info *vq)
{
	struct input_softc *sc = arg;

	if (vq->vq_num == 1) {
		input_take_status(sc);
		return;
	}
	/* The transport notifies each queue once when the driver is ready. */
	if (!sc->sc_live) {
		sc->sc_live = true;
		input_host_start(sc);
	}
	input_send(sc);
}

static void input_reset(void *arg)
{
	struct input_softc *sc = arg;

	input_host_stop(sc);
	input_events_reset(sc);
	input_select(sc, VIRTIO_INPUT_CFG_UNSET, 0);
}

/*
 * --- Status and commands ---
 */

static struct json_object *leds_json(const struct libevdev *d)
{
	struct json_object *list = json_object_new_array();

	for (unsigned code = 0; code <= LED_MAX; code++) {
		if (libevdev_has_event_code(d, EV_LED, code) &&
		    libevdev_get_event_value(d, EV_LED, code))
			json_push_string(list, libevdev_event_code_get_name(
						       EV_LED, code));
	}
	return list;
}

static void input_status(struct vdev *dev, struct json_object *status)
{
	struct input_softc *sc = input_of(dev);

	json_add_string(status, "name", libevdev_get_name(sc->sc_desc));
	json_add_bool(status, "listening", sc->sc_live);
	json_object_object_add(status, "leds", leds_json(sc->sc_desc));
	json_add_uint(status, "events", sc->sc_nr_events);
	json_add_uint(status, "events-waiting", sc->sc_nr_waiting);
	json_add_uint(status, "updates-dropped", sc->sc_nr_dropped);
	json_add_uint(status, "status-events", sc->sc_nr_status);
}

#define REPLACED_FILE "evdev"

/* evdev PATH: the client has opened and grabbed it. */
static int ctl_evdev(struct input_softc *sc, int argc, char *const argv[],
		     struct opened_files *files, struct err *err)
{
	int fd = opened_files_take(files, REPLACED_FILE), ret;

	if (argc != 2 || fd < 0) {
		if (fd >= 0)
			close(fd);
		return err_set(err, -EINVAL, "input: usage: evdev PATH");
	}
	if (!sc->sc_evdev) {
		close(fd);
		return err_set(err, -EINVAL,
			       "input: evdev %s: this is a virtual device",
			       argv[1]);
	}
	ret = input_host_replace(sc, fd);
	if (ret == -EINVAL)
		return err_set(err, ret,
			       "input: evdev %s: different from the device "
			       "that the guest has",
			       argv[1]);
	return ret < 0 ? err_set(err, ret, "input: evdev %s: %s", argv[1],
				 strerror(-ret)) :
			 0;
}

static int open_replaced(int argc, char *const argv[],
			 struct opened_files *files, struct err *err)
{
	int fd;

	if (argc != 2)
		return 0; /* ctl_evdev() reports the usage */
	fd = input_host_open(argv[1], err);
	return fd < 0 ? fd : opened_files_add(files, REPLACED_FILE, fd);
}

static int input_ctl(struct vdev *dev, int argc, char *const argv[],
		     struct opened_files *files, struct json_object *reply,
		     struct err *err)
{
	if (strcmp(argv[0], "evdev") == 0)
		return ctl_evdev(input_of(dev), argc, argv, files, err);
	return input_inject(input_of(dev), argc - 1, argv + 1, err);
}

/*
 * --- Create and destroy ---
 */

static int check_length(const struct opts *opts, const char *key,
			struct err *err)
{
	const char *text = opt_string(opts, key);

	if (text && strlen(text) > INPUT_MAX_NAME)
		return err_set(err, -EINVAL,
			       "input: %s=%s: longer than %u characters", key,
			       text, INPUT_MAX_NAME);
	return 0;
}

static int check_opts(const struct opts *opts, struct err *err)
{
	int ret = check_length(opts, "name", err);

	if (ret == 0)
		ret = check_length(opts, "serial", err);
	if (ret == 0 && opt_given(opts, "kind") == opt_given(opts, "evdev"))
		return err_set(err, -EINVAL,
			       "input: needs either kind= or evdev=");
	return ret;
}

#define AGAIN_FILE  "again"
#define MAX_WAIT_MS 2000

/* Runs in the opener's thread: the device may be back. */
static int open_again(void *arg, int *fds)
{
	struct err err;

	fds[0] = input_host_open(arg, &err);
	return fds[0] < 0 ? fds[0] : 1;
}

static int start_opener(const char *path, struct opened_files *files,
			struct err *err)
{
	char *copy = strdup(path);
	int ret = copy ? opener_start(files, AGAIN_FILE, open_again,
				      MAX_WAIT_MS, copy) :
			 -ENOMEM;

	if (ret == 0)
		return 0;
	free(copy);
	return err_set(err, ret, "input: evdev=%s: %s", path, strerror(-ret));
}

static int input_open(const struct opts *opts, struct opened_files *files,
		      struct err *err)
{
	const char *path = opt_string(opts, "evdev");
	int fd, ret = check_opts(opts, err);

	if (ret < 0 || !path)
		return ret;
	fd = input_host_open(path, err);
	ret = fd < 0 ? fd : opened_files_add(files, "evdev", fd);
	return ret < 0 ? ret : start_opener(path, files, err);
}

/*
 * A process that died while its host device was unplugged leaves a dead
 * descriptor.
 */
static int input_reopen(const struct opts *opts, struct opened_files *files)
{
	int fd = opened_files_find(files, "evdev"), fds[OPENER_MAX_FDS], nr;

	if (fd < 0 || !input_host_is_gone(fd))
		return 0;
	nr = opener_take(files, AGAIN_FILE, fds);
	if (nr < 0)
		return nr;
	while (nr > 1)
		close(fds[--nr]);
	opened_files_replace(files, "evdev", fds[0]);
	return 0;
}

static bool input_fini(struct vdev *dev)
{
	struct input_softc *sc = input_of(dev);

	input_host_stop(sc);
	vio_task_cancel(sc->sc_loop, &sc->sc_continue);
	reopener_destroy(sc->sc_reopener);
	if (sc->sc_fd >= 0)
		close(sc->sc_fd);
	libevdev_free(sc->sc_desc);
	return true;
}

static int describe(struct input_softc *sc, const struct opts *opts,
		    struct err *err)
{
	const char *name = opt_string(opts, "name");
	const char *serial = opt_string(opts, "serial");
	int ret = 0;

	/* Outside events cause its messages, without a limit. */
	libevdev_set_log_function(NULL, NULL);
	if (sc->sc_fd >= 0)
		ret = libevdev_new_from_fd(sc->sc_fd, &sc->sc_desc);
	else
		sc->sc_desc = input_kind_create(opt_string(opts, "kind"));
	if (ret == 0 && !sc->sc_desc)
		ret = -ENOMEM;
	if (ret < 0)
		return err_set(err, ret, "input: %s", strerror(-ret));
	if (name)
		libevdev_set_name(sc->sc_desc, name);
	if (serial)
		libevdev_set_uniq(sc->sc_desc, serial);
	return 0;
}

static struct virtio_consts input_consts = {
	.vc_name = "input",
	.vc_nvq = 2,
	.vc_cfgsize = sizeof(struct virtio_input_config),
	.vc_reset = input_reset,
	.vc_qnotify = input_qnotify,
	.vc_cfgread = input_cfgread,
	.vc_cfgwrite = input_cfgwrite,
	.vc_save = input_save,
	.vc_load = input_load,
	.vc_hv_caps_modern = VI_RING_CAPS_MODERN,
};

static int input_init(struct vdev *dev, const struct vdev_env *env,
		      struct err *err)
{
	struct input_softc *sc = input_of(dev);
	int ret, again_fd;

	sc->sc_loop = env->loop;
	sc->sc_continue = (struct vio_task){ .fn = input_continue, .arg = sc };
	sc->sc_more = (struct vio_task){ .fn = input_host_on_more, .arg = sc };
	sc->sc_fd = opened_files_take(env->files, "evdev");
	sc->sc_evdev = sc->sc_fd >= 0;
	again_fd = opened_files_take(env->files, AGAIN_FILE);
	ret = check_opts(env->opts, err);
	if (ret == 0 && again_fd >= 0) {
		ret = reopener_create(sc->sc_loop, again_fd,
				      input_host_on_reopened, sc,
				      &sc->sc_reopener);
		if (ret < 0) {
			close(again_fd);
			err_set(err, ret, "input: %s", strerror(-ret));
		}
	}
	if (ret == 0)
		ret = describe(sc, env->opts, err);
	if (ret == 0)
		ret = vdev_attach(dev, env, &sc->sc_vs, &input_consts,
				  sc->sc_vqs, err);
	return ret;
}

/*
 * --- Tables ---
 */

static const struct opt_def input_opts[] = {
	{ "kind", OPT_CHOICE, .choices = INPUT_KINDS,
	  .help = "virtual device, fed by ctl" },
	{ "evdev", OPT_STRING,
	  .help = "host device, /dev/input/eventN, grabbed for the guest" },
	{ "name", OPT_STRING,
	  .help = "name shown to the guest; default: the device's" },
	{ "serial", OPT_STRING,
	  .help = "serial number; default: the device's, if any" },
	{ NULL },
};

static const struct vdev_ctl input_ctls[] = {
	{ "inject TYPE CODE VALUE ...",
	  "inject simultaneous events; TYPE: key, btn, rel, abs, msc, sw; "
	  "CODE: a number or a name, KEY_A or a" },
	{ "evdev PATH", "open the host's device again after it was unplugged",
	  open_replaced },
	{ NULL, NULL },
};

static const int input_syscalls[] = {
	SYS_read,  SYS_write,         SYS_poll, SYS_epoll_ctl,
	SYS_close, REOPENER_SYSCALLS, -1,
};

/* libevdev reads the state of keys and axes after events were lost. */
static const unsigned long input_ioctls[] = { _IO('E', 0), 0 };

const struct vdev_type vdev_input = {
	.vt_name = "input",
	.vt_alias = "virtio-input",
	.vt_summary = "keyboard, mouse, tablet, touch screen",
	.vt_device_id = VIRTIO_ID_INPUT,
	.vt_pci_class = PCIC_INPUTDEV,
	.vt_modern_only = true,
	.vt_queue_size = 64,
	.vt_opts = input_opts,
	.vt_ctls = input_ctls,
	.vt_syscalls = input_syscalls,
	.vt_ioctls = input_ioctls,
	.vt_open = input_open,
	.vt_reopen = input_reopen,
	VDEV_IN(struct input_softc, sc_dev),
	.vt_init = input_init,
	.vt_fini = input_fini,
	.vt_status = input_status,
	.vt_ctl = input_ctl,
};

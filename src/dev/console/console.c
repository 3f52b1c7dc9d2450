/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The console device (virtio 5.3): a console and named ports, each a stream of
 * bytes both ways.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>

#include "base/json.h"
#include "base/util.h"
#include "dev/devices.h"
#include "dev/console/console.h"

static_assert(sizeof(struct virtio_console_config) == 12, "5.3.4");
static_assert(CONSOLE_MAX_PORTS * (CHARDEV_MAX_FILES + 1) <= OPENED_FILES_MAX,
	      "every port can be opened");

static struct console_softc *console_of(struct vdev *dev)
{
	return container_of(dev, struct console_softc, sc_dev);
}

/*
 * --- Configuration, 5.3.4 ---
 */

static int console_cfgread(void *arg, int offset, int size, uint32_t *retval)
{
	const struct console_softc *sc = arg;
	struct {
		le16 cols, rows;
		le32 max_nr_ports;
		le32 emerg_wr;
	} c = {
		cpu_to_le16(sc->sc_cols),
		cpu_to_le16(sc->sc_rows),
		cpu_to_le32(sc->sc_nr_ports),
	};

	return vi_cfg_read(&c, sizeof(c), offset, size, retval);
}

/*
 * Emergency write (5.3.6), possible at any time. The character is lost if there
 * is no room: the guest does not wait.
 */
static int console_cfgwrite(void *arg, int offset, int size, uint32_t value)
{
	struct console_softc *sc = arg;

	if (offset != offsetof(struct virtio_console_config, emerg_wr) ||
	    size != 4)
		return -EINVAL;
	console_emergency(&sc->sc_ports[0], (uint8_t)value);
	return 0;
}

static uint64_t console_hv_features(void *arg, bool modern)
{
	const struct console_softc *sc = arg;
	uint64_t f = modern ? VI_RING_CAPS_MODERN : VI_RING_CAPS_LEGACY;

	f |= VI_BIT(VIRTIO_CONSOLE_F_SIZE) |
	     VI_BIT(VIRTIO_CONSOLE_F_EMERG_WRITE);
	if (sc->sc_nr_ports > 1)
		f |= VI_BIT(VIRTIO_CONSOLE_F_MULTIPORT);
	return f;
}

/*
 * --- Queues, reset ---
 */

static void console_qnotify(void *arg, struct vqueue_info *vq)
{
	struct console_softc *sc = arg;
	unsigned num = vq->vq_num;

	if (num >= 2 && !console_multiport(sc))
		return;
	if (num == 2)
		console_control_run(sc);
	else if (num == 3)
		console_control_take(sc);
	else if (num % 2)
		console_tx_run(&sc->sc_ports[num < 2 ? 0 : num / 2 - 1]);
	else
		console_rx_run(&sc->sc_ports[num < 2 ? 0 : num / 2 - 1]);
}

static void console_reset(void *arg)
{
	struct console_softc *sc = arg;

	console_control_reset(sc);
	for (unsigned i = 0; i < sc->sc_nr_ports; i++)
		console_port_reset(&sc->sc_ports[i]);
}

/* The chain of which a part was sent has gone: the next one is another. */
static void console_qreset(void *arg, struct vqueue_info *vq)
{
	struct console_softc *sc = arg;
	unsigned num = vq->vq_num;

	if (num == 1)
		console_tx_forget(&sc->sc_ports[0]);
	else if (num > 3 && num % 2)
		console_tx_forget(&sc->sc_ports[num / 2 - 1]);
}

/*
 * --- Status and commands ---
 */

#define ADDED_FILES "new" /* files of a channel, sent with a command */

static const char *name_of(const struct console_port *p)
{
	return p->name ? p->name : "console";
}

static struct json_object *port_json(const struct console_port *p)
{
	struct json_object *to = json_object_new_object();
	bool single = p->id == 0 && !console_multiport(p->sc);

	json_add_uint(to, "id", p->id);
	json_add_string(to, "name", name_of(p));
	json_add_string(to, "channel", chardev_text(p->chardev));
	json_add_string(to, "path", chardev_path(p->chardev));
	json_add_bool(to, "plugged", p->plugged);
	json_add_bool(to, "host-open", chardev_has_peer(p->chardev));
	if (!single)
		json_add_bool(to, "guest-open", p->guest_open);
	json_add_uint(to, "to-guest", p->rx_bytes);
	json_add_uint(to, "from-guest", p->tx_bytes);
	json_add_uint(to, "lost", p->tx_lost);
	json_add_uint(to, "errors", chardev_nr_errors(p->chardev));
	if (p->log.file) {
		json_add_string(to, "log", chardev_text(p->log.file));
		json_add_uint(to, "log-lost", p->log.lost);
		json_add_uint(to, "log-errors", chardev_nr_errors(p->log.file));
	}
	return to;
}

static void console_status(struct vdev *dev, struct json_object *status)
{
	struct console_softc *sc = console_of(dev);
	struct json_object *ports = json_object_new_array();

	json_add_uint(status, "cols", sc->sc_cols);
	json_add_uint(status, "rows", sc->sc_rows);
	for (unsigned i = 0; i < sc->sc_nr_ports; i++) {
		if (sc->sc_ports[i].chardev)
			json_object_array_add(ports,
					      port_json(&sc->sc_ports[i]));
	}
	json_object_object_add(status, "ports", ports);
}

static bool parse_u16(const char *text, uint16_t *ret_val)
{
	char *end;
	unsigned long val = strtoul(text, &end, 10);

	if (*text < '0' || *text > '9' || *end || val > UINT16_MAX)
		return false;
	*ret_val = (uint16_t)val;
	return true;
}

void console_resize(struct console_softc *sc, uint16_t cols, uint16_t rows)
{
	sc->sc_cols = cols;
	sc->sc_rows = rows;
	if (sc->sc_vs.vs_negotiated_caps & VI_BIT(VIRTIO_CONSOLE_F_SIZE))
		vq_devcfg_changed(&sc->sc_vs);
	sc->sc_ports[0].told_size = false;
	console_control_run(sc);
}

static int ctl_resize(struct console_softc *sc, int argc, char *const argv[],
		      struct err *err)
{
	uint16_t cols, rows;

	if (argc != 3 || !parse_u16(argv[1], &cols) ||
	    !parse_u16(argv[2], &rows))
		return err_set(
			err, -EINVAL,
			"console: usage: resize COLS ROWS, such as 80 24");
	console_resize(sc, cols, rows);
	return 0;
}

static struct console_port *find_port(struct console_softc *sc,
				      const char *name)
{
	for (unsigned i = 1; i < sc->sc_nr_ports; i++) {
		const char *has = sc->sc_ports[i].name;

		if (has && strcmp(has, name) == 0)
			return &sc->sc_ports[i];
	}
	return NULL;
}

static void plug(struct console_port *p, bool plugged)
{
	p->plugged = plugged;
	if (p->sc->sc_ready) /* a resumed driver has no others */
		p->kept = p->added;
	if (!plugged)
		p->unplugged = p->kept;
	console_control_run(p->sc);
	/* A writer to an unplugged port must not wait. */
	console_tx_run(p);
	console_rx_run(p);
}

static struct console_port *free_port(struct console_softc *sc)
{
	for (unsigned i = 1; i < sc->sc_nr_ports; i++) {
		if (!sc->sc_ports[i].name)
			return &sc->sc_ports[i];
	}
	return NULL;
}

/* port add NAME CHANNEL: the client has opened the channel. */
static int add_port(struct console_softc *sc, const char *name,
		    const char *channel, struct opened_files *files,
		    struct err *err)
{
	struct console_port *p = free_port(sc);
	struct err why;
	int ret;

	if (strlen(name) == 0 || strlen(name) > CONSOLE_MAX_NAME)
		return err_set(
			err, -EINVAL,
			"console: port add: name must have 1 to %u characters",
			CONSOLE_MAX_NAME);
	if (find_port(sc, name))
		return err_set(err, -EEXIST,
			       "console: port add %s: already exists", name);
	if (!p)
		return err_set(err, -ENOSPC,
			       "console: port add %s: no free port (raise "
			       "ports= on the command line)",
			       name);
	ret = chardev_create(channel, ADDED_FILES, files, sc->sc_loop,
			     sc->sc_io, &console_chardev_client, p, &p->chardev,
			     &why);
	if (ret < 0)
		return err_set(err, ret, "console: port add %s %s: %s", name,
			       channel, why.text);
	p->name = strcpy(p->added_name, name);
	p->rx_bytes = p->tx_bytes = p->tx_lost = 0;
	plug(p, true);
	return 0;
}

/* A port added by a command is removed with its channel. */
static void forget_port(struct console_port *p)
{
	console_log_end(p);
	chardev_destroy(p->chardev);
	p->chardev = NULL;
	p->name = NULL;
	p->backlog.len = 0;
}

/* A port of the command line keeps its channel while unplugged. */
static int plug_port(struct console_softc *sc, const char *word,
		     const char *name, struct err *err)
{
	struct console_port *p = find_port(sc, name);
	bool add = strcmp(word, "add") == 0;

	if (!p)
		return err_set(
			err, -ENOENT, "console: port %s %s: no such port%s",
			word, name,
			add ? " (create one with port add NAME CHANNEL)" : "");
	if (p->plugged == add)
		return err_set(err, -EALREADY, "console: port %s %s: it is %s",
			       word, name, add ? "there already" : "not there");
	plug(p, add);
	if (p->name == p->added_name)
		forget_port(p);
	return 0;
}

static int ctl_port(struct console_softc *sc, int argc, char *const argv[],
		    struct opened_files *files, struct err *err)
{
	bool add = argc > 1 && strcmp(argv[1], "add") == 0;

	if (add && argc == 4)
		return add_port(sc, argv[2], argv[3], files, err);
	if (argc == 3 && (add || strcmp(argv[1], "remove") == 0))
		return plug_port(sc, argv[1], argv[2], err);
	return err_set(
		err, -EINVAL,
		"console: usage: port add NAME [CHANNEL] or port remove NAME");
}

/* The client's part. */
static bool brings_channel(int argc, char *const argv[])
{
	return argc == 4 && strcmp(argv[1], "add") == 0;
}

static int open_added(int argc, char *const argv[], struct opened_files *files,
		      struct err *err)
{
	struct err why;
	int ret;

	if (!brings_channel(argc, argv))
		return 0;
	if (strcmp(argv[3], "stdio") == 0)
		return err_set(err, -EINVAL,
			       "port add %s stdio: only on the command line",
			       argv[2]);
	ret = chardev_open(argv[3], ADDED_FILES, files, &why);
	if (ret < 0)
		return err_set(err, ret, "port add %s %s: %s", argv[2], argv[3],
			       why.text);
	return 0;
}

static void close_added(int argc, char *const argv[],
			const struct opened_files *files)
{
	if (brings_channel(argc, argv))
		chardev_close(argv[3], ADDED_FILES, files);
}

/*
 * log NAME [FILE]: the client has opened the file, another one, or a new one of
 * the same name after a rename.
 */
#define LOG_FILE "log"

static struct console_port *find_logged(struct console_softc *sc,
					const char *name)
{
	struct console_port *p = find_port(sc, name);

	if (!p && strcmp(name, "console") == 0)
		p = &sc->sc_ports[0];
	return p && p->chardev ? p : NULL;
}

static int set_log(struct console_port *p, const char *path, const char *id,
		   struct opened_files *files, struct err *err)
{
	char *channel = console_log_channel(path);
	int ret = channel ? console_log_set(p, channel, id, files, err) :
			    err_set(err, -ENOMEM, "out of memory");

	free(channel);
	return ret;
}

static int ctl_log(struct console_softc *sc, int argc, char *const argv[],
		   struct opened_files *files, struct err *err)
{
	struct console_port *p = argc > 1 ? find_logged(sc, argv[1]) : NULL;
	struct err why;
	int ret = 0;

	if (argc < 2 || argc > 3)
		return err_set(err, -EINVAL,
			       "console: usage: log NAME [FILE], such as log "
			       "console /var/log/guest.log");
	if (!p)
		return err_set(err, -ENOENT, "console: log %s: no such port",
			       argv[1]);
	if (argc == 2)
		console_log_end(p);
	else
		ret = set_log(p, argv[2], LOG_FILE, files, &why);
	/* Output no longer waits for the old file. */
	console_tx_run(p);
	return ret < 0 ? err_set(err, ret, "console: log %s %s: %s", argv[1],
				 argv[2], why.text) :
			 0;
}

static int open_file(const char *path, const char *id,
		     struct opened_files *files, struct err *err)
{
	char *channel = console_log_channel(path);
	int ret = channel ? chardev_open(channel, id, files, err) :
			    err_set(err, -ENOMEM, "out of memory");

	free(channel);
	return ret;
}

static int open_log(int argc, char *const argv[], struct opened_files *files,
		    struct err *err)
{
	struct err why;
	int ret;

	if (argc != 3)
		return 0; /* ctl_log() reports the usage */
	ret = open_file(argv[2], LOG_FILE, files, &why);
	return ret < 0 ? err_set(err, ret, "log %s %s: %s", argv[1], argv[2],
				 why.text) :
			 0;
}

static int console_ctl(struct vdev *dev, int argc, char *const argv[],
		       struct opened_files *files, struct json_object *reply,
		       struct err *err)
{
	struct console_softc *sc = console_of(dev);

	if (strcmp(argv[0], "resize") == 0)
		return ctl_resize(sc, argc, argv, err);
	if (strcmp(argv[0], "log") == 0)
		return ctl_log(sc, argc, argv, files, err);
	return ctl_port(sc, argc, argv, files, err);
}

/*
 * --- The channels that the options name ---
 */

#define PORT_KEYS "port.**"
#define PORT_KEY  "port."
#define LOG_KEYS  "log.**"
#define LOG_KEY   "log."

/* A configured channel: its option, its files, and those of its log, if any. */
struct wanted {
	unsigned id;
	const char *key, *text, *log;
	char files[4], log_files[8];
};

/* log= for the console, log.NAME= for a port. NULL: none. */
static const char *log_of(const struct opts *opts, const char *key)
{
	char log[sizeof(LOG_KEY) + CONSOLE_MAX_NAME] = "log";

	if (strncmp(key, PORT_KEY, strlen(PORT_KEY)) == 0)
		snprintf(log, sizeof(log), LOG_KEY "%s",
			 key + strlen(PORT_KEY));
	return opt_given(opts, log) ? opt_string(opts, log) : NULL;
}

/* List all channels, the console first if configured. Returns their number. */
static unsigned list_wanted(const struct opts *opts, struct wanted *list,
			    unsigned max)
{
	unsigned nr = 0, id = 1, pos = 0;
	const char *key;

	if (opt_given(opts, "console"))
		list[nr++] = (struct wanted){ .id = 0, .key = "console" };
	while (nr < max && (key = opt_next(opts, PORT_KEYS, &pos)))
		list[nr++] = (struct wanted){ .id = id++, .key = key };
	for (unsigned i = 0; i < nr; i++) {
		list[i].text = opt_string(opts, list[i].key);
		list[i].log = log_of(opts, list[i].key);
		snprintf(list[i].files, sizeof(list[i].files), "%u",
			 list[i].id);
		snprintf(list[i].log_files, sizeof(list[i].log_files), "%u.log",
			 list[i].id);
	}
	return nr;
}

/* Each log belongs to a channel. */
static int check_logs(const struct opts *opts, struct err *err)
{
	char port[sizeof(PORT_KEY) + CONSOLE_MAX_NAME];
	unsigned pos = 0;
	const char *key;

	if (opt_given(opts, "log") && !opt_given(opts, "console"))
		return err_set(err, -EINVAL,
			       "console: log: without console= (a port's is "
			       "log.NAME=)");
	while ((key = opt_next(opts, LOG_KEYS, &pos))) {
		snprintf(port, sizeof(port), PORT_KEY "%s",
			 key + strlen(LOG_KEY));
		if (!opt_given(opts, port))
			return err_set(err, -EINVAL,
				       "console: %s: without %s=", key, port);
	}
	return 0;
}

static int check_opts(const struct opts *opts, struct err *err)
{
	unsigned nr = 0, pos = 0;
	const char *key;

	while ((key = opt_next(opts, PORT_KEYS, &pos))) {
		if (strlen(key) > strlen(PORT_KEY) + CONSOLE_MAX_NAME)
			return err_set(err, -EINVAL,
				       "console: %s: longer than %u characters",
				       key, CONSOLE_MAX_NAME);
		if (++nr == CONSOLE_MAX_PORTS)
			return err_set(err, -EINVAL,
				       "console: %s: more than %u ports", key,
				       CONSOLE_MAX_PORTS - 1);
	}
	if (nr == 0 && !opt_given(opts, "console") && !opt_given(opts, "ports"))
		return err_set(err, -EINVAL,
			       "console: missing console= or port.NAME=");
	return check_logs(opts, err);
}

static int open_wanted(const struct wanted *w, struct opened_files *files,
		       struct err *err)
{
	struct err why;
	int ret = chardev_open(w->text, w->files, files, &why);

	if (ret < 0)
		return err_set(err, ret, "console: %s=%s: %s", w->key, w->text,
			       why.text);
	if (!w->log)
		return 0;
	ret = open_file(w->log, w->log_files, files, &why);
	if (ret == 0)
		return 0;
	chardev_close(w->text, w->files, files);
	return err_set(err, ret, "console: log of %s: %s: %s", w->key, w->log,
		       why.text);
}

static int set_signals(const struct opts *opts, const struct wanted *list,
		       unsigned nr, struct err *err)
{
	for (unsigned i = 0; i < nr; i++) {
		if (strcmp(list[i].text, "stdio") != 0)
			continue;
		chardev_stdio_set_signals(opt_bool(opts, "signal"));
		return 0;
	}
	return opt_given(opts, "signal") ?
		       err_set(err, -EINVAL,
			       "console: signal: without a channel stdio") :
		       0;
}

static int console_open(const struct opts *opts, struct opened_files *files,
			struct err *err)
{
	struct wanted list[CONSOLE_MAX_PORTS];
	int ret = check_opts(opts, err);
	unsigned nr, i;

	if (ret < 0)
		return ret;
	nr = list_wanted(opts, list, CONSOLE_MAX_PORTS);
	ret = set_signals(opts, list, nr, err);
	if (ret < 0)
		return ret;
	for (i = 0; i < nr && ret == 0; i++)
		ret = open_wanted(&list[i], files, err);
	if (ret == 0)
		return 0;
	for (i--; i-- > 0;)
		chardev_close(list[i].text, list[i].files, files);
	return ret;
}

static void console_paths(const struct opts *opts,
			  const struct opened_files *files,
			  struct json_object *paths)
{
	struct wanted list[CONSOLE_MAX_PORTS];
	unsigned nr = list_wanted(opts, list, CONSOLE_MAX_PORTS);
	char path[CHARDEV_MAX_PATH];

	for (unsigned i = 0; i < nr; i++) {
		if (chardev_opened_path(list[i].files, files, path) == 0)
			json_add_string(paths, list[i].key, path);
	}
}

static void console_close(const struct opts *opts,
			  const struct opened_files *files)
{
	struct wanted list[CONSOLE_MAX_PORTS];
	unsigned nr = list_wanted(opts, list, CONSOLE_MAX_PORTS);

	while (nr-- > 0)
		chardev_close(list[nr].text, list[nr].files, files);
}

/*
 * --- Create and destroy ---
 */

static bool console_fini(struct vdev *dev)
{
	struct console_softc *sc = console_of(dev);

	if (dev->vs)
		console_reset(sc);
	for (unsigned i = 0; i < CONSOLE_MAX_PORTS; i++)
		chardev_destroy(sc->sc_ports[i].chardev);
	for (unsigned i = 0; i < CONSOLE_MAX_PORTS; i++)
		console_log_end(&sc->sc_ports[i]);
	for (unsigned i = 0; i < CONSOLE_MAX_PORTS; i++)
		free(sc->sc_ports[i].backlog.buf);
	chardev_io_destroy(sc->sc_io);
	chardev_io_destroy(sc->sc_log_io);
	return true;
}

static int create_channels(struct console_softc *sc, const struct vdev_env *env,
			   struct err *err)
{
	struct wanted list[CONSOLE_MAX_PORTS];
	unsigned nr = list_wanted(env->opts, list, CONSOLE_MAX_PORTS), room;

	sc->sc_nr_ports = nr > 0 ? list[nr - 1].id + 1 : 1;
	if (opt_given(env->opts, "ports")) {
		room = (unsigned)opt_number(env->opts, "ports");
		if (room > sc->sc_nr_ports)
			sc->sc_nr_ports = room;
	}
	/* Logs have their own threads: a slow disk must not stall a channel. */
	if (chardev_io_create(env->loop, sc->sc_nr_ports, &sc->sc_io) < 0 ||
	    chardev_io_create(env->loop, sc->sc_nr_ports, &sc->sc_log_io) < 0)
		return err_set(err, -ENOMEM, "console: out of memory");
	for (unsigned i = 0; i < nr; i++) {
		struct console_port *p = &sc->sc_ports[list[i].id];
		struct err why;
		int ret;

		ret = chardev_create(list[i].text, list[i].files, env->files,
				     env->loop, sc->sc_io,
				     &console_chardev_client, p, &p->chardev,
				     &why);
		if (ret < 0)
			return err_set(err, ret, "console: %s=%s: %s",
				       list[i].key, list[i].text, why.text);
		if (list[i].log)
			ret = set_log(p, list[i].log, list[i].log_files,
				      env->files, &why);
		if (ret < 0)
			return err_set(err, ret, "console: log of %s: %s: %s",
				       list[i].key, list[i].log, why.text);
		p->plugged = p->kept = true;
		if (list[i].id > 0)
			p->name = list[i].key + strlen(PORT_KEY);
	}
	return 0;
}

static int create_backlogs(struct console_softc *sc, const struct opts *opts,
			   struct err *err)
{
	size_t size = (size_t)opt_number(opts, "backlog");

	for (unsigned i = 0; size > 0 && i < sc->sc_nr_ports; i++) {
		struct console_backlog *b = &sc->sc_ports[i].backlog;

		b->buf = malloc(size);
		if (!b->buf)
			return err_set(err, -ENOMEM, "console: out of memory");
		b->size = size;
	}
	return 0;
}

static const struct virtio_consts console_consts = {
	.vc_name = "console",
	.vc_cfgsize = sizeof(struct virtio_console_config),
	.vc_reset = console_reset,
	.vc_qreset = console_qreset,
	.vc_qnotify = console_qnotify,
	.vc_cfgread = console_cfgread,
	.vc_cfgwrite = console_cfgwrite,
	.vc_hv_features = console_hv_features,
	.vc_save = console_save,
	.vc_load = console_load,
};

static int build(struct console_softc *sc, const struct vdev_env *env,
		 struct err *err)
{
	int ret = check_opts(env->opts, err);

	if (ret == 0)
		ret = create_channels(sc, env, err);
	if (ret == 0)
		ret = create_backlogs(sc, env->opts, err);
	if (ret < 0)
		return ret;
	sc->sc_vc = console_consts;
	sc->sc_vc.vc_nvq =
		sc->sc_nr_ports > 1 ? 2 * (int)sc->sc_nr_ports + 2 : 2;
	if (sc->sc_ports[0].chardev)
		chardev_size(sc->sc_ports[0].chardev, &sc->sc_cols,
			     &sc->sc_rows);
	return vdev_attach(&sc->sc_dev, env, &sc->sc_vs, &sc->sc_vc, sc->sc_vqs,
			   err);
}

/* A pseudo terminal has another path each time: log it. */
static void tell_paths(struct console_softc *sc)
{
	for (unsigned i = 0; i < sc->sc_nr_ports; i++) {
		const struct console_port *p = &sc->sc_ports[i];

		if (p->chardev && chardev_path(p->chardev))
			vs_log(&sc->sc_vs, LOG_NOTICE, "%s is at %s",
			       name_of(p), chardev_path(p->chardev));
	}
}

static int console_init(struct vdev *dev, const struct vdev_env *env,
			struct err *err)
{
	struct console_softc *sc = console_of(dev);
	int ret;

	sc->sc_loop = env->loop;
	sc->sc_drop = strcmp(opt_string(env->opts, "overflow"), "drop") == 0;
	sc->sc_control_continue =
		(struct vio_task){ .fn = console_control_continue, .arg = sc };
	for (unsigned i = 0; i < CONSOLE_MAX_PORTS; i++) {
		struct console_port *p = &sc->sc_ports[i];

		p->sc = sc;
		p->id = i;
		p->rx_batch = 1;
		p->tx_continue = (struct vio_task){ .fn = console_tx_continue,
						    .arg = p };
	}
	ret = build(sc, env, err);
	if (ret == 0)
		tell_paths(sc);
	return ret;
}

/*
 * --- Tables ---
 */

static const struct opt_def console_opts[] = {
	{ "console", OPT_STRING,
	  .help = "console, hvc0 in Linux: stdio, pty[:LINK], unix:PATH "
		  "(listens), unix-connect:PATH, file:PATH, fd:N" },
	{ PORT_KEYS, OPT_STRING,
	  .help = "named port, /dev/virtio-ports/NAME in Linux: likewise; 30 "
		  "at most" },
	{ "log", OPT_STRING,
	  .help = "append the console's output to this file as well" },
	{ LOG_KEYS, OPT_STRING, .help = "likewise, of the port NAME" },
	{ "signal", OPT_BOOL, .def = "off",
	  .help = "stdio on a terminal: on: Ctrl-C, Ctrl-Z and Ctrl-\\ act on "
		  "viodev; off: the guest gets them, and Ctrl-A x terminates "
		  "(Ctrl-A h: help)" },
	{ "backlog", OPT_SIZE, .max = 1 << 20,
	  .help = "newest bytes of output of each channel to keep while it has "
		  "no peer" },
	{ "overflow", OPT_CHOICE, .choices = "wait|drop", .def = "wait",
	  .help = "when a connected peer does not read: stall the guest, or "
		  "drop its output" },
	{ "ports", OPT_NUMBER, .min = 1, .max = CONSOLE_MAX_PORTS,
	  .help = "maximum number of ports, including the console and ports "
		  "added by ctl; default: those given" },
	{ NULL },
};

static const virtio_capstr_t console_features[] = {
	{ VI_BIT(VIRTIO_CONSOLE_F_SIZE), "SIZE" },
	{ VI_BIT(VIRTIO_CONSOLE_F_MULTIPORT), "MULTIPORT" },
	{ VI_BIT(VIRTIO_CONSOLE_F_EMERG_WRITE), "EMERG_WRITE" },
	{ 0, NULL },
};

static const struct vdev_ctl console_ctls[] = {
	{ "resize COLS ROWS", "set the console's window size" },
	{ "port add NAME [CHANNEL]|remove NAME",
	  "plug or unplug a port; CHANNEL creates a new one", open_added,
	  close_added },
	{ "log NAME [FILE]",
	  "log the output of a port, or of the console, to FILE; without, no "
	  "longer",
	  open_log },
	{ NULL, NULL },
};

const struct vdev_type vdev_console = {
	.vt_name = "console",
	.vt_alias = "virtio-console",
	.vt_summary = "console and named ports",
	.vt_legacy_id = VIRTIO_DEV_CONSOLE,
	.vt_device_id = VIRTIO_ID_CONSOLE,
	.vt_pci_class = PCIC_SIMPLECOMM,
	.vt_queue_size = 128,
	.vt_opts = console_opts,
	.vt_features = console_features,
	.vt_ctls = console_ctls,
	.vt_syscalls = chardev_syscalls,
	.vt_ioctls = chardev_ioctls,
	.vt_open = console_open,
	.vt_paths = console_paths,
	.vt_close = console_close,
	VDEV_IN(struct console_softc, sc_dev),
	.vt_init = console_init,
	.vt_fini = console_fini,
	.vt_status = console_status,
	.vt_ctl = console_ctl,
};

/* SPDX-License-Identifier: BSD-2-Clause */
/* `viodev ctl` of a SCSI device: its status, LUNs added and removed. */
#include <errno.h>

#include "base/json.h"
#include "base/util.h"
#include "dev/scsi/scsi.h"

static struct scsi_softc *scsi_of(struct vdev *dev)
{
	return container_of(dev, struct scsi_softc, sc_dev);
}

static const char *kind_name(const struct scsi_lun *lun)
{
	return lun->kind == LUN_CDROM       ? "cdrom" :
	       lun->kind == LUN_PASSTHROUGH ? "passthrough" :
					      "disk";
}

static struct json_object *lun_json(const struct scsi_lun *lun)
{
	struct json_object *o = json_object_new_object();
	struct disk_info info = { .engine = lun->pt ? "sg" : "none" };

	if (lun->disk)
		disk_get_info(lun->disk, &info);
	json_add_string(o, "name", lun->name);
	json_add_string(o, "type", kind_name(lun));
	json_add_bool(o, "present", lun->present);
	if (!lun->pt)
		json_add_string(o, "serial", lun->serial);
	if (lun->kind == LUN_CDROM) {
		json_add_string(o, "tray", lun->ejected ? "open" : "closed");
		json_add_bool(o, "locked", lun->locked);
	}
	json_add_uint(o, "capacity", lun->nr_blocks * lun->block_bytes);
	json_add_uint(o, "block-size", lun->block_bytes);
	json_add_string(o, "engine", info.engine);
	json_add_uint(o, "commands", lun->nr_cmds);
	json_add_uint(o, "reads", lun->nr_reads);
	json_add_uint(o, "read-bytes", lun->read_bytes);
	json_add_uint(o, "writes", lun->nr_writes);
	json_add_uint(o, "written-bytes", lun->written_bytes);
	json_add_uint(o, "check-conditions", lun->nr_errors);
	json_add_uint(o, "aborted", lun->nr_aborts);
	json_add_uint(o, "waiting", lun->disk ? disk_nr_waiting(lun->disk) : 0);
	return o;
}

void scsi_status(struct vdev *dev, struct json_object *status)
{
	struct scsi_softc *sc = scsi_of(dev);
	struct json_object *luns = json_object_new_array();

	for (unsigned i = 0; i < sc->sc_nr_luns; i++)
		json_object_array_add(luns, lun_json(sc->sc_luns[i]));
	json_object_object_add(status, "luns", luns);
	json_add_uint(status, "events", sc->sc_nr_events);
	json_add_uint(status, "events-missed", sc->sc_nr_missed);
}

static int no_lun(const char *name, struct err *err)
{
	return err_set(err, -ENOENT, "scsi: %s: no such LUN", name);
}

static int ctl_resize(struct scsi_softc *sc, int argc, char *const argv[],
		      struct json_object *reply, struct err *err)
{
	struct scsi_lun *lun = sc->sc_nr_luns == 1 ? sc->sc_luns[0] : NULL;
	bool shrink = vdev_ctl_flag(&argc, &argv, "--shrink");
	struct err why;
	uint64_t bytes;
	int ret;

	if (argc < 2 || argc > 3 || (argc == 2 && !lun) ||
	    opt_parse_size(argv[argc - 1], &bytes) < 0)
		return err_set(err, -EINVAL,
			       "scsi: usage: resize [--shrink] [LUN] SIZE, "
			       "such as lun1 20G");
	if (argc == 3)
		lun = lun_by_name(sc, argv[1]);
	if (lun && !lun->disk)
		return err_set(err, -ENOMEDIUM, "scsi: resize %s: no image",
			       lun->name);
	if (!lun)
		return no_lun(argv[1], err);
	ret = disk_resize(lun->disk, bytes, shrink, &why);
	if (ret < 0)
		return err_set(err, ret, "scsi: resize %s: %s", lun->name,
			       why.text);
	json_add_uint(reply, "capacity", lun->nr_blocks * lun->block_bytes);
	if (ret > 0) /* it follows when the image answers */
		json_add_bool(reply, "pending", true);
	return 0;
}

/* Commands that failed, and wait, are tried again. */
static int ctl_resume(struct scsi_softc *sc, int argc, char *const argv[],
		      struct err *err)
{
	struct scsi_lun *only = argc == 2 ? lun_by_name(sc, argv[1]) : NULL;

	if (argc > 2)
		return err_set(err, -EINVAL, "scsi: usage: resume [LUN]");
	if (argc == 2 && !only)
		return no_lun(argv[1], err);
	for (unsigned i = 0; i < sc->sc_nr_luns; i++) {
		struct scsi_lun *lun = sc->sc_luns[i];

		if (lun->disk && (!only || lun == only))
			disk_resume(lun->disk);
	}
	return 0;
}

/* "lun add lun5=PATH", with the image that the client opened. */
static bool brings_image(int argc, char *const argv[])
{
	return argc == 3 && !strcmp(argv[1], "add") && strchr(argv[2], '=');
}

static int open_image(int argc, char *const argv[], struct opened_files *files,
		      struct err *err)
{
	return brings_image(argc, argv) ? luns_open_new(argv[2], files, err) :
					  0;
}

static int ctl_lun(struct scsi_softc *sc, int argc, char *const argv[],
		   struct opened_files *files, struct json_object *reply,
		   struct err *err)
{
	bool add = argc == 3 && !strcmp(argv[1], "add");
	struct scsi_lun *lun;
	int ret = 0;

	if (argc != 3 || (!add && strcmp(argv[1], "remove") != 0))
		return err_set(
			err, -EINVAL,
			"scsi: usage: lun add LUN[=PATH] or lun remove LUN");
	if (brings_image(argc, argv))
		ret = lun_create_new(sc, argv[2], files, &lun, err);
	else
		lun = lun_by_name(sc, argv[2]);
	if (ret < 0)
		return ret;
	if (!lun)
		return no_lun(argv[2], err);
	if (lun->leaving)
		return err_set(err, -EBUSY,
			       "scsi: %s: commands still in flight", lun->name);
	if (lun->present == add)
		return err_set(err, -EALREADY, "scsi: %s is %s", lun->name,
			       add ? "there" : "not there");
	json_add_string(reply, "lun", lun->name);
	if (add)
		lun_add(lun);
	else if (!lun_remove(lun))
		json_add_bool(reply, "pending", true);
	for (unsigned i = 0; i < sc->sc_nr_queues; i++)
		scsi_publish(&sc->sc_queues[i]);
	return 0;
}

int scsi_ctl(struct vdev *dev, int argc, char *const argv[],
	     struct opened_files *files, struct json_object *reply,
	     struct err *err)
{
	struct scsi_softc *sc = scsi_of(dev);

	if (strcmp(argv[0], "lun") == 0)
		return ctl_lun(sc, argc, argv, files, reply, err);
	if (strcmp(argv[0], "resume") == 0)
		return ctl_resume(sc, argc, argv, err);
	if (strcmp(argv[0], "medium") == 0)
		return ctl_medium(sc, argc, argv, files, reply, err);
	if (strcmp(argv[0], "eject") == 0)
		return ctl_eject(sc, argc, argv, err);
	return ctl_resize(sc, argc, argv, reply, err);
}

const struct vdev_ctl scsi_ctls[] = {
	{ "resize [--shrink] [LUN] SIZE",
	  "resize a LUN's image to SIZE bytes, to fewer only with --shrink; "
	  "block device: re-read its size" },
	{ "resume [LUN]",
	  "retry commands held after an error (werror=, rerror=)" },
	{ "lun add LUN[=PATH]",
	  "plug a new LUN, with options as ,LUN.KEY=VALUE, or replug a removed "
	  "one",
	  open_image },
	{ "lun remove LUN", "unplug a LUN" },
	{ "medium [--force] LUN PATH [format=raw]",
	  "change the disc of a CD-ROM drive; --force: even if the guest has "
	  "locked it; format=raw: as for an image",
	  medium_open },
	{ "eject [--force] LUN", "open the tray of a CD-ROM drive" },
	{ NULL, NULL },
};

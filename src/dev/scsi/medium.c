/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * `viodev ctl` changes and ejects the disc of a CD-ROM drive. The client opens
 * the new image, since the sandbox reaches no path.
 *
 * A guest that uses the disc has locked the tray. As the button of a drive
 * would, a command then only asks the guest to eject, by the event that GET
 * EVENT STATUS NOTIFICATION reports; --force opens the tray nevertheless.
 */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "base/json.h"
#include "base/util.h"
#include "dev/scsi/scsi.h"

/*
 * --- The client ---
 */

/* Whether the last word is what disk_open() asks for. Then it is skipped. */
static bool is_raw(int *argc, char *const argv[])
{
	bool raw = *argc == 4 && !strcmp(argv[3], "format=raw");

	*argc -= raw;
	return raw;
}

int medium_open(int argc, char *const argv[], struct opened_files *files,
		struct err *err)
{
	struct disk_params params = { .ro = true };
	struct err why;
	int fd;

	vdev_ctl_flag(&argc, &argv, "--force");
	params.raw = is_raw(&argc, argv);
	if (argc != 3) /* the device says what is wrong */
		return 0;
	params.path = argv[2];
	fd = disk_open(&params, &why);
	if (fd < 0)
		return err_set(err, fd, "scsi: medium: %s", why.text);
	opened_files_add(files, "medium", fd);
	/* Without one, changes by others go unnoticed; no harm. */
	fd = disk_open_watch(&params);
	if (fd >= 0)
		opened_files_add(files, "w.medium", fd);
	return 0;
}

/*
 * --- The drive ---
 */

/* Commands in flight end without the disc. */
static void take_out(struct scsi_lun *lun)
{
	tasks_forget(lun, VIRTIO_SCSI_S_ABORTED);
	disk_destroy(lun->disk);
	if (lun->map_fd >= 0)
		close(lun->map_fd);
	lun->disk = NULL;
	lun->map_fd = -1;
	lun->nr_blocks = 0;
}

static int create_disc(struct scsi_lun *lun, struct opened_files *files,
		       struct disk **ret_disk, struct err *err)
{
	const struct disk_params params = {
		.path = "medium",
		.ro = true,
		.block_bytes = lun->block_bytes,
		.no_probe = true, /* others are being served */
		.on_read_error = lun->on_read_error,
	};
	int fd = opened_files_find(files, "medium");
	struct err why;
	int ret;

	if (fd < 0)
		return err_set(err, -EINVAL,
			       "scsi: medium: missing file descriptor");
	ret = disk_create(lun->sc->sc_io, fd, &params, ret_disk, &why);
	if (ret < 0)
		return err_set(err, ret, "scsi: %s: %s", lun->name, why.text);
	opened_files_take(files, "medium"); /* it is the disk's */
	return 0;
}

static void put_in(struct scsi_lun *lun, struct disk *disk, int watch_fd)
{
	struct disk_info info;

	if (watch_fd >= 0 && disk_watch(disk, watch_fd) < 0)
		close(watch_fd);
	disk_get_info(disk, &info);
	lun->disk = disk;
	lun->nr_blocks = info.bytes / lun->block_bytes;
	lun->ejected = lun->stopped = false;
	lun->media_event = MEDIA_NO_EVENT;
	lun->ua |= UA_MEDIUM;
	lun_hear(lun);
	lun_warn(lun);
}

/* Whether the guest lets go of the disc; if not it is asked to. */
static int unlock(struct scsi_lun *lun, bool force, struct err *err)
{
	if (!lun->locked || lun->ejected)
		return 0;
	if (force) {
		lun->locked = false;
		return 0;
	}
	lun->media_event = MEDIA_EJECT_REQUEST;
	return err_set(err, -EBUSY,
		       "scsi: %s: the guest uses the disc and was asked to "
		       "eject it: try again later, or add --force",
		       lun->name);
}

static struct scsi_lun *find_drive(struct scsi_softc *sc, const char *name,
				   struct err *err)
{
	struct scsi_lun *lun = lun_by_name(sc, name);

	if (lun && lun->present && lun->kind == LUN_CDROM)
		return lun;
	err_set(err, -ENOENT, "scsi: %s: no such CD-ROM", name);
	return NULL;
}

static void publish_all(struct scsi_softc *sc)
{
	for (unsigned i = 0; i < sc->sc_nr_queues; i++)
		scsi_publish(&sc->sc_queues[i]);
}

int ctl_medium(struct scsi_softc *sc, int argc, char *const argv[],
	       struct opened_files *files, struct json_object *reply,
	       struct err *err)
{
	bool force = vdev_ctl_flag(&argc, &argv, "--force");
	struct scsi_lun *lun;
	struct disk *disk;
	int ret;

	is_raw(&argc, argv);
	if (argc != 3)
		return err_set(err, -EINVAL,
			       "scsi: usage: medium [--force] LUN PATH "
			       "[format=raw]");
	lun = find_drive(sc, argv[1], err);
	if (!lun)
		return -ENOENT;
	ret = unlock(lun, force, err);
	if (ret == 0)
		ret = create_disc(lun, files, &disk, err);
	if (ret < 0)
		return ret;
	take_out(lun);
	put_in(lun, disk, opened_files_take(files, "w.medium"));
	json_add_uint(reply, "capacity", lun->nr_blocks * lun->block_bytes);
	publish_all(sc);
	return 0;
}

int ctl_eject(struct scsi_softc *sc, int argc, char *const argv[],
	      struct err *err)
{
	bool force = vdev_ctl_flag(&argc, &argv, "--force");
	struct scsi_lun *lun;
	int ret;

	if (argc != 2)
		return err_set(err, -EINVAL,
			       "scsi: usage: eject [--force] LUN");
	lun = find_drive(sc, argv[1], err);
	if (!lun)
		return -ENOENT;
	ret = unlock(lun, force, err);
	if (ret < 0)
		return ret;
	if (lun->disk)
		lun->media_event = MEDIA_REMOVAL;
	take_out(lun);
	lun->ejected = true;
	publish_all(sc);
	return 0;
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The SCSI host device (virtio 5.6) and its targets, in parts:
 *
 *	scsi.c       the virtio device: options, request queues, completion
 *	hotplug.c    `viodev ctl`: status, LUNs added and removed
 *	medium.c     `viodev ctl`: the disc of a CD-ROM drive
 *	tmf.c        control and event queue: task management, hot-plug
 *	pool.c       memory for commands
 *	offload.c    operations of a command on a thread
 *	limit.c      iops= and bps= of a LUN
 *	task.c       a LUN's task set: ordering, aborts, completion
 *	target.c     start of a command: unit attentions, dispatch; SPC commands
 *	cdb.c, sense.c   pure: parse commands, build sense data
 *	inquiry.c mode.c sbc.c provision.c mmc.c pr.c   commands
 *	lun.c        creation, size and removal of a LUN
 *	passthrough.c    a LUN on a device of the host, by SG_IO
 *	scsi_save.c  the state for another process
 *
 * Path of a command:
 *
 *	scsi_fetch()    a chain becomes a task
 *	task_submit()   it waits for its turn
 *	task_begin()    it is checked
 *	a handler       which may call task_disk(), and continues on completion
 *	task_finish()   into the used ring, shown once an iteration
 *
 * The only initiator is the guest's driver, so each target has one I_T nexus.
 * Threads: the loop's.
 */
#ifndef SCSI_SCSI_H
#define SCSI_SCSI_H

#include <assert.h>
#include <linux/virtio_scsi.h>

#include "back/disk/disk.h"
#include <viodev/iov.h>
#include "base/pool.h"
#include "base/ratelimit.h"
#include "base/slab.h"
#include "dev/scsi/codec.h"
#include "dev/scsi/cdb.h"
#include "dev/scsi/sense.h"
#include "dev/vdev.h"

#define SCSI_MAX_LUNS   64
#define SCSI_MAX_DISKS  80  /* also those taken out, until commands end */
#define SCSI_MAX_QUEUES 64  /* request queues */
#define SCSI_MAX_IOV    512 /* of a chain */
#define SCSI_SEG_MAX    254 /* data segments offered as seg_max */
#define SCSI_MAX_TARGET 255
#define SCSI_MAX_LUN    16383
#define SCSI_BLOCK_MAX  4096
#define SCSI_WORK_BYTES (64u << 10) /* of each of a LUN's two buffers */
#define SCSI_MAX_TASKS  2048        /* fetched at a time */
#define SCSI_FEW_IOV    16          /* in every task */
#define SCSI_MAX_WIDE   224         /* tasks at a time with SCSI_MAX_IOV */
#define SCSI_SERIAL_MAX 32

struct scsi_lun;
struct scsi_task;
struct scsi_softc;
struct passthrough;
struct scsi_offload;

/* An operation that a thread executes for a command. Returns its result. */
typedef int task_offload_fn(struct scsi_lun *lun, const struct scsi_task *t);

/* A step of a command: called when its disk request completes. */
typedef void task_step(struct scsi_task *t, int result);

/* A command. */
struct scsi_task {
	struct scsi_queue *q;
	struct scsi_task *prev, *next; /* in the task set */
	struct scsi_lun *lun;

	/* As submitted. */
	unsigned idx; /* of the chain */
	uint8_t addr[8];
	uint64_t id;
	uint64_t seq; /* order of arrival, over all queues */
	uint8_t attr;
	struct cdb cdb;
	struct vio_iov_cursor resp; /* response and sense */
	struct vio_iov_cursor data; /* data in or data out */
	uint64_t in_len, out_len;   /* one of them is 0 */

	/* In the task set. */
	bool active;
	bool fence; /* ordered or exclusive */
	bool aborted;
	uint8_t abort_response;

	/* Outcome. */
	uint8_t response; /* VIRTIO_SCSI_S_* */
	uint8_t status;
	struct scsi_sense sense;
	uint8_t raw_sense[VIRTIO_SCSI_SENSE_DEFAULT_SIZE]; /* passthrough's */
	uint8_t raw_sense_len;
	uint64_t transferred;

	/* While it runs. */
	struct disk_req req;
	struct iovec work_iov;
	task_step *step;
	task_offload_fn *offload_fn;
	int result;
	bool in_step, step_pending;
	uint64_t lba;                   /* of the next step */
	uint64_t left;                  /* blocks or descriptors */
	struct pool_job job;            /* of passthrough or offload.c */
	struct scsi_task *next_waiting; /* of passthrough, or for pr.c */

	/* The chain's buffers: iov[0] is room for split_writable(). */
	struct iovec *iov; /* few, or in wide */
	struct scsi_wide *wide;
	struct iovec few[1 + SCSI_FEW_IOV];
};

/* The buffers of a command that has more than SCSI_FEW_IOV. */
struct scsi_wide {
	struct iovec iov[1 + SCSI_MAX_IOV];
};

static_assert(SCSI_MAX_TASKS * sizeof(struct scsi_task) +
			      SCSI_MAX_WIDE * sizeof(struct scsi_wide) <=
		      4u << 20,
	      "no guest makes a device grow by more");

struct scsi_queue {
	struct scsi_softc *sc;
	struct vqueue_info *vq;
	struct vio_task iteration_end; /* shows what completed */
};

enum lun_kind { LUN_DISK, LUN_CDROM, LUN_PASSTHROUGH, LUN_ABSENT, LUN_WLUN };

/* Unit attentions, most important first; as in a saved state. */
enum {
	UA_POWER_ON = 1,
	UA_RESET = 2,
	UA_LUN_RESET = 4,
	UA_NEXUS_LOSS = 8,
	UA_LUNS_CHANGED = 16,
	UA_CAPACITY = 32,
	UA_MEDIUM = 64,
	UA_ALL = 127,
};

/* What GET EVENT STATUS NOTIFICATION reports once, MMC-6 6.6.2.6. */
enum media_event {
	MEDIA_NO_EVENT,
	MEDIA_EJECT_REQUEST,
	MEDIA_NEW,
	MEDIA_REMOVAL,
};

struct pr_state {
	uint32_t generation;
	bool registered;
	bool reserved;
	bool aptpl;
	uint8_t type; /* of the reservation */
	uint64_t key;
};

struct scsi_lun {
	struct scsi_softc *sc;
	enum lun_kind kind;
	uint8_t target;
	uint16_t lun;
	char name[16];        /* as in the options: "lun0", "t1.lun0" */
	bool present;         /* not removed */
	bool leaving;         /* removed, commands still in flight */
	struct vio_task left; /* they have completed */
	bool added;           /* by `viodev ctl`: destroyed on removal */

	/* Medium. */
	struct disk *disk; /* NULL: an empty drive, or passthrough */
	int map_fd;        /* the image, to query its allocation */
	enum disk_on_error on_read_error; /* of further media */
	bool ro;
	bool writethrough;
	bool thin;   /* unmaps */
	bool zeroes; /* unmapped blocks read as zeroes */
	bool rotational;
	bool sole; /* no other process uses it: write-locked */
	uint32_t block_bytes, phys_block_bytes;
	uint64_t nr_blocks;
	char serial[SCSI_SERIAL_MAX + 1];
	char vendor[8 + 1], product[16 + 1];
	uint64_t identity; /* of the image, see disk_identity() */
	uint64_t naa;
	struct passthrough *pt;
	struct ratelimit iops, bps;
	struct vio_source *limit_timer; /* NULL: no limits */

	/* State that commands change. */
	unsigned ua; /* UA_* pending */
	bool stopped, ejected, locked;
	enum media_event media_event;
	bool wce, swp, d_sense;        /* mode pages */
	bool reserved;                 /* by RESERVE */
	struct pr_state pr, pr_before; /* before the exclusive command */
	bool pr_waits; /* to be saved; until then pr_before applies */

	/* The task set, in the order in which they may run. */
	struct scsi_task *first, *last;
	unsigned nr_waiting, nr_fences;
	struct scsi_task *exclusive; /* the only command that may run */
	bool scheduling, reschedule;
	uint8_t *work, *work2; /* SCSI_WORK_BYTES each, of that command */

	/* Statistics. */
	uint64_t nr_reads, nr_writes, read_bytes, written_bytes, nr_errors;
	uint64_t nr_cmds, nr_aborts;
};

/* A task management function that waits for the tasks that it aborted. */
struct scsi_tmf {
	unsigned idx;
	bool busy;
	uint8_t subtype;
	uint8_t addr[8];
	uint64_t id;
	uint64_t seq; /* it affects tasks that arrived earlier */
	uint8_t *resp;
};

struct scsi_softc {
	struct virtio_softc sc_vs; /* first: callbacks get it as a void * */
	struct virtio_consts sc_consts;
	struct vdev sc_dev;
	struct vqueue_info sc_vqs[2 + SCSI_MAX_QUEUES];
	struct scsi_queue sc_queues[SCSI_MAX_QUEUES];
	/*
	 * Memory for commands, of all queues together: a guest that fills its
	 * queues has this many in flight; the rest waits in the queues.
	 */
	struct slab sc_tasks, sc_wides;
	bool sc_no_memory; /* a command had to wait for another to end */
	struct iovec sc_iov[SCSI_MAX_IOV]; /* of a chain just taken */
	unsigned sc_nr_queues;
	struct vio_loop *sc_loop;
	struct vdev_env sc_env;
	struct disk_io *sc_io;
	uint32_t sc_seg_max;
	uint8_t sc_sizes[8]; /* sense_size, cdb_size; as the driver wrote them
			      */

	struct scsi_lun *sc_luns[SCSI_MAX_LUNS]; /* by target and LUN */
	unsigned sc_nr_luns;
	struct scsi_lun sc_absent, sc_wlun;

	uint64_t sc_seq;
	struct scsi_tmf *sc_tmfs; /* one for each entry of the control queue: */
	unsigned sc_max_tmfs;     /* at most so many, a driver may want less */
	unsigned sc_nr_tmfs;      /* that wait */
	struct vio_task
		sc_more;    /* of the control queue; or the pool has more */
	bool sc_missed;     /* an event found no buffer */
	bool sc_taken_over; /* from another process, since the last reset */
	uint64_t sc_nr_events, sc_nr_missed;
	int sc_pr_fd; /* file of persistent registrations, or -1 */
	uint64_t sc_pr_seq;
	struct scsi_task *sc_pr_first, **sc_pr_end; /* to be saved, in order */
	struct scsi_offload *sc_offload;
};

/* scsi.c */
extern const struct vdev_type vdev_scsi; /* also in devices.h */
extern const struct opt_def scsi_lun_opts[];
/* End a command with its status. Call it last in a handler. */
void task_finish(struct scsi_task *t);
void scsi_publish(struct scsi_queue *q);
void scsi_fetch(struct scsi_queue *q);
void scsi_check_broken(struct scsi_softc *sc);

/*
 * offload.c: a thread calls @fn, then @step continues, even if the command has
 * been aborted meanwhile (task_finish_aborted()). Call it last in a step.
 */
int scsi_offload_create(struct vio_loop *loop,
			struct scsi_offload **ret_offload);
/* False: a thread is still busy, and its memory must stay. May be NULL. */
bool scsi_offload_destroy(struct scsi_offload *offload);
void task_offload(struct scsi_task *t, task_offload_fn *fn, task_step *step);

/* hotplug.c */
extern const struct vdev_ctl scsi_ctls[];
void scsi_status(struct vdev *dev, struct json_object *status);
int scsi_ctl(struct vdev *dev, int argc, char *const argv[],
	     struct opened_files *files, struct json_object *reply,
	     struct err *err);

/* medium.c: commands of `viodev ctl`. medium_open() needs privileges. */
int medium_open(int argc, char *const argv[], struct opened_files *files,
		struct err *err);
int ctl_medium(struct scsi_softc *sc, int argc, char *const argv[],
	       struct opened_files *files, struct json_object *reply,
	       struct err *err);
int ctl_eject(struct scsi_softc *sc, int argc, char *const argv[],
	      struct err *err);

/* tmf.c */
void scsi_control_notify(void *sc, struct vqueue_info *vq);
void scsi_event_notify(void *sc, struct vqueue_info *vq);
/*
 * The LUN's number in REPORT LUNS and events: peripheral addressing
 * below 256, the only form that Linux accepts in an event; flat above (SAM-5
 * 4.7).
 */
uint16_t scsi_lun_number(const struct scsi_lun *lun);

void scsi_event(struct scsi_softc *sc, const struct scsi_lun *lun,
		uint32_t event, uint32_t reason);
void scsi_tmfs_check(struct scsi_softc *sc);
void scsi_tmfs_forget(struct scsi_softc *sc);

/* limit.c: whether a command may begin, else the timer begins it; the price. */
int limit_init(struct scsi_lun *lun, uint64_t iops, uint64_t bps);
bool limit_allows(struct scsi_lun *lun);
void limit_charge(struct scsi_lun *lun, unsigned commands, uint64_t bytes);

/* task.c */
void task_submit(struct scsi_task *t);
void task_schedule(struct scsi_lun *lun); /* begin commands that may begin */
void task_leave(struct scsi_task *t);     /* the task set; others may start */
void task_abort(struct scsi_task *t, uint8_t response);
/*
 * Abort all tasks: waiting ones end at once, running ones when the host has
 * finished. Later tasks start after that.
 */
void tasks_forget(struct scsi_lun *lun, uint8_t response);
/* End an aborted task. False: it was not aborted. */
bool task_finish_aborted(struct scsi_task *t);
/* Whether the driver waits for it: not after a reset or on a broken device. */
bool task_live(const struct scsi_task *t);
/* Run @step now, and again after each of its task_disk() calls. */
void task_run(struct scsi_task *t, task_step *step);
/* Start t->req, then continue with @step. Call it last in a step. */
void task_disk(struct scsi_task *t, enum disk_op op, uint64_t lba,
	       uint64_t nr_blocks, task_step *step);
/* Replies; each ends the command. */
void task_good(struct scsi_task *t);
void task_check(struct scsi_task *t, uint32_t code);
void task_check_info(struct scsi_task *t, uint32_t code, uint64_t info);
void task_bad_cdb(struct scsi_task *t, unsigned byte, unsigned bit);
void task_bad_list(struct scsi_task *t, unsigned byte);
void task_status(struct scsi_task *t, uint8_t status);
void task_disk_failed(struct scsi_task *t, int result);
task_step task_disk_done; /* after the last step */
void task_reply(struct scsi_task *t, const struct reply *r);
/* Whether the command has this much room or data. Otherwise it has ended. */
bool task_has_in(struct scsi_task *t, uint64_t bytes);
bool task_has_out(struct scsi_task *t, uint64_t bytes);

/* target.c */
void task_begin(struct scsi_task *t);
struct scsi_lun *scsi_find(struct scsi_softc *sc, const uint8_t addr[8],
			   uint8_t *ret_response);
unsigned lun_kinds(const struct scsi_lun *lun);
uint32_t lun_take_ua(struct scsi_lun *lun);
uint32_t lun_not_ready(const struct scsi_lun *lun);
void lun_reset(struct scsi_lun *lun, unsigned ua);
void spc_request_sense(struct scsi_task *t);
void spc_report_luns(struct scsi_task *t);
void spc_report_opcodes(struct scsi_task *t);
void spc_report_tmfs(struct scsi_task *t);
void spc_start_stop(struct scsi_task *t);
void spc_prevent_removal(struct scsi_task *t);

/* The other commands. */
void spc_inquiry(struct scsi_task *t);
void spc_mode_sense(struct scsi_task *t);
void spc_mode_select(struct scsi_task *t);
void pr_in(struct scsi_task *t);
void pr_out(struct scsi_task *t);
void spc_reserve(struct scsi_task *t);
void spc_release(struct scsi_task *t);
void sbc_read(struct scsi_task *t);
void sbc_write(struct scsi_task *t);
void sbc_verify(struct scsi_task *t);
void sbc_write_verify(struct scsi_task *t);
void sbc_compare_write(struct scsi_task *t);
void sbc_sync_cache(struct scsi_task *t);
void sbc_seek(struct scsi_task *t);
void sbc_read_capacity10(struct scsi_task *t);
void sbc_read_capacity16(struct scsi_task *t);
void sbc_get_lba_status(struct scsi_task *t);
void sbc_write_same(struct scsi_task *t);
void sbc_unmap(struct scsi_task *t);
void sbc_format(struct scsi_task *t);
void mmc_read_toc(struct scsi_task *t);
void mmc_get_configuration(struct scsi_task *t);
void mmc_get_event_status(struct scsi_task *t);
void mmc_mechanism_status(struct scsi_task *t);
void mmc_read_disc_info(struct scsi_task *t);
void mmc_read_disc_structure(struct scsi_task *t);
void mmc_read_cd(struct scsi_task *t);

/* sbc.c */
bool sbc_in_range(struct scsi_task *t, uint64_t lba, uint64_t nr);

/* pr.c: persistent registrations. */
int pr_load(struct scsi_softc *sc);
int pr_keep(struct scsi_softc *sc); /* save the current ones */
bool pr_type_ok(uint8_t scope_type);

/* scsi_save.c: vc_save, vc_load. */
ssize_t scsi_save(void *sc, void *buf, size_t room);
int scsi_load(void *sc, const void *buf, size_t len);

/* lun.c */
bool scsi_is_stopping(struct scsi_softc *sc);    /* somebody waits for an end */
bool luns_pass_through(const struct opts *opts); /* whether any is a device */
int luns_open(const struct opts *opts, struct opened_files *files,
	      struct err *err);
int luns_create(struct scsi_softc *sc, const struct vdev_env *env,
		struct err *err);
/* False: commands are still in flight; their memory must stay. */
bool luns_destroy(struct scsi_softc *sc, bool ended);
struct scsi_lun *lun_by_name(struct scsi_softc *sc, const char *name);
bool lun_remove(struct scsi_lun *lun); /* false: once its commands have ended */
void lun_add(struct scsi_lun *lun);
void lun_warn(struct scsi_lun *lun); /* about an odd size */
void lun_hear(struct scsi_lun *lun); /* what happens to its disk */
/*
 * LUNs added at run time: @text has the command line's syntax,
 * "lun5=PATH,lun5.ro=on". luns_open_new() needs privileges, and
 * lun_create_new() creates the LUN to add from those files.
 */
int luns_open_new(const char *text, struct opened_files *files,
		  struct err *err);
int lun_create_new(struct scsi_softc *sc, const char *text,
		   struct opened_files *files, struct scsi_lun **ret_lun,
		   struct err *err);

/*
 * passthrough.c: commands of a LUN on a device of the host. pt_open() needs
 * privileges. Of one with @ro, commands that may change the medium or the
 * device are refused.
 */
int pt_open(const char *path, bool ro, struct err *err);
int pt_create(struct vio_loop *loop, int take_fd, bool ro,
	      struct passthrough **ret_pt);
/* False: a command is still in flight; its memory must stay. May be NULL. */
bool pt_destroy(struct passthrough *pt);
void pt_start(struct passthrough *pt, struct scsi_task *t);
/* Remove a command that has not started: false when it is too late. */
bool pt_cancel(struct passthrough *pt, struct scsi_task *t);
/* Commands started from now on wait for those in flight. */
void pt_hold(struct passthrough *pt);
/* For tests: replaces ioctl(fd, SG_IO, hdr). */
struct sg_io_hdr;
extern int (*pt_sg_io)(int fd, struct sg_io_hdr *hdr);

#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Complete devices: a virtio device model together with its backend and its
 * options, made from one line of text such as "block,path=disk.img,ro=on".
 *
 * A type is a const table, listed in devices.c. Creating a device has two
 * steps, because they happen in two processes: vdev_open() opens what needs the
 * user's rights, vdev_create() builds the device from the options and those
 * descriptors and may run inside a sandbox.
 */
#ifndef DEV_VDEV_H
#define DEV_VDEV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <viodev/device.h>
#include <viodev/loop.h>
#include <viodev/virtio.h>

#include "base/err.h"
#include "base/files.h"
#include "base/opts.h"
#include "base/rights.h"

struct json_object;

/* What a device reports to its embedder. */
enum vdev_event {
	VDEV_WAITING, /* requests failed and wait for the command resume */
};

/*
 * The ids of the process outside its user namespace, where it is root and no
 * other user exists.
 */
struct vdev_user {
	uint32_t uid, gid;
};

/* What a device is made from. Borrowed for the life of the device. */
struct vdev_env {
	struct pci_devinst *pi;
	struct vio_loop *loop;
	const struct opts *opts;
	struct opened_files *files;
	void (*event)(void *arg, enum vdev_event event); /* may be NULL */
	void *event_arg;
	/* Stable for this device, different for others. Or 0. */
	uint64_t identity;
	const struct vdev_user *user; /* NULL: it has no such namespace */
};

static inline void vdev_tell(const struct vdev_env *env, enum vdev_event event)
{
	if (env->event)
		env->event(env->event_arg, event);
}

/* A device. A type embeds it in its own struct. */
struct vdev {
	const struct vdev_type *type;
	struct virtio_softc *vs;
	uint64_t most_bytes; /* that the guest can make it use, besides rings */
	struct opts *own_opts;          /* from vdev_new() */
	struct opened_files *own_files; /* as well */
	struct vdev *next_abandoned;    /* see vt_fini */
};

/* A command of `viodev ctl`. */
struct vdev_ctl {
	const char *usage; /* "resize SIZE"; NULL ends a table */
	const char *help;
	/* Open what it names, with the caller's rights. May be NULL. */
	int (*open)(int argc, char *const argv[], struct opened_files *files,
		    struct err *err);
	/* Undo what open did outside of descriptors: the device refused the
	 * command. May be NULL. */
	void (*close)(int argc, char *const argv[],
		      const struct opened_files *files);
};

/* For a vdev_type: its own struct, and the struct vdev in it. */
#define VDEV_IN(type, member) \
	.vt_size = sizeof(type), .vt_offset = offsetof(type, member)

struct vdev_type {
	const char *vt_name;    /* "block" */
	const char *vt_alias;   /* bhyve's name for it: "virtio-blk" */
	const char *vt_summary; /* one line */
	/* What this build lacks for it; nothing else is set. NULL: nothing. */
	const char *vt_missing;
	uint16_t vt_legacy_id; /* transitional PCI device id */
	uint16_t vt_device_id; /* virtio device id */
	uint8_t vt_pci_class;
	bool vt_modern_only;
	bool vt_may_not_end; /* a request, while later ones do: not in order */
	uint16_t vt_queue_size;     /* default of queue-size= */
	uint16_t vt_max_queue_size; /* the most of it; 0: 32768 */
	const struct opt_def *vt_opts;
	const virtio_capstr_t
		*vt_features;           /* its own; NULL name ends; or NULL */
	const struct vdev_ctl *vt_ctls; /* beyond status; may be NULL */
	const int *vt_syscalls;         /* of it and its backend; -1 ends */
	const unsigned long *vt_ioctls; /* requests of these; 0 ends */

	/* Report what these options require. May be NULL. */
	void (*vt_rights)(const struct opts *opts,
			  struct sandbox_rights *rights);
	/* Open what needs privileges. May be NULL. */
	int (*vt_open)(const struct opts *opts, struct opened_files *files,
		       struct err *err);
	/*
	 * The device will be created again: open what was lost since, without
	 * waiting. 0; -EAGAIN: not yet. May be NULL.
	 */
	int (*vt_reopen)(const struct opts *opts, struct opened_files *files);
	/* Add the paths known only after opening, by option. May be NULL. */
	void (*vt_paths)(const struct opts *opts,
			 const struct opened_files *files,
			 struct json_object *paths);
	/* Undo what vt_open did outside of descriptors. May be NULL. */
	void (*vt_close)(const struct opts *opts,
			 const struct opened_files *files);
	size_t vt_size, vt_offset; /* of its own struct: VDEV_IN() */
	/* Build the device in its struct, which is all zeroes but for type. */
	int (*vt_init)(struct vdev *dev, const struct vdev_env *env,
		       struct err *err);
	/*
	 * Undo that, or a part of it that succeeded. False: the host still
	 * uses what the struct holds, so it must stay.
	 */
	bool (*vt_fini)(struct vdev *dev);
	/* Add the type's own figures. May be NULL. */
	void (*vt_status)(struct vdev *dev, struct json_object *status);
	/* Execute a command of vt_ctls, with the @files that its open made,
	 * which it may take; the answer goes into @reply. */
	int (*vt_ctl)(struct vdev *dev, int argc, char *const argv[],
		      struct opened_files *files, struct json_object *reply,
		      struct err *err);
};

/*
 * All types, NULL-terminated; one by name or alias. NULL with a reason, which
 * may be what this build lacks.
 */
extern const struct vdev_type *const vdev_types[];
const struct vdev_type *vdev_type_find(const char *name, struct err *err);

/* The keys and the features that every type has. */
extern const struct opt_def vdev_common_opts[];
extern const virtio_capstr_t vdev_common_features[];

/*
 * Parse a device's text. On success the caller frees *ret_opts with
 * opts_free().
 */
int vdev_parse(const char *text, const struct vdev_type **ret_type,
	       struct opts **ret_opts, struct err *err);

/* None, for a type without vt_rights. */
struct sandbox_rights vdev_rights(const struct vdev_type *type,
				  const struct opts *opts);

int vdev_open(const struct vdev_type *type, const struct opts *opts,
	      struct opened_files *files, struct err *err);
int vdev_reopen(const struct vdev_type *type, const struct opts *opts,
		struct opened_files *files);
/*
 * The paths known only after opening: {"console": "/dev/pts/3"} for a pseudo
 * terminal. The caller releases the object.
 */
struct json_object *vdev_paths(const struct vdev_type *type,
			       const struct opts *opts,
			       const struct opened_files *files);
void vdev_close(const struct vdev_type *type, const struct opts *opts,
		const struct opened_files *files);
int vdev_create(const struct vdev_type *type, const struct vdev_env *env,
		struct vdev **ret_dev, struct err *err);

/*
 * Its two halves, for types that are created in their own way: allocate one,
 * NULL without memory; and destroy one, even if only partly built.
 */
struct vdev *vdev_alloc(const struct vdev_type *type, struct err *err);
void vdev_free(struct vdev *dev);

/* Everything about the device for `ctl status`. */
void vdev_status(struct vdev *dev, struct json_object *status);

/*
 * Open what a `ctl` command of any type needs, for its caller. 0 with files, or
 * none; or -errno.
 */
int vdev_ctl_open(int argc, char *const argv[], struct opened_files *files,
		  struct err *err);
/* The device refused it. */
void vdev_ctl_close(int argc, char *const argv[],
		    const struct opened_files *files);

/*
 * Execute a `ctl` command: argv[0] is its name. -EINVAL for an unknown one.
 * @files may be from an untrusted client; files not taken stay there.
 */
int vdev_ctl(struct vdev *dev, int argc, char *const argv[],
	     struct opened_files *files, struct json_object *reply,
	     struct err *err);

/*
 * For vt_ctl: whether @flag, "--shrink", is the first or the last word after
 * the command's name. If so, it is skipped: argv[1] is the other word.
 */
bool vdev_ctl_flag(int *argc, char *const *argv[], const char *flag);

/*
 * For vt_init: the number of entries of the queues. The default is the type's,
 * or the embedder's (ph_queue_size) within the type's limits.
 */
unsigned vdev_queue_size(const struct vdev_type *type,
			 const struct vdev_env *env);

/*
 * For vt_init: put the device on its PCI function in the mode that the
 * options request. The queues get vdev_queue_size() where vq_qsize is 0.
 */
int vdev_attach(struct vdev *dev, const struct vdev_env *env,
		struct virtio_softc *vs, struct virtio_consts *vc,
		struct vqueue_info *queues, struct err *err);

#endif

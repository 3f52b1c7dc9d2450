/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What attaches devices to QEMU: its front-end for each, vfio-user-pci (10.1
 * and newer) or one of those for vhost-user, and guest memory that another
 * process can map.
 */
#ifndef VIODEV_QEMU_H
#define VIODEV_QEMU_H

#include <stdint.h>

#include "viodev/instance.h"

#define QEMU_MEMORY_ID      "viodev-mem"
#define QEMU_MACHINE        "memory-backend=" QEMU_MEMORY_ID
#define QEMU_DEFAULT_MEMORY (UINT64_C(1) << 30)

/*
 * The arguments that attach a device: a NULL-terminated array for
 * qemu_free_args(). NULL: out of memory.
 */
char **qemu_instance_args(const struct instance *inst,
			  enum vio_protocol transport);

/* The value of -object. The caller frees; NULL: out of memory. */
char *qemu_memory(uint64_t bytes);

/*
 * How much memory the guest of @args, a user's command line, is to have:
 * @wanted (--memory, 0 when not given), its -m, or the default. Both differing
 * are refused. 0 when it has shared memory of its own, which is left alone.
 */
int qemu_find_memory(char *const args[], uint64_t wanted, uint64_t *ret_bytes,
		     struct err *err);

/*
 * @args with the devices added, and @memory_bytes of memory unless that is 0.
 * A NULL-terminated array; the caller frees it by qemu_free_args().
 */
char **qemu_add_args(char *const args[], uint64_t memory_bytes,
		     const struct instance *instances, int nr_instances,
		     enum vio_protocol transport);
void qemu_free_args(char **args);

#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * viodev's own devices, ready made: those that `viodev serve` serves, for a
 * VMM that wants one inside its own process.
 *
 *	char why[200];
 *
 *	if (vdev_new("rng,rate=1M", pi, loop, &dev, why, sizeof(why)) < 0)
 *		...
 *	vdev_destroy(dev);
 *
 * @pi comes from pci_func_init() (<viodev/pci.h>) or vio_server_pci()
 * (<viodev/server.h>). A VMM forwards the guest's accesses to pci_cfg_read()
 * and its siblings, and runs the loop.
 *
 * `viodev devices` lists the types, `viodev devices TYPE` the options and
 * commands of one.
 *
 * Threads: all functions belong to the thread that runs the loop.
 */
#ifndef VIODEV_DEVICE_H
#define VIODEV_DEVICE_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

struct pci_devinst;
struct vdev;
struct vio_loop;

/*
 * Create a device from its text, TYPE[,key=value]... (the keys id and socket
 * have no effect). @pi and @loop must outlive the device. Returns 0, or -errno
 * with one line in @why, of @why_len bytes, that names option and reason.
 */
int vdev_new(const char *text, struct pci_devinst *pi, struct vio_loop *loop,
	     struct vdev **ret_dev, char *why, size_t why_len);

/*
 * Free the device. Requests in flight have half a second to end; what the
 * kernel still works on after that continues, and its memory stays allocated.
 * @dev may be NULL.
 */
void vdev_destroy(struct vdev *dev);

/*
 * Run a command of `viodev ctl`: argv[0] is "status" or one that `viodev
 * devices TYPE` lists, such as { "resize", "2G" }. Files that the command names
 * are opened by this process.
 *
 * Returns 0 and a JSON object as text in *ret_reply, which the caller frees
 * with free(). On failure -errno, and @why as for vdev_new().
 */
int vdev_command(struct vdev *dev, int argc, const char *const argv[],
		 char **ret_reply, char *why, size_t why_len);

#ifdef __cplusplus
}
#endif

#endif

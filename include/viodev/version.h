/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The version of viodev, and what a version promises.
 *
 * Versions are MAJOR.MINOR.PATCH. Until 1.0 any MINOR may change the interface;
 * the shared library then has another soname. From 1.0 on, a program that was
 * compiled against one version works with every later one of the same MAJOR.
 *
 * Stable, in this sense: every function, type, field, constant and macro of the
 * public headers, with the meaning that its comment gives.
 *
 * Not stable:
 *
 *   - what a comment calls private; the sizes of structs count as interface,
 *     because programs embed them;
 *   - the text of log lines and of error messages;
 *   - the bytes that vc_save() writes, and the keys in the JSON of
 *     vdev_command(): later versions may add some;
 *   - libviodev.a as seen by nm: only what the headers declare may be called.
 *
 * The names of bhyve's virtio.h (vi_*, vq_*, vs_*, vc_*, struct virtio_softc,
 * virtio_consts, vqueue_info and the four pci_* calls that it makes) keep name,
 * signature and meaning in every version.
 */
#ifndef VIODEV_VERSION_H
#define VIODEV_VERSION_H

#ifdef __cplusplus
extern "C" {
#endif

#define VIODEV_VERSION_MAJOR 0
#define VIODEV_VERSION_MINOR 1
#define VIODEV_VERSION_PATCH 0

/* For #if: VIODEV_VERSION >= VIODEV_VERSION_OF(0, 2, 0). */
#define VIODEV_VERSION_OF(major, minor, patch) \
	(1000000 * (major) + 1000 * (minor) + (patch))
#define VIODEV_VERSION                                                \
	VIODEV_VERSION_OF(VIODEV_VERSION_MAJOR, VIODEV_VERSION_MINOR, \
			  VIODEV_VERSION_PATCH)

/*
 * The version of the library that the program runs with, such as "0.1.0".
 * Static; from any thread.
 */
const char *vio_version(void);

#ifdef __cplusplus
}
#endif

#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A vfio-user server: shows one PCI function to a virtual machine monitor over
 * a UNIX socket (QEMU's vfio-user-pci, Cloud Hypervisor's --user-device).
 *
 *	struct vfuser *srv;
 *
 *	vfuser_create(loop, "rng0", &srv);
 *	my_device_init(sc, vfuser_pci(srv));	// vi_softc_linkup() and so on
 *	vfuser_listen(srv, fd);			// a listening socket
 *	vio_loop_run(loop);
 *	my_device_fini(sc);
 *	vfuser_destroy(srv);	// after the device: it no longer resets it
 *
 * The server is the embedder of the function: it owns its guest memory table,
 * fed by the client's DMA_MAP messages, and its interrupts, the client's event
 * descriptors. It serves one client at a time. When the client goes, the
 * function is reset, everything of the client's is forgotten, and the server
 * listens again.
 *
 * Nothing that a client sends may crash it: a bad message gets an error reply,
 * one that cannot be framed closes the connection. A client that truncates the
 * file of its memory is dropped; for that, vfuser_create() handles SIGBUS,
 * which the threads of a device must not block. Faults that are no client's go
 * to the handler that was there.
 *
 * Threads: the loop's. A device's own threads may give chains back and raise
 * interrupts while they hold vs_mtx; memory that the client did not share is
 * out of their reach. Errors: -errno.
 */
#ifndef VIODEV_VFIO_USER_H
#define VIODEV_VFIO_USER_H

#include <stdbool.h>
#include <stdint.h>

struct vio_loop;
struct pci_devinst;
struct vfuser;

/* @name goes in front of log lines; it is copied. */
int vfuser_create(struct vio_loop *loop, const char *name,
		  struct vfuser **ret_srv);
void vfuser_destroy(struct vfuser *srv); /* NULL is fine */

/* The function to build the device on, before vfuser_listen(). Borrowed. */
struct pci_devinst *vfuser_pci(struct vfuser *srv);

/*
 * Accept clients on @take_fd, a listening SOCK_STREAM UNIX socket that the
 * server owns from now on (when this succeeds). vfuser_listen_path() makes the
 * socket; a stale one at that path is replaced.
 */
int vfuser_listen(struct vfuser *srv, int take_fd);
int vfuser_listen_path(struct vfuser *srv, const char *path);

/* Called whenever a client has come (@attached) or gone. */
void vfuser_set_notify(struct vfuser *srv, void (*fn)(void *arg, bool attached),
		       void *arg);

/* Where log lines go (level as in <syslog.h>); standard error at first. */
void vfuser_set_log(struct vfuser *srv,
		    void (*fn)(void *arg, int level, const char *msg),
		    void *arg);

struct vfuser_stats {
	bool attached;
	uint64_t clients;      /* that have ever come */
	uint64_t messages;     /* received */
	uint64_t bad_messages; /* answered with an error */
	uint64_t dma_regions;  /* mapped or announced now */
	uint64_t dma_bytes;
	uint64_t interrupts; /* event descriptors written */
};
void vfuser_get_stats(const struct vfuser *srv, struct vfuser_stats *ret_stats);

/*
 * System calls that a server makes after vfuser_listen(), beside those of any
 * process that turns a loop; -1 ends. For a sandbox.
 */
extern const int vfuser_syscalls[];

#endif

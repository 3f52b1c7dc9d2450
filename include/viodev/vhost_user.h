/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A vhost-user server: the virtqueues and the configuration of one virtio
 * device for a front-end, over a UNIX socket (QEMU's vhost-user-*, DPDK's
 * virtio-user, libblkio, User Mode Linux).
 *
 *	struct vhuser *srv;
 *
 *	vhuser_create(loop, "disk0", &srv);
 *	my_device_init(sc, vhuser_pci(srv));	// vi_softc_linkup() and so on
 *	vhuser_listen(srv, fd);			// a listening socket
 *	vio_loop_run(loop);
 *	my_device_fini(sc);
 *	vhuser_destroy(srv);	// after the device: it no longer resets it
 *
 * The device is built as for any other server. The PCI function that it is
 * built on is seen by nobody: the front-end shows one of its own to the guest,
 * and registers, status and interrupts are its affair. The server drives the
 * queues underneath: their memory comes with messages, doorbells and
 * interrupts are event descriptors. A ring has as many entries as the front-end
 * likes, up to the vq_qsize that the device was made with.
 *
 * It serves one front-end at a time. When that disconnects, the device is reset
 * and the server listens again; requests in flight end in their own time, in
 * memory that stays mapped until then. A message that stops a ring, or removes
 * memory, is answered when the requests that it concerns have ended; the loop
 * does not wait for that.
 *
 * Nothing that a front-end sends may crash it: a bad message is answered with
 * an error where an answer was asked for, and else closes the connection.
 *
 * Front-ends may give pipes for event descriptors: SIGPIPE must be ignored.
 *
 * Threads: the loop's. Errors: -errno.
 */
#ifndef VIODEV_VHOST_USER_H
#define VIODEV_VHOST_USER_H

#include <stdbool.h>
#include <stdint.h>

struct vio_loop;
struct pci_devinst;
struct vhuser;

/* @name goes in front of log lines; it is copied. */
int vhuser_create(struct vio_loop *loop, const char *name,
		  struct vhuser **ret_srv);
void vhuser_destroy(struct vhuser *srv); /* NULL is fine */

/* The function to build the device on, before one of the following. Borrowed. */
struct pci_devinst *vhuser_pci(struct vhuser *srv);

/*
 * Serve front-ends that connect to @take_fd, a listening SOCK_STREAM UNIX
 * socket that the server owns from now on (when this succeeds).
 */
int vhuser_listen(struct vhuser *srv, int take_fd);

/*
 * In place of vhuser_listen(): serve the one front-end at the other end of
 * @take_fd, until it goes.
 */
int vhuser_attach(struct vhuser *srv, int take_fd);

/* Called whenever a front-end has come (@attached) or gone. */
void vhuser_set_notify(struct vhuser *srv, void (*fn)(void *arg, bool attached),
		       void *arg);

/* Where log lines go (level as in <syslog.h>); standard error at first. */
void vhuser_set_log(struct vhuser *srv,
		    void (*fn)(void *arg, int level, const char *msg),
		    void *arg);

struct vhuser_stats {
	bool attached;
	uint64_t clients;      /* that have ever come */
	uint64_t messages;     /* received */
	uint64_t bad_messages; /* refused */
	uint64_t mem_regions;  /* mapped now */
	uint64_t mem_bytes;
	uint64_t interrupts; /* event descriptors written */
};
void vhuser_get_stats(const struct vhuser *srv, struct vhuser_stats *ret_stats);

/*
 * System calls that a server makes after vhuser_listen(), beside those of any
 * process that turns a loop; -1 ends. For a sandbox.
 */
extern const int vhuser_syscalls[];

#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A server: one virtio device for a virtual machine monitor, over a UNIX
 * socket.
 *
 *	struct vio_server *srv;
 *
 *	vio_server_create(loop, VIO_VFIO_USER, "rng0", &srv);
 *	my_device_init(sc, vio_server_pci(srv)); // vi_softc_linkup() and so on
 *	vio_server_listen(srv, fd);              // a listening socket
 *	vio_loop_run(loop);
 *	my_device_fini(sc);
 *	vio_server_destroy(srv); // after the device
 *
 * There are two protocols. A device is built in the same way for both and does
 * not see which one serves it.
 *
 *	                 VIO_VFIO_USER           VIO_VHOST_USER
 *	the client gets  a whole PCI function    virtqueues and configuration
 *	clients          QEMU's vfio-user-pci;   QEMU's vhost-user-*, libblkio,
 *	                 untested: Cloud         DPDK's virtio-user, User Mode
 *	                 Hypervisor              Linux
 *	ring size        vq_qsize                the client's choice, up to
 *	                                         vq_qsize
 *	migration        -                       vc_save() and vc_load(),
 *	                                         dirty log
 *	restart          -                       in-flight area: a new process
 *	                                         resumes requests
 *
 * The server is the embedder of the PCI function (<viodev/pci.h>): it owns the
 * function, its guest memory table and its interrupts. Over vhost-user the
 * function stays invisible, because the client presents the device to the guest
 * and handles registers, status and interrupts itself.
 *
 * A server serves one client at a time; further ones wait in the kernel's
 * queue. When the client disconnects, the device is reset and the server
 * accepts the next one. Requests in flight end in their own time, in memory
 * that stays mapped until then.
 *
 * No client can crash the server. A bad message gets an error reply, or closes
 * the connection where the protocol has no error reply. A client that
 * truncates the file behind its memory is dropped: for that the server handles
 * SIGBUS, which no thread of the process may block. Faults outside client
 * memory reach the handler that was installed before. vhost-user clients may
 * pass pipes as event descriptors, so the process must ignore SIGPIPE.
 *
 * Threads: all functions belong to the thread that runs the loop. A device's
 * own threads may give chains back and raise interrupts while they hold vs_mtx.
 * Memory that a vfio-user client did not share is out of their reach.
 *
 * Errors: -errno. Ownership: a parameter named take_fd is closed by the server
 * later, on success only.
 */
#ifndef VIODEV_SERVER_H
#define VIODEV_SERVER_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct pci_devinst;
struct vio_loop;
struct vio_server;

enum vio_protocol {
	VIO_VFIO_USER,
	VIO_VHOST_USER,
};

/*
 * Create a server on @loop, which must outlive it. @name is copied; it begins
 * every log line. Returns 0, -ENOMEM, or the error of eventfd(2) or timers.
 */
int vio_server_create(struct vio_loop *loop, enum vio_protocol protocol,
		      const char *name, struct vio_server **ret_srv);

/*
 * Disconnect the client and free the server. The device is not reset, and must
 * have been destroyed before. NULL is allowed.
 */
void vio_server_destroy(struct vio_server *srv);

/*
 * The function to build the device on, before vio_server_listen() or
 * vio_server_attach(). It lives as long as the server.
 */
struct pci_devinst *vio_server_pci(struct vio_server *srv);

/*
 * Accept clients on @take_fd, a listening SOCK_STREAM UNIX socket. Returns 0;
 * -EINVAL when it does not listen; -ENODEV when vhost-user finds no device on
 * the function; -EBUSY when the server was started before.
 */
int vio_server_listen(struct vio_server *srv, int take_fd);

/*
 * Create the socket at @path and accept clients there. A stale socket at @path
 * is replaced, a live one is -EADDRINUSE, any other file -EEXIST.
 * vio_server_destroy() removes the socket.
 */
int vio_server_listen_path(struct vio_server *srv, const char *path);

/*
 * Instead of listening: serve the one client at the other end of @take_fd, a
 * connected SOCK_STREAM UNIX socket, until it disconnects. Errors as of
 * vio_server_listen().
 */
int vio_server_attach(struct vio_server *srv, int take_fd);

/*
 * Call @fn whenever a client has attached or detached. A vfio-user client is
 * attached once its version is accepted, a vhost-user client once it is
 * connected. @fn must not destroy the server.
 */
void vio_server_set_notify(struct vio_server *srv,
			   void (*fn)(void *arg, bool attached), void *arg);

/*
 * Send log lines to @fn instead of standard error. @level is one of
 * <syslog.h>; @msg has no newline. More than a burst of 32 lines and one a
 * second are dropped and counted.
 */
void vio_server_set_log(struct vio_server *srv,
			void (*fn)(void *arg, int level, const char *msg),
			void *arg);

struct vio_server_stats {
	bool attached;
	uint64_t clients;      /* that ever attached */
	uint64_t messages;     /* received */
	uint64_t bad_messages; /* rejected */
	uint64_t mem_regions;  /* of guest memory, mapped or announced */
	uint64_t mem_bytes;
	uint64_t interrupts; /* event descriptors written */
};
void vio_server_get_stats(const struct vio_server *srv,
			  struct vio_server_stats *ret_stats);

/*
 * System calls that the server makes once it is started, in addition to those
 * of a process that runs a loop; -1 ends the list. For a seccomp filter.
 */
const int *vio_server_syscalls(const struct vio_server *srv);

#ifdef __cplusplus
}
#endif

#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Network backends: the source and sink of a network device's frames.
 *
 *	tap	an interface of the host; checksums and segmentation for free
 *	af-xdp	queues of an interface, past the host's network stack
 *	user	libslirp: a private network behind a translating gateway
 *	stream	a stream socket, each frame behind its length (32 bit, be)
 *	dgram	a datagram socket, one frame each
 *	fd	an open tap, stream or datagram socket
 *	null	nowhere and from nowhere
 *	echo	back to the driver that sent them
 *
 * A backend has one or more channels, one for each queue pair. Frames are
 * pulled: the device watches a channel while it has room for frames, is
 * notified of frames and calls recv until none is left. So frames without room
 * wait where they are, and the sender notices.
 *
 * In every iovec list that passes here, entry 0 is a struct virtio_net_hdr in
 * the host's byte order, and the frame follows. Backends whose features have
 * no CSUM neither look at it nor fill it.
 *
 * Creation has two steps: open needs privileges, create does not and may run in
 * a sandbox. Threads: the loop's.
 */
#ifndef BACK_NET_BE_H
#define BACK_NET_BE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include <viodev/loop.h>

#include "base/err.h"
#include "base/files.h"
#include "base/opts.h"
#include "base/rights.h"

/* The longest frame: 64 KiB of IP, an Ethernet header and two VLAN tags. */
#define NET_MAX_FRAME (65535u + 14 + 8)

/* The most entries that a list of buffers may have: the kernel's limit. */
#define NET_MAX_IOV 1024

#define NET_MAX_CHANNELS 16

/* The MTU without mtu=. The minimum is the specification's (5.1.4.1). */
#define NET_DEFAULT_MTU 1500u
#define NET_MIN_MTU     68u

struct json_object;
struct net_be;

/* Callbacks to the device. Only link may run inside its own calls. */
struct net_be_client {
	void (*readable)(void *arg, unsigned channel);
	/* After a send returned -EAGAIN: try again. */
	void (*writable)(void *arg, unsigned channel);
	/* A peer connected or disconnected, and what follows; a text. */
	void (*link)(void *arg, bool up, const char *why);
};

typedef void net_be_stat_fn(void *arg, const char *name, uint64_t val);

struct net_be_ops {
	const char *name;

	/*
	 * Receive one frame. Returns its length; 0 when one was dropped for
	 * being longer than the room; -EAGAIN when none is available;
	 * -ENOTCONN when no more will arrive; other -errno when the host
	 * failed, which may be temporary.
	 */
	ssize_t (*recv)(struct net_be *be, unsigned channel,
			const struct iovec *iov, int niov);

	/*
	 * Send one frame, of at most NET_MAX_FRAME bytes. Returns 0; -EAGAIN
	 * when it must wait, and client->writable follows; other -errno when
	 * this frame is lost. The list may be modified.
	 */
	int (*send)(struct net_be *be, unsigned channel, struct iovec *iov,
		    int niov);

	/* Start or stop calling client->readable while frames wait. */
	void (*watch)(struct net_be *be, unsigned channel, bool on);

	/* Distribute received frames to this many channels. NULL: only one. */
	int (*set_channels)(struct net_be *be, unsigned nr);

	/*
	 * The driver accepts frames with these VIRTIO_NET_F_GUEST_ offloads, a
	 * subset of features. NULL without such features.
	 */
	int (*set_offloads)(struct net_be *be, uint64_t offloads);

	/* Call @add with each counter. NULL: none. */
	void (*stats)(const struct net_be *be, net_be_stat_fn *add, void *arg);

	/*
	 * Execute a control command of this backend; the answer goes into
	 * @reply. NULL: none.
	 */
	int (*ctl)(struct net_be *be, int argc, char *const argv[],
		   struct json_object *reply, struct err *err);

	void (*destroy)(struct net_be *be);
};

/* The first member of a backend's own struct. */
struct net_be {
	const struct net_be_ops *ops;
	unsigned nr_channels;
	bool down;           /* no peer yet */
	uint64_t features;   /* that it supports: masks of VIRTIO_NET_F_ */
	uint64_t most_bytes; /* that a guest can make it use; 0: few */
	bool has_mac;        /* the only address that it receives for: */
	uint8_t mac[6];
	const struct net_be_client *client; /* set by net_be_attach() */
	void *client_arg;
};

/*
 * The backend that the options name. net_be_open() adds the descriptors to
 * @files, net_be_create() takes them from there.
 */
int net_be_open(const struct opts *opts, struct opened_files *files,
		struct err *err);
int net_be_create(const struct opts *opts, struct opened_files *files,
		  struct vio_loop *loop, struct net_be **ret_be,
		  struct err *err);

/* For another net_be_create() with @files, as vdev_reopen(). 0 or -EAGAIN. */
int net_be_reopen(const struct opts *opts, struct opened_files *files);
void net_be_destroy(struct net_be *be); /* may be NULL */

/* Remove the sockets that open made, in its process, before @files close. */
void net_be_close(const struct opts *opts, const struct opened_files *files);

/* Set the callbacks. Before any other call. */
void net_be_attach(struct net_be *be, const struct net_be_client *client,
		   void *arg);

/* clang-format off */
/* The keys of all backends, for a table of options. */
#define NET_BE_OPTS                                                        \
	{ "backend", OPT_CHOICE,                                           \
	  .choices = "tap|af-xdp|user|stream|dgram|fd|null|echo",                  \
	  .required = true,                                                \
	  .help = "where frames are sent and received" },                    \
	{ "ifname", OPT_STRING,                                            \
	  .help = "tap: a tap, made if missing, or macvtap; default: a new " \
		  "tap; af-xdp: an interface" },                          \
	{ "start-queue", OPT_NUMBER, "0", .max = 4095,                     \
	  .help = "af-xdp: the interface's queue of the first queue pair" }, \
	{ "xdp-mode", OPT_CHOICE, .choices = "native|skb",                 \
	  .help = "af-xdp: where the XDP program runs: the interface's "   \
		  "driver or the network stack; default: native if the "   \
		  "driver supports it, otherwise skb" },                                                 \
	{ "force-copy", OPT_BOOL, "off",                                   \
	  .help = "af-xdp: do not let the driver use the socket's memory" }, \
	{ "hostfwd", OPT_STRING,                                           \
	  .help = "user: tcp|udp:[ADDR]:PORT-[GUEST]:PORT, joined by +" }, \
	{ "net", OPT_STRING,                                               \
	  .help = "user: ADDR/LEN; default: 10.0.2.0/24+fec0::/64" },      \
	{ "ipv4", OPT_BOOL, "on", .help = "user: have IPv4" },             \
	{ "ipv6", OPT_BOOL, "on", .help = "user: have IPv6" },             \
	{ "dns", OPT_STRING,                                               \
	  .help = "user: name server for the guest; default: the host's" }, \
	{ "search", OPT_STRING,                                            \
	  .help = "user: DNS search domains, joined by +" },               \
	{ "restrict", OPT_BOOL, "off",                                     \
	  .help = "user: isolate the guest, except for hostfwd=, tftp=" }, \
	{ "tftp", OPT_STRING,                                              \
	  .help = "user: directory that the gateway's TFTP server reads" }, \
	{ "bootfile", OPT_STRING,                                          \
	  .help = "user: boot file (name or URL) that DHCP announces" },   \
	{ "connections", OPT_NUMBER, .def = "1024", .min = 16, .max = 2048, \
	  .help = "user: the guest's limit; each may take 256 KiB" },   \
	{ "path", OPT_STRING, .help = "stream: a UNIX socket" },           \
	{ "addr", OPT_STRING, .help = "stream: a TCP socket, HOST:PORT" }, \
	{ "listen", OPT_BOOL, "off",                                       \
	  .help = "stream: listen for the peer" },           \
	{ "reconnect", OPT_NUMBER, .def = "1", .max = 3600,                \
	  .help = "stream, dgram: seconds between attempts to connect "    \
		  "again; 0: never" },                                     \
	{ "local", OPT_STRING, .help = "dgram: the local UNIX socket" },         \
	{ "remote", OPT_STRING, .help = "dgram: the peer's UNIX socket" },  \
	{ "fd", OPT_STRING,                                                \
	  .help = "fd: an open tap, stream or datagram socket; queues of " \
		  "a tap: 3:4:5" },                                        \
	{ "mtu", OPT_NUMBER, .min = NET_MIN_MTU, .max = 65535,             \
	  .help = "MTU offered to the guest; default: none, so 1500" },    \
	{ "queues", OPT_NUMBER, .def = "1", .min = 1, .max = 16,           \
	  .help = "queue pairs; several with tap, af-xdp, null, echo only" }
/* clang-format on */

#define NET_BE_USER_KEYS                                                       \
	"hostfwd", "net", "ipv4", "ipv6", "dns", "search", "restrict", "tftp", \
		"bootfile", "connections"

/* Queue pairs: queues=, or as many as fd= has descriptors. */
unsigned net_be_nr_queues(const struct opts *opts);

/* For vt_rights: what the backend needs in a sandbox. */
void net_be_rights(const struct opts *opts, struct sandbox_rights *rights);

/*
 * --- For backends ---
 */

struct net_be_kind {
	const char *name;
	const char *const *keys; /* its own options; NULL ends */
	bool multi;              /* has several channels */
	bool network;            /* as in sandbox_rights */
	const char *tree;    /* key and opened file of a directory to read */
	const int *syscalls; /* once it is created; -1 ends; may be NULL */
	const unsigned long *ioctls; /* 0 ends; may be NULL */
	int (*open)(const struct opts *opts, struct opened_files *files,
		    struct err *err); /* may be NULL */
	/*
	 * Whether the interface of the queues in @files was deleted, and the
	 * name of the opener that opens the next one. May be NULL.
	 */
	bool (*is_gone)(const struct opened_files *files);
	const char *opener;
	int (*create)(const struct opts *opts, struct opened_files *files,
		      struct vio_loop *loop, struct net_be **ret_be,
		      struct err *err);
};
extern const struct net_be_kind net_kind_tap, net_kind_af_xdp, net_kind_user,
	net_kind_stream, net_kind_dgram, net_kind_fd, net_kind_null,
	net_kind_echo;

/*
 * Create a backend from descriptors, of which it takes ownership on success. A
 * stream socket may be a listening one. With @take_again_fd, of an opener
 * (opener.h), the backend requests a new descriptor when it loses its own; -1:
 * it does not.
 */
int net_tap_create(struct vio_loop *loop, const int *take_fds, unsigned nr,
		   int take_again_fd, struct net_be **ret_be);
/* Notice a deleted interface at once, by the link_monitor in @files. */
void net_tap_monitor(struct net_be *be, struct opened_files *files);
int net_stream_create(struct vio_loop *loop, int take_fd, int take_again_fd,
		      struct net_be **ret_be);
int net_dgram_create(struct vio_loop *loop, int take_fd,
		     struct net_be **ret_be);

/* Descriptors of the queues of one backend, in the order of its channels. */
int net_add_queues(struct opened_files *files, const int *take_fds,
		   unsigned nr);
void net_take_queues(struct opened_files *files, int *ret_fds, unsigned nr);

/* Make a backend's descriptor non-blocking and close-on-exec. */
int net_fd_prepare(int fd);

/*
 * A descriptor and the events that it is watched for. After net_port_watch(),
 * @cb is called with the wanted events, and with EPOLLHUP and EPOLLERR while
 * any event is wanted. Nothing is changed that is already so.
 */
struct net_port {
	struct vio_loop *loop;
	int fd;
	uint32_t events;
	struct vio_source *source;
	vio_fd_cb *cb;
	void *arg;
};
void net_port_watch(struct net_port *port, uint32_t event, bool on);
void net_port_close(struct net_port *port);

/* Copy the first @len bytes of a list. Returns the number of entries. */
int net_iov_head(struct iovec *to, const struct iovec *iov, int niov,
		 size_t len);

#endif

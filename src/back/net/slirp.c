/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * libslirp: a private network of the guest, 10.0.2.0/24 and fec0::/64, with a
 * gateway (.2) that turns its connections into sockets of this process, a name
 * server (.3) and DHCP (the guest is .15). user_net.h allows another network.
 *
 * libslirp must be asked before each wait for the sockets that it waits for, and
 * told afterwards which are ready. All are in an epoll of our own, which the
 * loop sees as one source:
 *
 *	refresh:   slirp_pollfds_fill() -> what changed goes to the epoll
 *	iteration: the epoll or the timer -> poll() -> slirp_pollfds_poll()
 *
 * A fill precedes each poll.
 *
 * These calls deliver frames for the guest whether it has room or not. The frames
 * wait in a ring; while it is half full, sockets are not polled, so that their
 * senders slow down.
 *
 * libslirp is part of the guest's attack surface, and versions in use have bugs
 * that a frame can trigger. It never gets a fragment (reass.h) or TCP that it
 * cannot handle (tcp_guard.h), it need not resolve addresses (neigh.h), and its
 * number of sockets is limited.
 */
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <poll.h>
#include <slirp/libslirp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "back/net/inet.h"
#include "back/net/neigh.h"
#include "back/net/net_be.h"
#include "back/net/reass.h"
#include "back/net/tcp_guard.h"
#include "back/net/user_fwd.h"
#include "back/net/user_net.h"
#include "base/util.h"
#include <viodev/iov.h>

#define MAX_FDS          4096   /* more than the sandbox lets it open */
#define MAX_MTU          65521u /* libslirp's own limit */
#define NR_SLOTS         512u
#define NS_PER_MS        UINT64_C(1000000)
#define CONNECTION_BYTES UINT64_C(262144) /* its buffers */
#define MAX_RESETS       16 /* to make room for one; many have gone already */
#define TFTP_PORT        69
#define TFTP_READ        1
#define TFTP_NAME        512 /* libslirp's own limit */
#define IDLE_MS          1000 /* the wait libslirp asks for when it has no need to */

struct slot {
	uint32_t len;
	uint8_t frame[];
};

/* A descriptor in the epoll, indexed by its number. */
struct seen {
	uint32_t events; /* 0: not in the epoll */
	uint32_t round;  /* the last refresh that wanted it */
	bool registered; /* by libslirp, which omits listening ones */
};

struct user {
	struct net_be be;
	struct vio_loop *loop;
	Slirp *slirp;
	struct user_net net;
	struct user_fwd fwd;
	int tftp_fd; /* O_PATH of the directory, or -1 */
	int epoll_fd;
	struct vio_source *source; /* the epoll */
	struct vio_source *timer;
	uint64_t due_ns;         /* when the timer fires; 0: never */
	struct vio_task refresh; /* after an iteration with changes */
	struct vio_task more;    /* frames are in the ring */
	bool watched;

	struct pollfd polls[MAX_FDS];
	int nr_polls;
	struct seen seen[MAX_FDS];
	uint32_t round;

	unsigned head, tail; /* of the ring, free-running */
	size_t slot_bytes;   /* for a frame, in each of the slots */
	uint8_t *slots;
	uint8_t in_buf[NET_MAX_FRAME]; /* a frame of the guest, in one piece */
	struct reass reass;
	struct tcp_guard tcp;
	struct neigh neigh;
	unsigned nr_sockets, max_sockets;
	uint64_t nr_refused; /* frames that needed another socket */
};

static struct user *user_of(struct net_be *be)
{
	return (struct user *)be;
}

static struct slot *slot_of(const struct user *u, unsigned i)
{
	size_t size = sizeof(struct slot) + u->slot_bytes;

	return (struct slot *)(void *)(u->slots + i % NR_SLOTS * size);
}

static void refresh_later(struct user *u)
{
	vio_task_defer(u->loop, &u->refresh);
}

/*
 * --- What libslirp calls ---
 */

static ssize_t cb_send_packet(const void *buf, size_t len, void *opaque)
{
	struct user *u = opaque;
	struct slot *slot = slot_of(u, u->tail);

	tcp_guard_to_guest(&u->tcp, buf, len);
	/* Lost, as on a wire. */
	if (u->tail - u->head == NR_SLOTS || len > u->slot_bytes)
		return (ssize_t)len;
	memcpy(slot->frame, buf, len);
	slot->len = (uint32_t)len;
	u->tail++;
	if (u->watched)
		vio_task_defer(u->loop, &u->more);
	return (ssize_t)len;
}

/* A guest's errors must not fill our log. */
static void cb_guest_error(const char *msg, void *opaque)
{
}

static int64_t cb_clock_get_ns(void *opaque)
{
	return (int64_t)vio_now_ns();
}

/* libslirp has one timer, for router advertisements. */
static void *cb_timer_new(SlirpTimerCb cb, void *cb_opaque, void *opaque)
{
	struct user *u = opaque;
	struct vio_source *timer;

	return vio_timer_add(u->loop, cb, cb_opaque, &timer) == 0 ? timer :
								    NULL;
}

static void cb_timer_free(void *timer, void *opaque)
{
	vio_source_remove(timer);
}

static void cb_timer_mod(void *timer, int64_t expire_ms, void *opaque)
{
	int64_t ns = expire_ms * (int64_t)NS_PER_MS - cb_clock_get_ns(opaque);

	if (timer)
		vio_timer_set(timer, ns > 0 ? (uint64_t)ns : 1);
}

static void cb_register_fd(int fd, void *opaque)
{
	struct user *u = opaque;

	if (fd >= 0 && fd < MAX_FDS) { /* others are not polled */
		u->seen[fd].registered = true;
		u->nr_sockets++;
	}
	refresh_later(u);
}

/* Another socket may get its number. */
static void cb_unregister_fd(int fd, void *opaque)
{
	struct user *u = opaque;

	if (fd < 0 || fd >= MAX_FDS) /* it was not created */
		return;
	u->nr_sockets -= u->seen[fd].registered;
	u->seen[fd].registered = false;
	if (u->seen[fd].events) {
		epoll_ctl(u->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
		u->seen[fd].events = 0;
	}
	refresh_later(u);
}

static void cb_notify(void *opaque)
{
	refresh_later(opaque);
}

static const SlirpCb slirp_cb = {
	.send_packet = cb_send_packet,
	.guest_error = cb_guest_error,
	.clock_get_ns = cb_clock_get_ns,
	.timer_new = cb_timer_new,
	.timer_free = cb_timer_free,
	.timer_mod = cb_timer_mod,
	.register_poll_fd = cb_register_fd,
	.unregister_poll_fd = cb_unregister_fd,
	.notify = cb_notify,
};

/*
 * libslirp logs through glib. A guest can make it log, so messages are only
 * counted: glib's own handler would look for a terminal, which kills a jailed
 * process, and fill the log.
 */
static uint64_t nr_messages; /* glib has one handler per process */

static void on_glib_message(const char *domain, int level, const char *text,
			    void *arg)
{
	nr_messages++;
}

/* glib's headers would be a dependency for this one call. */
static void take_glib_messages(void)
{
	typedef void handler_fn(const char *, int, const char *, void *);
	typedef handler_fn *set_fn(handler_fn *, void *);
	set_fn *set =
		(set_fn *)dlsym(RTLD_DEFAULT, "g_log_set_default_handler");

	if (set)
		set(on_glib_message, NULL);
}

/*
 * --- Waiting for its sockets ---
 */

/* SLIRP_POLL_ bits to the system's, and back. */
static const struct {
	int slirp;
	short poll;
	uint32_t epoll;
} bits[] = {
	{ SLIRP_POLL_IN, POLLIN, EPOLLIN },
	{ SLIRP_POLL_OUT, POLLOUT, EPOLLOUT },
	{ SLIRP_POLL_PRI, POLLPRI, EPOLLPRI },
	{ SLIRP_POLL_ERR, POLLERR, EPOLLERR },
	{ SLIRP_POLL_HUP, POLLHUP, EPOLLHUP },
};

#define NR_BITS ARRAY_LEN(bits)

static void watch_fd(struct user *u, int fd, uint32_t events)
{
	struct epoll_event ev = { .events = events, .data.fd = fd };
	struct seen *seen = &u->seen[fd];
	int op = seen->events ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;

	seen->round = u->round;
	if (seen->events == events)
		return;
	if (epoll_ctl(u->epoll_fd, op, fd, &ev) == 0)
		seen->events = events;
}

static bool is_full(const struct user *u)
{
	return u->tail - u->head >= NR_SLOTS / 2;
}

/*
 * A connection to a hostfwd= port waits while the number of sockets is at its
 * limit.
 */
static bool must_wait(const struct user *u, int fd)
{
	int listening = 0;
	socklen_t len = sizeof(listening);

	return u->nr_sockets >= u->max_sockets && !u->seen[fd].registered &&
	       getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len) ==
		       0 &&
	       listening;
}

/* -1: the socket is not polled. */
static int add_poll(int fd, int events, void *opaque)
{
	struct user *u = opaque;
	struct pollfd *p = &u->polls[u->nr_polls];
	uint32_t epoll = 0;

	if (fd < 0 || fd >= MAX_FDS || u->nr_polls == MAX_FDS || is_full(u) ||
	    must_wait(u, fd))
		return -1;
	*p = (struct pollfd){ .fd = fd };
	for (unsigned i = 0; i < NR_BITS; i++) {
		if (events & bits[i].slirp) {
			p->events = (short)(p->events | bits[i].poll);
			epoll |= bits[i].epoll;
		}
	}
	watch_fd(u, fd, epoll);
	return u->nr_polls++;
}

static int get_revents(int idx, void *opaque)
{
	struct user *u = opaque;
	int events = 0;

	if (idx < 0 || idx >= u->nr_polls)
		return 0;
	for (unsigned i = 0; i < NR_BITS; i++) {
		if (u->polls[idx].revents & bits[i].poll)
			events |= bits[i].slirp;
	}
	return events;
}

/*
 * libslirp's own timers run when they are due, however often it is asked
 * meanwhile: a guest that keeps sending must not postpone them.
 */
static void set_due(struct user *u, uint32_t timeout_ms)
{
	uint64_t now_ns = vio_now_ns();
	uint64_t due_ns = now_ns + (timeout_ms + 1) * NS_PER_MS;

	if (timeout_ms >= IDLE_MS)
		due_ns = 0;
	else if (u->due_ns && u->due_ns < due_ns)
		return;
	u->due_ns = due_ns;
	vio_timer_set(u->timer, due_ns ? due_ns - now_ns : 0);
}

/* Remove from the epoll what was not wanted this time. */
static void forget_others(struct user *u, const int *old, int nr_old)
{
	for (int i = 0; i < nr_old; i++) {
		struct seen *seen = &u->seen[old[i]];

		if (!seen->events || seen->round == u->round)
			continue;
		epoll_ctl(u->epoll_fd, EPOLL_CTL_DEL, old[i], NULL);
		seen->events = 0;
	}
}

/*
 * Ask what to wait for: always for the timeout, for sockets only while the guest
 * has room.
 */
static void refresh(void *arg)
{
	struct user *u = arg;
	uint32_t timeout_ms = UINT32_MAX;
	int nr_old = u->nr_polls;
	int old[MAX_FDS];

	for (int i = 0; i < nr_old; i++)
		old[i] = u->polls[i].fd;
	u->nr_polls = 0;
	u->round++;
	slirp_pollfds_fill(u->slirp, &timeout_ms, add_poll, u);
	forget_others(u, old, nr_old);
	set_due(u, timeout_ms);
}

/*
 * libslirp assumes that the events it asked for are those it needs now, so each
 * fill serves one poll. If its timer and a socket are due in the same iteration,
 * a second poll would mistake a socket that has just connected for one with data
 * to write, find none and shut it down. Frames of the guest also change what
 * libslirp needs.
 */
static void run_slirp(struct user *u)
{
	int ret;

	if (u->refresh.queued) {
		vio_task_cancel(u->loop, &u->refresh);
		refresh(u);
	}
	ret = poll(u->polls, (nfds_t)u->nr_polls, 0);
	slirp_pollfds_poll(u->slirp, ret < 0, get_revents, u);
	/* Descriptors that it polled may be closed now. */
	refresh_later(u);
}

static void on_timer(void *arg)
{
	struct user *u = arg;

	u->due_ns = 0;
	run_slirp(u);
}

static void on_sockets(void *arg, uint32_t events)
{
	run_slirp(arg);
}

/*
 * --- The backend ---
 */

static ssize_t user_recv(struct net_be *be, unsigned channel,
			 const struct iovec *iov, int niov)
{
	struct user *u = user_of(be);
	struct slot *slot = slot_of(u, u->head);
	size_t put = 0;

	if (u->head == u->tail)
		return -EAGAIN;
	for (int i = 1; i < niov && put < slot->len; i++) {
		size_t n = slot->len - put;

		if (n > iov[i].iov_len)
			n = iov[i].iov_len;
		memcpy(iov[i].iov_base, slot->frame + put, n);
		put += n;
	}
	if (is_full(u)) /* and after this frame perhaps not */
		refresh_later(u);
	u->head++;
	return put == slot->len ? (ssize_t)put : 0;
}

/* As a router at its limit: reset the connection that was idle longest. */
static bool make_room(struct user *u)
{
	uint8_t reset[TCP_GUARD_RESET_BYTES];
	size_t len;

	for (int i = 0; i < MAX_RESETS && u->nr_sockets >= u->max_sockets;
	     i++) {
		len = tcp_guard_reset_oldest(&u->tcp, reset);
		if (len)
			slirp_input(u->slirp, reset, (int)len);
	}
	return u->nr_sockets < u->max_sockets;
}

/*
 * Whether libslirp may create a socket, if this frame needs one. Datagrams may
 * exceed the limit by half, so that DNS still works.
 */
static bool may_pass(struct user *u, const uint8_t *frame, size_t len)
{
	if (u->nr_sockets < u->max_sockets)
		return true;
	if (tcp_guard_is_syn(frame, len))
		return make_room(u);
	return u->nr_sockets < u->max_sockets + u->max_sockets / 2 ||
	       tcp_guard_is_tcp(frame, len);
}

static void input(struct user *u, uint8_t *frame, size_t len)
{
	uint8_t announcement[NEIGH_BYTES];
	size_t n = neigh_announce(&u->neigh, frame, len, announcement);

	if (n)
		slirp_input(u->slirp, announcement, (int)n);
	if (may_pass(u, frame, len))
		slirp_input(u->slirp, frame, (int)len);
	else
		u->nr_refused++;
}

/*
 * The file that a frame requests from the gateway's TFTP server (RFC 1350),
 * without leading slashes. False: it is no request.
 */
static bool tftp_file(const uint8_t *frame, size_t len, char name[TFTP_NAME])
{
	uint16_t type = inet_read16(frame + 12);
	size_t udp = ETH_BYTES +
		     (type == ETH_IP6 ? IP6_BYTES : (frame[14] & 15) * 4u);

	if (type == ETH_ARP || len < udp + 10 ||
	    frame[type == ETH_IP6 ? 20 : 23] != IPPROTO_UDP ||
	    inet_read16(frame + udp + 2) != TFTP_PORT ||
	    inet_read16(frame + udp + 8) != TFTP_READ)
		return false;
	for (udp += 10; udp < len && frame[udp] == '/';)
		udp++;
	snprintf(name, TFTP_NAME, "%.*s", (int)(len - udp),
		 (const char *)frame + udp);
	return true;
}

/* libslirp would block on a FIFO. */
static bool may_block(const struct user *u, const uint8_t *frame, size_t len)
{
	char name[TFTP_NAME];
	struct stat st;

	return u->tftp_fd >= 0 && tftp_file(frame, len, name) &&
	       fstatat(u->tftp_fd, name, &st, 0) == 0 && !S_ISREG(st.st_mode);
}

/* libslirp also speaks NC-SI, to management controllers: excluded. */
static bool is_spoken(const uint8_t *frame, size_t len)
{
	uint16_t type = len >= ETH_BYTES ? inet_read16(frame + 12) : 0;

	return type == ETH_ARP || type == ETH_IP4 || type == ETH_IP6;
}

static int user_send(struct net_be *be, unsigned channel, struct iovec *iov,
		     int niov)
{
	struct user *u = user_of(be);
	struct vio_iov_cursor frame = { iov + 1, niov - 1 };
	size_t len = vio_iov_take(&frame, u->in_buf, sizeof(u->in_buf));
	uint8_t *whole = u->in_buf;

	if (!is_spoken(whole, len))
		return 0;
	if (reass_is_fragment(whole, len))
		len = reass_add(&u->reass, whole, len, vio_now_ns(), &whole);
	if (len)
		len = tcp_guard_from_guest(&u->tcp, whole, len);
	if (len && !may_block(u, whole, len))
		input(u, whole, len);
	refresh_later(u);
	return 0;
}

static void user_watch(struct net_be *be, unsigned channel, bool on)
{
	struct user *u = user_of(be);

	u->watched = on;
	if (on && u->head != u->tail)
		vio_task_defer(u->loop, &u->more);
}

static void user_run(void *arg)
{
	struct user *u = arg;

	if (u->watched)
		u->be.client->readable(u->be.client_arg, 0);
	if (u->watched && u->head != u->tail)
		vio_task_defer(u->loop, &u->more);
}

static void user_stats(const struct net_be *be, net_be_stat_fn *add, void *arg)
{
	const struct user *u = (const struct user *)be;
	const struct reass *reass = &u->reass;

	add(arg, "fragments", reass->nr_fragments);
	add(arg, "reassembled", reass->nr_datagrams);
	add(arg, "not-reassembled", reass->nr_dropped);
	add(arg, "tcp-early", u->tcp.nr_early);
	add(arg, "tcp-urgent", u->tcp.nr_urgent);
	add(arg, "tcp-bad", u->tcp.nr_bad);
	add(arg, "sockets", u->nr_sockets);
	add(arg, "refused", u->nr_refused);
	add(arg, "messages", nr_messages);
}

static int user_ctl(struct net_be *be, int argc, char *const argv[],
		    struct json_object *reply, struct err *err)
{
	struct user *u = user_of(be);
	int ret = user_fwd_ctl(&u->fwd, argc, argv, reply, err);

	refresh_later(u); /* the listening sockets changed */
	return ret;
}

static void user_destroy(struct net_be *be)
{
	struct user *u = user_of(be);

	if (u->slirp)
		slirp_cleanup(u->slirp);
	vio_task_cancel(u->loop, &u->refresh);
	vio_task_cancel(u->loop, &u->more);
	vio_source_remove(u->source);
	vio_source_remove(u->timer);
	if (u->epoll_fd >= 0)
		close(u->epoll_fd);
	if (u->tftp_fd >= 0)
		close(u->tftp_fd);
	user_fwd_fini(&u->fwd);
	user_net_fini(&u->net);
	free(u->slots);
	free(u);
}

static const struct net_be_ops user_ops = {
	.name = "user",
	.recv = user_recv,
	.send = user_send,
	.watch = user_watch,
	.stats = user_stats,
	.ctl = user_ctl,
	.destroy = user_destroy,
};

/*
 * --- Making it ---
 */

static bool is_older_than_4_8(void)
{
	int major = 0, minor = 0;

	sscanf(slirp_version_string(), "%d.%d", &major, &minor);
	return major < 4 || (major == 4 && minor < 8);
}

/* A frame and libslirp's overhead, aligned for the next one. */
static int make_slots(struct user *u, unsigned mtu)
{
	u->slot_bytes = (mtu + 14 + 64 + 3u) & ~3u;
	u->slots = calloc(NR_SLOTS, sizeof(struct slot) + u->slot_bytes);
	u->be.most_bytes += NR_SLOTS * u->slot_bytes;
	return u->slots ? 0 : -ENOMEM;
}

/* The same MTU in both directions: the guest drops longer segments. */
static unsigned mtu_of(const struct opts *opts)
{
	unsigned mtu = (unsigned)opt_number(opts, "mtu");

	if (!mtu)
		mtu = NET_DEFAULT_MTU;
	return mtu < MAX_MTU ? mtu : MAX_MTU;
}

/*
 * libslirp opens files by name: below the opened directory, wherever that is in
 * the sandbox.
 */
static int find_tftp(const struct user *u, char *path, size_t room)
{
	if (u->tftp_fd < 0)
		return 0;
	snprintf(path, room, "/proc/self/fd/%d", u->tftp_fd);
	return access(path, X_OK) < 0 ? -errno : 0;
}

static int start_slirp(struct user *u, unsigned mtu, const char *tftp)
{
	const struct user_net *net = &u->net;
	SlirpConfig cfg = {
		.version = 3,
		.restricted = net->restricted,
		.in_enabled = net->ipv4,
		.vnetwork = net->net,
		.vnetmask = net->mask,
		.vhost = net->gateway,
		.vnameserver = net->dns,
		.vdhcp_start = net->dhcp,
		.in6_enabled = net->ipv6,
		.vprefix_addr6 = net->net6,
		.vprefix_len = 64,
		.vhost6 = net->gateway6,
		.vnameserver6 = net->dns6,
		.vdnssearch =
			net->search[0] ? (const char **)net->search : NULL,
		.vhostname = "guest",
		.tftp_path = tftp,
		.bootfile = net->bootfile,
		.if_mtu = mtu,
		.if_mru = mtu,
	};

	u->tcp.fragile = is_older_than_4_8();
	take_glib_messages();
	u->slirp = slirp_new(&cfg, &slirp_cb, u);
	u->fwd.slirp = u->slirp;
	u->fwd.net = net;
	return u->slirp ? 0 : -ENOMEM;
}

static int start(struct user *u, const struct opts *opts, struct err *err)
{
	const char *forwards = opt_string(opts, "hostfwd");
	char path[32];
	int ret = user_net_init(&u->net, opts, err);

	if (ret < 0)
		return ret;
	ret = find_tftp(u, path, sizeof(path));
	if (ret < 0)
		return err_set(err, ret,
			       "net: tftp=%s: %s (in a sandbox without a mount "
			       "namespace: --sandbox=off)",
			       opt_string(opts, "tftp"), strerror(-ret));
	ret = start_slirp(u, mtu_of(opts), u->tftp_fd < 0 ? NULL : path);
	if (ret < 0)
		return err_set(err, ret, "net: backend=user: %s",
			       strerror(-ret));
	return forwards ? user_fwd_add_all(&u->fwd, forwards, err) : 0;
}

/* Leave descriptors for the front-end. */
static unsigned most_sockets(const struct opts *opts)
{
	unsigned nr = (unsigned)opt_number(opts, "connections");
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur / 2 < nr)
		nr = (unsigned)limit.rlim_cur / 2;
	return nr;
}

/* Check the options at the start, where the user sees errors. */
static int user_open(const struct opts *opts, struct opened_files *files,
		     struct err *err)
{
	const char *tftp = opt_string(opts, "tftp");
	struct user_net net;
	int ret = user_net_init(&net, opts, err), fd;

	if (ret < 0)
		return ret;
	user_net_fini(&net);
	if (!tftp)
		return 0;
	fd = open(tftp, O_PATH | O_DIRECTORY | O_CLOEXEC);
	ret = fd < 0 ? -errno : opened_files_add(files, "tftp", fd);
	if (fd >= 0 && ret < 0)
		close(fd);
	if (ret < 0)
		err_set(err, ret, "net: tftp=%s: %s", tftp, strerror(-ret));
	return ret;
}

static int user_create(const struct opts *opts, struct opened_files *files,
		       struct vio_loop *loop, struct net_be **ret_be,
		       struct err *err)
{
	struct user *u = calloc(1, sizeof(*u));
	int ret;

	if (!u)
		return err_set(err, -ENOMEM, "net: out of memory");
	u->be.ops = &user_ops;
	u->be.nr_channels = 1;
	u->loop = loop;
	u->refresh = (struct vio_task){ .fn = refresh, .arg = u };
	u->more = (struct vio_task){ .fn = user_run, .arg = u };
	u->tftp_fd = opened_files_take(files, "tftp");
	u->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	u->max_sockets = most_sockets(opts);
	u->be.most_bytes = sizeof(*u) + u->max_sockets * CONNECTION_BYTES;
	ret = u->epoll_fd < 0 ? -errno : 0;
	if (ret == 0)
		ret = vio_fd_add(u->loop, u->epoll_fd, EPOLLIN, on_sockets, u,
				 &u->source);
	if (ret == 0)
		ret = vio_timer_add(u->loop, on_timer, u, &u->timer);
	if (ret == 0)
		ret = make_slots(u, mtu_of(opts));
	if (ret < 0)
		err_set(err, ret, "net: backend=user: %s", strerror(-ret));
	else
		ret = start(u, opts, err);
	if (ret < 0) {
		user_destroy(&u->be);
		return ret;
	}
	refresh_later(u);
	*ret_be = &u->be;
	return 0;
}

static const char *const user_keys[] = { NET_BE_USER_KEYS, NULL };

#ifndef SYS_accept /* on s390x it is accept4() */
#define SYS_accept SYS_accept4
#endif
#ifndef SYS_newfstatat /* 32-bit */
#define SYS_newfstatat SYS_fstatat64
#endif

static const int user_syscalls[] = {
	SYS_socket,
	SYS_connect,
	SYS_bind,
	SYS_listen,
	SYS_accept,
	SYS_accept4,
	SYS_shutdown,
	SYS_setsockopt,
	SYS_getsockopt,
	SYS_getsockname,
	SYS_getpeername,
	SYS_recvmsg,
	SYS_sendmsg,
	SYS_recvfrom,
	SYS_sendto,
	/* the addresses of name servers */
	SYS_newfstatat,
	SYS_openat,
	SYS_lseek,
	-1,
};
static const unsigned long user_ioctls[] = {
	FIONREAD,
	SIOCGIFINDEX, /* a name server's zone, as in fe80::1%eth0 */
	0,
};

const struct net_be_kind net_kind_user = {
	.name = "user",
	.keys = user_keys,
	.network = true,
	.tree = "tftp",
	.syscalls = user_syscalls,
	.ioctls = user_ioctls,
	.open = user_open,
	.create = user_create,
};

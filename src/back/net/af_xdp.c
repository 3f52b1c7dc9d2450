/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * AF_XDP sockets on queues of a host interface. Frames bypass the host's network
 * stack: one copy between the guest's memory and the memory that the socket
 * shares with the interface's driver.
 *
 * The interface distributes what it receives over its queues, however many the
 * driver uses: queue i belongs to channel i modulo their number.
 */
#include <errno.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "back/net/link_monitor.h"
#include "back/net/xdp.h"
#include "base/util.h"

/* Until the kernel is asked again to send; twice as long each time. */
#define RETRY_MIN_NS UINT64_C(200000)
#define RETRY_MAX_NS UINT64_C(50000000)

struct af_xdp;

struct channel {
	struct af_xdp *xdp;
	struct xdp_queue queue;
	struct net_port port;
	struct vio_task flush;
	bool watched;  /* as a channel, with all its queues */
	bool blocked;  /* a send returned -EAGAIN */
	unsigned turn; /* as a channel: the queue to receive from next */
};

enum state { UP, DOWN, GONE };

struct af_xdp {
	struct net_be be;
	struct vio_loop *loop;
	enum state state;
	unsigned active; /* channels in use */
	int link_fd;     /* keeps the program attached */
	uint8_t *memory; /* NULL: nothing is open */
	struct xdp_mmap_offsets offsets;
	struct link_monitor monitor;
	struct reopener *reopener;
	struct vio_task look;
	struct vio_source *retry; /* to send */
	bool retrying;
	uint64_t retry_ns;
	char ifname[IFNAMSIZ];
	struct channel channels[]; /* be.nr_channels */
};

static struct af_xdp *xdp_of(struct net_be *be)
{
	return (struct af_xdp *)be;
}

static size_t memory_len(const struct af_xdp *xdp)
{
	return (size_t)xdp->be.nr_channels * XDP_QUEUE_BYTES;
}

/* The channel that a queue belongs to. */
static unsigned channel_of(const struct channel *ch)
{
	return (unsigned)(ch - ch->xdp->channels) % ch->xdp->active;
}

/*
 * --- Frames ---
 */

/* A queue that is never empty does not keep the channel's others waiting. */
static unsigned next_queue(const struct af_xdp *xdp, unsigned channel)
{
	unsigned next = xdp->channels[channel].turn + xdp->active;

	return next < xdp->be.nr_channels ? next : channel;
}

static ssize_t af_xdp_recv(struct net_be *be, unsigned channel,
			   const struct iovec *iov, int niov)
{
	struct af_xdp *xdp = xdp_of(be);
	unsigned *turn = &xdp->channels[channel].turn;
	ssize_t len = -EAGAIN;

	if (!xdp->memory)
		return -EAGAIN;
	for (unsigned i = channel; len == -EAGAIN && i < be->nr_channels;
	     i += xdp->active) {
		len = xdp_queue_recv(&xdp->channels[*turn].queue, iov + 1,
				     niov - 1);
		*turn = next_queue(xdp, channel);
	}
	return len;
}

/* Without free frames the socket is writable still: a timer has to do. */
static void retry_soon(struct af_xdp *xdp)
{
	if (xdp->retrying)
		return;
	xdp->retrying = true;
	vio_timer_set(xdp->retry, xdp->retry_ns);
	if (xdp->retry_ns < RETRY_MAX_NS)
		xdp->retry_ns *= 2;
}

static int af_xdp_send(struct net_be *be, unsigned channel, struct iovec *iov,
		       int niov)
{
	struct af_xdp *xdp = xdp_of(be);
	struct channel *ch = &xdp->channels[channel];
	int ret;

	if (xdp->state != UP || !xdp->memory)
		return -ENETDOWN;
	ret = xdp_queue_send(&ch->queue, iov + 1, niov - 1);
	if (ret == -EAGAIN) {
		ch->blocked = true;
		retry_soon(xdp);
	}
	if (ret == 0)
		xdp->retry_ns = RETRY_MIN_NS;
	if (ret == 0 || ret == -EAGAIN)
		vio_task_defer(xdp->loop, &ch->flush);
	return ret;
}

/* Once an iteration: one system call for all frames. */
static void flush(void *arg)
{
	struct channel *ch = arg;
	int ret = xdp_queue_flush(&ch->queue);

	if (ret == -EAGAIN)
		retry_soon(ch->xdp);
	else if (ret < 0)
		vio_task_defer(ch->xdp->loop, &ch->xdp->look);
}

static void unblock(struct channel *ch)
{
	struct net_be *be = &ch->xdp->be;

	if (!ch->blocked)
		return;
	ch->blocked = false;
	be->client->writable(be->client_arg,
			     (unsigned)(ch - ch->xdp->channels));
}

static void on_retry(void *arg)
{
	struct af_xdp *xdp = arg;

	xdp->retrying = false;
	for (unsigned i = 0; i < xdp->be.nr_channels; i++) {
		if (xdp->memory)
			flush(&xdp->channels[i]);
		unblock(&xdp->channels[i]);
	}
}

static void on_readable(void *arg, uint32_t events)
{
	struct channel *ch = arg;
	struct net_be *be = &ch->xdp->be;

	be->client->readable(be->client_arg, channel_of(ch));
}

static void watch_queues(struct af_xdp *xdp)
{
	for (unsigned i = 0; xdp->memory && i < xdp->be.nr_channels; i++) {
		struct channel *ch = &xdp->channels[i];
		bool on = xdp->channels[channel_of(ch)].watched;

		net_port_watch(&ch->port, EPOLLIN, on);
	}
}

static void af_xdp_watch(struct net_be *be, unsigned channel, bool on)
{
	struct af_xdp *xdp = xdp_of(be);

	if (xdp->channels[channel].watched == on)
		return;
	xdp->channels[channel].watched = on;
	watch_queues(xdp);
}

static int af_xdp_set_channels(struct net_be *be, unsigned nr)
{
	struct af_xdp *xdp = xdp_of(be);

	xdp->active = nr;
	for (unsigned i = 0; i < be->nr_channels; i++)
		xdp->channels[i].turn = i;
	watch_queues(xdp);
	return 0;
}

/*
 * --- The interface ---
 */

static void close_channel(struct channel *ch)
{
	vio_task_cancel(ch->xdp->loop, &ch->flush);
	net_port_watch(&ch->port, EPOLLIN, false);
	net_port_close(&ch->port);
	xdp_queue_unmap(&ch->queue);
}

static void close_all(struct af_xdp *xdp)
{
	for (unsigned i = 0; i < xdp->be.nr_channels; i++)
		close_channel(&xdp->channels[i]);
	if (xdp->memory)
		munmap(xdp->memory, memory_len(xdp));
	xdp->memory = NULL;
	if (xdp->link_fd >= 0)
		close(xdp->link_fd);
	xdp->link_fd = -1;
}

static int map_queues(struct af_xdp *xdp)
{
	for (unsigned i = 0; i < xdp->be.nr_channels; i++) {
		struct channel *ch = &xdp->channels[i];
		int ret = xdp_queue_map(&ch->queue, ch->port.fd, &xdp->offsets);

		if (ret < 0)
			return ret;
		ch->queue.frames = xdp->memory + (size_t)i * XDP_QUEUE_BYTES;
		xdp_queue_resume(&ch->queue);
	}
	return 0;
}

static void close_fds(const int *fds, unsigned nr)
{
	for (unsigned i = 0; i < nr; i++) {
		if (fds[i] >= 0)
			close(fds[i]);
	}
}

/* Takes ownership of the descriptors, even on failure. */
static int use_sockets(struct af_xdp *xdp, const int *take_fds)
{
	unsigned nr = xdp->be.nr_channels;
	int memory_fd = take_fds[nr + XDP_MEMORY];
	void *memory = mmap(NULL, memory_len(xdp), PROT_READ | PROT_WRITE,
			    MAP_SHARED, memory_fd, 0);
	int ret = memory == MAP_FAILED ? -errno : 0;

	for (unsigned i = 0; i < nr; i++)
		xdp->channels[i].port.fd = take_fds[i];
	xdp->link_fd = take_fds[nr + XDP_PROGRAM];
	close(memory_fd);
	if (ret == 0) {
		xdp->memory = memory;
		ret = map_queues(xdp);
	}
	if (ret < 0)
		close_all(xdp);
	return ret;
}

static void set_state(struct af_xdp *xdp, enum state state, const char *why)
{
	struct net_be *be = &xdp->be;

	if (xdp->state == state)
		return;
	xdp->state = state;
	be->client->link(be->client_arg, state == UP, why);
	/* Frames that waited are sent now, or lost. */
	for (unsigned i = 0; i < be->nr_channels; i++)
		unblock(&xdp->channels[i]);
}

/* A driver may stall on a frame that is longer than its interface allows. */
static void follow_mtu(struct af_xdp *xdp)
{
	struct ifreq ifr = { 0 };
	size_t longest = XDP_FRAME_BYTES;

	strcpy(ifr.ifr_name, xdp->ifname);
	if (ioctl(xdp->monitor.port.fd, SIOCGIFMTU, &ifr) < 0)
		return;
	if (ifr.ifr_mtu < (int)(XDP_FRAME_BYTES - XDP_MAX_HEADER))
		longest = (unsigned)ifr.ifr_mtu + XDP_MAX_HEADER;
	for (unsigned i = 0; i < xdp->be.nr_channels; i++)
		xdp->channels[i].queue.longest = longest;
}

static void flush_all(struct af_xdp *xdp)
{
	for (unsigned i = 0; i < xdp->be.nr_channels; i++)
		vio_task_defer(xdp->loop, &xdp->channels[i].flush);
}

/* A kick tells the interface's state. */
static void look(void *arg)
{
	struct af_xdp *xdp = arg;
	int ret;

	if (xdp->state == GONE)
		return;
	ret = xdp->memory ? xdp_queue_kick(&xdp->channels[0].queue) : -ENXIO;
	if (ret == -ENXIO) {
		close_all(xdp);
		set_state(xdp, GONE,
			  "interface deleted: waiting for its return");
		reopener_request(xdp->reopener);
	} else if (ret == -ENETDOWN) {
		set_state(xdp, DOWN, "interface is down");
	} else {
		follow_mtu(xdp);
		if (xdp->state == DOWN) /* what its queues still hold */
			flush_all(xdp);
		set_state(xdp, UP, "interface is up");
	}
}

static void on_reopened(void *arg, const int *take_fds, unsigned nr)
{
	struct af_xdp *xdp = arg;

	if (xdp->state != GONE || nr != xdp->be.nr_channels + XDP_NR_OTHERS) {
		close_fds(take_fds, nr); /* not from our own opener */
	} else if (use_sockets(xdp, take_fds) < 0) {
		reopener_request(xdp->reopener);
	} else {
		follow_mtu(xdp);
		set_state(xdp, UP, "interface is back");
		watch_queues(xdp);
		vio_task_defer(xdp->loop, &xdp->look);
	}
}

static void af_xdp_destroy(struct net_be *be)
{
	struct af_xdp *xdp = xdp_of(be);

	vio_task_cancel(xdp->loop, &xdp->look);
	vio_source_remove(xdp->retry);
	close_all(xdp);
	reopener_destroy(xdp->reopener);
	link_monitor_close(&xdp->monitor);
	free(xdp);
}

static const struct net_be_ops af_xdp_ops = {
	.name = "af-xdp",
	.recv = af_xdp_recv,
	.send = af_xdp_send,
	.watch = af_xdp_watch,
	.set_channels = af_xdp_set_channels,
	.destroy = af_xdp_destroy,
};

/*
 * --- Making it ---
 */

/* The monitor is a socket of the interface's network namespace. */
static void find_mac(struct af_xdp *xdp)
{
	struct ifreq ifr = { 0 };

	strcpy(ifr.ifr_name, xdp->ifname);
	if (ioctl(xdp->monitor.port.fd, SIOCGIFHWADDR, &ifr) < 0)
		return;
	memcpy(xdp->be.mac, ifr.ifr_hwaddr.sa_data, 6);
	xdp->be.has_mac = true;
}

static struct af_xdp *allocate(struct vio_loop *loop, unsigned nr)
{
	struct af_xdp *xdp =
		calloc(1, sizeof(*xdp) + nr * sizeof(xdp->channels[0]));

	if (!xdp)
		return NULL;
	xdp->be.ops = &af_xdp_ops;
	xdp->be.nr_channels = nr;
	xdp->loop = loop;
	xdp->active = nr;
	xdp->link_fd = -1;
	xdp->retry_ns = RETRY_MIN_NS;
	xdp->look = (struct vio_task){ .fn = look, .arg = xdp };
	for (unsigned i = 0; i < nr; i++) {
		struct channel *ch = &xdp->channels[i];

		ch->xdp = xdp;
		ch->turn = i;
		ch->flush = (struct vio_task){ .fn = flush, .arg = ch };
		ch->port = (struct net_port){
			.loop = loop, .fd = -1, .cb = on_readable, .arg = ch
		};
	}
	return xdp;
}

static int take_opener(struct af_xdp *xdp, struct opened_files *files)
{
	int fd = opened_files_take(files, XDP_OPENER);
	int ret = reopener_create(xdp->loop, fd, on_reopened, xdp,
				  &xdp->reopener);

	if (ret < 0)
		close(fd);
	return ret;
}

static int take_files(struct af_xdp *xdp, struct opened_files *files)
{
	int fds[XDP_MAX_FDS], ret;

	link_monitor_take(&xdp->monitor, files);
	net_take_queues(files, fds, xdp->be.nr_channels + XDP_NR_OTHERS);
	ret = xdp_offsets(fds[0], &xdp->offsets);
	if (ret == 0)
		ret = vio_timer_add(xdp->loop, on_retry, xdp, &xdp->retry);
	if (ret < 0) {
		close_fds(fds, xdp->be.nr_channels + XDP_NR_OTHERS);
		return ret;
	}
	ret = use_sockets(xdp, fds);
	/* The interface of a dead process was deleted: look() has it reopened. */
	if (ret == -EBUSY)
		ret = 0;
	return ret < 0 ? ret : take_opener(xdp, files);
}

static int af_xdp_create(const struct opts *opts, struct opened_files *files,
			 struct vio_loop *loop, struct net_be **ret_be,
			 struct err *err)
{
	struct af_xdp *xdp =
		allocate(loop, (unsigned)opt_number(opts, "queues"));
	int ret = xdp ? take_files(xdp, files) : -ENOMEM;

	if (ret < 0) {
		if (xdp)
			af_xdp_destroy(&xdp->be);
		return err_set(err, ret, "net: backend=af-xdp: %s",
			       strerror(-ret));
	}
	strcpy(xdp->ifname, opt_string(opts, "ifname"));
	find_mac(xdp);
	follow_mtu(xdp);
	link_monitor_start(&xdp->monitor, loop, look, xdp);
	vio_task_defer(loop, &xdp->look);
	*ret_be = &xdp->be;
	return 0;
}

static const int af_xdp_syscalls[] = { REOPENER_SYSCALLS, -1 };
static const unsigned long af_xdp_ioctls[] = { SIOCGIFMTU, 0 };

static const char *const af_xdp_keys[] = { "ifname", "start-queue", "xdp-mode",
					   "force-copy", NULL };

const struct net_be_kind net_kind_af_xdp = {
	.name = "af-xdp",
	.keys = af_xdp_keys,
	.multi = true,
	.syscalls = af_xdp_syscalls,
	.ioctls = af_xdp_ioctls,
	.open = xdp_open,
	.is_gone = xdp_is_gone,
	.opener = XDP_OPENER,
	.create = af_xdp_create,
};

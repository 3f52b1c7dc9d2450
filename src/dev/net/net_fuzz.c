/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzz target: a driver that puts anything into the rings of a network device,
 * and a network that sends anything: a mock, or the real backends. libslirp
 * gets frames that look like frames, and its own network namespace.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "back/net/inet.h"
#include "base/util.h"
#include "dev/net/hdr.h"
#include "dev/net/net.h"
#include "net_gen.h"
#include "net_mock.h"
#include "fuzz_dev.h"

extern const struct vdev_type vdev_net;

#define RXQ      0
#define TXQ      1
#define NR_RX    8u
#define RX_BYTES 2048u
#define RX_OFF   (32u << 10) /* of the area: receive buffers */
#define TX_OFF   (48u << 10) /* of the area: a frame to send */
#define TX_HEAD  15
#define NR_CONNS 4

enum kind {
	MOCK_RSS,
	MOCK,
	MOCK_LEGACY,
	USER,
	STREAM,
	DGRAM,
	ECHO,
	NR_KINDS,
};

static struct fuzz_dev kinds[NR_KINDS];
static struct net_mock *mocks[NR_KINDS];
static bool has_network;
static struct net_gen gen;
static int tcp_fd = -1, udp_fd = -1;

/* The test's end of the network. */
static int peers[NR_CONNS];
static size_t nr_received; /* bytes of TCP */

/*
 * --- Creation ---
 */

static void make_mock(enum kind kind, enum vdrv_mode mode, const char *text,
		      unsigned channels)
{
	const struct opt_def *const tables[] = { vdev_net.vt_opts,
						 vdev_common_opts, NULL };
	struct fuzz_dev *v = &kinds[kind];
	struct opened_files files = { 0 };
	struct vdev_env env = { &v->d.pi, fuzz_loop(), NULL, &files };
	struct opts *opts;
	struct err err;

	fuzz_dev_init(v, mode);
	fuzz_must(opts_parse(text, tables, &opts, &err) == 0);
	env.opts = opts;
	mocks[kind] = net_mock_create(channels, true);
	fuzz_must(net_create_on(&env, &mocks[kind]->be, &v->dev, &err) == 0);
	opts_free(opts);
}

/* Nothing that the guest sends may leave this process. */
static bool leave_network(void)
{
	struct ifreq ifr = { .ifr_name = "lo", .ifr_flags = IFF_UP };
	bool ok;
	int fd;

	if (unshare(CLONE_NEWNET) < 0 &&
	    unshare(CLONE_NEWUSER | CLONE_NEWNET) < 0)
		return false;
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	ok = ioctl(fd, SIOCSIFFLAGS, &ifr) == 0;
	close(fd);
	return ok;
}

static int on_loopback(int type, uint16_t *ret_port)
{
	struct sockaddr_in sin = { .sin_family = AF_INET };
	socklen_t len = sizeof(sin);
	int fd = socket(AF_INET, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	sin.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	fuzz_must(bind(fd, (struct sockaddr *)&sin, sizeof(sin)) == 0);
	fuzz_must(type != SOCK_STREAM || listen(fd, NR_CONNS) == 0);
	getsockname(fd, (struct sockaddr *)&sin, &len);
	*ret_port = ntohs(sin.sin_port);
	return fd;
}

/* The backend that the options select, on one end of a socket pair if any. */
static struct net_be *create_backend(enum kind kind)
{
	const struct opt_def *const tables[] = { vdev_net.vt_opts,
						 vdev_common_opts, NULL };
	char text[64] = "net,backend=user";
	struct opened_files files = { 0 };
	struct vdev_env env = { .loop = fuzz_loop(), .files = &files };
	int sv[2] = { -1, -1 };
	struct opts *opts;
	struct net_be *be;
	struct err err;

	if (kind == ECHO)
		strcpy(text, "net,backend=echo,queues=2");
	if (kind == STREAM || kind == DGRAM) {
		int type = kind == STREAM ? SOCK_STREAM : SOCK_DGRAM;

		fuzz_must(socketpair(AF_UNIX,
				     type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0,
				     sv) == 0);
		snprintf(text, sizeof(text), "net,backend=fd,fd=%d", sv[0]);
	}
	fuzz_must(opts_parse(text, tables, &opts, &err) == 0);
	env.opts = opts;
	if (net_be_open(opts, &files, &err) < 0 ||
	    net_be_create(env.opts, env.files, env.loop, &be, &err) < 0)
		fuzz_fail(text, 0, err.text);
	opts_free(opts);
	if (sv[0] >= 0)
		close(sv[0]);
	peers[0] = sv[1];
	return be;
}

static void make_real(enum kind kind)
{
	struct fuzz_dev *v = &kinds[kind];
	struct opened_files files = { 0 };
	struct vdev_env env = { &v->d.pi, fuzz_loop(), NULL, &files };
	const struct opt_def *const tables[] = { vdev_net.vt_opts,
						 vdev_common_opts, NULL };
	struct opts *opts;
	struct err err;

	fuzz_dev_init(v, VDRV_MODERN);
	fuzz_must(opts_parse("net,backend=null,queue-size=16", tables, &opts,
			     &err) == 0);
	env.opts = opts;
	fuzz_must(net_create_on(&env, create_backend(kind), &v->dev, &err) ==
		  0);
	opts_free(opts);
}

static void setup(void)
{
	for (int i = 0; i < NR_CONNS; i++)
		peers[i] = -1;
	make_mock(MOCK_RSS, VDRV_MODERN,
		  "net,backend=null,queue-size=16,rss=on,mtu=1500", 2);
	make_mock(MOCK, VDRV_MODERN, "net,backend=null,queue-size=16", 1);
	make_mock(MOCK_LEGACY, VDRV_LEGACY, "net,backend=null,queue-size=16",
		  1);
	for (enum kind k = USER; k < NR_KINDS; k++)
		make_real(k);
	has_network = leave_network();
	if (!has_network)
		fuzz_lacks("network namespaces, which libslirp is fuzzed in");
}

/* A fresh peer and backend, so that findings are reproducible. */
static void renew(enum kind kind)
{
	struct net_softc *sc =
		container_of(kinds[kind].dev, struct net_softc, sc_dev);
	struct net_be *be = create_backend(kind), *old = sc->sc_be;

	net_be_attach(be, old->client, old->client_arg);
	sc->sc_be = be;
	sc->sc_carrier = true;
	net_be_destroy(old);
	gen = (struct net_gen){ 0 };
	nr_received = 0;
	if (kind == USER) {
		tcp_fd = on_loopback(SOCK_STREAM, &gen.tcp_port);
		udp_fd = on_loopback(SOCK_DGRAM, &gen.udp_port);
	}
}

static void hang_up(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static void hang_up_all(void)
{
	for (int i = 0; i < NR_CONNS; i++)
		hang_up(&peers[i]);
	hang_up(&tcp_fd);
	hang_up(&udp_fd);
}

/*
 * --- The other end ---
 */

static void arrive(struct net_mock *m, struct fuzz_in *in)
{
	static uint8_t frame[NET_MAX_FRAME + 16];
	unsigned channel = fuzz_choice(in, m->be.nr_channels);
	struct virtio_net_hdr hdr = { 0 };
	size_t len;

	if (fuzz_bool(in)) {
		fuzz_bytes(in, &hdr, sizeof(hdr));
		hdr.gso_type &= 0x87;
	}
	if (fuzz_bool(in)) {
		len = net_gen_frame(&gen, in, frame);
	} else {
		fuzz_bytes(in, frame, 32);
		len = fuzz_choice(in, sizeof(frame));
	}
	net_mock_arrive(m, channel, &hdr, frame, len);
}

static void answer_udp(void)
{
	struct sockaddr_in from;
	socklen_t len = sizeof(from);
	static uint8_t buf[8192];
	ssize_t n = recvfrom(udp_fd, buf, sizeof(buf), MSG_DONTWAIT,
			     (struct sockaddr *)&from, &len);

	if (n >= 0)
		sendto(udp_fd, buf, (size_t)n, MSG_DONTWAIT,
		       (struct sockaddr *)&from, len);
}

/* Never receive more from the guest's connections than it has sent. */
static void receive(int *fd)
{
	static uint8_t buf[8192];
	ssize_t n = recv(*fd, buf, sizeof(buf), MSG_DONTWAIT);

	if (n == 0)
		hang_up(fd);
	if (n > 0 && tcp_fd >= 0) {
		nr_received += (size_t)n;
		fuzz_must(nr_received <= gen.tcp_bytes);
	}
}

static void talk(int *fd, struct fuzz_in *in)
{
	static uint8_t buf[8192];
	size_t n;
	const uint8_t *bytes;

	switch (fuzz_choice(in, 7)) {
	case 0:
		receive(fd);
		break;
	case 1: /* mostly not a valid frame of a stream */
		bytes = fuzz_take(in, 16, &n);
		send(*fd, bytes, n, MSG_DONTWAIT | MSG_NOSIGNAL);
		break;
	case 2:
	case 3:
		inet_write16(buf, 0);
		inet_write16(buf + 2, (uint16_t)fuzz_choice(in, 4096));
		send(*fd, buf, 4u + inet_read16(buf + 2),
		     MSG_DONTWAIT | MSG_NOSIGNAL);
		break;
	case 4:
		shutdown(*fd, SHUT_WR);
		break;
	case 5:
		send(*fd, buf, 1, MSG_DONTWAIT | MSG_NOSIGNAL | MSG_OOB);
		break;
	case 6:
		hang_up(fd);
		break;
	}
}

static void work_peer(struct fuzz_in *in)
{
	int *fd = &peers[fuzz_choice(in, NR_CONNS)];

	if (udp_fd >= 0)
		answer_udp();
	if (*fd < 0 && tcp_fd >= 0)
		*fd = accept4(tcp_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (*fd >= 0)
		talk(fd, in);
}

/*
 * --- The driver ---
 */

static size_t hdr_len(struct fuzz_dev *v)
{
	return net_hdr_len(v->d.features);
}

static void give_buffers(struct fuzz_dev *v)
{
	if (!v->d.q[RXQ].ready)
		return;
	for (uint16_t i = 0; i < NR_RX; i++) {
		vdrv_desc(&v->d, RXQ, i, v->area + RX_OFF + i * RX_BYTES,
			  RX_BYTES, 2, 0);
		vdrv_avail(&v->d, RXQ, i);
	}
	fuzz_dev_kick(v, RXQ);
}

static void send_made(struct fuzz_dev *v, struct fuzz_in *in,
		      size_t (*make)(struct net_gen *g, struct fuzz_in *in,
				     uint8_t *frame))
{
	uint8_t *p = fuzz_dev_ptr(v, TX_OFF, NET_GEN_MAX_FRAME + NET_HDR_MAX);
	size_t hdr = hdr_len(v);
	size_t len;

	if (!v->d.q[TXQ].ready)
		return;
	memset(p, 0, hdr);
	len = make(&gen, in, p + hdr);
	vdrv_desc(&v->d, TXQ, TX_HEAD, v->area + TX_OFF, (uint32_t)(hdr + len),
		  0, 0);
	vdrv_avail(&v->d, TXQ, TX_HEAD);
	fuzz_dev_kick(v, TXQ);
}

static void send_frame(struct fuzz_dev *v, struct fuzz_in *in)
{
	send_made(v, in, net_gen_frame);
}

static void iterate(struct fuzz_dev *v)
{
	size_t hdr = hdr_len(v);

	/* To watch a socket, to be notified, to pass on the result. */
	for (int i = 0; i < 3; i++)
		fuzz_dev_iterate();
	for (unsigned i = 0; i < NR_RX; i++) {
		uint8_t *p = fuzz_dev_ptr(v, RX_OFF + i * RX_BYTES, RX_BYTES);

		net_gen_learn(&gen, p + hdr, RX_BYTES - hdr);
		inet_write16(p + hdr + 12, 0); /* once */
	}
}

/* The input may also be a device state from another process. */
static void move(struct fuzz_dev *v, struct fuzz_in *in)
{
	static uint8_t state[32768];
	struct virtio_softc *vs = v->dev->vs;
	size_t len;
	const uint8_t *bytes = fuzz_take(in, 255, &len);

	vs->vs_vc->vc_load(vs, bytes, len);
	fuzz_must(vs->vs_vc->vc_save(vs, state, sizeof(state)) >= 0);
}

static void rarely(struct fuzz_dev *v, struct net_mock *mock,
		   struct fuzz_in *in)
{
	switch (fuzz_choice(in, 8)) {
	case 0:
		fuzz_dev_restart(v, ~fuzz_int(in, 8));
		break;
	case 1:
		move(v, in);
		break;
	case 2:
		if (mock)
			mock->send_ret = fuzz_bool(in) ? -EAGAIN : 0;
		break;
	default:
		fuzz_dev_config(v, in);
		break;
	}
}

static void step(struct fuzz_dev *v, struct net_mock *mock, struct fuzz_in *in)
{
	unsigned q = fuzz_choice(in, v->nr_queues);

	switch (fuzz_dev_next(v, 12, in)) {
	case 0:
	case 1:
		fuzz_dev_desc(v, q, in);
		break;
	case 2:
		fuzz_dev_bytes(v, in);
		break;
	case 3:
		fuzz_dev_avail(v, q, in);
		break;
	case 4:
		fuzz_dev_kick(v, q);
		break;
	case 5:
	case 6:
		send_frame(v, in);
		break;
	case 7:
		iterate(v);
		break;
	case 8:
	case 9:
		if (mock)
			arrive(mock, in);
		else
			work_peer(in);
		break;
	case 10:
		give_buffers(v);
		break;
	case 11:
		rarely(v, mock, in);
		break;
	}
}

/* An existing connection, and its other end. */
static void open_connection(struct fuzz_dev *v, struct fuzz_in *in)
{
	int *fd = &peers[fuzz_choice(in, NR_CONNS)];

	hang_up(fd);
	give_buffers(v);
	send_made(v, in, net_gen_syn);
	iterate(v);
	*fd = accept4(tcp_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
}

/* With a real network: only frames, answers and iterations. */
static void step_frames(struct fuzz_dev *v, struct fuzz_in *in)
{
	switch (fuzz_choice(in, 8)) {
	case 0:
		work_peer(in);
		break;
	case 1:
		iterate(v);
		break;
	case 2:
		give_buffers(v);
		break;
	case 3:
		open_connection(v, in);
		break;
	default:
		send_frame(v, in);
		iterate(v);
		break;
	}
}

static void run(struct fuzz_in *in)
{
	enum kind kind = (enum kind)fuzz_choice(in, NR_KINDS + 3);
	bool frames = kind >= NR_KINDS;
	struct fuzz_dev *v;
	uint64_t without = VI_BIT(fuzz_choice(in, 64));

	if (frames)
		kind = USER;
	if (kind == USER && !has_network)
		return;
	v = &kinds[kind];
	if (!mocks[kind])
		renew(kind);
	else
		mocks[kind]->send_ret = 0;
	fuzz_dev_start(v, fuzz_bool(in) ? ~without : ~0ull,
		       kind == MOCK_RSS || kind == ECHO ? 5 : 3);
	give_buffers(v);
	while (fuzz_more(in)) {
		if (frames)
			step_frames(v, in);
		else
			step(v, mocks[kind], in);
	}
	fuzz_dev_iterate();
	fuzz_dev_end(v);
	hang_up_all();
}

const struct fuzz_target fuzz_target = { .setup = setup, .run = run };

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzz target: a front-end that sends anything, in any order, to the vhost-user
 * server, with matching descriptors: memory, doorbells, logs, records of
 * requests, pipes for state. Messages make sense: rings, addresses and lengths
 * are often right.
 *
 * The device keeps some of its chains, for as long as the input says, and
 * accesses their memory meanwhile; it may run the loop when it must stop. Files
 * shrink under their mappings. Front-ends detach and attach.
 *
 * All inputs share one server: a front-end that leaves does not change it.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <viodev/loop.h>
#include <viodev/net.h>
#include <viodev/server.h>
#include <viodev/virtio.h>

#include "base/scm.h"
#include "core/core.h"
#include "fuzz.h"
#include "serve/client.h"
#include "serve/mapping.h"
#include "serve/vhost_user_msg.h"

#define MEM_BYTES (256u << 10)
#define GPA       0x10000000ull
#define UADDR     0x7f0000000000ull
#define NR_QUEUES 2
#define QSIZE     16u
#define MAX_QSIZE 64u
#define V1        VI_BIT(VIRTIO_F_VERSION_1)
#define PROTOCOL  VI_BIT(VHMSG_F_PROTOCOL)

/* Where things are in guest memory, for queue q at q * NEXT_RING. */
enum {
	DESC = 0x1000,
	AVAIL = 0x2000,
	USED = 0x3000,
	NEXT_RING = 0x4000,
	BUF = 0x10000,
};

/*
 * --- The device ---
 */

struct chain {
	struct iovec iov[4];
	int nr;
	uint16_t head;
};

static struct hold {
	struct virtio_softc vs; /* first: callbacks get it */
	struct vqueue_info vqs[NR_QUEUES];
	struct chain taken[NR_QUEUES][MAX_QSIZE];
	unsigned nr_taken[NR_QUEUES];
	bool keeps;    /* chains, instead of ending them at once */
	bool returns;  /* them when it must stop */
	bool iterates; /* the loop then */
	bool batches;  /* completions: published later, or never */
	uint8_t config[16];
} hold;

static struct vio_loop *loop;

/* What a backend does with the memory of a request, at any time. */
static void touch(const struct chain *c)
{
	for (int i = 0; i < c->nr; i++) {
		volatile uint8_t *p = c->iov[i].iov_base;

		p[0] ^= 1;
		p[c->iov[i].iov_len - 1] ^= 1;
	}
}

static void end_chain(struct hold *h, unsigned q, unsigned i)
{
	struct chain c = h->taken[q][i];

	touch(&c);
	h->taken[q][i] = h->taken[q][--h->nr_taken[q]];
	vq_relchain_prepare(&h->vqs[q], c.head, 1);
	if (h->batches)
		return;
	vq_relchain_publish(&h->vqs[q]);
	vq_endchains(&h->vqs[q], 0);
}

static void hold_qnotify(void *arg, struct vqueue_info *vq)
{
	struct hold *h = arg;
	unsigned q = vq->vq_num;
	struct vi_req req;
	struct chain c;

	while ((c.nr = vq_getchain(vq, c.iov, 4, &req)) > 0) {
		/* It never has more than its ring has entries. */
		fuzz_must(h->nr_taken[q] < MAX_QSIZE);
		c.head = (uint16_t)req.idx;
		h->taken[q][h->nr_taken[q]++] = c;
		if (!h->keeps)
			end_chain(h, q, h->nr_taken[q] - 1);
	}
}

static void hold_quiesce(void *arg)
{
	struct hold *h = arg;

	for (unsigned q = 0; h->returns && q < NR_QUEUES; q++) {
		while (h->nr_taken[q] > 0)
			end_chain(h, q, 0);
	}
	if (h->iterates)
		vio_loop_iterate(loop, 0);
}

static int hold_cfgread(void *arg, int off, int size, uint32_t *ret_val)
{
	struct hold *h = arg;

	*ret_val = 0;
	memcpy(ret_val, h->config + off, (size_t)size);
	return 0;
}

static int hold_cfgwrite(void *arg, int off, int size, uint32_t val)
{
	struct hold *h = arg;

	memcpy(h->config + off, &val, (size_t)size);
	return 0;
}

static ssize_t hold_save(void *arg, void *buf, size_t room)
{
	struct hold *h = arg;

	memcpy(buf, h->config, sizeof(h->config));
	return sizeof(h->config);
}

static int hold_load(void *arg, const void *buf, size_t len)
{
	struct hold *h = arg;

	if (len != sizeof(h->config))
		return -1;
	memcpy(h->config, buf, len);
	return 0;
}

static bool hold_is_tx(void *sc, unsigned q)
{
	return q == 1;
}

static const struct virtio_net_ops hold_net = { .no_is_tx = hold_is_tx };

static struct virtio_consts hold_consts = {
	.vc_name = "hold",
	.vc_nvq = NR_QUEUES,
	.vc_cfgsize = sizeof(hold.config),
	.vc_hv_caps_modern = VI_RING_CAPS_MODERN | VI_BIT(VIRTIO_F_RING_PACKED),
	.vc_hv_caps_legacy = VI_RING_CAPS_LEGACY,
	.vc_qnotify = hold_qnotify,
	.vc_quiesce = hold_quiesce,
	.vc_cfgread = hold_cfgread,
	.vc_cfgwrite = hold_cfgwrite,
	.vc_save = hold_save,
	.vc_load = hold_load,
	.vc_net = &hold_net,
};

/*
 * --- The front-end ---
 */

enum {
	FD_MEM,
	FD_MEM_SMALL, /* of a size that changes */
	FD_KICK,
	FD_CALL,
	FD_LOG,
	FD_AREA,
	FD_PIPE_IN,
	FD_PIPE_OUT,
	FD_SOCKET,
	NR_FDS,
};

static struct vio_server *srv;
static struct sockaddr_un addr = { .sun_family = AF_UNIX,
				   .sun_path = "\0viodev-vhost-user-fuzz-" };
static int fds[NR_FDS], peer;
static uint8_t *mem;
static int sock;         /* the front-end's */
static uint64_t nr_sent; /* messages, not counting earlier front-ends' */
static bool garbled;     /* one was not sent whole */
static int nr_attached;

static void no_log(void *arg, int level, const char *msg)
{
}

static int file(const char *name, off_t len)
{
	int fd = memfd_create(name, MFD_CLOEXEC);

	fuzz_must(fd >= 0 && ftruncate(fd, len) == 0);
	return fd;
}

static void make_fds(void)
{
	int pair[2], p[2];

	fds[FD_MEM] = file("guest", MEM_BYTES);
	fds[FD_MEM_SMALL] = file("small", 8192);
	fds[FD_LOG] = file("log", 32768);
	fds[FD_AREA] = file("area", 8192);
	fds[FD_KICK] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	fds[FD_CALL] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	fuzz_must(pipe2(p, O_CLOEXEC | O_NONBLOCK) == 0);
	fds[FD_PIPE_OUT] = p[0];
	fds[FD_PIPE_IN] = p[1];
	fuzz_must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) ==
		  0);
	fds[FD_SOCKET] = pair[0];
	peer = pair[1];
	mem = fuzz_pages(MEM_BYTES, fds[FD_MEM]);
}

/* They attach and detach in turns. */
static void on_notify(void *arg, bool attached)
{
	nr_attached += attached ? 1 : -1;
	fuzz_must(nr_attached == attached);
}

static void setup(void)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	fuzz_must(vio_loop_create(&loop) == 0);
	make_fds();
	fuzz_must(vio_server_create(loop, VIO_VHOST_USER, "fuzz", &srv) == 0);
	vio_server_set_log(srv, no_log, NULL);
	vio_server_set_notify(srv, on_notify, NULL);
	vi_softc_linkup(&hold.vs, &hold_consts, &hold, vio_server_pci(srv),
			hold.vqs);
	for (unsigned q = 0; q < NR_QUEUES; q++)
		hold.vqs[q].vq_qsize = MAX_QSIZE;
	memcpy(addr.sun_path + 24, &(pid_t){ getpid() }, sizeof(pid_t));
	fuzz_must(bind(fd, (void *)&addr, sizeof(addr)) == 0 &&
		  listen(fd, 1) == 0);
	fuzz_must(vio_server_listen(srv, fd) == 0);
}

static void iterate(void)
{
	char answer[4096];

	vio_loop_iterate(loop, 0);
	while (recv(sock, answer, sizeof(answer), MSG_DONTWAIT) > 0)
		;
}

static void come(void)
{
	sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	fuzz_must(connect(sock, (void *)&addr, sizeof(addr)) == 0);
	vio_loop_iterate(loop, 0);
}

/* Its disconnection is noticed, and the next may attach. */
static void leave(void)
{
	struct vio_server_stats stats = { .attached = true };

	close(sock);
	/* What it sent before is handled, some messages in an iteration. */
	for (unsigned i = 0; i < 1000 && stats.attached; i++) {
		vio_loop_iterate(loop, 0);
		vio_server_get_stats(srv, &stats);
	}
	fuzz_must(!stats.attached && stats.mem_regions == 0);
	/* None is handled twice. */
	fuzz_must(stats.messages <= nr_sent || garbled);
	nr_sent = stats.messages;
	garbled = false;
}

static void send_msg(uint32_t request, uint32_t flags, const void *payload,
		     uint32_t len, const int *with, unsigned nr_fds)
{
	struct vhmsg_hdr hdr = { request, VHMSG_VERSION | flags, len };
	struct iovec iov[] = { { &hdr, sizeof(hdr) },
			       { (void *)payload, len } };
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 2 };
	union scm scm;
	ssize_t n;

	if (nr_fds > 0)
		scm_attach(&msg, &scm, with, nr_fds);
	n = sendmsg(sock, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
	garbled |= n > 0 && n < (ssize_t)(sizeof(hdr) + len);
	nr_sent += n > 0;
}

/* A message of words, of which the first @len bytes are sent. */
static void say(uint32_t request, const uint64_t *words, uint32_t len, int fd)
{
	send_msg(request, 0, words, len, &fd, fd >= 0);
}

static uint64_t pair_of(uint32_t index, uint32_t num)
{
	return (uint64_t)num << 32 | index;
}

/* Requests of both rings are recorded. */
static void record(void)
{
	const uint64_t area[] = { 8192, 0, NR_QUEUES | MAX_QSIZE << 16 };

	say(VHMSG_SET_INFLIGHT_FD, area, sizeof(area), fds[FD_AREA]);
}

/* Two running rings, for what can only happen then. */
static void run_rings(uint64_t features)
{
	const uint64_t region[] = { 0, GPA, MEM_BYTES, UADDR, 0 };

	say(VHMSG_SET_PROTOCOL_FEATURES,
	    (uint64_t[]){ VI_BIT(VHMSG_PF_REPLY_ACK) }, 8, -1);
	say(VHMSG_SET_FEATURES, &features, 8, -1);
	say(VHMSG_ADD_MEM_REG, region, sizeof(region), fds[FD_MEM]);
	for (uint32_t q = 0; q < NR_QUEUES; q++) {
		uint64_t at = UADDR + q * NEXT_RING;

		say(VHMSG_SET_VRING_NUM, (uint64_t[]){ pair_of(q, QSIZE) }, 8,
		    -1);
		say(VHMSG_SET_VRING_ADDR,
		    (uint64_t[]){ q, at + DESC, at + USED, at + AVAIL, 0 }, 40,
		    -1);
		say(VHMSG_SET_VRING_KICK, (uint64_t[]){ q }, 8, fds[FD_KICK]);
		say(VHMSG_SET_VRING_CALL, (uint64_t[]){ q }, 8, fds[FD_CALL]);
		say(VHMSG_SET_VRING_ENABLE, (uint64_t[]){ pair_of(q, 1) }, 8,
		    -1);
	}
	iterate();
}

/*
 * --- Steps ---
 */

static uint64_t page(struct fuzz_in *in, uint64_t base)
{
	return base + ((uint64_t)fuzz_choice(in, 64) << 12);
}

static uint64_t features(struct fuzz_in *in)
{
	static const unsigned bits[] = { VIRTIO_F_VERSION_1, VHMSG_F_PROTOCOL,
					 VHMSG_F_LOG_ALL,
					 VIRTIO_RING_F_EVENT_IDX,
					 VIRTIO_RING_F_INDIRECT_DESC };
	unsigned pick = fuzz_choice(in, 256);
	uint64_t f = pick >= 192 ? VI_BIT(VIRTIO_F_RING_PACKED) : 0;

	for (unsigned i = 0; i < 5; i++)
		f |= pick & 1u << i ? 0 : VI_BIT(bits[i]);
	return f;
}

/* Eight bytes of a payload, of any kind. */
static uint64_t word(struct fuzz_in *in)
{
	unsigned n = fuzz_choice(in, 32);

	switch (fuzz_choice(in, 8)) {
	case 0:
		return n;
	case 1:
		return page(in, GPA);
	case 2:
		return page(in, UADDR);
	case 3:
		return UINT64_C(1) << 2 * n;
	case 4:
		return pair_of(n & 1, 1u << (n >> 1));
	case 5:
		return pair_of(n & 1, n >> 1);
	case 6:
		return features(in);
	default:
		return fuzz_int(in, 8);
	}
}

/* A piece of memory and its file, as for ADD_MEM_REG. */
static int region(struct fuzz_in *in, uint64_t *w)
{
	unsigned first = fuzz_choice(in, 4) * 16, nr = fuzz_choice(in, 5) * 16;
	bool small = fuzz_one_in(in, 4);

	w[0] = GPA + ((uint64_t)first << 12);
	w[1] = small ? 8192 : (uint64_t)nr << 12;
	w[2] = UADDR + ((uint64_t)first << 12);
	w[3] = small ? 0 : (uint64_t)first << 12;
	if (fuzz_one_in(in, 32))
		w[fuzz_choice(in, 4)] = word(in);
	return fds[small ? FD_MEM_SMALL : FD_MEM];
}

/* A ring part: mostly where rings are, or where it ends with the region. */
static uint64_t part(struct fuzz_in *in, uint64_t usual, unsigned bytes)
{
	switch (fuzz_choice(in, 4)) {
	case 0:
		return UADDR + MEM_BYTES - bytes - 2 * fuzz_choice(in, 4);
	case 1:
		return page(in, UADDR) + 2 * fuzz_choice(in, 2048);
	default:
		return usual;
	}
}

/* The usual payload of @request and its descriptors; its length. */
static uint32_t fill(struct fuzz_in *in, uint32_t request, uint64_t *w,
		     int *with, unsigned *nr_fds)
{
	static const uint16_t sizes[] = { 1, 2, 4, 8, 16, 32, 64, 128 };
	uint32_t q = fuzz_choice(in, NR_QUEUES + (fuzz_one_in(in, 16)));
	uint64_t at = UADDR + q * NEXT_RING;

	*nr_fds = 0;
	switch (request) {
	case VHMSG_SET_FEATURES:
		w[0] = features(in);
		return 8;
	case VHMSG_SET_VRING_NUM:
		w[0] = pair_of(q, sizes[fuzz_choice(in, 8)]);
		return 8;
	case VHMSG_SET_VRING_BASE:
	case VHMSG_GET_VRING_BASE:
	case VHMSG_SET_VRING_ENABLE:
		w[0] = pair_of(q, fuzz_choice(in, 4) ? fuzz_choice(in, 2) :
						       fuzz_choice(in, 65536));
		return 8;
	case VHMSG_SET_VRING_ADDR:
		w[0] = q;
		w[1] = part(in, at + DESC, 16 * QSIZE);
		w[2] = part(in, at + USED, 4 + 8 * QSIZE);
		w[3] = part(in, at + AVAIL, 4 + 2 * QSIZE);
		return 40;
	case VHMSG_SET_VRING_KICK:
	case VHMSG_SET_VRING_CALL:
	case VHMSG_SET_VRING_ERR:
		w[0] = q | (fuzz_one_in(in, 4) ? 0x100 : 0);
		with[0] = fds[request == VHMSG_SET_VRING_KICK ? FD_KICK :
								FD_CALL];
		*nr_fds = !(w[0] & 0x100);
		return 8;
	case VHMSG_SET_MEM_TABLE:
		*nr_fds = fuzz_choice(in, 4);
		w[0] = *nr_fds;
		for (unsigned i = 0; i < *nr_fds; i++)
			with[i] = region(in, w + 1 + 4 * i);
		return 8 + 32 * *nr_fds;
	case VHMSG_ADD_MEM_REG:
	case VHMSG_REM_MEM_REG:
		w[0] = 0;
		with[0] = region(in, w + 1);
		*nr_fds = request == VHMSG_ADD_MEM_REG;
		return 40;
	case VHMSG_SET_LOG_BASE:
		w[0] = fuzz_choice(in, 16385);
		w[1] = fuzz_choice(in, 32768);
		with[0] = fds[FD_LOG];
		*nr_fds = 1;
		return 16;
	case VHMSG_GET_INFLIGHT_FD:
	case VHMSG_SET_INFLIGHT_FD:
		w[0] = fuzz_choice(in, 8192);
		w[1] = fuzz_one_in(in, 4) ? 64 * fuzz_choice(in, 16) : 0;
		w[2] = (1 + fuzz_choice(in, 3)) | sizes[fuzz_choice(in, 8)]
							  << 16;
		with[0] = fds[FD_AREA];
		*nr_fds = request == VHMSG_SET_INFLIGHT_FD;
		return 24;
	case VHMSG_SET_DEVICE_STATE_FD:
		w[0] = pair_of(fuzz_choice(in, 2), 0);
		with[0] = fds[w[0] & 1 ? FD_PIPE_OUT : FD_PIPE_IN];
		*nr_fds = 1;
		return 8;
	case VHMSG_GET_CONFIG:
	case VHMSG_SET_CONFIG:
		w[0] = pair_of(fuzz_choice(in, 20), fuzz_choice(in, 20));
		w[1] = w[2] = w[3] = 0;
		return 12 + (uint32_t)(w[0] >> 32);
	case VHMSG_SET_BACKEND_REQ_FD:
		with[0] = fds[FD_SOCKET];
		*nr_fds = 1;
		return 0;
	default:
		w[0] = word(in);
		return 8;
	}
}

static void message(struct fuzz_in *in)
{
	uint32_t request = fuzz_choice(in, VHMSG_NR_REQUESTS + 1);
	unsigned odd = fuzz_choice(in, 64), nr_fds;
	uint64_t w[16] = { 0 };
	int with[4];
	uint32_t len = fill(in, request, w, with, &nr_fds);

	if (odd == 1)
		len = fuzz_choice(in, sizeof(w));
	else if (odd == 2)
		nr_fds = 0;
	else if (odd == 3)
		with[nr_fds = 0] = fds[fuzz_choice(in, NR_FDS)], nr_fds = 1;
	else if (odd < 8)
		w[fuzz_choice(in, 5)] = word(in);
	send_msg(request, odd & 1 ? VHMSG_NEED_REPLY : 0, w, len, with, nr_fds);
	if (odd < 48)
		iterate();
}

/* A chain of one or two buffers, or of a table of them, made available. */
static void offer(struct fuzz_in *in)
{
	unsigned q = fuzz_choice(in, NR_QUEUES), i = fuzz_choice(in, QSIZE);
	uint8_t *at = mem + q * NEXT_RING;
	uint16_t *avail = (void *)(at + AVAIL);
	struct vring_desc d = {
		.addr = page(in, GPA) + fuzz_choice(in, 256),
		.len = fuzz_choice(in, 5000),
		.flags = (uint16_t)fuzz_choice(in, 8),
		.next = (uint16_t)fuzz_choice(in, QSIZE),
	};

	if (fuzz_one_in(in, 16))
		d.addr = fuzz_int(in, 8);
	if (fuzz_one_in(in, 4)) { /* of a packed ring: id, then flags */
		uint16_t flags = d.flags;

		d.flags = d.next;
		d.next = (uint16_t)(flags | (fuzz_bool(in) ? 0x80 : 0x8000));
	}
	memcpy(at + DESC + i * sizeof(d), &d, sizeof(d));
	if (fuzz_one_in(in, 4))
		return;
	avail[2 + avail[1] % QSIZE] = (uint16_t)i;
	avail[1]++;
	if (fuzz_one_in(in, 8)) /* and earlier entries */
		avail[1] += (uint16_t)fuzz_choice(in, QSIZE);
}

/* Some bytes of memory, mostly of the rings; of the record; of the log. */
static void scribble(struct fuzz_in *in)
{
	size_t off = (size_t)fuzz_choice(in, 12) << 12 | fuzz_choice(in, 512);
	uint8_t bytes[8];
	unsigned what = fuzz_choice(in, 4);

	fuzz_bytes(in, bytes, sizeof(bytes));
	if (what < 2)
		memcpy(mem + off, bytes, 1 + fuzz_choice(in, 8));
	else if (pwrite(fds[what == 2 ? FD_AREA : FD_LOG], bytes, 8,
			fuzz_choice(in, 600)) < 0)
		abort();
}

/* A file shrinks, perhaps under a mapping, or is restored. */
static void resize(struct fuzz_in *in)
{
	static const struct {
		unsigned fd;
		off_t len;
	} files[] = {
		{ FD_MEM_SMALL, 8192 },
		{ FD_AREA, 8192 },
		{ FD_LOG, 32768 },
	};
	unsigned i = fuzz_choice(in, 3);

	if (ftruncate(fds[files[i].fd], fuzz_bool(in) ? 0 : files[i].len) < 0)
		abort();
}

static void ring_bell(unsigned iterations)
{
	fuzz_must(eventfd_write(fds[FD_KICK], 1) == 0);
	while (iterations-- > 0)
		iterate();
}

/* The state of a device, or some bytes, through the pipe. */
static void pour(struct fuzz_in *in)
{
	uint8_t bytes[48];
	ssize_t n = fuzz_bool(in) ? read(fds[FD_PIPE_OUT], bytes, 48) : 48;

	if (fuzz_one_in(in, 4))
		fuzz_bytes(in, bytes + 20, 8);
	if (n > 0 && fuzz_bool(in) &&
	    write(fds[FD_PIPE_IN], bytes, (size_t)n) < 0)
		return;
	iterate();
}

static void end_some(struct fuzz_in *in)
{
	unsigned q = fuzz_choice(in, NR_QUEUES);

	if (hold.nr_taken[q] > 0)
		end_chain(&hold, q, fuzz_choice(in, hold.nr_taken[q]));
	if (fuzz_bool(in))
		iterate();
}

static void step(struct fuzz_in *in)
{
	unsigned way;

	switch (fuzz_choice(in, 16)) {
	case 0:
	case 1:
		offer(in);
		break;
	case 2:
	case 3:
		ring_bell(fuzz_choice(in, 3));
		break;
	case 4:
		scribble(in);
		break;
	case 5:
	case 6:
		end_some(in);
		break;
	case 7:
		way = fuzz_choice(in, 16);
		hold.keeps = !(way & 1);
		hold.returns = way & 2;
		hold.iterates = way & 4;
		hold.batches = way & 8;
		break;
	case 8:
		for (unsigned q = 0; q < NR_QUEUES; q++) {
			for (unsigned i = 0; i < hold.nr_taken[q]; i++)
				touch(&hold.taken[q][i]);
		}
		break;
	case 9:
		if (fuzz_one_in(in, 4)) {
			leave();
			come();
			run_rings(features(in));
		}
		break;
	case 10:
		resize(in);
		break;
	case 11:
		pour(in);
		break;
	default:
		message(in);
		break;
	}
}

/* Restore the initial files, memory, and a device that holds nothing. */
static void clean(void)
{
	static const uint8_t zeros[8192];
	eventfd_t count;
	char bytes[4096];

	for (unsigned q = 0; q < NR_QUEUES; q++) {
		while (hold.nr_taken[q] > 0)
			end_chain(&hold, q, 0);
	}
	vio_loop_iterate(loop, 0);
	vio_loop_iterate(loop, 0);
	fuzz_must(hold.vs.vs_priv->nr_stale == 0);
	fuzz_must(vio_server_pci(srv)->pi_gmem->nr_limbo == 0);
	memset(mem, 0, BUF);
	memset(hold.config, 0, sizeof(hold.config));
	fuzz_must(ftruncate(fds[FD_MEM_SMALL], 8192) == 0 &&
		  ftruncate(fds[FD_LOG], 32768) == 0 &&
		  pwrite(fds[FD_AREA], zeros, 8192, 0) == 8192);
	eventfd_read(fds[FD_KICK], &count);
	while (read(fds[FD_PIPE_OUT], bytes, sizeof(bytes)) > 0)
		;
	while (recv(peer, bytes, sizeof(bytes), MSG_DONTWAIT) > 0)
		;
}

static void run(struct fuzz_in *in)
{
	mapping_catch_faults(); /* in place of any handler since setup() */
	hold.keeps = fuzz_bool(in);
	hold.returns = hold.iterates = hold.batches = false;
	come();
	if (fuzz_bool(in))
		record();
	if (fuzz_choice(in, 8))
		run_rings(features(in));
	while (fuzz_more(in))
		step(in);
	leave();
	clean();
}

const struct fuzz_target fuzz_target = {
	.setup = setup,
	.run = run,
};

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzz target: the vfio-user server as whole connections, with descriptors. The
 * client sends anything in any order: memory is mapped and unmapped during
 * requests, registers of both interfaces are mixed, files are truncated.
 *
 * The device keeps the chains that it takes until a step makes it return one,
 * and then writes to all of it: memory that was unmapped too early faults.
 *
 * When the server waits for the client's answer it calls poll(), which is ours:
 * the client continues there.
 */
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <viodev/loop.h>
#include <viodev/server.h>
#include <viodev/virtio.h>

#include "base/scm.h"
#include "base/util.h"
#include "fuzz.h"
#include "serve/vfio_user_msg.h"

#define PAGE      4096u
#define NR_PAGES  16u /* of each file, and of guest addresses in use */
#define QSIZE     8u
#define NR_QUEUES 2
#define MAX_KEPT  32u
#define MAX_STEPS 96u

/*
 * --- The device ---
 */

struct kept {
	struct vqueue_info *vq;
	uint16_t idx;
	struct iovec iov[8];
	int readable, n;
};

static struct virtio_softc vs;
static struct vqueue_info queues[NR_QUEUES];
static struct kept kept[MAX_KEPT];
static unsigned nr_kept;

static void dev_take(struct vqueue_info *vq)
{
	struct vi_req req;
	int n = 0;

	while (nr_kept < MAX_KEPT) {
		struct kept *k = &kept[nr_kept];

		n = vq_getchain(vq, k->iov, 8, &req);
		if (n <= 0)
			break;
		k->vq = vq;
		k->idx = req.idx;
		k->readable = req.readable;
		k->n = n;
		nr_kept++;
	}
	vq_endchains(vq, n == 0);
}

static void dev_give(unsigned i)
{
	struct kept k = kept[i];
	uint32_t len = 0;

	kept[i] = kept[--nr_kept];
	for (int j = 0; j < k.n; j++) {
		volatile char *p = k.iov[j].iov_base;
		size_t last = k.iov[j].iov_len - 1;

		(void)p[0];
		(void)p[last];
		if (j < k.readable)
			continue;
		p[0] = p[last] = 'f';
		len += (uint32_t)k.iov[j].iov_len;
	}
	vq_relchain(k.vq, k.idx, len);
	vq_endchains(k.vq, 0);
}

static void dev_notify(void *sc, struct vqueue_info *vq)
{
	dev_take(vq);
}

static void dev_reset(void *sc)
{
}

static struct virtio_consts consts = {
	.vc_name = "fuzz",
	.vc_nvq = NR_QUEUES,
	.vc_reset = dev_reset,
	.vc_qnotify = dev_notify,
	.vc_hv_caps_legacy = VI_RING_CAPS_LEGACY,
	.vc_hv_caps_modern = VI_RING_CAPS_MODERN,
};

/*
 * --- The world ---
 */

static struct vio_loop *loop;
static struct vio_server *srv;
static struct sockaddr_un addr = { .sun_family = AF_UNIX };
static int memfds[2], event, pipes[2];
static uint8_t *memory[2];
static bool cut[2]; /* the file is shorter than that */

/* The client. */
static struct fuzz_in *input;
static int sock, twin;
static uint16_t next_id;
static struct {
	uint16_t id, cmd;
	uint64_t addr, count;
} asked[8]; /* the server's last commands */
static unsigned nr_asked;

static void no_log(void *arg, int level, const char *msg)
{
}

static void setup(void)
{
	struct pci_devinst *pi;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	fuzz_must(vio_loop_create(&loop) == 0);
	fuzz_must(vio_server_create(loop, VIO_VFIO_USER, "fuzz", &srv) == 0);
	vio_server_set_log(srv, no_log, NULL);
	pi = vio_server_pci(srv);
	vi_softc_linkup(&vs, &consts, &vs, pi, queues);
	for (int i = 0; i < NR_QUEUES; i++)
		queues[i].vq_qsize = QSIZE;
	vi_pci_init(pi, VIRTIO_MODE_TRANSITIONAL, VIRTIO_DEV_RANDOM,
		    VIRTIO_ID_ENTROPY, PCIC_OTHER);
	fuzz_must(vi_intr_init(&vs, true) && vi_pcibar_setup(&vs));
	snprintf(addr.sun_path + 1, sizeof(addr.sun_path) - 1,
		 "vfio-user-fuzz-%d", (int)getpid());
	fuzz_must(bind(fd, (void *)&addr, sizeof(addr)) == 0 &&
		  listen(fd, 1) == 0 && vio_server_listen(srv, fd) == 0);
	for (int i = 0; i < 2; i++) {
		memfds[i] = memfd_create("guest", MFD_CLOEXEC);
		fuzz_must(ftruncate(memfds[i], NR_PAGES * PAGE) == 0);
		memory[i] = mmap(NULL, NR_PAGES * PAGE, PROT_READ | PROT_WRITE,
				 MAP_SHARED, memfds[i], 0);
		fuzz_must(memory[i] != MAP_FAILED);
	}
	event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	fuzz_must(pipe2(pipes, O_CLOEXEC | O_NONBLOCK) == 0);
}

/*
 * --- What the server sends ---
 */

static void note(const struct vfmsg_hdr *hdr, const uint8_t *payload)
{
	unsigned i = nr_asked++ % 8;

	asked[i].id = hdr->id;
	asked[i].cmd = hdr->cmd;
	memcpy(&asked[i].addr, payload, 8);
	memcpy(&asked[i].count, payload + 8, 8);
}

/* The messages that are whole; the rest of a buffer is ignored. */
static void look_at(const uint8_t *p, size_t len)
{
	struct vfmsg_hdr hdr;

	while (len >= sizeof(hdr)) {
		memcpy(&hdr, p, sizeof(hdr));
		if (hdr.size < sizeof(hdr) || hdr.size > len)
			return;
		if (!(hdr.flags & VFMSG_TYPE_MASK) && hdr.size >= 32)
			note(&hdr, p + sizeof(hdr));
		p += hdr.size;
		len -= hdr.size;
	}
}

static void receive(int fd)
{
	static uint8_t buf[256 << 10];
	union scm_room room;
	struct iovec iov = { buf, sizeof(buf) };
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = room.buf,
		.msg_controllen = sizeof(room.buf),
	};
	int fds[8];
	unsigned nr_fds = 0;
	ssize_t n = fd < 0 ? -1 :
			     recvmsg(fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

	if (n <= 0)
		return;
	scm_take(&msg, fds, &nr_fds, 8);
	for (unsigned i = 0; i < nr_fds; i++) {
		if (twin < 0)
			twin = fds[i];
		else
			close(fds[i]);
	}
	look_at(buf, (size_t)n);
}

static void iterate(void)
{
	vio_loop_iterate(loop, 0);
	receive(sock);
	receive(twin);
}

/*
 * --- What the client sends ---
 */

static void send_bytes(int fd, const void *data, size_t len, const int *fds,
		       unsigned nr_fds)
{
	struct iovec iov = { (void *)data, len };
	union scm_room room = { .hdr = {
					.cmsg_len =
						CMSG_LEN(nr_fds * sizeof(int)),
					.cmsg_level = SOL_SOCKET,
					.cmsg_type = SCM_RIGHTS,
				} };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (nr_fds) {
		msg.msg_control = room.buf;
		msg.msg_controllen = CMSG_SPACE(nr_fds * sizeof(int));
		memcpy(CMSG_DATA(&room.hdr), fds, nr_fds * sizeof(int));
	}
	if (fd >= 0)
		(void)!sendmsg(fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void say(uint16_t cmd, uint32_t flags, const void *payload, size_t len,
		const int *fds, unsigned nr_fds)
{
	uint8_t buf[1024];
	struct vfmsg_hdr hdr = { next_id++, cmd, (uint32_t)(sizeof(hdr) + len),
				 flags };

	memcpy(buf, &hdr, sizeof(hdr));
	if (len > 0)
		memcpy(buf + sizeof(hdr), payload, len);
	send_bytes(sock, buf, sizeof(hdr) + len, fds, nr_fds);
}

static int some_fd(struct fuzz_in *in)
{
	const int fds[] = { memfds[0], memfds[1], event,
			    pipes[0],  pipes[1],  sock };

	return fds[fuzz_choice(in, 6)];
}

static uint64_t some_page(struct fuzz_in *in)
{
	return (uint64_t)PAGE * fuzz_choice(in, NR_PAGES);
}

static void version(struct fuzz_in *in)
{
	static const char *const texts[] = {
		"{\"capabilities\":{\"write_multiple\":true}}",
		"{\"capabilities\":{\"twin_socket\":{\"supported\":true}}}",
		"{\"capabilities\":{\"max_data_xfer_size\":7}}",
		"{}",
	};
	const char *text = texts[fuzz_choice(in, 4)];
	char buf[100] = { 0 };

	strcpy(buf + 4, text);
	say(VFMSG_VERSION, 0, buf, 4 + strlen(text) + 1, NULL, 0);
}

static void dma_map(struct fuzz_in *in)
{
	struct {
		uint32_t argsz, flags;
		uint64_t offset, iova, size;
	} w = { 32, 1 + fuzz_choice(in, 3), some_page(in), some_page(in),
		some_page(in) + PAGE };
	int fd = memfds[fuzz_choice(in, 2)];

	if (fuzz_bool(in)) { /* all of a file where the driver thinks it is */
		w.flags = 3;
		w.offset = w.iova = 0;
		w.size = NR_PAGES * PAGE;
	}
	say(VFMSG_DMA_MAP, 0, &w, sizeof(w), &fd, !fuzz_one_in(in, 4));
}

static void dma_unmap(struct fuzz_in *in)
{
	struct {
		uint32_t argsz, flags;
		uint64_t iova, size;
	} w = { 24, 0, 0, NR_PAGES * PAGE };

	if (fuzz_bool(in)) {
		w.iova = some_page(in);
		w.size = some_page(in) + PAGE;
	}
	say(VFMSG_DMA_UNMAP, fuzz_one_in(in, 8) ? VFMSG_NO_REPLY : 0, &w,
	    sizeof(w), NULL, 0);
}

struct write {
	uint64_t offset;
	uint32_t region, count;
	uint64_t data;
};

static void write_reg(uint32_t region, uint64_t offset, uint32_t count,
		      uint64_t data)
{
	struct write w = { offset, region, count, data };

	say(VFMSG_REGION_WRITE, 0, &w, 16 + count, NULL, 0);
}

/* Most accesses are to existing registers. */
static struct write some_write(struct fuzz_in *in)
{
	static const struct {
		uint32_t region, offset;
	} places[] = {
		{ 0, 4 },      { 0, 8 },    { 0, 14 },   { 0, 16 },
		{ 0, 18 },     { 2, 0x00 }, { 2, 0x08 }, { 2, 0x0c },
		{ 2, 0x14 },   { 2, 0x16 }, { 2, 0x18 }, { 2, 0x1c },
		{ 2, 0x20 },   { 2, 0x28 }, { 2, 0x30 }, { 2, 0x3000 },
		{ 2, 0x3004 }, { 7, 0x04 }, { 7, 0x42 }, { 1, 0 },
	};
	unsigned i = fuzz_choice(in, ARRAY_LEN(places));
	struct write w = { places[i].offset, places[i].region,
			   1u << fuzz_choice(in, 4), fuzz_int(in, 2) };

	if (fuzz_one_in(in, 16))
		w.offset = fuzz_int(in, 2);
	if (fuzz_one_in(in, 4))
		w.data <<= 8 * fuzz_choice(in, 8);
	return w;
}

static void region(struct fuzz_in *in)
{
	struct write w = some_write(in);
	struct {
		uint64_t nr;
		struct write w[4];
	} multi = { 1 + fuzz_choice(in, 4) };

	switch (fuzz_choice(in, 4)) {
	case 0:
		say(VFMSG_REGION_READ, 0, &w, 16, NULL, 0);
		break;
	case 1:
		multi.w[0] = w;
		for (unsigned i = 1; i < multi.nr; i++)
			multi.w[i] = some_write(in);
		say(VFMSG_REGION_WRITE_MULTI, 0, &multi, 8 + 24 * multi.nr,
		    NULL, 0);
		break;
	default:
		write_reg(w.region, w.offset, w.count, w.data);
		break;
	}
}

/* A correct driver, if nothing disturbs it. */
static void start_driver(struct fuzz_in *in)
{
	bool legacy = fuzz_bool(in);
	uint64_t features = fuzz_int(in, 1);

	write_reg(7, 4, 2, 7);
	write_reg(legacy ? 0 : 2, legacy ? 18 : 0x14, 1, 0);
	if (legacy) {
		write_reg(0, 18, 1, 3);
		write_reg(0, 4, 4, features << 24);
		write_reg(0, 8, 4, 1);
		write_reg(0, 18, 1, 7);
		return;
	}
	write_reg(2, 0x14, 1, 3);
	write_reg(2, 0x0c, 4, features << 24);
	write_reg(2, 0x08, 4, 1);
	write_reg(2, 0x0c, 4, 1);
	write_reg(2, 0x14, 1, 11);
	for (unsigned q = 0; q < NR_QUEUES; q++) {
		write_reg(2, 0x16, 2, q);
		write_reg(2, 0x20, 8, PAGE * (1 + q));
		write_reg(2, 0x28, 8, PAGE * (1 + q) + 16 * QSIZE);
		write_reg(2, 0x30, 8, PAGE * (1 + q) + 512);
		write_reg(2, 0x1c, 2, 1);
	}
	write_reg(2, 0x14, 1, 15);
}

static void set_irqs(struct fuzz_in *in)
{
	struct {
		uint32_t argsz, flags, index, start, count;
	} w = { 20, fuzz_choice(in, 64), fuzz_choice(in, 5), fuzz_choice(in, 3),
		fuzz_choice(in, 4) };
	int fds[4];

	for (int i = 0; i < 4; i++)
		fds[i] = event;
	if (fuzz_one_in(in, 8))
		fds[0] = some_fd(in);
	say(VFMSG_SET_IRQS, 0, &w, sizeof(w), fds,
	    w.flags & 4 ? w.count : fuzz_choice(in, 2));
}

/* An answer to a command of the server, or to none. */
static void answer(struct fuzz_in *in)
{
	static uint8_t buf[32 + (64 << 10)];
	unsigned i = (nr_asked - 1 - fuzz_choice(in, 2)) % 8;
	bool read = asked[i].cmd == VFMSG_DMA_READ;
	size_t data = read && asked[i].count <= 64u << 10 ? asked[i].count : 0;
	struct vfmsg_hdr hdr = { asked[i].id, asked[i].cmd,
				 (uint32_t)(32 + data), VFMSG_REPLY };

	memcpy(buf + 16, &asked[i].addr, 8);
	memcpy(buf + 24, &asked[i].count, 8);
	if (!cut[0] && asked[i].addr < NR_PAGES * PAGE - data)
		memcpy(buf + 32, memory[0] + asked[i].addr, data);
	switch (fuzz_choice(in, 16)) {
	case 0:
		hdr.flags |= VFMSG_ERROR;
		break;
	case 1:
		hdr.size = 16 + (uint32_t)fuzz_choice(in, 32);
		break;
	case 2:
		hdr.id = (uint16_t)fuzz_int(in, 2);
		break;
	default:
		break;
	}
	memcpy(buf, &hdr, sizeof(hdr));
	send_bytes(twin >= 0 ? twin : sock, buf, hdr.size, NULL, 0);
}

static void raw(struct fuzz_in *in)
{
	uint8_t buf[256];
	size_t len = fuzz_choice(in, 64);
	int fds[16];
	unsigned nr = fuzz_bool(in) ? fuzz_choice(in, 16) : 0;

	for (unsigned i = 0; i < nr; i++)
		fds[i] = some_fd(in);
	fuzz_bytes(in, buf, len);
	if (fuzz_bool(in)) /* not even a header, or a part of one */
		send_bytes(fuzz_one_in(in, 4) ? twin : sock, buf, len + 1, fds,
			   nr);
	else
		say((uint16_t)fuzz_choice(in, VFMSG_NR_CMDS + 1),
		    fuzz_one_in(in, 4) ? (uint32_t)fuzz_choice(in, 64) : 0, buf,
		    len, fds, nr);
}

/* Bytes of guest memory, mostly where the rings are. */
static void write_memory(struct fuzz_in *in)
{
	unsigned file = fuzz_choice(in, 2);
	uint8_t *mem = memory[file];
	unsigned page = 1 + fuzz_choice(in, 3), q;
	unsigned avail = page * PAGE + 16 * QSIZE;

	if (cut[file])
		return;
	switch (fuzz_choice(in, 3)) {
	case 0: { /* a descriptor */
		uint64_t at = some_page(in) + fuzz_choice(in, 256);
		uint32_t len =
			fuzz_choice(in, 3) ? fuzz_choice(in, 0x2000) : 64;
		uint16_t flags = (uint16_t)fuzz_choice(in, 8);
		uint16_t next = (uint16_t)fuzz_choice(in, QSIZE + 1);
		uint8_t *d = mem + page * PAGE + 16 * fuzz_choice(in, QSIZE);

		memcpy(d, &at, 8);
		memcpy(d + 8, &len, 4);
		memcpy(d + 12, &flags, 2);
		memcpy(d + 14, &next, 2);
		break;
	}
	case 1: /* one more is available */
		q = mem[avail + 2] % QSIZE;
		mem[avail + 4 + 2 * q] = (uint8_t)fuzz_choice(in, QSIZE);
		mem[avail + 2]++;
		break;
	default:
		mem[page * PAGE + fuzz_choice(in, 1024)] =
			(uint8_t)fuzz_int(in, 1);
		break;
	}
}

static void truncate_memory(struct fuzz_in *in)
{
	unsigned file = fuzz_choice(in, 2);

	cut[file] = true;
	fuzz_must(ftruncate(memfds[file], PAGE * fuzz_choice(in, 4)) == 0);
}

static void step(struct fuzz_in *in)
{
	switch (fuzz_choice(in, 16)) {
	case 0:
		raw(in);
		break;
	case 1:
	case 2:
		dma_map(in);
		break;
	case 3:
		dma_unmap(in);
		break;
	case 4:
	case 5:
	case 6:
		region(in);
		break;
	case 7:
		set_irqs(in);
		break;
	case 8:
		start_driver(in);
		break;
	case 9:
	case 10:
		write_memory(in);
		break;
	case 11: /* doorbells */
		write_reg(fuzz_bool(in) ? 2 : 0, fuzz_bool(in) ? 0x3000 : 16, 2,
			  0);
		break;
	case 12:
		if (nr_asked)
			answer(in);
		break;
	case 13:
		if (nr_kept)
			dev_give(fuzz_choice(in, nr_kept));
		break;
	case 14:
		if (fuzz_one_in(in, 8))
			truncate_memory(in);
		else
			say(VFMSG_RESET, 0, NULL, 0, NULL, 0);
		break;
	default:
		iterate();
		break;
	}
}

/* The server waits for the client, which mostly answers. */
int poll(struct pollfd *fds, nfds_t nr, int timeout)
{
	struct timespec none = { 0 };

	receive(sock);
	receive(twin);
	if (input && nr_asked)
		answer(input);
	return (int)syscall(SYS_ppoll, fds, nr, &none, NULL, 0);
}

/* What the client sent before it left is handled, one share per iteration. */
static void await_detached(void)
{
	struct vio_server_stats stats;
	unsigned nr = 0;

	do {
		fuzz_must(nr++ < 10000);
		vio_loop_iterate(loop, 0);
		vio_server_get_stats(srv, &stats);
	} while (stats.attached);
	for (int i = 0; i < 3; i++)
		vio_loop_iterate(loop, 0);
}

static void run(struct fuzz_in *in)
{
	uint64_t count;

	for (int i = 0; i < 2; i++) {
		fuzz_must(ftruncate(memfds[i], NR_PAGES * PAGE) == 0);
		cut[i] = false;
		memset(memory[i], 0, 4 * PAGE);
	}
	input = in;
	twin = -1;
	nr_asked = 0;
	sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	fuzz_must(connect(sock, (void *)&addr, sizeof(addr)) == 0);
	iterate();
	version(in);
	for (unsigned i = 0; i < MAX_STEPS && fuzz_more(in); i++)
		step(in);
	iterate();
	close(sock);
	if (twin >= 0)
		close(twin);
	sock = twin = -1;
	input = NULL;
	await_detached();
	/* Requests end after their client has disconnected. */
	while (nr_kept > 0)
		dev_give(nr_kept - 1);
	vio_loop_iterate(loop, 0);
	vio_loop_iterate(loop, 0);
	eventfd_read(event, &count);
	fuzz_must(pci_is_idle(vio_server_pci(srv)));
}

const struct fuzz_target fuzz_target = { .setup = setup, .run = run };

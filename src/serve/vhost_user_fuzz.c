/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzz target: a front-end that says what it likes to the vhost-user server of
 * a disk, in messages that mean something: rings, addresses and descriptors
 * are often right. The server is one for all inputs: a front-end that goes
 * leaves it as it was.
 *
 * The input is a list of steps of 8 bytes: a message, bytes of guest memory,
 * a doorbell, a turn of the loop.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <viodev/device.h>
#include <viodev/loop.h>
#include <viodev/vhost_user.h>
#include <viodev/virtio.h>

#include "base/scm.h"
#include "serve/vhost_user_msg.h"

#define MEM_BYTES (1u << 20)
#define GPA	  0x10000000ull
#define UADDR	  0x7f0000000000ull
#define QSIZE	  16u
#define FEATURES  (VI_BIT(VIRTIO_F_VERSION_1) | VI_BIT(VHMSG_F_PROTOCOL))

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static struct ev_loop *loop;
static struct vhuser *srv;
static struct vdev *dev;
static struct sockaddr_un addr = { .sun_family = AF_UNIX };
static int memfd, kick_fd, call_fd, pipe_fds[2];
static uint8_t *mem;
static int sock; /* the front-end's */

static void no_log(void *arg, int level, const char *msg)
{
}

static void must(bool ok)
{
	if (!ok)
		abort();
}

static void make_world(void)
{
	signal(SIGPIPE, SIG_IGN);
	must(ev_loop_create(&loop) == 0);
	memfd = memfd_create("guest", MFD_CLOEXEC);
	must(memfd >= 0 && ftruncate(memfd, MEM_BYTES) == 0);
	mem = mmap(NULL, MEM_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, memfd,
		   0);
	must(mem != MAP_FAILED);
	kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	call_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	must(pipe2(pipe_fds, O_CLOEXEC | O_NONBLOCK) == 0);
}

/* A disk, and its server on a socket that has no name in any folder. */
static void make_server(void)
{
	char path[] = "/tmp/vhost-user-fuzz-XXXXXX", device[64], why[100];
	int fd = mkstemp(path);

	must(fd >= 0 && ftruncate(fd, 1 << 16) == 0);
	close(fd);
	snprintf(device, sizeof(device), "block,path=%s", path);
	must(vhuser_create(loop, "fuzz", &srv) == 0);
	vhuser_set_log(srv, no_log, NULL);
	must(vdev_new(device, vhuser_pci(srv), loop, &dev, why, sizeof(why)) ==
	     0);
	unlink(path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	snprintf(addr.sun_path + 1, sizeof(addr.sun_path) - 1, "%s", path);
	must(bind(fd, (void *)&addr, sizeof(addr)) == 0 && listen(fd, 1) == 0);
	must(vhuser_listen(srv, fd) == 0);
}

static void turn(void)
{
	char answer[4096];

	ev_loop_turn(loop, 0);
	while (recv(sock, answer, sizeof(answer), MSG_DONTWAIT) > 0)
		;
}

static void send_msg(uint32_t request, uint32_t flags, const void *payload,
		     uint32_t len, int fd)
{
	struct vhmsg_hdr hdr = { request, VHMSG_VERSION | flags, len };
	struct iovec iov[] = { { &hdr, sizeof(hdr) },
			       { (void *)payload, len } };
	union scm scm;
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 2 };

	if (fd >= 0)
		scm_attach(&msg, &scm, &fd, 1);
	sendmsg(sock, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
	turn();
}

static uint64_t pair_of(uint32_t index, uint32_t num)
{
	return (uint64_t)num << 32 | index;
}

/* A ring that runs, for what can only happen then. */
static void run_ring(void)
{
	const uint64_t region[] = { 0, GPA, MEM_BYTES, UADDR, 0 };
	const uint64_t parts[] = { 0, UADDR, UADDR + 0x2000, UADDR + 0x1000, 0 };
	const uint64_t features = FEATURES, zero = 0;
	const uint64_t size = pair_of(0, QSIZE), on = pair_of(0, 1);

	send_msg(VHMSG_SET_FEATURES, 0, &features, 8, -1);
	send_msg(VHMSG_ADD_MEM_REG, 0, region, sizeof(region), memfd);
	send_msg(VHMSG_SET_VRING_NUM, 0, &size, 8, -1);
	send_msg(VHMSG_SET_VRING_ADDR, 0, parts, sizeof(parts), -1);
	send_msg(VHMSG_SET_VRING_KICK, 0, &zero, 8, kick_fd);
	send_msg(VHMSG_SET_VRING_CALL, 0, &zero, 8, call_fd);
	send_msg(VHMSG_SET_VRING_ENABLE, 0, &on, 8, -1);
}

/* Eight bytes of a payload. */
static uint64_t word(uint8_t b)
{
	unsigned n = b & 31;

	switch (b >> 5) {
	case 0:
		return n;
	case 1:
		return GPA + ((uint64_t)n << 12);
	case 2:
		return UADDR + ((uint64_t)n << 12);
	case 3:
		return UINT64_C(1) << 2 * n;
	case 4:
		return pair_of(n & 1, 1u << (n >> 1));
	case 5:
		return pair_of(n & 1, n >> 1);
	case 6:
		return FEATURES | (uint64_t)n << 26;
	default:
		return ~UINT64_C(0) << n;
	}
}

static int fd_of(unsigned kind)
{
	const int fds[] = { -1,	     kick_fd,	  call_fd,     memfd,
			    memfd,   pipe_fds[0], pipe_fds[1], -1 };

	return fds[kind & 7];
}

static void message(const uint8_t *s)
{
	uint64_t payload[7];

	for (unsigned i = 0; i < 7; i++)
		payload[i] = word(s[3 + i % 5]);
	send_msg(s[1] % VHMSG_NR_REQUESTS,
		 s[2] & 0x80 ? VHMSG_NEED_REPLY : 0, payload,
		 s[2] & 0x40 ? s[2] & 0x38 : 40, fd_of(s[2]));
}

static void step(const uint8_t *s)
{
	uint64_t one = 1;
	size_t off;

	switch (s[0] & 3) {
	case 0:
	case 1:
		message(s);
		break;
	case 2: /* mostly where the rings and small buffers are */
		off = (size_t)(s[1] & 3) << 12 | s[2] << 1;
		memcpy(mem + off, s + 3, 5);
		break;
	case 3:
		if (write(kick_fd, &one, sizeof(one)) < 0)
			abort();
		turn();
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	eventfd_t count;
	char bytes[4096];

	if (len < 9)
		return 0;
	if (!loop) {
		make_world();
		make_server();
	}
	memset(mem, 0, 1 << 16);
	sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	must(connect(sock, (void *)&addr, sizeof(addr)) == 0);
	turn();
	if (data[0] & 1)
		run_ring();
	for (data++, len--; len >= 8; data += 8, len -= 8)
		step(data);
	close(sock);
	ev_loop_turn(loop, 0);
	ev_loop_turn(loop, 0);
	eventfd_read(kick_fd, &count);
	eventfd_read(call_fd, &count);
	while (read(pipe_fds[0], bytes, sizeof(bytes)) > 0)
		;
	return 0;
}

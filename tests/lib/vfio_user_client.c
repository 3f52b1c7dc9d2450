/* SPDX-License-Identifier: BSD-2-Clause */
/* A device, a server and a client, for tests. See vfio_user_client.h. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <syslog.h>
#include <unistd.h>

#include <cmocka.h>

#include "emulated.h"
#include "vfio_user_client.h"

/*
 * --- The device ---
 */

static uint64_t scratch64(struct tdev *dev, unsigned off)
{
	uint64_t val;

	memcpy(&val, dev->scratch + off, sizeof(val));
	return le64toh(val);
}

static void copy(struct tdev *dev)
{
	struct gmem *gm = dev->pi->pi_gmem;
	uint32_t word = TDEV_DONE_WORD;
	uint64_t len = scratch64(dev, REG_LEN);
	uint8_t *buf;
	int ret;

	if (len == 0 || len > 1u << 20)
		return;
	buf = malloc(len + 1);
	ret = gm_read(gm, (gpa_t){ scratch64(dev, REG_SRC) }, buf, len);
	if (ret == 0)
		ret = gm_write(gm, (gpa_t){ scratch64(dev, REG_DST) }, buf,
			       len);
	if (ret == 0)
		ret = gm_write(gm, (gpa_t){ scratch64(dev, REG_DONE) }, &word,
			       sizeof(word));
	free(buf);
	if (ret == -EAGAIN) {
		dev->nr_resubmitted++;
		return;
	}
	memset(dev->scratch + REG_LEN, 0, 8);
	dev->last_error = (uint32_t)-ret;
	if (ret < 0)
		return;
	dev->nr_copies++;
	pci_generate_msix(dev->pi, 0);
}

static uint32_t peek(struct tdev *dev)
{
	gpa_t src = { scratch64(dev, REG_SRC) };
	uint32_t word;

	return (uint32_t)-gm_read(dev->pi->pi_gmem, src, &word, sizeof(word));
}

static void note(struct tdev *dev, uint32_t word)
{
	gpa_t done = { scratch64(dev, REG_DONE) };

	gm_write(dev->pi->pi_gmem, done, &word, sizeof(word));
	pci_generate_msix(dev->pi, 0);
}

/* A request that stays in flight as long as the test wants. */
static void hold(struct tdev *dev, bool on)
{
	struct gmem *gm = dev->pi->pi_gmem;

	if (on == dev->holding)
		return;
	dev->holding = on;
	if (on) {
		gm_pin_begin(gm);
		dev->pinned = gm_map(gm, (gpa_t){ scratch64(dev, REG_SRC) }, 4,
				     GM_WRITE);
		gm_pin(gm, &dev->pins);
		return;
	}
	if (dev->pinned)
		*dev->pinned = TDEV_DONE_WORD;
	if (gm_unpin(gm, &dev->pins))
		pci_wake(dev->pi);
}

static uint64_t tdev_barread(struct pci_devinst *pi, int bar, uint64_t off,
			     int size)
{
	struct tdev *dev = pi->pi_arg;
	uint64_t val = 0;

	if (bar != 0)
		return 0;
	if (off + (unsigned)size <= sizeof(dev->scratch)) {
		memcpy(&val, dev->scratch + off, (size_t)size);
		val = le64toh(val);
		dev->last_size = (uint32_t)size;
		return val;
	}
	switch (off) {
	case REG_NR_RESETS:
		return dev->nr_resets;
	case REG_NR_QUIESCES:
		return dev->nr_quiesces;
	case REG_NR_KICKS:
		return dev->nr_kicks;
	case REG_NR_AGAIN:
		return dev->nr_resubmitted;
	case REG_NR_COPIES:
		return dev->nr_copies;
	case REG_LAST_SIZE:
		return dev->last_size;
	case REG_LAST_ERROR:
		return dev->last_error;
	case REG_PEEK:
		return peek(dev);
	case REG_NOTE:
		note(dev, 0);
		return 0;
	default:
		return 0;
	}
}

static void tdev_barwrite(struct pci_devinst *pi, int bar, uint64_t off,
			  int size, uint64_t val)
{
	struct tdev *dev = pi->pi_arg;

	if (bar != 0)
		return;
	dev->nr_writes++;
	if (off + (unsigned)size <= sizeof(dev->scratch)) {
		val = htole64(val);
		memcpy(dev->scratch + off, &val, (size_t)size);
		dev->last_size = (uint32_t)size;
	} else if (off == REG_MSIX) {
		pci_generate_msix(pi, (int)val);
	} else if (off == REG_INTX && val) {
		pci_lintr_assert(pi);
	} else if (off == REG_INTX) {
		pci_lintr_deassert(pi);
	} else if (off == REG_HOLD) {
		hold(dev, val != 0);
	} else if (off == REG_NOTE) {
		note(dev, (uint32_t)val);
	} else if (off == REG_DOORBELL) {
		copy(dev);
	}
}

static void tdev_reset(struct pci_devinst *pi)
{
	struct tdev *dev = pi->pi_arg;

	memset(dev->scratch, 0, sizeof(dev->scratch));
	dev->nr_resets++;
	if (__atomic_load_n(&dev->slow_reset, __ATOMIC_ACQUIRE))
		pci_set_resetting(pi, true);
}

static void tdev_quiesce(struct pci_devinst *pi)
{
	struct tdev *dev = pi->pi_arg;

	dev->nr_quiesces++;
}

static void tdev_give_back(struct pci_devinst *pi)
{
	struct tdev *dev = pi->pi_arg;

	dev->nr_given_back++;
}

static void tdev_kick(struct pci_devinst *pi, bool missed)
{
	struct tdev *dev = pi->pi_arg;

	dev->nr_kicks++;
	if (__atomic_load_n(&dev->end_hold, __ATOMIC_ACQUIRE))
		hold(dev, false);
	copy(dev);
}

static bool tdev_poll(struct pci_devinst *pi, bool arm)
{
	struct tdev *dev = pi->pi_arg;

	dev->nr_polls += !arm;
	dev->nr_arms += arm;
	return false;
}

static bool tdev_is_doorbell(struct pci_devinst *pi, int bar, uint64_t off,
			     int size)
{
	return bar == 0 && off == REG_DOORBELL && size == 4;
}

static const struct pci_dev tdev_ops = {
	.pd_barread = tdev_barread,
	.pd_barwrite = tdev_barwrite,
	.pd_reset = tdev_reset,
	.pd_quiesce = tdev_quiesce,
	.pd_give_back = tdev_give_back,
	.pd_kick = tdev_kick,
	.pd_poll = tdev_poll,
	.pd_is_doorbell = tdev_is_doorbell,
};

/*
 * --- The server ---
 */

static void on_stop(void *arg, uint32_t events)
{
	struct tsrv *t = arg;

	vio_loop_stop(t->loop);
}

static void *run(void *arg)
{
	struct tsrv *t = arg;

	vio_loop_run(t->loop);
	return NULL;
}

static void count_log(void *arg, int level, const char *msg)
{
	struct tsrv *t = arg;

	__atomic_add_fetch(&t->nr_log, 1, __ATOMIC_SEQ_CST);
	if (getenv("VFIO_USER_TEST_LOG"))
		fprintf(stderr, "%s\n", msg);
}

static void count_client(void *arg, bool attached)
{
	struct tsrv *t = arg;

	__atomic_add_fetch(attached ? &t->nr_attached : &t->nr_detached, 1,
			   __ATOMIC_SEQ_CST);
}

static void build_tdev(struct pci_devinst *pi, void *arg)
{
	struct tdev *dev = arg;

	dev->pi = pi;
	pci_set_device(pi, &tdev_ops, dev);
	pci_set_cfg16(pi, 0, 0x1af4);
	pci_set_cfg16(pi, 2, 0x10ff);
	assert_int_equal(pci_add_bar(pi, 0, PCI_BAR_MEM32, TDEV_BAR_BYTES), 0);
	assert_int_equal(pci_add_msix(pi, TDEV_NR_MSIX, 1), 0);
	assert_true(pci_add_msi(pi) >= 0);
	pci_add_intx(pi);
}

void tsrv_start(struct tsrv *t)
{
	tsrv_start_on(t, build_tdev, &t->dev);
}

void tsrv_start_on(struct tsrv *t,
		   void (*build)(struct pci_devinst *pi, void *arg), void *arg)
{
	memset(t, 0, sizeof(*t));
	strcpy(t->dir, "/tmp/vfio_user_test.XXXXXX");
	assert_non_null(mkdtemp(t->dir));
	snprintf(t->path, sizeof(t->path), "%s/sock", t->dir);

	assert_int_equal(vio_loop_create(&t->loop), 0);
	assert_int_equal(
		vio_server_create(t->loop, VIO_VFIO_USER, "tdev", &t->srv), 0);
	vio_server_set_log(t->srv, count_log, t);
	vio_server_set_notify(t->srv, count_client, t);
	build(vio_server_pci(t->srv), arg);
	assert_int_equal(vio_server_listen_path(t->srv, t->path), 0);

	t->stop_fd = eventfd(0, EFD_CLOEXEC);
	assert_int_equal(
		vio_fd_add(t->loop, t->stop_fd, EPOLLIN, on_stop, t, &t->stop),
		0);
	assert_int_equal(pthread_create(&t->thread, NULL, run, t), 0);
}

void tsrv_halt(struct tsrv *t)
{
	uint64_t one = 1;

	if (t->halted)
		return;
	t->halted = true;
	assert_int_equal(write(t->stop_fd, &one, sizeof(one)), sizeof(one));
	pthread_join(t->thread, NULL);
}

void tsrv_stop(struct tsrv *t)
{
	tsrv_halt(t);
	vio_source_remove(t->stop);
	close(t->stop_fd);
	vio_server_destroy(t->srv);
	vio_loop_destroy(t->loop);
	assert_int_not_equal(access(t->path, F_OK), 0);
	assert_int_equal(rmdir(t->dir), 0);
}

void tsrv_await_detached(struct tsrv *t, unsigned nr)
{
	for (int i = 0; i < TCL_PATIENCE_MS; i++) {
		if (__atomic_load_n(&t->nr_detached, __ATOMIC_SEQ_CST) >= nr)
			return;
		usleep(1000);
	}
	fail_msg("server did not see its client go");
}

/*
 * --- The client ---
 */

void tcl_connect(struct tclient *c, const struct tsrv *t)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };

	strcpy(addr.sun_path, t->path);
	*c = (struct tclient){ .twin = -1 };
	c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(c->fd, (struct sockaddr *)&addr, sizeof(addr)),
			 0);
}

void tcl_open(struct tclient *c, const struct tsrv *t)
{
	tcl_connect(c, t);
	assert_int_equal(tcl_version(c,
				     "{\"capabilities\":{\"max_msg_fds\":16,"
				     "\"max_data_xfer_size\":1048576,"
				     "\"max_dma_maps\":65535,\"pgsizes\":4096,"
				     "\"write_multiple\":true,\"migration\":"
				     "{\"pgsize\":4096,"
				     "\"max_bitmap_size\":268435456}}}"),
			 0);
}

void tcl_close(struct tclient *c)
{
	close(c->fd);
	if (c->twin >= 0)
		close(c->twin);
	c->fd = c->twin = -1;
}

static void send_all(int fd, const void *buf, size_t len, const int *fds,
		     unsigned nr_fds)
{
	char control[CMSG_SPACE(256 * sizeof(int))] = { 0 };

	while (len > 0) {
		struct iovec iov = { (void *)buf, len };
		struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
		ssize_t n;

		if (nr_fds > 0) {
			struct cmsghdr *cmsg;

			msg.msg_control = control;
			msg.msg_controllen = CMSG_SPACE(nr_fds * sizeof(int));
			cmsg = CMSG_FIRSTHDR(&msg);
			cmsg->cmsg_len = CMSG_LEN(nr_fds * sizeof(int));
			cmsg->cmsg_level = SOL_SOCKET;
			cmsg->cmsg_type = SCM_RIGHTS;
			memcpy(CMSG_DATA(cmsg), fds, nr_fds * sizeof(int));
		}
		n = sendmsg(fd, &msg, MSG_NOSIGNAL);
		if (n < 0) /* the test will find the connection closed */
			return;
		buf = (const char *)buf + n;
		len -= (size_t)n;
		nr_fds = 0;
	}
}

uint16_t tcl_send(struct tclient *c, uint16_t cmd, uint32_t flags,
		  const void *payload, size_t len, const int *fds,
		  unsigned nr_fds)
{
	struct vfmsg_hdr hdr = {
		.id = ++c->id,
		.cmd = cmd,
		.size = (uint32_t)(VFMSG_HDR_BYTES + len),
		.flags = flags,
	};
	uint8_t *buf = malloc(sizeof(hdr) + len);

	memcpy(buf, &hdr, sizeof(hdr));
	if (len > 0)
		memcpy(buf + sizeof(hdr), payload, len);
	send_all(c->fd, buf, sizeof(hdr) + len, fds, nr_fds);
	free(buf);
	return hdr.id;
}

static bool is_ready(int fd, int ms)
{
	struct pollfd pfd = { .fd = fd, .events = POLLIN };

	return poll(&pfd, 1, ms) > 0;
}

static bool recv_all(int fd, void *buf, size_t len, struct tmsg *m)
{
	while (len > 0) {
		char control[CMSG_SPACE(4 * sizeof(int))];
		struct iovec iov = { buf, len };
		struct msghdr msg = {
			.msg_iov = &iov,
			.msg_iovlen = 1,
			.msg_control = control,
			.msg_controllen = sizeof(control),
		};
		struct cmsghdr *cmsg;
		ssize_t n;

		if (!is_ready(fd, TCL_PATIENCE_MS))
			fail_msg("the server does not answer");
		n = recvmsg(fd, &msg, MSG_CMSG_CLOEXEC);
		if (n <= 0)
			return false;
		cmsg = CMSG_FIRSTHDR(&msg);
		if (cmsg) {
			m->nr_fds = (unsigned)((cmsg->cmsg_len - CMSG_LEN(0)) /
					       sizeof(int));
			memcpy(m->fds, CMSG_DATA(cmsg),
			       m->nr_fds * sizeof(int));
		}
		buf = (char *)buf + n;
		len -= (size_t)n;
	}
	return true;
}

bool tcl_recv(int fd, struct tmsg *m)
{
	static uint8_t payload[VFMSG_MAX_BYTES];

	*m = (struct tmsg){ .payload = payload };
	if (!recv_all(fd, &m->hdr, sizeof(m->hdr), m))
		return false;
	assert_in_range(m->hdr.size, VFMSG_HDR_BYTES, VFMSG_MAX_BYTES);
	m->len = m->hdr.size - VFMSG_HDR_BYTES;
	return recv_all(fd, payload, m->len, m);
}

bool tcl_is_silent(int fd, int ms)
{
	return !is_ready(fd, ms);
}

bool tcl_is_closed(struct tclient *c)
{
	struct tmsg m;

	return !tcl_recv(c->fd, &m);
}

int tcl_call(struct tclient *c, uint16_t cmd, const void *payload, size_t len,
	     const int *fds, unsigned nr_fds, struct tmsg *ret_msg)
{
	uint16_t id = tcl_send(c, cmd, 0, payload, len, fds, nr_fds);
	struct tmsg scratch, *m = ret_msg ? ret_msg : &scratch;

	if (!tcl_recv(c->fd, m))
		fail_msg("the server closed the connection");
	assert_int_equal(m->hdr.id, id);
	assert_int_equal(m->hdr.cmd, cmd);
	if (m->hdr.flags == (VFMSG_REPLY | VFMSG_ERROR)) {
		assert_int_equal(m->hdr.size, VFMSG_HDR_BYTES);
		assert_int_not_equal(m->hdr.error, 0);
		return (int)m->hdr.error;
	}
	assert_int_equal(m->hdr.flags, VFMSG_REPLY);
	assert_int_equal(m->hdr.error, 0);
	return 0;
}

int tcl_version(struct tclient *c, const char *json)
{
	size_t json_len = json ? strlen(json) + 1 : 0;
	uint8_t *buf = calloc(1, 4 + json_len);
	struct tmsg m;
	int ret;

	if (json)
		memcpy(buf + 4, json, json_len);
	ret = tcl_call(c, VFMSG_VERSION, buf, 4 + json_len, NULL, 0, &m);
	free(buf);
	if (m.nr_fds > 0)
		c->twin = m.fds[0];
	return ret;
}

int tcl_map(struct tclient *c, uint64_t iova, uint64_t size, uint64_t offset,
	    uint32_t flags, int fd)
{
	struct twire_dma_map w = { sizeof(w), flags, offset, iova, size };

	return tcl_call(c, VFMSG_DMA_MAP, &w, sizeof(w), &fd, fd >= 0, NULL);
}

int tcl_unmap(struct tclient *c, uint64_t iova, uint64_t size, uint32_t flags)
{
	struct twire_dma_unmap w = { sizeof(w), flags, iova, size };
	struct tmsg m;
	int ret = tcl_call(c, VFMSG_DMA_UNMAP, &w, sizeof(w), NULL, 0, &m);

	if (ret == 0) {
		assert_int_equal(m.len, sizeof(w));
		assert_memory_equal(m.payload, &w, sizeof(w));
	}
	return ret;
}

int tcl_set_irqs(struct tclient *c, uint32_t flags, uint32_t index,
		 uint32_t start, uint32_t count, const int *fds,
		 unsigned nr_fds)
{
	struct twire_irqs w = { sizeof(w), flags, index, start, count };

	return tcl_call(c, VFMSG_SET_IRQS, &w, sizeof(w), fds, nr_fds, NULL);
}

int tcl_reset(struct tclient *c)
{
	return tcl_call(c, VFMSG_RESET, NULL, 0, NULL, 0, NULL);
}

uint64_t tcl_read(struct tclient *c, uint32_t region, uint64_t off,
		  uint32_t size)
{
	struct twire_access w = { off, region, size };
	uint64_t val = 0;
	struct tmsg m;

	assert_int_equal(
		tcl_call(c, VFMSG_REGION_READ, &w, sizeof(w), NULL, 0, &m), 0);
	assert_int_equal(m.len, sizeof(w) + size);
	assert_memory_equal(m.payload, &w, sizeof(w));
	memcpy(&val, m.payload + sizeof(w), size < 8 ? size : 8);
	return le64toh(val); /* as registers lie on a bus */
}

static size_t encode_write(uint8_t *buf, uint32_t region, uint64_t off,
			   uint32_t size, uint64_t val)
{
	struct twire_access w = { off, region, size };

	val = htole64(val);
	memcpy(buf, &w, sizeof(w));
	memcpy(buf + sizeof(w), &val, size);
	return sizeof(w) + size;
}

void tcl_write(struct tclient *c, uint32_t region, uint64_t off, uint32_t size,
	       uint64_t val)
{
	uint8_t buf[24];
	size_t len = encode_write(buf, region, off, size, val);
	struct tmsg m;

	assert_int_equal(tcl_call(c, VFMSG_REGION_WRITE, buf, len, NULL, 0, &m),
			 0);
	assert_int_equal(m.len, 16);
	assert_memory_equal(m.payload, buf, 16);
}

void tcl_post(struct tclient *c, uint32_t region, uint64_t off, uint32_t size,
	      uint64_t val)
{
	uint8_t buf[24];
	size_t len = encode_write(buf, region, off, size, val);

	tcl_send(c, VFMSG_REGION_WRITE, VFMSG_NO_REPLY, buf, len, NULL, 0);
}

void tcl_enable_msix(struct tclient *c)
{
	tcl_write(c, VFMSG_REGION_CFG, TDEV_MSIX_CAP + 2, 2, 0x8000);
}

uint64_t tcl_events(int eventfd, int ms)
{
	uint64_t count = 0;

	if (!is_ready(eventfd, ms))
		return 0;
	assert_int_equal(read(eventfd, &count, sizeof(count)), sizeof(count));
	return emulated_count(count);
}

unsigned tcl_nr_maps(void)
{
	FILE *f = fopen("/proc/self/maps", "re");
	char line[512];
	unsigned nr = 0;

	while (fgets(line, sizeof(line), f))
		nr += strstr(line, "memfd:guest") != NULL;
	fclose(f);
	return nr;
}

int tcl_memfd(size_t bytes)
{
	int fd = memfd_create("guest", MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)bytes), 0);
	return fd;
}

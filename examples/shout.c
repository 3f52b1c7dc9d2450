/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A console that shouts back: a device with configuration, two queues and
 * requests that complete later. In the guest, `echo hello >/dev/hvc0` makes
 * /dev/hvc0 say HELLO.
 *
 *	driver --tx--> serve_tx() --begun--> worker() --done--> on_done()
 *	driver <--rx-- serve_rx() <---------- out ----------------+
 *
 * The worker's thread calls no function of the library: the heads of chains
 * that it works on go through a pipe to it, and through another one back.
 */
#define _GNU_SOURCE 1 /* pipe2() */

#include <ctype.h>
#include <endian.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <linux/virtio_console.h>

#include <viodev/iov.h>
#include <viodev/loop.h>
#include <viodev/server.h>
#include <viodev/virtio.h>

enum { RX, TX, NR_QUEUES, QSIZE = 64, NIOV = 16, TEXT = 256 };

struct request {
	size_t len;
	char text[TEXT];
};

struct shout {
	struct virtio_softc vs; /* comes first */
	struct vqueue_info vq[NR_QUEUES];
	struct {
		uint16_t cols, rows; /* little-endian */
	} cfg;
	struct request reqs[QSIZE]; /* in flight, by the head of the chain */
	int begun[2], done[2];      /* pipes */
	char out[4096]; /* for the driver, as soon as it has buffers */
	size_t out_len;
};

/* It never ends, because the program ends by a signal. See viodev-device(3). */
static void *worker(void *arg)
{
	struct shout *s = arg;
	uint16_t head;

	while (read(s->begun[0], &head, sizeof(head)) > 0) {
		struct request *req = &s->reqs[head];

		for (size_t i = 0; i < req->len; i++)
			req->text[i] =
				(char)toupper((unsigned char)req->text[i]);
		usleep(10000); /* it is hard work */
		if (write(s->done[1], &head, sizeof(head)) < 0)
			break;
	}
	return NULL;
}

static enum vq_served serve_tx(void *arg, struct vqueue_info *vq)
{
	struct shout *s = arg;
	struct iovec iov[NIOV];
	struct vio_iov_cursor from = { iov, 0 };
	struct vi_req chain;
	struct request *req;
	uint16_t head;

	if (vq_getchain(vq, iov, NIOV, &chain) <= 0)
		return VQ_IDLE;
	head = (uint16_t)chain.idx;
	from.niov = chain.readable;
	req = &s->reqs[head];
	req->len = vio_iov_take(&from, req->text, TEXT);
	/* The pipe has room for a ring full. */
	return write(s->begun[1], &head, sizeof(head)) > 0 ? VQ_MORE : VQ_IDLE;
}

static enum vq_served serve_rx(void *arg, struct vqueue_info *vq)
{
	struct shout *s = arg;
	struct iovec iov[NIOV];
	struct vio_iov_cursor to = { iov, 0 };
	struct vi_req chain;
	size_t n;

	if (s->out_len == 0)
		return VQ_WAIT; /* for on_done() */
	if (vq_getchain(vq, iov, NIOV, &chain) <= 0)
		return VQ_IDLE;
	to.iov += chain.readable;
	to.niov = chain.writable;
	n = vio_iov_write(&to, s->out, s->out_len);
	s->out_len -= n;
	memmove(s->out, s->out + n, s->out_len);
	vq_relchain(vq, (uint16_t)chain.idx, (uint32_t)n);
	return VQ_MORE;
}

static void shout_notify(void *arg, struct vqueue_info *vq)
{
	enum vq_served served = vq_serve(
		vq, vq->vq_qsize, vq->vq_num == RX ? serve_rx : serve_tx, arg);

	vq_endchains(vq, served == VQ_IDLE);
	if (served == VQ_MORE)
		vi_wake(vq->vq_vs);
}

/* A chain from before a reset goes back as well, but its text goes nowhere. */
static void give_back(struct shout *s, uint16_t head)
{
	const struct request *req = &s->reqs[head];

	if (vq_chain_live(&s->vq[TX], head) &&
	    req->len <= sizeof(s->out) - s->out_len) {
		memcpy(s->out + s->out_len, req->text, req->len);
		s->out_len += req->len;
	}
	vq_relchain(&s->vq[TX], head, 0);
}

static void on_done(void *arg, uint32_t events)
{
	struct shout *s = arg;
	uint16_t head;

	(void)events;
	while (read(s->done[0], &head, sizeof(head)) > 0)
		give_back(s, head);
	vq_endchains(&s->vq[TX], 0);
	shout_notify(s, &s->vq[RX]);
}

/* Requests that run are given back when they end. */
static void shout_reset(void *arg)
{
	((struct shout *)arg)->out_len = 0;
}

static int shout_cfgread(void *arg, int offset, int size, uint32_t *retval)
{
	struct shout *s = arg;

	return vi_cfg_read(&s->cfg, sizeof(s->cfg), offset, size, retval);
}

static struct virtio_consts shout_consts = {
	.vc_name = "shout",
	.vc_nvq = NR_QUEUES,
	.vc_cfgsize = 4,
	.vc_reset = shout_reset,
	.vc_qnotify = shout_notify,
	.vc_cfgread = shout_cfgread,
	.vc_hv_caps_legacy =
		VI_RING_CAPS_LEGACY | VI_BIT(VIRTIO_CONSOLE_F_SIZE),
	.vc_hv_caps_modern =
		VI_RING_CAPS_MODERN | VI_BIT(VIRTIO_CONSOLE_F_SIZE),
};

static int shout_init(struct shout *s, struct pci_devinst *pi,
		      struct vio_loop *loop)
{
	struct vio_source *source;
	pthread_t thread;

	s->cfg.cols = htole16(132);
	s->cfg.rows = htole16(43);
	s->vq[RX].vq_qsize = s->vq[TX].vq_qsize = QSIZE;
	vi_softc_linkup(&s->vs, &shout_consts, s, pi, s->vq);
	vi_pci_init(pi, VIRTIO_MODE_TRANSITIONAL, VIRTIO_DEV_CONSOLE,
		    VIRTIO_ID_CONSOLE, PCIC_SIMPLECOMM);
	if (!vi_intr_init(&s->vs, true) || !vi_pcibar_setup(&s->vs))
		return -1;
	if (pipe2(s->begun, O_CLOEXEC) < 0 ||
	    pipe2(s->done, O_CLOEXEC | O_NONBLOCK) < 0 ||
	    vio_fd_add(loop, s->done[0], EPOLLIN, on_done, s, &source) < 0)
		return -1;
	return pthread_create(&thread, NULL, worker, s);
}

int main(int argc, char *argv[])
{
	static struct shout s;
	struct vio_server *srv;
	struct vio_loop *loop;

	if (argc != 2) {
		fprintf(stderr, "usage: shout SOCKET\n");
		return 2;
	}
	if (vio_loop_create(&loop) < 0 ||
	    vio_server_create(loop, VIO_VFIO_USER, "shout", &srv) < 0 ||
	    shout_init(&s, vio_server_pci(srv), loop) != 0 ||
	    vio_server_listen_path(srv, argv[1]) < 0) {
		fprintf(stderr, "shout: cannot serve %s\n", argv[1]);
		return 1;
	}
	printf("ready\n");
	fflush(stdout);
	return vio_loop_run(loop) < 0;
}

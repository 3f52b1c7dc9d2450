/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A console that shouts back: a device with configuration, two queues and
 * requests that complete later. In the guest, `echo hello >/dev/hvc0` makes
 * /dev/hvc0 say HELLO.
 *
 *	driver --tx--> serve_tx() --begun--> worker() --done--> on_done()
 *	driver <--rx-- serve_rx() <---------- out ----------------+
 *
 * All calls of the library but one come from the loop's thread. The worker has
 * the buffers of the chains it was given, and vio_wake().
 */
#include <ctype.h>
#include <endian.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <linux/virtio_console.h>

#include <viodev/iov.h>
#include <viodev/loop.h>
#include <viodev/server.h>
#include <viodev/virtio.h>

enum { RX, TX, NR_QUEUES, QSIZE = 64, NIOV = 16, TEXT = 256 };

struct request {
	uint16_t head; /* names its chain */
	struct iovec iov[NIOV];
	int niov;
	size_t len;
	char text[TEXT];
};

struct shout {
	struct virtio_softc vs; /* comes first */
	struct vqueue_info vq[NR_QUEUES];
	struct {
		uint16_t cols, rows; /* little-endian */
	} cfg;
	char out[4096]; /* for the driver, as soon as it has buffers */
	size_t out_len;

	/* No more chains are in flight than there are ring entries. */
	struct request reqs[QSIZE];
	unsigned nr_begun, nr_done, nr_back; /* free-running */
	pthread_mutex_t lock;                /* of nr_begun and nr_done */
	pthread_cond_t begun;
	struct vio_source *wake; /* runs on_done() */
};

/* --- the worker's thread --- */

static struct request *next_begun(struct shout *s)
{
	struct request *req;

	pthread_mutex_lock(&s->lock);
	while (s->nr_done == s->nr_begun)
		pthread_cond_wait(&s->begun, &s->lock);
	req = &s->reqs[s->nr_done % QSIZE];
	pthread_mutex_unlock(&s->lock);
	return req;
}

/* It never ends, because the program ends by a signal. See viodev-device(3). */
static void *worker(void *arg)
{
	static const struct timespec work_time = { .tv_nsec = 10000000 };
	struct shout *s = arg;

	for (;;) {
		struct request *req = next_begun(s);
		struct vio_iov_cursor from = { req->iov, req->niov };

		req->len = vio_iov_take(&from, req->text, TEXT);
		for (size_t i = 0; i < req->len; i++)
			req->text[i] =
				(char)toupper((unsigned char)req->text[i]);
		nanosleep(&work_time, NULL);

		pthread_mutex_lock(&s->lock);
		s->nr_done++;
		pthread_mutex_unlock(&s->lock);
		vio_wake(s->wake);
	}
	return NULL;
}

/* --- the loop's thread --- */

static enum vq_served serve_tx(void *arg, struct vqueue_info *vq)
{
	struct shout *s = arg;
	struct request *req = &s->reqs[s->nr_begun % QSIZE];
	struct vi_req chain;

	if (vq_getchain(vq, req->iov, NIOV, &chain) <= 0)
		return VQ_IDLE;
	req->head = (uint16_t)chain.idx;
	req->niov = chain.readable;
	pthread_mutex_lock(&s->lock);
	s->nr_begun++;
	pthread_mutex_unlock(&s->lock);
	pthread_cond_signal(&s->begun);
	return VQ_MORE;
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

/* A chain of before a reset goes back as well, but its text goes nowhere. */
static void give_back(struct shout *s, const struct request *req)
{
	if (vq_chain_live(&s->vq[TX], req->head) &&
	    req->len <= sizeof(s->out) - s->out_len) {
		memcpy(s->out + s->out_len, req->text, req->len);
		s->out_len += req->len;
	}
	vq_relchain(&s->vq[TX], req->head, 0);
}

static void on_done(void *arg)
{
	struct shout *s = arg;
	unsigned nr_done;

	pthread_mutex_lock(&s->lock);
	nr_done = s->nr_done;
	pthread_mutex_unlock(&s->lock);
	while (s->nr_back != nr_done)
		give_back(s, &s->reqs[s->nr_back++ % QSIZE]);
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
	pthread_t thread;

	s->cfg.cols = htole16(132);
	s->cfg.rows = htole16(43);
	s->vq[RX].vq_qsize = s->vq[TX].vq_qsize = QSIZE;
	vi_softc_linkup(&s->vs, &shout_consts, s, pi, s->vq);
	vi_pci_init(pi, VIRTIO_MODE_TRANSITIONAL, VIRTIO_DEV_CONSOLE,
		    VIRTIO_ID_CONSOLE, PCIC_SIMPLECOMM);
	if (!vi_intr_init(&s->vs, true) || !vi_pcibar_setup(&s->vs))
		return -1;
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->begun, NULL);
	if (vio_wake_add(loop, on_done, s, &s->wake) < 0)
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

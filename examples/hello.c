/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A new virtio device, served to QEMU: an entropy source that is not random at
 * all. In the guest, `head -c 80 /dev/hwrng` reads a greeting.
 *
 *	hello /tmp/hello.sock &
 *	qemu-system-x86_64 -machine q35,memory-backend=mem \
 *	    -object memory-backend-memfd,id=mem,size=512M,share=on \
 *	    -device '{"driver":"vfio-user-pci","socket":{"type":"unix","path":"/tmp/hello.sock"}}' ...
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <viodev/loop.h>
#include <viodev/server.h>
#include <viodev/virtio.h>

static const char greeting[] = "hello from the device side of virtio\n";

struct hello {
	struct virtio_softc vs; /* comes first */
	struct vqueue_info queue;
	size_t pos; /* in the greeting */
};

static size_t fill(struct hello *h, const struct iovec *iov, int niov)
{
	size_t done = 0;

	for (int i = 0; i < niov; i++) {
		char *p = iov[i].iov_base;

		for (size_t k = 0; k < iov[i].iov_len; k++, done++) {
			p[k] = greeting[h->pos];
			h->pos = (h->pos + 1) % (sizeof(greeting) - 1);
		}
	}
	return done;
}

/* Fill one of the buffers that the driver made available. */
static enum vq_served hello_serve(void *arg, struct vqueue_info *vq)
{
	struct hello *h = arg;
	struct iovec iov[16];
	struct vi_req req;
	size_t n;

	if (vq_getchain(vq, iov, 16, &req) <= 0)
		return VQ_IDLE;
	n = fill(h, iov + req.readable, req.writable);
	vq_relchain(vq, (uint16_t)req.idx, (uint32_t)n);
	return VQ_MORE;
}

/* The driver rang. Serve a ring full, then let the loop run. */
static void hello_notify(void *arg, struct vqueue_info *vq)
{
	enum vq_served served = vq_serve(vq, vq->vq_qsize, hello_serve, arg);

	vq_endchains(vq, served == VQ_IDLE);
	if (served == VQ_MORE)
		vi_wake(vq->vq_vs);
}

static struct virtio_consts hello_consts = {
	.vc_name = "hello",
	.vc_nvq = 1,
	.vc_qnotify = hello_notify,
	.vc_hv_caps_legacy = VI_RING_CAPS_LEGACY,
	.vc_hv_caps_modern = VI_RING_CAPS_MODERN,
};

int main(int argc, char *argv[])
{
	static struct hello h = { .queue.vq_qsize = 8 };
	struct pci_devinst *pi;
	struct vio_loop *loop;
	struct vio_server *srv;
	int ret;

	if (argc != 2) {
		fprintf(stderr, "usage: hello SOCKET\n");
		return 2;
	}
	if (vio_loop_create(&loop) < 0 ||
	    vio_server_create(loop, VIO_VFIO_USER, "hello", &srv) < 0)
		return 1;

	pi = vio_server_pci(srv);
	vi_softc_linkup(&h.vs, &hello_consts, &h, pi, &h.queue);
	vi_pci_init(pi, VIRTIO_MODE_TRANSITIONAL, VIRTIO_DEV_RANDOM,
		    VIRTIO_ID_ENTROPY, PCIC_OTHER);
	if (!vi_intr_init(&h.vs, true) || !vi_pcibar_setup(&h.vs))
		return 1;

	ret = vio_server_listen_path(srv, argv[1]);
	if (ret < 0) {
		fprintf(stderr, "hello: %s: %s\n", argv[1], strerror(-ret));
		return 1;
	}
	printf("ready\n");
	fflush(stdout);
	return vio_loop_run(loop) < 0;
}

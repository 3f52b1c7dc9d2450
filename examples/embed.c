/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A device of one's own inside a program, on libviodev-core alone: no server,
 * no loop, no backend, and nothing to link but libc. It fills with random
 * bytes what the toy guest gives it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include <viodev/gmem.h>
#include <viodev/pci.h>
#include <viodev/virtio.h>

#include "toy_guest.h"

/*
 * --- The device ---
 */

struct entropy {
	struct virtio_softc vs; /* comes first */
	struct vqueue_info queue;
};

static enum vq_served entropy_serve(void *sc, struct vqueue_info *vq)
{
	struct iovec iov[8];
	struct vi_req req;
	ssize_t n = 0;

	(void)sc;
	if (vq_getchain(vq, iov, 8, &req) <= 0)
		return VQ_IDLE;
	if (req.writable > 0)
		n = getrandom(iov[req.readable].iov_base,
			      iov[req.readable].iov_len, 0);
	vq_relchain(vq, (uint16_t)req.idx, n > 0 ? (uint32_t)n : 0);
	return VQ_MORE;
}

static void entropy_notify(void *sc, struct vqueue_info *vq)
{
	enum vq_served served = vq_serve(vq, vq->vq_qsize, entropy_serve, sc);

	vq_endchains(vq, served == VQ_IDLE);
	if (served == VQ_MORE)
		vi_wake(vq->vq_vs); /* on_wake() */
}

static struct virtio_consts entropy_consts = {
	.vc_name = "entropy",
	.vc_nvq = 1,
	.vc_qnotify = entropy_notify,
	.vc_hv_caps_modern = VI_RING_CAPS_MODERN,
	.vc_hv_caps_legacy = VI_RING_CAPS_LEGACY,
};

static bool entropy_init(struct entropy *e, struct pci_devinst *pi)
{
	vi_softc_linkup(&e->vs, &entropy_consts, e, pi, &e->queue);
	e->queue.vq_qsize = 64;
	vi_pci_init(pi, VIRTIO_MODE_TRANSITIONAL, VIRTIO_DEV_RANDOM,
		    VIRTIO_ID_RNG, PCIC_OTHER);
	return vi_intr_init(&e->vs, true) && vi_pcibar_setup(&e->vs);
}

/*
 * --- The embedder: toy_host is its side of the PCI function ---
 */

int main(void)
{
	uint8_t *ram = aligned_alloc(4096, RAM_BYTES);
	struct entropy e = { 0 };
	struct pci_devinst pi;
	struct gmem gm;

	memset(ram, 0, RAM_BYTES);
	gm_init(&gm, NULL, NULL);
	gm_add(&gm, (gpa_t){ 0 }, RAM_BYTES, ram, GM_READ | GM_WRITE);
	pci_func_init(&pi, &toy_host, NULL, &gm);
	if (!entropy_init(&e, &pi)) {
		fprintf(stderr, "cannot create the device\n");
		return 1;
	}

	guest_draws_entropy(&pi, ram);
	while (toy_woken())
		pci_kick(&pi);
	guest_prints_entropy(ram);
	printf("\n%u interrupt\n", nr_interrupts);

	vi_softc_fini(&e.vs);
	pci_func_fini(&pi);
	gm_fini(&gm);
	free(ram);
	return 0;
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A device on a PCI function, with libviodev-core alone: no loop, no server, no
 * backend. It prints what its guest's firmware would find.
 */
#include <stdio.h>

#include <viodev/gmem.h>
#include <viodev/pci.h>
#include <viodev/version.h>
#include <viodev/virtio.h>

#if VIODEV_VERSION < VIODEV_VERSION_OF(0, 1, 0)
#error "an older header"
#endif

struct device {
	struct virtio_softc vs; /* comes first */
	struct vqueue_info queue;
};

static void on_notify(void *sc, struct vqueue_info *vq)
{
	(void)sc;
	(void)vq;
}

static struct virtio_consts consts = {
	.vc_name = "core",
	.vc_nvq = 1,
	.vc_qnotify = on_notify,
	.vc_hv_caps_modern = VI_RING_CAPS_MODERN,
};

int main(void)
{
	static const struct pci_host host = { .ph_owns_msix_table = true };
	static struct device dev = { .queue.vq_qsize = 8 };
	struct pci_devinst pi;
	struct gmem gm;

	gm_init(&gm, NULL, NULL);
	pci_func_init(&pi, &host, NULL, &gm);
	vi_softc_linkup(&dev.vs, &consts, &dev, &pi, &dev.queue);
	vi_pci_init(&pi, VIRTIO_MODE_MODERN, VIRTIO_DEV_RANDOM,
		    VIRTIO_ID_ENTROPY, PCIC_OTHER);
	if (!vi_intr_init(&dev.vs, true) || !vi_pcibar_setup(&dev.vs))
		return 1;
	printf("%s %d.%d.%d %08x\n", vio_version(), VIODEV_VERSION_MAJOR,
	       VIODEV_VERSION_MINOR, VIODEV_VERSION_PATCH,
	       pci_cfg_read(&pi, 0, 4));
	vi_softc_fini(&dev.vs);
	pci_func_fini(&pi);
	gm_fini(&gm);
	return 0;
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzzes the register files and the rings together: the input is a list of
 * accesses that a guest could make, to configuration space, BARs and memory,
 * against a device that echoes what it reads into what it may write.
 */
#include <stdint.h>
#include <string.h>

#include <viodev/virtio.h>

#define RAM_BYTES 65536
#define NR_QUEUES 2

struct echo {
	struct virtio_softc vs;
	struct vqueue_info queues[NR_QUEUES];
	uint8_t config[24];
};

static void echo_notify(void *arg, struct vqueue_info *vq)
{
	struct iovec iov[32];
	struct vi_req req;

	vq_kick_disable(vq);
	for (int n = 0; n < 64 && vq_getchain(vq, iov, 32, &req) > 0; n++) {
		uint32_t done = 0;
		uint8_t sum = 0;

		for (int i = 0; i < req.readable; i++) {
			for (size_t k = 0; k < iov[i].iov_len; k++)
				sum += ((uint8_t *)iov[i].iov_base)[k];
		}
		for (int i = req.readable; i < req.readable + req.writable;
		     i++) {
			memset(iov[i].iov_base, sum, iov[i].iov_len);
			done += (uint32_t)iov[i].iov_len;
		}
		vq_relchain(vq, (uint16_t)req.idx, done);
	}
	vq_kick_enable(vq);
	vq_endchains(vq, 1);
}

static int echo_cfgread(void *arg, int offset, int size, uint32_t *retval)
{
	struct echo *e = arg;

	memcpy(retval, &e->config[offset], (size_t)size);
	return 0;
}

static int echo_cfgwrite(void *arg, int offset, int size, uint32_t value)
{
	struct echo *e = arg;

	memcpy(&e->config[offset], &value, (size_t)size);
	return 0;
}

static struct virtio_consts echo_consts = {
	.vc_name = "echo",
	.vc_nvq = NR_QUEUES,
	.vc_cfgsize = 23,
	.vc_qnotify = echo_notify,
	.vc_cfgread = echo_cfgread,
	.vc_cfgwrite = echo_cfgwrite,
	.vc_hv_caps_legacy = VI_RING_CAPS_LEGACY,
	.vc_hv_caps_modern = VI_RING_CAPS_MODERN,
};

static void drop_log(void *arg, int level, const char *msg)
{
}

static const struct pci_host host = { .ph_log = drop_log };

/* Takes numbers off the input; 0 when it is used up. */
static uint64_t take(const uint8_t **data, size_t *size, size_t bytes)
{
	uint64_t v = 0;

	if (bytes > *size)
		bytes = *size;
	memcpy(&v, *data, bytes);
	*data += bytes;
	*size -= bytes;
	return v;
}

/* The short way to a live queue, which noise seldom finds. */
static void go_live(struct pci_devinst *pi, struct echo *e)
{
	const struct {
		unsigned off, size;
		uint64_t val;
	} writes[] = {
		{ VIRTIO_PCI_COMMON_STATUS, 1, 0 },
		{ VIRTIO_PCI_COMMON_GFSELECT, 4, 1 },
		{ VIRTIO_PCI_COMMON_GF, 4, 1 },
		{ VIRTIO_PCI_COMMON_GFSELECT, 4, 0 },
		{ VIRTIO_PCI_COMMON_GF, 4, VI_RING_CAPS_MODERN },
		{ VIRTIO_PCI_COMMON_STATUS, 1, 0xb },
		{ VIRTIO_PCI_COMMON_Q_SIZE, 2, 8 },
		{ VIRTIO_PCI_COMMON_Q_DESCLO, 4, 0x1000 },
		{ VIRTIO_PCI_COMMON_Q_AVAILLO, 4, 0x1100 },
		{ VIRTIO_PCI_COMMON_Q_USEDLO, 4, 0x1200 },
		{ VIRTIO_PCI_COMMON_Q_ENABLE, 2, 1 },
		{ VIRTIO_PCI_COMMON_STATUS, 1, 0xf },
	};

	for (size_t i = 0; i < sizeof(writes) / sizeof(*writes); i++)
		pci_bar_write(pi, VIRTIO_MODERN_BAR, writes[i].off,
			      (int)writes[i].size, writes[i].val);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static _Alignas(4096) uint8_t ram[RAM_BYTES];
	struct echo e = { .queues = { { .vq_qsize = 16 }, { .vq_qsize = 4 } } };
	struct pci_devinst pi;
	struct gmem gm;

	memset(ram, 0, sizeof(ram));
	gm_init(&gm, NULL, NULL);
	gm_add(&gm, (gpa_t){ 0 }, RAM_BYTES / 2, ram, GM_READ | GM_WRITE);
	gm_add(&gm, (gpa_t){ RAM_BYTES / 2 }, RAM_BYTES / 4,
	       ram + RAM_BYTES / 2, GM_READ);
	pci_init(&pi, &host, NULL, &gm);
	vi_softc_linkup(&e.vs, &echo_consts, &e, &pi, e.queues);
	vi_pci_init(&pi, VIRTIO_MODE_TRANSITIONAL, 0x1005, 4, 0xff);
	vi_intr_init(&e.vs, true);
	vi_pcibar_setup(&e.vs);

	while (size) {
		uint8_t op = (uint8_t)take(&data, &size, 1);
		int width = 1 << (op >> 6);
		uint64_t off = take(&data, &size, 2);
		int bar = (op >> 3) & 7;

		switch (op & 7) {
		case 0:
			pci_cfg_read(&pi, off & 0xff, (unsigned)width);
			break;
		case 1:
			pci_cfg_write(&pi, off & 0xff, (unsigned)width,
				      (uint32_t)take(&data, &size, 4));
			break;
		case 2:
			pci_bar_read(&pi, bar, off, width);
			break;
		case 3:
			pci_bar_write(&pi, bar, off, width,
				      take(&data, &size, (size_t)width));
			break;
		case 4:
			go_live(&pi, &e);
			break;
		case 5: /* the ring's neighbourhood */
			ram[0x1000 + off % 0x300] =
				(uint8_t)take(&data, &size, 1);
			break;
		case 6:
			pci_bar_write(&pi, VIRTIO_MODERN_BAR,
				      0x3000 + 4 * (off % NR_QUEUES), 2, 0);
			break;
		default:
			if (off % 16 == 0)
				pci_reset(&pi);
			else
				pci_kick(&pi);
			break;
		}
	}
	vi_softc_fini(&e.vs);
	pci_fini(&pi);
	gm_fini(&gm);
	return 0;
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A device on libviodev_core alone: a transport of its own in place of a PCI
 * function, and nothing to link but libc. Whatever core calls of another layer
 * keeps this from linking.
 */
#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/core.h"

#define RAM_BYTES 65536
#define DESC      0x1000
#define AVAIL     0x2000
#define USED      0x3000
#define BUFFER    0x4000

static struct device {
	struct virtio_softc vs; /* first */
	struct vqueue_info queues[2];
	uint8_t config[4];
} dev;

static _Alignas(4096) uint8_t ram[RAM_BYTES];
static unsigned nr_interrupts, nr_resets, nr_lines, nr_allocs, fail_alloc;

static void check(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "not so: %s\n", what);
	exit(1);
}

/* The linker puts it in place of aligned_alloc(). */
void *__real_aligned_alloc(size_t align, size_t size);
void *__wrap_aligned_alloc(size_t align, size_t size);

void *__wrap_aligned_alloc(size_t align, size_t size)
{
	nr_allocs++;
	return nr_allocs == fail_alloc ? NULL :
					 __real_aligned_alloc(align, size);
}

/*
 * --- The transport ---
 */

static void on_interrupt(struct virtio_softc *vs, uint8_t isr, uint16_t vector)
{
	nr_interrupts += isr == VIRTIO_PCI_ISR_INTR && vector == 7;
}

static void on_reset(struct virtio_softc *vs)
{
	check(vi_transport_arg(vs) == ram, "the transport gets its argument");
	nr_resets++;
}

static void ignore(struct virtio_softc *vs)
{
}

static void on_log(struct virtio_softc *vs, int level, const char *msg)
{
	check(!strncmp(msg, "alone: ", 7), "a line begins with the name");
	nr_lines++;
}

static const struct vi_transport transport = {
	.interrupt = on_interrupt,
	.reset = on_reset,
	.reset_done = ignore,
	.wake = ignore,
	.log = on_log,
};

/*
 * --- The device: it fills what it gets ---
 */

static void on_notify(void *sc, struct vqueue_info *vq)
{
	struct iovec iov[4];
	struct vi_req req;

	while (vq_getchain(vq, iov, 4, &req) > 0) {
		memset(iov[req.readable].iov_base, 0xa5, 16);
		vq_relchain(vq, (uint16_t)req.idx, 16);
	}
	vq_endchains(vq, 1);
}

static int on_cfgread(void *sc, int offset, int size, uint32_t *retval)
{
	*retval = 0;
	for (int i = 0; i < size; i++)
		*retval |= (uint32_t)dev.config[offset + i] << 8 * i;
	return 0;
}

static struct virtio_consts consts = {
	.vc_name = "alone",
	.vc_nvq = 1,
	.vc_max_nvq = 2,
	.vc_cfgsize = sizeof(dev.config),
	.vc_qnotify = on_notify,
	.vc_cfgread = on_cfgread,
	.vc_hv_caps_modern = VI_RING_CAPS_MODERN,
};

/*
 * --- The driver ---
 */

static void negotiate(struct virtio_softc *vs)
{
	vi_set_status(vs, 0, true);
	vi_set_driver_features(vs, 1, 1 /* VERSION_1 */);
	vi_set_status(vs, 1 | 2 | 8, true);
	check(vs->vs_status == (1 | 2 | 8), "FEATURES_OK");
}

static void start_queue(struct virtio_softc *vs, int q)
{
	struct vqueue_info *vq = &dev.queues[q];

	vs->vs_curq = q;
	vq->vq_desc_gpa = DESC;
	vq->vq_avail_gpa = AVAIL;
	vq->vq_used_gpa = USED;
	vi_set_queue_vector(vs, 7);
	vi_enable_queue(vs);
	vi_set_status(vs, 1 | 2 | 8 | 4, true);
}

static void send_buffer(struct virtio_softc *vs, unsigned q)
{
	struct vring_desc *desc = (void *)(ram + DESC);
	struct vring_avail *avail = (void *)(ram + AVAIL);
	struct vring_used *used = (void *)(ram + USED);

	desc[0] = (struct vring_desc){
		.addr = htole64(BUFFER),
		.len = htole32(16),
		.flags = htole16(VRING_DESC_F_WRITE),
	};
	avail->idx = htole16(1);
	vi_kick(vs, q);
	check(used->idx == htole16(1) && used->ring[0].len == htole32(16),
	      "it is used");
	check(ram[BUFFER + 15] == 0xa5, "it is filled");
	check(nr_interrupts == 1, "one interrupt");
}

static void test_request(struct gmem *gm)
{
	struct virtio_softc *vs = &dev.vs;

	check(vi_init(vs, &consts, dev.queues, gm, &transport, ram) == 0,
	      "vi_init()");
	dev.queues[0].vq_qsize = dev.queues[1].vq_qsize = 16;
	memcpy(dev.config, "\1\2\3\4", 4);
	negotiate(vs);
	check(nr_resets == 1, "the transport hears of a reset");
	start_queue(vs, 0);
	send_buffer(vs, 0);
	check(vi_devcfg_read(vs, 2, 4) == 0x0403, "device configuration");

	vi_error(vs, "on purpose");
	check(nr_lines == 1, "a line of the log");
	vi_fini(vs);
}

/* Each allocation fails in turn; then the device is as if never made. */
static void test_no_memory(struct gmem *gm)
{
	struct virtio_softc *vs = &dev.vs;

	nr_allocs = 0;
	fail_alloc = 1;
	memset(&dev, 0, sizeof(dev));
	check(vi_init(vs, &consts, dev.queues, gm, &transport, ram) == -ENOMEM,
	      "no memory for queues");
	check(!vs->vs_priv && vi_max_queues(vs) == 0, "nothing is left");
	check(vi_set_transport(vs, &transport, ram) == -ENOMEM,
	      "no transport for it");
	check(vq_has_descs(&dev.queues[0]) == 0, "no queue");
	vs_log(vs, 4, "to nobody");
	vi_reset_dev(vs);
	vi_fini(vs);
	fail_alloc = 0;
}

/* What vc_nvq says beyond the queues that were linked up does not count. */
static void test_too_many_queues(struct gmem *gm)
{
	struct virtio_softc *vs = &dev.vs;

	memset(&dev, 0, sizeof(dev));
	check(vi_init(vs, &consts, dev.queues, gm, &transport, ram) == 0,
	      "vi_init()");
	consts.vc_nvq = 1000;
	check(vi_nr_queues(vs) == 2, "two are linked up");
	vs->vs_curq = 2;
	check(!vi_selected_queue(vs), "no third one");
	vi_kick(vs, 2);
	negotiate(vs);
	consts.vc_nvq = 1;
	vi_fini(vs);
}

int main(void)
{
	struct gmem gm;

	gm_init(&gm, NULL, NULL);
	check(gm_add(&gm, (gpa_t){ 0 }, RAM_BYTES, ram, GM_READ | GM_WRITE) ==
		      0,
	      "guest memory");
	test_request(&gm);
	test_no_memory(&gm);
	test_too_many_queues(&gm);
	gm_fini(&gm);
	puts("core works alone");
	return 0;
}

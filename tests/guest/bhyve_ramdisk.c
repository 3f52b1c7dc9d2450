/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A block device as bhyve's authors write one: masks, a mutex of its own, a
 * thread that completes requests, asserts about chains. It is written against
 * bhyve's virtio.h, and of viodev it knows <viodev/bhyve.h> alone.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include <viodev/bhyve.h>

#include "bhyve_ramdisk.h"

#define __unused __attribute__((unused))

#define VTRD_RINGSZ   64
#define VTRD_MAXSEGS  32
#define VTRD_SECTSZ   512
#define VTRD_IDENT_SZ 20

#define VTRD_F_SEG_MAX (1 << 2)
#define VTRD_F_FLUSH   (1 << 9)

#define VTRD_S_HOSTCAPS                                                \
	(VTRD_F_SEG_MAX | VTRD_F_FLUSH | VIRTIO_RING_F_INDIRECT_DESC | \
	 VIRTIO_RING_F_EVENT_IDX)
#define VTRD_S_HOSTCAPS_LEGACY \
	(VTRD_S_HOSTCAPS | VIRTIO_F_NOTIFY_ON_EMPTY | VIRTIO_F_ANY_LAYOUT)

#define VBH_OP_READ  0
#define VBH_OP_WRITE 1
#define VBH_OP_FLUSH 4
#define VBH_OP_IDENT 8

#define VTRD_S_OK     0
#define VTRD_S_IOERR  1
#define VTRD_S_UNSUPP 2

static virtio_capstr_t vtrd_caps[] = {
	{ VTRD_F_SEG_MAX, "SEG_MAX" },
	{ VTRD_F_FLUSH, "FLUSH" },
};

struct vtrd_config {
	uint64_t vrc_capacity; /* in sectors */
	uint32_t vrc_size_max;
	uint32_t vrc_seg_max;
} __attribute__((packed));

struct vtrd_hdr {
	uint32_t vrh_type;
	uint32_t vrh_ioprio;
	uint64_t vrh_sector;
} __attribute__((packed));

struct vtrd_ioreq {
	struct vi_req io_req;
	struct iovec io_iov[VTRD_MAXSEGS + 2];
	STAILQ_ENTRY(vtrd_ioreq) io_link;
};

struct pci_vtrd_softc {
	struct virtio_softc vsrd_vs;
	pthread_mutex_t vsrd_mtx;
	pthread_cond_t vsrd_cond;
	pthread_t vsrd_thread;
	struct vqueue_info vsrd_vq;
	struct vtrd_config vsrd_cfg;
	uint64_t vsrd_features;
	STAILQ_HEAD(, vtrd_ioreq) vsrd_free, vsrd_todo;
	struct vtrd_ioreq vsrd_ios[VTRD_RINGSZ];
	uint8_t *vsrd_disk;
	size_t vsrd_size;
};

static void pci_vtrd_reset(void *);
static void pci_vtrd_notify(void *, struct vqueue_info *);
static int pci_vtrd_cfgread(void *, int, int, uint32_t *);
static int pci_vtrd_cfgwrite(void *, int, int, uint32_t);
static void pci_vtrd_apply_features(void *, uint64_t *);

static struct virtio_consts vtrd_vi_consts = {
	.vc_name = "vtrd",
	.vc_nvq = 1,
	.vc_cfgsize = sizeof(struct vtrd_config),
	.vc_reset = pci_vtrd_reset,
	.vc_qnotify = pci_vtrd_notify,
	.vc_cfgread = pci_vtrd_cfgread,
	.vc_cfgwrite = pci_vtrd_cfgwrite,
	.vc_apply_features = pci_vtrd_apply_features,
	.vc_hv_caps_legacy = VTRD_S_HOSTCAPS_LEGACY,
	.vc_hv_caps_modern = VTRD_S_HOSTCAPS,
	.vc_ncapstr = sizeof(vtrd_caps) / sizeof(vtrd_caps[0]),
	.vc_capstr = vtrd_caps,
};

static void pci_vtrd_reset(void *vsc)
{
	struct pci_vtrd_softc *sc = vsc;

	sc->vsrd_features = 0;
	vi_reset_dev(&sc->vsrd_vs);
}

/* The bytes of a request's data, and whether the disk has them. */
static uint8_t pci_vtrd_rw(struct pci_vtrd_softc *sc, const struct iovec *iov,
			   int niov, uint64_t sector, bool write,
			   uint32_t *iolen)
{
	uint64_t off = sector * VTRD_SECTSZ;
	size_t len = 0;

	for (int i = 0; i < niov; i++)
		len += iov[i].iov_len;
	if (sector > sc->vsrd_size / VTRD_SECTSZ || len > sc->vsrd_size - off)
		return VTRD_S_IOERR;
	for (int i = 0; i < niov; i++) {
		uint8_t *disk = sc->vsrd_disk + off;

		if (write)
			memcpy(disk, iov[i].iov_base, iov[i].iov_len);
		else
			memcpy(iov[i].iov_base, disk, iov[i].iov_len);
		off += iov[i].iov_len;
	}
	*iolen += write ? 0 : (uint32_t)len;
	return VTRD_S_OK;
}

static uint8_t pci_vtrd_ident(struct iovec *iov, int niov, uint32_t *iolen)
{
	if (niov < 1 || iov[0].iov_len < VTRD_IDENT_SZ)
		return VTRD_S_IOERR;
	memset(iov[0].iov_base, 0, VTRD_IDENT_SZ);
	strcpy(iov[0].iov_base, "written for bhyve");
	*iolen += VTRD_IDENT_SZ;
	return VTRD_S_OK;
}

/* Header in the first buffer, status in the last: Linux frames it so. */
static void pci_vtrd_proc(struct pci_vtrd_softc *sc, struct vtrd_ioreq *io,
			  uint32_t *iolen)
{
	struct iovec *iov = io->io_iov;
	int n = io->io_req.readable + io->io_req.writable;
	struct vtrd_hdr hdr;
	uint8_t status;

	assert(iov[0].iov_len == sizeof(hdr));
	memcpy(&hdr, iov[0].iov_base, sizeof(hdr));
	switch (hdr.vrh_type) {
	case VBH_OP_READ:
	case VBH_OP_WRITE:
		status = pci_vtrd_rw(sc, iov + 1, n - 2, hdr.vrh_sector,
				     hdr.vrh_type == VBH_OP_WRITE, iolen);
		break;
	case VBH_OP_FLUSH:
		status = VTRD_S_OK;
		break;
	case VBH_OP_IDENT:
		status = pci_vtrd_ident(iov + 1, n - 2, iolen);
		break;
	default:
		status = VTRD_S_UNSUPP;
		break;
	}
	*(uint8_t *)iov[n - 1].iov_base = status;
	*iolen += 1;
}

static void *pci_vtrd_thread(void *arg)
{
	struct pci_vtrd_softc *sc = arg;

	pthread_mutex_lock(&sc->vsrd_mtx);
	for (;;) {
		struct vtrd_ioreq *io = STAILQ_FIRST(&sc->vsrd_todo);
		uint32_t iolen = 0;

		if (io == NULL) {
			pthread_cond_wait(&sc->vsrd_cond, &sc->vsrd_mtx);
			continue;
		}
		STAILQ_REMOVE_HEAD(&sc->vsrd_todo, io_link);
		pthread_mutex_unlock(&sc->vsrd_mtx);
		pci_vtrd_proc(sc, io, &iolen);

		pthread_mutex_lock(&sc->vsrd_mtx);
		vq_relchain(&sc->vsrd_vq, (uint16_t)io->io_req.idx, iolen);
		vq_endchains(&sc->vsrd_vq, 0);
		STAILQ_INSERT_HEAD(&sc->vsrd_free, io, io_link);
	}
	return (NULL);
}

static void pci_vtrd_notify(void *vsc, struct vqueue_info *vq)
{
	struct pci_vtrd_softc *sc = vsc;

	assert(pthread_mutex_isowned_np(&sc->vsrd_mtx));
	while (vq_has_descs(vq)) {
		struct vtrd_ioreq *io = STAILQ_FIRST(&sc->vsrd_free);
		int n;

		assert(io != NULL);
		n = vq_getchain(vq, io->io_iov, VTRD_MAXSEGS + 2, &io->io_req);
		assert(n >= 2 && n <= VTRD_MAXSEGS + 2);
		STAILQ_REMOVE_HEAD(&sc->vsrd_free, io_link);
		STAILQ_INSERT_TAIL(&sc->vsrd_todo, io, io_link);
	}
	pthread_cond_signal(&sc->vsrd_cond);
}

static int pci_vtrd_cfgread(void *vsc, int offset, int size, uint32_t *retval)
{
	struct pci_vtrd_softc *sc = vsc;

	memcpy(retval, (uint8_t *)&sc->vsrd_cfg + offset, (size_t)size);
	return (0);
}

static int pci_vtrd_cfgwrite(void *vsc __unused, int offset, int size __unused,
			     uint32_t value __unused)
{
	fprintf(stderr, "vtrd: write to read-only register %d\n", offset);
	return (1);
}

static void pci_vtrd_apply_features(void *vsc, uint64_t *caps)
{
	struct pci_vtrd_softc *sc = vsc;

	sc->vsrd_features = *caps;
	printf("features 0x%llx%s\n", (unsigned long long)*caps,
	       *caps & VIRTIO_RING_F_EVENT_IDX ? " EVENT_IDX" : "");
	fflush(stdout);
}

int pci_vtrd_init(struct pci_devinst *pi, virtio_mode_t mode, size_t bytes)
{
	struct pci_vtrd_softc *sc = calloc(1, sizeof(*sc));

	if (sc == NULL || (sc->vsrd_disk = calloc(1, bytes)) == NULL)
		return (ENOMEM);
	sc->vsrd_size = bytes;
	sc->vsrd_cfg.vrc_capacity = bytes / VTRD_SECTSZ;
	sc->vsrd_cfg.vrc_seg_max = VTRD_MAXSEGS;
	STAILQ_INIT(&sc->vsrd_free);
	STAILQ_INIT(&sc->vsrd_todo);
	for (int i = 0; i < VTRD_RINGSZ; i++)
		STAILQ_INSERT_HEAD(&sc->vsrd_free, &sc->vsrd_ios[i], io_link);
	pthread_mutex_init(&sc->vsrd_mtx, NULL);
	pthread_cond_init(&sc->vsrd_cond, NULL);

	vi_softc_linkup(&sc->vsrd_vs, &vtrd_vi_consts, sc, pi, &sc->vsrd_vq);
	sc->vsrd_vs.vs_mtx = &sc->vsrd_mtx;
	sc->vsrd_vq.vq_qsize = VTRD_RINGSZ;
	vi_pci_init(pi, mode, VIRTIO_DEV_BLOCK, VIRTIO_ID_BLOCK, PCIC_STORAGE);
	if (!vi_intr_init(&sc->vsrd_vs, true) || !vi_pcibar_setup(&sc->vsrd_vs))
		return (ENOSPC);
	pthread_create(&sc->vsrd_thread, NULL, pci_vtrd_thread, sc);
	pthread_set_name_np(sc->vsrd_thread, "vtrd-worker");
	return (0);
}

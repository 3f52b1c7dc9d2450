/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A device for tests of the framework, and the driver that works it.
 *
 * Each queue echoes: what the driver sends in the readable part of a chain
 * comes back in the writable part, as much as fits; a chain with nothing to
 * read is filled with TDEV_FILL. Its configuration space is plain memory.
 * Everything the framework calls is counted.
 */
#ifndef TESTS_CONFORMANCE_TDEV_H
#define TESTS_CONFORMANCE_TDEV_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <viodev/virtio.h>

#include "base/le.h"
#include "base/util.h"
#include "vdrv.h"

/* gcc says __SANITIZE_THREAD__ itself. */
#ifdef __has_feature
#if __has_feature(thread_sanitizer) && !defined(__SANITIZE_THREAD__)
#define __SANITIZE_THREAD__ 1
#endif
#endif

#define ACK         VIRTIO_CONFIG_S_ACKNOWLEDGE
#define DRV         VIRTIO_CONFIG_S_DRIVER
#define DRV_OK      VIRTIO_CONFIG_S_DRIVER_OK
#define FEAT_OK     VIRTIO_CONFIG_S_FEATURES_OK
#define NEEDS_RESET VIRTIO_CONFIG_S_NEEDS_RESET
#define FAILED      VIRTIO_CONFIG_S_FAILED

#define V1        VI_BIT(VIRTIO_F_VERSION_1)
#define INDIRECT  VI_BIT(VIRTIO_RING_F_INDIRECT_DESC)
#define EVENT_IDX VI_BIT(VIRTIO_RING_F_EVENT_IDX)
#define PACKED    VI_BIT(VIRTIO_F_RING_PACKED)

enum {
	TDEV_MAX_Q = 8,
	TDEV_MAX_IOV = 600,
	TDEV_CFG_LEN = 24,
	TDEV_QSIZE = 16,
	TDEV_FILL = 0xf1,
};

/* The device's own features. */
#define TDEV_F_A    VI_BIT(0)
#define TDEV_F_B    VI_BIT(5)  /* refused without A */
#define TDEV_F_HIGH VI_BIT(50) /* modern drivers only */

struct tdev_opts {
	virtio_mode_t mode; /* UNSET: MODERN */
	bool no_msix;
	bool no_callbacks;
	int nvq; /* 0: 2 */
	int max_nvq;
	uint16_t qsize;       /* 0: TDEV_QSIZE */
	int cfgsize;          /* 0: TDEV_CFG_LEN, -1: none */
	uint64_t more_modern; /* offered besides the usual ones */
	uint64_t more_legacy;
};

struct tdev {
	struct virtio_softc vs; /* first */
	struct virtio_consts vc;
	struct vqueue_info vq[TDEV_MAX_Q];
	struct vdrv d;
	uint8_t cfg[TDEV_CFG_LEN];

	int niov;  /* how long a chain it takes */
	bool hold; /* kicks are counted, chains left in the ring */
	bool no_kicks_while_busy; /* vq_kick_disable() around the work */
	bool look_first;    /* vq_has_descs() before each chain, as in bhyve */
	bool give_in_reset; /* the chain that was taken last */
	int nvq_wanted;     /* from vc_apply_features() on; 0: as before */
	uint64_t refuse;    /* features that vc_apply_features() takes back */

	unsigned nr_reset, nr_apply, nr_set_msix, nr_update_msix;
	unsigned nr_cfgread, nr_cfgwrite;
	unsigned nr_kicks[TDEV_MAX_Q];
	unsigned nr_chains[TDEV_MAX_Q];
	unsigned nr_bad; /* vq_getchain() returned -1 */
	uint64_t applied;

	/* The last chain. */
	int n;
	struct vi_req req;
	struct iovec iov[TDEV_MAX_IOV];
};

/* The driver (d.mode) finds the device; both are gone after tdev_fini(). */
void tdev_init(struct tdev *t, enum vdrv_mode drv, struct tdev_opts o);
void tdev_fini(struct tdev *t);

/* The same and vdrv_start() with @features on @nr_queues queues. */
void tdev_start(struct tdev *t, enum vdrv_mode drv, struct tdev_opts o,
		uint64_t features, unsigned nr_queues);

/* Serve what is available on a queue: what a kick leads to. */
void tdev_work(struct tdev *t, unsigned q);

/* Take one chain, into n, req, iov; give it back. */
int tdev_take(struct tdev *t, unsigned q);
void tdev_give(struct tdev *t, unsigned q, unsigned idx, uint32_t len);

/*
 * A request of the driver: send @len bytes, get them back; checks all of it.
 * Fails the test when the device does not serve. tdev_dead() fails it when the
 * device does.
 */
void tdev_echo(struct tdev *t, unsigned q, uint32_t len);
void tdev_dead(struct tdev *t, unsigned q);

/* The guest memory as it is now, to compare later. */
uint64_t tdev_mem_sum(struct tdev *t);

#endif

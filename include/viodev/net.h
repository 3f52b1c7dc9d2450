/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a transport asks of a network device, beyond what it asks of any device:
 * vc_net of <viodev/virtio_core.h>. vhost-user front-ends serve the driver's
 * control queue themselves, and tell the device the outcome.
 */
#ifndef VIODEV_NET_H
#define VIODEV_NET_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Each may be NULL. @sc is the device's softc; vs_mtx is held, except in
 * no_is_tx(). An int is 0 or -errno.
 */
struct virtio_net_ops {
	/* The driver's MTU, or 0: the device's own. */
	int (*no_set_mtu)(void *sc, uint16_t mtu);
	/* Tell the network, by a frame, where @mac is. */
	int (*no_announce)(void *sc, const uint8_t mac[6]);
	/*
	 * Whether the driver sends frames by queue @q. While the front-end has
	 * the queue disabled, they are dropped.
	 */
	bool (*no_is_tx)(void *sc, unsigned q);
};

#ifdef __cplusplus
}
#endif

#endif

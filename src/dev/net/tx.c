/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Transmission (virtio 5.1.6.2): a chain is a header and a frame. The backend
 * gets the frame in place; the header is copied, checked and replaced.
 */
#include <errno.h>

#include "dev/net/net.h"

#define TX_BATCH 32 /* packets after which they are published as sent */

/*
 * Send a chain. -EAGAIN: later; any other result completes it. The entry before
 * @chain is free for our own header, as the guest's took at least one.
 */
static int tx_send(struct net_softc *sc, unsigned pair,
		   struct vio_iov_cursor chain)
{
	struct net_stats *stats = &sc->sc_stats[2 * pair + 1];
	struct net_hdr hdr = { 0 };
	struct virtio_net_hdr host;
	int nr_record = 0, ret;
	size_t len;

	if (vio_iov_take(&chain, &hdr, sc->sc_hdr_len) != sc->sc_hdr_len)
		return -EINVAL;
	len = vio_iov_len(&chain);
	if (len > NET_MAX_FRAME ||
	    !net_hdr_from_guest(&hdr, len, sc->sc_vs.vs_negotiated_caps, &host))
		return -EINVAL;
	if (!net_link_up(sc))
		return -ENETDOWN;

	/* A backend may modify the list. */
	if (sc->sc_pcap)
		nr_record =
			net_iov_head(sc->sc_record, chain.iov, chain.niov, len);
	chain.iov[-1] = (struct iovec){ &host, sizeof(host) };
	ret = sc->sc_be->ops->send(sc->sc_be, pair, chain.iov - 1,
				   chain.niov + 1);
	if (ret < 0)
		return ret;
	net_record(sc, sc->sc_record, nr_record, len);
	ratelimit_charge(&sc->sc_tx_limit, len);
	stats->frames++;
	stats->bytes += len;
	stats->needs_csum += host.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM;
	return 0;
}

static void tx_dropped(struct net_stats *stats, int ret)
{
	stats->dropped++;
	stats->malformed += ret == -EINVAL;
}

/* A packet that must wait is retried on the timer or the backend's call. */
static enum vq_served tx_serve(void *arg, struct vqueue_info *vq)
{
	struct net_softc *sc = arg;
	struct vi_req req;
	int ret;

	if (!net_limit_allows(&sc->sc_tx_limit, sc->sc_tx_timer) &&
	    vq_has_descs(vq))
		return VQ_WAIT;
	if (vq_getchain(vq, sc->sc_iov + 1, NET_MAX_IOV - 1, &req) <= 0)
		return VQ_IDLE;
	ret = tx_send(sc, vq->vq_num / 2u,
		      (struct vio_iov_cursor){ sc->sc_iov + 1, req.readable });
	if (ret == -EAGAIN) {
		vq_retchains(vq, 1);
		return VQ_WAIT;
	}
	if (ret < 0)
		tx_dropped(&sc->sc_stats[vq->vq_num], ret);
	vq_relchain_prepare(vq, (uint16_t)req.idx, 0);
	net_coal_done(sc, vq);
	if (vq->vq_next_used % TX_BATCH == 0)
		vq_relchain_publish(vq);
	return VQ_MORE;
}

void net_tx_run(struct net_softc *sc, unsigned pair)
{
	struct vqueue_info *vq = net_txq(sc, pair);
	enum vq_served served;

	if (pair >= sc->sc_pairs)
		return;
	served = vq_serve(vq, vq->vq_qsize, tx_serve, sc);
	vq_relchain_publish(vq);
	net_coal_end(sc, vq, served == VQ_IDLE);
	if (served == VQ_MORE)
		vio_task_defer(sc->sc_loop, &sc->sc_pair[pair].tx_continue);
}

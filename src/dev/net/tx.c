/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Transmission (virtio 5.1.6.2): a chain is a header and a frame. The backend
 * gets the frame where it lies; the header is copied, judged and replaced.
 */
#include <errno.h>

#include "dev/net/net.h"

#define TX_BATCH 32 /* packets after which the driver sees them as sent */

enum tx_served {
	TX_DONE, /* a packet */
	TX_IDLE, /* nothing is available */
	TX_WAIT, /* a packet must wait; the timer or the backend wakes us */
};

/*
 * Send what a chain holds. -EAGAIN: later; all else is done with. The entry in
 * front of @chain is free for our own header: the guest's took at least one.
 */
static int tx_send(struct net_softc *sc, unsigned pair, struct iov_cursor chain)
{
	struct net_hdr hdr = { 0 };
	struct virtio_net_hdr host;
	int nr_record = 0, ret;
	size_t len;

	if (iov_take(&chain, &hdr, sc->sc_hdr_len) != sc->sc_hdr_len)
		return -EINVAL;
	len = iov_len(&chain);
	if (len > NET_MAX_FRAME ||
	    !net_hdr_from_guest(&hdr, len, sc->sc_vs.vs_negotiated_caps, &host))
		return -EINVAL;
	if (!net_link_up(sc))
		return -ENETDOWN;

	/* A backend may cut the list up. */
	if (sc->sc_pcap)
		nr_record =
			net_iov_head(sc->sc_record, chain.iov, chain.niov, len);
	chain.iov[-1] = (struct iovec){ &host, sizeof(host) };
	ret = sc->sc_be->ops->send(sc->sc_be, pair, chain.iov - 1,
				   chain.niov + 1);
	if (ret < 0)
		return ret;
	net_record(sc, sc->sc_record, nr_record, len);
	bucket_charge(&sc->sc_tx_limit, len);
	sc->sc_tx.frames++;
	sc->sc_tx.bytes += len;
	return 0;
}

static enum tx_served tx_serve(struct net_softc *sc, unsigned pair,
			       struct vqueue_info *vq)
{
	struct vi_req req;
	int ret;

	if (!net_limit_allows(&sc->sc_tx_limit, sc->sc_tx_timer) &&
	    vq_has_descs(vq))
		return TX_WAIT;
	if (vq_getchain(vq, sc->sc_iov + 1, NET_MAX_IOV - 1, &req) <= 0)
		return TX_IDLE;
	ret = tx_send(sc, pair,
		      (struct iov_cursor){ sc->sc_iov + 1, req.readable });
	if (ret == -EAGAIN) {
		vq_retchains(vq, 1);
		return TX_WAIT;
	}
	if (ret < 0)
		sc->sc_tx.dropped++;
	vq_relchain_prepare(vq, (uint16_t)req.idx, 0);
	net_coal_done(sc, vq);
	return TX_DONE;
}

void net_tx_run(struct net_softc *sc, unsigned pair)
{
	struct vqueue_info *vq = net_txq(sc, pair);
	unsigned budget = vq->vq_qsize;
	enum tx_served served;

	if (pair >= sc->sc_pairs)
		return;
	vq_kick_disable(vq);
	do {
		served = tx_serve(sc, pair, vq);
		if (budget % TX_BATCH == 0)
			vq_relchain_publish(vq);
	} while (served == TX_DONE && --budget);
	vq_relchain_publish(vq);

	if (served == TX_IDLE) {
		vq_kick_enable(vq);
		/* What came just before was not announced. */
		if (vq_has_descs(vq))
			served = TX_DONE;
	}
	net_coal_end(sc, vq, served == TX_IDLE);

	/* There is more, but a busy queue must not keep others waiting. */
	if (served == TX_DONE)
		vio_task_defer(sc->sc_loop, &sc->sc_pair[pair].tx_again);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Reception (virtio 5.1.6.3, 5.1.6.4).
 *
 * A frame is received directly into the guest's buffers: chains are taken in
 * advance, a window as long as recent frames, and a spare buffer of our own
 * follows them in the list. Chains that the frame did not need stay in the
 * window for the next one.
 *
 * A frame that spilled over into the spare buffer is held there and copied when
 * its queue has room; with RSS every frame is, which must be examined before its
 * queue is known. Until then its channel waits: frames pile up where the sender
 * notices.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>
#include <syslog.h>

#include "dev/net/net.h"

#define RX_BUDGET 256 /* frames in an iteration, to be fair */

/* Until a failed backend is tried again; doubled each time. */
#define RETRY_MIN_NS UINT64_C(10000000)
#define RETRY_MAX_NS UINT64_C(1000000000)

static_assert(NET_RSS_PEEK >= NET_FILTER_PEEK, "one look serves both");

/*
 * --- The window ---
 */

static void window_open(struct net_window *w, struct vqueue_info *vq)
{
	w->vq = vq;
	w->nr_chains = 0;
	w->niov = 0;
	w->first = 1;
	w->bytes = 0;
	w->cut = false;
}

/* The iteration is over, or another queue's begins. */
static void window_close(struct net_softc *sc, bool emptied)
{
	struct net_window *w = &sc->sc_win;

	if (!w->vq)
		return;
	vq_retchains(w->vq, (uint16_t)w->nr_chains);
	net_coal_end(sc, w->vq, emptied);
	w->vq = NULL;
}

/* Remove the first @nr chains, which were returned. */
static void window_drop(struct net_window *w, unsigned nr)
{
	for (unsigned i = 0; i < nr; i++) {
		w->bytes -= w->chain[i].bytes;
		w->first += w->chain[i].niov;
		w->niov -= w->chain[i].niov;
	}
	w->nr_chains -= nr;
	memmove(&w->chain[0], &w->chain[nr],
		w->nr_chains * sizeof(w->chain[0]));
	w->cut = false;
}

/* Add a chain, ignoring its readable buffers. */
static bool window_add(struct net_window *w)
{
	struct iovec *iov;
	struct vi_req req;
	size_t bytes = 0;

	if (w->nr_chains == NET_WINDOW_CHAINS ||
	    w->niov + NET_CHAIN_IOV > NET_WINDOW_IOV)
		return false;
	if (w->first + w->niov + NET_CHAIN_IOV > NET_WINDOW_IOV + 1) {
		memmove(&w->iov[1], &w->iov[w->first],
			(size_t)w->niov * sizeof(w->iov[0]));
		w->first = 1;
	}
	iov = &w->iov[w->first + w->niov];
	if (vq_getchain(w->vq, iov, NET_CHAIN_IOV, &req) <= 0)
		return false;
	memmove(iov, iov + req.readable, (size_t)req.writable * sizeof(iov[0]));
	for (int i = 0; i < req.writable; i++)
		bytes += iov[i].iov_len;
	w->chain[w->nr_chains].idx = (uint16_t)req.idx;
	w->chain[w->nr_chains].niov = req.writable;
	w->chain[w->nr_chains].bytes = bytes;
	w->nr_chains++;
	w->niov += req.writable;
	w->bytes += bytes;
	return true;
}

/* Cut the header off the first chain. False: it is too short. */
static bool window_cut(struct net_window *w, size_t hdr_len)
{
	if (w->cut)
		return true;
	if (w->chain[0].bytes < hdr_len)
		return false;
	w->chain[0].bytes -= hdr_len;
	w->bytes -= hdr_len;
	w->nr_hdr = 0;
	while (hdr_len) {
		struct iovec *iov = &w->iov[w->first];
		size_t n = iov->iov_len < hdr_len ? iov->iov_len : hdr_len;

		w->hdr[w->nr_hdr++] = (struct iovec){ iov->iov_base, n };
		iov->iov_base = (char *)iov->iov_base + n;
		iov->iov_len -= n;
		hdr_len -= n;
		if (iov->iov_len == 0) {
			w->first++;
			w->niov--;
			w->chain[0].niov--;
		}
	}
	w->cut = true;
	return true;
}

/*
 * Provide @want bytes for a frame, or as many as possible. Returns 0; -ENOBUFS
 * when the queue is empty; -EBADMSG when its next chain was too short for a
 * header and was returned unused, which the caller counts.
 */
static int window_fill(struct net_softc *sc, struct vqueue_info *vq,
		       size_t want)
{
	struct net_window *w = &sc->sc_win;

	if (w->vq != vq) {
		window_close(sc, false);
		window_open(w, vq);
	}
	if (w->nr_chains == 0 && !window_add(w))
		return -ENOBUFS;
	if (!window_cut(w, sc->sc_hdr_len)) {
		vq_relchain(vq, w->chain[0].idx, 0);
		window_drop(w, 1);
		return -EBADMSG;
	}
	if (net_has(sc, NET_F(MRG_RXBUF)))
		while (w->bytes < want && window_add(w))
			;
	/* The last chain was invalid: write nothing after vi_error(). */
	return sc->sc_vs.vs_flags & VIRTIO_BROKEN ? -ENOBUFS : 0;
}

/* Whether further chains may make room for a frame that is too long now. */
static bool window_may_grow(struct net_softc *sc, struct vqueue_info *vq)
{
	const struct net_window *w = &sc->sc_win;

	return net_has(sc, NET_F(MRG_RXBUF)) && w->nr_chains < vq->vq_qsize &&
	       w->nr_chains < NET_WINDOW_CHAINS &&
	       w->niov + NET_CHAIN_IOV <= NET_WINDOW_IOV;
}

/* How many chains @len bytes need, at least one. */
static unsigned window_count(const struct net_window *w, size_t len)
{
	unsigned nr = 1;

	for (size_t room = w->chain[0].bytes; room < len; nr++)
		room += w->chain[nr].bytes;
	return nr;
}

/*
 * Return the chains that @len bytes fill to the driver, all at once. Their data
 * is written before the first is returned.
 */
static void window_commit(struct net_softc *sc, struct net_hdr *hdr, size_t len)
{
	struct net_window *w = &sc->sc_win;
	struct vio_iov_cursor room = { w->hdr, w->nr_hdr };
	unsigned nr = window_count(w, len);
	size_t hdr_len = sc->sc_hdr_len;

	hdr->num_buffers = cpu_to_le16((uint16_t)nr);
	vio_iov_write(&room, hdr, hdr_len);
	for (unsigned i = 0; i < nr; i++) {
		size_t n = w->chain[i].bytes < len ? w->chain[i].bytes : len;

		vq_relchain_prepare(w->vq, w->chain[i].idx,
				    (uint32_t)(hdr_len + n));
		len -= n;
		hdr_len = 0; /* only in the first, 5.1.6.4.1 */
	}
	vq_relchain_publish(w->vq);
	window_drop(w, nr);
	net_coal_done(sc, w->vq);
}

/*
 * --- One frame ---
 */

static struct net_stats *rx_stats(struct net_softc *sc, unsigned q)
{
	return &sc->sc_stats[2 * q];
}

/* Longer than the frames announced to the driver (5.1.4.1). */
static bool over_mtu(const struct net_softc *sc,
		     const struct virtio_net_hdr *host, const uint8_t *peek,
		     size_t len)
{
	return net_has(sc, NET_F(MTU)) &&
	       host->gso_type == VIRTIO_NET_HDR_GSO_NONE &&
	       len > sc->sc_told_mtu + net_link_len(peek, NET_FILTER_PEEK);
}

/* Whether the driver gets a frame; if so, with which header. */
static bool rx_check(struct net_softc *sc, struct net_pair *p,
		     const uint8_t *peek, size_t len, struct net_hdr *ret_hdr)
{
	const struct virtio_net_hdr *host = &p->pending_hdr;

	if (!net_link_up(sc) || over_mtu(sc, host, peek, len) ||
	    !net_hdr_to_guest(host, len, sc->sc_offloads, ret_hdr)) {
		rx_stats(sc, p->idx)->dropped++;
		return false;
	}
	if (!net_filter_passes(&sc->sc_filter, sc->sc_mac, peek)) {
		rx_stats(sc, p->idx)->filtered++;
		return false;
	}
	return true;
}

/* Write the hash into the header. Returns the queue that it selects. */
static unsigned rx_hash(struct net_softc *sc, const uint8_t *peek, size_t len,
			struct net_hdr *hdr)
{
	uint32_t hash;
	uint16_t report = net_rss_hash(&sc->sc_rss, peek, len, &hash);

	hdr->hash_value = cpu_to_le32(hash);
	hdr->hash_report = cpu_to_le16(report);
	return net_rss_queue(&sc->sc_rss, report, hash);
}

/* Queue @q gets a frame with the header @hdr. */
static void rx_account(struct net_softc *sc, unsigned q,
		       const struct net_hdr *hdr, const struct iovec *iov,
		       int niov, size_t len)
{
	struct net_stats *stats = rx_stats(sc, q);

	net_record(sc, iov, niov, len);
	ratelimit_charge(&sc->sc_rx_limit, len);
	stats->frames++;
	stats->bytes += len;
	stats->csum_valid += !!(hdr->flags & VIRTIO_NET_HDR_F_DATA_VALID);
	stats->needs_csum += !!(hdr->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM);
}

/*
 * The window holds all of the frame, or a part if it spilled over. The guest may
 * change its memory meanwhile, so only our copy is examined.
 */
static void rx_received(struct net_softc *sc, struct net_pair *p, size_t len)
{
	struct net_window *w = &sc->sc_win;
	const struct vio_iov_cursor frame = { &w->iov[w->first], w->niov };
	uint8_t peek[NET_RSS_PEEK] = { 0 };
	struct net_hdr hdr;
	size_t n;

	if (len > p->longest)
		p->longest = len;
	if (len > w->bytes) { /* the rest is in the buffer */
		vio_iov_peek(&frame, p->buf, w->bytes);
		p->pending_len = len;
		p->want = NET_MAX_FRAME;
		return;
	}
	n = vio_iov_peek(&frame, peek,
			 net_has(sc, NET_F(HASH_REPORT)) ? sizeof(peek) :
							   NET_FILTER_PEEK);
	if (n > len) {
		memset(peek + len, 0, n - len);
		n = len;
	}
	if (!rx_check(sc, p, peek, len, &hdr))
		return;
	if (net_has(sc, NET_F(HASH_REPORT)))
		rx_hash(sc, peek, n, &hdr);
	rx_account(sc, p->idx, &hdr, frame.iov, frame.niov, len);
	window_commit(sc, &hdr, len);
}

/*
 * The host failed to receive: an interface is down, or memory is short. No event
 * tells when that ends, so the channel stalls and a timer tries again.
 */
static int rx_failed(struct net_softc *sc, int error)
{
	uint64_t *ns = &sc->sc_rx_retry_ns;

	if (*ns == 0)
		vs_log(&sc->sc_vs, LOG_WARNING, "receive failed: %s: retrying",
		       strerror(-error));
	*ns = *ns ? *ns * 2 : RETRY_MIN_NS;
	if (*ns > RETRY_MAX_NS)
		*ns = RETRY_MAX_NS;
	vio_timer_set(sc->sc_rx_retry, *ns);
	return -EIO;
}

/*
 * Receive into @iov. Returns 1 for a frame of *ret_len bytes; 0 when it was
 * dropped; or -EAGAIN, -ENOTCONN, -EIO.
 */
static int rx_recv(struct net_softc *sc, struct net_pair *p,
		   const struct iovec *iov, int niov, size_t *ret_len)
{
	ssize_t len = sc->sc_be->ops->recv(sc->sc_be, p->idx, iov, niov);

	if (len == -EAGAIN || len == -ENOTCONN)
		return (int)len;
	if (len < 0)
		return rx_failed(sc, (int)len);
	sc->sc_rx_retry_ns = 0; /* the next failure is a new one */
	if (len == 0 || (size_t)len > NET_MAX_FRAME) {
		rx_stats(sc, p->idx)->dropped++;
		return 0;
	}
	*ret_len = (size_t)len;
	return 1;
}

/* Receive into the window of the channel's own queue. 0 or -errno. */
static int rx_direct(struct net_softc *sc, struct net_pair *p)
{
	struct net_window *w = &sc->sc_win;
	struct iovec spill = { 0 };
	size_t len = 0;
	int ret = window_fill(sc, net_rxq(sc, p->idx), p->want);

	if (ret < 0)
		return ret;
	/* A byte more than any frame, to notice truncation. */
	if (w->bytes <= NET_MAX_FRAME) {
		spill.iov_base = p->buf + w->bytes;
		spill.iov_len = NET_MAX_FRAME + 1 - w->bytes;
	}
	w->iov[w->first - 1] =
		(struct iovec){ &p->pending_hdr, sizeof(p->pending_hdr) };
	w->iov[w->first + w->niov] = spill;
	ret = rx_recv(sc, p, &w->iov[w->first - 1], w->niov + 2, &len);
	if (ret > 0)
		rx_received(sc, p, len);
	return ret < 0 ? ret : 0;
}

/* Receive into the buffer: the frame's queue is not known yet. */
static int rx_to_buffer(struct net_softc *sc, struct net_pair *p)
{
	const struct iovec iov[2] = {
		{ &p->pending_hdr, sizeof(p->pending_hdr) },
		{ p->buf, NET_MAX_FRAME + 1 },
	};
	int ret = rx_recv(sc, p, iov, 2, &p->pending_len);

	return ret < 0 ? ret : 0;
}

/* Whether the driver has reset the channel's queue, and not enabled it again. */
static bool rx_is_reset(struct net_softc *sc, const struct net_pair *p)
{
	return p->rx_reset && !vq_ring_ready(net_rxq(sc, p->idx));
}

/*
 * The queue for a frame that RSS does not steer: the channel's own, or another
 * one while that is reset. 5.1.6.5.6
 */
static unsigned rx_queue(struct net_softc *sc, const struct net_pair *p)
{
	for (unsigned i = 0; i < sc->sc_channels && rx_is_reset(sc, p); i++) {
		if (vq_ring_ready(net_rxq(sc, i)))
			return i;
	}
	return p->idx;
}

/* Deliver the held frame. 0: delivered or dropped; -errno of window_fill(). */
static int rx_deliver(struct net_softc *sc, struct net_pair *p)
{
	const struct iovec frame = { p->buf, p->pending_len };
	struct net_window *w = &sc->sc_win;
	uint8_t peek[NET_RSS_PEEK] = { 0 };
	size_t len = p->pending_len;
	size_t n = len < sizeof(peek) ? len : sizeof(peek);
	unsigned q, by_hash;
	struct vio_iov_cursor room;
	struct net_hdr hdr;
	int ret;

	memcpy(peek, p->buf, n);
	if (!rx_check(sc, p, peek, len, &hdr))
		goto gone;
	by_hash = rx_hash(sc, peek, n, &hdr);
	q = sc->sc_rss.steering ? by_hash : rx_queue(sc, p);

	/* Without the queue the frame is dropped (5.1.6.5.7.1.2). */
	if (!vq_ring_ready(net_rxq(sc, q)))
		goto dropped;
	ret = window_fill(sc, net_rxq(sc, q), len);
	if (ret < 0)
		return ret;
	if (w->bytes < len) {
		if (window_may_grow(sc, net_rxq(sc, q)))
			return -ENOBUFS;
		goto dropped;
	}
	room = (struct vio_iov_cursor){ &w->iov[w->first], w->niov };
	/* vio_iov_write() shortens entries, which are committed right after. */
	vio_iov_write(&room, p->buf, len);
	rx_account(sc, q, &hdr, &frame, 1, len);
	window_commit(sc, &hdr, len);
	goto gone;

dropped:
	rx_stats(sc, p->idx)->dropped++;
gone:
	p->pending_len = 0;
	return 0;
}

/*
 * --- A channel ---
 */

static int rx_one(struct net_softc *sc, struct net_pair *p)
{
	int ret = 0;

	if (!net_limit_allows(&sc->sc_rx_limit, sc->sc_rx_timer))
		return -EBUSY;
	if (!p->pending_len)
		ret = sc->sc_rss.steering || rx_is_reset(sc, p) ?
			      rx_to_buffer(sc, p) :
			      rx_direct(sc, p);
	if (ret == 0 && p->pending_len)
		ret = rx_deliver(sc, p);
	return ret == -EBADMSG ? 0 : ret;
}

void net_rx_run(struct net_softc *sc, unsigned channel)
{
	struct net_pair *p = &sc->sc_pair[channel];
	unsigned budget = RX_BUDGET;
	bool asked = false, more;
	int ret;

	if (channel > 0 && !vq_ring_ready(net_rxq(sc, channel)))
		net_follow_rings(sc);
	if (channel >= sc->sc_channels)
		return;
	p->longest = 0;
	do {
		ret = rx_one(sc, p);
		/*
		 * Buffers added from now on are announced; those added just
		 * before were not. The window stays open in between: the
		 * requested kick is for buffers after its chains.
		 */
		if (ret == -ENOBUFS && !asked) {
			vq_kick_enable(sc->sc_win.vq);
			asked = true;
			ret = 0;
		}
	} while (ret == 0 && --budget);

	window_close(sc, ret == -ENOBUFS);
	/* The next frames are likely to be as long as these. */
	if (p->longest)
		p->want = p->longest;
	/* Without room, frames stay with the backend until there is some. */
	more = ret == 0 || ret == -EAGAIN;
	p->rx_stalled = !more;
	sc->sc_be->ops->watch(sc->sc_be, channel, more);
}

void net_rx_kick(struct net_softc *sc)
{
	for (unsigned i = 0; i < sc->sc_channels; i++)
		vq_kick_disable(net_rxq(sc, i));
	for (unsigned i = 0; i < sc->sc_channels; i++) {
		if (sc->sc_pair[i].rx_stalled)
			net_rx_run(sc, i);
	}
}

void net_rx_stop(struct net_softc *sc)
{
	for (unsigned i = 0; i < sc->sc_max_pairs; i++) {
		sc->sc_be->ops->watch(sc->sc_be, i, false);
		sc->sc_pair[i].rx_stalled = true;
		sc->sc_pair[i].rx_reset = false;
		sc->sc_pair[i].pending_len = 0;
	}
}

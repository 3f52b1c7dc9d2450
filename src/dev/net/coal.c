/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Notification coalescing (virtio 5.1.6.5.9): the device notifies the driver
 * later, of several packets at once. The ring's own suppression still applies.
 */
#include "dev/net/net.h"

#define NS_PER_US UINT64_C(1000)

static struct net_coal *coal_of(struct net_softc *sc, struct vqueue_info *vq)
{
	return &sc->sc_coal[vq->vq_num];
}

/* One timer serves all queues: it fires when the first is due. */
static void set_timer(struct net_softc *sc)
{
	uint64_t first = UINT64_MAX, now = vio_now_ns();

	for (int i = 0; i < sc->sc_vc.vc_nvq; i++) {
		uint64_t due = sc->sc_coal[i].due_ns;

		if (due && due < first)
			first = due;
	}
	if (first == UINT64_MAX)
		vio_timer_set(sc->sc_coal_timer, 0);
	else
		vio_timer_set(sc->sc_coal_timer, first > now ? first - now : 1);
}

static void tell(struct net_coal *c, struct vqueue_info *vq)
{
	c->nr_done = 0;
	c->due_ns = 0;
	vq_endchains(vq, c->emptied);
}

void net_coal_done(struct net_softc *sc, struct vqueue_info *vq)
{
	coal_of(sc, vq)->nr_done++;
}

void net_coal_end(struct net_softc *sc, struct vqueue_info *vq, bool emptied)
{
	struct net_coal *c = coal_of(sc, vq);
	bool was_waiting = c->due_ns;

	c->emptied = emptied;
	if (c->params.max_usecs == 0 || c->params.max_packets == 0 ||
	    c->nr_done >= c->params.max_packets)
		tell(c, vq);
	else if (c->nr_done && !c->due_ns)
		c->due_ns = vio_now_ns() + c->params.max_usecs * NS_PER_US;
	if (was_waiting != (c->due_ns != 0))
		set_timer(sc);
}

void net_coal_flush(void *arg)
{
	struct net_softc *sc = arg;

	for (int i = 0; i < sc->sc_vc.vc_nvq; i++) {
		if (sc->sc_coal[i].due_ns)
			tell(&sc->sc_coal[i], &sc->sc_vqs[i]);
	}
	set_timer(sc);
}

void net_coal_on_timer(void *arg)
{
	struct net_softc *sc = arg;
	uint64_t now = vio_now_ns();

	for (int i = 0; i < sc->sc_vc.vc_nvq; i++) {
		struct net_coal *c = &sc->sc_coal[i];

		if (c->due_ns && c->due_ns <= now)
			tell(c, &sc->sc_vqs[i]);
	}
	set_timer(sc);
}

void net_coal_set(struct net_softc *sc, struct vqueue_info *vq,
		  struct net_coal_params params)
{
	struct net_coal *c = coal_of(sc, vq);

	c->params = params;
	if (!c->nr_done)
		return;
	/* Wait anew, unless the new limit is reached already. */
	c->due_ns = 0;
	net_coal_end(sc, vq, c->emptied);
	set_timer(sc);
}

/* 5.1.6.5.9: a queue's own settings end with it. */
void net_coal_renew(struct net_softc *sc, struct vqueue_info *vq)
{
	*coal_of(sc, vq) = (struct net_coal){
		.params = sc->sc_coal_default[vq->vq_num % 2],
	};
	set_timer(sc);
}

void net_coal_reset(struct net_softc *sc)
{
	for (unsigned i = 0; i < NET_MAX_QUEUES; i++)
		sc->sc_coal[i] = (struct net_coal){ 0 };
	sc->sc_coal_default[0] = sc->sc_coal_default[1] =
		(struct net_coal_params){ 0 };
	vio_timer_set(sc->sc_coal_timer, 0);
}

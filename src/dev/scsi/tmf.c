/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The control queue (5.6.6.2), by which the driver aborts and resets, and the
 * event queue (5.6.6.3), which reports changes to it.
 *
 * A task management function completes when the commands that it aborts have
 * ended: waiting ones at once, those that use the driver's buffers when the
 * disk has finished with them.
 */
#include <assert.h>

#include "base/le.h"
#include "dev/scsi/scsi.h"

struct tmf_request {
	le32 type;
	le32 subtype;
	uint8_t lun[8];
	uint8_t id[8]; /* opaque */
};
static_assert(sizeof(struct tmf_request) == 24, "5.6.6.2");

struct an_request {
	le32 type;
	uint8_t lun[8];
	le32 event_requested;
};
static_assert(sizeof(struct an_request) == 16, "5.6.6.2");

struct event {
	le32 event;
	uint8_t lun[8];
	le32 reason;
};
static_assert(sizeof(struct event) == 16, "5.6.6.3");

/*
 * --- Task management ---
 */

static bool concerns_target(const struct scsi_tmf *tmf)
{
	return tmf->subtype == VIRTIO_SCSI_T_TMF_I_T_NEXUS_RESET;
}

static bool is_reset(const struct scsi_tmf *tmf)
{
	return tmf->subtype == VIRTIO_SCSI_T_TMF_I_T_NEXUS_RESET ||
	       tmf->subtype == VIRTIO_SCSI_T_TMF_LOGICAL_UNIT_RESET;
}

static bool names_one_task(const struct scsi_tmf *tmf)
{
	return tmf->subtype == VIRTIO_SCSI_T_TMF_ABORT_TASK ||
	       tmf->subtype == VIRTIO_SCSI_T_TMF_QUERY_TASK;
}

static bool concerns_lun(const struct scsi_tmf *tmf, struct scsi_lun *lun)
{
	uint8_t ignored;

	if (concerns_target(tmf))
		return lun->target == tmf->addr[1];
	return scsi_find(lun->sc, tmf->addr, &ignored) == lun;
}

/* Tasks from before a reset have no owner, but a reset waits for them. */
static bool concerns_task(const struct scsi_tmf *tmf, const struct scsi_task *t)
{
	if (t->seq >= tmf->seq || (!task_live(t) && !is_reset(tmf)))
		return false;
	return !names_one_task(tmf) || t->id == tmf->id;
}

/* A command that the function is about and that is still there. */
static struct scsi_task *find_task(struct scsi_softc *sc,
				   const struct scsi_tmf *tmf)
{
	for (unsigned i = 0; i < sc->sc_nr_luns; i++) {
		struct scsi_lun *lun = sc->sc_luns[i];

		if (!concerns_lun(tmf, lun))
			continue;
		for (struct scsi_task *t = lun->first; t; t = t->next) {
			if (concerns_task(tmf, t))
				return t;
		}
	}
	return NULL;
}

static void abort_tasks(struct scsi_softc *sc, const struct scsi_tmf *tmf)
{
	uint8_t response =
		is_reset(tmf) ? VIRTIO_SCSI_S_RESET : VIRTIO_SCSI_S_ABORTED;

	if (names_one_task(tmf)) {
		struct scsi_task *t = find_task(sc, tmf);

		if (t)
			task_abort(t, response);
		return;
	}
	for (unsigned i = 0; i < sc->sc_nr_luns; i++) {
		if (concerns_lun(tmf, sc->sc_luns[i]))
			tasks_forget(sc->sc_luns[i], response);
	}
}

static void answer(struct scsi_softc *sc, unsigned idx, uint8_t *at,
		   uint8_t response)
{
	struct vqueue_info *vq = &sc->sc_vqs[0];

	/* What it ended is seen before the answer (5.6.6.2). */
	for (unsigned i = 0; i < sc->sc_nr_queues; i++)
		scsi_publish(&sc->sc_queues[i]);
	if (vq_chain_live(vq, (uint16_t)idx))
		*at = response;
	vq_relchain(vq, (uint16_t)idx, 1);
	vq_endchains(vq, 0);
}

static void finish_tmf(struct scsi_softc *sc, struct scsi_tmf *tmf)
{
	unsigned ua = concerns_target(tmf) ? UA_NEXUS_LOSS : UA_LUN_RESET;

	for (unsigned i = 0; i < sc->sc_nr_luns && is_reset(tmf); i++) {
		if (concerns_lun(tmf, sc->sc_luns[i]))
			lun_reset(sc->sc_luns[i], ua);
	}
	tmf->busy = false;
	answer(sc, tmf->idx, tmf->resp, VIRTIO_SCSI_S_OK);
}

/* A command ended: was somebody waiting for it? */
void scsi_tmfs_check(struct scsi_softc *sc)
{
	for (unsigned i = 0; i < sc->sc_max_tmfs && sc->sc_nr_tmfs > 0; i++) {
		struct scsi_tmf *tmf = &sc->sc_tmfs[i];

		if (!tmf->busy || find_task(sc, tmf))
			continue;
		sc->sc_nr_tmfs--;
		finish_tmf(sc, tmf);
	}
}

void scsi_tmfs_forget(struct scsi_softc *sc)
{
	for (unsigned i = 0; sc->sc_nr_tmfs > 0; i++) {
		if (!sc->sc_tmfs[i].busy)
			continue;
		sc->sc_nr_tmfs--;
		sc->sc_tmfs[i].busy = false;
		vq_relchain(&sc->sc_vqs[0], (uint16_t)sc->sc_tmfs[i].idx, 0);
	}
}

/* Its answer, or -1: later. */
static int do_tmf(struct scsi_softc *sc, struct scsi_tmf *tmf)
{
	uint8_t response = VIRTIO_SCSI_S_FUNCTION_REJECTED;
	struct scsi_lun *lun = scsi_find(sc, tmf->addr, &response);

	if (tmf->subtype == VIRTIO_SCSI_T_TMF_CLEAR_ACA ||
	    tmf->subtype > VIRTIO_SCSI_T_TMF_QUERY_TASK_SET)
		return VIRTIO_SCSI_S_FUNCTION_REJECTED;
	if (!lun)
		return response;
	if (lun == &sc->sc_absent && !concerns_target(tmf))
		return VIRTIO_SCSI_S_INCORRECT_LUN;
	if (tmf->subtype == VIRTIO_SCSI_T_TMF_QUERY_TASK ||
	    tmf->subtype == VIRTIO_SCSI_T_TMF_QUERY_TASK_SET)
		return find_task(sc, tmf) ? VIRTIO_SCSI_S_FUNCTION_SUCCEEDED :
					    VIRTIO_SCSI_S_OK;
	abort_tasks(sc, tmf);
	return -1;
}

static void begin_tmf(struct scsi_softc *sc, const struct tmf_request *req,
		      unsigned idx, uint8_t *at)
{
	struct scsi_tmf *tmf = &sc->sc_tmfs[idx];
	uint32_t subtype = le32_to_cpu(req->subtype);
	int response;

	*tmf = (struct scsi_tmf){
		.idx = idx,
		.subtype = subtype < UINT8_MAX ? (uint8_t)subtype : UINT8_MAX,
		.seq = ++sc->sc_seq,
		.resp = at,
	};
	memcpy(tmf->addr, req->lun, sizeof(tmf->addr));
	memcpy(&tmf->id, req->id, sizeof(tmf->id));
	response = do_tmf(sc, tmf);
	if (response >= 0)
		answer(sc, idx, at, (uint8_t)response);
	else if (!find_task(sc, tmf))
		finish_tmf(sc, tmf);
	else {
		tmf->busy = true;
		sc->sc_nr_tmfs++;
	}
}

/*
 * --- The queue ---
 */

/* There is nothing to subscribe to: no events actually (5.6.6.2). */
static uint32_t do_an(struct scsi_softc *sc, const struct an_request *req,
		      struct vio_iov_cursor *wr)
{
	uint8_t response = VIRTIO_SCSI_S_OK;
	le32 actual = cpu_to_le32(0);
	struct scsi_lun *lun = scsi_find(sc, req->lun, &response);

	if (lun == &sc->sc_absent)
		response = VIRTIO_SCSI_S_INCORRECT_LUN;
	return (uint32_t)(vio_iov_write(wr, &actual, sizeof(actual)) +
			  vio_iov_write(wr, &response, 1));
}

static void control_one(struct scsi_softc *sc, struct vqueue_info *vq,
			struct iovec *iov, const struct vi_req *req)
{
	struct vio_iov_cursor rd = { iov, req->readable };
	struct vio_iov_cursor wr = { iov + req->readable, req->writable };
	uint8_t failure = VIRTIO_SCSI_S_FAILURE;
	struct tmf_request tmf = { 0 };
	struct an_request an;
	size_t len = vio_iov_peek(&rd, &tmf, sizeof(tmf));
	uint32_t type = le32_to_cpu(tmf.type), used;

	if (len == sizeof(tmf) && type == VIRTIO_SCSI_T_TMF &&
	    req->writable > 0) {
		begin_tmf(sc, &tmf, req->idx, wr.iov->iov_base);
		return;
	}
	memcpy(&an, &tmf, sizeof(an));
	if (len >= sizeof(an) && (type == VIRTIO_SCSI_T_AN_QUERY ||
				  type == VIRTIO_SCSI_T_AN_SUBSCRIBE))
		used = do_an(sc, &an, &wr);
	else
		used = (uint32_t)vio_iov_write(&wr, &failure, 1);
	vq_relchain(vq, (uint16_t)req->idx, used);
}

static enum vq_served control_serve(void *arg, struct vqueue_info *vq)
{
	struct iovec iov[SCSI_MAX_IOV];
	struct vi_req req;

	if (vq_getchain(vq, iov, SCSI_MAX_IOV, &req) <= 0)
		return VQ_IDLE;
	control_one(arg, vq, iov, &req);
	return VQ_MORE;
}

void scsi_control_notify(void *arg, struct vqueue_info *vq)
{
	struct scsi_softc *sc = arg;

	/*
	 * What the driver made available before counts as sent before: while
	 * some of it has to wait, so do we.
	 */
	sc->sc_no_memory = false;
	for (unsigned i = 0; i < sc->sc_nr_queues; i++)
		scsi_fetch(&sc->sc_queues[i]);
	if (sc->sc_no_memory)
		return;
	if (vq_serve(vq, vq->vq_qsize, control_serve, sc) == VQ_MORE)
		vio_task_defer(sc->sc_loop, &sc->sc_more);
	vq_endchains(vq, 0);
	scsi_check_broken(sc);
}

/*
 * --- Events ---
 */

/* Put an event into the next buffer; false without one. */
static bool write_event(struct scsi_softc *sc, const struct event *ev)
{
	struct vqueue_info *vq = &sc->sc_vqs[1];
	struct iovec iov[SCSI_MAX_IOV];
	struct event e = *ev;
	struct vio_iov_cursor wr;
	struct vi_req req;
	bool fits;
	size_t len;

	if (vq_getchain(vq, iov, SCSI_MAX_IOV, &req) <= 0)
		return false;
	wr = (struct vio_iov_cursor){ iov + req.readable, req.writable };
	fits = vio_iov_len(&wr) >= sizeof(e);
	/* Too short a buffer: it says that something is missed (5.6.6.3). */
	if (!fits)
		e = (struct event){ .event = cpu_to_le32(
					    VIRTIO_SCSI_T_EVENTS_MISSED) };
	else if (sc->sc_missed)
		e.event = cpu_to_le32(le32_to_cpu(e.event) |
				      VIRTIO_SCSI_T_EVENTS_MISSED);
	len = vio_iov_write(&wr, &e, sizeof(e));
	vq_relchain(vq, (uint16_t)req.idx, (uint32_t)len);
	vq_endchains(vq, 0);
	sc->sc_missed = false;
	return fits;
}

void scsi_event(struct scsi_softc *sc, const struct scsi_lun *lun,
		uint32_t event, uint32_t reason)
{
	uint16_t number = scsi_lun_number(lun);
	struct event ev = {
		.event = cpu_to_le32(event),
		.lun = { 1, lun->target, (uint8_t)(number >> 8),
			 (uint8_t)number },
		.reason = cpu_to_le32(reason),
	};

	if (!(sc->sc_vs.vs_status & VIRTIO_CONFIG_STATUS_DRIVER_OK))
		return;
	sc->sc_nr_events++;
	if (!write_event(sc, &ev)) {
		sc->sc_missed = true;
		sc->sc_nr_missed++;
	}
}

void scsi_event_notify(void *arg, struct vqueue_info *vq)
{
	struct scsi_softc *sc = arg;
	const struct event none = { .event = cpu_to_le32(
					    VIRTIO_SCSI_T_NO_EVENT) };

	if (sc->sc_missed)
		write_event(sc, &none);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Reservations: persistent ones (SPC-4 5.12, 6.15, 6.16) and those of SPC-2.
 *
 * Each logical unit is reached through one I_T nexus, the guest's, and its image
 * is locked against all other processes. So there is at most one registration
 * and no conflict; only the standard's state remains to be kept. A unit whose
 * image others may use (share=on, or readers of an image with ro=on) lacks these
 * commands: a reservation would not keep the others out.
 *
 * The state is saved in a file, for restarts, if the user names one and the
 * initiator requests it (APTPL):
 *
 *	0     header  records...     written by turns, so that one
 *	4096  header  records...     is whole whenever we die
 */
#include <assert.h>
#include <errno.h>
#include <syslog.h>
#include <unistd.h>

#include "base/hash.h"
#include "dev/scsi/scsi.h"

enum {
	IN_READ_KEYS = 0,
	IN_READ_RESERVATION = 1,
	IN_REPORT_CAPABILITIES = 2,

	OUT_REGISTER = 0,
	OUT_RESERVE = 1,
	OUT_RELEASE = 2,
	OUT_CLEAR = 3,
	OUT_PREEMPT = 4,
	OUT_PREEMPT_AND_ABORT = 5,
	OUT_REGISTER_AND_IGNORE = 6,

	SPEC_I_PT = 0x08,
	APTPL = 0x01,
	PARAMETERS_LEN = 24,
};

/* Scope (the logical unit) and type: exclusive or not, for whom. */
bool pr_type_ok(uint8_t scope_type)
{
	return scope_type == 1 || scope_type == 3 ||
	       (scope_type >= 5 && scope_type <= 8);
}

static bool for_all_registrants(const struct pr_state *pr)
{
	return pr->type == 7 || pr->type == 8;
}

/*
 * --- PERSISTENT RESERVE IN ---
 */

static uint64_t holder_key(const struct pr_state *pr)
{
	return for_all_registrants(pr) ? 0 : pr->key;
}

static void read_reservation(struct reply *r, const struct pr_state *pr)
{
	reply_write(r, holder_key(pr), 8);
	reply_write(r, 0, 5);
	reply_write(r, pr->type, 1);
	reply_write(r, 0, 2);
}

static void read_full_status(struct reply *r, const struct pr_state *pr)
{
	reply_write(r, pr->key, 8);
	reply_write(r, 0, 4);
	reply_write(r, 0x02 | pr->reserved, 1); /* ALL_TG_PT, R_HOLDER */
	reply_write(r, pr->reserved ? pr->type : 0, 1);
	reply_write(r, 0, 4);
	reply_write(r, 1, 2); /* relative target port */
	reply_write(r, 24, 4);
	reply_write(r, 0x0f, 1); /* TransportID: of no particular protocol */
	reply_add(r, 23);
}

static void report_capabilities(struct reply *r, const struct scsi_lun *lun)
{
	bool keeps = lun->sc->sc_pr_fd >= 0;

	reply_write(r, 8, 2);
	reply_write(r, 0x14 | keeps, 1); /* CRH, ATP_C, PTPL_C */
	reply_write(r, 0x80 | lun->pr.aptpl, 1);
	reply_write(r, 0xea01, 2); /* all types */
	reply_write(r, 0, 2);
}

void pr_in(struct scsi_task *t)
{
	const struct scsi_lun *lun = t->lun;
	const struct pr_state *pr = &lun->pr;
	unsigned action = t->cdb.def->service_action;
	struct reply r;

	if (lun->reserved) {
		task_status(t, STATUS_RESERVATION_CONFLICT);
		return;
	}
	reply_init(&r);
	if (action == IN_REPORT_CAPABILITIES) {
		report_capabilities(&r, lun);
		task_reply(t, &r);
		return;
	}
	reply_write(&r, pr->generation, 4);
	reply_write(&r, 0, 4);
	if (action == IN_READ_KEYS) {
		if (pr->registered)
			reply_write(&r, pr->key, 8);
	} else if (action == IN_READ_RESERVATION) {
		if (pr->reserved)
			read_reservation(&r, pr);
	} else if (pr->registered) {
		read_full_status(&r, pr);
	}
	write_be32(r.b + 4, (uint32_t)r.len - 8);
	task_reply(t, &r);
}

/*
 * --- The file ---
 */

#define FILE_COPY_BYTES 4096
#define FILE_HEADER     32
#define FILE_RECORD     32

static const char magic[8] = "viodevPR";

/*
 *	header  0 magic  8 sequence  16 records  24 hash of all but itself
 *	record  0 NAA name of the LUN  8 key  16 type, 0: not reserved
 */
static void save_build(const struct scsi_softc *sc, uint64_t seq, uint8_t *b)
{
	uint32_t nr = 0;

	memset(b, 0, FILE_COPY_BYTES);
	for (unsigned i = 0; i < sc->sc_nr_luns; i++) {
		const struct scsi_lun *lun = sc->sc_luns[i];
		const struct pr_state *pr =
			lun->pr_waits ? &lun->pr_before : &lun->pr;
		uint8_t *p = b + FILE_HEADER + nr * FILE_RECORD;

		if (!pr->registered || !pr->aptpl)
			continue;
		write_be64(p, lun->naa);
		write_be64(p + 8, pr->key);
		p[16] = pr->reserved ? pr->type : 0;
		nr++;
	}
	memcpy(b, magic, sizeof(magic));
	write_be64(b + 8, seq);
	write_be32(b + 16, nr);
	write_be64(b + 24, hash64(b, FILE_COPY_BYTES));
}
static_assert(FILE_HEADER + SCSI_MAX_LUNS * FILE_RECORD <= FILE_COPY_BYTES,
	      "a copy has room for all");

/* A copy's sequence number, 0 when it is not whole. */
static uint64_t copy_seq(uint8_t *b)
{
	uint64_t hash = read_be64(b + 24);

	write_be64(b + 24, 0);
	if (memcmp(b, magic, sizeof(magic)) != 0 ||
	    read_be32(b + 16) > SCSI_MAX_LUNS ||
	    hash64(b, FILE_COPY_BYTES) != hash)
		return 0;
	return read_be64(b + 8);
}

static int save_write(const struct scsi_softc *sc, uint64_t seq,
		      const uint8_t *b)
{
	if (pwrite(sc->sc_pr_fd, b, FILE_COPY_BYTES,
		   (off_t)(seq & 1) * FILE_COPY_BYTES) != FILE_COPY_BYTES ||
	    fdatasync(sc->sc_pr_fd) < 0)
		return -EIO;
	return 0;
}

static int save(struct scsi_softc *sc)
{
	uint8_t b[FILE_COPY_BYTES];
	int ret;

	if (sc->sc_pr_fd < 0)
		return 0;
	save_build(sc, sc->sc_pr_seq + 1, b);
	ret = save_write(sc, sc->sc_pr_seq + 1, b);
	if (ret == 0)
		sc->sc_pr_seq++;
	return ret;
}

static void restore(struct scsi_softc *sc, const uint8_t *record)
{
	for (unsigned i = 0; i < sc->sc_nr_luns; i++) {
		struct scsi_lun *lun = sc->sc_luns[i];

		if (!lun->sole || lun->naa != read_be64(record))
			continue;
		lun->pr.registered = true;
		lun->pr.aptpl = true;
		lun->pr.key = read_be64(record + 8);
		lun->pr.reserved = pr_type_ok(record[16]);
		lun->pr.type = lun->pr.reserved ? record[16] : 0;
	}
}

/*
 * Copy the newer one that is whole to @b; of a new file nothing. What has other
 * contents is not ours, and not touched.
 */
static int read_newest(struct scsi_softc *sc, uint8_t b[FILE_COPY_BYTES])
{
	uint8_t copies[2][FILE_COPY_BYTES] = { 0 };
	ssize_t n = pread(sc->sc_pr_fd, copies, sizeof(copies), 0);
	uint64_t seq[2];
	bool second;

	if (n < 0)
		return -errno;
	for (unsigned i = 0; i < 2; i++)
		seq[i] = copy_seq(copies[i]);
	second = seq[1] > seq[0];
	if (n > 0 && seq[second] == 0)
		return -EINVAL;
	sc->sc_pr_seq = seq[second];
	memcpy(b, copies[second], FILE_COPY_BYTES);
	return 0;
}

int pr_load(struct scsi_softc *sc)
{
	uint8_t b[FILE_COPY_BYTES] = { 0 };
	int ret = sc->sc_pr_fd < 0 ? 0 : read_newest(sc, b);

	for (uint32_t i = 0; ret == 0 && i < read_be32(b + 16); i++)
		restore(sc, b + FILE_HEADER + i * FILE_RECORD);
	return ret;
}

/*
 * Whose they were may have written to the file since: behind that. A driver of
 * before a reset may have a command whose reservations are being saved: these
 * must not come later.
 */
int pr_keep(struct scsi_softc *sc)
{
	uint8_t b[FILE_COPY_BYTES];
	int ret;

	if (sc->sc_pr_first)
		return -EBUSY;
	ret = sc->sc_pr_fd < 0 ? 0 : read_newest(sc, b);
	return ret < 0 ? ret : save(sc);
}

/*
 * --- PERSISTENT RESERVE OUT: each 0, or the status to end with ---
 */

struct out {
	uint64_t key, action_key;
	uint8_t type;
	uint8_t flags;
};

static void unregister(struct pr_state *pr)
{
	*pr = (struct pr_state){ .generation = pr->generation };
}

static int out_register(struct pr_state *pr, const struct out *o, bool ignore)
{
	if (!ignore && o->key != (pr->registered ? pr->key : 0))
		return STATUS_RESERVATION_CONFLICT;
	if (!pr->registered && o->action_key == 0)
		return 0;
	pr->generation++;
	if (o->action_key == 0) {
		unregister(pr);
		return 0;
	}
	pr->registered = true;
	pr->key = o->action_key;
	pr->aptpl = o->flags & APTPL;
	return 0;
}

static int out_reserve(struct pr_state *pr, const struct out *o)
{
	if (pr->reserved && pr->type != o->type)
		return STATUS_RESERVATION_CONFLICT;
	pr->reserved = true;
	pr->type = o->type;
	return 0;
}

static int out_clear(struct pr_state *pr)
{
	pr->generation++;
	unregister(pr);
	return 0;
}

/* The initiator can only preempt itself (5.12.11.3). */
static int out_preempt(struct pr_state *pr, const struct out *o)
{
	bool all =
		pr->reserved && for_all_registrants(pr) && o->action_key == 0;

	if (!all && o->action_key != pr->key)
		return STATUS_RESERVATION_CONFLICT;
	pr->generation++;
	if (pr->reserved)
		pr->type = o->type;
	else
		unregister(pr);
	return 0;
}

static int out_act(struct pr_state *pr, unsigned action, const struct out *o)
{
	switch (action) {
	case OUT_REGISTER:
	case OUT_REGISTER_AND_IGNORE:
		return out_register(pr, o, action != OUT_REGISTER);
	case OUT_RESERVE:
		return out_reserve(pr, o);
	case OUT_RELEASE:
		pr->reserved = false;
		return 0;
	case OUT_CLEAR:
		return out_clear(pr);
	default:
		return out_preempt(pr, o);
	}
}

/* What the parameters must not be. False: the command has ended. */
static bool out_ok(struct scsi_task *t, const struct out *o)
{
	const struct scsi_lun *lun = t->lun;
	const struct pr_state *pr = &lun->pr;
	unsigned action = t->cdb.def->service_action;
	bool registers =
		action == OUT_REGISTER || action == OUT_REGISTER_AND_IGNORE;

	if (registers) {
		/* No other port can be named, nothing kept without a file. */
		if ((o->flags & SPEC_I_PT) ||
		    ((o->flags & APTPL) && lun->sc->sc_pr_fd < 0)) {
			task_bad_list(t, 20);
			return false;
		}
		return true;
	}
	if (!pr->registered || o->key != pr->key) {
		task_status(t, STATUS_RESERVATION_CONFLICT);
		return false;
	}
	if (action != OUT_CLEAR && !pr_type_ok(o->type)) {
		task_bad_cdb(t, 2, 7);
		return false;
	}
	if (action == OUT_RELEASE && pr->reserved && o->type != pr->type) {
		task_check(t, SC_INVALID_RELEASE);
		return false;
	}
	if ((action == OUT_PREEMPT || action == OUT_PREEMPT_AND_ABORT) &&
	    o->action_key == 0 && pr->reserved && !for_all_registrants(pr)) {
		task_bad_list(t, 8);
		return false;
	}
	return true;
}

/*
 * --- Saving, one command after the other, by a thread ---
 */

static int save_offloaded(struct scsi_lun *lun, const struct scsi_task *t)
{
	return save_write(lun->sc, lun->sc->sc_pr_seq + 1, lun->work);
}

static void saved(struct scsi_task *t, int result);

static void save_next(struct scsi_softc *sc)
{
	struct scsi_task *t = sc->sc_pr_first;

	if (!t)
		return;
	t->lun->pr_waits = false;
	save_build(sc, sc->sc_pr_seq + 1, t->lun->work);
	task_offload(t, save_offloaded, saved);
}

/* What could not be saved has not happened, whoever still waits for it. */
static void saved(struct scsi_task *t, int result)
{
	struct scsi_lun *lun = t->lun;
	struct scsi_softc *sc = lun->sc;

	sc->sc_pr_first = t->next_waiting;
	if (!sc->sc_pr_first)
		sc->sc_pr_end = &sc->sc_pr_first;
	if (result < 0) {
		vs_log(&sc->sc_vs, LOG_WARNING, "reservations cannot be saved");
		lun->pr = lun->pr_before;
	} else {
		sc->sc_pr_seq++;
	}
	save_next(sc);
	if (task_finish_aborted(t))
		return;
	if (result < 0)
		task_check(t, SC_PR_RESOURCES);
	else
		task_good(t);
}

static void save_task(struct scsi_task *t)
{
	struct scsi_softc *sc = t->lun->sc;
	bool busy = sc->sc_pr_first;

	t->next_waiting = NULL;
	t->lun->pr_waits = true;
	*sc->sc_pr_end = t;
	sc->sc_pr_end = &t->next_waiting;
	if (!busy)
		save_next(sc);
}

void pr_out(struct scsi_task *t)
{
	struct scsi_lun *lun = t->lun;
	uint8_t list[PARAMETERS_LEN];
	struct out o;
	int status;

	if (lun->reserved) {
		task_status(t, STATUS_RESERVATION_CONFLICT);
		return;
	}
	if (t->cdb.nr != PARAMETERS_LEN) {
		task_check(t, SC_LIST_LENGTH);
		return;
	}
	t->transferred = vio_iov_take(&t->data, list, sizeof(list));
	o = (struct out){
		.key = read_be64(list),
		.action_key = read_be64(list + 8),
		.flags = list[20],
		.type = t->cdb.b[2],
	};
	if (!out_ok(t, &o))
		return;
	lun->pr_before = lun->pr;
	status = out_act(&lun->pr, t->cdb.def->service_action, &o);
	if (status == 0 && (lun->pr_before.aptpl || lun->pr.aptpl) &&
	    lun->sc->sc_pr_fd >= 0)
		save_task(t);
	else
		task_status(t, (uint8_t)status);
}

/*
 * --- RESERVE, RELEASE, SPC-2 7.21; with registrations SPC-4 5.12.3 ---
 */

void spc_reserve(struct scsi_task *t)
{
	if (!t->lun->pr.registered)
		t->lun->reserved = true;
	task_good(t);
}

void spc_release(struct scsi_task *t)
{
	t->lun->reserved = false;
	task_good(t);
}

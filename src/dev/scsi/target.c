/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Dispatch of a command: finds its logical unit, checks unit attentions,
 * readiness and write protection, calls the handler. Also the commands that
 * describe a target (SPC-4).
 */
#include "base/util.h"
#include "dev/scsi/scsi.h"

/*
 * --- Addresses ---
 *
 * 5.6.6.1: byte 0 is 1, byte 1 the target, bytes 2 and 3 a single level LUN;
 * or C1 01 and zeroes: the REPORT LUNS well-known logical unit.
 */

static bool is_wlun(const uint8_t addr[8])
{
	static const uint8_t wlun[8] = { 0xc1, 0x01 };

	return memcmp(addr, wlun, 8) == 0;
}

/* The LUN of an address, or -1 when it cannot be one of ours. */
static int lun_number(const uint8_t addr[8])
{
	/* Peripheral device (bus 0) or flat space addressing, SAM-5 4.7. */
	if ((addr[2] & 0xc0) != 0x40 && addr[2] != 0)
		return -1;
	if (read_be32(addr + 4) != 0)
		return -1;
	return (addr[2] & 0x3f) << 8 | addr[3];
}

struct scsi_lun *scsi_find(struct scsi_softc *sc, const uint8_t addr[8],
			   uint8_t *ret_response)
{
	struct scsi_lun *found = NULL;
	int number = lun_number(addr);

	if (is_wlun(addr))
		return &sc->sc_wlun;
	if (addr[0] != 1) {
		*ret_response = VIRTIO_SCSI_S_BAD_TARGET;
		return NULL;
	}
	for (unsigned i = 0; i < sc->sc_nr_luns; i++) {
		struct scsi_lun *lun = sc->sc_luns[i];

		if (lun->target != addr[1] || !lun->present)
			continue;
		if (lun->lun == number)
			return lun;
		found = &sc->sc_absent;
	}
	if (!found)
		*ret_response = VIRTIO_SCSI_S_BAD_TARGET;
	return found;
}

/*
 * --- Unit attentions and readiness ---
 */

static const struct {
	unsigned ua;
	uint32_t code;
} ua_codes[] = {
	{ UA_POWER_ON, SC_UA_POWER_ON },
	{ UA_RESET, SC_UA_RESET },
	{ UA_LUN_RESET, SC_UA_LUN_RESET },
	{ UA_NEXUS_LOSS, SC_UA_NEXUS_LOSS },
	{ UA_LUNS_CHANGED, SC_UA_LUNS_CHANGED },
	{ UA_MEDIUM, SC_UA_MEDIUM },
	{ UA_CAPACITY, SC_UA_CAPACITY },
};

/* The next unit attention, which is reported now, or 0. */
uint32_t lun_take_ua(struct scsi_lun *lun)
{
	for (unsigned i = 0; i < ARRAY_LEN(ua_codes); i++) {
		if (lun->ua & ua_codes[i].ua) {
			lun->ua &= ~ua_codes[i].ua;
			return ua_codes[i].code;
		}
	}
	return 0;
}

/* Why the medium cannot be used, or 0. */
uint32_t lun_not_ready(const struct scsi_lun *lun)
{
	if (lun->ejected)
		return SC_TRAY_OPEN;
	if (lun->stopped)
		return SC_STOPPED;
	if ((lun->kind == LUN_DISK || lun->kind == LUN_CDROM) &&
	    lun->nr_blocks == 0)
		return SC_NO_MEDIUM;
	return 0;
}

/* Which commands of cdb_defs[] it has. */
unsigned lun_kinds(const struct scsi_lun *lun)
{
	switch (lun->kind) {
	case LUN_DISK:
		return FOR_DISK | (lun->thin ? FOR_THIN : 0) |
		       (lun->sole ? FOR_SOLE : 0);
	case LUN_CDROM:
		return FOR_CDROM;
	default:
		return FOR_WLUN;
	}
}

/* What a reset of any kind undoes (SAM-5 6.3); registrations stay. */
void lun_reset(struct scsi_lun *lun, unsigned ua)
{
	lun->ua |= ua;
	lun->reserved = false;
	lun->stopped = false;
	lun->locked = false;
	lun->wce = !lun->writethrough;
	lun->swp = false;
	lun->d_sense = false;
}

/*
 * --- Dispatch ---
 */

static void (*const handlers[NR_CMDS])(struct scsi_task *t) = {
	[CMD_READ] = sbc_read,
	[CMD_WRITE] = sbc_write,
	[CMD_TEST_UNIT_READY] = task_good,
	[CMD_REQUEST_SENSE] = spc_request_sense,
	[CMD_INQUIRY] = spc_inquiry,
	[CMD_REPORT_LUNS] = spc_report_luns,
	[CMD_REPORT_OPCODES] = spc_report_opcodes,
	[CMD_REPORT_TMFS] = spc_report_tmfs,
	[CMD_MODE_SENSE] = spc_mode_sense,
	[CMD_MODE_SELECT] = spc_mode_select,
	[CMD_START_STOP] = spc_start_stop,
	[CMD_PREVENT_REMOVAL] = spc_prevent_removal,
	[CMD_RESERVE] = spc_reserve,
	[CMD_RELEASE] = spc_release,
	[CMD_PR_IN] = pr_in,
	[CMD_PR_OUT] = pr_out,
	[CMD_READ_CAPACITY10] = sbc_read_capacity10,
	[CMD_READ_CAPACITY16] = sbc_read_capacity16,
	[CMD_GET_LBA_STATUS] = sbc_get_lba_status,
	[CMD_VERIFY] = sbc_verify,
	[CMD_WRITE_VERIFY] = sbc_write_verify,
	[CMD_COMPARE_WRITE] = sbc_compare_write,
	[CMD_WRITE_SAME] = sbc_write_same,
	[CMD_UNMAP] = sbc_unmap,
	[CMD_SYNC_CACHE] = sbc_sync_cache,
	[CMD_SEEK] = sbc_seek,
	[CMD_FORMAT_UNIT] = sbc_format,
	[CMD_READ_TOC] = mmc_read_toc,
	[CMD_GET_CONFIGURATION] = mmc_get_configuration,
	[CMD_GET_EVENT_STATUS] = mmc_get_event_status,
	[CMD_MECHANISM_STATUS] = mmc_mechanism_status,
	[CMD_READ_DISC_INFO] = mmc_read_disc_info,
	[CMD_SET_CD_SPEED] = task_good,
	[CMD_READ_DISC_STRUCTURE] = mmc_read_disc_structure,
	[CMD_READ_CD] = mmc_read_cd,
};

/* Whether the buffers hold what the CDB's length asks for; else it ended. */
static bool lengths_fit(struct scsi_task *t)
{
	const struct cdb *cdb = &t->cdb;

	if (cdb->def->flags & CDB_DATA_IN)
		return task_has_in(t, cdb->nr);
	if (cdb->def->flags & CDB_DATA_OUT)
		return task_has_out(t, cdb->nr);
	return true;
}

/*
 * The command may run now. Obstacles are checked now and not on arrival,
 * because the commands in front of it may have changed them.
 */
void task_begin(struct scsi_task *t)
{
	struct scsi_lun *lun = t->lun;
	const struct cdb_def *def = t->cdb.def;
	uint32_t code;

	lun->nr_cmds++;
	if (lun->kind == LUN_PASSTHROUGH && def->cmd != CMD_REPORT_LUNS) {
		pt_start(lun->pt, t);
		return;
	}
	if (!(def->flags & CDB_AT_ONCE) && (code = lun_take_ua(lun))) {
		task_check(t, code);
		return;
	}
	if (def->cmd == CMD_NONE && lun->kind != LUN_ABSENT) {
		task_check(t, t->sense.code);
		return;
	}
	/* Without a unit, only commands that query it are answered. */
	if (lun->kind == LUN_ABSENT && !(def->flags & CDB_AT_ONCE)) {
		task_check(t, SC_NO_LUN);
		return;
	}
	if (t->attr ==
	    VIRTIO_SCSI_S_ACA) { /* there never is such a condition */
		task_check(t, SC_INVALID_MESSAGE);
		return;
	}
	if ((def->flags & CDB_MEDIUM) && (code = lun_not_ready(lun))) {
		task_check(t, code);
		return;
	}
	if ((def->flags & CDB_WRITES) && (lun->ro || lun->swp)) {
		task_check(t, lun->ro ? SC_WRITE_PROTECTED : SC_SOFT_PROTECTED);
		return;
	}
	if (lengths_fit(t))
		handlers[def->cmd](t);
}

/*
 * --- REQUEST SENSE, SPC-4 6.39 ---
 */

void spc_request_sense(struct scsi_task *t)
{
	struct scsi_lun *lun = t->lun;
	struct scsi_sense sense = { .code = SC_NO_SENSE };
	uint8_t buf[SENSE_MAX];
	struct reply r;

	if (lun->kind == LUN_ABSENT)
		sense.code = SC_NO_LUN;
	else if ((sense.code = lun_take_ua(lun)) == 0 && lun->stopped)
		sense.code = SC_STOPPED;
	reply_init(&r);
	reply_copy(&r, buf, sense_build(&sense, t->cdb.b[1] & 1, buf));
	task_reply(t, &r);
}

/*
 * --- REPORT LUNS, SPC-4 6.33 ---
 */

uint16_t scsi_lun_number(const struct scsi_lun *lun)
{
	return lun->lun < 256 ? lun->lun : 0x4000 | lun->lun;
}

static void add_lun(struct reply *r, const struct scsi_lun *lun,
		    bool with_target)
{
	uint16_t number = scsi_lun_number(lun);

	if (with_target) { /* as the driver would address it */
		reply_write(r, 0x0100 | lun->target, 2);
		reply_write(r, 0x4000 | lun->lun, 2);
		reply_write(r, 0, 4);
	} else {
		reply_write(r, number, 2);
		reply_write(r, 0, 6);
	}
}

void spc_report_luns(struct scsi_task *t)
{
	struct scsi_softc *sc = t->q->sc;
	bool all_targets = t->lun->kind == LUN_WLUN;
	uint8_t select = t->cdb.b[2];
	struct reply r;

	if (select > 2) {
		task_bad_cdb(t, 2, 8);
		return;
	}
	reply_init(&r);
	reply_write(&r, 0, 8);
	for (unsigned i = 0; i < sc->sc_nr_luns && select != 1; i++) {
		struct scsi_lun *lun = sc->sc_luns[i];

		if (!lun->present ||
		    (!all_targets && lun->target != t->addr[1]))
			continue;
		add_lun(&r, lun, all_targets);
		/* The initiator knows the change now, SPC-4 6.33. */
		lun->ua &= ~(unsigned)UA_LUNS_CHANGED;
	}
	write_be32(r.b, (uint32_t)r.len - 8);
	task_reply(t, &r);
}

/*
 * --- REPORT SUPPORTED OPERATION CODES, SPC-4 6.35 ---
 */

/* Command timeouts descriptor: nothing is promised. */
static void add_timeouts(struct reply *r)
{
	reply_write(r, 10, 2);
	reply_write(r, 0, 8);
	reply_write(r, 0, 2);
}

static void all_opcodes(struct scsi_task *t, bool rctd)
{
	struct reply r;

	reply_init(&r);
	reply_write(&r, 0, 4);
	for (unsigned i = 0; i < cdb_nr_defs; i++) {
		const struct cdb_def *def = &cdb_defs[i];
		bool has_sa = def->flags & CDB_HAS_SA;

		if (!(def->kinds & lun_kinds(t->lun)))
			continue;
		reply_write(&r, def->opcode, 1);
		reply_write(&r, 0, 1);
		reply_write(&r, def->service_action, 2);
		reply_write(&r, 0, 1);
		reply_write(&r, (rctd ? 2 : 0) | has_sa, 1);
		reply_write(&r, def->len, 2);
		if (rctd)
			add_timeouts(&r);
	}
	write_be32(r.b, (uint32_t)r.len - 4);
	task_reply(t, &r);
}

static void one_opcode(struct scsi_task *t, unsigned options, bool rctd)
{
	uint8_t opcode = t->cdb.b[3];
	uint16_t sa = read_be16(t->cdb.b + 4);
	const struct cdb_def *found = NULL;
	bool has_sa = false;
	struct reply r;

	for (unsigned i = 0; i < cdb_nr_defs; i++) {
		const struct cdb_def *def = &cdb_defs[i];

		if (def->opcode != opcode || !(def->kinds & lun_kinds(t->lun)))
			continue;
		has_sa = def->flags & CDB_HAS_SA;
		if (!has_sa ? options != 3 || sa == 0 :
			      options != 1 && def->service_action == sa)
			found = def;
	}
	/* With the wrong option for the kind of opcode: an error. */
	if ((options == 1 && has_sa) || (options == 2 && found && !has_sa)) {
		task_bad_cdb(t, 2, 2);
		return;
	}
	reply_init(&r);
	reply_write(&r, 0, 1);
	reply_write(&r, (found && rctd ? 0x80 : 0) | (found ? 3 : 1), 1);
	reply_write(&r, found ? found->len : 0, 2);
	if (found) {
		reply_copy(&r, found->usage, found->len);
		if (rctd)
			add_timeouts(&r);
	}
	task_reply(t, &r);
}

void spc_report_opcodes(struct scsi_task *t)
{
	bool rctd = t->cdb.b[2] & 0x80;
	unsigned options = t->cdb.b[2] & 7;

	if (options == 0)
		all_opcodes(t, rctd);
	else if (options <= 3)
		one_opcode(t, options, rctd);
	else
		task_bad_cdb(t, 2, 2);
}

/* SPC-4 6.36: all that tmf.c does. */
void spc_report_tmfs(struct scsi_task *t)
{
	bool repd = t->cdb.b[2] & 0x80;
	struct reply r;

	if (t->cdb.nr < 4) {
		task_bad_cdb(t, 6, 8);
		return;
	}
	reply_init(&r);
	/* ABORT TASK (SET), CLEAR TASK SET, LOGICAL UNIT RESET, QUERY TASK */
	reply_write(&r, 0x80 | 0x40 | 0x10 | 0x08 | 0x01, 1);
	reply_write(&r, 0x04 | 0x01, 1); /* QUERY TASK SET, I_T NEXUS RESET */
	reply_write(&r, 0, 1);
	reply_write(&r, repd ? 12 : 0, 1);
	if (repd)
		reply_add(&r, 12);
	task_reply(t, &r);
}

/*
 * --- START STOP UNIT, PREVENT ALLOW MEDIUM REMOVAL; SBC-3 5.25, SPC-4 6.13 ---
 */

static void load_or_eject(struct scsi_task *t, bool load)
{
	struct scsi_lun *lun = t->lun;

	if (!load && lun->locked) {
		task_check(t, SC_REMOVAL_PREVENTED);
		return;
	}
	if (load && lun->ejected && lun->disk)
		lun->ua |= UA_MEDIUM;
	lun->ejected = !load;
	lun->stopped = false;
	task_good(t);
}

/* What follows may be power off: the cache goes first, but for NO_FLUSH. */
static void flush_cache(struct scsi_task *t)
{
	if (t->lun->ro || (t->cdb.b[4] & 4))
		task_good(t);
	else
		task_disk(t, DISK_FLUSH, 0, 0, task_disk_done);
}

/* Power conditions exist in name only. */
static void power_condition(struct scsi_task *t, uint8_t power)
{
	switch (power) {
	case 1:   /* active */
	case 2:   /* idle */
	case 7:   /* as timers have it */
	case 0xa: /* force idle */
		task_good(t);
		break;
	case 3:   /* standby */
	case 0xb: /* force standby */
		flush_cache(t);
		break;
	default:
		task_bad_cdb(t, 4, 7);
	}
}

void spc_start_stop(struct scsi_task *t)
{
	struct scsi_lun *lun = t->lun;
	uint8_t power = t->cdb.b[4] >> 4;
	bool loej = t->cdb.b[4] & 2, start = t->cdb.b[4] & 1;

	if (power != 0) {
		power_condition(t, power);
		return;
	}
	if (loej && lun->kind == LUN_CDROM) {
		load_or_eject(t, start);
		return;
	}
	if (loej) {
		task_bad_cdb(t, 4, 1);
		return;
	}
	lun->stopped = !start;
	if (start)
		task_good(t);
	else
		flush_cache(t);
}

void spc_prevent_removal(struct scsi_task *t)
{
	t->lun->locked = t->cdb.b[4] & 1;
	task_good(t);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Command descriptor blocks: which commands there are, what each of their
 * bits may be, and taking one apart. Pure: no device, no memory.
 */
#ifndef SCSI_CDB_H
#define SCSI_CDB_H

#include <stdbool.h>
#include <stdint.h>

#include "dev/scsi/sense.h"

#define CDB_MAX 32 /* what is kept of a command; the longest has 16 */

enum cdb_cmd {
	CMD_NONE, /* not one that we have */
	CMD_READ,
	CMD_WRITE,
	CMD_TEST_UNIT_READY,
	CMD_REQUEST_SENSE,
	CMD_INQUIRY,
	CMD_REPORT_LUNS,
	CMD_REPORT_OPCODES,
	CMD_REPORT_TMFS,
	CMD_MODE_SENSE,
	CMD_MODE_SELECT,
	CMD_START_STOP,
	CMD_PREVENT_REMOVAL,
	CMD_RESERVE,
	CMD_RELEASE,
	CMD_PR_IN,
	CMD_PR_OUT,
	CMD_READ_CAPACITY10,
	CMD_READ_CAPACITY16,
	CMD_GET_LBA_STATUS,
	CMD_VERIFY,
	CMD_WRITE_VERIFY,
	CMD_COMPARE_WRITE,
	CMD_WRITE_SAME,
	CMD_UNMAP,
	CMD_SYNC_CACHE,
	CMD_SEEK, /* also PRE-FETCH: there is nothing to do */
	CMD_FORMAT_UNIT,
	CMD_READ_TOC,
	CMD_GET_CONFIGURATION,
	CMD_GET_EVENT_STATUS,
	CMD_MECHANISM_STATUS,
	CMD_READ_DISC_INFO,
	CMD_SET_CD_SPEED,
	CMD_READ_DISC_STRUCTURE,
	CMD_READ_CD,
	NR_CMDS,
};

/* Kinds of logical units that have a command. */
enum {
	FOR_DISK = 1,
	FOR_CDROM = 2,
	FOR_WLUN = 4,  /* REPORT LUNS well-known logical unit, SPC-4 9 */
	FOR_THIN = 8,  /* a disk that unmaps */
	FOR_SOLE = 16, /* a disk that no other process uses: reservations */
	FOR_BOTH = FOR_DISK | FOR_CDROM,
	FOR_ALL = FOR_BOTH | FOR_WLUN,
};

enum {
	CDB_HAS_SA = 1,    /* service action in byte 1, bits 4..0 */
	CDB_MEDIUM = 2,    /* asks for a medium that is ready */
	CDB_WRITES = 4,    /* changes the medium */
	CDB_ALONE = 8,     /* no other command of the LUN runs beside it */
	CDB_AT_ONCE = 16,  /* runs in front of others, whatever is pending */
	CDB_DATA_IN = 32,  /* cdb.nr is an allocation length */
	CDB_DATA_OUT = 64, /* cdb.nr is a parameter list length */
};

struct cdb_def {
	uint8_t opcode;
	uint8_t service_action;
	uint8_t cmd; /* enum cdb_cmd */
	uint8_t kinds;
	uint8_t flags;
	uint8_t len;
	uint8_t lba_at, lba_bytes; /* where LBA and length are; 0 bytes: none */
	uint8_t nr_at, nr_bytes;
	uint8_t usage[16]; /* bits that may be set, SPC-4 6.35.3 */
};

extern const struct cdb_def cdb_defs[];
extern const unsigned cdb_nr_defs;

struct cdb {
	const struct cdb_def *def; /* CMD_NONE's when the command is refused */
	uint8_t b[CDB_MAX];
	uint64_t lba;
	uint32_t nr; /* blocks, or bytes of data */
};

/*
 * Take @cdb->b apart for a logical unit of @kinds. False, and why in @sense,
 * when there is no such command or a bit is set that must not be.
 */
bool cdb_parse(struct cdb *cdb, unsigned kinds, struct scsi_sense *sense);

#endif

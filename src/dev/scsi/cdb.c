/* SPDX-License-Identifier: BSD-2-Clause */
#include "dev/scsi/cdb.h"

#include "base/util.h"
#include "dev/scsi/codec.h"

/* clang-format off */
#define B4 0xff, 0xff, 0xff, 0xff
#define B8 B4, B4
#define LIST 0 /* no LBA */

/*
 * The last byte is CONTROL: with neither NACA nor vendor bits. Of READ, WRITE
 * and the like the protection field (byte 1, bits 7..5) must be 0, because
 * there is no protection information. The most frequent commands come first.
 */
const struct cdb_def cdb_defs[] = {
	{ 0x28, 0, CMD_READ, FOR_BOTH, CDB_MEDIUM, 10, 2, 4, 7, 2,
	  { 0x28, 0x18, B4, 0x1f, 0xff, 0xff } },
	{ 0x2a, 0, CMD_WRITE, FOR_DISK, CDB_MEDIUM | CDB_WRITES, 10, 2, 4, 7, 2,
	  { 0x2a, 0x18, B4, 0x1f, 0xff, 0xff } },
	{ 0x88, 0, CMD_READ, FOR_DISK, CDB_MEDIUM, 16, 2, 8, 10, 4,
	  { 0x88, 0x18, B8, B4, 0x1f } },
	{ 0x8a, 0, CMD_WRITE, FOR_DISK, CDB_MEDIUM | CDB_WRITES, 16,
	  2, 8, 10, 4, { 0x8a, 0x18, B8, B4, 0x1f } },
	{ 0x35, 0, CMD_SYNC_CACHE, FOR_BOTH, CDB_MEDIUM, 10, 2, 4, 7, 2,
	  { 0x35, 0x06, B4, 0x1f, 0xff, 0xff } },
	{ 0x42, 0, CMD_UNMAP, FOR_THIN,
	  CDB_MEDIUM | CDB_WRITES | CDB_DATA_OUT, 10, LIST, 0, 7, 2,
	  { 0x42, 0x01, 0, 0, 0, 0, 0x1f, 0xff, 0xff } },
	{ 0x00, 0, CMD_TEST_UNIT_READY, FOR_ALL, CDB_MEDIUM, 6, LIST, 0, 0, 0,
	  { 0x00 } },
	{ 0x03, 0, CMD_REQUEST_SENSE, FOR_ALL, CDB_AT_ONCE | CDB_DATA_IN, 6,
	  LIST, 0, 4, 1, { 0x03, 0x01, 0, 0, 0xff } },
	{ 0x04, 0, CMD_FORMAT_UNIT, FOR_DISK,
	  CDB_MEDIUM | CDB_WRITES | CDB_ALONE, 6, LIST, 0, 0, 0,
	  { 0x04, 0x3f } },
	{ 0x08, 0, CMD_READ, FOR_BOTH, CDB_MEDIUM, 6, 1, 3, 4, 1,
	  { 0x08, 0x1f, 0xff, 0xff, 0xff } },
	{ 0x0a, 0, CMD_WRITE, FOR_DISK, CDB_MEDIUM | CDB_WRITES, 6, 1, 3, 4, 1,
	  { 0x0a, 0x1f, 0xff, 0xff, 0xff } },
	{ 0x12, 0, CMD_INQUIRY, FOR_ALL, CDB_AT_ONCE | CDB_DATA_IN, 6,
	  LIST, 0, 3, 2, { 0x12, 0x01, 0xff, 0xff, 0xff } },
	{ 0x15, 0, CMD_MODE_SELECT, FOR_BOTH, CDB_ALONE | CDB_DATA_OUT, 6,
	  LIST, 0, 4, 1, { 0x15, 0x11, 0, 0, 0xff } },
	{ 0x16, 0, CMD_RESERVE, FOR_CDROM | FOR_SOLE, 0, 6, LIST, 0, 0, 0, { 0x16 } },
	{ 0x17, 0, CMD_RELEASE, FOR_CDROM | FOR_SOLE, 0, 6, LIST, 0, 0, 0, { 0x17 } },
	{ 0x1a, 0, CMD_MODE_SENSE, FOR_BOTH, CDB_DATA_IN, 6, LIST, 0, 4, 1,
	  { 0x1a, 0x08, 0xff, 0xff, 0xff } },
	{ 0x1b, 0, CMD_START_STOP, FOR_BOTH, 0, 6, LIST, 0, 0, 0,
	  { 0x1b, 0x01, 0, 0x0f, 0xf7 } },
	{ 0x1e, 0, CMD_PREVENT_REMOVAL, FOR_CDROM, 0, 6, LIST, 0, 0, 0,
	  { 0x1e, 0, 0, 0, 0x03 } },
	{ 0x25, 0, CMD_READ_CAPACITY10, FOR_BOTH, CDB_MEDIUM, 10, 2, 4, 0, 0,
	  { 0x25, 0, B4, 0, 0, 0x01 } },
	{ 0x2b, 0, CMD_SEEK, FOR_BOTH, CDB_MEDIUM, 10, 2, 4, 0, 0,
	  { 0x2b, 0, B4 } },
	{ 0x2e, 0, CMD_WRITE_VERIFY, FOR_DISK,
	  CDB_MEDIUM | CDB_WRITES | CDB_ALONE, 10, 2, 4, 7, 2,
	  { 0x2e, 0x16, B4, 0x1f, 0xff, 0xff } },
	{ 0x2f, 0, CMD_VERIFY, FOR_BOTH, CDB_MEDIUM | CDB_ALONE, 10, 2, 4, 7, 2,
	  { 0x2f, 0x16, B4, 0x1f, 0xff, 0xff } },
	{ 0x34, 0, CMD_SEEK, FOR_DISK, CDB_MEDIUM, 10, 2, 4, 7, 2,
	  { 0x34, 0x02, B4, 0x1f, 0xff, 0xff } },
	{ 0x41, 0, CMD_WRITE_SAME, FOR_DISK,
	  CDB_MEDIUM | CDB_WRITES | CDB_ALONE, 10, 2, 4, 7, 2,
	  { 0x41, 0x08, B4, 0x1f, 0xff, 0xff } },
	{ 0x43, 0, CMD_READ_TOC, FOR_CDROM, CDB_MEDIUM | CDB_DATA_IN, 10,
	  LIST, 0, 7, 2,
	  { 0x43, 0x02, 0x0f, 0, 0, 0, 0xff, 0xff, 0xff, 0xc0 } },
	{ 0x46, 0, CMD_GET_CONFIGURATION, FOR_CDROM, CDB_AT_ONCE | CDB_DATA_IN,
	  10, LIST, 0, 7, 2, { 0x46, 0x03, 0xff, 0xff, 0, 0, 0, 0xff, 0xff } },
	{ 0x4a, 0, CMD_GET_EVENT_STATUS, FOR_CDROM, CDB_AT_ONCE | CDB_DATA_IN,
	  10, LIST, 0, 7, 2, { 0x4a, 0x01, 0, 0, 0xff, 0, 0, 0xff, 0xff } },
	{ 0x51, 0, CMD_READ_DISC_INFO, FOR_CDROM, CDB_MEDIUM | CDB_DATA_IN, 10,
	  LIST, 0, 7, 2, { 0x51, 0x07, 0, 0, 0, 0, 0, 0xff, 0xff } },
	{ 0x55, 0, CMD_MODE_SELECT, FOR_BOTH, CDB_ALONE | CDB_DATA_OUT, 10,
	  LIST, 0, 7, 2, { 0x55, 0x11, 0, 0, 0, 0, 0, 0xff, 0xff } },
	{ 0x56, 0, CMD_RESERVE, FOR_CDROM | FOR_SOLE, 0, 10, LIST, 0, 0, 0, { 0x56 } },
	{ 0x57, 0, CMD_RELEASE, FOR_CDROM | FOR_SOLE, 0, 10, LIST, 0, 0, 0, { 0x57 } },
	{ 0x5a, 0, CMD_MODE_SENSE, FOR_BOTH, CDB_DATA_IN, 10, LIST, 0, 7, 2,
	  { 0x5a, 0x18, 0xff, 0xff, 0, 0, 0, 0xff, 0xff } },
#define PR_IN(sa) \
	{ 0x5e, sa, CMD_PR_IN, FOR_SOLE, CDB_HAS_SA | CDB_DATA_IN, 10, \
	  LIST, 0, 7, 2, { 0x5e, sa, 0, 0, 0, 0, 0, 0xff, 0xff } }
	PR_IN(0), PR_IN(1), PR_IN(2), PR_IN(3),
#define PR_OUT(sa, type) \
	{ 0x5f, sa, CMD_PR_OUT, FOR_SOLE, \
	  CDB_HAS_SA | CDB_DATA_OUT | CDB_ALONE, 10, LIST, 0, 5, 4, \
	  { 0x5f, sa, type, 0, 0, B4 } }
	PR_OUT(0, 0xff), PR_OUT(1, 0xff), PR_OUT(2, 0xff), PR_OUT(3, 0xff),
	PR_OUT(4, 0xff), PR_OUT(5, 0xff), PR_OUT(6, 0xff),
	{ 0x89, 0, CMD_COMPARE_WRITE, FOR_DISK,
	  CDB_MEDIUM | CDB_WRITES | CDB_ALONE, 16, 2, 8, 13, 1,
	  { 0x89, 0x18, B8, 0, 0, 0, 0xff, 0x1f } },
	{ 0x8e, 0, CMD_WRITE_VERIFY, FOR_DISK,
	  CDB_MEDIUM | CDB_WRITES | CDB_ALONE, 16, 2, 8, 10, 4,
	  { 0x8e, 0x16, B8, B4, 0x1f } },
	{ 0x8f, 0, CMD_VERIFY, FOR_DISK, CDB_MEDIUM | CDB_ALONE, 16,
	  2, 8, 10, 4, { 0x8f, 0x16, B8, B4, 0x1f } },
	{ 0x90, 0, CMD_SEEK, FOR_DISK, CDB_MEDIUM, 16, 2, 8, 10, 4,
	  { 0x90, 0x02, B8, B4, 0x1f } },
	{ 0x91, 0, CMD_SYNC_CACHE, FOR_DISK, CDB_MEDIUM, 16, 2, 8, 10, 4,
	  { 0x91, 0x06, B8, B4, 0x1f } },
	{ 0x93, 0, CMD_WRITE_SAME, FOR_DISK,
	  CDB_MEDIUM | CDB_WRITES | CDB_ALONE, 16, 2, 8, 10, 4,
	  { 0x93, 0x09, B8, B4, 0x1f } },
	{ 0x9e, 0x10, CMD_READ_CAPACITY16, FOR_DISK,
	  CDB_HAS_SA | CDB_MEDIUM | CDB_DATA_IN, 16, 2, 8, 10, 4,
	  { 0x9e, 0x10, B8, B4, 0x01 } },
	{ 0x9e, 0x12, CMD_GET_LBA_STATUS, FOR_DISK,
	  CDB_HAS_SA | CDB_MEDIUM | CDB_DATA_IN | CDB_ALONE, 16, 2, 8, 10, 4,
	  { 0x9e, 0x12, B8, B4 } },
	{ 0xa0, 0, CMD_REPORT_LUNS, FOR_ALL, CDB_AT_ONCE | CDB_DATA_IN, 12,
	  LIST, 0, 6, 4, { 0xa0, 0, 0xff, 0, 0, 0, B4 } },
	{ 0xa3, 0x0c, CMD_REPORT_OPCODES, FOR_BOTH, CDB_HAS_SA | CDB_DATA_IN,
	  12, LIST, 0, 6, 4, { 0xa3, 0x0c, 0x87, 0xff, 0xff, 0xff, B4 } },
	{ 0xa3, 0x0d, CMD_REPORT_TMFS, FOR_BOTH, CDB_HAS_SA | CDB_DATA_IN,
	  12, LIST, 0, 6, 4, { 0xa3, 0x0d, 0x80, 0, 0, 0, B4 } },
	{ 0xa8, 0, CMD_READ, FOR_BOTH, CDB_MEDIUM, 12, 2, 4, 6, 4,
	  { 0xa8, 0x18, B4, B4, 0x1f } },
	{ 0xaa, 0, CMD_WRITE, FOR_DISK, CDB_MEDIUM | CDB_WRITES, 12, 2, 4, 6, 4,
	  { 0xaa, 0x18, B4, B4, 0x1f } },
	{ 0xae, 0, CMD_WRITE_VERIFY, FOR_DISK,
	  CDB_MEDIUM | CDB_WRITES | CDB_ALONE, 12, 2, 4, 6, 4,
	  { 0xae, 0x16, B4, B4, 0x1f } },
	{ 0xaf, 0, CMD_VERIFY, FOR_DISK, CDB_MEDIUM | CDB_ALONE, 12, 2, 4, 6, 4,
	  { 0xaf, 0x16, B4, B4, 0x1f } },
	{ 0xad, 0, CMD_READ_DISC_STRUCTURE, FOR_CDROM,
	  CDB_MEDIUM | CDB_DATA_IN, 12, LIST, 0, 8, 2,
	  { 0xad, 0x0f, B4, 0xff, 0xff, 0xff, 0xff, 0xc0 } },
	{ 0xbb, 0, CMD_SET_CD_SPEED, FOR_CDROM, 0, 12, LIST, 0, 0, 0,
	  { 0xbb, 0x03, B4 } },
	{ 0xbe, 0, CMD_READ_CD, FOR_CDROM, CDB_MEDIUM, 12, 2, 4, 6, 3,
	  { 0xbe, 0x1e, B4, 0xff, 0xff, 0xff, 0xfe, 0x07 } },
	{ 0xbd, 0, CMD_MECHANISM_STATUS, FOR_CDROM, CDB_DATA_IN, 12,
	  LIST, 0, 8, 2, { 0xbd, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff } },
};
/* clang-format on */

const unsigned cdb_nr_defs = ARRAY_LEN(cdb_defs);

static const struct cdb_def unknown = { .cmd = CMD_NONE, .len = 6 };

static void bad_field(struct scsi_sense *sense, unsigned byte, uint8_t bits)
{
	*sense = (struct scsi_sense){
		.code = SC_INVALID_CDB_FIELD,
		.has_field = true,
		.in_cdb = true,
		.byte = (uint16_t)byte,
		.bit = (uint8_t)(31 - __builtin_clz(bits)),
	};
}

static const struct cdb_def *find(const struct cdb *cdb, unsigned kinds,
				  bool *ret_opcode_known)
{
	*ret_opcode_known = false;
	for (unsigned i = 0; i < cdb_nr_defs; i++) {
		const struct cdb_def *def = &cdb_defs[i];

		if (def->opcode != cdb->b[0] || !(def->kinds & kinds))
			continue;
		if (!(def->flags & CDB_HAS_SA) ||
		    def->service_action == (cdb->b[1] & 0x1f))
			return def;
		*ret_opcode_known = true;
	}
	return NULL;
}

bool cdb_parse(struct cdb *cdb, unsigned kinds, struct scsi_sense *sense)
{
	bool opcode_known;
	const struct cdb_def *def = find(cdb, kinds, &opcode_known);

	cdb->def = &unknown;
	if (!def && opcode_known) {
		bad_field(sense, 1, 0x1f); /* the service action */
		return false;
	}
	if (!def) {
		*sense = (struct scsi_sense){ .code = SC_INVALID_OPCODE };
		return false;
	}
	for (unsigned i = 1; i < def->len; i++) {
		uint8_t bits = cdb->b[i] & (uint8_t)~def->usage[i];

		if (bits) {
			bad_field(sense, i, bits);
			return false;
		}
	}
	cdb->def = def;
	cdb->lba = read_be(cdb->b + def->lba_at, def->lba_bytes);
	cdb->nr = (uint32_t)read_be(cdb->b + def->nr_at, def->nr_bytes);
	/* The six byte READ and WRITE: a short LBA, and 0 blocks mean 256. */
	if (def->lba_bytes == 3) {
		cdb->lba &= 0x1fffff;
		if (cdb->nr == 0)
			cdb->nr = 256;
	}
	return true;
}

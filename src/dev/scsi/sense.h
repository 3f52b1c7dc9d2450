/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * SCSI status and sense data (SAM-5 5.3, SPC-4 4.5). Pure.
 */
#ifndef SCSI_SENSE_H
#define SCSI_SENSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum scsi_status {
	STATUS_GOOD = 0x00,
	STATUS_CHECK_CONDITION = 0x02,
	STATUS_BUSY = 0x08,
	STATUS_RESERVATION_CONFLICT = 0x18,
};

/* Sense key, additional sense code and its qualifier: 0x00kkaaqq. */
enum scsi_code {
	SC_NO_SENSE = 0x000000,
	SC_STOPPED = 0x020402, /* initializing command required */
	SC_NO_MEDIUM = 0x023a00,
	SC_TRAY_OPEN = 0x023a02,
	SC_WRITE_ERROR = 0x030c00,
	SC_READ_ERROR = 0x031100,
	SC_TARGET_FAILURE = 0x044400,
	SC_LIST_LENGTH = 0x051a00, /* parameter list length error */
	SC_INVALID_OPCODE = 0x052000,
	SC_LBA_RANGE = 0x052100,
	SC_INVALID_CDB_FIELD = 0x052400,
	SC_NO_LUN = 0x052500,
	SC_INVALID_LIST_FIELD = 0x052600,
	SC_INVALID_RELEASE = 0x052604,
	SC_INCOMPATIBLE_MEDIUM = 0x053002, /* cannot read it: format */
	SC_ILLEGAL_MODE = 0x056400,
	SC_SAVING_PARAMETERS = 0x053900,
	SC_INVALID_MESSAGE = 0x054900,
	SC_REMOVAL_PREVENTED = 0x055302,
	SC_PR_RESOURCES = 0x055504, /* insufficient registration resources */
	SC_UA_MEDIUM = 0x062800,
	SC_UA_RESET = 0x062900,
	SC_UA_POWER_ON = 0x062901,
	SC_UA_LUN_RESET = 0x062903,
	SC_UA_NEXUS_LOSS = 0x062907,
	SC_UA_CAPACITY = 0x062a09,
	SC_UA_LUNS_CHANGED = 0x063f0e,
	SC_WRITE_PROTECTED = 0x072700,
	SC_SOFT_PROTECTED = 0x072702,
	SC_NO_SPACE = 0x072707,
	SC_MISCOMPARE = 0x0e1d00,
};

struct scsi_sense {
	uint32_t code; /* enum scsi_code */
	bool has_info;
	uint64_t info;
	/* The field in error (SPC-4 4.5.2.4.2): where in CDB or parameters. */
	bool has_field;
	bool in_cdb;
	uint8_t bit; /* 0 .. 7; 8: the whole byte */
	uint16_t byte;
};

#define SENSE_MAX 36 /* what the function below writes at the most */

/* Build current sense data in fixed or descriptor format; how many bytes. */
size_t sense_build(const struct scsi_sense *s, bool descriptor,
		   uint8_t buf[SENSE_MAX]);

#endif

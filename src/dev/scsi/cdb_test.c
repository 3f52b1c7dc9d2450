/* SPDX-License-Identifier: BSD-2-Clause */
/* The table of commands, parsing of CDBs, and sense data. */
#include "dev/scsi/cdb.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include "base/util.h"
#include "dev/scsi/codec.h"

#include <cmocka.h>

static uint8_t len_of_group(uint8_t opcode)
{
	static const uint8_t len[8] = { 6, 10, 10, 0, 16, 12, 0, 0 };

	return len[opcode >> 5];
}

/* The data of REPORT SUPPORTED OPERATION CODES must be valid. */
static void test_table(void **state)
{
	for (unsigned i = 0; i < cdb_nr_defs; i++) {
		const struct cdb_def *def = &cdb_defs[i];

		print_message("%02x/%02x\n", def->opcode, def->service_action);
		assert_int_equal(def->usage[0], def->opcode);
		assert_int_equal(def->len, len_of_group(def->opcode));
		assert_int_equal(def->usage[def->len - 1] & ~0xc1, 0);
		for (unsigned k = def->len; k < 16; k++)
			assert_int_equal(def->usage[k], 0);
		assert_in_range(def->cmd, CMD_NONE + 1, NR_CMDS - 1);
		for (unsigned k = 0; k < def->nr_bytes; k++)
			assert_int_equal(def->usage[def->nr_at + k], 0xff);
		for (unsigned k = 0; k < def->lba_bytes; k++)
			assert_true(def->usage[def->lba_at + k] >= 0x1f);
		if (def->flags & (CDB_DATA_IN | CDB_DATA_OUT))
			assert_true(def->nr_bytes > 0);
		if (def->flags & CDB_HAS_SA)
			assert_int_equal(def->usage[1], def->service_action);
		for (unsigned k = 0; k < i; k++)
			assert_false(cdb_defs[k].opcode == def->opcode &&
				     cdb_defs[k].service_action ==
					     def->service_action);
	}
}

/* Every bit that must not be set is found, and reported. */
static void test_reserved_bits(void **state)
{
	for (unsigned i = 0; i < cdb_nr_defs; i++) {
		const struct cdb_def *def = &cdb_defs[i];

		for (unsigned bit = 8; bit < def->len * 8u; bit++) {
			struct cdb cdb = { .b = { def->opcode } };
			struct scsi_sense sense = { 0 };
			bool ok, sa = def->flags & CDB_HAS_SA;

			if (sa && bit < 13)
				continue; /* another service action */
			cdb.b[1] = def->service_action;
			cdb.b[bit / 8] |= (uint8_t)(1 << bit % 8);
			ok = cdb_parse(&cdb, ~0u, &sense);
			assert_int_equal(ok,
					 def->usage[bit / 8] >> bit % 8 & 1);
			if (ok) {
				assert_ptr_equal(cdb.def, def);
				continue;
			}
			assert_int_equal(cdb.def->cmd, CMD_NONE);
			assert_int_equal(sense.code, SC_INVALID_CDB_FIELD);
			assert_true(sense.has_field && sense.in_cdb);
			assert_int_equal(sense.byte, bit / 8);
			assert_int_equal(sense.bit, bit % 8);
		}
	}
}

/* hostile K3: any opcode with any second byte, for any kind of unit. */
static void test_all_opcodes(void **state)
{
	for (unsigned i = 0; i < 1u << 20; i++) {
		struct cdb cdb = { .b = { i & 255, i >> 8 & 255 } };
		struct scsi_sense sense = { 0 };

		if (!cdb_parse(&cdb, i >> 16, &sense)) {
			assert_int_equal(cdb.def->cmd, CMD_NONE);
			assert_true(sense.code == SC_INVALID_OPCODE ||
				    sense.code == SC_INVALID_CDB_FIELD);
		} else {
			assert_true(cdb.def->kinds & i >> 16);
		}
	}
}

static void test_parse(void **state)
{
	static const struct {
		uint8_t b[16];
		enum cdb_cmd cmd;
		uint64_t lba;
		uint32_t nr;
	} rows[] = {
		{ { 0x08, 0x1f, 0xff, 0xff, 0 }, CMD_READ, 0x1fffff, 256 },
		{ { 0x0a, 0, 0, 1, 2 }, CMD_WRITE, 1, 2 },
		{ { 0x28, 0, 1, 2, 3, 4, 0, 5, 6 },
		  CMD_READ,
		  0x01020304,
		  0x0506 },
		{ { 0xa8, 0, 1, 2, 3, 4, 5, 6, 7, 8 },
		  CMD_READ,
		  0x01020304,
		  0x05060708 },
		{ { 0x8a, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12 },
		  CMD_WRITE,
		  0x0102030405060708,
		  0x090a0b0c },
		{ { 0x12, 0, 0, 1, 2 }, CMD_INQUIRY, 0, 0x0102 },
		{ { 0x5f, 0, 0, 0, 0, 1, 2, 3, 4 }, CMD_PR_OUT, 0, 0x01020304 },
		{ { 0x9e, 0x10, [13] = 32 }, CMD_READ_CAPACITY16, 0, 32 },
		{ { 0x89, 0, [9] = 7, [13] = 3 }, CMD_COMPARE_WRITE, 7, 3 },
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct cdb cdb = { 0 };
		struct scsi_sense sense;

		memcpy(cdb.b, rows[i].b, 16);
		assert_true(cdb_parse(&cdb, FOR_DISK | FOR_SOLE, &sense));
		assert_int_equal(cdb.def->cmd, rows[i].cmd);
		assert_int_equal(cdb.lba, rows[i].lba);
		assert_int_equal(cdb.nr, rows[i].nr);
	}
}

/* SPC-4 4.5.2 (descriptors), 4.5.3 (fixed). */
static void test_sense(void **state)
{
	static const struct {
		struct scsi_sense s;
		bool descriptor;
		size_t len;
		uint8_t b[SENSE_MAX];
	} rows[] = {
		{ { .code = SC_LBA_RANGE },
		  false,
		  18,
		  { 0x70, 0, 5, [7] = 10, [12] = 0x21 } },
		{ { .code = SC_LBA_RANGE, .has_info = true, .info = 0x102 },
		  false,
		  18,
		  { 0xf0, 0, 5, 0, 0, 1, 2, 10, [12] = 0x21 } },
		{ { .code = SC_LBA_RANGE,
		    .has_info = true,
		    .info = 0x100000000 },
		  false,
		  18,
		  { 0x70, 0, 5, [7] = 10, [12] = 0x21 } },
		{ { .code = SC_INVALID_CDB_FIELD,
		    .has_field = true,
		    .in_cdb = true,
		    .byte = 3,
		    .bit = 5 },
		  false,
		  18,
		  { 0x70, 0,
		    5, [7] = 10, [12] = 0x24, [15] = 0xcd, [17] = 3 } },
		{ { .code = SC_INVALID_LIST_FIELD,
		    .has_field = true,
		    .byte = 0x104,
		    .bit = 8 },
		  false,
		  18,
		  { 0x70, 0, 5, [7] = 10, [12] = 0x26, [15] = 0x80, 1, 4 } },
		{ { .code = SC_UA_CAPACITY }, true, 8, { 0x72, 6, 0x2a, 9 } },
		{ { .code = SC_MISCOMPARE,
		    .has_info = true,
		    .info = 0x0102030405060708,
		    .has_field = true,
		    .bit = 8,
		    .byte = 9 },
		  true,
		  28,
		  { 0x72, 14, 0x1d, 0, 0, 0, 0, 20, 0, 10, 0x80, 0, 1, 2,
		    3,    4,  5,    6, 7, 8, 2, 6,  0, 0,  0x80, 0, 9, 0 } },
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		uint8_t buf[SENSE_MAX];

		memset(buf, 0xee, sizeof(buf));
		assert_int_equal(
			sense_build(&rows[i].s, rows[i].descriptor, buf),
			rows[i].len);
		assert_memory_equal(buf, rows[i].b, SENSE_MAX);
	}
}

/* What does not fit into a reply is left out. */
static void test_reply_bounds(void **state)
{
	struct reply r;

	reply_init(&r);
	for (unsigned i = 0; i < REPLY_MAX; i++)
		reply_write(&r, 0x11, 3);
	assert_int_equal(r.len, REPLY_MAX / 3 * 3);
	reply_text(&r, "text", 16);
	reply_copy(&r, "text", 5);
	assert_null(reply_add(&r, SIZE_MAX));
	assert_int_equal(r.len, REPLY_MAX / 3 * 3);
	reply_write(&r, 0, 1);
	assert_int_equal(r.len, REPLY_MAX);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_table),
		cmocka_unit_test(test_reserved_bits),
		cmocka_unit_test(test_all_opcodes),
		cmocka_unit_test(test_parse),
		cmocka_unit_test(test_sense),
		cmocka_unit_test(test_reply_bounds),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

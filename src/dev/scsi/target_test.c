/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Commands and their answers, a row each, as a guest's driver sees them: what
 * SPC-4, SBC-3 and MMC-6 require and initiators' test suites check.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include "scsi_initiator.h"

#include <cmocka.h>

#define DISK "scsi,lun0=%d/disk,lun0.serial=S1"

/* The rest of a CDB with a big-endian LBA or length. */
#define B4(v) \
	((v) >> 24 & 0xff), ((v) >> 16 & 0xff), ((v) >> 8 & 0xff), ((v) & 0xff)
#define B8(v)   B4((uint64_t)(v) >> 32), B4((uint64_t)(v))
#define OVERRUN (0x1000000u | VIRTIO_SCSI_S_OVERRUN)

struct row {
	const char *name;
	uint8_t cdb[16];
	uint32_t in_len, out_len;
	const char *out; /* hexadecimal, then zeroes; "=x": all of it x */
	uint32_t code;   /* expected: 0 GOOD, sense, or a response */
	const char *in;  /* expected, hexadecimal; ?? is anything */
};

static int hex(char c)
{
	return c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10;
}

static size_t parse_hex(const char *text, uint8_t *buf, size_t max)
{
	size_t n = 0;

	for (; *text; text++) {
		if (*text == ' ')
			continue;
		assert_true(n < max);
		buf[n++] = (uint8_t)(hex(text[0]) << 4 | hex(text[1]));
		text++;
	}
	return n;
}

static void compare_in(const char *want, const struct sent *s)
{
	size_t at = 0;

	for (; *want; want++) {
		if (*want == ' ')
			continue;
		assert_true(at < s->in_len);
		if (*want != '?')
			assert_int_equal(s->in[at],
					 hex(want[0]) << 4 | hex(want[1]));
		at++;
		want++;
	}
}

static void check_row(const struct row *r, const uint8_t addr[8])
{
	static uint8_t out[256 << 10];
	struct cmd c = { .in_len = r->in_len, .out_len = r->out_len };
	struct sent s;

	print_message("%s\n", r->name);
	memset(out, 0, sizeof(out));
	if (r->out && r->out[0] == '=')
		memset(out, r->out[1], r->out_len);
	else if (r->out)
		parse_hex(r->out, out, sizeof(out));
	c.out = out;
	memcpy(c.cdb, r->cdb, 16);
	if (addr)
		memcpy(c.addr, addr, 8);
	s = ini_do(&c);
	if (r->code & 0x1000000) { /* SCSI-REQ-01 */
		assert_int_equal(s.response, r->code & 0xff);
		assert_int_equal(s.residual, r->in_len + r->out_len);
		return;
	}
	/* SCSI-REQ-02: the command completed, whatever its status. */
	assert_int_equal(s.response, VIRTIO_SCSI_S_OK);
	assert_int_equal(s.code, r->code);
	assert_int_equal(s.status, r->code ? STATUS_CHECK_CONDITION : 0);
	/* SCSI-REQ-11, SCSI-REQ-14 */
	assert_true(s.residual <= r->in_len + r->out_len);
	assert_int_equal(s.sense_len, r->code ? 18 : 0);
	if (r->in_len)
		assert_int_equal(s.used, 108 + r->in_len - s.residual);
	else
		assert_int_equal(s.used, 108);
	/* hostile K4: nothing is written beyond the transferred bytes. */
	for (uint32_t i = r->in_len - (r->in_len ? s.residual : 0);
	     i < r->in_len; i++)
		assert_int_equal(s.in[i], 0xdd);
	if (r->in)
		compare_in(r->in, &s);
}

static void ready(const char *options)
{
	struct cmd tur = { .cdb = { 0 } };

	ini_image("disk", IMAGE_BYTES);
	ini_image("cd", 2048 * 300);
	ini_start(options);
	assert_int_equal(ini_do_ready(&tur).status, 0);
}

static int teardown(void **state)
{
	ini_stop();
	return 0;
}

static void run(const char *options, const struct row *rows, size_t nr)
{
	ready(options);
	for (size_t i = 0; i < nr; i++)
		check_row(&rows[i], NULL);
}

/* clang-format off */
#define LAST (IMAGE_BLOCKS - 1)
#define IFLD SC_INVALID_CDB_FIELD

static void test_read_write(void **state)
{
	static const struct row rows[] = {
		{ "READ(6)", { 0x08, 0, 0, 1, 1 }, 512, 0, NULL, 0,
		  "62626262" },
		{ "READ(6), 0 means 256", { 0x08, 0, 0, 0, 0 }, 256 * 512 },
		{ "READ(6) beyond", { 0x08, 0, LAST >> 8, LAST & 0xff, 2 },
		  1024, 0, NULL, SC_LBA_RANGE },
		{ "READ(10)", { 0x28, 0, B4(2), 0, 0, 2 }, 1024, 0, NULL, 0,
		  "63636363" },
		{ "READ(10) last", { 0x28, 0, B4(LAST), 0, 0, 1 }, 512 },
		{ "READ(10) beyond", { 0x28, 0, B4(LAST), 0, 0, 2 }, 1024, 0,
		  NULL, SC_LBA_RANGE },
		{ "READ(10) of none", { 0x28, 0, B4(0), 0, 0, 0 }, 0 },
		{ "READ(10) of none at the end",
		  { 0x28, 0, B4(IMAGE_BLOCKS), 0, 0, 0 } },
		{ "READ(10) of none beyond",
		  { 0x28, 0, B4(IMAGE_BLOCKS + 1), 0, 0, 0 }, 0, 0, NULL,
		  SC_LBA_RANGE },
		{ "READ(10) RDPROTECT", { 0x28, 0x20, B4(0), 0, 0, 1 }, 512, 0,
		  NULL, IFLD },
		{ "READ(10) DPO, FUA", { 0x28, 0x18, B4(0), 0, 0, 1 }, 512 },
		{ "READ(10) NACA", { 0x28, 0, B4(0), 0, 0, 1, 4 }, 512, 0,
		  NULL, IFLD },
		{ "SCSI-REQ-03 too little room",
		  { 0x28, 0, B4(0), 0, 0, 2 }, 1023, 0, NULL, OVERRUN },
		{ "READ(10) more room", { 0x28, 0, B4(0), 0, 0, 2 }, 1500 },
		{ "hostile Q16 data out for a READ",
		  { 0x28, 0, B4(0), 0, 0, 1 }, 0, 512, NULL, OVERRUN },
		{ "READ(12)", { 0xa8, 0, B4(1), B4(1) }, 512, 0, NULL, 0,
		  "62" },
		{ "hostile S18c READ(12) of 2 TiB",
		  { 0xa8, 0, B4(0), B4(0xffffffff) }, 512, 0, NULL,
		  SC_LBA_RANGE },
		{ "READ(16)", { 0x88, 0, B8(3), B4(1) }, 512, 0, NULL, 0,
		  "64" },
		{ "READ(16) far away", { 0x88, 0, B8(-1), B4(1) }, 512, 0,
		  NULL, SC_LBA_RANGE },
		{ "READ(16) wraps", { 0x88, 0, B8(-8), B4(16) }, 512, 0, NULL,
		  SC_LBA_RANGE },
		{ "WRITE(6)", { 0x0a, 0, 0, 9, 1 }, 0, 512, "=1" },
		{ "WRITE(10)", { 0x2a, 0, B4(10), 0, 0, 2 }, 0, 1024, "=2" },
		{ "WRITE(10) FUA", { 0x2a, 0x08, B4(12), 0, 0, 1 }, 0, 512,
		  "=3" },
		{ "WRITE(10) of none", { 0x2a, 0, B4(0), 0, 0, 0 } },
		{ "WRITE(10) WRPROTECT", { 0x2a, 0x20, B4(0), 0, 0, 1 }, 0,
		  512, "=x", IFLD },
		{ "WRITE(10) beyond", { 0x2a, 0, B4(LAST), 0, 0, 2 }, 0, 1024,
		  "=x", SC_LBA_RANGE },
		{ "WRITE(10) too little data", { 0x2a, 0, B4(0), 0, 0, 2 }, 0,
		  512, "=x", OVERRUN },
		{ "WRITE(12)", { 0xaa, 0, B4(13), B4(1) }, 0, 512, "=4" },
		{ "WRITE(16)", { 0x8a, 0, B8(14), B4(1) }, 0, 512, "=5" },
		{ "read back 9", { 0x28, 0, B4(9), 0, 0, 1 }, 512, 0, NULL, 0,
		  "3131" },
		{ "read back 11", { 0x28, 0, B4(11), 0, 0, 1 }, 512, 0, NULL, 0,
		  "3232" },
		{ "read back 12", { 0x28, 0, B4(12), 0, 0, 1 }, 512, 0, NULL, 0,
		  "3333" },
		{ "read back 14", { 0x28, 0, B4(14), 0, 0, 1 }, 512, 0, NULL, 0,
		  "3535" },
		{ "read back 0", { 0x28, 0, B4(0), 0, 0, 1 }, 512, 0, NULL, 0,
		  "6161" },
		{ "SYNCHRONIZE CACHE(10)", { 0x35 } },
		{ "SYNCHRONIZE CACHE(10) IMMED", { 0x35, 2, B4(5), 0, 0, 3 } },
		{ "SYNCHRONIZE CACHE(16)", { 0x91 } },
		{ "SYNCHRONIZE CACHE(16) beyond",
		  { 0x91, 0, B8(IMAGE_BLOCKS), B4(1) }, 0, 0, NULL,
		  SC_LBA_RANGE },
		{ "PRE-FETCH(10)", { 0x34, 0, B4(0), 0, 0, 8 } },
		{ "PRE-FETCH(16) beyond", { 0x90, 0, B8(LAST), B4(2) }, 0, 0,
		  NULL, SC_LBA_RANGE },
		{ "SEEK(10)", { 0x2b, 0, B4(7) } },
		{ "TEST UNIT READY", { 0x00 } },
		{ "hostile K4 WRITE BUFFER", { 0x3b, 2, 0xff, 0xff, 0xff, 0xff,
					      0xff, 0xff, 0xff }, 0, 512, NULL,
		  SC_INVALID_OPCODE },
		{ "hostile K4 READ BUFFER", { 0x3c, 2, 0, 0xff, 0xff, 0xff, 0,
					     2, 0 }, 512, 0, NULL,
		  SC_INVALID_OPCODE },
		{ "vendor's", { 0xc0 }, 0, 0, NULL, SC_INVALID_OPCODE },
		{ "variable length", { 0x7f, 0, 0, 0, 0, 0, 0, 24 }, 0, 0,
		  NULL, SC_INVALID_OPCODE },
	};

	run(DISK, rows, ARRAY_LEN(rows));
}

static void test_verify(void **state)
{
	static const struct row rows[] = {
		{ "fill", { 0x41, 0, B4(0), 0, 1, 0 }, 0, 512, "=v" },
		{ "VERIFY(10)", { 0x2f, 0, B4(0), 0, 1, 0 } },
		{ "VERIFY(10) of none", { 0x2f, 2, B4(0), 0, 0, 0 } },
		{ "VERIFY(10) of none beyond",
		  { 0x2f, 2, B4(IMAGE_BLOCKS + 1), 0, 0, 0 }, 0, 0, NULL,
		  SC_LBA_RANGE },
		{ "VERIFY(10) all", { 0x2f, 0, B4(0), B4(IMAGE_BLOCKS << 8) } },
		{ "VERIFY(10) beyond", { 0x2f, 0, B4(LAST), 0, 0, 2 }, 0, 0,
		  NULL, SC_LBA_RANGE },
		{ "VERIFY(10) BYTCHK 1", { 0x2f, 2, B4(0), 0, 1, 0 }, 0,
		  256 * 512, "=v" },
		{ "VERIFY(10) BYTCHK 1, other", { 0x2f, 2, B4(0), 0, 1, 0 }, 0,
		  256 * 512, "=w", SC_MISCOMPARE },
		{ "VERIFY(10) BYTCHK 1, no data", { 0x2f, 2, B4(0), 0, 0, 1 },
		  0, 0, NULL, OVERRUN },
		{ "VERIFY(10) BYTCHK 2", { 0x2f, 4, B4(0), 0, 0, 1 }, 0, 512,
		  NULL, IFLD },
		{ "VERIFY(10) BYTCHK 3", { 0x2f, 6, B4(0), 0, 1, 0 }, 0, 512,
		  "=v" },
		{ "VERIFY(10) BYTCHK 3, other", { 0x2f, 6, B4(1), 0, 1, 0 }, 0,
		  512, "=v", SC_MISCOMPARE },
		{ "VERIFY(10) VRPROTECT", { 0x2f, 0x20, B4(0), 0, 0, 1 }, 0, 0,
		  NULL, IFLD },
		{ "VERIFY(12)", { 0xaf, 2, B4(0), B4(1) }, 0, 512, "=v" },
		{ "VERIFY(16)", { 0x8f, 2, B8(0), B4(1) }, 0, 512, "=v" },
		{ "VERIFY(16) DPO", { 0x8f, 0x10, B8(0), B4(1) } },
		{ "WRITE AND VERIFY(10)", { 0x2e, 0, B4(300), 0, 1, 0 }, 0,
		  256 * 512, "=x" },
		{ "WRITE AND VERIFY(12)", { 0xae, 2, B4(600), B4(1) }, 0, 512,
		  "=y" },
		{ "WRITE AND VERIFY(16)", { 0x8e, 2, B8(601), B4(1) }, 0, 512,
		  "=z" },
		{ "WRITE AND VERIFY(16) of none", { 0x8e, 0, B8(601), B4(0) } },
		{ "WRITE AND VERIFY(10) WRPROTECT",
		  { 0x2e, 0x20, B4(0), 0, 0, 1 }, 0, 512, "=x", IFLD },
		{ "written", { 0x2f, 2, B4(300), 0, 1, 0 }, 0, 256 * 512,
		  "=x" },
		{ "written", { 0x2f, 2, B4(600), 0, 0, 1 }, 0, 512, "=y" },
		{ "written", { 0x2f, 2, B4(601), 0, 0, 1 }, 0, 512, "=z" },
	};

	run(DISK, rows, ARRAY_LEN(rows));
}

static void test_compare_and_write(void **state)
{
	static uint8_t data[2 * 128 * 512];
	struct cmd c = { .cdb = { 0x89, 0, B8(5), 0, 0, 0, 128 },
			 .out_len = sizeof(data), .out = data };
	static const struct row rows[] = {
		{ "of none", { 0x89, 0, B8(0), 0, 0, 0, 0 } },
		{ "FUA", { 0x89, 0x18, B8(0), 0, 0, 0, 1 }, 0, 1024, "=a" },
		{ "half the data", { 0x89, 0, B8(0), 0, 0, 0, 1 }, 0, 512, "=a",
		  OVERRUN },
		{ "beyond", { 0x89, 0, B8(IMAGE_BLOCKS), 0, 0, 0, 1 }, 0, 1024,
		  "=a", SC_LBA_RANGE },
		{ "longer than VPD B0 says", { 0x89, 0, B8(0), 0, 0, 0, 129 },
		  0, 2 * 129 * 512, "=a", IFLD },
		{ "other", { 0x89, 0, B8(0), 0, 0, 0, 1 }, 0, 1024, "=b",
		  SC_MISCOMPARE },
		{ "protected", { 0x89, 0x20, B8(0), 0, 0, 0, 1 }, 0, 1024, "=a",
		  IFLD },
		{ "unchanged", { 0x2f, 2, B4(0), 0, 0, 1 }, 0, 512, "=a" },
	};
	struct sent s;

	run(DISK, rows, ARRAY_LEN(rows));
	for (unsigned i = 0; i < 128; i++)
		memset(data + i * 512, 'a' + (5 + i) % 26, 512);
	memset(data + 128 * 512, '!', 128 * 512);
	assert_int_equal(ini_do(&c).code, 0);
	check_row(&(struct row){ "all written", { 0x2f, 6, B4(5), 0, 0, 128 },
				 0, 512, "=!" }, NULL);
	/* The information field gives the first difference. */
	data[700]++;
	memset(data, '!', 700);
	s = ini_do(&c);
	assert_int_equal(s.code, SC_MISCOMPARE);
	assert_int_equal(s.sense[0], 0xf0);
	assert_int_equal(read_be32(s.sense + 3), 700);
}

static void test_write_same(void **state)
{
	static const struct row rows[] = {
		{ "WRITE SAME(10)", { 0x41, 0, B4(0), 0, 4, 0 }, 0, 512, "=s" },
		{ "done", { 0x2f, 6, B4(0), 0, 4, 0 }, 0, 512, "=s" },
		{ "and not more", { 0x2f, 6, B4(1024), 0, 0, 1 }, 0, 512, "=s",
		  SC_MISCOMPARE },
		{ "WRITE SAME(16) zeroes", { 0x93, 0, B8(8), B4(16) }, 0, 512 },
		{ "done", { 0x2f, 6, B4(8), 0, 0, 16 }, 0, 512 },
		{ "UNMAP", { 0x93, 8, B8(32), B4(16) }, 0, 512 },
		{ "done", { 0x2f, 6, B4(32), 0, 0, 16 }, 0, 512 },
		{ "UNMAP of data that is not zero", { 0x93, 8, B8(64), B4(2) },
		  0, 512, "=t" },
		{ "done", { 0x2f, 6, B4(64), 0, 0, 2 }, 0, 512, "=t" },
		{ "NDOB", { 0x93, 1, B8(96), B4(8) } },
		{ "done", { 0x2f, 6, B4(96), 0, 0, 8 }, 0, 512 },
		{ "NDOB, UNMAP", { 0x93, 9, B8(104), B4(8) } },
		{ "done", { 0x2f, 6, B4(104), 0, 0, 8 }, 0, 512 },
		{ "to the end", { 0x41, 0, B4(LAST - 2), 0, 0, 3 }, 0, 512,
		  "=e" },
		{ "done", { 0x2f, 6, B4(LAST - 2), 0, 0, 3 }, 0, 512, "=e" },
		{ "WSNZ", { 0x41, 0, B4(LAST - 2), 0, 0, 0 }, 0, 512, "=x",
		  IFLD },
		{ "WSNZ(16)", { 0x93, 8, B8(0), B4(0) }, 0, 512, NULL, IFLD },
		{ "not done", { 0x2f, 6, B4(LAST - 2), 0, 0, 3 }, 0, 512,
		  "=e" },
		{ "beyond", { 0x41, 0, B4(LAST), 0, 0, 2 }, 0, 512, "=x",
		  SC_LBA_RANGE },
		{ "ANCHOR", { 0x93, 0x18, B8(0), B4(1) }, 0, 512, NULL, IFLD },
		{ "ANCHOR without UNMAP", { 0x93, 0x10, B8(0), B4(1) }, 0, 512,
		  NULL, IFLD },
		{ "WRPROTECT", { 0x41, 0x20, B4(0), 0, 0, 1 }, 0, 512, NULL,
		  IFLD },
		{ "NDOB in WRITE SAME(10)", { 0x41, 1, B4(0), 0, 0, 1 }, 0,
		  512, NULL, IFLD },
		{ "half a block", { 0x41, 0, B4(0), 0, 0, 1 }, 0, 256, NULL,
		  OVERRUN },
		{ "FORMAT UNIT", { 0x04 } },
		{ "done", { 0x2f, 6, B4(LAST), 0, 0, 1 }, 0, 512 },
		{ "FORMAT UNIT, header", { 0x04, 0x10 }, 0, 4, "00 02 00 00" },
		{ "FORMAT UNIT, defects", { 0x04, 0x10 }, 0, 8, "00 02 00 04",
		  SC_INVALID_LIST_FIELD },
		{ "FORMAT UNIT, protection", { 0x04, 0x80 }, 0, 0, NULL, IFLD },
	};
	static const struct row thick[] = {
		{ "UNMAP of what does not", { 0x93, 8, B8(0), B4(1) }, 0, 512,
		  NULL, IFLD },
		{ "zeroes", { 0x93, 0, B8(0), B4(1) }, 0, 512 },
		{ "UNMAP", { 0x42 }, 0, 0, NULL, SC_INVALID_OPCODE },
		{ "VPD B2", { 0x12, 1, 0xb2, 0, 8 }, 8, 0, NULL, 0,
		  "00b20004 00000000" },
		{ "RSOC", { 0xa3, 0x0c, 1, 0x42, 0, 0, B4(64) }, 64, 0, NULL, 0,
		  "0001" },
	};

	run(DISK, rows, ARRAY_LEN(rows));
	ini_stop();
	run(DISK ",lun0.discard=off", thick, ARRAY_LEN(thick));
}

static void test_unmap(void **state)
{
	static const struct row rows[] = {
		{ "no list", { 0x42 } },
		{ "no descriptor", { 0x42, 0, 0, 0, 0, 0, 0, 0, 8 }, 0, 8,
		  "0006 0000" },
		{ "short list", { 0x42, 0, 0, 0, 0, 0, 0, 0, 7 }, 0, 7, NULL,
		  SC_LIST_LENGTH },
		{ "one", { 0x42, 0, 0, 0, 0, 0, 0, 0, 24 }, 0, 24,
		  "0016 0010 00000000 0000000000000008 00000008" },
		{ "done", { 0x2f, 6, B4(8), 0, 0, 8 }, 0, 512 },
		{ "not more", { 0x28, 0, B4(16), 0, 0, 1 }, 512, 0, NULL, 0,
		  "71" },
		{ "two, one empty", { 0x42, 0, 0, 0, 0, 0, 0, 0, 40 }, 0, 40,
		  "0026 0020 00000000 0000000000000020 00000001 00000000"
		  "0000000000001000 00000000 00000000" },
		{ "done", { 0x2f, 6, B4(32), 0, 0, 1 }, 0, 512 },
		{ "beyond", { 0x42, 0, 0, 0, 0, 0, 0, 0, 24 }, 0, 24,
		  "0016 0010 00000000 0000000000000fff 00000002",
		  SC_LBA_RANGE },
		{ "wraps", { 0x42, 0, 0, 0, 0, 0, 0, 0, 24 }, 0, 24,
		  "0016 0010 00000000 ffffffffffffffff 00000002",
		  SC_LBA_RANGE },
		{ "hostile Q16 list longer than its data",
		  { 0x42, 0, 0, 0, 0, 0, 0, 0, 24 }, 0, 24, "ffff fff0",
		  SC_LIST_LENGTH },
		{ "more than there is", { 0x42, 0, 0, 0, 0, 0, 0, 1, 0 }, 0, 24,
		  NULL, OVERRUN },
		{ "257 descriptors", { 0x42, 0, 0, 0, 0, 0, 0, 0x10, 0x18 }, 0,
		  0x1018, "1016 1010", SC_INVALID_LIST_FIELD },
		{ "256 descriptors", { 0x42, 0, 0, 0, 0, 0, 0, 0x10, 0x08 }, 0,
		  0x1008, "1006 1000" },
		{ "ANCHOR", { 0x42, 1 }, 0, 0, NULL, IFLD },
		{ "status, data", { 0x9e, 0x12, B8(16), B4(24) }, 24, 0, NULL,
		  0, "00000014 00000000 0000000000000010 ???????? 00" },
		{ "status beyond", { 0x9e, 0x12, B8(IMAGE_BLOCKS), B4(24) }, 24,
		  0, NULL, SC_LBA_RANGE },
		{ "unmap page 2", { 0x42, 0, 0, 0, 0, 0, 0, 0, 24 }, 0, 24,
		  "0016 0010 00000000 0000000000000100 00000040" },
		{ "status, deallocated", { 0x9e, 0x12, B8(0x100), B4(24) }, 24,
		  0, NULL, 0,
		  "00000014 00000000 0000000000000100 00000040 01" },
		{ "status, both", { 0x9e, 0x12, B8(0x13f), B4(40) }, 40, 0,
		  NULL, 0,
		  "00000024 00000000 000000000000013f 00000001 01000000"
		  "0000000000000140 00000ec0 00" },
	};

	run(DISK, rows, ARRAY_LEN(rows));
}

/* INQUIRY data of LUNs. */
static void test_inquiry(void **state)
{
	static const struct row rows[] = {
		{ "standard", { 0x12, 0, 0, 0, 96 }, 96, 0, NULL, 0,
		  "00 00 06 12 5b 00 00 02 56494f4445562020 6469736b20" },
		{ "cut to 36", { 0x12, 0, 0, 0, 36 }, 36, 0, NULL, 0,
		  "00 00 06 12 5b" },
		{ "cut to 5", { 0x12, 0, 0, 0, 5 }, 64, 0, NULL, 0,
		  "00 00 06 12 5b dd dd" },
		{ "16 bit length", { 0x12, 0, 0, 1, 0 }, 256 },
		{ "page without EVPD", { 0x12, 0, 0x80, 0, 96 }, 96, 0, NULL,
		  IFLD },
		{ "CMDDT", { 0x12, 2, 0, 0, 96 }, 96, 0, NULL, IFLD },
		{ "no such page", { 0x12, 1, 0xb7, 0, 96 }, 96, 0, NULL, IFLD },
		{ "pages", { 0x12, 1, 0, 0, 255 }, 255, 0, NULL, 0,
		  "00000007 00 80 83 86 b0 b1 b2 dd" },
		{ "serial", { 0x12, 1, 0x80, 0, 255 }, 255, 0, NULL, 0,
		  "00800002 5331 dd" },
		{ "identification", { 0x12, 1, 0x83, 0, 255 }, 255, 0, NULL, 0,
		  "00830032 0201001a 56494f4445562020"
		  "6469736b 20202020 20202020 20202020 5331"
		  "01030008 ??" },
		{ "extended", { 0x12, 1, 0x86, 0, 255 }, 255, 0, NULL, 0,
		  "0086003c 00 07 01" },
		{ "block limits", { 0x12, 1, 0xb0, 0, 255 }, 255, 0, NULL, 0,
		  "00b0003c 01 80 0008 00000000 00000000 00000000"
		  "ffffffff 00000100 00000008" },
		{ "characteristics", { 0x12, 1, 0xb1, 0, 255 }, 255, 0, NULL, 0,
		  "00b1003c 0001" },
		{ "provisioning", { 0x12, 1, 0xb2, 0, 255 }, 255, 0, NULL, 0,
		  "00b20004 00 e4 02 00 dd" },
		{ "READ CAPACITY(10)", { 0x25 }, 8, 0, NULL, 0,
		  "00000fff 00000200" },
		{ "READ CAPACITY(10) LBA without PMI", { 0x25, 0, B4(1) }, 8, 0,
		  NULL, IFLD },
		{ "READ CAPACITY(10) PMI", { 0x25, 0, B4(1), 0, 0, 1 }, 8 },
		{ "READ CAPACITY(10), no room", { 0x25 }, 4, 0, NULL, OVERRUN },
		{ "READ CAPACITY(16)", { 0x9e, 0x10, B8(0), B4(32) }, 32, 0,
		  NULL, 0, "0000000000000fff 00000200 00 00 c000 00000000" },
		{ "READ CAPACITY(16) of 12", { 0x9e, 0x10, B8(0), B4(12) },
		  12 },
		{ "service action", { 0x9e, 0x1f }, 32, 0, NULL, IFLD },
		{ "REQUEST SENSE", { 0x03, 0, 0, 0, 18 }, 18, 0, NULL, 0,
		  "70 00 00 00000000 0a 00000000 0000" },
		{ "REQUEST SENSE, descriptors", { 0x03, 1, 0, 0, 252 }, 252, 0,
		  NULL, 0, "72 00 00 00 00000000 dd" },
		{ "REPORT LUNS", { 0xa0, 0, 0, 0, 0, 0, B4(64) }, 64, 0, NULL,
		  0, "00000008 00000000 0000000000000000 dd" },
		{ "REPORT LUNS, well-known", { 0xa0, 0, 1, 0, 0, 0, B4(16) },
		  16, 0, NULL, 0, "00000000 00000000 dd" },
		{ "REPORT LUNS, what?", { 0xa0, 0, 3, 0, 0, 0, B4(16) }, 16, 0,
		  NULL, IFLD },
		{ "REPORT LUNS of 4 GiB",
		  { 0xa0, 0, 0, 0, 0, 0, B4(0xffffffff) }, 64, 0, NULL,
		  OVERRUN },
		{ "supported TMFs", { 0xa3, 0x0d, 0, 0, 0, 0, B4(16) }, 16, 0,
		  NULL, 0, "d9 05 00 00 dd" },
		{ "START STOP UNIT, stop", { 0x1b, 0, 0, 0, 0 } },
		{ "stopped", { 0x00 }, 0, 0, NULL, SC_STOPPED },
		{ "stopped", { 0x28, 0, B4(0), 0, 0, 1 }, 512, 0, NULL,
		  SC_STOPPED },
		{ "stopped: it may say so", { 0x03, 0, 0, 0, 18 }, 18, 0, NULL,
		  0, "70 00 02 00000000 0a 00000000 0402" },
		{ "start", { 0x1b, 0, 0, 0, 1 } },
		{ "started", { 0x00 } },
		{ "eject a disk", { 0x1b, 0, 0, 0, 2 }, 0, 0, NULL, IFLD },
		{ "standby", { 0x1b, 0, 0, 0, 0x30 } },
		{ "no such power condition", { 0x1b, 0, 0, 0, 0xf0 }, 0, 0,
		  NULL, IFLD },
	};

	run(DISK, rows, ARRAY_LEN(rows));
}

static void test_mode(void **state)
{
#define PAGE_08 "8812 04 0000000000 000000000000 00000000 00"
	static const struct row rows[] = {
		{ "MODE SENSE(6) caching", { 0x1a, 8, 8, 0, 255 }, 255, 0, NULL,
		  0, "17 00 10 00 0812 04" },
		{ "with block descriptor", { 0x1a, 0, 8, 0, 255 }, 255, 0, NULL,
		  0, "1f 00 10 08 00001000 00000200 0812" },
		{ "MODE SENSE(10) caching", { 0x5a, 8, 8, 0, 0, 0, 0, 1, 0 },
		  256, 0, NULL, 0, "001a 00 10 00 00 0000 0812 04" },
		{ "changeable caching", { 0x1a, 8, 0x48, 0, 255 }, 255, 0, NULL,
		  0, "17 00 10 00 0812 04 00" },
		{ "control", { 0x1a, 8, 0x0a, 0, 255 }, 255, 0, NULL, 0,
		  "0f 00 10 00 0a0a 02 10 00 00 0000 ffff 0000 dd" },
		{ "changeable control", { 0x1a, 8, 0x4a, 0, 255 }, 255, 0, NULL,
		  0, "0f 00 10 00 0a0a 04 00 08 00 0000 0000 0000" },
		{ "control extension", { 0x1a, 8, 0x0a, 1, 255 }, 255, 0, NULL,
		  0, "23 00 10 00 4a01001c" },
		{ "exceptions", { 0x1a, 8, 0x1c, 0, 255 }, 255, 0, NULL, 0,
		  "0f 00 10 00 1c0a 08" },
		{ "all", { 0x1a, 8, 0x3f, 0, 255 }, 255, 0, NULL, 0,
		  "3b 00 10 00 010a" },
		{ "all with subpages", { 0x1a, 8, 0x3f, 0xff, 255 }, 255, 0,
		  NULL, 0, "5b 00 10 00 010a" },
		{ "cut to 4", { 0x1a, 8, 0x3f, 0, 4 }, 4, 0, NULL, 0, "3b" },
		{ "no such page", { 0x1a, 8, 0x19, 0, 255 }, 255, 0, NULL,
		  IFLD },
		{ "no such subpage", { 0x1a, 8, 0x0a, 9, 255 }, 255, 0, NULL,
		  IFLD },
		{ "saved", { 0x1a, 8, 0xc8, 0, 255 }, 255, 0, NULL,
		  SC_SAVING_PARAMETERS },

		{ "MODE SELECT(6) of nothing", { 0x15, 0x10 } },
		{ "without PF", { 0x15, 0, 0, 0, 4 }, 0, 4, NULL, IFLD },
		{ "SP", { 0x15, 0x11, 0, 0, 4 }, 0, 4, NULL, IFLD },
		{ "short", { 0x15, 0x10, 0, 0, 3 }, 0, 3, NULL,
		  SC_LIST_LENGTH },
		{ "write cache off", { 0x15, 0x10, 0, 0, 24 }, 0, 24,
		  "00000000 0812 00" },
		{ "is off", { 0x1a, 8, 8, 0, 255 }, 255, 0, NULL, 0,
		  "17 00 10 00 0812 00" },
		{ "default is on", { 0x1a, 8, 0x88, 0, 255 }, 255, 0, NULL, 0,
		  "17 00 10 00 0812 04" },
		{ "and on", { 0x55, 0x10, 0, 0, 0, 0, 0, 0, 28 }, 0, 28,
		  "0000000000000000 0812 04" },
		{ "read-ahead cannot change", { 0x15, 0x10, 0, 0, 24 }, 0, 24,
		  "00000000 0812 05", SC_INVALID_LIST_FIELD },
		{ "page length", { 0x15, 0x10, 0, 0, 24 }, 0, 24,
		  "00000000 0811 04", SC_INVALID_LIST_FIELD },
		{ "cut page", { 0x15, 0x10, 0, 0, 20 }, 0, 20,
		  "00000000 0812 04", SC_LIST_LENGTH },
		{ "block descriptor as it is", { 0x15, 0x10, 0, 0, 12 }, 0, 12,
		  "00000008 00001000 00000200" },
		{ "hostile Q22 other block size", { 0x15, 0x10, 0, 0, 12 }, 0,
		  12, "00000008 00000000 00001000", SC_INVALID_LIST_FIELD },
		{ "block descriptor cut", { 0x15, 0x10, 0, 0, 8 }, 0, 8,
		  "00000008", SC_LIST_LENGTH },
		{ "length beyond the list", { 0x55, 0x10, 0, 0, 0, 0, 0, 0, 8 },
		  0, 8, "000000000000ffff", SC_INVALID_LIST_FIELD },
		{ "unknown page", { 0x15, 0x10, 0, 0, 8 }, 0, 8,
		  "00000000 1902", SC_INVALID_LIST_FIELD },
		{ "less data than length", { 0x15, 0x10, 0, 0, 24 }, 0, 12,
		  NULL, OVERRUN },
		{ "first page good, second not", { 0x15, 0x10, 0, 0, 36 }, 0,
		  36, "00000000 0a0a 06 10 00 00 0000 ffff 0000 0812 05",
		  SC_INVALID_LIST_FIELD },
		{ "neither is taken", { 0x1a, 8, 0x0a, 0, 255 }, 255, 0, NULL,
		  0, "0f 00 10 00 0a0a 02" },

		{ "SWP", { 0x15, 0x10, 0, 0, 16 }, 0, 16,
		  "00000000 0a0a 02 10 08 00 0000 ffff 0000" },
		{ "WRITE", { 0x2a, 0, B4(0), 0, 0, 1 }, 0, 512, "=x",
		  SC_SOFT_PROTECTED },
		{ "WP", { 0x1a, 8, 0x3f, 0, 4 }, 4, 0, NULL, 0, "3b0090" },
		{ "READ", { 0x28, 0, B4(0), 0, 0, 1 }, 512, 0, NULL, 0, "61" },
		{ "SWP off", { 0x15, 0x10, 0, 0, 16 }, 0, 16,
		  "00000000 0a0a 02 10 00 00 0000 ffff 0000" },
		{ "WRITE", { 0x2a, 0, B4(0), 0, 0, 1 }, 0, 512, "=x" },
	};
	struct cmd d_sense = { .cdb = { 0x15, 0x10, 0, 0, 16 }, .out_len = 16 };
	struct cmd bad = { .cdb = { 0x28, 0, B4(-1), 0, 0, 1 }, .in_len = 512 };
	uint8_t list[16] = { 0, 0, 0, 0, 0x0a, 0x0a, 0x06, 0x10,
			     0, 0, 0, 0, 0xff, 0xff };
	struct sent s;

	run(DISK, rows, ARRAY_LEN(rows));
	/* D_SENSE: descriptor-format sense; the information is in one. */
	d_sense.out = list;
	assert_int_equal(ini_do(&d_sense).code, 0);
	s = ini_do(&bad);
	assert_int_equal(s.code, SC_LBA_RANGE);
	assert_int_equal(s.sense[0], 0x72);
	assert_int_equal(s.sense_len, 8 + 12);
	assert_int_equal(s.sense[8], 0);
	assert_int_equal(read_be64(s.sense + 12), 0xffffffff);
}

static void test_read_only(void **state)
{
	static const struct row rows[] = {
		{ "READ", { 0x28, 0, B4(0), 0, 0, 1 }, 512 },
		{ "WRITE", { 0x2a, 0, B4(0), 0, 0, 1 }, 0, 512, "=x",
		  SC_WRITE_PROTECTED },
		{ "WRITE SAME", { 0x41, 0, B4(0), 0, 0, 1 }, 0, 512, "=x",
		  SC_WRITE_PROTECTED },
		{ "COMPARE AND WRITE", { 0x89, 0, B8(0), 0, 0, 0, 1 }, 0, 1024,
		  "=a", SC_WRITE_PROTECTED },
		{ "FORMAT UNIT", { 0x04 }, 0, 0, NULL, SC_WRITE_PROTECTED },
		{ "SYNCHRONIZE CACHE", { 0x35 } },
		{ "WP", { 0x1a, 8, 0x3f, 0, 4 }, 4, 0, NULL, 0, "3b0090" },
	};

	run(DISK ",lun0.ro=on", rows, ARRAY_LEN(rows));
}

/* hostile K3: every opcode with every service action is answered sanely. */
static void test_report_opcodes(void **state)
{
	static const struct row rows[] = {
		{ "all", { 0xa3, 0x0c, 0, 0, 0, 0, B4(4) }, 4, 0, NULL, 0,
		  "0000????" },
		{ "all, timeouts", { 0xa3, 0x0c, 0x80, 0, 0, 0, B4(24) }, 24, 0,
		  NULL, 0, "0000???? 28 00 0000 00 02 000a 000a" },
		{ "READ(10)", { 0xa3, 0x0c, 1, 0x28, 0, 0, B4(64) }, 64, 0,
		  NULL, 0, "0003000a 2818ffffffff1fffff00 dd" },
		{ "READ(10), timeouts", { 0xa3, 0x0c, 0x81, 0x28, 0, 0,
		  B4(64) }, 64, 0, NULL, 0,
		  "0083000a 2818ffffffff1fffff00 000a0000 00000000 00000000" },
		{ "by opcode, has actions", { 0xa3, 0x0c, 1, 0x9e, 0, 0,
		  B4(64) }, 64, 0, NULL, IFLD },
		{ "by action, has none", { 0xa3, 0x0c, 2, 0x28, 0, 0,
		  B4(64) }, 64, 0, NULL, IFLD },
		{ "by action", { 0xa3, 0x0c, 2, 0x9e, 0, 0x10, B4(64) }, 64, 0,
		  NULL, 0, "00030010 9e10" },
		{ "no such action", { 0xa3, 0x0c, 2, 0x9e, 0xff, 0x10, B4(64) },
		  64, 0, NULL, 0, "00010000 dd" },
		{ "either, action", { 0xa3, 0x0c, 3, 0x9e, 0, 0x12, B4(64) },
		  64, 0, NULL, 0, "00030010" },
		{ "either, opcode", { 0xa3, 0x0c, 3, 0x28, 0, 0, B4(64) }, 64,
		  0, NULL, 0, "0003000a" },
		{ "unknown", { 0xa3, 0x0c, 1, 0xff, 0, 0, B4(64) }, 64, 0, NULL,
		  0, "00010000 dd" },
		{ "what?", { 0xa3, 0x0c, 4 }, 0, 0, NULL, IFLD },
	};
	static const uint16_t actions[] = { 0, 1, 6, 0x10, 0x1f, 0x20, 0x110,
					    0x7fff, 0xffff };
	uint64_t mark;

	run(DISK, rows, ARRAY_LEN(rows));
	mark = ini.d.next_free;
	for (unsigned i = 0; i < 256 * 3 * ARRAY_LEN(actions); i++) {
		uint16_t sa = actions[i / 768];
		struct cmd c = { .cdb = { 0xa3, 0x0c, 1 + i / 256 % 3, i & 255,
					  sa >> 8, sa & 255, B4(64) },
				 .in_len = 64 };
		struct sent s = ini_do(&c);

		assert_int_equal(s.response, 0);
		assert_true(s.code == 0 || s.code == IFLD);
		ini.d.next_free = mark;
	}
}

static void test_cdrom(void **state)
{
	static const struct row rows[] = {
		{ "INQUIRY", { 0x12, 0, 0, 0, 36 }, 36, 0, NULL, 0,
		  "05 80 06 12" },
		{ "READ CAPACITY", { 0x25 }, 8, 0, NULL, 0,
		  "0000012b 00000800" },
		{ "READ(10)", { 0x28, 0, B4(1), 0, 0, 1 }, 2048, 0, NULL, 0,
		  "65" },
		{ "READ(12)", { 0xa8, 0, B4(299), B4(1) }, 2048 },
		{ "READ(12) beyond", { 0xa8, 0, B4(299), B4(2) }, 4096, 0, NULL,
		  SC_LBA_RANGE },
		{ "WRITE(10)", { 0x2a, 0, B4(1), 0, 0, 1 }, 0, 2048, NULL,
		  SC_INVALID_OPCODE },
		{ "READ TOC", { 0x43, 0, 0, 0, 0, 0, 0, 0, 32 }, 32, 0, NULL, 0,
		  "0012 0101 00140100 00000000 0014aa00 0000012c dd" },
		{ "READ TOC MSF", { 0x43, 2, 0, 0, 0, 0, 0, 0, 32 }, 32, 0,
		  NULL, 0, "0012 0101 00140100 00000200 0014aa00 00000600" },
		{ "READ TOC lead-out", { 0x43, 0, 0, 0, 0, 0, 0xaa, 0, 32 }, 32,
		  0, NULL, 0, "000a 0101 0014aa00" },
		{ "READ TOC sessions", { 0x43, 0, 1, 0, 0, 0, 0, 0, 32 }, 32, 0,
		  NULL, 0, "000a 0101 00140100 00000000 dd" },
		{ "READ TOC sessions, old",
		  { 0x43, 0, 0, 0, 0, 0, 0, 0, 12, 0x40 }, 12, 0, NULL, 0,
		  "000a 0101 00140100" },
		{ "READ TOC raw", { 0x43, 0, 2, 0, 0, 0, 0, 0, 64 }, 64, 0,
		  NULL, 0, "002e 0101 01 14 00 a0" },
		{ "READ TOC track 7", { 0x43, 0, 0, 0, 0, 0, 7, 0, 32 }, 32, 0,
		  NULL, IFLD },
		{ "READ TOC ATIP", { 0x43, 0, 4, 0, 0, 0, 0, 0, 32 }, 32, 0,
		  NULL, IFLD },
		{ "GET CONFIGURATION", { 0x46, 0, 0, 0, 0, 0, 0, 0, 64 }, 64, 0,
		  NULL, 0, "00000030 0000 0008 0000 03 08 00100000 00080100" },
		{ "GET CONFIGURATION of one",
		  { 0x46, 2, 0, 3, 0, 0, 0, 0, 64 }, 64, 0, NULL, 0,
		  "0000000c 0000 0008 0003 03 04 29000000 dd" },
		{ "GET EVENT STATUS", { 0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8 }, 8, 0,
		  NULL, 0, "0006 04 10 00 02 0000" },
		{ "GET EVENT STATUS, asynchronous",
		  { 0x4a, 0, 0, 0, 0x10, 0, 0, 0, 8 }, 8, 0, NULL, IFLD },
		{ "MECHANISM STATUS", { 0xbd, 0, 0, 0, 0, 0, 0, 0, 0, 8 }, 8 },
		{ "READ DISC INFORMATION", { 0x51, 0, 0, 0, 0, 0, 0, 0, 34 },
		  34, 0, NULL, 0, "0020 0e 01 01 01" },
		{ "READ CD", { 0xbe, 0, B4(1), 0, 0, 1, 0x10 }, 2048, 0, NULL,
		  0, "65" },
		{ "READ CD, mode 1", { 0xbe, 8, B4(298), 0, 0, 2, 0x10 },
		  4096 },
		{ "READ CD beyond", { 0xbe, 0, B4(299), 0, 0, 2, 0x10 }, 4096,
		  0, NULL, SC_LBA_RANGE },
		{ "READ CD, too little room",
		  { 0xbe, 0, B4(1), 0, 0, 2, 0x10 }, 2048, 0, NULL, OVERRUN },
		{ "READ CD, nothing", { 0xbe, 0, B4(1), 0, 0, 1, 0 } },
		{ "READ CD, audio", { 0xbe, 4, B4(1), 0, 0, 1, 0x10 }, 2352, 0,
		  NULL, SC_ILLEGAL_MODE },
		{ "READ CD, all of a sector",
		  { 0xbe, 0, B4(1), 0, 0, 1, 0xf8 }, 2352, 0, NULL, IFLD },
		{ "READ CD, sub-channel",
		  { 0xbe, 0, B4(1), 0, 0, 1, 0x10, 1 }, 2448, 0, NULL, IFLD },
		{ "READ DISC STRUCTURE of a CD",
		  { 0xad, 0, 0, 0, 0, 0, 0, 0, 8, 4 }, 2052, 0, NULL,
		  SC_INCOMPATIBLE_MEDIUM },
		{ "its formats", { 0xad, 0, 0, 0, 0, 0, 0, 0xff, 0, 64 }, 64,
		  0, NULL, 0,
		  "0012 0000 00400804 01400008 04400804 ff400000 dd" },
		{ "capabilities", { 0x5a, 8, 0x2a, 0, 0, 0, 0, 0, 64 }, 64, 0,
		  NULL, 0, "001c 00 00 00 00 0000 2a14" },
		{ "no caching is changeable", { 0x1a, 8, 0x48, 0, 64 }, 64, 0,
		  NULL, 0, "17 00 00 00 0812 00" },
		{ "lock", { 0x1e, 0, 0, 0, 1 } },
		{ "eject", { 0x1b, 0, 0, 0, 2 }, 0, 0, NULL,
		  SC_REMOVAL_PREVENTED },
		{ "unlock", { 0x1e, 0, 0, 0, 0 } },
		{ "eject", { 0x1b, 0, 0, 0, 2 } },
		{ "gone", { 0x00 }, 0, 0, NULL, SC_TRAY_OPEN },
		{ "gone", { 0x28, 0, B4(1), 0, 0, 1 }, 2048, 0, NULL,
		  SC_TRAY_OPEN },
		{ "no profile", { 0x46, 0, 0, 0, 0, 0, 0, 0, 8 }, 8, 0, NULL, 0,
		  "00000030 0000 0000" },
		{ "load", { 0x1b, 0, 0, 0, 3 } },
		{ "it may be another", { 0x00 }, 0, 0, NULL, SC_UA_MEDIUM },
		{ "ready", { 0x00 } },
	};

	run("scsi,lun0=%d/cd,lun0.type=cdrom", rows, ARRAY_LEN(rows));
}

static void test_dvd(void **state)
{
	static const struct row rows[] = {
		{ "physical", { 0xad, 0, 0, 0, 0, 0, 0, 0, 8, 4 }, 2052, 0,
		  NULL, 0,
		  "0802 0000 01 0f 01 00 00030000 000a8bff 00000000 00" },
		{ "copyright", { 0xad, 0, 0, 0, 0, 0, 0, 1, 0, 64 }, 64, 0,
		  NULL, 0, "0006 0000 00000000 dd" },
		{ "manufacturing", { 0xad, 0, 0, 0, 0, 0, 0, 4, 0, 64 }, 64, 0,
		  NULL, 0, "0802 0000 0000" },
		{ "disc key", { 0xad, 0, 0, 0, 0, 0, 0, 2, 8, 4 }, 2052, 0,
		  NULL, IFLD },
		{ "Blu-ray", { 0xad, 1, 0, 0, 0, 0, 0, 0, 8, 4 }, 2052, 0, NULL,
		  IFLD },
		{ "profile", { 0x46, 0, 0, 0, 0, 0, 0, 0, 8 }, 8, 0, NULL, 0,
		  "00000030 0000 0010" },
	};

	char path[128];

	ini_image("dvd", 512);
	ini_text("%d/dvd", path, sizeof(path));
	assert_int_equal(truncate(path, 0x078c00ll * 2048), 0);
	run("scsi,lun0=%d/dvd,lun0.type=cdrom", rows, ARRAY_LEN(rows));
}

static void test_names(void **state)
{
	static const struct row rows[] = {
		{ "INQUIRY", { 0x12, 0, 0, 0, 36 }, 36, 0, NULL, 0,
		  "00 00 06 12 5b 00 00 02 4143 4d45 2020 2020 "
		  "4265 7374 2064 6973 6b20 2020 2020 2020" },
		{ "identification", { 0x12, 1, 0x83, 0, 255 }, 255, 0, NULL, 0,
		  "0083 ???? 02 01 00 1a 4143 4d45 2020 2020 "
		  "4265 7374 2064 6973 6b20 2020 2020 2020 5331 "
		  "01 03 00 08 5000c500a0b1c2d3" },
	};

	run(DISK ",lun0.vendor=ACME,lun0.product=Best disk,"
		 "lun0.wwn=0x5000c500a0b1c2d3",
	    rows, ARRAY_LEN(rows));
}

/* The last 100 bytes of a CD, and of a disk with large blocks. */
static void test_odd_sizes(void **state)
{
	static const struct row cd[] = {
		{ "READ CAPACITY", { 0x25 }, 8, 0, NULL, 0,
		  "00000003 00000800" },
		{ "READ(10)", { 0x28, 0, B4(3), 0, 0, 1 }, 2048, 0, NULL, 0,
		  "6d6d" },
	};
	static const struct row disk[] = {
		{ "READ CAPACITY", { 0x25 }, 8, 0, NULL, 0,
		  "00000001 00001000" },
		{ "READ(10)", { 0x28, 0, B4(1), 0, 0, 1 }, 4096, 0, NULL, 0,
		  "6969" },
		{ "WRITE(10)", { 0x2a, 0, B4(1), 0, 0, 1 }, 0, 4096, "=w" },
		{ "VERIFY(10)", { 0x2f, 2, B4(1), 0, 0, 1 }, 0, 4096, "=w" },
	};
	struct cmd read = { .cdb = { 0x28, 0, 0, 0, 0, 3, 0, 0, 1 },
			    .in_len = 2048 };
	struct sent s;

	ini_image("odd", 3 * 2048 + 100);
	run("scsi,lun0=%d/odd,lun0.type=cdrom", cd, ARRAY_LEN(cd));
	s = ini_do(&read);
	assert_int_equal(s.in[99], 'm');
	for (unsigned i = 100; i < 2048; i++)
		assert_int_equal(s.in[i], 0);
	ini_close();
	run("scsi,lun0=%d/odd,lun0.block-size=4096", disk, ARRAY_LEN(disk));
}

/* 4096 byte blocks, a cache that writes through, O_DIRECT-aligned work. */
static void test_big_blocks(void **state)
{
	static const struct row rows[] = {
		{ "READ CAPACITY", { 0x25 }, 8, 0, NULL, 0,
		  "000001ff 00001000" },
		{ "READ(10)", { 0x28, 0, B4(1), 0, 0, 1 }, 4096, 0, NULL, 0,
		  "69" },
		{ "WRITE SAME", { 0x41, 0, B4(0), 0, 0, 40 }, 0, 4096, "=s" },
		{ "done", { 0x2f, 6, B4(0), 0, 0, 40 }, 0, 4096, "=s" },
		{ "half a block", { 0x41, 0, B4(0), 0, 0, 1 }, 0, 512, "=s",
		  OVERRUN },
		{ "COMPARE AND WRITE", { 0x89, 0, B8(0), 0, 0, 0, 16 }, 0,
		  2 * 16 * 4096, "=s" },
		{ "COMPARE AND WRITE, too long", { 0x89, 0, B8(0), 0, 0, 0,
		  17 }, 0, 2 * 17 * 4096, "=s", IFLD },
		{ "limits", { 0x12, 1, 0xb0, 0, 64 }, 64, 0, NULL, 0,
		  "00b0003c 01 10 0001" },
		{ "no write cache to switch on", { 0x1a, 8, 0x48, 0, 255 }, 255,
		  0, NULL, 0, "17 00 10 00 0812 00" },
		{ "nor is it on", { 0x1a, 8, 8, 0, 255 }, 255, 0, NULL, 0,
		  "17 00 10 00 0812 00" },
	};

	run(DISK ",lun0.block-size=4096,lun0.cache=writethrough", rows,
	    ARRAY_LEN(rows));
}

/* clang-format on */

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(test_read_write, teardown),
		cmocka_unit_test_teardown(test_verify, teardown),
		cmocka_unit_test_teardown(test_compare_and_write, teardown),
		cmocka_unit_test_teardown(test_write_same, teardown),
		cmocka_unit_test_teardown(test_unmap, teardown),
		cmocka_unit_test_teardown(test_inquiry, teardown),
		cmocka_unit_test_teardown(test_mode, teardown),
		cmocka_unit_test_teardown(test_read_only, teardown),
		cmocka_unit_test_teardown(test_report_opcodes, teardown),
		cmocka_unit_test_teardown(test_cdrom, teardown),
		cmocka_unit_test_teardown(test_big_blocks, teardown),
		cmocka_unit_test_teardown(test_odd_sizes, teardown),
		cmocka_unit_test_teardown(test_dvd, teardown),
		cmocka_unit_test_teardown(test_names, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

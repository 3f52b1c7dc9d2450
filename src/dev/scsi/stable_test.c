/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Data that a SCSI disk reports as stable is on the medium: each command that
 * promises so waits for a sync, and fails with it. With each engine.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "disk_fault.h"
#include "scsi_initiator.h"

#include <cmocka.h>

#define DISK "scsi,lun0=%d/disk,queue-size=64"

#define WCE_OFF { 0, 0, 0, 0, 0x08, 18 }
#define WCE_ON  { 0, 0, 0, 0, 0x08, 18, 0x04 }

static const uint8_t wce_off[24] = WCE_OFF, wce_on[24] = WCE_ON;
static const uint8_t block[512] = { 1 }, zeroes[8192];

/* One descriptor: 8 blocks from LBA 8 on. */
static const uint8_t unmap_8[24] = {
	0, 22, 0, 16, [15] = 8, [19] = 8,
};

static const struct cmd cache_off = {
	.cdb = { 0x15, 0x10, 0, 0, 24 },
	.out_len = 24,
	.out = wce_off,
};

static const struct row {
	const char *name;
	bool cached; /* WCE is on when it arrives */
	bool stable; /* when it has ended */
	struct cmd cmd;
} rows[] = {
	{ "WRITE(10)",
	  true,
	  false,
	  { .cdb = { 0x2a, [8] = 1 }, .out_len = 512 } },
	{ "WRITE(10), FUA",
	  true,
	  true,
	  { .cdb = { 0x2a, 8, [8] = 1 }, .out_len = 512 } },
	{ "WRITE(12), FUA",
	  true,
	  true,
	  { .cdb = { 0xaa, 8, [9] = 1 }, .out_len = 512 } },
	{ "WRITE(16), FUA",
	  true,
	  true,
	  { .cdb = { 0x8a, 8, [13] = 1 }, .out_len = 512 } },
	{ "WRITE(6), no cache",
	  false,
	  true,
	  { .cdb = { 0x0a, [4] = 1 }, .out_len = 512 } },
	{ "WRITE(10), no cache",
	  false,
	  true,
	  { .cdb = { 0x2a, [8] = 1 }, .out_len = 512 } },
	{ "WRITE AND VERIFY",
	  true,
	  true,
	  { .cdb = { 0x2e, [8] = 1 }, .out_len = 512 } },
	{ "COMPARE AND WRITE, FUA",
	  true,
	  true,
	  { .cdb = { 0x89, 8, [9] = 8, [13] = 8 },
	    .out_len = 8192,
	    .out = zeroes } },
	{ "COMPARE AND WRITE, no cache",
	  false,
	  true,
	  { .cdb = { 0x89, 0, [9] = 8, [13] = 8 },
	    .out_len = 8192,
	    .out = zeroes } },
	{ "WRITE SAME(10), no cache",
	  false,
	  true,
	  { .cdb = { 0x41, [8] = 4 }, .out_len = 512, .out = block } },
	{ "WRITE SAME(16) of zeroes, no cache",
	  false,
	  true,
	  { .cdb = { 0x93, [13] = 4 }, .out_len = 512, .out = zeroes } },
	{ "UNMAP, no cache",
	  false,
	  true,
	  { .cdb = { 0x42, [8] = 24 }, .out_len = 24, .out = unmap_8 } },
	{ "FORMAT UNIT", true, false, { .cdb = { 0x04 } } },
	{ "FORMAT UNIT, no cache", false, true, { .cdb = { 0x04 } } },
	{ "SYNCHRONIZE CACHE(10)", true, true, { .cdb = { 0x35 } } },
	{ "SYNCHRONIZE CACHE(16)", true, true, { .cdb = { 0x91 } } },
	{ "MODE SELECT(6) clears WCE",
	  true,
	  true,
	  { .cdb = { 0x15, 0x10, 0, 0, 24 }, .out_len = 24, .out = wce_off } },
	{ "MODE SELECT(6) sets WCE",
	  false,
	  false,
	  { .cdb = { 0x15, 0x10, 0, 0, 24 }, .out_len = 24, .out = wce_on } },
	{ "MODE SELECT(6) leaves WCE",
	  true,
	  false,
	  { .cdb = { 0x15, 0x10, 0, 0, 24 }, .out_len = 24, .out = wce_on } },
	{ "START STOP UNIT, stop", true, true, { .cdb = { 0x1b } } },
	{ "START STOP UNIT, stop, NO_FLUSH",
	  true,
	  false,
	  { .cdb = { 0x1b, [4] = 4 } } },
	{ "START STOP UNIT, start", true, false, { .cdb = { 0x1b, [4] = 1 } } },
	{ "START STOP UNIT, standby",
	  true,
	  true,
	  { .cdb = { 0x1b, [4] = 0x30 } } },
	{ "START STOP UNIT, force standby",
	  true,
	  true,
	  { .cdb = { 0x1b, [4] = 0xb0 } } },
	{ "START STOP UNIT, idle",
	  true,
	  false,
	  { .cdb = { 0x1b, [4] = 0x20 } } },
};

static int teardown(void **state)
{
	ini_stop();
	memset(&disk_fault, 0, sizeof(disk_fault));
	return 0;
}

static void ready(const struct row *row)
{
	static const struct cmd tur = { .cdb = { 0 } };
	/* Rows that compare find zeroes. */
	struct cmd clear = { .cdb = { 0x2a, [5] = 8, [8] = 8 },
			     .out_len = 4096 };

	memset(&disk_fault, 0, sizeof(disk_fault));
	ini_image("disk", IMAGE_BYTES);
	ini_start(DISK);
	assert_int_equal(ini_do_ready(&tur).status, 0);
	assert_int_equal(ini_do(&clear).status, 0);
	if (!row->cached)
		assert_int_equal(ini_do(&cache_off).status, 0);
}

/* An extra sync would be harmless, a missing one would not. */
static void test_synced(void **state)
{
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		unsigned before;

		print_message("%s\n", rows[i].name);
		ready(&rows[i]);
		before = FAULT_GET(nr_sync);
		assert_int_equal(ini_do(&rows[i].cmd).status, 0);
		if (rows[i].stable)
			assert_true(FAULT_GET(nr_sync) > before);
		else
			assert_int_equal(FAULT_GET(nr_sync), before);
		ini_close();
	}
}

/* Data that is not stable is not reported as stable. */
static void test_sync_fails(void **state)
{
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		print_message("%s\n", rows[i].name);
		ready(&rows[i]);
		FAULT_SET(sync_errno, EIO);
		if (rows[i].stable)
			assert_int_not_equal(ini_do(&rows[i].cmd).code, 0);
		else
			assert_int_equal(ini_do(&rows[i].cmd).status, 0);
		ini_close();
	}
}

/* The cache stays on when it cannot be written. */
static void test_cache_stays_on(void **state)
{
	struct cmd sense = { .cdb = { 0x1a, 8, 8, 0, 24 }, .in_len = 24 };

	ready(&rows[0]);
	FAULT_SET(sync_errno, EIO);
	assert_int_not_equal(ini_do(&cache_off).code, 0);
	assert_true(ini_do(&sense).in[6] & 0x04);
}

static int run(const char *engine)
{
#define TEST(f) cmocka_unit_test_teardown(f, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_synced),
		TEST(test_sync_fails),
		TEST(test_cache_stays_on),
	};

	return cmocka_run_group_tests_name(engine, tests, NULL, NULL);
}

int main(void)
{
	return run_on_engines(run);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* Reservations (SPC-4 5.12), step by step, and across restarts. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "disk_fault.h"
#include "scsi_initiator.h"

#include <cmocka.h>

#define OPTIONS "scsi,lun0=%d/disk,lun0.serial=S1"
#define KEEP    OPTIONS ",reservations=%d/pr"

enum { REGISTER, RESERVE, RELEASE, CLEAR, PREEMPT, PREEMPT_ABORT, IGNORE };
#define CONFLICT (0x100u | STATUS_RESERVATION_CONFLICT)

static const struct cmd tur = { .cdb = { 0 } };

static int teardown(void **state)
{
	ini_stop();
	return 0;
}

static void ready(const char *options)
{
	ini_start(options);
	assert_int_equal(ini_do_ready(&tur).status, 0);
}

/* 0, a sense code, or CONFLICT. */
static uint32_t outcome(const struct sent *s)
{
	assert_int_equal(s->response, 0);
	return s->code ? s->code : s->status ? 0x100u | s->status : 0;
}

static uint32_t out(uint8_t action, uint8_t type, uint64_t key,
		    uint64_t action_key, uint8_t flags)
{
	uint8_t list[24] = { 0 };
	struct cmd c = { .cdb = { 0x5f, action, type, [8] = 24 },
			 .out = list,
			 .out_len = 24 };
	struct sent s;

	write_be64(list, key);
	write_be64(list + 8, action_key);
	list[20] = flags;
	s = ini_do(&c);
	return outcome(&s);
}

static struct sent in(uint8_t action)
{
	struct cmd c = { .cdb = { 0x5e, action, [7] = 1 }, .in_len = 256 };

	return ini_do(&c);
}

/* Generation, registered key (0: none) and type (0: not reserved). */
static void expect(uint32_t generation, uint64_t key, uint8_t type)
{
	bool all = type == 7 || type == 8;
	struct sent s = in(0);

	assert_int_equal(read_be32(s.in), generation);
	assert_int_equal(read_be32(s.in + 4), key ? 8 : 0);
	if (key)
		assert_int_equal(read_be64(s.in + 8), key);
	s = in(1);
	assert_int_equal(read_be32(s.in), generation);
	assert_int_equal(read_be32(s.in + 4), type ? 16 : 0);
	if (type) {
		assert_int_equal(read_be64(s.in + 8), all ? 0 : key);
		assert_int_equal(s.in[21], type);
	}
	s = in(3);
	assert_int_equal(read_be32(s.in + 4), key ? 48 : 0);
	if (key) {
		assert_int_equal(read_be64(s.in + 8), key);
		assert_int_equal(s.in[20] & 1, type != 0);
		assert_int_equal(s.in[21], type);
	}
}

static void test_steps(void **state)
{
	static const struct {
		const char *name;
		uint8_t action, type;
		uint64_t key, action_key;
		uint8_t flags;
		uint32_t outcome;
		uint32_t generation; /* afterwards */
		uint64_t registered;
		uint8_t reserved;
	} rows[] = {
		{ "not registered", RESERVE, 1, 0, 0, 0, CONFLICT, 0, 0, 0 },
		{ "wrong key", REGISTER, 0, 1, 2, 0, CONFLICT, 0, 0, 0 },
		{ "register 0", REGISTER, 0, 0, 0, 0, 0, 0, 0, 0 },
		{ "register", REGISTER, 0, 0, 0xa1, 0, 0, 1, 0xa1, 0 },
		{ "again", REGISTER, 0, 0, 0xa2, 0, CONFLICT, 1, 0xa1, 0 },
		{ "other key", REGISTER, 0, 0xa1, 0xa2, 0, 0, 2, 0xa2, 0 },
		{ "ignore", IGNORE, 0, 77, 0xa3, 0, 0, 3, 0xa3, 0 },
		{ "SPEC_I_PT", IGNORE, 0, 0, 0xa4, 8, SC_INVALID_LIST_FIELD, 3,
		  0xa3, 0 },
		{ "ALL_TG_PT", IGNORE, 0, 0, 0xa3, 4, 0, 4, 0xa3, 0 },
		{ "APTPL, no file", IGNORE, 0, 0, 0xa3, 1,
		  SC_INVALID_LIST_FIELD, 4, 0xa3, 0 },
		{ "wrong key", RESERVE, 1, 1, 0, 0, CONFLICT, 4, 0xa3, 0 },
		{ "no such type", RESERVE, 2, 0xa3, 0, 0, SC_INVALID_CDB_FIELD,
		  4, 0xa3, 0 },
		{ "no such scope", RESERVE, 0x11, 0xa3, 0, 0,
		  SC_INVALID_CDB_FIELD, 4, 0xa3, 0 },
		{ "reserve", RESERVE, 3, 0xa3, 0, 0, 0, 4, 0xa3, 3 },
		{ "the same", RESERVE, 3, 0xa3, 0, 0, 0, 4, 0xa3, 3 },
		{ "another", RESERVE, 1, 0xa3, 0, 0, CONFLICT, 4, 0xa3, 3 },
		{ "release another", RELEASE, 1, 0xa3, 0, 0, SC_INVALID_RELEASE,
		  4, 0xa3, 3 },
		{ "release", RELEASE, 3, 0xa3, 0, 0, 0, 4, 0xa3, 0 },
		{ "once more", RELEASE, 3, 0xa3, 0, 0, 0, 4, 0xa3, 0 },
		{ "all registrants", RESERVE, 7, 0xa3, 0, 0, 0, 4, 0xa3, 7 },
		{ "preempt all", PREEMPT, 8, 0xa3, 0, 0, 0, 5, 0xa3, 8 },
		{ "preempt nobody", PREEMPT, 8, 0xa3, 9, 0, CONFLICT, 5, 0xa3,
		  8 },
		{ "release", RELEASE, 8, 0xa3, 0, 0, 0, 5, 0xa3, 0 },
		{ "reserve", RESERVE, 5, 0xa3, 0, 0, 0, 5, 0xa3, 5 },
		{ "preempt 0", PREEMPT, 5, 0xa3, 0, 0, SC_INVALID_LIST_FIELD, 5,
		  0xa3, 5 },
		{ "oneself", PREEMPT_ABORT, 6, 0xa3, 0xa3, 0, 0, 6, 0xa3, 6 },
		{ "unregister", REGISTER, 0, 0xa3, 0, 0, 0, 7, 0, 0 },
		{ "ignore 0", IGNORE, 0, 0, 0, 0, 0, 7, 0, 0 },
		{ "register", IGNORE, 0, 0, 5, 0, 0, 8, 5, 0 },
		{ "reserve", RESERVE, 1, 5, 0, 0, 0, 8, 5, 1 },
		{ "clear, wrong key", CLEAR, 0, 6, 0, 0, CONFLICT, 8, 5, 1 },
		{ "clear", CLEAR, 0, 5, 0, 0, 0, 9, 0, 0 },
	};

	ini_image("disk", IMAGE_BYTES);
	ready(OPTIONS);
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		print_message("%s\n", rows[i].name);
		assert_int_equal(out(rows[i].action, rows[i].type, rows[i].key,
				     rows[i].action_key, rows[i].flags),
				 rows[i].outcome);
		expect(rows[i].generation, rows[i].registered,
		       rows[i].reserved);
	}
}

/* Unknown service actions, lists of other lengths, short buffers. */
static void test_service_actions(void **state)
{
	uint8_t list[32] = { 0 };
	struct cmd c = { .cdb = { 0x5f, 0, 0, [8] = 23 },
			 .out = list,
			 .out_len = 32 };
	struct sent s;

	ini_image("disk", IMAGE_BYTES);
	ready(OPTIONS);
	for (uint8_t i = 4; i < 0x20; i++) {
		s = in(i);
		assert_int_equal(s.code, SC_INVALID_CDB_FIELD);
	}
	for (uint8_t i = 7; i < 0x20; i++)
		assert_int_equal(out(i, 0, 0, 0, 0), SC_INVALID_CDB_FIELD);
	assert_int_equal(ini_do(&c).code, SC_LIST_LENGTH);
	c.cdb[8] = 25;
	assert_int_equal(ini_do(&c).code, SC_LIST_LENGTH);
	c.cdb[5] = 0xff;
	s = ini_do(&c);
	assert_int_equal(s.response, VIRTIO_SCSI_S_OVERRUN);

	s = in(2);
	assert_memory_equal(s.in, "\x00\x08\x14\x80\xea\x01\x00\x00", 8);
	assert_int_equal(s.residual, 248);
	out(IGNORE, 0, 0, 7, 0);
	c = (struct cmd){ .cdb = { 0x5e, 0, [8] = 4 }, .in_len = 4 };
	assert_int_equal(ini_do(&c).residual, 0);
}

/* SPC-2's, beside the persistent ones. */
static void test_reserve6(void **state)
{
	static const struct cmd reserve = { .cdb = { 0x16 } };
	static const struct cmd release = { .cdb = { 0x17 } };
	static const uint8_t lun0[8] = LUN_ADDR(0, 0);
	struct sent s;

	ini_image("disk", IMAGE_BYTES);
	ready(OPTIONS);
	assert_int_equal(ini_do(&reserve).status, 0);
	s = in(0);
	assert_int_equal(s.status, STATUS_RESERVATION_CONFLICT);
	assert_int_equal(out(IGNORE, 0, 0, 7, 0), CONFLICT);
	assert_int_equal(ini_do(&release).status, 0);
	assert_int_equal(out(IGNORE, 0, 0, 7, 0), 0);
	assert_int_equal(ini_do(&reserve).status, 0); /* without effect */
	expect(1, 7, 0);
	assert_int_equal(out(REGISTER, 0, 7, 0, 0), 0);
	/* A reset releases it. */
	ini_do(&reserve);
	ini_tmf(VIRTIO_SCSI_T_TMF_LOGICAL_UNIT_RESET, lun0, 0);
	ini_do_ready(&tur);
	expect(2, 0, 0);
}

static void spoil(const char *name, off_t at)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", ini.dir, name);
	fd = open(path, O_WRONLY);
	assert_int_equal(pwrite(fd, "XX", 2, at), 2);
	close(fd);
}

/* Others may use the image: reservations that cannot exclude them are off. */
static void test_shared(void **state)
{
	static const char *const options[] = {
		OPTIONS ",lun0.share=on",
		OPTIONS ",lun0.ro=on",
		OPTIONS ",lun0.share=on,reservations=%d/pr",
	};
	const struct cmd reserve = { .cdb = { 0x16 } };
	struct cmd opcode = { .cdb = { 0xa3, 0x0c, 2, 0x5f, [8] = 1 },
			      .in_len = 256 };
	struct sent s;

	for (size_t i = 0; i < ARRAY_LEN(options); i++) {
		ini_image("disk", IMAGE_BYTES);
		ready(options[i]);
		assert_int_equal(out(IGNORE, 0, 0, 0xa1, 0), SC_INVALID_OPCODE);
		s = in(0);
		assert_int_equal(outcome(&s), SC_INVALID_OPCODE);
		s = ini_do(&reserve);
		assert_int_equal(outcome(&s), SC_INVALID_OPCODE);
		s = ini_do(&opcode);
		assert_int_equal(s.in[1] & 7, 1); /* not supported */
		ini_close();
	}
}

static void test_restart(void **state)
{
	ini_image("disk", IMAGE_BYTES);
	ready(KEEP);
	assert_int_equal(in(2).in[2], 0x15); /* PTPL_C */
	/* Without APTPL it is forgotten. */
	assert_int_equal(out(IGNORE, 0, 0, 7, 0), 0);
	assert_int_equal(out(RESERVE, 3, 7, 0, 0), 0);
	ini_close();
	ready(KEEP);
	expect(0, 0, 0);
	/* With it, it is kept. */
	assert_int_equal(out(IGNORE, 0, 0, 7, 1), 0);
	assert_int_equal(in(2).in[3], 0x81); /* PTPL_A */
	assert_int_equal(out(RESERVE, 3, 7, 0, 0), 0);
	/* A reset of the device does not change it. */
	assert_true(vdrv_start(&ini.d, ~0ull, 3));
	ini_do_ready(&tur);
	expect(1, 7, 3);
	ini_close();
	ready(KEEP);
	expect(0, 7, 3);
	assert_int_equal(out(RELEASE, 3, 7, 0, 0), 0);
	ini_close();
	ready(KEEP);
	expect(0, 7, 0);
	/* Killed while writing one copy (the sixth, even): the other. */
	assert_int_equal(out(RESERVE, 1, 7, 0, 0), 0);
	ini_close();
	spoil("pr", 40);
	ready(KEEP);
	expect(0, 7, 0);
	/* Registered without APTPL again: forgotten. */
	assert_int_equal(out(IGNORE, 0, 0, 8, 0), 0);
	ini_close();
	ready(KEEP);
	expect(0, 0, 0);
}

/* A reservation that cannot be saved fails: hostile F22. */
static void test_save_fails(void **state)
{
	ini_image("disk", IMAGE_BYTES);
	ready(KEEP);
	assert_int_equal(out(IGNORE, 0, 0, 7, 1), 0);
	FAULT_SET(sync_errno, 5);
	assert_int_equal(out(RESERVE, 3, 7, 0, 0), SC_PR_RESOURCES);
	expect(1, 7, 0);
	assert_int_equal(out(IGNORE, 0, 0, 8, 0), SC_PR_RESOURCES);
	expect(1, 7, 0);
	FAULT_SET(sync_errno, 0);
	assert_int_equal(out(RESERVE, 3, 7, 0, 0), 0);
	expect(1, 7, 3);
}

/* Another program's file is rejected, not overwritten. */
static void test_foreign_file(void **state)
{
	char text[256], why[256];
	struct vdev *dev;

	ini_image("disk", IMAGE_BYTES);
	ini_image("pr", 8192);
	ready(OPTIONS);
	snprintf(text, sizeof(text),
		 "scsi,lun0=%s/pr,lun0.ro=on,reservations=%s/pr", ini.dir,
		 ini.dir);
	ini_close();
	assert_int_equal(vio_loop_create(&ini.loop), 0);
	vdrv_init(&ini.d, VDRV_MODERN);
	assert_true(vdev_new(text, &ini.d.pi, ini.loop, &dev, why,
			     sizeof(why)) < 0);
	assert_non_null(strstr(why, "not a viodev reservations file"));
	vdrv_fini(&ini.d);
	vio_loop_destroy(ini.loop);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(test_steps, teardown),
		cmocka_unit_test_teardown(test_service_actions, teardown),
		cmocka_unit_test_teardown(test_reserve6, teardown),
		cmocka_unit_test_teardown(test_shared, teardown),
		cmocka_unit_test_teardown(test_restart, teardown),
		cmocka_unit_test_teardown(test_save_fails, teardown),
		cmocka_unit_test_teardown(test_foreign_file, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

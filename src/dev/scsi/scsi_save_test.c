/* SPDX-License-Identifier: BSD-2-Clause */
/* Another process continues with a SCSI host: vc_save, vc_load. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "disk_fault.h"
#include "base/util.h"
#include "scsi_initiator.h"
#include "moved.h"

#include <cmocka.h>

#define HEAD 16 /* bytes */
#define UNIT 40

#define DISK    "scsi,lun0=%d/disk,lun0.serial=S0"
#define CD      ",t1.lun0=%d/cd,t1.lun0.serial=S1,t1.lun0.type=cdrom"
#define TRAY    ",t1.lun3=%d/cd,t1.lun3.serial=S2,t1.lun3.type=cdrom"
#define KEEP    ",reservations=%d/pr"
#define TARGETS DISK CD TRAY

enum { IN_KEYS = 0, IN_RESERVATION = 1, OUT_RESERVE = 1, OUT_IGNORE = 6 };

static struct moved saved;

static int setup(void **state)
{
	ini_image("disk", IMAGE_BYTES);
	ini_image("cd", IMAGE_BYTES);
	return 0;
}

static int teardown(void **state)
{
	disk_fault = (struct disk_fault){ 0 };
	ini_stop();
	return 0;
}

static struct scsi_softc *softc(void)
{
	return container_of(ini.dev, struct scsi_softc, sc_dev);
}

static void save(void)
{
	moved_take(&saved, ini.dev->vs);
}

static int load(const uint8_t *state, size_t len)
{
	return moved_load(ini.dev->vs, state, len);
}

static void refused(const uint8_t *state, size_t len)
{
	moved_refuse(ini.dev->vs, state, len);
}

/* Create a device, and negotiate, up to the point where a state is loaded. */
static void make(const char *options)
{
	ini_create(VDRV_MODERN, options);
	vdrv_probe(&ini.d);
	vdrv_reset(&ini.d);
	vdrv_greet(&ini.d);
	assert_true(vdrv_negotiate(&ini.d, vdrv_offer(&ini.d)));
}

static void run(void)
{
	for (unsigned q = 0; q < 3; q++)
		assert_true(vdrv_queue_setup(&ini.d, q, 0));
	vdrv_driver_ok(&ini.d);
}

/* Another device continues with the saved state. */
static void move(const char *options)
{
	ini_close();
	make(options);
	assert_int_equal(load(saved.bytes, saved.len), 0);
	run();
}

static struct sent send_to(uint8_t target, uint8_t lun, const struct cmd *c)
{
	const uint8_t addr[8] = LUN_ADDR(target, lun);
	struct cmd copy = *c;

	memcpy(copy.addr, addr, sizeof(addr));
	return ini_do(&copy);
}

static uint32_t tur(uint8_t target, uint8_t lun)
{
	static const struct cmd c = { .cdb = { 0 } };

	return send_to(target, lun, &c).code;
}

/* All units are ready, with no unit attention. */
static void start(const char *options)
{
	ini_start(options);
	for (unsigned i = 0; i < softc()->sc_nr_luns; i++) {
		const struct scsi_lun *lun = softc()->sc_luns[i];

		while (tur(lun->target, (uint8_t)lun->lun) >> 16 == 6)
			;
	}
}

static void good(uint8_t target, uint8_t lun, const struct cmd *c)
{
	struct sent s = send_to(target, lun, c);

	assert_int_equal(s.response, 0);
	assert_int_equal(s.status, 0);
}

static void pr_out_key(uint8_t action, uint8_t type, uint64_t key,
		       uint64_t action_key, uint8_t flags)
{
	uint8_t list[24] = { [20] = flags };
	struct cmd c = { .cdb = { 0x5f, action, type, [8] = 24 },
			 .out = list,
			 .out_len = 24 };

	write_be64(list, key);
	write_be64(list + 8, action_key);
	good(0, 0, &c);
}

static void register_key(uint64_t key, bool keep)
{
	pr_out_key(OUT_IGNORE, 0, 0, key, keep);
}

/* Generation, registered key (0: none) and type (0: not reserved). */
static void expect_pr(uint32_t generation, uint64_t key, uint8_t type)
{
	struct cmd c = { .cdb = { 0x5e, IN_KEYS, [7] = 1 }, .in_len = 256 };
	struct sent s = send_to(0, 0, &c);

	assert_int_equal(s.status, 0);
	assert_int_equal(read_be32(s.in), generation);
	assert_int_equal(read_be32(s.in + 4), key ? 8 : 0);
	if (key)
		assert_int_equal(read_be64(s.in + 8), key);
	c.cdb[1] = IN_RESERVATION;
	s = send_to(0, 0, &c);
	assert_int_equal(read_be32(s.in + 4), type ? 16 : 0);
	if (type)
		assert_int_equal(s.in[21], type);
}

static void mode_select(uint8_t target, uint8_t lun, const char *page,
			uint8_t len)
{
	uint8_t list[4 + 32] = { 0 };
	struct cmd c = { .cdb = { 0x15, 0x10, [4] = 4 + len },
			 .out = list,
			 .out_len = 4u + len };

	memcpy(list + 4, page, len);
	good(target, lun, &c);
}

/* A byte of a mode page, after its header. */
static uint8_t mode(uint8_t target, uint8_t lun, uint8_t page, unsigned at)
{
	struct cmd c = { .cdb = { 0x1a, 8, page, 0, 255 }, .in_len = 255 };
	struct sent s = send_to(target, lun, &c);

	assert_int_equal(s.status, 0);
	return s.in[4 + 2 + at];
}

static const struct cmd stop_unit = { .cdb = { 0x1b, [4] = 0 } };
static const struct cmd eject = { .cdb = { 0x1b, [4] = 2 } };
static const struct cmd prevent = { .cdb = { 0x1e, [4] = 1 } };
static const struct cmd reserve = { .cdb = { 0x16 } };

/* Every field of it: a driver continues with all that it has set up. */
static void test_goes_on(void **state)
{
	static const uint8_t tray[8] = LUN_ADDR(1, 3);

	start(TARGETS);
	assert_int_equal(ini_tmf(VIRTIO_SCSI_T_TMF_LOGICAL_UNIT_RESET, tray, 0),
			 0);
	assert_int_equal(tur(1, 3), SC_UA_LUN_RESET);
	mode_select(0, 0, "\x08\x12\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 20);
	mode_select(0, 0, "\x0a\x0a\x06\x10\x08\0\0\0\xff\xff\0\0", 12);
	register_key(0xa1, false);
	register_key(0xa2, false);
	pr_out_key(OUT_RESERVE, 5, 0xa2, 0, 0);
	good(1, 0, &prevent);
	good(1, 0, &reserve);
	good(1, 3, &eject);
	assert_int_equal(ini_tmf(VIRTIO_SCSI_T_TMF_LOGICAL_UNIT_RESET, tray, 0),
			 0);
	vdrv_cfg_write(&ini.d, 20, 4, 64); /* sense and CDB */
	vdrv_cfg_write(&ini.d, 24, 4, 24);
	ini.sense_size = 64;
	ini.cdb_size = 24;

	save();
	ini_close();
	make(TARGETS);
	assert_int_equal(load(saved.bytes, saved.len), 0);
	moved_expect(ini.dev->vs, &saved);
	run();
	ini.sense_size = 64;
	ini.cdb_size = 24;

	/* It gets no power-on attention: there was none. */
	assert_int_equal(tur(0, 0), 0);
	assert_int_equal(mode(0, 0, 0x08, 0) & 4, 0);
	assert_int_equal(mode(0, 0, 0x0a, 0) & 4, 4);
	assert_int_equal(mode(0, 0, 0x0a, 2) & 8, 8);
	expect_pr(2, 0xa2, 5);
	assert_int_equal(tur(1, 0), 0);
	assert_int_equal(send_to(1, 0, &eject).code, SC_REMOVAL_PREVENTED);
	assert_true(softc()->sc_luns[1]->reserved);
	assert_int_equal(tur(1, 3), SC_UA_LUN_RESET);
	assert_int_equal(tur(1, 3), SC_TRAY_OPEN);
	assert_int_equal(vdrv_cfg_read(&ini.d, 20, 4), 64);
	assert_int_equal(vdrv_cfg_read(&ini.d, 24, 4), 24);
}

/* A unit that was stopped, one that was reserved, and one that is new. */
static void test_stopped_reserved(void **state)
{
	start(DISK);
	good(0, 0, &reserve);
	good(0, 0, &stop_unit);
	save();
	move(DISK);
	assert_int_equal(tur(0, 0), SC_STOPPED);
	assert_true(softc()->sc_luns[0]->reserved);
	ini_close();

	make(DISK); /* no driver ever came */
	save();
	move(DISK);
	assert_int_equal(tur(0, 0), SC_UA_POWER_ON);
	assert_int_equal(tur(0, 0), 0);
}

/* A later driver finds none of it. */
static void test_reset(void **state)
{
	start(DISK);
	mode_select(0, 0, "\x0a\x0a\x02\x10\x08\0\0\0\xff\xff\0\0", 12);
	good(0, 0, &reserve);
	save();
	ini_close();
	make(DISK);
	assert_int_equal(load(saved.bytes, saved.len), 0);
	assert_true(vdrv_start(&ini.d, ~0ull, 3));
	assert_int_equal(tur(0, 0), SC_UA_RESET);
	assert_int_equal(mode(0, 0, 0x0a, 2) & 8, 0);
	assert_false(softc()->sc_luns[0]->reserved);
}

/*
 * --- Units that have changed ---
 */

static uint64_t add_event_buffer(void)
{
	uint64_t mem = vdrv_alloc(&ini.d, 16, 8);

	vdrv_add(&ini.d, 1, (struct vdrv_buf[]){ { mem, 16, VDRV_W } }, 1);
	vdrv_kick(&ini.d, 1);
	return mem;
}

/* SCSI-EVT-01: whether an event asks the driver to rescan. */
static bool told_to_look(void)
{
	uint64_t mem = add_event_buffer();
	struct vdrv_used used;
	uint32_t event;

	if (!vdrv_used(&ini.d, 1, &used))
		return false;
	memcpy(&event, vdrv_ptr(&ini.d, mem, 4), sizeof(event));
	assert_int_equal(le32toh(event), VIRTIO_SCSI_T_EVENTS_MISSED);
	return true;
}

/* The driver is notified of larger and additional units. */
static void test_news(void **state)
{
	start(DISK);
	save();
	move(DISK);
	assert_false(told_to_look());
	assert_int_equal(tur(0, 0), 0);

	ini_close();
	ini_image("disk", 2 * IMAGE_BYTES);
	move(DISK);
	assert_true(told_to_look());
	assert_false(told_to_look());
	assert_int_equal(tur(0, 0), SC_UA_CAPACITY);
	assert_int_equal(tur(0, 0), 0);

	save();
	move(DISK CD);
	assert_true(told_to_look());
	assert_int_equal(tur(0, 0), SC_UA_LUNS_CHANGED);
	assert_int_equal(tur(0, 0), 0);
	assert_int_equal(tur(1, 0), SC_UA_POWER_ON);

	/* The medium of a drive may be another one. */
	ini_close();
	start(DISK CD);
	save();
	ini_close();
	ini_image("cd", IMAGE_BYTES / 2);
	move(DISK CD);
	assert_int_equal(tur(1, 0), SC_UA_MEDIUM);
	assert_int_equal(tur(1, 0), 0);
}

/* A unit that ctl has removed is gone for the driver. */
static void test_removed(void **state)
{
	start(DISK CD);
	save();
	lun_remove(lun_by_name(softc(), "t1.lun0"));
	refused(saved.bytes, saved.len);
	assert_non_null(strstr(ini.d.last_log, "cannot restore t1.lun0"));
	ini_close();

	start(DISK CD);
	lun_remove(lun_by_name(softc(), "t1.lun0"));
	save();
	assert_int_equal(saved.len, HEAD + UNIT);
	assert_true(softc()->sc_missed); /* the driver had no buffer */
	move(DISK);
	assert_true(told_to_look());
	assert_int_equal(tur(0, 0), 0);

	ini_close();
	make(DISK CD);
	lun_remove(lun_by_name(softc(), "t1.lun0"));
	assert_int_equal(load(saved.bytes, saved.len), 0);
	run();
	assert_int_equal(tur(0, 0), 0);
	assert_int_equal(send_to(1, 0, &eject).response,
			 VIRTIO_SCSI_S_BAD_TARGET);
}

/* The write cache is off where there is none. */
static void test_writethrough(void **state)
{
	start(DISK);
	save();
	move(DISK ",lun0.cache=writethrough");
	assert_int_equal(mode(0, 0, 0x08, 0) & 4, 0);
	assert_int_equal(tur(0, 0), 0);
}

/* A guest must not continue with a disk other than its own. */
static void test_another_unit(void **state)
{
	static const struct {
		const char *options, *why;
	} rows[] = {
		{ DISK, "cannot restore t1.lun0: no such unit" },
		{ DISK ",t1.lun1=%d/cd,t1.lun1.type=cdrom,t1.lun1.serial=S1",
		  "cannot restore t1.lun0: no such unit" },
		{ "scsi,lun0=%d/disk,lun0.serial=S9" CD, "differs here" },
		{ "scsi,lun0=%d/disk" CD, "differs here" },
		{ DISK ",lun0.type=cdrom" CD, "differs here" },
		{ DISK ",lun0.block-size=4096" CD, "differs here" },
		{ DISK ",lun0.ro=on" CD, "differs here" },
		{ "scsi,lun0=%d/small,lun0.serial=S0" CD, "smaller here" },
	};

	ini_image("small", IMAGE_BYTES - 512);
	start(DISK CD);
	save();
	ini_close();
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		print_message("%s\n", rows[i].options);
		make(rows[i].options);
		refused(saved.bytes, saved.len);
		if (!strstr(ini.d.last_log, rows[i].why))
			fail_msg("%s", ini.d.last_log);
		ini_close();
	}
}

/*
 * --- Reservations kept in a file ---
 */

struct file {
	uint8_t b[8192];
	size_t len;
};

static int open_file(int flags)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "%s/pr", ini.dir);
	fd = open(path, flags, 0600);
	assert_true(fd >= 0);
	return fd;
}

static void read_file(struct file *f)
{
	int fd = open_file(O_RDONLY);

	f->len = (size_t)read(fd, f->b, sizeof(f->b));
	close(fd);
}

static void write_file(const struct file *f)
{
	int fd = open_file(O_WRONLY | O_CREAT);

	assert_int_equal(write(fd, f->b, f->len), f->len);
	close(fd);
}

static void promise(uint64_t key)
{
	register_key(key, true);
	pr_out_key(OUT_RESERVE, 3, key, 0, 0);
}

/* They are not passed to a process that would forget them. */
static void test_no_file(void **state)
{
	start(DISK KEEP);
	promise(0xa1);
	save();
	ini_close();
	make(DISK);
	refused(saved.bytes, saved.len);
	assert_non_null(strstr(ini.d.last_log, "reservations="));
	ini_close();

	start(DISK KEEP);
	register_key(0xa1, false);
	save();
	move(DISK);
	expect_pr(1, 0xa1, 3);
}

/*
 * The loaded state overrides a file, and is written to it: also if the other
 * process has written to the same file after this one read it.
 */
static void test_file(void **state)
{
	static struct file early, late;

	start(DISK KEEP);
	promise(0xa1);
	read_file(&early);
	promise(0xa2);
	save();
	promise(0xa3);
	promise(0xa4);
	read_file(&late);
	ini_close();
	for (int same = 0; same < 2; same++) {
		write_file(&early);
		make(DISK KEEP);
		if (same)
			write_file(&late);
		assert_int_equal(load(saved.bytes, saved.len), 0);
		run();
		expect_pr(2, 0xa2, 3);
		ini_close();
		start(DISK KEEP); /* power is lost */
		expect_pr(0, 0xa2, 3);
		ini_close();
	}
}

/* A reservation that cannot be saved is not held. */
static void test_file_fails(void **state)
{
	start(DISK KEEP);
	promise(0xa1);
	save();
	promise(0xa2);
	ini_close();
	make(DISK KEEP);
	FAULT_SET(sync_errno, EIO);
	refused(saved.bytes, saved.len);
	FAULT_SET(sync_errno, 0);
	write_file(&(struct file){ "not ours any more", 8192 });
	refused(saved.bytes, saved.len);
	run();
	while (tur(0, 0))
		;
	expect_pr(0, 0xa2, 3);
}

/*
 * A forgotten command's reservations are still being written by a thread: they
 * must not overwrite the loaded ones.
 */
static void test_file_busy(void **state)
{
	uint8_t list[24] = { [15] = 0xa2, [20] = 1 };
	struct cmd c = { .cdb = { 0x5f, OUT_IGNORE, [8] = 24 },
			 .out = list,
			 .out_len = 24 };

	start(DISK KEEP);
	promise(0xa1);
	save();
	FAULT_SET(hang, true);
	ini_send(&c);
	ini_iterate(5);
	vdrv_reset_now(&ini.d);
	assert_int_equal(load(saved.bytes, saved.len), -EBUSY);
	FAULT_SET(hang, false);
	while (!pci_is_idle(&ini.d.pi))
		ini_iterate(1);
	assert_int_equal(load(saved.bytes, saved.len), 0);
	ini_close();
	start(DISK KEEP);
	expect_pr(0, 0xa1, 3);
}

/*
 * --- hostile Q3: wrong lengths and values, and any byte changed ---
 */

/* Any order but their own, and one twice. */
static void refuse_order(void)
{
	uint8_t bad[MOVED_MAX];

	memcpy(bad, saved.bytes, saved.len);
	memcpy(bad + HEAD, saved.bytes + HEAD + UNIT, UNIT);
	refused(bad, saved.len);
	memcpy(bad + HEAD + UNIT, saved.bytes + HEAD, UNIT);
	refused(bad, saved.len);
}

static void test_hostile(void **state)
{
	enum {
		MISSED = 8,
		NR_UNITS = 12,
		PLACE = HEAD,
		KEY = HEAD + 24,
		FLAGS = HEAD + 36,
		UA = HEAD + 38,
		TYPE = HEAD + 39,
		CD_KEY = KEY + UNIT,
		CD_FLAGS = FLAGS + UNIT,
		CD_TYPE = TYPE + UNIT,
	};
	static const struct {
		unsigned at;
		uint8_t byte;
	} rows[] = {
		{ MISSED, 2 },          { MISSED + 1, 1 },
		{ MISSED + 3, 1 },      { NR_UNITS, 1 },
		{ NR_UNITS, 3 },        { NR_UNITS + 3, 0x80 },
		{ PLACE, 1 },           { PLACE + 2, 2 },
		{ PLACE + 3, 1 },       { FLAGS, 0x81 },
		{ FLAGS, 0x88 },        { FLAGS, 0xa0 },
		{ FLAGS, 0xc0 },        { FLAGS + 1, 0x10 },
		{ FLAGS + 1, 0x04 }, /* reserved in both ways */
		{ FLAGS + 1, 0x08 }, /* to be kept, without a file */
		{ UA, 0x80 },           { TYPE, 2 },
		{ TYPE, 0xff },         { KEY, 0 }, /* reserved by nobody */
		{ CD_KEY, 1 },          { CD_TYPE, 1 },
		{ CD_FLAGS, 0x85 },     { CD_FLAGS + 1, 0x01 },
		{ CD_FLAGS + 1, 0x08 },
	};
	uint8_t bad[MOVED_MAX] = { 0 };

	start(DISK CD);
	register_key(0xa1, false);
	pr_out_key(OUT_RESERVE, 5, 0xa1, 0, 0);
	save();
	assert_int_equal(saved.len, HEAD + 2 * UNIT);
	for (size_t len = 0; len < saved.len; len++) {
		refused(saved.bytes, len);
		moved_expect_no_room(ini.dev->vs, len);
	}
	memset(bad, 0, sizeof(bad));
	memcpy(bad, saved.bytes, saved.len);
	refused(bad, saved.len + 1);
	refused(bad, sizeof(bad));
	memset(bad + NR_UNITS, 0xff, 4);
	refused(bad, sizeof(bad));
	memset(bad + NR_UNITS, 0, 4);
	bad[NR_UNITS + 1] = 3; /* 768 */
	refused(bad, HEAD + 768 * UNIT);
	refuse_order();
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		memcpy(bad, saved.bytes, saved.len);
		bad[rows[i].at] = rows[i].byte;
		print_message("%u: %02x\n", rows[i].at, rows[i].byte);
		refused(bad, saved.len);
	}
	for (size_t i = 0; i < 8 * saved.len; i++) {
		memcpy(bad, saved.bytes, saved.len);
		bad[i / 8] ^= 1u << i % 8;
		if (load(bad, saved.len) < 0)
			refused(bad, saved.len);
		else
			assert_true(moved_save(ini.dev->vs, bad, sizeof(bad)) >
				    0);
	}
	assert_int_equal(load(saved.bytes, saved.len), 0);
	expect_pr(1, 0xa1, 5);
}

/* A driver that wants no events is owed none. */
static void test_no_events(void **state)
{
	start(DISK);
	save();
	ini_close();
	ini_create(VDRV_MODERN, DISK CD);
	assert_true(vdrv_start(&ini.d, VI_BIT(VIRTIO_F_VERSION_1), 3));
	assert_int_equal(load(saved.bytes, saved.len), 0);
	assert_false(told_to_look());
	saved.bytes[8] = 1;
	refused(saved.bytes, saved.len);
}

#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_goes_on),      T(test_stopped_reserved),
		T(test_reset),        T(test_news),
		T(test_removed),      T(test_writethrough),
		T(test_another_unit), T(test_no_file),
		T(test_file),         T(test_file_fails),
		T(test_file_busy),    T(test_hostile),
		T(test_no_events),
	};

	return cmocka_run_group_tests_name("scsi state", tests, NULL, NULL);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The SCSI host device as virtio has it: docs/spec/conformance.md section 10
 * and its rows of docs/spec/hostile.md. target_test.c tests the commands.
 */
#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/le.h"
#include "disk_fault.h"
#include "emulated.h"
#include "process.h"
#include "scsi_initiator.h"

#include <cmocka.h>

#define DISK "scsi,lun0=%d/disk,queue-size=64"
#define TARGETS                                                     \
	"scsi,lun0=%d/disk,lun5=%d/b,t3.lun0=%d/c,t3.lun300=%d/cd," \
	"t3.lun300.type=cdrom,queue-size=64"
#define BIT(f) VI_BIT(VIRTIO_SCSI_F_##f)

static const uint8_t lun0[8] = LUN_ADDR(0, 0);
static const struct cmd tur = { .cdb = { 0 } };
static const struct cmd read_8 = {
	.cdb = { 0x28, 0, 0, 0, 0, 0, 0, 0, 8 },
	.in_len = 4096,
};

static int setup(void **state)
{
	memset(&disk_fault, 0, sizeof(disk_fault));
	ini_image("disk", IMAGE_BYTES);
	ini_image("b", IMAGE_BYTES);
	ini_image("c", IMAGE_BYTES);
	ini_image("cd", 2048 * 300);
	return 0;
}

static int teardown(void **state)
{
	FAULT_SET(hang, false);
	ini_stop();
	memset(&disk_fault, 0, sizeof(disk_fault));
	return 0;
}

static void ready(const char *options)
{
	ini_start(options);
	assert_int_equal(ini_do_ready(&tur).status, 0);
}

static struct cmd to(const uint8_t addr[8], const struct cmd *c)
{
	struct cmd r = *c;

	memcpy(r.addr, addr, 8);
	return r;
}

/*
 * --- Configuration ---
 */

static void test_config(void **state)
{
	struct sent s;

	ini_start(DISK ",queues=3");
	/* TRAP-13: no T10_PI; INOUT not either. */
	assert_int_equal(vdrv_offer(&ini.d) & 0xf, BIT(HOTPLUG) | BIT(CHANGE));
	assert_int_equal(vdrv_cfg_read(&ini.d, 0, 4), 3); /* SCSI-CFG-04 */
	assert_int_equal(vdrv_cfg_read(&ini.d, 4, 4), 62);
	assert_true(vdrv_cfg_read(&ini.d, 8, 4) > 0);
	assert_true(vdrv_cfg_read(&ini.d, 12, 4) > 0);
	assert_int_equal(vdrv_cfg_read(&ini.d, 16, 4), 16);
	assert_int_equal(vdrv_cfg_read(&ini.d, 20, 4), 96); /* SCSI-CFG-01 */
	assert_int_equal(vdrv_cfg_read(&ini.d, 24, 4), 32);
	assert_int_equal(vdrv_cfg_read(&ini.d, 28, 2), 0); /* SCSI-CFG-03 */
	assert_int_equal(vdrv_cfg_read(&ini.d, 30, 2), 255);
	assert_int_equal(vdrv_cfg_read(&ini.d, 32, 4), 16383);

	/* SCSI-CFG-02 */
	for (unsigned at = 0; at < 36; at += 4)
		if (at != 20 && at != 24)
			vdrv_cfg_write(&ini.d, at, 4, 0x55);
	assert_int_equal(vdrv_cfg_read(&ini.d, 0, 4), 3);
	vdrv_cfg_write(&ini.d, 20, 4, 24);
	vdrv_cfg_write(&ini.d, 24, 4, 16);
	ini.sense_size = 24;
	ini.cdb_size = 16;
	s = ini_do(&tur);
	assert_int_equal(s.code, SC_UA_POWER_ON);
	assert_int_equal(s.used, 12 + 24);
	s = ini_do(&read_8);
	assert_int_equal(s.used, 12 + 24 + 4096);
	assert_int_equal(s.in[0], 'a');
	vdrv_cfg_write(&ini.d, 20, 4, 10); /* shorter than the sense */
	vdrv_cfg_write(&ini.d, 24, 4, 260);
	ini.sense_size = 10;
	ini.cdb_size = 260;
	s = ini_do(&(struct cmd){ .cdb = { 0xff } });
	assert_int_equal(s.status, STATUS_CHECK_CONDITION);
	assert_int_equal(s.sense_len, 10);
	assert_int_equal(s.used, 22);

	/* Longer than any sense: all of it is zeroed, data in follows. */
	vdrv_cfg_write(&ini.d, 20, 4, 300);
	ini.sense_size = 300;
	s = ini_do(&read_8);
	assert_int_equal(s.used, 12 + 300 + 4096);
	for (unsigned i = 12; i < 12 + 300; i++)
		assert_int_equal(*(uint8_t *)vdrv_ptr(&ini.d, s.resp + i, 1),
				 0);
	vdrv_cfg_write(&ini.d, 20, 4, 0xffffffff);
	s = ini_do(&read_8);
	assert_int_equal(s.response, VIRTIO_SCSI_S_FAILURE);

	vdrv_reset(&ini.d);
	assert_int_equal(vdrv_cfg_read(&ini.d, 20, 4), 96);
	assert_int_equal(vdrv_cfg_read(&ini.d, 24, 4), 32);
}

/* SCSI-L01, SCSI-L02: on a little-endian guest the layout is the same. */
static void test_legacy(void **state)
{
	struct sent s;

	ini_create(VDRV_LEGACY, DISK);
	assert_true(
		vdrv_start(&ini.d, ~0ull & ~VI_BIT(VIRTIO_F_ANY_LAYOUT), 3));
	assert_int_equal(vdrv_cfg_read(&ini.d, 20, 4), 96);
	for (unsigned i = 0; i < 4; i++) /* as Linux does it */
		vdrv_cfg_write(&ini.d, 20 + i, 1, i ? 0 : 40);
	ini.sense_size = 40;
	assert_int_equal(vdrv_cfg_read(&ini.d, 20, 4), 40);
	s = ini_do_ready(&read_8);
	assert_int_equal(s.used, 12 + 40 + 4096);
	assert_int_equal(s.in[512], 'b');
}

/*
 * --- Addresses ---
 */

static void test_addresses(void **state)
{
	static const struct {
		const char *name;
		uint8_t addr[8];
		uint8_t response;
		uint32_t code;   /* of TEST UNIT READY */
		uint8_t inquiry; /* first byte */
	} rows[] = {
		{ "flat", { 1, 0, 0x40, 0 }, 0, 0, 0 },
		{ "SCSI-REQ-10 plain", { 1, 0, 0, 5 }, 0, 0, 0 },
		{ "flat", { 1, 0, 0x40, 5 }, 0, 0, 0 },
		{ "other target", { 1, 3, 0x40, 0 }, 0, 0, 0 },
		{ "large LUN", { 1, 3, 0x41, 0x2c }, 0, 0, 5 },
		{ "SCSI-REQ-15 no LUN", { 1, 0, 0x40, 1 }, 0, SC_NO_LUN, 0x7f },
		{ "bus 1", { 1, 0, 1, 0 }, 0, SC_NO_LUN, 0x7f },
		{ "second level",
		  { 1, 0, 0x40, 0, 0x40, 1 },
		  0,
		  SC_NO_LUN,
		  0x7f },
		{ "SCSI-REQ-04 no target", { 1, 1, 0x40, 0 }, 3, 0, 0 },
		{ "SCSI-REQ-17 malformed", { 0, 0, 0x40, 0 }, 3, 0, 0 },
		{ "SCSI-REQ-17 malformed", { 2, 0, 0x40, 0 }, 3, 0, 0 },
		{ "SCSI-REQ-09 REPORT LUNS", { 0xc1, 1 }, 0, 0, 0x1e },
		{ "almost", { 0xc1, 1, 0, 0, 0, 0, 0, 1 }, 3, 0, 0 },
	};
	struct cmd inq = { .cdb = { 0x12, 0, 0, 0, 36 }, .in_len = 36 };
	struct cmd luns = { .cdb = { 0xa0, [9] = 64 }, .in_len = 64 };
	struct sent s;

	ready(TARGETS);
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct cmd c = to(rows[i].addr, &tur);

		print_message("%s\n", rows[i].name);
		s = rows[i].response ? ini_do(&c) : ini_do_ready(&c);
		assert_int_equal(s.response, rows[i].response);
		assert_int_equal(s.code, rows[i].code);
		c = to(rows[i].addr, &inq);
		s = ini_do(&c);
		assert_int_equal(s.response, rows[i].response);
		if (rows[i].response) {
			assert_int_equal(s.used, 108);
			assert_int_equal(s.residual, 36);
			assert_int_equal(s.in[0], 0xdd);
		} else {
			assert_int_equal(s.in[0], rows[i].inquiry);
		}
	}
	/* Every target has a list; the well-known unit has them all. */
	inq = to((uint8_t[8]){ 1, 3, 0x40, 9 }, &luns);
	s = ini_do(&inq);
	assert_int_equal(s.in[3], 16);
	assert_int_equal(read_be16(s.in + 8), 0);
	assert_int_equal(read_be16(s.in + 16), 0x412c);
	inq = to((uint8_t[8]){ 0xc1, 1 }, &luns);
	s = ini_do(&inq);
	assert_int_equal(s.in[3], 32);
	assert_memory_equal(s.in + 16, ((uint8_t[8]){ 1, 0, 0x40, 5 }), 8);
	assert_memory_equal(s.in + 32, ((uint8_t[8]){ 1, 3, 0x41, 0x2c }), 8);
	/* REQUEST SENSE of a missing unit reports that, with GOOD. */
	inq = (struct cmd){ .cdb = { 0x03, 0, 0, 0, 18 },
			    .in_len = 18,
			    .addr = LUN_ADDR(0, 1) };
	s = ini_do(&inq);
	assert_int_equal(s.status, 0);
	assert_int_equal(s.in[2], 5);
	assert_int_equal(s.in[12], 0x25);
}

/*
 * --- Shapes of a request ---
 */

/* A hand-made chain; returns its response byte, or 0xee. */
static uint8_t do_bufs(const struct vdrv_buf *bufs, unsigned nr, uint64_t resp,
		       uint32_t *ret_used)
{
	struct vdrv_used used = { 0, ~0u };
	uint8_t *p = vdrv_ptr(&ini.d, resp, 12);

	p[11] = 0xee;
	vdrv_add_indirect(&ini.d, 2, bufs, nr);
	vdrv_kick(&ini.d, 2);
	for (int i = 0; i < 100 && !vdrv_used(&ini.d, 2, &used); i++)
		ini_iterate_once(5);
	*ret_used = used.len;
	return p[11];
}

static uint64_t make_request(void)
{
	uint64_t req = vdrv_alloc(&ini.d, 1 << 17, 8);
	uint8_t *p = vdrv_ptr(&ini.d, req, 1 << 17);

	memset(p, 0, 1 << 17);
	memcpy(p, lun0, 8);
	p[19] = 0x28; /* READ(10) of one block */
	p[19 + 8] = 1;
	return req;
}

/* hostile D20, K16: lengths of the parts; SCSI-REQ-07, SCSI-REQ-16 */
static void test_shapes(void **state)
{
	static const struct {
		uint32_t readable, writable;
		uint8_t response; /* 0xee: none, the device stops */
	} rows[] = {
		{ 51, 108 + 512, 0 },
		{ 51, 108 + 511, VIRTIO_SCSI_S_OVERRUN },
		{ 51, 108, VIRTIO_SCSI_S_OVERRUN },
		{ 51, 107, VIRTIO_SCSI_S_FAILURE },
		{ 51, 12, VIRTIO_SCSI_S_FAILURE },
		{ 51, 11, 0xee },
		{ 51, 1, 0xee },
		{ 51, 0, 0xee },
		{ 52, 108 + 512, VIRTIO_SCSI_S_FAILURE },
		{ 65536, 108 + 512, VIRTIO_SCSI_S_FAILURE },
		{ 52, 108, VIRTIO_SCSI_S_OVERRUN },
		{ 50, 108 + 512, VIRTIO_SCSI_S_FAILURE },
		{ 19, 108 + 512, VIRTIO_SCSI_S_FAILURE },
		{ 17, 108 + 512, VIRTIO_SCSI_S_FAILURE },
		{ 15, 108 + 512, VIRTIO_SCSI_S_FAILURE },
		{ 1, 108 + 512, VIRTIO_SCSI_S_FAILURE },
		{ 0, 108 + 512, VIRTIO_SCSI_S_FAILURE },
		{ 0, 1, 0xee },
		{ 51, 1 << 16, 0 },
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		uint64_t req, resp;
		struct vdrv_buf bufs[2];
		unsigned n = 0;
		uint32_t used;

		print_message("%u readable, %u writable\n", rows[i].readable,
			      rows[i].writable);
		setup(NULL);
		ready(DISK);
		req = make_request();
		resp = vdrv_alloc(&ini.d, 1 << 17, 8);
		if (rows[i].readable)
			bufs[n++] = (struct vdrv_buf){ req, rows[i].readable,
						       VDRV_R };
		if (rows[i].writable)
			bufs[n++] = (struct vdrv_buf){ resp, rows[i].writable,
						       VDRV_W };
		assert_int_equal(do_bufs(bufs, n, resp, &used),
				 rows[i].response);
		if (rows[i].response == 0xee) {
			assert_true(vdrv_status(&ini.d) &
				    VIRTIO_CONFIG_STATUS_NEEDS_RESET);
			assert_true(vdrv_start(&ini.d, ~0ull, 3));
		} else if (rows[i].response == 0) {
			assert_int_equal(used, 108 + 512);
		} else {
			assert_true(used <= rows[i].writable && used >= 12);
		}
		assert_int_equal(ini_do_ready(&tur).status, 0);
		ini_stop();
	}
}

/* Any division: hostile S14, byte by byte and into odd pieces. */
static void test_framing(void **state)
{
	static const unsigned pieces[] = { 1,  2,   3,   7,   16, 50,
					   51, 100, 107, 109, 500 };
	uint64_t req, resp;
	uint32_t used;

	ready(DISK);
	req = make_request();
	resp = vdrv_alloc(&ini.d, 620, 8);
	for (size_t i = 0; i < ARRAY_LEN(pieces); i++) {
		struct vdrv_buf bufs[800];
		unsigned n = 0, step = pieces[i];

		/* Byte by byte the data would be too many entries. */
		for (uint32_t at = 0; at < 51; at += step)
			bufs[n++] = (struct vdrv_buf){ req + at,
						       step < 51 - at ? step :
									51 - at,
						       VDRV_R };
		for (uint32_t at = 0, len; at < 620; at += len) {
			len = at > 120 && step < 16 ? 500 : step;
			if (len > 620 - at)
				len = 620 - at;
			bufs[n++] = (struct vdrv_buf){ resp + at, len, VDRV_W };
		}
		memset(vdrv_ptr(&ini.d, resp, 620), 0xdd, 620);
		assert_int_equal(do_bufs(bufs, n, resp, &used), 0);
		assert_int_equal(used, 620);
		assert_int_equal(*(uint8_t *)vdrv_ptr(&ini.d, resp + 108, 1),
				 'a');
		assert_int_equal(*(uint8_t *)vdrv_ptr(&ini.d, resp + 619, 1),
				 'a');
		/* SCSI-REQ-14: the sense area is zero-filled. */
		for (unsigned k = 12; k < 108; k++)
			assert_int_equal(
				*(uint8_t *)vdrv_ptr(&ini.d, resp + k, 1), 0);
	}
}

/* hostile S14: long chains, direct and indirect, never end the process. */
static void test_long_chains(void **state)
{
	static const unsigned lengths[] = { 2, 33, 129, 257, 513, 1025 };

	for (unsigned q = 0; q < 3; q++) {
		for (size_t i = 0; i < ARRAY_LEN(lengths); i++) {
			static struct vdrv_buf bufs[1025];
			uint64_t mem;

			setup(NULL);
			ready(DISK);
			mem = vdrv_alloc(&ini.d, 2048, 8);
			memset(vdrv_ptr(&ini.d, mem, 2048), 0, 2048);
			for (unsigned k = 0; k < lengths[i]; k++)
				bufs[k] = (struct vdrv_buf){
					mem + k, 1,
					k >= lengths[i] / 2 ? VDRV_W : VDRV_R
				};
			vdrv_add_indirect(&ini.d, q, bufs, lengths[i]);
			vdrv_kick(&ini.d, q);
			ini_iterate(3);
			assert_true(vdrv_start(&ini.d, ~0ull, 3));
			assert_int_equal(ini_do_ready(&tur).status, 0);
			ini_stop();
		}
	}
}

/* hostile S18b: 65 heads on a ring of 64, and each head twice. */
static void test_too_many_heads(void **state)
{
	struct sent s;

	ready(DISK);
	s = ini_add(&read_8);
	for (int i = 0; i < 64; i++)
		vdrv_avail(&ini.d, 2, s.head);
	vdrv_kick(&ini.d, 2);
	ini_iterate(3);
	assert_true(vdrv_status(&ini.d) & VIRTIO_CONFIG_STATUS_NEEDS_RESET);
	assert_true(vdrv_start(&ini.d, ~0ull, 3));
	assert_int_equal(ini_do_ready(&tur).status, 0);
}

/* SCSI-REQ-13: answers arrive on the request's queue; many at once. */
static void test_many(void **state)
{
	static struct sent s[2 * 16];

	ini_create(VDRV_MODERN, DISK ",queues=2");
	assert_true(vdrv_start(&ini.d, ~0ull, 4));
	ini_do_ready(&tur);
	for (unsigned i = 0; i < ARRAY_LEN(s); i++) {
		struct cmd c = read_8;

		c.queue = i & 1;
		c.cdb[5] = (uint8_t)i;
		s[i] = ini_add(&c);
	}
	vdrv_kick(&ini.d, 2);
	vdrv_kick(&ini.d, 3);
	ini_wait(s, ARRAY_LEN(s));
	for (unsigned i = 0; i < ARRAY_LEN(s); i++)
		assert_int_equal(s[i].in[0], 'a' + i % 26);
}

/* hostile Q22: lengths are evaluated at execution time. */
static void test_select_then_write_same(void **state)
{
	uint8_t list[12] = { 0, 0, 0, 8, [10] = 0x10 }; /* 4096 */
	struct cmd select = { .cdb = { 0x15, 0x10, 0, 0, 12 },
			      .out = list,
			      .out_len = 12 };
	struct cmd same = { .cdb = { 0x41, [8] = 2 }, .out_len = 512 };
	struct sent s[2];

	ready(DISK);
	s[0] = ini_add(&select);
	s[1] = ini_add(&same);
	vdrv_kick(&ini.d, 2);
	ini_wait(s, 2);
	assert_int_equal(s[0].code, SC_INVALID_LIST_FIELD);
	assert_int_equal(s[1].status, 0);
}

/*
 * --- Task management ---
 */

/* Reads that do not end, until FAULT_SET(hang, false). */
static bool hang(void)
{
	if (!refuse_io_uring())
		return false;
	ready(DISK ",lun1=%d/b");
	FAULT_SET(no_cache, true);
	FAULT_SET(hang, true);
	return true;
}

static void unhang(void *arg)
{
	FAULT_SET(hang, false);
}

/* SCSI-CTL-01, SCSI-CTL-02, SCSI-CTL-03 */
static void test_abort(void **state)
{
	static const struct {
		uint32_t subtype;
		uint64_t id;
		uint8_t first, other; /* responses of 0 and of the others */
		uint32_t ua;
	} rows[] = {
		{ VIRTIO_SCSI_T_TMF_ABORT_TASK, 100, VIRTIO_SCSI_S_ABORTED, 0,
		  0 },
		{ VIRTIO_SCSI_T_TMF_ABORT_TASK, 999, 0, 0, 0 },
		{ VIRTIO_SCSI_T_TMF_ABORT_TASK_SET, 0, VIRTIO_SCSI_S_ABORTED,
		  VIRTIO_SCSI_S_ABORTED, 0 },
		{ VIRTIO_SCSI_T_TMF_CLEAR_TASK_SET, 0, VIRTIO_SCSI_S_ABORTED,
		  VIRTIO_SCSI_S_ABORTED, 0 },
		{ VIRTIO_SCSI_T_TMF_LOGICAL_UNIT_RESET, 0, VIRTIO_SCSI_S_RESET,
		  VIRTIO_SCSI_S_RESET, SC_UA_LUN_RESET },
		{ VIRTIO_SCSI_T_TMF_I_T_NEXUS_RESET, 0, VIRTIO_SCSI_S_RESET,
		  VIRTIO_SCSI_S_RESET, SC_UA_NEXUS_LOSS },
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct sent s[8];
		struct vio_source *timer;
		uint8_t ret;

		print_message("subtype %u\n", rows[i].subtype);
		setup(NULL);
		if (!hang())
			skip();
		for (unsigned k = 0; k < ARRAY_LEN(s); k++) {
			struct cmd c = read_8;

			c.id = 100 + k;
			/* The last ones wait for an ordered one. */
			c.attr = k == 5 ? VIRTIO_SCSI_S_ORDERED : 0;
			s[k] = ini_send(&c);
		}
		ini_iterate(3);
		ini_collect(s, ARRAY_LEN(s));
		for (unsigned k = 0; k < ARRAY_LEN(s); k++)
			assert_false(s[k].done);
		/* SCSI-CTL-04: it exists, or not. */
		assert_int_equal(
			ini_tmf(VIRTIO_SCSI_T_TMF_QUERY_TASK, lun0, 103),
			VIRTIO_SCSI_S_FUNCTION_SUCCEEDED);
		assert_int_equal(
			ini_tmf(VIRTIO_SCSI_T_TMF_QUERY_TASK, lun0, 98), 0);
		assert_int_equal(
			ini_tmf(VIRTIO_SCSI_T_TMF_QUERY_TASK_SET, lun0, 0),
			VIRTIO_SCSI_S_FUNCTION_SUCCEEDED);
		assert_int_equal(ini_tmf(VIRTIO_SCSI_T_TMF_QUERY_TASK_SET,
					 (uint8_t[8])LUN_ADDR(0, 1), 0),
				 0);

		vio_timer_add(ini.loop, unhang, NULL, &timer);
		vio_timer_set(timer, 50000000);
		ret = ini_tmf(rows[i].subtype, lun0, rows[i].id);
		assert_int_equal(ret, VIRTIO_SCSI_S_OK);
		/* Aborted commands completed before its own answer. */
		ini_collect(s, ARRAY_LEN(s));
		if (rows[i].first)
			assert_true(s[0].done);
		if (rows[i].other)
			for (unsigned k = 1; k < ARRAY_LEN(s); k++)
				assert_true(s[k].done);
		unhang(NULL);
		ini_wait(s, ARRAY_LEN(s));
		for (unsigned k = 0; k < ARRAY_LEN(s); k++) {
			/* SCSI-REQ-05 */
			assert_int_equal(s[k].response,
					 k ? rows[i].other : rows[i].first);
			assert_int_equal(s[k].residual,
					 s[k].response ? 4096 : 0);
		}
		assert_int_equal(ini_do(&tur).code, rows[i].ua);
		vio_source_remove(timer);
		ini_stop();
		teardown(NULL);
	}
}

/* SCSI-CTL-04, SCSI-CTL-06: functions that fail. hostile S18a: ini_tmf() */
static void test_tmf_answers(void **state)
{
	static const struct {
		uint32_t subtype;
		uint8_t addr[8];
		uint8_t response;
	} rows[] = {
		{ VIRTIO_SCSI_T_TMF_ABORT_TASK, LUN_ADDR(0, 0), 0 },
		{ VIRTIO_SCSI_T_TMF_ABORT_TASK, LUN_ADDR(0, 9), 12 },
		{ VIRTIO_SCSI_T_TMF_LOGICAL_UNIT_RESET, LUN_ADDR(7, 0), 3 },
		{ VIRTIO_SCSI_T_TMF_I_T_NEXUS_RESET, LUN_ADDR(0, 9), 0 },
		{ VIRTIO_SCSI_T_TMF_QUERY_TASK, { 0 }, 3 },
		{ VIRTIO_SCSI_T_TMF_CLEAR_ACA, LUN_ADDR(0, 0), 11 },
		{ 8, LUN_ADDR(0, 0), 11 },
		{ 0xffffffff, LUN_ADDR(0, 0), 11 },
		{ VIRTIO_SCSI_T_TMF_ABORT_TASK_SET, { 0xc1, 1 }, 0 },
	};
	struct vdrv_used used;
	uint64_t mem;
	uint8_t *p;

	ready(DISK);
	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		assert_int_equal(ini_tmf(rows[i].subtype, rows[i].addr, 1),
				 rows[i].response);

	/* SCSI-CTL-05: AN_QUERY and AN_SUBSCRIBE; then unknown and short. */
	mem = vdrv_alloc(&ini.d, 64, 8);
	p = vdrv_ptr(&ini.d, mem, 64);
	for (unsigned type = 1; type <= 4; type++) {
		uint32_t len = type == 4 ? 15 : 16;

		memset(p, 0xee, 64);
		memset(p, 0, 16);
		p[0] = (uint8_t)(type == 4 ? 1 : type);
		memcpy(p + 4, lun0, 8);
		p[12] = 0xff;
		vdrv_add(&ini.d, 0,
			 (struct vdrv_buf[]){ { mem, len, VDRV_R },
					      { mem + 32, 5, VDRV_W } },
			 2);
		vdrv_kick(&ini.d, 0);
		assert_true(vdrv_used(&ini.d, 0, &used));
		if (type <= 2) {
			assert_int_equal(used.len, 5);
			assert_int_equal(p[32] | p[33] | p[34] | p[35], 0);
			assert_int_equal(p[36], VIRTIO_SCSI_S_OK);
		} else {
			assert_int_equal(used.len, 1);
			assert_int_equal(p[32], VIRTIO_SCSI_S_FAILURE);
		}
	}
	/* Nothing to write to, nothing to read. */
	vdrv_add(&ini.d, 0, (struct vdrv_buf[]){ { mem, 24, VDRV_R } }, 1);
	vdrv_add(&ini.d, 0, (struct vdrv_buf[]){ { mem, 8, VDRV_W } }, 1);
	vdrv_kick(&ini.d, 0);
	assert_true(vdrv_used(&ini.d, 0, &used) && used.len == 0);
	assert_true(vdrv_used(&ini.d, 0, &used) && used.len == 1);
}

/* SAM-5 8.5: ordered commands wait and block others, head of queue does not. */
static void test_task_attributes(void **state)
{
	static const uint8_t attrs[] = {
		VIRTIO_SCSI_S_SIMPLE,
		VIRTIO_SCSI_S_ORDERED,
		VIRTIO_SCSI_S_SIMPLE,
		VIRTIO_SCSI_S_HEAD,
	};
	struct cmd inq = { .cdb = { 0x12, 0, 0, 0, 36 }, .in_len = 36 };
	struct cmd aca = tur;
	struct sent s[4];

	if (!hang())
		skip();
	for (unsigned i = 0; i < 4; i++) {
		struct cmd c = i ? tur : read_8;

		c.attr = attrs[i];
		s[i] = ini_send(&c);
	}
	ini_iterate(3);
	ini_collect(s, 4);
	assert_false(s[0].done || s[1].done || s[2].done);
	assert_true(s[3].done);
	assert_int_equal(ini_do(&inq).status, 0); /* SCSI-REQ-12 */
	unhang(NULL);
	ini_wait(s, 3);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(s[i].status, 0);
	aca.attr = VIRTIO_SCSI_S_ACA;
	assert_int_equal(ini_do(&aca).code, SC_INVALID_MESSAGE);
}

/* hostile F22: failures are not reported as success. */
static void test_io_errors(void **state)
{
	static const struct {
		int read_errno, write_errno;
		uint32_t read_code, write_code;
	} rows[] = {
		{ EIO, EIO, SC_READ_ERROR, SC_WRITE_ERROR },
		{ ENOMEM, ENOSPC, SC_TARGET_FAILURE, SC_NO_SPACE },
	};
	struct cmd wr = { .cdb = { 0x2a, [8] = 1 }, .out_len = 512 };
	struct cmd flush = { .cdb = { 0x35 } };

	if (!refuse_io_uring())
		skip();
	ready(DISK ",lun0.werror=report");
	FAULT_SET(no_cache, true);
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct sent s;

		FAULT_SET(read_errno, rows[i].read_errno);
		FAULT_SET(write_errno, rows[i].write_errno);
		s = ini_do(&read_8);
		assert_int_equal(s.response, 0);
		assert_int_equal(s.code, rows[i].read_code);
		assert_int_equal(s.residual, 4096);
		assert_int_equal(ini_do(&wr).code, rows[i].write_code);
	}
	FAULT_SET(write_errno, 0);
	FAULT_SET(sync_errno, EIO);
	assert_int_equal(ini_do(&flush).code, SC_WRITE_ERROR);
	wr.cdb[1] = 8; /* FUA */
	assert_int_equal(ini_do(&wr).code, SC_WRITE_ERROR);
}

/*
 * A ring that is emptied in one iteration, and not refilled at once: the driver
 * must kick for the next command.
 */
static void test_kick_after_full_ring(void **state)
{
	enum { SIZE = 4, QUEUE = 2 };
	struct vdrv_buf bufs[2];
	uint64_t hdr, resp;

	ini_start("scsi,lun0=%d/disk,queue-size=4");
	hdr = vdrv_alloc(&ini.d, sizeof(struct virtio_scsi_cmd_req), 8);
	resp = vdrv_alloc(&ini.d, sizeof(struct virtio_scsi_cmd_resp), 8);
	memset(vdrv_ptr(&ini.d, hdr, sizeof(struct virtio_scsi_cmd_req)), 0,
	       sizeof(struct virtio_scsi_cmd_req));
	memcpy(vdrv_ptr(&ini.d, hdr, 8), lun0, 8);
	bufs[0] = (struct vdrv_buf){ hdr, sizeof(struct virtio_scsi_cmd_req),
				     VDRV_R };
	bufs[1] = (struct vdrv_buf){ resp, sizeof(struct virtio_scsi_cmd_resp),
				     VDRV_W };
	for (unsigned i = 0; i < SIZE; i++)
		vdrv_add_indirect(&ini.d, QUEUE, bufs, 2);
	vdrv_kick_wanted(&ini.d, QUEUE);
	vdrv_kick(&ini.d, QUEUE);
	ini_iterate(5);
	for (unsigned i = 0; i < SIZE; i++)
		assert_true(vdrv_used(&ini.d, QUEUE, NULL));
	vdrv_add_indirect(&ini.d, QUEUE, bufs, 2);
	assert_true(vdrv_kick_if_wanted(&ini.d, QUEUE));
	ini_iterate(5);
	assert_true(vdrv_used(&ini.d, QUEUE, NULL));
}

/*
 * --- Growth ---
 */

#define FULL_QUEUES 16
#define FULL_SIZE   1024
#define FULL_PIECES 16 /* of a block's buffer */

/* READ of a block, its buffer in pieces. All of them use the same memory. */
static void add_pieces(unsigned q, uint64_t req, uint64_t resp)
{
	struct vdrv_buf bufs[2 + FULL_PIECES] = { { req, 51, VDRV_R },
						  { resp, 108, VDRV_W } };

	for (unsigned i = 0; i < FULL_PIECES; i++)
		bufs[2 + i] =
			(struct vdrv_buf){ resp + 128 + i * 32, 32, VDRV_W };
	vdrv_add_indirect(&ini.d, q, bufs, ARRAY_LEN(bufs));
}

static void fill_queues(uint64_t req, uint64_t resp)
{
	for (unsigned q = 2; q < 2 + FULL_QUEUES; q++) {
		for (unsigned i = 0; i < FULL_SIZE; i++)
			add_pieces(q, req, resp);
	}
}

static unsigned collect_all(unsigned nr[VDRV_MAX_Q])
{
	unsigned total = 0;

	for (unsigned q = 2; q < 2 + FULL_QUEUES; q++) {
		while (vdrv_used(&ini.d, q, NULL))
			nr[q]++;
		total += nr[q];
	}
	return total;
}

/*
 * A guest that fills all its queues makes us grow by at most 4 MiB. Commands
 * that must wait still count as sent: ABORT TASK SET does not overtake them.
 */
static void test_growth(void **state)
{
	static const uint8_t read_1[10] = { 0x28, [8] = 1 };
	unsigned nr[VDRV_MAX_Q] = { 0 }, total;
	uint64_t req, resp, tmf;
	struct vdrv_used used;
	size_t before;
	uint64_t end;

	SKIP_UNDER_QEMU("its own memory grows as well");
	if (!refuse_io_uring())
		skip();
	ini_create(VDRV_MODERN, "scsi,lun0=%d/disk,queues=16,queue-size=1024");
	memset(ini.d.mem, 1, VDRV_MEM_BYTES);
	before = process_resident();
	assert_true(vdrv_start(&ini.d, ~0ull, 2 + FULL_QUEUES));
	ini_do_ready(&tur);
	FAULT_SET(no_cache, true);
	FAULT_SET(hang, true);
	req = vdrv_alloc(&ini.d, 64, 8);
	resp = vdrv_alloc(&ini.d, 128 + FULL_PIECES * 32, 8);
	memset(vdrv_ptr(&ini.d, req, 64), 0, 64);
	memcpy(vdrv_ptr(&ini.d, req, 8), lun0, 8);
	memcpy(vdrv_ptr(&ini.d, req + 19, 10), read_1, sizeof(read_1));
	fill_queues(req, resp);
	tmf = vdrv_alloc(&ini.d, 32, 8);
	memset(vdrv_ptr(&ini.d, tmf, 32), 0, 32);
	*(le32 *)vdrv_ptr(&ini.d, tmf + 4, 4) =
		cpu_to_le32(VIRTIO_SCSI_T_TMF_ABORT_TASK_SET);
	memcpy(vdrv_ptr(&ini.d, tmf + 8, 8), lun0, 8);
	vdrv_add(&ini.d, 0,
		 (struct vdrv_buf[]){ { tmf, 24, VDRV_R },
				      { tmf + 24, 1, VDRV_W } },
		 2);

	for (unsigned q = 2; q < 2 + FULL_QUEUES; q++)
		vdrv_kick(&ini.d, q);
	vdrv_kick(&ini.d, 0);
	ini_iterate(20);
	print_message("grown by %zu KiB\n",
		      (process_resident() - before) >> 10);
	assert_true(process_resident() - before <
		    (4u << 20) + (256u << 10) + THREADS_BYTES);
	assert_false(vdrv_used(&ini.d, 0, &used));

	FAULT_SET(hang, false);
	end = vio_now_ns() + 60000000000ull;
	do {
		ini_iterate(1);
		total = collect_all(nr);
		if (vdrv_used(&ini.d, 0, &used)) {
			total = collect_all(nr);
			assert_int_equal(total, FULL_QUEUES * FULL_SIZE);
			return;
		}
	} while (vio_now_ns() < end);
	fail_msg("%u of all have ended", total);
}

/*
 * --- Events, hot-plug, resize ---
 */

static uint64_t add_event_buffer(uint32_t len)
{
	uint64_t mem = vdrv_alloc(&ini.d, 16, 8);

	memset(vdrv_ptr(&ini.d, mem, 16), 0xee, 16);
	vdrv_add(&ini.d, 1, (struct vdrv_buf[]){ { mem, len, VDRV_W } }, 1);
	vdrv_kick(&ini.d, 1);
	return mem;
}

static void expect_event(uint64_t mem, uint32_t event, const uint8_t lun[8],
			 uint32_t reason)
{
	const uint8_t *p = vdrv_ptr(&ini.d, mem, 16);
	struct vdrv_used used;
	uint32_t v;

	assert_true(vdrv_used(&ini.d, 1, &used));
	assert_int_equal(used.len, 16); /* SCSI-EVT-05 */
	memcpy(&v, p, 4);
	assert_int_equal(le32toh(v), event);
	if (lun)
		assert_memory_equal(p + 4, lun, 8);
	memcpy(&v, p + 12, 4);
	assert_int_equal(le32toh(v), reason);
}

static int ctl(const char *a, const char *b, const char *c, struct err *err)
{
	char text[3][32];
	char *argv[3] = { text[0], text[1], text[2] };
	struct json_object *reply = json_object_new_object();
	struct opened_files none = { .nr = 0 };
	int ret;

	snprintf(text[0], sizeof(text[0]), "%s", a);
	snprintf(text[1], sizeof(text[1]), "%s", b ? b : "");
	snprintf(text[2], sizeof(text[2]), "%s", c ? c : "");
	ret = vdev_ctl(ini.dev, c ? 3 : b ? 2 : 1, argv, &none, reply, err);
	while (!strcmp(a, "resize") &&
	       json_object_object_get(reply, "pending")) {
		ini_iterate_once(100);
		json_object_object_del(reply, "pending");
		ret = vdev_ctl(ini.dev, c ? 3 : 2, argv, &none, reply, err);
	}
	json_object_put(reply);
	return ret;
}

static void test_hotplug(void **state)
{
	static const uint8_t lun5[8] = { 1, 0, 0, 5 }; /* as Linux expects it */
	struct cmd tur5 = to(lun5, &tur);
	struct cmd luns = { .cdb = { 0xa0, [9] = 64 }, .in_len = 64 };
	struct vdrv_used used;
	struct err err;
	uint64_t mem;

	ready(TARGETS);
	ini_do_ready(&tur5);
	mem = add_event_buffer(16);
	assert_int_equal(ctl("lun", "remove", "5", &err), 0);
	expect_event(mem, VIRTIO_SCSI_T_TRANSPORT_RESET, lun5,
		     VIRTIO_SCSI_EVT_RESET_REMOVED);
	assert_int_equal(ini_do(&tur5).code, SC_NO_LUN);
	assert_int_equal(ini_do(&tur).code, SC_UA_LUNS_CHANGED);
	assert_int_equal(ini_do(&luns).in[3], 8);
	assert_int_equal(ctl("lun", "remove", "lun5", &err), -EALREADY);

	/* SCSI-EVT-01: no buffer; the next event, or buffer, says so. */
	assert_int_equal(ctl("lun", "add", "lun5", &err), 0);
	assert_false(vdrv_used(&ini.d, 1, &used));
	mem = add_event_buffer(16);
	expect_event(mem, VIRTIO_SCSI_T_EVENTS_MISSED, NULL, 0);
	assert_int_equal(ini_do(&luns).in[3], 16); /* and clears 3F/0E */
	assert_int_equal(ini_do(&tur).code, 0);
	assert_int_equal(ini_do(&tur5).code, SC_UA_POWER_ON);

	/* SCSI-EVT-06: a buffer too short for an event. */
	mem = add_event_buffer(8);
	assert_int_equal(ctl("lun", "remove", "lun5", &err), 0);
	assert_true(vdrv_used(&ini.d, 1, &used));
	assert_int_equal(used.len, 8);
	mem = add_event_buffer(16);
	expect_event(mem, VIRTIO_SCSI_T_EVENTS_MISSED, NULL, 0);

	/* The last of a target: no target any more. */
	assert_int_equal(ctl("lun", "remove", "lun0", &err), 0);
	assert_int_equal(ini_do(&tur).response, VIRTIO_SCSI_S_BAD_TARGET);
	assert_int_equal(ctl("lun", "remove", "t9.lun0", &err), -ENOENT);
	assert_int_equal(ctl("lun", "eject", "lun0", &err), -EINVAL);
	assert_int_equal(ctl("nonsense", NULL, NULL, &err), -EINVAL);
}

/* `viodev ctl lun add` of this, with the files that its client opens. */
static int add_image(const char *options, struct err *err)
{
	char lun[] = "lun", add[] = "add", text[256];
	char *argv[] = { lun, add, text };
	struct json_object *reply = json_object_new_object();
	struct opened_files files;
	int ret;

	ini_text(options, text, sizeof(text));
	ret = vdev_ctl_open(3, argv, &files, err);
	if (ret == 0) {
		ret = vdev_ctl(ini.dev, 3, argv, &files, reply, err);
		opened_files_close(&files);
	}
	json_object_put(reply);
	return ret;
}

static bool is_locked(const char *name)
{
	struct disk_params params = { .ro = false };
	struct err err;
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", ini.dir, name);
	params.path = path;
	fd = disk_open(&params, &err);
	if (fd >= 0)
		close(fd);
	return fd < 0;
}

static void test_new_units(void **state)
{
	static const uint8_t lun3[8] = { 1, 0, 0, 3 }, t1[8] = LUN_ADDR(1, 7);
	struct cmd read3 = to(lun3, &read_8), read_t1 = to(t1, &read_8);
	struct cmd write_t1 = { .cdb = { 0x2a, [8] = 1 }, .out_len = 512 };
	struct cmd luns = { .cdb = { 0xa0, [9] = 64 }, .in_len = 64 };
	struct sent s;
	struct err err;
	uint64_t mem;

	memcpy(write_t1.addr, t1, 8);
	ready("scsi,lun0=%d/disk,lun5=%d/cd,queue-size=64");
	mem = add_event_buffer(16);
	FAULT_SET(nr_fallocate, 0);
	assert_int_equal(add_image("lun3=%d/b", &err), 0);
	/* It would block all units if the file system is frozen. */
	assert_int_equal(FAULT_GET(nr_fallocate), 0);
	expect_event(mem, VIRTIO_SCSI_T_TRANSPORT_RESET, lun3,
		     VIRTIO_SCSI_EVT_RESET_RESCAN);
	s = ini_do_ready(&read3);
	assert_int_equal(s.status, 0);
	assert_int_equal(s.in[512], 'b');
	assert_true(is_locked("b"));
	s = ini_do(&luns); /* in order: 0, 3, 5 */
	assert_int_equal(s.in[3], 24);
	assert_int_equal(s.in[17], 3);

	/* A new target, with its own options. */
	mem = add_event_buffer(16);
	assert_int_equal(add_image("t1.lun7=%d/c,t1.lun7.ro=on,"
				   "t1.lun7.cache=writethrough",
				   &err),
			 0);
	assert_int_equal(ini_do_ready(&read_t1).status, 0);
	assert_int_equal(ini_do(&write_t1).code, SC_WRITE_PROTECTED);

	/* It is removed with its image, even while a command runs. */
	s = ini_send(&read3);
	assert_int_equal(ctl("lun", "remove", "lun3", &err), 0);
	ini_wait(&s, 1);
	assert_int_equal(ini_do(&read3).code, SC_NO_LUN);
	assert_false(is_locked("b"));
	assert_int_equal(ctl("lun", "add", "lun3", &err), -ENOENT);
	assert_int_equal(add_image("lun3=%d/b,lun3.serial=x", &err), 0);
	assert_int_equal(ini_do_ready(&read3).status, 0);
}

#define DRIVE "scsi,lun0=%d/disk,lun2=%d/cd,lun2.type=cdrom,queue-size=64"

/* A command of `viodev ctl` with what its client opens. */
static int ctl_words(int argc, char *const argv[], struct err *err)
{
	struct json_object *reply = json_object_new_object();
	struct opened_files files;
	int ret = vdev_ctl_open(argc, argv, &files, err);

	if (ret == 0)
		ret = vdev_ctl(ini.dev, argc, argv, &files, reply, err);
	opened_files_close(&files);
	json_object_put(reply);
	return ret;
}

static int insert(const char *name, bool force)
{
	char path[128], flag[] = "--force", word[] = "medium", lun[] = "lun2";
	struct err err = { "" };

	ini_text(name, path, sizeof(path));
	return ctl_words(3 + force, (char *[]){ word, lun, path, flag }, &err);
}

static int eject(bool force)
{
	char word[] = "eject", lun[] = "lun2", flag[] = "--force";
	struct err err = { "" };

	return ctl_words(2 + force, (char *[]){ word, lun, flag }, &err);
}

static const uint8_t drive[8] = { 1, 0, 0, 2 };

static uint32_t drive_code(uint8_t op, uint8_t byte4)
{
	struct cmd c = to(drive, &(struct cmd){ .cdb = { op, [4] = byte4 } });

	return ini_do(&c).code;
}

/* The event, and the state: 1 tray open, 2 medium present. */
static void expect_media(uint8_t event, uint8_t state)
{
	struct cmd c = to(
		drive, &(struct cmd){ .cdb = { 0x4a, 1, [4] = 0x10, [8] = 8 },
				      .in_len = 8 });
	struct sent s = ini_do(&c);

	assert_int_equal(s.status, 0);
	assert_int_equal(s.in[4], event);
	assert_int_equal(s.in[5], state);
}

static uint8_t first_byte(void)
{
	struct cmd c = to(drive, &(struct cmd){ .cdb = { 0x28, [8] = 1 },
						.in_len = 2048 });
	struct sent s = ini_do_ready(&c);

	assert_int_equal(s.status, 0);
	return s.in[4 * 512 - 1];
}

static uint32_t last_block(void)
{
	struct cmd c = to(drive, &(struct cmd){ .cdb = { 0x25 }, .in_len = 8 });

	return read_be32(ini_do_ready(&c).in);
}

static void test_medium(void **state)
{
	ini_image("other", 2048 * 100 + 1);
	ready(DRIVE);
	assert_int_equal(first_byte(), 'd');
	assert_int_equal(last_block(), 299);
	expect_media(0, 2);

	assert_int_equal(eject(false), 0);
	assert_false(is_locked("cd"));
	expect_media(3, 1);
	expect_media(0, 1);
	assert_int_equal(drive_code(0, 0), SC_TRAY_OPEN);
	assert_int_equal(drive_code(0x1b, 3), 0); /* nothing is in it */
	assert_int_equal(drive_code(0, 0), SC_NO_MEDIUM);
	expect_media(0, 0);
	assert_int_equal(eject(false), 0);
	expect_media(0, 1);

	assert_int_equal(insert("%d/other", false), 0);
	assert_true(is_locked("other"));
	expect_media(2, 2);
	assert_int_equal(drive_code(0, 0), SC_UA_MEDIUM);
	assert_int_equal(drive_code(0, 0), 0);
	expect_media(0, 2);
	assert_int_equal(last_block(), 100);

	/* In use: the guest is asked, or loses the medium. */
	assert_int_equal(drive_code(0x1e, 1), 0);
	assert_int_equal(insert("%d/cd", false), -EBUSY);
	expect_media(1, 2);
	assert_int_equal(eject(false), -EBUSY);
	expect_media(1, 2);
	assert_int_equal(drive_code(0, 0), 0);
	assert_int_equal(insert("%d/cd", true), 0);
	assert_int_equal(last_block(), 299);
	assert_int_equal(drive_code(0x1e, 1), 0);
	assert_int_equal(eject(true), 0);
	assert_int_equal(drive_code(0, 0), SC_TRAY_OPEN);

	/* The guest itself ejects: no lock remains. */
	assert_int_equal(insert("%d/other", false), 0);
	assert_int_equal(drive_code(0, 0), SC_UA_MEDIUM);
	assert_int_equal(drive_code(0x1b, 2), 0);
	assert_int_equal(insert("%d/cd", false), 0);
	assert_int_equal(first_byte(), 'd');

	/* An invalid disc is not inserted, and the current one stays. */
	assert_int_equal(insert("%d/none", false), -ENOENT);
	assert_int_equal(insert("%d", false), -EINVAL);
	assert_int_equal(first_byte(), 'd');
}

/* A drive without a disc at start is configured by type, and gets one later. */
static void test_empty_drive(void **state)
{
	struct cmd serial =
		to(drive, &(struct cmd){ .cdb = { 0x12, 1, 0x80, [4] = 64 },
					 .in_len = 64 });
	struct cmd second = to((uint8_t[8]){ 1, 1, 0, 5 },
			       &(struct cmd){ .cdb = { 0x00 } });
	struct sent s;
	struct err err;

	ready("scsi,lun0=%d/disk,lun2.type=cdrom,queue-size=64");
	assert_int_equal(drive_code(0, 0), SC_UA_POWER_ON);
	assert_int_equal(drive_code(0, 0), SC_NO_MEDIUM);
	expect_media(0, 0);
	s = ini_do(&serial);
	assert_int_equal(s.in[3], 16);
	assert_int_equal(insert("%d/cd", false), 0);
	assert_int_equal(drive_code(0, 0), SC_UA_MEDIUM);
	assert_int_equal(first_byte(), 'd');
	assert_int_equal(last_block(), 299);
	assert_int_equal(eject(false), 0);

	assert_int_equal(add_image("t1.lun5.type=cdrom", &err), 0);
	assert_int_equal(ini_do_ready(&second).code, SC_NO_MEDIUM);
	assert_int_equal(add_image("lun6.type=disk", &err), -EINVAL);
	assert_string_equal(err.text, "scsi: lun6.type: missing lun6=PATH");
}

/* Another image's format is the user's decision. */
static void test_medium_format(void **state)
{
	char word[] = "medium", lun[] = "lun2", path[128], raw[] = "format=raw";
	char *argv[] = { word, lun, path, raw };
	struct err err;
	int fd;

	ini_image("other", 4096);
	ini_text("%d/other", path, sizeof(path));
	fd = open(path, O_WRONLY);
	assert_int_equal(write(fd, "QFI\xfb", 4), 4);
	close(fd);
	ready(DRIVE);
	assert_int_equal(ctl_words(3, argv, &err), -EINVAL);
	assert_non_null(strstr(err.text, "or add format=raw"));
	assert_int_equal(ctl_words(4, argv, &err), 0);
	assert_int_equal(last_block(), 1);
}

/* Commands in flight end, and then the old disc is closed. */
static void test_medium_in_flight(void **state)
{
	struct cmd rd = to(drive, &(struct cmd){ .cdb = { 0x28, [8] = 8 },
						 .in_len = 16384 });
	struct sent s[2];

	ini_image("other", 2048 * 100);
	ready(DRIVE);
	assert_int_equal(first_byte(), 'd');
	disk_fault.no_cache = true;
	FAULT_SET(hang, true);
	s[0] = ini_send(&rd);
	ini_iterate(3);
	for (int i = 0; i < 30; i++)
		insert(i % 2 ? "%d/cd" : "%d/other", false);
	assert_int_equal(insert("%d/other", false), 0);
	ini_collect(s, 1);
	FAULT_SET(hang, false);
	disk_fault.no_cache = false;
	ini_wait(s, 1);
	assert_true(s[0].response == VIRTIO_SCSI_S_ABORTED || s[0].status == 0);
	assert_int_equal(last_block(), 99);
	assert_int_equal(first_byte(), 'd');
}

static void test_new_units_refused(void **state)
{
	static const struct {
		const char *options;
		int ret;
		const char *why;
	} rows[] = {
		{ "lun0=%d/b", -EEXIST, "scsi: lun0 has an image already" },
		{ "lun3=%d/none", -ENOENT, NULL },
		{ "lun3=/dev/null", -EINVAL, NULL },
		{ "lun3=%d/disk", -EBUSY, NULL }, /* lun0 has it */
		{ "lun3=%d/b,lun4=%d/c", -EINVAL,
		  "scsi: lun add: one at a time" },
		{ "lun3=%d/b,queues=2", -EINVAL, NULL },
		{ "lun3=%d/b,lun3.block-size=1000", -EINVAL, NULL },
		{ "lun3=/dev/sg0,lun3.type=passthrough", -EPERM, NULL },
		{ "lun3.ro=on,lun3=", -ENOENT, NULL },
		{ "=", -EINVAL, NULL },
	};
	char lun[] = "lun", add[] = "add", text[] = "lun3=/dev/null";
	char *argv[] = { lun, add, text };
	struct opened_files files = { 0 };
	struct err err;

	ready(DISK);
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		print_message("%s\n", rows[i].options);
		assert_int_equal(add_image(rows[i].options, &err), rows[i].ret);
		if (rows[i].why)
			assert_string_equal(err.text, rows[i].why);
	}
	assert_false(is_locked("b"));

	/* From a client that opens nothing, or something else. */
	assert_int_equal(vdev_ctl(ini.dev, 3, argv, &files, NULL, &err),
			 -EINVAL);
	opened_files_add(&files, "lun3", dup(STDIN_FILENO));
	assert_true(vdev_ctl(ini.dev, 3, argv, &files, NULL, &err) < 0);
	files.nr = 0;
	opened_files_add(&files, "lun3", open("/dev/null", O_RDWR));
	assert_int_equal(vdev_ctl(ini.dev, 3, argv, &files, NULL, &err),
			 -EINVAL);
	assert_int_equal(ini_do(&read_8).status, 0);
}

/* SCSI-EVT-02, SCSI-EVT-03: only negotiated events, never for CD-ROMs. */
static void test_events_negotiated(void **state)
{
	struct vdrv_used used;
	struct err err;

	ini_create(VDRV_MODERN, TARGETS);
	assert_true(vdrv_start(&ini.d, ~(BIT(HOTPLUG) | BIT(CHANGE)), 3));
	add_event_buffer(16);
	assert_int_equal(ctl("lun", "remove", "lun5", &err), 0);
	assert_int_equal(ctl("resize", "lun0", "3M", &err), 0);
	assert_false(vdrv_used(&ini.d, 1, &used));
	/* The unit attentions are still reported. */
	assert_int_equal(ini_do(&tur).code, SC_UA_POWER_ON);
	assert_int_equal(ini_do(&tur).code, SC_UA_LUNS_CHANGED);
	assert_int_equal(ini_do(&tur).code, SC_UA_CAPACITY);
	assert_int_equal(ini_do(&tur).code, 0);
}

/* STAT-05: before DRIVER_OK no driver is notified. */
static void test_events_before_driver_ok(void **state)
{
	static const uint8_t here[8] = { 1 };
	struct vdrv_used used;
	struct err err;
	uint64_t mem;

	ini_create(VDRV_MODERN, DISK);
	vdrv_probe(&ini.d);
	vdrv_reset(&ini.d);
	vdrv_greet(&ini.d);
	assert_true(vdrv_negotiate(&ini.d, VI_BIT(VIRTIO_F_VERSION_1) |
						   BIT(HOTPLUG) | BIT(CHANGE)));
	for (unsigned q = 0; q < 3; q++)
		assert_true(vdrv_queue_setup(&ini.d, q, 0));
	mem = add_event_buffer(16);
	assert_int_equal(ctl("resize", "3M", NULL, &err), 0);
	assert_int_equal(ctl("lun", "remove", "lun0", &err), 0);
	assert_int_equal(ctl("lun", "add", "lun0", &err), 0);
	ini_iterate(3);
	assert_false(vdrv_used(&ini.d, 1, &used));
	assert_int_equal(*(uint8_t *)vdrv_ptr(&ini.d, mem, 1), 0xee);
	vdrv_driver_ok(&ini.d);
	ini_iterate(3);
	assert_false(vdrv_used(&ini.d, 1, &used));
	assert_int_equal(ctl("resize", "4M", NULL, &err), 0);
	expect_event(mem, VIRTIO_SCSI_T_PARAM_CHANGE, here, 0x092a);
}

static void test_resize(void **state)
{
	static const uint8_t here[8] = { 1 }; /* as Linux expects it */
	struct cmd cap = { .cdb = { 0x25 }, .in_len = 8 };
	struct err err;
	struct sent s;
	uint64_t mem;

	ready(DISK);
	mem = add_event_buffer(16);
	assert_int_equal(ctl("resize", "4M", NULL, &err), 0);
	/* SCSI-EVT-03, SCSI-EVT-04 */
	expect_event(mem, VIRTIO_SCSI_T_PARAM_CHANGE, here, 0x092a);
	assert_int_equal(ini_do(&cap).code, SC_UA_CAPACITY);
	s = ini_do(&cap);
	assert_int_equal(read_be32(s.in), 8191);
	assert_int_equal(ctl("resize", "x", NULL, &err), -EINVAL);
	assert_int_equal(ctl("resize", "lun7", "4M", &err), -ENOENT);
	assert_int_equal(ctl("resize", "lun0", "1000", &err), -EINVAL);
	/* Smaller: the rest is lost. */
	assert_int_equal(ctl("resize", "lun0", "512", &err), -EEXIST);
	assert_non_null(strstr(err.text, "add --shrink"));
	ini_do_ready(&tur);
	assert_int_equal(ini_do(&read_8).status, 0);
	assert_int_equal(ctl("resize", "--shrink", "512", &err), 0);
	ini_do_ready(&tur);
	assert_int_equal(ini_do(&read_8).code, SC_LBA_RANGE);
}

/* iops=, bps=: commands wait for their turn; a stop or a reset does not. */
static void test_limits(void **state)
{
	struct sent s[20];
	uint64_t begin;

	ready("scsi,lun0=%d/disk,lun0.iops=40,lun5=%d/b,queue-size=64");
	ini_do(&read_8);
	begin = vio_now_ns();
	for (unsigned i = 0; i < ARRAY_LEN(s); i++)
		s[i] = ini_send(&read_8);
	ini_wait(s, ARRAY_LEN(s));
	/* A tenth of a second's worth may pass at once. */
	assert_true(vio_now_ns() - begin > 250000000ull);
	for (unsigned i = 0; i < ARRAY_LEN(s); i++)
		assert_int_equal(s[i].status, 0);
	ini_close();

	ready("scsi,lun0=%d/disk,lun0.bps=64K,queue-size=64");
	begin = vio_now_ns();
	for (unsigned i = 0; i < 10; i++)
		s[i] = ini_send(&read_8);
	ini_wait(s, 10);
	assert_true(vio_now_ns() - begin > 300000000ull);
	ini_close();

	ready("scsi,lun0=%d/disk,lun0.iops=1,queue-size=64");
	for (unsigned i = 0; i < ARRAY_LEN(s); i++)
		ini_send(&read_8);
	begin = vio_now_ns();
	vdrv_reset(&ini.d);
	assert_true(vio_now_ns() - begin < 10000000000ull);
	ini_close();

	ready("scsi,lun0=%d/disk,lun0.iops=1,queue-size=64");
	for (unsigned i = 0; i < ARRAY_LEN(s); i++)
		ini_send(&read_8);
	ini_iterate(2);
	begin = vio_now_ns();
	pci_quiesce(&ini.d.pi);
	while (!pci_is_idle(&ini.d.pi))
		ini_iterate_once(1);
	assert_true(vio_now_ns() - begin < 10000000000ull);
}

/* block-size=512 where the host's blocks have 4096 bytes, as for block. */
static void test_small_blocks(void **state)
{
	struct cmd wr = { .cdb = { 0x2a, 0, 0, 0, 0, 3, 0, 0, 1 },
			  .out_len = 512,
			  .out = memset((uint8_t[512]){ 0 }, 'W', 512) };
	struct cmd cap = { .cdb = { 0x25 }, .in_len = 8 };
	struct sent s;

	disk_fault.dio_align = 4096;
	ready("scsi,lun0=%d/disk,lun0.cache=direct,lun0.block-size=512");
	s = ini_do(&cap);
	assert_int_equal(read_be32(s.in), IMAGE_BLOCKS - 1);
	assert_int_equal(read_be32(s.in + 4), 512);
	assert_int_equal(ini_do(&wr).status, 0);
	s = ini_do(&read_8);
	assert_int_equal(s.in[2 * 512], 'c');
	assert_int_equal(s.in[3 * 512], 'W');
	assert_int_equal(s.in[4 * 512 - 1], 'W');
	assert_int_equal(s.in[4 * 512], 'e');
}

/* A reset device has no memory of events; UA_RESET tells the driver. */
static void test_status(void **state)
{
	struct json_object *st = json_object_new_object(), *luns, *v;

	ready(TARGETS);
	ini_do(&read_8);
	vdev_status(ini.dev, st);
	assert_true(json_object_object_get_ex(st, "luns", &luns));
	assert_int_equal(json_object_array_length(luns), 4);
	luns = json_object_array_get_idx(luns, 0);
	assert_true(json_object_object_get_ex(luns, "reads", &v));
	assert_int_equal(json_object_get_int(v), 1);
	assert_true(json_object_object_get_ex(luns, "read-bytes", &v));
	assert_int_equal(json_object_get_int(v), 4096);
	json_object_put(st);
}

static void test_options(void **state)
{
	static const struct {
		const char *text, *why;
	} rows[] = {
		{ "scsi", "scsi: missing lun0= (a disk image)" },
		{ "scsi,lun0.ro=on", "scsi: lun0.ro: missing lun0=PATH" },
		{ "scsi,lunx=a", "scsi: lunx: must be lunN or tM.lunN, with N "
				 "up to 16383 and M up to 255" },
		{ "scsi,lun01=a", "scsi: lun01: must be lunN or tM.lunN, with "
				  "N up to 16383 and M up to 255" },
		{ "scsi,t256.lun0=a", "scsi: t256.lun0: must be lunN or "
				      "tM.lunN, with N up to 16383 and M up "
				      "to 255" },
		{ "scsi,lun0=/etc/hostname,t0.lun0=/etc/hostname",
		  "scsi: t0.lun0: given twice, also as lun0" },
		{ "scsi,lun0=/nonexistent", "scsi: lun0: path=/nonexistent: No "
					    "such file or directory" },
		{ "scsi,lun0=/dev/null,lun0.type=passthrough",
		  "scsi: lun0: /dev/null: not a SCSI generic device" },
		{ "scsi,lun0=/dev/sg0,lun0.type=passthrough,lun0.serial=1",
		  "scsi: lun0.serial: has no effect with type=passthrough" },
		{ "scsi,lun0=/dev/sg0,lun0.type=passthrough,lun0.cache=direct",
		  "scsi: lun0.cache: has no effect with type=passthrough" },
		{ "scsi,lun0=x,lun0.type=cdrom,lun0.discard=on",
		  "scsi: lun0.discard: has no effect with type=cdrom" },
		{ "scsi,t2.lun0=x,t2.lun0.type=cdrom,t2.lun0.ro=off",
		  "scsi: t2.lun0.ro=off: a CD-ROM cannot be written" },
		{ "scsi,lun0=/etc/hostname,lun0.vendor=NineChars",
		  "scsi: lun0.vendor=NineChars: must be at most 8 printable "
		  "characters" },
		{ "scsi,lun0=x,queue-size=2",
		  "scsi: queue-size=2: must be from 4 to 1024" },
	};

	assert_int_equal(vio_loop_create(&ini.loop), 0);
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct vdev *dev;
		char why[256];

		print_message("%s\n", rows[i].text);
		vdrv_init(&ini.d, VDRV_MODERN);
		assert_true(vdev_new(rows[i].text, &ini.d.pi, ini.loop, &dev,
				     why, sizeof(why)) < 0);
		assert_string_equal(why, rows[i].why);
		vdrv_fini(&ini.d);
	}
	vio_loop_destroy(ini.loop);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_config),
		TEST(test_legacy),
		TEST(test_addresses),
		TEST(test_shapes),
		TEST(test_framing),
		TEST(test_long_chains),
		TEST(test_too_many_heads),
		TEST(test_many),
		TEST(test_select_then_write_same),
		TEST(test_tmf_answers),
		TEST(test_hotplug),
		TEST(test_new_units),
		TEST(test_medium),
		TEST(test_empty_drive),
		TEST(test_medium_format),
		TEST(test_medium_in_flight),
		TEST(test_new_units_refused),
		TEST(test_events_negotiated),
		TEST(test_events_before_driver_ok),
		TEST(test_resize),
		TEST(test_limits),
		TEST(test_small_blocks),
		TEST(test_status),
		TEST(test_options),
		/* From here on without io_uring, whose calls cannot hang. */
		TEST(test_abort),
		TEST(test_task_attributes),
		TEST(test_io_errors),
		TEST(test_kick_after_full_ring),
		TEST(test_growth),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* A LUN that passes a device through, with a simulated one behind SG_IO. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <scsi/sg.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include "scsi_initiator.h"

#include <cmocka.h>

static struct {
	struct sg_io_hdr last;
	uint8_t cdb[16];
	uint8_t out[512];
	int ret;
	uint8_t status;
	unsigned short host_status;
	int resid;
	bool hang;
	int nr_begun;
} sg;

#define MAX_BEGUN 16 /* commands at a time, like the sg driver */

static pthread_mutex_t sg_lock = PTHREAD_MUTEX_INITIALIZER;

static int fake_sg_io(int fd, struct sg_io_hdr *hdr)
{
	const struct iovec *iov = hdr->dxferp;

	__atomic_fetch_add(&sg.nr_begun, 1, __ATOMIC_SEQ_CST);
	while (__atomic_load_n(&sg.hang, __ATOMIC_SEQ_CST))
		usleep(1000);
	pthread_mutex_lock(&sg_lock);
	sg.last = *hdr;
	memcpy(sg.cdb, hdr->cmdp, hdr->cmd_len);
	if (hdr->dxfer_direction == SG_DXFER_FROM_DEV)
		memset(iov[0].iov_base, 'P', iov[0].iov_len);
	else if (hdr->dxfer_direction == SG_DXFER_TO_DEV)
		memcpy(sg.out, iov[0].iov_base, iov[0].iov_len);
	hdr->status = sg.status;
	hdr->host_status = sg.host_status;
	hdr->resid = sg.resid;
	if (sg.status == STATUS_CHECK_CONDITION) {
		memcpy(hdr->sbp, "\x70\0\x05\0\0\0\0\x0a\0\0\0\0\x24\0", 14);
		hdr->sb_len_wr = 18;
	}
	pthread_mutex_unlock(&sg_lock);
	return sg.ret;
}

static int setup_with(const char *options)
{
	const struct vdev_type *type;
	struct opened_files files = { 0 };
	struct vdev_env env;
	struct opts *opts;
	struct err err;

	memset(&sg, 0, sizeof(sg));
	pt_sg_io = fake_sg_io;
	ini_init(VDRV_MODERN);
	assert_int_equal(vdev_parse(options, &type, &opts, &err), 0);
	opened_files_add(&files, "lun0", open("/dev/null", O_RDWR));
	env = (struct vdev_env){ &ini.d.pi, ini.loop, opts, &files };
	assert_int_equal(vdev_create(type, &env, &ini.dev, &err), 0);
	ini.dev->own_opts = opts;
	assert_true(vdrv_start(&ini.d, ~0ull, 4));
	return 0;
}

#define OPTIONS "scsi,lun0=/dev/sg0,lun0.type=passthrough,queues=2"

static int setup(void **state)
{
	return setup_with(OPTIONS);
}

static int setup_read_only(void **state)
{
	return setup_with(OPTIONS ",lun0.ro=on");
}

static int teardown(void **state)
{
	__atomic_store_n(&sg.hang, false, __ATOMIC_SEQ_CST);
	ini_close();
	return 0;
}

static void test_commands(void **state)
{
	struct cmd rd = { .cdb = { 0x28, 0, 1, 2, 3, 4, 0, 0, 1 },
			  .in_len = 512 };
	struct cmd wr = { .cdb = { 0x8a, [13] = 1 },
			  .out_len = 512,
			  .out = memset((uint8_t[512]){ 0 }, 'W', 512) };
	struct cmd luns = { .cdb = { 0xa0, [9] = 16 }, .in_len = 16 };
	struct sent s = ini_do(&rd);

	/* Unchanged, with neither a unit attention nor any checks. */
	assert_int_equal(s.response, 0);
	assert_int_equal(s.status, 0);
	assert_int_equal(s.used, 108 + 512);
	assert_int_equal(s.in[511], 'P');
	assert_int_equal(sg.last.cmd_len, 10);
	assert_memory_equal(sg.cdb, rd.cdb, 10);
	assert_int_equal(ini_do(&wr).status, 0);
	assert_int_equal(sg.last.cmd_len, 16);
	assert_int_equal(sg.out[511], 'W');
	sg.resid = 500;
	s = ini_do(&rd);
	assert_int_equal(s.residual, 500);
	assert_int_equal(s.used, 108 + 12);
	sg.resid = 100000; /* an invalid value is capped */
	assert_int_equal(ini_do(&rd).residual, 512);
	sg.resid = -5;
	assert_int_equal(ini_do(&rd).residual, 0);
	sg.resid = 0;
	/* REPORT LUNS is about our LUNs, not the device's. */
	sg.ret = -EIO;
	s = ini_do(&luns);
	assert_int_equal(s.status, 0);
	assert_int_equal(s.in[3], 8);
	assert_int_equal(ini_do(&(struct cmd){ .cdb = { 0xc1 } }).code,
			 SC_INVALID_OPCODE);
}

/* SCSI-REQ-06, hostile F22 */
static void test_failures(void **state)
{
	static const struct {
		int ret;
		unsigned short host_status;
		uint8_t response;
	} rows[] = {
		{ -EBUSY, 0, VIRTIO_SCSI_S_BUSY },
		{ -EIO, 0, VIRTIO_SCSI_S_FAILURE },
		{ -ENODEV, 0, VIRTIO_SCSI_S_BAD_TARGET }, /* unplugged */
		{ 0, 0x01, VIRTIO_SCSI_S_BAD_TARGET },
		{ 0, 0x02, VIRTIO_SCSI_S_BUSY },
		{ 0, 0x05, VIRTIO_SCSI_S_ABORTED },
		{ 0, 0x07, VIRTIO_SCSI_S_FAILURE },
		{ 0, 0x08, VIRTIO_SCSI_S_RESET },
		{ 0, 0x0e, VIRTIO_SCSI_S_TRANSPORT_FAILURE },
		{ 0, 0x10, VIRTIO_SCSI_S_TARGET_FAILURE },
		{ 0, 0x11, VIRTIO_SCSI_S_NEXUS_FAILURE },
	};
	struct cmd rd = { .cdb = { 0x28, [8] = 1 }, .in_len = 512 };
	struct sent s;

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		sg.ret = rows[i].ret;
		sg.host_status = rows[i].host_status;
		s = ini_do(&rd);
		assert_int_equal(s.response, rows[i].response);
		assert_int_equal(s.residual, 512);
	}
	sg.ret = 0;
	sg.host_status = 0;
	sg.status = STATUS_CHECK_CONDITION;
	s = ini_do(&rd);
	assert_int_equal(s.code, SC_INVALID_CDB_FIELD);
	assert_int_equal(s.sense_len, 18);

	/* Commands that the kernel reserves for privileged processes. */
	sg.ret = -EPERM;
	s = ini_do(&rd);
	assert_int_equal(s.response, VIRTIO_SCSI_S_OK);
	assert_int_equal(s.code, SC_INVALID_OPCODE);
}

static void unhang(void *arg)
{
	__atomic_store_n(&sg.hang, false, __ATOMIC_SEQ_CST);
}

/* An abort waits for commands that the device has begun. */
static void test_abort(void **state)
{
	static const uint8_t lun0[8] = LUN_ADDR(0, 0);
	struct vio_source *timer;
	struct sent s[6];

	sg.hang = true;
	for (unsigned i = 0; i < ARRAY_LEN(s); i++) {
		struct cmd c = { .cdb = { 0x28, [8] = 1 },
				 .in_len = 512,
				 .id = i };

		s[i] = ini_send(&c);
	}
	vio_timer_add(ini.loop, unhang, NULL, &timer);
	vio_timer_set(timer, 30000000);
	assert_int_equal(ini_tmf(VIRTIO_SCSI_T_TMF_ABORT_TASK_SET, lun0, 0), 0);
	ini_collect(s, ARRAY_LEN(s));
	for (unsigned i = 0; i < ARRAY_LEN(s); i++) {
		assert_true(s[i].done);
		assert_int_equal(s[i].response, VIRTIO_SCSI_S_ABORTED);
	}
	vio_source_remove(timer);
}

static void wait_begun(int nr)
{
	while (__atomic_load_n(&sg.nr_begun, __ATOMIC_SEQ_CST) < nr)
		usleep(1000);
}

/*
 * A reset while the device does not answer: it waits for nothing, commands not
 * begun by a thread never begin, and new ones wait for the others.
 */
static void test_reset(void **state)
{
	struct cmd rd = { .cdb = { 0x28, [8] = 1 }, .in_len = 512 };
	struct sent s[MAX_BEGUN + 2], new;

	sg.hang = true;
	for (unsigned i = 0; i < ARRAY_LEN(s); i++)
		s[i] = ini_send(&rd);
	wait_begun(MAX_BEGUN);
	ini_restart_now();
	for (unsigned i = 0; i < ARRAY_LEN(s); i++)
		memset(vdrv_ptr(&ini.d, s[i].resp, 108), 0x5a, 108);
	new = ini_send(&rd);
	ini_iterate(10);
	assert_int_equal(sg.nr_begun, MAX_BEGUN);
	unhang(NULL);
	ini_wait(&new, 1);
	assert_int_equal(new.in[0], 'P');
	assert_int_equal(sg.nr_begun, MAX_BEGUN + 1);
	for (unsigned i = 0; i < ARRAY_LEN(s); i++)
		assert_int_equal(
			*(uint8_t *)vdrv_ptr(&ini.d, s[i].resp + 10, 1), 0x5a);
}

/* A thread and the queue are free, but the command must wait its turn. */
static void test_reset_order(void **state)
{
	struct cmd rd = { .cdb = { 0x28, [8] = 1 }, .in_len = 512 };
	struct cmd other = { .cdb = { 0x28, [8] = 1 },
			     .in_len = 512,
			     .queue = 1 };
	struct sent new;

	sg.hang = true;
	ini_send(&rd);
	ini_send(&rd);
	wait_begun(2);
	ini_restart_now();
	new = ini_send(&other);
	ini_iterate(10);
	assert_int_equal(sg.nr_begun, 2);
	unhang(NULL);
	ini_wait(&new, 1);
	assert_int_equal(new.in[0], 'P');
}

/* ro=on: the device never sees a command that may write. */
static void test_read_only(void **state)
{
	static const struct {
		uint8_t opcode;
		uint32_t in_len, out_len;
		bool passes;
	} rows[] = {
		{ 0x00, 0, 0, true },    { 0x12, 36, 0, true },
		{ 0x28, 512, 0, true },  { 0x88, 512, 0, true },
		{ 0x9e, 32, 0, true },   { 0xa3, 64, 0, true },
		{ 0x2f, 0, 512, true },  { 0x35, 0, 0, true },
		{ 0x2a, 0, 512, false }, { 0x0a, 0, 512, false },
		{ 0x8a, 0, 512, false }, { 0xaa, 0, 512, false },
		{ 0x2e, 0, 512, false }, { 0x41, 0, 512, false },
		{ 0x93, 0, 512, false }, { 0x93, 0, 0, false },
		{ 0x42, 0, 24, false },  { 0x42, 24, 0, false },
		{ 0x89, 0, 512, false }, { 0x04, 0, 0, false },
		{ 0x15, 0, 4, false },   { 0x55, 0, 8, false },
		{ 0x3b, 0, 512, false }, { 0x5f, 0, 24, false },
		{ 0x1d, 0, 8, false },   { 0x9f, 0, 512, false },
		{ 0xa3, 0, 16, false },  { 0xa4, 0, 16, false },
		{ 0x48, 0, 512, false }, { 0x94, 0, 0, false },
		{ 0x28, 0, 512, false },
	};
	struct cmd sense6 = { .cdb = { 0x1a, 0, 0x3f, 0, 64 }, .in_len = 64 };
	struct cmd sense10 = { .cdb = { 0x5a, 0, 0x3f }, .in_len = 64 };
	struct sent s;

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct cmd c = { .cdb = { rows[i].opcode },
				 .in_len = rows[i].in_len,
				 .out_len = rows[i].out_len };
		int before = sg.nr_begun;

		s = ini_do(&c);
		assert_int_equal(sg.nr_begun, before + rows[i].passes);
		assert_int_equal(s.code,
				 rows[i].passes ? 0 : SC_WRITE_PROTECTED);
	}
	/* The driver sees WP. */
	s = ini_do(&sense6);
	assert_int_equal(s.in[1], 'P');
	assert_int_equal(s.in[2], 'P' | 0x80);
	s = ini_do(&sense10);
	assert_int_equal(s.in[2], 'P');
	assert_int_equal(s.in[3], 'P' | 0x80);
}

/* The process can end while commands hang. */
static void test_end(void **state)
{
	sg.hang = true;
	for (unsigned i = 0; i < MAX_BEGUN + 2; i++)
		ini_send(&(struct cmd){ .cdb = { 0x00 } });
	wait_begun(MAX_BEGUN);
	ini_close();
	unhang(NULL);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_commands),
		TEST(test_failures),
		TEST(test_abort),
		TEST(test_reset),
		TEST(test_reset_order),
		TEST(test_end),
		cmocka_unit_test_setup_teardown(test_read_only, setup_read_only,
						teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

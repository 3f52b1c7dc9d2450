/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A disk that does not answer for any length of time: nothing waits for it but
 * the commands that it has. With each engine.
 */
#include <errno.h>
#include <json-c/json.h>
#include <linux/pci_regs.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "disk_fault.h"
#include "scsi_initiator.h"

#include <cmocka.h>

#define DISKS                                                                  \
	"scsi,lun0=%d/disk,lun1=%d/b,queues=2,queue-size=256,reservations=%d/" \
	"pr"

static bool threads; /* not io_uring */

static const uint8_t lun0[8] = LUN_ADDR(0, 0);
static const struct cmd tur = { .cdb = { 0 } };
static const struct cmd inquiry = { .cdb = { 0x12, [4] = 36 }, .in_len = 36 };
static const struct cmd flush = { .cdb = { 0x35 } };
static const struct cmd read_8 = {
	.cdb = { 0x28, [8] = 8 },
	.in_len = 4096,
};

static int setup(void **state)
{
	memset(&disk_fault, 0, sizeof(disk_fault));
	ini_image("disk", IMAGE_BYTES);
	ini_image("b", IMAGE_BYTES);
	ini_create(VDRV_MODERN, DISKS);
	assert_true(vdrv_start(&ini.d, ~0ull, 4));
	ini_do_ready(&tur);
	FAULT_SET(no_cache, true);
	return 0;
}

static int teardown(void **state)
{
	FAULT_SET(hang, false);
	ini_stop();
	memset(&disk_fault, 0, sizeof(disk_fault));
	return 0;
}

/* New ones are on another queue, where no stale chain has their head. */
static struct sent send_write(uint8_t lba, uint8_t byte)
{
	uint8_t block[512];
	struct cmd wr = { .cdb = { 0x2a, [5] = lba, [8] = 1 },
			  .out = memset(block, byte, sizeof(block)),
			  .out_len = sizeof(block),
			  .queue = byte == 'N' };

	return ini_send(&wr);
}

static uint8_t read_byte(uint8_t lba)
{
	struct cmd rd = { .cdb = { 0x28, [5] = lba, [8] = 1 }, .in_len = 512 };

	return ini_do(&rd).in[0];
}

/* All kinds of commands that hang; the first may be waited for. */
#define NR_STUCK 8

static void send_stuck(struct sent s[NR_STUCK])
{
	FAULT_SET(hang, true);
	s[0] = send_write(3, 'O');
	for (unsigned k = 1; k < NR_STUCK; k++) {
		struct cmd c = k == 4 ? flush : read_8;

		c.attr = k == 5 ? VIRTIO_SCSI_S_ORDERED : 0;
		c.id = k;
		s[k] = ini_send(&c);
	}
	ini_iterate(5);
	ini_collect(s, NR_STUCK);
	for (unsigned k = 0; k < NR_STUCK; k++)
		assert_false(s[k].done);
}

static uint8_t *resp_of(const struct sent *s)
{
	return vdrv_ptr(&ini.d, s->resp, 108);
}

/*
 * hostile F22, SCSI-REQ-08: the guest resets, and its next driver does not wait
 * for that. It does not see the old commands, and its own disk accesses begin
 * when those have ended.
 */
static void test_reset(void **state)
{
	struct sent s[NR_STUCK], new[2];

	send_stuck(s);
	ini_restart_now();
	for (unsigned k = 0; k < NR_STUCK; k++)
		memset(resp_of(&s[k]), 0x5a, 108);
	assert_int_equal(ini_do(&inquiry).status, 0);
	assert_int_equal(ini_do(&tur).code, SC_UA_RESET);
	new[0] = send_write(3, 'N');
	new[1] = ini_send(&flush);
	ini_iterate(20);
	ini_collect(new, 2);
	assert_false(new[0].done || new[1].done);

	FAULT_SET(hang, false);
	ini_wait(new, 2);
	assert_int_equal(new[0].status, 0);
	assert_int_equal(new[1].status, 0);
	assert_int_equal(read_byte(3), 'N');
	for (unsigned k = 0; k < NR_STUCK; k++) {
		assert_int_equal(resp_of(&s[k])[0], 0x5a);
		assert_int_equal(resp_of(&s[k])[107], 0x5a);
	}
}

/* A thread and the queue are free, but the write must wait its turn. */
static void test_reset_order(void **state)
{
	unsigned nr_tried;
	struct sent new;

	FAULT_SET(hang, true);
	send_write(3, 'O');
	ini_iterate(5);
	ini_restart_now();
	assert_int_equal(ini_do(&tur).code, SC_UA_RESET);
	nr_tried = FAULT_GET(nr_tried);
	new = send_write(3, 'N');
	ini_iterate(20);
	if (threads) /* io_uring's requests are not seen before they end */
		assert_int_equal(FAULT_GET(nr_tried), nr_tried);
	FAULT_SET(hang, false);
	ini_wait(&new, 1);
	assert_int_equal(read_byte(3), 'N');
}

/* A driver that waits for the reset finds nothing left of the old one. */
static void test_reset_waits(void **state)
{
	struct sent s[NR_STUCK];

	send_stuck(s);
	vdrv_reset_now(&ini.d);
	ini_iterate(5);
	assert_int_not_equal(vdrv_status(&ini.d), 0);
	FAULT_SET(hang, false);
	assert_true(vdrv_start(&ini.d, ~0ull, 4));
	for (unsigned k = 0; k < NR_STUCK; k++)
		memset(s[k].in, 0x5a, 4096);
	ini_iterate(5);
	for (unsigned k = 1; k < NR_STUCK; k++)
		assert_int_equal(s[k].in[4095], 0x5a);
	assert_int_equal(ini_do(&tur).code, SC_UA_RESET);
	assert_int_equal(ini_do(&read_8).in[0], 'a');
}

/* Guests reset again and again while they wait. */
static void test_many_resets(void **state)
{
	struct sent s[NR_STUCK], new;

	for (unsigned i = 0; i < 5; i++) {
		send_stuck(s);
		ini_restart_now();
		ini_do(&tur);
	}
	new = send_write(3, 'N');
	FAULT_SET(hang, false);
	ini_wait(&new, 1);
	assert_int_equal(read_byte(3), 'N');
}

/* A command of several steps begins no further step. */
static void test_no_more_steps(void **state)
{
	uint8_t blocks[1024];
	struct cmd cas = { .cdb = { 0x89, [13] = 1 },
			   .out = blocks,
			   .out_len = sizeof(blocks) };

	memset(blocks, 'a', 512);
	memset(blocks + 512, 'O', 512);
	FAULT_SET(hang, true);
	ini_send(&cas);
	ini_iterate(5);
	ini_restart_now();
	FAULT_SET(hang, false);
	ini_do_ready(&tur);
	assert_int_equal(read_byte(0), 'a');
}

/* A stop waits only for commands that have been taken. */
static void test_stop(void **state)
{
	struct sent s[NR_STUCK];
	uint64_t end;

	send_stuck(s);
	pci_quiesce(&ini.d.pi);
	ini_iterate(5);
	assert_false(pci_is_idle(&ini.d.pi));
	ini_send(&tur); /* is not taken any more */
	FAULT_SET(hang, false);
	end = vio_now_ns() + UINT64_C(10000000000);
	while (!pci_is_idle(&ini.d.pi)) {
		assert_true(vio_now_ns() < end);
		ini_iterate_once(10);
	}
	ini_collect(s, NR_STUCK);
	for (unsigned k = 0; k < NR_STUCK; k++) {
		assert_true(s[k].done);
		assert_int_equal(s[k].status, 0);
	}
	assert_int_equal(s[7].in[0], 'a');
}

/* Broken by its driver (2.1.2): it does not access guest memory. */
static void test_broken(void **state)
{
	struct sent s[NR_STUCK];

	send_stuck(s);
	vdrv_avail(&ini.d, 2, 60000);
	vdrv_kick(&ini.d, 2);
	assert_true(vdrv_status(&ini.d) & VIRTIO_CONFIG_S_NEEDS_RESET);
	for (unsigned k = 0; k < NR_STUCK; k++)
		memset(resp_of(&s[k]), 0x5a, 108);
	FAULT_SET(hang, false);
	ini_iterate(20);
	ini_collect(s, NR_STUCK);
	for (unsigned k = 0; k < NR_STUCK; k++) {
		assert_false(s[k].done);
		assert_int_equal(resp_of(&s[k])[0], 0x5a);
		assert_int_equal(resp_of(&s[k])[107], 0x5a);
	}
	assert_true(vdrv_start(&ini.d, ~0ull, 4));
	assert_int_equal(ini_do(&tur).code, SC_UA_RESET);
	assert_int_equal(ini_do(&read_8).in[0], 'a');
}

/*
 * Nor does it read into it, except for calls that the host has begun: with
 * threads, one each; with io_uring, all that were submitted.
 */
static void test_broken_reads(void **state)
{
	struct sent s[POOL_MAX_THREADS + 20];
	unsigned nr_read = 0;

	if (!threads)
		skip();
	FAULT_SET(hang, true);
	for (unsigned k = 0; k < ARRAY_LEN(s); k++)
		s[k] = ini_send(&read_8);
	ini_iterate(5);
	vdrv_avail(&ini.d, 2, 60000);
	vdrv_kick(&ini.d, 2);
	for (unsigned k = 0; k < ARRAY_LEN(s); k++)
		memset(s[k].in, 0x5a, 4096);
	FAULT_SET(hang, false);
	ini_iterate(20);
	for (unsigned k = 0; k < ARRAY_LEN(s); k++)
		nr_read += s[k].in[0] != 0x5a;
	print_message("%u of %zu were read\n", nr_read, ARRAY_LEN(s));
	assert_true(nr_read <= POOL_MAX_THREADS);
}

/*
 * SCSI-CTL-01: a function completes when the commands that it aborts have
 * ended. Other units continue; until then, the unit begins nothing.
 */
static void test_tmf(void **state)
{
	static const uint8_t lun1[8] = LUN_ADDR(0, 1);
	uint64_t mem = vdrv_alloc(&ini.d, 32, 8);
	struct vdrv_buf bufs[] = { { mem, 24, VDRV_R },
				   { mem + 24, 1, VDRV_W } };
	uint8_t *p = vdrv_ptr(&ini.d, mem, 32);
	struct sent s[NR_STUCK], new;
	struct cmd other = inquiry;
	struct vdrv_used used;

	send_stuck(s);
	memset(p, 0, 24);
	p[4] = VIRTIO_SCSI_T_TMF_LOGICAL_UNIT_RESET;
	memcpy(p + 8, lun0, 8);
	vdrv_add(&ini.d, 0, bufs, 2);
	vdrv_kick(&ini.d, 0);
	ini_iterate(5);
	ini_collect(s, NR_STUCK);
	assert_false(s[0].done);
	memcpy(other.addr, lun1, 8);
	assert_int_equal(ini_do(&other).status, 0);
	new = send_write(3, 'N');
	ini_iterate(5);
	assert_false(vdrv_used(&ini.d, 0, &used));
	FAULT_SET(hang, false);
	ini_wait(s, NR_STUCK);
	for (unsigned k = 0; k < NR_STUCK; k++)
		assert_int_equal(s[k].response, VIRTIO_SCSI_S_RESET);
	ini_wait(&new, 1);
	assert_true(vdrv_used(&ini.d, 0, &used));
	assert_int_equal(p[24], VIRTIO_SCSI_S_OK);
	ini_do(&tur);
	assert_int_equal(read_byte(3), 'N');
}

/*
 * VQ-02: functions that wait when the control queue is reset end with their
 * commands, although the driver makes the queue smaller meanwhile.
 */
static void test_tmf_queue_reset(void **state)
{
	uint64_t mem = vdrv_alloc(&ini.d, 32, 8);
	struct vdrv_buf bufs[] = { { mem, 24, VDRV_R },
				   { mem + 24, 1, VDRV_W } };
	uint8_t *p = vdrv_ptr(&ini.d, mem, 32);
	struct sent s[NR_STUCK];

	send_stuck(s);
	memset(p, 0, 24);
	p[24] = 0xee;
	p[4] = VIRTIO_SCSI_T_TMF_LOGICAL_UNIT_RESET;
	memcpy(p + 8, lun0, 8);
	vdrv_add(&ini.d, 0, bufs, 2);
	vdrv_add(&ini.d, 0, bufs, 2);
	vdrv_kick(&ini.d, 0);
	ini_iterate(5);
	vdrv_common_write(&ini.d, VIRTIO_PCI_COMMON_Q_SELECT, 2, 0);
	vdrv_common_write(&ini.d, VIRTIO_PCI_COMMON_Q_RESET, 2, 1);
	vdrv_common_write(&ini.d, VIRTIO_PCI_COMMON_Q_SIZE, 2, 1);
	assert_int_equal(vdrv_common_read(&ini.d, VIRTIO_PCI_COMMON_Q_RESET, 2),
			 1);
	FAULT_SET(hang, false);
	ini_wait(s, NR_STUCK);
	ini_iterate(5);
	assert_int_equal(vdrv_common_read(&ini.d, VIRTIO_PCI_COMMON_Q_RESET, 2),
			 0);
	assert_int_equal(p[24], 0xee);
}

/* Commands from before the reset have no owner: no function finds them. */
static void test_tmf_after_reset(void **state)
{
	struct sent s[NR_STUCK];

	send_stuck(s);
	ini_restart_now();
	assert_int_equal(ini_tmf(VIRTIO_SCSI_T_TMF_QUERY_TASK, lun0, 1), 0);
	assert_int_equal(ini_tmf(VIRTIO_SCSI_T_TMF_QUERY_TASK_SET, lun0, 0), 0);
	assert_int_equal(ini_tmf(VIRTIO_SCSI_T_TMF_ABORT_TASK, lun0, 1), 0);
}

static int ctl(const char *what, const char *word, const char *lun)
{
	char text[3][16];
	char *argv[3] = { text[0], text[1], text[2] };
	struct json_object *reply = json_object_new_object();
	struct opened_files none = { .nr = 0 };
	struct err err;
	int ret;

	strcpy(text[0], what);
	strcpy(text[1], word);
	strcpy(text[2], lun);
	ret = vdev_ctl(ini.dev,
		       *lun  ? 3 :
		       *word ? 2 :
			       1,
		       argv, &none, reply, &err);
	json_object_put(reply);
	return ret;
}

static int ctl_lun(const char *word, const char *lun)
{
	return ctl("lun", word, lun);
}

/* SCSI-REQ-08: a unit is removed: its commands end, then the driver knows. */
static void test_remove(void **state)
{
	uint64_t mem = vdrv_alloc(&ini.d, 16, 8);
	struct sent s[NR_STUCK];
	struct vdrv_used used;

	vdrv_add(&ini.d, 1, (struct vdrv_buf[]){ { mem, 16, VDRV_W } }, 1);
	send_stuck(s);
	assert_int_equal(ctl_lun("remove", "lun0"), 0);
	assert_int_equal(ctl_lun("add", "lun0"), -EBUSY);
	ini_iterate(5);
	ini_collect(s, NR_STUCK);
	assert_false(s[0].done);
	assert_int_equal(ini_do(&tur).code, SC_NO_LUN);
	assert_false(vdrv_used(&ini.d, 1, &used));
	FAULT_SET(hang, false);
	ini_wait(s, NR_STUCK);
	for (unsigned k = 0; k < NR_STUCK; k++)
		assert_int_equal(s[k].response, VIRTIO_SCSI_S_ABORTED);
	ini_iterate(2);
	assert_true(vdrv_used(&ini.d, 1, &used));
	assert_int_equal(ctl_lun("add", "lun0"), 0);
	assert_int_equal(ini_do_ready(&read_8).in[0], 'a');
}

static void start_waiting(const char *options)
{
	ini_close();
	ini_create(VDRV_MODERN, options);
	assert_true(vdrv_start(&ini.d, ~0ull, 4));
	ini_do_ready(&tur);
}

/*
 * --- Other host calls ---
 */

off_t lseek(int fd, off_t off, int whence)
{
	while (FAULT_GET(hang))
		usleep(1000);
	return syscall(SYS_lseek, fd, off, whence);
}

/* REGISTER, with APTPL. */
static struct sent send_register(uint8_t key, uint8_t lun)
{
	uint8_t list[24] = { [15] = key, [20] = 1 };
	struct cmd c = { .cdb = { 0x5f, 6, [8] = 24 },
			 .addr = LUN_ADDR(0, lun),
			 .out = list,
			 .out_len = sizeof(list),
			 .queue = lun };

	return ini_send(&c);
}

static uint8_t read_key(uint8_t lun)
{
	struct cmd c = { .cdb = { 0x5e, [8] = 16 },
			 .addr = LUN_ADDR(0, lun),
			 .in_len = 16 };
	struct sent s = ini_do_ready(&c);

	assert_int_equal(s.status, 0);
	return s.in[7] ? s.in[15] : 0;
}

/* Reservations are in a file, whose disk may also be slow. */
static void test_reservations(void **state)
{
	struct sent s[2];

	ini_do_ready(&(struct cmd){ .addr = LUN_ADDR(0, 1) });
	FAULT_SET(hang, true);
	s[0] = send_register(0xa0, 0);
	s[1] = send_register(0xa1, 1);
	ini_iterate(5);
	ini_collect(s, 2);
	assert_false(s[0].done || s[1].done);
	assert_int_equal(ini_tmf(VIRTIO_SCSI_T_TMF_QUERY_TASK_SET, lun0, 0),
			 VIRTIO_SCSI_S_FUNCTION_SUCCEEDED);
	FAULT_SET(hang, false);
	ini_wait(s, 2);
	assert_int_equal(s[0].status, 0);
	assert_int_equal(s[1].status, 0);
	start_waiting(DISKS); /* recreated from the file */
	assert_int_equal(read_key(0), 0xa0);
	assert_int_equal(read_key(1), 0xa1);
}

/* One fails: neither its response nor the file hides that. */
static void test_reservations_fail(void **state)
{
	struct sent s[2];

	ini_do_ready(&(struct cmd){ .addr = LUN_ADDR(0, 1) });
	FAULT_SET(hang, true);
	FAULT_SET(sync_errno, EIO);
	s[0] = send_register(0xa0, 0);
	s[1] = send_register(0xa1, 1);
	ini_iterate(5);
	FAULT_SET(hang, false);
	ini_wait(s, 2);
	assert_int_equal(s[0].code, SC_PR_RESOURCES);
	assert_int_equal(s[1].code, SC_PR_RESOURCES);
	assert_int_equal(read_key(0), 0);
	FAULT_SET(sync_errno, 0);
	s[1] = send_register(0xa2, 1);
	ini_wait(&s[1], 1);
	start_waiting(DISKS);
	assert_int_equal(read_key(0), 0);
	assert_int_equal(read_key(1), 0xa2);
}

static void test_lba_status(void **state)
{
	struct cmd c = { .cdb = { 0x9e, 0x12, [13] = 24 }, .in_len = 24 };
	struct sent s;

	FAULT_SET(hang, true);
	s = ini_send(&c);
	ini_iterate(5);
	ini_collect(&s, 1);
	assert_false(s.done);
	FAULT_SET(hang, false);
	ini_wait(&s, 1);
	assert_int_equal(s.status, 0);
	assert_int_equal(s.in[3], 20);
	assert_int_equal(s.in[12], 0); /* mapped */
}

/*
 * --- werror=wait, rerror=wait ---
 */

static unsigned nr_waiting(void)
{
	struct json_object *st = json_object_new_object(), *luns, *v;
	unsigned nr;

	vdev_status(ini.dev, st);
	assert_true(json_object_object_get_ex(st, "luns", &luns));
	luns = json_object_array_get_idx(luns, 0);
	assert_true(json_object_object_get_ex(luns, "waiting", &v));
	nr = (unsigned)json_object_get_int(v);
	json_object_put(st);
	return nr;
}

#define WAITING DISKS ",lun0.werror=wait,lun0.rerror=wait"

static void send_failing(struct sent *s)
{
	FAULT_SET(write_errno, ENOSPC);
	*s = send_write(3, 'W');
	for (int i = 0; i < 500 && nr_waiting() == 0; i++)
		ini_iterate_once(10);
	assert_int_equal(nr_waiting(), 1);
	ini_collect(s, 1);
	assert_false(s->done);
	assert_non_null(strstr(ini.d.last_log, "commands wait"));
}

static void test_error_waits(void **state)
{
	struct sent s;

	start_waiting(WAITING);
	send_failing(&s);
	assert_int_equal(read_byte(1), 'b'); /* reads continue */
	assert_int_equal(ctl("resume", "lun7", ""), -ENOENT);
	FAULT_SET(write_errno, 0);
	assert_int_equal(ctl("resume", "", ""), 0);
	ini_wait(&s, 1);
	assert_int_equal(s.status, 0);
	assert_int_equal(nr_waiting(), 0);
	assert_int_equal(read_byte(3), 'W');
}

static void test_read_error_waits(void **state)
{
	struct sent s;

	start_waiting(WAITING);
	FAULT_SET(read_errno, EIO);
	s = ini_send(&read_8);
	for (int i = 0; i < 500 && nr_waiting() == 0; i++)
		ini_iterate_once(10);
	assert_int_equal(nr_waiting(), 1);
	FAULT_SET(read_errno, 0);
	assert_int_equal(ctl("resume", "lun0", ""), 0);
	ini_wait(&s, 1);
	assert_int_equal(s.status, 0);
	assert_int_equal(s.in[0], 'a');
}

/* The driver may abort it, or reset the device. */
static void test_waiting_is_aborted(void **state)
{
	struct sent s;

	start_waiting(WAITING);
	send_failing(&s);
	assert_int_equal(ini_tmf(VIRTIO_SCSI_T_TMF_LOGICAL_UNIT_RESET, lun0, 0),
			 0);
	ini_wait(&s, 1);
	assert_int_equal(s.response, VIRTIO_SCSI_S_RESET);
	ini_do_ready(&tur);
	send_failing(&s);
	vdrv_reset(&ini.d);
	FAULT_SET(write_errno, 0);
	assert_true(vdrv_start(&ini.d, ~0ull, 4));
	ini_do_ready(&tur);
	assert_int_equal(read_byte(3), 'd');
}

/* A stop does not wait for free space. */
static void test_waiting_at_stop(void **state)
{
	struct sent s;

	start_waiting(WAITING);
	send_failing(&s);
	pci_quiesce(&ini.d.pi);
	for (int i = 0; i < 500 && !pci_is_idle(&ini.d.pi); i++)
		ini_iterate_once(10);
	assert_true(pci_is_idle(&ini.d.pi));
	ini_wait(&s, 1);
	assert_int_equal(s.response, 0);
	assert_int_equal(s.status, STATUS_BUSY);
}

/* Nor for commands that fail once the stop has begun. */
static void test_failing_at_stop(void **state)
{
	struct sent s[2];

	start_waiting(WAITING);
	FAULT_SET(write_errno, ENOSPC);
	FAULT_SET(hang, true);
	s[0] = send_write(3, 'W');
	s[1] = send_write(4, 'W');
	ini_iterate(5);
	pci_quiesce(&ini.d.pi);
	FAULT_SET(hang, false);
	for (int i = 0; i < 500 && !pci_is_idle(&ini.d.pi); i++)
		ini_iterate_once(10);
	assert_true(pci_is_idle(&ini.d.pi));
	ini_wait(s, 2);
	assert_int_equal(s[0].status, STATUS_BUSY);
	assert_int_equal(s[1].status, STATUS_BUSY);
	assert_int_equal(nr_waiting(), 0);
}

static void no_owner(void *arg, const struct gm_region *r)
{
}

#define RAM_HALF (VDRV_MEM_BYTES / 2)
#define BUFFERS  ((gpa_t){ VDRV_MEM_BASE + RAM_HALF })

/* Rings are in one region, buffers from now on in another. */
static void split_memory(void)
{
	struct gmem *gm = &ini.d.gm;

	gm_remove(gm, (gpa_t){ VDRV_MEM_BASE }, VDRV_MEM_BYTES, no_owner, NULL);
	assert_int_equal(gm_add(gm, (gpa_t){ VDRV_MEM_BASE }, RAM_HALF,
				ini.d.mem, GM_READ | GM_WRITE),
			 0);
	assert_int_equal(gm_add(gm, BUFFERS, RAM_HALF, ini.d.mem + RAM_HALF,
				GM_READ | GM_WRITE),
			 0);
	ini.d.next_free = BUFFERS.v;
}

/*
 * Memory that a waiting or failing command uses is removed: the command
 * releases it, for which the server waits.
 */
static void test_waiting_memory(void **state)
{
	for (int fails_later = 0; fails_later < 2; fails_later++) {
		struct sent s;

		start_waiting(WAITING);
		split_memory();
		FAULT_SET(write_errno, ENOSPC);
		FAULT_SET(hang, fails_later);
		s = send_write(3, 'W');
		for (int i = 0; i < 500 && !fails_later && !nr_waiting(); i++)
			ini_iterate_once(10);
		ini_iterate(5);
		assert_int_equal(nr_waiting(), !fails_later);
		assert_int_equal(
			gm_remove(&ini.d.gm, BUFFERS, RAM_HALF, no_owner, NULL),
			1);
		pci_give_back(&ini.d.pi);
		FAULT_SET(hang, false);
		ini_wait(&s, 1);
		assert_int_equal(s.status, STATUS_BUSY);
		assert_int_equal(gm_reap(&ini.d.gm, no_owner, NULL), 0);
		assert_int_equal(nr_waiting(), 0);
	}
}

static void set_command(uint16_t command)
{
	pci_cfg_write(&ini.d.pi, PCI_COMMAND, 2, command);
}

/* Bus Master is cleared: no command waits to use DMA later. */
static void test_waiting_bus(void **state)
{
	for (int fails_later = 0; fails_later < 2; fails_later++) {
		struct sent s;

		start_waiting(WAITING);
		FAULT_SET(write_errno, ENOSPC);
		FAULT_SET(hang, fails_later);
		s = send_write(3, 'W');
		for (int i = 0; i < 500 && !fails_later && !nr_waiting(); i++)
			ini_iterate_once(10);
		ini_iterate(5);
		assert_int_equal(nr_waiting(), !fails_later);
		set_command(PCI_COMMAND_MEMORY);
		FAULT_SET(hang, false);
		for (int i = 0; i < 500 && !pci_is_idle(&ini.d.pi); i++)
			ini_iterate_once(10);
		assert_true(pci_is_idle(&ini.d.pi));
		ini_collect(&s, 1);
		assert_false(s.done);
		set_command(PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
		ini_wait(&s, 1);
		assert_int_equal(s.status, STATUS_BUSY);
	}
}

/* The process ends, whatever the kernel still does. */
static void test_end(void **state)
{
	struct sent s[NR_STUCK];

	send_stuck(s);
	ini_close();
}

static int run(const char *engine)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_reset),
		TEST(test_reset_order),
		TEST(test_reset_waits),
		TEST(test_many_resets),
		TEST(test_no_more_steps),
		TEST(test_stop),
		TEST(test_broken),
		TEST(test_broken_reads),
		TEST(test_tmf),
		TEST(test_tmf_queue_reset),
		TEST(test_tmf_after_reset),
		TEST(test_remove),
		TEST(test_reservations),
		TEST(test_reservations_fail),
		TEST(test_lba_status),
		TEST(test_error_waits),
		TEST(test_read_error_waits),
		TEST(test_waiting_is_aborted),
		TEST(test_waiting_at_stop),
		TEST(test_waiting_memory),
		TEST(test_waiting_bus),
		TEST(test_failing_at_stop),
		TEST(test_end),
	};

	threads = strcmp(engine, "threads") == 0;
	return cmocka_run_group_tests_name(engine, tests, NULL, NULL);
}

int main(void)
{
	return run_on_engines(run);
}

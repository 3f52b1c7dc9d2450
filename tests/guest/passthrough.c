/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * For a guest that has real SCSI devices: an initiator for a viodev that serves
 * them there, LUN 0 a disk of 4 MiB, LUN 1 a CD-ROM drive without a disc.
 *
 *	passthrough SOCKET
 *	passthrough SOCKET ro	LUN 0 has ro=on
 *
 * The pretend driver's PCI function is a stand-in: its registers are the
 * server's, by vfio-user, and its memory is shared with the server.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "scsi_initiator.h"
#include "vfio_user_client.h"

#include <cmocka.h>

#define DISK_BYTES (4u << 20)
#define BAR_BYTES  (1u << 20) /* no smaller than the device's */

static struct tclient client;

/*
 * --- The stand-in ---
 */

static int far_cfgread(struct pci_devinst *pi, int off, int bytes,
		       uint32_t *ret_val)
{
	*ret_val = (uint32_t)tcl_read(&client, VFMSG_REGION_CFG, (uint64_t)off,
				      (uint32_t)bytes);
	return PE_CFGRW_DROP;
}

static int far_cfgwrite(struct pci_devinst *pi, int off, int bytes,
			uint32_t val)
{
	tcl_write(&client, VFMSG_REGION_CFG, (uint64_t)off, (uint32_t)bytes,
		  val);
	return PE_CFGRW_DROP;
}

static uint64_t far_barread(struct pci_devinst *pi, int bar, uint64_t off,
			    int size)
{
	return tcl_read(&client, (uint32_t)bar, off, (uint32_t)size);
}

static void far_barwrite(struct pci_devinst *pi, int bar, uint64_t off,
			 int size, uint64_t val)
{
	tcl_write(&client, (uint32_t)bar, off, (uint32_t)size, val);
}

static const struct pci_dev far_ops = {
	.pd_cfgread = far_cfgread,
	.pd_cfgwrite = far_cfgwrite,
	.pd_barread = far_barread,
	.pd_barwrite = far_barwrite,
};

static void share_memory(struct vdrv *d)
{
	int fd = tcl_memfd(VDRV_MEM_BYTES);

	assert_ptr_equal(mmap(d->mem, VDRV_MEM_BYTES, PROT_READ | PROT_WRITE,
			      MAP_SHARED | MAP_FIXED, fd, 0),
			 d->mem);
	assert_int_equal(tcl_map(&client, VDRV_MEM_BASE, VDRV_MEM_BYTES, 0,
				 GM_READ | GM_WRITE, fd),
			 0);
	close(fd);
}

static int setup(void **state)
{
	tcl_open(&client, *state);
	ini.cdb_size = 32;
	ini.sense_size = 96;
	assert_int_equal(vio_loop_create(&ini.loop), 0);
	vdrv_init(&ini.d, VDRV_MODERN);
	ini.d.no_msix = true; /* it looks for itself */
	pci_set_device(&ini.d.pi, &far_ops, NULL);
	assert_int_equal(pci_add_bar(&ini.d.pi, 2, PCI_BAR_MEM64, BAR_BYTES),
			 0);
	share_memory(&ini.d);
	assert_true(vdrv_start(&ini.d, ~0ull, 3));
	return 0;
}

static int teardown(void **state)
{
	vdrv_fini(&ini.d);
	vio_loop_destroy(ini.loop);
	tcl_close(&client);
	return 0;
}

/*
 * --- The tests ---
 */

static const uint8_t cdrom[8] = LUN_ADDR(0, 1);

static struct cmd to_cdrom(struct cmd c)
{
	memcpy(c.addr, cdrom, sizeof(cdrom));
	return c;
}

static void test_inquiry(void **state)
{
	const struct cmd inquiry = { .cdb = { 0x12, [4] = 255 },
				     .in_len = 255 };
	struct cmd of_cdrom = to_cdrom(inquiry);
	struct sent s = ini_do(&inquiry);

	assert_int_equal(s.response, VIRTIO_SCSI_S_OK);
	assert_int_equal(s.status, STATUS_GOOD);
	assert_int_equal(s.in[0], 0x00);
	assert_memory_equal(s.in + 8, "QEMU    ", 8);
	assert_int_equal(ini_do(&of_cdrom).in[0], 0x05);
}

/* What is written is read back, and afterwards in the image, by the host. */
static void test_data(void **state)
{
	static uint8_t data[DISK_BYTES / 4];
	const uint32_t nr = sizeof(data) / 512;
	const struct cmd capacity = { .cdb = { 0x25 }, .in_len = 64 };
	struct cmd wr = { .cdb = { 0x2a, [7] = nr >> 8, [8] = nr & 0xff },
			  .out_len = sizeof(data),
			  .out = data };
	struct cmd rd = { .cdb = { 0x88, [12] = nr >> 8, [13] = nr & 0xff },
			  .in_len = sizeof(data) };
	const struct cmd sync = { .cdb = { 0x35 } };
	struct sent s = ini_do_ready(&capacity);

	assert_int_equal(read_be32(s.in), DISK_BYTES / 512 - 1);
	assert_int_equal(read_be32(s.in + 4), 512);
	assert_int_equal(s.residual, 64 - 8);
	assert_int_equal(s.used, 12 + 96 + 8);
	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)(i / 512 + 1);
	assert_int_equal(ini_do(&wr).status, STATUS_GOOD);
	assert_int_equal(ini_do(&sync).status, STATUS_GOOD);
	s = ini_do(&rd);
	assert_int_equal(s.status, STATUS_GOOD);
	assert_int_equal(s.residual, 0);
	assert_memory_equal(s.in, data, sizeof(data));
}

/* The device's own sense data. */
static void test_sense(void **state)
{
	const struct cmd beyond = { .cdb = { 0x28, 0, 0xff, [8] = 1 },
				    .in_len = 512 };
	const struct cmd not_there = to_cdrom((struct cmd){ .cdb = { 0 } });

	assert_int_equal(ini_do_ready(&beyond).code, SC_LBA_RANGE);
	assert_int_equal(ini_do_ready(&not_there).code, SC_NO_MEDIUM);
}

/* The kernel keeps WRITE BUFFER, which changes firmware, from the sandboxed. */
static void test_privileged(void **state)
{
	const struct cmd firmware = { .cdb = { 0x3b, 5, [8] = 1 },
				      .out_len = 512 };
	struct sent s = ini_do_ready(&firmware);

	assert_int_equal(s.response, VIRTIO_SCSI_S_OK);
	assert_int_equal(s.code, SC_INVALID_OPCODE);
}

/* More at a time than there are threads; nothing is lost. */
static void test_many(void **state)
{
	const struct cmd rd = { .cdb = { 0x28, [8] = 8 }, .in_len = 4096 };
	struct sent s[32];

	for (unsigned i = 0; i < ARRAY_LEN(s); i++)
		s[i] = ini_send(&rd);
	ini_wait(s, ARRAY_LEN(s));
	for (unsigned i = 0; i < ARRAY_LEN(s); i++)
		assert_int_equal(s[i].status, STATUS_GOOD);
}

/* ro=on, after the others: what they wrote can be read and nothing else. */
static void test_read_only(void **state)
{
	uint8_t data[512];
	const struct cmd rd = { .cdb = { 0x28, [8] = 1 }, .in_len = 512 };
	const struct cmd wr = { .cdb = { 0x2a, [8] = 1 },
				.out_len = 512,
				.out = memset(data, 'w', sizeof(data)) };
	const struct cmd mode = { .cdb = { 0x1a, 0, 0x3f, 0, 64 },
				  .in_len = 64 };
	struct sent s = ini_do_ready(&rd);

	assert_int_equal(s.status, STATUS_GOOD);
	assert_int_equal(s.in[0], 1);
	assert_int_equal(ini_do(&wr).code, SC_WRITE_PROTECTED);
	s = ini_do(&mode);
	assert_int_equal(s.status, STATUS_GOOD);
	assert_int_equal(s.in[2] & 0x80, 0x80);
	assert_int_equal(ini_do(&rd).in[0], 1);
}

int main(int argc, char **argv)
{
	static struct tsrv server;
#define TEST(f) \
	cmocka_unit_test_prestate_setup_teardown(f, setup, teardown, &server)
	const struct CMUnitTest tests[] = {
		TEST(test_inquiry),    TEST(test_data), TEST(test_sense),
		TEST(test_privileged), TEST(test_many),
	};

	const struct CMUnitTest read_only[] = { TEST(test_read_only) };

	if (argc != 2 && argc != 3)
		return 2;
	snprintf(server.path, sizeof(server.path), "%s", argv[1]);
	if (argc == 3)
		return cmocka_run_group_tests(read_only, NULL, NULL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The vfio-user server against a scripted client. A1..A9 are the sections, and
 * "trap N" the rows, of docs/spec/protocols.md; "hostile X" is a row of
 * docs/spec/hostile.md. Memory that is not shared is in vfio_user_dma_test.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/scm.h"
#include "base/util.h"
#include "process.h"
#include "vfio_user_client.h"
#include "serve/vfio_user_impl.h"

#define MAX64 UINT64_MAX
#define MAX32 UINT32_MAX
#define CFG   VFMSG_REGION_CFG
#define MiB   (1ull << 20)

enum { /* flags of SET_IRQS */
       NONE = 1,
       BOOL = 2,
       EVENTFD = 4,
       MASK = 8,
       UNMASK = 0x10,
       TRIGGER = 0x20,
};

struct fixture {
	struct tsrv t;
	struct tclient c;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	tsrv_start(&f->t);
	tcl_open(&f->c, &f->t);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	tcl_close(&f->c);
	tsrv_stop(&f->t);
	free(f);
	return 0;
}

/* The server is alive and serves. */
static void assert_alive(struct tclient *c)
{
	assert_int_equal(tcl_read(c, CFG, 0, 4), 0x10ff1af4);
}

/*
 * --- Framing and the connection, A1 ---
 */

static void test_bad_framing(void **state)
{
	static const struct {
		const char *name;
		struct vfmsg_hdr hdr;
	} rows[] = {
		{ "A1 size 15", { 1, 4, 15, 0, 0 } },
		{ "A1 size 0", { 1, 4, 0, 0, 0 } },
		{ "A1 too large", { 1, 4, VFMSG_MAX_BYTES + 1, 0, 0 } },
		{ "hostile D39 size", { 1, 4, MAX32, 0, 0 } },
		{ "A1 type", { 1, 4, 16, 2, 0 } },
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		print_message("%s\n", rows[i].name);
		assert_int_equal(write(f->c.fd, &rows[i].hdr, 16), 16);
		assert_true(tcl_is_closed(&f->c));
		tcl_close(&f->c);
		tcl_open(&f->c, &f->t); /* and it listens again */
		assert_alive(&f->c);
	}
}

/* The server lets the device poll its queues, and turn doorbells on. */
static void test_polled(void **state)
{
	struct fixture *f = *state;

	assert_alive(&f->c);
	tsrv_halt(&f->t);
	assert_true(f->t.dev.nr_polls > 0);
	assert_true(f->t.dev.nr_arms > 0);
}

/* A2: an unknown command gets an error reply, and the connection stays. */
static void test_unknown_commands(void **state)
{
	static const uint16_t cmds[] = {
		0, 1, 11, 12, 14, 16, 17, 18, 19, 20, 255, 65535,
	};
	struct fixture *f = *state;
	uint8_t payload[64] = { 64 };

	for (size_t i = 0; i < ARRAY_LEN(cmds); i++) {
		assert_int_not_equal(
			tcl_call(&f->c, cmds[i], payload, 64, NULL, 0, NULL),
			0);
		assert_int_not_equal(
			tcl_call(&f->c, cmds[i], NULL, 0, NULL, 0, NULL), 0);
	}
	assert_alive(&f->c);
}

/* A1, trap 7: No_reply is honoured on any command, errors too. */
static void test_no_reply(void **state)
{
	struct fixture *f = *state;
	uint8_t payload[64] = { 64 };

	for (uint16_t cmd = 0; cmd < 25; cmd++)
		tcl_send(&f->c, cmd, VFMSG_NO_REPLY, payload, sizeof(payload),
			 NULL, 0);
	assert_true(tcl_is_silent(f->c.fd, 50));
	tcl_post(&f->c, 0, 8, 4, 0x12345678);
	assert_int_equal(tcl_read(&f->c, 0, 8, 4), 0x12345678);
}

/* Each command, with the payload cut at each length. */
static void test_short_payloads(void **state)
{
	struct fixture *f = *state;
	uint8_t payload[32] = { 0 };

	for (uint16_t cmd = 2; cmd < 20; cmd++) {
		for (size_t len = 0; len < 16; len++) {
			if (cmd == VFMSG_RESET ||
			    (cmd == VFMSG_REGION_WRITE_MULTI && len >= 8))
				continue;
			assert_int_not_equal(tcl_call(&f->c, cmd, payload, len,
						      NULL, 0, NULL),
					     0);
		}
	}
	assert_alive(&f->c);
}

/* A message may come in pieces, and many in one. */
static void test_pieces(void **state)
{
	struct fixture *f = *state;
	struct {
		struct vfmsg_hdr hdr;
		struct twire_access access;
	} read_cfg[100];
	struct tmsg m;

	for (unsigned i = 0; i < 100; i++) {
		read_cfg[i].hdr = (struct vfmsg_hdr){ (uint16_t)i, 9, 32 };
		read_cfg[i].access = (struct twire_access){ 0, CFG, 4 };
	}
	for (unsigned i = 0; i < 32; i++) {
		assert_int_equal(write(f->c.fd, (char *)&read_cfg[5] + i, 1),
				 1);
		usleep(100);
	}
	assert_true(tcl_recv(f->c.fd, &m));
	assert_int_equal(m.hdr.id, 5);

	/* All but the last byte, then that. */
	assert_int_equal(write(f->c.fd, read_cfg, sizeof(read_cfg) - 1),
			 sizeof(read_cfg) - 1);
	for (unsigned i = 0; i < 99; i++) {
		assert_true(tcl_recv(f->c.fd, &m));
		assert_int_equal(m.hdr.id, i);
	}
	assert_true(tcl_is_silent(f->c.fd, 20));
	assert_int_equal(
		write(f->c.fd, (char *)read_cfg + sizeof(read_cfg) - 1, 1), 1);
	assert_true(tcl_recv(f->c.fd, &m));
	assert_int_equal(m.hdr.id, 99);
}

/* A client that sends but does not read: bounded, and nothing is lost. */
static void test_slow_reader(void **state)
{
	struct fixture *f = *state;
	struct twire_access w = { 0, CFG, VFMSG_MAX_XFER };
	struct tmsg m;

	for (unsigned i = 0; i < 40; i++)
		tcl_send(&f->c, VFMSG_REGION_READ, 0, &w, sizeof(w), NULL, 0);
	usleep(50000);
	for (unsigned i = 0; i < 40; i++) {
		assert_true(tcl_recv(f->c.fd, &m));
		assert_int_equal(m.len, 16 + VFMSG_MAX_XFER);
		assert_int_equal(m.payload[16], 0xf4);
		assert_int_equal(m.payload[16 + 256], 0xff);
	}
	assert_alive(&f->c);
}

/* Trap 10: a client may leave at any byte; the next finds all as new. */
static void test_reconnect(void **state)
{
	struct fixture *f = *state;
	int fd = tcl_memfd(MiB), ev = eventfd(0, 0);
	struct vfmsg_hdr hdr = { 1, VFMSG_DMA_MAP, 48 };
	struct vio_server_stats stats;
	unsigned nr_fds = process_nr_fds();

	for (unsigned i = 0; i < 48; i++) {
		assert_int_equal(tcl_map(&f->c, 0, MiB, 0, 3, fd), 0);
		assert_int_equal(tcl_map(&f->c, MiB, MiB, 0, 3, -1), 0);
		assert_int_equal(
			tcl_set_irqs(&f->c, EVENTFD | TRIGGER, 2, 3, 1, &ev, 1),
			0);
		tcl_write(&f->c, 0, 0, 4, 0xabcd);
		tcl_enable_msix(&f->c);
		assert_int_equal(tcl_nr_maps(), 1);
		assert_int_equal(write(f->c.fd, &hdr, i < 16 ? i : 16),
				 i < 16 ? i : 16);
		for (unsigned sent = 16; sent < i; sent++)
			assert_int_equal(write(f->c.fd, "", 1), 1);
		tcl_close(&f->c);
		tsrv_await_detached(&f->t, i + 1);
		assert_int_equal(tcl_nr_maps(), 0);
		tcl_open(&f->c, &f->t);
		assert_int_equal(process_nr_fds(), nr_fds);
		assert_int_equal(tcl_read(&f->c, 0, 0, 4), 0);
		assert_int_equal(tcl_read(&f->c, CFG, TDEV_MSIX_CAP + 2, 2),
				 TDEV_NR_MSIX - 1);
		assert_int_equal(tcl_read(&f->c, 0, REG_NR_RESETS, 4),
				 2 * i + 1);
		/* Its vectors are gone. */
		tcl_enable_msix(&f->c);
		tcl_write(&f->c, 0, REG_MSIX, 4, 3);
		assert_int_equal(tcl_events(ev, 0), 0);
		assert_int_equal(tcl_reset(&f->c), 0);
	}
	vio_server_get_stats(f->t.srv, &stats);
	assert_int_equal(stats.clients, 49);
	assert_true(stats.attached);
	assert_int_equal(f->t.nr_attached, 49);
	close(fd);
	close(ev);
}

/* A9: another client waits in the backlog. */
static void test_second_client(void **state)
{
	static const uint16_t version[2] = { 0, 0 };
	struct fixture *f = *state;
	struct tclient second;
	struct tmsg m;

	tcl_connect(&second, &f->t);
	tcl_send(&second, VFMSG_VERSION, 0, version, 4, NULL, 0);
	assert_true(tcl_is_silent(second.fd, 50));
	assert_alive(&f->c);
	tcl_close(&f->c);
	assert_true(tcl_recv(second.fd, &m));
	assert_int_equal(m.hdr.flags, VFMSG_REPLY);
	assert_alive(&second);
	f->c = second;
}

/*
 * --- VERSION, A3 ---
 */

static void test_version(void **state)
{
	static const struct {
		const char *name;
		uint16_t major, minor;
		const char *json;
		int ret;
		bool write_multi;
	} rows[] = {
		{ "A3 no JSON (SPDK)", 0, 0, NULL, 0 },
		{ "A3 minor 1 (Cloud Hypervisor)", 0, 1,
		  "{\"capabilities\":{\"max_msg_fds\":16,\"x\":0}}", 0 },
		{ "A3 short", 0, 0, "{}", 0 },
		{ "A3 write_multiple", 0, 0,
		  "{                                                    "
		  "                                                     "
		  "\"capabilities\":{\"write_multiple\":true}}",
		  0, true },
		{ "A3 major", 1, 0, "{}", EOPNOTSUPP },
		{ "A3 no JSON at all", 0, 0, "}", EINVAL },
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		size_t json_len = rows[i].json ? strlen(rows[i].json) + 1 : 0;
		uint8_t buf[300] = { 0 };
		struct tmsg m;

		print_message("%s\n", rows[i].name);
		tcl_close(&f->c);
		tcl_connect(&f->c, &f->t);
		memcpy(buf, &rows[i].major, 2);
		memcpy(buf + 2, &rows[i].minor, 2);
		if (json_len)
			memcpy(buf + 4, rows[i].json, json_len);
		assert_int_equal(tcl_call(&f->c, VFMSG_VERSION, buf,
					  4 + json_len, NULL, 0, &m),
				 rows[i].ret);
		if (rows[i].ret)
			continue;
		assert_in_range(m.len, 4, 4 + json_len);
		assert_memory_equal(m.payload, "\0\0\0\0", 4);
		assert_int_equal(m.nr_fds, 0);
		if (m.len > 4) {
			assert_int_equal(m.payload[m.len - 1], 0);
			assert_int_equal(!!strstr((char *)m.payload + 4,
						  "write_multiple"),
					 rows[i].write_multi);
		}
		assert_alive(&f->c);
	}
}

static void test_version_order(void **state)
{
	struct fixture *f = *state;
	uint8_t payload[64] = { 64 };
	struct twire_dma_map map = { 32, 3, 0, 0, 4096 };

	/* Twice. */
	assert_int_equal(tcl_version(&f->c, "{}"), EINVAL);
	assert_alive(&f->c);

	/* Not first. */
	tcl_close(&f->c);
	tcl_connect(&f->c, &f->t);
	for (uint16_t cmd = 2; cmd < 20; cmd++)
		assert_int_not_equal(
			tcl_call(&f->c, cmd, payload, 64, NULL, 0, NULL), 0);
	assert_int_equal(
		tcl_call(&f->c, VFMSG_DMA_MAP, &map, 32, NULL, 0, NULL),
		EINVAL);
	assert_int_equal(tcl_version(&f->c, "{}"), 0);
	assert_alive(&f->c);
	assert_int_equal(tcl_read(&f->c, 0, REG_NR_RESETS, 4), 1);
}

/*
 * --- Information, A4 ---
 */

static void test_info(void **state)
{
	struct fixture *f = *state;
	/* Cloud Hypervisor announces 32 and sends 16. */
	uint32_t get[4] = { 32 }, info[4];
	struct tmsg m;

	assert_int_equal(tcl_call(&f->c, VFMSG_GET_INFO, get, 16, NULL, 0, &m),
			 0);
	assert_int_equal(m.len, 16);
	memcpy(info, m.payload, 16);
	assert_int_equal(info[0], 16);
	assert_int_equal(info[1], 3);
	assert_int_equal(info[2], 9);
	assert_int_equal(info[3], 5);
	get[0] = 15;
	assert_int_equal(
		tcl_call(&f->c, VFMSG_GET_INFO, get, 16, NULL, 0, NULL),
		EINVAL);
}

static void test_region_info(void **state)
{
	static const uint64_t sizes[9] = {
		[0] = TDEV_BAR_BYTES,
		[1] = 8192,
		[7] = 256,
	};
	struct fixture *f = *state;

	for (uint32_t i = 0; i < 12; i++) {
		uint32_t get[20] = { 32, 0, i };
		struct vfmsg_region_info info;
		struct tmsg m;
		int ret = tcl_call(&f->c, VFMSG_GET_REGION_INFO, get,
				   /* A9: SPDK sends more */
				   i % 2 ? 32 : 77, NULL, 0, &m);

		assert_int_equal(ret, i < 9 ? 0 : EINVAL);
		if (ret)
			continue;
		assert_int_equal(m.len, 32);
		assert_int_equal(m.nr_fds, 0);
		memcpy(&info, m.payload, 32);
		assert_int_equal(info.argsz, 32);
		assert_int_equal(info.index, i);
		assert_int_equal(info.size, sizes[i]);
		/* trap 8: nothing that can be mapped */
		assert_int_equal(info.flags, sizes[i] ? 3 : 0);
		assert_int_equal(info.cap_offset, 0);

		/* hostile Q24: a reply that is larger than argsz */
		get[0] = 31;
		assert_int_equal(tcl_call(&f->c, VFMSG_GET_REGION_INFO, get, 32,
					  NULL, 0, NULL),
				 EINVAL);
	}
}

static void test_io_fds(void **state)
{
	struct fixture *f = *state;
	uint32_t get[4] = { 16 }, info[4];
	struct tmsg m;

	/* trap 18 */
	assert_int_equal(
		tcl_call(&f->c, VFMSG_GET_REGION_IO_FDS, get, 16, NULL, 0, &m),
		0);
	memcpy(info, m.payload, 16);
	assert_int_equal(m.len, 16);
	assert_int_equal(info[0], 16);
	assert_int_equal(info[3], 0);
}

static void test_irq_info(void **state)
{
	static const struct {
		uint32_t count, flags;
	} want[5] = {
		{ 1, 7 }, { 1, 1 }, { TDEV_NR_MSIX, 1 }, { 1, 1 }, { 1, 1 }
	};
	struct fixture *f = *state;

	for (uint32_t i = 0; i < 8; i++) {
		uint32_t get[4] = { 16, 0, i }, info[4];
		struct tmsg m;
		int ret = tcl_call(&f->c, VFMSG_GET_IRQ_INFO, get, 16, NULL, 0,
				   &m);

		assert_int_equal(ret, i < 5 ? 0 : EINVAL);
		if (ret)
			continue;
		memcpy(info, m.payload, 16);
		assert_int_equal(m.len, 16);
		assert_int_equal(info[1], want[i].flags);
		assert_int_equal(info[3], want[i].count);
	}
}

/*
 * --- Regions, A4, A6, A9 ---
 */

static void test_region_access(void **state)
{
	static const uint32_t sizes[] = { 1, 2, 4, 8 };
	struct fixture *f = *state;

	for (size_t i = 0; i < 4; i++) {
		uint64_t val = 0x8877665544332211;

		tcl_write(&f->c, 0, 0x40, sizes[i], val);
		assert_int_equal(tcl_read(&f->c, 0, REG_LAST_SIZE, 4),
				 sizes[i]);
		tcl_write(&f->c, 0, 0x48, 8, 0);
		assert_true(tcl_read(&f->c, 0, 0x40, sizes[i]) ==
			    (val & (MAX64 >> (64 - 8 * sizes[i]))));
		assert_int_equal(tcl_read(&f->c, 0, REG_LAST_SIZE, 4),
				 sizes[i]);
	}
	/* Not naturally aligned: in pieces. */
	tcl_write(&f->c, 0, 0x43, 4, 0xa1a2a3a4);
	assert_int_equal(tcl_read(&f->c, 0, REG_LAST_SIZE, 4), 1);
	assert_int_equal(tcl_read(&f->c, 0, 0x43, 4), 0xa1a2a3a4);
	assert_int_equal(tcl_read(&f->c, 0, 0x40, 8) >> 24 & MAX32, 0xa1a2a3a4);
}

/* A6: QEMU reads all of configuration space, and more, in one message. */
static void test_bulk_read(void **state)
{
	struct fixture *f = *state;
	struct twire_access w = { 0, CFG, 4096 };
	struct tmsg m;

	assert_int_equal(
		tcl_call(&f->c, VFMSG_REGION_READ, &w, 16, NULL, 0, &m), 0);
	assert_int_equal(m.len, 16 + 4096);
	for (unsigned i = 0; i < 256; i++)
		assert_int_equal(m.payload[16 + i], f->t.dev.pi->pi_cfg[i]);
	for (unsigned i = 256; i < 4096; i++)
		assert_int_equal(m.payload[16 + i], 0xff);
}

/* A9, trap 17: what cannot be served is all ones, with success. */
static void test_region_bounds(void **state)
{
	static const struct {
		const char *name;
		uint64_t offset;
		uint32_t region, count;
	} rows[] = {
		{ "hostile D39 at the end", TDEV_BAR_BYTES, 0, 4 },
		{ "hostile D39 beyond", TDEV_BAR_BYTES * 2, 0, 4 },
		{ "hostile D39 offset + count wraps", MAX64, 0, 4 },
		{ "hostile D39 offset + count wraps to 0", MAX64 - 3, 0, 4 },
		{ "hostile D39 offset of 2^32", 1ull << 32, 0, 4 },
		{ "hostile S26 near 2^32", 0xfffffffc, 0, 4 },
		{ "hostile D39 config space", 256, CFG, 4 },
		{ "hostile D39 config space wraps", MAX64 - 1, CFG, 4 },
		{ "A4 no such BAR", 0, 3, 4 },
		{ "A4 no ROM", 0, 6, 4 },
		{ "A4 no VGA", 0, 8, 4 },
		{ "A4 no such region", 0, 9, 4 },
		{ "hostile D39 region", 0, MAX32, 4 },
	};
	struct fixture *f = *state;
	struct twire_access w;

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		print_message("%s\n", rows[i].name);
		assert_int_equal(tcl_read(&f->c, rows[i].region, rows[i].offset,
					  rows[i].count),
				 MAX32);
		tcl_write(&f->c, rows[i].region, rows[i].offset, rows[i].count,
			  0x5555);
	}
	/* Half in, half out. */
	assert_true(tcl_read(&f->c, 0, TDEV_BAR_BYTES - 4, 8) == (uint64_t)MAX32
									 << 32);
	/* hostile D39 count 0 */
	tcl_read(&f->c, 0, 0, 0);
	tcl_write(&f->c, 0, 0, 0, 0);
	assert_int_equal(tcl_read(&f->c, 0, 0, 8), 0);
	/* More than was negotiated. */
	w = (struct twire_access){ 0, 0, VFMSG_MAX_XFER + 1 };
	assert_int_equal(
		tcl_call(&f->c, VFMSG_REGION_READ, &w, 16, NULL, 0, NULL),
		E2BIG);
	w.count = MAX32;
	assert_int_equal(
		tcl_call(&f->c, VFMSG_REGION_READ, &w, 16, NULL, 0, NULL),
		E2BIG);
	/* Less data than announced. */
	w.count = 4;
	assert_int_equal(
		tcl_call(&f->c, VFMSG_REGION_WRITE, &w, 16, NULL, 0, NULL),
		EINVAL);
	assert_alive(&f->c);
}

static void test_write_multi(void **state)
{
	struct fixture *f = *state;
	struct {
		uint64_t nr;
		struct {
			struct twire_access access;
			uint64_t data;
		} e[3];
	} w = { 3,
		{ { { 0x20, 0, 8 }, htole64(0x1122334455667788) },
		  { { 0x20, 0, 2 }, htole64(0xaaaa) },
		  { { MAX64, 9, 8 }, 0 } } };
	struct tmsg m;

	assert_int_equal(tcl_call(&f->c, VFMSG_REGION_WRITE_MULTI, &w,
				  sizeof(w), NULL, 0, &m),
			 0);
	assert_int_equal(m.len, 8);
	assert_memory_equal(m.payload, &w.nr, 8);
	assert_true(tcl_read(&f->c, 0, 0x20, 8) == 0x112233445566aaaa);
	w.nr = 4;
	assert_int_equal(tcl_call(&f->c, VFMSG_REGION_WRITE_MULTI, &w,
				  sizeof(w), NULL, 0, NULL),
			 EINVAL);
	w.nr = MAX64;
	assert_int_equal(tcl_call(&f->c, VFMSG_REGION_WRITE_MULTI, &w,
				  sizeof(w), NULL, 0, NULL),
			 EINVAL);
}

/*
 * --- The loop also serves others ---
 */

struct iterations {
	struct tdev *dev;
	struct vio_source *source;
	uint32_t before, most; /* resets and register writes, in an iteration */
	bool end, ended;
};

static void on_iteration(void *arg, uint32_t events)
{
	struct iterations *t = arg;
	uint32_t now = t->dev->nr_resets + t->dev->nr_writes;

	if (now - t->before > t->most)
		t->most = now - t->before;
	t->before = now;
	if (!__atomic_load_n(&t->end, __ATOMIC_ACQUIRE))
		return;
	vio_source_remove(t->source);
	__atomic_store_n(&t->ended, true, __ATOMIC_RELEASE);
}

/* A full buffer of commands does not keep others from their turn. */
static void test_iteration_budget(void **state)
{
	struct fixture *f = *state;
	enum { NR_WRITES = 43000, NR_RESETS = 20000 };
	struct entry {
		struct twire_access access;
		uint64_t data;
	} *e;
	size_t len = 8 + NR_WRITES * sizeof(*e);
	uint64_t *w = calloc(1, len);
	struct vfmsg_hdr *resets = calloc(NR_RESETS, sizeof(*resets));
	struct iterations iterations = { &f->t.dev };
	int fd = eventfd(1, EFD_CLOEXEC); /* ready in every iteration */
	struct tmsg m;

	w[0] = NR_WRITES;
	e = (struct entry *)(w + 1);
	for (int i = 0; i < NR_WRITES; i++)
		e[i].access = (struct twire_access){ 0x20, 0, 8 };
	for (int i = 0; i < NR_RESETS; i++)
		resets[i] = (struct vfmsg_hdr){ 0, VFMSG_RESET, 16,
						VFMSG_NO_REPLY };
	assert_int_equal(vio_fd_add(f->t.loop, fd, EPOLLIN, on_iteration,
				    &iterations, &iterations.source),
			 0);
	assert_int_equal(
		tcl_call(&f->c, VFMSG_REGION_WRITE_MULTI, w, len, NULL, 0, &m),
		0);
	assert_memory_equal(m.payload, w, 8);
	assert_int_equal(f->t.dev.nr_writes, NR_WRITES);
	len = NR_RESETS * sizeof(*resets);
	assert_int_equal(send(f->c.fd, resets, len, 0), len);
	assert_int_equal(tcl_read(&f->c, 0, REG_NR_RESETS, 4), NR_RESETS);
	assert_in_range(iterations.most, 1, 1024);
	__atomic_store_n(&iterations.end, true, __ATOMIC_RELEASE);
	while (!__atomic_load_n(&iterations.ended, __ATOMIC_ACQUIRE))
		usleep(100);
	close(fd);
	free(w);
	free(resets);
}

/* A6, traps 15 and 21: RESET clears the device, not the client's set-up. */
static void test_reset(void **state)
{
	struct fixture *f = *state;
	int fd = tcl_memfd(MiB), ev = eventfd(0, 0);

	assert_int_equal(tcl_map(&f->c, 0, MiB, 0, 3, fd), 0);
	assert_int_equal(
		tcl_set_irqs(&f->c, EVENTFD | TRIGGER, 2, 1, 1, &ev, 1), 0);
	tcl_enable_msix(&f->c);
	tcl_write(&f->c, CFG, 4, 2, 0x107);
	tcl_write(&f->c, 0, 0, 4, 0x1234);
	tcl_write(&f->c, 0, REG_MSIX, 4, 2); /* pending: unbound */
	assert_int_equal(tcl_reset(&f->c), 0);
	assert_int_equal(tcl_read(&f->c, 0, 0, 4), 0);
	assert_int_equal(tcl_read(&f->c, CFG, 4, 2) & 0x507, 0);
	assert_int_equal(tcl_read(&f->c, CFG, TDEV_MSIX_CAP + 2, 2) >> 14, 0);
	assert_int_equal(tcl_nr_maps(), 1);
	tcl_enable_msix(&f->c);
	tcl_write(&f->c, 0, REG_MSIX, 4, 1);
	assert_int_equal(tcl_events(ev, 0), 1);
	/* What was pending before no longer is. */
	assert_int_equal(
		tcl_set_irqs(&f->c, EVENTFD | TRIGGER, 2, 2, 1, &ev, 1), 0);
	assert_int_equal(tcl_events(ev, 0), 0);
	close(fd);
	close(ev);
}

/*
 * --- Interrupts, A4 ---
 */

static void test_msix(void **state)
{
	struct fixture *f = *state;
	int ev[4];

	for (unsigned i = 0; i < 4; i++)
		ev[i] = eventfd(0, 0); /* a full one would block */
	tcl_enable_msix(&f->c);
	/* A range that does not begin at 0, trap 9. */
	assert_int_equal(tcl_set_irqs(&f->c, EVENTFD | TRIGGER, 2, 5, 4, ev, 4),
			 0);
	for (unsigned i = 0; i < 4; i++) {
		tcl_write(&f->c, 0, REG_MSIX, 4, 5 + i);
		for (unsigned j = 0; j < 4; j++)
			assert_int_equal(tcl_events(ev[j], 0), i == j);
	}
	/* Replace one; the old one is forgotten. */
	assert_int_equal(
		tcl_set_irqs(&f->c, EVENTFD | TRIGGER, 2, 5, 1, &ev[3], 1), 0);
	tcl_write(&f->c, 0, REG_MSIX, 4, 5);
	assert_int_equal(tcl_events(ev[0], 0), 0);
	assert_int_equal(tcl_events(ev[3], 0), 1);
	/* Unbind a part of the range, trap 9: start..start + count. */
	assert_int_equal(
		tcl_set_irqs(&f->c, EVENTFD | TRIGGER, 2, 6, 2, NULL, 0), 0);
	for (unsigned v = 5; v < 9; v++)
		tcl_write(&f->c, 0, REG_MSIX, 4, v);
	assert_int_equal(tcl_events(ev[1], 0), 0);
	assert_int_equal(tcl_events(ev[2], 0), 0);
	assert_int_equal(tcl_events(ev[3], 0), 2); /* 5 and 8 */
	/* 6 and 7 were raised meanwhile: delivered when bound. */
	assert_int_equal(
		tcl_set_irqs(&f->c, EVENTFD | TRIGGER, 2, 6, 1, &ev[1], 1), 0);
	assert_int_equal(tcl_events(ev[1], 0), 1);
	/* Unbind all, then bind again: the NORESIZE sequence. */
	assert_int_equal(tcl_set_irqs(&f->c, NONE | TRIGGER, 2, 0, 0, NULL, 0),
			 0);
	tcl_write(&f->c, 0, REG_MSIX, 4, 8);
	assert_int_equal(tcl_events(ev[3], 0), 0);
	assert_int_equal(tcl_set_irqs(&f->c, EVENTFD | TRIGGER, 2, 5, 4, ev, 4),
			 0);
	assert_int_equal(tcl_events(ev[2], 0), 1); /* 7, from above */
	assert_int_equal(tcl_events(ev[3], 0), 1);
	assert_int_equal(tcl_events(ev[0], 0), 0);
	for (unsigned i = 0; i < 4; i++)
		close(ev[i]);
}

static void test_loopback_and_masks(void **state)
{
	struct fixture *f = *state;
	struct {
		struct twire_irqs irqs;
		uint8_t bools[3];
	} w = { { 23, BOOL | TRIGGER, 2, 0, 3 }, { 1, 0, 1 } };
	int ev[3];

	for (unsigned i = 0; i < 3; i++)
		ev[i] = eventfd(0, EFD_NONBLOCK);
	assert_int_equal(tcl_set_irqs(&f->c, EVENTFD | TRIGGER, 2, 0, 3, ev, 3),
			 0);
	assert_int_equal(tcl_set_irqs(&f->c, NONE | TRIGGER, 2, 1, 2, NULL, 0),
			 0);
	assert_int_equal(tcl_events(ev[0], 0), 0);
	assert_int_equal(tcl_events(ev[1], 0), 1);
	assert_int_equal(tcl_events(ev[2], 0), 1);
	assert_int_equal(tcl_call(&f->c, VFMSG_SET_IRQS, &w, 23, NULL, 0, NULL),
			 0);
	assert_int_equal(tcl_events(ev[0], 0), 1);
	assert_int_equal(tcl_events(ev[1], 0), 0);
	assert_int_equal(tcl_events(ev[2], 0), 1);

	tcl_enable_msix(&f->c);
	w.irqs.flags = BOOL | MASK; /* 0 and 2 */
	assert_int_equal(tcl_call(&f->c, VFMSG_SET_IRQS, &w, 23, NULL, 0, NULL),
			 0);
	for (unsigned v = 0; v < 3; v++)
		tcl_write(&f->c, 0, REG_MSIX, 4, v);
	assert_int_equal(tcl_events(ev[0], 0), 0);
	assert_int_equal(tcl_events(ev[1], 0), 1);
	assert_int_equal(tcl_events(ev[2], 0), 0);
	assert_int_equal(tcl_set_irqs(&f->c, NONE | UNMASK, 2, 0, 3, NULL, 0),
			 0);
	assert_int_equal(tcl_events(ev[0], 0), 1);
	assert_int_equal(tcl_events(ev[1], 0), 0);
	assert_int_equal(tcl_events(ev[2], 0), 1);
	for (unsigned i = 0; i < 3; i++)
		close(ev[i]);
}

/* A6: a level to the guest, an event on the wire. */
static void test_intx(void **state)
{
	struct fixture *f = *state;
	int ev = eventfd(0, 0), resample = eventfd(0, 0);
	uint64_t one = 1;

	/* Asserted before it is bound: fires when it is. */
	tcl_write(&f->c, 0, REG_INTX, 4, 1);
	assert_int_equal(
		tcl_set_irqs(&f->c, EVENTFD | TRIGGER, 0, 0, 1, &ev, 1), 0);
	assert_int_equal(tcl_events(ev, 0), 1);
	/* It has masked itself. */
	tcl_write(&f->c, 0, REG_INTX, 4, 0);
	tcl_write(&f->c, 0, REG_INTX, 4, 1);
	assert_int_equal(tcl_events(ev, 0), 0);
	/* Unmasked while asserted: fires again. trap 9: UNMASK at any time. */
	assert_int_equal(tcl_set_irqs(&f->c, NONE | UNMASK, 0, 0, 1, NULL, 0),
			 0);
	assert_int_equal(tcl_events(ev, 0), 1);
	tcl_write(&f->c, 0, REG_INTX, 4, 0);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(
			tcl_set_irqs(&f->c, NONE | UNMASK, 0, 0, 1, NULL, 0),
			0);
	assert_int_equal(tcl_events(ev, 0), 0);
	tcl_write(&f->c, 0, REG_INTX, 4, 1);
	assert_int_equal(tcl_events(ev, 0), 1);
	tcl_write(&f->c, 0, REG_INTX, 4, 0);
	assert_int_equal(tcl_set_irqs(&f->c, NONE | UNMASK, 0, 0, 1, NULL, 0),
			 0);
	/* Masked explicitly. */
	assert_int_equal(tcl_set_irqs(&f->c, NONE | MASK, 0, 0, 1, NULL, 0), 0);
	tcl_write(&f->c, 0, REG_INTX, 4, 1);
	assert_int_equal(tcl_events(ev, 0), 0);
	/* Unmasked by an event, like KVM. */
	assert_int_equal(
		tcl_set_irqs(&f->c, EVENTFD | UNMASK, 0, 0, 1, &resample, 1),
		0);
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(write(resample, &one, 8), 8);
		assert_int_equal(tcl_events(ev, TCL_PATIENCE_MS), 1);
	}
	/* And no longer. */
	assert_int_equal(
		tcl_set_irqs(&f->c, EVENTFD | UNMASK, 0, 0, 1, NULL, 0), 0);
	assert_int_equal(write(resample, &one, 8), 8);
	assert_int_equal(tcl_events(ev, 50), 0);
	/* Loop-back ignores the level. */
	assert_int_equal(tcl_set_irqs(&f->c, NONE | TRIGGER, 0, 0, 1, NULL, 0),
			 0);
	assert_int_equal(tcl_events(ev, 0), 1);
	/* Unbound and bound: still asserted, so it fires. */
	assert_int_equal(tcl_set_irqs(&f->c, NONE | TRIGGER, 0, 0, 0, NULL, 0),
			 0);
	assert_int_equal(
		tcl_set_irqs(&f->c, EVENTFD | TRIGGER, 0, 0, 1, &ev, 1), 0);
	assert_int_equal(tcl_events(ev, 0), 1);
	close(ev);
	close(resample);
}

/* trap 9: each index has its own descriptors. */
static void test_irq_indices(void **state)
{
	struct fixture *f = *state;
	int ev[5];

	for (uint32_t i = 0; i < 5; i++) {
		ev[i] = eventfd(0, 0);
		assert_int_equal(tcl_set_irqs(&f->c, EVENTFD | TRIGGER, i, 0, 1,
					      &ev[i], 1),
				 0);
	}
	for (uint32_t i = 0; i < 5; i++) {
		assert_int_equal(
			tcl_set_irqs(&f->c, NONE | TRIGGER, i, 0, 1, NULL, 0),
			0);
		for (uint32_t j = 0; j < 5; j++)
			assert_int_equal(tcl_events(ev[j], 0), i == j);
		assert_int_equal(
			tcl_set_irqs(&f->c, NONE | TRIGGER, i, 0, 0, NULL, 0),
			0);
	}
	for (uint32_t i = 0; i < 5; i++)
		close(ev[i]);
}

static void test_irq_ranges(void **state)
{
	static const struct {
		const char *name;
		uint32_t flags, index, start, count;
		unsigned nr_fds;
		int ret;
	} rows[] = {
		{ "A4 last vector", 0x24, 2, TDEV_NR_MSIX - 1, 1, 1, 0 },
		{ "hostile D39 start", 0x24, 2, TDEV_NR_MSIX, 1, 1, EINVAL },
		{ "hostile D39 count", 0x24, 2, 0, TDEV_NR_MSIX + 1, 0,
		  EINVAL },
		{ "hostile D39 start max", 0x24, 2, MAX32, 1, 1, EINVAL },
		{ "hostile D39 count max", 0x24, 2, 1, MAX32, 1, EINVAL },
		{ "hostile D39 both", 0x21, 2, 0x80000000, 0x80000000, 0,
		  EINVAL },
		{ "hostile D39 index", 0x24, 5, 0, 1, 1, EINVAL },
		{ "A4 second INTx", 0x24, 0, 1, 1, 1, EINVAL },
		{ "A4 fewer fds than vectors", 0x24, 2, 0, 4, 3, EINVAL },
		{ "A4 more fds than vectors", 0x24, 2, 0, 2, 3, EINVAL },
		{ "A4 resample of MSI-X", 0x14, 2, 0, 1, 1, EINVAL },
		{ "A4 two resamples", 0x14, 0, 0, 2, 2, EINVAL },
		{ "A4 mask event", 0x0c, 0, 0, 1, 1, 0 },
		{ "A4 unmask bound, surplus fds", 0x11, 0, 0, 1, 3, 0 },
	};
	struct fixture *f = *state;
	unsigned nr_fds;
	int ev[4];

	for (unsigned i = 0; i < 4; i++)
		ev[i] = eventfd(0, 0);
	assert_alive(&f->c);
	nr_fds = process_nr_fds();
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		print_message("%s\n", rows[i].name);
		assert_int_equal(tcl_set_irqs(&f->c, rows[i].flags,
					      rows[i].index, rows[i].start,
					      rows[i].count, ev,
					      rows[i].nr_fds),
				 rows[i].ret);
	}
	/* Only the two that were accepted are left. */
	assert_int_equal(process_nr_fds(), nr_fds + 2);
	for (unsigned i = 0; i < 4; i++)
		close(ev[i]);
}

/* Writing to these could kill or hang us. */
static void test_not_an_eventfd(void **state)
{
	struct fixture *f = *state;
	int fds[2], fd;

	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	assert_int_equal(
		tcl_set_irqs(&f->c, EVENTFD | TRIGGER, 2, 0, 1, &fds[1], 1),
		EINVAL);
	assert_int_equal(tcl_set_irqs(&f->c, EVENTFD | UNMASK, 0, 0, 1, fds, 1),
			 EINVAL);
	close(fds[0]);
	close(fds[1]);
	fd = tcl_memfd(4096);
	assert_int_equal(
		tcl_set_irqs(&f->c, EVENTFD | TRIGGER, 2, 0, 1, &fd, 1),
		EINVAL);
	close(fd);
	/* A full one does not block. */
	fd = eventfd(0, 0);
	assert_int_equal(write(fd, &(uint64_t){ MAX64 - 1 }, 8), 8);
	assert_int_equal(
		tcl_set_irqs(&f->c, EVENTFD | TRIGGER, 2, 0, 1, &fd, 1), 0);
	tcl_enable_msix(&f->c);
	tcl_write(&f->c, 0, REG_MSIX, 4, 0);
	assert_alive(&f->c);
	close(fd);
}

/*
 * --- DMA regions, A4, A7 ---
 */

/* Make the device copy, all in shared memory. */
static void dev_copy(struct tclient *c, uint64_t src, uint64_t dst,
		     uint64_t len)
{
	tcl_write(c, 0, REG_SRC, 8, src);
	tcl_write(c, 0, REG_DST, 8, dst);
	tcl_write(c, 0, REG_DONE, 8, dst + len);
	tcl_write(c, 0, REG_LEN, 8, len);
	tcl_write(c, 0, REG_DOORBELL, 4, 0);
}

static void test_dma_map(void **state)
{
	struct fixture *f = *state;
	int fd = tcl_memfd(4 * MiB);
	uint8_t *mem =
		mmap(NULL, 4 * MiB, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	struct vio_server_stats stats;

	assert_true(mem != MAP_FAILED);
	/* Adjacent pieces of one file, out of order. */
	assert_int_equal(tcl_map(&f->c, 0x100000, MiB, 2 * MiB, 3, fd), 0);
	assert_int_equal(tcl_map(&f->c, 0x200000, MiB, 0, 3, fd), 0);
	assert_int_equal(tcl_map(&f->c, 0x300000, MiB, 3 * MiB, 1, fd), 0);
	assert_int_equal(tcl_map(&f->c, 0x400000, 4096, 4096, 3, fd), 0);
	assert_int_equal(tcl_map(&f->c, 0x800000, 4096, 0, 1, -1), 0);
	vio_server_get_stats(f->t.srv, &stats);
	assert_int_equal(stats.mem_regions, 5);
	assert_int_equal(stats.mem_bytes, 3 * MiB + 8192);

	memset(mem + 3 * MiB - 100, 'a', 100);
	memset(mem, 'b', 100);
	dev_copy(&f->c, 0x1fff9c, 0x2ffe00, 200); /* across two regions */
	assert_int_equal(mem[MiB - 512], 'a');
	assert_int_equal(mem[MiB - 512 + 199], 'b');
	assert_int_equal(mem[MiB - 512 + 200], 0x0d);

	dev_copy(&f->c, 0x1fff9c, 0x300000, 200); /* read-only */
	assert_int_equal(tcl_read(&f->c, 0, REG_LAST_ERROR, 4), EACCES);
	dev_copy(&f->c, 0x3fffff, 0x400100, 2); /* from ro into rw is fine */
	assert_int_equal(tcl_read(&f->c, 0, REG_LAST_ERROR, 4), 0);
	dev_copy(&f->c, 0x401000 - 4, 0x200000, 8); /* past the end */
	assert_int_equal(tcl_read(&f->c, 0, REG_LAST_ERROR, 4), EFAULT);
	munmap(mem, 4 * MiB);
	close(fd);
}

static void test_bad_dma_map(void **state)
{
	static const struct {
		const char *name;
		uint64_t iova, size, offset;
		uint32_t flags;
		int ret;
	} rows[] = {
		{ "A4 as large as the file", 0, MiB, 0, 3, 0 },
		{ "A4 again", 0, MiB, 0, 3, EEXIST },
		{ "A4 overlap at the end", MiB - 4096, MiB, 0, 3, EEXIST },
		{ "A4 inside", 4096, 4096, 0, 3, EEXIST },
		{ "A4 beyond the file", 2 * MiB, MiB + 4096, 0, 3, EINVAL },
		{ "A4 offset beyond the file", 2 * MiB, MiB, 4096, 3, EINVAL },
		{ "A4 all beyond the file", 2 * MiB, 4096, MiB, 3, EINVAL },
		{ "hostile D39 size", 2 * MiB, MAX64, 0, 3, EINVAL },
		{ "hostile D39 offset", 2 * MiB, 4096, MAX64 - 4095, 3,
		  EINVAL },
		{ "hostile D39 iova", MAX64 - 4095, 8192, 0, 3, EINVAL },
		{ "hostile D39 count 0", 2 * MiB, 0, 0, 3, EINVAL },
		{ "A4 no protection", 2 * MiB, 4096, 0, 0, EINVAL },
		{ "A4 unknown flag", 2 * MiB, 4096, 0, 0x43, EINVAL },
		{ "A4 mmap flag", 2 * MiB, 4096, 0, 7, 0 },
		{ "offset in the middle of a page", 4 * MiB, 4096, 50, 3,
		  EINVAL },
		{ "address in the middle of a page", 4 * MiB + 2048, 4096, 0, 3,
		  EINVAL },
		{ "half a page", 4 * MiB, 2048, 0, 3, EINVAL },
	};
	struct fixture *f = *state;
	int fd = tcl_memfd(MiB), pipes[2], ro;
	char path[64];

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		print_message("%s\n", rows[i].name);
		assert_int_equal(tcl_map(&f->c, rows[i].iova, rows[i].size,
					 rows[i].offset, rows[i].flags, fd),
				 rows[i].ret);
	}
	assert_int_equal(tcl_nr_maps(), 1); /* of the file, for both */
	/* A descriptor without the right; ones that cannot be mapped. */
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	ro = open(path, O_RDONLY | O_CLOEXEC);
	assert_int_equal(tcl_map(&f->c, 8 * MiB, 4096, 0, 3, ro), EACCES);
	assert_int_equal(tcl_map(&f->c, 8 * MiB, 4096, 0, 1, ro), 0);
	close(ro);
	assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
	assert_int_equal(tcl_map(&f->c, 9 * MiB, 4096, 0, 3, pipes[0]), EINVAL);
	close(pipes[0]);
	close(pipes[1]);
	close(fd);
}

/* trap 34: huge pages map only whole, and regions may begin inside one. */
static void test_dma_map_huge(void **state)
{
	struct fixture *f = *state;
	int fd = memfd_create("guest", MFD_CLOEXEC | MFD_HUGETLB);
	uint8_t *mem;

	if (fd < 0 || ftruncate(fd, 4 * MiB) < 0)
		skip();
	mem = mmap(NULL, 4 * MiB, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (mem == MAP_FAILED) {
		close(fd);
		skip();
	}
	assert_int_equal(tcl_map(&f->c, 0, 0xa0000, 0, 3, fd), 0);
	assert_int_equal(tcl_map(&f->c, MiB, 2 * MiB, MiB, 3, fd), 0);
	memcpy(mem + MiB + 100, "huge", 4);
	dev_copy(&f->c, MiB + 100, 0x9f000, 4);
	assert_memory_equal(mem + 0x9f000, "huge", 4);
	assert_int_equal(tcl_unmap(&f->c, MiB, 2 * MiB, 0), 0);
	assert_int_equal(tcl_unmap(&f->c, 0, 0, 2), 0);
	munmap(mem, 4 * MiB);
	assert_int_equal(tcl_nr_maps(), 0);
	close(fd);
}

static void test_dma_unmap(void **state)
{
	static const struct {
		const char *name;
		uint64_t iova, size;
		uint32_t flags;
		int ret;
		uint64_t left; /* regions of four, of 64 KiB at each MiB */
	} rows[] = {
		{ "A4 exact", 0, 65536, 0, 0, 3 },
		{ "A7 two", 0, 2 * MiB, 0, 0, 2 },
		{ "A7 nothing there", 65536, 65536, 0, 0, 4 },
		{ "A7 far away", 0x1000000000, 0x1000000000, 0, 0, 4 },
		{ "A7, trap 19 superset", MiB, 0x1000000000, 0, 0, 1 },
		{ "A7 up to the end", 2 * MiB, 0xffffffffffe00000, 0, 0, 2 },
		{ "A7 past the end", 2 * MiB, MAX64, 0, 0, 2 },
		{ "A4 all", 0, 0, 2, 0, 0 },
		{ "hostile D39 first half", 0, 32768, 0, EINVAL, 4 },
		{ "hostile D39 second half", 32768, 32768, 0, EINVAL, 4 },
		{ "hostile D39 middle", 4096, 4096, 0, EINVAL, 4 },
		{ "hostile D39 one and a half", 0, MiB + 4096, 0, EINVAL, 4 },
		{ "hostile D39 half of the last", 3 * MiB + 4096, MAX64, 0,
		  EINVAL, 4 },
		{ "hostile D39 count 0", 0, 0, 0, EINVAL, 4 },
		{ "A4 all, with address", MiB, 0, 2, EINVAL, 4 },
		{ "A4 dirty bitmap", 0, 65536, 1, EINVAL, 4 },
	};
	struct fixture *f = *state;
	int fd = tcl_memfd(MiB);

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct vio_server_stats stats;

		print_message("%s\n", rows[i].name);
		for (unsigned r = 0; r < 4; r++)
			assert_int_equal(tcl_map(&f->c, r * MiB, 65536,
						 r * 65536, 3,
						 r == 2 ? -1 : fd),
					 0);
		assert_int_equal(tcl_unmap(&f->c, rows[i].iova, rows[i].size,
					   rows[i].flags),
				 rows[i].ret);
		vio_server_get_stats(f->t.srv, &stats);
		assert_int_equal(stats.mem_regions, rows[i].left);
		assert_int_equal(stats.mem_bytes, rows[i].left * 65536);
		assert_int_equal(tcl_unmap(&f->c, 0, 0, 2), 0);
		assert_int_equal(tcl_nr_maps(), 0);
	}
	close(fd);
}

static uint16_t send_unmap(struct fixture *f, uint64_t iova, uint64_t size)
{
	struct twire_dma_unmap w = { 24, 0, iova, size };

	return tcl_send(&f->c, VFMSG_DMA_UNMAP, 0, &w, sizeof(w), NULL, 0);
}

static uint16_t send_map(struct fixture *f, uint64_t iova, uint64_t size,
			 int fd)
{
	struct twire_dma_map w = { 32, 3, 0, iova, size };

	return tcl_send(&f->c, VFMSG_DMA_MAP, 0, &w, sizeof(w), &fd, 1);
}

static void expect_reply(struct fixture *f, uint16_t id, uint32_t error)
{
	struct tmsg m;

	assert_true(tcl_recv(f->c.fd, &m));
	assert_int_equal(m.hdr.id, id);
	assert_int_equal(m.hdr.error, error);
}

/* An IOMMU's pages, away from all else. */
static uint64_t page_at(unsigned i)
{
	return 8 * MiB + i * 8192;
}

/*
 * AP-06: an unmap waits only for requests that use that memory, and only
 * changes of memory wait for it.
 */
static void test_unmap_in_flight(void **state)
{
	enum { PAGES = 200 };
	struct fixture *f = *state;
	int fd = tcl_memfd(MiB), other = tcl_memfd(MiB);
	uint32_t *mem =
		mmap(NULL, MiB, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	uint16_t ids[4];

	assert_int_equal(tcl_map(&f->c, 0, MiB, 0, 3, fd), 0);
	assert_int_equal(tcl_map(&f->c, MiB, MiB, 0, 3, other), 0);
	for (unsigned i = 0; i < PAGES; i++)
		assert_int_equal(
			tcl_map(&f->c, page_at(i), 4096, i * 4096, 3, other),
			0);
	tcl_write(&f->c, 0, REG_SRC, 8, 0x1000);
	tcl_write(&f->c, 0, REG_HOLD, 4, 1);
	assert_int_equal(tcl_unmap(&f->c, MiB, MiB, 0), 0);
	for (unsigned i = 0; i < PAGES; i++)
		assert_int_equal(tcl_unmap(&f->c, page_at(i), 4096, 0), 0);

	ids[0] = send_unmap(f, 0, MiB);
	assert_true(tcl_is_silent(f->c.fd, 50));
	assert_int_equal(f->t.dev.nr_given_back, 1);
	/* Registers and reset are served; so is the new memory. */
	assert_int_equal(tcl_read(&f->c, 0, REG_NR_RESETS, 4), 0);
	ids[1] = send_map(f, 0, MiB, other);
	ids[2] = send_map(f, 0, MiB, other);
	ids[3] = send_unmap(f, 0x1000, 0x1000);
	dev_copy(&f->c, 0, 0x2000, 4);
	assert_int_equal(tcl_read(&f->c, 0, REG_LAST_ERROR, 4), 0);
	assert_int_equal(tcl_reset(&f->c), 0);
	assert_true(tcl_is_silent(f->c.fd, 50));

	/* It ends where it began, and then the answers follow, in order. */
	tcl_post(&f->c, 0, REG_HOLD, 4, 0);
	expect_reply(f, ids[0], 0);
	assert_int_equal(mem[0x1000 / 4], TDEV_DONE_WORD);
	expect_reply(f, ids[1], 0);
	expect_reply(f, ids[2], EEXIST);
	expect_reply(f, ids[3], EINVAL);
	assert_int_equal(tcl_unmap(&f->c, 0, MiB, 0), 0);
	assert_int_equal(tcl_nr_maps(), 1); /* ours */
	munmap(mem, MiB);
	close(fd);
	close(other);
}

/*
 * Unmap memory that a request uses, and continue without any answer, until the
 * server reads no more. Returns the id of the first.
 */
static uint16_t block_with_unmaps(struct fixture *f, unsigned nr)
{
	int fd = tcl_memfd(MiB);
	struct twire_dma_unmap w = { 24, 0, 8 * MiB, MiB };
	struct vio_server_stats stats;
	uint16_t id;

	assert_int_equal(tcl_map(&f->c, 0, MiB, 0, 3, fd), 0);
	tcl_write(&f->c, 0, REG_HOLD, 4, 1);
	id = send_unmap(f, 0, MiB);
	for (unsigned i = 1; i < nr; i++)
		tcl_send(&f->c, VFMSG_DMA_UNMAP, 0, &w, sizeof(w), NULL, 0);
	do
		vio_server_get_stats(f->t.srv, &stats);
	while (stats.messages < 1024 && usleep(1000) == 0);
	assert_true(tcl_is_silent(f->c.fd, 50));
	vio_server_get_stats(f->t.srv, &stats);
	assert_in_range(stats.messages, 1024, 1100);
	close(fd);
	return id;
}

/* A client that continues without any answer is stopped at some point. */
static void test_unmaps_without_end(void **state)
{
	struct fixture *f = *state;
	unsigned nr = 1200; /* the rest stays unread in the socket */
	uint16_t id = block_with_unmaps(f, nr);

	/* Registers are no longer served, so the test ends the request. */
	__atomic_store_n(&f->t.dev.end_hold, true, __ATOMIC_RELEASE);
	f->t.dev.pi->pi_host->ph_wake(f->t.dev.pi->pi_host_arg);
	for (unsigned i = 0; i < nr; i++)
		expect_reply(f, (uint16_t)(id + i), 0);
}

/* If it leaves with its request in flight, the next one is served. */
static void test_gone_without_answers(void **state)
{
	struct fixture *f = *state;

	block_with_unmaps(f, 1200);
	tcl_close(&f->c);
	tsrv_await_detached(&f->t, 1);
	tcl_open(&f->c, &f->t);
	tcl_write(&f->c, 0, REG_HOLD, 4, 0);
	assert_alive(&f->c);
}

/* The client leaves with a request in flight; the next one need not wait. */
static void test_gone_in_flight(void **state)
{
	struct fixture *f = *state;
	int fd = tcl_memfd(MiB), other = tcl_memfd(MiB);
	uint32_t *mem =
		mmap(NULL, MiB, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	for (int unmapping = 0; unmapping < 2; unmapping++) {
		uint16_t id;

		mem[0] = 0;
		assert_int_equal(tcl_map(&f->c, 0, MiB, 0, 3, fd), 0);
		tcl_write(&f->c, 0, REG_SRC, 8, 0);
		tcl_write(&f->c, 0, REG_HOLD, 4, 1);
		if (unmapping)
			send_unmap(f, 0, MiB);
		tcl_close(&f->c);
		tsrv_await_detached(&f->t, 2 * (unsigned)unmapping + 1);
		tcl_open(&f->c, &f->t);
		assert_int_equal(tcl_map(&f->c, 0, MiB, 0, 3, other), 0);
		dev_copy(&f->c, 0, 0x2000, 4);
		assert_int_equal(tcl_read(&f->c, 0, REG_LAST_ERROR, 4), 0);
		/* Its own unmaps are independent of earlier ones. */
		assert_int_equal(tcl_unmap(&f->c, 0, MiB, 0), 0);
		assert_int_equal(tcl_nr_maps(), 2);
		assert_int_equal(tcl_map(&f->c, 0, MiB, 0, 3, other), 0);
		tcl_write(&f->c, 0, REG_HOLD, 4, 0);
		assert_int_equal(mem[0], TDEV_DONE_WORD);
		while (tcl_nr_maps() > 2) /* ours, and the new one's */
			usleep(1000);
		id = send_unmap(f, 0, MiB);
		expect_reply(f, id, 0);
		tcl_close(&f->c);
		tsrv_await_detached(&f->t, 2 * (unsigned)unmapping + 2);
		tcl_open(&f->c, &f->t);
	}
	munmap(mem, MiB);
	close(fd);
	close(other);
}

/* A thread faults as the client leaves: the next client stays. */
static void test_truncated_last(void **state)
{
	struct fixture *f = *state;
	struct client_wake *wake = &f->t.srv->wake;

	__atomic_store_n(&wake->faulted, true, __ATOMIC_RELEASE);
	tcl_close(&f->c);
	tsrv_await_detached(&f->t, 1);
	tcl_open(&f->c, &f->t);
	client_wake(wake);
	assert_true(tcl_is_silent(f->c.fd, 50));
	assert_alive(&f->c);
}

/* The reset completes: the device is done with the guest's memory. */
static void end_reset(struct fixture *f)
{
	__atomic_store_n(&f->t.dev.slow_reset, false, __ATOMIC_RELEASE);
	pci_set_resetting(f->t.dev.pi, false);
	pci_wake(f->t.dev.pi);
}

static double seconds_since(uint64_t ns)
{
	return (double)(vio_now_ns() - ns) / 1e9;
}

/*
 * A reset and the register accesses behind it are answered when no earlier
 * request uses guest memory any more; but not much later than after two
 * seconds.
 */
static void test_slow_reset(void **state)
{
	struct twire_access w = { REG_NR_RESETS, 0, 4 };
	struct fixture *f = *state;
	uint16_t reset, read;
	uint64_t start;

	for (int ends = 0; ends < 2; ends++) {
		__atomic_store_n(&f->t.dev.slow_reset, true, __ATOMIC_RELEASE);
		start = vio_now_ns();
		reset = tcl_send(&f->c, VFMSG_RESET, 0, NULL, 0, NULL, 0);
		read = tcl_send(&f->c, VFMSG_REGION_READ, 0, &w, sizeof(w),
				NULL, 0);
		assert_true(tcl_is_silent(f->c.fd, 100));
		if (ends)
			end_reset(f);
		expect_reply(f, reset, 0);
		expect_reply(f, read, 0);
		if (!ends) {
			assert_true(seconds_since(start) > 1.9);
			/* It does not wait again: that would be 20 s. */
			start = vio_now_ns();
			for (int i = 0; i < 10; i++)
				assert_int_equal(tcl_reset(&f->c), 0);
			assert_true(seconds_since(start) < 19);
			end_reset(f);
			tcl_read(&f->c, 0, REG_NR_RESETS, 4);
		}
	}

	/* Clients that leave meanwhile are noticed, with messages unread. */
	start = vio_now_ns();
	for (unsigned i = 1; i <= 10; i++) {
		__atomic_store_n(&f->t.dev.slow_reset, true, __ATOMIC_RELEASE);
		tcl_send(&f->c, VFMSG_RESET, 0, NULL, 0, NULL, 0);
		tcl_send(&f->c, VFMSG_REGION_READ, 0, &w, sizeof(w), NULL, 0);
		assert_true(tcl_is_silent(f->c.fd, 100));
		tcl_close(&f->c);
		tsrv_await_detached(&f->t, i);
		end_reset(f);
		tcl_open(&f->c, &f->t);
	}
	assert_true(seconds_since(start) < 19);
}

/* Its own end of the connection, with a message that never becomes whole. */
static void test_sends_its_socket(void **state)
{
	struct fixture *f = *state;
	const uint8_t half[8] = { 0 };
	struct iovec iov = { (void *)half, sizeof(half) };
	union scm scm;
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

	assert_int_equal(tcl_map(&f->c, 0, MiB, 0, 3, f->c.fd), EBADF);
	assert_int_equal(
		tcl_set_irqs(&f->c, EVENTFD | TRIGGER, 0, 0, 1, &f->c.fd, 1),
		EBADF);
	scm_attach(&msg, &scm, &f->c.fd, 1);
	assert_int_equal(sendmsg(f->c.fd, &msg, 0), sizeof(half));
	assert_true(tcl_is_silent(f->c.fd, 20)); /* it has been read */
	tcl_close(&f->c);
	tsrv_await_detached(&f->t, 1);
	tcl_open(&f->c, &f->t);
}

/*
 * Lost descriptors are noticed: memory with a file must not be taken for memory
 * without one.
 */
static void test_no_room_for_descriptors(void **state)
{
	struct fixture *f = *state;
	struct rlimit old, none;
	int fd = tcl_memfd(MiB);
	struct vio_server_stats stats;

	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	none = (struct rlimit){ (rlim_t)fd + 1, old.rlim_max };
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	send_map(f, 0, MiB, fd);
	assert_true(tcl_is_closed(&f->c));
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
	tsrv_await_detached(&f->t, 1);
	vio_server_get_stats(f->t.srv, &stats);
	assert_int_equal(stats.mem_regions, 0);
	tcl_close(&f->c);
	tcl_open(&f->c, &f->t);
	close(fd);
}

/* A7: QEMU sends whole batches before it reads an answer. */
static void test_dma_pipelined(void **state)
{
	struct fixture *f = *state;
	int fd = tcl_memfd(MiB);
	struct tmsg m;
	unsigned nr = 0;

	for (unsigned round = 0; round < 200; round++) {
		struct twire_dma_unmap all = { 24, 2, 0, 0 };

		tcl_send(&f->c, VFMSG_DMA_UNMAP, 0, &all, 24, NULL, 0);
		for (unsigned i = 0; i < 4; i++) {
			struct twire_dma_map w = { 32, 3, i * 4096, i * MiB,
						   4096 };

			tcl_post(&f->c, 0, 0x80, 4, i);
			tcl_send(&f->c, VFMSG_DMA_MAP, 0, &w, 32, &fd, i != 2);
		}
	}
	for (uint16_t id = (uint16_t)(f->c.id - 1800); nr < 1000; nr++) {
		assert_true(tcl_recv(f->c.fd, &m));
		assert_int_equal(m.hdr.flags, VFMSG_REPLY);
		do
			id++;
		while (m.hdr.id != id && id != f->c.id);
		assert_int_equal(m.hdr.id, id); /* in order */
	}
	assert_int_equal(tcl_nr_maps(), 1);
	close(fd);
}

/* hostile Q15, D2: nothing is lost in 10^5 rounds. */
static void test_dma_cycles(void **state)
{
	struct fixture *f = *state;
	int fd = tcl_memfd(MiB);
	unsigned nr_fds = process_nr_fds();

	for (unsigned i = 0; i < 100000; i++) {
		struct twire_dma_map w = { 32, 3, 0, i % 7 * MiB, MiB };
		struct twire_dma_unmap u = { 24, 0, i % 7 * MiB, MiB };

		tcl_send(&f->c, VFMSG_DMA_MAP, VFMSG_NO_REPLY, &w, 32, &fd, 1);
		tcl_send(&f->c, VFMSG_DMA_UNMAP, VFMSG_NO_REPLY, &u, 24, NULL,
			 0);
	}
	assert_alive(&f->c);
	assert_int_equal(process_nr_fds(), nr_fds);
	assert_int_equal(tcl_nr_maps(), 0);
	close(fd);
}

/* The limit that VERSION announced. */
static void test_dma_limit(void **state)
{
	struct fixture *f = *state;

	for (uint64_t i = 0; i < VFMSG_MAX_DMA_MAPS; i++) {
		struct twire_dma_map w = { 32, 3, 0, i * 8192, 4096 };

		tcl_send(&f->c, VFMSG_DMA_MAP, VFMSG_NO_REPLY, &w, 32, NULL, 0);
	}
	assert_int_equal(tcl_map(&f->c, 1ull << 40, 4096, 0, 3, -1), ENOSPC);
	assert_int_equal(tcl_unmap(&f->c, 0, 4096, 0), 0);
	assert_int_equal(tcl_map(&f->c, 1ull << 40, 4096, 0, 3, -1), 0);
	assert_int_equal(tcl_unmap(&f->c, 0, 0, 2), 0);
	assert_alive(&f->c);
}

/*
 * --- File descriptors, A1 ---
 */

/* hostile D2, D7, trap 32: unwanted descriptors are closed. */
static void test_fd_floods(void **state)
{
	static const unsigned counts[] = { 1, 8, 9, 16, 17, 253 };
	struct fixture *f = *state;
	uint8_t payload[64] = { 64 };
	unsigned nr_fds;
	int fds[253];

	assert_alive(&f->c);
	for (unsigned i = 0; i < 253; i++)
		fds[i] = f->c.fd;
	nr_fds = process_nr_fds();
	for (uint16_t cmd = 0; cmd < 22; cmd++) {
		for (unsigned i = 0; i < 6; i++) {
			tcl_send(&f->c, cmd, VFMSG_NO_REPLY, payload,
				 sizeof(payload), fds, counts[i]);
			tcl_send(&f->c, cmd, VFMSG_NO_REPLY, NULL, 0, fds,
				 counts[i]);
		}
		assert_alive(&f->c);
		assert_int_equal(process_nr_fds(), nr_fds);
	}
	/* In the middle of a message, and after the last one. */
	tcl_send(&f->c, 4, VFMSG_NO_REPLY, payload, 10, fds, 253);
	tcl_close(&f->c);
	tsrv_await_detached(&f->t, 1);
	tcl_open(&f->c, &f->t);
	assert_int_equal(process_nr_fds(), nr_fds);
}

/*
 * Descriptors belong to the message whose first byte they came with, however
 * the bytes around were sent.
 */
static void test_fd_binding(void **state)
{
	struct fixture *f = *state;
	struct {
		struct vfmsg_hdr hdr;
		struct twire_access access;
		uint32_t val;
	} __attribute__((packed)) post = { { 1, 10, 36, VFMSG_NO_REPLY },
					   { 0, 0, 4 },
					   0 };
	struct {
		struct vfmsg_hdr hdr;
		struct twire_irqs irqs;
	} bind = { { 2, 8, 36, VFMSG_NO_REPLY },
		   { 20, EVENTFD | TRIGGER, 2, 0, 1 } };
	int ev = eventfd(0, 0);

	tcl_enable_msix(&f->c);
	/* How many posts before and after, in the same sendmsg(). */
	for (unsigned i = 0; i < 16; i++) {
		unsigned before = i / 4, behind = i % 4;
		uint8_t buf[512];
		size_t len = 0;
		char control[CMSG_SPACE(sizeof(int))] = { 0 };
		struct iovec iov = { .iov_base = buf };
		struct msghdr msg = { .msg_iov = &iov,
				      .msg_iovlen = 1,
				      .msg_control = control,
				      .msg_controllen = sizeof(control) };
		struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);

		for (unsigned n = 0; n < before; n++)
			assert_int_equal(write(f->c.fd, &post, sizeof(post)),
					 sizeof(post));
		bind.irqs.start = i;
		memcpy(buf, &bind, sizeof(bind));
		len = sizeof(bind);
		for (unsigned n = 0; n < behind; n++) {
			memcpy(buf + len, &post, sizeof(post));
			len += sizeof(post);
		}
		/* The same without one: must not unbind what was bound. */
		if (behind == 3) {
			bind.irqs.start = 19;
			memcpy(buf + len, &bind, sizeof(bind));
			len += sizeof(bind);
		}
		iov.iov_len = len;
		*cmsg = (struct cmsghdr){ CMSG_LEN(sizeof(int)), SOL_SOCKET,
					  SCM_RIGHTS };
		memcpy(CMSG_DATA(cmsg), &ev, sizeof(int));
		assert_int_equal(sendmsg(f->c.fd, &msg, 0), len);
		tcl_write(&f->c, 0, REG_MSIX, 4, i);
		assert_int_equal(tcl_events(ev, 0), 1);
	}
	/* Byte by byte, the descriptor with the first. */
	bind.irqs.start = 17;
	for (size_t i = 0; i < sizeof(bind); i++) {
		char control[CMSG_SPACE(sizeof(int))] = { 0 };
		struct iovec iov = { (char *)&bind + i, 1 };
		struct msghdr msg = { .msg_iov = &iov,
				      .msg_iovlen = 1,
				      .msg_control = control,
				      .msg_controllen = sizeof(control) };
		struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);

		*cmsg = (struct cmsghdr){ CMSG_LEN(sizeof(int)), SOL_SOCKET,
					  SCM_RIGHTS };
		memcpy(CMSG_DATA(cmsg), &ev, sizeof(int));
		if (i > 0)
			msg.msg_control = NULL, msg.msg_controllen = 0;
		assert_int_equal(sendmsg(f->c.fd, &msg, 0), 1);
	}
	tcl_write(&f->c, 0, REG_MSIX, 4, 17);
	assert_int_equal(tcl_events(ev, 0), 1);
	close(ev);
}

/*
 * --- Other tests ---
 */

/* hostile section 5, class 11: unbounded log output. */
static void test_log_flood(void **state)
{
	struct fixture *f = *state;
	struct vio_server_stats before, after;

	vio_server_get_stats(f->t.srv, &before);
	for (unsigned i = 0; i < 5000; i++)
		tcl_send(&f->c, 999, VFMSG_NO_REPLY, NULL, 0, NULL, 0);
	assert_alive(&f->c);
	vio_server_get_stats(f->t.srv, &after);
	assert_int_equal(after.bad_messages - before.bad_messages, 5000);
	assert_int_equal(after.messages - before.messages, 5001);
	assert_in_range(f->t.nr_log, 1, 60);
}

static void test_listen(void **state)
{
	struct vio_loop *loop;
	struct vio_server *a, *b;
	char dir[] = "/tmp/vfio_user_test.XXXXXX", path[200];
	int fd;

	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/s", dir);
	assert_int_equal(vio_loop_create(&loop), 0);
	assert_int_equal(vio_server_create(loop, VIO_VFIO_USER, "a", &a), 0);
	assert_int_equal(vio_server_create(loop, VIO_VFIO_USER, "b", &b), 0);
	assert_int_equal(vio_server_listen_path(a, path), 0);
	assert_int_equal(vio_server_listen_path(b, path), -EADDRINUSE);
	/* A stale socket, on which nobody listens, is replaced. */
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(vio_server_listen(b, fd), -EINVAL);
	close(fd);
	vio_server_destroy(a);
	assert_int_not_equal(access(path, F_OK), 0);
	fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	assert_int_equal(vio_server_listen_path(b, path), -EEXIST);
	close(fd);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(vio_server_listen_path(b, path), 0);
	vio_server_destroy(b);
	/* A file that others have put there meanwhile is not removed. */
	assert_int_equal(vio_server_create(loop, VIO_VFIO_USER, "a", &a), 0);
	assert_int_equal(vio_server_create(loop, VIO_VFIO_USER, "b", &b), 0);
	assert_int_equal(vio_server_listen_path(a, path), 0);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(vio_server_listen_path(b, path), 0);
	vio_server_destroy(a);
	assert_int_equal(access(path, F_OK), 0);
	vio_server_destroy(b);
	assert_int_not_equal(access(path, F_OK), 0);
	assert_int_equal(vio_server_create(loop, VIO_VFIO_USER, "b", &b), 0);
	memset(path, 'x', sizeof(path) - 1);
	path[sizeof(path) - 1] = 0;
	assert_int_equal(vio_server_listen_path(b, path), -ENAMETOOLONG);
	vio_server_destroy(b);
	vio_server_destroy(NULL);
	vio_loop_destroy(loop);
	assert_int_equal(rmdir(dir), 0);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_bad_framing),
		TEST(test_polled),
		TEST(test_unknown_commands),
		TEST(test_no_reply),
		TEST(test_short_payloads),
		TEST(test_pieces),
		TEST(test_slow_reader),
		TEST(test_reconnect),
		TEST(test_second_client),
		TEST(test_version),
		TEST(test_version_order),
		TEST(test_info),
		TEST(test_region_info),
		TEST(test_io_fds),
		TEST(test_irq_info),
		TEST(test_region_access),
		TEST(test_bulk_read),
		TEST(test_region_bounds),
		TEST(test_write_multi),
		TEST(test_iteration_budget),
		TEST(test_reset),
		TEST(test_msix),
		TEST(test_loopback_and_masks),
		TEST(test_intx),
		TEST(test_irq_indices),
		TEST(test_irq_ranges),
		TEST(test_not_an_eventfd),
		TEST(test_dma_map),
		TEST(test_bad_dma_map),
		TEST(test_dma_map_huge),
		TEST(test_dma_unmap),
		TEST(test_sends_its_socket),
		TEST(test_no_room_for_descriptors),
		TEST(test_unmap_in_flight),
		TEST(test_unmaps_without_end),
		TEST(test_gone_in_flight),
		TEST(test_gone_without_answers),
		TEST(test_truncated_last),
		TEST(test_slow_reset),
		TEST(test_dma_pipelined),
		TEST(test_dma_cycles),
		TEST(test_dma_limit),
		TEST(test_fd_floods),
		TEST(test_fd_binding),
		TEST(test_log_flood),
		cmocka_unit_test(test_listen),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

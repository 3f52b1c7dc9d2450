/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The vfio-user server and guest memory that is not shared: the client answers
 * DMA_READ and DMA_WRITE by hand, well or badly. Section A7 and traps 1, 2, 3,
 * 13 and 20 of docs/spec/protocols.md.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/util.h"
#include "process.h"
#include "vfio_user_client.h"
#include "serve/vfio_user_impl.h"

#define MiB (1ull << 20)

enum { SRC = 0x1000, DST = 0x200000, DONE = 0x3f0000 };

struct fixture {
	struct tsrv t;
	struct tclient c;
	int ev; /* on vector 0 */
};

/* How long the server waits for our answers: long, for slow machines. */
static void patience(uint64_t ms)
{
	__atomic_store_n(&vfuser_answer_ns, ms * 1000000, __ATOMIC_RELAXED);
}

/* Four MiB of guest memory without a file, and vector 0. */
static void prepare(struct fixture *f)
{
	assert_int_equal(tcl_map(&f->c, 0, 4 * MiB, 0, 3, -1), 0);
	assert_int_equal(tcl_set_irqs(&f->c, 0x24, 2, 0, 1, &f->ev, 1), 0);
	tcl_enable_msix(&f->c);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	f->ev = eventfd(0, EFD_CLOEXEC);
	patience(60000);
	tsrv_start(&f->t);
	tcl_open(&f->c, &f->t);
	prepare(f);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	tcl_close(&f->c);
	tsrv_stop(&f->t);
	close(f->ev);
	free(f);
	return 0;
}

/* Tell the device what to copy. */
static void prepare_copy(struct tclient *c, uint64_t len)
{
	tcl_write(c, 0, REG_SRC, 8, SRC);
	tcl_write(c, 0, REG_DST, 8, DST);
	tcl_write(c, 0, REG_DONE, 8, DONE);
	tcl_write(c, 0, REG_LEN, 8, len);
}

static void start_copy(struct tclient *c, uint64_t len)
{
	prepare_copy(c, len);
	tcl_post(c, 0, REG_DOORBELL, 4, 0);
}

/* Receive a command from the server; its fixed part in *ret_dma. */
static struct tmsg expect(int fd, uint16_t cmd, uint64_t iova, uint64_t count)
{
	struct twire_dma w;
	struct tmsg m;

	assert_true(tcl_recv(fd, &m));
	assert_int_equal(m.hdr.flags & 0xf, 0);
	assert_int_equal(m.hdr.cmd, cmd);
	assert_in_range(m.len, sizeof(w), VFMSG_MAX_BYTES);
	memcpy(&w, m.payload, sizeof(w));
	assert_int_equal(w.iova, iova);
	assert_int_equal(w.count, count);
	assert_int_equal(m.len,
			 sizeof(w) + (cmd == VFMSG_DMA_WRITE ? count : 0));
	return m;
}

static void answer(int fd, const struct tmsg *m, uint64_t iova, uint64_t count,
		   size_t data_len, int fill)
{
	size_t len = VFMSG_HDR_BYTES + 16 + data_len;
	struct vfmsg_hdr hdr = { m->hdr.id, m->hdr.cmd, (uint32_t)len,
				 VFMSG_REPLY };
	struct twire_dma w = { iova, count };
	uint8_t *buf = malloc(len);

	memcpy(buf, &hdr, sizeof(hdr));
	memcpy(buf + sizeof(hdr), &w, sizeof(w));
	memset(buf + sizeof(hdr) + sizeof(w), fill, data_len);
	assert_int_equal(write(fd, buf, len), len);
	free(buf);
}

static void answer_error(int fd, const struct tmsg *m, uint32_t error)
{
	struct vfmsg_hdr hdr = { m->hdr.id, m->hdr.cmd, 16,
				 VFMSG_REPLY | VFMSG_ERROR, error };

	assert_int_equal(write(fd, &hdr, sizeof(hdr)), sizeof(hdr));
}

static void assert_filled(const struct tmsg *m, int fill, size_t len)
{
	assert_int_equal(m->len, 16 + len);
	for (size_t i = 0; i < len; i++)
		assert_int_equal(m->payload[16 + i], fill);
}

/* The writes of a copy, which require no answer, and then the fence. */
static struct tmsg expect_writes(int fd, uint64_t len, int fill)
{
	uint32_t done = TDEV_DONE_WORD;
	struct tmsg m;

	m = expect(fd, VFMSG_DMA_WRITE, DST, len);
	assert_int_equal(m.hdr.flags, VFMSG_NO_REPLY);
	assert_filled(&m, fill, len);
	m = expect(fd, VFMSG_DMA_WRITE, DONE, 4);
	assert_int_equal(m.hdr.flags, VFMSG_NO_REPLY);
	assert_memory_equal(m.payload + 16, &done, 4);
	m = expect(fd, VFMSG_DMA_WRITE, DONE, 0);
	assert_int_equal(m.hdr.flags, 0);
	return m;
}

/* A7: data first, then the interrupt, which does not overtake it. */
static void test_copy(void **state)
{
	struct fixture *f = *state;
	struct tmsg m;

	for (unsigned i = 1; i < 4; i++) {
		start_copy(&f->c, 100);
		m = expect(f->c.fd, VFMSG_DMA_READ, SRC, 100);
		answer(f->c.fd, &m, SRC, 100, 100, 'x');
		m = expect_writes(f->c.fd, 100, 'x');
		assert_int_equal(tcl_events(f->ev, 20), 0);
		answer(f->c.fd, &m, DONE, 0, 0, 0);
		assert_int_equal(tcl_events(f->ev, TCL_PATIENCE_MS), 1);
		assert_int_equal(tcl_read(&f->c, 0, REG_NR_COPIES, 4), i);
	}
	/* Nothing was written since: fires at once. */
	tcl_write(&f->c, 0, REG_MSIX, 4, 0);
	assert_int_equal(tcl_events(f->ev, 0), 1);
}

/* trap 2: at most 64 KiB each, one read at a time. */
static void test_large_copy(void **state)
{
	struct fixture *f = *state;
	uint64_t len = 200000;
	struct tmsg m;

	start_copy(&f->c, len);
	for (uint64_t off = 0; off < len; off += 65536) {
		uint64_t part = len - off < 65536 ? len - off : 65536;

		m = expect(f->c.fd, VFMSG_DMA_READ, SRC + off, part);
		assert_true(tcl_is_silent(f->c.fd, 10));
		answer(f->c.fd, &m, SRC + off, part, part, 'y');
	}
	for (uint64_t off = 0; off < len; off += 65536) {
		uint64_t part = len - off < 65536 ? len - off : 65536;

		m = expect(f->c.fd, VFMSG_DMA_WRITE, DST + off, part);
		assert_filled(&m, 'y', part);
	}
	expect(f->c.fd, VFMSG_DMA_WRITE, DONE, 4);
	m = expect(f->c.fd, VFMSG_DMA_WRITE, DONE, 0);
	answer_error(f->c.fd, &m, EINVAL); /* still an answer */
	assert_int_equal(tcl_events(f->ev, TCL_PATIENCE_MS), 1);
}

/* A3: the client's limit applies to what we send. */
static void test_small_limit(void **state)
{
	struct fixture *f = *state;
	struct tmsg m;

	tcl_close(&f->c);
	tcl_connect(&f->c, &f->t);
	assert_int_equal(tcl_version(&f->c, "{\"capabilities\":{"
					    "\"max_data_xfer_size\":4096}}"),
			 0);
	prepare(f);
	start_copy(&f->c, 5000);
	m = expect(f->c.fd, VFMSG_DMA_READ, SRC, 4096);
	answer(f->c.fd, &m, SRC, 4096, 4096, 'z');
	m = expect(f->c.fd, VFMSG_DMA_READ, SRC + 4096, 904);
	answer(f->c.fd, &m, SRC + 4096, 904, 904, 'z');
	expect(f->c.fd, VFMSG_DMA_WRITE, DST, 4096);
	expect(f->c.fd, VFMSG_DMA_WRITE, DST + 4096, 904);
}

/* trap 1: what does not change the state is served while a read waits. */
static void test_serves_while_waiting(void **state)
{
	struct fixture *f = *state;
	uint32_t get[8] = { 32 };
	struct tmsg read, m;
	uint32_t kicks;

	start_copy(&f->c, 100);
	read = expect(f->c.fd, VFMSG_DMA_READ, SRC, 100);
	for (unsigned i = 0; i < 100; i++) {
		assert_int_equal(tcl_read(&f->c, VFMSG_REGION_CFG, 0, 4),
				 0x10ff1af4);
		assert_int_equal(tcl_read(&f->c, 0, REG_SRC, 8), SRC);
		tcl_post(&f->c, 0, REG_DOORBELL, 4, 0);
		tcl_write(&f->c, 0, REG_DOORBELL, 4, 0);
	}
	assert_int_equal(
		tcl_call(&f->c, VFMSG_GET_INFO, get, 16, NULL, 0, NULL), 0);
	assert_int_equal(
		tcl_call(&f->c, VFMSG_GET_REGION_INFO, get, 32, NULL, 0, NULL),
		0);
	assert_int_equal(
		tcl_call(&f->c, VFMSG_GET_IRQ_INFO, get, 16, NULL, 0, NULL), 0);
	kicks = (uint32_t)tcl_read(&f->c, 0, REG_NR_KICKS, 4);
	answer(f->c.fd, &read, SRC, 100, 100, 'x');
	m = expect_writes(f->c.fd, 100, 'x');
	answer(f->c.fd, &m, DONE, 0, 0, 0);
	assert_int_equal(tcl_events(f->ev, TCL_PATIENCE_MS), 1);
	assert_int_equal(tcl_read(&f->c, 0, REG_NR_AGAIN, 4), 0);
	/* The doorbells were remembered, all as one. */
	assert_int_equal(tcl_read(&f->c, 0, REG_NR_KICKS, 4), kicks + 1);
}

/* Each message that changes the state ends the wait, and is answered. */
static void test_preempted(void **state)
{
	static const struct {
		const char *name;
		enum { CFG, BAR, MAP, UNMAP, IRQS, RESET } what;
		bool again; /* the copy is tried again */
	} rows[] = {
		{ "A7 configuration space", CFG, true },
		{ "A7 BAR", BAR, true },
		{ "A7 DMA_MAP", MAP, true },
		{ "A7 DMA_UNMAP elsewhere", UNMAP, true },
		{ "A7 SET_IRQS", IRQS, true },
		{ "A7 RESET", RESET, false },
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		uint32_t copies, again;
		struct tmsg old, m;

		print_message("%s\n", rows[i].name);
		copies = (uint32_t)tcl_read(&f->c, 0, REG_NR_COPIES, 4);
		again = (uint32_t)tcl_read(&f->c, 0, REG_NR_AGAIN, 4);
		start_copy(&f->c, 64);
		old = expect(f->c.fd, VFMSG_DMA_READ, SRC, 64);
		switch (rows[i].what) {
		case CFG:
			tcl_write(&f->c, VFMSG_REGION_CFG, 4, 2, 6);
			break;
		case BAR:
			tcl_write(&f->c, 0, 0x80, 4, 1);
			break;
		case MAP:
			assert_int_equal(
				tcl_map(&f->c, 16 * MiB, MiB, 0, 3, -1), 0);
			break;
		case UNMAP:
			assert_int_equal(tcl_unmap(&f->c, 16 * MiB, MiB, 0), 0);
			break;
		case IRQS:
			assert_int_equal(
				tcl_set_irqs(&f->c, 0x24, 2, 0, 1, &f->ev, 1),
				0);
			break;
		case RESET:
			assert_int_equal(tcl_reset(&f->c), 0);
			break;
		}
		if (rows[i].again)
			m = expect(f->c.fd, VFMSG_DMA_READ, SRC, 64);
		assert_int_equal(tcl_read(&f->c, 0, REG_NR_AGAIN, 4),
				 again + 1);
		/* A late answer to the old read is not the new one's. */
		answer(f->c.fd, &old, SRC, 64, 64, 'o');
		if (!rows[i].again) {
			assert_int_equal(tcl_read(&f->c, 0, REG_NR_COPIES, 4),
					 copies);
			continue;
		}
		assert_int_equal(tcl_read(&f->c, 0, REG_NR_COPIES, 4), copies);
		answer(f->c.fd, &m, SRC, 64, 64, 'n');
		m = expect_writes(f->c.fd, 64, 'n');
		answer(f->c.fd, &m, DONE, 0, 0, 0);
		assert_int_equal(tcl_events(f->ev, TCL_PATIENCE_MS), 1);
		assert_int_equal(tcl_read(&f->c, 0, REG_NR_COPIES, 4),
				 copies + 1);
	}
}

/* The memory is unmapped during a read. */
static void test_unmapped_while_reading(void **state)
{
	struct fixture *f = *state;
	struct tmsg m;

	start_copy(&f->c, 64);
	m = expect(f->c.fd, VFMSG_DMA_READ, SRC, 64);
	assert_int_equal(tcl_unmap(&f->c, 0, 4 * MiB, 0), 0);
	answer(f->c.fd, &m, SRC, 64, 64, 'x');
	tcl_write(&f->c, 0, 0x80, 4, 0);
	assert_int_equal(tcl_read(&f->c, 0, REG_NR_COPIES, 4), 0);
	assert_int_equal(tcl_read(&f->c, 0, REG_LAST_ERROR, 4), EFAULT);
}

/*
 * A read while a message is handled returns -EAGAIN at once: the client may be
 * waiting for the reply. A 2-byte write is not a doorbell of this device.
 */
static void test_not_in_handlers(void **state)
{
	struct fixture *f = *state;
	struct tmsg m;

	prepare_copy(&f->c, 64);
	tcl_write(&f->c, 0, REG_DOORBELL, 2, 0); /* has its reply */
	m = expect(f->c.fd, VFMSG_DMA_READ, SRC, 64);
	assert_int_equal(tcl_read(&f->c, 0, REG_NR_AGAIN, 4), 1);
	answer(f->c.fd, &m, SRC, 64, 64, 'x');
	m = expect_writes(f->c.fd, 64, 'x');
	answer(f->c.fd, &m, DONE, 0, 0, 0);
	assert_int_equal(tcl_events(f->ev, TCL_PATIENCE_MS), 1);
	/* One that could be served while another read waits. */
	assert_int_equal(tcl_read(&f->c, 0, REG_PEEK, 4), EAGAIN);
	assert_true(tcl_is_silent(f->c.fd, 20));
}

/* Messages of the same batch are answered before queues are served. */
static void test_replies_first(void **state)
{
	struct fixture *f = *state;
	struct {
		struct {
			struct vfmsg_hdr hdr;
			struct twire_access access;
			uint32_t val;
		} __attribute__((packed)) ring;
		struct {
			struct vfmsg_hdr hdr;
			struct twire_access access;
		} __attribute__((packed)) get;
	} __attribute__((packed)) w = {
		{ { 900, 10, 36 }, { REG_DOORBELL, 0, 4 }, 0 },
		{ { 901, 9, 32 }, { 0, VFMSG_REGION_CFG, 4 } },
	};
	struct tmsg m;

	prepare_copy(&f->c, 64);
	assert_int_equal(write(f->c.fd, &w, sizeof(w)), sizeof(w));
	assert_true(tcl_recv(f->c.fd, &m));
	assert_int_equal(m.hdr.id, 900);
	assert_true(tcl_recv(f->c.fd, &m));
	assert_int_equal(m.hdr.id, 901);
	expect(f->c.fd, VFMSG_DMA_READ, SRC, 64);
}

static void test_bad_answers(void **state)
{
	static const struct {
		const char *name;
		uint64_t count;
		size_t data;
		bool error;
		uint16_t cmd;
	} rows[] = {
		{ "A7 error reply", 0, 0, true, VFMSG_DMA_READ },
		{ "hostile D39 count 0", 0, 64, false, VFMSG_DMA_READ },
		{ "hostile D39 count", UINT64_MAX, 64, false, VFMSG_DMA_READ },
		{ "A7 less data than counted", 64, 63, false, VFMSG_DMA_READ },
		{ "A7 more than asked for", 65, 65, false, VFMSG_DMA_READ },
		{ "A7 another command", 64, 64, false, VFMSG_DMA_WRITE },
		{ "A7 a command of ours", 64, 64, false, VFMSG_REGION_READ },
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct tmsg m;

		print_message("%s\n", rows[i].name);
		start_copy(&f->c, 64);
		m = expect(f->c.fd, VFMSG_DMA_READ, SRC, 64);
		m.hdr.cmd = rows[i].cmd;
		if (rows[i].error)
			answer_error(f->c.fd, &m, 19);
		else
			answer(f->c.fd, &m, SRC, rows[i].count, rows[i].data,
			       'b');
		/* Not served until the device is done with the answer. */
		tcl_write(&f->c, 0, 0x80, 4, 0);
		assert_int_equal(tcl_read(&f->c, 0, REG_LAST_ERROR, 4), EFAULT);
		assert_int_equal(tcl_read(&f->c, 0, REG_NR_COPIES, 4), 0);
	}
}

/* Replies to nothing are dropped, whenever they arrive. */
static void test_unmatched_replies(void **state)
{
	struct fixture *f = *state;
	struct tmsg m, stray;

	stray.hdr.cmd = VFMSG_DMA_READ;
	for (unsigned id = 0; id < 65536; id += 5) {
		stray.hdr.id = (uint16_t)id;
		answer_error(f->c.fd, &stray, 0);
	}
	start_copy(&f->c, 64);
	m = expect(f->c.fd, VFMSG_DMA_READ, SRC, 64);
	for (unsigned id = 0; id < 65536; id += 5) {
		stray.hdr.id = (uint16_t)id;
		if (id != m.hdr.id)
			answer(f->c.fd, &stray, SRC, 64, 64, 's');
	}
	answer(f->c.fd, &m, SRC, 64, 64, 'x');
	m = expect_writes(f->c.fd, 64, 'x');
	stray.hdr.id = (uint16_t)(m.hdr.id + 1);
	answer(f->c.fd, &stray, DONE, 0, 0, 0);
	assert_int_equal(tcl_events(f->ev, 20), 0);
	answer(f->c.fd, &m, DONE, 0, 0, 0);
	assert_int_equal(tcl_events(f->ev, TCL_PATIENCE_MS), 1);
}

/* An interrupt waits for the writes before it, and for no later ones. */
static void test_held_interrupts(void **state)
{
	struct fixture *f = *state;
	struct tmsg fence, read, m;

	start_copy(&f->c, 64);
	m = expect(f->c.fd, VFMSG_DMA_READ, SRC, 64);
	answer(f->c.fd, &m, SRC, 64, 64, '1');
	fence = expect_writes(f->c.fd, 64, '1');
	/* The device continues meanwhile. */
	start_copy(&f->c, 64);
	read = expect(f->c.fd, VFMSG_DMA_READ, SRC, 64);
	assert_int_equal(tcl_events(f->ev, 20), 0);
	answer(f->c.fd, &fence, DONE, 0, 0, 0);
	assert_int_equal(tcl_events(f->ev, TCL_PATIENCE_MS), 1);
	answer(f->c.fd, &read, SRC, 64, 64, '2');
	fence = expect_writes(f->c.fd, 64, '2');
	assert_int_equal(tcl_events(f->ev, 20), 0);

	/* Any later answer confirms the writes as well. */
	start_copy(&f->c, 64);
	read = expect(f->c.fd, VFMSG_DMA_READ, SRC, 64);
	answer(f->c.fd, &read, SRC, 64, 64, '3');
	assert_int_equal(tcl_events(f->ev, TCL_PATIENCE_MS), 1);
	m = expect_writes(f->c.fd, 64, '3');
	answer(f->c.fd, &fence, DONE, 0, 0, 0); /* late: of the second */
	assert_int_equal(tcl_events(f->ev, 20), 0);
	answer(f->c.fd, &m, DONE, 0, 0, 0);
	assert_int_equal(tcl_events(f->ev, TCL_PATIENCE_MS), 1);

	/* Held, and raised again: fires for the first, then for the second. */
	tcl_post(&f->c, 0, REG_NOTE, 4, 1);
	expect(f->c.fd, VFMSG_DMA_WRITE, DONE, 4);
	fence = expect(f->c.fd, VFMSG_DMA_WRITE, DONE, 0);
	tcl_post(&f->c, 0, REG_NOTE, 4, 2);
	expect(f->c.fd, VFMSG_DMA_WRITE, DONE, 4);
	m = expect(f->c.fd, VFMSG_DMA_WRITE, DONE, 0);
	assert_int_equal(tcl_events(f->ev, 20), 0);
	answer(f->c.fd, &fence, DONE, 0, 0, 0);
	assert_int_equal(tcl_events(f->ev, TCL_PATIENCE_MS), 1);
	assert_int_equal(tcl_events(f->ev, 20), 0);
	answer(f->c.fd, &m, DONE, 0, 0, 0);
	assert_int_equal(tcl_events(f->ev, TCL_PATIENCE_MS), 1);

	/* A reset cancels what is held. */
	tcl_post(&f->c, 0, REG_NOTE, 4, 3);
	expect(f->c.fd, VFMSG_DMA_WRITE, DONE, 4);
	fence = expect(f->c.fd, VFMSG_DMA_WRITE, DONE, 0);
	assert_int_equal(tcl_reset(&f->c), 0);
	answer(f->c.fd, &fence, DONE, 0, 0, 0);
	assert_int_equal(tcl_events(f->ev, 20), 0);
}

/* Answers are matched by number, in whatever order they arrive. */
static void test_answers_in_any_order(void **state)
{
	struct fixture *f = *state;
	struct tmsg read, fence[3], m;

	patience(3000);
	start_copy(&f->c, 64);
	read = expect(f->c.fd, VFMSG_DMA_READ, SRC, 64);
	for (int i = 0; i < 3; i++) {
		struct twire_access a = { REG_NOTE, 0, 4 };

		tcl_send(&f->c, VFMSG_REGION_READ, 0, &a, sizeof(a), NULL, 0);
		expect(f->c.fd, VFMSG_DMA_WRITE, DONE, 4);
		fence[i] = expect(f->c.fd, VFMSG_DMA_WRITE, DONE, 0);
		assert_true(tcl_recv(f->c.fd, &m));
		assert_int_equal(m.hdr.cmd, VFMSG_REGION_READ);
	}
	answer(f->c.fd, &fence[1], DONE, 0, 0, 0);
	answer(f->c.fd, &fence[1], DONE, 0, 0, 0); /* counts once */
	answer(f->c.fd, &read, SRC, 64, 64, 'o');
	m = expect_writes(f->c.fd, 64, 'o');
	answer(f->c.fd, &fence[2], DONE, 0, 0, 0);
	answer(f->c.fd, &m, DONE, 0, 0, 0);
	assert_true(tcl_events(f->ev, TCL_PATIENCE_MS) > 0);
	/* The client is dropped for the one that it still owes. */
	assert_true(tcl_is_closed(&f->c));
	tcl_close(&f->c);
	tcl_open(&f->c, &f->t);
}

static double seconds_since(const struct timespec *start)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)(now.tv_sec - start->tv_sec) +
	       (double)(now.tv_nsec - start->tv_nsec) / 1e9;
}

/* trap 3: a client that does not answer is dropped, in bounded time. */
static void test_no_answer(void **state)
{
	struct fixture *f = *state;
	struct timespec start;

	patience(3000);
	clock_gettime(CLOCK_MONOTONIC, &start);
	start_copy(&f->c, 64);
	expect(f->c.fd, VFMSG_DMA_READ, SRC, 64);
	for (unsigned i = 0; i < 10; i++)
		tcl_read(&f->c, VFMSG_REGION_CFG, 0, 4);
	assert_true(tcl_is_closed(&f->c));
	assert_in_range((int)(seconds_since(&start) * 10), 29, 600);
	tcl_close(&f->c);
	tcl_open(&f->c, &f->t);
	tcl_read(&f->c, VFMSG_REGION_CFG, 0, 4);
}

/* The same for a fence, and for a read that was abandoned. */
static void test_no_late_answer(void **state)
{
	struct fixture *f = *state;
	struct timespec start;
	struct tmsg m;

	patience(3000);
	start_copy(&f->c, 64);
	m = expect(f->c.fd, VFMSG_DMA_READ, SRC, 64);
	clock_gettime(CLOCK_MONOTONIC, &start);
	answer(f->c.fd, &m, SRC, 64, 64, 'x');
	expect_writes(f->c.fd, 64, 'x');
	assert_true(tcl_is_closed(&f->c));
	assert_in_range((int)(seconds_since(&start) * 10), 29, 600);
	tcl_close(&f->c);
	tcl_open(&f->c, &f->t);
	prepare(f);

	clock_gettime(CLOCK_MONOTONIC, &start);
	start_copy(&f->c, 64);
	expect(f->c.fd, VFMSG_DMA_READ, SRC, 64);
	assert_int_equal(tcl_reset(&f->c), 0);
	assert_true(tcl_is_closed(&f->c));
	assert_in_range((int)(seconds_since(&start) * 10), 29, 600);
	tcl_close(&f->c);
	tcl_open(&f->c, &f->t);
}

/* trap 10: the client disconnects while a read waits for it. */
static void test_gone_while_reading(void **state)
{
	struct fixture *f = *state;

	for (unsigned i = 0; i < 20; i++) {
		start_copy(&f->c, 64);
		expect(f->c.fd, VFMSG_DMA_READ, SRC, 64);
		tcl_close(&f->c);
		tsrv_await_detached(&f->t, i + 1);
		tcl_open(&f->c, &f->t);
		prepare(f);
		assert_int_equal(tcl_read(&f->c, 0, REG_NR_COPIES, 4), 0);
		assert_int_equal(tcl_read(&f->c, 0, REG_NR_RESETS, 4), i + 1);
	}
}

/* trap 20: memory without a file beside memory with one; a ROM. */
static void test_mixed(void **state)
{
	struct fixture *f = *state;
	int fd = tcl_memfd(MiB);
	struct tmsg m;
	char back[4];

	assert_int_equal(tcl_unmap(&f->c, 0, 0, 2), 0);
	assert_int_equal(pwrite(fd, "abcd", 4, SRC), 4);
	assert_int_equal(tcl_map(&f->c, 0, MiB, 0, 3, fd), 0);
	assert_int_equal(tcl_map(&f->c, MiB, 3 * MiB, 0, 1, -1), 0);
	start_copy(&f->c, 4);
	/* All writable memory is shared: done at once, and cannot write. */
	assert_int_equal(tcl_read(&f->c, 0, REG_LAST_ERROR, 4), EACCES);
	/* Read from the ROM, into shared memory. */
	tcl_write(&f->c, 0, REG_SRC, 8, DST);
	tcl_write(&f->c, 0, REG_DST, 8, SRC);
	tcl_write(&f->c, 0, REG_DONE, 8, 0);
	tcl_write(&f->c, 0, REG_LEN, 8, 4);
	tcl_post(&f->c, 0, REG_DOORBELL, 4, 0);
	m = expect(f->c.fd, VFMSG_DMA_READ, DST, 4);
	answer(f->c.fd, &m, DST, 4, 4, 'r');
	assert_int_equal(tcl_events(f->ev, TCL_PATIENCE_MS), 1); /* no fence */
	assert_int_equal(pread(fd, back, 4, SRC), 4);
	assert_memory_equal(back, "rrrr", 4);
	/* Across the border of both. */
	tcl_write(&f->c, 0, REG_SRC, 8, MiB - 2);
	tcl_write(&f->c, 0, REG_LEN, 8, 4);
	tcl_post(&f->c, 0, REG_DOORBELL, 4, 0);
	m = expect(f->c.fd, VFMSG_DMA_READ, MiB, 2);
	answer(f->c.fd, &m, MiB, 2, 2, 'e');
	assert_int_equal(tcl_events(f->ev, TCL_PATIENCE_MS), 1);
	assert_int_equal(pread(fd, back, 4, SRC), 4);
	assert_memory_equal(back, "\0\0ee", 4);
	close(fd);
}

/*
 * --- The twin socket, A3 ---
 */

static void open_twin(struct fixture *f)
{
	tcl_close(&f->c);
	tcl_connect(&f->c, &f->t);
	assert_int_equal(
		tcl_version(&f->c,
			    "{\"capabilities\":{\"max_msg_fds\":16,"
			    "\"max_data_xfer_size\":1048576,"
			    "\"max_dma_maps\":65535,"
			    "\"twin_socket\":{\"supported\":true}}}      "
			    "              "),
		0);
	assert_true(f->c.twin >= 0);
	prepare(f);
}

static void test_twin(void **state)
{
	struct fixture *f = *state;
	unsigned nr_fds;
	struct tmsg m;

	open_twin(f);
	nr_fds = process_nr_fds();
	start_copy(&f->c, 64);
	m = expect(f->c.twin, VFMSG_DMA_READ, SRC, 64);
	tcl_read(&f->c, VFMSG_REGION_CFG, 0, 4);
	answer(f->c.twin, &m, SRC, 64, 64, 't');
	m = expect_writes(f->c.twin, 64, 't');
	assert_int_equal(tcl_events(f->ev, 20), 0);
	answer(f->c.twin, &m, DONE, 0, 0, 0);
	assert_int_equal(tcl_events(f->ev, TCL_PATIENCE_MS), 1);
	/* State changes preempt as usual. */
	start_copy(&f->c, 64);
	expect(f->c.twin, VFMSG_DMA_READ, SRC, 64);
	assert_int_equal(tcl_reset(&f->c), 0);

	/* It takes no commands. */
	m.hdr = (struct vfmsg_hdr){ 1, VFMSG_GET_INFO, 16 };
	assert_int_equal(write(f->c.twin, &m.hdr, 16), 16);
	assert_true(tcl_is_closed(&f->c));
	open_twin(f);
	/* Nor can it be closed alone. */
	close(f->c.twin);
	assert_true(tcl_is_closed(&f->c));
	f->c.twin = -1;
	open_twin(f);
	assert_int_equal(process_nr_fds(), nr_fds);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_copy),
		TEST(test_large_copy),
		TEST(test_small_limit),
		TEST(test_serves_while_waiting),
		TEST(test_preempted),
		TEST(test_unmapped_while_reading),
		TEST(test_not_in_handlers),
		TEST(test_replies_first),
		TEST(test_bad_answers),
		TEST(test_unmatched_replies),
		TEST(test_held_interrupts),
		TEST(test_answers_in_any_order),
		TEST(test_no_answer),
		TEST(test_no_late_answer),
		TEST(test_gone_while_reading),
		TEST(test_mixed),
		TEST(test_twin),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

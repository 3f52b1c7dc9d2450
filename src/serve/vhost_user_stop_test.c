/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The vhost-user server with requests in flight: rings stop, memory is removed,
 * the device is reset and front-ends disconnect while chains are in flight. The
 * device keeps every chain until the test releases it.
 */
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/core.h"
#include "vhost_user_client.h"

#define NR_QUEUES 2

struct chain {
	uint16_t head;
	struct iovec iov;
};

struct hold {
	struct virtio_softc vs; /* first: callbacks get it */
	struct vqueue_info vqs[NR_QUEUES];
	struct virtio_consts vc;
	pthread_mutex_t mtx;
	struct fe f;
	struct chain taken[NR_QUEUES][QSIZE];
	unsigned nr_taken[NR_QUEUES];
	unsigned iterations; /* of the loop, in each quiesce */
	bool gives_back;     /* what it holds, on quiesce */
	bool stop_thread;
};

/*
 * --- The device ---
 */

static void hold_qnotify(void *arg, struct vqueue_info *vq)
{
	struct hold *h = arg;
	unsigned q = vq->vq_num;
	struct chain c;
	struct vi_req req;

	while (vq_getchain(vq, &c.iov, 1, &req) == 1) {
		c.head = (uint16_t)req.idx;
		assert_true(h->nr_taken[q] < QSIZE);
		h->taken[q][h->nr_taken[q]++] = c;
	}
}

/* Like a device that waits for its requests here. */
static void hold_quiesce(void *arg)
{
	struct hold *h = arg;

	for (unsigned i = 0; i < h->iterations; i++)
		vio_loop_iterate(h->f.loop, 0);
	for (unsigned q = 0; h->gives_back && q < NR_QUEUES; q++) {
		if (!vq_is_stopping(&h->vqs[q]))
			continue;
		for (unsigned i = 0; i < h->nr_taken[q]; i++)
			assert_true(
				vq_retchain(&h->vqs[q], h->taken[q][i].head));
		h->nr_taken[q] = 0;
	}
}

static struct chain oldest(struct hold *h, unsigned q)
{
	struct chain c = h->taken[q][0];

	assert_true(h->nr_taken[q] > 0);
	h->nr_taken[q]--;
	memmove(&h->taken[q][0], &h->taken[q][1],
		h->nr_taken[q] * sizeof(struct chain));
	return c;
}

/* Complete the oldest request; its buffer is written only now. */
static void finish(struct hold *h, unsigned q)
{
	struct chain c = oldest(h, q);

	memset(c.iov.iov_base, 0x5a, c.iov.iov_len);
	vq_relchain(&h->vqs[q], c.head, (uint32_t)c.iov.iov_len);
	vq_endchains(&h->vqs[q], 0);
	fe_iterate(&h->f);
}

/* Two queues with a feature, one without. */
static void hold_apply_features(void *arg, uint64_t *features)
{
	struct hold *h = arg;

	h->vc.vc_nvq = *features & VI_BIT(VIRTIO_RING_F_EVENT_IDX) ? 2 : 1;
}

static int setup_queues(void **state, int nr)
{
	struct hold *h = calloc(1, sizeof(*h));

	fe_init(&h->f);
	pthread_mutex_init(&h->mtx, NULL);
	h->vc = (struct virtio_consts){
		.vc_name = "hold",
		.vc_nvq = nr,
		.vc_max_nvq = NR_QUEUES,
		.vc_hv_caps_modern = VI_RING_CAPS_MODERN,
		.vc_qnotify = hold_qnotify,
		.vc_quiesce = hold_quiesce,
	};
	vi_softc_linkup(&h->vs, &h->vc, h, vio_server_pci(h->f.srv), h->vqs);
	for (unsigned i = 0; i < NR_QUEUES; i++)
		h->vqs[i].vq_qsize = QSIZE;
	fe_listen(&h->f);
	*state = h;
	return 0;
}

static int setup(void **state)
{
	return setup_queues(state, NR_QUEUES);
}

static int setup_one_queue(void **state)
{
	return setup_queues(state, 1);
}

static int teardown(void **state)
{
	struct hold *h = *state;

	vi_softc_fini(&h->vs);
	fe_fini(&h->f);
	pthread_mutex_destroy(&h->mtx);
	free(h);
	return 0;
}

/*
 * --- The front-end ---
 */

/* Rings in one region of memory, buffers in another. */
static const uint64_t rings_region[] = { 0, GPA, BUF, UADDR, 0 };
static const uint64_t buf_region[] = { 0, GPA + BUF, MEM_BYTES - BUF,
				       UADDR + BUF, BUF };

static void start(struct hold *h)
{
	struct fe *f = &h->f;

	fe_negotiate(f);
	assert_true(fe_ask(f, VHMSG_ADD_MEM_REG, rings_region,
			   sizeof(rings_region), f->memfd));
	assert_true(fe_ask(f, VHMSG_ADD_MEM_REG, buf_region, sizeof(buf_region),
			   f->memfd));
	fe_start_ring(f, f->avail_idx);
}

static void start_with_request(struct hold *h)
{
	start(h);
	fe_offer(&h->f);
	fe_kick(&h->f);
	assert_int_equal(h->nr_taken[0], 1);
	assert_int_equal(h->f.mem[BUF], 0);
}

/* Whether there is no answer. */
static bool is_silent(struct fe *f)
{
	struct pollfd pfd = { f->fd, POLLIN, 0 };

	for (int i = 0; i < 4; i++)
		fe_iterate(f);
	return poll(&pfd, 1, 0) == 0;
}

static bool is_accepted(struct fe *f, uint32_t request)
{
	uint64_t val = 1;

	assert_int_equal(fe_receive(f, request, &val, sizeof(val), NULL), 8);
	return val == 0;
}

/* How often guest memory is mapped, except by the test itself. */
static unsigned nr_mappings(void)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	char line[512];
	unsigned nr = 0;

	while (fgets(line, sizeof(line), maps))
		nr += strstr(line, "memfd:guest") != NULL;
	fclose(maps);
	return nr - 1;
}

/* The second ring runs, with one request. Returns its doorbell. */
static int use_second_ring(struct hold *h)
{
	struct vhmsg_vring_addr addr = { 1, 0, UADDR + 0x5000, UADDR + 0x7000,
					 UADDR + 0x6000 };
	struct fe *f = &h->f;
	int kick = eventfd(0, EFD_CLOEXEC);

	assert_true(fe_set_vring(f, VHMSG_SET_VRING_NUM, 1, QSIZE));
	assert_true(fe_ask(f, VHMSG_SET_VRING_ADDR, &addr, sizeof(addr), -1));
	assert_true(fe_set_u64(f, VHMSG_SET_VRING_KICK, 1, kick));
	assert_true(fe_set_vring(f, VHMSG_SET_VRING_ENABLE, 1, 1));
	fe_write_desc(f, 0x5000, GPA + BUF + 0x1000, 16, VRING_DESC_F_WRITE);
	fe_write16(f, 0x6000 + 2, 1);
	return kick;
}

static int get_inflight(struct fe *f, struct vhmsg_inflight *area)
{
	int fd;

	*area = (struct vhmsg_inflight){ .nr_queues = 1, .queue_size = QSIZE };
	fe_send_msg(f, VHMSG_GET_INFLIGHT_FD, 0, area, sizeof(*area), -1);
	fe_receive(f, VHMSG_GET_INFLIGHT_FD, area, sizeof(*area), &fd);
	return fd;
}

static void set_inflight(struct fe *f, const struct vhmsg_inflight *area,
			 int fd)
{
	fe_negotiate(f);
	assert_true(fe_ask(f, VHMSG_SET_INFLIGHT_FD, area, sizeof(*area), fd));
}

/*
 * --- Rings stop ---
 */

/*
 * Every message that stops a ring is answered when its requests have ended, and
 * later messages after that. Meanwhile the loop runs.
 */
static void test_stop_waits(void **state)
{
	struct {
		const char *name;
		uint32_t request;
		uint64_t payload[5];
		uint32_t len;
		bool runs; /* afterwards */
	} rows[] = {
		{ "disable", VHMSG_SET_VRING_ENABLE, { 0 }, 8, false },
		{ "status 0", VHMSG_SET_STATUS, { 0 }, 8, false },
		{ "owner", VHMSG_RESET_OWNER, { 0 }, 0, false },
		{ "size", VHMSG_SET_VRING_NUM, { FE_PAIR(0, 8) }, 8, true },
		{ "base", VHMSG_SET_VRING_BASE, { FE_PAIR(0, 2) }, 8, true },
		{ "address",
		  VHMSG_SET_VRING_ADDR,
		  { 0, UADDR + DESC, UADDR + USED, UADDR + AVAIL + 0x100 },
		  40,
		  true },
	};
	struct hold *h = *state;
	struct fe *f = &h->f;
	uint64_t nr;

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		print_message("%s\n", rows[i].name);
		memset(f->mem, 0, MEM_BYTES);
		f->avail_idx = 0;
		start(h);
		fe_offer(f);
		fe_offer(f);
		fe_kick(f);
		assert_int_equal(h->nr_taken[0], 2);
		fe_write16(f, AVAIL + 0x100 + 2, 2);

		fe_send_msg(f, rows[i].request, VHMSG_NEED_REPLY,
			    rows[i].payload, rows[i].len, -1);
		fe_send_msg(f, VHMSG_GET_QUEUE_NUM, 0, NULL, 0, -1);
		assert_true(is_silent(f));
		fe_offer(f);
		fe_kick(f);
		assert_int_equal(h->nr_taken[0], 2); /* nothing is taken */
		assert_int_equal(vio_loop_iterate(f->loop, 0),
				 0); /* it sleeps */
		finish(h, 0);
		assert_true(is_silent(f));
		finish(h, 0);
		assert_int_equal(fe_used_idx(f), 2);
		assert_true(is_accepted(f, rows[i].request));
		assert_int_equal(
			fe_receive(f, VHMSG_GET_QUEUE_NUM, &nr, 8, NULL), 8);
		fe_iterate(f);
		assert_int_equal(h->vqs[0].vq_flags != 0, rows[i].runs);
		while (h->nr_taken[0] > 0)
			finish(h, 0);
		fe_reconnect(f);
	}
}

/* GET_VRING_BASE waits; the device's other ring runs meanwhile. */
static void test_base_waits(void **state)
{
	struct hold *h = *state;
	struct fe *f = &h->f;
	struct vhmsg_vring vring = { 0, 0xdead };

	int kick;

	start_with_request(h);
	kick = use_second_ring(h);
	fe_send_msg(f, VHMSG_GET_VRING_BASE, 0, &vring, 8, -1);
	assert_true(is_silent(f));
	assert_int_equal(eventfd_write(kick, 1), 0);
	fe_iterate(f);
	assert_int_equal(h->nr_taken[1], 1);
	finish(h, 1);
	assert_int_equal(fe_read16(f, 0x7000 + 2), 1);
	assert_true(is_silent(f));
	finish(h, 0);
	assert_int_equal(fe_receive(f, VHMSG_GET_VRING_BASE, &vring, 8, NULL),
			 8);
	assert_int_equal(vring.num, 1);
	assert_int_equal(fe_used_idx(f), 1);
	assert_true(fe_was_called(f));
	assert_int_equal(f->mem[BUF], 0x5a);
	assert_true(is_silent(f)); /* one answer */
	close(kick);
}

/* Complete the second oldest of three requests. */
static void finish_second(struct hold *h)
{
	struct chain first = oldest(h, 0), third;

	finish(h, 0);
	third = oldest(h, 0);
	h->taken[0][0] = first;
	h->taken[0][1] = third;
	h->nr_taken[0] = 2;
}

static void set_features(struct fe *f, unsigned bit)
{
	assert_true(fe_set_u64(f, VHMSG_SET_FEATURES,
			       V1 | PROTOCOL | VI_BIT(bit), -1));
}

static void check_taken(struct hold *h, unsigned nr, const uint16_t *heads)
{
	fe_kick(&h->f);
	assert_int_equal(h->nr_taken[0], nr);
	for (unsigned i = 0; i < nr; i++)
		assert_int_equal(h->taken[0][i].head, heads[i]);
}

/*
 * Requests that merely wait do not delay GET_VRING_BASE. The ring resumes with
 * them, whether or not they are in the front-end's record, unless the front-end
 * starts it elsewhere, or for another driver.
 */
static void test_base_given_back(void **state)
{
	static const struct {
		bool record;
		uint16_t base;
		unsigned nr;
		uint16_t heads[2];
		bool another; /* driver */
	} rows[] = {
		{ false, 2, 2, { 0, 2 } },
		{ true, 2, 2, { 0, 2 } },
		{ false, 3, 0, { 0 } },
		{ false, 2, 1, { 2 }, true },
	};
	struct hold *h = *state;
	struct fe *f = &h->f;

	h->gives_back = true;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct vhmsg_vring vring = { 0, 0 };
		struct vhmsg_inflight area;
		int fd = -1;

		memset(f->mem, 0, MEM_BYTES);
		f->avail_idx = 0;
		if (rows[i].record) {
			fe_negotiate(f);
			fd = get_inflight(f, &area);
			set_inflight(f, &area, fd);
		}
		start_with_request(h);
		fe_offer(f);
		fe_offer(f);
		fe_kick(f);
		finish_second(h);
		for (int again = 0; again < 2; again++) {
			fe_send_msg(f, VHMSG_GET_VRING_BASE, 0, &vring, 8, -1);
			assert_int_equal(fe_receive(f, VHMSG_GET_VRING_BASE,
						    &vring, 8, NULL),
					 8);
			/* Entries from the record follow the used index. */
			assert_int_equal(vring.num,
					 again && rows[i].record ? 1 : 2);
			assert_int_equal(h->nr_taken[0], 0);
			if (rows[i].another)
				set_features(f, VIRTIO_RING_F_INDIRECT_DESC);
			fe_start_ring(f, rows[i].base);
			check_taken(h, rows[i].nr, rows[i].heads);
			if (rows[i].nr < 2)
				break;
		}
		while (h->nr_taken[0] > 0)
			finish(h, 0);
		assert_int_equal(fe_used_idx(f), 1 + rows[i].nr);
		if (fd >= 0)
			close(fd);
		fe_reconnect(f);
	}
}

/* Used entries not yet published are published before a ring stops. */
static void test_stop_publishes(void **state)
{
	struct hold *h = *state;
	struct fe *f = &h->f;
	struct vhmsg_vring vring = { 0, 0 };

	for (int later = 0; later < 2; later++) {
		start_with_request(h);
		if (later)
			fe_send_msg(f, VHMSG_GET_VRING_BASE, 0, &vring, 8, -1);
		fe_was_called(f);
		vq_relchain_prepare(&h->vqs[0], oldest(h, 0).head, 16);
		if (!later)
			fe_send_msg(f, VHMSG_GET_VRING_BASE, 0, &vring, 8, -1);
		fe_iterate(f);
		assert_int_equal(
			fe_receive(f, VHMSG_GET_VRING_BASE, &vring, 8, NULL),
			8);
		assert_int_equal(fe_used_idx(f), f->avail_idx);
		assert_int_equal(vring.num, f->avail_idx);
		assert_true(fe_was_called(f));
		fe_reconnect(f);
	}
	/* Or before a disconnected front-end is forgotten. */
	start_with_request(h);
	vq_relchain_prepare(&h->vqs[0], oldest(h, 0).head, 16);
	assert_int_equal(fe_used_idx(f), f->avail_idx - 1);
	fe_reconnect(f);
	assert_int_equal(fe_used_idx(f), f->avail_idx);
}

/*
 * A device runs the loop while it handles a message: the message is handled
 * once, and the front-end that disconnects meanwhile is dropped once.
 */
static void on_notify(void *arg, bool attached)
{
	*(unsigned *)arg += !attached;
}

static void test_loop_runs_inside(void **state)
{
	struct hold *h = *state;
	struct fe *f = &h->f;
	struct vhmsg_vring vring = { 0, 0 };
	struct vio_server_stats before, after;
	const uint32_t get_base[] = { VHMSG_GET_VRING_BASE, VHMSG_VERSION, 8, 0,
				      0 };
	unsigned nr_disconnected = 0;

	h->iterations = 3;
	vio_server_set_notify(f->srv, on_notify, &nr_disconnected);
	start_with_request(h);
	vio_server_get_stats(f->srv, &before);
	for (int i = 0; i < 2; i++)
		assert_int_equal(send(f->fd, get_base, sizeof(get_base), 0),
				 sizeof(get_base));
	fe_iterate(f);
	finish(h, 0);
	for (int i = 0; i < 2; i++)
		assert_int_equal(
			fe_receive(f, VHMSG_GET_VRING_BASE, &vring, 8, NULL),
			8);
	assert_true(is_silent(f));
	vio_server_get_stats(f->srv, &after);
	assert_int_equal(after.messages, before.messages + 2);

	fe_start_ring(f, 1);
	fe_offer(f);
	fe_kick(f);
	assert_int_equal(h->nr_taken[0], 1);
	fe_reconnect(f); /* its disconnection is noticed while it is handled */
	assert_int_equal(nr_disconnected, 1);
	vio_server_get_stats(f->srv, &after);
	assert_true(after.attached);
	assert_int_equal(after.clients, before.clients + 1);
	assert_int_equal(fe_get_u64(f, VHMSG_GET_QUEUE_NUM), NR_QUEUES);
	vio_server_set_notify(f->srv, NULL, NULL);
	finish(h, 0);
}

/*
 * --- Memory is removed ---
 */

static void remove_memory(struct fe *f, bool table)
{
	const uint64_t rest[] = { FE_PAIR(1, 0), GPA, BUF, UADDR, 0 };

	if (table)
		fe_send_msg(f, VHMSG_SET_MEM_TABLE, VHMSG_NEED_REPLY, rest,
			    sizeof(rest), f->memfd);
	else
		fe_send_msg(f, VHMSG_REM_MEM_REG, VHMSG_NEED_REPLY, buf_region,
			    sizeof(buf_region), -1);
}

/*
 * Memory that a request uses is removed: at once for new requests, for this one
 * when it has ended, and then the front-end is answered.
 */
static void test_memory_waits(void **state)
{
	struct hold *h = *state;
	struct fe *f = &h->f;

	for (int table = 0; table < 2; table++) {
		uint32_t request =
			table ? VHMSG_SET_MEM_TABLE : VHMSG_REM_MEM_REG;

		memset(f->mem, 0, MEM_BYTES);
		f->avail_idx = 0;
		start_with_request(h);
		assert_int_equal(nr_mappings(), 2);
		remove_memory(f, table);
		fe_send_msg(f, VHMSG_GET_QUEUE_NUM, 0, NULL, 0, -1);
		assert_true(is_silent(f));
		assert_int_equal(nr_mappings(), 2);
		finish(h, 0); /* into memory that is still there */
		assert_int_equal(f->mem[BUF], 0x5a);
		assert_int_equal(fe_used_idx(f), 1); /* the ring has run on */
		assert_true(is_accepted(f, request));
		assert_int_equal(nr_mappings(), 1);
		assert_int_equal(fe_receive(f, VHMSG_GET_QUEUE_NUM,
					    &(uint64_t){ 0 }, 8, NULL),
				 8);
		fe_offer(f);
		fe_kick(f);
		assert_int_equal(h->nr_taken[0], 0); /* no such memory */
		fe_reconnect(f);
	}
}

/* A request that merely waits does not delay it either, and is taken again. */
static void test_memory_given_back(void **state)
{
	const uint64_t table[] = { FE_PAIR(1, 0), GPA, MEM_BYTES, UADDR, 0 };
	struct hold *h = *state;
	struct fe *f = &h->f;

	h->gives_back = true;
	start_with_request(h);
	remove_memory(f, false);
	assert_true(is_accepted(f, VHMSG_REM_MEM_REG));
	assert_int_equal(nr_mappings(), 1);
	assert_int_equal(h->nr_taken[0], 0);
	fe_reconnect(f);

	memset(f->mem, 0, MEM_BYTES);
	f->avail_idx = 0;
	start_with_request(h);
	fe_send_msg(f, VHMSG_SET_MEM_TABLE, VHMSG_NEED_REPLY, table,
		    sizeof(table), f->memfd);
	assert_true(is_accepted(f, VHMSG_SET_MEM_TABLE));
	fe_iterate(f);
	assert_int_equal(h->nr_taken[0], 1);
	finish(h, 0);
	assert_int_equal(fe_used_idx(f), 1);
	assert_int_equal(f->mem[BUF], 0x5a);
}

/* Requests that use other memory do not delay it. */
static void test_other_memory(void **state)
{
	const uint64_t other[] = { 0, GPA + MEM_BYTES, 4096, UADDR + MEM_BYTES,
				   0 };
	struct hold *h = *state;
	struct fe *f = &h->f;

	start(h);
	assert_true(
		fe_ask(f, VHMSG_ADD_MEM_REG, other, sizeof(other), f->memfd));
	fe_offer(f);
	fe_kick(f);
	assert_int_equal(h->nr_taken[0], 1);
	assert_true(fe_ask(f, VHMSG_REM_MEM_REG, other, sizeof(other), -1));
	assert_int_equal(nr_mappings(), 2);
	finish(h, 0);
	assert_int_equal(fe_used_idx(f), 1);
}

/*
 * --- Resets, and front-ends that disconnect ---
 */

/*
 * RESET_DEVICE stops at once, and is answered when no earlier request writes to
 * guest memory any more. The guest does not see that request's completion.
 */
static void test_reset_waits(void **state)
{
	struct hold *h = *state;
	struct fe *f = &h->f;

	start_with_request(h);
	fe_send_msg(f, VHMSG_RESET_DEVICE, VHMSG_NEED_REPLY, NULL, 0, -1);
	assert_true(is_silent(f));
	assert_int_equal(h->vqs[0].vq_flags, 0);
	fe_was_called(f);
	finish(h, 0);
	assert_true(is_accepted(f, VHMSG_RESET_DEVICE));
	assert_int_equal(fe_used_idx(f), 0);
	assert_false(fe_was_called(f));
}

/* A front-end does not wait for its predecessor's requests. */
static void test_reset_of_next(void **state)
{
	struct hold *h = *state;
	struct fe *f = &h->f;

	start_with_request(h);
	fe_reconnect(f);
	memset(f->mem, 0, MEM_BYTES);
	f->avail_idx = 0;
	start(h);
	fe_send_msg(f, VHMSG_RESET_DEVICE, VHMSG_NEED_REPLY, NULL, 0, -1);
	assert_true(is_accepted(f, VHMSG_RESET_DEVICE));
	assert_int_equal(h->vs.vs_priv->nr_stale, 1);

	/* Nor does it forget its own; and a busy head is not taken. */
	fe_start_ring(f, 0);
	fe_offer(f);
	fe_offer(f);
	fe_kick(f);
	assert_int_equal(h->nr_taken[0], 1);
	finish(h, 0);
	assert_int_equal(h->nr_taken[0], 2);
	fe_send_msg(f, VHMSG_RESET_DEVICE, VHMSG_NEED_REPLY, NULL, 0, -1);
	finish(h, 0);
	assert_true(is_silent(f));
	finish(h, 0);
	assert_true(is_accepted(f, VHMSG_RESET_DEVICE));
	assert_int_equal(fe_used_idx(f), 0);
}

/*
 * The front-end disconnects while a request is in flight, and perhaps while it
 * waits for that: the next one is served at once. The request ends in its own
 * time, in the old front-end's memory, and is not published.
 */
static void test_front_end_goes(void **state)
{
	static const uint32_t waits_for[] = {
		VHMSG_GET_FEATURES, /* does not wait */
		VHMSG_GET_VRING_BASE, VHMSG_REM_MEM_REG,
		VHMSG_SET_MEM_TABLE,  VHMSG_RESET_DEVICE,
	};
	const uint64_t payload[5] = { 0 };
	struct hold *h = *state;
	struct fe *f = &h->f;

	for (size_t i = 0; i < ARRAY_LEN(waits_for); i++) {
		uint32_t request = waits_for[i];

		memset(f->mem, 0, MEM_BYTES);
		f->avail_idx = 0;
		start_with_request(h);
		if (request == VHMSG_REM_MEM_REG ||
		    request == VHMSG_SET_MEM_TABLE)
			remove_memory(f, request == VHMSG_SET_MEM_TABLE);
		else
			fe_send_msg(f, request, VHMSG_NEED_REPLY, payload, 8,
				    -1);
		fe_reconnect(f);
		assert_int_equal(nr_mappings(), 1); /* the buffer's */

		/* Another, in other memory, for the same chain. */
		memset(f->mem, 0, BUF);
		f->avail_idx = 0;
		start(h);
		fe_offer(f);
		fe_kick(f);
		assert_int_equal(h->nr_taken[0], 1);
		assert_int_equal(nr_mappings(), 3);
		finish(h, 0);
		assert_int_equal(fe_used_idx(f), 0);
		assert_int_equal(nr_mappings(), 2);
		assert_int_equal(h->nr_taken[0], 1); /* the new one's, now */
		finish(h, 0);
		assert_int_equal(fe_used_idx(f), 1);
		fe_reconnect(f);
		assert_int_equal(nr_mappings(), 0);
	}
}

/*
 * --- A device with its own thread ---
 */

/* Processes its requests until told to stop, then completes them. */
static void *work(void *arg)
{
	struct hold *h = arg;
	struct chain c = h->taken[0][0];

	while (!__atomic_load_n(&h->stop_thread, __ATOMIC_ACQUIRE))
		memset(c.iov.iov_base, 0x5a, c.iov.iov_len);
	pthread_mutex_lock(&h->mtx);
	vq_relchain(&h->vqs[0], c.head, (uint32_t)c.iov.iov_len);
	vq_endchains(&h->vqs[0], 0);
	pthread_mutex_unlock(&h->mtx);
	return NULL;
}

/* Without vc_quiesce: it is not notified that the front-end has gone. */
static void test_worker_thread(void **state)
{
	struct hold *h = *state;
	struct fe *f = &h->f;
	pthread_t thread;

	h->vs.vs_mtx = &h->mtx;
	h->vc.vc_quiesce = NULL;
	for (int i = 0; i < 20; i++) {
		memset(f->mem, 0, MEM_BYTES);
		f->avail_idx = 0;
		start_with_request(h);
		h->stop_thread = false;
		pthread_create(&thread, NULL, work, h);
		fe_reconnect(f);
		assert_int_equal(nr_mappings(), 1);
		start(h);
		__atomic_store_n(&h->stop_thread, true, __ATOMIC_RELEASE);
		pthread_join(thread, NULL);
		h->nr_taken[0] = 0;
		fe_iterate(f);
		assert_int_equal(nr_mappings(), 2);
		assert_int_equal(fe_used_idx(f), 0);
		fe_reconnect(f);
	}
}

/*
 * --- Requests in flight that are recorded ---
 */

static void note_in_flight(int fd, unsigned head)
{
	assert_int_equal(pwrite(fd, "\1", 1, 16 + 16 * head), 1);
}

/*
 * The front-end reconnects with the record: what was in flight is taken again,
 * but only once it has ended. A new driver's rings start without it: after
 * RESET_DEVICE, and if only its rings show it.
 */
static void test_record(void **state)
{
	struct hold *h = *state;
	struct fe *f = &h->f;
	struct vhmsg_inflight area;
	struct vhmsg_vring vring = { 0, 0 };
	int fd;

	fe_negotiate(f);
	fd = get_inflight(f, &area);
	set_inflight(f, &area, fd);
	start_with_request(h);
	fe_reconnect(f);
	set_inflight(f, &area, fd);
	start(h);
	assert_int_equal(h->nr_taken[0], 1);
	finish(h, 0);
	assert_int_equal(fe_used_idx(f), 0);
	assert_int_equal(h->nr_taken[0], 1); /* again */

	/* A new driver, without any requests. */
	memset(f->mem, 0, BUF);
	f->avail_idx = 0;
	note_in_flight(fd, 5);
	fe_send_msg(f, VHMSG_RESET_DEVICE, VHMSG_NEED_REPLY, NULL, 0, -1);
	finish(h, 0);
	assert_true(is_accepted(f, VHMSG_RESET_DEVICE));
	fe_start_ring(f, 0);
	fe_offer(f);
	fe_kick(f);
	assert_int_equal(h->nr_taken[0], 1);
	assert_int_equal(h->taken[0][0].head, 0);
	finish(h, 0);
	assert_int_equal(fe_used_idx(f), 1);

	/* The next driver, on fresh rings; the record says otherwise. */
	fe_send_msg(f, VHMSG_GET_VRING_BASE, 0, &vring, 8, -1);
	fe_receive(f, VHMSG_GET_VRING_BASE, &vring, 8, NULL);
	note_in_flight(fd, 5);
	memset(f->mem, 0, BUF);
	f->avail_idx = 0;
	fe_start_ring(f, 0);
	fe_offer(f);
	fe_kick(f);
	assert_int_equal(h->nr_taken[0], 1);
	assert_int_equal(h->taken[0][0].head, 0);
	finish(h, 0);
	close(fd);
}

/*
 * A record of any size: only the part that rings can use is cleared, so that
 * the file's holes stay holes.
 */
static void test_huge_record(void **state)
{
	struct hold *h = *state;
	struct fe *f = &h->f;
	/* A 32-bit process has no room for more, and says so. */
	const uint64_t most = SIZE_MAX > UINT32_MAX ? 1ull << 40 : 1ull << 30;
	struct vhmsg_inflight area = { .size = most,
				       .nr_queues = 2,
				       .queue_size = 32768 };
	int fd = memfd_create("area", MFD_CLOEXEC);
	struct stat st;

	assert_int_equal(ftruncate(fd, (off_t)area.size), 0);
	fe_negotiate(f);
	area.nr_queues = 3; /* of two */
	assert_false(fe_ask(f, VHMSG_SET_INFLIGHT_FD, &area, sizeof(area), fd));
	area.nr_queues = 2;
	area.size = SIZE_MAX > UINT32_MAX ? 1ull << 62 : 1ull << 40;
	assert_false(fe_ask(f, VHMSG_SET_INFLIGHT_FD, &area, sizeof(area), fd));
	area.size = most;
	assert_true(fe_ask(f, VHMSG_SET_INFLIGHT_FD, &area, sizeof(area), fd));
	start(h);
	assert_true(fe_ask(f, VHMSG_RESET_DEVICE, NULL, 0, -1));
	assert_int_equal(fstat(fd, &st), 0);
	assert_in_range(st.st_blocks * 512, 1, 16384);
	close(fd);
}

/* A model that has more queues if its driver accepts a feature. */
static void test_more_queues(void **state)
{
	struct hold *h = *state;
	struct fe *f = &h->f;
	int kick;

	h->vc.vc_apply_features = hold_apply_features;
	assert_int_equal(fe_get_u64(f, VHMSG_GET_QUEUE_NUM), 2);
	start(h); /* without */
	assert_true(fe_set_vring(f, VHMSG_SET_VRING_NUM, 1, QSIZE));
	fe_reconnect(f);
	fe_negotiate(f);
	assert_true(fe_set_u64(f, VHMSG_SET_FEATURES,
			       V1 | PROTOCOL | VI_BIT(VIRTIO_RING_F_EVENT_IDX),
			       -1));
	assert_true(fe_add_memory(f, VHMSG_ADD_MEM_REG));
	kick = use_second_ring(h);
	assert_int_equal(eventfd_write(kick, 1), 0);
	fe_iterate(f);
	assert_int_equal(h->nr_taken[1], 1);
	finish(h, 1);
	close(kick);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_stop_waits),
		TEST(test_base_waits),
		TEST(test_base_given_back),
		TEST(test_stop_publishes),
		TEST(test_loop_runs_inside),
		TEST(test_memory_waits),
		TEST(test_memory_given_back),
		TEST(test_other_memory),
		TEST(test_reset_waits),
		TEST(test_reset_of_next),
		TEST(test_front_end_goes),
		TEST(test_worker_thread),
		TEST(test_record),
		TEST(test_huge_record),
		cmocka_unit_test_setup_teardown(test_more_queues,
						setup_one_queue, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

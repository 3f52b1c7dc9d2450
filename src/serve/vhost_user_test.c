/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The vhost-user server, with an entropy device behind it, against a scripted
 * front-end. B1..B7 are the sections, and "trap N" the rows, of
 * docs/spec/protocols.md; "hostile X" is a row of docs/spec/hostile.md.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_net.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include <viodev/device.h>
#include <viodev/loop.h>
#include <viodev/server.h>
#include <viodev/virtio.h>

#include "base/le.h"
#include "base/util.h"
#include "serve/client.h"
#include "serve/mapping.h"
#include "emulated.h"
#include "process.h"
#include "vhost_user_client.h"
#include "serve/vhost_user_impl.h"

static int setup(void **state)
{
	struct fe *f = calloc(1, sizeof(*f));
	char why[200];

	fe_init(f);
	assert_int_equal(vdev_new("rng", vio_server_pci(f->srv), f->loop,
				  &f->dev, why, sizeof(why)),
			 0);
	fe_listen(f);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fe *f = *state;

	vdev_destroy(f->dev);
	fe_fini(f);
	free(f);
	return 0;
}

/*
 * --- Tests ---
 */

/* B3: what is offered; B4: entropy arrives, the base is sent, twice alike. */
static void test_life(void **state)
{
	struct fe *f = *state;
	struct vhmsg_vring vring = { 0, 0xdead }; /* trap: DPDK's garbage */

	assert_int_equal(
		fe_get_u64(f, VHMSG_GET_FEATURES) &
			(V1 | PROTOCOL | VI_BIT(VIRTIO_F_ACCESS_PLATFORM)),
		V1 | PROTOCOL);
	assert_int_equal(fe_get_u64(f, VHMSG_GET_QUEUE_NUM), 1);
	assert_int_equal(fe_get_u64(f, VHMSG_GET_MAX_MEM_SLOTS), 509);
	fe_negotiate(f);
	assert_true(fe_add_memory(f, VHMSG_ADD_MEM_REG));
	fe_offer(f); /* before it runs: it must be served without a kick */
	fe_start_ring(f, 0);
	assert_int_equal(fe_used_idx(f), 1);
	assert_true(fe_was_called(f));
	fe_offer(f);
	fe_kick(f);
	assert_int_equal(fe_used_idx(f), 2);
	assert_true(fe_was_called(f));

	for (int i = 0; i < 2; i++) {
		fe_send_msg(f, VHMSG_GET_VRING_BASE, 0, &vring, 8, -1);
		assert_int_equal(
			fe_receive(f, VHMSG_GET_VRING_BASE, &vring, 8, NULL),
			8);
		assert_int_equal(vring.num, 2);
	}
	fe_offer(f);
	fe_kick(f);
	assert_int_equal(fe_used_idx(f), 2); /* stopped */
	fe_start_ring(f, 2);
	assert_int_equal(fe_used_idx(f), 3);
	assert_true(fe_set_vring(f, VHMSG_SET_VRING_ENABLE, 0, 0));
	fe_offer(f);
	fe_kick(f);
	assert_int_equal(fe_used_idx(f), 3); /* disabled */
	assert_true(fe_set_vring(f, VHMSG_SET_VRING_ENABLE, 0, 1));
	assert_int_equal(fe_used_idx(f), 4);
}

/* B4, trap 23: a new driver on the same connection, shown only by its ring. */
static void test_new_driver(void **state)
{
	struct fe *f = *state;
	struct vhmsg_vring vring = { 0, 0 };

	fe_negotiate(f);
	assert_true(fe_add_memory(f, VHMSG_ADD_MEM_REG));
	fe_start_ring(f, 0);
	fe_offer(f);
	/* hostile D36 */
	fe_write16(f, AVAIL + 2, (uint16_t)(fe_read16(f, AVAIL + 2) + 1000));
	fe_kick(f);
	assert_int_equal(fe_used_idx(f), 0);
	assert_int_equal(fe_get_u64(f, VHMSG_GET_STATUS) &
				 VIRTIO_CONFIG_STATUS_NEEDS_RESET,
			 VIRTIO_CONFIG_STATUS_NEEDS_RESET);
	fe_send_msg(f, VHMSG_GET_VRING_BASE, 0, &vring, 8, -1);
	fe_receive(f, VHMSG_GET_VRING_BASE, &vring, 8, NULL);
	memset(f->mem, 0, BUF);
	f->avail_idx = 0;
	fe_offer(f);
	fe_start_ring(f, 0);
	assert_int_equal(fe_used_idx(f), 1);

	/* QEMU's block, scsi and net front-ends do send it. */
	assert_true(fe_ask(f, VHMSG_RESET_DEVICE, NULL, 0, -1));
	fe_offer(f);
	fe_kick(f);
	assert_int_equal(fe_used_idx(f), 1);
	assert_true(fe_set_vring(f, VHMSG_SET_VRING_ENABLE, 0, 1));
	assert_int_equal(fe_used_idx(f), 2);
}

/* B5: status reads as written; 0 stops the rings, which may resume. */
static void test_status(void **state)
{
	struct fe *f = *state;

	fe_negotiate(f);
	assert_true(fe_add_memory(f, VHMSG_ADD_MEM_REG));
	fe_start_ring(f, 0);
	assert_true(fe_set_u64(f, VHMSG_SET_STATUS, 0xf, -1));
	assert_false(fe_set_u64(f, VHMSG_SET_STATUS, 0x100, -1));
	assert_int_equal(fe_get_u64(f, VHMSG_GET_STATUS), 0xf);
	fe_offer(f);
	fe_kick(f);
	assert_int_equal(fe_used_idx(f), 1);
	assert_true(fe_set_u64(f, VHMSG_SET_STATUS, 0, -1));
	assert_int_equal(fe_get_u64(f, VHMSG_GET_STATUS), 0);
	fe_offer(f);
	fe_kick(f);
	assert_int_equal(fe_used_idx(f), 1);
	assert_true(fe_set_vring(f, VHMSG_SET_VRING_ENABLE, 0, 1));
	assert_int_equal(fe_used_idx(f), 2);
}

static int keep_inflight(struct fe *f)
{
	struct vhmsg_inflight area = { .nr_queues = 1, .queue_size = QSIZE };
	int fd;

	fe_send_msg(f, VHMSG_GET_INFLIGHT_FD, 0, &area, sizeof(area), -1);
	fe_receive(f, VHMSG_GET_INFLIGHT_FD, &area, sizeof(area), &fd);
	assert_true(fe_ask(f, VHMSG_SET_INFLIGHT_FD, &area, sizeof(area), fd));
	return fd;
}

static void get_inflight(struct fe *f)
{
	close(keep_inflight(f));
}

/* B6 Cloud Hypervisor's order: addresses, then base, then doorbells. */
static void cloud_hypervisor_start(struct fe *f, uint16_t base)
{
	struct vhmsg_vring_addr addr = { 0, 0, UADDR + DESC, UADDR + USED,
					 UADDR + AVAIL };

	assert_true(fe_set_vring(f, VHMSG_SET_VRING_NUM, 0, QSIZE));
	get_inflight(f);
	assert_true(fe_ask(f, VHMSG_SET_VRING_ADDR, &addr, sizeof(addr), -1));
	assert_true(fe_set_vring(f, VHMSG_SET_VRING_BASE, 0, base));
	assert_true(fe_set_u64(f, VHMSG_SET_VRING_CALL, 0, f->call));
	assert_true(fe_set_u64(f, VHMSG_SET_VRING_KICK, 0, f->kick));
	assert_true(fe_set_vring(f, VHMSG_SET_VRING_ENABLE, 0, 1));
}

/* B6: it resets by stopping, and sends the socket for our requests last. */
static void test_cloud_hypervisor(void **state)
{
	struct fe *f = *state;
	struct virtio_softc *vs = vio_server_pci(f->srv)->pi_arg;
	const uint64_t wants = 1 << VHMSG_PF_MQ | 1 << VHMSG_PF_LOG_SHMFD |
			       1 << VHMSG_PF_REPLY_ACK |
			       1 << VHMSG_PF_INFLIGHT_SHMFD |
			       1 << VHMSG_PF_MEM_SLOTS;
	struct vhmsg_vring vring = { 0, 0 };
	struct vhmsg_hdr hdr;
	int pair[2];

	socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair);
	assert_int_equal(fe_get_u64(f, VHMSG_GET_PROTOCOL_FEATURES) & wants,
			 wants);
	fe_negotiate(f);
	assert_true(fe_add_memory(f, VHMSG_ADD_MEM_REG));
	for (int driver = 0; driver < 2; driver++) {
		cloud_hypervisor_start(f, 0);
		assert_true(
			fe_ask(f, VHMSG_SET_BACKEND_REQ_FD, NULL, 0, pair[1]));
		fe_offer(f);
		fe_kick(f);
		assert_int_equal(fe_used_idx(f), 1);

		/* trap 29: it does not reply to them, and need not. */
		vq_devcfg_changed(vs);
		assert_int_equal(recv(pair[0], &hdr, sizeof(hdr), MSG_DONTWAIT),
				 sizeof(hdr));
		assert_int_equal(hdr.request, VHMSG_BACKEND_CONFIG_CHANGE);
		assert_int_equal(hdr.flags, VHMSG_VERSION);

		assert_true(fe_set_vring(f, VHMSG_SET_VRING_ENABLE, 0, 0));
		fe_send_msg(f, VHMSG_GET_VRING_BASE, 0, &vring, 8, -1);
		fe_receive(f, VHMSG_GET_VRING_BASE, &vring, 8, NULL);
		assert_int_equal(vring.num, 1);
		memset(f->mem, 0, BUF);
		f->avail_idx = 0;
	}
	/* A wrong base, with requests available: nothing is lost. */
	fe_offer(f);
	cloud_hypervisor_start(f, 1);
	assert_int_equal(fe_used_idx(f), 1);
	close(pair[0]);
	close(pair[1]);
}

/*
 * A change while the device is stopped, and reset since: QEMU's disk takes no
 * notice before the device starts, and then shows the guest its old copy.
 */
static void test_config_while_stopped(void **state)
{
	struct fe *f = *state;
	struct virtio_softc *vs = vio_server_pci(f->srv)->pi_arg;
	struct vhmsg_vring vring = { 0, 0 };
	struct vhmsg_hdr hdr;
	int pair[2];

	socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair);
	fe_negotiate(f);
	assert_true(fe_add_memory(f, VHMSG_ADD_MEM_REG));
	cloud_hypervisor_start(f, 0);
	assert_true(fe_ask(f, VHMSG_SET_BACKEND_REQ_FD, NULL, 0, pair[1]));
	fe_send_msg(f, VHMSG_GET_VRING_BASE, 0, &vring, 8, -1);
	fe_receive(f, VHMSG_GET_VRING_BASE, &vring, 8, NULL);
	for (int resets = 0; resets < 2; resets++) {
		assert_true(fe_ask(f, VHMSG_RESET_DEVICE, NULL, 0, -1));
		if (resets == 0)
			vq_devcfg_changed(vs);
	}
	assert_int_equal(recv(pair[0], &hdr, sizeof(hdr), MSG_DONTWAIT), -1);
	cloud_hypervisor_start(f, 0);
	assert_int_equal(recv(pair[0], &hdr, sizeof(hdr), MSG_DONTWAIT),
			 sizeof(hdr));
	assert_int_equal(hdr.request, VHMSG_BACKEND_CONFIG_CHANGE);
	assert_int_equal(recv(pair[0], &hdr, sizeof(hdr), MSG_DONTWAIT), -1);
	close(pair[0]);
	close(pair[1]);
}

/*
 * A driver that adds a chain as soon as the first is used, and sees that no
 * doorbell is wanted.
 */
static bool poll_driver(void *arg)
{
	struct fe *f = arg;
	uint16_t used = fe_read16(f, USED + 2);

	if (used == 1 && f->avail_idx == 1) {
		assert_int_equal(fe_read16(f, USED), VRING_USED_F_NO_NOTIFY);
		fe_offer(f);
	}
	if (used == 2)
		vio_loop_stop(f->loop);
	return false;
}

static void give_up(void *arg)
{
	vio_loop_stop(((struct fe *)arg)->loop);
}

/* The server polls its rings while the loop runs, and sleeps with doorbells on. */
static void test_poll_before_sleep(void **state)
{
	struct fe *f = *state;
	struct vio_poller driver = { .poll = poll_driver, .arg = f };
	struct vio_source *timer;

	fe_negotiate(f);
	assert_true(fe_add_memory(f, VHMSG_ADD_MEM_REG));
	fe_start_ring(f, 0);
	vio_poller_add(f->loop, &driver);
	vio_loop_set_poll(f->loop, UINT64_C(10000000000));
	assert_int_equal(vio_timer_add(f->loop, give_up, f, &timer), 0);
	vio_timer_set(timer, UINT64_C(5000000000));
	fe_offer(f);
	assert_int_equal(eventfd_write(f->kick, 1), 0);
	vio_loop_run(f->loop);
	assert_int_equal(fe_read16(f, USED + 2), 2);
	assert_int_equal(fe_read16(f, USED), 0);
	vio_source_remove(timer);
	vio_poller_remove(f->loop, &driver);
}

static void say(struct fe *f, char what)
{
	struct vhmsg_vring_addr addr = { 0, 0, UADDR + DESC, UADDR + USED,
					 UADDR + AVAIL };

	switch (what) {
	case 'F':
		assert_true(
			fe_set_u64(f, VHMSG_SET_FEATURES, V1 | PROTOCOL, -1));
		break;
	case 'M':
		assert_true(fe_add_memory(f, VHMSG_ADD_MEM_REG));
		break;
	case 'N':
		assert_true(fe_set_vring(f, VHMSG_SET_VRING_NUM, 0, QSIZE));
		break;
	case 'B':
		assert_true(fe_set_vring(f, VHMSG_SET_VRING_BASE, 0, 0));
		break;
	case 'A':
		assert_true(fe_ask(f, VHMSG_SET_VRING_ADDR, &addr, sizeof(addr),
				   -1));
		break;
	case 'K':
		assert_true(fe_set_u64(f, VHMSG_SET_VRING_KICK, 0, f->kick));
		break;
	case 'C':
		assert_true(fe_set_u64(f, VHMSG_SET_VRING_CALL, 0, f->call));
		break;
	case 'E':
		assert_true(fe_set_vring(f, VHMSG_SET_VRING_ENABLE, 0, 1));
		break;
	}
}

/* B4, trap 33: a ring runs, whatever the order of its messages. */
static void test_any_order(void **state)
{
	static const char *const orders[] = {
		"EFMNBAKC",             /* QEMU's net */
		"FMNBAKCE",             /* QEMU's block; and its scsi: */
		"FEMNBAKC", "FMCNBAKE", /* User Mode Linux */
		"FCMNBAKE",             /* DPDK */
		"FMNABCKE",             /* Cloud Hypervisor */
		"FMECKBAN",
	};
	struct fe *f = *state;

	for (size_t i = 0; i < ARRAY_LEN(orders); i++) {
		fe_reconnect(f);
		memset(f->mem, 0, BUF);
		f->avail_idx = 0;
		fe_set_u64(f, VHMSG_SET_PROTOCOL_FEATURES,
			   fe_get_u64(f, VHMSG_GET_PROTOCOL_FEATURES), -1);
		/* trap 24: kicked before the server can notice. */
		fe_offer(f);
		fe_kick(f);
		for (const char *what = orders[i]; *what; what++) {
			if (*what != 'C') /* not needed */
				assert_int_equal(fe_used_idx(f), 0);
			say(f, *what);
		}
		assert_int_equal(fe_used_idx(f), 1);
		assert_true(fe_was_called(f));
	}
}

/* B1, trap 25: exactly one answer for each message that requires one. */
static void test_answers(void **state)
{
	const uint64_t ack = VI_BIT(VHMSG_PF_REPLY_ACK);
	struct fe *f = *state;
	uint64_t val;

	/* Not negotiated: no answer. fe_get_u64() would find it. */
	fe_send_msg(f, VHMSG_SET_OWNER, VHMSG_NEED_REPLY, NULL, 0, -1);
	fe_get_u64(f, VHMSG_GET_FEATURES);
	/* From the message that negotiates it on, requested or not. */
	assert_true(fe_set_u64(f, VHMSG_SET_PROTOCOL_FEATURES, ack, -1));
	fe_send_msg(f, VHMSG_SET_OWNER, 0, NULL, 0, -1);
	fe_send_msg(f, VHMSG_GET_FEATURES, VHMSG_NEED_REPLY, NULL, 0, -1);
	assert_int_equal(fe_receive(f, VHMSG_GET_FEATURES, &val, 8, NULL), 8);
	assert_true(fe_ask(f, VHMSG_SET_OWNER, NULL, 0, -1));
	/* The last such message counts. */
	val = 0;
	fe_send_msg(f, VHMSG_SET_PROTOCOL_FEATURES, VHMSG_NEED_REPLY, &val, 8,
		    -1);
	fe_send_msg(f, VHMSG_SET_OWNER, VHMSG_NEED_REPLY, NULL, 0, -1);
	fe_get_u64(f, VHMSG_GET_QUEUE_NUM);
}

/*
 * B4, B6, trap 35 User Mode Linux: a socket as a pipe, sent first; no ring is
 * ever stopped, only disabled, and then set up again.
 */
static void test_uml(void **state)
{
	struct fe *f = *state;
	struct vhmsg_vring_addr addr = { 0, 0, UADDR + DESC, UADDR + USED,
					 UADDR + AVAIL };
	uint64_t events[16];
	int pair[2];

	socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair);
	fe_negotiate(f);
	for (int driver = 0; driver < 2; driver++) {
		uint64_t table[] = { FE_PAIR(1, 0), GPA, MEM_BYTES, UADDR, 0 };

		assert_true(fe_ask(f, VHMSG_SET_MEM_TABLE, table, sizeof(table),
				   f->memfd));
		assert_true(fe_set_u64(f, VHMSG_SET_VRING_CALL, 0, pair[1]));
		assert_true(fe_set_vring(f, VHMSG_SET_VRING_NUM, 0, QSIZE));
		assert_true(fe_set_vring(f, VHMSG_SET_VRING_BASE, 0, 0));
		assert_true(fe_ask(f, VHMSG_SET_VRING_ADDR, &addr, sizeof(addr),
				   -1));
		assert_true(fe_set_u64(f, VHMSG_SET_VRING_KICK, 0, f->kick));
		assert_true(fe_set_vring(f, VHMSG_SET_VRING_ENABLE, 0, 1));
		fe_offer(f);
		fe_kick(f);
		assert_int_equal(fe_used_idx(f), 1);
		assert_true(recv(pair[0], events, sizeof(events),
				 MSG_DONTWAIT) >= 8);
		assert_int_equal(events[0], 1);
		assert_true(fe_set_vring(f, VHMSG_SET_VRING_ENABLE, 0, 0));
		fe_get_u64(f, VHMSG_GET_FEATURES);
		memset(f->mem, 0, BUF);
		f->avail_idx = 0;
	}
	close(pair[0]);
	close(pair[1]);
}

/* trap 27: reading past the configuration's end is not an error. */
static void test_config_beyond(void **state)
{
	struct fe *f = *state;
	uint32_t payload[3 + 15] = { 0x100, 60 };
	static const uint8_t zeroes[60];

	fe_negotiate(f);
	memset(payload + 3, 0xff, 60);
	fe_send_msg(f, VHMSG_GET_CONFIG, 0, payload, sizeof(payload), -1);
	assert_int_equal(
		fe_receive(f, VHMSG_GET_CONFIG, payload, sizeof(payload), NULL),
		sizeof(payload));
	assert_int_equal(payload[0], 0x100);
	assert_int_equal(payload[1], 60);
	assert_memory_equal(payload + 3, zeroes, sizeof(zeroes));
	assert_true(fe_ask(f, VHMSG_SET_CONFIG, payload, sizeof(payload), -1));
}

/* Polled: there is no doorbell at all. */
static void test_polled(void **state)
{
	struct fe *f = *state;

	fe_negotiate(f);
	assert_true(fe_add_memory(f, VHMSG_ADD_MEM_REG));
	fe_start_ring(f, 0);
	assert_true(fe_set_u64(f, VHMSG_SET_VRING_KICK, 0x100, -1));
	for (int i = 1; i < 4; i++) {
		fe_offer(f);
		for (int ms = 0; ms < 1000 && fe_used_idx(f) != i; ms++)
			vio_loop_iterate(f->loop, 1);
		assert_int_equal(fe_used_idx(f), i);
	}
}

/* Memory is removed from a running ring: unused after the answer, trap 12. */
static void test_memory_goes(void **state)
{
	struct fe *f = *state;

	fe_negotiate(f);
	assert_true(fe_add_memory(f, VHMSG_ADD_MEM_REG));
	assert_false(fe_add_memory(f, VHMSG_ADD_MEM_REG)); /* overlaps */
	fe_start_ring(f, 0);
	assert_true(fe_add_memory(f, VHMSG_REM_MEM_REG));
	assert_false(fe_add_memory(f, VHMSG_REM_MEM_REG));
	fe_offer(f);
	fe_kick(f);
	assert_int_equal(fe_used_idx(f), 0);
}

/* B3: as many regions as were promised; all but one may be removed. */
static void test_memory_slots(void **state)
{
	struct fe *f = *state;
	uint64_t region[] = { 0, GPA + MEM_BYTES, 4096, UADDR + MEM_BYTES, 0 };

	fe_negotiate(f);
	assert_true(fe_add_memory(f, VHMSG_ADD_MEM_REG));
	fe_start_ring(f, 0);
	for (int i = 1; i < 509; i++) {
		assert_true(fe_ask(f, VHMSG_ADD_MEM_REG, region, sizeof(region),
				   f->memfd));
		region[1] += 4096;
		region[3] += 4096;
	}
	assert_false(
		fe_ask(f, VHMSG_ADD_MEM_REG, region, sizeof(region), f->memfd));
	for (int i = 1; i < 509; i++) {
		region[1] -= 4096;
		region[3] -= 4096;
		assert_true(fe_ask(f, VHMSG_REM_MEM_REG, region, sizeof(region),
				   -1));
		fe_offer(f);
		fe_kick(f);
		assert_int_equal(fe_used_idx(f), i);
	}
}

/* Pages that the device writes are logged, of buffers and of the used ring. */
static void test_log(void **state)
{
	struct fe *f = *state;
	struct vhmsg_log log = { 0x10000, 0 };
	int fd = memfd_create("log", MFD_CLOEXEC);
	uint8_t *bits;
	uint64_t val = 1;

	assert_int_equal(ftruncate(fd, 0x10000), 0);
	bits = mmap(NULL, 0x10000, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	fe_negotiate(f);
	assert_true(fe_add_memory(f, VHMSG_ADD_MEM_REG));
	fe_start_ring(f, 0);
	fe_send_msg(f, VHMSG_SET_LOG_BASE, VHMSG_NEED_REPLY, &log, sizeof(log),
		    fd);
	assert_int_equal(fe_receive(f, VHMSG_SET_LOG_BASE, &val, 8, NULL), 8);
	assert_int_equal(val, 0); /* trap 26 */
	assert_true(
		fe_set_u64(f, VHMSG_SET_FEATURES, V1 | PROTOCOL | LOG_ALL, -1));
	fe_offer(f);
	fe_kick(f);
	assert_int_equal(fe_used_idx(f), 1);
#define IS_MARKED(gpa) (bits[(gpa) / 4096 / 8] >> ((gpa) / 4096 % 8) & 1)
	assert_true(IS_MARKED(GPA + BUF));
	assert_true(IS_MARKED(GPA + USED));
	assert_false(IS_MARKED(GPA + AVAIL));
	assert_false(IS_MARKED(GPA + BUF + 4096));

	memset(bits, 0, 0x10000);
	assert_true(fe_set_u64(f, VHMSG_SET_FEATURES, V1 | PROTOCOL, -1));
	fe_offer(f);
	fe_kick(f);
	assert_int_equal(fe_used_idx(f), 2);
	assert_false(IS_MARKED(GPA + BUF));
	munmap(bits, 0x10000);
	close(fd);
}

#define LOG_BYTES 0x10000u

struct log {
	int fd;
	uint8_t *bits;
};

static struct log make_log(void)
{
	struct log log = { .fd = memfd_create("log", MFD_CLOEXEC) };

	assert_int_equal(ftruncate(log.fd, LOG_BYTES), 0);
	log.bits = mmap(NULL, LOG_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED,
			log.fd, 0);
	return log;
}

static void free_log(struct log *log)
{
	munmap(log->bits, LOG_BYTES);
	close(log->fd);
}

static void set_log(struct fe *f, const struct log *log, uint64_t off,
		    uint64_t size)
{
	struct vhmsg_log msg = { size, off };
	uint64_t val = 1;

	fe_send_msg(f, VHMSG_SET_LOG_BASE, 0, &msg, sizeof(msg), log->fd);
	assert_int_equal(fe_receive(f, VHMSG_SET_LOG_BASE, &val, 8, NULL), 8);
	assert_int_equal(val, 0);
}

/* Whether page @off of the guest's memory is marked, in a log at @log_off. */
static bool is_marked(const struct log *log, uint64_t log_off, size_t off)
{
	uint64_t page = (GPA + off) / 4096;

	return log->bits[log_off + page / 8] >> page % 8 & 1;
}

/* A second log takes over from the first, and its last byte is part of it. */
static void test_log_moves(void **state)
{
	struct fe *f = *state;
	const uint64_t last = (GPA + BUF) / 4096 / 8, off = 3;
	struct log first = make_log(), second = make_log();

	fe_negotiate(f);
	assert_true(fe_add_memory(f, VHMSG_ADD_MEM_REG));
	fe_start_ring(f, 0);
	set_log(f, &first, 0, LOG_BYTES);
	assert_true(
		fe_set_u64(f, VHMSG_SET_FEATURES, V1 | PROTOCOL | LOG_ALL, -1));
	set_log(f, &second, off, last + 1);
	fe_offer(f);
	fe_kick(f);
	assert_int_equal(fe_used_idx(f), 1);
	assert_false(is_marked(&first, 0, BUF));
	assert_false(is_marked(&first, 0, USED));
	assert_true(is_marked(&second, off, BUF));
	assert_true(is_marked(&second, off, USED));

	memset(second.bits, 0, LOG_BYTES);
	set_log(f, &second, off, last);
	fe_offer(f);
	fe_kick(f);
	assert_int_equal(fe_used_idx(f), 2);
	assert_false(is_marked(&second, off, BUF));
	assert_true(is_marked(&second, off, USED));
	free_log(&first);
	free_log(&second);
}

/* Used ring entries are logged as well when the index is elsewhere. */
static void test_log_used(void **state)
{
	enum { USED_CROSSING = 0x3ffc };
	struct fe *f = *state;
	struct vhmsg_vring_addr addr = { 0, 0, UADDR + DESC,
					 UADDR + USED_CROSSING, UADDR + AVAIL };
	struct log log = make_log();

	fe_negotiate(f);
	assert_true(fe_add_memory(f, VHMSG_ADD_MEM_REG));
	set_log(f, &log, 0, LOG_BYTES);
	assert_true(
		fe_set_u64(f, VHMSG_SET_FEATURES, V1 | PROTOCOL | LOG_ALL, -1));
	fe_start_ring(f, 0);
	assert_true(fe_ask(f, VHMSG_SET_VRING_ADDR, &addr, sizeof(addr), -1));
	memset(log.bits, 0, LOG_BYTES);
	fe_offer(f);
	fe_kick(f);
	assert_int_equal(fe_read16(f, USED_CROSSING + 2), 1);
	assert_true(is_marked(&log, 0, 0x3000));
	assert_true(is_marked(&log, 0, 0x4000));
	free_log(&log);
}

/* B7: the area is created, returned, and must fit. */
static void test_inflight(void **state)
{
	struct fe *f = *state;
	struct vhmsg_inflight area = { .nr_queues = 1, .queue_size = QSIZE };
	struct vhmsg_inflight wrong;
	int fd;

	fe_negotiate(f);
	fe_send_msg(f, VHMSG_GET_INFLIGHT_FD, 0, &area, sizeof(area), -1);
	assert_int_equal(
		fe_receive(f, VHMSG_GET_INFLIGHT_FD, &area, sizeof(area), &fd),
		sizeof(area));
	assert_int_equal(area.size, 320); /* 16 + 16 * 16, by 64 */

	wrong = area;
	wrong.queue_size = QSIZE * 2; /* hostile D9, D16; trap 31 */
	assert_false(
		fe_ask(f, VHMSG_SET_INFLIGHT_FD, &wrong, sizeof(wrong), fd));
	wrong = area;
	wrong.size = 1 << 20; /* more than the file has */
	assert_false(
		fe_ask(f, VHMSG_SET_INFLIGHT_FD, &wrong, sizeof(wrong), fd));
	wrong = area;
	wrong.offset = 1;
	assert_false(
		fe_ask(f, VHMSG_SET_INFLIGHT_FD, &wrong, sizeof(wrong), fd));
	assert_true(fe_ask(f, VHMSG_SET_INFLIGHT_FD, &area, sizeof(area), fd));
	close(fd);
	assert_true(fe_add_memory(f, VHMSG_ADD_MEM_REG));
	fe_start_ring(f, 0);
	fe_offer(f);
	fe_kick(f);
	assert_int_equal(fe_used_idx(f), 1);
	/* hostile D16: a ring larger than its part of the area. */
	assert_false(fe_set_vring(f, VHMSG_SET_VRING_NUM, 0, QSIZE * 2));
}

/* What a driver has left in the area does not affect the next one. */
static void test_inflight_of_another(void **state)
{
	struct fe *f = *state;
	struct vhmsg_vring vring = { 0, 0 };
	const uint8_t in_flight = 1;
	uint8_t entry;
	int fd;

	fe_negotiate(f);
	fd = keep_inflight(f);
	assert_true(fe_add_memory(f, VHMSG_ADD_MEM_REG));
	fe_start_ring(f, 0);
	fe_offer(f);
	fe_kick(f);
	assert_int_equal(fe_used_idx(f), 1);
	fe_send_msg(f, VHMSG_GET_VRING_BASE, 0, &vring, 8, -1);
	fe_receive(f, VHMSG_GET_VRING_BASE, &vring, 8, NULL);
	assert_int_equal(pwrite(fd, &in_flight, 1, 16 + 16 * 3), 1);

	memset(f->mem, 0, BUF);
	f->avail_idx = 0;
	fe_offer(f);
	fe_start_ring(f, 0);
	assert_int_equal(fe_used_idx(f), 1);
	assert_int_equal(fe_read16(f, USED + 4), 0); /* not 3 */
	assert_int_equal(pread(fd, &entry, 1, 16 + 16 * 3), 1);
	assert_int_equal(entry, 0);
	close(fd);
}

/* A ring with its parts at @desc, @avail and @used; whether it runs. */
static bool parts_run(struct fe *f, uint64_t desc, uint64_t avail,
		      uint64_t used)
{
	struct vhmsg_vring_addr addr = { 0, 0, UADDR + desc, UADDR + used,
					 UADDR + avail };

	return fe_ask(f, VHMSG_SET_VRING_ADDR, &addr, sizeof(addr), -1);
}

/*
 * Overlapping parts of a ring would make the device offer chains to itself:
 * they are rejected. So is a used index that does not match the next entry,
 * which would produce chains without end.
 */
static void test_ring_parts(void **state)
{
	struct fe *f = *state;

	fe_negotiate(f);
	assert_true(fe_add_memory(f, VHMSG_ADD_MEM_REG));
	fe_start_ring(f, 0);
	assert_false(parts_run(f, USED, USED, USED));
	assert_true(parts_run(f, DESC, AVAIL, USED));
	assert_false(parts_run(f, DESC, AVAIL, AVAIL));
	assert_false(parts_run(f, DESC, AVAIL, AVAIL + 4));
	assert_false(parts_run(f, AVAIL, AVAIL + 16, USED));
	assert_false(parts_run(f, DESC, AVAIL, DESC + 4));

	fe_write16(f, USED + 2, 1); /* ahead of the next entry */
	assert_true(fe_ask(f, VHMSG_RESET_DEVICE, NULL, 0, -1));
	assert_false(parts_run(f, DESC, AVAIL, USED) &&
		     fe_set_vring(f, VHMSG_SET_VRING_ENABLE, 0, 1));
}

/*
 * The memory that rings need depends on features and size: they are checked
 * again when these change, and features do not change under a running ring.
 */
static void test_features_change(void **state)
{
	const uint64_t event_idx = VI_BIT(VIRTIO_RING_F_EVENT_IDX);
	const uint64_t used = MEM_BYTES - 4 - 8 * QSIZE; /* no trailer */
	struct fe *f = *state;
	struct vhmsg_vring vring = { 0, 0 };

	fe_negotiate(f);
	assert_true(fe_add_memory(f, VHMSG_ADD_MEM_REG));
	fe_start_ring(f, 0);
	assert_true(parts_run(f, DESC, AVAIL, used));
	assert_false(fe_set_u64(f, VHMSG_SET_FEATURES,
				V1 | PROTOCOL | event_idx, -1));
	fe_offer(f);
	fe_kick(f);
	assert_int_equal(fe_read16(f, used + 2), 1);
	assert_false(fe_set_vring(f, VHMSG_SET_VRING_NUM, 0, QSIZE * 2));
	assert_true(fe_ask(f, VHMSG_RESET_DEVICE, NULL, 0, -1));
	assert_true(fe_set_vring(f, VHMSG_SET_VRING_NUM, 0, QSIZE));
	fe_offer(f);
	assert_true(fe_set_vring(f, VHMSG_SET_VRING_ENABLE, 0, 1));
	assert_int_equal(fe_read16(f, used + 2), 2);

	fe_send_msg(f, VHMSG_GET_VRING_BASE, 0, &vring, 8, -1);
	fe_receive(f, VHMSG_GET_VRING_BASE, &vring, 8, NULL);
	assert_int_equal(vring.num, 2);
	assert_true(fe_set_u64(f, VHMSG_SET_FEATURES, V1 | PROTOCOL | event_idx,
			       -1));
	assert_false(fe_set_u64(f, VHMSG_SET_VRING_KICK, 0, f->kick));
	assert_true(fe_ask(f, VHMSG_RESET_DEVICE, NULL, 0, -1));
	assert_true(parts_run(f, DESC, AVAIL, used - 4));
	assert_true(fe_set_vring(f, VHMSG_SET_VRING_ENABLE, 0, 1));
}

/* The previous back-end may have owed an interrupt. */
static void test_restart_interrupts(void **state)
{
	struct fe *f = *state;
	struct vhmsg_vring vring = { 0, 0 };

	fe_negotiate(f);
	assert_true(fe_add_memory(f, VHMSG_ADD_MEM_REG));
	fe_start_ring(f, 0);
	fe_offer(f);
	fe_kick(f);
	fe_send_msg(f, VHMSG_GET_VRING_BASE, 0, &vring, 8, -1);
	fe_receive(f, VHMSG_GET_VRING_BASE, &vring, 8, NULL);
	fe_was_called(f);
	assert_false(fe_was_called(f));
	assert_true(fe_set_u64(f, VHMSG_SET_VRING_KICK, 0, f->kick));
	assert_true(fe_was_called(f));
	/* Or before this descriptor was known. */
	assert_true(fe_set_u64(f, VHMSG_SET_VRING_CALL, 0, f->call));
	assert_true(fe_was_called(f));
}

/* A driver's mistake is reported through the ring's error descriptor. */
static void test_error_fd(void **state)
{
	struct fe *f = *state;
	int first = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	int second = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	eventfd_t count;

	fe_negotiate(f);
	assert_true(fe_add_memory(f, VHMSG_ADD_MEM_REG));
	assert_true(fe_set_u64(f, VHMSG_SET_VRING_ERR, 0, first));
	fe_start_ring(f, 0);
	assert_true(fe_set_u64(f, VHMSG_SET_VRING_ERR, 0, second));
	fe_offer(f);
	fe_kick(f);
	assert_int_equal(eventfd_read(second, &count), -1);
	fe_write16(f, AVAIL + 2, (uint16_t)(fe_read16(f, AVAIL + 2) + 1000));
	fe_kick(f);
	assert_int_equal(eventfd_read(second, &count), 0);
	assert_int_equal(emulated_count(count), 1);
	assert_int_equal(eventfd_read(first, &count), -1);
	close(first);
	close(second);
}

/*
 * Our own requests go only to a socket. A full one does not block us, whatever
 * its flags say.
 */
static void test_backend_fd(void **state)
{
	struct fe *f = *state;
	struct virtio_softc *vs = vio_server_pci(f->srv)->pi_arg;
	int pair[2], p[2];

	assert_int_equal(pipe(p), 0);
	fe_negotiate(f);
	assert_false(fe_ask(f, VHMSG_SET_BACKEND_REQ_FD, NULL, 0, -1));
	assert_false(fe_ask(f, VHMSG_SET_BACKEND_REQ_FD, NULL, 0, p[1]));
	assert_false(fe_ask(f, VHMSG_SET_BACKEND_REQ_FD, NULL, 0, f->memfd));
	assert_false(fe_ask(f, VHMSG_SET_BACKEND_REQ_FD, NULL, 0, f->call));

	socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair);
	assert_true(fe_ask(f, VHMSG_SET_BACKEND_REQ_FD, NULL, 0, pair[1]));
	assert_int_equal(fcntl(pair[1], F_SETFL, 0), 0);
	assert_true(fe_add_memory(f, VHMSG_ADD_MEM_REG));
	fe_start_ring(f, 0);
	alarm(100);
	for (int i = 0; i < 10000; i++)
		vq_devcfg_changed(vs);
	alarm(0);
	assert_int_equal(fe_get_u64(f, VHMSG_GET_QUEUE_NUM), 1);
	for (int i = 0; i < 2; i++) {
		close(pair[i]);
		close(p[i]);
	}
}

static bool is_attached(struct fe *f)
{
	struct vio_server_stats stats;

	vio_server_get_stats(f->srv, &stats);
	return stats.attached;
}

/*
 * The front-end's end of the connection is not accepted as doorbell, interrupt
 * or channel: the server would keep it open, and not notice its closing.
 */
static void test_own_socket(void **state)
{
	static const uint32_t requests[] = {
		VHMSG_SET_VRING_KICK,
		VHMSG_SET_VRING_CALL,
		VHMSG_SET_VRING_ERR,
		VHMSG_SET_BACKEND_REQ_FD,
	};
	struct fe *f = *state;
	const uint64_t ring = 0;
	int pair[2];

	fe_negotiate(f);
	socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair);
	for (size_t i = 0; i < ARRAY_LEN(requests); i++) {
		assert_true(
			fe_ask(f, requests[i], &ring, sizeof(ring), pair[1]));
		assert_false(
			fe_ask(f, requests[i], &ring, sizeof(ring), f->fd));
	}
	close(pair[0]);
	close(pair[1]);
	close(f->fd);
	f->fd = -1;
	fe_iterate(f);
	assert_false(is_attached(f));
}

/*
 * Memory begins on a page boundary in every address space. It may end anywhere,
 * like libblkio's.
 */
static void test_misaligned_memory(void **state)
{
	static const uint64_t rows[][4] = {
		{ GPA + 0x800, 4096, UADDR, 0 },
		{ GPA, 4096, UADDR + 8, 0 },
		{ GPA, 4096, UADDR, 0x800 },
	};
	struct fe *f = *state;

	fe_negotiate(f);
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		uint64_t msg[5] = { 0 };

		memcpy(msg + 1, rows[i], sizeof(rows[i]));
		assert_false(fe_ask(f, VHMSG_ADD_MEM_REG, msg, sizeof(msg),
				    f->memfd));
		msg[0] = 1;
		assert_false(fe_ask(f, VHMSG_SET_MEM_TABLE, msg, sizeof(msg),
				    f->memfd));
	}
	assert_true(fe_ask(f, VHMSG_ADD_MEM_REG,
			   (uint64_t[]){ 0, GPA, 0x3b10, UADDR, 0 }, 40,
			   f->memfd));
}

/*
 * The front-end truncates a file that it sent: guest memory, the log, the
 * record of requests. It is dropped, and the device serves the next one.
 */
static void test_truncated(void **state)
{
	struct vhmsg_inflight area = { .size = 4096,
				       .nr_queues = 1,
				       .queue_size = QSIZE };
	struct fe *f = *state;

	SKIP_UNDER_QEMU("a signal handler does not survive SIGBUS");
	mapping_catch_faults(); /* cmocka does as well, and later */
	for (int what = 0; what < 3; what++) {
		struct log log = make_log();
		int record = memfd_create("record", MFD_CLOEXEC);
		const int fds[] = { f->memfd, log.fd, record };

		assert_int_equal(ftruncate(record, 4096), 0);
		fe_negotiate(f);
		assert_true(fe_add_memory(f, VHMSG_ADD_MEM_REG));
		set_log(f, &log, 0, LOG_BYTES);
		assert_true(fe_ask(f, VHMSG_SET_INFLIGHT_FD, &area,
				   sizeof(area), record));
		assert_true(fe_set_u64(f, VHMSG_SET_FEATURES,
				       V1 | PROTOCOL | LOG_ALL, -1));
		fe_start_ring(f, 0);
		fe_offer(f);
		assert_int_equal(ftruncate(fds[what], 0), 0);
		fe_kick(f);
		assert_true(fe_is_closed(f));

		assert_int_equal(ftruncate(f->memfd, MEM_BYTES), 0);
		fe_reconnect(f);
		memset(f->mem, 0, MEM_BYTES);
		f->avail_idx = 0;
		fe_negotiate(f);
		assert_true(fe_add_memory(f, VHMSG_ADD_MEM_REG));
		fe_offer(f);
		fe_start_ring(f, 0);
		assert_int_equal(fe_used_idx(f), 1);
		fe_reconnect(f);
		memset(f->mem, 0, MEM_BYTES);
		f->avail_idx = 0;
		free_log(&log);
		close(record);
	}
}

/* A thread faults as the front-end leaves: this does not affect the next. */
static void test_truncated_last(void **state)
{
	struct fe *f = *state;

	SKIP_UNDER_QEMU("a signal handler does not survive SIGBUS");
	fe_negotiate(f);
	f->srv->wake.faulted = true;
	fe_reconnect(f);
	client_wake(&f->srv->wake);
	assert_false(fe_is_closed(f));
	fe_negotiate(f);
}

/* Out of descriptors: a message whose descriptors are lost is not handled. */
static void test_out_of_fds(void **state)
{
	struct fe *f = *state;
	struct rlimit old, none;
	uint64_t ring = 0;
	int next = dup(f->call);

	fe_negotiate(f);
	close(next);
	getrlimit(RLIMIT_NOFILE, &old);
	none = old;
	none.rlim_cur = (rlim_t)next;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	fe_send_msg(f, VHMSG_SET_VRING_CALL, VHMSG_NEED_REPLY, &ring, 8,
		    f->call);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
	assert_true(fe_is_closed(f));
	fe_reconnect(f);
	fe_negotiate(f);
}

/* hostile D4, D29, Q23: messages about rings that do not exist, bad numbers. */
static void test_bad_numbers(void **state)
{
	static const struct {
		uint32_t request, index, num;
	} rows[] = {
		{ VHMSG_SET_VRING_NUM, 1, 16 },
		{ VHMSG_SET_VRING_NUM, 0x10000, 16 },
		{ VHMSG_SET_VRING_NUM, 0, 0 },
		{ VHMSG_SET_VRING_NUM, 0, 17 },
		{ VHMSG_SET_VRING_NUM, 0, 65536 },
		{ VHMSG_SET_VRING_BASE, 1, 0 },
		{ VHMSG_SET_VRING_BASE, UINT32_MAX, 0 },
		{ VHMSG_SET_VRING_BASE, 0, 65536 },
		{ VHMSG_SET_VRING_ENABLE, 1, 1 },
		{ VHMSG_SET_VRING_ENABLE, 0, 2 },
	};
	struct fe *f = *state;
	struct vhmsg_vring vring = { 1, 0 };

	fe_negotiate(f);
	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		assert_false(fe_set_vring(f, rows[i].request, rows[i].index,
					  rows[i].num));
	assert_false(fe_set_u64(f, VHMSG_SET_VRING_KICK, 1, f->kick));
	assert_false(fe_set_u64(f, VHMSG_SET_VRING_CALL, 0, f->memfd));
	assert_false(fe_set_u64(f, VHMSG_SET_FEATURES, 1ull << 63, -1));
	assert_false(fe_set_u64(f, VHMSG_SET_PROTOCOL_FEATURES, 1ull << 8, -1));
	/* This reply cannot carry an error. */
	fe_send_msg(f, VHMSG_GET_VRING_BASE, 0, &vring, 8, -1);
	assert_true(fe_is_closed(f));
}

/* A bad message that requires no answer ends the connection. */
static void test_bad_messages(void **state)
{
	struct fe *f = *state;
	uint8_t payload[64] = { 0xff, 0xff };

	for (uint32_t request = 0; request < 60; request++) {
		for (size_t len = 0; len <= sizeof(payload); len += 4) {
			fe_send_msg(f, request, 0, payload, len, f->memfd);
			fe_reconnect(f);
		}
	}
	fe_negotiate(f);
	for (uint32_t request = VHMSG_NR_REQUESTS; request < 60; request++)
		assert_false(fe_ask(f, request, NULL, 0, -1));
	fe_send_msg(f, 28, 0, NULL, 0, -1); /* postcopy: not offered */
	assert_true(fe_is_closed(f));
}

/* hostile D2, D7: floods of descriptors, on every message. */
static void test_fd_flood(void **state)
{
	struct fe *f = *state;
	int fds[253];
	unsigned before;

	for (size_t i = 0; i < ARRAY_LEN(fds); i++)
		fds[i] = f->call;
	fe_reconnect(f);
	before = process_nr_fds();
	for (uint32_t request = 1; request < VHMSG_NR_REQUESTS; request++) {
		static const unsigned nr[] = { 1, 8, 9, 253 };

		for (size_t i = 0; i < ARRAY_LEN(nr); i++) {
			struct vhmsg_hdr hdr = { request, VHMSG_VERSION, 0 };

			fe_send_raw(f, &hdr, NULL, 0, fds, nr[i]);
			fe_reconnect(f);
		}
	}
	assert_int_equal(process_nr_fds(), before);
	fe_negotiate(f);
	for (int i = 0; i < 10000; i++)
		assert_true(fe_set_u64(f, VHMSG_SET_VRING_CALL, 0, f->call));
	assert_int_equal(process_nr_fds(), before + 1);
}

/* A message may come in pieces. */
static void test_pieces(void **state)
{
	struct fe *f = *state;
	struct {
		struct vhmsg_hdr hdr;
		uint64_t val;
	} msg = { { VHMSG_SET_FEATURES, VHMSG_VERSION, 8 }, V1 };
	const char *p = (const char *)&msg;

	for (size_t i = 0; i < 20; i++) {
		/* The struct has padding, the message has none. */
		const char *byte = i < 12 ? p + i : (char *)&msg.val + (i - 12);

		assert_int_equal(write(f->fd, byte, 1), 1);
		fe_iterate(f);
	}
	assert_int_equal(fe_get_u64(f, VHMSG_GET_QUEUE_NUM), 1);
}

/* The front-end leaves with a ring running: the next finds all as new. */
static void test_reconnect(void **state)
{
	struct fe *f = *state;
	unsigned before = process_nr_fds();

	for (uint16_t i = 0; i < 3; i++) {
		fe_negotiate(f);
		assert_true(fe_add_memory(f, VHMSG_ADD_MEM_REG));
		fe_start_ring(f, i);
		fe_offer(f);
		fe_kick(f);
		assert_int_equal(fe_used_idx(f), i + 1);
		fe_reconnect(f);
		fe_offer(f);
		fe_kick(f);
		assert_int_equal(fe_used_idx(f), i + 1); /* nobody's */
		fe_write16(f, AVAIL + 2, --f->avail_idx);
	}
	assert_int_equal(process_nr_fds(), before);
}

static void on_notify(void *arg, bool attached)
{
	*(int *)arg = attached;
}

/* vio_server_attach(): serve a connected front-end until it leaves. */
static void test_attach(void **state)
{
	struct fe *f = *state;
	struct vio_server *listening = f->srv, *srv;
	struct vdev *dev;
	int pair[2], attached = -1;
	char why[200];

	socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair);
	assert_int_equal(
		vio_server_create(f->loop, VIO_VHOST_USER, "connected", &srv),
		0);
	assert_string_equal(vio_server_pci(srv)->pi_name, "connected");
	assert_int_equal(vio_server_attach(srv, pair[1]), -ENODEV);
	assert_int_equal(vdev_new("rng", vio_server_pci(srv), f->loop, &dev,
				  why, sizeof(why)),
			 0);
	vio_server_set_notify(srv, on_notify, &attached);
	assert_int_equal(vio_server_attach(srv, pair[1]), 0);
	assert_int_equal(attached, 1);
	assert_int_equal(vio_server_attach(srv, pair[0]), -EBUSY);

	close(f->fd);
	f->fd = pair[0];
	f->srv = srv;
	fe_negotiate(f);
	close(f->fd);
	fe_iterate(f);
	assert_int_equal(attached, 0);

	f->fd = -1;
	vdev_destroy(dev);
	vio_server_destroy(srv);
	f->srv = listening;
}

/*
 * A network device: the front-end keeps its control queue, and passes on no
 * feature that it handles itself. MTU and RARP are messages.
 */
static void test_network(void **state)
{
	static const uint8_t mac[8] = { 0x52, 0x54, 0, 7, 8, 9, 0xee, 0xee };
	const uint64_t features = V1 | PROTOCOL | VI_BIT(VIRTIO_NET_F_MQ) |
				  VI_BIT(VIRTIO_NET_F_CTRL_RX) |
				  VI_BIT(VIRTIO_NET_F_GUEST_ANNOUNCE);
	struct fe *f = *state;
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int peer = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0), pair[2];
	char device[300], why[200];
	uint8_t frame[100];
	struct vio_server *srv;
	struct vdev *dev;

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/peer", f->dir);
	assert_int_equal(bind(peer, (void *)&addr, sizeof(addr)), 0);
	snprintf(device, sizeof(device),
		 "net,backend=dgram,local=%s/own,remote=%s/peer,mtu=4000",
		 f->dir, f->dir);
	assert_int_equal(
		vio_server_create(f->loop, VIO_VHOST_USER, "net", &srv), 0);
	assert_int_equal(vdev_new(device, vio_server_pci(srv), f->loop, &dev,
				  why, sizeof(why)),
			 0);
	socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair);
	assert_int_equal(vio_server_attach(srv, pair[1]), 0);
	close(f->fd);
	f->fd = pair[0];

	fe_negotiate(f);
	assert_int_equal(fe_get_u64(f, VHMSG_GET_QUEUE_NUM), 3);
	/* MQ is not offered with one pair; the others require CTRL_VQ. */
	assert_false(fe_set_u64(f, VHMSG_SET_FEATURES, features, -1));
	assert_true(fe_set_u64(f, VHMSG_SET_FEATURES,
			       features & ~VI_BIT(VIRTIO_NET_F_MQ), -1));

	assert_true(fe_set_u64(f, VHMSG_NET_SET_MTU, 4000, -1));
	assert_true(fe_set_u64(f, VHMSG_NET_SET_MTU, 1500, -1));
	assert_false(fe_set_u64(f, VHMSG_NET_SET_MTU, 4001, -1));
	assert_false(fe_set_u64(f, VHMSG_NET_SET_MTU, 67, -1));
	assert_false(fe_set_u64(f, VHMSG_NET_SET_MTU, 0, -1));
	assert_false(fe_set_u64(f, VHMSG_NET_SET_MTU, 0x100000000 + 1500, -1));
	assert_false(fe_ask(f, VHMSG_NET_SET_MTU, NULL, 0, -1));

	assert_true(fe_ask(f, VHMSG_SEND_RARP, mac, sizeof(mac), -1));
	assert_int_equal(recv(peer, frame, sizeof(frame), MSG_DONTWAIT), 60);
	assert_memory_equal(frame, "\xff\xff\xff\xff\xff\xff", 6);
	assert_memory_equal(frame + 6, mac, 6);
	assert_memory_equal(frame + 12, "\x80\x35\0\1\x08\0\6\4\0\3", 10);
	assert_memory_equal(frame + 22, mac, 6);
	assert_memory_equal(frame + 32, mac, 6);
	assert_false(fe_ask(f, VHMSG_SEND_RARP, mac, 7, -1));
	close(peer); /* nobody receives it: not an error of the message */
	assert_true(fe_ask(f, VHMSG_SEND_RARP, mac, sizeof(mac), -1));

	close(f->fd);
	f->fd = -1;
	fe_iterate(f);
	vdev_destroy(dev);
	vio_server_destroy(srv);
	unlink(addr.sun_path);
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/own", f->dir);
	unlink(addr.sun_path);
}

/* A server of another device knows neither. */
static void test_no_network(void **state)
{
	struct fe *f = *state;
	uint64_t network = VI_BIT(VHMSG_PF_RARP) | VI_BIT(VHMSG_PF_NET_MTU);

	assert_int_equal(fe_get_u64(f, VHMSG_GET_PROTOCOL_FEATURES) & network,
			 0);
	fe_negotiate(f);
	assert_false(fe_set_u64(f, VHMSG_NET_SET_MTU, 1500, -1));
	assert_false(fe_set_u64(f, VHMSG_SEND_RARP, 0, -1));
}

/*
 * --- The device's state ---
 */

#define BLOCK_FEATURES \
	(V1 | VI_BIT(VIRTIO_BLK_F_FLUSH) | VI_BIT(VIRTIO_BLK_F_CONFIG_WCE))
#define STATE_LEN 25 /* magic, name, features; write cache or not */

/* @text with the folder for each @. */
static void in_folder(const struct fe *f, const char *text, char *buf,
		      size_t room)
{
	FILE *to = fmemopen(buf, room, "w");

	for (; *text; text++) {
		if (*text == '@')
			fputs(f->dir, to);
		else
			fputc(*text, to);
	}
	fclose(to);
}

/*
 * Another back-end, with one silent front-end. There is a disk in the folder.
 */
static void become(struct fe *f, const char *text)
{
	char device[200], why[200];
	int pair[2], fd;

	in_folder(f, "@/disk", device, sizeof(device));
	fd = open(device, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_int_equal(ftruncate(fd, 1 << 20), 0);
	close(fd);
	vdev_destroy(f->dev);
	vio_server_destroy(f->srv);
	close(f->fd);
	in_folder(f, text, device, sizeof(device));
	assert_int_equal(
		vio_server_create(f->loop, VIO_VHOST_USER, "other", &f->srv),
		0);
	assert_int_equal(vdev_new(device, vio_server_pci(f->srv), f->loop,
				  &f->dev, why, sizeof(why)),
			 0);
	socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair);
	assert_int_equal(vio_server_attach(f->srv, pair[1]), 0);
	f->fd = pair[0];
}

static void become_disk(struct fe *f)
{
	become(f, "block,path=@/disk");
	fe_set_u64(f, VHMSG_SET_PROTOCOL_FEATURES,
		   fe_get_u64(f, VHMSG_GET_PROTOCOL_FEATURES), -1);
}

static void forget_disk(struct fe *f)
{
	char path[100];

	snprintf(path, sizeof(path), "%s/disk", f->dir);
	unlink(path);
}

/* GET_CONFIG and SET_CONFIG of the write cache. */
struct cache_msg {
	uint32_t offset, size, flags;
	uint8_t on;
};
#define CACHE_MSG 13 /* bytes */

static uint8_t write_cache(struct fe *f)
{
	struct cache_msg msg = { .offset = 32, .size = 1 };

	fe_send_msg(f, VHMSG_GET_CONFIG, 0, &msg, CACHE_MSG, -1);
	assert_int_equal(
		fe_receive(f, VHMSG_GET_CONFIG, (void *)&msg, CACHE_MSG, NULL),
		CACHE_MSG);
	return msg.on;
}

static void set_write_cache(struct fe *f, uint8_t on)
{
	struct cache_msg msg = { .offset = 32, .size = 1, .on = on };

	assert_true(fe_ask(f, VHMSG_SET_CONFIG, &msg, CACHE_MSG, -1));
	assert_int_equal(write_cache(f), on);
}

/* Send the descriptor for the state; whether it was accepted. */
static bool state_fd(struct fe *f, uint32_t direction, uint32_t phase, int fd)
{
	uint32_t msg[] = { direction, phase };
	uint64_t val;

	fe_send_msg(f, VHMSG_SET_DEVICE_STATE_FD, 0, msg, sizeof(msg), fd);
	assert_int_equal(fe_receive(f, VHMSG_SET_DEVICE_STATE_FD, &val,
				    sizeof(val), NULL),
			 8);
	assert_true(val & 0x100); /* no file from the back-end */
	return (val & 0xff) == 0;
}

static bool state_good(struct fe *f)
{
	return fe_get_u64(f, VHMSG_CHECK_DEVICE_STATE) == 0;
}

static void save_state(struct fe *f, uint8_t state[STATE_LEN])
{
	uint8_t more[STATE_LEN + 1];
	int p[2];

	assert_int_equal(pipe(p), 0);
	assert_true(state_fd(f, VHMSG_STATE_SAVE, 0, p[1]));
	close(p[1]);
	fe_iterate(f);
	assert_int_equal(read(p[0], more, sizeof(more)), STATE_LEN);
	assert_int_equal(read(p[0], more + STATE_LEN, 1), 0);
	memcpy(state, more, STATE_LEN);
	assert_true(state_good(f));
	close(p[0]);
}

static bool load_state(struct fe *f, const void *state, size_t len)
{
	int p[2];

	assert_int_equal(pipe(p), 0);
	assert_true(state_fd(f, VHMSG_STATE_LOAD, 0, p[0]));
	close(p[0]);
	assert_int_equal(write(p[1], state, len), len);
	close(p[1]);
	return state_good(f);
}

/*
 * A driver's disk without write cache stays so in another back-end, and keeps
 * the negotiated features. hostile D35: also when no queue was ever set up.
 */
static void test_state_moves(void **state)
{
	struct fe *f = *state;
	uint8_t unused[STATE_LEN], moved[STATE_LEN];
	struct vhmsg_vring vring = { 0, 0 };
	int p[2];

	become_disk(f);
	assert_true(fe_get_u64(f, VHMSG_GET_PROTOCOL_FEATURES) &
		    VI_BIT(VHMSG_PF_DEVICE_STATE));
	save_state(f, unused);
	assert_true(fe_set_u64(f, VHMSG_SET_FEATURES, BLOCK_FEATURES | PROTOCOL,
			       -1));
	set_write_cache(f, 0);
	assert_true(fe_add_memory(f, VHMSG_ADD_MEM_REG));
	fe_start_ring(f, 0);
	assert_int_equal(pipe(p), 0);
	assert_false(state_fd(f, VHMSG_STATE_SAVE, 0, p[1])); /* it runs */
	fe_send_msg(f, VHMSG_GET_VRING_BASE, 0, &vring, 8, -1);
	fe_receive(f, VHMSG_GET_VRING_BASE, &vring, 8, NULL);
	save_state(f, moved);

	become_disk(f);
	assert_int_equal(write_cache(f), 1);
	assert_true(load_state(f, moved, STATE_LEN));
	assert_int_equal(write_cache(f), 0);
	assert_true(fe_set_u64(f, VHMSG_SET_FEATURES,
			       BLOCK_FEATURES | PROTOCOL | LOG_ALL, -1));
	assert_true(fe_add_memory(f, VHMSG_ADD_MEM_REG));
	fe_start_ring(f, 0);
	assert_int_equal(write_cache(f), 0);
	assert_false(state_fd(f, VHMSG_STATE_LOAD, 0, p[0]));
	fe_send_msg(f, VHMSG_GET_VRING_BASE, 0, &vring, 8, -1);
	fe_receive(f, VHMSG_GET_VRING_BASE, &vring, 8, NULL);
	/* Another driver's features: another driver. */
	assert_true(fe_set_u64(f, VHMSG_SET_FEATURES, V1 | PROTOCOL, -1));
	assert_false(load_state(f, moved, STATE_LEN));

	become_disk(f);
	assert_true(load_state(f, unused, STATE_LEN));
	assert_int_equal(write_cache(f), 1);
	assert_true(fe_set_u64(f, VHMSG_SET_FEATURES, BLOCK_FEATURES | PROTOCOL,
			       -1));
	assert_true(fe_add_memory(f, VHMSG_ADD_MEM_REG));
	fe_start_ring(f, 0);
	close(p[0]);
	close(p[1]);
	forget_disk(f);
}

/* hostile Q3: an invalid state is rejected, and the device unchanged. */
static void test_state_hostile(void **state)
{
	struct fe *f = *state;
	uint8_t good[STATE_LEN], bad[40000];
	unsigned before;

	become_disk(f);
	assert_true(fe_set_u64(f, VHMSG_SET_FEATURES, BLOCK_FEATURES | PROTOCOL,
			       -1));
	set_write_cache(f, 0);
	save_state(f, good);
	before = process_nr_fds();
	for (size_t i = 0; i < STATE_LEN; i++) {
		for (unsigned change = 1; change < 256; change++) {
			memcpy(bad, good, STATE_LEN);
			bad[i] ^= change;
			/* The last byte may be 0 or 1. */
			assert_int_equal(load_state(f, bad, STATE_LEN),
					 i == STATE_LEN - 1 && change == 1);
		}
		assert_false(load_state(f, good, i));
	}
	memcpy(bad, good, STATE_LEN);
	assert_false(load_state(f, bad, STATE_LEN + 1));
	memset(bad, 0, sizeof(bad));
	assert_false(load_state(f, bad, sizeof(bad)));
	/* Too long, and valid from the cut on. */
	memcpy(bad + 32768, good, STATE_LEN);
	assert_false(load_state(f, bad, 32768 + STATE_LEN));
	assert_true(load_state(f, good, STATE_LEN));
	assert_int_equal(write_cache(f), 0);
	assert_int_equal(process_nr_fds(), before);
	forget_disk(f);
}

/* A state that is complete only when rings run is not loaded. */
static void test_state_too_late(void **state)
{
	struct fe *f = *state;
	uint8_t good[STATE_LEN];
	struct virtio_softc *vs;
	int p[2];

	become_disk(f);
	vs = vio_server_pci(f->srv)->pi_arg;
	assert_true(fe_set_u64(f, VHMSG_SET_FEATURES, BLOCK_FEATURES | PROTOCOL,
			       -1));
	save_state(f, good);
	assert_int_equal(pipe(p), 0);
	assert_true(state_fd(f, VHMSG_STATE_LOAD, 0, p[0]));
	assert_true(fe_add_memory(f, VHMSG_ADD_MEM_REG));
	fe_start_ring(f, 0);
	assert_int_equal(write(p[1], good, STATE_LEN), STATE_LEN);
	close(p[1]);
	fe_iterate(f);
	assert_int_not_equal(vs->vs_queues[0].vq_flags, 0);
	assert_false(state_good(f));
	close(p[0]);
	forget_disk(f);
}

/* Pipes that are full, unread or unfinished, and files that are not pipes. */
static void test_state_pipes(void **state)
{
	struct fe *f = *state;
	static uint8_t fill[1 << 16];
	uint8_t good[STATE_LEN];
	int p[2];

	signal(SIGPIPE, SIG_IGN);
	become_disk(f);
	assert_false(state_good(f)); /* nothing was requested */
	save_state(f, good);
	assert_int_equal(pipe(p), 0);
	assert_false(state_fd(f, 2, 0, p[1]));
	assert_false(state_fd(f, VHMSG_STATE_SAVE, 1, p[1]));
	assert_false(state_fd(f, VHMSG_STATE_SAVE, 0, -1));
	assert_false(state_fd(f, VHMSG_STATE_SAVE, 0, f->memfd));

	assert_int_equal(write(p[1], fill, sizeof(fill)), sizeof(fill));
	assert_true(state_fd(f, VHMSG_STATE_SAVE, 0, p[1]));
	fe_iterate(f);
	assert_int_equal(read(p[0], fill, sizeof(fill)), sizeof(fill));
	fe_iterate(f);
	assert_int_equal(read(p[0], fill, sizeof(fill)), STATE_LEN);
	assert_memory_equal(fill, good, STATE_LEN);
	assert_true(state_good(f));

	assert_true(state_fd(f, VHMSG_STATE_LOAD, 0, p[0]));
	assert_int_equal(write(p[1], good, STATE_LEN), STATE_LEN);
	assert_false(state_good(f)); /* no end of it */
	close(p[0]);
	assert_true(state_fd(f, VHMSG_STATE_SAVE, 0, p[1]));
	fe_iterate(f);
	assert_false(state_good(f));
	close(p[1]);
	forget_disk(f);
}

/* A device that cannot move does not offer it. */
static void test_no_state(void **state)
{
	struct fe *f = *state;

	assert_false(fe_get_u64(f, VHMSG_GET_PROTOCOL_FEATURES) &
		     VI_BIT(VHMSG_PF_DEVICE_STATE));
	assert_false(state_fd(f, VHMSG_STATE_SAVE, 0, f->kick));
}

/*
 * --- Other devices ---
 */

/* Set up a ring of @size entries, without buffers: whether it runs. */
static bool ring_runs(struct fe *f, uint32_t index, uint32_t size)
{
	struct vhmsg_vring_addr addr = { index, 0, UADDR, UADDR + 0xa0000,
					 UADDR + 0x80000 };

	assert_true(fe_set_vring(f, VHMSG_SET_VRING_NUM, index, size));
	assert_true(fe_set_vring(f, VHMSG_SET_VRING_BASE, index, 0));
	assert_true(fe_ask(f, VHMSG_SET_VRING_ADDR, &addr, sizeof(addr), -1));
	assert_true(fe_set_u64(f, VHMSG_SET_VRING_KICK, index, f->kick));
	return fe_set_vring(f, VHMSG_SET_VRING_ENABLE, index, 1);
}

/*
 * trap 30: the front-end sets a ring's number of entries, and every device
 * accepts it, up to its maximum; less only with queue-size=.
 */
static void test_ring_sizes(void **state)
{
	static const struct {
		const char *device;
		uint32_t max;
	} rows[] = {
		{ "block,path=@/disk", 1024 },
		{ "block,path=@/disk,queues=4,queue-size=128", 128 },
		{ "scsi,lun0=@/disk", 1024 },
		{ "net,backend=null", 32768 },
		{ "console,console=file:@/disk,port.a=fd:0", 32768 },
		{ "rng", 32768 },
		{ "rng,queue-size=2", 2 },
		{ "9p,path=@", 32768 },
#if HAVE_LIBEVDEV
		{ "input,kind=mouse", 32768 },
#endif
	};
	struct fe *f = *state;

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		uint64_t nr;

		for (uint32_t size = 1; size <= 32768; size *= 2) {
			become(f, rows[i].device);
			fe_negotiate(f);
			assert_true(fe_add_memory(f, VHMSG_ADD_MEM_REG));
			nr = fe_get_u64(f, VHMSG_GET_QUEUE_NUM);
			for (uint32_t k = 0; k < nr; k++)
				assert_int_equal(ring_runs(f, k, size),
						 size <= rows[i].max);
		}
	}
	forget_disk(f);
}

/*
 * B4: a network device's ring that is disabled, but not stopped: frames to send
 * are dropped, buffers to receive stay.
 */
static void test_disabled_network(void **state)
{
	static const uint8_t frame[72];
	struct fe *f = *state;
	struct sockaddr_un own = { .sun_family = AF_UNIX },
			   peer = { .sun_family = AF_UNIX };
	int network = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	uint8_t got[100];

	in_folder(f, "@/own", own.sun_path, sizeof(own.sun_path));
	in_folder(f, "@/peer", peer.sun_path, sizeof(peer.sun_path));
	assert_int_equal(bind(network, (void *)&peer, sizeof(peer)), 0);

	become(f, "net,backend=dgram,local=@/own,remote=@/peer");
	fe_negotiate(f);
	assert_true(fe_add_memory(f, VHMSG_ADD_MEM_REG));
	fe_start_ring_at(f, 1, 0);
	for (uint16_t i = 0; i < 4; i++) {
		bool on = i % 2 == 0;

		assert_true(fe_set_vring(f, VHMSG_SET_VRING_ENABLE, 1, on));
		fe_offer_buffer(f, sizeof(frame), 0);
		fe_kick(f);
		assert_int_equal(fe_used_idx(f), i + 1);
		assert_true(fe_was_called(f));
		assert_int_equal(recv(network, got, sizeof(got), MSG_DONTWAIT),
				 on ? (ssize_t)sizeof(frame) - 12 : -1);
	}
	/* Also frames that were there when it was disabled. */
	assert_true(fe_set_vring(f, VHMSG_SET_VRING_ENABLE, 1, 1));
	fe_offer_buffer(f, sizeof(frame), 0);
	assert_true(fe_set_vring(f, VHMSG_SET_VRING_ENABLE, 1, 0));
	assert_int_equal(fe_used_idx(f), 5);
	assert_int_equal(recv(network, got, sizeof(got), MSG_DONTWAIT), -1);

	memset(f->mem, 0, BUF);
	f->avail_idx = 0;
	become(f, "net,backend=dgram,local=@/own,remote=@/peer");
	fe_negotiate(f);
	assert_true(fe_add_memory(f, VHMSG_ADD_MEM_REG));
	fe_start_ring(f, 0);
	assert_true(fe_set_vring(f, VHMSG_SET_VRING_ENABLE, 0, 0));
	fe_offer_buffer(f, 4096, VRING_DESC_F_WRITE);
	assert_int_equal(
		sendto(network, frame, 60, 0, (void *)&own, sizeof(own)), 60);
	fe_kick(f);
	assert_int_equal(fe_used_idx(f), 0);
	assert_true(fe_set_vring(f, VHMSG_SET_VRING_ENABLE, 0, 1));
	assert_int_equal(fe_used_idx(f), 1);

	close(network);
	unlink(own.sun_path);
	unlink(peer.sun_path);
	forget_disk(f);
}

/*
 * trap 28: SeaBIOS sets up one ring of a host whose rings are all enabled, and
 * memory is added and removed meanwhile.
 */
static void test_partial(void **state)
{
	struct fe *f = *state;

	become(f, "scsi,lun0=@/disk");
	fe_negotiate(f);
	for (uint32_t i = 0; i < 3; i++)
		assert_true(fe_set_vring(f, VHMSG_SET_VRING_ENABLE, i, 1));
	assert_true(fe_add_memory(f, VHMSG_ADD_MEM_REG));
	assert_true(ring_runs(f, 2, 128));
	assert_true(fe_add_memory(f, VHMSG_REM_MEM_REG));
	assert_true(fe_add_memory(f, VHMSG_ADD_MEM_REG));
	assert_int_equal(fe_get_u64(f, VHMSG_GET_STATUS), 0);
	forget_disk(f);
}

/*
 * Postcopy, in-band doorbells and the like are not offered: hostile Q20, D5.
 * trap 22: nor bits with a former meaning.
 */
static void test_not_offered(void **state)
{
	static const unsigned never[] = { 6,  7,  8,  10, 11, 14,
					  17, 18, 20, 21, 22, 23 };
	static const uint32_t requests[] = { 22, 23, 26, 27, 28, 29,
					     30, 33, 35, 41, 44 };
	struct fe *f = *state;
	uint8_t payload[64];
	uint64_t offer = fe_get_u64(f, VHMSG_GET_PROTOCOL_FEATURES);

	for (size_t i = 0; i < ARRAY_LEN(never); i++)
		assert_false(offer >> never[i] & 1);
	assert_true(fe_set_u64(f, VHMSG_SET_PROTOCOL_FEATURES, offer, -1));
	memset(payload, 0xff, sizeof(payload)); /* lengths, and ids */
	for (size_t i = 0; i < ARRAY_LEN(requests); i++)
		assert_false(
			fe_ask(f, requests[i], payload, sizeof(payload), -1));
	assert_int_equal(fe_get_u64(f, VHMSG_GET_QUEUE_NUM), 1);
}

/*
 * FEAT-04, FEAT-08, hostile S21: features of the PCI function or the front-end
 * are not offered, whatever the device offers elsewhere; and each bit that is
 * not offered is rejected, with the ring unchanged.
 */
static void test_features_not_offered(void **state)
{
	static const unsigned never[] = { 24, 27, 31, 33, 37, 38, 39, 40, 41,
					  42, 43, 44, 45, 46, 47, 48, 49 };
	struct fe *f = *state;
	uint64_t offer;

	vi_offer_also(vio_server_pci(f->srv)->pi_arg, ~0ull);
	offer = fe_get_u64(f, VHMSG_GET_FEATURES);
	for (size_t i = 0; i < ARRAY_LEN(never); i++)
		if (offer >> never[i] & 1)
			fail_msg("bit %u is offered", never[i]);
	fe_negotiate(f);
	assert_true(fe_add_memory(f, VHMSG_ADD_MEM_REG));
	fe_start_ring(f, 0);
	for (unsigned bit = 0; bit < 64; bit++) {
		if (!(offer >> bit & 1))
			assert_false(fe_set_u64(f, VHMSG_SET_FEATURES,
						V1 | PROTOCOL | 1ull << bit,
						-1));
	}
	fe_offer(f);
	fe_kick(f);
	assert_int_equal(fe_used_idx(f), 1);
}

/*
 * --- Packed rings ---
 */

#define PACKED VI_BIT(VIRTIO_F_RING_PACKED)
#define P_WRAP 0x8000u
#define P_BASE 0x80008000u /* of a fresh ring */
#define P_SIZE 5u          /* not a power of two */

/* Offer a writable buffer in the slot at @pos; its id is the slot. */
static void offer_packed(struct fe *f, uint32_t pos)
{
	uint32_t slot = pos & ~P_WRAP;
	uint16_t bits = pos & P_WRAP ? 0x0080 : 0x8000;

	fe_write_desc(f, DESC + 16 * slot, GPA + BUF, 16, (uint16_t)slot);
	fe_write16(f, DESC + 16 * slot + 14, VRING_DESC_F_WRITE | bits);
}

static bool is_used_packed(struct fe *f, uint32_t pos)
{
	uint16_t flags;

	fe_iterate(f);
	flags = fe_read16(f, DESC + 16 * (pos & ~P_WRAP) + 14);
	return (flags & 0x8080) == (pos & P_WRAP ? 0x8080 : 0);
}

static void start_packed(struct fe *f, uint32_t base)
{
	struct vhmsg_vring_addr addr = { 0, 0, UADDR + DESC, UADDR + USED,
					 UADDR + AVAIL };

	assert_true(fe_set_vring(f, VHMSG_SET_VRING_NUM, 0, P_SIZE));
	assert_true(fe_set_vring(f, VHMSG_SET_VRING_BASE, 0, base));
	assert_true(fe_ask(f, VHMSG_SET_VRING_ADDR, &addr, sizeof(addr), -1));
	assert_true(fe_set_u64(f, VHMSG_SET_VRING_KICK, 0, f->kick));
	assert_true(fe_set_u64(f, VHMSG_SET_VRING_CALL, 0, f->call));
}

static void accept_packed(struct fe *f)
{
	assert_true(fe_get_u64(f, VHMSG_GET_FEATURES) & PACKED);
	fe_negotiate(f);
	assert_true(
		fe_set_u64(f, VHMSG_SET_FEATURES, V1 | PROTOCOL | PACKED, -1));
	assert_true(fe_add_memory(f, VHMSG_ADD_MEM_REG));
}

static void negotiate_packed(struct fe *f)
{
	become(f, "rng,packed=on");
	accept_packed(f);
	memset(f->mem, 0, BUF);
}

static uint32_t get_base(struct fe *f)
{
	struct vhmsg_vring vring = { 0, 0 };

	fe_send_msg(f, VHMSG_GET_VRING_BASE, 0, &vring, sizeof(vring), -1);
	assert_int_equal(fe_receive(f, VHMSG_GET_VRING_BASE, &vring,
				    sizeof(vring), NULL),
			 sizeof(vring));
	return vring.num;
}

/* PK-33: the base has both positions; DPDK's for a fresh ring has one. */
static void test_packed_base(void **state)
{
	static const uint32_t fresh[] = { P_BASE, P_WRAP };
	struct fe *f = *state;

	for (size_t i = 0; i < ARRAY_LEN(fresh); i++) {
		uint32_t base = fresh[i], pos = P_WRAP;

		negotiate_packed(f);
		for (unsigned n = 0; n < 12; n++) {
			uint32_t next = pos + 1;

			if ((next & ~P_WRAP) == P_SIZE)
				next = (pos & P_WRAP) ^ P_WRAP;
			start_packed(f, base);
			assert_true(
				fe_set_vring(f, VHMSG_SET_VRING_ENABLE, 0, 1));
			offer_packed(f, pos);
			fe_kick(f);
			assert_true(is_used_packed(f, pos));
			assert_true(fe_was_called(f));
			base = get_base(f);
			assert_int_equal(base, next << 16 | next);
			assert_int_equal(get_base(f), base);
			pos = next;
		}
	}
}

/* Positions outside the ring, or further apart than it is long. */
static void test_packed_bad_base(void **state)
{
	static const uint32_t bad[] = {
		P_BASE | P_SIZE,
		P_BASE | P_SIZE << 16,
		0xffffffff,
		(P_WRAP | 2) << 16 | P_WRAP | 1,
		(P_WRAP | 1) << 16 | 2,
	};
	struct fe *f = *state;

	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		negotiate_packed(f);
		start_packed(f, bad[i]);
		assert_false(fe_set_vring(f, VHMSG_SET_VRING_ENABLE, 0, 1));
	}
}

/* FE-02: rejected if not offered; without it, sizes and bases as usual. */
static void test_packed_not_offered(void **state)
{
	struct fe *f = *state;

	become(f, "rng,packed=off");
	fe_negotiate(f);
	assert_false(fe_get_u64(f, VHMSG_GET_FEATURES) & PACKED);
	assert_false(
		fe_set_u64(f, VHMSG_SET_FEATURES, V1 | PROTOCOL | PACKED, -1));
	assert_false(fe_set_vring(f, VHMSG_SET_VRING_NUM, 0, P_SIZE));
	assert_false(fe_set_vring(f, VHMSG_SET_VRING_BASE, 0, P_BASE));
	assert_true(fe_add_memory(f, VHMSG_ADD_MEM_REG));
	memset(f->mem, 0, BUF);
	f->avail_idx = 0;
	fe_start_ring(f, 0);
	fe_offer(f);
	fe_kick(f);
	assert_int_equal(fe_used_idx(f), 1);
}

/* FE-02, PK-37: a legacy driver's rings are split, and cannot be packed. */
static void test_packed_legacy(void **state)
{
	struct fe *f = *state;

	negotiate_packed(f);
	assert_false(fe_set_u64(f, VHMSG_SET_FEATURES, PROTOCOL | PACKED, -1));
	start_packed(f, P_BASE);
	assert_true(fe_set_vring(f, VHMSG_SET_VRING_ENABLE, 0, 1));
	offer_packed(f, P_WRAP);
	fe_kick(f);
	assert_true(is_used_packed(f, P_WRAP));
}

/* PK-34: the area is that of packed rings; a part of another layout is none. */
static void test_packed_inflight(void **state)
{
	struct vhmsg_inflight area = { .nr_queues = 1, .queue_size = P_SIZE };
	struct fe *f = *state;
	int fd;

	vi_offer_also(vio_server_pci(f->srv)->pi_arg, PACKED);
	accept_packed(f);
	fe_send_msg(f, VHMSG_GET_INFLIGHT_FD, 0, &area, sizeof(area), -1);
	assert_int_equal(
		fe_receive(f, VHMSG_GET_INFLIGHT_FD, &area, sizeof(area), &fd),
		sizeof(area));
	assert_int_equal(area.size, 192); /* 32 + 5 * 32 */
	assert_true(fe_ask(f, VHMSG_SET_INFLIGHT_FD, &area, sizeof(area), fd));
	start_packed(f, P_BASE);
	assert_true(fe_set_vring(f, VHMSG_SET_VRING_ENABLE, 0, 1));
	offer_packed(f, P_WRAP);
	fe_kick(f);
	assert_true(is_used_packed(f, P_WRAP));

	/* The next front-end has the file, and a base from before the crash. */
	fe_reconnect(f);
	accept_packed(f);
	assert_true(fe_ask(f, VHMSG_SET_INFLIGHT_FD, &area, sizeof(area), fd));
	start_packed(f, P_BASE);
	assert_true(fe_set_vring(f, VHMSG_SET_VRING_ENABLE, 0, 1));
	offer_packed(f, P_WRAP | 1);
	fe_kick(f);
	assert_true(is_used_packed(f, P_WRAP | 1));

	/* As much as split rings need is not enough. */
	area.size = 128;
	assert_int_not_equal(get_base(f), 0);
	assert_false(fe_ask(f, VHMSG_SET_INFLIGHT_FD, &area, sizeof(area), fd));
	close(fd);
}

/* PK-34: the next driver has another layout: what was in flight is gone. */
static void test_inflight_of_another_layout(void **state)
{
	const uint8_t in_flight = 1;
	struct fe *f = *state;
	uint8_t entry;
	int fd;

	vi_offer_also(vio_server_pci(f->srv)->pi_arg, PACKED);
	fe_negotiate(f);
	fd = keep_inflight(f);
	assert_true(fe_add_memory(f, VHMSG_ADD_MEM_REG));
	fe_start_ring(f, 0);
	fe_offer(f);
	fe_kick(f);
	assert_int_equal(fe_used_idx(f), 1);
	assert_int_equal(get_base(f), 1);
	assert_int_equal(pwrite(fd, &in_flight, 1, 16 + 16 * 3), 1);
	assert_true(
		fe_set_u64(f, VHMSG_SET_FEATURES, V1 | PROTOCOL | PACKED, -1));
	assert_int_equal(pread(fd, &entry, 1, 16 + 16 * 3), 1);
	assert_int_equal(entry, 0);
	close(fd);
}

/*
 * VQ-04: a front-end resets a queue by stopping its ring, and enables it again
 * with other parameters. The contents of the old ring are gone.
 */
static void test_queue_reset(void **state)
{
	struct vhmsg_vring vring = { 0, 0 };
	struct fe *f = *state;

	fe_negotiate(f);
	assert_true(fe_add_memory(f, VHMSG_ADD_MEM_REG));
	fe_start_ring(f, 0);
	fe_offer(f);
	fe_kick(f);
	assert_int_equal(fe_used_idx(f), 1);
	for (uint32_t size = 8; size >= 4; size /= 2) {
		assert_true(fe_set_vring(f, VHMSG_SET_VRING_ENABLE, 0, 0));
		fe_offer(f);
		fe_send_msg(f, VHMSG_GET_VRING_BASE, 0, &vring, 8, -1);
		assert_int_equal(
			fe_receive(f, VHMSG_GET_VRING_BASE, &vring, 8, NULL),
			8);
		memset(f->mem, 0, BUF);
		f->avail_idx = 0;
		fe_start_ring(f, 0);
		assert_true(fe_set_vring(f, VHMSG_SET_VRING_NUM, 0, size));
		assert_int_equal(fe_used_idx(f), 0);
		for (uint16_t n = 1; n <= 3; n++) {
			fe_offer(f);
			fe_kick(f);
			assert_int_equal(fe_used_idx(f), n);
		}
	}
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_life),
		TEST(test_new_driver),
		TEST(test_cloud_hypervisor),
		TEST(test_config_beyond),
		TEST(test_uml),
		TEST(test_polled),
		TEST(test_memory_goes),
		TEST(test_memory_slots),
		TEST(test_status),
		TEST(test_log),
		TEST(test_inflight),
		TEST(test_inflight_of_another),
		TEST(test_bad_numbers),
		TEST(test_bad_messages),
		TEST(test_fd_flood),
		TEST(test_pieces),
		TEST(test_reconnect),
		TEST(test_attach),
		TEST(test_network),
		TEST(test_no_network),
		TEST(test_state_moves),
		TEST(test_state_hostile),
		TEST(test_state_pipes),
		TEST(test_no_state),
		TEST(test_not_offered),
		TEST(test_features_not_offered),
		TEST(test_packed_base),
		TEST(test_packed_bad_base),
		TEST(test_packed_not_offered),
		TEST(test_packed_legacy),
		TEST(test_packed_inflight),
		TEST(test_inflight_of_another_layout),
		TEST(test_queue_reset),
		TEST(test_ring_sizes),
		TEST(test_disabled_network),
		TEST(test_config_while_stopped),
		TEST(test_poll_before_sleep),
		TEST(test_any_order),
		TEST(test_answers),
		TEST(test_partial),
		TEST(test_log_moves),
		TEST(test_log_used),
		TEST(test_ring_parts),
		TEST(test_features_change),
		TEST(test_restart_interrupts),
		TEST(test_error_fd),
		TEST(test_backend_fd),
		TEST(test_own_socket),
		TEST(test_misaligned_memory),
		TEST(test_out_of_fds),
		TEST(test_state_too_late),
		TEST(test_truncated),
		TEST(test_truncated_last),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

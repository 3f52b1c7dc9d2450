/* SPDX-License-Identifier: BSD-2-Clause */
/* Requests that wait until the operator resumes them (rerror=, werror=). */
#include "block_fixture.h"
#include "base/util.h"

#include <errno.h>
#include <json-c/json.h>
#include <linux/pci_regs.h>
#include <string.h>

#include <viodev/device.h>

static unsigned status_of(const char *key)
{
	struct json_object *status = json_object_new_object(), *val;
	unsigned n;

	vdev_status(dev, status);
	assert_true(json_object_object_get_ex(status, key, &val));
	n = (unsigned)json_object_get_uint64(val);
	json_object_put(status);
	return n;
}

static void resume(void)
{
	char *words[] = { (char *)"resume" };
	struct json_object *reply = json_object_new_object();
	struct opened_files files = { .nr = 0 };
	struct err err;

	assert_int_equal(vdev_ctl(dev, 1, words, &files, reply, &err), 0);
	json_object_put(reply);
}

static void wait_waiting(unsigned nr)
{
	uint64_t end = vio_now_ns() + 10000000000ull;

	while (status_of("waiting") != nr) {
		assert_true(vio_now_ns() < end);
		vio_loop_iterate(loop, 10);
	}
}

/* Nothing completes before `resume`, and then as if nothing had happened. */
static void test_wait(void **state)
{
	struct request r[3];
	struct vdrv_used used;

	start(VDRV_MODERN, ",werror=wait,rerror=wait", ALL_FEATURES);
	FAULT_SET(no_cache, true);
	FAULT_SET(write_errno, EIO);
	FAULT_SET(read_errno, EIO);
	for (unsigned i = 0; i < 3; i++) {
		r[i] = make_req(i ? VIRTIO_BLK_T_IN : VIRTIO_BLK_T_OUT, i, 512,
				i);
		add_req(0, &r[i]);
	}
	memset(model, 0xdd, 512);
	vdrv_kick(&d, 0);
	wait_waiting(3);
	assert_non_null(strstr(d.last_log, "requests wait"));
	resume();
	wait_waiting(3); /* in vain */
	iterate(5);
	assert_false(vdrv_used(&d, 0, &used));
	assert_false(pci_is_idle(&d.pi));
	FAULT_SET(write_errno, 0);
	FAULT_SET(read_errno, 0);
	resume();
	wait_idle();
	iterate(2);
	for (unsigned i = 0; i < 3; i++) {
		assert_true(vdrv_used(&d, 0, &used));
		assert_int_equal(req_status(&r[i]), OK);
		assert_memory_equal(req_data(&r[i]), model + i * 512, 512);
	}
	assert_image_is_model();
}

/* Two writes that fail before and after one that does not. */
static void start_two_that_wait(struct request r[3])
{
	start(VDRV_MODERN, ",werror=wait,rerror=report", ALL_FEATURES);
	FAULT_SET(no_cache, true);
	FAULT_SET(write_errno, EIO);
	for (unsigned i = 0; i < 3; i++) {
		r[i] = make_req(i == 1 ? VIRTIO_BLK_T_IN : VIRTIO_BLK_T_OUT, i,
				512, i == 1);
		add_req(0, &r[i]);
	}
	vdrv_kick(&d, 0);
	wait_waiting(2);
	wait_used(0);
	assert_int_equal(req_status(&r[1]), OK);
}

static void check_two_that_waited(const struct request r[3])
{
	memset(model, 0xdd, 512);
	memset(model + 1024, 0xdd, 512);
	/* Threads end them in any order. */
	wait_used(0);
	wait_used(0);
	assert_int_equal(req_status(&r[0]), OK);
	assert_int_equal(req_status(&r[2]), OK);
	assert_image_is_model();
}

/*
 * A stop does not wait for writes that wait, nor for one that fails during the
 * stop. They are executed when the queue runs again.
 */
static void test_wait_stop(void **state)
{
	struct vqueue_info *vq;
	struct vdrv_used used;
	struct request r[3];

	start_two_that_wait(r);
	vq = &dev->vs->vs_queues[0];
	pci_quiesce(&d.pi);
	assert_true(pci_is_idle(&d.pi));
	assert_int_equal(status_of("waiting"), 0);
	iterate(5);
	assert_false(vdrv_used(&d, 0, &used));
	assert_int_equal(vq->vq_priv->nr_returned, 2);

	/* It runs again just long enough to start them. */
	vq->vq_priv->paused = false;
	pci_kick(&d.pi);
	assert_false(pci_is_idle(&d.pi));
	pci_quiesce(&d.pi);
	wait_idle();
	assert_int_equal(status_of("waiting"), 0);
	assert_int_equal(vq->vq_priv->nr_returned, 2);

	FAULT_SET(write_errno, 0);
	vq->vq_priv->paused = false;
	pci_kick(&d.pi);
	check_two_that_waited(r);
}

/*
 * While writes are logged another host will take the queue over, and must know
 * what is in flight: a request that is not the last one waits.
 */
static void test_wait_stop_logged(void **state)
{
	static uint8_t log[1 << 20];
	struct vqueue_info *vq;
	struct request r[3];

	start_two_that_wait(r);
	vq = &dev->vs->vs_queues[0];
	gm_set_log(&d.gm, log, sizeof(log));
	pci_quiesce(&d.pi);
	wait_waiting(1);
	iterate(5);
	assert_false(pci_is_idle(&d.pi));
	assert_int_equal(vq->vq_priv->nr_returned, 1);
	FAULT_SET(write_errno, 0);
	resume();
	wait_idle();
	vq->vq_priv->paused = false;
	pci_kick(&d.pi);
	check_two_that_waited(r);
	gm_set_log(&d.gm, NULL, 0);
}

static void no_owner(void *arg, const struct gm_region *r)
{
}

/* Memory that waiting writes use is removed at once. */
static void test_wait_memory_gone(void **state)
{
	struct request r[3];

	start_two_that_wait(r);
	assert_int_equal(gm_remove(&d.gm, (gpa_t){ VDRV_MEM_BASE },
				   VDRV_MEM_BYTES, no_owner, NULL),
			 1);
	pci_give_back(&d.pi);
	assert_int_equal(status_of("waiting"), 0);
	assert_int_equal(gm_reap(&d.gm, no_owner, NULL), 0);
	FAULT_SET(write_errno, 0);
	assert_int_equal(gm_add(&d.gm, (gpa_t){ VDRV_MEM_BASE }, VDRV_MEM_BYTES,
				d.mem, GM_READ | GM_WRITE),
			 0);
	pci_kick(&d.pi);
	check_two_that_waited(r);
}

/* Bus Master is cleared: no request waits to use DMA later. */
static void test_wait_bus(void **state)
{
	struct request r[3];

	start_two_that_wait(r);
	pci_cfg_write(&d.pi, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	assert_true(pci_is_idle(&d.pi));
	FAULT_SET(write_errno, 0);
	resume();
	iterate(5);
	assert_int_equal(req_status(&r[0]), NO_STATUS);
	pci_cfg_write(&d.pi, PCI_COMMAND, 2,
		      PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	check_two_that_waited(r);
}

/* A reset forgets waiting requests; so does destroying the device. */
static void test_wait_reset(void **state)
{
	struct request w;

	start(VDRV_MODERN, ",werror=wait", ALL_FEATURES);
	for (int i = 0; i < 2; i++) {
		FAULT_SET(write_errno, EIO);
		w = make_req(VIRTIO_BLK_T_OUT, 0, 512, false);
		add_req(0, &w);
		vdrv_kick(&d, 0);
		wait_waiting(1);
		vdrv_set_status(&d, 0);
		assert_int_equal(status_of("waiting"), 0);
		wait_idle();
		FAULT_SET(write_errno, 0);
		resume();
		assert_int_equal(req_status(&w), NO_STATUS);
		assert_image_is_model();
		assert_true(vdrv_start(&d, ALL_FEATURES, 1));
	}
	FAULT_SET(write_errno, EIO);
	add_req(0, &w);
	vdrv_kick(&d, 0);
	wait_waiting(1);
}

/* The options determine what happens. */
static void test_wait_which(void **state)
{
	static const struct {
		const char *options;
		uint32_t type;
		int error;
		bool waits;
	} rows[] = {
		{ "", VIRTIO_BLK_T_OUT, ENOSPC, true },
		{ "", VIRTIO_BLK_T_OUT, EIO, false },
		{ "", VIRTIO_BLK_T_IN, EIO, false },
		{ ",werror=report", VIRTIO_BLK_T_OUT, ENOSPC, false },
		{ ",werror=wait", VIRTIO_BLK_T_OUT, EIO, true },
		{ ",rerror=wait", VIRTIO_BLK_T_IN, EIO, true },
		{ ",rerror=wait", VIRTIO_BLK_T_OUT, EIO, false },
	};

	if (!threads)
		skip(); /* the errors cannot be produced there */
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct request r;

		start(VDRV_MODERN, rows[i].options, ALL_FEATURES);
		FAULT_SET(no_cache, true);
		FAULT_SET(write_errno, rows[i].error);
		FAULT_SET(read_errno, rows[i].error);
		r = make_req(rows[i].type, 0, 512,
			     rows[i].type == VIRTIO_BLK_T_IN);
		add_req(0, &r);
		vdrv_kick(&d, 0);
		if (rows[i].waits) {
			wait_waiting(1);
		} else {
			wait_used(0);
			assert_int_equal(req_status(&r), IOERR);
		}
		destroy();
	}
}

static int run(const char *engine)
{
	const struct CMUnitTest tests[] = {
		TEST(test_wait),
		TEST(test_wait_stop),
		TEST(test_wait_stop_logged),
		TEST(test_wait_memory_gone),
		TEST(test_wait_bus),
		TEST(test_wait_reset),
		TEST(test_wait_which),
	};

	threads = strcmp(engine, "threads") == 0;
	return cmocka_run_group_tests_name(engine, tests, NULL, NULL);
}

int main(void)
{
	return run_on_engines(run);
}

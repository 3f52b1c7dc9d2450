/* SPDX-License-Identifier: BSD-2-Clause */
/* The notify loop: budget, doorbells, and a chain that arrives in between. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <viodev/virtio.h>

#include "core/core.h"
#include "vdrv.h"

enum { QSIZE = 8, NIOV = 4 };

struct dev {
	struct virtio_softc vs;
	struct vqueue_info vq;
	struct vdrv d;
	uint64_t buf;
	unsigned nr_calls;
	unsigned add_when_idle; /* chains added while none was found */
	bool wait;              /* leave what is available */
	bool lie;               /* say that nothing is available */
	bool leave;             /* likewise, and ask for doorbells */
};

static void on_notify(void *arg, struct vqueue_info *vq);

static struct virtio_consts consts = {
	.vc_name = "vq_serve_test",
	.vc_nvq = 1,
	.vc_qnotify = on_notify,
	.vc_hv_caps_modern = VI_RING_CAPS_MODERN,
};

static void dev_start(struct dev *dev, uint64_t features)
{
	memset(dev, 0, sizeof(*dev));
	vdrv_init(&dev->d, VDRV_MODERN);
	vi_softc_linkup(&dev->vs, &consts, dev, &dev->d.pi, &dev->vq);
	dev->vq.vq_qsize = QSIZE;
	vi_pci_init(&dev->d.pi, VIRTIO_MODE_MODERN, 0, VIRTIO_ID_ENTROPY,
		    PCIC_OTHER);
	assert_true(vi_intr_init(&dev->vs, true));
	assert_true(vi_pcibar_setup(&dev->vs));
	assert_true(
		vdrv_start(&dev->d, features | VI_BIT(VIRTIO_F_VERSION_1), 1));
	dev->buf = vdrv_alloc(&dev->d, 64, 8);
}

static void dev_fini(struct dev *dev)
{
	vi_softc_fini(&dev->vs);
	vdrv_fini(&dev->d);
}

static void add(struct dev *dev, unsigned nr)
{
	struct vdrv_buf buf = { dev->buf, 64, VDRV_W };

	while (nr-- > 0)
		vdrv_add(&dev->d, 0, &buf, 1);
}

static unsigned nr_used(struct dev *dev)
{
	struct vdrv_used used;
	unsigned nr = 0;

	while (vdrv_used(&dev->d, 0, &used))
		nr++;
	return nr;
}

static enum vq_served serve(void *arg, struct vqueue_info *vq)
{
	struct dev *dev = arg;
	struct iovec iov[NIOV];
	struct vi_req req;

	dev->nr_calls++;
	if (dev->lie)
		return VQ_IDLE;
	if (dev->wait)
		return VQ_WAIT;
	if (vq_getchain(vq, iov, NIOV, &req) <= 0) {
		/* The driver is a moment faster than vq_kick_enable(). */
		add(dev, dev->add_when_idle);
		dev->add_when_idle = 0;
		return VQ_IDLE;
	}
	vq_relchain(vq, (uint16_t)req.idx, 1);
	return VQ_MORE;
}

static enum vq_served run(struct dev *dev, unsigned budget)
{
	dev->nr_calls = 0;
	return vq_serve(&dev->vq, budget, serve, dev);
}

static void on_notify(void *arg, struct vqueue_info *vq)
{
	struct dev *dev = arg;

	if (!dev->leave) {
		vq_serve(vq, QSIZE, serve, arg);
		return;
	}
	dev->nr_calls++;
	vq_kick_enable(vq);
}

static const uint64_t features[] = { 0, VI_BIT(VIRTIO_RING_F_EVENT_IDX) };

static void test_until_empty(void **state)
{
	struct dev dev;

	for (unsigned i = 0; i < 2; i++) {
		dev_start(&dev, features[i]);
		add(&dev, 3);
		vdrv_kick_wanted(&dev.d,
				 0); /* for these: the result is ignored */
		assert_int_equal(run(&dev, QSIZE), VQ_IDLE);
		assert_int_equal(dev.nr_calls, 4);
		assert_int_equal(nr_used(&dev), 3);
		add(&dev, 1);
		assert_true(vdrv_kick_wanted(&dev.d, 0));
		dev_fini(&dev);
	}
}

/* It is served in the same call: there will be no doorbell for it. */
static void test_chain_in_between(void **state)
{
	struct dev dev;

	for (unsigned i = 0; i < 2; i++) {
		dev_start(&dev, features[i]);
		add(&dev, 2);
		dev.add_when_idle = 3;
		assert_int_equal(run(&dev, QSIZE), VQ_IDLE);
		assert_int_equal(nr_used(&dev), 5);
		dev_fini(&dev);
	}
}

static void test_budget(void **state)
{
	struct dev dev;

	for (unsigned i = 0; i < 2; i++) {
		dev_start(&dev, features[i]);
		add(&dev, 5);
		vdrv_kick_wanted(&dev.d, 0);
		assert_int_equal(run(&dev, 3), VQ_MORE);
		assert_int_equal(dev.nr_calls, 3);
		assert_int_equal(nr_used(&dev), 3);
		add(&dev, 1);
		assert_false(vdrv_kick_wanted(&dev.d, 0));
		assert_int_equal(run(&dev, QSIZE), VQ_IDLE);
		assert_int_equal(nr_used(&dev), 3);
		dev_fini(&dev);
	}
}

/* The budget ends with the chain added in between: it is not lost. */
static void test_budget_in_between(void **state)
{
	struct dev dev;

	dev_start(&dev, 0);
	add(&dev, 1);
	dev.add_when_idle = 1;
	assert_int_equal(run(&dev, 2), VQ_MORE);
	assert_int_equal(nr_used(&dev), 1);
	assert_int_equal(run(&dev, 2), VQ_IDLE);
	assert_int_equal(nr_used(&dev), 1);
	dev_fini(&dev);
}

static void test_wait(void **state)
{
	struct dev dev;

	for (unsigned i = 0; i < 2; i++) {
		dev_start(&dev, features[i]);
		add(&dev, 2);
		vdrv_kick_wanted(&dev.d, 0);
		dev.wait = true;
		assert_int_equal(run(&dev, QSIZE), VQ_WAIT);
		assert_int_equal(dev.nr_calls, 1);
		add(&dev, 1);
		assert_false(vdrv_kick_wanted(&dev.d, 0));
		dev.wait = false;
		assert_int_equal(run(&dev, QSIZE), VQ_IDLE);
		assert_int_equal(nr_used(&dev), 3);
		dev_fini(&dev);
	}
}

/* A model that leaves chains without saying so costs only a budget. */
static void test_wrong_idle(void **state)
{
	struct dev dev;

	dev_start(&dev, 0);
	add(&dev, 1);
	dev.lie = true;
	assert_int_equal(run(&dev, QSIZE), VQ_MORE);
	assert_int_equal(dev.nr_calls, QSIZE);
	dev_fini(&dev);
}

static void test_broken(void **state)
{
	struct dev dev;

	dev_start(&dev, 0);
	add(&dev, 1);
	vdrv_avail(&dev.d, 0, 999);
	assert_int_equal(run(&dev, QSIZE), VQ_IDLE);
	assert_int_equal(dev.nr_calls, 2);
	assert_true(dev.vs.vs_flags & VIRTIO_BROKEN);
	add(&dev, 1);
	assert_int_equal(run(&dev, QSIZE), VQ_IDLE);
	assert_int_equal(dev.nr_calls, 1);
	assert_int_equal(nr_used(&dev), 1);
	dev_fini(&dev);
}

/*
 * --- Polling ---
 */

static void start_polling(struct dev *dev, uint64_t feature)
{
	dev_start(dev, feature);
	assert_false(vi_poll(&dev->vs));
	add(dev, 1);
	vdrv_kick_wanted(&dev->d, 0);
	vi_kick(&dev->vs, 0);
	assert_int_equal(nr_used(dev), 1);
}

static void *poll_in_thread(void *dev)
{
	vi_poll(&((struct dev *)dev)->vs);
	return NULL;
}

/* A thread that does not poll turns doorbells on at once. */
static void test_other_thread(void **state)
{
	struct dev dev;
	pthread_t thread;

	for (unsigned i = 0; i < 2; i++) {
		dev_start(&dev, features[i]);
		assert_int_equal(
			pthread_create(&thread, NULL, poll_in_thread, &dev), 0);
		pthread_join(thread, NULL);
		add(&dev, 1);
		vdrv_kick_wanted(&dev.d, 0);
		vi_kick(&dev.vs, 0);
		assert_int_equal(nr_used(&dev), 1);
		add(&dev, 1);
		assert_true(vdrv_kick_wanted(&dev.d, 0));
		dev_fini(&dev);
	}
}

/* As long as chains come in time, there are no doorbells. */
static void test_poll(void **state)
{
	struct dev dev;

	for (unsigned i = 0; i < 2; i++) {
		start_polling(&dev, features[i]);
		for (unsigned n = 0; n < 3 * QSIZE; n++) {
			assert_false(vi_poll(&dev.vs));
			add(&dev, 2);
			assert_false(vdrv_kick_wanted(&dev.d, 0));
			assert_true(vi_poll(&dev.vs));
			assert_int_equal(nr_used(&dev), 2);
		}
		dev_fini(&dev);
	}
}

static void test_arm(void **state)
{
	struct dev dev;

	for (unsigned i = 0; i < 2; i++) {
		start_polling(&dev, features[i]);
		assert_false(vi_arm(&dev.vs));
		assert_false(vi_poll(&dev.vs));
		add(&dev, 1);
		assert_true(vdrv_kick_wanted(&dev.d, 0));
		/* The doorbell wakes the thread, and doorbells stay off again. */
		assert_false(vi_poll(&dev.vs));
		vi_kick(&dev.vs, 0);
		assert_int_equal(nr_used(&dev), 1);
		add(&dev, 1);
		assert_false(vdrv_kick_wanted(&dev.d, 0));
		dev_fini(&dev);
	}
}

/* A chain came after the last look, and the driver saw doorbells off. */
static void test_arm_late(void **state)
{
	struct dev dev;

	for (unsigned i = 0; i < 2; i++) {
		start_polling(&dev, features[i]);
		add(&dev, 1);
		assert_false(vdrv_kick_wanted(&dev.d, 0));
		assert_true(vi_arm(&dev.vs));
		assert_int_equal(nr_used(&dev), 1);
		assert_false(vi_arm(&dev.vs));
		dev_fini(&dev);
	}
}

/* A model that left doorbells off comes back by itself. */
static void test_poll_waiting(void **state)
{
	struct dev dev;

	start_polling(&dev, 0);
	dev.wait = true;
	add(&dev, 1);
	assert_true(vi_poll(&dev.vs));
	add(&dev, 1);
	assert_false(vi_poll(&dev.vs));
	assert_false(vi_arm(&dev.vs));
	assert_false(vdrv_kick_wanted(&dev.d, 0));
	dev.wait = false;
	vi_kick(&dev.vs, 0);
	assert_int_equal(nr_used(&dev), 2);
	dev_fini(&dev);
}

/* A model that leaves chains in the queue gets a doorbell for each new one. */
static void test_poll_leaving(void **state)
{
	struct dev dev;

	for (unsigned i = 0; i < 2; i++) {
		start_polling(&dev, features[i]);
		dev.leave = true;
		add(&dev, 1);
		assert_true(vi_poll(&dev.vs));
		for (unsigned n = 1; n < QSIZE; n++) {
			assert_false(vi_poll(&dev.vs));
			assert_false(vi_arm(&dev.vs));
			vdrv_kick_wanted(&dev.d, 0);
			vq_kick_enable(&dev.vq);
			add(&dev, 1);
			assert_int_equal(vdrv_kick_wanted(&dev.d, 0), i == 0);
		}
		dev.leave = false;
		vi_kick(&dev.vs, 0);
		assert_int_equal(nr_used(&dev), QSIZE);
		dev_fini(&dev);
	}
}

/* A queue that was empty after doorbells had been turned on, in four ways. */
static void start_quiet(struct dev *dev, unsigned way)
{
	dev_start(dev, features[way / 2]);
	if (way % 2)
		vi_poll(&dev->vs);
	add(dev, 1);
	vi_kick(&dev->vs, 0);
	assert_int_equal(nr_used(dev), 1);
	vi_arm(&dev->vs);
}

/*
 * The driver's memory is another program's now, as after a kexec, and nobody has
 * reset the device: a queue is not looked at for nothing.
 */
static void test_quiet(void **state)
{
	struct dev dev;

	for (unsigned way = 0; way < 4; way++) {
		start_quiet(&dev, way);
		vdrv_set_avail_idx(&dev.d, 0, 1000);
		vi_set_dma(&dev.vs, false);
		vi_set_dma(&dev.vs, true);
		vi_kick_missed(&dev.vs);
		assert_false(dev.vs.vs_flags & VIRTIO_BROKEN);
		vi_kick(&dev.vs, 0);
		assert_true(dev.vs.vs_flags & VIRTIO_BROKEN);
		dev_fini(&dev);
	}
}

/* A doorbell that came while DMA was off is not forgotten. */
static void test_missed_doorbell(void **state)
{
	struct dev dev;

	for (unsigned way = 0; way < 4; way++) {
		start_quiet(&dev, way);
		vi_set_dma(&dev.vs, false);
		add(&dev, 1);
		vi_kick(&dev.vs, 0);
		assert_int_equal(nr_used(&dev), 0);
		vi_set_dma(&dev.vs, true);
		vi_kick_missed(&dev.vs);
		assert_int_equal(nr_used(&dev), 1);
		dev_fini(&dev);
	}
}

/* Nor is a chain without a doorbell, because they were off. */
static void test_missed_silently(void **state)
{
	struct dev dev;

	for (unsigned way = 0; way < 4; way++) {
		start_quiet(&dev, way);
		vq_kick_disable(&dev.vq);
		add(&dev, 1);
		vi_set_dma(&dev.vs, false);
		vi_set_dma(&dev.vs, true);
		vi_kick_missed(&dev.vs);
		assert_int_equal(nr_used(&dev), 1);
		dev_fini(&dev);
	}
}

/* Nor is a chain that the model gave back, with doorbells on. */
static void test_missed_returned(void **state)
{
	struct vi_req req;
	struct iovec iov[NIOV];
	struct dev dev;

	for (unsigned way = 0; way < 4; way++) {
		start_quiet(&dev, way);
		add(&dev, 2);
		for (int i = 0; i < 2; i++)
			assert_int_equal(vq_getchain(&dev.vq, iov, NIOV, &req),
					 1);
		assert_false(vq_has_descs(&dev.vq));
		vq_retchains(&dev.vq, 2);
		vi_set_dma(&dev.vs, false);
		vi_set_dma(&dev.vs, true);
		vi_kick_missed(&dev.vs);
		assert_int_equal(nr_used(&dev), 2);
		dev_fini(&dev);
	}
}

/* A ring that is reset, stopped or broken is not polled. */
static void test_poll_gone(void **state)
{
	struct dev dev;

	start_polling(&dev, 0);
	add(&dev, 1);
	vi_pause_queue(&dev.vq);
	assert_false(vi_poll(&dev.vs));
	assert_false(vi_arm(&dev.vs));
	vi_reset(&dev.vs);
	assert_false(vi_poll(&dev.vs));
	assert_false(vi_arm(&dev.vs));
	dev_fini(&dev);

	start_polling(&dev, 0);
	vdrv_avail(&dev.d, 0, 999);
	assert_true(vi_poll(&dev.vs));
	assert_true(dev.vs.vs_flags & VIRTIO_BROKEN);
	add(&dev, 1);
	assert_false(vi_poll(&dev.vs));
	assert_false(vi_arm(&dev.vs));
	dev_fini(&dev);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_until_empty),
		cmocka_unit_test(test_chain_in_between),
		cmocka_unit_test(test_budget),
		cmocka_unit_test(test_budget_in_between),
		cmocka_unit_test(test_wait),
		cmocka_unit_test(test_wrong_idle),
		cmocka_unit_test(test_broken),
		cmocka_unit_test(test_other_thread),
		cmocka_unit_test(test_poll),
		cmocka_unit_test(test_arm),
		cmocka_unit_test(test_arm_late),
		cmocka_unit_test(test_poll_waiting),
		cmocka_unit_test(test_poll_leaving),
		cmocka_unit_test(test_quiet),
		cmocka_unit_test(test_missed_doorbell),
		cmocka_unit_test(test_missed_silently),
		cmocka_unit_test(test_missed_returned),
		cmocka_unit_test(test_poll_gone),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

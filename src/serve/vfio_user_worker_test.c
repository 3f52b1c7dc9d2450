/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A device model with its own threads and no notion of stopping, like those
 * written for bhyve's framework: a request goes to a thread, which writes guest
 * memory at any time, and completes the chain under the device's lock. Clients
 * attach and detach meanwhile.
 */
#include <endian.h>
#include <linux/pci_regs.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include <viodev/virtio.h>

#include "process.h"
#include "vfio_user_client.h"

#define NR_THREADS 4
#define QSIZE      16
#define NR_CHAINS  8
#define BUF_BYTES  4096u
#define MEM_BYTES  (1u << 20)
#define BASE       (1u << 20) /* guest address of the memory */
#define BUFFERS    0x10000u   /* where buffers begin in it */

/*
 * --- The device ---
 */

struct work {
	struct iovec iov;
	uint16_t idx;
};

struct worker_dev {
	struct virtio_softc vs; /* first */
	struct vqueue_info vq;
	pthread_mutex_t mtx; /* vs_mtx, and all below */
	pthread_cond_t cond;
	pthread_t threads[NR_THREADS];
	struct work todo[4 * QSIZE];
	unsigned nr_todo, nr_begun, nr_done;
	bool closed; /* requests stay in flight */
	bool end;
};

static void do_work(struct worker_dev *dev, struct work w)
{
	dev->nr_begun++;
	while (dev->closed)
		pthread_cond_wait(&dev->cond, &dev->mtx);
	pthread_mutex_unlock(&dev->mtx);
	memset(w.iov.iov_base, 'w', w.iov.iov_len);
	pthread_mutex_lock(&dev->mtx);
	vq_relchain(&dev->vq, w.idx, (uint32_t)w.iov.iov_len);
	vq_endchains(&dev->vq, 0);
	dev->nr_done++;
}

static void *worker(void *arg)
{
	struct worker_dev *dev = arg;

	pthread_mutex_lock(&dev->mtx);
	while (!dev->end) {
		if (dev->nr_todo > 0)
			do_work(dev, dev->todo[--dev->nr_todo]);
		else
			pthread_cond_wait(&dev->cond, &dev->mtx);
	}
	pthread_mutex_unlock(&dev->mtx);
	return NULL;
}

static void dev_reset(void *sc)
{
	struct worker_dev *dev = sc;

	vi_reset_dev(&dev->vs);
}

static void dev_notify(void *sc, struct vqueue_info *vq)
{
	struct worker_dev *dev = sc;
	struct iovec iov;
	struct vi_req req;

	while (vq_has_descs(vq)) {
		if (vq_getchain(vq, &iov, 1, &req) != 1)
			break;
		dev->todo[dev->nr_todo++] = (struct work){ iov, req.idx };
	}
	pthread_cond_broadcast(&dev->cond);
}

static struct virtio_consts consts = {
	.vc_name = "worker",
	.vc_nvq = 1,
	.vc_reset = dev_reset,
	.vc_qnotify = dev_notify,
};

static void build(struct pci_devinst *pi, void *arg)
{
	struct worker_dev *dev = arg;

	pthread_mutex_init(&dev->mtx, NULL);
	pthread_cond_init(&dev->cond, NULL);
	vi_softc_linkup(&dev->vs, &consts, dev, pi, &dev->vq);
	dev->vs.vs_mtx = &dev->mtx;
	dev->vq.vq_qsize = QSIZE;
	vi_pci_init(pi, VIRTIO_MODE_TRANSITIONAL, VIRTIO_DEV_BLOCK,
		    VIRTIO_ID_BLOCK, PCIC_STORAGE);
	assert_true(vi_intr_init(&dev->vs, true));
	assert_true(vi_pcibar_setup(&dev->vs));
	for (int i = 0; i < NR_THREADS; i++)
		assert_int_equal(
			pthread_create(&dev->threads[i], NULL, worker, dev), 0);
}

static void set_closed(struct worker_dev *dev, bool closed)
{
	pthread_mutex_lock(&dev->mtx);
	dev->closed = closed;
	pthread_cond_broadcast(&dev->cond);
	pthread_mutex_unlock(&dev->mtx);
}

static void await(struct worker_dev *dev, const unsigned *counter, unsigned nr)
{
	for (int i = 0; i < TCL_PATIENCE_MS; i++) {
		unsigned now;

		pthread_mutex_lock(&dev->mtx);
		now = *counter;
		pthread_mutex_unlock(&dev->mtx);
		if (now >= nr)
			return;
		usleep(1000);
	}
	fail_msg("the device does not do its work");
}

/*
 * --- The driver, by the legacy registers ---
 */

enum {
	LEGACY_PFN = 8,
	LEGACY_NOTIFY = 16,
	LEGACY_STATUS = 18,
	AVAIL = 16 * QSIZE,
	USED = 4096,
};

struct driver {
	struct tclient c;
	int fd, ev;
	uint8_t *mem;
};

static void driver_open(struct driver *d, const struct tsrv *t)
{
	d->fd = tcl_memfd(MEM_BYTES);
	d->mem = mmap(NULL, MEM_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED,
		      d->fd, 0);
	d->ev = eventfd(0, EFD_CLOEXEC);
	tcl_open(&d->c, t);
	assert_int_equal(tcl_map(&d->c, BASE, MEM_BYTES, 0, 3, d->fd), 0);
	assert_int_equal(tcl_set_irqs(&d->c, 0x24, 0, 0, 1, &d->ev, 1), 0);
	for (unsigned status = 0; status < 4; status += 1 + status / 2)
		tcl_write(&d->c, 0, LEGACY_STATUS, 1, status);
	tcl_write(&d->c, 0, LEGACY_PFN, 4, BASE >> 12);
	tcl_write(&d->c, 0, LEGACY_STATUS, 1, 7);
}

static void write_le(uint8_t *p, uint64_t val, unsigned bytes)
{
	val = htole64(val);
	memcpy(p, &val, bytes);
}

static void driver_send(struct driver *d)
{
	for (unsigned i = 0; i < NR_CHAINS; i++) {
		write_le(d->mem + 16 * i, BASE + BUFFERS + i * BUF_BYTES, 8);
		write_le(d->mem + 16 * i + 8, BUF_BYTES, 4);
		write_le(d->mem + 16 * i + 12, 2,
			 2); /* for the device to write */
		write_le(d->mem + AVAIL + 4 + 2 * i, i, 2);
	}
	__atomic_store_n((uint16_t *)(void *)(d->mem + AVAIL + 2),
			 htole16(NR_CHAINS), __ATOMIC_RELEASE);
	tcl_write(&d->c, 0, LEGACY_NOTIFY, 2, 0);
}

static unsigned driver_used(struct driver *d)
{
	return le16toh(__atomic_load_n((uint16_t *)(void *)(d->mem + USED + 2),
				       __ATOMIC_ACQUIRE));
}

static void driver_close(struct driver *d)
{
	tcl_close(&d->c);
	munmap(d->mem, MEM_BYTES);
	close(d->fd);
	close(d->ev);
}

/*
 * --- The tests ---
 */

struct fixture {
	struct tsrv t;
	struct worker_dev dev;
	unsigned nr_fds;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	f->nr_fds = process_nr_fds();
	tsrv_start_on(&f->t, build, &f->dev);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	set_closed(&f->dev, false);
	pthread_mutex_lock(&f->dev.mtx);
	f->dev.end = true;
	pthread_cond_broadcast(&f->dev.cond);
	pthread_mutex_unlock(&f->dev.mtx);
	for (int i = 0; i < NR_THREADS; i++)
		pthread_join(f->dev.threads[i], NULL);
	tsrv_halt(&f->t);
	vi_softc_fini(&f->dev.vs);
	tsrv_stop(&f->t);
	assert_int_equal(tcl_nr_maps(), 0);
	assert_int_equal(process_nr_fds(), f->nr_fds);
	free(f);
	return 0;
}

static void await_used(struct driver *d, unsigned nr)
{
	for (int i = 0; i < TCL_PATIENCE_MS && driver_used(d) < nr; i++)
		usleep(1000);
	assert_int_equal(driver_used(d), nr);
}

static void test_works(void **state)
{
	struct fixture *f = *state;
	struct driver d;

	driver_open(&d, &f->t);
	driver_send(&d);
	await_used(&d, NR_CHAINS);
	assert_true(tcl_events(d.ev, TCL_PATIENCE_MS) > 0);
	for (unsigned i = 0; i < NR_CHAINS * BUF_BYTES; i++)
		assert_int_equal(d.mem[BUFFERS + i], 'w');
	driver_close(&d);
}

/* The client disconnects with requests in flight, and the next has its own. */
static void test_gone_in_flight(void **state)
{
	struct fixture *f = *state;
	unsigned nr = 0;

	for (unsigned round = 0; round < 10; round++) {
		struct driver d;

		set_closed(&f->dev, true);
		driver_open(&d, &f->t);
		driver_send(&d);
		await(&f->dev, &f->dev.nr_begun, nr + NR_THREADS);
		driver_close(&d);
		tsrv_await_detached(&f->t, 2 * round + 1);

		driver_open(&d, &f->t);
		driver_send(&d);
		assert_int_equal(driver_used(&d), 0);
		set_closed(&f->dev, false);
		await_used(&d, NR_CHAINS);
		nr += 2 * NR_CHAINS;
		await(&f->dev, &f->dev.nr_done, nr);
		assert_int_equal(driver_used(&d), NR_CHAINS);
		driver_close(&d);
		tsrv_await_detached(&f->t, 2 * round + 2);
	}
}

/* Memory is unmapped during a request: the answer follows when it has ended. */
static void test_unmapped_in_flight(void **state)
{
	struct fixture *f = *state;
	struct twire_dma_unmap w = { 24, 0, BASE, MEM_BYTES };
	struct driver d;
	struct tmsg m;

	set_closed(&f->dev, true);
	driver_open(&d, &f->t);
	driver_send(&d);
	await(&f->dev, &f->dev.nr_begun, NR_THREADS);
	tcl_write(&d.c, 0, LEGACY_STATUS, 1, 0); /* does not wait */
	tcl_send(&d.c, VFMSG_DMA_UNMAP, 0, &w, sizeof(w), NULL, 0);
	assert_true(tcl_is_silent(d.c.fd, 50));
	assert_int_equal(tcl_read(&d.c, 0, LEGACY_STATUS, 1), 0);
	set_closed(&f->dev, false);
	assert_true(tcl_recv(d.c.fd, &m));
	assert_int_equal(m.hdr.cmd, VFMSG_DMA_UNMAP);
	assert_int_equal(m.hdr.error, 0);
	assert_int_equal(tcl_nr_maps(), 1); /* the driver's */
	driver_close(&d);
}

static uint16_t send_command(struct driver *d, uint16_t command)
{
	struct {
		struct twire_access w;
		uint16_t command;
	} m = { { PCI_COMMAND, VFMSG_REGION_CFG, 2 }, htole16(command) };

	return tcl_send(&d->c, VFMSG_REGION_WRITE, 0, &m,
			sizeof(m.w) + sizeof(m.command), NULL, 0);
}

static void expect_reply(struct driver *d, uint16_t id)
{
	struct tmsg m;

	assert_true(tcl_recv(d->c.fd, &m));
	assert_int_equal(m.hdr.id, id);
	assert_int_equal(m.hdr.error, 0);
}

/*
 * The driver clears Bus Master with requests in flight: the write and what
 * follows it are answered once they have ended. From then on its memory does
 * not change.
 */
static void test_bus_master_in_flight(void **state)
{
	struct twire_access status = { LEGACY_STATUS, 0, 1 };
	struct fixture *f = *state;
	struct driver d;
	uint16_t clear, read;

	set_closed(&f->dev, true);
	driver_open(&d, &f->t);
	driver_send(&d);
	await(&f->dev, &f->dev.nr_begun, NR_THREADS);
	clear = send_command(&d, PCI_COMMAND_IO);
	read = tcl_send(&d.c, VFMSG_REGION_READ, 0, &status, sizeof(status),
			NULL, 0);
	assert_true(tcl_is_silent(d.c.fd, 100));
	set_closed(&f->dev, false);
	expect_reply(&d, clear);
	memset(d.mem + BUFFERS, 0, NR_CHAINS * BUF_BYTES);
	expect_reply(&d, read);
	await(&f->dev, &f->dev.nr_done, NR_CHAINS);
	for (unsigned i = 0; i < NR_CHAINS * BUF_BYTES; i++)
		assert_int_equal(d.mem[BUFFERS + i], 0);
	assert_int_equal(driver_used(&d), 0);
	expect_reply(&d, send_command(&d, PCI_COMMAND_IO | PCI_COMMAND_MASTER));
	await_used(&d, NR_CHAINS);
	driver_close(&d);
}

/* But not much later than two seconds, and only once. */
static void test_bus_master_stalled(void **state)
{
	struct fixture *f = *state;
	uint64_t start = vio_now_ns();
	struct driver d;

	set_closed(&f->dev, true);
	driver_open(&d, &f->t);
	driver_send(&d);
	await(&f->dev, &f->dev.nr_begun, NR_THREADS);
	for (int i = 0; i < 10; i++)
		expect_reply(&d, send_command(&d, PCI_COMMAND_IO));
	assert_true(vio_now_ns() - start > 1900000000ull);
	assert_true(vio_now_ns() - start < 19000000000ull);
	driver_close(&d);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_works),
		TEST(test_gone_in_flight),
		TEST(test_unmapped_in_flight),
		TEST(test_bus_master_in_flight),
		TEST(test_bus_master_stalled),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

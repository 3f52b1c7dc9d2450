/* SPDX-License-Identifier: BSD-2-Clause */
/* What a device author finds beside bhyve's interface. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

#include <cmocka.h>

#include <viodev/virtio.h>

struct dev {
	struct virtio_softc vs;
	struct vqueue_info vq;
	struct pci_devinst pi;
	struct gmem gm;
	unsigned nr_wakes;
};

static struct virtio_consts consts = {
	.vc_name = "author",
	.vc_nvq = 1,
};

static void on_wake(void *arg)
{
	struct dev *dev = arg;

	__atomic_fetch_add(&dev->nr_wakes, 1, __ATOMIC_RELAXED);
}

/* No ph_log: lines go to standard error. */
static const struct pci_host host = { .ph_wake = on_wake };

static void dev_init(struct dev *dev)
{
	memset(dev, 0, sizeof(*dev));
	gm_init(&dev->gm, NULL, NULL);
	pci_func_init(&dev->pi, &host, dev, &dev->gm);
	vi_softc_linkup(&dev->vs, &consts, dev, &dev->pi, &dev->vq);
	dev->vq.vq_qsize = 8;
	vi_pci_init(&dev->pi, VIRTIO_MODE_MODERN, 0, VIRTIO_ID_ENTROPY,
		    PCIC_OTHER);
	assert_true(vi_intr_init(&dev->vs, true));
	assert_true(vi_pcibar_setup(&dev->vs));
}

static void dev_fini(struct dev *dev)
{
	vi_softc_fini(&dev->vs);
	pci_func_fini(&dev->pi);
	gm_fini(&dev->gm);
}

/* What @log wrote to standard error. */
static void log_of(struct dev *dev, void (*log)(struct dev *dev), char *text,
		   size_t room)
{
	FILE *file = tmpfile();
	int old = dup(STDERR_FILENO);
	size_t len;

	assert_non_null(file);
	fflush(stderr);
	dup2(fileno(file), STDERR_FILENO);
	log(dev);
	fflush(stderr);
	dup2(old, STDERR_FILENO);
	close(old);
	rewind(file);
	len = fread(text, 1, room - 1, file);
	text[len] = '\0';
	fclose(file);
}

static void log_some(struct dev *dev)
{
	vs_log(&dev->vs, LOG_NOTICE, "a notice");
	vs_log(&dev->vs, LOG_DEBUG, "detail %d", 42);
}

static void write_status(struct dev *dev)
{
	virtio_pci_capcfg_t *cap =
		vi_pci_cfg_bytype(&dev->vs, VIRTIO_PCI_CAP_COMMON_CFG);

	pci_bar_write(&dev->pi, VIRTIO_MODERN_BAR,
		      cap->c_baroff + VIRTIO_PCI_COMMON_STATUS, 1,
		      VIRTIO_CONFIG_STATUS_ACK);
}

static void test_debug_lines(void **state)
{
	struct dev dev;
	char text[4096];

	dev_init(&dev);
	log_of(&dev, log_some, text, sizeof(text));
	assert_string_equal(text, "author: a notice\n");
	log_of(&dev, write_status, text, sizeof(text));
	assert_string_equal(text, "");

	vi_set_debug(&dev.vs, true);
	log_of(&dev, log_some, text, sizeof(text));
	assert_string_equal(text, "author: a notice\nauthor: detail 42\n");
	log_of(&dev, write_status, text, sizeof(text));
	assert_non_null(strstr(text, "author: status 0x01\n"));

	vi_set_debug(&dev.vs, false);
	log_of(&dev, log_some, text, sizeof(text));
	assert_string_equal(text, "author: a notice\n");
	dev_fini(&dev);
}

static void test_config(void **state)
{
	static const struct {
		int off, size;
		uint32_t val; /* 0: refused */
	} rows[] = {
		{ 0, 1, 0x11 },       { 0, 2, 0x2211 }, { 0, 4, 0x44332211 },
		{ 1, 4, 0x55443322 }, { 4, 1, 0x55 },   { 3, 2, 0x5544 },
		{ 3, 4, 0 },          { 5, 1, 0 },      { -1, 1, 0 },
		{ 0, 0, 0 },          { 0, 8, 0 },      { INT32_MAX, 4, 0 },
	};
	const uint8_t cfg[5] = { 0x11, 0x22, 0x33, 0x44, 0x55 };

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		uint8_t copy[6] = { 0, 0, 0, 0, 0, 0xee };
		uint32_t val = 0;
		int want = rows[i].val ? 0 : -EINVAL;

		assert_int_equal(vi_cfg_read(cfg, sizeof(cfg), rows[i].off,
					     rows[i].size, &val),
				 want);
		assert_int_equal(val, rows[i].val);
		assert_int_equal(vi_cfg_write(copy, sizeof(cfg), rows[i].off,
					      rows[i].size, val),
				 want);
		assert_int_equal(copy[5], 0xee);
		for (int k = 0; k < 5; k++) {
			bool in = want == 0 && k >= rows[i].off &&
				  k < rows[i].off + rows[i].size;

			assert_int_equal(copy[k], in ? cfg[k] : 0);
		}
	}
}

static void *wake_thread(void *arg)
{
	struct dev *dev = arg;

	vi_wake(&dev->vs);
	return NULL;
}

static void test_wake(void **state)
{
	pthread_t thread;
	struct dev dev;
	unsigned before;

	dev_init(&dev);
	before = dev.nr_wakes;
	vi_wake(&dev.vs);
	assert_int_equal(dev.nr_wakes, before + 1);
	pthread_create(&thread, NULL, wake_thread, &dev);
	pthread_join(thread, NULL);
	assert_int_equal(dev.nr_wakes, before + 2);
	dev_fini(&dev);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_debug_lines),
		cmocka_unit_test(test_config),
		cmocka_unit_test(test_wake),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

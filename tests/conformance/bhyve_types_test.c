/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a model in bhyve's style takes from its system's headers is in
 * <viodev/bhyve.h>, with the values that it has there. Most of the test is
 * that this file compiles.
 */
#include <viodev/bhyve.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#define IS(name, value) _Static_assert((name) == (value), #name)
#define AT(field, off)                                                         \
	_Static_assert(offsetof(struct virtio_pci_common_cfg, field) == (off), \
		       #field)

/* Masks, and wide enough for the 64-bit ones. */
IS(VIRTIO_RING_F_INDIRECT_DESC | VIRTIO_RING_F_EVENT_IDX, 0x30000000);
IS(VIRTIO_F_NOTIFY_ON_EMPTY | VIRTIO_F_ANY_LAYOUT, 0x09000000);
IS(VIRTIO_F_BAD_FEATURE, 0x40000000);
IS(VIRTIO_F_VERSION_1, 0x100000000);
IS(VIRTIO_F_ACCESS_PLATFORM | VIRTIO_F_IOMMU_PLATFORM, 0x200000000);
IS(VIRTIO_F_RING_PACKED | VIRTIO_F_IN_ORDER, 0xc00000000);
IS(VIRTIO_F_ORDER_PLATFORM | VIRTIO_F_SR_IOV, 0x3000000000);
IS(VIRTIO_F_NOTIFICATION_DATA | VIRTIO_F_RING_RESET, 0x14000000000);
IS(VI_RING_CAPS_MODERN, 0x10030000000);
IS(VI_RING_CAPS_LEGACY, 0x39000000);

/* The legacy registers. */
IS(VTCFG_R_HOSTCAP, 0);
IS(VTCFG_R_GUESTCAP, 4);
IS(VTCFG_R_PFN, 8);
IS(VTCFG_R_QNUM, 12);
IS(VTCFG_R_QSEL, 14);
IS(VTCFG_R_QNOTIFY, 16);
IS(VTCFG_R_STATUS, 18);
IS(VTCFG_R_ISR, 19);
IS(VTCFG_R_CFGVEC, 20);
IS(VTCFG_R_QVEC, 22);
IS(VTCFG_R_CFG0, 20);
IS(VTCFG_R_CFG1, 24);
IS(VTCFG_R_MSIX, 20);
IS(VTCFG_STATUS_ACK, 0x01);
IS(VTCFG_STATUS_DRIVER, 0x02);
IS(VTCFG_STATUS_DRIVER_OK, 0x04);
IS(VTCFG_STATUS_FEAT_OK, 0x08);
IS(VTCFG_STATUS_NEEDS_RST, 0x40);
IS(VTCFG_STATUS_FAILED, 0x80);
IS(VTCFG_ISR_QUEUES, 0x01);
IS(VTCFG_ISR_CONF_CHANGED, 0x02);

IS(VIRTIO_ID_NETWORK, 1);
IS(VIRTIO_ID_BLOCK, 2);
IS(VIRTIO_ID_CONSOLE, 3);
IS(VIRTIO_ID_ENTROPY, 4);
IS(VIRTIO_ID_SCSI, 8);
IS(VIRTIO_ID_9P, 9);
IS(VIRTIO_ID_INPUT, 18);

/* The modern ones, and the capabilities that point at them. */
AT(device_feature_select, 0);
AT(device_feature, 4);
AT(guest_feature_select, 8);
AT(guest_feature, 12);
AT(msix_config, 16);
AT(num_queues, 18);
AT(device_status, 20);
AT(config_generation, 21);
AT(queue_select, 22);
AT(queue_size, 24);
AT(queue_msix_vector, 26);
AT(queue_enable, 28);
AT(queue_notify_off, 30);
AT(queue_desc_lo, 32);
AT(queue_desc_hi, 36);
AT(queue_avail_lo, 40);
AT(queue_avail_hi, 44);
AT(queue_used_lo, 48);
AT(queue_used_hi, 52);
_Static_assert(sizeof(struct virtio_pci_cap) == 16, "4.1.4");
_Static_assert(offsetof(struct virtio_pci_notify_cap, notify_off_multiplier) ==
		       16,
	       "4.1.4.4");
_Static_assert(offsetof(struct virtio_pci_cfg_cap, pci_cfg_data) == 16,
	       "4.1.4.9");
IS(VIRTIO_PCI_CAP_COMMON_CFG, 1);
IS(VIRTIO_PCI_CAP_NOTIFY_CFG, 2);
IS(VIRTIO_PCI_CAP_ISR_CFG, 3);
IS(VIRTIO_PCI_CAP_DEVICE_CFG, 4);
IS(VIRTIO_PCI_CAP_PCI_CFG, 5);
_Static_assert(VIRTIO_PCI_CAP_MAX >= 5, "indices of vs_caps");

/* The ring. */
_Static_assert(sizeof(struct vring_desc) == 16, "2.7.5");
_Static_assert(sizeof(struct vring_used_elem) == 8, "2.7.8");
IS(VRING_DESC_F_NEXT | VRING_DESC_F_WRITE | VRING_DESC_F_INDIRECT, 7);

static void __VPRINTFLIKE(2) say(char *buf, const char *fmt, va_list ap)
{
	vsprintf(buf, fmt, ap);
}

static void __PRINTFLIKE(2) sayf(char *buf, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	say(buf, fmt, ap);
	va_end(ap);
}

static int __SCANFLIKE(2) scanf_like(const char *text, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsscanf(text, fmt, ap);
	va_end(ap);
	return n;
}

static void test_compiler(void **state)
{
	char buf[16];
	int n = 0;

	sayf(buf, "%d", 42);
	assert_int_equal(scanf_like(buf, "%d", &n), 1);
	assert_int_equal(n, 42);
}

/* 2.7.2: both parts of the ring end with their page. */
static void test_vring_size(void **state)
{
	assert_int_equal(vring_size(8, LEGACY_VRING_ALIGN), 4096 + 6 + 8 * 8);
	assert_int_equal(vring_size(256, LEGACY_VRING_ALIGN),
			 2 * 4096 + 6 + 256 * 8);
	assert_true(vring_need_event(3, 4, 3));
	assert_false(vring_need_event(4, 4, 3));
}

static void test_atomics(void **state)
{
	uint8_t a8 = 1;
	uint16_t a16 = 2;
	uint32_t a32 = 3;
	uint64_t a64 = 4;

	atomic_thread_fence_acq();
	atomic_thread_fence_rel();
	atomic_thread_fence_acq_rel();
	atomic_thread_fence_seq_cst();
	atomic_store_8(&a8, 0xff);
	atomic_store_16(&a16, 0xffff);
	atomic_store_rel_32(&a32, UINT32_MAX);
	atomic_store_rel_64(&a64, UINT64_MAX);
	assert_int_equal(atomic_load_8(&a8), 0xff);
	assert_int_equal(atomic_load_16(&a16), 0xffff);
	assert_int_equal(atomic_load_acq_32(&a32), UINT32_MAX);
	assert_true(atomic_load_acq_64(&a64) == UINT64_MAX);
}

static void *owned_elsewhere(void *mtx)
{
	return pthread_mutex_isowned_np(mtx) ? mtx : NULL;
}

static void test_threads(void **state)
{
	pthread_mutex_t mtx = PTHREAD_MUTEX_INITIALIZER;
	pthread_t thread;
	void *owned;
	char name[16];

	pthread_mutex_lock(&mtx);
	assert_true(pthread_mutex_isowned_np(&mtx));
	pthread_create(&thread, NULL, owned_elsewhere, &mtx);
	pthread_join(thread, &owned);
	assert_null(owned);
	pthread_mutex_unlock(&mtx);
	assert_false(pthread_mutex_isowned_np(&mtx));

	pthread_set_name_np(pthread_self(), "longer than Linux stores");
	pthread_getname_np(pthread_self(), name, sizeof(name));
	assert_string_equal(name, "longer than Lin");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_compiler),
		cmocka_unit_test(test_vring_size),
		cmocka_unit_test(test_atomics),
		cmocka_unit_test(test_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * <viodev/virtio.h> for device models written for bhyve.
 *
 * Such a model takes names from <dev/virtio/virtio.h>, <machine/atomic.h>,
 * <pthread_np.h> and <sys/ccompile.h>. This header has them, and replaces all
 * four and bhyve's virtio.h.
 *
 * One thing differs from <viodev/virtio.h>: VIRTIO_F_* and VIRTIO_RING_F_* are
 * *masks*, as they are there, and not Linux's bit numbers. Do not apply
 * VI_BIT() to them, and do not include this header in a file that wants the
 * numbers. The feature bits of device types, in <linux/virtio_net.h> and the
 * like, stay bit numbers.
 *
 * `__unused` is not here, because Linux's headers have members of that name.
 *
 * docs/bhyve-interface.md lists where the framework differs from bhyve's.
 */
#ifndef VIODEV_BHYVE_H
#define VIODEV_BHYVE_H

#include <sys/syscall.h>

#include <viodev/virtio.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * --- <dev/virtio/virtio.h> ---
 *
 * Ring layout, vring_size(), virtio_pci_common_cfg and the other capability
 * structures are Linux's, whose members have the same names.
 */

#undef VIRTIO_F_NOTIFY_ON_EMPTY
#undef VIRTIO_F_ANY_LAYOUT
#undef VIRTIO_RING_F_INDIRECT_DESC
#undef VIRTIO_RING_F_EVENT_IDX
#undef VIRTIO_F_VERSION_1
#undef VIRTIO_F_ACCESS_PLATFORM
#undef VIRTIO_F_IOMMU_PLATFORM
#undef VIRTIO_F_RING_PACKED
#undef VIRTIO_F_IN_ORDER
#undef VIRTIO_F_ORDER_PLATFORM
#undef VIRTIO_F_SR_IOV
#undef VIRTIO_F_NOTIFICATION_DATA
#undef VIRTIO_F_RING_RESET

#define VIRTIO_F_NOTIFY_ON_EMPTY    (1ULL << 24)
#define VIRTIO_F_ANY_LAYOUT         (1ULL << 27)
#define VIRTIO_RING_F_INDIRECT_DESC (1ULL << 28)
#define VIRTIO_RING_F_EVENT_IDX     (1ULL << 29)
#define VIRTIO_F_BAD_FEATURE        (1ULL << 30)
#define VIRTIO_F_VERSION_1          (1ULL << 32)
#define VIRTIO_F_ACCESS_PLATFORM    (1ULL << 33)
#define VIRTIO_F_IOMMU_PLATFORM     VIRTIO_F_ACCESS_PLATFORM
#define VIRTIO_F_RING_PACKED        (1ULL << 34)
#define VIRTIO_F_IN_ORDER           (1ULL << 35)
#define VIRTIO_F_ORDER_PLATFORM     (1ULL << 36)
#define VIRTIO_F_SR_IOV             (1ULL << 37)
#define VIRTIO_F_NOTIFICATION_DATA  (1ULL << 38)
#define VIRTIO_F_RING_RESET         (1ULL << 40)

#undef VI_RING_CAPS_MODERN
#undef VI_RING_CAPS_LEGACY
#define VI_RING_CAPS_MODERN                                      \
	(VIRTIO_RING_F_INDIRECT_DESC | VIRTIO_RING_F_EVENT_IDX | \
	 VIRTIO_F_RING_RESET)
#define VI_RING_CAPS_LEGACY                                      \
	(VIRTIO_RING_F_INDIRECT_DESC | VIRTIO_RING_F_EVENT_IDX | \
	 VIRTIO_F_ANY_LAYOUT | VIRTIO_F_NOTIFY_ON_EMPTY)

#define VIRTIO_ID_NETWORK VIRTIO_ID_NET

/* Registers of the legacy interface (4.1.4.8), without and with MSI-X. */
#define VTCFG_R_HOSTCAP  VIRTIO_PCI_HOST_FEATURES
#define VTCFG_R_GUESTCAP VIRTIO_PCI_GUEST_FEATURES
#define VTCFG_R_PFN      VIRTIO_PCI_QUEUE_PFN
#define VTCFG_R_QNUM     VIRTIO_PCI_QUEUE_NUM
#define VTCFG_R_QSEL     VIRTIO_PCI_QUEUE_SEL
#define VTCFG_R_QNOTIFY  VIRTIO_PCI_QUEUE_NOTIFY
#define VTCFG_R_STATUS   VIRTIO_PCI_STATUS
#define VTCFG_R_ISR      VIRTIO_PCI_ISR
#define VTCFG_R_CFGVEC   VIRTIO_MSI_CONFIG_VECTOR
#define VTCFG_R_QVEC     VIRTIO_MSI_QUEUE_VECTOR
#define VTCFG_R_CFG0     VIRTIO_PCI_CONFIG_OFF(0)
#define VTCFG_R_CFG1     VIRTIO_PCI_CONFIG_OFF(1)
#define VTCFG_R_MSIX     VTCFG_R_CFGVEC

#define VTCFG_STATUS_ACK       VIRTIO_CONFIG_STATUS_ACK
#define VTCFG_STATUS_DRIVER    VIRTIO_CONFIG_STATUS_DRIVER
#define VTCFG_STATUS_DRIVER_OK VIRTIO_CONFIG_STATUS_DRIVER_OK
#define VTCFG_STATUS_FEAT_OK   VIRTIO_CONFIG_STATUS_FEATURES_OK
#define VTCFG_STATUS_NEEDS_RST VIRTIO_CONFIG_STATUS_NEEDS_RESET
#define VTCFG_STATUS_FAILED    VIRTIO_CONFIG_STATUS_FAILED

#define VTCFG_ISR_QUEUES       VIRTIO_PCI_ISR_INTR
#define VTCFG_ISR_CONF_CHANGED VIRTIO_PCI_ISR_CONFIG

/*
 * --- <sys/ccompile.h>; __PRINTFLIKE is in <viodev/virtio_core.h> ---
 */

#ifndef __VPRINTFLIKE
#define __VPRINTFLIKE(fmtarg) __attribute__((format(printf, fmtarg, 0)))
#endif
#ifndef __SCANFLIKE
#define __SCANFLIKE(fmtarg) __attribute__((format(scanf, fmtarg, (fmtarg) + 1)))
#endif
#ifndef __NORETURN
#define __NORETURN __attribute__((noreturn))
#endif

/*
 * --- <machine/atomic.h> ---
 */

#define atomic_thread_fence_acq()     __atomic_thread_fence(__ATOMIC_ACQUIRE)
#define atomic_thread_fence_rel()     __atomic_thread_fence(__ATOMIC_RELEASE)
#define atomic_thread_fence_acq_rel() __atomic_thread_fence(__ATOMIC_ACQ_REL)
#define atomic_thread_fence_seq_cst() __atomic_thread_fence(__ATOMIC_SEQ_CST)

#define VI_BHYVE_ATOMICS(bits, type)                                         \
	static inline type atomic_load_##bits(const volatile type *p)        \
	{                                                                    \
		return __atomic_load_n(p, __ATOMIC_RELAXED);                 \
	}                                                                    \
	static inline type atomic_load_acq_##bits(const volatile type *p)    \
	{                                                                    \
		return __atomic_load_n(p, __ATOMIC_ACQUIRE);                 \
	}                                                                    \
	static inline void atomic_store_##bits(volatile type *p, type v)     \
	{                                                                    \
		__atomic_store_n(p, v, __ATOMIC_RELAXED);                    \
	}                                                                    \
	static inline void atomic_store_rel_##bits(volatile type *p, type v) \
	{                                                                    \
		__atomic_store_n(p, v, __ATOMIC_RELEASE);                    \
	}

VI_BHYVE_ATOMICS(8, uint8_t)
VI_BHYVE_ATOMICS(16, uint16_t)
VI_BHYVE_ATOMICS(32, uint32_t)
VI_BHYVE_ATOMICS(64, uint64_t)
#undef VI_BHYVE_ATOMICS

/*
 * --- <pthread_np.h> ---
 */

/* Linux stores 15 bytes of a name and rejects longer ones. */
static inline void pthread_set_name_np(pthread_t thread, const char *name)
{
	int pthread_setname_np(pthread_t, const char *); /* by -std=gnu17 */
	char text[16] = { 0 };

	for (unsigned i = 0; i < sizeof(text) - 1 && name[i]; i++)
		text[i] = name[i];
	pthread_setname_np(thread, text);
}

/*
 * Whether the calling thread holds @mtx, for assertions. Always true where the
 * C library does not record the owner.
 */
static inline int pthread_mutex_isowned_np(pthread_mutex_t *mtx)
{
#ifdef __GLIBC__
	long syscall(long number, ...); /* hidden by -std=c17 */

	return mtx->__data.__owner == (int)syscall(SYS_gettid);
#else
	return mtx != 0;
#endif
}

#ifdef __cplusplus
}
#endif

#endif

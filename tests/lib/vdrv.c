/* SPDX-License-Identifier: BSD-2-Clause */
#include "vdrv_impl.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "base/le.h"

/* Configuration space, PCI 7.5.1; the legacy registers, 4.1.4.10. */
enum {
	CFG_COMMAND = 0x04,
	CFG_STATUS = 0x06,
	CFG_CAP_PTR = 0x34,
	STATUS_HAS_CAPS = 0x10,
	COMMAND_ALL = 0x07, /* I/O, memory, bus master */

	CAP_ID_MSI = 0x05,
	CAP_ID_VENDOR = 0x09,
	CAP_ID_MSIX = 0x11,
	MSIX_ENABLE = 0x8000,
	MSIX_MASK_ALL = 0x4000,

	LEGACY_HDR = 20, /* device configuration, MSI-X off */
	LEGACY_HDR_MSIX = 24,
	LEGACY_ALIGN = 4096,

	RESET_SECONDS = 60, /* for a reset to end, on a slow machine */
};

#define GUARD_BYTES (64u << 10)
#define PAGE        4096u

void vdrv_die(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fputs("vdrv: ", stderr);
	vfprintf(stderr, fmt, ap);
	fputc('\n', stderr);
	va_end(ap);
	abort();
}

/*
 * --- The embedder's side ---
 */

static void vdrv_on_msix(void *arg, unsigned vector, uint64_t addr,
			 uint32_t data)
{
	struct vdrv *d = arg;

	if (vector >= VDRV_MAX_MSIX)
		vdrv_die("MSI-X vector %u", vector);
	__atomic_store_n(&d->msix_addr, addr, __ATOMIC_RELAXED);
	__atomic_store_n(&d->msix_data, data, __ATOMIC_RELAXED);
	__atomic_fetch_add(&d->nr_msix[vector], 1, __ATOMIC_RELEASE);
}

static void vdrv_on_msi(void *arg, uint64_t addr, uint32_t data)
{
	struct vdrv *d = arg;

	__atomic_fetch_add(&d->nr_msi, 1, __ATOMIC_RELEASE);
}

static void vdrv_on_intx(void *arg, bool level)
{
	struct vdrv *d = arg;
	bool was = __atomic_exchange_n(&d->intx, level, __ATOMIC_ACQ_REL);

	if (level && !was)
		__atomic_fetch_add(&d->nr_intx, 1, __ATOMIC_RELEASE);
}

static void vdrv_on_log(void *arg, int level, const char *msg)
{
	struct vdrv *d = arg;

	d->nr_log++;
	snprintf(d->last_log, sizeof(d->last_log), "%s", msg);
}

static void vdrv_on_wake(void *arg)
{
	struct vdrv *d = arg;

	__atomic_store_n(&d->woken, true, __ATOMIC_RELEASE);
}

static void vdrv_protect(struct vdrv *d, uint64_t gpa, uint64_t len, int prot)
{
	if (mprotect(d->mem + (gpa - VDRV_MEM_BASE), len, prot))
		vdrv_die("mprotect");
}

static void vdrv_protect_region(struct vdrv *d, const struct gm_region *r,
				int prot)
{
	uint64_t base = r->base.v / PAGE * PAGE;
	uint64_t end = (r->base.v + r->len + PAGE - 1) / PAGE * PAGE;

	vdrv_protect(d, base, end - base, prot);
}

/* Memory that the device promised not to use any more becomes inaccessible. */
static void vdrv_region_removed(void *arg, const struct gm_region *r)
{
	struct vdrv *d = arg;

	if (d->apart)
		vdrv_protect_region(d, r, PROT_NONE);
}

void vdrv_wake(struct vdrv *d)
{
	if (!__atomic_exchange_n(&d->woken, false, __ATOMIC_ACQ_REL))
		return;
	gm_reap(&d->gm, vdrv_region_removed, d);
	pci_kick(&d->pi);
}

static const struct pci_host vdrv_host = {
	.ph_wake = vdrv_on_wake,
	.ph_msix = vdrv_on_msix,
	.ph_msi = vdrv_on_msi,
	.ph_intx = vdrv_on_intx,
	.ph_log = vdrv_on_log,
};

void vdrv_init(struct vdrv *d, enum vdrv_mode mode)
{
	size_t len = VDRV_MEM_BYTES + 2 * GUARD_BYTES;
	uint8_t *p;

	memset(d, 0, sizeof(*d));
	d->mode = mode;
	p = mmap(NULL, len, PROT_NONE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED ||
	    mprotect(p + GUARD_BYTES, VDRV_MEM_BYTES, PROT_READ | PROT_WRITE))
		vdrv_die("no memory");
	d->mem = p + GUARD_BYTES;
	d->next_free = VDRV_MEM_BASE;

	gm_init(&d->gm, NULL, NULL);
	if (gm_add(&d->gm, (gpa_t){ VDRV_MEM_BASE }, VDRV_MEM_BYTES, d->mem,
		   GM_READ | GM_WRITE))
		vdrv_die("gm_add");
	pci_func_init(&d->pi, &vdrv_host, d, &d->gm);
}

static void vdrv_forget_queues(struct vdrv *d)
{
	for (unsigned i = 0; i < VDRV_MAX_Q; i++)
		free(d->q[i].slots);
	memset(d->q, 0, sizeof(d->q));
}

void vdrv_fini(struct vdrv *d)
{
	vdrv_forget_queues(d);
	pci_func_fini(&d->pi);
	gm_fini(&d->gm);
	munmap(d->mem - GUARD_BYTES, VDRV_MEM_BYTES + 2 * GUARD_BYTES);
	if (d->apart)
		munmap(d->view, VDRV_MEM_BYTES);
}

/*
 * --- Guest memory ---
 */

void vdrv_apart(struct vdrv *d)
{
	int fd = memfd_create("guest", MFD_CLOEXEC);

	if (fd < 0 || ftruncate(fd, VDRV_MEM_BYTES) < 0 ||
	    mmap(d->mem, VDRV_MEM_BYTES, PROT_NONE, MAP_SHARED | MAP_FIXED, fd,
		 0) == MAP_FAILED)
		vdrv_die("no memory");
	d->view = mmap(NULL, VDRV_MEM_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED,
		       fd, 0);
	if (d->view == MAP_FAILED)
		vdrv_die("no memory");
	close(fd);
	d->apart = true;
	gm_remove(&d->gm, (gpa_t){ VDRV_MEM_BASE }, VDRV_MEM_BYTES, NULL, NULL);
}

void vdrv_remove(struct vdrv *d, uint64_t gpa, uint64_t len)
{
	gm_remove(&d->gm, (gpa_t){ gpa }, len, vdrv_region_removed, d);
}

void vdrv_restore(struct vdrv *d, uint64_t gpa, uint64_t len, bool mapped)
{
	void *host = mapped ? d->mem + (gpa - VDRV_MEM_BASE) : NULL;
	const struct gm_region r = { .base = { gpa }, .len = len };

	if (mapped)
		vdrv_protect_region(d, &r, PROT_READ | PROT_WRITE);
	if (gm_add(&d->gm, r.base, len, host, GM_READ | GM_WRITE))
		vdrv_die("gm_add");
}

void vdrv_forbid(struct vdrv *d)
{
	vdrv_protect(d, VDRV_MEM_BASE, VDRV_MEM_BYTES, PROT_NONE);
}

void vdrv_permit(struct vdrv *d)
{
	for (unsigned i = 0; i < d->gm.nr_regions; i++) {
		if (d->gm.regions[i].host)
			vdrv_protect_region(d, &d->gm.regions[i],
					    PROT_READ | PROT_WRITE);
	}
	for (unsigned i = 0; i < d->gm.nr_limbo; i++) {
		if (d->gm.limbo[i].host)
			vdrv_protect_region(d, &d->gm.limbo[i],
					    PROT_READ | PROT_WRITE);
	}
}

/* Whether the first region from @start on is exactly this one. */
static bool vdrv_piece_is(struct vdrv *d, uint64_t start, uint64_t a,
			  uint64_t len)
{
	for (unsigned i = 0; i < d->gm.nr_regions; i++) {
		const struct gm_region *r = &d->gm.regions[i];

		if (r->base.v >= start)
			return r->base.v == a && r->len == len;
	}
	return false;
}

/*
 * A caller that sets next_free back mostly allocates the same again. Otherwise
 * whatever was allocated from there on is dropped.
 */
static uint64_t vdrv_alloc_apart(struct vdrv *d, uint64_t len, uint64_t align)
{
	const uint64_t top = VDRV_MEM_BASE + (uint64_t)VDRV_MEM_BYTES;
	uint64_t base = (d->next_free + 2 * PAGE - 1) / PAGE * PAGE;
	uint64_t span = (len + PAGE - 1) / PAGE * PAGE;
	uint64_t a = (base + span - len) / align * align;

	if (align > PAGE || base + span + PAGE > top)
		vdrv_die("guest memory is full");
	d->next_free = base + span;
	if (vdrv_piece_is(d, base, a, len))
		return a;
	gm_remove(&d->gm, (gpa_t){ base }, top - base, NULL, NULL);
	vdrv_protect(d, base, top - base, PROT_NONE);
	vdrv_protect(d, base, span, PROT_READ | PROT_WRITE);
	if (gm_add(&d->gm, (gpa_t){ a }, len, d->mem + (a - VDRV_MEM_BASE),
		   GM_READ | GM_WRITE))
		vdrv_die("gm_add");
	return a;
}

uint64_t vdrv_alloc(struct vdrv *d, uint64_t len, uint64_t align)
{
	uint64_t a = (d->next_free + align - 1) / align * align;

	if (d->apart)
		return vdrv_alloc_apart(d, len, align);
	if (a + len > VDRV_MEM_BASE + (uint64_t)VDRV_MEM_BYTES)
		vdrv_die("guest memory is full");
	d->next_free = a + len;
	return a;
}

/* For tests that use memory again, by setting next_free back. */
static uint64_t vdrv_alloc_zeroed(struct vdrv *d, uint64_t len, uint64_t align)
{
	uint64_t a = vdrv_alloc(d, len, align);

	memset(vdrv_ptr(d, a, len), 0, len);
	return a;
}

void *vdrv_ptr(struct vdrv *d, uint64_t gpa, uint64_t len)
{
	uint64_t off = gpa - VDRV_MEM_BASE;

	if (off > VDRV_MEM_BYTES || len > VDRV_MEM_BYTES - off)
		vdrv_die("no guest memory at %#llx+%#llx",
			 (unsigned long long)gpa, (unsigned long long)len);
	return (d->apart ? d->view : d->mem) + off;
}

/*
 * --- Capabilities ---
 */

static void vdrv_probe_virtio(struct vdrv *d, unsigned cap)
{
	struct pci_devinst *pi = &d->pi;
	int bar = (int)pci_cfg_read(pi, cap + VIRTIO_PCI_CAP_BAR, 1);
	uint32_t off = pci_cfg_read(pi, cap + VIRTIO_PCI_CAP_OFFSET, 4);
	uint32_t len = pci_cfg_read(pi, cap + VIRTIO_PCI_CAP_LENGTH, 4);

	switch (pci_cfg_read(pi, cap + VIRTIO_PCI_CAP_CFG_TYPE, 1)) {
	case VIRTIO_PCI_CAP_COMMON_CFG:
		d->common_bar = bar;
		d->common_off = off;
		break;
	case VIRTIO_PCI_CAP_NOTIFY_CFG:
		d->notify_bar = bar;
		d->notify_off = off;
		d->notify_len = len;
		d->notify_mult =
			pci_cfg_read(pi, cap + VIRTIO_PCI_NOTIFY_CAP_MULT, 4);
		break;
	case VIRTIO_PCI_CAP_ISR_CFG:
		d->isr_bar = bar;
		d->isr_off = off;
		break;
	case VIRTIO_PCI_CAP_DEVICE_CFG:
		d->device_bar = bar;
		d->device_off = off;
		d->device_len = len;
		break;
	case VIRTIO_PCI_CAP_PCI_CFG:
		d->pcicfg_cap = (uint8_t)cap;
		break;
	}
}

static void vdrv_probe_msix(struct vdrv *d, unsigned cap)
{
	uint32_t table = pci_cfg_read(&d->pi, cap + 4, 4);
	uint32_t pba = pci_cfg_read(&d->pi, cap + 8, 4);

	d->msix_cap = (uint8_t)cap;
	d->nr_vectors = (pci_cfg_read(&d->pi, cap + 2, 2) & 0x7ff) + 1;
	d->msix_bar = (int)(table & 7);
	d->msix_off = table & ~7u;
	d->pba_off = pba & ~7u;
}

void vdrv_probe(struct vdrv *d)
{
	struct pci_devinst *pi = &d->pi;
	unsigned cap = 0, hops = 0;

	pci_cfg_write(pi, CFG_COMMAND, 2,
		      pci_cfg_read(pi, CFG_COMMAND, 2) | COMMAND_ALL);
	if (pci_cfg_read(pi, CFG_STATUS, 2) & STATUS_HAS_CAPS)
		cap = pci_cfg_read(pi, CFG_CAP_PTR, 1) & ~3u;
	for (; cap; cap = pci_cfg_read(pi, cap + 1, 1) & ~3u) {
		if (++hops > PCI_CFG_SIZE / 4)
			vdrv_die("capability list loops");
		switch (pci_cfg_read(pi, cap, 1)) {
		case CAP_ID_VENDOR:
			vdrv_probe_virtio(d, cap);
			break;
		case CAP_ID_MSIX:
			vdrv_probe_msix(d, cap);
			break;
		case CAP_ID_MSI:
			d->msi_cap = (uint8_t)cap;
			break;
		}
	}
}

/*
 * --- Registers ---
 */

uint32_t vdrv_common_read(struct vdrv *d, unsigned off, int size)
{
	return (uint32_t)pci_bar_read(&d->pi, d->common_bar,
				      d->common_off + off, size);
}

void vdrv_common_write(struct vdrv *d, unsigned off, int size, uint32_t val)
{
	pci_bar_write(&d->pi, d->common_bar, d->common_off + off, size, val);
}

uint32_t vdrv_legacy_read(struct vdrv *d, unsigned off, int size)
{
	return (uint32_t)pci_bar_read(&d->pi, VIRTIO_LEGACY_BAR, off, size);
}

void vdrv_legacy_write(struct vdrv *d, unsigned off, int size, uint32_t val)
{
	pci_bar_write(&d->pi, VIRTIO_LEGACY_BAR, off, size, val);
}

uint8_t vdrv_status(struct vdrv *d)
{
	if (d->mode == VDRV_LEGACY)
		return (uint8_t)vdrv_legacy_read(d, VIRTIO_PCI_STATUS, 1);
	return (uint8_t)vdrv_common_read(d, VIRTIO_PCI_COMMON_STATUS, 1);
}

void vdrv_set_status(struct vdrv *d, uint8_t status)
{
	if (d->mode == VDRV_LEGACY)
		vdrv_legacy_write(d, VIRTIO_PCI_STATUS, 1, status);
	else
		vdrv_common_write(d, VIRTIO_PCI_COMMON_STATUS, 1, status);
}

uint8_t vdrv_isr(struct vdrv *d)
{
	if (d->mode == VDRV_LEGACY)
		return (uint8_t)vdrv_legacy_read(d, VIRTIO_PCI_ISR, 1);
	return (uint8_t)pci_bar_read(&d->pi, d->isr_bar, d->isr_off, 1);
}

uint64_t vdrv_offer(struct vdrv *d)
{
	uint64_t lo, hi;

	if (d->mode == VDRV_LEGACY)
		return vdrv_legacy_read(d, VIRTIO_PCI_HOST_FEATURES, 4);
	vdrv_common_write(d, VIRTIO_PCI_COMMON_DFSELECT, 4, 0);
	lo = vdrv_common_read(d, VIRTIO_PCI_COMMON_DF, 4);
	vdrv_common_write(d, VIRTIO_PCI_COMMON_DFSELECT, 4, 1);
	hi = vdrv_common_read(d, VIRTIO_PCI_COMMON_DF, 4);
	return lo | hi << 32;
}

/* The two modes' places of the device configuration. */
static uint64_t vdrv_cfg_place(struct vdrv *d, int *ret_bar)
{
	if (d->mode == VDRV_LEGACY) {
		*ret_bar = VIRTIO_LEGACY_BAR;
		return d->msix ? LEGACY_HDR_MSIX : LEGACY_HDR;
	}
	*ret_bar = d->device_bar;
	return d->device_off;
}

uint32_t vdrv_cfg_read(struct vdrv *d, unsigned off, int size)
{
	int bar;
	uint64_t base = vdrv_cfg_place(d, &bar);

	return (uint32_t)pci_bar_read(&d->pi, bar, base + off, size);
}

void vdrv_cfg_write(struct vdrv *d, unsigned off, int size, uint32_t val)
{
	int bar;
	uint64_t base = vdrv_cfg_place(d, &bar);

	pci_bar_write(&d->pi, bar, base + off, size, val);
}

/*
 * --- MSI-X ---
 */

static void vdrv_msix_ctl(struct vdrv *d, uint16_t bit, bool on)
{
	uint32_t ctl = pci_cfg_read(&d->pi, d->msix_cap + 2u, 2);

	ctl = on ? ctl | bit : ctl & ~(uint32_t)bit;
	pci_cfg_write(&d->pi, d->msix_cap + 2u, 2, ctl);
}

void vdrv_msix_mask(struct vdrv *d, unsigned vector, bool masked)
{
	pci_bar_write(&d->pi, d->msix_bar, d->msix_off + vector * 16 + 12, 4,
		      masked);
}

void vdrv_msix_mask_all(struct vdrv *d, bool masked)
{
	vdrv_msix_ctl(d, MSIX_MASK_ALL, masked);
}

bool vdrv_msix_pending(struct vdrv *d, unsigned vector)
{
	uint64_t word = pci_bar_read(&d->pi, d->msix_bar,
				     d->pba_off + vector / 64 * 8, 8);

	return word >> vector % 64 & 1;
}

void vdrv_msix_enable(struct vdrv *d, bool on)
{
	if (!d->msix_cap)
		return;
	for (unsigned v = 0; on && v < d->nr_vectors; v++) {
		uint64_t off = d->msix_off + v * 16;

		pci_bar_write(&d->pi, d->msix_bar, off, 4, VDRV_MSIX_ADDR(v));
		pci_bar_write(&d->pi, d->msix_bar, off + 4, 4, 0);
		pci_bar_write(&d->pi, d->msix_bar, off + 8, 4,
			      VDRV_MSIX_DATA(v));
		vdrv_msix_mask(d, v, false);
	}
	vdrv_msix_ctl(d, MSIX_ENABLE, on);
	d->msix = on;
}

/*
 * --- Initialization, 3.1.1 ---
 */

void vdrv_reset_now(struct vdrv *d)
{
	vdrv_set_status(d, 0);
	vdrv_forget_queues(d);
	d->features = 0;
}

void vdrv_reset(struct vdrv *d)
{
	time_t start = time(NULL);

	vdrv_reset_now(d);
	while (vdrv_status(d) != 0) {
		if (time(NULL) - start > RESET_SECONDS)
			vdrv_die("reset does not end");
		if (d->idle)
			d->idle(d->idle_arg);
		vdrv_wake(d);
	}
}

void vdrv_greet(struct vdrv *d)
{
	vdrv_set_status(d, VIRTIO_CONFIG_S_ACKNOWLEDGE);
	vdrv_set_status(d,
			VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
	vdrv_msix_enable(d, !d->no_msix);
	if (!d->msix)
		return;
	if (d->mode == VDRV_LEGACY)
		vdrv_legacy_write(d, VIRTIO_MSI_CONFIG_VECTOR, 2, 0);
	else
		vdrv_common_write(d, VIRTIO_PCI_COMMON_MSIX, 2, 0);
}

bool vdrv_negotiate(struct vdrv *d, uint64_t features)
{
	uint8_t status = vdrv_status(d) | VIRTIO_CONFIG_S_FEATURES_OK;

	d->features = features;
	if (d->mode == VDRV_LEGACY) {
		vdrv_legacy_write(d, VIRTIO_PCI_GUEST_FEATURES, 4,
				  (uint32_t)features);
		return true;
	}
	vdrv_common_write(d, VIRTIO_PCI_COMMON_GFSELECT, 4, 0);
	vdrv_common_write(d, VIRTIO_PCI_COMMON_GF, 4, (uint32_t)features);
	vdrv_common_write(d, VIRTIO_PCI_COMMON_GFSELECT, 4, 1);
	vdrv_common_write(d, VIRTIO_PCI_COMMON_GF, 4,
			  (uint32_t)(features >> 32));
	vdrv_set_status(d, status);
	return vdrv_status(d) & VIRTIO_CONFIG_S_FEATURES_OK;
}

static void vdrv_select(struct vdrv *d, unsigned q)
{
	if (d->mode == VDRV_LEGACY)
		vdrv_legacy_write(d, VIRTIO_PCI_QUEUE_SEL, 2, q);
	else
		vdrv_common_write(d, VIRTIO_PCI_COMMON_Q_SELECT, 2, q);
}

uint16_t vdrv_queue_size(struct vdrv *d, unsigned q)
{
	vdrv_select(d, q);
	if (d->mode == VDRV_LEGACY)
		return (uint16_t)vdrv_legacy_read(d, VIRTIO_PCI_QUEUE_NUM, 2);
	return (uint16_t)vdrv_common_read(d, VIRTIO_PCI_COMMON_Q_SIZE, 2);
}

void vdrv_forget_chains(struct vdrv *d, unsigned q)
{
	struct vdrv_queue *vq = &d->q[q];

	for (unsigned i = 0; i < vq->size; i++) {
		vq->slots[i].next =
			(uint16_t)(i + 1u < vq->size ? i + 1u : VDRV_NONE);
		vq->slots[i].inflight = false;
	}
	vq->free_head = 0;
	vq->nr_free = vq->size;
}

/* The driver's own books of a queue of @size entries, all free. */
static void vdrv_queue_books(struct vdrv *d, unsigned q, uint16_t size)
{
	struct vdrv_queue *vq = &d->q[q];

	free(vq->slots);
	memset(vq, 0, sizeof(*vq));
	vq->size = size;
	vq->event_idx = d->features & VI_BIT(VIRTIO_RING_F_EVENT_IDX);
	vq->packed = d->features & VI_BIT(VIRTIO_F_RING_PACKED);
	if (vq->packed)
		vdrv_packed_books(vq);
	vq->slots = calloc(size, sizeof(*vq->slots));
	if (!vq->slots)
		vdrv_die("no memory");
	vdrv_forget_chains(d, q);
}

static bool vdrv_enable_legacy(struct vdrv *d, unsigned q, uint16_t vector)
{
	struct vdrv_queue *vq = &d->q[q];

	if (d->msix)
		vdrv_legacy_write(d, VIRTIO_MSI_QUEUE_VECTOR, 2, vector);
	vdrv_legacy_write(d, VIRTIO_PCI_QUEUE_PFN, 4,
			  (uint32_t)(vq->desc / LEGACY_ALIGN));
	return vdrv_legacy_read(d, VIRTIO_PCI_QUEUE_PFN, 4) ==
	       vq->desc / LEGACY_ALIGN;
}

static void vdrv_write64(struct vdrv *d, unsigned off, uint64_t val)
{
	vdrv_common_write(d, off, 4, (uint32_t)val);
	vdrv_common_write(d, off + 4, 4, (uint32_t)(val >> 32));
}

static bool vdrv_enable_modern(struct vdrv *d, unsigned q, uint16_t vector)
{
	struct vdrv_queue *vq = &d->q[q];

	vdrv_common_write(d, VIRTIO_PCI_COMMON_Q_SIZE, 2, vq->size);
	if (d->msix)
		vdrv_common_write(d, VIRTIO_PCI_COMMON_Q_MSIX, 2, vector);
	vdrv_write64(d, VIRTIO_PCI_COMMON_Q_DESCLO, vq->desc);
	vdrv_write64(d, VIRTIO_PCI_COMMON_Q_AVAILLO, vq->avail);
	vdrv_write64(d, VIRTIO_PCI_COMMON_Q_USEDLO, vq->used);
	vq->notify_off =
		d->notify_off +
		(uint64_t)vdrv_common_read(d, VIRTIO_PCI_COMMON_Q_NOFF, 2) *
			d->notify_mult;
	vdrv_common_write(d, VIRTIO_PCI_COMMON_Q_ENABLE, 2, 1);
	return vdrv_common_read(d, VIRTIO_PCI_COMMON_Q_ENABLE, 2) == 1 &&
	       !(vdrv_status(d) & VIRTIO_CONFIG_S_NEEDS_RESET);
}

bool vdrv_queue_setup_at(struct vdrv *d, unsigned q, uint16_t size,
			 uint64_t desc, uint64_t avail, uint64_t used)
{
	struct vdrv_queue *vq = &d->q[q];
	uint16_t vector = (uint16_t)(q + 1);

	if (vector >= d->nr_vectors)
		vector = (uint16_t)(d->nr_vectors - 1);
	vdrv_queue_books(d, q, size);
	vdrv_select(d, q);
	vq->desc = desc;
	vq->avail = avail;
	vq->used = used;
	vq->ready = d->mode == VDRV_LEGACY ? vdrv_enable_legacy(d, q, vector) :
					     vdrv_enable_modern(d, q, vector);
	return vq->ready;
}

bool vdrv_queue_setup(struct vdrv *d, unsigned q, uint16_t size)
{
	uint16_t max = vdrv_queue_size(d, q);
	uint64_t desc_len, avail_len, used_len, a;

	if (!size)
		size = max;
	if (!max || size > max || (d->mode == VDRV_LEGACY && size != max))
		return false;

	/* 2.7: with the event fields, which are there in any case. */
	desc_len = 16ull * size;
	avail_len = 6 + 2ull * size;
	used_len = 6 + 8ull * size;
	if (d->mode == VDRV_LEGACY) { /* 2.7.2 */
		uint64_t used_off = (desc_len + avail_len + LEGACY_ALIGN - 1) /
				    LEGACY_ALIGN * LEGACY_ALIGN;

		a = vdrv_alloc_zeroed(d, used_off + used_len, LEGACY_ALIGN);
		return vdrv_queue_setup_at(d, q, size, a, a + desc_len,
					   a + used_off);
	}
	a = vdrv_alloc_zeroed(d, desc_len, 16);
	if (d->features & VI_BIT(VIRTIO_F_RING_PACKED))
		return vdrv_queue_setup_at(d, q, size, a,
					   vdrv_alloc_zeroed(d, 4, 4),
					   vdrv_alloc_zeroed(d, 4, 4));
	return vdrv_queue_setup_at(d, q, size, a,
				   vdrv_alloc_zeroed(d, avail_len, 2),
				   vdrv_alloc_zeroed(d, used_len, 4));
}

void vdrv_driver_ok(struct vdrv *d)
{
	vdrv_set_status(d, vdrv_status(d) | VIRTIO_CONFIG_S_DRIVER_OK);
}

bool vdrv_start(struct vdrv *d, uint64_t features, unsigned nr_queues)
{
	vdrv_probe(d);
	vdrv_reset(d);
	vdrv_greet(d);
	if (!vdrv_negotiate(d, features & vdrv_offer(d)))
		return false;
	for (unsigned q = 0; q < nr_queues; q++)
		if (!vdrv_queue_setup(d, q, 0))
			return false;
	vdrv_driver_ok(d);
	return (vdrv_status(d) &
		(VIRTIO_CONFIG_S_DRIVER_OK | VIRTIO_CONFIG_S_NEEDS_RESET)) ==
	       VIRTIO_CONFIG_S_DRIVER_OK;
}

/*
 * --- Rings, 2.7 ---
 *
 * Index and event fields are shared with a device that may run in another
 * thread: atomics. Descriptors and ring entries are ordered by the index.
 */

struct vdrv_queue *vdrv_queue(struct vdrv *d, unsigned q)
{
	if (q >= VDRV_MAX_Q || !d->q[q].slots)
		vdrv_die("queue %u is not set up", q);
	return &d->q[q];
}

/* One that lies as in 2.7. */
static struct vdrv_queue *vdrv_split(struct vdrv *d, unsigned q)
{
	struct vdrv_queue *vq = vdrv_queue(d, q);

	if (vq->packed)
		vdrv_die("queue %u is packed", q);
	return vq;
}

static le16 *vdrv_le16(struct vdrv *d, uint64_t gpa)
{
	return vdrv_ptr(d, gpa, sizeof(le16));
}

static le16 *vdrv_used_event_ptr(struct vdrv *d, struct vdrv_queue *vq)
{
	return vdrv_le16(d, vq->avail + 4 + 2ull * vq->size);
}

uint16_t vdrv_used_flags(struct vdrv *d, unsigned q)
{
	return le16_load(vdrv_le16(d, vdrv_split(d, q)->used));
}

uint16_t vdrv_used_ring_idx(struct vdrv *d, unsigned q)
{
	return le16_load_acquire(vdrv_le16(d, vdrv_split(d, q)->used + 2));
}

uint16_t vdrv_avail_event(struct vdrv *d, unsigned q)
{
	struct vdrv_queue *vq = vdrv_split(d, q);

	return le16_load(vdrv_le16(d, vq->used + 4 + 8ull * vq->size));
}

void vdrv_set_used_event(struct vdrv *d, unsigned q, uint16_t idx)
{
	le16_store(vdrv_used_event_ptr(d, vdrv_split(d, q)), idx);
}

void vdrv_set_avail_flags(struct vdrv *d, unsigned q, uint16_t flags)
{
	le16_store(vdrv_le16(d, vdrv_split(d, q)->avail), flags);
}

void vdrv_set_avail_idx(struct vdrv *d, unsigned q, uint16_t idx)
{
	struct vdrv_queue *vq = vdrv_split(d, q);

	vq->avail_idx = idx;
	le16_store_release(vdrv_le16(d, vq->avail + 2), idx);
}

static void vdrv_write_desc(struct vdrv *d, uint64_t at, uint64_t gpa,
			    uint32_t len, uint16_t flags, uint16_t next)
{
	struct {
		le64 addr;
		le32 len;
		le16 flags, next;
	} desc = {
		cpu_to_le64(gpa),
		cpu_to_le32(len),
		cpu_to_le16(flags),
		cpu_to_le16(next),
	};

	memcpy(vdrv_ptr(d, at, sizeof(desc)), &desc, sizeof(desc));
}

void vdrv_desc(struct vdrv *d, unsigned q, uint16_t i, uint64_t gpa,
	       uint32_t len, uint16_t flags, uint16_t next)
{
	vdrv_write_desc(d, vdrv_queue(d, q)->desc + 16ull * i, gpa, len, flags,
			next);
}

void vdrv_avail(struct vdrv *d, unsigned q, uint16_t head)
{
	struct vdrv_queue *vq = vdrv_queue(d, q);
	uint64_t slot = vq->avail + 4 + 2ull * (vq->avail_idx % vq->size);

	*vdrv_le16(d, slot) = cpu_to_le16(head);
	vdrv_set_avail_idx(d, q, (uint16_t)(vq->avail_idx + 1));
}

uint16_t vdrv_desc_flags(const struct vdrv_buf *b)
{
	return (uint16_t)((b->flags & VDRV_W ? VRING_DESC_F_WRITE : 0) |
			  (b->flags & VDRV_INDIRECT ? VRING_DESC_F_INDIRECT :
						      0));
}

uint16_t vdrv_take_id(struct vdrv_queue *vq)
{
	uint16_t i = vq->free_head;

	if (!vq->nr_free || i == VDRV_NONE)
		vdrv_die("no free descriptor");
	vq->free_head = vq->slots[i].next;
	vq->slots[i].next = VDRV_NONE;
	return i;
}

void vdrv_put_id(struct vdrv_queue *vq, uint16_t id)
{
	vq->slots[id].next = vq->free_head;
	vq->free_head = id;
}

/* Take a descriptor of a split ring off the free list. */
static uint16_t vdrv_take(struct vdrv_queue *vq)
{
	uint16_t i = vdrv_take_id(vq);

	vq->nr_free--;
	if (!vq->nr_free)
		vq->free_head = VDRV_NONE;
	return i;
}

uint64_t vdrv_writable(const struct vdrv_buf *bufs, unsigned nr)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < nr; i++)
		sum += bufs[i].flags & VDRV_W ? bufs[i].len : 0;
	return sum;
}

static void vdrv_offer_chain(struct vdrv *d, unsigned q, uint16_t head,
			     uint64_t writable)
{
	struct vdrv_slot *s = &d->q[q].slots[head];

	s->inflight = true;
	s->writable = writable;
	vdrv_avail(d, q, head);
}

uint16_t vdrv_add(struct vdrv *d, unsigned q, const struct vdrv_buf *bufs,
		  unsigned nr)
{
	struct vdrv_queue *vq = vdrv_queue(d, q);
	uint16_t head, i;

	if (vq->packed)
		return vdrv_packed_add(d, q, bufs, nr);
	if (!nr)
		vdrv_die("an empty chain");
	head = i = vdrv_take(vq);
	for (unsigned b = 0; b < nr; b++) {
		bool more = b + 1 < nr;
		uint16_t next = more ? vdrv_take(vq) : 0;
		uint16_t flags = vdrv_desc_flags(&bufs[b]);

		if (more) {
			flags |= VRING_DESC_F_NEXT;
			vq->slots[i].next = next;
		}
		vdrv_desc(d, q, i, bufs[b].gpa, bufs[b].len, flags, next);
		i = next;
	}
	vdrv_offer_chain(d, q, head, vdrv_writable(bufs, nr));
	return head;
}

uint64_t vdrv_table(struct vdrv *d, struct vdrv_queue *vq, uint16_t id,
		    unsigned nr)
{
	struct vdrv_slot *s = &vq->slots[id];

	if (s->table_entries < nr) {
		s->table = vdrv_alloc(d, 16ull * nr, 16);
		s->table_entries = nr;
	}
	return s->table;
}

uint16_t vdrv_add_indirect(struct vdrv *d, unsigned q,
			   const struct vdrv_buf *bufs, unsigned nr)
{
	struct vdrv_queue *vq = vdrv_queue(d, q);
	uint16_t head;
	uint64_t table;

	if (vq->packed)
		return vdrv_packed_add_indirect(d, q, bufs, nr);
	head = vdrv_take(vq);
	table = vdrv_table(d, vq, head, nr);
	for (unsigned i = 0; i < nr; i++)
		vdrv_write_desc(
			d, table + 16ull * i, bufs[i].gpa, bufs[i].len,
			(uint16_t)(vdrv_desc_flags(&bufs[i]) |
				   (i + 1 < nr ? VRING_DESC_F_NEXT : 0)),
			(uint16_t)(i + 1 < nr ? i + 1 : 0));
	vdrv_desc(d, q, head, table, 16 * nr, VRING_DESC_F_INDIRECT, 0);
	vdrv_offer_chain(d, q, head, vdrv_writable(bufs, nr));
	return head;
}

/*
 * --- Notifications ---
 */

void vdrv_kick(struct vdrv *d, unsigned q)
{
	if (d->mode == VDRV_LEGACY)
		vdrv_legacy_write(d, VIRTIO_PCI_QUEUE_NOTIFY, 2, q);
	else if (d->features & VI_BIT(VIRTIO_F_NOTIFICATION_DATA))
		pci_bar_write(&d->pi, d->notify_bar,
			      vdrv_queue(d, q)->notify_off, 4,
			      q | (uint32_t)vdrv_queue(d, q)->avail_idx << 16);
	else
		pci_bar_write(&d->pi, d->notify_bar,
			      vdrv_queue(d, q)->notify_off, 2, q);
}

bool vdrv_kick_wanted(struct vdrv *d, unsigned q)
{
	struct vdrv_queue *vq = vdrv_queue(d, q);
	uint16_t old = vq->kicked_idx;

	if (vq->packed)
		return vdrv_packed_kick_wanted(d, q);
	/* Our store to avail.idx before the load of what the device wants. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	vq->kicked_idx = vq->avail_idx;
	if (!vq->event_idx)
		return !(vdrv_used_flags(d, q) & VRING_USED_F_NO_NOTIFY);
	return (uint16_t)(vq->avail_idx - vdrv_avail_event(d, q) - 1) <
	       (uint16_t)(vq->avail_idx - old);
}

bool vdrv_kick_if_wanted(struct vdrv *d, unsigned q)
{
	bool wanted = vdrv_kick_wanted(d, q);

	if (wanted)
		vdrv_kick(d, q);
	return wanted;
}

void vdrv_want_intr(struct vdrv *d, unsigned q, bool on)
{
	struct vdrv_queue *vq = vdrv_queue(d, q);

	if (vq->packed) {
		vdrv_packed_want_intr(d, q, on);
		return;
	}
	vq->no_intr = !on;
	if (vq->event_idx)
		/* Off: the event that is farthest away. */
		vdrv_set_used_event(d, q, (uint16_t)(vq->used_idx - !on));
	else
		vdrv_set_avail_flags(d, q, on ? 0 : VRING_AVAIL_F_NO_INTERRUPT);
	/* The caller looks at the used ring next. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

/* Put a chain that the device gave back on the free list. */
static void vdrv_free_chain(struct vdrv_queue *vq, const struct vdrv_used *u)
{
	struct vdrv_slot *s;
	uint16_t i, next;

	if (u->id >= vq->size || !vq->slots[u->id].inflight)
		return; /* offered by hand: the test's own affair */
	s = &vq->slots[u->id];
	if (u->len > s->writable)
		vdrv_die("used.len %u of a chain with %llu writable bytes",
			 u->len, (unsigned long long)s->writable);
	s->inflight = false;
	for (i = (uint16_t)u->id; i != VDRV_NONE; i = next) {
		next = vq->slots[i].next;
		vdrv_put_id(vq, i);
		vq->nr_free++;
	}
}

bool vdrv_used(struct vdrv *d, unsigned q, struct vdrv_used *ret_used)
{
	struct vdrv_queue *vq = vdrv_queue(d, q);
	struct vdrv_used u;
	struct {
		le32 id, len;
	} e;

	if (vq->packed)
		return vdrv_packed_used(d, q, ret_used);
	if (vdrv_used_ring_idx(d, q) == vq->used_idx)
		return false;
	memcpy(&e,
	       vdrv_ptr(d, vq->used + 4 + 8ull * (vq->used_idx % vq->size), 8),
	       sizeof(e));
	u = (struct vdrv_used){ le32_to_cpu(e.id), le32_to_cpu(e.len) };
	vq->used_idx++;
	vdrv_free_chain(vq, &u);
	if (vq->event_idx && !vq->no_intr) {
		vdrv_set_used_event(d, q, vq->used_idx);
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
	}
	if (ret_used)
		*ret_used = u;
	return true;
}

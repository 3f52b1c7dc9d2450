/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzz target: registers and rings. A driver that knows the interface writes
 * registers, legacy and modern, in any order; places rings at the end of
 * memory; removes memory and adds it again; and rewrites descriptors while
 * their chain is in flight. The device completes chains at once, holds them,
 * returns them unprocessed, or completes them after a reset. Each region of
 * guest memory lies between inaccessible pages, and is inaccessible to the
 * device when it must not use it: after it has promised so, when it is broken,
 * and without Bus Master.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <viodev/virtio.h>

#include "core/core.h"
#include "fuzz.h"

#define NR_QUEUES  3u
#define MAX_IOV    32
#define MAX_BATCH  8u
#define MAX_TAKEN  32u
#define NR_REGIONS 6u
#define PAGES      8192u /* bytes that a region has room for */
#define LOG_BYTES  64u
#define MAX_OPS    400u

/* A chain that the device has taken. */
struct chain {
	struct vqueue_info *vq;
	struct iovec iov[MAX_IOV];
	struct vi_req req;
	uint64_t resets; /* of the device, when the chain was taken */
};

struct region {
	char *end;  /* of its pages, as the device sees them */
	char *view; /* the same, as the driver sees them */
	uint64_t gpa;
	bool unmapped; /* the device reaches it through gmem_ops */
	bool removed;  /* and still in use */
	uint64_t len;  /* 0: not there */
	unsigned prot;
};

static struct region regions[NR_REGIONS] = {
	{ .gpa = 0x10000 }, /* a legacy ring fits */
	{ .gpa = 0x12000 }, /* follows, when that one has all its pages */
	{ .gpa = 0x20000 }, { .gpa = 0x30000 },
	{ .gpa = 0x40000 }, { .gpa = 0x50000, .unmapped = true },
};

static struct echo {
	struct virtio_softc vs;
	struct vqueue_info queues[NR_QUEUES];
	uint8_t config[24];
	struct chain taken[MAX_TAKEN];
	unsigned nr_taken;
} e;

static struct pci_devinst pi;
static struct gmem gm;
static bool woken;
static bool feeding; /* another processor adds chains all the time */
static bool guarded; /* the device must leave memory alone */
static unsigned nr_unmapped_reads;

/* Features from 64 on that the driver accepted; none are offered. */
static struct {
	uint64_t resets; /* of the device, when this was noted */
	unsigned window; /* the one selected */
	bool accepted;
	bool unknown; /* other registers were written that may select one */
} beyond;
static unsigned last_region;
static struct fuzz_in *in;
static uint8_t *dirty;
static volatile uint8_t sink;

/*
 * --- Guest memory ---
 */

static char *start_of(const struct region *r)
{
	return r->end - r->len;
}

/* As the driver sees it; NULL if there is no memory. */
static void *at(uint64_t gpa, uint64_t len)
{
	for (unsigned i = 0; i < NR_REGIONS; i++) {
		struct region *r = &regions[i];

		if (gpa - r->gpa < r->len && len <= r->len - (gpa - r->gpa))
			return r->view - r->len + (gpa - r->gpa);
	}
	return NULL;
}

static void poke(uint64_t gpa, const void *buf, size_t len)
{
	void *p = at(gpa, len);

	if (p)
		memcpy(p, buf, len);
}

static void poke16(uint64_t gpa, uint16_t v)
{
	poke(gpa, &v, sizeof(v));
}

static uint16_t peek16(uint64_t gpa)
{
	const void *p = at(gpa, 2);
	uint16_t v = 0;

	if (p)
		memcpy(&v, p, sizeof(v));
	return v;
}

static void protect(struct region *r, int prot)
{
	fuzz_must(mprotect(r->end - PAGES, PAGES, prot) == 0);
}

/* 2.1.2, and PCI 6.2.2 */
static bool must_not_use_memory(void)
{
	return (e.vs.vs_flags & VIRTIO_BROKEN) || !pci_bus_master(&pi);
}

static void guard(bool on)
{
	if (on == guarded)
		return;
	guarded = on;
	for (unsigned i = 0; i < NR_REGIONS; i++) {
		if (regions[i].len)
			protect(&regions[i],
				on ? PROT_NONE : PROT_READ | PROT_WRITE);
	}
}

static void add_region(struct region *r)
{
	/* The odd ones end with a used ring of 2, 4 or 16, without trailer. */
	static const uint16_t lens[] = { 4096,      8192, 4096 + 132, 4096 + 36,
					 4096 + 20, 134,  132,        64 };

	if (r->len)
		return;
	r->len = lens[fuzz_choice(in, 8)];
	r->prot = fuzz_one_in(in, 8) ? GM_READ : GM_READ | GM_WRITE;
	protect(r, PROT_READ | PROT_WRITE);
	fuzz_must(gm_add(&gm, (gpa_t){ r->gpa }, r->len,
			 r->unmapped ? NULL : start_of(r), r->prot) == 0);
}

static void gone(void *arg, const struct gm_region *gr)
{
	for (unsigned i = 0; i < NR_REGIONS; i++) {
		if (regions[i].gpa != gr->base.v)
			continue;
		protect(&regions[i], PROT_NONE);
		regions[i].len = 0;
		regions[i].removed = false;
	}
}

static void change_memory(void)
{
	struct region *r = &regions[fuzz_choice(in, NR_REGIONS)];

	if (!r->len)
		add_region(r);
	else if (!r->removed)
		r->removed = gm_remove(&gm, (gpa_t){ r->gpa }, r->len, gone,
				       NULL) > 0;
}

/*
 * Somewhere, mostly such that @bytes end where memory does, and in a different
 * region each time.
 */
static uint64_t place(uint64_t bytes, unsigned align)
{
	const struct region *r;
	uint64_t end;

	last_region += 1 + fuzz_choice(in, NR_REGIONS - 1);
	r = &regions[last_region % NR_REGIONS];
	end = r->gpa + r->len;
	switch (fuzz_choice(in, 16)) {
	case 1:
	case 2:
	case 3:
		return r->gpa + fuzz_choice(in, 256) * 16;
	case 4:
		return end - bytes - fuzz_choice(in, 64);
	case 5:
		return fuzz_int(in, 8);
	default:
		return (end - bytes) / align * align;
	}
}

static bool is_avail_idx(uint64_t gpa)
{
	for (unsigned i = 0; i < NR_QUEUES; i++)
		if (e.queues[i].vq_flags && e.queues[i].vq_avail_gpa + 2 == gpa)
			return true;
	return false;
}

/* Memory that is not shared may change between any two reads. */
static int read_unmapped(void *arg, gpa_t a, void *buf, size_t len)
{
	void *p = at(a.v, len);

	fuzz_must(!guarded);
	nr_unmapped_reads++;
	if (!p)
		return -EFAULT;
	memcpy(buf, p, len);
	if (feeding && is_avail_idx(a.v))
		poke16(a.v, (uint16_t)(peek16(a.v) + 1));
	switch (fuzz_choice(in, 16)) {
	case 1:
		return -EAGAIN;
	case 2:
		fuzz_bytes(in, p, len < 16 ? len : 16);
		break;
	}
	return 0;
}

static int write_unmapped(void *arg, gpa_t a, const void *buf, size_t len)
{
	fuzz_must(!guarded);
	if (!at(a.v, len))
		return -EFAULT;
	poke(a.v, buf, len);
	return 0;
}

static const struct gmem_ops ops = { read_unmapped, write_unmapped };

static void change_log(void)
{
	unsigned len = fuzz_choice(in, LOG_BYTES + 1);

	gm_set_log(&gm, len ? dirty + LOG_BYTES - len : NULL, len);
}

/*
 * --- The device ---
 */

static void check_chain(const struct chain *c, int n, int niov)
{
	fuzz_must(n <= niov && n == c->req.readable + c->req.writable);
	for (int i = 0; i < n; i++)
		fuzz_must(c->iov[i].iov_base && c->iov[i].iov_len);
}

/* Access the first and last bytes of all buffers, where the pages end. */
static uint32_t use(const struct chain *c)
{
	uint32_t written = 0;
	int i = 0;

	for (; i < c->req.readable; i++) {
		const uint8_t *p = c->iov[i].iov_base;

		sink = p[0];
		sink = p[c->iov[i].iov_len - 1];
	}
	for (; i < c->req.readable + c->req.writable; i++) {
		size_t len = c->iov[i].iov_len, some = len < 64 ? len : 64;
		char *p = c->iov[i].iov_base;

		memset(p, sink, some);
		memset(p + len - some, sink, some);
		written += (uint32_t)len;
	}
	return written;
}

/* Like vq_relchain(). */
static void answer(const struct chain *c)
{
	uint32_t len = must_not_use_memory() ? 0 : use(c);
	uint64_t errors = e.vs.vs_priv->nr_errors;
	bool odd = fuzz_one_in(in, 4);

	vq_relchain_prepare(c->vq, (uint16_t)c->req.idx,
			    odd ? (uint32_t)fuzz_int(in, 4) : len);
	/* A chain from before a reset must not affect the new driver. */
	fuzz_must(c->resets == e.vs.vs_priv->nr_resets ||
		  e.vs.vs_priv->nr_errors == errors);
	if (!odd || fuzz_bool(in))
		vq_relchain_publish(c->vq);
}

static void answer_or_keep(const struct chain *c)
{
	if (fuzz_bool(in) && e.nr_taken < MAX_TAKEN)
		e.taken[e.nr_taken++] = *c;
	else
		answer(c);
}

static void complete_taken(unsigned i)
{
	struct chain c;

	if (e.nr_taken == 0)
		return;
	i %= e.nr_taken;
	c = e.taken[i];
	e.taken[i] = e.taken[--e.nr_taken];
	answer(&c);
	vq_endchains(c.vq, fuzz_bool(in));
}

/* The model returns the last few chains that it took. */
static void return_taken(struct vqueue_info *vq)
{
	vq_retchains(vq, (uint16_t)(1 + fuzz_choice(in, 4)));
	for (unsigned i = e.nr_taken; i-- > 0;) {
		const struct chain *c = &e.taken[i];
		const struct vq_slot *slot = &c->vq->vq_priv->slots[c->req.idx];

		if (!slot->busy && !slot->stale)
			e.taken[i] = e.taken[--e.nr_taken];
	}
}

/*
 * If vq_has_descs() reported a chain, vq_getchain() returns one, unless memory
 * has changed or is short.
 */
static int take(struct vqueue_info *vq, struct chain *c, int niov, bool asks)
{
	unsigned reads = nr_unmapped_reads;
	int n;

	if (asks && !vq_has_descs(vq))
		return 0;
	c->vq = vq;
	c->resets = e.vs.vs_priv->nr_resets;
	n = vq_getchain(vq, c->iov, niov, &c->req);
	fuzz_must(!asks || n != 0 || nr_unmapped_reads != reads ||
		  e.vs.vs_priv->room_wanted);
	return n;
}

static void echo_notify(void *arg, struct vqueue_info *vq)
{
	int niov = fuzz_one_in(in, 8) ? 1 : MAX_IOV;
	struct chain batch[MAX_BATCH];
	unsigned nr = 0, undo;
	uint8_t how = (uint8_t)fuzz_choice(in, 4);
	bool quiet = how & 1;
	int n = 0;

	if (quiet)
		vq_kick_disable(vq);
	for (; nr < MAX_BATCH; nr++) {
		n = take(vq, &batch[nr], niov, how & 2);
		if (n <= 0)
			break;
		check_chain(&batch[nr], n, niov);
	}
	undo = fuzz_one_in(in, 4) ? fuzz_choice(in, nr + 1) : 0;
	if (undo && n >= 0)
		vq_retchains(vq, (uint16_t)undo);
	else
		undo = 0;
	for (unsigned i = 0; i < nr - undo; i++)
		answer_or_keep(&batch[i]);
	if (quiet)
		vq_kick_enable(vq);
	vq_endchains(vq, nr < MAX_BATCH);
}

static int echo_cfgread(void *arg, int offset, int size, uint32_t *retval)
{
	memcpy(retval, &e.config[offset], (size_t)size);
	return 0;
}

static int echo_cfgwrite(void *arg, int offset, int size, uint32_t value)
{
	memcpy(&e.config[offset], &value, (size_t)size);
	return 0;
}

static struct virtio_consts echo_consts;

/* Like a network device with MQ: a feature adds queues. */
static void echo_apply_features(void *arg, uint64_t *features)
{
	echo_consts.vc_nvq = *features & 1 ? NR_QUEUES : NR_QUEUES - 1;
}

/* The model returns some chains at once, others only later. */
static void echo_stop(void *arg)
{
	for (unsigned n = fuzz_choice(in, 4); n > 0; n--)
		complete_taken(fuzz_choice(in, MAX_TAKEN));
}

static struct virtio_consts echo_consts = {
	.vc_name = "echo",
	.vc_nvq = NR_QUEUES - 1,
	.vc_max_nvq = NR_QUEUES,
	.vc_cfgsize = 23,
	.vc_reset = echo_stop,
	.vc_quiesce = echo_stop,
	.vc_qnotify = echo_notify,
	.vc_cfgread = echo_cfgread,
	.vc_cfgwrite = echo_cfgwrite,
	.vc_apply_features = echo_apply_features,
	.vc_hv_caps_legacy = VI_RING_CAPS_LEGACY | 1,
	.vc_hv_caps_modern =
		VI_RING_CAPS_MODERN | VI_BIT(VIRTIO_F_RING_PACKED) | 1,
};

static void drop_log(void *arg, int level, const char *msg)
{
}

static void on_wake(void *arg)
{
	woken = true;
}

static void on_msix(void *arg, unsigned vector, uint64_t addr, uint32_t data)
{
	fuzz_must(pci_bus_master(&pi));
}

static void on_msi(void *arg, uint64_t addr, uint32_t data)
{
	fuzz_must(pci_bus_master(&pi));
}

static const struct pci_host host = {
	.ph_log = drop_log,
	.ph_wake = on_wake,
	.ph_msix = on_msix,
	.ph_msi = on_msi,
};

/* What an embedder does some time after it was woken. */
static void after_wake(void)
{
	if (!woken)
		return;
	woken = false;
	gm_reap(&gm, gone, NULL);
	pci_kick(&pi);
}

/*
 * --- The driver's registers ---
 */

static void note_beyond(unsigned off, uint64_t val)
{
	if (beyond.resets != e.vs.vs_priv->nr_resets) {
		memset(&beyond, 0, sizeof(beyond));
		beyond.resets = e.vs.vs_priv->nr_resets;
	}
	if (off == VIRTIO_PCI_COMMON_GFSELECT)
		beyond.window = (unsigned)val;
	else if (off == VIRTIO_PCI_COMMON_GF && beyond.window == 2)
		beyond.accepted = val;
}

static void common(unsigned off, int size, uint64_t val)
{
	bool was_final = e.vs.vs_priv->features_final;

	if (!was_final)
		note_beyond(off, val);
	pci_bar_write(&pi, VIRTIO_MODERN_BAR, off, size, val);
	fuzz_must(was_final || !e.vs.vs_priv->features_final ||
		  beyond.unknown || !beyond.accepted);
}

static void legacy(unsigned off, int size, uint64_t val)
{
	pci_bar_write(&pi, VIRTIO_LEGACY_BAR, off, size, val);
}

static void set_status(bool modern)
{
	static const uint8_t values[] = { 0, 1, 3, 0xb, 0xf, 7, 0xf, 0xff };
	uint8_t v = values[fuzz_choice(in, 8)];

	if (modern)
		common(VIRTIO_PCI_COMMON_STATUS, 1, v);
	else
		legacy(VIRTIO_PCI_STATUS, 1, v);
}

static void set_features(bool modern)
{
	uint8_t b = (uint8_t)fuzz_int(in, 1);
	uint32_t bits = (b & 1 ? 1 : 0) |
			(b & 2 ? 1u << VIRTIO_RING_F_INDIRECT_DESC : 0) |
			(b & 4 ? 1u << VIRTIO_RING_F_EVENT_IDX : 0) |
			(b & 8 ? 1u << VIRTIO_F_NOTIFY_ON_EMPTY : 0);
	uint32_t high = 1 | (b & 8 ? 1u << (VIRTIO_F_RING_PACKED - 32) : 0) |
			(b & 4 ? 1u << (VIRTIO_F_RING_RESET - 32) : 0);

	if (b & 0x80)
		bits = (uint32_t)fuzz_int(in, 4);
	if (!modern) {
		legacy(VIRTIO_PCI_GUEST_FEATURES, 4, bits);
		return;
	}
	common(VIRTIO_PCI_COMMON_GFSELECT, 4, 0);
	common(VIRTIO_PCI_COMMON_GF, 4, bits & ~(1u << 24));
	if (b & 0x10) {
		common(VIRTIO_PCI_COMMON_GFSELECT, 4, 1);
		common(VIRTIO_PCI_COMMON_GF, 4, high);
	}
	common(VIRTIO_PCI_COMMON_GFSELECT, 4, b & 0x40 ? 2 : 1);
	common(VIRTIO_PCI_COMMON_GF, 4, b & 0x20 ? 0 : high);
}

static void select_queue(bool modern, unsigned q)
{
	if (modern)
		common(VIRTIO_PCI_COMMON_Q_SELECT, 2, q);
	else
		legacy(VIRTIO_PCI_QUEUE_SEL, 2, q);
}

static void set_address(unsigned reg, uint64_t gpa)
{
	common(reg, 4, (uint32_t)gpa);
	common(reg + 4, 4, gpa >> 32);
}

/* A queue whose parts often lie at the end of memory. */
static void set_queue(unsigned q)
{
	static const uint16_t sizes[] = { 16, 4, 2, 1, 16, 4, 8, 3 };
	unsigned trailer = fuzz_bool(in) ? 2 : 0;
	uint16_t size;

	select_queue(true, q);
	if (fuzz_bool(in))
		common(VIRTIO_PCI_COMMON_Q_SIZE, 2, sizes[fuzz_choice(in, 8)]);
	size = e.queues[q].vq_qsize;
	set_address(VIRTIO_PCI_COMMON_Q_DESCLO, place(16ull * size, 16));
	set_address(VIRTIO_PCI_COMMON_Q_AVAILLO,
		    place(4 + 2ull * size + trailer, 2));
	set_address(VIRTIO_PCI_COMMON_Q_USEDLO,
		    place(4 + 8ull * size + trailer, 4));
	common(VIRTIO_PCI_COMMON_Q_ENABLE, 2, 1);
}

static void set_legacy_queue(unsigned q)
{
	const struct region *r = &regions[fuzz_choice(in, NR_REGIONS)];

	select_queue(false, q);
	legacy(VIRTIO_PCI_QUEUE_PFN, 4,
	       fuzz_one_in(in, 4) ? 0 : r->gpa >> LEGACY_VRING_PFN);
}

static void kick(bool modern, unsigned q)
{
	if (modern)
		common(0x3000 + 4 * q, 2, 0);
	else
		legacy(VIRTIO_PCI_QUEUE_NOTIFY, 2, q);
}

/* MSI-X, a vector for each queue and for changes of the configuration. */
static void set_interrupts(void)
{
	for (unsigned i = 0; i <= NR_QUEUES; i++)
		pci_bar_write(&pi, VIRTIO_MSIX_BAR, 16 * i + 12, 4, 0);
	pci_cfg_write(&pi, pi.pi_msix_cap + 2u, 2, 0x8000);
	common(VIRTIO_PCI_COMMON_MSIX, 2, NR_QUEUES);
	for (unsigned q = 0; q < NR_QUEUES; q++) {
		select_queue(true, q);
		common(VIRTIO_PCI_COMMON_Q_MSIX, 2, q);
	}
}

static void set_bus_master(void)
{
	pci_cfg_write(&pi, 4, 2, fuzz_bool(in) ? 7 : 3);
}

/* The direct way to live queues, which random input seldom finds. */
static void go_live(bool modern)
{
	if (fuzz_bool(in))
		pci_reset(&pi);
	if (modern)
		common(VIRTIO_PCI_COMMON_STATUS, 1, 3);
	set_features(modern);
	if (modern)
		common(VIRTIO_PCI_COMMON_STATUS, 1, 0xb);
	for (unsigned q = 0; q < NR_QUEUES; q++) {
		if (modern)
			set_queue(q);
		else
			set_legacy_queue(q);
	}
	if (modern)
		common(VIRTIO_PCI_COMMON_STATUS, 1, 0xf);
	else
		legacy(VIRTIO_PCI_STATUS, 1, 7);
}

/* Any register at any width. */
static void access_any(void)
{
	static const uint8_t bars[] = { VIRTIO_LEGACY_BAR, VIRTIO_MODERN_BAR,
					VIRTIO_MSIX_BAR, 5 };
	int bar = bars[fuzz_choice(in, 4)], size = 1 << fuzz_choice(in, 4);
	uint64_t off = fuzz_bool(in) ? fuzz_choice(in, 64) : fuzz_int(in, 2);

	switch (fuzz_choice(in, 4)) {
	case 0:
		pci_bar_read(&pi, bar, off, size);
		break;
	case 1:
		beyond.unknown |= bar == VIRTIO_MODERN_BAR;
		pci_bar_write(&pi, bar, off, size, fuzz_int(in, 2));
		break;
	case 2:
		pci_cfg_read(&pi, off & 0xff, (unsigned)size);
		break;
	default:
		pci_cfg_write(&pi, off & 0xff, (unsigned)size,
			      (uint32_t)fuzz_int(in, 4));
	}
}

/*
 * --- The driver's rings ---
 */

struct desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags, next;
};

static void write_desc_at(uint64_t table, unsigned nr)
{
	struct desc d;
	unsigned i = fuzz_choice(in, nr);

	d.len = (uint32_t)(fuzz_one_in(in, 4) ? fuzz_int(in, 2) :
						fuzz_choice(in, 6) * 16);
	d.addr = fuzz_one_in(in, 4) ? table : place(d.len, 1);
	d.flags = (uint16_t)fuzz_choice(in, 8);
	d.next = (uint16_t)fuzz_choice(in, nr + 1);
	poke(table + 16ull * i, &d, sizeof(d));
}

static void write_desc(struct vqueue_info *vq)
{
	write_desc_at(vq->vq_desc_gpa, 16);
}

static void write_table(void)
{
	write_desc_at(place(64, 16), 4);
}

/* Add chains, valid or not. */
static void make_available(struct vqueue_info *vq)
{
	uint16_t i = peek16(vq->vq_avail_gpa + 2), nr;

	for (nr = (uint16_t)fuzz_choice(in, 18); nr > 0; nr--, i++)
		poke16(vq->vq_avail_gpa + 4 + 2 * (i % (vq->vq_qsize ?: 1u)),
		       (uint16_t)fuzz_choice(in, 17));
	poke16(vq->vq_avail_gpa + 2, i);
}

/* Valid chains of one buffer each, or empty ones, as many as fit. */
static void add_good(struct vqueue_info *vq)
{
	unsigned nr = fuzz_choice(in, 8) + 1, size = vq->vq_priv->nr;
	uint16_t idx = peek16(vq->vq_avail_gpa + 2);
	bool empty = fuzz_one_in(in, 4);

	for (unsigned i = 0; i < size && nr > 0; i++) {
		unsigned b = empty ? 0 : fuzz_choice(in, 256);
		struct desc d = {
			.len = empty ? 0 : 1 + b % 64,
			.flags = fuzz_bool(in) ? VRING_DESC_F_WRITE : 0,
		};

		if (vq->vq_priv->slots[i].busy)
			continue;
		d.addr = place(d.len, 1);
		if (b >= 0xf8) /* the table itself as a table */
			d = (struct desc){ vq->vq_desc_gpa, 16 * size,
					   VRING_DESC_F_INDIRECT };
		poke(vq->vq_desc_gpa + 16 * i, &d, sizeof(d));
		poke16(vq->vq_avail_gpa + 4 + 2 * (idx++ % size), (uint16_t)i);
		nr--;
	}
	poke16(vq->vq_avail_gpa + 2, idx);
}

/* The bits that make the slot at a position available. */
static uint16_t available_bits(uint16_t pos)
{
	return (uint16_t)(pos & PACKED_WRAP ? 1u << VRING_PACKED_DESC_F_AVAIL :
					      1u << VRING_PACKED_DESC_F_USED);
}

/*
 * Slots of a packed ring from the device's next position, mostly with valid
 * chains: free ids, few of them linked.
 */
static void add_slots(struct vqueue_info *vq)
{
	unsigned nr = fuzz_choice(in, 8) + 1, size = vq->vq_priv->nr;
	uint16_t pos = vq->vq_last_avail;
	bool good = !fuzz_one_in(in, 4);

	for (unsigned i = 0; i < size && nr > 0; i++) {
		unsigned b = fuzz_choice(in, 256);
		struct desc d = { .len = b % 64, .flags = (uint16_t)i };

		if (good && vq->vq_priv->slots[i].busy)
			continue;
		d.addr = place(d.len, 1);
		if (b >= 0xf8) /* the ring itself as a table */
			d = (struct desc){ vq->vq_desc_gpa, 16 * size,
					   (uint16_t)i };
		d.next = b >= 0xf8 ? VRING_DESC_F_INDIRECT :
			 b & 0x40  ? VRING_DESC_F_WRITE :
				     0;
		d.next |= !good || b % 16 == 0 ? fuzz_choice(in, 8) : 0;
		d.next |= available_bits(pos);
		if (!good && b % 8 == 0)
			d.flags = (uint16_t)fuzz_int(in, 2);
		poke(vq->vq_desc_gpa + 16ull * (pos & ~PACKED_WRAP), &d,
		     sizeof(d));
		pos = packed_advance(vq, pos, 1);
		nr--;
	}
}

/* The driver's event structure, or the device's. */
static void write_event(struct vqueue_info *vq)
{
	uint64_t gpa = fuzz_bool(in) ? vq->vq_avail_gpa : vq->vq_used_gpa;

	poke16(gpa, (uint16_t)fuzz_int(in, 2));
	poke16(gpa + 2, (uint16_t)fuzz_choice(in, 4));
}

static void write_index(struct vqueue_info *vq)
{
	uint64_t gpa = fuzz_bool(in) ? vq->vq_avail_gpa : vq->vq_used_gpa;

	poke16(gpa + 2 * fuzz_choice(in, 2), (uint16_t)fuzz_int(in, 2));
}

/*
 * All entries of the table, whose chains the device may hold, refer to the
 * table itself as an indirect one.
 */
static void turn_inward(struct vqueue_info *vq)
{
	uint32_t size = vq->vq_priv->nr;
	struct desc d = { vq->vq_desc_gpa, 16 * size, VRING_DESC_F_INDIRECT };

	for (unsigned i = 0; i < size; i++)
		poke(vq->vq_desc_gpa + 16ull * i, &d, sizeof(d));
}

static void write_bytes(void)
{
	uint64_t gpa = place(16, 1);
	uint8_t bytes[16];

	fuzz_bytes(in, bytes, sizeof(bytes));
	poke(gpa, bytes, sizeof(bytes));
}

static void step_packed(bool modern, struct vqueue_info *vq)
{
	guard(must_not_use_memory());
	switch (fuzz_choice(in, 8)) {
	case 0:
		write_event(vq);
		break;
	case 1:
		write_bytes();
		break;
	case 2:
		write_table();
		break;
	case 3:
		poke16(vq->vq_desc_gpa + 16ull * fuzz_choice(in, 16) + 14,
		       (uint16_t)fuzz_int(in, 2));
		break;
	default:
		add_slots(vq);
		kick(modern, vq->vq_num);
		break;
	}
}

/*
 * --- All operations, in any order ---
 */

static void step_registers(bool modern, unsigned q)
{
	guard(false);
	switch (fuzz_choice(in, 10)) {
	case 0:
		set_status(modern);
		break;
	case 1:
		set_features(modern);
		break;
	case 2:
		select_queue(modern, q);
		break;
	case 3:
		set_queue(q);
		break;
	case 4:
		set_legacy_queue(q);
		break;
	case 5:
		go_live(modern);
		break;
	case 6:
		access_any();
		break;
	case 7:
		common(fuzz_bool(in) ? VIRTIO_PCI_COMMON_Q_ENABLE :
				       VIRTIO_PCI_COMMON_Q_RESET,
		       2, 1);
		break;
	case 8:
		set_interrupts();
		break;
	case 9:
		set_bus_master();
		break;
	}
}

static void step_rings(bool modern, struct vqueue_info *vq)
{
	unsigned b;

	if (vq->vq_flags && vq->vq_priv->packed) {
		step_packed(modern, vq);
		return;
	}
	b = fuzz_choice(in, 256);
	guard(must_not_use_memory());
	if (b >= 250) {
		turn_inward(vq);
		return;
	}
	switch (b % 10) {
	case 0:
	case 1:
		write_desc(vq);
		break;
	case 2:
		write_table();
		break;
	case 3:
		write_index(vq);
		break;
	case 4:
		write_bytes();
		break;
	case 5:
		make_available(vq);
		break;
	case 6:
		make_available(vq);
		kick(modern, vq->vq_num);
		break;
	default:
		add_good(vq);
		kick(modern, vq->vq_num);
		break;
	}
}

static unsigned nr_outstanding(struct vqueue_info *vq)
{
	if (vq->vq_flags && vq->vq_priv->packed)
		return packed_distance(vq, vq->vq_next_used, vq->vq_last_avail);
	return (uint16_t)(vq->vq_last_avail - vq->vq_next_used);
}

/*
 * Like a vhost-user front-end: stop a queue, and resume it where the ring's
 * owner says.
 */
static void stop_or_resume(struct vqueue_info *vq)
{
	if (vq->vq_flags && fuzz_bool(in)) {
		vi_pause_queue(vq);
		if (vq->vq_priv->nr_inflight == 0)
			vi_stop_queue(vq);
		return;
	}
	if (vq->vq_flags)
		return;
	set_queue(vq->vq_num);
	if (vq->vq_flags && vq->vq_priv->packed) {
		uint32_t base = (uint32_t)fuzz_int(in, 2);

		base |= (fuzz_bool(in) ? base : (uint32_t)fuzz_int(in, 2))
			<< 16;
		vq_resume(vq, base, false);
	} else {
		vq_resume(vq, (uint16_t)fuzz_int(in, 2), false);
	}
	/* No more can be in flight than there are entries. */
	fuzz_must((e.vs.vs_flags & VIRTIO_BROKEN) ||
		  nr_outstanding(vq) <= vq->vq_priv->nr);
}

static void step_device(struct vqueue_info *vq)
{
	guard(false);
	switch (fuzz_choice(in, 10)) {
	case 0:
		return_taken(vq);
		break;
	case 1:
		complete_taken(fuzz_choice(in, MAX_TAKEN));
		break;
	case 2:
		change_memory();
		break;
	case 3:
		change_log();
		break;
	case 4:
		pci_reset(&pi);
		break;
	case 5:
		pci_kick(&pi);
		break;
	case 6:
		vq_devcfg_changed(&e.vs);
		feeding = fuzz_bool(in);
		break;
	case 7:
		vi_error(&e.vs, "so the device says");
		break;
	case 8:
		after_wake();
		break;
	case 9:
		stop_or_resume(vq);
		break;
	}
}

static void step(void)
{
	uint8_t b = (uint8_t)fuzz_int(in, 1);
	struct vqueue_info *vq = &e.queues[(b >> 3) % NR_QUEUES];
	bool modern = !(b & 0x80);

	if ((b & 7) < 2)
		step_registers(modern, vq->vq_num);
	else if ((b & 7) < 6)
		step_rings(modern, vq);
	else
		step_device(vq);
}

static void begin(void)
{
	static const uint16_t sizes[NR_QUEUES] = { 16, 4, 2 };

	memset(&e, 0, sizeof(e));
	for (unsigned i = 0; i < NR_QUEUES; i++)
		e.queues[i].vq_qsize = sizes[i];
	echo_consts.vc_nvq = NR_QUEUES - 1;
	memset(&beyond, 0, sizeof(beyond));
	gm_init(&gm, &ops, NULL);
	for (unsigned i = 0; i < NR_REGIONS; i++) {
		add_region(&regions[i]);
		memset(regions[i].view - PAGES, 0, PAGES);
	}
	pci_func_init(&pi, &host, NULL, &gm);
	vi_softc_linkup(&e.vs, &echo_consts, &e, &pi, e.queues);
	vi_pci_init(&pi, VIRTIO_MODE_TRANSITIONAL, 0x1005, 4, 0xff);
	fuzz_must(vi_intr_init(&e.vs, true));
	fuzz_must(vi_pcibar_setup(&e.vs));
}

static void end(void)
{
	guard(false);
	while (e.nr_taken)
		complete_taken(0);
	pci_reset(&pi);
	fuzz_must(pci_is_idle(&pi));
	fuzz_must(gm_reap(&gm, gone, NULL) == 0);
	vi_softc_fini(&e.vs);
	pci_func_fini(&pi);
	gm_fini(&gm);
	for (unsigned i = 0; i < NR_REGIONS; i++)
		regions[i].len = 0;
	woken = feeding = false;
	last_region = 0;
}

static void setup(void)
{
	for (unsigned i = 0; i < NR_REGIONS; i++) {
		int fd = memfd_create("guest", 0);

		fuzz_must(fd >= 0 && ftruncate(fd, PAGES) == 0);
		regions[i].end = (char *)fuzz_pages(PAGES, fd) + PAGES;
		regions[i].view = (char *)fuzz_pages(PAGES, fd) + PAGES;
	}
	dirty = fuzz_pages(LOG_BYTES, -1);
}

static void run(struct fuzz_in *input)
{
	in = input;
	begin();
	if (fuzz_bool(in))
		go_live(fuzz_bool(in));
	for (unsigned n = 0; fuzz_more(in) && n < MAX_OPS; n++)
		step();
	end();
}

const struct fuzz_target fuzz_target = { .setup = setup, .run = run };

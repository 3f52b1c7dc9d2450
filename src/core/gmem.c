/* SPDX-License-Identifier: BSD-2-Clause */
/* Guest memory: a sorted table of regions. See <viodev/gmem.h>. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <viodev/gmem.h>

void gm_init(struct gmem *gm, const struct gmem_ops *ops, void *ops_arg)
{
	*gm = (struct gmem){ .ops = ops, .ops_arg = ops_arg };
}

void gm_fini(struct gmem *gm)
{
	free(gm->regions);
	free(gm->limbo);
	gm->regions = NULL;
	gm->limbo = NULL;
	gm->nr_regions = gm->cap_regions = 0;
	gm->nr_limbo = gm->cap_limbo = gm->hit = 0;
	gm->limbo_pins = 0;
	gm->gen++;
}

static bool region_has(const struct gm_region *r, gpa_t a)
{
	return a.v - r->base.v < r->len; /* wraps to huge when a is below */
}

/* Index of the first region that ends above @a. */
static unsigned first_above(const struct gmem *gm, gpa_t a)
{
	unsigned lo = 0, hi = gm->nr_regions;

	while (lo < hi) {
		unsigned mid = lo + (hi - lo) / 2;
		const struct gm_region *r = &gm->regions[mid];

		if (r->base.v + (r->len - 1) < a.v)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static bool search(struct gmem *gm, gpa_t a)
{
	unsigned i = first_above(gm, a);

	if (i == gm->nr_regions || !region_has(&gm->regions[i], a))
		return false;
	gm->hit = i;
	return true;
}

/* Inlined: every descriptor is looked up, and most hit the same region. */
static inline const struct gm_region *find(struct gmem *gm, gpa_t a)
{
	unsigned i = gm->hit;

	if (i >= gm->nr_regions || !region_has(&gm->regions[i], a)) {
		if (!search(gm, a))
			return NULL;
		i = gm->hit;
	}
	gm->touched |= gm->regions[i].pin;
	return &gm->regions[i];
}

/*
 * --- Adding and removing ---
 *
 * Each region has one of a few pins, and each pin counts the requests that use
 * a region with it. So a request is one count up and one down for most guests,
 * however many buffers it has. Where regions outnumber pins, one in limbo may
 * wait for requests that use another; but only for such as had begun when it
 * was removed, so that it does not wait for ever.
 */

/* The next pin in turn, if possible one that no region in limbo has. */
static uint64_t choose_pin(struct gmem *gm)
{
	unsigned pin = gm->next_pin;

	for (unsigned i = 0; i < GM_NR_PINS; i++) {
		pin = (gm->next_pin + i) % GM_NR_PINS;
		if (!(gm->limbo_pins & UINT64_C(1) << pin))
			break;
	}
	gm->next_pin = (pin + 1) % GM_NR_PINS;
	return UINT64_C(1) << pin;
}

/* Room in limbo for all regions and one more: removing cannot fail. */
static int grow_limbo(struct gmem *gm)
{
	unsigned want = gm->nr_limbo + gm->nr_regions + 1, cap = 16;
	void *p;

	if (want <= gm->cap_limbo)
		return 0;
	while (cap < want)
		cap *= 2;
	p = reallocarray(gm->limbo, cap, sizeof(*gm->limbo));
	if (!p)
		return -ENOMEM;
	gm->limbo = p;
	gm->cap_limbo = cap;
	return 0;
}

int gm_add(struct gmem *gm, gpa_t base, uint64_t len, void *host, unsigned prot)
{
	return gm_add_owned(gm, base, len, host, prot, NULL);
}

int gm_add_owned(struct gmem *gm, gpa_t base, uint64_t len, void *host,
		 unsigned prot, void *owner)
{
	unsigned i;

	if (len == 0 || base.v + (len - 1) < base.v)
		return -EINVAL;
	if (prot == 0 || (prot & ~(unsigned)(GM_READ | GM_WRITE)))
		return -EINVAL;

	i = first_above(gm, base);
	if (i < gm->nr_regions && gm->regions[i].base.v <= base.v + (len - 1))
		return -EEXIST;

	if (grow_limbo(gm) < 0)
		return -ENOMEM;
	if (gm->nr_regions == gm->cap_regions) {
		unsigned cap = gm->cap_regions ? 2 * gm->cap_regions : 16;
		void *p = reallocarray(gm->regions, cap, sizeof(*gm->regions));

		if (!p)
			return -ENOMEM;
		gm->regions = p;
		gm->cap_regions = cap;
	}
	memmove(&gm->regions[i + 1], &gm->regions[i],
		(gm->nr_regions - i) * sizeof(*gm->regions));
	gm->regions[i] = (struct gm_region){ base, len,   host,
					     prot, owner, choose_pin(gm) };
	gm->nr_regions++;
	gm->gen++;
	return 0;
}

static uint32_t nr_users(const struct gmem *gm, const struct gm_region *r)
{
	return gm->users[__builtin_ctzll(r->pin)];
}

static void enter_limbo(struct gmem *gm, const struct gm_region *r)
{
	gm->limbo[gm->nr_limbo++] = (struct gm_limbo){
		.region = *r,
		.gen = gm->gen,
		.users = nr_users(gm, r),
	};
	gm->limbo_pins |= r->pin;
}

int gm_remove(struct gmem *gm, gpa_t base, uint64_t len, gm_removed_cb *removed,
	      void *arg)
{
	unsigned nr_used = 0;
	uint64_t last;
	unsigned i, j;

	if (len == 0)
		return 0;
	last = base.v + (len - 1);
	if (last < base.v)
		last = UINT64_MAX;

	i = first_above(gm, base);
	for (j = i; j < gm->nr_regions; j++) {
		const struct gm_region *r = &gm->regions[j];

		if (r->base.v > last)
			break;
		if (r->base.v < base.v || r->base.v + (r->len - 1) > last)
			return -EINVAL;
		nr_used += nr_users(gm, r) > 0;
	}
	if (i == j)
		return 0;
	gm->gen++; /* requests from here on do not find them */
	for (unsigned k = i; k < j; k++) {
		const struct gm_region *r = &gm->regions[k];

		if (nr_users(gm, r) > 0)
			enter_limbo(gm, r);
		else if (removed)
			removed(arg, r);
	}
	memmove(&gm->regions[i], &gm->regions[j],
		(gm->nr_regions - j) * sizeof(*gm->regions));
	gm->nr_regions -= j - i;
	return (int)nr_used;
}

unsigned gm_reap(struct gmem *gm, gm_removed_cb *removed, void *arg)
{
	unsigned left = 0;

	gm->limbo_pins = 0;
	for (unsigned i = 0; i < gm->nr_limbo; i++) {
		struct gm_limbo *l = &gm->limbo[i];

		if (l->users == 0) {
			if (removed)
				removed(arg, &l->region);
			continue;
		}
		gm->limbo_pins |= l->region.pin;
		gm->limbo[left++] = *l;
	}
	gm->nr_limbo = left;
	return left;
}

uint64_t gm_pin(struct gmem *gm, uint32_t *ret_gen)
{
	uint64_t pins = gm->touched;

	for (uint64_t rest = pins; rest; rest &= rest - 1)
		gm->users[__builtin_ctzll(rest)]++;
	*ret_gen = gm->gen;
	return pins;
}

bool gm_unpin(struct gmem *gm, uint64_t pins, uint32_t gen)
{
	bool any = false;

	for (uint64_t rest = pins; rest; rest &= rest - 1)
		gm->users[__builtin_ctzll(rest)]--;
	if (!(pins & gm->limbo_pins))
		return false;
	for (unsigned i = 0; i < gm->nr_limbo; i++) {
		struct gm_limbo *l = &gm->limbo[i];

		if ((pins & l->region.pin) && (int32_t)(gen - l->gen) < 0)
			any |= --l->users == 0;
	}
	return any;
}

/*
 * Whether the memory that follows region @i also follows it here, as pages of
 * an IOMMU do.
 */
static bool is_joined(const struct gmem *gm, unsigned i)
{
	const struct gm_region *r = &gm->regions[i], *next = r + 1;

	return i + 1 < gm->nr_regions && r->host &&
	       next->base.v == r->base.v + r->len &&
	       next->host == (char *)r->host + r->len;
}

void *gm_map(struct gmem *gm, gpa_t a, uint64_t len, unsigned prot)
{
	const struct gm_region *r = find(gm, a);
	uint64_t off, left;

	if (!r || !r->host || (r->prot & prot) != prot)
		return NULL;
	off = a.v - r->base.v;
	left = r->len - off;
	for (unsigned i = gm->hit; len > left; i++) {
		const struct gm_region *next = &gm->regions[i + 1];

		if (!is_joined(gm, i) || (next->prot & prot) != prot)
			return NULL;
		left += next->len;
		gm->touched |= next->pin;
	}
	return (char *)r->host + off;
}

/*
 * The part of [a, a + len) that lies in the first region: its region, and its
 * length in *ret_part. -errno when that region may not be used so.
 */
static int first_part(struct gmem *gm, gpa_t a, uint64_t len, unsigned prot,
		      const struct gm_region **ret_region, uint64_t *ret_part)
{
	const struct gm_region *r = find(gm, a);
	uint64_t left;

	if (!r)
		return -EFAULT;
	if ((r->prot & prot) != prot)
		return -EACCES;
	left = r->len - (a.v - r->base.v);
	*ret_region = r;
	*ret_part = len < left ? len : left;
	return 0;
}

static bool ends_at(const struct iovec *iov, const char *p)
{
	return (char *)iov->iov_base + iov->iov_len == p;
}

int gm_map_iov(struct gmem *gm, gpa_t a, uint64_t len, unsigned prot,
	       struct iovec *iov, int niov)
{
	int n = 0;

	do {
		const struct gm_region *r;
		uint64_t part;
		char *host;
		int ret = first_part(gm, a, len, prot, &r, &part);

		if (ret < 0)
			return ret;
		if (!r->host)
			return -ENOTSUP;
		if (len == 0)
			return 0;
		host = (char *)r->host + (a.v - r->base.v);
		if (n > 0 && ends_at(&iov[n - 1], host)) {
			iov[n - 1].iov_len += part;
		} else {
			if (n == niov)
				return -E2BIG;
			iov[n++] = (struct iovec){ host, part };
		}
		a.v += part;
		len -= part;
		/* a wraps to 0 only at the very end of the address space */
		if (len && a.v == 0)
			return -EFAULT;
	} while (len);
	return n;
}

int gm_check(struct gmem *gm, gpa_t a, uint64_t len, unsigned prot)
{
	while (len) {
		const struct gm_region *r;
		uint64_t part;
		int ret = first_part(gm, a, len, prot, &r, &part);

		if (ret < 0)
			return ret;
		a.v += part;
		len -= part;
		if (len && a.v == 0)
			return -EFAULT;
	}
	return 0;
}

/* One shape for both directions: exactly one of @in and @out is set. */
static int copy(struct gmem *gm, gpa_t a, char *in, const char *out, size_t len)
{
	while (len) {
		const struct gm_region *r;
		uint64_t part;
		int ret = first_part(gm, a, len, in ? GM_READ : GM_WRITE, &r,
				     &part);

		if (ret < 0)
			return ret;
		if (r->host && in)
			memcpy(in, (char *)r->host + (a.v - r->base.v), part);
		else if (r->host)
			memcpy((char *)r->host + (a.v - r->base.v), out, part);
		else if (in && gm->ops && gm->ops->read)
			ret = gm->ops->read(gm->ops_arg, a, in, part);
		else if (out && gm->ops && gm->ops->write)
			ret = gm->ops->write(gm->ops_arg, a, out, part);
		else
			ret = -EFAULT;
		if (ret < 0)
			return ret;
		if (in)
			in += part;
		else
			out += part;
		a.v += part;
		len -= part;
		if (len && a.v == 0)
			return -EFAULT;
	}
	return 0;
}

int gm_read(struct gmem *gm, gpa_t a, void *buf, size_t len)
{
	return copy(gm, a, buf, NULL, len);
}

int gm_write(struct gmem *gm, gpa_t a, const void *buf, size_t len)
{
	int ret = copy(gm, a, NULL, buf, len);

	gm_mark(gm, a,
		len); /* some may be written when the rest is not there */
	return ret;
}

void gm_set_log(struct gmem *gm, uint8_t *log, uint64_t len)
{
	gm->log = log;
	gm->log_len = len;
}

/* Release order: a reader that sees the bit sees what was written. */
void gm_mark_logged(struct gmem *gm, gpa_t a, uint64_t len)
{
	uint64_t page = a.v / GM_LOG_PAGE, last;

	if (len == 0 || a.v + (len - 1) < a.v)
		return;
	last = (a.v + (len - 1)) / GM_LOG_PAGE;
	while (page <= last && page / 8 < gm->log_len) {
		uint64_t byte = page / 8;
		unsigned bits = 0xffu << page % 8;

		if (byte == last / 8)
			bits &= 0xffu >> (7 - last % 8);
		__atomic_fetch_or(&gm->log[byte], (uint8_t)bits,
				  __ATOMIC_RELEASE);
		page = 8 * (byte + 1);
	}
}

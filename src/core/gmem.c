/* SPDX-License-Identifier: BSD-2-Clause */
/* Guest memory: a sorted table of regions. See <viodev/gmem.h>. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <viodev/gmem.h>

#define NO_ID UINT32_MAX

void gm_init(struct gmem *gm, const struct gmem_ops *ops, void *ops_arg)
{
	*gm = (struct gmem){
		.ops = ops,
		.ops_arg = ops_arg,
		.free_more = NO_ID,
	};
}

void gm_fini(struct gmem *gm)
{
	free(gm->regions);
	free(gm->limbo);
	free(gm->use);
	free(gm->more);
	gm->regions = gm->limbo = NULL;
	gm->use = NULL;
	gm->more = NULL;
	gm->nr_regions = gm->cap_regions = 0;
	gm->nr_limbo = gm->cap_limbo = gm->hit = 0;
	gm->nr_ids = gm->nr_more = 0;
	gm->free_few = 0;
	gm->free_more = NO_ID;
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

/* Note that the current request uses a region; its id is noted once. */
static inline void touch(struct gmem *gm, uint32_t id)
{
	if (id < GM_NR_FEW) {
		gm->few |= UINT64_C(1) << id;
	} else if (gm->use[id].request != gm->request) {
		gm->use[id].request = gm->request;
		gm->more[gm->nr_more++] = id;
	}
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
	touch(gm, gm->regions[i].id);
	return &gm->regions[i];
}

/*
 * --- Adding and removing ---
 *
 * Each region has an id, and each id counts the requests that use its region,
 * until the region was removed and the last request has ended. Most guests have
 * few regions, with ids below GM_NR_FEW: one word then holds a request's pins.
 * Behind an IOMMU there are thousands, and a request has a list.
 */

static void free_id(struct gmem *gm, uint32_t id)
{
	gm->use[id].limbo = false;
	if (id < GM_NR_FEW) {
		gm->free_few |= UINT64_C(1) << id;
	} else {
		gm->use[id].next_free = gm->free_more;
		gm->free_more = id;
	}
}

static bool has_free_id(const struct gmem *gm)
{
	return gm->free_few || gm->free_more != NO_ID;
}

static uint32_t take_id(struct gmem *gm)
{
	uint32_t id = gm->free_more;

	if (gm->free_few) {
		id = (uint32_t)__builtin_ctzll(gm->free_few);
		gm->free_few &= gm->free_few - 1;
	} else {
		gm->free_more = gm->use[id].next_free;
	}
	return id;
}

static int grow_ids(struct gmem *gm)
{
	uint32_t nr = gm->nr_ids ? 2 * gm->nr_ids : GM_NR_FEW;
	struct gm_use *use = reallocarray(gm->use, nr, sizeof(*use));
	uint32_t *more;

	if (!use)
		return -ENOMEM;
	gm->use = use;
	more = reallocarray(gm->more, nr, sizeof(*more));
	if (!more)
		return -ENOMEM;
	gm->more = more;
	memset(&use[gm->nr_ids], 0, (nr - gm->nr_ids) * sizeof(*use));
	while (nr > gm->nr_ids)
		free_id(gm, --nr);
	gm->nr_ids = gm->nr_ids ? 2 * gm->nr_ids : GM_NR_FEW;
	return 0;
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

	if (grow_limbo(gm) < 0 || (!has_free_id(gm) && grow_ids(gm) < 0))
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
	gm->regions[i] = (struct gm_region){
		.base = base,
		.len = len,
		.host = host,
		.prot = prot,
		.id = take_id(gm),
		.owner = owner,
	};
	gm->nr_regions++;
	gm->gen++;
	return 0;
}

static uint32_t nr_users(const struct gmem *gm, const struct gm_region *r)
{
	return gm->use[r->id].users;
}

static void enter_limbo(struct gmem *gm, const struct gm_region *r)
{
	gm->limbo[gm->nr_limbo++] = *r;
	gm->use[r->id].limbo = true;
}

static void forget(struct gmem *gm, const struct gm_region *r,
		   gm_removed_cb *removed, void *arg)
{
	if (removed)
		removed(arg, r);
	free_id(gm, r->id);
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
	gm->gen++; /* new requests do not find them */
	for (unsigned k = i; k < j; k++) {
		const struct gm_region *r = &gm->regions[k];

		if (nr_users(gm, r) > 0)
			enter_limbo(gm, r);
		else
			forget(gm, r, removed, arg);
	}
	memmove(&gm->regions[i], &gm->regions[j],
		(gm->nr_regions - j) * sizeof(*gm->regions));
	gm->nr_regions -= j - i;
	return (int)nr_used;
}

unsigned gm_reap(struct gmem *gm, gm_removed_cb *removed, void *arg)
{
	unsigned left = 0;

	for (unsigned i = 0; i < gm->nr_limbo; i++) {
		const struct gm_region *r = &gm->limbo[i];

		if (nr_users(gm, r) > 0)
			gm->limbo[left++] = *r;
		else
			forget(gm, r, removed, arg);
	}
	gm->nr_limbo = left;
	return left;
}

/* A copy of the list of ids, for a request that uses many regions. */
static int keep_more(struct gmem *gm, struct gm_pins *pins)
{
	size_t bytes = gm->nr_more * sizeof(*pins->more);

	if (gm->nr_pinned > 0 && gm->nr_pinned + gm->nr_more > GM_MAX_MORE)
		return -EAGAIN;
	pins->more = malloc(bytes);
	if (!pins->more)
		return -ENOMEM;
	memcpy(pins->more, gm->more, bytes);
	pins->nr_more = gm->nr_more;
	gm->nr_pinned += gm->nr_more;
	return 0;
}

int gm_pin(struct gmem *gm, struct gm_pins *ret_pins)
{
	struct gm_pins pins = { .few = gm->few };
	int ret = gm->nr_more > 0 ? keep_more(gm, &pins) : 0;

	if (ret < 0)
		return ret;
	for (uint64_t rest = pins.few; rest; rest &= rest - 1)
		gm->use[__builtin_ctzll(rest)].users++;
	for (uint32_t i = 0; i < pins.nr_more; i++)
		gm->use[pins.more[i]].users++;
	*ret_pins = pins;
	return 0;
}

/* True: a region in limbo has lost its last user. */
static bool drop_user(struct gm_use *use)
{
	return --use->users == 0 && use->limbo;
}

bool gm_unpin(struct gmem *gm, struct gm_pins *pins)
{
	bool any = false;

	for (uint64_t rest = pins->few; rest; rest &= rest - 1)
		any |= drop_user(&gm->use[__builtin_ctzll(rest)]);
	for (uint32_t i = 0; i < pins->nr_more; i++)
		any |= drop_user(&gm->use[pins->more[i]]);
	gm->nr_pinned -= pins->nr_more;
	free(pins->more);
	*pins = (struct gm_pins){ 0 };
	return any;
}

/*
 * Whether the next region follows region @i both there and here, as pages of an
 * IOMMU do.
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
		touch(gm, next->id);
	}
	return (char *)r->host + off;
}

/*
 * The part of [a, a + len) that lies in the first region: its region, and its
 * length in *ret_part. -errno if no region there allows @prot.
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

/* Copy in either direction: exactly one of @in and @out is set. */
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

	gm_mark(gm, a, len); /* a failed write may be partial */
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

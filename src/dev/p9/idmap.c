/* SPDX-License-Identifier: BSD-2-Clause */
/* Maps of user and group ids between guest and host: GUEST:HOST:COUNT+... */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "dev/p9/fs.h"

#define NOBODY 65534u /* shown for an id without a counterpart */

/* Parse a number and the one of @ends that must follow; move *text past it. */
static int parse_number(const char **text, const char *ends, uint32_t *ret_n)
{
	const char *c = *text;
	uint64_t n = 0;

	if (*c < '0' || *c > '9')
		return -EINVAL;
	for (; *c >= '0' && *c <= '9'; c++) {
		n = n * 10 + (uint64_t)(*c - '0');
		if (n > UINT32_MAX)
			return -EINVAL;
	}
	if (*c != ends[0] && *c != ends[1])
		return -EINVAL;
	*text = *c ? c + 1 : c;
	*ret_n = (uint32_t)n;
	return 0;
}

static bool overlap(uint32_t a, uint32_t b, uint32_t a_count, uint32_t b_count)
{
	return a < (uint64_t)b + b_count && b < (uint64_t)a + a_count;
}

static int add_range(struct p9_idmap *map, const char **text)
{
	uint32_t guest, host, count;

	if (map->nr == P9_MAX_RANGES || parse_number(text, ":", &guest) < 0 ||
	    parse_number(text, ":", &host) < 0 ||
	    parse_number(text, "+", &count) < 0)
		return -EINVAL;
	/* The last id means "none", on both sides. */
	if (count == 0 || (uint64_t)guest + count > UINT32_MAX ||
	    (uint64_t)host + count > UINT32_MAX)
		return -EINVAL;
	for (unsigned i = 0; i < map->nr; i++) {
		if (overlap(guest, map->range[i].guest, count,
			    map->range[i].count) ||
		    overlap(host, map->range[i].host, count,
			    map->range[i].count))
			return -EINVAL;
	}
	map->range[map->nr].guest = guest;
	map->range[map->nr].host = host;
	map->range[map->nr].count = count;
	map->nr++;
	return 0;
}

int p9_idmap_parse(const char *key, const char *text, struct p9_idmap *ret_map,
		   struct err *err)
{
	struct p9_idmap map = { .nr = 0 };
	const char *rest = text;

	while (rest && (*rest || map.nr == 0)) {
		if (add_range(&map, &rest) < 0)
			return err_set(
				err, -EINVAL,
				"9p: %s=%s: must be up to %d GUEST:HOST:COUNT "
				"joined by +, none overlapping",
				key, text, P9_MAX_RANGES);
	}
	*ret_map = map;
	return 0;
}

bool p9_id_to_host(const struct p9_idmap *map, uint32_t id, uint32_t *ret_id)
{
	if (map->nr == 0) {
		*ret_id = id;
		return true;
	}
	for (unsigned i = 0; i < map->nr; i++) {
		uint32_t off = id - map->range[i].guest;

		if (off < map->range[i].count) {
			*ret_id = map->range[i].host + off;
			return true;
		}
	}
	return false;
}

uint32_t p9_id_to_guest(const struct p9_idmap *map, uint32_t id)
{
	if (map->nr == 0)
		return id;
	for (unsigned i = 0; i < map->nr; i++) {
		uint32_t off = id - map->range[i].host;

		if (off < map->range[i].count)
			return map->range[i].guest + off;
	}
	return NOBODY;
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Each parser of vhost-user messages: what it accepts and rejects. B1 and B2
 * are sections of docs/spec/protocols.md, "hostile X" rows of
 * docs/spec/hostile.md.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/util.h"
#include "serve/vhost_user_msg.h"

#define MAX64 UINT64_MAX

static void test_header(void **state)
{
	static const struct {
		const char *name;
		struct vhmsg_hdr hdr;
		int ret;
	} rows[] = {
		{ "B1 plain", { 1, 1, 0 }, 0 },
		{ "B1 need_reply", { 1, 9, 8 }, 0 },
		{ "B1 largest", { 1, 1, VHMSG_MAX_PAYLOAD }, 0 },
		{ "B1 version 0", { 1, 0, 0 }, -EBADMSG },
		{ "B1 version 2", { 1, 2, 0 }, -EBADMSG },
		{ "B1 a reply, unasked", { 1, 5, 0 }, -EBADMSG },
		{ "hostile Q23 size",
		  { 1, 1, VHMSG_MAX_PAYLOAD + 1 },
		  -EBADMSG },
		{ "hostile Q23 huge size", { 1, 1, UINT32_MAX }, -EBADMSG },
	};
	struct vhmsg_hdr hdr;

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		print_message("%s\n", rows[i].name);
		assert_int_equal(vhmsg_decode_hdr(&rows[i].hdr, 12, &hdr),
				 rows[i].ret);
		for (size_t len = 0; len < 12; len++)
			assert_int_equal(
				vhmsg_decode_hdr(&rows[i].hdr, len, &hdr),
				-EAGAIN);
	}
}

/* Every parser, with its payload cut at each length. */
static void test_short_payloads(void **state)
{
	/* One region, or ring 1; as a number of 64 bits, ring 1 as well. */
	const struct {
		uint32_t nr, padding;
		uint64_t rest[7];
	} good = { 1, 0, { 0x10001, 1, 1, 1, 1, 1, 1 } };
	const uint64_t number[8] = { 1, 1, 1, 1, 1, 1, 1, 1 };
	struct vhmsg_region regions[VHMSG_MAX_REGIONS], region;
	struct vhmsg_inflight inflight;
	struct vhmsg_vring_addr addr;
	struct vhmsg_config config;
	struct vhmsg_vring vring;
	struct vhmsg_vring_fd fd;
	struct vhmsg_log log;
	uint64_t val;

	for (size_t len = 0; len <= 40; len++) {
		/* Separate, so that a read past its end is detected. */
		void *p = malloc(len ? len : 1);

#define IS_OK(parse, enough) assert_int_equal((parse) >= 0, len >= (enough))
		memcpy(p, number, len);
		IS_OK(vhmsg_decode_u64(p, len, &val), 8u);
		IS_OK(vhmsg_decode_vring_fd(p, len, 1, &fd), 8u);
		memcpy(p, &good, len);
		IS_OK(vhmsg_decode_vring(p, len, &vring), 8u);
		IS_OK(vhmsg_decode_vring_addr(p, len, &addr), 40u);
		IS_OK(vhmsg_decode_region(p, len, &region), 40u);
		IS_OK(vhmsg_decode_mem_table(p, len, 1, regions), 40u);
		IS_OK(vhmsg_decode_log(p, len, &log), 16u);
		if (len < 20) /* its queue_size is 0 here */
			assert_int_equal(
				vhmsg_decode_inflight(p, len, &inflight),
				-EINVAL);
		if (len < 13)
			assert_int_equal(vhmsg_decode_config(p, len, &config),
					 -EINVAL);
#undef IS_OK
		free(p);
	}
}

static void test_regions(void **state)
{
	static const struct {
		const char *name;
		uint64_t gpa, size, uaddr, offset;
		int ret;
	} rows[] = {
		{ "B2", 0, 4096, 4096, 0, 0 },
		{ "trap 34 odd sizes", 1, 0x3b10, 7, 5, 0 },
		{ "to the end of all addresses", MAX64, 1, MAX64, 0, 0 },
		{ "empty", 0, 0, 0, 0, -EINVAL },
		{ "hostile D3 address wraps", MAX64, 2, 0, 0, -EINVAL },
		{ "hostile D3 uaddr wraps", 0, 2, MAX64, 0, -EINVAL },
		{ "hostile D3 size", 0, MAX64, 0, 0, -EINVAL },
		{ "hostile D3 offset wraps", 0, 2, 0, MAX64, -EINVAL },
		{ "hostile D3 past every file", 0, 1, 0, INT64_MAX, -EINVAL },
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		uint64_t one[5] = { 0, rows[i].gpa, rows[i].size, rows[i].uaddr,
				    rows[i].offset };
		const struct {
			uint32_t nr, padding;
			uint64_t region[4];
		} table = { 1,
			    0,
			    { rows[i].gpa, rows[i].size, rows[i].uaddr,
			      rows[i].offset } };
		struct vhmsg_region r, regions[VHMSG_MAX_REGIONS];

		print_message("%s\n", rows[i].name);
		assert_int_equal(vhmsg_decode_region(one, 40, &r), rows[i].ret);
		assert_int_equal(vhmsg_decode_mem_table(&table, 40, 1, regions),
				 rows[i].ret < 0 ? rows[i].ret : 1);
	}
}

/* A file for each region, no more than present and no more than allowed. */
static void test_mem_table(void **state)
{
	struct vhmsg_region regions[VHMSG_MAX_REGIONS];
	struct {
		uint32_t nr, padding;
		uint64_t r[VHMSG_MAX_REGIONS + 1][4];
	} table = { 0 };

	for (unsigned i = 0; i <= VHMSG_MAX_REGIONS; i++)
		table.r[i][1] = 4096;
	for (uint32_t nr = 0; nr <= VHMSG_MAX_REGIONS + 1; nr++) {
		bool ok = nr <= VHMSG_MAX_REGIONS;

		table.nr = nr;
		assert_int_equal(vhmsg_decode_mem_table(&table, sizeof(table),
							nr, regions),
				 ok ? (int)nr : -EINVAL);
		assert_int_equal(vhmsg_decode_mem_table(&table, sizeof(table),
							nr + 1, regions),
				 -EINVAL);
	}
	table.nr = UINT32_MAX;
	assert_int_equal(
		vhmsg_decode_mem_table(&table, sizeof(table), 8, regions),
		-EINVAL);
}

static void test_config(void **state)
{
	static const struct {
		const char *name;
		uint32_t offset, size;
		size_t len;
		int ret;
	} rows[] = {
		{ "B2", 0, 60, 72, 0 },
		{ "all of it", 0, 256, 268, 0 },
		{ "empty", 0, 0, 12, -EINVAL },
		{ "less data than told", 0, 60, 71, -EINVAL },
		{ "hostile D30 too much", 0, 257, 269, -EINVAL },
		{ "hostile D30 beyond the end", 200, 57, 69, 0 },
		{ "trap 27 old Cloud Hypervisor", 256, 60, 72, 0 },
		{ "trap 27 offset wraps", UINT32_MAX, 2, 14, -EINVAL },
		{ "trap 27 size wraps", 2, UINT32_MAX, 268, -EINVAL },
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		uint32_t *p = calloc(1, rows[i].len + 4);
		struct vhmsg_config c;

		p[0] = rows[i].offset;
		p[1] = rows[i].size;
		print_message("%s\n", rows[i].name);
		assert_int_equal(vhmsg_decode_config(p, rows[i].len, &c),
				 rows[i].ret);
		free(p);
	}
}

static void test_vring_fd(void **state)
{
	static const struct {
		const char *name;
		uint64_t val;
		unsigned nr_fds;
		int ret;
	} rows[] = {
		{ "B2", 3, 1, 0 },
		{ "polled", 0x103, 0, 0 },
		{ "polled, and yet a descriptor", 0x103, 1, -EINVAL },
		{ "descriptor missing", 3, 0, -EINVAL },
		{ "hostile D2 two descriptors", 3, 2, -EINVAL },
		{ "hostile D4 index cut short", 0x10000, 1, -EINVAL },
		{ "hostile D4 high bits", 1ull << 63, 1, -EINVAL },
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct vhmsg_vring_fd fd;

		print_message("%s\n", rows[i].name);
		assert_int_equal(vhmsg_decode_vring_fd(&rows[i].val, 8,
						       rows[i].nr_fds, &fd),
				 rows[i].ret);
	}
}

static void test_log_and_inflight(void **state)
{
	static const struct {
		const char *name;
		uint64_t size, offset;
		uint16_t nr_queues, queue_size;
		int log_ret, inflight_ret;
	} rows[] = {
		{ "B2", 4096, 0, 1, 128, 0, 0 },
		{ "nothing", 0, 0, 1, 128, -EINVAL, 0 },
		{ "hostile D3 wraps", MAX64, 1, 1, 128, -EINVAL, -EINVAL },
		{ "hostile D3 offset", 1, MAX64, 1, 128, -EINVAL, -EINVAL },
		{ "hostile D9 no queues", 4096, 0, 0, 128, 0, -EINVAL },
		{ "hostile D9 no entries", 4096, 0, 1, 0, 0, -EINVAL },
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct vhmsg_inflight m = { rows[i].size, rows[i].offset,
					    rows[i].nr_queues,
					    rows[i].queue_size };
		struct vhmsg_inflight inflight;
		struct vhmsg_log log;

		print_message("%s\n", rows[i].name);
		assert_int_equal(vhmsg_decode_log(&m, 16, &log),
				 rows[i].log_ret);
		assert_int_equal(vhmsg_decode_inflight(&m, 20, &inflight),
				 rows[i].inflight_ret);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_header),
		cmocka_unit_test(test_short_payloads),
		cmocka_unit_test(test_regions),
		cmocka_unit_test(test_mem_table),
		cmocka_unit_test(test_config),
		cmocka_unit_test(test_vring_fd),
		cmocka_unit_test(test_log_and_inflight),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

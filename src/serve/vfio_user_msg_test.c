/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * vfio-user messages, good and bad. Rows are named after the part of
 * docs/spec/protocols.md that they test; hostile D39 is the row of
 * docs/spec/hostile.md about sizes, indices and ranges.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/util.h"
#include "serve/vfio_user_msg.h"

#define MAX64 UINT64_MAX
#define MAX32 UINT32_MAX

/* A copy of exactly the payload, so that ASan sees over-reads. */
static void *exact(const void *p, size_t len)
{
	void *copy = malloc(len ? len : 1);

	memcpy(copy, p, len);
	return copy;
}

/*
 * --- Header, A1 ---
 */

static void test_hdr(void **state)
{
	static const struct {
		const char *name;
		struct vfmsg_hdr hdr;
		size_t len;
		int ret;
	} rows[] = {
		{ "A1 command", { 7, 4, 32, 0, 0 }, 16, 0 },
		{ "A1 reply", { 7, 11, 32, 1, 0 }, 16, 0 },
		{ "A1 bare", { 7, 13, 16, 0x10, 0 }, 16, 0 },
		{ "A1 largest", { 7, 10, VFMSG_MAX_BYTES, 0, 0 }, 16, 0 },
		{ "A1 unknown command", { 7, 65535, 16, 0, 0 }, 16, 0 },
		{ "A1 half a header", { 7, 4, 32, 0, 0 }, 15, -EAGAIN },
		{ "A1 nothing", { 7, 4, 32, 0, 0 }, 0, -EAGAIN },
		{ "A1 size 15", { 7, 4, 15, 0, 0 }, 16, -EBADMSG },
		{ "A1 size 0", { 7, 4, 0, 0, 0 }, 16, -EBADMSG },
		{ "A1 too large",
		  { 7, 4, VFMSG_MAX_BYTES + 1, 0, 0 },
		  16,
		  -EBADMSG },
		{ "hostile D39 size", { 7, 4, MAX32, 0, 0 }, 16, -EBADMSG },
		{ "A1 type 2", { 7, 4, 16, 2, 0 }, 16, -EBADMSG },
		{ "A1 type 15", { 7, 4, 16, 15, 0 }, 16, -EBADMSG },
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct vfmsg_hdr hdr = { .id = 1 };
		void *p = exact(&rows[i].hdr, rows[i].len);

		print_message("%s\n", rows[i].name);
		assert_int_equal(vfmsg_decode_hdr(p, rows[i].len, &hdr),
				 rows[i].ret);
		assert_int_equal(hdr.id, rows[i].ret ? 1 : 7);
		free(p);
	}
}

/*
 * --- VERSION, A3 ---
 */

#define CAPS(text) "{\"capabilities\":{" text "}}"

static void test_version(void **state)
{
	static const struct {
		const char *name;
		uint16_t major, minor;
		const char *json; /* NULL: none, not even a NUL */
		int ret;
		uint64_t max_xfer;
		bool write_multi, twin;
	} rows[] = {
		{ "A3 QEMU", 0, 0,
		  CAPS("\"max_msg_fds\":16,\"max_data_xfer_size\":65536,"
		       "\"write_multiple\":true,\"migration\":{}"),
		  0, 65536, true, false },
		{ "A3 Cloud Hypervisor, 0.1", 0, 1, CAPS(""), 0, 1 << 20 },
		{ "A3 SPDK, no JSON", 0, 0, NULL, 0, 1 << 20 },
		{ "A3 empty string", 0, 0, "", 0, 1 << 20 },
		{ "A3 no capabilities", 0, 0, "{}", 0, 1 << 20 },
		{ "A3 unknown keys", 0, 0,
		  "{\"x\":[1,{}],"
		  "\"capabilities\":{\"y\":null}}",
		  0, 1 << 20 },
		{ "A3 twin socket", 0, 0,
		  CAPS("\"twin_socket\":{\"supported\":true}"), 0, 1 << 20,
		  false, true },
		{ "A3 twin socket, not", 0, 0,
		  CAPS("\"twin_socket\":{\"supported\":false}"), 0, 1 << 20 },
		{ "A3 huge number", 0, 0,
		  CAPS("\"max_data_xfer_size\":18446744073709551615"), 0,
		  MAX64 },
		{ "A3 major 1", 1, 0, CAPS(""), -EOPNOTSUPP },
		{ "A3 major 65535", 65535, 0, CAPS(""), -EOPNOTSUPP },
		{ "A3 not JSON", 0, 0, "hello", -EINVAL },
		{ "A3 cut JSON", 0, 0, "{\"capabilities\":{", -EINVAL },
		{ "A3 two texts", 0, 0, "{}{}", -EINVAL },
		{ "A3 array", 0, 0, "[]", -EINVAL },
		{ "A3 null", 0, 0, "null", -EINVAL },
		{ "A3 number", 0, 0, "1", -EINVAL },
		{ "A3 capabilities: array", 0, 0, "{\"capabilities\":[]}",
		  -EINVAL },
		{ "A3 string for number", 0, 0,
		  CAPS("\"max_data_xfer_size\":\"1\""), -EINVAL },
		{ "A3 double for number", 0, 0,
		  CAPS("\"max_data_xfer_size\":1e6"), -EINVAL },
		{ "A3 negative", 0, 0, CAPS("\"max_msg_fds\":-1"), -EINVAL },
		{ "A3 zero transfer", 0, 0, CAPS("\"max_data_xfer_size\":0"),
		  -EINVAL },
		{ "A3 number for bool", 0, 0, CAPS("\"write_multiple\":1"),
		  -EINVAL },
		{ "A3 bool for object", 0, 0, CAPS("\"twin_socket\":true"),
		  -EINVAL },
		{ "A3 too deep", 0, 0, CAPS("\"a\":[[[[[[[[[[[[1]]]]]]]]]]]]"),
		  -EINVAL },
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		size_t json_len = rows[i].json ? strlen(rows[i].json) + 1 : 0;
		uint8_t *p = malloc(4 + json_len);
		struct vfmsg_version v = { 0 };

		print_message("%s\n", rows[i].name);
		memcpy(p, &rows[i].major, 2);
		memcpy(p + 2, &rows[i].minor, 2);
		if (json_len)
			memcpy(p + 4, rows[i].json, json_len);
		assert_int_equal(vfmsg_decode_version(p, 4 + json_len, &v),
				 rows[i].ret);
		assert_int_equal(v.max_xfer, rows[i].max_xfer);
		assert_int_equal(v.write_multi, rows[i].write_multi);
		assert_int_equal(v.twin_socket, rows[i].twin);
		free(p);
	}
}

static void test_version_bounds(void **state)
{
	struct vfmsg_version v;
	uint8_t *p = calloc(1, 1 << 20);

	/* A3: shorter than its fixed part; not terminated; too long. */
	for (size_t len = 0; len < 4; len++)
		assert_int_equal(vfmsg_decode_version(p, len, &v), -EINVAL);
	memcpy(p + 4, "{}", 2);
	assert_int_equal(vfmsg_decode_version(p, 6, &v), -EINVAL);
	assert_int_equal(vfmsg_decode_version(p, 7, &v), 0);
	/* What follows the NUL is ignored. */
	assert_int_equal(vfmsg_decode_version(p, 100, &v), 0);
	memset(p + 4, ' ', (1 << 20) - 5);
	assert_int_equal(vfmsg_decode_version(p, 1 << 20, &v), -EINVAL);
	free(p);
}

/* A3: the reply is never longer than the request, and drops parts in order. */
static void test_version_reply(void **state)
{
	bool had_twin = true, had_multi = true, had_caps = true;
	size_t last = 1000;

	for (size_t room = 300; room >= 4; room--) {
		struct vfmsg_version answer = {
			.write_multi = true,
			.twin_socket = true,
		};
		char *p = malloc(room);
		size_t len = vfmsg_encode_version(p, room, &answer);
		bool caps = len > 4 && strstr(p + 4, "max_msg_fds");

		assert_true(len <= room && len <= last);
		if (len > 4) {
			assert_int_equal(p[len - 1], 0);
			assert_int_equal(strlen(p + 4), len - 5);
			assert_non_null(strstr(p + 4, "\"capabilities\""));
			assert_int_equal(!!strstr(p + 4, "twin_socket"),
					 answer.twin_socket);
			assert_int_equal(!!strstr(p + 4, "write_multiple"),
					 answer.write_multi);
		}
		assert_true(had_twin || !answer.twin_socket);
		assert_true(had_multi || !answer.write_multi);
		assert_true(had_caps || !caps);
		assert_true(answer.twin_socket || !answer.write_multi);
		had_twin = answer.twin_socket;
		had_multi = answer.write_multi;
		had_caps = caps;
		last = len;
		free(p);
	}
	assert_int_equal(last, 4); /* SPDK's: no JSON at all */
	assert_false(had_twin || had_multi || had_caps);
}

/*
 * --- DMA_MAP and DMA_UNMAP, A4 ---
 */

static void test_dma_map(void **state)
{
	static const struct {
		const char *name;
		struct {
			uint32_t argsz, flags;
			uint64_t offset, iova, size;
		} w;
		int ret;
		unsigned prot;
	} rows[] = {
		{ "A4 rw", { 32, 3, 0, 0, 4096 }, 0, GM_READ | GM_WRITE },
		{ "A4 ro", { 32, 1, 0, 0, 4096 }, 0, GM_READ },
		{ "A4 wo", { 32, 2, 0, 0, 4096 }, 0, GM_WRITE },
		{ "A4 mmap flag",
		  { 32, 7, 0, 0, 4096 },
		  0,
		  GM_READ | GM_WRITE },
		{ "A4 last page but one",
		  { 32, 3, 0, MAX64 - 8191, 4096 },
		  0,
		  GM_READ | GM_WRITE },
		{ "A4 argsz larger",
		  { 64, 3, 0, 0, 1 },
		  0,
		  GM_READ | GM_WRITE },
		{ "hostile D39 argsz", { 31, 3, 0, 0, 4096 }, -EINVAL },
		{ "hostile D39 argsz 0", { 0, 3, 0, 0, 4096 }, -EINVAL },
		{ "A4 no protection", { 32, 0, 0, 0, 4096 }, -EINVAL },
		{ "A4 only mmap", { 32, 4, 0, 0, 4096 }, -EINVAL },
		{ "A4 pread flag", { 32, 11, 0, 0, 4096 }, -EINVAL },
		{ "A4 all flags", { 32, MAX32, 0, 0, 4096 }, -EINVAL },
		{ "hostile D39 count 0", { 32, 3, 0, 0, 0 }, -EINVAL },
		{ "hostile D39 iova wraps", { 32, 3, 0, MAX64, 2 }, -EINVAL },
		{ "hostile D39 size", { 32, 3, 0, 4096, MAX64 }, -EINVAL },
		{ "hostile D39 offset", { 32, 3, MAX64, 0, 1 }, -EINVAL },
		{ "hostile D39 offset + size",
		  { 32, 3, INT64_MAX, 0, 1 },
		  -EINVAL },
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct vfmsg_dma_map map = { 0 };
		void *p = exact(&rows[i].w, 32);

		print_message("%s\n", rows[i].name);
		assert_int_equal(vfmsg_decode_dma_map(p, 32, &map),
				 rows[i].ret);
		assert_int_equal(map.prot, rows[i].prot);
		assert_int_equal(vfmsg_decode_dma_map(p, 31, &map), -EINVAL);
		free(p);
	}
}

static void test_dma_unmap(void **state)
{
	static const struct {
		const char *name;
		struct {
			uint32_t argsz, flags;
			uint64_t iova, size;
		} w;
		int ret;
		uint64_t size;
	} rows[] = {
		{ "A4 a range", { 24, 0, 4096, 4096 }, 0, 4096 },
		{ "A7 superset up to the end",
		  { 24, 0, 0xfef00000, 0xffffffff01100000 },
		  0,
		  0xffffffff01100000 },
		{ "A7 past the end", { 24, 0, MAX64, MAX64 }, 0, MAX64 },
		{ "A4 all", { 24, 2, 0, 0 }, 0, MAX64 },
		{ "A4 all, with address", { 24, 2, 4096, 0 }, -EINVAL },
		{ "A4 all, with size", { 24, 2, 0, 4096 }, -EINVAL },
		{ "A4 dirty bitmap", { 24, 1, 0, 4096 }, -EINVAL },
		{ "A4 all flags", { 24, MAX32, 0, 0 }, -EINVAL },
		{ "hostile D39 argsz", { 23, 0, 0, 4096 }, -EINVAL },
		{ "hostile D39 count 0", { 24, 0, 0, 0 }, -EINVAL },
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct vfmsg_dma_unmap unmap = { 0 };
		void *p = exact(&rows[i].w, 24);

		print_message("%s\n", rows[i].name);
		assert_int_equal(vfmsg_decode_dma_unmap(p, 24, &unmap),
				 rows[i].ret);
		assert_true(unmap.size == rows[i].size);
		assert_int_equal(vfmsg_decode_dma_unmap(p, 23, &unmap),
				 -EINVAL);
		free(p);
	}
}

/*
 * --- GET_*_INFO, A4 ---
 */

static void test_info(void **state)
{
	static const struct {
		const char *name;
		uint32_t argsz, index;
		int region, irq, info; /* what each of the parsers returns */
	} rows[] = {
		{ "A4 first", 32, 0, 0, 0, 0 },
		{ "A4 REQ", 32, 4, 0, 0, 0 },
		{ "A4 config space", 32, 7, 0, -EINVAL, 0 },
		{ "A4 VGA", 32, 8, 0, -EINVAL, 0 },
		{ "A4 one too many", 32, 9, -EINVAL, -EINVAL, 0 },
		{ "hostile D39 index", 32, MAX32, -EINVAL, -EINVAL, 0 },
		{ "A4 argsz 16", 16, 0, -EINVAL, 0, 0 },
		{ "hostile D39 argsz 15", 15, 0, -EINVAL, -EINVAL, -EINVAL },
		{ "hostile D39 argsz 0", 0, 0, -EINVAL, -EINVAL, -EINVAL },
		{ "A9 argsz 77", 77, 0, 0, 0, 0 },
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		uint32_t w[8] = { rows[i].argsz, 0, rows[i].index };
		struct vfmsg_region_info region = { 0 };
		struct vfmsg_irq_info irq = { 0 };
		void *p = exact(w, 32);

		print_message("%s\n", rows[i].name);
		assert_int_equal(vfmsg_decode_info(p, 16), rows[i].info);
		assert_int_equal(vfmsg_decode_region_info(p, 32, &region),
				 rows[i].region);
		assert_int_equal(region.argsz, rows[i].region ? 0 : 32);
		assert_int_equal(vfmsg_decode_irq_info(p, 16, &irq),
				 rows[i].irq);
		assert_int_equal(irq.argsz, rows[i].irq ? 0 : 16);
		assert_int_equal(vfmsg_decode_info(p, 15), -EINVAL);
		assert_int_equal(vfmsg_decode_irq_info(p, 15, &irq), -EINVAL);
		assert_int_equal(vfmsg_decode_region_info(p, 31, &region),
				 -EINVAL);
		free(p);
	}
}

/*
 * --- SET_IRQS, A4 ---
 */

static void test_set_irqs(void **state)
{
	static const struct {
		const char *name;
		struct {
			uint32_t argsz, flags, index, start, count;
		} w;
		size_t bools;
		int ret;
	} rows[] = {
		{ "A4 bind", { 20, 0x24, 2, 0, 3 }, 0, 0 },
		{ "A4 unbind all", { 20, 0x21, 2, 0, 0 }, 0, 0 },
		{ "A4 loop-back", { 20, 0x21, 2, 1, 1 }, 0, 0 },
		{ "A4 bools", { 23, 0x22, 2, 0, 3 }, 3, 0 },
		{ "A4 bools, more than told", { 20, 0x22, 2, 0, 3 }, 9, 0 },
		{ "A4 unmask", { 20, 0x11, 0, 0, 1 }, 0, 0 },
		{ "A4 mask", { 20, 0x09, 0, 0, 1 }, 0, 0 },
		{ "A4 resample", { 20, 0x14, 0, 0, 1 }, 0, 0 },
		{ "A4 no data kind", { 20, 0x20, 0, 0, 1 }, 0, -EINVAL },
		{ "A4 two data kinds", { 20, 0x23, 0, 0, 1 }, 1, -EINVAL },
		{ "A4 no action", { 20, 0x01, 0, 0, 1 }, 0, -EINVAL },
		{ "A4 two actions", { 20, 0x31, 0, 0, 1 }, 0, -EINVAL },
		{ "A4 unknown flag", { 20, 0x61, 0, 0, 1 }, 0, -EINVAL },
		{ "A4 no flags", { 20, 0, 0, 0, 1 }, 0, -EINVAL },
		{ "hostile D39 argsz", { 19, 0x24, 2, 0, 1 }, 0, -EINVAL },
		{ "hostile D39 index", { 20, 0x24, 5, 0, 1 }, 0, -EINVAL },
		{ "hostile D39 index max",
		  { 20, 0x24, MAX32, 0, 1 },
		  0,
		  -EINVAL },
		{ "hostile D39 start + count wraps",
		  { 20, 0x24, 2, MAX32, 2 },
		  0,
		  -EINVAL },
		{ "hostile D39 count wraps",
		  { 20, 0x24, 2, 1, MAX32 },
		  0,
		  -EINVAL },
		{ "hostile D39 count 0, bind",
		  { 20, 0x24, 2, 0, 0 },
		  0,
		  -EINVAL },
		{ "hostile D39 count 0, mask",
		  { 20, 0x09, 2, 0, 0 },
		  0,
		  -EINVAL },
		{ "hostile D39 count 0, start 1",
		  { 20, 0x21, 2, 1, 0 },
		  0,
		  -EINVAL },
		{ "A4 bools missing", { 23, 0x22, 2, 0, 3 }, 2, -EINVAL },
		{ "hostile D39 bools", { 20, 0x22, 2, 0, MAX32 }, 3, -EINVAL },
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		size_t len = 20 + rows[i].bools;
		struct vfmsg_set_irqs set = { .count = 77 };
		uint8_t w[64] = { 0 };
		void *p;

		print_message("%s\n", rows[i].name);
		memcpy(w, &rows[i].w, 20);
		p = exact(w, len);
		assert_int_equal(vfmsg_decode_set_irqs(p, len, &set),
				 rows[i].ret);
		if (rows[i].ret == 0)
			assert_int_equal(set.count, rows[i].w.count);
		assert_int_equal(vfmsg_decode_set_irqs(p, 19, &set), -EINVAL);
		free(p);
	}
}

/*
 * --- Accesses, A4 ---
 */

static void test_access(void **state)
{
	static const struct {
		const char *name;
		struct {
			uint64_t offset;
			uint32_t region, count;
		} w;
		size_t data;
		int read, write;
	} rows[] = {
		{ "A4 dword", { 0, 0, 4 }, 4, 0, 0 },
		{ "A4 nothing", { 0, 0, 0 }, 0, 0, 0 },
		{ "A4 more data than counted", { 0, 0, 4 }, 8, 0, 0 },
		{ "A4 data missing", { 0, 0, 4 }, 3, 0, -EINVAL },
		{ "A4 largest", { 0, 0, VFMSG_MAX_XFER }, 0, 0, -EINVAL },
		{ "A4 larger",
		  { 0, 0, VFMSG_MAX_XFER + 1 },
		  0,
		  -E2BIG,
		  -E2BIG },
		{ "hostile D39 count", { 0, 0, MAX32 }, 4, -E2BIG, -E2BIG },
		{ "hostile D39 offset", { MAX64, 0, 4 }, 4, 0, 0 },
		{ "hostile D39 region", { 0, MAX32, 4 }, 4, 0, 0 },
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		size_t len = 16 + rows[i].data;
		struct vfmsg_access a;
		uint8_t w[64] = { 0 };
		void *p;

		print_message("%s\n", rows[i].name);
		memcpy(w, &rows[i].w, 16);
		p = exact(w, len);
		assert_int_equal(vfmsg_decode_region_read(p, len, &a),
				 rows[i].read);
		assert_int_equal(vfmsg_decode_region_write(p, len, &a),
				 rows[i].write);
		assert_int_equal(vfmsg_decode_region_read(p, 15, &a), -EINVAL);
		assert_int_equal(vfmsg_decode_region_write(p, 15, &a), -EINVAL);
		free(p);
	}
}

static void test_write_multi(void **state)
{
	static const struct {
		const char *name;
		uint64_t nr;
		size_t entries;
		uint32_t count; /* of the last entry */
		int ret;
	} rows[] = {
		{ "A4 none", 0, 0, 0, 0 },
		{ "A4 two", 2, 2, 8, 2 },
		{ "A4 fewer than there are", 1, 2, 99, 1 },
		{ "A4 more than there are", 3, 2, 4, -EINVAL },
		{ "hostile D39 number", MAX64, 2, 4, -EINVAL },
		{ "hostile D39 number that wraps", MAX64 / 24 + 2, 2, 4,
		  -EINVAL },
		{ "A4 more than 8 bytes", 2, 2, 9, -EINVAL },
		{ "hostile D39 count", 2, 2, MAX32, -EINVAL },
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		size_t len = 8 + 24 * rows[i].entries;
		const uint64_t offset = 0x11;
		struct vfmsg_access a;
		uint8_t w[64] = { 0 };
		void *p;

		print_message("%s\n", rows[i].name);
		memcpy(w, &rows[i].nr, 8);
		memcpy(w + 8, &offset, 8); /* of the first */
		if (rows[i].entries == 2)
			memcpy(w + 8 + 24 + 12, &rows[i].count, 4);
		p = exact(w, len);
		assert_int_equal(vfmsg_decode_write_multi(p, len), rows[i].ret);
		if (rows[i].ret > 0) {
			vfmsg_decode_write_multi_entry(p, 0, &a);
			assert_int_equal(a.offset, offset);
			assert_ptr_equal(a.data, (char *)p + 24);
		}
		assert_int_equal(vfmsg_decode_write_multi(p, 7), -EINVAL);
		free(p);
	}
}

static void test_dma_data(void **state)
{
	static const struct {
		const char *name;
		uint64_t count;
		size_t data;
		int ret;
	} rows[] = {
		{ "A4 nothing", 0, 0, 0 },
		{ "A4 all", 8, 8, 0 },
		{ "A4 more than counted", 4, 8, 0 },
		{ "A4 less than counted", 8, 7, -EINVAL },
		{ "hostile D39 count", MAX64, 8, -EINVAL },
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct vfmsg_dma_data d;
		uint8_t w[64];
		void *p;

		print_message("%s\n", rows[i].name);
		vfmsg_encode_dma(w, (gpa_t){ 0x1000 }, rows[i].count);
		p = exact(w, 16 + rows[i].data);
		assert_int_equal(
			vfmsg_decode_dma_data(p, 16 + rows[i].data, &d),
			rows[i].ret);
		if (rows[i].ret == 0)
			assert_int_equal(d.iova.v, 0x1000);
		assert_int_equal(vfmsg_decode_dma_data(p, 15, &d), -EINVAL);
		free(p);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_hdr),
		cmocka_unit_test(test_version),
		cmocka_unit_test(test_version_bounds),
		cmocka_unit_test(test_version_reply),
		cmocka_unit_test(test_dma_map),
		cmocka_unit_test(test_dma_unmap),
		cmocka_unit_test(test_info),
		cmocka_unit_test(test_set_irqs),
		cmocka_unit_test(test_access),
		cmocka_unit_test(test_write_multi),
		cmocka_unit_test(test_dma_data),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

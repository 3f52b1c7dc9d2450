/* SPDX-License-Identifier: BSD-2-Clause */
/* The codec, and id maps. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include "base/util.h"
#include "dev/p9/fs.h"

#include <cmocka.h>

/* P9-22, hostile Q9: strings that are empty, too long, truncated, not text */
static void names(void **state)
{
	static const struct {
		const char *what;
		uint16_t len; /* as the message says */
		const char *bytes;
		size_t nr_bytes;
		size_t beyond; /* more of them that were not copied */
		int err;
	} rows[] = {
		{ "plain", 1, "a", 1, 0, 0 },
		{ "not UTF-8", 2, "\xff\xfe", 2, 0, 0 },
		{ "dots", 3, "...", 3, 0, 0 },
		{ "Q9 empty", 0, "", 0, 0, -EINVAL },
		{ "Q8 dot", 1, ".", 1, 0, -EINVAL },
		{ "Q8 dot dot", 2, "..", 2, 0, -EINVAL },
		{ "Q8 slash", 1, "/", 1, 0, -EINVAL },
		{ "Q8 slash inside", 3, "a/b", 3, 0, -EINVAL },
		{ "Q8 absolute", 4, "/etc", 4, 0, -EINVAL },
		{ "NUL inside", 3, "a\0b", 3, 0, -EINVAL },
		{ "P9-22 past the end", 2, "a", 1, 0, -EINVAL },
		{ "Q9 0xffff", 0xffff, "abc", 3, 0, -EINVAL },
		{ "long, not all copied", 1000, "abc", 3, 2000, -ENAMETOOLONG },
		{ "past what there is", 4000, "abc", 3, 2000, -EINVAL },
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		uint8_t msg[64];
		char name[P9_NAME_MAX + 1];
		struct p9_in in = {
			.p = msg,
			.left = 2 + rows[i].nr_bytes,
			.beyond = rows[i].beyond,
		};

		msg[0] = (uint8_t)rows[i].len;
		msg[1] = (uint8_t)(rows[i].len >> 8);
		memcpy(msg + 2, rows[i].bytes, rows[i].nr_bytes);
		p9_decode_name(&in, name);
		if (in.err != rows[i].err)
			fail_msg("%s: %d", rows[i].what, in.err);
		if (in.err == 0)
			assert_memory_equal(name, rows[i].bytes, rows[i].len);
		assert_int_equal(p9_decode32(&in), 0);
	}
}

static void long_name(void **state)
{
	uint8_t msg[2 + P9_NAME_MAX + 1];
	char name[P9_NAME_MAX + 1];

	for (unsigned len = P9_NAME_MAX; len <= P9_NAME_MAX + 1; len++) {
		struct p9_in in = { .p = msg, .left = 2 + len };

		memset(msg, 'x', sizeof(msg));
		msg[0] = (uint8_t)len;
		msg[1] = (uint8_t)(len >> 8);
		p9_decode_name(&in, name);
		assert_int_equal(in.err, len > P9_NAME_MAX ? -ENAMETOOLONG : 0);
	}
}

/* A missing field reads as zero, and so do all after it. */
static void numbers(void **state)
{
	static const uint8_t msg[] = { 1, 2, 0, 3, 0, 0, 0, 4, 0, 0 };
	struct p9_in in = { .p = msg, .left = sizeof(msg) };

	assert_int_equal(p9_decode8(&in), 1);
	assert_int_equal(p9_decode16(&in), 2);
	assert_int_equal(p9_decode32(&in), 3);
	assert_int_equal(in.err, 0);
	assert_int_equal(p9_decode64(&in), 0);
	assert_int_equal(in.err, -EINVAL);
	assert_int_equal(p9_decode8(&in), 0);
}

static void replies(void **state)
{
	uint8_t buf[17];
	struct out out = { .buf = buf, .size = sizeof(buf) };
	static const uint8_t want[] = { 0x80, 4, 3, 2, 1, 8, 7,   6,  5,
					4,    3, 2, 1, 2, 0, 'h', 'i' };

	p9_encode_qid(&out,
		      &(struct p9_qid){ 0x80, 0x01020304, 0x0102030405060708 });
	p9_encode_string(&out, "hi");
	assert_false(out.full);
	assert_int_equal(out.len, sizeof(want));
	assert_memory_equal(buf, want, sizeof(want));
	p9_encode8(&out, 0);
	assert_true(out.full);
	assert_int_equal(out.len, sizeof(want));
}

static void idmaps(void **state)
{
	static const struct {
		const char *text;
		bool ok;
	} rows[] = {
		{ NULL, true },
		{ "0:1000:1", true },
		{ "0:1000:1+1000:100000:65536", true },
		{ "0:0:4294967295", true },
		{ "", false },
		{ "0", false },
		{ "0:1000", false },
		{ "0:1000:0", false },
		{ "0:1000:1:1", false },
		{ "0:1000:x", false },
		{ "-1:1000:1", false },
		{ "4294967295:0:1", false },
		{ "0:4294967290:10", false },
		{ "0:1000:10+5:2000:1", false },
		{ "0:1000:10+10:1009:1", false },
		{ "99999999999:0:1", false },
	};
	struct p9_idmap map;
	struct err err;
	uint32_t id;

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		int ret = p9_idmap_parse("uidmap", rows[i].text, &map, &err);

		if ((ret == 0) != rows[i].ok)
			fail_msg("%s", rows[i].text);
	}
	p9_idmap_parse("uidmap", "0:1000:1+1000:100000:10", &map, &err);
	assert_true(p9_id_to_host(&map, 0, &id) && id == 1000);
	assert_true(p9_id_to_host(&map, 1009, &id) && id == 100009);
	assert_false(p9_id_to_host(&map, 1010, &id));
	assert_false(p9_id_to_host(&map, 1, &id));
	assert_int_equal(p9_id_to_guest(&map, 1000), 0);
	assert_int_equal(p9_id_to_guest(&map, 100005), 1005);
	assert_int_equal(p9_id_to_guest(&map, 0), 65534);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names),   cmocka_unit_test(long_name),
		cmocka_unit_test(numbers), cmocka_unit_test(replies),
		cmocka_unit_test(idmaps),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: BSD-2-Clause */
#include "base/opts.h"
#include "base/util.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static const struct opt_def block_opts[] = {
	{ .key = "path",
	  .kind = OPT_STRING,
	  .required = true,
	  .help = "the image" },
	{ .key = "ro", .kind = OPT_BOOL, .def = "off" },
	{ .key = "bps", .kind = OPT_SIZE, .def = "0" },
	{ .key = "cache",
	  .kind = OPT_CHOICE,
	  .def = "writeback",
	  .choices = "writeback|writethrough|direct" },
	{ .key = "serial", .kind = OPT_STRING },
	{ 0 },
};

static const struct opt_def common_opts[] = {
	{ .key = "queue-size",
	  .kind = OPT_NUMBER,
	  .def = "256",
	  .min = 2,
	  .max = 32768 },
	{ .key = "chunk", .kind = OPT_SIZE, .min = 512, .max = 1 << 20 },
	{ .key = "id", .kind = OPT_STRING },
	{ .key = "serial", .kind = OPT_NUMBER, .def = "7" }, /* hidden */
	{ 0 },
};

static const struct opt_def *const tables[] = { block_opts, common_opts, NULL };

/* The value of one key; @string NULL: the key has no value. */
static void test_values(void **state)
{
	static const struct {
		const char *text;
		const char *key;
		bool given;
		const char *string;
		uint64_t number;
	} rows[] = {
		{ "block,path=a", "path", true, "a", 0 },
		{ "block,path=", "path", true, "", 0 },
		{ "block,path=a=b", "path", true, "a=b", 0 },
		{ "block,path=a,,b,ro=on", "path", true, "a,b", 0 },
		{ "block,path=,,", "path", true, ",", 0 },
		{ "block,path=a,,,ro=on", "path", true, "a,", 0 },
		{ "block,path=a,,,ro=on", "ro", true, "on", 1 },
		{ "block,path=a,,,,b", "path", true, "a,,b", 0 },
		{ "block,path=a", "ro", false, "off", 0 },
		{ "block,path=a,ro=on", "ro", true, "on", 1 },
		{ "block,path=a,ro=true", "ro", true, "true", 1 },
		{ "block,path=a,ro=yes", "ro", true, "yes", 1 },
		{ "block,path=a,ro=1", "ro", true, "1", 1 },
		{ "block,path=a,ro=off", "ro", true, "off", 0 },
		{ "block,ro=0,path=a", "ro", true, "0", 0 },
		{ "block,path=a", "queue-size", false, "256", 256 },
		{ "block,path=a,queue-size=2", "queue-size", true, "2", 2 },
		{ "block,path=a,queue-size=0x80", "queue-size", true, "0x80",
		  128 },
		{ "block,path=a,bps=10M", "bps", true, "10M", 10 << 20 },
		{ "block,path=a", "chunk", false, NULL, 0 },
		{ "block,path=a", "id", false, NULL, 0 },
		{ "block,path=a", "cache", false, "writeback", 0 },
		{ "block,path=a,cache=direct", "cache", true, "direct", 0 },
		{ "block,path=a,serial=x", "serial", true, "x", 0 },
		{ "block,path=a", "serial", false, NULL, 0 },
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct opts *opts;
		struct err err;
		const char *string;

		print_message("%s: %s\n", rows[i].text, rows[i].key);
		assert_int_equal(opts_parse(rows[i].text, tables, &opts, &err),
				 0);
		assert_int_equal(opt_given(opts, rows[i].key), rows[i].given);
		string = opt_string(opts, rows[i].key);
		if (rows[i].string)
			assert_string_equal(string, rows[i].string);
		else
			assert_null(string);
		assert_int_equal(opt_number(opts, rows[i].key), rows[i].number);
		assert_int_equal(opt_bool(opts, rows[i].key),
				 rows[i].number != 0);
		opts_free(opts);
	}
}

static void test_errors(void **state)
{
	static const struct {
		const char *text;
		const char *error;
	} rows[] = {
		{ "block,pth=a",
		  "block: no such key 'pth': did you mean 'path'?" },
		{ "block,ptah=a",
		  "block: no such key 'ptah': did you mean 'path'?" },
		{ "block,path=a,queue-siz=8",
		  "block: no such key 'queue-siz': did you mean "
		  "'queue-size'?" },
		{ "block,colour=red",
		  "block: no such key 'colour': see 'viodev devices block'" },
		{ "block,=a",
		  "block: no such key '': see 'viodev devices block'" },
		{ "block", "block: missing path= (the image)" },
		{ "block,ro=on", "block: missing path= (the image)" },
		{ "block,", "block: key=value expected after a comma" },
		{ "block,path=a,", "block: key=value expected after a comma" },
		{ "block,,path=a", "block: key=value expected after a comma" },
		{ "block,path", "block: path: missing value, write "
				"path=VALUE" },
		{ "block,path=a,ro", "block: ro: missing value, write "
				     "ro=on" },
		{ "block,path=a,path=b", "block: path: given twice" },
		{ "block,path=a,ro=maybe", "block: ro=maybe: must be on or "
					   "off" },
		{ "block,path=a,ro=", "block: ro=: must be on or off" },
		{ "block,path=a,cache=write",
		  "block: cache=write: must be one of "
		  "writeback|writethrough|direct" },
		{ "block,path=a,cache=", "block: cache=: must be one of "
					 "writeback|writethrough|direct" },
		{ "block,path=a,cache=direct|writeback",
		  "block: cache=direct|writeback: must be one of "
		  "writeback|writethrough|direct" },
		{ "block,path=a,queue-size=1",
		  "block: queue-size=1: must be a number, from 2 to 32768" },
		{ "block,path=a,queue-size=32769",
		  "block: queue-size=32769: must be a number, from 2 to "
		  "32768" },
		{ "block,path=a,queue-size=8K",
		  "block: queue-size=8K: must be a number, from 2 to 32768" },
		{ "block,path=a,queue-size=-1",
		  "block: queue-size=-1: must be a number, from 2 to 32768" },
		{ "block,path=a,chunk=2M",
		  "block: chunk=2M: must be a size such as 512, 64K or 2G, "
		  "from 512 to 1048576" },
		{ "block,path=a,bps=fast",
		  "block: bps=fast: must be a size such as 512, 64K or 2G, at "
		  "least 0" },
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct opts *opts = (struct opts *)state;
		struct err err = { "" };

		print_message("%s\n", rows[i].text);
		assert_int_equal(opts_parse(rows[i].text, tables, &opts, &err),
				 -EINVAL);
		assert_string_equal(err.text, rows[i].error);
		assert_ptr_equal(opts, state); /* untouched */
	}
}

static void test_sizes(void **state)
{
	static const struct {
		const char *text;
		int ret;
		uint64_t bytes;
	} rows[] = {
		{ "0", 0, 0 },
		{ "512", 0, 512 },
		{ "010", 0, 10 },
		{ "64K", 0, 64 << 10 },
		{ "64k", 0, 64 << 10 },
		{ "3M", 0, 3 << 20 },
		{ "2G", 0, UINT64_C(2) << 30 },
		{ "1T", 0, UINT64_C(1) << 40 },
		{ "0x10", 0, 16 },
		{ "0xffffffffffffffff", 0, UINT64_MAX },
		{ "18446744073709551615", 0, UINT64_MAX },
		{ "18446744073709551616", -ERANGE, 0 },
		{ "99999999999999999999999", -ERANGE, 0 },
		{ "16777216T", -ERANGE, 0 },
		{ "16777215T", 0, UINT64_C(16777215) << 40 },
		{ "", -EINVAL, 0 },
		{ "K", -EINVAL, 0 },
		{ "0x", -EINVAL, 0 },
		{ "-1", -EINVAL, 0 },
		{ "+1", -EINVAL, 0 },
		{ " 1", -EINVAL, 0 },
		{ "1 ", -EINVAL, 0 },
		{ "1.5G", -EINVAL, 0 },
		{ "1KB", -EINVAL, 0 },
		{ "1P", -EINVAL, 0 },
		{ "1\vK", -EINVAL, 0 },
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		uint64_t bytes = 99;

		print_message("%s\n", rows[i].text);
		assert_int_equal(opt_parse_size(rows[i].text, &bytes),
				 rows[i].ret);
		assert_int_equal(bytes, rows[i].ret ? 99 : rows[i].bytes);
	}
}

static const struct opt_def lun_opts[] = {
	{ .key = "lun*", .kind = OPT_STRING },
	{ .key = "lun*.ro", .kind = OPT_BOOL, .def = "on" },
	{ .key = "t*.lun*", .kind = OPT_STRING },
	{ .key = "t*.lun*.size", .kind = OPT_SIZE, .min = 512, .max = 4096 },
	{ .key = "luns", .kind = OPT_NUMBER, .def = "3" },
	{ .key = "port.**", .kind = OPT_STRING },
	{ 0 },
};

static const struct opt_def *const patterns[] = { lun_opts, NULL };

/* A key with '*' matches others, each of them an option. */
static void test_patterns(void **state)
{
	static const struct {
		const char *text;
		const char *error; /* NULL: fine */
	} rows[] = {
		{ "scsi,lun=a", "scsi: no such key 'lun': did you mean "
				"'lun*'?" },
		{ "scsi,lun*=a", NULL }, /* a name like any other */
		{ "scsi,lun0=a,lun0=b", "scsi: lun0: given twice" },
		{ "scsi,lun0.ro=x", "scsi: lun0.ro=x: must be on or off" },
		{ "scsi,t1.lun0.size=1",
		  "scsi: t1.lun0.size=1: must be a size such as 512, 64K or "
		  "2G, from 512 to 4096" },
		{ "scsi,lun0", "scsi: lun0: missing value, write "
			       "lun0=VALUE" },
		{ "scsi,port.=a", "scsi: no such key 'port.': did you mean "
				  "'port.**'?" },
		{ "scsi,port.a.b=x,port.a.b=y", "scsi: port.a.b: given twice" },
		{ "scsi,t.lun0=a", "scsi: no such key 't.lun0': did you mean "
				   "'t*.lun*'?" },
	};
	struct opts *opts;
	struct err err;
	unsigned pos = 0;

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		int ret = opts_parse(rows[i].text, patterns, &opts, &err);

		print_message("%s\n", rows[i].text);
		assert_int_equal(ret, rows[i].error ? -EINVAL : 0);
		if (rows[i].error)
			assert_string_equal(err.text, rows[i].error);
		else
			opts_free(opts);
	}

	assert_int_equal(opts_parse("scsi,lun7=a,lun0.ro=off,luns=5,lun1=b,"
				    "t2.lun3=c,t2.lun3.size=1K,port.x.y.0=d",
				    patterns, &opts, &err),
			 0);
	assert_string_equal(opt_next(opts, "lun*", &pos), "lun7");
	assert_string_equal(opt_next(opts, "lun*", &pos), "lun1");
	assert_null(opt_next(opts, "lun*", &pos));
	pos = 0;
	assert_string_equal(opt_next(opts, "t*.lun*", &pos), "t2.lun3");
	assert_null(opt_next(opts, "t*.lun*", &pos));
	pos = 0;
	assert_string_equal(opt_next(opts, "port.**", &pos), "port.x.y.0");
	assert_string_equal(opt_string(opts, "port.x.y.0"), "d");
	assert_string_equal(opt_string(opts, "lun1"), "b");
	assert_string_equal(opt_string(opts, "t2.lun3"), "c");
	assert_int_equal(opt_number(opts, "t2.lun3.size"), 1024);
	assert_false(opt_bool(opts, "lun0.ro"));
	assert_true(opt_bool(opts, "lun1.ro")); /* the default */
	assert_true(opt_given(opts, "lun0.ro"));
	assert_false(opt_given(opts, "lun1.ro"));
	assert_null(opt_string(opts, "lun9"));
	assert_int_equal(opt_number(opts, "luns"), 5);
	opts_free(opts);
}

/* Texts longer than any buffer end in an error or in the whole value. */
static void test_long_texts(void **state)
{
	static char text[70000];
	struct opts *opts;
	struct err err;

	memset(text, 'x', sizeof(text) - 1);
	assert_int_equal(opts_parse(text, tables, &opts, &err), -EINVAL);
	memcpy(text, "block,", 6);
	assert_int_equal(opts_parse(text, tables, &opts, &err), -EINVAL);
	memcpy(text, "block,path=", 11);
	assert_int_equal(opts_parse(text, tables, &opts, &err), 0);
	assert_int_equal(strlen(opt_string(opts, "path")),
			 sizeof(text) - 1 - 11);
	opts_free(opts);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_values),
		cmocka_unit_test(test_errors),
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_patterns),
		cmocka_unit_test(test_long_texts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

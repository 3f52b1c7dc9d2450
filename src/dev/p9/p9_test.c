/* SPDX-License-Identifier: BSD-2-Clause */
/* The 9P device, as a driver sees it: docs/spec/conformance.md section 12. */
#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/util.h"
#include "p9_client.h"

#include <cmocka.h>

#define RDWR 2u

static struct p9c c;

static int teardown(void **state)
{
	p9c_destroy(&c);
	return 0;
}

static void start(const char *options)
{
	p9c_start(&c, VDRV_MODERN, options);
}

/*
 * --- Transport ---
 */

static void tag(void **state)
{
	/* P9-01, P9-L01 */
	for (int legacy = 0; legacy < 2; legacy++) {
		p9c_create(&c, legacy ? VDRV_LEGACY : VDRV_MODERN, "ag");
		assert_true(vdrv_start(&c.d, ~0ull, 1));
		assert_true(c.d.features & 1);
		/* The number in our guest's byte order. */
		assert_int_equal(vdrv_cfg_read(&c.d, 0, 2), 3);
		assert_int_equal(vdrv_cfg_read(&c.d, 2, 1), 't');
		assert_int_equal(vdrv_cfg_read(&c.d, 3, 1), 'a');
		assert_int_equal(vdrv_cfg_read(&c.d, 4, 1), 'g');
		/* The messages are little-endian in both modes. */
		p9c_mount(&c, 8192);
		p9c_destroy(&c);
	}
}

static void any_split(void **state)
{
	static const struct {
		uint32_t t, r;
	} cuts[] = { { 0, 0 }, { 1, 0 },   { 0, 1 },   { 3, 5 },
		     { 7, 7 }, { 11, 11 }, { 23, 11 }, { 4096, 4096 } };
	char text[300], back[300];

	start("");
	for (size_t i = 0; i < sizeof(text); i++)
		text[i] = (char)(i * 7);
	assert_int_equal(p9c_make(&c, 1, "f"), 0);
	for (size_t i = 0; i < ARRAY_LEN(cuts); i++) {
		c.t_cut = cuts[i].t; /* P9-02, P9-03 */
		c.r_cut = cuts[i].r;
		c.room = 600;
		assert_int_equal(p9c_write(&c, 1, i, text, sizeof(text)),
				 sizeof(text));
		assert_int_equal(p9c_read(&c, 1, i, 400), sizeof(text));
		assert_int_equal(c.used, P9_IO_HEADER + sizeof(text));
		for (size_t k = 0; k < sizeof(back); k++)
			back[k] = (char)p9_decode8(&c.in);
		assert_memory_equal(back, text, sizeof(text));
	}
}

/* P9-22, P9-23: invalid messages, and too little room for a reply */
static void framing(void **state)
{
	static const struct {
		const char *what;
		uint8_t msg[32];
		uint32_t len, room;
		int ret;
	} rows[] = {
		{ "P9-22 size 6", { 6, 0, 0, 0, 24, 1, 0 }, 7, 64, -EINVAL },
		{ "size 0", { 0, 0, 0, 0, 24, 1, 0 }, 7, 64, -EINVAL },
		{ "P9-22 size past the buffer",
		  { 200, 0, 0, 0, 24, 1, 0 },
		  7,
		  64,
		  -EINVAL },
		{ "size 4 GiB",
		  { 255, 255, 255, 255, 118, 1, 0 },
		  7,
		  64,
		  -EINVAL },
		{ "header cut off", { 7, 0, 0 }, 3, 64, -EINVAL },
		{ "body missing", { 7, 0, 0, 0, 24, 1, 0 }, 7, 300, -EINVAL },
		{ "P9-06 unknown type",
		  { 7, 0, 0, 0, 99, 1, 0 },
		  7,
		  64,
		  -EOPNOTSUPP },
		{ "P9-06 type 255",
		  { 7, 0, 0, 0, 255, 1, 0 },
		  7,
		  64,
		  -EOPNOTSUPP },
		{ "P9-06 a reply",
		  { 7, 0, 0, 0, 111, 1, 0 },
		  7,
		  64,
		  -EOPNOTSUPP },
		{ "P9-23 room for an error alone",
		  { 19, 0, 0, 0, 24, 1, 0, 0, 0, 0, 0, 255, 7 },
		  19,
		  11,
		  -EMSGSIZE },
		{ "P9-23 one byte short",
		  { 19, 0, 0, 0, 24, 1, 0, 0, 0, 0, 0, 255, 7 },
		  19,
		  159,
		  -EMSGSIZE },
		{ "just enough",
		  { 19, 0, 0, 0, 24, 1, 0, 0, 0, 0, 0, 255, 7 },
		  19,
		  160,
		  0 },
		{ "P9-23 no room at all",
		  { 19, 0, 0, 0, 24, 1, 0, 0, 0, 0, 0, 255, 7 },
		  19,
		  10,
		  P9C_NO_REPLY },
		{ "P9-22 string past the end",
		  { 23, 0, 0, 0, 110, 1,    0,    0,   0,   0,   0,  9,
		    0,  0, 0, 1, 0,   0xff, 0xff, 'a', 'b', 'c', 'd' },
		  23,
		  64,
		  -EINVAL },
		{ "P9-22 count past the end",
		  { 25, 0, 0, 0, 118, 1, 0, 0, 0, 0, 0,   0,  0,
		    0,  0, 0, 0, 0,   0, 3, 0, 0, 0, 'a', 'b' },
		  25,
		  64,
		  -EINVAL },
	};

	start("");
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		int ret;

		c.room = rows[i].room;
		ret = p9c_raw(&c, rows[i].msg, rows[i].len);
		if (ret != rows[i].ret)
			fail_msg("%s: %d", rows[i].what, ret);
		assert_int_equal(vdrv_status(&c.d) &
					 VIRTIO_CONFIG_STATUS_NEEDS_RESET,
				 0);
	}
	/* P9-23: what cannot be answered is not executed either */
	c.room = 11;
	assert_int_equal(p9c_call(&c, P9_TMKDIR, "dsdd", 0, "d", 0755, 0),
			 -EMSGSIZE);
	assert_int_equal(access(p9c_path(&c, "d"), F_OK), -1);
	/* Neither a request nor room to say so: P9-22's last resort. */
	c.room = UINT32_MAX;
	p9c_send(&c, 1, 99, "");
	*(uint8_t *)vdrv_ptr(&c.d, c.slots[0].t_gpa, 1) = 3;
	vdrv_kick(&c.d, 0);
	assert_true(vdrv_status(&c.d) & VIRTIO_CONFIG_STATUS_NEEDS_RESET);
	vdrv_reset(&c.d);
	assert_true(vdrv_start(&c.d, ~0ull, 1));
	c.slots[0].busy = false;
	c.room = 0;
	p9c_mount(&c, 8192);
}

/*
 * --- Sessions ---
 */

static void versions(void **state)
{
	static const struct {
		uint32_t msize;
		const char *version;
		int ret;
		uint32_t reply;
		const char *answer;
	} rows[] = {
		{ 8192, "9P2000.L", 0, 8192, "9P2000.L" },
		{ 4096, "9P2000.L", 0, 4096, "9P2000.L" },
		{ 4095, "9P2000.L", -EMSGSIZE, 0, NULL },
		{ 0, "9P2000.L", -EMSGSIZE, 0, NULL },
		{ 0xffffffff, "9P2000.L", 0, 65536, "9P2000.L" },
		{ 8192, "9P2000.u", 0, 8192, "unknown" },
		{ 8192, "9P2000", 0, 8192, "unknown" },
		{ 8192, "", 0, 8192, "unknown" },
		{ 8192, "9P2000.L.and.something.long", 0, 8192, "unknown" },
	};

	start(",msize=64K");
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		char answer[16];
		int ret;

		ret = p9c_call(&c, P9_TVERSION, "ds", rows[i].msize,
			       rows[i].version); /* P9-04 */
		assert_int_equal(ret, rows[i].ret);
		if (ret < 0)
			continue;
		assert_int_equal(p9_decode32(&c.in), rows[i].reply);
		p9_decode_string(&c.in, answer, sizeof(answer));
		assert_string_equal(answer, rows[i].answer);
		/* Without a session there are no requests. */
		ret = p9c_call(&c, P9_TATTACH, "ddssd", 0, P9_NOFID, "", "", 0);
		assert_int_equal(ret, strcmp(answer, "unknown") ? 0 : -EPROTO);
	}
}

static void version_drops(void **state)
{
	start("");
	assert_int_equal(p9c_make(&c, 5, "f"), 0);
	assert_int_equal(p9c_call(&c, P9_TVERSION, "ds", 8192, "9P2000.L"), 0);
	assert_int_equal(p9c_clunk(&c, 5), -EBADF); /* P9-04 */
	assert_int_equal(p9c_clunk(&c, P9C_ROOT), -EBADF);
}

static void attach(void **state)
{
	start("");
	/* P9-07 */
	assert_int_equal(p9c_call(&c, P9_TAUTH, "dssd", 9, "root", "", 0),
			 -EOPNOTSUPP);
	assert_int_equal(p9c_call(&c, P9_TATTACH, "ddssd", 7, P9_NOFID, "u",
				  "/any/name", 1000),
			 0);
	assert_int_equal(p9c_qid(&c).type, P9_QTDIR);
	assert_int_equal(p9c_call(&c, P9_TATTACH, "ddssd", 8, 7, "u", "", 0),
			 -EBADF);
	/* P9-24: in use, and not a fid */
	assert_int_equal(
		p9c_call(&c, P9_TATTACH, "ddssd", 7, P9_NOFID, "u", "", 0),
		-EBADF);
	assert_int_equal(p9c_call(&c, P9_TATTACH, "ddssd", P9_NOFID, P9_NOFID,
				  "u", "", 0),
			 -EBADF);
}

static void reset_ends(void **state)
{
	start("");
	assert_int_equal(p9c_make(&c, 1, "f"), 0);
	/* P9-25: in flight at the reset, never answered */
	for (unsigned i = 0; i < 16; i++)
		p9c_send(&c, (uint16_t)i, P9_TFSYNC, "dd", 1, 0);
	vdrv_kick(&c.d, 0);
	vdrv_reset(&c.d);
	for (unsigned i = 0; i < P9C_SLOTS; i++)
		c.slots[i].busy = false;
	assert_true(vdrv_start(&c.d, ~0ull, 1));
	for (int i = 0; i < 20; i++)
		vio_loop_iterate(c.loop, 1);
	assert_int_equal(vdrv_used_ring_idx(&c.d, 0), 0);
	assert_int_equal(p9c_clunk(&c, 1), -EPROTO);
	p9c_mount(&c, 8192);
	assert_int_equal(p9c_clunk(&c, 1), -EBADF);
}

/*
 * --- Walking ---
 */

static int walk3(const char *a, const char *b, const char *name)
{
	int ret = p9c_call(&c, P9_TWALK, "ddwsss", P9C_ROOT, 9, 3, a, b, name);

	return ret < 0 ? ret : p9_decode16(&c.in);
}

static void walks(void **state)
{
	struct p9c_attr a, b;

	start("");
	assert_int_equal(mkdir(p9c_path(&c, "d"), 0755), 0);
	assert_int_equal(mkdir(p9c_path(&c, "d/e"), 0755), 0);
	p9c_host_file(&c, "d/e/f", "x");
	assert_int_equal(symlink("../..", p9c_path(&c, "d/up")), 0);

	/* P9-09 */
	assert_int_equal(walk3("none", "e", "f"), -ENOENT);
	assert_int_equal(walk3("d", "none", "f"), 1);
	assert_int_equal(p9c_clunk(&c, 9), -EBADF);
	assert_int_equal(walk3("d", "e", "none"), 2);
	assert_int_equal(p9c_clunk(&c, 9), -EBADF);
	assert_int_equal(walk3("d", "e", "f"), 3);
	assert_int_equal(p9c_qid(&c).type, P9_QTDIR);
	assert_int_equal(p9c_qid(&c).type, P9_QTDIR);
	assert_int_equal(p9c_qid(&c).type, P9_QTFILE);
	assert_int_equal(walk3("d", "e", "f"), -EBADF); /* 9 is in use */
	assert_int_equal(p9c_walk(&c, 9, 10, "x"), -ENOTDIR);

	/* Clone, and onto itself. */
	assert_int_equal(p9c_call(&c, P9_TWALK, "ddw", 9, 10, 0), 0);
	assert_int_equal(p9_decode16(&c.in), 0);
	assert_int_equal(p9c_getattr(&c, 9, &a), 0);
	assert_int_equal(p9c_getattr(&c, 10, &b), 0);
	assert_true(a.qid.path == b.qid.path);
	assert_int_equal(p9c_clunk(&c, 10), 0);
	assert_int_equal(p9c_call(&c, P9_TWALK, "ddw", P9C_ROOT, 10, 0), 0);
	assert_int_equal(p9c_walk(&c, 10, 10, "d"), 0);
	assert_int_equal(p9c_walk(&c, 10, 11, "e"), 0);

	/* P9-10: up to the root and no further; links are not followed */
	assert_int_equal(p9c_call(&c, P9_TWALK, "ddwssss", 11, 12, 4, "..",
				  "..", "..", ".."),
			 0);
	assert_int_equal(p9_decode16(&c.in), 4);
	assert_int_equal(p9c_getattr(&c, 12, &a), 0);
	assert_int_equal(p9c_getattr(&c, P9C_ROOT, &b), 0);
	assert_true(a.qid.path == b.qid.path);
	assert_int_equal(p9c_walk(&c, 10, 13, "up"), 0);
	assert_int_equal(p9c_qid(&c).type, P9_QTSYMLINK);
	assert_int_equal(p9c_walk(&c, 13, 14, "secret"), -ENOTDIR);
	assert_int_equal(p9c_walk(&c, 13, 14, ".."), -ENOTDIR);
	assert_int_equal(p9c_walk(&c, 10, 14, "e/f"), -EINVAL);
	assert_int_equal(p9c_walk(&c, 10, 14, "/"), -EINVAL);
	assert_int_equal(p9c_walk(&c, 10, 14, ""), -EINVAL);
	assert_int_equal(p9c_walk(&c, 10, 14, "."), -EINVAL);
	assert_int_equal(p9c_call(&c, P9_TWALK, "ddwsssssssssssssssss",
				  P9C_ROOT, 14, 17, "..", "..", "..", "..",
				  "..", "..", "..", "..", "..", "..", "..",
				  "..", "..", "..", "..", "..", ".."),
			 -EINVAL);
	assert_int_equal(p9c_walk(&c, 99, 14, "d"), -EBADF); /* P9-24 */
}

/*
 * --- Tflush, many at once ---
 */

static void flushes(void **state)
{
	unsigned s[3 * 8], f[8];

	start("");
	assert_int_equal(p9c_make(&c, 1, "f"), 0);
	/* P9-08: unknown tag */
	assert_int_equal(p9c_call(&c, P9_TFLUSH, "w", 777), 0);
	assert_int_equal(p9c_call(&c, P9_TFLUSH, "", 0), -EINVAL);
	for (int round = 0; round < 50; round++) {
		for (unsigned i = 0; i < 24; i++)
			s[i] = p9c_send(&c, (uint16_t)(100 + i), P9_TFSYNC,
					"dd", 1, 0);
		for (unsigned i = 0; i < 8; i++)
			f[i] = p9c_send(&c, (uint16_t)(200 + i), P9_TFLUSH, "w",
					100 + 3 * i);
		/* A flush of a flush, and of itself. */
		p9c_send(&c, 300, P9_TFLUSH, "w", 200);
		p9c_send(&c, 301, P9_TFLUSH, "w", 301);
		vdrv_kick(&c.d, 0);
		for (unsigned i = 0; i < 8; i++) {
			assert_int_equal(p9c_wait(&c, f[i]), 0);
			/* By then the old one is over, one way or another. */
			assert_false(c.slots[s[3 * i]].busy);
		}
		for (unsigned i = 0; i < 24; i++) {
			int ret = p9c_wait(&c, s[i]);

			assert_true(ret == 0 ||
				    (ret == P9C_NO_REPLY && i % 3 == 0));
		}
		for (unsigned i = 0; i < P9C_SLOTS; i++)
			assert_int_equal(c.slots[i].busy && p9c_wait(&c, i), 0);
	}
}

/* Opening a file with a lease waits until the holder gives it up. */
static int lease(const char *name)
{
	int fd;

	p9c_host_file(&c, name, "leased");
	fd = open(p9c_path(&c, name), O_RDONLY);
	signal(SIGIO, SIG_IGN);
	if (fcntl(fd, F_SETLEASE, F_WRLCK) < 0)
		skip();
	return fd;
}

/*
 * All threads wait for something slow: requests that need not wait are still
 * served, and each request is flushed as its state allows.
 */
static void stuck(void **state)
{
	enum { NR_THREADS = 64 };
	unsigned s[NR_THREADS], queued, other, f;
	struct p9c_attr a;
	int fd;

	start(",queue-size=256");
	assert_int_equal(p9c_make(&c, 1, "f"), 0);
	fd = lease("leased");
	for (unsigned i = 0; i < NR_THREADS; i++) {
		assert_int_equal(p9c_walk(&c, P9C_ROOT, 10 + i, "leased"), 0);
		s[i] = p9c_send(&c, (uint16_t)(100 + i), P9_TLOPEN, "dd",
				10 + i, RDWR);
	}
	queued = p9c_send(&c, 200, P9_TSTATFS, "d", 1);
	other = p9c_send(&c, 201, P9_TSTATFS, "d", 1);
	vdrv_kick(&c.d, 0);
	for (int i = 0; i < 10; i++)
		vio_loop_iterate(c.loop, 1);
	assert_int_equal(p9c_getattr(&c, 1, &a), 0);

	/* P9-08: not begun, so it never is: back without a reply */
	assert_int_equal(p9c_call(&c, P9_TFLUSH, "w", 200), 0);
	assert_false(c.slots[queued].busy);
	assert_int_equal(c.slots[queued].used, 0);
	/* P9-08: begun: its reply is first */
	f = p9c_send(&c, 300, P9_TFLUSH, "w", 100);
	vdrv_kick(&c.d, 0);
	for (int i = 0; i < 10; i++)
		vio_loop_iterate(c.loop, 1);
	p9c_poll(&c);
	assert_true(c.slots[f].busy);
	assert_true(c.slots[other].busy);

	close(fd);
	assert_int_equal(p9c_wait(&c, f), 0);
	assert_false(c.slots[s[0]].busy);
	for (unsigned i = 0; i < NR_THREADS; i++)
		assert_int_equal(p9c_wait(&c, s[i]), 0);
	assert_int_equal(p9c_wait(&c, other), 0);
}

/* The device stops: taken requests end, no more are taken. */
static void quiesce(void **state)
{
	unsigned s[24], nr_done = 0;
	uint16_t used;

	start("");
	assert_int_equal(p9c_make(&c, 1, "f"), 0);
	for (unsigned i = 0; i < ARRAY_LEN(s); i++)
		s[i] = p9c_send(&c, (uint16_t)i, P9_TFSYNC, "dd", 1, 0);
	vdrv_kick(&c.d, 0);
	pci_quiesce(&c.d.pi);
	while (!pci_is_idle(&c.d.pi))
		vio_loop_iterate(c.loop, 10);
	p9c_poll(&c);
	for (unsigned i = 0; i < ARRAY_LEN(s); i++)
		nr_done += !c.slots[s[i]].busy;
	assert_true(nr_done > 0);
	used = vdrv_used_ring_idx(&c.d, 0);
	vdrv_kick(&c.d, 0);
	vio_loop_iterate(c.loop, 10);
	assert_int_equal(vdrv_used_ring_idx(&c.d, 0), used);
}

/* Tversion among other requests: they have ended when it is answered. */
static void version_waits(void **state)
{
	unsigned s[16], v;

	start("");
	for (int round = 0; round < 20; round++) {
		assert_int_equal(p9c_make(&c, 1, "f"), 0);
		for (unsigned i = 0; i < 16; i++)
			s[i] = p9c_send(&c, (uint16_t)i, P9_TFSYNC, "dd", 1, 0);
		v = p9c_send(&c, P9_NOTAG, P9_TVERSION, "ds", 8192, "9P2000.L");
		vdrv_kick(&c.d, 0);
		assert_int_equal(p9c_wait(&c, v), 0); /* P9-04 */
		for (unsigned i = 0; i < 16; i++)
			assert_false(c.slots[s[i]].busy);
		p9c_mount(&c, 8192);
	}
}

static void statistics(void **state)
{
	struct json_object *status = json_object_new_object(), *v;

	start("");
	assert_int_equal(p9c_make(&c, 1, "f"), 0);
	assert_int_equal(p9c_write(&c, 1, 0, "12345", 5), 5);
	assert_int_equal(p9c_read(&c, 1, 0, 3), 3);
	vdev_status(c.dev, status);
	assert_true(json_object_object_get_ex(status, "fids", &v));
	assert_int_equal(json_object_get_int(v), 2);
	assert_true(json_object_object_get_ex(status, "open-files", &v));
	assert_int_equal(json_object_get_int(v), 1);
	assert_true(json_object_object_get_ex(status, "bytes-written", &v));
	assert_int_equal(json_object_get_int(v), 5);
	assert_true(json_object_object_get_ex(status, "bytes-read", &v));
	assert_int_equal(json_object_get_int(v), 3);
	json_object_put(status);
}

static void options(void **state)
{
	static const char *const bad[] = {
		"9p",
		"9p,path=/nonexistent",
		"9p,path=/etc/passwd",
		"9p,path=/tmp,tag=",
		"9p,path=/tmp,tag=123456789012345678901234567890123",
		"9p,path=/tmp,security=other",
		"9p,path=/tmp,msize=4095",
		"9p,path=/tmp,msize=2M",
		"9p,path=/tmp,uidmap=1:2",
	};

	vdrv_init(&c.d, VDRV_MODERN);
	assert_int_equal(vio_loop_create(&c.loop), 0);
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		char why[256] = "";

		if (vdev_new(bad[i], &c.d.pi, c.loop, &c.dev, why,
			     sizeof(why)) == 0)
			fail_msg("%s", bad[i]);
		assert_true(strlen(why) > 0);
	}
	vio_loop_destroy(c.loop);
	vdrv_fini(&c.d);
	c.dev = NULL;
}

int main(void)
{
#define T(f) cmocka_unit_test_teardown(f, teardown)
	const struct CMUnitTest tests[] = {
		T(tag),           T(any_split),
		T(framing),       T(versions),
		T(version_drops), T(attach),
		T(reset_ends),    T(walks),
		T(flushes),       T(stuck),
		T(quiesce),       T(version_waits),
		T(statistics),    cmocka_unit_test(options),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

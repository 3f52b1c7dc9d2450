/* SPDX-License-Identifier: BSD-2-Clause */
/* Requests to the block device, well-formed and malformed. */
#include "block_fixture.h"
#include "base/le.h"
#include "base/util.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/*
 * hostile D34, S8: the header is copied once. A thread turns a read beyond the
 * end into one of sector 0 and back while it is served: each is handled as one
 * or the other, never checked as the first and executed as the second.
 */
struct flipper {
	uint64_t *sector;
	bool stop;
};

static void *flip(void *arg)
{
	struct flipper *f = arg;

	while (!__atomic_load_n(&f->stop, __ATOMIC_RELAXED)) {
		__atomic_store_n(f->sector, htole64(1ull << 50),
				 __ATOMIC_RELAXED);
		__atomic_store_n(f->sector, 0, __ATOMIC_RELAXED);
	}
	return NULL;
}

static void test_header_flips(void **state)
{
	struct request r;
	struct flipper f = { 0 };
	uint64_t end = vio_now_ns() + 200000000ull;
	unsigned nr[2] = { 0 };
	pthread_t thread;

	start(VDRV_MODERN, "", ALL_FEATURES);
	r = make_req(VIRTIO_BLK_T_IN, 0, 512, true);
	f.sector = vdrv_ptr(&d, r.hdr + 8, 8);
	assert_int_equal(pthread_create(&thread, NULL, flip, &f), 0);
	while (vio_now_ns() < end) {
		uint32_t used;
		uint8_t status = do_req(&r, &used);

		assert_true(status == VIRTIO_BLK_S_OK ||
			    status == VIRTIO_BLK_S_IOERR);
		if (status == VIRTIO_BLK_S_OK)
			assert_memory_equal(req_data(&r), model, 512);
		nr[status]++;
	}
	__atomic_store_n(&f.stop, true, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	assert_true(nr[0] + nr[1] > 10);
	assert_image_is_model();
}

/*
 * --- Framing ---
 */

#define MAX_BUFS 40

/* Cut @len bytes at @gpa into pieces. */
static unsigned cut(struct vdrv_buf *bufs, uint64_t gpa, uint32_t len,
		    uint32_t piece, unsigned flags)
{
	unsigned n = 0;

	for (; len > 0; n++) {
		uint32_t l = len < piece ? len : piece;

		bufs[n] = (struct vdrv_buf){ gpa, l, flags };
		gpa += l;
		len -= l;
	}
	return n;
}

/*
 * SPLIT-02, BLK-16, BLK-20, BLK-L06, TRAP-12, hostile K16: the header of 16
 * bytes in pieces of one, header and data in one buffer, the status joined to
 * the data, odd pieces; direct and in an indirect table; read and write.
 */
static void do_framing(uint32_t hdr_piece, uint32_t data_piece, bool write,
		       bool indirect)
{
	const uint32_t type = write ? VIRTIO_BLK_T_OUT : VIRTIO_BLK_T_IN;
	const uint32_t len = 1024;
	uint64_t mem = vdrv_alloc(&d, 16 + len + 1, 8);
	struct request r = make_req(type, 8, 0, false);
	struct vdrv_buf bufs[MAX_BUFS];
	struct vdrv_used used;
	uint8_t *data = vdrv_ptr(&d, mem + 16, len + 1);
	unsigned n;

	memcpy(vdrv_ptr(&d, mem, 16), vdrv_ptr(&d, r.hdr, 16), 16);
	memset(data, 0xab, len);
	data[len] = NO_STATUS;
	if (write) {
		/* Header and data, then the status alone. */
		n = cut(bufs, mem, 16, hdr_piece, VDRV_R);
		if (hdr_piece == 16) { /* joined */
			bufs[0].len += data_piece;
			n += cut(bufs + 1, mem + 16 + data_piece,
				 len - data_piece, data_piece, VDRV_R);
		} else {
			n += cut(bufs + n, mem + 16, len, data_piece, VDRV_R);
		}
		bufs[n++] = (struct vdrv_buf){ mem + 16 + len, 1, VDRV_W };
		memset(model + 8 * 512, 0xab, len);
	} else {
		n = cut(bufs, mem, 16, hdr_piece, VDRV_R);
		/* The status is the last byte of the last piece. */
		n += cut(bufs + n, mem + 16, len + 1, data_piece, VDRV_W);
	}
	if (indirect)
		vdrv_add_indirect(&d, 0, bufs, n);
	else
		vdrv_add(&d, 0, bufs, n);
	vdrv_kick(&d, 0);
	used = wait_used(0);
	assert_int_equal(data[len], VIRTIO_BLK_S_OK);
	assert_int_equal(used.len, write ? 1 : len + 1);
	assert_memory_equal(data, model + 8 * 512, len);
}

static void test_framing(void **state)
{
	static const uint32_t hdr_pieces[] = { 1, 3, 15, 16 };
	static const uint32_t data_pieces[] = { 1024, 1025, 512, 511, 100, 51 };

	for (int mode = VDRV_MODERN; mode <= VDRV_LEGACY; mode++) {
		start((enum vdrv_mode)mode, "", ALL_FEATURES);
		for (size_t i = 0;
		     i < ARRAY_LEN(hdr_pieces) * ARRAY_LEN(data_pieces) * 4;
		     i++) {
			uint32_t data =
				data_pieces[i / 4 % ARRAY_LEN(data_pieces)];

			if (data > 1024 && !(i & 1))
				data = 1024;
			do_framing(hdr_pieces[i / 4 / ARRAY_LEN(data_pieces)],
				   data, i & 2 && data <= 1024, i & 1);
		}
		assert_image_is_model();
		destroy();
	}
}

/* hostile K16, BLK-23: headers of every length, status in reach. */
static void test_header_lengths(void **state)
{
	static const uint32_t lens[] = { 1, 8, 15, 16, 17, 65536 };

	start(VDRV_MODERN, "", ALL_FEATURES);
	for (size_t i = 0; i < ARRAY_LEN(lens); i++) {
		struct request r = make_req(VIRTIO_BLK_T_IN, 0, 512, true);
		uint64_t hdr = vdrv_alloc(&d, lens[i], 8);
		struct vdrv_buf bufs[] = {
			{ hdr, lens[i], VDRV_R },
			{ r.data, 512, VDRV_W },
			{ r.status, 1, VDRV_W },
		};
		struct vdrv_used used;

		memset(vdrv_ptr(&d, hdr, lens[i]), 0, lens[i]);
		vdrv_add(&d, 0, bufs, 3);
		vdrv_kick(&d, 0);
		used = wait_used(0);
		assert_int_equal(req_status(&r), lens[i] == 16 ?
							 VIRTIO_BLK_S_OK :
							 VIRTIO_BLK_S_IOERR);
		assert_int_equal(used.len, lens[i] == 16 ? 513 : 0);
	}
}

/* hostile S15a, Q7: zero-length buffers do not move the status. */
static void test_empty_buffers(void **state)
{
	start(VDRV_MODERN, "", ALL_FEATURES);
	for (int with_status = 0; with_status < 2; with_status++) {
		struct request r = make_req(VIRTIO_BLK_T_IN, 0, 512, true);
		uint8_t *data = vdrv_ptr(&d, r.data - 8, 512 + 16);
		struct vdrv_buf bufs[] = {
			{ r.hdr, 16, VDRV_R },
			{ r.data, 0, VDRV_W },
			{ r.data, 512 + (unsigned)with_status, VDRV_W },
			{ r.data, 0, VDRV_W },
		};
		uint8_t before = data[7];

		vdrv_add(&d, 0, bufs, 4);
		vdrv_kick(&d, 0);
		wait_used(0);
		assert_int_equal(data[7], before);
		assert_int_equal(data[8 + 511 + with_status],
				 with_status ? VIRTIO_BLK_S_OK :
					       VIRTIO_BLK_S_IOERR);
	}
	/* All buffers empty: completed, or an error; not for ever. */
	vdrv_add(&d, 0,
		 (struct vdrv_buf[]){ { VDRV_MEM_BASE, 0, VDRV_R },
				      { VDRV_MEM_BASE, 0, VDRV_W } },
		 2);
	vdrv_kick(&d, 0);
	iterate(3);
}

/* hostile S14: long chains, direct and indirect, succeed or fail. */
static void test_long_chains(void **state)
{
	static const unsigned lens[] = { 2, 3, 33, 64, 65, 129, 257, 272, 513 };

	start(VDRV_MODERN, "", ALL_FEATURES);
	for (size_t i = 0; i < 2 * ARRAY_LEN(lens); i++) {
		unsigned n = lens[i / 2], nr_data = n - 2;
		bool indirect = i & 1, served = n <= 272;
		struct request r = make_req(VIRTIO_BLK_T_IN, 0, 512 * n, true);
		struct vdrv_buf *bufs = calloc(n, sizeof(*bufs));
		struct vdrv_used used;

		bufs[0] = (struct vdrv_buf){ r.hdr, 16, VDRV_R };
		cut(bufs + 1, r.data, nr_data * 512, 512, VDRV_W);
		bufs[n - 1] = (struct vdrv_buf){ r.status, 1, VDRV_W };
		if (indirect || n <= 64) {
			if (indirect)
				vdrv_add_indirect(&d, 0, bufs, n);
			else
				vdrv_add(&d, 0, bufs, n);
			vdrv_kick(&d, 0);
			iterate(2);
			if (served) {
				used = wait_used(0);
				assert_int_equal(req_status(&r),
						 VIRTIO_BLK_S_OK);
				assert_int_equal(used.len, nr_data * 512 + 1);
				assert_memory_equal(req_data(&r), model,
						    nr_data * 512);
			} else {
				assert_true(vdrv_status(&d) & NEEDS_RESET);
				assert_true(vdrv_start(&d, ALL_FEATURES, 1));
			}
		}
		free(bufs);
	}
	assert_int_equal(do_write(0, 512), VIRTIO_BLK_S_OK);
}

/* BLK-23, hostile S15b: no writable byte for the status. */
static void test_no_status_byte(void **state)
{
	for (int mode = VDRV_MODERN; mode <= VDRV_LEGACY; mode++) {
		struct vdrv_used used;
		struct request r;

		start((enum vdrv_mode)mode, "", ALL_FEATURES);
		r = make_req(VIRTIO_BLK_T_OUT, 0, 512, false);
		vdrv_add(&d, 0,
			 (struct vdrv_buf[]){ { r.hdr, 16, VDRV_R },
					      { r.data, 512, VDRV_R } },
			 2);
		vdrv_kick(&d, 0);
		iterate(3);
		assert_false(vdrv_used(&d, 0, &used));
		if (mode == VDRV_MODERN)
			assert_true(vdrv_status(&d) & NEEDS_RESET);
		assert_image_is_model();
		/* It works again after a reset. */
		assert_true(vdrv_start(&d, ALL_FEATURES, 1));
		r = make_req(VIRTIO_BLK_T_IN, 0, 512, true);
		assert_int_equal(do_req(&r, NULL), VIRTIO_BLK_S_OK);
		destroy();
	}
}

/*
 * --- Requests ---
 */

enum { IN = 1, OUT = 0 };

struct request_row {
	const char *what;
	uint32_t type;
	uint64_t sector;
	uint32_t len;
	int in;
	uint8_t status;
	uint32_t used;
};

/* None of these changes the image. Legacy too: BLK-L02. */
static const struct request_row request_rows[] = {
	/* BLK-16, BLK-20, hostile S15h */
	{ "BLK-16 read", VIRTIO_BLK_T_IN, 0, 512, IN, OK, 513 },
	{ "BLK-16 read", VIRTIO_BLK_T_IN, 2, 4096, IN, OK, 4097 },
	{ "BLK-20 read nothing", VIRTIO_BLK_T_IN, 2, 0, IN, OK, 1 },
	{ "BLK-20 flush", VIRTIO_BLK_T_FLUSH, 0, 0, OUT, OK, 1 },
	/* BLK-21, hostile S15f */
	{ "BLK-21 last", VIRTIO_BLK_T_IN, IMAGE_SECTORS - 1, 512, IN, OK, 513 },
	{ "BLK-21 crosses", VIRTIO_BLK_T_IN, IMAGE_SECTORS - 1, 1024, IN, IOERR,
	  0 },
	{ "BLK-21 beyond", VIRTIO_BLK_T_IN, IMAGE_SECTORS, 512, IN, IOERR, 0 },
	{ "BLK-21 2^55", VIRTIO_BLK_T_IN, 1ull << 55, 512, IN, IOERR, 0 },
	{ "BLK-21 wraps", VIRTIO_BLK_T_IN, UINT64_MAX, 512, IN, IOERR, 0 },
	{ "BLK-21 write crosses", VIRTIO_BLK_T_OUT, IMAGE_SECTORS - 1, 1024,
	  OUT, IOERR, 1 },
	{ "BLK-21 write beyond", VIRTIO_BLK_T_OUT, IMAGE_SECTORS, 512, OUT,
	  IOERR, 1 },
	{ "hostile S15f 2^55", VIRTIO_BLK_T_OUT, 1ull << 55, 512, OUT, IOERR,
	  1 },
	{ "hostile S15f wraps", VIRTIO_BLK_T_OUT, UINT64_MAX - 1, 2048, OUT,
	  IOERR, 1 },
	/* BLK-22, hostile Q2 */
	{ "BLK-22 read 1", VIRTIO_BLK_T_IN, 0, 1, IN, IOERR, 0 },
	{ "BLK-22 read 511", VIRTIO_BLK_T_IN, 0, 511, IN, IOERR, 0 },
	{ "BLK-22 read 513", VIRTIO_BLK_T_IN, 0, 513, IN, IOERR, 0 },
	{ "hostile Q2 write 1", VIRTIO_BLK_T_OUT, 0, 1, OUT, IOERR, 1 },
	{ "hostile Q2 write 511", VIRTIO_BLK_T_OUT, 0, 511, OUT, IOERR, 1 },
	{ "hostile Q2 write 513", VIRTIO_BLK_T_OUT, 0, 513, OUT, IOERR, 1 },
	/* BLK-23, hostile S15e: the wrong direction */
	{ "hostile S15e read", VIRTIO_BLK_T_IN, 0, 512, OUT, IOERR, 1 },
	{ "hostile S15e write", VIRTIO_BLK_T_OUT, 0, 512, IN, IOERR, 0 },
	{ "BLK-23 id", VIRTIO_BLK_T_GET_ID, 0, 20, OUT, IOERR, 1 },
	{ "BLK-23 discard", VIRTIO_BLK_T_DISCARD, 0, 16, IN, IOERR, 0 },
	/* BLK-19, hostile F11 */
	{ "hostile F11 flush sector", VIRTIO_BLK_T_FLUSH, 1, 0, OUT, IOERR, 1 },
	{ "hostile F11 flush data", VIRTIO_BLK_T_FLUSH, 0, 512, OUT, IOERR, 1 },
	{ "hostile F11 flush data", VIRTIO_BLK_T_FLUSH, 0, 512, IN, IOERR, 0 },
	{ "hostile F11 id", VIRTIO_BLK_T_GET_ID, 0, 19, IN, IOERR, 0 },
	{ "hostile F11 id", VIRTIO_BLK_T_GET_ID, 0, 21, IN, IOERR, 0 },
	{ "hostile F11 id", VIRTIO_BLK_T_GET_ID, 0, 0, IN, IOERR, 1 },
	{ "BLK-17 id", VIRTIO_BLK_T_GET_ID, 0, 20, IN, OK, 21 },
	/* BLK-22: partial segments, none, too many */
	{ "BLK-22 seg 15", VIRTIO_BLK_T_DISCARD, 0, 15, OUT, IOERR, 1 },
	{ "BLK-22 seg 17", VIRTIO_BLK_T_DISCARD, 0, 17, OUT, IOERR, 1 },
	{ "BLK-22 seg 0", VIRTIO_BLK_T_WRITE_ZEROES, 0, 0, OUT, IOERR, 1 },
	{ "BLK-22 17 segs", VIRTIO_BLK_T_WRITE_ZEROES, 0, 17 * 16, OUT, IOERR,
	  1 },
	/* BLK-18, BLK-Z04, BLK-L05: unknown types */
	{ "BLK-18 type 6", 6, 0, 0, OUT, UNSUPP, 1 },
	{ "BLK-18 type 9", 9, 0, 512, IN, UNSUPP, 0 },
	{ "BLK-18 type -1", 0xffffffff, 0, 512, OUT, UNSUPP, 1 },
	{ "BLK-L04 barrier", 0x80000001, 0, 512, OUT, UNSUPP, 1 },
	{ "BLK-L05 scsi", VIRTIO_BLK_T_SCSI_CMD, 0, 64, OUT, UNSUPP, 1 },
	{ "BLK-L05 scsi", 3, 0, 64, OUT, UNSUPP, 1 },
	{ "BLK-24 lifetime", 10, 0, 6, IN, UNSUPP, 0 },
	{ "BLK-24 erase", 14, 0, 16, OUT, UNSUPP, 1 },
	{ "BLK-Z04 append", 15, 0, 512, OUT, UNSUPP, 1 },
	{ "BLK-Z04 report", 16, 0, 512, IN, UNSUPP, 0 },
	{ "BLK-Z04 open", 18, 0, 0, OUT, UNSUPP, 1 },
	{ "BLK-Z04 close", 20, 0, 0, OUT, UNSUPP, 1 },
	{ "BLK-Z04 finish", 22, 0, 0, OUT, UNSUPP, 1 },
	{ "BLK-Z04 reset", 24, 0, 0, OUT, UNSUPP, 1 },
	{ "BLK-Z04 reset all", 26, 0, 0, OUT, UNSUPP, 1 },
};

static void check_row(const struct request_row *row)
{
	struct request r = make_req(row->type, row->sector, row->len, row->in);
	uint8_t status;
	uint32_t used;

	status = do_req(&r, &used);
	if (status != row->status || used != row->used)
		fail_msg("%s: status %u, used %u", row->what, status, used);
	/* hostile K10: only the requested data is returned. */
	for (uint32_t i = 0; status != OK && i < row->len; i++)
		assert_int_equal(req_data(&r)[i], 0xdd);
	if (status == OK && row->type == VIRTIO_BLK_T_IN)
		assert_memory_equal(req_data(&r), model + row->sector * 512,
				    row->len);
}

static void test_requests(void **state)
{
	for (int mode = VDRV_MODERN; mode <= VDRV_LEGACY; mode++) {
		start((enum vdrv_mode)mode, "", ALL_FEATURES);
		for (size_t i = 0; i < ARRAY_LEN(request_rows); i++)
			check_row(&request_rows[i]);
		assert_image_is_model();
		assert_int_equal(vdrv_status(&d) & NEEDS_RESET, 0);
		destroy();
	}
}

/* BLK-24: what was not negotiated. */
static void test_not_negotiated(void **state)
{
	start(VDRV_MODERN, "", ~(BIT(DISCARD) | BIT(WRITE_ZEROES)));
	assert_int_equal(do_seg(VIRTIO_BLK_T_DISCARD, 0, 8, 0), UNSUPP);
	assert_int_equal(do_seg(VIRTIO_BLK_T_WRITE_ZEROES, 0, 8, 0), UNSUPP);
	assert_image_is_model();
}

/* BLK-L04: type 5 is a flush only for a legacy driver. */
static void test_flush_out(void **state)
{
	start(VDRV_LEGACY, "", ALL_FEATURES);
	assert_int_equal(do_simple(T_FLUSH_OUT, 0, 0, false), OK);
	destroy();
	start(VDRV_MODERN, "", ALL_FEATURES);
	assert_int_equal(do_simple(T_FLUSH_OUT, 0, 0, false), UNSUPP);
}

/* BLK-07: whether or not RO was accepted. */
static void test_read_only(void **state)
{
	static const uint64_t features[] = { ALL_FEATURES, ~BIT(RO) };

	for (size_t i = 0; i < ARRAY_LEN(features); i++) {
		start(VDRV_MODERN, ",ro=on", features[i]);
		assert_int_equal(do_write(0, 512), IOERR);
		assert_int_equal(do_seg(VIRTIO_BLK_T_DISCARD, 0, 8, 0), IOERR);
		assert_int_equal(do_seg(VIRTIO_BLK_T_WRITE_ZEROES, 0, 8, 0),
				 IOERR);
		assert_int_equal(do_seg(VIRTIO_BLK_T_SECURE_ERASE, 0, 8, 0),
				 IOERR);
		assert_int_equal(do_simple(VIRTIO_BLK_T_FLUSH, 0, 0, false),
				 OK);
		assert_int_equal(do_simple(VIRTIO_BLK_T_IN, 0, 512, true), OK);
		assert_image_is_model();
		destroy();
	}
}

/* BLK-17, hostile S15d. */
static void test_get_id(void **state)
{
	static const struct {
		const char *options;
		char id[21];
	} rows[] = {
		{ ",serial=", "" },
		{ ",serial=disk-7", "disk-7" },
		{ ",serial=12345678901234567890", "12345678901234567890" },
	};
	struct vdrv_buf bufs[60];
	struct request r;

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		start(VDRV_MODERN, rows[i].options, ALL_FEATURES);
		r = make_req(VIRTIO_BLK_T_GET_ID, 0, 20, true);
		assert_int_equal(do_req(&r, NULL), OK);
		assert_memory_equal(req_data(&r), rows[i].id, 20);
		destroy();
	}
	/* With 3.5 GiB of buffers. */
	start(VDRV_MODERN, "", ALL_FEATURES);
	r = make_req(VIRTIO_BLK_T_GET_ID, 0, 20, true);
	assert_int_equal(do_req(&r, NULL), OK);
	assert_int_equal(strspn((char *)req_data(&r), "0123456789abcdef"), 16);
	r = make_req(VIRTIO_BLK_T_GET_ID, 0, 0, true);
	bufs[0] = (struct vdrv_buf){ r.hdr, 16, VDRV_R };
	for (unsigned i = 1; i < 59; i++)
		bufs[i] = (struct vdrv_buf){ VDRV_MEM_BASE, VDRV_MEM_BYTES,
					     VDRV_W };
	bufs[59] = (struct vdrv_buf){ r.status, 1, VDRV_W };
	vdrv_add(&d, 0, bufs, 60);
	vdrv_kick(&d, 0);
	assert_int_equal(wait_used(0).len, 0);
	assert_int_equal(req_status(&r), IOERR);
}

/*
 * --- Discard and write zeroes ---
 */

/* BLK-08, BLK-09, BLK-21, BLK-22, hostile F11: segments that are rejected. */
static void test_bad_segments(void **state)
{
	static const struct {
		uint32_t type;
		struct seg seg;
		uint8_t status;
	} rows[] = {
		{ VIRTIO_BLK_T_DISCARD, { 0, 8, 1 }, UNSUPP }, /* BLK-09 */
		{ VIRTIO_BLK_T_DISCARD, { 0, 8, 2 }, UNSUPP }, /* BLK-08 */
		{ VIRTIO_BLK_T_WRITE_ZEROES, { 0, 8, 2 }, UNSUPP },
		{ VIRTIO_BLK_T_WRITE_ZEROES, { 0, 8, 1u << 31 }, UNSUPP },
		{ VIRTIO_BLK_T_DISCARD, { 0, (1 << 21) + 1, 0 }, IOERR },
		{ VIRTIO_BLK_T_WRITE_ZEROES, { 0, (1 << 17) + 1, 0 }, IOERR },
		{ VIRTIO_BLK_T_WRITE_ZEROES, { 0, UINT32_MAX, 0 }, IOERR },
		{ VIRTIO_BLK_T_DISCARD, { IMAGE_SECTORS - 1, 2, 0 }, IOERR },
		{ VIRTIO_BLK_T_WRITE_ZEROES, { IMAGE_SECTORS, 1, 0 }, IOERR },
		{ VIRTIO_BLK_T_WRITE_ZEROES, { 1ull << 55, 1, 0 }, IOERR },
		{ VIRTIO_BLK_T_DISCARD, { UINT64_MAX, 1, 0 }, IOERR },
		{ VIRTIO_BLK_T_DISCARD, { UINT64_MAX, 2, 0 }, IOERR },
		{ VIRTIO_BLK_T_WRITE_ZEROES, { 8, 0, 0 }, OK }, /* of nothing */
	};

	start(VDRV_MODERN, "", ALL_FEATURES);
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct seg two[2] = { { 0, 8, 0 }, rows[i].seg };
		struct request r;

		assert_int_equal(do_seg(rows[i].type, rows[i].seg.sector,
					rows[i].seg.nr_sectors,
					rows[i].seg.flags),
				 rows[i].status);
		if (rows[i].status == OK)
			continue;
		/* A valid one before it is not executed either. */
		r = make_segs(rows[i].type, two, 2);
		assert_int_equal(do_req(&r, NULL), rows[i].status);
	}
	assert_image_is_model();
}

/* BLK-10, BLK-25: with and without unmap, several segments. */
static void test_write_zeroes(void **state)
{
	static const struct seg segs[] = {
		{ 0, 1, 0 },     { 9, 100, 1 },
		{ 200, 0, 0 },   { IMAGE_SECTORS - 3, 3, 1 },
		{ 300, 301, 0 },
	};
	static const char *const options[] = {
		"",
		",discard=off",
		",cache=direct",
		",cache=writethrough",
	};

	for (size_t i = 0; i < ARRAY_LEN(options); i++) {
		struct request r;
		uint32_t used;

		start(VDRV_MODERN, options[i], ALL_FEATURES);
		r = make_segs(VIRTIO_BLK_T_WRITE_ZEROES, segs, ARRAY_LEN(segs));
		for (size_t k = 0; k < ARRAY_LEN(segs); k++)
			memset(model + segs[k].sector * 512, 0,
			       segs[k].nr_sectors * 512);
		assert_int_equal(do_req(&r, &used), OK);
		assert_int_equal(used, 1);
		assert_image_is_model();
		destroy();
	}
}

/* BLK-11: may_unmap is correct. */
static void test_unmap(void **state)
{
	static const struct {
		const char *options;
		bool frees;
	} rows[] = { { "", true }, { ",discard=off", false } };

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct stat before, after;

		start(VDRV_MODERN, rows[i].options, ALL_FEATURES);
		assert_int_equal(do_simple(VIRTIO_BLK_T_FLUSH, 0, 0, false),
				 OK);
		stat(path, &before);
		assert_int_equal(
			do_seg(VIRTIO_BLK_T_WRITE_ZEROES, 0, IMAGE_SECTORS, 1),
			OK);
		stat(path, &after);
		assert_int_equal(vdrv_cfg_read(&d, 56, 1), rows[i].frees);
		assert_int_equal(after.st_blocks < before.st_blocks / 2,
				 rows[i].frees);
		destroy();
	}
}

static void test_discard(void **state)
{
	struct stat before, after;
	uint32_t used;
	struct request r;

	start(VDRV_MODERN, "", ALL_FEATURES);
	assert_int_equal(do_simple(VIRTIO_BLK_T_FLUSH, 0, 0, false), OK);
	stat(path, &before);
	r = make_segs(
		VIRTIO_BLK_T_DISCARD,
		(struct seg[]){ { 0, IMAGE_SECTORS / 2, 0 },
				{ IMAGE_SECTORS / 2, IMAGE_SECTORS / 2, 0 } },
		2);
	assert_int_equal(do_req(&r, &used), OK);
	assert_int_equal(used, 1);
	stat(path, &after);
	assert_true(after.st_blocks < before.st_blocks / 2);
}

/* A driver that polls sees eight requests, before the iteration ends. */
static void test_published_in_groups(void **state)
{
	start(VDRV_MODERN, "", ALL_FEATURES);
	for (unsigned i = 0; i < 12; i++) {
		struct request r = make_req(VIRTIO_BLK_T_GET_ID, 0, 20, true);

		add_req(0, &r);
	}
	vdrv_kick(&d, 0);
	assert_int_equal(vdrv_used_ring_idx(&d, 0), 8);
	iterate(1);
	assert_int_equal(vdrv_used_ring_idx(&d, 0), 12);
}

static int run(const char *engine)
{
	const struct CMUnitTest tests[] = {
		TEST(test_framing),      TEST(test_header_lengths),
		TEST(test_header_flips), TEST(test_empty_buffers),
		TEST(test_long_chains),  TEST(test_no_status_byte),
		TEST(test_requests),     TEST(test_not_negotiated),
		TEST(test_flush_out),    TEST(test_read_only),
		TEST(test_get_id),       TEST(test_bad_segments),
		TEST(test_write_zeroes), TEST(test_unmap),
		TEST(test_discard),      TEST(test_published_in_groups),
	};

	threads = strcmp(engine, "threads") == 0;
	return cmocka_run_group_tests_name(engine, tests, NULL, NULL);
}

int main(void)
{
	return run_on_engines(run);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* The bytes of the console device's ports: conformance chapter 9. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/util.h"
#include "console_fixture.h"

#define PAGE 4096u

static struct fixture r;

static int teardown(void **state)
{
	if (r.dev)
		fixture_fini(&r);
	return 0;
}

static void assert_idle(void)
{
	fixture_iterate(&r, 3);
	for (int i = 0; i < 3; i++)
		assert_int_equal(vio_loop_iterate(r.loop, 2), 0);
}

static char pattern(size_t i)
{
	return (char)(i * 31 + i / 257);
}

/* What the host has received of the pattern, from @at on. */
static size_t host_read(unsigned port, size_t at, size_t max)
{
	char buf[65536];
	ssize_t n =
		read(r.host[port], buf, max < sizeof(buf) ? max : sizeof(buf));

	for (ssize_t i = 0; i < n; i++)
		assert_int_equal(buf[i], pattern(at + (size_t)i));
	return n > 0 ? (size_t)n : 0;
}

static size_t host_write(unsigned port, size_t at, size_t len)
{
	char buf[65536];
	ssize_t n;

	for (size_t i = 0; i < len; i++)
		buf[i] = pattern(at + i);
	n = write(r.host[port], buf, len);
	return n > 0 ? (size_t)n : 0;
}

/*
 * CON-11: a buffer in pieces is sent whole and in order; CON-10: used length 0.
 * hostile S14: as many pieces as the ring holds, and more through an indirect
 * table, and then more than we accept. Q7: empty pieces.
 */
static void test_tx_pieces(void **state)
{
	static const struct {
		unsigned nr;
		uint32_t len; /* of a piece */
		bool indirect, broken;
	} rows[] = {
		{ 1, 1, false, false },   { 2, 5000, false, false },
		{ 33, 7, false, false },  { 128, 1, false, false },
		{ 129, 3, true, false },  { 256, 1, true, false },
		{ 100, 0, false, false }, { 257, 1, true, true },
		{ 513, 1, true, true },
	};

	for (size_t k = 0; k < ARRAY_LEN(rows); k++) {
		struct vdrv_buf bufs[513];
		struct vdrv_used used;
		uint64_t gpa;
		size_t total = rows[k].nr * rows[k].len;

		print_message("%u of %u\n", rows[k].nr, rows[k].len);
		fixture_open(&r, VDRV_MODERN, 2);
		gpa = vdrv_alloc(&r.d, total + 1, 1);
		for (size_t i = 0; i < total; i++)
			*(char *)vdrv_ptr(&r.d, gpa + i, 1) = pattern(i);
		for (unsigned i = 0; i < rows[k].nr; i++)
			bufs[i] = (struct vdrv_buf){ gpa + i * rows[k].len,
						     rows[k].len, VDRV_R };
		if (rows[k].indirect)
			vdrv_add_indirect(&r.d, fixture_txq(1), bufs,
					  rows[k].nr);
		else
			vdrv_add(&r.d, fixture_txq(1), bufs, rows[k].nr);
		vdrv_kick(&r.d, fixture_txq(1));
		fixture_iterate(&r, 1);
		if (rows[k].broken) {
			assert_true(vdrv_status(&r.d) &
				    VIRTIO_CONFIG_STATUS_NEEDS_RESET);
		} else {
			assert_true(vdrv_used(&r.d, fixture_txq(1), &used));
			assert_int_equal(used.len, 0);
			assert_int_equal(host_read(1, 0, 65536), total);
		}
		fixture_fini(&r);
	}
}

/* CON-10, CON-11: input fills buffers in pieces, and sets their length. */
static void test_rx_pieces(void **state)
{
	static const struct {
		uint32_t lens[4];
		unsigned nr;
		size_t bytes;
		uint32_t used;
	} rows[] = {
		{ { 100 }, 1, 1, 1 },          { { 100 }, 1, 100, 100 },
		{ { 1, 2, 3, 4 }, 4, 10, 10 }, { { 1, 0, 3, 4 }, 4, 5, 5 },
		{ { 1, 2 }, 2, 10, 3 }, /* the rest waits */
	};

	for (size_t k = 0; k < ARRAY_LEN(rows); k++) {
		for (int mode = VDRV_MODERN; mode <= VDRV_LEGACY; mode++) {
			struct vdrv_buf bufs[4];
			struct vdrv_used used;
			uint64_t gpa;
			char *p;

			fixture_open(&r, (enum vdrv_mode)mode, 1);
			gpa = vdrv_alloc(&r.d, 128, 1);
			p = vdrv_ptr(&r.d, gpa, 128);
			memset(p, 0x55, 128);
			for (unsigned i = 0, off = 0; i < rows[k].nr; i++) {
				bufs[i] = (struct vdrv_buf){ gpa + off,
							     rows[k].lens[i],
							     VDRV_W };
				off += rows[k].lens[i];
			}
			vdrv_add(&r.d, 0, bufs, rows[k].nr);
			vdrv_kick(&r.d, 0);
			host_write(0, 0, rows[k].bytes);
			fixture_iterate(&r, 2);
			assert_true(vdrv_used(&r.d, 0, &used));
			assert_int_equal(used.len, rows[k].used);
			for (unsigned i = 0; i < used.len; i++)
				assert_int_equal(p[i], pattern(i));
			assert_int_equal(p[used.len], 0x55);
			fixture_fini(&r);
		}
	}
}

/* Offer receive buffers of a page until the queue is full. */
static void offer_pages(unsigned port, unsigned nr)
{
	unsigned q = fixture_rxq(port);

	while (nr-- && r.d.q[q].nr_free) {
		uint16_t head = r.d.q[q].free_head;
		struct vdrv_buf buf = {
			VDRV_MEM_BASE + (40u << 20) + head * PAGE, PAGE, VDRV_W
		};

		vdrv_add(&r.d, q, &buf, 1);
	}
	vdrv_kick_if_wanted(&r.d, q);
}

/* Check received bytes against the pattern: returns their number. */
static size_t guest_read(unsigned port, size_t at)
{
	struct vdrv_used used;
	size_t got = 0;

	while (vdrv_used(&r.d, fixture_rxq(port), &used)) {
		const char *p = vdrv_ptr(
			&r.d, VDRV_MEM_BASE + (40u << 20) + used.id * PAGE,
			PAGE);

		assert_true(used.len > 0 && used.len <= PAGE);
		for (uint32_t i = 0; i < used.len; i++)
			assert_int_equal(p[i], pattern(at + got + i));
		got += used.len;
	}
	return got;
}

/*
 * CON-13: input waits while the guest has no buffers, wakes nobody up, and all
 * of it arrives in the end. CON-17: likewise while the guest has the port
 * closed.
 */
static void test_rx_back_pressure(void **state)
{
	const size_t total = 3 << 20;
	size_t sent = 0, got = 0;
	unsigned seed = 1;

	fixture_open(&r, VDRV_MODERN, 2);
	host_write(1, 0, 100);
	assert_idle();
	fixture_say(&r, 1, VIRTIO_CONSOLE_PORT_OPEN, 0);
	offer_pages(1, 4);
	assert_idle();
	assert_int_equal(guest_read(1, 0), 0);
	fixture_say(&r, 1, VIRTIO_CONSOLE_PORT_OPEN, 1);
	fixture_iterate(&r, 2);
	assert_int_equal(guest_read(1, 0), 100);
	sent = got = 100;

	while (got < total) {
		if (sent < total)
			sent += host_write(1, sent, rand_r(&seed) % 60000);
		if (rand_r(&seed) % 2)
			offer_pages(1, (unsigned)rand_r(&seed) % 100);
		fixture_iterate(&r, 1);
		got += guest_read(1, got);
	}
	assert_int_equal(got, sent);
	assert_int_equal(fixture_status(&r, 1, "to-guest"), got);
	assert_idle();
}

/*
 * Output waits while the host does not read: the chain stays with the driver
 * and nobody is woken up. Every byte arrives once.
 */
static void test_tx_back_pressure(void **state)
{
	const size_t total = 3 << 20;
	size_t sent = 0, got = 0;
	unsigned seed = 2;
	uint64_t area;

	fixture_open(&r, VDRV_MODERN, 2);
	area = vdrv_alloc(&r.d, 8 << 20, 1);
	for (size_t i = 0; i < total + 40000; i++)
		*(char *)vdrv_ptr(&r.d, area + i, 1) = pattern(i);
	while (sent < total || got < sent) {
		struct vdrv_used used;

		while (vdrv_used(&r.d, fixture_txq(1), &used))
			assert_int_equal(used.len, 0);
		while (sent < total && r.d.q[fixture_txq(1)].nr_free >= 2) {
			uint32_t len = (uint32_t)rand_r(&seed) % 40000;
			struct vdrv_buf bufs[2] = {
				{ area + sent, len / 3, VDRV_R },
				{ area + sent + len / 3, len - len / 3,
				  VDRV_R },
			};

			vdrv_add(&r.d, fixture_txq(1), bufs, 2);
			sent += len;
		}
		vdrv_kick_if_wanted(&r.d, fixture_txq(1));
		fixture_iterate(&r, 1);
		if (rand_r(&seed) % 16 == 0 && got + 200000 < sent)
			assert_idle();
		got += host_read(1, got, (size_t)rand_r(&seed) % 65536);
	}
	assert_int_equal(fixture_status(&r, 1, "from-guest"), sent);
	assert_int_equal(fixture_status(&r, 1, "lost"), 0);
	assert_idle();
}

/* Fill a port until its channel is full and a chain is partly sent. */
static void fill(unsigned port)
{
	static char page[1 << 16];

	for (size_t i = 0; i < sizeof(page); i++)
		page[i] = pattern(i);
	for (int i = 0; i < 20; i++)
		fixture_write(&r, port, page, sizeof(page));
	fixture_iterate(&r, 3);
}

/*
 * A reset in the middle of a chain: none of it is sent later, what the next
 * driver sends is whole, and the old memory is not accessed.
 * hostile D41, S15g, F9
 */
static void test_reset_while_blocked(void **state)
{
	char buf[65536];
	ssize_t n, last = 0;

	fixture_open(&r, VDRV_MODERN, 1);
	fill(0);
	offer_pages(0, 10);
	vdrv_reset(&r.d);
	host_write(0, 0, 1000);
	fixture_iterate(&r, 3);
	while ((n = read(r.host[0], buf, sizeof(buf))) > 0) {
		last = n;
		fixture_iterate(&r, 1);
	}
	assert_true(last > 0);
	fixture_start(&r, UINT64_MAX);
	fixture_write(&r, 0, "new", 3);
	fixture_iterate(&r, 2);
	assert_int_equal(read(r.host[0], buf, sizeof(buf)), 3);
	assert_memory_equal(buf, "new", 3);
	offer_pages(0, 1);
	fixture_iterate(&r, 2);
	assert_int_equal(guest_read(0, 0), 1000);
}

/* The reader disconnects: pending output is lost, and the guest continues. */
static void test_reader_gone(void **state)
{
	struct vdrv_used used;
	unsigned nr = 0;

	fixture_open(&r, VDRV_MODERN, 2);
	fill(1);
	close(r.host[1]);
	r.host[1] = -1;
	fixture_iterate(&r, 4);
	while (vdrv_used(&r.d, fixture_txq(1), &used))
		nr++;
	assert_int_equal(nr, 20);
	assert_true(fixture_status(&r, 1, "lost") > 0);
	fixture_write(&r, 1, "more", 4);
	assert_true(vdrv_used(&r.d, fixture_txq(1), &used));
	assert_idle();
}

/* A port that ctl removes releases what it held; the channel stays. */
static void test_removed_while_blocked(void **state)
{
	struct vdrv_used used;
	unsigned nr = 0;

	fixture_open(&r, VDRV_MODERN, 2);
	fill(1);
	assert_int_equal(fixture_ctl(&r, "port remove p1"), 0);
	while (vdrv_used(&r.d, fixture_txq(1), &used))
		nr++;
	assert_int_equal(nr, 20);

	/* hostile S17c: the queues of a port that does not exist */
	offer_pages(1, 4);
	host_write(1, 0, 10);
	fixture_write(&r, 1, "x", 1);
	assert_true(vdrv_used(&r.d, fixture_txq(1), &used));
	assert_idle();
	assert_int_equal(guest_read(1, 0), 0);
}

/* hostile S17c: port 0 without console=, and a queue past the last. */
static void test_no_console(void **state)
{
	struct vdrv_used used;
	char why[256] = "";

	memset(&r, 0, sizeof(r));
	assert_int_equal(vio_loop_create(&r.loop), 0);
	vdrv_init(&r.d, VDRV_MODERN);
	if (vdev_new("console,port.a=file:/dev/null", &r.d.pi, r.loop, &r.dev,
		     why, sizeof(why)) < 0)
		fail_msg("%s", why);
	r.nr_ports = 2;
	r.host[0] = r.host[1] = -1;
	r.ctl_gpa = vdrv_alloc(&r.d, 4096, 16);
	fixture_start(&r, UINT64_MAX);
	offer_pages(0, 1);
	fixture_write(&r, 0, "x", 1);
	assert_true(vdrv_used(&r.d, 1, &used));
	fixture_ctl_offer(&r, 4, FIXTURE_CTL_ROOM);
	fixture_say(&r, UINT32_MAX, VIRTIO_CONSOLE_DEVICE_READY, 1);
	fixture_expect(&r, 1, VIRTIO_CONSOLE_PORT_ADD, 0); /* and no port 0 */
	pci_bar_write(&r.d.pi, r.d.notify_bar, r.d.notify_off + 4 * 33, 2, 33);
	assert_idle();
}

/* CON-15: buffers of the wrong direction are returned untouched, length 0. */
static void test_wrong_way(void **state)
{
	static const struct {
		bool rx;
		unsigned flags[2];
		unsigned nr;
	} rows[] = {
		{ true, { VDRV_R }, 1 },
		{ true, { VDRV_R, VDRV_W }, 2 },
		{ false, { VDRV_W }, 1 },
		{ false, { VDRV_R, VDRV_W }, 2 },
	};

	for (size_t k = 0; k < ARRAY_LEN(rows); k++) {
		unsigned q = rows[k].rx ? 0 : 1;
		struct vdrv_used used;
		struct vdrv_buf bufs[2];
		uint64_t gpa;
		char buf[8];

		fixture_open(&r, VDRV_MODERN, 1);
		gpa = vdrv_alloc(&r.d, 32, 1);
		memset(vdrv_ptr(&r.d, gpa, 32), 0x55, 32);
		for (unsigned i = 0; i < rows[k].nr; i++)
			bufs[i] = (struct vdrv_buf){ gpa + 16 * i, 16,
						     rows[k].flags[i] };
		vdrv_add(&r.d, q, bufs, rows[k].nr);
		vdrv_kick(&r.d, q);
		host_write(0, 0, 4);
		fixture_iterate(&r, 2);
		assert_true(vdrv_used(&r.d, q, &used));
		assert_int_equal(used.len, 0);
		for (unsigned i = 0; i < 32; i++)
			assert_int_equal(*(char *)vdrv_ptr(&r.d, gpa + i, 1),
					 0x55);
		assert_true(read(r.host[0], buf, sizeof(buf)) < 0);

		/* Later buffers are served. */
		if (rows[k].rx) {
			offer_pages(0, 1);
			fixture_iterate(&r, 2);
			assert_int_equal(guest_read(0, 0), 4);
		} else {
			fixture_write(&r, 0, "good", 4);
			assert_int_equal(read(r.host[0], buf, sizeof(buf)), 4);
		}
		fixture_fini(&r);
	}
}

/* An invalid chain among valid ones, taken together with them. */
static void test_wrong_way_between(void **state)
{
	struct vdrv_used used;
	char buf[16] = "";
	uint64_t gpa;

	fixture_open(&r, VDRV_MODERN, 1);
	gpa = vdrv_alloc(&r.d, 16, 1);
	memcpy(vdrv_ptr(&r.d, gpa, 16), "one two wrong", 14);
	vdrv_add(&r.d, 1, &(struct vdrv_buf){ gpa, 4, VDRV_R }, 1);
	vdrv_add(&r.d, 1, &(struct vdrv_buf){ gpa + 8, 4, VDRV_W }, 1);
	vdrv_add(&r.d, 1, &(struct vdrv_buf){ gpa + 4, 4, VDRV_R }, 1);
	vdrv_kick(&r.d, 1);
	for (int i = 0; i < 3; i++) {
		assert_true(vdrv_used(&r.d, 1, &used));
		assert_int_equal(used.len, 0);
	}
	assert_int_equal(read(r.host[0], buf, sizeof(buf)), 8);
	assert_string_equal(buf, "one two ");
}

/*
 * hostile K1, S7, S13: chains that break the rules stop the device until a
 * reset, whichever queue they are on.
 */
static void test_broken_chains(void **state)
{
	for (unsigned q = 0; q < 6; q++) {
		struct vdrv_used used;

		fixture_open(&r, VDRV_MODERN, 2);
		host_write(0, 0, 10);
		host_write(1, 0, 10);
		vdrv_desc(&r.d, q, 5, 0xfffffffffffff000, 4096, 0, 0);
		vdrv_avail(&r.d, q, 5);
		vdrv_kick(&r.d, q);
		fixture_iterate(&r, 2);
		/* Its buffers are taken when there is a message. */
		for (int i = 0; q == 2 && i < 100; i++)
			fixture_ctl(&r, "resize 1 1");
		assert_true(vdrv_status(&r.d) &
			    VIRTIO_CONFIG_STATUS_NEEDS_RESET);
		assert_idle();
		vdrv_reset(&r.d);
		fixture_start(&r, UINT64_MAX);
		fixture_write(&r, 0, "again", 5);
		assert_true(vdrv_used(&r.d, 1, &used));
		fixture_fini(&r);
	}
}

/* overflow=drop: a peer that does not read costs output, not the guest. */
static void test_overflow(void **state)
{
	static char page[PAGE], buf[1 << 20];
	const size_t total = 300 * sizeof(page);
	struct vdrv_used used;
	ssize_t n, got = 0;

	fixture_make(&r, VDRV_MODERN, 1, ",overflow=drop");
	fixture_start(&r, UINT64_MAX);
	for (size_t sent = 0; sent < total; sent += sizeof(page)) {
		fixture_write(&r, 0, page, sizeof(page));
		fixture_iterate(&r, 2);
		assert_true(vdrv_used(&r.d, fixture_txq(0), &used));
	}
	while ((n = read(r.host[0], buf, sizeof(buf))) > 0)
		got += n;
	assert_in_range(got, 1, total - 1);
	assert_int_equal(fixture_status(&r, 0, "from-guest"), got);
	assert_int_equal(fixture_status(&r, 0, "lost"), total - (size_t)got);
	fixture_write(&r, 0, "fresh", 5);
	fixture_iterate(&r, 2);
	assert_int_equal(read(r.host[0], buf, sizeof(buf)), 5);
	assert_idle();
}

/* A listening socket that ctl adds as a port. */
static void add_listener(const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	struct opened_files files = { .nr = 0 };
	char words[128];
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);

	strcpy(addr.sun_path, path);
	assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(listen(fd, 8), 0);
	assert_int_equal(opened_files_add(&files, "new.listen", fd), 0);
	snprintf(words, sizeof(words), "port add late unix:%s", path);
	assert_int_equal(fixture_ctl_with(&r, words, &files), 0);
}

static int dial(const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);

	strcpy(addr.sun_path, path);
	assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof(addr)),
			 0);
	fixture_iterate(&r, 3);
	return fd;
}

/* backlog=: the newest output waits for the next peer, which gets it first. */
static void test_backlog(void **state)
{
	char dir[] = "/tmp/port_test.XXXXXX", path[64], buf[64];
	int fd;

	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/s", dir);
	fixture_make(&r, VDRV_MODERN, 1, ",ports=2,backlog=8");
	assert_true(vdrv_start(&r.d, UINT64_MAX, 6));
	fixture_ctl_offer(&r, 64, FIXTURE_CTL_ROOM);
	fixture_say(&r, UINT32_MAX, VIRTIO_CONSOLE_DEVICE_READY, 1);
	add_listener(path);
	fixture_say(&r, 1, VIRTIO_CONSOLE_PORT_READY, 1);
	for (int i = 0; i < 2; i++) {
		fixture_write(&r, 1, "0123", 4);
		fixture_write(&r, 1, "456789ab", 8);
		fixture_iterate(&r, 2);
		assert_int_equal(fixture_status(&r, 1, "lost"), 4 * (i + 1));
		fd = dial(path);
		fixture_write(&r, 1, "cd", 2);
		fixture_iterate(&r, 2);
		assert_int_equal(read(fd, buf, sizeof(buf)), 10);
		assert_memory_equal(buf, "456789abcd", 10);
		assert_int_equal(fixture_status(&r, 1, "from-guest"),
				 10 * (i + 1));
		close(fd);
		fixture_iterate(&r, 2);
	}
	assert_idle();
	unlink(path);
	rmdir(dir);
}

#define PATIENCE_NS 30000000000ull /* on a slow machine */

/* Expect exactly this from a file or a socket. */
static void expect_read(int fd, const char *want)
{
	uint64_t end = vio_now_ns() + PATIENCE_NS;
	char buf[64] = "";
	size_t len = 0;

	while (len < strlen(want) && len < sizeof(buf) && vio_now_ns() < end) {
		ssize_t n = read(fd, buf + len, sizeof(buf) - len);

		len += n > 0 ? (size_t)n : 0;
		fixture_iterate(&r, 1);
	}
	assert_int_equal(len, strlen(want));
	assert_memory_equal(buf, want, len);
}

/* `ctl log console PATH`, opened as its client does; returns its result. */
static int log_to(const char *path)
{
	const int flags = O_WRONLY | O_CREAT | O_APPEND;
	struct opened_files files = { .nr = 0 };
	char words[128] = "log console ";

	assert_int_equal(
		opened_files_add(&files, "log.out", open(path, flags, 0600)),
		0);
	strncat(words, path, sizeof(words) - strlen(words) - 1);
	assert_int_equal(fixture_ctl_with(&r, words, &files), 0);
	return open(path, O_RDONLY);
}

/* log=: output goes to both; `ctl log` changes the file. */
static void test_log(void **state)
{
	char dir[] = "/tmp/port_test.XXXXXX", more[96], path[64];
	int first, second;

	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/a", dir);
	snprintf(more, sizeof(more), ",log=%s", path);
	fixture_make(&r, VDRV_MODERN, 1, more);
	fixture_start(&r, UINT64_MAX);
	first = open(path, O_RDONLY);
	fixture_write(&r, 0, "one", 3);
	expect_read(first, "one");
	expect_read(r.host[0], "one");
	snprintf(path, sizeof(path), "%s/b", dir);
	second = log_to(path);
	fixture_write(&r, 0, "two", 3);
	expect_read(second, "two");
	expect_read(r.host[0], "two");
	assert_int_equal(fixture_ctl(&r, "log console"), 0);
	fixture_write(&r, 0, "three", 5);
	expect_read(r.host[0], "three");
	expect_read(first, "");
	expect_read(second, "");
	assert_int_equal(fixture_ctl(&r, "log other"), -ENOENT);
	assert_int_equal(fixture_ctl(&r, "log"), -EINVAL);
	assert_idle();
	close(first);
	close(second);
	unlink(path);
	snprintf(path, sizeof(path), "%s/a", dir);
	unlink(path);
	rmdir(dir);
}

/*
 * VQ-03: the transmit queue is reset in the middle of a chain, which is partly
 * sent, and logged: the next chain is sent whole, and logged.
 */
static void test_queue_reset_while_blocked(void **state)
{
	char dir[] = "/tmp/port_test.XXXXXX", more[96], path[64], buf[65536];
	unsigned q = fixture_txq(0);
	int log;

	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/a", dir);
	snprintf(more, sizeof(more), ",log=%s", path);
	fixture_make(&r, VDRV_MODERN, 1, more);
	fixture_start(&r, UINT64_MAX);
	fill(0);
	vdrv_common_write(&r.d, VIRTIO_PCI_COMMON_Q_SELECT, 2, q);
	vdrv_common_write(&r.d, VIRTIO_PCI_COMMON_Q_RESET, 2, 1);
	assert_int_equal(vdrv_common_read(&r.d, VIRTIO_PCI_COMMON_Q_RESET, 2),
			 0);
	while (read(r.host[0], buf, sizeof(buf)) > 0)
		fixture_iterate(&r, 1);
	unlink(path);
	snprintf(path, sizeof(path), "%s/b", dir);
	log = log_to(path);
	assert_true(vdrv_queue_setup(&r.d, q, 0));
	fixture_write(&r, 0, "new", 3);
	expect_read(r.host[0], "new");
	expect_read(log, "new");
	close(log);
	unlink(path);
	rmdir(dir);
}

/* More than a log takes at once, to a channel that takes even less. */
static void test_log_and_back_pressure(void **state)
{
	char path[] = "/tmp/port_test.XXXXXX", more[64], page[PAGE];
	const size_t total = 400 * sizeof(page);
	int log = mkstemp(path), sndbuf = 1;
	size_t sent = 0, got = 0, logged = 0;
	uint64_t end = vio_now_ns() + PATIENCE_NS;
	struct vdrv_used used;

	snprintf(more, sizeof(more), ",log=%s", path);
	fixture_make(&r, VDRV_MODERN, 1, more);
	setsockopt(r.host[0], SOL_SOCKET, SO_RCVBUF, &sndbuf, sizeof(sndbuf));
	fixture_start(&r, UINT64_MAX);
	while (got < total && vio_now_ns() < end) {
		for (; sent < total && sent < got + 64 * sizeof(page);
		     sent += sizeof(page)) {
			for (size_t i = 0; i < sizeof(page); i++)
				page[i] = pattern(sent + i);
			fixture_write(&r, 0, page, sizeof(page));
		}
		fixture_iterate(&r, 1);
		while (vdrv_used(&r.d, fixture_txq(0), &used))
			;
		got += host_read(0, got, 3000);
	}
	assert_int_equal(got, total);
	assert_idle();
	while (logged < total && vio_now_ns() < end) {
		ssize_t n = read(log, page, sizeof(page));

		for (ssize_t i = 0; i < n; i++)
			assert_int_equal(page[i], pattern(logged + (size_t)i));
		logged += n > 0 ? (size_t)n : 0;
	}
	assert_int_equal(read(log, page, sizeof(page)), 0);
	assert_int_equal(fixture_status(&r, 0, "log-lost"), 0);
	close(log);
	unlink(path);
}

/* A full disk costs the log, not the channel, and one line. */
static void test_log_full(void **state)
{
	unsigned nr_log;

	fixture_make(&r, VDRV_MODERN, 1, ",log=/dev/full");
	fixture_start(&r, UINT64_MAX);
	nr_log = r.d.nr_log;
	for (int i = 0; i < 3; i++) {
		fixture_write(&r, 0, "text", 4);
		expect_read(r.host[0], "text");
	}
	assert_int_equal(r.d.nr_log, nr_log + 1);
	assert_non_null(strstr(r.d.last_log, "No space left on device"));
	assert_int_equal(fixture_status(&r, 0, "log-errors"), 3);
	assert_int_equal(fixture_status(&r, 0, "log-lost"), 12);
	assert_idle();
}

/* A channel and a log that both fail are both reported. */
static void test_channel_and_log_full(void **state)
{
	uint64_t end = vio_now_ns() + PATIENCE_NS;
	unsigned nr_log;

	fixture_make(&r, VDRV_MODERN, 0,
		     ",console=file:/dev/full,log=/dev/full");
	fixture_start(&r, UINT64_MAX);
	nr_log = r.d.nr_log;
	fixture_write(&r, 0, "text", 4);
	while (r.d.nr_log < nr_log + 2 && vio_now_ns() < end)
		fixture_iterate(&r, 1);
	assert_int_equal(r.d.nr_log, nr_log + 2);
}

/* A disk that does not answer is waited for a second, once. */
static void test_log_hangs(void **state)
{
	char dir[] = "/tmp/port_test.XXXXXX", path[64], more[96];
	char buf[65536] = "";
	unsigned nr_log;
	int fd;

	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/fifo", dir);
	assert_int_equal(mkfifo(path, 0600), 0);
	fd = open(path, O_RDWR | O_NONBLOCK);
	while (write(fd, buf, sizeof(buf)) > 0)
		;
	snprintf(more, sizeof(more), ",log=%s", path);
	fixture_make(&r, VDRV_MODERN, 1, more);
	fixture_start(&r, UINT64_MAX);
	nr_log = r.d.nr_log;
	fixture_write(&r, 0, "one", 3);
	fixture_iterate(&r, 2);
	expect_read(r.host[0], "");
	assert_int_equal(r.d.nr_log, nr_log);
	expect_read(r.host[0], "one");
	fixture_write(&r, 0, "two", 3);
	fixture_iterate(&r, 2);
	assert_int_equal(read(r.host[0], buf, sizeof(buf)), 3);
	assert_int_equal(r.d.nr_log, nr_log + 1);
	assert_int_equal(fixture_status(&r, 0, "log-lost"), 6);
	/* Once it answers, logging resumes. */
	while (read(fd, buf, sizeof(buf)) > 0)
		;
	fixture_iterate(&r, 2);
	fixture_write(&r, 0, "four", 4);
	expect_read(fd, "four");
	expect_read(r.host[0], "four");
	assert_idle();
	close(fd);
	unlink(path);
	rmdir(dir);
}

#define T(fn) cmocka_unit_test_teardown(fn, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_tx_pieces),
		T(test_rx_pieces),
		T(test_rx_back_pressure),
		T(test_tx_back_pressure),
		T(test_reset_while_blocked),
		T(test_overflow),
		T(test_backlog),
		T(test_log),
		T(test_queue_reset_while_blocked),
		T(test_log_and_back_pressure),
		T(test_log_full),
		T(test_channel_and_log_full),
		T(test_log_hangs),
		T(test_reader_gone),
		T(test_removed_while_blocked),
		T(test_no_console),
		T(test_wrong_way),
		T(test_wrong_way_between),
		T(test_broken_chains),
	};

	return cmocka_run_group_tests_name("console ports", tests, NULL, NULL);
}

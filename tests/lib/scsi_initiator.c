/* SPDX-License-Identifier: BSD-2-Clause */
#include "scsi_initiator.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

struct initiator ini;

static void make_dir(void)
{
	const char *tmp = getenv("TMPDIR");

	if (ini.dir[0])
		return;
	snprintf(ini.dir, sizeof(ini.dir), "%.40s/viodev-scsi-XXXXXX",
		 tmp ? tmp : "/var/tmp");
	if (!mkdtemp(ini.dir))
		fail_msg("mkdtemp");
}

void ini_image(const char *name, uint64_t bytes)
{
	uint8_t block[512];
	char path[128];
	int fd;

	make_dir();
	snprintf(path, sizeof(path), "%s/%s", ini.dir, name);
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
	assert_true(fd >= 0);
	for (uint64_t at = 0; at < bytes; at += sizeof(block)) {
		memset(block, 'a' + (int)(at / 512 % 26), sizeof(block));
		assert_int_equal(write(fd, block, sizeof(block)), 512);
	}
	assert_int_equal(ftruncate(fd, (off_t)bytes), 0);
	close(fd);
}

void ini_text(const char *options, char *text, size_t size)
{
	size_t n = 0;

	make_dir();
	for (const char *c = options; *c && n + sizeof(ini.dir) < size; c++) {
		if (c[0] == '%' && c[1] == 'd') {
			n += (size_t)sprintf(text + n, "%s", ini.dir);
			c++;
		} else {
			text[n++] = *c;
		}
	}
	text[n] = '\0';
}

/* What an embedder does: run the loop, and look when it is woken. */
void ini_iterate_once(int timeout_ms)
{
	vio_loop_iterate(ini.loop, timeout_ms);
	vdrv_wake(&ini.d);
}

static void on_idle(void *arg)
{
	ini_iterate_once(1);
}

void ini_init(enum vdrv_mode mode)
{
	ini.cdb_size = 32;
	ini.sense_size = 96;
	assert_int_equal(vio_loop_create(&ini.loop), 0);
	vdrv_init(&ini.d, mode);
	ini.d.idle = on_idle;
}

void ini_create(enum vdrv_mode mode, const char *options)
{
	char text[600], why[256] = "";

	ini_text(options, text, sizeof(text));
	ini_init(mode);
	if (vdev_new(text, &ini.d.pi, ini.loop, &ini.dev, why, sizeof(why)) < 0)
		fail_msg("%s", why);
}

void ini_start(const char *options)
{
	ini_create(VDRV_MODERN, options);
	assert_true(vdrv_start(&ini.d, ~0ull, 3));
}

void ini_restart_now(void)
{
	uint64_t features = ini.d.features;
	unsigned nr = 0;

	while (nr < VDRV_MAX_Q && ini.d.q[nr].ready)
		nr++;
	vdrv_reset_now(&ini.d);
	vdrv_greet(&ini.d);
	assert_true(vdrv_negotiate(&ini.d, features));
	for (unsigned q = 0; q < nr; q++)
		assert_true(vdrv_queue_setup(&ini.d, q, 0));
	vdrv_driver_ok(&ini.d);
}

void ini_close(void)
{
	if (!ini.dev)
		return;
	vdev_destroy(ini.dev);
	vdrv_fini(&ini.d);
	vio_loop_destroy(ini.loop);
	ini.dev = NULL;
}

void ini_stop(void)
{
	char text[128];

	ini_close();
	if (ini.dir[0]) {
		snprintf(text, sizeof(text), "rm -rf %s", ini.dir);
		if (system(text))
			fail();
		ini.dir[0] = '\0';
	}
}

void ini_iterate(int n)
{
	while (n-- > 0)
		ini_iterate_once(2);
}

/*
 * --- Commands ---
 */

struct sent ini_add(const struct cmd *c)
{
	static const uint8_t lun0[8] = { 1 }, none[8] = { 0 };
	uint32_t req_len = 19 + ini.cdb_size, resp_len = 12 + ini.sense_size;
	struct sent s = {
		.queue = c->queue,
		.in_len = c->in_len,
		.req = vdrv_alloc(&ini.d, req_len, 8),
		.resp = vdrv_alloc(&ini.d, resp_len, 8),
		.data = vdrv_alloc(&ini.d, c->in_len + c->out_len + 8, 8),
	};
	uint8_t *req = vdrv_ptr(&ini.d, s.req, req_len);
	uint8_t *data = vdrv_ptr(&ini.d, s.data, c->in_len + c->out_len);
	struct vdrv_buf bufs[4];
	unsigned n = 0;

	memset(req, 0, req_len);
	memcpy(req, memcmp(c->addr, none, 8) ? c->addr : lun0, 8);
	memcpy(req + 8, &c->id, 8);
	req[16] = c->attr;
	memcpy(req + 19, c->cdb,
	       ini.cdb_size < 16 ? ini.cdb_size : sizeof(c->cdb));
	memset(vdrv_ptr(&ini.d, s.resp, resp_len), 0xee, resp_len);
	memset(data, 0, c->out_len);
	if (c->out)
		memcpy(data, c->out, c->out_len);
	memset(data + c->out_len, 0xdd, c->in_len);

	bufs[n++] = (struct vdrv_buf){ s.req, req_len, VDRV_R };
	if (c->out_len)
		bufs[n++] = (struct vdrv_buf){ s.data, c->out_len, VDRV_R };
	bufs[n++] = (struct vdrv_buf){ s.resp, resp_len, VDRV_W };
	if (c->in_len)
		bufs[n++] = (struct vdrv_buf){ s.data + c->out_len, c->in_len,
					       VDRV_W };
	s.in = data + c->out_len;
	s.head = vdrv_add(&ini.d, 2 + c->queue, bufs, n);
	return s;
}

struct sent ini_send(const struct cmd *c)
{
	struct sent s = ini_add(c);

	vdrv_kick(&ini.d, 2 + c->queue);
	return s;
}

static uint32_t code_of(const uint8_t *sense, uint32_t len)
{
	if (len < 8)
		return 0;
	if ((sense[0] & 0x7f) == 0x70)
		return (sense[2] & 15u) << 16 | sense[12] << 8 | sense[13];
	return (sense[1] & 15u) << 16 | sense[2] << 8 | sense[3];
}

static void read_response(struct sent *s, uint32_t used)
{
	const uint8_t *p = vdrv_ptr(&ini.d, s->resp, 12 + ini.sense_size);
	uint32_t v;

	s->done = true;
	s->used = used;
	memcpy(&v, p, 4);
	s->sense_len = le32toh(v);
	memcpy(&v, p + 4, 4);
	s->residual = le32toh(v);
	s->status = p[10];
	s->response = p[11];
	assert_true(s->sense_len <= ini.sense_size || s->response == 0xee);
	if (s->sense_len <= sizeof(s->sense))
		memcpy(s->sense, p + 12, s->sense_len);
	s->code = s->status == STATUS_CHECK_CONDITION ?
			  code_of(s->sense, s->sense_len) :
			  0;
}

void ini_collect(struct sent *all, unsigned nr)
{
	struct vdrv_used used;

	for (unsigned q = 2; q < VDRV_MAX_Q && ini.d.q[q].ready; q++) {
		while (vdrv_used(&ini.d, q, &used)) {
			for (unsigned i = 0; i < nr; i++) {
				if (!all[i].done && all[i].queue + 2 == q &&
				    all[i].head == used.id) {
					read_response(&all[i], used.len);
					break;
				}
			}
		}
	}
}

static bool all_done(struct sent *all, unsigned nr)
{
	ini_collect(all, nr);
	while (nr > 0 && all[nr - 1].done)
		nr--;
	return nr == 0;
}

void ini_wait(struct sent *all, unsigned nr)
{
	uint64_t end = vio_now_ns() + 10000000000ull;

	while (!all_done(all, nr)) {
		assert_true(vio_now_ns() < end);
		ini_iterate_once(10);
	}
}

struct sent ini_do(const struct cmd *c)
{
	struct sent s = ini_send(c);

	ini_wait(&s, 1);
	return s;
}

struct sent ini_do_ready(const struct cmd *c)
{
	struct cmd tur = { .cdb = { 0 } };
	struct sent s;

	memcpy(tur.addr, c->addr, 8);
	do
		s = ini_do(&tur);
	while (s.code >> 16 == 6);
	return ini_do(c);
}

uint8_t ini_tmf(uint32_t subtype, const uint8_t addr[8], uint64_t id)
{
	uint64_t req = vdrv_alloc(&ini.d, 24, 8);
	uint64_t resp = vdrv_alloc(&ini.d, 1, 1);
	uint8_t *p = vdrv_ptr(&ini.d, req, 24), before[24];
	uint64_t end = vio_now_ns() + 10000000000ull;
	struct vdrv_buf bufs[] = { { req, 24, VDRV_R }, { resp, 1, VDRV_W } };
	struct vdrv_used used;

	memset(p, 0, 24);
	memcpy(p + 4, &(uint32_t){ htole32(subtype) }, 4);
	memcpy(p + 8, addr, 8);
	memcpy(p + 16, &id, 8);
	memcpy(before, p, 24);
	*(uint8_t *)vdrv_ptr(&ini.d, resp, 1) = 0xee;
	vdrv_add(&ini.d, 0, bufs, 2);
	vdrv_kick(&ini.d, 0);
	while (!vdrv_used(&ini.d, 0, &used)) {
		assert_true(vio_now_ns() < end);
		ini_iterate_once(10);
	}
	assert_int_equal(used.len, 1);
	assert_memory_equal(p, before, 24); /* hostile S18a */
	return *(uint8_t *)vdrv_ptr(&ini.d, resp, 1);
}

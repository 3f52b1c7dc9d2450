/* SPDX-License-Identifier: BSD-2-Clause */
#include "p9_client.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <viodev/device.h>

#include <cmocka.h>

#define MAX_BUFS 1100

/*
 * --- Device and driver ---
 */

static void make_dirs(struct p9c *c)
{
	const char *tmp = getenv("TMPDIR");
	char path[96];
	int fd;

	snprintf(c->dir, sizeof(c->dir), "%s/viodev-9p-XXXXXX",
		 tmp && strlen(tmp) < 40 ? tmp : "/tmp");
	assert_non_null(mkdtemp(c->dir));
	snprintf(c->root, sizeof(c->root), "%s/export", c->dir);
	assert_int_equal(mkdir(c->root, 0755), 0);
	snprintf(path, sizeof(path), "%s/secret", c->dir);
	fd = open(path, O_WRONLY | O_CREAT, 0644);
	assert_int_equal(write(fd, P9C_SECRET, sizeof(P9C_SECRET)),
			 sizeof(P9C_SECRET));
	close(fd);
}

static void iterate(void *arg)
{
	struct p9c *c = arg;

	vio_loop_iterate(c->loop, 1);
}

void p9c_create(struct p9c *c, enum vdrv_mode mode, const char *options)
{
	char text[512], why[256] = "";

	memset(c, 0, sizeof(*c));
	make_dirs(c);
	assert_int_equal(vio_loop_create(&c->loop), 0);
	vdrv_init(&c->d, mode);
	c->d.idle = iterate;
	c->d.idle_arg = c;
	snprintf(text, sizeof(text), "9p,path=%s,tag=t%s", c->root, options);
	if (vdev_new(text, &c->d.pi, c->loop, &c->dev, why, sizeof(why)) < 0)
		fail_msg("%s", why);
	for (unsigned i = 0; i < P9C_SLOTS; i++) {
		c->slots[i].t_gpa = vdrv_alloc(&c->d, P9C_BYTES, 4096);
		c->slots[i].r_gpa = vdrv_alloc(&c->d, P9C_BYTES, 4096);
	}
}

void p9c_mount(struct p9c *c, uint32_t msize)
{
	assert_int_equal(p9c_call(c, P9_TVERSION, "ds", msize, "9P2000.L"), 0);
	assert_int_equal(p9c_call(c, P9_TATTACH, "ddssd", P9C_ROOT, P9_NOFID,
				  "root", "", 0),
			 0);
}

void p9c_start(struct p9c *c, enum vdrv_mode mode, const char *options)
{
	p9c_create(c, mode, options);
	assert_true(vdrv_start(&c->d, ~0ull, 1));
	p9c_mount(c, P9C_BYTES);
}

static int remove_entry(const char *path, const struct stat *st, int flag,
			struct FTW *ftw)
{
	return remove(path);
}

void p9c_destroy(struct p9c *c)
{
	if (!c->dev)
		return;
	vdev_destroy(c->dev);
	vdrv_fini(&c->d);
	vio_loop_destroy(c->loop);
	nftw(c->dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
	c->dev = NULL;
}

const char *p9c_path(struct p9c *c, const char *name)
{
	static char path[512];

	snprintf(path, sizeof(path), "%s/%s", c->root, name);
	return path;
}

/*
 * --- Messages ---
 */

static void encode_arg(struct out *out, char kind, va_list *ap)
{
	const char *s;
	size_t len;

	switch (kind) {
	case 'b':
		p9_encode8(out, (uint8_t)va_arg(*ap, unsigned));
		break;
	case 'w':
		p9_encode16(out, (uint16_t)va_arg(*ap, unsigned));
		break;
	case 'd':
		p9_encode32(out, va_arg(*ap, uint32_t));
		break;
	case 'q':
		p9_encode64(out, va_arg(*ap, uint64_t));
		break;
	case 's':
		p9_encode_string(out, va_arg(*ap, const char *));
		break;
	case 'n':
	case 'r':
		len = va_arg(*ap, size_t);
		s = va_arg(*ap, const char *);
		if (kind == 'n')
			p9_encode16(out, (uint16_t)len);
		out_write(out, s, len);
		break;
	default:
		fail_msg("format %c", kind);
	}
}

static uint32_t build(uint8_t *buf, uint16_t tag, uint8_t type, const char *fmt,
		      va_list *ap)
{
	struct out out = { .buf = buf, .size = P9C_BYTES };
	uint32_t len;

	p9_encode32(&out, 0);
	p9_encode8(&out, type);
	p9_encode16(&out, tag);
	for (; *fmt; fmt++)
		encode_arg(&out, *fmt, ap);
	assert_false(out.full);
	len = (uint32_t)out.len;
	out.len = 0;
	p9_encode32(&out, len);
	return len;
}

static unsigned cut(struct vdrv_buf *bufs, unsigned nr, uint64_t gpa,
		    uint32_t len, uint32_t piece, unsigned flags)
{
	if (!piece)
		piece = len;
	while (len > 0 && nr < MAX_BUFS) {
		uint32_t n = len < piece ? len : piece;

		bufs[nr++] = (struct vdrv_buf){ gpa, n, flags };
		gpa += n;
		len -= n;
	}
	return nr;
}

static unsigned free_slot(struct p9c *c)
{
	unsigned i = 0;

	while (i < P9C_SLOTS && c->slots[i].busy)
		i++;
	assert_true(i < P9C_SLOTS);
	return i;
}

/* Make the message in slot @i, which is in guest memory, available. */
static void submit(struct p9c *c, unsigned i, uint32_t len)
{
	static struct vdrv_buf bufs[MAX_BUFS];
	struct p9c_slot *s = &c->slots[i];
	uint32_t room = c->room ? c->room : P9C_BYTES;
	unsigned nr;

	nr = cut(bufs, 0, s->t_gpa, len, c->t_cut, VDRV_R);
	if (c->room != UINT32_MAX)
		nr = cut(bufs, nr, s->r_gpa, room, c->r_cut, VDRV_W);
	memset(vdrv_ptr(&c->d, s->r_gpa, P9C_BYTES), 0xee, P9C_BYTES);
	s->head = nr > c->d.q[0].nr_free ?
			  vdrv_add_indirect(&c->d, 0, bufs, nr) :
			  vdrv_add(&c->d, 0, bufs, nr);
	s->busy = true;
}

unsigned p9c_send(struct p9c *c, uint16_t tag, uint8_t type, const char *fmt,
		  ...)
{
	unsigned i = free_slot(c);
	uint32_t len;
	va_list ap;

	va_start(ap, fmt);
	len = build(vdrv_ptr(&c->d, c->slots[i].t_gpa, P9C_BYTES), tag, type,
		    fmt, &ap);
	va_end(ap);
	submit(c, i, len);
	return i;
}

void p9c_poll(struct p9c *c)
{
	struct vdrv_used used;

	while (vdrv_used(&c->d, 0, &used)) {
		for (unsigned i = 0; i < P9C_SLOTS; i++) {
			struct p9c_slot *s = &c->slots[i];

			if (!s->busy || s->head != used.id)
				continue;
			s->busy = false;
			s->used = used.len;
		}
	}
}

/* The reply, checked for what every reply must be. */
static int take_reply(struct p9c *c, const struct p9c_slot *s)
{
	const uint8_t *t = vdrv_ptr(&c->d, s->t_gpa, P9_HEADER);
	struct p9_in in = { .p = c->reply, .left = s->used };
	uint8_t type;

	c->used = s->used;
	c->in = (struct p9_in){ .p = c->reply };
	if (s->used == 0)
		return P9C_NO_REPLY;
	assert_true(s->used >= P9_HEADER && s->used <= P9C_BYTES);
	memcpy(c->reply, vdrv_ptr(&c->d, s->r_gpa, s->used), s->used);
	assert_int_equal(p9_decode32(&in), s->used); /* P9-03 */
	type = p9_decode8(&in);
	p9_decode16(&in);
	c->in = in;
	if (type == P9_RLERROR) {
		assert_int_equal(s->used, P9_RLERROR_SZ);
		return -(int)p9_decode32(&c->in);
	}
	assert_int_equal(type, t[4] + 1);
	assert_memory_equal(c->reply + 5, t + 5, 2); /* the tag */
	return 0;
}

void p9c_iterate(struct p9c *c, unsigned nr)
{
	for (unsigned i = 0; i < nr; i++)
		vio_loop_iterate(c->loop, 1);
	vdrv_wake(&c->d);
}

int p9c_wait(struct p9c *c, unsigned slot)
{
	uint64_t end = vio_now_ns() + 20000000000ull;
	struct p9c_slot *s = &c->slots[slot];

	p9c_poll(c);
	while (s->busy) {
		assert_true(vio_now_ns() < end);
		vio_loop_iterate(c->loop, 10);
		vdrv_wake(&c->d);
		p9c_poll(c);
	}
	return take_reply(c, s);
}

int p9c_call(struct p9c *c, uint8_t type, const char *fmt, ...)
{
	unsigned i = free_slot(c);
	uint32_t len;
	va_list ap;

	va_start(ap, fmt);
	len = build(vdrv_ptr(&c->d, c->slots[i].t_gpa, P9C_BYTES),
		    c->next_tag++, type, fmt, &ap);
	va_end(ap);
	submit(c, i, len);
	vdrv_kick(&c->d, 0);
	return p9c_wait(c, i);
}

int p9c_raw(struct p9c *c, const void *msg, uint32_t len)
{
	unsigned i = free_slot(c);

	memcpy(vdrv_ptr(&c->d, c->slots[i].t_gpa, P9C_BYTES), msg, len);
	submit(c, i, len);
	vdrv_kick(&c->d, 0);
	return p9c_wait(c, i);
}

/*
 * --- Helpers ---
 */

struct p9_qid p9c_qid(struct p9c *c)
{
	struct p9_qid qid = { .type = p9_decode8(&c->in) };

	qid.version = p9_decode32(&c->in);
	qid.path = p9_decode64(&c->in);
	return qid;
}

int p9c_walk(struct p9c *c, uint32_t fid, uint32_t newfid, const char *name)
{
	int ret = p9c_call(c, P9_TWALK, "ddws", fid, newfid, 1, name);

	if (ret == 0)
		p9_decode16(&c->in);
	return ret;
}

int p9c_open(struct p9c *c, uint32_t fid, uint32_t flags)
{
	return p9c_call(c, P9_TLOPEN, "dd", fid, flags);
}

int p9c_clunk(struct p9c *c, uint32_t fid)
{
	return p9c_call(c, P9_TCLUNK, "d", fid);
}

int p9c_make(struct p9c *c, uint32_t newfid, const char *name)
{
	int ret = p9c_call(c, P9_TWALK, "ddw", P9C_ROOT, newfid, 0);

	if (ret < 0)
		return ret;
	return p9c_call(c, P9_TLCREATE, "dsddd", newfid, name, 2, 0644, 0);
}

int p9c_read(struct p9c *c, uint32_t fid, uint64_t off, uint32_t count)
{
	int ret = p9c_call(c, P9_TREAD, "dqd", fid, off, count);

	return ret < 0 ? ret : (int)p9_decode32(&c->in);
}

int p9c_write(struct p9c *c, uint32_t fid, uint64_t off, const void *p,
	      uint32_t len)
{
	int ret = p9c_call(c, P9_TWRITE, "dqdr", fid, off, len, (size_t)len, p);

	return ret < 0 ? ret : (int)p9_decode32(&c->in);
}

void p9c_host_file(struct p9c *c, const char *name, const char *text)
{
	int fd = open(p9c_path(c, name), O_WRONLY | O_CREAT | O_TRUNC, 0644);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
}

static struct timespec get_time(struct p9c *c)
{
	struct timespec t;

	t.tv_sec = (time_t)p9_decode64(&c->in);
	t.tv_nsec = (long)p9_decode64(&c->in);
	return t;
}

int p9c_getattr(struct p9c *c, uint32_t fid, struct p9c_attr *a)
{
	int ret = p9c_call(c, P9_TGETATTR, "dq", fid, P9C_ALL);

	if (ret < 0)
		return ret;
	a->valid = p9_decode64(&c->in);
	a->qid = p9c_qid(c);
	a->mode = p9_decode32(&c->in);
	a->uid = p9_decode32(&c->in);
	a->gid = p9_decode32(&c->in);
	a->nlink = p9_decode64(&c->in);
	a->rdev = p9_decode64(&c->in);
	a->size = p9_decode64(&c->in);
	a->blksize = p9_decode64(&c->in);
	a->blocks = p9_decode64(&c->in);
	a->atime = get_time(c);
	a->mtime = get_time(c);
	a->ctime = get_time(c);
	a->btime = get_time(c);
	p9_decode64(&c->in);
	p9_decode64(&c->in);
	assert_int_equal(c->in.err, 0);
	assert_int_equal(c->in.left, 0);
	return 0;
}

int p9c_setattr(struct p9c *c, uint32_t fid, uint32_t valid, uint32_t mode,
		uint32_t uid, uint64_t size, uint64_t sec, uint64_t nsec)
{
	return p9c_call(c, P9_TSETATTR, "dddddqqqqq", fid, valid, mode, uid,
			uid, size, sec, nsec, sec, nsec);
}

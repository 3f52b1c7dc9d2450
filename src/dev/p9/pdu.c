/* SPDX-License-Identifier: BSD-2-Clause */
#include "dev/p9/pdu.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

/*
 * --- Requests ---
 */

static void fail(struct p9_in *in, int err)
{
	if (in->err == 0)
		in->err = err;
	in->left = in->beyond = 0;
}

/* The next @len bytes, or NULL when they are not all here. */
static const uint8_t *take(struct p9_in *in, size_t len)
{
	const uint8_t *p = in->p;

	if (len > in->left) {
		/* What is there but too long to be kept is long names. */
		fail(in, len > in->left + in->beyond ? -EINVAL : -ENAMETOOLONG);
		return NULL;
	}
	in->p += len;
	in->left -= len;
	return p;
}

static void get(struct p9_in *in, void *to, size_t len)
{
	const uint8_t *p = take(in, len);

	if (p)
		memcpy(to, p, len);
}

uint8_t p9_decode8(struct p9_in *in)
{
	uint8_t v = 0;

	get(in, &v, sizeof(v));
	return v;
}

uint16_t p9_decode16(struct p9_in *in)
{
	uint16_t v = 0;

	get(in, &v, sizeof(v));
	return le16toh(v);
}

uint32_t p9_decode32(struct p9_in *in)
{
	uint32_t v = 0;

	get(in, &v, sizeof(v));
	return le32toh(v);
}

uint64_t p9_decode64(struct p9_in *in)
{
	uint64_t v = 0;

	get(in, &v, sizeof(v));
	return le64toh(v);
}

void p9_skip_string(struct p9_in *in)
{
	take(in, p9_decode16(in));
}

void p9_decode_string(struct p9_in *in, char *buf, size_t size)
{
	size_t len = p9_decode16(in);
	const uint8_t *p = take(in, len);

	buf[0] = '\0';
	if (!p)
		return;
	if (len >= size) {
		fail(in, -ENAMETOOLONG);
		return;
	}
	if (memchr(p, '\0', len)) {
		fail(in, -EINVAL);
		return;
	}
	memcpy(buf, p, len);
	buf[len] = '\0';
}

void p9_decode_name(struct p9_in *in, char *buf)
{
	p9_decode_string(in, buf, P9_NAME_MAX + 1);
	if (!buf[0] || !strcmp(buf, ".") || !strcmp(buf, "..") ||
	    strchr(buf, '/'))
		fail(in, -EINVAL);
}

/*
 * --- Replies ---
 */

void p9_encode8(struct out *out, uint8_t v)
{
	out_write(out, &v, sizeof(v));
}

void p9_encode16(struct out *out, uint16_t v)
{
	v = htole16(v);
	out_write(out, &v, sizeof(v));
}

void p9_encode32(struct out *out, uint32_t v)
{
	v = htole32(v);
	out_write(out, &v, sizeof(v));
}

void p9_encode64(struct out *out, uint64_t v)
{
	v = htole64(v);
	out_write(out, &v, sizeof(v));
}

void p9_encode_string(struct out *out, const char *s)
{
	size_t len = strlen(s);

	if (len > UINT16_MAX) {
		out->full = true;
		return;
	}
	p9_encode16(out, (uint16_t)len);
	out_write(out, s, len);
}

void p9_encode_qid(struct out *out, const struct p9_qid *qid)
{
	p9_encode8(out, qid->type);
	p9_encode32(out, qid->version);
	p9_encode64(out, qid->path);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * SCSI's numbers: big-endian, at any address; and the data a command answers
 * with, put together in a buffer that bounds it.
 */
#ifndef SCSI_CODEC_H
#define SCSI_CODEC_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* @n bytes, at most 8. */
static inline uint64_t read_be(const uint8_t *p, unsigned n)
{
	uint64_t v = 0;

	while (n--)
		v = v << 8 | *p++;
	return v;
}

static inline uint16_t read_be16(const uint8_t *p)
{
	return (uint16_t)read_be(p, 2);
}

static inline uint32_t read_be32(const uint8_t *p)
{
	return (uint32_t)read_be(p, 4);
}

static inline uint64_t read_be64(const uint8_t *p)
{
	return read_be(p, 8);
}

static inline void write_be(uint8_t *p, uint64_t v, unsigned n)
{
	while (n--) {
		p[n] = (uint8_t)v;
		v >>= 8;
	}
}

static inline void write_be16(uint8_t *p, uint16_t v)
{
	write_be(p, v, 2);
}

static inline void write_be32(uint8_t *p, uint32_t v)
{
	write_be(p, v, 4);
}

static inline void write_be64(uint8_t *p, uint64_t v)
{
	write_be(p, v, 8);
}

/*
 * Data for the initiator. All of it is zero at first; what does not fit is
 * left out, so that nothing a guest asks for can overrun it.
 */
#define REPLY_MAX 4096

struct reply {
	size_t len;
	uint8_t b[REPLY_MAX];
};

static inline void reply_init(struct reply *r)
{
	memset(r, 0, sizeof(*r));
}

/* Append @n zero bytes: where they are, or NULL. */
static inline uint8_t *reply_add(struct reply *r, size_t n)
{
	uint8_t *p = r->b + r->len;

	if (n > REPLY_MAX - r->len)
		return NULL;
	r->len += n;
	return p;
}

static inline void reply_write(struct reply *r, uint64_t v, unsigned n)
{
	uint8_t *p = reply_add(r, n);

	if (p)
		write_be(p, v, n);
}

static inline void reply_copy(struct reply *r, const void *from, size_t n)
{
	uint8_t *p = reply_add(r, n);

	if (p)
		memcpy(p, from, n);
}

/* Text in a field of @n bytes, filled up with spaces. */
static inline void reply_text(struct reply *r, const char *text, size_t n)
{
	uint8_t *p = reply_add(r, n);

	if (!p)
		return;
	memset(p, ' ', n);
	for (size_t i = 0; i < n && text[i]; i++)
		p[i] = (uint8_t)text[i];
}

#endif

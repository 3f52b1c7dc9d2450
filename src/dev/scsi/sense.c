/* SPDX-License-Identifier: BSD-2-Clause */
#include "dev/scsi/sense.h"

#include <string.h>

#include "dev/scsi/codec.h"

enum {
	FIXED_CURRENT = 0x70,
	DESCRIPTOR_CURRENT = 0x72,
	VALID = 0x80,
	FIXED_LEN = 18,
	DESC_INFORMATION = 0,
	DESC_KEY_SPECIFIC = 2,
};

/* Three bytes: SKSV, C/D, BPV, bit pointer; field pointer. */
static void write_field(const struct scsi_sense *s, uint8_t *p)
{
	p[0] = 0x80 | (s->in_cdb ? 0x40 : 0);
	if (s->bit < 8)
		p[0] |= 0x08 | s->bit;
	write_be16(p + 1, s->byte);
}

static size_t build_fixed(const struct scsi_sense *s, uint8_t *buf)
{
	buf[0] = FIXED_CURRENT;
	/* The field has four bytes; what does not fit is not valid. */
	if (s->has_info && s->info <= UINT32_MAX) {
		buf[0] |= VALID;
		write_be32(buf + 3, (uint32_t)s->info);
	}
	buf[2] = (uint8_t)(s->code >> 16);
	buf[7] = FIXED_LEN - 8;
	buf[12] = (uint8_t)(s->code >> 8);
	buf[13] = (uint8_t)s->code;
	if (s->has_field)
		write_field(s, buf + 15);
	return FIXED_LEN;
}

static size_t build_descriptors(const struct scsi_sense *s, uint8_t *buf)
{
	uint8_t *p = buf + 8;

	buf[0] = DESCRIPTOR_CURRENT;
	buf[1] = (uint8_t)(s->code >> 16);
	buf[2] = (uint8_t)(s->code >> 8);
	buf[3] = (uint8_t)s->code;
	if (s->has_info) {
		p[0] = DESC_INFORMATION;
		p[1] = 10;
		p[2] = VALID;
		write_be64(p + 4, s->info);
		p += 12;
	}
	if (s->has_field) {
		p[0] = DESC_KEY_SPECIFIC;
		p[1] = 6;
		write_field(s, p + 4);
		p += 8;
	}
	buf[7] = (uint8_t)(p - buf - 8);
	return (size_t)(p - buf);
}

size_t sense_build(const struct scsi_sense *s, bool descriptor,
		   uint8_t buf[SENSE_MAX])
{
	memset(buf, 0, SENSE_MAX);
	return descriptor ? build_descriptors(s, buf) : build_fixed(s, buf);
}

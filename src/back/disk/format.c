/* SPDX-License-Identifier: BSD-2-Clause */
#include "back/disk/format.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"

#define HEAD_BYTES   4096u
#define FOOTER_BYTES 512u /* the last bytes of an image */

struct magic {
	const char *format;
	unsigned at;
	unsigned len;
	const char *bytes;
};

#define MAGIC(format, at, bytes) { format, at, sizeof(bytes) - 1, bytes }

static const struct magic head_magics[] = {
	MAGIC("qcow", 0, "QFI\xfb\0\0\0\1"),
	MAGIC("qcow2", 0, "QFI\xfb"),
	MAGIC("vmdk", 0, "KDMV"),
	MAGIC("vmdk", 0, "COWD"),
	MAGIC("vmdk", 0, "# Disk DescriptorFile"),
	MAGIC("vdi", 64, "\x7f\x10\xda\xbe"),
	MAGIC("vhdx", 0, "vhdxfile"),
	MAGIC("vhd", 0, "conectix"),
	MAGIC("qed", 0, "QED\0"),
	MAGIC("luks", 0, "LUKS\xba\xbe"),
	MAGIC("parallels", 0, "WithoutFreeSpace"),
	MAGIC("parallels", 0, "WithouFreSpacExt"),
	MAGIC("bochs", 0, "Bochs Virtual HD Image"),
	MAGIC("cloop", 0, "#!/bin/sh\n#V2.0 Format\nmodprobe cloop"),
};

static const struct magic footer_magics[] = {
	MAGIC("vhd", 0, "conectix"), /* of a fixed size: data, then this */
	MAGIC("vhd", 1, "conectix"), /* as Virtual PC wrote it before 2004 */
	MAGIC("dmg", 0, "koly"),
};

static const char *find(const struct magic *magics, size_t nr,
			const char *bytes, size_t len)
{
	for (size_t i = 0; i < nr; i++) {
		const struct magic *m = &magics[i];

		if (m->at + m->len <= len &&
		    memcmp(bytes + m->at, m->bytes, m->len) == 0)
			return m->format;
	}
	return NULL;
}

/*
 * The footer begins 512 bytes before the end, wherever that is; O_DIRECT reads
 * whole blocks.
 */
static const char *find_footer(int fd, uint64_t bytes, char *buf)
{
	uint64_t at = bytes - FOOTER_BYTES, from = at - at % HEAD_BYTES;
	ssize_t n = pread(fd, buf, 2 * HEAD_BYTES, (off_t)from);

	if (n < 0 || (uint64_t)n < at - from)
		return NULL;
	return find(footer_magics, ARRAY_LEN(footer_magics), buf + (at - from),
		    (size_t)n - (size_t)(at - from));
}

static const char *find_format(int fd, uint64_t bytes, char *buf)
{
	const char *format = NULL;
	ssize_t n = pread(fd, buf, HEAD_BYTES, 0);

	if (n > 0)
		format = find(head_magics, ARRAY_LEN(head_magics), buf,
			      (size_t)n);
	if (!format && bytes >= FOOTER_BYTES)
		format = find_footer(fd, bytes, buf);
	return format;
}

const char *disk_format(int fd, uint64_t bytes)
{
	char *buf = aligned_alloc(HEAD_BYTES, 2 * HEAD_BYTES);
	const char *format = buf ? find_format(fd, bytes, buf) : NULL;

	free(buf);
	return format;
}

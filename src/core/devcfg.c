/* SPDX-License-Identifier: BSD-2-Clause */
/* Device configuration (virtio 2.5), which the model implements. */
#include <errno.h>

#include "core/core.h"

/*
 * A model serves 1, 2 and 4 bytes inside its configuration; an access beyond
 * the end is split into bytes.
 */
static bool cfg_whole(struct virtio_softc *vs, uint64_t off, int size)
{
	size_t cfgsize = vs->vs_vc->vc_cfgsize;

	return size <= 4 && off < cfgsize && (uint64_t)size <= cfgsize - off;
}

uint64_t vi_devcfg_read(struct virtio_softc *vs, uint64_t off, int size)
{
	uint64_t val = 0;
	uint32_t part = 0;

	if (!vs->vs_vc->vc_cfgread)
		return 0;
	if (cfg_whole(vs, off, size)) {
		if (vs->vs_vc->vc_cfgread(vs, (int)off, size, &part) != 0)
			part = 0xffffffffu >> (32 - 8 * size);
		return part;
	}
	for (int i = 0; i < size && size > 1; i++)
		val |= vi_devcfg_read(vs, off + (uint64_t)i, 1) << (8 * i);
	return val;
}

void vi_devcfg_write(struct virtio_softc *vs, uint64_t off, int size,
		     uint64_t val)
{
	if (!vs->vs_vc->vc_cfgwrite)
		return;
	if (cfg_whole(vs, off, size)) {
		vs->vs_vc->vc_cfgwrite(vs, (int)off, size, (uint32_t)val);
		return;
	}
	for (int i = 0; i < size && size > 1; i++)
		vi_devcfg_write(vs, off + (uint64_t)i, 1,
				(val >> (8 * i)) & 0xff);
}

static bool cfg_inside(size_t len, int offset, int size)
{
	return offset >= 0 && size >= 1 && size <= 4 &&
	       (size_t)offset + (size_t)size <= len;
}

int vi_cfg_read(const void *cfg, size_t len, int offset, int size,
		uint32_t *ret_val)
{
	const uint8_t *from = cfg;
	uint32_t val = 0;

	if (!cfg_inside(len, offset, size))
		return -EINVAL;
	for (int i = 0; i < size; i++)
		val |= (uint32_t)from[offset + i] << (8 * i);
	*ret_val = val;
	return 0;
}

int vi_cfg_write(void *cfg, size_t len, int offset, int size, uint32_t val)
{
	uint8_t *to = cfg;

	if (!cfg_inside(len, offset, size))
		return -EINVAL;
	for (int i = 0; i < size; i++)
		to[offset + i] = (uint8_t)(val >> (8 * i));
	return 0;
}

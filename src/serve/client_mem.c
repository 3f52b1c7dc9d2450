/* SPDX-License-Identifier: BSD-2-Clause */
/* Clients' files in our address space. See client.h. */
#include <errno.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <viodev/gmem.h>

#include "serve/client.h"

#define PAGE_BYTES 4096u
#define HUGE_BYTES (2u << 20)
#define MAX_BLOCK  (1u << 30) /* the largest huge page */

/* Files of huge pages map in whole pages only. */
static uint64_t block_size(const struct stat *st)
{
	uint64_t bs = (uint64_t)st->st_blksize;

	return bs > PAGE_BYTES && bs <= MAX_BLOCK && (bs & (bs - 1)) == 0
		       ? bs
		       : PAGE_BYTES;
}

int client_check_ram(uint64_t guest_addr, uint64_t offset, uint64_t size)
{
	return (guest_addr | offset | size) % PAGE_BYTES ? -EINVAL : 0;
}

/* The first address from @p on that is @offset modulo @align. */
static char *congruent(char *p, uint64_t offset, uint64_t align)
{
	return p + ((offset - (uintptr_t)p) & (align - 1));
}

/*
 * Map [begin, end) of @fd, whole blocks, with at least an inaccessible block
 * before and behind. What is large enough for transparent huge pages is placed
 * so that it can have them.
 */
static int map_between_guards(int fd, uint64_t begin, uint64_t end,
			      uint64_t block, int flags,
			      struct client_map *ret_map)
{
	uint64_t len = end - begin;
	uint64_t align = len >= HUGE_BYTES && block < HUGE_BYTES ? HUGE_BYTES
								 : block;
	size_t total = len + 2 * block + align;
	char *base = mmap(NULL, total, PROT_NONE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	char *p;

	if (base == MAP_FAILED)
		return -errno;
	p = congruent(base + block, begin, align);
	if (mmap(p, len, flags, MAP_SHARED | MAP_FIXED, fd, (off_t)begin) ==
	    MAP_FAILED) {
		int ret = -errno;

		munmap(base, total);
		return ret;
	}
	*ret_map = (struct client_map){ p, base, total };
	return 0;
}

int client_mmap(int fd, uint64_t offset, uint64_t size, unsigned prot,
		struct client_map *ret_map)
{
	int flags = (prot & GM_READ ? PROT_READ : 0) |
		    (prot & GM_WRITE ? PROT_WRITE : 0);
	uint64_t block, begin;
	struct stat st;
	int ret;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode) || st.st_size < 0 ||
	    offset + size > (uint64_t)st.st_size)
		return -EINVAL;
	block = block_size(&st);
	begin = offset & ~(block - 1);
	ret = map_between_guards(fd, begin,
				 (offset + size + block - 1) & ~(block - 1),
				 block, flags, ret_map);
	if (ret == 0)
		ret_map->host = (char *)ret_map->host + (offset - begin);
	return ret;
}

void client_unmap(struct client_map *map)
{
	if (map->addr)
		munmap(map->addr, map->len);
	*map = (struct client_map){ 0 };
}

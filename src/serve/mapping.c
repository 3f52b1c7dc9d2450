/* SPDX-License-Identifier: BSD-2-Clause */
/* Clients' files in our address space. See mapping.h. */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <viodev/gmem.h>

#include "base/fault.h"
#include "base/util.h"
#include "serve/client.h"
#include "serve/mapping.h"

#define PAGE_BYTES 4096u
#define HUGE_BYTES (2u << 20)
#define MAX_BLOCK  (1u << 30) /* the largest huge page */

/* Files of huge pages map in whole pages only. */
static uint64_t block_size(const struct stat *st)
{
	uint64_t bs = (uint64_t)st->st_blksize;

	return bs > PAGE_BYTES && bs <= MAX_BLOCK && (bs & (bs - 1)) == 0 ?
		       bs :
		       PAGE_BYTES;
}

struct mapped_file {
	struct fault_range range; /* the file's pages around the piece */
	struct client_wake *wake;
	unsigned client; /* its owner among the clients of @wake */
	char *host;      /* the requested piece */
	void *base;      /* with the inaccessible pages around them */
	size_t total;
};

/* In the signal handler. */
static void on_replaced(struct fault_range *range)
{
	struct mapped_file *m = container_of(range, struct mapped_file, range);

	if (m->client != m->wake->client)
		return;
	__atomic_store_n(&m->wake->faulted, true, __ATOMIC_RELEASE);
	client_wake(m->wake);
}

/* Another thread's fault is reported before, or not at all. */
void client_disconnected(struct client_wake *wake)
{
	fault_lock();
	wake->client++;
	client_has_faulted(wake);
	fault_unlock();
}

/*
 * --- Mapping ---
 */

int mapping_check_ram(uint64_t guest_addr, uint64_t offset, uint64_t size)
{
	return (guest_addr | offset | size) % PAGE_BYTES ? -EINVAL : 0;
}

/* The first address from @p on that is @offset modulo @align. */
static char *congruent(char *p, uint64_t offset, uint64_t align)
{
	return p + ((offset - (uintptr_t)p) & (align - 1));
}

/*
 * Map [begin, end) of @fd, whole blocks, with at least one inaccessible block
 * before and after it. A range large enough for transparent huge pages is
 * placed so that it can have them.
 */
static int map_between_guards(int fd, uint64_t begin, uint64_t end,
			      uint64_t block, struct mapped_file *m)
{
	uint64_t len = end - begin;
	uint64_t align =
		len >= HUGE_BYTES && block < HUGE_BYTES ? HUGE_BYTES : block;
	size_t total = len + 2 * block + align;
	char *base = mmap(NULL, total, PROT_NONE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	char *p;

	if (base == MAP_FAILED)
		return -errno;
	p = congruent(base + block, begin, align);
	if (mmap(p, len, m->range.prot, MAP_SHARED | MAP_FIXED, fd,
		 (off_t)begin) == MAP_FAILED) {
		int ret = -errno;

		munmap(base, total);
		return ret;
	}
	m->range.addr = p;
	m->range.len = len;
	m->base = base;
	m->total = total;
	return 0;
}

/* Map the blocks that [offset, offset + size) lies in. */
static int map_blocks(int fd, uint64_t offset, uint64_t size,
		      struct mapped_file *m)
{
	uint64_t block, end = offset + size;
	struct stat st;
	int ret;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode) || st.st_size < 0 ||
	    end > (uint64_t)st.st_size)
		return -EINVAL;
	block = block_size(&st);
	ret = map_between_guards(fd, offset & ~(block - 1),
				 (end + block - 1) & ~(block - 1), block, m);
	m->host = m->range.addr + (offset & (block - 1));
	return ret;
}

int mapping_create(struct client_wake *wake, int fd, uint64_t offset,
		   uint64_t size, unsigned prot, struct mapping *ret_map)
{
	struct mapped_file *m = malloc(sizeof(*m));
	int ret;

	if (!m)
		return -ENOMEM;
	*m = (struct mapped_file){
		.wake = wake,
		.client = wake->client,
		.range = { .prot = (prot & GM_READ ? PROT_READ : 0) |
				   (prot & GM_WRITE ? PROT_WRITE : 0),
			   .replaced = on_replaced },
	};
	ret = map_blocks(fd, offset, size, m);
	if (ret < 0) {
		free(m);
		return ret;
	}
	fault_watch(&m->range);
	*ret_map = (struct mapping){ m->host, m };
	return 0;
}

void mapping_destroy(struct mapping *map)
{
	struct mapped_file *m = map->mem;

	*map = (struct mapping){ 0 };
	if (!m)
		return;
	fault_unwatch(&m->range);
	munmap(m->base, m->total);
	free(m);
}

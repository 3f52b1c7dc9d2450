/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Clients' files in our address space. See mapping.h.
 *
 * Mappings are in a list, so that a client's fault is recognised by its
 * address. The list has a lock, which the signal handler takes as well. That is
 * safe because the fault is synchronous: the interrupted thread was accessing a
 * client's memory, which no code does while it holds the lock.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <viodev/gmem.h>

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
	struct mapped_file *next, **link;
	struct client_wake *wake;
	unsigned client; /* its owner among the clients of @wake */
	char *host;      /* the requested piece */
	char *addr;      /* the file's pages around that */
	size_t len;
	int prot;
	void *base; /* with the inaccessible pages around them */
	size_t total;
};

static struct mapped_file *all;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void enlist(struct mapped_file *m)
{
	pthread_mutex_lock(&lock);
	m->next = all;
	m->link = &all;
	if (all)
		all->link = &m->next;
	all = m;
	pthread_mutex_unlock(&lock);
}

static void delist(struct mapped_file *m)
{
	pthread_mutex_lock(&lock);
	*m->link = m->next;
	if (m->next)
		m->next->link = m->link;
	pthread_mutex_unlock(&lock);
}

/*
 * --- Faults ---
 */

static struct sigaction others; /* the handler before ours */

/*
 * Replace the whole mapping with our own memory: it cannot fault again, and
 * huge pages need no care. It is shared (with no one) because guests are larger
 * than RLIMIT_DATA, which counts private memory even if unused.
 */
static bool replace(const struct mapped_file *m)
{
	return mmap(m->addr, m->len, m->prot,
		    MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1,
		    0) != MAP_FAILED;
}

/* Handle the fault at @p. False: no client caused it, or that failed. */
static bool mend(const char *p)
{
	bool mended = false;

	pthread_mutex_lock(&lock);
	for (struct mapped_file *m = all; m; m = m->next) {
		if (p < m->addr || p >= m->addr + m->len)
			continue;
		mended = replace(m);
		if (mended && m->client == m->wake->client) {
			__atomic_store_n(&m->wake->faulted, true,
					 __ATOMIC_RELEASE);
			client_wake(m->wake);
		}
		break;
	}
	pthread_mutex_unlock(&lock);
	return mended;
}

static void on_sigbus(int signo, siginfo_t *si, void *context)
{
	int saved_errno = errno;
	/*
	 * Not a fault of this thread, which may hold the lock: a signal that
	 * was sent, or the kernel's report of bad memory that was not accessed.
	 */
	bool sent = si->si_code <= 0 || si->si_code == BUS_MCEERR_AO;

	if (sent || !mend(si->si_addr)) {
		/* Leave it to the other handler: the access is repeated. */
		sigaction(SIGBUS, &others, NULL);
		if (sent)
			raise(SIGBUS);
	}
	errno = saved_errno;
}

void mapping_catch_faults(void)
{
	struct sigaction now, ours = {
		.sa_sigaction = on_sigbus,
		.sa_flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK,
	};

	sigaction(SIGBUS, NULL, &now);
	if (now.sa_sigaction == on_sigbus)
		return;
	others = now;
	sigemptyset(&ours.sa_mask);
	sigaction(SIGBUS, &ours, NULL);
}

/* A thread may be in mend(): the fault is reported before, or not at all. */
void client_disconnected(struct client_wake *wake)
{
	pthread_mutex_lock(&lock);
	wake->client++;
	client_has_faulted(wake);
	pthread_mutex_unlock(&lock);
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
	if (mmap(p, len, m->prot, MAP_SHARED | MAP_FIXED, fd, (off_t)begin) ==
	    MAP_FAILED) {
		int ret = -errno;

		munmap(base, total);
		return ret;
	}
	m->addr = p;
	m->len = len;
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
	m->host = m->addr + (offset & (block - 1));
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
		.prot = (prot & GM_READ ? PROT_READ : 0) |
			(prot & GM_WRITE ? PROT_WRITE : 0),
	};
	ret = map_blocks(fd, offset, size, m);
	if (ret < 0) {
		free(m);
		return ret;
	}
	enlist(m);
	*ret_map = (struct mapping){ m->host, m };
	return 0;
}

void mapping_destroy(struct mapping *map)
{
	struct mapped_file *m = map->mem;

	*map = (struct mapping){ 0 };
	if (!m)
		return;
	delist(m);
	munmap(m->base, m->total);
	free(m);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Faults in mapped files. See fault.h.
 *
 * Ranges are in a list, so that a fault is recognised by its address. The list
 * has a lock, which the signal handler takes as well. That is safe because the
 * fault is synchronous: the interrupted thread was accessing a range, which no
 * code does while it holds the lock.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/mman.h>

#include "base/fault.h"

static struct fault_range *all;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

void fault_lock(void)
{
	pthread_mutex_lock(&lock);
}

void fault_unlock(void)
{
	pthread_mutex_unlock(&lock);
}

void fault_watch(struct fault_range *range)
{
	fault_lock();
	range->next = all;
	range->link = &all;
	if (all)
		all->link = &range->next;
	all = range;
	fault_unlock();
}

void fault_unwatch(struct fault_range *range)
{
	fault_lock();
	*range->link = range->next;
	if (range->next)
		range->next->link = range->link;
	fault_unlock();
}

static struct sigaction others; /* the handler before ours */

/*
 * Replace the whole mapping with our own memory: it cannot fault again, and
 * huge pages need no care. It is shared (with no one) because guests are larger
 * than RLIMIT_DATA, which counts private memory even if unused.
 */
static bool replace(const struct fault_range *range)
{
	return mmap(range->addr, range->len, range->prot,
		    MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1,
		    0) != MAP_FAILED;
}

/* Handle the fault at @p. False: it is in no range, or that failed. */
static bool mend(const char *p)
{
	bool mended = false;

	fault_lock();
	for (struct fault_range *r = all; r; r = r->next) {
		if (p < r->addr || p >= r->addr + r->len)
			continue;
		mended = replace(r);
		if (mended)
			r->replaced(r);
		break;
	}
	fault_unlock();
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

void fault_catch(void)
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

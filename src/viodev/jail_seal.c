/* SPDX-License-Identifier: BSD-2-Clause */
/* The sandbox's third stage: the system calls of a device process. */
#include "viodev/jail.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/io_uring.h>
#include <netinet/in.h>
#include <sched.h>
#include <seccomp.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/util.h"
#include "viodev/log.h"

/* What libc and every device process need. */
static const int common_syscalls[] = {
	SCMP_SYS(brk),
	SCMP_SYS(clock_gettime),
	SCMP_SYS(clock_nanosleep),
	SCMP_SYS(close),
	SCMP_SYS(epoll_ctl),
	SCMP_SYS(epoll_pwait),
	SCMP_SYS(epoll_wait),
	SCMP_SYS(eventfd2),
	SCMP_SYS(exit),
	SCMP_SYS(exit_group),
	SCMP_SYS(fcntl),
	SCMP_SYS(fstat),
	SCMP_SYS(futex),
	SCMP_SYS(getpid),
	SCMP_SYS(getrandom),
	SCMP_SYS(gettid),
	SCMP_SYS(madvise),
	SCMP_SYS(mmap),
	SCMP_SYS(mprotect),
	SCMP_SYS(mremap),
	SCMP_SYS(munmap),
	SCMP_SYS(poll),
	SCMP_SYS(ppoll),
	SCMP_SYS(read),
	SCMP_SYS(readv),
	SCMP_SYS(restart_syscall),
	SCMP_SYS(rt_sigaction),
	SCMP_SYS(rt_sigprocmask),
	SCMP_SYS(rt_sigreturn),
	SCMP_SYS(sched_yield),
	SCMP_SYS(timerfd_create),
	SCMP_SYS(timerfd_settime),
	SCMP_SYS(write),
	SCMP_SYS(writev),
	-1,
};

#ifdef JAIL_WITH_ASAN
/* System calls of the address sanitizer's runtime. */
static const int asan_syscalls[] = {
	SCMP_SYS(getrlimit),
	SCMP_SYS(getuid),
	SCMP_SYS(prctl),
	SCMP_SYS(prlimit64),
	SCMP_SYS(sched_getaffinity),
	SCMP_SYS(set_robust_list),
	SCMP_SYS(sigaltstack),
	-1,
};
#else
static const int asan_syscalls[] = { -1 };
#endif

/* A system call, and what its arguments must be. */
struct rule {
	int nr;
	unsigned nr_args;
	struct scmp_arg_cmp args[3];
};

/* Argument @idx is @value, or the bits @mask of it are. */
#define IS(idx, value)         { idx, SCMP_CMP_EQ, value }
#define BITS(idx, mask, value) { idx, SCMP_CMP_MASKED_EQ, mask, value }
#define ALL_BUT(flags)         (UINT64_MAX & ~(scmp_datum_t)(flags))

/*
 * What the C library calls instead on some machines: on 32-bit ones, variants
 * with wider times and offsets; with socketcall(2), other functions. The
 * arguments that rules compare are the same.
 */
static const struct {
	int nr, variant;
} variants[] = {
	{ SCMP_SYS(clock_gettime), SCMP_SYS(clock_gettime64) },
	{ SCMP_SYS(clock_nanosleep), SCMP_SYS(clock_nanosleep_time64) },
	{ SCMP_SYS(fadvise64), SCMP_SYS(fadvise64_64) },
	{ SCMP_SYS(fchown), SCMP_SYS(fchown32) },
	{ SCMP_SYS(fcntl), SCMP_SYS(fcntl64) },
	{ SCMP_SYS(fstat), SCMP_SYS(fstat64) },
	{ SCMP_SYS(fstatfs), SCMP_SYS(fstatfs64) },
	{ SCMP_SYS(ftruncate), SCMP_SYS(ftruncate64) },
	{ SCMP_SYS(futex), SCMP_SYS(futex_time64) },
	{ SCMP_SYS(getuid), SCMP_SYS(getuid32) },
	{ SCMP_SYS(lseek), SCMP_SYS(_llseek) },
	{ SCMP_SYS(mmap), SCMP_SYS(mmap2) },
	{ SCMP_SYS(newfstatat), SCMP_SYS(fstatat64) },
	{ SCMP_SYS(ppoll), SCMP_SYS(ppoll_time64) },
	{ SCMP_SYS(recvfrom), SCMP_SYS(recv) },
	{ SCMP_SYS(rt_sigreturn), SCMP_SYS(sigreturn) },
	{ SCMP_SYS(sendfile), SCMP_SYS(sendfile64) },
	{ SCMP_SYS(sendto), SCMP_SYS(send) },
	{ SCMP_SYS(timerfd_settime), SCMP_SYS(timerfd_settime64) },
	{ SCMP_SYS(utimensat), SCMP_SYS(utimensat_time64) },
};

/* The index of clone()'s flags argument. */
#ifdef __s390x__
#define CLONE_FLAGS 1
#else
#define CLONE_FLAGS 0
#endif

#define IS_32_BIT    (sizeof(long) < 8)
#define HAS_VARIANTS (IS_32_BIT || !JAIL_SEES_SOCKETS)

#define BAD_PROT    (PROT_EXEC | PROT_GROWSDOWN | PROT_GROWSUP)
#define BAD_MAP     (MAP_GROWSDOWN | MAP_LOCKED | MAP_HUGETLB | MAP_SYNC)
#define FUTEX_FLAGS (FUTEX_PRIVATE_FLAG | FUTEX_CLOCK_REALTIME)
#define NEW_NAMESPACE                                                \
	(CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | \
	 CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWCGROUP)
#define RULE_FUTEX(op)                                    \
	{                                                 \
		SCMP_SYS(futex), 1,                       \
		{                                         \
			BITS(1, ALL_BUT(FUTEX_FLAGS), op) \
		}                                         \
	}
#define RULE_FCNTL(cmd)             \
	{                           \
		SCMP_SYS(fcntl), 1, \
		{                   \
			IS(1, cmd)  \
		}                   \
	}
#define RULE_ADVICE(advice)           \
	{                             \
		SCMP_SYS(madvise), 1, \
		{                     \
			IS(2, advice) \
		}                     \
	}
#define RULE_SOCKET(family, type, protocol)                                    \
	{                                                                      \
		SCMP_SYS(socket), 3,                                           \
		{                                                              \
			IS(0, family),                                         \
				BITS(1, ALL_BUT(SOCK_CLOEXEC | SOCK_NONBLOCK), \
				     type),                                    \
				IS(2, protocol)                                \
		}                                                              \
	}
#define RULE_RING(op)                           \
	{                                       \
		SCMP_SYS(io_uring_register), 1, \
		{                               \
			IS(1, op)               \
		}                               \
	}

/*
 * A list that has one of these allows only these forms. A ring may use our
 * other files, as other calls could. Sockets are libslirp's.
 */
static const struct rule narrow[] = {
	{ SCMP_SYS(clone),
	  1,
	  { BITS(CLONE_FLAGS, CLONE_THREAD | NEW_NAMESPACE, CLONE_THREAD) } },
#ifndef __s390x__ /* whose mmap() has its arguments in memory */
	{ SCMP_SYS(mmap), 2, { BITS(2, BAD_PROT, 0), BITS(3, BAD_MAP, 0) } },
#endif
	{ SCMP_SYS(mprotect), 1, { BITS(2, BAD_PROT, 0) } },
	{ SCMP_SYS(mremap),
	  1,
	  { BITS(3, ALL_BUT(MREMAP_MAYMOVE | MREMAP_FIXED), 0) } },
	RULE_ADVICE(MADV_DONTNEED),
	RULE_ADVICE(MADV_FREE),
	RULE_ADVICE(MADV_HUGEPAGE),
	RULE_ADVICE(MADV_NOHUGEPAGE),
	RULE_ADVICE(MADV_DONTDUMP),
	RULE_ADVICE(MADV_POPULATE_READ),
	RULE_ADVICE(MADV_POPULATE_WRITE),
	RULE_FCNTL(F_DUPFD_CLOEXEC),
	RULE_FCNTL(F_GETFD),
	RULE_FCNTL(F_SETFD),
	RULE_FCNTL(F_GETFL),
	RULE_FCNTL(F_GET_SEALS),
	RULE_FCNTL(F_OFD_GETLK),
	RULE_FCNTL(F_OFD_SETLK),
	{ SCMP_SYS(fcntl), 2, { IS(1, F_SETFL), BITS(2, O_ASYNC, 0) } },
	RULE_FUTEX(FUTEX_WAIT),
	RULE_FUTEX(FUTEX_WAKE),
	RULE_FUTEX(FUTEX_WAIT_BITSET),
	RULE_FUTEX(FUTEX_WAKE_BITSET),
	RULE_RING(IORING_UNREGISTER_FILES),
	RULE_RING(IORING_REGISTER_FILES_UPDATE),
#if JAIL_SEES_SOCKETS
	RULE_SOCKET(AF_INET, SOCK_STREAM, 0),
	RULE_SOCKET(AF_INET, SOCK_DGRAM, 0),
	RULE_SOCKET(AF_INET, SOCK_DGRAM, IPPROTO_ICMP),
	RULE_SOCKET(AF_INET6, SOCK_STREAM, 0),
	RULE_SOCKET(AF_INET6, SOCK_DGRAM, 0),
	RULE_SOCKET(AF_INET6, SOCK_DGRAM, IPPROTO_ICMPV6),
	/* A datagram socket could send to any address. */
	{ SCMP_SYS(socketpair),
	  2,
	  { IS(0, AF_UNIX),
	    BITS(1, ALL_BUT(SOCK_CLOEXEC | SOCK_NONBLOCK), SOCK_STREAM) } },
#endif
	{ -1 },
};

/*
 * What no library does in passing: access other processes, create code,
 * programs or processes, and use parts of the kernel that no device needs. A
 * process that tries is compromised.
 */
static const struct rule hostile[] = {
#ifndef JAIL_WITH_ASAN /* its runtime does, for a report */
	{ SCMP_SYS(clone), 1, { BITS(CLONE_FLAGS, CLONE_THREAD, 0) } },
	{ SCMP_SYS(fork) },
	{ SCMP_SYS(vfork) },
#endif
	{ SCMP_SYS(execve) },
	{ SCMP_SYS(execveat) },
#ifndef __s390x__
	{ SCMP_SYS(mmap), 1, { BITS(2, PROT_EXEC, PROT_EXEC) } },
#endif
	{ SCMP_SYS(mprotect), 1, { BITS(2, PROT_EXEC, PROT_EXEC) } },
	{ SCMP_SYS(pkey_mprotect), 1, { BITS(2, PROT_EXEC, PROT_EXEC) } },
	{ SCMP_SYS(kill) },
	{ SCMP_SYS(tkill) },
	{ SCMP_SYS(rt_sigqueueinfo) },
	{ SCMP_SYS(rt_tgsigqueueinfo) },
	{ SCMP_SYS(pidfd_getfd) },
	{ SCMP_SYS(pidfd_open) },
	{ SCMP_SYS(pidfd_send_signal) },
	{ SCMP_SYS(process_vm_readv) },
	{ SCMP_SYS(process_vm_writev) },
	{ SCMP_SYS(ptrace) },
	/* A ready descriptor signals the process set here. */
	{ SCMP_SYS(fcntl), 1, { IS(1, F_SETOWN) } },
	{ SCMP_SYS(fcntl), 1, { IS(1, F_SETOWN_EX) } },
	{ SCMP_SYS(fcntl), 1, { IS(1, F_SETSIG) } },
	{ SCMP_SYS(fcntl), 2, { IS(1, F_SETFL), BITS(2, O_ASYNC, O_ASYNC) } },
	{ SCMP_SYS(ioctl), 1, { IS(1, TIOCSTI) } },
	{ SCMP_SYS(ioctl), 1, { IS(1, TIOCLINUX) } },
	{ SCMP_SYS(add_key) },
	{ SCMP_SYS(bpf) },
	{ SCMP_SYS(chroot) },
	{ SCMP_SYS(io_uring_setup) },
	{ SCMP_SYS(keyctl) },
	{ SCMP_SYS(mount) },
	{ SCMP_SYS(open_by_handle_at) },
	{ SCMP_SYS(perf_event_open) },
	{ SCMP_SYS(pivot_root) },
	{ SCMP_SYS(request_key) },
	{ SCMP_SYS(setns) },
	{ SCMP_SYS(umount2) },
	{ SCMP_SYS(unshare) },
	{ SCMP_SYS(userfaultfd) },
	{ -1 },
};

static int add_call(scmp_filter_ctx ctx, uint32_t action, int nr,
		    const struct rule *rule)
{
	return seccomp_rule_add_array(ctx, action, nr, rule->nr_args,
				      rule->args);
}

static int add(scmp_filter_ctx ctx, uint32_t action, const struct rule *rule)
{
	int ret = 0;

	/* A 32-bit mmap() has its arguments in memory, and is unused. */
	if (!IS_32_BIT || rule->nr != SCMP_SYS(mmap))
		ret = add_call(ctx, action, rule->nr, rule);
	for (size_t i = 0; HAS_VARIANTS && i < ARRAY_LEN(variants); i++) {
		if (ret == 0 && variants[i].nr == rule->nr)
			ret = add_call(ctx, action, variants[i].variant, rule);
	}
	return ret;
}

/* For abort(): allow signals to ourselves only. */
static int add_tgkill(scmp_filter_ctx ctx)
{
	struct rule rule = { SCMP_SYS(tgkill),
			     1,
			     { IS(0, (scmp_datum_t)getpid()) } };
	int ret = add(ctx, SCMP_ACT_ALLOW, &rule);

	rule.args[0].op = SCMP_CMP_NE;
	return ret < 0 ? ret : add(ctx, SCMP_ACT_KILL_PROCESS, &rule);
}

/* Allow the forms listed in @narrow, or any if it has none. */
static int allow(scmp_filter_ctx ctx, int nr)
{
	struct rule any = { nr };
	bool found = false;

	for (const struct rule *rule = narrow; rule->nr != -1; rule++) {
		int ret = 0;

		if (rule->nr == nr) {
			found = true;
			ret = add(ctx, SCMP_ACT_ALLOW, rule);
		}
		if (ret < 0)
			return ret;
	}
	return found ? 0 : add(ctx, SCMP_ACT_ALLOW, &any);
}

static int allow_list(scmp_filter_ctx ctx, const int *list)
{
	for (; *list != -1; list++) {
		int ret = allow(ctx, *list);

		if (ret < 0 && ret != -EEXIST)
			return ret;
	}
	return 0;
}

/* What libc makes of fstat(): on a descriptor, never a path. */
static int allow_fstat(scmp_filter_ctx ctx)
{
	static const struct rule rule = { SCMP_SYS(newfstatat),
					  1,
					  { BITS(3, AT_EMPTY_PATH,
						 AT_EMPTY_PATH) } };

	return add(ctx, SCMP_ACT_ALLOW, &rule);
}

static int kill_hostile(scmp_filter_ctx ctx)
{
	for (const struct rule *rule = hostile; rule->nr != -1; rule++) {
		int ret = add(ctx, SCMP_ACT_KILL_PROCESS, rule);

		if (ret < 0)
			return ret;
	}
	return 0;
}

/*
 * Allow the listed requests; _IO(type, 0) stands for all of a type, such as
 * evdev's, whose lengths vary. Requests that change a terminal must never be
 * listed.
 */
static int allow_ioctls(scmp_filter_ctx ctx, const unsigned long *list)
{
	int ret = 0;

	for (; ret == 0 && *list; list++) {
		scmp_datum_t mask = *list & ~0xff00ul ? 0xffffffff : 0xff00;

		ret = seccomp_rule_add(
			ctx, SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 1,
			SCMP_A1(SCMP_CMP_MASKED_EQ, mask, *list));
	}
	return ret;
}

static int fill_filter(scmp_filter_ctx ctx, const int *const lists[],
		       const unsigned long *const ioctls[])
{
	int ret;

	/* Include the backend's threads; a binary tree, not a chain of ifs. */
	ret = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_TSYNC, 1);
	if (ret == 0)
		ret = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2);
	if (ret == 0)
		ret = seccomp_attr_set(ctx, SCMP_FLTATR_ACT_BADARCH,
				       SCMP_ACT_KILL_PROCESS);
	if (ret == 0)
		ret = allow_list(ctx, common_syscalls);
	if (ret == 0)
		ret = allow_fstat(ctx);
	if (ret == 0)
		ret = add_tgkill(ctx);
	if (ret == 0)
		ret = allow_list(ctx, asan_syscalls);
	for (int i = 0; ret == 0 && lists[i]; i++)
		ret = allow_list(ctx, lists[i]);
	for (int i = 0; ret == 0 && ioctls[i]; i++)
		ret = allow_ioctls(ctx, ioctls[i]);
	if (ret == 0)
		ret = kill_hostile(ctx);
	return ret;
}

int jail_seal(struct jail *jail, const int *const lists[],
	      const unsigned long *const ioctls[])
{
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ERRNO(ENOSYS));
	const struct rlimit none = { 0, 0 };
	int ret = ctx ? fill_filter(ctx, lists, ioctls) : -ENOMEM;

	/* All rings exist by now. */
	setrlimit(RLIMIT_MEMLOCK, &none);
	/* Set before the filter loads: only the status uses it. */
	jail->seccomp = true;
	if (ret == 0)
		ret = seccomp_load(ctx);
	seccomp_release(ctx);
	if (ret < 0)
		log_line(LOG_ERR,
			 "sandbox: seccomp: %s (--sandbox=off runs without)",
			 strerror(-ret));
	return ret;
}

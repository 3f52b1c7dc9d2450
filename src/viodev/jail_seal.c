/* SPDX-License-Identifier: BSD-2-Clause */
/* The sandbox's third stage: the system calls of a device process. */
#include "viodev/jail.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <sched.h>
#include <seccomp.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

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
	SCMP_SYS(tgkill),
	SCMP_SYS(timerfd_create),
	SCMP_SYS(timerfd_settime),
	SCMP_SYS(write),
	SCMP_SYS(writev),
	-1,
};

#ifdef JAIL_WITH_ASAN
/* The address sanitizer's runtime makes these and gets what is allowed. */
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
/* These it wants for a report and can do without. */
#define ASAN_REFUSED                                                    \
	SCMP_SYS(clone), SCMP_SYS(fork), SCMP_SYS(pipe), SCMP_SYS(pipe2), \
		SCMP_SYS(vfork),
#else
static const int asan_syscalls[] = { -1 };
#define ASAN_REFUSED
#endif

/*
 * What libraries try when they log or fail: whether standard error is a
 * terminal, which time zone it is, who we are. They cope with an error, and
 * the device lives on; nothing of it gives away more than a signal does.
 */
static const int refused[] = {
	SCMP_SYS(access),	    SCMP_SYS(faccessat),
	SCMP_SYS(faccessat2),	    SCMP_SYS(getegid),
	SCMP_SYS(geteuid),	    SCMP_SYS(getgid),
	SCMP_SYS(getrlimit),	    SCMP_SYS(getuid),
	SCMP_SYS(ioctl),	    SCMP_SYS(lstat),
	SCMP_SYS(newfstatat),	    SCMP_SYS(open),
	SCMP_SYS(openat),	    SCMP_SYS(prlimit64),
	SCMP_SYS(readlink),	    SCMP_SYS(readlinkat),
	SCMP_SYS(sched_getaffinity), SCMP_SYS(stat),
	SCMP_SYS(statx),	    SCMP_SYS(sysinfo),
	SCMP_SYS(uname),	    ASAN_REFUSED
	-1,
};

/*
 * A ring may work on other files of ours, which other calls could do as well;
 * nothing else about it changes.
 */
static int allow_ring_files(scmp_filter_ctx ctx)
{
	static const unsigned ops[] = {
		IORING_UNREGISTER_FILES,
		IORING_REGISTER_FILES_UPDATE,
	};
	int ret = 0;

	for (int i = 0; ret == 0 && i < 2; i++)
		ret = seccomp_rule_add(ctx, SCMP_ACT_ALLOW,
				       SCMP_SYS(io_uring_register), 1,
				       SCMP_A1(SCMP_CMP_EQ, ops[i]));
	return ret;
}

/* Add a rule for @nr; the calls that could make code or processes narrowed. */
static int allow(scmp_filter_ctx ctx, int nr)
{
	switch (nr) {
	case SCMP_SYS(mmap):
	case SCMP_SYS(mprotect):
	case SCMP_SYS(pkey_mprotect):
		return seccomp_rule_add(
			ctx, SCMP_ACT_ALLOW, nr, 1,
			SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
	case SCMP_SYS(clone): /* threads alone */
		return seccomp_rule_add(ctx, SCMP_ACT_ALLOW, nr, 1,
					SCMP_A0(SCMP_CMP_MASKED_EQ,
						CLONE_THREAD, CLONE_THREAD));
	case SCMP_SYS(clone3):
		/* Cannot be looked into: libc falls back to clone. */
		return seccomp_rule_add(ctx, SCMP_ACT_ERRNO(ENOSYS), nr, 0);
	case SCMP_SYS(io_uring_register):
		return allow_ring_files(ctx);
	case SCMP_SYS(socketpair):
		return seccomp_rule_add(ctx, SCMP_ACT_ALLOW, nr, 1,
					SCMP_A0(SCMP_CMP_EQ, AF_UNIX));
	case SCMP_SYS(tgkill): /* abort() */
		return seccomp_rule_add(
			ctx, SCMP_ACT_ALLOW, nr, 1,
			SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)getpid()));
	default:
		return seccomp_rule_add(ctx, SCMP_ACT_ALLOW, nr, 0);
	}
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

/* What libc makes of fstat(): of a descriptor, not a path. */
static int allow_fstat(scmp_filter_ctx ctx)
{
	return seccomp_rule_add(
		ctx, SCMP_ACT_ALLOW, SCMP_SYS(newfstatat), 1,
		SCMP_A3(SCMP_CMP_MASKED_EQ, AT_EMPTY_PATH, AT_EMPTY_PATH));
}

/* What allow() does not let through: to be refused and not to kill. */
static int refuse(scmp_filter_ctx ctx, int nr)
{
	uint32_t action = SCMP_ACT_ERRNO(EACCES);

	switch (nr) {
	case SCMP_SYS(clone):
		return seccomp_rule_add(
			ctx, action, nr, 1,
			SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD, 0));
	case SCMP_SYS(ioctl):
		return seccomp_rule_add(
			ctx, action, nr, 1,
			SCMP_A1(SCMP_CMP_MASKED_EQ, 0xff00, _IO('T', 0)));
	case SCMP_SYS(newfstatat):
		return seccomp_rule_add(
			ctx, action, nr, 1,
			SCMP_A3(SCMP_CMP_MASKED_EQ, AT_EMPTY_PATH, 0));
	default:
		return seccomp_rule_add(ctx, action, nr, 0);
	}
}

static bool is_in(const int *list, int nr)
{
	while (*list != -1 && *list != nr)
		list++;
	return *list == nr;
}

static bool is_allowed(const int *const lists[], int nr)
{
	while (*lists && !is_in(*lists, nr))
		lists++;
	return *lists || is_in(asan_syscalls, nr);
}

static int refuse_all_but(scmp_filter_ctx ctx, const int *const lists[])
{
	for (const int *r = refused; *r != -1; r++) {
		int ret = is_allowed(lists, *r) ? 0 : refuse(ctx, *r);

		if (ret < 0)
			return ret;
	}
	return 0;
}

/*
 * The requests that are listed; _IO(type, 0) stands for all of a type, such as
 * evdev's, whose lengths vary. A terminal's must never be among them.
 */
static int allow_ioctls(scmp_filter_ctx ctx, const unsigned long *list)
{
	int ret = 0;

	for (; ret == 0 && *list; list++) {
		scmp_datum_t mask = *list & ~0xff00ul ? 0xffffffff : 0xff00;

		ret = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 1,
				       SCMP_A1(SCMP_CMP_MASKED_EQ, mask,
					       *list));
	}
	return ret;
}

static int fill_filter(scmp_filter_ctx ctx, const int *const lists[],
		       const unsigned long *const ioctls[])
{
	int ret;

	/* Threads of a backend as well; as a tree, not a long chain of ifs. */
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
		ret = allow_list(ctx, asan_syscalls);
	for (int i = 0; ret == 0 && lists[i]; i++)
		ret = allow_list(ctx, lists[i]);
	for (int i = 0; ret == 0 && ioctls[i]; i++)
		ret = allow_ioctls(ctx, ioctls[i]);
	if (ret == 0)
		ret = refuse_all_but(ctx, lists);
	return ret;
}

int jail_seal(struct jail *jail, const int *const lists[],
	      const unsigned long *const ioctls[])
{
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_KILL_PROCESS);
	int ret = ctx ? fill_filter(ctx, lists, ioctls) : -ENOMEM;

	/* Known before it is loaded: status is all that it is for. */
	jail->seccomp = true;
	if (ret == 0)
		ret = seccomp_load(ctx);
	seccomp_release(ctx);
	if (ret < 0)
		log_line(LOG_ERR,
			 "sandbox: seccomp: %s; --sandbox=off does without",
			 strerror(-ret));
	return ret;
}

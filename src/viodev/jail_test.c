/* SPDX-License-Identifier: BSD-2-Clause */
/* What a jailed process can and cannot do: each row in its own process. */
#include "base/util.h"
#include "dev/vdev.h"
#include "viodev/jail.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/fs.h>
#include <linux/futex.h>
#include <linux/if_tun.h>
#include <linux/io_uring.h>
#include <netinet/in.h>
#include <pthread.h>
#include <scsi/sg.h>
#include <seccomp.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static char file_name[] = "/tmp/jail-test-XXXXXX";
static int file_fd;

/* Each returns 0 on success, otherwise errno. */
static int result(long ret)
{
	return ret < 0 ? errno : 0;
}

static int open_file(void)
{
	return result(open("/", O_RDONLY));
}

static int create_file(void)
{
	return result(open("/x", O_WRONLY | O_CREAT, 0600));
}

static int open_by_openat2(void)
{
	uint64_t how[3] = { O_RDONLY };

	return result(syscall(SYS_openat2, AT_FDCWD, "/", how, sizeof(how)));
}

static int remove_file(void)
{
	return result(unlink(file_name));
}

static int execute(void)
{
	char name[] = "/proc/self/exe", *argv[] = { name, NULL };

	return result(execv(name, argv));
}

static int execute_fd(void)
{
	char name[] = "", *argv[] = { name, NULL };

	return result(syscall(SYS_execveat, file_fd, name, argv, argv,
			      AT_EMPTY_PATH));
}

static int unix_socket(void)
{
	return result(socket(AF_UNIX, SOCK_STREAM, 0));
}

static int inet_socket(void)
{
	return result(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
}

static int raw_socket(void)
{
	return result(socket(AF_INET, SOCK_RAW, IPPROTO_ICMP));
}

static int mptcp_socket(void)
{
	return result(socket(AF_INET, SOCK_STREAM, 262));
}

static int netlink_socket(void)
{
	return result(socket(AF_NETLINK, SOCK_RAW, 0));
}

static int stream_pair(void)
{
	int fds[2];

	return result(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds));
}

static int datagram_pair(void)
{
	int fds[2];

	return result(socketpair(AF_UNIX, SOCK_DGRAM, 0, fds));
}

static int inet_pair(void)
{
	int fds[2];

	return result(socketpair(AF_INET, SOCK_STREAM, 0, fds));
}

static int map_code(void)
{
	void *p = mmap(NULL, 4096, PROT_READ | PROT_EXEC,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return p == MAP_FAILED ? errno : 0;
}

static int protect_code(void)
{
	void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return result(mprotect(p, 4096, PROT_READ | PROT_EXEC));
}

static int map_locked(void)
{
	void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_LOCKED, -1, 0);

	return p == MAP_FAILED ? errno : 0;
}

static int merge_pages(void)
{
	void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return result(madvise(p, 4096, MADV_MERGEABLE));
}

static int lock_pi(void)
{
	uint32_t word = 0;

	return result(syscall(SYS_futex, &word, FUTEX_LOCK_PI_PRIVATE, 0, NULL,
			      NULL, 0));
}

/*
 * A descriptor that becomes ready signals its owner, whichever process of our
 * user that is.
 */
static int own_parent(void)
{
	return result(fcntl(file_fd, F_SETOWN, getppid()));
}

static int own_parent_ex(void)
{
	struct f_owner_ex owner = { F_OWNER_PID, getppid() };

	return result(fcntl(file_fd, F_SETOWN_EX, &owner));
}

static int choose_signal(void)
{
	return result(fcntl(file_fd, F_SETSIG, SIGKILL));
}

static int make_async(void)
{
	return result(fcntl(file_fd, F_SETFL, O_ASYNC | O_NONBLOCK));
}

static int own_by_ioctl(void)
{
	pid_t parent = getppid();

	return result(ioctl(file_fd, FIOSETOWN, &parent));
}

static int lease(void)
{
	return result(fcntl(file_fd, F_SETLEASE, F_RDLCK));
}

static int new_ring(void)
{
	char params[120] = { 0 };

	return result(syscall(SYS_io_uring_setup, 1, params));
}

static int new_process(void)
{
	long pid = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);

	if (pid == 0)
		_exit(0);
	return result(pid);
}

static int signal_parent(void)
{
	return result(kill(getppid(), SIGCONT));
}

static int signal_other(void)
{
	pid_t other = getppid();

	return result(syscall(SYS_tgkill, other, other, SIGCONT));
}

static int trace_parent(void)
{
	return result(ptrace(PTRACE_ATTACH, getppid(), NULL, NULL));
}

/* Like glib before it writes a message. */
static int is_terminal(void)
{
	return isatty(STDERR_FILENO) ? 0 : errno;
}

/* Of the same type as a terminal's, and listed. */
static int tap_ioctl(void)
{
	return result(ioctl(file_fd, TUNSETOFFLOAD, 0));
}

static int type_into_terminal(void)
{
	return result(ioctl(STDERR_FILENO, TIOCSTI, "x"));
}

static int stat_path(void)
{
	struct stat *st = NULL;

#ifndef SYS_newfstatat /* 32-bit */
#define SYS_newfstatat SYS_fstatat64
#endif
	return result(syscall(SYS_newfstatat, AT_FDCWD, "/", st, 0));
}

static int register_with_ring(void)
{
	return result(syscall(SYS_io_uring_register, -1, IORING_REGISTER_FILES,
			      NULL, 0));
}

/* --- and what must still work */

static int set_flags(void)
{
	int flags = fcntl(file_fd, F_GETFL), fd;

	if (flags < 0 || fcntl(file_fd, F_SETFL, flags | O_NONBLOCK) < 0)
		return errno;
	fd = fcntl(file_fd, F_DUPFD_CLOEXEC, 0);
	return result(fcntl(fd, F_SETFD, FD_CLOEXEC));
}

static int lock_file(void)
{
	struct flock fl = { .l_type = F_RDLCK };

	return result(fcntl(file_fd, F_OFD_SETLK, &fl));
}

/* To a new address, like malloc(). */
static int grow(void)
{
	char *p = malloc(1 << 20);

	p = realloc(p, 64 << 20);
	return p ? 0 : ENOMEM;
}

static int give_file_to_ring(void)
{
	int none = -1;

	/* There is no ring; but the call may be made. */
	syscall(SYS_io_uring_register, -1, IORING_REGISTER_FILES_UPDATE, &none,
		1);
	return 0;
}

static int write_file(void)
{
	return result(write(file_fd, "x", 1));
}

static int map_data(void)
{
	void *p = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return errno;
	return result(munmap(p, 1 << 20));
}

static int block_ioctl(void)
{
	unsigned long sectors;

	/* A file has no such ioctl; what counts is that it was allowed. */
	ioctl(file_fd, BLKGETSIZE, &sectors);
	return errno == ENOTTY ? 0 : errno;
}

static int stat_fd(void)
{
	struct stat st;

	return result(fstat(file_fd, &st));
}

static void *thread(void *arg)
{
	return arg;
}

static int new_thread(void)
{
	pthread_t id;
	int ret = pthread_create(&id, NULL, thread, NULL);

	return ret ? ret : pthread_join(id, NULL);
}

static int aborts(void)
{
	abort();
}

/* What a device may list. */
static const int extra[] = {
	SYS_io_uring_register,
	SYS_clone,
	SYS_set_robust_list,
	SYS_rseq,
	SYS_socket,
	SYS_socketpair,
	-1,
};
static const int *const lists[] = { extra, NULL };
static const unsigned long extra_ioctls[] = { BLKGETSIZE, TUNSETOFFLOAD, 0 };
static const unsigned long *ioctls[] = { extra_ioctls, NULL, NULL };

#define CANNOT 1000

static struct sandbox_rights rights; /* none */
static struct jail_tree tree = { -1, -1 };

static int lacking;
static void take_away(int what);

/* Run @what in the jail; returns the process's result. */
static int jailed(int (*what)(void), bool seal)
{
	pid_t pid = fork();
	int wait_status;

	if (pid == 0) {
		struct jail jail = { 0 };

		if (lacking)
			take_away(lacking);
		if (jail_enter(&jail, &rights, &tree) < 0 ||
		    (seal && jail_seal(&jail, lists, ioctls) < 0))
			_exit(99);
		_exit(what());
	}
	assert_true(pid > 0);
	assert_int_equal(waitpid(pid, &wait_status, 0), pid);
	if (WIFSIGNALED(wait_status))
		return CANNOT + WTERMSIG(wait_status);
	return WEXITSTATUS(wait_status);
}

static void test_forbidden(void **state)
{
	static const struct {
		const char *name;
		int (*what)(void);
	} rows[] = {
		{ "execve", execute },
		{ "execveat", execute_fd },
		{ "map code", map_code },
		{ "make code", protect_code },
		{ "fork", new_process },
		{ "kill", signal_parent },
		{ "tgkill", signal_other },
		{ "ptrace", trace_parent },
		{ "TIOCSTI", type_into_terminal },
		{ "F_SETOWN", own_parent },
		{ "F_SETOWN_EX", own_parent_ex },
		{ "F_SETSIG", choose_signal },
		{ "O_ASYNC", make_async },
		{ "io_uring_setup", new_ring },
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		int ret = jailed(rows[i].what, true);

		print_message("%s: %d\n", rows[i].name, ret);
#ifdef JAIL_WITH_ASAN
		if (rows[i].what == new_process) {
			assert_int_equal(ret, ENOSYS);
			continue;
		}
#endif
		assert_int_equal(ret, CANNOT + SIGSYS);
	}
}

/* A library that logs or fails gets errors, and is not killed. */
static void test_refused(void **state)
{
	static const struct {
		const char *name;
		int (*what)(void);
		bool here;
	} rows[] = {
		{ "open", open_file, true },
		{ "create", create_file, true },
		{ "openat2", open_by_openat2, true },
		{ "unlink", remove_file, true },
		{ "stat", stat_path, true },
		{ "isatty", is_terminal, true },
		{ "io_uring_register", register_with_ring, true },
		{ "UNIX socket", unix_socket, JAIL_SEES_SOCKETS },
		{ "raw socket", raw_socket, JAIL_SEES_SOCKETS },
		{ "MPTCP socket", mptcp_socket, JAIL_SEES_SOCKETS },
		{ "netlink socket", netlink_socket, JAIL_SEES_SOCKETS },
		{ "INET socket pair", inet_pair, JAIL_SEES_SOCKETS },
		{ "datagram socket pair", datagram_pair, JAIL_SEES_SOCKETS },
		{ "map locked", map_locked, true },
		{ "MADV_MERGEABLE", merge_pages, true },
		{ "FUTEX_LOCK_PI", lock_pi, true },
		{ "FIOSETOWN", own_by_ioctl, true },
		{ "F_SETLEASE", lease, true },
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		int ret;

		if (!rows[i].here)
			continue;
		ret = jailed(rows[i].what, true);
		print_message("%s: %d\n", rows[i].name, ret);
		assert_int_equal(ret, ENOSYS);
	}
}

static void test_allowed(void **state)
{
	static const struct {
		const char *name;
		int (*what)(void);
		int ret;
	} rows[] = {
		{ "write", write_file, 0 },
		{ "map data", map_data, 0 },
		{ "ioctl of a block device", block_ioctl, 0 },
		{ "ioctl of a tap", tap_ioctl, ENOTTY },
		{ "fstat", stat_fd, 0 },
		{ "INET socket", inet_socket, 0 },
		{ "socket pair", stream_pair, 0 },
		{ "fcntl", set_flags, 0 },
		{ "lock", lock_file, 0 },
		{ "grow", grow, 0 },
		{ "thread", new_thread, 0 },
		{ "another file for io_uring", give_file_to_ring, 0 },
		{ "abort", aborts, CANNOT + SIGABRT },
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		print_message("%s\n", rows[i].name);
		assert_int_equal(jailed(rows[i].what, true), rows[i].ret);
	}
}

/* Files are out of reach before seccomp as well, as far as possible. */
static void test_before_the_seal(void **state)
{
	long landlock = syscall(SYS_landlock_create_ruleset, NULL, 0, 1);

	if (landlock < 1 && geteuid() != 0)
		skip();
	assert_int_not_equal(jailed(open_file, false), 0);
	assert_int_not_equal(jailed(create_file, false), 0);
	assert_int_not_equal(jailed(remove_file, false), 0);
	assert_int_not_equal(jailed(execute, false), 0);
	assert_int_equal(jailed(write_file, false), 0);
}

static int is_dumpable(void)
{
	return prctl(PR_GET_DUMPABLE);
}

static int abstract_fd;
static struct sockaddr_un abstract_addr; /* a name that the kernel chose */
static socklen_t abstract_len;

static void listen_abstract(void)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };

	abstract_len = sizeof(abstract_addr);
	abstract_fd = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_int_equal(bind(abstract_fd, (struct sockaddr *)&addr,
			      sizeof(addr.sun_family)),
			 0);
	assert_int_equal(getsockname(abstract_fd,
				     (struct sockaddr *)&abstract_addr,
				     &abstract_len),
			 0);
	assert_int_equal(listen(abstract_fd, 1), 0);
}

static int connect_abstract(void)
{
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	int ret = result(
		connect(fd, (struct sockaddr *)&abstract_addr, abstract_len));

	close(fd);
	return ret;
}

static int signal_self(void)
{
	return result(kill(getpid(), 0));
}

/*
 * Other processes, before seccomp as well: those of the same user, whom the
 * kernel would let us signal and connect to.
 */
static void test_others(void **state)
{
	rights = (struct sandbox_rights){ .same_user = true };
	assert_int_equal(jailed(is_dumpable, false), 0);
	assert_int_equal(jailed(signal_self, false), 0);
	if (syscall(SYS_landlock_create_ruleset, NULL, 0, 1) < 6) {
		print_message("this Landlock has no scopes\n");
	} else {
		assert_int_equal(jailed(signal_parent, false), EPERM);
		listen_abstract();
		assert_int_equal(connect_abstract(), 0);
		assert_int_equal(jailed(connect_abstract, false), EPERM);
		close(abstract_fd);
	}
	rights = (struct sandbox_rights){ 0 };
}

static int setup(void **state)
{
	file_fd = mkstemp(file_name);
	return file_fd < 0 ? -1 : 0;
}

static int teardown(void **state)
{
	return unlink(file_name);
}

/*
 * --- A shared tree ---
 */

static int read_in_tree(void)
{
	return result(openat(tree.tree_fd, "file", O_RDONLY));
}

static int write_in_tree(void)
{
	return result(openat(tree.tree_fd, "new", O_WRONLY | O_CREAT, 0600));
}

/* Like the device's reads and writes: through what is already open. */
static int reopen(void)
{
	int fds = openat(tree.proc_fd, "self/fd", O_PATH);
	int fd = openat(tree.tree_fd, "file", O_PATH);
	char name[12];

	snprintf(name, sizeof(name), "%d", fd);
	return result(openat(fds, name, O_RDONLY));
}

static int read_above_tree(void)
{
	return result(openat(tree.tree_fd, "../above", O_RDONLY));
}

static int read_above_proc(void)
{
	return result(openat(tree.proc_fd, "../etc/passwd", O_RDONLY));
}

static int read_other_root(void)
{
	char name[64];

	snprintf(name, sizeof(name), "%d/root/etc/passwd", getppid());
	return result(openat(tree.proc_fd, name, O_RDONLY));
}

static int find_above_tree(void)
{
	return result(openat(tree.tree_fd, "../above", O_PATH));
}

static int change_above_tree(void)
{
	return result(fchmodat(tree.tree_fd, "../above", 0777, 0));
}

/* Root's passthrough lets the guest create a node for a disk of the host. */
static int use_device(void)
{
	int ret = result(
		mknodat(tree.tree_fd, "new", S_IFCHR | 0666, makedev(1, 3)));

	return ret ? ret : result(openat(tree.tree_fd, "new", O_RDONLY));
}

enum { NO_LANDLOCK = 1, NO_MOUNTS = 2 };

/* A kernel, or a container, that lacks something. */
static void take_away(int what)
{
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ALLOW);

	if (what & NO_LANDLOCK)
		seccomp_rule_add(ctx, SCMP_ACT_ERRNO(ENOSYS),
				 SCMP_SYS(landlock_create_ruleset), 0);
	if (what & NO_MOUNTS)
		seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(unshare),
				 0);
	if (seccomp_load(ctx) < 0)
		_exit(98);
	seccomp_release(ctx);
}

static void make_tree_in(const char *dir)
{
	int dir_fd = open(dir, O_RDONLY | O_DIRECTORY);

	close(openat(dir_fd, "above", O_WRONLY | O_CREAT, 0600));
	assert_int_equal(mkdirat(dir_fd, "tree", 0700), 0);
	tree.tree_fd = openat(dir_fd, "tree", O_PATH | O_DIRECTORY);
	tree.proc_fd = open("/proc", O_PATH | O_DIRECTORY);
	assert_true(tree.tree_fd >= 0 && tree.proc_fd >= 0);
	close(openat(tree.tree_fd, "file", O_WRONLY | O_CREAT, 0600));
	close(dir_fd);
}

static void make_tree(char *dir)
{
	assert_non_null(mkdtemp(dir));
	make_tree_in(dir);
}

static void remove_tree(const char *dir)
{
	unlinkat(tree.tree_fd, "file", 0);
	unlinkat(tree.tree_fd, "../above", 0);
	unlinkat(tree.tree_fd, "../tree", AT_REMOVEDIR);
	close(tree.tree_fd);
	close(tree.proc_fd);
	tree = (struct jail_tree){ -1, -1 };
	rights = (struct sandbox_rights){ 0 };
	rmdir(dir);
}

static bool has_landlock(void)
{
	return syscall(SYS_landlock_create_ruleset, NULL, 0, 1) >= 1;
}

#define FAILS  (-1) /* with whatever errno */
#define ALWAYS 0

/* What vdev_rights allow, and no more, whatever the kernel lacks. */
static void test_tree(void **state)
{
	static const struct {
		const char *name;
		int (*what)(void);
		bool ro;
		int lacks, ret;
	} rows[] = {
		{ "read", read_in_tree, false, ALWAYS, 0 },
		{ "read", read_in_tree, false, NO_MOUNTS, 0 },
		{ "read", read_in_tree, false, NO_LANDLOCK, 0 },
		{ "reopen", reopen, false, ALWAYS, 0 },
		{ "reopen", reopen, false, NO_MOUNTS, 0 },
		{ "reopen", reopen, false, NO_LANDLOCK, 0 },
		{ "write", write_in_tree, false, ALWAYS, 0 },
		{ "write", write_in_tree, false, NO_LANDLOCK, 0 },
		{ "ro: read", read_in_tree, true, ALWAYS, 0 },
		{ "ro: read", read_in_tree, true, NO_LANDLOCK, 0 },
		{ "ro: write", write_in_tree, true, ALWAYS, FAILS },
		{ "ro: write", write_in_tree, true, NO_MOUNTS, EACCES },
		{ "ro: write", write_in_tree, true, NO_LANDLOCK, EROFS },
		{ "above", read_above_tree, false, ALWAYS, FAILS },
		{ "above", read_above_tree, false, NO_MOUNTS, EACCES },
		{ "above", read_above_tree, false, NO_LANDLOCK, ENOENT },
		{ "find above", find_above_tree, false, ALWAYS, ENOENT },
		{ "find above", find_above_tree, false, NO_LANDLOCK, ENOENT },
		{ "change above", change_above_tree, false, ALWAYS, ENOENT },
		{ "proc", read_above_proc, false, ALWAYS, FAILS },
		{ "proc", read_above_proc, false, NO_MOUNTS, EACCES },
		{ "proc", read_above_proc, false, NO_LANDLOCK, ENOENT },
		{ "other root", read_other_root, false, ALWAYS, FAILS },
		{ "other root", read_other_root, false, NO_LANDLOCK, ENOENT },
		/* 99: it is rejected. */
		{ "neither", read_in_tree, false, NO_LANDLOCK | NO_MOUNTS, 99 },
	};
	char dir[] = "/tmp/jail_test.XXXXXX";

	if (geteuid() != 0)
		skip(); /* test_cli.py has the same for an ordinary user */
	make_tree(dir);
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		int ret;

		if (rows[i].lacks == NO_MOUNTS && !has_landlock())
			continue;
		rights = (struct sandbox_rights){ .tree = "tree",
						  .tree_ro = rows[i].ro,
						  .same_user = true };
		lacking = rows[i].lacks;
		ret = jailed(rows[i].what, false);
		print_message("%s, without %d: %d\n", rows[i].name,
			      rows[i].lacks, ret);
		if (rows[i].ret == FAILS)
			assert_int_not_equal(ret, 0);
		else
			assert_int_equal(ret, rows[i].ret);
		unlinkat(tree.tree_fd, "new", 0);
	}
	lacking = 0;
	remove_tree(dir);
}

static void test_tree_devices(void **state)
{
	char dir[] = "/tmp/jail_test.XXXXXX";

	if (geteuid() != 0)
		skip(); /* nobody else can create one */
	make_tree(dir);
	rights = (struct sandbox_rights){ .tree = "tree",
					  .same_user = true,
					  .caps = UINT64_C(1) << CAP_MKNOD };
	assert_int_equal(jailed(use_device, false), EACCES);
	assert_int_equal(unlinkat(tree.tree_fd, "new", 0), 0);
	remove_tree(dir);
}

static int entered[2], mounted[2]; /* pipes */

static int open_later(void)
{
	char c = 0;

	if (write(entered[1], &c, 1) != 1 || read(mounted[0], &c, 1) != 1)
		return -1;
	return result(openat(tree.tree_fd, "later/file", O_RDWR));
}

/* On the host, when the device is in its sandbox. */
static void mount_later(const char *dir)
{
	char path[64], c;
	int fd;

	snprintf(path, sizeof(path), "%s/tree/later", dir);
	if (read(entered[0], &c, 1) != 1 ||
	    mount("none", path, "tmpfs", 0, NULL) < 0)
		_exit(1);
	snprintf(path, sizeof(path), "%s/tree/later/file", dir);
	fd = open(path, O_WRONLY | O_CREAT, 0666);
	_exit(fd < 0 || write(mounted[1], &c, 1) != 1);
}

/* A directory that the host's other namespaces share mounts with. */
static void share_mounts(const char *dir)
{
	assert_int_equal(unshare(CLONE_NEWNS), 0);
	assert_int_equal(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
	assert_int_equal(mount(dir, dir, NULL, MS_BIND, NULL), 0);
	assert_int_equal(mount(NULL, dir, NULL, MS_SHARED, NULL), 0);
}

/* Later mounts below have none of the tree's restrictions. */
static void test_tree_mounts(void **state)
{
	char dir[] = "/tmp/jail_test.XXXXXX", later[64];
	int wait_status;
	pid_t host;

	if (geteuid() != 0)
		skip();
	assert_non_null(mkdtemp(dir));
	share_mounts(dir);
	make_tree_in(dir);
	snprintf(later, sizeof(later), "%s/tree/later", dir);
	assert_int_equal(mkdir(later, 0777), 0);
	rights = (struct sandbox_rights){ .tree = "tree",
					  .tree_ro = true,
					  .same_user = true };
	assert_int_equal(pipe(entered), 0);
	assert_int_equal(pipe(mounted), 0);
	host = fork();
	if (host == 0)
		mount_later(dir);
	assert_int_equal(jailed(open_later, false), ENOENT);
	assert_int_equal(waitpid(host, &wait_status, 0), host);
	assert_int_equal(wait_status, 0);
	assert_int_equal(umount2(later, 0), 0);
	assert_int_equal(rmdir(later), 0);
	umount2(dir, MNT_DETACH);
	remove_tree(dir);
}

/*
 * --- Devices that declare what they need ---
 */

static int sg_io(void)
{
	struct sg_io_hdr hdr = { .interface_id = 'S' };

	return result(ioctl(file_fd, SG_IO, &hdr));
}

static void test_passthrough(void **state)
{
	static const struct {
		const char *text;
		int ret;
	} rows[] = {
		{ "scsi,lun0=x", ENOSYS },
		{ "scsi,lun0=x,lun0.type=cdrom", ENOSYS },
		{ "scsi,lun0=x,lun0.type=passthrough", ENOTTY },
		{ "scsi,lun0=x,t1.lun2=y,t1.lun2.type=passthrough", ENOTTY },
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		const struct vdev_type *type;
		struct opts *opts;
		struct err err;

		print_message("%s\n", rows[i].text);
		assert_int_equal(vdev_parse(rows[i].text, &type, &opts, &err),
				 0);
		ioctls[0] = type->vt_ioctls;
		ioctls[1] = vdev_rights(type, opts).ioctls;
		assert_int_equal(jailed(sg_io, true), rows[i].ret);
		opts_free(opts);
	}
	ioctls[0] = extra_ioctls;
	ioctls[1] = NULL;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_forbidden),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_tree),
		cmocka_unit_test(test_tree_devices),
		cmocka_unit_test(test_tree_mounts),
		cmocka_unit_test(test_allowed),
		cmocka_unit_test(test_passthrough),
		cmocka_unit_test(test_before_the_seal),
		cmocka_unit_test(test_others),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* What a jailed process can and cannot do: each row in a process of its own. */
#include "dev/vdev.h"
#include "viodev/jail.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/io_uring.h>
#include <pthread.h>
#include <scsi/sg.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static char file_name[] = "/tmp/jail-test-XXXXXX";
static int file_fd;

/* Each returns 0 when it could, else errno. */
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
	return result(socket(AF_INET, SOCK_STREAM, 0));
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

static int type_into_terminal(void)
{
	return result(ioctl(STDERR_FILENO, TIOCSTI, "x"));
}

static int stat_path(void)
{
	struct stat *st = NULL;

	return result(syscall(SYS_newfstatat, AT_FDCWD, "/", st, 0));
}

static int register_with_ring(void)
{
	return result(syscall(SYS_io_uring_register, -1, IORING_REGISTER_FILES,
			      NULL, 0));
}

/* --- and what must go on working */

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

	/* A file has no such; what counts is that it was asked. */
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

/* What a device may have listed. */
static const int extra[] = {
	SYS_io_uring_register, SYS_clone, SYS_clone3,
	SYS_set_robust_list,   SYS_rseq,  -1,
};
static const int *const lists[] = { extra, NULL };
static const unsigned long extra_ioctls[] = { BLKGETSIZE, 0 };
static const unsigned long *ioctls[] = { extra_ioctls, NULL, NULL };

#define CANNOT 1000

static struct vdev_rights rights; /* none */
static int tree_fd = -1;

/* Do it behind bars; what the process says when it ends. */
static int jailed(int (*what)(void), bool seal)
{
	pid_t pid = fork();
	int wait_status;

	if (pid == 0) {
		struct jail jail = { 0 };

		if (jail_enter(&jail, &rights, tree_fd) < 0 ||
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
		{ "open", open_file },
		{ "create", create_file },
		{ "openat2", open_by_openat2 },
		{ "unlink", remove_file },
		{ "execve", execute },
		{ "execveat", execute_fd },
		{ "UNIX socket", unix_socket },
		{ "INET socket", inet_socket },
		{ "map code", map_code },
		{ "make code", protect_code },
		{ "fork", new_process },
		{ "kill", signal_parent },
		{ "tgkill", signal_other },
		{ "ptrace", trace_parent },
		{ "TIOCSTI", type_into_terminal },
		{ "stat", stat_path },
		{ "io_uring_register", register_with_ring },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		int ret = jailed(rows[i].what, true);

		print_message("%s: %d\n", rows[i].name, ret);
#ifdef JAIL_WITH_ASAN
		if (ret == EACCES)
			continue;
#endif
		assert_int_equal(ret, CANNOT + SIGSYS);
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
		{ "fstat", stat_fd, 0 },
		{ "thread", new_thread, 0 },
		{ "another file for io_uring", give_file_to_ring, 0 },
		{ "abort", aborts, CANNOT + SIGABRT },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		print_message("%s\n", rows[i].name);
		assert_int_equal(jailed(rows[i].what, true), rows[i].ret);
	}
}

/* Files are out of reach before seccomp as well, as far as can be had. */
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
 * --- A tree that is shared ---
 */

static int read_in_tree(void)
{
	return result(openat(tree_fd, "file", O_RDONLY));
}

static int write_in_tree(void)
{
	return result(openat(tree_fd, "new", O_WRONLY | O_CREAT, 0600));
}

static int read_above_tree(void)
{
	return result(openat(tree_fd, "../above", O_RDONLY));
}

/* What vdev_rights allow, and no more. */
static void test_tree(void **state)
{
	static const struct {
		const char *name;
		int (*what)(void);
		bool ro;
		bool works;
	} rows[] = {
		{ "read", read_in_tree, false, true },
		{ "write", write_in_tree, false, true },
		{ "above", read_above_tree, false, false },
		{ "read only: read", read_in_tree, true, true },
		{ "read only: write", write_in_tree, true, false },
	};
	char dir[] = "/tmp/jail_test.XXXXXX", path[64];

	if (syscall(SYS_landlock_create_ruleset, NULL, 0, 1) < 1)
		skip(); /* there is nothing that denies the rest */
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/above", dir);
	close(open(path, O_WRONLY | O_CREAT, 0600));
	snprintf(path, sizeof(path), "%s/tree", dir);
	assert_int_equal(mkdir(path, 0700), 0);
	tree_fd = open(path, O_PATH | O_DIRECTORY);
	assert_true(tree_fd >= 0);
	close(openat(tree_fd, "file", O_WRONLY | O_CREAT, 0600));

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		rights = (struct vdev_rights){ .tree = "tree",
					       .tree_ro = rows[i].ro,
					       .same_user = true };
		print_message("%s\n", rows[i].name);
		if (rows[i].works)
			assert_int_equal(jailed(rows[i].what, false), 0);
		else
			assert_int_equal(jailed(rows[i].what, false), EACCES);
		unlinkat(tree_fd, "new", 0);
	}
	rights = (struct vdev_rights){ 0 };
	unlinkat(tree_fd, "file", 0);
	unlinkat(tree_fd, "../above", 0);
	close(tree_fd);
	tree_fd = -1;
	rmdir(path);
	rmdir(dir);
}

/*
 * --- Devices that say what they need ---
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
		{ "scsi,lun0=x", CANNOT + SIGSYS },
		{ "scsi,lun0=x,lun0.type=cdrom", CANNOT + SIGSYS },
		{ "scsi,lun0=x,lun0.type=passthrough", ENOTTY },
		{ "scsi,lun0=x,t1.lun2=y,t1.lun2.type=passthrough", ENOTTY },
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
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
		cmocka_unit_test(test_tree),
		cmocka_unit_test(test_allowed),
		cmocka_unit_test(test_passthrough),
		cmocka_unit_test(test_before_the_seal),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}

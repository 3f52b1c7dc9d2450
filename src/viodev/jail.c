/* SPDX-License-Identifier: BSD-2-Clause */
#include "viodev/jail.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/capability.h>
#include <linux/landlock.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/json.h"
#include "base/util.h"
#include "dev/vdev.h"
#include "viodev/log.h"

#define NOBODY  65534
#define MAX_FDS 4096 /* memory regions and interrupts need some */

/* Threads of pools, 1024 of them for 64 passthrough units, and of io_uring. */
#define MAX_TASKS 2048

/* Guest memory, and our own: 2 MiB for most devices, under 100 for all. */
#define MAX_AS   (UINT64_C(16) << 40)
#define MAX_DATA (UINT64_C(1) << 30)

static void skipped(const char *what)
{
	log_line(LOG_INFO, "sandbox: without %s: %s", what, strerror(errno));
}

/*
 * --- Stage 2: what may be missing ---
 */

static void set_limit(int resource, rlim_t most)
{
	struct rlimit limit;

	if (getrlimit(resource, &limit) == 0) {
		if (limit.rlim_max > most)
			limit.rlim_max = most;
		limit.rlim_cur = limit.rlim_max;
		if (setrlimit(resource, &limit) == 0)
			return;
	}
	skipped("a limit");
}

static void set_limits(const struct jail *jail)
{
	set_limit(RLIMIT_CORE, 0);
	set_limit(RLIMIT_NOFILE, MAX_FDS);
	/* In a user namespace of our own, only our processes count. */
	if (jail->namespaces & CLONE_NEWUSER)
		set_limit(RLIMIT_NPROC, MAX_TASKS);
#ifndef JAIL_WITH_ASAN /* whose shadow has 20 TiB */
	set_limit(RLIMIT_AS, MAX_AS);
	set_limit(RLIMIT_DATA, MAX_DATA);
#endif
}

void jail_raise_memlock(void)
{
	struct rlimit limit = { RLIM_INFINITY, RLIM_INFINITY };

	/* Root may raise it; others get their hard limit. */
	if (setrlimit(RLIMIT_MEMLOCK, &limit) == 0 ||
	    getrlimit(RLIMIT_MEMLOCK, &limit) < 0)
		return;
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_MEMLOCK, &limit);
}

#define NEW_ROOT   "/tmp"
#define ROOT_FLAGS (MS_NODEV | MS_NOEXEC | MS_NOSUID)

/* Mount @root, or an empty directory. */
static int mount_new_root(const char *root)
{
	int ret = root ? mount(root, NEW_ROOT, NULL, MS_BIND, NULL) :
			 mount("viodev", NEW_ROOT, "tmpfs", ROOT_FLAGS,
			       "mode=0555,nr_inodes=8,size=8k");

	return ret < 0 ? -errno : 0;
}

/* Nothing else of the host's file systems stays, and nothing is writable. */
static int pivot_to_new_root(void)
{
	if (mount(NULL, NEW_ROOT, NULL,
		  ROOT_FLAGS | MS_REMOUNT | MS_BIND | MS_RDONLY, NULL) < 0 ||
	    chdir(NEW_ROOT) < 0 || syscall(SYS_pivot_root, ".", ".") < 0 ||
	    umount2(".", MNT_DETACH) < 0 || chdir("/") < 0)
		return -errno;
	return 0;
}

static int pivot_to(const char *root)
{
	int ret;

	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return -errno;
	ret = mount_new_root(root);
	if (ret < 0)
		return ret;
	ret = pivot_to_new_root();
	if (ret < 0)
		umount2(NEW_ROOT, MNT_DETACH);
	return ret;
}

/* The new root holds the shared tree, from where @tree's descriptors are. */
static int pivot_to_tree(const struct jail_tree *tree, bool ro,
			 const char *root)
{
	struct jail_tree mounts;
	int ret = jail_tree_clone(tree, ro, root, &mounts);

	if (ret < 0)
		return ret;
	ret = mount_new_root(NULL);
	if (ret == 0)
		ret = jail_tree_attach(&mounts, NEW_ROOT);
	if (ret == 0)
		ret = pivot_to_new_root();
	if (ret == 0)
		ret = jail_tree_replace(tree);
	jail_tree_close(&mounts);
	return ret;
}

/* Nothing can be created in a removed directory. */
static int chroot_to_removed(void)
{
	char dir[] = "/tmp/viodev-XXXXXX";

	if (!mkdtemp(dir))
		return -errno;
	if (chdir(dir) < 0) {
		int ret = -errno;

		rmdir(dir);
		return ret;
	}
	if (rmdir(dir) < 0 || chroot(".") < 0)
		return -errno;
	return 0;
}

static int chroot_to(const char *root)
{
	if (!root)
		return chroot_to_removed();
	return chdir(root) < 0 || chroot(".") < 0 ? -errno : 0;
}

static bool try_tree(struct jail *jail, const struct sandbox_rights *rights,
		     const struct jail_tree *tree)
{
	int ret;

	if (tree->tree_fd < 0)
		return false;
	ret = pivot_to_tree(tree, rights->tree_ro, jail->root);
	if (ret < 0) {
		errno = -ret;
		skipped("a mount of its own for the tree");
		return false;
	}
	jail->namespaces |= CLONE_NEWNS;
	jail->own_tree = true;
	return true;
}

static void empty_root(struct jail *jail, const struct sandbox_rights *rights,
		       const struct jail_tree *tree)
{
	if (try_tree(jail, rights, tree) ||
	    (jail->namespaces & CLONE_NEWNS && pivot_to(jail->root) == 0))
		jail->empty_root = true;
	else if (chroot_to(jail->root) == 0)
		jail->empty_root = true;
	else
		skipped("an empty root directory");
}

/* No executed program can regain capabilities. Needs CAP_SETPCAP. */
static void drop_bounding_set(void)
{
	int last = 0;

	/* EINVAL: past the last capability. */
	while (prctl(PR_CAPBSET_DROP, last, 0, 0, 0) == 0)
		last++;
	if (errno != EINVAL)
		skipped("an empty bounding set");
}

/* Outside a user namespace, root is the host's root. */
static void become_nobody(struct jail *jail,
			  const struct sandbox_rights *rights)
{
	if (geteuid() != 0 || jail->namespaces & CLONE_NEWUSER ||
	    rights->same_user)
		return;
	if (setgroups(0, NULL) < 0 || setresgid(NOBODY, NOBODY, NOBODY) < 0 ||
	    setresuid(NOBODY, NOBODY, NOBODY) < 0)
		skipped("a user other than root");
	else
		jail->nobody = true;
}

/* Rights in a shared tree: no execution, no devices. */
#define TREE_RO     (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR)
#define NOT_IN_TREE (LANDLOCK_ACCESS_FS_EXECUTE | UINT64_C(1) << 15)

static int allow_beneath(int ruleset, int fd, uint64_t access)
{
	struct landlock_path_beneath_attr rule = {
		.allowed_access = access,
		.parent_fd = fd,
	};

	return (int)syscall(SYS_landlock_add_rule, ruleset,
			    LANDLOCK_RULE_PATH_BENEATH, &rule, 0);
}

#define HOST_FILE "/etc/resolv.conf"

/*
 * Where the file is replaced: /etc of a root of our own, or the directory that
 * a link of the host's leads to (/run/systemd/resolve). Of the host's /etc only
 * the file itself, as containers mount it.
 */
static int open_resolver(const struct jail *jail)
{
	char path[PATH_MAX], *slash;

	if (jail->empty_root)
		return open("/etc", O_PATH | O_CLOEXEC);
	if (!realpath(HOST_FILE, path))
		return -1;
	slash = strrchr(path, '/');
	if (strncmp(path, "/etc/", 5) != 0 && slash > path)
		*slash = '\0';
	return open(path, O_PATH | O_CLOEXEC);
}

static int allow_resolver(const struct jail *jail, int ruleset)
{
	int fd = open_resolver(jail);
	int ret;

	if (fd < 0 && !jail->empty_root)
		log_line(LOG_WARNING,
			 "sandbox: no " HOST_FILE ": the guest has no name "
			 "server: restart viodev once there is one");
	if (fd < 0)
		return 0;
	ret = allow_beneath(ruleset, fd, LANDLOCK_ACCESS_FS_READ_FILE);
	close(fd);
	return ret;
}

/* Of the mount point, as the parent may mount another tree there later. */
static int allow_mounted_tree(int ruleset, uint64_t access)
{
	int fd = open(JAIL_TREE_DIR, O_PATH | O_DIRECTORY | O_CLOEXEC), ret;

	if (fd < 0)
		return -errno;
	ret = allow_beneath(ruleset, fd, access);
	close(fd);
	return ret;
}

static int allow_rights(const struct jail *jail, int ruleset, uint64_t all,
			const struct sandbox_rights *rights, int tree_fd)
{
	uint64_t in_tree = rights->tree_ro ? TREE_RO : all & ~NOT_IN_TREE;
	int ret = 0;

	if (jail->own_tree)
		ret = allow_mounted_tree(ruleset, in_tree);
	else if (tree_fd >= 0)
		ret = allow_beneath(ruleset, tree_fd, in_tree);
	if (ret == 0 && rights->network)
		ret = allow_resolver(jail, ruleset);
	return ret;
}

/* Deny every right on files, network and signals that the kernel can. */
static void landlock(struct jail *jail, const struct sandbox_rights *rights,
		     int tree_fd)
{
	/* The system's header may know fewer fields than the kernel. */
	struct {
		uint64_t fs, net, scoped;
	} deny = { 0 };
	size_t size = sizeof(deny.fs);
	long version, fd;

	version = syscall(SYS_landlock_create_ruleset, NULL, 0,
			  LANDLOCK_CREATE_RULESET_VERSION);
	if (version < 1) {
		skipped("Landlock");
		return;
	}
	deny.fs = (UINT64_C(1) << 13) - 1;
	if (version >= 2)
		deny.fs |= UINT64_C(1) << 13; /* refer */
	if (version >= 3)
		deny.fs |= UINT64_C(1) << 14; /* truncate */
	if (version >= 4) {
		deny.net = rights->network ? 0 : 3; /* bind, connect TCP */
		size = 2 * sizeof(uint64_t);
	}
	if (version >= 5)
		deny.fs |= UINT64_C(1) << 15; /* ioctl of devices */
	if (version >= 6) {
		deny.scoped = 3; /* abstract sockets, signals */
		size = sizeof(deny);
	}
	fd = syscall(SYS_landlock_create_ruleset, &deny, size, 0);
	if (fd < 0 ||
	    allow_rights(jail, (int)fd, deny.fs, rights, tree_fd) < 0 ||
	    syscall(SYS_landlock_restrict_self, fd, 0) < 0)
		skipped("Landlock");
	else
		jail->landlock = (int)version;
	if (fd >= 0)
		close((int)fd);
}

/*
 * --- Stage 2: what must work ---
 */

/*
 * Keep those of @keep that we have: root in a container may lack some. In a
 * user namespace of our own, they grant nothing on the host.
 */
static int drop_capabilities(struct jail *jail, uint64_t keep)
{
	struct __user_cap_header_struct header = {
		.version = _LINUX_CAPABILITY_VERSION_3,
	};
	struct __user_cap_data_struct left[2];

	if (syscall(SYS_capget, &header, left) < 0)
		return -errno;
	if (jail->namespaces & CLONE_NEWUSER)
		keep = 0;
	left[0].permitted &= (uint32_t)keep;
	left[1].permitted &= (uint32_t)(keep >> 32);
	for (int i = 0; i < 2; i++) {
		left[i].effective = left[i].permitted;
		left[i].inheritable = 0;
	}
	prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	if (syscall(SYS_capset, &header, left) < 0)
		return -errno;
	jail->no_capabilities = (left[0].permitted | left[1].permitted) == 0;
	return 0;
}

/* A descriptor of the tree also leads to the rest of the host. */
static int check_tree(const struct jail *jail, const struct jail_tree *tree)
{
	if (tree->tree_fd < 0 || jail->own_tree)
		return 0;
	if (jail->landlock) {
		log_line(LOG_WARNING,
			 "sandbox: no mount namespace: Landlock confines file "
			 "access, but not changes to modes, owners and "
			 "attributes of its user's other files");
		return 0;
	}
	log_line(LOG_ERR,
		 "sandbox: neither mount namespace nor Landlock to confine the "
		 "device to its directory: allow one (user namespaces, "
		 "CAP_SYS_ADMIN), or run it with --sandbox=off");
	return -EPERM;
}

int jail_enter(struct jail *jail, const struct sandbox_rights *rights,
	       const struct jail_tree *tree)
{
	int ret;

	set_limits(jail);
	empty_root(jail, rights, tree);
	drop_bounding_set();
	become_nobody(jail, rights);
	ret = drop_capabilities(jail, rights->caps);
	if (ret < 0) {
		log_line(LOG_ERR, "sandbox: capabilities: %s", strerror(-ret));
		return ret;
	}
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) {
		log_line(LOG_ERR, "sandbox: no-new-privs: %m");
		return -errno;
	}
	jail->no_new_privs = true;
	/* Other processes of "nobody" must not trace us. */
	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	landlock(jail, rights, tree->tree_fd);
	/* Changing the user has cleared it; spawn.c explains it. */
	prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	return check_tree(jail, tree);
}

/*
 * --- Status ---
 */

static struct json_object *namespace_names(unsigned long namespaces)
{
	static const struct {
		unsigned long flag;
		const char *name;
	} names[] = {
		{ CLONE_NEWUSER, "user" }, { CLONE_NEWNS, "mount" },
		{ CLONE_NEWNET, "net" },   { CLONE_NEWIPC, "ipc" },
		{ CLONE_NEWUTS, "uts" },
	};
	struct json_object *list = json_object_new_array();

	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		if (namespaces & names[i].flag)
			json_push_string(list, names[i].name);
	}
	return list;
}

void jail_status(const struct jail *jail, struct json_object *to)
{
	json_object_object_add(to, "namespaces",
			       namespace_names(jail->namespaces));
	json_add_bool(to, "empty-root", jail->empty_root);
	json_add_bool(to, "own-tree", jail->own_tree);
	json_add_bool(to, "nobody", jail->nobody);
	json_add_bool(to, "no-capabilities", jail->no_capabilities);
	json_add_bool(to, "no-new-privs", jail->no_new_privs);
	json_object_object_add(to, "landlock",
			       json_object_new_int(jail->landlock));
	json_add_bool(to, "seccomp", jail->seccomp);
}

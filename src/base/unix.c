/* SPDX-License-Identifier: BSD-2-Clause */
/* UNIX sockets that have a path. See unix.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/unix.h"

#define LOCK_TRIES    2000
#define LOCK_PAUSE_US 1000

int unix_address(const char *path, struct sockaddr_un *ret_addr)
{
	*ret_addr = (struct sockaddr_un){ .sun_family = AF_UNIX };
	if (strlen(path) >= sizeof(ret_addr->sun_path))
		return -ENAMETOOLONG;
	strcpy(ret_addr->sun_path, path);
	return 0;
}

/*
 * Probed with a datagram socket: with a live stream socket that fails with
 * EPROTOTYPE, and does not disturb it with a connection.
 */
static bool has_owner(const struct sockaddr_un *addr)
{
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	bool refused;

	if (fd < 0)
		return true;
	refused =
		connect(fd, (const struct sockaddr *)addr, sizeof(*addr)) < 0 &&
		errno == ECONNREFUSED;
	close(fd);
	return !refused;
}

/* Remove what a dead process left behind. */
static int clear(const struct sockaddr_un *addr)
{
	struct stat st;

	if (lstat(addr->sun_path, &st) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISSOCK(st.st_mode))
		return -EEXIST;
	if (has_owner(addr))
		return -EADDRINUSE;
	return unlink(addr->sun_path) < 0 ? -errno : 0;
}

/*
 * While a stale socket is found and removed, no other process may do the same
 * and bind a new one, so the directory is locked. Anyone who can read it can
 * hold that lock, so we do not wait for ever.
 */
static int lock_directory(const char *path)
{
	char dir[sizeof(((struct sockaddr_un *)0)->sun_path)];
	char *slash;
	int fd, tries = LOCK_TRIES, ret;

	strcpy(dir, path);
	slash = strrchr(dir, '/');
	if (slash)
		slash[slash == dir] = '\0';
	fd = open(slash ? dir : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	while ((ret = flock(fd, LOCK_EX | LOCK_NB)) < 0 &&
	       errno == EWOULDBLOCK && --tries > 0)
		usleep(LOCK_PAUSE_US);
	if (ret == 0)
		return fd;
	ret = errno == EWOULDBLOCK ? -EBUSY : -errno;
	close(fd);
	return ret;
}

static int try_bind(int fd, const struct sockaddr_un *addr)
{
	return bind(fd, (const struct sockaddr *)addr, sizeof(*addr)) < 0 ?
		       -errno :
		       0;
}

int unix_bind(int fd, const struct sockaddr_un *addr)
{
	int ret = try_bind(fd, addr), lock_fd;

	if (ret != -EADDRINUSE)
		return ret;
	lock_fd = lock_directory(addr->sun_path);
	if (lock_fd < 0)
		return lock_fd;
	ret = clear(addr);
	/* A process that finds no socket needs no lock, and may bind first. */
	if (ret == 0)
		ret = try_bind(fd, addr);
	close(lock_fd);
	return ret;
}

struct unix_name unix_name(const char *path)
{
	struct stat st;

	if (lstat(path, &st) < 0)
		return (struct unix_name){ 0 };
	return (struct unix_name){ st.st_dev, st.st_ino, st.st_mtim };
}

void unix_remove(const char *path, struct unix_name name)
{
	struct unix_name now = unix_name(path);

	if (name.ino && now.ino == name.ino && now.dev == name.dev &&
	    now.made.tv_sec == name.made.tv_sec &&
	    now.made.tv_nsec == name.made.tv_nsec)
		unlink(path);
}

/* A stream socket after @step, which is bind or connect. */
static int make(const char *path, int flags,
		int (*step)(int fd, const struct sockaddr_un *addr))
{
	struct sockaddr_un addr;
	int ret = unix_address(path, &addr), fd;

	if (ret < 0)
		return ret;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);
	if (fd < 0)
		return -errno;
	ret = step(fd, &addr);
	if (ret == 0)
		return fd;
	close(fd);
	return ret;
}

static int bind_and_listen(int fd, const struct sockaddr_un *addr)
{
	int ret = unix_bind(fd, addr);

	if (ret < 0 || listen(fd, SOMAXCONN) == 0)
		return ret;
	ret = -errno;
	unlink(addr->sun_path);
	return ret;
}

static int connect_to(int fd, const struct sockaddr_un *addr)
{
	return connect(fd, (const struct sockaddr *)addr, sizeof(*addr)) < 0 ?
		       -errno :
		       0;
}

int unix_listen(const char *path, int flags)
{
	return make(path, flags, bind_and_listen);
}

int unix_connect(const char *path, int flags)
{
	return make(path, flags, connect_to);
}

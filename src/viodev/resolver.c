/* SPDX-License-Identifier: BSD-2-Clause */
#include "viodev/resolver.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <viodev/loop.h>

#include "viodev/tempdir.h"

#define HOST_FILE "/etc/resolv.conf"
#define MAX_BYTES 65536
#define LOOK_NS   UINT64_C(2000000000)

struct resolver {
	struct tempdir dir;
	int etc_fd;
	struct vio_source *timer;
	struct stat seen; /* the host's file; all zero: none */
};

static bool is_same(const struct stat *a, const struct stat *b)
{
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino &&
	       a->st_size == b->st_size &&
	       a->st_mtim.tv_sec == b->st_mtim.tv_sec &&
	       a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

/* Replace the file atomically, so that nobody reads half of it. */
static void replace(int etc_fd, int from)
{
	static char text[MAX_BYTES];
	ssize_t len = from < 0 ? -1 : read(from, text, sizeof(text));
	int to;

	if (len < 0) {
		unlinkat(etc_fd, "resolv.conf", 0);
		return;
	}
	to = openat(etc_fd, "new", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC,
		    0644);
	if (to < 0)
		return;
	fchmod(to, 0644); /* whatever the umask */
	if (write(to, text, (size_t)len) == len)
		renameat(etc_fd, "new", etc_fd, "resolv.conf");
	close(to);
}

void resolver_update(struct resolver *resolver)
{
	int fd = open(HOST_FILE, O_RDONLY | O_CLOEXEC);
	struct stat now = { 0 };

	if (fd >= 0)
		fstat(fd, &now);
	if (!is_same(&now, &resolver->seen))
		replace(resolver->etc_fd, fd);
	resolver->seen = now;
	if (fd >= 0)
		close(fd);
}

static void on_timer(void *arg)
{
	struct resolver *resolver = arg;

	resolver_update(resolver);
	vio_timer_set(resolver->timer, LOOK_NS);
}

/* Device processes may run as another user and need access. */
static int make_etc(struct resolver *resolver)
{
	int fd = open(resolver->dir.path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	int ret = fd < 0 || mkdirat(fd, "etc", 0755) < 0 ||
				  chmod(resolver->dir.path, 0755) < 0 ||
				  fchmodat(fd, "etc", 0755, 0) < 0 ?
			  -errno :
			  0;

	if (ret == 0) {
		resolver->etc_fd =
			openat(fd, "etc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		ret = resolver->etc_fd < 0 ? -errno : 0;
	}
	if (fd >= 0)
		close(fd);
	return ret;
}

int resolver_create(struct vio_loop *loop, struct resolver **ret_resolver)
{
	struct resolver *resolver = calloc(1, sizeof(*resolver));
	int ret;

	if (!resolver)
		return -ENOMEM;
	resolver->etc_fd = -1;
	ret = tempdir_create(&resolver->dir);
	if (ret < 0) {
		free(resolver);
		return ret;
	}
	ret = make_etc(resolver);
	if (ret == 0)
		ret = vio_timer_add(loop, on_timer, resolver, &resolver->timer);
	if (ret < 0) {
		resolver_destroy(resolver);
		return ret;
	}
	on_timer(resolver);
	*ret_resolver = resolver;
	return 0;
}

void resolver_destroy(struct resolver *resolver)
{
	if (!resolver)
		return;
	vio_source_remove(resolver->timer);
	if (resolver->etc_fd >= 0)
		close(resolver->etc_fd);
	tempdir_destroy(&resolver->dir);
	free(resolver);
}

const char *resolver_root(const struct resolver *resolver)
{
	return resolver->dir.path;
}

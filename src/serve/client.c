/* SPDX-License-Identifier: BSD-2-Clause */
/* What servers do with what clients give. See client.h. */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include <syslog.h>
#include <unistd.h>

#include <viodev/loop.h>

#include "serve/client.h"
#include "serve/mapping.h"

#define NS_PER_SEC 1000000000ull
#define LOG_BURST  32 /* lines; then one a second */

/*
 * --- Wake-up ---
 */

static void on_wake(void *arg, uint32_t events)
{
	struct client_wake *wake = arg;
	uint64_t count;

	if (read(wake->fd, &count, sizeof(count)) == sizeof(count))
		wake->fn(wake->arg);
}

int client_wake_init(struct client_wake *wake, struct vio_loop *loop,
		     void (*fn)(void *arg), void *arg)
{
	int ret;

	mapping_catch_faults();
	wake->fn = fn;
	wake->arg = arg;
	wake->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (wake->fd < 0)
		return -errno;
	ret = vio_fd_add(loop, wake->fd, EPOLLIN, on_wake, wake, &wake->source);
	if (ret < 0)
		close(wake->fd);
	return ret;
}

void client_wake_fini(struct client_wake *wake)
{
	if (!wake->source)
		return;
	vio_source_remove(wake->source);
	close(wake->fd);
	wake->source = NULL;
}

/* A counter that is full has woken it. */
void client_wake(struct client_wake *wake)
{
	uint64_t one = 1;
	ssize_t n = write(wake->fd, &one, sizeof(one));

	(void)n;
}

bool client_has_faulted(struct client_wake *wake)
{
	return __atomic_exchange_n(&wake->faulted, false, __ATOMIC_ACQ_REL);
}

/*
 * --- Event descriptors ---
 */

/* What kind of file it is, as in <linux/magic.h>; 0 when it cannot be told. */
static long kind_of(int fd)
{
	struct statfs fs;

	return fstatfs(fd, &fs) < 0 ? 0 : (long)fs.f_type;
}

static int set_nonblocking(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
		return -errno;
	return 0;
}

int client_eventfd(int fd)
{
	return kind_of(fd) == ANON_INODE_FS_MAGIC ? set_nonblocking(fd) :
						    -EINVAL;
}

int client_eventfd_or_pipe(int fd)
{
	long kind = kind_of(fd);

	if (kind == ANON_INODE_FS_MAGIC || kind == PIPEFS_MAGIC ||
	    client_socket(fd) == 0)
		return set_nonblocking(fd);
	return -EINVAL;
}

/* A UNIX socket without a name has its family for an address. */
static bool is_unnamed(int ret, const struct sockaddr_un *addr, socklen_t len)
{
	return ret == 0 && addr->sun_family == AF_UNIX &&
	       len == sizeof(addr->sun_family);
}

int client_socket(int fd)
{
	struct sockaddr_un addr;
	socklen_t len = sizeof(addr);
	int ret = getsockname(fd, (struct sockaddr *)&addr, &len);

	if (!is_unnamed(ret, &addr, len))
		return -EINVAL;
	len = sizeof(addr);
	ret = getpeername(fd, (struct sockaddr *)&addr, &len);
	return is_unnamed(ret, &addr, len) ? 0 : -EINVAL;
}

/*
 * --- Log ---
 */

/* Guest and client cause most lines: they must not fill a disk with them. */
static bool take_token(struct client_log *log)
{
	uint64_t now = vio_now_ns(), secs = (now - log->since_ns) / NS_PER_SEC;

	if (secs > 0) {
		log->since_ns += secs * NS_PER_SEC;
		log->tokens = secs < LOG_BURST - log->tokens ?
				      log->tokens + (unsigned)secs :
				      LOG_BURST;
	}
	if (log->tokens == 0)
		return false;
	log->tokens--;
	return true;
}

static void log_to_stderr(void *arg, int level, const char *msg)
{
	if (level < LOG_DEBUG)
		fprintf(stderr, "%s\n", msg);
}

void client_log_init(struct client_log *log)
{
	*log = (struct client_log){
		.fn = log_to_stderr,
		.since_ns = vio_now_ns(),
		.tokens = LOG_BURST,
	};
}

void client_vlog(struct client_log *log, const char *name, int level,
		 const char *fmt, va_list ap)
{
	char text[256], lost[40] = "", line[sizeof(text) + 100];

	if (!take_token(log)) {
		log->nr_lost++;
		return;
	}
	if (log->nr_lost > 0)
		snprintf(lost, sizeof(lost), " (%u lines lost)", log->nr_lost);
	log->nr_lost = 0;
	vsnprintf(text, sizeof(text), fmt, ap);
	snprintf(line, sizeof(line), "%.40s: %s%s", name, text, lost);
	log->fn(log->arg, level, line);
}

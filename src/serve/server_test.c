/* SPDX-License-Identifier: BSD-2-Clause */
/* What <viodev/server.h> promises for either protocol. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include <viodev/device.h>
#include <viodev/loop.h>
#include <viodev/pci.h>
#include <viodev/server.h>

#include "base/unix.h"
#include "vfio_user_client.h"

struct fixture {
	enum vio_protocol protocol;
	struct vio_loop *loop;
	struct vio_server *srv;
	struct vdev *dev;
	char dir[40], path[60];
	unsigned nr_attached, nr_detached;
};

static void on_notify(void *arg, bool attached)
{
	struct fixture *f = arg;

	if (attached)
		f->nr_attached++;
	else
		f->nr_detached++;
	if (!attached)
		vio_loop_stop(f->loop);
}

static void quiet(void *arg, int level, const char *msg)
{
}

static struct fixture *start(enum vio_protocol protocol)
{
	struct fixture *f = calloc(1, sizeof(*f));
	char why[200];

	f->protocol = protocol;
	strcpy(f->dir, "/tmp/server_test.XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	snprintf(f->path, sizeof(f->path), "%s/s", f->dir);
	assert_int_equal(vio_loop_create(&f->loop), 0);
	assert_int_equal(vio_server_create(f->loop, protocol, "test", &f->srv),
			 0);
	vio_server_set_notify(f->srv, on_notify, f);
	vio_server_set_log(f->srv, quiet, NULL);
	assert_int_equal(vdev_new("rng", vio_server_pci(f->srv), f->loop,
				  &f->dev, why, sizeof(why)),
			 0);
	return f;
}

static int setup_vfio_user(void **state)
{
	*state = start(VIO_VFIO_USER);
	return 0;
}

static int setup_vhost_user(void **state)
{
	*state = start(VIO_VHOST_USER);
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	vdev_destroy(f->dev);
	vio_server_destroy(f->srv);
	vio_loop_destroy(f->loop);
	assert_int_equal(rmdir(f->dir), 0);
	free(f);
	return 0;
}

static void test_listen_path(void **state)
{
	struct fixture *f = *state;
	int fd = open(f->path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);

	close(fd);
	assert_int_equal(vio_server_listen_path(f->srv, f->path), -EEXIST);
	assert_int_equal(unlink(f->path), 0);
	assert_int_equal(vio_server_listen_path(f->srv, f->path), 0);
	fd = unix_connect(f->path, 0);
	assert_true(fd >= 0);
	close(fd);

	/* Started only once; the socket is removed with the server. */
	assert_int_equal(vio_server_listen_path(f->srv, f->path), -EADDRINUSE);
	strcat(f->path, "2");
	assert_int_equal(vio_server_listen_path(f->srv, f->path), -EBUSY);
	assert_int_not_equal(access(f->path, F_OK), 0);
	assert_int_equal(vio_server_attach(f->srv, 0), -EBUSY);
}

/* A socket that does not listen is refused, and the server can still start. */
static void test_listen_retry(void **state)
{
	struct fixture *f = *state;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(vio_server_listen(f->srv, fd), -EINVAL);
	assert_int_equal(close(fd), 0);
	assert_int_equal(vio_server_listen_path(f->srv, f->path), 0);
}

static void *run_loop(void *arg)
{
	struct fixture *f = arg;

	vio_loop_run(f->loop);
	return NULL;
}

/* Send each protocol's first message, and expect an answer. */
static void talk(struct fixture *f, int fd)
{
	struct tclient client = { .fd = fd, .twin = -1 };
	uint32_t get_features[3] = { 1, 1, 0 }; /* request, version, size */
	uint64_t reply[3];

	if (f->protocol == VIO_VFIO_USER) {
		assert_int_equal(tcl_version(&client, "{}"), 0);
		return;
	}
	assert_int_equal(send(fd, get_features, sizeof(get_features), 0), 12);
	assert_int_equal(recv(fd, reply, 20, MSG_WAITALL), 20);
}

static void test_attach(void **state)
{
	struct fixture *f = *state;
	struct vio_server_stats stats;
	pthread_t thread;
	int pair[2];

	socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair);
	assert_int_equal(vio_server_attach(f->srv, pair[1]), 0);
	pthread_create(&thread, NULL, run_loop, f);
	talk(f, pair[0]);
	close(pair[0]);
	pthread_join(thread, NULL); /* when it has detached */

	vio_server_get_stats(f->srv, &stats);
	assert_int_equal(f->nr_attached, 1);
	assert_int_equal(f->nr_detached, 1);
	assert_int_equal(stats.clients, 1);
	assert_int_equal(stats.messages, 1);
	assert_false(stats.attached);
}

static void test_syscalls(void **state)
{
	struct fixture *f = *state;
	const int *list = vio_server_syscalls(f->srv);
	unsigned nr = 0;

	while (list[nr] != -1)
		assert_true(list[nr++] >= 0);
	assert_true(nr > 0);
}

#define TESTS(fn)                                                         \
	{ #fn " (vfio-user)", fn, setup_vfio_user, teardown, NULL },      \
	{                                                                 \
		#fn " (vhost-user)", fn, setup_vhost_user, teardown, NULL \
	}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TESTS(test_listen_path),
		TESTS(test_listen_retry),
		TESTS(test_attach),
		TESTS(test_syscalls),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* The vhost-user front-end of tests. See vhost_user_client.h. */
#include <endian.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/le.h"
#include "vhost_user_client.h"

void fe_iterate(struct fe *f)
{
	for (int i = 0; i < 4; i++)
		vio_loop_iterate(f->loop, 0);
}

void fe_reconnect(struct fe *f)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };

	if (f->fd >= 0)
		close(f->fd);
	fe_iterate(f);
	memcpy(addr.sun_path, f->path, sizeof(f->path));
	f->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(f->fd, (void *)&addr, sizeof(addr)), 0);
	fe_iterate(f);
}

void fe_send_raw(struct fe *f, const struct vhmsg_hdr *hdr, const void *payload,
		 size_t len, const int *fds, unsigned nr_fds)
{
	struct iovec iov[] = { { (void *)hdr, sizeof(*hdr) },
			       { (void *)payload, len } };
	union {
		struct cmsghdr hdr;
		char buf[CMSG_SPACE(253 * sizeof(int))];
	} control = { 0 };
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 2 };

	if (nr_fds > 0) {
		msg.msg_control = control.buf;
		msg.msg_controllen = CMSG_SPACE(nr_fds * sizeof(int));
		control.hdr = (struct cmsghdr){
			.cmsg_len = CMSG_LEN(nr_fds * sizeof(int)),
			.cmsg_level = SOL_SOCKET,
			.cmsg_type = SCM_RIGHTS,
		};
		memcpy(CMSG_DATA(&control.hdr), fds, nr_fds * sizeof(int));
	}
	assert_int_equal(sendmsg(f->fd, &msg, MSG_NOSIGNAL),
			 sizeof(*hdr) + len);
	fe_iterate(f);
}

void fe_send_msg(struct fe *f, uint32_t request, uint32_t flags,
		 const void *payload, size_t len, int fd)
{
	struct vhmsg_hdr hdr = { request, VHMSG_VERSION | flags,
				 (uint32_t)len };

	fe_send_raw(f, &hdr, payload, len, &fd, fd >= 0);
}

int fe_receive(struct fe *f, uint32_t request, void *buf, size_t room,
	       int *ret_fd)
{
	struct vhmsg_hdr hdr;
	struct iovec iov[] = { { &hdr, sizeof(hdr) }, { buf, room } };
	char control[CMSG_SPACE(sizeof(int))];
	struct msghdr msg = { .msg_iov = iov,
			      .msg_iovlen = 2,
			      .msg_control = control,
			      .msg_controllen = sizeof(control) };
	struct pollfd pfd = { f->fd, POLLIN, 0 };
	ssize_t n;

	assert_int_equal(poll(&pfd, 1, 20000), 1);
	n = recvmsg(f->fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	if (n <= 0)
		return -1;
	assert_int_equal(hdr.request, request);
	assert_int_equal(hdr.flags, 5); /* B1: compared for equality */
	assert_int_equal((size_t)n, sizeof(hdr) + hdr.size);
	if (ret_fd)
		memcpy(ret_fd, CMSG_DATA((struct cmsghdr *)control),
		       sizeof(int));
	return (int)hdr.size;
}

bool fe_is_closed(struct fe *f)
{
	struct pollfd pfd = { f->fd, POLLIN, 0 };
	char c;

	fe_iterate(f);
	return poll(&pfd, 1, 0) == 1 && recv(f->fd, &c, 1, MSG_DONTWAIT) <= 0;
}

uint64_t fe_get_u64(struct fe *f, uint32_t request)
{
	uint64_t val = 0;

	fe_send_msg(f, request, 0, NULL, 0, -1);
	assert_int_equal(fe_receive(f, request, &val, sizeof(val), NULL), 8);
	return val;
}

bool fe_ask(struct fe *f, uint32_t request, const void *payload, size_t len,
	    int fd)
{
	uint64_t val = 1;

	fe_send_msg(f, request, VHMSG_NEED_REPLY, payload, len, fd);
	assert_int_equal(fe_receive(f, request, &val, sizeof(val), NULL), 8);
	return val == 0;
}

bool fe_set_u64(struct fe *f, uint32_t request, uint64_t val, int fd)
{
	return fe_ask(f, request, &val, sizeof(val), fd);
}

bool fe_set_vring(struct fe *f, uint32_t request, uint32_t index, uint32_t num)
{
	struct vhmsg_vring vring = { index, num };

	return fe_ask(f, request, &vring, sizeof(vring), -1);
}

void fe_negotiate(struct fe *f)
{
	uint64_t all = fe_get_u64(f, VHMSG_GET_PROTOCOL_FEATURES);

	assert_true(fe_set_u64(f, VHMSG_SET_PROTOCOL_FEATURES, all, -1));
	assert_true(fe_set_u64(f, VHMSG_SET_FEATURES, V1 | PROTOCOL, -1));
}

bool fe_add_memory(struct fe *f, uint32_t request)
{
	uint64_t region[] = { 0, GPA, MEM_BYTES, UADDR, 0 };

	return fe_ask(f, request, region, sizeof(region),
		      request == VHMSG_ADD_MEM_REG ? f->memfd : -1);
}

void fe_start_ring_at(struct fe *f, uint32_t index, uint16_t base)
{
	struct vhmsg_vring_addr addr = { index, 0, UADDR + DESC, UADDR + USED,
					 UADDR + AVAIL };

	assert_true(fe_set_vring(f, VHMSG_SET_VRING_NUM, index, QSIZE));
	assert_true(fe_set_vring(f, VHMSG_SET_VRING_BASE, index, base));
	assert_true(fe_ask(f, VHMSG_SET_VRING_ADDR, &addr, sizeof(addr), -1));
	assert_true(fe_set_u64(f, VHMSG_SET_VRING_KICK, index, f->kick));
	assert_true(fe_set_u64(f, VHMSG_SET_VRING_CALL, index, f->call));
	assert_true(fe_set_vring(f, VHMSG_SET_VRING_ENABLE, index, 1));
}

void fe_start_ring(struct fe *f, uint16_t base)
{
	fe_start_ring_at(f, 0, base);
}

uint16_t fe_read16(const struct fe *f, size_t off)
{
	const le16 *word = (const void *)(f->mem + off);

	return le16_to_cpu(*word);
}

void fe_write16(struct fe *f, size_t off, uint16_t val)
{
	le16 *word = (void *)(f->mem + off);

	*word = cpu_to_le16(val);
}

void fe_write_desc(struct fe *f, size_t off, uint64_t gpa, uint32_t len,
		   uint16_t flags)
{
	const struct vring_desc desc = {
		.addr = htole64(gpa),
		.len = htole32(len),
		.flags = htole16(flags),
	};

	memcpy(f->mem + off, &desc, sizeof(desc));
}

void fe_offer_buffer(struct fe *f, uint32_t len, uint16_t flags)
{
	uint16_t i = f->avail_idx % QSIZE;

	fe_write_desc(f, DESC + i * sizeof(struct vring_desc), GPA + BUF, len,
		      flags);
	fe_write16(f, AVAIL + 4 + 2 * i, i);
	fe_write16(f, AVAIL + 2, ++f->avail_idx);
}

void fe_offer(struct fe *f)
{
	fe_offer_buffer(f, 16, VRING_DESC_F_WRITE);
}

uint16_t fe_used_idx(struct fe *f)
{
	fe_iterate(f);
	return fe_read16(f, USED + 2);
}

void fe_kick(struct fe *f)
{
	assert_int_equal(eventfd_write(f->kick, 1), 0);
	fe_iterate(f);
}

bool fe_was_called(struct fe *f)
{
	eventfd_t count;

	fe_iterate(f);
	return eventfd_read(f->call, &count) == 0;
}

void fe_init(struct fe *f)
{
	strcpy(f->dir, "/tmp/vhost-user-test-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	snprintf(f->path, sizeof(f->path), "%s/sock", f->dir);
	assert_int_equal(vio_loop_create(&f->loop), 0);
	assert_int_equal(
		vio_server_create(f->loop, VIO_VHOST_USER, "test", &f->srv), 0);

	f->fd = -1;
	f->kick = eventfd(0, EFD_CLOEXEC);
	f->call = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	f->memfd = memfd_create("guest", MFD_CLOEXEC);
	assert_int_equal(ftruncate(f->memfd, MEM_BYTES), 0);
	f->mem = mmap(NULL, MEM_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED,
		      f->memfd, 0);
}

void fe_listen(struct fe *f)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	memcpy(addr.sun_path, f->path, sizeof(f->path));
	assert_int_equal(bind(fd, (void *)&addr, sizeof(addr)), 0);
	assert_int_equal(listen(fd, 4), 0);
	assert_int_equal(vio_server_listen(f->srv, fd), 0);
	fe_reconnect(f);
}

void fe_fini(struct fe *f)
{
	vio_server_destroy(f->srv);
	vio_loop_destroy(f->loop);
	munmap(f->mem, MEM_BYTES);
	close(f->fd);
	close(f->memfd);
	close(f->kick);
	close(f->call);
	unlink(f->path);
	rmdir(f->dir);
}

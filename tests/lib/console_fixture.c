/* SPDX-License-Identifier: BSD-2-Clause */
#include "console_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <fcntl.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/le.h"

#define MULTIPORT VI_BIT(VIRTIO_CONSOLE_F_MULTIPORT)

struct wire_msg {
	le32 id;
	le16 event, value;
};

void fixture_make(struct fixture *r, enum vdrv_mode mode, unsigned nr_ports,
		  const char *more)
{
	char text[4096] = "console", why[256] = "";
	int theirs[FIXTURE_MAX_PORTS];

	memset(r, 0, sizeof(*r));
	r->nr_ports = nr_ports;
	assert_int_equal(vio_loop_create(&r->loop), 0);
	vdrv_init(&r->d, mode);
	for (unsigned i = 0; i < nr_ports; i++) {
		size_t len = strlen(text);
		int pair[2];

		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC,
					    0, pair),
				 0);
		r->host[i] = pair[0];
		theirs[i] = pair[1];
		fcntl(pair[0], F_SETFL, O_NONBLOCK);
		if (i == 0)
			snprintf(text + len, sizeof(text) - len,
				 ",console=fd:%d", pair[1]);
		else
			snprintf(text + len, sizeof(text) - len,
				 ",port.p%u=fd:%d", i, pair[1]);
	}
	strcat(text, more);
	if (vdev_new(text, &r->d.pi, r->loop, &r->dev, why, sizeof(why)) < 0)
		fail_msg("%s", why);
	for (unsigned i = 0; i < nr_ports; i++)
		close(theirs[i]);
	r->ctl_gpa = vdrv_alloc(&r->d, 4096, 16);
}

void fixture_fini(struct fixture *r)
{
	vdev_destroy(r->dev);
	vdrv_fini(&r->d);
	vio_loop_destroy(r->loop);
	for (unsigned i = 0; i < r->nr_ports; i++) {
		if (r->host[i] >= 0)
			close(r->host[i]);
	}
	memset(r, 0, sizeof(*r));
}

void fixture_start(struct fixture *r, uint64_t features)
{
	unsigned nr_queues = r->nr_ports > 1 ? 2 * r->nr_ports + 2 : 2;

	assert_true(vdrv_start(&r->d, features, nr_queues));
}

void fixture_open(struct fixture *r, enum vdrv_mode mode, unsigned nr_ports)
{
	struct fixture_msg msg;

	fixture_make(r, mode, nr_ports, "");
	fixture_start(r, UINT64_MAX);
	if (nr_ports < 2)
		return;
	fixture_ctl_offer(r, 64, FIXTURE_CTL_ROOM);
	fixture_say(r, UINT32_MAX, VIRTIO_CONSOLE_DEVICE_READY, 1);
	for (unsigned i = 0; i < nr_ports; i++) {
		fixture_say(r, i, VIRTIO_CONSOLE_PORT_READY, 1);
		fixture_say(r, i, VIRTIO_CONSOLE_PORT_OPEN, 1);
		while (fixture_hear(r, &msg))
			fixture_ctl_offer(r, 1, FIXTURE_CTL_ROOM);
	}
}

void fixture_iterate(struct fixture *r, int n)
{
	while (n--)
		vio_loop_iterate(r->loop, 2);
}

unsigned fixture_rxq(unsigned port)
{
	return port ? 2 * port + 2 : 0;
}

unsigned fixture_txq(unsigned port)
{
	return port ? 2 * port + 3 : 1;
}

void fixture_say_bytes(struct fixture *r, const void *msg, uint32_t len)
{
	const struct vdrv_buf buf = { r->ctl_gpa, len, VDRV_R };
	struct vdrv_used used;

	memcpy(vdrv_ptr(&r->d, r->ctl_gpa, len), msg, len);
	vdrv_add(&r->d, 3, &buf, 1);
	vdrv_kick(&r->d, 3);
	assert_true(vdrv_used(&r->d, 3, &used));
	assert_int_equal(used.len, 0); /* CON-10 */
}

void fixture_say(struct fixture *r, uint32_t id, uint16_t event, uint16_t value)
{
	const struct wire_msg msg = { cpu_to_le32(id), cpu_to_le16(event),
				      cpu_to_le16(value) };

	fixture_say_bytes(r, &msg, sizeof(msg));
}

void fixture_ctl_offer(struct fixture *r, unsigned nr, uint32_t len)
{
	while (nr--) {
		/* Each descriptor has its place: found again by its number. */
		uint16_t head = r->d.q[2].free_head;
		struct vdrv_buf buf = { VDRV_MEM_BASE + (32u << 20) +
						head * FIXTURE_CTL_ROOM,
					len, VDRV_W };

		memset(vdrv_ptr(&r->d, buf.gpa, FIXTURE_CTL_ROOM), 0xaa,
		       FIXTURE_CTL_ROOM);
		vdrv_add(&r->d, 2, &buf, 1);
	}
	vdrv_kick(&r->d, 2);
}

bool fixture_hear(struct fixture *r, struct fixture_msg *ret_msg)
{
	struct vdrv_used used;
	struct wire_msg wire;
	const uint8_t *p;

	if (!vdrv_used(&r->d, 2, &used))
		return false;
	p = vdrv_ptr(&r->d,
		     VDRV_MEM_BASE + (32u << 20) + used.id * FIXTURE_CTL_ROOM,
		     FIXTURE_CTL_ROOM);
	memcpy(&wire, p, sizeof(wire));
	*ret_msg = (struct fixture_msg){
		.id = le32_to_cpu(wire.id),
		.used = used.len,
		.event = le16_to_cpu(wire.event),
		.value = le16_to_cpu(wire.value),
	};
	memcpy(ret_msg->rest, p + sizeof(wire), sizeof(ret_msg->rest));
	return true;
}

void fixture_expect(struct fixture *r, uint32_t id, uint16_t event,
		    uint16_t value)
{
	struct fixture_msg msg;

	if (!fixture_hear(r, &msg))
		fail_msg("no message, wanted %u of port %u", event, id);
	if (msg.id != id || msg.event != event || msg.value != value)
		fail_msg("port %u: event %u value %u, wanted %u: %u %u", msg.id,
			 msg.event, msg.value, id, event, value);
}

void fixture_write(struct fixture *r, unsigned port, const void *buf,
		   uint32_t len)
{
	struct vdrv_buf b = { vdrv_alloc(&r->d, len, 1), len, VDRV_R };

	memcpy(vdrv_ptr(&r->d, b.gpa, len), buf, len);
	vdrv_add(&r->d, fixture_txq(port), &b, 1);
	vdrv_kick(&r->d, fixture_txq(port));
}

int fixture_ctl(struct fixture *r, const char *words)
{
	struct opened_files none = { .nr = 0 };

	return fixture_ctl_with(r, words, &none);
}

int fixture_ctl_with(struct fixture *r, const char *words,
		     struct opened_files *files)
{
	struct json_object *reply = json_object_new_object();
	char copy[256], *argv[8], *rest = copy;
	struct err err = { "" };
	int argc = 0, ret;

	snprintf(copy, sizeof(copy), "%s", words);
	while (argc < 7 && (argv[argc] = strsep(&rest, " ")))
		argc++;
	argv[argc] = NULL;
	ret = vdev_ctl(r->dev, argc, argv, files, reply, &err);
	assert_true(ret == 0 || err.text[0]);
	json_object_put(reply);
	return ret;
}

int64_t fixture_status(struct fixture *r, unsigned port, const char *key)
{
	struct json_object *status = json_object_new_object(), *ports, *val;
	int64_t ret;

	vdev_status(r->dev, status);
	assert_true(json_object_object_get_ex(status, "ports", &ports));
	assert_true(json_object_object_get_ex(
		json_object_array_get_idx(ports, port), key, &val));
	ret = json_object_get_int64(val);
	json_object_put(status);
	return ret;
}

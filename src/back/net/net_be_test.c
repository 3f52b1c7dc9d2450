/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the network backends share: their options, and the two that need no
 * peer.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_net.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net_be_fixture.h"
#include "base/util.h"

/*
 * --- Options ---
 */

static void test_options(void **state)
{
	static const struct {
		const char *text, *why;
	} rows[] = {
		{ "net,backend=stream", "needs path= or addr=" },
		{ "net,backend=stream,path=a,addr=b:1",
		  "needs path= or addr=" },
		{ "net,backend=stream,path=/nowhere/x", "path=/nowhere/x" },
		{ "net,backend=stream,addr=nonsense", "must be HOST:PORT" },
		{ "net,backend=stream,ifname=tap0",
		  "ifname=tap0: not supported by" },
		{ "net,backend=stream,path=/x,queues=2", "queues=2" },
		{ "net,backend=dgram,local=/tmp/x", "remote=" },
		{ "net,backend=dgram,local=/nowhere/x,remote=/y", "/nowhere" },
		{ "net,backend=fd", "needs fd=" },
		{ "net,backend=fd,fd=999", "fd=999" },
		{ "net,backend=fd,fd=", "fd=" },
		{ "net,backend=fd,fd=0:", "must be a descriptor" },
		{ "net,backend=fd,fd=-1", "must be a descriptor" },
		{ "net,backend=fd,fd=0:1:x", "must be a descriptor" },
		{ "net,backend=fd,fd=99999999", "must be a descriptor" },
		{ "net,backend=fd,fd=0:0,queues=3", "2 descriptors" },
		{ "net,backend=fd,fd=0:0:0:0:0:0:0:0:0:0:0:0:0:0:0:0:0",
		  "up to 16" },
		{ "net,backend=fd,fd=0",
		  NULL }, /* the test's stdin: not a socket */
#if HAVE_LIBSLIRP
		{ "net,backend=user,hostfwd=tcp:x", "hostfwd=tcp:x" },
		{ "net,backend=user,hostfwd=icmp::1-:2", "hostfwd=" },
		{ "net,backend=user,hostfwd=tcp::0-:2", "hostfwd=" },
		{ "net,backend=user,hostfwd=tcp::99999-:2", "hostfwd=" },
		{ "net,backend=user,hostfwd=tcp:1.2.3:9-:2", "hostfwd=" },
		{ "net,backend=user,hostfwd=udp::5-:2+", "hostfwd=" },
		{ "net,backend=user,hostfwd=tcp:[::1:5-:2", "hostfwd=" },
		{ "net,backend=user,hostfwd=tcp:[::1]5-:2", "hostfwd=" },
		{ "net,backend=user,hostfwd=tcp:[1.2.3.4]:5-:2", "hostfwd=" },
		{ "net,backend=user,hostfwd=tcp:127.0.0.1:5-[fec0::15]:2",
		  "hostfwd=" },
		{ "net,backend=user,ipv6=off,hostfwd=tcp:[::1]:5-:2",
		  "ipv6=off" },
		{ "net,backend=user,ipv4=off,ipv6=off", "leave one" },
		{ "net,backend=user,net=10.0.5.0", "net=10.0.5.0: must be" },
		{ "net,backend=user,net=10.0.5.0/28", "net=" },
		{ "net,backend=user,net=10.0.5.0/7", "net=" },
		{ "net,backend=user,net=10.0.5.0/-24", "net=" },
		{ "net,backend=user,net=127.0.5.0/24", "net=" },
		{ "net,backend=user,net=224.0.5.0/24", "net=" },
		{ "net,backend=user,net=fd00::/48", "net=" },
		{ "net,backend=user,net=fe80::/64", "net=" },
		{ "net,backend=user,net=10.0.5.0/24+", "net=" },
		{ "net,backend=user,dns=one.one", "dns=one.one" },
		{ "net,backend=user,search=a+", "search=a+" },
		{ "net,backend=user,search=a..b", "search=" },
		{ "net,backend=user,search=a b", "search=" },
		{ "net,backend=user,search=a+b+c+d+e+f+g+h+i+j+k+l+m+n+o+p+q",
		  "search=" },
		{ "net,backend=user,tftp=/nowhere", "tftp=/nowhere" },
		{ "net,backend=user,tftp=/dev/null", "tftp=/dev/null" },
		{ "net,backend=null,tftp=/tmp", "not supported by" },
#else
		{ "net,backend=user", "built without libslirp" },
#endif
		{ "net,backend=tap,ifname=muchtoolongforaname", "too long" },
		{ "net,backend=other", "backend" },
		{ "net", "backend" },
	};

	for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
		struct err err = { "" };

		if (open_be(rows[i].text, &err) == 0)
			fail_msg("%s: opened", rows[i].text);
		if (rows[i].why && !strstr(err.text, rows[i].why))
			fail_msg("%s: %s", rows[i].text, err.text);
	}
}

/* No backend has both keys, so that none opens anything. */
static void test_choices(void **state)
{
	char *choices = strdup(be_opts[0].choices), *rest = choices;
	const char *name;

	while ((name = strsep(&rest, "|"))) {
		char text[64], why[64];
		struct err err = { "" };

		snprintf(text, sizeof(text),
			 "net,backend=%s,ifname=x,hostfwd=y", name);
		snprintf(why, sizeof(why), "not supported by backend=%s", name);
		if (open_be(text, &err) == 0 || !strstr(err.text, why))
			fail_msg("%s: %s", text, err.text);
	}
	free(choices);
}

static void test_null(void **state)
{
	must_open("net,backend=null,queues=4");
	assert_int_equal(be->nr_channels, 4);
	assert_int_equal(send_to(3, frame, 60), 0);
	assert_int_equal(receive(0, 100), -EAGAIN);
}

/* Frames of all lengths return through their channel, whole and in order. */
static void test_echo(void **state)
{
	const unsigned nr_channels = 3;
	unsigned sent = 0, seen = 0;

	must_open("net,backend=echo,queues=3");
	assert_int_equal(be->nr_channels, nr_channels);
	for (unsigned i = 1; i < nr_channels; i++)
		be->ops->watch(be, i, true);
	for (size_t len = 1; len <= NET_MAX_FRAME; len += 1 + len / 7) {
		assert_int_equal(send_to(len % nr_channels, frame, len), 0);
		assert_int_equal(got.nr, sent++); /* not from inside the call */
		iterate();
		assert_int_equal(got.nr, sent);
		assert_int_equal(got.len, len);
		assert_int_equal(got.channel, len % nr_channels);
		assert_memory_equal(got.data, frame, len);
	}

	/* Not received: the queue fills, and only later frames are lost. */
	be->ops->watch(be, 0, false);
	for (sent = 0; send_to(0, frame, 1000 + sent) == 0; sent++)
		;
	assert_in_range(sent, 100, 1000);
	for (unsigned round = 0; round < 500; round++) {
		assert_int_equal(receive(0, sizeof(got.data)), 1000 + seen);
		assert_memory_equal(got.data, frame, 1000 + seen);
		seen = (seen + 1) % 500;
		while (send_to(0, frame, 1000 + sent % 500) == 0)
			sent++;
	}
	/* Longer than the room: dropped whole. */
	assert_int_equal(receive(0, 100), 0);
	seen = (seen + 1) % 500;
	assert_int_equal(receive(0, sizeof(got.data)), 1000 + seen);
	assert_int_equal(send_to(1, frame, 0), -ENOBUFS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_options),
		TEST(test_choices),
		TEST(test_null),
		TEST(test_echo),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

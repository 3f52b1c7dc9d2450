/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzz target: clients of a device's control socket, which send valid requests
 * and noise, in pieces, with descriptors, and disconnect at any time, beside a
 * driver. Devices are created once, as that takes longest; changes by commands
 * are undone.
 */
#include <ctype.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/scm.h"
#include "base/util.h"
#include "dev/devices.h"
#include "fuzz_dev.h"
#include "viodev/ctl_server.h"

#define NR_CLIENTS 10u /* more than are served at a time */
#define MAX_WORDS  128u
#define MAX_TYPES  8u

static struct sockaddr_un addr = { .sun_family = AF_UNIX };
static socklen_t addr_len;
static struct ctl_server *server;
static struct fuzz_dev devs[MAX_TYPES], *dev;
static unsigned nr_types;
static int clients[NR_CLIENTS];
static int some_fd;

/* Words of commands: from their usage, and values. */
static char words[MAX_WORDS][16] = {
	"KEY_A", "BTN_LEFT", "REL_X",   "ABS_X",  "0",       "1",       "-1",
	"7",     "2G",       "512",     "1M",     "x",       "lun0",    "lun1",
	"80",    "",         "t1.lun0", "status", "lun3.ro", "lun1=/x",
};
static unsigned nr_words = 20;

static void add_words(const char *usage)
{
	char text[128], *save, *word;

	snprintf(text, sizeof(text), "%s", usage);
	for (word = strtok_r(text, " |[]=", &save); word;
	     word = strtok_r(NULL, " |[]=", &save))
		if (nr_words < MAX_WORDS && islower(word[0]))
			snprintf(words[nr_words++], sizeof(words[0]), "%s",
				 word);
}

static int on_command(void *arg, int argc, char *const argv[],
		      struct opened_files *files, struct json_object *reply,
		      struct err *err)
{
	if (strcmp(argv[0], "status") == 0) {
		vdev_status(dev->dev, reply);
		return 0;
	}
	return vdev_ctl(dev->dev, argc, argv, files, reply, err);
}

static void setup(void)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	for (unsigned i = 0; vdev_types[i]; i++)
		for (const struct vdev_ctl *c = vdev_types[i]->vt_ctls;
		     c && c->usage; c++)
			add_words(c->usage);
	/* A name that the kernel chooses, in no folder. */
	fuzz_must(bind(fd, (void *)&addr, sizeof(addr.sun_family)) == 0);
	addr_len = sizeof(addr);
	fuzz_must(getsockname(fd, (void *)&addr, &addr_len) == 0);
	fuzz_must(listen(fd, NR_CLIENTS) == 0);
	fuzz_must(ctl_server_create(fuzz_loop(), fd, on_command, NULL,
				    &server) == 0);
	some_fd = memfd_create("file", 0);
	fuzz_must(some_fd >= 0 && ftruncate(some_fd, 1 << 20) == 0);
	for (; fuzz_dev_type(nr_types); nr_types++)
		fuzz_dev_make_type(&devs[nr_types], VDRV_MODERN, nr_types);
}

static void change_back(void)
{
	static char commands[][4][12] = {
		{ "resize", "--shrink", "1M" },
		{ "resize", "--shrink", "lun0", "1M" },
		{ "lun", "remove", "lun1" },
		{ "lun", "remove", "lun3" },
		{ "link", "up" },
		{ "port", "add", "x" },
	};

	for (unsigned i = 0; i < ARRAY_LEN(commands); i++) {
		struct json_object *reply = json_object_new_object();
		char *const argv[] = { commands[i][0], commands[i][1],
				       commands[i][2], commands[i][3], NULL };
		int argc = 2;
		struct opened_files none = { .nr = 0 };
		struct err err;

		while (argc < 4 && argv[argc][0])
			argc++;
		vdev_ctl(dev->dev, argc, argv, &none, reply, &err);
		json_object_put(reply);
	}
}

/*
 * --- Clients ---
 */

static void read_replies(int fd)
{
	char bytes[4096];

	while (recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT) > 0)
		;
}

static void hang_up(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static void dial(int *fd)
{
	hang_up(fd);
	*fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (connect(*fd, (void *)&addr, addr_len) < 0)
		hang_up(fd); /* the queue is full */
	fuzz_dev_iterate();
}

static void send_bytes(int fd, const void *bytes, size_t len, unsigned nr_fds)
{
	int fds[] = { some_fd, some_fd, some_fd, some_fd };
	struct iovec iov = { (void *)bytes, len };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	union scm scm;

	if (nr_fds > 0 && len > 0)
		scm_attach(&msg, &scm, fds, nr_fds);
	sendmsg(fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void send_noise(int fd, struct fuzz_in *in)
{
	size_t len;
	const uint8_t *bytes = fuzz_take(in, fuzz_choice(in, 64), &len);

	send_bytes(fd, bytes, len, fuzz_one_in(in, 8) ? 1 : 0);
}

/* Send a request, as far as it fits. */
static void send_request(int fd, struct fuzz_in *in)
{
	char text[1024] = "";
	unsigned nr = 1 + fuzz_choice(in, 6);
	unsigned nr_fds = fuzz_one_in(in, 4) ? fuzz_choice(in, 5) : 0;
	bool object = fuzz_bool(in);
	size_t len = 0;

	len += (size_t)snprintf(text, sizeof(text), "%s[",
				object ? "{\"command\":" : "");
	for (unsigned i = 0; i < nr; i++)
		len += (size_t)snprintf(text + len, sizeof(text) - len,
					"%s\"%s\"", i ? "," : "",
					words[fuzz_choice(in, nr_words)]);
	len += (size_t)snprintf(text + len, sizeof(text) - len, "]");
	if (object && nr_fds)
		len += (size_t)snprintf(text + len, sizeof(text) - len,
					",\"files\":[\"%s\",\"pr\"]",
					words[fuzz_choice(in, nr_words)]);
	len += (size_t)snprintf(text + len, sizeof(text) - len, "%s\n",
				object ? "}" : "");
	send_bytes(fd, text, len, nr_fds);
}

static void client_step(int *fd, struct fuzz_in *in)
{
	switch (fuzz_choice(in, 8)) {
	case 0:
		dial(fd);
		break;
	case 1:
		send_noise(*fd, in);
		break;
	case 2:
		read_replies(*fd);
		break;
	case 3:
		hang_up(fd);
		break;
	case 4:
		shutdown(*fd, SHUT_WR);
		break;
	case 5:
		send_bytes(*fd, "\n", 1, 0);
		break;
	default:
		send_request(*fd, in);
		break;
	}
}

static void driver_step(struct fuzz_in *in)
{
	unsigned q = fuzz_choice(in, 2);

	fuzz_dev_desc(dev, q, in);
	fuzz_dev_avail(dev, q, in);
	fuzz_dev_kick(dev, q);
}

static void run(struct fuzz_in *in)
{
	dev = &devs[fuzz_choice(in, nr_types)];
	fuzz_dev_start(dev, ~0ull, 2);
	memset(clients, -1, sizeof(clients));
	dial(&clients[0]);
	while (fuzz_more(in)) {
		if (fuzz_one_in(in, 8))
			driver_step(in);
		else
			client_step(
				&clients[fuzz_choice(in, 4) % 3 ?
						 0 :
						 fuzz_choice(in, NR_CLIENTS)],
				in);
		fuzz_dev_iterate();
	}
	for (unsigned i = 0; i < NR_CLIENTS; i++)
		hang_up(&clients[i]);
	for (unsigned i = 0; i < 2 * NR_CLIENTS; i++)
		fuzz_dev_iterate(); /* each is accepted, and found to be gone */
	change_back();
	fuzz_dev_end(dev);
}

const struct fuzz_target fuzz_target = { .setup = setup, .run = run };

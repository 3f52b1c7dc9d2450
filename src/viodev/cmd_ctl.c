/* SPDX-License-Identifier: BSD-2-Clause */
/* viodev ctl: send commands to a running device. See ctl_server.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/json.h"
#include "base/scm.h"
#include "base/unix.h"
#include "dev/vdev.h"
#include "viodev/cmd.h"
#include "viodev/log.h"
#include "viodev/replay.h"

#define PATIENCE_S 10
#define MAX_REPLY  (1 << 20)

static const char help[] =
	"viodev ctl [--json] SOCKET COMMAND...\n"
	"viodev ctl [--json] SOCKET -\n"
	"viodev ctl [--json] SOCKET replay FILE\n"
	"\n"
	"Sends a command to a running device. SOCKET is its DIR/ID.ctl.\n"
	"\n"
	"  help               list the commands of the device\n"
	"  status             show the state of the device\n"
	"  resize SIZE        block: resize the disk; --shrink: even to less\n"
	"\n"
	"'-' reads commands from standard input, one JSON array per line:\n"
	"[\"inject\", \"key\", \"KEY_A\", \"1\"]. 'replay' takes such a file, "
	"or an\n"
	"evemu-record recording, which it replays with the original timing.\n"
	"\n"
	"'viodev devices TYPE' lists the commands of a type.\n";

/*
 * --- The socket ---
 */

static int connect_to(const char *path)
{
	struct timeval patience = { .tv_sec = PATIENCE_S };
	struct sockaddr_un addr;
	int ret = unix_address(path, &addr), fd;

	if (ret < 0)
		return ret;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	if (connect(fd, (const struct sockaddr *)&addr, sizeof(addr)) < 0) {
		ret = -errno;
		close(fd);
		return ret;
	}
	return fd;
}

static int send_all(int fd, const char *text, size_t len)
{
	while (len > 0) {
		ssize_t n = send(fd, text, len, MSG_NOSIGNAL);

		if (n < 0)
			return -errno;
		text += n;
		len -= (size_t)n;
	}
	return 0;
}

/* Descriptors travel with a byte: the first one of the request. */
static int send_files(int fd, const struct opened_files *files, char first)
{
	struct iovec iov = { &first, 1 };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	int fds[SCM_MAX_FDS];
	union scm scm;

	if (files->nr > SCM_MAX_FDS)
		return -E2BIG;
	for (unsigned i = 0; i < files->nr; i++)
		fds[i] = files->file[i].fd;
	scm_attach(&msg, &scm, fds, files->nr);
	return sendmsg(fd, &msg, MSG_NOSIGNAL) == 1 ? 0 : -errno;
}

static int send_request(FILE *peer, struct json_object *request,
			const struct opened_files *files)
{
	const char *text =
		json_object_to_json_string_ext(request, JSON_C_TO_STRING_PLAIN);
	int fd = fileno(peer), ret = 0;

	if (files && files->nr > 0)
		ret = send_files(fd, files, *text++);
	if (ret == 0)
		ret = send_all(fd, text, strlen(text));
	return ret < 0 ? ret : send_all(fd, "\n", 1);
}

/* A line without its newline, the caller's; NULL with errno. */
static char *receive_line(FILE *in)
{
	char *text = malloc(MAX_REPLY), *end = NULL;

	errno = ECONNRESET; /* end of file without a line */
	if (text && fgets(text, MAX_REPLY, in)) {
		end = strchr(text, '\n');
		errno = strlen(text) == MAX_REPLY - 1 ? EMSGSIZE : EPROTO;
	}
	if (end) {
		*end = '\0';
		return text;
	}
	free(text);
	return NULL;
}

/* The reply, one line of JSON, parsed; NULL with errno. */
static struct json_object *receive_reply(FILE *in)
{
	char *text = receive_line(in);
	struct json_object *reply = NULL;

	if (text) {
		reply = json_tokener_parse(text);
		free(text);
		errno = EPROTO;
	}
	return reply;
}

/*
 * --- What is printed ---
 */

/*
 * A compromised device may reply with anything: its text must not control the
 * user's terminal.
 */
static void print_text(FILE *to, const char *text)
{
	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;
		bool c1 = c == 0xc2 && ((unsigned char)text[1] & 0xe0) == 0x80;

		putc(c < ' ' || c == 0x7f || c1 ? '?' : c, to);
		text += c1;
	}
}

static const char *plain(struct json_object *value)
{
	if (json_object_is_type(value, json_type_boolean))
		return json_object_get_boolean(value) ? "yes" : "no";
	return value ? json_object_get_string(value) : "none";
}

static void print_key(const char *key, int indent)
{
	printf("%*s", indent, "");
	print_text(stdout, key);
	putchar(':');
}

static void print_value(const char *key, struct json_object *value, int indent);

static void print_object(struct json_object *object, int indent)
{
	json_object_object_foreach(object, key, value)
		print_value(key, value, indent);
}

static void print_array(const char *key, struct json_object *list, int indent)
{
	size_t nr = json_object_array_length(list);
	char name[64];

	if (nr == 0 || !json_object_is_type(json_object_array_get_idx(list, 0),
					    json_type_object)) {
		print_key(key, indent);
		for (size_t i = 0; i < nr; i++) {
			putchar(' ');
			print_text(stdout,
				   plain(json_object_array_get_idx(list, i)));
		}
		putchar('\n');
		return;
	}
	for (size_t i = 0; i < nr; i++) {
		snprintf(name, sizeof(name), "%s[%zu]", key, i);
		print_value(name, json_object_array_get_idx(list, i), indent);
	}
}

static void print_value(const char *key, struct json_object *value, int indent)
{
	if (json_object_is_type(value, json_type_array)) {
		print_array(key, value, indent);
	} else if (json_object_is_type(value, json_type_object)) {
		print_key(key, indent);
		putchar('\n');
		print_object(value, indent + 2);
	} else {
		print_key(key, indent);
		putchar(' ');
		print_text(stdout, plain(value));
		putchar('\n');
	}
}

static void print_error(const char *text)
{
	fputs("viodev: ctl: ", stderr);
	print_text(stderr, text);
	putc('\n', stderr);
}

static int print_reply(const struct cmdline *line, struct json_object *reply)
{
	struct json_object *ok, *value;

	if (!json_object_object_get_ex(reply, "ok", &ok))
		return log_usage("ctl: socket=%s: not a viodev control socket",
				 line->words[0]);
	if (line->json)
		puts(json_object_to_json_string_ext(
			reply, JSON_C_TO_STRING_PLAIN |
				       JSON_C_TO_STRING_NOSLASHESCAPE));
	if (!json_object_get_boolean(ok)) {
		if (!line->json &&
		    json_object_object_get_ex(reply, "error", &value))
			print_error(plain(value));
		return EXIT_FAILED;
	}
	if (!line->json && json_object_object_get_ex(reply, "reply", &value) &&
	    json_object_is_type(value, json_type_object))
		print_object(value, 0);
	return EXIT_OK;
}

/*
 * --- The command ---
 */

/* The device's own socket, given by mistake, closes the connection. */
static int no_answer(const struct cmdline *line, int error)
{
	bool closed = error == EPIPE || error == ECONNRESET;

	return log_usage("ctl: socket=%s: no answer: %s%s", line->words[0],
			 error == EAGAIN ? "timed out" : strerror(error),
			 closed ? ": is it the control socket, ID.ctl?" : "");
}

/* Send a request and print the reply. Returns the exit status. */
static int ask(const struct cmdline *line, FILE *peer,
	       struct json_object *request, const struct opened_files *files)
{
	struct json_object *reply;
	int ret = send_request(peer, request, files);

	if (ret < 0)
		return no_answer(line, -ret);
	reply = receive_reply(peer);
	if (!reply)
		return no_answer(line, errno);
	ret = print_reply(line, reply);
	json_object_put(reply);
	return ret;
}

static struct json_object *make_request(const struct cmdline *line,
					const struct opened_files *files)
{
	struct json_object *request = json_object_new_object();
	struct json_object *words = json_object_new_array();
	struct json_object *names = json_object_new_array();

	for (int i = 1; i < line->nr_words; i++)
		json_push_string(words, line->words[i]);
	for (unsigned i = 0; i < files->nr; i++)
		json_push_string(names, files->file[i].name);
	json_object_object_add(request, "command", words);
	json_object_object_add(request, "files", names);
	return request;
}

/* Files that the command names are opened here, with the user's rights. */
static int ask_words(const struct cmdline *line, FILE *peer)
{
	struct json_object *request;
	struct opened_files files;
	struct err err;
	int ret = vdev_ctl_open(line->nr_words - 1, line->words + 1, &files,
				&err);

	if (ret < 0)
		return log_usage("ctl: %s", err.text);
	request = make_request(line, &files);
	ret = ask(line, peer, request, &files);
	if (ret == EXIT_FAILED)
		vdev_ctl_close(line->nr_words - 1, line->words + 1, &files);
	json_object_put(request);
	opened_files_close(&files);
	return ret;
}

/* Send all requests of a file, up to the first that fails. */
static int ask_file(const struct cmdline *line, FILE *peer, FILE *in)
{
	struct replay r = { .in = in };
	struct json_object *request;
	struct err err;
	int ret, status = EXIT_OK;

	while (status == EXIT_OK &&
	       (ret = replay_next(&r, &request, &err)) != 0) {
		if (ret < 0)
			status = log_usage("ctl: %s", err.text);
		else
			status = ask(line, peer, request, NULL);
		if (ret > 0)
			json_object_put(request);
	}
	replay_fini(&r);
	return status;
}

static int ask_all(const struct cmdline *line, FILE *peer)
{
	FILE *in;
	int ret;

	if (line->nr_words == 2 && strcmp(line->words[1], "-") == 0)
		return ask_file(line, peer, stdin);
	if (line->nr_words != 3 || strcmp(line->words[1], "replay") != 0)
		return ask_words(line, peer);
	in = fopen(line->words[2], "re");
	if (!in)
		return log_usage("ctl: replay %s: %s", line->words[2],
				 strerror(errno));
	ret = ask_file(line, peer, in);
	fclose(in);
	return ret;
}

static int ctl(const struct cmdline *line)
{
	FILE *peer;
	int fd, ret;

	if (line->nr_words == 1 && strcmp(line->words[0], "help") == 0) {
		fputs(help, stdout);
		return EXIT_OK;
	}
	if (line->nr_words < 2)
		return log_usage("ctl: usage: viodev ctl SOCKET COMMAND..., "
				 "such as DIR/ID.ctl status");
	fd = connect_to(line->words[0]);
	if (fd < 0)
		return log_usage("ctl: socket=%s: %s", line->words[0],
				 strerror(-fd));
	peer = fdopen(fd, "r");
	if (!peer) {
		close(fd);
		return log_usage("ctl: out of memory");
	}
	ret = ask_all(line, peer);
	fclose(peer);
	return ret;
}

const struct cmd cmd_ctl = {
	.name = "ctl",
	.options = " json ",
	.flags_at = 2, /* SOCKET COMMAND: the device has flags of its own */
	.help = help,
	.run = ctl,
};
